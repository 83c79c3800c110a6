"""The laws of selection, for every legal rule and budget, against exact arithmetic and a slow reference."""

import math
from collections import Counter
from dataclasses import replace
from fractions import Fraction

import msgspec
import numpy as np
import pytest
import reference
from hypothesis import HealthCheck, assume, example, given, reject, settings
from hypothesis import strategies as st
from strategies import (
    DETERMINISTIC,
    PAIRS,
    RANKED_PAIRS,
    SEEDS,
    UPDATES,
    Case,
    bits_of,
    cases,
    costs_for,
    costs_of,
    is_unbiased,
    knapsacks,
    layout_of,
    layouts,
    name_of,
    per_coordinate,
    update_of,
    variants,
)

from joulewise import bracket, kernel, prefix
from joulewise.costs import Costs
from joulewise.errors import CostError, RuleError, UpdateError
from joulewise.layout import Layout
from joulewise.ranking import NotFinite, Ranking
from joulewise.rules import (
    BUDGETS,
    CWMP,
    LEGAL,
    RULES,
    Bytes,
    Count,
    Dense,
    Density,
    Joules,
    LayerwiseTopK,
    MinVariance,
    Price,
    Projection,
    RandomK,
    Threshold,
    TopK,
)
from joulewise.select import Selection, limit_of, rank, select

THRESHOLDS = (Price, Threshold)
"""Budgets that no sum limits: how much is kept is what it comes to."""

few = settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.filter_too_much])
some = settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.filter_too_much])
many = settings(max_examples=200, deadline=None)
every_pair = pytest.mark.parametrize("pair", PAIRS, ids=lambda pair: "-".join(map(name_of, pair)))


def selected(case: Case) -> Selection:
    try:
        return select(case.a, case.costs, case.rule, case.budget, case.rng())
    except UpdateError as error:
        # The one update that scaling may refuse: it would send more than float32 holds.
        if not is_unbiased(case.rule) or "more than float32 holds" not in str(error) or np.abs(case.a).max() < 1e30:
            raise
        return reject()


def room_of(case: Case) -> Fraction:
    """What a budget in joules leaves for kept coordinates."""
    return Fraction(case.budget.budget - (case.costs.fixed if case.budget.includes_fixed else 0.0))


def same(one: Selection, other: Selection) -> bool:
    return one.indices.tobytes() == other.indices.tobytes() and one.values.tobytes() == other.values.tobytes()


# ---------------------------------------------------------------- what is drawn


def test_at_least_half_of_the_cases_keep_some_but_not_all():
    seen = Counter()

    @settings(max_examples=250, deadline=None, database=None, derandomize=True)
    @given(cases([pair for pair in PAIRS if pair[0] != Dense()]))
    def count(case):
        try:
            kept = select(case.a, case.costs, case.rule, case.budget, case.rng()).indices.size
        except UpdateError:
            return
        everything = np.count_nonzero(case.a)
        seen["none" if kept == 0 else "all" if kept == everything else "some"] += 1

    count()
    assert seen["some"] >= 0.5 * seen.total(), seen
    assert min(seen["none"], seen["all"]) > 0, seen


def test_every_sort_of_update_is_what_its_name_says():
    made = {kind: update_of(kind, 7, 400) for kind in UPDATES}
    assert np.unique(made["all equal"]).size == 1
    assert not made["zeros"].any()
    assert np.signbit(made["negative zeros"][made["negative zeros"] == 0]).any()
    assert 0 < np.abs(made["denormals"]).max() < np.finfo(np.float32).tiny
    assert np.count_nonzero(made["spike"] > 1e38) == 1
    assert np.unique(made["duplicates"]).size < 200
    assert 0.8 < np.mean(made["sparse"] == 0) < 1


# ---------------------------------------------------------------- the legal table


TABLE = """
                  Count  Density  Joules  Bytes  Price  Threshold
    Dense           -       -       -       -      -       -
    TopK            x       x       x       x      -       x
    CWMP            x       x       x       x      x       -
    Projection      x       x       x       x      x       -
    MinVariance     x       x       x       -      -       -
    RandomK         x       x       x       x      -       -
    LayerwiseTopK   x       x       x       x      -       -
"""


def test_the_legal_pairs_are_those_of_the_table():
    header, *rows = [line.split() for line in TABLE.strip().splitlines()]
    said = {row[0]: {name for name, mark in zip(header, row[1:], strict=True) if mark == "x"} for row in rows}
    assert said == {rule.__name__: {budget.__name__ for budget in LEGAL[rule]} for rule in RULES}
    assert header == [budget.__name__ for budget in BUDGETS]
    assert set(LEGAL) == set(RULES)


SAMPLE_BUDGETS = {
    Count: Count(2),
    Density: Density(0.5),
    Joules: Joules(2.0),
    Bytes: Bytes(9),
    Price: Price(0.5),
    Threshold: Threshold(0.5),
}


@pytest.mark.parametrize("budget_type", [*BUDGETS, type(None)], ids=name_of)
@pytest.mark.parametrize("rule", [rule for kind in RULES for rule in variants(kind)], ids=name_of)
def test_every_other_pair_is_an_error_that_names_both(rule, budget_type):
    a, costs = np.ones(4, np.float32), np.ones(4)
    budget = SAMPLE_BUDGETS.get(budget_type)
    legal = budget_type in LEGAL[type(rule)] or (budget is None and not LEGAL[type(rule)])
    if legal:
        assert select(a, costs, rule, budget, np.random.default_rng(0)).n == 4
        return
    with pytest.raises(RuleError) as caught:
        select(a, costs, rule, budget, np.random.default_rng(0))
    assert isinstance(caught.value, ValueError)
    assert type(rule).__name__ in str(caught.value)
    assert budget is None or budget_type.__name__ in str(caught.value)


# ---------------------------------------------------------------- the reference


@pytest.mark.parametrize("pair", RANKED_PAIRS, ids=lambda pair: "-".join(map(name_of, pair)))
@few
@given(data=st.data())
def test_a_selection_is_what_the_slow_reference_gives(pair, data):
    case = data.draw(cases([pair]))
    chosen = reference.choose(case.a, case.costs, case.rule, case.budget, case.key)
    kept = selected(case)
    assert kept.n == case.a.size
    assert kept.indices.dtype == np.uint32
    assert kept.values.dtype == np.float32
    assert kept.indices.tolist() == chosen.indices
    if is_unbiased(case.rule):
        scale = np.count_nonzero(case.a) / max(1, kept.indices.size)
        assert kept.values.tobytes() == (case.a[kept.indices] * scale).astype(np.float32).tobytes()
    else:
        assert kept.values.tobytes() == case.a[kept.indices].tobytes()
    if isinstance(case.budget, Joules):
        assert kept.spent == pytest.approx(float(chosen.spent), rel=1e-15)
    else:
        assert kept.spent == pytest.approx(float(reference.energy(case.costs, chosen.indices)), rel=1e-12)


@some
@given(cases([pair for pair in RANKED_PAIRS if pair[1] not in THRESHOLDS]), st.booleans())
def test_prefix_misfit_and_spending_are_exact(case, tiny_sample):
    chosen = reference.choose(case.a, case.costs, case.rule, case.budget, case.key)
    assume(chosen.prefix is not None)
    units, limit, quantum = limit_of(case.budget, case.costs)
    key = case.key if case.rule.random else None
    with pytest.MonkeyPatch.context() as patch:
        if tiny_sample:  # The paths of long vectors, on short ones.
            patch.setattr(bracket, "SAMPLES", 16)
            patch.setattr(prefix, "SORTABLE", 4)
        found = prefix.longest_prefix(rank(case.a, case.costs, case.rule, key), units, limit)
    assert found.indices.tolist() == chosen.prefix.indices
    assert found.spent == chosen.prefix.spent
    assert found.misfit == chosen.prefix.misfit
    room = reference.limited(case.costs, per_coordinate(case.costs), bits_of(case.costs), case.budget)
    assert (limit, Fraction(quantum)) == (room.limit, room.quantum)


WRONG = st.sampled_from([prefix.SMALLEST, 1e-300, 1e-9, 1e-4, 1e-3, 0.01, 0.5, 1.0, 1e38, math.inf])


@some
@given(cases(RANKED_PAIRS, largest=60), WRONG, WRONG, st.booleans())
def test_a_wrong_bracket_never_changes_the_result(case, lo, hi, both):
    right = selected(case)
    asked = []

    def wrong(*_):
        asked.append(1)
        return lo, hi

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(kernel, "library", lambda: None)  # The kernel makes brackets of its own.
        patch.setattr(bracket, "SAMPLES", 4)
        patch.setattr(bracket, "sampled_bracket", wrong)
        if both:
            patch.setattr(bracket, "full_bracket", wrong)
        again = selected(case)
    assert asked or case.a.size <= 8 or isinstance(case.budget, THRESHOLDS) or limit_of(case.budget, case.costs)[1] < 0
    assert same(right, again)
    assert (right.spent, right.certificate, right.delta) == (again.spent, again.certificate, again.delta)


LARGE = 2 * bracket.SAMPLES + 9001


def large_case(kind: str, rule, budget, per_entry: bool = False) -> Case:
    layout = layout_of([LARGE - 40_000, 39_000, 17, 983], ["conv{}.weight", "fc{}.weight", "norm{}.bias"] * 2)
    costs = costs_of(layout, "wide" if kind == "real" else "whole", per_entry, 3)
    return Case(update_of(kind, 11, LARGE), replace(costs, fixed=0.0), rule, budget, 5)


LONG = [(kind, False) for kind in UPDATES] + [(kind, True) for kind in ("real", "duplicates", "all equal")]


@pytest.mark.parametrize(("kind", "per_entry"), LONG)
def test_long_vectors_go_through_the_sample_and_agree_with_one_big_sort(kind, per_entry):
    rng = np.random.default_rng(1)
    for rule in (TopK(), CWMP(), Projection(), RandomK()):
        case = large_case(kind, rule, None, per_entry)
        prices = np.array(per_coordinate(case.costs))
        scores = np.array(reference.scores_of(case.a, prices.tolist(), rule, case.key))
        some_share = float(rng.uniform(0.01, 0.6))
        for budget in (Count(int(some_share * LARGE)), Joules(some_share * float(prices.sum())), Count(3)):
            units, limit, _ = limit_of(budget, case.costs)
            spread = np.repeat(units, case.layout.sizes) if units.size != LARGE else units
            indices, misfit = reference.large_prefix(scores, spread, limit)
            found = prefix.longest_prefix(
                rank(case.a, case.costs, rule, case.key if rule.random else None), units, limit
            )
            assert np.array_equal(found.indices, indices), (rule, budget)
            assert found.misfit == misfit
            assert found.values.tobytes() == case.a[indices].tobytes()
            assert found.spent == int(spread[indices].sum())


@pytest.mark.parametrize(
    "interval", [(1e-3, 1e-2), (1e-30, 1e-20), (1.0, math.inf), (math.inf, math.inf), (5e-4, 1e-5)]
)
def test_long_vectors_survive_wrong_intervals(monkeypatch, interval):
    monkeypatch.setattr(kernel, "library", lambda: None)
    case = large_case("real", CWMP(), None)
    case = replace(case, budget=Joules(0.02 * math.fsum(per_coordinate(case.costs))))
    right = select(case.a, case.costs, case.rule, case.budget)
    assert 0 < right.indices.size < LARGE
    monkeypatch.setattr(bracket, "sampled_bracket", lambda *_: interval)
    assert same(right, select(case.a, case.costs, case.rule, case.budget))
    monkeypatch.setattr(bracket, "full_bracket", lambda *_: interval)
    assert same(right, select(case.a, case.costs, case.rule, case.budget))


@pytest.mark.parametrize("kind", ["real", "duplicates", "spike"])
def test_the_sampled_interval_and_the_full_one_hold_the_threshold(kind):
    case = large_case(kind, CWMP(), None)
    ranking = rank(case.a, case.costs, case.rule)
    units, limit, _ = limit_of(Count(LARGE // 50), case.costs)
    found = prefix.longest_prefix(ranking, units, limit)
    threshold = float(ranking.scores_at(np.array([found.misfit], np.int64))[0])
    for lo, hi in (
        bracket.sampled_bracket(ranking, units, limit),
        bracket.full_bracket(ranking, units, limit),
    ):
        assert lo <= threshold < hi
        assert lo > prefix.SMALLEST
        assert hi < math.inf


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 40), st.integers(1, 3000), SEEDS, st.booleans())
def test_a_cut_is_the_longest_prefix_of_the_sorted_scores(sortable, n, seed, tied):
    rng = np.random.default_rng(seed)
    scores = rng.choice([1.0, 2.0, 3.0], n) if tied else rng.lognormal(sigma=rng.choice([1, 30]), size=n)
    units = rng.integers(1, rng.choice([2, 1000, 2**40]), n)
    room = int(rng.integers(0, int(units.sum()) + 2))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(prefix, "SORTABLE", sortable)
        kept, misfit = prefix.cut(scores, units, room)
    indices, expected = reference.large_prefix(scores, units, room)
    assert np.array_equal(np.flatnonzero(kept), indices)
    assert misfit == expected


# ---------------------------------------------------------------- 1: within budget


@every_pair
@few
@given(data=st.data())
def test_law_1_what_is_spent_is_within_the_budget_in_exact_sums(pair, data):
    case = data.draw(cases([pair]))
    kept, budget = selected(case), case.budget
    if isinstance(case.rule, MinVariance):
        return  # In expectation: see test_random_rules.
    indices = kept.indices.tolist()
    match budget:
        case Joules():
            assert not indices or reference.energy(case.costs, indices) <= room_of(case)
            assert not indices or Fraction(kept.spent) <= room_of(case)
            # `spent` itself is rounded to the nearest float64.
            assert Fraction(kept.spent) * (1 + Fraction(1, 2**52)) >= reference.energy(case.costs, indices)
        case Bytes():
            bits = bits_of(case.costs)
            assert sum(Fraction(bits[i]) for i in indices) <= 8 * budget.n
        case Count():
            assert len(indices) <= budget.k
        case Density():
            assert len(indices) <= budget.fraction * case.a.size + 1e-9


# ---------------------------------------------------------------- 3, 4, 5


UNEQUAL_AT_EQUAL_COSTS = {
    Dense: "takes no budget",
    LayerwiseTopK: "ranks within tensors: between them neither magnitude nor price counts, whatever the prices",
}
"""Why a deterministic rule need not agree with TopK where all prices are equal."""


@some
@given(st.data(), layouts(), SEEDS, st.booleans())
def test_law_3_at_equal_costs_the_rules_agree(data, layout, seed, per_entry):
    costs = replace(costs_of(layout, "equal", per_entry, seed), bits_per_kept=np.full(len(layout.tensors), 37.5))
    drawn = data.draw(cases([(rule, kind) for rule, kind in RANKED_PAIRS if rule == TopK() and kind is not Threshold]))
    a = update_of(data.draw(st.sampled_from(list(UPDATES))), seed, layout.n)
    budget = drawn.budget
    if isinstance(budget, Joules):
        share = data.draw(st.floats(0, 1))
        budget = Joules(share * layout.n * float(costs.per_kept.max(initial=0.0)), fill=budget.fill)
    kept = [select(a, costs, rule, budget) for rule in DETERMINISTIC if type(rule) not in UNEQUAL_AT_EQUAL_COSTS]
    assert len(kept) >= 3
    assert all(same(kept[0], other) for other in kept[1:])


@every_pair
@few
@given(data=st.data(), power=st.integers(-9, 9))
def test_law_4_prices_and_budget_times_a_power_of_four_change_nothing(pair, data, power):
    case = data.draw(cases([pair]))
    factor, budget = 4.0**power, case.budget
    costs = replace(case.costs, per_kept=case.costs.per_kept * factor, fixed=case.costs.fixed * factor)
    if isinstance(budget, Joules):
        budget = msgspec.structs.replace(budget, budget=budget.budget * factor)
    if isinstance(budget, Price):
        budget = Price(budget.value / factor)
    kept, scaled = selected(case), selected(replace(case, costs=costs, budget=budget))
    assert same(kept, scaled)
    assert scaled.spent == kept.spent * factor
    assert scaled.delta == kept.delta


@some
@given(cases([pair for pair in PAIRS if not pair[0].random]), SEEDS)
def test_law_5_permuting_tensors_permutes_the_result(case, seed):
    if not isinstance(case.rule, Dense):
        sizes = case.layout.sizes.tolist()
        scores = reference.scores_of(case.a, per_coordinate(case.costs), case.rule, None, sizes)
        positive = [score for score in scores if score > 0]
        assume(len(set(positive)) == len(positive))  # Up to ties.
    order = np.random.default_rng(seed).permutation(len(case.layout.tensors))
    moved = np.concatenate([np.arange(*case.layout.offsets[g : g + 2]) for g in order]).astype(np.int64)
    layout = Layout(tuple(case.layout.tensors[g] for g in order))
    costs = Costs(
        layout,
        case.costs.unit,
        case.costs.per_kept[moved if case.costs.per_coordinate else order],
        case.costs.bits_per_kept[order],
        case.costs.per_bit[order],
        case.costs.fixed,
        (),
        "given",
    )
    kept = selected(case)
    permuted = select(case.a[moved], costs, case.rule, case.budget)
    assert np.array_equal(permuted.dense(), kept.dense()[moved])
    assert set(moved[permuted.indices].tolist()) == set(kept.indices.tolist())


# ---------------------------------------------------------------- 6: certificate


@many
@given(knapsacks())
def test_law_6_the_exact_optimum_lies_between_kept_value_and_bound(case):
    norm = case.rule.norm
    kept = selected(case)
    values = [round(abs(float(value)) * 8) ** norm for value in case.a]
    weights = [int(4 * cost) for cost in per_coordinate(case.costs)]
    best = Fraction(reference.optimum(values, weights, int(4 * case.budget.budget)), 8**norm)
    slack = Fraction(1, 10**12) * (1 + best)
    assert Fraction(kept.certificate.value) <= best + slack
    assert best <= Fraction(kept.certificate.bound) + slack
    assert kept.certificate.gap >= 0
    largest = max((Fraction(v, 8**norm) for v in values), default=Fraction(0))
    assert case.budget.fill or best - Fraction(kept.certificate.value) <= largest + slack


@some
@given(cases([(CWMP(), Joules), (Projection(), Joules)]))
def test_the_certificate_is_that_of_exact_fractions(case):
    kept = selected(case)
    chosen = reference.choose(case.a, case.costs, case.rule, case.budget, None)
    if chosen.prefix is None:
        return
    value, bound = reference.certificate(case.a, case.costs, case.rule.norm, room_of(case), chosen)
    assert kept.certificate.value == pytest.approx(float(value), rel=1e-12)
    assert kept.certificate.bound == pytest.approx(float(max(value, bound)), rel=1e-9)


@some
@given(cases())
def test_only_energy_ranked_rules_under_joules_have_a_certificate(case):
    has = isinstance(case.rule, CWMP | Projection) and isinstance(case.budget, Joules)
    kept = selected(case)
    if has and limit_of(case.budget, case.costs)[1] < 0:
        return
    assert (kept.certificate is not None) == has


# ---------------------------------------------------------------- 7: nesting


@some
@given(cases(RANKED_PAIRS), st.floats(0, 1))
def test_law_7_more_budget_never_keeps_less(case, part):
    match case.budget:
        case Count(k):
            less, more = Count(int(part * k)), case.budget
        case Density(fraction):
            less, more = Density(part * fraction), case.budget
        case Joules(budget):
            less, more = Joules(part * budget), Joules(budget)
        case Bytes(n):
            less, more = Bytes(int(part * n)), Bytes(n)
        case Price(value) | Threshold(value):
            less, more = case.budget, type(case.budget)(part * value)
    small, large = selected(replace(case, budget=less)), selected(replace(case, budget=more))
    assert set(small.indices.tolist()) <= set(large.indices.tolist())
    if not is_unbiased(case.rule):
        assert small.delta <= large.delta + 1e-12


# ---------------------------------------------------------------- 8: empty and full


NOTHING = {
    Count: Count(0),
    Density: Density(0.0),
    Joules: Joules(0.0),
    Bytes: Bytes(0),
    Price: Price(1.7e308),
    Threshold: Threshold(1.7e308),
}
EVERYTHING = {
    Count: Count(10**9),
    Density: Density(1.0),
    Joules: Joules(1e300),
    Bytes: Bytes(10**12),
    Price: Price(0.0),
    Threshold: Threshold(0.0),
    type(None): None,
}


@every_pair
@few
@given(data=st.data())
def test_law_8_empty_and_full_selections_are_legal(pair, data):
    rule, kind = pair
    case = data.draw(cases([pair]))
    if kind in NOTHING:
        empty = selected(replace(case, budget=NOTHING[kind]))
        assert empty.indices.size == 0
        assert empty.spent == 0
        assert empty.delta == (0.0 if case.a.any() else 1.0)
        assert not empty.dense().any()
    full = selected(replace(case, budget=EVERYTHING[kind]))
    assert np.array_equal(full.dense(), case.a)
    assert full.delta == pytest.approx(1.0, rel=1e-5)
    if not isinstance(rule, Dense):
        assert np.array_equal(full.indices, np.flatnonzero(case.a))


@every_pair
@pytest.mark.parametrize("sizes", [[0], [0, 0, 0], [1], [0, 1, 0]])
def test_law_8_models_of_nothing_and_of_one_number_can_be_selected_from(pair, sizes):
    rule, kind = pair
    layout = layout_of(sizes, ["norm{}.bias"] * len(sizes))
    a = np.full(layout.n, 2.0, np.float32)
    for budgets in (NOTHING, EVERYTHING):
        if kind in budgets:
            kept = select(a, Costs.of(1.0, layout), rule, budgets[kind], np.random.default_rng(0))
            assert kept.indices.size == (a.size if budgets is EVERYTHING or isinstance(rule, Dense) else 0)


# ---------------------------------------------------------------- 9: not finite


@every_pair
@few
@given(data=st.data(), bad=st.sampled_from([math.nan, -math.nan, math.inf, -math.inf]), places=SEEDS)
def test_law_9_nan_and_infinity_are_errors_that_name_the_tensor_and_change_nothing(pair, data, bad, places):
    case = data.draw(cases([pair]))
    assume(case.a.size)
    a = case.a.copy()
    at = places % a.size
    a[at] = bad
    before = a.copy()
    with pytest.raises(UpdateError, match="NaN or infinity") as caught:
        select(a, case.costs, case.rule, case.budget, case.rng())
    assert repr(case.layout.name_of(at)) in str(caught.value)
    assert a.tobytes() == before.tobytes()


def test_law_9_a_reply_that_cannot_be_paid_still_looks_at_the_update():
    costs = replace(Costs.of(np.ones(3)), fixed=2.0)
    with pytest.raises(UpdateError, match="'update'"):
        select(np.array([1, math.nan, 0], np.float32), costs, TopK(), Joules(1.0, includes_fixed=True))


def test_law_9_in_long_vectors_the_first_one_is_found():
    for kind in ("real", "denormals", "spike"):
        a = update_of(kind, 3, LARGE)
        a[[LARGE - 5, 100_003]] = math.inf
        ranking = Ranking(a, np.array([0, 100_000, LARGE]), np.ones(2))
        with pytest.raises(NotFinite) as caught:
            prefix.longest_prefix(ranking, np.ones(2, np.int64), 50)
        assert caught.value.index == 100_003


def test_a_float64_update_beyond_float32_is_refused_too():
    with pytest.raises(UpdateError, match="'update'"):
        select(np.array([1.0, 1e39]), np.ones(2), TopK(), Count(1))


# ---------------------------------------------------------------- 10: maximal


@some
@given(cases([pair for pair in RANKED_PAIRS if pair[1] not in THRESHOLDS]))
def test_law_10_the_next_item_of_the_order_would_not_fit(case):
    room = reference.limited(case.costs, per_coordinate(case.costs), bits_of(case.costs), case.budget)
    assume(room.limit >= 0)
    kept = set(selected(case).indices.tolist())
    spent = sum(room.units[i] for i in kept)
    sizes = case.layout.sizes.tolist()
    scores = reference.scores_of(case.a, per_coordinate(case.costs), case.rule, case.key, sizes)
    left_out = [i for i in reference.order_of(scores) if i not in kept]
    if getattr(case.budget, "fill", False):
        assert all(spent + room.units[i] > room.limit for i in left_out)
    elif left_out:
        assert spent + room.units[left_out[0]] > room.limit


@some
@given(cases([pair for pair in RANKED_PAIRS if pair[1] is Price]))
def test_law_10_a_price_keeps_exactly_what_is_worth_it(case):
    kept = set(selected(case).indices.tolist())
    prices = per_coordinate(case.costs)
    for i, number in enumerate(case.a.tolist()):
        worth = float(abs(Fraction(number)) ** case.rule.norm / Fraction(prices[i]))
        assert (i in kept) == (worth >= case.budget.value and number != 0)


@some
@given(cases([(TopK(), Threshold)]), st.booleans())
def test_law_10_a_threshold_keeps_every_magnitude_from_it_on_and_no_other(case, natively):
    with pytest.MonkeyPatch.context() as patch:
        if not natively:
            patch.setattr(kernel, "library", lambda: None)
        kept = selected(case)
    assert kept.indices.tolist() == [i for i, x in enumerate(case.a.tolist()) if x != 0 and abs(x) >= case.budget.value]
    assert kept.values.tobytes() == case.a[kept.indices].tobytes()
    assert kept.certificate is kept.guaranteed_delta is None


@pytest.mark.parametrize("magnitude", [0.1, 1e-30, 1e-42, 3e38])
def test_a_magnitude_at_the_threshold_is_kept_whatever_it_costs(magnitude):
    a = np.array([magnitude, -magnitude, np.nextafter(np.float32(magnitude), np.float32(0))], np.float32)
    kept = select(a, np.array([1.0, 1e6, 1e-6]), TopK(), Threshold(float(np.float32(magnitude))))
    assert kept.indices.tolist() == [0, 1]


@pytest.mark.parametrize("cost", [3.0, 7.0, 49.0, 0.1])
def test_what_is_worth_exactly_the_price_is_kept(cost):
    a = np.array([cost, 2 * cost, cost / 2], np.float32)
    for rule in (CWMP(), Projection()):
        worth = np.abs(a.astype(np.float64)) ** rule.norm / cost
        for index in range(3):
            kept = select(a, np.full(3, cost), rule, Price(float(worth[index])))
            assert kept.indices.tolist() == np.flatnonzero(worth >= worth[index]).tolist()


# ---------------------------------------------------------------- delta, contraction


@some
@given(cases())
def test_delta_is_the_share_of_the_energy_that_the_result_explains(case):
    kept = selected(case)
    had = sum(Fraction(float(value)) ** 2 for value in case.a)
    lost = sum((Fraction(float(x)) - Fraction(float(y))) ** 2 for x, y in zip(case.a, kept.dense(), strict=True))
    expected = 1.0 if had == 0 else float(1 - lost / had)
    assert kept.delta == pytest.approx(expected, rel=1e-5, abs=1e-5)


@some
@given(cases([(CWMP(), Joules), (Projection(), Joules)]))
def test_projection_contracts_in_l2_and_cwmp_in_l1(case):
    budget = Joules(case.budget.budget)
    kept = selected(replace(case, budget=budget))
    prices = per_coordinate(case.costs)
    assume(case.a.any())
    total, norm = math.fsum(prices), case.rule.norm
    share = float(
        reference.mass(case.a, kept.indices.tolist(), norm) / reference.mass(case.a, range(case.a.size), norm)
    )
    rounding = case.a.size * float(limit_of(budget, case.costs)[2]) / total
    assert share >= min(1.0, budget.budget / total) - max(prices) / total - rounding - 1e-9
    if norm == 2:
        assert kept.delta == pytest.approx(share, rel=1e-5, abs=1e-6)


def test_cwmp_has_no_contraction_in_l2():
    for big in (10, 100, 1000):
        a = np.array([big] + [1] * (4 * big), np.float32)
        costs = np.array([2.0 * big] + [1.0] * (4 * big))
        assert select(a, costs, CWMP(), Joules(3.0 * big)).delta == pytest.approx(3 / (big + 4), rel=1e-5)
        assert select(a, costs, Projection(), Joules(3.0 * big)).delta > 0.9 * big / (big + 4)


# ---------------------------------------------------------------- edges


@example(1.7e308, 1e10)
@example(1e308, 1e-10)
@example(5e-324, 1e10)
@given(st.floats(0, 1.7e308), st.sampled_from([1e-10, 1.0, 1e10, 1e100]))
def test_any_price_is_a_threshold(value, cost):
    for rule in (CWMP(), Projection()):
        kept = select(np.array([1.0, 0.0, 3e38], np.float32), np.full(3, cost), rule, Price(value))
        worth = [Fraction(float(x)) ** rule.norm / Fraction(cost) for x in (np.float32(1), np.float32(3e38))]
        clear = [abs(each - Fraction(value)) > each / 10**9 for each in worth]
        for index, each, sure in zip((0, 2), worth, clear, strict=True):
            assert not sure or (index in kept.indices) == (each > Fraction(value))


def test_random_rules_ask_for_a_generator():
    for rule in (RandomK(), MinVariance()):
        with pytest.raises(RuleError, match=r"rng=numpy\.random\.default_rng"):
            select(np.ones(3, np.float32), np.ones(3), rule, Count(1))


def test_a_vector_of_another_length_is_refused():
    with pytest.raises(UpdateError, match=r"shape \(2,\)"):
        select(np.ones(2, np.float32), np.ones(3), TopK(), Count(1))


def test_a_vector_in_any_memory_order_gives_the_same_selection():
    a = update_of("real", 1, 60)
    strided = np.repeat(a, 2)[::2]
    costs = costs_of(Layout.single(60), "whole", True, 1)
    assert same(select(a, costs, CWMP(), Joules(80.0)), select(strided, costs, CWMP(), Joules(80.0)))
    assert same(select(a, costs, CWMP(), Joules(80.0)), select(a.astype(np.float64), costs, CWMP(), Joules(80.0)))


def test_filling_goes_on_after_a_coordinate_that_does_not_fit():
    a = np.array([9, 8, 7, 1], np.float32)
    costs = np.array([2.0, 5.0, 2.0, 1.0])
    assert select(a, costs, TopK(), Joules(5.0)).indices.tolist() == [0]
    assert select(a, costs, TopK(), Joules(5.0, fill=True)).indices.tolist() == [0, 2, 3]


def test_filling_keeps_a_coordinate_that_fits_exactly():
    a, costs = np.array([9, 8, 7], np.float32), np.array([2.0, 5.0, 3.0])
    assert select(a, costs, TopK(), Joules(5.0, fill=True)).indices.tolist() == [0, 2]


@many
@given(knapsacks())
def test_small_whole_numbers_meet_the_budget_exactly_as_the_reference_does(case):
    assert selected(case).indices.tolist() == reference.choose(case.a, case.costs, case.rule, case.budget, None).indices


def test_long_vectors_fill_like_short_ones(monkeypatch):
    layout = layout_of([300, 200, 100], ["conv{}.weight", "fc{}.weight", "norm{}.bias"])
    monkeypatch.setattr(kernel, "library", lambda: None)
    monkeypatch.setattr(bracket, "SAMPLES", 32)
    for seed in range(20):
        costs = costs_of(layout, "whole", seed % 2 == 0, seed)
        case = Case(update_of("real", seed, 600), costs, CWMP(), Joules(700.5 + seed, fill=True), 0)
        chosen = reference.choose(case.a, costs, case.rule, case.budget, None)
        assert selected(case).indices.tolist() == chosen.indices


@pytest.mark.parametrize("ahead", [1, 3, 1 << 12])
@pytest.mark.parametrize("rule", [TopK(), CWMP(), RandomK()], ids=lambda rule: type(rule).__name__)
def test_filling_does_not_mind_how_far_it_looks_at_once(monkeypatch, ahead, rule):
    """Prices that fall along the order, so that kept ones and misfits take turns, and prices without an order."""
    monkeypatch.setattr(prefix, "AHEAD", ahead)
    n = 400
    falling = np.where(np.arange(n) % 2, 1.0, 900.0 - np.arange(n))
    mixed = np.random.default_rng(0).integers(1, 50, n).astype(np.float64)
    for prices, room in ((falling, 950.0), (falling, 1200.5), (mixed, 99.0), (mixed, 3000.0), (mixed, 1e9)):
        case = Case(update_of("real", 3, n), Costs.of(prices), rule, Joules(room, fill=True), 1)
        key = int(np.random.default_rng(1).integers(0, 2**64, dtype=np.uint64)) if rule.random else None
        kept = select(case.a, case.costs, rule, case.budget, np.random.default_rng(1))
        assert kept.indices.tolist() == reference.choose(case.a, case.costs, rule, case.budget, key).indices


@given(st.data(), layouts())
@few
def test_costs_for_every_layout_are_legal(data, layout):
    costs = data.draw(costs_for(layout))
    assert costs.layout.n == layout.n


@pytest.mark.parametrize("big", [10**400, 10**5000, 2**63], ids=["1e400", "1e5000", "2^63"])
def test_budgets_beyond_all_measure_are_refused_in_words(big):
    with pytest.raises(RuleError, match=r"Bytes\(n\) must be from 0 to 9223372036854775807, but is about 10\^\d+"):
        Bytes(big)
    if big > 2**63:
        for budget in (Joules, Price):
            with pytest.raises(RuleError, match=r"must be finite and at least 0, but is about 10\^\d+"):
                budget(big)
    assert Count(big).count(7) == 7
    a = np.arange(5, dtype=np.float32)
    assert select(a, np.ones(5), TopK(), Bytes(2**63 - 1)).indices.size == 4
    assert select(a, np.ones(5), TopK(), Joules(2**63)).indices.size == 4


def test_prices_beyond_float64_are_refused_in_words():
    with pytest.raises(CostError, match="per_kept holds a number beyond what float64 does"):
        Costs.of([1, 10**400])


@pytest.mark.parametrize("k", [2.5, "2", None])
def test_a_count_that_is_no_whole_number_is_refused(k):
    with pytest.raises(RuleError, match=r"Count\(k\) must be a whole number of at least 0"):
        Count(k)
