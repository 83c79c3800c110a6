"""How fast this machine selects, encodes and adds up, as ratios in one run, and what a message takes in bytes."""

from __future__ import annotations

import ctypes
import os
import platform
import re
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import msgspec
import numpy as np
import numpy.typing as npt

from joulewise import kernel, native_select, rivals
from joulewise.aggregate import weighted_mean
from joulewise.benchdata import RESNET18, Load, layout_of, synthetic
from joulewise.benchrecords import FUSED, READ, SELECT, STEP, Part, Plan, Report, Size, Timing
from joulewise.codec import decode, encode, encode_detailed
from joulewise.compress import ClientState, Compressor, ErrorFeedback
from joulewise.devices import load_device
from joulewise.ledger import mask_energy
from joulewise.limits import limit_of, rank
from joulewise.machine import host_kind
from joulewise.prefix import longest_prefix
from joulewise.prices import price
from joulewise.ranking import Carry
from joulewise.rounding import further_bits
from joulewise.rules import CWMP, Count, Joules, Projection, TopK
from joulewise.select import Selection, select
from joulewise.timing import Contestant, Quartiles, Taken, race

DEVICE = "phone-lte-2021"
CLIENTS = 10


def parts(plan: Plan, of_file: Load | None = None) -> Iterator[Part]:
    """Measure what a plan says, one step after the other.

    Worst cases, the server and the client step run on the length that is closest to ResNet-18's.

    Args:
        plan: what to measure.
        of_file: a recorded update, measured beside those that are made.

    Raises:
        ArgumentError: a length is out of range.
    """
    for n in plan.lengths:
        layout_of(n)  # Refused now, and not after minutes of measuring another one.
    usual = min(plan.lengths, key=lambda n: abs(n - RESNET18))
    for made in (*(partial(synthetic, n) for n in plan.lengths), *((lambda: of_file,) if of_file else ())):
        load = made()
        for density in plan.densities:
            yield _of_density(load, density, plan)
        if load.n == usual or load is of_file:
            yield Part(f"{load.name}: client step, server", (*step(load, plan), *aggregate(load, 0.01, plan)))
        if load.n == usual and load is not of_file:
            yield Part("worst cases", tuple(worst_cases(load, plan)))


def _of_density(load: Load, density: float, plan: Plan) -> Part:
    share = peak_share(load, density) if load.n == RESNET18 and load.name == "synthetic" else None
    timings = [one for threads in plan.threads for one in selection(load, density, threads, plan)]
    return Part(
        f"{load.name}, n = {load.n:,}, {density:.1%} kept",
        (*timings, *codec(load, density, plan)),
        tuple(sizes(load, density)) if load.n <= rivals.QUICK_LIMIT else (),
        {} if share is None else {density: share},
    )


def summarise(made: Sequence[Part]) -> Report:
    """The report of a run in this process."""
    system = f"{platform.system()}, Python {platform.python_version()}, NumPy {np.__version__}"
    timings = tuple(one for part in made for one in part.timings)
    memory = {density: share for part in made for density, share in part.memory.items()}
    return Report(
        host_kind(), system, kernel.status(), timings, tuple(one for part in made for one in part.sizes), memory
    )


# ---------------------------------------------------------------- selection


def selection(load: Load, density: float, threads: int, plan: Plan) -> list[Timing]:
    """Reading the update once, selecting from it, the same with the residual, and what others take.

    CWMP and Projection get the joules that buy as many coordinates as TopK is asked for.
    """
    k, a, costs = max(1, int(density * load.n)), load.update, load.costs
    rooms = {rule: Joules(float(select(a, costs, rule, Count(k)).spent or 0.0)) for rule in (CWMP(), Projection())}
    sorted_too = plan.slow and threads == 1 and density == 0.10 and load.n <= rivals.QUICK_LIMIT
    ours = [
        Contestant(READ, partial(read, load)),
        Contestant("select TopK", lambda: select(a, costs, TopK(), Count(k))),
        Contestant(SELECT, lambda: select(a, costs, CWMP(), rooms[CWMP()])),
        Contestant("select Projection", lambda: select(a, costs, Projection(), rooms[Projection()])),
        Contestant(FUSED, fused(load, rooms[CWMP()])),
    ]
    others = rivals.selections(load, k, rooms[CWMP()].budget, threads, sorted_too)
    return _timed("select", load.name, (load.n, density, threads), [*ours, *others], plan.rounds)


def read(load: Load) -> int:
    """Reads the update once: the floor of everything that looks at all of it."""
    library = kernel.library()
    if library is not None:
        return native_select.read(library, load.update)
    return int(np.bitwise_or.reduce(load.update.view(np.uint32)))


def fused(load: Load, budget: Joules) -> Callable[[], object]:
    """Add the residual, select from the sum, and write the sum: what a client with error feedback does."""
    ranking = rank(load.update, load.costs, CWMP())
    units, limit, _ = limit_of(budget, load.costs)
    into = np.empty_like(load.update)
    return lambda: longest_prefix(ranking, units, limit, Carry(into, load.residual))


def worst_cases(load: Load, plan: Plan) -> list[Timing]:
    """Updates of which a sample says nothing, beside torch.topk on the same ones; a tenth is asked for."""
    sparse = load.update.copy()
    sparse[np.random.default_rng(0).random(load.n) < 0.97] = 0
    vectors = {
        "all equal": np.full(load.n, 0.5, np.float32),
        "all zero": np.zeros(load.n, np.float32),
        "97 % zeros": sparse,
    }
    made: list[Timing] = []
    for name, vector in vectors.items():
        k, one = load.n // 10, Load(name, vector, load.residual, load.costs)
        ours = Contestant("select TopK", partial(select, vector, load.costs, TopK(), Count(k)))
        topk = [other for other in rivals.selections(one, k, 0.0, 1, False) if other.name == rivals.TORCH_TOPK]
        made += _timed("worst case", name, (load.n, 0.10, 1), [ours, *topk], min(plan.rounds, 5))
    return made


# ---------------------------------------------------------------- codec, server, client


def codec(load: Load, density: float, plan: Plan) -> list[Timing]:
    """Encoding and decoding what TopK keeps."""
    layout = load.costs.layout
    kept = _kept(load, density)
    payload = encode(kept, layout, "float32")
    contestants = [
        Contestant("encode float32", lambda: encode(kept, layout, "float32")),
        Contestant("encode float16", lambda: encode(kept, layout, "float16")),
        Contestant("decode float32", lambda: decode(payload, layout)),
    ]
    found = _timed("codec", load.name, (load.n, density, 1), contestants, plan.rounds)
    count = kept.indices.size
    return [msgspec.structs.replace(one, million_per_s=count / one.milliseconds.median / 1e3) for one in found]


def aggregate(load: Load, density: float, plan: Plan) -> list[Timing]:
    """The mean of ten clients' payloads, beside making each of them dense and adding."""
    layout = load.costs.layout
    payloads = [encode(_rotated(_kept(load, density), client), layout) for client in range(CLIENTS)]

    def dense() -> object:
        total = np.zeros(layout.n, np.float64)
        for payload in payloads:
            total += decode(payload, layout).dense()
        return (total / CLIENTS).astype(np.float32)

    contestants = [
        Contestant(READ, partial(read, load)),
        Contestant(f"weighted_mean of {CLIENTS}", lambda: weighted_mean([(one, 1.0) for one in payloads], layout)),
        Contestant(f"dense, one by one, {CLIENTS}", dense),
    ]
    return _timed("aggregate", load.name, (load.n, density, 1), contestants, min(plan.rounds, 5))


def step(load: Load, plan: Plan, density: float = 0.01) -> list[Timing]:
    """The whole client step beside torch.topk and a gather alone.

    Residual added, CWMP under a budget of joules on a phone's LTE link, encoded as float16, new residual. The budget is
    what TopK's message of the same density takes.
    """
    costs = price(load.costs.layout, load_device(DEVICE), value_bits=16, density=density)
    kept = _kept(load, density)
    budget = Joules(mask_energy(encode_detailed(kept, costs.layout, "float16"), kept, costs))
    compressor = Compressor(CWMP(), budget, values="float16", feedback=ErrorFeedback())
    state = ClientState(residual=load.residual * np.float32(0.1), fingerprint=costs.layout.fingerprint)
    sent: dict[str, int] = {}

    def ours() -> None:
        sent[STEP] = len(compressor.compress(load.update, state, costs).payload)

    topk = [one for one in rivals.selections(load, kept.indices.size, 0.0, 1, False) if one.name == rivals.TORCH_TOPK]
    contestants = [Contestant(READ, partial(read, load)), Contestant(STEP, ours), *topk]
    if plan.slow:
        contestants += rivals.steps(load, density, sent)
    found = _timed("step", load.name, (load.n, density, 1), contestants, plan.rounds)
    return [msgspec.structs.replace(one, message_bytes=sent.get(one.name)) for one in found]


def sizes(load: Load, density: float) -> Iterator[Size]:
    """What messages take: of what TopK keeps, and of as many per tensor at places drawn uniformly."""
    kept = _kept(load, density)
    yield _size(kept, load, density, load.name)
    if load.name == "synthetic":
        share = _shares(kept, load)
        drawn = np.random.default_rng(1).random(load.n, np.float32) < np.repeat(share, load.costs.layout.sizes)
        places = np.flatnonzero(drawn).astype(np.uint32)
        if places.size:  # Of a handful of coordinates there may be none.
            yield _size(Selection(load.n, places, load.update[places]), load, density, "uniform places")


def peak_share(load: Load, density: float) -> float | None:
    """Peak memory of a selection besides what it returns, over the update's; None where the system does not tell.

    Linux counts a process's peak from when it is told to.
    """
    k = max(1, int(density * load.n))
    _give_back()
    before = _peak_bytes(reset=True)
    if before is None:
        return None
    kept = select(load.update, load.costs, TopK(), Count(k))
    peak = _peak_bytes(reset=False) or before
    return max(0, peak - before - kept.indices.nbytes - kept.values.nbytes) / load.update.nbytes


# ---------------------------------------------------------------- parts


def _kept(load: Load, density: float) -> Selection:
    return select(load.update, load.costs, TopK(), Count(max(1, int(density * load.n))))


def _rotated(kept: Selection, client: int) -> Selection:
    """Another client's: the same number of places, moved on."""
    moved = np.sort((kept.indices.astype(np.int64) + client * 1009) % kept.n).astype(np.uint32)
    return Selection(kept.n, moved, kept.values)


def _timed(
    what: str, data: str, case: tuple[int, float, int], contestants: Sequence[Contestant], rounds: int
) -> list[Timing]:
    n, density, threads = case
    with _threads(threads):
        found = race(contestants, rounds, time.perf_counter if threads > 1 else None)
    bases = [found[name] for name in (READ, rivals.TORCH_TOPK, rivals.ARGPARTITION) if name in found]
    return [Timing(what, one.name, data, n, density, threads, *_figures(one, bases)) for one in found.values()]


def _figures(one: Taken, bases: Sequence[Taken]) -> tuple[int, Quartiles, dict[str, Quartiles]]:
    milliseconds = Quartiles.of([1e3 * seconds for seconds in one.seconds])
    return len(one.seconds), milliseconds, {base.name: one.times_of(base) for base in bases if base.name != one.name}


@contextmanager
def _threads(count: int) -> Iterator[None]:
    """The kernel reads how many threads it may use from the environment, as users say it."""
    before = os.environ.get(kernel.THREADS_VARIABLE)
    os.environ[kernel.THREADS_VARIABLE] = str(count)
    try:
        yield
    finally:
        if before is None:
            del os.environ[kernel.THREADS_VARIABLE]
        else:
            os.environ[kernel.THREADS_VARIABLE] = before


def _size(kept: Selection, load: Load, density: float, data: str) -> Size:
    layout, count = load.costs.layout, kept.indices.size
    # Equal values have one symbol, of no bits: besides their further bits only places and the table are left.
    ones = Selection(kept.n, kept.indices, np.ones(count, np.float32))
    index_bits = encode_detailed(ones, layout, "int8").tensor_bits.sum() - further_bits("int8") * count
    share = _shares(kept, load)
    inner = (share > 0) & (share < 1)
    p = share[inner]
    bound = -(layout.sizes[inner] * (p * np.log2(p) + (1 - p) * np.log2(1 - p))).sum()
    payloads = {kind: len(encode(kept, layout, kind)) for kind in ("float32", "float16", "int8")}
    return Size(
        data, load.n, density, count, payloads, float(index_bits) / 8, float(bound) / 8, rivals.zstd_bytes(kept),
        12 * count,
    )  # fmt: skip


def _shares(kept: Selection, load: Load) -> npt.NDArray[np.float64]:
    """Share of each tensor that is kept; 0 of an empty one."""
    layout = load.costs.layout
    return layout.counts(kept.indices) / np.maximum(layout.sizes, 1)


def _give_back() -> None:
    """Memory that was freed, but which the C library still holds, goes back: it would hide what is taken again."""
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None) if os.name == "posix" else None
    if trim is not None:
        trim(ctypes.c_size_t(0))


def _peak_bytes(reset: bool) -> int | None:
    """The peak of this process's memory; with `reset`, forgets it first."""
    try:
        if reset:
            Path("/proc/self/clear_refs").write_text("5", encoding="ascii")
        told = re.search(r"^VmHWM:\s*(\d+) kB$", Path("/proc/self/status").read_text(encoding="utf-8"), re.MULTILINE)
    except OSError:
        return None
    return int(told[1]) << 10 if told else None
