"""Laws of magnitudes with a scale and a shape, each beside a point mass at zero, fitted by moments.

The Laplace law and the quantiles go without scipy; the others need the extra ``theory``.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Self

import numpy as np
import numpy.typing as npt

from joulewise.errors import MissingExtra
from joulewise.laws import Floats, Law, Quantiles

USER = "this law of magnitudes"
"""What needs scipy, as an error says it."""

FURTHEST = 690.0
"""Beyond so many scales an exponential law has nothing left that float64 can tell from 0."""


@dataclass(frozen=True, eq=False)
class _Scaled(Law, ABC):
    """A symmetric law of what is not zero, in units of a scale, beside a point mass at zero.

    Args:
        nonzero: float64[tensors], how many coordinates are not zero.
        scale: float64[tensors], above 0.
    """

    nonzero: Floats
    scale: Floats

    @classmethod
    def of(cls, tensors: Sequence[npt.NDArray[Any]]) -> Self:
        """Fit the law to the moments of each tensor."""
        return cls._fitted(Moments.of(tensors))

    @classmethod
    @abstractmethod
    def _fitted(cls, moments: Moments) -> Self:
        """The law that has these moments."""

    def beyond(self, thresholds: Floats, power: int) -> Floats:
        """Expected sum of ``|a|^power`` over what exceeds the thresholds: float64[tensors]."""
        with np.errstate(over="ignore"):  # Infinity, which nothing exceeds.
            tails = thresholds / self.scale
        return np.asarray(self.nonzero * self.scale**power * self._upper(tails, power))

    @abstractmethod
    def _upper(self, tail: Floats, power: int) -> Floats:
        """Mean of ``x^power`` where x exceeds `tail`, and 0 elsewhere, of one coordinate in units of the scale."""


@dataclass(frozen=True, eq=False)
class Laplace(_Scaled):
    """Exponential magnitudes: ``E[x^p; x > t] = p! exp(-t) (1 + t + ... + t^p / p!)``. Fitted to the mean magnitude.

    Example:
        >>> law = Laplace(np.array([100.0]), np.array([1.0]))
        >>> law.beyond(np.array([1.0]), 0).round(2), law.beyond(np.array([1.0]), 1).round(2)
        (array([36.79]), array([73.58]))
    """

    name: ClassVar[str] = "laplace"

    @classmethod
    def _fitted(cls, moments: Moments) -> Self:
        return cls(moments.nonzero, moments.mean)

    def _upper(self, tail: Floats, power: int) -> Floats:
        tail = np.minimum(tail, FURTHEST)
        terms = sum(tail**k / math.factorial(k) for k in range(power + 1))
        return np.asarray(math.factorial(power) * np.exp(-tail) * terms, dtype=np.float64)


@dataclass(frozen=True, eq=False)
class Normal(_Scaled):
    """Normal coordinates, fitted to the mean square: ``E[x^p; x > t] = 2^(p/2) Q((p+1)/2, t^2/2) G((p+1)/2)/G(1/2)``.

    Q is the regularised upper incomplete gamma function and G the gamma function.
    """

    name: ClassVar[str] = "normal"

    @classmethod
    def _fitted(cls, moments: Moments) -> Self:
        return cls(moments.nonzero, np.sqrt(moments.square))

    def _upper(self, tail: Floats, power: int) -> Floats:
        return math.sqrt(2.0) ** power * _gamma_upper(np.full_like(tail, 2.0), tail / math.sqrt(2.0), power)


@dataclass(frozen=True, eq=False)
class GeneralisedNormal(_Scaled):
    """Density in proportion to ``exp(-x^b)``, by moments: 2 is the normal law, 1 Laplace, below 1 heavier tails.

    ``E[x^p; x > t] = Q((p+1)/b, t^b) G((p+1)/b) / G(1/b)``. The shape b solves
    ``G(2/b)^2 / (G(1/b) G(3/b)) = (mean magnitude)^2 / mean square``: S. Mallat, "A theory for multiresolution signal
    decomposition", IEEE TPAMI 11(7), 1989.

    Args:
        nonzero: float64[tensors], how many coordinates are not zero.
        scale: float64[tensors], above 0.
        shape: float64[tensors], the exponent b.
    """

    shape: Floats

    name: ClassVar[str] = "generalised-normal"

    @classmethod
    def _fitted(cls, moments: Moments) -> Self:
        special = scipy_special()

        def ratio(shape: float) -> float:
            logs = special.gammaln(np.array([2.0, 1.0, 3.0]) / shape)
            return float(np.exp(2 * logs[0] - logs[1] - logs[2]))

        shape = np.array([_solved(ratio, each, 0.15, 20.0) for each in moments.ratio])
        return cls(
            moments.nonzero, moments.mean * np.exp(special.gammaln(1 / shape) - special.gammaln(2 / shape)), shape
        )

    def _upper(self, tail: Floats, power: int) -> Floats:
        return _gamma_upper(self.shape, tail, power)


@dataclass(frozen=True, eq=False)
class StudentT(_Scaled):
    """Student's t with more than 2 degrees of freedom v, by moments; needs v > 2 for a squared L2 mass.

    ``E[x^p; x > t] = v^(p/2) I(v / (v + t^2); (v-p)/2, (p+1)/2) B((v-p)/2, (p+1)/2) / B(v/2, 1/2)``, I the regularised
    incomplete beta function. v solves ``E[x]^2 / E[x^2] = (mean magnitude)^2 / mean square``, which exists below the
    normal law's 2/pi; lighter tails get the largest v.

    Args:
        nonzero: float64[tensors], how many coordinates are not zero.
        scale: float64[tensors], above 0.
        degrees: float64[tensors], v.
    """

    degrees: Floats

    name: ClassVar[str] = "student-t"

    @classmethod
    def _fitted(cls, moments: Moments) -> Self:
        special = scipy_special()

        def mean(degrees: float) -> float:
            return float(2 * math.sqrt(degrees) / (degrees - 1) / special.beta(degrees / 2, 0.5))

        def ratio(degrees: float) -> float:
            return mean(degrees) ** 2 * (degrees - 2) / degrees

        degrees = np.array([_solved(ratio, each, 2.0 + 1e-6, 1e4) for each in moments.ratio])
        return cls(moments.nonzero, np.sqrt(moments.square * (degrees - 2) / degrees), degrees)

    def below(self, thresholds: Floats, power: int) -> Floats:
        """Expected sum of ``|a|^power`` over what does not exceed the thresholds, finite where the whole is not too."""
        if power < 3:
            return super().below(thresholds, power)
        special = scipy_special()
        # With y = 1 + x^2/v the integral of x^3 (1 + x^2/v)^(-(v+1)/2) is one of powers of y.
        half = (self.degrees + 1) / 2
        end = 1 + (thresholds / self.scale) ** 2 / self.degrees
        integral = self.degrees**2 / 2 * (special.boxcox(end, 2 - half) - special.boxcox(end, 1 - half))
        density = 2 / (np.sqrt(self.degrees) * special.beta(self.degrees / 2, 0.5))
        return np.asarray(self.nonzero * self.scale**3 * density * integral, dtype=np.float64)

    def _upper(self, tail: Floats, power: int) -> Floats:
        special = scipy_special()
        first, second = (self.degrees - power) / 2, (power + 1) / 2
        found = np.full(tail.shape, math.inf)
        have = first > 0
        with np.errstate(over="ignore"):  # beyond what float64 holds nothing is left
            share = special.betainc(first[have], second, self.degrees[have] / (self.degrees[have] + tail[have] ** 2))
        whole = special.beta(first[have], second) / special.beta(self.degrees[have] / 2, 0.5)
        found[have] = self.degrees[have] ** (power / 2) * share * whole
        return found


LAWS: tuple[type[Quantiles | Normal | Laplace | GeneralisedNormal | StudentT], ...] = (
    Quantiles,
    Normal,
    Laplace,
    GeneralisedNormal,
    StudentT,
)
"""Every law that updates can be fitted to; the first is the default."""


# ---------------------------------------------------------------- moments


@dataclass(frozen=True, eq=False)
class Moments:
    """What the laws with a scale are fitted to, of the coordinates that are not zero.

    Args:
        nonzero: float64[tensors], how many.
        mean: float64[tensors], mean magnitude; 1 where all are zero.
        square: float64[tensors], mean square; 1 where all are zero.
    """

    nonzero: Floats
    mean: Floats
    square: Floats

    @classmethod
    def of(cls, tensors: Sequence[npt.NDArray[Any]]) -> Moments:
        """Measure each tensor."""
        nonzero = np.array([np.count_nonzero(each) for each in tensors], dtype=np.float64)
        sums = [[float((np.abs(each, dtype=np.float64) ** power).sum()) for each in tensors] for power in (1, 2)]
        mean, square = (np.where(nonzero > 0, np.array(each) / np.maximum(nonzero, 1), 1.0) for each in sums)
        return cls(nonzero, mean, square)

    @property
    def ratio(self) -> Floats:
        """Squared mean magnitude over mean square, at most 1: the smaller, the heavier the tails."""
        return self.mean**2 / self.square


def _solved(rising: Callable[[float], float], target: float, low: float, high: float) -> float:
    """Where a rising function meets the target, or the end that is nearer."""
    if target <= rising(low):
        return low
    if target >= rising(high):
        return high
    return float(_scipy().optimize.brentq(lambda each: rising(each) - target, low, high, xtol=1e-12))


def _gamma_upper(shape: Floats, tail: Floats, power: int) -> Floats:
    special = scipy_special()
    first = (power + 1) / shape
    whole = np.exp(special.gammaln(first) - special.gammaln(1 / shape))
    with np.errstate(over="ignore"):
        return np.asarray(whole * special.gammaincc(first, tail**shape), dtype=np.float64)


def scipy_special(user: str = USER) -> Any:
    """Gamma and beta functions.

    Args:
        user: what needs them, for the error.

    Raises:
        MissingExtra: scipy is not installed.
    """
    return _scipy(user).special


def _scipy(user: str = USER) -> Any:
    try:
        import scipy.optimize  # noqa: PLC0415 (of the extra `theory`: quantiles and Laplace go without)
        import scipy.special  # noqa: PLC0415
    except ImportError as error:
        raise MissingExtra("theory", user) from error
    return scipy
