"""How numbers are written for people: units that fit them, and as many digits as they bear."""

from __future__ import annotations

import math
from collections.abc import Sequence

import msgspec

from joulewise.devices import Unit
from joulewise.pareto import Interval

SI = {-12: "p", -9: "n", -6: "µ", -3: "m", 0: "", 3: "k", 6: "M", 9: "G", 12: "T"}
COUNTS = {0: "ones", 3: "thousands", 6: "millions", 9: "billions"}
RELATIVE = {
    0: "relative units",
    3: "thousand relative units",
    6: "million relative units",
    9: "billion relative units",
}


class Scale(msgspec.Struct, frozen=True):
    """A unit that fits the numbers of a column: what to divide by, and what the unit is then called."""

    divisor: float
    name: str


def energy_unit(unit: Unit, exponent: int) -> Scale:
    """A unit of energy for numbers of about ``10**exponent``."""
    if unit == "J":
        return Scale(10.0**exponent, f"{SI[exponent]}J")
    exponent = min(max(exponent, 0), max(RELATIVE))
    return Scale(10.0**exponent, RELATIVE[exponent])


def bytes_scale(values: Sequence[float]) -> Scale:
    """The unit for numbers of bytes: B, kB (1000 B), MB."""
    exponent = max(0, exponent_of(values))
    return Scale(10.0**exponent, f"{SI[exponent]}B")


def count_scale(values: Sequence[float]) -> Scale:
    """The unit for large counts: one, thousand, million."""
    exponent = min(max(0, exponent_of(values)), max(COUNTS))
    return Scale(10.0**exponent, COUNTS[exponent])


def exponent_of(values: Sequence[float]) -> int:
    """The power of a thousand that fits the middle one of these numbers, as an exponent of ten."""
    sizes = sorted(abs(value) for value in values if value)
    if not sizes:
        return 0
    exponent = 3 * math.floor(math.log10(sizes[len(sizes) // 2]) / 3)
    return min(max(exponent, min(SI)), max(SI))


def number(value: float) -> str:
    """A number with three significant digits, and at least its whole part.

    Example:
        >>> number(0.012345), number(12.345), number(12345.6), number(0)
        ('0.0123', '12.3', '12,346', '0')
    """
    if value == 0:
        return "0"
    rounded = float(f"{value:.2e}")  # 9.996 has one digit less after the point than its size says
    digits = max(0, 2 - math.floor(math.log10(abs(rounded))))
    return f"{value:,.{digits}f}"


def percent(found: Interval) -> str:
    """A share as percent with its interval: ``93.1 ± 0.8``, or ``93.1 (one seed)``."""
    if found.half is None:
        return f"{100 * found.mean:.1f} (one seed)"
    return f"{100 * found.mean:.1f} ± {100 * found.half:.1f}"


def scaled(found: Interval, scale: Scale) -> str:
    """A mean with its interval in a unit: ``12.3 ± 0.4``."""
    mean = number(found.mean / scale.divisor)
    return mean if not found.half else f"{mean} ± {_half(found.half / scale.divisor, mean)}"


def _half(half: float, mean: str) -> str:
    digits = len(mean.partition(".")[2])
    shown = f"{half:,.{digits}f}"
    return shown if float(shown.replace(",", "")) else f"{half:.1g}"


def counted(count: int, noun: str) -> str:
    """A count with its noun: ``1 seed``, ``3 seeds``."""
    return f"{count} {noun}" if count == 1 else f"{count} {noun}s"
