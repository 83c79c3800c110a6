"""A plan of a fleet as one picture: kept value against the budget, a line for each allocation, and the bound."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from joulewise.errors import MissingExtra, OutputError
from joulewise.fleet import Allocation, OnePrice
from joulewise.fleetplan import FleetPlan

PPI = 150
BOUND = "no masks exceed"
COLOURS = {
    BOUND: "#b0b0b0",
    "OnePrice": "#0080c8",
    "OnePrice, least share 0.5": "#009e73",
    "EqualJoules": "#d58e00",
    "EqualCount": "#7a7a7a",
}
MASSES = {1: "L1", 2: "squared L2"}


def name_of(allocation: Allocation) -> str:
    """What an allocation is called: its kind, and its floor where it has one.

    Example:
        >>> name_of(OnePrice(2.0)), name_of(OnePrice(2.0, least_share=0.5))
        ('OnePrice', 'OnePrice, least share 0.5')
    """
    kind = type(allocation).__name__
    floor = allocation.least_share if isinstance(allocation, OnePrice) else 0.0
    return f"{kind}, least share {floor:g}" if floor else kind


def draw(found: FleetPlan, path: Path, title: str) -> None:
    """Write the picture.

    Args:
        found: what to draw.
        path: where; ``.svg``, ``.png`` or ``.pdf``.
        title: what to call the updates.

    Raises:
        OutputError: the file cannot be written.
        MissingExtra: altair or vl-convert is not installed.
    """
    try:
        import altair as alt  # noqa: PLC0415 (only a figure needs it)
        import vl_convert  # noqa: F401, PLC0415 (altair writes files with it)
    except ImportError as error:
        raise MissingExtra("report", "a figure") from error
    told = f"{found.clients} clients, {found.parameters:,} parameters, {type(found.rule).__name__}"
    heading = alt.TitleParams(title, subtitle=[f"{told}; boundary {found.boundary}."], fontSize=14)
    chart = _lines(alt, found).properties(title=heading, width=420, height=280)
    chart = chart.configure_view(stroke=None).configure_title(
        anchor="start", fontSize=12, subtitleFontSize=11, offset=8
    )
    try:
        chart.save(str(path), format=path.suffix.lower()[1:], ppi=PPI)
    except OSError as error:
        raise OutputError(f"cannot write the figure to {path}: {error.strerror or error}") from error


def _lines(alt: Any, found: FleetPlan) -> Any:
    encoded: dict[str, Any] = {
        "x": alt.X(
            "budget:Q",
            title=f"Budget of all masks of a round ({found.unit})",
            scale=alt.Scale(type="log"),
            axis=alt.Axis(format=".3~s", tickCount=5, labelOverlap="greedy"),
        ),
        "y": alt.Y("value:Q", title=f"Kept {MASSES[found.rule.norm or 1]} mass, weighted", axis=alt.Axis(format="%")),
        "color": alt.Color("name:N", title=None, scale=alt.Scale(domain=list(COLOURS), range=list(COLOURS.values()))),
    }
    points = list(points_of(found))
    # The bound is broad and lies below: one price is often as good, and would hide it.
    below, above = ([each for each in points if (each["name"] == BOUND) is behind] for behind in (True, False))
    lines = alt.Chart(alt.Data(values=above)).encode(**encoded)
    bound = alt.Chart(alt.Data(values=below)).mark_line(strokeWidth=8).encode(**encoded)
    return bound + lines.mark_line() + lines.mark_point(size=30, filled=True)


def points_of(found: FleetPlan) -> Iterator[dict[str, Any]]:
    """What is drawn: a point for each allocation and budget, and the bound at each budget."""
    for offer in found.offers:
        yield {"name": BOUND, "budget": offer.budget, "value": offer.bound}
        for each in offer.divisions:
            yield {"name": name_of(each.allocation), "budget": offer.budget, "value": each.value}
