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

import numpy as np

from joulewise.allocations import Allocation as Allocation
from joulewise.allocations import EqualCount as EqualCount
from joulewise.allocations import EqualJoules as EqualJoules
from joulewise.allocations import OnePrice as OnePrice
from joulewise.allocations import of_round, rounds_like_the_next
from joulewise.allotment import Allotment as Allotment
from joulewise.allotment import equal_parts, in_proportion, within
from joulewise.allotment import one_price as one_price
from joulewise.claims import Known as Known
from joulewise.claims import checked as checked
from joulewise.errors import FederationError, PayloadError
from joulewise.rules import Budget, Density, Joules

FURTHEST = 64.0
"""Times that the wanted energy may be off from the target, as far as one move of the price looks at it."""
LEAST_GAIN, GROWTH = 1.0 / 64.0, 1.25
"""Of a step of ascent: how small it may become, and how fast it grows again."""


@dataclass(frozen=True, slots=True)
class Books:
    """What the server remembers of a run's energy.

    Args:
        price: weighted value that the last joule buys; None before there is one.
        allowed_j: budgets of all rounds so far.
        spent_j: what clients spent, each at most what it was allowed to.
        rounds: how many.
        gain: share of a step of ascent that is taken: halved where the last one went too far.
        excess: ``log(wanted / target)`` at the last step.
    """

    price: float | None = None
    allowed_j: float = 0.0
    spent_j: float = 0.0
    rounds: int = 0
    gain: float = 1.0
    excess: float = 0.0


@dataclass(frozen=True, slots=True)
class Order:
    """What one client may do in a round.

    A client keeps what the budget buys, and says at which energy it would have kept everything worth at least `price`.

    Args:
        budget: the cap, which an honest client never exceeds.
        price: value per joule in the client's own terms, ``v / p_k^p``, at which it says what it wants; None for none,
            then it says the margin of what it kept.
    """

    budget: Budget
    price: float | None = None


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
    orders = {}
    if allocation.share is not None:
        orders = {client: Order(Density(allocation.share)) for client, each in sound.items() if each is None}
    counted = {client: each for client, each in sound.items() if client not in orders}
    if not counted:
        return orders, books
    budget_j = _budget(allocation, counted)
    if isinstance(allocation, EqualJoules):
        shared = _capped(counted, equal_parts(budget_j, _ceilings(counted)).tolist())
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
    plain = {client: each for client, each in known.items() if client not in curves}
    equal = budget_j / len(known)
    parts = equal_parts(equal * len(plain), _ceilings(plain)).tolist()
    energies = dict.fromkeys(known, 0.0) | dict(zip(plain, parts, strict=True))
    weights, exponent = _weights(known)
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

    With ascent the price is multiplied by ``(wanted / target)^(step gain)``: a step of dual ascent in its logarithm,
    with clients that want more than the target making it dearer. The target is what the next round may spend. Where
    residuals wait just below the price, a slightly lower one releases many of them: a step that went past the target
    halves the gain of the next, and one that did not lets it grow by a quarter.

    Args:
        allocation: how joules are divided.
        books: that `hand_out` gave.
        orders: that it handed out.
        spent_j: what each client says that it spent, of those whose reply was used. More than its cap counts as that,
            and so does a reply that was lost: its client may have spent that much.
        known: what is known of the clients now.

    Raises:
        PayloadError: what a client reports cannot be; it is named. Leave it out of `spent_j` and `known`.

    Example:
        >>> known = {4: Known(100, dense_j=50.0, wanted_j=8.0), 9: Known(300, dense_j=50.0, wanted_j=32.0)}
        >>> rule, books = OnePrice(budget_j=10.0, control="ascent"), Books(price=1.0)
        >>> orders, books = hand_out(rule, books, known)
        >>> book(rule, books, orders, {4: 2.0, 9: 8.0}, known)
        Books(price=2.0, allowed_j=10.0, spent_j=10.0, rounds=1, gain=1.0, excess=1.386...)
    """
    sound = {client: checked(client, known[client]) for client in orders if client in known}
    spent = math.fsum(_counted(client, spent_j.get(client), orders, sound) for client in {**orders, **spent_j})
    allowed = books.allowed_j + _budget(of_round(allocation, books.rounds), sound)
    after = replace(books, allowed_j=allowed, spent_j=books.spent_j + spent, rounds=books.rounds + 1)
    if not isinstance(allocation, OnePrice) or allocation.control == "curves":
        return after
    heard = {client: each for client, each in sound.items() if client in spent_j}
    if books.price is None:
        return replace(after, price=_first_price(heard))
    return _moved(allocation, after, books.price, orders, heard)


def _counted(client: int, claim: float | None, orders: Mapping[int, Order], known: Mapping[int, Known]) -> float:
    """What a client says that it spent, at most what it was allowed to; all of that where it says nothing."""
    if client not in orders or not (claim is None or 0 <= claim < math.inf):
        expected = "a finite number of at least 0" if client in orders else "nothing: it has no order of this round"
        raise PayloadError(f"client {client} reports spent_j = {claim}, expected {expected}")
    budget = orders[client].budget
    if isinstance(budget, Joules):
        return budget.budget if claim is None else min(claim, budget.budget)
    dense_j = known[client].dense_j if client in known else 0.0  # Then nothing of it is in the budget either.
    return dense_j if claim is None else min(claim, dense_j)


def _first_price(heard: Mapping[int, Known]) -> float | None:
    """Between what clients' last joules bought, in the middle of the logarithms; None where nobody said."""
    weights, exponent = _weights(heard)
    prices = [weights[client] ** exponent * (each.margin or 0.0) for client, each in heard.items()]
    logs = [math.log(each) for each in prices if each > 0]
    return math.exp(math.fsum(logs) / len(logs)) if logs else None


def _moved(
    allocation: OnePrice, books: Books, price: float, orders: Mapping[int, Order], heard: Mapping[int, Known]
) -> Books:
    """The price after one step, from clients that had a price and said what they wanted at it."""
    asked = {
        client: each.wanted_j
        for client, each in heard.items()
        if each.wanted_j is not None and orders[client].price is not None
    }
    caps = {client: each.budget.budget for client, each in orders.items() if isinstance(each.budget, Joules)}
    mine, total = math.fsum(caps.get(client, 0.0) for client in asked), math.fsum(caps.values())
    if not total or not mine:
        return books
    # One that wants less than its floor spends the floor.
    floor = allocation.least_share * total / len(caps)
    wanted = math.fsum(max(floor, each) for each in asked.values())
    usual = books.allowed_j / rounds_like_the_next(allocation, books.rounds)
    target = max(0.0, usual + books.allowed_j - books.spent_j) * mine / total
    if not target:
        return books
    excess = math.log(min(FURTHEST, max(1.0 / FURTHEST, wanted / target)))
    gain = max(LEAST_GAIN, books.gain / 2) if excess * books.excess < 0 else min(1.0, books.gain * GROWTH)
    moved = min(1e300, max(1e-300, price * math.exp(allocation.step * gain * excess)))
    return replace(books, price=moved, gain=gain, excess=excess)
