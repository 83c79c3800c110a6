"""EF21 at the server: its estimate is the weighted mean of those of its nodes, whatever becomes of their replies."""

import tempfile

import numpy as np
import pytest
from flwr.app import ArrayRecord
from flwr.clientapp.mod import LocalDpMod, fixedclipping_mod
from flwr.serverapp import strategy as strategies
from hypothesis import example, given, settings
from hypothesis import strategies as st
from studies_of_flower import arm, bits, model_of
from test_flower_grid import CLIENTS, FATES, LAYOUT, Unreliable
from test_flower_resume import OPTIONS, resumed_equals_never_stopped, through_a_file
from toy_federation import (
    DEVICE,
    Watched,
    app,
    arrays_of,
    averaging,
    flat,
    model,
    record,
    request,
    update,
)

from joulewise.compress import EF21, Compressor, ErrorFeedback, settle
from joulewise.errors import FederationError, PayloadError, RuleError, StateError
from joulewise.flower import (
    EqualCount,
    EqualJoules,
    FileStore,
    Lossy,
    MemoryStore,
    OnePrice,
    Sparse,
    SparseGrid,
    Sparsify,
    wire,
)
from joulewise.flower.app import federate
from joulewise.flower.checked import Expected
from joulewise.flower.estimate import Coming, Estimate
from joulewise.layout import Layout
from joulewise.rules import CWMP, Count, Density, TopK
from joulewise.select import Selection

WEIGHTS = (8, 3, 5)


def estimating(store=None, count=5, **further):
    return Sparsify(DEVICE, TopK(), Count(count), feedback=EF21(), store=store, **further)


def examples(partition):
    return WEIGHTS[partition % 3]


def made(store=None, count=5, weigh=examples, **further):
    return app(estimating(store, count, **further), examples=weigh)


def total_of(states, accepted, weights=WEIGHTS):
    """``sum(w g)`` by what the nodes themselves remember."""
    total = np.zeros(LAYOUT.n)
    for node, state in states.items():
        settled, _ = settle(state, accepted.get(node), LAYOUT)
        total -= 0 if settled.residual is None else weights[node - 1] * settled.residual.astype(np.float64)
    return total


def states_of(store):
    return {node: state for (_, node), state in store.states.items()}


# ---------------------------------------------------------------- the invariant


def check_history(make_app, states, fates):
    inner = Unreliable(make_app, CLIENTS)
    grid, heard = SparseGrid(inner), set()
    for number, fate in enumerate(fates, start=1):
        inner.fate, inner.crossed = fate, []
        replies = grid.send_and_receive([request(node + 1, number) for node in sorted(fate["asked"])])
        used = {reply.metadata.src_node_id for reply in replies if not reply.has_error()}
        assert used == {node + 1 for node in fate["asked"] - fate["unheard"] - fate["lost"] - fate["corrupt"]}
        if fate["aggregated"] and used:
            aggregated, _ = averaging().aggregate_train(number, replies)
            moved = grid.accept(aggregated, averaged=True)
            heard |= used
            mean = grid.estimate.mean()
            assert np.array_equal(flat(arrays_of(moved)), mean.astype(np.float32))  # The model before is 0.
        total = np.zeros(LAYOUT.n) if grid.estimate.total is None else grid.estimate.total
        assert np.array_equal(total, total_of(states(), grid.accepted))
        assert grid.estimate.weights == {node: WEIGHTS[node - 1] for node in heard}


def fate(*asked, aggregated=True, **what):
    nobody = {"unheard": set(), "lost": set(), "corrupt": set(), "restarted": set()}
    return nobody | what | {"asked": set(asked), "aggregated": aggregated}


@given(FATES, st.integers(0, 30))
@example([fate(0, aggregated=False), fate(1), fate(0, 2)], 5)  # A round that came to nothing.
@example([fate(0, 1), fate(0, 1, 2, lost={1}), fate(1, 2, corrupt={2}), fate(0, 1, 2)], 5)
@example([fate(0, 1, 2), fate(0, unheard={0}), fate(0, 1, aggregated=False), fate(0, 1, restarted={0, 1})], 5)
@settings(max_examples=40, deadline=None)
def test_the_estimate_is_that_of_the_nodes_whatever_gets_lost(fates, count):
    store = MemoryStore()
    check_history(lambda: made(store, count), lambda: states_of(store), fates)


@given(FATES, st.integers(0, 30))
@settings(max_examples=10, deadline=None)
def test_files_keep_the_estimates_of_nodes_that_are_restarted(fates, count):
    with tempfile.TemporaryDirectory() as folder:
        contexts = Watched(app(), CLIENTS)._contexts

        def states():
            found = {node: FileStore(folder).load(context) for node, context in contexts.items()}
            return {node: state for node, state in found.items() if state is not None}

        check_history(lambda: made(FileStore(folder), count), states, fates)


# ---------------------------------------------------------------- models


def by_the_paper(rounds, k, present=lambda number: range(3)):
    """The model after each round, in NumPy: clients compute in float32, the server in float64."""
    x, g, total = np.zeros(LAYOUT.n, np.float32), np.zeros((3, LAYOUT.n), np.float32), np.zeros(LAYOUT.n)
    seen, models = set(), []
    for number in range(1, rounds + 1):
        for i in present(number):
            c = ((x + update(number, i)) - x) - g[i]
            c[np.lexsort((np.arange(c.size), -np.abs(c)))[k:]] = 0
            g[i] += c
            total += WEIGHTS[i] * c.astype(np.float64)
            seen.add(i)
        x = (x + total / sum(WEIGHTS[i] for i in seen)).astype(np.float32)
        models.append(x)
    return models


@pytest.mark.parametrize("downlink", ["off", "lossless"])
@pytest.mark.parametrize("count", [1, 5, 46])
def test_the_model_moves_by_the_mean_of_all_estimates(count, downlink):
    strategy = Sparse(averaging(), downlink=downlink)
    result = strategy.start(Watched(made(MemoryStore(), count), 3), record(model()), num_rounds=5)
    assert np.array_equal(flat(arrays_of(result.arrays)), by_the_paper(5, count)[-1])
    assert arrays_of(result.arrays)["bn.num_batches_tracked"] == 5


def rounds_of(grid, present, rounds, calls=lambda nodes: [nodes]):
    """A loop of one's own, with the nodes of each round in one call or several."""
    arrays, models = record(model()), []
    for number in range(1, rounds + 1):
        replies = []
        for nodes in calls([partition + 1 for partition in present(number)]):
            requests = [request(node, number) for node in nodes]
            for each in requests:
                each.content["arrays"] = arrays
            replies += grid.send_and_receive(requests)
        aggregated, _ = averaging().aggregate_train(number, replies)
        arrays = grid.accept(aggregated, averaged=True)
        models.append(flat(arrays_of(arrays)))
    return models


def some(number):
    return [[0], [2], [1, 2], [0, 1], [1], [0, 1, 2]][(number - 1) % 6]


def test_nodes_that_are_absent_keep_their_part():
    store = MemoryStore()
    grid = SparseGrid(Watched(made(store), 3))
    found = rounds_of(grid, some, 12)
    assert all(map(np.array_equal, found, by_the_paper(12, 5, some)))
    # These models are no dyadic numbers, so that clients round once in each of their rounds, and the server hardly.
    apart = np.abs(grid.estimate.total - total_of(states_of(store), grid.accepted))
    assert apart.max() <= 12 * 2.0**-23 * sum(WEIGHTS)


def test_a_round_in_several_calls_is_the_same():
    found = rounds_of(SparseGrid(Watched(made(MemoryStore()), 3)), some, 12, lambda nodes: [[node] for node in nodes])
    assert all(map(np.array_equal, found, by_the_paper(12, 5, some)))


def test_sums_are_in_the_order_of_partitions_where_that_changes_them():
    layout, totals = Layout.single(1), []
    for order in ((0, 1, 2), (0, 2, 1), (2, 0, 1)):
        coming = Coming(Estimate(), layout)
        for partition in order:
            value = np.array([(1e16, 1.0, -1e16)[partition]], np.float32)
            chosen = Selection(1, np.zeros(1, np.uint32), value, 0.0, None, 0.0)
            coming.add(partition + 1, partition, 1.0, chosen)
        totals += coming.after().total.tolist()
    assert totals[0] == 0.0  # (1e16 + 1) - 1e16: the 1 is lost, as it is not in other orders.
    assert len(set(totals)) == 1


def test_the_order_of_replies_changes_no_bit():
    found = []
    for turn in (1, -1):
        inner = Watched(made(MemoryStore()), 3, spoil=lambda replies, turn=turn: replies[::turn])
        grid = SparseGrid(inner)
        found.append([*rounds_of(grid, lambda _: range(3), 4), grid.estimate.total])
    assert all(one.tobytes() == other.tobytes() for one, other in zip(*found, strict=True))


def test_with_everything_sent_it_is_plain_averaging():
    plain = app(Sparsify(DEVICE, TopK(), Count(LAYOUT.n)), examples=examples)
    models = [
        flat(arrays_of(Sparse(averaging()).start(Watched(each, 3), record(model()), num_rounds=6).arrays))
        for each in (made(MemoryStore(), LAYOUT.n), plain)
    ]
    # Each of six rounds rounds the model once here, and once for each of three replies there.
    assert np.abs(models[0] - models[1]).max() <= 6 * 4 * 2.0**-24 * np.abs(models).max()


def test_a_coordinate_that_nobody_has_sent_keeps_its_bits():
    before = model(**{"linear.bias": np.full(4, -0.0, np.float32)})
    inner = Watched(app(estimating(MemoryStore(), 0)), 2)
    result = Sparse(averaging()).start(inner, record(before), num_rounds=2)
    assert arrays_of(result.arrays)["linear.bias"].tobytes() == before["linear.bias"].tobytes()


@pytest.mark.parametrize("name", ["FedAvgM", "FedAdam", "FedYogi", "FedAdagrad"])
def test_optimizers_of_the_server_see_the_mean_estimate(name):
    options = OPTIONS[name]
    inner = Watched(made(MemoryStore()), 3)
    found = Sparse(averaging(getattr(strategies, name), **options)).start(inner, record(model()), num_rounds=3)
    wanted, x = averaging(getattr(strategies, name), **options), record(model())
    g = np.zeros((3, LAYOUT.n))
    for number in (1, 2, 3):
        for i in range(3):
            c = update(number, i) - g[i]
            kept = np.lexsort((np.arange(c.size), -np.abs(c)))[:5]
            g[i, kept] += c[kept]
        mean = (np.array(WEIGHTS) @ g / sum(WEIGHTS)).astype(np.float32)
        (asked,) = wanted.configure_train(number, x, request().content["config"], Watched(app(), 1))
        (reply,) = Watched(app(), 1).send_and_receive([asked])
        moved = arrays_of(x) | LAYOUT.split(LAYOUT.flatten(arrays_of(x)) + mean)
        reply.content["arrays"] = record(moved)
        x, _ = wanted.aggregate_train(number, [reply])
    assert np.allclose(flat(arrays_of(found.arrays)), flat(arrays_of(x)), atol=1e-5)
    assert not np.allclose(flat(arrays_of(found.arrays)), 0, atol=1e-3)


def test_a_second_strategy_on_the_same_grid_goes_on_where_the_first_ended():
    store = MemoryStore()
    inner = Watched(made(store), 3)
    arrays = record(model())
    for rounds in (2, 3):
        arrays = Sparse(averaging()).start(inner, arrays, num_rounds=rounds).arrays
    grid = SparseGrid(inner)
    assert np.array_equal(grid.estimate.total, total_of(states_of(store), grid.accepted))


def test_two_strategies_at_once_on_the_same_grid_lose_nothing_of_each_other():
    store = MemoryStore()
    inner = Watched(made(store), 3)
    grids = [SparseGrid(inner), SparseGrid(inner)]
    for number in (1, 2):
        seen = [
            grid.send_and_receive([request(node, number)])[0].content["arrays"]
            for node, grid in enumerate(grids, start=1)
        ]
        before = [flat(arrays_of(each)) for each in seen]
        for grid in grids:
            grid.accept(record(model()))
        assert np.array_equal(grids[0].estimate.total, total_of(states_of(store), grids[0].accepted))
        assert not np.array_equal(before[1], flat(arrays_of(seen[1])))  # The first one's replies are in it too.
        assert np.array_equal(flat(arrays_of(seen[1])), grids[0].estimate.mean().astype(np.float32))


def test_allocations_of_the_uplink_work():
    ascent = OnePrice(share=0.2, control="ascent")
    for allocation in (EqualCount(0.2), EqualJoules(share=0.2), OnePrice(share=0.2), ascent):
        store = MemoryStore()
        inner = Watched(app(Sparsify(DEVICE, CWMP(), Density(0.1), feedback=EF21(), store=store), examples=examples), 3)
        grid = SparseGrid(inner, allocation=allocation)
        rounds_of(grid, lambda _: range(3), 4)
        total = total_of(states_of(store), grid.accepted)
        assert np.array_equal(grid.estimate.total, total)
        assert total.any()


# ---------------------------------------------------------------- studies

SPARSE = Compressor(TopK(), Density(0.05), feedback=EF21())


@pytest.mark.parametrize("strategy", ["FedAvg", "FedAdam"])
def test_a_study_goes_on_from_a_checkpoint_with_the_same_bits(strategy, tmp_path):
    which = arm(SPARSE, rounds=5, strategy=strategy, clients=5, fraction_train=0.6, **OPTIONS[strategy])
    resumed_equals_never_stopped(which, tmp_path)


def test_a_checkpoint_without_the_estimate_is_not_enough(tmp_path):
    which = arm(SPARSE, rounds=4)
    whole = list(federate(which, 4))
    checkpoint = through_a_file(whole[1].checkpoint, tmp_path)
    torn = {name: array for name, array in checkpoint.items() if not name.startswith("estimate/")}
    with pytest.raises(FederationError, match="of EF21, but other replies of this run are not, or the server has lost"):
        list(federate(which, 4, resume=torn))
    torn = {name: array for name, array in checkpoint.items() if not name.startswith("accepted/")}
    with pytest.raises(StateError, match="one of them has lost its state"):
        list(federate(which, 4, resume=torn))


def test_a_study_differs_from_one_with_error_feedback_and_from_one_without():
    found = [
        model_of(list(federate(arm(Compressor(TopK(), Density(0.05), feedback=each), rounds=3), 0))[-1])
        for each in (EF21(), ErrorFeedback(), None)
    ]
    names = [name for name in found[0] if "weight" in name]
    for other in found[1:]:
        assert any(not np.array_equal(found[0][name], other[name]) for name in names)


def test_the_same_arm_and_seed_give_the_same_bits():
    assert bits(federate(arm(SPARSE, rounds=2), 3)) == bits(federate(arm(SPARSE, rounds=2), 3))


# ---------------------------------------------------------------- refusals


def reasons(replies):
    return [str(reply.error.reason) for reply in replies if reply.has_error()]


def refused(grid, nodes=(1,), number=1):
    return reasons(grid.send_and_receive([request(node, number) for node in nodes]))


def test_a_weight_that_changes_is_refused_and_named():
    store, weights = MemoryStore(), iter([8, 8, 9, 8])
    grid = SparseGrid(Watched(made(store, weigh=lambda _: next(weights)), 1))
    for number, wrong in ((1, False), (2, False), (3, True), (4, False)):
        (reply,) = grid.send_and_receive([request(1, number)])
        assert reply.has_error() == wrong
        if wrong:
            assert "it has the weight 9, but its replies before had 8" in str(reply.error.reason)
            grid.discard()
        else:
            grid.accept(record(model()))
        # What was refused went back, so that the next reply is right.
        assert np.array_equal(grid.estimate.total, total_of(states_of(store), grid.accepted))


def test_a_reply_without_weight_is_refused():
    def without(content, _):
        del content["metrics"]
        return content

    grid = SparseGrid(Watched(app(estimating(MemoryStore()), answer=without), 1))
    assert "it has no weight, such as the metric 'num-examples'" in refused(grid)[0]


def test_a_node_whose_state_is_lost_is_refused_and_the_others_go_on():
    store = MemoryStore()
    grid = SparseGrid(Watched(made(store), 2, raising=False))
    rounds_of(grid, lambda _: range(2), 2)
    del store.states[1, 1]
    before, of_two = grid.estimate.total, {2: store.states[1, 2]}
    held = total_of(of_two, grid.accepted)
    replies = grid.send_and_receive([request(node, 3) for node in (1, 2)])
    assert "EF21 needs the estimate that this client's replies up to number 2 have made" in reasons(replies)[0]
    assert len(reasons(replies)) == 1
    grid.accept(record(model()))
    assert grid.accepted == {1: 2, 2: 3}
    change = total_of({2: store.states[1, 2]}, grid.accepted) - held
    assert change.any()
    assert np.allclose(grid.estimate.total - before, change, atol=1e-5)


def test_a_server_that_has_lost_the_estimate_is_refused_by_its_nodes():
    store = MemoryStore()
    inner = Watched(made(store), 1, raising=False)
    rounds_of(SparseGrid(inner), lambda _: [0], 2)
    forgetful = SparseGrid(inner)
    forgetful.remember({})
    assert "one of them has lost its state" in refused(forgetful, number=3)[0]


def mixed(*mods):
    """One mod for each node."""
    apps = [app(mod) for mod in mods]

    class Several(Watched):
        def _deliver(self, message):
            self._app = apps[message.metadata.dst_node_id - 1]
            return super()._deliver(message)

    return SparseGrid(Several(apps[0], len(mods)))


def bare(message, context, call_next):
    return call_next(message, context)


def test_nodes_with_and_without_it_are_not_mixed():
    plain = Sparsify(DEVICE, TopK(), Count(5))
    for others in ((plain,), (plain, bare), (bare,)):
        for mods in ((estimating(), *others), (*others, estimating())):
            (found,) = refused(mixed(*mods), range(1, len(mods) + 1))
            assert "it is of EF21, but other replies of this run are not" in found
    grid = mixed(plain, bare, estimating(), estimating(), estimating())
    for number in (1, 2):
        found = refused(grid, range(1, 6), number)
        assert len(found) == 2
        assert all("it is not of EF21, but others are" in each for each in found)
        grid.accept(record(model()))


def test_one_node_that_is_set_otherwise_keeps_no_others_out():
    plain = Sparsify(DEVICE, TopK(), Count(5))
    grid = mixed(estimating(), plain, plain)
    for number in (1, 2):
        assert len(refused(grid, (1, 2, 3), number)) == 1
        grid.accept(record(model()))
    assert len(refused(grid, (1,), 3)) == 1  # Nor where no other one is asked.
    assert grid.estimate.total is None
    same = estimating(MemoryStore(), local=["linear.bias"])
    grid = mixed(estimating(), same, same)
    assert ["its tensors are not those of the other nodes" in each for each in refused(grid, (1, 2, 3))] == [True]


def test_one_node_that_is_set_otherwise_stops_no_strategy():
    plain = Sparsify(DEVICE, TopK(), Count(5))
    with pytest.warns(UserWarning, match="FedTrimmedAvg"):
        strategy = Sparse(averaging(strategies.FedTrimmedAvg, beta=0.0))
    strategy._grid = mixed(estimating(), plain, plain)
    replies = strategy._grid.send_and_receive([request(node) for node in (1, 2, 3)])
    arrays, _ = strategy.aggregate_train(1, replies)
    assert flat(arrays_of(arrays)).any()


@pytest.mark.parametrize("weight", [1e308, 1e-300])
def test_a_weight_that_spoils_all_sums_is_refused(weight):
    grid = SparseGrid(Watched(made(MemoryStore(), weigh=lambda partition: (weight, weight, 8)[partition]), 3))
    grid.expected = Expected("num-examples")
    found = refused(grid, (1, 2, 3))
    assert [f"it has the weight {weight:g}, but with EF21" in each for each in found] == [True, True]
    assert np.isfinite(flat(arrays_of(grid.accept(record(model()), averaged=True)))).all()


def test_a_node_that_is_asked_twice_is_refused_whatever_it_says_of_feedback():
    def silent(message, context, call_next):
        reply = call_next(message, context)
        reply.content[wire.RECORD]["feedback"] = False
        return reply

    grid = SparseGrid(Watched(app(silent, estimating(MemoryStore()), examples=examples), 1))
    replies = grid.send_and_receive([request(1, 1), request(1, 1)])
    assert all("asked to train twice" in str(reply.error.reason) for reply in replies)


def test_replies_are_used_by_the_estimate_and_by_their_numbers_or_by_neither(monkeypatch):
    store = MemoryStore()
    mod = Sparsify(DEVICE, CWMP(), Density(0.1), feedback=EF21(), store=store)
    grid = SparseGrid(Watched(app(mod, examples=examples), 3), allocation=EqualJoules(share=0.2))
    rounds_of(grid, lambda _: range(3), 1)
    grid.send_and_receive([request(node, 2) for node in (1, 2, 3)])
    monkeypatch.setattr(grid.allotter, "close", raising)
    with pytest.raises(MemoryError):
        grid.accept(record(model()))
    assert np.array_equal(grid.estimate.total, total_of(states_of(store), grid.accepted))


def raising(*_):
    raise MemoryError


def test_a_node_that_changes_to_it_or_from_it_in_a_run_is_refused():
    for mods, words in (
        ((Sparsify(DEVICE, TopK(), Count(5)), estimating()), "they were made without EF21"),
        ((estimating(), Sparsify(DEVICE, TopK(), Count(5))), "state is one of EF21"),
    ):
        inner = Watched(app(mods[0]), 1, raising=False)
        rounds_of(SparseGrid(inner), lambda _: [0], 2)
        inner._app = app(mods[1])
        assert words in refused(SparseGrid(inner), number=3)[0]


def test_nodes_that_keep_other_tensors_to_themselves_are_refused_and_the_same_ones_work():
    found = refused(mixed(estimating(), estimating(local=["linear.bias"])), (1, 2))
    assert "its tensors are not those of the other nodes" in found[0]
    assert len(found) == 1
    same = [estimating(MemoryStore(), local=["linear.bias"]) for _ in range(2)]
    result = Sparse(averaging()).start(mixed(*same)._grid, record(model()), num_rounds=3)
    assert not arrays_of(result.arrays)["linear.bias"].any()
    assert arrays_of(result.arrays)["linear.weight"].any()


def test_a_lossy_downlink_and_budgets_of_both_ways_are_refused():
    lossy = SparseGrid(Watched(made(), 1), downlink=Lossy(0.1))
    assert "EF21 does not go with downlink=Lossy(density=0.1)" in refused(lossy)[0]
    for allocation, setting in (
        (EqualJoules(share=0.2, counts="both"), "counts='both'"),
        (OnePrice(share=0.2, control="asked"), "control='asked'"),
    ):
        store = MemoryStore()
        mod = Sparsify(DEVICE, CWMP(), Density(0.1), feedback=EF21(), store=store)
        grid = SparseGrid(Watched(app(mod), 2, raising=False), allocation=allocation)
        found = refused(grid, (1, 2))
        assert len(found) == 2
        assert setting in found[0]
        assert not store.states


def averaged_by_hand(strategy, **options):
    return Sparse(strategy, **options).start(Watched(made(MemoryStore()), 3), record(model()), num_rounds=2)


def test_strategies_that_do_more_than_average_are_refused():
    class Own(type(averaging())):
        def aggregate_train(self, server_round, replies):
            return super().aggregate_train(server_round, replies)

    with pytest.raises(FederationError, match="Own may do something else than average its replies"):
        averaged_by_hand(averaging(Own))
    found = averaged_by_hand(averaging(Own), averages=True)
    assert np.array_equal(flat(arrays_of(found.arrays)), by_the_paper(2, 5)[-1])
    strategy = Sparse(strategies.QFedAvg(client_learning_rate=0.1))
    strategy._grid = SparseGrid(Watched(made(), 1))
    strategy._grid.send_and_receive([request(1)])
    with pytest.raises(FederationError, match="QFedAvg may do something else"):
        strategy.aggregate_train(1, [])
    with pytest.warns(UserWarning, match="FedMedian"):
        median = Sparse(averaging(strategies.FedMedian))
    with pytest.raises(FederationError, match="FedMedian does not use all replies"):
        median.start(Watched(made(MemoryStore()), 3), record(model()), num_rounds=1)


def test_differential_privacy_is_refused():
    wrapped = strategies.DifferentialPrivacyServerSideFixedClipping(averaging(), 1.0, 1.0, 3)
    with pytest.raises(FederationError, match="SideFixedClipping bounds what one reply changes, but with EF21"):
        averaged_by_hand(wrapped, averages=True)
    asked = request(config={"config": wire.ConfigRecord({"server-round": 1, "clipping_norm": 1.0})})
    for mod, words in (
        (fixedclipping_mod, "clipping bounds what one reply changes, but with EF21"),
        (LocalDpMod(1.0, 1.0, 1.0, 1e-5), "LocalDpMod adds noise"),
    ):
        grid = SparseGrid(Watched(app(estimating(), mod), 1))
        with pytest.raises(RuleError, match=words):
            grid.send_and_receive([asked])


def test_a_server_that_does_not_know_of_it_does_not_average_it():
    inner = Watched(made(), 1)
    (reply,) = inner.send_and_receive([request()])
    (array,) = next(iter(reply.content.array_records.values())).values()
    assert array.stype == wire.ESTIMATE != wire.SERIALIZATION
    assert wire.read(reply.content).estimates
    reply.content["arrays"] = ArrayRecord({wire.PAYLOAD: wire.Array("uint8", (1,), "joulewise.v2", array.data)})
    with pytest.raises(PayloadError, match=r"serialization type 'joulewise.v2'"):
        wire.read(reply.content)
