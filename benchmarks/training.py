"""Local training: a study's rounds against a plain PyTorch loop that trains, averages and tests the same way.

Run: ``python benchmarks/training.py [--model resnet18] [--clients 2] [--examples 128] [--rounds 3] [--compute cpu]``.

The plain loop knows nothing of joulewise but its model's layers: `torch.optim.SGD`, batches by index from one tensor,
channels last, one thread, a mean of the clients' tensors, a test of the new model. The study sends CWMP's choice of 1 %
through Flower's messages. Rounds take turns in one process. Images are noise: what they show does not change the speed.
"""

from __future__ import annotations

import argparse
import copy
import statistics
import time
from collections.abc import Iterator
from unittest import mock

import numpy as np
import torch
from torch.nn import functional

from joulewise import learning
from joulewise.compress import Compressor
from joulewise.flower import app
from joulewise.flower.choice import StrategyChoice
from joulewise.learning import IID, Cifar10, Dataset, Examples, Training
from joulewise.learning.models import CNN, Model, ResNet18
from joulewise.rules import CWMP, Density

MODELS: dict[str, Model] = {"resnet18": ResNet18(), "cnn": CNN()}
TRAINING = Training(batch_size=32, learning_rate=0.01)


def noise(examples: int, tested: int) -> Dataset:
    """Images like CIFAR-10's in form."""
    rng = np.random.default_rng(0)
    parts = (
        Examples(rng.standard_normal((count, 3, 32, 32), np.float32), rng.permutation(np.arange(count) % 10))
        for count in (examples, tested)
    )
    return Dataset(*parts, classes=10)


def plain(model: Model, data: Cifar10, dataset: Dataset, compute: str) -> Iterator[None]:
    """Rounds without joulewise or Flower."""
    torch.set_num_threads(1)
    form = torch.channels_last
    every = [
        (torch.from_numpy(each.images).contiguous(memory_format=form).to(compute), torch.from_numpy(each.labels))
        for each in (dataset.train, dataset.test)
    ]
    (images, labels), (asked, answers) = ((shown, known.to(compute)) for shown, known in every)
    parts = [torch.from_numpy(part) for part in learning.partition(data, dataset.train.labels, 0)]
    module = learning.build(model, 3, 32, 32, 10, 0).to(compute)
    state = copy.deepcopy(module.state_dict())
    while True:
        replies = []
        for part in parts:
            module.load_state_dict(state)
            _epoch(module, images[part], labels[part])
            replies.append(copy.deepcopy(module.state_dict()))
        state = {name: sum(reply[name] / len(parts) for reply in replies) for name in state}
        module.load_state_dict(state)
        module.eval()
        with torch.inference_mode():
            right = sum(
                int((module(batch).argmax(1) == known).sum())
                for batch, known in zip(asked.split(64), answers.split(64), strict=True)
            )
        assert 0 <= right <= len(answers)
        yield


def _epoch(module: torch.nn.Module, images: torch.Tensor, labels: torch.Tensor) -> None:
    module.train()
    optimizer = torch.optim.SGD(module.parameters(), lr=TRAINING.learning_rate)
    for batch in torch.randperm(len(labels), device=labels.device).split(TRAINING.batch_size):
        optimizer.zero_grad()
        functional.cross_entropy(module(images[batch]), labels[batch]).backward()
        optimizer.step()


def study(model: Model, data: Cifar10, rounds: int, compute: app.Compute) -> Iterator[object]:
    """What `joulewise run` does."""
    compressor, devices = Compressor(CWMP(), Density(0.01)), ("synthetic-kind-10",) * data.clients
    arm = app.Arm("bench", data, model, TRAINING, StrategyChoice(), devices, compressor, rounds)
    return app.federate(arm, 0, compute=compute)


def main() -> None:
    """Time rounds in turn and print the ratio."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", choices=sorted(MODELS), default="resnet18")
    parser.add_argument("--compute", choices=("cpu", "cuda"), default="cpu")
    for name, number in (("clients", 2), ("examples", 128), ("tested", 128), ("rounds", 3)):
        parser.add_argument(f"--{name}", type=int, default=number)
    given = parser.parse_args()
    dataset, data = noise(given.examples, given.tested), Cifar10(clients=given.clients, partition=IID())
    with mock.patch.object(learning, "load", return_value=dataset):
        loops = {
            "plain": plain(MODELS[given.model], data, dataset, given.compute),
            "study": study(MODELS[given.model], data, given.rounds + 1, given.compute),
        }
        took = {name: [] for name in loops}
        for number in range(given.rounds + 1):  # The first round of each warms up.
            for name, loop in loops.items():
                began = time.process_time() if given.compute == "cpu" else time.perf_counter()
                next(loop)
                ended = time.process_time() if given.compute == "cpu" else time.perf_counter()
                took[name] += [ended - began] if number else []
    means = {name: statistics.median(each) for name, each in took.items()}
    for name, seconds in means.items():
        print(f"{name:6s} {given.examples / seconds:8.1f} images/s trained, {seconds:.3f} s a round")
    ratios = [first / second for first, second in zip(took["plain"], took["study"], strict=True)]
    print(
        f"{given.model} on {given.compute}: study's speed over plain, median of rounds: {statistics.median(ratios):.3f}"
    )


if __name__ == "__main__":
    main()
