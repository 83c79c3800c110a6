"""`joulewise plan --fleet`: its options, its table, its figure."""

# Imports wait until the command runs: `joulewise --help` is to stay quick.
# ruff: noqa: PLC0415

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from rich.markup import escape

from joulewise.cli_explain import energy
from joulewise.errors import ArgumentError
from joulewise.terminal import empty_table, open_console, say

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table

    from joulewise.devices import Device
    from joulewise.fleetplan import FleetPlan
    from joulewise.offers import Division, Offer
    from joulewise.prices import Boundary
    from joulewise.rules import CWMP, Projection


def refuse(given: Mapping[str, object], why: str) -> None:
    """Refuse options that do not go with the others.

    Args:
        given: value of each option, by name; None where it was not typed.
        why: what they do not go with, and what to do.

    Raises:
        ArgumentError: one was typed.
    """
    for name, value in given.items():
        if value is not None:
            raise ArgumentError(f"{name} {why}")


def plan(
    files: Sequence[str],
    devices: Sequence[str],
    rules: Sequence[str],
    *,
    weights: Sequence[int],
    shares: Sequence[float],
    budgets: Sequence[float],
    boundary: Boundary | None,
    json: bool,
    figure: Path | None,
) -> None:
    """Plan for a fleet and print what was found; arguments are options as they were typed."""
    from joulewise import fleetplan
    from joulewise.fleetrecord import load_fleet

    _check_budgets(shares, budgets)
    rule, priced = _rule(rules), _load(devices, boundary)
    recorded = load_fleet(files)
    clients = len(recorded.updates)
    found = fleetplan.plan_fleet(
        recorded.updates,
        recorded.layout,
        _for_each(priced, clients),
        examples=_weights(weights, clients) or recorded.examples,
        rule=rule,
        shares=shares,
        budgets=budgets,
        boundary=boundary,
    )
    if figure is not None:
        from joulewise import fleet_figure

        fleet_figure.draw(found, figure, recorded.source)
    if json:
        import msgspec

        print(msgspec.json.format(msgspec.json.encode(found)).decode())  # noqa: T201 (for a program to read)
        return
    _show(found, recorded.source)
    if figure is not None:
        say(f"figure: {figure}")


# ---------------------------------------------------------------- what is typed


def _check_budgets(shares: Sequence[float], budgets: Sequence[float]) -> None:
    for each in shares:
        if not 0 < each <= 1:
            raise ArgumentError(f"--share is {each:g}, expected a share above 0 and at most 1, such as 0.01")
    for each in budgets:
        if not 0 < each < math.inf:
            raise ArgumentError(f"--budget is {each:g}, expected a finite energy above 0")


def _rule(names: Sequence[str]) -> CWMP | Projection:
    from joulewise.rules import CWMP, Projection

    if len(names) > 1:
        raise ArgumentError(
            f"--rule is given {len(names)} times, expected once with --fleet: all clients have one rule"
        )
    known: dict[str, CWMP | Projection] = {"CWMP": CWMP(), "Projection": Projection()}
    if names and names[0] not in known:
        raise ArgumentError(
            f"--rule is {names[0]!r}, expected CWMP or Projection with --fleet: the others have no value per joule"
        )
    return known[names[0]] if names else CWMP()


def _load(names: Sequence[str], boundary: Boundary | None) -> list[Device]:
    from joulewise.devices import load_device

    each = {name: load_device(name) for name in dict.fromkeys(names)}
    if len({device.unit for device in each.values()}) > 1:
        listed = " and ".join(f"{name} in {device.unit}" for name, device in each.items())
        raise ArgumentError(f"--device mixes units of account ({listed}), which cannot be added up; take those of one")
    unlinked = [name for name, device in each.items() if device.link is None and device.unit == "J"]
    if unlinked and boundary != "memory" and (boundary or len(unlinked) < len(each)):
        raise ArgumentError(f"--device {unlinked[0]} has no link; give --boundary memory, or a device with a link")
    return [each[name] for name in names]


def _for_each(devices: Sequence[Device], clients: int) -> list[Device]:
    if len(devices) not in {1, clients}:
        raise ArgumentError(
            f"--device is given {len(devices)} times for {clients} clients; give it once for all, or once for each in "
            "the order of the updates"
        )
    return [*devices] * (clients if len(devices) == 1 else 1)


def _weights(weights: Sequence[int], clients: int) -> tuple[int, ...]:
    if weights and len(weights) != clients:
        raise ArgumentError(
            f"--weight is given {len(weights)} times for {clients} clients; give each one's number of examples in the "
            "order of the updates, or leave it out"
        )
    if any(each < 1 for each in weights):
        raise ArgumentError(f"--weight is {min(weights)}, expected a number of examples of at least 1")
    return tuple(weights)


# ---------------------------------------------------------------- what is printed


def _show(found: FleetPlan, source: str) -> None:
    screen, rule = open_console(), type(found.rule).__name__
    screen.print(f"[bold]{escape(source)}[/]: {found.clients} clients, {found.parameters:,} parameters, {rule}")
    ratio = f"the dearest client pays {found.price_ratio:.3g}x what the cheapest pays for a coordinate"
    say(f"boundary {found.boundary}; {ratio}")
    for table in _tables(found, screen):
        screen.print(table)
    for note in (*_reading(found), *found.notes):
        say(f"note: {note}")
    screen.print()
    screen.print(f"[bold]Verdict:[/] {escape(found.verdict)}")


def _tables(found: FleetPlan, screen: Console) -> list[Table]:
    """One table with a column for each device; where the terminal is too narrow, a second one with a line for each."""
    pairs = [(offer, each) for offer in found.offers for each in offer.divisions]
    own = [_cells(offer, each, found.unit) for offer, each in pairs]
    together = _fitting(screen, [cells | _shares(each) for cells, (_, each) in zip(own, pairs, strict=True)])
    if together is not None:
        return [together]
    lines = [
        {name: cells[name] for name in ("Budget", "Allocation")}
        | {"Device": one.device, "Clients": f"{one.clients}"}
        | {"Of the energy": _percent(one.energy), "Of the mass": _percent(one.value)}
        for cells, (_, each) in zip(own, pairs, strict=True)
        for one in each.devices
    ]
    return [_fitting(screen, each) or _table(each, narrow=False) for each in (own, lines)]


def _fitting(screen: Console, rows: Sequence[Mapping[str, str]]) -> Table | None:
    """The table as wide as it likes, or as narrow as it can be; None where not even that fits."""
    unbounded = screen.options.update(max_width=WIDEST)
    tried = (_table(rows, narrow) for narrow in (False, True))
    return next((each for each in tried if screen.measure(each, options=unbounded).maximum <= screen.width), None)


def _table(rows: Sequence[Mapping[str, str]], narrow: bool) -> Table:
    """A table of which no number and no name is ever broken in two: the parts would read as others."""
    made = empty_table(*rows[0])
    for column in made.columns:
        name = str(column.header)
        cells = [part for row in rows for part in (row[name].split() if name in FOLDED else [row[name]])]
        column.no_wrap = False
        column.width = max(map(len, (*cells, *name.split()))) if narrow else None
    for row in rows:
        made.add_row(*row.values())
    return made


WIDEST = 10_000
FOLDED = ("Budget", "Allocation")
"""Columns whose cells may be folded, between words."""


def _cells(offer: Offer, each: Division, unit: str) -> dict[str, str]:
    from joulewise.fleet_figure import name_of

    times = each.times_equal_count
    return {
        "Budget": f"{100 * offer.share:.3g} %, {energy(offer.budget, unit)}",
        "Allocation": name_of(each.allocation),
        "Energy": energy(each.energy, unit),
        "Kept": f"{each.coordinates:,}",
        "Sent by any": _percent(each.union, 2),
        "Of the bound": _percent(each.of_bound, 2),
        "Equal count needs": "" if times is None else f"{times:.2f}x",
    }


def _shares(each: Division) -> dict[str, str]:
    return {f"{one.clients} x {one.device}": f"{_percent(one.energy)} / {_percent(one.value)}" for one in each.devices}


def _percent(share: float, digits: int = 1) -> str:
    from joulewise.verdict import percent

    return percent(share, digits)


def _reading(found: FleetPlan) -> Iterator[str]:
    mass = "L1" if found.rule.norm == 1 else "squared L2"
    yield (
        f"of the bound: kept {mass} mass, weighted as in the average, over what no masks within the budget exceed; "
        "under a device its share of the energy / of that mass"
    )
    yield (
        "energy is of kept coordinates, 32-bit values with places as at that share; header and what is sent whole come "
        "on top"
    )
