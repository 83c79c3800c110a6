"""What a client's masks cost at each price of a joule, in at most 128 numbers: its energy-price curve."""

from __future__ import annotations

import math
from bisect import insort
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from joulewise.costs import Costs
from joulewise.errors import ArgumentError, PayloadError, RuleError
from joulewise.layout import Vector
from joulewise.ranking import Ranking
from joulewise.rules import MinVariance, Rule
from joulewise.select import checked_vector, not_finite

Floats = npt.NDArray[np.float64]
Int64 = npt.NDArray[np.int64]

POINTS = 64
"""The most that a curve on the wire has: 128 numbers."""
SHIFT = 46
"""Bits of a float64 below its sign, its exponent and six bits of its fraction: 64 bins to each power of two."""
BINS = 1 << (63 - SHIFT)
CHEAPEST, DEAREST = float(np.finfo(np.float32).smallest_normal), float(np.finfo(np.float32).max)
"""Values per joule beyond these count as these: the wire carries float32."""
FINEST = 2.0**-12
"""Share of all energy, or of all value, below which a curve need not be as fine."""
LEAST = 2.0**-24
"""Share of all energy at which the curve of a rule that draws begins: it has some use for any energy."""


@dataclass(frozen=True, slots=True, eq=False)
class Curve:
    """What a client's masks cost at each price: the energy of all coordinates worth at least that much per joule.

    Between points it is a straight line of logarithms. A curve without points is that of an update of zeros.

    Args:
        prices: float64[m], strictly falling and above 0: value per joule, ``|a|/c`` for CWMP and ``a^2/c`` for
            Projection, without a client's weight in the average. For MinVariance, by how much another joule lowers the
            expected squared error.
        energies_j: float64[m], never falling and above 0: energy of all coordinates worth at least that price, in the
            unit of the costs; the last is that of all that are not zero. For MinVariance it is the expected energy.

    Raises:
        ArgumentError: numbers are not finite, not above 0, or out of order.

    Example:
        >>> curve = Curve(np.array([4.0, 1.0]), np.array([1.0, 16.0]))
        >>> curve.energy_at(5.0), round(curve.energy_at(2.0), 9), curve.energy_at(0.5)
        (0.0, 4.0, 16.0)
        >>> round(curve.price_at(4.0), 9), round(curve.value_at(16.0), 9)
        (2.0, 28.0)
    """

    prices: Floats
    energies_j: Floats

    def __post_init__(self) -> None:
        fault = _fault(self.prices, self.energies_j)
        if fault:
            raise ArgumentError(f"a curve has {fault}; curve_of makes one from an update")

    def energy_at(self, price: float) -> float:
        """Energy of all coordinates worth at least `price` per joule; 0 above the first price."""
        if not self.prices.size or price > self.prices[0]:
            return 0.0
        if price <= self.prices[-1]:
            return float(self.energies_j[-1])
        return math.exp(np.interp(-math.log(price), -np.log(self.prices), np.log(self.energies_j)))

    def price_at(self, energy_j: float) -> float:
        """What the last coordinate that `energy_j` buys is worth per joule; 0 where it buys everything."""
        if not self.prices.size or energy_j >= self.energies_j[-1]:
            return 0.0
        if energy_j <= self.energies_j[0]:
            return float(self.prices[0])
        return math.exp(np.interp(math.log(energy_j), np.log(self.energies_j), np.log(self.prices)))

    def value_at(self, energy_j: float) -> float:
        """Kept value at an energy, ``V(E) = integral of price dE``: L1 mass of CWMP, squared L2 mass of Projection."""
        if not self.prices.size or energy_j <= 0:
            return 0.0
        energies, prices = np.log(self.energies_j), np.log(self.prices)
        lengths = np.diff(energies)
        with np.errstate(divide="ignore", invalid="ignore"):
            done = np.clip((math.log(energy_j) - energies[:-1]) / lengths, 0.0, 1.0)
        done[lengths == 0] = 0.0
        # With p = p_j (E/E_j)^s: p_j E_j times the integral of exp((s+1) x) over 0 <= x <= length.
        powers = done * (lengths + np.diff(prices))
        flat = np.abs(powers) < 1e-9
        means = np.where(flat, 1.0 + powers / 2, np.expm1(powers) / np.where(flat, 1.0, powers))
        rest = np.exp(prices[:-1] + energies[:-1]) * done * lengths * means
        return float(self.prices[0] * min(energy_j, self.energies_j[0]) + rest.sum())

    def to_bytes(self) -> bytes:
        """The curve for the wire: pairs of little-endian float32, price and energy of each point.

        Raises:
            PayloadError: it has more than 64 points.
        """
        if self.prices.size > POINTS:
            raise PayloadError(f"the curve has {self.prices.size} points, expected at most {POINTS}; make it coarser")
        pairs = np.stack([self.prices, self.energies_j], axis=1)
        rounded = np.clip(pairs, CHEAPEST, DEAREST).astype("<f4")
        # Of prices that float32 does not tell apart the last, which has all the energy.
        last = np.append(np.diff(rounded[:, 0]) < 0, True)[: len(rounded)]
        return bytes(rounded[last].tobytes())

    @classmethod
    def from_bytes(cls, raw: bytes) -> Curve:
        """Read a curve that came over the network.

        Raises:
            PayloadError: bytes are missing or too many, or numbers are not finite, not above 0, or out of order.

        Example:
            >>> Curve.from_bytes(Curve(np.array([4.0, 1.0]), np.array([1.0, 16.0])).to_bytes()).energies_j
            array([ 1., 16.])
            >>> Curve.from_bytes(bytes(8))
            Traceback (most recent call last):
                ...
            joulewise.errors.PayloadError: a curve has a price of 0.0 at point 0, expected finite numbers above 0
        """
        if len(raw) % 8 or len(raw) > 8 * POINTS:
            raise PayloadError(f"a curve has {len(raw)} bytes, expected a multiple of 8 and at most {8 * POINTS}")
        numbers = np.frombuffer(raw, "<f4").reshape(-1, 2).astype(np.float64)
        prices, energies = numbers[:, 0].copy(), numbers[:, 1].copy()
        fault = _fault(prices, energies)
        if fault:
            raise PayloadError(f"a curve has {fault}")
        return cls(prices, energies)


def _fault(prices: Floats, energies: Floats) -> str | None:
    """What is wrong with the numbers of a curve."""
    if not (prices.ndim == energies.ndim == 1 and prices.size == energies.size):
        return f"{prices.shape} prices and {energies.shape} energies, expected as many of both"
    for name, numbers in (("a price", prices), ("an energy", energies)):
        wrong = np.flatnonzero(~((numbers > 0) & (numbers < math.inf)))
        if wrong.size:
            return f"{name} of {numbers[wrong[0]]} at point {wrong[0]}, expected finite numbers above 0"
    if (np.diff(prices) >= 0).any():
        return f"prices that do not fall at point {int(np.argmax(np.diff(prices) >= 0)) + 1}"
    if (np.diff(energies) < 0).any():
        return f"energies that fall at point {int(np.argmax(np.diff(energies) < 0)) + 1}"
    return None


# ---------------------------------------------------------------- from an update


def curve_of(a: Any, costs: Costs, rule: Rule, points: int = POINTS) -> Curve:
    """What masks of an update cost at each price.

    With MinVariance a coordinate is kept with chance ``min(1, |a| / sqrt(v c))`` at price v, and energies are expected
    ones: ``E(v) = sum of c where a^2/c >= v, and v^(-1/2) sum of |a| sqrt(c) elsewhere``.

    One pass sums the energy of coordinates in bins of value per joule, 64 to each power of two. Energies at the points
    are exact: those that ``select`` spends under ``Price``. Points are put where straight lines between those that are
    there are most wrong.

    Args:
        a: float32[n], the update (with the residual, if there is one).
        costs: prices, of tensors or of coordinates.
        rule: CWMP, Projection or MinVariance, which have a value per joule.
        points: how many at most, from 2 to 64.

    Raises:
        RuleError: the rule has no value per joule.
        UpdateError: `a` has another length, or holds NaN or infinity.
        ArgumentError: `points` is out of range.

    Example:
        >>> from joulewise.rules import CWMP
        >>> a = np.array([4.0, -2.0, 0.0, 1.0], np.float32)
        >>> curve = curve_of(a, Costs.of(np.array([1.0, 2.0, 1.0, 4.0])), CWMP())
        >>> curve.prices[[0, -1]].tolist(), curve.energies_j[[0, -1]].tolist(), round(curve.energy_at(1.0), 9)
        ([4.0, 0.25], [1.0, 7.0], 3.0)
    """
    norm = exponent_of(rule)
    if norm is None:
        raise RuleError(
            f"curve_of is given {type(rule).__name__}, expected CWMP, Projection or MinVariance: a value per joule"
        )
    if not 2 <= points <= POINTS:
        raise ArgumentError(f"points is {points}, expected from 2 to {POINTS}")
    vector = checked_vector(a, costs.layout)
    if isinstance(rule, MinVariance):
        prices, energies = _slopes(_binned(vector, costs, norm), _binned(vector, costs, norm, roots=True))
    else:
        prices, energies = _steps(_binned(vector, costs, norm))
    if prices.size <= points:
        return Curve(prices, energies)
    value = float(prices[1:] @ np.diff(energies))  # What comes before the first price has no end with MinVariance.
    value += 0.0 if isinstance(rule, MinVariance) else float(prices[0] * energies[0])
    weights = np.maximum(_fine(energies, energies[-1]), _fine(energies * prices, value))
    chosen = _chosen(-np.log(prices), np.log(energies), weights, points)
    return Curve(prices[chosen], energies[chosen])


def exponent_of(rule: Rule) -> int | None:
    """Power in a rule's values, p: 1 for magnitudes, 2 for squares and squared errors (MinVariance), or None.

    Example:
        >>> from joulewise.rules import CWMP, TopK
        >>> exponent_of(CWMP()), exponent_of(MinVariance()), exponent_of(TopK())
        (1, 2, None)
    """
    return 2 if isinstance(rule, MinVariance) else getattr(rule, "norm", None)


def _binned(vector: Vector, costs: Costs, norm: int, roots: bool = False) -> Floats:
    """Energy of the coordinates of each bin of value per joule, or their sum of ``|a| sqrt(c)``: float64[BINS]."""
    found = np.zeros(BINS)
    for tensor, start, stop in Ranking(vector, costs.layout.offsets, costs.per_kept).segments():
        magnitudes = np.abs(vector[start:stop], dtype=np.float64)
        if not np.isfinite(magnitudes).all():
            raise not_finite(start + int(np.argmin(np.isfinite(magnitudes))), costs.layout)
        there = magnitudes > 0
        each = costs.per_kept[start:stop][there] if costs.per_coordinate else costs.per_kept[tensor]
        bins = _bins(magnitudes[there], each, norm)
        if bins.size:
            first = int(bins.min())
            weights = magnitudes[there] if roots else each if costs.per_coordinate else None
            weights = weights * np.sqrt(each) if roots else weights
            sums = np.bincount(bins - first, weights=weights)
            found[first : first + sums.size] += sums if roots or costs.per_coordinate else sums * each
    return found


def _bins(magnitudes: Floats, per_kept: Any, norm: int) -> Int64:
    """Bins of values per joule: the top bits of the number, so that they rise with it and their edges are exact."""
    with np.errstate(over="ignore", under="ignore"):
        worth = (np.square(magnitudes) if norm == 2 else magnitudes) / per_kept
    bins: Int64 = np.clip(worth, CHEAPEST, DEAREST).view(np.int64) >> SHIFT
    return bins


def _edges(bins: Int64) -> Floats:
    return (bins << SHIFT).view(np.float64)


def _steps(binned: Floats) -> tuple[Floats, Floats]:
    """Every point of the curve that bins can tell, with both ends of each gap in which there is nothing."""
    bins = np.flatnonzero(binned)[::-1]
    energies = np.cumsum(binned[bins])
    gaps = np.flatnonzero(np.diff(bins) < -1)
    every = np.concatenate([bins, bins[gaps + 1] + 1])
    order = np.argsort(-every)
    return _edges(every[order]), np.concatenate([energies, energies[gaps]])[order]


def _slopes(binned: Floats, roots: Floats) -> tuple[Floats, Floats]:
    """The same for MinVariance, between whose edges nothing is flat: at all edges, and far above them."""
    bins = np.flatnonzero(binned)
    if not bins.size:
        return np.empty(0), np.empty(0)
    first, last = int(bins[0]), int(bins[-1]) + 1
    edges = _edges(np.arange(first, last + 1))
    certain = np.append(np.cumsum(binned[first:last][::-1])[::-1], 0.0)
    drawn = np.append(0.0, np.cumsum(roots[first:last]))
    energies = np.maximum.accumulate((certain + drawn / np.sqrt(edges))[::-1])
    # Above all edges energies fall as 1 / sqrt(price): a straight line, of which one more point is enough.
    top = min(DEAREST, max(2 * edges[-1], (drawn[-1] / (LEAST * energies[-1])) ** 2))
    if top <= edges[-1]:
        return edges[::-1], energies
    return np.append(top, edges[::-1]), np.append(drawn[-1] / math.sqrt(top), energies)


def _fine(part: Floats, whole: float) -> Floats:
    """Near 1 where a part matters beside the whole, and falling below that."""
    return part / (part + FINEST * whole)


def _chosen(x: Floats, y: Floats, weights: Floats, points: int) -> list[int]:
    """Both ends, and again and again the point that lies furthest from the lines between those that are chosen."""
    chosen = [0, x.size - 1]
    while len(chosen) < points:
        errors = np.abs(np.interp(x, x[chosen], y[chosen]) - y) * weights
        errors[chosen] = -1.0
        insort(chosen, int(np.argmax(errors)))
    return chosen
