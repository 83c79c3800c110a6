"""The longest prefix of the score order that a limit allows: the selection kernel, in NumPy.

Every deterministic rule ranks coordinate i of tensor g by ``|a_i| * w_g`` in float64, ties to the lower
index, and keeps the longest prefix of that order whose integer costs fit a limit. No score array of full size
is made and nothing of full size is sorted:

1. `joulewise.bracket` gives an interval of scores that holds the threshold;
2. one pass over the update compares ``|a_i|`` with one float32 number per tensor and collects candidates;
3. the threshold is found exactly among the candidates inside the bracket.

A bracket that misses is followed by a wider one, so the sample decides the speed and never the result.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from itertools import pairwise

import numpy as np
import numpy.typing as npt

from joulewise import kernel, native_select
from joulewise.bracket import SMALLEST, brackets
from joulewise.ranking import (
    CHUNK,
    Bool,
    Carry,
    Float32,
    Float64,
    Int64,
    Number,
    Prefix,
    Ranking,
    UInt32,
    carried,
    float32_thresholds,
    sum_of_squares,
)

SORTABLE = 1 << 12
AHEAD = 1 << 12
"""How far filling looks first, in coordinates of the order."""


def longest_prefix(ranking: Ranking, quanta: Int64, limit: int, carry: Carry | None = None) -> Prefix:
    """Keep the longest prefix of the score order whose total cost is at most `limit`.

    Args:
        ranking: what to rank by.
        quanta: int64[tensors] or int64[n], positive integer costs; their sum over all coordinates is below
            2**63.
        limit: what the kept coordinates may cost together, at least 0.
        carry: what to add to the ranking's vector first; the sum is what is ranked, and written.

    Raises:
        NotFinite: the vector, or the sum, holds NaN or infinity.
    """
    library = kernel.library()
    if library is not None:
        return native_select.longest_prefix(library, ranking, quanta, limit, carry)
    return prefix_in_numpy(ranking, quanta, limit, carry)


def prefix_in_numpy(ranking: Ranking, quanta: Int64, limit: int, carry: Carry | None = None) -> Prefix:
    """Like `longest_prefix`, without the kernel: its fallback, and what it is tested against."""
    if carry is not None:
        ranking = replace(ranking, a=carried(ranking.a, carry))
    for lo, hi in brackets(ranking, quanta, limit):
        found = _scan(ranking, lo)
        prefix = _finish(ranking, quanta, limit, found, hi)
        if prefix is not None and (prefix.misfit is not None or lo <= SMALLEST):
            return prefix
    raise AssertionError("the bracket over all scores always holds the threshold")


def at_least(ranking: Ranking, threshold: float, carry: Carry | None = None) -> tuple[UInt32, Float32, float]:
    """Indices and values of all coordinates that score at least `threshold`, and the sum of all squares.

    Raises:
        NotFinite: the vector, or the sum, holds NaN or infinity.
    """
    library = kernel.library()
    if library is not None:
        return native_select.at_least(library, ranking, threshold, carry)
    return at_least_in_numpy(ranking, threshold, carry)


def at_least_in_numpy(ranking: Ranking, threshold: float, carry: Carry | None = None) -> tuple[UInt32, Float32, float]:
    """Like `at_least`, without the kernel."""
    if carry is not None:
        ranking = replace(ranking, a=carried(ranking.a, carry))
    found = _scan(ranking, max(threshold, SMALLEST))
    return found.indices, found.values, found.squares


def filled(ranking: Ranking, quanta: Int64, limit: int, found: Prefix) -> tuple[UInt32, int]:
    """Go on along the order after the first misfit and keep whatever still fits.

    What is left only shrinks, so a coordinate that is too dear once stays so. Among those still affordable, the ones
    kept so far are again a prefix of the order: the same kernel finds how it goes on, each time four times as far. So
    there are few passes, and what they find is sorted once: n log n, whatever the prices.

    Returns:
        All kept indices, ascending, and their cost.
    """
    indices, room, misfit, ahead = found.indices, limit - found.spent, found.misfit, AHEAD
    each = np.ones(ranking.edges.size - 1, np.int64)
    while misfit is not None:
        affordable = quanta <= room
        if not affordable.any():
            break
        taken = int(np.count_nonzero(ranking.spread(affordable, indices)))
        rest = Ranking(ranking.a, ranking.edges, _without(ranking, ~affordable), ranking.key)
        longer = longest_prefix(rest, each, taken + ahead)
        later = np.setdiff1d(longer.indices, indices, assume_unique=True)
        order = np.argsort(-ranking.scores_at(later), kind="stable")
        fitting, room = _fitting(ranking.spread(quanta, later)[order], room)
        indices = np.sort(np.concatenate([indices, later[order[fitting]]]))
        misfit, ahead = longer.misfit, 4 * ahead
    return indices, limit - room


def _fitting(costs: Int64, room: int) -> tuple[Int64, int]:
    """Places of the costs that are kept when each that fits into what is left is; and what is left then."""
    kept: list[int] = []
    for start in range(0, costs.size, CHUNK):
        chunk = costs[start : start + CHUNK]
        places = np.flatnonzero(chunk <= room)
        for place, cost in zip(places.tolist(), chunk[places].tolist(), strict=True):
            if cost <= room:
                kept.append(start + place)
                room -= cost
    return np.array(kept, np.int64), room


def _without(ranking: Ranking, excluded: Bool) -> Float64:
    """Weights that are 0 for the excluded tensors or coordinates."""
    weights = ranking.weights
    if excluded.size < weights.size:
        excluded = np.repeat(excluded, np.diff(ranking.edges))
    elif weights.size < excluded.size:
        weights = np.repeat(weights, np.diff(ranking.edges))
    return np.where(excluded, 0.0, weights)


# ------------------------------------------------------------------------------------------------ scan


@dataclass(frozen=True, slots=True, eq=False)
class _Found:
    indices: UInt32
    values: Float32
    squares: float


@np.errstate(over="ignore", under="ignore", invalid="ignore")
def _scan(ranking: Ranking, lo: float) -> _Found:
    """The one pass over the vector: everything whose score is at least `lo`, in order of index."""
    thresholds = float32_thresholds(ranking.weights, lo) if ranking.by_threshold else None
    buffer, test = np.empty(CHUNK, np.float32), np.empty(CHUNK, np.bool_)
    indices: list[UInt32] = []
    values: list[Float32] = []
    total = 0.0
    for tensor, start, stop in ranking.segments():
        x, hit, squares = ranking.a[start:stop], test[: stop - start], buffer[: stop - start]
        total += sum_of_squares(x, start, squares)
        if thresholds is None:
            taken, places = _marked(x, np.greater_equal(ranking.scores(tensor, start, stop), lo, out=hit))
        else:
            taken, places = _reaching(x, squares, thresholds[tensor], hit)
        if taken.size:
            places += start
            values.append(taken)
            indices.append(places.astype(np.uint32))
    return _Found(_joined(indices, np.uint32), _joined(values, np.float32), total)


def _reaching(x: Float32, squares: Float32, threshold: np.float32, hit: Bool) -> tuple[Float32, Int64]:
    """Values and places of magnitudes that reach the threshold; `hit` and `squares` are overwritten."""
    least = threshold * threshold
    if not least > 0:
        return _marked(x, np.greater_equal(np.abs(x, out=squares), threshold, out=hit))
    # The squares are there already. Rounding keeps order: of what reaches nothing is lost, and few come in beside.
    taken, places = _marked(x, np.greater_equal(squares, least, out=hit))
    reach = np.abs(taken) >= threshold
    return (taken, places) if reach.all() else (taken[reach], places[reach])


def _marked(x: Float32, hit: Bool) -> tuple[Float32, Int64]:
    if hit.all():
        return x, np.arange(x.size)
    places = np.flatnonzero(hit)
    return x[places], places


def _joined(parts: list[npt.NDArray[Number]], dtype: type[Number]) -> npt.NDArray[Number]:
    joined = np.concatenate(parts) if parts else np.empty(0, dtype)
    parts.clear()  # Frees the parts before the caller makes anything else of this size.
    return joined


# ------------------------------------------------------------------------------------------------ finish


def _finish(ranking: Ranking, quanta: Int64, limit: int, found: _Found, hi: float) -> Prefix | None:
    """Cut the candidates at the limit; None when those above the bracket alone exceed it."""
    keep = _reach(ranking, found, hi)
    above = _cost(ranking, quanta, found, keep)
    if above > limit:
        return None
    places, values, sure = found.indices, found.values, keep.any()
    if sure:
        np.logical_not(keep, out=keep)
        places, values = found.indices[keep], found.values[keep]
    costs = ranking.spread(quanta, places)
    kept, misfit = cut(ranking.scores_of(places, values), costs, limit - above)
    spent = above + int(costs.sum(where=kept))
    if misfit is None:
        return Prefix(found.indices, found.values, spent, None, found.squares)
    if sure:
        keep[keep] = ~kept
        np.logical_not(keep, out=keep)
    else:
        keep = kept
    return Prefix(found.indices[keep], found.values[keep], spent, int(places[misfit]), found.squares)


def _reach(ranking: Ranking, found: _Found, hi: float) -> Bool:
    """Which candidates lie at or above the bracket: they are kept, whatever the cut inside it says."""
    reach = np.zeros(found.indices.size, np.bool_)
    if hi == np.inf:
        return reach
    if not ranking.by_threshold:
        return np.greater_equal(ranking.scores_of(found.indices, found.values), hi, out=reach)
    thresholds = float32_thresholds(ranking.weights, hi)
    for tensor, start, stop in _spans(ranking, found.indices):
        np.greater_equal(np.abs(found.values[start:stop]), thresholds[tensor], out=reach[start:stop])
    return reach


def _cost(ranking: Ranking, quanta: Int64, found: _Found, keep: Bool) -> int:
    """Integer cost of the candidates marked in `keep`."""
    if not ranking.per_tensor(quanta):
        return int(quanta[found.indices[keep]].sum()) if keep.any() else 0
    spans = _spans(ranking, found.indices)
    return sum(int(quanta[tensor]) * int(np.count_nonzero(keep[start:stop])) for tensor, start, stop in spans)


def _spans(ranking: Ranking, indices: UInt32) -> Iterator[tuple[int, int, int]]:
    """Where each tensor's entries lie among ascending `indices`, as (tensor, start, stop)."""
    edges = np.searchsorted(indices, ranking.edges.astype(np.uint32)).tolist()
    for tensor, (start, stop) in enumerate(pairwise(edges)):
        if stop > start:
            yield tensor, start, stop


def cut(scores: Float64, quanta: Int64, room: int) -> tuple[Bool, int | None]:
    """Keep the longest prefix, by falling score and then by position, that costs at most `room`.

    Args:
        scores: float64[m].
        quanta: int64[m], their integer costs.
        room: what they may cost together.

    Returns:
        Which are kept, and the position of the first that does not fit (None when all fit).
    """
    kept = np.zeros(scores.size, np.bool_)
    if int(quanta.sum()) <= room:
        kept[:] = True
        return kept, None
    if scores.min() == scores.max():
        fitting = _longest_run(quanta, room)
        kept[:fitting] = True
        return kept, fitting
    active = np.arange(scores.size)
    while active.size > SORTABLE:
        above, inside = _crossing_bin(scores[active], quanta[active], room)
        if inside.size > 0.9 * active.size:
            break
        kept[active[above]] = True
        room -= int(quanta[active[above]].sum())
        active = active[inside]
    order = active[np.argsort(-scores[active], kind="stable")]
    fitting = _longest_run(quanta[order], room)
    kept[order[:fitting]] = True
    return kept, int(order[fitting])


def _longest_run(quanta: Int64, room: int) -> int:
    """How many of the first costs fit together."""
    if quanta.strides == (0,):  # One cost for all.
        return room // int(quanta[0])
    return int(np.searchsorted(np.cumsum(quanta), room, side="right"))


def _crossing_bin(scores: Float64, quanta: Int64, room: int) -> tuple[Bool, Int64]:
    """Which scores lie above the bin in which the cost passes `room`, and the places of those inside it."""
    best, worst = float(scores.max()), float(scores.min())
    if best == worst:
        return np.zeros(scores.size, np.bool_), np.arange(scores.size)
    bins = ((best - scores) / (best - worst) * 1023).astype(np.int64)
    estimate = np.cumsum(np.bincount(bins, weights=quanta, minlength=1024))
    crossing = min(int(np.searchsorted(estimate, room, side="right")), 1023)
    # The estimate is a floating-point sum: settle the bin with exact integers.
    while crossing > 0 and int(quanta[bins < crossing].sum()) > room:
        crossing -= 1
    while crossing < 1023 and int(quanta[bins <= crossing].sum()) <= room:
        crossing += 1
    return bins < crossing, np.flatnonzero(bins == crossing)
