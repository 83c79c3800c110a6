"""One budget for many clients: never exceeded, divided at one price, and closed to nonsense."""

import math
from dataclasses import replace
from itertools import accumulate

import msgspec
import numpy as np
import pytest
from fleet_cases import Fleet, fleets
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from strategies import name_of

from joulewise.allotment import equal_parts, in_proportion
from joulewise.certificate import mass
from joulewise.costs import Costs
from joulewise.curves import Curve, curve_of
from joulewise.errors import FederationError, PayloadError, RuleError
from joulewise.fleet import (
    Allocation,
    Books,
    EqualCount,
    EqualJoules,
    Known,
    OnePrice,
    Order,
    book,
    hand_out,
    one_price,
)
from joulewise.layout import Layout
from joulewise.pooled import pooled
from joulewise.rules import CWMP, Density, Joules, Price, Projection
from joulewise.select import select

some = settings(max_examples=80, deadline=None)
RULES = [CWMP(), Projection()]
FLAT = Curve(np.array([4.0, 1.0]), np.array([1.0, 100.0]))


def caps_of(orders: dict[int, Order]) -> list[float]:
    return [order.budget.budget for order in orders.values() if isinstance(order.budget, Joules)]


# ---------------------------------------------------------------- one price


@some
@given(fleets())
def test_energies_never_exceed_the_budget_and_meet_it_where_curves_allow(fleet):
    curves, weights, exponent, budget = fleet
    found = one_price(curves, weights, exponent, budget)
    every = math.fsum(curve.energies_j[-1] for curve in curves if curve.prices.size)
    assert math.fsum(found.energies_j.tolist()) <= budget
    assert math.fsum(found.energies_j.tolist()) == pytest.approx(min(budget, every), rel=1e-9, abs=1e-300)
    assert (found.energies_j >= 0).all()


@some
@given(fleets())
def test_the_last_joule_of_every_client_buys_as_much(fleet):
    curves, weights, exponent, budget = fleet
    found = one_price(curves, weights, exponent, budget)
    assume(found.price > 0)
    for curve, weight, energy in zip(curves, weights, found.energies_j.tolist(), strict=True):
        if curve.prices.size:
            scale, own = weight**exponent, found.price / weight**exponent
            # At jumps a part: between what is worth more than the price and what is worth at least that.
            assert curve.energy_at(own * (1 + 1e-9)) * (1 - 1e-6) <= energy <= curve.energy_at(own * (1 - 1e-9)) + 1e-9
            first, last = curve.energies_j[0] * (1 + 1e-9), curve.energies_j[-1] * (1 - 1e-9)
            if first < energy < last and (np.diff(curve.energies_j) > 1e-2).all():
                assert scale * curve.price_at(energy) == pytest.approx(found.price, rel=1e-4)


@some
@given(fleets(), st.integers(0, 2**32 - 1))
def test_no_other_division_is_worth_more_than_the_bound(fleet, seed):
    curves, weights, exponent, budget = fleet
    found = one_price(curves, weights, exponent, budget)
    other = np.random.default_rng(seed).dirichlet(np.ones(len(curves)) * 0.5) * budget
    value = sum(w**exponent * c.value_at(e) for c, w, e in zip(curves, weights, other.tolist(), strict=True))
    assert value <= found.bound * (1 + 1e-9) + 1e-12
    assert found.value == pytest.approx(found.bound, rel=1e-9)


@some
@given(fleets(), st.integers(0, 2**32 - 1))
def test_a_division_that_is_off_loses_at_most_its_error_in_price_times_that_in_energy(fleet, seed):
    curves, weights, exponent, budget = fleet
    best = one_price(curves, weights, exponent, budget)
    assume(best.price > 0)
    rng = np.random.default_rng(seed)
    off = best.energies_j * rng.uniform(0.2, 1.0, len(curves))
    off *= math.fsum(best.energies_j) / max(math.fsum(off), 1e-300)
    off = np.array([min(e, c.energies_j[-1] if c.prices.size else 0.0) for e, c in zip(off, curves, strict=True)])
    loss = promised = 0.0
    for curve, weight, mine, ideal in zip(curves, weights, off, best.energies_j, strict=True):
        if curve.prices.size:
            scale = weight**exponent
            # The price at which the next joule buys: 0 only where nothing is left.
            slope = scale * (curve.price_at(mine) if mine < curve.energies_j[-1] else curve.prices[-1])
            loss += scale * (curve.value_at(ideal) - curve.value_at(mine))
            promised += (slope - best.price) * (ideal - mine)
    promised += best.price * (math.fsum(best.energies_j) - math.fsum(off))
    assert loss <= promised * (1 + 1e-6) + 1e-9 * best.bound


@some
@given(fleets(), st.integers(-20, 20))
def test_energies_times_a_factor_and_prices_over_it_give_a_budget_times_the_factor(fleet, power):
    curves, weights, exponent, budget = fleet
    factor = 2.0**power
    plain = one_price(curves, weights, exponent, budget)
    dearer = [Curve(curve.prices / factor, curve.energies_j * factor) for curve in curves]
    scaled = one_price(dearer, weights, exponent, budget * factor)
    assert scaled.energies_j / factor == pytest.approx(plain.energies_j, rel=1e-6, abs=1e-9 * budget)
    assert scaled.price * factor == pytest.approx(plain.price, rel=1e-6)
    assert scaled.value == pytest.approx(plain.value, rel=1e-6)


@some
@given(fleets(), st.integers(0, 2**32 - 1))
def test_the_order_of_clients_does_not_matter(fleet, seed):
    curves, weights, exponent, budget = fleet
    order = np.random.default_rng(seed).permutation(len(curves)).tolist()
    plain = one_price(curves, weights, exponent, budget)
    moved = one_price([curves[k] for k in order], [weights[k] for k in order], exponent, budget)
    assert moved.energies_j == pytest.approx(plain.energies_j[order], rel=1e-9, abs=1e-9 * budget)
    assert moved.price == pytest.approx(plain.price, rel=1e-9)


@some
@given(fleets(), st.integers(2, 5))
def test_equal_clients_get_equal_parts(fleet, clients):
    (curve, *_), _, exponent, _ = fleet
    assume(curve.prices.size)
    budget = 0.4 * clients * float(curve.energies_j[-1])
    found = one_price([curve] * clients, [1 / clients] * clients, exponent, budget)
    assert found.energies_j == pytest.approx(np.full(clients, budget / clients), rel=1e-9)


@some
@given(fleets(), st.integers(0, 2**32 - 1), st.floats(0, 1))
def test_floors_are_given_as_far_as_there_is_anything_to_send(fleet, seed, share):
    curves, weights, exponent, budget = fleet
    floors = np.random.default_rng(seed).dirichlet(np.ones(len(curves))) * share * budget * (1 - 1e-12)
    found = one_price(curves, weights, exponent, budget, floors.tolist())
    every = np.array([curve.energies_j[-1] if curve.prices.size else 0.0 for curve in curves])
    assert (found.energies_j >= np.minimum(floors, every) * (1 - 1e-9)).all()
    assert (found.energies_j <= every * (1 + 1e-12)).all()
    assert math.fsum(found.energies_j.tolist()) <= budget
    assert math.fsum(found.energies_j.tolist()) == pytest.approx(min(budget, every.sum()), rel=1e-9, abs=1e-300)
    free = one_price(curves, weights, exponent, budget)
    assert found.value <= found.bound * (1 + 1e-9) == pytest.approx(free.bound, rel=1e-6, abs=1e-300)


def test_clients_without_points_or_weight_get_nothing():
    empty = Curve(np.empty(0), np.empty(0))
    assert one_price([FLAT, empty, FLAT], [0.5, 0.5, 0.0], 1, 10.0).energies_j.tolist() == [10.0, 0.0, 0.0]
    assert one_price([empty], [1.0], 1, 10.0).energies_j.tolist() == [0.0]
    assert one_price([], [], 1, 0.0).energies_j.size == 0
    assert one_price([FLAT], [1.0], 1, 0.0).energies_j.tolist() == [0.0]


def test_where_many_coordinates_are_worth_the_price_the_budget_buys_a_part_of_them():
    single = Curve(np.array([2.0]), np.array([10.0]))
    found = one_price([single, single], [0.5, 0.5], 2, 5.0)
    assert found.energies_j.tolist() == pytest.approx([2.5, 2.5])
    assert found.price == pytest.approx(0.5)


def test_what_cannot_be_divided_is_refused():
    for weights, shown in (([0.5, -0.5], "-0.5 at client 1"), ([0.5, math.nan], "nan at client 1"), ([0, 0], "0.0")):
        with pytest.raises(RuleError, match=shown):
            one_price([FLAT, FLAT], weights, 1, 1.0)
    with pytest.raises(RuleError, match="for 2 clients"):
        one_price([FLAT, FLAT], [1.0], 1, 1.0)
    for budget in (-1.0, math.nan, math.inf):
        with pytest.raises(RuleError, match="budget_j is"):
            one_price([FLAT], [1.0], 1, budget)
    with pytest.raises(RuleError, match=r"floors_j sum to 3\.0, but the budget is 2\.0; lower the floors"):
        one_price([FLAT, FLAT], [0.5, 0.5], 1, 2.0, [1.0, 2.0])
    with pytest.raises(RuleError, match="floors_j is"):
        one_price([FLAT, FLAT], [0.5, 0.5], 1, 2.0, [1.0, -1.0])


# ---------------------------------------------------------------- parts


@some
@given(st.floats(0, 100), st.lists(st.floats(0, 50) | st.just(math.inf), min_size=1, max_size=8))
def test_equal_parts_are_equal_below_their_ceilings_and_use_the_total(total, ceilings):
    parts = equal_parts(total, ceilings)
    assert math.fsum(parts) <= total
    assert math.fsum(parts) == pytest.approx(min(total, math.fsum(ceilings)), rel=1e-9, abs=1e-12)
    below = [part for part, most in zip(parts.tolist(), ceilings, strict=True) if part < most * (1 - 1e-9)]
    assert all(part <= most for part, most in zip(parts.tolist(), ceilings, strict=True))
    assert all(part == pytest.approx(max(parts)) for part in below)


@some
@given(
    st.floats(0, 100),
    st.lists(st.tuples(st.floats(0, 50), st.floats(0, 1)), min_size=1, max_size=8),
)
def test_parts_in_proportion_keep_floors_and_use_the_total(total, clients):
    wants, floors = [want for want, _ in clients], [share * total / len(clients) for _, share in clients]
    parts = in_proportion(total, wants, floors)
    assert math.fsum(parts) <= total
    if any(want > 1e-6 for want in wants):
        assert math.fsum(parts) == pytest.approx(total, rel=1e-9, abs=1e-12)
    assert (parts >= np.array(floors) * (1 - 1e-9)).all()
    rates = [p / w for p, w, f in zip(parts.tolist(), wants, floors, strict=True) if w > 1e-6 and p > f * (1 + 1e-9)]
    assert rates == pytest.approx([max(rates)] * len(rates)) if rates and any(w > 1e-6 for w in wants) else True


# ---------------------------------------------------------------- a round, and a run

ALLOCATIONS = [
    EqualCount(0.01),
    EqualJoules(budget_j=7.0),
    EqualJoules(share=0.05),
    OnePrice(budget_j=7.0),
    OnePrice(share=0.05, least_share=0.5),
    OnePrice(budget_j=7.0, control="ascent"),
    OnePrice(share=0.05, control="ascent", least_share=0.3),
    OnePrice(budget_j=7.0, control="ascent", step=1.0, least_share=1.0),
]


def said(rng: np.random.Generator, exponent: int, asked: bool) -> Known | None:
    """What a client may have said: anything that is not nonsense."""
    if rng.random() < 0.15:
        return None
    m = int(rng.integers(0, 5))
    curve = Curve(np.sort(rng.lognormal(0, 3, m))[::-1].copy(), np.sort(rng.lognormal(0, 2, m)))
    return Known(
        examples=int(rng.integers(0, 1000)),
        dense_j=float(rng.lognormal(2, 2)),
        curve=None if rng.random() < 0.2 else curve,
        wanted_j=float(rng.choice([0.0, rng.lognormal(0, 4), 1e30])) if asked else None,
        margin=float(rng.choice([0.0, rng.lognormal(0, 4)])),
        exponent=exponent,
    )


@pytest.mark.parametrize("allocation", ALLOCATIONS, ids=repr)
@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 2**32 - 1), honest=st.booleans())
def test_caps_never_exceed_the_budget_whatever_clients_say(allocation, seed, honest):
    rng = np.random.default_rng(seed)
    books, exponent, clients = Books(), int(rng.integers(1, 3)), int(rng.integers(1, 8))
    for number in range(6):
        known = {10 * k: said(rng, exponent, number > 0) for k in range(clients)}
        before = books
        orders, books = hand_out(allocation, books, known)
        assert list(orders) == list(known)
        dense = math.fsum(each.dense_j for each in known.values() if each)
        budget = getattr(allocation, "budget_j", None) or allocation.share * dense
        carried = before.allowed_j - before.spent_j if getattr(allocation, "control", "") == "ascent" else 0.0
        caps = caps_of(orders)
        assert all(cap >= 0 for cap in caps)
        assert math.fsum(caps) <= max(0.0, budget + carried) * (1 + 1e-12)
        assert all(order.price is None or 0 <= order.price < math.inf for order in orders.values())
        spent = {}
        for client, order in orders.items():
            if rng.random() < 0.8 and known[client]:
                most = order.budget.budget if isinstance(order.budget, Joules) else known[client].dense_j
                spent[client] = float(rng.uniform(0, 1)) * most if honest else float(most * rng.choice([1, 1e9]))
        there = {client: each for client, each in known.items() if each}
        books = book(allocation, books, orders, spent, there)
        assert books.spent_j <= books.allowed_j * (1 + 1e-9) or not caps or isinstance(allocation, EqualCount)
        assert books.rounds == number + 1
        assert books.price is None or 0 <= books.price < math.inf


@pytest.mark.parametrize("control", ["curves", "ascent"])
def test_every_client_gets_its_floor(control):
    allocation = OnePrice(budget_j=12.0, control=control, least_share=0.5)
    worthless = Curve(np.array([1e-6, 1e-9]), np.array([1.0, 100.0]))
    known = {k: Known(10, 100.0, curve, w) for k, (curve, w) in enumerate([(FLAT, 90.0), (worthless, 0.0)])}
    orders, books = hand_out(allocation, Books(price=1.0), known)
    assert caps_of(orders) == pytest.approx([9.0, 3.0])
    after = book(allocation, books, orders, {0: 9.0, 1: 3.0}, known)
    assert after.spent_j == pytest.approx(12.0)
    assert control == "curves" or after.excess == pytest.approx(math.log((90.0 + 3.0) / 12.0))


def test_what_equal_clients_get_is_equal():
    known = {k: Known(10, 100.0, FLAT, 5.0) for k in range(4)}
    for allocation in (EqualJoules(budget_j=8.0), OnePrice(budget_j=8.0), OnePrice(budget_j=8.0, control="ascent")):
        orders, _ = hand_out(allocation, Books(price=1.0), known)
        assert caps_of(orders) == pytest.approx([2.0] * 4)
    orders, _ = hand_out(EqualCount(0.25), Books(), known)
    assert {order.budget for order in orders.values()} == {Density(0.25)}


def test_one_that_cannot_use_its_equal_part_leaves_it_to_the_others():
    known = {0: Known(1, dense_j=1.0), 1: Known(1, dense_j=100.0), 2: None}
    for allocation in (EqualJoules(budget_j=9.0), OnePrice(budget_j=9.0)):
        orders, _ = hand_out(allocation, Books(), known)
        assert caps_of(orders) == pytest.approx([1.0, 4.0, 4.0])


def test_a_client_that_is_not_known_gets_the_density_of_a_share_and_an_equal_part_of_joules():
    known = {0: None, 1: Known(10, dense_j=100.0, curve=FLAT)}
    for control in ("curves", "ascent"):
        orders, _ = hand_out(OnePrice(share=0.1, control=control), Books(), known)
        assert orders[0] == Order(Density(0.1))
        assert caps_of(orders) == pytest.approx([10.0])
        orders, _ = hand_out(OnePrice(budget_j=6.0, control=control), Books(), known)
        assert caps_of(orders) == pytest.approx([3.0, 3.0])
    orders, books = hand_out(OnePrice(share=0.1), Books(), {0: None})
    assert (orders, books) == ({0: Order(Density(0.1))}, Books())


def test_a_curve_of_zeros_does_not_shut_a_client_out_for_good():
    empty = Curve(np.empty(0), np.empty(0))
    orders, _ = hand_out(OnePrice(budget_j=8.0), Books(), {0: Known(1, 10.0, empty), 1: Known(1, 10.0, empty)})
    assert caps_of(orders) == pytest.approx([4.0, 4.0])


def test_curves_of_clients_without_weight_stop_nothing():
    known = {0: Known(0, 10.0, FLAT), 1: Known(10, 10.0)}
    orders, _ = hand_out(OnePrice(budget_j=8.0), Books(), known)
    assert caps_of(orders) == pytest.approx([2.0, 6.0])  # What no curve is worth goes to all alike.


def test_what_is_lost_counts_as_its_cap():
    known = {0: Known(1, 100.0, FLAT), 1: Known(1, 100.0, FLAT)}
    for allocation, lost in ((OnePrice(budget_j=8.0, control="ascent"), 4.0), (EqualJoules(share=0.1), 10.0)):
        orders, books = hand_out(allocation, Books(), known)
        assert book(allocation, books, orders, {0: 1.0}, known).spent_j == pytest.approx(1.0 + lost)


def test_what_a_round_left_goes_to_the_next_with_ascent_and_is_gone_with_curves():
    known = {0: Known(1, 100.0, FLAT, 5.0)}
    for control, expected in (("ascent", 14.0), ("curves", 10.0)):
        allocation = OnePrice(budget_j=10.0, control=control)
        orders, books = hand_out(allocation, Books(price=1.0), known)
        books = book(allocation, books, orders, {0: 6.0}, known)
        assert (books.allowed_j, books.spent_j, books.rounds) == (10.0, 6.0, 1)
        orders, _ = hand_out(allocation, books, known)
        assert caps_of(orders) == pytest.approx([expected])


def test_who_says_that_it_spent_more_than_its_cap_takes_nothing_from_the_others():
    allocation = OnePrice(budget_j=10.0, control="ascent")
    known = {0: Known(1, 100.0, wanted_j=5.0), 1: Known(1, 100.0, wanted_j=5.0)}
    orders, books = hand_out(allocation, Books(price=1.0), known)
    assert book(allocation, books, orders, {0: 1e30, 1: 5.0}, known).spent_j == pytest.approx(10.0)
    greedy = known | {0: Known(1, 100.0, wanted_j=1e30)}
    orders, _ = hand_out(allocation, books, greedy)
    assert caps_of(orders) == pytest.approx([10 * 100 / 105, 10 * 5 / 105])  # As much as all that it has.


@pytest.mark.parametrize("elasticity", [0.5, 1.0, 3.0])
def test_the_price_goes_where_clients_want_the_budget(elasticity):
    allocation, size = OnePrice(budget_j=10.0, control="ascent"), (1.0, 5.0, 20.0)
    known = {k: Known(100, 1e6, margin=10.0 ** (k + 1)) for k in range(3)}
    books = Books()
    for _ in range(25):
        orders, books = hand_out(allocation, books, known)
        caps = {client: order.budget.budget for client, order in orders.items()}
        for k, order in orders.items():
            wanted = None if order.price is None else min(1e6, size[k] * order.price**-elasticity)
            known[k] = replace(known[k], wanted_j=wanted)
        books = book(allocation, books, orders, caps, known)
    assert sum(each.wanted_j for each in known.values()) == pytest.approx(10.0, rel=0.01)
    assert caps == pytest.approx({k: 10.0 * size[k] / 26.0 for k in range(3)}, rel=0.02)
    assert books.spent_j == pytest.approx(250.0)


def test_the_price_of_a_client_is_the_common_one_over_its_weight_in_its_power():
    known = {0: Known(100, 10.0, wanted_j=1.0), 1: Known(300, 10.0, wanted_j=1.0), 2: None}
    for exponent, expected in ((1, [6.0, 2.0, 3.0]), (2, [36.0, 4.0, 9.0])):
        there = {k: each and replace(each, exponent=exponent) for k, each in known.items()}
        orders, _ = hand_out(OnePrice(budget_j=1.0, control="ascent"), Books(price=1.0), there)
        assert [order.price for order in orders.values()] == pytest.approx(expected)


def test_the_first_price_lies_between_what_the_last_joules_of_clients_bought():
    for exponent, prices in ((1, (0.25 * 8.0, 0.75 * 2.0)), (2, (0.0625 * 8.0, 0.5625 * 2.0))):
        known = {0: Known(100, 10.0, margin=8.0, exponent=exponent), 1: Known(300, 10.0, margin=2.0, exponent=exponent)}
        allocation = OnePrice(budget_j=1.0, control="ascent")
        orders, books = hand_out(allocation, Books(), known)
        assert [order.price for order in orders.values()] == [None, None]
        after = book(allocation, books, orders, {0: 0.5, 1: 0.5}, known)
        assert after.price == pytest.approx(math.sqrt(prices[0] * prices[1]))
        silent = {client: replace(each, margin=None) for client, each in known.items()}
        assert book(allocation, books, orders, {0: 0.5, 1: 0.5}, silent).price is None


def test_a_client_that_was_not_asked_yet_is_taken_to_want_what_the_others_do():
    known = {0: Known(1, 10.0, wanted_j=1.0), 1: Known(1, 10.0, wanted_j=3.0), 2: Known(1, 10.0), 3: None}
    orders, _ = hand_out(OnePrice(budget_j=8.0, control="ascent"), Books(price=1.0), known)
    assert caps_of(orders) == pytest.approx([1.0, 3.0, 2.0, 2.0])


def test_the_price_moves_by_those_that_were_heard_beside_their_part_of_the_target():
    allocation = OnePrice(budget_j=10.0, control="ascent")
    for wanted, price in ((5.0, 1.0), (20.0, 2.0), (1.25, 0.5)):
        known = {k: Known(1, 99.0, wanted_j=wanted) for k in range(2)}
        orders, books = hand_out(allocation, Books(price=1.0), known)
        # One of two is lost, and may have spent its 5: the next round may spend 10, half for the one that was heard.
        after = book(allocation, books, orders, {0: 5.0}, known | {1: Known(1, 99.0, wanted_j=50.0)})
        assert after.price == pytest.approx(price)
        assert book(allocation, books, orders, {}, known).price == 1.0


def test_what_a_density_spent_beyond_its_share_is_taken_from_the_next_rounds():
    allocation, dear = OnePrice(share=0.1, control="ascent"), Known(1, 100.0, wanted_j=4.0)
    orders, books = hand_out(allocation, Books(price=1.0), {0: None})
    books = book(allocation, books, orders, {0: 35.0}, {0: dear})  # Its tenth was in the dear tensors.
    spent = []
    for _ in range(4):
        orders, books = hand_out(allocation, books, {0: dear})
        spent += caps_of(orders)
        books = book(allocation, books, orders, {0: spent[-1]}, {0: dear})
    assert spent == pytest.approx([0.0, 0.0, 5.0, 10.0])


def test_a_step_that_went_too_far_halves_the_next_and_others_let_it_grow():
    allocation, known = OnePrice(budget_j=10.0, control="ascent"), {0: Known(1, 1e6)}
    books, seen = Books(price=1.0), []
    for wanted in (20.0, 5.0, 20.0, 20.0, 20.0):
        known = {0: replace(known[0], wanted_j=wanted)}
        orders, books = hand_out(allocation, books, known)
        books = book(allocation, books, orders, {0: 10.0}, known)
        seen.append(books.gain)
    assert seen == [1.0, 0.5, 0.25, 0.3125, 0.390625]
    assert math.log2(books.price) == pytest.approx(0.5 * (1.0 - 0.5 + 0.25 + 0.3125 + 0.390625))


# ---------------------------------------------------------------- against the oracle


@pytest.mark.parametrize("rule", RULES, ids=name_of)
@pytest.mark.parametrize("contrast", [10.0, 1000.0])
def test_one_price_comes_near_the_bound_of_the_pooled_oracle_and_equal_parts_do_not(rule, contrast):
    fleet = Fleet(rule, contrast)
    for share in (0.003, 0.1):
        budget = share * sum(each.dense_j for each in fleet.known().values())
        bound = pooled(fleet.updates(7), fleet.costs, fleet.weights, rule, budget).certificate.bound
        ratios = []
        for allocation, known in (
            (OnePrice(share=share), fleet.known(7)),
            (OnePrice(share=share), fleet.known(6)),
            (EqualJoules(share=share), fleet.known()),
            (EqualCount(share), fleet.known()),
        ):
            kept, value = fleet.obey(hand_out(allocation, Books(), known)[0], 7)
            assert math.fsum(each.spent for each in kept.values()) <= budget * (1 + 1e-9)
            ratios.append(value / bound)
        fresh, stale, joules, count = ratios
        assert 0.99 <= fresh <= 1.0
        assert 0.95 <= stale <= fresh
        assert max(joules, count) < fresh
        found = one_price([each.curve for each in fleet.known(7).values()], fleet.weights, rule.norm, budget)
        assert found.bound == pytest.approx(bound, rel=0.02)


@pytest.mark.parametrize("rule", RULES, ids=name_of)
def test_ten_rounds_of_ascent_come_near_the_bound_and_hold_the_budget(rule):
    fleet, allocation = Fleet(rule, 100.0, n=12_000), OnePrice(share=0.01, control="ascent")
    known, books, spent = fleet.known(), Books(), []
    budget, curves = 0.01 * sum(each.dense_j for each in known.values()), fleet.known(0)
    for number in range(11):
        orders, books = hand_out(allocation, books, known)
        kept, value = fleet.obey(orders, number)
        for k, order in orders.items():
            if order.price is None:
                known[k] = replace(known[k], margin=curves[k].curve.price_at(kept[k].spent))
            else:
                known[k] = replace(known[k], wanted_j=fleet.wanted(order, k, number))
        books = book(allocation, books, orders, {k: each.spent for k, each in kept.items()}, known)
        spent.append(sum(each.spent for each in kept.values()))
    bound = pooled(fleet.updates(10), fleet.costs, fleet.weights, rule, budget).certificate.bound
    assert value >= 0.95 * bound
    assert all(total <= (number + 1) * budget * (1 + 1e-9) for number, total in enumerate(accumulate(spent)))
    assert all(each == pytest.approx(budget, rel=0.02) for each in spent)


@pytest.mark.parametrize("rule", RULES, ids=name_of)
def test_ascent_stays_near_the_bound_where_residuals_wait_just_below_the_price(rule):
    # With feedback and 1 % sent, a coordinate waits about a hundred rounds: a tenth off the price is ten rounds' worth.
    rng, n, clients = np.random.default_rng(3), 3_000, 4
    costs = [Costs.of(factor, Layout.single(n)) for factor in np.geomspace(1.0, 100.0, clients)]
    steady, residuals = rng.laplace(size=(clients, n)), np.zeros((clients, n), np.float32)
    known = {k: Known(100, n * float(costs[k].per_kept[0]), exponent=rule.norm) for k in range(clients)}
    allocation, books, ratios = OnePrice(share=0.01, control="ascent"), Books(), []
    budget = 0.01 * sum(each.dense_j for each in known.values())
    for number in range(80):
        a = residuals + (steady + 0.3 * rng.laplace(size=(clients, n))).astype(np.float32)
        orders, books = hand_out(allocation, books, known)
        kept = {k: select(a[k], costs[k], rule, order.budget) for k, order in orders.items()}
        for k, order in orders.items():
            if order.price is None:
                known[k] = replace(known[k], margin=curve_of(a[k], costs[k], rule).price_at(kept[k].spent))
            else:
                known[k] = replace(known[k], wanted_j=select(a[k], costs[k], rule, Price(order.price)).spent)
        books = book(allocation, books, orders, {k: each.spent for k, each in kept.items()}, known)
        if number >= 30:
            value = sum(mass(each.values, rule.norm) for each in kept.values()) / clients**rule.norm
            ratios.append(value / pooled(a, costs, [1 / clients] * clients, rule, budget).certificate.bound)
        residuals = a
        for k, each in kept.items():
            residuals[k, each.indices] = 0.0
    assert np.mean(ratios) >= 0.98
    assert min(ratios) >= 0.9
    assert books.gain < 1.0


# ---------------------------------------------------------------- bad input


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"examples": -1}, "examples = -1"),
        ({"examples": 2**60}, "examples"),
        ({"dense_j": math.nan}, "dense_j = nan, expected a finite number above 0"),
        ({"dense_j": 0.0}, "dense_j = 0.0"),
        ({"dense_j": -2.0}, "dense_j = -2.0"),
        ({"dense_j": math.inf}, "dense_j = inf"),
        ({"wanted_j": math.nan}, "wanted_j = nan, expected a finite number of at least 0"),
        ({"wanted_j": -1.0}, "wanted_j"),
        ({"wanted_j": math.inf}, "wanted_j"),
        ({"margin": math.nan}, "margin"),
        ({"margin": -1.0}, "margin"),
        ({"exponent": 3}, "exponent = 3"),
    ],
)
def test_nonsense_is_refused_and_its_client_named(wrong, message):
    known = {7: Known(**({"examples": 1, "dense_j": 1.0} | wrong)), 8: Known(1, 1.0)}
    allocation = OnePrice(budget_j=1.0)
    with pytest.raises(PayloadError, match=f"client 7 reports {message}"):
        hand_out(allocation, Books(), known)
    with pytest.raises(PayloadError, match=f"client 7 reports {message}"):
        book(allocation, Books(), {7: Order(Joules(1.0))}, {}, known)


def test_nonsense_about_spending_is_refused_and_its_client_named():
    known, orders = {7: Known(1, 1.0)}, {7: Order(Joules(1.0))}
    for claim in (-1.0, math.nan, math.inf):
        with pytest.raises(PayloadError, match="client 7 reports spent_j"):
            book(EqualJoules(budget_j=1.0), Books(), orders, {7: claim}, known)
    with pytest.raises(PayloadError, match=r"client 9 reports spent_j = 1\.0, expected nothing"):
        book(EqualJoules(budget_j=1.0), Books(), orders, {9: 1.0}, known)


def test_two_norms_and_a_price_that_overflows_are_errors_that_name_clients():
    known = {3: Known(1, 1.0, FLAT), 4: Known(1, 1.0, FLAT, exponent=2)}
    for control in ("curves", "ascent"):
        with pytest.raises(FederationError, match="client 3 measures value in magnitudes and client 4 in squares"):
            hand_out(OnePrice(budget_j=1.0, control=control), Books(), known)
    known = {3: Known(1, 1.0, wanted_j=1.0, exponent=2), 4: Known(2**50, 1.0, wanted_j=1.0, exponent=2)}
    with pytest.raises(FederationError, match="overflows for client 3"):
        hand_out(OnePrice(budget_j=1.0, control="ascent"), Books(price=1e290), known)


def test_settings_out_of_range_are_refused_before_a_run():
    for make, message in (
        (lambda: EqualCount(0.0), r"EqualCount\(share\) must be above 0 and at most 1, but is 0.0"),
        (lambda: EqualCount(math.nan), "EqualCount"),
        (EqualJoules, "needs one of budget_j and share"),
        (lambda: EqualJoules(1.0, 0.5), "needs one of budget_j and share"),
        (lambda: OnePrice(budget_j=-1.0), r"OnePrice\(budget_j\) must be finite and above 0"),
        (lambda: OnePrice(budget_j=math.inf), "finite"),
        (lambda: OnePrice(share=1.5), r"OnePrice\(share\)"),
        (lambda: OnePrice(share=0.1, step=0.0), r"OnePrice\(step\)"),
        (lambda: OnePrice(share=0.1, least_share=1.1), "floors of all clients would exceed the budget"),
    ):
        with pytest.raises(RuleError, match=message):
            make()


def test_allocations_are_read_by_name():
    for allocation in ALLOCATIONS:
        assert msgspec.convert(msgspec.to_builtins(allocation), Allocation) == allocation
    assert msgspec.convert({"name": "OnePrice", "share": 0.01}, Allocation) == OnePrice(share=0.01)
    with pytest.raises(msgspec.ValidationError, match="unknown field"):
        msgspec.convert({"name": "OnePrice", "share": 0.01, "gain": 1}, Allocation)
