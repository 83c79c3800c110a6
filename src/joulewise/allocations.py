"""How a fleet's joules are divided among its clients, as records that a TOML file decodes into."""

from __future__ import annotations

import math
from typing import Literal

import msgspec

from joulewise import courses
from joulewise.courses import Course
from joulewise.errors import RuleError

Counts = Literal["uplink", "both"]
"""What a budget counts: what masks cost their senders; or also what all receivers pay for the coordinates that at
least one mask keeps, each once, as a sparse downlink sends them."""

MOST_J = 1e100
"""Budgets of many rounds can be added up without overflow."""


class EqualCount(
    msgspec.Struct, frozen=True, tag_field="name", tag="EqualCount", forbid_unknown_fields=True, repr_omit_defaults=True
):
    """Every client keeps the same share of its coordinates, whatever that costs it.

    Args:
        share: density of every client.
        course: how that changes over the run; None: every round the same.
    """

    share: float
    course: Course | None = None

    def __post_init__(self) -> None:
        _between("EqualCount(share)", self.share)
        _check_course(self)


class EqualJoules(
    msgspec.Struct,
    frozen=True,
    tag_field="name",
    tag="EqualJoules",
    forbid_unknown_fields=True,
    repr_omit_defaults=True,
):
    """Every client may spend the same energy; what one cannot use goes to the others in equal parts.

    Args:
        budget_j: energy of all masks of a round together, in the unit of the costs.
        share: the same as a share of what it costs that all clients of the round send everything; with
            ``counts="both"`` that all send and all receive everything.
        counts: what the budget counts, ``uplink`` or ``both``; ``both`` needs a share. What a client may spend is its
            uplink in any case.
        course: how the budget changes over the run; None: every round the same.
    """

    budget_j: float | None = None
    share: float | None = None
    counts: Counts = "uplink"
    course: Course | None = None

    def __post_init__(self) -> None:
        _one_budget(self, self.budget_j, self.share)
        _check_course(self)


class OnePrice(
    msgspec.Struct, frozen=True, tag_field="name", tag="OnePrice", forbid_unknown_fields=True, repr_omit_defaults=True
):
    """A joule has one price for all clients: each keeps what is worth more to the average than that.

    Args:
        budget_j: energy of all masks of a round together, in the unit of the costs.
        share: the same as a share of what it costs that all clients of the round send everything; with
            ``counts="both"`` that all send and all receive everything.
        control: what fixes the price. ``curves``: the clients' energy-price curves, of this round or of an earlier
            one; every client may spend what its curve says, and the sum is the budget. ``asked``: the same with curves
            of this round, for which each client is asked before it sends anything else: two messages more.
            ``ascent``: what clients wanted to spend at the last price; nobody sends a curve, and what is left of a
            round's budget goes to the next.
        step: with ascent, the price is multiplied by ``(wanted / target)^step`` after each round, and by less where
            that went too far before.
        least_share: each client may spend at least this share of an equal part of the budget, whatever it is worth.
        counts: what the budget and the price count, ``uplink`` or ``both``; ``both`` needs curves and a share. What a
            client may spend is its uplink in any case.
        course: how the budget changes over the run; None: every round the same.
    """

    budget_j: float | None = None
    share: float | None = None
    control: Literal["curves", "asked", "ascent"] = "curves"
    step: float = 0.5
    least_share: float = 0.0
    counts: Counts = "uplink"
    course: Course | None = None

    def __post_init__(self) -> None:
        _one_budget(self, self.budget_j, self.share)
        _between("OnePrice(step)", self.step)
        if not 0 <= self.least_share <= 1:
            raise RuleError(
                f"OnePrice(least_share) must be between 0 and 1, but is {self.least_share}: the floors of all clients "
                "would exceed the budget"
            )
        if self.counts == "both" and self.control == "ascent":
            raise RuleError(
                "OnePrice(counts='both') needs the clients' curves to tell what receivers will pay, but control is "
                "'ascent'; use control='curves' or 'asked', or counts='uplink'"
            )
        _check_course(self)


Allocation = EqualCount | EqualJoules | OnePrice


def over(allocation: Allocation, rounds: int) -> Allocation:
    """The allocation of a run of so many rounds, which its course need not say itself.

    Raises:
        RuleError: its course has fewer rounds, or gives a round a share above 1.

    Example:
        >>> over(EqualCount(0.01, courses.Falling()), 30).course
        Falling(rounds=30)
    """
    if allocation.course is None:
        return allocation
    return msgspec.structs.replace(allocation, course=courses.over(allocation.course, rounds))


def of_round(allocation: Allocation, number: int) -> Allocation:
    """The allocation as it is in one round: with what its course gives that one, and without a course.

    Args:
        allocation: of the run.
        number: of the round, from 0.

    Raises:
        RuleError: the course does not know how many rounds there are, or this one is beyond the last.

    Example:
        >>> of_round(EqualJoules(budget_j=7.0, course=courses.Rising(ratio=4.0, rounds=3)), 2)
        EqualJoules(budget_j=11.99...)
    """
    if allocation.course is None:
        return allocation
    part = allocation.course.part(number)
    amounts = {"share": allocation.share, "budget_j": getattr(allocation, "budget_j", None)}
    given = {name: part * amount for name, amount in amounts.items() if amount is not None}
    return msgspec.structs.replace(allocation, course=None, **given)


def rounds_like_the_next(allocation: Allocation, rounds: int) -> float:
    """How many rounds like the next one cost what the budgets of the first `rounds` were; even ones after the last.

    Example:
        >>> rounds_like_the_next(OnePrice(budget_j=7.0), 3)
        3
        >>> round(rounds_like_the_next(OnePrice(budget_j=7.0, course=courses.Falling(ratio=4.0, rounds=3)), 2), 9)
        6.0
    """
    course = allocation.course
    if course is None:
        return rounds
    so_far = math.fsum(course.part(number) for number in range(rounds))
    return so_far / course.part(rounds) if course.rounds is not None and rounds < course.rounds else so_far


def _check_course(allocation: Allocation) -> None:
    """Refuse what a course over known rounds raises out of range in its largest round."""
    course = allocation.course
    if course is None or course.rounds is None:
        return
    number = 0 if isinstance(course, courses.Falling) else course.rounds - 1
    for name, most in (("share", 1.0), ("budget_j", MOST_J)):
        amount = getattr(allocation, name, None) or 0.0
        if course.part(number) * amount > most:
            raise RuleError(
                f"{type(allocation).__name__}({name}) is {amount}, of which the course gives round {number + 1} "
                f"{course.part(number) * amount:.4g}, more than {most:g}; lower it, or the ratio of the course"
            )


def _between(name: str, value: float) -> None:
    if not 0 < value <= 1:
        raise RuleError(f"{name} must be above 0 and at most 1, but is {value}")


def _one_budget(allocation: EqualJoules | OnePrice, budget_j: float | None, share: float | None) -> None:
    name = type(allocation).__name__
    if (budget_j is None) == (share is None):
        raise RuleError(f"{name} needs one of budget_j and share, but has budget_j={budget_j} and share={share}")
    if share is not None:
        _between(f"{name}(share)", share)
    elif budget_j is not None and not 0 < budget_j <= MOST_J:
        raise RuleError(f"{name}(budget_j) must be finite and above 0, at most {MOST_J:g}, but is {budget_j}")
    elif allocation.counts == "both":
        raise RuleError(
            f"{name}(counts='both') has budget_j={budget_j}, but before the first round nobody knows what receiving "
            "costs, so that it would not bound that round; use share, or counts='uplink'"
        )
