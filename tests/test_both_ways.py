"""A fleet's budget for both directions: what receivers pay for the union of the masks is in it, once."""

import math
from dataclasses import replace
from itertools import product

import numpy as np
import pytest
from fleet_cases import Fleet, curves
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from joulewise.bothways import one_price_both_ways
from joulewise.curves import Curve
from joulewise.errors import PayloadError, RuleError
from joulewise.fleet import Books, EqualCount, EqualJoules, Known, OnePrice, Order, book, hand_out, one_price
from joulewise.reception import MOST_ALIKE, Reception, likeness_of, union_of
from joulewise.rules import CWMP, Density, Joules, Projection

some = settings(max_examples=25, deadline=None)
FLAT = Curve(np.array([4.0, 1.0]), np.array([1.0, 100.0]))


@st.composite
def fleets(draw):
    """Curves, weights, exponent, what masks cost both ways, and a budget that does not pay for everything."""
    every = draw(st.lists(curves(), min_size=1, max_size=5))
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    ends = np.array([curve.energies_j.max(initial=0.0) for curve in every])
    dense = ends * rng.choice([1.0, 1.5, 10.0], len(every)) + rng.choice([1e-3, 1.0], len(every))
    receiving = float(rng.choice([0.0, 0.1, 1.0, 10.0, 1e4])) * math.fsum(dense)
    both = Reception(dense, receiving, float(rng.choice([0.0, 0.3, 30.0, 1e6])))
    weights = rng.dirichlet(np.ones(len(every))).tolist()
    return every, weights, draw(st.sampled_from([1, 2])), both, draw(st.integers(0, 1000)) / 1000 * both.total_j(ends)


def smooth(rng, size, price):
    """The curve of `size` coordinates that cost `price` each, with values of a log-normal law."""
    worth = np.sort(rng.lognormal(0.0, 1.5, size) * 2.0)[::-1] / price
    return Curve(worth, price * np.arange(1, size + 1, dtype=np.float64))


# ---------------------------------------------------------------- what is counted


def test_the_union_is_what_all_ways_in_which_clients_may_keep_a_coordinate_say():
    densities, dense = np.array([0.3, 0.01, 0.8]), np.array([2.0, 70.0, 5.0])
    chance = sum(
        np.prod([q if each else 1 - q for q, each in zip(densities, kept, strict=True)])
        for kept in product([False, True], repeat=3)
        if any(kept)
    )
    both = Reception(dense, 11.0)
    assert both.union(densities * dense) == pytest.approx(chance, rel=1e-12)
    assert both.total_j(densities * dense) == pytest.approx((densities * dense).sum() + 11.0 * chance, rel=1e-12)
    assert both.union(dense) == 1.0
    assert both.union(np.zeros(3)) == 0.0


def test_independent_masks_cost_what_is_predicted():
    rng, n, dense = np.random.default_rng(0), 200_000, np.array([1.0, 10.0, 100.0])
    masks = rng.random((3, n)) < np.array([[0.3], [0.05], [0.01]])
    both, energies = Reception(dense, 50.0), masks.mean(axis=1) * dense
    real = energies.sum() + 50.0 * masks.any(axis=0).mean()
    assert both.total_j(energies) == pytest.approx(real, rel=0.005)


@pytest.mark.parametrize("likeness", [0.5, 2.0])
def test_masks_that_agree_on_what_is_likely_cost_what_is_predicted_and_are_told_by_their_union(likeness):
    rng, n, wanted = np.random.default_rng(0), 400_000, np.array([0.3, 0.05, 0.01, 0.02])
    popular = rng.gamma(1 / likeness, likeness, n)  # Of mean 1 and this variance.
    rates = ((1 - wanted) ** -likeness - 1) / likeness
    masks = rng.random((4, n)) < -np.expm1(-np.outer(rates, popular))
    assert masks.mean(axis=1) == pytest.approx(wanted, rel=0.05)
    union = float(masks.any(axis=0).mean())
    assert union < 0.99 * union_of(wanted)
    assert union_of(masks.mean(axis=1), likeness) == pytest.approx(union, rel=0.005)
    assert likeness_of(masks.mean(axis=1), union) == pytest.approx(likeness, rel=0.15)


@some
@given(st.lists(st.floats(0, 1), min_size=1, max_size=6), st.floats(0, MOST_ALIKE), st.floats(0, MOST_ALIKE))
def test_the_union_lies_between_that_of_independent_masks_and_the_largest_mask(densities, one, other):
    kept, (less, more) = np.array(densities), sorted([one, other])
    most, least = union_of(kept), kept.max()
    assert least * (1 - 1e-9) <= union_of(kept, more) <= union_of(kept, less) + 1e-12
    assert union_of(kept, less) <= most + 1e-12
    assert union_of(kept, MOST_ALIKE) <= least + 1e-5
    assert likeness_of(kept, most) == 0.0


@some
@given(st.integers(0, 2**32 - 1), st.sampled_from([0.0, 0.3, 3.0, 30.0]))
def test_a_coordinate_more_costs_receivers_what_the_price_says(seed, likeness):
    q = np.random.default_rng(seed).uniform(0.001, 0.9, 4)
    unsent = 1 - union_of(q, likeness)
    for client in range(4):
        more = q.copy()
        more[client] += 1e-6
        gain = (union_of(more, likeness) - union_of(q, likeness)) / 1e-6
        assert gain == pytest.approx((unsent / (1 - q[client])) ** (1 + likeness), rel=1e-3, abs=1e-6)


@some
@given(fleets())
def test_both_ways_together_never_exceed_the_budget_and_meet_it_where_curves_allow(fleet):
    every, weights, exponent, both, budget = fleet
    found = one_price_both_ways(every, weights, exponent, budget, both)
    ends = np.array([curve.energies_j.max(initial=0.0) for curve in every])
    assert both.total_j(found.energies_j) <= budget
    assert both.total_j(found.energies_j) == pytest.approx(min(budget, both.total_j(ends)), rel=1e-9, abs=1e-300)
    assert (found.energies_j >= 0).all()
    assert (found.energies_j <= ends).all()
    assert found.downlink_j == both.downlink_j(found.energies_j)
    equal = both.raised(np.zeros(len(every)), budget)
    assert both.total_j(equal) <= budget
    assert both.total_j(equal) == pytest.approx(min(budget, both.total_j(both.dense_j)), rel=1e-9, abs=1e-300)


@some
@given(fleets(), st.floats(1.0, 3.0))
def test_a_larger_budget_never_keeps_less(fleet, more):
    every, weights, exponent, both, budget = fleet
    one, other = (one_price_both_ways(every, weights, exponent, each, both) for each in (budget, budget * more))
    assert other.value >= one.value * (1 - 1e-9)


@some
@given(fleets(), st.sampled_from([0.0, 1e-9]))
def test_without_receivers_it_is_one_price_of_the_uplink(fleet, little):
    every, weights, exponent, both, budget = fleet
    assume(any(weight and curve.prices.size for weight, curve in zip(weights, every, strict=True)))
    both = replace(both, receiving_j=little * budget)
    ours, theirs = (
        one_price_both_ways(every, weights, exponent, budget, both),
        one_price(every, weights, exponent, budget),
    )
    assert ours.value == pytest.approx(theirs.value, rel=1e-6, abs=1e-12)
    if not little:
        assert ours.energies_j == pytest.approx(theirs.energies_j, rel=1e-9, abs=1e-12)
        assert ours.price == pytest.approx(theirs.price, rel=1e-6)


@pytest.mark.parametrize("exponent", [1, 2])
def test_where_receivers_pay_nearly_all_the_dear_link_keeps_as_much_as_the_cheap_one(exponent):
    rng = np.random.default_rng(1)
    base = smooth(rng, 400, 1.0)
    prices = [1.0, 10.0, 100.0]
    every = [Curve(base.prices / price, base.energies_j * price) for price in prices]
    dense = np.array([400.0 * price for price in prices])
    spreads = []
    for times in (0.0, 1.0, 1e3, 1e6):
        both = Reception(dense, times * dense.sum())
        budget = both.total_j(0.02 * dense)
        kept = one_price_both_ways(every, [1 / 3] * 3, exponent, budget, both).energies_j / dense
        spreads.append(kept.max() / kept.min())
    assert spreads == sorted(spreads, reverse=True)
    assert spreads[0] > 20
    assert spreads[-1] < 1.01


@pytest.mark.parametrize("likeness", [0.0, 30.0])
def test_the_last_joule_of_both_directions_buys_every_client_as_much(likeness):
    rng = np.random.default_rng(2)
    prices, weights = np.array([1.0, 10.0, 10.0]), [0.6, 0.1, 0.3]
    every = [smooth(rng, 600, price) for price in prices]
    both = Reception(600 * prices, 1e6 * 600 * prices.sum(), likeness)
    energies = one_price_both_ways(every, weights, 1, both.total_j(0.03 * both.dense_j), both).energies_j
    q = energies / both.dense_j
    assert q.max() > 2 * q.min() > 0
    gains = [w * curve.price_at(energy) for w, curve, energy in zip(weights, every, energies.tolist(), strict=True)]
    # What receivers pay for a coordinate is all that counts here.
    bought = np.array(gains) * both.dense_j * (1 - q) ** (1 + likeness)
    assert bought == pytest.approx(np.full(3, bought[0]), rel=0.05)


# ---------------------------------------------------------------- how near the best


def best_by_force(every, scales, both, budget):
    """The most that any masks of whole coordinates keep within the budget."""
    best = 0.0
    for counts in product(*(range(curve.prices.size + 1) for curve in every)):
        energies = np.array([curve.energies_j[c - 1] if c else 0.0 for curve, c in zip(every, counts, strict=True)])
        if both.total_j(energies) <= budget:
            kept = [
                scale * float(curve.prices[:c] @ np.diff(curve.energies_j[:c], prepend=0.0))
                for scale, curve, c in zip(scales, every, counts, strict=True)
            ]
            best = max(best, math.fsum(kept))
    return best


@pytest.mark.parametrize(
    ("times", "likeness"), [(0.0, 0.0), (0.1, 0.0), (1.0, 0.0), (10.0, 0.0), (1.0, 3.0), (10.0, 30.0)]
)
@settings(max_examples=5, deadline=None)
@given(seed=st.integers(0, 2**32 - 1), share=st.floats(0.02, 0.9))
def test_no_masks_of_a_small_fleet_keep_much_more(times, likeness, seed, share):
    rng = np.random.default_rng(seed)
    prices = np.array([1.0, float(rng.choice([3.0, 10.0])), float(rng.choice([10.0, 100.0]))])
    every = [smooth(rng, 16, price) for price in prices]
    dense = 16 * prices
    both = Reception(dense, times * dense.sum(), likeness)
    budget = share * both.total_j(dense)
    scales = rng.dirichlet(np.full(3, 3.0))
    found = one_price_both_ways(every, scales.tolist(), 1, budget, both)
    assert found.value >= 0.97 * best_by_force(every, scales, both, budget)


@settings(max_examples=10, deadline=None)
@given(seed=st.integers(0, 2**32 - 1), times=st.sampled_from([0.1, 1.0, 10.0]), share=st.floats(0.01, 0.5))
def test_it_never_keeps_less_than_the_uplinks_price_nor_equal_parts_at_the_same_total(seed, times, share):
    rng = np.random.default_rng(seed)
    prices = rng.choice([1.0, 10.0, 100.0], 4)
    every = [smooth(rng, 64, price) for price in prices]
    dense = 64 * prices
    both = Reception(dense, times * dense.sum())
    budget = share * both.total_j(dense)
    found = one_price_both_ways(every, [0.25] * 4, 1, budget, both)
    low, high = 0.0, budget
    for _ in range(60):
        middle = 0.5 * (low + high)
        plain = one_price(every, [0.25] * 4, 1, middle)
        low, high = (middle, high) if both.total_j(plain.energies_j) <= budget else (low, middle)
    equal = both.raised(np.zeros(4), budget)
    count = both.between(np.zeros(4), dense, budget)
    for other in (one_price(every, [0.25] * 4, 1, low).energies_j, equal, count):
        kept = 0.25 * math.fsum(curve.value_at(energy) for curve, energy in zip(every, other.tolist(), strict=True))
        assert found.value >= 0.995 * kept


# ---------------------------------------------------------------- a fleet's rounds


def known_fleet(receive_j=30.0, clients=4):
    links = [1.0, 1.0, 10.0, 100.0][:clients]
    return {
        k: Known(10, 100.0 * c, Curve(FLAT.prices / c, FLAT.energies_j * c), receive_j=receive_j)
        for k, c in enumerate(links)
    }


TOTAL_J = 100.0 * (1.0 + 1.0 + 10.0 + 100.0) + 4 * 30.0
"""Of sending and receiving everything in `known_fleet`."""


def counted(orders, known, receiving, likeness=0.0):
    both = Reception(np.array([known[k].dense_j for k in orders]), receiving, likeness)
    return both.total_j(np.array([order.budget.budget for order in orders.values()]))


BOTH = (
    EqualJoules(share=0.1, counts="both"),
    EqualJoules(share=0.008, counts="both"),
    OnePrice(share=0.1, counts="both"),
    OnePrice(share=0.008, counts="both"),
    OnePrice(share=0.008, counts="both", least_share=0.5),
)


@pytest.mark.parametrize("allocation", BOTH, ids=repr)
def test_caps_and_the_predicted_downlink_are_the_budget(allocation):
    known = known_fleet()
    orders, books = hand_out(allocation, Books(), known)
    budget = allocation.share * sum(each.dense_j + each.receive_j for each in known.values())
    assert counted(orders, known, 120.0) <= budget
    assert counted(orders, known, 120.0) == pytest.approx(budget, rel=1e-9)
    assert books.awaited_j == pytest.approx(counted(orders, known, 120.0) - counted(orders, known, 0.0), rel=1e-9)
    assert math.fsum(order.budget.budget for order in orders.values()) < budget


@pytest.mark.parametrize("kind", [EqualJoules, OnePrice])
def test_where_no_device_prices_a_downlink_both_is_the_uplink(kind):
    known = known_fleet(receive_j=0.0)
    one, other = (hand_out(kind(share=0.1, counts=each), Books(), known) for each in ("uplink", "both"))
    assert one == other


def test_every_client_gets_its_floor_of_an_equal_part():
    known = known_fleet()
    worthless = Curve(np.array([1e-6, 1e-9]), np.array([1.0, 100.0]))
    known[3] = replace(known[3], curve=worthless, dense_j=100.0)
    equal, _ = hand_out(EqualJoules(share=50.0 / TOTAL_J, counts="both"), Books(), known)
    orders, _ = hand_out(OnePrice(share=50.0 / TOTAL_J, counts="both", least_share=0.5), Books(), known)
    assert orders[3].budget.budget == pytest.approx(0.5 * equal[3].budget.budget)


def test_one_without_a_curve_gets_its_equal_part():
    known = known_fleet()
    known[1] = replace(known[1], curve=None)
    equal, _ = hand_out(EqualJoules(share=50.0 / TOTAL_J, counts="both"), Books(), known)
    orders, _ = hand_out(OnePrice(share=50.0 / TOTAL_J, counts="both"), Books(), known)
    assert orders[1].budget.budget == pytest.approx(equal[1].budget.budget)
    assert counted(orders, known, 120.0) == pytest.approx(50.0)


def test_what_curves_leave_goes_to_all_alike():
    known = {k: replace(each, curve=Curve(np.empty(0), np.empty(0))) for k, each in known_fleet().items()}
    equal, _ = hand_out(EqualJoules(share=50.0 / TOTAL_J, counts="both"), Books(), known)
    orders, _ = hand_out(OnePrice(share=50.0 / TOTAL_J, counts="both"), Books(), known)
    assert [each.budget.budget for each in orders.values()] == pytest.approx([e.budget.budget for e in equal.values()])


@pytest.mark.parametrize("kind", [EqualJoules, OnePrice])
@pytest.mark.parametrize("strangers", [1, 3, 4])
def test_a_share_holds_with_clients_that_are_not_known_yet(kind, strangers):
    known = known_fleet()
    told = {k: None if k < strangers else each for k, each in known.items()}
    orders, books = hand_out(kind(share=0.2, counts="both"), Books(), told)
    assert [orders[k] for k in range(strangers)] == [Order(Density(0.05))] * strangers
    energies = np.array(
        [
            o.budget.budget if isinstance(o.budget, Joules) else o.budget.fraction * known[k].dense_j
            for k, o in orders.items()
        ]
    )
    both = Reception(np.array([each.dense_j for each in known.values()]), 120.0)
    assert both.total_j(energies) <= 0.2 * (120.0 + both.dense_j.sum())
    assert strangers == 4 or books.awaited_j >= both.downlink_j(energies)


@pytest.mark.parametrize("kind", [EqualJoules, OnePrice])
def test_a_budget_in_joules_is_refused_as_nothing_would_bound_the_first_round(kind):
    with pytest.raises(RuleError, match=r"counts='both'\) has budget_j=8.0.*use share, or counts='uplink'"):
        kind(budget_j=8.0, counts="both")
    kind(budget_j=8.0)


@pytest.mark.parametrize("fraction", [0.3, 1.0])
def test_one_mask_alone_says_nothing_of_how_alike_masks_are(fraction):
    allocation, known = EqualJoules(share=0.05, counts="both"), known_fleet()
    before = Books(likeness=2.0, overlap=0.7)
    orders, books = hand_out(allocation, before, known)
    spent = fraction * orders[2].budget.budget
    for others in ({}, {0: 0.0, 1: 0.0}):
        # A header is in what it spent, so that its mask is smaller than that share.
        after = book(allocation, books, orders, {2: spent, **others}, known, union=0.98 * spent / known[2].dense_j)
        assert (after.likeness, after.overlap) == (2.0, 0.7)
    two = book(allocation, books, orders, {2: spent, 3: 1.0}, known, union=0.98 * spent / known[2].dense_j)
    assert two.overlap != 0.7


@some
@given(st.lists(st.floats(0.001, 1.0), min_size=2, max_size=4), st.floats(1e-6, 1.0), st.floats(0.3, 1.0))
def test_what_is_learned_of_masks_is_of_one_piece(shares, union, before):
    known = {k: Known(10, 100.0, receive_j=30.0) for k in range(len(shares))}
    allocation = EqualJoules(share=0.5, counts="both")
    orders = {k: Order(Joules(100.0)) for k in known}
    spent = {k: 100.0 * share for k, share in enumerate(shares)}
    books = book(allocation, Books(overlap=before), orders, spent, known, union)
    kept = np.array(shares)
    assert (books.likeness == 0.0) == (books.overlap == 1.0)
    if books.likeness < MOST_ALIKE:
        assert union_of(kept, books.likeness) == pytest.approx(books.overlap * union_of(kept), rel=1e-6)
    # The next division is predicted by the same likeness.
    orders, after = hand_out(allocation, books, known)
    independent = union_of(np.array([order.budget.budget / 100.0 for order in orders.values()]))
    assert after.awaited_j <= 30.0 * len(shares) * independent * (1 + 1e-9)
    assert books.overlap < 1 or after.awaited_j == pytest.approx(30.0 * len(shares) * independent)


def test_a_lost_reply_to_a_density_counts_as_that_share_of_everything():
    known = {k: Known(10, 100.0 * (k + 1), receive_j=30.0) for k in range(3)}
    orders = {0: Order(Density(0.05)), 1: Order(Density(0.05)), 2: Order(Joules(7.0))}
    for allocation in (EqualCount(0.05), EqualJoules(share=0.05, counts="both")):
        books = book(allocation, Books(), orders, {0: 3.0}, known, union=0.0)
        assert books.spent_j == pytest.approx(3.0 + 0.05 * 200.0 + 7.0)
    # One that is heard may have spent more: it was given no energy.
    assert book(EqualCount(0.05), Books(), orders, {0: 3.0, 1: 30.0, 2: 7.0}, known).spent_j == pytest.approx(40.0)


@pytest.mark.parametrize("kind", [EqualJoules, OnePrice])
def test_masks_that_are_larger_than_their_energies_tell_are_paid_for_over_the_rounds(kind):
    curve = smooth(np.random.default_rng(0), 50, 2.0)
    known = {k: Known(100, 100.0, curve, receive_j=100.0) for k in range(10)}
    allocation, books, costs = kind(share=0.02, counts="both"), Books(), []
    for _ in range(15):
        orders, books = hand_out(allocation, books, known)
        caps = {k: order.budget.budget for k, order in orders.items()}
        union = union_of(np.minimum(1.0, 5.0 * np.array(list(caps.values())) / 100.0))
        costs.append((math.fsum(caps.values()) + 1000.0 * union) / 40.0)
        books = book(allocation, books, orders, caps, known, union)
    assert costs[0] > 3
    assert books.spent_j <= 1.3 * books.allowed_j


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("dense_j", [5e-324, 1e-300, 1e-3])
def test_a_claim_as_small_as_numbers_are_divides_without_overflow(dense_j):
    known = known_fleet() | {2: Known(10, dense_j, FLAT, receive_j=30.0)}
    for kind in (EqualJoules, OnePrice):
        orders, books = hand_out(kind(share=0.05, counts="both"), Books(), known)
        assert all(0 <= order.budget.budget < math.inf for order in orders.values())
        assert books.awaited_j >= 0


def test_the_books_say_what_was_predicted_and_what_the_union_cost():
    allocation, known = OnePrice(share=90.0 / TOTAL_J, counts="both"), known_fleet()
    orders, books = hand_out(allocation, Books(), known)
    spent = {k: order.budget.budget for k, order in orders.items()}
    uplink, awaited = math.fsum(spent.values()), books.awaited_j
    books = book(allocation, books, orders, spent, known, union=0.25)
    assert (books.predicted_j, books.received_j, books.awaited_j) == (awaited, 0.25 * 120.0, 0.0)
    assert books.spent_j == pytest.approx(uplink + 30.0)
    assert books.allowed_j == pytest.approx(90.0)
    alike = books.likeness
    assert 0 < alike < MOST_ALIKE
    densities = np.array([spent[k] / each.dense_j for k, each in known.items()])
    assert union_of(densities, alike) == pytest.approx(books.overlap * union_of(densities))
    orders, books = hand_out(allocation, books, known)
    caps = np.array([order.budget.budget for order in orders.values()])
    expected = books.overlap * union_of(caps / [each.dense_j for each in known.values()])
    assert books.overlap == pytest.approx(0.5 + 0.5 * 0.25 / union_of(densities))
    assert books.awaited_j == pytest.approx(120.0 * expected)
    assert 0.95 * 90.0 <= caps.sum() + books.awaited_j <= 90.0
    first, awaited = books.predicted_j, books.awaited_j
    spent = {k: order.budget.budget for k, order in orders.items()}
    books = book(allocation, books, orders, spent, known)  # Nobody knows what it was: as predicted.
    assert (books.likeness, books.overlap) == (alike, pytest.approx(0.5 + 0.5 * 0.25 / union_of(densities)))
    assert books.received_j == pytest.approx(30.0 + awaited)
    assert books.predicted_j == pytest.approx(first + awaited)
    greedy = dict.fromkeys(spent, 1e9)  # Who claims more than its part has kept no more than that buys.
    orders, books = hand_out(allocation, books, known)
    spent = {k: order.budget.budget for k, order in orders.items()}
    honest, other = (book(allocation, books, orders, each, known, union=0.28) for each in (spent, greedy))
    assert 0 < honest.likeness < MOST_ALIKE
    assert honest == other
    plain = OnePrice(budget_j=90.0)
    orders, books = hand_out(plain, Books(), known)
    assert book(plain, books, orders, {}, known, union=1.0).received_j == 0.0


def test_what_a_union_cost_too_much_is_taken_from_the_next_round():
    allocation, known = OnePrice(share=90.0 / TOTAL_J, counts="both"), known_fleet()
    orders, books = hand_out(allocation, Books(), known)
    spent = {k: order.budget.budget for k, order in orders.items()}
    books = replace(book(allocation, books, orders, spent, known, union=1.0), allowed_j=150.0, spent_j=160.0)
    assert (books.overlap, books.likeness) == (1.0, 0.0)
    debt = books.spent_j - books.allowed_j
    assert debt == 10.0
    orders, _ = hand_out(allocation, books, known)
    assert counted(orders, known, 120.0) == pytest.approx(90.0 - debt)
    deeper = replace(books, spent_j=books.spent_j + 1e6)
    orders, _ = hand_out(allocation, deeper, known)
    assert counted(orders, known, 120.0) == pytest.approx(4.5)


def test_claims_of_receiving_that_cannot_be_are_refused():
    for wrong in (-1.0, math.nan, math.inf, 1e101):
        known = known_fleet() | {2: Known(10, 1.0, FLAT, receive_j=wrong)}
        with pytest.raises(PayloadError, match="client 2 reports receive_j"):
            hand_out(OnePrice(share=0.1, counts="both"), Books(), known)


@pytest.mark.parametrize("allocation", BOTH, ids=repr)
@settings(max_examples=12, deadline=None)
@given(seed=st.integers(0, 2**32 - 1))
def test_whatever_clients_claim_both_ways_stay_within_the_budget(allocation, seed):
    rng = np.random.default_rng(seed)
    known = {
        k: Known(
            int(rng.integers(0, 100)),
            float(10 ** rng.uniform(-9, 9)),
            None if rng.random() < 0.2 else Curve(FLAT.prices, FLAT.energies_j * 10 ** rng.uniform(-9, 9)),
            receive_j=float(rng.choice([0.0, 10 ** rng.uniform(-9, 30), 1e100])),
        )
        for k in range(int(rng.integers(1, 6)))
    }
    orders, books = hand_out(allocation, Books(), known)
    caps = [order.budget.budget for order in orders.values()]
    assert all(0 <= cap < math.inf for cap in caps)
    receiving = math.fsum(each.receive_j for each in known.values())
    budget = allocation.share * (math.fsum(k.dense_j for k in known.values()) + receiving)
    assert counted(orders, known, receiving) <= budget * (1 + 1e-12)
    assert 0 <= books.awaited_j <= budget * (1 + 1e-12)


def test_ascent_cannot_count_both_and_says_what_can():
    with pytest.raises(RuleError, match=r"needs the clients' curves.*use control='curves'"):
        OnePrice(share=0.1, control="ascent", counts="both")


# ---------------------------------------------------------------- real masks


@pytest.mark.parametrize("rule", [CWMP(), Projection()], ids=lambda rule: type(rule).__name__)
def test_with_dear_receivers_both_keeps_more_than_the_uplinks_price_at_the_same_real_energy(rule):
    fleet = Fleet(rule, 100.0, clients=4, n=8000)
    known = {k: replace(each, receive_j=10 * each.dense_j) for k, each in fleet.known(0).items()}
    receiving = math.fsum(each.receive_j for each in known.values())

    def real(allocation):
        orders, _ = hand_out(allocation, Books(), known)
        kept, value = fleet.obey(orders, 0)
        union = np.unique(np.concatenate([mask.indices for mask in kept.values()])).size / fleet.n
        return math.fsum(mask.spent for mask in kept.values()) + receiving * union, value

    energy, value = real(OnePrice(share=0.02, counts="both"))
    assert energy <= 0.02 * (receiving + math.fsum(each.dense_j for each in known.values())) * 1.02
    low, high = 0.0, energy
    for _ in range(40):
        middle = 0.5 * (low + high)
        low, high = (middle, high) if real(OnePrice(budget_j=middle))[0] <= energy else (low, middle)
    assert value > 1.1 * real(OnePrice(budget_j=low))[1]
