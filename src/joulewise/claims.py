"""What clients of a fleet say of themselves, and what none of them can truly have said."""

from __future__ import annotations

from dataclasses import dataclass, replace

from joulewise.curves import Curve
from joulewise.errors import PayloadError

MOST = 1e100
"""No energy and no value per joule is larger, in any unit; sums and powers of such numbers do not overflow."""


@dataclass(frozen=True, slots=True)
class Known:
    """What the server knows of a client, from its last reply that was verified.

    Args:
        examples: that it trained on, or whatever else replies are weighed by; its share of them is its weight in the
            average.
        dense_j: what sending everything would cost it.
        curve: what its masks cost at each price; with ``control="curves"``.
        wanted_j: energy of all its coordinates worth at least the price of its last order (what `select` spends under
            ``Price``), whatever its cap was; with ``control="ascent"``, once it had a price.
        margin: value per joule of what its last mask kept last (`Curve.price_at` of what it may spend); with ascent,
            from which the first price follows.
        receive_j: what receiving and writing every coordinate, each as one that changed, would cost it; 0 where its
            device prices no downlink.
        exponent: p: 1 where values are magnitudes (CWMP), 2 where they are squares (Projection).
    """

    examples: float
    dense_j: float
    curve: Curve | None = None
    wanted_j: float | None = None
    margin: float | None = None
    exponent: int = 1
    receive_j: float = 0.0


def checked(client: int, known: Known) -> Known:
    """Refuse what a client cannot truly have said, so that it can be left out of a round.

    Returns:
        What is known, with `wanted_j` at most `dense_j`.

    Raises:
        PayloadError: a number is negative, not finite or out of range; the client is named.

    Example:
        >>> checked(7, Known(examples=10, dense_j=float("nan")))
        Traceback (most recent call last):
            ...
        joulewise.errors.PayloadError: client 7 reports dense_j = nan, expected a finite number above 0
    """
    for name, value, fine in (
        ("examples", known.examples, 0 <= known.examples <= 2**53),
        ("dense_j", known.dense_j, 0 < known.dense_j <= MOST),
        ("wanted_j", known.wanted_j, known.wanted_j is None or 0 <= known.wanted_j <= MOST),
        ("receive_j", known.receive_j, 0 <= known.receive_j <= MOST),
        ("margin", known.margin, known.margin is None or 0 <= known.margin <= MOST),
    ):
        if not fine:
            above = "above 0" if name == "dense_j" else "of at least 0"
            raise PayloadError(f"client {client} reports {name} = {value}, expected a finite number {above}")
    if known.exponent not in {1, 2}:
        raise PayloadError(f"client {client} reports exponent = {known.exponent}, expected 1 or 2")
    return known if known.wanted_j is None else replace(known, wanted_j=min(known.wanted_j, known.dense_j))
