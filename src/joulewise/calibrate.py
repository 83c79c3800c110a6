"""What a calibration measures, and what its readings say: plans, and lines through medians. Nothing here has a clock.

A machine is timed, and metered where it has a sensor, in windows: streams over working sets that fit one level of
memory each, sparse updates beyond the last cache, and sends to another machine. `joulewise.probes` runs them.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from typing import Literal

import msgspec
import numpy as np

from joulewise.errors import CalibrationError
from joulewise.machine import Cache
from joulewise.regression import Line, fit, half_width

POINTS = 6
"""Working sets of each level, densities, and sizes of a send."""
REPEATS = 5
IDLE_WINDOWS = 3
"""Before the first window of work, and again after the last."""
DENSITIES = (0.001, 0.002, 0.005, 0.01, 0.02, 0.03)
ONE_LINE_BYTES = 64
NO_CACHE_BYTES = 32 << 20
"""Taken for the last cache where nothing is known of any."""
DRIFT = 0.1

Kind = Literal["idle", "stream", "scatter", "send"]
KINDS: tuple[Kind, ...] = ("idle", "stream", "scatter", "send")


class Probe(msgspec.Struct, frozen=True):
    """One thing that a window does over and over.

    Args:
        kind: rest; change every element of a working set; change some elements; send and wait for the answer.
        part: what it tells about: ``idle``, ``L1`` and so on, ``memory``, ``lines``, ``link``.
        size_bytes: of the working set, or of the payload.
        density: part of the elements that a scatter changes.
    """

    kind: Kind
    part: str
    size_bytes: int = 0
    density: float = 1.0


class Sample(msgspec.Struct, frozen=True):
    """What one window read.

    Args:
        probe: what was done.
        amount: of one call: bytes of the working set, lines touched, or bytes of payload; 0 for idle.
        calls: how often it was done.
        seconds: length of the window.
        work_s: how long this program ran in it; the whole window for sends, whose waiting is part of them.
        joules: energy of the window, idle power included; None where nothing was metered.
        domains: what the sensor sees.
        note: what the sensor has to say beside the number.
    """

    probe: Probe
    amount: int
    calls: int
    seconds: float
    work_s: float
    joules: float | None = None
    domains: tuple[str, ...] = ()
    note: str = ""


class Plan(msgspec.Struct, frozen=True):
    """The windows of a calibration.

    Args:
        probes: what is measured, without idle.
        window_s: length of a window in seconds; one call at least.
        idle: whether idle windows come before and after.
    """

    probes: tuple[Probe, ...]
    window_s: float
    idle: bool

    @property
    def windows(self) -> int:
        """How many windows there are in all."""
        return REPEATS * len(self.probes) + 2 * self._rests

    @property
    def _rests(self) -> int:
        return IDLE_WINDOWS if self.idle else 0

    def order(self, rng: np.random.Generator) -> tuple[Probe, ...]:
        """Every probe `REPEATS` times in random order, so that a drift of the machine spreads over all of them."""
        rest = (Probe("idle", "idle"),) * self._rests
        work = self.probes * REPEATS
        return (*rest, *(work[place] for place in rng.permutation(len(work))), *rest)


class Idle(msgspec.Struct, frozen=True):
    """Power of the machine at rest.

    Args:
        power_w: mean of before and after, in watts.
        half_w: half the width of its 95 % interval, at least half of what it drifted.
        drift: difference of after and before, as a part of the mean.
    """

    power_w: float
    half_w: float
    drift: float

    @property
    def note(self) -> str | None:
        """That idle power changed while the machine was measured, or None."""
        if abs(self.drift) <= DRIFT:
            return None
        return (
            f"idle power was {100 * abs(self.drift):.0f} % {'higher' if self.drift > 0 else 'lower'} after than before"
        )


class Finding(msgspec.Struct, frozen=True):
    """What the windows of one part say.

    Args:
        part: as in `Probe`.
        time: seconds that this program ran for a call, over its amount.
        energy: joules of a call above idle over its amount; None where they were not all metered.
    """

    part: str
    time: Line
    energy: Line | None

    @property
    def unit(self) -> str:
        """What the amount counts: ``byte`` or ``line``."""
        return "line" if self.part == "lines" else "byte"


def plan(
    caches: Sequence[Cache], available_bytes: int, seconds: float, idle: bool, payload_bytes: int | None = None
) -> Plan:
    """What to measure in about `seconds`.

    Each cache gets working sets of at most half of it and at least twice the cache before, memory gets sets from
    twice to six times the last cache, and sparse updates run over the largest of those.

    Args:
        caches: the closest first; may be empty.
        available_bytes: memory that is free; a quarter of it is used at most.
        seconds: about how long the whole may take.
        idle: whether there is a sensor, so that idle power matters.
        payload_bytes: largest payload to send; None without a link.

    Raises:
        CalibrationError: there is too little free memory for a working set beyond the last cache.

    Example:
        >>> caches = [Cache(1, 32 << 10, 64, "reported"), Cache(2, 512 << 10, 64, "reported")]
        >>> made = plan(caches, available_bytes=8 << 30, seconds=60, idle=False)
        >>> [probe.size_bytes >> 10 for probe in made.probes if probe.part == "L2"]
        [0, 64, 84, 111, 147, 194, 256]
        >>> made.windows
        135
    """
    probes = [probe for cache, low in zip(caches, _floors(caches), strict=True) for probe in _streams(cache, low)]
    last = max((cache.capacity_bytes for cache in caches), default=NO_CACHE_BYTES)
    largest = min(6 * last, available_bytes // 4)
    if largest < 3 * last:
        raise CalibrationError(
            f"working sets beyond the last cache ({last >> 20} MiB) need {12 * last >> 20} MiB of free memory, but "
            f"{available_bytes >> 20} MiB are free; close other programs and try again"
        )
    sizes = _between(2 * last, largest)
    probes += _streams_over("memory", sizes)
    probes += [Probe("scatter", "lines", sizes[-1], density) for density in DENSITIES]
    if payload_bytes is not None:
        probes += [Probe("send", "link", size) for size in _between(max(256, payload_bytes // 256), payload_bytes)]
    windows = REPEATS * len(probes) + 2 * IDLE_WINDOWS * idle
    return Plan(probes=tuple(probes), window_s=seconds / windows, idle=idle)


def _floors(caches: Sequence[Cache]) -> tuple[int, ...]:
    return (0, *(2 * cache.capacity_bytes for cache in caches))[: len(caches)]


def _streams(cache: Cache, low: int) -> list[Probe]:
    high = cache.capacity_bytes // 2
    if 4 * low > 3 * high:  # too close to the cache before: no set lies in this one alone
        return []
    return _streams_over(cache.name, _between(max(low, high // 8), high))


def _streams_over(part: str, sizes: Sequence[int]) -> list[Probe]:
    # One line: what a call costs apart from the bytes that it moves, so that the slope is of the bytes alone.
    return [Probe("stream", part, size) for size in (ONE_LINE_BYTES, *sizes)]


def _between(low: int, high: int) -> list[int]:
    """`POINTS` sizes in geometric progression, multiples of 64 bytes, `low` and `high` among them."""
    return [max(64, round(size / 64) * 64) for size in np.geomspace(low, high, POINTS)]


def idle_power(samples: Sequence[Sample]) -> Idle | None:
    """Power at rest from the windows at rest; None when one of them was not metered, or there are none.

    Example:
        >>> rest = Probe("idle", "idle")
        >>> found = idle_power([Sample(rest, 0, 1, 2.0, 0.0, joules) for joules in (6.0, 6.2, 6.1, 6.1, 6.0, 6.2)])
        >>> round(found.power_w, 2), round(found.half_w, 2), abs(round(found.drift, 2))
        (3.05, 0.05, 0.0)
    """
    powers = [_per(sample.joules, sample.seconds) for sample in samples if sample.probe.kind == "idle"]
    if len(powers) < 2 or any(math.isnan(power) for power in powers):
        return None
    before, after = statistics.mean(powers[: len(powers) // 2]), statistics.mean(powers[len(powers) // 2 :])
    mean = statistics.mean(powers)
    half = max(half_width(powers), abs(after - before) / 2)
    return Idle(power_w=mean, half_w=half, drift=(after - before) / mean if mean else 0.0)


def findings(samples: Sequence[Sample], idle: Idle | None) -> tuple[Finding, ...]:
    """Lines of time, and of energy above idle, over the amounts of each part: caches, memory, lines, link.

    A point is the median over its windows. Energy of a call is ``(joules - idle power * seconds) / calls``, and the
    uncertainty of idle power widens the interval of a slope by itself times the seconds per amount.

    Args:
        samples: of a whole calibration.
        idle: from `idle_power`; without it there is no energy.
    """
    ordered = sorted(samples, key=lambda sample: (KINDS.index(sample.probe.kind), sample.probe.size_bytes))
    largest_last = dict.fromkeys(sample.probe.part for sample in reversed(ordered) if sample.probe.kind != "idle")
    parts = reversed(largest_last)
    return tuple(_finding(part, [sample for sample in samples if sample.probe.part == part], idle) for part in parts)


def _finding(part: str, samples: Sequence[Sample], idle: Idle | None) -> Finding:
    points = [[one for one in samples if one.amount == amount] for amount in sorted({one.amount for one in samples})]
    amounts = [point[0].amount for point in points]
    work = [statistics.median(one.work_s / one.calls for one in point) for point in points]
    time = fit(amounts, work, work)
    if idle is None or any(one.joules is None for one in samples):
        return Finding(part, time, None)
    whole = [statistics.median(one.seconds / one.calls for one in point) for point in points]
    joules = [statistics.median(_above(one, idle) for one in point) for point in points]
    # Sensor and idle power both scatter in proportion to the length of a window.
    return Finding(part, time, _widened(fit(amounts, joules, whole), fit(amounts, whole, whole), idle))


def _above(sample: Sample, idle: Idle) -> float:
    return (_per(sample.joules, 1.0) - idle.power_w * sample.seconds) / sample.calls


def _per(joules: float | None, seconds: float) -> float:
    return math.nan if joules is None else joules / seconds


def _widened(energy: Line, whole: Line, idle: Idle) -> Line:
    return msgspec.structs.replace(
        energy,
        slope_half=math.hypot(energy.slope_half, idle.half_w * whole.slope),
        intercept_half=math.hypot(energy.intercept_half, idle.half_w * whole.intercept),
    )


def assumed(finding: Finding, watts: float) -> Finding:
    """The finding with energy = `watts` times its time, which no sensor measured.

    Example:
        >>> line = Line(slope=2e-9, slope_half=1e-10, intercept=0, intercept_half=0, r_squared=1, worst=0, points=6)
        >>> assumed(Finding("L1", line, None), watts=10).energy.slope
        2e-08
    """
    time = finding.time
    energy = msgspec.structs.replace(
        time,
        slope=watts * time.slope,
        slope_half=watts * time.slope_half,
        intercept=watts * time.intercept,
        intercept_half=watts * time.intercept_half,
    )
    return Finding(finding.part, time, energy)
