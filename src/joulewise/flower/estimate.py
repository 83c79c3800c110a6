"""The server's half of EF21: the weighted mean of what its nodes' estimates of their updates are.

Of each node the server keeps the weight alone, and of all together one vector, ``S = sum(w_i g_i)``. What a node sends
is added to it once it is used; a node that is not there keeps its part. See `joulewise.EF21`.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from joulewise import fleet
from joulewise.allocations import Allocation
from joulewise.errors import PayloadError, RuleError
from joulewise.flower.lossy import Lossy
from joulewise.layout import Layout
from joulewise.select import Selection

Floats = npt.NDArray[np.float64]

MOST_WEIGHT = 2.0**64
"""Of a reply: with it float64 holds the sums of any number of nodes and rounds."""


@dataclass(slots=True, eq=False)
class Estimate:
    """What the server holds between two rounds.

    Args:
        total: float64[n], ``sum(w_i g_i)``; None before the first reply.
        weights: of each node whose replies are in it; they stay as they are.
        fingerprint: of the layout.
    """

    total: Floats | None = None
    weights: dict[int, float] = field(default_factory=dict)
    fingerprint: int | None = None

    def mean(self) -> Floats | None:
        """``sum(w_i g_i) / sum(w_i)`` over all nodes heard so far: float64[n]; None before the first reply."""
        return None if self.total is None else self.total / math.fsum(self.weights.values())

    def check(self, node: int, weight: float, accepted: int) -> None:
        """Whether a node's reply can be added.

        Args:
            node: who.
            weight: of its reply.
            accepted: number of its last reply that was used.

        Raises:
            PayloadError: it cannot; nothing is changed.
        """
        before = self.weights.get(node)
        if not weight > 0:
            raise PayloadError("it has no weight, such as the metric 'num-examples', which EF21 needs")
        if not 1 / MOST_WEIGHT <= weight <= MOST_WEIGHT:
            raise PayloadError(
                f"it has the weight {weight:g}, but with EF21 none may be above {MOST_WEIGHT:g} or below "
                f"{1 / MOST_WEIGHT:.2g}, lest sums of them pass what float64 holds"
            )
        if before is not None and weight != before:
            raise PayloadError(
                f"it has the weight {weight:g}, but its replies before had {before:g}, and with EF21 they stay in the "
                "mean; let the node train on as many examples in each round, or use ErrorFeedback()"
            )
        if before is None and accepted:
            raise PayloadError(
                f"it is the first with EF21, but replies of this node up to number {accepted} were used without, or "
                "the server has lost what it knew of them; begin a new run"
            )

    def become(self, after: Estimate) -> None:
        """Take up another one, once the replies that it holds are used."""
        self.total, self.weights, self.fingerprint = after.total, after.weights, after.fingerprint

    def packed(self, partitions: Mapping[int, int]) -> dict[str, npt.NDArray[Any]]:
        """As named arrays, for a checkpoint; `partitions` are those of the nodes."""
        if self.total is None:
            return {}
        own = {f"weight/{partitions[node]}": np.array(weight) for node, weight in self.weights.items()}
        return {"total": self.total, "fingerprint": np.array(self.fingerprint, np.uint64)} | own

    def unpack(self, packed: Mapping[str, npt.NDArray[Any]], nodes: Mapping[int, int]) -> None:
        """The inverse of `packed`."""
        if "total" not in packed:
            return
        self.total, self.fingerprint = packed["total"], int(packed["fingerprint"])
        own = {name.removeprefix("weight/"): weight for name, weight in packed.items() if name.startswith("weight/")}
        self.weights = {nodes[int(partition)]: float(weight) for partition, weight in own.items()}


@dataclass(frozen=True, slots=True, eq=False)
class _Heard:
    place: tuple[int, int]
    weight: float
    selection: Selection


@dataclass(slots=True, eq=False)
class Coming:
    """The estimate as it will be when the replies of a round are used.

    Args:
        before: the estimate as it is; it is changed by `use` alone.
        layout: of what the nodes send.
    """

    before: Estimate
    layout: Layout
    _heard: dict[int, _Heard] = field(default_factory=dict)
    _after: Estimate | None = None
    _total: Floats | None = None
    _weight: float = 0.0
    _used: bool = False

    def add(self, node: int, partition: int, weight: float, selection: Selection) -> None:
        """A node's reply can be used. Sums are in the order of partitions, whatever the order of replies."""
        self._heard[node] = _Heard((partition, node), weight, selection)
        self._after = None

    def after(self) -> Estimate:
        """The estimate with all replies in it, and with what another strategy on the same Grid has used since."""
        if self._after is None or (self._total is not self.before.total and not self._used):
            self._after, self._total = self._summed(), self.before.total
            self._weight = math.fsum(self._after.weights.values())
        return self._after

    def use(self) -> None:
        """The replies are used: the estimate becomes what it is with them."""
        after = self.after()
        self._used = True
        self.before.become(after)

    def moved(self, base: npt.NDArray[np.float32], first: int, last: int) -> npt.NDArray[np.float32]:
        """``base + S / sum(w)`` for coordinates from `first` to before `last`; where the mean is 0, the same bits."""
        after = self.after()
        assert after.total is not None  # There is a reply, which shows this.
        mean = after.total[first:last] / self._weight
        moved = base.copy()
        np.add(base, mean, out=moved, where=mean != 0, casting="same_kind")
        return moved

    def _summed(self) -> Estimate:
        before = self.before.total
        total = np.zeros(self.layout.n) if before is None else before.copy()
        for each in sorted(self._heard.values(), key=lambda each: each.place):
            total[each.selection.indices] += each.weight * each.selection.values.astype(np.float64)
        weights = self.before.weights | {node: each.weight for node, each in self._heard.items()}
        return Estimate(total, weights, self.layout.fingerprint)


def refuse(downlink: object, allocation: Allocation | None) -> None:
    """EF21 needs nodes that train on the server's model, and budgets that do not count what its mean moves.

    Raises:
        RuleError: a setting of the server does not go with it; it is named.

    Example:
        >>> refuse("lossless", None)
        >>> refuse(Lossy(0.05), None)
        Traceback (most recent call last):
            ...
        joulewise.errors.RuleError: EF21 does not go with downlink=Lossy(density=0.05), ...
    """
    name = type(allocation).__name__
    if isinstance(downlink, Lossy):
        raise RuleError(
            f"EF21 does not go with downlink={downlink}, under which nodes train on another model than the server's; "
            "use downlink='lossless' or 'off', or ErrorFeedback()"
        )
    if allocation is not None and fleet.counts_both(allocation):
        raise RuleError(
            f"EF21 does not go with {name}(counts='both'), which counts what masks keep, while the mean of all "
            "estimates moves more; use counts='uplink', or ErrorFeedback()"
        )
    if getattr(allocation, "control", None) == "asked":
        raise RuleError(
            f"EF21 does not go with {name}(control='asked'); use control='curves' or 'ascent', or ErrorFeedback()"
        )
