"""Batteries of a study's clients, as its server sees them: who joins a round, and what the masks of those may cost.

    stand = begin(supply)
    each round:  due = charger.invite(number, stand, guests)    recharged; who joins, who skips and why
                 (those who join train under their caps)
                 stand, clients = charger.settle(due, clients, worths)

A round's fixed part, what it costs before any coordinate, is worked out beforehand from the prices and never too low
where the prices tell it. Where it turns out dearer all the same, the battery pays it, from its reserve if need be and
down to empty, the log says so, and later rounds of this client reckon with as much more.
"""

from __future__ import annotations

import logging
from bisect import bisect_left
from collections.abc import Mapping, Sequence
from dataclasses import astuple, dataclass, field, replace
from typing import Any

import msgspec
import numpy as np
import numpy.typing as npt

from joulewise import pacing
from joulewise.charges import MASK_TERMS, total
from joulewise.flower.bill import Bill
from joulewise.pacing import Allowance, Battery, Pace
from joulewise.results import ClientResult, Skipped
from joulewise.schedules import Even, Priced, Schedule

ByRound = tuple[tuple[float, ...], ...]
"""Numbers of a trace, by round and then by client; empty for none."""

_log = logging.getLogger("joulewise")


@dataclass(frozen=True, slots=True)
class Supply:
    """What the clients of an arm live on.

    Args:
        batteries: of each client; empty where they have none.
        schedule: how a battery is spread over the rounds.
        recharge: joules by which batteries are charged before each round.
        available: 1 for a client that can take part in a round, 0 for one that cannot.
        link: what a bit costs in each round, as a multiple of what the device says.
    """

    batteries: tuple[Battery, ...] = ()
    schedule: Schedule = Even()  # noqa: RUF009 (a frozen record)
    recharge: ByRound = ()
    available: ByRound = ()
    link: ByRound = ()


@dataclass(frozen=True, slots=True)
class Stand:
    """Where the clients stand between two rounds.

    Args:
        paces: of each client with a battery.
        dearer_j: by how much a client's fixed part has turned out dearer than it was worked out, at most.
    """

    paces: tuple[Pace, ...] = ()
    dearer_j: tuple[float, ...] = ()

    def charge_j(self, client: int) -> float | None:
        """Energy in a client's battery, joules; None where it has none."""
        return self.paces[client].charge_j if self.paces else None


@dataclass(frozen=True, slots=True)
class Cap:
    """What the mask of a node may cost.

    Args:
        most_j: energy.
        least_price: value per joule of what it keeps; 0 to hear what a joule was worth; None where nobody asks.
    """

    most_j: float
    least_price: float | None = None


@dataclass(frozen=True, slots=True)
class Due:
    """A round that is about to begin.

    Args:
        number: of the round.
        stand: where the clients stand, recharged.
        joining: nodes that take part.
        caps: of those that have a battery, by node.
        allowed: what `pacing.allowance` said, by client.
        fixed_j: what it was said for, by client.
        skipped: clients that were to take part and do not.
    """

    number: int
    stand: Stand
    joining: tuple[int, ...] = ()
    caps: Mapping[int, Cap] = field(default_factory=dict)
    allowed: Mapping[int, Allowance] = field(default_factory=dict)
    fixed_j: Mapping[int, float] = field(default_factory=dict)
    skipped: tuple[Skipped, ...] = ()

    def without(self, client: int, reason: str) -> Due:
        """The round without a client."""
        skip = Skipped(partition=client, reason=reason, battery_j=self.stand.charge_j(client))
        return replace(self, skipped=tuple(sorted((*self.skipped, skip), key=lambda each: each.partition)))

    def with_allowed(self, node: int, client: int, fixed_j: float, allowed: Allowance, asks: bool) -> Due:
        """The round with a client that has a battery, or without it where that does not allow it to join."""
        due = replace(self, allowed={**self.allowed, client: allowed}, fixed_j={**self.fixed_j, client: fixed_j})
        if allowed.reason is not None:
            return due.without(client, allowed.reason)
        cap = Cap(allowed.mask_j, (allowed.price or 0.0) if asks else None)
        return replace(due, joining=(*due.joining, node), caps={**due.caps, node: cap})


def begin(supply: Supply) -> Stand:
    """Where the clients stand before the first round."""
    paces = tuple(Pace(float(battery.charge_j)) for battery in supply.batteries)
    return Stand(paces, (0.0,) * len(paces))


@dataclass(frozen=True, slots=True, eq=False)
class Charger:
    """The rules by which rounds are joined; what changes from round to round is in the `Stand`.

    Args:
        supply: what the clients live on.
        bill: what rounds cost them before any coordinate; None where they have no batteries.
        partitions: client of each node.
        turns: rounds in which each node is asked, rising: a client is paced over those.
    """

    supply: Supply
    bill: Bill | None
    partitions: Mapping[int, int]
    turns: Mapping[int, Sequence[int]]

    @staticmethod
    def of(supply: Supply, bill: Bill | None, nodes: Mapping[int, int], guests: Mapping[int, Sequence[int]]) -> Charger:
        """The charger of a run, by the node of each client and the nodes of each round."""
        turns: dict[int, list[int]] = {node: [] for node in nodes.values()}
        for number in sorted(guests):
            for node in guests[number]:
                turns[node].append(number)
        return Charger(supply, bill, {node: client for client, node in nodes.items()}, turns)

    def invite(self, number: int, stand: Stand, guests: Sequence[int]) -> Due:
        """Recharge all batteries, and find who of a round's guests joins it."""
        due = Due(number, self._recharged(number, stand))
        for node in guests:
            client = self.partitions[node]
            if self.supply.available and not self.supply.available[number - 1][client]:
                due = due.without(client, "not available in this round")
            elif self.bill is None:
                due = replace(due, joining=(*due.joining, node))
            else:
                due = due.with_allowed(node, client, *self._allowance(self.bill, due, node))
        return due

    def settle(
        self, due: Due, clients: Sequence[ClientResult], worths: Mapping[int, float | None]
    ) -> tuple[Stand, tuple[ClientResult, ...]]:
        """Charge the batteries what the round has cost.

        Args:
            due: the round.
            clients: what those did who joined.
            worths: value per joule of what each has kept last, where it said so.

        Returns:
            Where the clients stand after it, and their results with what is left and what they were allowed.
        """
        if not self.supply.batteries:
            return due.stand, tuple(clients)
        paces, dearer_j = list(due.stand.paces), list(due.stand.dearer_j)
        for client, allowed in due.allowed.items():
            if allowed.skips:
                paces[client] = pacing.spend(self.supply.batteries[client], paces[client], allowed, 0.0, 0.0)
        for result in clients:
            client = result.partition
            paces[client], more_j = self._paid(due, result, worths.get(client))
            dearer_j[client] += more_j
        stand = Stand(tuple(paces), tuple(dearer_j))
        return stand, tuple(_told(result, due.allowed[result.partition], stand) for result in clients)

    def _recharged(self, number: int, stand: Stand) -> Stand:
        if not self.supply.recharge:
            return stand
        joules = self.supply.recharge[number - 1]
        each = zip(self.supply.batteries, stand.paces, joules, strict=True)
        return replace(stand, paces=tuple(pacing.recharge(*one) for one in each))

    def _allowance(self, bill: Bill, due: Due, node: int) -> tuple[float, Allowance, bool]:
        """What a client's round costs before any coordinate, what it may cost, and whether worths matter."""
        client, supply = self.partitions[node], self.supply
        need = bill.need(client, supply.link[due.number - 1][client] if supply.link else 1.0)
        fixed_j = need.fixed_j + due.stand.dearer_j[client]
        left = len(self.turns[node]) - bisect_left(self.turns[node], due.number)
        battery, pace = supply.batteries[client], due.stand.paces[client]
        allowed = pacing.allowance(battery, pace, fixed_j, left, supply.schedule, wanted_j=need.wanted_j)
        return fixed_j, allowed, isinstance(supply.schedule, Priced)

    def _paid(self, due: Due, result: ClientResult, worth: float | None) -> tuple[Pace, float]:
        """Where a client stands after its round, and by how much its fixed part was dearer than thought."""
        client = result.partition
        battery, thought_j, allowed = self.supply.batteries[client], due.fixed_j[client], due.allowed[client]
        mask_j = total(charge for charge in result.charges if charge.term in MASK_TERMS)
        fixed_j = total(charge for charge in result.charges if charge.term not in MASK_TERMS)
        more_j = max(fixed_j - thought_j, 0.0)
        pace = pacing.spend(battery, due.stand.paces[client], allowed, min(fixed_j, thought_j), mask_j, worth)
        if not more_j:
            return pace, 0.0
        pace = replace(pace, charge_j=max(pace.charge_j - more_j, 0.0), spent_j=pace.spent_j + more_j)
        if pace.charge_j < battery.reserve_j:
            _log.warning(
                "round %d, client %d: before any coordinate it cost %.4g J, %.4g J more than was worked out, which "
                "leaves %.4g J, less than the reserve of %.4g J",
                *(due.number, client, fixed_j, more_j, pace.charge_j, battery.reserve_j),
            )
        return pace, more_j


def _told(result: ClientResult, allowed: Allowance, stand: Stand) -> ClientResult:
    most = allowed.mask_j if result.allowed is None else min(result.allowed, allowed.mask_j)
    price = allowed.price if result.price is None else result.price
    return msgspec.structs.replace(result, allowed=most, price=price, battery_j=stand.charge_j(result.partition))


# ---------------------------------------------------------------- checkpoints


def pack(stand: Stand) -> npt.NDArray[np.float64]:
    """As an array, float64[clients, 8]; a price that is not known is NaN."""
    rows = [
        [np.nan if value is None else float(value) for value in (*astuple(pace), dearer_j)]
        for pace, dearer_j in zip(stand.paces, stand.dearer_j, strict=True)
    ]
    return np.array(rows, dtype=np.float64).reshape(len(rows), 8)


def unpack(packed: npt.NDArray[Any]) -> Stand:
    """The inverse of `pack`."""
    paces = [
        Pace(charge, None if np.isnan(price) else price, spent, allowed, saved, int(rounds), int(trials))
        for charge, price, spent, allowed, saved, rounds, trials, _ in packed.tolist()
    ]
    return Stand(tuple(paces), tuple(packed[:, 7].tolist()))
