"""How far prices spread: over what TopK keeps, without its ends, and over all parameters."""

from __future__ import annotations

import msgspec
import numpy as np

from joulewise.costs import Costs
from joulewise.tensorwise import Floats

ENDS = (0.05, 0.95)


class Spread(msgspec.Struct, frozen=True):
    """Prices of keeping one coordinate.

    Args:
        cheapest: of all parameters.
        low: price that 5 % of the coordinates kept by TopK do not exceed.
        high: price that 95 % of them do not exceed.
        dearest: of all parameters.
        cheaper: share of all parameters that cost less than `low`.
        dearer: share of all parameters that cost more than `high`.
    """

    cheapest: float
    low: float
    high: float
    dearest: float
    cheaper: float
    dearer: float

    @property
    def ratio(self) -> float:
        """`high` over `low`: nine in ten of the coordinates that TopK keeps have prices within this factor."""
        return self.high / self.low

    @property
    def contrast(self) -> float:
        """`dearest` over `cheapest`. Weighing by price saves at most ``1 - 1 / contrast`` of TopK's energy.

        TopK keeps a mass with the fewest coordinates: N, each at `dearest` at most. Any other choice of that mass has
        N or more, each at `cheapest` at least.
        """
        return self.dearest / self.cheapest

    def hides(self, saving: float) -> bool:
        """Whether `saving` is more than prices within `ratio` allow, so that it comes from the few outside."""
        return saving > 1.0 - 1.0 / self.ratio


def spread(costs: Costs, counts: Floats) -> Spread:
    """The spread of the prices of tensors of which TopK keeps `counts` coordinates: float64[tensors], not all 0.

    Example:
        >>> from joulewise.layout import Layout
        >>> layout = Layout.of({"a": np.ones(90), "b": np.ones(110)})
        >>> found = spread(Costs.of(np.array([1.0, 5.0]), layout), np.array([1.0, 99.0]))
        >>> found.ratio, found.contrast, found.cheaper
        (1.0, 5.0, 0.45)
    """
    prices, sizes = costs.per_kept, costs.layout.sizes
    order = np.argsort(prices, kind="stable")
    reached = np.cumsum(counts[order])
    low, high = (float(prices[order[np.searchsorted(reached, end * reached[-1])]]) for end in ENDS)
    cheaper, dearer = (float(sizes[outside].sum()) / costs.layout.n for outside in (prices < low, prices > high))
    paid = prices[sizes > 0]
    return Spread(float(paid.min()), low, high, float(paid.max()), cheaper, dearer)
