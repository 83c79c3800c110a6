"""One arm with one seed: federate, write each row, and leave a checkpoint to go on from."""

from __future__ import annotations

import contextlib
import os
import platform
import subprocess
from collections.abc import Generator, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from importlib import metadata
from pathlib import Path
from typing import Protocol

import msgspec

import joulewise
from joulewise import checkpoints, labels, rowfile
from joulewise.errors import OutputError, UpdateError
from joulewise.flower.app import Arm, Arrays, Compute, Engine, RoundOutcome
from joulewise.meters import Meter, Reading, noted
from joulewise.results import SET_UP, Origin, Row, Timing
from joulewise.rules import budget_text


class Federate(Protocol):
    """What runs an arm with a seed and yields its rounds: `joulewise.flower.app.federate`."""

    def __call__(
        self, arm: Arm, seed: int, *, engine: Engine, compute: Compute, resume: Arrays | None = None
    ) -> Generator[RoundOutcome, None, None]:
        """Yield the rounds after the one that `resume` was made in, or all of them."""


@dataclass(frozen=True, slots=True)
class Setup:
    """What all tasks of a run share.

    Args:
        study: name of the study.
        out: folder of the rows and checkpoints.
        engine: where the clients live.
        compute: what they train on.
        federate: what runs an arm.
        origin: what makes the rows.
        meters: what measures each round of a task; empty where several tasks run at once.
    """

    study: str
    out: Path
    engine: Engine
    compute: Compute
    federate: Federate
    origin: Origin
    meters: tuple[Meter, ...] = ()

    @property
    def rows(self) -> Path:
        """The row file."""
        return self.out / rowfile.FILE_NAME


@dataclass(frozen=True, slots=True)
class Task:
    """One arm with one seed.

    Args:
        arm: what to run.
        seed: its seed.
        number: of the task in its study, which names its checkpoint.
        done: rounds that are finished already and have a checkpoint.
    """

    arm: Arm
    seed: int
    number: int
    done: int = 0

    def checkpoint(self, out: Path) -> Path:
        """Where the checkpoint is kept while the task is not finished."""
        return out / "checkpoints" / f"{self.number:04d}.npz"


class Diverged(msgspec.Struct, frozen=True, tag=True):
    """A task that ended early because an update was NaN or infinite; other tasks are not concerned."""

    arm: str
    seed: int
    reason: str


def perform(task: Task, setup: Setup) -> Iterator[Row | Diverged]:
    """Run a task, from its checkpoint if it has one; yield each row once it is written.

    A row is written before its checkpoint, so that a checkpoint never knows of a round whose row is missing. The
    meters' windows are open while the federation works on a round, and closed while the row is written. The last
    item says so when training diverged.

    Raises:
        OutputError: a row or a checkpoint cannot be written.
    """
    try:
        yield from _rounds(task, setup)
    except UpdateError as error:
        yield Diverged(task.arm.name, task.seed, str(error))


def _rounds(task: Task, setup: Setup) -> Iterator[Row]:
    path = task.checkpoint(setup.out)
    resume = checkpoints.load(path) if task.done else None
    if task.done and resume is None:
        raise OutputError(f"checkpoint {path} is damaged; delete it, then go on with --resume")
    outcomes = setup.federate(task.arm, task.seed, engine=setup.engine, compute=setup.compute, resume=resume)
    pace = checkpoints.Pace()
    with contextlib.closing(outcomes):  # An engine stops at once when a row cannot be written.
        for outcome, measured in _metered(outcomes, setup.meters):
            row = _row(task, setup, outcome, measured)
            rowfile.append(setup.rows, row)
            if outcome.round == task.arm.rounds:
                path.unlink(missing_ok=True)
            elif outcome.checkpoint is not None:
                pace = checkpoints.save(path, outcome.checkpoint, pace)
            yield row


def _metered(
    outcomes: Iterator[RoundOutcome], meters: tuple[Meter, ...]
) -> Iterator[tuple[RoundOutcome, tuple[Reading, ...]]]:
    note = SET_UP
    while True:
        marks = [(meter, meter.begin()) for meter in meters]
        try:
            outcome = next(outcomes, None)
        finally:
            readings = tuple(noted(meter.end(mark), note) for meter, mark in marks)
        if outcome is None:
            return
        yield outcome, readings
        note = ""


def _row(task: Task, setup: Setup, outcome: RoundOutcome, measured: tuple[Reading, ...]) -> Row:
    started = datetime.now(UTC) - timedelta(seconds=outcome.seconds)
    return Row(
        study=setup.study,
        arm=task.arm.name,
        rule=type(task.arm.compressor.rule).__name__,
        budget=budget_text(task.arm.compressor.budget),
        settings=labels.settings(task.arm),
        seed=task.seed,
        round=outcome.round,
        server=outcome.server,
        clients=outcome.clients,
        skipped=outcome.skipped or msgspec.UNSET,
        all_clients=outcome.all_clients or msgspec.UNSET,
        energy_unit=outcome.energy_unit,
        origin=setup.origin,
        timing=Timing(seconds=outcome.seconds, started=started.isoformat(timespec="milliseconds")),
        measured=measured or msgspec.UNSET,
    )


# ---------------------------------------------------------------- origin


def origin_of(threads: int, compute: Compute = "cpu") -> Origin:
    """What makes rows here: versions, commit of joulewise, processor; no name of a machine or a user.

    Example:
        >>> sorted(origin_of(threads=1).versions)
        ['flwr', 'joulewise', 'numpy', 'python', 'torch']
    """
    packages = {name: _version(name) for name in ("flwr", "numpy", "torch")}
    versions = {"joulewise": joulewise.__version__, "python": platform.python_version(), **packages}
    with_gpu = "" if compute == "cpu" else f", {compute}"
    return Origin(
        versions=versions,
        commit=_commit(Path(joulewise.__file__).parent),
        machine=f"{_processor()}, {os.cpu_count()} cores{with_gpu}",
        threads=threads,
    )


def _version(package: str) -> str:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return "none"


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        lines = []
    names = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(names, "") or platform.processor() or platform.machine() or "unknown processor"


def _commit(package: Path) -> str | None:
    # None when joulewise was installed, even into somebody else's repository.
    if _git(package, "ls-files", "--error-unmatch", "__init__.py") is None:
        return None
    return _git(package, "describe", "--always", "--dirty", "--abbrev=40", "--exclude=*")


def _git(folder: Path, *arguments: str) -> str | None:
    try:
        done = subprocess.run(
            ["git", "-C", str(folder), *arguments], capture_output=True, text=True, timeout=10, check=True
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.strip() or None
