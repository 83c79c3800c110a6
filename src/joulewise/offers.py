"""What each way to divide one budget keeps of recorded updates: real selections, held against a bound."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

import msgspec
import numpy as np

from joulewise.certificate import mass
from joulewise.costs import Costs
from joulewise.curves import Curve, Floats, curve_of
from joulewise.errors import ArgumentError
from joulewise.fleet import Allocation, Books, EqualCount, EqualJoules, Known, OnePrice, hand_out
from joulewise.layout import Vector
from joulewise.pooled import pooled
from joulewise.rules import CWMP, Budget, Count, Density, Projection
from joulewise.select import Selection, select

FLOOR = 0.5
"""The least share of one of the allocations."""
NEAR, NEARER = 1.01, 1.0005
"""Ratios of two counts between which energy and value are a straight line, and between which the lower one will do."""


class OfDevice(msgspec.Struct, frozen=True, kw_only=True):
    """What the clients of one device take and give.

    Args:
        device: its name.
        clients: how many have it.
        energy: their share of the energy.
        value: their share of the kept value.
    """

    device: str
    clients: int
    energy: float
    value: float


class Division(msgspec.Struct, frozen=True, kw_only=True):
    """What one allocation keeps.

    Args:
        allocation: that divides the budget; `EqualCount` at the density that the budget buys.
        energy: of the kept coordinates.
        value: kept value, ``sum_k p_k^p ||m_k a_k||_p^p``, as a share of that of all coordinates.
        of_bound: the same as a share of what no masks within the budget exceed.
        times_equal_count: how many times as much energy `EqualCount` needs for the same value; None where nothing is
            kept.
        coordinates: kept by all clients together.
        union: share of the model's coordinates that at least one client sends: in as many the new model differs.
        devices: by device, in the order of the clients.
    """

    allocation: Allocation
    energy: float
    value: float
    of_bound: float
    times_equal_count: float | None
    coordinates: int
    union: float
    devices: tuple[OfDevice, ...]


class Offer(msgspec.Struct, frozen=True, kw_only=True):
    """One budget, and what each allocation makes of it.

    Args:
        budget: energy of all masks of a round together.
        share: the same as a share of what it takes that all clients send everything.
        bound: what no masks within the budget exceed, as a share of the value of all coordinates.
        divisions: one for each allocation: `EqualCount`, `EqualJoules`, `OnePrice`, and `OnePrice` with floors.
    """

    budget: float
    share: float
    bound: float
    divisions: tuple[Division, ...]


@dataclass(frozen=True, slots=True, eq=False)
class Clients:
    """Clients of one round, each with the update that it has.

    Args:
        updates: float32[n] of each.
        costs: prices of each, in one unit.
        examples: of each, by which it weighs in the average.
        rule: that ranks.
        devices: name of the device of each.
    """

    updates: tuple[Vector, ...]
    costs: tuple[Costs, ...]
    examples: tuple[int, ...]
    rule: CWMP | Projection
    devices: tuple[str, ...]

    @property
    def dense(self) -> list[float]:
        """Energy of sending everything, by client."""
        return [
            float(each.per_kept.sum() if each.per_coordinate else each.layout.sizes @ each.per_kept)
            for each in self.costs
        ]

    @property
    def cheapest(self) -> float:
        """Price of the cheapest coordinate of all."""
        there = (each.per_kept if each.per_coordinate else each.per_kept[each.layout.sizes > 0] for each in self.costs)
        return min(float(each.min()) for each in there)

    @property
    def norm(self) -> Literal[1, 2]:
        """``p``: 1 for magnitudes, 2 for squares."""
        return 1 if isinstance(self.rule, CWMP) else 2

    @property
    def weights(self) -> list[float]:
        """``p_k``: shares of the clients in the average."""
        return [each / sum(self.examples) for each in self.examples]

    def values(self, kept: Sequence[Vector]) -> list[float]:
        """Weighted value of what each client keeps."""
        pairs = zip(self.weights, kept, strict=True)
        return [weight**self.norm * mass(each, self.norm) for weight, each in pairs]


def offer(clients: Clients, budget: float, share: float) -> Offer:
    """Divide a budget by every allocation.

    Args:
        clients: with prices at this share.
        budget: energy of all masks together, above 0.
        share: the same as a share of what sending everything takes.

    Raises:
        ArgumentError: the budget buys no coordinate of any client.
        UpdateError: an update holds NaN or infinity.
    """
    if budget < clients.cheapest:
        raise ArgumentError(
            f"a budget of {budget:.3g} buys nothing: the cheapest coordinate of the fleet costs "
            f"{clients.cheapest:.3g}; give a larger budget"
        )
    found = pooled(clients.updates, clients.costs, clients.weights, clients.rule, budget)
    equal, bound = _equal_count(clients, budget, share), found.certificate.bound
    kept = [(_density(equal, share), equal), *_ordered(clients, budget)]
    whole = math.fsum(clients.values(clients.updates))
    divisions = (_division(clients, allocation, each, equal, (bound, whole)) for allocation, each in kept)
    return Offer(budget=budget, share=share, bound=bound / whole, divisions=tuple(divisions))


# ---------------------------------------------------------------- what is kept


@dataclass(frozen=True, slots=True, eq=False)
class _Kept:
    """What clients keep; with `count` where all of them keep as many."""

    masks: tuple[Selection, ...]
    energies: Floats
    values: Floats
    count: int = 0

    @property
    def energy(self) -> float:
        return math.fsum(self.energies.tolist())

    @property
    def value(self) -> float:
        return math.fsum(self.values.tolist())


def _keep(clients: Clients, budgets: Sequence[Budget]) -> _Kept:
    each = zip(clients.updates, clients.costs, budgets, strict=True)
    masks = tuple(select(update, costs, clients.rule, budget) for update, costs, budget in each)
    values = clients.values([mask.values for mask in masks])
    return _Kept(masks, np.array([mask.spent for mask in masks]), np.array(values))


def _ordered(clients: Clients, budget: float) -> list[tuple[Allocation, _Kept]]:
    """What clients keep as a server orders that has their curves of this very update."""
    pairs = zip(clients.updates, clients.costs, strict=True)
    curves = [Curve.from_bytes(curve_of(update, costs, clients.rule).to_bytes()) for update, costs in pairs]
    said = enumerate(zip(clients.examples, clients.dense, curves, strict=True))
    known = {k: Known(examples, dense, curve, exponent=clients.norm) for k, (examples, dense, curve) in said}
    kept: list[tuple[Allocation, _Kept]] = []
    for allocation in (EqualJoules(budget), OnePrice(budget), OnePrice(budget, least_share=FLOOR)):
        orders, _ = hand_out(allocation, Books(), known)
        kept.append((allocation, _keep(clients, [orders[client].budget for client in known])))
    return kept


def _keep_count(clients: Clients, count: int) -> _Kept:
    return replace(_keep(clients, [Count(count)] * len(clients.updates)), count=count)


def _equal_count(clients: Clients, budget: float, share: float) -> _Kept:
    """As many coordinates of each client as the budget buys. Where a client has one price that is its share."""
    guess = _keep_count(clients, Density(min(1.0, share)).count(clients.updates[0].size))
    room = budget * (1 + 1e-12)
    if guess.energy <= room and guess.energy * NEARER >= budget:
        return guess
    nothing, everything = _keep_count(clients, 0), _keep_count(clients, clients.updates[0].size)
    if everything.energy <= room:
        return everything
    return _between(clients, nothing, everything, "energy", room, NEARER)[0]


def _between(
    clients: Clients, low: _Kept, high: _Kept, what: Literal["energy", "value"], target: float, ratio: float
) -> tuple[_Kept, _Kept]:
    """Two counts within a ratio of each other: the first reaches at most the target, the second more."""
    while high.count > max(low.count + 1, ratio * low.count):
        middle = _keep_count(clients, round(math.sqrt(max(1, low.count) * high.count)))
        low, high = (middle, high) if getattr(middle, what) <= target else (low, middle)
    return low, high


def _density(equal: _Kept, share: float) -> EqualCount:
    n = equal.masks[0].n
    as_asked = not equal.count or equal.count == Density(min(1.0, share)).count(n)
    return EqualCount(min(1.0, share) if as_asked else equal.count / n)


# ---------------------------------------------------------------- what it comes to


def _division(
    clients: Clients, allocation: Allocation, kept: _Kept, equal: _Kept, most: tuple[float, float]
) -> Division:
    bound, whole = most
    union = np.zeros(kept.masks[0].n, np.bool_)
    for mask in kept.masks:
        union[mask.indices] = True
    return Division(
        allocation=allocation,
        energy=kept.energy,
        value=kept.value / whole,
        of_bound=kept.value / bound,
        times_equal_count=_times(clients, kept, equal),
        coordinates=sum(mask.indices.size for mask in kept.masks),
        union=float(union.mean()),
        devices=_by_device(clients, kept),
    )


def _times(clients: Clients, kept: _Kept, equal: _Kept) -> float | None:
    if kept is equal or not kept.value:
        return 1.0 if kept.value else None
    ends = (
        (_keep_count(clients, 0), equal)
        if equal.value > kept.value
        else (equal, _keep_count(clients, equal.masks[0].n))
    )
    low, high = _between(clients, *ends, "value", kept.value, NEAR)
    rise = high.value - low.value
    part = min(1.0, max(0.0, (kept.value - low.value) / rise)) if rise > 0 else 0.0
    return (low.energy + part * (high.energy - low.energy)) / kept.energy


def _by_device(clients: Clients, kept: _Kept) -> tuple[OfDevice, ...]:
    found = []
    for device in dict.fromkeys(clients.devices):
        mine = np.array([each == device for each in clients.devices])
        shares = [float(each[mine].sum() / each.sum()) if each.any() else 0.0 for each in (kept.energies, kept.values)]
        found.append(OfDevice(device=device, clients=int(mine.sum()), energy=shares[0], value=shares[1]))
    return tuple(found)
