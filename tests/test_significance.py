"""Holm's adjustment and the sign test, against slow references and what they promise."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import scipy.stats
from hypothesis import given
from hypothesis import strategies as st

from joulewise.significance import holm, sign_test

p_values = st.lists(st.floats(0, 1), min_size=0, max_size=5)


def closed_testing(found: list[float], place: int) -> float:
    """The adjusted p-value by its definition: the largest Bonferroni p-value of all sets that hold the comparison."""
    others = [other for number, other in enumerate(found) if number != place]
    return max(
        min(1.0, (size + 1) * min(found[place], *chosen, 1.0))
        for size in range(len(found))
        for chosen in itertools.combinations(others, size)
    )


@given(p_values)
def test_holm_is_closed_testing_with_bonferroni(found):
    expected = [closed_testing(found, place) for place in range(len(found))]
    assert holm(found) == pytest.approx(expected)


@given(p_values)
def test_holm_keeps_the_order_and_lowers_nothing(found):
    adjusted = holm(found)
    assert all(own <= new <= 1 for own, new in zip(found, adjusted, strict=True))
    order = np.argsort(found, kind="stable")
    assert sorted(adjusted) == [adjusted[place] for place in order]


@given(st.integers(0, 8), st.integers(0, 8))
def test_the_sign_test_is_scipys_where_everything_is_known(less, more):
    if less + more:
        assert sign_test(less, more) == pytest.approx(scipy.stats.binomtest(less, less + more).pvalue)
    assert sign_test(less, more) == sign_test(more, less)


@given(st.integers(0, 8), st.integers(0, 8), st.integers(0, 8))
def test_what_is_not_known_counts_against_whoever_leads(less, more, unknown):
    ahead, behind = max(less, more), min(less, more)
    assert sign_test(less, more, unknown) == sign_test(ahead, behind + unknown) or ahead < behind + unknown
    assert sign_test(less, more, unknown + 1) >= sign_test(less, more, unknown) - 1e-12
