"""What one rule saves over another, expected of a law: at equal energy, equal count or equal mass."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal, get_args

import msgspec
import numpy as np

from joulewise.costs import Costs
from joulewise.errors import ArgumentError
from joulewise.expectation import Kept, Outlook, predict
from joulewise.laws import Law
from joulewise.rules import CWMP, Budget, Count, Density, Projection, Ranked, Rule, TopK
from joulewise.scaled_laws import scipy_special

Equal = Literal["energy", "count", "mass"]


class Saving(msgspec.Struct, frozen=True):
    """What a rule keeps, and what another one has to spend for the same mass.

    Args:
        rule: that is looked at.
        over: that it is held against.
        equal: what is the same for both.
        norm: of the mass that is compared: 1 for CWMP, else 2.
        mine: what the rule keeps.
        theirs: what the other keeps.
        same_mass_energy: energy at which the other keeps the rule's mass.
        saving: ``1 - mine.energy / same_mass_energy``; below 0 where the other needs less.
    """

    rule: Rule
    over: Rule
    equal: Equal
    norm: int
    mine: Kept
    theirs: Kept
    same_mass_energy: float
    saving: float

    @property
    def times(self) -> float:
        """How many times as much energy the other needs for the same mass."""
        return self.same_mass_energy / self.mine.energy if self.mine.energy else 1.0


def saving(
    law: Law,
    costs: Costs,
    rule: Rule,
    budget: Budget,
    over: Rule = TopK(),  # noqa: B008 (a frozen record)
    equal: Equal = "energy",
) -> Saving:
    """Predict what a rule saves over another one.

    Args:
        law: of magnitudes.
        costs: prices, one per tensor.
        rule: whose saving it is.
        budget: of the other one.
        over: the other one.
        equal: what the two have in common: the energy that they spend, the number that they keep, or the mass.

    Raises:
        RuleError: the other rule does not take the budget.
        ArgumentError: `equal` is none of the three.

    Example:
        >>> from joulewise.layout import Layout
        >>> from joulewise.scaled_laws import Laplace
        >>> costs = Costs.of(np.array([1.0, 4.0]), Layout.of({"a": np.ones(1000), "b": np.ones(1000)}))
        >>> law = Laplace(np.array([1000.0, 1000.0]), np.array([1.0, 1.0]))
        >>> round(saving(law, costs, CWMP(), Density(0.1)).saving, 3)
        0.35
        >>> round(saving(law, Costs.of(1.0, costs.layout), CWMP(), Density(0.1)).saving, 12)
        0.0
    """
    theirs = predict(law, costs, over, budget).kept
    mine = Outlook(law, costs, rule, isinstance(budget, Count | Density))
    other = Outlook(law, costs, over, isinstance(budget, Count | Density))
    return compared(mine, other, theirs, equal)


def compared(mine: Outlook, other: Outlook, theirs: Kept, equal: Equal) -> Saving:
    """The same, where what the other one keeps is known."""
    if equal not in get_args(Equal):
        raise ArgumentError(f"equal is {equal!r}, expected one of: {', '.join(get_args(Equal))}")
    norm = (mine.rule.norm if isinstance(mine.rule, Ranked) else None) or 2
    mass: Literal["l1", "l2"] = "l1" if norm == 1 else "l2"
    match equal:
        case "energy":
            _, sums = mine.reaching("energy", theirs.energy)
        case "count":
            _, sums = mine.reaching("count", theirs.coordinates)
        case "mass":
            _, sums = mine.reaching(mass, theirs.l1 if norm == 1 else theirs.l2)
    kept = mine.kept(sums)
    _, matched = other.reaching(mass, kept.l1 if norm == 1 else kept.l2)
    energy = other.amount("energy", matched)
    return Saving(mine.rule, other.rule, equal, norm, kept, theirs, energy, 1 - kept.energy / energy if energy else 0.0)


# ---------------------------------------------------------------- two prices


@dataclass(frozen=True, slots=True)
class TwoPrices:
    """Two price classes under one Laplace law, in closed form.

    A share f of the coordinates costs 1, the others cost r. In units of the law's scale, TopK at density p keeps what
    exceeds ``t = -log p`` and spends ``p (f + (1-f) r)`` for each coordinate of the model. The weighing rule keeps what
    exceeds u in the cheap class and ``u r^(1/norm)`` in the dear one. Masses beyond t are regularised incomplete gamma
    functions: ``Q(2, t) = (1 + t) exp(-t)`` of L1, ``Q(3, t) = (1 + t + t^2/2) exp(-t)`` of L2.

    Args:
        cheap: the share f, from 0 to 1.
        ratio: the price r of the dear ones, at least 1.

    Example:
        >>> two = TwoPrices(cheap=0.5, ratio=4.0)
        >>> round(two.saving(CWMP(), 2.0), 4), abs(round(TwoPrices(0.5, 1.0).saving(CWMP(), 2.0), 12))
        (0.4701, 0.0)
        >>> round(two.limit(CWMP(), density=0.1), 4)
        0.6703
    """

    cheap: float
    ratio: float

    def __post_init__(self) -> None:
        if not (0 <= self.cheap <= 1 and self.ratio >= 1):
            raise ArgumentError(
                f"TwoPrices has a cheap share of {self.cheap} and a ratio of {self.ratio}, expected a share from 0 "
                "to 1 and a ratio of at least 1"
            )

    def energy(self, rule: CWMP | Projection | TopK, threshold: float) -> float:
        """Energy for each coordinate of the model at a threshold of the cheap class."""
        near, far = self._tails(rule, threshold)
        return float(self.cheap * np.exp(-near) + (1 - self.cheap) * self.ratio * np.exp(-far))

    def mass(self, rule: CWMP | Projection | TopK, threshold: float, norm: int) -> float:
        """Kept share of the mass of a norm at a threshold of the cheap class."""
        special = _special()
        near, far = self._tails(rule, threshold)
        return float(
            self.cheap * special.gammaincc(norm + 1, near) + (1 - self.cheap) * special.gammaincc(norm + 1, far)
        )

    def saving(self, rule: CWMP | Projection, threshold: float) -> float:
        """``1 - E / E_topk`` at equal mass, in the norm that the rule maximises.

        TopK keeps the mass m at ``t = Q^-1(norm + 1, m)`` and spends ``exp(-t)`` times the mean price.
        """
        norm = rule.norm or 1
        tail = float(_special().gammainccinv(norm + 1, self.mass(rule, threshold, norm)))
        return 1.0 - self.energy(rule, threshold) / self.energy(TopK(), tail)

    def limit(self, rule: CWMP | Projection, density: float) -> float:
        """The saving at equal energy as the ratio grows without end.

        The cheap class costs nothing then: the rule keeps it whole, and of the dear one what TopK keeps, the share p.
        So it keeps the mass ``m = f + (1-f) Q(norm + 1, -log p)``, for which TopK needs the density
        ``p' = exp(-Q^-1(norm + 1, m))``: the saving goes to ``1 - p/p'``. That needs dear coordinates, f < 1: with one
        price nothing is saved.

        Args:
            rule: whose saving over TopK it is.
            density: p, above 0 and at most 1: TopK that keeps nothing has nothing to save.

        Raises:
            ArgumentError: the density is out of range.
        """
        if not 0 < density <= 1:
            raise ArgumentError(f"density is {density}, expected the share that TopK keeps, above 0 and at most 1")
        if self.cheap == 1:
            return 0.0
        special, norm = _special(), rule.norm or 1
        mass = self.cheap + (1 - self.cheap) * special.gammaincc(norm + 1, -np.log(density))
        return float(1.0 - density / np.exp(-special.gammainccinv(norm + 1, mass)))

    def _tails(self, rule: CWMP | Projection | TopK, threshold: float) -> tuple[float, float]:
        return threshold, threshold * (1.0 if rule.norm is None else self.ratio ** (1.0 / rule.norm))


def _special() -> Any:
    return scipy_special("the closed form for two prices")
