"""Intervals of scores that hold the threshold at which a limit is used up.

The threshold of a prefix is the score at which the cost, summed from the best score down, passes the limit. A
histogram over the top bits of the scores' floating-point form, weighted by cost, brackets it: first of a
sample, and where that was unlucky of all scores.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from joulewise.ranking import Float64, Int64, Ranking

SAMPLES = 1 << 16
# Top bits of a non-negative float64: 11 of exponent and 5 of mantissa, so that a bin is 3 % wide.
BIN_SHIFT = np.uint64(47)
BINS = 1 << 16
SMALLEST = float(np.nextafter(0.0, 1.0))


def brackets(ranking: Ranking, quanta: Int64, limit: int) -> Iterator[tuple[float, float]]:
    """Intervals [lo, hi) of scores that should hold the threshold, made as they are asked for.

    The last one is all scores above zero, so it always does.
    """
    if ranking.a.size > 2 * SAMPLES:
        yield sampled_bracket(ranking, quanta, limit)
        yield full_bracket(ranking, quanta, limit)
    yield SMALLEST, np.inf


def sampled_bracket(ranking: Ranking, quanta: Int64, limit: int) -> tuple[float, float]:
    """The interval that a sample suggests, four standard deviations wide on either side."""
    places = _sample_places(ranking.a.size)
    costs = ranking.spread(quanta, places).astype(np.float64) * (ranking.a.size / places.size)
    scores = ranking.scores_at(places)
    some = scores > 0
    bins, costs = _bins(scores[some]), costs[some]
    if not bins.size:
        return SMALLEST, np.inf
    first = int(bins.min())
    bins -= first
    above = _from_the_top(_histogram(bins, costs))
    # Four standard deviations of the sampled cost, and four samples more where only few were met.
    spread = 4 * np.sqrt(_from_the_top(_histogram(bins, costs * costs))) + 4 * float(costs.max())
    return _edges_of_bracket(above - spread, above + spread, float(limit), first)


def full_bracket(ranking: Ranking, quanta: Int64, limit: int) -> tuple[float, float]:
    """The interval of one or two bins that the histogram of all scores gives."""
    total = np.zeros(BINS)
    for tensor, start, stop in ranking.segments():
        bins = _bins(ranking.scores(tensor, start, stop))
        costs = quanta[tensor] if ranking.per_tensor(quanta) else quanta[start:stop]
        counts = _histogram(bins, np.broadcast_to(costs, bins.shape))
        total[: counts.size] += counts
    above = _from_the_top(total)
    # Floating-point sums of integer costs are off by far less than this.
    return _edges_of_bracket(above * (1 - 1e-9), above * (1 + 1e-9), float(limit), 0)


def _sample_places(n: int) -> Int64:
    """One place in each stride of the vector, jittered so that no period of the data is met."""
    samples = min(SAMPLES, max(1 << 12, n >> 6))
    counter = np.arange(samples, dtype=np.uint64)
    stride = np.uint64(n // samples)
    # Multiples of the golden ratio, modulo one, times the stride.
    jitter = (counter * np.uint64(0x9E3779B9) & np.uint64(0xFFFFFFFF)) * stride >> np.uint64(32)
    return (counter * stride + jitter).astype(np.int64)


def _bins(scores: Float64) -> Int64:
    bins: Int64 = np.minimum(scores.view(np.uint64) >> BIN_SHIFT, np.uint64(BINS - 1)).astype(np.int64)
    return bins


def _histogram(bins: Int64, weights: Float64 | Int64) -> Float64:
    return np.asarray(np.bincount(bins, weights=weights), np.float64)


def _from_the_top(per_bin: Float64) -> Float64:
    return np.cumsum(per_bin[::-1])[::-1]


def _edges_of_bracket(least: Float64, most: Float64, limit: float, first: int) -> tuple[float, float]:
    """Lower edges of the highest bin whose least estimate overflows, and of the lowest that surely fits.

    Args:
        least: least estimate of the cost from each bin to the top.
        most: greatest estimate of it.
        limit: what may be spent.
        first: number of the lowest bin.
    """
    overflow = np.flatnonzero(least > limit)
    fits = np.flatnonzero(most <= limit)
    lo = _edge(first + int(overflow[-1])) if overflow.size else 0.0
    hi = _edge(first + int(fits[0])) if fits.size else np.inf
    return max(lo, SMALLEST), hi


def _edge(bin_index: int) -> float:
    return float((np.uint64(bin_index) << BIN_SHIFT).view(np.float64))
