"""What a study wants to know, written down before its first row: the file `analysis.json` beside the rows."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

import msgspec

from joulewise.errors import OutputError

FILE_NAME = "analysis.json"
EVALUATIONS = 3
"""How many in a row decide whether an accuracy is reached."""

Measure = Literal[
    "accuracy", "accuracy_at_energy", "energy_to_accuracy", "bytes_to_accuracy", "hypervolume", "worst_client"
]
Setting = Literal["learning_rate", "local_epochs", "feedback", "values", "strategy"]
"""What may be chosen on selection seeds."""


class Question(msgspec.Struct, frozen=True, kw_only=True):
    """One primary comparison.

    Args:
        name: what the study calls it.
        arms: names of the arms of one side: one, or those among which one is chosen, or all of a hypervolume.
        against: names of the arms of the other side.
        measure: what is compared.
    """

    name: str
    arms: tuple[str, ...]
    against: tuple[str, ...]
    measure: Measure


class Questions(msgspec.Struct, frozen=True, kw_only=True):
    """What a study named beforehand, in the names of its arms.

    Args:
        study: its name.
        seeds: those to report on.
        target_accuracy: accuracy to reach, 0 to 1; None where none was named.
        energy_budget: energy at which accuracies are compared, in the unit of the study's devices; None for none.
        selection_seeds: seeds to choose arms on, and not to report on.
        choose: settings that are chosen on them.
        groups: names of arms that differ in nothing else, one group for each arm that will be reported on.
        primary: the comparisons; every other one is descriptive.
    """

    study: str
    seeds: tuple[int, ...]
    target_accuracy: float | None = None
    energy_budget: float | None = None
    selection_seeds: tuple[int, ...] = ()
    choose: tuple[Setting, ...] = ()
    groups: tuple[tuple[str, ...], ...] = ()
    primary: tuple[Question, ...] = ()


def read(folder: str | Path) -> Questions | None:
    """What the study in a folder named beforehand; None where it named nothing.

    Raises:
        OutputError: the file cannot be read, or does not hold what it should.
    """
    path = Path(folder) / FILE_NAME
    if not path.exists():
        return None
    try:
        return msgspec.json.decode(path.read_bytes(), type=Questions)
    except (OSError, ValueError, msgspec.MsgspecError) as error:
        raise OutputError(
            f"{path} cannot be read ({error}); joulewise run with --resume and the study's file writes it again"
        ) from None


def text(questions: Questions) -> bytes:
    """The file's content.

    Example:
        >>> print(text(Questions(study="demo", seeds=(0,))).decode().splitlines()[1])
          "study": "demo",
    """
    return msgspec.json.format(msgspec.json.encode(questions), indent=2) + b"\n"
