"""What Linux tells about this machine, its caches above all; or what a sweep over working sets shows of them."""

from __future__ import annotations

import os
import platform
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

import msgspec
import numpy as np

SLOWER = 1.3
"""A working set is beyond a cache when its bytes take this much longer than those of smaller sets."""


class Cache(msgspec.Struct, frozen=True):
    """One level of cache that holds data.

    Args:
        level: 1 is next to the core.
        capacity_bytes: its size.
        line_bytes: what it moves at once; None where it is not known.
        origin: whether Linux reports the size or a sweep shows it.
    """

    level: int
    capacity_bytes: int
    line_bytes: int | None
    origin: Literal["reported", "swept"]

    @property
    def name(self) -> str:
        """As in ``L2``."""
        return f"L{self.level}"


def find_caches(root: Path = Path("/")) -> tuple[Cache, ...]:
    """Data and unified caches of the first processor, the closest first; empty where Linux does not tell.

    Args:
        root: where ``sys/devices/system/cpu`` lies; a recorded tree in tests.
    """
    folder = root / "sys/devices/system/cpu/cpu0/cache"
    found = (_cache(index) for index in sorted(folder.glob("index*")))
    return tuple(sorted((cache for cache in found if cache), key=lambda cache: cache.level))


def infer_caches(sizes: Sequence[int], seconds_per_byte: Sequence[float]) -> tuple[Cache, ...]:
    """Capacities from a sweep: a cache ends at the last working set before the bytes become slower for good.

    The steps of a sweep bound the answer: a capacity is right to within one step. Levels whose bytes are less than
    1.3 times slower than those of the level before are not told apart.

    Args:
        sizes: bytes of the working sets, rising; shape (n,).
        seconds_per_byte: time for each byte of them; shape (n,).

    Example:
        >>> sizes = [2**power for power in range(14, 22)]
        >>> infer_caches(sizes, [1.0, 1.0, 2.0, 2.1, 2.0, 5.0, 5.2, 5.1])
        (Cache(level=1, capacity_bytes=32768, line_bytes=None, origin='swept'),
         Cache(level=2, capacity_bytes=262144, line_bytes=None, origin='swept'))
    """
    # A set is as fast as the fastest that is as large or larger: a disturbance of one window is no level.
    steady = np.minimum.accumulate(np.asarray(seconds_per_byte, float)[::-1])[::-1]
    found: list[Cache] = []
    plateau = steady[0]
    for place in range(1, len(sizes)):
        if steady[place] <= SLOWER * plateau:
            continue
        settled = place + 1 == len(sizes) or steady[place + 1] <= SLOWER * steady[place]
        found.append(Cache(len(found) + 1, sizes[place - 1], None, "swept"))
        # A set that lies across an end is slower than the cache and faster than what comes after it.
        plateau = steady[place] if settled else steady[place + 1]
    return tuple(found)


def _cache(index: Path) -> Cache | None:
    try:
        level, kind = int((index / "level").read_text()), (index / "type").read_text().strip()
        size = re.fullmatch(r"(\d+)([KMG]?)", (index / "size").read_text().strip())
    except (OSError, ValueError):
        return None
    if kind not in {"Data", "Unified"} or size is None or int(size[1]) == 0:
        return None
    capacity = int(size[1]) * {"": 1, "K": 1 << 10, "M": 1 << 20, "G": 1 << 30}[size[2]]
    return Cache(level, capacity, _line(index / "coherency_line_size"), "reported")


def _line(file: Path) -> int | None:
    try:
        return int(file.read_text()) or None
    except (OSError, ValueError):
        return None


class Memory(msgspec.Struct, frozen=True):
    """Main memory.

    Args:
        total_bytes: all of it.
        available_bytes: what programs can get without swapping.
    """

    total_bytes: int
    available_bytes: int


def find_memory(root: Path = Path("/")) -> Memory:
    """Main memory as Linux tells it; elsewhere half of it counts as available.

    Args:
        root: where ``proc/meminfo`` lies; a recorded tree in tests.
    """
    told = dict(re.findall(r"^(\w+):\s*(\d+) kB$", _text(root / "proc/meminfo"), re.MULTILINE))
    total = int(told.get("MemTotal", 0)) << 10 or os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    return Memory(total, int(told["MemAvailable"]) << 10 if "MemAvailable" in told else total // 2)


def host_kind(root: Path = Path("/")) -> str:
    """What kind of machine this is, without its name: board or processor, processors, whether it is a guest.

    Args:
        root: where ``proc`` lies; a recorded tree in tests.
    """
    told = _text(root / "proc/cpuinfo")
    board = _text(root / "proc/device-tree/model").strip("\0\n ")
    named = re.search(r"^model name\s*:\s*(.+)$", told, re.MULTILINE)
    kind = board or (named[1].strip() if named else platform.machine())
    guest = ", a virtual machine" if re.search(r"^flags\s*:.*\bhypervisor\b", told, re.MULTILINE) else ""
    count = os.cpu_count() or 1
    return f"{kind}, {count} processor{'s' * (count > 1)}{guest}"


def _text(file: Path) -> str:
    try:
        return file.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""
