"""Bytes of a Flower app, both ways, with joulewise's two lines and without: training, evaluation and first download.

Run: ``python benchmarks/flower_bytes.py [--seeds N] [--rounds N] [--densities 0.01 0.1] [--lossy DENSITY]``.

Ten nodes train an MLP 64-800-10 (60,010 parameters) on the digits with FedAvg; every node trains and evaluates in every
round. Counted are the bytes of arrays as they cross the Grid, in each direction. Accuracy is that of the last model on
the central test part. The same seed deals out the same examples and draws the same batches in each row.
"""

from __future__ import annotations

import argparse
import logging
import time
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field

import numpy as np
from flwr.app import ArrayRecord, Context, Message, MetricRecord, RecordDict
from flwr.clientapp import ClientApp
from flwr.serverapp.strategy import FedAvg, FedAvgM, Strategy
from scipy import stats

from joulewise import learning
from joulewise.compress import ErrorFeedback
from joulewise.flower import Lossy, MemoryStore, Sparse, Sparsify
from joulewise.flower.downlink import Setting
from joulewise.flower.inprocess import InProcessGrid
from joulewise.learning import IID, MLP, Digits, Training
from joulewise.rules import Density, TopK

NODES = 10
MODEL, TRAINING, DATA = MLP(hidden=(800,)), Training(), Digits(clients=NODES, partition=IID())


@dataclass
class Counting(InProcessGrid):
    """Counts the bytes of arrays that cross, by direction and kind of message."""

    app: ClientApp
    bytes: Counter[str] = field(default_factory=Counter)

    def __post_init__(self) -> None:
        super().__init__(self.app, NODES)

    def send_and_receive(self, messages: Iterable[Message], *, timeout: float | None = None) -> list[Message]:
        sent = list(messages)
        for message in sent:
            self._count(f"down {message.metadata.message_type}", message)
        replies = super().send_and_receive(sent, timeout=timeout)
        for reply in replies:
            self._count("up", reply)
        return replies

    def _count(self, what: str, message: Message) -> None:
        records = message.content.array_records.values()
        self.bytes[what] += sum(len(array.data) for record in records for array in record.values())


def client_app(seed: int, *mods: Sparsify) -> ClientApp:
    """An app as Flower's documentation has it; the mod is one of the two lines."""
    app, rounds = ClientApp(mods=list(mods)), Counter()
    dataset = learning.load(DATA)
    parts = learning.partition(DATA, dataset.train.labels, seed)
    module = learning.build(MODEL, 1, 8, 8, 10, seed)

    @app.train()
    def train(message: Message, context: Context) -> Message:
        partition = int(context.node_config["partition-id"])
        rounds[partition] += 1
        learning.load_arrays(module, {name: each.numpy() for name, each in message.content["arrays"].items()})
        examples = dataset.train.take(parts[partition])
        loss = learning.train(module, examples, TRAINING, np.random.default_rng([seed, rounds[partition], partition]))
        arrays = ArrayRecord(module.state_dict())
        metrics = MetricRecord({"train-loss": loss, "num-examples": len(examples.labels)})
        return Message(RecordDict({"arrays": arrays, "metrics": metrics}), reply_to=message)

    @app.evaluate()
    def evaluate(message: Message, context: Context) -> Message:
        learning.load_arrays(module, {name: each.numpy() for name, each in message.content["arrays"].items()})
        examples = dataset.train.take(parts[int(context.node_config["partition-id"])])
        found = learning.evaluate(module, examples)
        metrics = MetricRecord({"eval-acc": found.accuracy, "num-examples": len(examples.labels)})
        return Message(RecordDict({"metrics": metrics}), reply_to=message)

    return app


def run(strategy: Strategy, seed: int, rounds: int, *mods: Sparsify) -> tuple[Counter[str], float, float]:
    """Bytes by direction, accuracy, and seconds per round."""
    grid = Counting(client_app(seed, *mods))
    module = learning.build(MODEL, 1, 8, 8, 10, seed)
    began = time.perf_counter()
    result = strategy.start(grid, ArrayRecord(module.state_dict()), rounds)
    seconds = (time.perf_counter() - began) / rounds
    learning.load_arrays(module, {name: each.numpy() for name, each in result.arrays.items()})
    return grid.bytes, learning.evaluate(module, learning.load(DATA).test).accuracy, seconds


def sparse(density: float, downlink: Setting, seed: int, rounds: int, kind: type[FedAvg] = FedAvg, **options: float):
    mod = Sparsify("phone-lte-2021", TopK(), Density(density), feedback=ErrorFeedback(), seed=seed, store=MemoryStore())
    return run(Sparse(kind(**options), downlink=downlink), seed, rounds, mod)


def main() -> None:
    parser = argparse.ArgumentParser(description="Bytes of a Flower app, both ways.")
    parser.add_argument("--seeds", type=int, default=1)
    parser.add_argument("--rounds", type=int, default=20)
    parser.add_argument("--densities", type=float, nargs="*", default=[0.01, 0.1])
    parser.add_argument("--lossy", type=float, default=0.05, help="density of the lossy downlink")
    options = parser.parse_args()
    logging.getLogger("flwr").setLevel(logging.ERROR)
    learning.use_threads(1)
    cases = {"FedAvg, dense": lambda seed: run(FedAvg(), seed, options.rounds)}
    for density in options.densities:
        for setting in ("off", "lossless", Lossy(options.lossy)):
            downlink = setting if isinstance(setting, str) else f"Lossy {setting.density:.0%}"
            name = f"TopK {density:.0%}, downlink {downlink}"
            cases[name] = lambda seed, density=density, setting=setting: sparse(density, setting, seed, options.rounds)
    momentum = {"server_momentum": 0.5}
    cases["FedAvgM, dense"] = lambda seed: run(FedAvgM(**momentum), seed, options.rounds)
    cases[f"FedAvgM, TopK 10%, downlink Lossy {options.lossy:.0%}"] = lambda seed: sparse(
        0.1, Lossy(options.lossy), seed, options.rounds, FedAvgM, **momentum
    )
    print(f"{NODES} nodes, {options.rounds} rounds, seeds 0 to {options.seeds - 1}; MB over all nodes and rounds\n")
    columns = ("up", "down train", "down evaluate", "all", "x up", "x both", "accuracy", "s/round")
    print("| | " + " | ".join(columns) + " |\n|---|" + "---|" * len(columns))
    dense: Counter[str] = Counter()
    plain: np.ndarray = np.empty(0)
    compared = []
    for name, case in cases.items():
        found = [case(seed) for seed in range(options.seeds)]
        total: Counter[str] = sum((each for each, *_ in found), Counter())
        dense = dense or total
        accuracy, seconds = (np.array([each[place] for each in found]) for place in (1, 2))
        plain = plain if plain.size else accuracy
        if name.endswith("lossless"):
            compared.append(f"{name}: {against(accuracy, plain)}")
        parts = [total[what] / options.seeds / 1e6 for what in ("up", "down train", "down evaluate")]
        factors = dense["up"] / total["up"], dense.total() / total.total()
        spread = f" ± {accuracy.std(ddof=1):.1%}" if options.seeds > 1 else ""
        sizes = " | ".join(f"{part:.2f}" for part in (*parts, sum(parts)))
        print(
            f"| {name} | {sizes} | {factors[0]:.1f} | {factors[1]:.1f} | {accuracy.mean():.1%}{spread} | "
            f"{np.median(seconds):.2f} |",
            flush=True,
        )
    if options.seeds > 1:
        print("\naccuracy less that of dense FedAvg, paired by seed, with its 95 % interval:")
        print("\n".join(compared))


def against(accuracy: np.ndarray, plain: np.ndarray) -> str:
    """The mean difference in percentage points with its interval, by Student's t over seeds."""
    difference = 100 * (accuracy - plain)
    if difference.size < 2 or not difference.any():
        return f"{difference.mean():+.2f} points"
    low, high = stats.ttest_1samp(difference, 0).confidence_interval(0.95)
    return f"{difference.mean():+.2f} points ({low:+.2f} to {high:+.2f})"


if __name__ == "__main__":
    main()
