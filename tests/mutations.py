"""What can be done to a payload: to its fields, one by one, and to its bytes."""

from __future__ import annotations

import random
import struct
from collections.abc import Callable
from functools import cache

from mutant_corpus import Seed, corpus
from payload_parts import HUFFMAN, STEPS, Entry, Parts

Random = random.Random


def near(value: int, rng: Random, highest: int) -> int:
    """Another number: a neighbour, a power of two, or anything."""
    other = rng.choice((value + 1, value - 1, value ^ 1 << rng.randrange(8), rng.randint(0, highest), 0, highest))
    return max(0, min(other, 2**35 - 1))


def some_entry(parts: Parts, rng: Random) -> tuple[int, Entry]:
    if not parts.entries:
        return 0, Entry(0)
    at = rng.randrange(len(parts.entries))
    return at, parts.entries[at]


def flags(parts: Parts, rng: Random, source: Seed) -> None:
    parts.flags ^= rng.choice((1, 1, 2, 128, rng.randrange(256)))


def fingerprint(parts: Parts, rng: Random, source: Seed) -> None:
    parts.fingerprint = rng.choice((rng.randbytes(8), rng.choice(corpus()).parts.fingerprint))


def counts_of_head(parts: Parts, rng: Random, source: Seed) -> None:
    if rng.random() < 0.5:
        parts.n = near(parts.n, rng, 2**32)
    else:
        parts.tensors = near(parts.tensors, rng, 99)


def unary_length(parts: Parts, rng: Random, source: Seed) -> None:
    parts.unary_bits = near(parts.unary_bits, rng, rng.choice((200, 2**20, 2**34)))


def kept(parts: Parts, rng: Random, source: Seed) -> None:
    at, entry = some_entry(parts, rng)
    size = parts.sizes[at] if at < len(parts.sizes) else 0
    entry.kept = rng.choice((near(entry.kept, rng, size + 1), size - entry.kept, size, size + 1, size // 2, 2**31))
    entry.kept = max(0, entry.kept)


def rice(parts: Parts, rng: Random, source: Seed) -> None:
    entry = some_entry(parts, rng)[1]
    entry.rice = rng.choice((entry.rice + 1, max(0, entry.rice - 1), rng.randrange(32))) & 31


def value_type(parts: Parts, rng: Random, source: Seed) -> None:
    entry = some_entry(parts, rng)[1]
    entry.value_type = rng.choice((0, 1, 2, 3, 3, 4, 4, rng.randrange(8)))
    entry.largest = entry.largest or struct.pack("<f", rng.choice((1.0, 0.0, 3e-45, 3.4e38)))


def largest(parts: Parts, rng: Random, source: Seed) -> None:
    entry = some_entry(parts, rng)[1]
    typed = [each for each in parts.entries if each.value_type in STEPS and each.kept]
    entry = rng.choice(typed) if typed else entry
    word = int.from_bytes(entry.largest, "little")
    other = rng.choice((word ^ 1 << rng.randrange(32), word ^ 1, rng.getrandbits(32), 0, 1, 0x7F800000, 0x7F7FFFFF))
    entry.largest = other.to_bytes(4, "little")


def symbols_of_table(parts: Parts, rng: Random, source: Seed) -> None:
    entry = some_entry(parts, rng)[1]
    if rng.random() < 0.5:
        entry.low = near(entry.low, rng, 255)
    else:
        set_symbols(entry, near(entry.more, rng, 255) & 255)


def kind_of_code(parts: Parts, rng: Random, source: Seed) -> None:
    entry = some_entry(parts, rng)[1]
    entry.kind = rng.randrange(4)
    set_symbols(entry, entry.more)
    if entry.kind == HUFFMAN and rng.random() < 0.7:  # A complete code, which may be the right one.
        entry.lengths = random_lengths(entry.more + 1, rng)


def code_lengths(parts: Parts, rng: Random, source: Seed) -> None:
    typed = [entry for entry in parts.entries if entry.kind == HUFFMAN and entry.kept]
    if not typed:
        kind_of_code(parts, rng, source)
        return
    entry = rng.choice(typed)
    lengths = list(entry.lengths)
    first, second = rng.randrange(len(lengths)), rng.randrange(len(lengths))
    if rng.random() < 0.7:
        lengths[first], lengths[second] = lengths[second], lengths[first]
    else:
        lengths[first] = rng.randrange(16)
    entry.lengths = tuple(lengths)


def entries_moved(parts: Parts, rng: Random, source: Seed) -> None:
    at, entry = some_entry(parts, rng)
    other = some_entry(parts, rng)[0]
    if parts.entries:
        move = rng.randrange(4)
        if move == 0:
            parts.entries[at], parts.entries[other] = parts.entries[other], parts.entries[at]
        elif move == 1:
            parts.entries[other] = Entry(**vars(entry))
        elif move == 2:
            parts.entries[at] = Entry(0)
        else:
            donor = rng.choice(rng.choice(corpus()).parts.entries or [Entry(0)])
            parts.entries[at] = Entry(**vars(donor))


def unary(parts: Parts, rng: Random, source: Seed) -> None:
    bits = parts.unary
    at = rng.randrange(len(bits) + 1)
    parts.unary = rng.choice(
        (
            flipped(bits, rng),
            bits[:at] + rng.choice("01") + bits[at:],
            bits[:at] + bits[at + 1 :],
            bits[:at] + bits[at : at + 2][::-1] + bits[at + 2 :],
            bits[at:] + bits[:at],
            bits[:at] + "0" * rng.randrange(300) + bits[at:],
        )
    )
    if rng.random() < 0.8:
        parts.unary_bits = len(parts.unary)


def remainders(parts: Parts, rng: Random, source: Seed) -> None:
    parts.remainders = changed_bits(parts.remainders, rng)


def odd(parts: Parts, rng: Random, source: Seed) -> None:
    parts.odd = changed_bits(parts.odd, rng)


def symbols(parts: Parts, rng: Random, source: Seed) -> None:
    parts.symbols = changed_bits(parts.symbols, rng)


def filling(parts: Parts, rng: Random, source: Seed) -> None:
    parts.filling = rng.choice(("1", "0" * 8, "0" * 7 + "1", "0", "", flipped(parts.filling, rng)))


def value_bytes(parts: Parts, rng: Random, source: Seed) -> None:
    at = rng.randrange(4)
    parts.values[at] = changed_bytes(parts.values[at], rng)


def wholes(parts: Parts, rng: Random, source: Seed) -> None:
    parts.wholes = changed_bytes(parts.wholes, rng)
    if rng.random() < 0.3:  # Infinity, NaN and truth values beyond 1.
        at = rng.randrange(len(parts.wholes) + 1)
        parts.wholes = parts.wholes[:at] + rng.choice((b"\x00\x00\x80\x7f", b"\x00\x7c", b"\x02", b"\xff\xff"))


def sections_moved(parts: Parts, rng: Random, source: Seed) -> None:
    names = ("unary", "remainders", "odd", "symbols")
    first, second = rng.sample(names, 2)
    if rng.random() < 0.5:
        one, other = getattr(parts, first), getattr(parts, second)
        setattr(parts, first, other)
        setattr(parts, second, one)
    else:
        at, other = rng.randrange(4), rng.randrange(4)
        parts.values[at], parts.values[other] = parts.values[other], parts.values[at]


def transplant(parts: Parts, rng: Random, source: Seed) -> None:
    donors = [seed for seed in corpus() if seed.layout is source.layout] if rng.random() < 0.2 else corpus()
    donor = rng.choice(donors).parts
    name = rng.choice(("unary", "remainders", "odd", "symbols", "wholes", "entries", "values"))
    setattr(parts, name, getattr(donor.copy(), name))
    if name == "unary":
        parts.unary_bits = len(parts.unary)


def tail(parts: Parts, rng: Random, source: Seed) -> None:
    parts.tail = rng.choice((b"\0", b"\1", rng.randbytes(rng.randrange(40)), bytes(300)))


Change = Callable[[Parts, Random, Seed], None]
INNER: tuple[Change, ...] = (
    *(flags, kept, kept, rice, rice, value_type, value_type, largest, symbols_of_table, symbols_of_table),
    *(kind_of_code, kind_of_code, code_lengths, code_lengths, entries_moved, unary, unary, unary, remainders),
    *(remainders, odd, symbols, symbols, symbols, filling, value_bytes, wholes, sections_moved, transplant, transplant),
)
FIELDS: tuple[Change, ...] = (*INNER, fingerprint, counts_of_head, unary_length, unary_length, tail)


def cut(body: bytes, rng: Random) -> bytes:
    return body[: rng.choice((rng.randrange(len(body) + 1), max(0, len(body) - rng.randrange(1, 4))))]


def byte(body: bytes, rng: Random) -> bytes:
    at = rng.randrange(len(body)) if body else 0
    return body[:at] + bytes([rng.choice((0, 1, 127, 128, 255, rng.randrange(256)))]) + body[at + 1 :]


def bit(body: bytes, rng: Random) -> bytes:
    at = rng.randrange(len(body)) if body else 0
    return body[:at] + bytes([body[at] ^ 1 << rng.randrange(8)]) + body[at + 1 :] if body else body


def repeat(body: bytes, rng: Random) -> bytes:
    start, stop = sorted((rng.randrange(len(body) + 1), rng.randrange(len(body) + 1)))
    return body[:stop] + body[start:stop] * rng.choice((1, 1, 2, 20)) + body[stop:]


def drop(body: bytes, rng: Random) -> bytes:
    start = rng.randrange(len(body) + 1)
    return body[:start] + body[start + rng.randrange(1, 9) :]


def long_count(body: bytes, rng: Random) -> bytes:
    """A count in the header or the table that is written in more bytes than it needs, or never ends."""
    at = rng.randrange(9, max(10, min(len(body), 40)))
    value = body[at : at + 1] or b"\0"
    return (
        body[:at] + bytes([value[0] | 128]) + rng.choice((b"\0", b"\x80\0", b"\xff" * 5, b"\xff" * 9)) + body[at + 1 :]
    )


def noise(body: bytes, rng: Random) -> bytes:
    return body[: rng.choice((0, 9, 12, len(body)))] + rng.randbytes(rng.randrange(60))


ROUGH: tuple[Callable[[bytes, Random], bytes], ...] = (cut, byte, byte, bit, bit, repeat, drop, long_count, noise)


def spoil_head(payload: bytes, rng: Random) -> bytes:
    """Magic number and checksum as they were, or not."""
    if rng.random() < 0.5:
        return bit(payload[:8], rng) + payload[8:]
    return rng.choice((payload, payload[: rng.randrange(9)], rng.randbytes(len(payload))))


def flipped(bits: str, rng: Random) -> str:
    if not bits:
        return bits
    at = rng.randrange(len(bits))
    return bits[:at] + "10"[int(bits[at])] + bits[at + 1 :]


def changed_bits(bits: str, rng: Random) -> str:
    at = rng.randrange(len(bits) + 1)
    return rng.choice(
        (flipped(bits, rng), flipped(bits, rng), bits[:at] + rng.choice("01") + bits[at:], bits[:at], bits[::-1])
    )


def changed_bytes(section: bytes, rng: Random) -> bytes:
    return rng.choice((bit, byte, cut, repeat))(section, rng)


def set_symbols(entry: Entry, more: int) -> None:
    """Another number of symbols, and as many code lengths as it asks for."""
    entry.more = more
    if entry.kind == HUFFMAN:
        entry.lengths = (entry.lengths + (0,) * (more + 1))[: more + 1]


@cache
def halves(count: int, seed: int) -> tuple[int, ...]:
    """Lengths of a complete code of `count` words: halve one word after another."""
    rng, lengths = Random(seed), [0]
    while len(lengths) < count:
        at = rng.randrange(len(lengths))
        if lengths[at] < 15:
            lengths[at] += 1
            lengths.insert(at, lengths[at])
    return tuple(lengths)


def random_lengths(count: int, rng: Random) -> tuple[int, ...]:
    used = rng.randint(2, count) if count > 1 else 1
    lengths = list(halves(used, rng.randrange(16)))
    while len(lengths) < count:  # Symbols that do not occur, but not at the ends.
        lengths.insert(rng.randrange(1, len(lengths)), 0)
    return tuple(lengths)
