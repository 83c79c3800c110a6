"""Tests of several comparisons at once: Holm's adjustment, and a sign test that counts what is not known."""

from __future__ import annotations

from collections.abc import Sequence

from joulewise.errors import MissingExtra

SIGNIFICANCE = 0.05


def holm(p_values: Sequence[float]) -> tuple[float, ...]:
    """P-values adjusted for how many they are, by Holm's step-down.

    ``max over j <= i of min(1, (m - j + 1) p_(j))`` with ``p_(1) <= ... <= p_(m)``: to call significant what is at
    most 0.05 then calls any true null hypothesis so with a probability of at most 0.05, whatever the dependence
    between the tests (S. Holm, "A simple sequentially rejective multiple test procedure", Scandinavian Journal of
    Statistics 6, 1979).

    Args:
        p_values: one for each comparison, 0 to 1, in any order.

    Returns:
        The adjusted p-values in the same order; none is less than its own p-value.

    Example:
        >>> holm([0.01, 0.04, 0.03])
        (0.03, 0.06, 0.06)
    """
    adjusted, floor = [1.0] * len(p_values), 0.0
    for rank, place in enumerate(sorted(range(len(p_values)), key=p_values.__getitem__)):
        floor = max(floor, min(1.0, (len(p_values) - rank) * p_values[place]))
        adjusted[place] = floor
    return tuple(adjusted)


def sign_test(less: int, more: int, unknown: int = 0) -> float:
    """Two-sided p-value of a sign test in which pairs of unknown order count against whoever leads.

    Twice the probability that a fair coin comes up at least ``max(less, more)`` times in ``less + more + unknown``
    throws, at most 1. To leave the unknown pairs out instead would favour an arm that spends little and often does not
    arrive: the pairs that it loses are those whose order is not known.

    Args:
        less: pairs in which the first is less.
        more: pairs in which it is more.
        unknown: pairs that are equal, or of which it is not known.

    Raises:
        MissingExtra: scipy is not installed.

    Example:
        >>> [round(p, 3) for p in (sign_test(6, 0), sign_test(5, 0), sign_test(6, 0, unknown=2))]
        [0.031, 0.062, 0.289]
    """
    pairs = less + more + unknown
    if not pairs:
        return 1.0
    try:
        from scipy.special import bdtrc  # noqa: PLC0415 (only a report needs it)
    except ImportError as error:
        raise MissingExtra("report", "a sign test") from error
    return min(1.0, 2 * float(bdtrc(max(less, more) - 1, pairs, 0.5)))
