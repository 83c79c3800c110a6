"""The law of error feedback over thousands of random histories of a federation, exact to the last bit.

Run: ``python benchmarks/histories.py [--memory 3000] [--files 1000] [--seed 0]``.

    sum(applied) + residual + pending = sum(updates)     of every client, after every round

A history is a run of rounds in which clients are asked or not, requests and replies get lost or damaged, nodes restart,
and aggregations come to nothing. States lie in memory, or in files that survive restarts. A history that breaks the law
is made shorter and printed; `tests/test_flower_grid.py` goes through a few of them.
"""

from __future__ import annotations

import argparse
import logging
import sys
import time
from collections.abc import Callable
from pathlib import Path

from hypothesis import HealthCheck, given, seed, settings
from hypothesis import strategies as st

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))

from test_flower_grid import FATES, check_in_files, check_in_memory


def main() -> None:
    """Go through as many histories as asked for."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--memory", type=int, default=3000, help="histories with states in memory")
    parser.add_argument("--files", type=int, default=1000, help="histories with states in files")
    parser.add_argument("--seed", type=int, default=0)
    asked = parser.parse_args()
    logging.disable(logging.WARNING)  # Each lost reply would be a line.
    for where, check, histories in (("memory", check_in_memory, asked.memory), ("files", check_in_files, asked.files)):
        began = time.perf_counter()
        made, rounds = went_through(check, histories, asked.seed)
        took = time.perf_counter() - began
        sys.stdout.write(f"{made} histories of {rounds} rounds with states in {where}: the law holds ({took:.0f} s)\n")


def went_through(check: Callable[[list[object], int], None], histories: int, start: int) -> tuple[int, int]:
    """Check random histories; how many, and how many rounds they had."""
    rounds: list[int] = []

    def counted(fates: list[object], count: int) -> None:
        rounds.append(len(fates))
        check(fates, count)

    run = settings(max_examples=histories, deadline=None, database=None, suppress_health_check=list(HealthCheck))
    seed(start)(run(given(FATES, st.integers(0, 30))(counted)))()
    return len(rounds), sum(rounds)


if __name__ == "__main__":
    main()
