"""Import of Android's ``power_profile.xml``: the currents that a vendor declares for its device."""

from __future__ import annotations

import hashlib
import math
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


LEAST_V, MOST_V = 0.5, 50.0
LEAST_MAH, MOST_MAH = 10.0, 1e6


class _Source(msgspec.Struct, frozen=True):
    label: str
    items: dict[str, list[float]]
    radio: Radio
    year: int


class _Voltage(msgspec.Struct, frozen=True):
    volts: float
    told: str


def read(  # noqa: PLR0913 (one command)
    path: Path,
    goodput: str,
    radio: Radio,
    voltage: float | None,
    *,
    name: str,
    year: int,
    imported: int | None = None,
) -> Imported:
    """Make a device from a power profile.

    A radio's current times its voltage is its power; over the goodput, that is energy per bit, all of it counted
    as marginal. A battery's charge times its voltage is its energy.

    Args:
        path: of the XML file, currents in mA, voltages in mV, the battery in mAh.
        goodput: payload rate of the link, such as ``20Mbit/s``.
        radio: ``wifi`` or ``modem``.
        voltage: in V, where the file has none for the radio, and for the battery; None: the radio's.
        name: of the device.
        year: of the figures in the file, which holds none.
        imported: year of the import, in which `goodput` was chosen; None: `year`.

    Raises:
        ProfileError: the file cannot be read, is no power profile, or lacks the current or the voltage; the goodput
            is not a rate.
    """
    content = profilefile.read(path)
    label = f"{path.name} (SHA-256 {hashlib.sha256(content).hexdigest()[:12]})"
    source = _Source(label, _items(content, path), radio, year)
    try:
        rate = parse(goodput, Rate, "given with --goodput when the profile was imported", imported or year)
    except ValueError as error:
        raise ProfileError(f"--goodput: {str(error).replace('`', '')}") from None
    try:
        return _imported(source, rate, voltage, name)
    except ProfileError:
        raise
    except ValueError as error:
        raise ProfileError(f"device file {str(path)!r}: {str(error).replace('`', '')}") from None


def _imported(source: _Source, rate: Rate, voltage: float | None, name: str) -> Imported:
    radio, note = _radio_voltage(source, voltage)
    notes = [note] if note else []
    up = _direction(source, "sending", radio, rate, notes)
    if up is None:
        names = " or ".join(_CURRENTS["sending"][source.radio])
        raise ProfileError(
            f"device file {source.label} has no usable current for sending with {source.radio} ({names}); "
            f"{''.join(each + '; ' for each in notes)}try the other --radio, or measure"
        )
    down = _direction(source, "receiving", radio, rate, notes)
    device = Device(
        schema=1,
        name=name,
        description=f"An Android device on {source.radio} at {rate.value:g} {rate.unit}, from the currents that its "
        "vendor declares.",
        unit="J",
        link=Link(Direction(up, rate), down=None if down is None else Direction(down)),
        battery=_battery(source, radio if voltage is None else _typed(voltage), notes),
    )
    return Imported(device, tuple(notes))


def _direction(source: _Source, what: str, radio: _Voltage, rate: Rate, notes: list[str]) -> EnergyPerBit | None:
    for name in _CURRENTS[what][source.radio]:
        levels = source.items.get(name)
        if not levels:
            continue
        wrong = next((level for level in levels if not 0 <= level < math.inf), None)
        if wrong is not None:
            notes.append(f"{name} is {wrong:g} mA, which is no current, so it is not used")
            continue
        current = sum(levels) / len(levels)
        if current < _PLACEHOLDER_MA:
            notes.append(f"{name} is {current:g} mA, which is a placeholder and not used")
            continue
        mean = f"the mean of {len(levels)} levels, " if len(levels) > 1 else ""
        text = (
            f"{source.label}: {name}, {mean}{current:g} mA at {radio.told}, over {rate.value:g} {rate.unit} of "
            "--goodput; declared by the vendor"
        )
        return EnergyPerBit(current * 1e-3 * radio.volts / rate.si * 1e9, "nJ/bit", "datasheet", text, source.year)
    if not any(source.items.get(name) for name in _CURRENTS[what][source.radio]):
        notes.append(f"there is no {_CURRENTS[what][source.radio][0]}, so {what} is left out")
    return None


def _typed(voltage: float) -> _Voltage:
    return _Voltage(voltage, f"{voltage:g} V of --voltage")


def _radio_voltage(source: _Source, voltage: float | None) -> tuple[_Voltage, str]:
    name = f"{source.radio}.controller.voltage"
    if voltage is not None and not _is_voltage(voltage):
        raise ProfileError(f"--voltage is {voltage:g}, expected volts from {LEAST_V} to {MOST_V}, for example 3.7")
    found = source.items.get(name)
    declared = found[0] if found else 0.0
    if _is_voltage(declared * 1e-3):
        note = f"{name} of the file, {declared:g} mV, is used for the radio, and --voltage for the battery alone"
        return _Voltage(declared * 1e-3, f"{declared * 1e-3:g} V"), "" if voltage is None else note
    why = f"the file has no {name}"
    if declared:  # 0: a placeholder
        why = f"{name} of the file is {declared:g} mV, expected {1000 * LEAST_V:g} to {1000 * MOST_V:g}"
    if voltage is None:
        raise ProfileError(f"device file {source.label}: {why}; give --voltage, for example --voltage 3.7")
    return _typed(voltage), f"{why}, so --voltage {voltage:g} is used"


def _is_voltage(volts: float) -> bool:
    return LEAST_V <= volts <= MOST_V


def _battery(source: _Source, supply: _Voltage, notes: list[str]) -> Battery | None:
    charge = (source.items.get("battery.capacity") or [0.0])[0]
    if not LEAST_MAH <= charge <= MOST_MAH:
        what = f"{charge:g} mAh, which is no charge of a phone" if charge else "missing"
        notes.append(f"battery.capacity is {what}, so there is no [battery]")
        return None
    text = f"{source.label}: battery.capacity, {charge:g} mAh at {supply.told}; declared by the vendor"
    return Battery(Energy(charge * 1e-3 * supply.volts, "Wh", "datasheet", text, source.year))


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
            values.append(float(element.text or ""))
        except ValueError:
            continue  # names of sub-systems and the like
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
