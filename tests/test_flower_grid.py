"""The server's side: replies decoded, in order, acknowledged and counted, whatever the fleet does."""

import tempfile

import numpy as np
import pytest
from flwr.app import Array, ArrayRecord, ConfigRecord, Error, Message, RecordDict
from flwr.serverapp import strategy as strategies
from hypothesis import given, settings
from hypothesis import strategies as st
from toy_federation import (
    DEVICE,
    Watched,
    app,
    arrays_of,
    averaging,
    flat,
    model,
    payloads,
    record,
    request,
    update,
)

from joulewise.codec import decode
from joulewise.compress import ErrorFeedback, settle
from joulewise.errors import FederationError
from joulewise.flower import FileStore, MemoryStore, Sparse, SparseGrid, Sparsify, wire
from joulewise.flower.notes import ACCEPTED
from joulewise.layout import Layout
from joulewise.rules import Count, Dense, TopK

LAYOUT = Layout.of(model())


def compressing(store=None, count=5):
    return Sparsify(DEVICE, TopK(), Count(count), feedback=ErrorFeedback(), store=store)


def dense():
    return Sparsify(DEVICE, Dense(), None)


# ---------------------------------------------------------------- decoding and order


def test_a_reply_comes_out_as_the_request_plus_what_was_sent():
    grid = SparseGrid(Watched(app(compressing()), 1))
    start = model() | {"linear.bias": np.arange(4, dtype=np.float32)}
    (reply,) = grid.send_and_receive([request(arrays=start)])
    ((_, payload, _),) = grid._grid.crossed
    assert list(reply.content) == ["arrays", "metrics"]
    assert list(reply.content["arrays"]) == list(start)
    got = arrays_of(reply.content["arrays"])
    assert np.array_equal(flat(got), flat(start) + decode(payload, LAYOUT).dense())
    assert got["bn.num_batches_tracked"] == 1
    assert {name: array.dtype for name, array in got.items()} == {name: array.dtype for name, array in start.items()}


def test_what_comes_out_can_be_written_to_and_belongs_to_nobody_else():
    grid = SparseGrid(Watched(app(dense()), 2))
    message = request(1)
    first, second = grid.send_and_receive([message, request(2)])
    for name, array in arrays_of(first.content["arrays"]).items():
        np.add(array, 1, out=array)
        assert not np.array_equal(array, first.content["arrays"][name].numpy())
    assert all(not array.any() for array in arrays_of(message.content["arrays"]).values())
    assert np.array_equal(flat(arrays_of(second.content["arrays"])), update(1, 1))


@given(st.permutations(range(6)), st.permutations(range(6)))
@settings(max_examples=15)
def test_replies_come_in_the_order_of_partitions(asked, answered):
    inner = Watched(app(dense()), 6, spoil=lambda replies: [replies[at] for at in answered])
    grid = SparseGrid(inner)
    replies = grid.send_and_receive([request(node + 1) for node in asked])
    assert [reply.metadata.src_node_id for reply in replies] == [1, 2, 3, 4, 5, 6]
    assert [result.partition for result in grid.take_results()] == list(range(6))


def test_evaluation_and_errors_pass_through():
    def failing(replies):
        return [Message(Error(2, "out of memory"), reply_to=sent) for sent in inner.requests[-1]]

    inner = Watched(app(dense()), 2)
    grid = SparseGrid(inner)
    (answer,) = grid.send_and_receive([request(message_type="evaluate")])
    assert answer.content["metrics"]["num-examples"] == 8
    inner.spoil = failing
    first, second = grid.send_and_receive([request(1), request(2)])
    assert (first.error.reason, second.error.reason) == ("out of memory", "out of memory")
    assert grid.take_results() == ()


def test_late_and_second_replies_are_left_out():
    kept = []

    def late(replies):
        kept.extend(replies)
        return list(kept)

    def twice(replies):
        return [*replies, *replies]

    for spoil in (late, twice):
        inner = Watched(app(dense()), 1, spoil=spoil)
        grid = SparseGrid(inner)
        grid.send_and_receive([request(number=1)])
        replies = grid.send_and_receive([request(number=2)])
        assert len(replies) == 1
        assert np.array_equal(flat(arrays_of(replies[0].content["arrays"])), update(2, 0))


def test_a_grid_that_gives_no_ids_is_an_error_that_says_so():
    class Nameless(Watched):
        def send_and_receive(self, messages, *, timeout=None):
            return [self._app(message, self._contexts[1]) for message in messages]

    with pytest.raises(FederationError, match="id"):
        SparseGrid(Nameless(app(dense()), 1)).send_and_receive([request()])


def test_everything_else_is_the_grid_within():
    inner = Watched(app(dense()), 3)
    grid = SparseGrid(inner)
    assert list(grid.get_node_ids()) == [1, 2, 3]
    assert [node.node_id for node in grid.get_nodes()] == [1, 2, 3]
    grid.set_run(None)
    for call in (lambda: grid.run, lambda: grid.push_messages([]), lambda: grid.pull_messages([])):
        with pytest.raises(FederationError, match="in-process"):
            call()


def test_a_grid_that_does_not_decode_is_refused_by_sparse():
    strategy = Sparse(averaging())
    with pytest.raises(FederationError, match="SparseGrid"):
        strategy.configure_train(1, record(model()), ConfigRecord(), Watched(app(), 1))


# ---------------------------------------------------------------- what cannot be trusted


def spoiled(change):
    """The grid of one client whose replies are changed on their way."""

    def spoil(replies):
        for reply in replies:
            change(reply.content)
        return replies

    return SparseGrid(Watched(app(dense()), 1, spoil=spoil))


def with_payload(change):
    def changed(content):
        ((array,),) = [each.values() for each in content.array_records.values()]
        array.data = change(array.data)

    return changed


@pytest.mark.parametrize(
    "change",
    [
        with_payload(lambda data: data[:-1]),
        with_payload(lambda data: data[:40] + bytes([data[40] ^ 1]) + data[41:]),
        with_payload(lambda data: b"not a payload"),
        lambda content: content.pop("joulewise"),
        lambda content: content["joulewise"].pop("sequence"),
        lambda content: content["joulewise"].update({"result": b"{}"}),
        lambda content: content["joulewise"].update({"result": b"\xff\x00"}),
        lambda content: content["joulewise"].update({"result": b'{"more":' + b"[" * 100_000}),
        lambda content: content["joulewise"].update({"sequence": "1"}),
        lambda content: setattr(content["arrays"]["joulewise.payload"], "stype", "joulewise.v9"),
        lambda content: setattr(content["arrays"]["joulewise.payload"], "stype", "numpy.ndarray"),
    ],
)
def test_a_damaged_reply_is_an_error_reply_and_the_log_names_the_node(change, caplog):
    grid = spoiled(change)
    (reply,) = grid.send_and_receive([request()])
    assert reply.has_error()
    assert "node 1: its reply is left out: " in caplog.text
    assert grid.take_results() == ()
    grid.accept(record(model()))
    assert grid.accepted == {}


def test_a_damaged_reply_takes_nothing_from_the_others():
    def spoil(replies):
        replies[-1].content["joulewise"].pop("sequence")
        return replies

    grid = SparseGrid(Watched(app(dense()), 2, spoil=spoil))
    good, bad = grid.send_and_receive([request(1), request(2)])
    assert (good.metadata.src_node_id, bad.metadata.src_node_id) == (1, 2)
    assert "number and result" in bad.error.reason
    assert [result.partition for result in grid.take_results()] == [0]
    grid.accept(record(model()))
    assert grid.accepted == {1: 1}


def test_bytes_are_what_crossed_the_grid():
    inner = Watched(app(compressing()), 3)
    grid = SparseGrid(inner)
    message = request(1)
    grid.send_and_receive([message, request(2), request(3)])
    crossed = {node - 1: len(payload) for node, payload, _ in inner.crossed}
    results = grid.take_results()
    assert {result.partition: result.bytes_up for result in results} == crossed
    assert all(sum(charge.bytes for charge in result.charges) == result.bytes_up for result in results)
    down = sum(len(array.data) for array in record(model()).values())
    assert {result.bytes_down for result in results} == {down}
    assert grid.take_results() == ()


def test_a_node_that_lies_about_bytes_is_overruled():
    def lie(content):
        told = content["joulewise"]["result"]
        content["joulewise"]["result"] = told.replace(b'"bytes_up":', b'"bytes_up":9').replace(
            b'"bytes_down":', b'"bytes_down":9'
        )
        assert content["joulewise"]["result"] != told

    honest, liar = spoiled(lambda content: None), spoiled(lie)
    honest.send_and_receive([request()])
    liar.send_and_receive([request()])
    assert liar.take_results() == honest.take_results()


# ---------------------------------------------------------------- acknowledgement


def accepted_in(message):
    return [config.get(ACCEPTED) for config in message.content.config_records.values()]


def test_only_the_node_whose_reply_was_used_is_told_so():
    inner = Watched(app(compressing()), 2)
    grid = SparseGrid(inner)
    grid.send_and_receive([request(1)])
    grid.accept(record(model()))
    shared = request(1, 2)
    other = request(2, 2)
    other.content = shared.content
    grid.send_and_receive([shared, other, request(1, message_type="evaluate")])
    assert [accepted_in(message) for message in inner.requests[-1]] == [[1], [None], [None]]


@pytest.mark.parametrize("config", [{}, {"a": ConfigRecord({"server-round": 2}), "b": ConfigRecord()}])
def test_acknowledgement_reaches_the_client_whatever_records_a_strategy_sends(config):
    store = MemoryStore()
    inner = Watched(app(compressing(store)), 1)
    grid = SparseGrid(inner)
    grid.send_and_receive([request(number=1)])
    grid.accept(record(model()))
    before = store.states[1, 1].residual
    grid.send_and_receive([request(number=2, config=config)])
    sent = decode(inner.crossed[-1][1], LAYOUT).dense()
    number = 2 if "config" in config else 1  # what the toy trains without a round number
    assert np.array_equal(sent + store.states[1, 1].residual, update(number, 0) + before)


def test_a_lost_state_is_counted_from_anew():
    store = MemoryStore()
    inner = Watched(app(compressing(store)), 1)
    grid = SparseGrid(inner)
    for number in (1, 2, 3):
        grid.send_and_receive([request(number=number)])
        grid.accept(record(model()))
    store.states.clear()
    grid.send_and_receive([request(number=4)])
    assert [sequence for *_, sequence in inner.crossed] == [1, 2, 3, 4]
    state = store.states[1, 1]
    assert np.array_equal(decode(state.pending, LAYOUT).dense() + state.residual, update(4, 0))
    grid.accept(record(model()))
    grid.send_and_receive([request(number=5)])
    assert np.array_equal(
        decode(store.states[1, 1].pending, LAYOUT).dense() + store.states[1, 1].residual,
        update(5, 0) + state.residual,
    )


def test_averages_of_whole_numbers_are_rounded_to_the_nearest():
    grid = SparseGrid(Watched(app(dense()), 1))
    grid.send_and_receive([request()])
    averaged = model() | {"bn.num_batches_tracked": np.array(2.9999999)}
    counter = grid.accept(record(averaged))["bn.num_batches_tracked"].numpy()
    assert (counter, counter.dtype) == (3, np.int64)


@pytest.mark.parametrize("dtype", [np.float64, np.float16])
def test_another_model_under_the_same_names_keeps_its_own_types(dtype):
    grid = SparseGrid(Watched(app(), 1))
    for number, kind in enumerate((np.float32, dtype), start=1):
        arrays = {name: array.astype(kind) for name, array in model().items()}
        grid.send_and_receive([request(number=number, arrays=arrays)])
        averaged = grid.accept(record({name: array.astype(np.float64) for name, array in arrays.items()}))
        assert {array.dtype for array in arrays_of(averaged).values()} == {np.dtype(kind)}


CLIENTS = 3
SOME = st.sets(st.integers(0, CLIENTS - 1))
FATES = st.lists(
    st.fixed_dictionaries(
        {
            "asked": st.sets(st.integers(0, CLIENTS - 1), min_size=1),
            "unheard": SOME,  # the request never arrives
            "lost": SOME,  # the reply never arrives in time
            "corrupt": SOME,  # the reply arrives, but not as it was sent
            "restarted": SOME,  # the node starts anew, with what it has on disk
            "aggregated": st.booleans(),  # or the strategy returns no arrays
        }
    ),
    min_size=1,
    max_size=6,
)


class Unreliable(Watched):
    """Loses, delays and damages replies; a lost reply comes one round late."""

    def __init__(self, make_app, nodes):
        super().__init__(make_app(), nodes)
        self.make_app, self.fate, self.late = make_app, {}, []

    def send_and_receive(self, messages, *, timeout=None):
        for node in self.fate["restarted"]:
            self._app, self._contexts[node + 1].state = self.make_app(), RecordDict()
        heard = [message for message in messages if message.metadata.dst_node_id - 1 not in self.fate["unheard"]]
        replies = super().send_and_receive(heard)
        for reply in replies:
            self._spoil(reply.metadata.src_node_id - 1, reply.content)
        lost = [reply for reply in replies if reply.metadata.src_node_id - 1 in self.fate["lost"]]
        late, self.late = self.late, lost
        return late + [reply for reply in replies if reply not in lost]

    def _spoil(self, node, content):
        if node in self.fate["corrupt"]:
            (array,) = content["arrays"].values()
            damaged = array.data[:-1] + bytes([array.data[-1] ^ 1])
            content["arrays"] = ArrayRecord({wire.PAYLOAD: Array("uint8", (1,), array.stype, damaged)})


def check_history(make_app, states, fates):
    """Run a history and compare, after each round, what was applied and what waits with what was trained."""
    made, applied = np.zeros((CLIENTS, LAYOUT.n)), np.zeros((CLIENTS, LAYOUT.n))
    inner = Unreliable(make_app, CLIENTS)
    grid = SparseGrid(inner)
    for number, fate in enumerate(fates, start=1):
        inner.fate, inner.crossed = fate, []
        replies = grid.send_and_receive([request(node + 1, number) for node in sorted(fate["asked"])])
        for node, _, _ in inner.crossed:
            made[node - 1] += update(number, node - 1)
        assert {reply.metadata.src_node_id - 1 for reply in replies} == (fate["asked"] - fate["unheard"] - fate["lost"])
        used = [reply for reply in replies if not reply.has_error()]
        assert not {reply.metadata.src_node_id - 1 for reply in used} & fate["corrupt"]
        assert len(grid.take_results()) == len(used)
        if fate["aggregated"] and used:
            for reply in used:
                applied[reply.metadata.src_node_id - 1] += flat(arrays_of(reply.content["arrays"]))
            grid.accept(record(model()))
        for node, state in states().items():
            settled, _ = settle(state, grid.accepted.get(node), LAYOUT)
            waiting = 0 if settled.residual is None else settled.residual
            assert np.array_equal(applied[node - 1] + waiting, made[node - 1])


def check_in_memory(fates, count):
    store = MemoryStore()
    check_history(
        lambda: app(compressing(store, count)),
        lambda: {node: state for (_, node), state in store.states.items()},
        fates,
    )


def check_in_files(fates, count):
    with tempfile.TemporaryDirectory() as folder:

        def states():
            found = {node: FileStore(folder).load(context) for node, context in contexts.items()}
            return {node: state for node, state in found.items() if state is not None}

        contexts = Watched(app(), CLIENTS)._contexts
        check_history(lambda: app(compressing(FileStore(folder), count)), states, fates)


# benchmarks/histories.py goes through thousands.


@given(FATES, st.integers(0, 30))
@settings(max_examples=60)
def test_every_update_is_applied_waits_or_is_under_way_whatever_gets_lost(fates, count):
    check_in_memory(fates, count)


@given(FATES, st.integers(0, 30))
@settings(max_examples=25)
def test_files_keep_what_waits_whatever_gets_lost_and_restarted(fates, count):
    check_in_files(fates, count)


def test_a_strategy_that_returns_no_arrays_gives_the_updates_back():
    class Fussy(type(averaging())):
        def aggregate_train(self, server_round, replies):
            arrays, metrics = super().aggregate_train(server_round, replies)
            return (None if server_round in (1, 3) else arrays), metrics

    store = MemoryStore()
    inner = Watched(app(compressing(store, count=LAYOUT.n)), 2)
    result = Sparse(averaging(Fussy)).start(inner, record(model()), num_rounds=4)
    wanted = sum(update(number, partition) for number in (1, 2, 3, 4) for partition in (0, 1)) / 2
    assert np.array_equal(flat(arrays_of(result.arrays)), wanted)


# ---------------------------------------------------------------- arrays as Flower writes them

NUMPY_ARRAYS = [
    np.float32(3).reshape(()),
    np.zeros((0, 3), np.float16),
    np.arange(6, dtype=np.int64).reshape(2, 3),
    np.asfortranarray(np.arange(6.0).reshape(2, 3)),
    np.arange(24, dtype=np.float32).reshape(2, 3, 4)[:, ::2, ::-1],
    np.arange(5, dtype=">i4"),
    np.array([True, False]),
    np.arange(70_000, dtype=np.uint8).reshape(7, 100, 100),
]


@pytest.mark.parametrize("array", NUMPY_ARRAYS, ids=lambda array: f"{array.dtype}{array.shape}")
def test_arrays_are_written_and_read_as_by_flower(array):
    theirs = Array(np.asarray(array))
    ours = wire.to_record({"a": array})["a"]
    assert (type(ours), ours) == (Array, theirs)
    quick = wire.parsed(ArrayRecord({"a": theirs}))["a"]
    for read in (wire.to_numpy(ArrayRecord({"a": theirs}))["a"], quick.numpy()):
        assert (read.dtype, read.shape) == (theirs.numpy().dtype, array.shape)
        assert read.flags.f_contiguous == theirs.numpy().flags.f_contiguous
        assert np.array_equal(read, array)
    assert quick.numpy().flags.writeable
    assert wire.size_of(ArrayRecord({"a": theirs})) == len(theirs.data)


def test_arrays_that_are_quick_to_read_travel_as_plain_ones():
    plain = record(model())
    quick = wire.parsed(plain)
    assert quick.object_id == plain.object_id
    for name, array in quick.items():
        assert Array.inflate(array.deflate(), array.children) == plain[name]


def test_arrays_with_python_objects_are_never_read():
    objects = np.array([{}, []], object)
    with pytest.raises(ValueError, match="pickle"):
        wire.to_record({"a": objects})
    header = wire.to_record({"a": np.zeros(2)})["a"].data[:128].replace(b"'<f8'", b"'|O' ")
    evil = Array(dtype="object", shape=(2,), stype="numpy.ndarray", data=header + bytes(16))
    for read in (lambda: wire.to_numpy(ArrayRecord({"a": evil})), wire.Parsed.of(evil).numpy):
        with pytest.raises(ValueError, match="pickle"):
            read()


def test_other_serializations_are_refused_as_by_flower():
    foreign = Array(dtype="uint8", shape=(3,), stype="zip", data=b"abc")
    for read in (lambda: wire.to_numpy(ArrayRecord({"a": foreign})), wire.Parsed.of(foreign).numpy):
        with pytest.raises(TypeError, match="zip"):
            read()


def test_an_empty_payload_is_a_payload():
    content = RecordDict({"arrays": record(model())})
    grid = SparseGrid(Watched(app(compressing()), 1))
    grid.send_and_receive([request()])
    (result,) = grid.take_results()
    wire.write(content, wire.Reply(b"", 4, result))
    assert wire.read(content) == wire.Reply(b"", 4, result)
    assert not payloads(request())


@pytest.mark.parametrize("name", ["Krum", "MultiKrum", "Bulyan", "FedMedian", "FedTrimmedAvg"])
def test_strategies_that_do_not_average_are_warned_about(name):
    with pytest.warns(UserWarning, match=f"{name} does not average all replies"):
        Sparse(getattr(strategies, name)())


def test_feedback_with_a_strategy_that_does_not_average_is_refused():
    with pytest.warns(UserWarning, match="FedMedian"):
        strategy = Sparse(strategies.FedMedian())
    strategy._grid = SparseGrid(None)
    strategy._grid.feedback = True
    with pytest.raises(FederationError, match="FedMedian does not use all replies"):
        strategy.aggregate_train(1, [])


# ---------------------------------------------------------------- rounds in several calls, and several runs on one grid


def residuals(store):
    return sum(state.residual for state in store.states.values() if state.residual is not None)


def test_a_round_may_be_asked_in_several_calls_with_evaluations_between():
    store = MemoryStore()
    inner = Watched(app(compressing(store, count=5)), 3)
    grid, arrays, made = SparseGrid(inner), record(model()), 0
    for number in (1, 2, 3):
        replies = []
        for nodes in ((1,), (2, 3)):
            requests = [request(node, number) for node in nodes]
            for each in requests:
                each.content["arrays"] = arrays
            replies += grid.send_and_receive(requests)
            question = request(1, number, message_type="evaluate")
            question.content["arrays"] = arrays
            grid.send_and_receive([question])
        before = flat(arrays_of(arrays))
        moved = sum(flat(arrays_of(reply.content["arrays"])) - before for reply in replies)
        aggregated, _ = averaging().aggregate_train(number, replies)
        arrays = grid.accept(aggregated, averaged=True)
        assert np.allclose(flat(arrays_of(arrays)), before + moved / 3, atol=1e-6)
        made = made + sum(update(number, node) for node in range(3))
        applied = made - residuals(store)
        assert np.allclose(3 * flat(arrays_of(arrays)), applied, atol=1e-5)


def test_a_node_that_is_asked_twice_in_one_round_is_left_out_with_feedback():
    grid = SparseGrid(Watched(app(compressing(MemoryStore(), count=5)), 1))
    assert not grid.send_and_receive([request(1, 1)])[0].has_error()
    assert grid.send_and_receive([request(1, 1)])[0].has_error()


def test_a_second_strategy_on_the_same_grid_goes_on_where_the_first_ended():
    store = MemoryStore()
    inner = Watched(app(compressing(store, count=5)), 1)
    arrays, made = record(model()), 0
    for rounds in (2, 3):
        arrays = Sparse(averaging()).start(inner, arrays, num_rounds=rounds).arrays
        made = made + sum(update(number, 0) for number in range(1, rounds + 1))
    assert np.array_equal(flat(arrays_of(arrays)) + residuals(store), made)


def test_books_that_nobody_takes_do_not_grow_without_end(monkeypatch):
    monkeypatch.setattr("joulewise.flower.books.MOST_BOOKED", 5)
    grid = SparseGrid(Watched(app(compressing(MemoryStore(), count=5)), 2))
    for number in range(1, 8):
        grid.send_and_receive([request(node, number) for node in (1, 2)])
        grid.accept(record(model()))
    assert len(grid.take_results()) == len(grid.take_exchanges()[0]) == 5


def test_replies_of_a_round_that_came_to_nothing_are_not_taken_for_used_when_it_is_tried_again():
    store = MemoryStore()
    grid = SparseGrid(Watched(app(compressing(store, count=5)), 2))
    grid.send_and_receive([request(1, 1)])
    grid.discard()
    grid.send_and_receive([request(2, 1)])
    grid.accept(record(model()))
    assert set(grid.accepted) == {2}
