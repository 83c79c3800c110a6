"""A federation between two rounds as named arrays, and back: what a checkpoint holds."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
import numpy.typing as npt
from flwr.app import ArrayRecord
from flwr.serverapp.strategy import Strategy

from joulewise.compress import ClientState
from joulewise.flower import charging, wire
from joulewise.flower.charging import Stand
from joulewise.flower.downlink import Downlink
from joulewise.flower.held import Held, SharedModels, pack_held, unpack_held
from joulewise.flower.patch import Version
from joulewise.flower.rounds import Invited, Round
from joulewise.flower.state import MemoryStore, packed_state, unpacked_state

Arrays = dict[str, npt.NDArray[Any]]


def taken(
    finished: Round, grid: Invited, store: MemoryStore, strategies: tuple[Strategy, Strategy], nodes: Mapping[int, int]
) -> Arrays | None:
    """All of a federation after a round as named arrays.

    Args:
        finished: the round.
        grid: of the server.
        store: of the clients.
        strategies: the server's, and the same just made.
        nodes: node of each partition.

    Returns:
        Named arrays; None when the strategy holds something that is neither arrays nor numbers.
    """
    partitions = {node: partition for partition, node in nodes.items()}
    accepted = {partitions[node]: last for node, last in grid.accepted.items()}
    states = {partitions[node]: state for (_, node), state in store.states.items()}
    packed = pack(finished.number, finished.arrays, accepted, states, *strategies)
    if packed is None:
        return None
    if grid.downlink.setting != "off":
        packed |= pack_downlink(grid.downlink, store.models, partitions)
    packed |= {f"estimate/{name}": array for name, array in grid.estimate.packed(partitions).items()}
    if grid.allotter is not None:
        packed |= {"allotted": grid.allotter.pack(partitions)}
    if finished.stand.paces:
        packed |= {"batteries": charging.pack(finished.stand)}
    return packed


def put_back(
    packed: Mapping[str, npt.NDArray[Any]],
    grid: Invited,
    store: MemoryStore,
    strategy: Strategy,
    nodes: Mapping[int, int],
) -> Round:
    """Put a federation that was just made where it was after a round, and return what is known of that one."""
    grid.remember({nodes[partition]: last for partition, last in accepted_of(packed).items()})
    for partition, state in clients_of(packed).items():
        store.states[state.run_id, nodes[partition]] = state
    restore_downlink(packed, grid.downlink, store.models, nodes)
    grid.estimate.unpack(_under(packed, "estimate/"), nodes)
    restore(strategy, packed)
    if grid.allotter is not None and "allotted" in packed:
        grid.allotter.unpack(packed["allotted"], nodes)
    stand = charging.unpack(packed["batteries"]) if "batteries" in packed else Stand()
    return Round(int(packed["round"]), model_of(packed), (), stand=stand)


def pack(
    number: int,
    model: ArrayRecord,
    accepted: Mapping[int, int],
    clients: Mapping[int, ClientState],
    strategy: Strategy,
    fresh: Strategy,
) -> Arrays | None:
    """Put everything that the next round depends on into named arrays.

    Args:
        number: of the last finished round.
        model: the arrays after it.
        accepted: number of the last accepted reply by partition.
        clients: state by partition.
        strategy: whose attributes changed since it was made.
        fresh: the same strategy, just made.

    Returns:
        Named arrays; None when the strategy holds something that is neither arrays nor numbers.
    """
    attributes = _changed(strategy, fresh)
    if attributes is None:
        return None
    packed: Arrays = {"round": np.array(number)}
    packed |= {f"model/{name}": array for name, array in wire.to_numpy(model).items()}
    packed |= {f"accepted/{partition}": np.array(sequence) for partition, sequence in accepted.items()}
    for partition, state in clients.items():
        packed |= {f"client/{partition}/{name}": array for name, array in packed_state(state).items()}
    return packed | {f"strategy/{name}": value for name, value in attributes.items()}


def model_of(packed: Mapping[str, npt.NDArray[Any]]) -> ArrayRecord:
    """The model of a checkpoint."""
    return wire.to_record(_under(packed, "model/"))


def accepted_of(packed: Mapping[str, npt.NDArray[Any]]) -> dict[int, int]:
    """Number of the last accepted reply by partition."""
    return {int(partition): int(sequence) for partition, sequence in _under(packed, "accepted/").items()}


def clients_of(packed: Mapping[str, npt.NDArray[Any]]) -> dict[int, ClientState]:
    """State by partition."""
    states = _under(packed, "client/")
    partitions = sorted({int(name.split("/")[0]) for name in states})
    return {partition: unpacked_state(_under(states, f"{partition}/")) for partition in partitions}


def restore(strategy: Strategy, packed: Mapping[str, npt.NDArray[Any]]) -> None:
    """Give a strategy that was just made the attributes of a checkpoint."""
    values = _under(packed, "strategy/")
    for name in dict.fromkeys(key.split("/")[0] for key in values):
        setattr(strategy, name.partition(":")[2], _unpack_value(name.partition(":")[0], name, values))


def pack_downlink(
    downlink: Downlink, models: SharedModels, partitions: Mapping[int, int]
) -> dict[str, npt.NDArray[Any]]:
    """What nodes hold, on both sides: rounds after a checkpoint are sent in as many bytes as without one.

    Args:
        downlink: of the server.
        models: of the clients; those that the server no longer keeps are of no use and are left out.
        partitions: partition of each node.
    """
    packed = {f"downlink/{name}": array for name, array in downlink.packed(partitions).items()}
    for (run_id, version), record in models.models.items():
        if version in downlink.versions:
            parts = pack_held(Held(version, record), run_id)
            packed |= {f"held-model/{version}/{name}": array for name, array in parts.items()}
    for (_, node), version in models.versions.items():
        packed[f"holds/{partitions[node]}"] = np.array(str(version))
    return packed


def restore_downlink(
    packed: Mapping[str, npt.NDArray[Any]], downlink: Downlink, models: SharedModels, nodes: Mapping[int, int]
) -> None:
    """The inverse of `pack_downlink`; without anything of it in a checkpoint, everything begins dense."""
    downlink.unpack(_under(packed, "downlink/"), nodes)
    parts, runs = _under(packed, "held-model/"), {}
    for text in sorted({name.split("/")[0] for name in parts}, key=lambda text: int(text.split("-")[0])):
        own = _under(parts, f"{text}/")
        held = unpack_held(own)
        if held is not None:
            runs[held.version] = int(own["run_id"])
            models.models[runs[held.version], held.version] = held.record
    for partition, token in _under(packed, "holds/").items():
        version = Version.parse(token.item())
        if version in runs:
            models.versions[runs[version], nodes[int(partition)]] = version


def _under(packed: Mapping[str, npt.NDArray[Any]], prefix: str) -> Arrays:
    return {name.removeprefix(prefix): value for name, value in packed.items() if name.startswith(prefix)}


def _changed(strategy: Strategy, fresh: Strategy) -> Arrays | None:
    """The attributes in which a strategy differs from a fresh one, as named arrays; None where that fails."""
    packed: Arrays = {}
    for name, value in vars(strategy).items():
        before = getattr(fresh, name, None)
        if type(value) is type(before) and (value is before or _plain_equal(value, before)):
            continue
        parts = _pack_value(name, value)
        if parts is None:
            return None
        packed |= parts
    return packed


def _plain_equal(value: object, before: object) -> bool:
    return isinstance(value, bool | int | float | str) and value == before


def _pack_value(name: str, value: object) -> Arrays | None:
    """An attribute, its form in front of its name: number, array, list, dict or record."""
    if isinstance(value, bool | int | float):
        return {f"number:{name}": np.array(value)}
    if isinstance(value, np.ndarray):
        return {f"array:{name}": value}
    if isinstance(value, ArrayRecord):
        form, parts = "record", dict(wire.to_numpy(value))
    elif isinstance(value, dict) and _are_arrays(value.values()):
        form, parts = "dict", {key: np.asarray(each) for key, each in value.items()}
    elif isinstance(value, list) and _are_arrays(value):
        form, parts = "list", {f"{place:09d}": np.asarray(each) for place, each in enumerate(value)}
    else:
        return None
    # An empty one leaves its name alone, so that it comes back as it was and not as None.
    return {f"{form}:{name}/{key}": part for key, part in parts.items()} or {f"{form}:{name}": np.zeros(0)}


def _are_arrays(values: Iterable[object]) -> bool:
    return all(isinstance(each, np.ndarray | np.generic) for each in values)


def _unpack_value(form: str, name: str, values: Arrays) -> object:
    if form == "number":
        return values[name].item()
    if form == "array":
        return values[name]
    parts = _under(values, f"{name}/")
    if form == "record":
        return wire.to_record(parts)
    return [parts[place] for place in sorted(parts)] if form == "list" else parts
