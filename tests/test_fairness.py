"""What an arm means for its clients: numbers computed by hand, in the terminal's table and in the page."""

import math
from dataclasses import replace
from pathlib import Path

import msgspec
import numpy as np
import pytest
from studies_of_flower import arm as arm_of
from synthetic_rows import study_rows
from test_report import Outline

from joulewise import fairness_table, labels, page, rowfile, tables
from joulewise.fairness import devices_of, fairness
from joulewise.ledger import Charge
from joulewise.page import Provenance
from joulewise.pareto import interval
from joulewise.results import AllClients, Skipped
from joulewise.summary import summary

CLIENTS = 5
ACCURACIES = {0: (0.9, 0.2, 0.5, 0.6, 0.7), 1: (0.8, 0.6, 0.3, 0.9, 0.5), 2: (0.5, 0.5, 0.5, 0.5, 0.4)}
SENT = {0: (10, 10, 10, 40, 30), 1: (20, 20, 10, 25, 25), 2: (0, 10, 20, 30, 40)}


def rows(devices="3 near, 2 far", rounds=2, accuracy=True, density=0.1):
    """A round before the last in which all is otherwise: accuracies are of the last, shares of both."""
    made = study_rows(rules=("TopK",), densities=(density,), rounds=rounds, clients=CLIENTS, dense=False, unit="J")
    return [
        msgspec.structs.replace(
            row,
            settings=row.settings | {"devices": devices, "clients": CLIENTS},
            clients=tuple(_client(each, row, rounds, accuracy) for each in row.clients),
        )
        for row in made
    ]


def sent_by(seed: int, partition: int, number: int) -> int:
    """Twice as much in the second round, and the other way about."""
    return SENT[seed][partition] if number == 1 else 2 * SENT[seed][CLIENTS - 1 - partition]


def _client(client, row, rounds, accuracy):
    sent = sent_by(row.seed, client.partition, row.round)
    dear = 1.0 if client.partition < 3 else 10.0
    return msgspec.structs.replace(
        client,
        accuracy=(ACCURACIES[row.seed][client.partition] if row.round == rounds else 0.01) if accuracy else None,
        kept_by_tensor=(sent, 0) if row.round == 1 else (0, sent),
        charges=(
            Charge("kept", dear * sent, "J", "modelled"),
            Charge("fixed", 2.0, "J", "modelled"),
            Charge("downlink", 1e6 * client.partition, "J", "modelled"),
        ),
    )


def shares(device: str, what: str) -> list[float]:
    found = []
    for seed in SENT:
        sent = [sent_by(seed, partition, 1) + sent_by(seed, partition, 2) for partition in range(CLIENTS)]
        near, far = math.fsum(sent[:3]), math.fsum(sent[3:])
        if what == "energy":
            near, far = near + 12, 10 * far + 8
        found.append((near if device == "near" else far) / (near + far))
    return found


def test_worst_and_tenth_percentile_are_of_the_last_round_and_shares_of_all_rounds():
    found = fairness(rows())
    assert found.worst == interval([0.2, 0.3, 0.4])
    assert found.tenth == interval([float(np.percentile(each, 10)) for each in ACCURACIES.values()])
    assert found.tenth.mean == pytest.approx((0.32 + 0.38 + 0.44) / 3)
    assert [(each.device, each.clients) for each in found.devices] == [("near", 3), ("far", 2)]
    for each in found.devices:
        assert each.energy.mean == pytest.approx(np.mean(shares(each.device, "energy")))
        assert each.kept.mean == pytest.approx(np.mean(shares(each.device, "kept")))
        assert each.energy.low < each.energy.mean < each.energy.high


def test_rows_that_know_no_accuracy_have_no_such_table():
    assert fairness(rows(accuracy=False)) is None
    (plain,) = summary(rows(accuracy=False))
    assert fairness_table.fairness(plain) is None
    assert len(tables.table(rows(accuracy=False))) == 1
    missing = [row for row in rows() if row.seed or row.round < 2]
    broken = [row for row in rows(accuracy=False) if row.seed == 0 and row.round == 2]
    assert fairness([*missing, *broken]) is None


@pytest.mark.parametrize("devices", [None, "near", "5 near of one kind, maybe", "2 near, 2 far"])
def test_without_two_devices_for_all_partitions_there_are_no_shares(devices):
    found = fairness(rows(devices))
    assert (found.devices, found.worst.mean) == ((), pytest.approx(0.3))
    (told,) = summary(rows(devices))
    assert fairness_table.fairness(told).columns == ("Arm", *fairness_table.ACCURACIES)
    assert len(fairness_table.fairness(told).rows) == 1


@pytest.mark.parametrize("devices", [("a",) * 4, ("a", "a", "b", "c"), ("far", "near")])
def test_devices_are_those_that_the_arm_gives_its_partitions(devices):
    settings = labels.settings(replace(arm_of(), devices=devices)) | {"clients": len(devices)}
    assert devices_of(settings) == devices


def test_devices_that_cannot_be_told_are_none():
    path = "x/2 of, 3 y.toml"  # looks like two devices
    assert devices_of(labels.settings(replace(arm_of(), devices=(path, path, "b", "b")))) == ()
    assert devices_of({"devices": "5 near", "clients": 3}) == ("5 near",) * 3
    assert devices_of({}) == devices_of({"devices": "near"}) == devices_of({"devices": 3}) == ()


def test_seeds_that_did_not_finish_are_left_out():
    short = [row for row in rows() if row.seed != 2 or row.round == 1]
    (found,) = summary(short)
    assert found.arms[0].fairness.worst == interval([0.2, 0.3])


def without(client: int, seed: int = 0, **more):
    """Rows in whose last round a client with one seed took no part."""
    return [
        msgspec.structs.replace(row, clients=tuple(each for each in row.clients if each.partition != client), **more)
        if (row.seed, row.round) == (seed, 2)
        else row
        for row in rows()
    ]


def test_clients_that_took_no_part_in_the_last_round_count():
    known = without(1, all_clients=AllClients(worst=0.1, tenth=0.15))
    found = fairness(known)
    assert found.worst == interval([0.1, 0.3, 0.4])
    assert found.tenth == interval([0.15, *(float(np.percentile(ACCURACIES[seed], 10)) for seed in (1, 2))])
    assert summary(known)[0].arms[0].runs[0].worst_client == 0.1
    none = [msgspec.structs.replace(row, clients=()) if row in known and row.round == 2 and row.seed == 0 else row
            for row in known]  # fmt: skip
    assert fairness(none).worst == found.worst  # nobody took part


@pytest.mark.parametrize(
    ("settings", "first"),
    [({"clients": CLIENTS}, None), ({}, None), ({"clients": CLIENTS}, 1), ({}, "skipped")],
)
def test_where_rows_do_not_know_all_clients_the_worst_is_not_told(settings, first):
    """Whether the study's settings, the rounds before or those who skipped tell that there is a client more."""
    told = without(1)
    if first is not None:  # the client is in no round
        told = [
            msgspec.structs.replace(row, clients=tuple(each for each in row.clients if each.partition != 1))
            for row in told
        ]
    if first == "skipped":
        told = [msgspec.structs.replace(row, skipped=(Skipped(partition=1, reason="no energy"),)) for row in told]
    told = [msgspec.structs.replace(row, settings={"rule": "TopK"} | settings) for row in told]
    found = fairness(told)
    assert (found.worst, found.tenth) == (None, None)
    (summed,) = summary(told)
    assert summed.arms[0].runs[0].worst_client is None
    made = fairness_table.fairness(summed)
    assert made.rows[0][2:4] == ("–", "–")
    assert any("took no part in the last round, and the rows do not tell" in note for note in made.notes)
    assert len(fairness_table.fairness(summary(rows())[0]).notes) == len(made.notes)  # that of shares in its place


def test_a_client_below_zero_has_no_device():
    strange = [
        msgspec.structs.replace(row, clients=(msgspec.structs.replace(row.clients[0], partition=-7), *row.clients[1:]))
        for row in rows()
    ]
    assert fairness(strange).devices == ()


# ---------------------------------------------------------------- table and page


def test_the_table_has_a_line_for_each_device_and_the_accuracies_once():
    (found,) = summary(rows())
    made = fairness_table.fairness(found)
    arm = found.arms[0]
    assert made.columns == ("Arm", *fairness_table.ACCURACIES, *fairness_table.SHARES)
    near, far = made.rows
    server = f"{100 * arm.accuracy.mean:.1f} ± {100 * arm.accuracy.half:.1f}"
    assert near[:4] == (arm.label, server, f"30.0 ± {100 * arm.fairness.worst.half:.1f}", near[3])
    assert near[3].startswith("38.0 ± ")
    assert far[:4] == (arm.label, "", "", "")
    assert (near[4:6], far[4:6]) == (("near", "3"), ("far", "2"))
    assert near[6].startswith(f"{100 * np.mean(shares('near', 'energy')):.1f} ± ")
    assert far[7].startswith(f"{100 * np.mean(shares('far', 'kept')):.1f} ± ")
    assert made in tables.table(rows())


def test_arms_with_and_without_devices_share_a_table():
    both = [*rows(), *rows("near", density=0.2)]
    (found,) = summary(both)
    made = fairness_table.fairness(found)
    assert [len(row) for row in made.rows] == [8] * 3
    assert made.rows[2][4:] == ("–",) * 4


def test_the_page_shows_it_and_so_does_the_command(joule, tmp_path, monkeypatch):
    (found,) = summary(rows())
    keys = [page.frontier_key(0), *(page.curve_key(0, k) for k in range(len(page.panels(found))))]
    text = page.render(
        [found], [None], {key: {"energy linear": {}} for key in keys}, "", Provenance(rows=tuple(rows()))
    )
    words = " ".join(Outline(text).words)
    made = fairness_table.fairness(found)
    for each in (*made.columns, *made.notes, *(cell for row in made.rows for cell in row)):
        assert each in words
    assert "What it means for the clients" in words
    for row in rows():
        rowfile.append(tmp_path / rowfile.FILE_NAME, row)
    monkeypatch.setattr("joulewise.report.write", lambda _rows, out, *_: (Path(out) / "report.html",))
    code, out, _ = joule("report", tmp_path)
    assert code == 0
    assert made.caption in out
    assert "Worst client (%)" in out


def test_the_name_of_a_device_is_never_broken_in_two(joule, tmp_path, monkeypatch):
    """The rest of synthetic-link-100 would read as synthetic-link-1."""
    long = [msgspec.structs.replace(row, arm="TopK " * 8) for row in rows("3 synthetic-link-1, 2 synthetic-link-100")]
    for row in long:
        rowfile.append(tmp_path / rowfile.FILE_NAME, row)
    monkeypatch.setattr("joulewise.report.write", lambda _rows, out, *_: (Path(out) / "report.html",))
    monkeypatch.setenv("COLUMNS", "120")
    assert "synthetic-link-100" in joule("report", tmp_path)[1]
