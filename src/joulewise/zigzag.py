"""Import of accelerator descriptions of the open model ZigZag: energies and sizes of memories, in YAML."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import msgspec

from joulewise import profilefile
from joulewise.devices import Compute, Device, Imported, Level, Memory
from joulewise.errors import MissingExtra, ProfileError
from joulewise.quantities import EnergyPerBit, EnergyPerOperation, Size

_MAIN_MEMORY = ("dram", "ddr", "hbm")
_SMALLEST_BITS = 8 * 1024
"""Smaller memories are registers."""
SMALLEST, LARGEST = 1e-9, 1e18
"""Bounds of a number in a file, in its own units."""


class _Source(msgspec.Struct, frozen=True):
    file: str
    label: str
    year: int


def read(path: Path, dram: str | None, sram: str | None, *, name: str, year: int) -> Imported:
    """Make a device from the memories and the multiply-accumulate energy of a ZigZag accelerator.

    Energy per bit is ``r_cost`` or ``w_cost``, in pJ per access, over the bits of an access: the largest bandwidth
    of a port that reads or writes. Sizes are in bits.

    Args:
        path: of the YAML file.
        dram: name of the main memory; None: the one with dram, ddr or hbm in its name.
        sram: name of the on-chip memory; None: the largest other one of at least 1 KiB.
        name: of the device.
        year: for the numbers.

    Raises:
        ProfileError: the file cannot be read, is no accelerator of ZigZag, or lacks a memory or a number.
        MissingExtra: PyYAML is not installed.
    """
    content = profilefile.read(path)
    source = _Source(str(path), f"{path.name} (SHA-256 {hashlib.sha256(content).hexdigest()[:12]})", year)
    tables = _load(content, source)
    # A name such as 1 or yes is no text in YAML.
    memories = {str(key): value for key, value in tables["memories"].items() if isinstance(value, dict)}
    main = _chosen(memories, dram, "--dram", source) or _main(memories)
    near = _chosen(memories, sram, "--sram", source) or _largest(memories, main)
    if main is None and near is None:
        raise ProfileError(f"device file {source.file!r} has no memory of at least 1 KiB; name one with --sram")
    memory = Memory(
        dram=None if main is None else _level(main, memories[main], source),
        sram=None if near is None else _level(near, memories[near], source),
    )
    compute, notes = _compute(tables, source)
    left = sorted(set(memories) - {main, near})
    notes += [f"memories that are left out: {', '.join(left)}"] if left else []
    chosen = ", ".join(f"{kind} is {key!r}" for kind, key in (("dram", main), ("sram", near)) if key)
    device = Device(
        schema=1,
        name=name,
        description=f"An accelerator from {path.name}, an input of the open model ZigZag; {chosen}. No link.",
        unit="J",
        memory=memory,
        compute=compute,
    )
    return Imported(device, tuple(notes))


def _load(content: bytes, source: _Source) -> dict[str, Any]:
    try:
        import yaml  # noqa: PLC0415 (an extra)
    except ModuleNotFoundError:
        raise MissingExtra("import", "Reading YAML") from None
    try:
        tables = yaml.safe_load(content.decode("utf-8-sig"))
    except UnicodeDecodeError as error:
        raise ProfileError(f"device file {source.file!r} is not UTF-8 text at byte {error.start}") from None
    except (yaml.YAMLError, RecursionError, ValueError) as error:
        text = " ".join(str(error).split())
        raise ProfileError(f"device file {source.file!r} is not YAML: {text}") from None
    if not isinstance(tables, dict) or not isinstance(tables.get("memories"), dict):
        raise ProfileError(f"device file {source.file!r} is no accelerator of ZigZag: expected a table `memories`")
    return tables


def _chosen(memories: Mapping[str, Any], name: str | None, option: str, source: _Source) -> str | None:
    if name is not None and name not in memories:
        raise ProfileError(f"{option} {name}: {source.file!r} has no such memory; it has {', '.join(memories)}")
    return name


def _main(memories: Mapping[str, Any]) -> str | None:
    named = [name for name in memories if any(word in name.lower() for word in _MAIN_MEMORY)]
    return named[0] if named else None


def _largest(memories: Mapping[str, Any], main: str | None) -> str | None:
    sizes = {name: _size(memory) for name, memory in memories.items() if name != main}
    name = max(sizes, key=lambda each: sizes[each], default=None)
    return name if name is not None and sizes[name] >= _SMALLEST_BITS else None


def _size(memory: Mapping[str, Any]) -> float:
    return _number(memory.get("size")) or 0.0


def _number(value: Any) -> float | None:
    usable = isinstance(value, int | float) and not isinstance(value, bool) and SMALLEST <= value <= LARGEST
    return float(value) if usable else None


def _level(name: str, memory: Mapping[str, Any], source: _Source) -> Level:
    size = _positive(memory.get("size"), f"memories.{name}.size", source)
    text = f"{source.label}: memories.{name}.size, {size:g} bits"
    capacity = Size(size / 8, "byte", "model", text, source.year)
    return Level(_per_bit(name, memory, "r", source), _per_bit(name, memory, "w", source), capacity)


def _per_bit(name: str, memory: Mapping[str, Any], way: str, source: _Source) -> EnergyPerBit:
    cost = _positive(memory.get(f"{way}_cost"), f"memories.{name}.{way}_cost", source)
    bits = _bits(name, memory, way, source)
    text = f"{source.label}: memories.{name}.{way}_cost, {cost:g} pJ for an access of {bits:g} bits"
    try:
        return EnergyPerBit(cost / bits, "pJ/bit", "model", text, source.year)
    except ValueError as error:
        raise ProfileError(f"device file {source.file!r}: memories.{name}.{way}_cost: {error}") from None


def _bits(name: str, memory: Mapping[str, Any], way: str, source: _Source) -> float:
    """Bits of one access: ``bandwidth_max`` of a port that goes this way, or ``r_bw`` and ``w_bw`` of older files."""
    word = {"r": "read", "w": "write"}[way]
    listed = memory.get("ports")
    every = listed if isinstance(listed, list) else []
    ports = [port for port in every if isinstance(port, dict) and word in str(port.get("type"))]
    widths = [width for port in ports if (width := _number(port.get("bandwidth_max")))]
    if widths:
        return max(widths)
    return _positive(memory.get(f"{way}_bw"), f"memories.{name}.ports, bandwidth_max of a port that can {word}", source)


def _positive(value: Any, where: str, source: _Source) -> float:
    number = _number(value)
    if number is None:
        raise ProfileError(f"device file {source.file!r}: {where} is {value!r}, expected a finite number above 0")
    return number


def _compute(tables: Mapping[str, Any], source: _Source) -> tuple[Compute | None, list[str]]:
    array = tables.get("operational_array")
    energy = _number(array.get("unit_energy")) if isinstance(array, dict) else None
    if energy is None:
        return None, ["operational_array.unit_energy is missing or 0, so there is no [compute]"]
    text = (
        f"{source.label}: operational_array.unit_energy, {energy:g} pJ for a multiply-accumulate in the array's own "
        "precision, taken for one float32 operation"
    )
    operation = EnergyPerOperation(energy, "pJ", "assumed", text, source.year)
    note = "the multiply-accumulate is of the array's own precision, and stands for float32 operations as `assumed`"
    return Compute(add=operation, multiply=operation), [note]
