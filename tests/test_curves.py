"""Energy-price curves: exact at their points, true between them, small on the wire, and closed to nonsense."""

import math
import struct

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from reference import per_coordinate
from strategies import SEEDS, cases, costs_of, name_of, update_of

from joulewise.costs import Costs
from joulewise.curves import CHEAPEST, Curve, curve_of
from joulewise.errors import ArgumentError, PayloadError, RuleError, UpdateError
from joulewise.layout import Layout
from joulewise.rules import CWMP, Joules, Price, Projection, TopK
from joulewise.select import select

some = settings(max_examples=60, deadline=None)
VALUED = [(CWMP(), Joules), (Projection(), Joules)]
RULES = [CWMP(), Projection()]


def large(rule, seed: int = 1, n: int = 60_000):
    """An update of two tensors at two prices, with tails as those of training."""
    layout = Layout.of({"a": np.zeros(n // 2), "b": np.zeros(n // 2)})
    costs = Costs.of(np.array([1.0, 10.0]), layout)
    a = update_of("real", seed, layout.n)
    return a, costs, curve_of(a, costs, rule)


# ---------------------------------------------------------------- at the points


@some
@given(cases(VALUED), st.integers(2, 64))
def test_energies_at_the_points_are_those_of_all_that_is_worth_at_least_the_price(case, points):
    curve = curve_of(case.a, case.costs, case.rule, points)
    prices, norm = per_coordinate(case.costs), case.rule.norm
    assert curve.prices.size <= points
    for price, energy in zip(curve.prices.tolist(), curve.energies_j.tolist(), strict=True):
        if price > CHEAPEST:
            kept = [c for c, v in zip(prices, case.a.tolist(), strict=True) if v and abs(v) ** norm / c >= price]
            assert energy == pytest.approx(math.fsum(kept), rel=1e-12)
    assert (curve.energies_j[-1] if curve.prices.size else 0.0) == pytest.approx(
        math.fsum(c for c, v in zip(prices, case.a.tolist(), strict=True) if v), rel=1e-12
    )


@pytest.mark.parametrize("rule", RULES, ids=name_of)
def test_energies_at_the_points_are_what_select_spends_under_a_price(rule):
    a, costs, curve = large(rule)
    spent = [select(a, costs, rule, Price(price)).spent for price in curve.prices.tolist()]
    assert spent == pytest.approx(curve.energies_j.tolist(), rel=1e-12)
    assert curve.prices.size == 64


def test_an_update_of_zeros_has_a_curve_without_points():
    curve = curve_of(np.array([0.0, -0.0], np.float32), Costs.of(np.ones(2)), CWMP())
    assert curve.prices.size == 0
    assert (curve.energy_at(1.0), curve.price_at(1.0), curve.value_at(1.0)) == (0.0, 0.0, 0.0)
    assert curve.to_bytes() == b""
    assert Curve.from_bytes(b"").prices.size == 0


# ---------------------------------------------------------------- laws


@pytest.mark.parametrize("rule", RULES, ids=name_of)
@some
@given(seed=SEEDS, power=st.integers(-20, 20), per_entry=st.booleans())
def test_prices_times_a_factor_give_energies_times_the_factor(rule, seed, power, per_entry):
    layout, factor = Layout.of({"a": np.zeros(30), "b": np.zeros(20)}), 2.0**power
    a, costs = update_of("real", seed, 50), costs_of(layout, "two", per_entry, seed)
    plain, scaled = curve_of(a, costs, rule), curve_of(a, Costs.of(costs.per_kept * factor, layout), rule)
    assert (scaled.prices * factor).tolist() == plain.prices.tolist()
    assert (scaled.energies_j / factor).tolist() == plain.energies_j.tolist()
    louder = curve_of(a * np.float32(factor), costs, rule)
    assert (louder.prices / factor**rule.norm).tolist() == plain.prices.tolist()
    assert louder.energies_j.tolist() == plain.energies_j.tolist()


@pytest.mark.parametrize("rule", RULES, ids=name_of)
@some
@given(seed=SEEDS, kind=st.sampled_from(["real", "ties", "sparse", "duplicates"]))
def test_the_order_of_coordinates_and_their_signs_do_not_matter(rule, seed, kind):
    a, rng = update_of(kind, seed, 80), np.random.default_rng(seed)
    prices, order = rng.choice([0.5, 1.0, 3.0], 80), rng.permutation(80)
    plain = curve_of(a, Costs.of(prices), rule)
    moved = curve_of(-a[order], Costs.of(prices[order]), rule)
    assert moved.prices.tolist() == plain.prices.tolist()
    assert moved.energies_j == pytest.approx(plain.energies_j, rel=1e-12)


@pytest.mark.parametrize("rule", RULES, ids=name_of)
def test_prices_of_tensors_and_the_same_prices_of_coordinates_give_one_curve(rule):
    a, costs, curve = large(rule)
    each = curve_of(a, Costs.of(np.repeat(costs.per_kept, costs.layout.sizes), costs.layout), rule)
    assert each.prices.tolist() == curve.prices.tolist()
    assert each.energies_j == pytest.approx(curve.energies_j, rel=1e-9)


@some
@given(cases(VALUED), st.floats(0, 1.2), st.floats(0, 1.2))
def test_energy_falls_with_the_price_value_rises_with_energy_and_each_joule_buys_less(case, one, two):
    curve = curve_of(case.a, case.costs, case.rule)
    assume(curve.prices.size)
    whole = float(curve.energies_j[-1])
    low, high = sorted((one * whole, two * whole))
    slack = 1e-9 * curve.value_at(whole)
    assert curve.value_at(low) <= curve.value_at(high) + slack
    # Concave: the chord lies below, and the price is the slope.
    assert curve.value_at((low + high) / 2) >= (curve.value_at(low) + curve.value_at(high)) / 2 - slack
    assert curve.value_at(high) - curve.value_at(low) <= curve.price_at(low) * (high - low) * (1 + 1e-9) + slack
    for price in (curve.price_at(low), curve.price_at(high)):
        assert curve.energy_at(price * 1.01) <= curve.energy_at(price) * (1 + 1e-9)
    inside = min(max(low, float(curve.energies_j[0])), whole)
    if (np.diff(curve.energies_j) > 1e-6 * whole).all() and inside < whole:
        assert curve.energy_at(curve.price_at(inside)) == pytest.approx(inside, rel=1e-6)


# ---------------------------------------------------------------- between the points


@pytest.mark.parametrize("rule", RULES, ids=name_of)
def test_between_points_energies_are_within_five_percent_and_values_within_one(rule):
    a, costs, curve = large(rule)
    whole = float(curve.energies_j[-1])
    for share in np.geomspace(1e-3, 0.9, 40):
        kept = select(a, costs, rule, Joules(share * whole))
        assert curve.value_at(kept.spent) == pytest.approx(kept.certificate.value, rel=0.01)
        spent = select(a, costs, rule, Price(curve.price_at(share * whole))).spent
        assert spent == pytest.approx(share * whole, rel=0.05, abs=20.0)  # or two of the dear coordinates


def test_where_there_is_nothing_between_two_prices_the_energy_stays():
    a = np.repeat(np.array([4.0, 0.01], np.float32), [10, 10])
    curve = curve_of(a, Costs.of(np.ones(20)), CWMP())
    assert [curve.energy_at(price) for price in (5.0, 1.0, 0.02, 0.005)] == pytest.approx([0.0, 10.0, 10.0, 20.0])


def test_value_is_the_integral_of_the_price():
    curve = Curve(np.array([9.0, 5.0, 1.0]), np.array([1.0, 1.0, 7.0]))
    grid = np.linspace(1e-9, 7.0, 200_001)
    prices = np.array([curve.price_at(energy) for energy in grid.tolist()[:-1]] + [1.0])
    assert curve.value_at(7.0) == pytest.approx(float(np.trapezoid(prices, grid)), rel=1e-4)
    # Energy times price is the same at both points: the logarithm.
    flat = Curve(np.array([8.0, 2.0]), np.array([1.0, 4.0]))
    assert flat.value_at(4.0) == pytest.approx(8.0 + 8.0 * math.log(4.0))


# ---------------------------------------------------------------- the wire


@some
@given(cases(VALUED))
def test_a_curve_comes_back_from_the_wire_with_at_most_128_numbers(case):
    curve = curve_of(case.a, case.costs, case.rule)
    raw = curve.to_bytes()
    back = Curve.from_bytes(raw)
    assert len(raw) == 8 * back.prices.size <= 512
    assert back.prices.tolist() == curve.prices.tolist()  # Edges of bins are float32 numbers.
    assert back.energies_j == pytest.approx(curve.energies_j, rel=1e-6)
    assert back.to_bytes() == raw


def test_prices_that_float32_does_not_tell_apart_become_one():
    curve = Curve(np.array([1.0 + 2e-9, 1.0 + 1e-9, 1e-60]), np.array([1.0, 2.0, 3e300]))
    back = Curve.from_bytes(curve.to_bytes())
    assert back.prices.tolist() == [1.0, CHEAPEST]
    assert back.energies_j.tolist() == [2.0, float(np.finfo(np.float32).max)]
    with pytest.raises(PayloadError, match="65 points, expected at most 64"):
        Curve(np.arange(65.0, 0.0, -1.0), np.arange(1.0, 66.0)).to_bytes()


HOSTILE = {
    "cut": (struct.pack("<4f", 2, 1, 1, 2)[:-1], "15 bytes"),
    "half a point": (struct.pack("<3f", 2, 1, 1), "12 bytes"),
    "too long": (struct.pack("<2f", 2, 1) * 65, "520 bytes"),
    "huge": (bytes(2**20), "at most 512"),
    "NaN price": (struct.pack("<4f", math.nan, 1, 1, 2), "a price of nan at point 0"),
    "NaN energy": (struct.pack("<4f", 2, 1, 1, math.nan), "an energy of nan at point 1"),
    "infinite": (struct.pack("<4f", math.inf, 1, 1, 2), "a price of inf"),
    "infinite energy": (struct.pack("<4f", 2, 1, 1, math.inf), "an energy of inf"),
    "negative": (struct.pack("<4f", 2, -1, 1, 2), "an energy of -1.0 at point 0"),
    "free": (struct.pack("<4f", 2, 1, 0, 2), "a price of 0.0 at point 1"),
    "rising price": (struct.pack("<4f", 1, 1, 2, 2), "prices that do not fall at point 1"),
    "equal prices": (struct.pack("<6f", 3, 1, 2, 2, 2, 3), "prices that do not fall at point 2"),
    "falling energy": (struct.pack("<4f", 2, 2, 1, 1), "energies that fall at point 1"),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_bytes_that_are_no_curve_are_refused(name):
    raw, message = HOSTILE[name]
    with pytest.raises(PayloadError, match=message):
        Curve.from_bytes(raw)


@settings(max_examples=300, deadline=None)
@given(
    st.binary(max_size=600) | st.lists(st.floats(width=32), max_size=8).map(lambda x: struct.pack(f"<{len(x)}f", *x))
)
def test_any_bytes_are_refused_or_a_curve_that_can_be_asked(raw):
    try:
        curve = Curve.from_bytes(raw)
    except PayloadError:
        return
    assert (np.diff(curve.prices) < 0).all()
    assert (np.diff(curve.energies_j) >= 0).all()
    for number in (0.0, 1e-300, 1.0, 1e300):
        for found in (curve.energy_at(number), curve.price_at(number), curve.value_at(number)):
            assert 0 <= found < math.inf


def test_what_cannot_be_a_curve_is_refused_where_it_is_made():
    with pytest.raises(ArgumentError, match="prices that do not fall at point 1"):
        Curve(np.array([1.0, 2.0]), np.array([1.0, 2.0]))
    with pytest.raises(ArgumentError, match="expected as many of both"):
        Curve(np.array([1.0]), np.array([1.0, 2.0]))


def test_an_update_rule_or_number_of_points_that_does_not_fit_is_refused():
    layout = Layout.of({"first": np.zeros(2), "second": np.zeros(2)})
    costs = Costs.of(np.ones(2), layout)
    for bad in (math.nan, math.inf):
        with pytest.raises(UpdateError, match="'second'"):
            curve_of(np.array([1.0, 2.0, 0.0, bad], np.float32), costs, CWMP())
    with pytest.raises(UpdateError, match="shape"):
        curve_of(np.ones(3, np.float32), costs, CWMP())
    with pytest.raises(RuleError, match="TopK, expected CWMP, Projection or MinVariance"):
        curve_of(np.ones(4, np.float32), costs, TopK())
    for points in (1, 65):
        with pytest.raises(ArgumentError, match="from 2 to 64"):
            curve_of(np.ones(4, np.float32), costs, CWMP(), points)
