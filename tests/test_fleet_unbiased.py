"""MinVariance at one price for a fleet: unbiased, with the least variance that the fleet's energy buys on average."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import brentq, minimize
from scipy.stats import binom
from test_flower_allocation import fleet_arm, spent
from test_flower_resume import resumed_equals_never_stopped

from joulewise.compress import Compressor
from joulewise.costs import Costs
from joulewise.curves import LEAST, Curve, curve_of
from joulewise.devices import load_device
from joulewise.errors import RuleError, StudyError
from joulewise.fleet import Books, EqualJoules, Known, OnePrice, hand_out, one_price
from joulewise.flower import orders
from joulewise.flower.app import federate
from joulewise.flower.orders import Order
from joulewise.layout import Layout
from joulewise.prices import price
from joulewise.rules import Density, Joules, MinVariance
from joulewise.select import select
from joulewise.study import expand, load
from joulewise.theory import deviation

RULE = MinVariance()
some = settings(max_examples=60, deadline=None)


def chances(a, c, price):
    """At a price of a joule in the client's own terms."""
    return np.minimum(1.0, np.abs(a) / np.sqrt(price * c))


def chances_for(a, c, energy):
    """Those of MinVariance alone at an expected energy."""
    there = np.abs(a) > 0
    if energy >= c[there].sum():
        return there.astype(float)
    top = (np.abs(a) @ np.sqrt(c) / energy) ** 2
    found = brentq(lambda log: float(c @ chances(a, c, math.exp(log))) - energy, -60.0, math.log(top) + 1, xtol=1e-14)
    return chances(a, c, math.exp(found))


def variance_of(a, q):
    there = np.abs(a) > 0
    return float((a[there] ** 2 * (1 / q[there] - 1)).sum())


@st.composite
def small(draw):
    """A few clients with a few coordinates each: updates, prices, weights, and a budget that binds."""
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    clients, n = draw(st.integers(1, 4)), draw(st.integers(1, 5))
    a = np.exp(rng.normal(0, 1.0, (clients, n))) * rng.choice([-1, 1], (clients, n))
    c = np.exp(rng.normal(0, 1.0, (clients, n))) * rng.choice([1.0, 10.0, 100.0], (clients, 1))
    weights = rng.dirichlet(np.full(clients, 3.0)) + 1e-3
    return a, c, weights, float(c.sum()) * draw(st.integers(5, 90)) / 100


def exact(a, c):
    """A curve with so many points that the lines between them do not matter."""
    edges = a**2 / c
    prices = np.unique(np.concatenate([edges, np.geomspace(edges.min(), edges.max() * 1e8, 3000)]))[::-1]
    return Curve(prices, np.maximum.accumulate([float(c @ chances(a, c, price)) for price in prices]))


def optimum(a, c, weights, budget):
    """Least weighted variance by a solver that knows nothing of prices, and a bound below it from the dual."""
    squares, costs = (weights[:, None] ** 2 * a**2).ravel(), c.ravel()
    scale = squares.sum()

    def loss(q):
        return float((squares * (1 / q - 1)).sum()) / scale

    found = minimize(
        loss, np.full(costs.size, budget / costs.sum()), jac=lambda q: -squares / q**2 / scale, method="SLSQP",
        bounds=[(1e-6, 1.0)] * costs.size, options={"ftol": 1e-15, "maxiter": 2000},
        constraints={"type": "ineq", "fun": lambda q: 1 - costs @ q / budget, "jac": lambda _: -costs / budget},
    )  # fmt: skip

    def dual(log):
        q = np.minimum(1.0, np.sqrt(squares / (math.exp(log) * costs)))
        return -(float((squares * (1 / q - 1) + math.exp(log) * costs * q).sum()) - math.exp(log) * budget)

    logs = np.linspace(math.log((squares / costs).min()) - 5, math.log((squares / costs).max()) + 15, 4000)
    return loss(found.x) * scale, max(-dual(log) for log in logs)


# ---------------------------------------------------------------- curves


@some
@given(st.integers(0, 2**32 - 1), st.booleans())
def test_energies_at_the_points_are_the_expected_ones(seed, by_tensor):
    rng = np.random.default_rng(seed)
    a = (rng.laplace(size=300) * np.exp(rng.normal(0, 2))).astype(np.float32)
    a[rng.random(300) < 0.2] = 0.0
    c = np.full(300, 3.0) if by_tensor else np.exp(rng.normal(0, 1, 300))
    costs = Costs.of(3.0 if by_tensor else c, *([Costs.of(c).layout] if by_tensor else []))
    curve = curve_of(a, costs, RULE)
    wanted = [float(c @ chances(a.astype(float), c, price)) for price in curve.prices]
    assert curve.prices.size == 64
    assert curve.energies_j == pytest.approx(wanted, rel=1e-9)
    assert curve.energies_j[-1] == pytest.approx(c[a != 0].sum())
    assert curve.energies_j[0] == pytest.approx(LEAST * curve.energies_j[-1], rel=1e-6)
    between = np.sqrt(curve.prices[1:] * curve.prices[:-1])
    wanted = np.array([float(c @ chances(a.astype(float), c, price)) for price in between])
    assert np.array([curve.energy_at(price) for price in between]) == pytest.approx(wanted, rel=0.01)


def test_far_above_all_coordinates_the_energy_falls_with_the_root_of_the_price():
    a, costs = np.array([3.0, 1.0], np.float32), Costs.of(np.array([1.0, 4.0]))
    curve = curve_of(a, costs, RULE)
    assert curve.energy_at(1e4) == pytest.approx(5.0 / 100.0, rel=1e-6)
    assert curve.energy_at(1e6) == pytest.approx(5.0 / 1000.0, rel=1e-6)
    assert curve_of(np.zeros(2, np.float32), costs, RULE).prices.size == 0
    assert Curve.from_bytes(curve.to_bytes()).energy_at(1e4) == pytest.approx(0.05, rel=1e-5)


# ---------------------------------------------------------------- the least variance


@settings(max_examples=40, deadline=None)
@given(small())
def test_the_variance_at_one_price_is_that_of_a_convex_solver(fleet):
    a, c, weights, budget = fleet
    found = one_price([exact(*each) for each in zip(a, c, strict=True)], weights.tolist(), 2, budget)
    q = [chances_for(*each) for each in zip(a, c, found.energies_j.tolist(), strict=True)]
    mine = sum(w**2 * variance_of(each, own) for w, each, own in zip(weights, a, q, strict=True))
    solved, below = optimum(a, c, weights, budget)
    assert math.fsum(found.energies_j) <= budget
    assert below * (1 - 1e-9) <= mine
    assert mine <= solved * (1 + 1e-6)
    # One price for everybody, which every chance below 1 shows.
    for w, each, own, prices in zip(weights, a, q, c, strict=True):
        drawn = own < 1 - 1e-9
        shown = w**2 * each[drawn] ** 2 / own[drawn] ** 2 / prices[drawn]
        assert shown == pytest.approx(np.full(shown.size, found.price), rel=1e-3)


@pytest.mark.parametrize("contrast", [1.0, 100.0])
def test_curves_of_512_bytes_lose_next_to_nothing_and_equal_parts_do(contrast):
    rng = np.random.default_rng(5)
    a = [(rng.laplace(size=3000) * scale).astype(np.float32) for scale in (1.0, 0.3, 2.0, 1.0)]
    costs = [Costs.of(factor * np.exp(rng.normal(0, 0.5, 3000))) for factor in np.geomspace(1, contrast, 4)]
    weights = [0.4, 0.3, 0.2, 0.1]
    known = {
        k: Known(10 * w, float(each.per_kept.sum()), Curve.from_bytes(curve_of(u, each, RULE).to_bytes()), exponent=2)
        for k, (u, each, w) in enumerate(zip(a, costs, weights, strict=True))
    }
    budget = 0.03 * sum(each.dense_j for each in known.values())

    def variance(allocation):
        caps = [order.budget.budget for order in hand_out(allocation, Books(), known)[0].values()]
        assert math.fsum(caps) <= budget
        each = zip(weights, a, costs, caps, strict=True)
        return sum(w**2 * variance_of(u.astype(float), chances_for(u.astype(float), p.per_kept, cap))
                   for w, u, p, cap in each)  # fmt: skip

    best = one_price([exact(u.astype(float), p.per_kept) for u, p in zip(a, costs, strict=True)], weights, 2, budget)
    least = sum(w**2 * variance_of(u.astype(float), chances_for(u.astype(float), p.per_kept, e))
                for w, u, p, e in zip(weights, a, costs, best.energies_j, strict=True))  # fmt: skip
    assert least * (1 - 1e-6) <= variance(OnePrice(budget_j=budget)) <= least * (1 + 1e-4)
    assert variance(EqualJoules(budget_j=budget)) > 1.1 * least


@some
@given(small(), st.integers(0, 2**32 - 1))
def test_for_one_client_it_is_min_variance_alone(fleet, seed):
    a, c, _, _ = fleet
    update, costs, budget = a[0].astype(np.float32), Costs.of(c[0]), 0.3 * float(c[0].sum())
    known = {4: Known(9, float(c[0].sum()), curve_of(update, costs, RULE), exponent=2)}
    orders_of, _ = hand_out(OnePrice(budget_j=budget), Books(), known)
    assert orders_of[4].budget.budget == pytest.approx(budget, rel=1e-12)
    alone, here = (
        select(update, costs, RULE, Joules(each), rng=np.random.default_rng(seed))
        for each in (budget, orders_of[4].budget.budget)
    )
    assert np.array_equal(alone.indices, here.indices)
    assert alone.values == pytest.approx(here.values, rel=1e-6)


# ---------------------------------------------------------------- what is drawn

DRAWS = 1500


@pytest.fixture(scope="module")
def drawn():
    """A fleet, its caps, and what many rounds of the same updates send and spend."""
    rng, n = np.random.default_rng(11), 40
    a = rng.laplace(size=(3, n)).astype(np.float32)
    costs = [Costs.of(factor * np.exp(rng.normal(0, 0.5, n))) for factor in (1.0, 5.0, 50.0)]
    weights = np.array([0.5, 0.3, 0.2])
    budget = 0.25 * sum(float(each.per_kept.sum()) for each in costs)
    curves = [curve_of(u, p, RULE) for u, p in zip(a, costs, strict=True)]
    caps = one_price(curves, weights.tolist(), 2, budget).energies_j.tolist()
    sent, spending = np.zeros(n), np.zeros(DRAWS)
    for draw in range(DRAWS):
        for k in range(3):
            kept = select(a[k], costs[k], RULE, Joules(caps[k]), rng=np.random.default_rng([draw, k]))
            sent[kept.indices] += weights[k] * kept.values.astype(float)
            spending[draw] += kept.spent
    q = np.array([chances_for(u.astype(float), p.per_kept, cap) for u, p, cap in zip(a, costs, caps, strict=True)])
    return a.astype(float), np.array([each.per_kept for each in costs]), weights, budget, q, sent, spending


def test_the_aggregate_has_no_bias(drawn):
    # False alarms below 1e-6 in all: Bernstein's bound at 1e-6 over the coordinates, for each of them.
    a, _, weights, _, q, sent, _ = drawn
    wanted = weights @ a
    for i in range(wanted.size):
        jumps = weights * np.abs(a[:, i]) / q[:, i]
        bound = deviation(jumps, q[:, i], alarm=1e-6 / wanted.size, sizes=DRAWS).bernstein / DRAWS
        assert abs(sent[i] / DRAWS - wanted[i]) <= bound + 1e-6
    assert (q < 0.9).mean() > 0.5


def test_the_budget_binds_on_average_and_a_round_strays_within_bernsteins_bound(drawn):
    _, c, _, budget, q, _, spending = drawn
    assert float((c * q).sum()) == pytest.approx(budget, rel=1e-6)
    # False alarms below 1e-6 for the mean, by the same bound over all draws.
    bound = deviation(c.ravel(), q.ravel(), alarm=1e-6, sizes=DRAWS).bernstein / DRAWS
    assert abs(spending.mean() - budget) <= bound
    assert bound < 0.04 * budget
    # And below 1e-6 for the number of rounds beyond the bound, each of which has at most the chance stated.
    strays = deviation(c.ravel(), q.ravel(), alarm=0.1)
    assert (np.abs(spending - budget) > strays.bernstein).sum() <= binom.isf(1e-6, DRAWS, 0.1)
    assert 0.4 * strays.bernstein < np.abs(spending - budget).max()


# ---------------------------------------------------------------- orders, studies, federations


def test_an_order_asks_a_client_for_its_curve():
    rng = np.random.default_rng(0)
    update, costs = rng.standard_normal(500).astype(np.float32), Costs.of(rng.uniform(0.5, 2, 500), unit="relative")
    obeyed = orders.obey(Order(Joules(20.0), points=64), Compressor(RULE, Density(0.1)), update, costs)
    assert obeyed.compressor.budget == Joules(20.0)
    assert obeyed.said.exponent == 2
    assert obeyed.curve == curve_of(update, costs, RULE).to_bytes()
    assert orders.obey(Order(Joules(20.0)), Compressor(RULE, Density(0.1)), update, costs).curve == b""


@pytest.mark.parametrize("order", [Order(Joules(1.0), price=1.0), Order(Joules(1.0), most_j=1.0)], ids=str)
def test_what_counts_on_caps_that_are_kept_is_refused(order):
    costs = Costs.of(np.ones(4), unit="relative")
    with pytest.raises(RuleError, match="MinVariance meets its budget on average: no battery can cap it"):
        orders.obey(order, Compressor(RULE, Density(0.5)), np.ones(4, np.float32), costs)


def test_joules_on_a_device_whose_memory_moves_in_blocks_are_refused_with_the_allocation_named():
    layout = Layout.of({"fc.weight": np.zeros((40, 40), np.float32)})
    costs = price(layout, load_device("mcu-flash-ble-nrf5340"))
    assert costs.blocks
    with pytest.raises(RuleError, match=r"the server hands out joules, which MinVariance .* EqualCount at the server"):
        orders.obey(Order(Joules(1.0)), Compressor(RULE, Density(0.5)), np.ones(1600, np.float32), costs)
    assert orders.obey(Order(Density(0.1)), Compressor(RULE, Density(0.5)), np.ones(1600, np.float32), costs).said


STUDY = """
name = "fleet"
rounds = 2
seeds = [0]
data = { name = "digits", clients = 2, partition = "IID" }
model = "mlp"
fleet = { devices = { "synthetic-link-1" = 1, "synthetic-link-10" = 1 } }
[strategy]
allocation = { name = "OnePrice", share = 0.01, control = "CONTROL" }
[grid]
rule = ["MinVariance"]
density = [0.01]
"""


def test_a_study_takes_curves_and_refuses_ascent(tmp_path):
    file = tmp_path / "fleet.toml"
    file.write_text(STUDY.replace("CONTROL", "curves"), encoding="utf-8")
    (only,) = expand(load(file))
    assert only.compressor.rule == RULE
    file.write_text(STUDY.replace("CONTROL", "ascent"), encoding="utf-8")
    with pytest.raises(StudyError, match=r'MinVariance meets its budget only on average; use control = "curves"'):
        load(file)


def test_a_federation_spends_its_budget_on_average_and_goes_on_with_the_same_bits(tmp_path):
    which = fleet_arm(OnePrice(share=0.05), Compressor(RULE, Density(0.05)), rounds=12)
    outcomes = list(federate(which, 4))
    n = outcomes[0].clients[0].parameters
    masks = np.array([math.fsum(spent(client) for client in outcome.clients) for outcome in outcomes[1:]])
    assert masks.mean() == pytest.approx(0.05 * n * 202, rel=0.1)
    kept = np.sum([[sum(client.kept_by_tensor) for client in outcome.clients] for outcome in outcomes[1:]], axis=0)
    assert kept[:2].min() > 2 * kept[2:].max()
    resumed_equals_never_stopped(fleet_arm(OnePrice(share=0.05), Compressor(RULE, Density(0.05)), rounds=4), tmp_path)
