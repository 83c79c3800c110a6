"""What a node's coordinates cost: its own to send, and everybody's to receive."""

from __future__ import annotations

from functools import lru_cache

import numpy as np

from joulewise.compress import Compressor
from joulewise.costs import Costs
from joulewise.devices import Device
from joulewise.layout import Layout
from joulewise.prices import Boundary, price, receive_j
from joulewise.rounding import VALUE_BITS
from joulewise.rules import Count, Density


@lru_cache(maxsize=64)
def priced(layout: Layout, device: Device, compressor: Compressor, boundary: Boundary) -> Costs:
    """Prices of a model on a device, at one density of all tensors, the one that the compressor's budget implies.

    Those that depend on bits the compressor takes to each tensor's own density in each update.
    """
    types = (compressor.values,) * len(layout.tensors) if isinstance(compressor.values, str) else compressor.values
    bits = np.array([VALUE_BITS[each] for each in types])
    return price(layout, device, bits, _density(layout, compressor), boundary=boundary)


@lru_cache(maxsize=64)
def receiving(layout: Layout, device: Device, compressor: Compressor, boundary: Boundary) -> float:
    """What it costs a device to receive every coordinate of a new model as one that changed: 32 bits, and its place."""
    return receive_j(layout, device, 32, _density(layout, compressor), boundary=boundary)


def _density(layout: Layout, compressor: Compressor) -> float:
    budget = compressor.budget
    count = budget.count(layout.n) if isinstance(budget, Count | Density) else 0.01 * layout.n
    return min(1.0, max(count, 1.0) / max(layout.n, 1))
