"""Whole runs with error feedback: waiting times, energy, convergence, and where plain feedback overshoots."""

import math

import numpy as np
import pytest
from strategies import name_of

from joulewise.compress import ErrorFeedback
from joulewise.costs import Costs
from joulewise.errors import ArgumentError, RuleError
from joulewise.horizon import convergence, longest_step, predict_run, waits
from joulewise.laws import Quantiles
from joulewise.layout import Layout
from joulewise.rules import CWMP, Bytes, Count, Joules, MinVariance, Price, Projection, TopK
from joulewise.select import select

LAYOUT = Layout.of({"cheap": np.ones(600), "dear": np.ones(300), "dearest": np.ones(100)})
COSTS = Costs.of({"cheap": 1.0, "dear": 8.0, "dearest": 30.0}, LAYOUT)
RULES = (TopK(), CWMP(), Projection())


def steady_run(update, rule, budget, rounds):
    """How often each coordinate is sent when every round brings the same update, and what that costs in a round."""
    residual, sent, spent = np.zeros(LAYOUT.n, np.float32), np.zeros(LAYOUT.n), 0.0
    for number in range(2 * rounds):
        carried = residual + update
        kept = select(carried, COSTS, rule, budget)
        carried[kept.indices] = 0
        residual = carried
        if number >= rounds:  # the first half fills the residual
            sent[kept.indices] += 1
            spent += kept.spent
    return sent / rounds, spent / rounds


@pytest.mark.parametrize("budget", [Joules(200.0), Count(60), Bytes(400)], ids=repr)
@pytest.mark.parametrize("rule", RULES, ids=name_of)
def test_a_coordinate_waits_as_long_as_its_price_and_its_update_say(rule, budget):
    update = np.random.default_rng(0).laplace(size=LAYOUT.n).astype(np.float32)
    law = Quantiles.of([update[start:stop] for _, start, stop in LAYOUT.spans()])
    run = predict_run(law, COSTS, rule, budget, rounds=400)
    often, spent = steady_run(update, rule, budget, 400)
    assert spent == pytest.approx(run.energy_per_round, rel=0.05)
    assert run.energy == pytest.approx(400 * run.energy_per_round)
    predicted = waits(update, COSTS, rule, run.threshold)
    several = often * 400 >= 8  # enough to tell a mean
    assert several.sum() > 200
    ratio = 1 / often[several] / predicted[several]
    assert np.median(ratio) == pytest.approx(1.0, abs=0.08)
    assert np.quantile(ratio, [0.05, 0.95]) == pytest.approx([1, 1], abs=0.35)
    by_tensor = [1 / often[start:stop].mean() for _, start, stop in LAYOUT.spans()]
    assert by_tensor == pytest.approx(list(run.waits), rel=0.15)


def test_waiting_times_of_the_two_rules_differ_by_the_root_of_the_price():
    for rule, power in ((CWMP(), 1.0), (Projection(), 0.5), (TopK(), 0.0)):
        found = waits(np.full(LAYOUT.n, 0.01), COSTS, rule, threshold=10.0)
        assert found[-1] / found[0] == pytest.approx(30.0**power)


def test_other_rules_and_prices_are_refused():
    law = Quantiles.of([np.ones(600), np.ones(300), np.ones(100)])
    for rule, budget in ((MinVariance(), Joules(1.0)), (CWMP(), Price(1.0))):
        with pytest.raises(RuleError, match="expected TopK, CWMP or Projection"):
            predict_run(law, COSTS, rule, budget, 10)


# ---------------------------------------------------------------- convergence


def quadratic():
    """Strongly convex: L = 1, mu = 0.05, least value 0."""
    curvature = np.linspace(0.05, 1.0, 40)
    return lambda x: 0.5 * float(curvature @ x**2), lambda x: curvature * x, 1.0


def bowls():
    """Not convex: sum of x^2 / (1 + x^2), L = 2, least value 0."""
    return lambda x: float((x**2 / (1 + x**2)).sum()), lambda x: 2 * x / (1 + x**2) ** 2, 2.0


def descend(problem, costs, rule, budget, step, rounds, feedback=None):  # noqa: PLR0917 (a run)
    """Squared gradients of gradient descent whose steps are compressed, with error feedback."""
    value, gradient, _ = problem
    feedback = feedback or ErrorFeedback()
    x = np.random.default_rng(1).normal(size=costs.layout.n) * 2
    residual, squares, start = np.zeros(x.size, np.float32), [], value(x)
    for _ in range(rounds):
        squares.append(float(np.square(gradient(x)).sum()))
        if squares[-1] > 1e30:
            break
        update = (step * gradient(x)).astype(np.float32)
        carried = update + feedback.carry(residual, update)
        kept = select(carried, costs, rule, budget)
        x = x - kept.dense()
        carried[kept.indices] = 0
        residual = carried
    return squares, start


PROBLEMS = {"strongly convex": quadratic(), "not convex": bowls()}


@pytest.mark.parametrize("share", [0.15, 0.3, 0.6, 1.0])
@pytest.mark.parametrize("name", PROBLEMS)
def test_projection_with_feedback_under_a_budget_in_joules_converges_as_the_bound_says(name, share):
    problem = PROBLEMS[name]
    costs = Costs.of(np.random.default_rng(2).integers(1, 9, 40).astype(float))
    budget = Joules(share * float(costs.per_kept.sum()))
    delta = select(np.ones(40, np.float32), costs, Projection(), budget).guaranteed_delta
    step = longest_step(delta, problem[2])
    squares, start = descend(problem, costs, Projection(), budget, step, 400)
    bound = convergence(delta, step, problem[2], start, 400)
    assert bound.factor > 0
    assert np.mean(squares) <= bound.bound
    assert bound.bound <= 60 * np.mean(squares)  # and the bound is not empty
    assert squares[-1] < 0.1 * squares[0]


@pytest.mark.parametrize("name", PROBLEMS)
def test_the_bound_is_that_of_topk_with_the_same_delta(name):
    problem = PROBLEMS[name]
    costs = Costs.of(np.ones(40))
    kept = select(np.ones(40, np.float32), costs, TopK(), Count(10))
    step = longest_step(kept.guaranteed_delta, problem[2])
    squares, start = descend(problem, costs, TopK(), Count(10), step, 400)
    assert kept.guaranteed_delta == 0.25
    assert np.mean(squares) <= convergence(0.25, step, problem[2], start, 400).bound


@pytest.mark.parametrize("delta", [0.01, 0.19, 0.5, 1.0])
def test_the_longest_step_gives_the_least_bound(delta):
    best = longest_step(delta, 3.0)
    least = convergence(delta, best, 3.0, 1.0, 10).bound
    assert all(
        convergence(delta, best * each, 3.0, 1.0, 10).bound >= least for each in (0.5, 0.9, 0.99, 1.01, 1.1, 1.3)
    )
    assert convergence(delta, 2 / 3.0, 3.0, 1.0, 10).bound == math.inf


@pytest.mark.parametrize("numbers", [(0.0, 1, 1, 1, 1), (1.1, 1, 1, 1, 1), (0.5, 0, 1, 1, 1), (0.5, 1, 1, -1, 1)])
def test_numbers_out_of_range_are_refused(numbers):
    with pytest.raises(ArgumentError, match="expected"):
        convergence(*numbers)


# ---------------------------------------------------------------- overshooting


def last_squares(step, feedback):
    """One coordinate in ten is sent in a round; the curvature is 1 everywhere."""
    problem = (lambda x: 0.5 * float(x @ x), lambda x: x, 1.0)
    squares, _ = descend(problem, Costs.of(np.ones(100)), TopK(), Count(10), step, 300, feedback)
    return squares[-1] / squares[0]


def test_plain_feedback_overshoots_where_the_waiting_time_times_the_step_is_long():
    # A coordinate that waits ten rounds is moved by ten gradients at once: beyond twice the curvature it diverges.
    assert last_squares(0.05, ErrorFeedback()) < 1e-3
    assert last_squares(0.5, ErrorFeedback()) > 1e3
    # What is forgotten cannot overshoot: without feedback the same step converges.
    assert last_squares(0.5, ErrorFeedback(decay=0.0)) < 1e-3


@pytest.mark.parametrize("feedback", [ErrorFeedback(decay=0.5), ErrorFeedback(clip=1.0)], ids=repr)
def test_decay_and_clipping_bound_what_is_carried_and_stop_the_divergence(feedback):
    assert last_squares(0.5, feedback) < 1.0
    assert last_squares(0.5, feedback) < 1e-3 * last_squares(0.5, ErrorFeedback())
