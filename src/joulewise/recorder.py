"""Updates of a run, kept for `joulewise plan`: one file for each client and round that was asked for."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from joulewise.errors import ArgumentError, OutputError
from joulewise.layout import Layout, Vector
from joulewise.wholefile import replacing

FOLDER = "updates"


@dataclass(frozen=True, slots=True)
class Recorder:
    """Writes the updates that were asked for, before anything is selected from them and without residual.

    Args:
        folder: of the run; files go to its folder ``updates``.
        wanted: pairs of client and round.
        name: what file names begin with.
    """

    folder: Path
    wanted: frozenset[tuple[int, int]]
    name: str = ""

    def of(self, arm: str, seed: int) -> Recorder:
        """The recorder of one arm and seed, which its file names begin with."""
        plain = re.sub(r"[^A-Za-z0-9.=-]+", "_", arm).strip("_")
        return Recorder(self.folder, self.wanted, f"{plain}-seed{seed}-")

    def path(self, client: int, number: int) -> Path:
        """Where an update is kept."""
        return self.folder / FOLDER / f"{self.name}client{client}-round{number}.npz"

    def keep(self, client: int, number: int, update: Vector, layout: Layout) -> None:
        """Write the update, if it is one that was asked for.

        Raises:
            OutputError: the file cannot be written.
        """
        if (client, number) not in self.wanted:
            return
        path = self.path(client, number)
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            with replacing(path) as file:
                np.savez(file, allow_pickle=False, **layout.split(update))
        except OSError as error:
            raise OutputError(f"cannot keep the update in {path}: {error.strerror or error}") from error


def wanted(typed: Sequence[str], clients: int, rounds: int) -> frozenset[tuple[int, int]]:
    """Clients and rounds, from ``CLIENT:ROUND``.

    Args:
        typed: as typed after ``--record``.
        clients: of the study; the first is 0.
        rounds: of the study; the first is 1.

    Raises:
        ArgumentError: one is no such pair, or there is no such client or round.

    Example:
        >>> sorted(wanted(["0:3", "0:4"], clients=10, rounds=20))
        [(0, 3), (0, 4)]
    """
    found = set()
    for each in typed:
        match = re.fullmatch(r"(\d+):(\d+)", each)
        if match is None:
            raise ArgumentError(f"--record is {each!r}, expected CLIENT:ROUND, such as 0:3")
        client, number = map(int, match.groups())
        if not (client < clients and 1 <= number <= rounds):
            raise ArgumentError(
                f"--record {each} asks for client {client} in round {number}, expected a client from 0 to "
                f"{clients - 1} and a round from 1 to {rounds}"
            )
        found.add((client, number))
    return frozenset(found)
