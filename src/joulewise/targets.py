"""What a run of `joulewise bench` is to show, and whether it does."""

from __future__ import annotations

from collections.abc import Iterator

import msgspec

from joulewise.benchdata import RESNET18
from joulewise.benchrecords import FUSED, READ, SELECT, Report, Size, Timing
from joulewise.rivals import ARGPARTITION, TORCH_TOPK

SHOWN = (0.01, 0.20)
# At 1 % and at 20 % kept: as many times as long as one read at most; as many times faster than others at least.
NATIVE = {SELECT: (3.0, 8.0), FUSED: (5.0, 11.0)}
FASTER = {TORCH_TOPK: (40.0, 15.0), ARGPARTITION: (8.0, 3.5)}
NUMPY_FASTER = {TORCH_TOPK: (8.0,), ARGPARTITION: (2.0,)}
MEMORY, SPEED, ZSTD, UNIFORM, RECORDED = 0.15, 200.0, 0.93, 1.05, 1.10


class Target(msgspec.Struct, frozen=True):
    """One number that was wished for, and what came.

    Args:
        what: in words.
        measured: the median.
        limit: what was wished for.
        at_most: whether less is better.
    """

    what: str
    measured: float
    limit: float
    at_most: bool

    @property
    def met(self) -> bool:
        """Whether it came."""
        return self.measured <= self.limit if self.at_most else self.measured >= self.limit


def targets(report: Report) -> tuple[Target, ...]:
    """The targets that a report can answer, for the implementation that ran; on ResNet-18's size, one thread."""
    found = [one for one in report.timings if one.n == RESNET18 and one.threads == 1]
    native = report.kernel == "native"
    made = list(_native(found) if native else _numpy(found))
    if native:
        made += _memory(report.memory)
        made += [
            Target(f"{one.name}, {one.data}, {one.density:.0%}: million indices per s", one.million_per_s, SPEED, False)
            for one in found
            if one.what == "codec" and one.density == 0.10 and one.million_per_s is not None and "32" in one.name
        ]
        made += _worst(found)
    return (*made, *(target for size in report.sizes for target in _bytes(size)))


def _native(found: list[Timing]) -> Iterator[Target]:
    for at, density in enumerate(SHOWN):
        for name, limits in NATIVE.items():
            for one in _named(found, name, density):
                yield Target(
                    f"{name}, {one.data}, {density:.0%}: times one read", one.times_of[READ].median, limits[at], True
                )
        yield from _faster(found, density, {name: limits[at] for name, limits in FASTER.items()})


def _numpy(found: list[Timing]) -> Iterator[Target]:
    return _faster(found, SHOWN[0], {name: limits[0] for name, limits in NUMPY_FASTER.items()})


def _faster(found: list[Timing], density: float, limits: dict[str, float]) -> Iterator[Target]:
    for one in _named(found, SELECT, density):
        for other, limit in limits.items():
            if other in one.times_of:
                faster = 1 / one.times_of[other].median
                yield Target(f"{SELECT}, {one.data}, {density:.0%}: times faster than {other}", faster, limit, False)


def _worst(found: list[Timing]) -> Iterator[Target]:
    for one in found:
        if one.what == "worst case" and TORCH_TOPK in one.times_of:
            faster = 1 / one.times_of[TORCH_TOPK].median
            yield Target(f"{one.name}, {one.data}: times faster than {TORCH_TOPK}", faster, 1.0, False)


def _memory(shares: dict[float, float]) -> Iterator[Target]:
    for density, share in shares.items():
        if density == SHOWN[0]:
            yield Target(f"select, {density:.0%}: memory besides results, of the update", share, MEMORY, True)


def _bytes(size: Size) -> Iterator[Target]:
    limit = {"uniform places": UNIFORM, "recorded": RECORDED}.get(size.data)
    case = f"{size.data}, n = {size.n:,}, {size.density:.1%}"
    if limit is not None and size.bound_bytes:  # Which is 0 where tensors are kept whole or not at all.
        ratio = size.index_bytes / size.bound_bytes
        yield Target(f"index bytes over their entropy, {case}", ratio, limit, True)
    if size.zstd_bytes is not None and size.data != "uniform places" and size.density >= SHOWN[0]:
        ratio = size.payload_bytes["float32"] / size.zstd_bytes
        yield Target(f"payload, float32, over gaps and values through zstd-3, {case}", ratio, ZSTD, True)


def _named(found: list[Timing], name: str, density: float) -> Iterator[Timing]:
    return (one for one in found if one.what == "select" and one.name == name and one.density == density)
