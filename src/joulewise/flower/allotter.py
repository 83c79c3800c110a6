"""Who may spend how much of a fleet's joules in a round: the server's side, from orders to books."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import asdict, replace
from typing import Any

import msgspec
import numpy as np
import numpy.typing as npt

from joulewise import fleet
from joulewise.allocations import of_round
from joulewise.curves import POINTS, Curve
from joulewise.devices import Unit
from joulewise.errors import FederationError, PayloadError
from joulewise.fleet import Allocation, Books, Known, OnePrice
from joulewise.flower import orders
from joulewise.flower.allocable import refuse_dense
from joulewise.flower.metering import Dense
from joulewise.flower.orders import Order
from joulewise.flower.summary import Summary
from joulewise.flower.wire import Reply
from joulewise.rules import Density, Joules

_NORMS = {1: "magnitudes", 2: "squares"}
_log = logging.getLogger("joulewise")


class Allotter:
    """Hands out a fleet's joules before a round and books them after it.

    Nodes are counted in the order of their numbers (partitions, where they have said theirs), so that sums are the
    same on every engine. Nothing that a node says stops a round: what cannot be used is logged, and the node counts as
    one of which nothing is known.

    Args:
        allocation: how joules are divided.

    Raises:
        RuleError: its course does not know how many rounds there are.
    """

    def __init__(self, allocation: Allocation) -> None:
        of_round(allocation, 0)
        self.allocation = allocation
        self.books = Books()
        self._known: dict[int, Known] = {}
        self._units: dict[int, Unit] = {}
        self._numbers: dict[int, int] = {}
        self._orders: dict[int, fleet.Order] = {}
        self._spent: dict[int, float] = {}
        self._asked: tuple[int, ...] = ()
        self._batch: object = None

    @classmethod
    def over(cls, downlink: object, allocation: Allocation) -> Allotter:
        """For a downlink of this setting, which has to be one that the allocation can count.

        Raises:
            RuleError: see `refuse_dense`.
        """
        refuse_dense(allocation, downlink)
        return cls(allocation)

    @property
    def asks(self) -> bool:
        """Whether nodes hold their updates until all have said what these cost."""
        return isinstance(self.allocation, OnePrice) and self.allocation.control == "asked"

    def ask(self, nodes: Iterable[int], batch: object) -> dict[int, str]:
        """An order for each node that is asked to train, as the text of a note.

        Where nodes are asked before, it is to say what their updates cost, and `divide` gives those that follow.

        Args:
            nodes: of one round.
            batch: the round, or what stands for it.

        Raises:
            FederationError: these are further nodes of a round whose joules are handed out already, or a node is asked
                twice, which would spend its part twice.
            RuleError: the rounds of the allocation's course are over.
        """
        asked = self._in_turn(nodes)
        again = self._asked and (batch is self._batch or (isinstance(batch, int) and batch == self._batch))
        if again or len(set(asked)) < len(asked):
            raise FederationError(
                "the joules of this round are handed out, and more nodes, or one of them again, are asked to train in "
                "it; with an allocation send all train requests of a round in one call, one to each node"
            )
        self.close()
        self._batch, self._asked = batch, tuple(asked)
        if not self.asks:
            return self._divided(asked)
        for node in asked:  # What it said of an earlier update does not matter here.
            self._known.pop(node, None)
        return dict.fromkeys(asked, Order(points=POINTS, both=fleet.counts_both(self.allocation), asks=True).text())

    def divide(self, nodes: Iterable[int]) -> dict[int, str]:
        """The orders of nodes that have been asked before, as texts of notes, by what they have said of their updates.

        Args:
            nodes: that have answered. Parts of those of which nothing is known are given to nobody else.
        """
        self._spent = {}
        return self._divided(self._in_turn(nodes))

    def _in_turn(self, nodes: Iterable[int]) -> list[int]:
        return sorted(nodes, key=lambda node: (self._numbers.get(node, node), node))

    def _divided(self, asked: list[int]) -> dict[int, str]:
        self._orders, self.books = self._handed_out(asked)
        return {node: self._order(order).text() for node, order in self._orders.items()}

    def _handed_out(self, asked: list[int]) -> tuple[dict[int, fleet.Order], Books]:
        alike = self._alike(asked, told=True)
        known = {node: alike.get(node) for node in asked}
        try:
            return fleet.hand_out(self.allocation, self.books, known)
        except FederationError as error:  # A price that overflows, to which nodes have driven it.
            _log.warning("the price of a joule is found anew: %s", error)
            return fleet.hand_out(self.allocation, replace(self.books, price=None), known)

    def _alike(self, nodes: Iterable[int], told: bool = False) -> dict[int, Known]:
        """What is known of nodes that count energy, and value where it has a price, as most of these do."""
        known = {node: self._known[node] for node in nodes if node in self._known}
        forms = {node: self._form(node) for node in known}
        counts = Counter(forms.values())
        usual = min(counts, key=lambda form: (-counts[form], form), default=None)
        for node, form in forms.items():
            if form != usual and told:
                _log.warning(
                    "node %d: what it says of its energy is left out: it counts %s, but most nodes of this round %s; "
                    "give all nodes devices of one unit, and rules of one norm",
                    node, " and ".join(form), " and ".join(usual or ()),
                )  # fmt: skip
        return {node: each for node, each in known.items() if forms[node] == usual}

    def _form(self, node: int) -> tuple[str, ...]:
        unit = (f"energy in {self._units.get(node, 'J')}",)
        priced = isinstance(self.allocation, OnePrice)
        return (*unit, f"value in {_NORMS[self._known[node].exponent]}") if priced else unit

    def _order(self, order: fleet.Order) -> Order:
        assert isinstance(order.budget, Joules | Density)  # No allocation hands out anything else.
        by_curves = isinstance(self.allocation, OnePrice) and self.allocation.control == "curves"
        return Order(order.budget, order.price, POINTS if by_curves else 0, both=fleet.counts_both(self.allocation))

    def labelled(self, labels: Iterable[tuple[str, str]]) -> tuple[tuple[str, str], ...]:
        """Rules of nodes with the allocation in the place of their budgets, which differ by node and round."""
        return tuple((rule, repr(self.allocation)) for rule, _ in labels)

    def allowed_j(self, node: int) -> float | None:
        """Energy that a node's mask may cost in this round; None where it was given a density."""
        order = self._orders.get(node)
        return order.budget.budget if order is not None and isinstance(order.budget, Joules) else None

    def price(self, node: int) -> float | None:
        """Value per joule that the round asks of a node, in its own terms; None where there is none."""
        order = self._orders.get(node)
        return None if order is None else order.price

    def heard(self, node: int, number: int, sent: Reply, weight: float, dense: Dense | None = None) -> None:
        """Take down what a node says, whose reply can be used; nonsense is logged, and nothing is known of it then.

        Args:
            node: who.
            number: its partition, or what stands for it in rows.
            sent: its reply.
            weight: of its reply in the average.
            dense: what the server knows itself of its device; None to believe the node.
        """
        try:
            self.learn(node, number, sent, weight, dense)
        except PayloadError as error:
            _log.warning("node %d: what it says of its energy is left out: %s", node, error)

    def learn(self, node: int, number: int, sent: Reply | Summary, weight: float, dense: Dense | None = None) -> None:
        """As `heard`, of a reply or of what comes before one.

        Raises:
            PayloadError: it says nonsense; nothing is known of it then.
        """
        self._numbers[node] = number
        self._known.pop(node, None)  # Of a node that does not obey, what it said once holds no longer.
        said, curve = orders.heard(sent.said, sent.curve)
        if said is None:
            return
        if dense is not None:
            both = fleet.counts_both(self.allocation)
            self._units[node] = dense.check(said.dense_j, said.receive_j if both else None)
        known = Known(weight, said.dense_j, curve, said.wanted_j, said.margin, said.exponent, receive_j=said.receive_j)
        self._known[node] = fleet.checked(node, known)
        self._spent[node] = said.spent_j

    def close(self, union: float | None = None) -> None:
        """The round is over, whether its replies were used or not: what was spent is spent.

        Args:
            union: share of the coordinates that the new model takes from at least one reply; None where it is not known
                whether one was made.
        """
        if self._asked:
            known = self._alike(self._orders)
            spent = {node: energy for node, energy in self._spent.items() if node in self._orders and node in known}
            self.books = fleet.book(self.allocation, self.books, self._orders, spent, known, union)
        self._orders, self._spent, self._asked, self._batch = {}, {}, (), None

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
    examples: float
    dense_j: float
    curve: bytes | None
    wanted_j: float | None
    margin: float | None
    exponent: int
    receive_j: float = 0.0  # Checkpoints from before have none.


class _Held(msgspec.Struct, frozen=True):
    books: dict[str, Any]
    known: dict[str, _Client]
