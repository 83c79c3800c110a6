"""A table of text, for a terminal and for a page."""

from __future__ import annotations

import msgspec

NONE = "–"
"""Stands where there is no number."""


class Table(msgspec.Struct, frozen=True, kw_only=True):
    """A table of text: the first column names the rows, the others hold numbers or words.

    Args:
        caption: what the table shows.
        columns: heading of each column.
        rows: cells, by row.
        notes: what a reader must know beside the numbers.
    """

    caption: str
    columns: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    notes: tuple[str, ...]
