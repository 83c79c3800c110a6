"""Running a study: what a folder holds, and that a run that was stopped ends like one that was not."""

import json
import os
import signal
import subprocess
import sys
import threading
import time
from importlib.resources import files
from itertools import islice
from pathlib import Path

import msgspec
import numpy as np
import pytest
from fake_federation import federate

from joulewise import checkpoints, rowfile, task, workers
from joulewise.checkpoints import Pace
from joulewise.errors import DataError, FederationError, MissingExtra, OutputError
from joulewise.runs import rounds_of, run
from joulewise.study import load
from joulewise.workers import Failed

TESTS = Path(__file__).parent
STUDY = """
name = "small"
rounds = 4
seeds = [0, 1]
model = "mlp"
data = { name = "digits", clients = 2, partition = "IID" }
fleet = { devices = "synthetic-kind-10" }
[grid]
rule = ["TopK", "CWMP"]
density = 0.1
"""


@pytest.fixture
def study(tmp_path):
    (tmp_path / "small.toml").write_text(STUDY, encoding="utf-8")
    return load(tmp_path / "small.toml")


@pytest.fixture(autouse=True)
def _a_checkpoint_after_every_round(monkeypatch):
    monkeypatch.setattr(checkpoints, "SHARE", 1e9)


@pytest.fixture
def whole(study, tmp_path):
    """The rows of a run that was never stopped."""
    return list(run(study, tmp_path / "whole", federate=federate))


@pytest.fixture
def orders(monkeypatch):
    """Tell the fake federation, here and in worker processes, how to misbehave."""

    def _orders(**given):
        monkeypatch.setenv("FAKE_FEDERATION", json.dumps(given))

    return _orders


def timeless(rows):
    return [msgspec.structs.replace(row, timing=None) for row in rows]


def by_arm(rows):
    return sorted(timeless(rows), key=lambda row: (row.arm, row.seed, row.round))


# ---------------------------------------------------------------- a folder


def test_a_run_yields_each_row_that_it_writes_seed_by_seed(study, whole, tmp_path):
    assert list(rowfile.read(tmp_path / "whole")) == whole
    assert [(row.seed, row.arm, row.round) for row in whole] == [
        (seed, arm, number)
        for seed in (0, 1)
        for arm in ("TopK density=0.1", "CWMP density=0.1")
        for number in (1, 2, 3, 4)
    ]
    assert len(whole) == rounds_of(study)
    names = sorted(path.name for path in (tmp_path / "whole").iterdir())
    assert names == ["devices.json", "layout.json", "rows.jsonl", "study.json"]


def test_a_row_says_what_made_it(whole):
    row = whole[0]
    assert (row.study, row.rule, row.budget, row.energy_unit) == ("small", "TopK", "density=0.1", "relative")
    assert row.settings["amount"] == 0.1
    assert set(row.origin.versions) == {"flwr", "joulewise", "numpy", "python", "torch"}
    assert row.origin.threads == 1
    assert os.uname().nodename not in row.origin.machine
    assert row.timing.started.endswith("+00:00")


def test_the_study_in_the_folder_is_a_study_file_of_the_same_study(study, whole, tmp_path):
    assert load(tmp_path / "whole/study.json") == study


def test_a_finished_study_yields_its_rows_and_runs_nothing(study, whole, tmp_path, orders):
    orders(crash=1)
    content = (tmp_path / "whole/rows.jsonl").read_bytes()
    for resume in (False, True):
        assert list(run(study, tmp_path / "whole", federate=federate, resume=resume)) == whole
    assert (tmp_path / "whole/rows.jsonl").read_bytes() == content


def test_an_unfinished_study_is_not_touched_without_resume(study, tmp_path):
    rows = run(study, tmp_path / "x", federate=federate)
    list(islice(rows, 5))
    rows.close()
    content = (tmp_path / "x/rows.jsonl").read_bytes()
    with pytest.raises(OutputError, match="x holds 5 of 16 rows of this study; go on with --resume, or give another"):
        list(run(study, tmp_path / "x", federate=federate))
    assert (tmp_path / "x/rows.jsonl").read_bytes() == content


@pytest.mark.parametrize("resume", [False, True])
def test_a_folder_of_another_study_is_not_touched(study, whole, tmp_path, resume):
    other = msgspec.structs.replace(study, rounds=5)
    with pytest.raises(OutputError, match=r"holds another study: its rounds is 4, here it is 5; give another --out"):
        list(run(other, tmp_path / "whole", federate=federate, resume=resume))
    assert list(rowfile.read(tmp_path / "whole")) == whole


def test_a_folder_with_rows_of_nobody_knows_what_is_not_touched(study, whole, tmp_path):
    (tmp_path / "whole/study.json").unlink()
    with pytest.raises(OutputError, match=r"holds rows, but no study\.json that says of what; give another --out"):
        list(run(study, tmp_path / "whole", federate=federate, resume=True))
    assert list(rowfile.read(tmp_path / "whole")) == whole


def test_a_damaged_study_in_the_folder_is_named(study, whole, tmp_path):
    (tmp_path / "whole/study.json").write_text("{", encoding="utf-8")
    with pytest.raises(OutputError, match=r"its study\.json cannot be read .*; give another --out"):
        list(run(study, tmp_path / "whole", federate=federate))


def test_two_runs_do_not_share_a_folder(study, tmp_path):
    first = run(study, tmp_path / "x", federate=federate)
    next(first)
    with pytest.raises(OutputError, match=r"another run is writing to .*x; wait for its end, or give another --out"):
        list(run(study, tmp_path / "x", federate=federate, resume=True))
    first.close()
    assert len(list(run(study, tmp_path / "x", federate=federate, resume=True))) == 16


def test_a_folder_that_cannot_be_made_is_an_error(study, tmp_path):
    (tmp_path / "file").write_text("", encoding="utf-8")
    with pytest.raises(OutputError, match=r"cannot make output folder .*; give another --out"):
        list(run(study, tmp_path / "file/x", federate=federate))


# ---------------------------------------------------------------- going on


@pytest.mark.parametrize("stop_after", [1, 3, 4, 5, 10, 15])
def test_a_run_that_was_stopped_goes_on_to_the_same_rows_in_the_same_order(study, whole, tmp_path, stop_after):
    rows = run(study, tmp_path / "x", federate=federate)
    list(islice(rows, stop_after))
    rows.close()
    assert timeless(run(study, tmp_path / "x", federate=federate, resume=True)) == timeless(whole)
    assert timeless(rowfile.read(tmp_path / "x")) == timeless(whole)
    assert not (tmp_path / "x/checkpoints").exists()


def test_rows_after_the_checkpoint_are_made_again(study, whole, tmp_path, monkeypatch):
    monkeypatch.setattr(checkpoints, "SHARE", 1e-9)  # the first round alone leaves a checkpoint
    rows = run(study, tmp_path / "x", federate=federate)
    list(islice(rows, 3))
    rows.close()
    before = rowfile.read(tmp_path / "x")
    found = list(run(study, tmp_path / "x", federate=federate, resume=True))
    assert timeless(found) == timeless(whole)
    assert found[0] == before[0]
    assert found[1].timing.started > before[2].timing.started


def test_a_strategy_without_checkpoints_begins_its_arm_again_and_says_so(study, whole, tmp_path, orders, caplog):
    orders(blind=True)
    rows = run(study, tmp_path / "x", federate=federate)
    list(islice(rows, 6))
    rows.close()
    assert timeless(run(study, tmp_path / "x", federate=federate, resume=True)) == timeless(whole)
    assert caplog.messages == ["arm CWMP density=0.1, seed 0 has no checkpoint: it begins again at round 1"]


def test_a_finished_arm_keeps_no_checkpoint(study, tmp_path):
    rows = run(study, tmp_path / "x", federate=federate)
    list(islice(rows, 5))
    assert [path.name for path in (tmp_path / "x/checkpoints").iterdir()] == ["0001.npz"]
    rows.close()


@pytest.mark.parametrize("damage", [b"", b"PK\x03\x04 half a file", b"no archive"])
def test_a_damaged_checkpoint_is_no_checkpoint(study, whole, tmp_path, damage):
    rows = run(study, tmp_path / "x", federate=federate)
    list(islice(rows, 2))
    rows.close()
    (checkpoint,) = (tmp_path / "x/checkpoints").glob("*.npz")
    checkpoint.write_bytes(damage)
    assert timeless(run(study, tmp_path / "x", federate=federate, resume=True)) == timeless(whole)


def test_a_checkpoint_that_is_damaged_inside_is_named(study, tmp_path):
    rows = run(study, tmp_path / "x", federate=federate)
    list(islice(rows, 2))
    rows.close()
    (checkpoint,) = (tmp_path / "x/checkpoints").glob("*.npz")
    content = bytearray(checkpoint.read_bytes())
    place = content.index(b"model/state.npy") + 100  # in the data of the last array: its checksum does not fit
    content[place] ^= 1
    checkpoint.write_bytes(content)
    with pytest.raises(OutputError, match=r"checkpoint .*0000.npz is damaged; delete it, then go on with --resume"):
        list(run(study, tmp_path / "x", federate=federate, resume=True))
    assert len(rowfile.read(tmp_path / "x")) == checkpoints.round_of(checkpoint)


def test_a_checkpoint_whose_rows_are_gone_is_not_used(study, whole, tmp_path):
    rows = run(study, tmp_path / "x", federate=federate)
    list(islice(rows, 3))
    rows.close()
    assert rowfile.keep(tmp_path / "x/rows.jsonl", lambda row: row.round != 2) == 1
    assert timeless(run(study, tmp_path / "x", federate=federate, resume=True)) == timeless(whole)


def test_a_half_written_row_is_made_again(study, whole, tmp_path):
    rows = run(study, tmp_path / "x", federate=federate)
    list(islice(rows, 3))
    rows.close()
    path = tmp_path / "x/rows.jsonl"
    path.write_bytes(path.read_bytes()[:-20])
    assert timeless(run(study, tmp_path / "x", federate=federate, resume=True)) == timeless(whole)


SCRIPT = """
import sys
sys.path.insert(0, {tests!r})
from fake_federation import federate
from joulewise.runs import run
from joulewise.study import load
if __name__ == "__main__":
    for row in run(load("small.toml"), "x", federate=federate, jobs={jobs}):
        print(row.round, flush=True)
"""


@pytest.mark.parametrize("jobs", [1, 2])
def test_a_run_that_was_killed_goes_on_to_the_same_rows(study, whole, tmp_path, orders, jobs):
    orders(delay=0.05)
    script = tmp_path / "script.py"
    script.write_text(SCRIPT.format(tests=str(TESTS), jobs=jobs), encoding="utf-8")
    process = subprocess.Popen([sys.executable, script], cwd=tmp_path, stdout=subprocess.PIPE)
    assert process.stdout is not None
    for _ in range(6):
        assert process.stdout.readline()
    process.send_signal(signal.SIGKILL)
    process.wait()
    process.stdout.close()
    time.sleep(0.3)  # the workers notice at once
    left = len(rowfile.read(tmp_path / "x"))
    time.sleep(0.3)
    assert 6 <= left == len(rowfile.read(tmp_path / "x")) < 16
    orders()
    found = list(run(study, tmp_path / "x", federate=federate, resume=True))
    assert by_arm(found) == by_arm(whole)
    assert by_arm(rowfile.read(tmp_path / "x")) == by_arm(whole)


# ---------------------------------------------------------------- several processes


def test_several_processes_make_the_same_rows(study, whole, tmp_path):
    found = list(run(study, tmp_path / "x", federate=federate, jobs=2))
    assert by_arm(found) == by_arm(whole)
    assert list(rowfile.read(tmp_path / "x")) != []
    assert by_arm(rowfile.read(tmp_path / "x")) == by_arm(whole)
    assert not (tmp_path / "x/checkpoints").exists()


@pytest.mark.parametrize(
    "expected",
    [
        ("fail", DataError, "^the data is not there; give --set data.path=FOLDER"),
        (
            "die",
            FederationError,
            r"a worker process was killed \(exit code 9\), .* --resume and fewer --jobs",
        ),
    ],
)
def test_what_stops_a_worker_reaches_the_caller_and_the_rest_goes_on_later(study, whole, tmp_path, orders, expected):
    order, kind, message = expected
    orders(**{order: 3})
    with pytest.raises(kind, match=message):
        list(run(study, tmp_path / "x", federate=federate, jobs=2))
    orders()
    assert by_arm(run(study, tmp_path / "x", federate=federate, resume=True)) == by_arm(whole)


def test_an_exception_that_joulewise_does_not_know_is_named_with_its_traceback():
    error = workers._failure(Failed("ZeroDivisionError", "one by nought", "Traceback: ..."))
    assert isinstance(error, FederationError)
    assert str(error) == "a worker process failed with ZeroDivisionError: one by nought"
    assert error.__notes__ == ["Traceback: ..."]


def test_an_exception_with_other_arguments_keeps_its_sentence():
    sentence = str(MissingExtra("report", "a report"))
    error = workers._failure(Failed("MissingExtra", sentence, ""))
    assert isinstance(error, MissingExtra)
    assert str(error) == sentence


# ---------------------------------------------------------------- disks


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
def test_a_full_disk_is_one_sentence_and_loses_nothing(study, whole, tmp_path, monkeypatch):
    rows = run(study, tmp_path / "x", federate=federate)
    list(islice(rows, 6))
    write = os.write
    monkeypatch.setattr(os, "write", lambda file, data: write(file, data[: len(data) // 2]))
    with pytest.raises(OutputError, match="No space left on device"):
        next(rows)
    monkeypatch.undo()
    assert len(rowfile.read(tmp_path / "x")) == 6
    assert timeless(run(study, tmp_path / "x", federate=federate, resume=True)) == timeless(whole)


def test_a_checkpoint_that_cannot_be_written_leaves_the_last_one(tmp_path, monkeypatch):
    path = tmp_path / "a.npz"
    checkpoints.save(path, {"round": np.array(3)}, Pace())

    def full(*_args, **_kwargs):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(np, "savez", full)
    with pytest.raises(OutputError, match=r"cannot write checkpoint .*: No space left on device; .* --resume"):
        checkpoints.save(path, {"round": np.array(4)}, Pace())
    assert checkpoints.round_of(path) == 3
    assert list(tmp_path.iterdir()) == [path]


def test_a_checkpoint_comes_back_as_it_was_and_holds_no_objects(tmp_path):
    arrays = {"round": np.array(2), "client/0/residual": np.arange(3, dtype=np.float32)}
    path = tmp_path / "folder/a.npz"
    checkpoints.save(path, arrays, Pace())
    found = checkpoints.load(path)
    assert found is not None
    assert found.keys() == arrays.keys()
    assert all(np.array_equal(found[name], arrays[name]) for name in arrays)
    np.savez(path, round=np.array({"an": "object"}, dtype=object))
    assert checkpoints.round_of(path) == 0
    assert checkpoints.load(path) is None


def test_checkpoints_take_a_small_share_of_the_time(tmp_path, monkeypatch):
    monkeypatch.undo()
    clock = [0.0]
    monkeypatch.setattr(time, "monotonic", lambda: clock[0])
    spent = []

    def slow(*_args, **_kwargs):
        clock[0] += 2.0
        spent.append(2.0)

    monkeypatch.setattr(np, "savez", slow)
    pace = Pace()
    for _ in range(1000):
        clock[0] += 0.5  # a round
        pace = checkpoints.save(tmp_path / "a.npz", {}, pace)
    assert 0.8 * checkpoints.SHARE < sum(spent) / clock[0] <= 1.1 * checkpoints.SHARE <= 0.1


# ---------------------------------------------------------------- origin


def test_the_commit_is_known_only_where_joulewise_is_a_checkout(tmp_path):
    git = ["git", "-c", "user.name=a", "-c", "user.email=a@b", "-C", str(tmp_path)]
    subprocess.run([*git, "init", "-q"], check=True)
    package = tmp_path / "src/joulewise"
    package.mkdir(parents=True)
    (package / "__init__.py").write_text("", encoding="utf-8")
    (tmp_path / "theirs").write_text("", encoding="utf-8")
    subprocess.run([*git, "add", "theirs"], check=True)
    subprocess.run([*git, "commit", "-q", "-m", "theirs"], check=True)
    assert task._commit(package) is None  # not tracked: installed into somebody's repository
    subprocess.run([*git, "add", "."], check=True)
    subprocess.run([*git, "commit", "-q", "-m", "ours"], check=True)
    head = subprocess.run([*git, "rev-parse", "HEAD"], check=True, capture_output=True, text=True).stdout.strip()
    assert task._commit(package) == head
    (package / "__init__.py").write_text("1", encoding="utf-8")
    assert task._commit(package) == f"{head}-dirty"
    assert task._commit(tmp_path.parent / "nowhere") is None


# ---------------------------------------------------------------- for real


@pytest.mark.parametrize("feedback", ["true", "EF21"])
def test_a_real_study_resumes_to_the_same_rows_and_arms_do_not_touch_each_other(feedback, tmp_path):
    (tmp_path / "small.toml").write_text(STUDY, encoding="utf-8")
    changes = ["seeds=[0]", "rounds=3", "data.examples=100", f"compressor.feedback={feedback}", "model.hidden=[8]"]
    small = load(tmp_path / "small.toml", changes)
    whole = list(run(small, tmp_path / "whole"))
    rows = run(small, tmp_path / "x")
    list(islice(rows, 5))
    rows.close()
    assert timeless(run(small, tmp_path / "x", resume=True)) == timeless(whole)
    alone = load(tmp_path / "small.toml", [*changes, "grid.rule=CWMP"])
    assert timeless(run(alone, tmp_path / "alone")) == timeless(whole)[3:]


def test_a_device_file_that_was_edited_is_not_mixed_into_the_same_rows(tmp_path):
    source = files("joulewise") / "profiles" / "synthetic-kind-10.toml"
    device = tmp_path / "mine.toml"
    device.write_text(source.read_text().replace("synthetic-kind-10", "mine"))
    file = tmp_path / "study.toml"
    file.write_text(
        'name = "a"\nrounds = 2\nseeds = [0]\nmodel = "mlp"\n'
        '[data]\nname = "digits"\nclients = 2\npartition = "IID"\n'
        f'[fleet]\ndevices = "{device}"\n[grid]\nrule = ["TopK"]\ndensity = [0.1]\n'
    )
    started = run(load(file), tmp_path / "out", federate=federate)
    next(started)
    started.close()
    device.write_text(device.read_text().replace("value = 10", "value = 7000"))
    with pytest.raises(OutputError, match=r"the numbers of its devices, in devices\.json, differ"):
        list(run(load(file), tmp_path / "out", resume=True, federate=federate))


def test_the_order_of_the_devices_is_part_of_the_study(tmp_path):
    one, other = '"synthetic-kind-10" = 1', '"synthetic-residency-32" = 1'
    fleets = (f"{{ {one}, {other} }}", f"{{ {other}, {one} }}")
    studies = [tmp_path / "0.toml", tmp_path / "1.toml"]
    for study, fleet in zip(studies, fleets, strict=True):
        study.write_text(
            'name = "a"\nrounds = 2\nseeds = [0]\nmodel = "mlp"\n'
            '[data]\nname = "digits"\nclients = 2\npartition = "IID"\n'
            f'[fleet]\ndevices = {fleet}\n[grid]\nrule = ["TopK"]\ndensity = [0.1]\n'
        )
    started = run(load(studies[0]), tmp_path / "out", federate=federate)
    next(started)
    started.close()
    with pytest.raises(OutputError, match="holds another study: its fleet"):
        list(run(load(studies[1]), tmp_path / "out", resume=True, federate=federate))


@pytest.mark.parametrize("jobs", [1, 2])
def test_an_arm_that_diverges_leaves_the_others_to_finish(study, whole, tmp_path, orders, jobs):
    orders(diverge="CWMP")
    rows, running = [], run(study, tmp_path / "out", jobs=jobs, federate=federate)
    with pytest.raises(FederationError, match=r"2 of 4 runs diverged, first CWMP.*seed 0: round 3, client 1.*'w'"):
        rows.extend(running)
    expected = [row for row in whole if row.rule == "TopK" or row.round < 3]
    assert by_arm(rows) == by_arm(rowfile.read(tmp_path / "out")) == by_arm(expected)
    orders()
    assert by_arm(run(study, tmp_path / "out", resume=True, federate=federate)) == by_arm(whole)


@pytest.mark.skipif(sys.platform == "win32", reason="signals are not held back there")
def test_a_worker_that_starts_does_not_hear_ctrl_c_and_its_parent_hears_it_afterwards():
    code = "import signal; print(signal.SIGINT in signal.pthread_sigmask(signal.SIG_BLOCK, []))"
    heard = "nothing"
    with pytest.raises(KeyboardInterrupt), workers._interrupts_held():  # noqa: PT012 (the order is what is tested)
        # To this thread: a signal to the process may go to any thread that a library has started.
        signal.pthread_kill(threading.main_thread().ident, signal.SIGINT)
        heard = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.strip()
    assert heard == "True"
    assert signal.SIGINT not in signal.pthread_sigmask(signal.SIG_BLOCK, [])
