"""INA3221 power monitors under Linux hwmon, as on Jetson boards: rails of voltage times current, sampled.

Where one rail is the input of the whole board (``VDD_IN``, ``POM_5V_IN``), it is the only one that is read: the
others are parts of it. Where none is, every rail is a meter of its own, for some boards feed one rail from another,
and a sum would hold its energy twice. See Documentation/hwmon/ina3221.rst of the Linux kernel.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from joulewise.sampling import Closed, Fault, SampledMeter, Value, number, text

NAME = "ina3221"
ABSENT = "no INA3221 under /sys/class/hwmon: Jetson boards have one"
INPUT = re.compile(r"VDD_IN|POM_5V_IN|VIN|.*TOTAL.*", re.IGNORECASE)
STUCK_SAMPLES = 20  # as many equal products of millivolts and milliamperes are no coincidence on a busy board


@dataclass(frozen=True, slots=True)
class Rail:
    """One channel of a monitor: its label, and the files with its millivolts and milliamperes."""

    label: str
    voltage: Path
    current: Path


@dataclass(frozen=True, slots=True)
class Rails:
    """One rail, sampled ten times a second."""

    rail: Rail
    whole: bool
    interval_s: float = 0.1
    step_s: float = 0.01
    reliable_s: float = 1.0

    @property
    def name(self) -> str:
        """``ina3221`` for the whole board, else with the rail, as ``ina3221:VDD_CPU_CV``."""
        return NAME if self.whole else f"{NAME}:{self.rail.label}"

    @property
    def method(self) -> str:
        """How it measures."""
        return f"INA3221 rail: voltage times current, sampled every {self.interval_s:g} s, trapezoids"

    @property
    def domains(self) -> tuple[str, ...]:
        """The rail."""
        return (self.rail.label,)

    def sample(self) -> tuple[Value | Fault, ...]:
        """Power of the rail in watts: ``mV * mA * 1e-6``."""
        voltage = number(self.rail.voltage)
        current = number(self.rail.current)
        if isinstance(voltage, Fault):
            return (voltage,)
        if isinstance(current, Fault):
            return (current,)
        return ((voltage * current * 1e-6,),)

    def between(self, domain: int, before: Value, after: Value, seconds: float) -> float | Fault:
        """A trapezoid: ``(before + after) / 2 * seconds``; a rail that feeds back counts as 0."""
        del domain
        return max(0.0, (before[0] + after[0]) / 2 * seconds)

    def caveat(self, closed: Closed) -> str:
        """Whether the rail is the whole board, and whether it ever moved."""
        part = "" if self.whole else "one rail of several; rails may feed each other, so they are not added"
        if closed.constant and closed.samples >= STUCK_SAMPLES:
            return "every sample was the same: the sensor may be stuck" + (part and f"; {part}")
        return part


def find(root: Path) -> tuple[SampledMeter, ...]:
    """A meter of the board's input rail, else one of each rail."""
    monitors = sorted((root / "sys/class/hwmon").glob("hwmon*"), key=lambda path: (len(path.name), path.name))
    rails = [rail for path in monitors if text(path / "name") == NAME for rail in _rails(path)]
    whole = [rail for rail in rails if INPUT.fullmatch(rail.label)]
    return tuple(SampledMeter(Rails(rail, bool(whole))) for rail in (whole[:1] or rails))


def _rails(monitor: Path) -> list[Rail]:
    found = []
    for channel in (1, 2, 3):
        voltage, current = monitor / f"in{channel}_input", monitor / f"curr{channel}_input"
        label = text(monitor / f"in{channel}_label")
        label = f"{monitor.name}-in{channel}" if isinstance(label, Fault) or not label else label
        if voltage.exists() and current.exists() and _connected(monitor, channel, label):
            found.append(Rail(label, voltage, current))
    return found


def _connected(monitor: Path, channel: int, label: str) -> bool:
    return label.upper() != "NC" and text(monitor / f"in{channel}_enable") != "0"
