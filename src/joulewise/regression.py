"""Straight lines through measured points, with the intervals that their scatter leaves."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import msgspec
import numpy as np

from joulewise.errors import MissingExtra

CONFIDENCE = 0.95
POINTS = 3
"""Fewest points for a line with an interval."""
R_SQUARED = 0.95
RESIDUAL = 0.15


class Line(msgspec.Struct, frozen=True, kw_only=True):
    """``y = intercept + slope * x`` by least squares, with 95 % intervals.

    Args:
        slope: in units of y per unit of x.
        slope_half: half the width of its interval.
        intercept: in units of y.
        intercept_half: half the width of its interval.
        r_squared: part of the weighted spread of y that the line explains.
        worst: largest distance of a point from the line, as a part of the point's y.
        points: number of points.
    """

    slope: float
    slope_half: float
    intercept: float
    intercept_half: float
    r_squared: float
    worst: float
    points: int

    @property
    def note(self) -> str | None:
        """Why a straight line does not fit, in words, or None where it does.

        Example:
            >>> fit([1, 2, 3, 4], [1, 4, 9, 16], [1, 1, 1, 1]).note
            'a straight line misses one of the 4 points by 100 %'
        """
        if self.worst > RESIDUAL:
            return f"a straight line misses one of the {self.points} points by {100 * self.worst:.0f} %"
        if self.r_squared < R_SQUARED:
            return f"a straight line explains little of the spread (R2 = {self.r_squared:.2f})"
        return None

    @property
    def rises(self) -> bool:
        """Whether the slope is above 0 by more than its interval."""
        return self.slope > self.slope_half


def fit(x: Sequence[float], y: Sequence[float], scale: Sequence[float]) -> Line:
    """Weighted least squares: minimise ``sum(((y - intercept - slope * x) / scale)^2)``.

    Intervals are Student's: ``t(n-2) * standard error``, the standard errors from the weighted residuals (Draper and
    Smith, Applied Regression Analysis, chapters 1 and 9).

    Args:
        x: shape (n,), at least three points, not all equal.
        y: shape (n,).
        scale: shape (n,), above 0; how far y scatters at each point, up to a common factor. Clocks and counters
            scatter in proportion to what they read, so that is usually the reading itself.

    Raises:
        ValueError: there are too few points, or all have one x.
        MissingExtra: SciPy is not installed.

    Example:
        >>> line = fit([1, 2, 3, 4], [5.1, 6.9, 9.0, 11.0], [5, 7, 9, 11])
        >>> round(line.slope, 2), round(line.slope_half, 2), round(line.intercept, 1), line.points
        (1.96, 0.21, 3.1, 4)
    """
    if len(x) < POINTS or min(x) == max(x):
        raise ValueError(f"fit(x) needs at least {POINTS} points that are not all at one x, but got {list(x)}")
    across, up, weight = np.asarray(x, float), np.asarray(y, float), 1 / np.asarray(scale, float)
    unit = across.max()  # else the columns of the design differ by many orders of magnitude
    design = np.stack([weight, weight * across / unit], axis=1)
    coefficients = np.linalg.lstsq(design, weight * up, rcond=None)[0]
    residuals = weight * up - design @ coefficients
    freedom = len(across) - 2
    variance = float(residuals @ residuals) / freedom * np.diag(np.linalg.inv(design.T @ design))
    halves = _t_quantile(freedom, (1 + CONFIDENCE) / 2) * np.sqrt(variance)
    return Line(
        slope=float(coefficients[1] / unit),
        slope_half=float(halves[1] / unit),
        intercept=float(coefficients[0]),
        intercept_half=float(halves[0]),
        r_squared=_r_squared(up, weight, residuals),
        worst=_worst(up, residuals / weight),
        points=len(across),
    )


def _r_squared(y: np.ndarray, weight: np.ndarray, residuals: np.ndarray) -> float:
    spread = weight * (y - np.average(y, weights=weight**2))
    total = float(spread @ spread)
    return 1 - float(residuals @ residuals) / total if total > 0 else 0.0


def _worst(y: np.ndarray, residuals: np.ndarray) -> float:
    with np.errstate(divide="ignore", invalid="ignore"):
        return float(np.nan_to_num(np.abs(residuals / y), nan=0.0, posinf=np.inf).max())


def half_width(values: Sequence[float]) -> float:
    """Half the width of the 95 % interval of a mean, by Student's t: ``t(n-1) * sd / sqrt(n)``; infinite for one value.

    Example:
        >>> round(half_width([0.90, 0.91, 0.92]), 3)
        0.025
    """
    if len(values) < 2:
        return float("inf")
    deviation = float(np.std(values, ddof=1))
    return _t_quantile(len(values) - 1, (1 + CONFIDENCE) / 2) * deviation / math.sqrt(len(values))


def need_scipy() -> None:
    """Look before a long measurement whether its intervals can be computed.

    Raises:
        MissingExtra: SciPy is not installed.
    """
    _special()


def _t_quantile(freedom: int, probability: float) -> float:
    return float(_special().stdtrit(freedom, probability))


def _special() -> Any:
    try:
        import scipy.special  # noqa: PLC0415 (only a calibration needs it)
    except ImportError as error:
        raise MissingExtra("theory", "an interval of a measured price") from error
    return scipy.special
