"""The arithmetic of batteries, elementwise: for one client or for all clients of many runs at once.

All amounts are joules, float64 of any one shape. Every function is exact in this sense: what it grants can be taken
away in floating point without the charge falling below the reserve, not even by the last bit.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from joulewise.schedules import Priced, Schedule

Floats = npt.NDArray[np.float64]
Bools = npt.NDArray[np.bool_]


@dataclass(frozen=True, slots=True, eq=False)
class Stores:
    """What batteries hold, and what became of it.

    Args:
        charge: energy in the battery.
        reserve: energy that is never spent.
        spent: in all rounds so far.
        allowed: shares of all rounds so far.
        saved: shares of rounds that were skipped since the last one that was joined.
    """

    charge: Floats
    reserve: Floats
    spent: Floats
    allowed: Floats
    saved: Floats

    @staticmethod
    def of(charge: Any, reserve: Any) -> Stores:
        """Batteries before the first round."""
        held, kept = np.broadcast_arrays(np.asarray(charge, np.float64), np.asarray(reserve, np.float64))
        return Stores(held, kept, *(np.zeros(held.shape) for _ in range(3)))


@dataclass(frozen=True, slots=True, eq=False)
class Offers:
    """What a round may cost.

    Args:
        share: of the round, with what was saved.
        fresh: the part of it that was not allowed before.
        mask: what is left for coordinates; 0 where the round is skipped.
        joins: whether the round is joined.
    """

    share: Floats
    fresh: Floats
    mask: Floats
    joins: Bools


def usable(stores: Stores) -> Floats:
    """Energy above the reserve that can be taken without passing it, to the last bit or the one before; 0 below it.

    Example:
        >>> usable(Stores.of([5.0, 1.0], 2.0))
        array([3., 0.])
    """
    return _within(stores.charge, stores.reserve)


def offer(
    stores: Stores,
    fixed: Any,
    rounds_left: int | None,
    schedule: Schedule,
    expected: Floats | float = 0.0,
    wanted: Floats | float = np.inf,
) -> Offers:
    """What a round may cost by a schedule.

    Args:
        stores: the batteries.
        fixed: what the round costs before any coordinate.
        rounds_left: this round included; None where nobody knows.
        schedule: how energy is spread over rounds.
        expected: energy that recharging is expected to bring before the last round.
        wanted: the largest energy that a mask has a use for.

    Example:
        >>> from joulewise.schedules import Even
        >>> found = offer(Stores.of([10.0, 10.0], [0.0, 8.0]), 0.5, 4, Even())
        >>> found.mask, found.joins
        (array([2., 0.]), array([ True, False]))
    """
    known, room = rounds_left is not None, usable(stores)
    cap = room if known else room / 2
    planned = stores.spent - stores.allowed if known and isinstance(schedule, Priced) else -stores.saved
    fresh = np.maximum(room + planned + expected, 0.0) * schedule.share(rounds_left)
    share = stores.saved + fresh
    least = np.minimum(schedule.least_mask * np.asarray(fixed, np.float64), wanted)
    is_last = np.full(share.shape, rounds_left == 1)
    pays = _within(np.minimum(share, cap), fixed) >= least
    # Where the rest would not pay for another round, it is spent in this one.
    everything = is_last | (known & (room - share < fixed + least))
    mask = _within(np.where(everything, room, np.minimum(schedule.most * share, cap)), fixed)
    joins = (mask > 0) & (is_last | pays)
    return Offers(share, fresh, np.where(joins, mask, 0.0), joins)


def settle(stores: Stores, offers: Offers, took: Any) -> Stores:
    """Batteries after a round; `took` is 0 where it was skipped, and never more than was offered with the fixed cost.

    Example:
        >>> from joulewise.schedules import Even
        >>> stores = Stores.of([10.0], 0.0)
        >>> settle(stores, offer(stores, 0.5, 4, Even()), 1.5).charge
        array([8.5])
    """
    return replace(
        stores,
        charge=stores.charge - took,
        spent=stores.spent + took,
        allowed=stores.allowed + offers.fresh,
        saved=np.where(offers.joins, 0.0, np.minimum(offers.share, usable(stores))),
    )


def fill(stores: Stores, capacity: Any, joules: Any) -> Stores:
    """Batteries after recharging; what does not fit is lost.

    Example:
        >>> fill(Stores.of([1.0, 4.5], 0.0), 5.0, 2.0).charge
        array([3., 5.])
    """
    return replace(stores, charge=np.minimum(stores.charge + joules, capacity))


def _within(whole: Any, part: Any) -> Floats:
    """``whole - part``, or one bit less, so that ``part + x <= whole`` and ``whole - x >= part``; at least 0."""
    rest = np.asarray(np.maximum(np.asarray(whole, np.float64) - part, 0.0))
    passes = (part + rest > whole) | (whole - rest < part)
    # `rest` is rounded by at most half of its last bit, so one bit less is below the exact difference.
    return np.where(passes & (rest > 0), np.nextafter(rest, 0.0), rest)
