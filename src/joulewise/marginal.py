"""Prices at the density that each tensor will have: what one coordinate more really adds to a message."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import numpy.typing as npt

from joulewise.codec import ValueType
from joulewise.costs import Costs
from joulewise.layout import Vector
from joulewise.order import Order
from joulewise.prices import index_bits
from joulewise.rules import CWMP, Budget, Bytes, Count, Density, Joules, Price, Projection, Rule, TopK
from joulewise.select import Source, choose
from joulewise.tensorwise import Floats

REFINEMENTS = 8
"""Of the estimate: the density of each tensor follows from the prices, and the prices from it."""
SETTLED_BITS = 0.01
FIRST_DENSITY = 0.01
"""Of all tensors, before the first estimate."""
# Encoded bits of a value above a threshold: sign and mantissa, and what its exponent still has to say.
TYPICAL_VALUE_BITS = {"float32": 26.0, "float16": 13.0, "bfloat16": 10.0, "int8": 8.0, "ternary": 1.0}

REACH = 1.3
"""How far beyond a budget an order is looked at, so that the next selections need no pass over the update."""

Kept = Callable[[Source, Costs], tuple[npt.NDArray[np.int64], Source]]
"""How many coordinates of each tensor are kept at some prices, and what to select from the next time."""


def marginal_prices(
    vector: Vector, costs: Costs, rule: Rule, budget: Budget | None, values: ValueType | tuple[ValueType, ...]
) -> Costs:
    """The prices that a message is chosen by.

    What depends on encoded bits is priced at ``b_g = value bits + log2((1 - p_g) / p_g)``, p_g the density that TopK
    would give tensor g at this budget. With Count and Density that is one selection, for no price moves the count.
    With Joules and Bytes prices say how far a budget reaches: densities and prices follow from each other, and are
    refined to a fixed point. A Price budget has no target from which TopK's densities would follow: p_g is the
    density that the rule itself gives the tensor at this threshold, refined in the same way from one density of 1 %;
    so a higher threshold still never keeps more. Where TopK keeps nothing of a tensor, half a coordinate counts.

    Prices stay as they are where none depends on bits (synthetic profiles, `Costs.of`), where there is one for each
    coordinate, and where neither the order nor the end of what is kept hangs on prices: Dense, TopK with Threshold, and
    TopK, LayerwiseTopK, RandomK and MinVariance with Count or Density.

    Args:
        vector: float32[n], update plus residual; finite.
        costs: prices of the client's device.
        rule: what to rank by.
        budget: where to stop.
        values: value type of the payload, one for all tensors or one per tensor.

    Example:
        >>> from joulewise.devices import load_device
        >>> from joulewise.layout import Layout
        >>> from joulewise.prices import price
        >>> layout = Layout.of({"large.weight": np.ones((10, 10)), "small.weight": np.ones((10, 10))})
        >>> vector = np.where(np.arange(200) < 50, 1.0, 0.0).astype(np.float32)
        >>> priced = marginal_prices(vector, price(layout, load_device("phone-lte-2021")), CWMP(), Count(50), "float32")
        >>> priced.bits_per_kept.round(2).tolist()  # 26 of a value, and where it is at densities of 1/2 and 1/200
        [26.0, 33.64]
    """
    return priced_at_margin(Source(vector), costs, rule, budget, values)[0]


def priced_at_margin(
    source: Source, costs: Costs, rule: Rule, budget: Budget | None, values: ValueType | tuple[ValueType, ...]
) -> tuple[Costs, Source]:
    """`marginal_prices`, and what to select from the next time.

    Raises:
        NotFinite: the update, or its sum with the residual, holds NaN or infinity.
    """
    if costs.per_coordinate or not (costs.per_bit.any() or isinstance(budget, Bytes)):
        return costs, source
    types = (values,) * len(costs.layout.tensors) if isinstance(values, str) else values
    value_bits = np.array([TYPICAL_VALUE_BITS[value_type] for value_type in types], dtype=np.float64)
    match budget:
        case Joules() if costs.blocks:
            source = source.added()
            return _refined(source, costs, value_bits, _kept_of_order(source, costs.at_bits(value_bits), budget))
        case Joules() | Bytes():
            return _refined(source, costs, value_bits, _kept_of(TopK(), budget))
        case Count() | Density() if isinstance(rule, CWMP | Projection):
            counts, source = _kept_of(TopK(), budget)(source, costs)
            return costs.at_bits(value_bits + _place_bits(counts, costs)), source
        case Price():
            return _refined(source, costs, value_bits, _kept_of(rule, budget))
        case _:
            return costs, source


def room_of(budget: Joules | Bytes, costs: Costs) -> float:
    """What a budget leaves for a message: bytes, or energy without what is fixed."""
    if isinstance(budget, Bytes):
        return float(budget.n)
    return budget.room(costs.fixed)


def _refined(source: Source, costs: Costs, value_bits: Floats, kept: Kept) -> tuple[Costs, Source]:
    priced = costs.at_bits(value_bits + index_bits(FIRST_DENSITY))
    for _ in range(REFINEMENTS):
        counts, source = kept(source, priced)
        bits = value_bits + _place_bits(counts, costs)
        settled = bool(np.all(np.abs(bits - priced.bits_per_kept) <= SETTLED_BITS))
        priced = priced.at_bits(bits)
        if settled:
            break
    return priced, source


def _place_bits(counts: npt.NDArray[np.int64], costs: Costs) -> Floats:
    return index_bits(np.maximum(counts, 0.5) / np.maximum(costs.layout.sizes, 1))


def _kept_of(rule: Rule, budget: Budget) -> Kept:
    def kept(source: Source, priced: Costs) -> tuple[npt.NDArray[np.int64], Source]:
        chosen = choose(source, priced, rule, budget, reach=REACH if isinstance(budget, Joules | Bytes) else 1.0)
        return priced.layout.counts(chosen.selection.indices), chosen.source

    return kept


def _kept_of_order(source: Source, cheapest: Costs, budget: Joules) -> Kept:
    """Where blocks are paid for, how far TopK's order reaches; at no prices further than at the cheapest."""
    room = max(0.0, room_of(budget, cheapest))
    order = Order.reaching(source.vector, cheapest, TopK(), room)
    return lambda again, priced: (order.counts(order.reached(order.energies(priced), room)), again)
