"""One budget of joules for the masks of all clients of a round: who may spend how much, and what is left.

    hand_out   before a round: an order for each client
    book       after it: what was spent, and where the price goes

Both take the books of the run and give new ones. `joulewise.booking` holds the books, `joulewise.allotment` and
`joulewise.bothways` the divisions, `joulewise.curves` what clients say of their updates.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import replace

import numpy as np
import numpy.typing as npt

from joulewise.allocations import Allocation as Allocation
from joulewise.allocations import EqualCount as EqualCount
from joulewise.allocations import EqualJoules as EqualJoules
from joulewise.allocations import OnePrice as OnePrice
from joulewise.allocations import of_round
from joulewise.allotment import Allotment as Allotment
from joulewise.allotment import equal_parts, in_proportion
from joulewise.allotment import one_price as one_price
from joulewise.booking import Books as Books
from joulewise.booking import Order as Order
from joulewise.booking import book as book
from joulewise.booking import budget_of, receiving_j, weights_of
from joulewise.booking import counts_both as counts_both
from joulewise.bothways import ALONE, one_price_both_ways
from joulewise.claims import Known as Known
from joulewise.claims import checked as checked
from joulewise.curves import Curve
from joulewise.curvetable import within
from joulewise.errors import FederationError
from joulewise.reception import Reception
from joulewise.rules import Density, Joules

Floats = npt.NDArray[np.float64]

SETTLING = 4
"""Times that a division is made to see how alike its masks would be."""
MOST_OWED = 0.95
"""Of a round's budget, that may go into what unions cost too much before."""

# ---------------------------------------------------------------- before a round


def hand_out(allocation: Allocation, books: Books, known: Mapping[int, Known | None]) -> tuple[dict[int, Order], Books]:
    """Say what each client of a round may spend.

    Caps in joules together never exceed the budget of the round, and with ascent what is left of all rounds so far. A
    share of what sending everything costs cannot be told for a client that is not known yet: it gets that density.

    With ``counts="both"`` caps and what receivers are predicted to pay for the union of the masks never exceed the
    budget together; `Books.awaited_j` says how much of it that is. A client that is not known gets the density over the
    number of clients, with which the union of masks of those densities keeps within the share.

    Args:
        allocation: how joules are divided.
        books: of the run.
        known: what is known of each client of this round, by its number; None for nothing yet.

    Returns:
        An order for each client, and the books, with the new price where curves fix it.

    Raises:
        PayloadError: what is said to be known of a client cannot be; it is named. See `checked`.
        FederationError: clients measure value in different norms, or a price overflows.
        RuleError: the rounds of the allocation's course are over, or it does not know how many there are.

    Example:
        >>> known = {4: Known(100, dense_j=50.0), 9: Known(300, dense_j=50.0)}
        >>> orders, _ = hand_out(EqualJoules(share=0.1), Books(), known)
        >>> orders[4]
        Order(budget=Joules(budget=5.0, includes_fixed=False, fill=False), price=None)
    """
    sound = {client: each and checked(client, each) for client, each in known.items()}
    allocation = of_round(allocation, books.rounds)
    if isinstance(allocation, EqualCount):
        return {client: Order(Density(allocation.share)) for client in known}, books
    orders, density = {}, _first_density(allocation, len(known))
    if density is not None:
        orders = {client: Order(Density(density)) for client, each in sound.items() if each is None}
    counted = {client: each for client, each in sound.items() if client not in orders}
    if not counted:
        return orders, books
    budget_j = budget_of(allocation, counted)
    # With a share, as counting both directions needs, whoever is not known has a density and is not among these.
    heard = {client: each for client, each in counted.items() if each is not None}
    reception = _reception(allocation, books, heard, len(known))
    if reception is not None:
        # A union may have cost more than foreseen: that is taken from the rounds after it, none of which stands still.
        budget_j -= min(MOST_OWED * budget_j, max(0.0, books.spent_j - books.allowed_j))
        shared, books = _both_ways(allocation, books, heard, budget_j, reception)
        awaited_j = books.awaited_j + reception.receiving_j * (density or 0.0) * len(orders)
        books = replace(books, awaited_j=awaited_j)
    elif isinstance(allocation, EqualJoules):
        shared = _capped(counted, equal_parts(budget_j, _ceilings(counted)).tolist())
    elif allocation.control != "ascent":
        shared, books = _by_curves(allocation, books, counted, budget_j)
    else:
        shared = _by_ascent(allocation, books, counted, budget_j)
    return {client: (orders | shared)[client] for client in known}, books


def _first_density(allocation: EqualJoules | OnePrice, clients: int) -> float | None:
    """What clients keep that are not known yet; None where they get joules.

    Any of them may be the only one that keeps a coordinate: a share of what all receive buys each one in so many.
    """
    if allocation.share is None or not counts_both(allocation):
        return allocation.share
    return allocation.share / clients


def _reception(
    allocation: EqualJoules | OnePrice, books: Books, known: Mapping[int, Known], clients: int
) -> Reception | None:
    """What masks cost both ways, of `clients` of which these are known; None where it is not counted.

    Of a fleet whose devices price no downlink there is the uplink alone.
    """
    receiving = receiving_j(known.values(), clients)
    if not counts_both(allocation) or not receiving:
        return None
    return Reception(np.array([each.dense_j for each in known.values()]), receiving, books.likeness)


def _both_ways(
    allocation: EqualJoules | OnePrice,
    books: Books,
    known: Mapping[int, Known],
    budget_j: float,
    reception: Reception,
) -> tuple[dict[int, Order], Books]:
    """A division at which masks are as alike as they then would be, by how their unions came out before."""
    for _ in range(SETTLING if books.overlap < 1 else 0):
        _, energies = _divided(allocation, known, budget_j, reception, ALONE[::4])
        reception = reception.again(energies, books.overlap)
    price, energies = _divided(allocation, known, budget_j, reception, ALONE)
    if books.overlap < 1:
        reception = reception.again(energies, books.overlap)
        energies = reception.between(np.zeros_like(energies), energies, budget_j)
    price = books.price if price is None else price
    books = replace(books, price=price, awaited_j=reception.downlink_j(energies))
    return _capped(known, energies.tolist()), books


def _divided(
    allocation: EqualJoules | OnePrice,
    known: Mapping[int, Known],
    budget_j: float,
    reception: Reception,
    tried: Floats,
) -> tuple[float | None, Floats]:
    """In equal parts, or at one price: then those without a curve have theirs, and all alike what curves leave."""
    equal = reception.raised(np.zeros(len(known)), budget_j)
    curves = [each.curve for each in known.values()]
    weights, exponent = weights_of(known)
    heard = any(weight for weight, curve in zip(weights.values(), curves, strict=True) if curve is not None)
    if not isinstance(allocation, OnePrice) or not heard:
        return None, equal
    none = Curve(np.empty(0), np.empty(0))
    each = [curve or none for curve in curves]
    most = np.array([curve.energies_j.max(initial=0.0) for curve in each])
    floors = np.where([c is None for c in curves], equal, np.minimum(allocation.least_share * equal, most))
    found = one_price_both_ways(each, list(weights.values()), exponent, budget_j, reception, floors, tried)
    return found.price, reception.raised(found.energies_j, budget_j)


def _capped(clients: Mapping[int, Known | None], energies_j: list[float]) -> dict[int, Order]:
    return {client: Order(Joules(energy)) for client, energy in zip(clients, energies_j, strict=True)}


def _by_curves(
    allocation: OnePrice, books: Books, known: Mapping[int, Known | None], budget_j: float
) -> tuple[dict[int, Order], Books]:
    """At one price, those without a curve in equal parts; what curves leave of the budget goes to all alike."""
    curves = {client: each.curve for client, each in known.items() if each is not None and each.curve is not None}
    plain = {client: each for client, each in known.items() if client not in curves}
    equal = budget_j / len(known)
    parts = equal_parts(equal * len(plain), _ceilings(plain)).tolist()
    energies = dict.fromkeys(known, 0.0) | dict(zip(plain, parts, strict=True))
    weights, exponent = weights_of(known)
    if any(weights[client] for client in curves):
        room, floors = budget_j - math.fsum(parts), [allocation.least_share * equal] * len(curves)
        found = one_price(list(curves.values()), [weights[client] for client in curves], exponent, room, floors)
        books = replace(books, price=found.price)
        energies |= dict(zip(curves, found.energies_j.tolist(), strict=True))
    # A curve of an earlier round may say that there is nothing to send: this one may have something.
    left = max(0.0, budget_j - math.fsum(energies.values())) / len(known)
    every = within(np.array([energies[client] + left for client in known]), budget_j)
    return _capped(known, every.tolist()), books


def _ceilings(known: Mapping[int, Known | None]) -> list[float]:
    return [math.inf if each is None else each.dense_j for each in known.values()]


def _by_ascent(
    allocation: OnePrice, books: Books, known: Mapping[int, Known | None], budget_j: float
) -> dict[int, Order]:
    """What is left of all rounds so far, in proportion to what was wanted at one price, and no less than the floor."""
    allowance = max(0.0, budget_j + books.allowed_j - books.spent_j)
    weights, exponent = weights_of(known)
    floor = allocation.least_share * min(budget_j, allowance) / len(known)
    wanted = [None if each is None else each.wanted_j for each in known.values()]
    heard = [each for each in wanted if each is not None]
    # Clients that were not asked yet want what the others do.
    usual = math.fsum(heard) / len(heard) if heard else 0.0
    wants = [max(floor, usual if each is None else each) for each in wanted]
    caps = in_proportion(allowance, wants, [floor] * len(known)).tolist()
    orders = {}
    for client, cap in zip(known, caps, strict=True):
        orders[client] = Order(Joules(cap), _own_price(client, books.price, weights[client], exponent))
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
