"""Requests as their strategy made them, and as they are sent."""

from __future__ import annotations

from dataclasses import dataclass, field

from flwr.app import Array, ArrayRecord, Message, RecordDict
from flwr.serverapp import Grid

from joulewise.flower import patch, wire
from joulewise.flower.patch import Positions, Version


@dataclass(frozen=True, slots=True)
class Download:
    """The model of one request as it was really sent.

    Args:
        node: who it was sent to.
        message_type: ``train`` or ``evaluate``, with its action.
        bytes: of the arrays.
        objects: that Flower makes of the message.
        whole: whether it was the whole model rather than changes.
    """

    node: int
    message_type: str
    bytes: int
    objects: int
    whole: bool


@dataclass(frozen=True, slots=True, eq=False)
class Parcel:
    """A request as the strategy made it, and the content that goes over the link.

    Args:
        request: in the words of the strategy.
        content: what is sent instead of its own.
        model: the model that it is about.
        download: that model as it is sent.
        asks: whether the content asks the node which model it holds.
    """

    request: Message
    content: RecordDict
    model: Model | None = None
    download: Download | None = None
    asks: bool = False


@dataclass(frozen=True, slots=True, eq=False)
class Changes:
    """What a node is sent instead of a model, and which elements it changes."""

    array: Array
    positions: Positions


@dataclass(frozen=True, slots=True, eq=False)
class Booked:
    """What a node was sent since its last compressed reply.

    Args:
        size: bytes of models.
        changed: of each, which elements it changed; None where one was whole.
        form: of the model that they count in.
    """

    size: int
    changed: tuple[Positions, ...] | None = None
    form: patch.Form | None = None

    @property
    def positions(self) -> Positions | None:
        """Which elements were changed in all; None for every one."""
        if self.changed is None or self.form is None:
            return None
        return patch.union(self.changed)


@dataclass(frozen=True, slots=True, eq=False)
class Model:
    """A model that is sent in this round: the server's own, the one that nodes get, its version, whether to keep it."""

    own: ArrayRecord
    public: ArrayRecord
    version: Version | None
    keep: bool = True
    changes: dict[Version, Changes | None] = field(default_factory=dict)


def model_of(request: Message) -> ArrayRecord | None:
    """The model of a train or evaluate request; None where there is none, or more than one."""
    kind = request.metadata.message_type.split(".")[0]
    return wire.only_arrays(request.content) if kind in {"train", "evaluate"} and request.has_content() else None


def changes_alone(changes: Changes) -> ArrayRecord:
    """Changes in the place of a model."""
    return ArrayRecord({patch.CHANGES: changes.array})


def deliver(grid: Grid, parcels: list[Parcel], timeout: float | None) -> list[Message]:
    """Send parcels. Grids note the id of a message in the message, so it is the request itself that is sent."""
    contents = [parcel.request.content for parcel in parcels]
    for parcel in parcels:
        parcel.request.content = parcel.content
    try:
        return list(grid.send_and_receive([parcel.request for parcel in parcels], timeout=timeout))
    finally:
        for parcel, content in zip(parcels, contents, strict=True):
            parcel.request.content = content
