"""The ClientApp mod: replaces the arrays of a reply by a compressed update."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

from flwr.app import ConfigRecord, Context, Message, MetricRecord

from joulewise.codec import ValueType
from joulewise.compress import ClientState, Compressor, ErrorFeedback, Sent, settle
from joulewise.costs import Costs
from joulewise.devices import Device
from joulewise.errors import LayoutError, RuleError, StateError, UpdateError
from joulewise.flower import checked, local, orders, privacy, wire
from joulewise.flower.costing import priced, receiving
from joulewise.flower.held import Receipt, receive
from joulewise.flower.settings import Settings, loaded
from joulewise.flower.state import AbstractStore, ContextStore
from joulewise.layout import Arrays, Kind, Layout, Vector
from joulewise.ledger import curve_charge, round_charges
from joulewise.persistence import rewriting
from joulewise.prices import Boundary
from joulewise.recorder import Recorder
from joulewise.residency import rewrites_pages
from joulewise.results import ClientResult
from joulewise.rules import CWMP, Budget, Density, Joules, Rule, budget_text


@dataclass(frozen=True, slots=True, eq=False)
class _Received:
    """A train request: its arrays, its configuration, and what came over the link."""

    arrays: Arrays
    config: Mapping[str, object]
    receipt: Receipt


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
        feedback: remember what was not sent; None to forget it.
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
        feedback: ErrorFeedback | None = None,
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
        record = local.put_in(message, record, settings.local, _state(settings, context))
    if not train:
        return local.kept_back(call_next(message, context), settings.local)
    _check_budget(settings)
    privacy.refuse_carried_noise(call_next, settings.compressor)
    # The app may change the message, so what was received is kept aside first.
    received = _Received(wire.to_numpy(record), _configuration(message), receipt)
    reply = call_next(message, context)
    if not wire.is_train(reply) or wire.only_arrays(reply.content) is None:
        return local.kept_back(reply, settings.local)
    return _compress(reply, context, received, settings)


def _compress(reply: Message, context: Context, received: _Received, settings: Settings) -> Message:
    before, after, config = received.arrays, _trained(reply, received.arrays), received.config
    layout, compressor = wire.layout_of(before, settings.all_kinds), settings.compressor
    partition = int(str(context.node_config.get("partition-id", context.node_id)))
    state = _state(settings, context) or ClientState(fingerprint=layout.fingerprint)
    state, fate = settle(state, received.receipt.accepted, layout)
    if fate == "lost":
        logging.getLogger("joulewise").warning(
            "the server has accepted a later reply than this node remembers: its state was lost, and what it had "
            "not sent yet is lost with it"
        )
    number = int(str(config.get("server-round", state.sequence + 1)))
    device = settings.device(partition, number)
    costs = priced(layout, device, compressor, settings.boundary)
    update = layout.flatten(after) - layout.flatten(before)
    if settings.record is not None:
        settings.record.keep(partition, number, update, layout)
    most, whole = privacy.norm_left(config, before, after, layout), after if layout.wholes else None
    try:
        seed = [settings.seed, number, partition, 1]
        obeyed = _obeyed(received.receipt, settings, device, update, state, costs)
        sent = privacy.compress(obeyed.compressor, update, state, costs, seed, whole, most)
        if (tighter := obeyed.tighter(sent)) is not None:
            sent = privacy.compress(tighter, update, state, costs, seed, whole, most)
    except UpdateError as error:
        raise UpdateError(f"round {number}, client {partition}: {error}") from None
    own = replace(sent.state, run_id=context.run_id, local=local.taken(after, before, layout))
    settings.store.save(context, own)
    said, curve = obeyed.told(sent)
    result = _result(reply, sent, layout, device, costs, received, settings, partition, len(curve))
    names = tuple(tensor.name for tensor in layout.locals)
    named = device.name, type(compressor.rule).__name__, budget_text(obeyed.compressor.budget)
    remembers = compressor.remembers
    note = wire.Reply(sent.payload, own.sequence, result, remembers > 0, names, *named, said, curve, remembers > 1)
    wire.write(reply.content, note)
    return reply


def _obeyed(
    receipt: Receipt, settings: Settings, device: Device, update: Vector, state: ClientState, costs: Costs
) -> orders.Obeyed:
    """The compressor with the budget that the server allotted, where it allots."""
    compressor = settings.compressor
    if receipt.order is None:
        return orders.Obeyed(compressor)
    order, added = orders.parse(receipt.order), privacy.added_to(compressor, update, state)
    if order.both and rewrites_pages(device):
        raise RuleError(
            f"the server's budget counts what nodes pay to receive, but device {device.name!r} erases pages of flash "
            "for that, which the budget leaves out; use counts='uplink' at the server, or a device without pages"
        )
    received_j = receiving(costs.layout, device, compressor, settings.boundary) if order.both else 0.0
    return orders.obey(order, compressor, added, costs, received_j)


def _result(  # noqa: PLR0913, PLR0917 (all that a result says)
    reply: Message,
    sent: Sent,
    layout: Layout,
    device: Device,
    costs: Costs,
    received: _Received,
    settings: Settings,
    partition: int,
    curve_bytes: int,
) -> ClientResult:
    examples, trained = int(_examples(reply) or 0), settings.multiply_accumulates
    changed, rewritten = received.receipt.rewritten(layout)
    charges = round_charges(
        (*sent.charges, *curve_charge(curve_bytes, costs)),
        layout,
        device,
        bytes_down=received.receipt.size,
        multiply_accumulates=None if trained is None else trained * examples,
        remembers=settings.compressor.remembers,
        boundary=settings.boundary,
        rewritten=rewriting(costs, sent.selection.indices, changed),
        rewritten_wholes=[tensor for tensor in layout.wholes if tensor.name in rewritten],
    )
    return ClientResult(
        partition=partition,
        examples=examples,
        bytes_up=len(sent.payload) + curve_bytes,
        bytes_down=received.receipt.size,
        charges=charges,
        kept_by_tensor=tuple(layout.counts(sent.selection.indices).tolist()),
        parameters=layout.n,
        delta=sent.selection.delta,
        contrast=sent.contrast,
        loss=_metric(reply, "train-loss"),
    )


def _check_budget(settings: Settings) -> None:
    budget = settings.compressor.budget
    if isinstance(budget, Joules) and budget.includes_fixed:
        raise RuleError(
            "Joules(includes_fixed=True) is for clients that can leave a reply out, but a Flower client always "
            "replies; use Joules(budget) for what the mask adds"
        )


def _state(settings: Settings, context: Context) -> ClientState | None:
    state = settings.store.load(context)
    if state is not None and state.run_id not in {0, context.run_id}:
        raise StateError(
            f"the client's state belongs to run {state.run_id}, but this is run {context.run_id}; delete that state"
        )
    return state


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
