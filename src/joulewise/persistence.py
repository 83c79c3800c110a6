"""Flash that is rewritten when a new model arrives."""

from __future__ import annotations

import math
from collections.abc import Iterable

import numpy as np
import numpy.typing as npt

from joulewise.costs import Costs
from joulewise.devices import Device
from joulewise.layout import Tensor
from joulewise.residency import ELEMENT_BITS, flash_of, page_energy

UInt32 = npt.NDArray[np.uint32]
PERSISTENCE, PAGES = "persistence", "flash_pages"


def rewriting(costs: Costs, kept: UInt32 | None = None, changed: UInt32 | None = None) -> float:
    """Energy of rewriting the parameters that a received model changes, without what a reply has paid for.

    A page of flash with a change is erased and written whole. The pages on which a client's own kept coordinates lie
    are in the charges of its reply (``persistence``, and pages in ``blocks``), so they are not counted again: with the
    reply's charges this is the energy of one rewriting. Tensors that stay in RAM (`price`, ``in_ram``) are none.

    Args:
        costs: prices of the device, in joules.
        kept: uint32[k], ascending: what the client's own reply keeps; None for no reply.
        changed: uint32[k], ascending: which coordinates the received model changes; None for all, as when the server
            sends the whole model.

    Example:
        >>> from joulewise.devices import load_device
        >>> from joulewise.layout import Layout
        >>> from joulewise.prices import price
        >>> layout = Layout.of({"fc.weight": np.ones((64, 64))})
        >>> costs = price(layout, load_device("mcu-flash-ble-nrf5340"))
        >>> own = np.array([0], np.uint32)
        >>> round(rewriting(costs) / rewriting(costs, own), 3), rewriting(costs, own, own)  # one page of four
        (1.333, 0.0)
    """
    own = np.empty(0, np.uint32) if kept is None else kept
    every = _of_all(costs) if changed is None else _of(costs, np.union1d(changed, own))
    return max(0.0, every - _of(costs, own))


def rewriting_of(tensors: Iterable[Tensor], device: Device) -> float:
    """Energy of rewriting whole tensors, each from a page of its own; 0 where the weights do not lie in flash.

    Parameters lie there in float32, what travels whole in its own element type.

    Example:
        >>> from joulewise.devices import load_device
        >>> from joulewise.layout import Layout
        >>> layout = Layout.of({"fc.weight": np.ones((64, 64))})
        >>> flash = load_device("mcu-flash-ble-nrf5340")
        >>> rewriting_of(layout.tensors, load_device("phone-lte-2021")), round(rewriting_of(layout.tensors, flash), 4)
        (0.0, 0.0053)
    """
    flash = None if device.memory is None else flash_of(device.memory)
    if flash is None:
        return 0.0
    if flash.page is None:
        return math.fsum(stored_bits(tensor) * flash.write.si for tensor in tensors)
    page_bits = max(1, int(flash.page.si * 8 // ELEMENT_BITS)) * ELEMENT_BITS
    return math.fsum(-(-stored_bits(tensor) // page_bits) * page_energy(flash) for tensor in tensors)


def stored_bits(tensor: Tensor) -> int:
    """Bits that a tensor takes on a client: parameters are float32, what travels whole has its own element type."""
    whole = tensor.kind in {"buffer", "whole"} and tensor.dtype != "bfloat16"  # which NumPy does not know
    return tensor.size * (8 * np.dtype(tensor.dtype).itemsize if whole else ELEMENT_BITS)


def _of(costs: Costs, indices: UInt32) -> float:
    """What rewriting these coordinates takes: their own bits, and the rest of their pages."""
    pages = [block.energy(indices, costs.layout) for block in costs.blocks if block.name == PAGES]
    return math.fsum((_own_bits(costs, costs.layout.counts(indices)), *pages))


def _of_all(costs: Costs) -> float:
    """The same for every coordinate, without a list of them."""
    sizes = costs.layout.sizes
    pages = [
        float(block.per_touched @ -(-sizes // block.elements) - block.included @ sizes)
        for block in costs.blocks
        if block.name == PAGES
    ]
    return math.fsum((_own_bits(costs, sizes), *pages))


def _own_bits(costs: Costs, counts: npt.NDArray[np.int64]) -> float:
    return math.fsum(float(term.per_kept @ counts) for term in costs.terms if term.name == PERSISTENCE)
