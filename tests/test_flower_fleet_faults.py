"""Whatever nodes do, rounds go on, and honest nodes spend no more than the fleet's budget."""

import logging
import math
import re

import msgspec
import numpy as np
import pytest
from fleet_in_process import ALLOCATIONS, BUDGET, DENSE, LINKS, MODEL, PARAMETERS, Fleet, held, masks, spent
from toy_federation import Watched, app, request

from joulewise.compress import ErrorFeedback
from joulewise.devices import list_devices, load_device
from joulewise.flower import EqualJoules, OnePrice, Pricing, SparseGrid, Sparsify
from joulewise.flower.notes import ORDER
from joulewise.flower.orders import Said
from joulewise.flower.wire import RECORD
from joulewise.profilefile import dumps
from joulewise.rules import CWMP, Density, Joules, Projection, TopK


def only(partition, mod):
    """The mod at one node."""

    def chosen(message, context, call_next):
        here = context.node_config["partition-id"] == partition
        return mod(message, context, call_next) if here else call_next(message, context)

    return chosen


@pytest.fixture(autouse=True)
def quiet(caplog):
    logging.getLogger("flwr").setLevel(logging.CRITICAL)
    caplog.set_level(logging.WARNING, "joulewise")


# ---------------------------------------------------------------- nodes that do not follow


def without_the_note(message, context, call_next):
    """An older version: it leaves the order where it is, and joulewise does not see it."""
    for config in message.content.config_records.values():
        config.pop(ORDER, None)
    return call_next(message, context)


def without_the_mod(devices):
    own = Sparsify(devices, CWMP(), Density(0.1), feedback=ErrorFeedback())

    def some(message, context, call_next):
        return (
            call_next(message, context)
            if context.node_config["partition-id"] == 1
            else own(message, context, call_next)
        )

    return some


@pytest.mark.parametrize("allocation", ALLOCATIONS, ids=str)
def test_a_node_without_the_mod_stops_nothing_and_its_part_is_kept_free(allocation, tmp_path):
    fleet = Fleet(sparsify=without_the_mod(LINKS))
    rows = fleet.play(tmp_path, allocation)
    assert [[client.partition for client in row.clients] for row in rows] == [[0, 2, 3]] * 4
    assert held(rows, fleet, allocation)
    assert masks(rows[-1]) > 0


@pytest.mark.parametrize("allocation", ALLOCATIONS, ids=str)
def test_an_older_version_that_ignores_its_order_stops_nothing(allocation, tmp_path):
    fleet = Fleet(only(0, without_the_note))
    rows = fleet.play(tmp_path, allocation)
    assert [len(row.clients) for row in rows] == [4] * 4
    others = [math.fsum(spent(client) for client in row.clients[1:]) for row in rows]
    budget = getattr(allocation, "budget_j", None) or allocation.share * sum(DENSE)
    assert sum(others) <= 4 * budget * (1 + 1e-9)
    assert rows[-1].clients[0].kept_by_tensor != rows[-1].clients[3].kept_by_tensor  # Its own budget: a tenth.
    assert sum(rows[-1].clients[0].kept_by_tensor) == round(0.1 * PARAMETERS)


def test_what_a_node_said_holds_no_longer_once_it_stops_obeying(tmp_path):
    changing = []

    def downgraded(message, context, call_next):
        changing.append(1)
        return (without_the_note if len(changing) > 2 else lambda m, c, n: n(m, c))(message, context, call_next)

    fleet = Fleet(only(0, downgraded))
    fleet.play(tmp_path, OnePrice(share=0.03), rounds=5)
    assert [isinstance(each[1].budget, Joules) for each in fleet.orders()] == [False, True, True, False, False]


def test_a_rule_without_a_price_fails_at_its_node_alone(tmp_path, caplog):
    mixed = {True: Sparsify(LINKS, TopK(), Density(0.1)), False: Sparsify(LINKS, CWMP(), Density(0.1))}
    fleet = Fleet(sparsify=lambda m, c, n: mixed[c.node_config["partition-id"] == 2](m, c, n))
    rows = fleet.play(tmp_path, OnePrice(budget_j=BUDGET))
    assert [[client.partition for client in row.clients] for row in rows] == [[0, 1, 3]] * 4
    assert "TopK has no value; use CWMP, Projection or MinVariance" in caplog.text


# ---------------------------------------------------------------- replies that are lost or late


@pytest.mark.parametrize("allocation", ALLOCATIONS, ids=str)
@pytest.mark.parametrize("late", [False, True])
def test_a_reply_that_is_lost_or_late_is_booked_once_as_all_that_its_node_may_have_spent(allocation, late, tmp_path):
    kept = []

    def spoil(replies):
        """From the second round on nothing comes from node 1, or a round too late; it has spent its part."""
        before, kept[:] = list(kept), [reply for reply in replies if reply.metadata.src_node_id == 1]
        if len(fleet.orders()) == 1:
            kept.clear()
            return replies
        return [reply for reply in replies if reply.metadata.src_node_id != 1] + (before if late else [])

    fleet = Fleet(spoil=spoil)
    rows = fleet.play(tmp_path, allocation, rounds=6)
    assert [len(row.clients) for row in rows] == [4] + [3] * 5
    budget = getattr(allocation, "budget_j", None) or allocation.share * sum(DENSE)
    caps, reported = fleet.caps(), [masks(row) for row in rows]
    gone = [each[1].budget.budget if isinstance(each[1].budget, Joules) else 0.0 for each in fleet.orders()]
    assert all(math.fsum(each) > 0 for each in caps[1:])
    # What the others report and what the lost one may have spent are within all budgets so far.
    for number in range(1, 7):
        assert math.fsum(reported[:number]) + math.fsum(gone[1:number]) <= number * budget * (1 + 1e-9)


# ---------------------------------------------------------------- forged claims


def forging(**lies):
    """Node 1 writes something else than joulewise into its reply."""

    def spoil(replies):
        for reply in replies:
            if reply.metadata.src_node_id == 1 and reply.has_content() and RECORD in reply.content:
                note = reply.content[RECORD]
                told = msgspec.json.decode(note["said"], type=Said) if "said" in note else Said(1.0, 0.0)
                for key, lie in lies.items():
                    note[key] = lie(told) if callable(lie) else lie
        return replies

    return spoil


def says(**fields):
    return lambda told: msgspec.json.encode(msgspec.structs.asdict(told) | fields)


def curve(*pairs):
    return np.array(pairs, "<f4").tobytes()


LIES = {
    "dense 1e300": {"said": says(dense_j=1e300)},
    "dense 1e9": {"said": says(dense_j=1e9)},
    "dense 0": {"said": says(dense_j=0)},
    "spent 1e300": {"said": says(spent_j=1e300)},
    "spent nothing": {"said": says(spent_j=0.0)},
    "wants 1e300": {"said": says(wanted_j=1e300)},
    "wants everything": {"said": says(wanted_j=1e99)},
    "margin 1e300": {"said": says(margin=1e300)},
    "margin 1e99": {"said": says(margin=1e99)},
    "margin of nothing": {"said": says(margin=5e-324)},
    "squares": {"said": says(exponent=2)},
    "exponent 2^40": {"said": says(exponent=2**40)},
    "text": {"said": "text"},
    "list": {"said": [1, 2]},
    "nested": {"said": b'{"x":' + b"[" * 1000},
    "long": {"said": b" " * 100_000},
    "empty": {"said": b""},
    "curve of rubbish": {"curve": b"\xff" * 24},
    "curve of everything": {"curve": curve((3e38, 1e-30), (1e38, 3e38))},
    "curve of nothing": {"curve": b""},
    "curve too long": {"curve": curve(*((100.0 - at, at + 1.0) for at in range(65)))},
    "curve that rises": {"curve": curve((1.0, 1.0), (2.0, 2.0))},
    "curve as text": {"curve": "text"},
    "another device": {"device": "mine"},
}


@pytest.mark.parametrize("lie", LIES)
@pytest.mark.parametrize("allocation", [ALLOCATIONS[0], *ALLOCATIONS[3:]], ids=str)
def test_a_forged_claim_stops_no_round_and_raises_no_budget(allocation, lie, tmp_path):
    fleet = Fleet(spoil=forging(**LIES[lie]))
    rows = fleet.play(tmp_path, allocation, rounds=3)
    assert [len(row.clients) for row in rows] == [4] * 3
    assert all(np.isfinite(math.fsum(each)) for each in fleet.caps())
    if lie == "spent nothing" and getattr(allocation, "control", "") == "ascent":
        return  # What it has not spent, as it says, is handed out again; see the next test.
    most = getattr(allocation, "budget_j", None) or allocation.share * (sum(DENSE) + 8 * DENSE[0])
    totals = [masks(row) for row in rows]
    assert math.fsum(totals) <= 3 * most * (1 + 1e-9)
    # Who is honest keeps sending.
    assert all(math.fsum(spent(client) for client in row.clients[1:]) > 0 for row in rows) or "everything" in lie


def test_what_honest_nodes_spend_is_within_the_budget_where_one_hides_what_it_spends(tmp_path):
    fleet = Fleet(spoil=forging(said=says(spent_j=0.0)))
    rows = fleet.play(tmp_path, OnePrice(budget_j=BUDGET, control="ascent"), rounds=6)
    honest = np.cumsum([math.fsum(spent(client) for client in row.clients[1:]) for row in rows])
    assert (honest <= BUDGET * np.arange(1, 7) * (1 + 1e-9)).all()


def test_no_forged_number_of_examples_stops_a_round(tmp_path):
    fleet = Fleet(
        spoil=forging(said=says(margin=1e100)),
        examples=lambda partition: 2**52 if partition == 0 else 1,
        rule=Projection(),
    )
    rows = fleet.play(tmp_path, OnePrice(budget_j=BUDGET, control="ascent"), rounds=6)
    assert [len(row.clients) for row in rows] == [4] * 6
    assert all(math.fsum(caps) <= BUDGET * number for number, caps in enumerate(fleet.caps(), 1))


def test_a_price_that_overflows_is_found_anew(tmp_path, caplog):
    grid = SparseGrid(
        Fleet(rule=Projection(), examples=lambda p: 2**50 if p == 0 else 1).grid,
        allocation=OnePrice(budget_j=BUDGET, control="ascent"),
    )
    for number in (1, 2, 3):
        if number == 2:
            grid.allotter.books = grid.allotter.books.__class__(price=1e290)
        replies = grid.send_and_receive([request(node, number, MODEL) for node in (1, 2, 3, 4)])
        assert not any(reply.has_error() for reply in replies)
        grid.discard()
    assert "the price of a joule is found anew: the price of a joule overflows for client" in caplog.text
    assert 0 < grid.allotter.books.price < math.inf


def test_the_log_says_why_a_claim_is_left_out(tmp_path, caplog):
    for lie, why in (
        ("dense 1e9", "node 1: .* it reports dense_j = 1e[+]09 relative, but sending everything costs at most 1"),
        ("another device", "node 1: .* there are no prices here for its device 'mine'; name its file"),
        ("squares", "node 1: .* it counts .*value in squares, but most nodes of this round .*value in magnitudes"),
        ("nested", "node 1: what it says of its energy is left out"),
    ):
        caplog.clear()
        Fleet(spoil=forging(**LIES[lie])).play(tmp_path, OnePrice(share=0.03), arm=lie, rounds=2)
        assert caplog.text
        assert re.search(why, caplog.text), lie


@pytest.mark.parametrize("device", [name for name in list_devices() if not name.startswith("table-")])
@pytest.mark.parametrize("values", ["float32", "int8"])
@pytest.mark.parametrize("density", [1.0, 0.001])
def test_what_an_honest_node_says_is_believed(device, values, density, caplog):
    grid = Watched(app(Sparsify(device, CWMP(), Density(density), values)), 1)
    sparse = SparseGrid(grid, allocation=OnePrice(share=0.1))
    sparse.send_and_receive([request(1, arrays=MODEL)])
    assert list(sparse.allotter._known) == [1]
    assert not caplog.text


def test_a_node_is_believed_on_a_device_that_the_server_was_told_of(tmp_path):
    file = tmp_path / "own.toml"
    file.write_text(dumps(msgspec.structs.replace(load_device("phone-lte-2021"), name="own-phone")), encoding="utf-8")
    for pricing, known in ((Pricing(), []), (Pricing(devices=[str(file)]), [1]), (None, [1])):
        grid = SparseGrid(Watched(app(Sparsify(str(file))), 1), allocation=EqualJoules(1.0), pricing=pricing)
        grid.send_and_receive([request(1)])
        assert list(grid.allotter._known) == known


def test_joules_and_relative_units_are_not_added_up(tmp_path, caplog):
    devices = ("phone-lte-2021", "synthetic-link-1", "phone-wifi-2020", "phone-lte-2021")
    fleet = Fleet(devices=devices)
    rows = fleet.play(tmp_path, OnePrice(share=0.03))
    assert "node 2: what it says of its energy is left out: it counts energy in relative" in caplog.text
    last = fleet.orders()[-1]
    assert last[2].budget == Density(0.03)
    priced = [client for client in rows[-1].clients if client.partition != 1]
    assert math.fsum(client.allowed for client in priced) < 1.0  # Joules; a relative unit is a thousand of them here.
