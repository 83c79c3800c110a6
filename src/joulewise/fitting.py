"""Messages that fit: selection and encoding under a budget for the bytes that are really made."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np

from joulewise.blockwise import longest_in_blocks
from joulewise.costs import Costs
from joulewise.errors import RuleError
from joulewise.ledger import mask_energy
from joulewise.marginal import priced_at_margin, room_of
from joulewise.message import Brief, Draft, spending
from joulewise.rules import Bytes, Joules, MinVariance
from joulewise.trial import AIM, ENCODINGS, Trial, is_close


def fitted(brief: Brief, rng: np.random.Generator | None = None) -> Draft:
    """Select and encode, as much as the budget buys.

    Raises:
        RuleError: a budget in bytes is below the message that keeps nothing, or a random rule has no `rng`.
        NotFinite: the update, or its sum with the residual, holds NaN or infinity.
    """
    # The same key at each attempt: a random order, too, is one order.
    seed = None if rng is None else int(rng.integers(2**63))
    budget = brief.budget
    priced, source = priced_at_margin(brief.source, brief.costs, brief.rule, budget, brief.values)
    brief = replace(brief, source=source)
    if not isinstance(budget, Joules | Bytes):
        return brief.attempt(budget, priced, seed)
    if isinstance(brief.rule, MinVariance):
        draft = _in_expectation(brief, budget, priced, seed)
    elif isinstance(budget, Joules) and priced.blocks:
        draft = longest_in_blocks(brief, budget, priced, seed)
    else:
        draft = _longest_that_fits(brief, budget, priced, seed)
    return _settled(draft, budget, brief.costs)


def _in_expectation(brief: Brief, budget: Joules | Bytes, priced: Costs, seed: int | None) -> Draft:
    """Draw once to see what the header takes and how far the estimated prices are off, then at that scale."""
    if priced.blocks:  # To search for a draw that fits would make what is sent biased.
        raise RuleError(
            "MinVariance cannot meet Joules in expectation where memory moves in blocks (lines, pages), whose "
            "energy is no sum over coordinates; use Count or Density, or another rule"
        )
    draft, room = brief.attempt(budget, priced, seed), room_of(budget, brief.costs)
    spent, constant = spending(budget, draft, brief.costs)
    estimate = _estimate(budget, draft, priced)
    if spent > constant and estimate > 0:
        scale = estimate / (spent - constant)
        again = replace(brief, source=draft.source)
        draft = again.attempt(Joules(max(0.0, (room - constant) * scale)), priced, seed)
    return draft


def _longest_that_fits(brief: Brief, budget: Joules | Bytes, priced: Costs, seed: int | None) -> Draft:
    """Move the end of the prefix until the message, as encoded, just fits.

    Encoded size grows along the order, so messages that fit and messages that do not bracket the end. At most
    six encodings are made; the longest that fitted counts, or else the message that keeps nothing.
    """
    room = room_of(budget, brief.costs)
    best: Draft | None = None
    fits, misses = Trial(0.0, 0.0, 0), Trial(math.inf, math.inf, brief.source.vector.size + 1)
    limit, streak, before = room, 0, fits
    for _ in range(ENCODINGS):
        draft = brief.attempt(_limited(budget, limit), priced, seed)
        brief = replace(brief, source=draft.source)
        spent, constant = spending(budget, draft, brief.costs)
        if spent <= room:
            before, fits, streak = fits, Trial(limit, spent, draft.kept), max(streak, 0) + 1
            best = draft if best is None or draft.kept >= best.kept else best
            if draft.everything:
                break
        else:
            misses = Trial(min(limit, _estimate(budget, draft, priced)), spent, draft.kept)
            streak = min(streak, 0) - 1
        if is_close(fits, misses, room) or constant >= room:
            break
        if misses.place == math.inf:
            limit = _further(before, fits, constant, room)
        else:
            limit = _next_limit(fits, misses, constant, room, streak)
    return _nothing_kept(brief.attempt(_limited(budget, 0.0), priced, seed), budget) if best is None else best


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


def _further(before: Trial, fits: Trial, constant: float, room: float) -> float:
    """Where the line through the last two messages that fitted, or through the one and nothing, meets the room."""
    aim = room * AIM
    if before.kept and fits.spent > before.spent:
        ahead = (aim - fits.spent) / (fits.spent - before.spent) * (fits.place - before.place)
        return min(max(fits.place + ahead, 1.001 * fits.place), 4 * fits.place)
    growth = (aim - constant) / max(fits.spent - constant, room * 1e-3, 1e-300)
    return fits.place * max(1.001, growth)


def _next_limit(fits: Trial, misses: Trial, constant: float, room: float, streak: int) -> float:
    """Where the straight line through the nearest messages meets the room, strictly between those tried.

    Encoded size bends along the order, so that the line errs to one side: with each further message of a
    streak that fits (or, below zero, does not) the other end counts half as much (the Illinois method).
    """
    aim = room * AIM
    below, above = max(aim - max(fits.spent, constant), 0.0), misses.spent - aim
    if streak > 0:
        above *= 0.5 ** (streak - 1)
    else:
        below *= 0.5 ** (-streak - 1)
    share = below / max(below + above, 1e-300)
    return fits.place + (misses.place - fits.place) * min(max(share, 0.02), 0.98)


def _limited(budget: Joules | Bytes, limit: float) -> Joules | Bytes:
    return Bytes(int(limit), budget.fill) if isinstance(budget, Bytes) else Joules(limit, fill=budget.fill)


def _estimate(budget: Joules | Bytes, draft: Draft, priced: Costs) -> float:
    """What a selection takes at the estimated prices: the least limit that keeps as much."""
    if isinstance(budget, Joules):
        return float(draft.selection.spent or 0.0)
    return float(priced.bits_per_kept @ priced.layout.counts(draft.selection.indices)) / 8
