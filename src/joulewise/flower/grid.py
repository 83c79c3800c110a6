"""A Grid that decodes replies, checks them, puts them in order, acknowledges them and keeps the books."""

from __future__ import annotations

import logging
import threading
from collections import Counter
from collections.abc import Iterable
from dataclasses import replace
from typing import Any
from weakref import WeakKeyDictionary

import msgspec
import numpy as np
from flwr.app import Array, ArrayRecord, ConfigRecord, Message
from flwr.serverapp import Grid

from joulewise.codec import Decoded, decode
from joulewise.errors import JoulewiseError, PayloadError
from joulewise.flower import checked, local, wire
from joulewise.flower.averaging import Touched
from joulewise.flower.checked import Expected
from joulewise.flower.downlink import Downlink, Setting
from joulewise.flower.metering import Crossed, Exchange, Pricing
from joulewise.flower.notes import ACCEPTED, noted
from joulewise.flower.parcels import Booked, Download
from joulewise.flower.received import Base
from joulewise.layout import Kind
from joulewise.results import ClientResult

Bases = dict[tuple[int, tuple[str, ...]], Base]
"""What replies are added to, by the record that was sent and by what stayed on the client."""

MOST_BOOKED = 100_000
"""Replies that are remembered where nobody takes the books."""

_ACCEPTED: WeakKeyDictionary[Grid, dict[int, int]] = WeakKeyDictionary()
"""By the Grid that moves messages: nodes go on with what they hold where a second strategy starts on it."""

_log = logging.getLogger("joulewise")


class SparseGrid(Grid):
    """Wraps any Grid: compressed replies come out as arrays of the model, so that every strategy can take them.

    An array is made dense when it is asked for; an averaging strategy thus holds one dense tensor at a time,
    and for each client only what it sent.

    Replies are sorted by partition, which makes the order of floating-point sums the same on every engine. A
    reply counts as accepted when `accept` is called with the arrays that an aggregation returned; the next
    train request of its node says so, and what was not accepted goes back into the node's residual.

    A reply that cannot be used never stops a round. It becomes an error reply to its request, and the log
    (``joulewise``) says which node sent it and why it was left out.

    Args:
        grid: the Grid that moves messages.
        kinds: the same as in `Sparsify`.
        downlink: ``lossless``: a node that holds an earlier model is sent what changed since, bit for bit; ``off``: it
            is sent whole models; `Lossy`: nodes train on a public model that follows in its largest differences.
            Nodes without `Sparsify` are sent whole models in any case.
        most_payload_bytes: a larger payload is refused; None for what the model's largest payload could have.
        pricing: devices that the server knows, to work out itself what replies cost; None to believe the nodes, as a
            study may, whose clients run its own code.

    Attributes:
        feedback: whether a client has said that it remembers what it did not send.
        downlink: what nodes hold; its ``downloads`` are the models that the last call sent, with their bytes.
        expected: what the metrics of replies must hold; `Sparse` takes it from its strategy.
    """

    def __init__(
        self,
        grid: Grid,
        kinds: dict[str, Kind] | None = None,
        *,
        downlink: Setting = "lossless",
        most_payload_bytes: int | None = None,
        pricing: Pricing | None = Pricing(),  # noqa: B008 (a frozen record)
    ) -> None:
        self._grid = grid
        self.downlink = Downlink(downlink, kinds or {})
        self._kinds = dict(kinds or {})
        self._most_payload_bytes = most_payload_bytes
        self._pricing = pricing
        self._exchanges: list[Exchange] = []
        self._labels: list[tuple[str, str]] = []
        self._accepted = _accepted_over(grid)
        self._waiting: dict[int, int] = {}
        self._results: list[ClientResult] = []
        self._types: dict[str, np.dtype[Any]] = {}
        self._touched = Touched()
        self._stayed: dict[str, Array] | None = None  # what no node of the round has sent, as it was sent to them
        self._lock = threading.Lock()  # Legacy servers ask each client from a thread of its own.
        self._batch: object = None  # what the train requests since the last `accept` belong to
        self.feedback = False
        self.expected = Expected()

    def send_and_receive(self, messages: Iterable[Message], *, timeout: float | None = None) -> list[Message]:
        """Send requests, wait, and return the replies as arrays of the model, by partition.

        Train requests of one round may go out in several calls before `accept`, each node in one of them; requests for
        evaluation and queries in between change nothing.

        A reply that is damaged, of another model or version, not finite, too large or too old is an error reply
        when it comes out: nothing of it enters an aggregation. A reply to something else than these requests comes
        too late and is left out, as is a second reply to one.

        Raises:
            FederationError: the Grid gives messages no id.
        """
        with self._lock:
            requests = [self._addressed(message) for message in messages]
        requests, replies, downloads = self.downlink.exchange(self._grid, requests, timeout)
        with self._lock:
            self._begin(next((request for request in requests if wire.is_train(request)), None))
            return self._in_order(requests, replies, downloads)

    def _begin(self, request: Message | None) -> None:
        """Where train requests belong to another round than those before, what waited for `accept` was not used."""
        if request is None:
            return
        number = next((record["server-round"] for record in _configs(request) if "server-round" in record), None)
        batch = wire.only_arrays(request.content) if number is None else number
        if self._batch is None or (batch is not self._batch and batch != self._batch):
            self._waiting, self._stayed, self._touched = {}, None, Touched()
        self._batch = batch

    def _in_order(
        self, requests: list[Message], replies: list[Message], downloads: tuple[Download, ...]
    ) -> list[Message]:
        pairs = checked.paired(requests, replies)
        problems = self._problems(pairs)
        asked = Counter(request.metadata.dst_node_id for request in requests if wire.is_train(request))
        asked.update(self._waiting)  # by an earlier call of this round
        crossed = Crossed(downloads)
        bases: Bases = {}
        order = []
        for at, (request, reply) in pairs.items():
            partition, node, answer = None, request.metadata.dst_node_id, reply
            exchange = crossed.exchange(request, reply)
            try:
                if at in problems:
                    raise PayloadError(problems[at])
                if reply.has_error():
                    answer = checked.failed(request, reply)
                elif reply.metadata.src_node_id != node:
                    raise PayloadError(f"it came from node {reply.metadata.src_node_id}, which was not asked")
                elif wire.is_train(request):
                    partition = self._take(request, reply, bases, asked[node] > 1)
            except JoulewiseError as error:
                _log.warning("node %d: its reply is left out: %s", node, error)
                answer = checked.refusal(request, str(error))
            self._exchanges.append(replace(exchange, refused=answer.has_error()))
            order.append((partition is None, partition or 0, node, answer))
        unheard = [request for request in requests if request.metadata.message_id not in pairs]
        self._exchanges += [crossed.exchange(request, None) for request in unheard]
        for books in (self._exchanges, self._labels, self._results):
            del books[:-MOST_BOOKED]  # For whoever never takes them.
        return [entry[-1] for entry in sorted(order, key=lambda entry: entry[:-1])]

    def accept(self, arrays: ArrayRecord, *, averaged: bool = False) -> ArrayRecord:
        """Say that an aggregation returned these arrays: the replies of this round are used.

        Args:
            arrays: what it returned.
            averaged: whether they are a weighted mean of the replies, as FedAvg's. Then coordinates that no reply has
                touched keep their bits, which rounding would change.

        Returns:
            The arrays in the element types that were sent to the clients; averaging turns whole numbers, such
            as batch-norm counters, into float64. Tensors that stayed on every client are as they were.
        """
        self._accepted.update(self._waiting)
        self._waiting, self._batch = {}, None
        touched, self._touched = self._touched, Touched()
        arrays = local.restored(arrays, self._stayed or {})
        named = wire.to_numpy(arrays)
        cast = {name: _cast(array, self._types.get(name)) for name, array in named.items()}
        cast = touched.restored(cast) if averaged else cast
        return arrays if all(cast[name] is named[name] for name in named) else wire.to_record(cast)

    def discard(self) -> None:
        """Say that an aggregation returned nothing: the replies of this round are not used."""
        self._waiting, self._batch = {}, None

    def take_results(self) -> tuple[ClientResult, ...]:
        """What the clients did since the last call, by partition."""
        results = tuple(sorted(self._results, key=lambda result: result.partition))
        self._results = []
        return results

    def take_exchanges(self) -> tuple[tuple[Exchange, ...], tuple[tuple[str, str], ...]]:
        """What crossed since the last call, refused replies included; and the rules and budgets of compressed ones."""
        taken = tuple(self._exchanges), tuple(self._labels)
        self._exchanges, self._labels = [], []
        return taken

    @property
    def accepted(self) -> dict[int, int]:
        """Number of the last accepted reply of each node."""
        return dict(self._accepted)

    def remember(self, accepted: dict[int, int]) -> None:
        """Take up the accepted numbers of an earlier run that goes on."""
        self._accepted.clear()
        self._accepted.update(accepted)

    def _addressed(self, message: Message) -> Message:
        """The request with this node's accepted number; strategies share one record between all nodes."""
        if not wire.is_train(message):
            return message
        node, content = message.metadata.dst_node_id, message.content
        base = wire.only_arrays(content)
        if base is not None and base.keys() != self._types.keys():
            self._types = wire.types_of(base)
        if node not in self._accepted:
            return message
        message.content = noted(content, {ACCEPTED: self._accepted[node]}, create=True)
        return message

    def _problems(self, pairs: dict[str, tuple[Message, Message]]) -> dict[str, str]:
        """What is wrong with the metrics of replies, by the id of the request."""
        found: dict[str, str] = {}
        for kind in ("train", "evaluate"):
            own = {
                at: reply
                for at, (request, reply) in pairs.items()
                if wire.is_kind(request, kind) and reply.has_content()
            }
            found |= checked.metric_problems(own, self.expected)
        return found

    def _take(self, request: Message, reply: Message, bases: Bases, again: bool) -> int | None:
        """Check a train reply and put the client's arrays into it; its partition, where it says which it is.

        Raises:
            PayloadError: the reply cannot be used; the sentence begins with what is wrong, not with the node.
        """
        record, sent = wire.only_arrays(request.content), wire.read(reply.content)
        if sent is None or record is None:
            checked.check_dense(record, reply)
            self.downlink.refuse_whole(request.metadata.dst_node_id)
            self._touched.add_everything()
            self._stayed = {}
            return None
        at = id(record), sent.local
        base = bases.get(at) or bases.setdefault(
            at, Base.of(record, local.kinds_with(sent.local, record, self._kinds) if sent.local else self._kinds)
        )
        node = request.metadata.dst_node_id
        checked.check_size(sent, base.layout, self._most_payload_bytes)
        checked.check_number(sent, self._accepted.get(node, 0))
        if again and sent.feedback:
            raise PayloadError(
                "the node was asked to train twice in one round, so that with error feedback it would be counted "
                "twice; ask each node once, or use Sparsify(feedback=None)"
            )
        if sent.feedback and wire.LEGACY in request.content and self.expected.weight is None:
            raise PayloadError(
                "legacy strategies do not say which replies they use, so error feedback would send everything twice; "
                "use Sparsify(feedback=None), or a strategy of flwr.serverapp"
            )
        decoded = decode(sent.payload, base.layout)
        added = base.plus(decoded)
        self._note(request, sent, base, record)
        self._touched.add(base, decoded)
        booked = self.downlink.book(node)
        self._results.append(self._result(sent, decoded, base, booked, checked.examples(reply)))
        self.downlink.watch(node, self._pricing is not None and self._pricing.in_flash(sent.device))
        reply.content[wire.array_key(reply.content)] = added
        del reply.content[wire.RECORD]
        return sent.result.partition

    def _note(self, request: Message, sent: wire.Reply, base: Base, record: ArrayRecord) -> None:
        stayed = {tensor.name: record[tensor.name] for tensor in base.layout.locals}
        before = stayed if self._stayed is None else self._stayed
        self._stayed = {name: array for name, array in stayed.items() if name in before}
        self._waiting[request.metadata.dst_node_id] = sent.sequence
        self.feedback = self.feedback or sent.feedback
        self._labels.append((sent.rule, sent.budget))

    def _result(self, sent: wire.Reply, decoded: Decoded, base: Base, booked: Booked, examples: int) -> ClientResult:
        if self._pricing is not None:
            return self._pricing.checked(sent, decoded, base.layout, booked, examples)
        # Bytes are what arrived and what was sent here, whatever the node says.
        return msgspec.structs.replace(sent.result, bytes_up=len(sent.payload), bytes_down=booked.size)

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


def _accepted_over(grid: Grid) -> dict[int, int]:
    try:
        return _ACCEPTED.setdefault(grid, {})
    except TypeError:  # A Grid that cannot be referred to weakly, or has no hash.
        return {}


def _configs(request: Message) -> Iterable[ConfigRecord]:
    return request.content.config_records.values()


def _cast(array: np.ndarray[Any, Any], dtype: np.dtype[Any] | None) -> np.ndarray[Any, Any]:
    if dtype is None or array.dtype == dtype:
        return array
    return (np.rint(array) if dtype.kind in "iu" else array).astype(dtype)
