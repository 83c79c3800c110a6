"""How well each law of magnitudes fits a recorded update, by its own word.

``python benchmarks/laws.py RECORDED.npz...``

RECORDED.npz is made by ``benchmarks/recording.py``. For each law: the median distance over tensors (each counted by its
coordinates), and, at 1 % and 10 % kept by TopK, the relative error of the kept share of L2 and the share of the kept
coordinates that the law expected in other tensors.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from prediction import recorded

from joulewise import theory

SHOWN = (0.01, 0.1)


def rows(path: str) -> Iterator[str]:
    layout, updates = recorded(path)
    for law in theory.LAWS:
        found = theory.fit(updates[0], layout, law.name)
        order = np.argsort(found.distance)
        middle = order[np.searchsorted(np.cumsum(layout.sizes[order]), layout.n / 2)]
        by = {each.budget.fraction: each for each in found.errors}
        cells = [f"{100 * by[at].relative('l2'):+.1f} | {100 * by[at].misplaced:.1f}" for at in SHOWN]
        first = f"{Path(path).stem} | {law.name} | {found.distance[middle]:.3f}"
        yield f"| {first} | {' | '.join(cells)} | {_word(found)} |"


def _word(found: theory.Fit) -> str:
    return "yes" if found.fits else f"badly at {len(found.notes)} of {len(found.errors)} densities"


def main() -> None:
    print("| update | law | distance | L2 at 1 % | misplaced | L2 at 10 % | misplaced | fits |")
    print("|---" * 8 + "|")
    for path in sys.argv[1:]:
        for row in rows(path):
            print(row)


if __name__ == "__main__":
    main()
