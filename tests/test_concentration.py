"""Bounds on how far energy strays: the formulas by hand, and how often draws pass them."""

import math

import numpy as np
import pytest
from strategies import name_of

from joulewise import theory
from joulewise.concentration import deviation, variance_interval
from joulewise.costs import Costs
from joulewise.errors import ArgumentError
from joulewise.expectation import predict
from joulewise.laws import Quantiles
from joulewise.layout import Layout
from joulewise.rules import CWMP, Count, Density, Joules, MinVariance, Price, Projection
from joulewise.scaled_laws import Laplace
from joulewise.select import select

ALARM = 1e-4
"""Of each interval below. Eight are tested: together they raise a false alarm with probability below 1e-3."""


def test_both_bounds_are_those_computed_by_hand():
    found = deviation([1.0, 2.0, 4.0], [0.5, 0.25, 0.1], alarm=0.05, sizes=[4, 2, 1])
    # V = 4 * 1 * 1/4 + 2 * 4 * 3/16 + 16 * 9/100 = 1 + 1.5 + 1.44; log 40 = 3.6888794541139363
    assert found.variance == pytest.approx(3.94, abs=1e-12)
    assert found.bernstein == pytest.approx(
        math.sqrt(7.88 * 3.6888794541139363) + 4 * 3.6888794541139363 / 3, abs=1e-12
    )
    assert found.bernstein == pytest.approx(10.310015013133286, abs=1e-12)
    assert found.hoeffding == pytest.approx(math.sqrt(0.5 * (4 + 8 + 16) * 3.6888794541139363), abs=1e-12)
    assert found.hoeffding == pytest.approx(7.186397731659104, abs=1e-12)


def test_a_price_that_no_coordinate_has_does_not_count():
    assert deviation([1.0, 99.0], [0.5, 0.5], sizes=[10, 0]) == deviation([1.0], [0.5], sizes=[10])


@pytest.mark.parametrize(
    ("chances", "alarm", "name"), [([0.5], 0.0, "alarm"), ([0.5], 1.0, "alarm"), ([1.5], 0.1, "chances")]
)
def test_numbers_that_are_no_probabilities_are_refused(chances, alarm, name):
    with pytest.raises(ArgumentError, match=f"^{name}"):
        deviation([1.0], chances, alarm)


SPREADS = {
    "even": (np.ones(300), np.full(300, 0.5)),
    "rare": (np.ones(300), np.full(300, 0.02)),
    "two prices": (np.repeat([1.0, 10.0], 150), np.tile([0.1, 0.9], 150)),
    "one dear": (np.append(np.ones(299), 40.0), np.append(np.full(299, 0.3), 0.05)),
}


def energies(prices: np.ndarray, chances: np.ndarray, draws: int) -> np.ndarray:
    rng = np.random.default_rng(2)
    return np.concatenate([(rng.random((1000, prices.size)) < chances) @ prices for _ in range(draws // 1000)])


@pytest.mark.parametrize("spread", SPREADS)
def test_the_realised_variance_lies_in_its_interval(spread):
    prices, chances = SPREADS[spread]
    draws = 60_000 if spread == "one dear" else 20_000
    strayed = np.square(energies(prices, chances, draws) - prices @ chances).mean()
    low, high = variance_interval(prices, chances, draws, ALARM)
    assert low <= strayed / deviation(prices, chances).variance <= high
    assert high < 4


@pytest.mark.parametrize("spread", SPREADS)
@pytest.mark.parametrize("alarm", [0.3, 0.05])
def test_draws_pass_the_bounds_no_more_often_than_stated(spread, alarm):
    prices, chances = SPREADS[spread]
    bounds = deviation(prices, chances, alarm)
    strayed = np.abs(energies(prices, chances, 5000) - prices @ chances)
    for bound in (bounds.bernstein, bounds.hoeffding):
        # Six standard deviations of a share of 5000 draws.
        assert np.mean(strayed > bound) <= alarm + 6 * math.sqrt(alarm * (1 - alarm) / 5000)
    assert (strayed <= bounds.bernstein).any()


@pytest.mark.parametrize("rule", [CWMP(), Projection()], ids=name_of)
def test_the_energy_of_redrawn_updates_at_a_fixed_threshold_strays_as_predicted(rule):
    layout = Layout.of({"a": np.ones(3000), "b": np.ones(1000)})
    costs, law = Costs.of({"a": 1.0, "b": 6.0}, layout), Laplace(np.array([3000.0, 1000.0]), np.array([1.0, 2.0]))
    found = predict(law, costs, rule, Price(1.5))
    rng, scales = np.random.default_rng(3), np.repeat([1.0, 2.0], layout.sizes)
    updates = (rng.laplace(size=layout.n) * scales for _ in range(1500))
    spent = np.array([select(each.astype(np.float32), costs, rule, Price(1.5)).spent for each in updates])
    prices, chances = costs.per_kept, np.array(found.counts) / layout.sizes
    assert found.energy_variance == pytest.approx(deviation(prices, chances, sizes=layout.sizes).variance, rel=1e-12)
    assert abs(spent.mean() - found.kept.energy) <= 6 * math.sqrt(found.energy_variance / 1500)
    each = (np.repeat(prices, layout.sizes), np.repeat(chances, layout.sizes))
    low, high = variance_interval(*each, 1500, 1e-3)
    assert low <= np.square(spent - found.kept.energy).mean() / found.energy_variance <= high


@pytest.mark.parametrize(
    ("budget", "variance"),
    [
        # q = |a| / (2 sqrt(c)) is 1/2, 3/4 and 1, which costs 4 * 1/2 + 8 * 3/4 + 9; V = 4 * 1 * 1/4 + 2 * 16 * 3/16.
        (Joules(17.0), 7.0),
        # q = |a| / 5 is 1/5, 3/5 and 1, which keeps 4/5 + 6/5 + 1; V = 4 * 1 * 4/25 + 2 * 16 * 6/25.
        (Count(3), 8.32),
        (Density(0.5), 8.32),
    ],
    ids=repr,
)
def test_the_energy_variance_of_min_variance_is_that_computed_by_hand(budget, variance):
    layout = Layout.of({"a": np.ones(4), "b": np.ones(2), "c": np.ones(1)})
    law = Quantiles.of([np.full(4, 1.0), np.full(2, 3.0), np.full(1, 12.0)])
    found = predict(law, Costs.of({"a": 1.0, "b": 4.0, "c": 9.0}, layout), MinVariance(), budget)
    assert found.energy_variance == pytest.approx(variance, abs=1e-12)


def test_the_energy_variance_of_min_variance_is_the_integral_of_its_chances():
    # Laplace, tails t: E q = exp(-t) + E[x; x < t]/t, E q (1-q) = E[x; x < t]/t - E[x^2; x < t]/t^2.
    tails, sizes, prices = np.array([1.5, 1.5 * 2.0]), np.array([3000.0, 1000.0]), np.array([1.0, 4.0])
    first = 1 - (1 + tails) * np.exp(-tails)
    second = 2 - (2 + 2 * tails + tails**2) * np.exp(-tails)
    costs = Costs.of(prices, Layout.of({"a": np.ones(3000), "b": np.ones(1000)}))
    room = Joules(float(sizes * prices @ (np.exp(-tails) + first / tails)))
    found = predict(Laplace(sizes, np.ones(2)), costs, MinVariance(), room)
    variance = float(sizes * prices**2 @ (first / tails - second / tails**2))
    assert found.threshold == pytest.approx(1.5, rel=1e-12)
    assert found.energy_variance == pytest.approx(variance, rel=1e-12)


def test_min_variance_strays_from_its_budget_as_predicted():
    layout, rng = Layout.of({"a": np.ones(300), "b": np.ones(100)}), np.random.default_rng(4)
    a = rng.laplace(size=400).astype(np.float32)
    costs = Costs.of({"a": 1.0, "b": 6.0}, layout)
    draws = [select(a, costs, MinVariance(), Joules(200.0), np.random.default_rng([1, each])) for each in range(600)]
    prices = np.repeat(costs.per_kept, layout.sizes)
    kept = np.zeros(400)
    for each in draws:
        kept[each.indices] += 1
    scores = np.abs(a.astype(float)) / np.sqrt(prices)
    slope = theory.predict(theory.fit(a, layout).law, costs, MinVariance(), Joules(200.0)).threshold
    chances = np.minimum(1.0, scores / slope)
    assert prices @ chances == pytest.approx(200.0, rel=0.01)
    spent = np.array([each.spent for each in draws])
    low, high = variance_interval(prices, chances, 600, ALARM * 10)
    assert low <= np.square(spent - 200.0).mean() / deviation(prices, chances).variance <= high
