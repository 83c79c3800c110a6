"""`joulewise calibrate`, as a user meets it: a profile or one clear sentence, and nothing half-written."""

import errno
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from fake_machine import CACHES, FakeMeter, running_sink

from joulewise import cli, load_device, meters, powercap, sink
from joulewise.devices import describe

FIND_METERS = meters.find_meters
ASSUME = ["--watts", "10", "--seconds", "1"]


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("COLUMNS", raising=False)
    return tmp_path


@pytest.fixture
def calibrate(folder, monkeypatch, capsys):
    """Type `joulewise calibrate` on a machine with small caches and no sensor; gives exit code, stdout and stderr."""
    monkeypatch.setattr("joulewise.machine.find_caches", lambda: CACHES)
    monkeypatch.setattr(meters, "find_meters", lambda: ())
    monkeypatch.setattr(cli.warnings, "formatwarning", cli.warnings.formatwarning)  # main changes it

    def run(*arguments):
        monkeypatch.setattr(sys, "argv", ["joulewise", "calibrate", *map(str, arguments)])
        with pytest.raises(SystemExit) as stop:
            cli.main()
        captured = capsys.readouterr()
        return stop.value.code or 0, captured.out, captured.err

    return run


def started(*arguments):
    command = [sys.executable, "-m", "joulewise", "calibrate", *map(str, arguments)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=dict(os.environ))


# ---------------------------------------------------------------- profiles


def test_this_machine_is_calibrated_for_real_with_assumed_watts(folder):
    process = started("--out", "mine.toml", "--watts", "10", "--seconds", "3")
    out, err = process.communicate(timeout=120)
    assert process.returncode == 0, err
    assert "no sensor is read: time alone is measured, and energy is an assumption, 10 W times the time" in out
    assert re.search(r"^\s*memory\s+[\d.]+ ± [\d.]+ [pn]s/byte  .*  [\d.]+ ± [\d.]+ [pn]J/byte  ", out, re.MULTILINE), (
        out
    )
    assert err.startswith("measuring: ")
    device = load_device(folder / "mine.toml")
    assert device.name == "mine"
    assert device.memory.dram.read.kind == "assumed"
    assert "10 W (--watts)" in device.memory.dram.read.source
    assert 1e-13 < device.memory.dram.read.si < 1e-8
    check = [sys.executable, "-m", "joulewise", "devices", "check", "mine.toml"]
    assert subprocess.run(check, capture_output=True, check=False).returncode == 0
    assert [file.name for file in folder.iterdir()] == ["mine.toml"]


def test_a_machine_without_a_sensor_gets_times_and_no_file(calibrate, folder):
    code, out, err = calibrate("--out", "mine.toml", "--seconds", "1")
    assert code == 1, err
    assert "no sensor of this machine can be read, so time alone is measured" in out
    assert "powercap: " in out
    assert re.search(r"^\s*memory\s+[\d.]+ ± [\d.]+ [pn]s/byte  .*\s-\s+\d\.\d{4}\s*$", out, re.MULTILINE)
    assert "error: nothing was written to mine.toml: times are no prices; give --watts W" in err
    assert list(folder.iterdir()) == []


def test_a_sensor_makes_a_measured_profile(calibrate, folder, monkeypatch):
    monkeypatch.setattr(meters, "find_meters", lambda: (FakeMeter(name="powercap"),))
    code, out, err = calibrate("--out", "mine.toml", "--seconds", "2")
    assert code == 0, err
    assert "sensor: powercap, core" in out
    assert "note: coarse" in out
    device = load_device(folder / "mine.toml")
    assert {entry.kind for entry in describe(device)} <= {"measured", "datasheet"}
    assert device.memory.dram.read.kind == device.idle_power.kind == "measured"
    assert 4.999 < device.idle_power.si < 10.0  # waking up from a sleep is a little work
    assert "above idle by a fake sensor (core)" in device.memory.dram.read.source


def test_watts_are_taken_instead_of_a_sensor_and_no_window_is_metered(calibrate, folder, monkeypatch):
    meter = FakeMeter(name="powercap")
    monkeypatch.setattr(meters, "find_meters", lambda: (meter,))
    code, out, _ = calibrate("--out", "mine.toml", *ASSUME)
    assert code == 0
    assert "no sensor is read" in out
    assert meter.opened == []
    assert load_device(folder / "mine.toml").memory.dram.read.kind == "assumed"


def test_the_profile_is_written_before_anything_is_shown(calibrate, folder, monkeypatch):
    def gone(*_):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr("joulewise.cli_calibrate.empty_table", gone)
    code, _, err = calibrate("--out", "mine.toml", *ASSUME)
    assert (code, "the output could not be written: No space left on device" in err) == (1, True)
    assert load_device(folder / "mine.toml").memory.dram.read.kind == "assumed"


def test_a_meter_of_a_gpu_or_one_that_cannot_be_read_is_no_sensor(calibrate, monkeypatch):
    class Denied(FakeMeter):
        def fault(self):
            return "may not be read"

    found = (FakeMeter(name="zeus"), Denied(name="powercap"), FakeMeter(name="ina3221:VDD_GPU"))
    monkeypatch.setattr(meters, "find_meters", lambda: found)
    code, out, _ = calibrate("--out", "mine.toml", "--seconds", "1")
    assert code == 1
    assert "no sensor of this machine can be read" in out
    assert all(meter.opened == [] for meter in found)


@pytest.mark.parametrize(
    ("names", "taken"),
    [
        (("battery", "ina3221", "powercap"), "powercap"),
        (("battery", "ina3221"), "ina3221"),
        (("ina3221:VDD_GPU", "ina3221:VDD_CPU_CV"), "ina3221:VDD_CPU_CV"),
    ],
)
def test_the_finest_sensor_that_sees_the_processor_is_read(calibrate, monkeypatch, names, taken):
    monkeypatch.setattr(meters, "find_meters", lambda: tuple(FakeMeter(name=name) for name in names))
    assert f"sensor: {taken}, core" in calibrate("--out", "mine.toml", "--seconds", "1")[1]


def test_the_link_to_a_sink_is_in_the_profile(calibrate, folder):
    with running_sink() as (address, _):
        code, out, err = calibrate("--out", "mine.toml", "--sink", address, *ASSUME)
    assert code == 0, err
    assert "note: the sink is on this machine, so link is no link of a network" in out
    text = (folder / "mine.toml").read_text()
    assert "the sink is on this machine" in text
    link = load_device(folder / "mine.toml").link
    # A loaded machine may leave no line that rises; then the note says so.
    assert link is not None or "link: " in out
    if link is not None:
        assert link.up.goodput.kind == "measured"
        assert link.up.marginal.si == pytest.approx(10 / link.up.goodput.si, rel=0.01)


# ---------------------------------------------------------------- a sensor as Linux shows it


COUNTED = 1000


@pytest.fixture
def zone(calibrate, folder, monkeypatch) -> Path:
    """A RAPL counter that rises at 6 W whenever it is read: a thread that wrote it would be late on a busy machine."""
    del calibrate  # It takes all sensors away, so it comes first.
    zone = folder / "tree/sys/class/powercap/intel-rapl:0"
    zone.mkdir(parents=True)
    (zone / "name").write_text("package-0\n")
    (zone / "max_energy_range_uj").write_text("262143328850\n")
    (zone / "energy_uj").write_text(f"{COUNTED}\n")
    monkeypatch.setattr(meters, "find_meters", lambda: FIND_METERS(folder / "tree"))
    read, began = powercap.number, time.monotonic()

    def rising(path, hint=""):
        found = read(path, hint)
        return 6e6 * (time.monotonic() - began) if found == COUNTED else found

    monkeypatch.setattr(powercap, "number", rising)
    return zone


@pytest.mark.usefixtures("zone")
def test_a_counter_that_never_notices_the_work_leaves_no_price(calibrate, folder):
    code, out, err = calibrate("--out", "mine.toml", "--seconds", "4")
    assert "sensor: powercap, package-0" in out
    # Work draws what rest draws: nothing is above idle, but for the noise of a counter that moves in steps.
    if code == 0:
        assert load_device(folder / "mine.toml").idle_power.si == pytest.approx(6.0, rel=0.1)
        assert "no price" in out
    else:
        assert "no price" in err
        assert not (folder / "mine.toml").exists()


def test_a_counter_that_vanishes_in_the_middle_is_one_sentence_and_no_file(calibrate, folder, zone, monkeypatch):
    read, seen = powercap.number, []

    def vanishing(path, hint=""):
        seen.append(path.name)
        if seen.count("energy_uj") == 40:  # Some windows are whole, two readings each.
            zone.rename(folder / "gone")
        return read(path, hint)

    monkeypatch.setattr(powercap, "number", vanishing)
    code, _, err = calibrate("--out", "mine.toml", "--seconds", "6")
    assert code == 1
    assert re.search(r"error: the sensor gave no reading in a window of \w+ \(.*energy_uj.*there is no price", err)
    assert err.count("error:") == 1
    assert not (folder / "mine.toml").exists()


# ---------------------------------------------------------------- what is typed wrong


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        ([], 2, "--out is missing; give the file to write, as in --out my-device.toml, or --serve PORT"),
        (["--out", "x.toml", "--watts", "0"], 2, "--watts is 0, expected the watts of this machine"),
        (["--out", "x.toml", "--watts", "nan"], 2, "--watts is nan, expected"),
        (["--out", "x.toml", "--watts", "-3"], 2, "--watts is -3, expected"),
        (["--out", "x.toml", "--watts", "inf"], 2, "--watts is inf, expected"),
        (["--out", "x.toml", "--seconds", "0.5"], 2, "--seconds is 0.5, expected 1 to 86400"),
        (["--out", "x.toml", "--seconds", "nan"], 2, "--seconds is nan, expected"),
        (["--out", "x.toml", "--sink", "there"], 2, "--sink is 'there', expected HOST:PORT"),
        (["--out", "x.toml", "--sink", "127.0.0.1:1", "--watts", "5"], 1, "no connection to sink 127.0.0.1:1: "),
        (["--out", "no/x.toml"], 1, "folder no is not there or may not be written to"),
        (["--out", "."], 1, "--out . is a folder"),
        (["--serve", "70000"], 2, "--serve is 70000, expected a port"),
        (["--serve", "9000", "--watts", "5"], 2, "--serve goes with no other option"),
    ],
)
def test_what_is_wrong_is_one_sentence_and_an_exit_code(calibrate, folder, arguments, code, message):
    found, _, err = calibrate(*arguments)
    assert found == code
    assert f"error: {message}" in err or message in err
    assert err.count("\n") == 1
    assert "Traceback" not in err
    assert list(folder.iterdir()) == []


def test_a_file_that_is_there_is_refused_before_anything_is_measured(calibrate, folder, monkeypatch):
    (folder / "mine.toml").write_text("precious")
    monkeypatch.setattr("joulewise.probes.measure", lambda *_: pytest.fail("measured"))
    code, out, err = calibrate("--out", "mine.toml", *ASSUME)
    assert (code, out) == (1, "")
    assert "--out mine.toml is there already; give another name, or --force to replace it" in err
    assert (folder / "mine.toml").read_text() == "precious"


def test_force_replaces_it_by_a_whole_one(calibrate, folder):
    (folder / "mine.toml").write_text("precious")
    assert calibrate("--out", "mine.toml", "--force", *ASSUME)[0] == 0
    assert load_device(folder / "mine.toml").name == "mine"


def test_without_scipy_nothing_is_measured_and_the_extra_is_named(calibrate, monkeypatch):
    monkeypatch.setitem(sys.modules, "scipy", None)
    monkeypatch.setitem(sys.modules, "scipy.special", None)
    monkeypatch.setattr("joulewise.probes.measure", lambda *_: pytest.fail("measured"))
    code, _, err = calibrate("--out", "mine.toml", *ASSUME)
    assert code == 1
    assert 'run: pip install "joulewise[theory]"' in err


# ---------------------------------------------------------------- stopping, and the other machine


def test_ctrl_c_leaves_nothing_behind(folder):
    process = started("--out", "mine.toml", "--watts", "10", "--seconds", "60")
    assert process.stderr.readline().startswith("measuring: ")
    time.sleep(0.5)
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 130
    assert err == "error: stopped; nothing was written to mine.toml\n"
    assert list(folder.iterdir()) == []


def test_the_sink_says_where_it_listens_and_what_came_until_ctrl_c(folder):
    process = started("--serve", "0")
    try:
        listening = re.fullmatch(r"sink: listening on port (\d+); stop with Ctrl-C\n", process.stdout.readline())
        assert f"--sink THIS-HOST:{listening[1]}" in process.stdout.readline()
        address = sink.Address("127.0.0.1", int(listening[1]))
        with sink.connect(address) as connection:
            sink.send(connection, b"12345", address)
        assert process.stdout.readline() == "127.0.0.1: 1 payloads, 5 bytes\n"
    finally:
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=60)
    assert (process.returncode, out, err) == (0, "sink: stopped\n", "")


def test_a_terminal_gets_a_progress_bar(calibrate, monkeypatch):
    for name, value in {"FORCE_COLOR": "1", "TERM": "xterm", "COLUMNS": "100", "NO_COLOR": "1"}.items():
        monkeypatch.setenv(name, value)
    code, _, err = calibrate("--out", "mine.toml", *ASSUME)
    assert code == 0
    assert "measuring" in err
    assert re.search(r"\d+/\d+", err)


def test_other_programs_that_take_the_processor_are_told(calibrate, monkeypatch):
    thread_time = time.thread_time
    monkeypatch.setattr(time, "thread_time", lambda: 0.5 * thread_time())
    out = calibrate("--out", "mine.toml", *ASSUME)[1]
    assert re.search(r"note: other programs took \d\d % of the processor; for better figures stop them", out)


def test_a_machine_that_does_not_tell_its_caches_is_swept(calibrate, folder, monkeypatch):
    monkeypatch.setattr("joulewise.machine.find_caches", lambda: ())
    monkeypatch.setattr(
        "joulewise.probes.sweep",
        lambda *_: tuple(type(one)(one.level, one.capacity_bytes, None, "swept") for one in CACHES),
    )
    code, out, err = calibrate("--out", "mine.toml", *ASSUME)
    assert code == 0, err
    assert "note: Linux does not tell the sizes of the caches" in out
    assert load_device(folder / "mine.toml").memory.dram.line is None
