"""The tables of what a study named beforehand: primary comparisons with their verdicts, and what was chosen."""

from __future__ import annotations

import msgspec

from joulewise.answers import RATIOS
from joulewise.findings import Answer, Candidate, Chosen
from joulewise.notation import counted, energy_unit, exponent_of, number, percent
from joulewise.outcomes import Summary
from joulewise.pareto import SEEDS_FOR_A_CLAIM, Interval
from joulewise.questions import EVALUATIONS
from joulewise.significance import SIGNIFICANCE
from joulewise.tabular import NONE, Table

SIGN_TEST = (
    "Where a seed does not reach the accuracy, no mean is taken of the others: a sign test counts the seeds in "
    "which each side is known to need less, and those of unknown order against whoever leads. It needs six seeds."
)


def primary(found: Summary) -> Table | None:
    """The primary comparisons; None where the study named none."""
    if not found.answers:
        return None
    return Table(
        caption=f"{found.study}: what it was to find out, named beforehand",
        columns=("Comparison", "Measure", "Seeds", "p", "In words"),
        rows=tuple(_line(one, found) for one in found.answers),
        notes=(
            "Differences are paired by seed, with 95 % intervals by Student's t, each for itself; of energies and "
            "bytes they are ratios, on logarithms. Called different is what has a p-value of at most "
            f"{SIGNIFICANCE} after Holm's adjustment for {counted(len(found.answers), 'comparison')}; the column p has "
            "those before it. Everything else in this report is descriptive.",
            *_more_notes(found),
        ),
    )


def chosen(found: Summary) -> Table | None:
    """Which arms were chosen on selection seeds, and among which; None where nothing was chosen."""
    if not found.chosen or found.questions is None:
        return None
    names = ", ".join(found.questions.choose)
    numbers = found.questions.selection_seeds
    seeds = f"seed{'s' * (len(numbers) > 1)} {', '.join(map(str, numbers))}"
    return Table(
        caption=f"{found.study}: chosen on selection seeds",
        columns=("Chosen", "From", "Its accuracy there (%)", "The others"),
        rows=tuple(_chosen_line(one) for one in found.chosen),
        notes=(
            f"Chosen: {names}, by the best mean final accuracy on {seeds}, of which nothing else is reported. The "
            "others are in no other table.",
        ),
    )


def shown(one: Answer) -> bool:
    """Whether a comparison shows a difference."""
    claimed = one.test is not None and not one.lacking and not one.missing and one.seeds >= SEEDS_FOR_A_CLAIM
    return claimed and one.adjusted <= SIGNIFICANCE


def verdict(one: Answer) -> str:
    """What a comparison shows, in a sentence."""
    if one.lacking:
        arms = f"{counted(one.lacking, 'arm')} {'is' if one.lacking == 1 else 'are'}"
        return f"no claim: {arms} not finished, without which a side has less of the plane"
    if one.missing:
        planned = one.seeds + len(one.missing)
        left = f"seed{'s' * (len(one.missing) > 1)} {', '.join(map(str, one.missing))}"
        return f"no claim: {one.seeds} of {counted(planned, 'seed')} can be compared, {left} cannot"
    if one.seeds < SEEDS_FOR_A_CLAIM:
        return f"{counted(one.seeds, 'seed')}: no claim is made"
    if one.test is None:
        return "no claim: no energy was recorded"
    if one.difference is not None and one.signs == (0, 0, one.seeds):
        return f"{one.arm} and {one.against} are equal in every seed"
    words = _by_sign(one, shown(one)) if one.test == "sign" else _by_t(one, shown(one))
    return f"{words}; Holm-adjusted {_p(one.adjusted)}{_reached(one)}"


def measure(one: Answer, found: Summary) -> str:
    """The measure of a comparison, in words."""
    asked = found.questions
    target = f"{100 * found.target:g} % accuracy"
    budget = (asked.energy_budget if asked else None) or 0.0
    scale = energy_unit(found.unit, exponent_of([budget]))
    return {
        "accuracy": "final accuracy",
        "accuracy_at_energy": f"accuracy when {number(budget / scale.divisor)} {scale.name} are spent",
        "energy_to_accuracy": f"uplink energy to {target}",
        "bytes_to_accuracy": f"uplink bytes to {target}",
        "hypervolume": "hypervolume",
        "worst_client": "accuracy of the worst client",
    }[one.measure]


def labelled(one: Answer, found: Summary) -> Answer:
    """The comparison with the short names of its arms."""
    return msgspec.structs.replace(one, arm=found.label_of(one.arm), against=found.label_of(one.against))


def _line(one: Answer, found: Summary) -> tuple[str, ...]:
    unadjusted = NONE if one.p is None else _p(one.p).removeprefix("p = ").removeprefix("p ")
    return one.name, measure(one, found), str(one.seeds), unadjusted, verdict(labelled(one, found))


def _by_t(one: Answer, differs: bool) -> str:
    found = one.difference
    assert found is not None
    if one.measure in RATIOS:
        if differs:
            return f"{one.arm} takes {'less' if found.mean < 1 else 'more'} than {one.against}: {_difference(one)}"
        return f"{one.arm} is not shown to differ from {one.against}: {_difference(one)}"
    if differs:
        size = Interval(mean=abs(found.mean), low=found.low, high=found.high, seeds=found.seeds)
        if found.mean < 0 and found.low is not None and found.high is not None:
            size = Interval(mean=-found.mean, low=-found.high, high=-found.low, seeds=found.seeds)
        word = "higher" if found.mean > 0 else "lower"
        return f"{one.arm} is {word} than {one.against} by {_points(size)}"
    return f"{one.arm} is not shown to differ from {one.against}: {_difference(one)}"


def _by_sign(one: Answer, differs: bool) -> str:
    less, more, unknown = one.signs
    if one.measure in RATIOS:
        below, above, neither = "less", "more", "not known to differ"
    else:
        below, above, neither = "lower", "higher", "equal"
    counts = f"{below} in {less} seeds, {above} in {more}, {neither} in {unknown} (sign test)"
    if not differs:
        return f"{one.arm} is not shown to differ from {one.against}: {counts}"
    verb = "takes" if one.measure in RATIOS else "is"
    return f"{one.arm} {verb} {below if less > more else above} than {one.against}: {counts}"


def _difference(one: Answer) -> str:
    found = one.difference
    if found is None:
        return NONE
    if one.measure not in RATIOS:
        return _points(found, sign="+")
    ends = "" if found.low is None or found.high is None else f" ({number(found.low)} to {number(found.high)})"
    return f"{number(found.mean)} times{ends}"


def _points(found: Interval, sign: str = "") -> str:
    mean, *between = (f"{100 * share:{sign}.1f}" for share in (found.mean, found.low, found.high) if share is not None)
    return f"{mean} points" + (f" ({' to '.join(between)})" if between else "")


def _p(value: float) -> str:
    return "p < 0.001" if value < 0.001 else f"p = {value:.2g}"


def _reached(one: Answer) -> str:
    if one.reached is None or one.reached == (one.seeds, one.seeds):
        return ""
    own, other = one.reached
    return f". {one.arm} reaches the accuracy in {own} of {one.seeds} seeds, {one.against} in {other}"


def _more_notes(found: Summary) -> list[str]:
    notes = []
    if any(one.measure in RATIOS for one in found.answers):
        notes.append(
            f"An accuracy is reached at the last of {EVALUATIONS} rounds in a row whose mean has it. {SIGN_TEST}"
        )
    if any(one.measure == "hypervolume" for one in found.answers):
        notes.append("Hypervolumes are shares of the rectangle whose corner the table of hypervolumes tells.")
    if any(one.measure == "worst_client" for one in found.answers):
        notes.append(
            "The worst client is that of all clients, those that took no part in the last round included; where rows "
            "do not tell how good the model is for these, the seed cannot be compared."
        )
    early = sum(one.ended_early for one in found.answers)
    if early:
        notes.append(
            f"{counted(early, 'run')} ended before the energy was spent: what more rounds would have reached is not "
            "known, and the accuracy at the end is taken."
        )
    return notes


def _chosen_line(one: Chosen) -> tuple[str, ...]:
    own = next((each for each in one.candidates if each.arm == one.arm), None)
    others = [each for each in one.candidates if each.arm != one.arm]
    return (
        one.arm or "none yet",
        counted(len(one.candidates), "arm"),
        NONE if own is None or own.accuracy is None else percent(own.accuracy),
        "; ".join(_other(each, one) for each in others),
    )


def _other(one: Candidate, among: Chosen) -> str:
    """A candidate, by the end of its name in which the candidates differ, and its accuracy."""
    names = [each.arm.split() for each in among.candidates]
    same = next((at for at, words in enumerate(zip(*names, strict=False)) if len(set(words)) > 1), 0)
    found = "not finished" if one.accuracy is None else f"{100 * one.accuracy.mean:.1f}"
    return f"{' '.join(one.arm.split()[same:])}: {found}"
