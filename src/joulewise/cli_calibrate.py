"""The command `calibrate`: measure this machine and write its profile, or receive what another machine sends."""

# Imports wait until the command runs: `joulewise --help` is to stay quick.
# ruff: noqa: PLC0415

from __future__ import annotations

import time
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, NoReturn

import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

import joulewise
from joulewise.errors import ArgumentError, CalibrationError
from joulewise.terminal import Debug, empty_table, open_console, say

if TYPE_CHECKING:
    from joulewise.calibrate import Finding, Plan, Sample
    from joulewise.calibrated import Origin
    from joulewise.machine import Cache
    from joulewise.readings import Meter
    from joulewise.regression import Line
    from joulewise.sink import Address

INTERRUPTED = 130
SECONDS_BETWEEN_LINES = 30.0
BUSY = 0.95
"""Part of a window that this program should run for: less, and others took the processor."""
METERS = ("powercap", "ina3221", "battery")
"""Meters that see a processor and its memory, the finest first."""
SCALES = ((1.0, ""), (1e-3, "m"), (1e-6, "µ"), (1e-9, "n"), (1e-12, "p"))


def calibrate(
    *,
    out: Annotated[
        Path | None, typer.Option(metavar="FILE", help="The profile to write, a TOML file.", show_default=False)
    ] = None,
    watts: Annotated[
        float | None,
        typer.Option(
            metavar="W",
            help="Assume W watts above idle instead of reading a sensor; shown as assumed.",
            show_default=False,
        ),
    ] = None,
    sink: Annotated[
        str | None,
        typer.Option(metavar="HOST:PORT", help="Measure the link to this sink, too.", show_default=False),
    ] = None,
    serve: Annotated[
        int | None,
        typer.Option(metavar="PORT", help="Be the sink of another machine, until Ctrl-C.", show_default=False),
    ] = None,
    seconds: Annotated[float, typer.Option(metavar="S", help="About how long to measure.")] = 60.0,
    force: Annotated[bool, typer.Option("--force", help="Replace FILE if it is there already.")] = False,
    debug: Debug = False,
) -> None:
    """Measure what moving a byte costs on this machine, from its caches to its link, and write a device profile.

    Energy comes from a sensor of this machine; without one only time is measured, and --watts turns it into an
    assumption that the profile shows. Keep the machine quiet meanwhile.

    Example: joulewise calibrate --out my-laptop.toml --sink 192.0.2.7:9000
    """
    del debug  # main looks for it
    if serve is not None:
        _serve(serve, alone=out is None and watts is None and sink is None)
        return
    if out is None:
        raise ArgumentError("--out is missing; give the file to write, as in --out my-device.toml, or --serve PORT")
    _check_numbers(watts, seconds)
    try:
        _calibrate(out, watts, sink, seconds, force)
    except KeyboardInterrupt:
        _stop(f"error: stopped; nothing was written to {out}", INTERRUPTED)


def _check_numbers(watts: float | None, seconds: float) -> None:
    if watts is not None and not 1e-3 <= watts <= 1e4:
        raise ArgumentError(f"--watts is {watts:g}, expected the watts of this machine at work, from 0.001 to 10000")
    if not 1 <= seconds <= 86400:
        raise ArgumentError(f"--seconds is {seconds:g}, expected 1 to 86400")


def _calibrate(out: Path, watts: float | None, sink: str | None, seconds: float, force: bool) -> None:
    import numpy as np

    from joulewise import calibrate as planning
    from joulewise import calibrated, machine, probes, regression
    from joulewise.sink import parse_address

    regression.need_scipy()
    address = parse_address(sink) if sink is not None else None
    calibrated.refuse_existing(out, force)
    meter = _meter(watts)
    say(_announced(meter, watts, out))
    memory = machine.find_memory()
    caches = machine.find_caches() or probes.sweep(seconds / 4, memory)
    payload_bytes = None if address is None else probes.largest_payload(address)
    plan = planning.plan(caches, memory.available_bytes, seconds, meter is not None, payload_bytes)
    rng = np.random.default_rng()
    samples = _watched(probes.measure(plan, probes.workspace(plan, caches, rng), rng, meter, address), plan)
    idle = planning.idle_power(samples)
    if idle is not None and idle.note:
        say(f"note: {idle.note}")
    found = planning.findings(samples, idle)
    if watts is not None:
        found = tuple(planning.assumed(finding, watts) for finding in found)
    origin = _origin(meter, watts, samples)
    remarks = _remarks(found, samples, caches, address)
    try:  # minutes of measuring are not to be lost because the terminal went away
        if meter is None and watts is None:
            raise CalibrationError(
                f"nothing was written to {out}: times are no prices; give --watts W, the watts that this machine draws "
                "above idle when it works, and the profile will say that they are assumed"
            )
        device = calibrated.make_device(out.stem, found, idle, caches, memory.total_bytes, origin)
        calibrated.write(out, calibrated.to_toml(device, (_heading(origin), *_lines(found), *remarks)), force)
    finally:
        _print(found, remarks)
    say(f"profile: {out}; look at it with: joulewise devices show {out}")


def _meter(watts: float | None) -> Meter | None:
    from joulewise import meters

    if watts is not None:
        return None
    found = [meter for meter in meters.readable(meters.find_meters()) if _sees_processor(meter.name)]
    return min(found, key=lambda meter: METERS.index(meter.name.partition(":")[0]), default=None)


def _sees_processor(name: str) -> bool:
    """Whether a meter sees the whole machine or its processor: of single rails, as in ina3221:CPU, that one alone."""
    kind, _, rail = name.partition(":")
    return kind in METERS and (not rail or "CPU" in rail.upper())


def _announced(meter: Meter | None, watts: float | None, out: Path) -> str:
    from joulewise import meters

    if meter is not None:
        return f"sensor: {meter.name}, {', '.join(meter.domains)}"
    if watts is not None:
        return f"no sensor is read: time alone is measured, and energy is an assumption, {watts:g} W times the time"
    reasons = "; ".join(f"{one.name}: {one.note}" for one in meters.survey() if one.name.partition(":")[0] in METERS)
    return (
        f"no sensor of this machine can be read, so time alone is measured, and nothing will be written to {out}: a "
        f"profile holds joules; --watts W would assume them\n({reasons})"
    )


def _origin(meter: Meter | None, watts: float | None, samples: Sequence[Sample]) -> Origin:
    from joulewise import machine
    from joulewise.calibrated import Origin

    seen = f"{meter.method} ({', '.join(samples[0].domains)})" if meter else ""
    date = datetime.now(UTC).date().isoformat()
    return Origin(host=machine.host_kind(), date=date, version=joulewise.__version__, meter=seen, watts=watts)


# ---------------------------------------------------------------- what is shown


def _watched(samples: Iterable[Sample], plan: Plan) -> list[Sample]:
    shown = open_console(stderr=True)
    if shown.is_terminal and not shown.is_dumb_terminal:
        columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
        with Progress(*columns, console=shown, transient=True) as progress:
            return list(progress.track(samples, total=plan.windows, description="measuring"))
    return list(_told(samples, plan, shown))


def _told(samples: Iterable[Sample], plan: Plan, shown: Console) -> Iterable[Sample]:
    about = plan.windows * plan.window_s
    shown.print(f"measuring: {plan.windows} windows, about {about:.0f} s", soft_wrap=True)
    last = time.monotonic()
    for number, sample in enumerate(samples, 1):
        yield sample
        if time.monotonic() - last > SECONDS_BETWEEN_LINES:
            last = time.monotonic()
            shown.print(f"{number} of {plan.windows} windows", soft_wrap=True)


def _print(found: Sequence[Finding], remarks: Sequence[str]) -> None:
    shown = empty_table("Part", "Time", "Per second", "Energy", "R2")
    for finding in found:
        shown.add_row(*_row(finding))
    open_console().print(shown)
    for remark in remarks:
        say(f"note: {remark}")


def _row(finding: Finding) -> tuple[str, ...]:
    line, energy, unit = finding.time, finding.energy, finding.unit
    rate = f"{_metric(1 / line.slope)}{'B' if unit == 'byte' else 'lines'}" if line.rises else "-"
    joules = f"{_slope(energy)}J/{unit}" if energy else "-"
    return finding.part, f"{_slope(line)}s/{unit}", rate, joules, f"{line.r_squared:.4f}"


def _heading(origin: Origin) -> str:
    return f"{origin.who}; {origin.energy}"


def _lines(found: Sequence[Finding]) -> tuple[str, ...]:
    """The table as comments: a profile has no place for most of it."""
    return tuple("  ".join(_commented(finding)) for finding in found)


def _commented(finding: Finding) -> tuple[str, ...]:
    part, seconds, rate, joules, r_squared = _row(finding)
    return f"{part}:", seconds, f"({rate}/s)", "no energy" if joules == "-" else joules, f"R2 = {r_squared}"


def _remarks(
    found: Sequence[Finding], samples: Sequence[Sample], caches: Sequence[Cache], address: Address | None
) -> tuple[str, ...]:
    remarks = [remark for finding in found for remark in _doubts(finding)]
    work = [sample for sample in samples if sample.probe.kind in {"stream", "scatter"}]
    busy = sum(sample.work_s for sample in work) / sum(sample.seconds for sample in work)
    if busy < BUSY:
        remarks.append(f"other programs took {100 * (1 - busy):.0f} % of the processor; for better figures stop them")
    if not caches or caches[0].origin == "swept":
        remarks.append("Linux does not tell the sizes of the caches; those that a sweep showed were taken")
    if address is not None and address.host in {"localhost", "127.0.0.1", "::1"}:
        remarks.append("the sink is on this machine, so link is no link of a network")
    return (*remarks, *sorted({sample.note for sample in samples if sample.note}))


def _doubts(finding: Finding) -> Iterable[str]:
    if not finding.time.rises:
        yield f"{finding.part}: time does not rise with the {finding.unit}s by more than its interval"
    elif finding.time.note:
        yield f"{finding.part}: {finding.time.note}"
    energy: Line | None = finding.energy
    if energy is None or energy.r_squared == finding.time.r_squared:  # assumed: time again
        return
    if not energy.rises:
        yield f"{finding.part}: energy does not rise with the {finding.unit}s by more than its interval: no price"
    elif energy.note:
        yield f"{finding.part}, energy: {energy.note}"


def _slope(line: Line) -> str:
    """As in ``74.8 ± 1.3 p``, the unit to follow."""
    fitting = (scale for scale in SCALES if abs(line.slope) >= scale[0])
    size, prefix = next(fitting, SCALES[-1])
    half = line.slope_half / size
    return f"{line.slope / size:.3g} ± {half:{'.0f' if half >= 100 else '.2g'}} {prefix}"


def _metric(amount: float) -> str:
    """As in ``13.4 G``."""
    size, prefix = next((scale for scale in ((1e9, "G"), (1e6, "M"), (1e3, "k")) if amount >= scale[0]), (1.0, ""))
    return f"{amount / size:.3g} {prefix}"


# ---------------------------------------------------------------- the other machine


def _serve(port: int, alone: bool) -> None:
    from joulewise import sink

    if not alone:
        raise ArgumentError("--serve goes with no other option: it receives on this machine what another one measures")
    if not 0 <= port < 65536:
        raise ArgumentError(f"--serve is {port}, expected a port from 1 to 65535, or 0 for a free one")
    with sink.listen(port) as server:
        taken = server.getsockname()[1]
        say(f"sink: listening on port {taken}; stop with Ctrl-C")
        say(f"on the other machine run: joulewise calibrate --out FILE --sink THIS-HOST:{taken}")
        try:
            for served in sink.serve(server):
                fault = f"; closed: {served.fault}" if served.fault else ""
                say(f"{served.peer}: {served.messages} payloads, {served.payload_bytes} bytes{fault}")
        except KeyboardInterrupt:
            say("sink: stopped")


def _stop(message: str, code: int) -> NoReturn:
    open_console(stderr=True).print(message, soft_wrap=True, markup=False)
    raise typer.Exit(code)
