"""What a payload holds besides its streams: the header, the table of tensors, and tensors sent whole."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from joulewise import refusals
from joulewise.bits import Bits, Counts, Numbers, Reader, varint
from joulewise.errors import PayloadError, UpdateError
from joulewise.huffman import SYMBOLS, Code, choose, read_code
from joulewise.layout import Arrays, Layout, Tensor, Vector
from joulewise.positions import rice_parameters
from joulewise.rounding import HIGHEST_SYMBOL, LARGEST_BITS, SCALED, VALUE_TYPES, ValueType

Raw = bytes | memoryview
Checksum = Callable[[Raw, int], int]
"""CRC-32 of bytes that follow others, of which it is given."""

MAGIC = b"JWP1"
HAS_WHOLES = 1
RICE_BITS = 5
CHECKED_FROM = 8
"""The checksum covers everything from this byte on."""


@dataclass(frozen=True, slots=True, eq=False)
class Plan:
    """What the table of a payload says of each tensor.

    Args:
        kept: coordinates that are kept: int64[tensors].
        kinds: value types.
        parameters: Rice parameters of the positions: uint8[tensors].
        largest: largest magnitudes, for int8 and ternary: float32[tensors].
        codes: codes of the value symbols; None where nothing is kept.
    """

    kept: Counts
    kinds: tuple[ValueType, ...]
    parameters: Bits
    largest: Vector
    codes: tuple[Code | None, ...]

    def entries(self) -> list[bytes]:
        """The table, tensor by tensor."""
        numbers = self.largest.astype("<f4", copy=False)
        written = []
        for tensor, (count, kind, code) in enumerate(zip(self.kept.tolist(), self.kinds, self.codes, strict=True)):
            entry = varint(count)
            if code is not None:
                first = int(self.parameters[tensor]) | VALUE_TYPES.index(kind) << RICE_BITS
                scale = numbers[tensor].tobytes() if kind in SCALED else b""
                entry += bytes([first]) + scale + code.table()
            written.append(entry)
        return written

    def value_bits(self, histograms: Counts) -> Counts:
        """Bits that the coded symbols of each tensor take: int64[tensors]."""
        rows = zip(self.codes, histograms.tolist(), strict=True)
        return np.array([code.bits(row) if code else 0 for code, row in rows], np.int64)


@dataclass(frozen=True, slots=True, eq=False)
class Written:
    """A payload, and what it holds.

    Args:
        payload: all of it.
        tensor_bits: bits of each tensor's kept coordinates, without those that fill the last byte:
            float64[tensors].
        rounded: the values that a decoder will read: float32[k].
    """

    payload: bytes
    tensor_bits: npt.NDArray[np.float64]
    rounded: Vector


@dataclass(frozen=True, slots=True, eq=False)
class Extent:
    """What a table says of the payload as a whole: how long its parts are.

    Args:
        table_bytes: length of the table.
        kinds: value types.
        kept: coordinates that are kept, of all tensors.
        value_bytes: length of the section of each value type in use.
        plane_bits: remainders of positions and odd bits of values.
        longest_unary: the most bits that the unary stream can have.
        plan: the table itself, where the reader keeps it.
    """

    table_bytes: int
    kinds: tuple[ValueType, ...]
    kept: int
    value_bytes: Sequence[int]
    plane_bits: int
    longest_unary: int
    plan: Plan | None = None


def plan_of(
    kept: Counts,
    kinds: tuple[ValueType, ...],
    gaps: Numbers,
    listed: Counts,
    histograms: Counts,
    largest: Vector,
) -> Plan:
    """Choose the shortest form of every tensor.

    Args:
        kept: coordinates that are kept: int64[tensors].
        kinds: value types.
        gaps: between listed positions: uint32[sum(listed)].
        listed: positions listed of each tensor: int64[tensors].
        histograms: how often each value symbol occurs: int64[tensors, 256].
        largest: largest magnitudes, for int8 and ternary: float32[tensors].
    """
    codes = tuple(choose(tuple(row.tolist())) if count else None for count, row in zip(kept, histograms, strict=True))
    return Plan(kept, kinds, rice_parameters(gaps, listed), largest, codes)


def write_head(layout: Layout, has_wholes: bool) -> bytes:
    """The header after magic number and checksum, without the length of the unary stream, which ends it.

    Example:
        >>> len(write_head(Layout.single(1000), has_wholes=False))
        12
    """
    fixed = bytes([HAS_WHOLES * has_wholes]) + layout.fingerprint.to_bytes(8, "little")
    return fixed + varint(layout.n) + varint(len(layout.tensors))


def read_head(reader: Reader, payload: memoryview, layout: Layout, crc32: Checksum) -> tuple[bool, int]:
    """Check the header of `payload`, at which `reader` stands, and its checksum.

    Returns:
        Whether tensors sent whole follow, and the length of the unary stream in bits.

    Raises:
        PayloadError: this is no payload, a damaged one, or one of another model.
    """
    magic = bytes(payload[: len(MAGIC)])
    if magic != MAGIC:
        raise PayloadError(f"payload begins with {magic!r}, not {MAGIC!r}: it is of another version")
    reader.take(len(MAGIC), "its header")
    checksum = int.from_bytes(reader.take(4, "its header"), "little")
    if checksum != crc32(payload[CHECKED_FROM:], 0):
        raise PayloadError("payload was damaged on the way: its checksum does not match; send it again")
    flags = reader.byte("its header")
    if flags & ~HAS_WHOLES:
        raise PayloadError(f"payload has unknown flags {flags:#04x}; it was not made by this version")
    fingerprint = int.from_bytes(reader.take(8, "its header"), "little")
    count, tensors = reader.varint("its header"), reader.varint("its header")
    if (fingerprint, count, tensors) != (layout.fingerprint, layout.n, len(layout.tensors)):
        raise PayloadError(
            f"payload is of a model with {count} parameters in {tensors} tensors ({fingerprint:016x}), but "
            f"layout has {layout.n} in {len(layout.tensors)} ({layout.fingerprint:016x}); use the sender's"
        )
    if flags and not layout.wholes:
        raise PayloadError("payload says that buffers follow, but the layout has none; use the sender's layout")
    return bool(flags), reader.varint("its header")


def read_table_plan(reader: Reader, layout: Layout) -> Plan:
    """Read the table of tensors and check each entry against the layout.

    Raises:
        PayloadError: the table is cut off, or says what cannot be.
    """
    kept, parameters = np.zeros(len(layout.tensors), np.int64), np.zeros(len(layout.tensors), np.uint8)
    kinds: list[ValueType] = []
    codes: list[Code | None] = []
    largest = np.zeros(len(layout.tensors), np.float32)
    for at, tensor in enumerate(layout.tensors):
        kept[at] = reader.varint(f"the table entry of {tensor.name!r}")
        kinds.append("float32")
        codes.append(None)
        if kept[at]:
            parameters[at], kinds[at], largest[at] = _read_entry(reader, tensor, int(kept[at]))
            codes[at] = read_code(reader, HIGHEST_SYMBOL[kinds[at]])
    return Plan(kept, tuple(kinds), parameters, largest, tuple(codes))


def _read_entry(reader: Reader, tensor: Tensor, kept: int) -> tuple[int, ValueType, np.float32]:
    if kept > tensor.size:
        raise refusals.too_many_kept(tensor.name, kept, tensor.size)
    first = reader.byte(f"the table entry of {tensor.name!r}")
    kind_number, parameter = first >> RICE_BITS, first & (1 << RICE_BITS) - 1
    if kind_number >= len(VALUE_TYPES):
        raise refusals.unknown_type(tensor.name, kind_number)
    kind, largest = VALUE_TYPES[kind_number], np.float32(0)
    if kind in SCALED:
        word = bytes(reader.take(4, f"the table entry of {tensor.name!r}"))
        largest = np.frombuffer(word, "<f4")[0].astype(np.float32)
        if int.from_bytes(word, "little") > LARGEST_BITS:
            raise refusals.unsound_largest(tensor.name, int.from_bytes(word, "little"))
    return parameter, kind, largest


def write_wholes(state: Mapping[str, Any], layout: Layout) -> bytes:
    """Elements of buffers and non-float tensors, little-endian, in the order of the layout.

    Raises:
        LayoutError: a tensor is missing or has another shape.
        UpdateError: a float tensor holds NaN or infinity.

    Example:
        >>> state = {"steps": np.array([1, 2], np.int16)}
        >>> write_wholes(state, Layout.of(state)).hex()
        '01000200'
    """
    arrays = layout.take_wholes(state)
    for name, array in arrays.items():
        if not _is_sound(array):
            raise UpdateError(f"whole[{name!r}] holds NaN or infinity; look for the round in which training diverged")
    return b"".join(array.astype(array.dtype.newbyteorder("<"), copy=False).tobytes() for array in arrays.values())


def read_wholes(reader: Reader, layout: Layout) -> Arrays:
    """Read back what `write_wholes` wrote.

    Raises:
        PayloadError: it is cut off, or holds NaN, infinity, or a truth value that is neither 0 nor 1.
    """
    arrays = {}
    for tensor in layout.wholes:
        dtype = np.dtype("float32" if tensor.dtype == "bfloat16" else tensor.dtype)
        raw = reader.take(tensor.size * dtype.itemsize, f"tensor {tensor.name!r}")
        if dtype == np.bool_ and (np.frombuffer(raw, np.uint8) > 1).any():
            raise PayloadError(f"payload holds truth values of tensor {tensor.name!r} that are neither 0 nor 1")
        array = np.frombuffer(raw, dtype.newbyteorder("<")).astype(dtype).reshape(tensor.shape)
        if not _is_sound(array):
            raise PayloadError(f"payload holds NaN or infinity in tensor {tensor.name!r}")
        arrays[tensor.name] = array
    return arrays


def _is_sound(array: npt.NDArray[Any]) -> bool:
    return not np.issubdtype(array.dtype, np.inexact) or bool(np.isfinite(array).all())


def histograms_of(symbols: Bits, kept: Counts) -> tuple[npt.NDArray[np.intp], Counts]:
    """``256 * tensor + symbol`` of every value, and how often each occurs: int64[tensors, 256].

    Example:
        >>> keys, histograms = histograms_of(np.array([7, 7, 9], np.uint8), np.array([2, 1]))
        >>> keys.tolist(), histograms[:, 7].tolist()
        ([7, 7, 265], [2, 0])
    """
    keys = np.repeat(SYMBOLS * np.arange(len(kept), dtype=np.intp), kept)
    keys += symbols
    return keys, np.bincount(keys, minlength=SYMBOLS * len(kept)).reshape(len(kept), SYMBOLS)


def check_order(indices: npt.NDArray[Any], layout: Layout) -> None:
    """Indices ascend and lie in the layout.

    Raises:
        UpdateError: they do not.
    """
    if len(indices) and (indices[0] < 0 or indices[-1] >= layout.n or (indices[1:] <= indices[:-1]).any()):
        raise UpdateError(f"selection.indices must ascend without repetition from 0 to below {layout.n}; sort them")


def check_finite(indices: Numbers, values: Vector, layout: Layout) -> None:
    """Values are finite.

    Raises:
        UpdateError: one is not; it names the tensor.
    """
    finite = np.isfinite(values)
    if not finite.all():
        first = int(np.argmin(finite))
        name = layout.name_of(int(indices[first]))
        raise UpdateError(f"selection.values holds {values[first]} in tensor {name!r}")
