"""Arguments that are one number, a number per tensor, or numbers by name and pattern."""

from __future__ import annotations

import math
from collections.abc import Mapping
from fnmatch import fnmatchcase
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt

from joulewise.errors import CostError
from joulewise.layout import Layout

Value = TypeVar("Value")
Floats = npt.NDArray[np.float64]
PerTensor = float | Mapping[str, float] | npt.NDArray[Any]
"""One number for all tensors, numbers by tensor name or pattern (``*``, ``?``), or array[tensors]."""


def bits_of(argument: str, value: PerTensor, layout: Layout) -> Floats:
    """Bits of each tensor: float64[tensors], finite and above 0."""
    return checked(argument, value, layout, math.inf, "a finite number above 0")


def checked(argument: str, value: PerTensor, layout: Layout, most: float, expected: str) -> Floats:
    """One number for each tensor, above 0 and at most `most`.

    Raises:
        CostError: one is not, or they do not fit the layout; `expected` says what would.
    """
    numbers = per_tensor(argument, value, layout)
    wrong = np.flatnonzero(~((numbers > 0) & (numbers <= most) & np.isfinite(numbers)))
    if wrong.size:
        first = int(wrong[0])
        name = layout.tensors[first].name
        raise CostError(f"{argument} of tensor {name!r} is {numbers[first]}, expected {expected}")
    return numbers


def per_tensor(argument: str, value: PerTensor, layout: Layout, besides: str = "") -> Floats:
    """One number for each tensor: float64[tensors], always a new array."""
    tensors = len(layout.tensors)
    if isinstance(value, Mapping):
        found = match(argument, value, layout)
        for tensor, number in zip(layout.tensors, found, strict=True):
            if number is None:
                raise CostError(f"{argument} has no entry for tensor {tensor.name!r}; add it, or a last '*'")
        return floats(argument, found)
    numbers = floats(argument, value)
    if numbers.ndim and numbers.shape != (tensors,):
        expected = f"one number per tensor, {(tensors,)}{besides}"
        raise CostError(f"{argument} has shape {numbers.shape}, but this layout needs {expected}")
    return np.broadcast_to(numbers, (tensors,)).copy()


def match(argument: str, by_pattern: Mapping[str, Value], layout: Layout) -> list[Value | None]:
    """For each tensor the entry of its name, else of the first pattern that fits it, else None."""
    names = [tensor.name for tensor in layout.tensors]
    for pattern in by_pattern:
        if pattern not in names and not any(fnmatchcase(name, pattern) for name in names):
            known = ", ".join(names[:5])
            raise CostError(f"{argument}[{pattern!r}] matches no tensor; the layout begins with: {known}")
    fitting = {name: [key for key in by_pattern if key == name or fnmatchcase(name, key)] for name in names}
    chosen = [name if name in by_pattern else next(iter(fitting[name]), None) for name in names]
    return [None if key is None else by_pattern[key] for key in chosen]


def floats(argument: str, value: object) -> Floats:
    """`value` as float64, always a new array."""
    try:
        return np.array(value, dtype=np.float64)
    except OverflowError as error:
        raise CostError(f"{argument} holds a number beyond what float64 does, expected finite numbers") from error
    except (TypeError, ValueError) as error:
        raise CostError(f"{argument} is {value!r}, expected numbers") from error
