"""Fleets to test with: drawn curves, and drawn updates at prices that differ by client."""

from dataclasses import dataclass

import numpy as np
from hypothesis import strategies as st
from strategies import update_of

from joulewise.certificate import mass
from joulewise.costs import Costs
from joulewise.curves import Curve, curve_of
from joulewise.fleet import Known, Order
from joulewise.layout import Layout
from joulewise.rules import CWMP, Price, Projection
from joulewise.select import Selection, select


@st.composite
def curves(draw: st.DrawFn) -> Curve:
    """Of nothing, of one price, or of several; smooth and with jumps."""
    m = draw(st.integers(0, 6))
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    prices = np.exp(-np.cumsum(rng.exponential(1.0, m) + 1e-6) + rng.normal())
    return Curve(
        prices, np.cumsum(rng.exponential(1.0, m) * rng.integers(0, 2, m) + 1e-3) * 10.0 ** rng.integers(-3, 3)
    )


@st.composite
def fleets(draw: st.DrawFn) -> tuple[list[Curve], list[float], int, float]:
    """Curves, weights, exponent and a budget."""
    every = draw(st.lists(curves(), min_size=1, max_size=6))
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    weights = rng.dirichlet(np.ones(len(every))).tolist()
    total = sum(curve.energies_j[-1] for curve in every if curve.prices.size)
    return every, weights, draw(st.sampled_from([1, 2])), draw(st.integers(0, 1200)) / 1000 * total


@dataclass(frozen=True)
class Fleet:
    """Clients whose updates are drawn anew each round, alike but not the same."""

    rule: CWMP | Projection
    contrast: float
    clients: int = 6
    n: int = 40_000

    @property
    def costs(self) -> list[Costs]:
        return [Costs.of(factor, Layout.single(self.n)) for factor in np.geomspace(1.0, self.contrast, self.clients)]

    @property
    def examples(self) -> list[int]:
        return [100 * (1 + k % 3) for k in range(self.clients)]

    @property
    def weights(self) -> list[float]:
        return [each / sum(self.examples) for each in self.examples]

    def updates(self, number: int) -> list[np.ndarray]:
        rng = np.random.default_rng(number)
        loudness = rng.uniform(0.8, 1.25, self.clients)
        return [update_of("real", 1000 * number + k, self.n) * np.float32(loudness[k]) for k in range(self.clients)]

    def known(self, number: int | None = None) -> dict[int, Known]:
        """With the curves of a round, or without."""
        said: list = [None] * self.clients
        if number is not None:
            said = [curve_of(a, costs, self.rule) for a, costs in zip(self.updates(number), self.costs, strict=True)]
        dense = [float(costs.per_kept[0]) * self.n for costs in self.costs]
        return {k: Known(self.examples[k], dense[k], said[k], exponent=self.rule.norm) for k in range(self.clients)}

    def obey(self, orders: dict[int, Order], number: int) -> tuple[dict[int, Selection], float]:
        """What clients keep, and its weighted value."""
        kept = {
            k: select(self.updates(number)[k], self.costs[k], self.rule, order.budget) for k, order in orders.items()
        }
        p = self.rule.norm
        return kept, sum(self.weights[k] ** p * mass(each.values, p) for k, each in kept.items())

    def wanted(self, order: Order, client: int, number: int) -> float:
        return select(self.updates(number)[client], self.costs[client], self.rule, Price(order.price)).spent
