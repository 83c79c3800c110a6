"""Who may spend how much of a fleet's joules in a round: the server's side, from orders to books."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping
from dataclasses import asdict, replace
from typing import Any

import msgspec
import numpy as np
import numpy.typing as npt

from joulewise import fleet
from joulewise.curves import POINTS, Curve
from joulewise.errors import FederationError, PayloadError
from joulewise.fleet import Allocation, Books, Known, OnePrice
from joulewise.flower import orders
from joulewise.flower.orders import Order
from joulewise.flower.wire import Reply
from joulewise.rules import Density, Joules

_log = logging.getLogger("joulewise")


class Allotter:
    """Hands out a fleet's joules before a round and books them after it.

    Nodes are counted in the order of their numbers (partitions, where they have said theirs), so that sums are the
    same on every engine.

    Args:
        allocation: how joules are divided.
    """

    def __init__(self, allocation: Allocation) -> None:
        self.allocation = allocation
        self.books = Books()
        self._known: dict[int, Known] = {}
        self._numbers: dict[int, int] = {}
        self._orders: dict[int, fleet.Order] = {}
        self._spent: dict[int, float] = {}
        self._batch: object = None

    def ask(self, nodes: Iterable[int], batch: object) -> dict[int, str]:
        """An order for each node that is asked to train, as the text of a note.

        Args:
            nodes: of one round.
            batch: the round, or what stands for it.

        Raises:
            FederationError: these are further nodes of a round whose joules are handed out already.
        """
        asked = sorted(dict.fromkeys(nodes), key=lambda node: (self._numbers.get(node, node), node))
        if self._orders and (batch is self._batch or (isinstance(batch, int) and batch == self._batch)):
            raise FederationError(
                "the joules of this round are handed out, and more nodes are asked to train in it; with an allocation "
                "send all train requests of a round in one call"
            )
        self.close()
        self._batch = batch
        self._orders, self.books = fleet.hand_out(
            self.allocation, self.books, {node: self._known.get(node) for node in asked}
        )
        return {node: self._order(order).text() for node, order in self._orders.items()}

    def _order(self, order: fleet.Order) -> Order:
        assert isinstance(order.budget, Joules | Density)  # No allocation hands out anything else.
        by_curves = isinstance(self.allocation, OnePrice) and self.allocation.control == "curves"
        return Order(order.budget, order.price, POINTS if by_curves else 0)

    def allowed_j(self, node: int) -> float | None:
        """Energy that a node's mask may cost in this round; None where it was given a density."""
        order = self._orders.get(node)
        return order.budget.budget if order is not None and isinstance(order.budget, Joules) else None

    def price(self, node: int) -> float | None:
        """Value per joule that the round asks of a node, in its own terms; None where there is none."""
        order = self._orders.get(node)
        return None if order is None else order.price

    def heard(self, node: int, number: int, sent: Reply, examples: int) -> None:
        """Take down what a node says, whose reply can be used; nonsense is logged, and nothing is known of it then."""
        self._numbers[node] = number
        try:
            said, curve = orders.heard(sent.said, sent.curve)
            if said is None:
                return
            known = Known(examples, said.dense_j, curve, said.wanted_j, said.margin, said.exponent)
            self._known[node] = fleet.checked(node, known)
            self._spent[node] = said.spent_j
        except PayloadError as error:
            self._known.pop(node, None)
            _log.warning("node %d: what it says of its energy is left out: %s", node, error)

    def close(self) -> None:
        """The round is over, whether its replies were used or not: what was spent is spent."""
        if self._orders:
            spent = {
                node: energy for node, energy in self._spent.items() if node in self._orders and node in self._known
            }
            self.books = fleet.book(self.allocation, self.books, self._orders, spent, self._known)
        self._orders, self._spent, self._batch = {}, {}, None

    # ---------------------------------------------------------------- checkpoints

    def pack(self, partitions: Mapping[int, int]) -> npt.NDArray[np.uint8]:
        """Books and what is known of each partition, between two rounds."""
        known = {
            str(partitions[node]): asdict(replace(each, curve=None)) | {"curve": each.curve and each.curve.to_bytes()}
            for node, each in sorted(self._known.items(), key=lambda item: partitions[item[0]])
        }
        return np.frombuffer(msgspec.json.encode({"books": asdict(self.books), "known": known}), np.uint8)

    def unpack(self, packed: npt.NDArray[Any], nodes: Mapping[int, int]) -> None:
        """The inverse of `pack`."""
        held = msgspec.json.decode(packed.tobytes(), type=_Held)
        self.books = Books(**held.books)
        for partition, each in held.known.items():
            curve = None if each.curve is None else Curve.from_bytes(each.curve)
            fields = {field: getattr(each, field) for field in each.__struct_fields__ if field != "curve"}
            node = nodes[int(partition)]
            self._known[node], self._numbers[node] = Known(**fields, curve=curve), int(partition)


class _Client(msgspec.Struct, frozen=True):
    examples: int
    dense_j: float
    curve: bytes | None
    wanted_j: float | None
    margin: float | None
    exponent: int


class _Held(msgspec.Struct, frozen=True):
    books: dict[str, Any]
    known: dict[str, _Client]
