"""Record one client's update of real training, for ``joulewise bench --update``.

``python benchmarks/record_update.py U.npz [--model cnn|resnet18] [--cifar10 FOLDER] [--epochs 1] [--examples 640]``

The first rounds of a study: a client trains on its part of the digits, or of CIFAR-10 from a folder of parquet files,
and what it would send is written as an array for each parameter tensor.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import numpy as np
import torch

from joulewise import learning
from joulewise.layout import Layout
from joulewise.learning import CNN, Cifar10, Digits, Dirichlet, ResNet18, Training

CLIENTS, SEED = 10, 0


def record(model: str, folder: str | None, epochs: int, examples: int) -> dict[str, np.ndarray]:
    """The update of the first client after training on at most `examples` images: arrays of the parameters, by name."""
    partition = Dirichlet(alpha=0.3)
    data = Digits(clients=CLIENTS, partition=partition)
    if folder is not None:
        data = Cifar10(clients=CLIENTS, partition=partition, path=folder)
    dataset = learning.load(data)
    rows = learning.partition(data, dataset.train.labels, SEED)[0][:examples]
    images = dataset.train.images
    module = learning.build(ResNet18() if model == "resnet18" else CNN(), *images.shape[1:], 10, SEED)
    before = {name: array.copy() for name, array in learning.arrays(module).items()}
    rng = np.random.default_rng([SEED, 1, 0])
    learning.train(module, dataset.train.take(rows), Training(local_epochs=epochs), rng)
    after = learning.arrays(module)
    names = [tensor.name for tensor in Layout.of(before).tensors]
    return {name: np.asarray(after[name] - before[name], np.float32) for name in names}


def main() -> None:
    """Write the file and say what is in it."""
    parser = argparse.ArgumentParser(description="Record the update of one client.")
    parser.add_argument("file", type=Path)
    parser.add_argument("--model", choices=("cnn", "resnet18"), default="cnn")
    parser.add_argument("--cifar10", metavar="FOLDER", default=None)
    parser.add_argument("--epochs", type=int, default=1)
    parser.add_argument("--examples", type=int, default=640)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    update = record(arguments.model, arguments.cifar10, arguments.epochs, arguments.examples)
    np.savez(arguments.file, **update)
    count = sum(array.size for array in update.values())
    sys.stdout.write(f"{arguments.file}: {len(update)} tensors, {count:,} coordinates\n")


if __name__ == "__main__":
    main()
