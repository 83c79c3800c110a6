"""What is common to searches for the longest message that fits."""

from __future__ import annotations

from dataclasses import dataclass

ENCODINGS = 6
"""At most, before the longest message that fitted is taken."""
SLACK = 0.01
"""Share of a budget that may be left."""
AIM = 1 - SLACK / 8
"""Share of the room that a search aims at: a little below it, so that what is tried next is likely to fit."""


@dataclass(frozen=True, slots=True)
class Trial:
    """One message that was made.

    Args:
        place: where it was looked for, on the axis of the search.
        spent: what it took.
        kept: coordinates that it keeps.
    """

    place: float
    spent: float
    kept: int


def is_close(fits: Trial, misses: Trial | None, room: float) -> bool:
    """Whether no longer message is worth looking for: the room is used, or one coordinate more no longer fits."""
    return fits.spent >= (1 - SLACK / 4) * room or (misses is not None and misses.kept - fits.kept <= 1)
