"""Measured joules: the meters of a machine, and why others cannot be read.

    powercap   RAPL: processor packages and memory          battery   what a laptop's battery gave
    ina3221    rails of a Jetson board                      zeus      GPUs, with the extra ``zeus``

A window is opened with ``mark = meter.begin()`` and closed with ``reading = meter.end(mark)``.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import msgspec

from joulewise import battery, hwmon, powercap, zeus
from joulewise.readings import Basis, Mark, Meter, Reading, add, idle, net, noted

__all__ = [
    "Basis",
    "Finding",
    "Mark",
    "Meter",
    "Reading",
    "add",
    "find_meters",
    "idle",
    "net",
    "noted",
    "readable",
    "survey",
]

KINDS = (
    (powercap.NAME, powercap.find, powercap.ABSENT),
    (hwmon.NAME, hwmon.find, hwmon.ABSENT),
    (battery.NAME, battery.find, battery.ABSENT),
)


class Finding(msgspec.Struct, frozen=True, kw_only=True):
    """A meter that was looked for.

    Args:
        name: of the meter.
        domains: what it measures; empty where it is not there.
        readable: whether it can be read now.
        note: how it measures, or why it cannot be read and what to do.
    """

    name: str
    domains: tuple[str, ...]
    readable: bool
    note: str


def find_meters(root: str | Path = "/") -> tuple[Meter, ...]:
    """The meters of a machine, also those that cannot be read now (`Meter.fault` says why).

    Args:
        root: where the sensor tree is: ``sys/class/powercap`` and others are looked for below it. Zeus, which asks
            drivers and no files, is looked for at ``/`` alone.

    Example:
        >>> import tempfile
        >>> find_meters(tempfile.mkdtemp())
        ()
    """
    files = tuple(meter for _, find, _ in KINDS for meter in find(Path(root)))
    driver = _driver(root)
    return files if isinstance(driver, str) else (*files, driver)


def readable(found: Sequence[Meter]) -> tuple[Meter, ...]:
    """Those that can be read now."""
    return tuple(meter for meter in found if not meter.fault())


def survey(root: str | Path = "/") -> tuple[Finding, ...]:
    """Every meter that joulewise knows: what it measures here, or why it cannot be read.

    Example:
        >>> import tempfile
        >>> [(found.name, found.readable) for found in survey(tempfile.mkdtemp())]
        [('powercap', False), ('ina3221', False), ('battery', False), ('zeus', False)]
    """
    found: list[Finding] = []
    for name, find, absent in KINDS:
        found += _findings(name, find(Path(root)), absent)
    driver = _driver(root)
    found += _findings(zeus.NAME, (), driver) if isinstance(driver, str) else _findings(zeus.NAME, (driver,), "")
    return tuple(found)


def _driver(root: str | Path) -> Meter | str:
    return zeus.look() if Path(root) == Path("/") else "drivers are not asked about a sensor tree of files"


def _findings(name: str, found: Sequence[Meter], absent: str) -> list[Finding]:
    if not found:
        return [Finding(name=name, domains=(), readable=False, note=absent)]
    faults = [(meter, meter.fault()) for meter in found]
    return [
        Finding(name=meter.name, domains=meter.domains, readable=not fault, note=fault or meter.method)
        for meter, fault in faults
    ]
