"""What a run leaves beside its rows, and what the report tells of it: prices, their origins, fleet, command."""

import json
from pathlib import Path

import msgspec
import pytest
from fake_federation import federate
from test_report import Outline

from joulewise import background, learning, page_energy, pricetables, questions, report
from joulewise.background import Background
from joulewise.errors import OutputError
from joulewise.layout import Layout
from joulewise.pricefile import FILE_NAME
from joulewise.runs import run
from joulewise.study import load
from joulewise.summary import summary

STUDY = """
name = "small"
rounds = 2
seeds = [0]
model = { name = "cnn", width = 4 }
data = { name = "digits", clients = 4, partition = "IID" }
[grid]
rule = ["TopK", "CWMP"]
density = 0.1
"""
RELATIVE = '[fleet]\ndevices = { "synthetic-kind-10" = 3, "synthetic-link-100" = 1 }\n'
PHONES = """[fleet]
devices = { "phone-lte-2021" = 3, "phone-wifi-2020" = 1 }
battery = { "phone-lte-2021" = { charge_j = 80.0, capacity_j = 120.0, reserve_j = 10.0 }, every = { charge_j = 0.2 } }
"""


def left(tmp_path, fleet=RELATIVE):
    """A study that ran, its rows and what its folder says."""
    (tmp_path / "small.toml").write_text(fleet.join(STUDY.split("[grid]")).replace("rule =", "[grid]\nrule ="), "utf-8")
    study = load(tmp_path / "small.toml")
    rows = list(run(study, tmp_path / "out", federate=federate))
    return study, rows, background.read(tmp_path / "out")


def test_a_run_leaves_the_tensors_that_are_trained_and_their_prices(tmp_path):
    study, _, found = left(tmp_path)
    module = learning.build(study.model, *study.data.images, study.data.classes, seed=0)
    layout = Layout.of(learning.arrays(module))
    assert [(t.name, t.kind, t.elements) for t in found.prices.tensors] == [
        (t.name, t.kind, t.size) for t in layout.tensors
    ]
    by_kind = {
        t.kind: price
        for t, price in zip(layout.tensors, found.prices.devices["synthetic-kind-10"].per_kept, strict=True)
    }
    assert by_kind == {"conv": 1.0, "vector": 10.0, "linear": 10.0}
    for each in found.prices.devices.values():
        sums = [sum(term) for term in zip(*each.terms.values(), strict=True)]
        assert sums == pytest.approx(each.per_kept)


@pytest.mark.parametrize("data", [learning.Digits(clients=2, partition=learning.IID())])
def test_what_a_data_set_says_of_its_images_is_so(data):
    train = learning.load(data).train
    assert train.images.shape[1:] == data.images
    assert set(train.labels.tolist()) == set(range(data.classes))


def test_a_folder_is_written_once_and_an_old_one_without_a_layout_is_gone_on_with(tmp_path):
    study, rows, _ = left(tmp_path)
    (tmp_path / "out" / FILE_NAME).unlink()
    assert list(run(study, tmp_path / "out", federate=federate, resume=True)) == rows
    assert background.read(tmp_path / "out").prices is None


@pytest.mark.parametrize("file", ["study.json", "devices.json", "layout.json"])
def test_a_damaged_file_is_named_with_what_to_do(tmp_path, file):
    left(tmp_path)
    (tmp_path / "out" / file).write_text('{"name": [}', encoding="utf-8")
    with pytest.raises(OutputError, match=rf"{file} .*mend or delete it"):
        background.read(tmp_path / "out")


def test_a_price_list_without_a_price_for_each_tensor_is_refused(tmp_path):
    left(tmp_path)
    path = tmp_path / "out" / FILE_NAME
    told = json.loads(path.read_text())
    told["devices"]["synthetic-kind-10"]["per_kept"].pop()
    path.write_text(json.dumps(told), encoding="utf-8")
    with pytest.raises(OutputError, match="device synthetic-kind-10 needs 8 prices, one for each tensor"):
        background.read(tmp_path / "out")


def test_shares_of_parameters_at_each_price_add_up_and_are_counted_by_hand(tmp_path):
    _, _, found = left(tmp_path)
    table = pricetables.shares("small", found.prices)
    lines = [line for line in table.rows if line[0] == "synthetic-kind-10"]
    convolutions = sum(t.elements for t in found.prices.tensors if t.kind == "conv")
    total = sum(t.elements for t in found.prices.tensors)
    assert [line[1] for line in lines] == ["1.00", "10.0"]
    assert [int(line[3].replace(",", "")) for line in lines] == [convolutions, total - convolutions]
    assert float(lines[0][2]) == pytest.approx(100 * convolutions / total, rel=1e-2)
    assert [line[4] for line in lines] == ["2: conv", "6: vector, linear"]


def test_every_number_has_its_origin_and_assumed_ones_stand_out(tmp_path):
    _, rows, found = left(tmp_path, PHONES)
    table = pricetables.numbers("small", found)
    lte = {line[1]: line for line in table.rows if line[0] == "phone-lte-2021"}
    assert lte["link.up.marginal"][2:5] == ("76.7 nJ/bit", "model", "2021")
    assert lte["link.fixed"][3] == "assumed"
    assumed = sum(line[3] == "assumed" for line in table.rows)
    assert table.notes[0].startswith(f"{assumed} of {len(table.rows)} numbers are assumed")
    (summed,) = summary(rows)
    shown = page_energy.devices(summed, rows, found)
    assert shown.count("<mark>assumed</mark>") == assumed > 0
    assert "<mark>model" not in shown


def test_the_fleet_is_counted_with_its_batteries(tmp_path):
    _, rows, found = left(tmp_path, PHONES)
    (summed,) = summary(rows)
    table = pricetables.fleet(summed, rows, found)
    assert table.columns == ("Device", "Clients", "Battery")
    assert table.rows == (
        ("phone-lte-2021", "3", "80.0 J at the start, 120 J when full, 10.0 J held back"),
        ("phone-wifi-2020", "1", "0.200 J at the start"),
    )


def test_several_fleets_of_one_study_are_told_apart_and_traces_are_named(tmp_path):
    _, rows, found = left(tmp_path)
    other = [
        msgspec.structs.replace(row, settings=row.settings | {"devices": "synthetic-kind-10"})
        if row.rule == "CWMP"
        else row
        for row in rows
    ]
    traced = msgspec.structs.replace(found.study, fleet=background.FleetLine(link={"file": "walk.csv"}))
    (summed,) = summary(other)
    table = pricetables.fleet(summed, other, msgspec.structs.replace(found, study=traced))
    assert [line[:3] for line in table.rows] == [
        ("1, of 4 clients", "synthetic-kind-10", "3"),
        ("1, of 4 clients", "synthetic-link-100", "1"),
        ("2, of 4 clients", "synthetic-kind-10", "4"),
    ]
    assert table.notes == ("From round to round bits cost what walk.csv says.",)


def test_a_folder_of_rows_alone_tells_nothing(tmp_path):
    assert background.read(tmp_path) == Background()
    assert pricetables.numbers("small", Background()) is None
    assert pricetables.shares("small", None) is None


def test_the_command_of_a_page_runs_the_same_study_into_another_folder(tmp_path, joule, monkeypatch):
    monkeypatch.setattr(report, "_bundle", lambda: "")
    monkeypatch.setattr(report, "_figures", lambda *_: [])
    study, _, _ = left(tmp_path)
    monkeypatch.chdir(tmp_path)
    code, _, _ = joule("report", "out", "--out", "page")
    assert code == 0
    words = " ".join(Outline((tmp_path / "page/report.html").read_text(encoding="utf-8")).words)
    assert "joulewise run study.json --out again" in words
    assert "layer" in words
    assert load(tmp_path / "out/study.json") == study
    assert Path("out/study.json").read_text(encoding="utf-8") in words


def test_questions_alone_say_of_which_study_they_are(tmp_path):
    asked = questions.Questions(study="kept", seeds=(0,))
    (tmp_path / questions.FILE_NAME).write_bytes(questions.text(asked))
    found = background.read(tmp_path)
    assert (found.name, found.study, found.questions) == ("kept", None, asked)
    assert Background().name is None
