"""Updates of several clients of one round, from a file for each or from one file of all."""

from __future__ import annotations

import re
import zipfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from joulewise.arrayfile import Header, headers, opened, read
from joulewise.errors import LayoutError, ModelError
from joulewise.layout import Layout, Vector
from joulewise.modelfile import load_layout, load_update

EXAMPLES = "examples"
NAME = re.compile(r"(\d+)/(\d+)/(.+)")
"""Of an array in a file of all clients: round, client and tensor."""


@dataclass(frozen=True, slots=True, eq=False)
class Recorded:
    """What the clients of a round sent, before anything was selected.

    Args:
        layout: of the model.
        updates: float32[n] of each client.
        examples: that each client trained on; None where the files do not say.
        source: what was read, in words.
    """

    layout: Layout
    updates: tuple[Vector, ...]
    examples: tuple[int, ...] | None
    source: str


def load_fleet(paths: Sequence[str]) -> Recorded:
    """Read the updates of a fleet.

    Args:
        paths: an ``.npz`` file for each client, as ``joulewise run --record`` keeps them: arrays by tensor; or a
            single one with arrays named ``round/client/tensor``, both counted from 0, of which the last round is
            taken, beside ``examples``, int[clients].

    Raises:
        ModelError: a file cannot be read, is no update of the same model as the first, or holds NaN or infinity.
    """
    try:
        if len(paths) == 1:
            with opened(paths[0], paths[0]) as archive:
                found = headers(archive, paths[0])
                if any(NAME.fullmatch(each) for each in found):
                    return _together(archive, found, paths[0])
        layout = load_layout(paths[0])
        updates = tuple(load_update(path, layout) for path in paths)
    except ModelError as error:
        raise ModelError(str(error).removeprefix("--model ").removeprefix("--update ")) from error
    return Recorded(layout, updates, None, f"{len(paths)} files" if len(paths) > 1 else paths[0])


def _together(archive: zipfile.ZipFile, found: Mapping[str, Header], path: str) -> Recorded:
    """The last round of a file that holds all clients."""
    places = {each: (int(m[1]), int(m[2]), m[3]) for each in found if (m := NAME.fullmatch(each))}
    last = max(number for number, _, _ in places.values())
    clients: dict[int, dict[str, Header]] = {}
    for each, (number, client, tensor) in places.items():
        if number == last:
            clients.setdefault(client, {})[tensor] = found[each]
    first = clients[min(clients)]
    for client, arrays in sorted(clients.items()):
        if {name: each.shape for name, each in arrays.items()} != {name: each.shape for name, each in first.items()}:
            raise ModelError(
                f"{path}: the tensors of client {client} in round {last} are not those of client {min(clients)}; "
                "record all clients with one model"
            )
    try:
        layout = Layout.of(first)
    except LayoutError as error:
        raise ModelError(f"{path}: {error}") from error
    if not layout.n:
        raise ModelError(f"{path} has no float tensors in round {last}, so there is nothing to price; record updates")
    updates = tuple(_update(archive, layout, f"{last}/{client}", path) for client in sorted(clients))
    examples = _examples(archive, found, len(clients), path)
    return Recorded(layout, updates, examples, f"{path}, round {last} (the last)")


def _update(archive: zipfile.ZipFile, layout: Layout, prefix: str, path: str) -> Vector:
    arrays = {each.name: read(archive, f"{prefix}/{each.name}", path) for each in layout.tensors}
    wrong = [name for name, array in arrays.items() if array.dtype.kind not in "fiu"]
    if wrong:
        raise ModelError(f"{path}: array '{prefix}/{wrong[0]}' has elements that are no real numbers; record updates")
    with np.errstate(over="ignore"):  # becomes infinity, which is refused here
        flat = np.ascontiguousarray(layout.flatten(arrays), dtype=np.float32)
    bad = np.flatnonzero(~np.isfinite(flat))
    if bad.size:
        place = f"'{prefix}/{layout.name_of(int(bad[0]))}'"
        raise ModelError(f"{path} holds NaN or infinity in array {place}; record a round that did not diverge")
    return flat


def _examples(archive: zipfile.ZipFile, found: Mapping[str, Header], clients: int, path: str) -> tuple[int, ...] | None:
    if EXAMPLES not in found:
        return None
    array = read(archive, EXAMPLES, path)
    if array.shape != (clients,) or array.dtype.kind not in "iu" or (array < 1).any():
        raise ModelError(
            f"{path}: array {EXAMPLES!r} is {array.tolist()}, expected a whole number of at least 1 for each of "
            f"{clients} clients; leave it out where it is not known"
        )
    return tuple(int(each) for each in array)
