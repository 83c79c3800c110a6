"""A client's battery over the rounds of a run: how much each round's mask may cost, never past the reserve.

    pace = start(battery)
    each round:  pace    = recharge(battery, pace, joules)
                 allowed = allowance(battery, pace, fixed_j, rounds_left, schedule)
                 pace    = spend(battery, pace, allowed, fixed_j, mask_j, worth)

What the mask took is at most ``allowed.mask_j``. A client that skips spends nothing, and ``allowed.reason`` says why; a
round in which it is not asked needs no call.
"""

from __future__ import annotations

import math
import sys
from dataclasses import dataclass, replace

import msgspec
import numpy as np

from joulewise import stores
from joulewise.errors import PacingError
from joulewise.schedules import Priced, Schedule
from joulewise.stores import Offers, Stores

LEAST_PRICE, LARGEST_PRICE = 1e-300, 1e300
"""Bounds of a price, so that none vanishes or overflows."""


class Battery(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The battery of a client, as a study file writes it.

    Args:
        charge_j: energy at the start, joules.
        capacity_j: energy of a full charge, joules; None: that at the start.
        reserve_j: energy that no round may touch, joules. A battery that starts below it spends nothing until it is
            recharged beyond it.

    Raises:
        PacingError: a number is negative or not finite, or the charge or the reserve is larger than the capacity.

    Example:
        >>> Battery(charge_j=50.0, reserve_j=5.0).full_j
        50.0
    """

    charge_j: float
    capacity_j: float | None = None
    reserve_j: float = 0.0

    def __post_init__(self) -> None:
        for name in ("charge_j", "reserve_j"):
            _check_amount(f"Battery({name})", getattr(self, name))
        _check_amount("Battery(capacity_j)", self.full_j)
        for name in ("charge_j", "reserve_j"):
            if getattr(self, name) > self.full_j:
                raise PacingError(
                    f"Battery({name}) is {getattr(self, name):g} J, expected at most the capacity, {self.full_j:g} J; "
                    "raise capacity_j or lower it"
                )

    @property
    def full_j(self) -> float:
        """Energy of a full charge, joules."""
        return self.charge_j if self.capacity_j is None else self.capacity_j


@dataclass(frozen=True, slots=True)
class Pace:
    """Where a client stands.

    Args:
        charge_j: energy in the battery.
        price: what a joule must bring, in values per joule; None while nothing is known of it.
        trials: rounds that the price was learned from before it was asked.
        spent_j: in all rounds so far, fixed costs and masks.
        allowed_j: shares of all rounds so far.
        saved_j: shares of rounds that were skipped since the last one that was joined.
        rounds: rounds that were joined or skipped.
    """

    charge_j: float
    price: float | None = None
    spent_j: float = 0.0
    allowed_j: float = 0.0
    saved_j: float = 0.0
    rounds: int = 0
    trials: int = 0


@dataclass(frozen=True, slots=True)
class Allowance:
    """What a round may cost, or why it is skipped.

    Args:
        mask_j: joules that the coordinates may cost; 0 for a round that is skipped.
        price: keep only what is worth at least so much per joule; None: whatever `mask_j` buys.
        share_j: what the round was to cost, fixed cost included.
        fresh_j: the part of the share that was not saved in earlier rounds.
        rate: of the price; 0 where there is none.
        reason: why the round is skipped; None for a round that is joined.
    """

    mask_j: float
    price: float | None
    share_j: float
    fresh_j: float
    rate: float
    reason: str | None = None

    @property
    def skips(self) -> bool:
        """Whether the client skips the round."""
        return self.reason is not None


def start(battery: Battery) -> Pace:
    """Where a client stands before the first round."""
    return Pace(battery.charge_j)


def allowance(  # noqa: PLR0913 (all that decides a round)
    battery: Battery,
    pace: Pace,
    fixed_j: float,
    rounds_left: int | None,
    schedule: Schedule,
    *,
    expected_j: float = 0.0,
    wanted_j: float = math.inf,
) -> Allowance:
    """Joules that the mask of this round may cost, or the reason to skip it.

    The share of a round is the schedule's part of what is above the reserve, and what earlier rounds saved. `Even`,
    `Early` and `Late` spread anew in each round whatever is left, so what one round does not use, the later ones get.
    With `Priced` the shares are those planned at the start, and after a round that cost less the price falls: `mask_j`
    is then only a cap, `Priced.most` shares or all that is above the reserve. The last round may use all of it.

    A round is joined where the share pays for `fixed_j` and a mask of `least_mask` times that, or of `wanted_j` where
    that is less, else skipped and its share saved; so a client that cannot afford all rounds joins some of them at
    regular distances. With an unknown number of rounds the share is a constant part of what is left, and a round costs
    at most half of that: the battery never empties, and in the long run spends what recharging brings.

    Args:
        battery: of the client.
        pace: where it stands.
        fixed_j: what the round costs before any coordinate: training, receiving, the fixed energy of a reply.
        rounds_left: this round included; None where nobody knows.
        schedule: how energy is spread over rounds.
        expected_j: joules that recharging is expected to bring before the last round; shares count on them, the charge
            decides.
        wanted_j: the largest energy that its mask has a use for, joules.

    Raises:
        PacingError: `fixed_j`, `rounds_left`, `expected_j` or `wanted_j` is out of range.

    Example:
        >>> from joulewise.schedules import Even
        >>> battery = Battery(charge_j=12.0, reserve_j=2.0)
        >>> allowance(battery, start(battery), fixed_j=0.5, rounds_left=5, schedule=Even()).mask_j
        1.5
        >>> print(allowance(battery, Pace(charge_j=3.1), fixed_j=1.5, rounds_left=5, schedule=Even()).reason)
        the battery holds 3.1 J, of which 2 J are the reserve, and a round costs 1.5 J before any coordinate
    """
    _check_amount("fixed_j", fixed_j)
    _check_amount("expected_j", expected_j)
    _check_amount("wanted_j", min(wanted_j, sys.float_info.max))
    store = _store(battery, pace)
    found = stores.offer(store, fixed_j, rounds_left, schedule, expected_j, wanted_j)
    share_j, mask_j = float(found.share), float(found.mask)
    reason = None if found.joins else _reason(battery, pace, fixed_j, share_j, float(stores.usable(store)))
    price, rate = _asked(pace, rounds_left, schedule)
    if isinstance(schedule, Priced) and price is None and rounds_left != 1:
        mask_j = min(mask_j, max(0.0, share_j - fixed_j))  # a trial costs its share
    return Allowance(mask_j, price, share_j, float(found.fresh), rate, reason)


def spend(
    battery: Battery, pace: Pace, allowed: Allowance, fixed_j: float, mask_j: float, worth: float | None = None
) -> Pace:
    """Where a client stands after a round that took ``fixed_j + mask_j``; both are 0 for a round without a reply.

    With `Priced`, the price rises where the round cost more than its share and falls where it cost less:
    ``price * exp(rate * ((fixed_j + mask_j) / share_j - 1))``. It begins at the geometric mean of `worth` over trials.

    Args:
        battery: of the client.
        pace: where it stood.
        allowed: what `allowance` said of this round.
        fixed_j: what the round took before any coordinate.
        mask_j: what the coordinates took.
        worth: value per joule of the last coordinate that was kept; None where it is not known. Trials alone need it.

    Raises:
        PacingError: the mask took more than was allowed, a skipped round took something, a number is out of range.

    Example:
        >>> from joulewise.schedules import Priced
        >>> battery = Battery(charge_j=100.0)
        >>> pace = start(battery)
        >>> for left in (100, 99, 98, 97, 96):  # trials, which cost their share
        ...     allowed = allowance(battery, pace, 0.0, left, Priced())
        ...     pace = spend(battery, pace, allowed, 0.0, allowed.mask_j, worth=4.0)
        >>> allowed = allowance(battery, pace, 0.0, 95, Priced())
        >>> allowed.price, allowed.mask_j  # all that is worth 4 per joule, up to five shares
        (4.0, 5.0)
        >>> round(spend(battery, pace, allowed, 0.0, 3.0).price, 3)  # it cost three shares: 4 exp(0.1 * 2)
        4.886
    """
    _check_taken(battery, pace, allowed, fixed_j, mask_j)
    offers = Offers(*map(np.asarray, (allowed.share_j, allowed.fresh_j, allowed.mask_j, not allowed.skips)))
    after = stores.settle(_store(battery, pace), offers, fixed_j + mask_j)
    price, trials = _priced(pace, allowed, fixed_j + mask_j, worth)
    return Pace(
        charge_j=float(after.charge),
        price=price,
        spent_j=float(after.spent),
        allowed_j=float(after.allowed),
        saved_j=float(after.saved),
        rounds=pace.rounds + 1,
        trials=trials,
    )


def recharge(battery: Battery, pace: Pace, joules: float) -> Pace:
    """Where a client stands after recharging; what the battery has no room for is lost.

    Raises:
        PacingError: `joules` is negative or not finite.

    Example:
        >>> battery = Battery(charge_j=8.0, capacity_j=10.0)
        >>> recharge(battery, start(battery), 1.5).charge_j, recharge(battery, start(battery), 5.0).charge_j
        (9.5, 10.0)
    """
    _check_amount("joules", joules)
    return replace(pace, charge_j=float(stores.fill(_store(battery, pace), battery.full_j, joules).charge))


def _store(battery: Battery, pace: Pace) -> Stores:
    amounts = (pace.charge_j, battery.reserve_j, pace.spent_j, pace.allowed_j, pace.saved_j)
    return Stores(*map(np.asarray, amounts))


def _reason(battery: Battery, pace: Pace, fixed_j: float, share_j: float, usable_j: float) -> str:
    costs = f"a round costs {fixed_j:.4g} J before any coordinate"
    if usable_j <= fixed_j:
        return (
            f"the battery holds {pace.charge_j:.4g} J, of which {battery.reserve_j:.4g} J are the reserve, and {costs}"
        )
    return f"the round's share is {share_j:.4g} J, and {costs}: too little is left for a mask, so the share is saved"


def _asked(pace: Pace, rounds_left: int | None, schedule: Schedule) -> tuple[float | None, float]:
    """The price of a round and its rate; none in trials and in the last round."""
    if not isinstance(schedule, Priced) or rounds_left == 1:
        return None, 0.0
    rounds = None if rounds_left is None else pace.rounds + rounds_left
    if pace.price is None or pace.trials < schedule.trials(rounds):
        return None, 0.0
    return pace.price, schedule.pace_of(rounds)


def _priced(pace: Pace, allowed: Allowance, took_j: float, worth: float | None) -> tuple[float | None, int]:
    """The price after a round, and how many trials it has seen."""
    if allowed.skips:
        return pace.price, pace.trials
    if allowed.price is None:
        if worth is None or not 0 < worth <= sys.float_info.max:
            return pace.price, pace.trials
        known = 0.0 if pace.price is None else pace.trials * math.log(pace.price)
        return _bounded(math.exp((known + math.log(worth)) / (pace.trials + 1))), pace.trials + 1
    over = took_j / allowed.share_j - 1.0  # a round that is joined has a share
    return _bounded(allowed.price * math.exp(allowed.rate * over)), pace.trials


def _bounded(price: float) -> float:
    return min(max(price, LEAST_PRICE), LARGEST_PRICE)


def _check_taken(battery: Battery, pace: Pace, allowed: Allowance, fixed_j: float, mask_j: float) -> None:
    _check_amount("fixed_j", fixed_j)
    _check_amount("mask_j", mask_j)
    if allowed.skips and fixed_j + mask_j > 0:
        raise PacingError(f"the round took {fixed_j + mask_j:.4g} J, but was to be skipped: {allowed.reason}")
    if mask_j > allowed.mask_j:
        raise PacingError(
            f"mask_j is {mask_j} J, but the round was allowed {allowed.mask_j} J; select with Joules(mask_j)"
        )
    if fixed_j + mask_j > float(stores.usable(_store(battery, pace))):
        raise PacingError(
            f"the round took {fixed_j + mask_j:.6g} J of {pace.charge_j:.6g} J, which leaves less than the reserve, "
            f"{battery.reserve_j:.6g} J; give `allowance` what the round costs before any coordinate"
        )


def _check_amount(name: str, value: float) -> None:
    if not 0 <= value <= sys.float_info.max:
        raise PacingError(f"{name} is {value}, expected finite joules of at least 0")
