"""Files that are there whole or not at all."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO


@contextlib.contextmanager
def replacing(path: Path) -> Iterator[BinaryIO]:
    """Open a file to be written; it takes the place of `path` once all of it is safe on the disk.

    Whatever goes wrong before that, a full disk or a killed process, `path` is as it was. A link stays a link. For one
    writer at a time: what a killed one leaves behind is written over by the next.

    Raises:
        OSError: the file cannot be written.

    Example:
        >>> import tempfile
        >>> path = Path(tempfile.mkdtemp()) / "numbers.txt"
        >>> with replacing(path) as file:
        ...     _ = file.write(b"1 2 3")
        >>> path.read_bytes(), [each.name for each in path.parent.iterdir()]
        (b'1 2 3', ['numbers.txt'])
    """
    target = path.resolve()
    temporary = target.with_name(f".{target.name}.tmp")
    try:
        with temporary.open("wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(target)
        _sync(target.parent)
    finally:
        with contextlib.suppress(OSError):  # In a folder that cannot be written there is nothing to remove.
            temporary.unlink(missing_ok=True)


def _sync(folder: Path) -> None:
    """Make a new name in a folder safe from a power cut; Windows does so by itself."""
    if os.name == "nt":
        return
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
