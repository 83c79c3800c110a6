"""EF21 at the client: the paper's equations in NumPy, laws for every rule and budget, and states that do not fit."""

from dataclasses import replace

import numpy as np
import pytest
from flwr.app import Context, RecordDict
from hypothesis import given, settings
from hypothesis import strategies as st
from strategies import BUDGETS_BY_SHARE, PAIRS, SEEDS, is_unbiased, layout_of, name_of

from joulewise.codec import VALUE_TYPES, decode
from joulewise.compress import EF21, ClientState, Compressor, ErrorFeedback, settle
from joulewise.costs import Costs
from joulewise.devices import load_device
from joulewise.errors import RuleError, StateError
from joulewise.flower.state import ContextStore, FileStore
from joulewise.prices import price
from joulewise.rules import CWMP, Bytes, Count, Dense, Joules, MinVariance, RandomK, TopK

FEEDBACK_PAIRS = [pair for pair in PAIRS if not is_unbiased(pair[0])]
ROUNDED = {"int8", "ternary"}
"""Value types that are no dyadic numbers, so that sums of them round."""


def estimate_of(state: ClientState, accepted: int, layout) -> np.ndarray:
    """What a client takes for its estimate, once it knows what was used."""
    settled, _ = settle(state, accepted, layout)
    return np.zeros(layout.n) if settled.residual is None else 0 - settled.residual.astype(np.float64)


# ---------------------------------------------------------------- by the paper


def top(a: np.ndarray, k: int) -> np.ndarray:
    kept = sorted(range(a.size), key=lambda i: (-abs(a[i]), i))[:k]
    return np.array([a[i] if i in kept else 0.0 for i in range(a.size)])


@settings(max_examples=40, deadline=None)
@given(SEEDS, st.integers(1, 12))
def test_rounds_are_those_of_the_paper(seed, k):
    rng = np.random.default_rng(seed)
    costs = Costs.of(np.ones(12))
    compressor, state, g = Compressor(TopK(), Count(k), feedback=EF21()), None, np.zeros(12)
    for number in range(1, 8):
        u = rng.integers(-50, 51, 12) / 64
        c = top(u - g, k)
        g = g + c
        sent = compressor.compress(u.astype(np.float32), state, costs)
        assert decode(sent.payload, costs.layout).dense().tolist() == c.tolist()
        state, fate = settle(sent.state, number, costs.layout)
        assert fate == "accepted"
        assert (0 - state.residual).tolist() == g.tolist()


def test_with_everything_sent_the_estimate_is_the_update():
    costs = Costs.of(np.ones(9))
    for rule, budget in ((Dense(), None), (TopK(), Count(9))):
        state = None
        for number in (1, 2, 3):
            u = np.random.default_rng(number).normal(size=9).astype(np.float32)
            sent = Compressor(rule, budget, feedback=EF21()).compress(u, state, costs)
            state, _ = settle(sent.state, number, costs.layout)
            assert np.abs(0 - state.residual - u).max() <= 2.0**-23 * 4


def descended(feedback, gradients, step, rounds):
    """Gradient descent of several clients with different minima; each sends one coordinate in a round."""
    costs, x = Costs.of(np.ones(3)), np.ones(3)
    compressor, states, estimate = Compressor(TopK(), Count(1), feedback=feedback), [None] * len(gradients), np.zeros(3)
    for number in range(1, rounds + 1):
        sent = [
            compressor.compress((-step * gradient(x)).astype(np.float32), state, costs)
            for gradient, state in zip(gradients, states, strict=True)
        ]
        mean = np.mean([decode(each.payload, costs.layout).dense() for each in sent], axis=0)
        estimate = estimate + mean if feedback == EF21() else mean
        x = x + estimate
        states = [each.state if feedback is None else settle(each.state, number, costs.layout)[0] for each in sent]
    return x


def test_it_converges_where_top_1_alone_does_not():
    # Beznosikov et al., arXiv:2002.12410, example 1: three quadratics whose largest slopes lead away from the minimum.
    axes = [np.array(a, float) for a in ([-3, 2, 2], [2, -3, 2], [2, 2, -3])]
    gradients = [lambda x, a=a: 2 * (a @ x) * a + x / 2 for a in axes]
    step = 0.02
    assert np.abs(descended(EF21(), gradients, step, 1500)).max() < 1e-4
    assert not np.abs(descended(None, gradients, step, 40)).max() < 1.0


# ---------------------------------------------------------------- laws


@pytest.mark.parametrize("values", VALUE_TYPES)
@pytest.mark.parametrize("pair", FEEDBACK_PAIRS, ids=lambda pair: "-".join(map(name_of, pair)))
@settings(max_examples=2, deadline=None)
@given(seed=SEEDS)
def test_the_estimate_is_the_sum_of_what_was_used_whatever_becomes_of_the_replies(pair, values, seed):
    rule, kind = pair
    rng = np.random.default_rng(seed)
    layout = layout_of([40, 25, 3], ["conv{}.weight", "fc{}.weight", "norm{}.bias"])
    costs = price(layout, load_device("phone-lte-2021"))
    updates = [(rng.integers(-512, 512, layout.n) / 64).astype(np.float32) for _ in range(8)]
    full = Compressor(Dense(), None, values).compress(updates[0], None, costs)
    budget = BUDGETS_BY_SHARE[kind](0.3, updates[0], costs, rule)
    budget = Bytes(int(0.6 * len(full.payload))) if kind is Bytes else budget
    mask_j = sum(charge.energy for charge in full.charges if charge.term in {"header", "kept"})
    budget = Joules(0.4 * mask_j) if kind is Joules else budget
    compressor = Compressor(rule, budget, values, EF21())
    state, used, accepted = ClientState(fingerprint=layout.fingerprint), np.zeros(layout.n), 0
    for number, update in enumerate(updates):
        state, _ = settle(state, accepted, layout)
        sent = compressor.compress(update, state, costs, np.random.default_rng(number))
        decoded = decode(sent.payload, layout).dense()
        before = np.zeros(layout.n, np.float32) if state.residual is None else state.residual
        assert np.array_equal(sent.state.residual, before - decoded)
        assert sent.state.pending == sent.payload
        if kind is Bytes:
            assert len(sent.payload) <= budget.n
        if kind is Joules:
            mask = sum(charge.energy for charge in sent.charges if charge.term in {"header", "kept"})
            assert mask <= budget.budget * (1 + 1e-12)
        state = sent.state
        if rng.random() < 0.6:
            accepted, used = state.sequence, used + decoded
        found = estimate_of(state, accepted, layout)
        bound = 8 * 2.0**-23 * 64 if values in ROUNDED else 0.0
        assert np.abs(found - used).max() <= bound


def test_neither_the_update_nor_the_state_is_changed_in_place():
    costs = Costs.of(np.ones(6))
    compressor, state = Compressor(TopK(), Count(2), feedback=EF21()), None
    u = np.arange(6, dtype=np.float32)
    for number in (1, 2, 3):
        kept = None if state is None else state.residual.tobytes()
        sent = compressor.compress(u, state, costs)
        assert u.tolist() == [0, 1, 2, 3, 4, 5]
        assert kept is None or kept == state.residual.tobytes()
        assert sent.state.momentum is None
        state, _ = settle(sent.state, number, costs.layout)
    assert compressor.remembers == 1


def test_a_reply_that_its_fixed_cost_forbids_changes_no_estimate():
    costs = replace(Costs.of(np.ones(3)), fixed=2.0)
    poor = Compressor(CWMP(), Joules(1.5, includes_fixed=True), feedback=EF21())
    u = np.array([1, 2, 4], np.float32)
    rich = Compressor(CWMP(), Joules(4.5, includes_fixed=True), feedback=EF21())
    state, _ = settle(rich.compress(u, None, costs).state, 1, costs.layout)
    skipped = poor.compress(u, state, costs)
    assert skipped.payload == b""
    assert skipped.state.residual.tolist() == state.residual.tolist()
    assert settle(skipped.state, 1, costs.layout)[1] == "none"


# ---------------------------------------------------------------- refusals


@pytest.mark.parametrize(("rule", "budget"), [(MinVariance(), Joules(1.0)), (RandomK(scale=True), Count(1))])
def test_unbiased_rules_are_refused(rule, budget):
    with pytest.raises(RuleError, match="scaled up to be unbiased"):
        Compressor(rule, budget, feedback=EF21())


U = np.array([3, 2, 1], np.float32)
COSTS = Costs.of(np.ones(3))
TOP = Compressor(TopK(), Count(1), feedback=EF21())


def three_rounds() -> ClientState:
    """A client whose first two replies were used; the third is under way."""
    state = None
    for number in (1, 2, 3):
        state = TOP.compress(U, state, COSTS).state
        state = settle(state, number, COSTS.layout)[0] if number < 3 else state
    return state


def test_a_state_says_which_replies_are_in_its_estimate():
    state = three_rounds()
    assert (state.sequence, state.estimated) == (3, 2)
    assert settle(state, 3, COSTS.layout)[0].estimated == 3
    back, fate = settle(state, 2, COSTS.layout)
    assert (fate, back.estimated, (0 - back.residual).tolist()) == ("returned", 2, [3, 2, 0])


@pytest.mark.parametrize("accepted", [None, 1, 4])
def test_a_server_with_other_replies_in_its_estimate_is_refused(accepted):
    state = three_rounds()
    with pytest.raises(StateError, match="holds those up to 2: one of them has lost its state"):
        settle(state, accepted, COSTS.layout)
    with pytest.raises(StateError, match=f"replies up to number {accepted or 0}, "):
        settle(settle(state, 2, COSTS.layout)[0], accepted, COSTS.layout)


def test_a_lost_state_is_refused():
    empty, fate = settle(ClientState(fingerprint=COSTS.layout.fingerprint), 3, COSTS.layout)
    assert fate == "lost"
    with pytest.raises(StateError, match="EF21 needs the estimate that this client's replies up to number 3 have made"):
        TOP.compress(U, empty, COSTS)


def test_states_with_and_without_it_are_not_mixed_up():
    plain = Compressor(TopK(), Count(1), feedback=ErrorFeedback())
    state, _ = settle(plain.compress(U, None, COSTS).state, None, COSTS.layout)
    with pytest.raises(StateError, match="they were made without EF21"):
        TOP.compress(U, state, COSTS)
    state, _ = settle(TOP.compress(U, None, COSTS).state, 1, COSTS.layout)
    for other in (plain, Compressor(TopK(), Count(1))):
        with pytest.raises(StateError, match="state is one of EF21"):
            other.compress(U, state, COSTS)


def test_stores_keep_which_replies_are_in_the_estimate(tmp_path):
    state = three_rounds()
    for store in (ContextStore(), FileStore(tmp_path)):
        context = Context(run_id=1, node_id=7, node_config={}, state=RecordDict(), run_config={})
        store.save(context, state)
        assert store.load(context).estimated == 2
        store.save(context, ClientState(sequence=1))
        assert store.load(context).estimated is None
