"""What a rule is expected to keep under a budget, when magnitudes follow a law: sums of tail moments over tensors.

A coordinate of tensor g is kept where its score ``|a| w_g`` exceeds tau, that is, where its magnitude exceeds
``t_g = tau / w_g``. Counts, energy, bytes and masses are sums over tensors of the law's moments beyond t_g; a budget
fixes tau, because each of them falls as tau rises.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple

import msgspec
import numpy as np

from joulewise.costs import Costs
from joulewise.errors import CostError, RuleError, UpdateError
from joulewise.laws import Floats, Law
from joulewise.rules import (
    Budget,
    Bytes,
    Count,
    Dense,
    Density,
    Joules,
    MinVariance,
    Price,
    RandomK,
    Rule,
    Threshold,
    check_pair,
)

Amount = Literal["count", "energy", "bits", "l1", "l2"]
"""What a threshold can be asked to meet; masses as shares of the whole."""

STEPS = 300
"""Of bisection at most: float64 has about a thousand powers of two, and each has 52 bits."""


class Kept(msgspec.Struct, frozen=True):
    """What a rule keeps.

    Args:
        coordinates: how many; not whole where it is an expectation.
        energy: what keeping them costs, in the unit of the prices.
        l1: kept share of the sum of magnitudes.
        l2: kept share of the sum of squares.
    """

    coordinates: float
    energy: float
    l1: float
    l2: float


class Predicted(msgspec.Struct, frozen=True, kw_only=True):
    """What a rule is expected to keep under a budget.

    Args:
        rule: that ranks.
        budget: that ends the ranking.
        threshold: on the score ``|a| w``, with w the rule's weight; for MinVariance ``1 / lambda``. None where there is
            none: for Dense and RandomK, and where nothing is kept.
        kept: expected count, energy and shares of mass of the coordinates that are kept.
        payload_bytes: their encoded bits as the costs estimate them, in bytes.
        counts: expected number kept of each tensor.
        variance: of unbiased rules, ``E ||C(a) - a||^2 / ||a||^2``; None for the others.
        energy_variance: ``V = sum c^2 q (1 - q)`` with q the chance that a coordinate is kept at this threshold; None
            for RandomK, whose inclusions are not independent.
    """

    rule: Rule
    budget: Budget | None
    threshold: float | None
    kept: Kept
    payload_bytes: float
    counts: tuple[float, ...]
    variance: float | None
    energy_variance: float | None


def predict(law: Law, costs: Costs, rule: Rule, budget: Budget | None = None) -> Predicted:
    """Predict what `select` keeps, before there is an update to select from.

    Filling the rest of a budget is left out: it spends less than the price of the first coordinate that did not fit,
    which buys many where others are far cheaper. Where many magnitudes are equal the threshold falls among them, and as
    many of each tensor count as meet the budget.

    Args:
        law: of magnitudes, as `joulewise.theory.fit` gives it.
        costs: prices, one per tensor.
        rule: what to rank by.
        budget: where to stop; None for Dense.

    Raises:
        RuleError: rule and budget do not go together.
        CostError: there are prices for each coordinate, or for another number of tensors than the law knows.

    Example:
        >>> from joulewise.layout import Layout
        >>> from joulewise.rules import CWMP
        >>> from joulewise.scaled_laws import Laplace
        >>> costs = Costs.of(np.array([1.0, 2.0]), Layout.of({"a": np.ones(1000), "b": np.ones(1000)}))
        >>> law = Laplace(np.array([1000.0, 1000.0]), np.array([1.0, 1.0]))
        >>> found = predict(law, costs, CWMP(), Joules(300))
        >>> round(found.kept.coordinates), round(found.kept.energy), [round(each) for each in found.counts]
        (255, 300, [211, 45])
    """
    check_pair(rule, budget)
    outlook = Outlook(law, costs, rule, by_count=isinstance(budget, Count | Density))
    if isinstance(rule, Dense) or budget is None:
        return _predicted(outlook, budget, None, outlook.everything)
    if isinstance(budget, Price | Threshold):
        threshold = math.sqrt(budget.value) if getattr(rule, "norm", None) == 2 else budget.value
        return _predicted(outlook, budget, threshold, outlook.at(threshold))
    return _predicted(outlook, budget, *outlook.reaching(*limit(budget, costs)))


class Sums(NamedTuple):
    """Expected sums over the coordinates that are kept, by tensor: float64[tensors] each.

    Args:
        counts: how many.
        l1: their magnitudes.
        l2: their squares.
        error: squares of what an unbiased rule adds or leaves out.
    """

    counts: Floats
    l1: Floats
    l2: Floats
    error: Floats

    def mixed(self, other: Sums, share: float) -> Sums:
        """So much of these, and the rest of the others."""
        if share == 1:  # exactly these: infinite parts of the others do not matter
            return self
        return Sums(*(share * one + (1 - share) * two for one, two in zip(self, other, strict=True)))


@dataclass(frozen=True, eq=False)
class Outlook:
    """A law, prices and a rule: expected sums as functions of the rule's threshold.

    Args:
        law: of magnitudes.
        costs: prices, one per tensor.
        rule: what to rank by.

    Raises:
        CostError: there are prices for each coordinate, or for another number of tensors than the law knows.
    """

    law: Law
    costs: Costs
    rule: Rule
    by_count: bool = False
    """For MinVariance: chances in proportion to ``|a|`` alone, as with a budget that counts."""

    def __post_init__(self) -> None:
        tensors = len(self.costs.layout.tensors)
        if self.costs.per_coordinate or self.law.nonzero.size != tensors:
            raise CostError(
                f"costs has {self.costs.per_kept.size} prices for {tensors} tensors and the law describes "
                f"{self.law.nonzero.size} tensors, expected one price for each; price the layout that was fitted"
            )
        if not self._whole[0] > 0:
            raise UpdateError("the law is of an update that is zero everywhere, so nothing can be predicted")

    def at(self, threshold: float) -> Sums:
        """Expected sums at a threshold on the score.

        It is ``1 / lambda`` for MinVariance, and 1 over the share that is kept for RandomK.
        """
        if isinstance(self.rule, RandomK):
            return self._shared(1.0 / max(threshold, 1.0))
        if isinstance(self.rule, Dense):
            return self.everything
        with np.errstate(over="ignore", divide="ignore"):
            tails = threshold / self.weights
        beyond = self.law.moments(tails)
        if isinstance(self.rule, MinVariance):
            return self._chanced(tails, beyond)
        return Sums(*beyond, np.zeros_like(beyond[0]))

    @property
    def everything(self) -> Sums:
        """All coordinates; zeros too for Dense, which alone keeps them."""
        counts = self.costs.layout.sizes.astype(np.float64) if isinstance(self.rule, Dense) else self.law.nonzero
        return Sums(counts, self.law.total(1), self.law.total(2), np.zeros_like(counts))

    def reaching(self, what: Amount, amount: float) -> tuple[float | None, Sums]:
        """The threshold at which the expected amount is met, and the sums there; everything where it is not reached."""
        if amount <= 0:
            nothing = np.zeros_like(self.law.nonzero)
            return None, Sums(nothing, nothing, nothing, self.law.total(2))
        if amount >= self.amount(what, self.everything):
            return 0.0, self.everything
        low, high = bracketed(lambda threshold: self.amount(what, self.at(threshold)), amount)
        more, less = self.at(low), self.at(high)
        upper, lower = self.amount(what, more), self.amount(what, less)
        share = (amount - lower) / (upper - lower) if upper > lower else 1.0
        return high, more.mixed(less, min(1.0, max(0.0, share)))

    def amount(self, what: Amount, sums: Sums) -> float:
        """One of the things that sums tell."""
        match what:
            case "count":
                return float(sums.counts.sum())
            case "energy":
                return float(sums.counts @ self.costs.per_kept)
            case "bits":
                return float(sums.counts @ self.costs.bits_per_kept)
            case "l1":
                return float(sums.l1.sum()) / self._whole[0]
            case "l2":
                return float(sums.l2.sum()) / self._whole[1]

    def kept(self, sums: Sums) -> Kept:
        """The sums, in words."""
        count, energy = self.amount("count", sums), self.amount("energy", sums)
        return Kept(count, energy, self.amount("l1", sums), self.amount("l2", sums))

    def error(self, sums: Sums) -> float:
        """``E ||C(a) - a||^2 / ||a||^2`` of an unbiased rule."""
        return float(sums.error.sum()) / self._whole[1]

    @property
    def _whole(self) -> tuple[float, float]:
        return float(self.law.total(1).sum()), float(self.law.total(2).sum())

    @property
    def weights(self) -> Floats:
        """What magnitudes are multiplied by, by tensor."""
        if isinstance(self.rule, MinVariance):
            return np.ones_like(self.costs.per_kept) if self.by_count else 1.0 / np.sqrt(self.costs.per_kept)
        if isinstance(self.rule, Dense):
            raise RuleError("Dense has no threshold; leave the budget out")
        return self.rule.weights(self.costs.per_kept)

    def _shared(self, share: float) -> Sums:
        whole = self.law.total(2)
        error = whole * (1.0 / share - 1.0) if share else np.full_like(whole, math.inf)
        return Sums(self.law.nonzero * share, self.law.total(1) * share, whole * share, error)

    def _chanced(self, tails: Floats, beyond: Sequence[Floats]) -> Sums:
        """MinVariance: what exceeds t is certain, the rest is kept with chance ``|a|/t`` and sent as t."""
        first, second, third = (self.law.below(tails, power) for power in (1, 2, 3))
        with np.errstate(invalid="ignore", divide="ignore"):
            parts = [np.where(tails > 0, each / tails, 0.0) for each in (first, second, third)]
        counts, l1, l2 = (sure + part for sure, part in zip(beyond, parts, strict=True))
        # a^2 (1/q - 1) with q = |a|/t is |a| t - a^2.
        return Sums(counts, l1, l2, np.maximum(0.0, tails * first - second))


def bracketed(falling: Callable[[float], float], target: float) -> tuple[float, float]:
    """Neighbours between which a falling function of a positive number passes the target: above it, and not above."""
    low = high = 1.0
    while falling(low) <= target:
        low, high = low / 16.0, low
    while falling(high) > target:
        low, high = high, high * 16.0
    for _ in range(STEPS):
        middle = math.sqrt(low) * math.sqrt(high)
        if not low < middle < high:
            break
        low, high = (middle, high) if falling(middle) > target else (low, middle)
    return low, high


def limit(budget: Budget, costs: Costs) -> tuple[Amount, float]:
    """What a budget limits, and how much of it there may be."""
    match budget:
        case Count() | Density():
            return "count", float(budget.count(costs.layout.n))
        case Joules():
            return "energy", budget.room(costs.fixed)
        case Bytes():
            return "bits", 8.0 * budget.n
        case Price() | Threshold():
            raise RuleError(f"a {type(budget).__name__} budget is a threshold and has no limit")


def _spread(outlook: Outlook, threshold: float | None, sums: Sums) -> Floats:
    """``sum q (1 - q)`` of each tensor: by chance, or over updates drawn from the law."""
    if isinstance(outlook.rule, MinVariance) and threshold is not None:
        # q = |a|/t below t, so that q (1 - q) is the squared error a^2 (1/q - 1) over t^2.
        tails = threshold / outlook.weights
        with np.errstate(invalid="ignore", divide="ignore"):
            return np.where(tails > 0, sums.error / tails**2, 0.0)
    chances = sums.counts / np.maximum(outlook.costs.layout.sizes, 1)
    return np.asarray(sums.counts * (1.0 - chances), dtype=np.float64)


def _predicted(outlook: Outlook, budget: Budget | None, threshold: float | None, sums: Sums) -> Predicted:
    rule, costs = outlook.rule, outlook.costs
    unbiased = isinstance(rule, MinVariance) or (isinstance(rule, RandomK) and rule.scale)
    variance = float(costs.per_kept**2 @ _spread(outlook, threshold, sums))
    return Predicted(
        rule=rule,
        budget=budget,
        threshold=None if isinstance(rule, Dense | RandomK) else threshold,
        kept=outlook.kept(sums),
        payload_bytes=outlook.amount("bits", sums) / 8.0,
        counts=tuple(sums.counts.tolist()),
        variance=outlook.error(sums) if unbiased else None,
        energy_variance=None if isinstance(rule, RandomK) else variance,
    )
