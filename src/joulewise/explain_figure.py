"""An explanation as one picture: how prices spread, and what takes the energy of the whole round."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import accumulate
from pathlib import Path
from typing import Any

from joulewise.errors import ArgumentError, MissingExtra, OutputError
from joulewise.explanation import Explanation
from joulewise.ledger import MASK_TERMS
from joulewise.verdict import percent, saving_in_words

FORMATS = (".svg", ".png", ".pdf")
BLUE, LIGHT, GREY = "#0080c8", "#d6ebf7", "#9a9a9a"
KINDS = {"conv": "#0080c8", "linear": "#d58e00", "embedding": "#009e73", "vector": "#c45aa0"}
TOGETHER, UNTOUCHED = "pages and lines", "no mask touches it"
PPI = 150


def check_ending(path: Path) -> None:
    """Whether a picture can be written to a file of this name.

    Raises:
        ArgumentError: the ending is none of `FORMATS`.
    """
    if path.suffix.lower() not in FORMATS:
        raise ArgumentError(f"--figure {path} ends in {path.suffix or 'nothing'!r}; give one of {', '.join(FORMATS)}")


def draw(found: Explanation, path: Path, model: str) -> None:
    """Write the picture.

    Args:
        found: what to draw.
        path: where; ``.svg``, ``.png`` or ``.pdf``.
        model: what to call the model in the title.

    Raises:
        ArgumentError: the ending is another one.
        OutputError: the file cannot be written.
        MissingExtra: altair or vl-convert is not installed.
    """
    check_ending(path)
    try:
        import altair as alt  # noqa: PLC0415 (only a figure needs it)
        import vl_convert  # noqa: F401, PLC0415 (altair writes files with it)
    except ImportError as error:
        raise MissingExtra("report", "a figure") from error
    chart = alt.hconcat(_spread(alt, found), _round(alt, found), spacing=40).properties(title=_title(alt, found, model))
    try:
        _styled(chart).save(str(path), format=path.suffix.lower()[1:], ppi=PPI)
    except OSError as error:
        raise OutputError(f"cannot write the figure to {path}: {error.strerror or error}") from error


def _styled(chart: Any) -> Any:
    return chart.configure_view(stroke=None).configure_title(anchor="start", fontSize=12, subtitleFontSize=11, offset=8)


def _title(alt: Any, found: Explanation, model: str) -> Any:
    verdict = found.verdict
    saved = f"{verdict.rule} saves {saving_in_words(verdict.saving)} of what TopK pays for what it keeps"
    if verdict.round_saving is not None:
        saved += f", and {percent(verdict.round_saving)} of the round"
    ratios = f"nine in ten that TopK keeps within a factor of {found.price_ratio:.3f}, all within {found.contrast:.3f}"
    size = f"{found.parameters:,} parameters, {100 * found.density:.3g} % kept, boundary {found.boundary}"
    lines = [f"{saved}.", f"Prices: {ratios}.", f"{size}."]
    return alt.TitleParams(f"{model} on {found.device}: {verdict.answer}", subtitle=lines, fontSize=14)


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
    band = [{"low": found.spread.low, "high": found.spread.high}]
    middle = alt.Chart(alt.Data(values=band)).mark_rect(color=LIGHT, stroke=LIGHT, strokeWidth=5, clip=True)
    middle = middle.encode(x=alt.X("low:Q", scale=scale), x2="high:Q")
    line = base.mark_line(interpolate="step-after", color=BLUE)
    drawn = middle + line + base.mark_point(filled=True, color=BLUE)
    return drawn.properties(width=300, height=220, title="All parameters (shaded: nine in ten that TopK keeps)")


def _axis(alt: Any) -> Any:
    return alt.Axis(format=".3~s", tickCount=5, labelOverlap="greedy")


def _round(alt: Any, found: Explanation) -> Any:
    """Every charge of the round, one bar each, so that what a mask cannot touch stands beside what it can."""
    bars = list(_bars(found))
    order = list(dict.fromkeys(bar["term"] for bar in bars))
    colours = KINDS | {TOGETHER: "#7a5195", UNTOUCHED: GREY}
    shown = [part for part in colours if any(bar["part"] == part for bar in bars)]
    scale = alt.Scale(domain=shown, range=[colours[part] for part in shown])
    base = alt.Chart(alt.Data(values=bars)).encode(y=alt.Y("term:N", title=None, sort=order))
    marks = base.mark_bar(size=14).encode(
        x=alt.X("energy:Q", title=f"Energy ({found.unit})", axis=_axis(alt)),
        color=alt.Color("part:N", title=None, scale=scale),
    )
    totals = base.transform_aggregate(energy="sum(energy)", groupby=["term"])
    labels = totals.mark_text(align="left", dx=3).encode(x="energy:Q", text=alt.Text("energy:Q", format=".3~s"))
    title = "One round of one client" if found.unit == "J" else "What TopK keeps, by kind of tensor"
    return (marks + labels).properties(width=300, height=220, title=title)


def _bars(found: Explanation) -> Iterator[dict[str, Any]]:
    """What is kept by term and kind of tensor, then the other charges of the round."""
    for term in found.total.kept_terms:
        for part in found.kinds:
            yield {"part": part.kind, "term": _words(term), "energy": part.kept_terms[term]}
    priced = {"kept", *found.total.kept_terms}
    for charge in found.round:
        if charge.term not in priced:
            touched = TOGETHER if charge.term in MASK_TERMS else UNTOUCHED
            yield {"part": touched, "term": _words(charge.term), "energy": charge.energy}


def _words(term: str) -> str:
    return term.replace("_", " ")
