"""The client's side of a sparse downlink: the model that a node holds, and the next one made of what changed."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any, Protocol, runtime_checkable

import numpy as np
import numpy.typing as npt
from flwr.app import Array, ArrayRecord, ConfigRecord, Context, Message, RecordDict

from joulewise.errors import PayloadError, StateError
from joulewise.flower import patch, wire
from joulewise.flower.notes import ACCEPTED, BEFORE, HELD, MISSING, ORDER, VERSION, take
from joulewise.flower.patch import Positions, Version
from joulewise.layout import Layout

REWRITTEN = "joulewise.rewritten"
"""In `Context.state`: what models received for evaluation have changed in flash since the last training."""


@dataclass(frozen=True, slots=True, eq=False)
class Held:
    """A model that a node keeps between messages.

    Args:
        version: number and checksum, as the server gave them.
        record: the model.
    """

    version: Version
    record: ArrayRecord


@runtime_checkable
class ModelStore(Protocol):
    """Keeps one model per node and run, beside the client's state."""

    def load_model(self, context: Context) -> Held | None:
        """The model that this node holds in this run; None where there is none, or it is damaged."""

    def save_model(self, context: Context, held: Held) -> None:
        """Keep this model instead of the one before.

        Raises:
            StateError: it cannot be kept.
        """


@dataclass(frozen=True, slots=True, eq=False)
class Receipt:
    """What came with a request.

    Args:
        size: bytes that were received, those before this request included, which no charge has paid for yet.
        note: what the reply says of the model that is held; None to say nothing.
        missing: the answer of a node that cannot make the model of what it was sent.
        changed: which elements a received model has changed since the last training, over all arrays; None for all.
        form: of the model that they count in.
        accepted: number of this node's last reply that was used; 0 for none.
        order: what the node's mask may cost, as the server wrote it; None where it is the node's own affair.
    """

    size: int = 0
    note: str | None = None
    missing: Message | None = None
    changed: Positions | None = None
    form: patch.Form | None = None
    accepted: int = 0
    order: object = None

    def signed(self, reply: Message) -> Message:
        """The reply with the note of what this node holds."""
        if self.note is None or not reply.has_content():
            return reply
        note = reply.content.get(wire.RECORD)
        told = note if isinstance(note, ConfigRecord) else ConfigRecord()
        told[HELD] = self.note
        reply.content[wire.RECORD] = told
        return reply

    def rewritten(self, layout: Layout) -> tuple[Positions | None, frozenset[str]]:
        """The changed parameters in the model's own flat vector, None for all; and the names of all changed tensors."""
        names = frozenset(tensor.name for tensor in (*layout.tensors, *layout.wholes))
        if self.changed is None or self.form is None:
            return None, names
        found = {part.name: own for _, part, own in patch.own_positions(self.changed, self.form)}
        places = [found[tensor.name] + first for tensor, first, _ in layout.spans()]
        changed = np.concatenate([np.empty(0, np.int64), *places]).astype(np.uint32)
        return changed, frozenset(name for name in names if found[name].size)


def receive(message: Message, context: Context, store: object, flash: bool = False) -> Receipt:
    """Put the model that was meant into a request, keep it, and say what came.

    Args:
        message: a request; of train and evaluate requests the notes are taken out, and changes become the model.
        context: of the node.
        store: where the model is kept; one that is no `ModelStore` keeps none.
        flash: whether the node's weights lie in flash, so that it matters which of them are rewritten.
    """
    kind = message.metadata.message_type.split(".")[0]
    if kind not in {"train", "evaluate"} or not message.has_content():
        return Receipt()
    notes, record = take(message), wire.only_arrays(message.content)
    if record is None:
        return Receipt()
    size = wire.size_of(record) + _number(notes.get(BEFORE))
    version = Version.parse(notes.get(VERSION))
    try:
        opened = _opened(record, version, context, store)
    except (PayloadError, StateError) as error:
        return Receipt(missing=_missing(message, str(error)))
    if patch.CHANGES in record and opened.held is not None:
        key = wire.array_key(message.content)
        message.content = RecordDict({**message.content, key: wire.parsed(opened.held.record)})
    changed = _since_training(context, opened.changed, kind == "train") if flash else opened.changed
    note = None if VERSION not in notes else _kept(opened, context, store)
    form = None if changed is None or opened.held is None else patch.form_of(opened.held.record)
    return Receipt(size, note, None, changed, form, _number(notes.get(ACCEPTED)), notes.get(ORDER))


@dataclass(frozen=True, slots=True, eq=False)
class _Opened:
    """The model that was meant; None where it need not be kept. Where it was changed; None for everywhere."""

    held: Held | None
    changed: Positions | None = None
    stored: bool = False


def _opened(record: ArrayRecord, version: Version | None, context: Context, store: object) -> _Opened:
    changes = record.get(patch.CHANGES)
    if changes is None:
        sound = version is not None and patch.checksum_of(record) == version.checksum
        return _Opened(Held(version, record) if sound and version is not None else None)
    head = patch.read_head(changes)
    held = store.load_model(context) if isinstance(store, ModelStore) else None
    if held is None:
        raise StateError(f"it holds no model of this run, and was sent what changed since model {head.base.number}")
    # Where its last reply was lost it holds a later model than its server knows. Changes hold the new bits wherever any
    # model since has differed, so they lead from that one to the same model; the checksum decides.
    try:
        made, changed = patch.apply(changes, held.record)
    except PayloadError as error:
        raise PayloadError(f"it holds model {held.version.number}: {error}") from None
    return _Opened(Held(head.version, made), changed, stored=head.version == held.version)


def _kept(opened: _Opened, context: Context, store: object) -> str:
    """The version that is safe in the store; empty for none."""
    if opened.held is None or not isinstance(store, ModelStore):
        return ""
    try:
        if not opened.stored:
            store.save_model(context, opened.held)
    except StateError as error:
        _warn(f"node {context.node_id} keeps no model, so that it will be sent whole ones: {error}")
        return ""
    return str(opened.held.version)


def _number(value: object) -> int:
    return value if isinstance(value, int) else 0


@lru_cache(maxsize=64)  # Once for each reason: it would come with every message.
def _warn(text: str) -> None:
    logging.getLogger("joulewise").warning(text)


def _missing(message: Message, reason: str) -> Message:
    note = ConfigRecord({MISSING: reason, HELD: ""})
    return Message(RecordDict({wire.RECORD: note}), reply_to=message)


def _since_training(context: Context, changed: Positions | None, trains: bool) -> Positions | None:
    """What models have changed since the last training, this one included; training begins anew."""
    note = context.state.get(REWRITTEN)
    if isinstance(note, ConfigRecord) and note.get("run-id") == str(context.run_id):
        before = note.get("changed")
        waiting = np.frombuffer(before, np.uint32) if isinstance(before, bytes) else None
        changed = None if changed is None or waiting is None else np.union1d(changed, waiting)
    if trains:
        context.state.pop(REWRITTEN, None)
    else:
        told = ConfigRecord({"run-id": str(context.run_id)})
        if changed is not None:
            told["changed"] = changed.tobytes()
        context.state[REWRITTEN] = told
    return changed


# ---------------------------------------------------------------- as named arrays and in memory


@dataclass(frozen=True, slots=True)
class SharedModels:
    """Models in this process, by run and node; those with the same bits lie in memory once.

    Args:
        models: by run and version, the last `most` of them.
        versions: of each run and node.
        most: how many models are kept; nodes with older ones are sent whole models by their server in any case.
    """

    models: dict[tuple[int, Version], ArrayRecord] = field(default_factory=dict)
    versions: dict[tuple[int, int], Version] = field(default_factory=dict)
    most: int = 16

    def load(self, context: Context) -> Held | None:
        """The model of a node, if it is still there."""
        version = self.versions.get((context.run_id, context.node_id))
        record = None if version is None else self.models.get((context.run_id, version))
        return None if version is None or record is None else Held(version, record)

    def save(self, context: Context, held: Held) -> None:
        """Keep the model of a node."""
        self.versions[context.run_id, context.node_id] = held.version
        self.models.setdefault((context.run_id, held.version), plain(held.record))
        while len(self.models) > self.most:
            del self.models[next(iter(self.models))]


def plain(record: ArrayRecord) -> ArrayRecord:
    """The same bytes as plain arrays of their own."""
    plain = ArrayRecord()
    for name, array in record.items():
        plain[name] = Array(dtype=array.dtype, shape=tuple(array.shape), stype=array.stype, data=array.data)
    return plain


def pack_held(held: Held, run_id: int) -> dict[str, npt.NDArray[Any]]:
    """A held model as named arrays, for a file."""
    packed = patch.pack_record(held.record)
    return packed | {"version": np.array(str(held.version)), "run_id": np.array(run_id, np.uint64)}


def unpack_held(packed: Mapping[str, npt.NDArray[Any]]) -> Held | None:
    """The inverse of `pack_held`; None for anything else."""
    try:
        version = Version.parse(packed["version"].item())
        return None if version is None else Held(version, patch.unpack_record(packed))
    except (KeyError, ValueError):
        return None
