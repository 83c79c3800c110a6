"""The ``[fleet]`` of a study file: devices, batteries, and traces by round; what is wrong in it, by its key."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TypeAlias

import msgspec
import numpy as np

from joulewise.compress import Compressor
from joulewise.devices import load_device, with_link
from joulewise.errors import ProfileError, StudyError, TraceError
from joulewise.flower.charging import ByRound, Supply
from joulewise.pacing import Battery
from joulewise.rules import Dense, MinVariance
from joulewise.schedules import Even, Priced, Schedule
from joulewise.traces import Quantity, Trace, read_trace

Devices = str | dict[str, int]
EVERY = "every"
"""Stands for all devices that have no battery of their own in the table of batteries."""

TRACES: dict[str, Quantity] = {"recharge": "joules", "available": "available", "link": "factor"}
"""Keys of traces, and what those tell."""


class Told(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What a trace told when the study was loaded, so that a run does not depend on a file that may change.

    Args:
        file: where it stood, as the study file names it.
        values: numbers of each round.
        clients: whose they are; None where there is one for all.
    """

    file: str
    values: ByRound
    clients: tuple[int, ...] | None = None


TraceFile: TypeAlias = str | Told | None


class Fleet(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """The devices of the clients, and what these live on.

    Args:
        devices: number of clients by device, given to the partitions in this order; or one device for all.
        battery: of every client; or by device, where ``every`` stands for those that are not named. Joules.
        schedule: how a battery is spread over the rounds; `Even` where nothing is said.
        recharge: path of a trace of joules by which batteries are charged before each round.
        available: path of a trace of who can take part.
        link: path of a trace of factors on what a bit costs.
    """

    devices: Devices
    battery: dict[str, Battery] | None = None
    schedule: Schedule | None = None
    recharge: TraceFile = None
    available: TraceFile = None
    link: TraceFile = None


def with_traces(fleet: Fleet, folder: Path) -> Fleet:
    """The fleet with what its traces tell in the place of their paths.

    Args:
        fleet: of a study file.
        folder: what paths are relative to.

    Raises:
        StudyError: a trace cannot be read.
    """
    paths = {key: path for key in TRACES if isinstance(path := getattr(fleet, key), str)}
    return msgspec.structs.replace(fleet, **{key: _told(key, path, folder) for key, path in paths.items()})


def supply_of(
    fleet: Fleet, schedule: Schedule | None, devices: Sequence[str], rounds: int, compressor: Compressor
) -> Supply:
    """What the clients of an arm live on.

    Args:
        fleet: of the study; paths of traces that are still there are relative to the current folder.
        schedule: of the arm; None for the fleet's.
        devices: of each client.
        rounds: of the run.
        compressor: of the arm.

    Raises:
        StudyError: batteries, schedule, traces, devices and rule do not go together.
    """
    chosen, key = (fleet.schedule, "fleet.schedule") if schedule is None else (schedule, "schedule")
    _check_needs_battery(fleet, {key: chosen, "fleet.recharge": fleet.recharge})
    fleet = with_traces(fleet, Path())
    recharge, available, link = (
        _by_round(key, getattr(fleet, key), rounds, len(devices)) for key in ("recharge", "available", "link")
    )
    _check_link(link, devices)
    batteries = () if fleet.battery is None else _batteries(fleet.battery, devices)
    if batteries:
        _check_rule(compressor, key, chosen)
        _check_filled(batteries, recharge)
    return Supply(batteries, chosen or Even(), recharge, available, link)


def check_names(fleet: Fleet, devices: Iterable[str]) -> None:
    """Refuse batteries of devices that no arm of a study has.

    Raises:
        StudyError: there is one.
    """
    known = set(devices)
    unknown = sorted(set(fleet.battery or ()) - known - {EVERY})
    if unknown:
        raise StudyError(
            f"fleet.battery has a battery of {unknown[0]!r}, which no client has; name one of "
            f"{', '.join(sorted(known))}, or {EVERY} for all others"
        )


def assign(devices: Devices, clients: int) -> tuple[str, ...]:
    """The device of each client.

    Raises:
        StudyError: the devices do not add up to the clients, or count in different units.
        ProfileError: a device is unknown.
    """
    counts = {devices: clients} if isinstance(devices, str) else devices
    if sum(counts.values()) != clients:
        listed = ", ".join(f"{name} {count}" for name, count in counts.items()) or "none"
        raise StudyError(
            f"fleet.devices has {sum(counts.values())} devices ({listed}), but data.clients is {clients}; "
            "make the numbers of devices sum to the clients"
        )
    for name, count in counts.items():
        if count < 1:
            raise StudyError(f"fleet.devices has {count} of {name}, expected 1 or more; leave out what is not there")
    units = {name: load_device(name).unit for name in counts}
    if len(set(units.values())) > 1:
        listed = ", ".join(f"{name} in {unit}" for name, unit in units.items())
        raise StudyError(
            f"fleet.devices mixes units of account ({listed}), which cannot be added up; "
            "take devices of one unit, and compare the others in a study of their own"
        )
    return tuple(name for name, count in counts.items() for _ in range(count))


# ---------------------------------------------------------------- batteries


def _batteries(table: Mapping[str, Battery], devices: Sequence[str]) -> tuple[Battery, ...]:
    for name in dict.fromkeys(devices):
        if load_device(name).unit != "J":
            raise StudyError(
                f"fleet.battery holds joules, but {name} counts in relative units, which no battery can pay; take "
                "devices in joules, or leave the battery out"
            )
        if name not in table and EVERY not in table:
            raise StudyError(
                f"fleet.battery has none for {name}; add one, or add {EVERY} = {{ charge_j = ... }} for all others"
            )
    return tuple(table[name] if name in table else table[EVERY] for name in devices)


def _check_filled(batteries: Sequence[Battery], recharge: ByRound) -> None:
    for client, battery in enumerate(batteries):
        if battery.charge_j <= battery.reserve_j and not any(joules[client] for joules in recharge):
            raise StudyError(
                f"fleet.battery is empty for client {client} from the start: it holds {battery.charge_j:g} J, of which "
                f"{battery.reserve_j:g} J are the reserve, and nothing recharges it; raise charge_j, or give a "
                "fleet.recharge"
            )


def _check_rule(compressor: Compressor, key: str, schedule: Schedule | None) -> None:
    rule = compressor.rule
    if isinstance(rule, Dense | MinVariance):
        why = "takes no budget" if isinstance(rule, Dense) else "meets a budget only on average"
        raise StudyError(
            f"fleet.battery caps what each mask may cost, but {type(rule).__name__} {why}; leave one of them out"
        )
    if isinstance(schedule, Priced) and getattr(rule, "norm", None) is None:
        raise StudyError(
            f"{key} = Priced needs a value per joule, which {type(rule).__name__} has not; use CWMP or Projection, or "
            "another schedule"
        )


def _check_needs_battery(fleet: Fleet, given: Mapping[str, object]) -> None:
    alone = [key for key, value in given.items() if value is not None and fleet.battery is None]
    if alone:
        raise StudyError(f"{alone[0]} is given, but no client has a battery; add fleet.battery, or leave it out")


# ---------------------------------------------------------------- traces


def _told(key: str, path: str, folder: Path) -> Told:
    try:
        trace = read_trace(folder / path, TRACES[key])
    except TraceError as error:
        raise StudyError(f"fleet.{key}: {error}") from None
    return Told(path, tuple(map(tuple, trace.values.tolist())), trace.clients)


def _by_round(key: str, told: TraceFile, rounds: int, clients: int) -> ByRound:
    if told is None:
        return ()
    assert isinstance(told, Told)  # `with_traces` has read it.
    unknown = sorted(set(told.clients or ()) - set(range(clients)))
    if unknown:
        raise StudyError(
            f"fleet.{key}: {told.file} has lines for client {unknown[0]}, but the clients are 0 to {clients - 1}; take "
            "them out, or raise data.clients"
        )
    trace = _trace(key, told)
    try:
        return tuple(map(tuple, trace.table(rounds, range(clients)).tolist()))
    except TraceError as error:
        raise StudyError(f"fleet.{key}: {error}") from None


def _trace(key: str, told: Told) -> Trace:
    columns = 1 if told.clients is None else len(told.clients)
    values = [value for row in told.values for value in row]
    least = 0.0 if TRACES[key] != "factor" else np.nextafter(0.0, 1.0)
    whole = all(len(row) == columns for row in told.values) and bool(values)
    if not whole or not all(least <= value < np.inf for value in values):
        raise StudyError(f"fleet.{key}: the numbers of {told.file} are torn or out of range; give the path of a file")
    return Trace(told.file, TRACES[key], np.array(told.values), told.clients)


def _check_link(link: ByRound, devices: Sequence[str]) -> None:
    factors = {factor for row in link for factor in row}
    try:
        for name in dict.fromkeys(devices if factors else ()):
            for factor in (min(factors), max(factors)):
                with_link(load_device(name), factor)
    except (ProfileError, ValueError) as error:
        raise StudyError(f"fleet.link: {error}; leave it out, or take other devices") from None
