"""Rounds of a Flower app as rows that ``joulewise report`` reads, like those of a study."""

from __future__ import annotations

import logging
import math
import platform
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from importlib import metadata
from pathlib import Path

import msgspec
from flwr.app import MetricRecord

import joulewise
from joulewise import rowfile
from joulewise.results import ClientResult, Origin, Row, ServerResult, Timing

ACCURACIES = ("accuracy", "eval_acc", "eval-accuracy", "eval_accuracy", "acc")
LOSSES = ("loss", "eval_loss", "eval-loss")


@dataclass(frozen=True, slots=True)
class Rows:
    """Where rounds are written, and under which name.

    Args:
        folder: of ``rows.jsonl``; made when missing.
        study: name of the series in a report.
        arm: label of this run in it; None for the rule and budget that the nodes go by.
        seed: sets runs of one arm apart.
        accuracy: the metric that says how good the model is, from ``evaluate_fn`` or from the clients' evaluation; None
            for the usual names.

    Example:
        >>> Rows("runs/phones", arm="phones, CWMP").study
        'flower'
    """

    folder: str | Path
    study: str = "flower"
    arm: str | None = None
    seed: int = 0
    accuracy: str | None = None


@dataclass(slots=True)
class Writer:
    """Collects what there is to say of a round, and writes its row."""

    rows: Rows
    number: int | None = None
    clients: tuple[ClientResult, ...] = ()
    labels: tuple[tuple[str, str], ...] = ()
    metrics: dict[str, float] = field(default_factory=dict)
    began: float = field(default_factory=time.perf_counter)
    warned: bool = False

    def trained(self, number: int, clients: tuple[ClientResult, ...], labels: Sequence[tuple[str, str]]) -> None:
        """A round was aggregated."""
        self.number, self.clients, self.labels, self.metrics = number, clients, tuple(labels), {}

    def evaluated(self, metrics: MetricRecord | None) -> None:
        """The model after the round was evaluated; what came last counts."""
        self.metrics |= {
            name: float(value) for name, value in (metrics or {}).items() if isinstance(value, int | float)
        }

    def write(self) -> None:
        """Append the row of the round, where its accuracy is known.

        Raises:
            OutputError: the file cannot be written.
        """
        if self.number is None:
            return
        number, self.number = self.number, None
        seconds, self.began = time.perf_counter() - self.began, time.perf_counter()
        accuracy = self._first(ACCURACIES if self.rows.accuracy is None else (self.rows.accuracy,))
        if accuracy is None or not 0 <= accuracy <= 1:
            self._warn(number, accuracy)
            return
        path = Path(self.rows.folder) / rowfile.FILE_NAME
        rowfile.append(path, self._row(number, ServerResult(accuracy, self._first(LOSSES)), seconds))

    def _row(self, number: int, server: ServerResult, seconds: float) -> Row:
        (rule, budget), _ = Counter(self.labels).most_common(1)[0] if self.labels else (("none", ""), 0)
        units = Counter(charge.unit for client in self.clients for charge in client.charges)
        unit = units.most_common(1)[0][0] if units else "J"
        started = datetime.now(UTC) - timedelta(seconds=seconds)
        return Row(
            study=self.rows.study,
            arm=self.rows.arm or " ".join(part for part in (rule, budget) if part),
            rule=rule,
            budget=budget,
            seed=self.rows.seed,
            round=number,
            server=server,
            clients=tuple(_in_unit(client, unit) for client in self.clients),
            energy_unit=unit,
            origin=_origin(),
            timing=Timing(seconds=seconds, started=started.isoformat(timespec="milliseconds")),
        )

    def _first(self, names: Sequence[str]) -> float | None:
        return next((self.metrics[name] for name in names if math.isfinite(self.metrics.get(name, math.nan))), None)

    def _warn(self, number: int, accuracy: float | None) -> None:
        if self.warned:
            return
        self.warned = True
        wanted = self.rows.accuracy or " or ".join(ACCURACIES[:2])
        came = f"metrics {sorted(self.metrics)}" if accuracy is None else f"{accuracy}"
        logging.getLogger("joulewise").warning(
            "round %d has no row: a row needs the metric %s from 0 to 1, but there is %s; return it from evaluate_fn "
            "or from the clients' evaluation, or name it with Rows(accuracy=...)",
            number,
            wanted,
            came,
        )


def _in_unit(client: ClientResult, unit: str) -> ClientResult:
    """Joules and relative units are never in one row: charges in another unit than most are left out."""
    if all(charge.unit == unit for charge in client.charges):
        return client
    return msgspec.structs.replace(client, charges=tuple(charge for charge in client.charges if charge.unit == unit))


def _origin() -> Origin:
    versions = {"joulewise": joulewise.__version__, "python": platform.python_version()}
    versions |= {name: metadata.version(name) for name in ("flwr", "numpy")}
    return Origin(versions=versions, commit=None, machine=platform.machine(), threads=1)
