"""Random models, devices, rules and joule budgets, and what must hold of the message that is made of them.

Everything of a case follows from one number, so that a script can go through many and a test can name one.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from joulewise.codec import VALUE_TYPES
from joulewise.compress import Compressor, Sent
from joulewise.costs import Block, Costs
from joulewise.devices import ByKind, Compute, Device, Direction, Level, Link, Memory, Residency
from joulewise.layout import Layout, Tensor
from joulewise.ledger import MASK_TERMS, total
from joulewise.prices import price
from joulewise.quantities import (
    Energy,
    EnergyPerBit,
    EnergyPerOperation,
    Factor,
    Power,
    Quantity,
    Rate,
    Relative,
    Share,
    Size,
)
from joulewise.rules import CWMP, Count, Dense, Joules, LayerwiseTopK, Projection, RandomK, TopK

RULES = (TopK(), CWMP(), Projection(), RandomK(), RandomK(scale=True), LayerwiseTopK())
BLIND = (TopK(), RandomK(), RandomK(scale=True), LayerwiseTopK())
"""Rules whose order does not hang on prices: what one coordinate more takes can be seen by keeping it."""
TENSOR_HEADER_BYTES = 9 + 32  # its entry in the table, with a code for its values
KINDS = {"conv": 4, "linear": 2, "embedding": 2, "vector": 1}
VALUE_BITS = {"float32": 32.0, "float16": 16.0, "bfloat16": 16.0, "int8": 8.0, "ternary": 1.0}
# Where all share few values, one more of them can change the code of every other: sizes jump by percents.
SMOOTH = ("real", "wide", "sparse", "dyadic")


@dataclass(frozen=True)
class Case:
    """One message to make, under a budget that buys a share of the message that keeps everything."""

    seed: int
    a: np.ndarray
    costs: Costs
    compressor: Compressor
    room: float
    smooth: bool


def case_of(seed: int) -> Case:
    """The case of a number."""
    rng = np.random.default_rng([seed, 7])
    layout = layout_of(rng)
    types = tuple(str(each) for each in rng.choice(VALUE_TYPES, len(layout.tensors)))
    values: Any = types if rng.random() < 0.2 else types[0]
    kind = str(rng.choice((*SMOOTH, "ties")))
    a = update_of(rng, kind, layout.n)
    costs = costs_of(rng, layout, values)
    full = Compressor(Dense(), None, values).compress(a, None, costs)
    share = float(rng.uniform(0.01, 1.1) if rng.random() < 0.7 else 10.0 ** rng.uniform(-3, 0))
    includes_fixed = bool(rng.random() < 0.2)
    fixed = costs.fixed if includes_fixed else 0.0
    budget = Joules(share * mask_total(full) + fixed, includes_fixed, fill=bool(rng.random() < 0.15))
    rule = RULES[int(rng.integers(len(RULES)))]
    if isinstance(rule, RandomK) and "ternary" in types:  # What is scaled up to be unbiased is never ternary.
        rule = RandomK()
    compressor = Compressor(rule, budget, values)
    return Case(seed, a, costs, compressor, budget.budget - fixed, kind in SMOOTH and not budget.fill)


def check(case: Case) -> str:
    """Make the message, and see that it is within its budget and as long as that allows.

    Returns:
        Whether it keeps ``all``, ``some`` or ``none`` of what there is.

    Raises:
        AssertionError: it is not.
    """
    sent = made(case, case.compressor)
    spent, kept, had = mask_total(sent), sent.selection.indices.size, np.count_nonzero(case.a)
    assert spent <= case.room, f"case {case.seed}: charged {spent!r}, which is above {case.room!r}"
    if kept < had and case.smooth:
        left, allowed = case.room - spent, 0.01 * case.room + one_more(case.costs, kept)
        assert left <= allowed, (
            f"case {case.seed}: {left:.4g} of {case.room:.4g} are left, at most {allowed:.4g} may be"
        )
        if case.compressor.rule in BLIND:
            longer = mask_total(made(case, replace(case.compressor, budget=Count(kept + 1))))
            header = 8 * TENSOR_HEADER_BYTES * float(case.costs.per_bit.max(initial=0.0))
            assert longer > 0.99 * case.room - header, (
                f"case {case.seed}: one more would take {longer:.4g} of {case.room:.4g}"
            )
    return "all" if kept == had else "some" if kept else "none"


def made(case: Case, compressor: Compressor) -> Sent:
    return compressor.compress(case.a, None, case.costs, np.random.default_rng(case.seed))


def mask_total(sent: Sent) -> float:
    """What the charges say that the mask added."""
    return total(charge for charge in sent.charges if charge.term in MASK_TERMS)


def one_more(costs: Costs, kept: int) -> float:
    """What one more coordinate may take at most: its own energy, its tensor's header, its blocks.

    The first one also brings the header that every message has.
    """
    header_bytes = (0 if kept else 20 + len(costs.layout.tensors)) + TENSOR_HEADER_BYTES
    blocks = sum(float(block.per_touched.max(initial=0.0)) for block in costs.blocks)
    return float(costs.other.max(initial=0.0)) + 8 * header_bytes * float(costs.per_bit.max(initial=0.0)) + blocks


# ---------------------------------------------------------------- models and updates


def layout_of(rng: np.random.Generator) -> Layout:
    largest = 10.0 ** rng.uniform(0.5, 3.6)
    tensors = []
    for place in range(int(rng.integers(1, 7))):
        kind = str(rng.choice(list(KINDS)))
        size = int(largest ** rng.uniform(0.3, 1.0)) if rng.random() < 0.95 else 0
        tensors.append(Tensor(f"{kind}{place}.weight", (size,) + (1,) * (KINDS[kind] - 1), kind, "float32"))
    return Layout(tuple(tensors))


def update_of(rng: np.random.Generator, kind: str, n: int) -> np.ndarray:
    if kind == "dyadic":
        return (rng.integers(-(2**10), 2**10, n) / 64).astype(np.float32)
    if kind == "ties":
        return rng.choice([-2.0, -1.0, 1.0, 2.0, 0.5, 0.0], n).astype(np.float32)
    spread = 3.0 if kind == "wide" else 1.0
    a = rng.standard_normal(n) * np.exp(spread * rng.standard_normal(n)) * 1e-3
    return np.where(rng.random(n) < 0.8, 0.0, a).astype(np.float32) if kind == "sparse" else a.astype(np.float32)


# ---------------------------------------------------------------- devices and prices


def costs_of(rng: np.random.Generator, layout: Layout, values: Any) -> Costs:
    kind = rng.random()
    if kind < 0.15:
        return made_up(rng, layout)
    types = (values,) * len(layout.tensors) if isinstance(values, str) else values
    bits = np.array([VALUE_BITS[each] for each in types])
    density = 10.0 ** rng.uniform(-3, 0, len(layout.tensors))
    if kind < 0.25:
        return price(layout, relative(rng), bits, density)
    device, boundary = physical(rng), str(rng.choice(["radio", "radio", "device", "memory"]))
    links = {tensor.name: link(rng, boundary == "device") for tensor in layout.tensors if rng.random() < 0.5}
    return price(
        layout,
        device,
        bits,
        density,
        links if rng.random() < 0.3 else None,
        boundary,
        update=str(rng.choice(["weights", "gradient"])),
        optimizer=str(rng.choice(["sgd", "momentum", "adam"])),
        fan_out=float(rng.choice([0.0, 0.0, 0.7, 9.0])),
        receiver=physical(rng) if rng.random() < 0.3 else None,
    )


def named(prices: np.ndarray, layout: Layout) -> np.ndarray | dict[str, float]:
    """Prices by tensor name where there are as many as tensors: as numbers alone they could be the coordinates'."""
    if prices.size != len(layout.tensors):
        return prices
    return {tensor.name: float(price) for tensor, price in zip(layout.tensors, prices, strict=True)}


def made_up(rng: np.random.Generator, layout: Layout) -> Costs:
    count = layout.n if rng.random() < 0.5 else len(layout.tensors)
    costs = Costs.of(named(10.0 ** rng.uniform(-2, 2, count), layout), layout, "relative")
    blocks = ()
    if rng.random() < 0.5:
        elements = rng.integers(1, 100, len(layout.tensors))
        blocks = (Block("pages", elements, 10.0 ** rng.uniform(-1, 2, len(elements)), np.zeros(len(elements))),)
    return replace(costs, fixed=float(rng.integers(0, 3)), blocks=blocks)


def relative(rng: np.random.Generator) -> Device:
    def one() -> Relative:
        return known(Relative, float(10 ** rng.uniform(0, 2)), "relative")

    prices = ByKind(one(), one(), one(), one())
    if rng.random() < 0.5:
        prices = Residency(one(), one(), known(Share, float(rng.uniform(1, 100)), "%"))
    return Device(schema=1, name="drawn", description="Drawn.", unit="relative", prices=prices)


def physical(rng: np.random.Generator) -> Device:
    per_update = known(EnergyPerOperation, float(10 ** rng.uniform(-1, 4)), "pJ") if rng.random() < 0.5 else None
    one = known(EnergyPerOperation, float(10 ** rng.uniform(-2, 2)), "pJ")
    return Device(
        schema=1,
        name="drawn",
        description="Drawn.",
        unit="J",
        memory=memory(rng),
        link=link(rng, with_base=True),
        compute=Compute(one, one, per_update) if rng.random() < 0.7 else None,
    )


def memory(rng: np.random.Generator) -> Memory:
    levels = {"sram": level(rng, -2.0, capacity=True), "dram": level(rng, 0.5), "flash": level(rng, 3.0, flash=True)}
    without = str(rng.choice(["sram", "dram", "neither"]))
    levels = {name: each for name, each in levels.items() if name != without}
    weights = str(rng.choice([*levels, "unsaid"]))
    return Memory(**levels, weights=None if weights == "unsaid" else weights)


def level(rng: np.random.Generator, size: float, capacity: bool = False, flash: bool = False) -> Level:
    def bits() -> EnergyPerBit:
        return known(EnergyPerBit, float(10 ** (size + rng.uniform(-0.5, 0.5))), "pJ/bit")

    pages = flash and rng.random() < 0.8
    return Level(
        read=bits(),
        write=bits(),
        capacity=known(Size, float(10 ** rng.uniform(1, 4)), "byte") if capacity else None,
        line=known(Size, float(rng.choice([32, 64, 128])), "byte") if not flash and rng.random() < 0.6 else None,
        page=known(Size, float(rng.choice([256, 512, 4096])), "byte") if pages else None,
        erase=known(Energy, float(10 ** rng.uniform(-2, 3)), "uJ") if pages else None,
    )


def link(rng: np.random.Generator, with_base: bool) -> Link:
    size = rng.uniform(-1, 4)
    up = Direction(known(EnergyPerBit, float(10**size), "nJ/bit"), known(Rate, float(10 ** rng.uniform(0, 8)), "bit/s"))
    down = Direction(known(EnergyPerBit, float(10 ** (size - rng.uniform(0, 1))), "nJ/bit"))
    return Link(
        up=up,
        down=down if rng.random() < 0.7 else None,
        base_power=known(Power, float(10 ** rng.uniform(-2, 1)), "W") if with_base else None,
        fixed=known(Energy, float(10 ** rng.uniform(-6, 1)), "J") if rng.random() < 0.6 else None,
        framing=known(Factor, float(rng.uniform(1, 3)), "1") if rng.random() < 0.5 else None,
        retransmission=known(Factor, float(rng.uniform(1, 2)), "1") if rng.random() < 0.5 else None,
    )


def known(kind: type[Quantity], value: float, unit: str) -> Any:
    return kind(value, unit, "assumed", "drawn for a test", 2026)
