"""Named arrays in one file: written whole, read whole, and damage is seen."""

from __future__ import annotations

import zipfile
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from joulewise.wholefile import replacing

Arrays = dict[str, npt.NDArray[Any]]


def write(path: Path, arrays: Mapping[str, npt.NDArray[Any]]) -> None:
    """Write an .npz file in one step: a reader finds the old one or the new one, never a part.

    Raises:
        OSError: it cannot be written; the one before is still there.
    """
    with replacing(path) as file:
        np.savez(file, allow_pickle=False, **arrays)


def read(path: Path, names: Iterable[str] | None = None) -> Arrays | None:
    """Read the arrays `names`, or all, of what `write` wrote; None where the file is damaged or lacks one of them.

    Raises:
        OSError: the file is not there, or cannot be read.

    Example:
        >>> import tempfile
        >>> path = Path(tempfile.mkdtemp()) / "arrays.npz"
        >>> write(path, {"one": np.ones(2), "none": np.zeros(0)})
        >>> {name: array.tolist() for name, array in read(path).items()}
        {'one': [1.0, 1.0], 'none': []}
        >>> _ = path.write_bytes(path.read_bytes()[:-1])
        >>> read(path) is None
        True
    """
    with path.open("rb") as file:
        try:
            if not zipfile.is_zipfile(file):
                return None
            file.seek(0)
            with np.load(file, allow_pickle=False) as arrays:
                # Each array is read to its end, which is where its checksum is compared.
                return {name: arrays[name] for name in (arrays.files if names is None else names)}
        # A broken archive makes zipfile and NumPy raise whatever the first wrong field leads to.
        except (ValueError, KeyError, EOFError, NotImplementedError, OverflowError, RuntimeError, zipfile.BadZipFile):
            return None
