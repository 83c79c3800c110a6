"""Every strategy, wrapper and mod of Flower with joulewise: works, warned about, or refused in words that say why."""

import inspect
import warnings
from pathlib import Path

import numpy as np
import pytest
from flwr.app import ConfigRecord, RecordDict
from flwr.clientapp.mod import LocalDpMod, adaptiveclipping_mod, arrays_size_mod, fixedclipping_mod, message_size_mod
from flwr.serverapp import strategy as strategies
from toy_federation import DEVICE, PARAMETERS, Watched, app, arrays_of, averaging, flat, model, record, request, update

from joulewise.codec import decode
from joulewise.compress import ErrorFeedback
from joulewise.errors import FederationError, RuleError
from joulewise.flower import MemoryStore, Sparse, SparseGrid, Sparsify
from joulewise.layout import Layout
from joulewise.rules import Count, Dense, RandomK, TopK

NODES = 7
FLOATS = {name: array for name, array in model().items() if array.dtype == np.float32}
WEIGHTS = {name: array for name, array in model().items() if name in PARAMETERS}
LAYOUT = Layout.of(FLOATS)

SAME = "the same bits as without joulewise, when everything is sent; works with feedback"
WARNED = "the same bits, but warned about, and refused with feedback"
TREES = "refused: trees"
OUTCOMES = {
    "FedAvg": (SAME, {}),
    "FedProx": (SAME, {"proximal_mu": 0.1}),
    "FedAdam": (SAME, {}),
    "FedYogi": (SAME, {}),
    "FedAdagrad": (SAME, {}),
    "FedAvgM": (SAME, {"server_momentum": 0.5}),
    "QFedAvg": (SAME, {"client_learning_rate": 0.1}),
    "FedMedian": (WARNED, {}),
    "FedTrimmedAvg": (WARNED, {}),
    "Krum": (WARNED, {"num_malicious_nodes": 1}),
    "MultiKrum": (WARNED, {"num_malicious_nodes": 1}),
    "Bulyan": (WARNED, {"num_malicious_nodes": 1}),
    "FedXgbBagging": (TREES, {}),
    "FedXgbCyclic": (TREES, {}),
    "DifferentialPrivacyServerSideFixedClipping": (SAME, (0.0, 0.5, NODES)),
    "DifferentialPrivacyServerSideAdaptiveClipping": (SAME, (0.0, NODES)),
    "DifferentialPrivacyClientSideFixedClipping": (SAME, (0.0, 0.5, NODES)),
    "DifferentialPrivacyClientSideAdaptiveClipping": (SAME, (0.0, NODES)),
}
CLIPPING = {
    "DifferentialPrivacyClientSideFixedClipping": fixedclipping_mod,
    "DifferentialPrivacyClientSideAdaptiveClipping": adaptiveclipping_mod,
}


def made(name):
    _, options = OUTCOMES[name]
    if isinstance(options, tuple):
        return getattr(strategies, name)(averaging(), *options)
    taken = inspect.signature(getattr(strategies, name)).parameters
    kind = getattr(strategies, name)
    return averaging(kind, **options) if "min_train_nodes" in taken else kind()


def wrapped(name):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        return Sparse(made(name))


def in_order(replies):
    return sorted(replies, key=lambda reply: reply.metadata.src_node_id)


def trained(strategy, *mods, rounds=2):
    def answer(content, partition):
        content["metrics"]["train_loss"] = 1.0 + partition
        return content

    # Sums of floats depend on their order; joulewise's is that of the partitions.
    inner = Watched(app(*mods, answer=answer), NODES, raising=False, spoil=in_order)
    result = strategy.start(inner, record(FLOATS), num_rounds=rounds)
    return result, inner


def everything(*after):
    return (Sparsify(DEVICE, Dense(), None), *after)


def test_every_strategy_of_flower_has_an_outcome():
    assert set(OUTCOMES) == set(strategies.__all__) - {"Strategy", "Result"}


@pytest.mark.filterwarnings("ignore:.*encountered in:RuntimeWarning")
@pytest.mark.parametrize("name", [name for name, (outcome, _) in OUTCOMES.items() if outcome != TREES])
def test_with_everything_sent_each_strategy_gives_the_bits_that_it_gives_without(name):
    after = [CLIPPING[name]] if name in CLIPPING else []
    plain, _ = trained(made(name), *after, rounds=1)
    sparse, inner = trained(wrapped(name), *everything(*after), rounds=1)
    assert len(inner.crossed) == NODES
    for key, wanted in arrays_of(plain.arrays).items():
        array = wanted.astype(np.float32)  # what some strategies make float64 of, joulewise puts back
        exact = name not in CLIPPING  # base + (clipped - base) is rounded once more than clipped
        assert np.allclose(arrays_of(sparse.arrays)[key], array, rtol=0 if exact else 1e-6, atol=0 if exact else 1e-7)


@pytest.mark.filterwarnings("ignore:.*encountered in:RuntimeWarning")
@pytest.mark.parametrize("name", [name for name, (outcome, _) in OUTCOMES.items() if outcome == SAME])
def test_a_sparse_run_with_feedback_works_where_all_replies_are_averaged(name):
    mods = [
        Sparsify(DEVICE, TopK(), Count(9), feedback=ErrorFeedback()),
        *([CLIPPING[name]] if name in CLIPPING else []),
    ]
    result, inner = trained(wrapped(name), *mods, rounds=3)
    assert len(inner.crossed) == 3 * NODES
    assert np.isfinite(flat(arrays_of(result.arrays))).all()
    assert flat(arrays_of(result.arrays)).any()


@pytest.mark.parametrize("name", [name for name, (outcome, _) in OUTCOMES.items() if outcome == WARNED])
def test_a_strategy_that_chooses_among_replies_is_warned_about_and_refused_with_feedback(name):
    with pytest.warns(UserWarning, match=f"{name} does not average all replies"):
        strategy = Sparse(made(name))
    with pytest.raises(FederationError, match=f"{name} does not use all replies, so error feedback"):
        trained(strategy, Sparsify(DEVICE, TopK(), Count(9), feedback=ErrorFeedback()))


@pytest.mark.parametrize("name", [name for name, (outcome, _) in OUTCOMES.items() if outcome == TREES])
def test_strategies_for_trees_are_refused(name):
    with pytest.raises(FederationError, match=f"{name} joins trees"):
        Sparse(made(name))


# ---------------------------------------------------------------- differential privacy


def changes_of(replies, base=FLOATS):
    """The norm over all arrays of what each reply changes."""
    moved = ({n: a - base[n] for n, a in arrays_of(reply.content["arrays"]).items()} for reply in replies)
    return [np.sqrt(sum(np.square(a, dtype=np.float64).sum() for a in each.values())) for each in moved]


class Seen(strategies.FedAvg):
    """Notes the norm of what reaches the average."""

    def aggregate_train(self, server_round, replies):
        replies = list(replies)
        self.norms = changes_of([reply for reply in replies if not reply.has_error()])
        return super().aggregate_train(server_round, replies)


@pytest.mark.parametrize("feedback", [None, ErrorFeedback()])
def test_clipping_at_the_server_acts_on_the_decoded_update(feedback):
    inner = averaging(Seen)
    wrapper = strategies.DifferentialPrivacyServerSideFixedClipping(inner, 0.0, 0.5, NODES)
    _, crossed = trained(Sparse(wrapper), Sparsify(DEVICE, TopK(), Count(9), feedback=feedback), rounds=1)
    sent = [np.linalg.norm(decode(payload, LAYOUT).dense()) for _, payload, _ in crossed.crossed]
    assert min(sent) > 0.5
    assert inner.norms == pytest.approx([0.5] * NODES, rel=1e-5)


@pytest.mark.parametrize("values", ["float32", "float16", "bfloat16", "int8"])
@pytest.mark.parametrize(("rule", "feedback"), [(TopK(), ErrorFeedback()), (TopK(), None), (RandomK(scale=True), None)])
def test_what_a_client_sends_after_clipping_never_has_more_than_the_norm(rule, feedback, values):
    norm, store = 0.5, MemoryStore()
    mod = Sparsify(DEVICE, rule, Count(7), values, feedback, store=store)
    inner = Watched(app(mod, fixedclipping_mod), 2)
    grid, waits = SparseGrid(inner), []
    for number in range(1, 9):
        config = {"config": ConfigRecord({"server-round": number, "clipping_norm": norm})}
        replies = grid.send_and_receive([request(node, number, WEIGHTS, config=config) for node in (1, 2)])
        assert max(changes_of(replies, WEIGHTS)) <= norm * (1 + 1e-6)
        grid.accept(record(WEIGHTS))
        waits.append(max(np.linalg.norm(state.residual) for state in store.states.values()) if feedback else 0)
    if feedback:
        assert max(waits) > norm  # What waits alone is more: without the second clip it would have been sent.


def test_what_clipping_takes_away_waits_with_the_rest():
    store = MemoryStore()
    mod = Sparsify(DEVICE, TopK(), Count(20), feedback=ErrorFeedback(), store=store)
    grid, applied, clipped = SparseGrid(Watched(app(mod, fixedclipping_mod), 1)), 0, 0
    for number in range(1, 6):
        config = {"config": ConfigRecord({"server-round": number, "clipping_norm": 0.5})}
        (reply,) = grid.send_and_receive([request(1, number, WEIGHTS, config=config)])
        applied = applied + flat(arrays_of(reply.content["arrays"]))
        whole = update(number, 0, WEIGHTS)
        clipped = clipped + whole * min(1, 0.5 / np.linalg.norm(whole))
        grid.accept(record(WEIGHTS))
        assert np.allclose(applied + store.states[1, 1].residual, clipped, atol=1e-5)


def test_buffers_use_up_their_part_of_the_norm():
    mod = Sparsify(DEVICE, RandomK(scale=True), Count(7))
    config = {"config": ConfigRecord({"server-round": 1, "clipping_norm": 0.5})}
    inner = Watched(app(mod, fixedclipping_mod), 1)
    (reply,) = SparseGrid(inner).send_and_receive([request(1, 1, FLOATS, config=config)])
    assert np.abs(arrays_of(reply.content["arrays"])["bn.running_mean"]).sum() > 0
    assert changes_of([reply])[0] <= 0.5 * (1 + 1e-6)


LOCAL_DP = LocalDpMod(1.0, 0.001, 1.0, 1e-5)


def test_local_noise_before_compression_is_fine_and_noise_that_would_be_carried_is_refused():
    _, inner = trained(Sparse(averaging()), *everything(LOCAL_DP), rounds=1)
    assert len(inner.crossed) == NODES
    mod = Sparsify(DEVICE, TopK(), Count(9), feedback=ErrorFeedback())
    for mods in ([mod, LOCAL_DP], [mod, message_size_mod, LOCAL_DP]):
        with pytest.raises(RuleError, match="error feedback would carry the noise"):
            Watched(app(*mods), 1).send_and_receive([request(arrays=FLOATS)])


@pytest.mark.parametrize("mod", [fixedclipping_mod, adaptiveclipping_mod, LOCAL_DP])
def test_the_wrong_order_of_mods_stops_no_run_and_the_log_says_what_to_do(mod, caplog):
    strategy = averaging()
    config = ConfigRecord({"clipping_norm": 0.5})
    grid = Watched(app(mod, *everything()), 2)
    result = Sparse(strategy).start(grid, record(FLOATS), num_rounds=2, train_config=config)
    assert not result.arrays
    assert len([entry for entry in caplog.records if entry.name == "joulewise"]) == 4
    assert caplog.text.count("Put Sparsify first in the list of mods: it has to see the reply last") == 4


@pytest.mark.parametrize("mod", [message_size_mod, arrays_size_mod])
@pytest.mark.parametrize("first", [True, False])
def test_mods_that_measure_messages_may_stand_anywhere(mod, first):
    mods = [*everything(), mod] if first else [mod, *everything()]
    grid = SparseGrid(Watched(app(*mods), 1))
    (reply,) = grid.send_and_receive([request(arrays=FLOATS)])
    assert np.array_equal(flat(arrays_of(reply.content["arrays"])), update(1, 0, FLOATS))


@pytest.mark.parametrize("stage", ["setup", "collect_masked_vectors"])
def test_secure_aggregation_is_refused(stage):
    message = request(arrays=FLOATS)
    message.content["secaggplus_configs"] = ConfigRecord({"stage": stage})
    with pytest.raises(RuleError, match="masks that cancel out only in a sum over the same coordinates"):
        Watched(app(*everything()), 1).send_and_receive([message])
    mods = pytest.importorskip("flwr.client.mod", reason="Flower keeps its secure aggregation elsewhere")
    if stage == "collect_masked_vectors":
        return
    with pytest.raises(RuleError, match="secure aggregation"):
        Watched(app(*everything(mods.secaggplus_mod)), 1).send_and_receive([message])


# ---------------------------------------------------------------- odd models and fleets


@pytest.mark.parametrize(
    "arrays",
    [
        {},
        {"steps": np.array(4, np.int64)},
        {"scale": np.array(0.5, np.float32), "w": np.ones((2, 2), np.float32)},
        {"none": np.zeros((0, 3), np.float32), "w": np.ones(3, np.float32)},
        {"mask": np.array([True, False]), "w": np.ones(3, np.float16)},
    ],
    ids=["empty", "no parameters", "0-d", "empty tensor", "truth values"],
)
def test_odd_models_go_through(arrays):
    def kept(content, partition):
        own = {
            name: array + np.ones((), array.dtype) if array.dtype != bool else ~array for name, array in arrays.items()
        }
        content["arrays"] = record({name: np.asarray(array, arrays[name].dtype) for name, array in own.items()})
        return content

    client_app = app(*everything(), answer=kept)
    (reply,) = SparseGrid(Watched(client_app, 1)).send_and_receive([request(arrays=arrays)])
    wanted = kept(RecordDict(), 0)["arrays"]
    assert {name: array.tolist() for name, array in arrays_of(reply.content["arrays"]).items()} == {
        name: array.tolist() for name, array in arrays_of(wanted).items()
    }


def test_nodes_with_and_without_the_mod_are_averaged_together():
    mod = Sparsify(DEVICE, TopK(), Count(LAYOUT.n), feedback=ErrorFeedback())

    def some(message, context, call_next):
        return (mod if context.node_config["partition-id"] % 2 else call_last)(message, context, call_next)

    def call_last(message, context, call_next):
        return call_next(message, context)

    result, inner = trained(Sparse(averaging()), some)
    assert len(inner.crossed) == 2 * (NODES // 2)
    wanted = sum(update(number, partition, FLOATS) for number in (1, 2) for partition in range(NODES)) / NODES
    assert np.allclose(flat(arrays_of(result.arrays)), wanted, atol=1e-6)
    assert set(PARAMETERS) < set(result.arrays)


def test_the_documentation_names_every_strategy():
    text = (Path(__file__).parents[1] / "docs/flower.md").read_text(encoding="utf-8")
    assert [name for name in OUTCOMES if name not in text] == []
