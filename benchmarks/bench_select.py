"""Selection against what users have: one vector of ResNet-18's shapes, one thread, ratios measured in one run.

    python benchmarks/bench_select.py [--repeats 9] [--densities 0.01 0.2]

Every round runs every contestant once, so that all of them meet the same disturbances; medians of the rounds
are printed, of this process's CPU time and of wall time, and the medians of each round's ratios. `torch.topk` and
`np.argpartition` also gather the signed values. With the kernel, reading the vector once is the kernel's loop.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import time
from collections.abc import Callable, Sequence

import numpy as np
import torch

from joulewise import CWMP, Costs, Count, Joules, Layout, TopK, kernel, native_select, prefix, select
from joulewise.benchdata import resnet18
from joulewise.limits import limit_of, rank
from joulewise.ranking import Carry

DENSITIES = (0.01, 0.05, 0.10, 0.20)
READ, TOPK, ARGPARTITION = "read", "torch.topk + gather", "np.argpartition + gather"
Contestant = Callable[[], object]


def model() -> tuple[np.ndarray, np.ndarray, Costs]:
    """An update and a residual whose tensors differ in scale (synthetic), and a price for each tensor."""
    layout, rng = resnet18(), np.random.default_rng(0)
    scale = np.repeat(10 ** rng.uniform(-4, -1.5, len(layout.tensors)), layout.sizes)
    a, residual = ((rng.laplace(size=layout.n) * scale).astype(np.float32) for _ in range(2))
    return a, residual, Costs.of(np.exp(1.15 * rng.standard_normal(len(layout.tensors))), layout, "relative")


def contestants(a: np.ndarray, residual: np.ndarray, costs: Costs, density: float) -> dict[str, Contestant]:
    """What is timed at one density."""
    k, tensor, into = int(density * a.size), torch.from_numpy(a), np.empty_like(a)
    # The energy that buys as many coordinates, so that every contestant of a density returns as much.
    room = Joules(float(select(a, costs, CWMP(), Count(k)).spent or 0.0))
    ranking, (units, limit, _) = rank(a, costs, CWMP()), limit_of(room, costs)

    def argpartition() -> object:
        places = np.argpartition(np.abs(a), a.size - k)[a.size - k :]
        return places, a[places]

    library = kernel.library()
    every: dict[str, Contestant] = {
        READ: lambda: np.bitwise_or.reduce(a.view(np.uint32)),
        "select TopK Count": lambda: select(a, costs, TopK(), Count(k)),
        "select CWMP Joules": lambda: select(a, costs, CWMP(), room),
        "CWMP, NumPy": lambda: prefix.prefix_in_numpy(ranking, units, limit),
        TOPK: lambda: tensor[torch.topk(tensor.abs(), k, sorted=False)[1]],
        ARGPARTITION: argpartition,
    }
    if library is None:
        return every

    def native(carry: Carry | None = None, flags: int = 0) -> object:
        return native_select.longest_prefix(library, ranking, units, limit, carry, flags)

    return every | {
        READ: lambda: native_select.read(library, a),
        "CWMP": native,
        "CWMP, portable": lambda: native(flags=native_select.PORTABLE),
        "CWMP + residual": lambda: native(Carry(into, residual)),
        "CWMP + residual, fresh": lambda: native(Carry(np.empty_like(a), residual)),
        "CWMP + residual, portable": lambda: native(Carry(into, residual), native_select.PORTABLE),
    }


def timed(run: Contestant) -> tuple[float, float]:
    """CPU and wall milliseconds of one run."""
    cpu, wall = time.process_time(), time.perf_counter()
    run()
    return (time.process_time() - cpu) * 1e3, (time.perf_counter() - wall) * 1e3


def rounds_of(every: dict[str, Contestant], repeats: int) -> dict[str, list[tuple[float, float]]]:
    """CPU and wall milliseconds of each round, interleaved, the first round not counted."""
    rounds = [{name: timed(run) for name, run in every.items()} for _ in range(repeats + 1)][1:]
    return {name: [each[name] for each in rounds] for name in every}


def ratio(above: list[tuple[float, float]], below: list[tuple[float, float]]) -> float:
    """Median of the rounds' ratios of CPU time."""
    return statistics.median(over[0] / under[0] for over, under in zip(above, below, strict=True))


def row(density: float, name: str, rounds: dict[str, list[tuple[float, float]]]) -> str:
    """One row of the table."""
    own = rounds[name]
    cpu, wall = (statistics.median(each[i] for each in own) for i in (0, 1))
    ratios = ratio(own, rounds[READ]), ratio(rounds[TOPK], own), ratio(rounds[ARGPARTITION], own)
    return line(f"{density:.0%}", name, *(f"{number:.1f}" for number in (cpu, wall, *ratios)))


def table(repeats: int, densities: Sequence[float]) -> list[str]:
    """The lines of the report."""
    a, residual, costs = model()
    lines = [line("", "", "CPU ms", "wall ms", "x read", "topk/", "argp/")]
    for density in densities:
        rounds = rounds_of(contestants(a, residual, costs, density), repeats)
        lines += [row(density, name, rounds) for name in rounds]
    return lines + worst_cases(a, repeats)


def line(density: str, name: str, *figures: str) -> str:
    """One row of the table."""
    return f"{density:>4} {name:26}" + "".join(f"{figure:>9}" for figure in figures)


def worst_cases(a: np.ndarray, repeats: int) -> list[str]:
    """Vectors on which a sample says little, against `torch.topk` on the same vector."""
    rng, costs, k = np.random.default_rng(1), Costs.of(1.0, Layout.single(a.size), "relative"), a.size // 10
    vectors = {
        "all equal": np.full(a.size, 0.5, np.float32),
        "all zero": np.zeros(a.size, np.float32),
        "97 % zeros": np.where(rng.random(a.size) < 0.97, np.float32(0), a),
        "seven values": (rng.integers(-3, 4, a.size) * 0.25).astype(np.float32),
        "denormals": (a * 1e-38).astype(np.float32),
    }
    lines = []
    for name, vector in vectors.items():
        tensor = torch.from_numpy(vector)
        every = {
            "select": lambda vector=vector: select(vector, costs, TopK(), Count(k)),
            TOPK: lambda tensor=tensor: tensor[torch.topk(tensor.abs(), k, sorted=False)[1]],
        }
        rounds = rounds_of(every, max(1, repeats // 2))
        cpu, wall = (statistics.median(each[i] for each in rounds["select"]) for i in (0, 1))
        figures = f"{cpu:.1f}", f"{wall:.1f}", "", f"{ratio(rounds[TOPK], rounds['select']):.1f}"
        lines.append(line("10%", f"TopK, {name}", *figures))
    return lines


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description="Time selection against torch.topk and np.argpartition.")
    parser.add_argument("--repeats", type=int, default=9)
    parser.add_argument("--densities", type=float, nargs="+", default=DENSITIES)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    title = (
        f"{resnet18().n:,} parameters, {kernel.active()}, {kernel.threads()} thread(s), median of {arguments.repeats} "
        "rounds; ratios are of CPU time"
    )
    sys.stdout.write("\n".join([title, *table(arguments.repeats, arguments.densities)]) + "\n")


if __name__ == "__main__":
    main()
