"""The kernel's selection is NumPy's, to the last bit."""

import ctypes
import json
import math
import os
import re
import subprocess
import sys
from collections import Counter
from dataclasses import replace
from pathlib import Path

import native_cases
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from strategies import RANKED_PAIRS, Case, cases

from joulewise import kernel, native_select, prefix, shortlist
from joulewise.compress import ClientState, Compressor, ErrorFeedback
from joulewise.costs import Costs
from joulewise.devices import load_device
from joulewise.errors import KernelError, UpdateError
from joulewise.layout import Layout
from joulewise.prices import price
from joulewise.ranking import Carry, NotFinite, Ranking, carried, float32_thresholds, sum_of_squares
from joulewise.rules import CWMP, LEGAL, Bytes, Count, Density, Joules, Price, Projection, RandomK, Threshold, TopK
from joulewise.select import limit_of, rank, select

LIBRARY = kernel.library()
EVERY_PATH = [
    sum(flags)
    for flags in (
        *((0,), (1,), (2,), (3,), (2, 4), (2, 8), (2, 16), (2, 32), (3, 16), (3, 32)),
        *((2, 4, 32), (2, 8, 32), (2, 32, 64), (3, 32, 64), (2, 32, 128), (2, 16, 128), (64,)),
    )
]

needs_kernel = pytest.mark.skipif(LIBRARY is None, reason="runs without the kernel")


def native(ranking, quanta, limit, carry=None, flags=0):
    return native_select.longest_prefix(LIBRARY, ranking, quanta, limit, carry, flags)


def same(found, expected):
    assert found.indices.tolist() == expected.indices.tolist()
    assert found.values.tobytes() == expected.values.tobytes()
    assert (found.spent, found.misfit, found.squares) == (expected.spent, expected.misfit, expected.squares)


def one_tensor(a, key=None):
    a = np.asarray(a, np.float32)
    return Ranking(a, np.array([0, a.size]), np.ones(1), key)


ONE = np.ones(1, np.int64)


@needs_kernel
def test_a_sweep_of_random_cases_agrees():
    differences, met = native_cases.compare(seed=1, count=500, library=LIBRARY, most=5000)
    assert differences == []
    assert len(met) == len(native_cases.KINDS) + 4 + 5 + len(native_cases.FLAGS) + 3 + 2


@needs_kernel
def test_long_vectors_agree():
    assert native_cases.compare(seed=2, count=60, library=LIBRARY)[0] == []


@needs_kernel
@settings(max_examples=150, deadline=None)
@given(cases(RANKED_PAIRS), st.sampled_from(EVERY_PATH), st.integers(0, 2**64 - 1))
def test_generated_cases_agree(case: Case, flags, key):
    ranking = rank(case.a, case.costs, case.rule, key if case.rule.random else None)
    if isinstance(case.budget, Price | Threshold):
        found = native_select.at_least(LIBRARY, ranking, case.budget.value, flags=flags)
        expected = prefix.at_least_in_numpy(ranking, case.budget.value)
        assert [part.tobytes() for part in found[:2]] == [part.tobytes() for part in expected[:2]]
        assert found[2] == expected[2]
        return
    units, limit, _ = limit_of(case.budget, case.costs)
    same(native(ranking, units, max(limit, 0), flags=flags), prefix.prefix_in_numpy(ranking, units, max(limit, 0)))


@needs_kernel
def test_the_switch_is_the_loader_s(monkeypatch):
    called = Counter()
    monkeypatch.setattr(native_select, "longest_prefix", lambda *_: called.update(["native"]))
    monkeypatch.setattr(prefix, "prefix_in_numpy", lambda *_: called.update(["numpy"]))
    prefix.longest_prefix(one_tensor([1]), ONE, 1)
    monkeypatch.setattr(kernel, "library", lambda: None)
    prefix.longest_prefix(one_tensor([1]), ONE, 1)
    assert called == {"native": 1, "numpy": 1}


@needs_kernel
@pytest.mark.parametrize("flags", EVERY_PATH)
@pytest.mark.parametrize("threads", ["1", "2", "5"])
def test_every_path_gives_one_result_on_any_number_of_threads(monkeypatch, flags, threads):
    monkeypatch.setenv("JOULEWISE_THREADS", threads)
    rng = np.random.default_rng(3)
    a = (rng.standard_normal(300_000) * rng.choice([0, 1e-3, 1], 300_000)).astype(np.float32)
    ranking = Ranking(a, np.array([0, 7, 70_000, 70_000, 300_000]), np.array([1.0, 0.5, 0.1, 0.3]))
    quanta = np.array([1, 2, 5, 3])
    for limit in (0, 5, 3_000, 90_000, 500_000, 10**9):
        same(native(ranking, quanta, limit, flags=flags), prefix.prefix_in_numpy(ranking, quanta, limit))


@needs_kernel
@pytest.mark.parametrize("a", [np.full(200_000, 0.5), np.zeros(200_000), np.resize([1, -1, 0.5, 0.25], 200_000)])
@pytest.mark.parametrize("limit", [0, 1, 100, 65_536, 131_077, 199_999, 200_000])
@pytest.mark.parametrize("threads", ["1", "3"])
def test_ties_are_cut_by_index(monkeypatch, a, limit, threads):
    monkeypatch.setenv("JOULEWISE_THREADS", threads)
    ranking = Ranking(a.astype(np.float32), np.array([0, 90_000, 200_000]), np.array([1.0, 1.0]))
    for quanta in (np.array([1, 1]), np.array([3, 2]), np.resize([1, 7], 200_000)):
        same(native(ranking, quanta, limit), prefix.prefix_in_numpy(ranking, quanta, limit))


@needs_kernel
@pytest.mark.parametrize("flags", EVERY_PATH)
@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("where", [0, 63, 4095, 65_536, 65_599])
def test_what_is_not_finite_is_found_first_in_the_update_then_in_the_sum(flags, value, where):
    rng = np.random.default_rng(0)
    update, residual = rng.standard_normal((2, 65_600)).astype(np.float32)
    later = min(where + 1, 65_599)
    spoiled = update.copy()
    spoiled[[where, later]] = value
    into = np.full(65_600, 7, np.float32)
    for carry in (None, Carry(into, residual)):
        with pytest.raises(NotFinite) as found:
            native(one_tensor(spoiled), ONE, 100, carry, flags)
        assert (found.value.index, found.value.of_sum) == (where, False)
    spoiled = residual.copy()
    spoiled[[where, later]] = value
    for factor in (1.0, 0.5):
        with pytest.raises(NotFinite) as found:
            native(one_tensor(update), ONE, 100, Carry(into, spoiled, factor), flags)
        assert (found.value.index, found.value.of_sum) == (where, True)
    update[later] = math.inf  # ... in the update, though later
    with pytest.raises(NotFinite) as found:
        native(one_tensor(update), ONE, 100, Carry(into, spoiled), flags)
    assert (found.value.index, found.value.of_sum) == (later, False)


@needs_kernel
@pytest.mark.parametrize("flags", EVERY_PATH)
def test_a_sum_that_overflows_is_the_sum_s_error_and_changes_no_input(flags):
    update, residual = np.full(3000, 3e38, np.float32), np.zeros(3000, np.float32)
    residual[2999] = 3e38
    before = update.copy(), residual.copy()
    with pytest.raises(NotFinite) as found:
        native(one_tensor(update), ONE, 100, Carry(np.empty(3000, np.float32), residual), flags)
    assert (found.value.index, found.value.of_sum) == (2999, True)
    assert update.tobytes() == before[0].tobytes()
    assert residual.tobytes() == before[1].tobytes()


@needs_kernel
def test_inputs_may_be_read_only_and_the_sum_has_no_minus_zero():
    update, residual = np.array([-0.0, -0.0, 2, -1], np.float32), np.array([-0.0, -1.0, 0, -1], np.float32)
    update.flags.writeable = residual.flags.writeable = False
    sums = [np.empty(4, np.float32), np.empty(4, np.float32)]
    found = native(one_tensor(update), ONE, 2, Carry(sums[0], residual, 0.0))
    assert found.indices.tolist() == [2, 3]
    assert np.signbit(sums[0]).tolist() == [False, False, False, True]
    carried(update, Carry(sums[1], residual, 0.0))
    assert sums[0].tobytes() == sums[1].tobytes()


@needs_kernel
@pytest.mark.parametrize(
    "wrong",
    [
        np.zeros(8, np.float32)[::2],
        np.zeros(4),
        np.zeros((2, 2), np.float32),
        np.zeros(17, np.uint8)[1:].view(np.float32),
    ],
    ids=["not contiguous", "float64", "matrix", "not aligned"],
)
def test_the_kernel_is_never_given_what_it_does_not_read(wrong):
    ranking = Ranking(wrong, np.array([0, 4]), np.ones(1))
    with pytest.raises(TypeError, match="contiguous float32"):
        native(ranking, ONE, 1)


@needs_kernel
def test_what_is_written_must_be_writeable_and_as_long_as_the_vector():
    into = np.zeros(4, np.float32)
    with pytest.raises(ValueError, match=re.escape("[3] numbers, expected 4")):
        native(one_tensor(np.ones(4)), ONE, 1, Carry(into[:3]))
    into.flags.writeable = False
    with pytest.raises(TypeError, match="read-only"):
        native(one_tensor(np.ones(4)), ONE, 1, Carry(into))
    with pytest.raises(ValueError, match="weights has 2 numbers"):
        native(Ranking(np.ones(4, np.float32), np.array([0, 4]), np.ones(2)), ONE, 1)
    with pytest.raises(ValueError, match="quanta has 2 numbers"):
        native(one_tensor(np.ones(4)), np.ones(2, np.int64), 1)


@needs_kernel
def test_vectors_of_2_to_the_32_are_refused():
    found = native_select.Found()
    request = native_select.Request(n=2**32, tensors=1, weight_count=1, quanta_count=1)
    status = LIBRARY.joulewise_select_open(ctypes.byref(request), ctypes.byref(found))
    assert status == native_select.TOO_LONG
    assert found.selected is None
    with pytest.raises(ValueError, match="fewer; select parts of it"):
        native_select._check(status, found)


@needs_kernel
@pytest.mark.skipif(not hasattr(os, "fork"), reason="limits processes as Unix does")
@pytest.mark.parametrize("threads", ["1", "4"])
def test_what_memory_does_not_hold_is_a_memory_error_on_any_number_of_threads(threads):
    """Where there is none for a thread either, one thread does it all."""
    script = Path(__file__).with_name("short_of_memory.py")
    environment = {**os.environ, kernel.THREADS_VARIABLE: threads}
    run = subprocess.run(
        [sys.executable, script, "1000000"], env=environment, capture_output=True, text=True, check=False
    )
    assert run.returncode == 0, run.stderr
    ends = json.loads(run.stdout)
    assert set(ends) <= {"selected", "MemoryError"}
    assert ends["MemoryError"]


@needs_kernel
def test_read_reads():
    assert native_select.read(LIBRARY, np.array([1, 2], np.uint32).view(np.float32)) == 3
    assert native_select.read(LIBRARY, np.empty(0, np.float32)) == 0


@pytest.mark.parametrize("asked", ["0", "-1", "two", "1.5", "1025", "²", "1" * 5000])
def test_a_wrong_number_of_threads_is_one_sentence(monkeypatch, asked):
    monkeypatch.setenv("JOULEWISE_THREADS", asked)
    with pytest.raises(
        KernelError, match=r"JOULEWISE_THREADS='.+', but it is a whole number from 1 to 1024, or not set"
    ):
        kernel.threads()


def test_one_thread_unless_asked(monkeypatch):
    monkeypatch.delenv("JOULEWISE_THREADS", raising=False)
    assert kernel.threads() == 1
    monkeypatch.setenv("JOULEWISE_THREADS", " 3 ")
    assert kernel.threads() == 3


@pytest.mark.parametrize("weight", [1.0, 0.3, 1e-30, 1e-265, 1e-300, 3e-308, 1e-310, 5e-324])
@pytest.mark.parametrize("lo", [5e-324, 1e-320, 1e-300, 1e-45, 1e-3, 1.0, 3e38, math.inf])
def test_thresholds_in_float32_are_the_least_that_reach(weight, lo):
    (found,) = float32_thresholds(np.array([weight]), lo)
    with np.errstate(under="ignore"):
        assert float(found) * weight >= lo
        lower = np.nextafter(found, np.float32(0))
        assert lower == 0 or float(lower) * weight < lo


@needs_kernel
@pytest.mark.parametrize("exponent", [-40, 0, 250, 262, 300, 307])
def test_prices_far_apart_agree(exponent):
    rng = np.random.default_rng(exponent + 50)
    a = (10.0 ** rng.uniform(-44, 38, 4000)).astype(np.float32)
    ranking = Ranking(a, np.array([0, 2000, 4000]), np.array([1.0, 10.0**-exponent]))
    for limit in (1, 10, 1000, 2100, 3900, 4000):
        for flags in EVERY_PATH:
            expected = prefix.prefix_in_numpy(ranking, np.ones(2, np.int64), limit)
            same(native(ranking, np.ones(2, np.int64), limit, flags=flags), expected)


def test_squares_are_summed_in_a_fixed_order():
    a = np.random.default_rng(0).standard_normal(5000).astype(np.float32)
    lanes = np.zeros(2048, np.float32)
    for i, square in enumerate(a * a):
        lanes[i % 2048] += square
    for fewer in (64, 8):
        rows = lanes.reshape(-1, fewer)
        lanes = rows[0]
        for row in rows[1:]:
            lanes = lanes + row
    total = 0.0
    for lane in lanes.tolist():
        total += lane
    assert sum_of_squares(a, 0) == total
    assert total == pytest.approx(float(np.square(a, dtype=np.float64).sum()), rel=1e-6)


# ------------------------------------------------------------------------------------------------ selecting again


def limits_around(limit):
    return sorted(
        {0, 1, limit // 3, int(0.9 * limit), max(limit - 1, 0), limit, limit + 1, int(1.25 * limit), 2 * limit}
    )


@pytest.mark.parametrize("kind", native_cases.KINDS)
@pytest.mark.parametrize("implementation", ["native", "numpy"])
def test_a_shortlist_gives_what_a_pass_over_the_vector_gives_or_says_that_it_is_too_short(kind, implementation):
    if implementation == "native" and LIBRARY is None:
        pytest.skip("runs without the kernel")
    rng = np.random.default_rng(4)
    a = native_cases.data(rng, kind, 6000)
    edges, quanta = np.array([0, 10, 10, 4000, 6000]), np.array([3, 1, 2, 1000])
    ranking = Ranking(a, edges, np.array([1.0, 1.0, 0.5, 0.25]))
    answers = Counter()
    with native_cases.implementation(LIBRARY if implementation == "native" else None):
        for limit in (0, 1, 500, 5000, 100_000, 10**7):
            first, listed = shortlist.listed_prefix(ranking, quanta, limit, 1.3)
            same(first, prefix.prefix_in_numpy(ranking, quanta, limit))
            for other in limits_around(limit):
                for costs in (quanta, quanta[::-1].copy(), np.ones(4, np.int64)):
                    found = shortlist.prefix_of(listed, costs, other)
                    answers[found is None] += 1
                    if found is not None:
                        same(found, prefix.prefix_in_numpy(ranking, costs, other))
                assert shortlist.prefix_of(listed, quanta, min(other, limit)) is not None
    assert answers[False] > 50
    assert answers[True] > 10 or kind == "97 % zeros"


def test_there_is_no_shortlist_of_orders_that_it_could_not_be_cut_in():
    a = np.ones(4, np.float32)
    each = Ranking(a, np.array([0, 4]), np.ones(4))
    for ranking, quanta in ((each, ONE), (one_tensor(a, key=3), ONE), (one_tensor(a), np.ones(4, np.int64))):
        assert shortlist.listed_prefix(ranking, quanta, 2, 1.3)[1] is None
    listed = shortlist.listed_prefix(one_tensor(a), ONE, 2, 1.3)[1]
    assert listed.is_of(one_tensor(a))
    assert not listed.is_of(one_tensor(a, key=3))
    assert not listed.is_of(Ranking(a, np.array([0, 4]), np.array([0.5])))


@needs_kernel
@pytest.mark.parametrize("budget", [Count(300), Density(0.05), Joules(0.02), Bytes(900), Price(1e-9)], ids=repr)
@pytest.mark.parametrize("rule", [TopK(), CWMP(), Projection(), RandomK()], ids=repr)
@pytest.mark.parametrize("feedback", [None, ErrorFeedback(), ErrorFeedback(0.9, clip=2.0)], ids=repr)
def test_the_whole_client_step_is_the_same(rule, budget, feedback):
    if type(budget) not in LEGAL[type(rule)]:
        pytest.skip("not a legal pair")
    rng = np.random.default_rng(9)
    shapes = {"conv.weight": (8, 3, 3, 3), "fc.weight": (40, 100), "fc.bias": (40,)}
    layout = Layout.of({name: np.zeros(shape, np.float32) for name, shape in shapes.items()})
    costs = price(layout, load_device("phone-lte-2021"))
    update, residual = native_cases.data(rng, "mixture", layout.n), native_cases.data(rng, "97 % zeros", layout.n)
    before = update.tobytes(), residual.tobytes()
    state = ClientState(residual=residual, fingerprint=layout.fingerprint)
    compressor, outcomes = Compressor(rule, budget, "float16", feedback), []
    for library in (LIBRARY, None):
        with native_cases.implementation(library, threads=2):
            sent = compressor.compress(update, state, costs, np.random.default_rng(1))
        left = None if sent.state.residual is None else sent.state.residual.tobytes()
        outcomes.append((sent.payload, left, sent.selection.spent, sent.selection.delta, sent.charges))
    assert outcomes[0] == outcomes[1]
    assert 0 < len(outcomes[0][0]) < 4 * layout.n
    assert before == (update.tobytes(), residual.tobytes())


@pytest.mark.parametrize("implementation", ["native", "numpy"])
@pytest.mark.parametrize("budget", [Count(2), Joules(1.0), Joules(0.5, includes_fixed=True), Bytes(100)], ids=repr)
def test_an_error_names_the_update_or_the_sum_and_changes_nothing(implementation, budget):
    if implementation == "native" and LIBRARY is None:
        pytest.skip("runs without the kernel")
    layout = Layout.of({"a.weight": np.zeros(3, np.float32), "b.weight": np.zeros(4, np.float32)})
    costs = replace(Costs.of(1.0, layout), fixed=0.75)
    compressor = Compressor(CWMP(), budget, feedback=ErrorFeedback())
    large = np.array([1, 1, 1, 1, 3e38, 1, 1], np.float32)
    state = ClientState(residual=large, fingerprint=layout.fingerprint)
    before = large.tobytes()
    bad = np.array([0, np.nan, 0, 0, 3e38, 0, 0], np.float32)
    with native_cases.implementation(LIBRARY if implementation == "native" else None):
        with pytest.raises(UpdateError, match=r"the update holds NaN or infinity in tensor 'a.weight' \(element 1"):
            compressor.compress(bad, state, costs)
        with pytest.raises(UpdateError, match=r"update plus residual passes what .* in tensor 'b\.weight'"):
            compressor.compress(large, state, costs)
    assert large.tobytes() == before


@pytest.mark.parametrize("threads", ["2", "3", "5"])
@pytest.mark.parametrize("kept_from", [0.4, 0.8])
def test_where_the_first_threads_keep_nothing_the_result_is_that_of_one(monkeypatch, threads, kept_from):
    n = 400_000
    a = np.random.default_rng(5).standard_normal(n).astype(np.float32)
    a[: int(kept_from * n)] *= np.float32(1e-6)
    found = {}
    for count in ("1", threads):
        monkeypatch.setenv("JOULEWISE_THREADS", count)
        kept = select(a, Costs.of(1.0, Layout.single(n)), TopK(), Count(5000))
        found[count] = kept.indices.tobytes(), kept.values.tobytes()
    assert found["1"] == found[threads]
