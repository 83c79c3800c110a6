"""How a fleet's joules are divided among its clients, as records that a TOML file decodes into."""

from __future__ import annotations

from typing import Literal

import msgspec

from joulewise.errors import RuleError

Counts = Literal["uplink", "both"]
"""What a budget counts: what masks cost their senders; or also what all receivers pay for the coordinates that at
least one mask keeps, each once, as a sparse downlink sends them."""

MOST_J = 1e100
"""Budgets of many rounds can be added up without overflow."""


class EqualCount(
    msgspec.Struct, frozen=True, tag_field="name", tag="EqualCount", forbid_unknown_fields=True, repr_omit_defaults=True
):
    """Every client keeps the same share of its coordinates, whatever that costs it.

    Args:
        share: density of every client.
    """

    share: float

    def __post_init__(self) -> None:
        _between("EqualCount(share)", self.share)


class EqualJoules(
    msgspec.Struct,
    frozen=True,
    tag_field="name",
    tag="EqualJoules",
    forbid_unknown_fields=True,
    repr_omit_defaults=True,
):
    """Every client may spend the same energy; what one cannot use goes to the others in equal parts.

    Args:
        budget_j: energy of all masks of a round together, in the unit of the costs.
        share: the same as a share of what it costs that all clients of the round send everything; with
            ``counts="both"`` that all send and all receive everything.
        counts: what the budget counts, ``uplink`` or ``both``. What a client may spend is its uplink in any case.
    """

    budget_j: float | None = None
    share: float | None = None
    counts: Counts = "uplink"

    def __post_init__(self) -> None:
        _one_budget(self, self.budget_j, self.share)


class OnePrice(
    msgspec.Struct, frozen=True, tag_field="name", tag="OnePrice", forbid_unknown_fields=True, repr_omit_defaults=True
):
    """A joule has one price for all clients: each keeps what is worth more to the average than that.

    Args:
        budget_j: energy of all masks of a round together, in the unit of the costs.
        share: the same as a share of what it costs that all clients of the round send everything; with
            ``counts="both"`` that all send and all receive everything.
        control: what fixes the price. ``curves``: the clients' energy-price curves, of this round or of an earlier
            one; every client may spend what its curve says, and the sum is the budget. ``ascent``: what clients wanted
            to spend at the last price; nobody sends a curve, and what is left of a round's budget goes to the next.
        step: with ascent, the price is multiplied by ``(wanted / target)^step`` after each round, and by less where
            that went too far before.
        least_share: each client may spend at least this share of an equal part of the budget, whatever it is worth.
        counts: what the budget and the price count, ``uplink`` or ``both``; ``both`` needs curves. What a client may
            spend is its uplink in any case.
    """

    budget_j: float | None = None
    share: float | None = None
    control: Literal["curves", "ascent"] = "curves"
    step: float = 0.5
    least_share: float = 0.0
    counts: Counts = "uplink"

    def __post_init__(self) -> None:
        _one_budget(self, self.budget_j, self.share)
        _between("OnePrice(step)", self.step)
        if not 0 <= self.least_share <= 1:
            raise RuleError(
                f"OnePrice(least_share) must be between 0 and 1, but is {self.least_share}: the floors of all clients "
                "would exceed the budget"
            )
        if self.counts == "both" and self.control == "ascent":
            raise RuleError(
                "OnePrice(counts='both') needs the clients' curves to tell what receivers will pay, but control is "
                "'ascent'; use control='curves', or counts='uplink'"
            )


Allocation = EqualCount | EqualJoules | OnePrice


def _between(name: str, value: float) -> None:
    if not 0 < value <= 1:
        raise RuleError(f"{name} must be above 0 and at most 1, but is {value}")


def _one_budget(allocation: EqualJoules | OnePrice, budget_j: float | None, share: float | None) -> None:
    name = type(allocation).__name__
    if (budget_j is None) == (share is None):
        raise RuleError(f"{name} needs one of budget_j and share, but has budget_j={budget_j} and share={share}")
    if share is not None:
        _between(f"{name}(share)", share)
    elif budget_j is not None and not 0 < budget_j <= MOST_J:
        raise RuleError(f"{name}(budget_j) must be finite and above 0, at most {MOST_J:g}, but is {budget_j}")
