"""Fit laws of magnitudes to a recorded update, and say how far each law is off."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal, get_args

import msgspec
import numpy as np
import numpy.typing as npt

from joulewise.costs import Costs
from joulewise.errors import ArgumentError, UpdateError
from joulewise.expectation import Kept, predict
from joulewise.laws import Floats, Law
from joulewise.layout import Layout, Vector
from joulewise.ranking import first_not_finite
from joulewise.rules import CWMP, Budget, Density, Projection, Rule, TopK
from joulewise.scaled_laws import LAWS
from joulewise.select import Selection, checked_vector, not_finite, select

LawName = Literal["quantiles", "normal", "laplace", "generalised-normal", "student-t"]

DENSITIES = (0.005, 0.01, 0.02, 0.05, 0.1, 0.2)
"""At which a fit is held against its own update."""
BUDGETS = tuple(map(Density, DENSITIES))
BADLY = 0.05
"""A relative error of a share of mass, or a share of misplaced coordinates, beyond which a law is said to fit badly."""
LEVELS = (np.arange(256) + 0.5) / 256
"""Quantiles at which the distance between a law and the magnitudes is looked for."""


class Error(msgspec.Struct, frozen=True):
    """What a law predicted, and what was really selected.

    Args:
        rule: that selected.
        budget: that it had.
        predicted: what the law said.
        realised: what was kept.
        misplaced: share of the kept coordinates that the law expected in other tensors.
    """

    rule: Rule
    budget: Budget
    predicted: Kept
    realised: Kept
    misplaced: float

    def relative(self, what: Literal["coordinates", "energy", "l1", "l2"]) -> float:
        """``predicted / realised - 1`` of one of the things that are kept; 0 where nothing was kept."""
        realised = float(getattr(self.realised, what))
        return float(getattr(self.predicted, what)) / realised - 1.0 if realised else 0.0


@dataclass(frozen=True, slots=True, eq=False)
class Fit:
    """A law that was fitted to an update, with its own errors beside it.

    Args:
        name: of the law.
        law: of the magnitudes of each tensor.
        layout: the tensors.
        distance: float64[tensors], how well each tensor fits: the largest difference between the shares of its
            coordinates beyond a magnitude, by the law and in the update (Kolmogorov and Smirnov's distance, at 256
            quantiles); 0 is perfect.
        errors: of TopK at 0.5 to 20 % kept, on the same update.
        notes: in words, where the law fits badly; none where it does not.
    """

    name: LawName
    law: Law
    layout: Layout
    distance: Floats
    errors: tuple[Error, ...]
    notes: tuple[str, ...]

    @property
    def fits(self) -> bool:
        """Whether shares of mass and places are right within 5 % at every density that was looked at."""
        return not self.notes


def fit(update: Any, layout: Layout, law: LawName = "quantiles") -> Fit:
    """Fit a law of magnitudes to each tensor of a recorded update.

    The quantile law stores 126 magnitudes of each tensor and needs no assumption; the others are a scale and a shape
    beside a point mass at zero, fitted by moments, and need scipy (``joulewise[theory]``).

    Args:
        update: float32[n], one recorded update.
        layout: its tensors.
        law: which one; `fit` with each of them tells by `errors` which to take.

    Returns:
        The fitted law, its distance from each tensor, its errors on this update, and notes where it fits badly.

    Raises:
        UpdateError: the update has another length, holds NaN or infinity, or is zero everywhere.
        ArgumentError: there is no such law.
        MissingExtra: the law needs scipy, which is not installed.

    Example:
        >>> rng = np.random.default_rng(0)
        >>> layout = Layout.of({"a": np.ones(20000), "b": np.ones(5000)})
        >>> update = np.concatenate([rng.laplace(size=20000), 0.1 * rng.laplace(size=5000)])
        >>> fit(update, layout).fits, fit(update, layout, "laplace").fits, fit(update, layout, "normal").fits
        (True, True, False)
        >>> fit(update, layout, "normal").notes[0]
        'the normal law fits badly: at 0.5 % kept its L2 share is off by -51.0 % and 0.0 % of the places'
    """
    families: dict[str, Any] = {family.name: family for family in LAWS}
    if law not in families:
        raise ArgumentError(f"law is {law!r}, expected one of: {', '.join(get_args(LawName))}")
    vector = _checked(update, layout)
    tensors = [vector[start:stop] for _, start, stop in layout.spans()]
    fitted: Law = families[law].of(tensors)
    flat = Costs.of(1.0, layout, unit="relative")
    found = tuple(errors(fitted, vector, flat, (TopK(),), BUDGETS))
    return Fit(law, fitted, layout, _distances(fitted, tensors), found, tuple(_notes(law, found)))


def errors(
    law: Law,
    update: Vector,
    costs: Costs,
    rules: Sequence[Rule] = (TopK(), CWMP(), Projection()),
    budgets: Sequence[Budget] = BUDGETS,
) -> Iterator[Error]:
    """Hold a law against an update: the one that it was fitted to, or a later one of the same client.

    Pairs that do not keep anything of the update are left out.

    Args:
        law: of magnitudes.
        update: float32[n].
        costs: prices, one per tensor.
        rules: deterministic ones.
        budgets: that each of them takes.
    """
    whole = np.array([float((np.abs(update, dtype=np.float64) ** norm).sum()) for norm in (1, 2)])
    for rule in rules:
        for budget in budgets:
            kept = select(update, costs, rule, budget)
            if not kept.indices.size:
                continue
            predicted = predict(law, costs, rule, budget)
            counts = costs.layout.counts(kept.indices)
            misplaced = np.abs(counts - np.array(predicted.counts)).sum() / 2.0 / kept.indices.size
            yield Error(rule, budget, predicted.kept, realised(kept, costs, whole), float(misplaced))


def realised(kept: Selection, costs: Costs, whole: Floats) -> Kept:
    """What a selection keeps; `whole` is the L1 and the squared L2 mass of its update."""
    magnitudes = np.abs(kept.values.astype(np.float64))
    energy = float(costs.per_kept @ costs.layout.counts(kept.indices))
    l1, l2 = float(magnitudes.sum() / whole[0]), float(np.square(magnitudes).sum() / whole[1])
    return Kept(float(kept.indices.size), energy, l1, l2)


def _checked(update: Any, layout: Layout) -> Vector:
    vector = checked_vector(update, layout, "update")
    bad = first_not_finite(vector)
    if bad is not None:
        raise not_finite(bad, layout)
    if not vector.any():
        raise UpdateError("the update is zero everywhere, so there is no law to fit; record one after training")
    return vector


def _distances(law: Law, tensors: Sequence[npt.NDArray[Any]]) -> Floats:
    """Of each tensor, the largest difference of shares beyond a magnitude, at `LEVELS` of what is not zero."""
    ordered = [np.sort(np.abs(each[each != 0])).astype(np.float64) for each in tensors]
    sizes = np.array([max(each.size, 1) for each in tensors], dtype=np.float64)
    found = np.zeros(len(tensors))
    for level in LEVELS:
        # A magnitude that is there, and the next larger number: a law that steps in between is seen on both sides.
        at = np.array([each[int(level * each.size)] if each.size else 1.0 for each in ordered])
        beyond = np.array(
            [each.size - np.searchsorted(each, one, "right") for each, one in zip(ordered, at, strict=True)]
        )
        found = np.maximum(found, np.abs(law.beyond(at, 0) - beyond) / sizes)
    return found


def _notes(law: str, found: Sequence[Error]) -> Iterator[str]:
    for each in found:
        share, misplaced = each.relative("l2"), each.misplaced
        if abs(share) > BADLY or misplaced > BADLY:
            assert isinstance(each.budget, Density)
            yield (
                f"the {law} law fits badly: at {100 * each.budget.fraction:g} % kept its L2 share is off by "
                f"{100 * share:+.1f} % and {100 * misplaced:.1f} % of the places"
            )
