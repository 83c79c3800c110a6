"""Bytes that joulewise counts beside bytes on the wire, over the example's deployment."""

from __future__ import annotations

import contextlib
import re
import shutil
import time
from dataclasses import dataclass
from pathlib import Path

import deployment
from counting_proxy import Counted, counting

IDLE_S = 15.0
"""How long SuperNodes without work are watched."""


@dataclass(frozen=True)
class Measured:
    """One run of the example.

    Args:
        payload_up: bytes of all replies' arrays, without Flower's and HTTP's headers.
        payload_down: bytes of all requests' arrays.
        wire: what crossed the proxy meanwhile.
        output: what the app printed.
    """

    payload_up: int
    payload_down: int
    wire: Counted
    output: str

    @property
    def overhead_up(self) -> float:
        """Bytes on the wire that are not payload, for each exchange."""
        return (self.wire.up - self.payload_up) / self.wire.exchanges

    @property
    def overhead_down(self) -> float:
        """As `overhead_up`, the other way."""
        return (self.wire.down - self.payload_down) / self.wire.exchanges


@dataclass(frozen=True)
class Comparison:
    """The example with joulewise and without, and its SuperNodes without work.

    Args:
        sparse: the app as it is.
        dense: the same without joulewise.
        idle: what crossed in `IDLE_S` seconds with nothing to do.
        rounds: of both.
        nodes: how many.
    """

    sparse: Measured
    dense: Measured
    idle: Counted
    rounds: int
    nodes: int


def copied_example(folder: Path) -> Path:
    """The example without what Python left in it."""
    return Path(shutil.copytree(deployment.EXAMPLE, folder, ignore=shutil.ignore_patterns("__pycache__")))


def compare(folder: Path, rounds: int) -> Comparison:
    """Deploy the example with its SuperNodes behind a counting proxy and run it with joulewise and without."""
    with contextlib.ExitStack() as stack:
        proxies = []

        def through_proxy(port: str) -> str:
            if not proxies:
                proxies.append(stack.enter_context(counting(int(port))))
            return str(proxies[0].port)

        box = stack.enter_context(deployment.deployment(folder, through_proxy))
        app, counted = copied_example(folder / "app"), proxies[0].counted
        runs = {}
        for name, settings in (("sparse", ""), ("dense", "sparse=false ")):
            before = counted.copy()
            output = deployment.run_app(box, app, name, f"{settings}num-server-rounds={rounds}")
            runs[name] = (counted.since(before), output)
        before = counted.copy()
        time.sleep(IDLE_S)
        idle = counted.since(before)
    nodes = len(deployment.readme_commands("flower-supernode"))
    sparse, dense = (Measured(*payloads(runs[name][1]), *runs[name]) for name in ("sparse", "dense"))
    return Comparison(sparse, dense, idle, rounds, nodes)


def payloads(output: str) -> tuple[int, int]:
    """Sums of the bytes up and down in the lines of all rounds."""
    lines = "\n".join(deployment.printed(output, "round "))
    return tuple(sum(map(int, re.findall(rf"(\d+) bytes {way}", lines))) for way in ("up", "down"))
