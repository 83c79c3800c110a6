"""Rows: what there is to say of one finished round of an arm and seed. `joulewise.rowfile` keeps them."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Literal

import msgspec
import numpy as np

from joulewise.devices import Unit
from joulewise.ledger import DOWNLINK_TERM, UPLINK_TERMS, Charge, total
from joulewise.meters import Reading

SET_UP = "this window also holds setting up the federation: loading data and building the model"
"""Note of the first reading of an arm and seed, and of the first after it was gone on with."""

Setting = bool | int | float | str | None


class ServerResult(msgspec.Struct, frozen=True):
    """How good the server's model is after a round, on the central test data.

    Args:
        accuracy: share of right answers, 0 to 1.
        loss: mean test loss; None when it is not a finite number, as happens when training diverges.
    """

    accuracy: float
    loss: float | None

    def __post_init__(self) -> None:
        _none_unless_finite(self, "loss")


class ClientResult(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What one client did in a round.

    Args:
        partition: which part of the data it holds; names the client. Below zero it is the id of a node that named a
            partition of another node.
        examples: how many examples it trained on.
        bytes_up: bytes of its reply.
        bytes_down: bytes of the models, or changes, that it was sent since its last reply, evaluations included.
        charges: what it spent, by term.
        kept_by_tensor: number of coordinates sent of each tensor.
        parameters: number of coordinates that it could have sent.
        delta: share of the L2 energy of update plus residual that was kept; None when unknown.
        contrast: largest over smallest price of a coordinate, of the prices that its update was chosen by.
        accuracy: its own test accuracy, 0 to 1, where that was measured. In a study that of the new model on the test
            part, with classes as frequent as among the client's examples.
        loss: its training loss; None when unknown or not a finite number.
        allowed: energy that its mask was allotted, in the unit of the charges; None where nobody allotted any.
        price: value per joule that it was asked for, in its own terms; None for none.
        battery_j: energy in its battery after the round, joules; None where it has none.
    """

    partition: int
    examples: int
    bytes_up: int
    bytes_down: int
    charges: tuple[Charge, ...]
    kept_by_tensor: tuple[int, ...]
    parameters: int | None = None
    delta: float | None
    contrast: float
    accuracy: float | None = None
    loss: float | None = None
    allowed: float | None = None
    price: float | None = None
    battery_j: float | None = None

    def __post_init__(self) -> None:
        _none_unless_finite(self, "loss")


class Skipped(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A client that was to take part in a round and did not.

    Args:
        partition: names the client.
        reason: why, in words.
        battery_j: energy in its battery after the round, joules; None where it has none.
    """

    partition: int
    reason: str
    battery_j: float | None = None


class AllClients(msgspec.Struct, frozen=True, kw_only=True):
    """How good a new model is for all clients, whether or not they took part in the round.

    Args:
        worst: least accuracy of a client, 0 to 1.
        tenth: 10th percentile of their accuracies, between two of them in proportion.
    """

    worst: float
    tenth: float

    @classmethod
    def of(cls, accuracies: Sequence[float]) -> AllClients | None:
        """Worst and 10th percentile of accuracies; None where there are none.

        Example:
            >>> AllClients.of([0.5, 0.75])
            AllClients(worst=0.5, tenth=0.525)
        """
        if not accuracies:
            return None
        return cls(worst=min(accuracies), tenth=float(np.percentile(accuracies, 10)))


class Origin(msgspec.Struct, frozen=True, kw_only=True):
    """What made a row: versions of the packages, commit of joulewise, machine and threads."""

    versions: dict[str, str]
    commit: str | None
    machine: str
    threads: int


class Timing(msgspec.Struct, frozen=True, kw_only=True):
    """All of a row that comes from a clock: how long the round took, when it began (ISO 8601, UTC)."""

    seconds: float
    started: str


class Row(msgspec.Struct, frozen=True, kw_only=True):
    """One finished round of one arm and seed.

    Args:
        study: name of the study.
        arm: short label of the arm, unique in its study, such as ``CWMP density=0.01``.
        rule: name of the selection rule.
        budget: the budget as text, such as ``density=0.01``; empty for a rule without one.
        settings: what sets the arm apart, by name, so that rows can be grouped without reading labels.
        seed: seed of the run.
        round: number of the round; the first is 1.
        server: the server's model after the round.
        clients: the clients that took part, by partition.
        skipped: those that were to take part and did not, by partition. Left out where there is none.
        all_clients: the new model for every client of the study, those that took no part included. Left out where all
            took part, and so say it themselves, and where it is not known.
        energy_unit: unit of every energy in the row; ``relative`` is no physical unit.
        origin: what made the row.
        timing: everything from a clock.
        measured: energy of this machine in the round, one reading for each meter, apart from the charges: these are
            what the study's devices would spend, this is what the simulation took. Left out where no meter was read.
        schema: version of this record.
    """

    schema: Literal[1] = 1
    study: str
    arm: str
    rule: str
    budget: str
    settings: dict[str, Setting] = {}
    seed: int
    round: int
    server: ServerResult
    clients: tuple[ClientResult, ...]
    skipped: tuple[Skipped, ...] | msgspec.UnsetType = msgspec.UNSET
    all_clients: AllClients | msgspec.UnsetType = msgspec.UNSET  # as `skipped`: a row without is as it always was
    energy_unit: Unit
    origin: Origin
    timing: Timing
    measured: tuple[Reading, ...] | msgspec.UnsetType = msgspec.UNSET  # likewise


def uplink_energy(row: Row) -> float:
    """Energy of all replies of the round, summed over clients, in the row's unit.

    Raises:
        JoulewiseError: the charges mix units, or modelled with measured energy.
    """
    return total(c for client in row.clients for c in client.charges if c.term in UPLINK_TERMS)


def energy_by_term(row: Row) -> dict[str, float]:
    """Modelled energy of the round by term of the ledger, summed over clients, in the row's unit.

    Raises:
        JoulewiseError: the charges mix units.

    Example:
        >>> origin = Origin(versions={}, commit=None, machine="laptop", threads=1)
        >>> timing = Timing(seconds=0.5, started="2026-01-31T12:00:00Z")
        >>> charges = (Charge("kept", 1.0, "J", "modelled"), Charge("fixed", 3.0, "J", "modelled"))
        >>> client = ClientResult(partition=0, examples=1, bytes_up=1, bytes_down=1, charges=charges,
        ...                       kept_by_tensor=(1,), delta=None, contrast=1.0)
        >>> row = Row(study="demo", arm="Dense", rule="Dense", budget="", seed=0, round=1, clients=(client, client),
        ...           server=ServerResult(0.9, 0.3), energy_unit="J", origin=origin, timing=timing)
        >>> energy_by_term(row)
        {'kept': 2.0, 'fixed': 6.0}
    """
    found: dict[str, list[Charge]] = {}
    for client in row.clients:
        for charge in client.charges:
            if charge.basis == "modelled":
                found.setdefault(charge.term, []).append(charge)
    return {term: total(charges) for term, charges in found.items()}


def downlink_energy(row: Row) -> float:
    """Energy of receiving the requests of the round, summed over clients, in the row's unit."""
    return total(c for client in row.clients for c in client.charges if c.term == DOWNLINK_TERM)


def _none_unless_finite(record: msgspec.Struct, field: str) -> None:
    value = getattr(record, field)
    if value is not None and not math.isfinite(value):
        msgspec.structs.force_setattr(record, field, None)
