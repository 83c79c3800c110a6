"""Import of Android's ``power_profile.xml``: the currents that a vendor declares for its device."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Literal
from xml.etree.ElementTree import Element, TreeBuilder
from xml.parsers import expat

import msgspec

from joulewise import profilefile
from joulewise.devices import Battery, Device, Direction, Imported, Link
from joulewise.errors import ProfileError
from joulewise.quantities import Energy, EnergyPerBit, Rate, parse

Radio = Literal["wifi", "modem"]

_CURRENTS: Mapping[str, Mapping[Radio, tuple[str, ...]]] = {
    "sending": {"wifi": ("wifi.controller.tx", "wifi.active"), "modem": ("modem.controller.tx", "radio.active")},
    "receiving": {"wifi": ("wifi.controller.rx",), "modem": ("modem.controller.rx",)},
}
"""Names of an item, the first one there counts; ``*.active`` are those of old files."""

_PLACEHOLDER_MA = 2.0
"""Android's sample file has 0.1 and 1 where a vendor should measure; no radio sends or receives with so little."""


class _Source(msgspec.Struct, frozen=True):
    label: str
    items: dict[str, list[float]]
    radio: Radio
    year: int


def read(path: Path, goodput: str, radio: Radio, voltage: float | None, *, name: str, year: int) -> Imported:
    """Make a device from a power profile.

    A radio's current times its voltage is its power; over the goodput, that is energy per bit, all of it counted
    as marginal. A battery's charge times its voltage is its energy.

    Args:
        path: of the XML file, currents in mA, voltages in mV, the battery in mAh.
        goodput: payload rate of the link, such as ``20Mbit/s``.
        radio: ``wifi`` or ``modem``.
        voltage: in V, where the file has none for the radio, and for the battery; None: the radio's.
        name: of the device.
        year: for the numbers.

    Raises:
        ProfileError: the file cannot be read, is no power profile, or lacks the current or the voltage; the goodput
            is not a rate.
    """
    content = profilefile.read(path)
    label = f"{path.name} (SHA-256 {hashlib.sha256(content).hexdigest()[:12]})"
    source = _Source(label, _items(content, path), radio, year)
    try:
        rate = parse(goodput, Rate, "given with --goodput when the profile was imported", year)
    except ValueError as error:
        raise ProfileError(f"--goodput: {str(error).replace('`', '')}") from None
    try:
        return _imported(source, rate, voltage, name)
    except ProfileError:
        raise
    except ValueError as error:
        raise ProfileError(f"device file {str(path)!r}: {str(error).replace('`', '')}") from None


def _imported(source: _Source, rate: Rate, voltage: float | None, name: str) -> Imported:
    volts, note = _volts(source, voltage)
    notes = [note] if note else []
    up = _direction(source, "sending", volts, rate, notes)
    if up is None:
        names = " or ".join(_CURRENTS["sending"][source.radio])
        raise ProfileError(
            f"device file {source.label} has no usable current for sending with {source.radio} ({names}); "
            f"{''.join(each + '; ' for each in notes)}try the other --radio, or measure"
        )
    down = _direction(source, "receiving", volts, rate, notes)
    device = Device(
        schema=1,
        name=name,
        description=f"An Android device on {source.radio} at {rate.value:g} {rate.unit}, from the currents that its "
        "vendor declares.",
        unit="J",
        link=Link(Direction(up, rate), down=None if down is None else Direction(down)),
        battery=_battery(source, voltage or volts, notes),
    )
    return Imported(device, tuple(notes))


def _direction(source: _Source, what: str, volts: float, rate: Rate, notes: list[str]) -> EnergyPerBit | None:
    for name in _CURRENTS[what][source.radio]:
        levels = source.items.get(name)
        if not levels:
            continue
        current = sum(levels) / len(levels)
        if current < _PLACEHOLDER_MA:
            notes.append(f"{name} is {current:g} mA, which is a placeholder and not used")
            continue
        mean = f"the mean of {len(levels)} levels, " if len(levels) > 1 else ""
        text = (
            f"{source.label}: {name}, {mean}{current:g} mA at {volts:g} V, over {rate.value:g} {rate.unit} of "
            "--goodput; declared by the vendor"
        )
        return EnergyPerBit(current * 1e-3 * volts / rate.si * 1e9, "nJ/bit", "datasheet", text, source.year)
    if not any(source.items.get(name) for name in _CURRENTS[what][source.radio]):
        notes.append(f"there is no {_CURRENTS[what][source.radio][0]}, so {what} is left out")
    return None


def _volts(source: _Source, voltage: float | None) -> tuple[float, str]:
    name = f"{source.radio}.controller.voltage"
    declared = source.items.get(name, [0.0])[0] * 1e-3
    if declared > 0 and voltage is None:
        return declared, ""
    if voltage is None:
        raise ProfileError(f"{source.label} has no {name}; give --voltage, for example --voltage 3.7")
    if not 0.5 <= voltage <= 50:
        raise ProfileError(f"--voltage is {voltage:g}, expected volts from 0.5 to 50, for example 3.7")
    if declared > 0:
        return (
            declared,
            f"{name} of the file, {declared:g} V, is used for the radio, and --voltage for the battery alone",
        )
    return voltage, f"the file has no {name}, so --voltage {voltage:g} is used"


def _battery(source: _Source, volts: float, notes: list[str]) -> Battery | None:
    charge = source.items.get("battery.capacity", [0.0])[0]
    if charge < 10:
        notes.append("battery.capacity is missing or a placeholder, so there is no [battery]")
        return None
    text = f"{source.label}: battery.capacity, {charge:g} mAh at {volts:g} V; declared by the vendor"
    return Battery(Energy(charge * 1e-3 * volts, "Wh", "datasheet", text, source.year))


def _items(content: bytes, path: Path) -> dict[str, list[float]]:
    root = _parse(content, path)
    items = {
        element.get("name", ""): _numbers([element] if element.tag == "item" else list(element))
        for element in root
        if element.tag in {"item", "array"}
    }
    if root.tag != "device" or not items:
        raise ProfileError(f"device file {str(path)!r} is no power profile of Android: expected <device> with <item>s")
    return items


def _numbers(elements: Sequence[Element]) -> list[float]:
    values = []
    for element in elements:
        try:
            value = float(element.text or "")
        except ValueError:
            continue  # names of sub-systems and the like
        if 0 <= value < 1e9:
            values.append(value)
    return values


def _parse(content: bytes, path: Path) -> Element:
    """The elements of an XML file. Entities can be declared in a document type alone, so that is refused."""
    builder, parser = TreeBuilder(), expat.ParserCreate()

    def refuse(*_: object) -> None:
        raise ProfileError(f"device file {str(path)!r} has a document type (<!DOCTYPE>), which no power profile has")

    parser.StartDoctypeDeclHandler = refuse
    parser.StartElementHandler = builder.start
    parser.EndElementHandler = builder.end
    parser.CharacterDataHandler = builder.data
    try:
        parser.Parse(content, True)
    except ProfileError:
        raise
    except (expat.ExpatError, ValueError, LookupError) as error:  # the latter two: an unknown encoding
        raise ProfileError(f"device file {str(path)!r} is not XML: {error}; give a power_profile.xml") from None
    return builder.close()
