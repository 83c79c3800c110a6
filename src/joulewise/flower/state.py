"""Where a client's state lies between rounds."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Protocol

import numpy as np
from flwr.app import Array, ArrayRecord, ConfigRecord, Context

from joulewise.compress import ClientState

KEY = "joulewise.state"


class AbstractStore(Protocol):
    """Keeps one `ClientState` per node and run."""

    def load(self, context: Context) -> ClientState | None:
        """The state of this node in this run, or None at the start."""

    def save(self, context: Context, state: ClientState) -> None:
        """Keep the state; when this returns, the reply may leave."""


@dataclass(frozen=True, slots=True)
class MemoryStore:
    """States in this process, by run and node: for the in-process engine.

    Example:
        >>> from flwr.app import RecordDict
        >>> context = Context(run_id=1, node_id=7, node_config={}, state=RecordDict(), run_config={})
        >>> store = MemoryStore()
        >>> store.save(context, ClientState(sequence=3))
        >>> store.load(context).sequence
        3
    """

    states: dict[tuple[int, int], ClientState] = field(default_factory=dict)

    def load(self, context: Context) -> ClientState | None:
        """The state of this node in this run, or None at the start."""
        return self.states.get((context.run_id, context.node_id))

    def save(self, context: Context, state: ClientState) -> None:
        """Keep the state as long as this process lives."""
        self.states[context.run_id, context.node_id] = state


@dataclass(frozen=True, slots=True)
class ContextStore:
    """States in Flower's `Context.state`: works on every engine, for models of modest size.

    Flower sends the state with every message inside one machine, holds it in memory and loses it when a
    SuperNode restarts.
    """

    def load(self, context: Context) -> ClientState | None:
        """The state of this node in this run, or None at the start or in another run."""
        note, arrays = context.state.get(f"{KEY}.note"), context.state.get(f"{KEY}.arrays")
        if not isinstance(note, ConfigRecord) or not isinstance(arrays, ArrayRecord):
            return None
        if note["run-id"] != str(context.run_id):
            return None
        residual, pending = arrays.get("residual"), arrays.get("pending")
        return ClientState(
            residual=None if residual is None else residual.numpy(),
            pending=None if pending is None else pending.numpy().tobytes(),
            sequence=int(str(note["sequence"])),
            run_id=context.run_id,
            fingerprint=int(str(note["fingerprint"])),
        )

    def save(self, context: Context, state: ClientState) -> None:
        """Put the state into the context, which Flower keeps after this message."""
        arrays = {}
        if state.residual is not None:
            arrays["residual"] = Array(state.residual)
        if state.pending is not None:
            arrays["pending"] = Array(np.frombuffer(state.pending, np.uint8))
        context.state[f"{KEY}.arrays"] = ArrayRecord(arrays)
        # As text: run ids and fingerprints use all 64 bits, which Flower's signed numbers do not hold.
        context.state[f"{KEY}.note"] = ConfigRecord(
            {
                "run-id": str(context.run_id),
                "sequence": str(state.sequence),
                "fingerprint": str(state.fingerprint),
            }
        )
