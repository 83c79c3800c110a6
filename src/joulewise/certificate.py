"""How good a greedy selection is: what was kept, and what no selection within the budget exceeds."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from joulewise.costs import Costs
from joulewise.layout import Vector
from joulewise.quanta import budget_quanta, quanta
from joulewise.ranking import CHUNK, Prefix
from joulewise.rules import Budget, Count, Density, Joules, Projection, Ranked, TopK

Indices = npt.NDArray[np.uint32]


@dataclass(frozen=True, slots=True)
class Certificate:
    """How far a greedy selection can be from the best one.

    The greedy order solves the relaxed knapsack, in which one item may be cut. `bound` is the value of the prefix, plus
    what is left of the budget at the value per joule of the first coordinate that did not fit, in true costs: the
    relaxed optimum, or more where that coordinate fits but for rounded prices. The best 0/1 selection lies between
    `value` and `bound`.

    Args:
        value: kept L1 mass (CWMP) or kept squared L2 mass (Projection).
        bound: what no selection within the budget exceeds.
    """

    value: float
    bound: float

    @property
    def gap(self) -> float:
        """``bound - value``: the kept value is at least the optimum minus this."""
        return self.bound - self.value

    @property
    def ratio(self) -> float:
        """``value / bound``: at least this share of the optimum was kept; 1 where there was nothing to keep."""
        return self.value / self.bound if self.bound else 1.0


def certified(
    vector: Vector, costs: Costs, rule: Ranked, budget: Budget, found: Prefix, values: Vector
) -> Certificate | None:
    """The certificate of `values`, which were kept with the prefix `found`; None where rule or budget has none."""
    if rule.norm is None or not isinstance(budget, Joules):
        return None
    value = mass(values, rule.norm)
    if found.misfit is None:
        return Certificate(value, value)
    one = np.array([found.misfit], np.uint32)
    left = max(0.0, budget.room(costs.fixed) - energy_of(costs, found.indices))
    # Not left times mass over price, which float64 need not hold: 1e77 over 1e-270, or 1e-90 over 1e290.
    share = left / energy_of(costs, one)
    within = value if values is found.values else mass(found.values, rule.norm)
    bound = within + share * mass(vector[one], rule.norm)
    if share > 1:  # It fits but for rounded prices; of a price far below the quantum the share says nothing.
        bound = min(bound, mass(vector, rule.norm))
    # Rounding in these sums could put the bound a hair below what was kept.
    return Certificate(value, max(value, bound))


def guaranteed_delta(
    costs: Costs, rule: Ranked, budget: Budget, found: Prefix | None, quantum: float = 0.0
) -> float | None:
    """The delta that theory promises whatever the update is: ``||a - C(a)||^2 <= (1 - delta) ||a||^2``.

    TopK that keeps k of n: ``k/n``. Projection under a budget of B joules, with ``beta = min(1, B / sum c)``:
    ``beta - max(c) / sum(c)``, less what exact sums round prices up by. All others have none: docs/theory.md shows
    updates of which CWMP keeps as small a share as one likes.

    Args:
        costs: prices.
        rule: that ranked.
        budget: that ended the ranking.
        found: the prefix that was kept, for a selection that was made; with nothing left out the promise is 1, as it is
            before there is a selection where the budget buys everything.
        quantum: unit of exact sums.
    """
    n = costs.layout.n
    known = (isinstance(rule, TopK) and isinstance(budget, Count | Density)) or (
        isinstance(rule, Projection) and isinstance(budget, Joules)
    )
    if not known:
        return None
    if not n or (found is not None and found.misfit is None):
        return 1.0
    if isinstance(budget, Count | Density):
        return budget.count(n) / n
    assert isinstance(budget, Joules)
    room = budget.room(costs.fixed)
    if found is None and _buys_everything(costs, room):
        return 1.0
    total = float(costs.per_kept.sum() if costs.per_coordinate else costs.layout.sizes @ costs.per_kept)
    priced = costs.per_kept if costs.per_coordinate else costs.per_kept[costs.layout.sizes > 0]
    return max(0.0, min(1.0, room / total) - (float(priced.max()) + n * quantum) / total)


def _buys_everything(costs: Costs, room: float) -> bool:
    """Whether every coordinate fits, in the exact sums of a selection."""
    units, quantum = quanta(costs.per_kept, costs.layout.n)
    total = units.sum() if costs.per_coordinate else costs.layout.sizes @ units
    return int(total) <= budget_quanta(room, quantum)


def energy_of(costs: Costs, indices: Indices) -> float:
    """Energy of ascending `indices` at the true prices."""
    if costs.per_coordinate:
        return float(costs.per_kept[indices].sum())
    return float(costs.per_kept @ costs.layout.counts(indices))


def mass(values: Vector, norm: int) -> float:
    """Sum of ``|v|^norm`` in float64, chunk by chunk so that no float64 copy of the values is made."""
    chunks = (values[start : start + CHUNK] for start in range(0, values.size, CHUNK))
    powered = np.square if norm == 2 else np.abs
    return math.fsum(float(powered(chunk, dtype=np.float64).sum()) for chunk in chunks)
