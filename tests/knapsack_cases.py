"""Small knapsacks with known optima: what a certificate promises is held against OR-tools.

Values are small dyadic numbers, and so are most prices: the exact solver takes them as whole numbers and every
comparison is one of fractions. One sort has prices in tenths, a thousand times as dear or not, which exact sums round
up. The solver takes them as the decimals that they stand for, which buys no less than the float64 numbers do.
"""

from dataclasses import dataclass
from fractions import Fraction

import numpy as np
import reference

from joulewise.costs import Costs
from joulewise.rules import CWMP, Joules, Projection
from joulewise.select import select
from joulewise.theory import half_approximation

SLACK = Fraction(1, 10**12)
SORTS, ROUNDED = 5, 4


@dataclass(frozen=True)
class Found:
    """Shares of the optimum that were kept; 1 where there is nothing to keep.

    Args:
        prefix: by `select`.
        filled: by `select` with fill.
        half: by `half_approximation`.
        used: the largest part of a gap that was needed, ``(optimum - kept) / gap``.
    """

    prefix: float
    filled: float
    half: float
    used: float


def instance(seed: int) -> tuple[np.ndarray, np.ndarray, CWMP | Projection, float]:
    """A vector, its prices, a rule and a budget: of one of five sorts, with 1 to 18 coordinates."""
    rng = np.random.default_rng([seed, 6])
    n, sort = int(rng.integers(1, 19)), seed % SORTS
    prices = rng.integers(1, int(rng.choice([3, 9, 65])), n)
    eighths = rng.integers(0, 65, n)
    if sort == 1:  # hard ones: value and price go together
        eighths = np.maximum(0, prices + rng.integers(-2, 3, n))
    if sort == 2:  # one coordinate that takes most of the budget
        prices[0], eighths[0] = prices.sum() + 1, 4 * eighths.max() + 1
    if sort == 3:  # a good ratio that keeps a large value out
        prices[0], eighths[0] = 1, 2
        prices[1:], eighths[1:] = 40, 60
    room = int(rng.integers(0, prices.sum() + 2)) if sort != 3 else int(rng.integers(40, 42))
    rule = (CWMP(), Projection())[seed // SORTS % 2]
    if sort == ROUNDED:
        prices *= rng.choice([1, 1000], n)
        order = np.argsort(-(eighths**rule.norm) / prices, kind="stable")
        room = int(prices[order[: rng.integers(0, n + 1)]].sum())  # which a prefix takes, so that rounding decides
    a = (eighths / 8 * rng.choice([-1, 1], n)).astype(np.float32)
    return a, prices / parts_of(seed), rule, room / parts_of(seed)


def parts_of(seed: int) -> int:
    """Of what one is, prices and budget of an instance are whole numbers of parts."""
    return 10 if seed % SORTS == ROUNDED else 4


def check(seed: int) -> Found:
    """Hold one instance against its optimum.

    Raises:
        AssertionError: a certificate promises what is not so.
    """
    a, prices, rule, room = instance(seed)
    norm, costs = rule.norm, Costs.of(prices, unit="relative")
    values = [round(abs(float(each)) * 8) ** norm for each in a]
    whole = [round(parts_of(seed) * each) for each in (*prices, room)]
    best = Fraction(reference.optimum(values, whole[:-1], whole[-1]), 8**norm)
    kept = [select(a, costs, rule, Joules(room, fill=fill)) for fill in (False, True)]
    kept.append(half_approximation(a, costs, rule, Joules(room)))
    shares, used = [], 0.0
    for each in kept:
        value = reference.mass(a, each.indices.tolist(), norm)
        bound, slack = Fraction(each.certificate.bound), SLACK * (1 + best)
        where = f"instance {seed}: kept {float(value)}, optimum {float(best)}, bound {float(bound)}"
        assert sum(Fraction(float(prices[i])) for i in each.indices) <= Fraction(room), f"{where}, beyond its budget"
        assert abs(Fraction(each.certificate.value) - value) <= slack, where
        assert value <= best <= bound + slack, where
        gap = Fraction(each.certificate.gap)
        used = max(used, float((best - value) / gap) if gap > slack else 0.0)
        shares.append(float(value / best) if best else 1.0)
    largest = max((Fraction(each, 8**norm) for each in values), default=Fraction(0))
    assert best - reference.mass(a, kept[0].indices.tolist(), norm) <= largest + SLACK * (1 + best), (
        f"instance {seed}: more than one item off"
    )
    assert kept[2].certificate.ratio >= 0.5 - 1e-12, f"instance {seed}: below half of the bound"
    return Found(*shares, used)
