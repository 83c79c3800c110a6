"""What a node sends and how: from the code of an app, overridden by the run, overridden by the node.

Flower hands every message the ``run_config`` of its run (``flwr run -c "joulewise.density=0.05"``) and the
``node_config`` of its node (``flower-supernode --node-config 'joulewise.device="phone-lte-2021"'``). Keys that begin
with ``joulewise.`` are read strictly: a slip of the pen is an error, not a setting that is left out.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from difflib import get_close_matches
from functools import lru_cache
from typing import Any, get_args

import msgspec
from flwr.app import Context

from joulewise.codec import VALUE_TYPES, ValueType
from joulewise.compress import EF21, Compressor, ErrorFeedback, Feedback
from joulewise.devices import Device, load_device, with_link
from joulewise.errors import JoulewiseError, ProfileError, RuleError, SettingError
from joulewise.flower.state import AbstractStore, ContextStore, FileStore
from joulewise.layout import Kind
from joulewise.prices import Boundary
from joulewise.recorder import Recorder
from joulewise.residency import flash_of
from joulewise.rules import Bytes, Count, Dense, Density, Joules, Price, Rule, Threshold

PREFIX = "joulewise."
RULES: dict[str, type[Rule]] = {rule.__name__: rule for rule in get_args(Rule)}
BUDGETS = frozenset({"density", "count", "joules", "bytes", "price", "threshold"})
FEEDBACK = ErrorFeedback.__struct_fields__


@dataclass(frozen=True, slots=True)
class Settings:
    """Everything that `Sparsify` goes by at one node.

    Args:
        devices: whose prices: one for all nodes, or one per ``partition-id``; empty where nobody said.
        compressor: rule, budget, value type and feedback.
        boundary: what a joule takes in.
        local: patterns of tensors that stay on the client.
        kinds: kind by tensor name or pattern.
        seed: of random rules.
        store: where the client's state lies.
        multiply_accumulates: of training on one example, for the ledger.
        record: keeps updates that were asked for; None for none.
        link: factors on what a bit costs, by round and partition; empty for none.
    """

    devices: tuple[str, ...]
    compressor: Compressor
    boundary: Boundary
    local: tuple[str, ...]
    kinds: tuple[tuple[str, Kind], ...]
    seed: int
    store: AbstractStore
    multiply_accumulates: float | None
    record: Recorder | None = None
    link: tuple[tuple[float, ...], ...] = ()

    @property
    def all_kinds(self) -> dict[str, Kind]:
        """Kinds with those of local tensors, which come first."""
        patterns: dict[str, Kind] = dict.fromkeys(self.local, "local")
        return patterns | {name: kind for name, kind in self.kinds if name not in patterns}

    @property
    def in_flash(self) -> bool:
        """Whether a node's weights may lie in flash, so that it matters which of them a received model changes."""
        memories = [loaded(name).memory for name in self.devices]
        return any(memory is not None and flash_of(memory) is not None for memory in memories)

    def device(self, partition: int, number: int) -> Device:
        """The device of a partition in a round.

        Raises:
            SettingError: nobody said which.
            ProfileError: there are several, but none for this partition.
        """
        if not self.devices:
            raise SettingError(
                "no device is known, whose prices are asked for; give Sparsify(device=...), or joulewise.device in the "
                "run config or node config"
            )
        if len(self.devices) > 1 and partition >= len(self.devices):
            raise ProfileError(
                f"device names {len(self.devices)} devices, but this node has partition-id {partition}; "
                "give one device, or one for each partition"
            )
        device = loaded(self.devices[partition if len(self.devices) > 1 else 0])
        return with_link(device, self.link[number - 1][partition]) if self.link else device

    def at(self, context: Context) -> Settings:
        """These settings as the run and the node of a context change them.

        Raises:
            SettingError: a key or a value is wrong; the sentence names the key as typed.
        """
        found = self
        for where, config in (("run config", context.run_config), ("node config", context.node_config)):
            own = tuple((key, value) for key, value in config.items() if key.startswith(PREFIX))
            if own:
                found = _overridden(found, where, own)
        return found


@lru_cache(maxsize=64)
def loaded(name: str) -> Device:
    """A device by name or path, read once in each process."""
    return load_device(name)


def _overridden(settings: Settings, where: str, own: tuple[tuple[str, Any], ...]) -> Settings:
    # With the type of each value: True, 1 and 1.0 are equal, and only one of them may be right.
    values = _parsed(where, tuple((key.removeprefix(PREFIX), value, type(value)) for key, value in own))
    parts = settings.compressor
    rule, budget = values.get("rule", parts.rule), values.get("budget", parts.budget)
    if isinstance(rule, Dense) and "budget" not in values:
        budget = None
    try:
        compressor = Compressor(rule, budget, values.get("values", parts.values), _feedback(parts, where, values))
    except RuleError as error:
        raise SettingError(f"{', '.join(f'{key}={value!r}' for key, value in own)} in the {where}: {error}") from None
    return replace(
        settings,
        compressor=compressor,
        devices=values.get("device", settings.devices),
        boundary=values.get("boundary", settings.boundary),
        local=values.get("local", settings.local),
        seed=values.get("seed", settings.seed),
        store=values.get("store", settings.store),
        multiply_accumulates=values.get("multiply-accumulates", settings.multiply_accumulates),
    )


@lru_cache(maxsize=256)  # The same in every message of a node.
def _parsed(where: str, own: tuple[tuple[str, Any, type], ...]) -> Mapping[str, Any]:
    values = {name: _read(where, name, value) for name, value, _ in own}
    amounts = sorted(name for name in values if name in BUDGETS)
    if len(amounts) > 1:
        first, second = (PREFIX + name for name in amounts[:2])
        raise SettingError(
            f"{first} and {second} are both set in the {where}, but a rule has one budget; leave one out"
        )
    return values | ({"budget": values[amounts[0]]} if amounts else {})


def _feedback(parts: Compressor, where: str, values: Mapping[str, Any]) -> Feedback | None:
    options = {name: values[f"feedback-{name}"] for name in FEEDBACK if f"feedback-{name}" in values}
    asked = values.get("feedback")
    if options and asked is False:
        raise SettingError(
            f"{PREFIX}feedback-{next(iter(options))} is set in the {where}, but {PREFIX}feedback is false there; "
            "leave one out"
        )
    before: Feedback | None = EF21() if asked == EF21.__name__ else parts.feedback
    if options and isinstance(before, EF21):
        raise SettingError(
            f"{PREFIX}feedback-{next(iter(options))} is set in the {where}, but EF21 has no settings; leave it out"
        )
    if asked is False or (before is None and not options and not asked):
        return None
    return msgspec.structs.replace(before or ErrorFeedback(), **options)


# ---------------------------------------------------------------- one value


def _read(where: str, name: str, value: Any) -> Any:
    if name not in KEYS:
        close = get_close_matches(name, KEYS, n=1)
        meant = f"did you mean {PREFIX}{close[0]}?" if close else f"known: {', '.join(PREFIX + key for key in KEYS)}"
        raise SettingError(f"there is no setting {PREFIX}{name} (in the {where}); {meant}")
    expected, read = KEYS[name]
    try:
        return read(value)
    except (TypeError, ValueError) as error:
        why = f" ({error})" if isinstance(error, JoulewiseError) else ""
        kind = {bool: "a truth value", str: "text"}.get(type(value), "a number")
        raise SettingError(f"{PREFIX}{name} in the {where} must be {expected}, but is {value!r}, {kind}{why}") from None


def _number(value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        raise TypeError
    return float(value)


def _whole(value: Any) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or value < 0:
        raise TypeError
    return value


def _truth(value: Any) -> bool:
    if not isinstance(value, bool):
        raise TypeError
    return value


def _truth_or_ef21(value: Any) -> bool | str:
    return EF21.__name__ if value == EF21.__name__ else _truth(value)


def _text(value: Any) -> str:
    if not isinstance(value, str) or not value.strip():
        raise TypeError
    return value.strip()


def _positive(value: Any) -> float:
    number = _number(value)
    if number <= 0:
        raise ValueError
    return number


def _one_of(known: Mapping[str, Any]) -> Callable[[Any], Any]:
    def read(value: Any) -> Any:
        return known[value] if value in known else _wrong()

    return read


def _wrong() -> None:
    raise ValueError


def _patterns(value: Any) -> tuple[str, ...]:
    if not isinstance(value, str):
        raise TypeError
    return tuple(part.strip() for part in value.split(",") if part.strip())


def _store(value: Any) -> AbstractStore:
    text = _text(value)
    return ContextStore() if text == "context" else FileStore(text)


_VALUES: dict[str, ValueType] = {kind: kind for kind in VALUE_TYPES}
_BOUNDARIES: dict[str, Boundary] = {kind: kind for kind in get_args(Boundary)}

KEYS: dict[str, tuple[str, Callable[[Any], Any]]] = {
    "device": ("the name of a device or the path of its file", lambda value: (_text(value),)),
    "rule": (f"one of {', '.join(RULES)}", _one_of({name: kind() for name, kind in RULES.items()})),
    "density": ("a number from 0 to 1", lambda value: Density(_number(value))),
    "count": ("a whole number of at least 0", lambda value: Count(_whole(value))),
    "joules": ("a number of at least 0", lambda value: Joules(_number(value))),
    "bytes": ("a whole number of at least 0", lambda value: Bytes(_whole(value))),
    "price": ("a number of at least 0", lambda value: Price(_number(value))),
    "threshold": ("a number of at least 0", lambda value: Threshold(_number(value))),
    "values": (f"one of {', '.join(VALUE_TYPES)}", _one_of(_VALUES)),
    "feedback": ('true, false or "EF21"', _truth_or_ef21),
    "feedback-decay": ("a number from 0 to 1", _number),
    "feedback-clip": ("a number above 0", _positive),
    "feedback-momentum": ("a number from 0 to below 1", _number),
    "feedback-masking": ("true or false", _truth),
    "boundary": (f"one of {', '.join(_BOUNDARIES)}", _one_of(_BOUNDARIES)),
    "local": ("names or patterns of tensors, with commas between them", _patterns),
    "store": ('"context" or a folder', _store),
    "seed": ("a whole number of at least 0", _whole),
    "multiply-accumulates": ("a number of at least 0", _number),
}
"""Every key after ``joulewise.``: what is expected, and how it is read."""
