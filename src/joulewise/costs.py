"""What keeping one coordinate of each tensor costs, as a record."""

from __future__ import annotations

import math
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, get_args

import numpy as np
import numpy.typing as npt

from joulewise.blocks import Block as Block
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

FURTHEST = 1e270
"""Times the smallest price is the largest that there may be: no float32 number then scores 0 in float64."""


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
class Transmission:
    """What one link takes once for each reply that uses it, whatever it carries: promotion and tail.

    Args:
        fixed: that energy.
        tensors: bool[tensors], which tensors go over the link.
    """

    fixed: float
    tensors: npt.NDArray[np.bool_]


@dataclass(frozen=True, slots=True, eq=False)
class Costs:
    """What keeping one coordinate of each tensor costs, and what that price is made of.

    Args:
        layout: the tensors.
        unit: ``J`` or ``relative``.
        per_kept: float64[tensors] or float64[n], price of keeping one coordinate; finite and above 0.
        bits_per_kept: float64[tensors], estimated encoded bits of one kept coordinate.
        per_bit: float64[tensors], energy per encoded bit; 0 where no link is priced.
        fixed: energy once per reply that uses every link, whatever is kept; see `fixed_for`.
        terms: what `per_kept` is made of; they sum to it.
        boundary: ``radio``, ``device`` or ``memory``; ``synthetic`` and ``given`` where no link was priced.
        origins: the numbers behind the prices.
        blocks: what moves in blocks, beside the prices; `select` does not know of it, a `Compressor` does.
        transmissions: what `fixed` is made of where tensors go over several links; none where all go over one.

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
    transmissions: tuple[Transmission, ...] = ()

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
        if self.per_kept.size and self.per_kept.max() / FURTHEST > self.per_kept.min():
            raise CostError(
                f"per_kept goes from {self.per_kept.min()} to {self.per_kept.max()}, but the largest may be at most "
                f"{FURTHEST:g} times the smallest: scores would be too small for float64{self._sources()}"
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
        if prices is not None and prices.shape == (layout.n,) == layout.sizes.shape and (layout.sizes != 1).any():
            raise CostError(
                f"per_kept has {layout.n} numbers, but this layout has as many tensors as coordinates, so they may be "
                "either's: give prices by tensor name"
            )
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
        prices = self.per_kept if self.per_coordinate else self.per_kept[self.layout.sizes > 0]
        return float(prices.max() / prices.min()) if prices.size else 1.0

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

    def fixed_for(self, counts: npt.NDArray[Any]) -> float:
        """What the links that a reply uses take once: those of the tensors of which it keeps something.

        Its header and whatever travels whole go over the link that is dearest per bit, so that one is always used.

        Args:
            counts: [tensors], how many coordinates of each tensor are kept.

        Example:
            >>> lte, ble = (Transmission(fixed, np.array(on)) for fixed, on in ((12.0, [1, 0]), (1.0, [0, 1])))
            >>> costs = replace(Costs.of(np.ones(2), Layout.of({"a": np.ones(3), "b": np.ones(3)})), fixed=13.0)
            >>> costs = replace(costs, transmissions=(lte, ble))
            >>> costs.fixed_for(np.array([3, 0])), costs.fixed_for(np.array([0, 2]))
            (12.0, 13.0)
        """
        if len(self.transmissions) < 2:
            return self.fixed
        carrying = np.asarray(counts) > 0
        carrying[int(np.argmax(self.send_per_bit))] = True
        return math.fsum(each.fixed for each in self.transmissions if (each.tensors & carrying).any())

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
