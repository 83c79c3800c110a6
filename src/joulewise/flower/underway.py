"""The round that is under way: which replies wait to be used, and what becomes of the arrays that are made of them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt
from flwr.app import Array, ArrayRecord, ConfigRecord, Message

from joulewise.codec import Decoded
from joulewise.errors import PayloadError
from joulewise.flower import local, wire
from joulewise.flower.averaging import Touched, same_bits
from joulewise.flower.estimate import Coming, Estimate
from joulewise.flower.received import Base
from joulewise.layout import Layout


@dataclass(slots=True)
class UnderWay:
    """What is known of a round until it is accepted or discarded.

    Args:
        batch: what its train requests belong to: their round number, or the record that they share.
        waiting: number of the last reply of each node.
        types: element types of the models that were sent.
        touched: coordinates that replies have moved.
        stayed: what no node has sent, as it was sent to them; None where none has answered.
        usual: what most of its first replies are: whether of EF21, and if so which tensors stay on the node.
        coming: the estimate as it will be, with EF21.
        base: the model that it moves; None where not all nodes were sent the same.
    """

    batch: object = None
    waiting: dict[int, int] = field(default_factory=dict)
    types: dict[str, np.dtype[Any]] = field(default_factory=dict)
    touched: Touched = field(default_factory=Touched)
    stayed: dict[str, Array] | None = None
    usual: tuple[bool, tuple[str, ...]] | None = None
    coming: Coming | None = None
    base: Base | None = None

    def asked(self, requests: list[Message]) -> UnderWay:
        """The round to which these train requests belong: this one, or a new one, where this one was not used."""
        batch, own = batch_of(requests[0]), self
        if self.batch is None or (batch is not self.batch and batch != self.batch):
            own = UnderWay(batch)
        for record in _models(requests):
            own.types |= wire.types_of(record)
        return own

    def add(self, node: int, sequence: int, base: Base, decoded: Decoded, record: ArrayRecord) -> None:
        """A compressed reply can be used: its node, its number, what it changes, and the model that was sent."""
        stayed = {tensor.name: record[tensor.name] for tensor in base.layout.locals}
        before = stayed if self.stayed is None else self.stayed
        self.stayed = {name: array for name, array in stayed.items() if name in before}
        self.waiting[node] = sequence
        self.touched.add(base, decoded)

    def begin(self, replies: Iterable[wire.Reply | None]) -> None:
        """Find what most of these replies are, lest one node that is set otherwise keep all others out.

        Args:
            replies: of the round's first call; None for a whole model.
        """
        every = list(replies)
        found = Counter(each.local for each in every if each is not None and each.estimates)
        if 2 * found.total() > len(every):
            self.usual = True, max(found, key=found.__getitem__)
        elif every:
            self.usual = False, ()

    def check_estimates(self, sent: wire.Reply | None, estimate: Estimate) -> None:
        """All nodes of a run have EF21, or none.

        Args:
            sent: a reply; None for a whole model.
            estimate: of the rounds before.

        Raises:
            PayloadError: it is of the other kind than most are, or than those before.
        """
        estimates = sent is not None and sent.estimates
        others = estimate.total is not None or self.usual is None or self.usual[0]
        if estimates and not others:
            raise PayloadError(
                "it is of EF21, but other replies of this run are not, or the server has lost what it knew of them; "
                "give all nodes feedback=EF21(), or none, or begin a new run"
            )
        if others and not estimates:
            raise PayloadError(
                "it is not of EF21, but others are, and the model moves by their mean; give all nodes feedback=EF21(), "
                "or begin a new run"
            )

    def check_layout(self, sent: wire.Reply, layout: Layout, estimate: Estimate) -> None:
        """All nodes send the same tensors, of which there is one mean.

        Raises:
            PayloadError: these are others.
        """
        known = estimate.fingerprint if self.coming is None else self.coming.layout.fingerprint
        same = known == layout.fingerprint if known is not None else self.usual in {None, (True, sent.local)}
        if not same:
            raise PayloadError(
                "its tensors are not those of the other nodes, and EF21 keeps one mean of all; let all nodes keep the "
                "same tensors local, or use ErrorFeedback()"
            )

    def estimated(
        self, estimate: Estimate, node: int, partition: int, weight: float, base: Base, decoded: Decoded
    ) -> ArrayRecord:
        """The arrays that a strategy sees of a reply of EF21: the model moved by the mean of all estimates."""
        if self.coming is None:
            self.coming, self.base = Coming(estimate, base.layout), base
        if self.base is not None and not same_bits(self.base, base):
            self.base = None
        self.coming.add(node, partition, weight, decoded.selection)
        return base.moved(self.coming, decoded.whole)

    def add_whole(self) -> None:
        """A whole model can be used, which may have moved all of it."""
        self.touched.add_everything()
        self.stayed = {}

    def settled(self, arrays: ArrayRecord, averaged: bool) -> ArrayRecord:
        """What an aggregation returned, in the types that were sent; what nobody sent or moved is as it was."""
        arrays = local.restored(arrays, self.stayed or {})
        named = wire.to_numpy(arrays)
        cast = {name: _cast(array, self.types.get(name)) for name, array in named.items()}
        if averaged:
            cast = self.touched.restored(cast) if self.coming is None else cast | self._moved()
        return arrays if all(cast[name] is named[name] for name in named) else wire.to_record(cast)

    def _moved(self) -> dict[str, npt.NDArray[Any]]:
        """The parameters moved by the mean of all estimates, without the rounding of an average of equal numbers."""
        if self.base is None or self.coming is None:
            return {}
        moved = self.base.moved(self.coming, {})
        return {tensor.name: moved[tensor.name].numpy() for tensor in self.base.layout.tensors}


def batch_of(request: Message) -> object:
    """What a train request belongs to: its round number, or the model that the requests of a round share."""
    configs = wire.of_kind(request.content, ConfigRecord)
    number = next((config["server-round"] for config in configs if "server-round" in config), None)
    return wire.only_arrays(request.content) if number is None else number


def _models(requests: Iterable[Message]) -> Iterable[ArrayRecord]:
    """The models of requests, each once; usually all share one."""
    found = [record for request in requests if (record := wire.only_arrays(request.content)) is not None]
    return {id(record): record for record in found}.values()


def _cast(array: npt.NDArray[Any], dtype: np.dtype[Any] | None) -> npt.NDArray[Any]:
    if dtype is None or array.dtype == dtype:
        return array
    return (np.rint(array) if dtype.kind in "iu" else array).astype(dtype)
