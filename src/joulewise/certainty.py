"""How sure the frontier is: in which share of resampled seeds an arm is on it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from joulewise.errors import MissingExtra
from joulewise.outcomes import Arm
from joulewise.pareto import SEEDS_FOR_A_CLAIM

RESAMPLES = 2000
BATCH = 100

Floats = npt.NDArray[np.float64]


def shares(arms: Sequence[Arm]) -> dict[str, float]:
    """Share of paired bootstrap samples of the seeds in which each complete arm is on the frontier of the means.

    Each of 2,000 samples draws as many seeds as there are, with replacement, the same for every arm
    (`scipy.stats.bootstrap`). With n seeds there are only ``(2n - 1)! / (n! (n - 1)!)`` different samples: ten for
    three seeds.

    Returns:
        By name of the arm; empty where the complete arms have fewer than three seeds in common.

    Raises:
        MissingExtra: scipy is not installed.
    """
    whole = [{run.seed: run for run in arm.runs} for arm in arms if arm.complete]
    seeds = sorted(set.intersection(*(set(runs) for runs in whole)))
    if len(seeds) < SEEDS_FOR_A_CLAIM:
        return {}
    energies = np.array([[runs[seed].energy[-1] for seed in seeds] for runs in whole])
    accuracies = np.array([[runs[seed].accuracy[-1] for seed in seeds] for runs in whole])

    def on_frontier(places: Any, axis: int) -> Floats:
        drawn = np.asarray(places, dtype=np.int64)
        return _unbeaten(energies[:, drawn].mean(axis=axis), accuracies[:, drawn].mean(axis=axis))

    drawn = _stats().bootstrap(
        (np.arange(len(seeds)),),
        on_frontier,
        n_resamples=RESAMPLES,
        batch=BATCH,
        method="percentile",
        rng=np.random.default_rng(0),
    )
    names = [arm.name for arm in arms if arm.complete]
    return dict(zip(names, drawn.bootstrap_distribution.mean(axis=-1).tolist(), strict=True))


def _unbeaten(cost: Floats, value: Floats) -> Floats:
    """1.0 where no other point has at most the cost and at least the value without being equal; float64[arms, samples].

    It is `pareto.frontier` for many samples at once.
    """
    on = np.ones(cost.shape)
    for own in range(len(cost)):
        no_worse = (cost <= cost[own]) & (value >= value[own])
        equal = (cost == cost[own]) & (value == value[own])
        on[own] = ~(no_worse & ~equal).any(axis=0)
    return on


def _stats() -> Any:
    try:
        import scipy.stats  # noqa: PLC0415 (only a report needs it)
    except ImportError as error:
        raise MissingExtra("report", "how sure a frontier is") from error
    return scipy.stats
