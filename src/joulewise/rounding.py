"""Value types: a float32 number as one symbol of eight bits and a few further bits, and back.

For the float types the symbol is the float32 exponent field and the further bits are mantissa and sign; a
shorter type keeps fewer mantissa bits, at float32's range. For int8 the symbol is the magnitude, 0 to 127, in
units of a 127th of the tensor's largest, and the further bit is the sign. Every decoded number d of these lies so near
the number a that it stands for that ``d + (a - d) == a`` holds exactly in float32 (P. H. Sterbenz, 1974).

ternary sends ``sign(a) mu`` with mu the mean magnitude of the tensor's values that are not zero: the symbol is 0 for a
zero and 1 for all others, the further bit is the sign. Where a is far from mu, ``d + (a - d)`` may differ from a by a
rounding of the larger one, and no rule is unbiased in it (F. Sattler, S. Wiedemann, K.-R. Mueller and W. Samek, "Robust
and Communication-Efficient Federated Learning from Non-IID Data", IEEE TNNLS 2019).
"""

from __future__ import annotations

from typing import Literal, get_args

import numpy as np

from joulewise.bits import Bits, Counts, Numbers, reduce_segments
from joulewise.layout import Vector

ValueType = Literal["float32", "float16", "bfloat16", "int8", "ternary"]
"""How kept values travel: with 23, 10 or 7 mantissa bits and float32's exponents, in 127 steps, or as signs alone."""

VALUE_TYPES: tuple[ValueType, ...] = get_args(ValueType)
MANTISSA_BITS: dict[ValueType, int] = {"float32": 23, "float16": 10, "bfloat16": 7, "int8": 0, "ternary": 0}
VALUE_BITS: dict[ValueType, int] = {"float32": 32, "float16": 16, "bfloat16": 16, "int8": 8, "ternary": 1}
"""Of a number in memory, which prices begin with."""
HIGHEST_SYMBOL: dict[ValueType, int] = {"float32": 254, "float16": 254, "bfloat16": 254, "int8": 127, "ternary": 1}
SCALED: frozenset[ValueType] = frozenset({"int8", "ternary"})
"""Types whose symbols are steps of a magnitude that the table holds."""

STEPS = 127
LARGEST_BITS = 0x7F7FFFFF
"""The largest finite float32."""


def further_bits(kind: ValueType) -> int:
    """Bits of a value besides its symbol: sign and mantissa.

    Example:
        >>> [further_bits(kind) for kind in VALUE_TYPES]
        [24, 11, 8, 1, 1]
    """
    return MANTISSA_BITS[kind] + 1


def split(values: Vector, kind: ValueType, counts: Counts) -> tuple[Bits, Numbers, Vector]:
    """Round finite values to a type and take them apart.

    Args:
        values: float32[sum(counts)], tensor by tensor.
        kind: the type.
        counts: how many values each tensor has: int64[tensors].

    Returns:
        Symbols uint8[k], further bits uint32[k], and float32[tensors]: largest magnitudes for int8, the one magnitude
        for ternary (0 for the float types, which need none).

    Example:
        >>> symbols, further, _ = split(np.array([1.0, -3.0], np.float32), "bfloat16", np.array([2]))
        >>> symbols.tolist(), further.tolist()
        ([127, 128], [0, 192])
    """
    if kind == "int8":
        return _split_steps(values, counts)
    if kind == "ternary":
        return _split_signs(values, counts)
    width = MANTISSA_BITS[kind]
    words = values.view(np.uint32)
    magnitudes = _round_bits(words & np.uint32(0x7FFFFFFF), 23 - width)
    symbols = (magnitudes >> np.uint32(width)).astype(np.uint8)
    magnitudes &= np.uint32((1 << width) - 1)
    magnitudes |= (words >> np.uint32(31)) << np.uint32(width)
    return symbols, magnitudes, np.zeros(len(counts), np.float32)


def join(symbols: Bits, further: Numbers, kind: ValueType, counts: Counts, largest: Vector) -> Vector:
    """Put values together again: float32[k]. The inverse of `split`, up to its rounding.

    Example:
        >>> symbols, further = np.array([127, 128], np.uint8), np.array([0, 192], np.uint32)
        >>> join(symbols, further, "bfloat16", np.array([2]), np.zeros(1, np.float32))
        array([ 1., -3.], dtype=float32)
    """
    if kind == "int8":
        # Both products are exact in float64; the one rounding of the quotient is the same on every machine.
        magnitudes = np.repeat(largest.astype(np.float64), counts) * symbols / STEPS
        words = magnitudes.astype(np.float32).view(np.uint32)
        return (words | further << np.uint32(31)).view(np.float32)
    if kind == "ternary":
        words = (np.repeat(largest, counts) * symbols).view(np.uint32)
        return (words | further << np.uint32(31)).view(np.float32)
    width = MANTISSA_BITS[kind]
    words = symbols.astype(np.uint32) << np.uint32(23)
    words |= (further & np.uint32((1 << width) - 1)) << np.uint32(23 - width)
    words |= further >> np.uint32(width) << np.uint32(31)
    return words.view(np.float32)


def _round_bits(magnitudes: Numbers, drop: int) -> Numbers:
    """To the nearest number with `drop` mantissa bits less, ties to even; at most the largest finite one."""
    if not drop:
        return magnitudes
    odd = magnitudes >> np.uint32(drop) & np.uint32(1)
    magnitudes += odd + np.uint32((1 << (drop - 1)) - 1)
    magnitudes >>= np.uint32(drop)
    return np.minimum(magnitudes, np.uint32(LARGEST_BITS >> drop), out=magnitudes)


def _split_steps(values: Vector, counts: Counts) -> tuple[Bits, Numbers, Vector]:
    magnitudes = np.abs(values)
    largest = reduce_segments(np.maximum, magnitudes, counts)
    # A tensor of zeros alone has no step; any divisor leaves its values at zero.
    divisors = np.repeat(np.where(largest > 0, largest, np.float32(1)).astype(np.float64), counts)
    symbols = np.rint(magnitudes.astype(np.float64) * STEPS / divisors).astype(np.uint8)
    return symbols, values.view(np.uint32) >> np.uint32(31), largest


def _split_signs(values: Vector, counts: Counts) -> tuple[Bits, Numbers, Vector]:
    symbols = (values != 0).astype(np.uint8)
    tensors = np.repeat(np.arange(len(counts)), counts)
    # Added one after another in float64, as `bincount` does: the same bits on every machine.
    sums = np.bincount(tensors, weights=np.abs(values), minlength=len(counts))
    nonzero = np.bincount(tensors, weights=symbols, minlength=len(counts))
    means = (sums / np.maximum(nonzero, 1)).astype(np.float32)
    return symbols, values.view(np.uint32) >> np.uint32(31), means
