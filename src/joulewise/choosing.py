"""Choosing arms on selection seeds, so that what is reported comes from seeds on which nothing was chosen."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from joulewise.errors import OutputError
from joulewise.findings import Candidate, Chosen
from joulewise.pareto import interval
from joulewise.questions import Questions
from joulewise.results import Row


def choose(rows: Sequence[Row], questions: Questions) -> tuple[tuple[Row, ...], tuple[Chosen, ...]]:
    """The rows to report on, and which arms were chosen for that.

    Of the arms that differ only in what is chosen, the one with the best mean final accuracy on the selection seeds
    stays; the first of them where several have it. One that has not finished every selection seed cannot be chosen.

    Raises:
        OutputError: no row is left to report on.
    """
    selection = set(questions.selection_seeds)
    if not selection:
        return tuple(rows), ()
    chosen = _chosen(rows, questions)
    losers = _losers(chosen)
    left = tuple(row for row in rows if row.seed not in selection and row.arm not in losers)
    if not left:
        raise OutputError(
            f"study {questions.study!r} has no rows to report on yet, only some to choose arms on; go on with "
            "joulewise run --resume"
        )
    return left, chosen


def dropped(rows: Sequence[Row], questions: Questions) -> frozenset[str]:
    """Names of the arms that were not chosen, which no other seed has to run with.

    Args:
        rows: those of the selection seeds are looked at, which must be finished as far as they will be.
        questions: what the study named beforehand.
    """
    return _losers(_chosen(rows, questions))


def _losers(chosen: Sequence[Chosen]) -> frozenset[str]:
    return frozenset({one.arm for each in chosen for one in each.candidates} - {each.arm for each in chosen})


def _chosen(rows: Sequence[Row], questions: Questions) -> tuple[Chosen, ...]:
    rounds = max((row.round for row in rows), default=0)
    finals = {(row.arm, row.seed): row.server.accuracy for row in rows if row.round == rounds}
    return tuple(_choose(group, questions, finals) for group in questions.groups if len(group) > 1)


def _choose(group: Sequence[str], questions: Questions, finals: Mapping[tuple[str, int], float]) -> Chosen:
    seeds = questions.selection_seeds
    values = {arm: [finals[arm, seed] for seed in seeds if (arm, seed) in finals] for arm in group}
    candidates = tuple(
        Candidate(arm=arm, accuracy=interval(found) if len(found) == len(seeds) else None)
        for arm, found in values.items()
    )
    whole = [(one.accuracy.mean, one.arm) for one in candidates if one.accuracy is not None]
    best = max(whole, key=lambda one: one[0], default=None)
    return Chosen(arm=None if best is None else best[1], candidates=candidates, seeds=seeds)
