"""A study: one frozen, checked record of everything that a series of federations depends on, and its arms."""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Annotated

import msgspec
from msgspec import Meta

from joulewise import analysis, fleetfile, labels, studyfile
from joulewise.analysis import Analysis
from joulewise.choices import Choice, Defaults, Grid, Part, Positive, Seed, feedback_of
from joulewise.compress import Compressor
from joulewise.curves import exponent_of
from joulewise.devices import load_device
from joulewise.errors import ProfileError, RuleError, StudyError
from joulewise.fleet import OnePrice, counts_both
from joulewise.fleetfile import Fleet
from joulewise.flower import estimate
from joulewise.flower.app import Arm
from joulewise.flower.choice import StrategyChoice
from joulewise.learning import Data, Model, Training
from joulewise.questions import Questions
from joulewise.residency import rewrites_pages
from joulewise.rules import LEGAL, Dense, MinVariance, budget_text

Name = Annotated[str, Meta(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$")]


class Study(Part, frozen=True, kw_only=True):
    """Everything that a series of federations depends on.

    Args:
        name: letters, digits, dots, dashes and underscores; the default output folder is called like it.
        rounds: rounds of each federation.
        seeds: each arm runs once with each.
        data: examples, clients and how they are dealt out.
        model: what is trained.
        training: how a client trains.
        strategy: how the server averages.
        fleet: the devices of the clients, and what these live on.
        compressor: how every arm compresses, where it does not say otherwise.
        grid: arms that are a product of lists.
        arms: single arms.
        analysis: what the study is to find out, named beforehand; None for a study that describes.
    """

    name: Name
    rounds: Positive
    seeds: Annotated[tuple[Seed, ...], Meta(min_length=1)]
    data: Data
    model: Model
    training: Training = Training()
    strategy: StrategyChoice = StrategyChoice()
    fleet: Fleet
    compressor: Defaults = Defaults()
    grid: Grid = Grid()
    arms: tuple[Choice, ...] = ()
    analysis: Analysis | None = None

    def __post_init__(self) -> None:
        chosen_on = self.analysis.selection_seeds if self.analysis else ()
        for name, seeds in (("seeds", self.seeds), ("analysis.selection_seeds", chosen_on)):
            twice = sorted({seed for seed in seeds if seeds.count(seed) > 1})
            if twice:
                raise ValueError(f"`{name}` lists {twice[0]} twice, expected each seed once")
        both = sorted(set(self.seeds) & set(chosen_on))
        if both:
            raise ValueError(
                f"seed {both[0]} is in `seeds` and in `analysis.selection_seeds`, expected others: what was chosen on "
                "a seed looks better on it than it is"
            )

    @property
    def every_seed(self) -> tuple[int, ...]:
        """Seeds that each arm runs with: first those to choose on, then those to report on."""
        return (*(self.analysis.selection_seeds if self.analysis else ()), *self.seeds)


def load(path: str | Path, overrides: Sequence[str] = ()) -> Study:
    """Load and check a study file.

    Args:
        path: a TOML file.
        overrides: settings that go before the file's, such as ``training.batch_size=64``.

    Raises:
        StudyError: something in the file or in an override is wrong; the message says where and what to do.
        ProfileError: a device is unknown.
    """
    source = studyfile.read(path, overrides)
    study = studyfile.decode(source, Study)
    try:
        fleet = fleetfile.with_traces(study.fleet, Path(path).parent)
        study = msgspec.structs.replace(study, fleet=fleet)
        questions_of(study)
    except (StudyError, ProfileError) as error:
        raise type(error)(f"{source.file}: {error}") from None
    return study


def expand(study: Study) -> tuple[Arm, ...]:
    """The arms of a study: the product of the lists of its grid, then its single arms.

    What a rule does not use is dropped (Dense has no budget), and equal arms are one arm.

    Raises:
        StudyError: a rule and a budget do not go together, or devices, batteries or traces do not fit the clients.
        ProfileError: a device is unknown.
    """
    choices = [*_product(study.grid), *study.arms]
    arms: dict[bytes, Arm] = {}
    for choice in choices or [Choice()]:
        arm = _arm(study, choice)
        arms.setdefault(msgspec.json.encode(arm, order="deterministic"), arm)
    fleetfile.check_names(study.fleet, {device for arm in arms.values() for device in arm.devices})
    names = labels.of(tuple(arms.values()))
    return tuple(dataclasses.replace(arm, name=name) for arm, name in zip(arms.values(), names, strict=True))


def questions_of(study: Study) -> Questions | None:
    """What a study names beforehand, in the names of its arms; None where it names nothing.

    Raises:
        StudyError: as `expand`; or a comparison does not pick out arms, or rules have unequally many to choose among.
        ProfileError: a device is unknown.
    """
    arms = expand(study)
    if study.analysis is None:
        return None
    return analysis.resolve(study.name, study.seeds, study.analysis, arms)


# ---------------------------------------------------------------- arms


def _product(grid: Grid) -> Iterable[Choice]:
    lists = {name: values for name in grid.__struct_fields__ if (values := getattr(grid, name))}
    if not lists:
        return []
    return [Choice(**dict(zip(lists, values, strict=True))) for values in itertools.product(*lists.values())]


def _arm(study: Study, choice: Choice) -> Arm:
    compressor, strategy = _compressor(study.compressor, choice), choice.strategy or study.strategy
    _check_allocation(strategy, compressor, study.rounds)
    _check_estimates(strategy, compressor)
    changes = {
        name: value for name in ("learning_rate", "local_epochs") if (value := getattr(choice, name)) is not None
    }
    partition = choice.partition or study.data.partition
    devices = fleetfile.assign(study.fleet.devices if choice.devices is None else choice.devices, study.data.clients)
    _check_pages(strategy, devices)
    return Arm(
        name="",
        data=msgspec.structs.replace(study.data, partition=partition),
        model=study.model,
        training=msgspec.structs.replace(study.training, **changes),
        strategy=strategy,
        devices=devices,
        compressor=compressor,
        rounds=study.rounds,
        supply=fleetfile.supply_of(study.fleet, choice.schedule, devices, study.rounds, compressor),
    )


def _check_pages(strategy: StrategyChoice, devices: tuple[str, ...]) -> None:
    """What receiving costs a device is counted without pages that it erases."""
    if strategy.allocation is None or not counts_both(strategy.allocation):
        return
    paged = next((name for name in devices if rewrites_pages(load_device(name))), None)
    if paged is not None:
        raise StudyError(
            f"strategy.allocation has counts = 'both', but {paged!r} in fleet.devices erases pages of flash for what "
            "it receives, which the budget leaves out; use counts = 'uplink', or devices without pages"
        )


def _check_estimates(strategy: StrategyChoice, compressor: Compressor) -> None:
    """EF21 does not go with every downlink and allocation."""
    if not compressor.estimates:
        return
    try:
        estimate.refuse(strategy.downlink, strategy.allocation)
    except RuleError as error:
        raise StudyError(f"strategy and feedback = 'EF21': {error}") from None


def _check_allocation(strategy: StrategyChoice, compressor: Compressor, rounds: int) -> None:
    """An allocation hands out joules or densities in the place of an arm's budget, and a price needs a value."""
    if strategy.allocation is None:
        return
    try:
        strategy.allocation_over(rounds)
    except RuleError as error:
        raise StudyError(f"strategy.allocation: {error}") from None
    kind, rule = type(strategy.allocation).__name__, compressor.rule
    if compressor.budget is None:
        raise StudyError(
            f"strategy.allocation = {kind} hands out energy, of which {type(rule).__name__} takes no budget; leave one "
            "of them out"
        )
    if not isinstance(strategy.allocation, OnePrice):
        return
    if exponent_of(rule) is None:
        raise StudyError(
            f"strategy.allocation = {kind} needs a value per joule, which {type(rule).__name__} has not; use CWMP, "
            "Projection or MinVariance, or another allocation"
        )
    if strategy.allocation.control == "ascent" and isinstance(rule, MinVariance):
        raise StudyError(
            f"strategy.allocation = {kind} by ascent hands on what a round leaves, but MinVariance meets its budget "
            'only on average; use control = "curves", or CWMP or Projection'
        )


def _compressor(defaults: Defaults, choice: Choice) -> Compressor:
    rule = choice.rule or defaults.rule
    if rule is None:
        raise StudyError('no rule is given; add one, for example [grid] rule = ["TopK", "CWMP"]')
    budget = (choice.budget or defaults.budget) if LEGAL[type(rule)] else None
    values = choice.values or defaults.values
    wanted = defaults.feedback if choice.feedback is None else choice.feedback
    if isinstance(rule, Dense) and values == "float32":
        wanted = False  # everything arrives as it is, so nothing is ever left to feed back
    try:
        return Compressor(rule=rule, budget=budget, values=values, feedback=feedback_of(wanted))
    except RuleError as error:
        advice = "take one of them out, and list the arms that you mean one by one as [[arms]]"
        if budget is None:
            advice = "add one, for example density = [0.01, 0.10] under [grid]"
        with_budget = f" with {budget_text(budget)}" if budget else ""
        raise StudyError(f"arm {labels.text(rule)}{with_budget}: {studyfile.in_keys(str(error))}; {advice}") from None
