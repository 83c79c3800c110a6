"""Selection against what users have: one vector of ResNet-18's size, one thread, ratios measured in one run.

    python benchmarks/bench_select.py [--repeats 9] [--n 11173962]

Every round runs every contestant once, so that all of them meet the same disturbances; medians of the rounds
are printed, of this process's CPU time and of wall time. `torch.topk` and `np.argpartition` also gather the
signed values.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import time
import tracemalloc
from collections.abc import Callable

import numpy as np
import torch

from joulewise import CWMP, Costs, Count, Joules, Layout, Projection, Selection, TopK, select

RESNET18 = 11_173_962
TENSORS = 62
DENSITIES = (0.01, 0.05, 0.10, 0.20)
READ = "read (bitwise_or)"
Contestant = Callable[[], object]


def model(n: int) -> tuple[np.ndarray, Costs]:
    """A vector like a trained model's update, in tensors of unequal size and scale, and two prices."""
    rng = np.random.default_rng(0)
    cuts = np.sort(rng.choice(np.arange(1, n), TENSORS - 1, replace=False))
    sizes = np.diff([0, *cuts.tolist(), n])
    layout = Layout.of({f"layer{i}.weight": np.broadcast_to(np.float32(0), (size,)) for i, size in enumerate(sizes)})
    scale = np.repeat(np.exp(0.5 * rng.standard_normal(TENSORS)), sizes)
    a = (rng.standard_normal(n) * np.abs(rng.standard_normal(n)) * scale * 1e-3).astype(np.float32)
    return a, Costs.of(np.where(np.arange(TENSORS) % 2, 1.0, 10.0), layout, "relative")


def contestants(a: np.ndarray, costs: Costs, density: float) -> dict[str, Contestant]:
    """What is timed at one density."""
    k, tensor = int(density * a.size), torch.from_numpy(a)
    # Energies that buy about as many coordinates, so that every contestant of a density returns as much.
    rooms = {rule: float(select(a, costs, rule, Count(k)).spent or 0.0) for rule in (CWMP(), Projection())}

    def torch_topk() -> object:
        _, places = torch.topk(tensor.abs(), k, sorted=False)
        return places, tensor[places]

    def argpartition() -> object:
        places = np.argpartition(np.abs(a), a.size - k)[a.size - k :]
        return places, a[places]

    return {
        READ: lambda: np.bitwise_or.reduce(a.view(np.uint32)),
        "select TopK Count": lambda: select(a, costs, TopK(), Count(k)),
        "select CWMP Joules": lambda: select(a, costs, CWMP(), Joules(rooms[CWMP()])),
        "select Projection Joules": lambda: select(a, costs, Projection(), Joules(rooms[Projection()])),
        "torch.topk + gather": torch_topk,
        "np.argpartition + gather": argpartition,
    }


def timed(run: Contestant) -> tuple[float, float]:
    """CPU and wall milliseconds of one run."""
    cpu, wall = time.process_time(), time.perf_counter()
    run()
    return (time.process_time() - cpu) * 1e3, (time.perf_counter() - wall) * 1e3


def medians(every: dict[str, Contestant], repeats: int) -> dict[str, tuple[float, float]]:
    """Median CPU and wall milliseconds, rounds interleaved, the first round not counted."""
    rounds = [{name: timed(run) for name, run in every.items()} for _ in range(repeats + 1)][1:]
    return {
        name: (statistics.median(r[name][0] for r in rounds), statistics.median(r[name][1] for r in rounds))
        for name in every
    }


def extra_memory(run: Contestant, a: np.ndarray) -> tuple[float, float]:
    """Peak memory besides the result, as a share of the update; and beyond 8 bytes per kept item too."""
    tracemalloc.start()
    result = run()
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert isinstance(result, Selection)
    outputs, items = result.indices.nbytes + result.values.nbytes, result.indices.size
    return (peak - outputs) / a.nbytes, (peak - outputs - 8 * items) / a.nbytes


def table(n: int, repeats: int) -> list[str]:
    """The lines of the report."""
    a, costs = model(n)
    lines = [line("", "", "CPU ms", "wall ms", "x read", "topk/", "argp/", "memory", "-8B/k")]
    for density in DENSITIES:
        every = contestants(a, costs, density)
        found = medians(every, repeats)
        for name, (cpu, wall) in found.items():
            ratios = [
                cpu / found[READ][0],
                *(found[other][0] / cpu for other in ("torch.topk + gather", "np.argpartition + gather")),
            ]
            memory = extra_memory(every[name], a) if name.startswith("select") else ()
            figures = [f"{number:.1f}" for number in (cpu, wall, *ratios)]
            lines.append(line(f"{density:.0%}", name, *figures, *(f"{share:.1%}" for share in memory)))
    return lines + worst_cases(n, repeats)


def line(density: str, name: str, *figures: str) -> str:
    """One row of the table."""
    return f"{density:>4} {name:26}" + "".join(f"{figure:>9}" for figure in figures)


def worst_cases(n: int, repeats: int) -> list[str]:
    """Vectors on which a sample says nothing, against `torch.topk` on the same vector."""
    costs, k = Costs.of(1.0, Layout.single(n), "relative"), n // 10
    spike = model(n)[0]
    spike[7] = 3e38
    vectors = {
        "all equal": np.full(n, 0.5, np.float32),
        "all zero": np.zeros(n, np.float32),
        "one 3e38": spike,
    }
    lines = []
    for name, a in vectors.items():
        tensor = torch.from_numpy(a)
        every = {
            "select": lambda a=a: select(a, costs, TopK(), Count(k)),
            "topk": lambda tensor=tensor: tensor[torch.topk(tensor.abs(), k, sorted=False)[1]],
        }
        found = medians(every, max(1, repeats // 2))
        (cpu, wall), (topk, _) = found["select"], found["topk"]
        lines.append(line("10%", f"select, {name}", f"{cpu:.1f}", f"{wall:.1f}", "", f"{topk / cpu:.1f}"))
    return lines


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description="Time selection against torch.topk and np.argpartition.")
    parser.add_argument("--n", type=int, default=RESNET18)
    parser.add_argument("--repeats", type=int, default=9)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    title = f"n = {arguments.n:,}, one thread, median of {arguments.repeats} rounds; ratios are of CPU time"
    sys.stdout.write("\n".join([title, *table(arguments.n, arguments.repeats)]) + "\n")


if __name__ == "__main__":
    main()
