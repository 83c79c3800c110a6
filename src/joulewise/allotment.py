"""How joules are divided among clients: at one price of a joule, in equal parts, or in proportion."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from joulewise.curves import Curve
from joulewise.curvetable import Table, scales_of, value_of, within
from joulewise.errors import RuleError

Floats = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True, eq=False)
class Allotment:
    """What each client may spend at one price of a joule.

    Args:
        price: weighted value that the last joule buys, ``p_k^p |a|^p / c``; 0 where the budget buys everything.
        energies_j: float64[K]; their sum is never above the budget, and is the budget where the curves allow it.
        value: weighted value that the clients keep for it, as their curves say.
        bound: weighted value that no division of the budget exceeds, as their curves say.
    """

    price: float
    energies_j: Floats
    value: float
    bound: float


def one_price(
    curves: Sequence[Curve],
    weights: Sequence[float],
    exponent: int,
    budget_j: float,
    floors_j: Sequence[float] | None = None,
) -> Allotment:
    """Divide a budget so that the last joule of every client buys as much: the optimum of the relaxed problem.

    Minimises ``sum_k p_k^p ||a_k - m_k a_k||_p^p`` under ``sum_k E_k(m_k) <= B`` with m in [0, 1]: client k keeps what
    is worth ``v / p_k^p`` per joule, and the budget fixes v (docs/theory.md, "One price for a fleet").

    Args:
        curves: of each client, in one unit of energy.
        weights: p_k, shares of the clients in the average; 0 for one that has no say.
        exponent: p: 1 for CWMP, 2 for Projection.
        budget_j: B, of all masks together.
        floors_j: what each client gets at least, as far as it has anything to send.

    Returns:
        The price, what each client may spend, and value and bound by the curves.

    Raises:
        RuleError: weights, floors or the budget are negative or not finite, or floors exceed the budget.

    Example:
        >>> cheap, dear = (Curve(np.array([8.0, 1.0]) / c, np.array([1.0, 64.0]) * c) for c in (1.0, 4.0))
        >>> found = one_price([cheap, dear], [0.5, 0.5], 1, budget_j=32.0)
        >>> found.energies_j.round(2).tolist(), round(found.price, 3)
        ([25.6, 6.4], 0.791)
    """
    floors = _floors(floors_j, len(curves), budget_j)
    scales = scales_of(weights, len(curves)) ** exponent
    table = Table.of(curves, scales)
    least = np.minimum(floors, table.everything)
    if math.fsum(table.everything) <= budget_j:
        value = value_of(curves, scales, table.everything)
        return Allotment(0.0, table.everything, value, value)
    at, energies = table.reaching(budget_j, least)
    value = value_of(curves, scales, energies)
    if least.any():
        at, free = table.reaching(budget_j, np.zeros_like(least))
        return Allotment(math.exp(-at), energies, value, max(value, value_of(curves, scales, free)))
    return Allotment(math.exp(-at), energies, value, value)


def _floors(floors_j: Sequence[float] | None, clients: int, budget_j: float) -> Floats:
    if not 0 <= budget_j < math.inf:
        raise RuleError(f"budget_j is {budget_j}, expected a finite number of at least 0")
    found = np.zeros(clients) if floors_j is None else np.asarray(floors_j, np.float64)
    if found.shape != (clients,) or not ((found >= 0) & (found < math.inf)).all():
        raise RuleError(f"floors_j is {found.tolist()}, expected a finite number of at least 0 for each client")
    if math.fsum(found) > budget_j * (1 + 1e-12):
        raise RuleError(
            f"floors_j sum to {math.fsum(found)}, but the budget is {budget_j}; lower the floors or raise the budget"
        )
    return found


# ---------------------------------------------------------------- without curves


def equal_parts(total: float, ceilings: Sequence[float]) -> Floats:
    """Equal parts of a total, none above its ceiling: what a client cannot use goes to the others in equal parts.

    Example:
        >>> equal_parts(9.0, [1.0, 100.0, 100.0]).tolist()
        [1.0, 4.0, 4.0]
    """
    most = np.asarray(ceilings, np.float64)
    parts, left = np.zeros(most.size), total
    for number, client in enumerate(np.argsort(most, kind="stable").tolist()):
        parts[client] = min(most[client], left / (most.size - number))
        left = max(0.0, left - parts[client])
    return within(parts, total)


def in_proportion(total: float, wants: Sequence[float], floors: Sequence[float]) -> Floats:
    """Parts of a total in proportion to what is wanted, none below its floor; equal ones where nothing is wanted.

    Example:
        >>> in_proportion(10.0, [8.0, 8.0, 0.0], [0.0, 0.0, 2.0]).tolist()
        [4.0, 4.0, 2.0]
    """
    wanted, least = np.asarray(wants, np.float64), np.asarray(floors, np.float64)
    if math.fsum(least) >= total:
        return within(least, total)
    if not wanted.any():
        return within(least + (total - math.fsum(least)) / max(1, least.size), total)
    floored = np.zeros(least.size, np.bool_)
    while True:
        most = float(wanted[~floored].max(initial=0.0))
        # Parts of the most that is wanted: their sum is from 1 on, whatever the size of the numbers.
        parts = np.where(floored, 0.0, wanted) / (most or 1.0)
        room = total - math.fsum(least[floored])
        parts = parts * (room / parts.sum() if most > 0 else 0.0)
        below = ~floored & (parts < least)
        if not below.any():
            return within(np.where(floored, least, parts), total)
        floored |= below
