"""What an arm means for its clients: how good the model is for the worst of them, and who spends and sends how much."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence

import msgspec
import numpy as np

from joulewise.ledger import UPLINK_TERMS, total
from joulewise.pareto import Interval, interval
from joulewise.results import ClientResult, Row, Setting

TENTH = 10.0


class OfDevice(msgspec.Struct, frozen=True, kw_only=True):
    """The clients of one device.

    Args:
        device: its name.
        clients: how many of the study's clients have it.
        energy: their share of the uplink energy of all rounds.
        kept: their share of the coordinates in all replies.
    """

    device: str
    clients: int
    energy: Interval
    kept: Interval


class Fairness(msgspec.Struct, frozen=True, kw_only=True):
    """An arm as its clients see it, over seeds.

    Args:
        worst: least accuracy of a client after the last round.
        tenth: 10th percentile of the clients' accuracies after the last round, between two of them in proportion.
        devices: shares by device, where the rows say who has which and there are several; else empty.
    """

    worst: Interval
    tenth: Interval
    devices: tuple[OfDevice, ...]


def fairness(rows: Sequence[Row]) -> Fairness | None:
    """Sum up the clients of one arm; None where a seed's last round knows no client's accuracy.

    Args:
        rows: of one arm, all rounds of the seeds that finished.

    Example:
        >>> from joulewise.results import Origin, ServerResult, Timing
        >>> clients = tuple(ClientResult(partition=k, examples=1, bytes_up=1, bytes_down=1, charges=(), delta=None,
        ...                              kept_by_tensor=(3 - 2 * k,), contrast=1.0, accuracy=0.5 + k / 4)
        ...                 for k in (0, 1))
        >>> row = Row(study="demo", arm="Dense", rule="Dense", budget="", settings={"devices": "1 near, 1 far"},
        ...           seed=0, round=1, server=ServerResult(0.9, 0.3), clients=clients, energy_unit="J",
        ...           origin=Origin(versions={}, commit=None, machine="laptop", threads=1),
        ...           timing=Timing(seconds=0.5, started="2026-01-31T12:00:00Z"))
        >>> found = fairness([row])
        >>> found.worst.mean, round(found.tenth.mean, 3), [(each.device, each.kept.mean) for each in found.devices]
        (0.5, 0.525, [('near', 0.75), ('far', 0.25)])
    """
    by_seed: dict[int, list[Row]] = {}
    for row in rows:
        by_seed.setdefault(row.seed, []).append(row)
    every = [_accuracies(found) for found in by_seed.values()]
    if not every or not all(every):
        return None
    return Fairness(
        worst=interval([min(each) for each in every]),
        tenth=interval([float(np.percentile(each, TENTH)) for each in every]),
        devices=_by_device(list(by_seed.values()), devices_of(rows[0].settings)),
    )


def worst_client(rows: Sequence[Row]) -> float | None:
    """Least accuracy of a client after the last of the rounds; None where the rows know none."""
    return min(_accuracies(rows), default=None)


def devices_of(settings: Mapping[str, Setting]) -> tuple[str, ...]:
    """Devices of an arm's clients by partition, from its settings; empty where they do not say.

    Example:
        >>> devices_of({"devices": "2 near, 1 far", "clients": 3})
        ('near', 'near', 'far')
        >>> devices_of({"devices": "near", "clients": 2})
        ('near', 'near')
    """
    text, clients = settings.get("devices"), settings.get("clients")
    if not isinstance(text, str):
        return ()
    parts = [re.fullmatch(r"(\d+) (.+)", part) for part in re.split(r", (?=\d+ )", text)]
    counted = [part for part in parts if part is not None]
    if len(counted) < max(2, len(parts)):  # one device for all is named without its number
        return (text,) * clients if isinstance(clients, int) else ()
    devices = tuple(part[2] for part in counted for _ in range(int(part[1])))
    return devices if clients in {None, len(devices)} else ()  # a name may look like two with their numbers


def _accuracies(rows: Sequence[Row]) -> list[float]:
    last = max(rows, key=lambda row: row.round)
    return [each.accuracy for each in last.clients if each.accuracy is not None]


def _by_device(seeds: Sequence[Sequence[Row]], devices: Sequence[str]) -> tuple[OfDevice, ...]:
    names = tuple(dict.fromkeys(devices))
    clients = [[each for row in rows for each in row.clients] for rows in seeds]
    strange = any(not 0 <= each.partition < len(devices) for found in clients for each in found)
    if len(names) < 2 or strange:
        return ()
    energies, kept = zip(*(_shares(found, devices) for found in clients), strict=True)
    return tuple(
        OfDevice(
            device=name,
            clients=devices.count(name),
            energy=interval([each.get(name, 0.0) for each in energies]),
            kept=interval([each.get(name, 0.0) for each in kept]),
        )
        for name in names
    )


def _shares(clients: Sequence[ClientResult], devices: Sequence[str]) -> tuple[dict[str, float], dict[str, float]]:
    """Shares of energy and of kept coordinates by device, over a run."""
    energies: dict[str, list[float]] = {}
    kept: dict[str, list[float]] = {}
    for each in clients:
        uplink = total(charge for charge in each.charges if charge.term in UPLINK_TERMS)
        energies.setdefault(devices[each.partition], []).append(uplink)
        kept.setdefault(devices[each.partition], []).append(sum(each.kept_by_tensor))
    return _of_whole(energies), _of_whole(kept)


def _of_whole(parts: Mapping[str, Sequence[float]]) -> dict[str, float]:
    sums = {name: math.fsum(each) for name, each in parts.items()}
    whole = math.fsum(sums.values())
    return {name: each / whole if whole else 0.0 for name, each in sums.items()}
