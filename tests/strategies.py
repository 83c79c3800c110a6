"""Layouts, updates, costs, rules and budgets that law tests draw from.

Rules and budgets come from the unions and from `LEGAL`. A rule with a field that is not a switch, or a budget
that is not in `BUDGETS_BY_SHARE`, stops the import: it needs a line here before its laws can be tested.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from itertools import product
from typing import Any

import msgspec
import numpy as np
from budget_cases import named
from hypothesis import strategies as st
from reference import bits_of, per_coordinate, scores_of

from joulewise.costs import Costs
from joulewise.devices import Device, load_device
from joulewise.layout import Layout
from joulewise.prices import price
from joulewise.rules import (
    BUDGETS,
    CWMP,
    LEGAL,
    RULES,
    Bytes,
    Count,
    Density,
    Joules,
    MinVariance,
    Price,
    Projection,
    RandomK,
    Ranked,
    Threshold,
)

# ---------------------------------------------------------------- rules


def variants(rule_type: type) -> list[Any]:
    """Every setting of a rule whose fields are switches."""
    fields = msgspec.structs.fields(rule_type)
    strange = [field.name for field in fields if field.type is not bool]
    if strange:
        raise TypeError(f"{rule_type.__name__}.{strange[0]} is not a switch; say here how to draw it")
    names = [field.name for field in fields]
    return [
        rule_type(**dict(zip(names, setting, strict=True))) for setting in product([False, True], repeat=len(names))
    ]


PAIRS = [
    (rule, budget_type)
    for rule_type in RULES
    for rule in variants(rule_type)
    for budget_type in (LEGAL[rule_type] or (type(None),))
]
"""Every legal pair of a rule and a type of budget."""

RANKED_PAIRS = [(rule, budget_type) for rule, budget_type in PAIRS if isinstance(rule, Ranked)]
DETERMINISTIC = [rule for rule_type in RULES for rule in variants(rule_type) if not rule.random]


def name_of(pair: object) -> str:
    if isinstance(pair, type):
        return pair.__name__ if pair is not type(None) else "nothing"
    return f"{type(pair).__name__}{'(scale)' if getattr(pair, 'scale', False) else ''}"


def is_unbiased(rule: Any) -> bool:
    """Whether the rule scales what it sends."""
    return isinstance(rule, MinVariance) or (isinstance(rule, RandomK) and rule.scale)


# ---------------------------------------------------------------- layouts


SHAPES: dict[str, Callable[[int], tuple[int, ...]]] = {
    "conv{}.weight": lambda size: (size, 1, 1, 1),
    "fc{}.weight": lambda size: (size, 1),
    "embed{}.weight": lambda size: (1, size),
    "norm{}.bias": lambda size: (size,),
}


def layout_of(sizes: list[int], forms: list[str]) -> Layout:
    tensors = enumerate(zip(sizes, forms[: len(sizes)], strict=True))
    return Layout.of({form.format(i): np.zeros(SHAPES[form](size)) for i, (size, form) in tensors})


@st.composite
def layouts(draw: st.DrawFn, largest: int = 40) -> Layout:
    sizes = draw(st.lists(st.integers(0, largest) | st.integers(largest // 2, largest), min_size=1, max_size=6))
    forms = draw(st.lists(st.sampled_from(list(SHAPES)), min_size=len(sizes), max_size=len(sizes)))
    return layout_of(sizes, forms)


# ---------------------------------------------------------------- updates


def _real(rng: np.random.Generator, n: int) -> np.ndarray:
    return rng.standard_normal(n) * np.exp(rng.standard_normal(n)) * 1e-3


def _spike(rng: np.random.Generator, n: int) -> np.ndarray:
    a = _real(rng, n)
    a[: min(n, 1)] = 3e38
    return rng.permutation(a)


UPDATES: dict[str, Callable[[np.random.Generator, int], np.ndarray]] = {
    "real": _real,
    "dyadic": lambda rng, n: rng.integers(-(2**10), 2**10, n) / 64,
    "all equal": lambda rng, n: np.full(n, rng.choice([0.25, -1.5, 1e-3])),
    "ties": lambda rng, n: rng.choice([-2.0, -1.0, 1.0, 2.0, 0.5], n),
    "sparse": lambda rng, n: np.where(rng.random(n) < 0.9, 0.0, _real(rng, n)),
    "zeros": lambda _, n: np.zeros(n),
    "negative zeros": lambda rng, n: np.where(rng.random(n) < 0.5, -0.0, _real(rng, n)),
    "denormals": lambda rng, n: rng.integers(-500, 500, n) * float(np.float32(1e-45)),
    "spike": _spike,
    "duplicates": lambda rng, n: rng.choice(_real(rng, 3 + n // 4), n) if n else np.zeros(0),
}


def update_of(kind: str, seed: int, n: int) -> np.ndarray:
    """float32[n] of a named sort."""
    return UPDATES[kind](np.random.default_rng(seed), n).astype(np.float32)


def laplace_of(layout: Layout, scales: list[float], seed: int) -> np.ndarray:
    """float32[n] of a Laplace law with a scale of each tensor, in thousandths."""
    spread = np.repeat(scales, layout.sizes)
    return (np.random.default_rng(seed).laplace(size=layout.n) * spread * 1e-3).astype(np.float32)


# ---------------------------------------------------------------- costs


SEEDS = st.integers(0, 2**32 - 1)
PER_KEPT: dict[str, Callable[[np.random.Generator, int], np.ndarray]] = {
    "equal": lambda rng, n: np.full(n, float(rng.choice([1.0, 0.3, 1e-7]))),
    "two": lambda rng, n: rng.choice([1.0, 10.0], n),
    "whole": lambda rng, n: rng.integers(1, 20, n).astype(np.float64),
    "wide": lambda rng, n: 10.0 ** rng.uniform(-8, 0, n),
    "narrow": lambda rng, n: rng.uniform(1.0, 1.01, n),
}
DEVICES = [
    (load_device("phone-lte-2021"), "radio"),
    (load_device("phone-lte-2021"), "device"),
    (load_device("synthetic-kind-10"), "radio"),
    (load_device("synthetic-residency-32"), "radio"),
]


def costs_of(layout: Layout, kind: str, per_entry: bool, seed: int) -> Costs:
    rng = np.random.default_rng(seed)
    count = layout.n if per_entry else len(layout.tensors)
    bits = rng.uniform(10.0, 60.0, len(layout.tensors))
    costs = Costs.of(named(PER_KEPT[kind](rng, count), layout), layout, "relative", bits)
    return replace(costs, fixed=float(costs.per_kept.max(initial=1.0) * rng.integers(0, 3)))


def priced(layout: Layout, device: Device, boundary: str, seed: int) -> Costs:
    rng = np.random.default_rng(seed)
    densities = 10.0 ** rng.uniform(-3, -0.4, len(layout.tensors))
    widths = rng.choice([8.0, 16.0, 32.0], len(layout.tensors))
    return price(layout, device, widths, densities, boundary=boundary)


@st.composite
def costs_for(draw: st.DrawFn, layout: Layout) -> Costs:
    """Prices of a layout: made up, per tensor or per coordinate, or of a device."""
    seed = draw(SEEDS)
    if draw(st.integers(0, 2)) == 0:
        return priced(layout, *draw(st.sampled_from(DEVICES)), seed)
    return costs_of(layout, draw(st.sampled_from(list(PER_KEPT))), draw(st.booleans()), seed)


# ---------------------------------------------------------------- budgets


def _count(share: float, a: np.ndarray, costs: Costs, rule: Any) -> Count:
    return Count(math.floor(share * np.count_nonzero(a)))


def _density(share: float, a: np.ndarray, costs: Costs, rule: Any) -> Density:
    return Density(min(1.0, share * np.count_nonzero(a) / max(1, a.size)))


def _joules(share: float, a: np.ndarray, costs: Costs, rule: Any) -> Joules:
    total = math.fsum(cost for cost, value in zip(per_coordinate(costs), a.tolist(), strict=True) if value)
    return Joules(share * total)


def _bytes(share: float, a: np.ndarray, costs: Costs, rule: Any) -> Bytes:
    total = math.fsum(bits for bits, value in zip(bits_of(costs), a.tolist(), strict=True) if value)
    return Bytes(math.floor(share * total / 8))


def _price(share: float, a: np.ndarray, costs: Costs, rule: Any) -> Price:
    scores = np.array(scores_of(a, per_coordinate(costs), rule, None))
    value = float(np.quantile(scores[scores > 0], max(0.0, 1 - share))) if (scores > 0).any() else 1.0
    return Price(value if isinstance(rule, CWMP) else value * value)


def _threshold(share: float, a: np.ndarray, costs: Costs, rule: Any) -> Threshold:
    there = np.abs(a[a != 0].astype(np.float64))
    return Threshold(float(np.quantile(there, max(0.0, 1 - share))) if there.size else 1.0)


BUDGETS_BY_SHARE: dict[type, Callable[[float, np.ndarray, Costs, Any], Any]] = {
    Count: _count,
    Density: _density,
    Joules: _joules,
    Bytes: _bytes,
    Price: _price,
    Threshold: _threshold,
    type(None): lambda *_: None,
}
"""A budget that buys about a share of what is not zero, of each type."""

missing = [budget_type.__name__ for budget_type in BUDGETS if budget_type not in BUDGETS_BY_SHARE]
if missing:
    raise TypeError(f"say here how to draw a {missing[0]} budget")

SHARES = st.one_of(st.floats(0.05, 0.8), st.floats(0.05, 0.8), st.floats(0.05, 0.8), st.floats(0, 1.5))


@st.composite
def budgets_for(draw: st.DrawFn, budget_type: type, a: np.ndarray, costs: Costs, rule: Any) -> Any:
    budget = BUDGETS_BY_SHARE[budget_type](draw(SHARES), a, costs, rule)
    switches = [field.name for field in msgspec.structs.fields(budget_type)] if budget is not None else []
    changes = {name: draw(st.booleans()) for name in ("fill", "includes_fixed") if name in switches}
    if changes.get("includes_fixed") and draw(st.integers(0, 3)):
        changes["budget"] = budget.budget + costs.fixed
    return msgspec.structs.replace(budget, **changes) if changes else budget


# ---------------------------------------------------------------- cases


@dataclass(frozen=True)
class Case:
    """One selection to make."""

    a: np.ndarray
    costs: Costs
    rule: Any
    budget: Any
    seed: int

    def rng(self) -> np.random.Generator:
        return np.random.default_rng(self.seed)

    @property
    def key(self) -> int:
        """The key that the rule draws from `rng`."""
        return int(self.rng().integers(0, 2**64, dtype=np.uint64))

    @property
    def layout(self) -> Layout:
        return self.costs.layout

    def __repr__(self) -> str:
        c = self.costs
        return (
            f"Case(a={self.a.tolist()}, sizes={c.layout.sizes.tolist()}, per_kept={c.per_kept.tolist()}, "
            f"bits={c.bits_per_kept.tolist()}, fixed={c.fixed}, {self.rule}, {self.budget}, seed={self.seed})"
        )


@st.composite
def updates(draw: st.DrawFn, n: int) -> np.ndarray:
    return update_of(draw(st.sampled_from(list(UPDATES))), draw(SEEDS), n)


@st.composite
def cases(draw: st.DrawFn, pairs: Any = None, largest: int = 40) -> Case:
    """A vector with its costs, a legal rule and budget for them, and a seed for random rules."""
    rule, budget_type = draw(st.sampled_from(PAIRS if pairs is None else pairs))
    layout = draw(layouts(largest))
    costs = draw(costs_for(layout))
    a = draw(updates(layout.n))
    return Case(a, costs, rule, draw(budgets_for(budget_type, a, costs, rule)), draw(SEEDS))


# ---------------------------------------------------------------- exact data


@st.composite
def knapsacks(draw: st.DrawFn) -> Case:
    """A small case whose values and costs are small dyadic numbers, so that an exact solver can take it."""
    n = draw(st.integers(1, 24))
    rng = np.random.default_rng(draw(SEEDS))
    a = (rng.integers(-64, 65, n) / 8).astype(np.float32)
    costs = Costs.of(rng.integers(1, draw(st.sampled_from([2, 8, 64])) + 1, n) / 4.0, unit="relative")
    rule = draw(st.sampled_from([CWMP(), Projection()]))
    room = draw(st.integers(0, int(4 * costs.per_kept.sum()) + 2)) / 4
    return Case(a, costs, rule, Joules(room, fill=draw(st.booleans())), 0)
