"""Small knapsacks with known optima: what a certificate promises is held against OR-tools.

Values and prices are small dyadic numbers, so that the exact solver takes them as whole numbers and every comparison
is one of fractions.
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
    """A vector, its prices, a rule and a budget: of one of four sorts, with 1 to 18 coordinates."""
    rng = np.random.default_rng([seed, 6])
    n, sort = int(rng.integers(1, 19)), seed % 4
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
    a = (eighths / 8 * rng.choice([-1, 1], n)).astype(np.float32)
    return a, prices / 4.0, (CWMP(), Projection())[seed // 4 % 2], room / 4.0


def check(seed: int) -> Found:
    """Hold one instance against its optimum.

    Raises:
        AssertionError: a certificate promises what is not so.
    """
    a, prices, rule, room = instance(seed)
    norm, costs = rule.norm, Costs.of(prices, unit="relative")
    values = [round(abs(float(each)) * 8) ** norm for each in a]
    best = Fraction(reference.optimum(values, [int(4 * each) for each in prices], int(4 * room)), 8**norm)
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
    assert best - reference.mass(a, kept[0].indices.tolist(), norm) <= largest, (
        f"instance {seed}: more than one item off"
    )
    assert kept[2].certificate.ratio >= 0.5 - 1e-12, f"instance {seed}: below half of the bound"
    return Found(*shares, used)
