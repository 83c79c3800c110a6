"""Rows: one line of JSON for each finished round of an arm and seed, and the file that holds them.

A row file survives whatever stops a run. Lines are written in one piece under a lock, so that several
processes may write to one file; a line that a kill or a full disk cut short is dropped when the file is read,
and cut off before the next row is written.
"""

from __future__ import annotations

import contextlib
import errno
import math
import os
import shutil
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Literal

import msgspec

from joulewise.devices import Unit
from joulewise.errors import OutputError
from joulewise.ledger import DOWNLINK_TERM, UPLINK_TERMS, Charge, total
from joulewise.meters import Reading

if sys.platform != "win32":  # without file locks, one process at a time may write to a row file
    import fcntl

FILE_NAME = "rows.jsonl"
SET_UP = "this window also holds setting up the federation: loading data and building the model"
"""Note of the first reading of an arm and seed, and of the first after it was gone on with."""

Setting = bool | int | float | str | None


class ServerResult(msgspec.Struct, frozen=True):
    """How good the server's model is after a round, on the central test data.

    Args:
        accuracy: share of right answers, 0 to 1.
        loss: mean test loss; None when it is not a finite number, as happens when training diverges.
    """

    accuracy: float
    loss: float | None

    def __post_init__(self) -> None:
        _none_unless_finite(self, "loss")


class ClientResult(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What one client did in a round.

    Args:
        partition: which part of the data it holds; names the client.
        examples: how many examples it trained on.
        bytes_up: bytes of its reply.
        bytes_down: bytes of the request that it was sent.
        charges: what it spent, by term.
        kept_by_tensor: number of coordinates sent of each tensor.
        parameters: number of coordinates that it could have sent.
        delta: share of the L2 energy of update plus residual that was kept; None when unknown.
        contrast: largest over smallest price of a coordinate.
        accuracy: its own test accuracy, 0 to 1, where that was measured.
        loss: its training loss; None when unknown or not a finite number.
    """

    partition: int
    examples: int
    bytes_up: int
    bytes_down: int
    charges: tuple[Charge, ...]
    kept_by_tensor: tuple[int, ...]
    parameters: int | None = None
    delta: float | None
    contrast: float
    accuracy: float | None = None
    loss: float | None = None

    def __post_init__(self) -> None:
        _none_unless_finite(self, "loss")


class Origin(msgspec.Struct, frozen=True, kw_only=True):
    """What made a row: versions of the packages, commit of joulewise, machine and threads."""

    versions: dict[str, str]
    commit: str | None
    machine: str
    threads: int


class Timing(msgspec.Struct, frozen=True, kw_only=True):
    """All of a row that comes from a clock: how long the round took, when it began (ISO 8601, UTC)."""

    seconds: float
    started: str


class Row(msgspec.Struct, frozen=True, kw_only=True):
    """One finished round of one arm and seed.

    Args:
        study: name of the study.
        arm: short label of the arm, unique in its study, such as ``CWMP density=0.01``.
        rule: name of the selection rule.
        budget: the budget as text, such as ``density=0.01``; empty for a rule without one.
        settings: what sets the arm apart, by name, so that rows can be grouped without reading labels.
        seed: seed of the run.
        round: number of the round; the first is 1.
        server: the server's model after the round.
        clients: the clients that took part, by partition.
        energy_unit: unit of every energy in the row; ``relative`` is no physical unit.
        origin: what made the row.
        timing: everything from a clock.
        measured: energy of this machine in the round, one reading for each meter, apart from the charges: these are
            what the study's devices would spend, this is what the simulation took. Left out where no meter was read.
        schema: version of this record.
    """

    schema: Literal[1] = 1
    study: str
    arm: str
    rule: str
    budget: str
    settings: dict[str, Setting] = {}
    seed: int
    round: int
    server: ServerResult
    clients: tuple[ClientResult, ...]
    energy_unit: Unit
    origin: Origin
    timing: Timing
    measured: tuple[Reading, ...] | msgspec.UnsetType = msgspec.UNSET  # a row without is written as it always was


_decoder = msgspec.json.Decoder(Row)


def uplink_energy(row: Row) -> float:
    """Energy of all replies of the round, summed over clients, in the row's unit.

    Raises:
        JoulewiseError: the charges mix units, or modelled with measured energy.
    """
    return total(c for client in row.clients for c in client.charges if c.term in UPLINK_TERMS)


def energy_by_term(row: Row) -> dict[str, float]:
    """Modelled energy of the round by term of the ledger, summed over clients, in the row's unit.

    Raises:
        JoulewiseError: the charges mix units.

    Example:
        >>> origin = Origin(versions={}, commit=None, machine="laptop", threads=1)
        >>> timing = Timing(seconds=0.5, started="2026-01-31T12:00:00Z")
        >>> charges = (Charge("kept", 1.0, "J", "modelled"), Charge("fixed", 3.0, "J", "modelled"))
        >>> client = ClientResult(partition=0, examples=1, bytes_up=1, bytes_down=1, charges=charges,
        ...                       kept_by_tensor=(1,), delta=None, contrast=1.0)
        >>> row = Row(study="demo", arm="Dense", rule="Dense", budget="", seed=0, round=1, clients=(client, client),
        ...           server=ServerResult(0.9, 0.3), energy_unit="J", origin=origin, timing=timing)
        >>> energy_by_term(row)
        {'kept': 2.0, 'fixed': 6.0}
    """
    found: dict[str, list[Charge]] = {}
    for client in row.clients:
        for charge in client.charges:
            if charge.basis == "modelled":
                found.setdefault(charge.term, []).append(charge)
    return {term: total(charges) for term, charges in found.items()}


def downlink_energy(row: Row) -> float:
    """Energy of receiving the requests of the round, summed over clients, in the row's unit."""
    return total(c for client in row.clients for c in client.charges if c.term == DOWNLINK_TERM)


def append(path: str | Path, row: Row) -> None:
    """Write a row at the end of a file, whole or not at all; several processes may do so at once.

    A line that an earlier run left half-written is cut off first. A missing file or folder is made.

    Raises:
        OutputError: the row holds a number that is not finite, or the file cannot be written (no space, no
            permission); the rows in the file are then as they were before.

    Example:
        >>> origin = Origin(versions={"joulewise": "0.1"}, commit=None, machine="laptop", threads=1)
        >>> timing = Timing(seconds=0.5, started="2026-01-31T12:00:00Z")
        >>> row = Row(study="demo", arm="Dense", rule="Dense", budget="", seed=0, round=1, clients=(),
        ...           server=ServerResult(0.9, 0.3), energy_unit="J", origin=origin, timing=timing)
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     append(Path(folder) / "rows.jsonl", row)
        ...     read(folder) == (row,)
        True
    """
    line = _line(row)
    with _explained("write", path):
        Path(path).parent.mkdir(parents=True, exist_ok=True)
        with _locked(path, os.O_RDWR | os.O_APPEND | os.O_CREAT) as file:
            _cut_tail(file)
            _write_whole(file, line)


def read(path: str | Path) -> tuple[Row, ...]:
    """Read the rows of a file, or of ``rows.jsonl`` in a folder, without a half-written last line.

    Raises:
        OutputError: the file cannot be read, or another line than a half-written last one is not a row.
    """
    path = Path(path)
    path = path / FILE_NAME if path.is_dir() else path
    with _explained("read", path):
        lines = _whole_lines(path.read_bytes())
    return tuple(_row(line, path, number) for number, line in enumerate(lines, start=1))


def truncate_tail(path: str | Path) -> None:
    """Cut a half-written last line off a file; a file that is missing or whole stays as it is.

    Raises:
        OutputError: the file cannot be written.
    """
    if not Path(path).exists():
        return
    with _explained("write", path), _locked(path, os.O_RDWR) as file:
        _cut_tail(file)


def keep(path: str | Path, predicate: Callable[[Row], bool]) -> int:
    """Drop the rows for which `predicate` is false; the file changes in one step or not at all.

    Lines that stay keep every byte. A half-written last line goes. Returns the number of rows dropped.

    Raises:
        OutputError: the file cannot be read or written, or a line is not a row.
    """
    path = Path(path)
    if not path.exists():
        return 0
    with _explained("write", path), _locked(path, os.O_RDWR) as file:
        lines = _whole_lines(path.read_bytes())
        kept = [line for number, line in enumerate(lines, start=1) if predicate(_row(line, path, number))]
        _cut_tail(file)
        if len(kept) < len(lines):
            _replace(path, b"".join(kept))
    return len(lines) - len(kept)


def _none_unless_finite(record: msgspec.Struct, field: str) -> None:
    value = getattr(record, field)
    if value is not None and not math.isfinite(value):
        msgspec.structs.force_setattr(record, field, None)


def _line(row: Row) -> bytes:
    line = msgspec.json.encode(row) + b"\n"
    try:
        _decoder.decode(line)  # JSON has no NaN: it would be written as null, and the file could not be read again
    except msgspec.ValidationError as error:
        raise OutputError(
            f"row {_where(row)} cannot be written: {error}; every number of a row must be finite"
        ) from error
    return line


def _where(row: Row) -> str:
    return f"(arm {row.arm!r}, seed {row.seed}, round {row.round})"


def _row(line: bytes, path: Path, number: int) -> Row:
    try:
        return _decoder.decode(line)
    except (msgspec.MsgspecError, UnicodeDecodeError) as error:
        raise OutputError(
            f"{path}, line {number} is not a row of schema 1: {error}; mend or delete that line"
        ) from error


def _whole_lines(content: bytes) -> list[bytes]:
    return [line + b"\n" for line in content.split(b"\n")[:-1]]


def _cut_tail(file: int) -> None:
    size = os.fstat(file).st_size
    end, chunk = size, 1 << 16
    while end:
        start = max(0, end - chunk)
        newline = _read_at(file, start, end - start).rfind(b"\n")
        if newline >= 0:
            end = start + newline + 1
            break
        end = start
    if end < size:
        os.ftruncate(file, end)


def _read_at(file: int, start: int, length: int) -> bytes:
    os.lseek(file, start, os.SEEK_SET)
    return os.read(file, length)


def _write_whole(file: int, line: bytes) -> None:
    size = os.fstat(file).st_size
    try:
        written = os.write(file, line)
        if written < len(line):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    except OSError:
        os.ftruncate(file, size)
        raise


def _replace(path: Path, content: bytes) -> None:
    target = path.resolve()  # a link stays a link
    handle, temporary = tempfile.mkstemp(dir=target.parent, prefix=f".{target.name}-")
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        shutil.copymode(target, temporary)
        Path(temporary).replace(target)
    except OSError:
        Path(temporary).unlink()
        raise


@contextlib.contextmanager
def _explained(verb: str, path: str | Path) -> Iterator[None]:
    try:
        yield
    except OutputError:
        raise
    except OSError as error:
        after = "its rows are as they were: mend that (free some space), then go on with --resume"
        advice = "give the folder of a run, made by: joulewise run STUDY.toml --out DIR" if verb == "read" else after
        raise OutputError(f"cannot {verb} row file {path}: {error.strerror or error}; {advice}") from error


@contextlib.contextmanager
def _locked(path: str | Path, flags: int) -> Iterator[int]:
    file = _open_locked(path, flags | getattr(os, "O_BINARY", 0) | getattr(os, "O_CLOEXEC", 0))
    try:
        yield file
    finally:
        os.close(file)  # gives the lock back, too


def _open_locked(path: str | Path, flags: int) -> int:
    while True:
        file = os.open(path, flags, 0o666)
        try:
            _lock(file)
            if os.path.samestat(os.fstat(file), Path(path).stat()):
                return file
        except FileNotFoundError:
            pass
        except BaseException:
            os.close(file)
            raise
        os.close(file)  # the file was replaced while this process waited for its lock


def _lock(file: int) -> None:
    if sys.platform != "win32":
        fcntl.flock(file, fcntl.LOCK_EX)
