"""Where the energy of each arm went, as bars stacked by term of the ledger, in Vega-Lite."""

from __future__ import annotations

from typing import Any

from joulewise.chart_style import LETTER, Spec
from joulewise.ledger import TERMS, UPLINK_TERMS
from joulewise.notation import Scale, energy_unit, exponent_of, number
from joulewise.outcomes import Arm, Summary

# Okabe and Ito's, darkened as those of the lines: the first for the uplink's terms, the others for the rest.
UPLINK_COLOURS = ("#0080c8", "#d58e00", "#009e73", "#cc6699", "#56b4e9")
REST_COLOURS = ("#d55e00", "#808080", "#b8a800", "#8c564b", "#7b6bb5", "#4d4d4d", "#b0b0b0")
WAYS = {"energy": "Energy", "share": "Share"}
END = {"titleAnchor": "end", "titleAlign": "right"}
"""A title may be longer than narrow bars: it then begins left of them."""

BAR = 28
"""Pixels of an arm's row."""

LONG, BREAK = 24, "\n"
"""Letters of a label that stays on one line, and what parts the lines of another."""


def terms_of(found: Summary) -> tuple[str, ...]:
    """Terms that some arm has energy in: those of the uplink first, each in the ledger's order, then others."""
    spent = {term for arm in found.arms for term, energy in arm.by_term.items() if energy}
    known = sorted((term for term in TERMS if term in spent), key=lambda term: term not in UPLINK_TERMS)
    return (*known, *sorted(spent - set(TERMS)))


def of(found: Summary, way: str) -> Spec:
    """Energy of each arm by term, in the study's unit (``energy``) or as shares of the arm's own (``share``)."""
    scale = energy_unit(found.unit, exponent_of([sum(arm.by_term.values()) for arm in found.arms]))
    names = {term: _name(term) for term in terms_of(found)}
    share = way == "share"
    axis: dict[str, Any] = {"format": "~%" if share else "~r", "tickCount": 5, "labelFlush": True} | END
    across = {
        "field": "energy",
        "type": "quantitative",
        "title": "Share of its energy" if share else ["Energy, modelled", f"({scale.name})"],
        "stack": "normalize" if share else "zero",
        "axis": axis,
    }
    colours = {"domain": list(names.values()), "range": [_colour(term, names) for term in names]}
    details = ("Arm", "Term", "Energy", "Share")
    lines = [_line(arm, term, names[term], scale) for arm in found.arms for term in names if arm.by_term.get(term)]
    return {
        "mark": {"type": "bar", "height": {"band": 0.75}},
        "encoding": {
            "y": {"field": "row", "type": "nominal", "sort": None, "title": None, "axis": _arms(found)},
            "x": across,
            "color": {"field": "Term", "type": "nominal", "title": None, "scale": colours},
            "order": {"field": "order", "type": "quantitative"},
            "tooltip": [{"field": field, "type": "nominal"} for field in details],
        },
        "data": {"values": [line | {"order": list(names.values()).index(line["Term"])} for line in lines]},
        "usermeta": {"longest": max(map(len, names.values()))},
    }


def height(found: Summary) -> int:
    """Pixels of the bars."""
    return BAR * len(found.arms)


def _arms(found: Summary) -> dict[str, Any]:
    longest = max(len(line) for arm in found.arms for line in _row(arm).split(BREAK))
    lines = {
        "labelExpr": "split(datum.label, '\\n')",
        "labelOffset": -6 if any(BREAK in _row(a) for a in found.arms) else 0,
    }
    return {"labelLimit": round(LETTER * longest), "ticks": False} | lines


def _row(arm: Arm) -> str:
    """The label of an arm, in two lines where it is long."""
    two = len(arm.label) > LONG and arm.group and arm.label.startswith(f"{arm.series} ")
    return f"{arm.series}{BREAK}{arm.label.removeprefix(arm.series).strip()}" if two else arm.label


def _name(term: str) -> str:
    word = term.replace("_", " ")
    return f"{word} (uplink)" if term in UPLINK_TERMS else word


def _colour(term: str, names: dict[str, str]) -> str:
    uplink = [each for each in names if each in UPLINK_TERMS]
    if term in UPLINK_TERMS:
        return UPLINK_COLOURS[uplink.index(term) % len(UPLINK_COLOURS)]
    return REST_COLOURS[(list(names).index(term) - len(uplink)) % len(REST_COLOURS)]


def _line(arm: Arm, term: str, name: str, scale: Scale) -> dict[str, Any]:
    energy = arm.by_term[term]
    return {
        "Arm": arm.label,
        "row": _row(arm),
        "Term": name,
        "energy": energy / scale.divisor,
        "Energy": f"{number(energy / scale.divisor)} {scale.name}",
        "Share": f"{number(100 * energy / sum(arm.by_term.values()))} %",
    }
