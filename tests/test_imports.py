"""Profiles from files of other programs: Android's power_profile.xml and ZigZag's accelerators."""

import hashlib
import re

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from joulewise import android, zigzag
from joulewise.devices import describe, load_device
from joulewise.errors import ProfileError
from joulewise.plausible import check
from joulewise.profilefile import dumps

PHONE = """<?xml version="1.0" encoding="utf-8"?>
<device name="Android">
  <!-- a file of our own -->
  <item name="none">0</item>
  <item name="wifi.controller.tx">200</item>
  <item name="wifi.controller.rx">100</item>
  <item name="wifi.controller.voltage">3700</item>
  <array name="wifi.controller.tx_levels">1 </array>
  <array name="modem.controller.tx"><value>100</value><value>300</value></array>
  <item name="modem.controller.rx">0.1</item>
  <item name="battery.capacity">4000</item>
</device>
"""

CHIP = {
    "name": "chip",
    "memories": {
        "rf": {"size": 8, "r_cost": 0.01, "w_cost": 0.01, "ports": [{"type": "read_write", "bandwidth_max": 8}]},
        "sram": {
            "size": 262144,
            "r_cost": 64.0,
            "w_cost": 128.0,
            "ports": [
                {"name": "r", "type": "read", "bandwidth_min": 64, "bandwidth_max": 512},
                {"name": "w", "type": "write", "bandwidth_min": 64, "bandwidth_max": 256},
            ],
        },
        "dram": {
            "size": 8_000_000,
            "r_cost": 640,
            "w_cost": 704,
            "ports": [{"type": "read_write", "bandwidth_max": 64}],
        },
    },
    "operational_array": {"unit_energy": 0.5},
}


def phone(tmp_path, text=PHONE, goodput="20Mbit/s", radio="wifi", voltage=None):
    file = tmp_path / "power_profile.xml"
    file.write_bytes(text if isinstance(text, bytes) else text.encode())
    return android.read(file, goodput, radio, voltage, name="mine", year=2020, imported=2026)


def chip(tmp_path, tables=CHIP, dram=None, sram=None):
    file = tmp_path / "chip.yaml"
    file.write_text(tables if isinstance(tables, str) else yaml.safe_dump(tables))
    return zigzag.read(file, dram, sram, name="mine", year=2026)


def changed(path, value):
    """The chip with one thing in it that is different."""
    tables = yaml.safe_load(yaml.safe_dump(CHIP))
    inner = tables
    *keys, last = path
    for key in keys:
        inner = inner[key]
    inner[last] = value
    return tables


# ---------------------------------------------------------------- Android


def test_a_current_times_its_voltage_over_the_goodput_is_energy_per_bit(tmp_path):
    device, notes = phone(tmp_path).device, phone(tmp_path).notes
    assert device.link.up_per_bit == pytest.approx(0.2 * 3.7 / 20e6, rel=1e-12)
    assert device.link.down_per_bit == pytest.approx(0.1 * 3.7 / 20e6, rel=1e-12)
    assert device.link.up.goodput.si == 20e6
    assert device.battery.capacity.si == pytest.approx(4.0 * 3.7 * 3600, rel=1e-12)
    assert notes == ()


def test_every_imported_number_names_the_file_its_hash_and_the_conversion(tmp_path):
    device = phone(tmp_path).device
    digest = hashlib.sha256(PHONE.encode()).hexdigest()[:12]
    entries = {entry.path: entry for entry in describe(device)}
    goodput = entries.pop("link.up.goodput")
    assert (goodput.kind, goodput.year) == ("assumed", 2026)  # chosen when the file was imported
    for entry in entries.values():
        assert f"power_profile.xml (SHA-256 {digest})" in entry.source
        assert (entry.kind, entry.year) == ("datasheet", 2020)
    assert "wifi.controller.tx, 200 mA at 3.7 V, over 20 Mbit/s" in entries["link.up.marginal"].source


def test_a_modem_with_levels_takes_their_mean_and_a_placeholder_is_reported(tmp_path):
    imported = phone(tmp_path, radio="modem", voltage=4.0)
    assert imported.device.link.up_per_bit == pytest.approx(0.2 * 4.0 / 20e6, rel=1e-12)
    assert imported.device.link.down is None
    assert imported.device.battery.capacity.si == pytest.approx(4.0 * 4.0 * 3600)
    assert any("modem.controller.rx is 0.1 mA, which is a placeholder" in note for note in imported.notes)
    assert any("so --voltage 4 is used" in note for note in imported.notes)
    for entry in describe(imported.device):
        if entry.path != "link.up.goodput":
            assert "at 4 V of --voltage" in entry.source


def test_a_voltage_of_the_file_that_is_none_is_told_and_not_used(tmp_path):
    volts = PHONE.replace(">3700<", ">3.7<")  # volts where millivolts belong
    with pytest.raises(ProfileError, match=r"wifi\.controller\.voltage of the file is 3\.7 mV, expected 500 to 50000;"):
        phone(tmp_path, volts)
    imported = phone(tmp_path, volts, voltage=3.7)
    assert imported.device.link.up_per_bit == pytest.approx(0.2 * 3.7 / 20e6)
    assert any("is 3.7 mV, expected 500 to 50000, so --voltage 3.7 is used" in note for note in imported.notes)
    with pytest.raises(ProfileError, match=r"voltage of the file is -3700 mV, expected 500 to 50000; give --voltage"):
        phone(tmp_path, PHONE.replace(">3700<", ">-3700<"))


def test_a_number_that_is_no_current_or_charge_is_told_as_it_stands(tmp_path):
    imported = phone(tmp_path, PHONE.replace(">100<", ">-100<").replace(">4000<", ">-4000<"))
    assert imported.device.link.down is None
    assert imported.device.battery is None
    assert "wifi.controller.rx is -100 mA, which is no current, so it is not used" in imported.notes
    assert "battery.capacity is -4000 mAh, which is no charge of a phone, so there is no [battery]" in imported.notes
    assert not any("there is no wifi" in note for note in imported.notes)
    with pytest.raises(ProfileError, match=r"no usable current for sending.*modem\.controller\.tx is -1 mA"):
        phone(tmp_path, PHONE.replace("<value>300<", "<value>-1<"), radio="modem", voltage=4.0)


def test_an_old_file_without_a_controller_falls_back_to_the_active_current(tmp_path):
    old = re.sub(r"wifi\.controller\.(tx|rx)\"", r'wifi.was.\1"', PHONE).replace(
        "</device>", '<item name="wifi.active">150</item></device>'
    )
    imported = phone(tmp_path, old)
    assert imported.device.link.up_per_bit == pytest.approx(0.15 * 3.7 / 20e6)
    assert any("no wifi.controller.rx, so receiving is left out" in note for note in imported.notes)


def test_an_imported_phone_is_written_out_checked_and_loaded(tmp_path):
    device = phone(tmp_path).device
    file = tmp_path / "mine.toml"
    file.write_text(dumps(device), encoding="utf-8")
    assert load_device(file) == device
    assert [finding for finding in check(device) if finding.severity == "warning"] == []


BOMB = '<!DOCTYPE lolz [<!ENTITY a "ha"><!ENTITY b "&a;&a;&a;">]><device><item name="x">&b;</item></device>'


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"text": BOMB}, "has a document type"),
        ({"text": BOMB.encode("utf-16")}, "has a document type"),
        ({"text": '<!DOCTYPE d SYSTEM "file:///etc/hostname"><device/>'}, "has a document type"),
        ({"text": "<device>"}, r"is not XML: no element found.*give a power_profile\.xml"),
        ({"text": '<?xml version="1.0" encoding="no-such"?><device/>'}, "is not XML: unknown encoding"),
        ({"text": b"\x00\xff"}, "is not XML"),
        ({"text": "<resources/>"}, "is no power profile of Android"),
        ({"text": "<device/>"}, "is no power profile of Android"),
        ({"text": b"<device>" + b" " * (1 << 20)}, "more than 1048576 bytes"),
        ({"goodput": "20Mbps"}, "--goodput: .*no unit 'Mbps'; .*write Mbit/s"),
        ({"goodput": "20"}, "--goodput: expected a number and a unit"),
        ({"goodput": "fast"}, "--goodput: expected a number and a unit"),
        ({"goodput": "1.2.3Mbit/s"}, "--goodput: expected a number and a unit"),
        ({"goodput": "-1Mbit/s"}, "--goodput: value is -1.0"),
        ({"goodput": "0Mbit/s"}, "--goodput: value is 0.0"),
        ({"goodput": "20mW"}, "--goodput: unit is 'mW', a unit of power"),
        ({"goodput": "1e-20bit/s"}, "expected a number from"),
        ({"radio": "modem"}, r"has no modem\.controller\.voltage; give --voltage"),
        ({"radio": "modem", "voltage": 3700.0}, "--voltage is 3700, expected volts from 0.5 to 50"),
        ({"radio": "modem", "voltage": float("nan")}, "--voltage is nan"),
        ({"text": PHONE.replace(">200<", ">0.1<")}, r"wifi\.controller\.tx is 0.1 mA, which is a placeholder.*measure"),
        ({"text": PHONE.replace(">200<", ">nan<")}, r"wifi\.controller\.tx is nan mA, which is no current"),
        ({"text": PHONE.replace(">200<", ">-5<")}, r"wifi\.controller\.tx is -5 mA, which is no current"),
    ],
)
def test_a_file_that_gives_no_price_is_refused_in_plain_words(tmp_path, arguments, message):
    with pytest.raises(ProfileError, match=message):
        phone(tmp_path, **arguments)


def test_a_file_that_is_not_there_is_a_profile_error(tmp_path):
    with pytest.raises(ProfileError, match="cannot be read"):
        android.read(tmp_path / "absent.xml", "1Mbit/s", "wifi", None, name="x", year=2026)


# ---------------------------------------------------------------- ZigZag


def test_energy_per_access_over_the_bits_of_an_access_is_energy_per_bit(tmp_path):
    imported = chip(tmp_path)
    memory = imported.device.memory
    levels = [(level.read.si, level.write.si, level.capacity.si) for level in (memory.sram, memory.dram)]
    assert levels[0] == pytest.approx((64e-12 / 512, 128e-12 / 256, 32 * 1024), rel=1e-12)
    assert levels[1] == pytest.approx((10e-12, 11e-12, 1e6), rel=1e-12)
    assert imported.device.compute.multiply.si == pytest.approx(0.5e-12)
    assert {entry.kind for entry in describe(memory)} == {"model"}
    assert {entry.kind for entry in describe(imported.device.compute)} == {"assumed"}
    assert any("left out: rf" in note for note in imported.notes)


def test_an_imported_accelerator_is_written_out_checked_and_loaded(tmp_path):
    device = chip(tmp_path).device
    file = tmp_path / "mine.toml"
    file.write_text(dumps(device), encoding="utf-8")
    assert load_device(file) == device
    assert [finding for finding in check(device) if finding.severity == "warning"] == []
    digest = hashlib.sha256((tmp_path / "chip.yaml").read_bytes()).hexdigest()[:12]
    assert all(f"chip.yaml (SHA-256 {digest})" in entry.source for entry in describe(device))


def test_memories_can_be_named_and_old_files_give_their_bandwidth_directly(tmp_path):
    old = {"size": 65536, "r_cost": 8.0, "w_cost": 16.0, "r_bw": 64, "w_bw": 32}
    imported = chip(tmp_path, changed(("memories", "old"), old), sram="old")
    assert imported.device.memory.sram.read.si == pytest.approx(8e-12 / 64)
    assert imported.device.memory.sram.write.si == pytest.approx(16e-12 / 32)
    assert chip(tmp_path, dram="sram", sram="dram").device.memory.dram.read.si == pytest.approx(64e-12 / 512)


def test_without_the_energy_of_an_operation_there_is_no_compute(tmp_path):
    imported = chip(tmp_path, changed(("operational_array", "unit_energy"), 0))
    assert imported.device.compute is None
    assert any("unit_energy is missing or 0" in note for note in imported.notes)


@pytest.mark.parametrize(
    ("tables", "message"),
    [
        ("a: [", "is not YAML: while parsing"),
        ("!!python/object/apply:os.system ['true']", "is not YAML: could not determine a constructor"),
        ("[" * 100_000, "is not YAML"),
        ("- 1", "is no accelerator of ZigZag"),
        ("memories: 3", "is no accelerator of ZigZag"),
        ({"memories": {}}, "has no memory of at least 1 KiB"),
        (changed(("memories", "dram", "r_cost"), 0), r"memories\.dram\.r_cost is 0, expected a finite number above 0"),
        (changed(("memories", "dram", "r_cost"), -1.0), r"memories\.dram\.r_cost is -1\.0"),
        (changed(("memories", "dram", "w_cost"), float("nan")), r"memories\.dram\.w_cost is nan"),
        (changed(("memories", "dram", "w_cost"), float("inf")), r"memories\.dram\.w_cost is inf"),
        (changed(("memories", "dram", "w_cost"), 10**400), r"memories\.dram\.w_cost is 1000"),
        (changed(("memories", "dram", "w_cost"), True), r"memories\.dram\.w_cost is True"),
        (changed(("memories", "dram", "w_cost"), "750"), r"memories\.dram\.w_cost is '750'"),
        (changed(("memories", "dram", "w_cost"), None), r"memories\.dram\.w_cost is None"),
        (changed(("memories", "dram", "size"), 0), r"memories\.dram\.size is 0"),
        (changed(("memories", "dram", "ports"), []), r"bandwidth_max of a port that can read is None"),
        (changed(("memories", "dram", "ports"), 3), r"bandwidth_max of a port that can read is None"),
    ],
)
def test_an_accelerator_without_a_number_is_refused_with_its_place(tmp_path, tables, message):
    with pytest.raises(ProfileError, match=message):
        chip(tmp_path, tables)


def test_a_memory_that_is_not_there_is_named_beside_those_that_are(tmp_path):
    with pytest.raises(ProfileError, match=r"--dram ddr: .* has no such memory; it has dram, rf, sram"):
        chip(tmp_path, dram="ddr")


@settings(max_examples=200, deadline=None)
@given(st.binary(max_size=200))
def test_no_bytes_bring_an_importer_down(tmp_path_factory, content):
    folder = tmp_path_factory.mktemp("fuzz")
    file = folder / "file"
    file.write_bytes(content)
    for attempt in (
        lambda: android.read(file, "1Mbit/s", "wifi", 3.7, name="x", year=2026),
        lambda: zigzag.read(file, None, None, name="x", year=2026),
        lambda: load_device(file),
    ):
        with pytest.raises(ProfileError):
            attempt()
