"""What a study file may choose for an arm: settings one by one, as defaults of every arm, and as lists."""

from __future__ import annotations

from typing import Annotated, Literal

import msgspec
from msgspec import Meta

from joulewise.compress import EF21, ErrorFeedback, Feedback
from joulewise.fleetfile import Devices
from joulewise.flower.choice import StrategyChoice
from joulewise.learning import Partition
from joulewise.rounding import ValueType
from joulewise.rules import Budget, Rule
from joulewise.schedules import Schedule

Positive = Annotated[int, Meta(ge=1, le=10**9)]
Seed = Annotated[int, Meta(ge=0, lt=2**32)]
FeedbackChoice = ErrorFeedback | Literal["EF21", "ErrorFeedback"] | bool
"""`ErrorFeedback`, which true and its name stand for; `EF21`, which has no settings, by its name; or false for none."""


class Part(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A table of a study file."""


class Choice(Part, frozen=True, omit_defaults=True):
    """What sets an arm apart; what is left out is as in the rest of the study.

    Args:
        rule: what to rank coordinates by.
        budget: where to stop.
        values: how kept values are written.
        feedback: error feedback, EF21, or False for none.
        strategy: how the server averages.
        devices: as in `Fleet`.
        schedule: as in `Fleet`.
        partition: how the examples are dealt out to the clients.
        learning_rate: as in `Training`.
        local_epochs: as in `Training`.
    """

    rule: Rule | None = None
    budget: Budget | None = None
    values: ValueType | None = None
    feedback: FeedbackChoice | None = None
    strategy: StrategyChoice | None = None
    devices: Devices | None = None
    schedule: Schedule | None = None
    partition: Partition | None = None
    learning_rate: Annotated[float, Meta(gt=0)] | None = None
    local_epochs: Positive | None = None


class Defaults(Part, frozen=True, omit_defaults=True):
    """How every arm compresses, where it does not say otherwise."""

    rule: Rule | None = None
    budget: Budget | None = None
    values: ValueType = "float32"
    feedback: FeedbackChoice = False


class Grid(Part, frozen=True, omit_defaults=True):
    """Lists of alternatives for the settings of a `Choice`: the arms are their product."""

    rule: tuple[Rule, ...] = ()
    budget: tuple[Budget, ...] = ()
    values: tuple[ValueType, ...] = ()
    feedback: tuple[FeedbackChoice, ...] = ()
    strategy: tuple[StrategyChoice, ...] = ()
    devices: tuple[Devices, ...] = ()
    schedule: tuple[Schedule, ...] = ()
    partition: tuple[Partition, ...] = ()
    learning_rate: tuple[Annotated[float, Meta(gt=0)], ...] = ()
    local_epochs: tuple[Positive, ...] = ()


def feedback_of(choice: FeedbackChoice) -> Feedback | None:
    """What a choice stands for.

    Example:
        >>> feedback_of(True) == ErrorFeedback(), feedback_of("EF21"), feedback_of(False)
        (True, EF21(), None)
    """
    if isinstance(choice, ErrorFeedback):
        return choice
    return EF21() if choice == "EF21" else ErrorFeedback() if choice else None
