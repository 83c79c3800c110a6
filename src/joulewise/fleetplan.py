"""Divide a fleet's joules from one recorded update of every client, before any training."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import msgspec

from joulewise.costs import Costs
from joulewise.devices import Device, Unit
from joulewise.errors import ArgumentError, UpdateError
from joulewise.fleet import EqualCount, EqualJoules, OnePrice
from joulewise.layout import Layout, Vector
from joulewise.offers import Clients, Division, Offer, offer
from joulewise.prices import Boundary, price
from joulewise.rules import CWMP, Projection
from joulewise.select import checked_vector
from joulewise.verdict import Answer, answer_to, percent

SHARES = (0.003, 0.01, 0.1)
VALUE_BITS = 32
ALIKE = 1.01
"""Below this ratio of their prices clients pay alike."""
SETTLING = 8
"""Times that the density is told from a budget in joules, which hangs on it by a logarithm."""


class FleetPlan(msgspec.Struct, frozen=True, kw_only=True):
    """What every allocation is expected to keep at every budget.

    Args:
        unit: of every energy here, ``J`` or ``relative``.
        boundary: what prices take in.
        rule: that ranks, and whose value is counted: L1 mass of CWMP, squared L2 mass of Projection.
        clients: how many.
        parameters: of the model.
        price_ratio: mean price of a coordinate at the dearest client over that at the cheapest, at the first budget.
        offers: one for each budget, the smallest first.
        answer: whether one price matters here, in three words at most.
        verdict: the answer and its reasons, in sentences.
        notes: what else a reader should know.
    """

    unit: Unit
    boundary: str
    rule: CWMP | Projection
    clients: int
    parameters: int
    price_ratio: float
    offers: tuple[Offer, ...]
    answer: Answer
    verdict: str
    notes: tuple[str, ...]


def plan_fleet(  # noqa: PLR0913 (the parts of one question, by name)
    updates: Sequence[Any],
    layout: Layout,
    devices: Sequence[Device],
    *,
    examples: Sequence[int] | None = None,
    rule: CWMP | Projection | None = None,
    shares: Sequence[float] = (),
    budgets: Sequence[float] = (),
    boundary: Boundary | None = None,
) -> FleetPlan:
    """Divide budgets among clients by every allocation, select what each client may keep, and hold it against a bound.

    Selections are real ones, of the updates given; divisions are those that `joulewise.fleet.hand_out` makes of the
    clients' curves. The bound is that of one greedy over all updates at once, `joulewise.pooled`. Prices are of 32-bit
    values, and of places at the density that is the budget's share of sending everything.

    Args:
        updates: float32[n] of each client, of one round.
        layout: of the model.
        devices: of each client.
        examples: of each client, by which its update weighs in the average; None for all alike.
        rule: CWMP unless given.
        shares: budgets as shares of what it takes that all clients send everything.
        budgets: budgets in the unit of the prices; without either 0.3 %, 1 % and 10 %.
        boundary: what prices take in, as in `joulewise.price`; None: ``radio``, or ``memory`` where no device has a
            link.

    Raises:
        ArgumentError: there is no client, another number of devices or examples than of updates, units differ, or a
            budget is out of range or buys nothing.
        UpdateError: an update has another length, or holds NaN or infinity, or all of them are zero.
        CostError: a device has no link, and others do.

    Example:
        >>> import numpy as np
        >>> from joulewise.devices import load_device
        >>> layout, rng = Layout.of({"fc.weight": np.ones((10, 400))}), np.random.default_rng(0)
        >>> updates = [rng.laplace(size=4000).astype(np.float32) for _ in range(2)]
        >>> links = [load_device("synthetic-link-1"), load_device("synthetic-link-100")]
        >>> found = plan_fleet(updates, layout, links, shares=[0.01])
        >>> [(type(d.allocation).__name__, round(d.of_bound, 2), round(d.times_equal_count, 1))
        ...  for d in found.offers[0].divisions]
        [('EqualCount', 0.12, 1.0), ('EqualJoules', 0.88, 15.4), ('OnePrice', 1.0, 18.8), ('OnePrice', 0.98, 18.2)]
        >>> found.answer
        'matters'
    """
    vectors = _checked(updates, layout, devices, examples)
    _check_budgets(shares, budgets)
    linked = any(each.link is not None or each.unit == "relative" for each in devices)
    market = _Market(layout, tuple(devices), boundary or ("radio" if linked else "memory"))
    asked: list[tuple[float, float | None]] = [(each, None) for each in shares]
    asked += [(market.share_of(each), each) for each in budgets]
    weighing = tuple(examples) if examples is not None else (1,) * len(vectors)
    names = tuple(each.name for each in devices)
    asked = asked or [(each, None) for each in SHARES]
    clients = Clients(vectors, market.costs(asked[0][0]), weighing, rule or CWMP(), names)
    offers = []
    for share, budget in asked:
        there = replace(clients, costs=market.costs(share))
        offers.append(offer(there, share * math.fsum(there.dense) if budget is None else budget, share))
    return _told(clients, sorted(offers, key=lambda each: each.budget))


def _checked(
    updates: Sequence[Any], layout: Layout, devices: Sequence[Device], examples: Sequence[int] | None
) -> tuple[Vector, ...]:
    counts = {len(updates), len(devices), len(updates if examples is None else examples)}
    if len(counts) > 1 or not updates:
        counted = "" if examples is None else f" and {len(examples)} numbers of examples"
        raise ArgumentError(
            f"there are {len(updates)} updates, {len(devices)} devices{counted}, expected as many of each, and at "
            "least one"
        )
    units = {each.unit: each.name for each in devices}
    if len(units) > 1:
        listed = " and ".join(f"{name} in {unit}" for unit, name in units.items())
        raise ArgumentError(
            f"devices mix units of account ({listed}), which cannot be added up; take those of one unit"
        )
    if examples is not None and min(examples) < 1:
        raise ArgumentError(f"examples are {min(examples)} of a client, expected at least 1; leave that client out")
    vectors = tuple(checked_vector(each, layout) for each in updates)
    if not any(each.any() for each in vectors):
        raise UpdateError("every update is zero, so there is nothing to divide; record them after training")
    return vectors


def _check_budgets(shares: Sequence[float], budgets: Sequence[float]) -> None:
    for each in shares:
        if not 0 < each <= 1:
            raise ArgumentError(
                f"a share is {each:g}, expected above 0 and at most 1, of what sending everything takes"
            )
    for each in budgets:
        if not 0 < each < math.inf:
            raise ArgumentError(f"a budget is {each:g}, expected a finite energy above 0")


@dataclass(frozen=True, slots=True)
class _Market:
    """What coordinates cost at the clients."""

    layout: Layout
    devices: tuple[Device, ...]
    boundary: Boundary

    def costs(self, share: float) -> tuple[Costs, ...]:
        """Prices of each client where such a share of the coordinates is kept."""
        each = {one: price(self.layout, one, VALUE_BITS, share, boundary=self.boundary) for one in set(self.devices)}
        return tuple(each[one] for one in self.devices)

    def share_of(self, budget: float) -> float:
        """A budget as a share of what sending everything takes, at the prices of that share; 1 where it buys all."""
        share = SHARES[0]
        for _ in range(SETTLING):
            dense = math.fsum(float(each.layout.sizes @ each.per_kept) for each in self.costs(share))
            share = min(1.0, budget / dense)
        return share


# ---------------------------------------------------------------- what follows


def _told(clients: Clients, offers: Sequence[Offer]) -> FleetPlan:
    means = clients.dense
    ratio = max(means) / min(means)
    answer, verdict = _verdict(offers, ratio)
    costs = clients.costs[0]
    return FleetPlan(
        unit=costs.unit,
        boundary=costs.boundary,
        rule=clients.rule,
        clients=len(clients.updates),
        parameters=costs.layout.n,
        price_ratio=ratio,
        offers=tuple(offers),
        answer=answer,
        verdict=verdict,
        notes=tuple(_notes(clients, offers)),
    )


def _of(offer: Offer, kind: type[EqualCount | EqualJoules | OnePrice]) -> Division:
    """The first division by an allocation of this kind: of `OnePrice` the one without floors."""
    return next(each for each in offer.divisions if isinstance(each.allocation, kind))


def _verdict(offers: Sequence[Offer], ratio: float) -> tuple[Answer, str]:
    times = [_of(each, OnePrice).times_equal_count or 1.0 for each in offers]
    answer = answer_to(1 - 1 / max(times))
    alike = f"All clients pay {'the same' if ratio == 1 else 'nearly the same'} for a coordinate"
    if answer == "does not matter":
        more = percent(max(0.0, max(times) - 1))
        why = f" {alike}." if ratio < ALIKE else ""
        text = f"One price does not matter here: for the same value EqualCount needs at most {more} more energy.{why}"
        return answer, f"{text} Use EqualCount."
    needed = _listed([f"{each:.2f}x" for each in times])
    at = _listed([f"{100 * each.share:.3g} %" for each in offers])
    why = f" {alike}: it is saved by sending more of the clients whose updates are larger." if ratio < ALIKE else ""
    return answer, (
        f"One price {answer} here: EqualCount would need {needed} the energy of OnePrice for the same value, at {at} "
        f"of what sending everything takes.{why}"
    )


def _listed(parts: Sequence[str]) -> str:
    *most, last = parts
    return f"{', '.join(most)} and {last}" if most else last


def _notes(clients: Clients, offers: Sequence[Offer]) -> Iterator[str]:
    pairs = [(_of(each, EqualJoules).value, _of(each, OnePrice).value) for each in offers]
    least = min((equal / one for equal, one in pairs if one), default=1.0)
    yield f"EqualJoules, for which clients send no curve, keeps at least {percent(least)} of what OnePrice keeps"
    widest = max(offers, key=lambda each: _of(each, OnePrice).union - _of(each, EqualCount).union)
    one, equal = (_of(widest, kind).union for kind in (OnePrice, EqualCount))
    yield (
        f"what any client sends goes on to all: at {100 * widest.share:.3g} % the new model differs in {percent(one)} "
        f"of its coordinates under OnePrice, in {percent(equal)} under EqualCount; the downlink pays for that"
    )
    if any(each.blocks for each in clients.costs):
        yield "memory moves in whole lines or pages on a device here; what they take beside the coordinates is left out"
    yield "curves are of this very update; those of an earlier round divide less well"
