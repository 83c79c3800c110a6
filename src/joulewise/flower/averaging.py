"""Coordinates that nobody sent keep their bits through an average.

Flower averages every coordinate of every reply, ``sum(w_i * x)`` with weights that add up to 1 but for rounding, so
that the last bits change of coordinates which no client has touched. They are set back to what they were.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt
from flwr.serverapp.strategy import FedAdagrad, FedAdam, FedAvg, FedAvgM, FedYogi, Strategy

from joulewise.codec import Decoded
from joulewise.flower.received import Base

Arrays = dict[str, npt.NDArray[Any]]


def averages_only(strategy: Strategy) -> bool:
    """Whether what a strategy makes of its replies is their weighted mean: whether `FedAvg.aggregate_train` runs.

    It is so for FedAvg, FedProx and what inherits the method from them; not for server optimizers, medians, wrappers
    that add noise, and classes with a method of their own.

    Example:
        >>> from flwr.serverapp.strategy import FedAdam, FedProx
        >>> averages_only(FedProx(proximal_mu=0.1)), averages_only(FedAdam())
        (True, False)
    """
    return "aggregate_train" not in vars(strategy) and averages(type(strategy))


def averages(kind: type[Strategy]) -> bool:
    """The same of a class of strategies, none of which has to be made: that warns of settings.

    Example:
        >>> from flwr.serverapp.strategy import FedAdam, FedProx
        >>> averages(FedProx), averages(FedAdam)
        (True, False)
    """
    return kind.aggregate_train is FedAvg.aggregate_train


def begins_with_mean(strategy: Strategy) -> bool:
    """Whether a strategy goes on from the weighted mean of its replies alone: those of `averages_only` and optimizers.

    Example:
        >>> from flwr.serverapp.strategy import FedAdam, QFedAvg
        >>> begins_with_mean(FedAdam()), begins_with_mean(QFedAvg(client_learning_rate=0.1))
        (True, False)
    """
    own = (FedAvg, FedAvgM, FedAdam, FedYogi, FedAdagrad)
    known = any(type(strategy).aggregate_train is kind.aggregate_train for kind in own)
    return known and "aggregate_train" not in vars(strategy)


class Touched:
    """Which coordinates the replies of a round have moved."""

    def __init__(self) -> None:
        self._bases: dict[int, Base] = {}  # By layout: some clients may keep tensors to themselves.
        self._kept: dict[int, npt.NDArray[np.bool_]] = {}
        self._everything = False
        self._wholes: set[str] = set()

    def add(self, base: Base, decoded: Decoded) -> None:
        """A reply that says which coordinates it moves."""
        at = base.layout.fingerprint
        first = next(iter(self._bases.values()), base)
        if first is not base and not same_bits(first, base):
            self._everything = True
            return
        self._bases.setdefault(at, base)
        self._kept.setdefault(at, np.zeros(base.layout.n, np.bool_))[decoded.selection.indices] = True
        self._wholes |= decoded.whole.keys()

    def add_everything(self) -> None:
        """A reply with a whole model, which may have moved all of it."""
        self._everything = True

    @property
    def share(self) -> float:
        """Share of the coordinates that anybody sends which at least one reply has moved: 0 to 1."""
        if self._everything:
            return 1.0
        moved = self._moved().values()
        return sum(int(each.sum()) for each in moved) / max(1, sum(each.size for each in moved))

    def restored(self, averaged: Mapping[str, npt.NDArray[Any]]) -> Arrays:
        """The averaged model with the bits of the model before wherever no reply has moved it."""
        base = next(iter(self._bases.values()), None)
        if self._everything or base is None or averaged.keys() != base.arrays.keys():
            return dict(averaged)
        moved = self._moved()
        return {
            name: array if name in self._wholes else _merged(base.arrays[name], array, moved.get(name))
            for name, array in averaged.items()
        }

    def _moved(self) -> dict[str, npt.NDArray[np.bool_]]:
        """Moved elements by tensor; tensors that every client kept to itself are not there."""
        moved: dict[str, npt.NDArray[np.bool_]] = {}
        for at, base in self._bases.items():
            for tensor, first, last in base.layout.spans():
                own = self._kept[at][first:last]
                moved[tensor.name] = moved[tensor.name] | own if tensor.name in moved else own
        return moved


def _merged(before: npt.NDArray[Any], after: npt.NDArray[Any], moved: npt.NDArray[np.bool_] | None) -> npt.NDArray[Any]:
    """`before` with the elements of `after` that have moved, in C order."""
    if before.shape != after.shape or before.dtype != after.dtype:
        return after
    merged = before.copy(order="C")
    if moved is not None:
        places = np.flatnonzero(moved)
        merged.reshape(-1)[places] = after.reshape(-1)[places]
    return merged


def same_bits(one: Base, other: Base) -> bool:
    """Whether two models that were sent are the same, by names, types and bits."""
    if one is other:
        return True
    pairs = zip(one.arrays.items(), other.arrays.items(), strict=False)
    return len(one.arrays) == len(other.arrays) and all(
        a == b and x.dtype == y.dtype and x.shape == y.shape and x.tobytes() == y.tobytes() for (a, x), (b, y) in pairs
    )
