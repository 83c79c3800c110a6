"""The model, the data and the training: nothing here knows of joulewise."""

from __future__ import annotations

from functools import lru_cache

import numpy as np
import torch
from sklearn.datasets import load_digits
from torch import nn

Examples = tuple[torch.Tensor, torch.Tensor]

torch.set_num_threads(1)  # Sums in one order: the same bits on every engine.


class Net(nn.Module):
    """A perceptron of 63,642 parameters for images of 8 x 8."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.Sequential(nn.Linear(64, 256), nn.ReLU(), nn.Linear(256, 176), nn.ReLU(), nn.Linear(176, 10))

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Scores of the ten digits."""
        return self.layers(images)


def new_model() -> Net:
    """The model before the first round, the same each time."""
    torch.manual_seed(0)
    return Net()


@lru_cache(maxsize=1)
def _digits() -> tuple[Examples, Examples]:
    """Examples to train on and, every fifth, to test on; scikit-learn brings them along."""
    images, labels = load_digits(return_X_y=True)
    order = np.random.default_rng(0).permutation(len(labels))
    pixels, classes = torch.tensor(images[order] / 16, dtype=torch.float32), torch.tensor(labels[order])
    test = torch.arange(len(classes)) % 5 == 0
    return (pixels[~test], classes[~test]), (pixels[test], classes[test])


def training_part(partition: int, partitions: int) -> Examples:
    """What one client has."""
    images, labels = _digits()[0]
    return images[partition::partitions], labels[partition::partitions]


def test_part() -> Examples:
    """What the server tests on."""
    return _digits()[1]


def train(model: Net, examples: Examples, epochs: int, batch_size: int, learning_rate: float, seed: list[int]) -> float:
    """Train in place.

    Returns:
        The mean loss of the last epoch.
    """
    images, labels = examples
    rng = np.random.default_rng(seed)
    losses: list[float] = []
    for _ in range(epochs):
        losses = []
        for batch in torch.tensor(rng.permutation(len(labels))).split(batch_size):
            loss = nn.functional.cross_entropy(model(images[batch]), labels[batch])
            model.zero_grad()
            loss.backward()
            descend(model, learning_rate)
            losses.append(loss.item())
    return sum(losses) / max(len(losses), 1)


@torch.no_grad()
def descend(model: Net, learning_rate: float) -> None:
    """One step of stochastic gradient descent.

    By hand, because a SuperNode starts a new process for every message, and the first step of an optimizer of
    `torch.optim` imports modules for seconds.
    """
    for parameter in model.parameters():
        parameter.sub_(learning_rate * parameter.grad)


@torch.no_grad()
def accuracy(model: Net, examples: Examples) -> float:
    """Share of examples whose highest score is the right digit."""
    images, labels = examples
    return (model(images).argmax(1) == labels).float().mean().item()
