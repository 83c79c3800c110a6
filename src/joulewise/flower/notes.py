"""What server and nodes tell each other beside models and updates."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from flwr.app import ConfigRecord, Message, RecordDict

from joulewise.flower import wire

ACCEPTED = "joulewise.accepted-sequence"
"""In a train request: the number of the node's last reply that was used."""

VERSION = "joulewise.version"
"""In a request: the version of its model, which the node should keep; empty: only say whether you could."""

BEFORE = "joulewise.received-before"
"""In a request: bytes of models that the node was sent since its last reply to a train request."""

ORDER = "joulewise.order"
"""In a train request: what the node's mask may cost, see `orders`."""

HELD = "held"
"""In a reply: the version that the node holds; empty for none."""

MISSING = "missing"
"""In a reply: why the node could not make a model of the changes that it was sent."""


def noted(content: RecordDict, notes: Mapping[str, str | int], create: bool) -> RecordDict:
    """The content with notes in its ConfigRecord; strategies share one record between all nodes.

    Some of Flower's mods want exactly one ConfigRecord, so one is made only where there is none, and only for a node
    that knows what to do with it.
    """
    if not notes:
        return content
    found = ((key, record.copy()) for key, record in content.items() if isinstance(record, ConfigRecord))
    key, config = next(found, (wire.RECORD, ConfigRecord() if create else None))
    if config is None:
        return content
    config.update(notes)
    made = content.copy()
    made[key] = config
    return made


def found(content: RecordDict, name: str) -> object:
    """A note; None where there is none."""
    records = (record for record in content.values() if isinstance(record, ConfigRecord))
    return next((record[name] for record in records if name in record), None)


def take(message: Message) -> Mapping[str, object]:
    """Take the server's notes out of a request's configuration, which the app should find as its strategy wrote it."""
    found: dict[str, object] = {}
    kept: dict[str, Any] = {}
    for key, record in message.content.items():
        notes = [
            name for name in (ACCEPTED, VERSION, BEFORE, ORDER) if isinstance(record, ConfigRecord) and name in record
        ]
        if notes and isinstance(record, ConfigRecord):
            found |= {name: record[name] for name in notes}
            record = ConfigRecord({name: value for name, value in record.items() if name not in notes})  # noqa: PLW2901
            if key == wire.RECORD and not record:
                continue
        kept[key] = record
    if found:
        message.content = RecordDict(kept)
    return found
