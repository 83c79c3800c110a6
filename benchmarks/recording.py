"""Record what one client sends in two consecutive rounds of real training, for ``benchmarks/prediction.py``.

``python benchmarks/recording.py OUT.npz --cifar10 FOLDER [--model cnn|resnet18] [--clients 10] [--examples 640]``
``python benchmarks/recording.py OUT.npz --cifar10 FOLDER --fleet 12``

Plain FedAvg: in each round every client trains one epoch on at most `--examples` of its images (Dirichlet partition,
alpha 0.3, batches of 32, learning rate 0.1), and the server takes the mean of what they return, weighted by examples.
Nothing is compressed. The update of client 0 in round `--round` and in the next one is written, an array for each
parameter tensor, named ``0/tensor`` and ``1/tensor``. With ``--fleet N`` those of every client in N rounds from
``--round`` on, for ``benchmarks/fleet.py``: named ``round/client/tensor``, both counted from 0, beside ``examples``,
the number of images of each client.
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


def rounds(model: str, folder: str, clients: int, examples: int, first: int) -> list[State]:
    """The updates of client 0 in round `first` and in the next one."""
    parts, module = _begun(model, folder, clients, examples)
    server = _copied(learning.arrays(module))
    names = [tensor.name for tensor in Layout.of(server).tensors]
    recorded = []
    for number in range(1, first + 2):
        last = number == first + 1
        trained = [_trained(module, server, part, number, who) for who, part in enumerate(parts[: 1 if last else None])]
        if number >= first:
            recorded.append({name: np.asarray(trained[0][name] - server[name], np.float32) for name in names})
        server = server if last else _mean(trained, [len(part.labels) for part in parts])
        sys.stderr.write(f"round {number} of {first + 1}\n")
    return recorded


def fleet(model: str, folder: str, clients: int, examples: int, span: range) -> dict[str, np.ndarray]:
    """The updates of every client in the rounds of `span`, and how many images each has."""
    parts, module = _begun(model, folder, clients, examples)
    server, sizes = _copied(learning.arrays(module)), [len(part.labels) for part in parts]
    names, found = [tensor.name for tensor in Layout.of(server).tensors], {"examples": np.array(sizes)}
    for number in range(1, span.stop):
        trained = [_trained(module, server, part, number, who) for who, part in enumerate(parts)]
        if number in span:
            found |= {
                f"{number - span.start}/{who}/{name}": np.asarray(each[name] - server[name], np.float32)
                for who, each in enumerate(trained)
                for name in names
            }
        server = _mean(trained, sizes)
        sys.stderr.write(f"round {number} of {span.stop - 1}\n")
    return found


def _begun(model: str, folder: str, clients: int, examples: int) -> tuple[list[Examples], torch.nn.Module]:
    data = Cifar10(clients=clients, partition=Dirichlet(alpha=0.3), path=folder)
    dataset = learning.load(data)
    parts = [dataset.train.take(rows[:examples]) for rows in learning.partition(data, dataset.train.labels, SEED)]
    kind = ResNet18() if model == "resnet18" else CNN()
    return parts, learning.build(kind, *dataset.train.images.shape[1:], 10, SEED)


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
    parser.add_argument("--fleet", type=int, metavar="ROUNDS", help="every client, in so many rounds")
    given = parser.parse_args()
    torch.set_num_threads(1)
    if given.fleet:
        span = range(given.first, given.first + given.fleet)
        np.savez(given.file, **fleet(given.model, given.cifar10, given.clients, given.examples, span))
        sys.stdout.write(f"{given.file}: {given.clients} clients, {given.fleet} rounds from {given.first} on\n")
        return
    found = rounds(given.model, given.cifar10, given.clients, given.examples, given.first)
    named = {f"{number}/{name}": array for number, update in enumerate(found) for name, array in update.items()}
    np.savez(given.file, **named)
    count = sum(array.size for array in found[0].values())
    sys.stdout.write(f"{given.file}: client 0, rounds {given.first} and {given.first + 1}, {count:,} coordinates\n")


if __name__ == "__main__":
    main()
