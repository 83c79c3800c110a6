"""Which implementation of selection and codec runs: the C++ kernel, or the same algorithms in NumPy.

The environment variable JOULEWISE_KERNEL decides: ``native`` insists on the kernel, ``numpy`` leaves it out, and
without it the kernel is used where it was built. Results are the same to the last bit; only the speed differs.
"""

from __future__ import annotations

import ctypes
import os
from functools import lru_cache
from importlib import resources
from pathlib import Path
from typing import Literal

from joulewise.errors import KernelError

Implementation = Literal["native", "numpy"]

ABI = 4
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


def status() -> str:
    """The implementation in use, and why it is not the kernel where it is not: ``joulewise --version`` prints it.

    Raises:
        KernelError: JOULEWISE_KERNEL has another value, or asks for a kernel that is not there.

    Example:
        >>> status().partition(":")[0] in ("native", "numpy")
        True
    """
    if library() is not None:
        return "native"
    return f"numpy: {VARIABLE}=numpy" if _asked() == "numpy" else f"numpy: {_find()[1]}"


@lru_cache(maxsize=1)
def library() -> ctypes.CDLL | None:
    """The kernel, or None where NumPy is used; decided once for a process.

    Raises:
        KernelError: JOULEWISE_KERNEL has another value, or asks for a kernel that is not there.
    """
    asked = _asked()
    if asked == "numpy":
        return None
    found, reason = _find()
    if found is None and asked == "native":
        raise KernelError(
            f"{VARIABLE}=native, but the kernel is {reason}; install a C++17 compiler and joulewise again, or leave "
            "the variable out to use NumPy"
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
    if not (asked.isascii() and asked.isdigit() and len(asked) <= 4 and 1 <= int(asked) <= 1024):
        raise KernelError(f"{THREADS_VARIABLE}={asked!r}, but it is a whole number from 1 to 1024, or not set")
    return int(asked)


def _asked() -> str:
    asked = os.environ.get(VARIABLE, "").strip()
    if asked not in ("", "native", "numpy"):
        raise KernelError(f"{VARIABLE}={asked!r}, but it is native, numpy or not set")
    return asked


def _find() -> tuple[ctypes.CDLL | None, str]:
    """The kernel of this installation, or None and the reason."""
    for name in NAMES:
        with resources.as_file(resources.files("joulewise").joinpath(name)) as path:
            if path.is_file():
                return _load(path)
    return None, "not built"


def _load(path: Path) -> tuple[ctypes.CDLL | None, str]:
    try:
        found = ctypes.CDLL(str(path))
        found.joulewise_kernel_abi.restype = ctypes.c_int32
    except (OSError, AttributeError):  # Of another platform, cut short, or another library by that name.
        return None, "not a library that this machine can load"
    return (found, "") if found.joulewise_kernel_abi() == ABI else (None, "built for another version of joulewise")
