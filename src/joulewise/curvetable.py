"""Curves of all clients side by side: what they cost at one price, and where their sum meets a budget."""

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
class Table:
    """Curves of all clients side by side, in logarithms, padded with their last point."""

    x: Floats
    """float64[K, m], rising: minus the logarithm of the weighted price; infinite beyond the last point."""
    y: Floats
    """float64[K, m], logarithm of the energy."""
    everything: Floats
    """float64[K], energy of all that there is; 0 for a client without points or without weight."""

    @classmethod
    def of(cls, curves: Sequence[Curve], scales: Floats) -> Table:
        """Curves, with the prices of each times its weight in the power of the norm."""
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

    @property
    def span(self) -> tuple[float, float]:
        """From where nothing is kept to where everything is; there must be a curve with points."""
        finite = self.x[np.isfinite(self.x)]
        return float(finite.min()) - 1.0, float(finite.max())

    def dearer(self, ratios: Floats) -> Table:
        """The same energies where a joule buys so many times less at each point: float64[K, m], never falling."""
        return Table(self.x + np.log(ratios), self.y, self.everything)

    def reaching(self, budget_j: float, least: Floats) -> tuple[float, Floats]:
        """Where the energies meet the budget, which must not buy everything; each client has at least `least`."""
        low, high = self.span
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


def scales_of(weights: Sequence[float], clients: int) -> Floats:
    """The weights, checked: float64[K].

    Raises:
        RuleError: one is negative or not finite, there is another number of them, or all are 0.
    """
    found = np.asarray(weights, np.float64)
    wrong = np.flatnonzero(~((found >= 0) & (found < math.inf)))
    if found.shape != (clients,) or wrong.size or (clients and not found.any()):
        shown = f"{found[wrong[0]]} at client {wrong[0]}" if wrong.size else f"{found.tolist()} for {clients} clients"
        raise RuleError(f"weights are {shown}, expected one finite number of at least 0 for each, not all of them 0")
    return found


def value_of(curves: Sequence[Curve], scales: Floats, energies: Floats) -> float:
    """Weighted value that clients keep for these energies, as their curves say."""
    each = zip(curves, scales.tolist(), energies.tolist(), strict=True)
    return math.fsum(scale * curve.value_at(energy) for curve, scale, energy in each)


def within(parts: Floats, total: float) -> Floats:
    """The parts, made smaller by what rounding put their sum above the total."""
    while parts.size and math.fsum(parts) > total:
        parts = np.nextafter(parts * min(1.0, total / math.fsum(parts)), 0.0)
    return parts
