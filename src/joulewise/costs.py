"""What keeping one coordinate of each tensor costs, as a record."""

from __future__ import annotations

import math
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import get_args

import numpy as np

from joulewise.devices import Entry, Unit
from joulewise.errors import CostError
from joulewise.layout import Layout
from joulewise.quanta import quanta
from joulewise.tensorwise import Floats, PerTensor, bits_of, floats, per_tensor


@dataclass(frozen=True, slots=True, eq=False)
class Term:
    """One part of the price of keeping a coordinate.

    Args:
        name: ``send_buffer``, ``uplink``, ``base_power``, ``synthetic`` or ``given``.
        per_kept: float64[tensors] (or [n]), energy of keeping one coordinate.
        per_bit: float64[tensors], energy per encoded bit: 0 everywhere, or per_kept / bits_per_kept.
    """

    name: str
    per_kept: Floats
    per_bit: Floats


@dataclass(frozen=True, slots=True, eq=False)
class Costs:
    """What keeping one coordinate of each tensor costs, and what that price is made of.

    Args:
        layout: the tensors.
        unit: ``J`` or ``relative``.
        per_kept: float64[tensors] or float64[n], price of keeping one coordinate; finite and above 0.
        bits_per_kept: float64[tensors], estimated encoded bits of one kept coordinate.
        per_bit: float64[tensors], uplink energy per encoded bit; 0 where no link is priced.
        fixed: energy once per reply sent, whatever is kept.
        terms: what `per_kept` is made of; they sum to it.
        boundary: ``radio``, ``device`` or ``memory``; ``synthetic`` and ``given`` where no link was priced.
        origins: the numbers behind the prices.

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
