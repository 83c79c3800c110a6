"""Positions of kept coordinates as Rice-coded gaps (R. F. Rice, JPL Publication 79-22, 1979).

A gap is the number of coordinates that are skipped. With parameter b its quotient by 2**b is written in
unary, zeros closed by a one, and its b lowest bits in planes. With b = 0 the unary stream is a bitmap up to
the last position listed. Every tensor has its own b; the streams run through all tensors without a break.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from joulewise import refusals
from joulewise.bits import Bits, Counts, Numbers, read_planes, reduce_segments, write_planes

CANDIDATES = 3


def complement(positions: Numbers, counts: Counts, offsets: Counts, flip: npt.NDArray[np.bool_]) -> Numbers:
    """In the tensors marked by `flip`, list the coordinates that were not listed.

    Args:
        positions: ascending coordinates of the flat vector: uint32[sum(counts)].
        counts: how many of them lie in each tensor: int64[tensors].
        offsets: where each tensor starts, and the end of the last: int64[tensors + 1].
        flip: bool[tensors].

    Example:
        >>> listed, counts, offsets = np.array([0, 4], np.uint32), np.array([1, 1]), np.array([0, 3, 6])
        >>> complement(listed, counts, offsets, flip=np.array([True, False]))
        array([1, 2, 4], dtype=uint32)
    """
    if not flip.any():
        return positions
    pieces, stops = [np.zeros(0, np.uint32)], np.cumsum(counts)
    for tensor in np.flatnonzero(flip | (counts > 0)):
        piece = positions[stops[tensor] - counts[tensor] : stops[tensor]]
        if flip[tensor]:
            start = np.uint32(offsets[tensor])
            absent = np.ones(int(offsets[tensor + 1] - offsets[tensor]), np.bool_)
            absent[piece - start] = False
            piece = np.flatnonzero(absent).astype(np.uint32) + start
        pieces.append(piece)
    return np.concatenate(pieces)


def gaps_of(positions: Numbers, counts: Counts, offsets: Counts) -> Numbers:
    """How many coordinates each position skips since the last, or since its tensor began: uint32[positions].

    Example:
        >>> gaps_of(np.array([1, 4, 5], np.uint32), np.array([2, 1]), np.array([0, 5, 9])).tolist()
        [1, 2, 0]
    """
    gaps = np.empty_like(positions)
    np.subtract(positions[1:], positions[:-1], out=gaps[1:])
    gaps -= np.uint32(1)
    firsts = (np.cumsum(counts) - counts)[counts > 0]
    gaps[firsts] = positions[firsts] - offsets[:-1][counts > 0].astype(np.uint32)
    return gaps


def rice_parameters(gaps: Numbers, counts: Counts) -> Bits:
    """The parameter b that makes each tensor's gaps shortest, the least of equals; 0 where there is no gap.

    With j the bit length of the rounded-down mean gap, the best b lies in j - 2 ... j for any gaps at all:
    b + 1 can only be shorter than b while 2**b < mean, and always is while 2**b < (mean + 1) / 3
    (A. Kiely, "Selecting the Golomb Parameter in Rice Coding", IPN Progress Report 42-159, 2004).

    Example:
        >>> rice_parameters(np.array([100, 90, 120, 0], np.uint32), np.array([3, 1])).tolist()
        [6, 0]
    """
    totals = reduce_segments(np.add, gaps.astype(np.int64), counts)
    means = totals // np.maximum(counts, 1)
    lowest = np.array([max(0, int(mean).bit_length() - 2) for mean in means.tolist()], np.int64)
    quotients = gaps >> np.repeat(lowest.astype(np.uint32), counts)
    sizes: list[Counts] = [
        reduce_segments(np.add, (quotients >> np.uint32(more)).astype(np.int64), counts) + counts * more
        for more in range(CANDIDATES)
    ]
    best: Counts = lowest + np.argmin(sizes, axis=0)
    return best.astype(np.uint8)


def write_positions(gaps: Numbers, counts: Counts, parameters: Bits) -> tuple[Bits, list[Bits], Counts]:
    """Rice-code the gaps.

    Returns:
        The unary stream of the quotients, the planes of the remainders, and the bits of both by tensor.

    Example:
        >>> gaps, parameters = np.array([5, 2], np.uint32), np.array([1], np.uint8)
        >>> unary, planes, bits = write_positions(gaps, np.array([2]), parameters)
        >>> unary.tolist(), [plane.tolist() for plane in planes], bits.tolist()
        ([0, 0, 1, 0, 1], [[1, 0]], [7])
    """
    widths = np.repeat(parameters, counts)
    ends = np.cumsum((gaps >> widths) + np.int64(1))
    unary = np.zeros(int(ends[-1]) if len(ends) else 0, np.uint8)
    unary[ends - 1] = 1
    return unary, write_planes(gaps, widths), _unary_bits(ends, counts) + counts * parameters


def longest_unary(counts: Counts, sizes: Counts, parameters: Bits) -> int:
    """The most unary bits that such tensors can need."""
    return int((counts + ((sizes - counts) >> parameters)).sum())


def read_positions(
    unary: Bits, planes: Bits, counts: Counts, offsets: Counts, parameters: Bits
) -> tuple[Numbers, Numbers]:
    """Read back what `write_positions` wrote.

    Returns:
        The ascending positions in the flat vector and their gaps.

    Raises:
        PayloadError: the streams do not list `counts` positions, or one lies outside its tensor.
    """
    ends = np.flatnonzero(unary.view(np.bool_))
    if len(ends) != counts.sum() or (ends[-1] + 1 if len(ends) else 0) != len(unary):
        raise refusals.wrong_count(len(ends), int(counts.sum()))
    sizes = np.diff(offsets)
    # The quotients are checked first, so that no shift or sum below can overflow.
    if (_unary_bits(ends + 1, counts) - counts > sizes >> parameters).any():
        raise refusals.outside_tensor()
    widths = np.repeat(parameters, counts)
    gaps = np.diff(ends, prepend=-1) - 1
    gaps <<= widths
    gaps |= read_planes(planes, widths)
    stops = np.cumsum(gaps + 1)
    lasts = _last_of(stops, counts)
    if (np.diff(lasts, prepend=0) > sizes).any():
        raise refusals.outside_tensor()
    before = lasts - np.diff(lasts, prepend=0)
    return (stops + np.repeat(offsets[:-1] - 1 - before, counts)).astype(np.uint32), gaps.astype(np.uint32)


def _last_of(stops: Counts, counts: Counts) -> Counts:
    """The running sum at the end of each tensor: int64[tensors]."""
    reached = np.cumsum(counts)
    lasts = np.zeros(len(counts), np.int64)
    lasts[reached > 0] = stops[reached[reached > 0] - 1]
    return lasts


def _unary_bits(ends: Counts, counts: Counts) -> Counts:
    return np.diff(_last_of(ends, counts), prepend=0)
