"""Batteries over a run: random histories, what is used of them, and what price control is worth in hindsight.

Run: ``python benchmarks/pacing.py [--histories 10000] [--seeds 40]``.

Histories are of a hundred clients each, with random batteries, reserves, fixed costs, demands, recharging and
availability, by every schedule in turn, in one of four batches with an unknown number of rounds. Exit code 1 where a
charge falls below its reserve, or where a fleet with demand at hand uses less than 95 % of its usable energy. Regret is
that of ``tests/pacing_cases.py``: e joules of a round are worth ``factor * log(1 + e)``, one joule a round on average.
"""

from __future__ import annotations

import argparse
import math
import sys
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))

from pacing_cases import CLIENTS, MOST_WORTH, batches, fleets, late_worth, live, many, stationary

from joulewise.schedules import Even, Late, Priced, regret_bound

LENGTHS = (100, 400, 1600)


def safety(histories: int) -> bool:
    found = [live(fleets(seed, size), schedule, known=seed % 4 != 3) for seed, size, schedule in batches(histories)]
    below = sum(each.below for each in found)
    print(f"{histories:,} histories of {CLIENTS} clients: {below} charges below the reserve")
    print(f"worst charge above the reserve after spending: {min(each.worst_j for each in found):g} J")
    print(f"rounds joined: {100 * np.mean([each.joined for each in found]):.1f} %")
    return below == 0


def use(histories: int) -> bool:
    found = [live(fleets(seed, size, at_hand=True), schedule) for seed, size, schedule in batches(histories)]
    fleet = np.concatenate([np.nanmean(each.used, axis=1) for each in found])
    print(f"used with demand at hand: mean {100 * fleet.mean():.2f} %, worst fleet {100 * fleet.min():.2f} %")
    left = sum(int(each.left.sum()) for each in found)
    print(f"clients that could still have paid for the last round: {left}")
    loose = [live(fleets(seed, size), schedule).used for seed, size, schedule in batches(histories // 10)]
    mean = np.mean([np.nanmean(each) for each in loose])
    print(f"used with random demand, and absent in any round: mean {100 * mean:.1f} %")
    return bool(fleet.min() >= 0.95)


def regret(seeds: int) -> None:
    most = MOST_WORTH * math.log1p(Priced().most)
    print("\n| rounds | price: regret | of the best | even: regret | of the best | bound |")
    print("|---|---|---|---|---|---|")
    for rounds in LENGTHS:
        priced, even = (many(stationary, each, rounds, seeds) for each in (Priced(), Even()))
        bound = regret_bound(Priced(), rounds, 1.0, most, priced.first_price)
        cells = " | ".join(f"{each.regret:.1f} | {100 * each.value / each.best:.1f} %" for each in (priced, even))
        print(f"| {rounds} | {cells} | {bound:.0f} |")


def failure(seeds: int) -> None:
    print("\n| rounds, the last fifth worth twenty times as much | price | even | late, ratio 0.001^(1/rounds) |")
    print("|---|---|---|---|")
    for rounds in LENGTHS:
        schedules = (Priced(), Even(), Late(ratio=0.001 ** (1 / rounds)))
        found = (many(late_worth, each, rounds, seeds) for each in schedules)
        print(f"| {rounds} | " + " | ".join(f"{100 * each.value / each.best:.1f} %" for each in found) + " |")


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--histories", type=int, default=10_000)
    parser.add_argument("--seeds", type=int, default=40)
    given = parser.parse_args()
    holds = [safety(given.histories), use(given.histories)]
    regret(given.seeds)
    failure(max(1, given.seeds // 4))
    return 0 if all(holds) else 1


if __name__ == "__main__":
    sys.exit(main())
