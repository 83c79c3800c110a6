"""The table of what each arm means for its clients."""

from __future__ import annotations

from collections.abc import Iterator

from joulewise.notation import percent
from joulewise.outcomes import Arm, Summary
from joulewise.tabular import NONE, Table

ACCURACIES = ("Server accuracy (%)", "Worst client (%)", "10th percentile of clients (%)")
SHARES = ("Device", "Clients", "Share of energy (%)", "Share of kept coordinates (%)")


UNKNOWN = (
    f"{NONE}: some clients took no part in the last round, and the rows do not tell how good the model is for them. Of "
    "those that did, other arms would have others."
)


def fairness(found: Summary) -> Table | None:
    """Accuracy for the clients of each arm, and shares of its devices; None where rows know no client's accuracy."""
    arms = [arm for arm in found.arms if arm.fairness is not None]
    if not arms:
        return None
    shares = any(arm.fairness and arm.fairness.devices for arm in arms)
    notes = [
        "A client's accuracy is that of the new model after the last round, on test data in which classes are as "
        "frequent as among the client's examples; worst and 10th percentile are of all clients, those that took no "
        "part in that round included."
    ]
    if any(arm.fairness and arm.fairness.worst is None for arm in arms):
        notes.append(UNKNOWN)
    if shares:
        notes.append("Shares are of the uplink energy and of the coordinates in the replies, over all rounds.")
    return Table(
        caption=f"{found.study}: what each arm means for the clients",
        columns=("Arm", *ACCURACIES, *(SHARES if shares else ())),
        rows=tuple(line for arm in arms for line in _lines(arm, shares)),
        notes=tuple(notes),
    )


def _lines(arm: Arm, shares: bool) -> Iterator[tuple[str, ...]]:
    """A line for each device; what is of the arm stands in the first."""
    own = arm.fairness
    assert own is not None
    accuracies = tuple(NONE if each is None else percent(each) for each in (arm.accuracy, own.worst, own.tenth))
    if not own.devices:
        yield (arm.label, *accuracies, *((NONE,) * len(SHARES) if shares else ()))
    for number, each in enumerate(own.devices):
        cells = (each.device, str(each.clients), percent(each.energy), percent(each.kept))
        yield (arm.label, *(accuracies if number == 0 else ("",) * len(accuracies)), *cells)
