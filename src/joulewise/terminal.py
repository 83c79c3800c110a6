"""What commands share when they write to a terminal."""

from __future__ import annotations

import os

from rich import box
from rich.console import Console
from rich.table import Table


def console(stderr: bool = False) -> Console:
    """A console that colours nothing by itself and does not cut lines that go to a pipe or a file."""
    made = Console(stderr=stderr, highlight=False)
    if not made.is_terminal and "COLUMNS" not in os.environ:
        made.width = 200  # a pipe or a file has no width: better long lines than cut ones
    return made


def table(*columns: str) -> Table:
    """An empty table; its first column is never broken over lines."""
    made = Table(box=box.SIMPLE_HEAD, header_style="bold")
    for number, column in enumerate(columns):
        made.add_column(column, overflow="fold", no_wrap=number == 0)
    return made


def say(text: str) -> None:
    """Print a line as it is, however long."""
    console().print(text, soft_wrap=True, markup=False)
