"""What a selection promises: certificates against exact optima, contraction, and the variance of random rules."""

import math
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from knapsack_cases import ROUNDED, SORTS, check, instance
from reference import per_coordinate
from strategies import SEEDS, cases, costs_of, is_unbiased, name_of, update_of

from joulewise.certificate import Certificate, guaranteed_delta
from joulewise.costs import Costs
from joulewise.errors import RuleError
from joulewise.layout import Layout
from joulewise.quanta import quanta
from joulewise.rules import CWMP, Count, Density, Joules, MinVariance, Projection, RandomK, TopK
from joulewise.select import select
from joulewise.theory import half_approximation

some = settings(max_examples=30, deadline=None)
SEVERAL = 400


# ---------------------------------------------------------------- certificates


def test_no_certificate_of_hundreds_of_small_knapsacks_promises_too_much():
    found = [check(seed) for seed in range(SEVERAL)]
    worst = {name: min(getattr(each, name) for each in found) for name in ("prefix", "filled", "half")}
    assert worst["prefix"] < 0.1  # greedy alone can be as bad as one likes: sort 3 of the instances
    assert 0.5 <= worst["half"] < 0.95
    assert 0.9 < max(each.used for each in found) <= 1  # a gap smaller by a tenth would be one too small


def test_the_instances_are_of_all_sorts_and_keep_some_but_not_all():
    kept = [
        select(a, costs, rule, Joules(room)).indices.size / a.size
        for a, costs, rule, room in map(instance, range(SEVERAL))
    ]
    assert sum(0 < each < 1 for each in kept) > 0.5 * SEVERAL
    assert {(seed % SORTS, type(instance(seed)[2])) for seed in range(SEVERAL)} == {
        (sort, rule) for sort in range(SORTS) for rule in (CWMP, Projection)
    }


def test_some_prefixes_end_earlier_because_prices_are_rounded():
    drawn = [instance(seed) for seed in range(ROUNDED, SEVERAL, SORTS)]
    left = [room - prices[select(a, prices, rule, Joules(room)).indices].sum() for a, prices, rule, room in drawn]
    assert sum(each > 0.05 for each in left) > 0.2 * len(drawn)  # the budget is what a prefix costs, in tenths


def test_the_gap_is_that_of_the_prefix_and_not_of_what_fill_leaves():
    # The prefix keeps 2 of 4 and leaves 2, worth (2/3) * 3; fill then keeps 1 for 1, and what is left is worth less.
    a, costs = np.array([4, 3, 0.5], np.float32), np.array([2.0, 3.0, 1.0])
    kept = select(a, costs, CWMP(), Joules(4.0, fill=True))
    assert kept.indices.tolist() == [0, 2]
    assert kept.certificate == Certificate(4.5, 6.0)


def test_the_ratio_of_a_certificate_is_value_over_bound():
    assert Certificate(3.0, 4.0).ratio == 0.75
    assert Certificate(0.0, 0.0).ratio == 1.0


@pytest.mark.filterwarnings("ignore:the largest price is")
@pytest.mark.parametrize(
    ("entries", "prices", "room", "bound"),
    [
        ([2e38, 1e38], [1e-270, 1e-270], 1.5e-270, 4.5e76),  # a^2/c is beyond float64, and so is the bound's slope
        ([2e38, 1e38], [1e-270, 1e-270], 1e-270, 4e76),  # nothing is left, so infinity times nothing
        ([2e-30, 2e-30], [1e290, 1e290], 1.5e290, 6e-60),  # a^2/c is below float64: a slope of 0 would bound nothing
        ([2e38, 2e38], [1e270, 1.0], 1e251, 8e76),  # a price so far below the quantum that it does not fit
    ],
)
def test_a_bound_is_one_where_value_per_joule_is_no_float64(entries, prices, room, bound):
    kept = select(np.float32(entries), np.array(prices), Projection(), Joules(room))
    assert kept.certificate.bound == pytest.approx(bound, rel=1e-6, abs=0)
    assert kept.certificate.value <= kept.certificate.bound


@pytest.mark.parametrize("big", [10, 100, 1000, 10_000])
def test_the_l2_share_of_cwmp_falls_to_zero_where_that_of_projection_goes_to_one(big):
    a = np.array([big] + [1] * (4 * big), np.float32)
    costs = np.array([2.0 * big] + [1.0] * (4 * big))
    cwmp, projection = (select(a, costs, rule, Joules(3.0 * big)) for rule in (CWMP(), Projection()))
    assert cwmp.delta == pytest.approx(3 / (big + 4), rel=1e-5)
    assert cwmp.guaranteed_delta is None
    assert projection.delta > projection.guaranteed_delta
    assert projection.delta == pytest.approx((big + 1) / (big + 4), rel=1e-5)


# ---------------------------------------------------------------- the half


@pytest.mark.parametrize("rule", [CWMP(), Projection()], ids=name_of)
@some
@given(seed=SEEDS, share=st.floats(0, 1.2), fill=st.booleans())
def test_the_better_of_prefix_and_best_item_holds_half_of_what_no_selection_exceeds(rule, seed, share, fill):
    a, costs = update_of("real", seed, 12), costs_of(Layout.single(12), "wide", True, seed)
    budget = Joules(share * float(costs.per_kept.sum()), fill=fill)
    kept = half_approximation(a, costs, rule, budget)
    greedy = select(a, costs, rule, budget)
    assert kept.certificate.ratio >= 0.5 - 1e-12
    assert kept.certificate.value >= greedy.certificate.value * (1 - 1e-12)
    assert kept.certificate.bound <= greedy.certificate.bound * (1 + 1e-12)
    assert kept.spent <= budget.budget
    assert kept.values.tolist() == a[kept.indices].tolist()
    lost = float(np.square(a.astype(float) - kept.dense()).sum() / np.square(a.astype(float)).sum())
    assert kept.delta == pytest.approx(1 - lost, abs=1e-6)


def test_the_half_is_for_rules_and_budgets_with_a_value_per_joule():
    for rule, budget in ((TopK(), Joules(1.0)), (CWMP(), Count(1))):
        with pytest.raises(RuleError, match="expected CWMP or Projection with Joules"):
            half_approximation(np.ones(2, np.float32), np.ones(2), rule, budget)
    empty = half_approximation(np.zeros(0, np.float32), Costs.of(1.0, Layout.single(0)), CWMP(), Joules(1.0))
    assert empty.indices.size == 0


# ---------------------------------------------------------------- contraction


@settings(max_examples=80, deadline=None)
@given(cases([(Projection(), Joules), (TopK(), Count), (TopK(), Density)]))
def test_what_is_promised_is_achieved(case):
    kept = select(case.a, case.costs, case.rule, case.budget)
    assume(case.a.any() and kept.guaranteed_delta is not None)
    assert 0 <= kept.guaranteed_delta <= kept.delta + 1e-5  # sums of squares of float32 numbers


@some
@given(cases([(Projection(), Joules)]))
def test_the_promise_of_projection_is_beta_less_one_item_and_the_quanta(case):
    budget = Joules(case.budget.budget)
    kept = select(case.a, case.costs, case.rule, budget)
    prices = per_coordinate(case.costs)
    assume(prices and kept.indices.size < np.count_nonzero(case.a))
    total = math.fsum(prices)
    beta = min(1.0, budget.budget / total)
    assert kept.guaranteed_delta == pytest.approx(max(0.0, beta - max(prices) / total), rel=1e-9, abs=1e-9)


def test_the_promise_is_nearly_met_by_an_update_that_is_made_to():
    # Energies in proportion to squares: a greedy prefix keeps exactly what it pays for.
    costs = np.arange(1.0, 101.0)
    kept = select(np.sqrt(costs).astype(np.float32), costs, Projection(), Joules(0.5 * costs.sum()))
    assert kept.guaranteed_delta == pytest.approx(0.5 - 100 / costs.sum(), rel=1e-9)
    assert kept.delta - kept.guaranteed_delta <= 100 / costs.sum()


@given(cases())
@some
def test_only_rules_with_a_theorem_promise_a_delta_and_only_unbiased_ones_a_variance(case):
    kept = select(case.a, case.costs, case.rule, case.budget, case.rng())
    promises = {(TopK, Count), (TopK, Density), (Projection, Joules)}
    if kept.guaranteed_delta is not None:
        assert (type(case.rule), type(case.budget)) in promises
    assert kept.variance is None or is_unbiased(case.rule)


def test_the_promise_can_be_asked_for_before_there_is_an_update():
    costs = Costs.of(np.array([1.0, 2.0, 5.0]))
    assert guaranteed_delta(costs, TopK(), Count(2), None) == pytest.approx(2 / 3)
    assert guaranteed_delta(costs, Projection(), Joules(7.0), None) == pytest.approx(7 / 8 - 5 / 8)
    assert guaranteed_delta(costs, CWMP(), Joules(7.0), None) is None


@pytest.mark.parametrize("per_tensor", [False, True])
def test_a_budget_that_buys_everything_promises_everything_and_a_little_less_does_not(per_tensor):
    layout = Layout.of({"a": np.ones(3), "b": np.ones(2)})
    prices = {"a": 0.1, "b": 1000.0}  # of which the exact sums round the small one up
    costs = Costs.of(prices if per_tensor else np.repeat([0.1, 1000.0], [3, 2]), layout)
    units, quantum = quanta(costs.per_kept, layout.n)
    enough = math.nextafter(quantum * float(layout.sizes @ units if per_tensor else units.sum()), math.inf)
    a = np.ones(layout.n, np.float32)
    for budget, everything in ((Joules(enough), True), (Joules(enough - quantum * 2**10), False)):
        kept = select(a, costs, Projection(), budget)
        told = guaranteed_delta(costs, Projection(), budget, None)
        assert (kept.indices.size == layout.n, kept.guaranteed_delta == 1.0, told == 1.0) == (everything,) * 3
        assert told == pytest.approx(kept.guaranteed_delta, abs=1e-12)


# ---------------------------------------------------------------- variance


@pytest.mark.parametrize("budget", [Count(40), Joules(55.0)], ids=repr)
@pytest.mark.parametrize("rule", [MinVariance(), RandomK(scale=True)], ids=name_of)
def test_the_variance_that_is_told_is_that_of_many_draws(rule, budget):
    a = update_of("real", 5, 120)
    costs = Costs.of(np.where(np.arange(120) % 2, 1.0, 3.0) if rule == MinVariance() else np.ones(120))
    draws = [select(a, costs, rule, budget, np.random.default_rng([7, each])) for each in range(1200)]
    told = draws[0].variance
    assert all(each.variance == told for each in draws[:5])
    whole = float(np.square(a.astype(float)).sum())
    lost = np.array([float(np.square(each.dense().astype(float) - a).sum()) / whole for each in draws])
    # Six standard errors of the mean: 2e-9 for a normal variable, at four fixed cases.
    assert abs(lost.mean() - told) <= 6 * lost.std() / math.sqrt(lost.size)
    assert told > 0.05


def test_nothing_sent_has_the_variance_of_the_whole_and_everything_none():
    a, costs = np.ones(5, np.float32), np.ones(5)
    for rule in (MinVariance(), RandomK(scale=True)):
        assert select(a, costs, rule, Count(0), np.random.default_rng(0)).variance == 1.0
        assert select(a, costs, rule, Count(5), np.random.default_rng(0)).variance == 0.0


def test_an_item_that_takes_the_whole_budget_is_affordable_whatever_the_others_cost():
    kept = half_approximation(np.float32([1, 0.5]), np.array([0.1, 1000.0]), CWMP(), Joules(0.1))
    assert kept.certificate.bound >= 1.0  # {0} is a selection.


@pytest.mark.filterwarnings("ignore:the largest price is")
def test_what_nobody_can_afford_does_not_make_the_sums_coarse():
    costs = np.full(2000, 1.0001)
    costs[0] = 3e16
    kept = half_approximation(np.ones(2000, np.float32), costs, CWMP(), Joules(1000.2))
    assert kept.certificate.ratio >= 0.5
    assert kept.indices.size >= 999


def test_nothing_kept_contracts_nothing():
    costs = replace(Costs.of(np.array([1.0, 2.0])), fixed=5.0)
    kept = half_approximation(np.float32([1, 2]), costs, CWMP(), Joules(1.0, includes_fixed=True))
    assert (kept.indices.size, kept.delta) == (0, 0.0)
