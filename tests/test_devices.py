"""Device profiles: every number has a unit and an origin, and a wrong file says where it is wrong."""

import json
import os
import re
import subprocess
import sys
import tomllib
from importlib import resources
from pathlib import Path

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from joulewise import cli
from joulewise.devices import Device, describe, list_devices, load_device, user_devices
from joulewise.errors import ProfileError
from joulewise.plausible import check
from joulewise.profilefile import dumps
from joulewise.quantities import (
    Duration,
    Energy,
    EnergyPerBit,
    EnergyPerOperation,
    Factor,
    Frequency,
    Number,
    Power,
    Quantity,
    Rate,
    Relative,
    Share,
    Size,
)

DIMENSIONS = {
    EnergyPerBit: {"fJ/bit": 1e-15, "pJ/bit": 1e-12, "nJ/bit": 1e-9, "uJ/bit": 1e-6, "J/bit": 1.0, "nJ/byte": 1.25e-10},
    Energy: {"nJ": 1e-9, "uJ": 1e-6, "mJ": 1e-3, "J": 1.0, "Wh": 3600.0, "mWh": 3.6},
    EnergyPerOperation: {"pJ": 1e-12, "nJ": 1e-9},
    Power: {"uW": 1e-6, "mW": 1e-3, "W": 1.0, "mJ/s": 1e-3},
    Rate: {"bit/s": 1.0, "kbit/s": 1e3, "Mbit/s": 1e6, "Gbit/s": 1e9, "MB/s": 8e6, "byte/s": 8.0},
    Size: {"byte": 1.0, "kB": 1e3, "KiB": 1024.0, "MiB": 2.0**20, "GiB": 2.0**30, "Mbit": 125e3},
    Duration: {"us": 1e-6, "ms": 1e-3, "s": 1.0},
    Frequency: {"Hz": 1.0, "kHz": 1e3, "MHz": 1e6},
    Relative: {"relative": 1.0},
    Share: {"%": 0.01},
    Factor: {"1": 1.0},
}

ORIGIN = 'kind = "assumed", source = "a test", year = 2020'
RADIO = f"""
schema = 1
name = "radio"
description = "A radio."
unit = "J"
[link.up]
marginal = {{ value = 10.0, unit = "nJ/bit", {ORIGIN} }}
"""


def write(folder: Path, text: str) -> Path:
    file = folder / "mine.toml"
    file.write_text(text, encoding="utf-8")
    return file


def quantity(dimension: type[Quantity], value: float, unit: str, source: str = "a test") -> Quantity:
    raw = {"value": value, "unit": unit, "kind": "assumed", "source": source, "year": 2020}
    return msgspec.convert(raw, type=dimension)


def test_the_devices_that_come_along_are_listed_in_order():
    assert list(list_devices()) == sorted(list_devices())
    assert {"phone-lte-2021", "synthetic-kind-10", "synthetic-residency-32"} <= set(list_devices())


@pytest.mark.parametrize("name", list_devices())
def test_a_device_that_comes_along_is_named_as_its_file_and_nothing_in_it_is_implausible(name):
    device = load_device(name)
    assert device.name == name
    assert device.description
    assert [finding.text for finding in check(device) if finding.severity == "warning"] == []


@pytest.mark.parametrize("name", list_devices())
def test_every_number_of_a_device_is_described_with_its_origin(name):
    entries = describe(load_device(name))
    assert len({entry.path for entry in entries}) == len(entries) > 0
    assert all(len(entry.source) > 20 and entry.year >= 2012 for entry in entries)


@pytest.mark.parametrize("name", [name for name in list_devices() if name.startswith("synthetic-")])
def test_synthetic_devices_are_relative_and_own_up_to_it(name):
    device = load_device(name)
    assert (device.unit, device.link, device.memory) == ("relative", None, None)
    assert all(entry.kind == "assumed" and "synthetic" in entry.source for entry in describe(device))


def test_the_phone_says_which_of_its_numbers_are_second_hand():
    kinds = {entry.path: entry.kind for entry in describe(load_device("phone-lte-2021"))}
    assert kinds == {
        "memory.dram.read": "assumed",
        "memory.dram.write": "assumed",
        "link.up.marginal": "model",
        "link.up.goodput": "assumed",
        "link.down.marginal": "model",
        "link.base_power": "model",
        "link.fixed": "assumed",
    }
    fixed = load_device("phone-lte-2021").link.fixed
    assert fixed.year == 2012
    assert "Huang et al." in fixed.source
    assert "second-hand" in fixed.source


def test_a_file_of_your_own_loads_by_path_and_text_alike(tmp_path):
    file = write(tmp_path, RADIO)
    assert load_device(file) == load_device(str(file))
    assert load_device(file).link.up.marginal.si == pytest.approx(1e-8)


@given(value=st.floats(1.0, 100.0), dimension=st.sampled_from(list(DIMENSIONS)), data=st.data())
def test_a_quantity_in_base_units_is_its_value_times_its_unit(value, dimension, data):
    unit, factor = data.draw(st.sampled_from(list(DIMENSIONS[dimension].items())))
    assert quantity(dimension, value, unit).si == value * factor


def test_a_whole_number_has_no_fraction():
    assert quantity(Number, 9.0, "1").si == 9.0
    with pytest.raises(msgspec.ValidationError, match="whole number"):
        quantity(Number, 9.5, "1")
    with pytest.raises(msgspec.ValidationError, match="factor of at least 1"):
        quantity(Factor, 0.9, "1")


@pytest.mark.parametrize("dimension", DIMENSIONS)
def test_no_dimension_takes_a_unit_of_another(dimension):
    mine = set(DIMENSIONS[dimension]) | (set(DIMENSIONS[Energy]) if dimension is EnergyPerOperation else set())
    mine |= set(DIMENSIONS[EnergyPerOperation]) if dimension is Energy else set()
    refused = {unit for units in DIMENSIONS.values() for unit in units} - mine
    assert len(refused) > 20
    for unit in refused:
        with pytest.raises(msgspec.ValidationError, match=r"`unit` is .*expected"):
            quantity(dimension, 1.0, unit)


@pytest.mark.parametrize("value", [0.0, -1.0, float("nan"), float("inf"), -float("inf")])
def test_a_number_that_is_not_finite_and_above_zero_is_refused(value):
    with pytest.raises(msgspec.ValidationError, match="expected a finite number above 0"):
        quantity(EnergyPerBit, value, "pJ/bit")


@pytest.mark.parametrize("value", [5e-324, 1e-30, 1e-20, 1e30, 1e308])
def test_a_number_that_no_product_survives_is_refused(value):
    with pytest.raises(msgspec.ValidationError, match="expected a number from 1e-24 to 1e\\+24"):
        quantity(EnergyPerBit, value, "pJ/bit")


def test_a_share_of_more_than_everything_is_refused():
    assert quantity(Share, 100.0, "%").si == 1.0
    with pytest.raises(msgspec.ValidationError, match="at most 100 %"):
        quantity(Share, 100.1, "%")


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ('"nJ/bit"', '"nJ"', r"link\.up\.marginal: `?unit`? is 'nJ', a unit of energy \(J\); expected energy per bit"),
        ('"nJ/bit"', '"W"', r"link\.up\.marginal: `?unit`? is 'W', a unit of power \(W\); expected energy per bit"),
        ('"nJ/bit"', '"NJ/bit"', r"'NJ/bit', but there is no unit 'NJ'"),
        ('"nJ/bit"', '"nj/bit"', r"no unit 'nj'; .*did you mean nJ\?"),
        ('"nJ/bit"', '"nJ/b"', r"no unit 'b'; .*b alone may be either"),
        ('"nJ/bit"', '"nJ*bit"', r"'nJ\*bit', which is no unit"),
        ('"nJ/bit"', '""', r"'', which is no unit"),
        ('source = "a test"', 'source = " "', r"link\.up\.marginal: `?source`? is empty"),
        (', source = "a test"', "", r"link\.up\.marginal: .source. is missing; add source = "),
        (", year = 2020", "", r"link\.up\.marginal: .year. is missing"),
        ("year = 2020", "year = 20", r"link\.up\.marginal\.year: expected a whole number of at least 1900, got 20"),
        ('kind = "assumed"', 'kind = "guessed"', r"marginal\.kind: invalid value 'guessed'; .*measured, model"),
        ("value = 10.0", "value = nan", r"link\.up\.marginal: `?value`? is nan, expected a finite number above 0"),
        ("value = 10.0", "value = inf", r"`?value`? is inf, expected a finite number above 0"),
        ("value = 10.0", "value = 0", r"`?value`? is 0\.0, expected a finite number above 0"),
        ("value = 10.0", "value = -1", r"`?value`? is -1\.0, expected a finite number above 0"),
        ("value = 10.0", "value = 1e308", r"marginal: `?value`? is 1e\+308 nJ/bit, expected a number from"),
        ("value = 10.0", "value = 5e-324", r"marginal: `?value`? is 5e-324 nJ/bit, expected a number from"),
        ("value = 10.0", "value = 1" + 400 * "0", r"marginal\.value: the number is out of range"),
        ("value = 10.0", 'value = "10"', r'link\.up\.marginal\.value: expected a number, got "10"'),
        ("value = 10.0", "value = true", r"expected a number, got true"),
        ("[link.up]", "[link.upp]", r"link: unknown key `upp`; did you mean up\?"),
        ("[link.up]", "[linkk.up]", r"unknown key `linkk`; did you mean link\?"),
        ('unit = "J"', 'unit = "relative"', r"has \[prices\], and nothing in joules"),
        ("schema = 1", "schema = 2", r"schema: invalid value '2'; expected one of: 1"),
        ("schema = 1", "schema = ", r"is not TOML: Invalid value \(at line"),
        ("[link.up]\nmarginal", "[link.up]\nspeed", r"link\.up: unknown key `speed`"),
        ("[link.up]\nmarginal", "[link]\nup = 3\nmarginal", r"link\.up: expected a table, got 3"),
        (
            "[link.up]",
            "[link]\nfixed = 3.5\n[link.up]",
            r"link\.fixed: expected a table, got 3\.5; a number is a table of value",
        ),
        ('name = "radio"', 'name = ""', r"name: expected text that is not empty"),
        (RADIO, 'schema = 1\nname = "r"\ndescription = ""\nunit = "J"\n', r"has \[link\] or \[memory\]"),
    ],
)
def test_a_wrong_file_says_which_file_where_in_it_and_what_was_expected(tmp_path, old, new, message):
    assert RADIO.count(old) == 1
    file = write(tmp_path, RADIO.replace(old, new))
    with pytest.raises(ProfileError, match=message) as caught:
        load_device(file)
    assert "mine.toml" in str(caught.value)


def test_a_file_that_is_not_text_or_not_there_is_a_profile_error(tmp_path):
    (tmp_path / "binary.toml").write_bytes(b"\xff\xfe\x00")
    for name in ("binary.toml", "absent.toml", "."):
        with pytest.raises(ProfileError, match="device file"):
            load_device(tmp_path / name)


def test_an_unknown_name_tells_what_was_probably_meant_or_else_what_is_known():
    with pytest.raises(ProfileError, match=r"no device 'phone-lte'; did you mean 'phone-lte-2021'\?"):
        load_device("phone-lte")
    with pytest.raises(ProfileError, match="joulewise devices list") as caught:
        load_device("zzz")
    assert "did you mean" not in str(caught.value)
    assert all(name in str(caught.value) for name in list_devices())


def findings(device, severity):
    return [finding.text for finding in check(device) if finding.severity == severity]


def test_check_tells_of_a_lost_factor_of_a_thousand_and_of_missing_parts(tmp_path):
    device = load_device(write(tmp_path, RADIO.replace('"nJ/bit"', '"pJ/bit"')))
    [warning] = findings(device, "warning")
    assert warning.startswith("link.up.marginal is 10 pJ/bit, but energy per bit of a link is 0.1 to 1e+07 nJ/bit")
    assert "pico for nano" in warning
    notes = findings(device, "note")
    assert any("link.fixed is missing" in note for note in notes)
    assert any("boundary 'device' cannot be priced" in note for note in notes)
    assert any("link.down is missing" in note for note in notes)


# ---------------------------------------------------------------- the profiles that come along

PROFILES = resources.files("joulewise").joinpath("profiles")


def leaves(table, path=()):
    """Every table that has a value, with its path."""
    if isinstance(table, dict):
        if "value" in table:
            yield path, table
        for key, inner in table.items():
            yield from leaves(inner, (*path, key))


@pytest.mark.parametrize("name", list_devices())
def test_a_number_that_loses_its_origin_is_refused(name, tmp_path):
    text = PROFILES.joinpath(f"{name}.toml").read_text(encoding="utf-8")
    raw = tomllib.loads(text)
    found = list(leaves(raw))
    assert len(found) >= 3
    path, leaf = found[-1]
    for part in ("source", "kind", "year", "unit"):
        kept = leaf.pop(part)
        with pytest.raises(ProfileError, match=rf"{re.escape('.'.join(path))}: `{part}` is missing"):
            load_device(write(tmp_path, as_toml(raw)))
        leaf[part] = kept
    assert load_device(write(tmp_path, as_toml(raw))) == load_device(name)


def as_toml(table, path=()):
    lines = [f"[{'.'.join(path)}]"] if path else []
    lines += [f"{key} = {json.dumps(value)}" for key, value in table.items() if not isinstance(value, dict)]
    return "\n".join(lines + [as_toml(inner, (*path, key)) for key, inner in table.items() if isinstance(inner, dict)])


@pytest.mark.parametrize("name", list_devices())
def test_a_number_that_is_second_hand_or_remembered_is_assumed(name):
    for entry in describe(load_device(name)):
        if re.search("second-hand|remembered|is assumed: the current", entry.source):
            assert entry.kind == "assumed", entry.path
        assert entry.kind != "measured", entry.path  # nobody measured anything on the devices that come along


def test_the_profiles_that_come_along_cover_what_a_reader_looks_for():
    names = " ".join(list_devices())
    assert len(list_devices()) >= 15
    for part in (
        "wifi",
        "lte",
        "5g-low-band",
        "5g-mmwave",
        "ble",
        "802154",
        "lorawan",
        "nbiot",
        "flash",
        "sbc",
        "45nm",
    ):
        assert part in names
    assert "table-7nm" in names


def test_the_dense_upload_of_resnet18_on_lte_takes_the_energy_that_the_fit_gives():
    link = load_device("phone-lte-2021").link
    bits = 32 * 11_173_962
    assert bits * link.up_per_bit == pytest.approx(27.4, abs=0.05)
    assert bits * (link.up_per_bit + link.base_per_bit) == pytest.approx(97.3, abs=0.05)


def test_the_flash_of_the_microcontroller_holds_its_model_in_pages():
    memory = load_device("mcu-flash-ble-nrf5340").memory
    assert (memory.home, memory.main) == ("flash", memory.sram)
    page = memory.flash.page.si * 8 * memory.flash.write.si + memory.flash.erase.si
    assert page == pytest.approx(1.31e-3, rel=0.01)  # one changed word costs a page


def test_lorawan_at_a_higher_spreading_factor_costs_more_and_carries_less_within_its_duty_cycle():
    links = [load_device(f"lorawan-eu868-sf{factor}").link for factor in (7, 9, 12)]
    assert [link.up_per_bit * 1e6 for link in links] == pytest.approx([28.5, 101.0, 939.0], rel=3e-3)
    kbit_per_hour = [link.up.goodput.si * 3.6 for link in links]
    assert kbit_per_hour == pytest.approx([173, 49, 5.3], rel=0.02)


# ---------------------------------------------------------------- plausibility


def implausible(path, value, unit):
    """The warning about one number of an otherwise plausible device."""
    device = load_device("mcu-flash-ble-nrf5340")
    raw = msgspec.to_builtins(device)
    *tables, last = path.split(".")
    inner = raw
    for key in tables:
        inner = inner[key]
    inner[last] = {"value": value, "unit": unit, "kind": "literature", "source": "a test", "year": 2026}
    return findings(msgspec.convert(raw, type(device)), "warning")


@pytest.mark.parametrize(
    ("path", "value", "unit", "slip"),
    [
        ("memory.sram.read", 100.0, "pJ/bit", "per 64-bit access"),
        ("memory.sram.read", 0.2, "nJ/bit", "nano for pico"),
        ("memory.sram.write", 0.001, "pJ/bit", "per bit is written as one per byte"),
        ("memory.sram.write", 60.0, "pJ/bit", "per byte is written as one per bit"),
        ("memory.flash.write", 13.4, "uJ/bit", "prefix is one step too large"),
        ("link.up.marginal", 19.2, "pJ/bit", "prefix is one step too small"),
        ("link.down.marginal", 19.2, "J/bit", "check the number"),
        ("memory.sram.capacity", 1.0, "byte", "prefix is one step too small"),
        ("compute.add", 156.0, "nJ", "prefix is one step too large"),
        ("memory.flash.erase", 1.0, "PJ", "check the number"),
    ],
)
def test_the_classic_slips_of_a_unit_are_outside_the_plausible_range_and_named(path, value, unit, slip):
    [warning] = implausible(path, value, unit)
    assert warning.startswith(f"{path} is {value:g} {unit}, but ")
    assert re.search(r" is [0-9.e+-]+ to [0-9.e+-]+ ", warning)
    assert slip in warning


def test_a_measured_figure_of_memory_may_hold_the_processors_share():
    device = load_device("table-45nm-horowitz-2014")
    raw = msgspec.to_builtins(device)
    for direction in ("read", "write"):
        raw["memory"]["dram"][direction] |= {"value": 500.0, "kind": "measured"}
    assert findings(msgspec.convert(raw, type(device)), "warning") == []
    raw["memory"]["dram"]["read"] |= {"kind": "literature"}
    assert len(findings(msgspec.convert(raw, type(device)), "warning")) == 1


def changed(name, **numbers):
    """Warnings of a shipped device with other numbers at these paths, given with _ for a dot."""
    raw = msgspec.to_builtins(load_device(name))
    for path, (value, unit, kind) in numbers.items():
        *tables, last = path.split("_")
        inner = raw
        for key in tables:
            inner = inner[key]
        inner[last] = {"value": value, "unit": unit, "kind": kind, "source": "a test", "year": 2026}
    return findings(msgspec.convert(raw, Device), "warning")


def test_reading_and_writing_that_differ_too_much_are_told_even_when_measured():
    kind = "measured"
    both = {"memory_dram_read": (20.0, "pJ/bit", kind), "memory_dram_write": (600.0, "pJ/bit", kind)}
    [warning] = changed("table-45nm-horowitz-2014", **both)
    assert warning.startswith("memory.dram: write takes 30 times as much as read, expected 1/4 to 4 times; check")
    both["memory_dram_write"] = (75.0, "pJ/bit", kind)
    assert changed("table-45nm-horowitz-2014", **both) == []
    both["memory_dram_write"] = (4.0, "pJ/bit", kind)
    assert "write takes 0.2 times" in changed("table-45nm-horowitz-2014", **both)[0]
    [warning] = changed("mcu-flash-ble-nrf5340", memory_flash_read=(20.0, "nJ/bit", "model"))  # writing: 13.4
    assert "memory.flash.read is 20 nJ/bit" in warning
    [warning] = changed("mcu-flash-ble-nrf5340", memory_flash_write=(5.0, "pJ/bit", kind))
    assert "memory.flash.write is 5 pJ/bit" in warning
    both = {"memory_flash_write": (20.0, "pJ/bit", kind), "memory_flash_read": (40.0, "pJ/bit", kind)}
    assert "memory.flash: writing flash takes less than reading it" in changed("mcu-flash-ble-nrf5340", **both)[0]


@pytest.mark.parametrize("value", [64.0, 512.0, 1300.0])  # per byte at 8 pJ/bit; per access of 64 bits at 8 and 20.3
def test_an_access_of_dram_does_not_pass_for_a_bit(value):
    number = (value, "pJ/bit", "literature")
    warnings = changed("phone-lte-2021", memory_dram_read=number, memory_dram_write=number)
    assert [each.partition(" is ")[0] for each in warnings] == ["memory.dram.read", "memory.dram.write"]
    assert all(f"is {value:g} pJ/bit, but energy per bit of DRAM is 2 to 50 pJ/bit" in each for each in warnings)
    assert all("per 64-bit access is written as one per bit" in each for each in warnings if value > 100)


@pytest.mark.parametrize(
    ("name", "radio"),
    [
        ("mcu-ble-nrf52840", "Bluetooth LE"),
        ("mcu-802154-nrf52840", "802.15.4"),
        ("phone-wifi-2020", "Wi-Fi"),
        ("phone-lte-2021", "a mobile network"),
        ("phone-5g-mmwave-2021", "a mobile network"),
        ("mcu-nbiot", "NB-IoT or LTE-M"),
        ("sbc-raspberry-pi-5-ethernet", "Ethernet"),
    ],
)
@pytest.mark.parametrize("factor", [1e-3, 1e3])
def test_a_link_is_held_against_its_kind_of_radio(name, radio, factor):
    link = load_device(name).link
    off = link.up.marginal
    assert changed(name, link_up_marginal=(off.value, off.unit, "measured")) == []
    found = changed(name, link_up_marginal=(off.value * factor, off.unit, "measured"))
    assert len(found) == 1
    assert f"of {radio} " in found[0]
    rate = link.up.goodput
    [power] = changed(name, link_up_goodput=(rate.value * factor, rate.unit, "measured"))
    if rate.si * factor < 1e11:
        assert power.startswith("link.up: marginal times goodput is ")
        assert f"the power of {radio} that sends or receives" in power


def test_a_link_of_no_known_kind_is_held_against_any_power(tmp_path):
    goodput = f'goodput = {{ value = 100.0, unit = "Gbit/s", {ORIGIN} }}\n'
    [warning] = findings(load_device(write(tmp_path, RADIO + goodput)), "warning")
    assert warning.startswith("link.up: marginal times goodput is 1e+06 mW, but the power of a link that sends or")
    lora = changed("lorawan-eu868-sf7", link_up_power=(100.0, "W", "measured"))
    assert any(warning.startswith("link.up.power is 100 W") for warning in lora)


def test_check_tells_of_a_level_without_capacity_and_a_link_without_goodput():
    raw = msgspec.to_builtins(load_device("table-45nm-horowitz-2014"))
    raw["memory"]["sram"]["capacity"] = None
    [warning] = findings(msgspec.convert(raw, Device), "warning")
    assert "memory.sram.capacity is missing" in warning
    raw = msgspec.to_builtins(load_device("phone-lte-2021"))
    raw["link"]["up"]["goodput"] = None
    [warning] = findings(msgspec.convert(raw, Device), "warning")
    assert "link.up.goodput is missing, so link.base_power cannot be shared out" in warning


def test_check_shows_figures_of_different_years():
    [note] = [text for text in findings(load_device("phone-lte-2021"), "note") if "years" in text]
    assert "2012 to 2021: 2012: link.fixed; 2019: memory.dram.read, memory.dram.write; 2021: link.up.marginal" in note


# ---------------------------------------------------------------- your own files


def test_a_byte_order_mark_is_no_matter(tmp_path):
    file = tmp_path / "bom.toml"
    file.write_bytes(b"\xef\xbb\xbf" + RADIO.encode())
    assert load_device(file).name == "radio"


def test_a_lora_uplink_has_to_say_that_it_is_one(tmp_path):
    text = PROFILES.joinpath("lorawan-eu868-sf9.toml").read_text(encoding="utf-8")
    with pytest.raises(ProfileError, match=r"link\.up: `name` is missing"):
        load_device(write(tmp_path, text.replace('name = "LoRa"\n', "")))


def test_an_own_device_is_found_by_name_and_may_not_hide_one_that_comes_along(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    monkeypatch.delenv("JOULEWISE_DEVICES", raising=False)
    assert user_devices() == ()
    folder = tmp_path / "joulewise" / "devices"
    folder.mkdir(parents=True)
    (folder / "my-radio.toml").write_text(RADIO)
    assert user_devices() == ("my-radio",)
    assert load_device("my-radio").name == "radio"
    with pytest.raises(ProfileError, match="did you mean 'my-radio'"):
        load_device("my-radioo")
    (folder / "phone-lte-2021.toml").write_text(RADIO)
    with pytest.raises(ProfileError, match=r"comes with joulewise, but .* has the same name"):
        load_device("phone-lte-2021")
    assert load_device(folder / "phone-lte-2021.toml").name == "radio"
    monkeypatch.setenv("JOULEWISE_DEVICES", str(tmp_path / "elsewhere"))
    assert user_devices() == ()
    assert load_device("phone-lte-2021").name == "phone-lte-2021"


def test_without_a_home_there_are_no_own_devices_and_the_others_load(tmp_path):
    code = "import joulewise; from joulewise.devices import user_devices; print(user_devices(), end=' ')"
    code += "; print(joulewise.load_device('synthetic-kind-10').name)"
    kept = {key: value for key, value in os.environ.items() if key not in {"XDG_CONFIG_HOME", "JOULEWISE_DEVICES"}}
    for home in (str(tmp_path / "absent"), "/dev/null", ""):
        done = subprocess.run(
            [sys.executable, "-c", code], capture_output=True, text=True, check=True, env=kept | {"HOME": home}
        )
        assert done.stdout == "() synthetic-kind-10\n"


def test_a_file_that_is_far_too_large_is_refused(tmp_path):
    with pytest.raises(ProfileError, match="more than 1048576 bytes"):
        load_device(write(tmp_path, RADIO + "#" * (1 << 20)))


@pytest.mark.parametrize("name", list_devices())
def test_a_device_that_is_written_out_loads_as_it_was(name, tmp_path):
    device = load_device(name)
    assert load_device(write(tmp_path, dumps(device))) == device


def test_text_that_toml_would_trip_over_is_written_out_safely(tmp_path):
    device = load_device("synthetic-residency-32")
    hard = msgspec.structs.replace(device, description='a "quote", a \\ and \t \n \u00e9 \U0001f600')
    assert load_device(write(tmp_path, dumps(hard))) == hard
    assert tomllib.loads(dumps(Written("\x7f \x00 \x1b \u202e"))) == {"text": "\x7f \x00 \x1b \u202e"}


class Written(msgspec.Struct):
    text: str


@pytest.mark.parametrize("character", ["\x1b", "\x00", "\x07", "\x7f", "\x9b", "\r", "\u202e"])
@pytest.mark.parametrize("field", ["source", "name", "description"])
def test_text_that_would_steer_a_terminal_is_refused_and_never_reaches_one(tmp_path, character, field):
    was = {"source": '"a test"', "name": '"radio"', "description": '"A radio."'}[field]
    text = RADIO.replace(was, f'"good \\u{ord(character):04x}[31m"')
    with pytest.raises(ProfileError, match=f"{field}.* holds the control character '.*'.*; take it out") as caught:
        load_device(write(tmp_path, text))
    assert character not in str(caught.value)


def test_a_key_of_a_five_hundred_parts_is_unknown_and_no_defect(tmp_path):
    with pytest.raises(ProfileError, match="unknown key"):
        load_device(write(tmp_path, ".".join("a" * 500) + " = 1\n" + RADIO))


def test_a_line_break_in_a_source_is_text(tmp_path):
    assert "\n" in describe(load_device(write(tmp_path, RADIO.replace('"a test"', '"a\\ntest"'))))[0].source


def test_control_characters_in_keys_are_written_out_in_the_terminal(tmp_path, capsys, monkeypatch):
    path = write(tmp_path, RADIO + '"\\u001b[31mlink" = 1\n')
    monkeypatch.setattr(sys, "argv", ["joulewise", "devices", "show", str(path)])
    with pytest.raises(SystemExit) as done:
        cli.main()
    shown = capsys.readouterr()
    assert done.value.code == 2
    assert "\x1b" not in shown.out + shown.err
    assert r"\x1b[31mlink" in shown.err


@pytest.mark.parametrize(
    ("unit", "dimension", "write"),
    [
        ("joules", Energy, "J"),
        ("joule", Energy, "J"),
        ("kilojoule", Energy, "kJ"),
        ("kJoule", Energy, None),
        ("watt_hours", Energy, "Wh"),
        ("pJ/bits", EnergyPerBit, "pJ/bit"),
        ("picojoule/bit", EnergyPerBit, "pJ/bit"),
        ("bits/s", Rate, "bit/s"),
        ("Mbits/second", Rate, "Mbit/s"),
        ("bytes", Size, "B"),
        ("milliwatts", Power, "mW"),
        ("hertz", Frequency, "Hz"),
        ("seconds", Duration, "s"),
    ],
)
def test_units_are_written_by_their_symbols_and_other_spellings_say_which(unit, dimension, write):
    words = "no unit" if write is None else f"'{unit}', but units are written by their symbols; write '{write}'"
    with pytest.raises(msgspec.ValidationError, match=words):
        quantity(dimension, 1.0, unit)
    if write is not None:
        assert quantity(dimension, 1.0, write).si > 0


def test_importing_joulewise_loads_no_unit_library():
    code = "import sys, joulewise; joulewise.list_devices(); print('pint' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "False\n"


def test_a_size_out_of_range_is_not_called_a_figure_per_bit():
    tiny = Size(8.0, "KiB", "assumed", "made for this test", 2026)
    phone = load_device("phone-lte-2021")
    dram = msgspec.structs.replace(phone.memory.dram, capacity=tiny)
    memory = msgspec.structs.replace(phone.memory, dram=dram)
    (warning,) = (one for one in check(msgspec.structs.replace(phone, memory=memory)) if one.severity == "warning")
    assert warning.text.startswith("memory.dram.capacity is 8 KiB, but capacity of DRAM is")
    assert "per bit" not in warning.text
