"""Arrays of compressed replies: plain ones to every strategy, dense only while somebody looks."""

import copy
import tracemalloc
import warnings

import numpy as np
import pytest
from flwr.app import Array, ArrayRecord, ConfigRecord, Message, MetricRecord, RecordDict
from flwr.serverapp import strategy as strategies
from toy_federation import DEVICE, Watched, app, arrays_of, averaging, model, record, request

from joulewise.codec import decode, encode
from joulewise.compress import ErrorFeedback
from joulewise.flower import SparseGrid, Sparsify, wire
from joulewise.flower.received import Base, Sum
from joulewise.layout import Layout
from joulewise.rules import Count, TopK
from joulewise.select import Selection

CLIENTS = 7


def received(arrays, kinds, indices, values, whole=None):
    """The record that a server makes of what a client sent."""
    base = Base.of(record(arrays), kinds)
    selection = Selection(base.layout.n, np.array(indices, np.uint32), np.array(values, np.float32))
    return base.plus(decode(encode(selection, base.layout, whole=whole), base.layout))


def plain(content):
    """The same message content with Flower's own arrays."""
    named = {name: Array(np.asarray(array)) for name, array in arrays_of(content["arrays"]).items()}
    return RecordDict({**content, "arrays": ArrayRecord(named)})


def replies():
    start = model() | {"linear.bias": np.linspace(-1, 1, 4).astype(np.float32)}
    compressing = Sparsify(DEVICE, TopK(), Count(5), feedback=ErrorFeedback())
    grid = SparseGrid(Watched(app(compressing, examples=lambda partition: 3 + partition), CLIENTS))
    return grid.send_and_receive([request(1 + node, arrays=start) for node in range(CLIENTS)]), record(start)


# QFedAvg cannot take models with whole numbers, with joulewise or without.
AVERAGING = ["FedAvg", "FedAdam", "FedAdagrad", "FedYogi", "FedAvgM", "FedProx"]
ROBUST = ["FedMedian", "FedTrimmedAvg", "Krum", "MultiKrum", "Bulyan"]


@pytest.mark.parametrize("name", [*AVERAGING, *ROBUST])
def test_every_strategy_makes_the_same_of_them_as_of_plain_arrays(name):
    found = []
    for change in (lambda content: content, plain):
        answers, start = replies()
        for answer in answers:
            answer.content = change(answer.content)
        kinds = {type(array) for answer in answers for array in answer.content["arrays"].values()}
        assert (Sum in kinds) == (change is not plain)
        options = {"num_malicious_nodes": 1} if name in {"Krum", "MultiKrum", "Bulyan"} else {}
        strategy = averaging(getattr(strategies, name), **options)
        strategy.current_arrays = start
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", RuntimeWarning)
            # FedOpt and its kin take the model of the round from here.
            strategy.configure_train(1, start, ConfigRecord(), Watched(app(), CLIENTS))
            arrays, metrics = strategy.aggregate_train(1, answers)
        found.append(({key: array.data for key, array in arrays.items()}, metrics))
    assert found[0] == found[1]


@pytest.mark.parametrize("wrapper", ["DifferentialPrivacyServerSideFixedClipping"])
def test_differential_privacy_clips_the_same(wrapper):
    found = []
    for change in (lambda content: content, plain):
        answers, start = replies()
        for answer in answers:
            answer.content = change(answer.content)
        strategy = getattr(strategies, wrapper)(averaging(), 0.0, 0.1, CLIENTS)
        strategy.configure_train(1, start, ConfigRecord(), Watched(app(), CLIENTS))
        arrays, _ = strategy.aggregate_train(1, answers)
        found.append({key: array.data for key, array in arrays.items()})
    assert found[0] == found[1]


def test_they_are_what_the_client_had_bit_for_bit():
    rng = np.random.default_rng(3)
    arrays = {
        "a": rng.standard_normal((5, 7), np.float32),
        "half": rng.standard_normal((3, 4)).astype(np.float16),
        "double": rng.standard_normal(6),
        "empty": np.zeros((0, 2), np.float32),
        "steps": np.array(4, np.int64),
        "head": np.ones(3, np.float32),
    }
    layout = Layout.of(arrays, {"head": "local"})
    indices = [0, 3, 34, 35, 38, 47, 48, 52]
    values = rng.standard_normal(len(indices)).astype(np.float32)
    got = received(arrays, {"head": "local"}, indices, values, {"steps": np.int64(9)})
    dense = layout.flatten(arrays)
    dense[indices] += values
    wanted = arrays | layout.split(dense) | {"steps": np.array(9)}
    assert list(got) == list(arrays)
    for name, array in got.items():
        assert (array.dtype, array.shape) == (str(arrays[name].dtype), arrays[name].shape)
        np.testing.assert_array_equal(array.numpy(), wanted[name], strict=True)
        assert array.data == Array(np.asarray(wanted[name])).data
        assert array.numpy().flags.writeable
    assert {name for name, array in got.items() if isinstance(array, Sum)} == {"a", "half", "double", "empty"}


def test_a_tensor_that_keeps_more_than_half_is_dense_at_once():
    got = received({"a": np.zeros(4, np.float32), "b": np.zeros(4, np.float32)}, {}, [0, 1, 2, 4, 5], np.ones(5))
    assert [type(array) for array in got.values()] == [wire.Parsed, Sum]
    assert [array.numpy().tolist() for array in got.values()] == [[1, 1, 1, 0], [1, 1, 0, 0]]


def test_they_travel_and_are_counted_as_plain_arrays():
    got = received({"a": np.arange(6, dtype=np.float32).reshape(2, 3)}, {}, [1, 5], [0.5, -5.0])
    same = ArrayRecord({"a": Array(got["a"].numpy())})
    assert got.count_bytes() == same.count_bytes()
    assert got.object_id == same.object_id
    assert Array.inflate(got["a"].deflate(), got["a"].children) == same["a"]
    assert "data" not in vars(got["a"])


def test_a_copy_and_other_bytes_are_respected():
    got = received({"a": np.zeros(6, np.float32)}, {}, [1, 5], [0.5, -5.0])["a"]
    assert np.array_equal(copy.deepcopy(got).numpy(), got.numpy())
    got.data = Array(np.ones(6, np.float32)).data
    assert got.numpy().tolist() == [1] * 6
    with pytest.raises(AttributeError, match="nothing"):
        _ = got.nothing


def test_memory_holds_one_dense_tensor_at_a_time():
    shapes, clients = [(100, 100)] * 20, 60
    arrays = {f"t{at}": np.zeros(shape, np.float32) for at, shape in enumerate(shapes)}
    one = sum(array.nbytes for array in arrays.values())
    base = Base.of(record(arrays), {})
    selection = Selection(base.layout.n, np.arange(0, base.layout.n, 200, dtype=np.uint32), np.ones(1000, np.float32))
    payload = encode(selection, base.layout)

    def reply(number):
        metrics = MetricRecord({"num-examples": 1 + number})
        content = RecordDict({"arrays": base.plus(decode(payload, base.layout)), "metrics": metrics})
        return Message(content, reply_to=request())

    strategy = averaging()
    tracemalloc.start()
    try:
        answers = [reply(number) for number in range(clients)]
        decoded, _ = tracemalloc.get_traced_memory()
        averaged, _ = strategy.aggregate_train(1, answers)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert averaged["t0"].numpy()[0, 0] == pytest.approx(1.0)
    assert decoded < 2.5 * one
    assert peak < 5.5 * one
