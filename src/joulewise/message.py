"""Messages that fit: selection and encoding under a budget for the bytes that are really made."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from joulewise.codec import Encoded, ValueType, encode_detailed
from joulewise.costs import Costs
from joulewise.errors import RuleError
from joulewise.ledger import header_energy, mask_energy
from joulewise.prices import index_bits
from joulewise.rules import Budget, Bytes, Joules, MinVariance, Rule, TopK
from joulewise.select import Chosen, Selection, Source, choose

ENCODINGS = 6
SLACK = 0.01
REFINEMENTS = 8
"""Of the first estimate: the density of each tensor follows from the prices, and the prices from it."""
SETTLED_BITS = 0.01
BLOCK_STEPS = 40
ROUGH = 0.05
"""How near to the budget a selection comes that only tells densities, where blocks make it a search."""
REACH = 1.3
"""How far beyond a budget an order is looked at, so that the next selections need no pass over the update."""
# Encoded bits of a value above a threshold: sign and mantissa, and what its exponent still has to say.
TYPICAL_VALUE_BITS = {"float32": 26.0, "float16": 13.0, "bfloat16": 10.0, "int8": 8.0}


@dataclass(frozen=True, slots=True, eq=False)
class Draft:
    """One message that was made.

    Args:
        selection: what it keeps.
        encoded: its bytes, and where they went.
        source: what to select from the next time.
        everything: nothing but zeros was left out.
    """

    selection: Selection
    encoded: Encoded
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
        if not isinstance(self.budget, Joules | Bytes):
            return self.attempt(self.budget, self.costs, seed)
        brief, priced = self._priced(self.budget, seed)
        if isinstance(self.budget, Joules) and isinstance(self.rule, MinVariance):
            if self.costs.blocks:  # To search for a draw that fits would make what is sent biased.
                raise RuleError(
                    "MinVariance cannot meet Joules in expectation where memory moves in blocks (lines, pages), whose "
                    "energy is no sum over coordinates; use Count or Density, or another rule"
                )
            return brief._in_expectation(self.budget, priced, seed)
        return _settled(_longest_that_fits(brief, self.budget, priced, seed), self.budget, self.costs)

    def _in_expectation(self, budget: Joules, priced: Costs, seed: int | None) -> Draft:
        """Draw once to see what the header takes and how far the estimated prices are off, then at that scale."""
        draft, room = self.attempt(budget, priced, seed), _room(budget, self.costs)
        spent, constant = _spending(budget, draft, self.costs)
        estimate = _estimate(budget, draft, priced)
        if spent > constant and estimate > 0:
            scale = estimate / (spent - constant)
            draft = replace(self, source=draft.source).attempt(
                Joules(max(0.0, (room - constant) * scale)), priced, seed
            )
        return _settled(draft, budget, self.costs)

    def attempt(self, budget: Budget | None, priced: Costs, seed: int | None) -> Draft:
        """Select under a budget at estimated prices and the energy of blocks, and encode."""
        chosen = self._chosen(self.rule, budget, priced, seed)
        encoded = encode_detailed(chosen.selection, self.costs.layout, self.values, self.whole)
        return Draft(chosen.selection, encoded, chosen.source, chosen.everything)

    def _chosen(
        self, rule: Rule, budget: Budget | None, priced: Costs, seed: int | None, slack: float = SLACK / 8
    ) -> Chosen:
        def within(source: Source, limited: Budget | None) -> Chosen:
            rng = None if seed is None else np.random.default_rng(seed)
            return choose(source, priced, rule, limited, rng, REACH if isinstance(budget, Joules | Bytes) else 1.0)

        if isinstance(budget, Joules) and priced.blocks:
            return _within_blocks(within, self.source, budget, priced, slack)
        return within(self.source, budget)

    def _priced(self, budget: Joules | Bytes, seed: int | None) -> tuple[Brief, Costs]:
        """Prices at the density that TopK would give each tensor at this budget, at a fixed point of the two.

        Also the brief that goes on from there.
        """
        brief, costs = self, self.costs
        if isinstance(budget, Joules) and not costs.per_bit.any():
            return brief, costs
        types = (self.values,) * len(costs.layout.tensors) if isinstance(self.values, str) else self.values
        value_bits = np.array([TYPICAL_VALUE_BITS[value_type] for value_type in types], dtype=np.float64)
        priced = costs.at_bits(value_bits + index_bits(0.01))
        for _ in range(REFINEMENTS):
            chosen = brief._chosen(TopK(), budget, priced, seed, ROUGH)
            brief, counts = replace(brief, source=chosen.source), costs.layout.counts(chosen.selection.indices)
            density = np.maximum(counts, 0.5) / np.maximum(costs.layout.sizes, 1)
            bits = value_bits + index_bits(np.minimum(density, 0.5))
            settled = bool(np.all(np.abs(bits - priced.bits_per_kept) <= SETTLED_BITS))
            priced = priced.at_bits(bits)
            if settled:
                break
        return brief, priced


def _within_blocks(
    within: Callable[[Source, Budget], Chosen], source: Source, budget: Joules, priced: Costs, slack: float
) -> Chosen:
    """The longest selection whose prices and blocks together take at most the budget.

    Blocks are no sum over coordinates, but what they take only grows along the order: the limit on the prices alone is
    moved until both together meet the budget, but for the share `slack` of it.
    """
    room = _room(budget, priced)
    tried = within(source, _limited(budget, room))
    if (most := _taken(tried.selection, priced)) <= room:
        return tried
    # What a selection spent is the least limit that makes it.
    low, least, fits, kept, high = 0.0, 0.0, None, _kept(tried), float(tried.selection.spent or 0.0)
    for step in range(BLOCK_STEPS):
        if kept - (0 if fits is None else _kept(fits)) <= 1 or least >= (1 - slack) * room:
            break
        if step % 3 == 2 or (step and not low):
            limit = _between(low, high)
        else:
            limit = _on_the_line((low, least), (high, most), (1 - slack / 2) * room)
        tried = within(tried.source, _limited(budget, limit))
        taken = _taken(tried.selection, priced)
        if taken <= room:
            low, least, fits = limit, taken, tried
        else:
            high, most, kept = min(limit, float(tried.selection.spent or 0.0)), taken, _kept(tried)
    return within(tried.source, _limited(budget, 0.0)) if fits is None else replace(fits, source=tried.source)


def _kept(chosen: Chosen) -> int:
    return int(chosen.selection.indices.size)


def _between(low: float, high: float) -> float:
    """Halfway in logarithms; far below where nothing is known to fit: few coordinates may touch every block."""
    return math.sqrt(low * high) if low > 0 else high / 8


def _on_the_line(fits: tuple[float, float], misses: tuple[float, float], aim: float) -> float:
    """Where the line through two limits and what they take meets the aim; a line in logarithms, if it may be."""
    (low, least), (high, most) = fits, misses
    if low > 0 < least < aim:
        share = math.log(aim / least) / math.log(most / least)
        limit = low * math.exp(share * math.log(high / low))
    else:
        limit = low + (high - low) * max(aim - least, 0.0) / (most - least)
    margin = 1e-3 * (high - low)
    return min(max(limit, low + margin), high - margin)


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
    room = _room(budget, brief.costs)
    best: Draft | None = None
    fits, misses = _Try(0.0, 0.0, 0), _Try(math.inf, math.inf, brief.source.vector.size + 1)
    limit, streak, before = room, 0, fits
    for _ in range(ENCODINGS):
        draft = brief.attempt(_limited(budget, limit), priced, seed)
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
    return best or _nothing_kept(brief.attempt(_limited(budget, 0.0), priced, seed), budget)


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


def _room(budget: Joules | Bytes, costs: Costs) -> float:
    if isinstance(budget, Bytes):
        return float(budget.n)
    return budget.budget - (costs.fixed if budget.includes_fixed else 0.0)


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
