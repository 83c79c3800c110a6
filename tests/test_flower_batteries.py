"""Batteries, availability and links of a study's clients: who joins a round, what it may cost, and where all stand."""

import dataclasses
import logging
import re
from importlib import resources

import msgspec
import numpy as np
import pytest
from studies_of_flower import arm, bits, model_of
from test_flower_resume import resumed_equals_never_stopped, through_a_file
from test_flower_rounds import Normalised

from joulewise.charges import MASK_TERMS, total
from joulewise.compress import Compressor, ErrorFeedback
from joulewise.costs import Costs
from joulewise.devices import load_device, with_link
from joulewise.errors import ProfileError, RuleError, SettingError
from joulewise.fleet import EqualCount, EqualJoules, OnePrice
from joulewise.flower import Lossy, app, charging, orders
from joulewise.flower.app import federate
from joulewise.flower.bill import Bill, Need
from joulewise.flower.charging import Charger, Stand, Supply
from joulewise.flower.orders import Order
from joulewise.learning import IID, Digits
from joulewise.pacing import Battery, Pace
from joulewise.results import Skipped
from joulewise.rules import CWMP, Count, Density, Joules, Price, TopK
from joulewise.schedules import Early, Even, Late, Priced

RULE = Compressor(CWMP(), Density(0.05), feedback=ErrorFeedback())
HUNGRY = Compressor(CWMP(), Density(1.0))
WIFI, LTE = "phone-wifi-2020", "phone-lte-2021"
LEAN = Even(least_mask=0.0)
"""Joins whenever anything is left for a mask; without that, once it may cost as much as the rest of the round."""
DENSE_J = 2e-4  # What a mask of everything costs on Wi-Fi.
ROUND_J = 2.8e-4  # What a round of `arm` costs on Wi-Fi at a density of 5 %, of which the mask takes 1.7e-5.
FIXED_J = 2.663e-4


def powered(compressor=RULE, rounds=6, *, batteries=(), devices=None, allocation=None, **supply):
    clients = len(devices or batteries or (0,) * 4)
    which = arm(compressor, rounds, clients)
    return dataclasses.replace(
        which,
        devices=devices or (WIFI,) * clients,
        strategy=msgspec.structs.replace(which.strategy, allocation=allocation),
        supply=Supply(batteries=tuple(batteries), **supply),
    )


def mask_of(client):
    return total(charge for charge in client.charges if charge.term in MASK_TERMS)


def rest_of(client):
    return total(charge for charge in client.charges if charge.term not in MASK_TERMS)


def charges_of(outcome):
    """What is in every battery after a round."""
    found = {each.partition: each.battery_j for each in (*outcome.clients, *outcome.skipped)}
    return [found[client] for client in sorted(found)]


# ---------------------------------------------------------------- batteries that run out, and are recharged


@pytest.fixture(scope="module")
def run():
    batteries = [Battery(charge_j=1.0), Battery(charge_j=3 * ROUND_J), Battery(charge_j=8e-4, reserve_j=2e-4)]
    recharge = tuple((0.0, 0.0, 4e-4 if number == 5 else 0.0) for number in range(1, 9))
    which = powered(batteries=batteries, rounds=8, recharge=recharge)
    return which, list(federate(which, 4))


def test_a_battery_is_charged_what_the_round_has_cost_all_terms_together(run):
    which, outcomes = run
    before = [battery.charge_j for battery in which.supply.batteries]
    for outcome in outcomes:
        gained = which.supply.recharge[outcome.round - 1]
        spent = {client.partition: mask_of(client) + rest_of(client) for client in outcome.clients}
        after = charges_of(outcome)
        for client, (had, got, left) in enumerate(zip(before, gained, after, strict=True)):
            full = which.supply.batteries[client].full_j
            assert left == pytest.approx(min(had + got, full) - spent.get(client, 0.0), rel=1e-12)
        before = after


def test_what_a_round_costs_before_any_coordinate_is_known_to_the_last_bit(run):
    _, outcomes = run
    for outcome in outcomes:
        for client in outcome.clients:
            assert rest_of(client) == pytest.approx(FIXED_J, rel=1e-3)


def test_a_client_whose_battery_cannot_pay_skips_and_the_row_says_why(run):
    _, outcomes = run
    joined = [[client.partition for client in outcome.clients] for outcome in outcomes]
    assert all(0 in clients for clients in joined)
    assert sum(1 in clients for clients in joined) == 3
    skips = [skip for outcome in outcomes for skip in outcome.skipped]
    assert all(isinstance(skip, Skipped) and "before any coordinate" in skip.reason for skip in skips)
    assert "0.0002663 J before any coordinate" in skips[0].reason
    assert [sorted([*clients, *(skip.partition for skip in outcome.skipped)]) for clients, outcome in zip(
        joined, outcomes, strict=True
    )] == [[0, 1, 2]] * 8  # fmt: skip


def test_a_battery_that_is_recharged_joins_again(run):
    _, outcomes = run
    joined = [2 in [client.partition for client in outcome.clients] for outcome in outcomes]
    assert sum(joined) == 3
    assert any(joined[4:])
    assert min(charge[2] for charge in map(charges_of, outcomes)) >= 2e-4


def test_the_arms_own_budget_stays_where_the_battery_has_enough(run):
    _, outcomes = run
    for outcome in outcomes:
        rich = outcome.clients[0]
        assert sum(rich.kept_by_tensor) == int(0.05 * rich.parameters)
        assert rich.allowed > mask_of(rich)


def test_a_mask_is_capped_by_what_the_battery_allows():
    usable = 4 * (FIXED_J + 5e-5)
    batteries = [Battery(charge_j=usable), Battery(charge_j=1.0)]
    outcomes = list(federate(powered(HUNGRY, 4, batteries=batteries, schedule=LEAN), 4))
    for outcome in outcomes:
        poor, rich = outcome.clients
        assert 0.95 * poor.allowed < mask_of(poor) <= poor.allowed
        assert poor.allowed == pytest.approx(5e-5, rel=0.06)
        assert mask_of(rich) > 1.5 * mask_of(poor)
        assert rich.allowed > 0.2
    assert outcomes[-1].clients[0].battery_j < 0.02 * usable


def test_a_hundred_clients_end_with_little_and_never_below_their_reserve(tmp_path):
    profile = (resources.files("joulewise") / "profiles" / f"{WIFI}.toml").read_text(encoding="utf-8")
    device = tmp_path / "sender.toml"  # one that receives for nothing, so that nearly all that it spends is its masks
    device.write_text(re.sub(r"\[link\.down.*?(?=\n\[)", "", profile, flags=re.DOTALL), encoding="utf-8")
    rng = np.random.default_rng(5)
    reserves, usable = rng.uniform(0, 1e-3, 100), 6 * DENSE_J * rng.uniform(0.1, 0.6, 100)
    batteries = [Battery(charge_j=sum(pair), reserve_j=pair[0]) for pair in zip(reserves, usable, strict=True)]
    which = powered(HUNGRY, 6, batteries=batteries, devices=(str(device),) * 100)
    which = dataclasses.replace(which, data=Digits(clients=100, partition=IID(), examples=800))
    left = np.array([charges_of(outcome) for outcome in federate(which, 4)]) - reserves
    assert left.min() >= 0
    assert left[-1].sum() <= 0.05 * usable.sum()
    assert (np.diff(left[:, 0]) < 0).all()


def test_schedules_put_the_energy_where_they_say():
    usable = 6 * (FIXED_J + 0.4 * DENSE_J)
    spent = {}
    for schedule in (Early(ratio=0.9, least_mask=0.0), LEAN, Late(ratio=0.9, least_mask=0.0)):
        outcomes = federate(powered(HUNGRY, batteries=[Battery(charge_j=usable)] * 2, schedule=schedule), 4)
        spent[type(schedule)] = [mask_of(outcome.clients[0]) if outcome.clients else 0.0 for outcome in outcomes]
    assert spent[Early][0] > 1.3 * spent[Even][0] > 1.3 * 1.3 * spent[Late][0]
    assert spent[Early][-1] < spent[Even][-1] < spent[Late][-1]
    assert spent[Even] == pytest.approx([spent[Even][0]] * 6, rel=0.1)


def test_a_client_is_paced_over_the_rounds_in_which_it_is_asked():
    which = powered(HUNGRY, 6, batteries=[Battery(charge_j=4 * (FIXED_J + 1e-4))] * 4, schedule=LEAN)
    options = {"fraction_train": 0.5}
    which = dataclasses.replace(which, strategy=arm(strategy="FedAvg", **options).strategy)
    outcomes = list(federate(which, 4))
    for client in range(4):
        own = [each for outcome in outcomes for each in outcome.clients if each.partition == client]
        first, share = own[0], 4 * (FIXED_J + 1e-4) / len(own)
        assert len(own) < 6
        assert first.allowed == pytest.approx(share - FIXED_J, rel=5e-3)


# ---------------------------------------------------------------- a price of a joule


def test_a_priced_client_keeps_what_is_worth_its_price_and_the_row_says_which():
    batteries = [Battery(charge_j=8 * (FIXED_J + 5e-5))] * 2
    schedule = Priced(shape=LEAN, rate=0.2)
    outcomes = list(federate(powered(HUNGRY, 8, batteries=batteries, schedule=schedule), 4))
    prices = [outcome.clients[0].price for outcome in outcomes]
    assert prices[0] is None  # a trial
    assert all(price > 0 for price in prices[1:-1])
    assert len(set(prices[1:-1])) > 3
    kept = [sum(outcome.clients[0].kept_by_tensor) for outcome in outcomes]
    assert all(0 < count < outcomes[0].clients[0].parameters for count in kept[:-1])
    # A cap of five shares binds nobody: the price does.
    assert all(mask_of(outcome.clients[0]) < 0.9 * outcome.clients[0].allowed for outcome in outcomes[1:-1])


def test_an_order_with_a_least_price_keeps_no_more_than_that():
    rng = np.random.default_rng(0)
    update, costs = rng.standard_normal(500).astype(np.float32), Costs.of(rng.uniform(0.5, 2, 500), unit="relative")
    obeyed = orders.obey(Order(most_j=1e6, least_price=1.0), Compressor(CWMP(), Density(1.0)), update, costs)
    sent = obeyed.compressor.compress(update, None, costs)
    tighter = obeyed.tighter(sent)
    sent = tighter.compress(update, None, costs)
    worth = np.abs(update) / costs.per_kept
    assert orders.spent_j(sent) == pytest.approx(costs.per_kept[worth >= 1].sum(), rel=0.03)
    said, curve = orders.heard(*obeyed.told(sent))
    assert said.margin == pytest.approx(worth[sent.selection.indices].min(), rel=0.05)
    assert curve is None
    with pytest.raises(RuleError, match="TopK has no value"):
        orders.obey(Order(most_j=1.0, least_price=1.0), Compressor(TopK(), Density(1.0)), update, costs)


@pytest.mark.parametrize("text", ['{"most_j":-1}', '{"most_j":1e999}', '{"least_price":1}', '{"points":4}',
    '{"budget":{"name":"Joules","budget":1},"least_price":1}', '{"most_j":1,"least_price":-1}'])  # fmt: skip
def test_a_cap_that_is_none_is_refused(text):
    with pytest.raises(SettingError, match="the server's order to this node cannot be read"):
        orders.parse(text)


def test_a_cap_is_the_smaller_of_both():
    for budget, most_j, expected in ((2.0, 1.0, 1.0), (1.0, 2.0, 1.0)):
        order = orders.capped(Order(Joules(budget), price=0.5, points=8).text(), most_j, None)
        assert order == Order(Joules(expected), 0.5, 8, most_j)
    assert orders.capped(Order(Density(0.1)).text(), 2.0, 0.5) == Order(Density(0.1), None, 0, 2.0, 0.5)
    assert orders.parse(orders.capped(None, 2.0, 0.5).text()) == Order(most_j=2.0, least_price=0.5)


def test_what_a_battery_cannot_pay_is_not_wanted():
    update, costs = np.ones(8, np.float32), Costs.of(np.ones(8), unit="relative")
    for most_j, wanted_j in ((None, 8.0), (100.0, 8.0), (3.0, 3.0)):
        obeyed = orders.obey(Order(Joules(5.0), price=1e-3, most_j=most_j), Compressor(CWMP(), Count(3)), update, costs)
        assert obeyed.said.wanted_j == pytest.approx(wanted_j)


def test_a_cap_keeps_the_filling_of_a_budget():
    update, costs = np.ones(8, np.float32), Costs.of(np.arange(1.0, 9.0), unit="relative")
    for fill in (True, False):
        obeyed = orders.obey(Order(most_j=2.0), Compressor(CWMP(), Joules(9.0, fill=fill)), update, costs)
        sent = obeyed.compressor.compress(update, None, costs)
        assert obeyed.tighter(sent).budget == Joules(2.0, fill=fill)
    obeyed = orders.obey(Order(most_j=100.0), Compressor(CWMP(), Count(3)), update, costs)
    assert obeyed.tighter(obeyed.compressor.compress(update, None, costs)) is None


# ---------------------------------------------------------------- beside an allocation


@pytest.mark.parametrize(
    "allocation",
    [
        EqualCount(share=0.6),
        EqualJoules(share=0.6),
        OnePrice(share=0.6),
        OnePrice(share=0.6, control="asked"),
        OnePrice(share=0.6, control="ascent"),
    ],
    ids=str,
)
def test_of_a_battery_and_an_allocation_the_smaller_cap_counts(allocation, tmp_path):
    mask_j = 9e-5 if getattr(allocation, "control", "") == "asked" else 7e-5  # An order comes before each mask.
    poor = Battery(charge_j=4 * (FIXED_J + mask_j))
    which = powered(rounds=4, batteries=[poor, Battery(charge_j=1.0)], allocation=allocation, schedule=LEAN)
    outcomes = list(federate(which, 4))
    for outcome in outcomes[1:]:
        capped, free = outcome.clients
        assert mask_of(capped) <= capped.allowed < 1e-4 < mask_of(free) <= free.allowed
        assert capped.battery_j >= 0
    resumed_equals_never_stopped(which, tmp_path)


# ---------------------------------------------------------------- availability


def test_a_client_that_is_not_available_skips_and_keeps_its_battery():
    available = ((1.0, 0.0), (0.0, 1.0), (1.0, 1.0))
    which = powered(rounds=3, batteries=[Battery(charge_j=1.0)] * 2, available=available)
    outcomes = list(federate(which, 4))
    assert [[client.partition for client in outcome.clients] for outcome in outcomes] == [[0], [1], [0, 1]]
    away = Skipped(partition=1, reason="not available in this round", battery_j=1.0)
    assert [outcome.skipped for outcome in outcomes[:1]] == [(away,)]
    assert outcomes[2].skipped == ()


def test_availability_needs_no_battery():
    outcomes = list(federate(powered(rounds=2, available=((1.0, 0.0, 1.0, 1.0), (0.0, 1.0, 1.0, 1.0))), 4))
    assert [skip for outcome in outcomes for skip in outcome.skipped] == [
        Skipped(partition=client, reason="not available in this round") for client in (1, 0)
    ]
    assert outcomes[0].clients[0].battery_j is None
    assert "batteries" not in outcomes[0].checkpoint


@pytest.mark.parametrize(("strategy", "options"), [("FedAvg", {}), ("FedAdam", {"eta": 0.01})])
def test_a_round_that_all_skip_leaves_the_model_as_it_is(strategy, options, tmp_path):
    which = powered(rounds=4, available=((1.0,) * 4, (0.0,) * 4, (0.0,) * 4, (1.0,) * 4))
    which = dataclasses.replace(which, strategy=arm(strategy=strategy, **options).strategy)
    outcomes = list(federate(which, 4))
    first, second, _, last = map(model_of, outcomes)
    assert [len(outcome.clients) for outcome in outcomes] == [4, 0, 0, 4]
    assert [len(outcome.skipped) for outcome in outcomes] == [0, 4, 4, 0]
    assert all(np.array_equal(first[name], second[name]) for name in first)
    assert outcomes[0].server == outcomes[1].server != outcomes[3].server
    assert not all(np.array_equal(first[name], last[name]) for name in first)
    for after in (1, 2, 3):
        resumed_equals_never_stopped(which, tmp_path, after)


def test_where_all_skip_from_the_start_the_model_is_the_first_one():
    which = powered(rounds=2, batteries=[Battery(charge_j=1e-6)] * 2)
    outcomes = list(federate(which, 4))
    assert [outcome.clients for outcome in outcomes] == [(), ()]
    assert bits(outcomes)[0][1] == bits(outcomes)[1][1]


# ---------------------------------------------------------------- links


def test_a_dearer_link_costs_as_many_times_as_much_both_ways(tmp_path):
    link = ((1.0, 1.0), (1.0, 3.0), (0.5, 1.0))
    plain = list(federate(powered(HUNGRY, 3, batteries=[Battery(charge_j=1.0)] * 2), 4))
    which = powered(HUNGRY, 3, batteries=[Battery(charge_j=1.0)] * 2, link=link)
    outcomes = list(federate(which, 4))
    for before, outcome, factors in zip(plain, outcomes, link, strict=True):
        for old, new, factor in zip(before.clients, outcome.clients, factors, strict=True):
            was, now = ({charge.term: charge.energy for charge in each.charges} for each in (old, new))
            assert now["downlink"] == pytest.approx(factor * was["downlink"])
            assert now["kept"] == pytest.approx(factor * was["kept"], rel=0.01)  # with the send buffer, which is memory
            assert now["memory_update"] == was["memory_update"]
    resumed_equals_never_stopped(which, tmp_path, 1)


def test_a_dear_round_is_skipped_by_a_battery_that_cannot_pay_it():
    link = ((1.0,), (9.0,), (1.0,))
    outcomes = list(federate(powered(rounds=3, batteries=[Battery(charge_j=4 * ROUND_J)], link=link), 4))
    assert [len(outcome.clients) for outcome in outcomes] == [1, 0, 1]
    assert "a round costs 0.00239" in outcomes[1].skipped[0].reason


def test_only_a_link_with_an_energy_per_bit_can_be_made_dearer():
    for name in ("synthetic-kind-10", "lorawan-eu868-sf7"):
        with pytest.raises(ProfileError, match=f"the link of {name} cannot be made dearer or cheaper"):
            with_link(load_device(name), 2.0)
    phone = load_device(LTE)
    assert with_link(phone, 2.0).link.fixed == phone.link.fixed
    assert with_link(phone, 2.0).link.down_per_bit == 2.0 * phone.link.down_per_bit


# ---------------------------------------------------------------- what a round costs, worked out


@pytest.mark.parametrize(
    ("device", "model", "allocation", "loose"),
    [
        (WIFI, None, None, 1e-12),
        (LTE, None, None, 1e-12),
        ("sbc-raspberry-pi-5-ethernet", None, None, 1e-12),  # says what training takes
        ("mcu-flash-ble-nrf5340", None, None, 1.0),  # pages of flash that the mask has paid for are not paid twice
        (WIFI, Normalised(), None, 0.01),  # tensors that travel whole, with a header of their own
        (WIFI, None, OnePrice(share=0.5), 0.1),  # a curve of 64 points at most
        (LTE, None, OnePrice(share=0.5, control="asked"), 0.2),  # in a message of its own
        (WIFI, None, OnePrice(share=0.5, control="asked"), 0.4),  # and the longest order that there may be
    ],
)
def test_what_a_round_costs_before_any_coordinate_is_worked_out_and_never_too_low(device, model, allocation, loose):
    which = powered(batteries=[Battery(charge_j=1e9)] * 2, devices=(device,) * 2, rounds=3, allocation=allocation)
    which = dataclasses.replace(which, model=model or which.model)
    bill = app._bill(which, 4, app._initial(which, 4))
    for outcome in federate(which, 4):
        for client in outcome.clients:
            thought_j = bill.need(client.partition).fixed_j
            assert rest_of(client) <= thought_j * (1 + 1e-12)
            assert rest_of(client) >= thought_j * (1 - loose)


def test_a_mask_has_a_use_for_what_its_budget_buys_at_most():
    which = powered(devices=(WIFI,) * 2)
    bill = app._bill(which, 4, app._initial(which, 4))
    for allotted in (False, True):
        wanted = [
            dataclasses.replace(
                bill, compressor=dataclasses.replace(RULE, budget=budget), allotted=allotted
            ).need(0).wanted_j
            for budget in (Count(30), Density(0.05), Joules(5e-5), Joules(1.0), Price(1.0))
        ]  # fmt: skip
        assert wanted[3:] == pytest.approx([DENSE_J * 1.4] * 2, rel=0.2)
        if allotted:
            assert wanted == pytest.approx([wanted[3]] * 5, rel=0.2)
        else:
            assert wanted[0] == pytest.approx(wanted[1], rel=0.05)
            assert wanted[0] == pytest.approx(0.05 * wanted[3], rel=0.2)
            assert wanted[2] == 5e-5


# ---------------------------------------------------------------- what was not foreseen


def test_a_round_that_turns_out_dearer_is_paid_and_later_ones_reckon_with_it(monkeypatch, caplog):
    need = Bill.need

    def cheaper(bill, client, factor=1.0):
        found = need(bill, client, factor)
        return Need(found.fixed_j - (1e-4 if client == 0 else 0.0), found.wanted_j)

    monkeypatch.setattr(Bill, "need", cheaper)
    reserve = 2e-4
    batteries = [Battery(charge_j=reserve + 1.8e-4, reserve_j=reserve), Battery(charge_j=1.0)]
    with caplog.at_level(logging.WARNING, "joulewise"):
        outcomes = list(federate(powered(rounds=1, batteries=batteries, schedule=LEAN), 4))
    (poor, _) = outcomes[0].clients
    assert "round 1, client 0: before any coordinate it cost 0.0002663 J, 0.0001 J more than was worked out" in (
        caplog.text
    )
    assert "less than the reserve" in caplog.text
    assert 0 < poor.battery_j < reserve
    assert poor.battery_j == pytest.approx(batteries[0].charge_j - mask_of(poor) - rest_of(poor))
    # With more rounds it knows after the first.
    caplog.clear()
    batteries[0] = Battery(charge_j=reserve + 3 * ROUND_J, reserve_j=reserve)
    outcomes = list(federate(powered(rounds=3, batteries=batteries), 4))
    assert caplog.text == ""
    assert min(charges_of(outcome)[0] for outcome in outcomes) >= reserve
    assert charging.unpack(outcomes[-1].checkpoint["batteries"]).dearer_j == (pytest.approx(1e-4), 0.0)


def test_a_battery_is_never_below_empty(monkeypatch):
    monkeypatch.setattr(Bill, "need", lambda *_: Need(1e-6, 1.0))
    (outcome,) = federate(powered(rounds=1, batteries=[Battery(charge_j=1e-5)] * 2), 4)
    assert [client.battery_j for client in outcome.clients] == [0.0, 0.0]


# ---------------------------------------------------------------- going on, and twice


@pytest.mark.parametrize("schedule", [Even(), Priced(rate=0.2)], ids=str)
def test_a_run_goes_on_from_a_checkpoint_with_the_same_bits(schedule, tmp_path):
    batteries = [Battery(charge_j=charge, reserve_j=1e-4) for charge in (1.0, 8e-4, 1.2e-3, 2e-4)]
    recharge = tuple((0.0, 1e-4, 0.0, 1e-4) for _ in range(6))
    available = tuple((1.0, 1.0, float(number != 3), 1.0) for number in range(1, 7))
    which = powered(batteries=batteries, recharge=recharge, available=available, schedule=schedule)
    for after in (1, 3, 5):
        resumed_equals_never_stopped(which, tmp_path, after)


def test_changes_alone_cost_less_than_was_thought_and_the_rest_is_for_later_rounds(tmp_path):
    batteries = [Battery(charge_j=charge) for charge in (1.0, 6 * (FIXED_J + 2e-5))]
    which = powered(HUNGRY, 6, batteries=batteries, schedule=LEAN)
    sparse = dataclasses.replace(
        which, strategy=msgspec.structs.replace(which.strategy, downlink=Lossy(0.05)), compressor=RULE
    )
    outcomes = list(federate(sparse, 4))
    assert [len(outcome.clients) for outcome in outcomes] == [2] * 6
    assert rest_of(outcomes[2].clients[1]) < 0.5 * FIXED_J
    assert outcomes[-1].clients[1].allowed > 5 * outcomes[0].clients[1].allowed
    resumed_equals_never_stopped(sparse, tmp_path)


def test_a_checkpoint_without_batteries_is_not_enough(tmp_path):
    which = powered(batteries=[Battery(charge_j=4 * ROUND_J)] * 2)
    whole = list(federate(which, 4))
    torn = through_a_file(whole[1].checkpoint, tmp_path)
    torn["batteries"] = charging.pack(charging.begin(which.supply))
    assert bits(federate(which, 4, resume=torn)) != bits(whole[2:])


def test_what_is_packed_comes_back():
    paces = (Pace(1.0), Pace(0.1, 1e-300, 2.0, 3.0, 4.0, 5, 6), Pace(0.0, 7.0))
    stand = Stand(paces, (0.0, 1.0, 0.5))
    assert charging.unpack(charging.pack(stand)) == stand
    assert charging.unpack(charging.pack(Stand())) == Stand()


def test_a_charger_counts_the_rounds_that_are_left_of_each_node():
    bill = Bill(None, 0, 0, RULE, (WIFI,) * 2)
    guests = {1: (8, 9), 2: (9,), 3: (8, 9), 4: (9,)}
    charger = Charger.of(Supply(), bill, {0: 9, 1: 8}, guests)
    assert charger.partitions == {9: 0, 8: 1}
    assert charger.turns == {9: [1, 2, 3, 4], 8: [1, 3]}
