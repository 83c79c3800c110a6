"""Values of a whole payload, one value type after another: float32, float16, bfloat16, int8, ternary."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from joulewise import refusals
from joulewise.bits import Bits, Counts, Numbers, read_planes, write_planes
from joulewise.layout import Vector
from joulewise.rounding import SCALED, VALUE_TYPES, ValueType, further_bits, join, split

Mask = npt.NDArray[np.bool_]


def groups(kinds: Sequence[ValueType], kept: Counts) -> Iterator[tuple[ValueType, Mask, Mask | slice]]:
    """Each value type that is in use, the tensors that have it, and where their values lie.

    Example:
        >>> [kind for kind, _, _ in groups(["int8", "float32", "float16"], np.array([2, 1, 0]))]
        ['float32', 'int8']
    """
    for kind in VALUE_TYPES:
        tensors = np.array([other == kind for other in kinds], np.bool_) & (kept > 0)
        if tensors.any():
            alone = bool((tensors == (kept > 0)).all())
            yield kind, tensors, slice(None) if alone else np.repeat(tensors, kept)


def section_bytes(kinds: Sequence[ValueType], kept: Counts) -> list[int]:
    """Length of each type's section of whole bytes.

    Example:
        >>> section_bytes(["float32", "float16"], np.array([2, 5]))
        [6, 5]
    """
    return [int(kept[tensors].sum()) * (further_bits(kind) // 8) for kind, tensors, _ in groups(kinds, kept)]


def plane_bits(kinds: Sequence[ValueType], kept: Counts) -> int:
    """How many bits lie in planes, because they do not fill a byte.

    Example:
        >>> plane_bits(["float32", "float16"], np.array([2, 5]))
        15
    """
    return sum(int(kept[tensors].sum()) * (further_bits(kind) % 8) for kind, tensors, _ in groups(kinds, kept))


@dataclass(frozen=True, slots=True, eq=False)
class Parts:
    """The values of all tensors, taken apart.

    Args:
        symbols: uint8[k], in the order of the values.
        sections: for each type in use the whole bytes of the further bits.
        planes: the odd bits.
        largest: each tensor's largest magnitude, as `rounding.split` gives it: float32[tensors].
        rounded: what a decoder will read: float32[k]; the values themselves where every type is exact.
    """

    symbols: Bits
    sections: list[bytes]
    planes: list[Bits]
    largest: Vector
    rounded: Vector


def split_all(values: Vector, kinds: Sequence[ValueType], kept: Counts) -> Parts:
    r"""Round and take apart the values of all tensors, each tensor in its own type.

    Example:
        >>> parts = split_all(np.array([1.0, -3.0], np.float32), ["bfloat16", "int8"], np.array([1, 1]))
        >>> parts.symbols, parts.sections, parts.rounded
        (array([127, 127], dtype=uint8), [b'\x00', b''], array([ 1., -3.], dtype=float32))
    """
    symbols, largest = np.empty(len(values), np.uint8), np.zeros(len(kinds), np.float32)
    rounded: Vector | None = None
    sections: list[bytes] = []
    planes: list[Bits] = []
    for kind, tensors, items in groups(kinds, kept):
        symbols[items], further, largest[tensors] = split(values[items], kind, kept[tensors])
        if kind != "float32":
            rounded = values.copy() if rounded is None else rounded
            rounded[items] = join(symbols[items], further, kind, kept[tensors], largest[tensors])
        whole, odd = divmod(further_bits(kind), 8)
        sections.append(further.astype("<u4", copy=False).view(np.uint8).reshape(-1, 4)[:, :whole].tobytes())
        if odd:
            planes += write_planes(further >> np.uint32(8 * whole), np.full(len(further), odd, np.uint8))
    return Parts(symbols, sections, planes, largest, values if rounded is None else rounded)


def join_all(
    symbols: Bits,
    sections: Sequence[memoryview],
    planes: Bits,
    kinds: Sequence[ValueType],
    kept: Counts,
    largest: Vector,
) -> Vector:
    """Put the values of all tensors together again: float32[k]. Undoes `split_all`, up to its rounding.

    Raises:
        PayloadError: steps of a tensor are not those that its values would get.
    """
    values, at = np.empty(len(symbols), np.float32), 0
    for (kind, tensors, items), section in zip(groups(kinds, kept), sections, strict=True):
        whole, odd = divmod(further_bits(kind), 8)
        counts, own = kept[tensors], symbols[items]
        further = _from_bytes(section, whole, len(own))
        if odd:
            upper = read_planes(planes[at : at + odd * len(own)], np.full(len(own), odd, np.uint8))
            further |= upper << np.uint32(8 * whole)
            at += odd * len(own)
        joined = join(own, further, kind, counts, largest[tensors])
        if kind in SCALED:
            _check_steps(joined, own, kind, counts, largest[tensors])
        values[items] = joined
    return values


def _from_bytes(section: memoryview, width: int, count: int) -> Numbers:
    padded = np.zeros((count, 4), np.uint8)
    padded[:, :width] = np.frombuffer(section, np.uint8).reshape(count, width)
    return padded.view("<u4").reshape(count).astype(np.uint32, copy=False)


def _check_steps(values: Vector, symbols: Bits, kind: ValueType, counts: Counts, largest: Vector) -> None:
    again, _, largest_again = split(values, kind, counts)
    if not (np.array_equal(again, symbols) and np.array_equal(largest_again, largest)):
        raise refusals.unreached_largest()
