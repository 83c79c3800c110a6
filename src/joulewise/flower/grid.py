"""A Grid that decodes replies, puts them in order, acknowledges them and keeps the books."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import msgspec
import numpy as np
from flwr.app import ArrayRecord, ConfigRecord, Message, RecordDict
from flwr.serverapp import Grid

from joulewise.codec import decode
from joulewise.errors import FederationError, JoulewiseError
from joulewise.flower import wire
from joulewise.flower.averaging import Touched
from joulewise.flower.downlink import Downlink, Setting
from joulewise.flower.received import Base
from joulewise.layout import Kind
from joulewise.results import ClientResult


class SparseGrid(Grid):
    """Wraps any Grid: compressed replies come out as arrays of the model, so that every strategy can take them.

    An array is made dense when it is asked for; an averaging strategy thus holds one dense tensor at a time,
    and for each client only what it sent.

    Replies are sorted by partition, which makes the order of floating-point sums the same on every engine. A
    reply counts as accepted when `accept` is called with the arrays that an aggregation returned; the next
    train request of its node says so, and what was not accepted goes back into the node's residual.

    Args:
        grid: the Grid that moves messages.
        kinds: the same as in `Sparsify`.
        downlink: ``lossless``: a node that holds an earlier model is sent what changed since, bit for bit; ``off``: it
            is sent whole models; `Lossy`: nodes train on a public model that follows in its largest differences.
            Nodes without `Sparsify` are sent whole models in any case.

    Attributes:
        feedback: whether a client has said that it remembers what it did not send.
        downlink: what nodes hold; its ``downloads`` are the models that the last call sent, with their bytes.
    """

    def __init__(self, grid: Grid, kinds: dict[str, Kind] | None = None, downlink: Setting = "lossless") -> None:
        self._grid = grid
        self.downlink = Downlink(downlink, kinds or {})
        self._kinds = dict(kinds or {})
        self._accepted: dict[int, int] = {}
        self._waiting: dict[int, int] = {}
        self._results: list[ClientResult] = []
        self._types: dict[str, np.dtype[Any]] = {}
        self._touched = Touched()
        self.feedback = False

    def send_and_receive(self, messages: Iterable[Message], *, timeout: float | None = None) -> list[Message]:
        """Send requests, wait, and return the replies as arrays of the model, by partition.

        A train reply that cannot be decoded is an error: nothing of it enters an aggregation. A reply to
        something else than these requests comes too late and is left out, as is a second reply to one.

        Raises:
            FederationError: a payload is damaged, or the Grid gives messages no id.
        """
        requests = [self._addressed(message) for message in messages]
        requests, replies = self.downlink.exchange(self._grid, requests, timeout)
        self._waiting, before = {}, list(self._results)
        self._touched = Touched()
        try:
            return self._in_order(requests, replies)
        except BaseException:  # None of these replies enters an aggregation, nor the books.
            self._waiting, self._results = {}, before
            raise

    def _in_order(self, requests: list[Message], replies: list[Message]) -> list[Message]:
        by_id = {request.metadata.message_id: request for request in requests}
        bases: dict[int, Base] = {}
        order = []
        for reply in replies:
            if not reply.metadata.reply_to_message_id:
                raise FederationError(
                    "a reply does not say which request it answers; the Grid must give messages an id"
                )
            request = by_id.pop(reply.metadata.reply_to_message_id, None)
            if request is None:
                continue
            partition = None
            if wire.is_train(request) and wire.is_train(reply):
                partition = self._decode(request, reply, bases)
            order.append((partition is None, partition or 0, reply.metadata.src_node_id, reply))
        return [entry[-1] for entry in sorted(order, key=lambda entry: entry[:-1])]

    def accept(self, arrays: ArrayRecord, *, averaged: bool = False) -> ArrayRecord:
        """Say that an aggregation returned these arrays: the replies of this round are used.

        Args:
            arrays: what it returned.
            averaged: whether they are a weighted mean of the replies, as FedAvg's. Then coordinates that no reply has
                touched keep their bits, which rounding would change.

        Returns:
            The arrays in the element types that were sent to the clients; averaging turns whole numbers, such
            as batch-norm counters, into float64.
        """
        self._accepted |= self._waiting
        self._waiting = {}
        touched, self._touched = self._touched, Touched()
        named = wire.to_numpy(arrays)
        cast = {name: _cast(array, self._types.get(name)) for name, array in named.items()}
        cast = touched.restored(cast) if averaged else cast
        return arrays if all(cast[name] is named[name] for name in named) else wire.to_record(cast)

    def take_results(self) -> tuple[ClientResult, ...]:
        """What the clients did since the last call, by partition."""
        results = tuple(sorted(self._results, key=lambda result: result.partition))
        self._results = []
        return results

    @property
    def accepted(self) -> dict[int, int]:
        """Number of the last accepted reply of each node."""
        return dict(self._accepted)

    def remember(self, accepted: dict[int, int]) -> None:
        """Take up the accepted numbers of an earlier run that goes on."""
        self._accepted = dict(accepted)

    def _addressed(self, message: Message) -> Message:
        """The request with this node's accepted number; strategies share one record between all nodes."""
        if not wire.is_train(message):
            return message
        node, content = message.metadata.dst_node_id, message.content
        base = wire.only_arrays(content)
        if base is not None and base.keys() != self._types.keys():
            self._types = {name: array.dtype for name, array in wire.to_numpy(base).items()}
        if node not in self._accepted:
            return message
        # Some of Flower's mods want exactly one ConfigRecord, so one is made only where there is none.
        key, config = next(iter(content.config_records.items()), (wire.RECORD, ConfigRecord()))
        own = config.copy()
        own[wire.ACCEPTED] = self._accepted[node]
        message.content = RecordDict({**content, key: own})
        return message

    def _decode(self, request: Message, reply: Message, bases: dict[int, Base]) -> int | None:
        record = wire.only_arrays(request.content)
        node = request.metadata.dst_node_id
        try:
            sent = wire.read(reply.content)
            if sent is None or record is None:
                self._touched.add_everything()
                self.downlink.refuse_whole(node)
                return None
            base = bases.get(id(record)) or bases.setdefault(id(record), Base.of(record, self._kinds))
            decoded = decode(sent.payload, base.layout)
            added = base.plus(decoded)
        except JoulewiseError as error:
            raise FederationError(f"the reply of node {node} cannot be used: {error}") from error
        reply.content[wire.array_key(reply.content)] = added
        del reply.content[wire.RECORD]
        self._waiting[node] = sent.sequence
        self._touched.add(base, decoded)
        self.feedback = self.feedback or sent.feedback
        # Bytes are what arrived and what was sent here, whatever the node says.
        counted = {"bytes_up": len(sent.payload), "bytes_down": self.downlink.book(node)}
        self._results.append(msgspec.structs.replace(sent.result, **counted))
        return sent.result.partition

    # What follows hands over to the Grid within.

    def set_run(self, run: Any) -> None:
        """As the Grid within."""
        self._grid.set_run(run)

    @property
    def run(self) -> Any:
        """As the Grid within."""
        return self._grid.run

    def create_message(self, *args: Any, **kwargs: Any) -> Message:
        """As the Grid within."""
        return self._grid.create_message(*args, **kwargs)

    def get_node_ids(self) -> Iterable[int]:
        """As the Grid within."""
        return self._grid.get_node_ids()

    def push_messages(self, messages: Iterable[Message]) -> Iterable[str]:
        """As the Grid within; use `send_and_receive`, which decodes."""
        return self._grid.push_messages(messages)

    def pull_messages(self, message_ids: Iterable[str]) -> Iterable[Message]:
        """As the Grid within; use `send_and_receive`, which decodes."""
        return self._grid.pull_messages(message_ids)


def _cast(array: np.ndarray[Any, Any], dtype: np.dtype[Any] | None) -> np.ndarray[Any, Any]:
    if dtype is None or array.dtype == dtype:
        return array
    return (np.rint(array) if dtype.kind in "iu" else array).astype(dtype)
