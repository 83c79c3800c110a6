"""The laws of joule budgets over many random models, devices, rules and budgets.

Run: ``python benchmarks/budget_laws.py 100000 [--first SEED] [--jobs N]``.

Of each message that a Compressor makes: what its charges say that the mask added never exceeds the budget (law 1),
and at most 1 % of the budget plus one coordinate, one tensor's header and its blocks is left, unless everything is kept
(law 10, for updates whose values are not all alike and budgets that do not go on to later items that fit). For rules
whose order does not hang on prices, the message that keeps one coordinate more is made too, and must take more than
99 % of the budget. A case is named by its number; ``tests/test_budget_laws.py`` says how to look at one.
"""

from __future__ import annotations

import argparse
import sys
import warnings
from collections import Counter
from collections.abc import Iterable
from multiprocessing import Pool
from pathlib import Path

from rich.progress import track

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))

from budget_cases import case_of, check

CHUNK = 50
LOGGED = 1000
"""Where there is no terminal for a progress bar, a line after so many."""


def look(seed: int) -> tuple[str, str]:
    """Whether the case keeps all, some or none, or that it is broken, and how."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Prices drawn at random may differ by more than exact sums resolve.
        try:
            return check(case_of(seed)), ""
        except AssertionError as error:
            return "broken", str(error)


def main(arguments: Iterable[str] | None = None) -> int:
    """Look at as many cases as asked for, and say what was found."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("cases", type=int, help="how many")
    parser.add_argument("--first", type=int, default=0, help="number of the first")
    parser.add_argument("--jobs", type=int, default=1, help="processes")
    given = parser.parse_args(None if arguments is None else list(arguments))
    seeds = range(given.first, given.first + given.cases)
    found: Counter[str] = Counter()
    faults = []
    with Pool(given.jobs) as pool:
        for kept, fault in track(pool.imap(look, seeds, CHUNK), "Messages", total=given.cases):
            found[kept] += 1
            if fault:
                faults.append(fault)
                sys.stderr.write(f"{fault}\n")
            if not sys.stderr.isatty() and found.total() % LOGGED == 0:
                sys.stderr.write(f"{found.total()} messages, {len(faults)} break a law\n")
                sys.stderr.flush()
    counts = ", ".join(f"{found[kept]} keep {kept}" for kept in ("all", "some", "none"))
    sys.stdout.write(f"{given.cases} messages: {counts}; {len(faults)} break a law\n")
    return 1 if faults else 0


if __name__ == "__main__":
    sys.exit(main())
