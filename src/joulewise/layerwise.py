"""The order of layer-wise TopK: how far every tensor has come, whatever the magnitudes of the others.

The j-th largest magnitude of a tensor of ``n_g`` elements scores ``n_g / (2 j - 1)``. The k best scores are the seats
of Sainte-Laguë's method, with the sizes of the tensors as votes: ``k_g`` is ``k n_g / n`` rounded to the nearest whole
number, at one common divisor that makes the sum k; halves go to the earlier tensor. One seat more never takes a seat
from any tensor, so selections are nested and there is one order, along which any budget may end.
"""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise

import numpy as np

from joulewise.layout import Vector
from joulewise.prefix import longest_prefix
from joulewise.ranking import Float64, Int64, NotFinite, Prefix, Ranking, first_not_finite


def layer_scores(vector: Vector, edges: Int64) -> Float64:
    """The score of each coordinate: float64[n]; 0 for zeros, which are never kept. Sorts every tensor.

    Args:
        vector: float32[n], finite.
        edges: int64[tensors + 1], where tensors begin and end.

    Example:
        >>> layer_scores(np.array([5, 0, 9, 1, -2], np.float32), np.array([0, 3, 5])).tolist()
        [1.0, 0.0, 3.0, 0.6666666666666666, 2.0]
    """
    scores = np.zeros(vector.size)
    for start, stop in pairwise(edges.tolist()):
        order = np.argsort(-np.abs(vector[start:stop]), kind="stable")
        scores[start + order] = _seats(stop - start, stop - start)
    scores[vector == 0] = 0.0
    return scores


def rank_by_layer(vector: Vector, edges: Int64) -> Ranking:
    """The order as a ranking of ones, with the scores as weights."""
    scores = layer_scores(vector, edges)
    if scores.size == edges.size - 1:
        # As many weights as tensors would be read as one for each. So few scores are told apart by float32.
        return Ranking(scores.astype(np.float32), edges, np.ones(scores.size))
    return Ranking((vector != 0).astype(np.float32), edges, scores)


def longest_by_layer(
    vector: Vector, edges: Int64, quanta: Int64, limit: int, fill: bool = False
) -> tuple[Ranking, Prefix]:
    """The longest prefix of the order that fits, and what to fill by.

    Args:
        vector: float32[n].
        edges: int64[tensors + 1], where tensors begin and end.
        quanta: int64[tensors] or int64[n], positive integer costs.
        limit: what the kept coordinates may cost together, at least 0.
        fill: whether the ranking is needed; it takes a sort of every tensor.

    Returns:
        The order as a ranking, or that of TopK where it was not asked for; and the prefix.

    Raises:
        NotFinite: the vector holds NaN or infinity.

    Example:
        >>> a, edges = np.array([5, 0, 9, 1, -2], np.float32), np.array([0, 3, 5])
        >>> _, found = longest_by_layer(a, edges, np.ones(2, np.int64), limit=2)
        >>> found.indices.tolist(), found.values.tolist(), found.misfit
        ([2, 4], [9.0, -2.0], 0)
    """
    bad = first_not_finite(vector)
    if bad is not None:
        raise NotFinite(bad)
    if quanta.size == edges.size - 1 and not fill:
        return Ranking(vector, edges, np.ones(edges.size - 1)), _seated(vector, edges, quanta, limit)
    ranking = rank_by_layer(vector, edges)
    found = longest_prefix(ranking, quanta, limit)
    squares = float(np.square(vector, dtype=np.float64).sum())
    return ranking, replace(found, values=vector[found.indices], squares=squares)


def _seated(vector: Vector, edges: Int64, quanta: Int64, limit: int) -> Prefix:
    """The prefix without a sort: how many of each tensor first, which is known without its numbers, then its best."""
    spans = [(*span, quantum) for span, quantum in zip(pairwise(edges.tolist()), quanta.tolist(), strict=True)]
    spans = [span for span in spans if vector[span[0] : span[1]].any()]
    if not spans:
        return Prefix(np.empty(0, np.uint32), np.empty(0, np.float32), 0, None, 0.0)
    seats = _all_seats(vector, spans)
    taken = longest_prefix(seats, np.array([quantum for *_, quantum in spans], np.int64), limit)
    counts = np.diff(np.searchsorted(taken.indices, seats.edges.astype(np.uint32))).tolist()
    best = [_best(vector, start, stop, count) for (start, stop, _), count in zip(spans, counts, strict=True)]
    misfit = None
    if taken.misfit is not None:
        misfit = best[int(np.searchsorted(seats.edges, taken.misfit, side="right")) - 1].misfit
    indices = np.concatenate([each.indices for each in best])
    values = np.concatenate([each.values for each in best])
    return Prefix(indices, values, taken.spent, misfit, sum(each.squares for each in best))


def _seats(size: int, count: int) -> Float64:
    """Scores of the first `count` coordinates of a tensor, best first: float64[count]."""
    seats: Float64 = size / (2.0 * np.arange(count) + 1.0)
    return seats


def _all_seats(vector: Vector, spans: list[tuple[int, int, int]]) -> Ranking:
    """A ranking of seats: as many of each tensor as it has entries that are not zero, which is at least one."""
    counts = [int(np.count_nonzero(vector[start:stop])) for start, stop, _ in spans]
    scores = np.concatenate(
        [_seats(stop - start, count) for (start, stop, _), count in zip(spans, counts, strict=True)]
    )
    edges = np.concatenate([[0], np.cumsum(counts)]).astype(np.int64)
    return Ranking(np.ones(scores.size, np.float32), edges, scores)


def _best(vector: Vector, start: int, stop: int, count: int) -> Prefix:
    """The `count` largest magnitudes of one tensor, by their places in the whole vector."""
    ranking = Ranking(vector[start:stop], np.array([0, stop - start], np.int64), np.ones(1))
    found = longest_prefix(ranking, np.ones(1, np.int64), count)
    misfit = None if found.misfit is None else start + found.misfit
    return Prefix(found.indices + np.uint32(start), found.values, found.spent, misfit, found.squares)
