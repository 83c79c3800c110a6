"""Where a client's state lies between rounds."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt
from flwr.app import Array, ArrayRecord, ConfigRecord, Context

from joulewise import statefile
from joulewise.compress import ClientState
from joulewise.errors import StateError
from joulewise.flower.held import Held, SharedModels, pack_held, plain, unpack_held
from joulewise.flower.patch import Version

KEY = "joulewise.state"
MODEL = "joulewise.model"
LOCAL = "local/"
UNSENT = "unsent/"


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
    models: SharedModels = field(default_factory=SharedModels)

    def load(self, context: Context) -> ClientState | None:
        """The state of this node in this run, or None at the start."""
        return self.states.get((context.run_id, context.node_id))

    def save(self, context: Context, state: ClientState) -> None:
        """Keep the state as long as this process lives."""
        self.states[context.run_id, context.node_id] = state

    def load_model(self, context: Context) -> Held | None:
        """The model that this node holds in this run."""
        return self.models.load(context)

    def save_model(self, context: Context, held: Held) -> None:
        """Keep the model as long as this process lives."""
        self.models.save(context, held)


@dataclass(frozen=True, slots=True)
class ContextStore:
    """States in Flower's `Context.state`: works on every engine, for models of modest size.

    Flower sends the state with every message inside one machine, holds it in memory and loses it when a
    SuperNode restarts; `FileStore` does not.

    Args:
        largest_model_bytes: a larger model is not held between messages, so that the server sends it whole.
    """

    largest_model_bytes: int = 2**26

    def load(self, context: Context) -> ClientState | None:
        """The state of this node in this run, or None at the start or in another run."""
        note, arrays = context.state.get(f"{KEY}.note"), context.state.get(f"{KEY}.arrays")
        if not isinstance(note, ConfigRecord) or not isinstance(arrays, ArrayRecord):
            return None
        if note["run-id"] != str(context.run_id):
            return None
        residual, pending, momentum = (arrays.get(name) for name in ("residual", "pending", "momentum"))
        further = {name: array.numpy() for name, array in arrays.items() if name.startswith((LOCAL, UNSENT))}
        return ClientState(
            residual=None if residual is None else residual.numpy(),
            pending=None if pending is None else pending.numpy().tobytes(),
            sequence=int(str(note["sequence"])),
            run_id=context.run_id,
            fingerprint=int(str(note["fingerprint"])),
            local=_named(LOCAL, further),
            momentum=None if momentum is None else momentum.numpy(),
            unsent=_named(UNSENT, further),
            estimated=int(str(note["estimated"])) if "estimated" in note else None,
        )

    def save(self, context: Context, state: ClientState) -> None:
        """Put the state into the context, which Flower keeps after this message."""
        arrays = {}
        if state.residual is not None:
            arrays["residual"] = Array(state.residual)
        if state.momentum is not None:
            arrays["momentum"] = Array(state.momentum)
        if state.pending is not None:
            arrays["pending"] = Array(np.frombuffer(state.pending, np.uint8))
        further = _prefixed(LOCAL, state.local) | _prefixed(UNSENT, state.unsent)
        arrays |= {name: Array(array) for name, array in further.items()}
        context.state[f"{KEY}.arrays"] = ArrayRecord(arrays)
        # As text: run ids and fingerprints use all 64 bits, which Flower's signed numbers do not hold.
        note = {"run-id": context.run_id, "sequence": state.sequence, "fingerprint": state.fingerprint}
        if state.estimated is not None:
            note["estimated"] = state.estimated
        context.state[f"{KEY}.note"] = ConfigRecord({name: str(number) for name, number in note.items()})

    def load_model(self, context: Context) -> Held | None:
        """The model that this node holds in this run."""
        note, record = context.state.get(f"{MODEL}.note"), context.state.get(f"{MODEL}.arrays")
        if not isinstance(note, ConfigRecord) or not isinstance(record, ArrayRecord):
            return None
        version = Version.parse(note.get("version"))
        return Held(version, record) if version is not None and note.get("run-id") == str(context.run_id) else None

    def save_model(self, context: Context, held: Held) -> None:
        """Put the model into the context.

        Raises:
            StateError: it is too large for that.
        """
        size = sum(len(array.data) for array in held.record.values())
        if size > self.largest_model_bytes:
            raise StateError(
                f"the model has {size} bytes, and ContextStore(largest_model_bytes={self.largest_model_bytes}); "
                "use Sparsify(store=FileStore(folder)), or raise the limit"
            )
        context.state[f"{MODEL}.arrays"] = plain(held.record)
        context.state[f"{MODEL}.note"] = ConfigRecord({"run-id": str(context.run_id), "version": str(held.version)})


@dataclass(frozen=True, slots=True)
class FileStore:
    """States and models in files, one each for each node and run: they survive a restart, a kill and a power cut.

    A state is safe on the disk before its reply leaves. It takes 4 bytes for each parameter (8 with momentum), the last
    payload, the tensors that never leave the client, and about a kilobyte; an update that waits to be told what it may
    cost as much as the model; the model that the node holds as much again. Those of older runs are removed. A file that
    is damaged counts as lost, and the log says so: what its node had not sent yet is lost with its state, while a model
    is sent anew.

    Args:
        folder: where the files lie; made when missing. Several nodes may share it.
        runs: of how many runs of a node the states are kept.

    Example:
        >>> import tempfile
        >>> from flwr.app import RecordDict
        >>> context = Context(run_id=1, node_id=7, node_config={}, state=RecordDict(), run_config={})
        >>> store = FileStore(tempfile.mkdtemp())
        >>> store.save(context, ClientState(np.ones(3, np.float32), b"payload", sequence=3, run_id=1))
        >>> found = store.load(context)
        >>> found.residual.tolist(), found.pending, found.sequence
        ([1.0, 1.0, 1.0], b'payload', 3)
    """

    folder: str | Path
    runs: int = 1

    def __post_init__(self) -> None:
        if self.runs < 1:
            raise StateError(f"FileStore(runs={self.runs}), but at least the state of 1 run has to be kept")

    def load(self, context: Context) -> ClientState | None:
        """The state of this node in this run; None at the start, or where its file is damaged.

        Raises:
            StateError: the file is there and cannot be read.
        """
        path = self._path(context)
        try:
            arrays = statefile.read(path)
        except FileNotFoundError:
            return None
        except OSError as error:
            raise StateError(f"cannot read the state in {path}: {error.strerror or error}; mend that") from None
        if arrays is None or not arrays.keys() >= {"sequence", "run_id", "fingerprint"}:
            lost = "the state of node %d in %s is damaged: it is lost, and what was not sent yet with it"
            logging.getLogger("joulewise").warning(lost, context.node_id, path)
            return None
        return unpacked_state(arrays)

    def save(self, context: Context, state: ClientState) -> None:
        """Keep the state in its file, whole or not at all, and remove those of older runs.

        Raises:
            StateError: it cannot be written (no space, no permission); the one before is still there.
        """
        path = self._path(context)
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            first = not path.exists()
            statefile.write(path, packed_state(state))
            if first:
                self._forget(context)
        except OSError as error:
            raise StateError(
                f"cannot write the state to {path}: {error.strerror or error}; mend that, this node's reply is not sent"
            ) from None

    def load_model(self, context: Context) -> Held | None:
        """The model that this node holds in this run; None where there is none, or where its file is damaged.

        Raises:
            StateError: the file is there and cannot be read.
        """
        path = self._path(context, "model")
        try:
            arrays = statefile.read(path)
        except FileNotFoundError:
            return None
        except OSError as error:
            raise StateError(f"cannot read the model in {path}: {error.strerror or error}; mend that") from None
        held = None if arrays is None else unpack_held(arrays)
        if held is None or arrays is None or int(arrays["run_id"]) != context.run_id:
            logging.getLogger("joulewise").warning(
                "the model of node %d in %s is damaged: the server sends it anew", context.node_id, path
            )
            return None
        return held

    def save_model(self, context: Context, held: Held) -> None:
        """Keep the model in its file, whole or not at all, and remove those of older runs.

        Raises:
            StateError: it cannot be written (no space, no permission); the one before is still there.
        """
        path = self._path(context, "model")
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            first = not path.exists()
            statefile.write(path, pack_held(held, context.run_id))
            if first:
                self._forget(context, "model")
        except OSError as error:
            raise StateError(f"cannot write the model to {path}: {error.strerror or error}; mend that") from None

    def _path(self, context: Context, what: str = "node") -> Path:
        return Path(self.folder) / f"{what}-{context.node_id}-run-{context.run_id}.npz"

    def _forget(self, context: Context, what: str = "node") -> None:
        own = Path(self.folder).glob(f"{what}-{context.node_id}-run-*.npz")
        newest = sorted(own, key=lambda path: path.stat().st_mtime_ns, reverse=True)
        for path in newest[self.runs :]:
            path.unlink(missing_ok=True)


def packed_state(state: ClientState) -> dict[str, npt.NDArray[Any]]:
    """A client's state as named arrays: ``sequence``, ``run_id``, ``fingerprint``, and what else it has."""
    packed: dict[str, npt.NDArray[Any]] = {
        "sequence": np.array(state.sequence),
        "run_id": np.array(state.run_id, np.uint64),
        "fingerprint": np.array(state.fingerprint, np.uint64),
    }
    if state.residual is not None:
        packed["residual"] = state.residual
    if state.momentum is not None:
        packed["momentum"] = state.momentum
    if state.pending is not None:
        packed["pending"] = np.frombuffer(state.pending, np.uint8)
    if state.estimated is not None:
        packed["estimated"] = np.array(state.estimated)
    return packed | _prefixed(LOCAL, state.local) | _prefixed(UNSENT, state.unsent)


def unpacked_state(packed: Mapping[str, npt.NDArray[Any]]) -> ClientState:
    """The inverse of `packed_state`.

    Raises:
        KeyError: an array is missing.
    """
    pending, estimated = packed.get("pending"), packed.get("estimated")
    return ClientState(
        residual=packed.get("residual"),
        pending=None if pending is None else pending.tobytes(),
        sequence=int(packed["sequence"]),
        run_id=int(packed["run_id"]),
        fingerprint=int(packed["fingerprint"]),
        local=_named(LOCAL, packed),
        momentum=packed.get("momentum"),
        unsent=_named(UNSENT, packed),
        estimated=None if estimated is None else int(estimated),
    )


def _prefixed(prefix: str, arrays: Mapping[str, Any] | None) -> dict[str, npt.NDArray[Any]]:
    return {f"{prefix}{name}": np.asarray(array) for name, array in (arrays or {}).items()}


def _named(prefix: str, found: Mapping[str, npt.NDArray[Any]]) -> dict[str, npt.NDArray[Any]] | None:
    """Those with a prefix, without it; None for none."""
    own = {name.removeprefix(prefix): array for name, array in found.items() if name.startswith(prefix)}
    return own or None
