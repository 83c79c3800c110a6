"""Accuracy of cost-weighted rules over TopK's at equal energy, for each device of a study, with paired seeds.

``python benchmarks/price_rows.py RESULTS``, where RESULTS is a folder of rows such as results/prices. After the last
round: the mean difference in points, half of its 95 % interval, and the p-value of Student's paired t test after Holm's
adjustment for all differences that are printed.
"""

from __future__ import annotations

import argparse
import sys
from collections import defaultdict
from pathlib import PurePath

from joulewise import rowfile
from joulewise.pareto import Difference, paired
from joulewise.significance import holm

BASE, RULES = "TopK", ("CWMP", "Projection")


def differences(folder: str) -> dict[tuple[str, str], Difference]:
    """By device and rule, after the last round."""
    rows = rowfile.read(folder)
    last = max(row.round for row in rows)
    finals: dict[tuple[str, str], dict[int, float]] = defaultdict(dict)
    for row in rows:
        if row.round == last:
            finals[str(row.settings["devices"]), row.rule][row.seed] = 100 * row.server.accuracy
    devices = dict.fromkeys(device for device, _ in finals)
    found = {(one, rule): paired(finals[one, rule], finals[one, BASE]) for one in devices for rule in RULES}
    return {key: each for key, each in found.items() if each is not None}


def main() -> None:
    """Print a line for each device."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("folder")
    found = differences(parser.parse_args().folder)
    adjusted = dict(zip(found, holm([1.0 if each.p is None else each.p for each in found.values()]), strict=True))
    for device in dict.fromkeys(device for device, _ in found):
        parts = []
        for rule in RULES:
            change = found[device, rule].interval
            half = (change.high or change.mean) - change.mean
            parts.append(f"{rule} {change.mean:+5.1f} ± {half:3.1f} (Holm {adjusted[device, rule]:.2g})")
        sys.stdout.write(f"{PurePath(device).stem:<16} {change.seeds} seeds  {'  '.join(parts)}\n")


if __name__ == "__main__":
    main()
