"""What meters measured in the rounds of an arm: how much per round, and how much of it is known."""

from __future__ import annotations

import math
from collections.abc import Sequence

import msgspec

from joulewise.meters import Reading
from joulewise.pareto import Interval, interval
from joulewise.results import SET_UP, Row


class Measured(msgspec.Struct, frozen=True, kw_only=True):
    """The readings of one meter, of the same domains, in the rounds of one arm.

    Args:
        method: the meter, and how it measures.
        domains: what the energy is of; empty where nothing was measured.
        basis: of the readings; ``unavailable`` where nothing was measured.
        joules_per_round: mean over the rounds of a seed that are measured; its interval is over seeds.
        rounds: rounds that are measured: those that have a reading, less those whose window holds setting up, too.
        of: rounds of the arm.
        notes: what its readings say, each thing once.
    """

    method: str
    domains: tuple[str, ...]
    basis: str
    joules_per_round: Interval | None
    rounds: int
    of: int
    notes: tuple[str, ...]


def measured(rows: Sequence[Row]) -> tuple[Measured, ...]:
    """What was measured in the rows of one arm: a record for each meter and set of domains.

    Rounds without a reading, or with a window that also holds setting up, are left out: nothing is put in their place.
    """
    kinds: dict[tuple[str, tuple[str, ...], str], list[tuple[int, Reading]]] = {}
    for row in rows:
        for reading in row.measured or ():
            kinds.setdefault((reading.method, reading.domains, reading.basis), []).append((row.seed, reading))
    return tuple(_measured(found, len(rows)) for found in kinds.values())


def _measured(found: Sequence[tuple[int, Reading]], rows: int) -> Measured:
    by_seed: dict[int, list[float]] = {}
    for seed, reading in found:
        if reading.joules is not None and SET_UP not in reading.note:
            by_seed.setdefault(seed, []).append(reading.joules)
    means = [math.fsum(joules) / len(joules) for joules in by_seed.values()]
    first = found[0][1]
    return Measured(
        method=first.method,
        domains=first.domains,
        basis=first.basis,
        joules_per_round=interval(means) if means else None,
        rounds=sum(map(len, by_seed.values())),
        of=rows,
        notes=tuple(dict.fromkeys(note for _, reading in found for note in reading.note.split("; ") if note)),
    )
