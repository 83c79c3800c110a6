"""Which coordinates of an update a budget buys, and the certificate of what was kept.

A rule is a score, a budget is where to stop: one kernel (`joulewise.prefix`) serves every deterministic pair.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from joulewise.certificate import Certificate, certified, energy_of, guaranteed_delta, mass
from joulewise.costs import Costs
from joulewise.errors import RuleError, UpdateError
from joulewise.inclusion import draw
from joulewise.layerwise import longest_by_layer
from joulewise.layout import Layout, Vector, as_numpy
from joulewise.limits import limit_of, rank, weights_of
from joulewise.prefix import at_least, filled
from joulewise.ranking import Carry, NotFinite, Prefix, Ranking, carried, first_not_finite
from joulewise.rules import (
    Budget,
    Bytes,
    Dense,
    Joules,
    LayerwiseTopK,
    MinVariance,
    Price,
    RandomK,
    Ranked,
    Rule,
    Threshold,
    check_pair,
)
from joulewise.shortlist import Shortlist, listed_prefix, prefix_of

Floats = npt.NDArray[np.float64]
Int64 = npt.NDArray[np.int64]
Indices = npt.NDArray[np.uint32]


@dataclass(frozen=True, slots=True, eq=False)
class Selection:
    """Kept coordinates of a flat vector.

    Args:
        n: length of the vector.
        indices: uint32[k], ascending.
        values: float32[k].
        spent: energy of what is kept, in the unit of the costs; None for a selection that was decoded.
        certificate: with Joules budgets of CWMP and Projection.
        delta: achieved contraction ``1 - ||a - C(a)||^2 / ||a||^2``; negative where random scaling
            overshoots.
        guaranteed_delta: what theory promises of it for every update, where it does: TopK with Count and Density,
            Projection with Joules.
        variance: of rules that are unbiased, ``E ||C(a) - a||^2 / ||a||^2`` over their random numbers.
    """

    n: int
    indices: Indices
    values: Vector
    spent: float | None = None
    certificate: Certificate | None = None
    delta: float | None = None
    guaranteed_delta: float | None = None
    variance: float | None = None

    def dense(self) -> Vector:
        """The sparse vector written out: float32[n], zero where nothing was kept."""
        vector = np.zeros(self.n, np.float32)
        vector[self.indices] = self.values
        return vector


def select(
    a: Any,
    costs: Costs | npt.ArrayLike,
    rule: Rule,
    budget: Budget | None = None,
    rng: np.random.Generator | None = None,
) -> Selection:
    """Choose the coordinates of an update that a budget buys.

    Minimises the loss of ``a`` under ``sum_i c_i m_i <= B``, m in {0, 1}^n, by the greedy order of the rule.
    Scores are compared in float64, ties go to the lower index, zeros are never kept (except by Dense).
    Energies are summed exactly: prices rounded up and the budget down to multiples of one power of two.
    Prices are all that is looked at: what lines and pages add (`Costs.blocks`) is no sum over coordinates and is
    left out here. A `Compressor` counts it in.

    Args:
        a: float32[n], the update (with the residual, if there is one). CPU torch tensors are taken as they
            are.
        costs: prices; or float64[n], one price in joules per coordinate.
        rule: what to rank by.
        budget: where to stop; None for Dense.
        rng: source of the key of random rules.

    Returns:
        The selection, with what it spent, its certificate and its delta.

    Raises:
        RuleError: rule and budget do not go together, or a random rule has no `rng`.
        UpdateError: `a` has another length, or holds NaN or infinity.

    Example:
        >>> from joulewise.rules import CWMP, Joules
        >>> a = np.array([3.0, -2.0, 2.0, 1.0], np.float32)
        >>> kept = select(a, np.array([4.0, 1.0, 1.0, 1.0]), rule=CWMP(), budget=Joules(4.0))
        >>> kept.indices.tolist(), kept.values.tolist(), kept.spent
        ([1, 2, 3], [-2.0, 2.0, 1.0], 3.0)
        >>> kept.certificate
        Certificate(value=5.0, bound=5.75)
    """
    check_pair(rule, budget)
    costs = costs if isinstance(costs, Costs) else Costs.of(np.asarray(costs, np.float64))
    vector = checked_vector(a, costs.layout)
    try:
        return choose(Source(vector), costs, rule, budget, rng).selection
    except NotFinite as found:
        raise not_finite(found.index, costs.layout) from None


@dataclass(frozen=True, slots=True, eq=False)
class Source:
    """What to select from, once or again and again.

    Args:
        vector: float32[n].
        carry: what to add to it first; the first selection does so.
        listed: the top of an order of the vector that an earlier selection looked at.
    """

    vector: Vector
    carry: Carry | None = None
    listed: Shortlist | None = None

    def summed(self) -> Source:
        """The same, once the sum has been written by a selection."""
        return self if self.carry is None else Source(self.carry.into)

    def added(self) -> Source:
        """The same, with the sum written now.

        Raises:
            NotFinite: the vector, or the sum, holds NaN or infinity.
        """
        return self if self.carry is None else Source(carried(self.vector, self.carry))


@dataclass(frozen=True, slots=True, eq=False)
class Chosen:
    """A selection, and what to select from the next time.

    Args:
        selection: what is kept.
        source: without a carry, and with the top of the order where that was asked for.
        everything: nothing but zeros was left out.
    """

    selection: Selection
    source: Source
    everything: bool = False


def choose(
    source: Source,
    costs: Costs,
    rule: Rule,
    budget: Budget | None,
    rng: np.random.Generator | None = None,
    reach: float = 1.0,
) -> Chosen:
    """Like `select`, for callers that select again: with a sum made on the way, and the top of the order kept.

    Args:
        source: what to select from.
        costs: prices.
        rule: what to rank by.
        budget: where to stop; None for Dense.
        rng: source of the key of random rules.
        reach: how far to look at the order, as a multiple of the budget; above 1, the next selections by this order
            within that reach need no pass over the vector.

    Raises:
        RuleError: a random rule has no `rng`.
        NotFinite: the vector, or the sum, holds NaN or infinity.
    """
    key = _key(rule, rng) if rule.random else None
    if budget is None or isinstance(rule, Dense):
        source = source.added()
        return Chosen(_everything(source.vector, costs), source, everything=True)
    if isinstance(rule, MinVariance):
        source = source.added()
        return Chosen(_least_variance(source.vector, costs, budget, key or 0), source)
    if isinstance(budget, Price | Threshold):
        return Chosen(_above(source, costs, rule, budget), source.summed())
    return _greedy(source, costs, rule, budget, key, reach)


def checked_vector(a: Any, layout: Layout, name: str = "a") -> Vector:
    """`a` as a contiguous, aligned float32[n] (a copy only where that is needed).

    Raises:
        UpdateError: it has another shape than the layout says, or holds something else than real numbers.
    """
    vector = as_numpy(a)
    if vector.dtype.kind in "cOSUMm":
        raise UpdateError(f"{name} has elements of type {vector.dtype}, but an update is of real numbers")
    if vector.shape != (layout.n,):
        raise UpdateError(f"{name} has shape {vector.shape}, but the costs are for ({layout.n},)")
    if vector.dtype == np.float32 and vector.flags.c_contiguous and vector.flags.aligned:
        return vector
    with np.errstate(over="ignore"):  # Becomes infinity, which is refused by name below.
        return np.require(vector, np.float32, ("C_CONTIGUOUS", "ALIGNED"))


def not_finite(index: int, layout: Layout, name: str = "the update") -> UpdateError:
    """The error for NaN or infinity at `index`, which names the tensor."""
    return UpdateError(
        f"{name} holds NaN or infinity in tensor {layout.name_of(index)!r} (element {index} of the flat "
        "vector); nothing was changed: lower the learning rate or look for the operation that made it"
    )


def _key(rule: Rule, rng: np.random.Generator | None) -> int:
    if rng is None:
        raise RuleError(f"{type(rule).__name__} draws at random; give rng=numpy.random.default_rng(seed)")
    return int(rng.integers(0, 2**64, dtype=np.uint64))


def _greedy(source: Source, costs: Costs, rule: Ranked, budget: Budget, key: int | None, reach: float) -> Chosen:
    units, limit, quantum = limit_of(budget, costs)
    if limit < 0:
        source = source.added()
        return Chosen(_nothing(source.vector), source)
    if isinstance(rule, LayerwiseTopK):
        source = source.added()
        fill = isinstance(budget, Joules | Bytes) and budget.fill
        ranking, found = longest_by_layer(source.vector, costs.layout.offsets, units, limit, fill)
    else:
        ranking, found, source = _longest(source, rank(source.vector, costs, rule, key), units, limit, reach)
    indices, values, spent = found.indices, found.values, found.spent
    if isinstance(budget, Joules | Bytes) and budget.fill:
        indices, spent = filled(ranking, units, limit, found)
        values = source.vector[indices]
    certificate = certified(source.vector, costs, rule, budget, found, values)
    promised = guaranteed_delta(costs, rule, budget, found, quantum)
    delta, variance = min(1.0, mass(values, 2) / found.squares) if found.squares else 1.0, None
    if isinstance(rule, RandomK) and rule.scale:
        variance = np.count_nonzero(source.vector) / indices.size - 1.0 if indices.size else float(found.squares > 0)
    if isinstance(rule, RandomK) and rule.scale and indices.size:
        scale = np.count_nonzero(source.vector) / indices.size
        values = _finite(values * np.float64(scale), indices, costs.layout)
        delta = _delta(source.vector, indices, values, found.squares)
    energy = spent * quantum if isinstance(budget, Joules) else energy_of(costs, indices)
    selection = Selection(source.vector.size, indices, values, energy, certificate, delta, promised, variance)
    return Chosen(selection, source, found.misfit is None)


def _longest(
    source: Source, ranking: Ranking, units: Int64, limit: int, reach: float
) -> tuple[Ranking, Prefix, Source]:
    """The longest prefix, from the top of the order where it is known and enough; with the ranking of the sum."""
    if source.listed is not None and source.listed.is_of(ranking) and ranking.per_tensor(units):
        found = prefix_of(source.listed, units, limit)
        if found is not None:
            return ranking, found, source
    found, listed = listed_prefix(ranking, units, limit, reach, source.carry)
    source = replace(source.summed(), listed=listed)
    return replace(ranking, a=source.vector), found, source


def _nothing(vector: Vector) -> Selection:
    """Not even what is paid for any reply fits."""
    bad = first_not_finite(vector)
    if bad is not None:
        raise NotFinite(bad)
    delta = 0.0 if vector.any() else 1.0
    return Selection(vector.size, np.empty(0, np.uint32), np.empty(0, np.float32), 0.0, None, delta)


def _above(source: Source, costs: Costs, rule: Ranked, budget: Price | Threshold) -> Selection:
    weights, exponent = weights_of(costs, rule)
    # a^2/c >= v is |a|/sqrt(c) >= sqrt(v): the threshold is on the score that the kernel knows.
    value = math.sqrt(budget.value) if rule.norm == 2 else budget.value
    with np.errstate(over="ignore"):  # Infinity, which no score reaches.
        threshold = float(np.ldexp(value * (1 - 2.0**-48), -exponent))
    ranking = Ranking(source.vector, costs.layout.offsets, weights)
    indices, values, squares = at_least(ranking, threshold, source.carry)
    # Scores are products with a rounded weight: at the threshold the quotient itself decides.
    worth = np.abs(values, dtype=np.float64) ** (rule.norm or 1)
    if isinstance(budget, Price):
        worth /= ranking.spread(costs.per_kept, indices)
    indices, values = indices[worth >= budget.value], values[worth >= budget.value]
    delta = min(1.0, mass(values, 2) / squares) if squares else 1.0
    return Selection(source.vector.size, indices, values, energy_of(costs, indices), None, delta)


def _everything(vector: Vector, costs: Costs) -> Selection:
    bad = first_not_finite(vector)
    if bad is not None:
        raise NotFinite(bad)
    indices = np.arange(vector.size, dtype=np.uint32)
    return Selection(vector.size, indices, vector.copy(), energy_of(costs, indices), None, 1.0)


def _least_variance(vector: Vector, costs: Costs, budget: Budget, key: int) -> Selection:
    by_energy = isinstance(budget, Joules)
    per_kept = costs.per_kept if by_energy else np.ones(len(costs.layout.tensors))
    ranking = Ranking(vector, costs.layout.offsets, 1.0 / np.sqrt(per_kept))
    drawn = draw(ranking, per_kept, _expected_limit(budget, costs), key)
    values = _finite(drawn.values, drawn.indices, costs.layout)
    delta = _delta(vector, drawn.indices, values, drawn.squares)
    variance = drawn.error / drawn.squares if drawn.squares else 0.0
    return Selection(vector.size, drawn.indices, values, energy_of(costs, drawn.indices), None, delta, None, variance)


def _expected_limit(budget: Budget, costs: Costs) -> float:
    if isinstance(budget, Joules):
        return budget.room(costs.fixed)
    return float(limit_of(budget, costs)[1])


def _finite(values: Floats, indices: Indices, layout: Layout) -> Vector:
    with np.errstate(over="ignore"):
        sent = values.astype(np.float32)
    if not np.isfinite(sent).all():
        index = int(indices[np.flatnonzero(~np.isfinite(sent))[0]])
        raise UpdateError(
            f"unbiased scaling sends more than float32 holds in tensor {layout.name_of(index)!r}; take a larger budget"
        )
    return sent


def _delta(vector: Vector, indices: Indices, values: Vector, squares: float) -> float:
    if squares == 0.0:
        return 1.0
    kept = vector[indices].astype(np.float64)
    lost = kept - values
    # The sum of all squares is one of float32 numbers, and may end a hair below that of the kept ones.
    return min(1.0, float((np.square(kept).sum() - np.square(lost).sum()) / squares))
