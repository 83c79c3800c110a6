"""How well a law fitted to a recorded update predicts what is kept of it, and of the same client's next update.

``python benchmarks/prediction.py RECORDED.npz [--device NAME] [--law quantiles] [--first 0]``

RECORDED.npz is made by ``benchmarks/recording.py``. Prices are those of a device at one density of all tensors, and
synthetic ones otherwise: `synthetic-kind-10` (a linear parameter costs ten times a convolution's). For each rule and
density the table shows, in percent, by how much the prediction of one update is off: energy and kept share of L2 for
budgets that count, kept count and share for budgets of joules; and the same held out, for the next update. `--first`
counts the updates of the file from 0. Exit code 1 where the quantile law misses what docs/theory.md promises.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

import joulewise as jw
from joulewise import theory

DENSITIES = (0.005, 0.01, 0.02, 0.05, 0.1, 0.2)
RULES = (jw.TopK(), jw.CWMP(), jw.Projection())
SAME, HELD_ENERGY, HELD_SHARE, HELD_FROM = 0.05, 0.05, 0.10, 0.05
"""What is promised: errors on the same update, and held out from a density of 5 % on."""


@dataclass(frozen=True)
class Line:
    rule: str
    density: float
    errors: tuple[float, ...]
    """Same update: energy and L2 at equal count, count and L2 at equal joules; then held out, in the same order."""

    @property
    def holds(self) -> bool:
        same, held = self.errors[:4], self.errors[4:]
        if max(map(abs, same)) > SAME:
            return False
        return self.density < HELD_FROM or (
            abs(held[0]) <= HELD_ENERGY and max(abs(held[1]), abs(held[3])) <= HELD_SHARE
        )


def recorded(path: str, first: int = 0) -> tuple[jw.Layout, list[np.ndarray]]:
    """The layout of a file of ``recording.py``, one of its updates and the next."""
    with np.load(path) as archive:
        arrays = [
            {name.split("/", 1)[1]: archive[name] for name in archive if name.startswith(f"{i}/")}
            for i in (first, first + 1)
        ]
    layout = jw.Layout.of(arrays[0])
    return layout, [layout.flatten(each) for each in arrays]


def lines(path: str, device: str, law: str, first: int) -> Iterator[Line]:
    layout, updates = recorded(path, first)
    costs = jw.price(layout, jw.load_device(device))
    fitted = theory.fit(updates[0], layout, law)
    for rule in RULES:
        for density in DENSITIES:
            room = jw.select(updates[0], costs, rule, jw.Density(density)).spent
            by_count, by_energy = jw.Density(density), jw.Joules(room)
            found: list[float] = []
            for update in updates:
                (count,) = theory.errors(fitted.law, update, costs, (rule,), (by_count,))
                (energy,) = theory.errors(fitted.law, update, costs, (rule,), (by_energy,))
                found += [count.relative("energy"), count.relative("l2")]
                found += [energy.relative("coordinates"), energy.relative("l2")]
            yield Line(type(rule).__name__, density, tuple(found))


TITLES = (
    "energy",
    "L2",
    "count, joules",
    "L2, joules",
    "next: energy",
    "next: L2",
    "next: count, joules",
    "next: L2, joules",
)


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("recorded")
    parser.add_argument("--device", default="synthetic-kind-10")
    parser.add_argument("--law", default="quantiles")
    parser.add_argument("--first", type=int, default=0)
    given = parser.parse_args()
    found = list(lines(given.recorded, given.device, given.law, given.first))
    print("| rule | kept | " + " | ".join(TITLES) + " |")
    print("|---" * (len(TITLES) + 2) + "|")
    for line in found:
        cells = " | ".join(f"{100 * each:+.2f}" for each in line.errors)
        print(f"| {line.rule} | {100 * line.density:g} % | {cells} |")
    missed = [line for line in found if not line.holds]
    print(f"\n{given.law}: {len(found) - len(missed)} of {len(found)} lines within what is promised")
    return 1 if missed and given.law == "quantiles" else 0


if __name__ == "__main__":
    sys.exit(main())
