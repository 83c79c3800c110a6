"""What selection should give, written the slow and obvious way: plain loops, whole numbers and fractions.

Nothing here comes from the modules under test except the records of rules and budgets. Scores are float64
products, as the definition of the order says; every sum is exact.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction

import numpy as np

from joulewise.rules import (
    CWMP,
    Bytes,
    Count,
    Density,
    Joules,
    LayerwiseTopK,
    Price,
    Projection,
    RandomK,
    Threshold,
    TopK,
)

WORD = 2**64 - 1


def splitmix64(state: int) -> int:
    """One output of the generator of Steele, Lea and Flood (2014) at a state, in Python's own integers."""
    z = (state + 0x9E3779B97F4A7C15) & WORD
    z = ((z ^ (z >> 30)) * 0xBF58476D1CE4E5B9) & WORD
    z = ((z ^ (z >> 27)) * 0x94D049BB133111EB) & WORD
    return z ^ (z >> 31)


def uniform(key: int, index: int) -> float:
    """The random number of a coordinate: the top 53 bits."""
    return (splitmix64((key + index) & WORD) >> 11) / 2**53


WEIGHTS = {
    TopK: lambda _: 1.0,
    CWMP: lambda cost: 1.0 / cost,
    Projection: lambda cost: 1.0 / math.sqrt(cost),
}
"""Factor on the magnitude; a new deterministic rule needs its line here before its laws can be tested."""


def scores_of(a: np.ndarray, costs: Sequence[float], rule, key: int | None, sizes: Sequence[int] = ()) -> list[float]:
    if isinstance(rule, LayerwiseTopK):
        return layer_scores(a, sizes)
    if isinstance(rule, RandomK):
        return [uniform(key, i) + 2.0**-53 if value != 0 else 0.0 for i, value in enumerate(a.tolist())]
    weight = WEIGHTS[type(rule)]
    return [abs(value) * weight(cost) for value, cost in zip(a.tolist(), costs, strict=True)]


def layer_scores(a: np.ndarray, sizes: Sequence[int]) -> list[float]:
    """``n_g / (2 j - 1)`` for the j-th largest magnitude of a tensor of n_g elements; 0 for zeros."""
    scores, start = [0.0] * sum(sizes), 0
    for size in sizes:
        places = sorted(range(start, start + size), key=lambda i: (-abs(float(a[i])), i))
        for j, place in enumerate(places, start=1):
            scores[place] = size / (2 * j - 1) if a[place] != 0 else 0.0
        start += size
    return scores


def seats(sizes: Sequence[int], count: int) -> list[int]:
    """Sainte-Laguë's method: each place in turn to the tensor with the largest size / (2 seats + 1), in fractions."""
    given = [0] * len(sizes)
    for _ in range(count):
        quotients = [Fraction(size, 2 * seat + 1) for size, seat in zip(sizes, given, strict=True)]
        given[quotients.index(max(quotients))] += 1
    return given


def quanta(costs: Sequence[float], n: int, largest: float | None = None) -> tuple[list[int], Fraction]:
    """Costs rounded up to whole multiples of 2^(ceil(log2(n max c)) - 62)."""
    top = max(costs, default=0.0) if largest is None else largest
    if not costs or n < 1:
        return [0 for _ in costs], Fraction(1)
    total, power = n * Fraction(top), -1200
    while Fraction(2) ** power < total:
        power += 1
    quantum = Fraction(2) ** (power - 62)
    return [max(1, math.ceil(Fraction(cost) / quantum)) for cost in costs], quantum


@dataclass
class Limited:
    """A budget in whole units: what each coordinate takes, what all may take, the size of one unit."""

    units: list[int]
    limit: int
    quantum: Fraction


def limited(costs, per_coordinate: Sequence[float], bits: Sequence[float], budget) -> Limited:
    n = costs.layout.n
    if isinstance(budget, Count):
        return Limited([1] * n, min(budget.k, n), Fraction(1))
    if isinstance(budget, Density):
        return Limited([1] * n, math.floor(Fraction(repr(float(budget.fraction))) * n), Fraction(1))
    if isinstance(budget, Bytes):
        units, quantum = quanta(bits, n, float(costs.bits_per_kept.max(initial=0.0)))
        return Limited(units, math.floor(8 * budget.n / quantum), quantum)
    assert isinstance(budget, Joules)
    units, quantum = quanta(per_coordinate, n, float(costs.per_kept.max(initial=0.0)))
    room = budget.budget - (costs.fixed if budget.includes_fixed else 0.0)
    return Limited(units, math.floor(Fraction(room) / quantum), quantum)


def per_coordinate(costs) -> list[float]:
    if costs.per_coordinate:
        return costs.per_kept.tolist()
    return np.repeat(costs.per_kept, costs.layout.sizes).tolist()


def bits_of(costs) -> list[float]:
    return np.repeat(costs.bits_per_kept, costs.layout.sizes).tolist()


@dataclass
class Kept:
    """A reference selection."""

    indices: list[int]
    spent: int
    misfit: int | None


def prefix(scores: Sequence[float], units: Sequence[int], limit: int) -> Kept:
    """The longest prefix by falling score that costs at most `limit`, ties to the lower index."""
    kept, spent = [], 0
    for i in order_of(scores):
        if spent + units[i] > limit:
            return Kept(sorted(kept), spent, i)
        kept.append(i)
        spent += units[i]
    return Kept(sorted(kept), spent, None)


def fill(scores: Sequence[float], units: Sequence[int], limit: int) -> Kept:
    """The same, but going on after what does not fit."""
    kept, spent = [], 0
    for i in order_of(scores):
        if spent + units[i] <= limit:
            kept.append(i)
            spent += units[i]
    return Kept(sorted(kept), spent, None)


def order_of(scores: Sequence[float]) -> list[int]:
    return sorted((i for i, score in enumerate(scores) if score > 0), key=lambda i: (-scores[i], i))


@dataclass
class Chosen:
    """All that a reference selection says."""

    indices: list[int]
    spent: Fraction | None
    prefix: Kept | None


def choose(a: np.ndarray, costs, rule, budget, key: int | None) -> Chosen:
    """The reference of `select` for rules with a score."""
    prices = per_coordinate(costs)
    scores = scores_of(a, prices, rule, key, costs.layout.sizes.tolist())
    if isinstance(budget, Price):
        worth = [float(abs(Fraction(float(x))) ** rule.norm / Fraction(c)) for x, c in zip(a, prices, strict=True)]
        return Chosen([i for i, each in enumerate(worth) if each >= budget.value and a[i] != 0], None, None)
    if isinstance(budget, Threshold):
        return Chosen([i for i, each in enumerate(a.tolist()) if each and abs(each) >= budget.value], None, None)
    room = limited(costs, prices, bits_of(costs), budget)
    if room.limit < 0:
        return Chosen([], Fraction(0), None)
    first = prefix(scores, room.units, room.limit)
    whole = fill(scores, room.units, room.limit) if getattr(budget, "fill", False) else first
    return Chosen(whole.indices, whole.spent * room.quantum, first)


def mass(a: np.ndarray, indices: Sequence[int], norm: int) -> Fraction:
    """Sum of ``|a_i|^norm``, exactly."""
    return sum((abs(Fraction(float(a[i]))) ** norm for i in indices), Fraction(0))


def energy(costs, indices: Sequence[int]) -> Fraction:
    """Sum of the true costs, exactly."""
    prices = per_coordinate(costs)
    return sum((Fraction(prices[i]) for i in indices), Fraction(0))


def certificate(a: np.ndarray, costs, norm: int, room: Fraction, chosen: Chosen) -> tuple[Fraction, Fraction]:
    """Kept value, and the value of the relaxed knapsack, both exactly."""
    value, misfit = mass(a, chosen.indices, norm), chosen.prefix.misfit
    if misfit is None:
        return value, value
    rate = mass(a, [misfit], norm) / energy(costs, [misfit])
    left = room - energy(costs, chosen.prefix.indices)
    return value, mass(a, chosen.prefix.indices, norm) + max(left, Fraction(0)) * rate


def optimum(values: Sequence[int], weights: Sequence[int], capacity: int) -> int:
    """The exact optimum of a 0/1 knapsack of whole numbers, by OR-tools."""
    from ortools.algorithms.python import knapsack_solver as knapsack  # noqa: PLC0415 (slow to import)

    if not values or capacity < 0:
        return 0
    kind = knapsack.SolverType.KNAPSACK_MULTIDIMENSION_BRANCH_AND_BOUND_SOLVER
    solver = knapsack.KnapsackSolver(kind, "best selection")
    solver.init(list(values), [list(weights)], [capacity])
    found = solver.solve()
    assert solver.is_solution_optimal()
    return found


def chances(scores: Sequence[float], costs: Sequence[float], limit: float) -> list[float]:
    """Probabilities ``min(1, slope * score)`` whose expected cost is the limit, by bisection."""
    if math.fsum(cost for score, cost in zip(scores, costs, strict=True) if score > 0) <= limit:
        return [float(score > 0) for score in scores]
    if limit <= 0:
        return [0.0 for _ in scores]

    def at(slope: float) -> list[float]:
        return [min(1.0, slope * score) for score in scores]

    smallest = min(score for score in scores if score > 0)
    low, high = 0.0, 2.0 / smallest
    for _ in range(2000):
        middle = (low + high) / 2
        if not low < middle < high:
            break
        spent = math.fsum(cost * q for cost, q in zip(costs, at(middle), strict=True))
        low, high = (middle, high) if spent <= limit else (low, middle)
    return at(low)


def large_prefix(scores: np.ndarray, units: np.ndarray, limit: int) -> tuple[np.ndarray, int | None]:
    """`prefix` for vectors that are too long for loops: one stable sort of everything."""
    order = np.argsort(-scores, kind="stable")
    order = order[scores[order] > 0]
    fitting = int(np.searchsorted(np.cumsum(units[order]), limit, side="right"))
    misfit = int(order[fitting]) if fitting < order.size else None
    return np.sort(order[:fitting]), misfit
