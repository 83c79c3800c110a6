"""Random payloads, by number: what the two implementations of the codec are held against each other with."""

import zlib
from dataclasses import dataclass
from types import ModuleType
from unittest.mock import patch

import numpy as np

from joulewise import codec
from joulewise.codec import VALUE_TYPES, ValueType, decode, encode_detailed
from joulewise.errors import PayloadError
from joulewise.layout import Layout, Tensor
from joulewise.select import Selection

SIZES = (0, 1, 2, 3, 7, 8, 15, 64, 65, 300, 1023, 1025, 3000)
DENSITIES = (0.0, 0.001, 0.02, 0.1, 0.3, 0.5, 0.51, 0.7, 0.98, 1.0)
LARGEST = float(np.finfo(np.float32).max)
SMALLEST = float(np.finfo(np.float32).smallest_subnormal)
WHOLES = (
    (),
    (Tensor("steps", (), "whole", "int64"),),
    (Tensor("flags", (3,), "whole", "bool"), Tensor("mean", (2,), "buffer", "float32")),
)


@dataclass(frozen=True)
class Case:
    layout: Layout
    selection: Selection
    kinds: tuple[ValueType, ...]
    whole: dict | None


def values_of(rng, count):
    """Values of one of many kinds: spread exponents for Huffman's codes, few for the others, extremes."""
    words = rng.integers(0, 2**32, count, dtype=np.uint32)
    return [
        lambda: rng.standard_normal(count),
        lambda: rng.standard_t(3, count) * 10.0 ** rng.integers(-30, 30),
        lambda: np.where(np.isfinite(words.view(np.float32)), words.view(np.float32), np.float32(-0.0)),
        lambda: rng.integers(-300, 300, count) * np.float64(SMALLEST),
        lambda: rng.choice(np.array([0.0, -0.0], np.float32), count),
        lambda: rng.choice(np.array([LARGEST, -LARGEST, 1.0, SMALLEST], np.float32), count),
        lambda: np.full(count, rng.choice(np.array([1.0, -3e38, SMALLEST, 0.0], np.float32))),
        lambda: np.ldexp(rng.choice([1.0, -1.5], count), -rng.geometric(0.5, count)),
        lambda: np.ldexp(rng.choice([1.0, -1.5], count), rng.geometric(0.5, count)),
        lambda: np.ldexp(rng.uniform(1, 2, count), rng.integers(-3, rng.integers(-2, 6), count)),
        lambda: np.ldexp(rng.uniform(1, 2, count), rng.integers(-120, 120, count)),
    ][rng.integers(11)]().astype(np.float32)


def case_of(seed):
    rng = np.random.default_rng(seed)
    sizes = rng.choice(SIZES, rng.integers(0, 7)).tolist()
    tensors = tuple(Tensor(f"t{at}", (size,), "vector", "float32") for at, size in enumerate(sizes))
    layout = Layout(tensors, WHOLES[rng.integers(len(WHOLES))])
    one = rng.choice(DENSITIES) if rng.random() < 0.5 else None
    kept = [rng.random(size) < (rng.choice(DENSITIES) if one is None else one) for size in sizes]
    values = [values_of(rng, int(mask.sum())) for mask in kept]
    indices = np.flatnonzero(np.concatenate([np.zeros(0, np.bool_), *kept])).astype(np.uint32)
    selection = Selection(layout.n, indices, np.concatenate([np.zeros(0, np.float32), *values]))
    alone = bool(rng.random() < 0.5)
    kinds = tuple(
        VALUE_TYPES[at]
        for at in (rng.integers(len(VALUE_TYPES), size=1 if alone else len(sizes)).repeat(len(sizes) if alone else 1))
    )
    whole = {"steps": np.int64(rng.integers(9)), "flags": rng.random(3) < 0.5, "mean": rng.random(2).astype(np.float32)}
    return Case(layout, selection, kinds, whole if rng.random() < 0.5 else None)


def written_by(implementation: ModuleType, case: Case) -> tuple:
    """All that the encoder says, comparable."""
    with patch.object(codec, "_implementation", lambda: implementation):
        sizes = encode_detailed(case.selection, case.layout, case.kinds, case.whole)
    rounded = sizes.values.view(np.uint32).tolist()
    return sizes.payload, sizes.tensor_bits.tolist(), sizes.header_bytes, sizes.whole_bytes, rounded


def read_by(implementation: ModuleType, payload: bytes, layout: Layout) -> tuple:
    """What the decoder makes of a payload: all that it says, or the sentence of its refusal."""
    with patch.object(codec, "_implementation", lambda: implementation):
        try:
            decoded = decode(payload, layout)
        except PayloadError as error:
            return ("refused", str(error))
    selection = decoded.selection
    assert (selection.indices.dtype, selection.values.dtype) == (np.uint32, np.float32)
    wholes = {name: array.tolist() for name, array in decoded.whole.items()}
    return ("accepted", selection.indices.tolist(), selection.values.view(np.uint32).tolist(), decoded.values, wholes)


def mutants_of(payload, count, seed):
    """Changed payloads, all with a checksum that fits; half of the changes hit header and table."""
    rng = np.random.default_rng(seed)
    for _ in range(count):
        body = bytearray(payload[8:])
        for _ in range(rng.integers(1, 4)):
            most = len(body) - 1
            place = int(rng.integers(min(9, most), (most if rng.random() < 0.5 else min(most, 60)) + 1))
            choice = rng.integers(6)
            if choice == 0:
                body[place] = rng.integers(256)
            elif choice == 1:
                body[place] ^= 1 << rng.integers(8)
            elif choice == 2:
                body[place] = (body[place] + rng.choice([1, 255])) % 256
            elif choice == 3:
                del body[place : place + rng.integers(1, 4)]
            elif choice == 4:
                body[place:place] = bytes(rng.integers(0, 256, rng.integers(1, 4), dtype=np.uint8))
            else:
                body[place] = rng.choice([0, 1, 127, 128, 255])
            if not body:
                break
        yield b"JWP1" + zlib.crc32(body).to_bytes(4, "little") + bytes(body)
