"""Which of Flower's strategies a study takes, with its options."""

from __future__ import annotations

import inspect
from typing import Literal, get_args

import msgspec
from flwr.serverapp import strategy as strategies

from joulewise.allocations import Allocation, over
from joulewise.flower.allocable import refuse_dense, refuse_partial
from joulewise.flower.averaging import averages
from joulewise.flower.downlink import Setting

Averaging = Literal["FedAvg", "FedAvgM", "FedProx", "FedAdam", "FedYogi", "FedAdagrad"]
AVERAGING: tuple[Averaging, ...] = get_args(Averaging)

SETTLED = {"fraction_train": 1.0, "fraction_evaluate": 0.0, "min_train_nodes": 1, "min_available_nodes": 1}
"""A strategy trains on all nodes that it is shown; who is shown, and evaluation, are the study's."""


class StrategyChoice(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One of Flower's strategies that average all replies, and its options.

    Args:
        name: as in ``flwr.serverapp.strategy``.
        options: arguments of the strategy; ``fraction_train`` is the share of clients in each round.
        downlink: what clients are sent of a new model, as in `joulewise.flower.SparseGrid`.
        allocation: how the energy of a round's masks is divided among the clients, in the place of the arm's budget.
    """

    name: Averaging = "FedAvg"
    options: dict[str, float | int | bool] = {}
    downlink: Setting = "off"
    allocation: Allocation | None = None

    def __post_init__(self) -> None:
        known = set(inspect.signature(getattr(strategies, self.name)).parameters) - {"self"}
        unknown = sorted(set(self.options) - known)
        if unknown:
            raise ValueError(f"options has {unknown[0]!r}, which {self.name} does not take; it takes {sorted(known)}")
        settled = sorted(set(self.options) & SETTLED.keys() - {"fraction_train"})
        if settled:
            raise ValueError(f"options has {settled[0]!r}, which a study settles itself; leave it out")
        if not 0 < self.fraction <= 1:
            raise ValueError(f"options.fraction_train must be above 0 and at most 1, but is {self.fraction}")
        if self.allocation is not None:
            refuse_dense(self.allocation, self.downlink)
            refuse_partial(self.allocation, self.fraction, averages(getattr(strategies, self.name)))

    @property
    def fraction(self) -> float:
        """Share of the clients that take part in each round."""
        return float(self.options.get("fraction_train", 1.0))

    def allocation_over(self, rounds: int) -> Allocation | None:
        """The allocation of a run of so many rounds.

        Raises:
            RuleError: its course has fewer rounds, or gives a round a share above 1.
        """
        return None if self.allocation is None else over(self.allocation, rounds)

    def make(self) -> strategies.Strategy:
        """The strategy; it trains on all nodes that it is shown and leaves evaluation to the study."""
        made: strategies.Strategy = getattr(strategies, self.name)(**(dict(self.options) | SETTLED))
        return made

    def __hash__(self) -> int:
        return hash((self.name, tuple(sorted(self.options.items())), self.downlink, self.allocation))
