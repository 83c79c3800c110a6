"""Layer-wise TopK against its definition: seats handed out one by one, and the best of each tensor."""

import numpy as np
import pytest
import reference
from hypothesis import given, settings
from hypothesis import strategies as st
from strategies import SEEDS, layout_of, update_of

from joulewise import kernel
from joulewise.costs import Costs
from joulewise.layerwise import longest_by_layer
from joulewise.layout import Layout
from joulewise.rules import Bytes, Count, Density, Joules, LayerwiseTopK, TopK
from joulewise.select import select

SIZES = st.lists(st.integers(0, 40), min_size=1, max_size=7).filter(sum)


def layout_of_sizes(sizes) -> Layout:
    return layout_of(sizes, ["norm{}.bias"] * len(sizes))


@settings(max_examples=80, deadline=None)
@given(SIZES, SEEDS, st.floats(0, 1))
def test_each_tensor_keeps_its_best_as_many_as_its_seats(sizes, seed, share):
    layout = layout_of_sizes(sizes)
    a = np.random.default_rng(seed).permutation(layout.n).astype(np.float32) + 1
    count = int(share * layout.n)
    kept = select(a, Costs.of(1.0, layout), LayerwiseTopK(), Count(count))
    expected, start = [], 0
    for size, seats in zip(sizes, reference.seats(sizes, count), strict=True):
        expected += sorted((start + np.argsort(-a[start : start + size])[:seats]).tolist())
        start += size
    assert kept.indices.tolist() == expected
    assert kept.indices.size == count


@settings(max_examples=80, deadline=None)
@given(SIZES, SEEDS, st.floats(0, 1.2), st.booleans())
def test_seats_give_what_sorting_gives(sizes, seed, share, natively):
    layout = layout_of_sizes(sizes)
    a = update_of(["real", "sparse", "ties", "zeros"][seed % 4], seed, layout.n)
    quanta = np.random.default_rng(seed).integers(1, 9, len(sizes))
    limit = int(share * int(quanta @ layout.sizes))
    with pytest.MonkeyPatch.context() as patch:
        if not natively:
            patch.setattr(kernel, "library", lambda: None)
        _, found = longest_by_layer(a, layout.offsets, quanta, limit)
        _, slow = longest_by_layer(a, layout.offsets, quanta, limit, fill=True)
    assert found.indices.tolist() == slow.indices.tolist()
    assert found.values.tobytes() == slow.values.tobytes()
    assert (found.spent, found.misfit) == (slow.spent, slow.misfit)
    assert found.squares == pytest.approx(slow.squares, rel=1e-6)


@pytest.mark.parametrize("sizes", [[3, 0, 0], [0, 2, 2, 0], [1, 1, 1], [2, 0]])
def test_as_many_coordinates_as_tensors_are_not_taken_for_tensors(sizes):
    layout = layout_of_sizes(sizes)
    a = np.arange(layout.n, 0, -1).astype(np.float32)
    for count in range(layout.n + 1):
        _, found = longest_by_layer(a, layout.offsets, np.ones(len(sizes), np.int64), count, fill=True)
        scores = reference.layer_scores(a, sizes)
        assert found.indices.tolist() == reference.prefix(scores, [1] * layout.n, count).indices


@pytest.mark.parametrize("fill", [False, True])
def test_of_many_equal_magnitudes_the_first_are_kept(fill):
    a = update_of("ties", 1, 3000)
    _, found = longest_by_layer(a, np.array([0, 2000, 3000]), np.ones(2, np.int64), 300, fill=fill)
    assert found.indices.tolist() == reference.prefix(reference.layer_scores(a, [2000, 1000]), [1] * 3000, 300).indices


def test_at_one_density_every_tensor_keeps_that_share():
    layout = layout_of_sizes([1000, 500, 100])
    a = update_of("real", 3, layout.n) * np.repeat([100.0, 1.0, 0.01], [1000, 500, 100]).astype(np.float32)
    counts = layout.counts(select(a, Costs.of(1.0, layout), LayerwiseTopK(), Density(0.05)).indices)
    assert counts.tolist() == [50, 25, 5]
    assert layout.counts(select(a, Costs.of(1.0, layout), TopK(), Density(0.05)).indices).tolist() != [50, 25, 5]


def test_places_that_a_tensor_of_zeros_cannot_fill_go_to_the_others():
    layout = layout_of_sizes([4, 4])
    a = np.array([0, 3, 0, 0, 4, 1, 2, 3], np.float32)
    assert select(a, Costs.of(1.0, layout), LayerwiseTopK(), Count(4)).indices.tolist() == [1, 4, 6, 7]


def test_budgets_in_joules_and_bytes_end_along_the_same_order():
    layout = layout_of_sizes([8, 4])
    costs = Costs.of({"norm0.bias": 1.0, "norm1.bias": 3.0}, layout, bits_per_kept=np.array([8.0, 16.0]))
    a = np.arange(12, 0, -1).astype(np.float32)
    # Scores: 8, 8/3, 8/5, 8/7, ... and 4, 4/3, 4/5, ...; prices 1 and 3.
    for room, kept in (
        (1.0, [0]),
        (3.9, [0]),
        (4.0, [0, 8]),
        (6.0, [0, 1, 2, 8]),
        (8.9, [0, 1, 2, 8]),
        (9.0, [0, 1, 2, 8, 9]),
    ):
        assert select(a, costs, LayerwiseTopK(), Joules(room)).indices.tolist() == kept
    assert select(a, costs, LayerwiseTopK(), Joules(8.9, fill=True)).indices.tolist() == [0, 1, 2, 3, 4, 8]
    assert select(a, costs, LayerwiseTopK(), Bytes(3)).indices.tolist() == [0, 8]
