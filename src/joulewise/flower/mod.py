"""The ClientApp mod: replaces the arrays of a reply by a compressed update."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

from flwr.app import ConfigRecord, Context, Message, MetricRecord

from joulewise.codec import ValueType
from joulewise.compress import ClientState, Compressor, Feedback, settle
from joulewise.errors import LayoutError, RuleError
from joulewise.flower import checked, local, orders, privacy, wire
from joulewise.flower.held import Receipt, receive
from joulewise.flower.sending import Sender, partition_of, release, state_of
from joulewise.flower.settings import Settings, loaded
from joulewise.flower.state import AbstractStore, ContextStore
from joulewise.flower.summary import order_in, ticket_of
from joulewise.flower.trained import Facts, Trained
from joulewise.layout import Arrays, Kind, Layout
from joulewise.prices import Boundary
from joulewise.recorder import Recorder
from joulewise.rules import CWMP, Budget, Density, Joules, Rule


@dataclass(frozen=True, slots=True, eq=False)
class _Received:
    """A train request: its arrays, its configuration, what came over the link, and by what it is called."""

    arrays: Arrays
    config: Mapping[str, object]
    receipt: Receipt
    ticket: str


class Sparsify:
    """A mod that sends what a joule moves furthest.

    Put it first in the list of mods, so that it sees the reply last. Requests other than train, and replies
    without exactly one ArrayRecord, pass unchanged.

    What is set here is overridden by keys such as ``joulewise.density`` in Flower's ``run_config``, and these by those
    in ``node_config``; ``docs/flower.md`` lists them. A mistake is an exception, which Flower makes an error reply of:
    the round goes on without this node, and the server's log says why.

    Args:
        device: whose prices: a shipped profile or a file; or one per ``partition-id``; None where the configuration
            says it.
        rule: what to rank coordinates by.
        budget: where to stop; None for Dense.
        values: value type of the payload.
        feedback: `ErrorFeedback`: remember what was not sent; `EF21`: estimate updates, with all nodes of the run; None
            for neither.
        boundary: what a joule takes in, see `joulewise.price`.
        kinds: kind by tensor name or pattern, before the usual guess.
        local: names or patterns of tensors that stay on the client: they are never sent, and the received model never
            replaces them.
        seed: of random rules; a client's numbers come from ``[seed, round, partition]``.
        store: where the client's state lies; the default is Flower's `Context.state`.
        multiply_accumulates: of a client's training in a round on each of its examples, for the ledger: epochs times
            those of one training step on an example. None to leave training out of the charges.
        record: keeps the updates that it was asked for; None to keep none.
        link: what a bit costs, by round and then by partition, as a multiple of what the device says.

    Raises:
        ProfileError: a device is not there or its file is wrong.
        RuleError: rule, budget and feedback do not go together.

    Example:
        >>> from flwr.clientapp import ClientApp
        >>> app = ClientApp(mods=[Sparsify("phone-lte-2021", rule=CWMP(), budget=Density(0.01))])
    """

    def __init__(  # noqa: PLR0913 (one place for all settings of a user's one line)
        self,
        device: str | Sequence[str] | None = None,
        rule: Rule = CWMP(),  # noqa: B008 (frozen records)
        budget: Budget | None = Density(0.01),  # noqa: B008
        values: ValueType | tuple[ValueType, ...] = "float32",
        feedback: Feedback | None = None,
        *,
        boundary: Boundary = "radio",
        kinds: Mapping[str, Kind] | None = None,
        local: Sequence[str] = (),
        seed: int = 0,
        store: AbstractStore | None = None,
        multiply_accumulates: float | None = None,
        record: Recorder | None = None,
        link: Sequence[Sequence[float]] = (),
    ) -> None:
        names = () if device is None else (device,) if isinstance(device, str) else tuple(device)
        for name in dict.fromkeys(names):
            loaded(name)
        self._settings = Settings(
            devices=names,
            compressor=Compressor(rule, budget, values, feedback),
            boundary=boundary,
            local=(local,) if isinstance(local, str) else tuple(local),
            kinds=tuple((kinds or {}).items()),
            seed=seed,
            store=store or ContextStore(),
            multiply_accumulates=multiply_accumulates,
            record=record,
            link=tuple(map(tuple, link)),
        )
        _check_budget(self._settings)

    def __call__(self, message: Message, context: Context, call_next: Callable[[Message, Context], Message]) -> Message:
        """Let the app train, then compress what it answers."""
        if wire.is_train(message):
            privacy.refuse_secure_aggregation(message)
        settings = self._settings.at(context)
        if (told := order_in(message)) is not None:
            return release(message, context, settings, *told)
        receipt = receive(message, context, settings.store, settings.in_flash)
        if receipt.missing is not None:
            return receipt.missing
        return receipt.signed(_answer(message, context, call_next, receipt, settings))


def _answer(
    message: Message,
    context: Context,
    call_next: Callable[[Message, Context], Message],
    receipt: Receipt,
    settings: Settings,
) -> Message:
    train = wire.is_train(message)
    record = wire.only_arrays(message.content) if train or wire.is_kind(message, "evaluate") else None
    if not record or not (train or settings.local):
        return local.kept_back(call_next(message, context), settings.local)
    if settings.local:
        local.check(settings.local, record)
        record = local.put_in(message, record, settings.local, state_of(settings, context))
    if not train:
        return local.kept_back(call_next(message, context), settings.local)
    _check_budget(settings)
    privacy.refuse_carried_noise(call_next, settings.compressor)
    # The app may change the message, so what was received is kept aside first.
    received = _Received(wire.to_numpy(record), _configuration(message), receipt, ticket_of(message))
    reply = call_next(message, context)
    if not wire.is_train(reply) or wire.only_arrays(reply.content) is None:
        return local.kept_back(reply, settings.local)
    return _compress(reply, context, received, settings)


def _compress(reply: Message, context: Context, received: _Received, settings: Settings) -> Message:
    before, after, receipt = received.arrays, _trained(reply, received.arrays), received.receipt
    layout = wire.layout_of(before, settings.all_kinds)
    state = state_of(settings, context) or ClientState(fingerprint=layout.fingerprint)
    # An update that still waits was never ordered: it is lost, as one whose reply is lost without feedback.
    state, fate = settle(replace(state, unsent=None), receipt.accepted, layout)
    if fate == "lost":
        logging.getLogger("joulewise").warning(
            "the server has accepted a later reply than this node remembers: its state was lost, and what it had "
            "not sent yet is lost with it"
        )
    number = int(str(received.config.get("server-round", state.sequence + 1)))
    done = _done(reply, received, after, layout, number)
    if settings.record is not None:
        settings.record.keep(partition_of(context), number, done.update, layout)
    own = replace(state, run_id=context.run_id, local=local.taken(after, before, layout))
    sender = Sender(settings, context, own, done)
    order = None if receipt.order is None else orders.parse(receipt.order)
    if order is not None and order.asks:
        sender.hold(reply.content, order, received.ticket)
    else:
        sender.send(reply.content, order)
    return reply


def _done(reply: Message, received: _Received, after: Arrays, layout: Layout, number: int) -> Trained:
    before, receipt = received.arrays, received.receipt
    changed, rewritten = receipt.rewritten(layout)
    facts = Facts(
        number,
        wire.shapes_of(before),
        receipt.size,
        tuple(sorted(rewritten)),
        examples=int(_examples(reply) or 0),
        loss=_metric(reply, "train-loss"),
        most=privacy.norm_left(received.config, before, after, layout),
    )
    return Trained(facts, layout.flatten(after) - layout.flatten(before), after if layout.wholes else None, changed)


def _check_budget(settings: Settings) -> None:
    budget = settings.compressor.budget
    if isinstance(budget, Joules) and budget.includes_fixed:
        raise RuleError(
            "Joules(includes_fixed=True) is for clients that can leave a reply out, but a Flower client always "
            "replies; use Joules(budget) for what the mask adds"
        )


def _configuration(message: Message) -> Mapping[str, object]:
    records = wire.of_kind(message.content, ConfigRecord)
    return {key: value for record in records for key, value in record.items()}


def _examples(reply: Message) -> float | None:
    counts = [_metric(reply, name) for name in checked.EXAMPLES]
    return next((count for count in counts if count is not None), None)


def _metric(reply: Message, name: str) -> float | None:
    values = [record[name] for record in wire.of_kind(reply.content, MetricRecord) if name in record]
    return float(values[0]) if values and isinstance(values[0], int | float) else None


def _trained(reply: Message, received: Arrays) -> Arrays:
    record = wire.only_arrays(reply.content)
    names = [] if record is None else list(record)
    if record is None or names != list(received):
        raise LayoutError(
            f"the app answered with tensors {names[:5]}, but was sent {list(received)[:5]}; answer with the "
            "arrays of the model that was received, under the same names"
        )
    try:
        return wire.to_numpy(record)
    except (TypeError, ValueError) as error:
        raise LayoutError(f"the app answered with an array that NumPy cannot read: {error}") from None
