"""The oracle that has all updates in one place: its certificate against exact optima of tiny fleets."""

from fractions import Fraction

import numpy as np
import pytest
import reference
from fleet_cases import Fleet
from hypothesis import given, settings
from hypothesis import strategies as st
from strategies import name_of

from joulewise.costs import Costs
from joulewise.errors import RuleError, UpdateError
from joulewise.layout import Layout
from joulewise.pooled import pooled
from joulewise.rules import CWMP, Joules, Projection, TopK
from joulewise.select import select

RULES = [CWMP(), Projection()]


def tiny(seed: int) -> tuple[list[np.ndarray], list[np.ndarray], list[float], CWMP | Projection, float]:
    """Whole eighths, quarters and halves, so that the exact solver takes them as whole numbers."""
    rng = np.random.default_rng([seed, 11])
    sizes = rng.integers(0, 6, int(rng.integers(1, 5)))
    updates = [(rng.integers(-32, 33, n) / 8).astype(np.float32) for n in sizes]
    costs = [rng.integers(1, 20, n) * int(rng.choice([1, 10])) / 4.0 for n in sizes]
    weights = [float(each) for each in rng.choice([0.125, 0.25, 0.5, 1.0], sizes.size)]
    total = sum(each.sum() for each in costs)
    return updates, costs, weights, RULES[seed % 2], float(rng.integers(0, int(4 * total) + 2)) / 4.0


def test_no_certificate_of_hundreds_of_tiny_fleets_promises_too_much():
    needed, kept_some = 0.0, 0
    for seed in range(300):
        updates, costs, weights, rule, budget = tiny(seed)
        found = pooled(updates, [Costs.of(each) for each in costs], weights, rule, budget)
        p = rule.norm
        values = [round(abs(float(a)) * 8 * w * 8) ** p for u, w in zip(updates, weights, strict=True) for a in u]
        prices = [round(4 * float(c)) for each in costs for c in each]
        best = Fraction(reference.optimum(values, prices, round(4 * budget)), 64**p)
        value, bound = Fraction(found.certificate.value), Fraction(found.certificate.bound)
        slack = Fraction(1, 10**12) * (1 + best)
        mine = sum(
            Fraction(w) ** p * Fraction(abs(float(a))) ** p
            for update, mask, w in zip(updates, found.masks, weights, strict=True)
            for a in update[mask.indices]
        )
        assert abs(value - mine) <= slack
        assert value <= best + slack <= bound + 2 * slack
        assert float(found.energies_j.sum()) <= budget
        if bound - value > slack:
            needed = max(needed, float((best - value) / (bound - value)))
        kept_some += 0 < sum(mask.indices.size for mask in found.masks) < len(values)
    assert kept_some > 200
    assert needed > 0.9  # A bound lower by a tenth of the gap would be one too low.


@pytest.mark.parametrize("rule", RULES, ids=name_of)
def test_the_oracle_of_one_client_is_select(rule):
    rng = np.random.default_rng(1)
    a, prices = rng.standard_normal(500).astype(np.float32), rng.uniform(1, 9, 500)
    kept = select(a, prices, rule, Joules(300.0))
    found = pooled([a], [Costs.of(prices)], [1.0], rule, 300.0)
    assert found.masks[0].indices.tolist() == kept.indices.tolist()
    assert found.certificate.value == pytest.approx(kept.certificate.value, rel=1e-12)
    assert found.certificate.bound == pytest.approx(kept.certificate.bound, rel=1e-9)


@pytest.mark.parametrize("rule", RULES, ids=name_of)
@settings(max_examples=20, deadline=None)
@given(seed=st.integers(0, 2**32 - 1), share=st.floats(0.001, 1.1))
def test_the_gap_is_less_than_one_coordinate_and_the_order_of_clients_does_not_matter(rule, seed, share):
    fleet = Fleet(rule, 100.0, clients=4, n=200)
    updates, order = fleet.updates(seed % 1000), np.random.default_rng(seed).permutation(4).tolist()
    budget = share * sum(each.dense_j for each in fleet.known().values())
    found = pooled(updates, fleet.costs, fleet.weights, rule, budget)
    dearest = max(float(each.per_kept.max()) for each in fleet.costs)
    # The first coordinate that does not fit has the price, and costs at most as much as the dearest.
    assert found.certificate.gap <= found.price * dearest * (1 + 1e-6) + 1e-9 * found.certificate.value
    moved = pooled(
        [updates[k] for k in order],
        [fleet.costs[k] for k in order],
        [fleet.weights[k] for k in order],
        rule,
        budget,
    )
    assert moved.certificate.bound == pytest.approx(found.certificate.bound, rel=1e-9)
    assert moved.energies_j == pytest.approx(found.energies_j[order], rel=1e-9)


def test_a_budget_for_everything_keeps_everything_at_no_price():
    fleet = Fleet(CWMP(), 10.0, clients=3, n=50)
    found = pooled(fleet.updates(1), fleet.costs, fleet.weights, CWMP(), 1e6)
    assert (found.price, found.certificate.gap) == (0.0, 0.0)
    assert [mask.indices.size for mask in found.masks] == [50, 50, 50]


def test_prices_of_coordinates_and_of_tensors_go_together():
    a = np.array([3.0, 2.0, 1.0], np.float32)
    found = pooled(
        [a, a], [Costs.of(np.array([1.0, 4.0, 1.0])), Costs.of(2.0, Layout.single(3))], [0.5, 0.5], CWMP(), 4.0
    )
    assert [mask.indices.tolist() for mask in found.masks] == [[0, 2], [0]]
    assert found.energies_j.tolist() == [2.0, 2.0]


def test_what_cannot_be_pooled_is_refused():
    a, costs = np.ones(2, np.float32), Costs.of(np.ones(2))
    with pytest.raises(RuleError, match="TopK, expected CWMP or Projection"):
        pooled([a], [costs], [1.0], TopK(), 1.0)
    with pytest.raises(RuleError, match="1 updates, 1 costs and 2 weights"):
        pooled([a], [costs], [1.0, 1.0], CWMP(), 1.0)
    with pytest.raises(RuleError, match=r"a weight is 0\.0 of client 1"):
        pooled([a, a], [costs, costs], [1.0, 0.0], CWMP(), 1.0)
    with pytest.raises(RuleError, match="J and relative"):
        pooled([a, a], [costs, Costs.of(np.ones(2), unit="relative")], [1.0, 1.0], CWMP(), 1.0)
    with pytest.raises(UpdateError, match="shape"):
        pooled([np.ones(3, np.float32)], [costs], [1.0], CWMP(), 1.0)
    with pytest.raises(UpdateError, match="NaN"):
        pooled([np.array([1.0, np.nan], np.float32)], [costs], [1.0], CWMP(), 1.0)
