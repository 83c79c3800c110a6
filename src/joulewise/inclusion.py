"""Independent random inclusions with an expected cost: how MinVariance draws."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from joulewise.ranking import Float64, Ranking, UInt32, sum_of_squares, uniform


@dataclass(frozen=True, slots=True, eq=False)
class Drawn:
    """What was drawn.

    Args:
        indices: uint32[k], ascending.
        values: float64[k], each entry over its probability.
        squares: sum of squares of the whole vector.
        error: expected sum of squared errors, ``sum a^2 (1/q - 1)``; entries that are never sent count ``a^2``.
    """

    indices: UInt32
    values: Float64
    squares: float
    error: float


def draw(ranking: Ranking, per_kept: Float64, limit: float, key: int) -> Drawn:
    """Keep i with probability ``q_i = min(1, lambda s_i)``, ``sum_i c_i q_i = limit``; send ``a_i / q_i``.

    Args:
        ranking: gives the scores s.
        per_kept: float64[tensors] or float64[n], the costs c.
        limit: expected cost.
        key: of the random stream.

    Raises:
        NotFinite: the vector holds NaN or infinity.
    """
    with np.errstate(over="ignore", under="ignore", invalid="ignore"):
        squares = math.fsum(sum_of_squares(ranking.a[start:stop], start) for _, start, stop in ranking.segments())
    slope = solve_slope(ranking, per_kept, limit)
    picked = [np.empty(0, np.uint32)]
    values = [np.empty(0)]
    error = 0.0 if slope > 0 else squares
    for tensor, start, stop in ranking.segments() if slope > 0 else ():
        chance = chances(ranking.scores(tensor, start, stop), slope)
        places = np.flatnonzero(uniform(key, start, stop) < chance)
        picked.append((places + start).astype(np.uint32))
        values.append(ranking.a[start:stop][places] / chance[places])
        error += _error(ranking.a[start:stop], chance)
    return Drawn(np.concatenate(picked), np.concatenate(values), squares, error)


def _error(a: npt.NDArray[np.float32], chance: Float64) -> float:
    """``sum a^2 (1/q - 1)``; an entry whose chance is below what float64 holds is never sent."""
    squares = np.square(a, dtype=np.float64)
    with np.errstate(divide="ignore", over="ignore", invalid="ignore"):
        return float(np.where(chance > 0, squares * (1.0 / chance - 1.0), squares).sum())


def chances(scores: Float64, slope: float) -> Float64:
    """``min(1, slope * scores)``, and 0 where the score is 0 even at infinite slope."""
    with np.errstate(invalid="ignore", over="ignore"):
        return np.where(scores > 0, np.minimum(1.0, slope * scores), 0.0)


def solve_slope(ranking: Ranking, per_kept: Float64, limit: float) -> float:
    """Solve ``sum_i c_i min(1, lambda s_i) = limit`` for lambda; infinity where the limit is enough for all.

    Each pass takes those certain at the last slope as certain and spreads the rest of the limit over the
    others. The slope only grows and the set of the certain with it, so this ends after few passes.
    """
    if _split(ranking, per_kept, math.inf)[1] <= limit:
        return math.inf
    slope, certain_before = 0.0, -1
    while limit > 0:
        certain, certain_cost, rest = _split(ranking, per_kept, slope)
        if certain == certain_before or rest == 0.0:
            break
        slope, certain_before = max(slope, (limit - certain_cost) / rest), certain
    return slope


def _split(ranking: Ranking, per_kept: Float64, slope: float) -> tuple[int, float, float]:
    """How many are certain at a slope, what they cost, and the cost of the others per unit of slope."""
    certain, certain_cost, rest = 0, 0.0, 0.0
    for tensor, start, stop in ranking.segments():
        scores = ranking.scores(tensor, start, stop)
        cost = per_kept[tensor] if ranking.per_tensor(per_kept) else per_kept[start:stop]
        sure = chances(scores, slope) >= 1
        certain += int(np.count_nonzero(sure))
        certain_cost += float(np.where(sure, cost, 0.0).sum())
        rest += float(np.where(sure, 0.0, cost * scores).sum())
    return certain, certain_cost, rest
