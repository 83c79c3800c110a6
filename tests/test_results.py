"""Rows go to a file and come back, whatever stops the process that writes them."""

from __future__ import annotations

import errno
import gzip
import math
import multiprocessing
import os
import stat
from pathlib import Path

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from synthetic_rows import study_rows

from joulewise import results, rowfile
from joulewise.errors import CostError, OutputError
from joulewise.ledger import Charge
from joulewise.results import ServerResult

ROWS = study_rows(densities=(0.1,), seeds=(0,), rounds=2, clients=2)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "out" / "rows.jsonl"


def write(path: Path, rows=ROWS) -> None:
    for row in rows:
        rowfile.append(path, row)


finite = st.floats(allow_nan=False, allow_infinity=False)
text = st.text(st.characters(exclude_categories=["Cs"]), max_size=8)
setting = st.none() | st.booleans() | st.integers(-(2**53), 2**53) | finite | text
rows = st.builds(
    lambda name, values, number, energy: msgspec.structs.replace(
        ROWS[0],
        study=name,
        settings=values,
        server=ServerResult(number, number),
        clients=(msgspec.structs.replace(ROWS[0].clients[0], charges=(Charge("kept", energy, "J", "modelled"),)),),
    ),
    text,
    st.dictionaries(text, setting, max_size=3),
    finite,
    finite,
)


@settings(max_examples=50, deadline=None)
@given(written=st.lists(rows, min_size=1, max_size=4), cut=st.integers(0, 10**6))
def test_rows_come_back_as_written_and_a_cut_anywhere_loses_only_the_lines_it_reaches(tmp_path_factory, written, cut):
    path = tmp_path_factory.mktemp("rows") / "rows.jsonl"
    write(path, written)
    content = path.read_bytes()
    assert rowfile.read(path) == tuple(written)

    path.write_bytes(content[: cut % len(content)])
    whole = content[: cut % len(content)].count(b"\n")
    assert rowfile.read(path) == tuple(written[:whole])

    write(path, written[whole:])
    assert path.read_bytes() == content


def test_a_folder_is_read_through_its_row_file(path):
    write(path)
    assert rowfile.read(path.parent) == ROWS == rowfile.read(str(path))


def test_a_line_is_one_write(path, monkeypatch):
    writes = []
    real = os.write
    monkeypatch.setattr(os, "write", lambda file, line: writes.append(line) or real(file, line))
    rowfile.append(path, ROWS[0])
    assert len(writes) == 1
    assert writes[0].endswith(b"\n")
    assert writes[0].count(b"\n") == 1


@pytest.mark.parametrize("written", [0, 1, 57])
def test_a_full_disk_is_told_and_leaves_whole_rows_only(path, monkeypatch, written):
    rowfile.append(path, ROWS[0])
    before = path.read_bytes()
    real = os.write

    def full(file: int, line: bytes) -> int:
        if written == 0:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return real(file, line[:written])

    monkeypatch.setattr(os, "write", full)
    with pytest.raises(OutputError, match="No space left on device"):
        rowfile.append(path, ROWS[1])
    assert path.read_bytes() == before


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="this system has no /dev/full")
def test_a_device_that_takes_nothing_is_an_output_error():
    with pytest.raises(OutputError, match="/dev/full"):
        rowfile.append("/dev/full", ROWS[0])


def test_a_half_written_tail_of_any_length_is_cut_off(path):
    write(path)
    whole = path.read_bytes()
    for tail in (b"{", b"\0" * 100, whole.splitlines()[0], b"x" * 200_000):
        path.write_bytes(whole + tail)
        rowfile.keep(path, lambda row: True)
        assert path.read_bytes() == whole
    path.write_bytes(b"x" * 200_000)
    rowfile.keep(path, lambda row: True)
    assert path.read_bytes() == b""


def test_keeping_rows_of_a_missing_file_makes_none(path):
    assert rowfile.keep(path, lambda row: False) == 0
    assert not path.exists()


@pytest.mark.parametrize(
    "line",
    [
        b"",
        b"{}",
        b"not json",
        b"\xff",
        b"[1]",
        b'{"schema":2}',
        msgspec.json.encode(ROWS[0]).replace(b'"seed":0', b'"seed":"0"'),
    ],
)
def test_a_bad_line_is_named_by_its_number(path, line):
    write(path)
    lines = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(lines[0] + line + b"\n" + lines[1])
    with pytest.raises(OutputError, match=r"rows\.jsonl, line 2 "):
        rowfile.read(path)
    with pytest.raises(OutputError, match=r"rows\.jsonl, line 2 "):
        rowfile.keep(path, lambda row: True)


def test_a_missing_file_is_an_output_error(path):
    with pytest.raises(OutputError, match=r"cannot read row file .*rows\.jsonl: No such file"):
        rowfile.read(path)


def test_keep_drops_rows_and_leaves_every_other_byte_link_and_mode(path, tmp_path):
    write(path)
    lines = path.read_bytes().splitlines(keepends=True)
    path.chmod(0o640)
    link = tmp_path / "link.jsonl"
    link.symlink_to(path)

    dropped = rowfile.keep(link, lambda row: row.round == 1)

    assert dropped == sum(row.round != 1 for row in ROWS)
    assert path.read_bytes() == b"".join(line for line, row in zip(lines, ROWS, strict=True) if row.round == 1)
    assert link.is_symlink()
    assert stat.S_IMODE(path.stat().st_mode) == 0o640
    assert [entry.name for entry in path.parent.iterdir()] == ["rows.jsonl"]


def test_keep_that_fails_leaves_the_file_as_it_was(path, monkeypatch):
    write(path)
    before = path.read_bytes()
    monkeypatch.setattr(Path, "replace", lambda *_: (_ for _ in ()).throw(OSError(errno.EACCES, "Permission denied")))
    with pytest.raises(OutputError, match="Permission denied"):
        rowfile.keep(path, lambda row: False)
    assert path.read_bytes() == before
    assert [entry.name for entry in path.parent.iterdir()] == ["rows.jsonl"]


@pytest.mark.parametrize("number", [math.nan, math.inf, -math.inf])
def test_a_row_with_a_number_that_is_not_finite_is_refused_and_a_loss_becomes_none(path, number):
    bad = msgspec.structs.replace(ROWS[0], server=ServerResult(number, 0.1))
    with pytest.raises(OutputError, match="arm 'Dense', seed 0, round 1"):
        rowfile.append(path, bad)
    diverged = msgspec.structs.replace(ROWS[0], server=ServerResult(0.1, number))
    rowfile.append(path, diverged)
    assert rowfile.read(path) == (diverged,)
    assert diverged.server.loss is None


def test_energy_of_a_row_is_the_uplink_and_the_downlink_apart():
    clients = tuple(
        msgspec.structs.replace(
            ROWS[0].clients[0],
            charges=tuple(
                Charge(term, energy, "J", "modelled")
                for term, energy in [
                    ("header", 1.0),
                    ("kept", 2.0),
                    ("whole", 4.0),
                    ("fixed", 8.0),
                    ("downlink", 16.0),
                    ("meter", 32.0),
                ]
            ),
        )
        for _ in range(2)
    )
    row = msgspec.structs.replace(ROWS[0], clients=clients)
    assert results.uplink_energy(row) == 30.0
    assert results.downlink_energy(row) == 32.0
    assert results.uplink_energy(msgspec.structs.replace(row, clients=())) == 0.0


def test_energy_of_mixed_units_is_an_error():
    charges = (Charge("kept", 1.0, "J", "modelled"), Charge("header", 1.0, "relative", "modelled"))
    client = msgspec.structs.replace(ROWS[0].clients[0], charges=charges)
    with pytest.raises(CostError):
        results.uplink_energy(msgspec.structs.replace(ROWS[0], clients=(client,)))


def _append_many(path: Path, worker: int) -> None:
    for number in range(25):
        rowfile.append(path, msgspec.structs.replace(ROWS[0], seed=worker, round=number))
        if worker == 0 and number % 5 == 0:
            rowfile.append(path, msgspec.structs.replace(ROWS[0], round=1000))
            rowfile.keep(path, lambda row: row.round < 1000)  # replaces the file under the other two


@pytest.mark.skipif("fork" not in multiprocessing.get_all_start_methods(), reason="this system cannot fork")
@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")  # the children only write to files
def test_processes_that_write_to_one_file_lose_nothing_while_it_is_replaced(path):
    context = multiprocessing.get_context("fork")
    writers = [context.Process(target=_append_many, args=(path, worker)) for worker in range(3)]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join(60)
    found = sorted((row.seed, row.round) for row in rowfile.read(path))
    assert found == [(worker, number) for worker in range(3) for number in range(25)]


def test_rows_that_were_compressed_are_read_as_they_were(path):
    for row in ROWS:
        rowfile.append(path, row)
    compressed = path.with_name("rows.jsonl.gz")
    compressed.write_bytes(gzip.compress(path.read_bytes()))
    assert rowfile.read(compressed) == ROWS
    path.unlink()
    assert rowfile.read(path.parent) == ROWS


@pytest.mark.parametrize("damage", [lambda whole: whole[:40], lambda whole: whole[:20] + b"x" * 40])
def test_compressed_rows_that_are_damaged_are_an_error(tmp_path, damage):
    compressed = tmp_path / "rows.jsonl.gz"
    compressed.write_bytes(damage(gzip.compress(os.urandom(1000) + b"\n")))
    with pytest.raises(OutputError, match=r"cannot read row file .*rows\.jsonl\.gz"):
        rowfile.read(compressed)
