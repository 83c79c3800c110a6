"""What a message costs, written down as charges."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Literal

import msgspec

from joulewise.codec import Encoded
from joulewise.costs import Costs
from joulewise.devices import Device, Unit
from joulewise.errors import CostError
from joulewise.select import Selection

Basis = Literal["modelled", "measured"]
"""Computed from prices, or read from a meter."""


class Charge(msgspec.Struct, frozen=True):
    """One thing that was paid for.

    Args:
        term: what, for example ``kept`` or ``downlink``.
        energy: how much, in `unit`.
        unit: ``J`` or ``relative``.
        basis: ``modelled`` or ``measured``.
        bytes: bytes that went over the link for it.
    """

    term: str
    energy: float
    unit: Unit
    basis: Basis
    bytes: int = 0


def total(charges: Iterable[Charge]) -> float:
    """Energy of all charges together; 0 for none.

    Raises:
        CostError: the charges are in different units, or some are modelled and some measured.

    Example:
        >>> total([Charge("header", 0.25, "J", "modelled"), Charge("kept", 0.5, "J", "modelled")])
        0.75
    """
    every = tuple(charges)
    for field in ("unit", "basis"):
        found = {str(getattr(charge, field)): charge.term for charge in every}
        if len(found) > 1:
            mixed = " and ".join(f"{value!r} (for example {term!r})" for value, term in sorted(found.items()))
            raise CostError(f"charges have the {field} {mixed}; total each {field} by itself")
    return math.fsum(charge.energy for charge in every)


def uplink_charges(encoded: Encoded, selection: Selection, costs: Costs) -> tuple[Charge, ...]:
    """What sending one encoded message costs.

    ``header``, ``kept``, ``whole`` (buffers and tensors that are not float) and ``fixed``; the bytes of the
    first three add up to the payload. ``kept`` is ``sum_g k_g * other_g + sum_g per_bit_g * bits_g`` over the
    tensors g, whose k_g kept coordinates take bits_g bits as encoded; with relative prices it is the sum of
    the prices kept. Header and wholes belong to no tensor: they are charged at the highest energy per bit
    among the tensors, which with one link is that link's, and with several never says too little. An empty
    payload is a reply all the same, and costs ``fixed``.

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
    kept = _kept_energy(encoded, selection, costs)
    return (
        Charge("header", _loose_energy(header, costs), costs.unit, "modelled", header),
        Charge("kept", kept, costs.unit, "modelled", size - header - whole),
        Charge("whole", _loose_energy(whole, costs), costs.unit, "modelled", whole),
        Charge("fixed", costs.fixed, costs.unit, "modelled"),
    )


def mask_energy(encoded: Encoded, selection: Selection, costs: Costs) -> float:
    """What the choice of coordinates adds to a message: header and kept coordinates, as encoded.

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
    if not selection.indices.size:
        return 0.0
    return math.fsum((header_energy(encoded, costs), _kept_energy(encoded, selection, costs)))


def header_energy(encoded: Encoded, costs: Costs) -> float:
    """What the part of a message that belongs to no tensor costs."""
    return _loose_energy(encoded.header_bytes, costs)


def downlink_charge(payload_bytes: int, device: Device) -> tuple[Charge, ...]:
    """What receiving `payload_bytes` costs a device: the marginal energy of its downlink, nothing else.

    Returns:
        One charge, or none where the device prices no downlink (synthetic devices have no link).

    Example:
        >>> from joulewise.devices import load_device
        >>> [round(charge.energy, 3) for charge in downlink_charge(1_000_000, load_device("phone-lte-2021"))]
        [0.092]
        >>> downlink_charge(1_000_000, load_device("synthetic-kind-10"))
        ()
    """
    if device.link is None or device.link.down is None:
        return ()
    energy = payload_bytes * 8 * device.link.down.marginal.si
    return (Charge("downlink", energy, "J", "modelled", payload_bytes),)


def _loose_energy(size: int, costs: Costs) -> float:
    return size * 8 * float(costs.per_bit.max(initial=0.0))


def _kept_energy(encoded: Encoded, selection: Selection, costs: Costs) -> float:
    if costs.per_coordinate:
        other = costs.other[selection.indices]
    else:
        other = costs.other * costs.layout.counts(selection.indices)
    return math.fsum((*other.tolist(), *(costs.per_bit * encoded.tensor_bits).tolist()))


def _check_layout(encoded: Encoded, selection: Selection, costs: Costs) -> None:
    tensors = len(costs.layout.tensors)
    if selection.n != costs.layout.n:
        raise CostError(f"selection is of {selection.n} coordinates, but costs are for {costs.layout.n}")
    if encoded.tensor_bits.shape != (tensors,):
        raise CostError(f"encoded has {encoded.tensor_bits.size} tensors, but costs are for {tensors}")
