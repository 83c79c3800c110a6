"""What a server asks a node to spend on its mask, and what the node says of it: both ends of the wire.

A train request carries one note; a reply that obeyed carries what the client says of it and, where that was asked for,
its energy-price curve. What comes from either side is checked here.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import msgspec

from joulewise.charges import MASK_TERMS, total
from joulewise.compress import Compressor, Sent
from joulewise.costs import Costs
from joulewise.curves import POINTS, Curve, curve_of
from joulewise.errors import PayloadError, RuleError, SettingError
from joulewise.layout import Vector
from joulewise.rules import Density, Joules

MOST_CHARACTERS = 1024
"""Of an order."""


class Order(msgspec.Struct, frozen=True, omit_defaults=True):
    """What a node may do in a round.

    Args:
        budget: the cap of its mask: energy, or a density where the server does not know yet what a density costs.
        price: value per joule, in the node's own terms, at which it says what it wants; None for none.
        points: of the curve that it should answer with; 0 for none.
    """

    budget: Joules | Density
    price: float | None = None
    points: int = 0

    def __post_init__(self) -> None:
        if self.price is not None and not 0 <= self.price < math.inf:
            raise ValueError(f"price is {self.price}, expected a finite number of at least 0")
        if self.points and not 2 <= self.points <= POINTS:
            raise ValueError(f"points is {self.points}, expected 0, or from 2 to {POINTS}")

    def text(self) -> str:
        """For a note in a request."""
        return msgspec.json.encode(self).decode()


class Said(msgspec.Struct, frozen=True, omit_defaults=True):
    """What a node says of the order that it obeyed.

    Args:
        dense_j: what sending everything would cost it.
        spent_j: what its mask cost.
        exponent: p of its values: 1 for magnitudes, 2 for squares.
        wanted_j: energy of all coordinates worth at least the price, whatever the cap; None without a price.
        margin: value per joule of what it kept last; None where its rule has no price.
    """

    dense_j: float
    spent_j: float
    exponent: int = 1
    wanted_j: float | None = None
    margin: float | None = None

    def __post_init__(self) -> None:
        if not 0 <= self.spent_j < math.inf:
            raise ValueError(f"spent_j is {self.spent_j}, expected a finite number of at least 0")


@dataclass(frozen=True, slots=True)
class Obeyed:
    """An order as it applies to one update: the compressor with its cap, and what the reply will say.

    Args:
        compressor: with the budget of the order.
        said: but for what is spent; None where there is no order.
        curve: as it goes over the wire; empty where nobody asked.
    """

    compressor: Compressor
    said: Said | None = None
    curve: bytes = b""

    def told(self, sent: Sent) -> tuple[bytes, bytes]:
        """What the reply says, with what the message that was made has cost; and the curve."""
        if self.said is None:
            return b"", b""
        spent = total(charge for charge in sent.charges if charge.term in MASK_TERMS)
        return msgspec.json.encode(msgspec.structs.replace(self.said, spent_j=spent)), self.curve


def parse(text: object) -> Order:
    """Read the note of a request.

    Raises:
        SettingError: it is no order.

    Example:
        >>> parse(Order(Joules(2.5), price=0.125).text())
        Order(budget=Joules(budget=2.5, includes_fixed=False, fill=False), price=0.125, points=0)
    """
    try:
        if not isinstance(text, str) or len(text) > MOST_CHARACTERS:
            raise ValueError(f"it has type {type(text).__name__} or more than {MOST_CHARACTERS} characters")
        return msgspec.json.decode(text, type=Order)
    except (ValueError, RuleError, RecursionError) as error:  # msgspec's errors are ValueErrors too.
        raise SettingError(
            f"the server's order to this node cannot be read: {error}; use one version of both"
        ) from None


def obey(order: Order, compressor: Compressor, added: Vector, costs: Costs) -> Obeyed:
    """Turn an order into the budget of one update, and into what the reply says.

    Args:
        order: of the server.
        compressor: of the node, whose budget the order replaces.
        added: float32[n], what is compressed: the update with the residual.
        costs: prices of the node's device.

    Raises:
        RuleError: the rule does not take the budget, or has no value per joule where a price or a curve is asked for.
    """
    prices = costs.per_kept if costs.per_coordinate else costs.per_kept * costs.layout.sizes
    dense_j = math.fsum(prices.tolist())
    norm = getattr(compressor.rule, "norm", None)
    if norm is None and (order.price is not None or order.points):
        raise RuleError(
            f"the server hands out joules at a price, for which {type(compressor.rule).__name__} has no value; use "
            "CWMP or Projection, or EqualJoules or EqualCount at the server"
        )
    if norm is None:
        return Obeyed(replace(compressor, budget=order.budget), Said(dense_j, 0.0))
    curve = curve_of(added, costs, compressor.rule, order.points or POINTS)
    budget, wanted = order.budget, None if order.price is None else curve.energy_at(order.price)
    margin = curve.price_at(budget.budget if isinstance(budget, Joules) else budget.fraction * dense_j)
    told = curve.to_bytes() if order.points else b""
    return Obeyed(replace(compressor, budget=budget), Said(dense_j, 0.0, int(norm), wanted, margin), told)


def heard(said: bytes, curve: bytes) -> tuple[Said | None, Curve | None]:
    """Read what a node said of its order; None where it did not obey one.

    Raises:
        PayloadError: it cannot be read.
    """
    if not said:
        return None, None
    try:
        return msgspec.json.decode(said, type=Said), Curve.from_bytes(curve) if curve else None
    except (msgspec.DecodeError, RecursionError) as error:  # The latter where it is nested without end.
        raise PayloadError(f"what it says of its order cannot be read: {error}") from None
