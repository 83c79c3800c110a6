"""The file that holds rows: one line of JSON for each finished round of an arm and seed.

A row file survives whatever stops a run. Lines are written in one piece under a lock, so that several
processes may write to one file; a line that a kill or a full disk cut short is dropped when the file is read,
and cut off before the next row is written. Rows that are kept for good may be compressed: ``gzip rows.jsonl``.
"""

from __future__ import annotations

import contextlib
import errno
import gzip
import os
import shutil
import sys
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path

import msgspec

from joulewise.errors import OutputError
from joulewise.results import Row
from joulewise.wholefile import replacing

if sys.platform != "win32":  # without file locks, one process at a time may write to a row file
    import fcntl

FILE_NAME = "rows.jsonl"
COMPRESSED = ".gz"

_decoder = msgspec.json.Decoder(Row)


def append(path: str | Path, row: Row) -> None:
    """Write a row at the end of a file, whole or not at all; several processes may do so at once.

    A line that an earlier run left half-written is cut off first. A missing file or folder is made.

    Raises:
        OutputError: the row holds a number that is not finite, or the file cannot be written (no space, no
            permission); the rows in the file are then as they were before.

    Example:
        >>> import tempfile
        >>> from joulewise.results import Origin, ServerResult, Timing
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

    A file whose name ends in ``.gz`` is decompressed; a folder without ``rows.jsonl`` may hold ``rows.jsonl.gz``.

    Raises:
        OutputError: the file cannot be read, or another line than a half-written last one is not a row.
    """
    path = Path(path)
    path = _file_in(path) if path.is_dir() else path
    with _explained("read", path):
        content = path.read_bytes()
        lines = _whole_lines(_decompressed(content) if path.suffix == COMPRESSED else content)
    return tuple(_row(line, path, number) for number, line in enumerate(lines, start=1))


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
            with replacing(path) as whole:
                whole.write(b"".join(kept))
                shutil.copymode(path, whole.name)
    return len(lines) - len(kept)


def _file_in(folder: Path) -> Path:
    compressed = folder / (FILE_NAME + COMPRESSED)
    return compressed if compressed.exists() and not (folder / FILE_NAME).exists() else folder / FILE_NAME


def _decompressed(content: bytes) -> bytes:
    try:
        return gzip.decompress(content)
    except (EOFError, zlib.error) as error:
        raise OSError(f"it is damaged ({error})") from error


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
