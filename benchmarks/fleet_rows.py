"""What each allocation of a fleet's joules came to in a study, against EqualCount with the same seeds.

``python benchmarks/fleet_rows.py RESULTS [--round N] [--base TEXT]``, where RESULTS is a folder of rows such as
results/fleet-digits, and TEXT is in the name of the first allocation that the others are held against, EqualCount.

For each set of devices and each allocation: accuracy, worst client and 10th percentile of clients in points, their
differences to that one (mean and half-width of the 95 % interval over seeds, by Student's t, not corrected for their
number), and the energy of all masks so far over that one's.
"""

from __future__ import annotations

import argparse
import math
import sys
from collections import defaultdict

import numpy as np

from joulewise import rowfile
from joulewise.charges import MASK_TERMS
from joulewise.fairness import all_clients
from joulewise.pareto import crossing, interval, paired
from joulewise.questions import EVALUATIONS
from joulewise.results import Row

BASE = "EqualCount"
Arms = dict[tuple[str, str], dict[int, dict[int, Row]]]


def arms_of(folder: str) -> Arms:
    """Rows by devices and allocation, seed and round."""
    found: Arms = defaultdict(lambda: defaultdict(dict))
    for row in rowfile.read(folder):
        allocation = str(row.settings["strategy"]).partition("allocation=")[2]
        found[str(row.settings["devices"]), f"{row.rule} {allocation}"][row.seed][row.round] = row
    return found


def points(row: Row) -> tuple[float, float, float]:
    """Accuracy of the server, of the worst of all clients and of their 10th percentile, in points; NaN if unknown."""
    own = all_clients([row])
    worst, tenth = (math.nan, math.nan) if own is None else (own.worst, own.tenth)
    return 100 * row.server.accuracy, 100 * worst, 100 * tenth


def energy(rows: dict[int, Row], last: int) -> float:
    """Of all masks up to a round."""
    charges = (charge for number in range(1, last + 1) for each in rows[number].clients for charge in each.charges)
    return float(sum(charge.energy for charge in charges if charge.term in MASK_TERMS))


def line(name: str, arm: dict[int, dict[int, Row]], base: dict[int, dict[int, Row]], last: int) -> str:
    """One allocation beside the one that all are held against."""
    own, other = ({seed: points(rows[last]) for seed, rows in each.items()} for each in (arm, base))
    parts = []
    for place in range(3):
        first, second = ({seed: each[place] for seed, each in every.items()} for every in (own, other))
        found = paired(first, second)
        assert found is not None  # Both arms have the study's seeds.
        change = found.interval
        half = (change.high or change.mean) - change.mean
        parts.append(f"{interval(list(first.values())).mean:5.1f} ({change.mean:+5.1f} ± {half:4.1f})")
    spent = sum(energy(rows, last) for rows in arm.values()) / sum(energy(rows, last) for rows in base.values())
    equal = f"energy x {spent:.3f}, to equal accuracy {energy_to_equal(arm, base, last)}"
    return f"  {name:<52} {len(own):2d} seeds  {'  '.join(parts)}  {equal}\n"


def energy_to_equal(arm: dict[int, dict[int, Row]], base: dict[int, dict[int, Row]], last: int) -> str:
    """Energy until the arm is as accurate as the base at its end, over what the base has spent; seed by seed."""
    logs = []
    for seed in sorted(arm.keys() & base.keys()):
        own, other = ([rows[seed][number].server.accuracy for number in range(1, last + 1)] for rows in (arm, base))
        found = crossing(own, float(np.mean(other[-EVALUATIONS:])) - 1e-12)
        if found is not None:
            logs.append(np.log(energy(arm[seed], found + 1) / energy(base[seed], last)))
    reached = f"in {len(logs)} of {len(arm)}"
    if len(logs) < len(arm) or not logs:
        return reached
    mean = interval(logs)
    ends = (mean.mean, mean.low or mean.mean, mean.high or mean.mean)
    return "x {:.2f} ({:.2f} to {:.2f}), ".format(*np.exp(ends)) + reached


def main() -> None:
    """Print a table for each set of devices."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("folder")
    parser.add_argument("--round", type=int, dest="last")
    parser.add_argument("--base", default=BASE)
    given = parser.parse_args()
    arms = arms_of(given.folder)
    last = given.last or min(max(rows) for seeds in arms.values() for rows in seeds.values())
    for devices in dict.fromkeys(devices for devices, _ in arms):
        sys.stdout.write(f"{devices}, round {last}: accuracy, worst client, 10th percentile; against {given.base}\n")
        own = {name: seeds for (where, name), seeds in arms.items() if where == devices}
        base = next(seeds for name, seeds in own.items() if given.base in name)
        for name, seeds in own.items():
            sys.stdout.write(line(name, seeds, base, last))


if __name__ == "__main__":
    main()
