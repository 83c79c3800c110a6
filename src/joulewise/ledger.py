"""What a message costs, and what the round around it costs, written down as charges."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from functools import lru_cache

import numpy as np
import numpy.typing as npt

from joulewise.charges import DOWNLINK_TERM as DOWNLINK_TERM
from joulewise.charges import MASK_TERMS as MASK_TERMS
from joulewise.charges import REPLY_TERMS as REPLY_TERMS
from joulewise.charges import ROUND_TERMS as ROUND_TERMS
from joulewise.charges import TERMS as TERMS
from joulewise.charges import UPLINK_TERMS as UPLINK_TERMS
from joulewise.charges import Basis as Basis
from joulewise.charges import Charge as Charge
from joulewise.charges import addressable as addressable
from joulewise.charges import total as total
from joulewise.codec import Encoded
from joulewise.costs import RECEIVER_TERMS, Costs, sum_of
from joulewise.devices import Device
from joulewise.durations import check_amounts, round_time
from joulewise.errors import CostError
from joulewise.layout import Layout, Tensor
from joulewise.payers import Boundary
from joulewise.persistence import rewriting_of, stored_bits
from joulewise.residency import flash_of, traffic, working_levels
from joulewise.select import Selection

_APART = {"optimizer": "optimizer", "persistence": "persistence"} | dict.fromkeys(RECEIVER_TERMS, "downlink_share")


def uplink_charges(encoded: Encoded, selection: Selection, costs: Costs) -> tuple[Charge, ...]:
    """What one encoded message costs: the charges of its mask, and what the reply costs whatever it keeps.

    ``header``, ``kept``, ``whole`` (buffers and tensors that are not float) and ``fixed``; the bytes of the
    first three add up to the payload. ``kept`` is ``sum_g k_g * other_g + sum_g per_bit_g * bits_g`` over the
    tensors g, whose k_g kept coordinates take bits_g bits as encoded; with relative prices it is the sum of
    the prices kept. Where the costs have such terms, ``optimizer``, ``persistence`` and ``downlink_share`` are the
    same sums over theirs, and ``blocks`` is `Costs.block_energy` of the kept indices.

    Header and wholes belong to no tensor: they are charged at the sender's highest energy per bit among the
    tensors, which with one link is that link's, and with several never says too little. ``fixed`` is that of the
    links that are used (`Costs.fixed_for`); an empty payload is a reply all the same.

    Args:
        encoded: the message, as ``encode_detailed`` made it.
        selection: what was encoded.
        costs: prices of the same layout.

    Raises:
        CostError: the message, the selection and the costs are not of one layout.

    Example:
        >>> import numpy as np
        >>> from joulewise.codec import encode_detailed
        >>> kept = Selection(9, np.array([3, 5], np.uint32), np.array([0.5, 2.0], np.float32))
        >>> costs = Costs.of(np.full(9, 10.0), unit="relative")
        >>> charges = uplink_charges(encode_detailed(kept, costs.layout), kept, costs)
        >>> {charge.term: charge.energy for charge in charges}
        {'header': 0.0, 'kept': 20.0, 'whole': 0.0, 'fixed': 0.0}
    """
    _check_layout(encoded, selection, costs)
    size = len(encoded.payload)
    header, whole = encoded.header_bytes, encoded.whole_bytes
    if not selection.indices.size:  # What is sent is sent for the wholes, its header too.
        header, whole = 0, header + whole
    sizes = {"header": header, "kept": size - header - whole}
    mask = _mask_energies(encoded, selection, costs)
    return (
        *(Charge(term, energy, costs.unit, "modelled", sizes.get(term, 0)) for term, energy in mask.items()),
        Charge("whole", _loose_energy(whole, costs), costs.unit, "modelled", whole),
        Charge("fixed", costs.fixed_for(costs.layout.counts(selection.indices)), costs.unit, "modelled"),
    )


def mask_energy(encoded: Encoded, selection: Selection, costs: Costs) -> float:
    """What the choice of coordinates adds: the charges of `MASK_TERMS`, as encoded, summed up.

    This is what a budget in joules bounds; wholes and the fixed energy are paid whatever is kept.

    Raises:
        CostError: the message, the selection and the costs are not of one layout.

    Example:
        >>> import numpy as np
        >>> from joulewise.codec import encode_detailed
        >>> kept = Selection(9, np.array([3, 5], np.uint32), np.array([0.5, 2.0], np.float32))
        >>> costs = Costs.of(np.full(9, 10.0), unit="relative")
        >>> mask_energy(encode_detailed(kept, costs.layout), kept, costs)
        20.0
    """
    _check_layout(encoded, selection, costs)
    return math.fsum(_mask_energies(encoded, selection, costs).values())


def header_energy(encoded: Encoded, costs: Costs) -> float:
    """What the part of a message that belongs to no tensor costs."""
    return _loose_energy(encoded.header_bytes, costs)


def curve_charge(curve_bytes: int, costs: Costs, apart: bool = False) -> tuple[Charge, ...]:
    """What sending an energy-price curve costs, as bytes that belong to no tensor; nothing for none.

    Args:
        curve_bytes: of the curve.
        costs: prices of the client's device.
        apart: whether it is sent in a message of its own, which costs what a link's message costs in any case.

    Example:
        >>> curve_charge(0, Costs.of(np.full(9, 10.0), unit="relative"))
        ()
    """
    if not curve_bytes and not apart:
        return ()
    energy = _loose_energy(curve_bytes, costs) + (costs.fixed if apart else 0.0)
    return (Charge("curve", energy, costs.unit, "modelled", curve_bytes),)


def downlink_charge(payload_bytes: int, device: Device, boundary: Boundary = "radio") -> tuple[Charge, ...]:
    """What receiving `payload_bytes` costs a device: marginal energy, with framing and retransmission.

    With boundary ``device`` the base power over the downlink's goodput is added, where the device knows both.

    Returns:
        One charge, or none where the device prices no downlink (synthetic devices have no link) or the boundary is
        ``memory``.

    Raises:
        CostError: `payload_bytes` is negative or not finite.

    Example:
        >>> from joulewise.devices import load_device
        >>> [round(charge.energy, 3) for charge in downlink_charge(1_000_000, load_device("phone-lte-2021"))]
        [0.092]
        >>> downlink_charge(1_000_000, load_device("synthetic-kind-10"))
        ()
    """
    check_amounts(payload_bytes=payload_bytes)
    link = device.link
    if link is None or link.down is None or boundary == "memory":
        return ()
    base = 0.0
    if boundary == "device" and link.base_power is not None and link.down.goodput is not None:
        base = link.base_power.si / link.down.goodput.si
    energy = payload_bytes * 8 * (link.down_per_bit + base)
    return (Charge(DOWNLINK_TERM, energy, "J", "modelled", payload_bytes),)


def round_charges(  # noqa: PLR0913 (one place for all that a round is made of)
    reply: Iterable[Charge],
    layout: Layout,
    device: Device,
    *,
    bytes_down: int,
    multiply_accumulates: float | None = None,
    wall_time_s: float | None = None,
    training_s: float | None = None,
    remembers: int = 0,
    boundary: Boundary = "radio",
    rewritten: float | None = None,
    rewritten_wholes: Iterable[Tensor] | None = None,
) -> tuple[Charge, ...]:
    """What one round of one client costs: its reply, and around it what no choice of coordinates changes.

    =============  ==========================================================================================
    training       ``multiply_accumulates * compute.training``
    selection      selecting and encoding read the update once: ``32 * read`` for each parameter
    residual       with error feedback the residual is read and written: ``32 * (read + write)`` for each
    downlink       ``8 * bytes_down * down.marginal * framing * retransmission``
    memory_update  the received model is written: ``32 * write`` for each parameter, and the wholes' own bits
    flash_update   where weights lie in flash: the pages that the received model rewrites there, each erased and
                   written whole, without those that the reply has paid for (`joulewise.persistence.rewriting`)
    idle           ``idle_power * waiting``, the time of the round in which nothing else is paid for
                   (`joulewise.durations.round_time`)
    =============  ==========================================================================================

    A charge is left out where the device lacks its number, or the argument is None; with ``bytes_down=0`` nothing
    arrives, and nothing of it is written. Reads and writes are at the level at which a tensor's weights are worked on.

    Args:
        reply: charges of the reply, as `uplink_charges` wrote them.
        layout: the model's tensors.
        device: of the client; a relative one adds nothing, its prices stand for everything.
        bytes_down: bytes of the request.
        multiply_accumulates: of the training in this round: examples x epochs x those of one training step on an
            example, forward and backward (three times the forward pass is usual).
        wall_time_s: how long the round lasted, from its request to the next.
        training_s: how much of it was training; needed for ``idle`` where training is charged.
        remembers: vectors that are read and written for error feedback: 0, 1, or 2 with momentum.
        boundary: as in `joulewise.price`: ``memory`` leaves the downlink out, ``device`` adds base power to it.
        rewritten: energy of rewriting the parameters in flash, as `joulewise.persistence.rewriting` says; None: all of
            them in whole pages, as when the whole model arrives and the reply has paid for none of it.
        rewritten_wholes: with `rewritten`, the wholes that are rewritten beside them; None: all.

    Raises:
        CostError: an argument is negative or not finite, or the parts of a round take longer than the round.

    Example:
        >>> import numpy as np
        >>> from joulewise.devices import load_device
        >>> model = Layout.of({"fc.weight": np.ones((4, 2))})
        >>> [each.term for each in round_charges((), model, load_device("phone-lte-2021"), bytes_down=100)]
        ['selection', 'downlink', 'memory_update']
    """
    check_amounts(bytes_down=bytes_down, multiply_accumulates=multiply_accumulates, rewritten=rewritten)
    reply, compute = tuple(reply), device.compute
    found: dict[str, float] = {}
    if compute is not None and compute.training is not None and multiply_accumulates is not None:
        found["training"] = multiply_accumulates * compute.training.si
    found |= _memory_energies(layout, device, remembers, bytes_down > 0)
    if rewritten is not None and "flash_update" in found:
        wholes = layout.wholes if rewritten_wholes is None else rewritten_wholes
        found["flash_update"] = rewritten + rewriting_of(wholes, device)
    waiting_s = _waiting_s(device, reply, bytes_down, wall_time_s, training_s, bool(found.get("training")))
    if waiting_s is not None and device.idle_power is not None:
        found["idle"] = device.idle_power.si * waiting_s
    besides = {term: Charge(term, energy, "J", "modelled") for term, energy in found.items()}
    besides |= {charge.term: charge for charge in downlink_charge(bytes_down, device, boundary)}
    return (*reply, *(besides[term] for term in ROUND_TERMS if term in besides))


def _waiting_s(
    device: Device,
    reply: tuple[Charge, ...],
    bytes_down: int,
    wall_time_s: float | None,
    training_s: float | None,
    trained: bool,
) -> float | None:
    check_amounts(wall_time_s=wall_time_s, training_s=training_s)
    if wall_time_s is None:
        return None
    if trained and training_s is None and device.idle_power is not None:
        raise CostError(
            "wall_time_s is given and training is charged, but not how long it took, so that time would be paid for "
            "twice; give training_s"
        )
    bytes_up = sum(charge.bytes for charge in reply)
    return round_time(
        device, wall_time_s, bytes_up=bytes_up, bytes_down=bytes_down, training_s=training_s or 0.0
    ).waiting_s


@lru_cache(maxsize=64)  # The same in every round of a client.
def _memory_energies(layout: Layout, device: Device, remembers: int, received: bool) -> Mapping[str, float]:
    memory = device.memory
    if memory is None:
        return {}
    levels = working_levels(layout, memory)
    found = {"selection": math.fsum((layout.sizes * traffic(levels, 1, 0)).tolist())}
    if remembers:
        found["residual"] = remembers * math.fsum((layout.sizes * traffic(levels, 1, 1)).tolist())
    if received:
        written = (layout.sizes * traffic(levels, 0, 1)).tolist()
        whole_bits = sum(stored_bits(tensor) for tensor in layout.wholes)
        found["memory_update"] = math.fsum((*written, whole_bits * memory.main.write.si))
    if received and flash_of(memory) is not None:
        found["flash_update"] = rewriting_of((*layout.tensors, *layout.wholes), device)
    return found


# ---------------------------------------------------------------- what a mask costs


def _mask_energies(encoded: Encoded, selection: Selection, costs: Costs) -> dict[str, float]:
    """Energy by term of `MASK_TERMS`; terms that the costs do not have are left out."""
    found = {"header": header_energy(encoded, costs) if selection.indices.size else 0.0}
    counts = costs.layout.counts(selection.indices)
    found["kept"] = _kept_energy(encoded, selection, costs, counts)
    for term in costs.terms:
        if term.name in _APART:
            each = term.per_bit * encoded.tensor_bits if term.per_bit.any() else term.per_kept * counts
            energy = math.fsum(each.tolist())
            charge = _APART[term.name]
            found[charge] = found.get(charge, 0.0) + energy
    if costs.blocks:
        found["blocks"] = costs.block_energy(selection.indices)
    return found


def _loose_energy(size: int, costs: Costs) -> float:
    return size * 8 * float(costs.send_per_bit.max(initial=0.0))


def _kept_energy(encoded: Encoded, selection: Selection, costs: Costs, counts: npt.NDArray[np.int64]) -> float:
    parts = [term.per_kept for term in costs.terms if term.name not in _APART and not term.per_bit.any()]
    other = sum_of(parts, len(costs.layout.tensors))
    each = other * counts if other.size == len(counts) else other[selection.indices]
    return math.fsum((*each.tolist(), *(costs.send_per_bit * encoded.tensor_bits).tolist()))


def _check_layout(encoded: Encoded, selection: Selection, costs: Costs) -> None:
    tensors = len(costs.layout.tensors)
    if selection.n != costs.layout.n:
        raise CostError(f"selection is of {selection.n} coordinates, but costs are for {costs.layout.n}")
    if encoded.tensor_bits.shape != (tensors,):
        raise CostError(f"encoded has {encoded.tensor_bits.size} tensors, but costs are for {tensors}")
