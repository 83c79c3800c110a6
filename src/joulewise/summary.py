"""From the rows of a study to what it came to."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Sequence
from itertools import accumulate
from statistics import fmean

import msgspec

from joulewise.answers import answers
from joulewise.choosing import choose
from joulewise.devices import Unit
from joulewise.errors import OutputError
from joulewise.fairness import all_clients, fairness
from joulewise.ledger import TERMS, UPLINK_TERMS
from joulewise.measured import measured
from joulewise.naming import Labelled, names
from joulewise.outcomes import Arm, Comparison, Point, Reached, Run, Summary
from joulewise.pareto import crossing, frontier, interval, paired
from joulewise.questions import EVALUATIONS, Questions
from joulewise.results import Row, Setting, downlink_energy, energy_by_term, uplink_energy
from joulewise.volumes import reference, volumes

RULE_ORDER = ("Dense", "TopK", "CWMP", "Projection", "MinVariance", "RandomK", "LayerwiseTopK")
REFERENCE_RULE = "TopK"
COMPARED_RULES = ("CWMP", "Projection")
TARGET_SHARE = 0.95


def summary(rows: Iterable[Row], named: Iterable[Questions] = ()) -> tuple[Summary, ...]:
    """Sum up rows: one record for each study (and unit of energy) in them, in the order of their names.

    Args:
        rows: of one study or several.
        named: what studies named beforehand; the report of a study of which nothing is here describes.

    Raises:
        OutputError: there are no rows, a round is there twice or missing, one name stands for two arms, or a study
            named two things beforehand.
    """
    asked: dict[str, Questions] = {}
    for one in named:
        if asked.setdefault(one.study, one) != one:
            raise OutputError(
                f"two folders of study {one.study!r} name different comparisons beforehand; report them one by one"
            )
    groups: dict[tuple[str, Unit], list[Row]] = {}
    for row in rows:
        groups.setdefault((row.study, row.energy_unit), []).append(row)
    if not groups:
        raise OutputError("there are no rows to report; run a study first: joulewise run STUDY.toml")
    return tuple(_summarise(groups[key], asked.get(key[0])) for key in sorted(groups))


def _summarise(rows: Sequence[Row], asked: Questions | None) -> Summary:
    rows, chosen = (rows, ()) if asked is None else choose(rows, asked)
    by_arm: dict[str, list[Row]] = {}
    for row in rows:
        by_arm.setdefault(row.arm, []).append(row)
    rounds = max(row.round for row in rows)
    runs = {name: _runs(found) for name, found in by_arm.items()}
    target = (asked.target_accuracy if asked else None) or _target(runs.values())
    arms = [_arm(by_arm[name], every, rounds, target) for name, every in runs.items()]
    arms = sorted(_mark_frontier(arms), key=lambda arm: _order(arm.rule, arm.name))
    settings = _shared([found[0].settings for found in by_arm.values()])
    point = reference(arms, settings)
    arms, shared = _named(arms, {name: found[0] for name, found in by_arm.items()})
    return Summary(
        study=rows[0].study,
        unit=rows[0].energy_unit,
        basis=_basis(rows),
        rounds=rounds,
        seeds=tuple(sorted({row.seed for row in rows})),
        clients=len({client.partition for row in rows for client in row.clients}),
        target=target,
        settings=settings,
        arms=tuple(arms),
        comparisons=_comparisons(arms, {name: found[0] for name, found in by_arm.items()}),
        questions=asked,
        chosen=chosen,
        answers=answers(asked, arms, point) if asked else (),
        reference=point,
        volumes=volumes(arms, point, asked.groups if asked else ()),
        shared=shared,
    )


def _target(arms: Iterable[Sequence[Run]]) -> float:
    """An accuracy that an arm reaches: 95 % of the best mean over the last rounds, rounded down to a percent."""
    last = [[fmean(run.accuracy[-EVALUATIONS:]) for run in _finished(every)] for every in arms]
    return math.floor(100 * TARGET_SHARE * max(map(fmean, last))) / 100


def _runs(rows: Sequence[Row]) -> tuple[Run, ...]:
    if any(row.settings != rows[0].settings or row.rule != rows[0].rule for row in rows):
        raise OutputError(
            f"study {rows[0].study!r} has two different arms called {rows[0].arm!r}; "
            "report folders of different studies one by one, or rename one of them"
        )
    by_seed: dict[int, list[Row]] = {}
    for row in rows:
        by_seed.setdefault(row.seed, []).append(row)
    return tuple(_run(sorted(by_seed[seed], key=lambda row: row.round)) for seed in sorted(by_seed))


def _run(rows: Sequence[Row]) -> Run:
    _check_rounds(rows)
    clients = [client for row in rows for client in row.clients]
    everyone = all_clients(rows)
    known = all(client.parameters is not None for client in clients)
    return Run(
        seed=rows[0].seed,
        accuracy=tuple(row.server.accuracy for row in rows),
        energy=tuple(accumulate(uplink_energy(row) for row in rows)),
        downlink=math.fsum(downlink_energy(row) for row in rows),
        by_term=_by_term(rows),
        sent=tuple(accumulate(sum(client.bytes_up for client in row.clients) for row in rows)),
        bytes_down=sum(client.bytes_down for client in clients),
        kept=sum(sum(client.kept_by_tensor) for client in clients),
        parameters=sum(client.parameters or 0 for client in clients) if known else None,
        replies=len(clients),
        worst_client=None if everyone is None else everyone.worst,
    )


def _by_term(rows: Sequence[Row]) -> dict[str, float]:
    """Energy of a run by term: the ledger's terms in its order, then any others."""
    each = [energy_by_term(row) for row in rows]
    order = {term: place for place, term in enumerate(TERMS)}
    found = sorted({term for one in each for term in one}, key=lambda term: (order.get(term, len(order)), term))
    return {term: math.fsum(one.get(term, 0.0) for one in each) for term in found}


def _check_rounds(rows: Sequence[Row]) -> None:
    for expected, row in enumerate(rows, start=1):
        if row.round != expected:
            fault = "is there twice" if row.round < expected else "is missing"
            number = min(row.round, expected)
            raise OutputError(
                f"study {row.study!r}, arm {row.arm!r}, seed {row.seed}: round {number} {fault}; "
                "give each folder once, and run the study again with --resume where rounds are missing"
            )


def _finished(runs: Sequence[Run]) -> tuple[Run, ...]:
    longest = max(len(run.accuracy) for run in runs)
    return tuple(run for run in runs if len(run.accuracy) == longest)


def _arm(rows: Sequence[Row], every: Sequence[Run], rounds: int, target: float) -> Arm:
    runs, row = _finished(every), rows[0]
    seeds = {run.seed for run in runs}
    finished = [one for one in rows if one.seed in seeds]
    parameters = sum(run.parameters or 0 for run in runs)
    return Arm(
        name=row.arm,
        rule=row.rule,
        budget=row.budget,
        runs=runs,
        unfinished=tuple(run.seed for run in every if run not in runs),
        complete=len(runs[0].accuracy) == rounds,
        accuracy=interval([run.accuracy[-1] for run in runs]),
        energy=interval([run.energy[-1] for run in runs]),
        bytes_up=interval([run.bytes_up for run in runs]),
        kept=interval([run.kept for run in runs]),
        kept_share=sum(run.kept for run in runs) / parameters if parameters else None,
        to_target=reached(runs, target),
        on_frontier=False,
        curve=_curve(runs),
        measured=measured(finished),
        fairness=fairness(finished),
    )


def reached(runs: Sequence[Run], accuracy: float) -> Reached:
    """What the runs of an arm spend until they reach an accuracy."""
    found = [crossing(run.accuracy, accuracy) for run in runs]
    places = [-1 if place is None else place for place in found]  # what was spent in all bounds it from below
    energy = interval([run.energy[place] for run, place in zip(runs, places, strict=True)])
    sent = interval([run.sent[place] for run, place in zip(runs, places, strict=True)])
    count = sum(place is not None for place in found)
    if count < len(runs):
        energy, sent = (msgspec.structs.replace(each, low=None, high=None) for each in (energy, sent))
    return Reached(seeds=count, of=len(runs), energy=energy, sent=sent)


def _curve(runs: Sequence[Run]) -> tuple[Point, ...]:
    rounds = len(runs[0].accuracy)
    return tuple(
        Point(
            round=index + 1,
            accuracy=interval([run.accuracy[index] for run in runs]),
            energy=math.fsum(run.energy[index] for run in runs) / len(runs),
        )
        for index in range(rounds)
    )


def _mark_frontier(arms: Sequence[Arm]) -> list[Arm]:
    whole = [arm for arm in arms if arm.complete]
    on = frontier([arm.energy.mean for arm in whole], [arm.accuracy.mean for arm in whole])
    names = {arm.name for arm, mark in zip(whole, on, strict=True) if mark}
    return [msgspec.structs.replace(arm, on_frontier=arm.name in names) for arm in arms]


def _named(arms: Sequence[Arm], rows: dict[str, Row]) -> tuple[list[Arm], tuple[str, ...]]:
    every = [Labelled(name=a.name, rule=a.rule, budget=a.budget, settings=rows[a.name].settings) for a in arms]
    found, shared = names(every)
    return [msgspec.structs.replace(arm, naming=each) for arm, each in zip(arms, found, strict=True)], shared


def _basis(rows: Iterable[Row]) -> str | None:
    found = {
        charge.basis
        for row in rows
        for client in row.clients
        for charge in client.charges
        if charge.term in UPLINK_TERMS
    }
    if len(found) > 1:
        raise OutputError("some of the rows hold modelled energy and some measured; report them one by one")
    return next(iter(found), None)


def _shared(every: Sequence[dict[str, Setting]]) -> dict[str, Setting]:
    first = every[0]
    return {key: value for key, value in first.items() if all(key in one and one[key] == value for one in every)}


def _order(rule: str, name: str) -> tuple[int, str, list[tuple[float, str]]]:
    rank = RULE_ORDER.index(rule) if rule in RULE_ORDER else len(RULE_ORDER)
    parts = re.split(r"(\d+(?:\.\d+)?(?:e[+-]?\d+)?)", name)
    return rank, rule, [(float(part), "") if place % 2 else (-1.0, part) for place, part in enumerate(parts)]


def _comparisons(arms: Sequence[Arm], rows: dict[str, Row]) -> tuple[Comparison, ...]:
    references = {_settings_key(rows[arm.name]): arm for arm in arms if arm.rule == REFERENCE_RULE}
    found = []
    for arm in arms:
        reference = references.get(_settings_key(rows[arm.name]))
        if arm.rule in COMPARED_RULES and reference is not None:
            found.append(_compare(arm, reference))
    return tuple(one for one in found if one is not None)


def _settings_key(row: Row) -> tuple[str, tuple[tuple[str, Setting], ...]]:
    return row.budget, tuple(sorted((key, value) for key, value in row.settings.items() if key != "rule"))


def _compare(arm: Arm, reference: Arm) -> Comparison | None:
    mine, theirs = ({run.seed: run for run in one.runs} for one in (arm, reference))
    accuracy = paired(_final_accuracy(mine), _final_accuracy(theirs))
    if accuracy is None or len(arm.curve) != len(reference.curve):
        return None
    spent = {seed: (mine[seed].energy[-1], theirs[seed].energy[-1]) for seed in mine if seed in theirs}
    comparable = all(theirs > 0 for _, theirs in spent.values())
    return Comparison(
        arm=arm.name,
        reference=reference.name,
        budget=arm.budget,
        accuracy=accuracy,
        energy=interval([own / base - 1 for own, base in spent.values()]) if comparable else None,
    )


def _final_accuracy(runs: dict[int, Run]) -> dict[int, float]:
    return {seed: run.accuracy[-1] for seed, run in runs.items()}
