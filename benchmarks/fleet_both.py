"""What a fleet's joules keep where receivers pay for the union of the masks: at equal energy of both directions.

``python benchmarks/fleet_both.py RECORDED.npz [--device NAME] [--rule CWMP|Projection] [--density 0.01]``

RECORDED.npz is made by ``benchmarks/recording.py --fleet --rounds 2``; links are those of ``fleet.py`` beside this. A
coordinate that a client receives costs it so many times what it pays to send one (`receiving`). Each line is one energy
of a round, uplinks and what all receivers pay for the coordinates that any client really sends: that of masks which
all keep `--density`. Each way may spend just that: its budget is moved until its masks of the second update cost as
much, divided by curves of the first and as alike as masks of the first were. Cells are kept value in percent of the
bound, with the share of coordinates in the union. The bound is the dual one,
``v B + sum_i max(0, sum_k max(0, p_k^p |a_ki|^p - v c_ki) - v d)``, at the best v: no masks do better, whoever sees all
updates.

The last column: what the budget that counts both directions really came to where it is not moved, in percent of it.
Exit code 1 where one price of both directions keeps less than 98 % of any other way, or really costs more than 103 % of
its budget.
"""

from __future__ import annotations

import argparse
import math
import sys
from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np
from fleet import Fleet, Recorded

import joulewise as jw
from joulewise.certificate import mass
from joulewise.fleet import Allocation, Books, EqualCount, EqualJoules, Known, OnePrice, book, hand_out

CONTRASTS, RECEIVING = (10.0, 100.0), (0.0, 0.1, 1.0, 10.0)
CLOSE, TRIES = 1e-3, 40


@dataclass(frozen=True)
class Round:
    """One round of a fleet: its updates, what is known of its clients, and what receiving everything costs."""

    fleet: Fleet
    updates: list[np.ndarray]
    known: dict[int, Known | None]
    receiving_j: float

    def kept(self, allocation: Allocation, books: Books) -> tuple[float, float, float, Books]:
        """Energy of both directions, weighted value, the share of coordinates in the union, and the books after it."""
        orders, books = hand_out(allocation, books, self.known)
        norm, sent = self.fleet.rule.norm, np.zeros(self.updates[0].size, np.bool_)
        energy, value = {}, []
        for k, order in orders.items():
            mask = jw.select(self.updates[k], self.fleet.costs[k], self.fleet.rule, order.budget)
            sent[mask.indices] = True
            energy[k] = float(len(mask.indices) * self.fleet.costs[k].per_kept[0])
            value.append(self.fleet.weights[k] ** norm * mass(mask.values, norm))
        union = float(sent.mean())
        spent_j = math.fsum(energy.values()) + self.receiving_j * union
        return spent_j, math.fsum(value), union, book(allocation, books, orders, energy, self.known, union)

    def bound(self, budget_j: float) -> float:
        """What no masks of this energy keep more than."""
        norm, prices = self.fleet.rule.norm, [costs.per_kept[0] for costs in self.fleet.costs]
        worth = [
            (np.abs(a, dtype=np.float64) * w) ** norm for a, w in zip(self.updates, self.fleet.weights, strict=True)
        ]
        down = self.receiving_j / self.updates[0].size

        def dual(log_price: float) -> float:
            price = math.exp(log_price)
            gains = sum(np.maximum(0.0, each - price * c) for each, c in zip(worth, prices, strict=True))
            return price * budget_j + float(np.maximum(0.0, gains - price * down).sum())

        tops = [math.log(each.max() / c) for each, c in zip(worth, prices, strict=True)]
        low, high = min(tops) - 25.0, max(tops)
        for _ in range(25):  # The dual is convex: golden sections.
            left, right = high - 0.618034 * (high - low), low + 0.618034 * (high - low)
            low, high = (low, right) if dual(left) <= dual(right) else (left, high)
        return dual(0.5 * (low + high))


def moved(own: Round, allocation: Allocation, energy_j: float, books: Books) -> tuple[float, float]:
    """Value and union of the allocation with the budget at which its masks cost this much."""
    field = "share" if getattr(allocation, "budget_j", None) is None else "budget_j"
    low, high, amount = 1e-9, 1.0 if field == "share" else 2 * energy_j, getattr(allocation, field)
    for _ in range(TRIES):
        allocation = type(allocation)(
            **{**{f: getattr(allocation, f) for f in allocation.__struct_fields__}, field: amount}
        )
        energy, value, union, _ = own.kept(allocation, books)
        if abs(energy / energy_j - 1) < CLOSE:
            break
        low, high = (amount, high) if energy < energy_j else (low, amount)
        guess = amount * energy_j / energy if energy else high
        amount = guess if low < guess < high else math.sqrt(low * high)
    return value, union


def lines(recorded: Recorded, base: jw.Costs, rule, density: float) -> Iterator[tuple[str, list[str]]]:
    clients = len(recorded.examples)
    first, second = recorded.updates(0), recorded.updates(1)
    for contrast in CONTRASTS:
        factors = np.random.default_rng(0).permutation(np.geomspace(1.0, contrast, clients))
        price = float(base.per_kept @ recorded.layout.sizes) / recorded.layout.n  # One price for each link.
        costs = [jw.Costs.of(price * factor, recorded.layout, base.unit) for factor in factors]
        fleet = Fleet(costs, recorded.examples, rule)
        curves = fleet.curves(first)
        plain = {
            k: Known(recorded.examples[k], fleet.dense_j[k], curves[k], exponent=rule.norm) for k in range(clients)
        }
        for times in RECEIVING:
            known = {k: replace(each, receive_j=times * each.dense_j) for k, each in plain.items()}
            own = Round(fleet, second, known, times * math.fsum(fleet.dense_j))
            energy_j, value, union, _ = own.kept(EqualCount(density), Books())
            both = OnePrice(share=energy_j / math.fsum(k.dense_j + k.receive_j for k in known.values()), counts="both")
            *_, books = replace(own, updates=first).kept(both, Books())
            ways = (EqualJoules(energy_j), Books()), (OnePrice(energy_j), Books()), (both, books)
            found = [(value, union), *(moved(own, each, energy_j, those) for each, those in ways)]
            bound, real = own.bound(energy_j), own.kept(both, books)[0] / energy_j
            cells = [f"{100 * each / bound:.1f} ({100 * part:.1f} %)" for each, part in found]
            least = max(each for each, _ in found[:3])
            wrong = [] if found[3][0] >= 0.98 * least else ["keeps less"]
            wrong += ["costs more"] if real > 1.03 else []
            yield f"{contrast:g} | {times:g}", [*cells, f"{books.overlap:.2f}", f"{100 * real:.1f}", "; ".join(wrong)]


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("recorded")
    parser.add_argument("--device", default="phone-lte-2021")
    parser.add_argument("--rule", choices=("CWMP", "Projection"))
    parser.add_argument("--density", type=float, default=0.01)
    given = parser.parse_args()
    recorded = Recorded.of(given.recorded)
    base = jw.price(recorded.layout, jw.load_device(given.device))
    missed = 0
    print(
        "| rule | contrast | receiving | equal count | equal joules | uplink price | both | overlap | real | misses |"
    )
    print("|---" * 10 + "|")
    for rule in (jw.CWMP(), jw.Projection()):
        if given.rule in {None, type(rule).__name__}:
            for name, cells in lines(recorded, base, rule, given.density):
                missed += bool(cells[-1])
                print(f"| {type(rule).__name__} | {name} | {' | '.join(cells)} |", flush=True)
    print(f"\n{missed} misses")
    return 1 if missed else 0


if __name__ == "__main__":
    sys.exit(main())
