"""Write the golden payloads anew: ``python tests/golden/regenerate.py``.

Only to add cases, or for a new version of the format: version 1 is final, and its golden payloads decode for ever.
NAME.bin is the payload, NAME.json says what it is of: the layout, what was given to `encode`, and what `decode` must
return, values as float32 words.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from joulewise.codec import VALUE_TYPES, decode, encode
from joulewise.layout import Layout, Tensor
from joulewise.select import Selection

HERE = Path(__file__).parent
LARGEST, SMALLEST = np.float32(3.4028235e38), np.float32(1e-45)


@dataclass(frozen=True)
class Case:
    """What one file is made of."""

    tensors: tuple[Tensor, ...]
    indices: Any
    values: Any
    types: tuple[str, ...]
    wholes: tuple[Tensor, ...] = ()
    locals: tuple[Tensor, ...] = ()
    state: dict[str, Any] | None = None
    layout: Layout = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "layout", Layout(self.tensors, self.wholes, self.locals))


def tensors(*shapes: tuple[int, ...], kind: str = "linear", dtype: str = "float32") -> tuple[Tensor, ...]:
    return tuple(Tensor(f"t{at}", shape, kind, dtype) for at, shape in enumerate(shapes))


def one(size: int, indices: Any, values: Any, value_type: str) -> Case:
    return Case(tensors((size,)), indices, values, (value_type,))


def powers(counts: dict[int, int], rng: np.random.Generator) -> np.ndarray:
    """Numbers whose exponent fields occur as often as said, in any order, with any mantissas and signs."""
    symbols = rng.permutation(np.repeat(np.array(list(counts), np.uint32), list(counts.values())))
    words = symbols << np.uint32(23) | rng.integers(0, 1 << 23, len(symbols), np.uint32)
    return (words | rng.integers(0, 2, len(symbols), np.uint32) << np.uint32(31)).view(np.float32)


def coded(counts: dict[int, int], rng: np.random.Generator, value_type: str = "bfloat16") -> Case:
    """Every other coordinate of one tensor, with values that make one kind of code."""
    values = powers(counts, rng)
    if value_type == "bfloat16":  # Rounded already, so that no rounding moves a value to the next symbol.
        values = (values.view(np.uint32) & np.uint32(0xFFFF0000)).view(np.float32)
    return one(2 * len(values), 2 * np.arange(len(values)), values, value_type)


def positions(rng: np.random.Generator) -> dict[str, Case]:
    """How tensors list what is kept, in every value type."""
    cases = {}
    for value_type in VALUE_TYPES[:4]:
        for name, size, kept in (("kept", 300, 9), ("half", 40, 20), ("dropped", 60, 51), ("full", 24, 24)):
            indices = np.sort(rng.choice(size, kept, replace=False))
            values = (rng.standard_t(3, kept) * 1e-2).astype(np.float32)
            cases[f"{value_type}-{name}"] = one(size, indices, values, value_type)
    lone = np.array([1.5], np.float32)
    cases["position-far"] = one(3_000_000, [2_999_999], lone, "float32")
    cases["position-first"] = one(1, [0], lone, "float32")
    cases["positions-crowded"] = one(5000, np.r_[7:40, 4999], np.full(34, -0.25, np.float32), "float16")
    return cases


def codes(rng: np.random.Generator) -> dict[str, Case]:
    """The four kinds of code, and what is particular about each."""
    fibonacci = [1, 1]  # Counts whose code is as long as there are symbols.
    while len(fibonacci) < 17:
        fibonacci.append(fibonacci[-1] + fibonacci[-2])
    return {
        "code-balanced-lone": coded({127: 12}, rng),
        "code-balanced-two": coded({0: 5, 1: 6}, rng),
        "code-balanced-seven": coded(dict.fromkeys(range(120, 127), 4), rng),
        "code-rising": coded({110: 32, 111: 16, 112: 8, 113: 4, 114: 4}, rng, "float32"),
        "code-rising-sixteen": coded({64 + at: max(1, 128 >> at) for at in range(16)}, rng),
        "code-falling": coded({120: 3, 121: 5, 122: 9, 123: 17, 124: 40}, rng, "float16"),
        "code-rising-steps": one(60, 2 * np.arange(30), np.repeat([124, 125, 126, 127], [16, 8, 3, 3]), "int8"),
        "code-falling-steps": one(60, 2 * np.arange(30), np.repeat([-127, 126, -125, 124], [16, 8, 3, 3]), "int8"),
        "code-huffman-steps": one(600, 2 * np.arange(300), np.repeat([127, 3, -90], [150, 140, 10]), "int8"),
        "code-huffman": coded({90: 60, 91: 2, 100: 3, 119: 40, 120: 3}, rng),
        "code-huffman-odd": coded({90: 60, 97: 80, 104: 30}, rng, "float32"),
        "code-huffman-wide": coded({1: 100, 2: 9, 140: 300, 250: 20, 254: 90}, rng),
        "code-huffman-longest": coded(
            dict(zip((100 + rng.permutation(16)).tolist(), fibonacci[:16], strict=True)), rng
        ),
        "code-huffman-limited": coded(dict(enumerate(fibonacci, 100)), rng),
    }


def values(rng: np.random.Generator) -> dict[str, Case]:
    """Values at the edges of their types."""
    edges = np.array([0.0, -0.0, SMALLEST, -SMALLEST, LARGEST, -LARGEST, 1.1754944e-38, 1.0, -1.0], np.float32)
    cases = {f"{each}-edges": one(30, 3 * np.arange(9), edges, each) for each in VALUE_TYPES[:4]}
    ties = np.array([1 + 2.0**-11, 1 + 3 * 2.0**-11, 1 + 2.0**-8, -1 - 3 * 2.0**-8, 65519.9, 65520.1], np.float32)
    cases |= {f"{each}-ties": one(50, 7 * np.arange(6), ties, each) for each in ("float16", "bfloat16")}
    cases["int8-zeros"] = one(20, [1, 5, 6], np.array([0.0, -0.0, 0.0], np.float32), "int8")
    cases["int8-denormal"] = one(20, [1, 5, 6], np.array([1, -63, 127], np.float32) * SMALLEST, "int8")
    cases["int8-steps"] = one(600, 2 * np.arange(255), np.arange(-127, 128).astype(np.float32), "int8")
    return cases


def signs() -> dict[str, Case]:
    """Ternary values: alone, of zeros, of denormals, and beside other types."""
    rng = np.random.default_rng(1)
    places = {"kept": 0.05, "half": 0.5, "dropped": 0.9, "full": 1.0}
    cases = {}
    for name, share in places.items():
        indices = np.sort(rng.choice(200, int(share * 200), replace=False))
        cases[f"ternary-{name}"] = one(200, indices, rng.standard_normal(len(indices)), "ternary")
    edges = np.array([0.0, -0.0, SMALLEST, -SMALLEST, LARGEST, -LARGEST, 1.0], np.float32)
    cases["ternary-edges"] = one(30, 3 * np.arange(7), edges, "ternary")
    cases["ternary-zeros"] = one(20, [1, 5, 6], np.array([0.0, -0.0, 0.0], np.float32), "ternary")
    cases["ternary-denormal"] = one(20, [1, 5, 6], np.array([1, -63, 127], np.float32) * SMALLEST, "ternary")
    types = ("ternary", "float16", "int8", "ternary")
    indices = np.flatnonzero(rng.random(130) < 0.4)
    cases["mixed-ternary"] = Case(
        tensors((50,), (30,), (30,), (20,)), indices, rng.standard_normal(len(indices)), types
    )
    return cases


def models(rng: np.random.Generator) -> dict[str, Case]:
    """Several tensors, tensors sent whole, local ones, and what makes no bytes at all."""
    shapes, types = ((20, 30), (), (0, 4), (50,), (7,)), ("int8", "float32", "float32", "float16", "bfloat16")
    every = tensors(*shapes)
    size = Layout(every).n
    indices = np.flatnonzero(rng.random(size) < 0.3)
    numbers = (rng.standard_t(3, len(indices)) * 1e-3).astype(np.float32)
    whole_types = (
        *("bool", "int8", "uint8", "int16", "uint16", "float16", "int32", "uint32", "float32"),
        *("int64", "uint64", "float64", "bfloat16"),
    )
    wholes = tuple(Tensor(f"w.{kind}", (2,), "whole", kind) for kind in whole_types)
    state = {f"w.{kind}": np.array([1, 0], "float32" if kind == "bfloat16" else kind) for kind in whole_types}
    buffers = (Tensor("bn.running_mean", (2,), "buffer", "float32"), Tensor("bn.steps", (), "whole", "int64"))
    numbered = {"bn.running_mean": np.array([-0.5, 3.25], np.float32), "bn.steps": np.int64(-12)}
    kept_home = (Tensor("head|1", (3, 2), "local", "float32"),)
    other = (Tensor("Gewicht-ß", (4, 2, 3, 3), "conv", "bfloat16"), Tensor("e", (9, 5), "embedding", "float64"))
    nothing = np.zeros(0, np.float32)
    return {
        "mixed": Case(every, indices, numbers, types),
        "mixed-wholes": Case(every, indices[:40], numbers[:40], types, buffers, state=numbered),
        "mixed-types-swapped": Case(every, indices, numbers, types[::-1]),
        "mixed-local": Case(other, [5, 70, 71, 116], numbers[:4], ("float16", "int8"), buffers, kept_home),
        "tensors-kept-and-not": Case(tensors(*[(3,)] * 12), [0, 10, 11, 30], numbers[:4], ("float32",) * 12),
        "wholes-of-every-type": Case(every[:1], [3], numbers[:1], ("float32",), wholes, state=state),
        "wholes-only": Case(every, nothing, nothing, ("float32",) * 5, buffers, state=numbered),
        "wholes-without-parameters": Case((), nothing, nothing, (), buffers, state=numbered),
        "nothing": Case(every, nothing, nothing, types),
    }


def cases() -> dict[str, Case]:
    """All cases by name."""
    rng = np.random.default_rng(0)
    return positions(rng) | codes(rng) | values(rng) | models(rng) | signs()


def described(case: Case, payload: bytes) -> dict[str, Any]:
    """What the file beside the payload says."""
    layout = case.layout
    decoded = decode(payload, layout)
    groups = {"tensors": layout.tensors, "wholes": layout.wholes, "locals": layout.locals}
    return {
        "layout": {key: [[t.name, t.shape, t.kind, t.dtype] for t in group] for key, group in groups.items()},
        "types": case.types,
        "indices": np.asarray(case.indices, np.int64).tolist(),
        "given_words": np.ascontiguousarray(case.values, np.float32).view(np.uint32).tolist(),
        "value_words": decoded.selection.values.view(np.uint32).tolist(),
        "whole": {name: array.tolist() for name, array in decoded.whole.items()},
    }


def write(name: str, case: Case) -> None:
    """The two files of one case."""
    indices, numbers = np.asarray(case.indices, np.uint32), np.asarray(case.values, np.float32)
    payload = encode(Selection(case.layout.n, indices, numbers), case.layout, case.types, case.state)
    (HERE / f"{name}.bin").write_bytes(payload)
    text = json.dumps(described(case, payload), ensure_ascii=False)
    (HERE / f"{name}.json").write_text(text + "\n", encoding="utf-8")


if __name__ == "__main__":
    for each, made in cases().items():
        write(each, made)
