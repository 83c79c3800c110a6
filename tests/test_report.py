"""The report of a study that never ran: files, words, numbers and what they do not say."""

from __future__ import annotations

import errno
import json
import os
import re
import sys
from html.parser import HTMLParser
from pathlib import Path

import msgspec
import pytest
from synthetic_rows import study_rows

from joulewise import page, report, tables
from joulewise.errors import MissingExtra, OutputError
from joulewise.keeping import keeping
from joulewise.summary import summary

pytest.importorskip("altair", reason="the report extra is not installed")
pytest.importorskip("vl_convert", reason="the report extra is not installed")

ROWS = study_rows(densities=(0.1,), seeds=(0, 1, 2), rounds=3, clients=2)


class Outline(HTMLParser):
    """Tags, ids, heading levels and the text of a page, without its scripts."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open, self.ids, self.levels, self.words = [], [], [], []
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        if tag not in {"meta", "link"}:
            self.open.append(tag)
        self.ids += [value for name, value in attrs if name == "id"]
        if re.fullmatch(r"h[1-6]", tag):
            self.levels.append(int(tag[1]))

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if not {"script", "style"} & set(self.open):
            self.words.append(data)


@pytest.fixture(scope="module")
def written(tmp_path_factory) -> tuple[Path, ...]:
    out = tmp_path_factory.mktemp("report") / "out"
    return report.write(ROWS, out, study_text='name = "<quick> & start"', command="joulewise run s.toml")


@pytest.fixture(scope="module")
def outline(written) -> Outline:
    return Outline(written[0].read_text(encoding="utf-8"))


@pytest.fixture
def light(monkeypatch):
    """Reports without the JavaScript bundle and without figures, which take most of the time."""
    monkeypatch.setattr(report, "_bundle", lambda: "")
    monkeypatch.setattr(report, "_figures", lambda *_: [])


def charts_of(path: Path) -> dict:
    found = re.search(r'<script type="application/json" id="charts">(.*?)</script>', path.read_text("utf-8"))
    return json.loads(found.group(1))


def test_a_report_is_a_page_and_figures_in_three_formats(written):
    names = [str(path.relative_to(written[0].parent)) for path in written]
    stems = ("frontier", "accuracy-over-energy", "energy-split", "kept-by-layer")
    assert names == ["report.html"] + [f"figures/{stem}.{kind}" for stem in stems for kind in ("svg", "png", "pdf")]
    starts = {".svg": b"<svg", ".png": b"\x89PNG", ".pdf": b"%PDF"}
    for path in written[1:]:
        assert path.read_bytes().startswith(starts[path.suffix])
        assert path.stat().st_size > 2000


def test_figures_show_every_rule(written):
    svg = (written[0].parent / "figures" / "frontier.svg").read_text()
    for word in ("Dense", "TopK", "CWMP", "Projection", "Final accuracy", "Uplink energy, modelled"):
        assert word in svg
    assert "currentColor" not in svg


@pytest.mark.parametrize(("densities", "title"), [((0.1,), None), ((0.1, 0.05), "3 of 6 arms; the page has them all")])
def test_a_figure_of_some_arms_says_so(densities, title):
    rows = study_rows(densities=densities, seeds=(0,), rounds=2, clients=2)
    (found,) = summary(rows)
    assert report._kept_figure(found, keeping(found, rows, None)).get("title") == title


def test_a_page_is_well_formed_with_headings_in_order_and_every_id_once(outline):
    assert outline.open == []
    assert outline.levels[0] == 1
    assert outline.levels.count(1) == 1
    assert all(after <= before + 1 for before, after in zip(outline.levels, outline.levels[1:], strict=False))
    assert len(outline.ids) == len(set(outline.ids))


def test_a_page_names_nothing_outside_itself(written):
    text = written[0].read_text(encoding="utf-8")
    own = text[: text.index('<script type="module">')]
    assert "default-src 'none'" in own
    assert not re.search(r"(?:src|href)=\"(?!#|data:)", own)
    assert "@import" not in own
    assert "url(" not in own


def test_the_page_shows_the_table_that_the_terminal_shows(outline):
    words = " ".join(outline.words)
    (table,) = tables.table(ROWS)
    for text in (*table.columns, *table.notes, *(cell for line in table.rows for cell in line)):
        assert text in words


def test_relative_energy_is_never_called_joules(outline):
    words = " ".join(outline.words).replace("joulewise", "").replace("is not in joules", "")
    assert not re.search(r"joule|\bm?J\b", words)
    assert "modelled, in relative units" in words


def test_the_page_tells_where_it_comes_from(outline):
    words = " ".join(outline.words)
    for fact in (
        "flwr 1.41.0",
        "0123456789abcdef",
        "Linux x86_64",
        "joulewise run s.toml",
        'name = "<quick> & start"',
    ):
        assert fact in words


def test_every_chart_has_its_place_and_every_switch_its_chart(written, outline):
    charts = charts_of(written[0])
    assert set(charts) == {"frontier-0", "curve-0-0", "split-0", "kept-0"}
    assert set(charts) <= set(outline.ids)
    assert list(charts["frontier-0"]) == [f"{axis} {scale}" for axis in page.AXES for scale in page.SCALES]
    for spec in (spec for variants in charts.values() for spec in variants.values()):
        assert spec["data"]["values"]
        assert all("data" not in layer for layer in spec.get("layer", ()))


def test_the_command_names_the_compute_that_rows_were_made_on():
    assert report.again(ROWS) == "joulewise run study.json --out again"
    origin = msgspec.structs.replace(ROWS[0].origin, machine="AMD EPYC, 16 cores, cuda")
    assert report.again([msgspec.structs.replace(ROWS[0], origin=origin)]).endswith(" --compute cuda")


def test_charts_show_the_numbers_of_the_summary(written):
    (found,) = report.summary(ROWS)
    points = charts_of(written[0])["frontier-0"]["energy linear"]["data"]["values"]
    scale = tables.energy_scale(found)
    assert (
        [point["Arm"] for point in points]
        == [arm.label for arm in found.arms]
        == ["Dense", "TopK", "CWMP", "Projection"]
    )
    for point, arm in zip(points, found.arms, strict=True):
        assert (point["accuracy"], point["low"], point["high"]) == (
            arm.accuracy.mean,
            arm.accuracy.low,
            arm.accuracy.high,
        )
        assert point["x"] * scale.divisor == pytest.approx(arm.energy.mean)
        assert point["frontier"] == arm.on_frontier


@pytest.mark.usefixtures("light")
def test_names_from_files_cannot_become_html_or_script(tmp_path):
    evil = "</script><script>alert(1)</script><img src=x onerror=alert(1)>\"'&${x}$title"
    rows = [msgspec.structs.replace(row, study=evil, arm=f"{row.rule} {evil}") for row in ROWS]
    path, *_ = report.write(rows, tmp_path, study_text=evil, command=evil)
    text = path.read_text(encoding="utf-8")
    assert "<script>alert" not in text
    assert "<img" not in text
    assert evil in " ".join(Outline(text).words)
    assert any(evil in point["Arm"] for point in charts_of(path)["frontier-0"]["energy linear"]["data"]["values"])


@pytest.mark.usefixtures("light")
def test_several_studies_share_a_page_with_a_part_for_each(tmp_path):
    other = study_rows("other", densities=(0.1,), seeds=(0,), rounds=2, unit="J")
    path, *_ = report.write((*ROWS, *other), tmp_path)
    outline = Outline(path.read_text(encoding="utf-8"))
    assert {"study-0", "study-1", "frontier-0", "frontier-1"} <= set(outline.ids)
    assert "2 studies: accuracy and energy" in outline.words
    assert len(outline.ids) == len(set(outline.ids))


@pytest.mark.usefixtures("light")
def test_one_seed_one_round_and_one_arm_make_a_report(tmp_path):
    rows = study_rows(rules=(), seeds=(4,), rounds=1, clients=1)
    path, *_ = report.write(rows, tmp_path)
    words = " ".join(Outline(path.read_text(encoding="utf-8")).words)
    assert "1 arm, 1 seed, 1 round and 1 client" in words
    assert "(one seed)" in words
    assert "nan" not in words.lower().split()


@pytest.mark.usefixtures("light")
def test_fewer_than_three_seeds_make_no_claim(tmp_path):
    path, *_ = report.write([row for row in ROWS if row.seed < 2], tmp_path)
    words = " ".join(Outline(path.read_text(encoding="utf-8")).words)
    assert "With fewer than 3 seeds no claim is made." in words
    assert "2 seeds: no claim is made" in words
    assert "no arm is called better than another" in words
    assert "cheaper" not in words
    assert "highest" not in words


@pytest.mark.usefixtures("light")
def test_arms_that_do_alike_are_named_together(tmp_path):
    alike = study_rows(densities=(0.1,), rules=("TopK",), rounds=20, dense=False)
    twins = [
        msgspec.structs.replace(
            row, rule="CWMP", arm=row.arm.replace("TopK", "CWMP"), settings=row.settings | {"rule": "CWMP"}
        )
        for row in alike
    ]
    path, *_ = report.write([*alike, *twins], tmp_path)
    words = " ".join(Outline(path.read_text(encoding="utf-8")).words)
    assert "of TopK; within its interval: CWMP." in words
    assert "percent in every seed is that of TopK, CWMP." in words
    assert "Every arm has: density=0.1." in words


@pytest.mark.usefixtures("light")
def test_an_arm_that_sends_nothing_leaves_no_logarithmic_axis(tmp_path):
    silent = [
        msgspec.structs.replace(
            row,
            clients=tuple(
                msgspec.structs.replace(client, charges=(), bytes_up=0, kept_by_tensor=(0,)) for client in row.clients
            ),
        )
        if row.rule == "CWMP"
        else row
        for row in ROWS
    ]
    path, *_ = report.write(silent, tmp_path)
    assert list(charts_of(path)["frontier-0"]) == [f"{axis} linear" for axis in page.AXES]
    assert "Logarithmic" not in path.read_text(encoding="utf-8")


def test_no_rows_and_a_folder_that_cannot_be_are_output_errors(tmp_path, light):
    with pytest.raises(OutputError, match="no rows"):
        report.write((), tmp_path)
    (tmp_path / "file").write_text("")
    with pytest.raises(OutputError, match="cannot write the report"):
        report.write(ROWS, tmp_path / "file")


def test_a_disk_that_fills_up_leaves_the_earlier_report_whole(tmp_path, light, monkeypatch):
    before = {path: path.read_bytes() for path in report.write(ROWS, tmp_path)}

    def full(file):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OutputError, match=r"No space left.*give another --out"):
        report.write(ROWS[:40], tmp_path)
    assert {path: path.read_bytes() for path in before} == before
    assert not list(tmp_path.rglob("*.tmp"))


@pytest.mark.parametrize("package", ["altair", "vl_convert"])
def test_a_missing_extra_is_told_with_the_line_that_installs_it(tmp_path, monkeypatch, package):
    report._bundle.cache_clear()
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(MissingExtra, match=r'pip install "joulewise\[report\]"'):
        report.write(ROWS, tmp_path)
    assert not (tmp_path / "report.html").exists()
