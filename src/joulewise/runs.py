"""Run a study: every arm with every seed, rows as they come; a run that was stopped goes on where it was."""

from __future__ import annotations

import contextlib
import logging
import os
import shutil
import sys
from collections.abc import Generator, Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import msgspec

from joulewise import checkpoints, choosing, metering, pricefile, questions, rowfile, workers
from joulewise.background import DEVICES_FILE, STUDY_FILE
from joulewise.devices import describe, load_device
from joulewise.errors import FederationError, OutputError
from joulewise.flower.app import Compute, Engine
from joulewise.flower.app import federate as federate_with_flower
from joulewise.meters import Meter
from joulewise.pricelist import price_list
from joulewise.questions import Questions
from joulewise.results import Row
from joulewise.study import Study, expand, questions_of
from joulewise.task import Diverged, Federate, Setup, Task, origin_of, perform
from joulewise.wholefile import replacing

_log = logging.getLogger(__name__)


def run(  # noqa: PLR0913 (each is an option of the command)
    study: Study,
    out: str | Path,
    *,
    engine: Engine = "inprocess",
    compute: Compute = "cpu",
    jobs: int = 1,
    resume: bool = False,
    federate: Federate = federate_with_flower,
    meters: Sequence[Meter] = (),
) -> Generator[Row, None, None]:
    """Run a study and yield its rows: first those that the folder holds, then each new one once written.

    A folder holds ``study.json``, ``devices.json``, ``layout.json``, ``rows.jsonl``, ``analysis.json`` where the study
    names what it is to find out and, while the study is not finished, ``checkpoints/``. With `resume`, each arm and
    seed goes on after its last checkpoint; the rows are those of a run that was never stopped, apart from their
    ``timing`` and what meters measured. A finished study yields its rows and does nothing else. Where arms are chosen
    on selection seeds, all arms run with these first, and with the others those that were chosen.

    Args:
        study: what to run.
        out: the folder; made when missing.
        engine: ``inprocess``, or Flower's simulation on ``ray``.
        compute: ``cpu`` or ``cuda``.
        jobs: processes, each with one arm and seed at a time; they are spawned, so that with more than one a
            script needs ``if __name__ == "__main__":``.
        resume: go on with an unfinished study.
        federate: what runs one arm with one seed.
        meters: what measures this machine: each round, into its row; with several processes the whole run, into
            ``meters.json``, for counters cannot tell processes apart.

    Raises:
        OutputError: the folder holds another study, or an unfinished one without `resume`; it is in use, or
            cannot be written.
        StudyError: the study is wrong.
        FederationError: a federation cannot go on; or, once all others are finished, that training diverged.
    """
    tasks = _tasks(study)
    folder = Path(out)
    with _locked(folder):
        _claim(folder, study)
        origin = origin_of(study.training.threads, compute)
        setup = Setup(study.name, folder, engine, compute, federate, origin, tuple(meters))
        asked = questions_of(study)
        left, kept = _prepare(tasks, setup, None if resume else rounds_of(study), asked)
        if left and any(row.origin != origin for row in kept):
            _log.warning(
                "%s: its rows come from another version, commit or machine; bits may differ from here on", folder
            )
        yield from kept
        attempted, diverged = 0, list[Diverged]()
        for stage in _stages(left, setup, asked):
            attempted += len(stage)
            diverged += yield from _run_stage(stage, setup, jobs)
        if diverged:
            raise _divergence(diverged, attempted, folder)
        shutil.rmtree(folder / "checkpoints", ignore_errors=True)


def _stages(left: Sequence[Task], setup: Setup, asked: Questions | None) -> Iterator[list[Task]]:
    """The tasks of the selection seeds; once these are done, those of the arms that were chosen."""
    if asked is None or not asked.selection_seeds:
        yield list(left)
        return
    yield [task for task in left if task.seed in asked.selection_seeds]
    yield _reported(left, rowfile.read(setup.rows), asked)


def _reported(left: Sequence[Task], rows: Sequence[Row], asked: Questions) -> list[Task]:
    dropped = choosing.dropped(rows, asked)
    return [task for task in left if task.seed not in asked.selection_seeds and task.arm.name not in dropped]


def _run_stage(tasks: Sequence[Task], setup: Setup, jobs: int) -> Generator[Row, None, list[Diverged]]:
    diverged = []
    with contextlib.closing(_performed(tasks, setup, jobs)) as items:  # No worker outlives a run that was stopped.
        for item in items:
            if isinstance(item, Diverged):
                diverged.append(item)
            else:
                yield item
    return diverged


def _performed(tasks: Sequence[Task], setup: Setup, jobs: int) -> Generator[Row | Diverged, None, None]:
    if jobs > 1 and len(tasks) > 1:
        items = workers.perform_all(tasks, replace(setup, meters=()), jobs)
        return metering.metered(items, setup.meters, setup.out, jobs)
    return (item for task in tasks for item in perform(task, setup))


def _divergence(diverged: Sequence[Diverged], tasks: int, folder: Path) -> FederationError:
    first = diverged[0]
    return FederationError(
        f"{len(diverged)} of {tasks} runs diverged, first {first.arm}, seed {first.seed}: {first.reason}; all others "
        f"are finished: joulewise report {folder} shows them"
    )


def rounds_of(study: Study) -> int:
    """Number of rows of a finished study, in which no training diverges."""
    asked = questions_of(study)
    if asked is None or not asked.selection_seeds:
        return len(_tasks(study)) * study.rounds
    arms = sum(len(group) for group in asked.groups)
    return (arms * len(asked.selection_seeds) + len(asked.groups) * len(asked.seeds)) * study.rounds


def _tasks(study: Study) -> tuple[Task, ...]:
    # Seed by seed, so that the arms of an unfinished study can be compared.
    pairs = [(arm, seed) for seed in study.every_seed for arm in expand(study)]
    return tuple(Task(arm, seed, number) for number, (arm, seed) in enumerate(pairs))


# ---------------------------------------------------------------- the folder


@contextlib.contextmanager
def _locked(folder: Path) -> Iterator[None]:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        advice = "give another --out"
        raise OutputError(f"cannot make output folder {folder}: {error.strerror}; {advice}") from None
    if sys.platform == "win32":
        yield
        return
    import fcntl  # noqa: PLC0415 (not there on Windows)

    handle = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(handle)
        raise OutputError(f"another run is writing to {folder}; wait for its end, or give another --out") from None
    try:
        yield
    finally:
        os.close(handle)


def _claim(folder: Path, study: Study) -> None:
    path, rows = folder / STUDY_FILE, folder / rowfile.FILE_NAME
    # A run that failed before its first row has left nothing behind that another study could spoil.
    if not path.exists() or not rows.exists():
        if rows.exists():
            raise OutputError(f"{folder} holds rows, but no {STUDY_FILE} that says of what; give another --out")
        _write(folder / DEVICES_FILE, _numbers(study))
        _write(folder / pricefile.FILE_NAME, pricefile.encoded(price_list(study)))
        _write(path, msgspec.json.format(msgspec.json.encode(study), indent=2) + b"\n")
        _write_questions(folder, study)
        return
    difference = _difference(path, study)
    if not difference and _numbers(study) != _bytes(folder / DEVICES_FILE):
        difference = f"the numbers of its devices, in {DEVICES_FILE}, differ"
    if difference:
        raise OutputError(
            f"{folder} holds another study: {difference}; give another --out, "
            "or for --resume the file and --set of the first run"
        )
    _write_questions(folder, study)


def _write_questions(folder: Path, study: Study) -> None:
    """What the report answers, in the names of the arms: it is there before the first row."""
    found = questions_of(study)
    if found is not None:
        _write(folder / questions.FILE_NAME, questions.text(found))


def _difference(path: Path, study: Study) -> str:
    try:
        found = msgspec.json.decode(path.read_bytes(), type=Study)
    except (OSError, ValueError, msgspec.MsgspecError) as error:
        return f"its {path.name} cannot be read ({error})"
    for name in study.__struct_fields__:
        theirs, ours = getattr(found, name), getattr(study, name)
        # As text: the order of the devices, too, is the study's, and equal dictionaries may differ in it.
        texts = [msgspec.json.encode(value).decode() for value in (theirs, ours)]
        if texts[0] != texts[1]:
            brief = len(texts[0]) + len(texts[1]) <= 120
            return f"its {name} is {texts[0]}, here it is {texts[1]}" if brief else f"its {name} differs"
    return ""


def _numbers(study: Study) -> bytes:
    """Every number of every device: a file that is edited between two parts of a run would mix prices."""
    names = sorted({name for arm in expand(study) for name in arm.devices})
    numbers = {name: describe(load_device(name)) for name in names}
    return msgspec.json.format(msgspec.json.encode(numbers), indent=2) + b"\n"


def _bytes(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError:
        return b""


def _write(path: Path, content: bytes) -> None:
    try:
        with replacing(path) as file:
            file.write(content)
    except OSError as error:
        raise OutputError(f"cannot write {path}: {error.strerror}; mend that or give another --out") from None


# ---------------------------------------------------------------- going on


def _prepare(
    tasks: Sequence[Task], setup: Setup, expected: int | None, asked: Questions | None
) -> tuple[list[Task], list[Row]]:
    """The tasks that are not finished, chosen or not, and the rows of all others and of what can go on.

    With a number of `expected` rows the folder must hold all of them, or none.
    """
    rows = rowfile.read(setup.rows) if setup.rows.exists() else ()
    made = _rounds(tasks, rows, setup.out)
    finished = {key for key, rounds in made.items() if rounds == list(range(1, tasks[0].arm.rounds + 1))}
    missing = [task for task in tasks if _key(task) not in finished]
    if rows and expected is not None and _wanted(missing, rows, asked):
        raise OutputError(
            f"{setup.out} holds {len(rows)} of {expected} rows of this study; go on with --resume, or give another "
            "--out"
        )
    left = [_going_on(task, made[_key(task)], setup.out) for task in missing]
    last = {_key(task): task.done for task in left}
    if rows:
        rowfile.keep(setup.rows, lambda row: row.round <= last.get((row.arm, row.seed), row.round))
    return left, [row for row in rows if row.round <= last.get((row.arm, row.seed), row.round)]


def _wanted(missing: Sequence[Task], rows: Sequence[Row], asked: Questions | None) -> bool:
    """Whether there is anything to do yet: arms that were not chosen need nothing but the selection seeds."""
    if asked is None or not asked.selection_seeds:
        return bool(missing)
    return any(task.seed in asked.selection_seeds for task in missing) or bool(_reported(missing, rows, asked))


def _key(task: Task) -> tuple[str, int]:
    return task.arm.name, task.seed


def _rounds(tasks: Sequence[Task], rows: Sequence[Row], out: Path) -> dict[tuple[str, int], list[int]]:
    made: dict[tuple[str, int], list[int]] = {_key(task): [] for task in tasks}
    for row in rows:
        if (row.arm, row.seed) not in made:
            raise OutputError(
                f"{out} holds a row of arm {row.arm!r} with seed {row.seed}, which this study does not have; "
                "give another --out"
            )
        made[row.arm, row.seed].append(row.round)
    return made


def _going_on(task: Task, rounds: Sequence[int], out: Path) -> Task:
    done = checkpoints.round_of(task.checkpoint(out))
    if done and list(rounds)[:done] == list(range(1, done + 1)) and len(rounds) < task.arm.rounds:
        return replace(task, done=done)
    if rounds:
        _log.warning("arm %s, seed %d has no checkpoint: it begins again at round 1", task.arm.name, task.seed)
    return task
