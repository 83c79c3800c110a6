"""Windows over sensors that are sampled: at both ends, and in between by a thread that the window owns."""

from __future__ import annotations

import threading
import time
import weakref
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from joulewise.readings import Mark, Reading, joined, opened, unavailable

Clock = Callable[[], float]
LARGEST = 2**64
"""No number of the kernel is as large, and of one that is no joule can be told."""


@dataclass(frozen=True, slots=True)
class Fault:
    """Why a sensor gave no number, and what to do."""

    words: str


Value = tuple[float, ...]
"""What a sensor says at one moment: a counter, a power, or a charge and a voltage."""


class Sensors(Protocol):
    """Sensors of one kind, as files: what they are, how one sample is taken, and what two samples mean."""

    @property
    def name(self) -> str:
        """Short name of the meter."""

    @property
    def method(self) -> str:
        """How it measures, in words."""

    @property
    def domains(self) -> tuple[str, ...]:
        """What each number of a sample is of."""

    @property
    def interval_s(self) -> float:
        """Seconds between two samples in an open window."""

    @property
    def step_s(self) -> float:
        """Seconds between two steps of the sensor: a shorter window can see nothing."""

    @property
    def reliable_s(self) -> float:
        """Seconds below which a window is mostly noise."""

    def sample(self) -> tuple[Value | Fault, ...]:
        """Read every domain once."""

    def between(self, domain: int, before: Value, after: Value, seconds: float) -> float | Fault:
        """Energy in joules of domain number `domain` from one sample to the next."""

    def caveat(self, closed: Closed) -> str:
        """What a reader of the window's energy must know; may be empty."""


@dataclass(frozen=True, slots=True)
class Closed:
    """What a closed window saw.

    Args:
        energies: joules by domain, or why there are none.
        seconds: its length.
        longest_gap_s: the longest time between two samples.
        samples: how many there were.
        constant: whether every sample of every domain was the same.
    """

    energies: tuple[float | Fault, ...]
    seconds: float
    longest_gap_s: float
    samples: int
    constant: bool


class Window:
    """Energy by domain since the window was opened; `sample` adds what came since the last sample."""

    def __init__(self, sensors: Sensors, clock: Clock) -> None:
        self._sensors = sensors
        self._clock = clock
        self._lock = threading.Lock()
        self._last = sensors.sample()
        self._began = self._now = clock()  # after the first sample: what reading costs is not in the window
        self._longest, self._samples, self._constant = 0.0, 1, True
        self._energies: list[float | Fault] = [one if isinstance(one, Fault) else 0.0 for one in self._last]
        self._stop = threading.Event()
        threading.Thread(
            target=_poll, args=(weakref.ref(self), self._stop, sensors.interval_s), name="joulewise meter", daemon=True
        ).start()
        weakref.finalize(self, self._stop.set)

    def sample(self) -> None:
        """Take one sample."""
        with self._lock:
            if self._stop.is_set():
                return
            self._add()

    def close(self) -> Closed:
        """Take the last sample and end the thread. Closing again gives the same."""
        with self._lock:
            if not self._stop.is_set():
                self._add()
                self._stop.set()
            seconds = self._now - self._began
            return Closed(tuple(self._energies), seconds, self._longest, self._samples, self._constant)

    def _add(self) -> None:
        now = self._clock()
        found, seconds = self._sensors.sample(), now - self._now
        for domain, (before, after) in enumerate(zip(self._last, found, strict=True)):
            self._energies[domain] = self._sum(domain, before, after, seconds)
        self._samples, self._constant = self._samples + 1, self._constant and found == self._last
        self._last, self._now, self._longest = found, now, max(self._longest, seconds)

    def _sum(self, domain: int, before: Value | Fault, after: Value | Fault, seconds: float) -> float | Fault:
        so_far = self._energies[domain]
        if isinstance(so_far, Fault):
            return so_far
        if isinstance(before, Fault):
            return before
        if isinstance(after, Fault):
            return Fault(f"the sensor went away in the open window: {after.words}")
        more = self._sensors.between(domain, before, after, seconds)
        return more if isinstance(more, Fault) else so_far + more


def _poll(window: weakref.ref[Window], stop: threading.Event, interval_s: float) -> None:
    # The thread holds no window, so that it ends when everybody else has let go of it.
    while not stop.wait(interval_s):
        alive = window()
        if alive is None:
            return
        alive.sample()
        del alive


@dataclass(frozen=True, slots=True)
class SampledMeter:
    """A meter over sensors that are files.

    Args:
        sensors: the sensors.
        clock: seconds that never go back.
    """

    sensors: Sensors
    clock: Clock = time.monotonic

    @property
    def name(self) -> str:
        """Short name."""
        return self.sensors.name

    @property
    def method(self) -> str:
        """How it measures."""
        return self.sensors.method

    @property
    def domains(self) -> tuple[str, ...]:
        """What it measures."""
        return self.sensors.domains

    def fault(self) -> str:
        """Why it cannot be read now; empty when it can."""
        return joined(one.words for one in self.sensors.sample() if isinstance(one, Fault))

    def begin(self) -> Mark:
        """Open a window."""
        return Mark(self.name, Window(self.sensors, self.clock))

    def end(self, mark: Mark) -> Reading:
        """Close a window; a window that is closed again gives the same reading.

        Raises:
            MeterError: another meter opened it.
        """
        return _reading(opened(mark, self.name, Window).close(), self.sensors)


def _reading(closed: Closed, sensors: Sensors) -> Reading:
    faults = [one.words for one in closed.energies if isinstance(one, Fault)]
    if faults:  # a sum without one of its parts would pass for the whole
        return unavailable(joined(faults), method=sensors.method, window_s=closed.seconds)
    energies = dict(zip(sensors.domains, closed.energies, strict=True))
    moved = {name: joules for name, joules in energies.items() if not isinstance(joules, Fault) and joules > 0}
    if not moved:
        return unavailable(_still(closed, sensors), method=sensors.method, window_s=closed.seconds)
    left_out = [f"{name} stood still and is left out" for name in energies if name not in moved]
    return Reading(
        joules=sum(moved.values()),
        basis="measured",
        domains=tuple(moved),
        window_s=closed.seconds,
        method=sensors.method,
        note=joined((*left_out, _short(closed, sensors), _gap(closed, sensors), sensors.caveat(closed))),
    )


# Notes hold no number of their own window: those of a thousand rounds are shown once.


def _still(closed: Closed, sensors: Sensors) -> str:
    listed = ", ".join(sensors.domains)
    if closed.seconds < sensors.step_s:
        return (
            f"{listed} did not move in a window shorter than a step of the sensor ({sensors.step_s:g} s): "
            f"measure at least {max(sensors.reliable_s, sensors.step_s):g} s"
        )
    return f"{listed} stood still in the whole window: the sensor is stuck, or does not measure this machine"


def _short(closed: Closed, sensors: Sensors) -> str:
    if closed.seconds >= sensors.reliable_s:
        return ""
    return f"the window is short for this sensor: measure at least {sensors.reliable_s:g} s"


def _gap(closed: Closed, sensors: Sensors) -> str:
    longest = 10 * sensors.interval_s
    return "" if closed.longest_gap_s <= longest else f"the sensor was not read for more than {longest:g} s in a row"


# ---------------------------------------------------------------- files


def number(path: Path, denied: str = "") -> float | Fault:
    """The whole number in a file of the sensor tree.

    Args:
        path: the file.
        denied: what to say where the file may not be read; as a rule, the command that lets everybody read it.
    """
    found = text(path, denied)
    if isinstance(found, Fault):
        return found
    try:
        value = int(found)
    except ValueError:
        return Fault(f"{path} holds {found[:40]!r}, expected a whole number")
    return value if abs(value) < LARGEST else Fault(f"{path} holds {found[:40]!r}, more than 64 bits do")


def text(path: Path, denied: str = "") -> str | Fault:
    """The text in a file of the sensor tree, without spaces around it."""
    try:
        return path.read_text(encoding="utf-8", errors="replace").strip()
    except PermissionError:
        return Fault(denied or f"{path} may not be read: sudo chmod a+r {path}, or run as a user who may")
    except FileNotFoundError:
        return Fault(f"{path} is not there")
    except OSError as error:
        return Fault(f"{path} cannot be read: {error.strerror or error}")
