"""Batteries under /sys/class/power_supply: what a gauge says that was drawn, in coarse steps.

A gauge gives the energy left (``energy_now``, microwatt-hours), or the charge left (``charge_now``, microampere-hours)
and a voltage. Everything on the machine draws from it. A battery that does not discharge says nothing about that. See
Documentation/ABI/testing/sysfs-class-power of the Linux kernel.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from joulewise.sampling import Closed, Fault, SampledMeter, Value, text

NAME = "battery"
ABSENT = "no battery under /sys/class/power_supply"
DISCHARGING = "Discharging"
RESTING = frozenset({"Not charging", "Unknown", "Full"})  # of two batteries, while the other one discharges
JOULES_PER_UWH = 3600e-6
COULOMBS_PER_UAH = 3600e-6
COARSE = (
    "coarse: a battery's gauge moves in steps (often of 10 mWh, which is 36 J) every few seconds to a minute, and "
    "everything on the machine draws from it"
)


@dataclass(frozen=True, slots=True)
class Batteries:
    """All batteries that the machine runs on."""

    folders: tuple[Path, ...]
    name: str = NAME
    method: str = "battery gauge: energy, or charge times voltage, that was drawn"
    interval_s: float = 10.0
    step_s: float = 60.0
    reliable_s: float = 600.0

    @property
    def domains(self) -> tuple[str, ...]:
        """Names of the batteries."""
        return tuple(folder.name for folder in self.folders)

    def sample(self) -> tuple[Value | Fault, ...]:
        """What is left in each: microwatt-hours, or microampere-hours and microvolts."""
        told = [_facts(folder) for folder in self.folders]
        on_battery = any(not isinstance(facts, Fault) and facts.get("STATUS") == DISCHARGING for facts in told)
        return tuple(_left(folder, facts, on_battery) for folder, facts in zip(self.folders, told, strict=True))

    def between(self, domain: int, before: Value, after: Value, seconds: float) -> float | Fault:
        """What was drawn: ``before - after``, times the mean voltage where the gauge counts charge."""
        del seconds
        drawn = before[0] - after[0]
        if len(before) != len(after) or drawn < 0:
            return Fault(f"{self.folders[domain]}: the gauge rose or was recalibrated in the open window")
        if len(before) == 1:
            return drawn * JOULES_PER_UWH
        return drawn * COULOMBS_PER_UAH * 1e-6 * (before[1] + after[1]) / 2

    def caveat(self, closed: Closed) -> str:
        """That it is coarse."""
        del closed
        return COARSE


def find(root: Path) -> tuple[SampledMeter, ...]:
    """One meter over all batteries of a sensor tree, apart from those of mice and other devices."""
    supplies = sorted((root / "sys/class/power_supply").glob("*"))
    folders = tuple(path for path in supplies if _feeds_machine(path))
    return (SampledMeter(Batteries(folders)),) if folders else ()


def _feeds_machine(supply: Path) -> bool:
    told = (text(supply / name) for name in ("type", "scope", "present"))
    kind, scope, present = (None if isinstance(one, Fault) else one for one in told)
    return kind == "Battery" and scope != "Device" and present != "0"


def _facts(folder: Path) -> dict[str, str] | Fault:
    told = text(folder / "uevent")  # one read, so that all of it is of one moment
    if isinstance(told, Fault):
        return told
    return dict(line.removeprefix("POWER_SUPPLY_").split("=", 1) for line in told.splitlines() if "=" in line)


def _left(folder: Path, facts: Mapping[str, str] | Fault, on_battery: bool) -> Value | Fault:
    if isinstance(facts, Fault):
        return facts
    status = facts.get("STATUS", "not given")
    resting = on_battery and status in RESTING
    if status == DISCHARGING or resting:
        return _gauge(folder, facts)
    return Fault(
        f"{folder.name} does not discharge (its status is {status}), so it does not tell what the machine draws: "
        "unplug the charger"
    )


def _gauge(folder: Path, facts: Mapping[str, str]) -> Value | Fault:
    names = ("ENERGY_NOW",) if "ENERGY_NOW" in facts else ("CHARGE_NOW", "VOLTAGE_NOW")
    missing = [name.lower() for name in names if name not in facts]
    if missing:
        return Fault(f"{folder / 'uevent'} gives no {' and no '.join(missing)}: this gauge cannot be used")
    try:
        return tuple(float(int(facts[name])) for name in names)
    except ValueError:
        given = ", ".join(f"{name}={facts[name][:40]}" for name in names)
        return Fault(f"{folder / 'uevent'} holds {given}, expected whole numbers")
