"""Meters on recorded sensor trees: the readers that run on a real machine read files that a test changes."""

import dataclasses
import gc
import threading
import time
from pathlib import Path

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sensor_tree import Clock, SensorTree

from joulewise import battery, hwmon, meters, powercap
from joulewise.errors import MeterError
from joulewise.meters import Reading, add, find_meters, idle, net, readable, survey

PACKAGE = "powercap/intel-rapl:0/energy_uj"
RANGE_UJ = 262143328850


@pytest.fixture
def tree(tmp_path):
    return lambda name: SensorTree(tmp_path, name)


@pytest.fixture(scope="module")
def shared_laptop(tmp_path_factory):
    return SensorTree(tmp_path_factory.mktemp("laptop"), "laptop")


@pytest.fixture
def clock():
    return Clock()


def the_meter(module, tree, clock):
    (meter,) = module.find(tree.root)
    # No sample from the thread: a test says what happens when. The thread has tests of its own.
    sensors = meter.sensors
    if hasattr(sensors, "rail"):
        sensors = dataclasses.replace(sensors, interval_s=3600.0)
    return dataclasses.replace(meter, clock=clock, sensors=sensors)


def window(meter, clock, seconds, between=lambda: None):
    mark = meter.begin()
    clock.wait(seconds)
    between()
    return meter.end(mark)


# ---------------------------------------------------------------- powercap


def test_packages_and_dram_are_added_and_nothing_twice(tree, clock):
    server = tree("server-2-sockets")
    meter = the_meter(powercap, server, clock)
    assert meter.domains == ("package-0", "package-0/dram", "package-1", "package-1/dram")

    def work():
        server.add(PACKAGE, 100_000_000)
        server.add("powercap/intel-rapl:0:0/energy_uj", 7_000_000)
        server.add("powercap/intel-rapl:1/energy_uj", 50_000_000)
        server.add("powercap/intel-rapl:1:0/energy_uj", 3_000_000)

    reading = window(meter, clock, 2.0, work)
    assert reading.joules == pytest.approx(160.0, rel=1e-12)
    assert (reading.basis, reading.window_s, reading.note) == ("measured", 2.0, "")
    assert reading.domains == meter.domains
    assert reading.power_w == pytest.approx(80.0)


def test_cores_the_platform_and_the_copy_through_mmio_are_left_out(tree, clock):
    laptop = tree("laptop")
    meter = the_meter(powercap, laptop, clock)
    assert meter.domains == ("package-0",)

    def work():
        for zone in ("intel-rapl:0:0", "intel-rapl:0:1", "intel-rapl:1", "intel-rapl-mmio:0"):
            laptop.add(f"powercap/{zone}/energy_uj", 9_000_000)
        laptop.add(PACKAGE, 250_000)

    assert window(meter, clock, 2.0, work).joules == pytest.approx(0.25)


def test_a_counter_that_wraps_around_goes_on_counting(tree, clock):
    laptop = tree("laptop")  # its counter stands 328 850 uJ below its range
    meter = the_meter(powercap, laptop, clock)
    reading = window(meter, clock, 2.0, lambda: laptop.set(PACKAGE, 20_000_000 - 328_850))
    assert reading.joules == pytest.approx(20.0, rel=1e-12)
    assert (reading.basis, reading.note) == ("measured", "")


@given(st.lists(st.tuples(st.floats(0.1, 60.0), st.floats(0.0, 1900.0)), min_size=1, max_size=20))
def test_no_energy_is_lost_over_any_number_of_wraps(shared_laptop, parts):
    laptop = shared_laptop
    laptop.set("powercap/intel-rapl:0/max_energy_range_uj", 150_000_000_000)
    laptop.set(PACKAGE, start := 149_000_000_000)
    clock = Clock()
    meter = the_meter(powercap, laptop, clock)
    mark, spent = meter.begin(), 0
    for seconds, watts in parts:
        clock.wait(seconds)
        spent += round(seconds * watts * 1e6)
        laptop.set(PACKAGE, (start + spent) % 150_000_000_000)
        mark.state.sample()
    assert (meter.end(mark).joules or 0.0) == pytest.approx(spent * 1e-6, rel=1e-9, abs=1e-9)


def test_an_open_window_is_sampled_before_a_counter_can_wrap_twice(tree, clock):
    laptop = tree("laptop")
    laptop.set("powercap/intel-rapl:0/max_energy_range_uj", 65_532_610_987)  # of processors before 2014
    (meter,) = powercap.find(laptop.root)
    assert 0 < meter.sensors.interval_s * powercap.CEILING_W <= 65_532.611 / 2


def test_a_counter_that_is_reset_gives_no_joule(tree, clock):
    server = tree("server-2-sockets")
    server.add("powercap/intel-rapl:1/energy_uj", -200_000_000_000)
    meter = the_meter(powercap, server, clock)

    def reset():
        server.add(PACKAGE, 10_000_000)
        server.set("powercap/intel-rapl:1/energy_uj", 1_000)

    reading = window(meter, clock, 5.0, reset)
    assert (reading.joules, reading.basis, reading.domains) == (None, "unavailable", ())
    assert "neither energy nor a wrap-around: the counter was reset" in reading.note
    assert "intel-rapl:1/energy_uj went from 61999846012 to 1000 uJ" in reading.note


def test_a_counter_that_leaps_gives_no_joule(tree, clock):
    server = tree("server-2-sockets")
    meter = the_meter(powercap, server, clock)
    assert window(meter, clock, 1.0, lambda: server.add(PACKAGE, 3_000_000_000)).joules is None


def test_a_counter_of_unknown_range_counts_until_it_goes_back(tree, clock):
    laptop = tree("laptop")
    laptop["powercap/intel-rapl:0/max_energy_range_uj"].unlink()
    meter = the_meter(powercap, laptop, clock)
    assert window(meter, clock, 2.0, lambda: laptop.add(PACKAGE, 4_000_000)).joules == pytest.approx(4.0)
    back = window(meter, clock, 2.0, lambda: laptop.set(PACKAGE, 5))
    assert back.joules is None
    assert "its range is not known" in back.note


def test_a_counter_that_stands_still_is_unavailable_and_never_0(tree, clock):
    meter = the_meter(powercap, tree("laptop"), clock)
    reading = window(meter, clock, 30.0)
    assert (reading.joules, reading.basis, reading.window_s) == (None, "unavailable", 30.0)
    assert (
        reading.note
        == "package-0 stood still in the whole window: the sensor is stuck, or does not measure this machine"
    )


def test_one_counter_that_stands_still_is_left_out_by_name(tree, clock):
    server = tree("server-2-sockets")
    reading = window(the_meter(powercap, server, clock), clock, 2.0, lambda: server.add(PACKAGE, 9_000_000))
    assert (reading.joules, reading.domains) == (pytest.approx(9.0), ("package-0",))
    assert "package-0/dram stood still and is left out; package-1 stood still" in reading.note


def test_a_window_shorter_than_a_step_says_so_and_a_short_one_too(tree, clock):
    laptop = tree("laptop")
    meter = the_meter(powercap, laptop, clock)
    none = window(meter, clock, 0.0004)
    assert none.joules is None
    assert "package-0 did not move in a window shorter than a step of the sensor (0.001 s)" in none.note
    assert none.window_s == pytest.approx(0.0004)
    short = window(meter, clock, 0.02, lambda: laptop.add(PACKAGE, 50_000))
    assert short.joules == pytest.approx(0.05)
    assert short.note == "the window is short for this sensor: measure at least 1 s"


def test_a_counter_that_only_root_may_read_names_the_commands(tree, clock, monkeypatch):
    server = tree("server-2-sockets")
    read = Path.read_text

    def denied(path, *arguments, **options):
        if path.name == "energy_uj":
            raise PermissionError(13, "Permission denied")
        return read(path, *arguments, **options)

    monkeypatch.setattr(Path, "read_text", denied)
    meter = the_meter(powercap, server, clock)
    reading = window(meter, clock, 2.0)
    assert (reading.joules, reading.basis) == (None, "unavailable")
    folder = server["powercap/intel-rapl:0"]
    assert f"sudo chmod a+r {folder}/energy_uj {folder}/intel-rapl:0:0/energy_uj" in reading.note
    assert powercap.UDEV_RULE in reading.note
    assert reading.note.count(powercap.UDEV_FILE) == 1
    assert meter.fault()
    assert readable(find_meters(server.root)) == ()


@pytest.mark.parametrize("content", ["", "many", "1.5", "0x10"])
def test_a_counter_that_is_no_number_is_unavailable(tree, clock, content):
    laptop = tree("laptop")
    laptop.set(PACKAGE, content)
    reading = window(the_meter(powercap, laptop, clock), clock, 2.0)
    assert reading.joules is None
    assert f"holds {content!r}, expected a whole number" in reading.note


def test_a_counter_beyond_64_bits_is_unavailable(tree, clock):
    laptop = tree("laptop")
    meter = the_meter(powercap, laptop, clock)
    mark = meter.begin()
    laptop.set(PACKAGE, "9" * 400)
    reading = meter.end(mark)
    assert (reading.joules, "more than 64 bits do" in reading.note) == (None, True)


def test_a_folder_in_place_of_a_counter_is_unavailable(tree, clock):
    laptop = tree("laptop")
    laptop[PACKAGE].unlink()
    laptop[PACKAGE].mkdir()
    reading = window(the_meter(powercap, laptop, clock), clock, 2.0)
    assert reading.joules is None
    assert "energy_uj cannot be read: Is a directory" in reading.note


def test_a_counter_that_goes_away_in_an_open_window_gives_no_joule(tree, clock):
    server = tree("server-2-sockets")
    meter = the_meter(powercap, server, clock)

    def work():
        server.add(PACKAGE, 9_000_000)
        server["powercap/intel-rapl:1:0/energy_uj"].unlink()

    reading = window(meter, clock, 2.0, work)
    assert (reading.joules, reading.domains) == (None, ())
    assert "the sensor went away in the open window" in reading.note
    assert "energy_uj is not there" in reading.note


def test_a_counter_that_comes_back_does_not_mend_the_window(tree, clock):
    laptop = tree("laptop")
    meter = the_meter(powercap, laptop, clock)
    mark = meter.begin()
    laptop[PACKAGE].rename(laptop["powercap/intel-rapl:0/away"])
    clock.wait(1)
    mark.state.sample()
    laptop["powercap/intel-rapl:0/away"].rename(laptop[PACKAGE])
    clock.wait(1)
    assert meter.end(mark).joules is None


def test_windows_may_overlap_and_closing_twice_gives_the_same(tree, clock):
    server = tree("server-2-sockets")
    meter = the_meter(powercap, server, clock)
    outer = meter.begin()
    server.add(PACKAGE, 10_000_000)
    clock.wait(2)
    inner = meter.begin()
    server.add(PACKAGE, 5_000_000)
    clock.wait(2)
    first = meter.end(inner)
    assert first.joules == pytest.approx(5.0)
    assert meter.end(outer).joules == pytest.approx(15.0)
    server.add(PACKAGE, 5_000_000)
    assert meter.end(inner) == first


# ---------------------------------------------------------------- INA3221


def test_the_input_rail_of_a_jetson_is_the_whole_and_its_parts_are_not_added(tree, clock):
    jetson = tree("jetson-orin-nx")
    meter = the_meter(hwmon, jetson, clock)
    assert (meter.name, meter.domains) == ("ina3221", ("VDD_IN",))
    # from 5.016 V x 1.012 A to 5 V x 2 A in 4 s: a trapezoid
    reading = window(
        meter,
        clock,
        4.0,
        lambda: (jetson.set("hwmon/hwmon1/in1_input", 5000), jetson.set("hwmon/hwmon1/curr1_input", 2000)),
    )
    assert reading.joules == pytest.approx((5.016 * 1.012 + 10.0) / 2 * 4.0)
    assert (reading.basis, reading.note) == ("measured", "")


def test_rails_that_may_feed_each_other_are_meters_of_their_own(tree):
    found = hwmon.find(tree("jetson-agx-orin").root)
    rails = ["VDD_GPU_SOC", "VDD_CPU_CV", "VIN_SYS_5V0", "VDDQ_VDD2_1V8AO"]  # and no NC, and no sum of shunts
    assert [meter.name for meter in found] == [f"ina3221:{rail}" for rail in rails]
    mark = found[0].begin()
    time.sleep(0.02)
    assert "so they are not added" in found[0].end(mark).note


def test_a_disabled_channel_is_no_rail(tree):
    jetson = tree("jetson-agx-orin")
    jetson.set("hwmon/hwmon3/in2_enable", 0)
    assert "ina3221:VDD_CPU_CV" not in [meter.name for meter in hwmon.find(jetson.root)]


def test_an_open_window_polls_and_its_thread_ends_with_it(tree):
    jetson = tree("jetson-orin-nx")
    (meter,) = hwmon.find(jetson.root)
    meter = dataclasses.replace(meter, sensors=dataclasses.replace(meter.sensors, interval_s=0.005))
    before = threading.active_count()
    mark = meter.begin()
    assert threading.active_count() == before + 1
    deadline = time.monotonic() + 20
    while mark.state._samples < 10 and time.monotonic() < deadline:
        time.sleep(0.005)
    closed = mark.state.close()
    reading = meter.end(mark)
    assert closed.samples >= 10
    assert reading.joules == pytest.approx(5.016 * 1.012 * reading.window_s)
    while threading.active_count() > before and time.monotonic() < deadline:
        time.sleep(0.005)
    assert threading.active_count() == before


def test_the_thread_of_a_forgotten_window_ends(tree):
    (meter,) = hwmon.find(tree("jetson-orin-nx").root)
    before = threading.active_count()
    mark = meter.begin()
    del mark
    gc.collect()
    deadline = time.monotonic() + 20
    while threading.active_count() > before and time.monotonic() < deadline:
        time.sleep(0.005)
    assert threading.active_count() == before


def test_a_power_that_never_changes_is_noted(tree, clock):
    jetson = tree("jetson-orin-nx")
    meter = the_meter(hwmon, jetson, clock)
    mark = meter.begin()
    for _ in range(30):
        clock.wait(0.1)
        mark.state.sample()
    reading = meter.end(mark)
    assert reading.joules == pytest.approx(3 * 5.016 * 1.012)
    assert reading.note == "every sample was the same: the sensor may be stuck"


def test_a_rail_without_current_is_unavailable(tree, clock):
    jetson = tree("jetson-orin-nx")
    jetson.set("hwmon/hwmon1/curr1_input", 0)
    reading = window(the_meter(hwmon, jetson, clock), clock, 5.0)
    assert (reading.joules, reading.basis) == (None, "unavailable")
    assert "VDD_IN stood still" in reading.note


def test_a_rail_that_was_not_read_for_long_says_so(tree, clock):
    jetson = tree("jetson-orin-nx")
    (meter,) = hwmon.find(jetson.root)
    meter = dataclasses.replace(meter, clock=clock)
    assert "the sensor was not read for more than 1 s in a row" in window(meter, clock, 7.0).note


def test_a_rail_that_goes_away_or_may_not_be_read_gives_no_joule(tree, clock, monkeypatch):
    jetson = tree("jetson-orin-nx")
    meter = the_meter(hwmon, jetson, clock)
    gone = window(meter, clock, 2.0, jetson["hwmon/hwmon1/curr1_input"].unlink)
    assert gone.joules is None
    assert "went away in the open window" in gone.note

    def denied(path, *_, **__):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "read_text", denied)
    path = jetson["hwmon/hwmon1/in1_input"]
    assert window(meter, clock, 2.0).note == f"{path} may not be read: sudo chmod a+r {path}, or run as a user who may"


# ---------------------------------------------------------------- batteries


def test_a_battery_gives_what_its_gauge_lost_and_says_that_it_is_coarse(tree, clock):
    laptop = tree("laptop")
    meter = the_meter(battery, laptop, clock)
    assert meter.domains == ("BAT0",)  # not the mouse's, not the charger
    reading = window(meter, clock, 900.0, lambda: laptop.uevent("BAT0", ENERGY_NOW=31_250_000 - 2_000_000))
    assert reading.joules == pytest.approx(2.0 * 3600)  # 2 Wh
    assert reading.note == f"the sensor was not read for more than 100 s in a row; {battery.COARSE}"


def test_a_gauge_of_charge_is_multiplied_by_the_mean_voltage(tree, clock):
    board = tree("charge-gauge")
    reading = window(
        the_meter(battery, board, clock),
        clock,
        60.0,
        lambda: board.uevent("battery", CHARGE_NOW=3_000_000, VOLTAGE_NOW=3_750_000),
    )
    assert reading.joules == pytest.approx(0.010 * 3600 * 3.8)  # 10 mAh at a mean of 3.8 V
    assert "measure at least 600 s" in reading.note


@pytest.mark.parametrize("status", ["Charging", "Full", "Not charging", "Unknown"])
def test_a_battery_that_does_not_discharge_is_refused(tree, clock, status):
    laptop = tree("laptop")
    laptop.uevent("BAT0", STATUS=status)
    meter = the_meter(battery, laptop, clock)
    assert "unplug the charger" in meter.fault()
    reading = window(meter, clock, 900.0, lambda: laptop.uevent("BAT0", ENERGY_NOW=1))
    assert (reading.joules, reading.basis) == (None, "unavailable")
    assert f"its status is {status}" in reading.note


def test_of_two_batteries_one_may_rest_while_the_other_discharges(tree, clock):
    laptop = tree("laptop")
    second = laptop["power_supply/BAT1"]
    second.mkdir()
    for name in ("type", "present", "uevent"):
        (second / name).write_text(laptop[f"power_supply/BAT0/{name}"].read_text())
    laptop.uevent("BAT1", NAME="BAT1", STATUS="Not charging", ENERGY_NOW=20_000_000)
    meter = the_meter(battery, laptop, clock)
    reading = window(meter, clock, 900.0, lambda: laptop.uevent("BAT0", ENERGY_NOW=30_250_000))
    assert (reading.joules, reading.domains) == (pytest.approx(3600.0), ("BAT0",))
    assert "BAT1 stood still and is left out" in reading.note
    laptop.uevent("BAT0", STATUS="Full")
    assert "BAT0 does not discharge" in meter.fault()
    assert "BAT1 does not discharge" in meter.fault()


def test_a_charger_that_is_plugged_in_an_open_window_spoils_it(tree, clock):
    laptop = tree("laptop")
    meter = the_meter(battery, laptop, clock)
    spoilt = window(meter, clock, 90.0, lambda: laptop.uevent("BAT0", STATUS="Charging", ENERGY_NOW=31_000_000))
    assert spoilt.joules is None
    laptop.uevent("BAT0", STATUS="Discharging")
    risen = window(meter, clock, 90.0, lambda: laptop.uevent("BAT0", ENERGY_NOW=31_600_000))
    assert risen.joules is None
    assert "the gauge rose or was recalibrated" in risen.note


def test_a_gauge_that_did_not_move_says_that_the_window_was_short(tree, clock):
    meter = the_meter(battery, tree("laptop"), clock)
    reading = window(meter, clock, 5.0)
    assert reading.joules is None
    assert "shorter than a step of the sensor (60 s)" in reading.note
    assert "measure at least 600 s" in reading.note


def test_a_gauge_of_percent_alone_cannot_be_used(tree, clock):
    board = tree("charge-gauge")
    path = board["power_supply/battery/uevent"]
    path.write_text("".join(line for line in path.read_text().splitlines(keepends=True) if "CHARGE_NOW" not in line))
    assert "gives no charge_now: this gauge cannot be used" in the_meter(battery, board, clock).fault()
    path.write_text("POWER_SUPPLY_STATUS=Discharging\nPOWER_SUPPLY_ENERGY_NOW=full\n")
    assert "holds ENERGY_NOW=full, expected whole numbers" in the_meter(battery, board, clock).fault()
    path.unlink()
    assert "uevent is not there" in the_meter(battery, board, clock).fault()


# ---------------------------------------------------------------- all of them


@pytest.mark.parametrize(
    ("name", "found"),
    [
        ("server-2-sockets", ["powercap"]),
        ("laptop", ["powercap", "battery"]),
        ("jetson-orin-nx", ["ina3221"]),
        ("charge-gauge", ["battery"]),
        ("virtual-machine", []),
    ],
)
def test_a_tree_has_its_meters_and_a_reason_for_every_other(tree, name, found):
    root = tree(name).root
    assert [meter.name for meter in find_meters(root)] == found
    survey_of = survey(root)
    assert [one.name for one in survey_of if one.readable] == found
    assert {one.name.partition(":")[0] for one in survey_of} == {"powercap", "ina3221", "battery", "zeus"}
    assert all(one.note for one in survey_of)


def test_no_sensor_at_all_is_no_meter(tmp_path):
    assert find_meters(tmp_path) == ()
    assert find_meters(tmp_path / "nothing") == ()
    assert [one.readable for one in survey(tmp_path)] == [False] * 4


def test_this_machine_can_be_asked():
    for meter in readable(find_meters()):
        mark = meter.begin()
        time.sleep(0.01)
        reading = meter.end(mark)
        assert (reading.joules is None) == (reading.basis == "unavailable")
        assert reading.joules is None or reading.joules > 0


def test_a_window_of_another_meter_is_refused(tree, clock):
    laptop = tree("laptop")
    mark = the_meter(powercap, laptop, clock).begin()
    with pytest.raises(MeterError, match="was opened by meter 'powercap', not by 'battery'; give each its own"):
        the_meter(battery, laptop, clock).end(mark)


# ---------------------------------------------------------------- readings


def measured(joules, seconds=2.0, domains=("package-0",), **more):
    return Reading(joules=joules, basis="measured", domains=domains, window_s=seconds, method="powercap", **more)


@pytest.mark.parametrize(
    "fields",
    [
        {"joules": None, "basis": "measured"},
        {"joules": 0.0, "basis": "unavailable"},
        {"joules": -1.0},
        {"joules": float("nan")},
        {"joules": float("inf")},
        {"window_s": -1.0},
    ],
)
def test_a_reading_that_contradicts_itself_cannot_be_made(fields):
    given = {"joules": 1.0, "basis": "measured", "domains": (), "window_s": 1.0, "method": "powercap"} | fields
    with pytest.raises(MeterError, match=r"Reading\("):
        Reading(**given)
    content = msgspec.json.encode(given)
    if b"null" not in content or given["joules"] is None:
        with pytest.raises(msgspec.ValidationError):
            msgspec.json.decode(content, type=Reading)


def test_idle_is_measured_and_taken_off(tree, clock):
    server = tree("server-2-sockets")
    meter = the_meter(powercap, server, clock)

    def watts(power):
        def spend(seconds):
            clock.wait(seconds)
            for zone in ("intel-rapl:0", "intel-rapl:0:0", "intel-rapl:1", "intel-rapl:1:0"):
                server.add(f"powercap/{zone}/energy_uj", round(power * seconds * 1e6 / 4))

        return spend

    before = idle(meter, 5.0, watts(40.0))
    gross = idle(meter, 10.0, watts(100.0))
    after = idle(meter, 5.0, watts(41.0))
    found = net(gross, before, after)
    assert gross.joules == pytest.approx(1000.0)
    assert found.joules == pytest.approx(1000.0 - 10 * 40.5)
    assert found.basis == "measured"
    assert found.note == "idle power of 40.5 W taken off, a mean of 40 W before and 41 W after"


def test_what_idling_would_have_taken_too_is_no_net_energy():
    found = net(measured(10.0, 2.0), measured(30.0, 5.0), measured(30.0, 5.0))
    assert (found.joules, found.basis) == (None, "unavailable")
    assert "the window's 10 J less idle is -2 J" in found.note


def test_idle_that_drifts_is_noted_and_an_assumption_stays_one():
    found = net(measured(100.0, 2.0), measured(10.0, 5.0), measured(30.0, 5.0))
    assert found.joules == pytest.approx(92.0)
    assert "idle power changed by more than a tenth" in found.note
    assumed = msgspec.structs.replace(measured(10.0, 5.0), basis="assumed")
    assert net(measured(100.0), assumed, measured(10.0, 5.0)).basis == "assumed"


def test_idle_of_other_domains_or_without_a_reading_gives_no_net():
    other = net(measured(9.0), measured(1.0, domains=("package-0", "dram")), measured(1.0))
    assert other.joules is None
    assert "idle window before package-0+dram" in other.note
    nothing = meters.Reading(
        joules=None, basis="unavailable", domains=(), window_s=5.0, method="powercap", note="stuck"
    )
    for three in ((nothing, measured(1.0), measured(1.0)), (measured(1.0), nothing, measured(1.0))):
        assert net(*three).joules is None
        assert "has no reading: stuck" in net(*three).note
    assert net(measured(9.0), measured(1.0), nothing).basis == "unavailable"


@pytest.mark.parametrize("seconds", [0.0, -1.0, float("nan"), float("inf")])
def test_idling_for_no_time_is_refused(tree, clock, seconds):
    with pytest.raises(MeterError, match=r"idle\(seconds="):
        idle(the_meter(powercap, tree("laptop"), clock), seconds, clock.wait)


def test_windows_of_one_meter_add_up_and_a_part_is_no_total():
    assert add([measured(1.0), measured(2.0, 3.0)]) == measured(3.0, 5.0)
    lost = Reading(joules=None, basis="unavailable", domains=(), window_s=1.0, method="powercap", note="stuck")
    assert add([measured(1.0), lost]).joules is None
    assert add([measured(1.0), lost]).note == "1 of 2 windows have no reading; stuck"
    assert add([measured(1.0), measured(1.0, domains=("BAT0",))]).joules is None
    with pytest.raises(MeterError, match="got no reading"):
        add([])
