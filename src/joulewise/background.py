"""What the folder of a run says beside its rows: the study, its devices' numbers, its tensors and prices."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec

from joulewise import pricefile, questions
from joulewise.devices import Entry
from joulewise.errors import OutputError
from joulewise.pacing import Battery
from joulewise.pricefile import PriceList
from joulewise.questions import Questions

STUDY_FILE = "study.json"
DEVICES_FILE = "devices.json"


class FleetLine(msgspec.Struct, frozen=True):
    """What a report tells of a study's ``[fleet]``; traces by the path that the study file named."""

    battery: dict[str, Battery] | None = None
    schedule: dict[str, Any] | None = None
    recharge: dict[str, Any] | str | None = None
    available: dict[str, Any] | str | None = None
    link: dict[str, Any] | str | None = None


class StudyLine(msgspec.Struct, frozen=True):
    """What a report tells of a study."""

    name: str
    fleet: FleetLine = FleetLine()


class Background(msgspec.Struct, frozen=True, kw_only=True):
    """What a folder says beside its rows; each part is None or empty where it does not.

    Args:
        study_text: the study, as JSON.
        study: what of it a report tells.
        numbers: every number of every device, by the device's name.
        prices: tensors, and their prices.
        questions: what the study named beforehand.
    """

    study_text: str | None = None
    study: StudyLine | None = None
    numbers: dict[str, tuple[Entry, ...]] = {}
    prices: PriceList | None = None
    questions: Questions | None = None

    @property
    def name(self) -> str | None:
        """Name of the study; None where no file says it."""
        if self.study is not None:
            return self.study.name
        return None if self.questions is None else self.questions.study


def read(folder: str | Path) -> Background:
    """What a folder says; a folder of rows alone says nothing.

    Raises:
        OutputError: a file cannot be read, or is something else.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     read(folder) == Background()
        True
    """
    folder = Path(folder)
    text = _text(folder / STUDY_FILE)
    numbers = _text(folder / DEVICES_FILE)
    return Background(
        study_text=text,
        study=None if text is None else _decoded(folder / STUDY_FILE, text, StudyLine),
        numbers={} if numbers is None else _decoded(folder / DEVICES_FILE, numbers, dict[str, tuple[Entry, ...]]),
        prices=pricefile.read(folder),
        questions=questions.read(folder),
    )


def _text(path: Path) -> str | None:
    try:
        return path.read_text(encoding="utf-8")
    except FileNotFoundError:
        return None
    except (OSError, UnicodeDecodeError) as error:
        raise OutputError(f"cannot read {path}: {error}; mend that or delete it") from None


def _decoded(path: Path, text: str, kind: Any) -> Any:
    try:
        return msgspec.json.decode(text, type=kind)
    except (msgspec.MsgspecError, ValueError) as error:
        raise OutputError(f"{path} is not what a run leaves there: {error}; mend or delete it") from None
