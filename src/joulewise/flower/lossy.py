"""A downlink that sends a part of what changed and remembers the rest: error feedback on the server's side.

Tang et al., DoubleSqueeze, ICML 2019; Philippenko and Dieuleveut, MCM, NeurIPS 2021.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec
import numpy as np
import numpy.typing as npt
from flwr.app import Array, ArrayRecord

from joulewise.costs import Costs
from joulewise.errors import RuleError, UpdateError
from joulewise.flower import patch, wire
from joulewise.layout import Kind
from joulewise.rules import Count, TopK
from joulewise.select import select


class Lossy(msgspec.Struct, frozen=True, forbid_unknown_fields=True, tag_field="name"):
    """Nodes train on a public model that follows the server's own in its largest differences.

    Each new model of the server gives the public one its bits at the positions with the largest ``|x - public|``;
    what is not sent stays in that difference and is sent once it is large. What a node answers, ``u``, is added to the
    server's model, ``x + u``, so that nothing of it is lost. Nodes evaluate the public model too. It is for server
    optimizers and noise, which move every coordinate, and for tighter budgets than the lossless downlink meets.

    Args:
        density: share of the parameters that are sent with each new model, above 0 and at most 1.

    Example:
        >>> Lossy(0.05)
        Lossy(density=0.05)
        >>> Lossy(0.0)
        Traceback (most recent call last):
        joulewise.errors.RuleError: Lossy(density) must be above 0 and at most 1, but is 0.0; ...
    """

    density: float

    def __post_init__(self) -> None:
        if not 0 < self.density <= 1:
            raise RuleError(
                f"Lossy(density) must be above 0 and at most 1, but is {self.density}; 0.05 sends a twentieth of the "
                "parameters, and downlink='lossless' all that changed"
            )


def followed(public: ArrayRecord, model: ArrayRecord, density: float, kinds: Mapping[str, Kind]) -> ArrayRecord:
    """The next public model: the last one with the bits of `model` where they differ most.

    Buffers and what is not float are those of `model`, and so is everything where the two are not of one form, or a
    number is not finite.

    Example:
        >>> before = wire.to_record({"w": np.zeros(4, np.float32)})
        >>> after = wire.to_record({"w": np.array([1, -3, 2, 0], np.float32)})
        >>> followed(before, after, 0.5, {})["w"].numpy().tolist()
        [0.0, -3.0, 2.0, 0.0]
    """
    form = patch.form_of(model)
    if form is None or form != patch.form_of(public):
        return model
    arrays, before = wire.to_numpy(model), wire.to_numpy(public)
    layout = wire.layout_of(arrays, kinds)
    # Subtracted in the model's own types: float64 differs by less than float32 can say of the numbers themselves.
    apart = {tensor.name: arrays[tensor.name] - before[tensor.name] for tensor in layout.tensors}
    try:
        chosen = select(
            layout.flatten(apart),
            Costs.of(1.0, layout, unit="relative"),
            TopK(),
            Count(max(1, int(density * layout.n))),
        )
    except UpdateError:
        return model
    stops = np.cumsum(layout.counts(chosen.indices)).tolist()
    made, start = ArrayRecord(dict(model.items())), 0
    for (tensor, first, _), stop in zip(layout.spans(), stops, strict=True):
        merged = before[tensor.name].copy(order="C")
        places = chosen.indices[start:stop].astype(np.int64) - first
        merged.reshape(-1)[places] = arrays[tensor.name].reshape(-1)[places]
        made[tensor.name], start = _like(model[tensor.name], arrays[tensor.name], merged), stop
    return made


def _like(array: Array, view: npt.NDArray[Any], merged: npt.NDArray[Any]) -> Array:
    """The merged numbers as an array of the same form, the order of its elements included."""
    ordered = merged if view.flags.c_contiguous else np.asfortranarray(merged)
    return Array(dtype=array.dtype, shape=array.shape, stype=array.stype, data=wire.packed(ordered).data)
