"""GPUs through Zeus (https://ml.energy/zeus), where it is installed: the extra ``zeus``.

What Zeus says is added here by hand, part by part: its ``total_energy`` is of the GPUs alone and is 0 where there is
none; its energies of systems on a chip are in millijoules, all others in joules; a part that may not be read is None;
and a GPU reads 0 in a window that is shorter than a step of its counter. Written against Zeus 0.16.0.
"""

from __future__ import annotations

import importlib.util
import uuid
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Protocol

from joulewise.readings import Mark, Reading, joined, opened, unavailable

NAME = "zeus"
ABSENT = 'GPUs are read by Zeus, which is not installed: pip install "joulewise[zeus]"'
EMPTY = "Zeus finds no GPU and no system on a chip that it can read"
WHOLE_CHIP = "total_energy_mj"  # of a Jetson: CPU and GPU are part of it
CHIP_PARTS = ("cpu_total_mj", "gpu_mj", "gpu_sram_mj", "dram_mj", "ane_mj", "cpu_energy_mj", "gpu_energy_mj")


class Measurement(Protocol):
    """`zeus.monitor.energy.Measurement`, as far as it is used: energies in joules, by number of the part."""

    @property
    def time(self) -> float:
        """Length of the window in seconds."""

    @property
    def gpu_energy(self) -> Mapping[int, float]:
        """Joules by GPU."""

    @property
    def cpu_energy(self) -> Mapping[int, float] | None:
        """Joules by package; None where they may not be read."""

    @property
    def dram_energy(self) -> Mapping[int, float] | None:
        """Joules of memory by package; None where they may not be read."""

    @property
    def soc_energy(self) -> object | None:
        """Fields in millijoules, by name."""


class Monitor(Protocol):
    """`zeus.monitor.ZeusMonitor`, as far as it is used."""

    gpu_indices: list[int]
    cpu_indices: list[int]
    soc_is_present: bool

    def begin_window(self, key: str, sync_execution: bool = True) -> None:
        """Open a window."""

    def end_window(self, key: str, sync_execution: bool = True) -> Measurement:
        """Close a window."""


@dataclass(frozen=True, slots=True)
class _Key:
    key: str
    failure: str


@dataclass(frozen=True, slots=True)
class ZeusMeter:
    """A meter over a monitor of Zeus."""

    monitor: Monitor
    name: str = NAME
    method: str = "Zeus: energy counters of GPUs (NVML, AMD SMI) and systems on a chip"

    @property
    def domains(self) -> tuple[str, ...]:
        """GPUs, packages that the monitor was told to read, and the system on a chip."""
        gpus, packages = self.monitor.gpu_indices, self.monitor.cpu_indices
        chip = ("soc",) if self.monitor.soc_is_present else ()
        return (*(f"gpu{index}" for index in gpus), *(f"cpu{index}" for index in packages), *chip)

    def fault(self) -> str:
        """Why it cannot be read now; empty when it can."""
        mark = self.begin()
        state = opened(mark, self.name, _Key)
        if not state.failure:
            self.end(mark)
        return state.failure or ("" if self.domains else EMPTY)

    def begin(self) -> Mark:
        """Open a window."""
        key = f"joulewise-{uuid.uuid4()}"
        try:
            self.monitor.begin_window(key, sync_execution=False)  # needs torch, which may not be there
        except Exception as error:  # whatever a driver raises, the run goes on
            return Mark(self.name, _Key(key, _failed("begin a window", error)))
        return Mark(self.name, _Key(key, ""))

    def end(self, mark: Mark) -> Reading:
        """Close a window.

        Raises:
            MeterError: another meter opened it.
        """
        state = opened(mark, self.name, _Key)
        if state.failure:
            return unavailable(state.failure, method=self.method)
        try:
            found = self.monitor.end_window(state.key, sync_execution=False)
        except Exception as error:  # as above
            return unavailable(_failed("end a window", error), method=self.method)
        return _reading(found, self)


def installed() -> bool:
    """Whether Zeus is there."""
    return importlib.util.find_spec("zeus") is not None


def look() -> ZeusMeter | str:
    """A meter of this machine's GPUs, or why there is none.

    Packages and their memory are left to `joulewise.powercap`, so that nothing is read twice.
    """
    if not installed():
        return ABSENT
    try:
        from zeus.monitor import ZeusMonitor  # noqa: PLC0415 (an extra, and slow to import)

        meter = ZeusMeter(ZeusMonitor(cpu_indices=[]))
    except Exception as error:  # a driver, or a part of Zeus, that is not as it should be
        return _failed("start", error)
    return meter if meter.domains else EMPTY


def _failed(what: str, error: Exception) -> str:
    return f"Zeus could not {what}: {type(error).__name__}: {error}"


def _reading(found: Measurement, meter: ZeusMeter) -> Reading:
    energies = dict(_energies(found))
    wrong = {name: joules for name, joules in energies.items() if not 0 <= joules < float("inf")}
    if wrong:
        listed = ", ".join(f"{name} {joules:g} J" for name, joules in wrong.items())
        return unavailable(f"a counter of Zeus was reset ({listed})", method=meter.method, window_s=found.time)
    moved = {name: joules for name, joules in energies.items() if joules > 0}
    notes = [
        f"{name} read 0 J, which a window shorter than a step of its counter does, and is left out"
        for name in energies
        if name not in moved
    ]
    if meter.monitor.cpu_indices and found.cpu_energy is None:
        notes.append("packages are not in it: Zeus may not read them without root")
    if not moved:
        return unavailable(joined(notes) or EMPTY, method=meter.method, window_s=found.time)
    return Reading(
        joules=sum(moved.values()),
        basis="measured",
        domains=tuple(moved),
        window_s=found.time,
        method=meter.method,
        note=joined(notes),
    )


def _energies(found: Measurement) -> Iterator[tuple[str, float]]:
    whole = getattr(found.soc_energy, WHOLE_CHIP, None)
    if whole is not None:
        yield "soc", whole / 1000
    else:
        for part in CHIP_PARTS:
            if (millijoules := getattr(found.soc_energy, part, None)) is not None:
                yield f"soc/{part.removesuffix('_mj')}", millijoules / 1000
        yield from ((f"gpu{index}", joules) for index, joules in found.gpu_energy.items())
    yield from ((f"cpu{index}", joules) for index, joules in (found.cpu_energy or {}).items())
    yield from ((f"dram{index}", joules) for index, joules in (found.dram_energy or {}).items())
