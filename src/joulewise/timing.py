"""Times that can be compared: contestants take turns, and ratios are those within one round."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence

import msgspec
import numpy as np


class Contestant(msgspec.Struct, frozen=True):
    """Something that is timed.

    Args:
        name: what a table calls it.
        run: does it once.
        most_rounds: it sits the others out; for what takes seconds.
    """

    name: str
    run: Callable[[], object]
    most_rounds: int = 1 << 30


class Quartiles(msgspec.Struct, frozen=True):
    """The middle half of what was measured."""

    low: float
    median: float
    high: float

    @classmethod
    def of(cls, numbers: Sequence[float]) -> Quartiles:
        """Of at least one number.

        Example:
            >>> Quartiles.of([4.0, 1.0, 2.0, 3.0, 5.0])
            Quartiles(low=2.0, median=3.0, high=4.0)
        """
        return cls(*(float(number) for number in np.percentile(numbers, (25, 50, 75))))


class Taken(msgspec.Struct, frozen=True):
    """How long one contestant took in each round, in seconds, the round not counted left out."""

    name: str
    seconds: tuple[float, ...]

    def times_of(self, other: Taken) -> Quartiles:
        """How many times as long as the other this takes, round by round.

        Example:
            >>> Taken("slow", (2.0, 6.0)).times_of(Taken("quick", (1.0, 2.0))).median
            2.5
        """
        shared = min(len(self.seconds), len(other.seconds))
        return Quartiles.of([mine / its for mine, its in zip(self.seconds[:shared], other.seconds, strict=False)])


def race(contestants: Sequence[Contestant], rounds: int, clock: Callable[[], float] | None = None) -> dict[str, Taken]:
    """Let contestants take turns, so that whatever else the machine does hits all of them alike.

    Each runs once before anything counts.

    Args:
        contestants: of different names.
        rounds: how often each runs, unless it asks for less.
        clock: gives seconds; without one, this process's CPU time, which other processes do not lengthen.
    """
    now = time.process_time if clock is None else clock
    seconds: dict[str, list[float]] = {one.name: [] for one in contestants}
    for number in range(rounds + 1):
        for one in contestants:
            # What runs once, because it takes so long, is not warmed up.
            if number > one.most_rounds or (number == 0 and one.most_rounds == 1):
                continue
            start = now()
            one.run()
            took = now() - start
            if number:
                seconds[one.name].append(max(took, 1e-9))
    return {name: Taken(name, tuple(took)) for name, took in seconds.items()}
