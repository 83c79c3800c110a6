"""Many simulated clients on one machine: seconds per round and memory, while the states of all lie on disk.

Run: ``python benchmarks/scale.py [--clients 1000 10000] [--sampled 100] [--rounds 10]``.

An MLP 64-64-10 in NumPy, 32 examples a client, error feedback, TopK 10 %; FedAvg samples clients, as Flower users do.
Each size runs in a process of its own, so that its memory is its own. Memory before is that of the process with its
libraries; above it are the sampled clients and what Flower keeps of each node. On disk lie the states of clients that
were sampled at least once.
"""

from __future__ import annotations

import argparse
import json
import logging
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
from flwr.app import Array, ArrayRecord, ConfigRecord, MetricRecord, RecordDict
from flwr.app import Message as FlowerMessage
from flwr.clientapp import ClientApp
from flwr.serverapp.strategy import FedAvg

from joulewise.compress import ErrorFeedback
from joulewise.flower import FileStore, Sparse, SparseGrid, Sparsify
from joulewise.flower.inprocess import InProcessGrid
from joulewise.rules import Density, TopK

EXAMPLES, INPUTS, HIDDEN, CLASSES = 32, 64, 64, 10
SHAPES = {
    "hidden.weight": (HIDDEN, INPUTS),
    "hidden.bias": (HIDDEN,),
    "out.weight": (CLASSES, HIDDEN),
    "out.bias": (CLASSES,),
}


def model() -> dict[str, np.ndarray]:
    """The model at the start."""
    rng = np.random.default_rng(0)
    return {name: (0.1 * rng.standard_normal(shape)).astype(np.float32) for name, shape in SHAPES.items()}


def examples(partition: int) -> tuple[np.ndarray, np.ndarray]:
    """The examples of a client: classes lie around centres that all clients share."""
    centres = np.random.default_rng(1).standard_normal((CLASSES, INPUTS))
    rng = np.random.default_rng([2, partition])
    labels = rng.integers(CLASSES, size=EXAMPLES)
    return (centres[labels] + rng.standard_normal((EXAMPLES, INPUTS))).astype(np.float32), labels


def step(arrays: dict[str, np.ndarray], inputs: np.ndarray, labels: np.ndarray, rate: float = 0.1) -> None:
    """One step of gradient descent on the cross-entropy, in place."""
    hidden = np.maximum(inputs @ arrays["hidden.weight"].T + arrays["hidden.bias"], 0)
    scores = hidden @ arrays["out.weight"].T + arrays["out.bias"]
    shares = np.exp(scores - scores.max(axis=1, keepdims=True))
    shares /= shares.sum(axis=1, keepdims=True)
    shares[np.arange(labels.size), labels] -= 1
    shares /= labels.size
    back = shares @ arrays["out.weight"] * (hidden > 0)
    for name, gradient in {
        "out.weight": shares.T @ hidden,
        "out.bias": shares.sum(axis=0),
        "hidden.weight": back.T @ inputs,
        "hidden.bias": back.sum(axis=0),
    }.items():
        arrays[name] = arrays[name] - np.float32(rate) * gradient.astype(np.float32)


def app(folder: Path) -> ClientApp:
    """The app of every client, with the states of all in one folder."""
    store = FileStore(folder)
    made = ClientApp(mods=[Sparsify("phone-lte-2021", TopK(), Density(0.1), feedback=ErrorFeedback(), store=store)])

    @made.train()
    def train(message, context):
        arrays = {name: array.numpy() for name, array in message.content["arrays"].items()}
        inputs, labels = examples(int(context.node_config["partition-id"]))
        for _ in range(4):
            step(arrays, inputs, labels)
        record = ArrayRecord({name: Array(array) for name, array in arrays.items()})
        return FlowerMessage(
            RecordDict({"arrays": record, "metrics": MetricRecord({"num-examples": EXAMPLES})}), reply_to=message
        )

    return made


def resident_bytes(which: str) -> int:
    """Memory of this process, from Linux: ``VmRSS`` now, ``VmHWM`` at most so far."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(which):
            return 1024 * int(line.split()[1])
    return 1024 * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


def measure(clients: int, sampled: int, rounds: int) -> dict[str, float]:
    """Run rounds in this process."""
    logging.getLogger("flwr").setLevel(logging.ERROR)
    before, took = resident_bytes("VmRSS"), []
    with tempfile.TemporaryDirectory() as folder:
        grid = SparseGrid(InProcessGrid(app(Path(folder)), clients))
        nodes = {"min_train_nodes": sampled, "min_available_nodes": clients}
        strategy = Sparse(FedAvg(fraction_train=sampled / clients, fraction_evaluate=0.0, **nodes))
        arrays = ArrayRecord({name: Array(array) for name, array in model().items()})
        for number in range(1, rounds + 1):
            begin = time.perf_counter()
            replies = grid.send_and_receive(strategy.configure_train(number, arrays, ConfigRecord(), grid))
            aggregated, _ = strategy.aggregate_train(number, replies)
            assert aggregated is not None
            assert len(replies) == sampled
            arrays = aggregated
            took.append(time.perf_counter() - begin)
        files = [path.stat().st_size for path in Path(folder).rglob("*") if path.is_file()]
    return {
        "clients": clients,
        "sampled": sampled,
        "seconds_per_round": statistics.median(took),
        "before_mib": before / 2**20,
        "peak_mib": resident_bytes("VmHWM") / 2**20,
        "files": len(files),
        "disk_mib": sum(files) / 2**20,
    }


def main() -> None:
    """Measure each size in a process of its own and print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--clients", type=int, nargs="+", default=[1000, 10_000])
    parser.add_argument("--sampled", type=int, nargs="+", default=[100, 1000])
    parser.add_argument("--rounds", type=int, default=10)
    parser.add_argument("--here", action="store_true", help="measure one size in this process, as JSON")
    asked = parser.parse_args()
    if asked.here:
        sys.stdout.write(json.dumps(measure(asked.clients[0], asked.sampled[0], asked.rounds)))
        return
    sys.stdout.write("clients  sampled  s per round  ms per client  memory before, peak (MiB)  states on disk\n")
    for clients in asked.clients:
        for sampled in asked.sampled:
            command = [sys.executable, __file__, "--here", "--clients", str(clients), "--sampled", str(sampled)]
            done = subprocess.run([*command, "--rounds", str(asked.rounds)], check=True, capture_output=True, text=True)
            found = json.loads(done.stdout)
            sys.stdout.write(
                f"{clients:7,}{sampled:9,}{found['seconds_per_round']:13.3f}"
                f"{1000 * found['seconds_per_round'] / sampled:15.2f}"
                f"{found['before_mib']:17.0f}, {found['peak_mib']:.0f}"
                f"{found['files']:18,} files, {found['disk_mib']:.1f} MiB\n"
            )


if __name__ == "__main__":
    main()
