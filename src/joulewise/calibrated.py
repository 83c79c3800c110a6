"""A device profile from what a calibration found, as a record and as a TOML file."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TypeVar

import msgspec

from joulewise import profilefile
from joulewise.calibrate import REPEATS, Finding, Idle
from joulewise.devices import Device, Direction, Level, Link, Memory
from joulewise.errors import CalibrationError, OutputError
from joulewise.machine import Cache
from joulewise.plausible import BY_WATTS
from joulewise.quantities import Energy, EnergyPerBit, Evidence, Power, Quantity, Rate, Size
from joulewise.regression import Line

READ_AND_WRITE_BITS = 16
"""Bits that one byte of a working set stands for: eight are read and eight are written."""

Kind = TypeVar("Kind", bound=Quantity)

_PER_BIT = {"fJ/bit": 1e-15, "pJ/bit": 1e-12, "nJ/bit": 1e-9, "uJ/bit": 1e-6, "mJ/bit": 1e-3}
_ENERGY = {"nJ": 1e-9, "uJ": 1e-6, "mJ": 1e-3, "J": 1.0}
_POWER = {"mW": 1e-3, "W": 1.0}
_RATE = {"kbit/s": 1e3, "Mbit/s": 1e6, "Gbit/s": 1e9}
_SIZE = {"byte": 1.0, "KiB": 2.0**10, "MiB": 2.0**20}


class Origin(msgspec.Struct, frozen=True, kw_only=True):
    """Where and how a calibration was made.

    Args:
        host: kind of machine.
        date: as in ``2026-11-22``.
        version: of joulewise.
        meter: method of the meter and what it sees; empty where there is none.
        watts: power that was assumed; None where a meter measured.
    """

    host: str
    date: str
    version: str
    meter: str = ""
    watts: float | None = None

    @property
    def kind(self) -> Evidence:
        """How energies are known."""
        return "measured" if self.watts is None else "assumed"

    @property
    def year(self) -> int:
        """Of the date."""
        return int(self.date[:4])

    @property
    def who(self) -> str:
        """Who says so, for the end of a source."""
        return f"joulewise calibrate {self.version} on {self.host}, {self.date}"

    @property
    def short(self) -> str:
        """How energies come about, in a few words."""
        return "measured" if self.watts is None else f"times measured, energies assumed from {self.watts:g} W"

    @property
    def energy(self) -> str:
        """How energies come about."""
        if self.watts is not None:
            return f"time measured, energy assumed: {self.watts:g} W {BY_WATTS} times the time; no sensor"
        return f"energy above idle by {self.meter}"


def make_device(
    name: str, found: Sequence[Finding], idle: Idle | None, caches: Sequence[Cache], memory_bytes: int, origin: Origin
) -> Device:
    """The profile of a machine: what a schema has a place for; the rest is told in the sources.

    The last cache whose energy is known is ``memory.sram``; the line of the sends is ``link``.

    Args:
        name: of the device.
        found: findings with energy, measured or assumed; those whose energy does not rise with its amount are left out.
        idle: power at rest, where it was measured.
        caches: for capacities and the size of a line.
        memory_bytes: capacity of main memory.
        origin: where and how.

    Raises:
        CalibrationError: there is no price at all.
    """
    priced = {
        finding.part: finding for finding in found if finding.energy and finding.energy.rises and finding.time.rises
    }
    sram = next((_cache_level(cache, priced, origin) for cache in reversed(caches) if cache.name in priced), None)
    dram = _memory_level(priced, caches, memory_bytes, origin) if "memory" in priced else None
    link = _link(priced["link"], idle, origin) if "link" in priced else None
    if sram is None and dram is None and link is None:
        raise CalibrationError(
            "no energy rose with the bytes by more than its interval, so there is no price to write; keep the machine "
            "quiet and give more --seconds"
        )
    return Device(
        schema=1,
        name=name,
        description=f"{origin.host}; {origin.short}, {origin.date}.",
        unit="J",
        memory=None if sram is None and dram is None else Memory(sram=sram, dram=dram),
        link=link,
        idle_power=None if idle is None else _idle(idle, origin),
    )


def _cache_level(cache: Cache, priced: Mapping[str, Finding], origin: Origin) -> Level:
    others = [f"{part} {_short(priced[part])}" for part in priced if part.startswith("L") and part != cache.name]
    told = f"; for comparison: {', '.join(others)}" if others else ""
    energy = _streamed(priced[cache.name], f"working sets in {cache.name}", told, origin)
    swept = f"a sweep over working sets found no more in {cache.name}, to within a factor of 2; {origin.who}"
    reported = f"{cache.name} as the processor reports it to Linux; {origin.who}"
    how: tuple[Evidence, str] = ("measured", swept) if cache.origin == "swept" else ("datasheet", reported)
    return Level(
        read=energy, write=energy, capacity=_size(cache.capacity_bytes, *how, origin), line=_line(cache, origin)
    )


def _memory_level(priced: Mapping[str, Finding], caches: Sequence[Cache], memory_bytes: int, origin: Origin) -> Level:
    lines = priced.get("lines")
    told = (
        f"; a sparse update costs {_short(lines)} touched, its indices and NumPy's work on them included"
        if lines
        else ""
    )
    energy = _streamed(priced["memory"], "working sets beyond the last cache", told, origin)
    capacity = _size(memory_bytes, "datasheet", f"main memory as Linux reports it; {origin.who}", origin)
    return Level(read=energy, write=energy, capacity=capacity, line=_line(caches[-1], origin) if caches else None)


def _streamed(finding: Finding, what: str, told: str, origin: Origin) -> EnergyPerBit:
    line = _energy(finding)
    words = f"{what}: half of a read-modify-write pass each, {_interval(line, READ_AND_WRITE_BITS, _PER_BIT)}{told}"
    return _quantity(
        EnergyPerBit, line.slope / READ_AND_WRITE_BITS, _PER_BIT, origin.kind, _said(words, origin), origin
    )


def _link(finding: Finding, idle: Idle | None, origin: Origin) -> Link:
    line, time = _energy(finding), finding.time
    sends = "sends on an open TCP connection, each until the sink has acknowledged all of it"
    marginal = _said(f"{sends}: {_interval(line, 8, _PER_BIT)}", origin)
    rate = f"{sends}: one over the slope of time, R2 = {time.r_squared:.4f}, {time.points} sizes; {origin.who}"
    goodput = _quantity(Rate, 8 / time.slope, _RATE, "measured", rate, origin)
    fixed = None
    if line.intercept > line.intercept_half:
        half = _written(line.intercept_half, _ENERGY)
        words = f"{sends}: intercept, ± {half} (95 %); promotion and tail of a radio after a pause are not in it"
        fixed = _quantity(Energy, line.intercept, _ENERGY, origin.kind, _said(words, origin), origin)
    base = None if idle is None else _idle(idle, origin)
    up = Direction(
        marginal=_quantity(EnergyPerBit, line.slope / 8, _PER_BIT, origin.kind, marginal, origin), goodput=goodput
    )
    return Link(up=up, base_power=base, fixed=fixed)


def _idle(idle: Idle, origin: Origin) -> Power:
    words = (
        f"at rest, mean of before and after, ± {_written(idle.half_w, _POWER)} (95 %), by {origin.meter}; {origin.who}"
    )
    return _quantity(Power, idle.power_w, _POWER, "measured", words, origin)


def _energy(finding: Finding) -> Line:
    assert finding.energy is not None
    return finding.energy


def _said(words: str, origin: Origin) -> str:
    return f"{words}; {origin.energy}; {origin.who}"


def _interval(line: Line, bits: int, units: Mapping[str, float]) -> str:
    doubt = f"; {line.note}" if line.note else ""
    half = _written(line.slope_half / bits, units)
    fitted = f"least squares over {line.points} sizes, medians of {REPEATS}, R2 = {line.r_squared:.4f}"
    return f"± {half} (95 %), {fitted}{doubt}"


def _short(finding: Finding) -> str:
    line = _energy(finding)
    if finding.unit == "line":
        return f"{_written(line.slope, _ENERGY)} ± {_written(line.slope_half, _ENERGY)} for each line"
    bits = READ_AND_WRITE_BITS
    return f"{_written(line.slope / bits, _PER_BIT)} ± {_written(line.slope_half / bits, _PER_BIT)}"


def _line(cache: Cache, origin: Origin) -> Size | None:
    if cache.line_bytes is None:
        return None
    return _size(
        cache.line_bytes, "datasheet", f"line of {cache.name} as the processor reports it; {origin.who}", origin
    )


def _size(size_bytes: int, kind: Evidence, source: str, origin: Origin) -> Size:
    unit = max((unit for unit in _SIZE if size_bytes % _SIZE[unit] == 0), key=_SIZE.__getitem__)
    return Size(size_bytes / _SIZE[unit], unit, kind, source, origin.year)


def _quantity(
    dimension: type[Kind], si: float, units: Mapping[str, float], kind: Evidence, source: str, origin: Origin
) -> Kind:
    value, unit = _scaled(si, units)
    return dimension(float(f"{value:.4g}"), unit, kind, source, origin.year)


def _scaled(si: float, units: Mapping[str, float]) -> tuple[float, str]:
    fitting = [unit for unit in units if si >= units[unit]] or [next(iter(units))]
    return si / units[fitting[-1]], fitting[-1]


def _written(si: float, units: Mapping[str, float]) -> str:
    value, unit = _scaled(si, units)
    return f"{value:.3g} {unit}"


# ---------------------------------------------------------------- files


def to_toml(device: Device, remarks: Sequence[str] = ()) -> str:
    """A device as a TOML file that `load_device` reads.

    Args:
        device: a device in unit ``J``.
        remarks: lines of comment for the top.
    """
    head = [f"# {_printable(remark)}" for remark in remarks]
    return "\n".join((*head, "", profilefile.dumps(device))).lstrip("\n")


def _printable(remark: str) -> str:
    return "".join(letter if letter.isprintable() else " " for letter in remark)


def refuse_existing(out: Path, force: bool) -> None:
    """Look before a long measurement whether its result can be written.

    Raises:
        OutputError: there is such a file already, or no folder for it that can be written to.
        ArgumentError: it does not end in ``.toml``.
    """
    if out.is_dir():
        raise OutputError(f"--out {out} is a folder; give the name of a file in it, such as {out / 'my-device.toml'}")
    profilefile.refuse_ending(out)
    if out.exists() and not force:
        raise OutputError(f"--out {out} is there already; give another name, or --force to replace it")
    if not os.access(out.parent, os.W_OK | os.X_OK):
        raise OutputError(f"--out {out}: folder {out.parent} is not there or may not be written to; give another one")


def write(out: Path, content: str, force: bool) -> None:
    """Write a file in one step: whoever looks finds all of it or none, and nothing is replaced without `force`.

    Raises:
        OutputError: it is there already, or cannot be written.
    """
    refuse_existing(out, force)
    try:
        handle, name = tempfile.mkstemp(dir=out.parent, prefix=f".{out.name}-")
    except OSError as error:
        raise OutputError(f"--out {out} cannot be written: {error.strerror or error}; give another name") from error
    temporary = Path(name)
    try:
        with os.fdopen(handle, "w", encoding="utf-8") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        temporary.chmod(0o644)
        _publish(temporary, out, force)
    except OSError as error:
        raise OutputError(f"--out {out} cannot be written: {error.strerror or error}; give another name") from error
    finally:
        temporary.unlink(missing_ok=True)


def _publish(temporary: Path, out: Path, force: bool) -> None:
    if not force:
        try:
            out.hardlink_to(temporary)  # unlike a renaming, this fails where somebody made the file meanwhile
        except FileExistsError:
            raise
        except OSError:  # a file system without hard links
            refuse_existing(out, force)
        else:
            return
    temporary.replace(out)
