"""One price of a joule for a fleet whose receivers pay for what the masks keep together."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from joulewise.curves import Curve
from joulewise.curvetable import Table, scales_of, value_of
from joulewise.reception import STEPS, Reception

Floats = npt.NDArray[np.float64]

ALONE = np.append(0.0, np.geomspace(1e-4, 1.0, 28))
"""Chances that nobody else keeps a coordinate, for a client that keeps hardly any, at which a division is tried."""

NEAR = 1e-12
"""How close the logarithm of the price is brought."""
DEAREST = 1e300
"""Times that receivers may pay of what a sender does; finite, so that none of it times no chance is none."""


@dataclass(frozen=True, slots=True, eq=False)
class BothWays:
    """What each client may spend on its uplink, at one price of a joule of either direction.

    Args:
        price: weighted value that the last joule buys, the receivers' included; 0 where the budget buys everything.
        energies_j: float64[K], of the uplinks.
        value: weighted value that the clients keep for it, as their curves say.
        downlink_j: what receivers are expected to pay.
    """

    price: float
    energies_j: Floats
    value: float
    downlink_j: float


def one_price_both_ways(  # noqa: PLR0913, PLR0917 (the parts of one question)
    curves: Sequence[Curve],
    weights: Sequence[float],
    exponent: int,
    budget_j: float,
    reception: Reception,
    least_j: Floats | None = None,
    tried: Floats = ALONE,
) -> BothWays:
    """Divide a budget for uplinks and downlink so that the last joule of every client buys as much.

    A coordinate more of client k costs its own c_k, and what receivers pay if nobody else keeps it: with R what
    receiving everything costs and D_k what sending everything does, ``1 + R/D_k (u / (1 - q_k))^(1 + h)`` times c_k. So
    a curve with its prices divided by this is the one of both directions. What all clients have in common is u, the
    share of coordinates that nobody keeps: for each of 29 amounts of ``u^(1 + h)`` the budget fixes the price, and the
    division of the most value is taken (docs/theory.md, "Both directions in the price").

    Args:
        curves: of each client, of its uplink; one without points or weight gets its least.
        weights: p_k, shares of the clients in the average; 0 for one that has no say.
        exponent: p: 1 for CWMP, 2 for Projection.
        budget_j: of all uplinks and the downlink together.
        reception: what masks cost both ways.
        least_j: float64[K], what each client gets at least; the budget must pay for that. None for nothing.
        tried: amounts of ``u^(1 + h)``.

    Returns:
        The division. Uplinks and predicted downlink together are never above the budget, and are the budget where the
        curves allow it. A larger budget never keeps less.

    Raises:
        RuleError: weights are negative or not finite, or none is above 0.

    Example:
        >>> cheap, dear = (Curve(np.array([8.0, 1.0]) / c, np.array([1.0, 64.0]) * c) for c in (1.0, 4.0))
        >>> for receiving_j in (0.0, 1e6):
        ...     both = Reception(np.array([64.0, 256.0]), receiving_j)
        ...     budget_j = 32.0 + receiving_j / 4
        ...     found = one_price_both_ways([cheap, dear], [0.5, 0.5], 1, budget_j, both)
        ...     (found.energies_j / both.dense_j).round(3).tolist()
        [0.4, 0.025]
        [0.134, 0.134]
    """
    scales = scales_of(weights, len(curves)) ** exponent
    table = Table.of(curves, scales)
    least = np.zeros(len(curves)) if least_j is None else least_j
    every = np.maximum(np.minimum(table.everything, reception.dense_j), least)
    if reception.total_j(every) <= budget_j:
        return BothWays(0.0, every, value_of(curves, scales, every), reception.downlink_j(every))
    best = BothWays(0.0, least, -math.inf, 0.0)
    for alone in tried.tolist() if reception.receiving_j else [0.0]:
        own = table.dearer(_ratios(table, reception, alone))
        price, energies = _reaching(own, reception, budget_j, least)
        value = value_of(curves, scales, energies)
        if value > best.value:
            best = BothWays(price, energies, value, reception.downlink_j(energies))
    return best


def _ratios(table: Table, reception: Reception, alone: float) -> Floats:
    """What a coordinate costs everybody over what it costs its sender, at each point of each curve: float64[K, m]."""
    with np.errstate(over="ignore"):
        densities = np.minimum(1.0 - 1e-15, np.exp(table.y) / reception.dense_j[:, None])
        odds = np.exp(-(1.0 + reception.likeness) * np.log1p(-densities))
        shared = np.minimum(DEAREST, reception.receiving_j / reception.dense_j)
    chances = np.minimum(1.0, alone * odds) if alone else np.zeros_like(odds)
    return np.asarray(1.0 + shared[:, None] * chances, np.float64)


def _reaching(table: Table, reception: Reception, budget_j: float, least: Floats) -> tuple[float, Floats]:
    """Price and energies at which both ways together meet the budget, which must not buy everything."""
    low, high = table.span
    most = reception.dense_j
    for _ in range(STEPS):
        middle = 0.5 * (low + high)
        if high - low < NEAR:
            break
        fits = reception.total_j(np.maximum(np.minimum(table.at(middle), most), least)) <= budget_j
        low, high = (middle, high) if fits else (low, middle)
    less, more = (np.maximum(np.minimum(table.at(each), most), least) for each in (low, high))
    return math.exp(-high), reception.between(less, more, budget_j)
