"""Where a run stands, gathered from its rows alone: what a display shows."""

from __future__ import annotations

import statistics
from dataclasses import dataclass, field

from joulewise.results import Row, uplink_energy

ROUNDS_FOR_ESTIMATE = 50


@dataclass
class View:
    """Where a run stands.

    Args:
        study: its name.
        total: rows of the finished study.
        rounds: of each arm and seed.
        jobs: arms and seeds that run at once.
        done: rows so far.
        latest: last row of each arm and seed, the newest last.
        energy: uplink energy so far of each arm and seed.
        seconds: how long the last rounds took.
    """

    study: str
    total: int
    rounds: int
    jobs: int
    done: int = 0
    latest: dict[tuple[str, int], Row] = field(default_factory=dict)
    energy: dict[tuple[str, int], float] = field(default_factory=dict)
    seconds: list[float] = field(default_factory=list)

    def add(self, row: Row) -> None:
        """Take in the next row."""
        key = (row.arm, row.seed)
        self.latest.pop(key, None)  # so that the newest comes last
        self.latest[key] = row
        self.energy[key] = self.energy.get(key, 0.0) + uplink_energy(row)
        self.seconds = [*self.seconds, row.timing.seconds][-ROUNDS_FOR_ESTIMATE:]
        self.done += 1

    @property
    def left(self) -> str:
        """Time left, roughly; empty while nothing is known."""
        if not self.seconds or self.done >= self.total:
            return ""
        seconds = statistics.median(self.seconds) * (self.total - self.done) / self.jobs
        return f"about {_duration(seconds)} left"

    @property
    def lines(self) -> list[str]:
        """One line for each arm that runs now."""
        return [self.line(key) for key in list(self.latest)[-self.jobs :]]

    def line(self, key: tuple[str, int]) -> str:
        """Where an arm with a seed is."""
        row = self.latest[key]
        return (
            f"{row.arm}, seed {row.seed}: round {row.round}/{self.rounds}, "
            f"accuracy {100 * row.server.accuracy:.1f} %, uplink {_energy(self.energy[key], row.energy_unit)}"
        )


def _duration(seconds: float) -> str:
    if seconds < 90:
        return f"{max(1, round(seconds))} s"
    if seconds < 90 * 60:
        return f"{round(seconds / 60)} min"
    return f"{seconds / 3600:.1f} h"


def _energy(amount: float, unit: str) -> str:
    if unit != "J":
        return f"{amount:.4g} relative units"
    for size, name in ((1e3, "kJ"), (1.0, "J"), (1e-3, "mJ"), (1e-6, "µJ")):
        if amount >= size:
            return f"{amount / size:.3g} {name}"
    return f"{amount:.3g} J"
