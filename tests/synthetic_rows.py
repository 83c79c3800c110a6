"""Rows of a study that never ran, for tests: shaped like real ones, made by formulas and a seed."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from functools import partial

import numpy as np

from joulewise.ledger import Charge
from joulewise.results import ClientResult, Origin, Row, ServerResult, Timing

SIZES = (144, 16, 2304, 16, 18432, 64)
PRICES = (1.0, 10.0, 1.0, 10.0, 10.0, 10.0)
PARAMETERS = sum(SIZES)
DENSITIES = (0.01, 0.05, 0.1, 0.2)
RULES = ("TopK", "CWMP", "Projection")
# how much more often than TopK a rule keeps a coordinate of a cheap tensor
LEANING = {"TopK": 1.0, "CWMP": 6.0, "Projection": 3.0, "Dense": 1.0}
LOSS_OF_ACCURACY = {"Dense": 0.0, "TopK": 0.010, "CWMP": 0.018, "Projection": 0.012}


def study_rows(
    study: str = "quickstart",
    *,
    densities: Sequence[float] = DENSITIES,
    rules: Sequence[str] = RULES,
    seeds: Sequence[int] = (0, 1, 2),
    rounds: int = 20,
    clients: int = 4,
    unit: str = "relative",
    dense: bool = True,
) -> tuple[Row, ...]:
    """Rows of every rule at every density, and of Dense, round by round as a study would write them."""
    arms = [("Dense", None)] if dense else []
    arms += [(rule, density) for rule in rules for density in densities]
    run = partial(_run, study=study, rounds=rounds, clients=clients, unit=unit)
    return tuple(row for rule, density in arms for seed in seeds for row in run(rule, density, seed))


def _run(
    rule: str, density: float | None, seed: int, *, study: str, rounds: int, clients: int, unit: str
) -> Iterator[Row]:
    rng = np.random.default_rng([seed, list(LEANING).index(rule), int(1000 * (density or 1))])
    budget = "" if density is None else f"density={density:g}"
    ceiling = 0.95 - LOSS_OF_ACCURACY[rule] * (1 - math.log10(density or 1)) / 2 + rng.normal(0, 0.006)
    pace = 3.0 + (0 if density is None else 1.2 * -math.log10(density))
    for number in range(1, rounds + 1):
        accuracy = 0.1 + (ceiling - 0.1) * (1 - math.exp(-number / pace)) + rng.normal(0, 0.004)
        yield Row(
            study=study,
            arm=f"{rule} {budget}".strip(),
            rule=rule,
            budget=budget,
            settings={"rule": rule, "density": density, "values": "float32", "feedback": False},
            seed=seed,
            round=number,
            server=ServerResult(round(accuracy, 4), 2.3 * math.exp(-number / pace)),
            clients=tuple(_client(part, rule, density, rng, unit) for part in range(clients)),
            energy_unit=unit,
            origin=Origin(
                versions={"joulewise": "0.1.0", "numpy": "2.4.6", "flwr": "1.41.0"},
                commit="0123456789abcdef0123456789abcdef01234567",
                machine="Linux x86_64, 2 cores",
                threads=1,
            ),
            timing=Timing(seconds=0.25, started=f"2026-01-31T12:{seed:02d}:{number:02d}Z"),
        )


def _client(part: int, rule: str, density: float | None, rng: np.random.Generator, unit: str) -> ClientResult:
    kept = _kept(rule, density, rng)
    energy = sum(price * count for price, count in zip(PRICES, kept, strict=True))
    energy *= 1.0 if unit == "relative" else 2.3e-7
    size = 48 + round(4.3 * sum(kept)) if density else 48 + 4 * PARAMETERS
    return ClientResult(
        partition=part,
        examples=140 + part,
        bytes_up=size,
        bytes_down=4 * PARAMETERS + 60,
        charges=(
            Charge("header", energy * 0.01, unit, "modelled", 48),
            Charge("kept", energy, unit, "modelled", size - 48),
            Charge("downlink", 0.1 * PARAMETERS * (1.0 if unit == "relative" else 2e-8), unit, "modelled", size),
        ),
        kept_by_tensor=kept,
        parameters=PARAMETERS,
        delta=0.5,
        contrast=10.0,
    )


def _kept(rule: str, density: float | None, rng: np.random.Generator) -> tuple[int, ...]:
    if density is None:
        return SIZES
    count = math.floor(density * PARAMETERS)
    weights = np.array(
        [size * (LEANING[rule] if price == 1 else 1.0) for size, price in zip(SIZES, PRICES, strict=True)]
    )
    shares = weights * rng.uniform(0.9, 1.1, len(SIZES))
    kept = np.minimum(np.floor(count * shares / shares.sum()), SIZES).astype(int)
    kept[-2] += count - kept.sum()  # the largest tensor takes the rest, so that every rule keeps the same number
    return tuple(kept.tolist())
