"""The table of what each arm kept of each tensor."""

from __future__ import annotations

from collections.abc import Sequence

from joulewise.keeping import Keeping
from joulewise.notation import number
from joulewise.outcomes import Summary
from joulewise.tabular import NONE, Table


def kept_by_tensor(found: Summary, kept: Keeping) -> Table:
    """A line for each arm, a column for each tensor: the share of it in a mean reply, or how many coordinates."""
    sizes = kept.elements
    what = "share of each tensor in a mean reply (%)" if sizes else "coordinates of each tensor in a mean reply"
    heads = [f"{name} ({size:,})" for name, size in zip(kept.tensors, sizes, strict=True)] if sizes else kept.tensors
    return Table(
        caption=f"{found.study}: {what}",
        columns=("Arm", *heads),
        rows=tuple((arm.label, *_line(kept, arm.name)) for arm in found.arms),
        notes=("Means over rounds, seeds and clients; in brackets the coordinates of the tensor.",) if sizes else (),
    )


def _line(kept: Keeping, arm: str) -> tuple[str, ...]:
    widths = [last - first + 1 for first, last in kept.columns]
    columns = kept.counts[arm]
    rounds = sum(widths[: len(columns)])
    means = [
        sum(width * counts[tensor] for width, counts in zip(widths, columns, strict=False)) / max(1, rounds)
        for tensor in range(len(kept.tensors))
    ]
    if kept.elements is None:
        return tuple(map(number, means))
    return tuple(_percent(mean, size) for mean, size in zip(means, kept.elements, strict=True))


def _percent(mean: float, size: int) -> str:
    return number(100 * mean / size) if size else NONE


def arms_of(found: Summary, kept: Keeping) -> Sequence[tuple[str, str]]:
    """Name and label of the arms that have something to show; Dense, which keeps everything, comes last."""
    arms = sorted(found.arms, key=lambda arm: arm.rule == "Dense")
    return [(arm.name, arm.label) for arm in arms if kept.counts[arm.name]]
