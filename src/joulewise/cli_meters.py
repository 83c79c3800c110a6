"""The command ``joulewise meters``: the sensors of energy of this machine, and why others cannot be read."""

# As in joulewise.cli: a command imports what it needs when it runs.
# ruff: noqa: PLC0415

from __future__ import annotations

import math
import time
from typing import TYPE_CHECKING, Annotated

import typer
from rich.markup import escape

from joulewise.errors import ArgumentError
from joulewise.terminal import empty_table, open_console, say

if TYPE_CHECKING:
    from joulewise.meters import Meter, Reading


def meters(
    seconds: Annotated[
        float | None,
        typer.Option(
            metavar="S", help="Also read each of them for S seconds.", min=0.001, max=86400, show_default=False
        ),
    ] = None,
    debug: Annotated[bool, typer.Option("--debug", help="Show the traceback of an error.")] = False,
) -> None:
    """List this machine's sensors of energy, and say why others cannot be read and what to do.

    Example: joulewise meters --seconds 5
    """
    from joulewise.meters import find_meters, readable, survey

    del debug
    if seconds is not None and math.isnan(seconds):
        raise ArgumentError("--seconds is nan, expected a number of seconds; give one, such as --seconds 5")
    found = survey()
    shown = empty_table("Meter", "Measures", "Readable")
    for one in found:
        shown.add_row(escape(one.name), escape(", ".join(one.domains)) or "nothing", "yes" if one.readable else "no")
    open_console().print(shown)
    for one in found:
        say(f"{one.name}: {one.note}")
    if seconds is not None:
        usable = readable(find_meters())
        if not usable:
            say("\nnothing can be read: no number is given, for none was measured")
            return
        for reading in _read(usable, seconds):
            say(f"\n{_line(reading)}")


def usable() -> tuple[Meter, ...]:
    """The meters that a run uses; where one is there and cannot be read, a line says so."""
    from joulewise.meters import find_meters, readable

    found = find_meters()
    chosen = readable(found)
    left_out = [meter.name for meter in found if meter not in chosen]
    if left_out:
        words = f"note: {', '.join(left_out)} cannot be read, and is left out; why: joulewise meters"
        open_console(stderr=True).print(words, soft_wrap=True, markup=False)
    return chosen


def _read(chosen: tuple[Meter, ...], seconds: float) -> list[Reading]:
    marks = [(meter, meter.begin()) for meter in chosen]
    try:
        time.sleep(seconds)
    finally:
        readings = [meter.end(mark) for meter, mark in marks]
    return readings


def _line(reading: Reading) -> str:
    note = f"\n  {reading.note}" if reading.note else ""
    if reading.joules is None or reading.power_w is None:
        return f"{reading.method}: unavailable{note}"
    spent = f"{reading.joules:.4g} J in {reading.window_s:.3g} s, a mean of {reading.power_w:.4g} W"
    return f"{reading.method}: {reading.basis} {spent}, of {', '.join(reading.domains)}{note}"
