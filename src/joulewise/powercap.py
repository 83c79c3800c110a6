"""RAPL through Linux powercap: energy counters of processor packages and their memory.

A zone below a package is part of it, apart from ``dram``, which is beside it: packages and their dram zones are
added, ``core`` and ``uncore`` are not. ``psys`` (the platform) holds the packages, and ``intel-rapl-mmio`` shows the
same counters a second time: both are left out. See Documentation/power/powercap/powercap.rst of the Linux kernel.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from itertools import chain
from pathlib import Path

from joulewise.sampling import Closed, Fault, SampledMeter, Value, number, text

NAME = "powercap"
ABSENT = (
    "no /sys/class/powercap/intel-rapl:*: the processor has no such counters, the machine is virtual, or the kernel "
    "module is not loaded (sudo modprobe intel_rapl_msr)"
)
UDEV_RULE = 'SUBSYSTEM=="powercap", ACTION=="add", RUN+="/bin/chmod a+r %S%p/energy_uj"'
UDEV_FILE = "/etc/udev/rules.d/70-powercap.rules"
CEILING_W = 2000.0  # assumed: no package draws more; a counter that says so was reset
SLACK_S = 0.01  # a counter may be that late, so that a short window holds the energy of a longer one


@dataclass(frozen=True, slots=True)
class Zone:
    """A counter.

    Args:
        domain: what it counts, such as ``package-0`` or ``package-0/dram``.
        counter: its file, in microjoules.
        range_uj: where it begins again at 0; None where the kernel does not say.
    """

    domain: str
    counter: Path
    range_uj: float | None


@dataclass(frozen=True, slots=True)
class Zones:
    """All counters that are added."""

    zones: tuple[Zone, ...]
    name: str = NAME
    method: str = "powercap (RAPL): energy counters of processor packages and dram"
    step_s: float = 0.001
    reliable_s: float = 1.0

    @property
    def domains(self) -> tuple[str, ...]:
        """Packages and dram."""
        return tuple(zone.domain for zone in self.zones)

    @property
    def interval_s(self) -> float:
        """Twice in the time in which the smallest counter could wrap around, at most a minute."""
        ranges = [zone.range_uj for zone in self.zones if zone.range_uj]
        return min([60.0, *(one * 1e-6 / CEILING_W / 2 for one in ranges)])

    def sample(self) -> tuple[Value | Fault, ...]:
        """Read every counter, in microjoules."""
        hint = permission_hint([zone.counter for zone in self.zones])
        found = (number(zone.counter, hint) for zone in self.zones)
        return tuple(one if isinstance(one, Fault) else (one,) for one in found)

    def between(self, domain: int, before: Value, after: Value, seconds: float) -> float | Fault:
        """Difference of a counter, ``after - before``, plus its range where it wrapped around."""
        zone, steps = self.zones[domain], after[0] - before[0]
        if steps < 0 and zone.range_uj is None:
            return Fault(
                f"{zone.counter} went back from {before[0]:.0f} to {after[0]:.0f} uJ, and its range is not known"
            )
        joules = 1e-6 * (steps if steps >= 0 else steps + (zone.range_uj or 0))
        if 0 <= joules <= CEILING_W * (seconds + SLACK_S):
            return joules
        return Fault(
            f"{zone.counter} went from {before[0]:.0f} to {after[0]:.0f} uJ in {seconds:.3g} s, which is neither "
            "energy nor a wrap-around: the counter was reset"
        )

    def caveat(self, closed: Closed) -> str:
        """None."""
        del closed
        return ""


def permission_hint(counters: list[Path]) -> str:
    """That counters may not be read, and what to type: until the next start of the machine, and for good."""
    files = " ".join(map(str, counters))
    return (
        f"only root may read energy counters since Linux 5.10; until the next start: sudo chmod a+r {files}; for good: "
        f"put this line into {UDEV_FILE}: {UDEV_RULE}"
    )


def find(root: Path) -> tuple[SampledMeter, ...]:
    """One meter over all packages and dram zones of a sensor tree; none where there is none."""
    folder = root / "sys/class/powercap"
    tops = [path for path in sorted(folder.glob("intel-rapl:*")) if re.fullmatch(r"intel-rapl:\d+", path.name)]
    zones = tuple(chain.from_iterable(_zones(top) for top in tops))
    return (SampledMeter(Zones(zones)),) if zones else ()


def _zones(top: Path) -> list[Zone]:
    package = text(top / "name")
    if isinstance(package, Fault) or not package.startswith("package"):
        return []
    below = sorted(top.glob(f"{top.name}:*"))
    return [_zone(top, package), *(_zone(path, f"{package}/dram") for path in below if text(path / "name") == "dram")]


def _zone(path: Path, domain: str) -> Zone:
    top = number(path / "max_energy_range_uj")
    return Zone(domain, path / "energy_uj", None if isinstance(top, Fault) or top <= 0 else top)
