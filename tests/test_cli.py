"""The command line, as a user meets it: what it prints, its exit codes, and how it stops."""

import json
import os
import re
import signal
import subprocess
import sys
import time
import tomllib
from functools import partial
from pathlib import Path

import msgspec
import numpy as np
import pytest
from fake_federation import federate

import joulewise
from joulewise import kernel, rowfile, runs

TESTS = Path(__file__).parent
STUDY = """
name = "small"
rounds = 3
seeds = [0, 1]
model = "mlp"
data = { name = "digits", clients = 2, partition = "IID" }
fleet = { devices = "synthetic-kind-10" }
[grid]
rule = ["TopK", "CWMP"]
density = 0.1
"""
# A command line whose federations train nothing, for processes that tests start and stop.
SCRIPT = f"""
import sys
sys.path.insert(0, {str(TESTS)!r})
from functools import partial
from fake_federation import federate
from joulewise import cli, runs
runs.run = partial(runs.run, federate=federate)
if __name__ == "__main__":
    cli.main()
"""


@pytest.fixture
def folder(tmp_path, monkeypatch):
    (tmp_path / "small.toml").write_text(STUDY, encoding="utf-8")
    (tmp_path / "script.py").write_text(SCRIPT, encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("COLUMNS", raising=False)
    return tmp_path


@pytest.fixture
def joule(joule, folder, monkeypatch):
    """Type a command; nothing is trained and no report is drawn."""
    monkeypatch.setattr(runs, "run", partial(runs.run, federate=federate))
    monkeypatch.setattr("joulewise.report.write", lambda _rows, out, *_: (Path(out) / "report.html",))
    monkeypatch.setattr("joulewise.meters.find_meters", lambda *_: ())  # whatever this machine has
    return joule


def timeless(rows):
    return [msgspec.structs.replace(row, timing=None) for row in rows]


# ---------------------------------------------------------------- run


def test_run_writes_rows_under_results_and_ends_with_table_and_report(joule, folder):
    code, out, err = joule("run", "small.toml")
    assert code == 0
    assert len(rowfile.read(folder / "runs/small")) == 12
    assert "small: accuracy after 3 rounds, and what it cost" in out
    assert re.search(r"^\s*CWMP .* ±", out, re.MULTILINE)
    assert "report: runs/small/report.html" in out
    assert out.endswith("rows: runs/small/rows.jsonl\n")
    lines = err.splitlines()
    assert lines[0].startswith("TopK density=0.1, seed 0: round 3/3, accuracy ")
    assert "3 of 12 rounds; about " in lines[0]
    assert len(lines) == 4


def test_run_takes_a_folder_and_settings(joule, folder):
    assert joule("run", "small.toml", "--out", "there", "--set", "rounds=1", "--set", "seeds=[7]")[0] == 0
    assert {(row.seed, row.round) for row in rowfile.read(folder / "there")} == {(7, 1)}


def test_running_a_finished_study_again_says_so_and_shows_its_table(joule, folder):
    joule("run", "small.toml")
    before = (folder / "runs/small/rows.jsonl").read_bytes()
    code, out, _ = joule("run", "small.toml")
    assert code == 0
    assert "runs/small holds this study complete, so nothing was run; for another run give another --out" in out
    assert "small: accuracy after 3 rounds" in out
    assert (folder / "runs/small/rows.jsonl").read_bytes() == before
    assert "complete" not in joule("run", "small.toml", "--out", "other")[1]


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["nothing.toml"], 2, "error: there is no study file nothing.toml; check the path"),
        (["small.toml", "--set", "rounds=0"], 2, "error: small.toml: Expected int >= 1, got 0 - at $.rounds"),
        (["small.toml", "--set", "fleet.devices=fone"], 2, "error: small.toml: there is no device 'fone'"),
        (["small.toml", "--set", "grid.rule=[CWMP]"], 2, "invalid value '[CWMP]' - at $.grid.rule"),
        (["small.toml", "--jobs", "0"], 2, "0 is not in the range x>=1"),
        (["small.toml", "--engine", "rai"], 2, "'rai' is not one of 'inprocess', 'ray'"),
        ([], 2, "Missing argument 'STUDY.toml'"),
        (
            ["small.toml", "--out", "small.toml"],
            1,
            "error: cannot make output folder small.toml: File exists",
        ),
    ],
)
def test_what_is_wrong_is_one_sentence_and_an_exit_code(joule, arguments, code, message):
    found, out, err = joule("run", *arguments)
    assert (found, out) == (code, "")
    assert message in err
    assert "Traceback" not in err
    assert not err.startswith("error:") or err.count("\n") == 1


def test_an_error_of_the_federation_is_one_sentence_and_debug_shows_where(joule, monkeypatch):
    monkeypatch.setenv("FAKE_FEDERATION", json.dumps({"fail": 2}))
    assert joule("run", "small.toml") == (
        1,
        "",
        "error: the data is not there; give --set data.path=FOLDER\n",
    )
    monkeypatch.setenv("FAKE_FEDERATION", json.dumps({"crash": 2}))
    code, _, err = joule("run", "small.toml", "--resume")
    assert code == 1
    assert err.endswith(
        "error: ZeroDivisionError: one by nought; a defect of joulewise: please report what --debug shows\n"
    )
    _, _, err = joule("run", "small.toml", "--resume", "--debug")
    assert "Traceback (most recent call last):" in err
    assert "ZeroDivisionError: one by nought" in err


def test_a_stopped_study_wants_resume_and_then_goes_on(joule, folder, monkeypatch):
    joule("run", "small.toml", "--out", "whole")
    monkeypatch.setenv("FAKE_FEDERATION", json.dumps({"fail": 2}))
    joule("run", "small.toml")
    monkeypatch.delenv("FAKE_FEDERATION")
    code, _, err = joule("run", "small.toml")
    assert (code, err) == (
        1,
        "error: runs/small holds 1 of 12 rows of this study; go on with --resume, or give another --out\n",
    )
    assert joule("run", "small.toml", "--resume")[0] == 0
    assert timeless(rowfile.read(folder / "runs/small")) == timeless(rowfile.read(folder / "whole"))


@pytest.mark.parametrize("jobs", [1, 2])
def test_ctrl_c_stops_everything_and_leaves_a_run_that_goes_on(folder, monkeypatch, joule, jobs):
    environment = os.environ | {"FAKE_FEDERATION": json.dumps({"delay": 0.1})}
    process = subprocess.Popen(
        [sys.executable, "script.py", "run", "small.toml", "--set", "rounds=20", "--jobs", str(jobs)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=environment,
        start_new_session=True,  # a terminal sends Ctrl-C to the whole group
    )
    rows = folder / "runs/small/rows.jsonl"
    while not rows.exists() or rows.read_bytes().count(b"\n") < 3:
        assert process.poll() is None
    os.killpg(process.pid, signal.SIGINT)
    out, err = process.communicate(timeout=30)
    assert process.returncode == 130
    assert (out, err) == ("", "error: stopped; rows so far are in runs/small: go on with --resume\n")
    content = rows.read_bytes()
    time.sleep(0.3)
    assert rows.read_bytes() == content  # no worker is left
    assert joule("run", "small.toml", "--set", "rounds=20", "--resume")[0] == 0
    assert len(rowfile.read(folder / "runs/small")) == 80


@pytest.mark.parametrize("colour", [True, False])
def test_a_terminal_gets_a_live_display_without_colour_where_none_is_wanted(joule, monkeypatch, colour):
    for name, value in {"FORCE_COLOR": "1", "TERM": "xterm", "COLUMNS": "100"}.items():
        monkeypatch.setenv(name, value)
    if not colour:
        monkeypatch.setenv("NO_COLOR", "1")
    code, _, err = joule("run", "small.toml")
    assert code == 0
    assert "12/12" in err
    assert "CWMP density=0.1, seed 1: round 3/3" in err
    assert bool(re.search("\x1b\\[[0-9;]*3[0-9]", err)) == colour


def test_a_report_that_cannot_be_drawn_names_what_to_install_and_run_succeeds(joule, monkeypatch):
    def missing(*_):
        raise joulewise.errors.MissingExtra("report", "a report")

    monkeypatch.setattr("joulewise.report.write", missing)
    code, out, err = joule("run", "small.toml")
    assert code == 0
    assert 'note: a report needs an optional part of joulewise; run: pip install "joulewise[report]"' in out
    code, _, err = joule("report", "runs/small")
    assert code == 1
    assert 'pip install "joulewise[report]"' in err


@pytest.mark.parametrize(("module", "extra"), [("torch", "learning"), ("flwr", "flower")])
def test_a_missing_package_names_what_to_install(folder, module, extra):
    blocked = f"import sys; sys.modules[{module!r}] = None; from joulewise.cli import main; main()"
    command = [sys.executable, "-c", blocked, "run", "small.toml"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert done.stderr.startswith("error: ")
    assert done.stderr.endswith(f'run: pip install "joulewise[{extra}]"\n')
    assert done.stderr.count("\n") == 1


# ---------------------------------------------------------------- report and devices


def test_report_takes_folders_of_several_studies(joule, folder):
    joule("run", "small.toml", "--out", "a")
    joule("run", "small.toml", "--out", "b", "--set", "name=other")
    code, out, _ = joule("report", "a", "b", "--out", "both")
    assert code == 0
    assert "small: accuracy" in out
    assert "other: accuracy" in out
    assert "report: both/report.html" in out
    assert "report: a/report.html" in joule("report", "a")[1]


def test_run_and_report_answer_what_the_study_named_beforehand(joule, folder):
    with (folder / "small.toml").open("a", encoding="utf-8") as file:
        file.write(
            '[[analysis.primary]]\nname = "the claim"\narm = { rule = "CWMP" }\nagainst = { rule = "TopK" }\n'
            "[analysis]\nselection_seeds = [7]\n"
        )
    for arguments in (("run", "small.toml", "--out", "a"), ("report", "a")):
        code, out, err = joule(*arguments)
        assert (code, err.count("error")) == (0, 0)
        words = " ".join(out.split())
        assert "small: what it was to find out, named beforehand" in words
        assert "the claim" in words
        assert "2 seeds: no claim is made" in words


def test_report_of_a_folder_without_rows_is_an_error(joule, folder):
    code, _, err = joule("report", "nowhere")
    assert code == 1
    assert "nowhere" in err


def test_devices_are_listed_with_unit_and_description(joule):
    code, out, _ = joule("devices", "list")
    assert code == 0
    for name in joulewise.list_devices():
        assert re.search(rf"^\s*{re.escape(name)}\s+(J|relative) ", out, re.MULTILINE)


def test_every_number_of_a_device_is_shown_with_its_origin(joule):
    code, out, _ = joule("devices", "show", "phone-lte-2021")
    assert code == 0
    assert re.search(r"^\s*link\.up\.marginal\s+76\.7\s+nJ/bit\s+model\s+2021\s+", out, re.MULTILINE)


def test_a_device_file_is_checked(joule, folder):
    assert joule("devices", "check", "phone-lte-2021")[0] == 0
    (folder / "my.toml").write_text("schema = 1\nname = 'x'\n", encoding="utf-8")
    code, _, err = joule("devices", "check", "my.toml")
    assert code == 2
    assert "my.toml" in err
    code, _, err = joule("devices", "check", "phone-lt-2021")
    assert code == 2
    assert "did you mean 'phone-lte-2021'?" in err


def test_all_devices_that_come_along_are_checked_without_an_argument(joule):
    code, out, _ = joule("devices", "check")
    assert code == 0
    assert all(f"{name}: a device of " in out for name in joulewise.list_devices())
    assert "warning:" not in out
    assert "note: the numbers are of different years, 2012 to 2021" in out


def test_a_warning_about_a_device_is_an_exit_code_of_its_own(joule, folder):
    text = (Path(joulewise.__file__).parent / "profiles" / "phone-lte-2021.toml").read_text(encoding="utf-8")
    (folder / "my.toml").write_text(text.replace('"nJ/bit"', '"pJ/bit"', 1), encoding="utf-8")
    code, out, _ = joule("devices", "check", "my.toml")
    assert code == 1
    assert "warning: link.up.marginal is 76.7 pJ/bit, but energy per bit of a mobile network is 1 to 3000 nJ/bit" in out


def test_own_devices_are_listed_and_loaded_by_name(joule, folder, monkeypatch):
    monkeypatch.setenv("JOULEWISE_DEVICES", str(folder / "mine"))
    (folder / "mine").mkdir()
    text = (Path(joulewise.__file__).parent / "profiles" / "phone-lte-2021.toml").read_text(encoding="utf-8")
    (folder / "mine" / "my-phone.toml").write_text(text, encoding="utf-8")
    (folder / "mine" / "broken.toml").write_text("schema = 1", encoding="utf-8")
    code, out, _ = joule("devices", "list")
    assert code == 0
    assert re.search(r"^\s*my-phone\s+J\s+yours: ", out, re.MULTILINE)
    assert re.search(r"^\s*broken\s+yours, but wrong: .*is missing", out, re.MULTILINE)
    assert joule("devices", "show", "my-phone")[0] == 0
    assert joule("devices", "check", "my-phone")[0] == 0


def test_a_copy_with_other_numbers_does_not_pass_for_the_profile_that_it_was_copied_from(joule, folder, monkeypatch):
    monkeypatch.setenv("JOULEWISE_DEVICES", str(folder))
    text = (Path(joulewise.__file__).parent / "profiles" / "phone-lte-2021.toml").read_text(encoding="utf-8")
    (folder / "mine.toml").write_text(text.replace("76.7", "7.67"), encoding="utf-8")
    words = "name 'phone-lte-2021' is the name of a profile that comes with joulewise, which is another one"
    code, out, _ = joule("devices", "check", "mine")
    assert (code, f"warning: {words}" in out) == (1, True)
    np.savez(folder / "model.npz", w=np.zeros(200, np.float32))
    code, out, err = joule("explain", "--device", "mine", "--model", "model.npz", "--json")
    assert (code, json.loads(out)["device"], f"warning: {words}" in err) == (0, "phone-lte-2021", True)


def test_a_power_profile_of_android_becomes_a_device_that_passes_its_check(joule, folder):
    (folder / "power_profile.xml").write_text(
        '<device name="Android"><item name="wifi.controller.tx">190</item>'
        '<item name="wifi.controller.voltage">3700</item></device>',
        encoding="utf-8",
    )
    command = (
        "devices",
        "import-android",
        "power_profile.xml",
        "--goodput",
        "20Mbit/s",
        "--year",
        "2020",
        "--out",
        "new/phone.toml",
    )
    code, out, _ = joule(*command)
    assert code == 0
    assert "note: battery.capacity is missing" in out
    assert joulewise.load_device("new/phone.toml").link.up.marginal.si == pytest.approx(0.19 * 3.7 / 20e6)
    assert joule("devices", "check", "new/phone.toml")[0] == 0
    code, _, err = joule(*command)
    assert code == 1
    assert "--out new/phone.toml is there already; give another name, or --force" in err
    assert joule(*command, "--force")[0] == 0
    written = tomllib.loads((folder / "new/phone.toml").read_text(encoding="utf-8"))
    assert written["link"]["up"]["marginal"]["year"] == 2020
    typed = ("devices", "import-android", "power_profile.xml", "--goodput", "1Mbit/s", "--out", "y.toml")
    for year in ("1989", "2101"):
        code, _, err = joule(*typed, "--year", year)
        assert (code, f"--year is {year}, expected the year of the figures, from 1990 to" in err) == (2, True)
    code, _, err = joule(*typed)
    assert (code, "Missing option '--year'" in err) == (2, True)
    code, _, err = joule(
        "devices", "import-android", "absent.xml", "--goodput", "20Mbit/s", "--year", "2020", "--out", "x.toml"
    )
    assert code == 2
    assert "'absent.xml' cannot be read" in err
    assert not (folder / "x.toml").exists()
    # Without the ending a path is taken for a name, so that no command would find it.
    code, _, err = joule(*typed, "--year", "2020", "--out", "phone")
    assert (code, "--out phone does not end in .toml" in err, (folder / "phone").exists()) == (2, True, False)


def test_an_accelerator_of_zigzag_becomes_a_device_that_passes_its_check(joule, folder):
    (folder / "chip.yaml").write_text(
        "memories:\n  sram: {size: 65536, r_cost: 8, w_cost: 8, r_bw: 64, w_bw: 64}\n", encoding="utf-8"
    )
    assert joule("devices", "import-zigzag", "chip.yaml", "--year", "2024", "--out", "chip.toml")[0] == 0
    assert joulewise.load_device("chip.toml").memory.sram.capacity.si == 8192
    code, _, err = joule(
        "devices", "import-zigzag", "chip.yaml", "--year", "2024", "--sram", "ram", "--out", "other.toml"
    )
    assert code == 2
    assert "--sram ram: 'chip.yaml' has no such memory; it has sram" in err


def test_a_battery_that_is_no_number_in_a_power_profile_is_left_out(joule, folder):
    (folder / "power_profile.xml").write_text(
        '<device name="Android"><item name="wifi.controller.tx">190</item><item name="battery.capacity">n/a</item>'
        "</device>",
        encoding="utf-8",
    )
    code, out, _ = joule(
        *("devices", "import-android", "power_profile.xml", "--goodput", "20Mbit/s", "--year", "2020"),
        *("--voltage", "3.7", "--out", "phone.toml"),
    )
    assert (code, "note: battery.capacity is missing, so there is no [battery]" in out) == (0, True)


def test_memories_of_zigzag_may_have_numbers_for_names(joule, folder):
    memory = "{size: 65536, r_cost: 8, w_cost: 8, r_bw: 64, w_bw: 64}"
    (folder / "chip.yaml").write_text(f"memories:\n  1: {memory}\n  2: {memory}\n  a: {memory}\n", encoding="utf-8")
    code, out, _ = joule("devices", "import-zigzag", "chip.yaml", "--year", "2024", "--sram", "2", "--out", "chip.toml")
    assert (code, "note: memories that are left out: 1, a" in out) == (0, True)


# ---------------------------------------------------------------- help


@pytest.mark.parametrize(
    "command",
    [
        ["run"],
        ["report"],
        ["calibrate"],
        ["explain"],
        ["meters"],
        *(["devices", each] for each in ("list", "show", "check", "import-android", "import-zigzag")),
    ],
)
def test_every_command_has_help_with_an_example(joule, command):
    code, out, _ = joule(*command, "--help")
    assert code == 0
    assert f"Example: joulewise {' '.join(command)}" in out
    assert "--debug" in out


def test_help_lists_the_commands_and_version_the_version(joule):
    code, out, _ = joule("--help")
    assert code == 0
    assert all(command in out for command in ("run", "report", "calibrate", "devices"))
    assert joule("--version") == (0, f"joulewise {joulewise.__version__} (kernel: {kernel.status()})\n", "")
    assert joule("rum")[0] == 2


def test_help_loads_nothing_large():
    code = (
        "import sys; sys.argv = ['joulewise', 'run', '--help']\n"
        "from joulewise.cli import main\n"
        "try: main()\n"
        "except SystemExit: pass\n"
        "large = {'torch', 'flwr', 'altair', 'sklearn', 'scipy', 'ray'}\n"
        "print(sorted(large & set(sys.modules)), file=sys.stderr)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stderr == "[]\n"


def test_python_m_joulewise_is_the_same_command():
    done = subprocess.run([sys.executable, "-m", "joulewise", "--version"], capture_output=True, text=True, check=True)
    assert done.stdout == f"joulewise {joulewise.__version__} (kernel: {kernel.status()})\n"


# ---------------------------------------------------------------- for real


def test_a_real_study_from_file_to_report(folder):
    small = ["rounds=2", "seeds=[0]", "data.examples=100", "model.hidden=[8]"]
    command = [sys.executable, "-m", "joulewise", "run", "small.toml", "--out", "x"]
    command += [word for setting in small for word in ("--set", setting)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "small: accuracy after 2 rounds, and what it cost" in done.stdout
    assert (folder / "x/report.html").stat().st_size > 10_000
    assert len(rowfile.read(folder / "x")) == 4
