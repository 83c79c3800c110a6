"""The one round loop of studies: a generator over a strategy's public hooks."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass

import numpy as np
from flwr.app import ArrayRecord, ConfigRecord, Message, RecordDict
from flwr.serverapp import Grid
from flwr.serverapp.strategy import Strategy

from joulewise.errors import FederationError
from joulewise.fleet import Allocation
from joulewise.flower import checked, orders
from joulewise.flower.averaging import averages_only
from joulewise.flower.charging import Cap, Charger, Due, Stand
from joulewise.flower.downlink import Setting
from joulewise.flower.grid import SparseGrid
from joulewise.results import ClientResult, Skipped

WHO = "query.partition"


@dataclass(frozen=True, slots=True, eq=False)
class Round:
    """One finished round: its number, the new model, what the clients did, who skipped it, and where all stand."""

    number: int
    arrays: ArrayRecord
    clients: tuple[ClientResult, ...]
    skipped: tuple[Skipped, ...] = ()
    stand: Stand = Stand()  # noqa: RUF009 (a frozen record)


class Invited(SparseGrid):
    """A SparseGrid on which a strategy sees only the nodes of this round."""

    def __init__(self, grid: Grid, downlink: Setting = "off", allocation: Allocation | None = None) -> None:
        super().__init__(grid, downlink=downlink, pricing=None, allocation=allocation)
        self.inner = grid
        self.invited: tuple[int, ...] = ()
        self.caps: Mapping[int, Cap] = {}

    def invite(self, due: Due) -> None:
        """Only these nodes take part in the next round, under their caps."""
        self.invited, self.caps = due.joining, due.caps

    def get_node_ids(self) -> Iterable[int]:
        """The nodes of this round."""
        return self.invited

    def take_worths(self) -> dict[int, float | None]:
        """Value per joule of what each client has kept last, where it said so; to be asked for before its results."""
        said = {client: orders.heard(text, b"")[0] for client, text in self._books.said().items()}
        return {client: None if each is None else each.margin for client, each in said.items()}

    def _within(self, node: int, order: str | None) -> str | None:
        """An order, or none, as its node's battery allows it."""
        cap = self.caps.get(node)
        return order if cap is None else orders.capped(order, cap.most_j, cap.least_price).text()


def play(  # noqa: PLR0913, PLR0917 (all that a run consists of)
    strategy: Strategy,
    grid: Invited,
    arrays: ArrayRecord,
    numbers: Iterable[int],
    guests: Mapping[int, tuple[int, ...]],
    charger: Charger | None = None,
    stand: Stand = Stand(),  # noqa: B008 (a frozen record)
) -> Iterator[Round]:
    """Run rounds one after another and yield each when it is done. One that all skip leaves the model as it is.

    Args:
        strategy: trains on all nodes that it sees.
        grid: over an engine.
        arrays: the model at the start.
        numbers: of the rounds, ascending; an interrupted run goes on with the number after its last.
        guests: the nodes of each round.
        charger: who of them joins; None for all.
        stand: where their batteries stand at the start.

    Raises:
        FederationError: a client failed, or no arrays came out of a round.
    """
    for number in numbers:
        nodes = guests[number]
        due = Due(number, stand, nodes) if charger is None else charger.invite(number, stand, nodes)
        grid.invite(due)
        if due.joining:
            arrays = _trained(strategy, grid, arrays, number)
        worths, clients = grid.take_worths(), grid.take_results()
        if charger is not None:
            stand, clients = charger.settle(due, clients, worths)
        yield Round(number, arrays, clients, due.skipped, stand)


def _trained(strategy: Strategy, grid: Invited, arrays: ArrayRecord, number: int) -> ArrayRecord:
    """The model after the clients of a round have trained."""
    requests = strategy.configure_train(number, arrays, ConfigRecord(), grid)
    replies = grid.send_and_receive(requests)
    _raise_for_errors(number, replies)
    aggregated, _ = strategy.aggregate_train(number, replies)
    if aggregated is None:
        raise FederationError(f"round {number} gave no model: the strategy returned no arrays")
    grid.take_exchanges()  # A study's rows are made of results.
    return grid.accept(aggregated, averaged=averages_only(strategy))


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
