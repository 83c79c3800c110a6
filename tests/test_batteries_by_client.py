"""Each client pays with its own battery, device, link and training, and the books of a battery add up."""

import dataclasses
from pathlib import Path

import msgspec
import numpy as np
import pytest
from studies_of_flower import arm
from test_fleetfile import BATTERY, LTE, WIFI, message_of, only, write  # noqa: F401 (a fixture)

from joulewise.charges import Charge
from joulewise.compress import Compressor, ErrorFeedback
from joulewise.costs import Costs
from joulewise.flower import app, bill, charging
from joulewise.flower.bill import Need
from joulewise.flower.charging import Charger, Supply
from joulewise.layout import Layout
from joulewise.pacing import Battery, Pace
from joulewise.results import ClientResult
from joulewise.rules import CWMP, Count, Density, Joules
from joulewise.schedules import Even, Priced

RULE = Compressor(CWMP(), Density(0.05), feedback=ErrorFeedback())
NODES = {0: 70, 1: 50, 2: 60}
"""Node of each client: in another order than the clients."""


class Told:
    """A bill that says what it was asked for, and that every round costs one joule before any coordinate."""

    def __init__(self, fixed_j=1.0, wanted_j=100.0):
        self.asked, self.answer = [], Need(fixed_j, wanted_j)

    def need(self, client, factor=1.0):
        self.asked.append((client, factor))
        return self.answer


def charger_of(bill_=None, rounds=4, guests=None, **supply):
    supply = {"batteries": tuple(Battery(charge_j=10.0 * (k + 1)) for k in range(3))} | supply
    guests = guests or {number: tuple(NODES.values()) for number in range(1, rounds + 1)}
    return Charger.of(Supply(**supply), bill_ or Told(), NODES, guests)


def result_of(client, fixed_j, mask_j, **further):
    charges = [Charge(term, energy, "J", "modelled") for term, energy in (("downlink", fixed_j), ("kept", mask_j))]
    return ClientResult(
        partition=client, examples=1, bytes_up=1, bytes_down=1, charges=tuple(charges), kept_by_tensor=(1,),
        delta=None, contrast=1.0, **further,
    )  # fmt: skip


# ---------------------------------------------------------------- who pays what


def test_a_client_is_billed_by_its_own_link_of_this_round():
    told = Told()
    charger = charger_of(told, link=((1.0, 2.0, 3.0), (4.0, 5.0, 6.0)))
    stand = charging.begin(charger.supply)
    charger.invite(2, stand, (60, 70, 50))
    assert told.asked == [(2, 6.0), (0, 4.0), (1, 5.0)]
    charger.invite(1, stand, (50,))
    assert told.asked[-1] == (1, 2.0)


def test_a_cap_is_that_of_the_nodes_own_battery():
    charger = charger_of(schedule=Even(least_mask=0.0))
    due = charger.invite(1, charging.begin(charger.supply), (60, 70, 50))
    assert due.joining == (60, 70, 50)
    assert {node: cap.most_j for node, cap in due.caps.items()} == pytest.approx({70: 1.5, 50: 4.0, 60: 6.5})
    assert {client: each.mask_j for client, each in due.allowed.items()} == pytest.approx({0: 1.5, 1: 4.0, 2: 6.5})
    assert [cap.least_price for cap in due.caps.values()] == [None] * 3


def test_a_client_is_recharged_with_its_own_joules_of_this_round_and_once():
    charger = charger_of(
        recharge=((1.0, 2.0, 3.0), (0.0, 0.0, 5.0)), batteries=(Battery(charge_j=1, capacity_j=99),) * 3
    )
    stand = charging.begin(charger.supply)
    first = charger.invite(1, stand, ())
    assert [pace.charge_j for pace in first.stand.paces] == [2.0, 3.0, 4.0]
    after, _ = charger.settle(first, (), {})
    second = charger.invite(2, after, ())
    assert [pace.charge_j for pace in second.stand.paces] == [2.0, 3.0, 9.0]


def test_rounds_that_are_left_are_counted_whatever_order_they_are_told_in():
    guests = {3: (70, 50), 1: (70,), 4: (50,), 2: (50,)}
    charger = charger_of(guests=guests)
    assert charger.turns == {70: [1, 3], 50: [2, 3, 4], 60: []}
    due = charger.invite(3, charging.begin(charger.supply), (70, 50))
    # Of 10 J with one round left, and of 20 J with two left; one joule goes before any coordinate.
    assert {client: each.mask_j for client, each in due.allowed.items()} == pytest.approx({0: 9.0, 1: 9.0})


def test_what_a_dearer_round_took_is_in_the_books_of_the_battery():
    charger = charger_of(schedule=Even(least_mask=0.0))
    due = charger.invite(1, charging.begin(charger.supply), (70, 50))
    stand, _ = charger.settle(due, (result_of(0, 1.75, 0.5), result_of(1, 0.25, 2.0)), {})
    assert [pace.charge_j for pace in stand.paces] == pytest.approx([10 - 2.25, 20 - 2.25, 30.0])
    assert [pace.spent_j for pace in stand.paces] == pytest.approx([2.25, 2.25, 0.0])
    assert stand.dearer_j == pytest.approx((0.75, 0.0, 0.0))
    # A round that is 1.5 J dearer than the first was thought to be is 0.75 J dearer than this one is.
    due = charger.invite(2, stand, (70,))
    assert due.fixed_j == pytest.approx({0: 1.75})
    stand, _ = charger.settle(due, (result_of(0, 2.5, 0.0),), {})
    assert stand.dearer_j == pytest.approx((1.5, 0.0, 0.0))


def test_who_skips_pays_nothing_and_saves_its_share():
    charger = charger_of(Told(fixed_j=4.0))
    due = charger.invite(1, charging.begin(charger.supply), (70, 50, 60))
    assert due.joining == ()
    stand, clients = charger.settle(due, (), {})
    assert clients == ()
    assert [pace.charge_j for pace in stand.paces] == [10.0, 20.0, 30.0]
    assert [pace.rounds for pace in stand.paces] == [1, 1, 1]
    assert [pace.saved_j for pace in stand.paces] == pytest.approx([2.5, 5.0, 7.5])
    assert [skip.partition for skip in due.skipped] == [0, 1, 2]


# ---------------------------------------------------------------- what rows say


@pytest.mark.parametrize(
    ("own", "expected"),
    [({}, (1.5, None)), ({"allowed": 1.0, "price": 3.0}, (1.0, 3.0)), ({"allowed": 9.0}, (1.5, None))],
)
def test_a_row_has_the_smaller_cap_the_price_of_the_allocation_and_what_is_left(own, expected):
    charger = charger_of(schedule=Even(least_mask=0.0))
    due = charger.invite(1, charging.begin(charger.supply), (70,))
    _, (told,) = charger.settle(due, (result_of(0, 1.0, 0.5, **own),), {})
    assert (told.allowed, told.price) == expected
    assert told.battery_j == pytest.approx(8.5)


def test_of_two_prices_a_row_has_that_of_the_allocation():
    charger = charger_of(schedule=Priced(rate=0.1), batteries=(Battery(charge_j=100.0),) * 3, rounds=9)
    stand = charging.begin(charger.supply)
    stand = dataclasses.replace(stand, paces=(Pace(100.0, 7.0, 0.0, 0.0, 0.0, 5, 5), *stand.paces[1:]))
    due = charger.invite(1, stand, (70,))
    assert due.caps[70].least_price == 7.0
    for own, expected in (({"price": 3.0}, 3.0), ({}, 7.0)):
        _, (told,) = charger.settle(due, (result_of(0, 1.0, 0.5, **own),), {})
        assert told.price == expected


# ---------------------------------------------------------------- the bill


@pytest.fixture(scope="module")
def of_two():
    """The bill of two clients with devices of their own, and training of their own."""
    which = dataclasses.replace(arm(RULE, clients=2), devices=(WIFI, "sbc-raspberry-pi-5-ethernet"))
    made = app._bill(which, 4, app._initial(which, 4))
    return dataclasses.replace(made, training=(1e9, 3e9))


def test_a_client_is_billed_for_its_own_device_and_training(of_two):
    alone = dataclasses.replace(of_two, devices=(WIFI,), training=())
    assert of_two.need(0) == alone.need(0)
    other = dataclasses.replace(of_two, devices=of_two.devices[1:], training=(3e9,))
    assert of_two.need(1) == other.need(0)
    less = dataclasses.replace(other, training=(1e9,))
    assert other.need(0).fixed_j > less.need(0).fixed_j


def test_models_states_and_tensors_that_travel_whole_are_in_the_bill(of_two):
    plain = of_two.need(0).fixed_j
    forgetful = dataclasses.replace(of_two, compressor=dataclasses.replace(RULE, feedback=None))
    assert forgetful.need(0).fixed_j < plain
    costs = bill.priced(of_two.layout, bill.loaded(WIFI), RULE, "radio")
    bit_j = float(costs.send_per_bit[0])
    for size in ("whole_bytes", "curve_bytes"):
        more = dataclasses.replace(of_two, **{size: getattr(of_two, size) + 1000}).need(0).fixed_j
        assert more - plain == pytest.approx(8000 * bit_j, rel=1e-6)
    more, twice_more = (
        dataclasses.replace(of_two, model_bytes=of_two.model_bytes + size).need(0).fixed_j - plain
        for size in (1000, 2000)
    )
    assert twice_more == pytest.approx(2 * more)
    assert more >= 8000 * bill.loaded(WIFI).link.down_per_bit > 0


def test_what_a_mask_has_a_use_for_is_never_too_low_where_coordinates_differ_in_price(of_two):
    # Any ten coordinates, the dearest among them; and never more than there is.
    costs = Costs.of([1.0, 9.0], Layout.of({"a": np.zeros(500), "b": np.zeros(500)}))
    for budget, wanted_j in ((Count(10), 90.0), (Density(0.01), 90.0), (Joules(7.0), 7.0), (Joules(1e9), 5000.0),
                             (Count(1000), 5000.0)):  # fmt: skip
        given = dataclasses.replace(of_two, compressor=dataclasses.replace(RULE, budget=budget))
        assert bill._wanted(given, costs) == pytest.approx(wanted_j)
        assert bill._wanted(dataclasses.replace(given, allotted=True), costs) == pytest.approx(5000.0)


# ---------------------------------------------------------------- the study file


def test_a_client_that_nothing_recharges_is_named(write):  # noqa: F811
    lines = ["round,client,joules", "1,0,5", "1,1,0", "2,0,0", "2,1,0"]
    path = write('battery = { charge_j = 0, capacity_j = 9 }\nrecharge = "sun.csv"', sun=lines)
    assert "fleet.battery is empty for client 1 from the start" in message_of(path)
    lines = ["round,client,joules", "1,0,5", "1,1,0", "2,0,0", "2,1,3"]
    assert only(write('battery = { charge_j = 0, capacity_j = 9 }\nrecharge = "sun.csv"', sun=lines))


@pytest.mark.parametrize("factor", ["1e-300", "1e200"])
def test_a_factor_that_is_too_small_or_too_large_for_a_link_is_refused(factor, write):  # noqa: F811
    path = write('link = "link.csv"', link=["round,factor", f"1,{factor}", "2,1"])
    assert "fleet.link: `value` is" in message_of(path)


def test_a_schedule_of_an_arm_goes_before_that_of_the_fleet_and_is_named_as_it_was_typed(write):  # noqa: F811
    arms = '[[arms]]\nrule = "RULE"\ndensity = 0.1\nschedule = "Priced"\n[fleet]'
    path = write(f'{BATTERY}schedule = "Late"', only_study().replace("[fleet]", arms.replace("RULE", "CWMP")))
    assert only(path).supply.schedule == Priced()
    path = write(f'{BATTERY}schedule = "Late"', only_study().replace("[fleet]", arms.replace("RULE", "TopK")))
    assert ": schedule = Priced needs a value per joule, which TopK has not" in message_of(path)


def only_study():
    """The study without its grid: its arms are listed."""
    text = msgspec.toml.encode(
        {
            "name": "fleet", "rounds": 2, "seeds": [0], "model": {"name": "mlp", "hidden": [8]},
            "data": {"name": "digits", "clients": 2, "partition": "IID", "examples": 40},
        }
    ).decode()  # fmt: skip
    assert Path("studies").is_dir()
    return f'{text}\n[fleet]\ndevices = {{ "{WIFI}" = 1, "{LTE}" = 1 }}\n'
