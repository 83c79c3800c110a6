"""Prices at each tensor's own density under every budget, and messages that fit with few passes over the update."""

from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest
from budget_cases import update_of
from hypothesis import given, settings
from hypothesis import strategies as st
from test_costs import SMALL
from test_hand_computed_rounds import MICROCONTROLLER

from joulewise import marginal, message, order
from joulewise.compress import Compressor
from joulewise.costs import Block, Costs, Term
from joulewise.devices import load_device
from joulewise.explain import explain
from joulewise.layout import Layout
from joulewise.ledger import MASK_TERMS, total
from joulewise.marginal import marginal_prices
from joulewise.order import Order
from joulewise.prices import price
from joulewise.rules import CWMP, Bytes, Count, Dense, Density, Joules, MinVariance, Price, Projection, RandomK, TopK
from joulewise.select import select

PHONE = load_device("phone-lte-2021")
WEIGHED = [CWMP(), Projection()]
ORDERED = [TopK(), CWMP(), Projection(), RandomK(), RandomK(scale=True)]
# One tensor of large entries, one of small ones: TopK takes more of the first.
MODEL = Layout.of({"large.weight": np.ones((40, 25)), "small.weight": np.ones((60, 50))})
UPDATE = (np.random.default_rng(3).standard_normal(MODEL.n) * np.repeat([1.0, 0.5], MODEL.sizes)).astype(np.float32)


def at_own_densities(budget) -> Costs:
    """Worked out again: TopK's count in each tensor, and 26 bits of a value and of its place by that density."""
    kept = np.argsort(-np.abs(UPDATE), kind="stable")[: budget.count(MODEL.n)]
    share = np.bincount(kept >= 1000, minlength=2) / [1000, 3000]
    share = np.clip(
        share, [0.5 / 1000, 0.5 / 3000], 0.5
    )  # Half a coordinate where there is none; 0 bits from one half.
    bits = 26 + np.log2((1 - share) / share)
    return price(MODEL, PHONE, density=0.01).at_bits(bits)


# ---------------------------------------------------------------- own densities


@pytest.mark.parametrize("rule", WEIGHED, ids=lambda rule: type(rule).__name__)
@pytest.mark.parametrize("budget", [Count(1), Count(300), Density(0.05), Density(0.3), Density(1.0)])
def test_a_count_is_weighed_at_the_density_that_topk_gives_each_tensor(rule, budget):
    costs, expected = price(MODEL, PHONE, density=0.01), at_own_densities(budget)
    priced = marginal_prices(UPDATE, costs, rule, budget, "float32")
    assert priced.bits_per_kept == pytest.approx(expected.bits_per_kept)
    sent = Compressor(rule, budget).compress(UPDATE, None, costs)
    assert sent.selection.indices.tolist() == select(UPDATE, expected, rule, budget).indices.tolist()
    assert sent.contrast == pytest.approx(expected.contrast)


@pytest.mark.parametrize("rule", WEIGHED, ids=lambda rule: type(rule).__name__)
def test_under_a_count_a_weighed_rule_is_not_topk_where_densities_differ(rule):
    costs = price(MODEL, PHONE, density=0.01)
    assert costs.contrast == 1.0
    sent, topk = (Compressor(each, Density(0.05)).compress(UPDATE, None, costs) for each in (rule, TopK()))
    assert sent.contrast > 1.1
    assert topk.contrast == 1.0
    assert sent.selection.indices.size == topk.selection.indices.size
    assert sent.selection.indices.tolist() != topk.selection.indices.tolist()
    # What is denser in TopK is cheaper to point at, so more of it is kept.
    more = MODEL.counts(sent.selection.indices) - MODEL.counts(topk.selection.indices)
    assert more[0] > 0 > more[1]


@pytest.mark.parametrize("rule", WEIGHED, ids=lambda rule: type(rule).__name__)
def test_a_message_and_explain_weigh_an_update_alike(rule):
    found = explain(MODEL, PHONE, density=0.05, value_bits=26, update=UPDATE)
    sent = Compressor(rule, Density(0.05)).compress(UPDATE, None, price(MODEL, PHONE))
    # A price also holds the send buffer, 32 bits or 26 at 16 pJ: parts in 1e7.
    assert sent.contrast == pytest.approx(found.contrast, rel=1e-4)
    predicted = next(each for each in found.predictions if each.rule == type(rule).__name__)
    topk = select(UPDATE, price(MODEL, PHONE), TopK(), Density(0.05)).indices
    overlap = np.intersect1d(topk, sent.selection.indices).size / topk.size
    assert overlap == pytest.approx(predicted.overlap, abs=1e-3)
    assert overlap < 1


def counted(monkeypatch) -> list[str]:
    """Names of the rules of all selections that a message is made with."""
    rules: list[str] = []

    def watched(real):
        def watching(vector, costs, rule, *rest, **options):
            rules.append(type(rule).__name__)
            return real(vector, costs, rule, *rest, **options)

        return watching

    for module, name in ((marginal, "choose"), (message, "choose"), (order, "select")):
        monkeypatch.setattr(module, name, watched(getattr(module, name)))
    return rules


@pytest.mark.parametrize(
    ("rule", "budget", "costs", "expected"),
    [
        (CWMP(), Density(0.1), price(MODEL, PHONE), ["TopK", "CWMP"]),
        (CWMP(), Density(0.1), price(MODEL, load_device("synthetic-kind-10")), ["CWMP"]),
        (CWMP(), Count(9), Costs.of(np.ones(MODEL.n), MODEL), ["CWMP"]),
        (CWMP(), Price(1.0), Costs.of(np.ones(2), MODEL), ["CWMP"]),
        (TopK(), Density(0.1), price(MODEL, PHONE), ["TopK"]),
        (RandomK(), Density(0.1), price(MODEL, PHONE), ["RandomK"]),
        (MinVariance(), Count(9), price(MODEL, PHONE), ["MinVariance"]),
        (Dense(), None, price(MODEL, PHONE), ["Dense"]),
    ],
)
def test_selections_are_made_for_an_estimate_only_where_a_price_and_a_choice_hang_on_it(
    monkeypatch, rule, budget, costs, expected
):
    rules = counted(monkeypatch)
    sent = Compressor(rule, budget).compress(UPDATE, None, costs, np.random.default_rng(0))
    assert rules == expected
    if expected[0] != "TopK" or rule == TopK():
        assert sent.contrast == costs.contrast


def test_one_price_for_each_coordinate_stays_as_it_is_even_where_a_link_is_priced():
    none, each = np.zeros(2), np.linspace(1, 2, MODEL.n)
    given = replace(Costs.of(each, MODEL), per_bit=np.full(2, 1e-9), terms=(Term("given", each, none),))
    for budget in (Count(5), Joules(50.0), Bytes(500), Price(0.5)):
        assert marginal_prices(UPDATE, given, CWMP(), budget, "float32") is given


@pytest.mark.parametrize("rule", WEIGHED, ids=lambda rule: type(rule).__name__)
def test_a_threshold_is_held_against_prices_at_the_densities_that_it_gives_itself(rule):
    costs = price(MODEL, PHONE)
    worth = np.abs(UPDATE.astype(np.float64)) ** rule.norm / costs.per_kept[0]
    kept: list[set[int]] = []
    for share in (0.02, 0.1, 0.4, 0.9):
        budget = Price(float(np.quantile(worth, 1 - share)))
        priced = marginal_prices(UPDATE, costs, rule, budget, "float32")
        sent = Compressor(rule, budget).compress(UPDATE, None, costs)
        density = np.maximum(MODEL.counts(sent.selection.indices), 0.5) / MODEL.sizes
        expected = 26 + np.maximum(0, np.log2((1 - density) / np.minimum(density, 0.5)))
        assert priced.bits_per_kept == pytest.approx(np.where(density < 0.5, expected, 26), abs=0.03)
        kept.append(set(sent.selection.indices.tolist()))
    assert all(fewer < more for fewer, more in pairwise(kept))


# ---------------------------------------------------------------- few passes


def mask_total(sent) -> float:
    return total(charge for charge in sent.charges if charge.term in MASK_TERMS)


FLASH_MODEL = Layout.of(
    {"conv.weight": np.ones((64, 32, 3, 3)), "fc.weight": np.ones((90, 200)), "fc.bias": np.ones(90)}
)


@pytest.mark.parametrize("rule", ORDERED, ids=lambda rule: type(rule).__name__)
@pytest.mark.parametrize("device", [MICROCONTROLLER, load_device("mcu-flash-ble-nrf5340")], ids=lambda each: each.name)
@pytest.mark.parametrize("fill", [False, True])
def test_a_message_where_weights_lie_in_flash_takes_fewer_than_ten_selections(monkeypatch, rule, device, fill):
    a = update_of(np.random.default_rng(1), "real", FLASH_MODEL.n)
    costs = price(FLASH_MODEL, device)
    full = mask_total(Compressor(Dense()).compress(a, None, costs))
    for share in (0.003, 0.05, 0.3, 0.9, 0.999):
        with monkeypatch.context() as patched:
            rules = counted(patched)
            budget = Joules(share * full, fill=fill)
            sent = Compressor(rule, budget).compress(a, None, costs, np.random.default_rng(2))
        assert len(rules) < 10
        assert mask_total(sent) <= budget.budget
        page = sum(float(block.per_touched.max()) for block in costs.blocks)
        header = 8 * (20 + 3 * 50) * float(costs.per_bit.max())
        assert budget.budget - mask_total(sent) <= 0.01 * budget.budget + page + header


def test_filling_keeps_at_least_what_the_prefix_keeps_and_within_the_budget():
    a, more = update_of(np.random.default_rng(1), "real", FLASH_MODEL.n), 0
    costs = price(FLASH_MODEL, MICROCONTROLLER, link={"fc.*": load_device("phone-5g-mmwave-2021").link})
    full = mask_total(Compressor(Dense()).compress(a, None, costs))
    for share in np.linspace(0.1, 0.9, 9):
        plain, filled = (
            Compressor(CWMP(), Joules(share * full, fill=fill)).compress(a, None, costs) for fill in (False, True)
        )
        assert mask_total(filled) <= share * full
        assert set(plain.selection.indices) <= set(filled.selection.indices)
        more += filled.selection.indices.size - plain.selection.indices.size
    assert more > 0


@settings(deadline=None)
@given(st.integers(0, 2**32 - 1), st.sampled_from(ORDERED), st.floats(0.01, 1.2), st.booleans())
def test_the_first_of_an_order_are_what_select_keeps_and_take_what_their_blocks_say(seed, rule, share, each):
    rng = np.random.default_rng(seed)
    a = update_of(rng, str(rng.choice(["real", "ties", "sparse"])), SMALL.n)
    tensors = len(SMALL.tensors)
    whole = rng.integers(1, 40, tensors)
    block = Block("pages", whole, 10.0 ** rng.uniform(-1, 2, tensors), np.zeros(tensors))
    costs = replace(Costs.of(10.0 ** rng.uniform(-1, 1, SMALL.n if each else tensors), SMALL), blocks=(block,))
    order = Order.of(a, costs, rule, share * float(order_total(costs)), seed)
    energies = order.energies(costs)
    for first in {0, 1, energies.size // 3, energies.size}:
        if first > energies.size:
            continue
        budget = Joules(order.price_limit(first))
        kept = select(a, costs, rule, budget, np.random.default_rng(seed)).indices
        assert kept.tolist() == sorted(order.indices[order.ranked[:first]].tolist())
        assert order.counts(first).tolist() == SMALL.counts(kept).tolist()
        if first:
            spent = float(np.sum(costs.per_kept[kept] if each else costs.per_kept @ SMALL.counts(kept)))
            assert energies[first - 1] == pytest.approx(spent + costs.block_energy(kept))
    assert order.complete == (energies.size == np.count_nonzero(a))


def order_total(costs: Costs) -> float:
    return costs.per_kept.sum() if costs.per_coordinate else costs.per_kept @ costs.layout.sizes
