"""Tensors that stay on their client (FedBN, FedPer): never sent, and never overwritten by the received model.

The client's own values are put into a message before the app sees it, and kept in the node's store after training.
Li et al., "FedBN", ICLR 2021; Arivazhagan et al., "Federated Learning with Personalization Layers", 2019.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from fnmatch import fnmatchcase
from glob import escape
from typing import Any

import numpy as np
from flwr.app import Array, ArrayRecord, Message

from joulewise.compress import ClientState
from joulewise.errors import LayoutError, PayloadError, StateError, UpdateError
from joulewise.flower import wire
from joulewise.layout import Arrays, Kind, Layout


def matching(names: Iterable[str], patterns: Sequence[str]) -> list[str]:
    """The names that one of the patterns fits.

    Example:
        >>> matching(["conv.weight", "head.weight", "head.bias"], ["head.*"])
        ['head.weight', 'head.bias']
    """
    return [name for name in names if any(fnmatchcase(name, pattern) for pattern in patterns)]


def check(patterns: Sequence[str], record: ArrayRecord) -> None:
    """Every pattern fits a tensor: a slip of the pen would send what is meant to stay.

    Raises:
        LayoutError: one fits none.
    """
    for pattern in patterns:
        if not matching(record, [pattern]):
            known = ", ".join(list(record)[:5])
            raise LayoutError(f"local={pattern!r} matches no tensor; the model's tensors begin with: {known}")


def put_in(message: Message, record: ArrayRecord, patterns: Sequence[str], state: ClientState | None) -> ArrayRecord:
    """Put the client's own values into a message; those that were received stay where it has none yet.

    Raises:
        StateError: its own values have other shapes than the model's.
    """
    own = {} if state is None else state.local or {}
    mine = {name: _same_shape(name, own[name], record[name]) for name in matching(record, patterns) if name in own}
    if not mine:
        return record
    # Records may be shared with other messages, so a new one is made.
    changed = ArrayRecord({name: mine.get(name, array) for name, array in record.items()})
    message.content[wire.array_key(message.content)] = changed
    return changed


def taken(after: Arrays, before: Arrays, layout: Layout) -> Mapping[str, Any] | None:
    """The client's own values after training, to be kept in the types of the model; None where nothing stays.

    Raises:
        LayoutError: a tensor has another shape or kind of elements than the one that was handed to the app.
        UpdateError: it holds NaN or infinity.
    """
    return {
        tensor.name: _sound(tensor.name, after[tensor.name], before[tensor.name]) for tensor in layout.locals
    } or None


def _sound(name: str, own: Any, was: Any) -> Any:
    if own.shape != was.shape or not np.can_cast(own.dtype, was.dtype, "same_kind"):
        raise LayoutError(
            f"the app answered with the local tensor {name!r} as {own.dtype}{own.shape}, but was handed "
            f"{was.dtype}{was.shape}; answer with arrays of the model that was received"
        )
    with np.errstate(over="ignore"):  # What is too large for the narrower type is seen below.
        kept = np.array(own, was.dtype)
    if kept.dtype.kind in "fc" and not np.isfinite(kept).all():
        raise UpdateError(f"the local tensor {name!r} holds NaN or infinity after training; lower the learning rate")
    return kept


def kept_back(reply: Message, patterns: Sequence[str]) -> Message:
    """A reply that is not compressed, once it is known to hold no local tensor.

    Raises:
        LayoutError: it holds one.
    """
    if patterns and reply.has_content():
        for record in wire.of_kind(reply.content, ArrayRecord):
            for name in matching(record, patterns):
                raise LayoutError(
                    f"the app's answer holds the local tensor {name!r} in a form that Sparsify passes on as it is; "
                    "answer with one ArrayRecord to a train request with one, and with none to others"
                )
    return reply


def kinds_with(names: Sequence[str], record: ArrayRecord, kinds: Mapping[str, Kind]) -> dict[str, Kind]:
    """Kinds of a model's tensors, of which a reply says that some stayed on its client.

    Raises:
        PayloadError: it names a tensor that the model does not have.
    """
    unknown = [name for name in names if name not in record]
    if unknown:
        raise PayloadError(f"it calls {unknown[0]!r:.60} local, which the model that was sent does not have")
    local: dict[str, Kind] = {escape(name): "local" for name in names}
    return local | {pattern: kind for pattern, kind in kinds.items() if pattern not in local}


def restored(arrays: ArrayRecord, sent: Mapping[str, Array]) -> ArrayRecord:
    """New arrays, in which those that nobody sent are the server's own again: an average moves their last bits."""
    if not sent.keys() & arrays.keys():
        return arrays
    return ArrayRecord({name: sent.get(name, array) for name, array in arrays.items()})


def _same_shape(name: str, own: Any, received: Array) -> Array:
    dtype, shape = wire.described(received)
    if own.shape != shape or own.dtype != dtype:
        raise StateError(
            f"the client's own {name!r} has {own.dtype}{own.shape}, but the model has {dtype}{shape}; delete its state"
        )
    return wire.packed(own)
