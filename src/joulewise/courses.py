"""How a fleet's budget is spread over the rounds of a run: more at first, or more at the end.

Without a course every round has the same budget. With one, budgets are a geometric sequence, and all of them together
are what even rounds would have: never more, and less by one part in 1e12 at most.
"""

from __future__ import annotations

import math

import msgspec

from joulewise.errors import RuleError

MOST_RATIO = 1e6
MOST_ROUNDS = 10**9
SAFE = 1.0 - 2.0**-43
"""Of each round's part: more than what rounding may add to all of them together."""


class _Geometric(msgspec.Struct, frozen=True):
    """What all courses have.

    Args:
        ratio: of the largest round's budget over the smallest round's.
        rounds: of the run; None where whoever plays the rounds knows how many (a study, or ``Sparse(...).start``).
    """

    ratio: float = 10.0
    rounds: int | None = None

    def __post_init__(self) -> None:
        name = type(self).__name__
        if not 1 < self.ratio <= MOST_RATIO:
            raise RuleError(
                f"{name}(ratio) must be above 1 and at most {MOST_RATIO:g}, but is {self.ratio}; leave the course out "
                "for even rounds"
            )
        if self.rounds is not None and not 1 <= self.rounds <= MOST_ROUNDS:
            raise RuleError(f"{name}(rounds) must be from 1 to {MOST_ROUNDS}, but is {self.rounds}")

    def part(self, number: int) -> float:
        """Budget of a round, as a multiple of the budget that it would have if all were even.

        Args:
            number: of the round, from 0.

        Raises:
            RuleError: nobody has said how many rounds there are, or this one is beyond the last.
        """
        name = type(self).__name__
        if self.rounds is None:
            raise RuleError(
                f"{name} does not know how many rounds the run has; say so, {name}(ratio={self.ratio:g}, rounds=...)"
            )
        if not 0 <= number < self.rounds:
            raise RuleError(
                f"{name} is a course over {self.rounds} rounds, and round {number + 1} has no budget; give it as many "
                "rounds as the run has"
            )
        return _part(self.ratio, self.rounds, self.place(number, self.rounds))

    def place(self, number: int, rounds: int) -> int:
        """Where a round stands when the rounds are put in order, the largest budget first."""
        raise NotImplementedError


class Falling(
    _Geometric, frozen=True, tag_field="name", tag="Falling", forbid_unknown_fields=True, repr_omit_defaults=True
):
    """The first round has the most; each later one the same share of the one before it.

    Example:
        >>> [round(Falling(ratio=4.0, rounds=3).part(number), 4) for number in range(3)]
        [1.7143, 0.8571, 0.4286]
    """

    def place(self, number: int, rounds: int) -> int:
        """The number itself."""
        return number


class Rising(
    _Geometric, frozen=True, tag_field="name", tag="Rising", forbid_unknown_fields=True, repr_omit_defaults=True
):
    """The last round has the most; each earlier one the same share of the one after it.

    Example:
        >>> [round(Rising(ratio=4.0, rounds=3).part(number), 4) for number in range(3)]
        [0.4286, 0.8571, 1.7143]
    """

    def place(self, number: int, rounds: int) -> int:
        """Counted from the last round."""
        return rounds - 1 - number


Course = Falling | Rising


def _part(ratio: float, rounds: int, place: int) -> float:
    """``T q^place (1 - q) / (1 - q^T)`` with ``q = ratio^(-1/(T - 1))``, and a little less for rounding."""
    if rounds == 1:
        return 1.0
    rate = math.log(ratio) / (rounds - 1)
    largest = rounds * math.expm1(-rate) / math.expm1(-rounds * rate)
    return SAFE * largest * math.exp(-rate * place)


def over(course: Course, rounds: int) -> Course:
    """The course over a run of so many rounds.

    Raises:
        RuleError: it has fewer.

    Example:
        >>> over(Falling(ratio=4.0), 30)
        Falling(ratio=4.0, rounds=30)
    """
    if course.rounds is not None and course.rounds < rounds:
        raise RuleError(
            f"{type(course).__name__} is a course over {course.rounds} rounds, but the run has {rounds}; leave its "
            f"rounds out, or give it {rounds}"
        )
    return course if course.rounds is not None else type(course)(course.ratio, rounds)
