"""The ClientApp mod: replaces the arrays of a reply by a compressed update."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache

import numpy as np
from flwr.app import Context, Message

from joulewise.codec import ValueType
from joulewise.compress import ClientState, Compressor, ErrorFeedback, settle
from joulewise.costs import Costs
from joulewise.devices import Device, load_device
from joulewise.errors import LayoutError, ProfileError, RuleError, UpdateError
from joulewise.flower import wire
from joulewise.flower.state import AbstractStore, ContextStore
from joulewise.layout import Arrays, Kind, Layout
from joulewise.ledger import round_charges
from joulewise.persistence import rewriting
from joulewise.prices import Boundary, price
from joulewise.recorder import Recorder
from joulewise.results import ClientResult
from joulewise.rules import CWMP, Budget, Count, Density, Joules, Rule

VALUE_BITS = {"float32": 32, "float16": 16, "bfloat16": 16, "int8": 8}


@dataclass(frozen=True, slots=True, eq=False)
class _Received:
    """A train request: its arrays, their size in bytes, and its configuration."""

    arrays: Arrays
    size: int
    config: Mapping[str, object]


class Sparsify:
    """A mod that sends what a joule moves furthest.

    Put it first in the list of mods, so that it sees the reply last. Requests other than train, and replies
    without exactly one ArrayRecord, pass unchanged.

    Args:
        device: whose prices: a shipped profile or a file; or one per ``partition-id``.
        rule: what to rank coordinates by.
        budget: where to stop; None for Dense.
        values: value type of the payload.
        feedback: remember what was not sent; None to forget it.
        boundary: what a joule takes in, see `joulewise.price`.
        kinds: kind by tensor name or pattern, before the usual guess.
        seed: of random rules; a client's numbers come from ``[seed, round, partition]``.
        store: where the client's state lies; the default is Flower's `Context.state`.
        multiply_accumulates: of a client's training in a round on each of its examples, for the ledger: epochs times
            those of one training step on an example. None to leave training out of the charges.
        record: keeps the updates that it was asked for; None to keep none.

    Raises:
        ProfileError: a device is not there or its file is wrong.
        RuleError: rule, budget and feedback do not go together.

    Example:
        >>> from flwr.clientapp import ClientApp
        >>> app = ClientApp(mods=[Sparsify("phone-lte-2021", rule=CWMP(), budget=Density(0.01))])
    """

    def __init__(  # noqa: PLR0913 (one place for all settings of a user's one line)
        self,
        device: str | Sequence[str],
        rule: Rule = CWMP(),  # noqa: B008 (frozen records)
        budget: Budget | None = Density(0.01),  # noqa: B008
        values: ValueType | tuple[ValueType, ...] = "float32",
        feedback: ErrorFeedback | None = None,
        *,
        boundary: Boundary = "radio",
        kinds: Mapping[str, Kind] | None = None,
        seed: int = 0,
        store: AbstractStore | None = None,
        multiply_accumulates: float | None = None,
        record: Recorder | None = None,
    ) -> None:
        names = [device] if isinstance(device, str) else list(device)
        loaded = {name: load_device(name) for name in dict.fromkeys(names)}
        self._devices = [loaded[name] for name in names]
        if isinstance(budget, Joules) and budget.includes_fixed:
            raise RuleError(
                "Joules(includes_fixed=True) is for clients that can leave a reply out, but a Flower client always "
                "replies; use Joules(budget) for what the mask adds"
            )
        self._compressor = Compressor(rule, budget, values, feedback)
        self._boundary: Boundary = boundary
        self._kinds = dict(kinds or {})
        self._seed = seed
        self._store = store or ContextStore()
        self._multiply_accumulates = multiply_accumulates
        self._record = record

    def __call__(self, message: Message, context: Context, call_next: Callable[[Message, Context], Message]) -> Message:
        """Let the app train, then compress what it answers."""
        record = wire.only_arrays(message.content) if wire.is_train(message) else None
        if record is None:
            return call_next(message, context)
        # The app may change the message, so what was received is kept aside first.
        received = _Received(wire.to_numpy(record), wire.size_of(record), _configuration(message))
        reply = call_next(message, context)
        if not wire.is_train(reply) or wire.only_arrays(reply.content) is None:
            return reply
        return self._compress(reply, context, received)

    def _compress(self, reply: Message, context: Context, received: _Received) -> Message:
        before, after, config = received.arrays, _trained(reply, received.arrays), received.config
        layout = wire.layout_of(before, self._kinds)
        partition = int(str(context.node_config.get("partition-id", context.node_id)))
        device = self._device_of(partition)
        costs = priced(layout, device, self._compressor, self._boundary)
        state = self._store.load(context) or ClientState(fingerprint=layout.fingerprint)
        state, fate = settle(state, int(str(config.get(wire.ACCEPTED, 0))), layout)
        if fate == "lost":
            logging.getLogger("joulewise").warning(
                "the server has accepted a later reply than this node remembers: its state was lost, and what it had "
                "not sent yet is lost with it"
            )
        number = int(str(config.get("server-round", state.sequence + 1)))
        rng = np.random.default_rng([self._seed, number, partition, 1])
        update = layout.flatten(after) - layout.flatten(before)
        if self._record is not None:
            self._record.keep(partition, number, update, layout)
        try:
            sent = self._compressor.compress(update, state, costs, rng, after if layout.wholes else None)
        except UpdateError as error:
            raise UpdateError(f"round {number}, client {partition}: {error}") from None
        self._store.save(context, replace(sent.state, run_id=context.run_id))
        examples = int(_metric(reply, "num-examples") or 0)
        remembers = self._compressor.feedback is not None
        trained = self._multiply_accumulates
        charges = round_charges(
            sent.charges,
            layout,
            device,
            bytes_down=received.size,
            multiply_accumulates=None if trained is None else trained * examples,
            remembers=remembers,
            boundary=self._boundary,
            rewritten=rewriting(costs, sent.selection.indices),
        )
        result = ClientResult(
            partition=partition,
            examples=examples,
            bytes_up=len(sent.payload),
            bytes_down=received.size,
            charges=charges,
            kept_by_tensor=tuple(layout.counts(sent.selection.indices).tolist()),
            parameters=layout.n,
            delta=sent.selection.delta,
            contrast=sent.contrast,
            loss=_metric(reply, "train-loss"),
        )
        wire.write(reply.content, wire.Reply(sent.payload, sent.state.sequence, result, remembers))
        return reply

    def _device_of(self, partition: int) -> Device:
        if len(self._devices) == 1:
            return self._devices[0]
        if partition >= len(self._devices):
            raise ProfileError(
                f"device names {len(self._devices)} devices, but this node has partition-id {partition}; "
                "give one device, or one for each partition"
            )
        return self._devices[partition]


@lru_cache(maxsize=64)
def priced(layout: Layout, device: Device, compressor: Compressor, boundary: Boundary) -> Costs:
    """Prices of a model on a device, at one density of all tensors, the one that the compressor's budget implies.

    Those that depend on bits the compressor takes to each tensor's own density in each update.
    """
    budget = compressor.budget
    count = budget.count(layout.n) if isinstance(budget, Count | Density) else 0.01 * layout.n
    density = min(1.0, max(count, 1.0) / max(layout.n, 1))
    types = (compressor.values,) * len(layout.tensors) if isinstance(compressor.values, str) else compressor.values
    return price(layout, device, np.array([VALUE_BITS[each] for each in types]), density, boundary=boundary)


def _configuration(message: Message) -> Mapping[str, object]:
    records = message.content.config_records.values()
    return {key: value for record in records for key, value in record.items()}


def _metric(reply: Message, name: str) -> float | None:
    values = [record[name] for record in reply.content.metric_records.values() if name in record]
    return float(values[0]) if values and isinstance(values[0], int | float) else None


def _trained(reply: Message, received: Arrays) -> Arrays:
    record = wire.only_arrays(reply.content)
    names = [] if record is None else list(record)
    if record is None or names != list(received):
        raise LayoutError(
            f"the app answered with tensors {names[:5]}, but was sent {list(received)[:5]}; answer with the "
            "arrays of the model that was received, under the same names"
        )
    return wire.to_numpy(record)
