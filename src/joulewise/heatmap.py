"""What an arm kept of each tensor over the rounds, as a heat map in Vega-Lite."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

from joulewise.chart_style import Spec
from joulewise.keeping import Keeping

# Cividis (Nunez, Anderton and Renslow 2018) looks alike to readers with and without colour-blindness; its ends, of
# which one would vanish on white and the other on black, are left out.
COLOURS = ("#123570", "#3b496c", "#575d6d", "#707173", "#8a8779", "#a69d75", "#c4b56c", "#e4cf5b")
ROW, NARROW_ROW, FEW = 22, 12, 20
"""Pixels of a tensor's row, where there are few of them and where there are more."""


def of_arm(found: Keeping, arm: str) -> Spec:
    """The map of one arm; colours mean the same for all arms of a study.

    Args:
        found: what was kept.
        arm: name of the arm.
    """
    shares = found.elements is not None
    encoding = {
        "x": _rounds(found),
        "y": {
            "field": "name",
            "type": "nominal",
            "sort": None,
            "scale": {"domain": list(found.tensors)},
            "title": None,
            "axis": _names(),
        },
        "color": {
            "field": "kept",
            "type": "quantitative",
            "title": "Share kept" if shares else "Coordinates kept",
            "scale": {"type": "log", "domain": _domain(found), "range": list(COLOURS), "clamp": True},
            "legend": {"orient": "top", "gradientLength": 140, "tickCount": 3, "format": "~%" if shares else "~r"},
        },
        "tooltip": [
            {"field": field, "type": "nominal"} for field in ("Tensor", "Rounds", "Share kept" if shares else "Kept")
        ],
    }
    return {
        "mark": {"type": "rect", "aria": False},
        "encoding": encoding,
        "data": {"values": _cells(found, arm), "format": {"type": "csv", "parse": {"kept": "number"}}},
        "transform": _transforms(found),
        "description": "What was kept of each tensor in each round; the table below holds the numbers",
    }


def height(found: Keeping) -> int:
    """Pixels of the map without its axes."""
    return len(found.tensors) * (ROW if len(found.tensors) <= FEW else NARROW_ROW)


def _rounds(found: Keeping) -> dict[str, Any]:
    every = max(1, len(found.columns) // 10)
    shown = [first for place, (first, _) in enumerate(found.columns) if place % every == every - 1 or place == 0]
    axis = {"values": shown, "labelAngle": 0, "ticks": False, "grid": False}
    domain = [first for first, _ in found.columns]
    scale = {"domain": domain}
    return {"field": "first", "type": "ordinal", "title": "Round", "sort": None, "scale": scale, "axis": axis}


def _names() -> dict[str, Any]:
    return {"labelLimit": 150, "ticks": False, "domain": False}


def _domain(found: Keeping) -> list[float]:
    """From the least to the most that some arm kept, so that colours compare between arms; more than nothing."""
    values = [
        count / size
        for columns in found.counts.values()
        for counts in columns
        for count, size in zip(counts, found.elements or (1,) * len(counts), strict=True)
        if count and size
    ]
    low, high = (min(values), max(values)) if values else (0.1, 1.0)
    return [_rounded(low, math.floor), max(_rounded(high, math.ceil), 2 * _rounded(low, math.floor))]


def _rounded(value: float, way: Callable[[float], int]) -> float:
    """One digit, no more to the point than the number: down or up."""
    unit = 10.0 ** math.floor(math.log10(value))
    return float(f"{way(round(value / unit, 6)) * unit:.12g}")


def _cells(found: Keeping, arm: str) -> str:
    """A line for each cell, by number of column and tensor: names would be most of a large page."""
    sizes = found.elements or (1,) * len(found.tensors)
    lines = [
        f"{at},{tensor},{count / size:.4g}"
        for at, counts in enumerate(found.counts[arm])
        for tensor, (count, size) in enumerate(zip(counts, sizes, strict=True))
        if count and size
    ]
    return "\n".join(("at,tensor,kept", *lines))


def _transforms(found: Keeping) -> list[dict[str, str]]:
    kept = "format(datum.kept, '.3~p')" if found.elements is not None else "format(datum.kept, ',.3~r')"
    shown = "Share kept" if found.elements is not None else "Kept"
    firsts, lasts = ([column[end] for column in found.columns] for end in (0, 1))
    return [
        {"calculate": f"{firsts}[datum.at]", "as": "first"},
        {"calculate": f"{_strings(found.tensors)}[datum.tensor]", "as": "name"},
        {"calculate": "datum.name", "as": "Tensor"},
        {
            "calculate": f"datum.first == {lasts}[datum.at] ? datum.first : datum.first + ' to ' + {lasts}[datum.at]",
            "as": "Rounds",
        },
        {"calculate": kept, "as": shown},
    ]


def _strings(names: tuple[str, ...]) -> str:
    """Names as a list of an expression of Vega."""
    quoted = (name.replace("\\", "\\\\").replace("'", "\\'").replace("\n", " ") for name in names)
    return "[" + ", ".join(f"'{name}'" for name in quoted) + "]"
