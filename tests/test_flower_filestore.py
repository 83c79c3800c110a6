"""States in files: whole or not at all, whatever happens."""

import errno
import os
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
from flwr.app import Context, RecordDict

from joulewise.compress import ClientState
from joulewise.errors import StateError
from joulewise.flower import FileStore

N = 20_000


def context(node=7, run=1):
    return Context(run_id=run, node_id=node, node_config={}, state=RecordDict(), run_config={})


def state(sequence, run=1):
    return ClientState(np.full(N, sequence, np.float32), bytes([sequence % 256]) * 100, sequence, run, 2**64 - 3)


def same(found, expected):
    return (
        (found.residual is None) == (expected.residual is None)
        and (found.residual is None or np.array_equal(found.residual, expected.residual))
        and found.pending == expected.pending
        and (found.sequence, found.run_id, found.fingerprint)
        == (expected.sequence, expected.run_id, expected.fingerprint)
    )


@pytest.mark.parametrize("kept", [state(3, 2**63 + 5), ClientState(sequence=9), ClientState(pending=b"", sequence=1)])
def test_a_state_comes_back_as_it_was_in_another_process_too(tmp_path, kept):
    where = context(node=2**64 - 1, run=2**63 + 5)
    FileStore(tmp_path / "new" / "folder").save(where, kept)
    found = FileStore(str(tmp_path / "new" / "folder")).load(where)
    assert same(found, kept)


def test_nodes_and_runs_are_kept_apart_and_older_runs_are_removed(tmp_path):
    store = FileStore(tmp_path, runs=2)
    for run in (1, 2, 3):
        store.save(context(run=run), state(run, run))
        store.save(context(node=77, run=run), state(run + 10, run))
        time.sleep(0.01)
    assert store.load(context(run=1)) is None
    assert [store.load(context(run=run)).sequence for run in (2, 3)] == [2, 3]
    assert [store.load(context(node=77, run=run)).sequence for run in (2, 3)] == [12, 13]
    assert store.load(context(node=8)) is None
    assert len(list(tmp_path.iterdir())) == 4


def test_the_size_is_what_the_docstring_says(tmp_path):
    FileStore(tmp_path).save(context(), state(1))
    (path,) = tmp_path.iterdir()
    assert 4 * N + 100 < path.stat().st_size < 4 * N + 100 + 1500


def test_any_damage_counts_as_lost_and_is_told(tmp_path, caplog):
    store, rng = FileStore(tmp_path), np.random.default_rng(0)
    store.save(context(), state(1))
    (path,) = tmp_path.iterdir()
    whole = path.read_bytes()
    lost = 0
    for place in rng.integers(0, len(whole), 200):
        flipped = bytearray(whole)
        flipped[place] ^= 1 << rng.integers(8)
        path.write_bytes(flipped)
        found = store.load(context())
        lost += found is None
        assert found is None or same(found, state(1))  # Some bytes of the archive mean nothing.
    assert lost > 190
    for length in (0, 1, 100, len(whole) // 2, len(whole) - 1):
        path.write_bytes(whole[:length])
        caplog.clear()
        assert store.load(context()) is None
        assert "damaged" in caplog.text
        assert "node 7" in caplog.text


def test_a_full_disk_leaves_the_state_before_and_says_that_no_reply_is_sent(tmp_path, monkeypatch):
    store = FileStore(tmp_path)
    store.save(context(), state(1))

    def full(file):
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", full)
        with pytest.raises(StateError, match=r"No space left on device; mend that, this node's reply is not sent"):
            store.save(context(), state(2))
    assert same(store.load(context()), state(1))
    assert len(list(tmp_path.iterdir())) == 1


def test_a_folder_that_is_a_file_is_one_sentence(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(StateError, match="cannot write the state"):
        FileStore(tmp_path / "file").save(context(), state(1))
    with pytest.raises(StateError, match="cannot read the state"):
        FileStore(tmp_path / "file").load(context())
    with pytest.raises(StateError, match=r"runs=0"):
        FileStore(tmp_path, runs=0)


WRITER = """
import sys
sys.path.insert(0, {tests!r})
from test_flower_filestore import FileStore, context, state
store, sequence = FileStore({folder!r}), 1
while True:
    store.save(context(), state(sequence))
    print(sequence, flush=True)
    sequence += 1
"""


def test_kill_9_while_it_is_written_leaves_the_last_state_or_the_next(tmp_path):
    script = WRITER.format(tests=os.path.dirname(__file__), folder=str(tmp_path))  # noqa: PTH120 (a string is wanted)
    writer = subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, text=True)
    try:
        for _ in range(50):
            assert writer.stdout.readline()
        os.kill(writer.pid, signal.SIGKILL)
        told = [int(line) for line in writer.stdout.read().split()]
    finally:
        writer.kill()
        writer.wait()
        writer.stdout.close()
    found = FileStore(tmp_path).load(context())
    last = max([50, *told])
    assert found.sequence in (last, last + 1)
    assert same(found, state(found.sequence))
