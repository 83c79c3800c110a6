"""What an arm is called, and what sets it apart from the others."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from joulewise.compress import EF21, Feedback
from joulewise.flower.app import Arm
from joulewise.results import Setting
from joulewise.rules import Budget, budget_text
from joulewise.studyfile import BUDGETS

BOUNDARY = "radio"
"""What the energies of a study take in: the marginal energy of the link and memory, see `joulewise.price`."""


def of(arms: Sequence[Arm]) -> tuple[str, ...]:
    """Short names of arms: rule and budget, and every other setting in which the arms differ."""
    every = [settings(arm) for arm in arms]
    shown = {"rule", "budget", "amount"}  # in every name anyway
    varying = [name for name in every[0] if name not in shown and len({own[name] for own in every}) > 1]
    return tuple(
        " ".join(
            part
            for part in (text(arm.compressor.rule), budget_text(arm.compressor.budget), *_extra(own, varying))
            if part
        )
        for arm, own in zip(arms, every, strict=True)
    )


def settings(arm: Arm) -> dict[str, Setting]:
    """What sets an arm apart, by name, for grouping rows: text, numbers and truth values only.

    ``budget`` is the kind (``density``, ``joules fill``) ``amount`` its number; both are None without one. ``schedule``
    is there where clients have batteries, ``precision`` where training is not in float32.
    """
    compressor, training = arm.compressor, arm.training
    budget = compressor.budget
    special: dict[str, Setting] = {"schedule": text(arm.supply.schedule)} if arm.supply.batteries else {}
    if training.precision != "float32":
        special["precision"] = training.precision
    own: dict[str, Setting] = {
        "rule": text(compressor.rule),
        "budget": None if budget is None else _kind(budget),
        "amount": None if budget is None else _amount(budget),
        "values": compressor.values if isinstance(compressor.values, str) else " ".join(compressor.values),
        "feedback": _feedback(compressor.feedback),
        "strategy": text(arm.strategy),
        "devices": _devices_text(arm.devices),
        "partition": text(arm.data.partition),
        "data": type(arm.data).__name__,
        "examples": arm.data.examples,
        "clients": arm.data.clients,
        "classes": arm.data.classes,
        "model": text(arm.model),
        "learning_rate": training.learning_rate,
        "local_epochs": training.local_epochs,
        "batch_size": training.batch_size,
        "momentum": training.momentum,
        "weight_decay": training.weight_decay,
        "boundary": BOUNDARY,
    }
    return own | special


def _feedback(feedback: Feedback | None) -> Setting:
    if feedback is None or isinstance(feedback, EF21):
        return feedback is not None and "EF21"
    return " ".join(_arguments(feedback)) or True


def _kind(budget: Budget) -> str:
    flags = [name for name in ("includes_fixed", "fill") if getattr(budget, name, False)]
    return " ".join([type(budget).__name__.lower(), *flags])


def _amount(budget: Budget) -> float:
    _, field = BUDGETS[type(budget).__name__.lower()]
    amount: float = getattr(budget, field)
    return amount


def text(record: msgspec.Struct) -> str:
    """The name of a record, with what differs from its defaults.

    Example:
        >>> from joulewise.rules import CWMP, RandomK
        >>> text(CWMP()), text(RandomK(scale=True))
        ('CWMP', 'RandomK scale=True')
    """
    name = getattr(record, "name", type(record).__name__)
    return " ".join([name, *_arguments(record)])


def _arguments(record: msgspec.Struct) -> list[str]:
    fields = msgspec.structs.fields(record)
    own = {part.name: getattr(record, part.name) for part in fields if part.name != "name"}
    own.update(own.pop("options", {}))
    defaults = {part.name: part.default for part in fields}
    given = {name: value for name, value in own.items() if value != defaults.get(name, msgspec.NODEFAULT)}
    return [f"{name}={_nested(value)}" for name, value in given.items()]


def _nested(value: object) -> str:
    """A value; of a record its name, with what differs from its defaults in brackets."""
    if not isinstance(value, msgspec.Struct):
        return str(value)
    arguments = ", ".join(_arguments(value))
    name = getattr(value, "name", type(value).__name__)
    return f"{name}({arguments})" if arguments else name


def _devices_text(devices: Sequence[str]) -> str:
    counts = {name: devices.count(name) for name in dict.fromkeys(devices)}
    if len(counts) == 1:
        return devices[0]
    return ", ".join(f"{count} {name}" for name, count in counts.items())


def _extra(own: dict[str, Setting], varying: Sequence[str]) -> list[str]:
    truths = {True: "{}", False: "no {}"}
    return [
        truths[value].format(name) if isinstance(value := own[name], bool) else f"{name}={value}" for name in varying
    ]
