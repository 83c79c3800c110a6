"""The server's mean of payloads: right, the same each time, and no larger for more clients."""

import tracemalloc
from fractions import Fraction
from pathlib import Path
from unittest.mock import patch

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import joulewise
from joulewise import kernel, weighted_mean
from joulewise.aggregate import add
from joulewise.codec import VALUE_TYPES, decode, encode
from joulewise.errors import PayloadError, UpdateError
from joulewise.layout import Layout, Tensor
from joulewise.select import Selection

LAYOUT = Layout(
    (
        Tensor("conv", (3, 4), "conv", "float32"),
        Tensor("none", (0, 2), "linear", "float32"),
        Tensor("linear", (40,), "linear", "float32"),
    ),
    (Tensor("steps", (), "whole", "int64"),),
)


def payload_of(seed, layout=LAYOUT, share=0.4, values="float32"):
    rng = np.random.default_rng(seed)
    indices = np.flatnonzero(rng.random(layout.n) < share).astype(np.uint32)
    numbers = rng.standard_normal(len(indices)).astype(np.float32) * np.float32(10.0 ** rng.integers(-30, 30))
    return encode(Selection(layout.n, indices, numbers), layout, values)


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.tuples(st.integers(0, 999), st.integers(0, 50)), min_size=1, max_size=6),
    st.sampled_from(VALUE_TYPES),
    st.floats(0, 1),
)
def test_the_mean_is_the_exact_mean_rounded(clients, values, share):
    sent = [(payload_of(seed, share=share, values=values), weight) for seed, weight in clients]
    total = sum(weight for _, weight in sent)
    if not total:
        with pytest.raises(UpdateError, match="nothing to average"):
            weighted_mean(sent, LAYOUT)
        return
    dense = [decode(payload, LAYOUT).dense().tolist() for payload, _ in sent]
    mean = weighted_mean(iter(sent), LAYOUT)
    assert mean.dtype == np.float32
    for place, got in enumerate(mean.tolist()):
        terms = [Fraction(vector[place]) * weight for vector, (_, weight) in zip(dense, sent, strict=True)]
        error = abs(Fraction(got) - sum(terms) / total)
        # One rounding to float32, and one to float64 for each product and sum.
        assert error <= abs(Fraction(got)) * Fraction(1, 2**24) + sum(map(abs, terms)) / total / 2**49 + Fraction(
            1, 2**150
        )


def test_payloads_are_added_in_their_order():
    order = [(payload_of(seed), 1 + seed) for seed in range(9)]
    total = np.zeros(LAYOUT.n)
    for payload, weight in order:
        total += decode(payload, LAYOUT).dense().astype(np.float64) * weight
    assert np.array_equal(weighted_mean(order, LAYOUT), (total / 45).astype(np.float32))


def test_what_is_not_sent_counts_as_zero_and_an_empty_payload_counts():
    layout = Layout.single(3)
    sent = encode(Selection(3, np.array([1], np.uint32), np.array([4.0], np.float32)), layout)
    assert weighted_mean([(sent, np.int64(1)), (b"", np.float32(3))], layout).tolist() == [0.0, 1.0, 0.0]


def test_tensors_that_travel_whole_are_no_part_of_the_mean():
    nothing = Selection(LAYOUT.n, np.zeros(0, np.uint32), np.zeros(0, np.float32))
    payload = encode(nothing, LAYOUT, whole={"steps": np.int64(7)})
    assert weighted_mean([(payload, 1)], LAYOUT).tolist() == [0.0] * LAYOUT.n


@pytest.mark.parametrize("weight", [-1, float("nan"), float("inf"), 1e-300, 1e300, 10**400, None, "3"])
def test_weights_that_are_no_weights_are_named(weight):
    with pytest.raises(UpdateError, match=r"payloads\[1\] has the weight"):
        weighted_mean([(b"", 1), (b"", weight)], LAYOUT)


@pytest.mark.parametrize("weight", [1e-200, 1.0, 1e200])
def test_no_weight_overflows_or_loses_digits(weight):
    layout, values = Layout.single(2), np.array([3.4028235e38, 1e-45], np.float32)
    payload = encode(Selection(2, np.arange(2, dtype=np.uint32), values), layout)
    assert weighted_mean([(payload, weight)] * 3, layout).tolist() == values.tolist()


def test_the_snippet_of_the_documentation_runs():
    page = (Path(__file__).parents[1] / "docs" / "server.md").read_text(encoding="utf-8")
    layout, ones = Layout.single(3), np.ones(3, np.float32)
    replies = [(encode(Selection(3, np.arange(3, dtype=np.uint32), ones * size), layout), 5) for size in (2, 4)]
    names = {"joulewise": joulewise, "layout": layout, "replies": replies, "model": {"update": ones}}
    exec(page.split("```python\n")[1].split("```")[0], names)
    assert names["model"]["update"].tolist() == [4.0, 4.0, 4.0]


def test_a_damaged_payload_is_named():
    good = payload_of(1)
    with pytest.raises(PayloadError, match=r"payloads\[2\] cannot be used: payload was damaged"):
        weighted_mean([(good, 1), (good, 1), (good[:-1] + b"\xff", 1)], LAYOUT)
    with pytest.raises(PayloadError, match=r"payloads\[0\] .* use the sender's"):
        weighted_mean([(good, 1)], Layout.single(9))


def test_there_must_be_something_to_average():
    for payloads in ([], [(payload_of(1), 0)]):
        with pytest.raises(UpdateError, match="nothing to average"):
            weighted_mean(payloads, LAYOUT)


def test_add_changes_only_what_was_kept():
    total = np.full(5, -0.0)
    add(total, Selection(5, np.array([0, 4], np.uint32), np.array([1.5, -2.0], np.float32)), 0.5)
    assert total.tolist() == [0.75, 0.0, 0.0, 0.0, -1.0]
    assert np.signbit(total).tolist() == [False, True, True, True, True]


@pytest.mark.skipif(kernel.library() is None, reason="the kernel is not active here")
@settings(max_examples=30, deadline=None)
@given(st.integers(0, 10**6), st.sampled_from([1, 3, 1e-200, 1e200, 0.1]))
def test_both_implementations_add_to_the_same_bits(seed, weight):
    selection = decode(payload_of(seed), LAYOUT).selection
    by_kernel, by_numpy = np.random.default_rng(seed).standard_normal((1, LAYOUT.n)).repeat(2, axis=0)
    add(by_kernel, selection, weight)
    with patch.object(kernel, "library", lambda: None):
        add(by_numpy, selection, weight)
    assert by_kernel.tobytes() == by_numpy.tobytes()


def peak_of(clients, layout, payload):
    tracemalloc.start()
    try:
        weighted_mean(((payload, 1 + number) for number in range(clients)), layout)
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


def test_memory_does_not_grow_with_clients():
    layout = Layout.single(100_000)
    payload = payload_of(0, layout, share=0.3)
    few, many = peak_of(2, layout, payload), peak_of(40, layout, payload)
    # One decoded payload has 240 kB; calls of the kernel leave small objects to Python's collector.
    assert many <= few + 400_000
    assert many <= 12 * layout.n + 1_500_000
