"""What was kept of each tensor over the rounds of a study, from its rows."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import msgspec
import numpy as np
import numpy.typing as npt

from joulewise.outcomes import Summary
from joulewise.pricefile import PriceList
from joulewise.results import Row

MOST_COLUMNS = 60
"""Rounds that have a column of their own; where there are more, a column is the mean of several."""

Floats = npt.NDArray[np.float64]


class Keeping(msgspec.Struct, frozen=True, kw_only=True):
    """What the replies of each arm held of each tensor, round by round.

    Args:
        tensors: their names; numbered where nobody knows them.
        elements: coordinates of each; None where nobody knows how many.
        columns: first and last round of each column.
        counts: by name of the arm: for each of its columns and tensors the coordinates kept, the mean over rounds,
            seeds and clients.
    """

    tensors: tuple[str, ...]
    elements: tuple[int, ...] | None
    columns: tuple[tuple[int, int], ...]
    counts: dict[str, tuple[tuple[float, ...], ...]]


def keeping(found: Summary, rows: Iterable[Row], prices: PriceList | None = None) -> Keeping | None:
    """What was kept by tensor in the finished runs of a study; None where the replies are not of one model.

    Args:
        found: the study's summary.
        rows: its rows, among others.
        prices: its tensors; left aside where the rows are of another number of tensors.
    """
    shown = {(arm.name, run.seed) for arm in found.arms for run in arm.runs}  # Not those that arms were chosen on.
    every = (row for row in rows if row.study == found.study and row.energy_unit == found.unit)
    own = [row for row in every if (row.arm, row.seed) in shown]
    lengths = {len(client.kept_by_tensor) for row in own for client in row.clients}
    if len(lengths) != 1 or lengths == {0}:
        return None
    (tensors,) = lengths
    names, elements = _known(prices, own, tensors)
    width = -(-found.rounds // MOST_COLUMNS)
    starts = range(1, found.rounds + 1, width)
    return Keeping(
        tensors=names,
        elements=elements,
        columns=tuple((first, min(first + width - 1, found.rounds)) for first in starts),
        counts=_counts(found, own, width),
    )


def _known(
    prices: PriceList | None, rows: Sequence[Row], tensors: int
) -> tuple[tuple[str, ...], tuple[int, ...] | None]:
    """Names and sizes of the tensors. A reply that kept everything tells the sizes, where nothing else does."""
    if prices is not None and len(prices.tensors) == tensors:
        return tuple(each.name for each in prices.tensors), tuple(each.elements for each in prices.tensors)
    replies = (client for row in rows for client in row.clients)
    whole = (client.kept_by_tensor for client in replies if client.parameters == sum(client.kept_by_tensor))
    return tuple(f"tensor {number}" for number in range(1, tensors + 1)), next(whole, None)


def _counts(found: Summary, rows: Sequence[Row], width: int) -> dict[str, tuple[tuple[float, ...], ...]]:
    replies: dict[str, dict[int, list[Floats]]] = {arm.name: {} for arm in found.arms}
    for row in rows:
        if row.clients:
            kept = np.array([client.kept_by_tensor for client in row.clients], dtype=np.float64)
            replies[row.arm].setdefault((row.round - 1) // width, []).append(kept)
    return {
        name: tuple(tuple(np.concatenate(columns[at]).mean(axis=0).tolist()) for at in sorted(columns))
        for name, columns in replies.items()
    }
