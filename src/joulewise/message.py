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
from joulewise.layout import Vector
from joulewise.ledger import header_energy, mask_energy
from joulewise.prices import index_bits
from joulewise.rules import Budget, Bytes, Joules, MinVariance, Rule, TopK
from joulewise.select import Selection, select

ENCODINGS = 6
SLACK = 0.01
# Encoded bits of a value above a threshold: sign and mantissa, and what its exponent still has to say.
TYPICAL_VALUE_BITS = {"float32": 26.0, "float16": 13.0, "bfloat16": 10.0, "int8": 8.0}


@dataclass(frozen=True, slots=True, eq=False)
class Draft:
    """One message that was made.

    Args:
        selection: what it keeps.
        encoded: its bytes, and where they went.
    """

    selection: Selection
    encoded: Encoded

    @property
    def kept(self) -> int:
        """Number of coordinates kept."""
        return int(self.selection.indices.size)


@dataclass(frozen=True, slots=True, eq=False)
class Brief:
    """What a message is to be made of.

    Args:
        carried: float32[n], update plus residual.
        costs: prices of the client's device.
        rule: what to rank by.
        budget: where to stop; Joules and Bytes bound the message as encoded.
        values: value type of the payload, one for all tensors or one per tensor.
        whole: buffers and tensors that are not float, by name.
    """

    carried: Vector
    costs: Costs
    rule: Rule
    budget: Budget | None
    values: ValueType | tuple[ValueType, ...] = "float32"
    whole: Mapping[str, Any] | None = None

    def make(self, rng: np.random.Generator | None = None) -> Draft:
        """Select and encode.

        Raises:
            RuleError: a budget in bytes is below the message that keeps nothing, or a random rule has no `rng`.
        """
        # The same key at each attempt: a random order, too, is one order.
        seed = None if rng is None else int(rng.integers(2**63))
        if not isinstance(self.budget, Joules | Bytes):
            return self.attempt(self.budget, self.costs, seed)
        priced = self._priced()
        if isinstance(self.budget, Joules) and isinstance(self.rule, MinVariance):
            return self._in_expectation(self.budget, priced, seed)
        return _settled(_longest_that_fits(self, self.budget, priced, seed), self.budget, self.costs)

    def _in_expectation(self, budget: Joules, priced: Costs, seed: int | None) -> Draft:
        """Draw once to see what the header takes and how far the estimated prices are off, then at that scale."""
        draft, room = self.attempt(budget, priced, seed), _room(budget, self.costs)
        spent, constant = _spending(budget, draft, self.costs)
        estimate = _estimate(budget, draft, priced)
        if spent > constant and estimate > 0:
            scale = estimate / (spent - constant)
            draft = self.attempt(Joules(max(0.0, (room - constant) * scale)), priced, seed)
        return _settled(draft, budget, self.costs)

    def attempt(self, budget: Budget | None, priced: Costs, seed: int | None) -> Draft:
        """Select under a budget at estimated prices, and encode."""
        rng = None if seed is None else np.random.default_rng(seed)
        selection = select(self.carried, priced, self.rule, budget, rng)
        return Draft(selection, encode_detailed(selection, self.costs.layout, self.values, self.whole))

    def _priced(self) -> Costs:
        """Prices at the density that TopK would give each tensor at this budget, refined once."""
        costs = self.costs
        if isinstance(self.budget, Joules) and not costs.per_bit.any():
            return costs
        types = (self.values,) * len(costs.layout.tensors) if isinstance(self.values, str) else self.values
        value_bits = np.array([TYPICAL_VALUE_BITS[value_type] for value_type in types], dtype=np.float64)
        priced = costs.at_bits(value_bits + index_bits(0.01))
        for _ in range(2):
            counts = costs.layout.counts(select(self.carried, priced, TopK(), self.budget).indices)
            density = np.maximum(counts, 0.5) / np.maximum(costs.layout.sizes, 1)
            priced = priced.at_bits(value_bits + index_bits(np.minimum(density, 0.5)))
        return priced


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
    fits, misses = _Try(0.0, 0.0, 0), _Try(math.inf, math.inf, int(np.count_nonzero(brief.carried)) + 1)
    limit, streak = room, 0
    for _ in range(ENCODINGS):
        draft = brief.attempt(_limited(budget, limit), priced, seed)
        spent, constant = _spending(budget, draft, brief.costs)
        if spent <= room:
            fits, best, streak = _Try(limit, spent, draft.kept), draft, max(streak, 0) + 1
        else:
            misses = _Try(min(limit, _estimate(budget, draft, priced)), spent, draft.kept)
            streak = min(streak, 0) - 1
        if fits.spent >= (1 - SLACK / 4) * room or misses.kept - fits.kept <= 1 or constant >= room:
            break
        limit = _next_limit(fits, misses, constant, room, streak)
    return best or _nothing_kept(brief.attempt(_limited(budget, 0.0), priced, seed), budget)


def _settled(draft: Draft, budget: Joules | Bytes, costs: Costs) -> Draft:
    """The draft with what its message takes; a certificate holds only where the prices were no estimates."""
    exact = isinstance(budget, Joules) and not costs.per_bit.any()
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


def _next_limit(fits: _Try, misses: _Try, constant: float, room: float, streak: int) -> float:
    """Where the straight line through the nearest messages meets the room, strictly between those tried.

    Encoded size bends along the order, so that the line errs to one side: with each further message of a
    streak that fits (or, below zero, does not) the other end counts half as much (the Illinois method).
    """
    aim = room * (1 - SLACK / 8)
    if misses.limit == math.inf:
        growth = (aim - constant) / max(fits.spent - constant, room * 1e-3, 1e-300)
        return fits.limit * max(1.001, growth)
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
        return float(draft.selection.spent or 0.0)
    return float(priced.bits_per_kept @ priced.layout.counts(draft.selection.indices)) / 8
