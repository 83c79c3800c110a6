"""Pieces of a page as HTML: tables, switches, places for charts, text that a user wrote."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape

from joulewise.tabular import Table


def table(found: Table, marked: Sequence[bool] = (), kind: str = "", flag: str = "") -> str:
    """A table that scrolls sideways by itself, with its notes.

    Args:
        found: the table.
        marked: which of its rows stand out.
        kind: class of the table, for its style.
        flag: text of cells that stand out.
    """
    head = "".join(f'<th scope="col">{escape(column)}</th>' for column in found.columns)
    lines = []
    for number, (name, *cells) in enumerate(found.rows):
        mark = ' class="marked"' if number < len(marked) and marked[number] else ""
        data = "".join(f"<td>{_flagged(cell) if cell == flag else escape(cell)}</td>" for cell in cells)
        lines.append(f'<tr{mark}><th scope="row">{escape(name)}</th>{data}</tr>')
    caption = escape(found.caption)
    return (
        f'<div class="scroll" role="region" aria-label="{caption}" tabindex="0"><table class="{kind}">'
        f"<caption><span>{caption}</span></caption><thead><tr>{head}</tr></thead>"
        f"<tbody>{''.join(lines)}</tbody></table></div>\n"
        + "".join(f'<p class="note">{escape(note)}</p>' for note in found.notes)
    )


def _flagged(cell: str) -> str:
    return f"<mark>{escape(cell)}</mark>" if cell else ""


def paragraph(words: str) -> str:
    """Words as a paragraph."""
    return f"<p>{escape(words)}</p>"


def code(text: str) -> str:
    """Text to copy."""
    return f'<pre tabindex="0"><code>{escape(text)}</code></pre>'


def details(summary: str, inside: str, kind: str = "") -> str:
    """HTML that opens when a reader asks for it; in print it is open, or left out where it is of kind ``screen``."""
    return f'<details class="{kind}"><summary>{escape(summary)}</summary>{inside}</details>'


def switch(key: str, label: str, choices: Mapping[str, str]) -> str:
    """A choice of what a chart shows: its name by value."""
    options = "".join(f'<option value="{escape(value)}">{escape(name)}</option>' for value, name in choices.items())
    return f'<label>{escape(label)} <select data-chart="{key}" autocomplete="off">{options}</select></label>'


def chart(key: str, label: str, words: str, switches: Sequence[str] = ()) -> str:
    """The place of a chart, with its switches above and what it shows below.

    Args:
        key: of the chart.
        label: what it is, for those who do not see it.
        words: what it shows.
        switches: HTML of each.
    """
    above = f'<div class="switches">{"".join(switches)}</div>' if switches else ""
    return f"{above}<figure>{box(key, label)}<figcaption>{escape(words)}</figcaption></figure>"


def box(key: str, label: str) -> str:
    """The place where a chart is drawn."""
    return (
        f'<div class="chart" id="{key}" role="group" aria-label="{escape(label)}">'
        "<noscript>This chart needs JavaScript; figures/ holds it as an image.</noscript></div>"
    )
