"""How often a client's coordinate is one that nobody else sends: what the downlink pays for because of it."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from joulewise.errors import ArgumentError

Floats = npt.NDArray[np.float64]


def alone(densities: npt.ArrayLike) -> Floats:
    """Chance that no other client keeps a coordinate: ``prod_{j != k} (1 - q_jg)``.

    Every receiver is sent a coordinate of the new model where at least one client kept it. So what client k's keeping a
    coordinate of tensor g adds to the downlink is the receivers' energy times this chance: receivers times it is the
    `fan_out` of `joulewise.price`. Masks are taken to be independent; those of clients with like data coincide more
    often, then it is less.

    Args:
        densities: float64[clients, tensors], share of each tensor's coordinates that each client keeps.

    Returns:
        float64[clients, tensors].

    Raises:
        ArgumentError: a density is not between 0 and 1, or they are no table.

    Example:
        >>> alone([[0.5], [0.1], [0.0]]).round(2).tolist()
        [[0.9], [0.5], [0.45]]
    """
    others = 1.0 - np.asarray(densities, np.float64)
    if others.ndim != 2 or not ((others >= 0) & (others <= 1)).all():
        raise ArgumentError(
            f"densities has shape {others.shape}, expected [clients, tensors] with numbers from 0 to 1 alone"
        )
    # Products of those before and of those after: no division, which a density of 1 would not allow.
    before, after = np.ones_like(others), np.ones_like(others)
    np.cumprod(others[:-1], axis=0, out=before[1:])
    np.cumprod(others[:0:-1], axis=0, out=after[-2::-1])
    return before * after
