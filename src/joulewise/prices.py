"""Prices of a model's tensors on a device: what keeping one coordinate costs."""

from __future__ import annotations

import math
import sys
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, get_args

import numpy as np
import numpy.typing as npt

from joulewise.costs import RECEIVER_TERMS, Costs, Term, Transmission, sum_of, warn_if_coarse
from joulewise.devices import ByKind, Device, Link, Residency, describe
from joulewise.errors import CostError
from joulewise.layout import Layout
from joulewise.payers import STEPS, Optimizer, Receivers, Sender, Update
from joulewise.payers import Boundary as Boundary  # noqa: PLC0414 (users look for it here)
from joulewise.residency import flash_of
from joulewise.tensorwise import Floats, PerTensor, bits_of, checked, match


def price(  # noqa: PLR0913 (one place for all that a price depends on)
    layout: Layout,
    device: Device,
    value_bits: PerTensor = 32,
    density: PerTensor = 0.01,
    link: Link | Mapping[str, Link] | None = None,
    boundary: Boundary = "radio",
    *,
    update: Update = "weights",
    optimizer: Optimizer = "sgd",
    fan_out: float = 0.0,
    receiver: Device | None = None,
    in_ram: Sequence[str] = (),
) -> Costs:
    """Price a model's tensors on a device.

    In joules, keeping a coordinate of a tensor costs the sum of these terms, of which a device that lacks a part
    has fewer. Bits b are those of the value and of its place at the tensor's density p, what one coordinate more
    adds to an ideal code of the positions: ``b = value_bits + log2((1-p)/p)``, and at least `value_bits`.

    ==============  =======================================================================================
    send_buffer     ``value_bits * (write + read)``: the value is written to the buffer once and read once
    uplink          ``b * up.marginal * framing * retransmission``
    base_power      ``b * base_power / up.goodput``, with ``boundary="device"``
    optimizer       with ``update="gradient"``: the gradient and each of the optimizer's a arrays are read, the
                    arrays are written, ``32 * ((a + 1) * read + a * write)``, and its arithmetic; a is 1 for
                    sgd, 2 for momentum, 3 for adam
    persistence     ``32 * flash.write`` where the weights lie in flash: the rewritten bits
    downlink_share  ``fan_out * b * down.marginal * framing * retransmission``
    receiver_write  ``fan_out * 32 * write`` where the receivers keep their weights between rounds
    ==============  =======================================================================================

    Arrays lie in DRAM where there is one, else in SRAM; where SRAM is a scratchpad (``memory.weights = "sram"``
    beside DRAM, with a capacity), the smallest tensors lie in it as long as their arrays fit. What moves in lines
    of a level (optimizer, receiver_write) or in pages of flash (persistence: a touched page is erased and written
    whole) is in `Costs.blocks`: it is charged from the coordinates really kept and is no part of a price. What the
    choice does not change (training, reading the vector, the fixed energy of a link, idle power, a duty cycle) is no
    part either; the ledger has it. Tensors of kind ``local`` are never sent and have no price.

    Synthetic devices price a coordinate by the kind or the size of its tensor, whatever its bits. Their prices stand
    for all that it takes: `boundary` does not change them (`Costs.boundary` is ``synthetic``), and what would add a
    term in joules is refused.

    Args:
        layout: the tensors.
        device: whose prices.
        value_bits: bits of an encoded value.
        density: share of a tensor's coordinates that will be kept, above 0 and at most 1.
        link: another link than the device's: for all tensors, or by tensor name or pattern.
        boundary: ``radio`` prices the marginal energy of the link; ``device`` adds base power over goodput;
            ``memory`` leaves the link out.
        update: what is compressed, see `Update`.
        optimizer: ``sgd``, ``momentum`` or ``adam``, for ``update="gradient"``.
        fan_out: how many other devices must receive and write a coordinate because this client sent it (a mean:
            receivers times the share of them to whom nobody else's update would have brought it).
        receiver: those devices; None for devices like this one.
        in_ram: names of tensors, or patterns, whose weights stay in RAM between rounds on a device whose others lie in
            flash, and on receivers like it: they are rewritten there, and pay neither for flash nor for its pages.

    Raises:
        CostError: an argument is out of range or does not fit the layout, or the device lacks what the
            boundary needs.

    Example:
        >>> from joulewise.devices import load_device
        >>> layout = Layout.of({"conv.weight": np.ones((2, 1, 3, 3)), "fc.weight": np.ones((4, 2))})
        >>> price(layout, load_device("synthetic-kind-10")).per_kept
        array([ 1., 10.])
        >>> phone = load_device("phone-lte-2021")
        >>> costs = price(layout, phone, density=0.5, fan_out=9)
        >>> costs.unit, costs.boundary, [term.name for term in costs.terms]
        ('J', 'radio', ['send_buffer', 'uplink', 'downlink_share', 'receiver_write'])
    """
    _check_choices(boundary=(boundary, Boundary), update=(update, Update), optimizer=(optimizer, Optimizer))
    values = bits_of("value_bits", value_bits, layout)
    bits = values + index_bits(_densities(density, layout))
    if not 0 <= fan_out <= sys.float_info.max:
        raise CostError(f"fan_out is {fan_out}, expected a finite number of receivers of at least 0")
    if device.prices is not None:
        pruned = update if update == "gradient" else None
        _check_relative(
            device, link=link, update=pruned, fan_out=fan_out or None, receiver=receiver, in_ram=in_ram or None
        )
        costs = _price_relative(layout, device, device.prices, bits)
    else:
        links = () if boundary == "memory" else tuple(_links(layout, device, link))
        step = STEPS[optimizer] if update == "gradient" else None
        close = _in_ram(layout, device, in_ram)
        sender = Sender(layout, device, values, bits, links, boundary, step, close)
        costs = _price_joules(sender, Receivers.of(sender, fan_out, receiver))
    warn_if_coarse(costs)
    return costs


def receive_j(
    layout: Layout,
    device: Device,
    value_bits: PerTensor = 32,
    density: PerTensor = 0.01,
    link: Link | Mapping[str, Link] | None = None,
    boundary: Boundary = "radio",
) -> float:
    """Energy in which a device receives every coordinate as one that changed, and writes it: joules.

    The sum of what `price` calls downlink_share and receiver_write for one receiver, over all coordinates. Where half
    of them change, a sparse downlink costs the device half of this. Pages of flash that are erased as a whole come on
    top, and may cost a hundred times as much: budgets with ``counts="both"`` refuse devices that have some.

    Args:
        layout: the tensors.
        device: that receives; 0 for a synthetic one, whose prices have no downlink.
        value_bits: as in `price`.
        density: as in `price`.
        link: as in `price`.
        boundary: as in `price`.

    Example:
        >>> from joulewise.devices import load_device
        >>> layout = Layout.of({"fc.weight": np.ones((100, 100))})
        >>> [f"{receive_j(layout, load_device(name)):.3g}" for name in ("phone-lte-2021", "synthetic-link-10")]
        ['0.00444', '0']
    """
    if device.prices is not None:
        return 0.0
    costs = price(layout, device, value_bits, density, link, boundary, fan_out=1.0)
    parts = [term.per_kept * layout.sizes for term in costs.terms if term.name in RECEIVER_TERMS]
    return math.fsum(np.concatenate([np.zeros(0), *parts]).tolist())


def index_bits(density: npt.NDArray[Any] | float) -> Floats:
    """Bits that tell where one more kept coordinate is: ``max(0, log2((1-p)/p))`` at density p above 0.

    The derivative of the positions' entropy n H(k/n) by k. Same shape as `density`.

    Example:
        >>> index_bits(np.array([0.01, 0.5, 1.0])).round(2)
        array([6.63, 0.  , 0.  ])
    """
    share = np.minimum(np.asarray(density, dtype=np.float64), 0.5)
    return np.asarray(np.log2((1.0 - share) / share))


# ---------------------------------------------------------------- relative prices


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


# ---------------------------------------------------------------- prices in joules


def _price_joules(sender: Sender, receivers: Receivers) -> Costs:
    tensors = len(sender.layout.tensors)
    terms = (*sender.terms(), *receivers.terms(sender.bits))
    blocks = tuple(block for block in (*sender.blocks(), *receivers.blocks()) if block is not None)
    transmissions = tuple(_transmissions(sender))
    return Costs(
        layout=sender.layout,
        unit="J",
        per_kept=sum_of([term.per_kept for term in terms], tensors),
        bits_per_kept=sender.bits,
        per_bit=sum_of([term.per_bit for term in terms], tensors),
        fixed=math.fsum(each.fixed for each in transmissions),
        terms=terms,
        boundary=sender.boundary,
        origins=tuple(dict.fromkeys((*sender.origins(), *receivers.origins()))),
        blocks=blocks,
        transmissions=transmissions,
    )


def _transmissions(sender: Sender) -> Iterator[Transmission]:
    """One for each link over which something goes: a tensor without elements uses none."""
    sizes = sender.layout.sizes
    for link in dict.fromkeys(each for each, size in zip(sender.links, sizes, strict=False) if size):
        fixed = 0.0 if link.fixed is None else link.fixed.si
        yield Transmission(fixed, np.array([each == link for each in sender.links]))


def _in_ram(layout: Layout, device: Device, patterns: Sequence[str]) -> npt.NDArray[np.bool_]:
    if patterns and (device.memory is None or flash_of(device.memory) is None):
        raise CostError("in_ram is for devices whose weights lie in flash (memory.weights = 'flash'); leave it out")
    return np.array([found is not None for found in match("in_ram", dict.fromkeys(patterns, True), layout)], dtype=bool)


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
    # Nothing of a tensor without elements is sent, so its own link is not used.
    used = [each for tensor, each in zip(layout.tensors, links, strict=True) if tensor.size]
    theirs = [each if tensor.size or not used else used[0] for tensor, each in zip(layout.tensors, links, strict=True)]
    return [each for each in theirs if each is not None]


# ---------------------------------------------------------------- arguments


def _densities(value: PerTensor, layout: Layout) -> Floats:
    return checked("density", value, layout, 1.0, "a share above 0 and at most 1")


def _check_choices(**choices: tuple[str, Any]) -> None:
    for name, (chosen, kind) in choices.items():
        if chosen not in get_args(kind):
            raise CostError(f"{name} is {chosen!r}, expected one of: {', '.join(get_args(kind))}")


def _check_relative(device: Device, **in_joules: object) -> None:
    given = [name for name, value in in_joules.items() if value is not None]
    if given:
        name = given[0]
        raise CostError(f"{name} is in joules, but device {device.name!r} is relative; leave {name} out")
