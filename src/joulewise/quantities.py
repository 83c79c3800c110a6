"""Numbers with a unit and an origin: the leaves of a device profile.

Units are read strictly: a prefix and a unit, or two of them with ``/`` between, in the spelling of the SI
(``pJ/bit``, ``nJ/byte``, ``Mbit/s``, ``KiB``, ``Wh``); names and plurals (``joules``, ``bits``) are refused. A unit of
another dimension is refused, so that energy per access cannot stand where energy per bit is due.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from fractions import Fraction
from functools import lru_cache
from typing import TYPE_CHECKING, Annotated, ClassVar, Literal, TypeVar

import msgspec

if TYPE_CHECKING:
    import pint

Evidence = Literal["measured", "datasheet", "literature", "model", "assumed"]
"""How a number is known. ``model``: fitted or derived; ``assumed``: second-hand, remembered or chosen."""

Dimension = tuple[tuple[str, int], ...]
"""Exponents of ``[energy]``, ``[information]`` and ``[time]``, in this order, those that are not 0."""

SMALLEST, LARGEST = 1e-24, 1e24
"""Bounds of a number as it is written and in base units: beyond them products overflow or vanish."""

_UNITS = """
femto- = 1e-15 = f-
pico- = 1e-12 = p-
nano- = 1e-9 = n-
micro- = 1e-6 = µ- = u-
milli- = 1e-3 = m-
kilo- = 1e3 = k-
mega- = 1e6 = M-
giga- = 1e9 = G-
tera- = 1e12 = T-
peta- = 1e15 = P-
kibi- = 1024 = Ki-
mebi- = 1048576 = Mi-
gibi- = 1073741824 = Gi-
joule = [energy] = J
bit = [information]
second = [time] = s
watt = joule / second = W
watt_hour = 3600 * joule = Wh
byte = 8 * bit = B
hertz = 1 / second = Hz
"""

# pint also takes names, plurals and mixtures (joules, kiloJ, bits), which only make a slip harder to see.
_SYMBOL = re.compile(r"(?:[fpnumkMGTPµ]|[KMG]i)?(?:J|Wh|W|s|Hz|bit|byte|B)")

_WORDS: Mapping[Dimension, str] = {
    (("[energy]", 1),): "energy (J)",
    (("[energy]", 1), ("[information]", -1)): "energy per bit (J/bit)",
    (("[energy]", 1), ("[time]", -1)): "power (W)",
    (("[information]", 1),): "size (byte)",
    (("[information]", 1), ("[time]", -1)): "rate (bit/s)",
    (("[time]", 1),): "time (s)",
    (("[time]", -1),): "frequency (Hz)",
}


class Quantity(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One number of a profile and where it comes from; a subclass accepts the units of its dimension.

    Args:
        value: the number, above 0, from 1e-24 to 1e24.
        unit: a unit of the dimension, letter by letter: ``mJ`` and ``MJ`` differ by a factor of 1e9.
        kind: how the number is known.
        source: where it can be looked up, in words for a reader.
        year: of the source.

    Raises:
        ValueError: the unit is unknown or of another dimension, the number is out of range, or the source is empty.
    """

    dimension: ClassVar[Dimension] = ()
    units: ClassVar[tuple[str, ...]] = ()
    """Units for messages; those of a dimension that is no physical one are the only ones."""

    value: float
    unit: str
    kind: Evidence
    source: str
    year: Annotated[int, msgspec.Meta(ge=1900, le=2100)]

    def __post_init__(self) -> None:
        factor = self._factor()
        if not self.value > 0 or self.value == float("inf"):
            raise ValueError(f"`value` is {self.value}, expected a finite number above 0")
        if not (SMALLEST <= self.value <= LARGEST and SMALLEST <= self.value * factor <= LARGEST):
            raise ValueError(
                f"`value` is {self.value} {self.unit}, expected a number from {SMALLEST:g} to {LARGEST:g}, as written "
                "and in base units; check the number and the prefix of its unit"
            )
        if not self.source.strip():
            raise ValueError("`source` is empty, expected where the number comes from")

    @property
    def si(self) -> float:
        """The number in the base unit of its dimension: J, J/bit, W, bit/s, byte, s, Hz, or 1.

        Example:
            >>> EnergyPerBit(80.0, "pJ/byte", "assumed", "a guess", 2026).si
            1e-11
        """
        return self.value * self._factor()

    def _factor(self) -> float:
        if not self.dimension:
            if self.unit not in self.units:
                raise ValueError(f"`unit` is {self.unit!r}, expected {' or '.join(map(repr, self.units))}")
            return 1.0
        factor, dimension = _read(self.unit, self.units)
        if dimension != self.dimension:
            came, expected = _WORDS.get(dimension, "nothing that a profile holds"), _WORDS[self.dimension]
            raise ValueError(
                f"`unit` is {self.unit!r}, a unit of {came}; expected {expected}, such as {', '.join(self.units)}"
            )
        return factor


class EnergyPerBit(Quantity, frozen=True):
    """Energy of moving one bit, in J/bit."""

    dimension: ClassVar[Dimension] = (("[energy]", 1), ("[information]", -1))
    units: ClassVar[tuple[str, ...]] = ("pJ/bit", "nJ/bit", "nJ/byte")


class Energy(Quantity, frozen=True):
    """Energy of an event, or in a battery, in J."""

    dimension: ClassVar[Dimension] = (("[energy]", 1),)
    units: ClassVar[tuple[str, ...]] = ("uJ", "mJ", "J", "Wh")


class EnergyPerOperation(Quantity, frozen=True):
    """Energy of one arithmetic operation, or of all that one update of a number takes, in J."""

    dimension: ClassVar[Dimension] = (("[energy]", 1),)
    units: ClassVar[tuple[str, ...]] = ("pJ", "nJ")


class Power(Quantity, frozen=True):
    """Power that is drawn while something lasts, in W."""

    dimension: ClassVar[Dimension] = (("[energy]", 1), ("[time]", -1))
    units: ClassVar[tuple[str, ...]] = ("uW", "mW", "W")


class Rate(Quantity, frozen=True):
    """Payload per second, in bit/s."""

    dimension: ClassVar[Dimension] = (("[information]", 1), ("[time]", -1))
    units: ClassVar[tuple[str, ...]] = ("kbit/s", "Mbit/s", "MB/s")


class Size(Quantity, frozen=True):
    """An amount of memory or payload, in bytes."""

    dimension: ClassVar[Dimension] = (("[information]", 1),)
    units: ClassVar[tuple[str, ...]] = ("byte", "kB", "KiB", "MiB")

    @property
    def si(self) -> float:
        """The number in bytes.

        Example:
            >>> Size(4.0, "KiB", "datasheet", "a chip", 2026).si
            4096.0
        """
        return self.value * (self._factor() / 8.0)  # the base unit of information is the bit


class Duration(Quantity, frozen=True):
    """How long something lasts, in s."""

    dimension: ClassVar[Dimension] = (("[time]", 1),)
    units: ClassVar[tuple[str, ...]] = ("us", "ms", "s")


class Frequency(Quantity, frozen=True):
    """Bandwidth of a radio channel, in Hz."""

    dimension: ClassVar[Dimension] = (("[time]", -1),)
    units: ClassVar[tuple[str, ...]] = ("Hz", "kHz", "MHz")


class Relative(Quantity, frozen=True):
    """A price that means something only beside the other prices of its profile."""

    units: ClassVar[tuple[str, ...]] = ("relative",)


class Share(Quantity, frozen=True):
    """A part of a whole, at most 100 %; `si` is the part as a number up to 1."""

    units: ClassVar[tuple[str, ...]] = ("%",)

    def __post_init__(self) -> None:
        Quantity.__post_init__(self)
        if self.value > 100:
            raise ValueError(f"`value` is {self.value}, expected a share of at most 100 %")

    @property
    def si(self) -> float:
        """The part as a number up to 1."""
        return self.value * 0.01


class Factor(Quantity, frozen=True):
    """How many times as much: a plain number of at least 1, unit ``1``."""

    units: ClassVar[tuple[str, ...]] = ("1",)

    def __post_init__(self) -> None:
        Quantity.__post_init__(self)
        if self.value < 1:
            raise ValueError(f"`value` is {self.value}, expected a factor of at least 1")


class Number(Quantity, frozen=True):
    """A whole number of at least 1, unit ``1``."""

    units: ClassVar[tuple[str, ...]] = ("1",)

    def __post_init__(self) -> None:
        Quantity.__post_init__(self)
        if self.value != int(self.value):
            raise ValueError(f"`value` is {self.value}, expected a whole number of at least 1")


Kind = TypeVar("Kind", bound=Quantity)


def parse(text: str, dimension: type[Kind], source: str, year: int, kind: Evidence = "assumed") -> Kind:
    """A number with its unit, as it is typed on a command line.

    Args:
        text: such as ``20Mbit/s`` or ``20 Mbit/s``.
        dimension: what is expected.
        source: where the number comes from.
        year: of the source.
        kind: how the number is known.

    Raises:
        ValueError: there is no number or no unit, or they are not of this dimension.

    Example:
        >>> parse("20Mbit/s", Rate, "a command line", 2026).si
        20000000.0
    """
    found = re.fullmatch(r"\s*([+-]?[0-9.]+(?:[eE][+-]?[0-9]+)?)\s*([^\s\d.]\S*)\s*", text)
    try:
        value = float(found[1]) if found else None
    except ValueError:
        value = None
    if found is None or value is None:
        raise ValueError(f"expected a number and a unit, such as 20{dimension.units[-1]}, got {text!r}")
    return dimension(value, found[2], kind, source, year)


@lru_cache(maxsize=1)
def _registry() -> pint.UnitRegistry[Fraction]:
    import pint  # noqa: PLC0415 (takes half a second: only where a profile is read, never at `import joulewise`)

    # Fractions: the factor of a unit is exact, and becomes the nearest double.
    registry: pint.UnitRegistry[Fraction] = pint.UnitRegistry(None, non_int_type=Fraction)
    registry.load_definitions(_UNITS.strip().splitlines())
    return registry


@lru_cache(maxsize=1024)
def _read(unit: str, examples: tuple[str, ...]) -> tuple[float, Dimension]:
    """Factor to base units and dimension of a unit; `examples` are for the message alone."""
    hint = f"expected {', '.join(examples)} or the like, letter by letter"
    # More than a name over a name would only hide slips, and the parser knows powers and numbers too.
    if not re.fullmatch(r"[A-Za-zµ_]{1,24}(/[A-Za-z_]{1,24})?", unit):
        raise ValueError(f"`unit` is {unit!r}, which is no unit; {hint}")
    import pint  # noqa: PLC0415

    try:
        parsed = _registry().parse_units(unit)
        factor = _registry().get_root_units(parsed)[0]
        powers = {str(base): int(str(power)) for base, power in parsed.dimensionality.items()}
    except pint.errors.UndefinedUnitError as error:
        name = re.findall(r"'([^']*)'", str(error))[0]
        raise ValueError(f"`unit` is {unit!r}, but there is no unit {name!r}; {hint}{_meant(name)}") from None
    except Exception as error:  # pint raises errors of several modules for malformed text
        raise ValueError(f"`unit` is {unit!r}, which is no unit; {hint}") from error
    if not all(_SYMBOL.fullmatch(name) for name in unit.split("/")):
        short = f"{parsed:~}".replace(" ", "").replace("µ", "u")
        raise ValueError(f"`unit` is {unit!r}, but units are written by their symbols; write {short!r}")
    return float(Fraction(str(factor))), tuple(sorted(powers.items()))


def _meant(name: str) -> str:
    if name in {"b", "Mb", "kb", "Gb"}:
        return "; write bit or byte: b alone may be either"
    if name.endswith("bps"):
        return f"; write {name.removesuffix('bps')}bit/s"
    if name[-1:] in {"j", "w"} and len(name) <= 2:
        return f"; did you mean {name[:-1]}{name[-1].upper()}? (J and W are capital letters)"
    return ""
