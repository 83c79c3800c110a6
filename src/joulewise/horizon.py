"""Whole runs with error feedback: how long a coordinate waits, what rounds cost in the long run, and convergence."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import msgspec
import numpy as np

from joulewise.costs import Costs
from joulewise.errors import ArgumentError, RuleError
from joulewise.expectation import Outlook, Sums, limit
from joulewise.laws import Floats, Law
from joulewise.rules import Budget, Price, Ranked, Rule, Threshold


class Run(msgspec.Struct, frozen=True):
    """What rounds with error feedback settle to, when each round brings the same update.

    Args:
        threshold: on the score of a residual, at which its coordinate is sent.
        energy_per_round: mean energy of what is kept in a round, in the unit of the prices.
        energy: over all rounds.
        coordinates_per_round: mean number kept in a round.
        waits: by tensor, mean rounds between two sendings of a coordinate; infinite where nothing is sent.
    """

    threshold: float | None
    energy_per_round: float
    energy: float
    coordinates_per_round: float
    waits: tuple[float, ...]


def predict_run(law: Law, costs: Costs, rule: Rule, budget: Budget, rounds: int) -> Run:
    """Predict what a run with error feedback spends, when updates change slowly beside the waiting times.

    A coordinate that gains g in each round is sent when its residual passes the threshold: every
    ``max(1, tau / (|g| w))`` rounds, that is, ``tau sqrt(c) / |g|`` for Projection and ``tau c / |g|`` for CWMP. So a
    share ``q = min(1, |g| w / tau)`` is sent in each round, and the budget fixes tau. Feedback sends what is dear later
    and not never; for Projection these shares are the chances of MinVariance.

    Args:
        law: of the magnitudes of one round's update.
        costs: prices, one per tensor.
        rule: TopK, CWMP or Projection.
        budget: of each round.
        rounds: how many.

    Raises:
        RuleError: the rule has no score, or the budget is a price or a threshold.

    Example:
        >>> from joulewise.layout import Layout
        >>> from joulewise.rules import CWMP, Joules
        >>> from joulewise.scaled_laws import Laplace
        >>> costs = Costs.of(np.array([1.0, 4.0]), Layout.of({"a": np.ones(1000), "b": np.ones(1000)}))
        >>> law = Laplace(np.array([1000.0, 1000.0]), np.array([1.0, 1.0]))
        >>> run = predict_run(law, costs, CWMP(), Joules(250.0), rounds=100)
        >>> round(run.energy), [round(each, 1) for each in run.waits]
        (25000, [8.0, 32.0])
    """
    if not isinstance(rule, Ranked) or rule.random or isinstance(budget, Price | Threshold):
        raise RuleError(
            f"predict_run is given {type(rule).__name__} with {type(budget).__name__}, expected TopK, CWMP or "
            "Projection with Count, Density, Joules or Bytes"
        )
    steady = Steady(law, costs, rule)
    threshold, sums = steady.reaching(*limit(budget, costs))
    kept = steady.kept(sums)
    with np.errstate(divide="ignore", invalid="ignore"):
        waits = np.where(sums.counts > 0, law.nonzero / sums.counts, math.inf)
    return Run(threshold, kept.energy, rounds * kept.energy, kept.coordinates, tuple(waits.tolist()))


@dataclass(frozen=True, eq=False)
class Steady(Outlook):
    """Shares of rounds in which coordinates are sent: all of what passes the threshold in one, ``|g| w / tau`` else."""

    def at(self, threshold: float) -> Sums:
        """Expected sums in a round, at a threshold on the score of a residual."""
        with np.errstate(over="ignore", divide="ignore"):
            tails = threshold / self.weights
        return self._chanced(tails, self.law.moments(tails))


def waits(update: Any, costs: Costs, rule: Ranked, threshold: float) -> Floats:
    """Rounds between two sendings of each coordinate: ``max(1, tau / (|g| w))``, infinite where g is 0.

    Args:
        update: float32[n], what each round brings.
        costs: prices.
        rule: TopK, CWMP or Projection.
        threshold: tau, of a `Run`.

    Example:
        >>> from joulewise.rules import CWMP, Projection
        >>> costs = Costs.of(np.array([1.0, 4.0]))
        >>> for rule in (CWMP(), Projection()):
        ...     print(waits(np.array([0.5, 0.5]), costs, rule, threshold=2.0))
        [ 4. 16.]
        [4. 8.]
    """
    weights = rule.weights(costs.per_kept)
    spread = weights if costs.per_coordinate else np.repeat(weights, costs.layout.sizes)
    with np.errstate(divide="ignore"):
        return np.maximum(1.0, threshold / (np.abs(np.asarray(update, dtype=np.float64)) * spread))


# ---------------------------------------------------------------- convergence


class Convergence(msgspec.Struct, frozen=True):
    """A bound on the mean squared gradient of gradient descent with a contraction and error feedback.

    Args:
        delta: the contraction.
        memory: ``k = r / (1 - r)`` with ``r = sqrt(1 - delta)``: how many steps the residual is worth, at most.
        step: ``s = step size times smoothness``.
        factor: ``1 - s - s^2 k^2``; the bound holds where it is above 0.
        bound: of ``mean_t ||grad f(x_t)||^2``.
    """

    delta: float
    memory: float
    step: float
    factor: float
    bound: float


def convergence(delta: float, step_size: float, smoothness: float, gap: float, rounds: int) -> Convergence:
    """Bound the mean squared gradient over a run: ``2 gap / (step_size rounds (1 - s - s^2 k^2))``.

    For f with gradients of Lipschitz constant L, exact gradients, one client, and ``x' = x - C(step_size grad + e)``, C
    any map with ``||a - C(a)||^2 <= (1 - delta) ||a||^2``: TopK with delta = k/n, and Projection under joules
    with ``delta = beta - max(c)/sum(c)``. The proof is in docs/theory.md, after S. P. Karimireddy, Q. Rebjock, S. Stich
    and M. Jaggi, "Error Feedback Fixes SignSGD", ICML 2019; it needs no bound on gradients. A function with
    ``||grad f||^2 >= 2 mu (f - f*)`` is within ``bound / (2 mu)`` of its least value at some round.

    Args:
        delta: contraction, above 0 and at most 1.
        step_size: of gradient descent.
        smoothness: L.
        gap: f at the start less its least value.
        rounds: T.

    Returns:
        The bound, infinite where the step is too long for the memory.

    Raises:
        ArgumentError: a number is out of range.

    Example:
        >>> found = convergence(delta=0.19, step_size=0.1, smoothness=1.0, gap=5.0, rounds=1000)
        >>> round(found.memory, 6), round(found.factor, 6), round(found.bound, 4)
        (9.0, 0.09, 1.1111)
    """
    if not 0 < delta <= 1:
        raise ArgumentError(
            f"delta is {delta}, expected a contraction above 0 and at most 1; a larger budget gives one"
        )
    if min(step_size, smoothness, rounds) <= 0 or gap < 0:
        raise ArgumentError(
            f"step_size, smoothness and rounds are {step_size}, {smoothness} and {rounds} and gap is {gap}, expected "
            "numbers above 0 and a gap of at least 0"
        )
    root = math.sqrt(1 - delta)
    memory, step = root * (1 + root) / delta, step_size * smoothness  # root / (1 - root), without cancellation
    factor = 1 - step - (step * memory) ** 2
    bound = 2 * gap / (step_size * rounds * factor) if factor > 0 else math.inf
    return Convergence(delta, memory, step, factor, bound)


def longest_step(delta: float, smoothness: float) -> float:
    """The step size of the least bound: the one that makes ``step_size (1 - s - s^2 k^2)`` largest.

    Example:
        >>> round(longest_step(1.0, 2.0), 6), round(longest_step(0.19, 1.0), 6)
        (0.25, 0.060167)
    """
    memory = convergence(delta, 1.0, 1.0, 0.0, 1).memory
    # d/ds (s - s^2 - k^2 s^3) = 1 - 2 s - 3 k^2 s^2
    return 1.0 / (1.0 + math.sqrt(1.0 + 3.0 * memory**2)) / smoothness
