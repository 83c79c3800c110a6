"""A selection as bytes, and back: payload version 1, specified byte by byte in ``docs/payload.md``."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from joulewise import kernel, native_codec, numpy_codec
from joulewise.bits import Numbers, Reader
from joulewise.errors import LayoutError, PayloadError, RuleError, UpdateError
from joulewise.frame import Extent, Raw, Written, check_order, read_head, read_wholes, write_head, write_wholes
from joulewise.huffman import LONGEST
from joulewise.layout import Arrays, Layout, Vector
from joulewise.rounding import VALUE_TYPES, ValueType
from joulewise.select import Selection

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
        values: the kept values as a decoder will read them, rounded to their types: float32[k].
    """

    payload: bytes
    tensor_bits: npt.NDArray[np.float64]
    header_bytes: int
    whole_bytes: int
    values: Vector = field(default_factory=lambda: np.zeros(0, np.float32))


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
        return Encoded(b"", np.zeros(len(kinds)), 0, 0, numbers)
    wholes = write_wholes(whole, layout) if whole is not None else b""
    written = _implementation().write(indices, numbers, layout, kinds, write_head(layout, has_wholes), wholes)
    return _account(written, len(wholes))


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
    implementation = _implementation()
    has_wholes, unary_bits = read_head(reader, whole_payload, layout, implementation.crc32)
    table_at = reader.at
    extent = implementation.read_table(whole_payload, table_at, layout)
    reader.take(extent.table_bytes, "its table")
    if not extent.kept and not has_wholes:
        raise PayloadError("payload says nothing but is not empty; joulewise sends no bytes then")
    wholes = read_wholes(reader, layout) if has_wholes else {}
    body_at = reader.at
    for size in extent.value_bytes:
        reader.take(size, "its values")
    _check_stream(len(reader.rest()), unary_bits, extent)
    read = implementation.read_body(whole_payload, table_at, body_at, unary_bits, extent, layout)
    return Decoded(Selection(layout.n, *read), wholes, extent.kinds)


class _Implementation(Protocol):
    """What `numpy_codec` and `native_codec` both do, bit for bit the same."""

    def crc32(self, piece: Raw, before: int) -> int: ...

    def write(
        self,
        indices: Numbers,
        values: Vector,
        layout: Layout,
        kinds: tuple[ValueType, ...],
        head: bytes,
        wholes: bytes,
    ) -> Written: ...

    def read_table(self, payload: memoryview, at: int, layout: Layout) -> Extent: ...

    def read_body(
        self, payload: memoryview, table_at: int, body_at: int, unary_bits: int, extent: Extent, layout: Layout
    ) -> tuple[Numbers, Vector]: ...


def _implementation() -> _Implementation:
    return numpy_codec if kernel.library() is None else native_codec


def _check_stream(stream_bytes: int, unary_bits: int, extent: Extent) -> None:
    """The length of the bit stream is one that the table allows; checked before memory is taken."""
    if unary_bits > extent.longest_unary:
        raise PayloadError(
            f"payload has a unary stream of {unary_bits} bits, but its table allows {extent.longest_unary}"
        )
    fixed = unary_bits + extent.plane_bits
    most = fixed + LONGEST * extent.kept
    if not fixed <= 8 * stream_bytes <= most + 7:
        raise PayloadError(
            f"payload ends in {stream_bytes} bytes of bits, but its table asks for {fixed} to {most} bits"
        )


def _account(written: Written, whole_bytes: int) -> Encoded:
    """Charge the bits that fill the last byte to the last tensor that keeps something."""
    payload, tensor_bits = written.payload, written.tensor_bits
    filling = -int(tensor_bits.sum()) % 8
    if filling:
        tensor_bits[np.flatnonzero(tensor_bits)[-1]] += filling
    header_bytes = len(payload) - whole_bytes - int(tensor_bits.sum()) // 8
    return Encoded(payload, tensor_bits, header_bytes, whole_bytes, written.rounded)


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
    """Indices and values of a selection, once they fit the layout; whether they are sound is left to `write`."""
    indices, values = np.asarray(selection.indices), np.asarray(selection.values)
    if selection.n != layout.n:
        raise UpdateError(f"selection is of {selection.n} coordinates, but the layout has {layout.n}")
    if indices.ndim != 1 or indices.shape != values.shape:
        raise UpdateError(f"selection has indices of shape {indices.shape} and values of shape {values.shape}")
    if (indices.dtype.kind not in "iu" and indices.size) or values.dtype.kind not in "fiu":
        raise UpdateError(f"selection has indices of {indices.dtype} and values of {values.dtype}, not whole and real")
    if indices.dtype != np.uint32:
        check_order(indices, layout)
    return np.ascontiguousarray(indices, dtype=np.uint32), np.ascontiguousarray(values, dtype=np.float32)
