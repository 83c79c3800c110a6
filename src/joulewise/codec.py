"""A selection as bytes, and back: payload version 1, specified byte by byte in ``docs/payload.md``."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from joulewise.bits import Bits, Counts, Numbers, Reader, pack, unpack
from joulewise.errors import LayoutError, PayloadError, RuleError, UpdateError
from joulewise.frame import (
    Plan,
    histograms_of,
    plan_of,
    read_head,
    read_table,
    read_wholes,
    seal,
    write_head,
    write_wholes,
)
from joulewise.huffman import LONGEST, read_symbols, write_symbols
from joulewise.layout import Arrays, Layout, Vector
from joulewise.positions import complement, gaps_of, longest_unary, read_positions, write_positions
from joulewise.rounding import VALUE_TYPES, ValueType, further_bits
from joulewise.select import Selection
from joulewise.values import join_all, plane_bits, section_bytes, split_all

__all__ = ["VALUE_TYPES", "Decoded", "Encoded", "ValueType", "decode", "encode", "encode_detailed"]


@dataclass(frozen=True, slots=True, eq=False)
class Encoded:
    """A payload and where its bits went.

    ``8 * len(payload) == 8 * (header_bytes + whole_bytes) + sum(tensor_bits)``, exactly.

    Args:
        payload: what is sent.
        tensor_bits: bits of each tensor's kept coordinates, its table entry included: float64[tensors]. The
            last tensor that keeps something also bears the at most seven bits that fill the last byte.
        header_bytes: what every payload has, and a byte for each tensor that keeps nothing.
        whole_bytes: buffers and tensors that are not float.
    """

    payload: bytes
    tensor_bits: npt.NDArray[np.float64]
    header_bytes: int
    whole_bytes: int


@dataclass(frozen=True, slots=True, eq=False)
class Decoded:
    """What a payload says.

    Args:
        selection: the kept coordinates, their values as rounded.
        whole: buffers and non-float tensors by name; empty if they were not sent.
        values: the value type of each tensor; ``float32`` where nothing is kept.
    """

    selection: Selection
    whole: Arrays
    values: tuple[ValueType, ...]

    def dense(self) -> Vector:
        """The flat vector, zero where nothing was kept: float32[n]."""
        return self.selection.dense()


def encode(
    selection: Selection,
    layout: Layout,
    values: ValueType | Sequence[ValueType] = "float32",
    whole: Mapping[str, Any] | None = None,
) -> bytes:
    """Write a selection as a payload. One that is empty, without `whole`, is no bytes at all.

    Args:
        selection: what to send; its values are finite.
        layout: of the model; the receiver needs the same one.
        values: the value type, one for all tensors or one for each. ``float32`` is exact.
        whole: a model's state, from which buffers and non-float tensors are sent too; None sends none.

    Raises:
        UpdateError: the selection does not fit the layout, or a value is NaN or infinite.
        LayoutError: `whole` lacks a tensor, or `values` has another length than the layout.
        RuleError: a value type is unknown.

    Example:
        >>> layout = Layout.single(1000)
        >>> kept = Selection(1000, np.array([3, 500], np.uint32), np.array([0.5, -2.0], np.float32))
        >>> payload = encode(kept, layout)
        >>> len(payload), decode(payload, layout).selection.values.tolist()
        (34, [0.5, -2.0])
    """
    return encode_detailed(selection, layout, values, whole).payload


def encode_detailed(
    selection: Selection,
    layout: Layout,
    values: ValueType | Sequence[ValueType] = "float32",
    whole: Mapping[str, Any] | None = None,
) -> Encoded:
    """Write a selection as a payload, like `encode`, and tell where its bits went.

    Example:
        >>> kept = Selection(9, np.array([3], np.uint32), np.array([0.5], np.float32))
        >>> sizes = encode_detailed(kept, Layout.single(9))
        >>> len(sizes.payload), sizes.header_bytes, sizes.tensor_bits.tolist(), sizes.whole_bytes
        (28, 20, [64.0], 0)
    """
    kinds = _kinds(values, layout)
    indices, numbers = _checked(selection, layout)
    has_wholes = whole is not None and bool(layout.wholes)
    if not len(indices) and not has_wholes:
        return Encoded(b"", np.zeros(len(kinds)), 0, 0)
    kept = layout.counts(indices)
    listed = np.minimum(kept, layout.sizes - kept)
    gaps = gaps_of(complement(indices, kept, layout.offsets, _mostly(kept, layout)), listed, layout.offsets)
    symbols, sections, planes, largest = split_all(numbers, kinds, kept)
    keys, histograms = histograms_of(symbols, kept)
    plan = plan_of(kept, kinds, gaps, listed, histograms, largest)
    unary, remainders, position_bits = write_positions(gaps, listed, plan.parameters)
    stream = pack([unary, *remainders, *planes, *write_symbols(keys, plan.codes)])
    entries, wholes = plan.entries(), write_wholes(whole, layout) if whole is not None else b""
    head = write_head(layout, has_wholes, len(unary))
    payload = seal(b"".join([head, *entries, wholes, *sections, stream]))
    further = np.array([further_bits(kind) for kind in kinds], np.int64)
    bits = position_bits + plan.value_bits(histograms) + kept * further + [8 * len(entry) for entry in entries]
    return _account(payload, np.where(kept > 0, bits, 0), len(wholes))


def decode(payload: bytes | bytearray | memoryview, layout: Layout) -> Decoded:
    """Read a payload. Whatever is accepted encodes to the same bytes again.

    Args:
        payload: what `encode` wrote.
        layout: that of the sender's model.

    Raises:
        PayloadError: the bytes are damaged, belong to another model, or are not as `encode` writes them.
            Every length is checked against the layout before memory is taken for it.

    Example:
        >>> decode(b"", Layout.single(3)).dense().tolist()
        [0.0, 0.0, 0.0]
        >>> decode(b"JWP2", Layout.single(3))
        Traceback (most recent call last):
        joulewise.errors.PayloadError: payload begins with b'JWP2', not b'JWP1': it is of another version
    """
    whole_payload = memoryview(payload).cast("B")
    if not len(whole_payload):
        nothing = Selection(layout.n, np.zeros(0, np.uint32), np.zeros(0, np.float32))
        return Decoded(nothing, {}, _kinds("float32", layout))
    reader = Reader(whole_payload)
    has_wholes, unary_bits = read_head(reader, whole_payload, layout)
    start = reader.at
    plan = read_table(reader, layout)
    table = bytes(whole_payload[start : reader.at])
    if not plan.kept.any() and not has_wholes:
        raise PayloadError("payload says nothing but is not empty; joulewise sends no bytes then")
    wholes = read_wholes(reader, layout) if has_wholes else {}
    sections = [reader.take(size, "its values") for size in section_bytes(plan.kinds, plan.kept)]
    bits = _stream(reader.rest(), plan, unary_bits, layout)
    selection = _read_streams(bits, unary_bits, sections, plan, table, layout)
    return Decoded(selection, wholes, plan.kinds)


def _read_streams(
    bits: Bits, unary_bits: int, sections: Sequence[memoryview], plan: Plan, table: bytes, layout: Layout
) -> Selection:
    """Positions and values, and the proof that `encode` would have written the same table for them."""
    kept, kinds, listed = plan.kept, plan.kinds, np.minimum(plan.kept, layout.sizes - plan.kept)
    planes_at = unary_bits + int((listed * plan.parameters).sum())
    symbols_at = planes_at + plane_bits(kinds, kept)
    unary, remainders = bits[:unary_bits], bits[unary_bits:planes_at]
    positions, gaps = read_positions(unary, remainders, listed, layout.offsets, plan.parameters)
    symbols, symbol_bits = read_symbols(bits[symbols_at:], kept, plan.codes)
    filling = bits[symbols_at + symbol_bits :]
    if len(filling) > 7 or filling.any():
        raise PayloadError(f"payload has {len(filling)} bits after its last value, where up to 7 zeros belong")
    values = join_all(symbols, sections, bits[planes_at:symbols_at], kinds, kept, plan.largest)
    again = plan_of(kept, kinds, gaps, listed, histograms_of(symbols, kept)[1], plan.largest)
    if b"".join(again.entries()) != table:
        raise PayloadError("payload is readable but not in the shortest form; it was not made by joulewise")
    return Selection(layout.n, complement(positions, listed, layout.offsets, _mostly(kept, layout)), values)


def _stream(section: memoryview, plan: Plan, unary_bits: int, layout: Layout) -> Bits:
    """The bits of the last section, once its length is known to be one that the table allows."""
    listed = np.minimum(plan.kept, layout.sizes - plan.kept)
    longest = longest_unary(listed, layout.sizes, plan.parameters)
    if unary_bits > longest:
        raise PayloadError(f"payload has a unary stream of {unary_bits} bits, but its table allows {longest}")
    fixed = unary_bits + int((listed * plan.parameters).sum()) + plane_bits(plan.kinds, plan.kept)
    most = fixed + LONGEST * int(plan.kept.sum())
    if not fixed <= 8 * len(section) <= most + 7:
        raise PayloadError(
            f"payload ends in {len(section)} bytes of bits, but its table asks for {fixed} to {most} bits"
        )
    return unpack(section)


def _account(payload: bytes, tensor_bits: Counts, whole_bytes: int) -> Encoded:
    """Charge the bits that fill the last byte to the last tensor that keeps something."""
    filling = -int(tensor_bits.sum()) % 8
    if filling:
        tensor_bits[np.flatnonzero(tensor_bits)[-1]] += filling
    header_bytes = len(payload) - whole_bytes - int(tensor_bits.sum()) // 8
    return Encoded(payload, tensor_bits.astype(np.float64), header_bytes, whole_bytes)


def _mostly(kept: Counts, layout: Layout) -> npt.NDArray[np.bool_]:
    """Tensors that keep more than half: what they drop is listed instead."""
    return 2 * kept > layout.sizes


def _kinds(values: ValueType | Sequence[ValueType], layout: Layout) -> tuple[ValueType, ...]:
    given: tuple[ValueType, ...] = (values,) if isinstance(values, str) else tuple(values)
    unknown = [kind for kind in given if kind not in VALUE_TYPES]
    if unknown:
        raise RuleError(f"values={unknown[0]!r}, but a value type is one of: {', '.join(VALUE_TYPES)}")
    kinds = given * len(layout.tensors) if isinstance(values, str) else given
    if len(kinds) != len(layout.tensors):
        raise LayoutError(f"values has {len(kinds)} types, but the layout has {len(layout.tensors)} tensors")
    return kinds


def _checked(selection: Selection, layout: Layout) -> tuple[Numbers, Vector]:
    """Indices and values of a selection, once they are known to fit the layout."""
    indices, values = np.asarray(selection.indices), np.asarray(selection.values)
    if selection.n != layout.n:
        raise UpdateError(f"selection is of {selection.n} coordinates, but the layout has {layout.n}")
    if indices.ndim != 1 or indices.shape != values.shape:
        raise UpdateError(f"selection has indices of shape {indices.shape} and values of shape {values.shape}")
    if len(indices) and (indices[0] < 0 or indices[-1] >= layout.n or (indices[1:] <= indices[:-1]).any()):
        raise UpdateError(f"selection.indices must ascend without repetition from 0 to below {layout.n}; sort them")
    numbers = np.ascontiguousarray(values, dtype=np.float32)
    finite = np.isfinite(numbers)
    if not finite.all():
        at = int(indices[np.argmin(finite)])
        raise UpdateError(f"selection.values holds {numbers[np.argmin(finite)]} in tensor {layout.name_of(at)!r}")
    return np.ascontiguousarray(indices, dtype=np.uint32), numbers
