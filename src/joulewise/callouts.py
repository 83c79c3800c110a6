"""Labels of a frontier's points: on a screen laid out where there is room, in a figure left out where there is none."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from joulewise.chart_style import SCREEN_INK, Spec

SIZE, LETTER, ASIDE, ABOVE = 10, 5.6, 6, 8
"""Pixels: of the letters, of a letter's width on average, from the point to the side and up."""

POINTS, LINE = "layer_3_marks", "layer_0_marks"
"""What Vega calls the points of a frontier and the line through them, by their layers."""

ANCHORS = ("top-left", "top-right", "bottom-right", "bottom-left", "left", "right")


def on_screen(spec: Spec) -> Spec:
    """The chart with labels that Vega places when it is drawn: none over another, over a point or beyond the edge.

    Args:
        spec: of Vega-Lite; its data have ``label`` and ``frontier``.
    """
    text = {"signal": "datum.datum.frontier ? datum.datum.label : ''"}
    look = {"text": text, "fontSize": {"value": SIZE}, "fill": {"value": SCREEN_INK}}
    place = {
        "type": "label",
        "size": {"signal": "[max(1, width), max(1, height)]"},  # a window that is being resized may have none
        "anchor": list(ANCHORS),
        "offset": [4] * len(ANCHORS),
        "avoidMarks": [LINE],
    }
    mark = {"type": "text", "from": {"data": POINTS}, "encode": {"enter": look}, "transform": [place]}
    return spec | {"usermeta": spec.get("usermeta", {}) | {"labels": mark}}


def in_figure(spec: Spec, width: float, height: float) -> Spec:
    """The chart with a layer of those labels that overlap no other, up and left of their points: no arm lies there."""
    points = spec["data"]["values"]
    across, up = (spec["layer"][-1]["encoding"][channel] for channel in ("x", "y"))
    low, high = min(one["low"] for one in points), max(one["high"] for one in points)
    places = [
        (width * _share(one["x"], across["scale"]), height * (high - one["accuracy"]) / max(high - low, 1e-9))
        for one in points
    ]
    shown = _fitting([one["label"] if one["frontier"] else "" for one in points], places)
    values = [one | {"shown": bool(each)} for one, each in zip(points, shown, strict=True)]
    mark = {"type": "text", "align": "right", "dx": -ASIDE, "dy": -ABOVE, "fontSize": SIZE, "opacity": 0.8}
    encoding = {"x": across, "y": up, "text": {"field": "label", "type": "nominal"}}
    layer = {"mark": mark, "encoding": encoding, "transform": [{"filter": "datum.shown"}]}
    return spec | {"layer": [*spec["layer"], layer], "data": {"values": values}}


def _share(x: float, scale: Mapping[str, Any]) -> float:
    """How far right a number stands, from 0 to 1."""
    low, high = scale["domain"]
    if scale["type"] == "log":
        return math.log(x / low) / math.log(high / low)
    return float((x - low) / (high - low))


def _fitting(labels: Sequence[str], places: Sequence[tuple[float, float]]) -> list[bool]:
    """Which labels to show, the first first: those that lie over none that is shown, and not beyond the left edge."""
    taken: list[tuple[float, float, float]] = []
    shown = []
    for label, (x, y) in zip(labels, places, strict=True):
        right = x - ASIDE
        left = right - LETTER * len(label)
        free = left >= 0 and not any(left < end and right > begin and abs(y - v) < SIZE + 2 for begin, end, v in taken)
        shown.append(bool(label) and free)
        if shown[-1]:
            taken.append((left, right, y))
    return shown
