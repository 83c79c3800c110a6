"""What a server knows of each node: whether it runs `Sparsify`, which model it holds, and what it was sent."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from joulewise.flower import patch
from joulewise.flower.parcels import Booked
from joulewise.flower.patch import Form, Positions, Version

MOST_CHANGES = 8


class Nodes:
    """Nodes by id.

    Attributes:
        held: nodes that run `Sparsify`, with the model that they hold, where that is known.
    """

    def __init__(self) -> None:
        self.held: dict[int, Version | None] = {}
        self._without: set[int] = set()  # Asked which model they hold, they answered and did not say.
        self._unbooked: dict[int, int] = {}
        self._changed: dict[int, tuple[Positions, ...] | None] = {}

    def may_hold(self, node: int) -> bool:
        """Whether a node runs `Sparsify`, or has not been heard of yet."""
        return node not in self._without

    def holds(self, node: int, version: Version | None) -> None:
        """A node that runs `Sparsify` holds a model; None where it has none, or it is not known which."""
        self.held[node] = version
        self._without.discard(node)

    def lacks_the_mod(self, node: int) -> None:
        """A node was asked which model it holds, and answered without saying so."""
        self.held.pop(node, None)
        self._without.add(node)

    def sent(self, node: int, size: int, changed: Positions | None) -> int:
        """A model goes to a node; how many bytes of models went there since its last compressed reply, if it sends any.

        Args:
            node: where it goes.
            size: bytes of the model.
            changed: which elements it changes; None for all.
        """
        if node in self._changed:
            self._changed[node] = _further(self._changed[node], changed)
        before = self._unbooked.get(node, 0) if node in self.held else 0
        self._unbooked[node] = before + size
        return before

    def book(self, node: int, form: Form | None) -> Booked:
        """What a node was sent since this was last asked for; it has answered with a compressed reply."""
        if node not in self.held:
            self.holds(node, None)
        changed = self._changed.get(node)
        if node in self._changed:
            self._changed[node] = ()
        return Booked(self._unbooked.pop(node, 0), changed, form)

    def watch(self, node: int, flash: bool) -> None:
        """Whether to remember which elements this node's next models change: it matters where weights lie in flash."""
        if flash:
            self._changed.setdefault(node, ())
        else:
            self._changed.pop(node, None)

    def packed(self, partitions: Mapping[int, int]) -> dict[str, npt.NDArray[Any]]:
        """As named arrays, by partition."""
        packed = {}
        for node, partition in partitions.items():
            if node in self.held:
                packed[f"held/{partition}"] = np.array(str(self.held[node] or ""))
            if node in self._unbooked:
                packed[f"unbooked/{partition}"] = np.array(self._unbooked[node])
        return packed

    def unpack(self, packed: Mapping[str, npt.NDArray[Any]], nodes: Mapping[int, int]) -> None:
        """Go on from what `packed` returned; `nodes` is the node of each partition."""
        for name, array in packed.items():
            what, _, partition = name.partition("/")
            if what == "held":
                self.held[nodes[int(partition)]] = Version.parse(array.item())
            elif what == "unbooked":
                self._unbooked[nodes[int(partition)]] = int(array)


def _further(before: tuple[Positions, ...] | None, changed: Positions | None) -> tuple[Positions, ...] | None:
    """What a node's models have changed, with one more; None for everything."""
    if before is None or changed is None:
        return None
    # A node that is only asked to evaluate would gather more and more.
    return (*before, changed) if len(before) < MOST_CHANGES else (patch.union((*before, changed)),)
