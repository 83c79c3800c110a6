"""Rules that rank coordinates and budgets that end the ranking, as records that a TOML file decodes into.

A rule is a score and a budget is where to stop. The unions `Rule` and `Budget` are the registry: a new member
is one class here, and every file, command and law test picks it up.
"""

from __future__ import annotations

import math
import sys
from decimal import Context, Decimal
from typing import ClassVar, get_args

import msgspec
import numpy as np
import numpy.typing as npt

from joulewise.errors import RuleError

_EXACTLY = Context(prec=64)  # More digits than a share as written and a number of coordinates have together.

Floats = npt.NDArray[np.float64]

# ------------------------------------------------------------------------------------------------ rules


class Ranked(msgspec.Struct, frozen=True):
    """A rule with ``score_i = |a_i| / c_i^(1/p)``."""

    norm: ClassVar[int | None] = None
    random: ClassVar[bool] = False

    def weights(self, per_kept: Floats) -> Floats:
        """Factors on ``|a|``, up to one common power of two."""
        return np.ones_like(per_kept)


class Dense(msgspec.Struct, frozen=True, tag_field="name", tag="Dense", forbid_unknown_fields=True):
    """Keep everything: no compression, the reference."""

    random: ClassVar[bool] = False


class TopK(Ranked, frozen=True, tag_field="name", tag="TopK", forbid_unknown_fields=True):
    """Largest magnitude first, blind to cost: the usual baseline."""


class LayerwiseTopK(Ranked, frozen=True, tag_field="name", tag="LayerwiseTopK", forbid_unknown_fields=True):
    """TopK within each tensor, at the same density in all: blind to cost, and to how magnitudes differ between tensors.

    What most implementations of Top-K sparsification do, since Lin et al., "Deep Gradient Compression", ICLR 2018. Of k
    coordinates, tensor g gets ``k n_g / n`` rounded by Sainte-Laguë's method, see `joulewise.layerwise`: the sum is k,
    and a larger budget never keeps less of any tensor. Where a tensor has fewer entries that are not zero, the others
    get its places in the same order.

    Example:
        >>> from joulewise.costs import Costs
        >>> from joulewise.layout import Layout
        >>> from joulewise.select import select
        >>> costs = Costs.of(1.0, Layout.of({"large": np.ones(6), "small": np.ones(3)}))
        >>> a = np.array([9, 8, 7, 6, 5, 4, 3, 2, 1], np.float32)
        >>> select(a, costs, LayerwiseTopK(), Count(3)).indices.tolist()
        [0, 1, 6]
    """

    def weights(self, per_kept: Floats) -> Floats:
        """There are none: the score of a coordinate is its place among those of its tensor.

        Raises:
            RuleError: always; theory and plans, which ask for weights, do not know this rule.
        """
        raise RuleError(
            "LayerwiseTopK ranks by places within a tensor, for which there is no prediction; give an update to "
            "joulewise.select, or take TopK"
        )


class CWMP(Ranked, frozen=True, tag_field="name", tag="CWMP", forbid_unknown_fields=True):
    """Largest magnitude per joule first, ``|a|/c``: most L1 mass per joule.

    E. M. Athanasakos, arXiv:2603.22465, 2026.
    """

    norm: ClassVar[int | None] = 1

    def weights(self, per_kept: Floats) -> Floats:
        """``1/c``."""
        return 1.0 / per_kept


class Projection(Ranked, frozen=True, tag_field="name", tag="Projection", forbid_unknown_fields=True):
    """Largest squared magnitude per joule first, ``a^2/c``: the Euclidean projection under an energy budget.

    Used for the weights of a network by Yang, Zhu and Liu, "Energy-Constrained Compression for Deep Neural
    Networks via Weighted Sparse Projection and Layer Input Masking", ICLR 2019.
    """

    norm: ClassVar[int | None] = 2

    def weights(self, per_kept: Floats) -> Floats:
        """``1/sqrt(c)``: the order of ``a^2/c`` without squaring float32 numbers."""
        return 1.0 / np.sqrt(per_kept)


class MinVariance(msgspec.Struct, frozen=True, tag_field="name", tag="MinVariance", forbid_unknown_fields=True):
    """Keep i with probability ``q_i = min(1, lambda |a_i| / sqrt(c_i))`` and send ``a_i / q_i``.

    Unbiased; the least variance among independent inclusions whose expected energy is the budget. With Count
    and Density the probabilities are in proportion to ``|a_i|`` and the expected number kept is the budget.
    """

    random: ClassVar[bool] = True


class RandomK(Ranked, frozen=True, tag_field="name", tag="RandomK", forbid_unknown_fields=True):
    """A random order, blind to magnitude and cost.

    Args:
        scale: send ``a_i m/k`` with m the number of entries that are not zero (zeros are never sent), which
            is unbiased when all prices are equal or the budget is a count.
    """

    random: ClassVar[bool] = True
    scale: bool = False


Rule = Dense | TopK | CWMP | Projection | MinVariance | RandomK | LayerwiseTopK
RULES: tuple[type[Rule], ...] = get_args(Rule)

# ------------------------------------------------------------------------------------------------ budgets


def _require(holds: bool, name: str, expected: str, value: float) -> None:
    if not holds:
        raise RuleError(f"{name} must be {expected}, but is {_shown(value)}")


def _shown(value: float) -> str:
    """A number as a reader takes it in: hundreds of digits help nobody."""
    long = isinstance(value, int) and abs(value) > LARGEST
    return f"about 10^{int(value).bit_length() * math.log10(2):.0f}" if long else f"{value}"


LARGEST = 2**63 - 1
"""The most bytes that a budget may have."""


class Count(msgspec.Struct, frozen=True, tag_field="name", tag="Count", forbid_unknown_fields=True):
    """The k best scores."""

    k: int

    def __post_init__(self) -> None:
        whole = isinstance(self.k, int | np.integer)
        _require(whole and self.k >= 0, "Count(k)", "a whole number of at least 0", self.k)

    def count(self, n: int) -> int:
        """How many of n coordinates that is."""
        return min(self.k, n)


class Density(msgspec.Struct, frozen=True, tag_field="name", tag="Density", forbid_unknown_fields=True):
    """The ``floor(fraction * n)`` best scores; `fraction` is read as the decimal number that was written."""

    fraction: float

    def __post_init__(self) -> None:
        _require(0 <= self.fraction <= 1, "Density(fraction)", "between 0 and 1", self.fraction)

    def count(self, n: int) -> int:
        """How many of n coordinates that is."""
        return int(_EXACTLY.multiply(Decimal(repr(float(self.fraction))), int(n)))


class Joules(msgspec.Struct, frozen=True, tag_field="name", tag="Joules", forbid_unknown_fields=True):
    """The longest prefix of the score order whose energy fits; in the unit of the costs.

    Args:
        budget: energy that what is kept may cost.
        includes_fixed: the fixed cost of a reply, over all links, is paid from the budget too; where it does not
            fit, nothing is sent.
        fill: go on after the first coordinate that does not fit and keep later ones that do.
    """

    budget: float
    includes_fixed: bool = False
    fill: bool = False

    def __post_init__(self) -> None:
        _require(0 <= self.budget <= sys.float_info.max, "Joules(budget)", "finite and at least 0", self.budget)

    def room(self, fixed: float) -> float:
        """What coordinates may cost, where a reply costs `fixed` in any case; below 0 where it cannot be paid."""
        return self.budget - (fixed if self.includes_fixed else 0.0)


class Bytes(msgspec.Struct, frozen=True, tag_field="name", tag="Bytes", forbid_unknown_fields=True):
    """The longest prefix of the score order whose encoded size fits.

    Args:
        n: bytes.
        fill: go on after the first coordinate that does not fit and keep later ones that do.
    """

    n: int
    fill: bool = False

    def __post_init__(self) -> None:
        _require(0 <= self.n <= LARGEST, "Bytes(n)", f"from 0 to {LARGEST}", self.n)


class Price(msgspec.Struct, frozen=True, tag_field="name", tag="Price", forbid_unknown_fields=True):
    """Every coordinate worth at least `value` per joule: ``|a|/c`` for CWMP, ``a^2/c`` for Projection."""

    value: float

    def __post_init__(self) -> None:
        _require(0 <= self.value <= sys.float_info.max, "Price(value)", "finite and at least 0", self.value)


class Threshold(msgspec.Struct, frozen=True, tag_field="name", tag="Threshold", forbid_unknown_fields=True):
    """Every coordinate with ``|a| >= value``, however many there are: hard-threshold sparsification.

    With `ErrorFeedback`, ``a = u + r``: what stays below the threshold waits until it has grown. The count differs from
    round to round and from client to client, and follows the size of the updates. Sahu, Dutta, Abdelmoniem, Banerjee,
    Canini and Kalnis, "Rethinking gradient sparsification as total error minimization", NeurIPS 2021: of a given number
    of coordinates over all rounds together, one threshold leaves the least total error.

    Args:
        value: the least magnitude that is kept, in the unit of the updates.

    Example:
        >>> from joulewise.select import select
        >>> a = np.array([0.5, -3.0, 0.25, 0.0], np.float32)
        >>> select(a, np.ones(4), TopK(), Threshold(0.5)).indices.tolist()
        [0, 1]
    """

    value: float

    def __post_init__(self) -> None:
        _require(0 <= self.value <= sys.float_info.max, "Threshold(value)", "finite and at least 0", self.value)


Budget = Count | Density | Joules | Bytes | Price | Threshold
BUDGETS: tuple[type[Budget], ...] = get_args(Budget)


def budget_text(budget: Budget | None) -> str:
    """A budget as text, such as ``density=0.01``; empty for none.

    Example:
        >>> budget_text(Density(0.01)), budget_text(Joules(2.0, fill=True)), budget_text(None)
        ('density=0.01', 'joules=2 fill', '')
    """
    if budget is None:
        return ""
    (amount, *flags) = ((name, getattr(budget, name)) for name in budget.__struct_fields__)
    text = f"{type(budget).__name__.lower()}={repr(amount[1]).removesuffix('.0')}"
    return " ".join([text, *(name for name, is_set in flags if is_set)])


LEGAL: dict[type[Rule], tuple[type[Budget], ...]] = {
    Dense: (),
    TopK: (Count, Density, Joules, Bytes, Threshold),
    CWMP: (Count, Density, Joules, Bytes, Price),
    Projection: (Count, Density, Joules, Bytes, Price),
    MinVariance: (Count, Density, Joules),
    RandomK: (Count, Density, Joules, Bytes),
    LayerwiseTopK: (Count, Density, Joules, Bytes),
}


def check_pair(rule: Rule, budget: Budget | None) -> None:
    """Refuse a rule and a budget that do not go together.

    Raises:
        RuleError: naming both, and what the rule takes.

    Example:
        >>> check_pair(TopK(), Price(1.0))
        Traceback (most recent call last):
            ...
        joulewise.errors.RuleError: TopK does not take a Price budget; it takes Count, Density, Joules, Bytes
        or Threshold
    """
    takes = LEGAL[type(rule)]
    if isinstance(budget, takes) or (budget is None and not takes):
        return
    name, given = type(rule).__name__, "no" if budget is None else f"a {type(budget).__name__}"
    if not takes:
        raise RuleError(f"{name} does not take {given} budget: it sends everything; leave the budget out")
    *most, last = (budget_type.__name__ for budget_type in takes)
    if budget is None:
        raise RuleError(f"{name} needs a budget: {', '.join(most)} or {last}")
    raise RuleError(f"{name} does not take {given} budget; it takes {', '.join(most)} or {last}")
