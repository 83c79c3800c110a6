"""A run that meters itself: what is in its rows, what is not, and what a reader is told."""

import json
import os
from dataclasses import replace
from functools import partial
from itertools import islice
from pathlib import Path

import msgspec
import pytest
from fake_federation import federate
from sensor_tree import Clock, SensorTree
from synthetic_rows import study_rows

from joulewise import battery, cli_meters, metering, meters, powercap, report, results, rowfile, runs, tables
from joulewise.errors import DataError, OutputError
from joulewise.ledger import total
from joulewise.meters import Reading
from joulewise.study import load
from joulewise.summary import summary

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
SURVEY, FIND = meters.survey, meters.find_meters
PACKAGE = "powercap/intel-rapl:0/energy_uj"


@pytest.fixture
def study(tmp_path):
    (tmp_path / "small.toml").write_text(STUDY, encoding="utf-8")
    return load(tmp_path / "small.toml")


@pytest.fixture
def laptop(tmp_path):
    return SensorTree(tmp_path / "tree", "laptop")


@pytest.fixture
def clock():
    return Clock()


@pytest.fixture
def package(laptop, clock):
    (meter,) = powercap.find(laptop.root)
    return replace(meter, clock=clock)


def spending(laptop, clock, joules=5.0, seconds=2.0):
    """A federation whose every round takes this machine `joules` in `seconds`, and whose end takes some, too."""

    def _federate(*arguments, **options):
        for outcome in federate(*arguments, **options):
            clock.wait(seconds)
            laptop.add(PACKAGE, round(joules * 1e6))
            yield outcome
            laptop.add(PACKAGE, 700_000_000)
            clock.wait(1)

    return _federate


def timeless(rows):
    return [msgspec.structs.replace(row, timing=None, measured=msgspec.UNSET) for row in rows]


# ---------------------------------------------------------------- rows


def test_each_row_holds_what_its_round_took_and_nothing_of_what_came_between(study, tmp_path, laptop, clock, package):
    laptop.set(PACKAGE, 0)
    rows = []
    for row in runs.run(study, tmp_path / "x", federate=spending(laptop, clock), meters=[package]):
        rows.append(row)
        laptop.add(PACKAGE, 900_000_000)  # what the consumer does between two rounds is not the round's
        clock.wait(100)
    assert list(rowfile.read(tmp_path / "x")) == rows
    assert len(rows) == 12
    first = [row for row in rows if row.round == 1]
    assert [row.measured[0].joules for row in first] == pytest.approx([5.0] * 4)
    assert all(len(row.measured) == 1 and row.measured[0].method == package.method for row in rows)
    assert all(results.SET_UP in row.measured[0].note for row in first)
    # After its first row the federation goes on: what it does before the next round is that round's.
    assert [row.measured[0].joules for row in rows if row.round > 1] == pytest.approx([705.0] * 8)
    assert not any(results.SET_UP in row.measured[0].note for row in rows if row.round > 1)
    assert {row.measured[0].domains for row in rows} == {("package-0",)}
    assert not (tmp_path / "x" / metering.FILE_NAME).exists()


def test_a_run_without_a_sensor_writes_the_rows_that_it_always_wrote(study, tmp_path, laptop, clock, package):
    plain = list(runs.run(study, tmp_path / "plain", federate=federate))
    metered = list(runs.run(study, tmp_path / "metered", federate=spending(laptop, clock), meters=[package]))
    assert b"measured" not in (tmp_path / "plain/rows.jsonl").read_bytes().replace(b'"modelled"', b"")
    assert timeless(plain) == timeless(metered)
    assert all(row.measured is msgspec.UNSET for row in plain)
    assert not (tmp_path / "plain" / metering.FILE_NAME).exists()


def test_measured_joules_never_enter_a_total(study, tmp_path, laptop, clock, package):
    (row, *_) = runs.run(study, tmp_path / "x", federate=spending(laptop, clock), meters=[package])
    charges = [charge for client in row.clients for charge in client.charges]
    assert {charge.basis for charge in charges} == {"modelled"}
    assert results.uplink_energy(row) == total(charges)


def test_a_sensor_that_goes_away_leaves_the_run_and_a_reason(study, tmp_path, laptop, clock, package):
    def losing(*arguments, **options):
        for outcome in federate(*arguments, **options):
            clock.wait(2)
            if outcome.round == 1 and laptop[PACKAGE].exists():
                laptop.add(PACKAGE, 5_000_000)
            else:
                laptop[PACKAGE].unlink(missing_ok=True)
            yield outcome

    rows = list(runs.run(study, tmp_path / "x", federate=losing, meters=[package]))
    found = [row.measured[0] for row in rows]
    assert [one.joules for one in found] == [pytest.approx(5.0), *[None] * 11]
    assert "the sensor went away in the open window" in found[1].note
    assert "energy_uj is not there" in found[2].note
    assert {one.basis for one in found[1:]} == {"unavailable"}


def test_an_error_of_the_federation_closes_the_windows(study, tmp_path, laptop, package, monkeypatch):
    monkeypatch.setenv("FAKE_FEDERATION", json.dumps({"fail": 2}))
    closed = []

    class Watched:
        name, method, domains = package.name, package.method, package.domains
        fault, begin = package.fault, package.begin

        def end(self, mark):
            closed.append(mark)
            return package.end(mark)

    with pytest.raises(DataError):
        list(runs.run(study, tmp_path / "x", federate=federate, meters=[Watched()]))
    assert len(closed) == 2


# ---------------------------------------------------------------- several processes


def test_several_processes_have_one_reading_for_the_whole_run(study, tmp_path, laptop, clock, package):
    def while_counting(rows):
        for row in rows:
            clock.wait(2)
            laptop.add(PACKAGE, 3_000_000)
            yield row

    laptop.set(PACKAGE, 0)
    folder = tmp_path / "x"
    rows = list(while_counting(runs.run(study, folder, federate=federate, jobs=2, meters=[package])))
    assert len(rows) == 12
    assert all(row.measured is msgspec.UNSET for row in rows)
    (part,) = metering.read(folder)
    assert (part.jobs, part.rows) == (2, 12)
    (reading,) = part.readings
    assert reading.joules == pytest.approx(36.0)
    assert reading.window_s == pytest.approx(24.0)
    assert "up to 2 processes at a time share this machine, and no row has a part of its own" in reading.note
    (line,) = tables.metered([part])
    assert line.startswith("12 rows from ")
    assert "measured 36.0 J of package-0 in 24.0 s" in line


def test_a_run_that_is_stopped_and_gone_on_with_has_a_part_for_each(tmp_path, laptop, clock, package):
    def some(count):
        for row in study_rows(rounds=1, seeds=(0,), densities=(0.1,))[:count]:
            laptop.add(PACKAGE, 1_000_000)
            clock.wait(2)
            yield row

    stopped = metering.metered(some(4), [package], tmp_path, 2)
    assert len(list(islice(stopped, 2))) == 2
    stopped.close()
    list(metering.metered(some(3), [package], tmp_path, 2))
    parts = metering.read(tmp_path)
    assert [part.rows for part in parts] == [2, 3]
    assert [part.readings[0].joules for part in parts] == pytest.approx([2.0, 3.0])
    assert [path.name for path in tmp_path.glob("meters*")] == ["meters.json"]


def test_a_file_of_readings_that_is_damaged_is_named(tmp_path, package):
    (tmp_path / metering.FILE_NAME).write_text("{")
    with pytest.raises(OutputError, match=r"meters\.json is not a file of readings: .*; mend or delete it"):
        metering.read(tmp_path)
    (tmp_path / metering.FILE_NAME).write_text(json.dumps({"parts": [{"started": 3}]}))
    with pytest.raises(OutputError, match="not a file of readings"):
        list(metering.metered(iter(()), [package], tmp_path, 2))
    assert metering.read(tmp_path / "nothing") == ()


# ---------------------------------------------------------------- what a reader sees


def reading(joules, **more):
    basis = "unavailable" if joules is None else "measured"
    domains = () if joules is None else ("package-0",)
    return Reading(joules=joules, basis=basis, domains=domains, window_s=2.0, method="powercap", **more)


def metered_rows(joules=lambda row: 10.0 + row.seed, **options):
    rows = study_rows(densities=(0.1,), rounds=4, clients=2, **options)
    return [msgspec.structs.replace(row, measured=(reading(joules(row)),)) for row in rows]


def test_the_table_shows_measured_beside_modelled_and_adds_nothing():
    plain, shown = (tables.table(rows) for rows in (study_rows(densities=(0.1,), rounds=4, clients=2), metered_rows()))
    assert shown[0] == plain[0]
    assert len(plain) == 1
    table = shown[1]
    assert table.columns[1].startswith("Uplink energy, modelled (")
    assert table.columns[2] == "This machine, measured (J)"
    assert [row[0] for row in table.rows] == [row[0] for row in shown[0].rows]
    assert {row[2] for row in table.rows} == {"11.0 ± 2.5"}  # 10, 11, 12: 4.303 / sqrt(3)
    assert {row[3:] for row in table.rows} == {("package-0", "12 of 12", "powercap")}
    assert "never added" in table.notes[0]


def test_the_modelled_column_is_the_mean_of_a_round():
    rows = metered_rows()
    (found,) = summary(rows)
    for arm in found.arms:
        own = [results.uplink_energy(row) for row in rows if row.arm == arm.name]
        assert arm.energy_per_round == pytest.approx(sum(own) / len(own))


def test_rounds_without_a_reading_are_counted_and_nothing_is_put_in_their_place():
    rows = [
        row
        if row.round > 1
        else msgspec.structs.replace(row, measured=(reading(None, note="package-0 stood still for 2 s"),))
        for row in metered_rows()
    ]
    table = tables.table(rows)[1]
    by_arm = [row for row in table.rows if row[0] == table.rows[0][0]]
    assert [row[2:5] for row in by_arm] == [
        ("unavailable", tables.NONE, "0 of 12"),
        ("11.0 ± 2.5", "package-0", "9 of 12"),
    ]
    assert "powercap: package-0 stood still for 2 s." in table.notes


def test_a_window_that_also_holds_setting_up_is_no_round():
    rows = [
        row if row.round > 1 else msgspec.structs.replace(row, measured=(reading(5000.0, note=f"{results.SET_UP}; x"),))
        for row in metered_rows()
    ]
    table = tables.table(rows)[1]
    assert {row[2:5] for row in table.rows} == {("11.0 ± 2.5", "package-0", "9 of 12")}
    alone = tables.table([row for row in rows if row.round == 1])[1]
    assert {row[2:5] for row in alone.rows} == {("unavailable", tables.NONE, "0 of 3")}


def test_notes_are_shown_once_and_not_without_end():
    rows = metered_rows()
    rows = [
        msgspec.structs.replace(row, measured=(reading(1.0, note=f"short; number {place}"),))
        for place, row in enumerate(rows)
    ]
    (line,) = [note for note in tables.table(rows)[1].notes if note.startswith("powercap")]
    assert line.count("short") == 1
    assert line.endswith(f"number 4; and {len(rows) + 1 - tables.SHOWN_NOTES} more in the rows.")


def test_nothing_measured_at_all_says_unavailable():
    table = tables.table(metered_rows(lambda _: None))[1]
    assert {row[2] for row in table.rows} == {"unavailable"}


def test_the_report_shows_it_too(tmp_path, monkeypatch):
    pytest.importorskip("altair", reason="the report extra is not installed")
    monkeypatch.setattr(report, "_bundle", lambda: "")
    monkeypatch.setattr(report, "_figures", lambda *_: [])
    rows = metered_rows()
    page, *_ = report.write(rows, tmp_path, metered=["12 rows, powercap: measured 36.0 J of <package-0>"])
    text = page.read_text(encoding="utf-8")
    assert text.count("What this machine took") == 1
    assert "11.0 ± 2.5" in text
    assert "measured 36.0 J of &lt;package-0&gt;" in text
    plain, *_ = report.write(study_rows(densities=(0.1,), rounds=4, clients=2), tmp_path)
    assert "What this machine took" not in plain.read_text(encoding="utf-8")


# ---------------------------------------------------------------- the command


@pytest.fixture
def joule(joule, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(runs, "run", partial(runs.run, federate=federate))
    monkeypatch.setattr("joulewise.report.write", lambda _rows, out, *_: (Path(out) / "report.html",))
    return joule


@pytest.fixture
def on(monkeypatch):
    """Let the machine be a sensor tree."""

    def _on(tree):
        monkeypatch.setattr(meters, "survey", partial(SURVEY, tree.root))
        monkeypatch.setattr(meters, "find_meters", partial(FIND, tree.root))

    return _on


def test_meters_lists_what_is_there_and_why_the_rest_is_not(joule, on, laptop):
    on(laptop)
    code, out, err = joule("meters")
    assert (code, err) == (0, "")
    lines = [line.split() for line in out.splitlines() if line.strip()]
    assert ["powercap", "package-0", "yes"] in lines
    assert ["battery", "BAT0", "yes"] in lines
    assert ["ina3221", "nothing", "no"] in lines
    assert "ina3221: no INA3221 under /sys/class/hwmon" in out


def test_meters_reads_for_a_while_and_invents_nothing(joule, on, laptop):
    on(laptop)
    out = joule("meters", "--seconds", "0.01")[1]
    assert f"{powercap.find(laptop.root)[0].method}: unavailable" in out
    assert "package-0 stood still in the whole window" in out
    empty = SensorTree(laptop.root.parent / "empty", "virtual-machine")
    on(empty)
    assert "nothing can be read: no number is given, for none was measured" in joule("meters", "--seconds", "0.01")[1]
    assert joule("meters", "--seconds", "0")[0] == 2
    assert joule("meters", "--seconds", "nan")[0] == 2


def test_meters_prints_a_measured_power_with_its_domains(joule, on, laptop, monkeypatch):
    on(laptop)
    monkeypatch.setattr(cli_meters.time, "sleep", lambda _: laptop.set(PACKAGE, 262_143_000_000 + 200_000))
    out = joule("meters", "--seconds", "5")[1]
    assert "measured 0.2 J in " in out
    assert ", of package-0" in out


def test_run_meters_itself_and_shows_it(joule, on, tmp_path, laptop, monkeypatch):
    (tmp_path / "small.toml").write_text(STUDY, encoding="utf-8")
    on(laptop)
    read, count = powercap.number, iter(range(1, 10**6))
    # A counter that moves by 100 uJ whenever it is read.
    laptop.set(PACKAGE, 0)
    monkeypatch.setattr(
        powercap, "number", lambda path, hint="": next(count) * 100 if path.name == "energy_uj" else read(path, hint)
    )
    code, out, err = joule("run", "small.toml")
    assert code == 0
    rows = rowfile.read(tmp_path / "runs/small")
    assert [one.joules for row in rows for one in row.measured if one.joules is not None] == pytest.approx([1e-4] * 12)
    assert "small: measured energy of this machine beside modelled energy of the clients, per round" in out
    assert "Traceback" not in err
    assert joule("run", "small.toml", "--no-meter", "--out", "plain")[0] == 0
    assert all(row.measured is msgspec.UNSET for row in rowfile.read(tmp_path / "plain"))


def test_run_says_which_sensor_it_cannot_read(joule, on, tmp_path, laptop):
    (tmp_path / "small.toml").write_text(STUDY, encoding="utf-8")
    laptop.uevent("BAT0", STATUS="Charging")
    on(laptop)
    err = joule("run", "small.toml")[2]
    assert err.splitlines()[0] == "note: battery cannot be read, and is left out; why: joulewise meters"
    assert "its status is Charging" in joule("meters")[1]
    assert battery.NAME not in {one.method for row in rowfile.read(tmp_path / "runs/small") for one in row.measured}


def test_run_with_jobs_shows_the_reading_of_the_whole_run(joule, on, tmp_path, laptop):
    (tmp_path / "small.toml").write_text(STUDY, encoding="utf-8")
    on(laptop)
    os.environ.pop("FAKE_FEDERATION", None)
    code, out, _ = joule("run", "small.toml", "--jobs", "2")
    assert code == 0
    assert "\nthis machine: 12 rows from " in out
    assert "unavailable (" in out  # the tree's counter stands still
    assert (tmp_path / "runs/small" / metering.FILE_NAME).exists()
