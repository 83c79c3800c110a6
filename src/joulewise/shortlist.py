"""The top of an order, kept so that other limits need no further pass over the vector."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from joulewise.prefix import longest_prefix
from joulewise.ranking import Carry, Float64, Int64, Prefix, Ranking

MOST = 2**63 - 1


@dataclass(frozen=True, slots=True, eq=False)
class Shortlist:
    """The longest prefix of an order under a limit that was chosen generously.

    Args:
        prefix: its coordinates, in order of index.
        edges: int64[tensors + 1], where those of each tensor begin and end in it.
        weights: float64[tensors] of the ranking that it is a prefix of.
        tensor: of the first coordinate that the prefix leaves out; -1 where it leaves nothing out.
    """

    prefix: Prefix
    edges: Int64
    weights: Float64
    tensor: int

    def is_of(self, ranking: Ranking) -> bool:
        """Whether the ranking has the same order, of a vector that is taken to be the same."""
        return ranking.by_threshold and np.array_equal(self.weights, ranking.weights)


def listed_prefix(
    ranking: Ranking, quanta: Int64, limit: int, reach: float, carry: Carry | None = None
) -> tuple[Prefix, Shortlist | None]:
    """`longest_prefix`, and the shortlist of `reach` times the limit where the ranking allows one.

    Raises:
        NotFinite: the vector, or the sum, holds NaN or infinity.
    """
    if reach <= 1 or not ranking.by_threshold or not ranking.per_tensor(quanta):
        return longest_prefix(ranking, quanta, limit, carry), None
    wide = longest_prefix(ranking, quanta, min(int(limit * reach), MOST), carry)
    edges = np.searchsorted(wide.indices, ranking.edges.astype(wide.indices.dtype)).astype(np.int64)
    tensor = -1 if wide.misfit is None else int(np.searchsorted(ranking.edges, wide.misfit, side="right")) - 1
    listed = Shortlist(wide, edges, ranking.weights, tensor)
    return prefix_of(listed, quanta, limit) or longest_prefix(ranking, quanta, limit), listed


def prefix_of(listed: Shortlist, quanta: Int64, limit: int) -> Prefix | None:
    """What `longest_prefix` gives under another limit or at other costs, if the list is long enough to tell.

    Args:
        listed: the shortlist.
        quanta: int64[tensors], positive integer costs.
        limit: what the kept coordinates may cost together.
    """
    wide = listed.prefix
    found = longest_prefix(Ranking(wide.values, listed.edges, listed.weights), quanta, limit)
    if found.misfit is not None:
        misfit = int(wide.indices[found.misfit])
        return Prefix(wide.indices[found.indices], found.values, found.spent, misfit, wide.squares)
    if listed.tensor >= 0 and found.spent + int(quanta[listed.tensor]) <= limit:
        return None
    return Prefix(wide.indices, wide.values, found.spent, wide.misfit, wide.squares)
