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
from joulewise.curves import POINTS, Curve, curve_of, exponent_of
from joulewise.errors import PayloadError, RuleError, SettingError
from joulewise.layout import Vector
from joulewise.rules import Density, Joules, MinVariance

MOST_CHARACTERS = 1024
"""Of an order."""


class Order(msgspec.Struct, frozen=True, omit_defaults=True):
    """What a node may do in a round.

    Args:
        budget: the cap of its mask: energy, or a density where the server does not know yet what a density costs; None
            for the node's own budget.
        price: value per joule, in the node's own terms, at which it says what it wants; None for none.
        points: of the curve that it should answer with; 0 for none.
        most_j: energy that its mask may cost whatever the budget buys, as its battery allows; None for no such cap.
        least_price: its mask may not cost more than all that is worth so much per joule, in the node's own terms, and
            it says what a joule was worth last; None for no such cap. Only beside `most_j`.
        both: whether it should say what receiving costs it.
        asks: whether it should hold its update and answer with what it says of it alone; another order follows.
    """

    budget: Joules | Density | None = None
    price: float | None = None
    points: int = 0
    most_j: float | None = None
    least_price: float | None = None
    both: bool = False
    asks: bool = False

    def __post_init__(self) -> None:
        if self.most_j is None and ((self.budget is None and not self.asks) or self.least_price is not None):
            raise ValueError("it has no budget, and no most_j, or a least_price without most_j")
        for name in ("most_j", "least_price"):
            amount = getattr(self, name)
            if amount is not None and not 0 <= amount < math.inf:
                raise ValueError(f"{name} is {amount}, expected a finite number of at least 0")
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
        receive_j: what receiving and writing every coordinate, each as one that changed, would cost it; 0 where nobody
            asked or its device prices no downlink.
    """

    dense_j: float
    spent_j: float
    exponent: int = 1
    wanted_j: float | None = None
    margin: float | None = None
    receive_j: float = 0.0

    def __post_init__(self) -> None:
        if not 0 <= self.spent_j < math.inf:
            raise ValueError(f"spent_j is {self.spent_j}, expected a finite number of at least 0")


@dataclass(frozen=True, slots=True)
class Obeyed:
    """An order as it applies to one update: the compressor with its cap, and what the reply will say.

    Args:
        compressor: with the budget of the order.
        said: but for what is spent; None where nobody asked.
        curve: as it goes over the wire; empty where nobody asked.
        most_j: energy that the mask may cost, whatever the budget buys; None for no such cap.
        worth: of the update, to say what a joule was worth last where there is such a cap; None where nobody asked.
    """

    compressor: Compressor
    said: Said | None = None
    curve: bytes = b""
    most_j: float | None = None
    worth: Curve | None = None

    def tighter(self, sent: Sent) -> Compressor | None:
        """What to compress with instead, where a message costs more than the cap; None where it does not."""
        if self.most_j is None or spent_j(sent) <= self.most_j:
            return None
        fill = getattr(self.compressor.budget, "fill", False)
        return replace(self.compressor, budget=Joules(self.most_j, fill=fill))

    def told(self, sent: Sent) -> tuple[bytes, bytes]:
        """What the reply says, with what the message that was made has cost; and the curve."""
        if self.said is None:
            return b"", b""
        said = msgspec.structs.replace(self.said, spent_j=spent_j(sent))
        if self.most_j is not None and self.worth is not None:
            said = msgspec.structs.replace(said, margin=self.worth.price_at(said.spent_j))
        return msgspec.json.encode(said), self.curve


def spent_j(sent: Sent) -> float:
    """What the mask of a message costs."""
    return total(charge for charge in sent.charges if charge.term in MASK_TERMS)


def parse(text: object) -> Order:
    """Read the note of a request.

    Raises:
        SettingError: it is no order.

    Example:
        >>> parse(Order(Joules(2.5), price=0.125).text()) == Order(Joules(2.5), price=0.125)
        True
    """
    try:
        if not isinstance(text, str) or len(text) > MOST_CHARACTERS:
            raise ValueError(f"it has type {type(text).__name__} or more than {MOST_CHARACTERS} characters")
        return msgspec.json.decode(text, type=Order)
    except (ValueError, RuleError, RecursionError) as error:  # msgspec's errors are ValueErrors too.
        raise SettingError(
            f"the server's order to this node cannot be read: {error}; use one version of both"
        ) from None


def capped(text: object, most_j: float, least_price: float | None) -> Order:
    """The order of a note, or none yet where that is None, under a node's own cap.

    Args:
        text: of the note.
        most_j: energy that its mask may cost.
        least_price: value per joule of what it keeps; None for no such cap.

    Example:
        >>> capped(Order(Joules(2.5), price=0.125).text(), 1.0, None).budget
        Joules(budget=1.0, includes_fixed=False, fill=False)
        >>> capped(None, 1.0, None) == Order(most_j=1.0)
        True
    """
    order = Order(most_j=most_j) if text is None else parse(text)
    budget = order.budget
    if isinstance(budget, Joules):
        budget = msgspec.structs.replace(budget, budget=min(budget.budget, most_j))
    return msgspec.structs.replace(order, budget=budget, most_j=most_j, least_price=least_price)


def obey(order: Order, compressor: Compressor, added: Vector, costs: Costs, receive_j: float = 0.0) -> Obeyed:
    """Turn an order into the budget of one update, and into what the reply says.

    Args:
        order: of the server.
        compressor: of the node, whose budget the order replaces.
        added: float32[n], what is compressed: the update with the residual.
        costs: prices of the node's device.
        receive_j: what receiving every coordinate would cost it, where it is asked.

    Raises:
        RuleError: the rule does not take the budget, has no value per joule where a price or a curve is asked for, or
            meets its budget on average where what it spends is counted.
    """
    norm = exponent_of(compressor.rule)
    if isinstance(compressor.rule, MinVariance) and (order.price is not None or order.most_j is not None):
        raise RuleError(
            "MinVariance meets its budget on average: no battery can cap it, and by ascent nobody can tell what a "
            'round leaves; use OnePrice(control="curves") at the server, and no batteries'
        )
    if isinstance(compressor.rule, MinVariance) and isinstance(order.budget, Joules) and costs.blocks:
        raise RuleError(
            "the server hands out joules, which MinVariance cannot meet on average on a device whose memory moves in "
            "blocks (lines, pages); use CWMP or Projection, or EqualCount at the server"
        )
    if norm is None and (order.price is not None or order.points or order.least_price is not None):
        raise RuleError(
            f"the server hands out joules at a price, for which {type(compressor.rule).__name__} has no value; use "
            "CWMP, Projection or MinVariance, or EqualJoules or EqualCount at the server"
        )
    if order.budget is not None:
        compressor = replace(compressor, budget=order.budget)
    elif order.least_price is None and not order.asks:
        return Obeyed(compressor, most_j=order.most_j)
    prices = costs.per_kept if costs.per_coordinate else costs.per_kept * costs.layout.sizes
    said = Said(math.fsum(prices.tolist()), 0.0, receive_j=receive_j)
    if norm is None:
        return Obeyed(compressor, said, most_j=order.most_j)
    said = msgspec.structs.replace(said, exponent=norm)
    return _priced(order, compressor, said, curve_of(added, costs, compressor.rule, order.points or POINTS))


def _priced(order: Order, compressor: Compressor, said: Said, curve: Curve) -> Obeyed:
    """An order to a node whose rule has a value per joule."""
    most_j = order.most_j
    if most_j is not None and order.least_price is not None:
        most_j = min(most_j, curve.energy_at(order.least_price))
    wanted_j = None if order.price is None else curve.energy_at(order.price)
    if wanted_j is not None and most_j is not None:
        wanted_j = min(wanted_j, most_j)  # What it cannot pay, it need not be asked for.
    budget, margin = compressor.budget, None
    if isinstance(budget, Joules | Density):
        margin = curve.price_at(budget.budget if isinstance(budget, Joules) else budget.fraction * said.dense_j)
    said = msgspec.structs.replace(said, wanted_j=wanted_j, margin=margin)
    return Obeyed(compressor, said, curve.to_bytes() if order.points else b"", most_j, curve)


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
