"""Selections with less and less memory at hand, each in a process of its own; writes how many ended in which way.

python tests/short_of_memory.py KEPT      with as many threads as JOULEWISE_THREADS says
"""

import json
import os
import resource
import sys
from collections import Counter
from pathlib import Path

import numpy as np

from joulewise import kernel
from joulewise.prefix import longest_prefix
from joulewise.ranking import Ranking

N = 2_000_000
ENDS = {0: "selected", 1: "MemoryError", 2: "wrong"}


def attempt(ranking: Ranking, kept: int, more: int) -> int:
    """One selection in a process that may take `more` bytes of address space; how it ended."""
    pid = os.fork()
    if pid == 0:
        taken = int(Path("/proc/self/statm").read_text("ascii").split()[0]) * resource.getpagesize()
        resource.setrlimit(resource.RLIMIT_AS, (taken + more, resource.RLIM_INFINITY))
        try:
            found = longest_prefix(ranking, np.ones(1, np.int64), kept)
            os._exit(0 if found.spent == kept else 2)
        except MemoryError:
            os._exit(1)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


def main() -> None:
    # Within one bin of the sample: nearly all of it may be the threshold, and is stored.
    a = (1 + 0.02 * np.random.default_rng(0).random(N)).astype(np.float32)
    ranking = Ranking(a, np.array([0, N]), np.ones(1))
    kernel.library()  # Loaded here: a process that is short of memory might find none to load.
    codes = Counter(attempt(ranking, int(sys.argv[1]), more) for more in range(10_000_000, 110_000_000, 2_000_000))
    sys.stdout.write(json.dumps({ENDS.get(code, f"died of {code}"): count for code, count in codes.items()}))


if __name__ == "__main__":
    main()
