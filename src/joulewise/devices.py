"""Device profiles: what moving a bit costs, each number with its unit and its origin.

A profile is one TOML file. A number in it is a table of value, unit, kind of evidence, source and year; a
number without an origin, or in a unit of another dimension, is refused.
"""

from __future__ import annotations

import math
import os
from collections.abc import Iterator, Mapping
from difflib import get_close_matches
from importlib import resources
from pathlib import Path
from typing import Annotated, ClassVar, Literal

import msgspec

from joulewise.errors import ProfileError

Unit = Literal["J", "relative"]
"""The unit of account of prices: joules, or relative prices that must never be called joules."""

Evidence = Literal["measured", "datasheet", "literature", "model", "assumed"]
"""How a number is known. ``model``: fitted or derived; ``assumed``: second-hand, remembered or chosen."""


class Quantity(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One number of a profile and where it comes from; a subclass accepts the units of its dimension.

    Args:
        value: the number, finite and above 0.
        unit: one of the units of the dimension, letter by letter.
        kind: how the number is known.
        source: where it can be looked up, in words for a reader.
        year: of the source.
    """

    units: ClassVar[Mapping[str, float]] = {}

    value: float
    unit: str
    kind: Evidence
    source: str
    year: Annotated[int, msgspec.Meta(ge=1900, le=2100)]

    def __post_init__(self) -> None:
        if self.unit not in self.units:
            per_byte = self.unit.lower().endswith(("/byte", "/b"))
            hint = "; a byte is 8 bits, so divide the value by 8" if per_byte else ""
            raise ValueError(f"`unit` is {self.unit!r}, expected one of: {', '.join(self.units)}{hint}")
        if not (self.value > 0 and 0 < self.si < math.inf):
            raise ValueError(f"`value` is {self.value}, expected a finite number above 0")
        if not self.source.strip():
            raise ValueError("`source` is empty, expected where the number comes from")

    @property
    def si(self) -> float:
        """The number in the base unit of its dimension: J, J/bit, W, bit/s, or 1."""
        return self.value * self.units[self.unit]


class EnergyPerBit(Quantity, frozen=True):
    """Energy of moving one bit."""

    units: ClassVar[Mapping[str, float]] = {
        "fJ/bit": 1e-15,
        "pJ/bit": 1e-12,
        "nJ/bit": 1e-9,
        "uJ/bit": 1e-6,
        "mJ/bit": 1e-3,
        "J/bit": 1.0,
    }


class Energy(Quantity, frozen=True):
    """Energy of an event."""

    units: ClassVar[Mapping[str, float]] = {"nJ": 1e-9, "uJ": 1e-6, "mJ": 1e-3, "J": 1.0}


class Power(Quantity, frozen=True):
    """Power that is drawn while something lasts."""

    units: ClassVar[Mapping[str, float]] = {"uW": 1e-6, "mW": 1e-3, "W": 1.0}


class Rate(Quantity, frozen=True):
    """Payload bits per second."""

    units: ClassVar[Mapping[str, float]] = {"bit/s": 1.0, "kbit/s": 1e3, "Mbit/s": 1e6, "Gbit/s": 1e9}


class Relative(Quantity, frozen=True):
    """A price that means something only beside the other prices of its profile."""

    units: ClassVar[Mapping[str, float]] = {"relative": 1.0}


class Share(Quantity, frozen=True):
    """A part of a whole, at most 100 %."""

    units: ClassVar[Mapping[str, float]] = {"%": 0.01}

    def __post_init__(self) -> None:
        Quantity.__post_init__(self)
        if self.value > 100:
            raise ValueError(f"`value` is {self.value}, expected a share of at most 100 %")


class Level(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One level of memory: energy of reading and of writing a bit."""

    read: EnergyPerBit
    write: EnergyPerBit


class Memory(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The levels of memory of a device."""

    dram: Level


class Direction(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One direction of a link.

    Args:
        marginal: energy that one bit more adds.
        goodput: payload bits per second, for sharing out the base power.
    """

    marginal: EnergyPerBit
    goodput: Rate | None = None


class Link(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A radio or a wire: energy = fixed + base_power * seconds + marginal * bits.

    Args:
        up: sending.
        down: receiving, where it is known.
        base_power: power of the whole device while the link is busy, shared with whatever else it does.
        fixed: energy once per transmission, whatever its size: promotion and tail.
    """

    up: Direction
    down: Direction | None = None
    base_power: Power | None = None
    fixed: Energy | None = None


class ByKind(msgspec.Struct, frozen=True, forbid_unknown_fields=True, tag_field="name", tag=True):
    """Relative prices by the kind of a tensor."""

    conv: Relative
    linear: Relative
    embedding: Relative
    vector: Relative


class Residency(msgspec.Struct, frozen=True, forbid_unknown_fields=True, tag_field="name", tag=True):
    """Relative prices by what stays close: the smallest tensors, up to a share of all, and the rest.

    Args:
        resident: price in the tensors that stay close.
        spilled: price in all others.
        share: part of the parameters that may stay close.
    """

    resident: Relative
    spilled: Relative
    share: Share


class Device(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """What a device pays: joules for its memory and its link, or synthetic relative prices.

    Args:
        schema: version of the file format.
        name: as in ``joulewise devices list``.
        description: one sentence for a reader.
        unit: unit of account of everything that is priced with this device.
        memory: levels of memory (unit ``J``).
        link: the link to the server (unit ``J``).
        prices: synthetic prices (unit ``relative``).
    """

    schema: Literal[1]
    name: Annotated[str, msgspec.Meta(min_length=1)]
    description: str
    unit: Unit
    memory: Memory | None = None
    link: Link | None = None
    prices: ByKind | Residency | None = None

    def __post_init__(self) -> None:
        physical = self.memory is not None or self.link is not None
        if self.unit == "J" and (self.prices is not None or not physical):
            raise ValueError("a device in `unit` 'J' has [link] or [memory], and no [prices]")
        if self.unit == "relative" and (self.prices is None or physical):
            raise ValueError("a device in `unit` 'relative' has [prices], and neither [link] nor [memory]")


class Entry(msgspec.Struct, frozen=True):
    """One number of a device as a row for a reader: where it stands, what it is, how it is known."""

    path: str
    value: float
    unit: str
    kind: Evidence
    source: str
    year: int


def list_devices() -> tuple[str, ...]:
    """Names of the devices that come with joulewise, in alphabetical order.

    Example:
        >>> "phone-lte-2021" in list_devices()
        True
    """
    files = resources.files("joulewise").joinpath("profiles").iterdir()
    return tuple(sorted(file.name.removesuffix(".toml") for file in files if file.name.endswith(".toml")))


def load_device(name_or_path: str | os.PathLike[str]) -> Device:
    """Load a device that comes with joulewise by its name, or your own from the path of a TOML file.

    Args:
        name_or_path: a name of `list_devices`, or a path (a ``Path``, or text with a ``/`` or ``.toml``).

    Raises:
        ProfileError: the name is unknown, the file cannot be read, or something in it is wrong.

    Example:
        >>> load_device("phone-lte-2021").link.up.marginal.si
        7.67e-08
    """
    text = os.fspath(name_or_path)
    if not isinstance(name_or_path, str) or text.endswith(".toml") or "/" in text or os.sep in text:
        return _decode(_read(Path(text)), text)
    known = list_devices()
    if text not in known:
        close = get_close_matches(text, known, n=1, cutoff=0.4)
        meant = f"did you mean {close[0]!r}? " if close else ""
        raise ProfileError(
            f"there is no device {text!r}; {meant}Known: {', '.join(known)}; or give the path of a TOML file"
        )
    file = resources.files("joulewise").joinpath("profiles").joinpath(f"{text}.toml")
    return _decode(file.read_bytes(), f"{text}.toml")


def describe(part: msgspec.Struct, path: str = "") -> tuple[Entry, ...]:
    """Every number of a device, or of a part of one that stands at `path`, with its origin.

    Example:
        >>> first = describe(load_device("synthetic-kind-10"))[0]
        >>> first.path, first.value, first.unit, first.kind
        ('prices.conv', 1.0, 'relative', 'assumed')
    """
    return tuple(
        Entry(where, quantity.value, quantity.unit, quantity.kind, quantity.source, quantity.year)
        for where, quantity in _quantities(path, part)
    )


def check(device: Device) -> tuple[str, ...]:
    """What a reader of the figures should know: implausible numbers and missing parts, one sentence each.

    An empty tuple means that nothing was found. Errors proper are raised by `load_device` already.

    Example:
        >>> check(load_device("phone-lte-2021"))
        ()
    """
    return (*_implausible(device), *_missing(device))


# Lowest and highest plausible figure in base units: a factor of 8 or 1000 lost in a unit falls outside.
_PLAUSIBLE = {
    "memory": (1e-14, 1e-9, "energy per bit of memory is 0.01 pJ/bit to 1 nJ/bit"),
    "marginal": (1e-11, 1e-2, "energy per bit of a link is 0.01 nJ/bit to 10 mJ/bit"),
    "base_power": (1e-3, 100.0, "base power of a device is 1 mW to 100 W"),
    "goodput": (10.0, 1e11, "goodput of a link is 10 bit/s to 100 Gbit/s"),
    "fixed": (1e-6, 100.0, "fixed energy of a transmission is 1 uJ to 100 J"),
}


def _implausible(device: Device) -> Iterator[str]:
    for path, quantity in _quantities("", device):
        part = "memory" if path.startswith("memory.") else path.rpartition(".")[2]
        low, high, words = _PLAUSIBLE.get(part, (0.0, math.inf, ""))
        if not low <= quantity.si <= high:
            yield f"{path} is {quantity.value} {quantity.unit}, but {words}; check the unit"


def _missing(device: Device) -> Iterator[str]:
    link = device.link
    if device.unit == "relative":
        return
    if link is None:
        yield "there is no [link], so only boundary 'memory' can be priced"
        return
    if link.fixed is None:
        yield "link.fixed is missing, so promotion and tail of a transmission are counted as 0"
    if link.base_power is None or link.up.goodput is None:
        yield "link.base_power or link.up.goodput is missing, so boundary 'device' cannot be priced"
    if link.down is None:
        yield "link.down is missing, so receiving is not charged"


def _quantities(path: str, part: object) -> Iterator[tuple[str, Quantity]]:
    if isinstance(part, Quantity):
        yield path, part
    elif isinstance(part, msgspec.Struct):
        for name in part.__struct_fields__:
            yield from _quantities(f"{path}.{name}".lstrip("."), getattr(part, name))


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise ProfileError(f"device file {str(path)!r} cannot be read: {error.strerror or error}") from error


def _decode(content: bytes, file: str) -> Device:
    try:
        return msgspec.toml.decode(content.decode("utf-8"), type=Device)
    except (msgspec.DecodeError, UnicodeDecodeError, ValueError) as error:
        raise ProfileError(f"device file {file!r}: {error}") from error
