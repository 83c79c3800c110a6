"""Device profiles: what moving a bit costs, each number with its unit and its origin.

A profile is one TOML file. A number in it is a table of value, unit, kind of evidence, source and year; a
number without an origin, or in a unit of another dimension, is refused.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from difflib import get_close_matches
from importlib import resources
from pathlib import Path
from typing import Annotated, Any, Literal

import msgspec

from joulewise import profilefile
from joulewise.errors import ProfileError
from joulewise.hardware import Battery as Battery
from joulewise.hardware import Compute as Compute
from joulewise.hardware import Direction as Direction
from joulewise.hardware import Home as Home
from joulewise.hardware import Level as Level
from joulewise.hardware import Link as Link
from joulewise.hardware import Memory as Memory
from joulewise.lora import LoRa as LoRa
from joulewise.quantities import Evidence, Power, Quantity, Relative, Share

Unit = Literal["J", "relative"]
"""The unit of account of prices: joules, or relative prices that must never be called joules."""


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
        compute: energy of arithmetic (unit ``J``).
        link: the link to the server (unit ``J``).
        prices: synthetic prices (unit ``relative``).
        idle_power: of the device while it waits (unit ``J``).
        battery: what it runs on (unit ``J``).

    Raises:
        ValueError: the parts do not go with the unit.
    """

    schema: Literal[1]
    name: Annotated[str, msgspec.Meta(min_length=1)]
    description: str
    unit: Unit
    memory: Memory | None = None
    link: Link | None = None
    prices: ByKind | Residency | None = None
    compute: Compute | None = None
    idle_power: Power | None = None
    battery: Battery | None = None

    def __post_init__(self) -> None:
        priced = self.memory is not None or self.link is not None
        physical = priced or any(part is not None for part in (self.compute, self.idle_power, self.battery))
        if self.unit == "J" and (self.prices is not None or not priced):
            raise ValueError("a device in `unit` 'J' has [link] or [memory], and no [prices]")
        if self.unit == "relative" and (self.prices is None or physical):
            raise ValueError("a device in `unit` 'relative' has [prices], and nothing in joules, such as [link]")


class Entry(msgspec.Struct, frozen=True):
    """One number of a device as a row for a reader: where it stands, what it is, how it is known."""

    path: str
    value: float
    unit: str
    kind: Evidence
    source: str
    year: int


class Imported(msgspec.Struct, frozen=True):
    """A device made from a file of another program.

    Args:
        device: the profile.
        notes: what was left out or taken from elsewhere, one sentence each.
    """

    device: Device
    notes: tuple[str, ...]


def list_devices() -> tuple[str, ...]:
    """Names of the devices that come with joulewise, in alphabetical order.

    Example:
        >>> "phone-lte-2021" in list_devices()
        True
    """
    files = resources.files("joulewise").joinpath("profiles").iterdir()
    return tuple(sorted(file.name.removesuffix(".toml") for file in files if file.name.endswith(".toml")))


def user_folder() -> Path:
    """Where your own devices are looked up by name.

    ``$JOULEWISE_DEVICES``, else ``$XDG_CONFIG_HOME/joulewise/devices``, else ``~/.config/joulewise/devices``.

    Example:
        >>> isinstance(user_folder(), Path)
        True
    """
    if own := os.environ.get("JOULEWISE_DEVICES"):
        return Path(own)
    config = os.environ.get("XDG_CONFIG_HOME")
    # Path.expanduser raises where there is no home, as in some containers; this leaves the text as it is.
    return Path(config or os.path.expanduser("~/.config")) / "joulewise" / "devices"  # noqa: PTH111


def user_devices() -> tuple[str, ...]:
    """Names of the TOML files in `user_folder`, in alphabetical order; none where it cannot be read.

    Example:
        >>> all(isinstance(name, str) for name in user_devices())
        True
    """
    try:
        return tuple(sorted(file.stem for file in user_folder().iterdir() if file.suffix == ".toml"))
    except OSError:
        return ()


def load_device(name_or_path: str | os.PathLike[str]) -> Device:
    """Load a device by name, one that comes with joulewise or one of your own, or from the path of a TOML file.

    Args:
        name_or_path: a name of `list_devices` or `user_devices`, or a path (a ``Path``, or text with a ``/`` or
            ``.toml``).

    Raises:
        ProfileError: the name is unknown, or both a device that comes with joulewise and one of yours have it;
            the file cannot be read, or something in it is wrong.

    Example:
        >>> load_device("phone-lte-2021").link.up.marginal.si
        7.67e-08
    """
    text = os.fspath(name_or_path)
    if not isinstance(name_or_path, str) or text.endswith(".toml") or "/" in text or os.sep in text:
        return _decode(profilefile.read(Path(text)), text)
    own = user_devices()
    if text in own:
        path = user_folder() / f"{text}.toml"
        if text in list_devices():
            raise ProfileError(
                f"device {text!r} comes with joulewise, but {str(path)!r} has the same name; rename that file, or "
                "give its path"
            )
        return _decode(profilefile.read(path), str(path))
    if text not in list_devices():
        known = sorted({*list_devices(), *own})
        close = get_close_matches(text, known, n=1, cutoff=0.4)
        meant = f"did you mean {close[0]!r}?" if close else f"known: {', '.join(known)};"
        raise ProfileError(
            f"there is no device {text!r}; {meant} Choose one of `joulewise devices list`, give the path of a TOML "
            f"file, or put {text}.toml into {str(user_folder())!r}"
        )
    return shipped(text)


def shipped(name: str) -> Device:
    """A device of `list_devices`, whatever files of your own there are.

    Example:
        >>> shipped("phone-lte-2021") == load_device("phone-lte-2021")
        True
    """
    file = resources.files("joulewise").joinpath("profiles").joinpath(f"{name}.toml")
    return _decode(file.read_bytes(), f"{name}.toml")


def with_link(device: Device, factor: float) -> Device:
    """The device when a bit costs `factor` times as much on its link, both ways; what a transmission costs once stays.

    Raises:
        ProfileError: it has no link, or one whose energy per bit follows from its time on air (LoRa).

    Example:
        >>> phone = load_device("phone-lte-2021")
        >>> with_link(phone, 2.0).link.up_per_bit / phone.link.up_per_bit
        2.0
    """
    link = device.link
    if link is None or isinstance(link.up, LoRa):
        fault = "no link" if link is None else "a LoRa uplink, whose energy per bit follows from its time on air"
        raise ProfileError(f"the link of {device.name} cannot be made dearer or cheaper: it has {fault}")
    up, down = _scaled(link.up, factor), None if link.down is None else _scaled(link.down, factor)
    return msgspec.structs.replace(device, link=msgspec.structs.replace(link, up=up, down=down))


def _scaled(direction: Direction, factor: float) -> Direction:
    dearer = msgspec.structs.replace(direction.marginal, value=direction.marginal.value * factor, kind="assumed")
    return msgspec.structs.replace(direction, marginal=dearer)


def describe(part: msgspec.Struct, path: str = "") -> tuple[Entry, ...]:
    """Every number of a device, or of a part of one that stands at `path`, with its origin.

    Example:
        >>> first = describe(load_device("synthetic-kind-10"))[0]
        >>> first.path, first.value, first.unit, first.kind
        ('prices.conv', 1.0, 'relative', 'assumed')
    """
    return tuple(
        Entry(where, quantity.value, quantity.unit, quantity.kind, quantity.source, quantity.year)
        for where, quantity in quantities(part, path)
    )


def quantities(part: object, path: str = "") -> Iterator[tuple[str, Quantity]]:
    """Every number of a part of a device with its path, those among them that are computed from others.

    Example:
        >>> [path for path, _ in quantities(load_device("synthetic-kind-10"))][0]
        'prices.conv'
    """
    if isinstance(part, Quantity):
        yield path, part
    elif isinstance(part, msgspec.Struct):
        for name in _fields(part):
            yield from quantities(getattr(part, name), f"{path}.{name}".lstrip("."))


def _fields(part: msgspec.Struct) -> tuple[str, ...]:
    names = part.__struct_fields__
    if isinstance(part, LoRa):  # the duty cycle is the link's
        return (*(name for name in names if name != "duty_cycle"), "marginal", "goodput")
    return names


def _decode(content: bytes, file: str) -> Device:
    raw = profilefile.tables(content, file)
    profilefile.check_texts(raw, file)
    _name_direction(raw)
    try:
        return msgspec.convert(raw, Device)
    except msgspec.ValidationError as error:
        raise ProfileError(profilefile.sentence(error, raw, Device, file)) from None


def _name_direction(raw: dict[str, Any]) -> None:
    """An uplink without a name is a `Direction`; only another kind of uplink has to say what it is."""
    link = raw.get("link")
    up = link.get("up") if isinstance(link, dict) else None
    if isinstance(up, dict) and "spreading_factor" not in up:
        up.setdefault("name", Direction.__name__)
