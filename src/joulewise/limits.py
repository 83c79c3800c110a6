"""Rules and budgets in the terms of the selection kernel: weights on magnitudes, and limits in exact integers."""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt

from joulewise.costs import Costs
from joulewise.errors import RuleError
from joulewise.layerwise import rank_by_layer
from joulewise.layout import Vector
from joulewise.quanta import budget_quanta, quanta
from joulewise.ranking import Ranking
from joulewise.rules import Budget, Bytes, Count, Density, Joules, LayerwiseTopK, Price, Ranked, Threshold

Floats = npt.NDArray[np.float64]
Int64 = npt.NDArray[np.int64]


def rank(vector: Vector, costs: Costs, rule: Ranked, key: int | None = None) -> Ranking:
    """The rule's ranking of a vector; the largest weight is scaled by a power of two into [0.5, 1)."""
    if isinstance(rule, LayerwiseTopK):
        return rank_by_layer(vector, costs.layout.offsets)
    weights, _ = weights_of(costs, rule)
    return Ranking(vector, costs.layout.offsets, weights, key)


def limit_of(budget: Budget, costs: Costs) -> tuple[Int64, int, float]:
    """A budget in exact integers: what each coordinate takes, what all may take, and the size of one unit.

    A negative limit means that nothing may be sent at all.
    """
    n = costs.layout.n
    match budget:
        case Joules():
            units, quantum = quanta(costs.per_kept, n)
            return units, budget_quanta(budget.room(costs.fixed), quantum), quantum
        case Bytes():
            units, quantum = quanta(costs.bits_per_kept, n)
            return units, budget_quanta(8.0 * budget.n, quantum), quantum
        case Count() | Density():
            return np.ones(len(costs.layout.tensors), np.int64), budget.count(n), 1.0
        case Price() | Threshold():
            raise RuleError(f"a {type(budget).__name__} budget is a threshold and has no limit")


def weights_of(costs: Costs, rule: Ranked) -> tuple[Floats, int]:
    """Weights over a power of two, which keeps products finite and changes no order; and its exponent."""
    weights = rule.weights(costs.per_kept)
    exponent = math.frexp(float(weights.max()))[1] if weights.size else 0
    return np.ldexp(weights, -exponent), exponent
