"""Statistical laws of the random rules, at fixed seeds.

Each test of a statistic compares it with its law at `SIGMAS` standard deviations. A normal variable lies
outside with probability 2e-9; fewer than 500 comparisons are made, so all of them together raise a false
alarm with probability below 1e-6. Seeds are fixed, so that a test that passes goes on passing.
"""

import math
from fractions import Fraction
from functools import cache

import numpy as np
import pytest
import reference
from hypothesis import given, settings
from hypothesis import strategies as st
from strategies import SEEDS, UPDATES, costs_of, is_unbiased, layout_of, per_coordinate, update_of

from joulewise import inclusion, ranking
from joulewise.codec import decode
from joulewise.compress import Compressor
from joulewise.costs import Costs
from joulewise.inclusion import chances, solve_slope
from joulewise.layout import Layout
from joulewise.ranking import Ranking, uniform, uniform_at
from joulewise.rules import RULES, Count, Density, Joules, MinVariance, RandomK
from joulewise.select import select

SIGMAS = 6.0
DRAWS = 2000

# ---------------------------------------------------------------- the numbers


def test_the_first_outputs_are_those_that_the_generator_is_known_for():
    # Outputs of splitmix64 seeded with 1234567, as printed by its public test vectors.
    known = [
        6457827717110365317,
        3203168211198807973,
        9817491932198370423,
        4593380528125082431,
        16408922859458223821,
    ]
    golden, state, made = 0x9E3779B97F4A7C15, 1234567, []
    for _ in known:
        made.append(reference.splitmix64(state))
        state = (state + golden) & reference.WORD
    assert made == known
    # The counter form used here asks for the same function at key + i.
    assert uniform(1234567, 0, 1)[0] == (known[0] >> 11) / 2**53


@settings(deadline=None)
@given(st.integers(0, 2**64 - 1), st.integers(0, 2**32 - 50))
def test_random_numbers_agree_with_plain_integers(key, start):
    made = uniform(key, start, start + 40)
    assert made.tolist() == [reference.uniform(key, start + i) for i in range(40)]
    assert made.dtype == np.float64
    assert ((made >= 0) & (made < 1)).all()


def test_keys_wrap_around_like_64_bits():
    assert uniform(2**64 - 1, 0, 3).tolist() == [reference.uniform(2**64 - 1, i) for i in range(3)]
    assert uniform(2**64 - 1, 1, 2)[0] == uniform(0, 0, 1)[0]


@given(st.integers(0, 2**64 - 1), st.lists(st.integers(0, 5000), min_size=1, max_size=20, unique=True))
def test_a_coordinate_has_its_number_whatever_is_asked_beside_it(key, places):
    whole = uniform(key, 0, 5001)
    assert uniform_at(key, np.array(places, np.uint32)).tolist() == whole[places].tolist()
    assert uniform_at(key, np.array(places, np.int64)).tolist() == whole[places].tolist()


@pytest.mark.parametrize("rule", [RandomK(), RandomK(scale=True), MinVariance()], ids=repr)
@pytest.mark.parametrize("chunk", [7, 64, 1 << 20])
def test_chunks_do_not_matter(monkeypatch, rule, chunk):
    layout = layout_of([500, 300, 77], ["conv{}.weight", "fc{}.weight", "norm{}.bias"])
    costs, a = costs_of(layout, "whole", False, 1), update_of("real", 1, layout.n)
    right = select(a, costs, rule, Count(200), np.random.default_rng(3))
    monkeypatch.setattr(ranking, "CHUNK", chunk)
    monkeypatch.setattr("joulewise.prefix.CHUNK", max(chunk, 1 << 16))
    monkeypatch.setattr(ranking, "LANES", 128)
    monkeypatch.setattr("joulewise.kernel.library", lambda: None)  # whose chunks are fixed
    again = select(a, costs, rule, Count(200), np.random.default_rng(3))
    assert 150 < right.indices.size < 250
    assert again.indices.tolist() == right.indices.tolist()
    assert again.values == pytest.approx(right.values, rel=1e-6)


@pytest.mark.parametrize("rule", [RandomK(), MinVariance()], ids=repr)
def test_another_seed_is_another_draw_and_the_same_seed_the_same(rule):
    a, costs = update_of("real", 1, 300), Costs.of(np.ones(300))
    first, same, other = (select(a, costs, rule, Count(100), np.random.default_rng(seed)) for seed in (1, 1, 2))
    assert first.indices.tolist() == same.indices.tolist() != other.indices.tolist()


def test_all_random_rules_are_tested_here():
    assert {rule for rule in RULES if rule.random} == {RandomK, MinVariance}


# ---------------------------------------------------------------- the laws


def close(observed: np.ndarray, expected: np.ndarray, deviation: np.ndarray) -> None:
    """Within `SIGMAS` standard deviations, entry by entry; exactly equal where there is no deviation."""
    assert np.abs(observed - expected).max() > 0 or not np.any(deviation > 0), "nothing was random"
    excess = np.abs(observed - expected) - SIGMAS * deviation - 1e-6 * np.abs(expected) - 1e-9
    assert (excess <= 0).all(), f"off by {(np.abs(observed - expected) / np.maximum(deviation, 1e-300)).max()} sigma"


def small_case() -> tuple[np.ndarray, Costs]:
    """Sixteen coordinates, two of them zero, magnitudes over three decades, two prices."""
    layout = Layout.of({"fc.weight": np.zeros((5, 2)), "norm.bias": np.zeros(6)})
    a = np.array([3, -1, 0.5, 0, 0.1, -0.02, 2, 0.3, -0.7, 0.05, 1, -1, 0, 0.25, 8, -0.004], np.float32)
    return a, Costs.of({"fc.weight": 1.0, "norm.bias": 4.0}, layout, "relative")


@cache
def draws(rule, budget, count: int = DRAWS) -> np.ndarray:
    """Dense results of many draws: float64[draws, n]."""
    if rule == MinVariance():
        return tiled_draws(budget, count)
    a, costs = small_case()
    rngs = (np.random.default_rng([17, i]) for i in range(count))
    return np.stack([select(a, costs, rule, budget, rng).dense().astype(np.float64) for rng in rngs])


def tiled_draws(budget, count: int) -> np.ndarray:
    """Draws of MinVariance from copies laid side by side: independent, under a budget as much larger."""
    a, costs = small_case()
    copies = 100
    match budget:
        case Joules(room):
            large = Joules(copies * room)
        case _:
            large = Count(copies * budget.count(a.size))
    prices = Costs.of(np.tile(per_coordinate(costs), copies))
    rngs = (np.random.default_rng([17, i]) for i in range(count // copies))
    made = [select(np.tile(a, copies), prices, MinVariance(), large, rng).dense() for rng in rngs]
    return np.concatenate(made).astype(np.float64).reshape(count, a.size)


def two_point_variance(a: np.ndarray, q: np.ndarray) -> np.ndarray:
    """Variance of ``a/q`` sent with probability q and 0 otherwise: ``a^2 (1 - q) / q``."""
    some = q > 0
    return np.where(some, a**2 * (1 - q) / np.where(some, q, 1.0), 0.0)


def two_point_fourth(a: np.ndarray, q: np.ndarray) -> np.ndarray:
    """Its fourth central moment."""
    some = q > 0
    return np.where(some, a**4 * ((1 - q) ** 4 / np.where(some, q, 1.0) ** 3 + (1 - q)), 0.0)


BUDGETS = {"count": Count(6), "density": Density(0.4), "joules": Joules(9.0), "tight": Joules(0.5)}


def expected_chances(budget) -> np.ndarray:
    """The inclusion probabilities of MinVariance, by bisection."""
    a, costs = small_case()
    if isinstance(budget, Joules):
        prices, limit = per_coordinate(costs), budget.budget
    else:
        prices, limit = [1.0] * a.size, float(budget.count(a.size))
    scores = [abs(value) / math.sqrt(price) for value, price in zip(a.tolist(), prices, strict=True)]
    return np.array(reference.chances(scores, prices, limit))


@pytest.mark.parametrize("budget", BUDGETS.values(), ids=BUDGETS)
def test_min_variance_includes_with_the_chances_of_the_bisection(budget):
    q = expected_chances(budget)
    kept = (draws(MinVariance(), budget) != 0).mean(axis=0)
    assert 0 < q.max() <= 1
    close(kept, q, np.sqrt(q * (1 - q) / DRAWS))


@pytest.mark.parametrize("budget", BUDGETS.values(), ids=BUDGETS)
def test_min_variance_is_unbiased_with_the_predicted_variance(budget):
    a, q = small_case()[0].astype(np.float64), expected_chances(budget)
    made = draws(MinVariance(), budget)
    variance, fourth = two_point_variance(a, q), two_point_fourth(a, q)
    close(made.mean(axis=0), a, np.sqrt(variance / DRAWS))
    likely = (q > 0.02) & (q < 1)
    observed = np.square(made - a).mean(axis=0)
    close(observed[likely], variance[likely], np.sqrt((fourth - variance**2)[likely] / DRAWS))


@pytest.mark.parametrize("budget", BUDGETS.values(), ids=BUDGETS)
def test_min_variance_spends_its_budget_in_expectation(budget):
    costs = small_case()[1]
    q = expected_chances(budget)
    prices = np.array(per_coordinate(costs)) if isinstance(budget, Joules) else np.ones(q.size)
    limit = budget.budget if isinstance(budget, Joules) else budget.count(q.size)
    assert math.fsum(prices * q) == pytest.approx(limit, rel=1e-9)
    spent = ((draws(MinVariance(), budget) != 0) * prices).sum(axis=1)
    deviation = math.sqrt(float((prices**2 * q * (1 - q)).sum()) / DRAWS)
    close(np.array([spent.mean()]), np.array([limit]), np.array([deviation]))


def test_min_variance_has_less_variance_than_chances_of_the_same_cost_elsewhere():
    a, costs = small_case()
    a, prices, q = a.astype(np.float64), np.array(per_coordinate(costs)), expected_chances(Joules(9.0))
    some = a != 0

    def total_variance(chance: np.ndarray) -> float:
        return float((a[some] ** 2 * (1 / chance[some] - 1)).sum())

    least = total_variance(q)
    rng = np.random.default_rng(0)
    for _ in range(300):
        other = np.clip(q * np.exp(0.1 * rng.standard_normal(q.size)), 1e-9, 1.0)
        other *= min(1.0, 9.0 / float((prices * other).sum()))
        assert total_variance(other) >= least


@settings(deadline=None, max_examples=100)
@given(
    st.sampled_from(list(UPDATES)),
    st.sampled_from(["two", "whole", "wide"]),
    SEEDS,
    st.just(0.0) | st.floats(1e-9, 1.2),
)
def test_the_slope_is_that_of_the_bisection(kind, prices_kind, seed, share):
    layout = layout_of([20, 0, 13, 5], ["conv{}.weight", "fc{}.weight", "norm{}.bias", "norm{}.bias"])
    costs, a = costs_of(layout, prices_kind, bool(seed % 2), seed), update_of(kind, seed, layout.n)
    scores_at = Ranking(a, layout.offsets, 1 / np.sqrt(costs.per_kept))
    prices = per_coordinate(costs)
    limit = share * math.fsum(price for price, value in zip(prices, a.tolist(), strict=True) if value)
    scores = scores_at.scores_at(np.arange(layout.n))
    made = chances(scores, solve_slope(scores_at, costs.per_kept, limit))
    expected = reference.chances(scores.tolist(), prices, limit)
    assert made == pytest.approx(np.array(expected), rel=1e-9, abs=1e-300)
    assert math.fsum(made * np.array(prices)) <= limit * (1 + 1e-9) + 1e-300


def test_a_draw_keeps_what_its_random_number_says():
    a, costs = update_of("real", 4, 400), costs_of(Layout.single(400), "whole", True, 4)
    rng = np.random.default_rng(9)
    key = int(np.random.default_rng(9).integers(0, 2**64, dtype=np.uint64))
    kept = select(a, costs, MinVariance(), Joules(0.3 * float(costs.per_kept.sum())), rng)
    prices = costs.per_kept.tolist()
    scores = [abs(value) / math.sqrt(price) for value, price in zip(a.tolist(), prices, strict=True)]
    q = reference.chances(scores, prices, 0.3 * math.fsum(prices))
    picked = [i for i in range(400) if reference.uniform(key, i) < q[i]]
    assert kept.indices.tolist() == picked
    assert kept.values == pytest.approx([a[i] / q[i] for i in picked], rel=1e-6)


@pytest.mark.parametrize("scale", [False, True])
@pytest.mark.parametrize("budget", [Count(6), Density(0.4)], ids=repr)
def test_random_k_keeps_every_entry_equally_often_and_scaled_is_unbiased(scale, budget):
    a = small_case()[0].astype(np.float64)
    nonzero, k = np.count_nonzero(a), 6
    made = draws(RandomK(scale=scale), budget)
    assert ((made != 0).sum(axis=1) == k).all()
    q = np.where(a != 0, k / nonzero, 0.0)
    close((made != 0).mean(axis=0), q, np.sqrt(q * (1 - q) / DRAWS))
    factor = nonzero / k if scale else 1.0
    close(made.mean(axis=0), a * q * factor, np.abs(a) * factor * np.sqrt(q * (1 - q) / DRAWS))
    if scale:
        variance = two_point_variance(a, q)
        deviation = np.sqrt(np.maximum(two_point_fourth(a, q) - variance**2, 0) / DRAWS)
        close(np.square(made - a).mean(axis=0)[a != 0], variance[a != 0], deviation[a != 0])


def test_random_k_keeps_pairs_as_often_as_draws_without_replacement():
    a = small_case()[0]
    kept = draws(RandomK(), Count(6)) != 0
    nonzero = np.flatnonzero(a)
    pair = 6 * 5 / (14 * 13)
    joint = (kept.T.astype(float) @ kept / DRAWS)[np.ix_(nonzero, nonzero)]
    joint = joint[np.triu_indices(14, 1)]
    close(joint, np.full(joint.size, pair), np.full(joint.size, math.sqrt(pair * (1 - pair) / DRAWS)))


def test_the_order_of_random_k_does_not_depend_on_magnitude_or_price():
    a, costs = update_of("real", 1, 200), costs_of(Layout.single(200), "wide", True, 1)
    flat = Costs.of(np.ones(200))
    one = select(a, costs, RandomK(), Count(50), np.random.default_rng(5)).indices
    other = select(np.ones(200, np.float32), flat, RandomK(), Count(50), np.random.default_rng(5)).indices
    assert one.tolist() == other.tolist()


# ---------------------------------------------------------------- messages


@pytest.mark.parametrize("rule", [MinVariance(), RandomK(scale=True)], ids=repr)
def test_messages_of_unbiased_rules_are_unbiased(rule):
    a, costs = small_case()
    compressor = Compressor(rule, Count(6))
    made = np.stack(
        [
            decode(compressor.compress(a, None, costs, np.random.default_rng([3, i])).payload, costs.layout).dense()
            for i in range(500)
        ]
    ).astype(np.float64)
    assert is_unbiased(rule)
    q = expected_chances(Count(6)) if rule == MinVariance() else np.where(a != 0, 6 / 14, 0.0)
    deviation = np.sqrt(two_point_variance(a.astype(np.float64), q) / 500)
    close(made.mean(axis=0), a.astype(np.float64), deviation)


def test_what_is_certain_is_sent_as_it_is():
    a, costs = small_case()
    kept = select(a, costs, MinVariance(), Joules(1e6), np.random.default_rng(0))
    assert kept.indices.tolist() == np.flatnonzero(a).tolist()
    assert kept.values.tobytes() == a[a != 0].tobytes()
    assert inclusion.chances(np.array([0.0, 1.0]), math.inf).tolist() == [0.0, 1.0]
    assert Fraction(kept.spent) == sum(Fraction(c) for c, x in zip(per_coordinate(costs), a, strict=True) if x)
