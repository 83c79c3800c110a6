"""The charts of a report, as specifications of Vega-Lite."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from joulewise import notation, tables
from joulewise.chart_style import COLOURS, DASHES, SHAPES, Spec, altair, by_series
from joulewise.notation import Scale
from joulewise.outcomes import Arm, Summary
from joulewise.page import AXES, Panel
from joulewise.pareto import Interval
from joulewise.pareto import frontier as frontier_of
from joulewise.tabular import NONE

POINT_DETAILS = ("Arm", "Final accuracy", "Uplink energy", "Uplink bytes", "Kept", "Seeds")
FILLED = {"symbolStrokeWidth": 0}
"""Symbols of a legend without the dashes of their lines. Channels that share a legend must say the same of it."""

CURVE_DETAILS = ("Arm", "Round", "Accuracy", "Energy so far")


def can_be_log(found: Summary, axis: str) -> bool:
    """Whether every arm has a place on a logarithmic axis."""
    return all(getattr(arm, axis).mean > 0 for arm in found.arms)


def frontier(found: Summary, axis: str, scale: str) -> Spec:
    """Final accuracy of each arm against one of `page.AXES`, on a ``log`` or ``linear`` scale."""
    alt = altair()
    unit = _axis_scale(found, axis)
    whole = [arm for arm in found.arms if arm.complete]
    marks = frontier_of([getattr(arm, axis).mean for arm in whole], [arm.accuracy.mean for arm in whole])
    points = [_point(found, arm, axis, unit, bool(mark)) for arm, mark in zip(whole, marks, strict=True)]
    x_scale = _x_scale([value for point in points for value in (point["x"], point["x_low"], point["x_high"])], scale)
    title = [_axis_title(found, axis), f"({unit.name})"]
    base = alt.Chart().encode(
        x=alt.X("x:Q", title=title, scale=alt.Scale(**x_scale), axis=_x_axis(x_scale)),
        y=alt.Y("accuracy:Q", title="Final accuracy", scale=alt.Scale(zero=False), axis=alt.Axis(format="~%")),
    )
    colour, tooltip = by_series(found, "Color", whole, COLOURS), _tooltip(*POINT_DETAILS)
    layers = (
        base.mark_line(interpolate="step-after", strokeDash=[5, 4], opacity=0.6)
        .encode(order="x:Q")
        .transform_filter("datum.frontier"),
        base.mark_rule(opacity=0.55).encode(x="x_low:Q", x2="x_high:Q", color=colour),
        base.mark_rule(opacity=0.55).encode(y="low:Q", y2="high:Q", color=colour),
        base.mark_point(filled=True, size=85, opacity=1).encode(
            color=colour, shape=by_series(found, "Shape", whole, SHAPES), tooltip=tooltip
        ),
    )
    return _layered(layers, [_within(point, x_scale) for point in points], whole)


def _point(found: Summary, arm: Arm, axis: str, unit: Scale, mark: bool) -> dict[str, Any]:
    x: Interval = getattr(arm, axis)
    energy, sent = tables.energy_scale(found), notation.bytes_scale([arm.bytes_up.mean])
    return {
        "Arm": arm.label,
        "series": arm.series,
        "label": ", ".join(arm.group).removeprefix(_common_prefix(found)),
        "frontier": mark,
        "accuracy": arm.accuracy.mean,
        "low": _share(arm.accuracy.low, arm.accuracy.mean),
        "high": _share(arm.accuracy.high, arm.accuracy.mean),
        "x": x.mean / unit.divisor,
        "x_low": _or(x.low, x.mean) / unit.divisor,
        "x_high": _or(x.high, x.mean) / unit.divisor,
        "Final accuracy": f"{notation.percent(arm.accuracy)} %",
        "Uplink energy": f"{notation.scaled(arm.energy, energy)} {energy.name}",
        "Uplink bytes": f"{notation.scaled(arm.bytes_up, sent)} {sent.name}",
        "Kept": NONE if arm.kept_share is None else f"{notation.number(100 * arm.kept_share)} %",
        "Seeds": len(arm.runs),
    }


def _or(value: float | None, other: float) -> float:
    return other if value is None else value


def _share(value: float | None, other: float) -> float:
    """The end of an interval of an accuracy, drawn no further than accuracies go; the table has the whole."""
    return min(1.0, max(0.0, _or(value, other)))


def _common_prefix(found: Summary) -> str:
    """``density=`` where every arm's label begins with it: points are labelled by what follows."""
    names = {arm.group[0].partition("=") for arm in found.arms if arm.group}
    first = {name for name, _, _ in names}
    return f"{first.pop()}=" if len(first) == 1 and all(sign for _, sign, _ in names) else ""


def _axis_scale(found: Summary, axis: str) -> Scale:
    if axis == "energy":
        return tables.energy_scale(found)
    means = [getattr(arm, axis).mean for arm in found.arms]
    return notation.bytes_scale(means) if axis == "bytes_up" else notation.count_scale(means)


def _axis_title(found: Summary, axis: str) -> str:
    return tables.energy_name(found, AXES[axis]) if axis == "energy" else AXES[axis]


def _x_scale(values: Sequence[float], scale: str) -> dict[str, Any]:
    if scale == "linear":
        return {"type": "linear", "domain": [0, max(*values, 1e-12) * 1.05], "nice": False}
    positive = [value for value in values if value > 0]
    return {"type": "log", "domain": [min(positive) / 1.5, max(positive) * 1.5], "nice": False}


def _within(point: dict[str, Any], x_scale: dict[str, Any]) -> dict[str, Any]:
    """The point with its interval cut at the chart's edge: it may reach zero, a log axis cannot."""
    return point | {"x_low": max(point["x_low"], x_scale["domain"][0])}


def _x_axis(x_scale: Spec) -> Any:
    if x_scale["type"] == "linear":
        return altair().Axis(format="~r", tickCount=6)
    low, high = x_scale["domain"]
    steps = range(1, 10) if high / low < 5 else (1, 2, 5) if high / low < 2000 else (1,)
    decades = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    values = [step * 10.0**decade for decade in decades for step in steps]
    shown = [value for value in values if low <= value <= high]
    return altair().Axis(format="~r", values=shown, labelOverlap="greedy")


def curves(found: Summary, panel: Panel) -> Spec:
    """Accuracy of the arms of a panel after each round, over their energy so far."""
    alt = altair()
    unit = tables.energy_scale(found)
    every = [point for arm in found.arms for point in arm.curve]
    scale = "log" if all(point.energy > 0 for point in every) else "linear"
    x_scale = _x_scale([point.energy / unit.divisor for point in every], scale)
    lows = [_share(point.accuracy.low, point.accuracy.mean) for point in every]
    highs = [_share(point.accuracy.high, point.accuracy.mean) for point in every]
    y_scale = alt.Scale(domain=[min(lows), max(highs)], nice=True, zero=False)
    title = [tables.energy_name(found, "Uplink energy so far"), f"({unit.name})"]
    base = alt.Chart().encode(
        x=alt.X("x:Q", title=title, scale=alt.Scale(**x_scale), axis=_x_axis(x_scale)),
        color=by_series(found, "Color", panel.arms, COLOURS, **FILLED),
        detail="Arm:N",
    )
    y = {"title": "Accuracy", "scale": y_scale, "axis": alt.Axis(format="~%")}
    dash, tooltip = by_series(found, "StrokeDash", panel.arms, DASHES, **FILLED), _tooltip(*CURVE_DETAILS)
    last = alt.condition("datum.last", alt.value(1), alt.value(0))
    shape = by_series(found, "Shape", panel.arms, SHAPES, **FILLED)
    layers = (
        base.mark_area(opacity=0.15).encode(y=alt.Y("low:Q", **y), y2="high:Q"),
        base.mark_line(strokeWidth=1.8).encode(y=alt.Y("accuracy:Q", **y), strokeDash=dash),
        base.mark_point(filled=True, size=60).encode(
            y=alt.Y("accuracy:Q", **y), tooltip=tooltip, opacity=last, shape=shape
        ),
    )
    return _layered(layers, [point for arm in panel.arms for point in _curve(arm, unit)], panel.arms)


def _curve(arm: Arm, unit: Scale) -> list[dict[str, Any]]:
    return [
        {
            "Arm": arm.label,
            "series": arm.series,
            "x": point.energy / unit.divisor,
            "accuracy": point.accuracy.mean,
            "low": _share(point.accuracy.low, point.accuracy.mean),
            "high": _share(point.accuracy.high, point.accuracy.mean),
            "last": point is arm.curve[-1],
            "Round": point.round,
            "Accuracy": f"{notation.percent(point.accuracy)} %",
            "Energy so far": f"{notation.number(point.energy / unit.divisor)} {unit.name}",
        }
        for point in arm.curve
    ]


def _tooltip(*fields: str) -> list[Any]:
    return [altair().Tooltip(field=field, type="nominal") for field in fields]


def _layered(layers: Sequence[Any], points: Sequence[dict[str, Any]], arms: Sequence[Arm]) -> Spec:
    # The data joins after altair is done: it would copy and check every point once more for each layer.
    spec: Spec = altair().layer(*layers).to_dict(validate=False)
    bare = [{key: value for key, value in layer.items() if key != "data"} for layer in spec["layer"]]
    longest = max(len(arm.series) for arm in arms)
    return spec | {"layer": bare, "data": {"values": list(points)}, "usermeta": {"longest": longest}}
