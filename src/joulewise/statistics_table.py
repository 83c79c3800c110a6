"""The descriptive tables of a study's statistics: what arms reach and how sure the frontier is, and hypervolumes."""

from __future__ import annotations

from joulewise.certainty import RESAMPLES, shares
from joulewise.notation import Scale, bytes_scale, energy_unit, exponent_of, number, percent, scaled
from joulewise.outcomes import Arm, Summary
from joulewise.pareto import SEEDS_FOR_A_CLAIM, accuracy_at, interval
from joulewise.questions import EVALUATIONS
from joulewise.tabular import NONE, Table


def reached(found: Summary) -> Table:
    """In how many seeds each arm reaches the target, and for how many bytes; how often it is on the frontier."""
    sent = bytes_scale([arm.to_target.sent.mean for arm in found.arms])
    on = shares(found.arms)
    budget = found.questions.energy_budget if found.questions else None
    scale = energy_unit(found.unit, exponent_of([budget or 0.0]))
    at_energy = () if budget is None else (f"Accuracy at {number(budget / scale.divisor)} {scale.name} (%)",)
    target = f"{100 * found.target:g} %"
    return Table(
        caption=f"{found.study}: what each arm reaches, and how sure the frontier is (descriptive)",
        columns=(
            "Arm",
            f"Reaches {target} in",
            f"Uplink bytes until then ({sent.name})",
            *at_energy,
            "On the frontier (% of resamples)",
        ),
        rows=tuple(_line(arm, sent, budget, on) for arm in found.arms),
        notes=_notes(found, bool(on)),
    )


def hypervolumes(found: Summary) -> Table | None:
    """How much of the plane of energy and accuracy each rule's arms beat together; None where that is not known."""
    point = found.reference
    if point is None or not found.volumes:
        return None
    scale = energy_unit(found.unit, exponent_of([point.energy]))
    return Table(
        caption=f"{found.study}: hypervolume of each rule (descriptive)",
        columns=("Rule", "Arms", "Seeds", "Hypervolume (%)", "More than TopK (points)"),
        rows=tuple(
            (
                one.rule,
                str(one.arms) if one.arms == one.of else f"{one.arms} of {one.of}",
                str(one.share.seeds),
                percent(one.share),
                NONE if one.more is None else percent(one.more.interval),
            )
            for one in found.volumes
        ),
        notes=(
            "The share that at least one arm of the rule beats of the rectangle from the reference point, "
            f"{number(point.energy / scale.divisor)} {scale.name} (the mean of {found.label_of(point.arm)}) and "
            f"{100 * point.accuracy:g} % (guessing), to no energy and 100 %. Both axes are linear. It is taken seed by "
            "seed. More arms have more of it: rules are compared with TopK only where both have equally many, and none "
            "of them is unfinished. An arm of which there is no row is known only to a study that named comparisons "
            "beforehand.",
        ),
    )


def _line(arm: Arm, sent: Scale, budget: float | None, on: dict[str, float]) -> tuple[str, ...]:
    to, share = arm.to_target, on.get(arm.name)
    bound = "" if to.everywhere else "over "
    return (
        arm.label,
        f"{to.seeds} of {to.of}",
        bound + scaled(to.sent, sent),
        *(() if budget is None else (_at(arm, budget),)),
        NONE if share is None else number(100 * share),
    )


def _at(arm: Arm, budget: float) -> str:
    found = [accuracy_at(run.energy, run.accuracy, budget) for run in arm.runs]
    known = [accuracy for accuracy in found if accuracy is not None]
    if len(known) < len(found):
        return f"pays for no round in {len(found) - len(known)} of {len(found)} seeds"
    early = sum(run.energy[-1] < budget for run in arm.runs)
    return percent(interval(known)) + (f", {early} ended before" if early else "")


def _notes(found: Summary, known: bool) -> tuple[str, ...]:
    named = found.questions is not None and found.questions.target_accuracy is not None
    origin = (
        "named beforehand" if named else "95 % of the best mean over the last rounds, so that it was found afterwards"
    )
    notes = [
        f"The accuracy to reach is {origin}. It is reached at the last of {EVALUATIONS} rounds in a row whose mean has "
        "it; a run that does not reach it would have to spend more than it did, so that the mean is over what stands "
        "here.",
        f"On the frontier: share of {RESAMPLES:,} bootstrap samples of the seeds, the same seeds for every arm, in "
        "which no other arm has at least the mean accuracy for at most the mean energy."
        if known
        else f"With fewer than {SEEDS_FOR_A_CLAIM} common seeds it is not told how sure the frontier is.",
    ]
    return tuple(notes)
