"""Table, value bytes and bit stream of a payload through the kernel: the same bytes as `numpy_codec`, faster."""

from __future__ import annotations

import ctypes
import zlib
from collections.abc import Callable
from functools import lru_cache
from typing import Any

import numpy as np
import numpy.typing as npt
from numpy.ctypeslib import ndpointer

from joulewise import kernel, refusals
from joulewise.bits import VARINT_BYTES, Numbers, varint
from joulewise.errors import KernelError, PayloadError
from joulewise.frame import CHECKED_FROM, MAGIC, Extent, Raw, Written, check_finite, check_order
from joulewise.huffman import LONGEST
from joulewise.layout import Layout, Vector
from joulewise.rounding import VALUE_TYPES, ValueType

OUT_OF_MEMORY, UNSOUND_SELECTION = 1, 3
"""Results of the kernel that are no refusals; the others are a caller's mistake."""
ENTRY_BYTES = 141
"""Of the longest entry of a table."""

LONG = 1 << 14
"""From this many bytes a call of the kernel is worth its price."""

_SIZE, _STATUS = ctypes.c_int64, ctypes.c_int32


class _Pointer:
    """The type of an argument: the address of an array, once `ndpointer` has checked its element type and order.

    ndpointer's own way from an array to an address takes longer than the kernel does for a small message.
    """

    def __init__(self, dtype: type[np.generic], *, written: bool = False) -> None:
        flags: Any = ["C_CONTIGUOUS", "WRITEABLE"] if written else "C_CONTIGUOUS"
        self._checked: Any = ndpointer(np.dtype(dtype), ndim=1, flags=flags)

    def from_param(self, array: npt.NDArray[Any]) -> ctypes.c_void_p:
        """Called by ctypes with the argument; the caller keeps the array alive."""
        return ctypes.c_void_p(self._checked.from_param(array).data)


_BYTES, _BYTES_OUT = _Pointer(np.uint8), _Pointer(np.uint8, written=True)
_SIZES, _SIZES_OUT = _Pointer(np.int64), _Pointer(np.int64, written=True)
_INDICES, _INDICES_OUT = _Pointer(np.uint32), _Pointer(np.uint32, written=True)
_VALUES, _VALUES_OUT = _Pointer(np.float32), _Pointer(np.float32, written=True)
_NUMBERS_OUT = _Pointer(np.float64, written=True)
_SIGNATURES = {
    "joulewise_encode_open": (
        *(_INDICES, _VALUES, _SIZE, _SIZES, _SIZE, _BYTES, _BYTES_OUT, _SIZE),
        *(_NUMBERS_OUT, _SIZES_OUT, ctypes.c_void_p),
    ),
    "joulewise_encode_write": (ctypes.c_void_p, ctypes.c_void_p, ctypes.c_void_p),
    "joulewise_encode_close": (ctypes.c_void_p,),
    "joulewise_crc32": (_BYTES, _SIZE, _INDICES_OUT),
    "joulewise_read_table": (_BYTES, _SIZE, _SIZE, _SIZES, _SIZE, _BYTES_OUT, _SIZES_OUT),
    "joulewise_decode": (
        *(_BYTES, _SIZE, _SIZE, _SIZE, _SIZE, _SIZES, _SIZE, _SIZE),
        *(_INDICES_OUT, _VALUES_OUT, _SIZES_OUT),
    ),
    "joulewise_add": (_NUMBERS_OUT, _SIZE, _INDICES, _VALUES, _SIZE, ctypes.c_double),
}

_unwritten_bytes = ctypes.PYFUNCTYPE(ctypes.py_object, ctypes.c_void_p, ctypes.c_ssize_t)(
    ("PyBytes_FromStringAndSize", ctypes.pythonapi)
)
_unwritten_bytes.__doc__ = """Bytes of a size, still to be written, before anyone else sees them."""


def crc32(piece: Raw, before: int) -> int:
    """Continue a CRC-32; as `numpy_codec.crc32`."""
    if len(piece) >= LONG:
        checksum = np.array([before], np.uint32)
        if _functions().joulewise_crc32(np.frombuffer(piece, np.uint8), len(piece), checksum) == 0:
            return int(checksum[0])
    return zlib.crc32(piece, before)


def write(
    indices: Numbers, values: Vector, layout: Layout, kinds: tuple[ValueType, ...], head: bytes, wholes: bytes
) -> Written:
    """Write a payload; as `numpy_codec.write`.

    Raises:
        UpdateError: indices do not ascend or do not fit, or a value is NaN or infinite.
    """
    tensors, table = len(kinds), np.empty(ENTRY_BYTES * len(kinds), np.uint8)
    tensor_bits, sizes, plan = np.empty(tensors, np.float64), np.empty(4, np.int64), ctypes.c_void_p()
    status = _functions().joulewise_encode_open(
        *(indices, values, len(indices), layout.offsets, tensors, _numbers_of(kinds)),
        *(table, len(table), tensor_bits, sizes, ctypes.byref(plan)),
    )
    if status == UNSOUND_SELECTION:
        check_order(indices, layout)
        check_finite(indices, values, layout)
    _check(status)
    table_bytes, body_bytes, unary_bits, is_exact = sizes.tolist()
    rounded = values if is_exact else np.empty(len(values), np.float32)
    try:
        before = b"".join([head, varint(unary_bits), table[:table_bytes].data, wholes])
        payload = _written(plan, before, body_bytes, rounded)
    finally:
        _functions().joulewise_encode_close(plan)
    return Written(payload, tensor_bits, rounded)


def _written(plan: ctypes.c_void_p, before: bytes, body_bytes: int, rounded: Vector) -> bytes:
    """A payload, whose bytes are written where they stay: copying them would take a tenth of the time."""
    payload: bytes = _unwritten_bytes(None, CHECKED_FROM + len(before) + body_bytes)
    raw = np.frombuffer(payload, np.uint8)
    start = raw.ctypes.data
    ctypes.memmove(start + CHECKED_FROM, before, len(before))
    body = ctypes.c_void_p(start + CHECKED_FROM + len(before))
    _check(_functions().joulewise_encode_write(plan, body, rounded.ctypes.data_as(ctypes.c_void_p)))
    checksum = crc32(raw[CHECKED_FROM:].data, 0)
    ctypes.memmove(start, MAGIC + checksum.to_bytes(4, "little"), CHECKED_FROM)
    return payload


def read_table(payload: memoryview, at: int, layout: Layout) -> Extent:
    """Read the table, which begins at byte `at` of a payload; as `numpy_codec.read_table`.

    Raises:
        PayloadError: it is cut off, or says what cannot be.
    """
    raw, tensors = np.frombuffer(payload, np.uint8), len(layout.tensors)
    types, numbers = np.empty(tensors, np.uint8), np.zeros(9, np.int64)
    status = _functions().joulewise_read_table(raw, len(raw), at, layout.offsets, tensors, types, numbers)
    if status:
        raise _refusal(status, numbers, layout)
    end, kept, *value_bytes, planes, longest = numbers.tolist()
    return Extent(end - at, _kinds_of(types.tobytes()), kept, value_bytes, planes, longest)


def read_body(
    payload: memoryview, table_at: int, body_at: int, unary_bits: int, extent: Extent, layout: Layout
) -> tuple[Numbers, Vector]:
    """Read value bytes and bit stream; as `numpy_codec.read_body`.

    Raises:
        PayloadError: positions or values are not as `write` writes them.
    """
    raw, numbers = np.frombuffer(payload, np.uint8), np.zeros(3, np.int64)
    indices, values = np.empty(extent.kept, np.uint32), np.empty(extent.kept, np.float32)
    status = _functions().joulewise_decode(
        *(raw, len(raw), table_at, body_at, unary_bits, layout.offsets, len(layout.tensors), extent.kept),
        *(indices, values, numbers),
    )
    if status:
        raise _refusal(status, numbers, layout)
    return indices, values


def add(total: npt.NDArray[np.float64], indices: Numbers, values: Vector, weight: float) -> None:
    """Add ``weight * values`` to `total` at `indices`, in place.

    Args:
        total: float64[n], contiguous.
        indices: below n: uint32[k].
        values: float32[k].
        weight: of the payload.
    """
    _check(_functions().joulewise_add(total, len(total), indices, values, len(indices), weight))


@lru_cache(maxsize=1)
def _functions() -> ctypes.CDLL:
    library = kernel.library()
    if library is None:
        raise KernelError("the kernel is not there; use numpy_codec")
    for name, arguments in _SIGNATURES.items():
        function = getattr(library, name)
        function.argtypes, function.restype = arguments, _STATUS
    return library


@lru_cache(maxsize=64)
def _numbers_of(kinds: tuple[ValueType, ...]) -> npt.NDArray[np.uint8]:
    """Value types as the kernel numbers them."""
    numbers = np.array([VALUE_TYPES.index(kind) for kind in kinds], np.uint8)
    numbers.flags.writeable = False
    return numbers


@lru_cache(maxsize=64)
def _kinds_of(numbers: bytes) -> tuple[ValueType, ...]:
    return tuple(VALUE_TYPES[number] for number in numbers)


def _check(status: int) -> None:
    if status == OUT_OF_MEMORY:
        raise MemoryError("the kernel found no memory for its work on a payload")
    if status:
        raise KernelError(f"the kernel refused its arguments with status {status}; please report this")


def _refusal(status: int, numbers: npt.NDArray[np.int64], layout: Layout) -> PayloadError:
    """The sentence for what the kernel found."""
    if status not in _REFUSALS:
        _check(status)
    return _REFUSALS[status](layout, *numbers[:3].tolist())


def _entry(layout: Layout, tensor: int) -> str:
    return f"the table entry of {layout.tensors[tensor].name!r}"


_REFUSALS: dict[int, Callable[[Layout, int, int, int], PayloadError]] = {
    10: lambda layout, tensor, expected, left: refusals.cut_off(_entry(layout, tensor), expected, left),
    11: lambda _, expected, left, __: refusals.cut_off("a value table", expected, left),
    12: lambda layout, tensor, _, __: refusals.needless_zeros(_entry(layout, tensor)),
    13: lambda layout, tensor, _, __: refusals.long_count(_entry(layout, tensor), VARINT_BYTES),
    14: lambda layout, tensor, kept, _: refusals.too_many_kept(*_named(layout, tensor, kept)),
    15: lambda layout, tensor, number, _: refusals.unknown_type(layout.tensors[tensor].name, number),
    16: lambda layout, tensor, word, _: refusals.unsound_largest(layout.tensors[tensor].name, word),
    17: lambda _, symbol, highest, __: refusals.symbol_too_high(symbol, highest),
    18: lambda _, symbols, __, ___: refusals.long_unary_code(symbols, LONGEST + 1),
    19: lambda *_: refusals.incomplete_code(),
    20: lambda _, listed, expected, __: refusals.wrong_count(listed, expected),
    21: lambda *_: refusals.outside_tensor(),
    22: lambda *_: refusals.cut_off_values(),
    23: lambda _, bits, __, ___: refusals.filled_wrongly(bits),
    24: lambda *_: refusals.unreached_largest(),
    25: lambda *_: refusals.not_shortest(),
}
"""By the kernel's status."""


def _named(layout: Layout, tensor: int, kept: int) -> tuple[str, int, int]:
    return layout.tensors[tensor].name, kept, layout.tensors[tensor].size
