"""One exact greedy over the updates of all clients: what a fleet's budget buys, and what no masks within it exceed."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from joulewise.certificate import Certificate, energy_of
from joulewise.costs import Costs, Term
from joulewise.errors import RuleError
from joulewise.layout import Layout, Vector
from joulewise.rules import CWMP, Joules, Projection
from joulewise.select import Selection, checked_vector, select

Floats = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True, eq=False)
class Pooled:
    """Masks of all clients, chosen together.

    Args:
        certificate: weighted value that is kept, ``sum_k p_k^p ||m_k a_k||_p^p``, and what no masks within the budget
            exceed.
        price: weighted value per joule of the first coordinate that did not fit; 0 where everything fits.
        masks: of each client, its kept coordinates.
        energies_j: float64[K], what they cost.
    """

    certificate: Certificate
    price: float
    masks: tuple[Selection, ...]
    energies_j: Floats


def pooled(
    updates: Sequence[Any],
    costs: Sequence[Costs],
    weights: Sequence[float],
    rule: CWMP | Projection,
    budget_j: float,
) -> Pooled:
    """Choose the masks of all clients at one place: every update is there, weighted, and one greedy takes what is best.

    What a federation cannot do, for no one place has the updates; what its divisions are held against. The bound is the
    dual one, ``v B + sum_k sum_i max(0, p_k^p |a_ki|^p - v c_ki)``, which holds for every price v >= 0, at the price
    where the order was cut.

    Args:
        updates: float32[n_k] of each client.
        costs: prices of each client's device, in one unit.
        weights: p_k, shares of the clients in the average.
        rule: whose value is wanted.
        budget_j: of all masks together.

    Raises:
        RuleError: the rule has no value per joule, there is another number of costs or weights than of updates, a
            weight is not above 0, or units differ.
        UpdateError: an update has the wrong length, or holds NaN or infinity.

    Example:
        >>> updates = [np.array([4.0, 1.0], np.float32), np.array([4.0, 3.0], np.float32)]
        >>> found = pooled(updates, [Costs.of(np.ones(2)), Costs.of(np.full(2, 2.0))], [0.5, 0.5], CWMP(), 3.0)
        >>> [mask.indices.tolist() for mask in found.masks], found.certificate, found.price
        ([[0], [0]], Certificate(value=4.0, bound=4.0), 0.75)
    """
    norm = _checked(updates, costs, weights, rule)
    vectors = [checked_vector(a, each.layout) for a, each in zip(updates, costs, strict=True)]
    scale = max(weights, default=1.0)
    every = [vector * np.float32(weight / scale) for vector, weight in zip(vectors, weights, strict=True)]
    together = _together(costs)
    kept = select(np.concatenate([np.empty(0, np.float32), *every]), together, rule, Joules(budget_j))
    ends = np.cumsum([0, *(vector.size for vector in vectors)])
    cuts = np.searchsorted(kept.indices, ends)
    masks, worths, energies, price = [], [], [], 0.0
    for client, vector in enumerate(vectors):
        indices = (kept.indices[cuts[client] : cuts[client + 1]] - ends[client]).astype(np.uint32)
        masks.append(Selection(vector.size, indices, vector[indices]))
        energies.append(energy_of(costs[client], indices))
        worth, each = _worth(vector, costs[client], weights[client], norm)
        worths.append((worth, each))
        out = np.ones(vector.size, np.bool_)
        out[indices] = False
        price = max(price, float((worth[out] / each[out]).max(initial=0.0)))
    value = math.fsum(float(worth[mask.indices].sum()) for (worth, _), mask in zip(worths, masks, strict=True))
    above = math.fsum(float(np.maximum(0.0, worth - price * each).sum()) for worth, each in worths)
    bound = max(value, above + price * budget_j)
    return Pooled(Certificate(value, bound), price, tuple(masks), np.array(energies))


def _worth(vector: Vector, costs: Costs, weight: float, norm: int) -> tuple[Floats, Floats]:
    """Weighted values and prices of a client's coordinates: float64[n] each."""
    magnitudes = np.abs(vector, dtype=np.float64) * weight
    return np.square(magnitudes) if norm == 2 else magnitudes, _each(costs)


def _checked(updates: Sequence[Any], costs: Sequence[Costs], weights: Sequence[float], rule: Any) -> int:
    norm = getattr(rule, "norm", None)
    if norm is None:
        raise RuleError(f"pooled is given {type(rule).__name__}, expected CWMP or Projection: a value per joule")
    if not len(updates) == len(costs) == len(weights):
        raise RuleError(
            f"there are {len(updates)} updates, {len(costs)} costs and {len(weights)} weights, expected as many of each"
        )
    wrong = [f"{weight} of client {k}" for k, weight in enumerate(weights) if not 0 < weight < math.inf]
    if wrong:
        raise RuleError(f"a weight is {wrong[0]}, expected a finite number above 0; leave clients without weight out")
    units = sorted({each.unit for each in costs})
    if len(units) > 1:
        raise RuleError(f"costs are in {' and '.join(units)}, expected one unit; price all clients in joules")
    return int(norm)


def _together(costs: Sequence[Costs]) -> Costs:
    """The prices of all clients, one after another."""
    unit = costs[0].unit if costs else "J"
    if any(each.per_coordinate for each in costs):
        return Costs.of(np.concatenate([_each(each) for each in costs]), unit=unit)
    tensors = tuple(
        replace(tensor, name=f"{client}/{tensor.name}")
        for client, each in enumerate(costs)
        for tensor in each.layout.tensors
    )
    per_kept = np.concatenate([np.empty(0), *(each.per_kept for each in costs)])
    # Given to Costs.of, as many prices as there are coordinates may be either's.
    plain = Costs.of(1.0, Layout(tensors), unit)
    return replace(plain, per_kept=per_kept, terms=(Term("given", per_kept, np.zeros(len(tensors))),))


def _each(costs: Costs) -> Floats:
    """Price of each coordinate: float64[n]."""
    return costs.per_kept if costs.per_coordinate else np.repeat(costs.per_kept, costs.layout.sizes)
