"""Rows to one self-contained page that opens offline, and to figures for papers."""

from __future__ import annotations

import contextlib
import math
import re
from collections.abc import Iterable, Sequence
from functools import cache
from pathlib import Path
from types import ModuleType
from typing import Any

from joulewise import page, tables
from joulewise.errors import MissingExtra, OutputError
from joulewise.page import AXES, SCALES, Panel, Provenance
from joulewise.pareto import Interval, frontier
from joulewise.results import Row
from joulewise.summary import RULE_ORDER, Arm, Summary, summary
from joulewise.tables import Scale, table

__all__ = ["summary", "table", "write"]

# Okabe and Ito's colours, which colour-blind readers tell apart, darkened to show on white and on black.
COLOURS = ("#808080", "#d58e00", "#0080c8", "#009e73", "#cc6699", "#d55e00")
SHAPES = ("circle", "square", "triangle-up", "diamond", "cross", "triangle-down")
DASHES = ([1, 0], [6, 2], [1, 0], [3, 2], [8, 2, 2, 2], [2, 2])
POINT_DETAILS = ("Arm", "Final accuracy", "Uplink energy", "Uplink bytes", "Kept", "Seeds")
CURVE_DETAILS = ("Arm", "Round", "Accuracy", "Energy so far")
SCREEN_INK, PAPER_INK = "currentColor", "#1b1f24"
LINES = {"symbolType": "stroke", "symbolStrokeWidth": 2, "symbolSize": 250}
FIGURE_WIDTH, FIGURE_PPI = 420, 150

Spec = dict[str, Any]


def write(
    rows: Iterable[Row],
    out: str | Path,
    study_text: str | None = None,
    command: str | None = None,
    metered: Sequence[str] = (),
) -> tuple[Path, ...]:
    """Write ``report.html`` and ``figures/*.svg, *.png, *.pdf`` into a folder.

    Args:
        rows: of one study or several.
        out: the folder; made when missing. Files of an earlier report are written over.
        study_text: the study as TOML or JSON, for the page's last part.
        command: what to type to run the study again.
        metered: what meters read over the whole run, line by line.

    Returns:
        The files written, the page first.

    Raises:
        OutputError: there are no rows, they do not fit together, or the folder cannot be written.
        MissingExtra: altair or vl-convert is not installed.
    """
    rows = tuple(rows)
    found = summary(rows)
    charts = {key: chart for number, one in enumerate(found) for key, chart in _charts(one, number).items()}
    provenance = Provenance(rows=rows, study_text=study_text, command=command, metered=tuple(metered))
    text = page.render(found, charts, _bundle(), provenance)
    out = Path(out)
    try:
        (out / "figures").mkdir(parents=True, exist_ok=True)
        _put(out / "report.html", text.encode())
        figures = [path for number, one in enumerate(found) for path in _figures(one, _ending(found, number), out)]
    except OSError as error:
        raise OutputError(
            f"cannot write the report to {out}: {error.strerror or error}; mend that or give another --out to "
            "joulewise report: the rows are not touched"
        ) from error
    return (out / "report.html", *figures)


# ------------------------------------------------------------------------------------------- page and figures


def _charts(found: Summary, number: int) -> dict[str, dict[str, Spec]]:
    charts = {page.frontier_key(number): _frontier_variants(found)}
    for place, panel in enumerate(page.panels(found)):
        charts[page.curve_key(number, place)] = {"": _on_screen(_curves(found, panel), height=260)}
    return charts


def _frontier_variants(found: Summary) -> dict[str, Spec]:
    """Every axis on every scale; no logarithmic scale for an axis on which an arm is at zero."""
    return {
        f"{axis} {scale}": _on_screen(_frontier(found, axis, scale), height=420)
        for axis in AXES
        for scale in SCALES
        if scale == "linear" or _can_be_log(found, axis)
    }


def _can_be_log(found: Summary, axis: str) -> bool:
    return all(getattr(arm, axis).mean > 0 for arm in found.arms)


def _ending(found: Sequence[Summary], number: int) -> str:
    if len(found) == 1:
        return ""
    return f"-{number + 1}-" + (re.sub(r"[^a-z0-9]+", "-", found[number].study.lower()).strip("-") or "study")


def _figures(found: Summary, ending: str, out: Path) -> list[Path]:
    scale = "log" if _can_be_log(found, "energy") else "linear"
    size = {"width": FIGURE_WIDTH, "height": round(FIGURE_WIDTH * 0.7)}
    small = {"width": 300, "height": 200}
    panels = [_curves(found, panel) | small | {"title": panel.label} for panel in page.panels(found)]
    specs = {
        "frontier": _frontier(found, "energy", scale) | size,
        "accuracy-over-energy": {"concat": panels, "columns": 2},
    }
    return [path for name, spec in specs.items() for path in _save(spec, out / "figures" / f"{name}{ending}")]


def _save(spec: Spec, stem: Path) -> tuple[Path, ...]:
    convert = _vl_convert()
    spec = spec | {"config": _config(PAPER_INK) | {"background": "white"}}
    svg = convert.vegalite_to_svg(spec, vl_version=_vega_lite_version())
    paths = tuple(stem.parent / f"{stem.name}.{kind}" for kind in ("svg", "png", "pdf"))
    _put(paths[0], svg.encode())
    _put(paths[1], convert.svg_to_png(svg, ppi=FIGURE_PPI))
    _put(paths[2], convert.svg_to_pdf(svg))
    return paths


def _put(path: Path, content: bytes) -> None:
    """Write a file whole or not at all: a disk that fills up leaves what was there before."""
    temporary = path.with_name(f"{path.name}.tmp")
    try:
        temporary.write_bytes(content)
        temporary.replace(path)
    finally:
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)


@cache
def _bundle() -> str:
    return str(_vl_convert().javascript_bundle(vl_version=_vega_lite_version()))


def _vega_lite_version() -> str:
    return ".".join(_altair().SCHEMA_VERSION.lstrip("v").split(".")[:2])


def _altair() -> ModuleType:
    try:
        import altair  # noqa: PLC0415 (only a report needs it)
    except ImportError as error:
        raise MissingExtra("report", "a report") from error
    return altair


def _vl_convert() -> ModuleType:
    try:
        import vl_convert  # noqa: PLC0415 (only a report needs it)
    except ImportError as error:
        raise MissingExtra("report", "a report") from error
    return vl_convert


# ---------------------------------------------------------------------------------------------------- charts


def _frontier(found: Summary, axis: str, scale: str) -> Spec:
    alt = _altair()
    unit = _axis_scale(found, axis)
    whole = [arm for arm in found.arms if arm.complete]
    marks = frontier([getattr(arm, axis).mean for arm in whole], [arm.accuracy.mean for arm in whole])
    points = [_point(found, arm, axis, unit, bool(mark)) for arm, mark in zip(whole, marks, strict=True)]
    x_scale = _x_scale([value for point in points for value in (point["x"], point["x_low"], point["x_high"])], scale)
    title = [_axis_title(found, axis), f"({unit.name})"]
    base = alt.Chart().encode(
        x=alt.X("x:Q", title=title, scale=alt.Scale(**x_scale), axis=_x_axis(x_scale)),
        y=alt.Y("accuracy:Q", title="Final accuracy", scale=alt.Scale(zero=False), axis=alt.Axis(format="~%")),
    )
    colour, tooltip = _by_rule("Color", whole, COLOURS), _tooltip(*POINT_DETAILS)
    layers = (
        base.mark_line(interpolate="step-after", strokeDash=[5, 4], opacity=0.6)
        .encode(order="x:Q")
        .transform_filter("datum.frontier"),
        base.mark_rule(opacity=0.55).encode(x="x_low:Q", x2="x_high:Q", color=colour),
        base.mark_rule(opacity=0.55).encode(y="low:Q", y2="high:Q", color=colour),
        base.mark_text(align="right", dx=-5, dy=-7, fontSize=10, opacity=0.8)  # no arm lies up and left
        .encode(text="label:N")
        .transform_filter("datum.frontier"),
        base.mark_point(filled=True, size=85, opacity=1).encode(
            color=colour, shape=_by_rule("Shape", whole, SHAPES), tooltip=tooltip
        ),
    )
    return _layered(layers, [_within(point, x_scale) for point in points])


def _point(found: Summary, arm: Arm, axis: str, unit: Scale, mark: bool) -> dict[str, Any]:
    x: Interval = getattr(arm, axis)
    energy, sent = tables.energy_scale(found), tables.bytes_scale([arm.bytes_up.mean])
    return {
        "Arm": arm.name,
        "rule": arm.rule,
        "label": arm.variant.removeprefix(_common_prefix(found)),
        "frontier": mark,
        "accuracy": arm.accuracy.mean,
        "low": _share(arm.accuracy.low, arm.accuracy.mean),
        "high": _share(arm.accuracy.high, arm.accuracy.mean),
        "x": x.mean / unit.divisor,
        "x_low": _or(x.low, x.mean) / unit.divisor,
        "x_high": _or(x.high, x.mean) / unit.divisor,
        "Final accuracy": f"{tables.percent(arm.accuracy)} %",
        "Uplink energy": f"{tables.scaled(arm.energy, energy)} {energy.name}",
        "Uplink bytes": f"{tables.scaled(arm.bytes_up, sent)} {sent.name}",
        "Kept": tables.NONE if arm.kept_share is None else f"{tables.number(100 * arm.kept_share)} %",
        "Seeds": len(arm.runs),
    }


def _or(value: float | None, other: float) -> float:
    return other if value is None else value


def _share(value: float | None, other: float) -> float:
    """The end of an interval of an accuracy, drawn no further than accuracies go; the table has the whole."""
    return min(1.0, max(0.0, _or(value, other)))


def _common_prefix(found: Summary) -> str:
    """``density=`` where every arm's label begins with it: points are labelled by what follows."""
    names = {arm.variant.partition("=")[0] for arm in found.arms if arm.variant}
    return f"{names.pop()}=" if len(names) == 1 else ""


def _axis_scale(found: Summary, axis: str) -> Scale:
    if axis == "energy":
        return tables.energy_scale(found)
    means = [getattr(arm, axis).mean for arm in found.arms]
    return tables.bytes_scale(means) if axis == "bytes_up" else tables.count_scale(means)


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
        return _altair().Axis(format="~r", tickCount=6)
    low, high = x_scale["domain"]
    steps = (1, 2, 5) if high / low < 2000 else (1,)
    decades = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    values = [step * 10.0**decade for decade in decades for step in steps]
    shown = [value for value in values if low <= value <= high]
    return _altair().Axis(format="~r", values=shown, labelOverlap="greedy")


def _curves(found: Summary, panel: Panel) -> Spec:
    alt = _altair()
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
        color=_by_rule("Color", panel.arms, COLOURS, **LINES),
        detail="Arm:N",
    )
    y = {"title": "Accuracy", "scale": y_scale, "axis": alt.Axis(format="~%")}
    dash, tooltip = _by_rule("StrokeDash", panel.arms, DASHES, **LINES), _tooltip(*CURVE_DETAILS)
    layers = (
        base.mark_area(opacity=0.15).encode(y=alt.Y("low:Q", **y), y2="high:Q"),
        base.mark_line(strokeWidth=1.8).encode(y=alt.Y("accuracy:Q", **y), strokeDash=dash),
        base.mark_point(filled=True, size=60, opacity=0).encode(y=alt.Y("accuracy:Q", **y), tooltip=tooltip),
    )
    return _layered(layers, [point for arm in panel.arms for point in _curve(arm, unit)])


def _curve(arm: Arm, unit: Scale) -> list[dict[str, Any]]:
    return [
        {
            "Arm": arm.name,
            "rule": arm.rule,
            "x": point.energy / unit.divisor,
            "accuracy": point.accuracy.mean,
            "low": _share(point.accuracy.low, point.accuracy.mean),
            "high": _share(point.accuracy.high, point.accuracy.mean),
            "Round": point.round,
            "Accuracy": f"{tables.percent(point.accuracy)} %",
            "Energy so far": f"{tables.number(point.energy / unit.divisor)} {unit.name}",
        }
        for point in arm.curve
    ]


def _tooltip(*fields: str) -> list[Any]:
    return [_altair().Tooltip(field=field, type="nominal") for field in fields]


def _by_rule(channel: str, arms: Sequence[Arm], choices: Sequence[Any], **style: Any) -> Any:
    """An encoding that shows the rule; a rule looks the same in every chart, whichever rules are in it."""
    rules = list(dict.fromkeys(arm.rule for arm in arms))
    order = [*RULE_ORDER, *(rule for rule in rules if rule not in RULE_ORDER)]
    shown = [choices[order.index(rule) % len(choices)] for rule in rules]
    alt = _altair()
    legend = alt.Legend(**style)
    return getattr(alt, channel)("rule:N", title=None, scale=alt.Scale(domain=rules, range=shown), legend=legend)


def _layered(layers: Sequence[Any], points: Sequence[dict[str, Any]]) -> Spec:
    # The data joins after altair is done: it would copy and check every point once more for each layer.
    spec: Spec = _altair().layer(*layers).to_dict(validate=False)
    bare = [{key: value for key, value in layer.items() if key != "data"} for layer in spec["layer"]]
    return spec | {"layer": bare, "data": {"values": list(points)}}


def _on_screen(spec: Spec, height: int) -> Spec:
    fit = {"type": "fit-x", "contains": "padding"}
    return spec | {"width": "container", "height": height, "autosize": fit, "config": _config(SCREEN_INK)}


def _config(ink: str) -> Spec:
    axis: Spec = {f"{part}Color": ink for part in ("label", "title", "tick", "domain", "grid")}
    faint = {"gridOpacity": 0.13, "domainOpacity": 0.5, "tickOpacity": 0.5}
    return {
        "background": None,
        "axis": axis | faint | {"titleFontWeight": "normal", "labelFontSize": 11, "titleFontSize": 12},
        "legend": {
            "labelColor": ink,
            "orient": "bottom",
            "labelFontSize": 12,
            "symbolOpacity": 1,
            "columns": 4,
        },
        "title": {"color": ink, "fontSize": 12, "fontWeight": "normal", "anchor": "start"},
        "view": {"stroke": None},
        "text": {"color": ink},
        "line": {"color": ink},
    }
