"""A bad reply never stops a round: it counts as a failure, and nothing of it is averaged."""

from io import BytesIO

import numpy as np
import pytest
from flwr.app import Array, ArrayRecord, Error, Message, MetricRecord, RecordDict
from flwr.serverapp.strategy import FedAdam, FedAvg, FedMedian, QFedAvg
from hypothesis import given, settings
from hypothesis import strategies as st
from toy_federation import DEVICE, Watched, app, arrays_of, averaging, flat, model, record, request, update

from joulewise.codec import VALUE_TYPES, encode
from joulewise.compress import ErrorFeedback
from joulewise.errors import FederationError
from joulewise.flower import FileStore, MemoryStore, Sparse, SparseGrid, Sparsify, wire
from joulewise.flower.checked import Expected, examples, largest_payload, told, weight
from joulewise.flower.rounds import Invited, play
from joulewise.layout import Layout
from joulewise.rules import Count, Dense, TopK
from joulewise.select import Selection

LAYOUT = Layout.of(model())
BAD = 2  # the node that misbehaves, of three


def sparse():
    return Sparsify(DEVICE, Dense(), None)


def npy(array, version=None):
    stream = BytesIO()
    np.lib.format.write_array(stream, array, version)
    return stream.getvalue()


def plain(array, **changes):
    return Array(**({"dtype": "float32", "shape": array.shape, "stype": wire.NUMPY, "data": npy(array)} | changes))


def resealed(content, **arrays):
    """A payload that is sound, but of these arrays."""
    other = model() | arrays
    layout = Layout.of(other)
    kept = Selection(layout.n, np.zeros(1, np.uint32), np.ones(1, np.float32))
    return encode(kept, layout, whole=other)


def payload(change):
    def changed(content):
        (array,) = content["arrays"].values()
        data = change(content, array.data)
        content["arrays"] = ArrayRecord({wire.PAYLOAD: Array("uint8", (len(data),), wire.SERIALIZATION, data)})

    return changed


def metrics(**values):
    def changed(content):
        content["metrics"] = MetricRecord(
            {"num-examples": 8} | {name.replace("_", "-"): values[name] for name in values}
        )

    return changed


def array(name, made):
    def changed(content):
        content["arrays"] = ArrayRecord(dict(content["arrays"]) | {name: made})

    return changed


COMPRESSED = {
    "checksum": payload(lambda content, data: data[:-1] + bytes([data[-1] ^ 1])),
    "payload of another model": payload(lambda content, data: resealed(content, more=np.zeros(3, np.float32))),
    "of another version": payload(lambda content, data: b"JWP9" + data[4:]),
    "at most": payload(lambda content, data: data + bytes(largest_payload(LAYOUT))),
    "number and result": lambda content: content.pop("joulewise"),
    "has the number 0": lambda content: content["joulewise"].update({"sequence": 0}),
    "has the number -3": lambda content: content["joulewise"].update({"sequence": -3}),
    "result has": lambda content: content["joulewise"].update({"result": b" " * (1 << 22) + b"{}"}),
    "result is not": lambda content: content["joulewise"].update({"result": b"{}"}),
}
DENSE = {
    "'linear.bias' holds NaN": array("linear.bias", plain(np.array([0, 1, np.nan, 2], np.float32))),
    "'bn.running_mean' holds NaN": array("bn.running_mean", plain(np.array([np.inf, 0], np.float32))),
    "has shape (5,)": array("linear.bias", plain(np.zeros(5, np.float32))),
    "has elements of complex64": array("linear.bias", plain(np.zeros(4, np.complex64))),
    "has elements of float32": array("bn.num_batches_tracked", plain(np.float32(1.5).reshape(()))),
    "'linear.bias' holds NaN or infinity": array("linear.bias", plain(np.full(4, 1e300))),
    "other names": array("more", plain(np.zeros(1, np.float32))),
    "bytes came": array("linear.bias", plain(np.zeros(4), data=npy(np.zeros(4, np.float32)) + b"!")),
    "in shape (4, 1000000000000)": array(
        "linear.bias",
        plain(np.zeros(4), data=npy(np.zeros(4, np.float32)).replace(b"(4,), ", b"(4, 1000000000000), ")[:-14]),
    ),
    "no header of NumPy": array("linear.bias", plain(np.zeros(4), data=b"\x93NUMPY\x01\x00\x76\x00" + b"[" * 118)),
    "its array 'linear.bias' cannot be read": array("linear.bias", plain(np.zeros(4), data=b"")),
    "NumPy's format 1.0": array("linear.bias", plain(np.zeros(4), stype="pickle")),
    "says object": array("linear.bias", plain(np.zeros(4), data=npy(np.zeros(4)).replace(b"'<f8'", b"'|O' "))),
    "holds 0 records": lambda content: content.pop("arrays"),
    "holds 2 records": lambda content: content.update({"second": record(model())}),
}
METRICS = {
    "'num-examples' must be": metrics(num_examples=float("nan")),
    "'num-examples' must be a": metrics(num_examples=-8),
    "'num-examples' must be a finite": metrics(num_examples=[8]),
    "no weight": metrics(num_examples=0),
    "lack 'num-examples'": lambda content: content["metrics"].pop("num-examples"),
    "0 records of metrics": lambda content: content.pop("metrics"),
    "2 records of metrics": lambda content: content.update({"more": MetricRecord({"loss": 0.5})}),
    "its metrics are loss, num-examples": metrics(loss=0.5),
    "its metrics are num-examples, parts[2]": metrics(parts=[1.0, 2.0]),
}
CASES = [
    *((words, change, sparse) for words, change in COMPRESSED.items()),
    *((words, change, None) for words, change in DENSE.items()),
    *((words, change, made) for words, change in METRICS.items() for made in (sparse, None)),
]


def spoiling(change, mod=None, nodes=3, **options):
    """A grid on which what `BAD` answers is changed on its way."""

    def spoil(replies):
        for reply in replies:
            if reply.metadata.src_node_id == BAD:
                change(reply.content)
        return replies

    return Watched(app() if mod is None else app(mod()), nodes, spoil=spoil, **options)


@pytest.mark.parametrize(("words", "change", "mod"), CASES, ids=[words for words, *_ in CASES])
def test_a_bad_reply_is_a_failure_and_the_round_goes_on_without_it(words, change, mod, caplog):
    words = words.replace("payload of another model", "payload is of a model with")
    result = Sparse(averaging()).start(spoiling(change, mod), record(model()), num_rounds=2)
    wanted = sum(update(number, partition) for number in (1, 2) for partition in (0, 2)) / 2
    assert np.array_equal(flat(arrays_of(result.arrays)), wanted)
    lines = [line for entry in caplog.records if (line := entry.getMessage()).startswith("node ")]
    assert len(lines) == 2
    assert all(line.startswith(f"node {BAD}: its reply is left out: ") and words in line for line in lines)


@pytest.mark.parametrize("strategy", [FedAvg, FedAdam, FedMedian])
@pytest.mark.filterwarnings("ignore:FedMedian does not average")
def test_when_every_reply_is_bad_the_model_stays_and_the_run_goes_on(strategy):
    grid = spoiling(COMPRESSED["checksum"], sparse, nodes=2)
    grid.spoil = lambda replies: [COMPRESSED["checksum"](reply.content) or reply for reply in replies]
    made = Sparse(averaging(strategy))
    result = made.start(grid, record(model()), num_rounds=2)
    assert len(grid.requests) == 4
    assert not result.arrays
    assert not result.train_metrics_clientapp.get(1, {}).get("train-loss")


def test_a_reply_in_another_order_is_put_into_the_order_of_the_model():
    def reverse(content):
        content["arrays"] = ArrayRecord(dict(reversed(content["arrays"].items())))

    grid = SparseGrid(spoiling(reverse))
    _, reply, _ = grid.send_and_receive([request(node) for node in (1, 2, 3)])
    assert list(reply.content["arrays"]) == list(model())
    assert np.array_equal(flat(arrays_of(reply.content["arrays"])), update(1, 1))


def test_an_element_type_of_the_same_kind_is_cast_to_that_of_the_model():
    grid = SparseGrid(spoiling(array("linear.bias", plain(np.array([0.5, 1, 2, 3])))))
    _, reply, _ = grid.send_and_receive([request(node) for node in (1, 2, 3)])
    bias = reply.content["arrays"]["linear.bias"].numpy()
    assert (bias.dtype, bias.tolist()) == (np.float32, [0.5, 1, 2, 3])


def test_a_sound_dense_reply_is_not_touched():
    inner = Watched(app(), 1)
    grid = SparseGrid(inner)
    inner.spoil = lambda replies: kept.extend(reply.content["arrays"] for reply in replies) or replies
    kept = []
    (reply,) = grid.send_and_receive([request()])
    assert reply.content["arrays"] is kept[0]


def test_arrays_that_were_not_asked_for_are_at_least_finite():
    message = request()
    message.content["second"] = record(model())
    (sound,) = SparseGrid(Watched(app(), 1)).send_and_receive([message])
    assert not sound.has_error()
    spoil = array("linear.bias", plain(np.full(4, np.nan, np.float32)))
    bad = request(BAD)
    bad.content["second"] = record(model())
    (reply,) = SparseGrid(spoiling(spoil)).send_and_receive([bad])
    assert "'linear.bias' holds NaN" in reply.error.reason


def test_what_counts_as_wrong_metrics_is_what_most_replies_do_not_have():
    changes = {1: metrics(loss=1.0), 2: metrics(loss=2.0), 3: metrics()}
    inner = Watched(app(sparse()), 3)
    inner.spoil = lambda replies: [changes[reply.metadata.src_node_id](reply.content) or reply for reply in replies]
    grid = SparseGrid(inner)
    grid.expected = Expected(alike=True)
    replies = grid.send_and_receive([request(node) for node in (1, 2, 3)])
    assert [reply.has_error() for reply in replies] == [False, False, True]
    grid.expected = Expected()
    replies = grid.send_and_receive([request(node, 2) for node in (1, 2, 3)])
    assert not any(reply.has_error() for reply in replies)


def test_a_loss_that_weighs_replies_must_be_finite():
    def loss(value):
        return lambda content: content["metrics"].update({"train_loss": value})

    def answer(content, partition):
        content["metrics"]["train_loss"] = 1.0
        return content

    floats = {name: array for name, array in model().items() if array.dtype == np.float32}
    made = Watched(app(sparse(), answer=answer), 3)
    made.spoil = lambda replies: [
        loss([1.0, np.nan, 1.0][at])(reply.content) or reply for at, reply in enumerate(replies)
    ]
    result = Sparse(averaging(QFedAvg, client_learning_rate=0.1)).start(made, record(floats), num_rounds=1)
    assert np.isfinite(flat(arrays_of(result.arrays))).all()


def test_an_evaluation_without_weight_is_left_out_too():
    def none(replies):
        for reply in replies:
            if reply.metadata.src_node_id == BAD and reply.metadata.message_type == "evaluate":
                reply.content["metrics"]["num-examples"] = float("inf")
        return replies

    strategy = Sparse(averaging(fraction_evaluate=1.0, min_evaluate_nodes=1))
    result = strategy.start(Watched(app(sparse()), 3, spoil=none), record(model()), num_rounds=1)
    assert np.isfinite(result.evaluate_metrics_clientapp[1]["total"])


def test_an_old_reply_is_never_used_twice():
    inner, kept = Watched(app(sparse()), 1), []

    def replay(replies):
        kept.append({key: each.copy() for key, each in replies[0].content.items()})
        replies[0].content.update(kept[0])
        return replies

    inner.spoil = replay
    grid = SparseGrid(inner)
    assert not grid.send_and_receive([request(number=1)])[0].has_error()
    grid.accept(record(model()))
    (reply,) = grid.send_and_receive([request(number=2)])
    assert "number 1, but the last that was used has 1" in reply.error.reason


def test_a_reply_in_the_name_of_another_node_is_refused():
    def borrow(replies):
        replies[0].metadata.__dict__["_src_node_id"] = 7
        return replies

    (reply,) = SparseGrid(Watched(app(sparse()), 1, spoil=borrow)).send_and_receive([request()])
    assert "came from node 7" in reply.error.reason


def test_second_and_late_replies_are_logged(caplog):
    inner, kept = Watched(app(sparse()), 1), []
    inner.spoil = lambda replies: kept.extend(replies) or [*kept, *replies]
    grid = SparseGrid(inner)
    assert len(grid.send_and_receive([request(number=1)])) == 1
    assert len(grid.send_and_receive([request(number=2)])) == 1
    assert caplog.text.count("a second one to the same request") == 2
    assert caplog.text.count("so it is late") == 1


def test_a_node_that_is_asked_twice_with_feedback_is_not_counted_twice():
    store = MemoryStore()
    mod = Sparsify(DEVICE, TopK(), Count(5), feedback=ErrorFeedback(), store=store)
    grid = SparseGrid(Watched(app(mod), 1))
    replies = grid.send_and_receive([request(number=1), request(number=2)])
    assert ["asked to train twice" in reply.error.reason for reply in replies] == [True, True]
    (reply,) = grid.send_and_receive([request(number=3)])
    assert not reply.has_error()


def test_the_limit_on_payloads_can_be_set(caplog):
    grid = SparseGrid(Watched(app(sparse()), 1), most_payload_bytes=100)
    assert grid.send_and_receive([request()])[0].has_error()
    assert "at most 100 are agreed" in caplog.text
    strategy = Sparse(averaging(), most_payload_bytes=100)
    assert not strategy.start(Watched(app(sparse()), 1), record(model()), num_rounds=1).arrays


@given(st.lists(st.integers(1, 300), min_size=1, max_size=4), st.sampled_from(VALUE_TYPES), st.data())
@settings(max_examples=60)
def test_no_payload_is_larger_than_the_limit(sizes, values, data):
    arrays = {f"t{at}": np.zeros(size, np.float32) for at, size in enumerate(sizes)}
    arrays["steps"] = np.zeros(5, np.int64)
    layout = Layout.of(arrays)
    rng = np.random.default_rng(data.draw(st.integers(0, 2**32)))
    kept = np.flatnonzero(rng.random(layout.n) < data.draw(st.sampled_from([0.0, 0.1, 0.5, 1.0]))).astype(np.uint32)
    bits = rng.integers(0, 0x7F000000, kept.size, np.uint32) | (rng.integers(0, 2, kept.size, np.uint32) << 31)
    payload = encode(Selection(layout.n, kept, bits.view(np.float32)), layout, values, arrays)
    assert len(payload) <= largest_payload(layout)


# ---------------------------------------------------------------- nodes that fail


def test_an_error_of_a_client_is_told_in_one_line_and_the_others_are_averaged(caplog):
    def answer(content, partition):
        if partition == BAD - 1:
            content["arrays"] = record(model() | {"linear.bias": np.full(4, np.nan, np.float32)})
        return content

    store = MemoryStore()
    mod = Sparsify(DEVICE, TopK(), Count(LAYOUT.n), feedback=ErrorFeedback(), store=store)
    grid = Watched(app(mod, answer=answer), 3, raising=False)
    result = Sparse(averaging()).start(grid, record(model()), num_rounds=1)
    wanted = sum(update(1, partition) for partition in (0, 2)) / 2
    assert np.array_equal(flat(arrays_of(result.arrays)), wanted)
    (line,) = [line for entry in caplog.records if (line := entry.getMessage()).startswith("node ")]
    assert line.startswith(f"node {BAD}: it answers with an error: round 1, client 1: the update holds NaN")
    assert (1, BAD) not in store.states


def test_a_full_disk_at_one_node_does_not_stop_the_others(tmp_path, monkeypatch):
    class Full(FileStore):
        def save(self, context, state):
            if context.node_id == BAD:
                monkeypatch.setattr("os.fsync", lambda file: (_ for _ in ()).throw(OSError(28, "No space left")))
            try:
                super().save(context, state)
            finally:
                monkeypatch.undo()

    mod = Sparsify(DEVICE, TopK(), Count(5), feedback=ErrorFeedback(), store=Full(tmp_path))
    grid = SparseGrid(Watched(app(mod), 3, raising=False))
    first, third, bad = grid.send_and_receive([request(node) for node in (1, 2, 3)])
    assert [first.has_error(), third.has_error(), bad.metadata.src_node_id] == [False, False, BAD]
    assert "No space left; mend that, this node's reply is not sent" in bad.error.reason


def test_a_state_of_another_run_is_never_added(tmp_path):
    store = FileStore(tmp_path)
    mod = Sparsify(DEVICE, TopK(), Count(5), feedback=ErrorFeedback(), store=store)
    grid = Watched(app(mod), 1, raising=False)
    grid.send_and_receive([request()])
    (file,) = tmp_path.iterdir()
    file.rename(tmp_path / "node-1-run-9.npz")
    grid._contexts[1].run_id = 9
    (reply,) = SparseGrid(grid).send_and_receive([request(number=2)])
    assert reply.error.reason.startswith("the client's state belongs to run 1, but this is run 9")


def test_a_node_that_is_gone_is_named_though_flower_answers_for_it(caplog):
    def gone(replies):
        for reply in replies:
            reply.metadata.__dict__["_src_node_id"] = 1
        return replies

    inner = Watched(app(), 3)
    inner.spoil = lambda replies: gone(
        [Message(Error(5, "Node Unavailable"), reply_to=sent) for sent in inner.requests[-1]]
    )
    replies = SparseGrid(inner).send_and_receive([request(3)])
    assert [(reply.metadata.src_node_id, reply.error.code) for reply in replies] == [(3, 5)]
    assert "node 3: it answers with an error: Node Unavailable" in caplog.text


@pytest.mark.parametrize(
    ("reason", "line"),
    [
        ("out of memory", "out of memory"),
        ("<class 'ValueError'>:<'bad'>", "bad"),
        ("<class 'X'>:<'\nException X occurred. Message: ray: \n one\n two'>", "ray: one two"),
    ],
)
def test_reasons_become_one_line(reason, line):
    assert told(reason) == line


def test_a_study_stops_where_a_reply_cannot_be_used():
    grid = Invited(spoiling(COMPRESSED["checksum"], sparse))
    with pytest.raises(FederationError, match=r"round 1: node 2 failed: payload was damaged on the way"):
        list(play(averaging(), grid, record(model()), (1,), {1: (1, 2, 3)}))


@pytest.mark.parametrize("count", [float("nan"), float("inf"), -float("inf")])
def test_a_number_of_examples_that_is_none_counts_as_none_where_replies_are_weighed_by_something_else(count):
    reply = Message(
        RecordDict({"m": MetricRecord({"num-examples": count, "w": 2.0})}), dst_node_id=1, message_type="train"
    )
    assert examples(reply) == 0
    assert weight(reply, Expected(weight="w", others=(), alike=False)) == 2.0
