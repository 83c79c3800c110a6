"""How much more energy TopK takes to an accuracy fixed beforehand than the best cost-weighted arm, with paired seeds.

``python benchmarks/headline.py RESULTS...``, where each is a folder of rows whose study named a target accuracy and
selection seeds, such as results/fleet-real. For each set of devices the arm of either side that takes the least uplink
energy to the accuracy on the selection seeds is found, among all that the study varies for its rules. From how many
arms is printed: the side with more of them has more to choose from. Of these two, and on the other seeds alone: the
ratio of the uplink energies and of everything modelled, receiving included (mean of logarithms, 95 % interval by
Student's t), or a sign test where a seed does not reach the accuracy.
"""

from __future__ import annotations

import argparse
import math
import sys
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping
from itertools import accumulate

from joulewise import questions, rowfile
from joulewise.answers import Value, compare
from joulewise.findings import Answer
from joulewise.ledger import total
from joulewise.pareto import crossing
from joulewise.results import Row, uplink_energy

BASE, OURS = frozenset({"TopK"}), frozenset({"CWMP", "Projection", "MinVariance"})
Runs = Mapping[str, Mapping[int, list[Row]]]
"""Rows in the order of rounds, by arm and seed."""


def runs_of(rows: Iterable[Row]) -> dict[str, dict[str, dict[int, list[Row]]]]:
    """Rows by devices, arm and seed."""
    found: dict[str, dict[str, dict[int, list[Row]]]] = defaultdict(lambda: defaultdict(lambda: defaultdict(list)))
    for row in sorted(rows, key=lambda row: row.round):
        found[str(row.settings["devices"])][row.arm][row.seed].append(row)
    return found


def everything(row: Row) -> float:
    """All that was modelled of a round, in joules or the profile's units."""
    return total(charge for client in row.clients for charge in client.charges)


def to_accuracy(rows: list[Row], accuracy: float, energy: Callable[[Row], float]) -> Value:
    """Energy until an accuracy is reached, or all that was spent."""
    spent = list(accumulate(map(energy, rows)))
    place = crossing([row.server.accuracy for row in rows], accuracy)
    return Value(spent[-1], reached=False) if place is None else Value(spent[place])


def cheapest(runs: Runs, rules: frozenset[str], asked: questions.Questions) -> str | None:
    """The arm with the least mean logarithm of the energy on the selection seeds, of those that reach it in all."""
    means: dict[str, float] = {}
    for arm, seeds in runs.items():
        if not all(seed in seeds for seed in (*asked.selection_seeds, *asked.seeds)):
            continue
        values = [to_accuracy(seeds[seed], asked.target_accuracy or 0, uplink_energy) for seed in asked.selection_seeds]
        if next(iter(seeds.values()))[0].rule in rules and all(value.reached for value in values):
            means[arm] = sum(math.log(value.amount) for value in values)
    return min(means, key=lambda arm: means[arm], default=None)


def count(runs: Runs, rules: frozenset[str]) -> int:
    """How many arms have one of these rules."""
    return sum(next(iter(seeds.values()))[0].rule in rules for seeds in runs.values())


def ratio(runs: Runs, first: str, second: str, asked: questions.Questions, energy: Callable[[Row], float]) -> str:
    """Energy of the second arm over that of the first."""
    sides = [
        {seed: to_accuracy(runs[arm][seed], asked.target_accuracy or 0, energy) for seed in asked.seeds}
        for arm in (second, first)
    ]
    blank = Answer(name="", measure="energy_to_accuracy", arm=second, against=first, seeds=0, missing=())
    found = compare(blank, *sides)
    reached = f"reached by {found.reached[0]} and {found.reached[1]} of {found.seeds} seeds" if found.reached else ""
    if found.p is None:
        return f"no comparison with {found.seeds} seeds, or of runs that spent nothing"
    if found.difference is None:
        return f"dearer in {found.signs[1]}, cheaper in {found.signs[0]}; {reached}; sign test p = {found.p:.2g}"
    change = found.difference
    return f"{change.mean:.2f} ({change.low:.2f} to {change.high:.2f}), {reached}"


def main() -> None:
    """Print three lines for each set of devices."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("folders", nargs="+")
    for folder in parser.parse_args().folders:
        asked = questions.read(folder)
        if asked is None or asked.target_accuracy is None or not asked.selection_seeds:
            sys.exit(f"the study in {folder} named no target_accuracy or no selection_seeds beforehand")
        for devices, runs in runs_of(rowfile.read(folder)).items():
            base, ours = (cheapest(runs, rules, asked) for rules in (BASE, OURS))
            sys.stdout.write(f"{asked.study}, {devices}, to {100 * asked.target_accuracy:g} %:\n")
            if base is None or ours is None:
                sys.stdout.write("  no arm of one side reaches it on all selection seeds\n")
                continue
            sizes = [count(runs, rules) for rules in (BASE, OURS)]
            sys.stdout.write(f"  {base} (of {sizes[0]} arms)\n  over {ours} (of {sizes[1]} arms)\n")
            for name, energy in (("uplink", uplink_energy), ("all that is modelled", everything)):
                sys.stdout.write(f"  {name}: {ratio(runs, ours, base, asked, energy)}\n")


if __name__ == "__main__":
    main()
