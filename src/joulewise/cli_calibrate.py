"""``joulewise calibrate``: measure this machine and write its profile, or receive what another one sends."""

# A command imports what it needs when it runs: else `joulewise --help` would wait for NumPy and SciPy.
# ruff: noqa: PLC0415

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich import box
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.table import Table

import joulewise
from joulewise.errors import ArgumentError, CalibrationError

if TYPE_CHECKING:
    from joulewise.calibrate import Finding, Idle, Plan, Sample
    from joulewise.calibrated import Origin
    from joulewise.machine import Cache, Memory
    from joulewise.readings import Meter

INTERRUPTED = 130
BUSY = 0.95
"""Part of a window that this program should run for: less, and others took the processor."""
SHORTEST_S, LONGEST_S = 1.0, 86400.0
