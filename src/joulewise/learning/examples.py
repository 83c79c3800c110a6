"""Images with labels, and class-balanced subsets of them."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from joulewise.errors import DataError

Labels = NDArray[np.int64]


@dataclass(frozen=True, slots=True, eq=False)
class Examples:
    """Images and what they show.

    Attributes:
        images: float32[n, channels, height, width].
        labels: int64[n], from 0.
    """

    images: NDArray[np.float32]
    labels: Labels

    def take(self, indices: NDArray[np.int64]) -> "Examples":
        """Copy the examples at these indices, int64[k], in this order."""
        return Examples(self.images[indices], self.labels[indices])


@dataclass(frozen=True, slots=True, eq=False)
class Dataset:
    """Examples to train on, examples to test with, and the number of classes."""

    train: Examples
    test: Examples
    classes: int


def balanced(labels: Labels, classes: int, examples: int | None, name: str = "examples") -> Labels:
    """Draw the indices of a class-balanced subset; a smaller subset is always part of a larger one.

    Args:
        labels: class of each example.
        classes: how many there are.
        examples: how many to draw; None for all.
        name: of that setting of a study's data.

    Raises:
        DataError: there are too few of a class.
    """
    if examples is None:
        return np.arange(labels.size, dtype=np.int64)
    most = classes * int(np.bincount(labels, minlength=classes).min())
    if not classes <= examples <= most:
        raise DataError(
            f"data.{name} = {examples} is not possible: a class-balanced subset of these data has from "
            f"{classes} to {most} examples; leave data.{name} out to use all {labels.size}."
        )
    order = np.random.default_rng(0).permutation(labels.size)
    wanted = [examples // classes + (label < examples % classes) for label in range(classes)]
    chosen = [order[labels[order] == label][:count] for label, count in enumerate(wanted)]
    return np.sort(np.concatenate(chosen))
