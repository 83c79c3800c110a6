"""Table, value bytes and bit stream of a payload in NumPy: the fallback, and what the kernel is tested against."""

from __future__ import annotations

import zlib

import numpy as np
import numpy.typing as npt

from joulewise import refusals
from joulewise.bits import Bits, Counts, Numbers, Reader, pack, unpack, varint
from joulewise.frame import (
    MAGIC,
    Extent,
    Plan,
    Raw,
    Written,
    check_finite,
    check_order,
    histograms_of,
    plan_of,
    read_table_plan,
)
from joulewise.huffman import read_symbols, write_symbols
from joulewise.layout import Layout, Vector
from joulewise.positions import complement, gaps_of, longest_unary, read_positions, write_positions
from joulewise.rounding import ValueType, further_bits
from joulewise.values import join_all, plane_bits, section_bytes, split_all


def crc32(piece: Raw, before: int) -> int:
    """Continue a CRC-32.

    Example:
        >>> hex(crc32(b"st", crc32(b"re", 0)))
        '0xfd1421d0'
    """
    return zlib.crc32(piece, before)


def write(
    indices: Numbers, values: Vector, layout: Layout, kinds: tuple[ValueType, ...], head: bytes, wholes: bytes
) -> Written:
    """Write a payload.

    Args:
        indices: ascending, below `layout.n`: uint32[k].
        values: finite: float32[k].
        layout: of the model.
        kinds: value type of each tensor.
        head: its header between checksum and the length of the unary stream.
        wholes: tensors that are sent whole.

    Raises:
        UpdateError: indices do not ascend or do not fit, or a value is NaN or infinite.
    """
    check_order(indices, layout)
    check_finite(indices, values, layout)
    kept = layout.counts(indices)
    listed = np.minimum(kept, layout.sizes - kept)
    gaps = gaps_of(complement(indices, kept, layout.offsets, _mostly(kept, layout)), listed, layout.offsets)
    parts = split_all(values, kinds, kept)
    keys, histograms = histograms_of(parts.symbols, kept)
    plan = plan_of(kept, kinds, gaps, listed, histograms, parts.largest)
    unary, remainders, position_bits = write_positions(gaps, listed, plan.parameters)
    stream = pack([unary, *remainders, *parts.planes, *write_symbols(keys, plan.codes)])
    entries = plan.entries()
    further = np.array([further_bits(kind) for kind in kinds], np.int64)
    bits = position_bits + plan.value_bits(histograms) + kept * further + [8 * len(entry) for entry in entries]
    tensor_bits = np.where(kept > 0, bits, 0).astype(np.float64)
    rest = b"".join([head, varint(len(unary)), *entries, wholes, *parts.sections, stream])
    return Written(MAGIC + zlib.crc32(rest).to_bytes(4, "little") + rest, tensor_bits, parts.rounded)


def read_table(payload: memoryview, at: int, layout: Layout) -> Extent:
    """Read the table, which begins at byte `at` of a payload, and check it against the layout.

    Raises:
        PayloadError: it is cut off, or says what cannot be.
    """
    reader = Reader(payload[at:])
    plan = read_table_plan(reader, layout)
    listed = np.minimum(plan.kept, layout.sizes - plan.kept)
    planes = int((listed * plan.parameters).sum()) + plane_bits(plan.kinds, plan.kept)
    longest = longest_unary(listed, layout.sizes, plan.parameters)
    sections = section_bytes(plan.kinds, plan.kept)
    return Extent(reader.at, plan.kinds, int(plan.kept.sum()), sections, planes, longest, plan)


def read_body(
    payload: memoryview, table_at: int, body_at: int, unary_bits: int, extent: Extent, layout: Layout
) -> tuple[Numbers, Vector]:
    """Read value bytes and bit stream, whose lengths are known to fit the table.

    Args:
        payload: all of it.
        table_at: where its table begins.
        body_at: where its value bytes begin.
        unary_bits: length of the unary stream.
        extent: what `read_table` said.
        layout: of the model.

    Returns:
        Indices uint32[k] and values float32[k].

    Raises:
        PayloadError: positions or values are not as `write` writes them.
    """
    reader = Reader(payload[body_at:])
    sections = [reader.take(size, "its values") for size in extent.value_bytes]
    bits, plan = unpack(reader.rest()), _plan(payload[table_at:], extent, layout)
    table = bytes(payload[table_at : table_at + extent.table_bytes])
    return _read_streams(bits, unary_bits, sections, plan, table, layout)


def _plan(table: memoryview, extent: Extent, layout: Layout) -> Plan:
    return read_table_plan(Reader(table), layout) if extent.plan is None else extent.plan


def _read_streams(
    bits: Bits, unary_bits: int, sections: list[memoryview], plan: Plan, table: bytes, layout: Layout
) -> tuple[Numbers, Vector]:
    """Positions and values, and the proof that `write` would have written the same table for them."""
    kept, kinds, listed = plan.kept, plan.kinds, np.minimum(plan.kept, layout.sizes - plan.kept)
    planes_at = unary_bits + int((listed * plan.parameters).sum())
    symbols_at = planes_at + plane_bits(kinds, kept)
    unary, remainders = bits[:unary_bits], bits[unary_bits:planes_at]
    positions, gaps = read_positions(unary, remainders, listed, layout.offsets, plan.parameters)
    symbols, symbol_bits = read_symbols(bits[symbols_at:], kept, plan.codes)
    filling = bits[symbols_at + symbol_bits :]
    if len(filling) > 7 or filling.any():
        raise refusals.filled_wrongly(len(filling))
    values = join_all(symbols, sections, bits[planes_at:symbols_at], kinds, kept, plan.largest)
    again = plan_of(kept, kinds, gaps, listed, histograms_of(symbols, kept)[1], plan.largest)
    if b"".join(again.entries()) != table:
        raise refusals.not_shortest()
    return complement(positions, listed, layout.offsets, _mostly(kept, layout)), values


def _mostly(kept: Counts, layout: Layout) -> npt.NDArray[np.bool_]:
    """Tensors that keep more than half: what they drop is listed instead."""
    return 2 * kept > layout.sizes
