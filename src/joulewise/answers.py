"""The primary comparisons of a study: each tested seed by seed, all of them adjusted by Holm."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence

import msgspec

from joulewise.findings import Answer, Reference
from joulewise.outcomes import Arm, Run
from joulewise.pareto import SEEDS_FOR_A_CLAIM, Interval, accuracy_at, crossing, paired
from joulewise.questions import Question, Questions
from joulewise.significance import holm, sign_test
from joulewise.volumes import by_seed, lacking

RATIOS = frozenset({"energy_to_accuracy", "bytes_to_accuracy"})


class Value(msgspec.Struct, frozen=True):
    """What a run comes to; where it does not reach the accuracy, what it spent, which is less than what it needs."""

    amount: float
    reached: bool = True


Values = Mapping[int, Value]
"""By seed."""


def answers(questions: Questions, arms: Sequence[Arm], point: Reference | None) -> tuple[Answer, ...]:
    """Answer every primary comparison; the adjusted p-values are Holm's over all that were named, answered or not.

    Args:
        questions: what the study named beforehand.
        arms: that are reported on.
        point: from which hypervolumes are measured.
    """
    found = [_answer(one, questions, arms, point) for one in questions.primary]
    adjusted = holm([1.0 if one.p is None else one.p for one in found])
    return tuple(msgspec.structs.replace(one, adjusted=p) for one, p in zip(found, adjusted, strict=True))


def compare(answer: Answer, first: Values, second: Values) -> Answer:
    """Compare two sides over the seeds named beforehand, unless some are missing or there are fewer than three.

    A comparison of part of the seeds would depend on when it was looked at, or leave out the runs that diverged.

    Args:
        answer: names, measure, and the seeds that are missing.
        first: values of the arm.
        second: values of what it is compared with.
    """
    seeds = sorted(first.keys() & second.keys())
    pairs = [(first[seed], second[seed]) for seed in seeds]
    answer = msgspec.structs.replace(answer, seeds=len(seeds), signs=_signs(pairs))
    if answer.measure in RATIOS:
        reached = sum(one.reached for one, _ in pairs), sum(other.reached for _, other in pairs)
        answer = msgspec.structs.replace(answer, reached=reached)
    if answer.missing or len(seeds) < SEEDS_FOR_A_CLAIM:
        return answer
    if not all(one.reached and other.reached for one, other in pairs):
        return msgspec.structs.replace(answer, test="sign", p=sign_test(*answer.signs))
    return _test(answer, *({seed: side[seed].amount for seed in seeds} for side in (first, second)))


def _test(answer: Answer, first: Mapping[int, float], second: Mapping[int, float]) -> Answer:
    """Student's paired t test; of ratios on logarithms; a sign test where there is no spread to hold it against."""
    ratio = answer.measure in RATIOS
    if ratio and min(*first.values(), *second.values()) <= 0:  # no energy was recorded
        return answer
    if ratio:
        first, second = ({seed: math.log(amount) for seed, amount in side.items()} for side in (first, second))
    found = paired(first, second)
    assert found is not None
    test, p = ("sign", sign_test(*answer.signs)) if found.p is None else ("t", found.p)
    difference = _exponential(found.interval) if ratio else found.interval
    return msgspec.structs.replace(answer, difference=difference, test=test, p=p)


def _exponential(found: Interval) -> Interval:
    low, high = (None if end is None else math.exp(end) for end in (found.low, found.high))
    return Interval(mean=math.exp(found.mean), low=low, high=high, seeds=found.seeds)


def _signs(pairs: Iterable[tuple[Value, Value]]) -> tuple[int, int, int]:
    """In how many pairs the first is less, is more, and is neither as far as is known.

    Who does not reach the accuracy needs more than what was spent, and is dearer than whoever reached it for that much
    or less. Two that do not reach it are not known to differ.
    """
    less = more = unknown = 0
    for one, other in pairs:
        below = one.reached and (one.amount < other.amount or (not other.reached and one.amount == other.amount))
        above = other.reached and (other.amount < one.amount or (not one.reached and one.amount == other.amount))
        less, more, unknown = less + below, more + above, unknown + (not below and not above)
    return less, more, unknown


# ---------------------------------------------------------------- what a side comes to


def _answer(one: Question, questions: Questions, arms: Sequence[Arm], point: Reference | None) -> Answer:
    sides = [[arm for arm in arms if arm.name in names and arm.complete] for names in (one.arms, one.against)]
    first, second = (_values(one, questions, side, point) for side in sides)
    less = [_lacking(one, questions, side, names) for side, names in zip(sides, (one.arms, one.against), strict=True)]
    if any(less):  # the arms that are left have less of the plane, whatever their rule
        first, second = {}, {}
    return compare(
        Answer(
            name=one.name,
            measure=one.measure,
            arm=_called(sides[0], one.arms, less[0]),
            against=_called(sides[1], one.against, less[1]),
            seeds=0,
            missing=tuple(seed for seed in questions.seeds if seed not in first or seed not in second),
            ended_early=sum(_ended_early(one, questions, side) for side in sides),
            lacking=sum(less),
        ),
        {seed: first[seed] for seed in questions.seeds if seed in first},
        {seed: second[seed] for seed in questions.seeds if seed in second},
    )


def _called(arms: Sequence[Arm], names: Sequence[str], less: int = 0) -> str:
    """What to call a side: an arm, or the rules of several arms, of which `less` are lacking."""
    count = len(arms) + less
    if count < 2 or not arms:
        return arms[0].name if arms else names[0]
    rules = dict.fromkeys(arm.rule for arm in arms)
    return f"{' and '.join(rules)} ({count} arms)"


def _lacking(one: Question, questions: Questions, arms: Sequence[Arm], names: Sequence[str]) -> int:
    return lacking(names, arms, questions.groups) if one.measure == "hypervolume" else 0


def _values(one: Question, questions: Questions, arms: Sequence[Arm], point: Reference | None) -> Values:
    if one.measure == "hypervolume":
        return {seed: Value(share) for seed, share in by_seed(arms, point).items()} if point else {}
    found = {run.seed: _value(one, questions, run) for arm in arms for run in arm.runs}
    return {seed: value for seed, value in found.items() if value is not None}


def _value(one: Question, questions: Questions, run: Run) -> Value | None:
    """What a run comes to; None where that is not known."""
    if one.measure in RATIOS:
        spent = run.energy if one.measure == "energy_to_accuracy" else run.sent
        place = crossing(run.accuracy, questions.target_accuracy or 0.0)
        return Value(spent[-1], reached=False) if place is None else Value(spent[place])
    amount = run.worst_client
    if one.measure == "accuracy":
        amount = run.accuracy[-1]
    elif one.measure == "accuracy_at_energy":
        amount = accuracy_at(run.energy, run.accuracy, questions.energy_budget or 0.0)
    return None if amount is None else Value(amount)


def _ended_early(one: Question, questions: Questions, arms: Sequence[Arm]) -> int:
    if one.measure != "accuracy_at_energy" or questions.energy_budget is None:
        return 0
    return sum(run.energy[-1] < questions.energy_budget for arm in arms for run in arm.runs)
