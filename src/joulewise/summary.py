"""From the rows of a study to what it came to."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Sequence
from itertools import accumulate

import msgspec

from joulewise.devices import Unit
from joulewise.errors import OutputError
from joulewise.fairness import fairness
from joulewise.ledger import TERMS, UPLINK_TERMS
from joulewise.measured import measured
from joulewise.naming import Labelled, names
from joulewise.outcomes import Arm, Comparison, Point, Run, Summary
from joulewise.pareto import energy_to, frontier, interval, paired
from joulewise.results import Row, Setting, downlink_energy, energy_by_term, uplink_energy

RULE_ORDER = ("Dense", "TopK", "CWMP", "Projection", "MinVariance", "RandomK")
REFERENCE_RULE = "TopK"
COMPARED_RULES = ("CWMP", "Projection")
TARGET_SHARE = 0.95


def summary(rows: Iterable[Row]) -> tuple[Summary, ...]:
    """Sum up rows: one record for each study (and unit of energy) in them, in the order of their names.

    Raises:
        OutputError: there are no rows, a round is there twice or missing, or one name stands for two arms.
    """
    groups: dict[tuple[str, Unit], list[Row]] = {}
    for row in rows:
        groups.setdefault((row.study, row.energy_unit), []).append(row)
    if not groups:
        raise OutputError("there are no rows to report; run a study first: joulewise run STUDY.toml")
    return tuple(_summarise(groups[key]) for key in sorted(groups))


def _summarise(rows: Sequence[Row]) -> Summary:
    by_arm: dict[str, list[Row]] = {}
    for row in rows:
        by_arm.setdefault(row.arm, []).append(row)
    rounds = max(row.round for row in rows)
    runs = {name: _runs(found) for name, found in by_arm.items()}
    finals = [interval([run.accuracy[-1] for run in _finished(every)]).mean for every in runs.values()]
    target = math.floor(100 * TARGET_SHARE * max(finals)) / 100
    arms = [_arm(by_arm[name], every, rounds, target) for name, every in runs.items()]
    arms = sorted(_mark_frontier(arms), key=lambda arm: _order(arm.rule, arm.name))
    arms, shared = _named(arms, {name: found[0] for name, found in by_arm.items()})
    return Summary(
        study=rows[0].study,
        unit=rows[0].energy_unit,
        basis=_basis(rows),
        rounds=rounds,
        seeds=tuple(sorted({row.seed for row in rows})),
        clients=len({client.partition for row in rows for client in row.clients}),
        target=target,
        settings=_shared([found[0].settings for found in by_arm.values()]),
        arms=tuple(arms),
        comparisons=_comparisons(arms, {name: found[0] for name, found in by_arm.items()}),
        shared=shared,
    )


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
    known = all(client.parameters is not None for client in clients)
    return Run(
        seed=rows[0].seed,
        accuracy=tuple(row.server.accuracy for row in rows),
        energy=tuple(accumulate(uplink_energy(row) for row in rows)),
        downlink=math.fsum(downlink_energy(row) for row in rows),
        by_term=_by_term(rows),
        bytes_up=sum(client.bytes_up for client in clients),
        bytes_down=sum(client.bytes_down for client in clients),
        kept=sum(sum(client.kept_by_tensor) for client in clients),
        parameters=sum(client.parameters or 0 for client in clients) if known else None,
        replies=len(clients),
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
    reached = [energy_to(run.energy, run.accuracy, target) for run in runs]
    spent = [energy for energy in reached if energy is not None]
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
        to_target=interval(spent) if spent else None,
        on_frontier=False,
        curve=_curve(runs),
        measured=measured(finished),
        fairness=fairness(finished),
    )


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
