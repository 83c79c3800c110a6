"""How charts look: colours, shapes and dashes by line, fonts, sizes on a screen."""

from __future__ import annotations

from collections.abc import Sequence
from types import ModuleType
from typing import Any

from joulewise.errors import MissingExtra
from joulewise.outcomes import Arm, Summary
from joulewise.summary import RULE_ORDER

# Okabe and Ito's colours, which colour-blind readers tell apart, darkened to show on white and on black.
COLOURS = ("#808080", "#d58e00", "#0080c8", "#009e73", "#cc6699", "#d55e00", "#6a51a3")
SHAPES = ("circle", "square", "triangle-up", "diamond", "cross", "triangle-down", "triangle-right")
DASHES = ([1, 0], [6, 2], [12, 2], [3, 2], [8, 2, 2, 2], [2, 2], [14, 3, 2, 3])
SCREEN_INK, PAPER_INK = "currentColor", "#1b1f24"
LETTER, SYMBOL = 6.6, 30
"""Pixels that a letter of a legend takes on average, and its symbol with the gap."""

Spec = dict[str, Any]


def by_series(found: Summary, channel: str, arms: Sequence[Arm], choices: Sequence[Any], **style: Any) -> Any:
    """An encoding that tells the lines of a chart apart; one looks the same in every chart of a study.

    Lines that are rules alone look the same in every study, whichever rules are in it.
    """
    every = list(dict.fromkeys(arm.series for arm in found.arms))
    order = list(RULE_ORDER) if set(every) <= set(RULE_ORDER) else every
    shown = list(dict.fromkeys(arm.series for arm in arms))
    kinds = [_nth(choices, order.index(one), around=channel != "Color") for one in shown]
    alt = altair()
    legend = alt.Legend(**style)
    return getattr(alt, channel)("series:N", title=None, scale=alt.Scale(domain=shown, range=kinds), legend=legend)


def _nth(choices: Sequence[Any], place: int, around: bool) -> Any:
    """One of the choices; beyond their number those of one channel are shifted, so that no two lines are alike."""
    return choices[(place + place // len(choices) * around) % len(choices)]


def columns(longest: int, width: float, most: int = 4) -> int:
    """Columns of a legend whose longest entry has so many letters.

    Example:
        >>> columns(10, 420), columns(40, 420)
        (4, 1)
    """
    return max(1, min(most, int(width // (SYMBOL + LETTER * longest))))


def on_screen(spec: Spec, height: int) -> Spec:
    """The chart as wide as the page, in the colour of its text."""
    fit = {"type": "fit-x", "contains": "padding"}
    return spec | {"width": "container", "height": height, "autosize": fit, "config": config(SCREEN_INK)}


def in_print(spec: Spec, width: float) -> Spec:
    """The chart in black on white, with a legend that fits so many pixels."""
    look = config(PAPER_INK) | {"background": "white"}
    longest = spec.get("usermeta", {}).get("longest", 0)
    return spec | {"config": look | {"legend": look["legend"] | {"columns": columns(longest, width)}}}


def config(ink: str) -> Spec:
    """Fonts, grids and legends, drawn in one colour."""
    axis: Spec = {f"{part}Color": ink for part in ("label", "title", "tick", "domain", "grid")}
    faint = {"gridOpacity": 0.13, "domainOpacity": 0.5, "tickOpacity": 0.5}
    return {
        "background": None,
        "axis": axis | faint | {"titleFontWeight": "normal", "labelFontSize": 11, "titleFontSize": 12},
        "legend": {
            "labelColor": ink,
            "titleColor": ink,
            "titleFontWeight": "normal",
            "orient": "bottom",
            "labelFontSize": 12,
            "symbolOpacity": 1,
            "labelLimit": 0,
            "columns": 4,
        },
        "title": {"color": ink, "fontSize": 12, "fontWeight": "normal", "anchor": "start"},
        "view": {"stroke": None},
        "text": {"color": ink},
        "line": {"color": ink},
    }


def altair() -> ModuleType:
    """The package that makes the specifications.

    Raises:
        MissingExtra: it is not installed.
    """
    try:
        import altair  # noqa: PLC0415 (only a report needs it)
    except ImportError as error:
        raise MissingExtra("report", "a report") from error
    return altair
