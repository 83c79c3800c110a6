"""Messages that fit: selection and encoding under a budget for the bytes that are really made."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from joulewise.codec import Encoded, ValueType, encode_detailed
from joulewise.costs import Costs
from joulewise.errors import RuleError
from joulewise.ledger import header_energy, mask_energy
from joulewise.marginal import REACH, priced_at_margin, room_of
from joulewise.order import Order, Ordered
from joulewise.rules import Budget, Bytes, Joules, MinVariance, Rule
from joulewise.select import Selection, Source, choose
from joulewise.tensorwise import Floats

ENCODINGS = 6
PASSES = 7
"""Selections for candidates and messages together; with two at most for prices where memory moves in blocks, nine."""
SLACK = 0.01


@dataclass(frozen=True, slots=True, eq=False)
class Draft:
    """One message that was made.

    Args:
        selection: what it keeps.
        encoded: its bytes, and where they went.
        priced: the prices that it was chosen by.
        source: what to select from the next time.
        everything: nothing but zeros was left out.
    """

    selection: Selection
    encoded: Encoded
    priced: Costs
    source: Source
    everything: bool

    @property
    def kept(self) -> int:
        """Number of coordinates kept."""
        return int(self.selection.indices.size)


@dataclass(frozen=True, slots=True, eq=False)
class Brief:
    """What a message is to be made of.

    Args:
        source: the update, and what to add to it; each selection says what to select from the next time.
        costs: prices of the client's device.
        rule: what to rank by.
        budget: where to stop; Joules and Bytes bound the message as encoded.
        values: value type of the payload, one for all tensors or one per tensor.
        whole: buffers and tensors that are not float, by name.
    """

    source: Source
    costs: Costs
    rule: Rule
    budget: Budget | None
    values: ValueType | tuple[ValueType, ...] = "float32"
    whole: Mapping[str, Any] | None = None

    def make(self, rng: np.random.Generator | None = None) -> Draft:
        """Select and encode.

        Raises:
            RuleError: a budget in bytes is below the message that keeps nothing, or a random rule has no `rng`.
            NotFinite: the update, or its sum with the residual, holds NaN or infinity.
        """
        # The same key at each attempt: a random order, too, is one order.
        seed = None if rng is None else int(rng.integers(2**63))
        priced, source = priced_at_margin(self.source, self.costs, self.rule, self.budget, self.values)
        brief = replace(self, source=source)
        if not isinstance(self.budget, Joules | Bytes):
            return brief.attempt(self.budget, priced, seed)
        if isinstance(self.rule, MinVariance):
            if self.costs.blocks:  # To search for a draw that fits would make what is sent biased.
                raise RuleError(
                    "MinVariance cannot meet Joules in expectation where memory moves in blocks (lines, pages), whose "
                    "energy is no sum over coordinates; use Count or Density, or another rule"
                )
            return brief._in_expectation(self.budget, priced, seed)
        return _settled(_longest_that_fits(brief, self.budget, priced, seed), self.budget, self.costs)

    def _in_expectation(self, budget: Joules | Bytes, priced: Costs, seed: int | None) -> Draft:
        """Draw once to see what the header takes and how far the estimated prices are off, then at that scale."""
        draft, room = self.attempt(budget, priced, seed), room_of(budget, self.costs)
        spent, constant = _spending(budget, draft, self.costs)
        estimate = _estimate(budget, draft, priced)
        if spent > constant and estimate > 0:
            scale = estimate / (spent - constant)
            again = replace(self, source=draft.source)
            draft = again.attempt(Joules(max(0.0, (room - constant) * scale)), priced, seed)
        return _settled(draft, budget, self.costs)

    def attempt(self, budget: Budget | None, priced: Costs, seed: int | None) -> Draft:
        """Select under a budget at these prices, blocks left out, and encode."""
        rng = None if seed is None else np.random.default_rng(seed)
        reach = REACH if isinstance(budget, Joules | Bytes) else 1.0
        chosen = choose(self.source, priced, self.rule, budget, rng, reach)
        encoded = encode_detailed(chosen.selection, self.costs.layout, self.values, self.whole)
        return Draft(chosen.selection, encoded, priced, chosen.source, chosen.everything)


@dataclass(frozen=True, slots=True, eq=False)
class _Limits:
    """Limits on what prices and blocks take together, as limits on the prices alone, which `select` knows.

    Without blocks, or with a budget in bytes, they are the same.
    """

    brief: Brief
    budget: Joules | Bytes
    priced: Costs
    seed: int | None
    order: Order | None = None
    energies: Floats | None = None

    def reaching(self, limit: float) -> _Limits:
        """The same with the candidates of a limit at hand, where blocks make it a search among them."""
        if isinstance(self.budget, Bytes) or not self.priced.blocks:
            return self
        if self.order is not None and self.energies is not None:
            inside = self.order.reached(self.energies, limit) < self.energies.size
            if inside or self.order.complete:
                return self
        rule, seed = self.brief.rule, self.seed or 0
        assert isinstance(rule, Ordered)  # The others have no budgets that are searched for.
        if self.order is None:
            order = Order.reaching(self.brief.source.vector, self.priced, rule, limit, seed)
        else:  # All there is: estimates that are that far off are not worth a third look.
            order = replace(
                Order.of(self.brief.source.vector, self.priced, rule, seed=seed), passes=self.order.passes + 1
            )
        return replace(self, order=order, energies=order.energies(self.priced))

    @property
    def passes(self) -> int:
        """Selections that were made for the candidates."""
        return 0 if self.order is None else self.order.passes

    def budget_at(self, limit: float) -> Joules | Bytes:
        """What `select` is given so that prices and blocks take at most `limit`."""
        if self.order is None or self.energies is None:
            return _limited(self.budget, limit)
        return Joules(self.order.price_limit(self.order.reached(self.energies, limit)))


def _taken(selection: Selection, priced: Costs) -> float:
    """What a selection takes at estimated prices, blocks included."""
    return float(selection.spent or 0.0) + priced.block_energy(selection.indices)


@dataclass(frozen=True, slots=True)
class _Try:
    """One message that was made: the priced limit it was selected under, what it took, how much it keeps."""

    limit: float
    spent: float
    kept: int


def _longest_that_fits(brief: Brief, budget: Joules | Bytes, priced: Costs, seed: int | None) -> Draft:
    """Move the end of the prefix until the message, as encoded, just fits.

    Encoded size grows along the order, so messages that fit and messages that do not bracket the end. At most
    six encodings are made; the longest that fitted counts, or else the message that keeps nothing.
    """
    if brief.costs.blocks:  # The order is made of the sum, so that is written first.
        brief = replace(brief, source=brief.source.added())
    room = room_of(budget, brief.costs)
    best: Draft | None = None
    fits, misses = _Try(0.0, 0.0, 0), _Try(math.inf, math.inf, brief.source.vector.size + 1)
    limit, streak, before, limits = room, 0, fits, _Limits(brief, budget, priced, seed)
    for attempts in range(ENCODINGS):
        most = PASSES - (budget.fill or best is None)  # One is left for filling, or for the message that keeps nothing.
        if limits.passes + attempts >= most:
            break
        limits = limits.reaching(limit)
        if limits.passes + attempts >= most:
            break
        draft = brief.attempt(limits.budget_at(limit), priced, seed)
        brief = replace(brief, source=draft.source)
        spent, constant = _spending(budget, draft, brief.costs)
        if spent <= room:
            before, fits, streak = fits, _Try(limit, spent, draft.kept), max(streak, 0) + 1
            best = draft if best is None or draft.kept >= best.kept else best
            if draft.everything:
                break
        else:
            misses = _Try(min(limit, _estimate(budget, draft, priced)), spent, draft.kept)
            streak = min(streak, 0) - 1
        if fits.spent >= (1 - SLACK / 4) * room or misses.kept - fits.kept <= 1 or constant >= room:
            break
        if misses.limit == math.inf:
            limit = _further(before, fits, constant, room)
        else:
            limit = _next_limit(fits, misses, constant, room, streak)
    if best is None:
        return _nothing_kept(brief.attempt(_limited(budget, 0.0), priced, seed), budget)
    return _filled(best, limits, room) if limits.order is not None and budget.fill else best


def _filled(best: Draft, limits: _Limits, room: float) -> Draft:
    """The draft with what is left spent on later coordinates, if those do not touch so much that it no longer fits."""
    taken, _ = _spending(limits.budget, best, limits.brief.costs)
    more = float(best.selection.spent or 0.0) + room - taken
    longer = limits.brief.attempt(Joules(more, fill=True), limits.priced, limits.seed)
    return longer if _spending(limits.budget, longer, limits.brief.costs)[0] <= room else best


def _settled(draft: Draft, budget: Joules | Bytes, costs: Costs) -> Draft:
    """The draft with what its message takes; a certificate holds only where the prices were no estimates."""
    exact = isinstance(budget, Joules) and not costs.per_bit.any() and not costs.blocks
    spent = mask_energy(draft.encoded, draft.selection, costs)
    certificate = draft.selection.certificate if exact else None
    return replace(draft, selection=replace(draft.selection, spent=spent, certificate=certificate))


def _nothing_kept(draft: Draft, budget: Joules | Bytes) -> Draft:
    least = len(draft.encoded.payload)
    if isinstance(budget, Bytes) and least > budget.n:
        raise RuleError(
            f"Bytes({budget.n}) is below the {least} bytes that the header and the model's buffers take; "
            "take a larger budget"
        )
    return draft


def _further(before: _Try, fits: _Try, constant: float, room: float) -> float:
    """Where the line through the last two messages that fitted, or through the one and nothing, meets the room."""
    aim = room * (1 - SLACK / 8)
    if before.kept and fits.spent > before.spent:
        ahead = (aim - fits.spent) / (fits.spent - before.spent) * (fits.limit - before.limit)
        return min(max(fits.limit + ahead, 1.001 * fits.limit), 4 * fits.limit)
    growth = (aim - constant) / max(fits.spent - constant, room * 1e-3, 1e-300)
    return fits.limit * max(1.001, growth)


def _next_limit(fits: _Try, misses: _Try, constant: float, room: float, streak: int) -> float:
    """Where the straight line through the nearest messages meets the room, strictly between those tried.

    Encoded size bends along the order, so that the line errs to one side: with each further message of a
    streak that fits (or, below zero, does not) the other end counts half as much (the Illinois method).
    """
    aim = room * (1 - SLACK / 8)
    below, above = max(aim - max(fits.spent, constant), 0.0), misses.spent - aim
    if streak > 0:
        above *= 0.5 ** (streak - 1)
    else:
        below *= 0.5 ** (-streak - 1)
    share = below / max(below + above, 1e-300)
    return fits.limit + (misses.limit - fits.limit) * min(max(share, 0.02), 0.98)


def _limited(budget: Joules | Bytes, limit: float) -> Joules | Bytes:
    return Bytes(int(limit), budget.fill) if isinstance(budget, Bytes) else Joules(limit, fill=budget.fill)


def _spending(budget: Joules | Bytes, draft: Draft, costs: Costs) -> tuple[float, float]:
    """What a message takes of its budget, and the part of it that does not grow with what is kept."""
    encoded = draft.encoded
    if isinstance(budget, Bytes):
        return float(len(encoded.payload)), float(encoded.header_bytes + encoded.whole_bytes)
    return mask_energy(encoded, draft.selection, costs), header_energy(encoded, costs)


def _estimate(budget: Joules | Bytes, draft: Draft, priced: Costs) -> float:
    """What a selection takes at the estimated prices: the least limit that keeps as much."""
    if isinstance(budget, Joules):
        return _taken(draft.selection, priced)
    return float(priced.bits_per_kept @ priced.layout.counts(draft.selection.indices)) / 8
