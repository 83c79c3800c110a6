"""What a node has to send after one training, with what its reply will say of that training."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import msgspec
import numpy as np
import numpy.typing as npt

from joulewise.errors import StateError
from joulewise.flower import wire
from joulewise.flower.patch import Positions
from joulewise.layout import Arrays, Kind, Layout, Vector

WHOLE = "whole/"


class Facts(msgspec.Struct, frozen=True):
    """All of a training but its arrays.

    Args:
        number: of the round.
        shapes: of the model's arrays, from which its layout follows.
        bytes_down: that came for it.
        rewritten: names of the tensors that the received model has changed.
        examples: that it used.
        loss: of the training; None when unknown.
        most: largest norm of what may be sent; None for no limit.
        ticket: of the request, where its update waits for an order.
        curve_bytes: of the curve that was sent before, where it waits.
    """

    number: int
    shapes: wire.Shapes
    bytes_down: int = 0
    rewritten: tuple[str, ...] = ()
    examples: int = 0
    loss: float | None = None
    most: float | None = None
    ticket: str = ""
    curve_bytes: int = 0


@dataclass(frozen=True, slots=True, eq=False)
class Trained:
    """An update that is not sent yet.

    Args:
        facts: of the training.
        update: float32[n], local model minus received model.
        whole: the arrays after training, where there are some that travel whole.
        changed: parameters that the received model has changed; None for all.
    """

    facts: Facts
    update: Vector
    whole: Arrays | None = None
    changed: Positions | None = None

    def layout(self, kinds: Mapping[str, Kind]) -> Layout:
        """Of its model."""
        return wire.layout_like(self.facts.shapes, kinds)

    def packed(self, wholes: Iterable[str]) -> dict[str, npt.NDArray[Any]]:
        """As named arrays, for a client's state; `wholes` are the names of the tensors that travel whole."""
        packed: dict[str, npt.NDArray[Any]] = {
            "facts": np.frombuffer(msgspec.json.encode(self.facts), np.uint8),
            "update": self.update,
        }
        if self.changed is not None:
            packed["changed"] = self.changed
        return packed | {f"{WHOLE}{name}": np.asarray((self.whole or {})[name]) for name in wholes}

    @classmethod
    def unpacked(cls, packed: Mapping[str, npt.NDArray[Any]]) -> Trained:
        """The inverse of `packed`.

        Raises:
            StateError: it is something else.
        """
        try:
            facts = msgspec.json.decode(packed["facts"].tobytes(), type=Facts)
            whole = {name.removeprefix(WHOLE): array for name, array in packed.items() if name.startswith(WHOLE)}
            return cls(facts, packed["update"], whole or None, packed.get("changed"))
        except (KeyError, msgspec.MsgspecError) as error:
            raise StateError(
                f"the update that waits in the client's state cannot be read: {error}; it is lost, and the next "
                "training begins without it"
            ) from None
