"""A plan as one picture: predicted energy against kept mass, a line for each rule and value type.

Unbiased rules are not drawn. They scale up what they send, so that what they keep of the mass is not what they keep of
the update: that is told by their variance, which is in the table.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from joulewise.errors import ArgumentError, MissingExtra, OutputError
from joulewise.plan import Plan

PPI = 150
COLOURS = {
    "TopK": "#7a7a7a",
    "CWMP": "#d58e00",
    "Projection": "#0080c8",
    "RandomK": "#c45aa0",
}
NORMS = {"l2": "squared L2", "l1": "L1"}


def draw(found: Plan, path: Path, title: str) -> None:
    """Write the picture: kept squared L2 mass and kept L1 mass over energy.

    Args:
        found: what to draw.
        path: where; ``.svg``, ``.png`` or ``.pdf``.
        title: what to call the update.

    Raises:
        ArgumentError: every rule is unbiased, so that there is nothing to draw.
        OutputError: the file cannot be written.
        MissingExtra: altair or vl-convert is not installed.
    """
    subtitle = list(subtitle_of(found))
    try:
        import altair as alt  # noqa: PLC0415 (only a figure needs it)
        import vl_convert  # noqa: F401, PLC0415 (altair writes files with it)
    except ImportError as error:
        raise MissingExtra("report", "a figure") from error
    panels = [_panel(alt, found, norm) for norm in NORMS]
    heading = alt.TitleParams(f"{title} on {found.device}", subtitle=subtitle, fontSize=14)
    chart = alt.hconcat(*panels, spacing=30).properties(title=heading)
    chart = chart.configure_view(stroke=None).configure_title(
        anchor="start", fontSize=12, subtitleFontSize=11, offset=8
    )
    try:
        chart.save(str(path), format=path.suffix.lower()[1:], ppi=PPI)
    except OSError as error:
        raise OutputError(f"cannot write the figure to {path}: {error.strerror or error}") from error


def subtitle_of(found: Plan) -> Iterator[str]:
    """What the picture says of itself, line by line.

    Raises:
        ArgumentError: every rule is unbiased, so that there is nothing to draw.
    """
    unbiased = list(dict.fromkeys(type(each.rule).__name__ for each in found.choices if each.variance is not None))
    left_out = " and ".join(unbiased)
    if all(each.variance is not None for each in found.choices):
        raise ArgumentError(
            f"--figure draws kept mass, which says nothing of {left_out}: unbiased rules have a variance, which the "
            "table tells; add a rule such as TopK, or leave --figure out"
        )
    yield f"Predicted from one update of {found.parameters:,} parameters ({found.law}); boundary {found.boundary}."
    if unbiased:
        yield f"Not drawn: {left_out}, unbiased, of which not the kept mass but the variance counts."


def _panel(alt: Any, found: Plan, norm: str) -> Any:
    points = list(points_of(found, norm))
    shown = [rule for rule in COLOURS if any(each["rule"] == rule for each in points)]
    scale = alt.Scale(domain=shown, range=[COLOURS[rule] for rule in shown])
    values = list(dict.fromkeys(each["values"] for each in points))
    encoded: dict[str, Any] = {
        "x": alt.X(
            "energy:Q",
            title=f"Energy of what is kept ({found.unit})",
            scale=alt.Scale(type="log"),
            axis=alt.Axis(format=".3~s", tickCount=5, labelOverlap="greedy"),
        ),
        "y": alt.Y("mass:Q", title=f"Kept {NORMS[norm]} mass", axis=alt.Axis(format="%")),
        "color": alt.Color("rule:N", title=None, scale=scale),
    }
    base = alt.Chart(alt.Data(values=points)).encode(**encoded)
    line = base.mark_line()
    if len(values) > 1:
        line = line.encode(strokeDash=alt.StrokeDash("values:N", title=None, sort=values))
    return (line + base.mark_point(size=30, filled=True)).properties(width=300, height=240)


def points_of(found: Plan, norm: str) -> Iterator[dict[str, Any]]:
    """What is drawn: one point for each choice of a rule that is not unbiased, where it keeps something."""
    for each in found.choices:
        if each.variance is None and each.kept.energy > 0:
            mass = each.kept.l1 if norm == "l1" else each.kept.l2
            yield {"rule": type(each.rule).__name__, "values": each.values, "energy": each.kept.energy, "mass": mass}
