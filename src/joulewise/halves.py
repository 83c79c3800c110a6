"""At least half of the best selection, also where single coordinates are large beside the budget."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt

from joulewise.certificate import Certificate, energy_of, mass
from joulewise.costs import Costs
from joulewise.errors import RuleError
from joulewise.rules import CWMP, Joules, Projection
from joulewise.select import Selection, checked_vector, select


def half_approximation(a: Any, costs: Costs | npt.ArrayLike, rule: CWMP | Projection, budget: Joules) -> Selection:
    """Keep the greedy prefix or the single best coordinate that fits, whichever holds more: at least half the optimum.

    A greedy prefix alone can be as bad as one likes: a small coordinate with a good ratio can keep a large one out. The
    prefix and the first coordinate that does not fit hold at least the relaxed optimum together, so the better of the
    two holds half of it (S. Martello and P. Toth, "Knapsack Problems", Wiley 1990, section 2.4). With millions of small
    coordinates `select` is as good; where prices are those of whole rows or blocks it is not.

    Args:
        a: float32[n], the update.
        costs: prices; or float64[n], one price in joules per coordinate.
        rule: which mass is wanted: L1 with CWMP, squared L2 with Projection.
        budget: energy that may be spent.

    Returns:
        The selection; its certificate's `ratio` is at least 1/2, less what exact sums round prices up by.

    Raises:
        RuleError: the rule has no value per joule, or the budget is none of joules.
        UpdateError: `a` has another length, or holds NaN or infinity.

    Example:
        >>> a, costs = np.array([1.0, 9.0], np.float32), np.array([1.0, 10.0])
        >>> select(a, costs, CWMP(), Joules(10.0)).indices.tolist()
        [0]
        >>> kept = half_approximation(a, costs, CWMP(), Joules(10.0))
        >>> kept.indices.tolist(), round(kept.certificate.ratio, 3)
        ([1], 0.989)
    """
    norm = getattr(rule, "norm", None)
    if norm is None or type(budget) is not Joules:
        raise RuleError(
            f"half_approximation is given {type(rule).__name__} with {type(budget).__name__}, expected CWMP or "
            "Projection with Joules, which have a value per joule; use select for the others"
        )
    costs = costs if isinstance(costs, Costs) else Costs.of(np.asarray(costs, np.float64))
    vector = checked_vector(a, costs.layout)
    room = budget.room(costs.fixed)
    fits = np.repeat(costs.per_kept <= room, 1 if costs.per_coordinate else costs.layout.sizes)
    # What does not fit alone is in no selection; left in, it would end the prefix, raise the bound, and make the
    # quantum coarse in which energies are summed.
    affordable = np.where(np.isfinite(vector) & ~fits, np.float32(0), vector)
    if costs.per_kept.size:
        costs = replace(costs, per_kept=np.minimum(costs.per_kept, max(room, float(costs.per_kept.min()))))
    greedy = select(affordable, costs, rule, budget)
    if greedy.certificate is None:
        return replace(greedy, delta=0.0 if vector.any() else 1.0)
    best = np.array([np.argmax(np.abs(affordable))], np.uint32) if vector.size else greedy.indices
    value = mass(affordable[best], norm)
    if value > greedy.certificate.value:
        found = Certificate(value, max(value, greedy.certificate.bound))
        greedy = replace(greedy, indices=best, values=vector[best], spent=energy_of(costs, best), certificate=found)
    squares = mass(vector, 2)
    return replace(greedy, delta=mass(greedy.values, 2) / squares if squares else 1.0, guaranteed_delta=None)
