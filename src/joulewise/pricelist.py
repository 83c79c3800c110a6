"""The tensors and prices of a study, for the folder of its run."""

from __future__ import annotations

import warnings

import numpy as np

from joulewise.arrayfile import Header
from joulewise.devices import load_device
from joulewise.layout import Layout
from joulewise.learning import shapes
from joulewise.pricefile import DevicePrices, PriceList, TensorLine
from joulewise.prices import price
from joulewise.study import Study, expand

VALUE_BITS, DENSITY = 32, 0.01
"""What prices are listed at: float32 values, and positions of one coordinate in a hundred."""


def price_list(study: Study) -> PriceList:
    """Tensors of a study's model, and prices of each on every device that an arm has, by `joulewise.price`.

    Nothing is loaded or trained. Prices are those of `VALUE_BITS` and `DENSITY`; an arm's own differ from them by the
    bits of its values and of its positions.

    Raises:
        CostError: a device has no link.
    """
    found = shapes(study.model, *study.data.images, study.data.classes)
    layout = Layout.of({name: Header(shape, dtype) for name, (shape, dtype) in found.items()})
    devices = sorted({name for arm in expand(study) for name in arm.devices})
    return PriceList(
        tensors=tuple(TensorLine(tensor.name, tensor.kind, tensor.size) for tensor in layout.tensors),
        devices={name: _prices(layout, name) for name in devices},
    )


def _prices(layout: Layout, name: str) -> DevicePrices:
    with warnings.catch_warnings(action="ignore"):  # the clients warn where it matters to them
        costs = price(layout, load_device(name), VALUE_BITS, DENSITY)
    return DevicePrices(
        unit=costs.unit,
        boundary=costs.boundary,
        value_bits=VALUE_BITS,
        density=DENSITY,
        fixed=costs.fixed,
        per_kept=_numbers(costs.per_kept),
        terms={term.name: _numbers(term.per_kept) for term in costs.terms},
    )


def _numbers(array: np.ndarray[tuple[int, ...], np.dtype[np.float64]]) -> tuple[float, ...]:
    return tuple(array.tolist())
