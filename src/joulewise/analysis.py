"""What a study file names beforehand: comparisons, targets and selection seeds, and the arms that these mean."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated

import msgspec
from msgspec import Meta

from joulewise import fleetfile, labels
from joulewise.choices import Choice, Part, Seed, feedback_of
from joulewise.errors import StudyError
from joulewise.flower.app import Arm
from joulewise.questions import EVALUATIONS, Measure, Question, Questions, Setting

MOST_PRIMARY = 4
NEEDS = {
    "accuracy_at_energy": "energy_budget",
    "energy_to_accuracy": "target_accuracy",
    "bytes_to_accuracy": "target_accuracy",
}
EXAMPLES = {"energy_budget": "2.0e6", "target_accuracy": "0.45"}


class Primary(Part, frozen=True, omit_defaults=True):
    """A comparison that the study is for.

    Args:
        name: what to call it.
        arm: settings that pick out one arm, or of which one is chosen; for a hypervolume, the arms of one side.
        against: the same for the other side.
        measure: what is compared.
    """

    name: Annotated[str, Meta(min_length=1)]
    arm: Choice
    against: Choice
    measure: Measure = "accuracy"


class Analysis(Part, frozen=True, omit_defaults=True):
    """What a study wants to know, named before it runs.

    Args:
        target_accuracy: energy and bytes are counted until it is reached, 0 to 1.
        energy_budget: accuracies are compared when it is spent, in the unit of the study's devices.
        selection_seeds: arms run with these too, to choose among those that differ in `choose` alone; no result of
            them is reported.
        choose: settings that are chosen on the selection seeds.
        primary: at most four comparisons; every other one is descriptive.
    """

    target_accuracy: Annotated[float, Meta(gt=0, le=1)] | None = None
    energy_budget: Annotated[float, Meta(gt=0)] | None = None
    selection_seeds: tuple[Seed, ...] = ()
    choose: tuple[Setting, ...] = ("learning_rate", "feedback")
    primary: tuple[Primary, ...] = ()

    def __post_init__(self) -> None:
        if len(self.primary) > MOST_PRIMARY:
            raise ValueError(
                f"{len(self.primary)} comparisons are primary, expected at most {MOST_PRIMARY}; leave the others out: "
                "the report describes them all the same"
            )
        for number, one in enumerate(self.primary):
            if one.name in {other.name for other in self.primary[:number]}:
                raise ValueError(f"two primary comparisons are called {one.name!r}, expected a name for each")
            need = NEEDS.get(one.measure)
            if need is not None and getattr(self, need) is None:
                raise ValueError(
                    f"measure = {one.measure!r} of {one.name!r} needs {need}; add for example {need} = {EXAMPLES[need]}"
                )


def resolve(study: str, seeds: Sequence[int], analysis: Analysis, arms: Sequence[Arm]) -> Questions:
    """The analysis of a study in the names of its arms.

    Raises:
        StudyError: a side of a comparison picks no arm, or several; or the rules have unequal numbers of arms to choose
            among.
    """
    groups = _groups(arms, analysis.choose) if analysis.selection_seeds else tuple((arm,) for arm in arms)
    late = [one for one in analysis.primary if NEEDS.get(one.measure) == "target_accuracy"]
    if late and arms[0].rounds < EVALUATIONS:
        raise StudyError(
            f"analysis.primary {late[0].name!r}: {late[0].measure} looks at {EVALUATIONS} rounds in a row, but rounds "
            f"= {arms[0].rounds}; give the study more rounds"
        )
    if analysis.selection_seeds:
        _check_sizes(groups, analysis.choose)
    return Questions(
        study=study,
        seeds=tuple(seeds),
        target_accuracy=analysis.target_accuracy,
        energy_budget=analysis.energy_budget,
        selection_seeds=analysis.selection_seeds,
        choose=analysis.choose if analysis.selection_seeds else (),
        groups=tuple(tuple(arm.name for arm in group) for group in groups),
        primary=tuple(_question(one, groups) for one in analysis.primary),
    )


# ---------------------------------------------------------------- comparisons


def _question(primary: Primary, groups: Sequence[Sequence[Arm]]) -> Question:
    sides = [_side(primary, key, groups) for key in ("arm", "against")]
    shared = sorted(set(sides[0]) & set(sides[1]))
    if shared:
        raise StudyError(
            f"analysis.primary {primary.name!r} compares {shared[0]} with itself; change its arm or its against"
        )
    if primary.measure == "hypervolume":
        sizes = [sum(group[0].name in side for group in groups) for side in sides]
        if sizes[0] != sizes[1]:
            raise StudyError(
                f"analysis.primary {primary.name!r} compares the hypervolume of {sizes[0]} arms with that of "
                f"{sizes[1]}: more arms have more of it; pick out equally many"
            )
    return Question(name=primary.name, arms=sides[0], against=sides[1], measure=primary.measure)


def _side(primary: Primary, key: str, groups: Sequence[Sequence[Arm]]) -> tuple[str, ...]:
    """Names of the arms of a side: whole groups, of which one arm will be chosen."""
    choice: Choice = getattr(primary, key)
    picked = [[arm for arm in group if _fits(arm, choice)] for group in groups]
    found = [(some, group) for some, group in zip(picked, groups, strict=True) if some]
    place = f"analysis.primary {primary.name!r}: {key}"
    if not found:
        known = _few([arm.name for group in groups for arm in group])
        raise StudyError(f"{place} picks out no arm; the study's arms are {known}")
    for some, group in found:
        if len(some) < len(group):
            raise StudyError(
                f"{place} picks out {some[0].name}, but one of {_few([arm.name for arm in group])} is chosen on the "
                "selection seeds; leave out what is chosen"
            )
    if len(found) > 1 and primary.measure != "hypervolume":
        names = _few([group[0].name for _, group in found])
        raise StudyError(f"{place} picks out {len(found)} arms, expected one: {names}; add settings")
    return tuple(arm.name for _, group in found for arm in group)


def _fits(arm: Arm, choice: Choice) -> bool:
    """Whether an arm has every setting that a choice names."""
    compressor, training = arm.compressor, arm.training
    feedback = None if choice.feedback is None else feedback_of(choice.feedback)
    devices = None if choice.devices is None else fleetfile.assign(choice.devices, arm.data.clients)
    pairs = (
        (choice.rule, compressor.rule),
        (choice.budget, compressor.budget),
        (choice.values, compressor.values),
        (choice.strategy, arm.strategy),
        (devices, arm.devices),
        (choice.schedule, arm.supply.schedule),
        (choice.partition, arm.data.partition),
        (choice.learning_rate, training.learning_rate),
        (choice.local_epochs, training.local_epochs),
    )
    same = all(asked is None or asked == own for asked, own in pairs)
    return same and (choice.feedback is None or feedback == compressor.feedback)


def _few(names: Sequence[str]) -> str:
    shown = 6
    return ", ".join(names[:shown]) + (f" and {len(names) - shown} more" if len(names) > shown else "")


# ---------------------------------------------------------------- choosing


def _groups(arms: Sequence[Arm], choose: Sequence[Setting]) -> tuple[tuple[Arm, ...], ...]:
    """Arms that differ in nothing but what is chosen."""
    groups: dict[bytes, list[Arm]] = {}
    for arm in arms:
        own = {name: value for name, value in labels.settings(arm).items() if name not in choose}
        groups.setdefault(msgspec.json.encode(own, order="sorted"), []).append(arm)
    return tuple(tuple(group) for group in groups.values())


def _check_sizes(groups: Sequence[Sequence[Arm]], choose: Sequence[Setting]) -> None:
    """A rule with more alternatives would win by their number. Dense has nothing to feed back, which is no want."""
    rest = [name for name in choose if name != "feedback"]
    compressing = [group for group in groups if group[0].compressor.budget is not None]
    for counted, names in ((compressing, choose), (groups, rest)):
        sizes = {group[0].name: len({_values(arm, names) for arm in group}) for group in counted}
        if len(set(sizes.values())) > 1:
            least, most = (end(sizes, key=sizes.__getitem__) for end in (min, max))
            raise StudyError(
                f"analysis.selection_seeds chooses {', '.join(names)} of {least} among {sizes[least]}, of {most} among "
                f"{sizes[most]} alternatives; give every rule equally many"
            )


def _values(arm: Arm, names: Sequence[str]) -> str:
    own = labels.settings(arm)
    return repr([own[name] for name in names])
