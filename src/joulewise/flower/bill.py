"""What a round costs a study's client before any coordinate, worked out before it is paid."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from flwr.app import ArrayRecord

from joulewise.codec import encode
from joulewise.compress import Compressor
from joulewise.costs import Costs
from joulewise.curves import POINTS
from joulewise.devices import with_link
from joulewise.fleet import Allocation, OnePrice
from joulewise.flower import wire
from joulewise.flower.costing import priced
from joulewise.flower.settings import loaded
from joulewise.flower.summary import MOST_ORDER_BYTES
from joulewise.layout import Layout
from joulewise.ledger import curve_charge, round_charges, total
from joulewise.rules import Count, Density, Joules
from joulewise.select import Selection


@dataclass(frozen=True, slots=True)
class Need:
    """What a client needs to take part.

    Args:
        fixed_j: energy before any coordinate: training, receiving, what a reply costs whatever it keeps.
        wanted_j: the largest energy that its mask has a use for, by its prices.
    """

    fixed_j: float
    wanted_j: float


@dataclass(frozen=True, slots=True)
class Bill:
    """What all rounds of an arm have in common.

    Args:
        layout: of the model.
        model_bytes: of the whole model; changes alone are never larger.
        whole_bytes: of a reply that keeps nothing.
        compressor: of the clients.
        devices: of each client.
        training: multiply-accumulates of a client's round; empty where nobody says what they take.
        curve_bytes: of an energy-price curve, where the server asks for one.
        allotted: whether the server hands out energy in the place of the compressor's budget.
        asked: whether it asks for the curve before, in a message of its own.
    """

    layout: Layout
    model_bytes: int
    whole_bytes: int
    compressor: Compressor
    devices: tuple[str, ...]
    training: tuple[float, ...] = ()
    curve_bytes: int = 0
    allotted: bool = False
    asked: bool = False

    def need(self, client: int, factor: float = 1.0) -> Need:
        """What a client needs in a round.

        Args:
            client: its partition.
            factor: on what a bit costs on its link.
        """
        return _need(self, self.devices[client], factor, self.training[client] if self.training else None)


def bill_of(
    model: ArrayRecord,
    compressor: Compressor,
    devices: tuple[str, ...],
    training: tuple[float, ...] = (),
    allocation: Allocation | None = None,
) -> Bill:
    """The bill of a model; for the rest see `Bill`."""
    arrays = wire.to_numpy(model)
    layout = wire.layout_of(arrays, {})
    control = allocation.control if isinstance(allocation, OnePrice) else "ascent"
    return Bill(
        layout,
        model_bytes=wire.size_of(model),
        whole_bytes=len(encode(_nothing(layout), layout, compressor.values, arrays)) if layout.wholes else 0,
        compressor=compressor,
        devices=devices,
        training=training,
        curve_bytes=0 if control == "ascent" else 8 * POINTS,
        allotted=allocation is not None,
        asked=control == "asked",
    )


@lru_cache(maxsize=1024)
def _need(bill: Bill, name: str, factor: float, multiply_accumulates: float | None) -> Need:
    device = loaded(name) if factor == 1.0 else with_link(loaded(name), factor)
    costs = priced(bill.layout, device, bill.compressor, "radio")
    around = round_charges(
        curve_charge(bill.curve_bytes, costs, bill.asked),
        bill.layout,
        device,
        bytes_down=bill.model_bytes + (MOST_ORDER_BYTES if bill.asked else 0),
        multiply_accumulates=multiply_accumulates,
        remembers=bill.compressor.remembers,
    )
    # A reply that uses every link; one that keeps something has its header among what its mask costs.
    reply_j = costs.fixed + 8 * bill.whole_bytes * float(costs.send_per_bit.max(initial=0.0))
    return Need(total(around) + reply_j, _wanted(bill, costs))


def _wanted(bill: Bill, costs: Costs) -> float:
    budget, dense_j = bill.compressor.budget, math.fsum((costs.per_kept * costs.layout.sizes).tolist())
    if bill.allotted:
        return dense_j
    if isinstance(budget, Joules):
        return min(budget.budget, dense_j)
    if isinstance(budget, Count | Density):
        return min(budget.count(costs.layout.n) * float(costs.per_kept.max()), dense_j)
    return dense_j


def _nothing(layout: Layout) -> Selection:
    return Selection(layout.n, np.empty(0, np.uint32), np.empty(0, np.float32))
