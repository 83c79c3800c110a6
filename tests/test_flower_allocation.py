"""One budget of joules for all nodes of a round: what goes over the wire, what is spent, and what nodes may claim."""

import math

import msgspec
import numpy as np
import pytest
from flwr.app import ConfigRecord
from studies_of_flower import arm, bits
from test_flower_resume import resumed_equals_never_stopped
from toy_federation import DEVICE, Watched, app, request

from joulewise import labels
from joulewise.charges import MASK_TERMS, total
from joulewise.compress import Compressor, ErrorFeedback
from joulewise.costs import Costs
from joulewise.curves import curve_of
from joulewise.errors import FederationError, PayloadError, RuleError, SettingError, StudyError
from joulewise.fleet import EqualCount, EqualJoules, Known, OnePrice
from joulewise.flower import SparseGrid, Sparsify, orders, wire
from joulewise.flower.allotter import Allotter
from joulewise.flower.app import federate
from joulewise.flower.notes import ORDER
from joulewise.flower.orders import Order, Said
from joulewise.rules import CWMP, Density, Joules, Projection, TopK
from joulewise.study import expand, load

RULE = Compressor(Projection(), Density(0.05), feedback=ErrorFeedback())
ALLOCATIONS = (
    EqualCount(share=0.05),
    EqualJoules(share=0.05),
    OnePrice(share=0.05),
    OnePrice(share=0.05, least_share=0.5),
    OnePrice(share=0.05, control="asked"),
    OnePrice(share=0.05, control="ascent"),
)
LINKS = ("synthetic-link-1", "synthetic-link-1", "synthetic-link-100", "synthetic-link-100")


def fleet_arm(allocation, compressor=RULE, rounds=6):
    which = arm(compressor, rounds=rounds)
    strategy = msgspec.structs.replace(which.strategy, allocation=allocation)
    return which.__class__(
        **{name: getattr(which, name) for name in which.__dataclass_fields__ if name not in {"strategy", "devices"}},
        strategy=strategy,
        devices=LINKS,
    )


def spent(client):
    return total(charge for charge in client.charges if charge.term in MASK_TERMS)


# ---------------------------------------------------------------- whole federations


@pytest.fixture(scope="module", params=ALLOCATIONS, ids=str)
def run(request):
    which = fleet_arm(request.param)
    return request.param, list(federate(which, 4))


def test_the_budget_of_a_round_is_not_exceeded_once_the_fleet_is_known(run):
    allocation, outcomes = run
    parameters = outcomes[0].clients[0].parameters
    budget = allocation.share * parameters * 202
    masks = [math.fsum(spent(client) for client in outcome.clients) for outcome in outcomes]
    ascends = isinstance(allocation, OnePrice) and allocation.control == "ascent"
    assert ascends or all(mask <= budget * (1 + 1e-12) for mask in masks[1:])
    assert all(math.fsum(masks[:number]) <= number * budget * (1 + 1e-12) for number in range(1, len(masks) + 1))
    # What is left over goes to the next round: once the price is found, that is little.
    assert all(mask >= 0.9 * budget for mask in masks[4 if ascends else 1 :])


def test_no_client_spends_more_than_it_was_allowed(run):
    allocation, outcomes = run
    for outcome in outcomes[1:]:
        for client in outcome.clients:
            if isinstance(allocation, EqualCount):
                assert client.allowed is None
            else:
                assert spent(client) <= client.allowed


def test_rows_say_the_price_where_there_is_one(run):
    allocation, outcomes = run
    prices = {client.price for client in outcomes[-1].clients}
    assert (None not in prices) == (isinstance(allocation, OnePrice) and allocation.control == "ascent")


def test_one_price_gives_cheap_links_more_coordinates_and_equal_joules_does_too(run):
    allocation, outcomes = run
    kept = [sum(client.kept_by_tensor) for client in outcomes[-1].clients]
    if isinstance(allocation, EqualCount):
        assert len(set(kept)) == 1
    else:
        assert min(kept[:2]) > max(kept[2:])


def test_a_curve_is_counted_among_the_bytes_and_charged():
    outcomes = list(federate(fleet_arm(OnePrice(share=0.05), rounds=2), 4))
    without = list(federate(fleet_arm(EqualJoules(share=0.05), rounds=2), 4))
    first, plain = outcomes[0].clients[0], without[0].clients[0]
    (curve,) = (charge for charge in first.charges if charge.term == "curve")
    assert 0 < curve.bytes <= 512
    assert first.bytes_up == plain.bytes_up + curve.bytes
    assert "curve" not in {charge.term for charge in plain.charges}


@pytest.mark.parametrize("allocation", ALLOCATIONS[2:], ids=str)
def test_a_run_goes_on_from_a_checkpoint_with_the_same_bits(allocation, tmp_path):
    resumed_equals_never_stopped(fleet_arm(allocation), tmp_path)


def test_the_same_bits_twice():
    which = fleet_arm(OnePrice(share=0.05, control="ascent"), rounds=3)
    assert bits(federate(which, 1)) == bits(federate(which, 1))


def test_a_rule_without_a_price_is_refused_where_joules_have_one():
    with pytest.raises(RuleError, match="TopK has no value; use CWMP, Projection or MinVariance"):
        list(federate(fleet_arm(OnePrice(share=0.05), Compressor(TopK(), Density(0.05))), 0))
    assert len(list(federate(fleet_arm(EqualJoules(share=0.05), Compressor(TopK(), Density(0.05)), rounds=2), 0))) == 2


# ---------------------------------------------------------------- a grid


def test_an_app_does_not_see_its_order():
    seen = []

    def look(message, context, call_next):
        seen.extend(key for config in message.content.config_records.values() for key in config)
        return call_next(message, context)

    inner = Watched(app(Sparsify(DEVICE, CWMP(), Density(0.1)), look), 2)
    grid = SparseGrid(inner, allocation=EqualJoules(1.0))
    replies = grid.send_and_receive([request(node=1), request(node=2)])
    assert not any(reply.has_error() for reply in replies)
    assert ORDER in str(inner.requests)
    assert "server-round" in seen
    assert ORDER not in seen


def test_nodes_of_one_round_are_asked_in_one_call():
    grid = SparseGrid(Watched(app(Sparsify(DEVICE, CWMP(), Density(0.1))), 2), allocation=EqualJoules(1.0))
    grid.send_and_receive([request(node=1)])
    with pytest.raises(FederationError, match="send all train requests of a round in one call"):
        grid.send_and_receive([request(node=2)])
    grid.discard()
    grid.send_and_receive([request(node=2)])


# ---------------------------------------------------------------- the wire


def test_an_order_comes_back_as_it_was_written():
    for order in (Order(Joules(0.5)), Order(Density(0.1), points=64), Order(Joules(1e-300), 1e300)):
        assert orders.parse(order.text()) == order


@pytest.mark.parametrize(
    "text",
    [
        None, 3, b"{}", "", "{", "{}", '{"budget":{"name":"Count","k":3}}', '{"budget":{"name":"Joules","budget":-1}}',
        '{"budget":{"name":"Joules","budget":1},"price":-1}', '{"budget":{"name":"Joules","budget":1},"points":65}',
        '{"budget":{"name":"Joules","budget":1},"points":1}', Order(Joules(1.0)).text() + " " * 1024,
    ],
)  # fmt: skip
def test_what_is_no_order_is_refused(text):
    with pytest.raises(SettingError, match="the server's order to this node cannot be read"):
        orders.parse(text)


def test_what_a_node_says_is_what_its_update_holds():
    rng = np.random.default_rng(0)
    update, costs = rng.standard_normal(500).astype(np.float32), Costs.of(rng.uniform(0.5, 2, 500), unit="relative")
    obeyed = orders.obey(Order(Joules(20.0), price=1.0, points=64), Compressor(CWMP(), Density(0.1)), update, costs)
    sent = obeyed.compressor.compress(update, None, costs)
    said, curve = orders.heard(*obeyed.told(sent))
    assert obeyed.compressor.budget == Joules(20.0)
    assert said.dense_j == pytest.approx(costs.per_kept.sum(), rel=1e-12)
    assert said.spent_j == pytest.approx(costs.per_kept[sent.selection.indices].sum(), rel=1e-12)
    assert said.wanted_j == pytest.approx(costs.per_kept[np.abs(update) / costs.per_kept >= 1].sum(), rel=0.03)
    assert said.exponent == 1
    assert curve.energies_j[-1] == pytest.approx(costs.per_kept.sum(), rel=1e-6)
    kept = np.abs(update[sent.selection.indices]) / costs.per_kept[sent.selection.indices]
    assert said.margin == pytest.approx(kept.min(), rel=0.05)
    assert curve_of(update, costs, CWMP()).to_bytes() == obeyed.curve


def test_the_exponent_follows_from_the_rule():
    update, costs = np.ones(4, np.float32), Costs.of(np.ones(4), unit="relative")
    for rule, exponent in ((CWMP(), 1), (Projection(), 2)):
        assert orders.obey(Order(Joules(2.0)), Compressor(rule, Density(0.5)), update, costs).said.exponent == exponent
    with pytest.raises(RuleError, match="TopK"):
        orders.obey(Order(Joules(2.0), points=8), Compressor(TopK(), Density(0.5)), update, costs)


@pytest.mark.parametrize(
    ("said", "curve"),
    [
        (b"{", b""), (b"[]", b""), (b'{"dense_j":1}', b""), (b'{"dense_j":1,"spent_j":-1}', b""),
        (b'{"dense_j":1,"spent_j":1e999}', b""), (b'{"dense_j":"a","spent_j":1}', b""),
        (b'{"dense_j":1,"spent_j":1}', b"abc"), (b'{"dense_j":1,"spent_j":1}', bytes(16)),
    ],
)  # fmt: skip
def test_what_cannot_be_read_is_refused(said, curve):
    with pytest.raises(PayloadError):
        orders.heard(said, curve)


# ---------------------------------------------------------------- the server's books


def reply(said, curve=b""):
    return wire.Reply(b"", 1, None, said=said if isinstance(said, bytes) else msgspec.json.encode(said), curve=curve)


def test_nonsense_leaves_a_node_unknown_and_the_log_says_so(caplog):
    allotter = Allotter(EqualJoules(budget_j=8.0))
    allotter.ask([3, 5], 1)
    for nonsense in (Said(-1.0, 1.0), Said(math.inf, 1.0), Said(1.0, 1.0, exponent=7), b"{", b"{}"):
        allotter.heard(3, 0, reply(Said(10.0, 4.0)), 10)
        assert 3 in allotter._known
        caplog.clear()
        allotter.heard(3, 0, reply(nonsense), 10)
        assert 3 not in allotter._known
        assert "node 3: what it says of its energy is left out" in caplog.text
    allotter.heard(5, 1, reply(Said(10.0, 4.0)), 10)
    allotter.close()
    assert (allotter.books.rounds, allotter.books.spent_j) == (1, 8.0)  # It may have spent its part.


def test_numbers_that_overflow_in_a_sum_are_nonsense():
    allotter = Allotter(OnePrice(share=0.5, control="ascent"))
    for number in (1, 2, 3):
        allotter.ask([3, 5], number)
        for node, partition in ((3, 0), (5, 1)):
            allotter.heard(node, partition, reply(Said(9e307, 1.0, 2, 9e307, 9e307)), 2**52)
    assert not allotter._known
    allotter.close()
    assert math.isfinite(allotter.books.allowed_j)


def test_a_claim_above_the_cap_counts_as_the_cap():
    allotter = Allotter(EqualJoules(budget_j=8.0))
    allotter.ask([3, 5], 1)
    allotter.heard(3, 0, reply(Said(10.0, 1e6)), 10)
    allotter.heard(5, 1, reply(Said(10.0, 3.0)), 10)
    allotter.close()
    assert allotter.books.spent_j == 7.0


def test_a_node_that_does_not_obey_is_asked_again():
    allotter = Allotter(OnePrice(budget_j=8.0))
    for number in (1, 2, 3):
        texts = allotter.ask([3, 5], number)
        allotter.heard(3, 0, reply(b""), 10)
        allotter.heard(5, 1, reply(Said(10.0, 4.0)), 10)
        assert sum(orders.parse(text).budget.budget for text in texts.values()) <= 8.0
    allotter.close()
    assert allotter.books.rounds == 3


def test_what_is_packed_comes_back():
    allotter = Allotter(OnePrice(share=0.1, control="ascent"))
    update, costs = np.arange(1, 9, dtype=np.float32), Costs.of(np.ones(8), unit="relative")
    curve = curve_of(update, costs, CWMP()).to_bytes()
    allotter.ask([7, 9], 1)
    allotter.heard(7, 1, reply(Said(8.0, 0.5, 1, None, 6.0), curve), 30)
    allotter.heard(9, 0, reply(Said(80.0, 5.0, 1, None, 0.1)), 10)
    allotter.close()
    other = Allotter(allotter.allocation)
    other.unpack(allotter.pack({7: 1, 9: 0}), {0: 109, 1: 107})
    assert other.books == allotter.books
    assert other._known[109] == Known(10, 80.0, None, None, 0.1, 1)
    assert other._known[107].curve.to_bytes() == curve
    before, after = allotter.ask([9, 7], 2), other.ask([107, 109], 2)
    assert list(before.values()) == list(after.values())  # in the order of partitions


def test_a_config_record_is_where_orders_travel():
    inner = Watched(app(Sparsify(DEVICE, CWMP(), Density(0.1))), 1)
    grid = SparseGrid(inner, allocation=EqualCount(share=0.25))
    grid.send_and_receive([request(node=1)])
    ((sent,),) = inner.requests
    (config,) = (record for record in sent.content.values() if isinstance(record, ConfigRecord))
    assert orders.parse(config[ORDER]) == Order(Density(0.25))


def test_a_study_refuses_an_allocation_that_its_rule_cannot_follow(tmp_path):
    text = """
    name = "fleet"
    rounds = 2
    seeds = [0]
    data = { name = "digits", clients = 2, partition = "IID" }
    model = "mlp"
    fleet = { devices = { "synthetic-link-1" = 1, "synthetic-link-10" = 1 } }
    [strategy]
    allocation = { name = "OnePrice", share = 0.01 }
    [grid]
    rule = ["RULE"]
    density = [0.01]
    """
    file = tmp_path / "fleet.toml"
    for rule, problem in (("TopK", "needs a value per joule, which TopK has not"), ("Dense", "Dense takes no budget")):
        file.write_text(text.replace("RULE", rule), encoding="utf-8")
        with pytest.raises(StudyError, match=problem):
            expand(load(file))
    file.write_text(text.replace("RULE", "CWMP"), encoding="utf-8")
    (only,) = expand(load(file))
    assert only.strategy.allocation == OnePrice(share=0.01)


def test_an_arm_is_called_by_what_differs_from_the_usual():
    named = labels.of([fleet_arm(allocation) for allocation in ALLOCATIONS])
    assert "allocation=OnePrice(share=0.05, control=ascent)" in named[5]
    assert "allocation=OnePrice(share=0.05, control=asked)" in named[4]
    assert "allocation=OnePrice(share=0.05) " in named[2] + " "
