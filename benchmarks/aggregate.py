"""The server's mean of many clients: time and peak memory, on ResNet-18's tensors with 1 % kept.

``python benchmarks/aggregate.py [--clients 10 100 1000] [--density 0.01]`` prints a table. Each cell is a process of
its own, because the peak of a process never falls. Memory is the peak above what the process takes before it
aggregates, but with the payloads as they came; time is the CPU time from the payloads to the new model.

  Flower, dense     FedAvg over replies with dense arrays, as every client without joulewise sends them
  Flower, joulewise FedAvg over what SparseGrid makes of compressed replies
  weighted_mean     joulewise.weighted_mean, and the mean added to the model
"""

from __future__ import annotations

import argparse
import json
import logging
import resource
import subprocess
import sys
import time
from collections.abc import Iterator

import numpy as np

from joulewise.aggregate import weighted_mean
from joulewise.benchdata import resnet18
from joulewise.codec import decode, encode
from joulewise.kernel import active
from joulewise.layout import Layout
from joulewise.select import Selection

WAYS = ("Flower, dense", "Flower, joulewise", "weighted_mean")
DISTINCT = 24
"""Payloads that are made; further clients send the same again. More than the codec's caches hold."""
MOST_MIB = 12_000


def resnet18_arrays() -> dict[str, np.ndarray]:
    """The parameters of a ResNet-18 for 10 classes: 62 tensors, 11,173,962 parameters."""
    rng = np.random.default_rng(1)
    return {tensor.name: rng.standard_normal(tensor.shape, np.float32) for tensor in resnet18().tensors}


def payloads(layout: Layout, clients: int, density: float) -> list[bytes]:
    """What clients send: random places, values above a threshold."""
    made = []
    for client in range(min(clients, DISTINCT)):
        rng = np.random.default_rng(client)
        indices = np.flatnonzero(rng.random(layout.n, np.float32) < density).astype(np.uint32)
        values = np.float32(1e-3) * (1 + rng.standard_exponential(len(indices), np.float32))
        made.append(encode(Selection(layout.n, indices, values), layout))
    return [made[client % len(made)] for client in range(clients)]


def by_flower(model: dict[str, np.ndarray], sent: list[bytes], dense: bool) -> Iterator[None]:
    """Everything up to where the replies arrive; then FedAvg."""
    from flwr.app import ConfigRecord, Message, MetricRecord, RecordDict  # noqa: PLC0415
    from flwr.serverapp.strategy import FedAvg  # noqa: PLC0415

    from joulewise.flower import SparseGrid, wire  # noqa: PLC0415
    from joulewise.flower.inprocess import InProcessGrid  # noqa: PLC0415
    from joulewise.results import ClientResult  # noqa: PLC0415

    logging.getLogger("flwr").setLevel(logging.ERROR)
    layout, record = Layout.of(model), wire.to_record(model)

    class Replies(InProcessGrid):
        """Every node has its payload ready, or the dense arrays that it stands for."""

        def __init__(self) -> None:
            super().__init__(None, len(sent))
            self.ready = [self.content(number) for number in range(len(sent))]

        def content(self, number: int) -> RecordDict:
            content = RecordDict({"arrays": record, "metrics": MetricRecord({"num-examples": 1 + number})})
            if dense:
                flat = layout.flatten(model)
                selection = decode(sent[number], layout).selection
                flat[selection.indices] += selection.values
                content["arrays"] = wire.to_record(layout.split(flat))
            else:
                result = ClientResult(
                    partition=number,
                    examples=1,
                    bytes_up=0,
                    bytes_down=0,
                    charges=(),
                    kept_by_tensor=(),
                    delta=0.0,
                    contrast=1.0,
                )
                wire.write(content, wire.Reply(sent[number], 1, result))
            return content

        def _deliver(self, message: Message) -> Message:
            message.metadata.__dict__["_message_id"] = str(message.metadata.dst_node_id)
            return Message(self.ready[message.metadata.dst_node_id - 1], reply_to=message)

    grid = SparseGrid(Replies())
    strategy = FedAvg(fraction_train=1.0, fraction_evaluate=0.0, min_train_nodes=1, min_available_nodes=1)
    yield
    requests = strategy.configure_train(1, record, ConfigRecord(), grid)
    arrays, _ = strategy.aggregate_train(1, grid.send_and_receive(requests))
    grid.accept(arrays)


def alone(model: dict[str, np.ndarray], sent: list[bytes]) -> Iterator[None]:
    layout = Layout.of(model)
    flat = layout.flatten(model)
    yield
    flat += weighted_mean(((payload, 1 + number) for number, payload in enumerate(sent)), layout)
    layout.split(flat)


def measure(way: str, clients: int, density: float) -> dict[str, float]:
    """One cell: seconds of CPU, and MiB above what the process took before."""
    model = resnet18_arrays()
    sent = payloads(Layout.of(model), clients, density)
    steps = alone(model, sent) if way == WAYS[2] else by_flower(model, sent, way == WAYS[0])
    # Dense replies take their memory before they are averaged.
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    next(steps)
    began = time.process_time()
    next(steps, None)
    seconds = time.process_time() - began
    return {"seconds": seconds, "mib": (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--clients", type=int, nargs="+", default=[10, 100, 1000])
    parser.add_argument("--density", type=float, default=0.01)
    parser.add_argument("--cell", nargs=2, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.cell:
        print(json.dumps(measure(given.cell[0], int(given.cell[1]), given.density)))
        return
    dense_mib = sum(array.nbytes for array in resnet18_arrays().values()) / 2**20
    print(f"ResNet-18, {given.density:.1%} kept, dense {dense_mib:.1f} MiB a client; codec: {active()}")
    print(f"{'':<20}" + "".join(f"{clients:>22,}" for clients in given.clients))
    for way in WAYS:
        cells = []
        for clients in given.clients:
            if way == WAYS[0] and clients * dense_mib > MOST_MIB:
                cells.append(f"{clients * dense_mib / 1024:.0f} GiB, not run")
                continue
            command = [sys.executable, __file__, "--density", str(given.density), "--cell", way, str(clients)]
            found = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
            cells.append(f"{found['mib']:,.0f} MiB {found['seconds']:.2f} s")
        print(f"{way:<20}" + "".join(f"{cell:>22}" for cell in cells), flush=True)


if __name__ == "__main__":
    main()
