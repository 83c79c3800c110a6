"""Hypervolumes: how much of the plane of energy and accuracy the arms of a rule beat together, seed by seed."""

from __future__ import annotations

from collections.abc import Sequence

from joulewise.findings import Reference, Volume
from joulewise.outcomes import Arm
from joulewise.pareto import hypervolume, interval, paired
from joulewise.results import Setting

CLASSES = {"Digits": 10, "Cifar10": 10}
"""Number of classes of each data set, as rows name it."""
DENSE, TOPK = "Dense", "TopK"


def reference(arms: Sequence[Arm], data: Setting) -> Reference | None:
    """The point to measure from: Dense's energy, or that of the dearest arm, and the accuracy of guessing.

    Args:
        arms: of a study.
        data: its data set, as rows name it.

    Returns:
        None where the data set is not known, or no energy was recorded.
    """
    whole = [arm for arm in arms if arm.complete]
    dearest = max([arm for arm in whole if arm.rule == DENSE] or whole, key=lambda arm: arm.energy.mean)
    classes = CLASSES.get(str(data))
    if classes is None or dearest.energy.mean <= 0:
        return None
    return Reference(energy=dearest.energy.mean, arm=dearest.name, accuracy=1 / classes)


def by_seed(arms: Sequence[Arm], point: Reference) -> dict[int, float]:
    """Hypervolume of arms together, by seed, as a share of the rectangle from `point` to full accuracy for no energy.

    Only arms that are complete and seeds that all of them have finished count.
    """
    whole = [{run.seed: run for run in arm.runs} for arm in arms if arm.complete]
    if not whole:
        return {}
    area = point.energy * (1 - point.accuracy)
    found = {}
    for seed in sorted(set.intersection(*(set(runs) for runs in whole))):
        own = [runs[seed] for runs in whole]
        cost, value = [run.energy[-1] for run in own], [run.accuracy[-1] for run in own]
        found[seed] = hypervolume(cost, value, point.energy, point.accuracy) / area
    return found


def volumes(arms: Sequence[Arm], point: Reference | None) -> tuple[Volume, ...]:
    """Hypervolume of each rule but Dense, and how much more than that of TopK where that has equally many arms."""
    if point is None:
        return ()
    rules: dict[str, list[Arm]] = {}
    for arm in arms:
        if arm.complete and arm.rule != DENSE:
            rules.setdefault(arm.rule, []).append(arm)
    shares = {rule: by_seed(own, point) for rule, own in rules.items()}
    sizes = {rule: len(own) for rule, own in rules.items()}
    return tuple(
        Volume(
            rule=rule,
            arms=sizes[rule],
            share=interval(list(own.values())),
            more=paired(own, shares[TOPK]) if rule != TOPK and sizes.get(TOPK) == sizes[rule] else None,
        )
        for rule, own in shares.items()
        if own
    )
