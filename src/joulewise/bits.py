"""Bits and short integers: how numbers lie in a payload.

While a payload is made or read, a bit is one element of a uint8 array; in the payload itself eight of them
share a byte, the first in the lowest place.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeVar

import numpy as np
import numpy.typing as npt

from joulewise import refusals

Bits = npt.NDArray[np.uint8]
Counts = npt.NDArray[np.int64]
Numbers = npt.NDArray[np.uint32]
Item = TypeVar("Item", bound=np.generic)

VARINT_BYTES = 5


def pack(pieces: Sequence[Bits]) -> bytes:
    r"""Lay pieces of a bit stream one after another and fill the last byte with zeros.

    Example:
        >>> pack([np.array([1, 0, 1], np.uint8), np.array([1], np.uint8)])
        b'\r'
    """
    stream = np.concatenate(pieces) if pieces else np.zeros(0, np.uint8)
    return np.packbits(stream, bitorder="little").tobytes()


def unpack(section: bytes | memoryview) -> Bits:
    r"""The bits of a byte string: uint8[8 * bytes], each 0 or 1.

    Example:
        >>> unpack(b"\x05").tolist()
        [1, 0, 1, 0, 0, 0, 0, 0]
    """
    return np.unpackbits(np.frombuffer(section, np.uint8), bitorder="little")


def write_planes(numbers: Numbers, widths: Bits) -> list[Bits]:
    """Write number i in `widths[i]` bits: the lowest bit of all, then the next of those that have one.

    Example:
        >>> numbers, widths = np.array([1, 2, 3], np.uint32), np.array([1, 2, 2], np.uint8)
        >>> [plane.tolist() for plane in write_planes(numbers, widths)]
        [[1, 0, 1], [1, 1]]
    """
    planes = []
    for place in range(int(widths.max(initial=0))):
        if not (widths > place).all():
            live = widths > place
            numbers, widths = numbers[live], widths[live]
        planes.append(((numbers >> np.uint32(place)) & np.uint32(1)).astype(np.uint8))
    return planes


def read_planes(bits: Bits, widths: Bits) -> Numbers:
    """Read back what `write_planes` wrote; `bits` must hold at least ``widths.sum()`` bits.

    Example:
        >>> read_planes(np.array([1, 0, 1, 1, 1], np.uint8), np.array([1, 2, 2], np.uint8)).tolist()
        [1, 2, 3]
    """
    numbers, at = np.zeros(len(widths), np.uint32), 0
    for place in range(int(widths.max(initial=0))):
        live = widths > place
        count = int(np.count_nonzero(live))
        plane = bits[at : at + count].astype(np.uint32) << np.uint32(place)
        if count == len(numbers):
            numbers |= plane
        else:
            numbers[live] |= plane
        at += count
    return numbers


def reduce_segments(operation: np.ufunc, items: npt.NDArray[Item], counts: Counts) -> npt.NDArray[Item]:
    """Reduce consecutive stretches of `items`, one of each length in `counts`; an empty stretch gives 0.

    Example:
        >>> reduce_segments(np.add, np.array([1, 2, 3]), np.array([2, 0, 1])).tolist()
        [3, 0, 3]
    """
    reduced = np.zeros(len(counts), items.dtype)
    starts = (np.cumsum(counts) - counts)[counts > 0]
    if len(starts):
        reduced[counts > 0] = operation.reduceat(items, starts, dtype=items.dtype)
    return reduced


def varint(value: int) -> bytes:
    r"""A count in as few bytes as it needs: seven bits each, lowest first; the top bit says that more follow.

    Example:
        >>> varint(5), varint(300)
        (b'\x05', b'\xac\x02')
    """
    written = bytearray()
    while value > 127:
        written.append(value & 127 | 128)
        value >>= 7
    written.append(value)
    return bytes(written)


class Reader:
    r"""A cursor over the bytes of a payload that never runs past their end.

    Example:
        >>> reader = Reader(b"\xac\x02rest")
        >>> reader.varint(), bytes(reader.rest())
        (300, b'rest')
    """

    def __init__(self, payload: bytes | memoryview) -> None:
        self._payload = memoryview(payload)
        self._at = 0

    @property
    def at(self) -> int:
        """How many bytes have been read."""
        return self._at

    def take(self, count: int, what: str) -> memoryview:
        """The next `count` bytes.

        Raises:
            PayloadError: fewer are left; the message says that `what` is cut off.
        """
        left = len(self._payload) - self._at
        if count > left:
            raise refusals.cut_off(what, count, left)
        self._at += count
        return self._payload[self._at - count : self._at]

    def byte(self, what: str) -> int:
        """The next byte."""
        return self.take(1, what)[0]

    def varint(self, what: str = "a count") -> int:
        """The next count, at most 35 bits.

        Raises:
            PayloadError: it is cut off, longer than five bytes, or not in the shortest form.
        """
        value = 0
        for place in range(VARINT_BYTES):
            part = self.byte(what)
            value |= (part & 127) << (7 * place)
            if part < 128:
                if part == 0 and place:
                    raise refusals.needless_zeros(what)
                return value
        raise refusals.long_count(what, VARINT_BYTES)

    def rest(self) -> memoryview:
        """All bytes that are left."""
        return self.take(len(self._payload) - self._at, "the rest")
