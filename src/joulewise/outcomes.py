"""What a study came to, as records: each run, each arm over its seeds, and paired comparisons."""

from __future__ import annotations

import math

import msgspec

from joulewise.devices import Unit
from joulewise.fairness import Fairness
from joulewise.findings import Answer, Chosen, Reference, Volume
from joulewise.ledger import MASK_TERMS
from joulewise.measured import Measured
from joulewise.naming import Naming
from joulewise.pareto import Difference, Interval
from joulewise.questions import Questions
from joulewise.results import Setting


class Run(msgspec.Struct, frozen=True, kw_only=True):
    """One arm with one seed, over its rounds.

    Args:
        seed: the seed.
        accuracy: test accuracy after each round.
        energy: cumulative uplink energy of all clients after each round.
        downlink: energy of receiving, all rounds and clients.
        by_term: modelled energy of all rounds and clients, by term of the ledger.
        sent: cumulative bytes of all replies after each round.
        bytes_down: bytes of all requests.
        kept: coordinates in all replies.
        parameters: coordinates that all replies could have held; None where that is unknown.
        replies: number of replies.
        worst_client: least accuracy of a client after the last round, of all clients, those that took no part in it
            included; None where rows do not know it.
    """

    seed: int
    accuracy: tuple[float, ...]
    energy: tuple[float, ...]
    downlink: float
    by_term: dict[str, float] = {}
    sent: tuple[int, ...]
    bytes_down: int
    kept: int
    parameters: int | None
    replies: int
    worst_client: float | None = None

    @property
    def bytes_up(self) -> int:
        """Bytes of all replies."""
        return self.sent[-1]


class Reached(msgspec.Struct, frozen=True, kw_only=True):
    """What an arm spends until it reaches an accuracy (`pareto.crossing`), over its seeds.

    A run that does not reach it would have to spend more than it did, so that what it spent bounds the mean from below.

    Args:
        seeds: in how many seeds the accuracy is reached.
        of: out of how many.
        energy: uplink energy until then, where every seed reaches it; else a mean of the seeds' lower bounds, without
            an interval.
        sent: bytes of the replies, likewise.
    """

    seeds: int
    of: int
    energy: Interval
    sent: Interval

    @property
    def everywhere(self) -> bool:
        """Whether every seed reaches it."""
        return self.seeds == self.of


class Point(msgspec.Struct, frozen=True, kw_only=True):
    """An arm after a round: its accuracy over seeds, and its mean cumulative uplink energy."""

    round: int
    accuracy: Interval
    energy: float


class Arm(msgspec.Struct, frozen=True, kw_only=True):
    """One arm over its seeds. Totals are over rounds and clients; a reply is one client's in one round.

    Args:
        name: its label.
        rule: its rule.
        budget: its budget as text.
        runs: one for each seed that finished; a seed with fewer rounds than another is left out.
        unfinished: seeds that are left out.
        complete: whether it has as many rounds as the longest arm of the study.
        accuracy: final accuracy.
        energy: total uplink energy.
        bytes_up: total bytes of the replies.
        kept: total coordinates in the replies.
        kept_share: share of the coordinates that a mean reply holds; None where that is unknown.
        to_target: what it spends until it reaches the study's target accuracy.
        on_frontier: whether no other complete arm has more accuracy for less energy.
        curve: the arm after each round.
        measured: what meters measured in its rounds, apart from the modelled energy.
        fairness: how it does for its clients; None where rows know no client's accuracy.
        naming: what it is called for a reader; None for its name.
    """

    name: str
    rule: str
    budget: str
    runs: tuple[Run, ...]
    unfinished: tuple[int, ...]
    complete: bool
    accuracy: Interval
    energy: Interval
    bytes_up: Interval
    kept: Interval
    kept_share: float | None
    to_target: Reached
    on_frontier: bool
    curve: tuple[Point, ...]
    measured: tuple[Measured, ...] = ()
    fairness: Fairness | None = None
    naming: Naming | None = None

    @property
    def label(self) -> str:
        """Its short name: without what all arms of its study share."""
        return self.name if self.naming is None else self.naming.label

    @property
    def series(self) -> str:
        """What tells it from the other lines of a chart."""
        return self.rule if self.naming is None else self.naming.series

    @property
    def group(self) -> tuple[str, ...]:
        """What it has in common with the other lines of a chart, part by part."""
        return () if self.naming is None else self.naming.group

    @property
    def by_term(self) -> dict[str, float]:
        """Modelled energy by term of the ledger: the mean over seeds of the total over rounds and clients."""
        terms = dict.fromkeys(term for run in self.runs for term in run.by_term)
        return {term: math.fsum(run.by_term.get(term, 0.0) for run in self.runs) / len(self.runs) for term in terms}

    @property
    def addressable(self) -> float | None:
        """Share of the modelled energy that the choice of coordinates made; None where there is no energy."""
        by_term = self.by_term
        spent = math.fsum(by_term.values())
        return math.fsum(by_term.get(term, 0.0) for term in MASK_TERMS) / spent if spent else None

    @property
    def energy_per_round(self) -> float:
        """Mean uplink energy of a round, all clients together."""
        return self.energy.mean / len(self.curve)

    @property
    def bytes_up_per_reply(self) -> float:
        """Mean bytes of a reply."""
        return sum(run.bytes_up for run in self.runs) / max(1, sum(run.replies for run in self.runs))

    @property
    def bytes_down_per_request(self) -> float:
        """Mean bytes of a request."""
        return sum(run.bytes_down for run in self.runs) / max(1, sum(run.replies for run in self.runs))


class Comparison(msgspec.Struct, frozen=True, kw_only=True):
    """A cost-weighted arm against TopK with the same settings, seed by seed.

    Args:
        arm: name of the arm.
        reference: name of the TopK arm.
        budget: the budget that both have.
        accuracy: difference in final accuracy.
        energy: relative difference in total uplink energy (-0.2: a fifth less); None where TopK spent none.
    """

    arm: str
    reference: str
    budget: str
    accuracy: Difference
    energy: Interval | None


class Summary(msgspec.Struct, frozen=True, kw_only=True):
    """What the rows of one study come to.

    Args:
        study: its name.
        unit: of every energy.
        basis: ``modelled`` or ``measured``; None where no energy was recorded.
        rounds: rounds of the longest arm.
        seeds: all seeds that are reported on.
        clients: number of partitions that took part.
        target: accuracy for `Arm.to_target`: the one that the study named beforehand, or else 95 % of the best mean
            over the last three rounds, rounded down to a percent.
        settings: the settings that all arms share.
        arms: in the order of rules, then of budgets.
        comparisons: cost-weighted rules against TopK.
        questions: what the study named beforehand; None where it named nothing.
        chosen: which arms were chosen on selection seeds.
        answers: the primary comparisons.
        reference: of the hypervolumes; None where none can be had.
        volumes: hypervolume of each rule.
        shared: what all arms have in common beside their rule, as their names say it; labels leave it out.
    """

    study: str
    unit: Unit
    basis: str | None
    rounds: int
    seeds: tuple[int, ...]
    clients: int
    target: float
    settings: dict[str, Setting]
    arms: tuple[Arm, ...]
    comparisons: tuple[Comparison, ...]
    questions: Questions | None = None
    chosen: tuple[Chosen, ...] = ()
    answers: tuple[Answer, ...] = ()
    reference: Reference | None = None
    volumes: tuple[Volume, ...] = ()
    shared: tuple[str, ...] = ()

    def label_of(self, name: str) -> str:
        """The short name of the arm with this name."""
        return next((arm.label for arm in self.arms if arm.name == name), name)
