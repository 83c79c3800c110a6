"""What a server checks before a strategy may use a reply, and the words for replies that it cannot use.

A node may run another version, hold another model, or be malicious. Whatever it sends, the round goes on: a reply
that fails a check here becomes an error reply to its request, which every strategy of Flower counts as a failure.
"""

from __future__ import annotations

import logging
import math
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from flwr.app import Array, ArrayRecord, Error, Message, MetricRecord

from joulewise.errors import FederationError, PayloadError
from joulewise.flower import wire
from joulewise.layout import Layout
from joulewise.persistence import stored_bits

_log = logging.getLogger("joulewise")

REFUSED = 6  # Flower's code for a mod whose precondition failed; the public names have none.
EXAMPLES = ("num-examples", "num_examples")
"""What apps of today and legacy apps call the number of examples, by which replies are weighed."""

WRONG_ORDER = "expects the keys in the ArrayRecord of the reply message to match"
"""What Flower's clipping mods and LocalDpMod answer when they see a payload instead of arrays."""


# ---------------------------------------------------------------- errors as replies


def refusal(request: Message, reason: str, code: int = REFUSED) -> Message:
    """An error reply to a request, from the node that it went to."""
    return Message(Error(code, reason), reply_to=request)


def told(reason: str) -> str:
    """What a node says went wrong, in one line: Flower writes a class, and on Ray a page of traceback, around it.

    Example:
        >>> told("<class 'ValueError'>:<'no power'>")
        'no power'
    """
    said = reason.rpartition("occurred. Message: ")[2]
    said = said.partition(">:<'")[2] or said
    line = wire.one_line(" ".join(said[:5000].removesuffix("'>").split()), 500)
    if WRONG_ORDER in line:
        return f"{line} Put Sparsify first in the list of mods: it has to see the reply last"
    return line


def paired(requests: list[Message], replies: list[Message]) -> dict[str, tuple[Message, Message]]:
    """Requests with the first reply to each, by id; late and second replies are left out.

    Raises:
        FederationError: a reply does not say what it answers.
    """
    asked = {request.metadata.message_id: request for request in requests}
    pairs: dict[str, tuple[Message, Message]] = {}
    for reply in replies:
        at = reply.metadata.reply_to_message_id
        if not at and reply.has_error():  # Flower's clipping mods answer their own reply where they find a mistake.
            _log.warning("a node answers with an error: %s", told(str(reply.error.reason)))
            continue
        if not at:
            raise FederationError("a reply does not say which request it answers; the Grid must give messages an id")
        if at in asked and at not in pairs:
            pairs[at] = asked[at], reply
            continue
        why = (
            "a second one to the same request" if at in pairs else "it answers no request of this round, so it is late"
        )
        _log.warning("node %d: its reply is left out: %s", reply.metadata.src_node_id, why)
    return pairs


def failed(request: Message, reply: Message) -> Message:
    """The error of a node as one line; where a node is gone, Flower answers in the name of the server."""
    reason = told(str(reply.error.reason))
    _log.warning("node %d: it answers with an error: %s", request.metadata.dst_node_id, reason)
    return refusal(request, reason, reply.error.code)


# ---------------------------------------------------------------- metrics


@dataclass(frozen=True, slots=True)
class Expected:
    """What a strategy looks for in the metrics of every reply, and cannot do without.

    Args:
        weight: the metric by which replies are weighed; None where that is not known.
        others: further metrics that enter the new model.
        alike: whether all replies of a round must have the same metrics, as Flower's strategies demand.
    """

    weight: str | None = None
    others: tuple[str, ...] = ()
    alike: bool = False


def metric_problems(replies: Mapping[str, Message], expected: Expected) -> dict[str, str]:
    """What is wrong with the metrics of replies, by the id of the request; those that are fine are left out.

    Where a strategy demands the same metrics of all, those that most replies have count as right.
    """
    found = {at: problem for at, reply in replies.items() if (problem := _metric_problem(reply, expected))}
    if not expected.alike:
        return found
    forms = {at: _form(reply) for at, reply in replies.items() if at not in found}
    counts = Counter(forms.values())
    usual = max(counts, key=counts.__getitem__, default=())
    for at, form in forms.items():
        if form != usual:
            found[at] = f"its metrics are {_names(form)}, but those of most replies of this round are {_names(usual)}"
    return found


def examples(reply: Message) -> int:
    """How many examples a reply says that it used; 0 where it does not."""
    metrics = {name: value for record in wire.of_kind(reply.content, MetricRecord) for name, value in record.items()}
    counts = (metrics.get(name) for name in EXAMPLES)
    return next((int(count) for count in counts if isinstance(count, int | float) and math.isfinite(count)), 0)


def weight(reply: Message, expected: Expected) -> float:
    """What a reply counts in the average; its examples where the strategy does not say by which metric it weighs."""
    metrics = {name: value for record in wire.of_kind(reply.content, MetricRecord) for name, value in record.items()}
    found = metrics.get(expected.weight) if expected.weight is not None else None
    return float(found) if isinstance(found, int | float) else float(examples(reply))


def _metric_problem(reply: Message, expected: Expected) -> str | None:
    records = wire.of_kind(reply.content, MetricRecord)
    if expected.alike and len(records) != 1:
        return f"it has {len(records)} records of metrics, but the strategy expects 1"
    metrics = {name: value for record in records for name, value in record.items()}
    if expected.weight is not None and expected.weight not in metrics:
        return f"its metrics lack {expected.weight!r}, by which the strategy weighs replies"
    weights = (expected.weight,) if expected.weight is not None else EXAMPLES
    for name in (*weights, *expected.others):
        value = metrics.get(name, 1)
        if not isinstance(value, int | float) or not math.isfinite(value) or value < 0:
            return f"its metric {name!r} must be a finite number of at least 0, but is {value!r:.60}"
        if name in weights and value == 0:
            return f"its metric {name!r} is 0: it has no weight in an average"
    return None


Form = tuple[tuple[str, str, int], ...]


def _form(reply: Message) -> Form:
    """Records and names of a reply's metrics, and how many numbers each has (-1: one that is no list)."""
    return tuple(
        sorted(
            (key, name, len(value) if isinstance(value, list) else -1)
            for key, record in reply.content.items()
            if isinstance(record, MetricRecord)
            for name, value in record.items()
        )
    )


def _names(form: Form) -> str:
    return ", ".join(f"{name:.60}" if size < 0 else f"{name:.60}[{size}]" for _, name, size in form[:8]) or "none"


# ---------------------------------------------------------------- arrays that were not compressed


def like(record: ArrayRecord, base: ArrayRecord) -> ArrayRecord:
    """The arrays of a dense reply, once they are known to be finite arrays of the model that was sent.

    Args:
        record: of the reply.
        base: of the request.

    Returns:
        The same arrays in the order of the model. An element type of the same kind (float64 for float32) is cast.

    Raises:
        PayloadError: a name, shape or element type is another, an array cannot be read, or it holds NaN or infinity.
    """
    if record.keys() != base.keys():
        odd = sorted(record.keys() ^ base.keys())[:3]
        raise PayloadError(f"its arrays have other names than the model that was sent, for example {odd}")
    same = {name: _alike(name, record[name], base[name]) for name in base}
    kept = list(record) == list(base) and all(same[name] is record[name] for name in base)
    return record if kept else ArrayRecord(same)


def check_dense(record: ArrayRecord | None, reply: Message) -> None:
    """A reply of a node without `Sparsify` holds a model like the one that was sent, and nothing that is not finite.

    Raises:
        PayloadError: it does not.
    """
    own = wire.of_kind(reply.content, ArrayRecord)
    if record is None:
        check_finite(own)
        return
    if len(own) != 1:
        raise PayloadError(f"it holds {len(own)} records of arrays, but was asked for the 1 that it was sent")
    reply.content[wire.array_key(reply.content)] = like(own[0], record)


def check_finite(records: Iterable[ArrayRecord]) -> None:
    """Arrays that cannot be compared with what was sent are at least readable and finite.

    Raises:
        PayloadError: one is not; it is named.
    """
    for record in records:
        for name, array in record.items():
            _described(name, array)
            _finite(name, array)


def _alike(name: str, array: Array, base: Array) -> Array:
    if base.stype != wire.NUMPY and array.stype == base.stype:
        return array  # Not for joulewise to read, nor for a strategy that averages.
    (dtype, shape), (wanted, wanted_shape) = _described(name, array), _described(name, base)
    if shape != wanted_shape:
        raise PayloadError(f"its array {name!r} has shape {shape}, but the model that was sent has {wanted_shape}")
    if dtype != wanted and not np.can_cast(dtype, wanted, "same_kind"):
        raise PayloadError(f"its array {name!r} has elements of {dtype}, but the model that was sent has {wanted}")
    values = _finite(name, array)
    if dtype == wanted:
        return array
    with np.errstate(over="ignore"):  # What is too large for the narrower type is seen below.
        narrowed = wire.packed(values.astype(wanted))
    _finite(name, narrowed)
    return narrowed


def _described(name: str, array: Array) -> tuple[np.dtype[Any], tuple[int, ...]]:
    try:
        return wire.described(array)
    except PayloadError as error:
        raise PayloadError(f"its array {name!r} cannot be read: {error}") from None


def _finite(name: str, array: Array) -> npt.NDArray[Any]:
    values = wire.view(array)
    if values.dtype.kind in "fc" and not np.isfinite(values).all():
        raise PayloadError(f"its array {name!r} holds NaN or infinity")
    return values


# ---------------------------------------------------------------- compressed replies


def largest_payload(layout: Layout) -> int:
    """More bytes than any payload of this layout has.

    A coordinate that is kept takes at most 32 bits of value and 8 of its code, and one that is not at most 2 of its
    place; a table entry has at most 300 bytes.

    Example:
        >>> largest_payload(Layout.single(1000))
        5628
    """
    whole = sum(stored_bits(tensor) // 8 for tensor in layout.wholes)
    return 128 + 5 * layout.n + 500 * len(layout.tensors) + whole


def check_size(sent: wire.Reply, layout: Layout, limit: int | None) -> None:
    """A payload is no larger than agreed, which is known before it is decoded.

    Args:
        sent: the reply.
        layout: of the model that was sent.
        limit: the most bytes of a payload; None for `largest_payload`.

    Raises:
        PayloadError: it is larger.
    """
    most = largest_payload(layout) if limit is None else limit
    if len(sent.payload) > most:
        raise PayloadError(f"its payload has {len(sent.payload)} bytes, but at most {most} are agreed")


def check_number(sent: wire.Reply, accepted: int) -> None:
    """A reply's number is above those that were used before, so that nothing is used twice.

    Raises:
        PayloadError: it is not.
    """
    if not accepted < sent.sequence < 2**62:
        raise PayloadError(
            f"it has the number {sent.sequence}, but the last that was used has {accepted}: it is an old one, or forged"
        )


def check_feedback(sent: wire.Reply, again: bool, legacy: bool) -> None:
    """What a node remembers is counted once, as the server tells it.

    Args:
        sent: the reply.
        again: whether the node was asked twice in this round.
        legacy: whether the strategy is one that does not say which replies it uses.

    Raises:
        PayloadError: it cannot be.
    """
    if again and sent.feedback:
        raise PayloadError(
            "the node was asked to train twice in one round, so that with error feedback it would be counted "
            "twice; ask each node once, or use Sparsify(feedback=None)"
        )
    if legacy and sent.feedback:
        raise PayloadError(
            "legacy strategies do not say which replies they use, so error feedback would send everything twice; "
            "use Sparsify(feedback=None), or a strategy of flwr.serverapp"
        )
