"""The books of a fleet's energy: what rounds were allowed and have spent, and where the price goes after each."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace

import numpy as np

from joulewise.allocations import Allocation, EqualCount, EqualJoules, OnePrice, of_round, rounds_like_the_next
from joulewise.claims import Known, checked
from joulewise.errors import FederationError, PayloadError
from joulewise.reception import likeness_of, union_of
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
        spent_j: what clients spent, each at most what it was allowed to; and receivers, where they are counted.
        rounds: how many.
        gain: share of a step of ascent that is taken: halved where the last one went too far.
        excess: ``log(wanted / target)`` at the last step.
        awaited_j: what receivers are expected to pay for the masks of the round under way, where that is counted.
        predicted_j: the same of all rounds before it.
        received_j: what they have paid for these: part of `spent_j`.
        likeness: at which the union of the last masks would be `overlap` times that of independent ones, see
            `joulewise.reception.Reception`; 0, as if they were independent, before there are some.
        overlap: that union over the one of independent masks; where it falls, the middle between the one before and it.
    """

    price: float | None = None
    allowed_j: float = 0.0
    spent_j: float = 0.0
    rounds: int = 0
    gain: float = 1.0
    excess: float = 0.0
    awaited_j: float = 0.0
    predicted_j: float = 0.0
    received_j: float = 0.0
    likeness: float = 0.0
    overlap: float = 1.0


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


def book(
    allocation: Allocation,
    books: Books,
    orders: Mapping[int, Order],
    spent_j: Mapping[int, float],
    known: Mapping[int, Known],
    union: float | None = None,
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
            and a reply that was lost counts as all of it, or as the share of `Known.dense_j` that its client may keep.
        known: what is known of the clients now.
        union: share of the coordinates that at least one client has sent, for which all receivers pay; None where that
            is not known, then it counts as what was predicted.

    Raises:
        PayloadError: what a client reports cannot be; it is named. Leave it out of `spent_j` and `known`.

    Example:
        >>> known = {4: Known(100, dense_j=50.0, wanted_j=8.0), 9: Known(300, dense_j=50.0, wanted_j=32.0)}
        >>> from joulewise.fleet import hand_out
        >>> rule, books = OnePrice(budget_j=10.0, control="ascent"), Books(price=1.0)
        >>> orders, books = hand_out(rule, books, known)
        >>> book(rule, books, orders, {4: 2.0, 9: 8.0}, known)
        Books(price=2.0, allowed_j=10.0, spent_j=10.0, rounds=1, gain=1.0, excess=1.386..., ...)
    """
    sound = {client: checked(client, known[client]) for client in orders if client in known}
    spent = math.fsum(_counted(client, spent_j.get(client), orders, sound) for client in {**orders, **spent_j})
    received = 0.0
    if counts_both(allocation):
        books = _alike(books, orders, spent_j, sound, union)
        received = books.awaited_j if union is None else union * receiving_j(sound.values(), len(orders))
    after = replace(
        books,
        allowed_j=books.allowed_j + budget_of(of_round(allocation, books.rounds), sound),
        spent_j=books.spent_j + spent + received,
        rounds=books.rounds + 1,
        awaited_j=0.0,
        predicted_j=books.predicted_j + books.awaited_j,
        received_j=books.received_j + received,
    )
    if not isinstance(allocation, OnePrice) or allocation.control != "ascent":
        return after
    heard = {client: each for client, each in sound.items() if client in spent_j}
    if books.price is None:
        return replace(after, price=_first_price(heard))
    return _moved(allocation, after, books.price, orders, heard)


def _alike(
    books: Books,
    orders: Mapping[int, Order],
    spent_j: Mapping[int, float],
    known: Mapping[int, Known],
    union: float | None,
) -> Books:
    """With how alike the masks were that came; as before where nobody knows their union, or fewer than two kept any."""
    heard = {client: each.dense_j for client, each in known.items() if client in spent_j}
    kept = [_counted(k, spent_j[k], orders, known) / dense_j for k, dense_j in heard.items()]
    if not union or sum(each > 0 for each in kept) < 2:  # One mask alone is like nothing.
        return books
    densities = np.minimum(1.0, np.array(kept))
    independent = union_of(densities)
    overlap = min(1.0, max(float(densities.max()), union) / independent)
    # Down by halves, up at once: what is taken for too little is paid for by receivers.
    overlap = max(overlap, 0.5 * (books.overlap + overlap))
    likeness = 0.0 if overlap >= 1 else likeness_of(densities, overlap * independent)
    return replace(books, likeness=likeness, overlap=overlap)


def _counted(client: int, claim: float | None, orders: Mapping[int, Order], known: Mapping[int, Known]) -> float:
    """What a client says that it spent, at most what it was allowed to; all of that where it says nothing."""
    if client not in orders or not (claim is None or 0 <= claim < math.inf):
        expected = "a finite number of at least 0" if client in orders else "nothing: it has no order of this round"
        raise PayloadError(f"client {client} reports spent_j = {claim}, expected {expected}")
    budget = orders[client].budget
    if isinstance(budget, Joules):
        return budget.budget if claim is None else min(claim, budget.budget)
    dense_j = known[client].dense_j if client in known else 0.0  # Then nothing of it is in the budget either.
    most = budget.fraction * dense_j if isinstance(budget, Density) else dense_j
    return most if claim is None else min(claim, dense_j)


def _first_price(heard: Mapping[int, Known]) -> float | None:
    """Between what clients' last joules bought, in the middle of the logarithms; None where nobody said."""
    weights, exponent = weights_of(heard)
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


# ---------------------------------------------------------------- what both ends of a round need


def budget_of(allocation: EqualCount | EqualJoules | OnePrice, known: Mapping[int, Known | None]) -> float:
    """Energy of a round, as far as it is known."""
    if isinstance(allocation, EqualJoules | OnePrice) and allocation.budget_j is not None:
        return allocation.budget_j
    both = counts_both(allocation)
    every = [each.dense_j + (each.receive_j if both else 0.0) for each in known.values() if each is not None]
    return (allocation.share or 0.0) * math.fsum(every)


def counts_both(allocation: Allocation) -> bool:
    """Whether a budget counts what receivers pay too."""
    return isinstance(allocation, EqualJoules | OnePrice) and allocation.counts == "both"


def receiving_j(known: Iterable[Known], clients: int) -> float:
    """What it costs all clients of a round to receive every coordinate, those that are not known taken like others."""
    each = [one.receive_j for one in known]
    return math.fsum(each) / len(each) * clients if each else 0.0


def weights_of(known: Mapping[int, Known | None]) -> tuple[dict[int, float], int]:
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
