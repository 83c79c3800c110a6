"""Hostile payloads: a corpus in which everything occurs that the format has, and what can be done to it.

Mutant number i of a seed is always the same, so that a finding can be made again from its number alone.
"""

from __future__ import annotations

import random
import re
import struct
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache

import numpy as np
from payload_parts import (
    HUFFMAN,
    INT8,
    VALUE_BYTES,
    Entry,
    Parts,
    kept_of,
    odd_bits,
    parse,
    remainder_bits,
    sealed,
    walk,
    whole_bytes,
)

from joulewise.aggregate import add
from joulewise.codec import VALUE_TYPES, decode, encode
from joulewise.errors import PayloadError
from joulewise.layout import Layout, Tensor
from joulewise.select import Selection

Random = random.Random
SEALS = ("lengths and checksum", "checksum", "nothing")
"""What fits again after a mutation, in the shares of `SHARES`."""
SHARES = (60, 32, 8)
MOST_KEPT = 200
"""Of a tensor, where lengths fit again: there are many more small mutants in a minute than large ones."""


@dataclass(frozen=True)
class Seed:
    """A sound payload, its layout, and itself in parts."""

    layout: Layout
    payload: bytes
    parts: Parts


@dataclass(frozen=True)
class Mutant:
    """Bytes for a decoder, what they were made from, their layout, what was done, and what fits again."""

    payload: bytes
    source: bytes
    layout: Layout
    done: tuple[str, ...]
    seal: str
    modes: tuple[str, ...]


# ---------------------------------------------------------------- the corpus


def layouts() -> list[Layout]:
    """Small models: one tensor, several with empty ones, with buffers, with all element types, none."""

    def tensors(*shapes):
        return tuple(Tensor(f"t{at}", shape, "linear", "float32") for at, shape in enumerate(shapes))

    buffers = (
        Tensor("mean", (2,), "buffer", "float32"),
        Tensor("flag", (3,), "whole", "bool"),
        Tensor("steps", (), "whole", "int64"),
        Tensor("half", (2,), "whole", "float16"),
        Tensor("brain", (1,), "buffer", "bfloat16"),
    )
    return [
        Layout(tensors((40,))),
        Layout(tensors((300,))),
        Layout(tensors((20, 6), (), (0, 4), (50,), (7,))),
        Layout(tensors((9,), (64,), (1,)), buffers),
        Layout(tensors((2, 3), (90,)), buffers, (Tensor("home", (4,), "local", "float32"),)),
        Layout(tensors((70_000,), (33,))),
        Layout(tensors((20_000,), (400,))),
        Layout((), buffers),
    ]


def state_of(layout: Layout, rng: np.random.Generator) -> dict[str, np.ndarray]:
    dtypes = {tensor.name: tensor.dtype.replace("bfloat16", "float32") for tensor in layout.wholes}
    return {t.name: rng.integers(0, 2, t.shape).astype(dtypes[t.name]) for t in layout.wholes}


STYLES = ("equal", "zeros", "balanced", "rising", "falling", "two peaks", "wide", "near the largest", "far below it")


def numbers(style: str, count: int, rng: np.random.Generator) -> np.ndarray:
    """Values that make each kind of code."""
    if style == "equal":
        return np.full(count, 0.75, np.float32)
    if style == "zeros":
        return np.zeros(count, np.float32) * rng.choice(np.float32([1, -1]), count)
    if style in {"near the largest", "far below it"}:  # Few steps of int8, and so the short codes there.
        steps = np.minimum(rng.geometric(0.5, count), 12)
        steps = 128 - steps if style == "near the largest" else 115 + steps
        steps[:1] = 127
        return (steps * rng.choice([-1, 1], count)).astype(np.float32)
    exponents = {
        "balanced": lambda: rng.integers(-7, 7, count),
        "rising": lambda: np.minimum(rng.geometric(0.5, count), 12) - 9,
        "falling": lambda: 4 - np.minimum(rng.geometric(0.5, count), 12),
        "two peaks": lambda: rng.choice([-30, 9, 10], count, p=[0.6, 0.3, 0.1]),
        "wide": lambda: np.where(rng.random(count) < 0.8, -3, rng.integers(-148, 127, count)),
    }[style]()
    return np.ldexp(rng.uniform(1, 2, count) * rng.choice([-1, 1], count), exponents).astype(np.float32)


@cache
def corpus() -> tuple[Seed, ...]:
    """Sound payloads of all layouts, value types, densities and kinds of code."""
    rng, seeds = np.random.default_rng(0), {}
    for layout in layouts():
        for style in STYLES if layout.n != 20_400 else ("rising",):  # A few large ones.
            for value_type in (*VALUE_TYPES, "any"):
                density = rng.choice((0.02, 0.3, 0.3, 0.5, 0.5, 0.8, 1.0)) * (rng.random() < 0.96)
                most = min(layout.n, {70_033: 30, 20_400: 3000}.get(layout.n, 120))
                places = rng.choice(layout.n, int(min(most, density * layout.n)), replace=False)
                indices = np.sort(places).astype(np.uint32)
                types = rng.choice(VALUE_TYPES, len(layout.tensors)).tolist() if value_type == "any" else value_type
                state = state_of(layout, rng) if rng.random() < 0.5 else None
                selection = Selection(layout.n, indices, numbers(style, len(indices), rng))
                payload = encode(selection, layout, types, state)
                if payload:
                    seeds[payload] = layout
    return tuple(Seed(layout, payload, parse(payload, layout)) for payload, layout in seeds.items())


# ---------------------------------------------------------------- mutations


def mutant(number: int, seed: int = 0) -> Mutant:
    """Mutant `number` of a seed."""
    rng = Random(seed << 40 | number)
    source = rng.choice(corpus())
    seal, done = rng.choices(SEALS, SHARES)[0], []
    changes = INNER if seal == SEALS[0] else FIELDS
    parts = source.parts.copy()
    while not done or (len(done) < 8 and parts.write() == source.payload[8:]):  # What changes nothing is no mutation.
        for _ in range(rng.choice((1, 1, 1, 2, 3))):
            change = rng.choice(changes)
            change(parts, rng, source)
            done.append(change.__name__)
        if seal == SEALS[0]:
            fit_lengths(parts, rng, source)
    body = parts.write()
    if seal != SEALS[0] and rng.random() < 0.5:
        rough = rng.choice(ROUGH)
        body = rough(body, rng)
        done.append(rough.__name__)
    payload = sealed(body) if seal != SEALS[2] else spoil_head(source.payload[:8] + body, rng)
    layout = rng.choice(layouts()) if rng.random() < 0.005 else source.layout
    return Mutant(payload, source.payload, layout, tuple(done), seal, modes_of(parts))


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
    entry.value_type = rng.choice((0, 1, 2, 3, 3, rng.randrange(8)))
    entry.largest = entry.largest or struct.pack("<f", rng.choice((1.0, 0.0, 3e-45, 3.4e38)))


def largest(parts: Parts, rng: Random, source: Seed) -> None:
    entry = some_entry(parts, rng)[1]
    typed = [each for each in parts.entries if each.value_type == INT8 and each.kept]
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


# ---------------------------------------------------------------- lengths that fit again


def fit_lengths(parts: Parts, rng: Random, source: Seed) -> None:
    """Make every section as long as header and table ask for, so that a decoder goes on to what it says."""
    layout, most = source.layout, max([MOST_KEPT, *[entry.kept for entry in source.parts.entries]])
    parts.flags &= 1
    parts.fingerprint, parts.n, parts.tensors = layout.fingerprint.to_bytes(8, "little"), layout.n, len(layout.tensors)
    parts.wholes = fit(parts.wholes, whole_bytes(layout) if parts.flags else 0, rng)
    parts.entries = (parts.entries + [Entry(0)] * parts.tensors)[: parts.tensors]
    for entry, size in zip(parts.entries, parts.sizes, strict=True):
        entry.kept = min(entry.kept, size, most)
        entry.value_type &= 3
    for at, width in enumerate(VALUE_BYTES):
        parts.values[at] = fit(parts.values[at], width * kept_of(parts, at), rng)
    fit_unary(parts, rng)
    parts.remainders = fit_bits(parts.remainders, remainder_bits(parts), rng)
    parts.odd = fit_bits(parts.odd, odd_bits(parts), rng)
    _, used = walk(parts, lambda: format(rng.getrandbits(256), "0256b"))
    parts.symbols = parts.symbols[:used]
    parts.tail = b""
    bits = len(parts.unary) + len(parts.remainders) + len(parts.odd) + used
    parts.filling = "0" * (-bits % 8) if rng.random() < 0.97 else fit_bits(parts.filling, -bits % 8, rng)


def fit_unary(parts: Parts, rng: Random) -> None:
    ends = parts.unary.split("1")[:-1]
    wanted = sum(parts.listed(at) for at in range(len(parts.entries)))
    ends = ends[:wanted] + rng.choices(("", "", "0", "000"), k=max(0, wanted - len(ends)))
    parts.unary = "".join(zeros + "1" for zeros in ends)
    parts.unary_bits = len(parts.unary)


def fit(section: bytes, length: int, rng: Random) -> bytes:
    return section[:length] + rng.randbytes(max(0, length - len(section)))


def fit_bits(bits: str, length: int, rng: Random) -> str:
    missing = max(0, length - len(bits))
    return bits[:length] + (format(rng.getrandbits(missing), f"0{missing}b") if missing else "")


# ---------------------------------------------------------------- what becomes of it


def judge(made: Mutant) -> str:
    """How a mutant was accepted, or the sentence with which it was refused; any other error is a finding."""
    # A copy of exactly that size, so that AddressSanitizer sees what is read beyond its end.
    received = np.frombuffer(made.payload, np.uint8).copy()
    try:
        decoded = decode(received.data, made.layout)
    except PayloadError as error:
        return sentence(error)
    if encode(decoded.selection, made.layout, decoded.values, decoded.whole or None) != made.payload:
        raise AssertionError("accepted, but encodes to other bytes")
    total = np.zeros(made.layout.n)
    add(total, decoded.selection, 1.0)
    if not np.array_equal(total, decoded.dense()):
        raise AssertionError("accepted, but the server's sum has other values")
    return "accepted, as it was" if made.payload == made.source else "accepted, another message"


def modes_of(parts: Parts) -> tuple[str, ...]:
    """Modes of tensors, value types and kinds of code that a mutant pretends to have."""
    found = {"wholes"} if parts.flags & 1 else set()
    for entry, size in zip(parts.entries, parts.sizes, strict=False):
        if not entry.kept:
            found.add("tensor empty")
            continue
        mode = "full" if entry.kept == size else "kept listed" if 2 * entry.kept <= size else "dropped listed"
        found |= {f"tensor {mode}", f"code {('balanced', 'rising', 'falling', 'Huffman')[entry.kind]}"}
        found.add(f"values {VALUE_TYPES[entry.value_type & 3]}")
    return tuple(found)


NAMED = re.compile(r"'[^']*'|b\"[^\"]*\"|\b[0-9a-f]{16}\b|0x[0-9a-f]+|-?\d+(\.\d+)?(e[+-]?\d+)?|\b(nan|inf)\b")


def sentence(error: Exception) -> str:
    """An error's sentence without the numbers and names that it holds."""
    return NAMED.sub("#", str(error).replace("joulewise.v1", "")).strip()
