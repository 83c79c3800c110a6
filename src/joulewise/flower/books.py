"""The books of a grid: what crossed, what the clients did, and under which number each is written down."""

from __future__ import annotations

import logging

import msgspec

from joulewise.codec import Decoded
from joulewise.flower import wire
from joulewise.flower.metering import Dense, Exchange, Pricing
from joulewise.flower.parcels import Booked
from joulewise.layout import Layout
from joulewise.results import ClientResult

MOST_BOOKED = 100_000
"""Replies that are remembered where nobody takes the books."""


class Books:
    """Entries since they were last taken.

    Args:
        pricing: devices that the server knows; None to believe the nodes.
    """

    def __init__(self, pricing: Pricing | None) -> None:
        self._pricing = pricing
        self._exchanges: list[Exchange] = []
        self._labels: list[tuple[str, str]] = []
        self._results: list[ClientResult] = []
        self._said: dict[int, bytes] = {}  # By the number of the client, since results were last taken.
        self._numbers: dict[int, int] = {}  # By node, of all rounds.
        self._nodes: dict[int, int] = {}  # By partition.

    def crossed(self, exchange: Exchange) -> None:
        """A request was sent, and answered or not."""
        self._exchanges.append(exchange)

    def used(  # noqa: PLR0913, PLR0917 (all that a result says)
        self,
        node: int,
        sent: wire.Reply,
        decoded: Decoded,
        layout: Layout,
        booked: Booked,
        examples: int,
        allowed: float | None = None,
        price: float | None = None,
    ) -> int:
        """A compressed reply was sound; the number of its client. `allowed` and `price` are what its mask was given."""
        number = self.number(node, sent.result.partition)
        if self._pricing is None:  # Bytes are what arrived and what was sent here, whatever the node says.
            result = msgspec.structs.replace(sent.result, bytes_up=sent.size, bytes_down=booked.size)
        else:
            result = self._pricing.checked(sent, decoded, layout, booked, examples)
        self._results.append(msgspec.structs.replace(result, partition=number, allowed=allowed, price=price))
        self._labels.append((sent.rule, sent.budget))
        self._said[number] = sent.said
        return number

    def dense(self, device: str, layout: Layout) -> Dense | None:
        """What is known here of a device, to check claims by; None where the nodes are believed."""
        return None if self._pricing is None else self._pricing.dense(device, layout)

    def in_flash(self, device: str) -> bool:
        """Whether the weights of a device lie in flash, as far as is known here."""
        return self._pricing is not None and self._pricing.in_flash(device)

    def trim(self) -> None:
        """Forget the oldest entries, for whoever never takes them."""
        for entries in (self._exchanges, self._labels, self._results):
            del entries[:-MOST_BOOKED]

    def take_results(self) -> tuple[ClientResult, ...]:
        """What the clients did since the last call, by partition."""
        taken, self._results, self._said = sorted(self._results, key=lambda result: result.partition), [], {}
        return tuple(taken)

    def said(self) -> dict[int, bytes]:
        """What the clients of `take_results` say of their orders; to be asked for before that, which forgets it."""
        return dict(self._said)

    def take_exchanges(self) -> tuple[tuple[Exchange, ...], tuple[tuple[str, str], ...]]:
        """What crossed since the last call, refused replies included; and the rules and budgets of compressed ones."""
        taken = tuple(self._exchanges), tuple(self._labels)
        self._exchanges, self._labels = [], []
        return taken

    def number(self, node: int, claimed: int) -> int:
        """The partition that a node was the first to claim; otherwise its own id, below zero as no partition is."""
        first = node not in self._numbers
        if first:
            free = 0 <= claimed < 2**64 and self._nodes.setdefault(claimed, node) == node
            self._numbers[node] = claimed if free else -node
        number = self._numbers[node]
        if number != claimed and (first or number >= 0):
            why = "is not free" if first else "is not the one that it named before"
            logging.getLogger("joulewise").warning(
                "node %d says that it holds partition %d, which %s: in rows it is number %d", node, claimed, why, number
            )
        return number
