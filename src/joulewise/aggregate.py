"""The server's sum: the weighted mean of many clients' payloads, in the memory of one."""

from __future__ import annotations

from collections.abc import Iterable
from numbers import Real

import numpy as np
import numpy.typing as npt

from joulewise import kernel, native_codec
from joulewise.codec import decode
from joulewise.errors import PayloadError, UpdateError
from joulewise.layout import Layout, Vector
from joulewise.select import Selection

LEAST_WEIGHT, LARGEST_WEIGHT = 1e-200, 1e200
"""Between them no product of a weight and a float32 number overflows or loses digits in float64."""


def weighted_mean(payloads: Iterable[tuple[bytes, float]], layout: Layout) -> Vector:
    """The mean of what clients sent, each with its weight: ``sum(w_i u_i) / sum(w_i)``.

    What a client did not send counts as 0: u_i is the dense form of its payload. Sums are in float64, payload by
    payload in the order of `payloads`, rounded to float32 once, at the end; so the same payloads in the same order
    give the same bits, on every machine and in both implementations. (B. McMahan et al., "Communication-Efficient
    Learning of Deep Networks from Decentralized Data", AISTATS 2017, is this mean with numbers of examples as weights.)

    Memory is 12 bytes per parameter and one decoded payload, however many there are: `payloads` may be a generator.
    Tensors that travel whole are checked, but not averaged.

    Args:
        payloads: what `encode` wrote, and a weight: 0, or from 1e-200 to 1e200, for example a number of examples.
        layout: of the model; all payloads are of it.

    Returns:
        The mean update float32[n], to be added to the model that the clients were sent.

    Raises:
        PayloadError: a payload is damaged or of another model; the message counts payloads from 0.
        UpdateError: there is no payload, a weight is out of range, or all are 0.

    Example:
        >>> from joulewise.codec import encode
        >>> layout, values = Layout.single(4), np.array([8.0], np.float32)
        >>> payloads = [encode(Selection(4, np.array([at], np.uint32), values), layout) for at in (1, 3)]
        >>> weighted_mean(zip(payloads, (3, 1)), layout)
        array([0., 6., 0., 2.], dtype=float32)
    """
    total, weights = np.zeros(layout.n, np.float64), 0.0
    for number, (payload, weight) in enumerate(payloads):
        share = _checked(weight, number)
        try:
            selection = decode(payload, layout).selection
        except PayloadError as error:
            raise PayloadError(f"payloads[{number}] cannot be used: {error}") from error
        add(total, selection, share)
        weights += share
    if not weights:
        raise UpdateError("payloads holds nothing to average: there must be one with a weight above 0")
    total /= weights
    return total.astype(np.float32)


def _checked(weight: object, number: int) -> float:
    try:
        share = float(weight) if isinstance(weight, Real) else -1.0
    except OverflowError:  # An integer of hundreds of digits.
        share = -1.0
    if share == 0 or LEAST_WEIGHT <= share <= LARGEST_WEIGHT:
        return share
    raise UpdateError(
        f"payloads[{number}] has the weight {weight!r}, but a weight is 0 or from {LEAST_WEIGHT:g} to "
        f"{LARGEST_WEIGHT:g}; use the client's number of examples"
    )


def add(total: npt.NDArray[np.float64], selection: Selection, weight: float) -> None:
    """Add the kept values times a weight to their places in `total`; product, then sum, each rounded once.

    Args:
        total: float64[n], contiguous; changed in place.
        selection: as `decode` gives it.
        weight: of its client.

    Example:
        >>> total = np.ones(3)
        >>> add(total, Selection(3, np.array([2], np.uint32), np.array([0.5], np.float32)), 4.0)
        >>> total
        array([1., 1., 3.])
    """
    if kernel.library() is not None:
        native_codec.add(total, selection.indices, selection.values, weight)
    else:
        total[selection.indices] += selection.values.astype(np.float64) * weight
