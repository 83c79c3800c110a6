"""The two added lines of a Flower app: what the mod sends, what it leaves alone, what a server sees of it."""

from importlib import resources

import numpy as np
import pytest
from flwr.app import ArrayRecord, ConfigRecord, Context, MetricRecord, RecordDict
from flwr.serverapp.strategy import FedAdagrad, FedAdam, FedAvg, FedAvgM, FedProx, FedYogi
from toy_federation import (
    DEVICE,
    PARAMETERS,
    Watched,
    app,
    arrays_of,
    averaging,
    change,
    flat,
    model,
    payloads,
    record,
    request,
    update,
)

from joulewise.codec import decode
from joulewise.compress import ClientState, ErrorFeedback
from joulewise.devices import load_device
from joulewise.errors import LayoutError, ProfileError, RuleError, StateError, UpdateError
from joulewise.flower import ContextStore, MemoryStore, Sparse, SparseGrid, Sparsify, wire
from joulewise.flower.inprocess import InProcessGrid
from joulewise.flower.notes import ACCEPTED
from joulewise.layout import Layout
from joulewise.marginal import marginal_prices
from joulewise.prices import price
from joulewise.rules import CWMP, Count, Dense, Density, Joules, RandomK, TopK

AVERAGING = [FedAvg, FedAvgM, FedProx, FedAdam, FedYogi, FedAdagrad]


def dense(**options):
    return Sparsify(DEVICE, Dense(), None, **options)


def run(client_app, nodes=4, rounds=3, strategy=None, arrays=None):
    start = record(model() if arrays is None else arrays)
    return Sparse(strategy or averaging()).start(InProcessGrid(client_app, nodes), start, num_rounds=rounds)


def app_metrics(metrics):
    return {name: value for name, value in metrics.items() if not name.startswith("joulewise.")}


# ---------------------------------------------------------------- what comes out


def test_with_everything_sent_the_result_is_the_average_of_what_was_trained():
    result = arrays_of(run(app(dense()), nodes=4, rounds=3).arrays)
    for name in PARAMETERS:
        shape = model()[name].shape
        added = [change(number, partition, shape) for number in (1, 2, 3) for partition in range(4)]
        assert np.array_equal(result[name], sum(added) / 4)


def test_what_was_not_sent_never_reaches_the_model():
    client_app = app(Sparsify(DEVICE, TopK(), Count(5)))
    result = arrays_of(run(client_app, nodes=1, rounds=1).arrays)
    wanted = update(1, 0)
    order = np.lexsort((np.arange(wanted.size), -abs(wanted)))
    wanted[order[5:]] = 0
    assert np.array_equal(flat(result), wanted)


def test_examples_weigh_the_average_as_without_compression():
    compressed = run(app(dense(), examples=lambda partition: 8 << partition)).arrays
    plain = averaging().start(
        InProcessGrid(app(examples=lambda partition: 8 << partition), 4), record(model()), num_rounds=3
    )
    for name, array in arrays_of(plain.arrays).items():
        assert np.allclose(arrays_of(compressed)[name], array, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("strategy", AVERAGING, ids=lambda strategy: strategy.__name__)
def test_every_averaging_strategy_gives_what_it_gives_without_compression(strategy):
    plain = averaging(strategy).start(InProcessGrid(app(), 4), record(model()), num_rounds=3)
    compressed = run(app(dense()), strategy=averaging(strategy))
    for name, array in arrays_of(plain.arrays).items():
        if name != "bn.num_batches_tracked":  # which the strategies alone turn into a float
            assert np.allclose(arrays_of(compressed.arrays)[name], array, rtol=1e-5, atol=1e-6), name


@pytest.mark.parametrize("strategy", AVERAGING, ids=lambda strategy: strategy.__name__)
def test_tensors_keep_their_element_types_over_rounds(strategy):
    half = {"half.weight": np.ones((3, 2), np.float16), "wide.weight": np.ones((3, 2), np.float64)}
    result = arrays_of(run(app(dense()), strategy=averaging(strategy), arrays=model(**half)).arrays)
    assert {name: array.dtype for name, array in result.items()} == {
        name: array.dtype for name, array in model(**half).items()
    }


def test_whole_numbers_are_counted_up_and_buffers_averaged():
    result = arrays_of(run(app(dense()), rounds=3).arrays)
    assert result["bn.num_batches_tracked"] == 3
    assert np.array_equal(result["bn.running_mean"], np.full(2, 3, np.float32))


def test_metrics_of_the_app_are_all_that_the_strategy_sees():
    def answer(content, partition):
        content["metrics"]["train-loss"] = float(partition)
        return content

    class Seeing(FedAvg):
        def aggregate_train(self, server_round, replies):
            seen.extend(set(record) for reply in replies for record in reply.content.values())
            return super().aggregate_train(server_round, replies)

    seen = []
    result = run(app(dense(), answer=answer), strategy=averaging(Seeing))
    assert app_metrics(result.train_metrics_clientapp[1]) == {"train-loss": 1.5}
    assert {name for names in seen for name in names} == {"train-loss", "num-examples", *model()}


def test_evaluation_is_left_as_it_is():
    strategy = averaging(fraction_evaluate=1.0, min_evaluate_nodes=1)
    plain = averaging(fraction_evaluate=1.0, min_evaluate_nodes=1).start(
        InProcessGrid(app(), 4), record(model()), num_rounds=2
    )
    result = run(app(dense()), rounds=2, strategy=strategy)
    found = {number: app_metrics(metrics) for number, metrics in result.evaluate_metrics_clientapp.items()}
    assert found == plain.evaluate_metrics_clientapp


# ---------------------------------------------------------------- fleets and servers that differ


def some_compress(partitions, mod):
    """Only some of a fleet have the mod."""

    def chosen(message, context, call_next):
        if context.node_config["partition-id"] in partitions:
            return mod(message, context, call_next)
        return call_next(message, context)

    return chosen


@pytest.mark.parametrize("partitions", [(), (0, 2), (3,)])
def test_a_fleet_in_which_some_do_not_compress_is_averaged(partitions):
    result = arrays_of(run(app(some_compress(partitions, dense()))).arrays)
    everyone = arrays_of(run(app(dense())).arrays)
    for name, array in everyone.items():
        assert np.array_equal(result[name], array), name
        assert result[name].dtype == array.dtype


def test_rounds_without_any_compressed_reply_do_not_change_the_model_that_clients_know():
    def only_later(message, context, call_next):
        mod = dense(feedback=ErrorFeedback(), store=store)
        return (mod if message.content["config"]["server-round"] > 2 else plain)(message, context, call_next)

    def plain(message, context, call_next):
        return call_next(message, context)

    store = MemoryStore()
    assert arrays_of(run(app(only_later), rounds=4).arrays)["bn.num_batches_tracked"] == 4
    assert {state.fingerprint for state in store.states.values()} == {Layout.of(model()).fingerprint}


def test_a_server_that_cannot_decode_stops_instead_of_averaging_bytes():
    with pytest.raises(TypeError, match=r"joulewise\.v1"):
        averaging().start(InProcessGrid(app(dense()), 2), record(model()), num_rounds=1)


def test_a_reply_with_two_array_records_passes_unchanged():
    def answer(content, partition):
        return RecordDict({**content, "more": ArrayRecord(dict(content["arrays"]))})

    (reply,) = InProcessGrid(app(dense(), answer=answer), 1).send_and_receive([request()])
    assert not payloads(reply)
    assert set(reply.content) == {"arrays", "more", "metrics"}


def test_a_request_with_two_array_records_passes_unchanged():
    message = request()
    message.content["more"] = record(model())
    (reply,) = InProcessGrid(app(dense()), 1).send_and_receive([message])
    assert not payloads(reply)


def test_a_mod_that_sees_the_payload_instead_of_the_arrays_is_stopped():
    with pytest.raises(LayoutError, match="same names"):
        InProcessGrid(app(dense(), dense()), 1).send_and_receive([request()])


def test_what_the_app_does_to_its_message_does_not_change_the_update():
    def vandal(message, context, call_next):
        reply = call_next(message, context)
        for array in message.content["arrays"].values():
            array.data = b""
        message.content["arrays"].clear()
        return reply

    grid = Watched(app(dense(), vandal), 2)
    message, other = request(1), request(2)
    other.content["arrays"] = message.content["arrays"]
    grid.send_and_receive([message, other])
    assert {name: array.shape for name, array in arrays_of(message.content["arrays"]).items()} == {
        name: array.shape for name, array in model().items()
    }
    for (_, payload, _), partition in zip(grid.crossed, (0, 1), strict=True):
        assert np.array_equal(decode(payload, Layout.of(model())).dense(), update(1, partition))


# ---------------------------------------------------------------- prices, randomness, errors


def test_each_partition_is_priced_on_its_own_device():
    def crossed(device, nodes):
        grid = Watched(app(Sparsify(device, CWMP(), Count(5))), 2)
        grid.send_and_receive([request(node) for node in nodes])
        return [payload for _, payload, _ in grid.crossed]

    kinds, residency = "synthetic-kind-10", "synthetic-residency-32"
    assert crossed(kinds, [2]) != crossed(residency, [2])
    assert crossed([kinds, residency], [1, 2]) == [*crossed(kinds, [1]), *crossed(residency, [2])]


def test_a_reply_carries_the_charges_of_the_whole_round(tmp_path):
    number = """
        [compute.{}]
        value = 2.0
        unit = "pJ"
        kind = "assumed"
        source = "a test"
        year = 2026
        """
    phone = resources.files("joulewise").joinpath("profiles/phone-lte-2021.toml").read_text(encoding="utf-8")
    path = tmp_path / "phone.toml"
    path.write_text(phone + "".join(map(number.format, ("add", "multiply", "training"))), encoding="utf-8")
    mod = Sparsify(str(path), TopK(), Count(5), feedback=ErrorFeedback(), multiply_accumulates=1000.0)
    (reply,) = InProcessGrid(app(mod, examples=lambda _: 7), 1).send_and_receive([request(1)])
    result = wire.read(reply.content).result
    found = {charge.term: charge for charge in result.charges}
    reply_terms = ["header", "kept", "whole", "fixed"]
    assert list(found) == [*reply_terms, "training", "selection", "residual", "downlink", "memory_update"]
    assert found["training"].energy == pytest.approx(7 * 1000 * 2e-12)
    assert sum(found[term].bytes for term in reply_terms) == result.bytes_up
    assert found["downlink"].bytes == result.bytes_down
    assert found["residual"].energy == pytest.approx(2 * found["selection"].energy)


def test_a_row_says_the_contrast_of_the_prices_that_its_update_was_chosen_by():
    def contrast(rule, device):
        (reply,) = InProcessGrid(app(Sparsify(device, rule, Density(0.3))), 1).send_and_receive([request()])
        return wire.read(reply.content).result.contrast

    layout = Layout.of(model())
    priced = marginal_prices(
        update(1, 0), price(layout, load_device("phone-lte-2021")), CWMP(), Density(0.3), "float32"
    )
    assert contrast(CWMP(), "phone-lte-2021") == pytest.approx(priced.contrast, rel=1e-6)
    assert priced.contrast > 1.01
    assert contrast(TopK(), "phone-lte-2021") == 1.0
    assert contrast(CWMP(), DEVICE) == price(layout, load_device(DEVICE)).contrast


def test_a_partition_without_a_device_is_an_error_that_says_so():
    with pytest.raises(ProfileError, match="partition-id 2"):
        InProcessGrid(app(Sparsify([DEVICE, DEVICE], Dense(), None)), 3).send_and_receive([request(3)])


def test_random_rules_draw_by_seed_round_and_partition():
    def crossed(seed, number, node):
        grid = Watched(app(Sparsify(DEVICE, RandomK(), Count(5), seed=seed)), 2)
        grid.send_and_receive([request(node, number)])
        return decode(grid.crossed[0][1], Layout.of(model())).selection.indices.tolist()

    assert crossed(0, 1, 1) == crossed(0, 1, 1)
    assert len({tuple(crossed(*key)) for key in ((0, 1, 1), (1, 1, 1), (0, 2, 1), (0, 1, 2))}) == 4


def test_an_update_with_nan_is_an_error_that_names_the_tensor_and_changes_no_state():
    store = MemoryStore()
    mod = Sparsify(DEVICE, TopK(), Count(5), feedback=ErrorFeedback(), store=store)
    broken = [False]

    def answer(content, partition):
        if broken[0]:
            bad = arrays_of(content["arrays"]) | {"linear.weight": np.full((4, 6), np.nan, np.float32)}
            content["arrays"] = record(bad)
        return content

    grid = InProcessGrid(app(mod, answer=answer), 1)
    grid.send_and_receive([request(number=1)])
    before = dict(store.states)
    broken[0] = True
    with pytest.raises(UpdateError, match=r"linear\.weight"):
        grid.send_and_receive([request(number=2)])
    assert all(store.states[key] is state for key, state in before.items())


def test_a_state_of_another_model_is_an_error_that_says_so():
    store = MemoryStore()
    mod = Sparsify(DEVICE, TopK(), Count(5), feedback=ErrorFeedback(), store=store)
    InProcessGrid(app(mod), 1).send_and_receive([request()])
    with pytest.raises(StateError, match="another model"):
        InProcessGrid(app(mod), 1).send_and_receive([request(arrays=model(more=np.zeros(3, np.float32)))])


def test_an_app_that_answers_with_other_tensors_is_an_error_that_names_them():
    def answer(content, partition):
        content["arrays"] = record({"other": np.zeros(3, np.float32)})
        return content

    with pytest.raises(LayoutError, match="other"):
        InProcessGrid(app(dense(), answer=answer), 1).send_and_receive([request()])


# ---------------------------------------------------------------- stores


def context(run_id=2**63 + 5, node_id=2**64 - 1):
    return Context(run_id=run_id, node_id=node_id, node_config={}, state=RecordDict(), run_config={})


@pytest.mark.parametrize("residual", [None, np.array([1.5, -0.0, 2**-149], np.float32)])
@pytest.mark.parametrize("pending", [None, b"", b"\x00\xffpayload"])
def test_flowers_context_gives_back_the_state_that_it_was_given(residual, pending):
    store, where = ContextStore(), context()
    state = ClientState(residual, pending, sequence=7, run_id=where.run_id, fingerprint=2**64 - 1)
    store.save(where, state)
    found = store.load(where)
    assert (found.pending, found.sequence, found.run_id, found.fingerprint) == (
        pending,
        7,
        where.run_id,
        2**64 - 1,
    )
    if residual is None:
        assert found.residual is None
    else:
        assert found.residual.tobytes() == residual.tobytes()


def test_a_state_of_another_run_is_not_taken_up():
    store, where = ContextStore(), context()
    store.save(where, ClientState(sequence=1, run_id=where.run_id))
    other = context(run_id=3)
    other.state = where.state
    assert store.load(other) is None


def test_both_stores_give_the_same_bits():
    def crossed(store):
        mod = Sparsify(DEVICE, TopK(), Density(0.2), feedback=ErrorFeedback(), store=store)
        grid = Watched(app(mod), 2)
        result = Sparse(averaging()).start(grid, record(model()), num_rounds=4)
        return grid.crossed, {name: array.tobytes() for name, array in arrays_of(result.arrays).items()}

    first, second = crossed(MemoryStore()), crossed(ContextStore())
    assert sorted(first[0]) == sorted(second[0])
    assert first[1] == second[1]


def test_configuration_of_two_records_still_says_what_was_accepted():
    store = MemoryStore()
    mod = Sparsify(DEVICE, TopK(), Count(5), feedback=ErrorFeedback(), store=store)
    grid = InProcessGrid(app(mod), 1)
    grid.send_and_receive([request(number=1)])
    kept = store.states[1, 1].residual.copy()
    config = {"config": ConfigRecord({"server-round": 2}), "more": ConfigRecord({"x": 1})}
    config["more"]["joulewise.accepted-sequence"] = 1
    (reply,) = grid.send_and_receive([request(number=2, config=config)])
    sent = decode(payloads(reply)[0].data, Layout.of(model())).dense()
    assert np.array_equal(sent + store.states[1, 1].residual, update(2, 0) + kept)


@pytest.mark.parametrize("config", [{}, {"a": {"lr": 0.5, "server-round": 2}, "b": {}}])
def test_an_app_finds_its_configuration_as_its_strategy_wrote_it(config):
    def seeing(message, context, call_next):
        seen.append({key: dict(own) for key, own in message.content.config_records.items()})
        return call_next(message, context)

    seen, inner = [], Watched(app(dense(), seeing), 1)
    grid = SparseGrid(inner)
    for _ in range(3):
        grid.send_and_receive([request(config={key: ConfigRecord(own) for key, own in config.items()})])
        grid.accept(record(model()))
    assert ACCEPTED in next(iter(inner.requests[-1][0].content.config_records.values()))
    assert seen == [config] * 3


def test_metrics_that_are_not_numbers_are_no_losses():
    def answer(content, partition):
        content["metrics"] = MetricRecord({"num-examples": 8, "train-loss": [1.0, 2.0]})
        return content

    (reply,) = InProcessGrid(app(dense(), answer=answer), 1).send_and_receive([request()])
    assert payloads(reply)


def test_a_budget_for_clients_that_leave_replies_out_is_refused_because_flowers_always_reply():
    with pytest.raises(RuleError, match="a Flower client always replies; use"):
        Sparsify("phone-lte-2021", budget=Joules(20.0, includes_fixed=True))
