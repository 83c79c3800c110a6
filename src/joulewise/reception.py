"""What masks cost both ways: their uplinks, and what all receivers pay for the coordinates that any of them keeps."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]

STEPS = 100
"""Of bisection at most."""
MOST_ALIKE = 1e6
"""Masks that lie within each other, as far as anybody can tell."""
LEAST_ALIKE = 1e-9
"""Below this masks are as good as independent, and powers would be lost in rounding."""
EXACT = 30.0
"""Exponents up to which powers less 1 are summed up as such; beyond, 1 is lost in them."""


@dataclass(frozen=True, slots=True, eq=False)
class Reception:
    """The energy of a round with a sparse downlink, as a function of what each client's mask costs its sender.

    Client k whose mask costs e_k keeps the share ``q_k = e_k / dense_k`` of its coordinates, which is exact where all
    of them cost it the same. A receiver is sent those that anybody keeps, each of them once: all but the share u that
    nobody keeps. So a round costs ::

        T(e)  =  sum_k e_k + receiving (1 - u),      u^-h - 1  =  sum_k ((1 - q_k)^-h - 1)

    This is Clayton's copula of the chances 1 - q_k, which follows where coordinates differ in how likely any client is
    to keep them, by a gamma law of variance h. With h = 0 masks are independent, ``u = prod_k (1 - q_k)``; as h grows
    they come to lie within each other, ``u = min_k (1 - q_k)``.

    Args:
        dense_j: float64[K], what sending everything costs each client, above 0.
        receiving_j: what it costs all receivers together to receive and write every coordinate.
        likeness: h, how alike masks are; from 0 to `MOST_ALIKE`.

    Example:
        >>> both = Reception(np.array([10.0, 100.0]), receiving_j=40.0)
        >>> energies = np.array([1.0, 50.0])
        >>> round(both.union(energies), 9), round(both.total_j(energies), 9)
        (0.55, 73.0)
        >>> round(Reception(np.array([10.0, 100.0]), 40.0, likeness=1.0).union(energies), 9)
        0.526315789
    """

    dense_j: Floats
    receiving_j: float
    likeness: float = 0.0

    def union(self, energies_j: Floats) -> float:
        """Share of the coordinates that at least one client keeps."""
        return union_of(np.minimum(1.0, energies_j / self.dense_j), self.likeness)

    def downlink_j(self, energies_j: Floats) -> float:
        """What receivers pay for what these masks keep together."""
        return self.receiving_j * self.union(energies_j)

    def total_j(self, energies_j: Floats) -> float:
        """Both ways."""
        return math.fsum((*energies_j.tolist(), self.downlink_j(energies_j)))

    def again(self, energies_j: Floats, overlap: float) -> Reception:
        """With the likeness at which the union of these masks is `overlap` times that of independent ones.

        The sparser masks are, the more alike they are by this measure; what their union is of that of independent
        ones hardly changes.
        """
        densities = np.minimum(1.0, energies_j / self.dense_j)
        return replace(self, likeness=likeness_of(densities, overlap * union_of(densities)))

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


def union_of(densities: Floats, likeness: float = 0.0) -> float:
    """Share of the coordinates that at least one client keeps, see `Reception`.

    Args:
        densities: float64[K], share that each client keeps, 0 to 1.
        likeness: how alike masks are.
    """
    with np.errstate(divide="ignore"):
        logs = -np.log1p(-densities)
    if not logs.size or logs.max() == math.inf:
        return float(logs.size > 0)
    if likeness < LEAST_ALIKE:
        return -math.expm1(-math.fsum(logs.tolist()))
    powers = likeness * logs
    if (most := float(powers.max())) < EXACT:
        return -math.expm1(-math.log1p(math.fsum(np.expm1(powers).tolist())) / likeness)
    total = math.fsum(np.exp(powers - most).tolist()) - (powers.size - 1) * math.exp(-most)
    return -math.expm1(-(most + math.log(total)) / likeness)


def likeness_of(densities: Floats, union: float) -> float:
    """How alike masks are whose union has been seen: 0 where it is at least that of independent ones.

    Args:
        densities: float64[K], share that each client has kept.
        union: share of the coordinates that at least one has kept.

    Example:
        >>> kept = np.array([0.1, 0.2, 0.3])
        >>> [round(likeness_of(kept, union_of(kept, each)), 6) for each in (0.0, 2.0)], likeness_of(kept, 0.2)
        ([0.0, 2.0], 1000000.0)
    """
    if union >= union_of(densities):
        return 0.0
    low, high = 0.0, MOST_ALIKE
    for _ in range(STEPS):
        middle = 0.5 * (low + high)
        if not low < middle < high:
            break
        low, high = (middle, high) if union_of(densities, middle) > union else (low, middle)
    return high
