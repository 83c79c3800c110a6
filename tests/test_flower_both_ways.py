"""A budget for both directions in Flower apps and studies: what nodes say of receiving, and what rounds cost."""

import math
from pathlib import Path
from typing import get_args

import msgspec
import numpy as np
import pytest
from fleet_in_process import MODEL, Fleet
from flwr.serverapp import strategy as strategies
from flwr.serverapp.strategy import DifferentialPrivacyServerSideFixedClipping, FedAdam, FedAvg
from studies_of_flower import arm
from test_flower_resume import resumed_equals_never_stopped
from toy_federation import DEVICE, Watched, app, record, request

from joulewise import list_devices, load_device
from joulewise.charges import MASK_TERMS, total
from joulewise.compress import Compressor, ErrorFeedback
from joulewise.costs import Costs
from joulewise.errors import PayloadError, RuleError, StudyError
from joulewise.fleet import EqualJoules, OnePrice
from joulewise.flower import Lossy, Sparse, SparseGrid, Sparsify, orders, wire
from joulewise.flower.allotter import Allotter
from joulewise.flower.app import federate
from joulewise.flower.choice import StrategyChoice
from joulewise.flower.costing import priced, receiving
from joulewise.flower.metering import Pricing
from joulewise.flower.orders import Order, Said
from joulewise.layout import Layout
from joulewise.prices import price, receive_j
from joulewise.rounding import ValueType
from joulewise.rules import CWMP, Count, Density, Joules, Projection
from joulewise.study import expand, load

RULE = Compressor(Projection(), Density(0.05), feedback=ErrorFeedback())
LINKS = ("phone-wifi-2020", "phone-wifi-2020", "phone-lte-2012", "phone-lte-2012")


def fleet_arm(allocation, rounds=6):
    which = arm(RULE, rounds=rounds)
    strategy = msgspec.structs.replace(which.strategy, allocation=allocation, downlink="lossless")
    return type(which)(
        **{name: getattr(which, name) for name in which.__slots__} | {"strategy": strategy, "devices": LINKS}
    )


# ---------------------------------------------------------------- whole federations


@pytest.fixture(scope="module", params=[EqualJoules, OnePrice], ids=lambda kind: kind.__name__)
def runs(request):
    return {each: list(federate(fleet_arm(request.param(share=0.05, counts=each)), 4)) for each in ("uplink", "both")}


def everything_j(parameters):
    """Of sending and receiving everything on all links."""
    layout, devices = Layout.single(parameters), [load_device(name) for name in LINKS]
    sending = sum(float(price(layout, device, density=0.05).per_kept[0]) * parameters for device in devices)
    return sending + sum(receive_j(layout, device, density=0.05) for device in devices)


def masks_j(outcome):
    return math.fsum(total(c for c in client.charges if c.term in MASK_TERMS) for client in outcome.clients)


def books_of(outcome):
    return msgspec.json.decode(outcome.checkpoint["allotted"].tobytes())["books"]


def test_masks_and_what_receivers_pay_for_them_stay_within_the_budget(runs):
    seen = books_of(runs["both"][-1])
    assert seen["rounds"] == 6
    assert seen["received_j"] > 0
    assert seen["received_j"] == pytest.approx(seen["predicted_j"], rel=0.3)
    assert seen["spent_j"] <= 1.02 * seen["allowed_j"]
    assert seen["spent_j"] >= 0.6 * seen["allowed_j"]
    assert seen["spent_j"] == pytest.approx(seen["received_j"] + math.fsum(map(masks_j, runs["both"])), rel=1e-9)


def test_the_books_of_a_round_are_its_real_union(runs):
    before, after = (books_of(outcome) for outcome in runs["both"][-2:])
    prefix = "model/"
    one, other = (
        {name: array for name, array in outcome.checkpoint.items() if name.startswith(prefix)}
        for outcome in runs["both"][-2:]
    )
    changed = sum(int((one[name] != other[name]).sum()) for name in one)
    parameters = runs["both"][-1].clients[0].parameters
    layout = Layout.single(parameters)
    receiving = sum(receive_j(layout, load_device(name), 32, 0.05) for name in LINKS)
    # Of what is sent some adds up to nothing, and tensors are smaller than their densities tell.
    assert after["received_j"] - before["received_j"] == pytest.approx(receiving * changed / parameters, rel=0.02)


def test_where_receivers_are_counted_cheap_links_are_preferred_less():
    times = []
    for each in ("uplink", "both"):
        budget = {"budget_j": 0.0003} if each == "uplink" else {"share": 0.0003 / everything_j(610)}
        outcomes = list(federate(fleet_arm(OnePrice(**budget, counts=each), rounds=4), 4))
        assert outcomes[0].clients[0].parameters == 610
        kept = [[sum(client.kept_by_tensor) for client in outcome.clients] for outcome in outcomes[1:]]
        times.append(sum(sum(row[:2]) for row in kept) / max(1, sum(sum(row[2:]) for row in kept)))
    assert 1 < times[1] < times[0]


def test_a_run_that_counts_both_goes_on_from_a_checkpoint_with_the_same_bits(tmp_path):
    resumed_equals_never_stopped(fleet_arm(OnePrice(share=0.05, counts="both")), tmp_path)


# ---------------------------------------------------------------- what is refused


@pytest.mark.parametrize("downlink", ["off", Lossy(0.05)], ids=str)
@pytest.mark.parametrize("kind", [EqualJoules, OnePrice])
def test_a_downlink_that_does_not_follow_the_masks_is_refused(kind, downlink):
    inner = Watched(app(Sparsify(DEVICE, CWMP(), Density(0.1))), 1)
    with pytest.raises(RuleError, match=r"counts='both'.*use downlink='lossless', or counts='uplink'"):
        SparseGrid(inner, downlink=downlink, allocation=kind(share=0.1, counts="both"))
    with pytest.raises(RuleError, match="use downlink='lossless'"):
        StrategyChoice(downlink=downlink, allocation=kind(share=0.1, counts="both"))
    SparseGrid(inner, downlink=downlink, allocation=kind(share=0.1))


BOTH = OnePrice(share=0.1, counts="both")


@pytest.mark.parametrize("kind", [EqualJoules, OnePrice])
def test_drawing_nodes_anew_is_refused_as_receivers_then_pay_for_several_rounds(kind):
    both, uplink = kind(share=0.1, counts="both"), kind(share=0.1)
    wanted = r"counts='both'.*fraction_train=0.5 .*use fraction_train=1.0, or counts='uplink'"
    some = DifferentialPrivacyServerSideFixedClipping(FedAvg(fraction_train=0.5), 0.1, 1.0, 2)
    with pytest.raises(RuleError, match=wanted):
        StrategyChoice("FedProx", {"proximal_mu": 0.1, "fraction_train": 0.5}, "lossless", both)
    with pytest.raises(RuleError, match=wanted):
        Sparse(FedAvg(fraction_train=0.5), allocation=both)
    with pytest.raises(RuleError, match=wanted):  # Wrapped in something that its user vouches for.
        Sparse(some, allocation=both, averages=True)
    for allocation, fraction in ((both, 1.0), (uplink, 0.5)):
        StrategyChoice("FedAvg", {"fraction_train": fraction}, "lossless", allocation)
        Sparse(FedAvg(fraction_train=fraction), allocation=allocation)


@pytest.mark.parametrize("allocation", [OnePrice(share=0.1), BOTH], ids=str)
def test_a_study_with_an_allocation_is_read_without_a_warning(allocation, caplog, capfd):
    StrategyChoice("FedAvg", {}, "lossless", allocation)
    assert caplog.text == ""
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize("name", ["FedAvgM", "FedAdam", "FedYogi", "FedAdagrad"])
def test_a_server_optimizer_is_refused_as_it_changes_what_no_mask_keeps(name):
    wanted = r"counts='both'.*may change every coordinate; use FedAvg or FedProx, or counts='uplink'"
    with pytest.raises(RuleError, match=wanted):
        StrategyChoice(name, {}, "lossless", BOTH)
    strategy = getattr(strategies, name)()
    with pytest.raises(RuleError, match=wanted):
        Sparse(strategy, allocation=BOTH)
    StrategyChoice(name, {}, "lossless", OnePrice(share=0.1))
    Sparse(strategy, allocation=OnePrice(share=0.1))
    Sparse(strategy, allocation=BOTH, averages=True)


@pytest.mark.parametrize("strategy", [FedAvg(fraction_train=0.5), FedAdam()], ids=lambda each: type(each).__name__)
def test_a_grid_with_an_allocation_of_its_own_is_held_against_the_strategy_too(strategy):
    inner = Watched(app(Sparsify("phone-lte-2021", CWMP(), Density(0.1))), 2)
    with pytest.raises(RuleError, match=r"counts='both'"):
        Sparse(strategy).start(SparseGrid(inner, allocation=BOTH), record(MODEL), 1)
    assert not any(inner.requests)


PAGES = "mcu-flash-ble-nrf5340"


def test_a_device_that_erases_pages_to_receive_is_refused_before_a_study_runs():
    file = Path(__file__).parents[1] / "studies" / "quickstart.toml"
    devices = f'fleet.devices={{ "{PAGES}" = 1, "phone-lte-2021" = 9 }}'
    sets = (devices, 'strategy.downlink="lossless"', 'grid.rule=["CWMP"]')
    for counts in ("both", "uplink"):
        allocation = f'strategy.allocation={{ name = "EqualJoules", share = 0.1, counts = "{counts}" }}'
        if counts == "uplink":
            assert expand(load(file, [*sets, allocation]))
            continue
        with pytest.raises(StudyError, match=rf"'{PAGES}'.*erases pages.*use counts = 'uplink', or devices without"):
            load(file, [*sets, allocation])


def test_a_node_that_erases_pages_to_receive_is_left_out_and_the_log_says_why(caplog):
    for counts in ("uplink", "both"):
        caplog.clear()
        fleet = Fleet(devices=("phone-lte-2021", "phone-lte-2021", PAGES), nodes=3)
        grid = SparseGrid(fleet.grid, allocation=EqualJoules(share=0.1, counts=counts))
        answers = grid.send_and_receive([request(node=node, arrays=MODEL) for node in (1, 2, 3)])
        assert sum(each.has_error() for each in answers) == (counts == "both")
        assert ("node 3: it answers with an error" in caplog.text) == (counts == "both")
        assert (f"{PAGES}' erases pages of flash" in caplog.text) == (counts == "both")


def reply(said, device="phone-lte-2021"):
    return wire.Reply(b"", 1, None, device=device, said=msgspec.json.encode(said))


def test_what_a_node_says_of_receiving_is_checked_by_the_servers_own_prices(caplog):
    layout, device = Layout.single(100), load_device("phone-lte-2021")
    dense, received = float(price(layout, device).per_kept[0] * 100), receive_j(layout, device)
    allotter = Allotter(EqualJoules(share=0.1, counts="both"))
    own = Pricing().dense(device.name, layout)
    for claim, believed in ((received, True), (received * 3, False), (received / 3, False), (0.0, False)):
        allotter.ask([3], claim)
        caplog.clear()
        allotter.heard(3, 0, reply(Said(dense, 0.0, receive_j=claim)), 10, own)
        assert (3 in allotter._known) == believed
        assert believed or "node 3: what it says of its energy is left out" in caplog.text
    for claim in (-1.0, math.inf):
        allotter.heard(3, 0, reply(Said(dense, 0.0, receive_j=claim)), 10, None)
        assert 3 not in allotter._known
    for claim, believed in ((dense, True), (dense / 100, False), (5e-324, False), (dense * 2, False)):
        caplog.clear()
        allotter.heard(3, 0, reply(Said(claim, 0.0, receive_j=received)), 10, own)
        assert (3 in allotter._known) == believed
        bound = "at most" if claim > dense else "at least"
        assert believed or f"sending everything costs {bound}" in caplog.text
    allotter.heard(3, 0, reply(Said(dense, 0.0, receive_j=received)), 10, own)
    assert allotter._known[3].receive_j == received


@pytest.mark.parametrize("boundary", ["radio", "memory", "device"])
def test_no_honest_claim_is_outside_what_the_server_works_out(boundary):
    layout = Layout.of(
        {"conv.weight": np.ones((4, 3, 3, 3)), "norm.weight": np.ones(5), "fc.weight": np.ones((40, 20))}
    )
    budgets = [Count(1), Density(0.01), Density(0.5), Density(1.0), Joules(1.0)]
    for name in list_devices():
        own = Pricing(boundary=boundary).dense(name, layout)
        for values in get_args(ValueType):
            for budget in budgets if own.unit is not None else ():
                compressor, device = Compressor(CWMP(), budget, values), load_device(name)
                costs = priced(layout, device, compressor, boundary)
                dense = math.fsum((costs.per_kept * layout.sizes).tolist())
                assert own.check(dense, receiving(layout, device, compressor, boundary)) == device.unit
                with pytest.raises(PayloadError, match="costs at least"):
                    own.check(own.sent[0] * 0.999)


def test_only_who_is_asked_says_what_receiving_costs():
    update, costs = np.ones(4, np.float32), Costs.of(np.ones(4))
    for both in (False, True):
        inner = Watched(app(Sparsify("phone-lte-2021", CWMP(), Density(0.1))), 1)
        grid = SparseGrid(inner, allocation=EqualJoules(share=0.1, counts="both" if both else "uplink"))
        grid.send_and_receive([request(node=1)])
        (known,) = grid.allotter._known.values()
        assert (known.receive_j > 0) == both
        order = Order(Joules(2.0), both=both)
        assert orders.parse(order.text()) == order
        assert ("both" in order.text()) == both
    said = orders.obey(Order(Joules(2.0), both=True), Compressor(CWMP(), Density(0.5)), update, costs, 7.0).said
    assert said.receive_j == 7.0


def test_a_round_that_is_not_used_brings_nothing_down():
    inner = Watched(app(Sparsify("phone-lte-2021", CWMP(), Density(0.5))), 2)
    grid = SparseGrid(inner, allocation=EqualJoules(share=0.5, counts="both"))
    for used in (True, False, None):
        replies = grid.send_and_receive([request(node=1), request(node=2)])
        before = grid.allotter.books
        if used is None:
            grid.allotter.close()  # As if the next round began.
        elif used:
            grid.accept(replies[0].content["arrays"], averaged=True)
        else:
            grid.discard()
        books = grid.allotter.books
        cost = books.received_j - before.received_j
        assert (cost > 0) == (used is not False) or used is True
        assert used is not None or cost == pytest.approx(before.awaited_j)


def test_receiving_costs_what_one_receiver_adds_to_every_price():
    layout = Layout.of({"conv.weight": np.ones((2, 1, 3, 3)), "fc.weight": np.ones((4, 2))})
    for name in ("phone-lte-2021", "phone-wifi-2020", "sbc-raspberry-pi-5-ethernet"):
        device = load_device(name)
        with_one, without = (price(layout, device, fan_out=each).per_kept @ layout.sizes for each in (1.0, 0.0))
        assert receive_j(layout, device) == pytest.approx(with_one - without, rel=1e-9)
    assert receive_j(layout, load_device(DEVICE)) == 0.0
