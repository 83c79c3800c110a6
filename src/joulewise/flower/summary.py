"""What a node says of an update that it holds, and the order that it then gets: two short messages of a round.

    train request, asks   ->  trains, holds its update
                          <-  summary: its curve in the place of arrays, and the app's metrics
    order                 ->  compresses what it holds
                          <-  the payload, as in any reply

An order is a train request without a model, so that Flower hands it to the same mods. It names the request that it
follows by a ticket, which both sides make of that request's id.
"""

from __future__ import annotations

from dataclasses import dataclass
from hashlib import blake2b

from flwr.app import Array, ArrayRecord, ConfigRecord, Message, RecordDict

from joulewise.errors import PayloadError
from joulewise.flower import wire
from joulewise.flower.notes import ORDER

SERIALIZATION = "joulewise.summary.v1"
TICKET = "joulewise.ticket"
TICKET_BYTES = 8
MOST_ORDER_BYTES = 256 + 2 * TICKET_BYTES
"""Of an order as this server writes it: two or three numbers with their names, and the ticket."""


@dataclass(frozen=True, slots=True)
class Summary:
    """What a node says of the update that it holds.

    Args:
        said: of its energy, see `orders.Said`.
        curve: its energy-price curve, as it goes over the wire.
        partition: which it says that it is.
        device: name of its device.
        local: names of the tensors that never leave it.
    """

    said: bytes
    curve: bytes
    partition: int
    device: str = ""
    local: tuple[str, ...] = ()


def write(content: RecordDict, summary: Summary) -> None:
    """Replace the arrays of a reply by a summary."""
    size = len(summary.curve)
    packed = Array(dtype="uint8", shape=(size,), stype=SERIALIZATION, data=summary.curve)
    content[wire.array_key(content)] = ArrayRecord({wire.PAYLOAD: packed})
    note = ConfigRecord({"said": summary.said, "partition": summary.partition})
    if summary.device:
        note["device"] = summary.device
    if summary.local:
        note["local"] = list(summary.local)
    content[wire.RECORD] = note


def read(content: RecordDict) -> Summary | None:
    """What `write` put into a reply; None for any other reply.

    Raises:
        PayloadError: the reply's record is not as joulewise writes it.
    """
    record = wire.only_arrays(content)
    if record is None or wire.PAYLOAD not in record or record[wire.PAYLOAD].stype != SERIALIZATION:
        return None
    found = content.get(wire.RECORD)
    note = found if isinstance(found, ConfigRecord) else ConfigRecord()
    said, partition = wire.told(note.get("said")), note.get("partition")
    if not said or type(partition) is not int:
        raise PayloadError("reply has a curve, but not the record that says what its update costs")
    device, local = wire.name(note.get("device")), wire.local_names(note)
    return Summary(said, record[wire.PAYLOAD].data, partition, device, local)


def order_to(request: Message, text: str) -> Message:
    """The message that tells the node of a train request what it may spend."""
    data = request.metadata
    note = ConfigRecord({ORDER: text, TICKET: ticket_of(request)})
    return Message(
        RecordDict({wire.RECORD: note}),
        dst_node_id=data.dst_node_id,
        message_type=data.message_type,
        ttl=data.ttl,
        group_id=data.group_id,
    )


def order_in(message: Message) -> tuple[str, str] | None:
    """Ticket and order of a message; None where it is none that follows a summary."""
    note = message.content.get(wire.RECORD) if wire.is_train(message) else None
    if not isinstance(note, ConfigRecord) or TICKET not in note:
        return None
    return str(note[TICKET]), str(note.get(ORDER))


def size_of(ticket: str, text: str) -> int:
    """Bytes of an order and its ticket."""
    return len(ticket.encode()) + len(text.encode())


def ticket_of(request: Message) -> str:
    """What stands for a train request at both ends: of one length on every engine, whose ids differ."""
    return blake2b(request.metadata.message_id.encode(), digest_size=TICKET_BYTES).hexdigest()
