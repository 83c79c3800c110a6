"""Sound payloads in which everything occurs that the format has: what mutants are made from."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache

import numpy as np
from payload_parts import Parts, parse

from joulewise.codec import VALUE_TYPES, encode
from joulewise.layout import Layout, Tensor
from joulewise.select import Selection


@dataclass(frozen=True)
class Seed:
    """A sound payload, its layout, and itself in parts."""

    layout: Layout
    payload: bytes
    parts: Parts


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
        few = layout.n == 20_400  # Large ones, which take as long as a hundred others.
        for style in ("rising",) if few else STYLES:
            for value_type in ("float32", "any") if few else (*VALUE_TYPES, "any"):
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
