"""Which implementation of selection and codec runs: the C++ kernel, or the same algorithms in NumPy.

The environment variable JOULEWISE_KERNEL decides: ``native`` insists on the kernel, ``numpy`` leaves it out, and
without it the kernel is used where it was built. Results are the same to the last bit; only the speed differs.
"""

from __future__ import annotations

import ctypes
import os
from functools import lru_cache
from importlib import resources
from typing import Literal

from joulewise.errors import KernelError

Implementation = Literal["native", "numpy"]

ABI = 1
"""Of the library that this version of joulewise can call."""
VARIABLE = "JOULEWISE_KERNEL"
THREADS_VARIABLE = "JOULEWISE_THREADS"
NAMES = ("_kernel.so", "_kernel.dylib", "_kernel.dll")


def active() -> Implementation:
    """The implementation that selection and codec use in this process.

    Raises:
        KernelError: JOULEWISE_KERNEL has another value, or asks for a kernel that is not there.

    Example:
        >>> active() in ("native", "numpy")
        True
    """
    return "numpy" if library() is None else "native"


@lru_cache(maxsize=1)
def library() -> ctypes.CDLL | None:
    """The kernel, or None where NumPy is used; decided once for a process.

    Raises:
        KernelError: JOULEWISE_KERNEL has another value, or asks for a kernel that is not there.
    """
    asked = os.environ.get(VARIABLE, "").strip()
    if asked not in ("", "native", "numpy"):
        raise KernelError(f"{VARIABLE}={asked!r}, but it is native, numpy or not set")
    if asked == "numpy":
        return None
    found = _load()
    if found is None and asked == "native":
        raise KernelError(
            f"{VARIABLE}=native, but this installation has no kernel of version {ABI}; install a C++17 compiler and "
            "joulewise again, or leave the variable out to use NumPy"
        )
    return found


def threads() -> int:
    """How many threads the kernel may use: the environment variable JOULEWISE_THREADS, or 1.

    Results do not depend on it.

    Raises:
        KernelError: JOULEWISE_THREADS is not a whole number from 1 to 1024.

    Example:
        >>> threads() >= 1
        True
    """
    asked = os.environ.get(THREADS_VARIABLE, "").strip() or "1"
    if not (asked.isascii() and asked.isdigit() and 1 <= int(asked) <= 1024):
        raise KernelError(f"{THREADS_VARIABLE}={asked!r}, but it is a whole number from 1 to 1024, or not set")
    return int(asked)


def _load() -> ctypes.CDLL | None:
    for name in NAMES:
        with resources.as_file(resources.files("joulewise").joinpath(name)) as path:
            if path.is_file():
                return _of_this_version(ctypes.CDLL(str(path)))
    return None


def _of_this_version(found: ctypes.CDLL) -> ctypes.CDLL | None:
    found.joulewise_kernel_abi.restype = ctypes.c_int32
    return found if found.joulewise_kernel_abi() == ABI else None
