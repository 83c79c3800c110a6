"""How a node sends what it has trained: at once, or when it has said what that costs and was told what it may spend."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import cached_property

import msgspec
from flwr.app import ArrayRecord, Context, Message, RecordDict

from joulewise.compress import ClientState, Sent
from joulewise.costs import Costs
from joulewise.devices import Device
from joulewise.errors import RuleError, StateError, UpdateError
from joulewise.flower import orders, privacy, summary, wire
from joulewise.flower.costing import priced, receiving
from joulewise.flower.orders import Obeyed, Order
from joulewise.flower.settings import Settings
from joulewise.flower.summary import Summary
from joulewise.flower.trained import Trained
from joulewise.layout import Layout
from joulewise.ledger import curve_charge, round_charges
from joulewise.persistence import rewriting
from joulewise.residency import rewrites_pages
from joulewise.results import ClientResult
from joulewise.rules import budget_text


@dataclass(frozen=True, eq=False)
class Sender:
    """A node with an update to send.

    Args:
        settings: that it goes by.
        context: of the node.
        state: what it remembers, settled, without the update.
        done: the update.
    """

    settings: Settings
    context: Context
    state: ClientState
    done: Trained

    @cached_property
    def partition(self) -> int:
        """Of the node; its own id where nobody gave it one."""
        return partition_of(self.context)

    @cached_property
    def layout(self) -> Layout:
        """Of the model."""
        return self.done.layout(self.settings.all_kinds)

    @cached_property
    def device(self) -> Device:
        """Of the node, with its link in this round."""
        return self.settings.device(self.partition, self.done.facts.number)

    @cached_property
    def costs(self) -> Costs:
        """Prices of its coordinates."""
        return priced(self.layout, self.device, self.settings.compressor, self.settings.boundary)

    def send(self, content: RecordDict, order: Order | None) -> None:
        """Put the compressed update into the content of a reply, and keep what is not sent."""
        with self._named():
            obeyed, sent = self._compressed(order)
        self.settings.store.save(self.context, sent.state)
        said, curve = obeyed.told(sent)
        result = self._result(sent, len(curve) or self.done.facts.curve_bytes)
        compressor, remembers = self.settings.compressor, self.settings.compressor.remembers
        named = self.device.name, type(compressor.rule).__name__, budget_text(obeyed.compressor.budget)
        told = *named, said, curve, remembers > 1, compressor.estimates
        wire.write(content, wire.Reply(sent.payload, sent.state.sequence, result, remembers > 0, self._local, *told))

    def hold(self, content: RecordDict, order: Order, ticket: str) -> None:
        """Put what it says of its update into the content of a reply, and keep the update until it is told."""
        with self._named():
            obeyed = self._obeyed(order)
        facts = msgspec.structs.replace(self.done.facts, ticket=ticket, curve_bytes=len(obeyed.curve))
        wholes = [tensor.name for tensor in self.layout.wholes]
        unsent = replace(self.done, facts=facts).packed(wholes)
        self.settings.store.save(self.context, replace(self.state, unsent=unsent))
        said = msgspec.json.encode(obeyed.said)
        summary.write(content, Summary(said, obeyed.curve, self.partition, self.device.name, self._local))

    @property
    def _local(self) -> tuple[str, ...]:
        return tuple(tensor.name for tensor in self.layout.locals)

    @contextmanager
    def _named(self) -> Iterator[None]:
        try:
            yield
        except UpdateError as error:
            raise UpdateError(f"round {self.done.facts.number}, client {self.partition}: {error}") from None

    def _compressed(self, order: Order | None) -> tuple[Obeyed, Sent]:
        facts, costs = self.done.facts, self.costs
        seed = [self.settings.seed, facts.number, self.partition, 1]
        obeyed = self._obeyed(order)
        given = self.done.update, self.state, costs, seed, self.done.whole, facts.most
        sent = privacy.compress(obeyed.compressor, *given)
        if (tighter := obeyed.tighter(sent)) is not None:
            sent = privacy.compress(tighter, *given)
        return obeyed, sent

    def _obeyed(self, order: Order | None) -> Obeyed:
        """The compressor with the budget that the server allotted, where it allots."""
        settings, compressor = self.settings, self.settings.compressor
        if order is None:
            return Obeyed(compressor)
        if compressor.estimates and (order.asks or order.both):
            setting = "control='asked'" if order.asks else "counts='both'"
            raise RuleError(
                f"the server divides one budget with {setting}, with which EF21 does not go; use another setting "
                "there, or ErrorFeedback()"
            )
        if order.both and rewrites_pages(self.device):
            raise RuleError(
                f"the server's budget counts what nodes pay to receive, but device {self.device.name!r} erases pages "
                "of flash for that, which the budget leaves out; use counts='uplink' at the server, or a device "
                "without pages"
            )
        added = privacy.added_to(compressor, self.done.update, self.state)
        received_j = receiving(self.layout, self.device, compressor, settings.boundary) if order.both else 0.0
        return orders.obey(order, compressor, added, self.costs, received_j)

    def _result(self, sent: Sent, curve_bytes: int) -> ClientResult:
        facts, layout, costs, each = self.done.facts, self.layout, self.costs, self.settings.multiply_accumulates
        charges = round_charges(
            (*sent.charges, *curve_charge(curve_bytes, costs, bool(facts.ticket))),
            layout,
            self.device,
            bytes_down=facts.bytes_down,
            multiply_accumulates=None if each is None else each * facts.examples,
            remembers=self.settings.compressor.remembers,
            boundary=self.settings.boundary,
            rewritten=rewriting(costs, sent.selection.indices, self.done.changed),
            rewritten_wholes=[tensor for tensor in layout.wholes if tensor.name in facts.rewritten],
        )
        return ClientResult(
            partition=self.partition,
            examples=facts.examples,
            bytes_up=len(sent.payload) + curve_bytes,
            bytes_down=facts.bytes_down,
            charges=charges,
            kept_by_tensor=tuple(layout.counts(sent.selection.indices).tolist()),
            parameters=layout.n,
            delta=sent.selection.delta,
            contrast=sent.contrast,
            loss=facts.loss,
        )


def release(message: Message, context: Context, settings: Settings, ticket: str, text: str) -> Message:
    """Send the update that waits for this order.

    Raises:
        StateError: none waits, or another one; nothing is changed.
        SettingError: the order cannot be read.
    """
    state = state_of(settings, context)
    done = None if state is None or state.unsent is None else Trained.unpacked(state.unsent)
    if state is None or done is None or done.facts.ticket != ticket:
        waits = "none waits here" if done is None else f"the one that waits here is of round {done.facts.number}"
        raise StateError(
            f"the server orders an update that it was told of, but {waits}: it was sent already, or the node was "
            "restarted without a FileStore, or trained again"
        )
    order, size = orders.parse(text), done.facts.bytes_down + summary.size_of(ticket, text)
    done = replace(done, facts=msgspec.structs.replace(done.facts, bytes_down=size))
    content = RecordDict({"arrays": ArrayRecord()})
    Sender(settings, context, replace(state, unsent=None), done).send(content, order)
    return Message(content, reply_to=message)


def state_of(settings: Settings, context: Context) -> ClientState | None:
    """What a node remembers.

    Raises:
        StateError: it is of another run.
    """
    state = settings.store.load(context)
    if state is not None and state.run_id not in {0, context.run_id}:
        raise StateError(
            f"the client's state belongs to run {state.run_id}, but this is run {context.run_id}; delete that state"
        )
    return state


def partition_of(context: Context) -> int:
    """The partition of a node; its own id where nobody gave it one."""
    return int(str(context.node_config.get("partition-id", context.node_id)))
