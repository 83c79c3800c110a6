"""Selection in the C++ kernel: the functions of `joulewise.prefix`, to the last bit, called through ctypes."""

from __future__ import annotations

import ctypes
from typing import Any

import numpy as np
import numpy.typing as npt

from joulewise import kernel
from joulewise.ranking import Carry, Float32, Int64, NotFinite, Prefix, Ranking, UInt32

# Statuses of the kernel.
DONE, NOT_FINITE, SUM_NOT_FINITE, NO_MEMORY, TOO_LONG, MORE_ROOM = range(6)
# Of `flags`, for tests: paths that depend on the processor, the length or luck.
PORTABLE, TINY_SAMPLE, HIGH_BRACKET, LOW_BRACKET, TWO_PASSES, ONE_PASS, STREAMED, LITTLE_ROOM = (
    1 << bit for bit in range(8)
)


class Request(ctypes.Structure):
    """What to rank by and where to stop: ``JoulewiseRequest`` of the kernel."""

    _fields_ = (
        ("update", ctypes.c_void_p),
        ("residual", ctypes.c_void_p),
        ("carried", ctypes.c_void_p),
        ("edges", ctypes.c_void_p),
        ("weights", ctypes.c_void_p),
        ("quanta", ctypes.c_void_p),
        ("n", ctypes.c_int64),
        ("tensors", ctypes.c_int64),
        ("weight_count", ctypes.c_int64),
        ("quanta_count", ctypes.c_int64),
        ("limit", ctypes.c_int64),
        ("key", ctypes.c_uint64),
        ("threshold", ctypes.c_double),
        ("factor", ctypes.c_float),
        ("random", ctypes.c_int32),
        ("by_threshold", ctypes.c_int32),
        ("threads", ctypes.c_int32),
        ("flags", ctypes.c_int32),
    )


class Found(ctypes.Structure):
    """What the kernel found: ``JoulewiseFound``."""

    _fields_ = (
        ("selected", ctypes.c_void_p),
        ("room", ctypes.c_int64),
        ("kept", ctypes.c_int64),
        ("spent", ctypes.c_int64),
        ("misfit", ctypes.c_int64),
        ("bad", ctypes.c_int64),
        ("squares", ctypes.c_double),
    )


def longest_prefix(
    library: ctypes.CDLL, ranking: Ranking, quanta: Int64, limit: int, carry: Carry | None = None, flags: int = 0
) -> Prefix:
    """`joulewise.prefix.longest_prefix` in the kernel.

    Args:
        library: the kernel.
        ranking: what to rank by.
        quanta: int64[tensors] or int64[n], positive integer costs.
        limit: what the kept coordinates may cost together, at least 0.
        carry: what to add to the ranking's vector first, in the same pass.
        flags: for tests alone: forced paths. They change no result.

    Raises:
        NotFinite: the vector, or the sum, holds NaN or infinity.
        MemoryError: there is not enough memory.
        ValueError: the vector has 2**32 coordinates or more.
    """
    request = _request(ranking, carry, flags)
    _check_size("quanta", quanta, ranking)
    request.quanta, request.quanta_count = _address(quanta, np.int64), quanta.size
    request.limit = limit
    found, indices, values = _call(library, request)
    misfit = None if found.misfit < 0 else int(found.misfit)
    return Prefix(indices, values, int(found.spent), misfit, float(found.squares))


def at_least(
    library: ctypes.CDLL, ranking: Ranking, threshold: float, carry: Carry | None = None, flags: int = 0
) -> tuple[UInt32, Float32, float]:
    """`joulewise.prefix.at_least` in the kernel; raises what `longest_prefix` raises."""
    request = _request(ranking, carry, flags)
    request.threshold, request.by_threshold = threshold, 1
    found, indices, values = _call(library, request)
    return indices, values, float(found.squares)


def read(library: ctypes.CDLL, a: Float32) -> int:
    """Reads a vector once and does next to nothing with it: the floor that benchmarks compare with."""
    library.joulewise_read.restype = ctypes.c_uint32
    return int(library.joulewise_read(ctypes.c_void_p(_address(a, np.float32)), ctypes.c_int64(a.size)))


def _request(ranking: Ranking, carry: Carry | None, flags: int) -> Request:
    n, tensors = ranking.a.size, ranking.edges.size - 1
    request = Request(
        update=_address(ranking.a, np.float32),
        edges=_address(ranking.edges, np.int64),
        weights=_address(ranking.weights, np.float64),
        n=n,
        tensors=tensors,
        weight_count=ranking.weights.size,
        factor=1.0,
        threads=kernel.threads(),
        flags=flags,
    )
    _check_size("weights", ranking.weights, ranking)
    if ranking.key is not None:
        request.random, request.key = 1, ranking.key
    if carry is not None:
        _add(request, carry)
    return request


def _check_size(name: str, numbers: npt.NDArray[Any], ranking: Ranking) -> None:
    tensors, n = ranking.edges.size - 1, ranking.a.size
    if numbers.size not in (tensors, n):
        raise ValueError(
            f"{name} has {numbers.size} numbers, expected one for each of {tensors} tensors or {n} coordinates"
        )


def _add(request: Request, carry: Carry) -> None:
    added = (carry.into,) if carry.residual is None else (carry.into, carry.residual)
    if any(array.size != request.n for array in added):
        raise ValueError(f"residual and sum have {[array.size for array in added]} numbers, expected {request.n}")
    request.carried = _address(carry.into, np.float32, written=True)
    if carry.residual is not None:
        request.residual, request.factor = _address(carry.residual, np.float32), carry.factor


def _address(array: npt.NDArray[Any], dtype: type[np.generic], written: bool = False) -> int:
    """Where an array's numbers lie, once they are known to be what the kernel reads or writes there."""
    if array.dtype != dtype or array.ndim != 1 or not array.flags.c_contiguous or not array.flags.aligned:
        raise TypeError(f"the kernel takes contiguous {np.dtype(dtype)} vectors, not {array.dtype}{list(array.shape)}")
    if written and not array.flags.writeable:
        raise TypeError("the kernel was given a read-only vector to write to")
    return int(array.ctypes.data)


def _call(library: ctypes.CDLL, request: Request) -> tuple[Found, UInt32, Float32]:
    found = Found()
    _check(library.joulewise_select_open(ctypes.byref(request), ctypes.byref(found)), found)
    try:
        indices, values = _written(library, found)
    finally:
        library.joulewise_select_close.restype = None
        library.joulewise_select_close(ctypes.c_void_p(found.selected))
    for array in (indices, values):
        array.resize(found.kept, refcheck=False)  # What was too much goes back, and nothing is copied.
    return found, indices, values


def _written(library: ctypes.CDLL, found: Found) -> tuple[UInt32, Float32]:
    """What was found, at the beginning of arrays that may be longer: the kernel writes before it knows where to end."""
    status = MORE_ROOM
    while status == MORE_ROOM:
        indices, values = np.empty(found.room, np.uint32), np.empty(found.room, np.float32)
        addresses = (ctypes.c_void_p(array.ctypes.data) for array in (indices, values))
        status = library.joulewise_select_write(ctypes.byref(found), *addresses)
    _check(status, found)
    return indices, values


def _check(status: int, found: Found) -> None:
    if status in (NOT_FINITE, SUM_NOT_FINITE):
        raise NotFinite(int(found.bad), of_sum=status == SUM_NOT_FINITE)
    if status == NO_MEMORY:
        raise MemoryError("the kernel found not enough memory for the selection")
    if status == TOO_LONG:
        raise ValueError("the vector has 2**32 coordinates or more, expected fewer; select parts of it")
