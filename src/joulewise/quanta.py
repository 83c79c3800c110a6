"""Exact sums of energies: prices as whole multiples of one power of two."""

from __future__ import annotations

import math
from fractions import Fraction
from typing import Any

import numpy as np
import numpy.typing as npt

from joulewise.errors import CostError


def quanta(per_kept: npt.NDArray[Any], n: int) -> tuple[npt.NDArray[np.int64], float]:
    """Prices as whole multiples of one quantum, rounded up: sums of up to n of them are exact in int64.

    The quantum is ``2^(ceil(log2(n * max(per_kept))) - 62)``, computed in integers. Scaling by a power of two
    is exact, so prices times a power of two give the same multiples.

    Args:
        per_kept: prices, finite and above 0; any length.
        n: number of coordinates that may be summed.

    Returns:
        The multiples, int64 and at least 1, and the quantum.

    Raises:
        CostError: the prices are so small that their quantum is not a normal float64 (below about 1e-289).

    Example:
        >>> multiples, quantum = quanta(np.array([1.0, 10.0]), n=3)
        >>> multiples * quantum
        array([ 1., 10.])
    """
    prices = np.asarray(per_kept, dtype=np.float64)
    if not prices.size or n < 1:
        return np.zeros(prices.shape, dtype=np.int64), 1.0
    mantissa, exponent = math.frexp(float(prices.max()))
    largest_sum = int(math.ldexp(mantissa, 53)) * n
    power = (largest_sum - 1).bit_length() + exponent - 53 - 62
    if power < -1022:
        raise CostError(f"the largest price is {prices.max()}, too small to sum exactly; use a larger unit")
    # A price far below the quantum may underflow to 0 when scaled; rounded up it is 1.
    multiples = np.maximum(np.ceil(np.ldexp(prices, -power)), 1.0).astype(np.int64)
    return multiples, math.ldexp(1.0, power)


def budget_quanta(budget: float, quantum: float) -> int:
    """A budget as a whole number of quanta, rounded down and clipped to int64; negative if the budget is.

    Raises:
        CostError: the budget is NaN.

    Example:
        >>> budget_quanta(2.75, 0.5), budget_quanta(float("inf"), 0.5) == 2**63 - 1
        (5, True)
    """
    if math.isnan(budget):
        raise CostError("budget is NaN, expected a number")
    if math.isinf(budget):
        return 2**63 - 1 if budget > 0 else -(2**63)
    return max(-(2**63), min(2**63 - 1, math.floor(Fraction(budget) / Fraction(quantum))))
