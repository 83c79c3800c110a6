"""Batteries over a run: never past the reserve, all used at the end, and what price control is worth in hindsight."""

import math
from dataclasses import replace
from itertools import pairwise

import msgspec
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pacing_cases import (
    MOST_WORTH,
    SCHEDULES,
    batches,
    fleets,
    late_worth,
    live,
    many,
    stationary,
)

from joulewise import schedules, stores
from joulewise.costs import Costs
from joulewise.errors import PacingError
from joulewise.pacing import LARGEST_PRICE, LEAST_PRICE, Battery, Pace, allowance, recharge, spend, start
from joulewise.rules import CWMP, Joules, Price
from joulewise.schedules import Early, Even, Late, Priced, regret_bound
from joulewise.select import select

amounts = st.one_of(st.just(0.0), st.floats(1e-9, 1e12), st.floats(0, 10))


KNOWN = 10**6
"""Trials enough for any run."""

TWELVE = Battery(12.0)


def spread(schedule, *, battery=TWELVE, fixed_j=0.0, rounds=4, want=math.inf):
    """What the masks of a run take when each wants `want` joules; None for a skipped round."""
    pace, found = start(battery), []
    for left in range(rounds, 0, -1):
        allowed = allowance(battery, pace, fixed_j, left, schedule)
        took = min(allowed.mask_j, want)
        found.append(None if allowed.skips else took)
        pace = spend(battery, pace, allowed, 0.0 if allowed.skips else fixed_j, took, worth=1.0)
    return found


# ---------------------------------------------------------------- never past the reserve


def test_in_ten_thousand_histories_of_a_hundred_clients_none_falls_below_its_reserve():
    found = [live(fleets(seed, size), schedule, known=seed % 4 != 3) for seed, size, schedule in batches(10_000)]
    assert sum(each.below for each in found) == 0
    assert sum(each.beyond for each in found) == 0
    assert min(each.worst_j for each in found) == 0  # to the last bit, and some come as far as that
    assert np.mean([each.joined for each in found]) > 0.3


def test_the_histories_are_of_every_schedule():
    assert {type(each) for each in SCHEDULES} == set(schedules.SCHEDULES)
    assert {each for _, _, each in batches(10_000)} == set(SCHEDULES)


@pytest.mark.parametrize("schedule", SCHEDULES, ids=repr)
def test_with_demand_at_hand_at_least_95_percent_of_the_usable_energy_is_spent(schedule):
    for seed in range(4):
        found = live(fleets(seed, 50, at_hand=True), schedule)
        assert np.nanmean(found.used, axis=1).min() >= 0.95  # of each fleet
        assert not found.left.any()  # what is left would not have paid for the last round


@st.composite
def lives(draw):
    """A battery, a schedule, and rounds of (recharge, fixed, demand)."""
    full = draw(st.floats(0, 1e12))
    battery = Battery(draw(st.floats(0, full)), full, draw(st.floats(0, full)))
    steps = draw(st.lists(st.tuples(amounts, amounts, st.floats(0, 1.5)), min_size=1, max_size=12))
    return battery, draw(st.sampled_from(SCHEDULES)), steps, draw(st.booleans())


@given(lives())
def test_a_client_spends_only_what_is_above_its_reserve_and_says_why_it_skips(life):
    battery, schedule, steps, known = life
    pace = start(battery)
    for number, (gain, fixed_j, demand) in enumerate(steps):
        pace = recharge(battery, pace, gain)
        assert pace.charge_j <= battery.full_j
        left = len(steps) - number if known else None
        allowed = allowance(battery, pace, fixed_j, left, schedule)
        assert (allowed.reason is None) == (allowed.mask_j > 0)
        paid = (0.0, 0.0) if allowed.skips else (fixed_j, min(allowed.mask_j, demand * allowed.mask_j))
        after = spend(battery, pace, allowed, *paid, worth=demand)
        assert after.charge_j >= battery.reserve_j or after.charge_j == pace.charge_j
        assert pace.charge_j > battery.reserve_j or allowed.skips
        assert after.spent_j - pace.spent_j == pytest.approx(sum(paid), rel=1e-9, abs=1e-12 * after.spent_j)
        assert 0 <= after.saved_j <= max(pace.charge_j, 0)
        pace = after


@given(lives())
def test_one_client_and_many_at_once_have_the_same_bits(life):
    battery, schedule, steps, known = life
    pace, held = start(battery), stores.Stores.of([battery.charge_j] * 3, battery.reserve_j)
    for number, (gain, fixed_j, demand) in enumerate(steps):
        pace, held = recharge(battery, pace, gain), stores.fill(held, battery.full_j, gain)
        left = len(steps) - number if known else None
        allowed, offers = allowance(battery, pace, fixed_j, left, schedule), stores.offer(held, fixed_j, left, schedule)
        assert offers.joins.tolist() == [not allowed.skips] * 3
        assert allowed.mask_j <= offers.mask[0]  # without a price, less
        mask_j = min(1.0, demand) * allowed.mask_j
        took = 0.0 if allowed.skips else fixed_j + mask_j
        pace = spend(battery, pace, allowed, 0.0 if allowed.skips else fixed_j, mask_j)
        held = stores.settle(held, offers, took)
        assert held.charge.tolist() == [pace.charge_j] * 3
        assert held.saved.tolist() == [pace.saved_j] * 3


def test_a_battery_that_starts_below_its_reserve_waits_until_it_is_recharged_beyond_it():
    battery = Battery(charge_j=1.0, capacity_j=10.0, reserve_j=2.0)
    pace = start(battery)
    allowed = allowance(battery, pace, 0.0, 5, Even())
    assert allowed.reason == (
        "the battery holds 1 J, of which 2 J are the reserve, and a round costs 0 J before any coordinate"
    )
    pace = recharge(battery, spend(battery, pace, allowed, 0.0, 0.0), 5.0)
    assert allowance(battery, pace, 0.0, 4, Even()).mask_j == 1.0


# ---------------------------------------------------------------- shares


def test_even_rounds_are_equal_and_the_last_takes_what_is_left():
    assert spread(Even()) == [3, 3, 3, 3]
    assert spread(Even(), battery=Battery(12.0, reserve_j=4.0), fixed_j=0.5) == [1.5] * 4
    pace = Pace(charge_j=7.0)
    assert allowance(Battery(12.0), pace, 0.0, 1, Even()).mask_j == 7.0


def test_what_one_round_leaves_is_spread_over_the_rest():
    battery = Battery(12.0)
    pace = start(battery)
    pace = spend(battery, pace, allowance(battery, pace, 0.0, 4, Even()), 0.0, 0.0)  # it wanted nothing of its 3 J
    assert allowance(battery, pace, 0.0, 3, Even()).mask_j == 4.0
    pace = recharge(Battery(12.0, 20.0), pace, 3.0)
    assert allowance(battery, pace, 0.0, 3, Even()).mask_j == 5.0
    assert allowance(battery, pace, 0.0, 2, Even()).mask_j == 7.5  # a round without this client


def test_early_and_late_rounds_follow_their_ratio():
    early, late = spread(Early(ratio=0.5), battery=Battery(15.0)), spread(Late(ratio=0.5), battery=Battery(15.0))
    assert early == pytest.approx([8, 4, 2, 1])
    assert late == pytest.approx([1, 2, 4, 8])
    assert spread(Early(ratio=1 - 1e-15)) == pytest.approx([3, 3, 3, 3])
    assert Late(ratio=0.5).share(10_000) == 0  # no overflow, no division by zero


def test_a_client_that_cannot_afford_all_rounds_joins_some_at_regular_distances():
    # 0.105 J a round against 1 J before any coordinate: every twentieth round has 2.1 J.
    found = spread(Even(), battery=Battery(10.5), fixed_j=1.0, rounds=100)
    joined = [number for number, mask in enumerate(found, 1) if mask is not None]
    assert joined == [20, 40, 60, 80, 100]
    assert [found[number - 1] for number in joined] == pytest.approx([1.1] * 5)
    skipped = allowance(Battery(10.0), Pace(10.0), 1.0, 100, Even())
    assert skipped.reason == (
        "the round's share is 0.1 J, and a round costs 1 J before any coordinate: too little is left for a mask, so "
        "the share is saved"
    )
    assert None not in spread(Even(least_mask=0.0), battery=Battery(10.0), fixed_j=1.0, rounds=9)


def test_a_round_needs_no_larger_mask_than_there_is_a_use_for():
    battery = Battery(12.0)
    for wanted_j, joins in ((math.inf, False), (0.21, False), (0.2, True), (0.0, True)):
        allowed = allowance(battery, start(battery), 1.0, 10, Even(), wanted_j=wanted_j)
        assert (not allowed.skips) == joins
        assert allowed.mask_j == (pytest.approx(0.2) if joins else 0.0)
    with pytest.raises(PacingError, match="wanted_j is -1"):
        allowance(battery, start(battery), 1.0, 10, Even(), wanted_j=-1.0)


def test_what_would_not_pay_for_another_round_is_spent_in_this_one():
    assert spread(Early(ratio=0.5), battery=Battery(4.5), fixed_j=1.0, rounds=2) == [3.5, None]  # 3 J, and 1.5 J left
    assert spread(Early(ratio=0.5), battery=Battery(6.0), fixed_j=1.0, rounds=2) == [3.0, 1.0]
    assert spread(Even(), battery=Battery(3.0), fixed_j=1.0, rounds=2) == [None, 2.0]  # a share pays for no mask yet
    assert spread(Even(), battery=Battery(4.0), fixed_j=1.0, rounds=2) == [1.0, 1.0]


def test_shares_count_on_expected_recharging_and_the_charge_decides():
    battery = Battery(2.0, 20.0)
    assert allowance(battery, start(battery), 0.0, 4, Even(), expected_j=4.0).mask_j == 1.5
    assert allowance(battery, start(battery), 0.0, 4, Even(), expected_j=400.0).mask_j == 2.0


def test_no_more_is_saved_than_there_is():
    battery = Battery(2.0, 20.0)
    for schedule in (Even(), Priced()):
        allowed = allowance(battery, start(battery), 5.0, 4, schedule, expected_j=400.0)
        assert allowed.skips
        assert spend(battery, start(battery), allowed, 0.0, 0.0).saved_j == 2.0


@pytest.mark.parametrize("schedule", [Even(), Early(), Late(), Priced()], ids=repr)
def test_with_an_unknown_number_of_rounds_the_battery_never_empties_and_spends_what_it_gains(schedule):
    battery = Battery(100.0, 200.0)
    share, pace = schedule.share(None), start(battery)
    assert 0 < share < 1
    for number in range(1, 1001):
        allowed = allowance(battery, pace, 0.0, None, schedule)
        pace = spend(battery, pace, allowed, 0.0, min(allowed.mask_j, allowed.share_j))
        assert pace.charge_j == pytest.approx(100.0 * (1 - share) ** number)
        assert pace.charge_j > 0
    assert allowance(battery, pace, 0.0, None, schedule).share_j < 1e-4
    for _ in range(1000):
        pace = recharge(battery, pace, 1.0)
        allowed = allowance(battery, pace, 0.0, None, schedule)
        last, pace = pace, spend(battery, pace, allowed, 0.0, min(allowed.mask_j, allowed.share_j))
    assert last.charge_j - pace.charge_j == pytest.approx(1.0, abs=1e-3)


@pytest.mark.parametrize("schedule", [Even(lookahead=2), Early(ratio=0.01), Priced(shape=Even(lookahead=2), most=50.0)])
def test_with_an_unknown_number_of_rounds_no_round_costs_more_than_half_of_what_is_left(schedule):
    battery = Battery(100.0, reserve_j=36.0)
    pace = replace(start(battery), price=1e-9, trials=KNOWN)
    for number in range(1, 40):
        allowed = allowance(battery, pace, 0.0, None, schedule)
        pace = spend(battery, pace, allowed, 0.0, allowed.mask_j)
        assert pace.charge_j - 36.0 == pytest.approx(64.0 * 0.5**number, rel=0.02)
    saved = allowance(battery, Pace(46.0, saved_j=5.0), 2.0, None, schedule)
    assert saved.share_j > 5.0
    assert saved.mask_j == 3.0  # although what is left pays for no other round like it
    skipped = allowance(battery, Pace(40.0), 2.5, None, schedule)  # more than half of the 4 J
    assert "the share is saved" in skipped.reason


# ---------------------------------------------------------------- prices


FOUR = Pace(100.0, price=4.0, trials=KNOWN)


def priced(left=100):
    return allowance(Battery(200.0), FOUR, 0.0, left, Priced())


def test_a_price_rises_where_a_round_costs_more_than_its_share_and_falls_where_less():
    allowed = priced()
    assert (allowed.share_j, allowed.mask_j, allowed.price, allowed.rate) == (1.0, 5.0, 4.0, 0.1)
    for took, factor in ((0.0, -0.1), (1.0, 0.0), (3.0, 0.2), (5.0, 0.4)):
        after = spend(Battery(200.0), FOUR, allowed, 0.0, took)
        assert after.price == pytest.approx(4.0 * math.exp(factor))


def test_the_shares_of_a_priced_run_are_those_of_its_plan():
    battery = Battery(100.0)
    pace = replace(start(battery), price=1.0, trials=KNOWN)
    for left, took in ((100, 5.0), (99, 0.0), (98, 2.0)):
        allowed = allowance(battery, pace, 0.0, left, Priced())
        assert allowed.share_j == pytest.approx(1.0)
        pace = spend(battery, pace, allowed, 0.0, took)
    assert allowance(battery, recharge(battery, pace, 4.85), 0.0, 97, Priced()).share_j == pytest.approx(1.05)


def test_a_priced_run_saves_its_shares_as_others_do():
    battery = Battery(10.5)
    pace = start(battery)
    for left in range(100, 81, -1):
        allowed = allowance(battery, pace, 1.0, left, Priced())
        assert allowed.share_j == pytest.approx(0.105 * (101 - left))
        assert allowed.skips
        pace = spend(battery, pace, allowed, 0.0, 0.0)
    assert allowance(battery, pace, 1.0, 81, Priced()).mask_j == pytest.approx(1.1)


def test_the_rate_is_that_of_the_rounds_of_the_run_and_at_most_one_over_most():
    pace = Pace(100.0, price=1.0, rounds=300, trials=KNOWN)
    assert allowance(Battery(100.0), pace, 0.0, 100, Priced()).rate == 0.05
    assert allowance(Battery(100.0), pace, 0.0, 100, Priced(rate=0.15)).rate == 0.15
    assert allowance(Battery(100.0), pace, 0.0, 100, Priced(rate=0.9)).rate == 0.2
    assert allowance(Battery(100.0), pace, 0.0, None, Priced()).rate == 0.2  # 1/sqrt(20) is more than 1/5


def test_a_price_is_only_an_offer_as_far_as_the_reserve():
    allowed = allowance(
        Battery(200.0, reserve_j=97.0), Pace(100.0, price=1e-9, spent_j=97.0, trials=KNOWN), 0.5, 5, Priced()
    )
    assert allowed.mask_j == 2.5
    empty = allowance(Battery(200.0, reserve_j=97.0), Pace(97.25, price=1e-9, trials=KNOWN), 0.5, 5, Priced())
    assert empty.mask_j == 0
    assert empty.reason.startswith("the battery holds 97.25 J, of which 97 J are the reserve")


def test_the_last_round_has_no_price_and_all_that_is_left():
    allowed = priced(left=1)
    assert allowed.price is None
    assert allowed.mask_j == 100.0


@pytest.mark.parametrize("worth", [None, 0.0, math.nan, math.inf, -1.0])
def test_until_a_client_knows_what_its_coordinates_are_worth_its_rounds_cost_their_share(worth):
    battery = Battery(100.0)
    pace = start(battery)
    for left in range(100, 2, -1):
        allowed = allowance(battery, pace, 0.0, left, Priced())
        assert (allowed.price, allowed.mask_j) == (None, pytest.approx(1.0))
        pace = spend(battery, pace, allowed, 0.0, allowed.mask_j, worth)
        assert pace.price is None


def test_the_price_begins_at_the_geometric_mean_of_its_trials():
    battery = Battery(100.0)
    pace = start(battery)
    for left, worth in ((100, 1.0), (99, 10.0), (98, None), (97, 100.0), (96, 1000.0), (95, 1e4)):
        allowed = allowance(battery, pace, 0.0, left, Priced())
        assert allowed.price is None
        pace = spend(battery, pace, allowed, 0.0, 0.5, worth)
    assert pace.trials == Priced().trials(100) == 5
    assert allowance(battery, pace, 0.0, 94, Priced()).price == pytest.approx(100.0)


def test_a_price_neither_vanishes_nor_overflows():
    battery = Battery(1e6, 1e6)
    for took, end in ((0.0, LEAST_PRICE), (math.inf, LARGEST_PRICE)):
        pace = replace(start(battery), price=math.sqrt(end), trials=KNOWN)
        for _ in range(1200):
            allowed = allowance(battery, pace, 0.0, 10**6, Priced(rate=1.0, most=3.0))
            pace = spend(battery, pace, allowed, 0.0, min(took, allowed.mask_j))
        assert pace.price == end
    huge = spend(battery, start(battery), allowance(battery, start(battery), 0.0, 9, Priced()), 0.0, 1.0, worth=1e308)
    assert huge.price == LARGEST_PRICE


def test_a_skipped_round_leaves_the_price_alone():
    pace = Pace(1.0, price=3.0, trials=KNOWN)
    allowed = allowance(Battery(1.0), pace, 2.0, 10, Priced())
    assert allowed.skips
    assert spend(Battery(1.0), pace, allowed, 0.0, 0.0).price == 3.0


# ---------------------------------------------------------------- regret


LENGTHS = (100, 400, 1600)


def test_regret_grows_with_the_root_of_the_rounds_and_that_of_even_rounds_with_their_number():
    runs = [many(stationary, Priced(), rounds, 8) for rounds in LENGTHS]
    even = [many(stationary, Even(), rounds, 8) for rounds in LENGTHS]
    for shorter, longer in pairwise(runs):
        assert longer.regret / shorter.regret < 2.5  # four times the rounds: sqrt is 2, linear is 4
        assert longer.regret > 0
    for shorter, longer in pairwise(even):
        assert longer.regret / shorter.regret > 3.2
    for found, beside, rounds in zip(runs, even, LENGTHS, strict=True):
        assert found.regret < 0.5 * beside.regret
        bound = regret_bound(Priced(), rounds, 1.0, MOST_WORTH * math.log(6), found.first_price)
        assert found.regret < bound
        assert found.left_j < 0.01 * rounds
    assert runs[-1].value > 0.96 * runs[-1].best


def test_the_bound_grows_with_the_root_of_the_rounds():
    found = [regret_bound(Priced(), rounds, 1.0, 1.0, 0.5) for rounds in (400, 1600, 6400, 25_600)]
    assert all(1.8 < longer / shorter < 2.0 for shorter, longer in pairwise(found))
    # By hand: T = 400, w = 10, r = 1/20, s = v = 1, p = 1/2, m = 5; D = log 2 - 1/2 = 0.193 is below p.
    assert found[0] == pytest.approx(11 + 20 * 0.5 + (math.e - 2) / 20 * (400 + 405))
    doubled = regret_bound(Priced(), 400, 2.0, 1.0, 0.25)  # half the price in twice the unit
    assert doubled == pytest.approx(found[0])


def test_price_control_fails_where_the_worth_of_a_round_changes_without_warning():
    runs = [many(late_worth, Priced(), rounds, 3) for rounds in LENGTHS]
    even = [many(late_worth, Even(), rounds, 3) for rounds in LENGTHS]
    assert all(each.value < 0.5 * each.best for each in runs)  # and more rounds do not mend it:
    assert all(longer.regret / shorter.regret > 3 for shorter, longer in pairwise(runs))
    assert runs[0].value < 0.9 * even[0].value  # early rounds look worth it, so less is left for the dear ones
    known = many(late_worth, Late(ratio=0.97), 100, 3)  # who knows better says so with a shape
    assert known.value > 1.4 * even[0].value


def test_a_priced_run_of_real_selections_is_near_one_knapsack_over_all_its_rounds():
    rng, rounds, n = np.random.default_rng(5), 400, 100
    updates = (rng.lognormal(0, 1, (rounds, 1)) * rng.laplace(size=(rounds, n))).astype(np.float32)
    prices = rng.choice([0.01, 0.1], n)
    budget_j = 0.1 * rounds * prices.sum()
    pooled = select(updates.reshape(-1), Costs.of(np.tile(prices, rounds)), CWMP(), Joules(budget_j))
    battery, values = Battery(budget_j), {}
    for schedule in (Even(), Priced()):
        pace, values[schedule] = start(battery), 0.0
        for number, update in enumerate(updates):
            allowed = allowance(battery, pace, 0.0, rounds - number, schedule)
            kept = select(update, Costs.of(prices), CWMP(), Price(allowed.price or 0.0))
            if allowed.price is None or kept.spent > allowed.mask_j:
                kept = select(update, Costs.of(prices), CWMP(), Joules(allowed.mask_j))
            worth = float((np.abs(kept.values) / prices[kept.indices]).min()) if kept.values.size else None
            pace = spend(battery, pace, allowed, 0.0, min(kept.spent, allowed.mask_j), worth)
            values[schedule] += float(np.abs(kept.values).sum())
    best = pooled.certificate.bound
    assert best >= values[Priced()] > 0.93 * best
    assert values[Even()] < 0.85 * best


# ---------------------------------------------------------------- wrong input


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"charge_j": -1.0}, "Battery(charge_j) is -1.0, expected finite joules of at least 0"),
        ({"charge_j": math.nan}, "Battery(charge_j) is nan, expected finite joules of at least 0"),
        ({"charge_j": 1.0, "capacity_j": math.inf}, "Battery(capacity_j) is inf, expected finite joules of at least 0"),
        (
            {"charge_j": 5.0, "capacity_j": 4.0},
            "Battery(charge_j) is 5 J, expected at most the capacity, 4 J; raise capacity_j or lower it",
        ),
        (
            {"charge_j": 5.0, "reserve_j": 6.0},
            "Battery(reserve_j) is 6 J, expected at most the capacity, 5 J; raise capacity_j or lower it",
        ),
    ],
)
def test_a_battery_that_cannot_be_is_refused(fields, words):
    with pytest.raises(PacingError) as refused:
        Battery(**fields)
    assert str(refused.value) == words
    with pytest.raises(msgspec.ValidationError, match="expected"):
        msgspec.convert(fields, Battery)


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: Even(least_mask=-1.0), r"Even\(least_mask\) must be at least 0, but is -1"),
        (lambda: Late(lookahead=1), r"Late\(lookahead\) must be a whole number of at least 2, but is 1"),
        (lambda: Early(ratio=1.0), r"Early\(ratio\) must be above 0 and below 1; Even\(\) is 1, but is 1"),
        (lambda: Late(ratio=0.0), r"Late\(ratio\) must be above 0 and below 1"),
        (lambda: Priced(rate=math.nan), r"Priced\(rate\) must be above 0 and at most 1"),
        (lambda: Priced(most=2.0), r"Priced\(most\) must be finite and at least 3, but is 2"),
        (lambda: Even().share(0), "rounds_left must be a whole number of at least 1"),
        (lambda: allowance(Battery(1.0), Pace(1.0), math.inf, 3, Even()), "fixed_j is inf, expected finite joules"),
        (lambda: allowance(Battery(1.0), Pace(1.0), 0, 3, Even(), expected_j=-1), "expected_j is -1, expected finite"),
        (lambda: recharge(Battery(1.0), Pace(1.0), -0.5), "joules is -0.5, expected finite"),
        (lambda: regret_bound(Priced(), 100, 0.0, 1.0, 1.0), "share_j must be finite and above 0, but is 0"),
    ],
)
def test_numbers_out_of_range_are_refused(make, words):
    with pytest.raises(PacingError, match=words):
        make()


def test_a_round_that_took_more_than_it_was_allowed_is_refused():
    battery = Battery(10.0, reserve_j=2.0)
    allowed = allowance(battery, start(battery), 0.5, 4, Even())
    with pytest.raises(PacingError, match=r"mask_j is 2.0 J, but the round was allowed 1.5 J; select with Joules"):
        spend(battery, start(battery), allowed, 0.5, 2.0)
    with pytest.raises(PacingError, match="which leaves less than the reserve, 2 J; give `allowance`"):
        spend(battery, start(battery), allowed, 7.0, 1.5)
    skipped = allowance(battery, Pace(2.0), 0.5, 4, Even())
    with pytest.raises(PacingError, match=r"the round took 0\.5 J, but was to be skipped: the battery holds 2 J"):
        spend(battery, Pace(2.0), skipped, 0.5, 0.0)


def test_batteries_and_schedules_are_read_from_toml():
    text = """
    battery = { charge_j = 50.0, reserve_j = 5.0 }
    schedule = { name = "Priced", most = 5.0, shape = { name = "Late", ratio = 0.8 } }
    """
    tables = msgspec.toml.decode(text)
    assert msgspec.convert(tables["battery"], Battery) == Battery(50.0, reserve_j=5.0)
    assert msgspec.convert(tables["schedule"], schedules.Schedule) == Priced(shape=Late(ratio=0.8), most=5.0)
    with pytest.raises(msgspec.ValidationError, match="unknown field `charge`"):
        msgspec.convert({"charge": 50.0, "charge_j": 1.0}, Battery)
