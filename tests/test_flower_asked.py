"""Nodes say what their updates cost before they send them, and the budget is divided by that."""

import logging
import math
from types import SimpleNamespace

import msgspec
import numpy as np
import pytest
from fleet_in_process import BUDGET, DENSE, LINKS, MODEL, Fleet, masks, spent
from flwr.app import RecordDict
from toy_federation import Watched, app, payloads, record, request, update

from joulewise import fleet
from joulewise.charges import UPLINK_TERMS
from joulewise.codec import decode
from joulewise.compress import ErrorFeedback
from joulewise.flower import ContextStore, FileStore, MemoryStore, OnePrice, SparseGrid, Sparsify, summary, wire
from joulewise.flower.asking import Answers
from joulewise.flower.notes import ORDER
from joulewise.flower.orders import Order, Said, parse
from joulewise.flower.state import packed_state, unpacked_state
from joulewise.flower.summary import TICKET
from joulewise.flower.trained import Trained
from joulewise.layout import Layout
from joulewise.rules import CWMP, Density, Joules, MinVariance, Projection

ASKED = (OnePrice(budget_j=BUDGET, control="asked"), OnePrice(share=0.03, control="asked"))


@pytest.fixture(autouse=True)
def quiet(caplog):
    logging.getLogger("flwr").setLevel(logging.CRITICAL)
    caplog.set_level(logging.WARNING, "joulewise")


def summarised(reply):
    return reply.has_content() and summary.read(reply.content) is not None


def told_to(requests):
    """What orders that follow a summary say, by node."""
    found = {each.metadata.dst_node_id: summary.order_in(each) for each in requests}
    return {node: parse(order[1]) for node, order in found.items() if order is not None}


def divisions(fleet_):
    """The caps of each round, by node."""
    return [caps for requests in fleet_.grid.requests if (caps := told_to(requests))]


# ---------------------------------------------------------------- the division


@pytest.mark.parametrize("allocation", ASKED, ids=str)
@pytest.mark.parametrize("rule", [CWMP(), Projection()], ids=str)
def test_the_budget_is_held_and_used_from_the_first_round_on(allocation, rule, tmp_path):
    played = Fleet(rule=rule)
    rows = played.play(tmp_path, allocation)
    assert [len(row.clients) for row in rows] == [4] * 4
    budget = allocation.budget_j or allocation.share * sum(DENSE)
    for row, caps in zip(rows, divisions(played), strict=True):
        assert all(isinstance(each.budget, Joules) for each in caps.values())
        assert math.fsum(each.budget.budget for each in caps.values()) <= budget
        assert 0.9 * budget <= masks(row) <= budget
        assert [client.allowed for client in row.clients] == [caps[node].budget.budget for node in (1, 2, 3, 4)]
        assert all(spent(client) <= client.allowed for client in row.clients)


def test_the_division_is_that_of_this_rounds_curves(tmp_path):
    heard = []

    def listen(replies):
        heard.extend(reply for reply in replies if summarised(reply))
        return replies

    allocation = ASKED[1]
    played = Fleet(spoil=listen)
    played.play(tmp_path, allocation, rounds=3)
    assert len(heard) == 12
    books = fleet.Books()
    for number, caps in enumerate(divisions(played)):
        known = {}
        for reply in heard[4 * number : 4 * number + 4]:
            node, told = reply.metadata.src_node_id, summary.read(reply.content)
            said = msgspec.json.decode(told.said, type=Said)
            known[node] = fleet.Known(7 + node, said.dense_j, fleet.Curve.from_bytes(told.curve))
        orders, books = fleet.hand_out(allocation, books, known)
        assert {node: each.budget for node, each in orders.items()} == {n: each.budget for n, each in caps.items()}


@pytest.mark.parametrize("seed", range(20))
def test_parts_never_exceed_the_budget_whatever_curves_say(seed):
    rng = np.random.default_rng(seed)
    known = {}
    for node in range(int(rng.integers(1, 9))):
        size = int(rng.integers(0, 65))
        prices = np.unique(np.exp(rng.uniform(-60, 60, size)))[::-1]
        energies = np.sort(np.exp(rng.uniform(-30, 30, prices.size)))
        curve = fleet.Curve(prices, energies)
        known[node] = None if rng.random() < 0.1 else fleet.Known(int(rng.integers(0, 99)), 1e3, curve)
    orders, _ = fleet.hand_out(OnePrice(budget_j=7.0, control="asked"), fleet.Books(), known)
    assert math.fsum(order.budget.budget for order in orders.values()) <= 7.0


def test_it_keeps_what_curves_of_this_round_keep_and_strategies_notice_nothing(tmp_path):
    """With one client of any link the order is the whole budget, as with `curves` in its second round."""
    results = {}
    for control in ("curves", "asked"):
        store = MemoryStore()
        mod = Sparsify(LINKS[1], CWMP(), Density(0.1), feedback=ErrorFeedback(), store=store)
        sparse = SparseGrid(Watched(app(mod), 1), allocation=OnePrice(budget_j=900.0, control=control))
        (reply,) = sparse.send_and_receive([request(1, arrays=MODEL)])
        (result,) = sparse.take_results()
        (residual,) = (state.residual for state in store.states.values())
        results[control] = (reply, result, residual)
    (plain, known, left), (asked, result, rest) = results["curves"], results["asked"]
    assert asked.metadata.message_type == plain.metadata.message_type
    assert asked.metadata.src_node_id == plain.metadata.src_node_id == 1
    assert list(asked.content) == list(plain.content)
    assert list(asked.content["arrays"]) == list(plain.content["arrays"])
    for name, array in plain.content["arrays"].items():
        np.testing.assert_array_equal(asked.content["arrays"][name].numpy(), array.numpy())
    np.testing.assert_array_equal(left, rest)
    assert (result.kept_by_tensor, result.examples) == (known.kept_by_tensor, known.examples)


def test_the_reply_answers_the_request_of_its_strategy():
    sparse = SparseGrid(Watched(app(Sparsify(LINKS[0])), 1), allocation=ASKED[1])
    asked = request(1, arrays=MODEL)
    (reply,) = sparse.send_and_receive([asked])
    assert reply.metadata.reply_to_message_id == asked.metadata.message_id
    assert TICKET not in {name for config in asked.content.config_records.values() for name in config}


def test_min_variance_may_be_asked(tmp_path):
    own = Sparsify(LINKS, MinVariance(), Density(0.1))
    rows = Fleet(sparsify=own).play(tmp_path, ASKED[1], rounds=2)
    assert [len(row.clients) for row in rows] == [4] * 2


def test_both_directions_may_be_counted(tmp_path):
    own = Sparsify(("phone-wifi-2020", "phone-lte-2021") * 2, CWMP(), Density(0.1), feedback=ErrorFeedback())
    allocation = OnePrice(share=0.03, control="asked", counts="both")
    rows = Fleet(sparsify=own).play(tmp_path, allocation, rounds=3)
    assert all(client.allowed is not None for row in rows for client in row.clients)


# ---------------------------------------------------------------- what it costs


def test_bytes_of_all_four_messages_are_in_the_rows_and_curves_are_charged_as_a_message_of_their_own(tmp_path):
    devices = ("phone-lte-2021", "phone-wifi-2020") * 2
    by = {}
    for control in ("curves", "asked"):
        played = Fleet(devices=devices)
        rows = played.play(tmp_path / control, OnePrice(share=0.05, control=control), rounds=3)
        by[control] = (played, rows)
    played, rows = by["asked"]
    for number, row in enumerate(rows):
        requests = [each for each in played.grid.requests if told_to(each)][number]
        sizes = {each.metadata.dst_node_id: summary.size_of(*summary.order_in(each)) for each in requests}
        for client, before in zip(row.clients, by["curves"][1][number].clients, strict=True):
            (curve,) = (charge for charge in client.charges if charge.term == "curve")
            (usual,) = (charge for charge in before.charges if charge.term == "curve")
            (fixed,) = (charge for charge in client.charges if charge.term == "fixed")
            assert client.bytes_up == sum(charge.bytes for charge in client.charges if charge.term in UPLINK_TERMS)
            assert 0 < curve.bytes <= 512
            per_byte = usual.energy / usual.bytes
            assert curve.energy == pytest.approx(curve.bytes * per_byte + fixed.energy)
            assert 60 < sizes[client.partition + 1] <= summary.MOST_ORDER_BYTES
            if not number:  # Then both were sent the same model.
                assert client.bytes_down == before.bytes_down + sizes[client.partition + 1]


def test_client_and_server_work_out_the_same_bytes_and_charges():
    found = []
    for pricing in ({}, {"pricing": None}):
        mod = Sparsify("phone-lte-2021", CWMP(), Density(0.1), feedback=ErrorFeedback())
        sparse = SparseGrid(Watched(app(mod), 1), allocation=ASKED[1], **pricing)
        sparse.send_and_receive([request(1, arrays=MODEL)])
        (result,) = sparse.take_results()
        ((exchange,), _) = sparse.take_exchanges()
        assert exchange.bytes_up == result.bytes_up
        assert exchange.bytes_down == result.bytes_down
        found.append(result)
    assert [c.term for c in found[0].charges] == [c.term for c in found[1].charges]
    assert [c.energy for c in found[0].charges] == pytest.approx([c.energy for c in found[1].charges])
    assert [c.bytes for c in found[0].charges] == [c.bytes for c in found[1].charges]


def test_a_node_that_says_it_was_asked_is_charged_as_one_that_was_not():
    def boasting(replies):
        for reply in replies:
            reply.content[wire.RECORD]["asked"] = True
        return replies

    charges = []
    for spoil in (None, boasting):
        inner = Watched(app(Sparsify("phone-lte-2021", CWMP(), Density(0.1))), 1, spoil)
        sparse = SparseGrid(inner, allocation=OnePrice(share=0.05))
        sparse.send_and_receive([request(1, arrays=MODEL)])
        charges.append(sparse.take_results()[0].charges)
    assert charges[0] == charges[1]
    assert "curve" in {charge.term for charge in charges[0]}


def test_two_messages_more_are_sent_to_each_node_and_none_of_them_holds_a_model(tmp_path):
    played = Fleet()
    played.play(tmp_path, ASKED[0], rounds=2)
    trains = [requests for requests in played.grid.requests if requests]
    assert [len(requests) for requests in trains] == [4] * 4
    assert [len(told_to(requests)) for requests in trains] == [0, 4, 0, 4]
    assert all(not wire.of_kind(each.content, type(record({}))) for each in trains[1])
    assert len(played.grid.crossed) == 8


# ---------------------------------------------------------------- whatever nodes do


def only(partition, mod):
    """The mod at one node."""

    def chosen(message, context, call_next):
        here = context.node_config["partition-id"] == partition
        return mod(message, context, call_next) if here else call_next(message, context)

    return chosen


def within(rows, fleet_, allocation=ASKED[0]):
    """No round is stopped, and what nodes were told to spend is within the budget, as is what they spent."""
    budget = allocation.budget_j
    parts = [math.fsum(each.budget.budget for each in caps.values()) for caps in divisions(fleet_)]
    return bool(rows) and all(part <= budget for part in parts) and all(masks(row) <= budget for row in rows)


def test_a_node_without_the_mod_stops_nothing_and_its_part_is_given_to_nobody(tmp_path):
    own = Sparsify(LINKS, CWMP(), Density(0.1), feedback=ErrorFeedback())

    def some(message, context, call_next):
        if context.node_config["partition-id"] == 1:
            return call_next(message, context)
        return own(message, context, call_next)

    played = Fleet(sparsify=some)
    rows = played.play(tmp_path, ASKED[0])
    assert [[client.partition for client in row.clients] for row in rows] == [[0, 2, 3]] * 4
    assert within(rows, played)
    assert all(math.fsum(c.budget.budget for c in caps.values()) <= 0.76 * BUDGET for caps in divisions(played))
    assert all(2 not in caps for caps in divisions(played))


def test_an_older_version_fails_alone(tmp_path, caplog):
    def older(message, context, call_next):
        """It does not know `asks`, and finds no budget in its order."""
        for config in message.content.config_records.values():
            if ORDER in config and TICKET not in config:
                fields = msgspec.json.decode(config[ORDER])
                fields.pop("asks", None)
                config[ORDER] = msgspec.json.encode(fields).decode()
        return call_next(message, context)

    played = Fleet(only(0, older))
    rows = played.play(tmp_path, ASKED[0])
    assert [[client.partition for client in row.clients] for row in rows] == [[1, 2, 3]] * 4
    assert within(rows, played)
    assert "the server's order to this node cannot be read" in caplog.text


def rewriting(node=1, **fields):
    """Node 1 writes something else into its summary."""

    def spoil(replies):
        for reply in replies:
            if reply.metadata.src_node_id == node and summarised(reply):
                note = reply.content[wire.RECORD]
                for key, value in fields.items():
                    if key == "curve":
                        array = reply.content["arrays"][wire.PAYLOAD]
                        array.data = value
                    else:
                        note[key] = value
        return replies

    return spoil


def says(**fields):
    return msgspec.json.encode({"dense_j": 5.0, "spent_j": 0.0} | fields)


NONSENSE = {
    "said is rubbish": {"said": b"\xff\xff"},
    "said is text": {"said": "text"},
    "said is empty": {"said": b""},
    "dense is 1e300": {"said": says(dense_j=1e300)},
    "dense is 0": {"said": says(dense_j=0)},
    "exponent": {"said": says(exponent=2**40)},
    "partition is text": {"partition": "one"},
    "curve is rubbish": {"curve": b"\xff" * 24},
    "curve rises": {"curve": np.array([[1.0, 1.0], [2.0, 2.0]], "<f4").tobytes()},
    "curve is long": {"curve": b"\x01" * 8 * 65},
    "local is text": {"local": "text"},
    "local is unknown": {"local": ["nowhere"]},
    "another device": {"device": "mine"},
}


@pytest.mark.parametrize("lie", NONSENSE)
def test_a_summary_of_nonsense_leaves_its_node_out_and_gives_the_budget_to_the_others(lie, tmp_path, caplog):
    played = Fleet(spoil=rewriting(**NONSENSE[lie]))
    rows = played.play(tmp_path, ASKED[0], rounds=3)
    assert [[client.partition for client in row.clients] for row in rows] == [[1, 2, 3]] * 3
    assert within(rows, played)
    assert all(masks(row) > 0.9 * BUDGET for row in rows)
    assert "node 1: its reply is left out" in caplog.text


def test_a_forged_curve_takes_value_and_no_joules(tmp_path):
    everything = np.array([[3e38, 1e-30], [1e38, 3e38]], "<f4").tobytes()
    played = Fleet(spoil=rewriting(curve=everything))
    rows = played.play(tmp_path, ASKED[0], rounds=3)
    assert [len(row.clients) for row in rows] == [4] * 3
    assert within(rows, played)


@pytest.mark.parametrize("phase", ["summary", "payload"])
@pytest.mark.parametrize("how", ["lost", "error"])
def test_a_node_that_does_not_answer_is_left_out_and_counts_as_having_spent_its_part(phase, how, tmp_path, caplog):
    def spoil(replies):
        found = []
        for reply in replies:
            mine = reply.metadata.src_node_id == 1 and summarised(reply) == (phase == "summary")
            if mine and how == "error":
                reply.content[wire.RECORD]["said" if phase == "summary" else "sequence"] = "text"
            if not (mine and how == "lost"):
                found.append(reply)
        return found

    played = Fleet(spoil=spoil)
    rows = played.play(tmp_path, ASKED[0], rounds=3)
    assert [[client.partition for client in row.clients] for row in rows] == [[1, 2, 3]] * 3
    assert within(rows, played)
    told = [1 in caps for caps in divisions(played)]
    assert told == [phase == "payload"] * 3
    if how == "error":
        assert "node 1: its reply is left out" in caplog.text


def test_a_lost_payload_is_booked_as_all_that_its_node_may_have_spent():
    grid = Watched(app(Sparsify(LINKS, CWMP(), Density(0.1))), 4, raising=False)
    grid.spoil = lambda replies: [r for r in replies if summarised(r) or r.metadata.src_node_id != 1]
    sparse = SparseGrid(grid, allocation=ASKED[0])
    sparse.send_and_receive([request(node, arrays=MODEL) for node in (1, 2, 3, 4)])
    caps = told_to(grid.requests[1])
    done = sparse.take_results()
    sparse.discard()
    assert len(done) == 3
    expected = caps[1].budget.budget + math.fsum(spent(client) for client in done)
    assert sparse.allotter.books.spent_j == pytest.approx(expected)
    assert sparse.allotter.books.rounds == 1


def test_a_round_in_which_nobody_answers_counts_and_is_no_error():
    grid = Watched(app(Sparsify(LINKS, CWMP(), Density(0.1))), 4, raising=False, spoil=lambda replies: [])
    sparse = SparseGrid(grid, allocation=ASKED[0])
    assert sparse.send_and_receive([request(node, arrays=MODEL) for node in (1, 2, 3, 4)]) == []
    sparse.discard()
    assert (sparse.allotter.books.rounds, sparse.allotter.books.spent_j) == (1, 0.0)


class Slow(Watched):
    """Notes how long it may take."""

    def send_and_receive(self, messages, *, timeout=None):
        self.__dict__.setdefault("patience", []).append(timeout)
        return super().send_and_receive(messages, timeout=timeout)


def test_time_is_left_for_orders_however_long_nodes_train():
    grid = Slow(app(Sparsify(LINKS[0])), 1)
    SparseGrid(grid, allocation=ASKED[0]).send_and_receive([request(1, arrays=MODEL)], timeout=100.0)
    first, second = grid.patience
    assert first == 75.0
    assert 25.0 <= second <= 100.0


# ---------------------------------------------------------------- the node: what waits, and for what


class Node:
    """One node, by messages; without a store its state is in its context, as where each message has a process."""

    def __init__(self, store=None, feedback=ErrorFeedback(), **options):  # noqa: B008
        self.store = store
        self.options = {"device": LINKS[1], "rule": CWMP(), "budget": Density(0.1), "feedback": feedback} | options
        self.grid = Watched(app(Sparsify(store=store, **self.options)), 1, raising=False)
        self.context = self.grid._contexts[1]

    def restarted(self):
        """The same node in another process, which has its files and no more."""
        return Node(self.store)

    def ask(self, number=1, accepted=None):
        asked = request(1, number, MODEL)
        config = asked.content.config_records["config"]
        config[ORDER] = Order(points=64, asks=True).text()
        if accepted is not None:
            config["joulewise.accepted-sequence"] = accepted
        (reply,) = self.grid.send_and_receive([asked])
        return asked, reply

    def order(self, asked, energy_j=900.0):
        (reply,) = self.grid.send_and_receive([summary.order_to(asked, Order(Joules(energy_j)).text())])
        return reply

    def state(self):
        return (self.store or ContextStore()).load(self.context)


def applied(reply):
    (payload,) = payloads(reply)
    return decode(payload.data, Layout.of(MODEL)).dense()


def trained(number):
    return update(number, 0, MODEL)


def stores(tmp_path):
    return {"files": FileStore(tmp_path), "context": None, "memory": MemoryStore()}


@pytest.mark.parametrize("kind", ["files", "context", "memory"])
def test_sent_and_kept_are_what_was_had_and_nothing_of_the_state_moves_before_the_order(kind, tmp_path):
    node = Node(stores(tmp_path)[kind])
    asked, reply = node.ask()
    before = node.state()
    assert summarised(reply)
    assert before.residual is None
    assert (before.pending, before.sequence) == (None, 0)
    np.testing.assert_array_equal(Trained.unpacked(before.unsent).update, trained(1))
    sent = applied(node.order(asked))
    after = node.state()
    assert after.unsent is None
    assert 0 < np.count_nonzero(sent) < sent.size
    np.testing.assert_array_equal(sent + after.residual, trained(1))


def test_a_state_with_a_waiting_update_comes_back_from_named_arrays():
    node = Node(MemoryStore())
    node.ask()
    state = node.state()
    found = unpacked_state(packed_state(state))
    assert found.unsent.keys() == state.unsent.keys()
    assert all(np.array_equal(found.unsent[name], state.unsent[name]) for name in state.unsent)
    one, other = Trained.unpacked(found.unsent), Trained.unpacked(state.unsent)
    assert one.facts == other.facts
    assert set(one.whole) == {"bn.running_mean", "bn.num_batches_tracked"}


@pytest.mark.parametrize("again", [False, True])
def test_a_kill_between_the_messages_loses_no_more_than_the_reply(again, tmp_path):
    node = Node(FileStore(tmp_path))
    asked, _ = node.ask(1)
    sent = applied(node.order(asked))
    waiting = node.state().residual
    asked, _ = node.ask(2, accepted=1)
    node = node.restarted()
    if again:  # It is there again in time: nothing at all is lost.
        more = applied(node.order(asked))
        np.testing.assert_array_equal(sent + more + node.state().residual, trained(1) + trained(2))
        return
    # The order was lost, or came too late: the next request drops what waits, and the residual is as it was.
    asked, _ = node.ask(3, accepted=1)
    np.testing.assert_array_equal(node.state().residual, waiting)
    more = applied(node.order(asked))
    np.testing.assert_array_equal(sent + more + node.state().residual, trained(1) + trained(3))


def test_a_kill_after_the_payload_was_made_gives_it_back(tmp_path):
    node = Node(FileStore(tmp_path))
    asked, _ = node.ask(1)
    node.order(asked)  # Its reply is lost with the process.
    node = node.restarted()
    assert "it was sent already" in node.order(asked).error.reason
    asked, _ = node.ask(2)
    sent = applied(node.order(asked))
    np.testing.assert_array_equal(sent + node.state().residual, trained(1) + trained(2))


def test_a_plain_request_drops_what_waits():
    node = Node(MemoryStore())
    node.ask(1)
    (reply,) = node.grid.send_and_receive([request(1, 2, MODEL)])
    state = node.state()
    assert state.unsent is None
    np.testing.assert_array_equal(applied(reply) + state.residual, trained(2))


def test_an_evaluation_in_between_changes_nothing():
    node = Node(MemoryStore())
    asked, _ = node.ask(1)
    node.grid.send_and_receive([request(1, 1, MODEL, "evaluate")])
    assert payloads(node.order(asked))


def test_an_order_without_an_update_of_another_round_or_twice_is_an_error_that_changes_nothing():
    node = Node(MemoryStore())
    never = request(1, 1, MODEL)
    never.metadata.__dict__["_message_id"] = "never"
    assert "none waits here" in node.order(never).error.reason
    old, _ = node.ask(1)
    asked, _ = node.ask(2)
    assert "the one that waits here is of round 2" in node.order(old).error.reason
    assert node.state().unsent is not None
    assert payloads(node.order(asked))
    after = packed_state(node.state())
    assert "none waits here" in node.order(asked).error.reason
    assert packed_state(node.state()).keys() == after.keys()
    assert node.state().sequence == 1


@pytest.mark.parametrize("text", ["", "{}", "[", '{"budget":{"name":"Joules","budget":-1}}', "x" * 5000])
def test_an_order_that_cannot_be_read_is_an_error_and_the_update_still_waits(text):
    node = Node(MemoryStore())
    asked, _ = node.ask()
    (reply,) = node.grid.send_and_receive([summary.order_to(asked, text)])
    assert "cannot be read" in reply.error.reason
    assert payloads(node.order(asked))


def test_a_restarted_node_without_files_is_left_out_and_the_round_goes_on(tmp_path, caplog):
    played = Fleet()
    grid, forgotten = played.grid, []
    inner = grid.send_and_receive

    def forgetting(messages, *, timeout=None):
        messages = list(messages)
        if told_to(messages):
            forgotten.append(grid._contexts[3].state.clear())
        return inner(messages, timeout=timeout)

    grid.send_and_receive = forgetting
    rows = played.play(tmp_path, ASKED[0], rounds=2)
    assert [[client.partition for client in row.clients] for row in rows] == [[0, 1, 3]] * 2
    assert forgotten
    assert within(rows, played)
    assert "node 3: its reply is left out: it answers its order with an error" in caplog.text


def test_a_forged_payload_in_the_second_message_is_left_out(tmp_path, caplog):
    def spoil(replies):
        for reply in replies:
            if reply.metadata.src_node_id == 2 and payloads(reply):
                (array,) = payloads(reply)
                array.data = array.data[:-1]
        return replies

    played = Fleet(spoil=spoil)
    rows = played.play(tmp_path, ASKED[0], rounds=2)
    assert [[client.partition for client in row.clients] for row in rows] == [[0, 2, 3]] * 2
    assert "node 2: its reply is left out" in caplog.text


def test_what_another_node_says_than_the_one_that_was_asked_is_not_learned():
    asked = SimpleNamespace(metadata=SimpleNamespace(message_type="train", dst_node_id=1), has_content=lambda: True)
    own, foreign = (
        SimpleNamespace(metadata=SimpleNamespace(src_node_id=node), has_error=lambda: False) for node in (1, 2)
    )
    found = Answers({"own": (asked, own), "foreign": (asked, foreign)}).sound()
    assert set(found) == {"own"}


def test_a_summary_that_nobody_asked_for_is_no_reply(caplog):
    def forge(replies):
        for reply in replies:
            summary.write(reply.content, summary.Summary(says(), b"", 0))
        return replies

    grid = Watched(app(Sparsify(LINKS[0])), 1, spoil=forge)
    (reply,) = SparseGrid(grid).send_and_receive([request(1, arrays=MODEL)])
    assert reply.has_error()
    assert "serialization type" in caplog.text


def test_nan_in_an_update_is_an_error_before_anything_is_kept():
    def broken(content, partition):
        arrays = {name: array.numpy().copy() for name, array in content["arrays"].items()}
        arrays["linear.bias"][0] = np.nan
        return RecordDict({"arrays": record(arrays), "metrics": content["metrics"]})

    store = MemoryStore()
    grid = Watched(app(Sparsify(LINKS[0], store=store), answer=broken), 1, raising=False)
    (reply,) = SparseGrid(grid, allocation=ASKED[0]).send_and_receive([request(1, arrays=MODEL)])
    assert "linear.bias" in reply.error.reason
    assert not store.states


def test_local_tensors_stay_and_are_kept_when_they_were_trained():
    store = MemoryStore()
    mod = Sparsify(LINKS[0], CWMP(), Density(0.1), local="linear.bias", store=store)
    sparse = SparseGrid(Watched(app(mod), 1), allocation=ASKED[0])
    (reply,) = sparse.send_and_receive([request(1, arrays=MODEL)])
    assert not reply.has_error()
    (state,) = store.states.values()
    assert set(state.local) == {"linear.bias"}
    np.testing.assert_array_equal(reply.content["arrays"]["linear.bias"].numpy(), np.zeros(4))
