"""Record what clients send in consecutive rounds of real training, for ``prediction.py`` and ``fleet.py`` beside this.

``python benchmarks/recording.py OUT.npz --cifar10 FOLDER [--model cnn|resnet18] [--clients 10] [--examples 640]
[--round 3] [--rounds 2] [--fleet]``

Plain FedAvg: in each round every client trains one epoch on at most `--examples` of its images (Dirichlet partition,
alpha 0.3, batches of 32, learning rate 0.1), and the server takes the mean of what they return, weighted by examples.
Nothing is compressed. The updates of client 0 from round `--round` on are written, `--rounds` of them, an array for
each parameter tensor, named ``0/tensor``, ``1/tensor`` and so on. With ``--fleet`` those of every client: named
``round/client/tensor``, both counted from 0, beside ``examples``, the number of images of each client.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import numpy as np
import torch

from joulewise import learning
from joulewise.layout import Layout
from joulewise.learning import CNN, Cifar10, Dirichlet, Examples, ResNet18, Training

SEED = 0
State = dict[str, np.ndarray]


def rounds(
    model: str, folder: str, clients: int, examples: int, span: range, fleet: bool
) -> tuple[list[list[State]], list[int]]:
    """The updates of client 0, or of every client, in the rounds of `span`; and how many images each client has."""
    data = Cifar10(clients=clients, partition=Dirichlet(alpha=0.3), path=folder)
    dataset = learning.load(data)
    parts = [dataset.train.take(rows[:examples]) for rows in learning.partition(data, dataset.train.labels, SEED)]
    module = learning.build(ResNet18() if model == "resnet18" else CNN(), *dataset.train.images.shape[1:], 10, SEED)
    server, sizes = _copied(learning.arrays(module)), [len(part.labels) for part in parts]
    recorded = []
    for number in range(1, span.stop):
        needed = parts if fleet or number < span.stop - 1 else parts[:1]
        trained = [_trained(module, server, part, number, who) for who, part in enumerate(needed)]
        if number in span:
            recorded.append([_update(each, server) for each in (trained if fleet else trained[:1])])
        server = _mean(trained, sizes[: len(needed)])
        sys.stderr.write(f"round {number} of {span.stop - 1}\n")
    return recorded, sizes


def _update(trained: State, server: State) -> State:
    names = [tensor.name for tensor in Layout.of(server).tensors]
    return {name: np.asarray(trained[name] - server[name], np.float32) for name in names}


def _trained(module: torch.nn.Module, server: State, part: Examples, number: int, client: int) -> State:
    learning.load_arrays(module, server)
    learning.train(module, part, Training(), np.random.default_rng([SEED, number, client]))
    return _copied(learning.arrays(module))


def _copied(arrays: State) -> State:
    return {name: np.array(array) for name, array in arrays.items()}


def _mean(states: list[State], weights: list[int]) -> State:
    return {
        name: np.asarray(np.average([state[name] for state in states], axis=0, weights=weights)).astype(array.dtype)
        for name, array in states[0].items()
    }


def main() -> None:
    """Write the file and say what is in it."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("file", type=Path)
    parser.add_argument("--cifar10", metavar="FOLDER", required=True)
    parser.add_argument("--model", choices=("cnn", "resnet18"), default="cnn")
    parser.add_argument("--clients", type=int, default=10)
    parser.add_argument("--examples", type=int, default=640)
    parser.add_argument("--round", type=int, default=3, dest="first")
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--fleet", action="store_true", help="every client, not the first alone")
    given = parser.parse_args()
    torch.set_num_threads(1)
    span = range(given.first, given.first + given.rounds)
    found, sizes = rounds(given.model, given.cifar10, given.clients, given.examples, span, given.fleet)
    named: State = {"examples": np.array(sizes)} if given.fleet else {}
    for number, updates in enumerate(found):
        for client, update in enumerate(updates):
            prefix = f"{number}/{client}" if given.fleet else f"{number}"
            named |= {f"{prefix}/{name}": array for name, array in update.items()}
    np.savez(given.file, **named)
    count = sum(array.size for array in found[0][0].values())
    sys.stdout.write(
        f"{given.file}: {len(found[0])} clients, {len(found)} rounds from {given.first} on, {count:,} coordinates\n"
    )


if __name__ == "__main__":
    main()
