"""How far the energy of a message strays from its expectation: bounds that hold for any number of coordinates."""

from __future__ import annotations

import math

import msgspec
import numpy as np
import numpy.typing as npt

from joulewise.errors import ArgumentError
from joulewise.tensorwise import Floats


class Deviation(msgspec.Struct, frozen=True):
    """Bounds on the difference between realised and expected energy at a fixed threshold.

    Args:
        alarm: probability with which each bound may be exceeded, at most.
        variance: ``V = sum c^2 q (1 - q)``.
        bernstein: ``sqrt(2 V log(2/alarm)) + c_max log(2/alarm) / 3``.
        hoeffding: ``sqrt(log(2/alarm) sum c^2 / 2)``.
    """

    alarm: float
    variance: float
    bernstein: float
    hoeffding: float


def deviation(
    prices: npt.ArrayLike, chances: npt.ArrayLike, alarm: float = 0.01, sizes: npt.ArrayLike = 1.0
) -> Deviation:
    """Bound how far the energy of independent inclusions strays from ``sum c q``.

    Bernstein's inequality in the form of S. Boucheron, G. Lugosi and P. Massart, "Concentration Inequalities", Oxford
    2013, section 2.8: a sum of independent centred variables of at most c_max has a sub-gamma tail with variance V and
    scale ``c_max/3``. Hoeffding's inequality beside it knows the prices alone.

    Args:
        prices: float64[n], c; or one per tensor.
        chances: float64[n], q, from 0 to 1; or one per tensor.
        alarm: probability with which a bound may be exceeded, above 0 and below 1.
        sizes: how many coordinates each entry stands for.

    Raises:
        ArgumentError: `alarm` or a chance is out of range.

    Example:
        >>> found = deviation([1.0, 2.0], [0.5, 0.5], alarm=0.1)
        >>> found.variance, round(found.bernstein, 4), round(found.hoeffding, 4)
        (1.25, 4.7338, 2.7367)
    """
    c, q, n = np.broadcast_arrays(*(np.asarray(each, dtype=np.float64) for each in (prices, chances, sizes)))
    if not 0 < alarm < 1:
        raise ArgumentError(f"alarm is {alarm}, expected a probability above 0 and below 1, such as 0.01")
    if not ((c >= 0) & (c < math.inf)).all():
        raise ArgumentError("prices has a number that is negative or not finite, expected energies of at least 0")
    if not ((q >= 0) & (q <= 1)).all():
        raise ArgumentError("chances has a number outside of 0 to 1, expected the probability that each is kept")
    variance, log = float((n * c**2 * q * (1 - q)).sum()), math.log(2 / alarm)
    largest = float(np.max(c, initial=0.0, where=n > 0))
    hoeffding = math.sqrt(log / 2 * float((n * c**2).sum()))
    return Deviation(alarm, variance, math.sqrt(2 * variance * log) + largest * log / 3, hoeffding)


def variance_interval(prices: npt.ArrayLike, chances: npt.ArrayLike, draws: int, alarm: float) -> tuple[float, float]:
    """Where the mean of ``(energy - sum c q)^2`` over independent draws lies, over ``sum c^2 q (1 - q)``.

    The squared deviation of one draw has variance ``sum k4 + 2 V^2``, k4 the fourth cumulants of the two-point
    variables, ``c^4 q (1-q) (1 - 6 q (1-q))``; Chebyshev's inequality does the rest, so that nothing is assumed of how
    the mean is distributed.

    Args:
        prices: float64[n], c.
        chances: float64[n], q.
        draws: how many.
        alarm: probability outside of the interval, at most.

    Raises:
        ArgumentError: no energy is left to chance.

    Example:
        >>> low, high = variance_interval(np.ones(100), np.full(100, 0.5), draws=2000, alarm=1e-2)
        >>> round(low, 3), round(high, 3)
        (0.685, 1.315)
    """
    c, q = np.asarray(prices, dtype=np.float64), np.asarray(chances, dtype=np.float64)
    two: Floats = q * (1 - q)
    variance = float((c**2 * two).sum())
    if not variance > 0:
        raise ArgumentError("nothing is left to chance: expected a price above 0 with a chance between 0 and 1")
    fourth = float((c**4 * two * (1 - 6 * two)).sum())
    half = math.sqrt((fourth + 2 * variance**2) / (draws * alarm)) / variance
    return max(0.0, 1.0 - half), 1.0 + half
