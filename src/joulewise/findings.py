"""What the statistics of a study find, as records: chosen arms, primary comparisons, hypervolumes."""

from __future__ import annotations

from typing import Literal

import msgspec

from joulewise.pareto import Difference, Interval
from joulewise.questions import Measure


class Candidate(msgspec.Struct, frozen=True, kw_only=True):
    """An arm among which one is chosen; its accuracy is None where it has not finished every selection seed."""

    arm: str
    accuracy: Interval | None


class Chosen(msgspec.Struct, frozen=True, kw_only=True):
    """The arm with the best mean final accuracy on the selection seeds.

    Args:
        arm: its name; None where no candidate has finished every selection seed.
        candidates: among which it was chosen.
        seeds: the selection seeds.
    """

    arm: str | None
    candidates: tuple[Candidate, ...]
    seeds: tuple[int, ...]


class Reference(msgspec.Struct, frozen=True, kw_only=True):
    """The point from which hypervolumes are measured, on linear axes.

    Args:
        energy: mean total uplink energy of `arm`.
        arm: Dense, or the dearest arm of a study without it.
        accuracy: that of guessing, one over the number of classes.
    """

    energy: float
    arm: str
    accuracy: float


class Volume(msgspec.Struct, frozen=True, kw_only=True):
    """How much of the plane the arms of a rule beat together.

    Args:
        rule: the rule.
        arms: how many of its arms are complete; the others do not count.
        of: how many arms of it have rows.
        share: of the rectangle between the reference and full accuracy for no energy, seed by seed.
        more: how much more than TopK with equally many arms, all complete; None for TopK itself, or where that is not
            so.
    """

    rule: str
    arms: int
    of: int
    share: Interval
    more: Difference | None


class Answer(msgspec.Struct, frozen=True, kw_only=True):
    """One primary comparison.

    Args:
        name: what the study calls it.
        measure: what is compared.
        arm: one side.
        against: the other side.
        seeds: how many seeds both sides have finished.
        missing: seeds named beforehand that a side has not finished, or on which it has no value.
        reached: in how many of the seeds each side reaches the accuracy; None for other measures.
        signs: seeds in which the arm has less, in which it has more, and of which neither is known.
        difference: of shares, `arm` minus `against`; of energies and bytes the ratio, a geometric mean. None where
            a seed is missing or does not reach the accuracy.
        test: ``t``: paired, of energies and bytes on logarithms; ``sign``: where a seed does not reach the accuracy,
            or all differ by the same. None where no claim is made.
        p: two-sided p-value; None without a test.
        adjusted: the same by Holm over all primary comparisons, those without a test counted as 1.
        ended_early: runs of either side that ended before they spent the energy at which accuracies are compared.
        lacking: arms of either side without which there is no hypervolume of that side: they have no finished rounds,
            or not all of them.
    """

    name: str
    measure: Measure
    arm: str
    against: str
    seeds: int
    missing: tuple[int, ...] = ()
    reached: tuple[int, int] | None = None
    signs: tuple[int, int, int] = (0, 0, 0)
    difference: Interval | None = None
    test: Literal["t", "sign"] | None = None
    p: float | None = None
    adjusted: float = 1.0
    ended_early: int = 0
    lacking: int = 0
