"""The server's side of a sparse downlink: what each node holds, and what it is sent instead of a whole model.

A request names the version of its model; a node that runs `Sparsify` keeps that model and says in its reply that it
holds it. From then on it gets what changed since, and a node that turns out to hold nothing gets the whole model at
once. Nodes that have not said so never get changes, and those that answer without saying so are not asked again.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Iterable, Mapping
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
from flwr.app import ArrayRecord, ConfigRecord, Message
from flwr.serverapp import Grid

from joulewise.errors import FederationError, RuleError
from joulewise.flower import patch, wire
from joulewise.flower.checked import refusal
from joulewise.flower.lossy import Lossy, followed
from joulewise.flower.nodes import Nodes
from joulewise.flower.notes import BEFORE, HELD, MISSING, VERSION, noted
from joulewise.flower.parcels import Booked, Changes, Download, Model, Parcel, changes_alone, deliver, model_of
from joulewise.flower.patch import Positions, Version
from joulewise.flower.versions import WORTH, Versions
from joulewise.layout import Kind

Setting = Literal["off", "lossless"] | Lossy

_log = logging.getLogger("joulewise")


class Downlink:
    """What nodes hold, and what they are sent.

    Args:
        setting: ``off``, ``lossless`` or `Lossy`.
        kinds: as in `joulewise.flower.Sparsify`.

    Attributes:
        downloads: what the last exchange sent, for whoever keeps books.
        nodes: what is known of each.
    """

    def __init__(self, setting: Setting, kinds: Mapping[str, Kind]) -> None:
        self.setting = checked(setting)
        self.downloads: tuple[Download, ...] = ()
        self.nodes = Nodes()
        self._kinds = dict(kinds)
        self._versions = Versions()
        self._last_public: ArrayRecord | None = None  # Not always the newest version: it may be an older one again.
        self._followed: bytes | None = None  # Checksum of the server's model that the public one has last followed.
        self._told = False
        self._lock = threading.Lock()  # Legacy servers ask each client from a thread of its own.

    def exchange(
        self, grid: Grid, requests: list[Message], timeout: float | None
    ) -> tuple[list[Message], list[Message], tuple[Download, ...]]:
        """Send requests in as few bytes as their nodes allow, and wait for replies.

        Returns:
            The requests in the words of their strategy, under the ids that the replies answer; the replies; and the
            models that were sent.
        """
        began = time.monotonic()
        with self._lock:
            models = self._models(requests)
            parcels = [self._packed(request, models) for request in requests]
        came = deliver(grid, parcels, timeout)
        with self._lock:
            replies, missed = self._sort(parcels, came)
        sent = list(parcels)
        left_s = None if timeout is None else timeout - (time.monotonic() - began)
        if missed and left_s is not None and left_s <= 0:
            _log.warning("there is no time left to send %d nodes the whole model", len(missed))
        elif missed:
            with self._lock:
                again = [self._whole(parcel) for parcel in missed]
            came = deliver(grid, again, left_s)
            with self._lock:
                late, _ = self._sort(again, came)
            lost = {id(parcel) for parcel in missed}
            replies, sent = replies + late, [parcel for parcel in parcels if id(parcel) not in lost] + again
            parcels += again
        downloads = tuple(parcel.download for parcel in parcels if parcel.download is not None)
        self.downloads = downloads
        return [parcel.request for parcel in sent], replies, downloads

    def book(self, node: int, flash: bool) -> Booked:
        """What a node was sent since this was last asked for; it has answered with a compressed reply.

        Args:
            node: which.
            flash: whether its weights lie in flash, so that it matters which elements its next models change.
        """
        booked = self.nodes.book(node, self._versions.form)
        self.nodes.watch(node, flash)
        return booked

    def refuse_whole(self, node: int) -> None:
        """A whole model came back from a node.

        Raises:
            FederationError: the node was sent the public model of a lossy downlink, to which the rest would be lost.
        """
        if isinstance(self.setting, Lossy) and node in self.nodes.held:
            self.nodes.lacks_the_mod(node)
            raise FederationError(
                "it answers with a whole model, but was sent the public one of a lossy downlink, so that what nodes "
                "have not been sent yet would be lost; put Sparsify first in its mods, or use downlink='lossless'"
            )

    # What a request is made of.

    def _models(self, requests: Iterable[Message]) -> dict[int, Model]:
        """The models of a round by identity of their records; usually one."""
        found: dict[int, Model] = {}
        for request in requests:
            record = model_of(request)
            if record is not None and id(record) not in found:
                found[id(record)] = self._model(record)
        if isinstance(self.setting, Lossy) and len({model.version for model in found.values()}) > 1:
            raise FederationError(
                "nodes are sent different models in one round, but a lossy downlink follows one; "
                "use downlink='lossless'"
            )
        return found

    def _model(self, own: ArrayRecord) -> Model:
        if self.setting == "off":
            return Model(own, own, None)
        public = self._public(own, self.setting) if isinstance(self.setting, Lossy) else own
        self._versions, version = self._versions.plus(public)
        # Where everything changes, the next model will be sent whole too: nodes need not keep this one.
        share = self._versions.share if version == self._versions.newest else None
        moved = share is not None and share > WORTH
        if moved and self.nodes.held and not self._told:  # Where no node runs Sparsify, there is nothing to spare.
            self._told = True
            _log.warning(
                "the new model differs from the one before in %.0f %% of its elements, so nodes are sent it whole: "
                "server optimizers, momentum, noise and dense updates move most; downlink=Lossy(0.05) sends a part",
                100 * (share or 0),
            )
        return Model(own, public, version, keep=not moved)

    def _public(self, own: ArrayRecord, setting: Lossy) -> ArrayRecord:
        """The public model, which takes one step with each new model of the server."""
        checksum, last = patch.checksum_of(own), self._last_public or self._versions.record
        if last is None or checksum == self._followed:
            public = own if last is None else last
        else:
            public = followed(last, own, setting.density, self._kinds)
        self._followed, self._last_public = checksum, public
        return public

    def _packed(self, request: Message, models: Mapping[int, Model]) -> Parcel:
        record = model_of(request)
        if record is None:
            return Parcel(request, request.content)
        node, model = request.metadata.dst_node_id, models[id(record)]
        if node not in self.nodes.held:  # It may have no Sparsify: then its reply is a model, and not for a public one.
            return self._parcel(request, model, model.own)
        changes = self._changes(self.nodes.held[node], model)
        if changes is None:
            return self._parcel(request, model, model.public)
        return self._parcel(request, model, changes_alone(changes), changes.positions)

    def _whole(self, parcel: Parcel) -> Parcel:
        """The same request anew, with the whole model."""
        old, model = parcel.request, parcel.model
        assert model is not None  # Only changes are ever missed.
        data = old.metadata
        request = Message(
            old.content, dst_node_id=data.dst_node_id, message_type=data.message_type, ttl=data.ttl,
            group_id=data.group_id,
        )  # fmt: skip
        return self._parcel(request, model, model.public)

    def _parcel(self, request: Message, model: Model, sent: ArrayRecord, changed: Positions | None = None) -> Parcel:
        node, size = request.metadata.dst_node_id, wire.size_of(sent)
        before = self.nodes.sent(node, size, changed)
        notes: dict[str, str | int] = {}
        if model.version is not None and self.nodes.may_hold(node):
            other = sent is model.own and model.own is not model.public  # Of which there is no version.
            notes[VERSION] = str(model.version) if model.keep and not other else ""
        if before and wire.is_train(request):
            notes[BEFORE] = before
        content = noted(request.content, notes, node in self.nodes.held)
        asks = VERSION in notes and content is not request.content
        if sent is not model.own:
            content = content.copy()
            content[wire.array_key(content)] = sent
        download = Download(node, request.metadata.message_type, *wire.crossing(content), patch.CHANGES not in sent)
        return Parcel(request, content, model, download, asks)

    def _changes(self, held: Version | None, model: Model) -> Changes | None:
        if held is None or model.version is None:
            return None
        if held not in model.changes:
            array = self._versions.changes(held, model.version, model.public)
            positions = self._versions.between(held, model.version)
            both = None if array is None or positions is None else Changes(array, positions)
            model.changes[held] = both
        return model.changes[held]

    # What a reply says.

    def _sort(self, parcels: list[Parcel], replies: list[Message]) -> tuple[list[Message], list[Parcel]]:
        """Replies for the strategy, without the notes; and the requests whose nodes lack what changed."""
        waiting = {parcel.request.metadata.message_id: parcel for parcel in parcels}
        answers, missed = [], []
        for reply in replies:
            parcel = waiting.pop(reply.metadata.reply_to_message_id, None)  # Only the first reply to each counts.
            if parcel is not None and parcel.download is not None and reply.has_error():
                self._failed(parcel.download, reply)
            if parcel is None or parcel.download is None or not reply.has_content():
                answers.append(reply)
                continue
            reason = self._heard(parcel, reply)
            if reason is None:
                answers.append(reply)
            elif not parcel.download.whole:
                missed.append(parcel)
                _log.warning("node %d is sent the whole model: %s", parcel.download.node, reason)
            else:
                _log.warning("node %d lacks a model that it was sent whole: %s", parcel.download.node, reason)
                answers.append(refusal(parcel.request, reason))
        return answers, missed

    def _failed(self, download: Download, reply: Message) -> None:
        """A node failed: it may hold this model or the one before, or no longer run Sparsify."""
        if reply.metadata.src_node_id == download.node and download.node in self.nodes.held:
            self.nodes.holds(download.node, None)

    def _heard(self, parcel: Parcel, reply: Message) -> str | None:
        """Take the notes of a node out of its reply; why it could not use what it was sent."""
        node, note = parcel.request.metadata.dst_node_id, reply.content.get(wire.RECORD)
        known: Mapping[str, object] = note if isinstance(note, ConfigRecord) else {}
        held, reason = known.get(HELD), known.get(MISSING)
        if isinstance(note, ConfigRecord):
            note.pop(HELD, None)
            if not note:
                del reply.content[wire.RECORD]
        if isinstance(held, str):
            self.nodes.holds(node, Version.parse(held))
        elif parcel.asks:
            compressed = wire.only_arrays(reply.content)
            if wire.is_train(reply) and compressed is not None and wire.PAYLOAD in compressed:
                self.nodes.holds(node, None)
            elif node not in self.nodes.held or not isinstance(self.setting, Lossy):
                self.nodes.lacks_the_mod(node)  # Or Sparsify is gone.
        return wire.one_line(reason) if isinstance(reason, str) else None

    # What a checkpoint holds.

    def packed(self, partitions: Mapping[int, int]) -> dict[str, npt.NDArray[Any]]:
        """As named arrays, nodes by partition."""
        packed = {f"versions/{name}": array for name, array in self._versions.packed().items()}
        packed |= self.nodes.packed(partitions)
        if self._followed is not None:
            packed["followed"] = np.frombuffer(self._followed, np.uint8)
        return packed

    def unpack(self, packed: Mapping[str, npt.NDArray[Any]], nodes: Mapping[int, int]) -> None:
        """Go on from what `packed` returned; `nodes` is the node of each partition."""
        parts = {
            name.removeprefix("versions/"): array for name, array in packed.items() if name.startswith("versions/")
        }
        self._versions = Versions.unpacked(parts) if parts else Versions()
        self.nodes.unpack(packed, nodes)
        self._followed = packed["followed"].tobytes() if "followed" in packed else None

    @property
    def versions(self) -> tuple[Version, ...]:
        """The versions that are kept, from old to new."""
        return tuple(step.version for step in self._versions.steps)


def checked(setting: object) -> Setting:
    """A setting of the downlink.

    Raises:
        RuleError: it is none.
    """
    if isinstance(setting, Lossy) or setting in ("off", "lossless"):
        return setting
    raise RuleError(f"downlink={setting!r}, but it is 'off', 'lossless' or Lossy(density), such as Lossy(0.05)")
