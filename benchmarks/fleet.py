"""How near each way to divide a fleet's joules comes to an oracle that has all updates in one place.

``python benchmarks/fleet.py RECORDED.npz [--device NAME] [--feedback] [--rule CWMP|Projection] [--step 0.5]``

RECORDED.npz is made by ``benchmarks/recording.py --fleet --rounds 14``: all updates of some rounds. Client k
pays for each coordinate what the device does, times a factor from 1 to the contrast in geometric progression, dealt
out at random. The oracle is one exact greedy over the pooled, weighted updates (`joulewise.pooled`); each cell is kept
value over its bound, in percent, in rounds 2, 4 and 11: after 1, 3 and 10 of them for those that learn. With
``--feedback`` what was not sent is added to the next update, for each way by itself, and each has an oracle of its
own. A round may spend what earlier ones left, so ascent can pass its bound of one round.

Then what was spent, in percent of the budget: least and most in a round from the 5th on, and in all rounds together.
Exit code 1 where one price with curves is below 99 % of the bound, with ascent below 95 % after ten rounds, where
either spends more than the budgets of the rounds so far, or from the 5th round on more than 2 % off the budget.
"""

from __future__ import annotations

import argparse
import math
import sys
from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np

import joulewise as jw
from joulewise.certificate import mass
from joulewise.curves import Curve, curve_of
from joulewise.fleet import Allocation, Books, EqualCount, EqualJoules, Known, OnePrice, Order, book, hand_out
from joulewise.pooled import pooled

CONTRASTS, SHARES, LOOKS = (10.0, 100.0, 1000.0), (0.003, 0.01, 0.1), (1, 3, 10)
SETTLED = 4
WAYS = ("curves, fresh", "curves, last round's", "ascent", "EqualJoules", "EqualCount")


@dataclass(frozen=True)
class Recorded:
    """Updates of a fleet, read from the file when they are asked for."""

    archive: np.lib.npyio.NpzFile
    layout: jw.Layout
    examples: list[int]
    rounds: int

    @classmethod
    def of(cls, path: str) -> Recorded:
        archive = np.load(path)
        names = [name.split("/", 2)[2] for name in archive if name.startswith("0/0/")]
        layout = jw.Layout.of({name: archive[f"0/0/{name}"] for name in names})
        rounds = 1 + max(int(name.split("/")[0]) for name in archive if "/" in name)
        return cls(archive, layout, archive["examples"].tolist(), rounds)

    def updates(self, number: int) -> list[np.ndarray]:
        names = [tensor.name for tensor in self.layout.tensors]
        return [
            self.layout.flatten({name: self.archive[f"{number}/{client}/{name}"] for name in names})
            for client in range(len(self.examples))
        ]


@dataclass(frozen=True)
class Fleet:
    """Prices, weights and rule of a fleet."""

    costs: list[jw.Costs]
    examples: list[int]
    rule: jw.CWMP | jw.Projection

    @property
    def weights(self) -> list[float]:
        return [each / sum(self.examples) for each in self.examples]

    @property
    def dense_j(self) -> list[float]:
        return [float(each.layout.sizes @ each.per_kept) for each in self.costs]

    def curves(self, updates: list[np.ndarray]) -> list[Curve]:
        """Sent and read, as over the network."""
        pairs = zip(updates, self.costs, strict=True)
        return [Curve.from_bytes(curve_of(a, costs, self.rule).to_bytes()) for a, costs in pairs]


@dataclass
class Way:
    """One allocation in a run: what it knows, its books, what its clients still hold, and what came of it."""

    name: str
    allocation: Allocation
    known: dict[int, Known | None]
    books: Books
    residuals: list[np.ndarray] | None
    spent: list[float]
    ratios: dict[int, float]


def ways(fleet: Fleet, share: float, step: float, feedback: bool) -> list[Way]:
    clients = range(len(fleet.costs))
    norm = fleet.rule.norm
    allocations = (
        OnePrice(share=share),
        OnePrice(share=share),
        OnePrice(share=share, control="ascent", step=step),
        EqualJoules(share=share),
        EqualCount(share=share),
    )
    known = {k: Known(fleet.examples[k], fleet.dense_j[k], exponent=norm) for k in clients}
    zeros = [np.zeros(fleet.costs[0].layout.n, np.float32) for _ in clients]
    return [
        Way(name, each, dict(known), Books(), [z.copy() for z in zeros] if feedback else None, [], {})
        for name, each in zip(WAYS, allocations, strict=True)
    ]


def obeyed(order: Order, a: np.ndarray, costs: jw.Costs, rule: jw.CWMP | jw.Projection) -> tuple[jw.Selection, dict]:
    """What a client sends, and what it says beside it."""
    kept = jw.select(a, costs, rule, order.budget)
    if order.price is None:
        return kept, {"margin": curve_of(a, costs, rule).price_at(kept.spent) if kept.spent else 0.0}
    return kept, {"wanted_j": jw.select(a, costs, rule, jw.Price(order.price)).spent}


def play(way: Way, fleet: Fleet, number: int, updates: list[np.ndarray], curves: list[Curve] | None, bound) -> None:
    """One round of one way."""
    if way.residuals is not None:
        updates = [update + residual for update, residual in zip(updates, way.residuals, strict=True)]
    if way.name.startswith("curves"):
        curves = curves or fleet.curves(updates)
    if way.name == "curves, fresh":
        way.known = {k: replace(each, curve=curves[k]) for k, each in way.known.items()}
    orders, books = hand_out(way.allocation, way.books, way.known)
    spent, value = {}, 0.0
    for k, order in orders.items():
        kept, said = obeyed(order, updates[k], fleet.costs[k], fleet.rule)
        spent[k] = kept.spent
        value += fleet.weights[k] ** fleet.rule.norm * mass(kept.values, fleet.rule.norm)
        way.known[k] = replace(way.known[k], **(said if way.name == "ascent" else {}))
        if way.residuals is not None:
            way.residuals[k] = updates[k].copy()
            way.residuals[k][kept.indices] = 0.0
    if way.name == "curves, last round's":
        way.known = {k: replace(each, curve=curves[k]) for k, each in way.known.items()}
    way.books = book(way.allocation, books, orders, spent, way.known)
    way.spent.append(math.fsum(spent.values()))
    if number in LOOKS:
        way.ratios[number] = value / bound(updates)


def run(recorded: Recorded, base: jw.Costs, rule, contrast: float, share: float, given) -> list[Way]:
    clients = len(recorded.examples)
    factors = np.random.default_rng(0).permutation(np.geomspace(1.0, contrast, clients))
    costs = [jw.Costs.of(base.per_kept * factor, base.layout, base.unit) for factor in factors]
    fleet = Fleet(costs, recorded.examples, rule)
    budget_j = share * math.fsum(fleet.dense_j)
    found = ways(fleet, share, given.step, given.feedback)
    for number in range(min(recorded.rounds, max(LOOKS) + 1)):
        updates = recorded.updates(number)
        curves = None if given.feedback else fleet.curves(updates)
        bounds: dict[str, float] = {}

        def bound(vectors: list[np.ndarray], bounds=bounds) -> float:
            if given.feedback or not bounds:
                bounds["all"] = pooled(vectors, costs, fleet.weights, rule, budget_j).certificate.bound
            return bounds["all"]

        for way in found:
            play(way, fleet, number, updates, curves, bound)
    for way in found:
        way.spent = [each / budget_j for each in way.spent]
    return found


def faults(way: Way) -> Iterator[str]:
    least = {"curves, fresh": 0.99, "ascent": 0.95}.get(way.name)
    if least and way.ratios[max(LOOKS)] < least:
        yield f"below {100 * least:g} % of the bound"
    if least:
        if any(total > number + 1 + 1e-9 for number, total in enumerate(np.cumsum(way.spent))):
            yield "more than the budgets so far"
        if max(abs(each - 1) for each in way.spent[SETTLED:]) > 0.02:
            yield "a round more than 2 % off"


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("recorded")
    parser.add_argument("--device", default="phone-lte-2021")
    parser.add_argument("--rule", choices=("CWMP", "Projection"))
    parser.add_argument("--feedback", action="store_true")
    parser.add_argument("--step", type=float, default=OnePrice(share=1.0).step)
    given = parser.parse_args()
    recorded = Recorded.of(given.recorded)
    base = jw.price(recorded.layout, jw.load_device(given.device))
    missed = 0
    print("| rule | contrast | budget | way | after 1 | after 3 | after 10 | least | most | in all | misses |")
    print("|---" * 11 + "|")
    for rule in (jw.CWMP(), jw.Projection()):
        if given.rule in {None, type(rule).__name__}:
            for contrast in CONTRASTS:
                for share in SHARES:
                    for way in run(recorded, base, rule, contrast, share, given):
                        wrong = list(faults(way))
                        missed += len(wrong)
                        spent = (min(way.spent[SETTLED:]), max(way.spent[SETTLED:]), np.mean(way.spent))
                        cells = [f"{100 * each:.2f}" for each in (*way.ratios.values(), *spent)]
                        name = f"{type(rule).__name__} | {contrast:g} | {100 * share:g} % | {way.name}"
                        print(f"| {name} | {' | '.join(cells)} | {'; '.join(wrong)} |", flush=True)
    print(f"\n{missed} misses")
    return 1 if missed else 0


if __name__ == "__main__":
    sys.exit(main())
