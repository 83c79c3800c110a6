"""The strategy wrapper for Flower apps: one line around the strategy that is there."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

from flwr.app import ArrayRecord, ConfigRecord, Message, MetricRecord
from flwr.serverapp import Grid
from flwr.serverapp.strategy import FedAvg, Result, Strategy

from joulewise.allocations import Allocation, over
from joulewise.errors import FederationError
from joulewise.flower.allocable import refuse_partial
from joulewise.flower.averaging import averages_only, begins_with_mean
from joulewise.flower.checked import Expected
from joulewise.flower.downlink import Setting, checked
from joulewise.flower.grid import SparseGrid
from joulewise.flower.metering import Pricing, sums
from joulewise.flower.rows import Rows, Writer

NOT_AVERAGING = frozenset({"Krum", "MultiKrum", "Bulyan", "FedMedian", "FedTrimmedAvg"})
TREES = frozenset({"FedXgbBagging", "FedXgbCyclic"})


Evaluate = Callable[[int, ArrayRecord], MetricRecord | None]


class Sparse(Strategy):
    """Lets a strategy work with clients that use `Sparsify`.

    Args:
        strategy: any strategy that averages all replies. One that drops or reorders replies (Krum, medians) sees
            mostly zeros in sparse updates: a warning says so, and error feedback is refused with it, because
            replies would count as used that are not.
        downlink: what nodes are sent of a new model, see `SparseGrid`: ``lossless``, ``off`` or `Lossy`. A `SparseGrid`
            that is handed to `start` has its own.
        averages: whether the strategy returns the weighted mean of its replies and nothing else, so that coordinates
            which nobody sent keep their bits. None: it does where `FedAvg.aggregate_train` runs; say True for a class
            of your own that returns what that method returns.
        most_payload_bytes: a larger payload of a node is refused; None for what the model's largest could have.
        pricing: devices that the server knows, beside those that come with joulewise.
        allocation: how the energy of a round's masks is divided among its nodes, in the place of their own budgets;
            None to leave that to them. A `SparseGrid` that is handed to `start` has its own.
        rows: a folder, or `Rows`, to which each round is written for ``joulewise report``; None for no rows.

    The aggregated train and evaluate metrics gain sums over nodes under ``joulewise.``: bytes and modelled joules.

    Example:
        >>> from flwr.serverapp.strategy import FedAvg
        >>> strategy = Sparse(FedAvg(fraction_evaluate=0.5))
    """

    def __init__(  # noqa: PLR0913 (one place for all settings of a user's one line)
        self,
        strategy: Strategy,
        *,
        downlink: Setting = "lossless",
        averages: bool | None = None,
        most_payload_bytes: int | None = None,
        pricing: Pricing = Pricing(),  # noqa: B008 (a frozen record)
        allocation: Allocation | None = None,
        rows: Rows | str | Path | None = None,
    ) -> None:
        self.strategy = strategy
        self._downlink = checked(downlink)
        self._averages = averages_only(strategy) if averages is None else averages
        self._most_payload_bytes = most_payload_bytes
        self._pricing = pricing
        self._allocation = allocation
        self._writer = None if rows is None else Writer(rows if isinstance(rows, Rows) else Rows(rows))
        self._evaluates_here = False
        if allocation is not None:
            self._refuse_partial(allocation)
        trees = next((name for name in _names(strategy) if name in TREES), None)
        if trees is not None:
            raise FederationError(
                f"{trees} joins trees, which have no coordinates to leave out; use it without Sparse and Sparsify"
            )
        self._robust = next((name for name in _names(strategy) if name in NOT_AVERAGING), None)
        if self._robust is not None:
            warnings.warn(
                f"{self._robust} does not average all replies, and sparse updates are mostly zeros: it will choose "
                "badly; use an averaging strategy such as FedAvg",
                stacklevel=2,
            )

    def configure_train(
        self, server_round: int, arrays: ArrayRecord, config: ConfigRecord, grid: Grid
    ) -> Iterable[Message]:
        """As the strategy within."""
        if not isinstance(grid, SparseGrid):
            raise FederationError(
                "Sparse needs a SparseGrid: call strategy.start(grid, ...), or wrap the grid of your own "
                "loop in joulewise.flower.SparseGrid(grid)"
            )
        if grid.allotter is not None:  # A grid of the user's own has its own allocation.
            self._refuse_partial(grid.allotter.allocation)
        self._grid = grid
        grid.expected = _expected(self.strategy)
        return self.strategy.configure_train(server_round, arrays, config, grid)

    def _refuse_partial(self, allocation: Allocation) -> None:
        fractions = [getattr(each, "fraction_train", 1.0) for each in _layers(self.strategy)]
        refuse_partial(allocation, min(fractions), self._averages)

    def aggregate_train(
        self, server_round: int, replies: Iterable[Message]
    ) -> tuple[ArrayRecord | None, MetricRecord | None]:
        """As the strategy within; where it returns arrays, the replies count as accepted."""
        if self._robust is not None and self._grid.feedback:
            raise FederationError(
                f"{self._robust} does not use all replies, so error feedback would lose what it leaves out; "
                "use Sparsify(feedback=None), or an averaging strategy"
            )
        if self._grid.estimates:
            self._refuse_estimates()
        arrays, metrics = self.strategy.aggregate_train(server_round, replies)
        results, (crossed, labels) = self._grid.take_results(), self._grid.take_exchanges()
        if self._writer is not None:
            self._writer.trained(server_round, results, labels)
        if arrays is None:
            self._grid.discard()
        accepted = None if arrays is None else self._grid.accept(arrays, averaged=self._averages)
        return accepted, _with(metrics, sums(crossed, results) if crossed else None)

    def _refuse_estimates(self) -> None:
        """With EF21 each reply shows the mean of all estimates: right for a strategy that begins with their mean."""
        wrapper = next((name for name in _names(self.strategy) if name.startswith("DifferentialPrivacy")), None)
        if wrapper is not None:
            raise FederationError(
                f"{wrapper} bounds what one reply changes, but with EF21 what a node has sent changes the model in "
                "every later round too; use ErrorFeedback(), or leave the wrapper out"
            )
        if not self._averages and not begins_with_mean(self.strategy):
            raise FederationError(
                f"{type(self.strategy).__name__} may do something else than average its replies, each of which shows "
                "with EF21 the mean of all estimates; use FedAvg, FedProx, FedAvgM, FedAdam, FedYogi or FedAdagrad, "
                "or ErrorFeedback(), or say Sparse(averages=True) of a class of your own that returns that average"
            )

    def configure_evaluate(
        self, server_round: int, arrays: ArrayRecord, config: ConfigRecord, grid: Grid
    ) -> Iterable[Message]:
        """As the strategy within."""
        return self.strategy.configure_evaluate(server_round, arrays, config, grid)

    def aggregate_evaluate(self, server_round: int, replies: Iterable[Message]) -> MetricRecord | None:
        """As the strategy within, with the bytes of the evaluation."""
        metrics = self.strategy.aggregate_evaluate(server_round, replies)
        crossed, _ = self._grid.take_exchanges()
        if self._writer is not None:
            self._writer.evaluated(metrics)
            if not self._evaluates_here:
                self._writer.write()
        return _with(metrics, sums(crossed) if crossed else None)

    def summary(self) -> None:
        """As the strategy within."""
        self.strategy.summary()

    def start(  # noqa: PLR0913, PLR0917 (Flower's signature)
        self,
        grid: Grid,
        initial_arrays: ArrayRecord,
        num_rounds: int = 3,
        timeout: float = 3600,
        train_config: ConfigRecord | None = None,
        evaluate_config: ConfigRecord | None = None,
        evaluate_fn: Evaluate | None = None,
    ) -> Result:
        """Run the federation, with replies decoded on the way."""
        sparse = (
            grid
            if isinstance(grid, SparseGrid)
            else SparseGrid(
                grid,
                downlink=self._downlink,
                most_payload_bytes=self._most_payload_bytes,
                pricing=self._pricing,
                allocation=None if self._allocation is None else over(self._allocation, num_rounds),
            )
        )
        sparse.discard()  # What a run that broke down has left open on the same grid.
        sparse.take_results()
        sparse.take_exchanges()
        self._evaluates_here = evaluate_fn is not None
        watched = None if evaluate_fn is None else self._watched(evaluate_fn)
        return super().start(sparse, initial_arrays, num_rounds, timeout, train_config, evaluate_config, watched)

    def _watched(self, evaluate_fn: Evaluate) -> Evaluate:
        def evaluate(server_round: int, arrays: ArrayRecord) -> MetricRecord | None:
            metrics = evaluate_fn(server_round, arrays)
            if self._writer is not None:
                self._writer.evaluated(metrics)
                self._writer.write()
            return metrics

        return evaluate


def _with(metrics: MetricRecord | None, own: MetricRecord | None) -> MetricRecord | None:
    """Metrics of a strategy with those of joulewise beside them."""
    if own is None:
        return metrics
    return MetricRecord({**(metrics or {}), **own})


def _expected(strategy: Strategy) -> Expected:
    """What the strategy that averages, within all wrappers, looks for in the metrics of replies."""
    inner: object = strategy
    while isinstance(further := getattr(inner, "strategy", None), Strategy):
        inner = further
    if not isinstance(inner, FedAvg):
        return Expected()
    loss = getattr(inner, "train_loss_key", None)
    return Expected(inner.weighted_by_key, () if loss is None else (loss,), alike=True)


def _names(strategy: object) -> Iterator[str]:
    """Class names of a strategy and of those that it wraps."""
    for each in _layers(strategy):
        yield from (kind.__name__ for kind in type(each).__mro__)


def _layers(strategy: object) -> Iterator[object]:
    """A strategy and those that it wraps, as Flower's differential-privacy wrappers do."""
    while strategy is not None:
        yield strategy
        strategy = getattr(strategy, "strategy", None)
