"""Tables of a study's devices: how many there are, their numbers with origins, what parameters cost on them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

from joulewise.background import Background, FleetLine
from joulewise.devices import Unit
from joulewise.fairness import devices_of
from joulewise.notation import energy_unit, exponent_of, number
from joulewise.outcomes import Summary
from joulewise.pacing import Battery
from joulewise.pricefile import DevicePrices, PriceList, TensorLine
from joulewise.results import Row
from joulewise.tabular import NONE, Table

ASSUMED = "assumed"
"""Kind of a number that a table marks: nobody measured it, nor is it in a source that was read."""

EVERY = "every"
"""Stands in a study's batteries for all devices that are not named."""

MOST_PRICES = 8
"""Lines that a device's prices may have; where there are more, prices are told apart by fewer digits."""

TRACES = {
    "recharge": "batteries are charged as {} says",
    "available": "clients are there as {} says",
    "link": "bits cost what {} says",
}


def fleet(found: Summary, rows: Iterable[Row], background: Background) -> Table | None:
    """How many clients have which device, and their batteries; None where rows do not name devices."""
    own = {row.arm: row for row in rows if row.study == found.study and row.energy_unit == found.unit}
    fleets = dict.fromkeys(devices_of(row.settings) for row in own.values())
    told = background.study.fleet if background.study else None
    batteries = (told.battery if told else None) or {}
    lines = [
        (_first(number, each), device, str(each.count(device)), *((_battery(batteries, device),) if batteries else ()))
        for number, each in enumerate([one for one in fleets if one], start=1)
        for device in dict.fromkeys(each)
    ]
    if not lines:
        return None
    several = len({line[0] for line in lines}) > 1
    heads = ("Fleet", "Device", "Clients", *(("Battery",) if batteries else ()))
    return Table(
        caption=f"{found.study}: the devices of the clients",
        columns=heads if several else heads[1:],
        rows=tuple(line if several else line[1:] for line in lines),
        notes=tuple(_traces(told)),
    )


def _first(number: int, devices: Sequence[str]) -> str:
    return f"{number}, of {len(devices)} clients"


def _battery(batteries: dict[str, Battery], device: str) -> str:
    battery = batteries.get(device, batteries.get(EVERY))
    if battery is None:
        return NONE
    parts = [f"{number(battery.charge_j)} J at the start"]
    parts += [f"{number(battery.capacity_j)} J when full"] if battery.capacity_j is not None else []
    parts += [f"{number(battery.reserve_j)} J held back"] if battery.reserve_j else []
    return ", ".join(parts)


def _traces(told: FleetLine | None) -> Iterator[str]:
    if told is None:
        return
    for key, words in TRACES.items():
        trace = getattr(told, key)
        if trace is not None:
            file = trace if isinstance(trace, str) else trace.get("file", "a trace")
            sentence = words.format(file)
            yield f"From round to round {sentence}."


def numbers(study: str, background: Background) -> Table | None:
    """Every number of every device with its origin; None where the folder does not have them."""
    lines = tuple(
        (device, entry.path, f"{entry.value:g} {entry.unit}", entry.kind, str(entry.year), entry.source)
        for device, entries in background.numbers.items()
        for entry in entries
    )
    if not lines:
        return None
    assumed = sum(line[3] == ASSUMED for line in lines)
    return Table(
        caption=f"{study}: the devices' numbers, and where they come from",
        columns=("Device", "Number", "Value", "Kind", "Year", "Source"),
        rows=lines,
        notes=(
            f"{assumed} of {len(lines)} numbers are assumed: second-hand, remembered, or chosen to compare rules. What "
            "follows from them is no better known.",
        ),
    )


def shares(study: str, prices: PriceList | None) -> Table | None:
    """How many parameters cost what on each device; None where the folder does not say."""
    if prices is None or not prices.devices:
        return None
    units = {each.unit for each in prices.devices.values()}
    unit: Unit = "J" if units == {"J"} else "relative"
    scale = energy_unit(unit, exponent_of([one for each in prices.devices.values() for one in each.per_kept]))
    first = next(iter(prices.devices.values()))
    return Table(
        caption=f"{study}: what a kept coordinate costs, and how many parameters cost that",
        columns=("Device", f"Price ({scale.name})", "Share of parameters (%)", "Parameters", "Tensors", "Made of"),
        rows=tuple(
            line for name, each in prices.devices.items() for line in _priced(name, each, prices.tensors, scale.divisor)
        ),
        notes=(
            f"Prices at {first.value_bits} bits of value and positions of {100 * first.density:g} % kept, boundary "
            f"{first.boundary}; an arm's own differ by its value type and density.",
        ),
    )


def _priced(
    device: str, prices: DevicePrices, tensors: Sequence[TensorLine], divisor: float
) -> Iterator[tuple[str, ...]]:
    """A line for each price of a device, the cheapest first."""
    digits = next((d for d in (3, 2) if len({f"{p:.{d}g}" for p in prices.per_kept}) <= MOST_PRICES), 1)
    groups: dict[float, list[int]] = {}
    for place, price in enumerate(prices.per_kept):
        groups.setdefault(float(f"{price:.{digits}g}"), []).append(place)
    total = sum(tensor.elements for tensor in tensors) or 1
    for price in sorted(groups):
        held = [tensors[place] for place in groups[price]]
        elements = sum(tensor.elements for tensor in held)
        share, kinds = number(100 * elements / total), ", ".join(dict.fromkeys(tensor.kind for tensor in held))
        counts = (share, f"{elements:,}", f"{len(held)}: {kinds}")
        yield device, number(price / divisor), *counts, _terms(prices, groups[price])


def _terms(prices: DevicePrices, places: Sequence[int]) -> str:
    """The terms of a price by their shares of it, the largest first."""
    sums = {name: sum(each[place] for place in places) for name, each in prices.terms.items()}
    whole = sum(sums.values())
    parts = sorted(((value / whole, name) for name, value in sums.items() if value), reverse=True)
    return ", ".join(f"{name.replace('_', ' ')} {number(100 * share)} %" for share, name in parts)
