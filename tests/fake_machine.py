"""A machine to calibrate: small caches, a sensor that behaves as it is told, a sink on the loopback."""

import contextlib
import threading
import time
from dataclasses import dataclass, field

import numpy as np

from joulewise import sink
from joulewise.machine import Cache
from joulewise.readings import Mark, Reading, unavailable

KIB = 1 << 10
# The sets beyond small caches are small as well, and a whole calibration takes a second.
CACHES = (Cache(1, 32 * KIB, 64, "reported"), Cache(2, 256 * KIB, 64, "reported"))
LOOPBACK = "127.0.0.1"


@dataclass
class FakeMeter:
    """A sensor of a machine that draws `idle_w` always and `work_w` more while this thread works.

    It goes away after `windows` windows, and sees other domains after `moves`.
    """

    idle_w: float = 5.0
    work_w: float = 20.0
    windows: float = np.inf
    moves: float = np.inf
    opened: list[str] = field(default_factory=list)
    name: str = "fake"
    method: str = "a fake sensor"
    domains: tuple[str, ...] = ("core",)

    def fault(self):
        return ""

    def begin(self):
        self.opened.append("window")
        return Mark(self.name, (time.perf_counter(), time.thread_time()))

    def end(self, mark):
        wall, work = (
            now - then for now, then in zip((time.perf_counter(), time.thread_time()), mark.state, strict=True)
        )
        if len(self.opened) > self.windows:
            return unavailable("the sensor went away in the open window", method=self.method, window_s=wall)
        domains = self.domains if len(self.opened) <= self.moves else ("core", "dram")
        joules = self.idle_w * wall + self.work_w * work
        return Reading(
            joules=joules, basis="measured", domains=domains, window_s=wall, method=self.method, note="coarse"
        )


@contextlib.contextmanager
def running_sink():
    """A sink in a thread; gives its address and the list of what its connections brought."""
    served = []

    def run():
        with contextlib.suppress(OSError):
            served.extend(iter(sink.serve(server).__next__, None))

    with sink.listen(0) as server:
        threading.Thread(target=run, daemon=True).start()
        yield sink.Address(LOOPBACK, server.getsockname()[1]), served
