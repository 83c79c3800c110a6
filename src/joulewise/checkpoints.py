"""Checkpoints of a federation: named arrays in one file that is always whole."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy.typing as npt

from joulewise import statefile
from joulewise.errors import OutputError

Arrays = dict[str, npt.NDArray[Any]]

SHARE = 0.04
"""Largest part of a run's time that checkpoints may take."""


@dataclass(frozen=True, slots=True)
class Pace:
    """When the next checkpoint is due.

    Args:
        due: time on the monotonic clock, in seconds.
    """

    due: float = 0.0

    def after(self, began: float, ended: float) -> Pace:
        """The pace after a checkpoint that was written from `began` to `ended`.

        Example:
            >>> Pace().after(began=100.0, ended=101.0).due
            125.0
        """
        return Pace(began + (ended - began) / SHARE)


def save(path: Path, arrays: Mapping[str, npt.NDArray[Any]], pace: Pace) -> Pace:
    """Write a checkpoint in one step, if one is due; a reader finds the old one or the new one, never a part.

    Raises:
        OutputError: it cannot be written; the one before is still there.
    """
    began = time.monotonic()
    if began < pace.due:
        return pace
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        statefile.write(path, arrays)
    except OSError as error:
        reason = error.strerror or error
        raise OutputError(
            f"cannot write checkpoint {path}: {reason}; mend that, then go on with --resume, nothing is lost"
        ) from error
    return pace.after(began, time.monotonic())


def load(path: Path) -> Arrays | None:
    """The arrays of a checkpoint; None when there is none or it is damaged."""
    return _read(path, names=None)


def round_of(path: Path) -> int:
    """The round after which a checkpoint was made; 0 when there is none or it is damaged."""
    arrays = _read(path, names=("round",))
    return 0 if arrays is None else int(arrays["round"])


def _read(path: Path, names: Sequence[str] | None) -> Arrays | None:
    try:
        return statefile.read(path, names)
    except OSError:
        return None
