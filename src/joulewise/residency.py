"""Where a tensor's arrays lie in the memory of a device, what moving them costs, and what moves there in blocks."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from joulewise.costs import Block
from joulewise.devices import Device, Level, Memory
from joulewise.layout import Layout
from joulewise.tensorwise import Floats

ELEMENT_BITS = 32
"""Arrays are worked on in float32, whatever type the model or the payload has."""

Levels = tuple[Level, ...]
"""One level of memory for each tensor."""


def working_levels(layout: Layout, memory: Memory, arrays: int = 1) -> Levels:
    """The level that holds each tensor's arrays while a client works: [tensors].

    DRAM where there is one, else SRAM: a cache does not keep what a training step streams through it. Only where
    the device says that SRAM is a scratchpad (``weights = "sram"`` beside DRAM, with a capacity) do the smallest
    tensors lie in it, as long as all their arrays fit.

    Args:
        layout: the tensors.
        memory: of the device.
        arrays: float32 arrays that a tensor needs there: 1 for the weights, more with optimizer state.
    """
    near, far = memory.sram, memory.dram
    if near is None or far is None or near.capacity is None or memory.weights != "sram":
        return (memory.main,) * len(layout.tensors)
    order = np.argsort(layout.sizes, kind="stable")
    needed = np.cumsum(layout.sizes[order]) * arrays * ELEMENT_BITS / 8
    close = set(order[needed <= near.capacity.si].tolist())
    return tuple(near if place in close else far for place in range(len(layout.tensors)))


def flash_of(memory: Memory) -> Level | None:
    """The flash that the weights lie in between rounds, if they do."""
    return memory.flash if memory.weights == "flash" else None


def rewrites_pages(device: Device) -> bool:
    """Whether a received coordinate makes a device erase a whole page of flash and write it again.

    Example:
        >>> from joulewise.devices import load_device
        >>> [rewrites_pages(load_device(name)) for name in ("mcu-flash-ble-nrf5340", "phone-lte-2021")]
        [True, False]
    """
    flash = None if device.memory is None else flash_of(device.memory)
    return flash is not None and flash.page is not None


def traffic(levels: Sequence[Level], reads: float, writes: float, bits: float | Floats = ELEMENT_BITS) -> Floats:
    """Energy of reading and writing one coordinate so many times: float64[tensors], in joules.

    ``bits * (reads * read + writes * write)`` at the level of each tensor.
    """
    read = np.array([level.read.si for level in levels], dtype=np.float64)
    write = np.array([level.write.si for level in levels], dtype=np.float64)
    return np.asarray(bits * (reads * read + writes * write), dtype=np.float64)


def cache_lines(name: str, levels: Sequence[Level], per_kept: Floats) -> Block | None:
    """The lines in which scattered coordinates move; None where no level has a line.

    Args:
        name: of the block.
        levels: of each tensor.
        per_kept: float64[tensors], what moving a coordinate's own bits costs. A line costs as many times that as
            it has coordinates.
    """
    sizes = [0.0 if level.line is None else level.line.si * 8 / ELEMENT_BITS for level in levels]
    if not any(sizes):
        return None
    elements = np.maximum(np.array(sizes, dtype=np.float64), 1.0)
    moved = np.where(np.array(sizes) > 0, per_kept, 0.0)
    return Block(name, np.floor(elements).astype(np.int64), moved * elements, moved)


def flash_pages(name: str, flash: Level, stored: npt.NDArray[np.bool_], devices: float = 1.0) -> Block | None:
    """The pages of flash that are erased and written whole when something in them changes; None without pages.

    Args:
        name: of the block.
        flash: where the weights lie.
        stored: bool[tensors], of which tensors they do; each begins on a page of its own.
        devices: how many devices write the same coordinates.
    """
    if flash.page is None:
        return None
    elements = max(1, int(flash.page.si * 8 // ELEMENT_BITS))
    whole, own = devices * page_energy(flash), devices * ELEMENT_BITS * flash.write.si
    return Block(name, np.full(len(stored), elements), np.where(stored, whole, 0.0), np.where(stored, own, 0.0))


def page_energy(flash: Level) -> float:
    """Energy of erasing a page of flash and writing it whole, in joules; 0 for flash without pages."""
    if flash.page is None:
        return 0.0
    erase = 0.0 if flash.erase is None else flash.erase.si
    return erase + max(flash.page.si * 8, ELEMENT_BITS) * flash.write.si
