"""The windows of a calibration: NumPy on arrays that are there already, and sends, timed and metered.

The workload is NumPy's ``negative`` in place: it reads and writes every element once, and its arithmetic flips a bit.
"""

from __future__ import annotations

import contextlib
import socket
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import cycle

import numpy as np
import numpy.typing as npt

from joulewise.calibrate import Plan, Probe, Sample
from joulewise.errors import CalibrationError
from joulewise.machine import Cache, Memory, infer_caches
from joulewise.readings import Meter, Reading
from joulewise.sink import Address, connect, send

Call = Callable[[], object]

VALUE_BYTES = 4
LINE_BYTES = 64
"""Taken for a line of cache where its size is not known."""
SHIFTS = 64
LEAST_WORK = 0.25
"""Part of a window that must be work: a program that is put aside at its start would time one call."""
SWEEP_BYTES = tuple(2**power for power in range(13, 28))
SEND_S = 0.1
"""The largest payload takes about this long."""
SMALLEST_PAYLOAD, LARGEST_PAYLOAD = 1 << 14, 1 << 22


@dataclass(frozen=True)
class Scatter:
    """A sparse update: which elements it changes, and where they are held meanwhile.

    Every call starts one line further on, for `SHIFTS` calls: lines that were changed a moment ago lie in a cache.

    Args:
        indices: int64[k], ascending.
        held: float32[k].
        views: float32 arrays, each one line further on than the one before.
        lines: how many lines of cache hold at least one of them.
    """

    indices: npt.NDArray[np.int64]
    held: npt.NDArray[np.float32]
    views: tuple[npt.NDArray[np.float32], ...]
    lines: int


@dataclass(frozen=True)
class Workspace:
    """Everything that windows work on, allocated once and touched.

    Args:
        values: float32, as large as the largest working set.
        scatters: by density.
        payload: random bytes, which no link can compress, as many as the largest send.
    """

    values: npt.NDArray[np.float32]
    scatters: dict[float, Scatter]
    payload: bytes


def workspace(plan: Plan, caches: Sequence[Cache], rng: np.random.Generator) -> Workspace:
    """Allocate what the probes of a plan need.

    Args:
        plan: the plan.
        caches: for the size of a line.
        rng: draws the elements of sparse updates, each with the probability that the density says, and the payload.
    """
    sets = [probe.size_bytes for probe in plan.probes if probe.kind in {"stream", "scatter"}]
    payload = max((probe.size_bytes for probe in plan.probes if probe.kind == "send"), default=0)
    line = max((cache.line_bytes or 0 for cache in caches), default=0) or LINE_BYTES
    values = np.ones(max(sets) // VALUE_BYTES, np.float32)
    densities = [probe.density for probe in plan.probes if probe.kind == "scatter"]
    scatters = {density: _scatter(values, density, line // VALUE_BYTES, rng) for density in densities}
    return Workspace(values, scatters, rng.bytes(payload))


def _scatter(values: npt.NDArray[np.float32], density: float, per_line: int, rng: np.random.Generator) -> Scatter:
    count = len(values) - SHIFTS * per_line
    expected = count * density
    gaps = rng.geometric(density, size=int(expected + 6 * expected**0.5) + 16)  # six sigmas more than are expected
    places = np.cumsum(gaps) - 1
    indices = places[: np.searchsorted(places, count)].astype(np.int64)
    lines = int(np.count_nonzero(np.diff(indices // per_line, prepend=-1)))
    views = tuple(values[shift * per_line :][:count] for shift in range(SHIFTS))
    return Scatter(indices, np.empty(len(indices), np.float32), views, lines)


def measure(
    plan: Plan, space: Workspace, rng: np.random.Generator, meter: Meter | None = None, address: Address | None = None
) -> Iterator[Sample]:
    """Run the windows of a plan in random order and yield what each read.

    Args:
        plan: the plan.
        space: from `workspace`.
        rng: draws the order.
        meter: what measures energy; None: time alone.
        address: of the sink, where the plan sends.

    Raises:
        CalibrationError: the meter gave no reading, or began to read something else; or the sink went away.
    """
    domains: tuple[str, ...] = ()
    for probe in plan.order(rng):
        with contextlib.ExitStack() as stack:
            call, amount = _prepared(probe, space, address, stack)
            if meter is None:
                yield Sample(probe, amount, *_run(call, plan.window_s, probe))
                continue
            mark = meter.begin()
            try:
                ran = _run(call, plan.window_s, probe)
            finally:
                reading = meter.end(mark)
        _refuse(reading, domains, probe)
        domains = reading.domains
        yield Sample(probe, amount, *ran, reading.joules, reading.domains, reading.note)


def _prepared(probe: Probe, space: Workspace, address: Address | None, stack: contextlib.ExitStack) -> tuple[Call, int]:
    """What a window does over and over, done once, and the amount of one call."""
    call, amount = _call(probe, space, address, stack)
    call()  # brings the working set to where it stays
    return call, amount


def _call(probe: Probe, space: Workspace, address: Address | None, stack: contextlib.ExitStack) -> tuple[Call, int]:
    if probe.kind == "stream":
        values = space.values[: probe.size_bytes // VALUE_BYTES]
        return partial(np.negative, values, values), values.nbytes
    if probe.kind == "scatter":
        scatter = space.scatters[probe.density]
        views = cycle(scatter.views)
        return (lambda: _flip(next(views), scatter)), scatter.lines
    if probe.kind == "send" and address is not None:
        payload, connection = space.payload[: probe.size_bytes], stack.enter_context(connect(address))
        return (lambda: send(connection, payload, address)), len(payload)
    return (lambda: None), 0


def _flip(values: npt.NDArray[np.float32], scatter: Scatter) -> None:
    np.take(values, scatter.indices, out=scatter.held, mode="clip")  # the other modes make a copy first
    np.negative(scatter.held, scatter.held)
    values[scatter.indices] = scatter.held


def _run(call: Call, window_s: float, probe: Probe) -> tuple[int, float, float]:
    """Calls, length of the window in seconds, and how long this thread worked in it."""
    if probe.kind == "idle":
        call = partial(time.sleep, window_s)
    least_work_s = LEAST_WORK * window_s if probe.kind in {"stream", "scatter"} else 0.0
    calls, seconds, work_s = _window(call, window_s, least_work_s)
    return calls, seconds, seconds if probe.kind == "send" else work_s


def _window(call: Call, window_s: float, least_work_s: float) -> tuple[int, float, float]:
    """Call until `window_s` is over and this thread ran for `least_work_s`; the clocks are read a few times only."""
    calls, batch = 0, 1
    work_began, began = time.thread_time(), time.perf_counter()
    while True:
        for _ in range(batch):
            call()
        calls += batch
        elapsed = time.perf_counter() - began
        work_s = time.thread_time() - work_began
        if elapsed >= window_s and work_s >= least_work_s:
            return calls, elapsed, work_s
        batch = max(1, int(calls * min(1.0, max(window_s - elapsed, least_work_s - work_s) / elapsed)))


def _refuse(reading: Reading, domains: tuple[str, ...], probe: Probe) -> None:
    if reading.joules is None:
        raise CalibrationError(
            f"the sensor gave no reading in a window of {probe.part} ({reading.note or reading.method}), so there is "
            "no price; mend the sensor or give more --seconds, or give --watts W instead of it"
        )
    if domains and reading.domains != domains:
        raise CalibrationError(
            f"the sensor saw {', '.join(domains)} at first, and {', '.join(reading.domains)} in a window of "
            f"{probe.part}, so there is no price; give more --seconds"
        )


def sweep(seconds: float, memory: Memory) -> tuple[Cache, ...]:
    """Caches as a sweep over working sets from 8 KiB to 128 MiB shows them, for systems that do not tell.

    Args:
        seconds: about how long it may take.
        memory: a quarter of what is available is used at most.
    """
    sizes = [size for size in SWEEP_BYTES if size <= memory.available_bytes // 4]
    values = np.ones(max(sizes) // VALUE_BYTES, np.float32)
    found = []
    for size in sizes:
        part = values[: size // VALUE_BYTES]
        windows = [_swept(part, seconds / len(sizes) / 3) for _ in range(3)]
        found.append(sorted(windows)[1] / size)
    return infer_caches(sizes, found)


def _swept(values: npt.NDArray[np.float32], window_s: float) -> float:
    calls, _, work_s = _window(partial(np.negative, values, values), window_s, LEAST_WORK * window_s)
    return work_s / calls


def largest_payload(address: Address) -> int:
    """Bytes that take about a tenth of a second on the link to a sink, within 16 KiB and 4 MiB.

    Raises:
        CalibrationError: nobody answers there, or something else than a sink.
    """
    with connect(address) as connection:
        seconds = min(_timed(connection, address) for _ in range(3))
    return int(min(LARGEST_PAYLOAD, max(SMALLEST_PAYLOAD, SMALLEST_PAYLOAD * SEND_S / seconds)))


def _timed(connection: socket.socket, address: Address) -> float:
    began = time.perf_counter()
    send(connection, bytes(SMALLEST_PAYLOAD), address)
    return time.perf_counter() - began
