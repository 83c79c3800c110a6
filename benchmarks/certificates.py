"""Certificates against the exact optimum, on random small knapsacks of five sorts.

Run: ``python benchmarks/certificates.py 20000 [--first SEED] [--jobs N]``.

Each instance is solved exactly by OR-tools, and selected with and without fill, and by the half-approximation. No
selection may exceed the optimum or its budget, no optimum the bound. Exit code 1 on a violation. An instance is named
by its number; ``tests/knapsack_cases.py`` says how to look at one.
"""

from __future__ import annotations

import argparse
import sys
from multiprocessing import Pool
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))

from knapsack_cases import Found, check


def look(seed: int) -> Found | str:
    try:
        return check(seed)
    except AssertionError as error:
        return str(error)


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("instances", type=int, help="how many")
    parser.add_argument("--first", type=int, default=0, help="number of the first")
    parser.add_argument("--jobs", type=int, default=1, help="processes")
    given = parser.parse_args()
    with Pool(given.jobs) as pool:
        found = pool.map(look, range(given.first, given.first + given.instances), 200)
    faults = [each for each in found if isinstance(each, str)]
    sound = [each for each in found if isinstance(each, Found)]
    print("".join(f"{fault}\n" for fault in faults[:20]), end="")
    print(f"{given.instances:,} instances, {len(faults)} violations")
    for name in ("prefix", "filled", "half"):
        shares = [getattr(each, name) for each in sound]
        exact = sum(share == 1 for share in shares)
        print(f"{name:>7}: worst share of the optimum {min(shares):.4f}, optimal in {100 * exact / len(shares):.1f} %")
    print(f"largest part of a gap that was needed: {max(each.used for each in sound):.4f}")
    return 1 if faults else 0


if __name__ == "__main__":
    sys.exit(main())
