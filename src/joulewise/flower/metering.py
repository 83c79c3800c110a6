"""What a round of a Flower app takes: bytes that crossed, and joules that the server works out itself.

No figure of a node enters the books. A node says which device it is; what its reply cost is then computed here, from
the payload that arrived and the prices of that device. Where the server does not know the device, the reply has no
charges, and the books say how many such replies there were. All joules are modelled; none is measured.

Bytes on the wire are estimated: Flower moves each message as objects, one HTTP request for each.

    wire up   = payload up + 940 B * (objects sent + objects fetched)     (headers of requests travel up)
    wire down = payload down

The 940 B are the mean that a counting proxy saw with Flower 1.41 (kind: model); answers' headers are left out.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property, lru_cache

import msgspec
import numpy as np
from flwr.app import Message, MetricRecord

from joulewise.codec import Decoded, encode_detailed
from joulewise.costs import Costs
from joulewise.devices import Device, Unit, list_devices, load_device, shipped
from joulewise.errors import CostError, PayloadError
from joulewise.flower import wire
from joulewise.flower.held import Receipt
from joulewise.flower.parcels import Booked, Download, model_of
from joulewise.flower.wire import Reply
from joulewise.layout import Layout
from joulewise.ledger import DOWNLINK_TERM, UPLINK_TERMS, Charge, curve_charge, round_charges, uplink_charges
from joulewise.persistence import rewriting
from joulewise.prices import Boundary, price, receive_j
from joulewise.residency import flash_of
from joulewise.results import ClientResult
from joulewise.rounding import VALUE_BITS, ValueType

PREFIX = "joulewise."
REQUEST_HEADER_BYTES = 940


@dataclass(frozen=True, slots=True)
class Exchange:
    """A request and its reply, as they crossed.

    Args:
        node: who was asked.
        bytes_up: of the arrays of the reply, encoded.
        bytes_down: of the arrays of the request.
        wire_bytes_up: with an estimate of what Flower's transport adds.
        wire_bytes_down: the same of the request.
        refused: whether the reply was an error, or could not be used.
    """

    node: int
    bytes_up: int
    bytes_down: int
    wire_bytes_up: int
    wire_bytes_down: int
    refused: bool = False

    @classmethod
    def of(cls, request: Message, reply: Message | None, downloads: Sequence[Download] | None = None) -> Exchange:
        """What crossed, before the reply is decoded; `downloads` are the models as they were really sent."""
        if downloads is None:
            down, fetched = _crossing(request)
        else:
            down, fetched = sum(each.bytes for each in downloads), sum(each.objects for each in downloads)
        up, sent = (0, 0) if reply is None else _crossing(reply)
        headers = REQUEST_HEADER_BYTES * (fetched + sent)
        return cls(request.metadata.dst_node_id, up, down, up + headers, down, refused=reply is None)

    def plus(self, further: Exchange | None) -> Exchange:
        """With what crossed besides, before the reply."""
        if further is None:
            return self
        names = ("bytes_up", "bytes_down", "wire_bytes_up", "wire_bytes_down")
        return replace(self, **{name: getattr(self, name) + getattr(further, name) for name in names})


class Crossed:
    """Models that were sent in one call, each to be counted with one request."""

    def __init__(self, downloads: Iterable[Download]) -> None:
        self._left: dict[tuple[int, str], list[Download]] = {}
        for each in downloads:
            self._left.setdefault((each.node, each.message_type), []).append(each)

    def exchange(self, request: Message, reply: Message | None) -> Exchange:
        """What crossed for a request, tries that its node could not use included."""
        if model_of(request) is None:
            return Exchange.of(request, reply)
        at = request.metadata.dst_node_id, request.metadata.message_type
        return Exchange.of(request, reply, self._left.pop(at, []))


def _crossing(message: Message) -> tuple[int, int]:
    return wire.crossing(message.content) if message.has_content() else (0, 1)


@dataclass(frozen=True, slots=True)
class Dense:
    """Between what sending and receiving everything costs on a device, by the server's own prices.

    Args:
        device: as the node calls it.
        unit: of its energy; None where the server has no prices for it.
        sent: least and most, of any value type and density.
        received: the same of receiving.
    """

    device: str
    unit: Unit | None = None
    sent: tuple[float, float] = (0.0, 0.0)
    received: tuple[float, float] = (0.0, 0.0)

    def check(self, claim: float, received: float | None = None) -> Unit:
        """The unit of what a node says that sending everything, and receiving it where that is counted, costs it.

        Raises:
            PayloadError: there are no prices to check it by, or it is less or more than it can be.
        """
        if self.unit is None:
            raise PayloadError(
                f"there are no prices here for its device {self.device!r}; name its file at the server, with "
                "Pricing(devices=[...])"
            )
        for name, told, what, (least, most) in (
            ("dense_j", claim, "sending", self.sent),
            ("receive_j", received, "receiving", self.received),
        ):
            if told is not None and not least * (1 - 1e-9) <= told <= most * (1 + 1e-9):
                bound = f"at least {least:g}" if told < least else f"at most {most:g}"
                raise PayloadError(
                    f"it reports {name} = {told:g} {self.unit}, but {what} everything costs {bound} on "
                    f"{self.device}; give both sides the same profile and the same boundary"
                )
        return self.unit


@dataclass(frozen=True)
class Pricing:
    """What the server knows of the devices of its nodes.

    Args:
        devices: names or files of devices beside those that come with joulewise. A node says a name, never a price.
        boundary: what a joule takes in, see `joulewise.price`.
        multiply_accumulates: of training on one example; None to leave training out of the books.

    Raises:
        ProfileError: a device is not there or its file is wrong.

    Example:
        >>> Pricing().device("phone-lte-2021").unit, Pricing().device("my-own-board")
        ('J', None)
    """

    devices: Sequence[str] = ()
    boundary: Boundary = "radio"
    multiply_accumulates: float | None = None

    def __post_init__(self) -> None:
        _ = self._own

    @cached_property
    def _own(self) -> dict[str, Device]:
        found = {name: load_device(name) for name in self.devices}
        return found | {device.name: device for device in found.values()}

    def device(self, name: str) -> Device | None:
        """The device of that name; None where it is not known here. A path of a node is never opened."""
        return self._own.get(name) or (_shipped(name) if name in list_devices() else None)

    def in_flash(self, name: str) -> bool:
        """Whether the weights of that device lie in flash, so that it matters which of them a new model changes."""
        device = self.device(name)
        return device is not None and device.memory is not None and flash_of(device.memory) is not None

    def dense(self, name: str, layout: Layout) -> Dense:
        """What the server knows of the device of that name."""
        device = self.device(name)
        try:
            return Dense(name) if device is None else Dense(name, device.unit, *_dense(layout, device, self.boundary))
        except CostError:  # The device lacks what the boundary needs.
            return Dense(name)

    def checked(self, sent: Reply, decoded: Decoded, layout: Layout, booked: Booked, examples: int) -> ClientResult:
        """A reply's result with everything in it that the server can work out, and without charges otherwise."""
        claimed, counts = sent.result, layout.counts(decoded.selection.indices)
        delta = claimed.delta if claimed.delta is not None and 0 <= claimed.delta <= 1 else None
        return msgspec.structs.replace(
            claimed,
            examples=examples,
            bytes_up=sent.size,
            bytes_down=booked.size,
            charges=self._charges(sent, decoded, layout, booked, examples),
            kept_by_tensor=tuple(counts.tolist()),
            parameters=layout.n,
            delta=delta,
            accuracy=claimed.accuracy if claimed.accuracy is not None and 0 <= claimed.accuracy <= 1 else None,
            loss=claimed.loss if claimed.loss is not None and np.isfinite(claimed.loss) else None,
            contrast=claimed.contrast if 1 <= claimed.contrast < np.inf else 1.0,
        )

    def _charges(
        self, sent: Reply, decoded: Decoded, layout: Layout, booked: Booked, examples: int
    ) -> tuple[Charge, ...]:
        device = self.device(sent.device)
        if device is None:
            return ()
        macs = self.multiply_accumulates
        changed, names = Receipt(changed=booked.positions, form=booked.form).rewritten(layout)
        try:
            costs = _costs(layout, device, decoded.values, self.boundary)
            encoded = encode_detailed(decoded.selection, layout, decoded.values, decoded.whole or None)
            return round_charges(
                (*uplink_charges(encoded, decoded.selection, costs), *curve_charge(len(sent.curve), costs, sent.asked)),
                layout,
                device,
                bytes_down=booked.size,
                multiply_accumulates=None if macs is None else macs * examples,
                remembers=sent.feedback + sent.momentum,
                boundary=self.boundary,
                rewritten=rewriting(costs, decoded.selection.indices, changed),
                rewritten_wholes=[tensor for tensor in layout.wholes if tensor.name in names],
            )
        except CostError:  # The device lacks what the boundary needs.
            return ()


@lru_cache(maxsize=64)
def _shipped(name: str) -> Device:
    return shipped(name)


@lru_cache(maxsize=64)
def _costs(layout: Layout, device: Device, values: tuple[ValueType, ...], boundary: Boundary) -> Costs:
    """Prices at any density: what a message took as encoded does not depend on it."""
    return price(layout, device, np.array([VALUE_BITS[each] for each in values]), boundary=boundary)


@lru_cache(maxsize=64)
def _dense(layout: Layout, device: Device, boundary: Boundary) -> tuple[tuple[float, float], tuple[float, float]]:
    """Least and most energy of sending and of receiving all coordinates.

    In the narrowest type with no bits for places, and in the widest with each as dear as if it were alone. What is
    received has 32 bits.
    """
    alone, (narrow, *_, wide) = 1.0 / max(2, layout.n), sorted(VALUE_BITS.values())
    ends = [price(layout, device, *each, boundary=boundary) for each in ((narrow, 1.0), (wide, alone))]
    least, most = (math.fsum((costs.per_kept * layout.sizes).tolist()) for costs in ends)
    received = [receive_j(layout, device, 32, density, boundary=boundary) for density in (1.0, alone)]
    return (least, most), (received[0], received[1])


# ---------------------------------------------------------------- sums of a round


def sums(exchanges: Iterable[Exchange], results: Iterable[ClientResult] | None = None) -> MetricRecord:
    """Bytes and joules of a round, added up over nodes, as metrics under ``joulewise.``.

    ``joules-*`` are modelled; energies of synthetic devices are under ``relative-*``. ``unpriced`` counts replies whose
    device the server does not know, or that were not compressed: their joules are in no sum.
    """
    crossed, done = list(exchanges), list(results or ())
    found: dict[str, int | float] = {
        "replies": sum(not each.refused for each in crossed),
        "failures": sum(each.refused for each in crossed),
        "bytes-up": sum(each.bytes_up for each in crossed),
        "bytes-down": sum(each.bytes_down for each in crossed),
        "wire-bytes-up": sum(each.wire_bytes_up for each in crossed),
        "wire-bytes-down": sum(each.wire_bytes_down for each in crossed),
    }
    if results is not None:
        found["unpriced"] = found["replies"] - sum(bool(result.charges) for result in done)
    for unit, name in (("J", "joules"), ("relative", "relative")):
        charges = [each for result in done for each in result.charges if each.unit == unit]
        if charges:
            found[f"{name}-up"] = _total(each for each in charges if each.term in UPLINK_TERMS)
            found[f"{name}-down"] = _total(each for each in charges if each.term == DOWNLINK_TERM)
            found[name] = _total(charges)
    return MetricRecord({f"{PREFIX}{key}": value for key, value in found.items()})


def _total(charges: Iterable[Charge]) -> float:
    return float(np.sum([charge.energy for charge in charges if charge.basis == "modelled"], dtype=np.float64))
