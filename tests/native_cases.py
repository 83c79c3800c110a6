"""Cases in which the kernel and NumPy have to agree to the last bit: made from a seed, run both ways, compared."""

import os
import warnings
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from unittest import mock

import numpy as np

from joulewise import kernel, native_select, prefix
from joulewise.costs import Costs
from joulewise.layout import Layout
from joulewise.ranking import Carry, NotFinite, Ranking
from joulewise.rules import CWMP, Bytes, Count, Density, Joules, Price, Projection, RandomK, TopK
from joulewise.select import limit_of, rank, select

KINDS = ("mixture", "all equal", "97 % zeros", "denormals", "one 3e38", "duplicates")
RULES = (TopK(), CWMP(), Projection(), RandomK())
BUDGETS = (Count, Density, Joules, Bytes, Price)
SHARES = (0.0, 0.0005, 0.01, 0.1, 0.2, 0.5, 0.9, 1.0)
SIZES = (0, 1, 2, 63, 64, 65, 200, 1000, 2047, 2048, 2049, 5000, 65535, 65536, 65537, 140_001)
CHANCES = (1, 1, 1, 3, 3, 3, 8, 8, 8, 8, 8, 8, 1, 1, 1, 2)
FLAGS = {
    "as chosen": 0,
    "portable": native_select.PORTABLE,
    "tiny sample": native_select.TINY_SAMPLE,
    "bracket too high": native_select.TINY_SAMPLE | native_select.HIGH_BRACKET,
    "bracket too low": native_select.TINY_SAMPLE | native_select.LOW_BRACKET,
    "two passes": native_select.TINY_SAMPLE | native_select.TWO_PASSES,
    "one pass": native_select.TINY_SAMPLE | native_select.ONE_PASS,
    "one pass, streamed": native_select.TINY_SAMPLE | native_select.ONE_PASS | native_select.STREAMED,
    "too little room": native_select.TINY_SAMPLE | native_select.ONE_PASS | native_select.LITTLE_ROOM,
    "portable, one pass": native_select.PORTABLE | native_select.TINY_SAMPLE | native_select.ONE_PASS,
    "portable, two passes": native_select.PORTABLE | native_select.TINY_SAMPLE | native_select.TWO_PASSES,
}


@dataclass(frozen=True)
class Outcome:
    """Everything that has to be the same."""

    indices: bytes
    values: bytes
    numbers: tuple
    carried: bytes


@dataclass(frozen=True)
class Case:
    name: str
    tags: tuple[str, ...]
    a: np.ndarray
    costs: Costs
    rule: object
    budget: object
    key: int | None
    residual: np.ndarray | None
    factor: float | None
    threads: int
    flags: int

    def ranking(self) -> Ranking:
        return rank(self.a, self.costs, self.rule, self.key)

    def carry(self) -> Carry | None:
        if self.factor is None:
            return None
        return Carry(np.full(self.a.size, 7, np.float32), self.residual, self.factor)

    def outcome(self, longest_prefix, at_least) -> Outcome:
        """Of one implementation; an error's place is an outcome too."""
        carry = self.carry()
        try:
            if isinstance(self.budget, Price):
                indices, values, squares = at_least(self.ranking(), self.budget.value, carry)
                numbers = (squares,)
            else:
                units, limit, _ = limit_of(self.budget, self.costs)
                found = longest_prefix(self.ranking(), units, limit, carry)
                indices, values = found.indices, found.values
                numbers = (found.spent, found.misfit, found.squares)
        except NotFinite as error:
            return Outcome(b"", b"", (error.index, error.of_sum), b"")
        return Outcome(indices.tobytes(), values.tobytes(), numbers, b"" if carry is None else carry.into.tobytes())


def data(rng: np.random.Generator, kind: str, n: int) -> np.ndarray:
    mixture = np.where(rng.random(n) < 0.1, 5, 1) * rng.standard_normal(n) * 1e-3
    match kind:
        case "mixture" if rng.random() < 0.5:
            a = rng.laplace(scale=1e-4, size=n)
        case "all equal":
            a = np.full(n, 0.5) * rng.choice([-1, 1], n)
        case "97 % zeros":
            a = np.where(rng.random(n) < 0.97, -0.0, mixture)
        case "denormals":
            a = mixture * 1e-38
        case "one 3e38":
            a = mixture
            a[: min(n, 1)] = 3e38
            rng.shuffle(a)
        case "duplicates":
            a = rng.integers(-3, 4, n) * 0.25
        case _:
            a = mixture
    return a.astype(np.float32)


def costs_of(rng: np.random.Generator, n: int) -> Costs:
    tensors = int(rng.integers(1, 8))
    edges = np.array([0, *np.sort(rng.integers(0, n + 1, tensors - 1)), n])
    layout = Layout.of(
        {f"t{i}.weight": np.broadcast_to(np.float32(0), (size,)) for i, size in enumerate(np.diff(edges))}
    )
    kind = rng.integers(4)
    if kind == 0:
        per_kept = rng.choice([1.0, 10.0], tensors)
    elif kind == 1:
        per_kept = np.exp(rng.standard_normal(tensors)) * 1e-9
    elif kind == 2:
        per_kept = 10.0 ** rng.uniform(-30, 30, tensors)
    else:
        per_kept = rng.choice([1.0, 2.0, 3.0, 50.0], n)
    by_name = {tensor.name: float(price) for tensor, price in zip(layout.tensors, per_kept, strict=False)}
    with warnings.catch_warnings():  # of prices that are too far apart: they are meant
        warnings.simplefilter("ignore", UserWarning)
        return Costs.of(by_name if per_kept.size == tensors else per_kept, layout, "relative")


def budget_of(rng: np.random.Generator, kind: type, costs: Costs, a: np.ndarray) -> object:
    share, n = float(rng.choice(SHARES)), costs.layout.n
    if kind is Count:
        return Count(int(share * n))
    if kind is Density:
        return Density(share)
    if kind is Price:
        return Price(float(np.quantile(np.abs(a), 1 - share)) if n and share < 1 else 0.0)
    sizes = 1 if costs.per_coordinate else costs.layout.sizes
    if kind is Joules:
        return Joules(share * float((costs.per_kept * sizes).sum()))
    return Bytes(int(share * float((costs.bits_per_kept * sizes).sum()) / 8))


def cases(seed: int, count: int, most: int = max(SIZES)) -> Iterator[Case]:
    """`count` cases that a seed determines, with vectors of at most `most` elements."""
    chances = np.array([chance if size <= most else 0 for size, chance in zip(SIZES, CHANCES, strict=True)], float)
    for number in range(count):
        rng = np.random.default_rng([seed, number])
        n, kind = int(rng.choice(SIZES, p=chances / chances.sum())), KINDS[number % len(KINDS)]
        rule = RULES[number // len(KINDS) % len(RULES)]
        takes = BUDGETS if rule in (CWMP(), Projection()) else BUDGETS[:-1]
        costs, a = costs_of(rng, n), data(rng, kind, n)
        budget = budget_of(rng, takes[int(rng.integers(len(takes)))], costs, a)
        residual, factor = None, None
        if rng.random() < 0.4:
            residual = data(rng, str(rng.choice(KINDS)), n) if rng.random() < 0.8 else None
            factor = float(rng.choice([1.0, 0.9, 0.0, 1e-20]))
        if n and rng.random() < 0.04:
            spoiled = a if residual is None or rng.random() < 0.5 else residual
            spoiled[rng.integers(n, size=2)] = rng.choice([np.nan, np.inf, -np.inf], 2)
        key = int(rng.integers(2**64, dtype=np.uint64)) if rule.random else None
        flags, threads = str(rng.choice(list(FLAGS))), int(rng.integers(1, 4))
        feedback = "without feedback" if factor is None else "with feedback"
        tags = (kind, type(rule).__name__, type(budget).__name__, flags, f"{threads} threads", feedback)
        name = f"seed {seed}, case {number}: n = {n}, {', '.join(tags)}"
        yield Case(name, tags, a, costs, rule, budget, key, residual, factor, threads, FLAGS[flags])


@contextmanager
def implementation(library, flags: int = 0, threads: int = 1) -> Iterator[None]:
    """Everything inside runs in the kernel, on forced paths, or in NumPy where `library` is None."""
    forced = partial(native_select.longest_prefix, flags=flags), partial(native_select.at_least, flags=flags)
    with (
        mock.patch.object(kernel, "library", return_value=library),
        mock.patch.object(native_select, "longest_prefix", forced[0]),
        mock.patch.object(native_select, "at_least", forced[1]),
        mock.patch.dict(os.environ, {kernel.THREADS_VARIABLE: str(threads)}),
    ):
        yield


def whole_selection(case: Case) -> object:
    """What `select` gives, with certificate, delta and filling."""
    rng = np.random.default_rng(5)
    budget = case.budget
    if isinstance(budget, Joules | Bytes) and case.a.size < 3000:
        budget = type(budget)(budget.budget if isinstance(budget, Joules) else budget.n, fill=True)
    kept = select(case.a, case.costs, case.rule, budget, rng)
    return kept.indices.tobytes(), kept.values.tobytes(), kept.spent, kept.certificate, kept.delta


def difference(case: Case, library) -> str | None:
    """What the kernel makes different from NumPy; None for nothing."""
    expected = case.outcome(prefix.prefix_in_numpy, prefix.at_least_in_numpy)
    with implementation(library, case.flags, case.threads):
        found = case.outcome(prefix.longest_prefix, prefix.at_least)
        if found != expected:
            return f"{case.name}: {_fields(found, expected)}"
        if not np.isfinite(case.a).all():
            return None
        whole = whole_selection(case)
    with implementation(None):
        return None if whole == whole_selection(case) else f"{case.name}: select differs"


def _fields(found: Outcome, expected: Outcome) -> str:
    names = [
        name for name in ("indices", "values", "numbers", "carried") if getattr(found, name) != getattr(expected, name)
    ]
    return f"{', '.join(names)} differ; {found.numbers} instead of {expected.numbers}"


def compare(seed: int, count: int, library, most: int = max(SIZES)) -> tuple[list[str], Counter]:
    """The differences of `count` cases, and how often each tag was met."""
    differences, met = [], Counter()
    for case in cases(seed, count, most):
        met.update(case.tags)
        found = difference(case, library)
        if found is not None:
            differences.append(found)
    return differences, met
