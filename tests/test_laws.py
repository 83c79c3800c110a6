"""Laws of magnitudes and what they predict, against numerical integrals, real selections and closed forms."""

import math
from functools import cache

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from scipy import integrate, stats
from strategies import (
    BUDGETS_BY_SHARE,
    PAIRS,
    SEEDS,
    cases,
    costs_of,
    is_unbiased,
    laplace_of,
    layout_of,
    name_of,
    update_of,
)

from joulewise import theory
from joulewise.advantage import TwoPrices, saving
from joulewise.costs import Costs
from joulewise.errors import ArgumentError, CostError, RuleError, UpdateError
from joulewise.expectation import Outlook, predict
from joulewise.laws import QUANTILES, Quantiles, knots
from joulewise.layout import Layout
from joulewise.rules import (
    CWMP,
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
from joulewise.scaled_laws import LAWS, GeneralisedNormal, Laplace, Normal, StudentT
from joulewise.select import select

some = settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.filter_too_much])
WEIGHED = (TopK(), CWMP(), Projection())
NAMED = {law.name: law for law in LAWS}


def ones(count: float) -> np.ndarray:
    return np.array([float(count)])


# ---------------------------------------------------------------- laws against integrals

ORACLES = {
    "normal": (lambda shape: Normal(ones(1), ones(2.0)), lambda shape: stats.norm(scale=2.0)),
    "laplace": (lambda shape: Laplace(ones(1), ones(2.0)), lambda shape: stats.laplace(scale=2.0)),
    "generalised-normal": (
        lambda shape: GeneralisedNormal(ones(1), ones(2.0), ones(0.5 * shape)),
        lambda shape: stats.gennorm(0.5 * shape, scale=2.0),
    ),
    "student-t": (
        lambda shape: StudentT(ones(1), ones(2.0), ones(1.2 + shape)),
        lambda shape: stats.t(1.2 + shape, scale=2.0),
    ),
}


def test_every_law_with_a_scale_has_an_oracle():
    assert set(ORACLES) == set(NAMED) - {"quantiles"}


@pytest.mark.parametrize("name", ORACLES)
@pytest.mark.parametrize("power", [0, 1, 2, 3])
@settings(max_examples=4, deadline=None)
@given(tail=st.floats(0.01, 20.0), shape=st.floats(1.0, 6.0))
def test_moments_beyond_and_below_a_threshold_are_those_of_a_numerical_integral(name, power, tail, shape):
    made, oracle = ORACLES[name]
    law, density = made(shape), oracle(shape)

    def integrand(x):
        return 2 * x**power * density.pdf(x)

    inside = integrate.quad(integrand, 0, tail, epsabs=1e-13, epsrel=1e-10)[0]
    assert law.below(ones(tail), power)[0] == pytest.approx(inside, rel=1e-6, abs=1e-9)
    if name != "student-t" or power < shape + 1.2 - 0.2:
        outside = integrate.quad(integrand, tail, math.inf, epsabs=1e-13, epsrel=1e-10)[0]
        assert law.beyond(ones(tail), power)[0] == pytest.approx(outside, rel=1e-5, abs=1e-9)


@pytest.mark.parametrize(
    ("law", "drawn"),
    [
        (GeneralisedNormal, stats.gennorm(0.7)),
        (StudentT, stats.t(4.0)),
        (Normal, stats.norm()),
        (Laplace, stats.laplace()),
    ],
)
def test_a_fit_finds_the_scale_and_shape_that_it_was_drawn_from(law, drawn):
    sample = 3e-4 * drawn.rvs(400_000, random_state=np.random.default_rng(5))
    fitted = law.of([np.concatenate([sample, np.zeros(1000)])])
    assert fitted.nonzero[0] == 400_000
    assert fitted.scale[0] == pytest.approx(3e-4, rel=0.05)
    if law is GeneralisedNormal:
        assert fitted.shape[0] == pytest.approx(0.7, rel=0.03)
    if law is StudentT:
        assert fitted.degrees[0] == pytest.approx(4.0, rel=0.1)


@pytest.mark.parametrize("name", NAMED)
@given(seed=SEEDS, kind=st.sampled_from(["real", "ties", "sparse", "zeros", "all equal", "spike"]))
@some
def test_counts_and_masses_of_any_update_fall_with_the_threshold_and_add_up(name, seed, kind):
    tensors = [update_of(kind, seed, 300), update_of("real", seed, 7), np.zeros(0, np.float32)]
    law = NAMED[name].of(tensors)
    scale = float(np.abs(tensors[1]).mean())
    thresholds = [np.full(3, scale * 10.0**power) for power in range(-6, 5)]
    for power in range(3):
        beyond = np.array([law.beyond(each, power) for each in thresholds])
        assert np.isfinite(beyond).all()
        assert (beyond >= 0).all()
        assert (np.diff(beyond, axis=0) <= 1e-9 * beyond[0]).all()
        assert law.below(thresholds[5], power) + beyond[5] == pytest.approx(law.total(power), rel=1e-9)
    assert law.total(0)[:2].tolist() == [np.count_nonzero(each) for each in tensors[:2]]
    for power, told in enumerate(law.moments(thresholds[5])):
        assert told.tolist() == law.beyond(thresholds[5], power).tolist()


# ---------------------------------------------------------------- quantiles


@given(st.integers(1, 3_000_000))
@some
def test_at_most_126_ranks_are_stored_from_the_first_to_the_last(size):
    ranks = knots(size)
    assert (ranks[0], ranks[-1]) == (1, size)
    assert (np.diff(ranks) > 0).all()
    assert ranks.size == size if size <= QUANTILES else 120 <= ranks.size <= QUANTILES


def test_no_tensor_takes_more_than_128_numbers():
    law = Quantiles.of([update_of("real", 1, size) for size in (5, 126, 127, 100_000)])
    assert law.numbers <= 128
    assert np.unique(law.values[3]).size <= 128


def test_a_small_tensor_is_told_whole():
    values = np.array([8.0, -4.0, 2.0, 1.0], np.float32)
    law = Quantiles.of([values])
    # Between two magnitudes, and at them in the middle of the item.
    assert law.beyond(ones(3.0), 0)[0] == 2.0
    assert law.beyond(ones(4.0), 0)[0] == 1.5
    assert law.total(1)[0] == pytest.approx(8 * 0.5 + 6 + 3 + 1.5 + 0.5)


# ---------------------------------------------------------------- predictions against selections


FORESEEN = [pair for pair in PAIRS if pair[0] != LayerwiseTopK()]
"""Pairs that are predicted. The score of LayerwiseTopK is a place in a tensor, not a factor on a magnitude."""


def test_what_is_not_predicted_is_refused():
    _, _, costs, law = drawn_case()
    for rule, budget in ((LayerwiseTopK(), Count(400)), (LayerwiseTopK(), Joules(400.0))):
        with pytest.raises(RuleError, match="there is no prediction"):
            predict(law, costs, rule, budget)


@cache
def drawn_case() -> tuple[Layout, np.ndarray, Costs, Quantiles]:
    layout = layout_of([30_000, 15_000, 4000, 500], ["conv{}.weight", "fc{}.weight", "norm{}.bias", "norm{}.bias"])
    a = laplace_of(layout, [1.0, 0.3, 2.0, 5.0], seed=1)
    a[::17] = 0.0
    a.flags.writeable = False
    return layout, a, costs_of(layout, "whole", False, 3), theory.fit(a, layout).law


@pytest.mark.parametrize("pair", FORESEEN, ids=lambda pair: "-".join(map(name_of, pair)))
def test_what_is_predicted_of_an_update_is_what_is_selected_from_it(pair):
    rule, kind = pair
    layout, a, costs, law = drawn_case()
    for share in (0.02, 0.1, 0.4):
        budget = BUDGETS_BY_SHARE[kind](share, a, costs, rule)
        expected = predict(law, costs, rule, budget)
        draws = 40 if rule.random else 1
        kept = [select(a, costs, rule, budget, np.random.default_rng(each)) for each in range(draws)]
        loose = 0.06 if rule.random else 0.02  # means of 40 draws; and a few coordinates in four hundred
        assert np.mean([each.indices.size for each in kept]) == pytest.approx(expected.kept.coordinates, rel=loose)
        assert np.mean([each.spent for each in kept]) == pytest.approx(expected.kept.energy, rel=loose)
        whole = [float((np.abs(a.astype(float)) ** norm).sum()) for norm in (1, 2)]
        masses = [[float((np.abs(a[each.indices].astype(float)) ** norm).sum()) for each in kept] for norm in (1, 2)]
        assert np.mean(masses[0]) / whole[0] == pytest.approx(expected.kept.l1, rel=loose)
        assert np.mean(masses[1]) / whole[1] == pytest.approx(expected.kept.l2, rel=1.5 * loose)
        counts = np.mean([layout.counts(each.indices) for each in kept], axis=0)
        assert counts == pytest.approx(np.array(expected.counts), rel=0.1, abs=6)
        assert (expected.variance is not None) == is_unbiased(rule)
        if is_unbiased(rule):
            lost = [float(np.square(each.dense().astype(float) - a).sum()) / whole[1] for each in kept]
            assert np.mean(lost) == pytest.approx(expected.variance, rel=0.1)


@given(cases([pair for pair in FORESEEN if pair[1] not in (Price, Threshold, type(None))]))
@some
def test_a_budget_is_met_in_expectation_or_everything_is_kept(case):
    if case.costs.per_coordinate or not case.a.any() or np.abs(case.a).max() > 1e30:
        return
    law = Quantiles.of([case.a[start:stop] for _, start, stop in case.layout.spans()])
    if not (law.total(2).sum() > 0 and np.isfinite(law.total(3)).all()):
        return
    found = predict(law, case.costs, case.rule, case.budget)
    fixed = case.costs.fixed if getattr(case.budget, "includes_fixed", False) else 0.0
    match case.budget:
        case Joules(budget):
            met, limit = found.kept.energy, max(0.0, budget - fixed)
        case Bytes(n):
            met, limit = found.payload_bytes, n
        case _:
            met, limit = found.kept.coordinates, case.budget.count(case.layout.n)
    everything = found.kept.coordinates == pytest.approx(np.count_nonzero(case.a), rel=1e-9)
    assert met == pytest.approx(limit, rel=1e-9, abs=1e-12) or (everything and met <= limit)
    assert 0 <= found.kept.l1 <= 1 + 1e-9
    assert 0 <= found.kept.l2 <= 1 + 1e-9


def test_where_magnitudes_are_all_equal_a_count_is_still_met():
    layout = Layout.of({"a": np.ones(300), "b": np.ones(100)})
    law = theory.fit(np.full(400, 0.5), layout).law
    found = predict(law, Costs.of(1.0, layout), TopK(), Count(100))
    assert found.kept.coordinates == pytest.approx(100)
    assert found.counts == pytest.approx((75, 25))


def test_dense_keeps_zeros_too_and_a_reply_that_cannot_be_paid_keeps_nothing():
    layout, _, costs, law = drawn_case()
    assert predict(law, costs, Dense()).counts == tuple(layout.sizes)
    assert predict(law, costs, CWMP(), Joules(0.0)).kept.coordinates == 0
    assert predict(law, costs, RandomK(scale=True), Count(0)).variance == pytest.approx(1.0)


def test_wrong_costs_and_pairs_are_refused_in_words():
    layout, a, costs, law = drawn_case()
    with pytest.raises(CostError, match="expected one price for each"):
        predict(law, Costs.of(np.ones(5)), TopK(), Count(1))
    with pytest.raises(RuleError, match="TopK does not take a Price budget"):
        predict(law, costs, TopK(), Price(1.0))
    with pytest.raises(UpdateError, match="zero everywhere"):
        theory.fit(np.zeros(layout.n), layout)
    with pytest.raises(UpdateError, match="NaN or infinity"):
        theory.fit(np.full(layout.n, np.nan), layout)
    with pytest.raises(ArgumentError, match="law is 'cauchy', expected one of: quantiles, normal"):
        theory.fit(a, layout, "cauchy")


# ---------------------------------------------------------------- how well laws fit


@pytest.mark.parametrize("name", NAMED)
def test_each_law_tells_its_distance_and_its_own_errors(name):
    layout, a, _, _ = drawn_case()
    found = theory.fit(a, layout, name)
    assert len(found.errors) == 6
    assert found.fits == (not found.notes)
    assert found.fits == (name in ("quantiles", "laplace", "generalised-normal"))
    if name != "quantiles":
        law = {"normal": "norm", "laplace": "laplace", "generalised-normal": "gennorm", "student-t": "t"}[name]
        first = a[: layout.sizes[0]]
        shape = [getattr(found.law, each)[0] for each in ("shape", "degrees") if hasattr(found.law, each)]
        there = first[first != 0]
        oracle = stats.kstest(
            np.abs(there), lambda x: 2 * getattr(stats, law)(*shape, scale=found.law.scale[0]).cdf(x) - 1
        )
        share = there.size / first.size
        assert found.distance[0] <= oracle.statistic * share + 1e-12
        assert found.distance[0] >= oracle.statistic * share - 1 / 256


def test_a_law_that_fits_badly_says_so_with_the_size_of_its_error():
    layout, a, _, _ = drawn_case()
    note = theory.fit(a, layout, "normal").notes[0]
    assert note.startswith("the normal law fits badly: at 0.5 % kept its L2 share is off by -")


def test_errors_of_a_law_are_those_of_what_is_really_selected():
    layout, a, costs, law = drawn_case()
    (found,) = theory.errors(law, a, costs, (CWMP(),), (Count(500),))
    kept = select(a, costs, CWMP(), Count(500))
    assert found.realised.energy == pytest.approx(kept.spent)
    assert found.realised.l2 == pytest.approx(kept.delta, rel=1e-6)
    assert found.predicted == predict(law, costs, CWMP(), Count(500)).kept
    assert found.relative("energy") == pytest.approx(found.predicted.energy / kept.spent - 1)
    (other,) = theory.errors(theory.fit(a[::-1].copy(), layout).law, a, costs, (TopK(),), (Count(500),))
    assert other.misplaced > 0.3


# ---------------------------------------------------------------- savings, closed forms, limits


def two_prices(ratio: float, cheap: float = 0.5) -> tuple[Laplace, Costs]:
    sizes = (round(1e6 * cheap), round(1e6 * (1 - cheap)))
    layout = Layout.of({f"t{i}": np.broadcast_to(np.float32(0), (size,)) for i, size in enumerate(sizes)})
    return Laplace(np.array(sizes, float), np.ones(2)), Costs.of({"t0": 1.0, "t1": ratio}, layout)


@pytest.mark.parametrize("rule", [CWMP(), Projection()], ids=name_of)
@settings(max_examples=10, deadline=None)
@given(ratio=st.floats(1.0, 200.0), density=st.floats(0.001, 0.9), cheap=st.floats(0.05, 0.95))
def test_two_price_classes_have_the_saving_of_the_closed_form(rule, ratio, density, cheap):
    law, costs = two_prices(ratio, cheap)
    cheap = law.nonzero[0] / 1e6
    found = saving(law, costs, rule, Density(density), equal="energy")
    at = Outlook(law, costs, rule).reaching("energy", found.theirs.energy)[0]
    closed = TwoPrices(cheap, ratio)
    assert closed.energy(rule, at) * 1e6 == pytest.approx(found.mine.energy, rel=1e-6)
    assert closed.mass(rule, at, rule.norm) == pytest.approx(
        found.mine.l1 if rule.norm == 1 else found.mine.l2, rel=1e-6
    )
    assert closed.saving(rule, at) == pytest.approx(found.saving, rel=1e-5, abs=1e-6)


@pytest.mark.parametrize("rule", [CWMP(), Projection()], ids=name_of)
def test_a_price_ratio_of_four_and_of_sixteen_is_solved_by_hand(rule):
    # f = 1/2, one threshold u: with y = exp(-u) the dear class keeps y^2, so y + r y^2 = p (1 + r) is quadratic.
    ratio, density = (2.0, 0.1) if rule.norm == 1 else (4.0, 0.1)
    law, costs = two_prices(ratio)
    y = (-1 + math.sqrt(1 + 4 * ratio * density * (1 + ratio))) / (2 * ratio)
    found = saving(law, costs, rule, Density(density))
    assert found.mine.coordinates == pytest.approx(0.5e6 * (y + y * y), rel=1e-9)


@pytest.mark.parametrize("rule", [CWMP(), Projection()], ids=name_of)
def test_at_equal_prices_nothing_is_saved_and_at_any_contrast_the_limit_is_not_passed(rule):
    assert saving(*two_prices(1.0), rule, Density(0.1)).saving == pytest.approx(0, abs=1e-9)
    limit = TwoPrices(0.5, 1.0).limit(rule, 0.1)
    found = [saving(*two_prices(ratio), rule, Density(0.1)).saving for ratio in (2.0, 10.0, 1e2, 1e4, 1e6)]
    assert found == sorted(found)
    assert found[-1] == pytest.approx(limit, rel=1e-4)
    assert max(found) <= limit + 1e-9


@pytest.mark.parametrize("density", [0.0, -0.1, 1.1, math.nan])
def test_a_limit_is_of_a_density_at_which_topk_keeps_something(density):
    with pytest.raises(ArgumentError, match=f"density is {density}, expected the share that TopK keeps, above 0"):
        TwoPrices(0.5, 1.0).limit(CWMP(), density)


@pytest.mark.parametrize("rule", [CWMP(), Projection()], ids=name_of)
def test_the_limit_is_nothing_where_there_is_one_price_or_everything_is_kept(rule):
    assert TwoPrices(1.0, 1.0).limit(rule, 0.1) == 0.0
    assert TwoPrices(0.0, 1.0).limit(rule, 0.1) == pytest.approx(0, abs=1e-9)
    assert TwoPrices(0.5, 1.0).limit(rule, 1.0) == pytest.approx(0, abs=1e-9)


@given(seed=SEEDS, share=st.floats(0.02, 0.7))
@settings(max_examples=15, deadline=None)
def test_no_rule_beats_the_one_that_maximises_its_mass_at_equal_energy(seed, share):
    costs = drawn_case()[2]
    law = Quantiles.of([update_of("real", seed + each, size) for each, size in enumerate((900, 400, 80, 20))])
    room = Joules(share * float(costs.per_kept @ law.nonzero))
    kept = {type(rule): predict(law, costs, rule, room).kept for rule in (*WEIGHED, MinVariance(), RandomK())}
    assert max(each.l1 for each in kept.values()) <= kept[CWMP].l1 + 1e-9
    assert max(each.l2 for each in kept.values()) <= kept[Projection].l2 + 1e-9


@pytest.mark.parametrize("rule", [CWMP(), Projection()], ids=name_of)
def test_savings_at_equal_energy_count_and_mass_hold_together(rule):
    _, _, costs, law = drawn_case()
    by = {equal: saving(law, costs, rule, Density(0.1), equal=equal) for equal in ("energy", "count", "mass")}
    mass = "l1" if rule.norm == 1 else "l2"
    assert by["energy"].mine.energy == pytest.approx(by["energy"].theirs.energy)
    assert by["count"].mine.coordinates == pytest.approx(by["count"].theirs.coordinates)
    assert getattr(by["mass"].mine, mass) == pytest.approx(getattr(by["mass"].theirs, mass))
    assert by["mass"].same_mass_energy == pytest.approx(by["mass"].theirs.energy)
    for each in by.values():
        assert 0 < each.saving < 1
        assert each.times == pytest.approx(1 / (1 - each.saving))
    with pytest.raises(ArgumentError, match="equal is 'bytes', expected one of: energy, count, mass"):
        saving(law, costs, rule, Density(0.1), equal="bytes")


@pytest.mark.parametrize("name", NAMED)
def test_no_threshold_is_too_large_or_too_small(name):
    law = NAMED[name].of([update_of("real", 1, 300)])
    for threshold in (0.0, 1e-320, 1e-200, 1e200, 1e308):
        found = law.beyond(ones(threshold), 0)[0]
        assert found == pytest.approx(300 if threshold < 1 else 0, abs=1e-9)
