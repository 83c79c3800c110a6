"""An explanation as one picture: how prices spread over the parameters, and which term takes the joules."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import accumulate
from pathlib import Path
from typing import Any

from joulewise.errors import MissingExtra, OutputError
from joulewise.explanation import Explanation

FORMATS = (".svg", ".png", ".pdf")
BLUE = "#0080c8"
PPI = 150


def draw(found: Explanation, path: Path) -> None:
    """Write the picture.

    Args:
        found: what to draw.
        path: where; ``.svg``, ``.png`` or ``.pdf``.

    Raises:
        OutputError: the ending is another one, or the file cannot be written.
        MissingExtra: altair or vl-convert is not installed.
    """
    if path.suffix.lower() not in FORMATS:
        raise OutputError(f"--figure {path} ends in {path.suffix or 'nothing'!r}; give one of {', '.join(FORMATS)}")
    try:
        import altair as alt  # noqa: PLC0415 (only a figure needs it)
        import vl_convert  # noqa: F401, PLC0415 (altair writes files with it)
    except ImportError as error:
        raise MissingExtra("report", "a figure") from error
    chart = alt.hconcat(_spread(alt, found), _terms(alt, found), spacing=40).properties(
        title=f"{found.device}: {found.verdict.answer} ({found.parameters:,} parameters, boundary {found.boundary})"
    )
    try:
        chart.configure_view(stroke=None).save(str(path), format=path.suffix.lower()[1:], ppi=PPI)
    except OSError as error:
        raise OutputError(f"cannot write the figure to {path}: {error.strerror or error}") from error


def _spread(alt: Any, found: Explanation) -> Any:
    prices = found.total.prices
    reached = accumulate(one.share for one in prices)
    points = [{"price": one.price, "share": share} for one, share in zip(prices, reached, strict=True)]
    # From the cheapest price up: the line begins at nothing.
    points = [{"price": prices[0].price, "share": 0.0}, *points]
    low, high = prices[0].price, prices[-1].price
    scale = alt.Scale(type="log", domain=[low / 1.3, high * 1.3], nice=False)
    base = alt.Chart(alt.Data(values=points)).encode(
        x=alt.X("price:Q", title=f"Price of keeping one coordinate ({found.unit})", scale=scale, axis=_axis(alt)),
        y=alt.Y("share:Q", title="Share of parameters, cumulative", axis=alt.Axis(format="%")),
    )
    line = base.mark_line(interpolate="step-after", color=BLUE)
    return (line + base.mark_point(filled=True, color=BLUE)).properties(width=300, height=220)


def _axis(alt: Any) -> Any:
    return alt.Axis(format=".3~s", tickCount=5, labelOverlap="greedy")


def _terms(alt: Any, found: Explanation) -> Any:
    return (
        alt.Chart(alt.Data(values=list(_bars(found))))
        .mark_bar()
        .encode(
            x=alt.X("energy:Q", title=f"Energy of what TopK keeps ({found.unit})", axis=_axis(alt)),
            y=alt.Y("term:N", title=None, sort=[_words(term) for term in found.total.terms]),
            color=alt.Color("kind:N", title=None, scale=alt.Scale(scheme="tableau10")),
        )
        .properties(width=300, height=220)
    )


def _bars(found: Explanation) -> Iterator[dict[str, Any]]:
    for part in found.kinds:
        for term, energy in part.kept_terms.items():
            yield {"kind": part.kind, "term": _words(term), "energy": energy}


def _words(term: str) -> str:
    return term.replace("_", " ")
