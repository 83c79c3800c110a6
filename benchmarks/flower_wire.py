"""Bytes that joulewise counts beside bytes on the wire, over a real deployment of the example app.

``python benchmarks/flower_wire.py [--rounds 3]`` starts a SuperLink with TLS and three authenticated SuperNodes on
loopback, behind a TCP proxy that counts, runs ``examples/flower-app`` with joulewise and without, and prints a table.
It takes about two minutes, and needs openssl and ssh-keygen.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))

import deployment
from flower_wire import IDLE_S, Comparison, compare


def table(found: Comparison) -> str:
    """Per SuperNode and round, in bytes."""
    each = found.nodes * found.rounds
    lines = [
        f"{found.nodes} SuperNodes, {found.rounds} rounds; bytes per SuperNode and round",
        "",
        "| | payload up | wire up | payload down | wire down | exchanges | above payload per exchange, up, down |",
        "|---|---|---|---|---|---|---|",
    ]
    for name, run in (("dense", found.dense), ("Sparsify", found.sparse)):
        wire = run.wire
        above = f"{run.overhead_up:,.0f}, {run.overhead_down:,.0f}"
        numbers = (run.payload_up, wire.up, run.payload_down, wire.down)
        cells = " | ".join(f"{number / each:,.0f}" for number in numbers)
        lines.append(f"| {name} | {cells} | {wire.exchanges / each:.1f} | {above} |")
    less = found.dense.payload_up / found.sparse.payload_up, found.dense.wire.up / found.sparse.wire.up
    lines += [
        "",
        f"up: payload {less[0]:.1f}x less, wire {less[1]:.1f}x less",
        f"without work: {found.idle.up / found.nodes / IDLE_S:,.0f} bytes up, "
        f"{found.idle.down / found.nodes / IDLE_S:,.0f} bytes down per SuperNode and second",
    ]
    return "\n".join(lines)


def main() -> None:
    """Run both and print."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--rounds", type=int, default=3)
    rounds = parser.parse_args().rounds
    if deployment.missing() is not None:
        sys.exit(deployment.missing())
    with tempfile.TemporaryDirectory() as folder:
        print(table(compare(Path(folder), rounds)))


if __name__ == "__main__":
    main()
