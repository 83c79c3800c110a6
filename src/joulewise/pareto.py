"""Statistics of studies: intervals over seeds, paired differences, frontiers of accuracy against energy."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import msgspec
import numpy as np
import numpy.typing as npt

from joulewise.errors import MissingExtra
from joulewise.questions import EVALUATIONS

CONFIDENCE = 0.95
SEEDS_FOR_A_CLAIM = 3


class Interval(msgspec.Struct, frozen=True, kw_only=True):
    """A mean over seeds and its confidence interval; the ends are None where fewer than two seeds leave none.

    Args:
        mean: mean over seeds.
        low: lower end.
        high: upper end.
        seeds: number of seeds.
    """

    mean: float
    low: float | None
    high: float | None
    seeds: int

    @property
    def half(self) -> float | None:
        """Half the width of the interval, or None."""
        return None if self.low is None else self.mean - self.low


class Difference(msgspec.Struct, frozen=True, kw_only=True):
    """How much one arm exceeds another, seed by seed.

    Args:
        interval: mean difference and its interval, from the seeds that both arms have.
        p: two-sided p-value of Student's paired t test; None with fewer than two seeds or without any spread.
    """

    interval: Interval
    p: float | None

    @property
    def claim(self) -> bool:
        """Whether there are enough seeds to say anything, and the interval leaves out zero."""
        low, high = self.interval.low, self.interval.high
        if low is None or high is None or self.interval.seeds < SEEDS_FOR_A_CLAIM:
            return False
        return low > 0 or high < 0


def interval(values: Sequence[float], confidence: float = CONFIDENCE) -> Interval:
    """Mean and confidence interval of a mean, by Student's t: ``mean ± t(n-1) * sd / sqrt(n)``.

    Args:
        values: one value per seed; at least one.
        confidence: between 0 and 1.

    Raises:
        ValueError: there is no value.

    Example:
        >>> found = interval([0.90, 0.91, 0.92])
        >>> round(found.mean, 3), round(found.low, 3), round(found.high, 3), found.seeds
        (0.91, 0.885, 0.935, 3)
        >>> interval([0.9]).low is None
        True
    """
    if not values:
        raise ValueError("interval(values) needs at least one value, but got none")
    sample = np.asarray(values, dtype=np.float64)
    mean, seeds = float(sample.mean()), len(sample)
    if seeds < 2:
        return Interval(mean=mean, low=None, high=None, seeds=seeds)
    half = _t_quantile(seeds - 1, (1 + confidence) / 2) * float(sample.std(ddof=1)) / math.sqrt(seeds)
    return Interval(mean=mean, low=mean - half, high=mean + half, seeds=seeds)


def paired(
    first: Mapping[int, float], second: Mapping[int, float], confidence: float = CONFIDENCE
) -> Difference | None:
    """How much `first` exceeds `second` over the seeds that both have; None when they share none.

    Args:
        first: value by seed.
        second: value by seed.
        confidence: between 0 and 1.

    Example:
        >>> found = paired({0: 0.92, 1: 0.90, 2: 0.94}, {0: 0.90, 1: 0.89, 2: 0.91, 3: 0.95})
        >>> round(found.interval.mean, 3), found.interval.seeds, round(found.p, 3), found.claim
        (0.02, 3, 0.074, False)
    """
    shared = sorted(first.keys() & second.keys())
    if not shared:
        return None
    differences = [first[seed] - second[seed] for seed in shared]
    return Difference(interval=interval(differences, confidence), p=_p_value(differences))


def frontier(cost: Sequence[float], value: Sequence[float]) -> npt.NDArray[np.bool_]:
    """Which points no other point beats: none has at most the cost and at least the value, and is not equal.

    Args:
        cost: less is better.
        value: more is better.

    Returns:
        bool[points]. Equal points are all on the frontier or all off it.

    Example:
        >>> frontier([1.0, 2.0, 3.0], [0.7, 0.9, 0.8]).tolist()
        [True, True, False]
    """
    costs, values = np.asarray(cost, dtype=np.float64), np.asarray(value, dtype=np.float64)
    on = np.zeros(len(costs), dtype=np.bool_)
    best, best_cost = -math.inf, math.nan
    for point in np.lexsort((-values, costs)):
        equal = values[point] == best and costs[point] == best_cost
        if values[point] > best or equal:
            on[point] = True
            best, best_cost = values[point], costs[point]
    return on


def hypervolume(cost: Sequence[float], value: Sequence[float], cost_limit: float, value_floor: float) -> float:
    """Area between the frontier and a reference point: how much of the plane some point beats.

    Args:
        cost: less is better.
        value: more is better.
        cost_limit: cost of the reference point; dearer points add nothing.
        value_floor: value of the reference point; poorer points add nothing.

    Example:
        >>> hypervolume([1.0, 2.0], [0.5, 1.0], cost_limit=4.0, value_floor=0.0)
        2.5
    """
    area, floor = 0.0, value_floor
    for point_cost, point_value in sorted(zip(cost, value, strict=True)):
        if point_cost < cost_limit and point_value > floor:
            area += (cost_limit - point_cost) * (point_value - floor)
            floor = point_value
    return area


def crossing(accuracies: Sequence[float], accuracy: float, evaluations: int = EVALUATIONS) -> int | None:
    """Place of the round that reaches an accuracy: the last of the first `evaluations` in a row whose mean has it.

    One lucky evaluation does not count, and the round that ends the row pays. None when no row of evaluations has it,
    or there are fewer of them: such a run is censored, and would have to spend more than it did, if that is enough.

    Args:
        accuracies: accuracy after each round.
        accuracy: the accuracy to reach.
        evaluations: how many in a row.

    Example:
        >>> crossing([0.5, 0.7, 0.5, 0.7, 0.8], accuracy=0.6)
        3
        >>> crossing([0.5, 0.9, 0.5, 0.3], accuracy=0.65) is None
        True
    """
    for last in range(evaluations, len(accuracies) + 1):
        if math.fsum(accuracies[last - evaluations : last]) / evaluations >= accuracy:
            return last - 1
    return None


def accuracy_at(energies: Sequence[float], accuracies: Sequence[float], energy: float) -> float | None:
    """Accuracy after the last round that an energy pays for; None when it pays for none.

    Args:
        energies: cumulative energy after each round.
        accuracies: accuracy after each round.
        energy: the energy at hand.

    Example:
        >>> accuracy_at([1.0, 2.0, 3.0], [0.5, 0.8, 0.7], energy=2.5)
        0.8
    """
    paid = [found for spent, found in zip(energies, accuracies, strict=True) if spent <= energy]
    return paid[-1] if paid else None


def _p_value(differences: Sequence[float]) -> float | None:
    sample = np.asarray(differences, dtype=np.float64)
    spread = float(sample.std(ddof=1)) if len(sample) > 1 else 0.0
    if spread <= 1e-12 * float(np.abs(sample).max()):  # equal but for rounding
        return None
    statistic = float(sample.mean()) / (spread / math.sqrt(len(sample)))
    return 2 * float(_special().stdtr(len(sample) - 1, -abs(statistic)))


def _t_quantile(freedom: int, probability: float) -> float:
    return float(_special().stdtrit(freedom, probability))


def _special() -> Any:
    try:
        import scipy.special  # noqa: PLC0415 (only a report needs it)
    except ImportError as error:
        raise MissingExtra("report", "an interval over seeds") from error
    return scipy.special
