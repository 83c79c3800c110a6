"""What coordinates are ranked by, without ever holding a score of each."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise
from typing import TypeVar

import numpy as np
import numpy.typing as npt

Float32 = npt.NDArray[np.float32]
Float64 = npt.NDArray[np.float64]
Int64 = npt.NDArray[np.int64]
UInt32 = npt.NDArray[np.uint32]
Bool = npt.NDArray[np.bool_]
Number = TypeVar("Number", bound=np.generic)

CHUNK = 1 << 16
LANES = 1 << 11
"""In which squares are summed: element j of a segment goes to lane ``j % LANES``."""
# Weights below this have denormal products with float32 numbers.
COARSE = 1e-260
FLOAT32_TINY = np.float32(np.nextafter(np.float32(0), np.float32(1)))


class NotFinite(Exception):  # noqa: N818 (a fact for the caller, who knows the tensor's name)
    """The vector holds NaN or infinity at `index`; with `of_sum`, what it was added to was finite there."""

    def __init__(self, index: int, of_sum: bool = False) -> None:
        super().__init__(index)
        self.index = index
        self.of_sum = of_sum


@dataclass(frozen=True, slots=True, eq=False)
class Carry:
    """What is added to a vector before it is ranked: ``into = (a + 0) + factor * residual``.

    Adding 0 makes -0.0 plain 0.0, here and in a residual that decayed to it.

    Args:
        into: float32[n], overwritten by the sum.
        residual: float32[n], or None for nothing.
        factor: on the residual.
    """

    into: Float32
    residual: Float32 | None = None
    factor: float = 1.0


@dataclass(frozen=True, slots=True, eq=False)
class Ranking:
    """What the coordinates are ranked by.

    Args:
        a: float32[n], the vector to select from. Coordinates that are zero are never selected.
        edges: int64[tensors + 1], where tensors begin and end in `a`.
        weights: float64[tensors] or float64[n], factor on ``|a|``; a weight of 0 excludes.
        key: when given, scores are random priorities of the stream `key` instead, among coordinates
            whose weight is not 0.
    """

    a: Float32
    edges: Int64
    weights: Float64
    key: int | None = None

    @property
    def by_threshold(self) -> bool:
        """Whether a test of a score is one compare of ``|a|`` with a number per tensor."""
        return self.key is None and self.per_tensor(self.weights)

    def per_tensor(self, numbers: npt.NDArray[np.generic]) -> bool:
        """Whether `numbers` are one per tensor rather than one per coordinate."""
        return numbers.size == self.edges.size - 1

    def spread(self, numbers: npt.NDArray[Number], indices: Int64 | UInt32) -> npt.NDArray[Number]:
        """Numbers per tensor or per coordinate, read at ascending `indices`."""
        if not self.per_tensor(numbers):
            return numbers[indices]
        if not numbers.size:
            return numbers  # No parameters, no tensors.
        if numbers.min() == numbers.max():
            return np.broadcast_to(numbers[0], indices.shape)
        return np.repeat(numbers, np.diff(np.searchsorted(indices, self.edges.astype(indices.dtype))))

    def segments(self) -> Iterator[tuple[int, int, int]]:
        """Chunks that do not cross tensors, as (tensor, start, stop)."""
        edges = self.edges.tolist()
        for tensor, (start, stop) in enumerate(pairwise(edges)):
            for begin in range(start, stop, CHUNK):
                yield tensor, begin, min(begin + CHUNK, stop)

    def scores(self, tensor: int, start: int, stop: int) -> Float64:
        """Scores of one segment: float64[stop - start]."""
        magnitude = np.abs(self.a[start:stop])
        weight = self.weights[tensor] if self.per_tensor(self.weights) else self.weights[start:stop]
        if self.key is None:
            return np.multiply(magnitude, weight, dtype=np.float64)
        priority = uniform(self.key, start, stop) + 2.0**-53
        return np.where((magnitude > 0) & (np.asarray(weight) > 0), priority, 0.0)

    def scores_at(self, indices: Int64 | UInt32) -> Float64:
        """Scores of ascending coordinates."""
        return self.scores_of(indices, self.a[indices])

    def scores_of(self, indices: Int64 | UInt32, values: Float32) -> Float64:
        """Scores of ascending coordinates, whose entries in the vector are `values`."""
        weight = self.spread(self.weights, indices)
        if self.key is None:
            magnitude: Float64 = np.abs(values, dtype=np.float64)
            magnitude *= weight
            return magnitude
        priority = uniform_at(self.key, indices) + 2.0**-53
        return np.where((values != 0) & (weight > 0), priority, 0.0)


@dataclass(frozen=True, slots=True, eq=False)
class Prefix:
    """The coordinates at the top of a ranking that a limit leaves.

    Args:
        indices: uint32[k], ascending.
        values: float32[k], the entries of the vector there.
        spent: their cost, in quanta.
        misfit: the next coordinate of the order, the first that does not fit; None when all fit.
        squares: sum of squares of the whole vector.
    """

    indices: UInt32
    values: Float32
    spent: int
    misfit: int | None
    squares: float


def uniform(key: int, start: int, stop: int) -> Float64:
    """Random numbers in [0, 1) of coordinates start to stop: the top 53 bits of ``splitmix64(key + i)``."""
    return uniform_at(key, np.arange(start, stop, dtype=np.uint64))


def uniform_at(key: int, indices: npt.NDArray[np.unsignedinteger] | Int64) -> Float64:
    """Random numbers in [0, 1) of the coordinates `indices`; the order of asking does not matter."""
    z = indices.astype(np.uint64) + np.uint64(key)
    # The counter form of splitmix64 (Steele, Lea and Flood, 2014): state key + i, an increment, the mix.
    z += np.uint64(0x9E3779B97F4A7C15)
    z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    z ^= z >> np.uint64(31)
    return (z >> np.uint64(11)).astype(np.float64) * 2.0**-53


def carried(a: Float32, carry: Carry) -> Float32:
    """Writes ``(a + 0) + factor * residual`` into the carry and gives it back; `a` and the residual are not touched.

    Raises:
        NotFinite: the vector, or else the sum, holds NaN or infinity.
    """
    scaled, factor = np.empty(CHUNK, np.float32), np.float32(carry.factor)
    first = None
    for start in range(0, a.size, CHUNK):
        total = carry.into[start : start + CHUNK]
        np.add(a[start : start + CHUNK], np.float32(0), out=total)
        with np.errstate(over="ignore", under="ignore", invalid="ignore"):
            if carry.residual is not None:
                total += np.multiply(carry.residual[start : start + CHUNK], factor, out=scaled[: total.size])
        # What is not finite stays so in the sum: one look is enough.
        if first is None and not np.isfinite(total).all():
            first = start
    if first is None:
        return carry.into
    bad = first_not_finite(a)
    if bad is not None:
        raise NotFinite(bad)
    raise NotFinite(first + int(np.argmin(np.isfinite(carry.into[first : first + CHUNK]))), of_sum=True)


def first_not_finite(a: Float32) -> int | None:
    """Index of the first NaN or infinity, or None."""
    for start in range(0, a.size, CHUNK):
        bad = ~np.isfinite(a[start : start + CHUNK])
        if bad.any():
            return start + int(bad.argmax())
    return None


def sum_of_squares(segment: Float32, start: int, squares: Float32 | None = None) -> float:
    """Sum of squares of the segment that begins at `start`; also the place where NaN and infinity are met.

    The order of the additions is fixed, so that the kernel gives the same bits. Overflow is dealt with here: the
    caller keeps NumPy from warning of it.

    Args:
        segment: float32[m].
        start: where it begins in the vector.
        squares: float32[m] to write the squares into, as float32 rounds them.

    Raises:
        NotFinite: the segment holds one of them.
    """
    total = _sum_in_lanes(np.square(segment, out=squares))
    if 1e-24 < total < np.inf:
        return total
    # Too small or too large for float32, or not a number at all: look again in float64.
    bad = first_not_finite(segment)
    if bad is not None:
        raise NotFinite(start + bad)
    return _sum_in_lanes(np.square(segment, dtype=np.float64))


def _sum_in_lanes(squares: Float32 | Float64) -> float:
    """Sum of numbers above 0: in `LANES` lanes, those in 64, those in 8, and those one after another in float64."""
    whole = squares.size - squares.size % LANES
    lanes = np.add.reduce(squares[:whole].reshape(-1, LANES), axis=0)  # Row after row.
    lanes[: squares.size - whole] += squares[whole:]
    for fewer in (64, 8):
        lanes = np.add.reduce(lanes.reshape(-1, fewer), axis=0)
    total = 0.0
    for lane in lanes.tolist():  # Not sum(), which compensates for rounding from Python 3.12 on.
        total += lane
    return total


def float32_thresholds(weights: Float64, lo: float) -> Float32:
    """The smallest positive float32 t with ``t * weight >= lo`` for each weight; infinity where none is."""
    with np.errstate(divide="ignore", over="ignore", under="ignore", invalid="ignore"):
        t = np.maximum((lo / weights).astype(np.float32), FLOAT32_TINY)
        for _ in range(2):
            lower = np.nextafter(t, np.float32(0))
            t = np.where((lower > 0) & (lower * weights >= lo), lower, t)
        for _ in range(2):
            t = np.where(t * weights < lo, np.nextafter(t, np.float32(np.inf)), t)
    t = np.where(weights > 0, t, np.float32(np.inf)).astype(np.float32)
    coarse = (weights > 0) & (weights < COARSE)
    if coarse.any():
        t[coarse] = _bisected(weights[coarse], lo)
    return t


def _bisected(weights: Float64, lo: float) -> Float32:
    """Like `float32_thresholds`, where products may be denormal, so that their quotient tells little."""
    below = np.zeros(weights.size, np.uint32)  # Bits of zero, which never reaches `lo`,
    at = np.full(weights.size, np.float32(np.inf)).view(np.uint32)  # and of infinity, which does.
    while (at - below > 1).any():
        middle = below + (at - below) // 2
        reaches = middle.view(np.float32) * weights >= lo
        below, at = np.where(reaches, below, middle), np.where(reaches, middle, at)
    return at.view(np.float32)
