"""Charges: what was paid for, in which unit, and how it is known."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Literal

import msgspec

from joulewise.devices import Unit
from joulewise.errors import CostError

Basis = Literal["modelled", "measured"]
"""Computed from prices, or read from a meter."""

MASK_TERMS = ("header", "kept", "optimizer", "persistence", "downlink_share", "blocks")
"""Charges that the choice of coordinates makes: the header of a message that keeps something; sending what is kept
(`joulewise.costs.SEND_TERMS`); the optimizer's step, the rewritten flash, and what receivers pay for it; and what lines
and pages add."""

REPLY_TERMS = ("whole", "curve", "fixed")
"""Charges of a reply whatever it keeps: buffers and tensors that are not float, the energy-price curve that a server
asked for, and the link's fixed energy."""

ROUND_TERMS = ("training", "selection", "residual", "downlink", "memory_update", "flash_update", "idle")
"""Charges of a client's round besides its reply."""

TERMS = (*MASK_TERMS, *REPLY_TERMS, *ROUND_TERMS)
"""Every charge of one client in one round, in the order in which a table shows them."""

UPLINK_TERMS = frozenset({"header", "kept", *REPLY_TERMS})
"""Charges of sending a reply: the energy axis of a frontier."""

DOWNLINK_TERM = "downlink"


class Charge(msgspec.Struct, frozen=True):
    """One thing that was paid for.

    Args:
        term: what, one of `TERMS`.
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


def addressable(charges: Iterable[Charge]) -> float:
    """Share of the energy of these charges that the choice of coordinates made: `MASK_TERMS` over all of them.

    No mask can save more than this part of what was spent (Amdahl's bound); with the charges of a reply that keeps
    everything, it is the bound for a client that sparsifies. 0 where nothing was spent.

    Raises:
        CostError: the charges are in different units, or some are modelled and some measured.

    Example:
        >>> addressable([Charge("kept", 1.0, "J", "modelled"), Charge("fixed", 3.0, "J", "modelled")])
        0.25
    """
    every = tuple(charges)
    spent = total(every)
    return total(charge for charge in every if charge.term in MASK_TERMS) / spent if spent else 0.0
