"""What coordinates are ranked by, without ever holding a score of each."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise
from typing import TypeVar

import numpy as np
import numpy.typing as npt

Float32 = npt.NDArray[np.float32]
Float64 = npt.NDArray[np.float64]
Int64 = npt.NDArray[np.int64]
UInt32 = npt.NDArray[np.uint32]
Bool = npt.NDArray[np.bool_]
Number = TypeVar("Number", bound=np.generic)

CHUNK = 1 << 16
# Dot products of this length stay on one thread and are as exact as pairwise sums.
ROW = 1 << 13
FLOAT32_TINY = np.float32(np.nextafter(np.float32(0), np.float32(1)))


class NotFinite(Exception):  # noqa: N818 (a fact for the caller, who knows the tensor's name)
    """The vector holds NaN or infinity at `index`."""

    def __init__(self, index: int) -> None:
        super().__init__(index)
        self.index = index


@dataclass(frozen=True, slots=True, eq=False)
class Ranking:
    """What the coordinates are ranked by.

    Args:
        a: float32[n], the vector to select from. Coordinates that are zero are never selected.
        edges: int64[tensors + 1], where tensors begin and end in `a`.
        weights: float64[tensors] or float64[n], factor on ``|a|``; a weight of 0 excludes.
        key: when given, scores are random priorities of the stream `key` instead, among coordinates
            whose weight is not 0.
    """

    a: Float32
    edges: Int64
    weights: Float64
    key: int | None = None

    @property
    def by_threshold(self) -> bool:
        """Whether a test of a score is one compare of ``|a|`` with a number per tensor."""
        return self.key is None and self.per_tensor(self.weights)

    def per_tensor(self, numbers: npt.NDArray[np.generic]) -> bool:
        """Whether `numbers` are one per tensor rather than one per coordinate."""
        return numbers.size == self.edges.size - 1

    def spread(self, numbers: npt.NDArray[Number], indices: Int64 | UInt32) -> npt.NDArray[Number]:
        """Numbers per tensor or per coordinate, read at ascending `indices`."""
        if not self.per_tensor(numbers):
            return numbers[indices]
        if not numbers.size:
            return numbers  # No parameters, no tensors.
        if numbers.min() == numbers.max():
            return np.broadcast_to(numbers[0], indices.shape)
        return np.repeat(numbers, np.diff(np.searchsorted(indices, self.edges.astype(indices.dtype))))

    def segments(self) -> Iterator[tuple[int, int, int]]:
        """Chunks that do not cross tensors, as (tensor, start, stop)."""
        edges = self.edges.tolist()
        for tensor, (start, stop) in enumerate(pairwise(edges)):
            for begin in range(start, stop, CHUNK):
                yield tensor, begin, min(begin + CHUNK, stop)

    def scores(self, tensor: int, start: int, stop: int) -> Float64:
        """Scores of one segment: float64[stop - start]."""
        magnitude = np.abs(self.a[start:stop])
        weight = self.weights[tensor] if self.per_tensor(self.weights) else self.weights[start:stop]
        if self.key is None:
            return np.multiply(magnitude, weight, dtype=np.float64)
        priority = uniform(self.key, start, stop) + 2.0**-53
        return np.where((magnitude > 0) & (np.asarray(weight) > 0), priority, 0.0)

    def scores_at(self, indices: Int64 | UInt32) -> Float64:
        """Scores of ascending coordinates."""
        return self.scores_of(indices, self.a[indices])

    def scores_of(self, indices: Int64 | UInt32, values: Float32) -> Float64:
        """Scores of ascending coordinates, whose entries in the vector are `values`."""
        weight = self.spread(self.weights, indices)
        if self.key is None:
            magnitude: Float64 = np.abs(values, dtype=np.float64)
            magnitude *= weight
            return magnitude
        priority = uniform_at(self.key, indices) + 2.0**-53
        return np.where((values != 0) & (weight > 0), priority, 0.0)


def uniform(key: int, start: int, stop: int) -> Float64:
    """Random numbers in [0, 1) of coordinates start to stop: the top 53 bits of ``splitmix64(key + i)``."""
    return uniform_at(key, np.arange(start, stop, dtype=np.uint64))


def uniform_at(key: int, indices: npt.NDArray[np.unsignedinteger] | Int64) -> Float64:
    """Random numbers in [0, 1) of the coordinates `indices`; the order of asking does not matter."""
    z = indices.astype(np.uint64) + np.uint64(key)
    # The counter form of splitmix64 (Steele, Lea and Flood, 2014): state key + i, an increment, the mix.
    z += np.uint64(0x9E3779B97F4A7C15)
    z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    z ^= z >> np.uint64(31)
    return (z >> np.uint64(11)).astype(np.float64) * 2.0**-53


def first_not_finite(a: Float32) -> int | None:
    """Index of the first NaN or infinity, or None."""
    for start in range(0, a.size, CHUNK):
        bad = ~np.isfinite(a[start : start + CHUNK])
        if bad.any():
            return start + int(bad.argmax())
    return None


def sum_of_squares(segment: Float32, start: int) -> float:
    """Sum of squares of the segment that begins at `start`; also the place where NaN and infinity are met.

    Raises:
        NotFinite: the segment holds one of them.
    """
    whole = segment.size - segment.size % ROW
    rows, rest = segment[:whole].reshape(-1, ROW), segment[whole:]
    with np.errstate(over="ignore", under="ignore", invalid="ignore"):
        total = float(np.vecdot(rows, rows).sum(dtype=np.float64)) + float(np.vecdot(rest, rest))
    if 1e-24 < total < np.inf:
        return total
    # Too small or too large for float32, or not a number at all: look again in float64.
    bad = first_not_finite(segment)
    if bad is not None:
        raise NotFinite(start + bad)
    return float(np.square(segment, dtype=np.float64).sum())


def float32_thresholds(weights: Float64, lo: float) -> Float32:
    """The smallest positive float32 t with ``t * weight >= lo`` for each weight; infinity where none is."""
    with np.errstate(divide="ignore", over="ignore", under="ignore", invalid="ignore"):
        t = np.maximum((lo / weights).astype(np.float32), FLOAT32_TINY)
        for _ in range(2):
            lower = np.nextafter(t, np.float32(0))
            t = np.where((lower > 0) & (lower * weights >= lo), lower, t)
        for _ in range(2):
            t = np.where(t * weights < lo, np.nextafter(t, np.float32(np.inf)), t)
    return np.where(weights > 0, t, np.float32(np.inf)).astype(np.float32)
