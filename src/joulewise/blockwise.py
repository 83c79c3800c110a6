"""The longest message that fits where memory moves in blocks, whose energy is no sum over coordinates.

Energy jumps wherever a page is touched for the first time, so a straight line between two messages says little. But the
order of the coordinates is known, and so is where each block begins to count: what is not known is only by how much the
encoded message differs from its estimate, and that changes slowly along the order. So the search goes through the
number of coordinates kept, and interpolates that difference alone.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from joulewise.costs import Costs
from joulewise.marginal import room_of
from joulewise.message import Brief, Draft, spending
from joulewise.order import Order, Ordered
from joulewise.rules import Joules
from joulewise.tensorwise import Floats
from joulewise.trial import AIM, ENCODINGS, Trial, is_close

PASSES = 7
"""Selections for candidates and messages together; with two at most for prices, nine."""
NOTHING = Trial(0, 0.0, 0)


@dataclass(frozen=True, slots=True, eq=False)
class _Path:
    """The first coordinates of an order, and what they are estimated to take.

    Args:
        order: the coordinates.
        energies: float64[k + 1], of the first 0, 1, ... of them, blocks included.
        prices: float64[k + 1], the same without blocks.
    """

    order: Order
    energies: Floats
    prices: Floats

    @classmethod
    def along(cls, order: Order, priced: Costs) -> _Path:
        """The path of an order at these prices."""
        energies = np.concatenate([[0.0], order.energies(priced)])
        return cls(order, energies, np.concatenate([[0.0], np.cumsum(order.prices(priced))]))

    @classmethod
    def reaching(cls, brief: Brief, priced: Costs, room: float, seed: int | None) -> _Path:
        """As far as the room may reach by the estimate."""
        assert isinstance(brief.rule, Ordered)  # The others have no budgets that are searched for.
        return cls.along(Order.reaching(brief.source.vector, priced, brief.rule, room, seed or 0), priced)

    def extended(self, brief: Brief, priced: Costs, seed: int | None) -> _Path:
        """All there is: estimates that are that far off are not worth a third look."""
        if self.order.complete:
            return self
        assert isinstance(brief.rule, Ordered)
        order = Order.of(brief.source.vector, priced, brief.rule, seed=seed or 0)
        return _Path.along(replace(order, passes=self.order.passes + 1), priced)

    @property
    def most(self) -> int:
        """Number of candidates."""
        return self.energies.size - 1

    def excess(self, trial: Trial) -> float:
        """By how much a message took more than its estimate."""
        return trial.spent - float(self.energies[trial.kept])

    def longest(self, one: Trial, other: Trial, aim: float) -> int:
        """How many coordinates take at most `aim`, where the excess grows with prices as between two messages."""
        run = float(self.prices[other.kept] - self.prices[one.kept])
        slope = (self.excess(other) - self.excess(one)) / run if run > 0 else 0.0
        expected = self.energies + self.excess(one) + slope * (self.prices - self.prices[one.kept])
        return int(np.searchsorted(np.maximum.accumulate(expected), aim, side="right")) - 1


@dataclass(frozen=True, slots=True)
class _Bracket:
    """The nearest messages on both sides of the end.

    Args:
        fits: the longest that fits.
        before: the one that was the longest before it.
        misses: the shortest that does not fit.
        streak: how many in a row fitted, or, below zero, did not.
    """

    fits: Trial
    before: Trial
    misses: Trial | None = None
    streak: int = 0

    def narrowed(self, trial: Trial, room: float) -> _Bracket:
        """The bracket after one more message."""
        if trial.spent <= room:
            return replace(self, fits=trial, before=self.fits, streak=max(self.streak, 0) + 1)
        return replace(self, misses=trial, streak=min(self.streak, 0) - 1)


def longest_in_blocks(brief: Brief, budget: Joules, priced: Costs, seed: int | None) -> Draft:
    """Move the end of the prefix, by the number of coordinates, until the message with its blocks just fits.

    At most six encodings are made; the longest that fitted counts, or else the message that keeps nothing.
    """
    brief = replace(brief, source=brief.source.added())  # The order is made of the sum, so that is written first.
    room = room_of(budget, brief.costs)
    path, best = _Path.reaching(brief, priced, room, seed), None
    bracket, kept = _Bracket(NOTHING, NOTHING), path.order.reached(path.energies[1:], room)
    for attempts in range(ENCODINGS):
        # One is left for filling, or for the message that keeps nothing.
        if path.order.passes + attempts >= PASSES - (budget.fill or best is None):
            break
        draft = brief.attempt(Joules(path.order.price_limit(kept)), priced, seed)
        brief = replace(brief, source=draft.source)
        spent, constant = spending(budget, draft, brief.costs)
        bracket = bracket.narrowed(Trial(draft.kept, spent, draft.kept), room)
        best = draft if spent <= room else best
        everything = draft.everything and spent <= room
        if everything or constant >= room or is_close(bracket.fits, bracket.misses, room):
            break
        if bracket.misses is None and draft.kept == path.most:
            path = path.extended(brief, priced, seed)
        kept = _next_count(path, bracket, constant, room * AIM)
    if best is None:
        return brief.attempt(Joules(0.0), priced, seed)
    return _filled(brief, budget, best, room, seed) if budget.fill else best


def _next_count(path: _Path, bracket: _Bracket, constant: float, aim: float) -> int:
    """How many coordinates to keep next, strictly between what fits and what does not.

    The excess runs in a straight line between the nearest messages, or through the last two where all fitted.
    """
    before, fits = (replace(trial, spent=max(trial.spent, constant)) for trial in (bracket.before, bracket.fits))
    misses = bracket.misses
    if misses is None:
        before = before if fits.spent > before.spent else replace(NOTHING, spent=constant)
        kept = path.longest(before, fits, aim)
        return min(max(kept, fits.kept + 1), 4 * fits.kept + 1, path.most)
    kept = path.longest(fits, misses, aim)
    near, far = (fits, misses) if bracket.streak > 0 else (misses, fits)
    kept = _stepped(kept, near.kept, far.kept, abs(bracket.streak))
    return min(max(kept, fits.kept + 1), misses.kept - 1)


def _stepped(kept: int, near: int, far: int, streak: int) -> int:
    """The step from the nearest message, twice as long for each further one of a streak on its side.

    A line errs to one side where the excess bends. Only a step to the line itself goes beyond the middle.
    """
    step, middle = abs(kept - near), abs(far - near) // 2
    longer = max(step, min(step << (streak - 1), middle))
    return near + longer if far > near else near - longer


def _filled(brief: Brief, budget: Joules, best: Draft, room: float, seed: int | None) -> Draft:
    """The draft with what is left spent on later coordinates, if those do not touch so much that it no longer fits."""
    taken, _ = spending(budget, best, brief.costs)
    more = float(best.selection.spent or 0.0) + room - taken
    longer = brief.attempt(Joules(more, fill=True), best.priced, seed)
    return longer if spending(budget, longer, brief.costs)[0] <= room else best
