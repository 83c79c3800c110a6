"""The order of a rule, best first, and what its first coordinates take where memory moves in blocks.

Blocks are no sum over coordinates, so no limit on prices says where a budget ends. But along one order their energy
only grows: a block is paid for by the first of its coordinates. One selection gives the candidates; after that, where
any budget ends is a search in running sums, without another pass over the vector.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass, replace

import msgspec
import numpy as np
import numpy.typing as npt

from joulewise.costs import Costs
from joulewise.layout import Vector
from joulewise.limits import rank
from joulewise.rules import CWMP, Joules, LayerwiseTopK, Projection, RandomK, TopK
from joulewise.select import Floats, Indices, select

Ordered = TopK | CWMP | Projection | RandomK | LayerwiseTopK
"""Rules that keep the first coordinates of an order."""


@dataclass(frozen=True, slots=True, eq=False)
class Order:
    """The first coordinates of an order.

    Args:
        costs: prices and blocks; prices per bit may change later, blocks may not.
        indices: uint32[k], ascending.
        ranked: int64[k], places in `indices`, best first.
        added: float64[k], what the blocks add when coordinates are kept in this order.
        complete: whether no other coordinate can be kept.
        passes: selections that it took.

    Example:
        >>> from joulewise.costs import Block
        >>> from joulewise.rules import TopK
        >>> from dataclasses import replace
        >>> pages = Block("flash_pages", np.array([2]), np.array([5.0]), np.array([1.0]))
        >>> costs = replace(Costs.of(np.full(4, 1.0)), blocks=(pages,))
        >>> order = Order.of(np.array([3, 1, 0, 2], np.float32), costs, TopK(), limit=9.0)
        >>> order.indices[order.ranked].tolist(), order.energies(costs).tolist(), order.complete
        ([0, 3, 1], [5.0, 10.0, 10.0], True)
    """

    costs: Costs
    indices: Indices
    ranked: npt.NDArray[np.int64]
    added: Floats
    complete: bool
    passes: int = 1

    @classmethod
    def reaching(cls, vector: Vector, costs: Costs, rule: Ordered, room: float, seed: int = 0) -> Order:
        """The first coordinates, far enough for every budget up to `room` for prices and blocks together.

        Where blocks take most, far fewer fit than prices alone allow: as many are looked at as would fit twice if they
        were spread evenly, and only where all of those fit, as many as prices allow: two selections at most.
        """
        guess = 2 * _spread_evenly(costs, 2 * room)
        if guess < room:
            order = cls.of(vector, costs, rule, guess, seed)
            energies = order.energies(costs)
            if order.complete or order.reached(energies, room) < energies.size:
                return order
            return replace(cls.of(vector, costs, rule, room, seed), passes=2)
        return cls.of(vector, costs, rule, room, seed)

    @classmethod
    def of(cls, vector: Vector, costs: Costs, rule: Ordered, limit: float = sys.float_info.max, seed: int = 0) -> Order:
        """The coordinates whose prices alone take at most `limit`: no budget up to it reaches beyond them.

        Args:
            vector: float32[n], finite.
            costs: prices.
            rule: what to rank by.
            limit: in the unit of the costs; as it is, for every coordinate that is not zero.
            seed: of random rules.
        """
        if isinstance(rule, RandomK):  # What is sent is scaled, not the order.
            rule = msgspec.structs.replace(rule, scale=False)
        found = select(vector, costs, rule, Joules(limit), np.random.default_rng(seed)).indices
        key = int(np.random.default_rng(seed).integers(0, 2**64, dtype=np.uint64)) if rule.random else None
        ranked = np.argsort(-rank(vector, costs, rule, key).scores_at(found), kind="stable")
        added = np.zeros(found.size)
        for block in costs.blocks:
            added += block.along(found, ranked, costs.layout)
        return cls(costs, found, ranked, added, found.size == int(np.count_nonzero(vector)))

    def energies(self, costs: Costs) -> Floats:
        """What the first 1, 2, ... coordinates take together, at these prices and with blocks: float64[k], growing."""
        # In exact sums nothing falls; the running sum of floats may, by a hair.
        return np.maximum.accumulate(np.cumsum(self.prices(costs) + self.added))

    def prices(self, costs: Costs) -> Floats:
        """The price of each coordinate, best first: float64[k]."""
        if costs.per_coordinate:
            return costs.per_kept[self.indices[self.ranked]]
        return np.repeat(costs.per_kept, costs.layout.counts(self.indices))[self.ranked]

    def reached(self, energies: Floats, room: float) -> int:
        """How many of the first coordinates fit into the room, given `energies` of them."""
        return int(np.searchsorted(energies, room, side="right"))

    def counts(self, first: int) -> npt.NDArray[np.int64]:
        """How many of the `first` coordinates lie in each tensor: int64[tensors]."""
        return self.costs.layout.counts(np.sort(self.indices[self.ranked[:first]]))

    def price_limit(self, first: int) -> float:
        """A limit on prices alone under which `select` keeps the `first` coordinates; 0 for none."""
        # Half of the least price more: no rounding of the sum costs the last coordinate, and none more fits.
        return float(self.prices(self.costs)[:first].sum() + self.costs.per_kept.min() / 2) if first else 0.0


def _spread_evenly(costs: Costs, room: float) -> float:
    """What the prices of coordinates take that, spread evenly over all tensors, fit into the room with their blocks."""
    sizes = costs.layout.sizes
    everything = float(costs.per_kept.sum() if costs.per_coordinate else costs.per_kept @ sizes)

    def taken(share: float) -> float:
        pages = [
            block.per_touched @ (sizes / block.elements * (1 - (1 - share) ** block.elements))
            - share * (block.included @ sizes)
            for block in costs.blocks
        ]
        return share * everything + float(sum(pages))

    low, high = 0.0, 1.0
    for _ in range(50):
        middle = (low + high) / 2
        low, high = (middle, high) if taken(middle) <= room else (low, middle)
    return high * everything
