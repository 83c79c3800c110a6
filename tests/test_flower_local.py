"""Tensors that stay on the client: never sent, never overwritten, kept by the node."""

import numpy as np
import pytest
from flwr.app import RecordDict
from flwr.serverapp.strategy import FedAdam, FedAvg, FedProx
from toy_federation import DEVICE, Watched, app, arrays_of, averaging, change, model, record, request

from joulewise.codec import decode
from joulewise.compress import ErrorFeedback
from joulewise.errors import LayoutError, StateError
from joulewise.flower import ContextStore, FileStore, MemoryStore, Sparse, SparseGrid, Sparsify, wire
from joulewise.flower.inprocess import InProcessGrid
from joulewise.layout import Layout
from joulewise.rules import Count, Dense, Density, TopK

HEAD = ("linear.weight", "linear.bias")
START = model() | {"linear.bias": np.full(4, 7, np.float32), "conv.weight": np.full((2, 1, 3, 3), 1 / 3, np.float32)}
SHARED = Layout.of(START, {"linear.*": "local"})


def mod(store=None, rule=TopK(), budget=Density(0.3), **options):  # noqa: B008 (frozen records)
    return Sparsify(DEVICE, rule, budget, feedback=ErrorFeedback(), store=store, local=["linear.*"], **options)


def own(partition, rounds, name, start=START):
    return start[name] + sum(change(number, partition, start[name].shape) for number in range(1, rounds + 1))


@pytest.mark.parametrize("store", ["context", "memory", "file"])
def test_a_client_keeps_its_own_values_and_the_server_its_own(store, tmp_path):
    made = {"context": ContextStore(), "memory": MemoryStore(), "file": FileStore(tmp_path)}[store]
    seen = {}

    def answer(content, partition):
        seen[partition] = arrays_of(content["arrays"])
        return content

    inner = Watched(app(mod(made), answer=answer), 3)
    result = arrays_of(Sparse(averaging()).start(inner, record(START), num_rounds=3).arrays)
    for partition in range(3):
        for name in HEAD:
            assert np.array_equal(seen[partition][name], own(partition, 3, name))
            assert np.array_equal(made.load(inner._contexts[partition + 1]).local[name], own(partition, 3, name))
    for name in HEAD:
        assert result[name].tobytes() == START[name].tobytes()
    assert not np.array_equal(result["conv.weight"], START["conv.weight"])


@pytest.mark.parametrize("strategy", [FedAvg, FedProx, FedAdam])
def test_the_servers_value_of_a_local_tensor_keeps_every_bit(strategy):
    thirds = START | {"linear.weight": np.full((4, 6), 1 / 3, np.float32)}
    client_app = app(mod(), examples=lambda partition: 3 + partition)
    result = arrays_of(Sparse(averaging(strategy)).start(Watched(client_app, 5), record(thirds), num_rounds=4).arrays)
    assert result["linear.weight"].tobytes() == thirds["linear.weight"].tobytes()


def test_local_tensors_are_in_no_payload_count_price_or_contrast():
    inner = Watched(app(mod(rule=Dense(), budget=None)), 1)
    grid = SparseGrid(inner)
    grid.send_and_receive([request(arrays=START)])
    ((_, payload, _),) = inner.crossed
    (result,) = grid.take_results()
    assert decode(payload, SHARED).selection.n == SHARED.n == 18
    assert (result.parameters, len(result.kept_by_tensor), result.contrast) == (18, 1, 1.0)
    everything = Watched(app(Sparsify(DEVICE, Dense(), None)), 1)
    everything.send_and_receive([request(arrays=START)])
    assert len(payload) < len(everything.crossed[0][1]) - 4 * 20


def test_evaluation_sees_the_clients_own_values():
    inner = Watched(app(mod()), 2)
    inner.send_and_receive([request(1, arrays=START)])
    first, second = inner.send_and_receive([request(node, arrays=START, message_type="evaluate") for node in (1, 2)])
    received = sum(float(array.sum()) for array in START.values())
    gained = sum(float(change(1, 0, START[name].shape).sum()) for name in HEAD)
    assert first.content["metrics"]["total"] == pytest.approx(received + gained, rel=1e-6)
    assert second.content["metrics"]["total"] == pytest.approx(received, rel=1e-6)


def test_what_is_put_in_for_one_node_is_not_seen_by_another():
    inner = Watched(app(mod()), 2)
    message, other = request(1, arrays=START), request(2, arrays=START)
    other.content["arrays"] = message.content["arrays"]
    inner.send_and_receive([message, other])
    inner.send_and_receive([message, other])
    assert {name: array.tolist() for name, array in arrays_of(message.content["arrays"]).items()} == {
        name: array.tolist() for name, array in START.items()
    }


def test_own_values_survive_a_restart_with_files(tmp_path):
    Watched(app(mod(FileStore(tmp_path))), 1).send_and_receive([request(arrays=START)])
    again = Watched(app(mod(FileStore(tmp_path))), 1)
    again._contexts[1].state = RecordDict()
    again.send_and_receive([request(number=2, arrays=START)])
    assert np.array_equal(FileStore(tmp_path).load(again._contexts[1]).local["linear.bias"], own(0, 2, "linear.bias"))


def test_nodes_may_keep_different_tensors():
    inner = Watched(app(mod(rule=Dense(), budget=None)), 2)
    inner._contexts[2].node_config["joulewise.local"] = "linear.bias"
    grid = SparseGrid(inner)
    first, second = (arrays_of(each.content["arrays"]) for each in grid.send_and_receive([request(1), request(2)]))
    assert not first["linear.weight"].any()
    assert np.array_equal(second["linear.weight"], change(1, 1, (4, 6)))
    assert not second["linear.bias"].any()
    averaged = model() | {"linear.weight": np.ones((4, 6)), "linear.bias": np.full(4, 1e-9)}
    accepted = arrays_of(grid.accept(record(averaged)))
    assert (accepted["linear.weight"].max(), accepted["linear.bias"].max()) == (1.0, 0.0)


def test_a_reply_that_would_take_a_local_tensor_along_is_stopped():
    def twice(content, partition):
        return RecordDict({**content, "more": record({"linear.bias": np.ones(4, np.float32)})})

    with pytest.raises(LayoutError, match=r"holds the local tensor 'linear.*' in a form"):
        Watched(app(mod(), answer=twice), 1).send_and_receive([request()])
    message = request()
    message.content["more"] = record(model())
    with pytest.raises(LayoutError, match="local tensor"):
        Watched(app(mod()), 1).send_and_receive([message])


def test_a_pattern_that_fits_nothing_is_an_error_that_says_so():
    with pytest.raises(LayoutError, match=r"local='head\.\*' matches no tensor"):
        Watched(app(Sparsify(DEVICE, Dense(), None, local=["head.*"])), 1).send_and_receive([request()])


def test_own_values_of_another_shape_are_an_error_that_says_so():
    inner = Watched(app(mod()), 1)
    inner.send_and_receive([request()])
    with pytest.raises(StateError, match=r"own 'linear.bias' has float32\(4,\), but the model has float32\(5,\)"):
        inner.send_and_receive([request(arrays=model() | {"linear.bias": np.zeros(5, np.float32)})])


@pytest.mark.parametrize("names", [["not there"], "linear.bias", [1, 2], ["linear.weight"]])
def test_forged_names_of_local_tensors_make_a_failure(names):
    inner = Watched(app(mod()), 1)
    inner.spoil = lambda replies: [reply.content["joulewise"].update({"local": names}) or reply for reply in replies]
    (reply,) = SparseGrid(inner).send_and_receive([request()])
    assert reply.has_error()


def test_names_with_the_signs_of_patterns_are_names():
    odd = {"a[0].weight": np.zeros((3, 3), np.float32), "a0.weight": np.zeros((3, 3), np.float32)}
    made = Sparsify(DEVICE, Dense(), None, local=["a[[]0].*"])
    (reply,) = SparseGrid(Watched(app(made), 1)).send_and_receive([request(arrays=odd)])
    assert wire.only_arrays(reply.content).keys() == odd.keys()


@pytest.mark.parametrize(("change", "says"), [
    (lambda array: array.astype(np.float64), None),
    (lambda array: array[:2], "as float32"),
    (lambda array: array * np.float32(np.nan), "NaN or infinity"),
], ids=["float64", "shape", "nan"])  # fmt: skip
def test_a_local_tensor_is_kept_in_the_models_type_or_refused_before_anything_is_stored(change, says, caplog):
    def answer(content, partition):
        arrays = arrays_of(content["arrays"])
        arrays["linear.bias"] = change(arrays["linear.bias"])
        content["arrays"] = record(arrays)
        return content

    store = MemoryStore()
    mod = Sparsify(DEVICE, TopK(), Count(5), local=["linear.bias"], store=store)
    inner = InProcessGrid(app(mod, answer=answer), 1, raising=False)
    result = Sparse(averaging()).start(inner, record(model()), num_rounds=2)
    metrics = [
        result.train_metrics_clientapp[number]["joulewise.failures"]
        for number in sorted(result.train_metrics_clientapp)
    ]
    if says is None:
        assert metrics == [0, 0]
        assert all(state.local["linear.bias"].dtype == np.float32 for state in store.states.values())
    else:
        assert says in caplog.text
        assert not store.states
