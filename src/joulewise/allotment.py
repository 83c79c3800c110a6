"""How joules are divided among clients: at one price of a joule, in equal parts, or in proportion."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from joulewise.curves import Curve
from joulewise.errors import RuleError

Floats = npt.NDArray[np.float64]

STEPS = 200
"""Of bisection at most, of which float64 needs about sixty."""


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
    scales = _scales(weights, len(curves)) ** exponent
    table = _Table.of(curves, scales)
    least = np.minimum(floors, table.everything)
    if math.fsum(table.everything) <= budget_j:
        value = _value(curves, scales, table.everything)
        return Allotment(0.0, table.everything, value, value)
    at, energies = table.reaching(budget_j, least)
    value = _value(curves, scales, energies)
    if least.any():
        at, free = table.reaching(budget_j, np.zeros_like(least))
        return Allotment(math.exp(-at), energies, value, max(value, _value(curves, scales, free)))
    return Allotment(math.exp(-at), energies, value, value)


@dataclass(frozen=True, slots=True, eq=False)
class _Table:
    """Curves of all clients side by side, in logarithms, padded with their last point."""

    x: Floats
    """float64[K, m], rising: minus the logarithm of the weighted price; infinite beyond the last point."""
    y: Floats
    """float64[K, m], logarithm of the energy."""
    everything: Floats
    """float64[K], energy of all that there is; 0 for a client without points or without weight."""

    @classmethod
    def of(cls, curves: Sequence[Curve], scales: Floats) -> _Table:
        longest = max((each.prices.size for each in curves), default=0)
        x, y = np.full((len(curves), longest + 1), np.inf), np.full((len(curves), longest + 1), -np.inf)
        for row, (curve, scale) in enumerate(zip(curves, scales.tolist(), strict=True)):
            if curve.prices.size and scale > 0:
                x[row, : curve.prices.size] = -np.log(curve.prices) - math.log(scale)
                y[row] = math.log(curve.energies_j[-1])
                y[row, : curve.prices.size] = np.log(curve.energies_j)
        everything = [c.energies_j[-1] if c.prices.size and s > 0 else 0.0 for c, s in zip(curves, scales, strict=True)]
        return cls(x, y, np.array(everything, np.float64))

    def at(self, x: float) -> Floats:
        """Energy of each client at a common price: float64[K]."""
        passed = (self.x <= x).sum(axis=1)
        rows, before = np.arange(passed.size), np.maximum(passed - 1, 0)
        left, right = self.x[rows, before], self.x[rows, before + 1]
        with np.errstate(invalid="ignore"):
            share = np.where(np.isfinite(right), (x - left) / (right - left), 0.0)
        low, high = self.y[rows, before], self.y[rows, before + 1]
        with np.errstate(invalid="ignore"):
            found = np.where(np.isfinite(right), np.exp(low + share * (high - low)), self.everything)
        return np.asarray(np.where(passed > 0, found, 0.0), dtype=np.float64)

    def reaching(self, budget_j: float, least: Floats) -> tuple[float, Floats]:
        """Where the energies meet the budget, which must not buy everything; each client has at least `least`."""
        finite = self.x[np.isfinite(self.x)]
        low, high = float(finite.min()) - 1.0, float(finite.max())
        for _ in range(STEPS):
            middle = 0.5 * (low + high)
            if not low < middle < high:
                break
            low, high = (middle, high) if self._spent(middle, least) <= budget_j else (low, middle)
        less, more = np.maximum(self.at(low), least), np.maximum(self.at(high), least)
        # Many coordinates may be worth exactly the price: as large a part of them as the budget buys.
        between = math.fsum(more) - math.fsum(less)
        share = min(1.0, max(0.0, (budget_j - math.fsum(less)) / between)) if between > 0 else 0.0
        return high, within(less + share * (more - less), budget_j)

    def _spent(self, x: float, least: Floats) -> float:
        return math.fsum(np.maximum(self.at(x), least))


def _scales(weights: Sequence[float], clients: int) -> Floats:
    found = np.asarray(weights, np.float64)
    wrong = np.flatnonzero(~((found >= 0) & (found < math.inf)))
    if found.shape != (clients,) or wrong.size or (clients and not found.any()):
        shown = f"{found[wrong[0]]} at client {wrong[0]}" if wrong.size else f"{found.tolist()} for {clients} clients"
        raise RuleError(f"weights are {shown}, expected one finite number of at least 0 for each, not all of them 0")
    return found


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


def _value(curves: Sequence[Curve], scales: Floats, energies: Floats) -> float:
    each = zip(curves, scales.tolist(), energies.tolist(), strict=True)
    return math.fsum(scale * curve.value_at(energy) for curve, scale, energy in each)


def within(parts: Floats, total: float) -> Floats:
    """The parts, made smaller by what rounding put their sum above the total."""
    while parts.size and math.fsum(parts) > total:
        parts = np.nextafter(parts * min(1.0, total / math.fsum(parts)), 0.0)
    return parts


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
