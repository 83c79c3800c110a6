"""The one round loop of studies: a generator over a strategy's public hooks."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import numpy as np
from flwr.app import ArrayRecord, ConfigRecord, Message, RecordDict
from flwr.serverapp import Grid
from flwr.serverapp.strategy import Strategy

from joulewise.errors import FederationError
from joulewise.fleet import Allocation
from joulewise.flower import checked
from joulewise.flower.averaging import averages_only
from joulewise.flower.downlink import Setting
from joulewise.flower.grid import SparseGrid
from joulewise.results import ClientResult

WHO = "query.partition"


@dataclass(frozen=True, slots=True, eq=False)
class Round:
    """One finished round: its number, the new model, and what the clients did."""

    number: int
    arrays: ArrayRecord
    clients: tuple[ClientResult, ...]


class Invited(SparseGrid):
    """A SparseGrid on which a strategy sees only the nodes of this round."""

    def __init__(self, grid: Grid, downlink: Setting = "off", allocation: Allocation | None = None) -> None:
        super().__init__(grid, downlink=downlink, pricing=None, allocation=allocation)
        self.inner = grid
        self.invited: tuple[int, ...] = ()

    def get_node_ids(self) -> Iterable[int]:
        """The nodes of this round."""
        return self.invited


def play(
    strategy: Strategy,
    grid: Invited,
    arrays: ArrayRecord,
    numbers: Iterable[int],
    guests: dict[int, tuple[int, ...]],
) -> Iterator[Round]:
    """Run rounds one after another and yield each when it is done.

    Args:
        strategy: trains on all nodes that it sees.
        grid: over an engine.
        arrays: the model at the start.
        numbers: of the rounds, ascending; an interrupted run goes on with the number after its last.
        guests: the nodes of each round.

    Raises:
        FederationError: a client failed, or no arrays came out of a round.
    """
    for number in numbers:
        grid.invited = guests[number]
        requests = strategy.configure_train(number, arrays, ConfigRecord(), grid)
        replies = grid.send_and_receive(requests)
        _raise_for_errors(number, replies)
        aggregated, _ = strategy.aggregate_train(number, replies)
        if aggregated is None:
            raise FederationError(f"round {number} gave no model: the strategy returned no arrays")
        arrays = grid.accept(aggregated, averaged=averages_only(strategy))
        grid.take_exchanges()  # A study's rows are made of results.
        yield Round(number, arrays, grid.take_results())


def roster(grid: Grid, nodes: int, patience_s: float = 0.0) -> dict[int, int]:
    """Ask every node for its partition: node id by partition. Ids differ between engines, partitions do not.

    Args:
        grid: over an engine.
        nodes: how many there must be.
        patience_s: how long to wait for all to come up; Flower starts a server before its nodes.

    Raises:
        FederationError: fewer than `nodes` nodes answer.
    """
    deadline = time.monotonic() + patience_s
    while len(ids := sorted(grid.get_node_ids())) < nodes and time.monotonic() < deadline:
        time.sleep(0.02)
    questions = [Message(RecordDict(), dst_node_id=node, message_type=WHO) for node in ids]
    replies = list(grid.send_and_receive(questions))
    _raise_for_errors(0, replies)
    found = {int(str(reply.content.config_records["node"]["partition"])): reply for reply in replies}
    if sorted(found) != list(range(nodes)):
        raise FederationError(f"{nodes} clients were expected, but partitions {sorted(found)} answered")
    return {partition: reply.metadata.src_node_id for partition, reply in sorted(found.items())}


def participants(seed: int, number: int, clients: int, fraction: float) -> tuple[int, ...]:
    """Partitions that take part in a round: drawn from ``default_rng([seed, round])``, in ascending order.

    Example:
        >>> participants(seed=0, number=1, clients=10, fraction=0.3)
        (4, 8, 9)
    """
    wanted = max(1, round(fraction * clients))
    if wanted >= clients:
        return tuple(range(clients))
    drawn = np.random.default_rng([seed, number]).choice(clients, wanted, replace=False)
    return tuple(sorted(drawn.tolist()))


def _raise_for_errors(number: int, replies: Iterable[Message]) -> None:
    for reply in replies:
        if reply.has_error():
            reason, node = checked.told(str(reply.error.reason)), reply.metadata.src_node_id
            raise FederationError(f"round {number}: node {node} failed: {reason}") from None
