"""A payload in parts, read and written after docs/payload.md alone, with nothing of joulewise: for hostile bytes and
for a second opinion on what a payload says.

A bit stream is a string of the characters 0 and 1, in the order of the page.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import lru_cache
from itertools import pairwise

import numpy as np

VALUE_BYTES, ODD_BITS, MANTISSA = (3, 1, 1, 0, 0), (0, 3, 0, 1, 1), (23, 10, 7, 0, 0)
STEPS = {3: 127, 4: 1}
"""Of the types that have a magnitude in the table: int8 and ternary."""
HUFFMAN = 3
ELEMENT_BYTES = {"bool": 1, "int8": 1, "uint8": 1, "int16": 2, "uint16": 2, "float16": 2, "int32": 4, "uint32": 4}
ELEMENT_BYTES |= {"float32": 4, "int64": 8, "uint64": 8, "float64": 8, "bfloat16": 4}


@dataclass
class Entry:
    """One line of the table; without `kept` there is nothing else."""

    kept: int
    rice: int = 0
    value_type: int = 0
    largest: bytes = b""
    low: int = 0
    more: int = 0
    kind: int = 0
    lengths: tuple[int, ...] = ()

    def write(self) -> bytes:
        if not self.kept:
            return b"\0"
        head = varint(self.kept) + bytes([(self.value_type << 5 | self.rice) & 255])
        head += (self.largest + bytes(4))[:4] if self.value_type in STEPS else b""
        head += bytes([self.low & 255, self.kind << 6 | min(self.more, 63)])
        head += bytes([self.more - 63 & 255]) if self.more >= 63 else b""
        if self.kind == HUFFMAN:
            nibbles = [*self.lengths, 0][: len(self.lengths) + len(self.lengths) % 2]
            head += bytes(lower | upper << 4 for lower, upper in zip(nibbles[::2], nibbles[1::2], strict=True))
        return head

    def code(self) -> dict[str, int]:
        """Symbol by code word; empty where the lengths make no complete code."""
        lengths = self.lengths if self.kind == HUFFMAN else simple_lengths(self.kind, self.more + 1)
        return words(self.low, lengths)


@dataclass
class Parts:
    """All of a payload, in order. `unary_bits` is what the header says of the length of `unary`."""

    flags: int
    fingerprint: bytes
    n: int
    tensors: int
    unary_bits: int
    entries: list[Entry]
    wholes: bytes
    values: list[bytes]
    unary: str
    remainders: str
    odd: str
    symbols: str
    filling: str = ""
    tail: bytes = b""
    sizes: tuple[int, ...] = field(default=(), repr=False)

    def copy(self) -> Parts:
        entries = [Entry(**vars(entry)) for entry in self.entries]
        return Parts(**(vars(self) | {"entries": entries, "values": list(self.values)}))

    def listed(self, at: int) -> int:
        kept = self.entries[at].kept
        return max(0, min(kept, self.sizes[at] - kept))

    def write(self) -> bytes:
        """The payload from its ninth byte on."""
        head = bytes([self.flags & 255]) + self.fingerprint + varint(self.n) + varint(self.tensors)
        table = b"".join([varint(self.unary_bits), *[entry.write() for entry in self.entries]])
        bits = self.unary + self.remainders + self.odd + self.symbols + self.filling
        stream = int(bits[::-1] or "0", 2).to_bytes((len(bits) + 7) // 8, "little")
        return b"".join([head, table, self.wholes, *self.values, stream, self.tail])


def sealed(body: bytes) -> bytes:
    """The payload of a body, with the checksum that fits."""
    return b"JWP1" + zlib.crc32(body).to_bytes(4, "little") + body


def varint(value: int) -> bytes:
    """Seven bits a byte, lowest first."""
    written = bytearray()
    while value > 127:
        written.append(value & 127 | 128)
        value >>= 7
    return bytes([*written, value])


def simple_lengths(kind: int, count: int) -> tuple[int, ...]:
    """Code lengths of kinds 0 to 2."""
    if kind == 0:
        width = (count - 1).bit_length()
        short = (1 << width) - count
        return (width - 1,) * short + (width,) * (count - short)
    rising = (*range(1, count), count - 1)
    return rising if kind == 1 else rising[::-1]


@lru_cache(maxsize=4096)
def words(low: int, lengths: tuple[int, ...]) -> dict[str, int]:
    """Canonical code words."""
    if len(lengths) == 1:
        return {"": low}
    ordered = sorted((length, place) for place, length in enumerate(lengths) if length)
    if max(lengths) > 15 or sum(1 << 15 - length for length, _ in ordered) != 1 << 15:
        return {}
    book, code, before = {}, 0, ordered[0][0]
    for length, place in ordered:
        code <<= length - before
        book[format(code, f"0{length}b")] = low + place
        code, before = code + 1, length
    return book


def whole_bytes(layout) -> int:
    return sum(tensor.size * ELEMENT_BYTES[tensor.dtype] for tensor in layout.wholes)


def parse(payload: bytes, layout) -> Parts:
    """Take a sound payload apart."""
    assert payload[:4] == b"JWP1"
    assert zlib.crc32(payload[8:]) == struct.unpack("<I", payload[4:8])[0]
    source = iter(payload[17:])
    sizes = tuple(tensor.size for tensor in layout.tensors)
    n, count, unary_bits = read_varint(source), read_varint(source), read_varint(source)
    entries = [read_entry(source) for _ in range(count)]
    rest = bytes(source)
    cut = whole_bytes(layout) if payload[8] & 1 else 0
    parts = Parts(
        payload[8], payload[9:17], n, count, unary_bits, entries, rest[:cut], [], "", "", "", "", "", b"", sizes
    )
    for value_type in range(len(VALUE_BYTES)):
        stop = cut + VALUE_BYTES[value_type] * kept_of(parts, value_type)
        parts.values.append(rest[cut:stop])
        cut = stop
    stream = rest[cut:]
    bits = format(int.from_bytes(stream, "little"), f"0{8 * len(stream)}b")[::-1] if stream else ""
    edges = np.cumsum([0, unary_bits, remainder_bits(parts), odd_bits(parts)]).tolist()
    parts.unary, parts.remainders, parts.odd = (bits[start:stop] for start, stop in pairwise(edges))
    parts.symbols = bits[edges[-1] :]
    _, used = walk(parts)
    parts.symbols, parts.filling = parts.symbols[:used], parts.symbols[used:]
    return parts


def kept_of(parts: Parts, value_type: int) -> int:
    return sum(entry.kept for entry in parts.entries if entry.value_type == value_type)


def remainder_bits(parts: Parts) -> int:
    return sum(parts.listed(at) * entry.rice for at, entry in enumerate(parts.entries))


def odd_bits(parts: Parts) -> int:
    return sum(ODD_BITS[value_type] * kept_of(parts, value_type) for value_type in range(len(ODD_BITS)))


def read_varint(source: Iterator[int]) -> int:
    value = place = 0
    while (byte := next(source)) > 127:
        value |= (byte & 127) << place
        place += 7
    return value | byte << place


def read_entry(source: Iterator[int]) -> Entry:
    kept = read_varint(source)
    if not kept:
        return Entry(0)
    first = next(source)
    largest = bytes(next(source) for _ in range(4)) if first >> 5 in STEPS else b""
    low, second = next(source), next(source)
    more = second & 63
    if more == 63:
        more += next(source)
    packed = [next(source) for _ in range((more + 2) // 2)] if second >> 6 == HUFFMAN else []
    lengths = tuple(length for pair in packed for length in (pair & 15, pair >> 4))[: more + 1]
    return Entry(kept, first & 31, first >> 5, largest, low, more, second >> 6, lengths)


def walk(parts: Parts, more=lambda: "0") -> tuple[list[int], int]:
    """Symbols of all values, and how many bits they take; `more` gives further bits where the stream has ended."""
    bits, at = parts.symbols, 0
    found = [0] * sum(entry.kept for entry in parts.entries)
    live, place = [], 0
    for entry in parts.entries:
        book = entry.code() if entry.kept else {}
        lone = book.get("")
        if lone is None:
            live += [(book, "", place + each) for each in range(entry.kept if book else 0)]
        else:
            found[place : place + entry.kept] = [lone] * entry.kept
        place += entry.kept
    while live:
        following = []
        for book, word, value in live:
            if at == len(bits):
                bits += more()
            grown = word + bits[at]
            at += 1
            if grown in book:
                found[value] = book[grown]
            else:
                following.append((book, grown, value))
        live = following
    parts.symbols = bits
    return found, at


def positions_of(parts: Parts) -> list[int]:
    """Kept coordinates of the flat vector."""
    quotients = [len(zeros) for zeros in parts.unary.split("1")[:-1]]
    planes, rices, at = iter(parts.remainders), [], 0
    for tensor, entry in enumerate(parts.entries):
        rices += [entry.rice] * parts.listed(tensor)
    gaps = [quotient << rice for quotient, rice in zip(quotients, rices, strict=True)]
    for plane in range(32):
        for place, rice in enumerate(rices):
            if rice > plane:
                gaps[place] |= int(next(planes)) << plane
    kept, start = [], 0
    for tensor, (entry, size) in enumerate(zip(parts.entries, parts.sizes, strict=True)):
        listed, before = [], -1
        for gap in gaps[at : at + parts.listed(tensor)]:
            before += gap + 1
            listed.append(before)
        at += parts.listed(tensor)
        if 2 * entry.kept > size:
            listed = sorted(set(range(size)) - set(listed))
        kept += [start + each for each in listed]
        start += size
    return kept


def words_of(parts: Parts) -> list[int]:
    """Kept values as float32 words."""
    symbols, _ = walk(parts)
    further = further_of(parts)
    found, at = [], 0
    for entry in parts.entries:
        for symbol, bits in zip(symbols[at : at + entry.kept], further[at : at + entry.kept], strict=True):
            width = MANTISSA[entry.value_type]
            sign, mantissa = bits >> width, bits & (1 << width) - 1
            if entry.value_type in STEPS:
                step = float(np.frombuffer(entry.largest, "<f4")[0]) * symbol / STEPS[entry.value_type]
                magnitude = int(np.float32(step).view(np.uint32))
            else:
                magnitude = symbol << 23 | mantissa << 23 - width
            found.append(sign << 31 | magnitude)
        at += entry.kept
    return found


def further_of(parts: Parts) -> list[int]:
    """Sign and mantissa of every value, in the order of the table."""
    by_type: list[list[int]] = []
    odd = 0
    for value_type, width in enumerate(VALUE_BYTES):
        count, section = kept_of(parts, value_type), parts.values[value_type]
        numbers = [int.from_bytes(section[width * at : width * (at + 1)], "little") for at in range(count)]
        for plane in range(ODD_BITS[value_type]):
            for at in range(count):
                numbers[at] |= int(parts.odd[odd]) << 8 * width + plane
                odd += 1
        by_type.append(numbers)
    queues = [iter(numbers) for numbers in by_type]
    return [next(queues[entry.value_type]) for entry in parts.entries for _ in range(entry.kept)]
