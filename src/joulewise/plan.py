"""Choose rule, density, value type and budget from one recorded update, before any training."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, Literal

import msgspec
import numpy as np

from joulewise.certificate import guaranteed_delta
from joulewise.costs import Costs
from joulewise.devices import Device, Unit
from joulewise.errors import ArgumentError
from joulewise.expectation import Kept, Outlook, Predicted, predict
from joulewise.lawfit import Fit, LawName, fit
from joulewise.laws import Floats
from joulewise.layout import Layout
from joulewise.marginal import REFINEMENTS, SETTLED_BITS, TYPICAL_VALUE_BITS
from joulewise.prices import Boundary, index_bits, price
from joulewise.rounding import VALUE_BITS, ValueType
from joulewise.rules import CWMP, Budget, Bytes, Count, Density, Joules, Projection, Ranked, Rule, TopK, check_pair

BUDGETS: tuple[Budget, ...] = tuple(map(Density, (0.005, 0.01, 0.02, 0.05, 0.1, 0.2)))
RULES: tuple[Rule, ...] = (TopK(), CWMP(), Projection())
FIRST_DENSITY = 0.01


class Choice(msgspec.Struct, frozen=True, kw_only=True):
    """One setting of a Compressor, and what is expected of it.

    Args:
        rule: that ranks.
        budget: that ends the ranking.
        values: value type of the payload.
        kept: expected count, energy of the message, and shares of mass, before values are rounded.
        payload_bytes: expected size of the kept coordinates, positions included; headers and wholes are not.
        times_topk: how many times as much energy TopK needs for the same mass, in the norm that the rule maximises (L2
            where it maximises none); None for unbiased rules, of which not the kept mass but the variance counts.
        guaranteed_delta: the contraction that theory promises; None where it promises none.
        variance: of unbiased rules, the expected squared error over the update's squared length.
    """

    rule: Rule
    budget: Budget
    values: ValueType
    kept: Kept
    payload_bytes: float
    times_topk: float | None
    guaranteed_delta: float | None
    variance: float | None


class Plan(msgspec.Struct, frozen=True, kw_only=True):
    """What every setting is expected to send, and what it takes.

    Args:
        device: whose prices.
        unit: of every energy here, ``J`` or ``relative``.
        boundary: what prices take in.
        law: of magnitudes.
        parameters: in the update.
        choices: one for each rule, budget and value type.
        notes: where the law fits badly, and what else a reader should know.
    """

    device: str
    unit: Unit
    boundary: str
    law: LawName
    parameters: int
    choices: tuple[Choice, ...]
    notes: tuple[str, ...]


def plan(  # noqa: PLR0913 (the parts of one question, by name)
    update: Any,
    layout: Layout,
    device: Device,
    *,
    rules: Sequence[Rule] = RULES,
    budgets: Sequence[Budget] = BUDGETS,
    values: Sequence[ValueType] = ("float32",),
    boundary: Boundary | None = None,
    law: LawName = "quantiles",
) -> Plan:
    """Predict energy, bytes and kept mass of every combination of rule, budget and value type.

    Prices are those of a `Compressor`: bits of a place at the density that TopK would give each tensor. Pairs of rule
    and budget that do not go together are left out. How many times as much TopK needs is told at the same prices.

    Args:
        update: float32[n], one recorded update.
        layout: its tensors.
        device: whose prices.
        rules: that rank.
        budgets: that end the ranking.
        values: value types of the payload.
        boundary: what prices take in, as in `joulewise.price`; None: ``radio`` where the device has a link, else
            ``memory``.
        law: of magnitudes, fitted to the update.

    Raises:
        ArgumentError: no rule goes with any of the budgets.
        UpdateError: the update has another length, holds NaN or infinity, or is zero everywhere.

    Example:
        >>> from joulewise.devices import load_device
        >>> layout = Layout.of({"conv.weight": np.ones((8, 4, 3, 3)), "fc.weight": np.ones((10, 320))})
        >>> update = np.random.default_rng(0).laplace(size=layout.n)
        >>> found = plan(update, layout, load_device("synthetic-kind-10"), budgets=[Density(0.1)])
        >>> [(type(each.rule).__name__, round(each.kept.energy), round(each.times_topk, 2)) for each in found.choices]
        [('TopK', 3164, 1.0), ('CWMP', 1599, 1.34), ('Projection', 2258, 1.12)]
    """
    within: Boundary = boundary or ("memory" if device.link is None and device.unit == "J" else "radio")
    fitted = fit(update, layout, law)
    pairs = [(rule, budget) for rule in rules for budget in budgets if _goes_with(rule, budget)]
    if not pairs:
        raise ArgumentError("no rule goes with any of the budgets; Density goes with every rule but Dense")
    choices = []
    for value_type in values:
        costs = price(layout, device, VALUE_BITS[value_type], FIRST_DENSITY, boundary=within)
        choices += [_choice(fitted, costs, rule, budget, value_type) for rule, budget in pairs]
    notes = (*fitted.notes, *_notes(values, costs))
    return Plan(
        device=device.name,
        unit=device.unit,
        boundary=costs.boundary,
        law=law,
        parameters=layout.n,
        choices=tuple(choices),
        notes=notes,
    )


def _goes_with(rule: Rule, budget: Budget) -> bool:
    try:
        check_pair(rule, budget)
    except ValueError:
        return False
    return True


def _choice(fitted: Fit, costs: Costs, rule: Rule, budget: Budget, value_type: ValueType) -> Choice:
    value_bits = TYPICAL_VALUE_BITS[value_type]
    priced = margin(fitted, costs, rule, budget, value_bits)
    found = predict(fitted.law, priced, rule, budget)
    if isinstance(budget, Joules | Bytes):
        found = _within(fitted, priced, found, value_bits)
    bits = message_bits(found, priced.layout, value_bits)
    kept = msgspec.structs.replace(found.kept, energy=_energy(found, priced, bits))
    # Under joules a message pays for its header and for whole blocks, of which the theory knows nothing.
    exact = not isinstance(budget, Joules) or not (priced.per_bit.any() or priced.blocks)
    promised = guaranteed_delta(priced, rule, budget, None) if isinstance(rule, Ranked) and exact else None
    return Choice(
        rule=rule,
        budget=budget,
        values=value_type,
        kept=kept,
        payload_bytes=float(bits.sum()) / 8.0,
        times_topk=_times(fitted, priced, found) if found.variance is None else None,
        guaranteed_delta=promised,
        variance=found.variance,
    )


def margin(fitted: Fit, costs: Costs, rule: Rule, budget: Budget, value_bits: float) -> Costs:
    """Prices at the densities that a message will have: `joulewise.marginal.marginal_prices`, of a law.

    Args:
        fitted: law of the update.
        costs: prices at some density.
        rule: that ranks.
        budget: that ends the ranking.
        value_bits: encoded bits of a value.
    """
    if not (costs.per_bit.any() or isinstance(budget, Bytes)):
        return costs
    told: Rule = TopK() if _goes_with(TopK(), budget) else rule
    for _ in range(1 if isinstance(budget, Count | Density) else REFINEMENTS):
        counts = np.array(predict(fitted.law, costs, told, budget).counts)
        places = index_bits(np.maximum(counts, 0.5) / np.maximum(costs.layout.sizes, 1))
        settled = float(np.abs(value_bits + places - costs.bits_per_kept).max(initial=0.0)) <= SETTLED_BITS
        costs = costs.at_bits(value_bits + places)
        if settled:
            break
    return costs


def message_bits(found: Predicted, layout: Layout, value_bits: float) -> Floats:
    """Bits of each tensor in a message: its values, and the entropy ``n H(k/n)`` of where they are."""
    counts, sizes = np.array(found.counts), np.maximum(layout.sizes, 1).astype(np.float64)
    share = np.clip(counts / sizes, 0.0, 1.0)
    with np.errstate(divide="ignore", invalid="ignore"):
        entropy = -np.where(share > 0, share * np.log2(share), 0.0)
        entropy -= np.where(share < 1, (1 - share) * np.log2(1 - share), 0.0)
    return np.asarray(counts * value_bits + sizes * entropy, dtype=np.float64)


def _within(fitted: Fit, costs: Costs, found: Predicted, value_bits: float) -> Predicted:
    """The same for a budget that bounds the message, whose coordinates take more than the price of one more."""
    asked = found.budget
    assert isinstance(asked, Joules | Bytes)
    room = asked.n if isinstance(asked, Bytes) else asked.room(costs.fixed)
    inner = room
    for _ in range(REFINEMENTS):
        bits = message_bits(found, costs.layout, value_bits)
        spent = float(bits.sum()) / 8.0 if isinstance(asked, Bytes) else _energy(found, costs, bits)
        if spent <= 0 or abs(spent / room - 1) < 1e-3 or (spent < room and found.threshold == 0):
            break
        inner *= room / spent
        tried = Bytes(int(inner)) if isinstance(asked, Bytes) else Joules(inner)
        found = predict(fitted.law, costs, found.rule, tried)
    return msgspec.structs.replace(found, budget=asked)


def _energy(found: Predicted, costs: Costs, bits: Floats) -> float:
    """What a message takes: a price is that of one coordinate more, which is less than the mean of those before it."""
    counts = np.array(found.counts)
    own = found.kept.energy if not costs.per_bit.any() else float(counts @ costs.other + bits @ costs.per_bit)
    return own + block_energy(costs, counts)


def block_energy(costs: Costs, counts: Floats) -> float:
    """What lines and pages are expected to add where kept coordinates lie anywhere in their tensors.

    Of blocks of b elements the share ``1 - (1 - p)^b`` is touched, p the kept share of the tensor; fewer where
    what is kept lies together.

    Args:
        costs: prices with blocks.
        counts: float64[tensors], kept coordinates.

    Example:
        >>> from dataclasses import replace
        >>> from joulewise.costs import Block
        >>> pages = Block("flash_pages", np.array([4]), np.array([10.0]), np.array([1.0]))
        >>> layout = Layout.of({"fc.weight": np.ones((2, 4))})
        >>> costs = replace(Costs.of({"fc.weight": 1.0}, layout), blocks=(pages,))
        >>> block_energy(costs, np.array([8.0]))  # two pages, less what prices include
        12.0
    """
    sizes, total = costs.layout.sizes, 0.0
    share = np.clip(counts / np.maximum(sizes, 1), 0.0, 1.0)
    for block in costs.blocks:
        full, rest = np.divmod(sizes, block.elements)
        touched = full * (1 - (1 - share) ** block.elements) + (1 - (1 - share) ** rest)
        total += float(block.per_touched @ touched - block.included @ counts)
    return total


def _times(fitted: Fit, costs: Costs, found: Predicted) -> float:
    norm = found.rule.norm if isinstance(found.rule, Ranked) else None
    mass: Literal["l1", "l2"] = "l1" if norm == 1 else "l2"
    topk = Outlook(fitted.law, costs, TopK())
    _, sums = topk.reaching(mass, found.kept.l1 if norm == 1 else found.kept.l2)
    own = found.kept.energy + block_energy(costs, np.array(found.counts))
    return (topk.amount("energy", sums) + block_energy(costs, sums.counts)) / own if own else 1.0


def _notes(values: Sequence[ValueType], costs: Costs) -> Iterator[str]:
    if costs.blocks:
        yield (
            "memory moves in whole lines or pages here, counted as if kept coordinates lay anywhere in their tensors; "
            "where they lie together a message takes less"
        )
    narrow = [each for each in values if each != "float32"]
    if narrow:
        yield f"kept mass is that before rounding to {', '.join(narrow)}"
    if "ternary" in values:
        yield "ternary values send one magnitude for all that a tensor keeps: as much L1 mass, less squared L2 mass"
    if "int8" in values:
        yield "int8 values are counted at 8 bits; messages come out up to a fifth smaller, for most codes are short"
