"""Momentum of error feedback against the equations of deep gradient compression, and where a velocity is kept."""

import math
from dataclasses import replace

import numpy as np
import pytest
from flwr.app import Context, RecordDict
from hypothesis import given, settings
from hypothesis import strategies as st
from strategies import SEEDS, update_of

from joulewise.codec import decode
from joulewise.compress import ClientState, Compressor, ErrorFeedback, settle
from joulewise.costs import Costs
from joulewise.devices import load_device
from joulewise.errors import RuleError, StateError, UpdateError
from joulewise.flower import privacy
from joulewise.flower.state import ContextStore, FileStore
from joulewise.layout import Layout
from joulewise.ledger import round_charges
from joulewise.rules import CWMP, Count, Joules, LayerwiseTopK, Threshold, TopK

COSTS = Costs.of(np.arange(1.0, 31.0))


def by_the_paper(updates, momentum: float, masking: bool, keep) -> list[tuple[list[int], np.ndarray, np.ndarray]]:
    """Lin et al., ICLR 2018, equations (4) to (7): what is sent, then v (theirs) and u of each round, in float64."""
    u = v = np.zeros(updates[0].size)
    told = []
    for gradient in updates:
        u = momentum * u + gradient
        v = v + u
        sent = keep(v)
        mask = np.zeros(v.size, bool)
        mask[sent] = True
        v = np.where(mask, 0.0, v)
        u = np.where(mask & masking, 0.0, u)
        told.append((sent, v, u))
    return told


def largest(count: int):
    return lambda v: sorted(sorted(range(v.size), key=lambda i: (-abs(v[i]), i))[:count])


@settings(max_examples=40, deadline=None)
@given(SEEDS, st.sampled_from([0.25, 0.5, 0.75]), st.booleans())
def test_rounds_are_those_of_the_paper(seed, momentum, masking):
    rng = np.random.default_rng(seed)
    # Small whole numbers, so that six rounds of quarters are exact in float32.
    updates = [rng.integers(-50, 51, 30).astype(np.float32) for _ in range(6)]
    compressor = Compressor(TopK(), Count(4), feedback=ErrorFeedback(momentum=momentum, masking=masking))
    state = None
    for number, (sent, rest, velocity) in enumerate(by_the_paper(updates, momentum, masking, largest(4)), start=1):
        made = compressor.compress(updates[number - 1], state, COSTS)
        assert set(made.selection.indices.tolist()) == {i for i in sent if made.selection.dense()[i] != 0}
        assert made.state.residual.tolist() == rest.tolist()
        assert made.state.momentum.tolist() == velocity.tolist()
        state, _ = settle(made.state, number, COSTS.layout)


def test_every_rule_has_it():
    a = update_of("real", 1, 30)
    for rule, budget in ((CWMP(), Joules(60.0)), (LayerwiseTopK(), Count(5)), (TopK(), Threshold(1e-3))):
        compressor = Compressor(rule, budget, feedback=ErrorFeedback(momentum=0.5))
        first = compressor.compress(a, None, COSTS)
        state, _ = settle(first.state, 1, COSTS.layout)
        second = compressor.compress(a, state, COSTS)
        waited = np.setdiff1d(np.arange(30), first.selection.indices)
        carried = second.state.residual + decode(second.payload, COSTS.layout).dense()
        assert carried[waited] == pytest.approx(2.5 * a[waited], rel=1e-6)
        assert carried[first.selection.indices] == pytest.approx(a[first.selection.indices], rel=1e-6)


def test_without_momentum_nothing_changes_and_no_velocity_is_kept():
    a = update_of("real", 2, 30)
    plain, other = (Compressor(TopK(), Count(3), feedback=ErrorFeedback(masking=each)) for each in (True, False))
    old = ClientState(momentum=np.ones(30, np.float32), fingerprint=COSTS.layout.fingerprint)
    for compressor in (plain, other):
        sent = compressor.compress(a, old, COSTS)
        assert sent.payload == plain.compress(a, None, COSTS).payload
        assert sent.state.momentum is None
    assert (plain.remembers, replace(plain, feedback=None).remembers) == (1, 0)


def test_neither_the_update_nor_the_state_is_changed_in_place():
    compressor = Compressor(TopK(), Count(3), feedback=ErrorFeedback(momentum=0.5))
    a = update_of("real", 3, 30)
    before, state = a.tobytes(), None
    for number in (1, 2, 3):
        kept = None if state is None else (state.residual.tobytes(), state.momentum.tobytes())
        sent = compressor.compress(a, state, COSTS)
        assert a.tobytes() == before
        assert kept is None or kept == (state.residual.tobytes(), state.momentum.tobytes())
        assert sent.state.momentum is not a
        state, _ = settle(sent.state, number, COSTS.layout)


def test_a_reply_that_is_skipped_keeps_all_of_its_velocity():
    costs = replace(Costs.of(np.ones(3)), fixed=2.0)
    feedback = ErrorFeedback(momentum=0.5)
    poor = Compressor(CWMP(), Joules(1.5, includes_fixed=True), feedback=feedback)
    state = poor.compress(np.array([1, 2, 4], np.float32), None, costs).state
    state = poor.compress(np.array([1, 2, 4], np.float32), state, costs).state
    assert state.momentum.tolist() == [1.5, 3, 6]
    assert state.residual.tolist() == [2.5, 5, 10]


def test_what_was_not_used_goes_back_and_a_lost_state_loses_its_velocity():
    compressor = Compressor(TopK(), Count(1), feedback=ErrorFeedback(momentum=0.5))
    costs = Costs.of(np.ones(3))
    sent = compressor.compress(np.array([4, 2, 1], np.float32), None, costs).state
    back, fate = settle(sent, 0, costs.layout)
    assert (fate, back.residual.tolist(), back.momentum.tolist()) == ("returned", [4, 2, 1], [0, 2, 1])
    lost, fate = settle(sent, 7, costs.layout)
    assert (fate, lost.residual, lost.momentum) == ("lost", None, None)


@pytest.mark.parametrize("momentum", [-0.1, 1.0, 1 - 1e-9, 1.5, math.nan])
def test_a_momentum_out_of_range_is_refused(momentum):
    with pytest.raises(RuleError, match=r"ErrorFeedback\(momentum\) must be at least 0 and below 1"):
        ErrorFeedback(momentum=momentum)


def test_what_is_not_finite_is_named_for_what_it_is():
    layout = Layout.of({"a": np.ones(2), "b": np.ones(2)})
    costs = Costs.of(1.0, layout)
    compressor = Compressor(TopK(), Count(1), feedback=ErrorFeedback(momentum=0.9))
    ones = np.ones(4, np.float32)
    state = ClientState(momentum=np.array([0, 0, 0, 3e38], np.float32), fingerprint=layout.fingerprint)
    with pytest.raises(UpdateError, match="update plus momentum passes what float32 holds in tensor 'b'"):
        compressor.compress(np.array([0, 0, 0, 3e38], np.float32), state, costs)
    with pytest.raises(UpdateError, match="the update holds NaN or infinity in tensor 'a'"):
        compressor.compress(np.array([0, math.nan, 0, 0], np.float32), state, costs)
    for wrong in (np.ones(3, np.float32), np.array([0, 0, math.inf, 0], np.float32)):
        with pytest.raises(StateError, match=r"client's momentum has shape|client's momentum holds NaN.* 'b'"):
            compressor.compress(ones, replace(state, momentum=wrong), costs)


def test_stores_keep_the_velocity(tmp_path):
    state = ClientState(np.ones(3, np.float32), b"payload", 3, 1, 5, momentum=np.array([1, -2, 0.5], np.float32))
    for store in (ContextStore(), FileStore(tmp_path)):
        context = Context(run_id=1, node_id=7, node_config={}, state=RecordDict(), run_config={})
        store.save(context, state)
        found = store.load(context)
        assert found.momentum.tolist() == [1, -2, 0.5]
        assert found.residual.tolist() == [1, 1, 1]
        store.save(context, replace(state, momentum=None))
        assert store.load(context).momentum is None


def test_the_velocity_is_read_and_written_like_the_residual():
    layout, device = Layout.single(1000), load_device("phone-lte-2021")
    residual = [
        {charge.term: charge.energy for charge in round_charges((), layout, device, bytes_down=9, remembers=vectors)}
        for vectors in (0, 1, 2)
    ]
    assert "residual" not in residual[0]
    assert residual[2]["residual"] == pytest.approx(2 * residual[1]["residual"])


def test_clipping_for_privacy_counts_the_momentum_once_and_bounds_what_is_sent():
    compressor = Compressor(TopK(), Count(1), feedback=ErrorFeedback(momentum=0.5))
    costs = Costs.of(np.ones(3))
    state = ClientState(momentum=np.array([8, 2, 4], np.float32), fingerprint=costs.layout.fingerprint)
    update = np.array([4, 1, 2], np.float32)
    assert privacy.added_to(compressor, update, state).tolist() == [8, 2, 4]
    sent = privacy.compress(compressor, update, state, costs, [0], None, 2.0)
    decoded = decode(sent.payload, costs.layout).dense()
    assert decoded.tolist() == pytest.approx([2, 0, 0], rel=1e-5)
    assert decoded[0] <= 2.0
    assert (decoded + sent.state.residual).tolist() == pytest.approx([8, 2, 4])
    assert sent.state.momentum.tolist() == [0, 2, 4]
