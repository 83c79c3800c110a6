"""What a study file may choose for an arm: settings one by one, as defaults of every arm, and as lists."""

from __future__ import annotations

from typing import Annotated

import msgspec
from msgspec import Meta

from joulewise.compress import ErrorFeedback
from joulewise.fleetfile import Devices
from joulewise.flower.choice import StrategyChoice
from joulewise.learning import Partition
from joulewise.rounding import ValueType
from joulewise.rules import Budget, Rule
from joulewise.schedules import Schedule

Positive = Annotated[int, Meta(ge=1, le=10**9)]
Seed = Annotated[int, Meta(ge=0, lt=2**32)]


class Part(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A table of a study file."""


class Choice(Part, frozen=True, omit_defaults=True):
    """What sets an arm apart; what is left out is as in the rest of the study.

    Args:
        rule: what to rank coordinates by.
        budget: where to stop.
        values: how kept values are written.
        feedback: error feedback, or False for none.
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
    feedback: ErrorFeedback | bool | None = None
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
    feedback: ErrorFeedback | bool = False


class Grid(Part, frozen=True, omit_defaults=True):
    """Lists of alternatives for the settings of a `Choice`: the arms are their product."""

    rule: tuple[Rule, ...] = ()
    budget: tuple[Budget, ...] = ()
    values: tuple[ValueType, ...] = ()
    feedback: tuple[ErrorFeedback | bool, ...] = ()
    strategy: tuple[StrategyChoice, ...] = ()
    devices: tuple[Devices, ...] = ()
    schedule: tuple[Schedule, ...] = ()
    partition: tuple[Partition, ...] = ()
    learning_rate: tuple[Annotated[float, Meta(gt=0)], ...] = ()
    local_epochs: tuple[Positive, ...] = ()
