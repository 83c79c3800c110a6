"""Prices of a model's tensors on a device: what keeping one coordinate costs."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, Literal, get_args

import numpy as np
import numpy.typing as npt

from joulewise.costs import Costs, Term, sum_of, warn_if_coarse
from joulewise.devices import ByKind, Device, Entry, Link, Residency, describe
from joulewise.errors import CostError
from joulewise.layout import Layout
from joulewise.tensorwise import Floats, PerTensor, bits_of, checked, match

Boundary = Literal["radio", "device", "memory"]
"""What a price takes in: ``radio`` the marginal joules of the link; ``device`` also the base power of the
device while it sends; ``memory`` no link at all."""


def price(
    layout: Layout,
    device: Device,
    value_bits: PerTensor = 32,
    density: PerTensor = 0.01,
    link: Link | Mapping[str, Link] | None = None,
    boundary: Boundary = "radio",
) -> Costs:
    """Price a model's tensors on a device.

    In joules, keeping a coordinate costs ``other + per_bit * bits_per_kept``. `other` is the send buffer:
    each value is written to DRAM once and read once, ``value_bits * (write + read)``; indices and headers are
    not in it. The bits are those of the value and of its place at the tensor's density p, what one coordinate
    more adds to an ideal code of the positions: ``value_bits + log2((1-p)/p)``, and at least `value_bits`.
    Synthetic devices price a coordinate by the kind or the size of its tensor, whatever its bits.

    Args:
        layout: the tensors.
        device: whose prices.
        value_bits: bits of an encoded value.
        density: share of a tensor's coordinates that will be kept, above 0 and at most 1.
        link: another link than the device's: for all tensors, or by tensor name or pattern.
        boundary: ``radio`` prices the marginal energy of the link; ``device`` adds base power over goodput;
            ``memory`` leaves the link out.

    Raises:
        CostError: an argument is out of range or does not fit the layout, or the device lacks what the
            boundary needs.

    Example:
        >>> from joulewise.devices import load_device
        >>> layout = Layout.of({"conv.weight": np.ones((2, 1, 3, 3)), "fc.weight": np.ones((4, 2))})
        >>> price(layout, load_device("synthetic-kind-10")).per_kept
        array([ 1., 10.])
        >>> costs = price(layout, load_device("phone-lte-2021"), density=0.5)
        >>> costs.unit, costs.boundary, [term.name for term in costs.terms]
        ('J', 'radio', ['send_buffer', 'uplink'])
    """
    if boundary not in get_args(Boundary):
        raise CostError(f"boundary is {boundary!r}, expected one of: {', '.join(get_args(Boundary))}")
    values = bits_of("value_bits", value_bits, layout)
    bits = values + index_bits(_densities(density, layout))
    if device.prices is not None:
        if link is not None:
            raise CostError(f"link is in joules, but device {device.name!r} is relative; leave link out")
        costs = _price_relative(layout, device, device.prices, bits)
    else:
        links = [] if boundary == "memory" else _links(layout, device, link)
        costs = _price_joules(layout, device, values, bits, links, boundary)
    warn_if_coarse(costs)
    return costs


def index_bits(density: npt.NDArray[Any] | float) -> Floats:
    """Bits that tell where one more kept coordinate is: ``max(0, log2((1-p)/p))`` at density p above 0.

    The derivative of the positions' entropy n H(k/n) by k. Same shape as `density`.

    Example:
        >>> index_bits(np.array([0.01, 0.5, 1.0])).round(2)
        array([6.63, 0.  , 0.  ])
    """
    share = np.minimum(np.asarray(density, dtype=np.float64), 0.5)
    return np.asarray(np.log2((1.0 - share) / share))


def _price_relative(layout: Layout, device: Device, prices: ByKind | Residency, bits: Floats) -> Costs:
    if isinstance(prices, ByKind):
        per_kept = [float(getattr(prices, tensor.kind).si) for tensor in layout.tensors]
    else:
        resident = _resident(layout, prices.share.si)
        per_kept = [prices.resident.si if close else prices.spilled.si for close in resident]
    kept, none = np.array(per_kept, dtype=np.float64), np.zeros(len(layout.tensors))
    terms = (Term("synthetic", kept, none),)
    return Costs(layout, "relative", kept, bits, none, 0.0, terms, "synthetic", describe(device))


def _resident(layout: Layout, share: float) -> npt.NDArray[np.bool_]:
    order = np.argsort(layout.sizes, kind="stable")
    resident = np.zeros(len(layout.tensors), dtype=bool)
    resident[order] = np.cumsum(layout.sizes[order]) <= share * layout.n
    return resident


def _price_joules(
    layout: Layout, device: Device, values: Floats, bits: Floats, links: list[Link], boundary: Boundary
) -> Costs:
    tensors = len(layout.tensors)
    terms = []
    if device.memory is not None:
        main = device.memory.main
        terms.append(Term("send_buffer", values * (main.write.si + main.read.si), np.zeros(tensors)))
    if links:
        terms.append(_link_term("uplink", [link.up.marginal.si for link in links], bits))
    if links and boundary == "device":
        terms.append(_link_term("base_power", [_base_per_bit(link, device) for link in links], bits))
    per_kept = sum_of([term.per_kept for term in terms], tensors)
    per_bit = sum_of([term.per_bit for term in terms], tensors)
    used = [link for position, link in enumerate(links) if link not in links[:position]]
    fixed = math.fsum(link.fixed.si for link in used if link.fixed is not None)
    origins = _origins(device, used, boundary)
    return Costs(layout, "J", per_kept, bits, per_bit, fixed, tuple(terms), boundary, origins)


def _link_term(name: str, per_bit: list[float], bits: Floats) -> Term:
    energies = np.array(per_bit, dtype=np.float64)
    return Term(name, energies * bits, energies)


def _base_per_bit(link: Link, device: Device) -> float:
    if link.base_power is None or link.up.goodput is None:
        raise CostError(
            f"boundary='device' needs base_power and up.goodput of the link, but device {device.name!r} "
            "lacks one of them; add it to the file or use boundary='radio'"
        )
    return link.base_power.si / link.up.goodput.si


def _links(layout: Layout, device: Device, link: Link | Mapping[str, Link] | None) -> list[Link]:
    chosen = {"*": link} if isinstance(link, Link) else dict(link or {})
    found = match("link", chosen, layout)
    links = [device.link if match is None else match for match in found]
    missing = [tensor.name for tensor, each in zip(layout.tensors, links, strict=True) if each is None]
    if missing:
        raise CostError(
            f"device {device.name!r} has no link for tensor {missing[0]!r}; give link=..., or price with "
            "boundary='memory'"
        )
    return [each for each in links if each is not None]


def _origins(device: Device, links: list[Link], boundary: Boundary) -> tuple[Entry, ...]:
    memory = () if device.memory is None else describe(device.memory, "memory")
    entries = [entry for each in links for entry in describe(each, "link")]
    shared = {"link.base_power", "link.up.goodput"} if boundary == "device" else set()
    used = {"link.up.marginal", "link.fixed"} | shared
    return (*memory, *(entry for entry in entries if entry.path in used))


def _densities(value: PerTensor, layout: Layout) -> Floats:
    return checked("density", value, layout, 1.0, "a share above 0 and at most 1")
