"""Hostile payloads, by number: mutant i of a seed is always the same, so that a finding can be made again."""

from __future__ import annotations

import re
import zlib
from dataclasses import dataclass
from random import Random

import numpy as np
from mutant_corpus import Seed, corpus, layouts
from mutations import FIELDS, INNER, ROUGH, spoil_head
from payload_parts import VALUE_BYTES, Entry, Parts, kept_of, odd_bits, remainder_bits, sealed, walk, whole_bytes

from joulewise import kernel, native_codec
from joulewise.aggregate import add
from joulewise.codec import VALUE_TYPES, decode, encode
from joulewise.errors import PayloadError
from joulewise.layout import Layout

SEALS = ("lengths and checksum", "checksum", "nothing")
"""What fits again after a mutation, in the shares of `SHARES`."""
SHARES = (60, 32, 8)
MOST_KEPT = 200
"""Of a tensor, where lengths fit again: there are many more small mutants in a minute than large ones."""


@dataclass(frozen=True)
class Mutant:
    """Bytes for a decoder, what they were made from, their layout, what was done, and what fits again."""

    payload: bytes
    source: bytes
    layout: Layout
    done: tuple[str, ...]
    seal: str
    modes: tuple[str, ...]


def mutant(number: int, seed: int = 0) -> Mutant:
    """Mutant `number` of a seed."""
    rng = Random(seed << 40 | number)
    source = rng.choice(corpus())
    seal, done = rng.choices(SEALS, SHARES)[0], []
    changes = INNER if seal == SEALS[0] else FIELDS
    parts, body = source.parts.copy(), source.payload[8:]
    while not done or (len(done) < 5 and body == source.payload[8:]):  # What changes nothing is no mutation.
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
        entry.value_type %= len(VALUE_TYPES)
    for at, width in enumerate(VALUE_BYTES):
        parts.values[at] = fit(parts.values[at], width * kept_of(parts, at), rng)
    fit_unary(parts, rng)
    parts.remainders = fit_bits(parts.remainders, remainder_bits(parts), rng)
    parts.odd = fit_bits(parts.odd, odd_bits(parts), rng)
    used = len(parts.symbols)
    if (parts.symbols, parts.entries) != (source.parts.symbols, source.parts.entries):
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


def judge_checksums() -> None:
    """Checksums of long payloads, which no mutant is: every alignment, ends of every length."""
    if kernel.library() is None:
        return
    noise = np.random.default_rng(0).integers(0, 256, native_codec.LONG + 400, np.uint8)
    for start in range(17):
        for length in range(native_codec.LONG, native_codec.LONG + 140, 3):
            piece = noise[start : start + length].copy() if start % 4 == 0 else noise[start : start + length]
            if native_codec.crc32(piece.data, start) != zlib.crc32(piece, start):
                raise AssertionError(f"the checksum of {length} bytes from byte {start} is another than zlib's")


def modes_of(parts: Parts) -> tuple[str, ...]:
    """Modes of tensors, value types and kinds of code that a mutant pretends to have."""
    found = {"wholes"} if parts.flags & 1 else set()
    for entry, size in zip(parts.entries, parts.sizes, strict=False):
        if not entry.kept:
            found.add("tensor empty")
            continue
        mode = "full" if entry.kept == size else "kept listed" if 2 * entry.kept <= size else "dropped listed"
        found |= {f"tensor {mode}", f"code {('balanced', 'rising', 'falling', 'Huffman')[entry.kind]}"}
        found.add(f"values {VALUE_TYPES[entry.value_type % len(VALUE_TYPES)]}")
    return tuple(found)


NAMED = re.compile(
    r"""'(?:[^'\\]|\\.)*'|"(?:[^"\\]|\\.)*"|\b[0-9a-f]{16}\b|0x[0-9a-f]+|-?\d+(\.\d+)?(e[+-]?\d+)?|-?\b(nan|inf)\b"""
)


def sentence(error: Exception) -> str:
    """An error's sentence without the numbers and names that it holds."""
    return NAMED.sub("#", str(error).replace("joulewise.v1", "")).strip()
