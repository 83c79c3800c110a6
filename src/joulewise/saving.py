"""What a rule that weighs by price saves over TopK: expected of a typical law, or counted on one update."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from functools import cached_property

import msgspec
import numpy as np

from joulewise import scaled_laws
from joulewise.advantage import Equal, compared
from joulewise.costs import Block, Costs
from joulewise.expectation import Kept, Outlook
from joulewise.layout import Vector
from joulewise.rules import CWMP, Count, Joules, Projection, Rule, TopK
from joulewise.select import Indices, select
from joulewise.tensorwise import Floats

Weighed = CWMP | Projection
"""Rules that weigh magnitude by price."""


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

    The law is that of `joulewise.scaled_laws.Laplace` with a scale of 1: of magnitudes beyond t there are a share
    ``exp(-t)``, which hold ``(1 + t) exp(-t)`` of the L1 mass and ``(1 + t + t^2 / 2) exp(-t)`` of the squared L2 mass.

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
        return self._topk.kept(self._topk.at(-math.log(self.density)))

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
        return self._compared(rule, "energy").saving

    def predict(self, rule: Weighed) -> Prediction:
        """What `rule` saves over TopK."""
        mine = self._outlook(rule)
        by_count = mine.reaching("count", self.topk.coordinates)[1].counts
        both = np.minimum(by_count, self.topk_counts).sum()
        return Prediction(
            type(rule).__name__,
            rule.norm or 1,
            self._compared(rule, "energy"),
            self._compared(rule, "count"),
            float(both) / self.topk.coordinates,
        )

    def _compared(self, rule: Weighed, equal: Equal) -> Comparison:
        found = compared(self._outlook(rule), self._topk, self.topk, equal)
        return Comparison(found.mine, found.same_mass_energy, found.saving)

    def _outlook(self, rule: Rule) -> Outlook:
        return Outlook(scaled_laws.Laplace(self._sizes, np.ones_like(self._sizes)), self.costs, rule)

    @cached_property
    def _topk(self) -> Outlook:
        return self._outlook(TopK())

    @property
    def _sizes(self) -> Floats:
        return self.costs.layout.sizes.astype(np.float64)

    def _added_by(self, block: Block) -> float:
        full, rest = np.divmod(self.costs.layout.sizes, block.elements)
        missed = 1.0 - self.density
        touched = full * (1.0 - missed**block.elements) + (1.0 - missed**rest)
        return float(block.per_touched @ touched - block.included @ self.topk_counts)


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


def _running_sum(parts: Floats) -> Floats:
    return np.concatenate(([0.0], np.cumsum(parts)))


def _comparison(kept: Kept, topk_energy: float) -> Comparison:
    return Comparison(kept, topk_energy, 1.0 - kept.energy / topk_energy if topk_energy > 0 else 0.0)
