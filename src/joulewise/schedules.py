"""How the energy of a battery is spread over the rounds of a run: even, early, late, or at a price.

A schedule says which share of what is left a round may take; `joulewise.pacing` applies it to a battery.
"""

from __future__ import annotations

import math
import sys
from typing import ClassVar, get_args

import msgspec

from joulewise.errors import PacingError


def _first_of(ratio: float, rounds: int) -> float:
    """First term over the sum of a geometric sequence that falls."""
    return (1.0 - ratio) / (1.0 - ratio**rounds)


def _known(rounds: int | None, lookahead: int) -> int:
    if rounds is None:
        return lookahead
    _require(rounds >= 1, "rounds_left", "a whole number of at least 1, this round included, or None", rounds)
    return rounds


def _require(holds: bool, name: str, expected: str, value: float) -> None:
    if not holds:
        raise PacingError(f"{name} must be {expected}, but is {value}")


class Spread(msgspec.Struct, frozen=True):
    """What all schedules have.

    Args:
        least_mask: a round is joined once its mask may cost at least so many times what the round costs before any
            coordinate; until then its shares are saved. The last round is joined whatever is left for its mask.
        lookahead: where nobody knows how many rounds are left, so many always are.
    """

    most: ClassVar[float] = 1.0

    least_mask: float = 1.0
    lookahead: int = 20

    def __post_init__(self) -> None:
        name = type(self).__name__
        _require(0 <= self.least_mask <= sys.float_info.max, f"{name}(least_mask)", "at least 0", self.least_mask)
        _require(self.lookahead >= 2, f"{name}(lookahead)", "a whole number of at least 2", self.lookahead)

    def share(self, rounds_left: int | None) -> float:
        """The part of what is left that a round may take, 0 to 1; 1 for the last round.

        Args:
            rounds_left: this round included; None where nobody knows.
        """
        return self.share_of(_known(rounds_left, self.lookahead))

    def share_of(self, rounds: int) -> float:
        """The same, of a known number of rounds."""
        raise NotImplementedError


class Even(Spread, frozen=True, tag_field="name", tag="Even", forbid_unknown_fields=True):
    """Every round the same: ``1/R`` of what is left, with R rounds left.

    Example:
        >>> Even().share(4), Even().share(1), Even().share(None)
        (0.25, 1.0, 0.05)
    """

    def share_of(self, rounds: int) -> float:
        """``1/R``."""
        return 1.0 / rounds


class Early(Spread, frozen=True, tag_field="name", tag="Early", forbid_unknown_fields=True):
    """Each round `ratio` times the one before it: ``(1 - q) / (1 - q^R)`` of what is left.

    With ``q = (last over first)^(1/(T - 1))`` the last of T rounds gets the wanted part of what the first gets.

    Args:
        ratio: q, between 0 and 1 and neither.

    Example:
        >>> [round(Early(ratio=0.5).share(left), 4) for left in (3, 2, 1)]  # 4/7; 2/3 of 3/7; the rest
        [0.5714, 0.6667, 1.0]
    """

    ratio: float = 0.9

    def __post_init__(self) -> None:
        super().__post_init__()
        _require(0 < self.ratio < 1, "Early(ratio)", "above 0 and below 1; Even() is 1", self.ratio)

    def share_of(self, rounds: int) -> float:
        """``(1 - q) / (1 - q^R)``."""
        return _first_of(self.ratio, rounds)


class Late(Spread, frozen=True, tag_field="name", tag="Late", forbid_unknown_fields=True):
    """Each round `ratio` times the one after it: ``q^(R-1) (1 - q) / (1 - q^R)`` of what is left.

    Args:
        ratio: q, between 0 and 1 and neither.

    Example:
        >>> [round(Late(ratio=0.5).share(left), 4) for left in (3, 2, 1)]  # 1/7; 1/3 of 6/7; the rest
        [0.1429, 0.3333, 1.0]
    """

    ratio: float = 0.9

    def __post_init__(self) -> None:
        super().__post_init__()
        _require(0 < self.ratio < 1, "Late(ratio)", "above 0 and below 1; Even() is 1", self.ratio)

    def share_of(self, rounds: int) -> float:
        """``q^(R-1) (1 - q) / (1 - q^R)``."""
        return _first_of(self.ratio, rounds) * self.ratio ** (rounds - 1)


Shape = Even | Early | Late


class Priced(msgspec.Struct, frozen=True, tag_field="name", tag="Priced", forbid_unknown_fields=True):
    """A price of a joule, the client's own: a round whose update is worth more per joule may cost more.

    The client keeps every coordinate that is worth at least the price, and the price follows what that cost:
    ``price' = price * exp(rate * (spent / share - 1))``. It is multiplicative dual ascent on the budget of the run, as
    in S. Balseiro, H. Lu and V. Mirrokni, "The Best of Many Worlds: Dual Mirror Descent for Online Allocation
    Problems", Operations Research 71(1), 2023; docs/theory.md has the proof, and `regret_bound` the bound. The first
    rounds (`trials`) cost their shares, and the price begins at the geometric mean of what their last coordinates were
    worth per joule.

    Args:
        shape: what the rounds' shares are.
        rate: of the ascent; None: ``1 / sqrt(rounds of the run)``. Never more than ``1 / most``.
        most: a round may cost at most so many times its share; at least 3.

    Example:
        >>> Priced().pace_of(rounds=400), Priced().trials(rounds=400)
        (0.05, 10)
    """

    shape: Shape = Even()
    rate: float | None = None
    most: float = 5.0

    def __post_init__(self) -> None:
        if self.rate is not None:
            _require(0 < self.rate <= 1, "Priced(rate)", "above 0 and at most 1, or left out", self.rate)
        _require(3 <= self.most <= sys.float_info.max, "Priced(most)", "finite and at least 3", self.most)

    @property
    def least_mask(self) -> float:
        """Of its shape."""
        return self.shape.least_mask

    def share(self, rounds_left: int | None) -> float:
        """Of its shape."""
        return self.shape.share(rounds_left)

    def pace_of(self, rounds: int | None) -> float:
        """The rate of a run of so many rounds, None where nobody knows how many."""
        wanted = 1.0 / math.sqrt(_known(rounds, self.shape.lookahead)) if self.rate is None else self.rate
        return min(wanted, 1.0 / self.most)

    def trials(self, rounds: int | None) -> int:
        """How many rounds come before there is a price: ``sqrt(rounds) / 2``, at least 1."""
        return max(1, round(math.sqrt(_known(rounds, self.shape.lookahead)) / 2))


Schedule = Even | Early | Late | Priced
SCHEDULES: tuple[type[Schedule], ...] = get_args(Schedule)


def regret_bound(schedule: Priced, rounds: int, share_j: float, most_value: float, first_price: float) -> float:
    """A bound on what a priced run is worth less than the best of hindsight, in expectation.

        (w + 1) v + (s/r) max(p, D) + (e - 2) r (T max(p s, v) + (T + m) v),
        D = (v/s) log(v/(s p)) - v/s + p

    for T rounds whose updates are drawn independently from one law, of which none is worth more than v, with the same
    share s in each (`Even`, no recharging), rate r, at most m shares in a round, and the price p after w trials.
    Hindsight knows all updates, and may not spend more than m shares in a round either. With ``r = 1/sqrt(T)`` it grows
    as ``sqrt(T)``. The proof is in docs/theory.md. Updates that change in law over the run have no such bound.

    Args:
        schedule: whose `rate` and `most`.
        rounds: T.
        share_j: s, joules.
        most_value: v, in the unit of the values.
        first_price: p, values per joule.

    Raises:
        PacingError: a number is out of range.

    Example:
        >>> round(regret_bound(Priced(), rounds=400, share_j=1.0, most_value=1.0, first_price=0.25), 1)
        52.6
        >>> round(regret_bound(Priced(), rounds=6400, share_j=1.0, most_value=1.0, first_price=0.25), 1)
        206.9
    """
    for name, value in {"rounds": rounds, "share_j": share_j, "most_value": most_value, "price": first_price}.items():
        _require(0 < value <= sys.float_info.max, name, "finite and above 0", value)
    rate, ceiling = schedule.pace_of(rounds), most_value / share_j
    divergence = ceiling * math.log(ceiling / first_price) - ceiling + first_price
    start = share_j / rate * max(first_price, divergence)
    steps = rounds * max(first_price * share_j, most_value) + (rounds + schedule.most) * most_value
    return (schedule.trials(rounds) + 1) * most_value + start + (math.e - 2) * rate * steps
