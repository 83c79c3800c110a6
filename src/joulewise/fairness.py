"""What an arm means for its clients: how good the model is for the worst of them, and who spends and sends how much."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence

import msgspec

from joulewise.ledger import UPLINK_TERMS, total
from joulewise.pareto import Interval, interval
from joulewise.results import AllClients, ClientResult, Row, Setting


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
        worst: least accuracy of a client after the last round, of all clients, those that took no part in it
            included; None where the rows of a seed do not know it.
        tenth: 10th percentile of the clients' accuracies, likewise, between two of them in proportion.
        devices: shares by device, where the rows say who has which and there are several; else empty.
    """

    worst: Interval | None
    tenth: Interval | None
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
    every = {seed: all_clients(found) for seed, found in by_seed.items()}
    known = [each for each in every.values() if each is not None]
    whole = len(known) == len(every)
    if not every or not all(own or _accuracies(_last(by_seed[seed])) for seed, own in every.items()):
        return None
    return Fairness(
        worst=interval([each.worst for each in known]) if whole else None,
        tenth=interval([each.tenth for each in known]) if whole else None,
        devices=_by_device(list(by_seed.values()), devices_of(rows[0].settings)),
    )


def all_clients(rows: Sequence[Row]) -> AllClients | None:
    """How good the model is for all clients after the last of the rounds; None where the rows do not know it.

    Those that took part in one round are other clients in each arm: who leaves the worst client out looks better. So
    where some took no part, and the row does not say how good the model is for them, nothing is known.

    Args:
        rows: of one arm and seed, all rounds.
    """
    last = _last(rows)
    if last.all_clients is not msgspec.UNSET:
        return last.all_clients
    took_part = {each.partition for each in last.clients}
    count = last.settings.get("clients")
    if _partitions(rows) - took_part or (isinstance(count, int) and len(took_part) < count):
        return None
    return AllClients.of(_accuracies(last))


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


def _last(rows: Sequence[Row]) -> Row:
    return max(rows, key=lambda row: row.round)


def _accuracies(row: Row) -> list[float]:
    return [each.accuracy for each in row.clients if each.accuracy is not None]


def _partitions(rows: Sequence[Row]) -> set[int]:
    """Every client that rows tell of, those that skipped a round included."""
    skipped = {each.partition for row in rows if row.skipped is not msgspec.UNSET for each in row.skipped}
    return skipped | {each.partition for row in rows for each in row.clients}


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
