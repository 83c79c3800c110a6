"""What moves in blocks: cache lines, and pages of flash."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from joulewise.layout import Layout
from joulewise.tensorwise import Floats


@dataclass(frozen=True, slots=True, eq=False)
class Block:
    """What moves in blocks: a cache line, or a page of flash, is paid for whole however little of it is kept.

    A block is `elements` neighbouring coordinates of one tensor, the first from the tensor's start. The price of a
    kept coordinate already includes its own bits; what the blocks add to those prices is

        sum over tensors g of  per_touched_g * touched_g - included_g * k_g

    for k_g kept coordinates in touched_g blocks. It is no sum over coordinates: two in one block share it.

    Args:
        name: ``cache_lines``, ``flash_pages``, or the same at the receivers.
        elements: int64[tensors], coordinates in a block; 1 in a tensor without blocks.
        per_touched: float64[tensors], energy of a block of which something is kept; 0 in a tensor without.
        included: float64[tensors], part of it that the price of each kept coordinate already holds.

    Example:
        >>> line = Block("cache_lines", np.array([16]), np.array([1.6]), np.array([0.1]))
        >>> line.touched(np.array([0, 1, 40], np.uint32), Layout.single(48)).tolist()
        [2]
        >>> round(line.energy(np.array([0, 1, 40], np.uint32), Layout.single(48)), 3)
        2.9
    """

    name: str
    elements: npt.NDArray[np.int64]
    per_touched: Floats
    included: Floats

    def touched(self, indices: npt.NDArray[np.uint32], layout: Layout) -> npt.NDArray[np.int64]:
        """Blocks of each tensor in which one of the ascending `indices` lies: int64[tensors]."""
        return self._touched(indices, layout, layout.counts(indices))

    def energy(self, indices: npt.NDArray[np.uint32], layout: Layout) -> float:
        """What the blocks add to the prices of the kept `indices`, ascending."""
        counts = layout.counts(indices)
        whole = self.per_touched * self._touched(indices, layout, counts)
        # Where every coordinate of a block is kept, nothing is left to add but the rounding of its parts.
        return math.fsum(np.maximum(whole - self.included * counts, 0.0).tolist())

    def along(self, indices: npt.NDArray[np.uint32], ranked: npt.NDArray[np.int64], layout: Layout) -> Floats:
        """What the blocks add for each coordinate of an order: the first in a block pays for the block.

        Args:
            indices: uint32[k], ascending.
            ranked: int64[k], places in `indices`, in the order in which they are kept.
            layout: the tensors.

        Returns:
            float64[k], in that order. The sum over the first of them is the `energy` of keeping those.

        Example:
            >>> line = Block("cache_lines", np.array([4]), np.array([8.0]), np.array([2.0]))
            >>> line.along(np.array([0, 1, 5], np.uint32), np.array([1, 2, 0]), Layout.single(8)).tolist()
            [6.0, 6.0, -2.0]
        """
        tensor, first = self._firsts(indices, layout, layout.counts(indices))
        added = -self.included[tensor][ranked]
        if len(ranked):
            place = np.empty(len(ranked), np.int64)
            place[ranked] = np.arange(len(ranked))
            starts = np.flatnonzero(first)
            added[np.minimum.reduceat(place, starts)] += self.per_touched[tensor[starts]]
        return added

    def _touched(
        self, indices: npt.NDArray[np.uint32], layout: Layout, counts: npt.NDArray[np.int64]
    ) -> npt.NDArray[np.int64]:
        tensor, first = self._firsts(indices, layout, counts)
        return np.bincount(tensor[first], minlength=len(counts))

    def _firsts(
        self, indices: npt.NDArray[np.uint32], layout: Layout, counts: npt.NDArray[np.int64]
    ) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.bool_]]:
        """The tensor of each of the ascending indices, and whether it is the first of them in its block."""
        tensor = np.repeat(np.arange(len(counts)), counts)
        block = (indices - layout.offsets[tensor]) // self.elements[tensor]
        first = np.ones(len(block), dtype=bool)
        first[1:] = (block[1:] != block[:-1]) | (tensor[1:] != tensor[:-1])
        return tensor, first
