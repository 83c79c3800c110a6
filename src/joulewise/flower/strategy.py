"""The strategy wrapper for Flower apps: one line around the strategy that is there."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from flwr.app import ArrayRecord, ConfigRecord, Message, MetricRecord
from flwr.serverapp import Grid
from flwr.serverapp.strategy import Result, Strategy

from joulewise.errors import FederationError
from joulewise.flower.grid import SparseGrid


class Sparse(Strategy):
    """Lets a strategy work with clients that use `Sparsify`.

    Args:
        strategy: any strategy that averages all replies.

    Example:
        >>> from flwr.serverapp.strategy import FedAvg
        >>> strategy = Sparse(FedAvg(fraction_evaluate=0.5))
    """

    def __init__(self, strategy: Strategy) -> None:
        self.strategy = strategy

    def configure_train(
        self, server_round: int, arrays: ArrayRecord, config: ConfigRecord, grid: Grid
    ) -> Iterable[Message]:
        """As the strategy within."""
        if not isinstance(grid, SparseGrid):
            raise FederationError(
                "Sparse needs a SparseGrid: call strategy.start(grid, ...), or wrap the grid of your own "
                "loop in joulewise.flower.SparseGrid(grid)"
            )
        self._grid = grid
        return self.strategy.configure_train(server_round, arrays, config, grid)

    def aggregate_train(
        self, server_round: int, replies: Iterable[Message]
    ) -> tuple[ArrayRecord | None, MetricRecord | None]:
        """As the strategy within; where it returns arrays, the replies count as accepted."""
        arrays, metrics = self.strategy.aggregate_train(server_round, replies)
        return (None if arrays is None else self._grid.accept(arrays)), metrics

    def configure_evaluate(
        self, server_round: int, arrays: ArrayRecord, config: ConfigRecord, grid: Grid
    ) -> Iterable[Message]:
        """As the strategy within."""
        return self.strategy.configure_evaluate(server_round, arrays, config, grid)

    def aggregate_evaluate(self, server_round: int, replies: Iterable[Message]) -> MetricRecord | None:
        """As the strategy within."""
        return self.strategy.aggregate_evaluate(server_round, replies)

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
        evaluate_fn: Callable[[int, ArrayRecord], MetricRecord | None] | None = None,
    ) -> Result:
        """Run the federation, with replies decoded on the way."""
        sparse = grid if isinstance(grid, SparseGrid) else SparseGrid(grid)
        return super().start(sparse, initial_arrays, num_rounds, timeout, train_config, evaluate_config, evaluate_fn)
