"""Laws of magnitudes: how many coordinates of each tensor exceed a threshold, and how much mass they hold.

A law answers for all tensors at once. `beyond(thresholds, power)` is the expected sum of ``|a|^power`` over the
coordinates of each tensor whose magnitude exceeds its threshold, `below` the same over the others. With power 0 these
are counts, with 1 and 2 the L1 and squared L2 mass, and 3 is what random rules need. Coordinates that are zero are in
no count: no rule but Dense ever keeps them.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache
from typing import Any, ClassVar, NamedTuple

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]

QUANTILES = 126
"""Magnitudes that the quantile law stores of a tensor; with the number of those that are not zero at most 128."""


class Law(ABC):
    """Magnitudes of the coordinates of each tensor, independent and from a law of its tensor."""

    nonzero: Floats
    """float64[tensors], how many coordinates are not zero."""

    @abstractmethod
    def beyond(self, thresholds: Floats, power: int) -> Floats:
        """Expected sum of ``|a|^power`` over what exceeds the thresholds: float64[tensors]."""

    def moments(self, thresholds: Floats) -> tuple[Floats, Floats, Floats]:
        """`beyond` for the powers 0, 1 and 2: counts, L1 and squared L2 mass."""
        return self.beyond(thresholds, 0), self.beyond(thresholds, 1), self.beyond(thresholds, 2)

    def below(self, thresholds: Floats, power: int) -> Floats:
        """Expected sum of ``|a|^power`` over what does not: float64[tensors]."""
        return np.maximum(0.0, self.total(power) - self.beyond(thresholds, power))

    def total(self, power: int) -> Floats:
        """Expected sum of ``|a|^power`` over all coordinates: float64[tensors]."""
        return self.beyond(np.zeros(self.nonzero.size), power)


@dataclass(frozen=True, eq=False)
class Quantiles(Law):
    """The magnitudes themselves, at most 126 of each tensor, and straight lines between them.

    With ``x(r)`` the magnitude of rank r, the largest first, the sum over the first r is the integral of ``x^p`` from
    0 to r, in closed form where x is a straight line from v to t over h ranks:
    ``h (v^p + v^(p-1) t + ... + t^p) / (p + 1)``. Ranks stand in geometric progression, so that the largest
    magnitudes are told singly; a tensor of up to 126 coordinates is told whole.

    Args:
        nonzero: float64[tensors], how many coordinates are not zero.
        ranks: float64[tensors, knots], from 0 to `nonzero`.
        values: float64[tensors, knots], magnitudes at these ranks, falling.

    Example:
        >>> law = Quantiles.of([np.array([4.0, -2.0, 1.0, 0.0])])
        >>> [float(law.beyond(np.array([1.5]), power)[0]) for power in (0, 1)]
        [2.0, 5.875]
    """

    nonzero: Floats
    ranks: Floats
    values: Floats

    name: ClassVar[str] = "quantiles"

    @classmethod
    def of(cls, tensors: Sequence[npt.NDArray[Any]]) -> Quantiles:
        """Read the law off the values of each tensor."""
        told = [_told(tensor) for tensor in tensors]
        knots = max((ranks.size for ranks, _ in told), default=2)
        padded = [[np.pad(each, (0, knots - each.size), mode="edge") for each in pair] for pair in told]
        ranks, values = (np.array([pair[side] for pair in padded]).reshape(-1, knots) for side in (0, 1))
        return cls(ranks[:, -1].copy(), ranks, values)

    @property
    def numbers(self) -> int:
        """Most numbers that are stored of one tensor: the ranks follow from how many are not zero."""
        return int(self.values.shape[1]) - 2 + 1

    def beyond(self, thresholds: Floats, power: int) -> Floats:
        """Expected sum of ``|a|^power`` over what exceeds the thresholds: float64[tensors]."""
        return self._summed(self._cut(thresholds), power)

    def moments(self, thresholds: Floats) -> tuple[Floats, Floats, Floats]:
        """`beyond` for the powers 0, 1 and 2, which ask for the same ranks."""
        cut = self._cut(thresholds)
        return self._summed(cut, 0), self._summed(cut, 1), self._summed(cut, 2)

    def _cut(self, thresholds: Floats) -> _Cut:
        row = np.arange(self.nonzero.size)
        over = np.count_nonzero(self.values > thresholds[:, None], axis=1)
        last = np.maximum(over - 1, 0)
        next_ = np.minimum(over, self.values.shape[1] - 1)
        start, stop = self.values[row, last], self.values[row, next_]
        with np.errstate(invalid="ignore", divide="ignore", over="ignore"):
            part = np.where(start > stop, (start - thresholds) / (start - stop), 0.0)
        width = np.clip(part, 0.0, 1.0) * (self.ranks[row, next_] - self.ranks[row, last])
        return _Cut(over > 0, (row, last), width, start, np.clip(thresholds, stop, start))

    def _summed(self, cut: _Cut, power: int) -> Floats:
        piece = cut.width * _line(cut.start, cut.stop, power)
        return np.where(cut.some, self._sums[power][cut.before] + piece, 0.0)

    def total(self, power: int) -> Floats:
        """Expected sum of ``|a|^power`` over all coordinates: float64[tensors]."""
        return self._sums[power][:, -1]

    @cached_property
    def _sums(self) -> tuple[Floats, ...]:
        widths = np.diff(self.ranks, axis=1)
        pieces = (widths * _line(self.values[:, :-1], self.values[:, 1:], power) for power in range(4))
        return tuple(np.pad(np.cumsum(each, axis=1), ((0, 0), (1, 0))) for each in pieces)


class _Cut(NamedTuple):
    """Where thresholds cut the magnitudes of each tensor: whole knots, and a part of the line after the last.

    Args:
        some: bool[tensors], anything exceeds the threshold.
        before: index of the last knot that exceeds it, for an array over tensors and knots.
        width: ranks from that knot to the threshold.
        start: magnitude at the knot.
        stop: magnitude at the threshold.
    """

    some: npt.NDArray[np.bool_]
    before: tuple[npt.NDArray[np.intp], npt.NDArray[np.intp]]
    width: Floats
    start: Floats
    stop: Floats


def _line(start: Floats, stop: Floats, power: int) -> Floats:
    """Mean of ``x^power`` while x goes from start to stop in a straight line."""
    total = last = np.ones_like(start)
    for _ in range(power):  # start^p + start^(p-1) stop + ... + stop^p
        last = last * stop
        total = total * start + last
    return total / (power + 1)


def _told(tensor: npt.NDArray[Any]) -> tuple[Floats, Floats]:
    """Ranks and magnitudes of one tensor; the magnitude of rank r is that of the middle of its item."""
    magnitudes = np.abs(tensor[tensor != 0]).astype(np.float64)
    if not magnitudes.size:
        return np.zeros(2), np.zeros(2)
    places = knots(magnitudes.size)
    magnitudes.partition(magnitudes.size - places)
    values = magnitudes[magnitudes.size - places]
    ranks = np.concatenate(([0.0], places - 0.5, [float(magnitudes.size)]))
    return ranks, np.concatenate((values[:1], values, values[-1:]))


@lru_cache(maxsize=1024)
def knots(size: int, most: int = QUANTILES) -> npt.NDArray[np.int64]:
    """Ranks from 1 to `size` in geometric progression, at most so many and as many as that allows.

    Example:
        >>> knots(1000, 8).tolist()
        [1, 3, 7, 19, 52, 139, 373, 1000]
    """
    if size <= most:
        return np.arange(1, size + 1)
    chosen, tried = np.unique(np.geomspace(1, size, most).round()), most
    while chosen.size < most:
        tried += 1
        more = np.unique(np.geomspace(1, size, tried).round())
        if more.size > most:
            break
        chosen = more
    return chosen.astype(np.int64)
