"""What a meter says: readings with their origin, windows, and the idle power that is taken off.

A meter that measured nothing says ``unavailable`` and why; it never says 0. Sensor trouble is no exception: it is a
reading with a note, so that a run goes on when a sensor goes away.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Literal, Protocol, TypeVar

import msgspec

from joulewise.errors import MeterError

Basis = Literal["measured", "assumed", "unavailable"]
"""Read from a sensor; computed from a power that somebody assumed; or not known."""

DRIFT = 0.1  # idle powers before and after a window that differ by more are worth a word

State = TypeVar("State")


class Reading(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Energy of one window, and where the number comes from.

    Args:
        joules: energy in J; None exactly when `basis` is ``unavailable``.
        basis: ``measured``, ``assumed`` or ``unavailable``.
        domains: what the energy is of, such as ``package-0``; nothing is in two of them.
        window_s: length of the window in seconds.
        method: the meter and how it measures.
        note: what a reader must know beside the number; for ``unavailable`` the reason and what to do.

    Raises:
        MeterError: joules and basis contradict each other, or a number is not finite or below 0.

    Example:
        >>> reading = Reading(joules=9.0, basis="measured", domains=("package-0",), window_s=2.0, method="powercap")
        >>> reading.power_w
        4.5
    """

    joules: float | None
    basis: Basis
    domains: tuple[str, ...]
    window_s: float
    method: str
    note: str = ""

    def __post_init__(self) -> None:
        if (self.joules is None) != (self.basis == "unavailable"):
            raise MeterError(
                f"Reading(joules={self.joules}, basis={self.basis!r}): an unavailable reading has no joules"
            )
        for name in ("joules", "window_s"):
            value = getattr(self, name)
            if value is not None and not (math.isfinite(value) and value >= 0):
                raise MeterError(f"Reading({name}={value}): expected a finite number of at least 0")

    @property
    def power_w(self) -> float | None:
        """Mean power over the window in watts; None where nothing is known."""
        return None if self.joules is None or not self.window_s else self.joules / self.window_s


@dataclass(frozen=True, slots=True, eq=False)
class Mark:
    """An open window.

    Args:
        meter: name of the meter that opened it.
        state: what that meter needs to close it; nobody else's business.
    """

    meter: str
    state: object


class Meter(Protocol):
    """What measures the energy of a window.

    Several windows may be open at once. A window may hold a thread that polls a sensor: it ends with the window,
    or when the mark is forgotten.
    """

    @property
    def name(self) -> str:
        """Short name, such as ``powercap``."""

    @property
    def method(self) -> str:
        """How it measures, in words."""

    @property
    def domains(self) -> tuple[str, ...]:
        """What it measures, such as ``package-0``."""

    def fault(self) -> str:
        """Why the meter cannot be read now, and what to do; empty when it can."""

    def begin(self) -> Mark:
        """Open a window."""

    def end(self, mark: Mark) -> Reading:
        """Close a window.

        Raises:
            MeterError: another meter opened it.
        """


def opened(mark: Mark, meter: str, kind: type[State]) -> State:
    """The state of a mark, for the meter that opened it.

    Raises:
        MeterError: another meter opened it.
    """
    if mark.meter != meter or not isinstance(mark.state, kind):
        raise MeterError(
            f"end(mark): the window was opened by meter {mark.meter!r}, not by {meter!r}; give each its own"
        )
    return mark.state


def unavailable(note: str, *, method: str, window_s: float = 0.0) -> Reading:
    """A reading of nothing, which says why.

    Example:
        >>> unavailable("no sensor was found", method="powercap").joules is None
        True
    """
    return Reading(joules=None, basis="unavailable", domains=(), window_s=window_s, method=method, note=note)


def joined(notes: Iterable[str]) -> str:
    """Notes as one text, each once, empty ones left out.

    Example:
        >>> joined(["coarse", "", "coarse", "short"])
        'coarse; short'
    """
    return "; ".join(dict.fromkeys(note for note in notes if note))


def noted(reading: Reading, *notes: str) -> Reading:
    """The reading with more notes."""
    return msgspec.structs.replace(reading, note=joined((reading.note, *notes)))


def idle(meter: Meter, seconds: float = 5.0, sleep: Callable[[float], object] = time.sleep) -> Reading:
    """Read a meter while this process does nothing; take one before a window and one after, for `net`.

    Args:
        meter: the meter.
        seconds: how long.
        sleep: what waits.

    Raises:
        MeterError: `seconds` is not above 0.
    """
    if not (math.isfinite(seconds) and seconds > 0):
        raise MeterError(f"idle(seconds={seconds}): expected a finite number above 0, such as 5")
    mark = meter.begin()
    try:
        sleep(seconds)
    finally:
        reading = meter.end(mark)
    return reading


def net(gross: Reading, before: Reading, after: Reading) -> Reading:
    """Energy above idle: ``net = gross - idle_power * window``, with the mean of the idle powers before and after.

    Args:
        gross: the window.
        before: idle, just before it.
        after: idle, just after it, by the same meter.

    Returns:
        A reading whose note says what was taken off; ``unavailable`` where one of the three is, where they are not
        of the same domains, and where idling would have taken at least as much as the window (the note says how much).

    Example:
        >>> reading = lambda joules, seconds: Reading(
        ...     joules=joules, basis="measured", domains=("package-0",), window_s=seconds, method="powercap")
        >>> net(reading(50.0, 10.0), before=reading(6.0, 5.0), after=reading(4.0, 5.0)).joules
        40.0
    """
    wrong = _not_comparable(gross, before, after)
    if wrong or gross.joules is None or before.power_w is None or after.power_w is None:
        return unavailable(joined((wrong, gross.note)), method=gross.method, window_s=gross.window_s)
    idle_w = (before.power_w + after.power_w) / 2
    joules = gross.joules - idle_w * gross.window_s
    ends = f"{before.power_w:.4g} W before and {after.power_w:.4g} W after"
    taken = f"idle power of {idle_w:.4g} W taken off, a mean of {ends}"
    drifted = abs(before.power_w - after.power_w) > DRIFT * idle_w
    drift = "idle power changed by more than a tenth: measure longer, or keep the machine quiet" if drifted else ""
    if joules <= 0:
        below = f"nothing above idle could be told: the window's {gross.joules:.4g} J less idle is {joules:.4g} J"
        return unavailable(joined((below, taken, drift, gross.note)), method=gross.method, window_s=gross.window_s)
    basis: Basis = "measured" if {gross.basis, before.basis, after.basis} == {"measured"} else "assumed"
    return msgspec.structs.replace(gross, joules=joules, basis=basis, note=joined((taken, drift, gross.note)))


def _not_comparable(gross: Reading, before: Reading, after: Reading) -> str:
    named = {"window": gross, "idle window before": before, "idle window after": after}
    for name, one in named.items():
        if one.power_w is None:
            return f"the {name} has no reading: {one.note}"
    if not gross.domains == before.domains == after.domains:
        listed = ", ".join(f"{name} {'+'.join(one.domains)}" for name, one in named.items())
        return f"idle cannot be taken off: the readings are of different domains ({listed})"
    return ""


def add(readings: Iterable[Reading]) -> Reading:
    """Readings of one meter, one window after the other, as one.

    Returns:
        Their sum; ``unavailable`` as soon as one of them is, for a part is no total, or where they are not of one
        method and the same domains.

    Raises:
        MeterError: there are none.

    Example:
        >>> part = Reading(joules=2.0, basis="measured", domains=("package-0",), window_s=1.5, method="powercap")
        >>> total = add([part, part])
        >>> total.joules, total.window_s
        (4.0, 3.0)
    """
    every = tuple(readings)
    if not every:
        raise MeterError("add(readings): got no reading, expected at least one")
    window_s, notes = math.fsum(one.window_s for one in every), [one.note for one in every]
    known = [one.joules for one in every if one.joules is not None]
    kinds = {(one.basis, one.domains, one.method) for one in every}
    if len(known) < len(every):
        why = f"{len(every) - len(known)} of {len(every)} windows have no reading"
        return unavailable(joined((why, *notes)), method=every[0].method, window_s=window_s)
    if len(kinds) > 1:
        why = "readings of different meters, bases or domains have no sum"
        return unavailable(joined((why, *notes)), method=every[0].method, window_s=window_s)
    return msgspec.structs.replace(every[0], joules=math.fsum(known), window_s=window_s, note=joined(notes))
