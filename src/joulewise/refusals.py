"""What is wrong with a payload, in one sentence each: the words of both implementations of the decoder."""

from __future__ import annotations

import numpy as np

from joulewise.errors import PayloadError

NOT_OURS = "it was not made by joulewise"


def cut_off(what: str, expected: int, left: int) -> PayloadError:
    """The bytes end too early.

    Example:
        >>> print(cut_off("its header", 4, 1))
        payload is cut off in its header: 4 bytes expected, 1 left; send it again
    """
    return PayloadError(f"payload is cut off in {what}: {expected} bytes expected, {left} left; send it again")


def cut_off_values() -> PayloadError:
    """The bit stream ends before the last value symbol does."""
    return PayloadError("payload is cut off in its values; send it again")


def needless_zeros(what: str) -> PayloadError:
    """A count is not in the shortest form."""
    return PayloadError(f"payload writes {what} with needless zeros; {NOT_OURS}")


def long_count(what: str, most: int) -> PayloadError:
    """A count takes more bytes than any count needs."""
    return PayloadError(f"payload writes {what} in more than {most} bytes; {NOT_OURS}")


def too_many_kept(tensor: str, kept: int, size: int) -> PayloadError:
    """A tensor keeps more than it has."""
    return PayloadError(f"payload keeps {kept} coordinates of tensor {tensor!r}, which has {size}")


def unknown_type(tensor: str, number: int) -> PayloadError:
    """A value type has no name."""
    return PayloadError(f"payload names value type {number} for tensor {tensor!r}; there are 0 to 4")


def unsound_largest(tensor: str, word: int) -> PayloadError:
    """The largest magnitude of an int8 or ternary tensor is negative, infinite or NaN.

    Args:
        tensor: its name.
        word: the bits of the float32.

    Example:
        >>> print(unsound_largest("a", 0x7F800000))
        payload gives tensor 'a' the largest magnitude inf
    """
    largest = np.array(word, np.uint32).view(np.float32)
    return PayloadError(f"payload gives tensor {tensor!r} the largest magnitude {largest}")


def symbol_too_high(symbol: int, highest: int) -> PayloadError:
    """A value symbol stands for no finite number, or for too many steps."""
    return PayloadError(f"payload holds the value symbol {symbol}, but {highest} is the highest")


def long_unary_code(symbols: int, most: int) -> PayloadError:
    """A unary code has more symbols than its longest code allows."""
    return PayloadError(f"payload codes {symbols} value symbols in unary, but at most {most} can be")


def incomplete_code() -> PayloadError:
    """Code lengths leave bit patterns unused, or use them twice."""
    return PayloadError("payload holds code lengths of value symbols that make no complete prefix code")


def wrong_count(listed: int, expected: int) -> PayloadError:
    """The unary stream does not have a one for each position, the last at its end."""
    return PayloadError(f"payload lists {listed} positions, but its counts add up to {expected}")


def outside_tensor() -> PayloadError:
    """A gap leads out of its tensor."""
    return PayloadError("payload lists a position outside its tensor")


def filled_wrongly(bits: int) -> PayloadError:
    """What follows the last value is not less than a byte of zeros."""
    return PayloadError(f"payload has {bits} bits after its last value, where up to 7 zeros belong")


def unreached_largest() -> PayloadError:
    """Steps of an int8 or ternary tensor are not those that its values would get."""
    return PayloadError("payload holds values that do not reach their tensor's largest magnitude")


def not_shortest() -> PayloadError:
    """The table is not the one that `encode` writes for these positions and values."""
    return PayloadError("payload is readable but not in the shortest form; it was not made by joulewise")
