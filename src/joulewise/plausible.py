"""What a reader of a device's figures should know: implausible numbers, missing parts, different years."""

from __future__ import annotations

import re
from collections.abc import Iterator, Set
from typing import Literal

import msgspec

from joulewise.devices import Device, LoRa, describe, list_devices, quantities, shipped
from joulewise.quantities import Quantity


class Finding(msgspec.Struct, frozen=True):
    """One thing that was found.

    Args:
        severity: ``warning`` for what is probably wrong or cannot be priced, ``note`` for what a reader should know.
        text: one sentence.
    """

    severity: Literal["warning", "note"]
    text: str


def check(device: Device) -> tuple[Finding, ...]:
    """Look for implausible numbers, parts that a price needs, missing parts, and figures of different years.

    Errors proper are raised by `load_device` already.

    Example:
        >>> from joulewise.devices import load_device
        >>> [finding.text for finding in check(load_device("phone-lte-2021"))]
        ['the numbers are of different years, 2012 to 2021: ...']
    """
    wrong = dict(_implausible(device))
    return (
        *wrong.values(),
        *_uneven(device, wrong.keys()),
        *_powers(device, wrong.keys()),
        *_unpriced(device),
        *_absent(device),
        *_years(device),
    )


def check_file(device: Device) -> tuple[Finding, ...]:
    """`check` of a device that was read from a file, and whether it goes by the name of one that comes along.

    Example:
        >>> from joulewise.devices import load_device
        >>> phone = load_device("phone-lte-2021")
        >>> copied = msgspec.structs.replace(phone, description="Mine.")
        >>> [finding.severity for finding in check_file(copied)], check_file(phone) == check(phone)
        (['warning', 'note'], True)
    """
    return (*_borrowed(device), *check(device))


def _borrowed(device: Device) -> Iterator[Finding]:
    if device.name in list_devices() and device != shipped(device.name):
        words = "is the name of a profile that comes with joulewise, which is another one; change `name` in the file"
        yield Finding("warning", f"name {device.name!r} {words}")


class _Range(msgspec.Struct, frozen=True):
    low: float
    high: float
    unit: str
    scale: float
    what: str


def _range(low: float, high: float, unit: str, scale: float, what: str) -> _Range:
    return _Range(low * scale, high * scale, unit, scale, what)


# The ends lie a factor of 2 to 10 outside of published figures, from sensor nodes to phones and boards.
_SRAM = _range(0.005, 10, "pJ/bit", 1e-12, "energy per bit of on-chip memory")
# From stacked DRAM at 3.9 to old low-power DRAM at 40: less than 64 times 1, so that an access of 64 bits stands out.
_DRAM = _range(2, 50, "pJ/bit", 1e-12, "energy per bit of DRAM")
_FLASH_READ = _range(0.1, 1e4, "pJ/bit", 1e-12, "energy per bit read from flash")
_FLASH_WRITE = _range(0.01, 1e3, "nJ/bit", 1e-9, "energy per bit written to flash")
_MARGINAL = _range(0.1, 1e7, "nJ/bit", 1e-9, "energy per bit of a link")
_OPERATION = _range(0.01, 1e4, "pJ", 1e-12, "energy of one operation")
_RANGES = {
    "memory.sram.read": _SRAM,
    "memory.sram.write": _SRAM,
    "memory.dram.read": _DRAM,
    "memory.dram.write": _DRAM,
    "memory.flash.read": _FLASH_READ,
    "memory.flash.write": _FLASH_WRITE,
    "memory.sram.capacity": _range(256, 2**30, "byte", 1, "capacity of on-chip memory"),
    "memory.dram.capacity": _range(2**16, 2**43, "byte", 1, "capacity of DRAM"),
    "memory.flash.capacity": _range(2**10, 2**45, "byte", 1, "capacity of flash"),
    "line": _range(4, 4096, "byte", 1, "size of a line"),
    "page": _range(64, 2**23, "byte", 1, "size of a flash page"),
    "erase": _range(0.1, 1e5, "uJ", 1e-6, "energy of erasing a page"),
    "compute.add": _range(0.01, 1e3, "pJ", 1e-12, "energy of one addition"),
    "compute.multiply": _range(0.01, 1e3, "pJ", 1e-12, "energy of one multiplication"),
    "compute.per_update": _range(0.1, 1e6, "pJ", 1e-12, "energy around one update"),
    "compute.training": _OPERATION,
    "marginal": _MARGINAL,
    "goodput": _range(1, 1e11, "bit/s", 1, "goodput of a link"),
    "link.base_power": _range(1, 1e5, "mW", 1e-3, "power of a device whose link is busy"),
    "link.fixed": _range(1, 1e8, "uJ", 1e-6, "energy once per transmission"),
    "framing": _range(1, 10, "1", 1, "number of bits on air per payload bit"),
    "retransmission": _range(1, 10, "1", 1, "mean number of times that a bit is sent"),
    "bandwidth": _range(7.8, 1625, "kHz", 1e3, "bandwidth of a LoRa channel"),
    "link.up.power": _range(1, 1e3, "mW", 1e-3, "power of a LoRa device that sends"),
    "idle_power": _range(0.1, 1e8, "uW", 1e-6, "power of a device that waits"),
    "battery.capacity": _range(0.01, 1e3, "Wh", 3600, "energy of a battery"),
}


class _Radio(msgspec.Struct, frozen=True):
    words: str
    marginal: _Range
    power: _Range


def _kind(words: str, name: str, marginal: tuple[float, float], power_mw: tuple[float, float]) -> _Radio:
    return _Radio(
        words,
        _range(*marginal, "nJ/bit", 1e-9, f"energy per bit of {name}"),
        _range(*power_mw, "mW", 1e-3, f"the power of {name} that sends or receives"),
    )


# By a factor of 3 to 10 around published figures, in joules of the device, between chips at rest and whole phones.
_RADIOS = (
    _kind(r"\bble\b|bluetooth", "Bluetooth LE", (2, 300), (3, 150)),
    _kind(r"802\.?15\.?4|zigbee", "802.15.4", (15, 1500), (2, 300)),
    _kind(r"wi-?fi|802\.11", "Wi-Fi", (1, 1000), (50, 1e4)),
    _kind(r"\blte\b(?!-?m\b)|\b5g\b|\b4g\b|\b3g\b|mobile network", "a mobile network", (1, 3000), (100, 1e4)),
    _kind(r"nb-?iot|lte-?m\b", "NB-IoT or LTE-M", (300, 1e6), (50, 3000)),
    _kind(r"ethernet", "Ethernet", (0.05, 50), (50, 2e4)),
)
_LORA = _kind(r"lora", "LoRa", (1e3, 1e7), (1, 1e3))
_ANY_POWER = _range(0.1, 1e5, "mW", 1e-3, "the power of a link that sends or receives")

BY_WATTS = "(--watts)"
"""In the source of a number that is a measured time multiplied by assumed watts of a whole device."""
_MEASURED_WIDER = 30
"""Measured on a whole device, a bit of memory takes its share of the processor too."""
_UNEVEN = 4
"""How much dearer than reading writing may be in SRAM and DRAM, or the reverse: published figures differ by 2.3."""

_SLIPS = (
    (1 / 8, "a figure per byte is written as one per bit"),
    (8.0, "a figure per bit is written as one per byte"),
    (1 / 64, "a figure per 64-bit access is written as one per bit"),
    (1e-3, "its prefix is one step too large, by a factor of 1000 (such as nano for pico)"),
    (1e3, "its prefix is one step too small, by a factor of 1000 (such as pico for nano)"),
)


def _implausible(device: Device) -> Iterator[tuple[str, Finding]]:
    """Numbers out of their range, by path."""
    if device.unit == "relative":
        return
    for path, quantity in quantities(device):
        expected = _expected(device, path)
        if expected is None:
            continue
        whole_device = quantity.kind == "measured" or BY_WATTS in quantity.source
        wider = _MEASURED_WIDER if whole_device and path.endswith((".read", ".write")) else 1
        if not expected.low <= quantity.si <= expected.high * wider:
            yield path, Finding("warning", _implausible_text(path, quantity, expected))


def _expected(device: Device, path: str) -> _Range | None:
    last = path.rpartition(".")[2]
    if last == "marginal" and (radio := _radio(device)) is not None:
        return radio.marginal
    return _RANGES.get(path) or _RANGES.get(last)


def _uneven(device: Device, wrong: Set[str]) -> Iterator[Finding]:
    """Levels in which reading and writing differ by more than they do: one of the two is in another unit."""
    for name in ("sram", "dram", "flash"):
        level = None if device.memory is None else getattr(device.memory, name)
        if level is None or not wrong.isdisjoint({f"memory.{name}.read", f"memory.{name}.write"}):
            continue
        ratio = level.write.si / level.read.si
        if name == "flash" and ratio < 1:
            words = "writing flash takes less than reading it; check whether the two are swapped"
            yield Finding("warning", f"memory.flash: {words}")
        elif name != "flash" and not 1 / _UNEVEN <= ratio <= _UNEVEN:
            words = f"write takes {ratio:.3g} times as much as read, expected 1/{_UNEVEN} to {_UNEVEN} times"
            yield Finding("warning", f"memory.{name}: {words}; check the units of both")


def _powers(device: Device, wrong: Set[str]) -> Iterator[Finding]:
    """Energy per bit times bits per second is a power, which a radio of its kind draws or does not."""
    link = device.link
    if link is None or isinstance(link.up, LoRa):  # whose power is a number of its own
        return
    radio = _radio(device)
    expected = _ANY_POWER if radio is None else radio.power
    for name, direction in (("up", link.up), ("down", link.down)):
        paths = {f"link.{name}.marginal", f"link.{name}.goodput"}
        if direction is None or direction.goodput is None or not wrong.isdisjoint(paths):
            continue
        power = direction.marginal.si * direction.goodput.si
        if not expected.low <= power <= expected.high:
            low, high = expected.low / expected.scale, expected.high / expected.scale
            yield Finding(
                "warning",
                f"link.{name}: marginal times goodput is {power / expected.scale:.3g} {expected.unit}, but "
                f"{expected.what} is {low:g} to {high:g} {expected.unit}; one of the two is in another unit",
            )


def _radio(device: Device) -> _Radio | None:
    """The kind of link, where name and description tell it and do not tell two."""
    if device.link is not None and isinstance(device.link.up, LoRa):
        return _LORA
    text = f"{device.name} {device.description}".lower()
    found = [radio for radio in _RADIOS if re.search(radio.words, text)]
    return found[0] if len(found) == 1 else None


def _implausible_text(path: str, quantity: Quantity, expected: _Range) -> str:
    low, high = expected.low / expected.scale, expected.high / expected.scale
    slips = [text for factor, text in _SLIPS if expected.low <= quantity.si * factor <= expected.high]
    if not path.endswith((".read", ".write", ".marginal")):
        slips = [text for text in slips if "prefix" in text]
    likely = f"; likely {', or '.join(slips)}" if slips else "; check the number and its unit"
    expectation = f"{expected.what} is {low:g} to {high:g} {expected.unit}"
    return f"{path} is {quantity.value:g} {quantity.unit}, but {expectation}{likely}"


def _unpriced(device: Device) -> Iterator[Finding]:
    memory, link = device.memory, device.link
    sram = None if memory is None or memory.dram is None else memory.sram
    if sram is not None and sram.capacity is None:
        yield Finding("warning", "memory.sram.capacity is missing, so what fits beside DRAM cannot be told; add it")
    if link is not None and link.base_power is not None and link.up.goodput is None:
        yield Finding(
            "warning", "link.up.goodput is missing, so link.base_power cannot be shared out over bits; add it"
        )


def _absent(device: Device) -> Iterator[Finding]:
    link = device.link
    if device.unit == "relative":
        return
    if link is None:
        yield Finding("note", "there is no [link], so only boundary 'memory' can be priced")
        return
    if link.fixed is None:
        yield Finding("note", "link.fixed is missing, so promotion and tail of a transmission are counted as 0")
    if link.base_power is None and not isinstance(link.up, LoRa):  # whose power is the whole device's
        yield Finding("note", "link.base_power is missing, so boundary 'device' cannot be priced")
    if link.down is None:
        yield Finding("note", "link.down is missing, so receiving is not charged")


def _years(device: Device) -> Iterator[Finding]:
    paths: dict[int, list[str]] = {}
    for entry in describe(device):
        paths.setdefault(entry.year, []).append(entry.path)
    if len(paths) > 1:
        listed = "; ".join(f"{year}: {', '.join(paths[year])}" for year in sorted(paths))
        yield Finding("note", f"the numbers are of different years, {min(paths)} to {max(paths)}: {listed}")
