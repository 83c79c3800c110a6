"""The [fleet] of a study file: what batteries, schedules and traces mean, and what each mistake in them says."""

import json
from pathlib import Path

import msgspec
import pytest

from joulewise import labels, rowfile, runs
from joulewise.errors import StudyError
from joulewise.fleetfile import Told
from joulewise.pacing import Battery
from joulewise.results import Skipped
from joulewise.schedules import Early, Even, Late, Priced
from joulewise.study import expand, load

WIFI, LTE = "phone-wifi-2020", "phone-lte-2021"
STUDY = """
name = "fleet"
rounds = 2
seeds = [0]
model = { name = "mlp", hidden = [8] }
data = { name = "digits", clients = 2, partition = "IID", examples = 40 }
[grid]
rule = "CWMP"
density = 0.1
[fleet]
devices = { "phone-wifi-2020" = 1, "phone-lte-2021" = 1 }
"""
BATTERY = "battery = { charge_j = 50, capacity_j = 60, reserve_j = 5 }\n"


@pytest.fixture
def write(tmp_path, monkeypatch):
    """Write a study into a folder beside the current one, with traces beside it; the path as a user types it."""
    monkeypatch.chdir(tmp_path)
    Path("studies").mkdir()

    def _write(fleet="", study=STUDY, **traces):
        for name, lines in traces.items():
            Path(f"studies/{name}.csv").write_text("\n".join(lines), encoding="utf-8")
        Path("studies/x.toml").write_text(study + fleet, encoding="utf-8")
        return "studies/x.toml"

    return _write


def only(path, overrides=()):
    (arm,) = expand(load(path, overrides))
    return arm


def message_of(path, overrides=()):
    with pytest.raises(StudyError) as caught:
        load(path, overrides)
    text = str(caught.value)
    assert "\n" not in text
    return text


# ---------------------------------------------------------------- what it means


def test_without_batteries_and_traces_there_is_nothing_to_live_on(write):
    arm = only(write())
    assert arm.supply == type(arm.supply)()
    assert "schedule" not in labels.settings(arm)


def test_one_battery_is_that_of_every_client(write):
    arm = only(write(BATTERY))
    assert arm.supply.batteries == (Battery(charge_j=50, capacity_j=60, reserve_j=5),) * 2
    assert arm.supply.schedule == Even()
    assert only(write(BATTERY), ["fleet.battery.charge_j=20"]).supply.batteries[1].charge_j == 20


def test_batteries_by_device_leave_the_others_to_every(write):
    by_device = only(write(f'battery = {{ "{LTE}" = {{ charge_j = 9 }}, "{WIFI}" = {{ charge_j = 1 }} }}'))
    assert [battery.charge_j for battery in by_device.supply.batteries] == [1, 9]
    with_every = only(write(f'battery = {{ every = {{ charge_j = 3 }}, "{LTE}" = {{ charge_j = 9 }} }}'))
    assert [battery.charge_j for battery in with_every.supply.batteries] == [3, 9]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ('"Late"', Late()),
        ('{ name = "Early", ratio = 0.5 }', Early(ratio=0.5)),
        ('{ name = "Priced", shape = { name = "Late" } }', Priced(shape=Late())),
    ],
)
def test_a_schedule_is_given_by_name_or_as_a_record(text, expected, write):
    assert only(write(f"{BATTERY}schedule = {text}")).supply.schedule == expected


def test_arms_may_differ_in_their_schedule_and_are_called_by_it(write):
    study = STUDY.replace("density = 0.1", 'density = 0.1\nschedule = ["Even", { name = "Late", ratio = 0.5 }]')
    arms = expand(load(write(BATTERY, study)))
    assert [arm.supply.schedule for arm in arms] == [Even(), Late(ratio=0.5)]
    assert [arm.name for arm in arms] == [
        "CWMP density=0.1 schedule=Even", "CWMP density=0.1 schedule=Late ratio=0.5"
    ]  # fmt: skip
    assert labels.settings(arms[1])["schedule"] == "Late ratio=0.5"


def test_traces_lie_beside_the_study_and_are_kept_in_it(write):
    fleet = f'{BATTERY}recharge = "sun.csv"\navailable = "there.csv"\nlink = "link.csv"'
    path = write(
        fleet,
        sun=["round,joules", "1,0.5", "2,0", "3,9"],
        there=["round,client,available", "1,0,1", "1,1,0", "2,0,1", "2,1,1"],
        link=["round,client,factor", "1,1,2", "1,0,0.5", "2,0,1", "2,1,3"],
    )
    study, supply = load(path), only(path).supply
    assert study.fleet.recharge == Told("sun.csv", ((0.5,), (0.0,), (9.0,)))
    assert supply.recharge == ((0.5, 0.5), (0.0, 0.0))
    assert supply.available == ((1.0, 0.0), (1.0, 1.0))
    assert supply.link == ((0.5, 2.0), (1.0, 3.0))
    for file in Path("studies").glob("*.csv"):
        file.unlink()
    Path("study.json").write_bytes(msgspec.json.encode(study))
    assert load("study.json") == study
    assert only("study.json").supply == supply


def test_a_trace_that_changed_is_another_study(write, tmp_path):
    path = write(f'{BATTERY}recharge = "sun.csv"', sun=["round,joules", "1,0", "2,0"])
    runs._claim(tmp_path, load(path))
    (tmp_path / rowfile.FILE_NAME).touch()
    runs._claim(tmp_path, load(path))
    write(f'{BATTERY}recharge = "sun.csv"', sun=["round,joules", "1,0", "2,1"])
    with pytest.raises(OSError, match="holds another study: its fleet"):
        runs._claim(tmp_path, load(path))


def test_rows_say_what_is_left_and_who_skipped(write, tmp_path):
    lines = ["round,client,available", "1,0,0", "1,1,0", "2,0,1", "2,1,0"]
    path = write(f'{BATTERY}available = "there.csv"', there=lines)
    first, second = runs.run(load(path), tmp_path / "out")
    away = "not available in this round"
    assert first.clients == ()
    assert first.skipped == tuple(Skipped(partition=client, reason=away, battery_j=50.0) for client in (0, 1))
    assert [client.battery_j < 50 for client in second.clients] == [True]
    assert rowfile.read(tmp_path / "out") == (first, second)
    plain = next(iter(runs.run(load(write()), tmp_path / "plain")))
    assert b"skipped" not in msgspec.json.encode(plain)
    assert b"battery" not in msgspec.json.encode(plain)


# ---------------------------------------------------------------- mistakes


@pytest.mark.parametrize(
    ("fleet", "expected"),
    [
        (
            "battery = { charge_j = 0 }",
            "fleet.battery is empty for client 0 from the start: it holds 0 J, of which 0 J are the reserve, and "
            "nothing recharges it; raise charge_j, or give a fleet.recharge",
        ),
        ("battery = { charge_j = 5, reserve_j = 5 }", "fleet.battery is empty for client 0 from the start"),
        ("battery = { charge_j = -1 }", "Battery(charge_j) is -1.0, expected finite joules of at least 0 - at $.fleet"),
        ("battery = { charge_j = 9, capacity_j = 1 }", "Battery(charge_j) is 9 J, expected at most the capacity, 1 J"),
        ("battery = { charge = 9 }", "charge"),
        ("battery = 3", "$.fleet.battery"),
        (f'battery = {{ "{LTE}" = {{ charge_j = 9 }} }}', f"fleet.battery has none for {WIFI}; add one, or add every"),
        (
            'battery = { every = { charge_j = 9 }, "phone-lte-2012" = { charge_j = 9 } }',
            f"fleet.battery has a battery of 'phone-lte-2012', which no client has; name one of {LTE}, {WIFI}, or eve",
        ),
        ('schedule = "Even"', "fleet.schedule is given, but no client has a battery; add fleet.battery"),
        ('recharge = "sun.csv"', "fleet.recharge is given, but no client has a battery; add fleet.battery"),
        (f'{BATTERY}schedule = "Evne"', "$.fleet.schedule"),
        (f'{BATTERY}schedule = {{ name = "Late", ratio = 2 }}', "Late(ratio) must be above 0 and below 1"),
        (f'{BATTERY}recharge = "moon.csv"', "fleet.recharge: trace 'studies/moon.csv' cannot be read: No such file"),
        (f'{BATTERY}recharge = "short.csv"', "fleet.recharge: short.csv ends with round 1, but the run has 2 rounds"),
        (f'{BATTERY}recharge = "link.csv"', "fleet.recharge: studies/link.csv has no column 'joules'"),
        (f'{BATTERY}recharge = "one.csv"', "fleet.recharge: one.csv has no lines for client 0"),
        (
            'available = "three.csv"',
            "fleet.available: three.csv has lines for client 7, but the clients are 0 to 1; take them out, or raise "
            "data.clients",
        ),
        (f'{BATTERY}available = "bad.csv"', "fleet.available: studies/bad.csv, line 2: available is '2', expected 1"),
        ('link = "zero.csv"', "fleet.link: studies/zero.csv, line 2: factor is '0', expected a finite factor above 0"),
        ('link = "huge.csv"', "fleet.link: `value` is"),
    ],
)
def test_a_mistake_is_named_with_file_and_key(fleet, expected, write):
    path = write(
        fleet,
        sun=["round,joules", "1,0", "2,0"],
        short=["round,joules", "1,0"],
        link=["round,client,factor", "1,0,1", "1,1,1", "2,0,1", "2,1,1"],
        one=["round,client,joules", "1,1,1", "2,1,1"],
        three=["round,client,available", *(f"{number},{client},1" for number in (1, 2) for client in (0, 1, 7))],
        bad=["round,available", "1,2", "2,1"],
        zero=["round,factor", "1,0", "2,1"],
        huge=["round,factor", "1,1e200", "2,1"],
    )
    found = message_of(path)
    assert found.startswith("studies/x.toml: ")
    assert expected in found


def test_an_empty_battery_that_is_recharged_is_none(write):
    path = write('battery = { charge_j = 0, capacity_j = 9 }\nrecharge = "sun.csv"', sun=["round,joules", "1,0", "2,1"])
    assert only(path).supply.batteries[0].charge_j == 0
    path = write('battery = { charge_j = 0, capacity_j = 9 }\nrecharge = "sun.csv"', sun=["round,joules", "1,0", "2,0"])
    assert "fleet.battery is empty for client 0 from the start" in message_of(path)


@pytest.mark.parametrize(
    ("rule", "schedule", "expected"),
    [
        ("Dense", "Even", "fleet.battery caps what each mask may cost, but Dense takes no budget"),
        ("MinVariance", "Even", "fleet.battery caps what each mask may cost, but MinVariance meets a budget only on"),
        ("TopK", "Priced", "fleet.schedule = Priced needs a value per joule, which TopK has not; use CWMP or Proj"),
    ],
)
def test_a_rule_that_a_battery_cannot_cap_is_refused(rule, schedule, expected, write):
    path = write(f'{BATTERY}schedule = "{schedule}"', STUDY.replace("CWMP", rule))
    assert expected in message_of(path)


def test_a_battery_holds_joules_and_no_relative_units(write):
    study = STUDY.replace(f'{{ "{WIFI}" = 1, "{LTE}" = 1 }}', '"synthetic-link-10"')
    assert "fleet.battery holds joules, but synthetic-link-10 counts in relative units" in message_of(
        write(BATTERY, study)
    )
    lines = ["round,factor", "1,2", "2,1"]
    assert "fleet.link: the link of synthetic-link-10 cannot be made dearer or cheaper: it has no link" in message_of(
        write('link = "link.csv"', study, link=lines)
    )
    arm = only(write('available = "there.csv"', study, there=["round,available", "1,1", "2,0"]))
    assert arm.supply.available == ((1.0, 1.0), (0.0, 0.0))


@pytest.mark.parametrize("values", [[[1, 2], [3]], [], [[-1.0]], [[1.0], []]], ids=str)
def test_the_numbers_of_a_trace_in_a_study_are_checked_too(values, write):
    tables = json.loads(msgspec.json.encode(load(write(BATTERY))))
    tables["fleet"]["recharge"] = {"file": "sun.csv", "values": values}
    Path("x.json").write_text(json.dumps(tables), encoding="utf-8")
    assert "fleet.recharge: the numbers of sun.csv are torn or out of range" in message_of("x.json")
