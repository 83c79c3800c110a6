"""Rounds: what Flower and joulewise add to the training, in this process and on Flower's simulation.

Run: ``pytest benchmarks/bench_rounds.py -s``, or ``python benchmarks/bench_rounds.py [--rounds N]``.

Ten clients train an MLP 64-64-10 on the digits, one thread. The plain loop trains, averages and evaluates the
same way without Flower; "Flower alone" is what its messages, app and strategy add to that, before joulewise does
anything. Rounds of all loops in this process take turns, and each row is the median of the
differences, so that other load on the machine hits both alike. Rounds on Ray run in processes of their own:
there only time on the wall can be compared.
"""

from __future__ import annotations

import argparse
import importlib.util
import logging
import os
import statistics
import sys
import tempfile
import time
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise
from uuid import uuid4

import numpy as np
import pytest
import torch
from flwr.app import ArrayRecord, ConfigRecord, MetricRecord, RecordDict
from flwr.app import Message as FlowerMessage
from flwr.clientapp import ClientApp
from flwr.serverapp import ServerApp
from flwr.serverapp.strategy import FedAvg

from joulewise import learning
from joulewise.compress import Compressor, ErrorFeedback
from joulewise.flower import SparseGrid
from joulewise.flower.app import Arm, federate
from joulewise.flower.choice import StrategyChoice
from joulewise.flower.inprocess import InProcessGrid
from joulewise.learning import IID, MLP, Digits, Examples, Training
from joulewise.rules import Dense, Density, TopK

CLIENTS, SEED = 10, 0
DATA, MODEL, TRAINING = Digits(clients=CLIENTS, partition=IID()), MLP(hidden=(64,)), Training()


@dataclass(frozen=True)
class Took:
    """Milliseconds of one round: of this process's CPU, and on the wall."""

    cpu: float
    wall: float


# ---------------------------------------------------------------- the rounds that are compared


def parts() -> tuple[learning.Dataset, list[Examples]]:
    dataset = learning.load(DATA)
    rows = learning.partition(DATA, dataset.train.labels, SEED)
    return dataset, [dataset.train.take(each) for each in rows]


def new_module() -> torch.nn.Module:
    return learning.build(MODEL, 1, 8, 8, 10, SEED)


def train(module: torch.nn.Module, examples: Examples, number: int, client: int) -> float:
    return learning.train(module, examples, TRAINING, np.random.default_rng([SEED, number, client]))


def plain(rounds: int) -> Iterator[None]:
    """Training, averaging and evaluation, and nothing else."""
    dataset, dealt = parts()
    module = new_module()
    model = {name: array.copy() for name, array in learning.arrays(module).items()}
    total = sum(len(examples.labels) for examples in dealt)
    for number in range(1, rounds + 1):
        mean = {name: np.zeros_like(array) for name, array in model.items()}
        for client, examples in enumerate(dealt):
            learning.load_arrays(module, model)
            train(module, examples, number, client)
            for name, array in learning.arrays(module).items():
                mean[name] += array * np.float32(len(examples.labels) / total)
        model = mean
        learning.load_arrays(module, model)
        learning.evaluate(module, dataset.test)
        yield


def study(rounds: int, compressor: Compressor) -> Iterator[object]:
    """What `joulewise run` does."""
    devices = ("synthetic-kind-10",) * CLIENTS
    return federate(Arm("bench", DATA, MODEL, TRAINING, StrategyChoice(), devices, compressor, rounds), SEED)


def users_app() -> ClientApp:
    """An app as Flower's examples write it, without joulewise."""
    cache: dict[str, object] = {}

    def mine() -> tuple[torch.nn.Module, list[Examples]]:
        if not cache:
            torch.set_num_threads(1)
            cache["mine"] = new_module(), parts()[1]
        return cache["mine"]

    app = ClientApp()

    @app.train()
    def train_app(message, context):
        module, dealt = mine()
        client = int(context.node_config["partition-id"])
        module.load_state_dict(message.content["arrays"].to_torch_state_dict())
        loss = train(module, dealt[client], int(message.content["config"]["server-round"]), client)
        metrics = MetricRecord({"num-examples": len(dealt[client].labels), "train-loss": loss})
        answer = RecordDict({"arrays": ArrayRecord(module.state_dict()), "metrics": metrics})
        return FlowerMessage(answer, reply_to=message)

    return app


def strategy() -> FedAvg:
    return FedAvg(fraction_evaluate=0.0, min_train_nodes=CLIENTS, min_available_nodes=CLIENTS)


class Bare(InProcessGrid):
    """Flower's messages, app and strategy alone: nothing is copied, checked or counted."""

    def _deliver(self, message: FlowerMessage) -> FlowerMessage:
        message.metadata.__dict__["_message_id"] = uuid4().hex
        return self._app(message, self._contexts[message.metadata.dst_node_id])

    def accept(self, arrays: ArrayRecord) -> ArrayRecord:
        return arrays


def users_loop(rounds: int, grid: SparseGrid | Bare) -> Iterator[None]:
    """The user's app and FedAvg, unchanged, in this process."""
    averaging = strategy()
    dataset, module = learning.load(DATA), new_module()
    arrays = ArrayRecord(module.state_dict())
    for number in range(1, rounds + 1):
        replies = grid.send_and_receive(averaging.configure_train(number, arrays, ConfigRecord(), grid))
        aggregated, _ = averaging.aggregate_train(number, replies)
        arrays = grid.accept(aggregated)
        module.load_state_dict(arrays.to_torch_state_dict())
        learning.evaluate(module, dataset.test)
        yield


def on_ray(rounds: int) -> list[Took]:
    """The user's app and FedAvg on Flower's simulation, as users have it."""
    from flwr.simulation import run_simulation  # noqa: PLC0415 (Ray is heavy, and may be missing)

    ends: list[float] = []
    dataset, module = learning.load(DATA), new_module()
    server = ServerApp()

    def evaluated(number: int, arrays: ArrayRecord) -> None:
        module.load_state_dict(arrays.to_torch_state_dict())
        learning.evaluate(module, dataset.test)
        ends.append(time.perf_counter())

    @server.main()
    def main(grid, context):
        strategy().start(grid, ArrayRecord(module.state_dict()), num_rounds=rounds, evaluate_fn=evaluated)

    backend = {
        "client_resources": {"num_cpus": 1, "num_gpus": 0.0},
        "init_args": {"log_to_driver": False, "logging_level": "ERROR", "include_dashboard": False},
    }
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        run_simulation(server, users_app(), CLIENTS, backend_config=backend)
    # The first rounds load PyTorch and the data in every worker.
    return [Took(0.0, 1000 * (end - begin)) for begin, end in pairwise(ends[3:])]


# ---------------------------------------------------------------- measuring


def take_turns(loops: dict[str, Iterator[object]], rounds: int, warmup: int = 3) -> dict[str, list[Took]]:
    """One round of each loop after another."""
    took: dict[str, list[Took]] = {name: [] for name in loops}
    for number in range(rounds + warmup):
        for name, loop in loops.items():
            cpu, wall = time.process_time(), time.perf_counter()
            next(loop)
            spent = Took(1000 * (time.process_time() - cpu), 1000 * (time.perf_counter() - wall))
            if number >= warmup:
                took[name].append(spent)
    return took


def measure(rounds: int, with_ray: bool = True) -> dict[str, Took]:
    """Milliseconds per round above the plain loop by engine; the plain loop's own under its name."""
    torch.set_num_threads(1)
    logging.getLogger("flwr").setLevel(logging.ERROR)
    one_percent = Compressor(TopK(), Density(0.01), feedback=ErrorFeedback())
    length = rounds + 3
    took = take_turns(
        {
            "plain loop": plain(length),
            "Flower alone, user's app": users_loop(length, Bare(users_app(), CLIENTS)),
            "in process, user's app, no mod": users_loop(length, SparseGrid(InProcessGrid(users_app(), CLIENTS))),
            "in process, study, Dense": study(length, Compressor(Dense(), None)),
            "in process, study, TopK 1 %": study(length, one_percent),
        },
        rounds,
    )
    base = took.pop("plain loop")
    above = {name: _above(each, base) for name, each in took.items()}
    if with_ray:
        own = statistics.median(each.wall for each in base)
        ray = statistics.median(each.wall for each in on_ray(length))
        above["Flower's simulation on Ray, user's app"] = Took(float("nan"), ray - own)
    return {"plain loop": Took(*(statistics.median(values) for values in _columns(base)))} | above


def _above(took: list[Took], base: list[Took]) -> Took:
    pairs = list(zip(took, base, strict=True))
    cpu = statistics.median(one.cpu - other.cpu for one, other in pairs)
    return Took(cpu, statistics.median(one.wall - other.wall for one, other in pairs))


def _columns(took: list[Took]) -> tuple[list[float], list[float]]:
    return [each.cpu for each in took], [each.wall for each in took]


def table(above: dict[str, Took], rounds: int) -> str:
    """The measurements as text; ratios are of Ray's time on the wall above the plain loop."""
    ray = next((each.wall for name, each in above.items() if "Ray" in name), None)
    lines = [
        f"ms per round above the plain loop, medians of {rounds}: {CLIENTS} clients, MLP 64-64-10, digits",
        f"{'':40s}{'CPU':>8s}{'wall':>8s}{'Ray / this':>12s}",
    ]
    for name, each in above.items():
        ratio = "" if ray is None or name == "plain loop" else f"{ray / each.wall:.1f}"
        note = " (its own time)" if name == "plain loop" else ""
        lines.append(f"{name + note:40s}{each.cpu:8.2f}{each.wall:8.2f}{ratio:>12s}")
    return "\n".join(lines) + "\n"


# ---------------------------------------------------------------- as a benchmark of the suite


def test_rounds_in_process(benchmark):
    above = benchmark.pedantic(measure, (30, False), rounds=1)
    for name, each in above.items():
        benchmark.extra_info[name] = each.cpu


@pytest.mark.skipif(importlib.util.find_spec("ray") is None, reason="Ray is not installed")
def test_rounds_against_ray(benchmark, tmp_path, monkeypatch):
    monkeypatch.setenv("FLWR_HOME", str(tmp_path))
    above = benchmark.pedantic(measure, (30, True), rounds=1)
    sys.stdout.write("\n" + table(above, 30))
    ray = above["Flower's simulation on Ray, user's app"].wall
    for name, each in above.items():
        benchmark.extra_info[f"Ray / {name}"] = ray / each.wall


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=40)
    parser.add_argument("--no-ray", action="store_true")
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory() as home:
        os.environ["FLWR_HOME"] = home
        sys.stdout.write(table(measure(asked.rounds, not asked.no_ray), asked.rounds))
