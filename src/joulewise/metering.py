"""A run of several processes, metered as a whole: a machine's counters cannot tell the processes apart."""

from __future__ import annotations

import contextlib
from collections.abc import Generator, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Literal, TypeVar

import msgspec

from joulewise.errors import OutputError
from joulewise.meters import Meter, Reading, noted
from joulewise.results import Row
from joulewise.wholefile import replacing

FILE_NAME = "meters.json"

Item = TypeVar("Item")


class Part(msgspec.Struct, frozen=True, kw_only=True):
    """One call of `joulewise run`, from its first to its last row.

    Args:
        started: when it began (ISO 8601, UTC).
        jobs: processes at a time.
        rows: rows that were made in it.
        readings: energy of this machine, one reading for each meter.
    """

    started: str
    jobs: int
    rows: int
    readings: tuple[Reading, ...]


class Parts(msgspec.Struct, frozen=True, kw_only=True):
    """What ``meters.json`` holds: a part for each time that the run was gone on with."""

    schema: Literal[1] = 1
    parts: tuple[Part, ...] = ()


def metered(
    items: Generator[Item, None, None], meters: Sequence[Meter], folder: Path, jobs: int
) -> Generator[Item, None, None]:
    """Yield `items`, and write what the machine took meanwhile to ``meters.json``, also when they end early.

    Args:
        items: what several processes make.
        meters: what measures; with none, nothing is written.
        folder: of the run.
        jobs: processes at a time.

    Raises:
        OutputError: ``meters.json`` cannot be read or written.
    """
    if not meters:
        yield from items
        return
    earlier, rows = read(folder), 0
    started = datetime.now(UTC).isoformat(timespec="milliseconds")
    marks = [(meter, meter.begin()) for meter in meters]
    try:
        with contextlib.closing(items):
            for item in items:
                rows += isinstance(item, Row)
                yield item
    finally:
        note = (
            f"of the whole run: up to {jobs} processes at a time share this machine, and no row has a part of its own"
        )
        readings = tuple(noted(meter.end(mark), note) for meter, mark in marks)
        part = Part(started=started, jobs=jobs, rows=rows, readings=readings)
        _write(folder / FILE_NAME, Parts(parts=(*earlier, part)))


def read(folder: str | Path) -> tuple[Part, ...]:
    """The parts in a folder's ``meters.json``; none where there is no such file.

    Raises:
        OutputError: the file cannot be read, or is something else.
    """
    path = Path(folder) / FILE_NAME
    try:
        return msgspec.json.decode(path.read_bytes(), type=Parts).parts
    except FileNotFoundError:
        return ()
    except OSError as error:
        raise OutputError(f"cannot read {path}: {error.strerror or error}; mend that or delete it") from None
    except (msgspec.MsgspecError, ValueError) as error:
        raise OutputError(f"{path} is not a file of readings: {error}; mend or delete it") from None


def _write(path: Path, parts: Parts) -> None:
    try:
        with replacing(path) as file:
            file.write(msgspec.json.format(msgspec.json.encode(parts), indent=2) + b"\n")
    except OSError as error:
        raise OutputError(f"cannot write {path}: {error.strerror or error}; free some space") from None
