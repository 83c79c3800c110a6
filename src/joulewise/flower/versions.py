"""The last versions of a model, so that a node which holds one of them can be sent what changed since."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from flwr.app import Array, ArrayRecord

from joulewise.flower import patch, wire
from joulewise.flower.patch import Form, Positions, Version

KEPT = 8
"""How many versions are kept. In a round of ten clients at 1 % a tenth of the model changes: older ones pay no more."""

WORTH = 0.75
"""Share of changed elements above which a model is sent whole: changes would save little then."""


@dataclass(frozen=True, slots=True, eq=False)
class Step:
    """A version, and where it differs from the one before it."""

    version: Version
    changed: Positions


@dataclass(frozen=True, slots=True, eq=False)
class Versions:
    """The last versions of one model: the newest with its bits, the ones before as the positions that changed since.

    Together the positions take no more memory than the newest model in float32.

    Args:
        record: the newest model; None before the first.
        form: its form.
        steps: versions from old to new; what the first says of the one before it is not needed.
        count: number of the newest version.
    """

    record: ArrayRecord | None = None
    form: Form | None = None
    steps: tuple[Step, ...] = ()
    count: int = 0

    @property
    def newest(self) -> Version | None:
        """The version of `record`."""
        return self.steps[-1].version if self.steps else None

    @property
    def share(self) -> float | None:
        """Share of the elements in which the newest version differs from the one before; None for the first."""
        if len(self.steps) < 2 or self.form is None:
            return None
        return self.steps[-1].changed.size / patch.layout_of(self.form).n

    def find(self, checksum: bytes) -> Version | None:
        """The kept version with these bits."""
        return next((step.version for step in self.steps if step.version.checksum == checksum), None)

    def plus(self, record: ArrayRecord) -> tuple[Versions, Version | None]:
        """With a model as the newest version, unless it is kept already; and its version. Another form begins anew.

        A model that cannot be sent in part (`joulewise.flower.patch.form_of`) has no version.
        """
        if self.record is not None and _same_objects(self.record, record):
            return self, self.newest
        form = patch.form_of(record)
        if form is None:
            return self, None
        checksum = patch.checksum_of(record)
        known = self.find(checksum)
        if known is not None:
            return self, known
        version, own = Version(self.count + 1, checksum), _copy(record)
        if self.record is None or form != self.form:
            return Versions(own, form, (Step(version, np.empty(0, np.uint32)),), version.number), version
        changed = patch.positions_of(self.record, own, form)
        steps = (*self.steps, Step(version, changed))[-KEPT:]
        return Versions(own, form, _affordable(steps, patch.layout_of(form).n), version.number), version

    def changes(self, held: Version, wanted: Version, record: ArrayRecord) -> Array | None:
        """What a node that holds one version is sent for another; None where it must be sent whole.

        Args:
            held: what the node says that it holds.
            wanted: a kept version.
            record: the model of that version.
        """
        positions = self.between(held, wanted)
        if self.form is None or positions is None or positions.size > WORTH * patch.layout_of(self.form).n:
            return None
        changes = patch.write(held, wanted, record, self.form, positions)
        return changes if len(changes.data) < wire.size_of(record) else None

    def between(self, one: Version, other: Version) -> Positions | None:
        """Where two kept versions may differ; None where one is not kept."""
        known = [step.version for step in self.steps]
        if one not in known or other not in known:
            return None
        first, last = sorted((known.index(one), known.index(other)))
        return patch.union([step.changed for step in self.steps[first + 1 : last + 1]])

    def packed(self) -> dict[str, npt.NDArray[Any]]:
        """As named arrays, for a checkpoint."""
        packed: dict[str, npt.NDArray[Any]] = {"count": np.array(self.count)}
        if self.record is not None:
            packed |= {f"record/{name}": array for name, array in patch.pack_record(self.record).items()}
        for step in self.steps:
            packed[f"step/{step.version}"] = step.changed
        return packed

    @classmethod
    def unpacked(cls, packed: Mapping[str, npt.NDArray[Any]]) -> Versions:
        """The inverse of `packed`."""
        parts = {name.removeprefix("record/"): each for name, each in packed.items() if name.startswith("record/")}
        record = patch.unpack_record(parts) if parts else None
        steps = []
        for name, changed in packed.items():
            version = Version.parse(name.removeprefix("step/"))
            if name.startswith("step/") and version is not None:
                steps.append(Step(version, changed))
        steps.sort(key=lambda step: step.version.number)
        form = None if record is None else patch.form_of(record)
        return cls(record, form, tuple(steps), int(packed["count"]))


def _copy(record: ArrayRecord) -> ArrayRecord:
    """The same bytes in arrays of its own: bytes stay as they are, while an app may give an Array others."""
    copied = ArrayRecord()
    for name, array in record.items():
        copied[name] = Array(dtype=array.dtype, shape=array.shape, stype=array.stype, data=array.data)
    return copied


def _same_objects(one: ArrayRecord, other: ArrayRecord) -> bool:
    """Whether they share their bytes, as when a model is sent for evaluation and again for the next training."""
    if list(one) != list(other):
        return False
    pairs = zip(one.values(), other.values(), strict=True)
    return all(a.data is b.data and (a.dtype, a.shape, a.stype) == (b.dtype, b.shape, b.stype) for a, b in pairs)


def _affordable(steps: tuple[Step, ...], n: int) -> tuple[Step, ...]:
    """The latest steps that change no more than a model together; the first of them counts for nothing."""
    taken = 0
    for place in range(len(steps) - 1, 0, -1):
        taken += steps[place].changed.size
        if taken > n:
            return steps[place:]
    return steps
