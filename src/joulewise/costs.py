"""What keeping one coordinate of each tensor costs, as a record."""

from __future__ import annotations

import math
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, get_args

import numpy as np
import numpy.typing as npt

from joulewise.devices import Entry, Unit
from joulewise.errors import CostError
from joulewise.layout import Layout
from joulewise.quanta import quanta
from joulewise.tensorwise import Floats, PerTensor, bits_of, floats, per_tensor

SEND_TERMS = ("send_buffer", "uplink", "base_power", "synthetic", "given")
"""Terms of a price that are paid for sending: the send buffer, the link, and the base power while it is busy; or
prices that stand for all of it."""

RECEIVER_TERMS = ("downlink_share", "receiver_write")
"""Terms that other devices pay: receiving a coordinate, and writing it."""

TERMS = (*SEND_TERMS, "optimizer", "persistence", *RECEIVER_TERMS)
"""Every term that a price of joulewise is made of."""


@dataclass(frozen=True, slots=True, eq=False)
class Term:
    """One part of the price of keeping a coordinate.

    Args:
        name: one of `TERMS`.
        per_kept: float64[tensors] (or [n]), energy of keeping one coordinate.
        per_bit: float64[tensors], energy per encoded bit: 0 everywhere, or per_kept / bits_per_kept.
    """

    name: str
    per_kept: Floats
    per_bit: Floats


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


@dataclass(frozen=True, slots=True, eq=False)
class Costs:
    """What keeping one coordinate of each tensor costs, and what that price is made of.

    Args:
        layout: the tensors.
        unit: ``J`` or ``relative``.
        per_kept: float64[tensors] or float64[n], price of keeping one coordinate; finite and above 0.
        bits_per_kept: float64[tensors], estimated encoded bits of one kept coordinate.
        per_bit: float64[tensors], energy per encoded bit; 0 where no link is priced.
        fixed: energy once per reply sent, whatever is kept.
        terms: what `per_kept` is made of; they sum to it.
        boundary: ``radio``, ``device`` or ``memory``; ``synthetic`` and ``given`` where no link was priced.
        origins: the numbers behind the prices.
        blocks: what moves in blocks, beside the prices; `select` does not know of it, a `Compressor` does.

    Raises:
        CostError: a price is not finite or not above 0, or an array has the wrong length.

    Example:
        >>> Costs.of(np.array([1.0, 1.0, 10.0]), unit="relative").contrast
        10.0
    """

    layout: Layout
    unit: Unit
    per_kept: Floats
    bits_per_kept: Floats
    per_bit: Floats
    fixed: float
    terms: tuple[Term, ...]
    boundary: str
    origins: tuple[Entry, ...] = ()
    blocks: tuple[Block, ...] = ()

    def __post_init__(self) -> None:
        if self.unit not in get_args(Unit):
            raise CostError(f"unit is {self.unit!r}, expected 'J' or 'relative'")
        if not (0 <= self.fixed < math.inf):
            raise CostError(f"fixed is {self.fixed}, expected a finite number of at least 0{self._sources()}")
        tensors = len(self.layout.tensors)
        if self.bits_per_kept.shape != (tensors,) or self.per_bit.shape != (tensors,):
            raise CostError(f"bits_per_kept and per_bit need shape ({tensors},), one number per tensor")
        if self.per_kept.shape not in {(tensors,), (self.layout.n,)}:
            raise CostError(
                f"per_kept has shape {self.per_kept.shape}, but this layout needs ({tensors},), one price "
                f"per tensor, or ({self.layout.n},), one per coordinate"
            )
        wrong = np.flatnonzero(~((self.per_kept > 0) & (self.per_kept < math.inf)))
        if wrong.size:
            first = int(wrong[0])
            name = self.layout.name_of(first) if self.per_coordinate else self.layout.tensors[first].name
            raise CostError(
                f"per_kept of tensor {name!r} is {self.per_kept[first]}, but a price must be finite and "
                f"above 0{self._sources()}"
            )
        for block in self.blocks:
            self._check_block(block)

    def _check_block(self, block: Block) -> None:
        tensors = len(self.layout.tensors)
        if not block.elements.shape == block.per_touched.shape == block.included.shape == (tensors,):
            raise CostError(f"blocks {block.name!r} need arrays of shape ({tensors},), one number per tensor")
        whole, own = block.per_touched, block.included * block.elements
        sound = (block.elements >= 1) & (own >= 0) & (own <= whole * (1 + 1e-9)) & np.isfinite(whole)
        if not sound.all():
            first = int(np.argmin(sound))
            raise CostError(
                f"blocks {block.name!r} of tensor {self.layout.tensors[first].name!r} have {block.elements[first]} "
                f"elements at {whole[first]}, of which each kept coordinate holds {block.included[first]}; a block has "
                f"at least one element and costs at least what its coordinates do{self._sources()}"
            )

    def _sources(self) -> str:
        return "".join(f"; {each.path} = {each.value} {each.unit} ({each.source})" for each in self.origins)

    @classmethod
    def of(
        cls,
        per_kept: PerTensor,
        layout: Layout | None = None,
        unit: Unit = "J",
        bits_per_kept: PerTensor = 64.0,
    ) -> Costs:
        """Take prices that you know yourself.

        Args:
            per_kept: float64[n], one price per coordinate. With a layout also float64[tensors], one number,
                or numbers by tensor name or pattern.
            layout: the tensors; without it the vector is one tensor called ``update``.
            unit: ``J`` or ``relative``.
            bits_per_kept: estimated encoded bits of one kept coordinate, for budgets in bytes.

        Raises:
            CostError: a price is not finite or not above 0, or the length fits neither tensors nor elements.

        Example:
            >>> layout = Layout.of({"conv.weight": np.ones((2, 1, 3, 3)), "fc.weight": np.ones((4, 2))})
            >>> Costs.of({"conv.*": 1.0, "*": 10.0}, layout, unit="relative").per_kept
            array([ 1., 10.])
        """
        if layout is None:
            layout = Layout.single(floats("per_kept", per_kept).size)
        prices = None if isinstance(per_kept, Mapping) else floats("per_kept", per_kept)
        if prices is None or prices.shape != (layout.n,):
            prices = per_tensor("per_kept", per_kept, layout, f" or per coordinate, {(layout.n,)}")
        none = np.zeros(len(layout.tensors))
        bits = bits_of("bits_per_kept", bits_per_kept, layout)
        costs = cls(layout, unit, prices, bits, none, 0.0, (Term("given", prices, none),), "given")
        warn_if_coarse(costs)
        return costs

    @property
    def contrast(self) -> float:
        """Largest price over smallest. At 1, every rule that weighs by price keeps what TopK keeps."""
        return float(self.per_kept.max() / self.per_kept.min()) if self.per_kept.size else 1.0

    @property
    def per_coordinate(self) -> bool:
        """Whether `per_kept` holds one price per coordinate rather than one per tensor."""
        return self.per_kept.size != len(self.layout.tensors)

    @property
    def other(self) -> Floats:
        """What keeping one coordinate costs besides its encoded bits: float64[tensors] (or [n])."""
        parts = [term.per_kept for term in self.terms if not term.per_bit.any()]
        return sum_of(parts, len(self.layout.tensors))

    @property
    def send_per_bit(self) -> Floats:
        """What the sender pays per encoded bit: float64[tensors], `per_bit` without what receivers pay."""
        if not any(term.name in RECEIVER_TERMS for term in self.terms):
            return self.per_bit
        mine = [term.per_bit for term in self.terms if term.name not in RECEIVER_TERMS]
        return sum_of(mine, len(self.layout.tensors))

    def block_energy(self, indices: npt.NDArray[Any]) -> float:
        """What blocks add to the prices of the kept `indices` (ascending); 0 where nothing moves in blocks.

        Example:
            >>> line = Block("cache_lines", np.array([4]), np.array([8.0]), np.array([2.0]))
            >>> costs = replace(Costs.of(np.full(8, 2.0)), blocks=(line,))
            >>> costs.block_energy(np.array([0], np.uint32)), costs.block_energy(np.arange(8, dtype=np.uint32))
            (6.0, 0.0)
        """
        return math.fsum(block.energy(indices, self.layout) for block in self.blocks)

    def at_bits(self, bits_per_kept: PerTensor) -> Costs:
        """The same prices when a kept coordinate takes other bits: only what is paid per bit changes.

        Raises:
            CostError: bits are not finite or not above 0, or do not fit the layout.

        Example:
            >>> costs = Costs.of(np.ones(3))
            >>> float(costs.at_bits(40.0).bits_per_kept[0]), float(costs.at_bits(40.0).per_kept[0])
            (40.0, 1.0)
        """
        bits = bits_of("bits_per_kept", bits_per_kept, self.layout)
        terms = tuple(
            Term(term.name, term.per_bit * bits, term.per_bit) if term.per_bit.any() else term for term in self.terms
        )
        per_kept = sum_of([term.per_kept for term in terms], len(self.layout.tensors))
        return replace(self, per_kept=per_kept, bits_per_kept=bits, terms=terms)


def warn_if_coarse(costs: Costs) -> None:
    """Warn where exact sums round the smallest price up by more than a thousandth of it."""
    _, quantum = quanta(costs.per_kept, costs.layout.n)
    if costs.layout.n and quantum > 1e-3 * costs.per_kept.min():
        warnings.warn(
            f"the largest price is {costs.contrast:.3g} times the smallest, so exact sums round the smallest "
            f"up by as much as {quantum / costs.per_kept.min():.2g} of itself; budgets may buy less",
            stacklevel=3,
        )


def sum_of(parts: Sequence[Floats], tensors: int) -> Floats:
    """The sum of arrays, and zeros where there is none."""
    return np.sum(parts, axis=0, dtype=np.float64) if parts else np.zeros(tensors)
