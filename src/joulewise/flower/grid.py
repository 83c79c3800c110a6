"""A Grid that decodes replies, checks them, puts them in order, acknowledges them and keeps the books."""

from __future__ import annotations

import contextlib
import logging
import threading
import time
from collections import Counter
from collections.abc import Iterable
from dataclasses import replace
from weakref import WeakKeyDictionary

from flwr.app import ArrayRecord, Message
from flwr.serverapp import Grid

from joulewise.codec import decode
from joulewise.errors import JoulewiseError, PayloadError, RuleError
from joulewise.fleet import Allocation
from joulewise.flower import allocable, asking, checked, local, summary, wire
from joulewise.flower.allotter import Allotter
from joulewise.flower.around import Around
from joulewise.flower.asking import Answers, Listener
from joulewise.flower.books import Books
from joulewise.flower.checked import Expected
from joulewise.flower.downlink import Downlink, Setting
from joulewise.flower.estimate import Estimate, refuse
from joulewise.flower.metering import Crossed, Exchange, Pricing
from joulewise.flower.notes import ACCEPTED, ORDER, noted
from joulewise.flower.parcels import Download
from joulewise.flower.received import Base
from joulewise.flower.underway import UnderWay, batch_of
from joulewise.layout import Kind, Layout
from joulewise.results import ClientResult

Bases = dict[tuple[int, tuple[str, ...]], Base]
"""What replies are added to, by the record that was sent and by what stayed on the client."""

_MEMORY: WeakKeyDictionary[Grid, tuple[dict[int, int], Estimate]] = WeakKeyDictionary()
"""By the Grid that moves messages: nodes go on with what they hold where a second strategy starts on it."""

_log = logging.getLogger("joulewise")


class SparseGrid(Around):
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
        allocation: how the energy of a round's masks is divided among its nodes, in the place of their own budgets;
            None to leave that to them. All train requests of a round then go out in one call.

    Attributes:
        feedback: whether a client has said that it remembers what it did not send.
        downlink: what nodes hold; its ``downloads`` are the models that the last call sent, with their bytes.
        expected: what the metrics of replies must hold; `Sparse` takes it from its strategy.
        estimate: with EF21, what is known of the nodes' updates.
    """

    def __init__(
        self,
        grid: Grid,
        kinds: dict[str, Kind] | None = None,
        *,
        downlink: Setting = "lossless",
        most_payload_bytes: int | None = None,
        pricing: Pricing | None = Pricing(),  # noqa: B008 (a frozen record)
        allocation: Allocation | None = None,
    ) -> None:
        super().__init__(grid)
        self.downlink = Downlink(downlink, kinds or {})
        self._kinds = dict(kinds or {})
        self._most_payload_bytes = most_payload_bytes
        self._books = Books(pricing)
        self.allotter = None if allocation is None else Allotter.over(downlink, allocation)
        self._accepted, self.estimate = _memory_over(grid)
        self._round = UnderWay()
        self._lock = threading.Lock()  # Legacy servers ask each client from a thread of its own.
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
        began = time.monotonic()
        with self._lock:
            requests = self._allotted([self._addressed(message) for message in messages])
        asks = self.allotter is not None and self.allotter.asks and any(map(wire.is_train, requests))
        patience = asking.first_timeout(timeout) if asks else timeout
        requests, replies, downloads = self.downlink.exchange(self._grid, requests, patience)
        pairs = checked.paired(requests, replies)
        answers = Answers(pairs, self._problems(pairs))
        if asks:
            left_s = None if timeout is None else max(0.0, timeout - (time.monotonic() - began))
            answers = self._ordered(answers, left_s)
        with self._lock:
            if trains := [request for request in requests if wire.is_train(request)]:
                self._round = self._round.asked(trains)
            return self._in_order(requests, answers, downloads)

    def _ordered(self, answers: Answers, timeout: float | None) -> Answers:
        """The answers of nodes that were asked what their updates cost, once they were told what they may spend."""
        assert self.allotter is not None
        listener = Listener(self.allotter, self._books, self.expected, self._kinds)
        answers, told = asking.summaries(answers, listener)
        nodes = {at: request.metadata.dst_node_id for at, (request, _) in answers.sound().items()}
        orders = self.allotter.divide(nodes.values())
        questions = {}
        for at in told:
            order = self._within(nodes[at], orders[nodes[at]])
            questions[at] = summary.order_to(answers.pairs[at][0], order or "")
        replies = self._grid.send_and_receive(list(questions.values()), timeout=timeout) if questions else []
        return asking.joined(answers, told, questions, replies)

    def _in_order(self, requests: list[Message], answers: Answers, downloads: tuple[Download, ...]) -> list[Message]:
        pairs, problems = answers.pairs, answers.problems
        self._begin(answers)
        asked = Counter(request.metadata.dst_node_id for request in requests if wire.is_train(request))
        asked.update(self._round.waiting)  # by an earlier call of this round
        crossed = Crossed(downloads)
        bases: Bases = {}
        order = []
        for at, (request, reply) in pairs.items():
            partition, node, answer = None, request.metadata.dst_node_id, reply
            exchange = crossed.exchange(request, reply).plus(answers.further.get(at))
            try:
                if at in problems:
                    raise PayloadError(problems[at])
                if reply.has_error():
                    answer = checked.failed(request, reply)
                elif reply.metadata.src_node_id != node:
                    raise PayloadError(f"it came from node {reply.metadata.src_node_id}, which was not asked")
                elif wire.is_train(request):
                    partition = self._take(request, reply, bases, asked[node] > 1, answers.further.get(at))
            except JoulewiseError as error:
                _log.warning("node %d: its reply is left out: %s", node, error)
                answer = checked.refusal(request, str(error))
            self._books.crossed(replace(exchange, refused=answer.has_error()))
            order.append((partition is None, partition or 0, node, answer))
        for request in requests:
            if request.metadata.message_id not in pairs:
                self._books.crossed(crossed.exchange(request, None))
        self._books.trim()
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
        done, self._round = self._round, UnderWay()
        if self.allotter is not None:
            self.allotter.close(done.touched.share)
        if done.coming is not None:  # Together with the numbers, or nodes would be told of other replies than it holds.
            done.coming.use()
        self._accepted.update(done.waiting)
        return done.settled(arrays, averaged)

    def discard(self) -> None:
        """Say that an aggregation returned nothing: the replies of this round are not used."""
        self._round = UnderWay()
        if self.allotter is not None:
            self.allotter.close(0.0)  # Then no receiver pays for what they held.

    def take_results(self) -> tuple[ClientResult, ...]:
        """What the clients did since the last call, by partition."""
        return self._books.take_results()

    def take_exchanges(self) -> tuple[tuple[Exchange, ...], tuple[tuple[str, str], ...]]:
        """What crossed since the last call, refused replies included; and the rules and budgets of compressed ones."""
        exchanges, labels = self._books.take_exchanges()
        # The budget of the run; what each node has of it is another one in each round.
        return exchanges, labels if self.allotter is None else self.allotter.labelled(labels)

    @property
    def estimates(self) -> bool:
        """Whether a reply of the round under way is of EF21."""
        return self._round.coming is not None

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
        number = self._accepted.get(message.metadata.dst_node_id)
        if number is not None and wire.is_train(message):
            message.content = noted(message.content, {ACCEPTED: number}, create=True)
        return message

    def _allotted(self, requests: list[Message]) -> list[Message]:
        """The requests with what each node's mask may cost."""
        trains = [request for request in requests if wire.is_train(request)]
        orders: dict[int, str] = {}
        if self.allotter is not None and trains:
            if self.expected.weight is None:
                allocable.refuse_legacy(trains)
            orders = self.allotter.ask([request.metadata.dst_node_id for request in trains], batch_of(trains[0]))
        for request in trains:
            node = request.metadata.dst_node_id
            if (order := self._within(node, orders.get(node))) is not None:
                request.content = noted(request.content, {ORDER: order}, create=False)
        return requests

    def _within(self, node: int, order: str | None) -> str | None:
        """An order as its node gets it; here as the allotter gives it, None for none."""
        del node
        return order

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

    def _take(
        self, request: Message, reply: Message, bases: Bases, again: bool, further: Exchange | None
    ) -> int | None:
        """Check a train reply and put the client's arrays into it; its partition, where it says which it is.

        Raises:
            PayloadError: the reply cannot be used; the sentence begins with what is wrong, not with the node.
        """
        record, sent = wire.only_arrays(request.content), wire.read(reply.content)
        self._round.check_estimates(sent, self.estimate)
        if sent is None or record is None:
            checked.check_dense(record, reply)
            self.downlink.refuse_whole(request.metadata.dst_node_id)
            self._round.add_whole()
            return None
        at = id(record), sent.local
        base = bases.get(at) or bases.setdefault(
            at, Base.of(record, local.kinds_with(sent.local, record, self._kinds) if sent.local else self._kinds)
        )
        node = request.metadata.dst_node_id
        checked.check_size(sent, base.layout, self._most_payload_bytes)
        checked.check_number(sent, self._accepted.get(node, 0))
        weight = checked.weight(reply, self.expected)
        if sent.estimates:
            self._check_estimate(node, sent, weight, base.layout)
        legacy = wire.LEGACY in request.content and self.expected.weight is None
        checked.check_feedback(sent, again, legacy)
        sent = replace(sent, asked=further is not None)
        decoded = decode(sent.payload, base.layout)
        known = self.estimate, node, sent.result.partition, weight
        added = self._round.estimated(*known, base, decoded) if sent.estimates else base.plus(decoded)
        self._round.add(node, sent.sequence, base, decoded, record)
        self.feedback = self.feedback or sent.feedback
        booked = self.downlink.book(node, self._books.in_flash(sent.device))
        booked = replace(booked, size=booked.size + (0 if further is None else further.bytes_down))
        reply.content[wire.array_key(reply.content)] = added
        del reply.content[wire.RECORD]
        examples = checked.examples(reply)
        if self.allotter is None:
            return self._books.used(node, sent, decoded, base.layout, booked, examples)
        given = self.allotter.allowed_j(node), self.allotter.price(node)
        number = self._books.used(node, sent, decoded, base.layout, booked, examples, *given)
        dense = self._books.dense(sent.device, base.layout)
        self.allotter.heard(node, number, sent, weight, dense)
        return number

    def _begin(self, answers: Answers) -> None:
        """What the replies of a run are, EF21 or not: that of those before, or of most of the first."""
        if self._round.usual is not None or self.estimate.total is not None:
            return
        if self._accepted:
            self._round.usual = False, ()
            return
        found = []
        for _, reply in answers.sound().values():
            with contextlib.suppress(PayloadError):
                found.append(wire.read(reply.content))
        self._round.begin(found)

    def _check_estimate(self, node: int, sent: wire.Reply, weight: float, layout: Layout) -> None:
        try:
            refuse(self.downlink.setting, None if self.allotter is None else self.allotter.allocation)
        except RuleError as error:
            raise PayloadError(str(error)) from None
        self.estimate.check(node, weight, self._accepted.get(node, 0))
        self._round.check_layout(sent, layout, self.estimate)


def _memory_over(grid: Grid) -> tuple[dict[int, int], Estimate]:
    new: tuple[dict[int, int], Estimate] = {}, Estimate()
    try:
        return _MEMORY.setdefault(grid, new)
    except TypeError:  # A Grid that cannot be referred to weakly, or has no hash.
        return new
