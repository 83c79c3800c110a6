"""One budget of joules for the masks of all clients of a round: who may spend how much, and what is left.

    hand_out   before a round: an order for each client
    book       after it: what was spent, and where the price goes

Both take the books of the run and give new ones. `joulewise.allotment` holds the divisions, `joulewise.curves` what
clients say of their updates.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace

from joulewise.allocations import Allocation as Allocation
from joulewise.allocations import EqualCount as EqualCount
from joulewise.allocations import EqualJoules as EqualJoules
from joulewise.allocations import OnePrice as OnePrice
from joulewise.allotment import Allotment as Allotment
from joulewise.allotment import equal_parts, in_proportion
from joulewise.allotment import one_price as one_price
from joulewise.curves import Curve
from joulewise.errors import FederationError, PayloadError
from joulewise.rules import Budget, Density, Joules

GAIN = 1.0
FURTHEST = 64.0
"""Times that the wanted energy may be off from the target, as far as one move of the price looks at it."""


# ---------------------------------------------------------------- what is known


@dataclass(frozen=True, slots=True)
class Known:
    """What the server knows of a client, from its last reply that was verified.

    Args:
        examples: that it trained on; its share of them is its weight in the average.
        dense_j: what sending everything would cost it.
        curve: what its masks cost at each price; with ``control="curves"``.
        wanted_j: energy of all its coordinates worth at least the price of its last order, whatever its cap was; with
            ``control="ascent"``, once it had a price.
        margin: value per joule of what its last mask kept last (`Curve.price_at` of what it may spend); with ascent,
            from which the first price follows.
        exponent: p: 1 where values are magnitudes (CWMP), 2 where they are squares (Projection).
    """

    examples: int
    dense_j: float
    curve: Curve | None = None
    wanted_j: float | None = None
    margin: float | None = None
    exponent: int = 1


def checked(client: int, known: Known) -> Known:
    """Refuse what a client cannot truly have said, so that it can be left out of a round.

    Returns:
        What is known, with `wanted_j` at most `dense_j`.

    Raises:
        PayloadError: a number is negative, not finite or out of range; the client is named.

    Example:
        >>> checked(7, Known(examples=10, dense_j=float("nan")))
        Traceback (most recent call last):
            ...
        joulewise.errors.PayloadError: client 7 reports dense_j = nan, expected a finite number above 0
    """
    for name, value, fine in (
        ("examples", known.examples, 0 <= known.examples <= 2**53),
        ("dense_j", known.dense_j, 0 < known.dense_j < math.inf),
        ("wanted_j", known.wanted_j, known.wanted_j is None or 0 <= known.wanted_j < math.inf),
        ("margin", known.margin, known.margin is None or 0 <= known.margin < math.inf),
    ):
        if not fine:
            above = "above 0" if name == "dense_j" else "of at least 0"
            raise PayloadError(f"client {client} reports {name} = {value}, expected a finite number {above}")
    if known.exponent not in {1, 2}:
        raise PayloadError(f"client {client} reports exponent = {known.exponent}, expected 1 or 2")
    return known if known.wanted_j is None else replace(known, wanted_j=min(known.wanted_j, known.dense_j))


@dataclass(frozen=True, slots=True)
class Books:
    """What the server remembers of a run's energy.

    Args:
        price: weighted value that the last joule buys; None before there is one.
        allowed_j: budgets of all rounds so far.
        spent_j: what clients spent, each at most what it was allowed to.
        rounds: how many.
    """

    price: float | None = None
    allowed_j: float = 0.0
    spent_j: float = 0.0
    rounds: int = 0


@dataclass(frozen=True, slots=True)
class Order:
    """What one client may do in a round.

    A client keeps everything worth at least `price`; where that costs more than `budget` the longest prefix that fits,
    and where it costs less than `least_j` the longest prefix that fits into that.

    Args:
        budget: the cap, which an honest client never exceeds.
        price: value per joule in the client's own terms, ``v / p_k^p``; None for none.
        least_j: what may be spent below the price, too.
    """

    budget: Budget
    price: float | None = None
    least_j: float = 0.0


# ---------------------------------------------------------------- before a round


def hand_out(allocation: Allocation, books: Books, known: Mapping[int, Known | None]) -> tuple[dict[int, Order], Books]:
    """Say what each client of a round may spend.

    Caps in joules together never exceed the budget of the round, and with ascent what is left of all rounds so far. A
    share of what sending everything costs cannot be told for a client that is not known yet: it gets that density.

    Args:
        allocation: how joules are divided.
        books: of the run.
        known: what is known of each client of this round, by its number; None for nothing yet.

    Returns:
        An order for each client, and the books, with the new price where curves fix it.

    Raises:
        PayloadError: what is said to be known of a client cannot be; it is named. See `checked`.
        FederationError: clients measure value in different norms, or a price overflows.

    Example:
        >>> known = {4: Known(100, dense_j=50.0), 9: Known(300, dense_j=50.0)}
        >>> orders, _ = hand_out(EqualJoules(share=0.1), Books(), known)
        >>> orders[4]
        Order(budget=Joules(budget=5.0, includes_fixed=False, fill=False), price=None, least_j=0.0)
    """
    sound = {client: each and checked(client, each) for client, each in known.items()}
    if isinstance(allocation, EqualCount):
        return {client: Order(Density(allocation.share)) for client in known}, books
    density = allocation.share
    strangers = [client for client, each in sound.items() if each is None and density is not None]
    orders = {client: Order(Density(density)) for client in strangers if density is not None}
    counted = {client: each for client, each in sound.items() if client not in orders}
    if not counted:
        return orders, books
    budget_j = _budget(allocation, counted)
    if isinstance(allocation, EqualJoules):
        most = [math.inf if each is None else each.dense_j for each in counted.values()]
        shared = _capped(counted, equal_parts(budget_j, most).tolist())
    elif allocation.control == "curves":
        shared, books = _by_curves(allocation, books, counted, budget_j)
    else:
        shared = _by_ascent(allocation, books, counted, budget_j)
    return {client: (orders | shared)[client] for client in known}, books


def _budget(allocation: EqualCount | EqualJoules | OnePrice, known: Mapping[int, Known | None]) -> float:
    """Energy of a round, as far as it is known."""
    if isinstance(allocation, EqualJoules | OnePrice) and allocation.budget_j is not None:
        return allocation.budget_j
    return (allocation.share or 0.0) * math.fsum(each.dense_j for each in known.values() if each is not None)


def _capped(clients: Mapping[int, Known | None], energies_j: list[float]) -> dict[int, Order]:
    return {client: Order(Joules(energy)) for client, energy in zip(clients, energies_j, strict=True)}


def _by_curves(
    allocation: OnePrice, books: Books, known: Mapping[int, Known | None], budget_j: float
) -> tuple[dict[int, Order], Books]:
    """At one price, those without a curve in equal parts; what curves leave of the budget goes to all alike."""
    curves = {client: each.curve for client, each in known.items() if each is not None and each.curve is not None}
    equal = budget_j / len(known)
    room = budget_j - equal * (len(known) - len(curves))
    energies = dict.fromkeys(known, equal)
    if curves:
        weights, exponent = _weights(known)
        floors = [allocation.least_share * equal] * len(curves)
        found = one_price(list(curves.values()), [weights[client] for client in curves], exponent, room, floors)
        books = replace(books, price=found.price)
        energies |= dict(zip(curves, found.energies_j.tolist(), strict=True))
    # A curve of an earlier round may say that there is nothing to send: this one may have something.
    left = max(0.0, budget_j - math.fsum(energies.values())) / len(known)
    parts = in_proportion(budget_j, [energy + left for energy in energies.values()], [0.0] * len(known))
    return _capped(known, parts.tolist()), books


def _by_ascent(
    allocation: OnePrice, books: Books, known: Mapping[int, Known | None], budget_j: float
) -> dict[int, Order]:
    """What is left of all rounds so far, in proportion to what was wanted; below the price only the floor."""
    allowance = max(0.0, budget_j + books.allowed_j - books.spent_j)
    weights, exponent = _weights(known)
    floor = allocation.least_share * min(budget_j, allowance) / len(known)
    wanted = [None if each is None else each.wanted_j for each in known.values()]
    heard = [each for each in wanted if each is not None]
    # Clients that were not asked yet want what the others do.
    usual = math.fsum(heard) / len(heard) if heard else 0.0
    wants = [max(floor, usual if each is None else each) for each in wanted]
    caps = in_proportion(allowance, wants, [floor] * len(known)).tolist()
    orders = {}
    for client, cap in zip(known, caps, strict=True):
        price = _own_price(client, books.price, weights[client], exponent)
        orders[client] = Order(Joules(cap), price, min(floor, cap) if price is not None else 0.0)
    return orders


def _own_price(client: int, price: float | None, weight: float, exponent: int) -> float | None:
    """The common price in a client's own terms; None where it has none, or no say."""
    if price is None:
        return None
    own = price / weight**exponent if weight**exponent > 0 else math.inf
    if own == math.inf and weight > 0:
        raise FederationError(
            f"the price of a joule overflows for client {client}: {price} over its weight {weight} to the power of "
            f"{exponent}; leave out clients with so few examples"
        )
    return min(own, 1e308)


def _weights(known: Mapping[int, Known | None]) -> tuple[dict[int, float], int]:
    """Shares of the clients in the average, and p; a client that is not known is taken to be like the others."""
    there = {client: each for client, each in known.items() if each is not None}
    exponents = {each.exponent: client for client, each in there.items()}
    if len(exponents) > 1:
        raise FederationError(
            f"client {exponents[1]} measures value in magnitudes and client {exponents[2]} in squares, which have no "
            "common price; give all clients the same rule"
        )
    mean = sum(each.examples for each in there.values()) / len(there) if there else 0.0
    if not mean:
        return dict.fromkeys(known, 1.0 / max(1, len(known))), next(iter(exponents), 1)
    total = mean * len(known)
    return {client: (mean if each is None else each.examples) / total for client, each in known.items()}, next(
        iter(exponents)
    )


# ---------------------------------------------------------------- after a round


def book(
    allocation: Allocation,
    books: Books,
    orders: Mapping[int, Order],
    spent_j: Mapping[int, float],
    known: Mapping[int, Known],
) -> Books:
    """Write down what a round spent, and move the price where it follows from that.

    With ascent the price is multiplied by ``(wanted / target)^step``: a step of dual ascent in its logarithm, with
    clients that want more than the target making it dearer. The target is what the next round may spend.

    Args:
        allocation: how joules are divided.
        books: that `hand_out` gave.
        orders: that it handed out.
        spent_j: what each client says that it spent, of those whose reply was used. More than its cap counts as that.
        known: what is known of the clients now.

    Raises:
        PayloadError: what a client reports cannot be; it is named. Leave it out of `spent_j` and `known`.

    Example:
        >>> known = {4: Known(100, dense_j=50.0, wanted_j=8.0), 9: Known(300, dense_j=50.0, wanted_j=32.0)}
        >>> rule, books = OnePrice(budget_j=10.0, control="ascent"), Books(price=1.0)
        >>> orders, books = hand_out(rule, books, known)
        >>> book(rule, books, orders, {4: 2.0, 9: 8.0}, known)
        Books(price=2.0, allowed_j=10.0, spent_j=10.0, rounds=1)
    """
    sound = {client: checked(client, known[client]) for client in orders if client in known}
    spent = math.fsum(_counted(client, claim, orders, sound) for client, claim in spent_j.items())
    allowed = books.allowed_j + _budget(allocation, sound)
    after = replace(books, allowed_j=allowed, spent_j=books.spent_j + spent, rounds=books.rounds + 1)
    if not isinstance(allocation, OnePrice) or allocation.control == "curves":
        return after
    heard = {client: each for client, each in sound.items() if client in spent_j}
    if books.price is None:
        return replace(after, price=_first_price(heard))
    return replace(after, price=_moved(allocation, after, books.price, orders, heard))


def _counted(client: int, claim: float, orders: Mapping[int, Order], known: Mapping[int, Known]) -> float:
    """What a client says that it spent, at most what it was allowed to."""
    if client not in orders or not 0 <= claim < math.inf:
        expected = "a finite number of at least 0" if client in orders else "nothing: it has no order of this round"
        raise PayloadError(f"client {client} reports spent_j = {claim}, expected {expected}")
    budget = orders[client].budget
    return min(claim, budget.budget if isinstance(budget, Joules) else known[client].dense_j)


def _first_price(heard: Mapping[int, Known]) -> float | None:
    """Between what clients' last joules bought, in the middle of the logarithms; None where nobody said."""
    weights, exponent = _weights(heard)
    prices = [weights[client] ** exponent * (each.margin or 0.0) for client, each in heard.items()]
    logs = [math.log(each) for each in prices if each > 0]
    return math.exp(math.fsum(logs) / len(logs)) if logs else None


def _moved(
    allocation: OnePrice, books: Books, price: float, orders: Mapping[int, Order], heard: Mapping[int, Known]
) -> float:
    """The price after one step, from clients that had a price and said what they wanted at it."""
    asked = {
        client: each.wanted_j
        for client, each in heard.items()
        if each.wanted_j is not None and orders[client].price is not None
    }
    caps = {client: each.budget.budget for client, each in orders.items() if isinstance(each.budget, Joules)}
    mine, total = math.fsum(caps.get(client, 0.0) for client in asked), math.fsum(caps.values())
    wanted = math.fsum(max(orders[client].least_j, each) for client, each in asked.items())
    a_round = books.allowed_j / books.rounds
    target = a_round + GAIN * (books.allowed_j - books.spent_j)
    target *= mine / total if total else 0.0
    if not target > 0:
        return price
    ratio = min(FURTHEST, max(1.0 / FURTHEST, wanted / target))
    return min(1e300, max(1e-300, price * math.pow(ratio, allocation.step)))
