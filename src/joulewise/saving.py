"""What a rule that weighs by price saves over TopK: expected of a typical law, or counted on one update."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cached_property

import msgspec
import numpy as np

from joulewise.costs import Block, Costs
from joulewise.layout import Vector
from joulewise.rules import CWMP, Count, Joules, Projection, TopK
from joulewise.select import Indices, select
from joulewise.tensorwise import Floats

Weighed = CWMP | Projection
"""Rules that weigh magnitude by price."""


class Kept(msgspec.Struct, frozen=True):
    """What a rule keeps.

    Args:
        coordinates: how many; not whole where it is an expectation.
        energy: what keeping them costs, in the unit of the prices.
        l1: kept share of the sum of magnitudes.
        l2: kept share of the sum of squares.
    """

    coordinates: float
    energy: float
    l1: float
    l2: float


class Comparison(msgspec.Struct, frozen=True):
    """What a rule keeps, and what TopK has to spend for the same mass.

    Args:
        kept: what the rule keeps.
        topk_energy: energy at which TopK keeps the same mass, in the norm that the rule maximises.
        saving: ``1 - kept.energy / topk_energy``; below 0 where TopK needs less.
    """

    kept: Kept
    topk_energy: float
    saving: float


class Prediction(msgspec.Struct, frozen=True):
    """What one rule saves over TopK.

    Args:
        rule: its name.
        norm: of the kept mass that is compared: 1 for CWMP, 2 for Projection.
        equal_energy: when it may spend what TopK spends.
        equal_count: when it keeps as many coordinates as TopK.
        overlap: share of those coordinates that TopK keeps too, at equal count.
    """

    rule: str
    norm: int
    equal_energy: Comparison
    equal_count: Comparison
    overlap: float


@dataclass(frozen=True, eq=False)
class Laplace:
    """Expected selections when every coordinate is drawn from one Laplace law, the same for all tensors.

    Magnitudes in units of the scale are exponential. Of tensor g with weight w_g, the score ``|a| w_g`` passes
    tau with probability ``exp(-t)``, ``t = tau / w_g``, and what passes holds the shares ``(1 + t) exp(-t)``
    of the tensor's L1 mass and ``(1 + t + t^2 / 2) exp(-t)`` of its squared L2 mass: the tail moments of the
    exponential law, by parts.

    Args:
        costs: prices per tensor.
        density: share of all coordinates that TopK keeps, above 0 and at most 1.

    Example:
        >>> from joulewise.layout import Layout
        >>> layout = Layout.of({"conv": np.ones((1, 1, 1, 2)), "linear": np.ones((1, 2))})
        >>> law = Laplace(Costs.of(np.ones(2), layout), density=0.5)
        >>> law.topk.coordinates, round(law.topk.l1, 3)
        (2.0, 0.847)
        >>> round(law.predict(CWMP()).overlap, 12)
        1.0
    """

    costs: Costs
    density: float

    @cached_property
    def topk(self) -> Kept:
        """What TopK keeps: the same share of every tensor."""
        return self._kept(self._topk_tail)

    @cached_property
    def topk_counts(self) -> Floats:
        """How many coordinates of each tensor TopK keeps: float64[tensors]."""
        return self._sizes * self.density

    @property
    def topk_blocks(self) -> float:
        """What blocks add to the prices of what TopK keeps, each coordinate kept by itself with the same chance."""
        return float(sum(self._added_by(block) for block in self.costs.blocks))

    def at(self, costs: Costs) -> Laplace:
        """The same magnitudes at other prices."""
        return replace(self, costs=costs)

    def saving(self, rule: Weighed) -> float:
        """Share of TopK's energy that `rule` saves at equal energy."""
        return self._at_equal_energy(rule).saving

    def predict(self, rule: Weighed) -> Prediction:
        """What `rule` saves over TopK."""
        inverse = self._inverse(rule)
        by_count = _tail(inverse, self._sizes, self.topk.coordinates)
        both = self._sizes @ np.minimum(np.exp(-by_count), self.density)
        return Prediction(
            type(rule).__name__,
            rule.norm or 1,
            self._at_equal_energy(rule),
            self._compared(by_count, rule),
            float(both) / self.topk.coordinates,
        )

    def _at_equal_energy(self, rule: Weighed) -> Comparison:
        tails = _tail(self._inverse(rule), self._sizes * self.costs.per_kept, self.topk.energy)
        return self._compared(tails, rule)

    def _inverse(self, rule: Weighed) -> Floats:
        inverse = 1.0 / rule.weights(self.costs.per_kept)
        return np.asarray(inverse / inverse.max(initial=0.0), dtype=np.float64)

    @property
    def _sizes(self) -> Floats:
        return self.costs.layout.sizes.astype(np.float64)

    def _added_by(self, block: Block) -> float:
        full, rest = np.divmod(self.costs.layout.sizes, block.elements)
        missed = 1.0 - self.density
        touched = full * (1.0 - missed**block.elements) + (1.0 - missed**rest)
        return float(block.per_touched @ touched - block.included @ self.topk_counts)

    @property
    def _topk_tail(self) -> Floats:
        return np.full(len(self.costs.layout.tensors), -math.log(self.density))

    def _kept(self, tails: Floats) -> Kept:
        counts = self._sizes * np.exp(-tails)
        n = self.costs.layout.n
        l1, l2 = (float(counts @ _moment(tails, norm)) / n for norm in (1, 2))
        return Kept(float(counts.sum()), float(counts @ self.costs.per_kept), l1, l2)

    def _compared(self, tails: Floats, rule: Weighed) -> Comparison:
        kept = self._kept(tails)
        mass = kept.l1 if rule.norm == 1 else kept.l2
        tail = _root(lambda t: float(np.exp(-t) * _moment(t, rule.norm or 1)), mass)
        return _comparison(kept, math.exp(-tail) * float(self._sizes @ self.costs.per_kept))


@dataclass(frozen=True, eq=False)
class Recorded:
    """Selections that are really made of one update.

    Args:
        costs: prices per tensor.
        update: float32[n], finite.
        count: how many coordinates TopK keeps.

    Example:
        >>> from joulewise.layout import Layout
        >>> layout = Layout.of({"dear": np.ones(1), "cheap": np.ones(3)})
        >>> costs = Costs.of(np.array([4.0, 1.0]), layout)
        >>> found = Recorded(costs, np.array([3.0, -2.0, 2.0, 1.0], np.float32), count=1)
        >>> found.topk.energy, found.predict(CWMP()).equal_energy.kept.l1
        (4.0, 0.625)
    """

    costs: Costs
    update: Vector
    count: int

    @cached_property
    def topk(self) -> Kept:
        """What TopK keeps."""
        return self._kept(self._topk_indices)

    @cached_property
    def topk_counts(self) -> Floats:
        """How many coordinates of each tensor TopK keeps: float64[tensors]."""
        return self.costs.layout.counts(self._topk_indices).astype(np.float64)

    @property
    def topk_blocks(self) -> float:
        """What blocks add to the prices of what TopK keeps."""
        return self.costs.block_energy(self._topk_indices)

    def at(self, costs: Costs) -> Recorded:
        """The same update at other prices."""
        return replace(self, costs=costs)

    def saving(self, rule: Weighed) -> float:
        """Share of TopK's energy that `rule` saves at equal energy."""
        return self._at_equal_energy(rule).saving

    def predict(self, rule: Weighed) -> Prediction:
        """What `rule` saves over TopK."""
        by_count = select(self.update, self.costs, rule, Count(self.count)).indices
        both = np.intersect1d(by_count, self._topk_indices, assume_unique=True).size
        return Prediction(
            type(rule).__name__,
            rule.norm or 1,
            self._at_equal_energy(rule),
            self._compared(by_count, rule),
            both / self._topk_indices.size,
        )

    def _at_equal_energy(self, rule: Weighed) -> Comparison:
        return self._compared(select(self.update, self.costs, rule, Joules(self.topk.energy)).indices, rule)

    @cached_property
    def _topk_indices(self) -> Indices:
        return select(self.update, self.costs, TopK(), Count(self.count)).indices

    @cached_property
    def _whole(self) -> dict[int, float]:
        """Mass of the update, by norm."""
        magnitude = np.abs(self.update.astype(np.float64))
        return {norm: float((magnitude**norm).sum()) for norm in (1, 2)}

    def _kept(self, indices: Indices) -> Kept:
        magnitude = np.abs(self.update[indices].astype(np.float64))
        energy = self.costs.per_kept @ self.costs.layout.counts(indices)
        l1, l2 = (float((magnitude**norm).sum()) / self._whole[norm] for norm in (1, 2))
        return Kept(float(indices.size), float(energy), l1, l2)

    def _compared(self, indices: Indices, rule: Weighed) -> Comparison:
        kept, norm = self._kept(indices), rule.norm or 1
        target = (kept.l1 if norm == 1 else kept.l2) * self._whole[norm]
        n, count = self.costs.layout.n, 2 * self.count
        mass, spent = self._along(count, norm)
        while mass[-1] < target and count < n:
            count *= 4
            mass, spent = self._along(count, norm)
        # The last coordinate counts in part: else a small model would show steps and no saving.
        return _comparison(kept, float(np.interp(target, mass, spent)))

    def _along(self, count: int, norm: int) -> tuple[Floats, Floats]:
        """Mass and energy of the k largest coordinates, for k from 0 to `count`."""
        indices = select(self.update, self.costs, TopK(), Count(count)).indices
        magnitude = np.abs(self.update[indices].astype(np.float64))
        order = np.argsort(-magnitude, kind="stable")
        prices = np.repeat(self.costs.per_kept, self.costs.layout.counts(indices))
        return _running_sum(magnitude[order] ** norm), _running_sum(prices[order])


def _moment(tail: Floats | float, norm: int) -> Floats | float:
    """Kept mass over kept count, in units of the mean mass of a coordinate."""
    return 1.0 + tail if norm == 1 else 1.0 + tail + tail * tail / 2.0


def _tail(inverse: Floats, worth: Floats, target: float) -> Floats:
    """Thresholds ``tau * inverse`` at which what passes, ``sum worth * exp(-t)``, is the target."""
    return inverse * _root(lambda tau: float(worth @ np.exp(-tau * inverse)), target)


def _root(falling: Callable[[float], float], target: float) -> float:
    """Where a falling function of a number from 0 to infinity meets the target, or 0 where it begins below."""
    if falling(0.0) <= target:
        return 0.0
    low, high = 0.0, 1.0
    while falling(high) > target:
        low, high = high, 2.0 * high
    while (middle := (low + high) / 2.0) not in {low, high}:
        low, high = (middle, high) if falling(middle) > target else (low, middle)
    return high


def _running_sum(parts: Floats) -> Floats:
    return np.concatenate(([0.0], np.cumsum(parts)))


def _comparison(kept: Kept, topk_energy: float) -> Comparison:
    return Comparison(kept, topk_energy, 1.0 - kept.energy / topk_energy if topk_energy > 0 else 0.0)
