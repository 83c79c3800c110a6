"""What people use today, to be timed beside joulewise; each is there where its package is installed.

NumPy's own are always there. None of these is used for anything but `joulewise bench`.
"""

# They are imported where they are asked for, because none of them has to be installed.
# ruff: noqa: PLC0415

from __future__ import annotations

import importlib.util
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import numpy as np
import numpy.typing as npt

from joulewise.benchdata import Load
from joulewise.select import Selection
from joulewise.timing import Contestant

TORCH_TOPK, ARGPARTITION = "torch.topk + gather", "np.argpartition + gather"
QUICK_LIMIT = 20_000_000
"""Of coordinates: beyond it, what sorts or goes through Python objects takes too long to wait for."""


def selections(load: Load, k: int, joules: float, threads: int, slow: bool) -> list[Contestant]:
    """Other ways to choose k coordinates of an update, or those that a budget buys.

    Args:
        load: what to choose from.
        k: how many.
        joules: what they may cost, for the greedy order.
        threads: for those that take them.
        slow: include what sorts everything.
    """
    found = [Contestant(ARGPARTITION, lambda: _argpartition(load.update, k))]
    if has("torch"):
        found = [*_torch(load, k, threads, slow), *found]
    if slow:
        found.append(Contestant("np.argsort + cumsum greedy", lambda: _greedy(load, joules), 1))
    return [*found, *(steps(load, k / load.n, {}) if slow else ())]


def has(module: str) -> bool:
    """Whether a package is installed."""
    return importlib.util.find_spec(module.partition(".")[0]) is not None


def zstd_bytes(selection: Selection) -> int | None:
    """Gaps as variable-length integers and float32 values, through zstd level 3; None without `zstandard`."""
    if not has("zstandard"):
        return None
    import zstandard

    return len(zstandard.ZstdCompressor(level=3).compress(gaps_and_values(selection)))


def gaps_and_values(selection: Selection) -> bytes:
    """Gaps between kept places as LEB128 integers, then the values.

    Example:
        >>> gaps_and_values(Selection(999, np.array([2, 203], np.uint32), np.zeros(2, np.float32))).hex(" ")
        '02 c8 01 00 00 00 00 00 00 00 00'
    """
    before = np.concatenate([np.array([-1]), selection.indices[:-1]]).astype(np.int64)
    gaps = selection.indices.astype(np.int64) - before - 1
    parts = [(gaps >> 7 * place) & 127 | 128 * (gaps >> 7 * (place + 1) > 0) for place in range(5)]
    used = np.stack([gaps >= 0, *(gaps >> 7 * place > 0 for place in range(1, 5))], axis=1)
    return bytes(np.stack(parts, axis=1)[used].astype(np.uint8).tobytes() + selection.values.tobytes())


def _argpartition(a: npt.NDArray[np.float32], k: int) -> object:
    places = np.argpartition(np.abs(a), a.size - k)[a.size - k :]
    return places, a[places]


def _greedy(load: Load, joules: float) -> object:
    costs = np.repeat(load.costs.per_kept, load.costs.layout.sizes)
    order = np.argsort(-np.abs(load.update) / costs, kind="stable")
    fitting = np.searchsorted(np.cumsum(costs[order]), joules, side="right")
    return order[:fitting], load.update[order[:fitting]]


def _torch(load: Load, k: int, threads: int, slow: bool) -> Iterator[Contestant]:
    import torch

    tensor = torch.from_numpy(load.update)

    def topk() -> object:
        torch.set_num_threads(threads)
        _, places = torch.topk(tensor.abs(), k, sorted=False)
        return places, tensor[places]

    def kthvalue() -> object:
        torch.set_num_threads(threads)
        magnitudes = tensor.abs()
        places = (magnitudes >= torch.kthvalue(magnitudes, load.n - k + 1).values).nonzero()[:, 0]
        return places, tensor[places]

    yield Contestant(TORCH_TOPK, topk)
    if slow:
        yield Contestant("torch.kthvalue + gather", kthvalue, 3)


def steps(load: Load, density: float, sent: dict[str, int]) -> Iterator[Contestant]:
    """The client steps of other frameworks, where they import.

    Args:
        load: the update.
        density: share that is kept.
        sent: takes the bytes of each one's message, by its name.
    """
    for module, name in (("fedlab", "FedLab TopkCompressor"), ("openfl", "OpenFL STC, with its bytes")):
        pack = peer(module, density) if has(module) else None
        if pack is not None:
            yield Contestant(name, partial(_noted, pack, load, name, sent), 2)


def _noted(pack: Callable[[Load], int], load: Load, name: str, sent: dict[str, int]) -> None:
    sent[name] = pack(load)


def peer(module: str, density: float) -> Callable[[Load], int] | None:
    """The client step of another framework: bytes of its message from an update; None where it does not import.

    FedLab chooses over the whole vector and sends int64 places and float32 values. OpenFL goes tensor by tensor, as it
    does in a federation, and sends the signs of what it keeps, through gzip (its STC pipeline).
    """
    try:
        return _fedlab(density) if module == "fedlab" else _openfl(density)
    except ImportError:
        return None


def _fedlab(density: float) -> Callable[[Load], int]:
    import torch
    from fedlab.contrib.compressor.topk import TopkCompressor

    compressor: Any = TopkCompressor(density)

    def pack(load: Load) -> int:
        values, indices = compressor.compress(torch.from_numpy(load.update))
        return int(values.nbytes + indices.nbytes)

    return pack


def _openfl(density: float) -> Callable[[Load], int]:
    from openfl.pipelines.stc_pipeline import STCPipeline

    pipeline: Any = STCPipeline(p_sparsity=density)

    def pack(load: Load) -> int:
        layout = load.costs.layout
        parts = [load.update[start:stop] for start, stop in zip(layout.offsets[:-1], layout.offsets[1:], strict=True)]
        return sum(len(pipeline.forward(part)[0]) for part in parts if part.size)

    return pack
