"""Hypervolumes: how much of the plane of energy and accuracy the arms of a rule beat together, seed by seed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from joulewise.findings import Reference, Volume
from joulewise.outcomes import Arm
from joulewise.pareto import hypervolume, interval, paired
from joulewise.results import Setting

CLASSES = {"Digits": 10, "Cifar10": 10}
"""Number of classes of data sets whose rows do not say it: those from before rows did. No further one belongs here."""
DENSE, TOPK = "Dense", "TopK"


def reference(arms: Sequence[Arm], settings: Mapping[str, Setting]) -> Reference | None:
    """The point to measure from: Dense's energy, or that of the dearest arm, and the accuracy of guessing.

    Args:
        arms: of a study.
        settings: that they share, of which ``classes`` is the number of classes.

    Returns:
        None where that is not known, or no energy was recorded.
    """
    whole = [arm for arm in arms if arm.complete]
    dearest = max([arm for arm in whole if arm.rule == DENSE] or whole, key=lambda arm: arm.energy.mean)
    classes = settings.get("classes") or CLASSES.get(str(settings.get("data")))
    if not isinstance(classes, int) or dearest.energy.mean <= 0:
        return None
    return Reference(energy=dearest.energy.mean, arm=dearest.name, accuracy=1 / classes)


def by_seed(arms: Sequence[Arm], point: Reference) -> dict[int, float]:
    """Hypervolume of arms together, by seed, as a share of the rectangle from `point` to full accuracy for no energy.

    Only arms that are complete and seeds that all of them have finished count: whether an arm is lacking, of which the
    others then have too little, is for the caller to see.
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


def lacking(names: Sequence[str], arms: Sequence[Arm], groups: Sequence[Sequence[str]] = ()) -> int:
    """How many arms a side lacks: one is to come of each group that its names belong to, or one of each name.

    Args:
        names: of the arms of the side.
        arms: that are reported on.
        groups: names of arms of which one is reported on.
    """
    whole = {arm.name for arm in arms if arm.complete}
    of_side = {frozenset(group) for group in groups if not set(names).isdisjoint(group)}
    alone = {frozenset([name]) for name in names if not any(name in group for group in of_side)}
    return sum(whole.isdisjoint(group) for group in of_side | alone)


def volumes(arms: Sequence[Arm], point: Reference | None, groups: Sequence[Sequence[str]] = ()) -> tuple[Volume, ...]:
    """Hypervolume of each rule but Dense, and how much more than that of TopK where both have equally many arms.

    A rule with an arm that is not complete is not compared; nor is any while an arm of the study has no row, since
    nothing tells its rule.

    Args:
        arms: that are reported on.
        point: from which hypervolumes are measured.
        groups: names of arms of which one is to be reported on; empty where the study named nothing beforehand.
    """
    if point is None:
        return ()
    rules: dict[str, list[Arm]] = {}
    for arm in arms:
        if arm.rule != DENSE:
            rules.setdefault(arm.rule, []).append(arm)
    names = {arm.name for arm in arms}
    begun = not any(names.isdisjoint(group) for group in groups)
    found = {rule: _volume(rule, own, rules.get(TOPK, []), point, begun) for rule, own in rules.items()}
    return tuple(each for each in found.values() if each is not None)


def _volume(rule: str, own: Sequence[Arm], topk: Sequence[Arm], point: Reference, begun: bool) -> Volume | None:
    shares = by_seed(own, point)
    if not shares:
        return None
    whole = all(arm.complete for arm in (*own, *topk))
    comparable = begun and whole and rule != TOPK and len(own) == len(topk)
    return Volume(
        rule=rule,
        arms=sum(arm.complete for arm in own),
        of=len(own),
        share=interval(list(shares.values())),
        more=paired(shares, by_seed(topk, point)) if comparable else None,
    )
