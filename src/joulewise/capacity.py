"""Whether a model fits the level of memory in which a device is said to keep it."""

from __future__ import annotations

from collections.abc import Collection, Iterable

import numpy as np

from joulewise.devices import Home, Memory
from joulewise.layout import Layout, Tensor


def stored_bytes(tensors: Iterable[Tensor]) -> int:
    """Bytes of tensors in their own element types.

    Example:
        >>> stored_bytes(Layout.of({"a": np.ones(3, np.float32), "b": np.ones(2, np.float16)}).tensors)
        16
    """
    # NumPy does not know bfloat16, which has two bytes.
    return sum(t.size * (2 if t.dtype == "bfloat16" else np.dtype(t.dtype).itemsize) for t in tensors)


def misfits(layout: Layout, memory: Memory, in_ram: Collection[str] = ()) -> tuple[str, ...]:
    """What of a model does not fit where it lies between rounds, one sentence each; none where all of it fits.

    Args:
        layout: the model; its buffers and the tensors that are never sent take room, too.
        memory: of the device; a level without a capacity holds anything, and what is too much for a scratchpad
            beside DRAM lies in DRAM.
        in_ram: names of tensors in RAM where the others lie in flash.

    Example:
        >>> from joulewise.devices import load_device
        >>> layout = Layout.of({"fc.weight": np.broadcast_to(np.float32(0), (1000, 1000))})
        >>> misfits(layout, load_device("mcu-flash-ble-nrf5340").memory)
        ('the model, 4 MB, does not fit memory.flash of 1.05 MB, in which it lies between rounds',)
    """
    every = (*layout.tensors, *layout.wholes, *layout.locals)
    ram: Home = "sram" if memory.dram is None else "dram"
    home = ram if memory.home == "sram" else memory.home
    parts = [("the model", home, [each for each in every if each.name not in in_ram])]
    if in_ram:
        parts = [
            ("the model's part in flash", home, parts[0][2]),
            ("its part in RAM", ram, [each for each in every if each.name in in_ram]),
        ]
    found = []
    for what, name, tensors in parts:
        level, needed = getattr(memory, name), stored_bytes(tensors)
        if level.capacity is not None and needed > level.capacity.si:
            held = f"memory.{name} of {size(level.capacity.si)}, in which it lies between rounds"
            found.append(f"{what}, {size(needed)}, does not fit {held}")
    return tuple(found)


def size(amount: float) -> str:
    """Bytes with three digits and a decimal prefix.

    Example:
        >>> size(512), size(4_283_176)
        ('512 B', '4.28 MB')
    """
    scale, prefix = next((each for each in ((1e9, "G"), (1e6, "M"), (1e3, "k")) if amount >= each[0]), (1.0, ""))
    return f"{amount / scale:.3g} {prefix}B"
