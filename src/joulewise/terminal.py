"""What every command prints with: the console, tables and lines."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stdout
from pathlib import Path
from typing import Annotated, Literal

import typer
from rich import box
from rich.console import Console
from rich.table import Table

Debug = Annotated[bool, typer.Option("--debug", help="Show the traceback of an error.")]
Json = Annotated[bool, typer.Option("--json", help="Print the record alone, as JSON.")]
DeviceName = Annotated[str, typer.Option(metavar="NAME|FILE", help="A name of `joulewise devices list`, or a file.")]
Boundary = Annotated[
    Literal["radio", "device", "memory"] | None,
    typer.Option(help="What prices take in. Default: radio, or memory where there is no link.", show_default=False),
]
Figure = Annotated[Path | None, typer.Option(metavar="FILE", help="Draw it: .svg, .png or .pdf.", show_default=False)]
"""Options of more than one command."""


def open_console(stderr: bool = False) -> Console:
    """The terminal, or a pipe or a file with long lines."""
    console = Console(stderr=stderr, highlight=False, emoji=False)
    if not console.is_terminal and "COLUMNS" not in os.environ:
        console.width = 200  # a pipe or a file has no width: better long lines than cut ones
    return console


def empty_table(*columns: str) -> Table:
    """A table with these columns and no rows; its first column is never broken."""
    table = Table(box=box.SIMPLE_HEAD, header_style="bold")
    for number, column in enumerate(columns):
        table.add_column(column, overflow="fold", no_wrap=number == 0)
    return table


def visible(text: str) -> str:
    r"""Text whose control characters are written out, so that none of them reaches the terminal.

    Example:
        >>> visible("red \x1b[31m text")
        'red \\x1b[31m text'
    """
    return "".join(f"{each!a}"[1:-1] if ord(each) in _CONTROLS else each for each in text)


_CONTROLS = frozenset({*range(32), *range(127, 160)} - {ord("\n"), ord("\t")})


def say(text: str) -> None:
    """Print a line as it is, control characters written out."""
    open_console().print(visible(text), soft_wrap=True, markup=False)


@contextmanager
def stdout_to_stderr() -> Iterator[None]:
    """Standard output is for the record alone: what Python, C or a child process writes there goes to stderr."""
    sys.stdout.flush()
    try:
        kept = os.dup(1)
        os.dup2(2, 1)
    except OSError:  # a closed stream
        kept = None
    try:
        with redirect_stdout(sys.stderr):
            yield
    finally:
        if kept is not None:
            os.dup2(kept, 1)
            os.close(kept)
