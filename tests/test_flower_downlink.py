"""The sparse downlink between grid and mod: the same bits in fewer bytes, whatever the fleet does."""

import errno
import logging
import os
import re
from dataclasses import dataclass, field
from itertools import chain, repeat

import numpy as np
import pytest
from flwr.app import ArrayRecord, ConfigRecord, Error, Message, RecordDict
from flwr.serverapp import strategy as strategies
from hypothesis import given, settings
from hypothesis import strategies as st
from toy_federation import DEVICE, app, arrays_of, averaging, flat, model, record, request, update

from joulewise.compress import ErrorFeedback
from joulewise.errors import FederationError, RuleError
from joulewise.flower import ContextStore, FileStore, Lossy, MemoryStore, Sparse, SparseGrid, Sparsify, held, patch
from joulewise.flower.averaging import averages_only
from joulewise.flower.inprocess import InProcessGrid
from joulewise.flower.notes import VERSION
from joulewise.rules import Count, Density, TopK

NODES = 3
WHOLE = sum(len(array.data) for array in record(model()).values())


def sparsify(store=None, count=5, device=DEVICE):
    return Sparsify(device, TopK(), Count(count), feedback=ErrorFeedback(), store=store)


@dataclass
class Seen:
    """What an app was handed: (node, type, exact bytes of the model, configuration)."""

    messages: list = field(default_factory=list)

    def __call__(self, message, context, call_next):
        held_bytes = {name: (array.dtype, array.shape, array.data) for name, array in message.content["arrays"].items()}
        config = {key: dict(value) for key, value in message.content.config_records.items()}
        self.messages.append((context.node_id, message.metadata.message_type, held_bytes, config))
        return call_next(message, context)

    def by_node(self):
        return sorted(self.messages, key=lambda message: message[0])


def unasked(messages):
    """Messages without the question which model their node holds."""
    return [
        (
            node,
            kind,
            arrays,
            {key: {name: each for name, each in own.items() if name != VERSION} for key, own in configs.items()},
        )
        for node, kind, arrays, configs in messages
    ]


def asked(messages, node):
    """Whether each message to a node asks which model it holds."""
    return [any(VERSION in own for own in configs.values()) for to, *_, configs in messages if to == node]


class Fleet(InProcessGrid):
    """Nodes with apps of their own. Notes what is really sent; requests and replies can be lost or changed."""

    def __init__(self, *apps):
        super().__init__(apps[0], len(apps))
        self.apps = dict(enumerate(apps, start=1))
        self.sent, self.timeouts, self.received = [], [], 0
        self.deaf, self.mute = set(), set()
        self.on_request = lambda message: None

    def send_and_receive(self, messages, *, timeout=None):
        self.timeouts.append(timeout)
        replies = []
        for message in messages:
            node = message.metadata.dst_node_id
            self._app = self.apps[node]
            (arrays,) = message.content.array_records.values()
            size = sum(len(array.data) for array in arrays.values())
            self.sent.append((node, message.metadata.message_type, size, patch.CHANGES not in arrays))
            message.metadata.__dict__["_message_id"] = f"{len(self.sent)}"
            self.on_request(message)
            if node not in self.deaf:
                reply = self._answer(message)
                records = reply.content.array_records.values() if reply.has_content() else ()
                self.received += sum(len(array.data) for each in records for array in each.values())
                told = reply.has_content() and "missing" in reply.content.get("joulewise", {})
                replies += [] if node in self.mute and not told else [reply]  # An answer that nothing is held arrives.
        return replies

    def _answer(self, message):
        """Whatever an app raises becomes an error, as on Flower's engines."""
        try:
            return self._deliver(message)
        except (TypeError, ValueError) as error:
            return Message(Error(2, str(error)), reply_to=message)

    def take(self):
        sent, self.sent = self.sent, []
        return sent


def fleet(*, stores=None, count=5, plain=(), nodes=NODES, seen=None):
    watch = [] if seen is None else [seen]
    stores = stores or [MemoryStore() for _ in range(nodes)]
    mods = [[*([] if node + 1 in plain else [sparsify(stores[node], count)]), *watch] for node in range(nodes)]
    return Fleet(*(app(*each) for each in mods))


def ask(grid, arrays, number=1, nodes=range(1, NODES + 1), message_type="train"):
    """Requests that share one record, as strategies make them."""
    content = RecordDict({"arrays": arrays, "config": ConfigRecord({"server-round": number})})
    messages = [Message(content, dst_node_id=node, message_type=message_type) for node in nodes]
    return grid.send_and_receive(messages)


def bits(arrays):
    return {name: (array.dtype, array.shape, array.data) for name, array in arrays.items()}


def play(grid, strategy, rounds, start=None, nodes=range(1, NODES + 1), evaluate=True):
    arrays = record(start or model())
    for number in range(1, rounds + 1):
        strategy.configure_train(number, arrays, ConfigRecord(), grid)  # Server optimizers keep the model.
        replies = ask(grid, arrays, number, nodes)
        aggregated, _ = strategy.aggregate_train(number, replies)
        arrays = grid.accept(aggregated, averaged=averages_only(strategy))
        if evaluate:
            strategy.aggregate_evaluate(number, ask(grid, arrays, number, nodes, "evaluate"))
    return arrays


# ---------------------------------------------------------------- the same bits


NODE_SETS = st.sets(st.integers(1, NODES))
FATES = st.lists(
    st.fixed_dictionaries(
        {
            "asked": st.sets(st.integers(1, NODES), min_size=1),
            "deaf": NODE_SETS,  # the request never arrives
            "mute": NODE_SETS,  # the reply never arrives
            "restarted": NODE_SETS,  # the model that was held is gone
            "corrupt": NODE_SETS,  # changes are damaged on their way
            "evaluated": NODE_SETS,
        }
    ),
    min_size=2,
    max_size=6,
)


def corrupting(nodes):
    def damage(message):
        (key,) = message.content.array_records
        changes = message.content[key].get(patch.CHANGES)
        if message.metadata.dst_node_id in nodes and changes is not None:
            data = bytearray(changes.data)
            data[-1] ^= 1
            changes.data = bytes(data)

    return damage


def history(fates, downlink, strategy, count, plain):
    """The models, and what the apps were handed, of one run of misfortunes."""
    stores, seen = [MemoryStore() for _ in range(NODES)], Seen()
    inner = fleet(stores=stores, count=count, plain=plain, seen=seen)
    grid, arrays, models = SparseGrid(inner, downlink=downlink), record(model()), []
    for number, fate in enumerate(fates, start=1):
        for node in fate["restarted"]:
            stores[node - 1].models.versions.clear()
        inner.deaf, inner.mute, inner.on_request = fate["deaf"], fate["mute"], corrupting(fate["corrupt"])
        replies = ask(grid, arrays, number, sorted(fate["asked"]))
        assert all(reply.has_content() for reply in replies)
        if replies:
            aggregated, _ = strategy.aggregate_train(number, replies)
            arrays = grid.accept(aggregated, averaged=averages_only(strategy))
        models.append(bits(arrays))
        for reply in ask(grid, arrays, number, sorted(fate["evaluated"]), "evaluate"):
            assert list(reply.content) == ["metrics"]
    return models, seen.by_node(), inner.sent


@given(FATES, st.integers(0, 30), NODE_SETS, st.sampled_from([strategies.FedAvg, strategies.FedProx]))
@settings(max_examples=15, deadline=None)
def test_models_and_what_apps_see_have_the_same_bits_with_the_downlink_on_and_off(fates, count, plain, kind):
    on = history(fates, "lossless", averaging(kind), count, plain)
    off = history(fates, "off", averaging(kind), count, plain)
    assert on[0] == off[0]
    assert [each for each in on[1] if each[0] not in plain] == [each for each in off[1] if each[0] not in plain]
    assert unasked(on[1]) == off[1]
    for node in plain:  # Until the first of its answers has arrived.
        assert asked(on[1], node) == sorted(asked(on[1], node), reverse=True)
    assert all(whole for node, *_, whole in on[2] if node in plain)
    assert all(whole for *_, whole in off[2])
    if not any(fate["corrupt"] or fate["restarted"] or fate["mute"] for fate in fates):
        assert sum(size for *_, size, _ in on[2]) <= sum(size for *_, size, _ in off[2])


@pytest.mark.parametrize("kind", ["FedAdam", "FedYogi", "FedAdagrad", "FedAvgM"])
def test_server_optimizers_give_the_same_bits_in_whole_models_and_the_log_says_so_once(kind, caplog):
    start = {"linear.weight": np.arange(1, 241, dtype=np.float32).reshape(10, 24) / 7}
    options = {"server_momentum": 0.9, "server_learning_rate": 0.7} if kind == "FedAvgM" else {}
    runs = []
    for downlink in ("lossless", "off"):
        inner = fleet(count=240)
        strategy = averaging(getattr(strategies, kind), **options)
        runs.append((bits(play(SparseGrid(inner, downlink=downlink), strategy, 3, start)), inner.take()))
    (on, sent), (off, _) = runs
    assert on == off
    assert [whole for *_, whole in sent] == [True] * 4 * NODES + [True] * 2 * NODES
    assert len([entry for entry in caplog.records if "so nodes are sent it whole" in entry.message]) == 1


# ---------------------------------------------------------------- bytes


def test_after_the_first_model_only_what_changed_is_sent_and_once():
    inner = fleet()
    grid = SparseGrid(inner)
    play(grid, averaging(), 3)
    by_call = [inner.sent[start : start + NODES] for start in range(0, len(inner.sent), NODES)]
    assert [{size for *_, size, whole in call if whole} for call in by_call] == [{WHOLE}, *[set()] * 5]
    assert all(60 < size < WHOLE / 3 for call in by_call[1::2] for *_, size, _ in call)
    assert all(size == 60 for call in by_call[2::2] for *_, size, _ in call)


def test_ten_nodes_and_twenty_rounds_at_one_percent_take_an_eighth_of_the_bytes_both_ways():
    """Worst case: no two nodes send the same coordinates. Evaluation and the first download count."""
    start = {"linear.weight": np.zeros((250, 240), np.float32)}
    both, up = [], []
    for wrapped in (True, False):
        mods = [Sparsify(DEVICE, TopK(), Density(0.01), feedback=ErrorFeedback(), store=MemoryStore())] * wrapped
        inner = Fleet(*[app(*mods)] * 10)
        strategy = averaging(fraction_evaluate=1.0)
        (Sparse(strategy) if wrapped else strategy).start(inner, record(start), 20)
        assert len(inner.sent) == 20 * 2 * 10
        up.append(inner.received)
        both.append(inner.received + sum(size for *_, size, _ in inner.sent))
    assert up[1] / up[0] > 70
    assert both[1] / both[0] > 8


def test_what_is_told_of_downloads_is_what_was_sent():
    inner = fleet(plain={2})
    grid = SparseGrid(inner)
    for number in (1, 2):
        ask(grid, record(model()), number)
        told = [(each.node, each.message_type, each.bytes, each.whole) for each in grid.downlink.downloads]
        assert told == inner.take()
    assert [each.whole for each in grid.downlink.downloads] == [False, True, False]


@pytest.mark.parametrize("downlink", ["lossless", "off", Lossy(0.1)])
def test_rows_count_all_that_a_node_was_sent_since_its_last_reply(downlink):
    stores = [MemoryStore() for _ in range(NODES)]
    inner = Fleet(*(app(sparsify(store, device="phone-lte-2021")) for store in stores))
    grid, arrays, waiting = SparseGrid(inner, downlink=downlink), record(model()), dict.fromkeys(range(1, NODES + 1), 0)
    for number in range(1, 5):
        if number == 3:
            stores[0].models.versions.clear()  # Node 1 is sent changes in vain, then the whole model.
        replies = ask(grid, arrays, number)
        arrays = grid.accept(averaging().aggregate_train(number, replies)[0], averaged=True)
        for node, _, size, _ in inner.take():
            waiting[node] += size
        results = grid.take_results()
        assert [result.bytes_down for result in results] == list(waiting.values())
        for result in results:
            assert [each.bytes for each in result.charges if each.term == "downlink"] == [result.bytes_down]
        ask(grid, arrays, number, message_type="evaluate")
        waiting = dict.fromkeys(waiting, 0)
        for node, _, size, _ in inner.take():
            waiting[node] += size


def test_flash_is_charged_for_what_changed_since_the_last_training():
    """One page of four holds all that node 1 changes; evaluation in between must not hide it."""
    start = {"fc.weight": np.ones((64, 64), np.float32)}

    def run(downlink, evaluate):
        def one_page(content, partition):
            changed = np.ones((64, 64), np.float32)
            changed[0, :3] += np.float32(partition + 1)
            content["arrays"] = record({"fc.weight": changed})
            return content

        device = "mcu-flash-ble-nrf5340"
        mods = [Sparsify(device, TopK(), Count(1), store=MemoryStore()) for _ in range(2)]
        inner = Fleet(*(app(mod, answer=one_page) for mod in mods))
        grid, arrays = SparseGrid(inner, downlink=downlink), record(start)
        for number in (1, 2):
            replies = ask(grid, arrays, number, (1, 2))
            arrays = grid.accept(averaging().aggregate_train(number, replies)[0], averaged=True)
            if evaluate:
                ask(grid, arrays, number, (1, 2), "evaluate")
        last = grid.take_results()[-1]
        return {each.term: each.energy for each in last.charges}["flash_update"]

    whole = run("off", False)
    assert run("off", True) == whole > 0
    assert run("lossless", True) == run("lossless", False) == 0.0  # That page is in the charges of the reply.


# ---------------------------------------------------------------- who is sent what


@pytest.mark.parametrize("downlink", ["off", "lossless", Lossy(0.1)])
def test_nodes_without_the_mod_find_what_they_would_without_joulewise_once_they_have_answered(downlink):
    def found(wrap):
        seen = Seen()
        inner = fleet(plain={1, 2, 3}, seen=seen)
        grid = wrap(inner)
        for number in (1, 2, 3):
            arrays = record(model(**{"linear.bias": np.full(4, number, np.float32)}))
            for kind in ("train", "evaluate"):
                assert not any(reply.has_error() for reply in ask(grid, arrays, number, message_type=kind))
        assert all(whole for *_, whole in inner.sent)
        return seen.messages

    bare, wrapped = found(lambda inner: inner), found(lambda inner: SparseGrid(inner, downlink=downlink))
    assert unasked(wrapped[:NODES]) == bare[:NODES]
    assert asked(wrapped, 1)[0] == (downlink != "off")
    assert wrapped[NODES:] == bare[NODES:]


def test_a_node_that_gains_the_mod_is_sent_what_changed():
    inner = fleet(plain={1}, nodes=1)
    grid = SparseGrid(inner)
    ask(grid, record(model()), 1, (1,))
    inner.apps[1] = app(sparsify(MemoryStore()))
    for number in (2, 3, 4):
        ask(grid, record(model()), number, (1,))
    assert [whole for *_, whole in inner.take()] == [True, True, True, False]


def test_a_client_that_loses_its_mod_gets_whole_models_again():
    inner = fleet()
    grid = SparseGrid(inner)
    arrays = play(grid, averaging(), 1)
    inner.apps[2] = app()
    inner.take()
    # Changes are of a type that Flower cannot read: the node fails, and loudly.
    first, second = ask(grid, arrays, 2, (1, 2))
    assert (first.has_error(), "joulewise.down.v1" in second.error.reason) == (False, True)
    assert not any(reply.has_error() for reply in ask(grid, arrays, 3, (1, 2)))
    assert [whole for *_, whole in inner.take()] == [False, False, False, True]
    assert 2 not in grid.downlink.nodes.held


@pytest.mark.parametrize("message_type", ["train", "train.one", "evaluate", "evaluate.two"])
def test_every_kind_of_request_is_rebuilt(message_type):
    kind, _, action = message_type.partition(".")
    made, found = app(sparsify(MemoryStore())), []
    if action:
        handler = getattr(made, kind)(action)

        @handler
        def handle(message, context):
            found.append(bits(message.content["arrays"]))
            return Message(RecordDict(), reply_to=message)

    seen = Seen()
    inner = Fleet(made if action else app(sparsify(MemoryStore()), seen))
    grid = SparseGrid(inner)
    first, second = record(model()), record(model() | {"linear.bias": np.array([1, 0, -0.0, 2], np.float32)})
    for arrays in (first, second):
        ask(grid, arrays, 1, (1,), message_type)
    got = found if action else [entry[2] for entry in seen.messages]
    assert got == [bits(first), bits(second)]
    assert [whole for *_, whole in inner.take()] == [True, False]


def test_queries_and_messages_with_two_models_pass_as_they_are():
    inner = fleet(nodes=1)
    grid = SparseGrid(inner)
    two = RecordDict({"a": record(model()), "b": record(model())})
    message = Message(two, dst_node_id=1, message_type="evaluate")
    inner.send_and_receive = lambda messages, timeout: [list(messages), message.content][:0]
    assert grid.send_and_receive([message]) == []
    assert message.content is two
    assert grid.downlink.downloads == ()


# ---------------------------------------------------------------- a node that lacks the model


def test_a_restarted_node_is_sent_the_whole_model_in_the_same_call(caplog):
    stores = [MemoryStore() for _ in range(NODES)]
    inner = fleet(stores=stores)
    grid = SparseGrid(inner)
    arrays = play(grid, averaging(), 1)
    stores[1].models.versions.clear()
    inner.take()
    replies = ask(grid, arrays, 2)
    assert len(replies) == NODES
    assert [(node, whole) for node, *_, whole in inner.take()] == [(1, False), (2, False), (3, False), (2, True)]
    assert "node 2 is sent the whole model: it holds no model of this run" in caplog.text
    ask(grid, arrays, 3)
    assert [size for *_, size, _ in inner.take()] == [60] * NODES


def test_a_node_whose_reply_was_lost_holds_a_later_model_and_is_sent_what_it_can_use(caplog):
    seen = Seen()
    inner = fleet(seen=seen)
    grid = SparseGrid(inner)
    arrays = play(grid, averaging(), 1)
    inner.mute = {2}
    changed = record(arrays_of(arrays) | {"linear.bias": np.ones(4, np.float32)})
    assert len(ask(grid, changed, 2)) == NODES - 1
    inner.mute = set()
    inner.take()
    last = record(arrays_of(arrays) | {"conv.weight": np.full((2, 1, 3, 3), 2, np.float32)})
    assert len(ask(grid, last, 3)) == NODES
    assert [(node, whole) for node, *_, whole in inner.take()] == [(1, False), (2, False), (3, False)]
    assert [arrays for *_, arrays, _ in seen.messages[-NODES:]] == [bits(last)] * NODES
    assert not caplog.text


def test_a_node_that_holds_a_model_of_which_the_server_goes_back_is_sent_the_whole_one(caplog):
    inner = fleet(nodes=1)
    grid = SparseGrid(inner)
    first, second = record(model()), record(model(**{"linear.bias": np.ones(4, np.float32)}))
    ask(grid, first, 1, (1,))
    inner.mute = {1}
    ask(grid, second, 2, (1,))
    inner.mute = set()
    inner.take()
    assert len(ask(grid, first, 3, (1,))) == 1
    assert [whole for *_, whole in inner.take()] == [False, True]
    assert "node 1 is sent the whole model: it holds model 2: changes of model 1 do not lead to the bits" in caplog.text


@pytest.mark.parametrize("damage", [lambda data: data[:-1], lambda data: data[:30], lambda data: b"JWD2" + data[4:]])
def test_damaged_changes_are_told_and_the_round_goes_on(damage, caplog):
    inner = fleet()
    grid = SparseGrid(inner)
    arrays = record(model())
    ask(grid, arrays)
    arrays = record(model() | {"linear.bias": np.ones(4, np.float32)})
    expected = {reply.metadata.src_node_id for reply in ask(grid, arrays, 2)}

    def on_request(message):
        changes = message.content["arrays"].get(patch.CHANGES)
        if message.metadata.dst_node_id == 3 and changes is not None:
            changes.data = damage(changes.data)

    inner.on_request = on_request
    arrays = record(model() | {"linear.bias": np.full(4, 2, np.float32)})
    replies = ask(grid, arrays, 3)
    assert {reply.metadata.src_node_id for reply in replies} == expected
    assert "node 3 is sent the whole model: " in caplog.text


def test_a_node_that_lacks_even_a_whole_model_is_left_out_after_one_try(caplog):
    stores = [MemoryStore() for _ in range(NODES)]
    inner = fleet(stores=stores)
    grid = SparseGrid(inner)
    arrays = play(grid, averaging(), 1)

    def never(message, context, call_next):
        return held._missing(message, "it is broken")

    inner.apps[1] = app(never)
    inner.take()
    replies = ask(grid, arrays, 2)
    assert [reply.metadata.src_node_id for reply in replies if not reply.has_error()] == [2, 3]
    assert len(replies) == NODES  # The third is an error, which strategies count as a failure.
    assert [node for node, *_ in inner.take()] == [1, 2, 3, 1]
    assert "node 1 lacks a model that it was sent whole: it is broken" in caplog.text


def test_the_second_try_has_the_time_that_is_left(monkeypatch, caplog):
    inner = fleet(nodes=1)
    grid = SparseGrid(inner)
    arrays = record(model())
    ask(grid, arrays, 1, (1,))
    for took, tries in ((3.0, [10.0, 7.0]), (11.0, [10.0])):
        inner.apps[1] = app(sparsify(MemoryStore()))
        grid.downlink.nodes.held[1] = grid.downlink.versions[-1]
        clock = chain([0.0, 0.0], repeat(took))  # the grid looks at it before the downlink does
        monkeypatch.setattr("joulewise.flower.downlink.time.monotonic", lambda clock=clock: next(clock))
        inner.timeouts = []
        grid.send_and_receive([request(arrays=model())], timeout=10.0)
        assert inner.timeouts == tries
    assert "no time left" in caplog.text


# ---------------------------------------------------------------- where the model is held


def test_a_file_outlives_the_process_of_the_client(tmp_path):
    inner = fleet(stores=[FileStore(tmp_path)] * NODES)
    grid = SparseGrid(inner)
    arrays = play(grid, averaging(), 2)
    for node in inner.apps:
        inner.apps[node] = app(sparsify(FileStore(tmp_path)))
    inner.take()
    ask(grid, arrays, 3)
    assert [size for *_, size, _ in inner.take()] == [60] * NODES
    assert len(list(tmp_path.glob("model-*"))) == NODES


def test_a_damaged_file_and_one_of_another_run_are_not_used(tmp_path, caplog):
    inner = fleet(stores=[FileStore(tmp_path)] * NODES)
    grid = SparseGrid(inner)
    arrays = play(grid, averaging(), 1)
    one, two, _ = sorted(tmp_path.glob("model-*"))
    one.write_bytes(one.read_bytes()[:-200])
    two.rename(str(two).replace("run-1", "run-9"))
    inner.take()
    replies = ask(grid, arrays, 2)
    assert len(replies) == NODES
    assert [node for node, *_, whole in inner.take() if whole] == [1, 2]
    assert "is damaged: the server sends it anew" in caplog.text


def test_a_file_that_was_put_under_another_run_is_seen(tmp_path, caplog):
    store = FileStore(tmp_path, runs=2)
    inner = fleet(stores=[store], nodes=1)
    ask(SparseGrid(inner), record(model()), 1, (1,))
    (path,) = tmp_path.glob("model-*")
    path.rename(tmp_path / "model-1-run-2.npz")
    inner._contexts[1].run_id = 2
    assert store.load_model(inner._contexts[1]) is None
    assert "damaged" in caplog.text


def test_a_full_disk_under_the_models_leaves_the_round_as_it_is(tmp_path, monkeypatch, caplog):
    class Full(MemoryStore):
        def save_model(self, context, held_model):
            FileStore(tmp_path).save_model(context, held_model)

        def load_model(self, context):
            return FileStore(tmp_path).load_model(context)

    inner = fleet(stores=[Full()] * NODES)
    grid = SparseGrid(inner)

    def full(file):
        raise OSError(errno.ENOSPC, "No space left on device")

    arrays = play(grid, averaging(), 1)
    held._warn.cache_clear()
    with monkeypatch.context() as patched:
        patched.setattr(os, "fsync", full)
        ask(grid, arrays, 2)  # Nothing new to keep.
        arrays = record(model() | {"linear.bias": np.ones(4, np.float32)})
        inner.take()
        assert len(ask(grid, arrays, 3)) == NODES
        assert len(ask(grid, arrays, 4)) == NODES
    assert [whole for *_, whole in inner.take()] == [False] * NODES + [True] * NODES
    assert caplog.text.count("keeps no model, so that it will be sent whole ones: cannot write the model") == NODES
    ask(grid, arrays, 5)
    ask(grid, arrays, 6)
    assert [whole for *_, whole in inner.take()] == [True] * NODES + [False] * NODES


def test_the_context_holds_small_models_and_says_when_one_is_too_large(caplog):
    held._warn.cache_clear()
    small, large = ContextStore(), ContextStore(largest_model_bytes=100)
    inner = Fleet(app(sparsify(small)), app(sparsify(large)))
    grid = SparseGrid(inner)
    play(grid, averaging(), 2, nodes=(1, 2))
    assert [node for node, *_, whole in inner.take() if not whole] == [1, 1, 1]
    assert "ContextStore(largest_model_bytes=100); use Sparsify(store=FileStore(folder))" in caplog.text
    inner._contexts[1].run_id = 5
    assert small.load_model(inner._contexts[1]) is None


def test_a_store_of_ones_own_that_holds_no_models_is_enough():
    class Own:
        def __init__(self):
            self.inner = MemoryStore()

        def load(self, context):
            return self.inner.load(context)

        def save(self, context, state):
            self.inner.save(context, state)

    inner = fleet(stores=[Own()], nodes=1)
    play(SparseGrid(inner), averaging(), 2, nodes=(1,))
    assert all(whole for *_, whole in inner.sent)


def test_models_in_memory_are_shared_and_bounded():
    store = MemoryStore()
    inner = fleet(stores=[store] * NODES)
    grid = SparseGrid(inner)
    for number in range(1, 40):
        ask(grid, record(model() | {"linear.bias": np.full(4, number, np.float32)}), number)
    assert len(store.models.models) == store.models.most
    assert len(set(store.models.versions.values())) == 1


# ---------------------------------------------------------------- coordinates that nobody sent


@given(st.integers(0, 2**32), st.integers(0, 12), st.sampled_from([np.float32, np.float64, np.float16]))
@settings(max_examples=20, deadline=None)
def test_what_no_reply_has_touched_keeps_its_bits(seed, count, dtype):
    rng = np.random.default_rng(seed)
    start = {
        "a.weight": rng.normal(size=(5, 6)).astype(dtype),
        "b.bias": np.array([-0.0, 0.0, 1e-7, 3, -1 / 3, 7], dtype),
    }
    start["a.weight"][0, :3] = [-0.0, 0.1, 1 / 3]

    def moved(content, partition):
        names = {name: array.copy() for name, array in start.items()}
        names["a.weight"] += (update(1, partition, {"linear.bias": start["a.weight"]}) * 0).reshape(5, 6).astype(dtype)
        names["b.bias"][partition] += dtype(1)
        content["arrays"] = record(names)
        return content

    examples = rng.integers(1, 50, 3)
    mods = [sparsify(MemoryStore(), count) for _ in range(3)]
    inner = Fleet(*(app(mod, answer=moved, examples=lambda p: int(examples[p])) for mod in mods))
    grid = SparseGrid(inner)
    replies = ask(grid, record(start))
    arrays = grid.accept(averaging().aggregate_train(1, replies)[0], averaged=True)
    sent = {result.partition for result in grid.take_results() if sum(result.kept_by_tensor)}
    after = {name: array.numpy() for name, array in arrays.items()}
    changed = {name: np.flatnonzero(after[name].ravel() != start[name].ravel()).tolist() for name in start}
    assert changed["a.weight"] == []
    assert set(changed["b.bias"]) <= sent
    untouched = [place for place in range(6) if place not in sent]
    assert after["b.bias"][untouched].tobytes() == start["b.bias"][untouched].tobytes()
    assert after["a.weight"].tobytes() == start["a.weight"].tobytes()


def test_where_one_reply_is_a_whole_model_everything_is_its_average():
    start = {"linear.weight": np.linspace(0.1, 0.9, 24, dtype=np.float32).reshape(4, 6)}
    inner = fleet(plain={2})
    grid = SparseGrid(inner)
    replies = ask(grid, record(start))
    aggregated, _ = averaging().aggregate_train(1, replies)
    assert bits(grid.accept(aggregated, averaged=True)) == bits(aggregated)


def test_nothing_is_restored_unless_the_arrays_are_said_to_be_an_average():
    start = {"linear.weight": np.linspace(0.1, 0.9, 24, dtype=np.float32).reshape(4, 6)}
    kept = []
    for averaged in (False, True):
        grid = SparseGrid(fleet(count=1))
        aggregated, _ = averaging().aggregate_train(1, ask(grid, record(start)))
        after = grid.accept(aggregated, averaged=averaged)["linear.weight"].numpy()
        kept.append(int((after == start["linear.weight"]).sum()))
    assert kept[0] < kept[1] >= 24 - NODES


def test_a_method_of_ones_own_counts_as_averaging_only_where_one_says_so():
    class Saving(strategies.FedAvg):
        def aggregate_train(self, server_round, replies):
            return super().aggregate_train(server_round, replies)

    class Sampling(strategies.FedProx):
        def configure_train(self, *arguments):
            return super().configure_train(*arguments)

    assert averages_only(averaging(Sampling))
    assert not averages_only(averaging(Saving))
    patched = averaging()
    patched.aggregate_train = lambda server_round, replies: (None, None)
    assert not averages_only(patched)
    for wrapper in ("DifferentialPrivacyServerSideFixedClipping", "DifferentialPrivacyClientSideFixedClipping"):
        assert not averages_only(getattr(strategies, wrapper)(averaging(), 1.0, 1.0, 1))
    logging.getLogger("flwr").setLevel(logging.ERROR)
    inner = fleet()
    result = Sparse(averaging(Saving, fraction_evaluate=1.0), averages=True).start(inner, record(model()), 3)
    assert [whole for *_, whole in inner.sent] == [True] * NODES + [False] * 5 * NODES
    twin = Sparse(averaging(), downlink="off").start(fleet(), record(model()), 3)
    assert bits(result.arrays) == bits(twin.arrays)


# ---------------------------------------------------------------- lossy


@given(st.floats(0.01, 1.0), st.integers(1, 5), NODE_SETS)
@settings(max_examples=15, deadline=None)
def test_a_lossy_downlink_loses_nothing_of_what_nodes_answer(density, rounds, plain):
    """The toy adds the same numbers to whatever model it gets, so that the server's model must be the lossless one."""
    results = [
        play(SparseGrid(fleet(count=46, plain=plain), downlink=downlink), averaging(), rounds)
        for downlink in ("lossless", Lossy(density))
    ]
    lossless, lossy = (arrays_of(arrays) for arrays in results)
    assert np.allclose(flat(lossless), flat(lossy), rtol=0, atol=1e-5)


def test_a_lossy_downlink_sends_no_more_parameters_than_it_says_and_catches_up():
    seen = Seen()
    inner = fleet(count=46, seen=seen)
    grid = SparseGrid(inner, downlink=Lossy(0.1))
    arrays = play(grid, averaging(), 3)
    assert all(not whole for *_, whole in inner.take()[NODES:])
    public = {name: np.frombuffer(data[128:], dtype) for name, (dtype, _, data) in seen.messages[-1][2].items()}
    apart = sum(int((public[name] != array.numpy().ravel()).sum()) for name, array in arrays.items())
    assert apart > 20
    for number in range(4, 16):  # Models that hardly differ: each lets the public one take another step.
        arrays["linear.bias"] = record({"b": arrays["linear.bias"].numpy() + np.float32(2**-20)})["b"]
        ask(grid, arrays, number)
    seen.messages.clear()
    ask(grid, arrays, 16)
    public = {name: np.frombuffer(data[128:], dtype) for name, (dtype, _, data) in seen.messages[-1][2].items()}
    left = {name: int((public[name] != array.numpy().ravel()).sum()) for name, array in arrays.items()}
    assert sum(left.values()) <= 4


def test_server_optimizers_get_a_sparse_downlink_where_it_is_lossy():
    start = {"linear.weight": np.arange(1, 241, dtype=np.float32).reshape(10, 24) / 7}
    inner = fleet(count=5)
    strategy = averaging(strategies.FedAdam)
    strategy.current_arrays = dict(start)
    play(SparseGrid(inner, downlink=Lossy(0.05)), strategy, 3, start)
    assert [whole for *_, whole in inner.take()] == [True] * NODES + [False] * 5 * NODES


def test_newcomers_and_nodes_without_the_mod_get_the_servers_own_model():
    inner = fleet(count=46, plain={2})
    grid = SparseGrid(inner, downlink=Lossy(0.05))
    seen = Seen()
    inner.apps[2] = app(seen)
    arrays = play(grid, averaging(), 2, nodes=(1, 2), evaluate=False)
    inner.apps[3] = app(sparsify(MemoryStore()), seen)
    seen.messages.clear()
    ask(grid, arrays, 3)
    assert [entry[2] for entry in seen.messages] == [bits(arrays)] * 2


def test_a_whole_model_in_answer_to_a_public_one_is_left_out(caplog):
    inner = fleet(count=46, nodes=1)
    grid = SparseGrid(inner, downlink=Lossy(0.05))
    arrays = play(grid, averaging(), 2, nodes=(1,))
    grid.downlink.nodes.held[1] = None
    inner.apps[1] = app()
    (reply,) = ask(grid, arrays, 3, (1,))
    assert reply.has_error()
    assert re.search(r"node 1: its reply is left out: .*whole model.*lossy", caplog.text)
    inner.take()
    assert len(ask(grid, arrays, 4, (1,))) == 1


def test_a_lossy_downlink_follows_one_model():
    grid = SparseGrid(fleet(), downlink=Lossy(0.05))
    other = request(2, arrays=model() | {"linear.bias": np.ones(4, np.float32)})
    with pytest.raises(FederationError, match="follows one"):
        grid.send_and_receive([request(1), other])


@pytest.mark.parametrize("setting", ["on", None, True, 0.5, "Lossless"])
def test_settings_that_are_none_are_named(setting):
    for make in (lambda: SparseGrid(fleet(), downlink=setting), lambda: Sparse(averaging(), downlink=setting)):
        with pytest.raises(RuleError, match=r"downlink=.*'off', 'lossless' or Lossy\(density\)"):
            make()
    for density in (0.0, -1.0, 1.5, float("nan")):
        with pytest.raises(RuleError, match=r"Lossy\(density\)"):
            Lossy(density)


def test_models_that_differ_between_nodes_reach_the_right_ones():
    seen = Seen()
    inner = fleet(seen=seen)
    grid = SparseGrid(inner)
    for number in range(1, 5):
        asked = [
            request(node, number, model() | {"linear.bias": np.full(4, 10 * node + number, np.float32)})
            for node in (1, 2, 3)
        ]
        wanted = [bits(message.content["arrays"]) for message in asked]
        seen.messages.clear()
        grid.send_and_receive(asked)
        assert [entry[2] for entry in seen.messages] == wanted
        assert all(isinstance(message.content["arrays"], ArrayRecord) for message in asked)


def test_a_lossy_downlink_of_a_small_model_sends_at_least_one_parameter():
    grid = SparseGrid(fleet(count=46, nodes=1), downlink=Lossy(0.01))
    play(grid, averaging(), 4, nodes=(1,))
    public = grid.downlink._last_public
    assert flat(arrays_of(public)).any()


def test_after_a_rollback_nodes_get_the_public_model_of_that_model():
    seen = Seen()
    inner = Fleet(app(Sparsify(DEVICE, TopK(), Count(1), store=MemoryStore()), seen))
    grid = SparseGrid(inner, downlink=Lossy(1.0))
    models = [record(model(**{"linear.bias": np.full(4, value, np.float32)})) for value in (0, 1)]
    for number, which in enumerate((0, 1, 0, 0), start=1):
        ask(grid, models[which], number, (1,))
    ask(grid, models[0], 5, (1,), "evaluate")
    assert [entry[2] for entry in seen.messages] == [bits(models[which]) for which in (0, 1, 0, 0, 0)]


def test_train_and_evaluation_in_one_call_are_each_counted_once():
    grid = SparseGrid(fleet(nodes=1))
    arrays = play(grid, averaging(), 2, nodes=(1,))
    grid.take_exchanges()
    both = [request(1, 3, message_type=kind) for kind in ("train", "evaluate")]
    for each in both:
        each.content["arrays"] = arrays
    grid.send_and_receive(both)
    crossed, _ = grid.take_exchanges()
    assert sum(each.bytes_down for each in crossed) == sum(each.bytes for each in grid.downlink.downloads)
    assert len(crossed) == 2


def test_what_a_node_says_is_logged_in_one_short_line(caplog):
    stores = [MemoryStore() for _ in range(NODES)]
    inner = fleet(stores=stores)
    grid = SparseGrid(inner)
    arrays = play(grid, averaging(), 1)

    def forged(message, context, call_next):
        return held._missing(message, "broken\nCRITICAL root: forged" + "x" * 10**6)

    inner.apps[1] = app(forged)
    ask(grid, arrays, 2)
    lines = [entry.getMessage() for entry in caplog.records]
    assert any("broken" in line for line in lines)
    assert max(map(len, lines)) < 1000
    assert not any("\n" in line for line in lines)
