"""docs/profiles.md: its table of devices is what the files hold, and its examples are read by the schema."""

import re
from pathlib import Path

import pytest
from msgspec import structs

from joulewise.devices import (
    Battery,
    Compute,
    Device,
    Direction,
    Level,
    Link,
    LoRa,
    Memory,
    describe,
    list_devices,
    load_device,
)
from joulewise.plausible import check
from joulewise.quantities import LARGEST, SMALLEST

DOC = Path(__file__).parent.parent / "docs" / "profiles.md"
TEXT = DOC.read_text(encoding="utf-8")

PARTS = (Device, Memory, Level, Compute, Link, Direction, LoRa, Battery)


def in_unit(value: float | None, unit: float) -> str:
    return f"{float(f'{value / unit:.3g}'):g}" if value else ""


def row(name: str) -> str:
    """A line of the table of the document."""
    device = load_device(name)
    link, memory = device.link, device.memory
    entries = describe(device)
    assumed = sum(entry.kind == "assumed" for entry in entries)
    cells = [
        f"`{name}`",
        in_unit(link and link.up_per_bit, 1e-9),
        in_unit(link and link.base_per_bit, 1e-9),
        in_unit(link and link.down_per_bit, 1e-9),
        in_unit(link and link.fixed and link.fixed.si, 1),
        in_unit(memory and memory.sram and memory.sram.read.si, 1e-12),
        in_unit(memory and memory.dram and memory.dram.read.si, 1e-12),
        f"{assumed} of {len(entries)}",
    ]
    return f"| {' | '.join(cells)} |".replace("|  |", "| |").replace("|  |", "| |")


def test_the_table_of_devices_is_what_the_files_hold():
    listed = [line for line in TEXT.splitlines() if re.match(r"\| `(\w|-)+` \| .* of \d+ \|$", line)]
    assert listed == [row(name) for name in list_devices()]


@pytest.mark.parametrize("example", re.findall(r"```toml\n(.*?)```", TEXT, re.DOTALL))
def test_an_example_of_a_file_loads_without_a_warning(example, tmp_path):
    file = tmp_path / "example.toml"
    file.write_text(example, encoding="utf-8")
    assert isinstance(load_device(file), Device)
    assert [finding.text for finding in check(load_device(file)) if finding.severity == "warning"] == []


def test_the_document_names_every_field_of_a_device_and_has_an_example():
    assert len(re.findall("```toml", TEXT)) >= 2
    told = {field.name for part in PARTS for field in structs.fields(part)} - {"schema", "name", "description", "unit"}
    assert len(told) > 30
    for field in told:
        assert f"`{field}`" in TEXT or f".{field}`" in TEXT, field
    assert f"{SMALLEST:g}" in TEXT
    assert f"{LARGEST:g}".replace("+", "") in TEXT
