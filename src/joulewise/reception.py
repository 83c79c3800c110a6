"""What masks cost both ways: their uplinks, and what all receivers pay for the coordinates that any of them keeps."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]

STEPS = 100
"""Of bisection at most."""


@dataclass(frozen=True, slots=True, eq=False)
class Reception:
    """The energy of a round with a sparse downlink, as a function of what each client's mask costs its sender.

    Client k whose mask costs e_k keeps the share ``q_k = e_k / dense_k`` of its coordinates, which is exact where all
    of them cost it the same. With masks independent, a receiver is sent the share ``1 - prod_k (1 - q_k)`` of all
    coordinates: those that anybody keeps, each of them once. So a round costs ::

        T(e)  =  sum_k e_k + receiving (1 - prod_k (1 - e_k / dense_k))

    Args:
        dense_j: float64[K], what sending everything costs each client, above 0.
        receiving_j: what it costs all receivers together to receive and write every coordinate.

    Example:
        >>> both = Reception(np.array([10.0, 100.0]), receiving_j=40.0)
        >>> energies = np.array([1.0, 50.0])
        >>> round(both.union(energies), 9), round(both.total_j(energies), 9)
        (0.55, 73.0)
    """

    dense_j: Floats
    receiving_j: float

    def union(self, energies_j: Floats) -> float:
        """Share of the coordinates that at least one client keeps."""
        densities = np.minimum(1.0, energies_j / self.dense_j)
        with np.errstate(divide="ignore"):
            return -math.expm1(math.fsum(np.log1p(-densities).tolist()))

    def downlink_j(self, energies_j: Floats) -> float:
        """What receivers pay for what these masks keep together."""
        return self.receiving_j * self.union(energies_j)

    def total_j(self, energies_j: Floats) -> float:
        """Both ways."""
        return math.fsum((*energies_j.tolist(), self.downlink_j(energies_j)))

    def within(self, energies_j: Floats, budget_j: float) -> Floats:
        """The energies, made smaller by what rounding put their total above the budget."""
        while energies_j.any() and (total := self.total_j(energies_j)) > budget_j:
            energies_j = np.maximum(0.0, np.nextafter(energies_j * min(1.0, budget_j / total), 0.0))
        return energies_j

    def raised(self, energies_j: Floats, budget_j: float) -> Floats:
        """Each client's energy and as much more for all, until the budget or everything is spent.

        From nothing: equal parts, none above what sending everything costs.

        Example:
            >>> both = Reception(np.array([1.0, 100.0]), receiving_j=8.0)
            >>> both.raised(np.zeros(2), 19.0).round(9).tolist()
            [1.0, 10.0]
        """
        low, high = 0.0, float(self.dense_j.max(initial=0.0))
        if self.total_j(self._more(energies_j, high)) <= budget_j:
            return self._more(energies_j, high)
        for _ in range(STEPS):
            middle = 0.5 * (low + high)
            if not low < middle < high:
                break
            fits = self.total_j(self._more(energies_j, middle)) <= budget_j
            low, high = (middle, high) if fits else (low, middle)
        return self.within(self._more(energies_j, low), budget_j)

    def between(self, less_j: Floats, more_j: Floats, budget_j: float) -> Floats:
        """As far from the first energies to the second as the budget goes; it must pay for the first."""
        low, high = 0.0, 1.0
        if self.total_j(more_j) <= budget_j:
            return more_j
        if self.total_j(less_j) >= budget_j * (1 - 1e-12):
            return self.within(less_j, budget_j)
        for _ in range(STEPS):
            middle = 0.5 * (low + high)
            if not low < middle < high:
                break
            fits = self.total_j(less_j + middle * (more_j - less_j)) <= budget_j
            low, high = (middle, high) if fits else (low, middle)
        return self.within(less_j + low * (more_j - less_j), budget_j)

    def _more(self, energies_j: Floats, each_j: float) -> Floats:
        return np.minimum(self.dense_j, energies_j + each_j)
