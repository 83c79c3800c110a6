"""The parts of a model in an explanation: by kind of tensor, what TopK keeps of it and what that costs."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import groupby
from typing import Any, Literal

import numpy as np

from joulewise.costs import Costs
from joulewise.explanation import Part, PriceShare
from joulewise.layout import Kind
from joulewise.tensorwise import Floats


def parts_of(costs: Costs, counts: Floats) -> Iterator[Part]:
    """One part per kind of tensor, in the order of the layout; TopK keeps `counts`: float64[tensors]."""
    kinds = [tensor.kind for tensor in costs.layout.tensors]
    for kind in dict.fromkeys(kinds):
        yield part_of(kind, np.array([each == kind for each in kinds]), costs, counts)


def part_of(kind: Kind | Literal["total"], chosen: Any, costs: Costs, counts: Floats) -> Part:
    """The tensors that are `chosen`: bool[tensors]."""
    sizes, prices = costs.layout.sizes[chosen], costs.per_kept[chosen]
    size = int(sizes.sum())
    return Part(
        kind,
        int(np.count_nonzero(chosen)),
        size,
        size / costs.layout.n,
        float(counts[chosen].sum()),
        float(counts[chosen] @ prices),
        float(sizes @ prices) / max(size, 1),
        {term.name: float(sizes @ term.per_kept[chosen]) / max(size, 1) for term in costs.terms},
        {term.name: float(counts[chosen] @ term.per_kept[chosen]) for term in costs.terms},
        tuple(_price_shares(prices, sizes, costs.layout.n)),
    )


def _price_shares(prices: Floats, sizes: Any, n: int) -> Iterator[PriceShare]:
    pairs = sorted(zip(prices.tolist(), sizes.tolist(), strict=True))
    for value, group in groupby(pairs, key=lambda pair: pair[0]):
        count = sum(size for _, size in group)
        if count:
            yield PriceShare(value, count, count / n)
