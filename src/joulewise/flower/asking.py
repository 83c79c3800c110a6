"""The server's side of a round in which nodes are asked what their updates cost before they send them.

    answers = Answers(pairs, problems)              what came of the train requests
    answers, told = summaries(answers, ...)         what the nodes say of the updates that they hold
    (the allotter divides the budget, and the orders go out)
    answers = joined(answers, told, questions, replies)

Whatever a node answers, the round goes on: what cannot be used is among the problems of the answers, and enters
neither the division nor an average.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace

from flwr.app import Message

from joulewise.curves import Curve
from joulewise.errors import FederationError, JoulewiseError, PayloadError
from joulewise.flower import checked, local, summary, wire
from joulewise.flower.allotter import Allotter
from joulewise.flower.books import Books
from joulewise.flower.checked import Expected
from joulewise.flower.metering import REQUEST_HEADER_BYTES, Exchange
from joulewise.flower.summary import Summary
from joulewise.layout import Kind, Layout

RESERVED = 0.25
"""Share of a round's time that is left for the second exchange, however long nodes take to train."""


@dataclass(frozen=True, slots=True, eq=False)
class Answers:
    """What came of requests, by the id of each.

    Args:
        pairs: requests with their replies.
        problems: why a reply cannot be used.
        further: what crossed besides request and reply.
    """

    pairs: dict[str, tuple[Message, Message]]
    problems: dict[str, str] = field(default_factory=dict)
    further: dict[str, Exchange] = field(default_factory=dict)

    def sound(self) -> dict[str, tuple[Message, Message]]:
        """Pairs of train requests, and of replies to them with which nothing is wrong so far."""
        return {
            at: (request, reply)
            for at, (request, reply) in self.pairs.items()
            if at not in self.problems
            and wire.is_train(request)
            and not reply.has_error()
            and reply.metadata.src_node_id == request.metadata.dst_node_id
        }


@dataclass(frozen=True, slots=True, eq=False)
class Listener:
    """Whom summaries are told to.

    Args:
        allotter: that divides.
        books: that know devices and partitions.
        expected: what the strategy weighs replies by.
        kinds: as in `joulewise.flower.Sparsify`.
    """

    allotter: Allotter
    books: Books
    expected: Expected
    kinds: Mapping[str, Kind]

    def learn(self, request: Message, reply: Message) -> Summary | None:
        """Take down what a node says of its update; None where its reply is no summary.

        Raises:
            PayloadError: it says nonsense.
        """
        told = summary.read(reply.content)
        if told is None:
            return None
        Curve.from_bytes(told.curve)
        number = self.books.number(request.metadata.dst_node_id, told.partition)
        dense = self.books.dense(told.device, self._layout(request, told.local))
        weight = checked.weight(reply, self.expected)
        self.allotter.learn(request.metadata.dst_node_id, number, told, weight, dense)
        return told

    def _layout(self, request: Message, stayed: tuple[str, ...]) -> Layout:
        record = wire.only_arrays(request.content)
        if record is None:
            raise PayloadError("it says what an update costs, but was sent no model")
        kinds = local.kinds_with(stayed, record, self.kinds) if stayed else self.kinds
        return wire.layout_of(wire.to_numpy(record), kinds)


def first_timeout(timeout: float | None) -> float | None:
    """How long to wait for summaries.

    Example:
        >>> first_timeout(3600.0)
        2700.0
    """
    return None if timeout is None else timeout * (1 - RESERVED)


def summaries(answers: Answers, listener: Listener) -> tuple[Answers, dict[str, Summary]]:
    """What nodes say of the updates that they hold, by the id of the request; nonsense is among the problems."""
    told: dict[str, Summary] = {}
    problems = dict(answers.problems)
    for at, (request, reply) in answers.sound().items():
        try:
            if (found := listener.learn(request, reply)) is not None:
                told[at] = found
        except JoulewiseError as error:
            problems[at] = f"what it says of its update cannot be used: {error}"
    return replace(answers, problems=problems), told


def joined(
    answers: Answers, told: Mapping[str, Summary], questions: Mapping[str, Message], replies: Iterable[Message]
) -> Answers:
    """The answers with the payloads that came after the orders.

    Args:
        answers: to the train requests.
        told: by the id of the train request, as all that follows.
        questions: the orders that were sent.
        replies: to them.
    """
    came = checked.paired(list(questions.values()), list(replies))
    pairs, problems, further = dict(answers.pairs), dict(answers.problems), dict(answers.further)
    for at, question in questions.items():
        request, first = answers.pairs[at]
        further[at] = _crossed(question)
        try:
            reply = _payload(question, came.get(question.metadata.message_id, (question, None))[1])
        except (PayloadError, FederationError) as error:
            problems[at] = str(error)
            continue
        further[at] = further[at].plus(_sent(first))
        pairs[at] = request, _merged(request, first, reply, told[at])
    return Answers(pairs, problems, further)


def _payload(question: Message, reply: Message | None) -> Message:
    """The reply to an order, once it is known to hold a payload.

    Raises:
        FederationError: none came, or it is an error.
        PayloadError: it is something else.
    """
    node = question.metadata.dst_node_id
    if reply is None:
        raise FederationError("it has said what its update costs, but does not answer its order")
    if reply.has_error():
        raise FederationError(f"it answers its order with an error: {checked.told(str(reply.error.reason))}")
    if reply.metadata.src_node_id != node:
        raise PayloadError(f"it came from node {reply.metadata.src_node_id}, which was not asked")
    if wire.read(reply.content) is None:
        raise PayloadError("it answers its order with something else than the update that it holds")
    return reply


def _merged(request: Message, first: Message, reply: Message, told: Summary) -> Message:
    """One reply as a node that was not asked before would have sent it: metrics of the first, payload of the second."""
    merged = Message(first.content.copy(), reply_to=request)
    merged.content[wire.array_key(first.content)] = reply.content[wire.array_key(reply.content)]
    note = reply.content.config_records[wire.RECORD]
    note["curve"] = told.curve
    merged.content[wire.RECORD] = note
    return merged


def _crossed(question: Message) -> Exchange:
    """An order on its way to its node."""
    order = summary.order_in(question)
    size = 0 if order is None else summary.size_of(*order)
    _, fetched = wire.crossing(question.content)
    return Exchange(question.metadata.dst_node_id, 0, size, REQUEST_HEADER_BYTES * fetched, size)


def _sent(first: Message) -> Exchange:
    """What the transport adds to a summary; its curve counts with the payload."""
    _, objects = wire.crossing(first.content)
    return Exchange(first.metadata.src_node_id, 0, 0, REQUEST_HEADER_BYTES * objects, 0)
