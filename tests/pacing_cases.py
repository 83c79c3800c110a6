"""Batteries over whole runs: random histories of fleets, and what pacing is worth beside the best of hindsight."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np

from joulewise import stores
from joulewise.pacing import Allowance, Battery, allowance, spend, start
from joulewise.schedules import Early, Even, Late, Priced, Schedule

CLIENTS = 100
SCHEDULES: tuple[Schedule, ...] = (
    Even(),
    Early(ratio=0.8),
    Late(ratio=0.8),
    Priced(),
    Even(least_mask=0.0),
    Priced(shape=Early(ratio=0.7), most=3.0),
)

# ---------------------------------------------------------------- random histories


@dataclass(frozen=True)
class Fleets:
    """Random histories of fleets; arrays are [histories, clients], and [rounds, histories, clients]."""

    charge: np.ndarray
    capacity: np.ndarray
    reserve: np.ndarray
    fixed: np.ndarray
    recharge: np.ndarray
    available: np.ndarray
    demand: np.ndarray
    """As a multiple of what the mask is allowed."""

    @property
    def rounds(self) -> int:
        return len(self.fixed)


def fleets(seed: int, histories: int, *, clients: int = CLIENTS, at_hand: bool = False) -> Fleets:
    """Random fleets; what a round costs before any coordinate is from nothing to more than a whole battery.

    `at_hand`: clients always want what they are allowed and are there in the last round, and what is usable at the
    start pays for ten rounds and more.
    """
    rng = np.random.default_rng(seed)
    shape = (histories, clients)
    run = (int(rng.integers(2, 25)), *shape)
    charge = 10.0 ** rng.uniform(-6, 9, shape)
    capacity = charge * np.where(rng.random(shape) < 0.3, 1.0, rng.uniform(1, 3, shape))
    reserve = capacity * np.where(rng.random(shape) < 0.3, 0.0, rng.uniform(0, 0.9, shape))  # some above the charge
    usual = charge * 10.0 ** rng.uniform(-4, 0, shape)
    if at_hand:
        usual = np.where(charge > reserve, charge - reserve, charge) * 10.0 ** rng.uniform(-4, -1, shape) / 1.5
    fixed = usual * np.where(rng.random(shape) < 0.2, 0.0, rng.uniform(0.5, 1.5, run))
    gains = charge * np.where(rng.random(shape) < 0.5, 0.0, 10.0 ** rng.uniform(-3, 0, shape))
    recharge = gains * rng.exponential(size=run)
    available = rng.random(run) < rng.uniform(0.3, 1.0, shape)
    demand = np.where(rng.random(run) < 0.5, 1.0, rng.uniform(0, 1.5, run))
    if at_hand:
        demand, available[-1] = np.ones(run), True
    return Fleets(charge, capacity, reserve, fixed, recharge, available, demand)


@dataclass(frozen=True)
class Lived:
    """What became of random histories.

    Args:
        below: client rounds after which the charge was below the reserve although something was spent, or below zero.
        beyond: client rounds after which the charge was above the capacity.
        worst_j: smallest charge above the reserve of a client that had spent something.
        used: share of the usable energy that was spent, [histories, clients]; NaN where it never paid for a round.
        left: whether what is left would have paid for a mask in the last round, [histories, clients].
        joined: share of client rounds that were joined.
    """

    below: int
    beyond: int
    worst_j: float
    used: np.ndarray
    left: np.ndarray
    joined: float


def live(case: Fleets, schedule: Schedule, *, known: bool = True) -> Lived:
    """All histories round by round; the rounds left are known, or not."""
    held = stores.Stores.of(case.charge, case.reserve)
    first, gained = stores.usable(held), np.zeros(case.charge.shape)
    below = beyond = joined = 0
    worst, payable = np.inf, np.zeros(case.charge.shape, bool)
    for number in range(case.rounds):
        before = held.charge
        held = stores.fill(held, case.capacity, case.recharge[number])
        gained += held.charge - before
        there, fixed = case.available[number], case.fixed[number]
        payable |= there & (stores.usable(held) > fixed)
        offers = stores.offer(held, fixed, case.rounds - number if known else None, schedule)
        took = np.where(there & offers.joins, fixed + np.minimum(1.0, case.demand[number]) * offers.mask, 0.0)
        after = stores.settle(held, offers, took)
        held = stores.Stores(*(np.where(there, getattr(after, f), getattr(held, f)) for f in held.__slots__))
        below += int(((took > 0) & (held.charge < held.reserve)).sum() + (held.charge < 0).sum())
        beyond += int((held.charge > case.capacity).sum())
        joined += int((took > 0).sum())
        worst = min(worst, float(np.where(took > 0, held.charge - held.reserve, np.inf).min()))
    usable = first + gained - np.maximum(case.reserve - case.charge, 0.0)
    left = stores.usable(held) > case.fixed[-1] + 1e-12 * case.capacity
    used = np.where(payable, held.spent / np.where(payable, usable, 1.0), np.nan)
    return Lived(below, beyond, worst, used, left, joined / case.fixed.size)


def batches(histories: int, size: int = 250) -> Iterator[tuple[int, int, Schedule]]:
    """Seed, histories and schedule of each batch."""
    for seed, first in enumerate(range(0, histories, size)):
        yield seed, min(size, histories - first), SCHEDULES[seed % len(SCHEDULES)]


# ---------------------------------------------------------------- worth, and hindsight


MOST_WORTH = 8.0
"""No update of `stationary` has a larger factor."""


def stationary(seed: int, rounds: int) -> np.ndarray:
    """Factors of rounds, independent of one law: e joules are worth ``factor * log(1 + e)``."""
    return np.minimum(np.random.default_rng([seed, rounds]).lognormal(0.0, 1.0, rounds), MOST_WORTH)


def late_worth(seed: int, rounds: int) -> np.ndarray:
    """Factors that are twenty times as large in the last fifth of the run: nothing announces it."""
    found = stationary(seed, rounds)
    found[rounds - rounds // 5 :] *= 20.0
    return found


def value(factors: np.ndarray, joules: np.ndarray) -> float:
    """What a run is worth."""
    return float((factors * np.log1p(joules)).sum())


def hindsight(factors: np.ndarray, budget_j: float, most_j: float) -> float:
    """The most that a run could have been worth: one price for all rounds, found by bisection."""
    low, high = 1e-9, float(factors.max())
    for _ in range(100):
        price = np.sqrt(low * high)
        if np.clip(factors / price - 1.0, 0.0, most_j).sum() > budget_j:
            low = price
        else:
            high = price
    return value(factors, np.clip(factors / high - 1.0, 0.0, most_j))


@dataclass(frozen=True)
class Paced:
    """A run at one joule a round on average: value, hindsight's value, energy left, and the price after the trials."""

    value: float
    best: float
    left_j: float
    first_price: float

    @property
    def regret(self) -> float:
        return self.best - self.value


def wanted(factor: float, allowed: Allowance) -> float:
    """What a client spends that keeps all that is worth the price."""
    if allowed.price is None:
        return allowed.mask_j
    return min(max(factor / allowed.price - 1.0, 0.0), allowed.mask_j)


def paced(factors: np.ndarray, schedule: Schedule) -> Paced:
    """One client over one run; hindsight may spend no more in a round than a price may."""
    rounds = len(factors)
    battery = Battery(charge_j=float(rounds))
    pace, spent, first_price = start(battery), np.zeros(rounds), 0.0
    for number, factor in enumerate(factors.tolist()):
        allowed = allowance(battery, pace, 0.0, rounds - number, schedule)
        spent[number] = wanted(factor, allowed)
        worth = factor / (1.0 + spent[number])
        pace = spend(battery, pace, allowed, 0.0, float(spent[number]), worth)
        first_price = pace.price or 0.0 if allowed.price is None and number < rounds - 1 else first_price
    return Paced(value(factors, spent), hindsight(factors, float(rounds), Priced().most), pace.charge_j, first_price)


def many(inputs, schedule: Schedule, rounds: int, seeds: int) -> Paced:
    """Means over seeds."""
    found = [paced(inputs(seed, rounds), schedule) for seed in range(seeds)]
    return replace(found[0], **{f: float(np.mean([getattr(each, f) for each in found])) for f in Paced.__annotations__})
