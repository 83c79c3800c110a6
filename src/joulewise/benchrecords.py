"""What a benchmark is to measure, and what it measured: records that are printed, drawn and compared with targets."""

from __future__ import annotations

import msgspec

from joulewise.benchdata import RESNET18
from joulewise.timing import Quartiles

READ, SELECT, FUSED, STEP = "read", "select CWMP", "select CWMP, residual added", "client step"


class Timing(msgspec.Struct, frozen=True):
    """How long something takes, and how it compares.

    Args:
        what: ``select``, ``worst case``, ``codec``, ``aggregate`` or ``step``.
        name: of the contestant.
        data: ``synthetic``, ``recorded``, or the worst case's name.
        n: coordinates.
        density: share that is kept.
        threads: of the kernel and of torch.
        rounds: how often it was timed.
        milliseconds: of CPU time with one thread, on the wall with more.
        times_of: how many times as long as others it takes, by name, from the same rounds.
        million_per_s: kept coordinates, for the codec.
        message_bytes: of the message that a client step makes.
    """

    what: str
    name: str
    data: str
    n: int
    density: float
    threads: int
    rounds: int
    milliseconds: Quartiles
    times_of: dict[str, Quartiles]
    million_per_s: float | None = None
    message_bytes: int | None = None


class Size(msgspec.Struct, frozen=True):
    """What a message of the k coordinates that `select` keeps takes.

    Args:
        data: ``synthetic``, ``recorded``, or ``uniform places``.
        n: coordinates.
        density: share that is kept.
        kept: k.
        payload_bytes: by value type.
        index_bytes: places alone.
        bound_bytes: the entropy of the places, ``sum_g n_g H(k_g / n_g) / 8``.
        zstd_bytes: gaps as variable-length integers and float32 values through zstd level 3; None without zstandard.
        plain_bytes: int64 places and float32 values.
    """

    data: str
    n: int
    density: float
    kept: int
    payload_bytes: dict[str, int]
    index_bytes: float
    bound_bytes: float
    zstd_bytes: int | None
    plain_bytes: int


class Report(msgspec.Struct, frozen=True):
    """Everything that one run of `joulewise bench` measured.

    Args:
        machine: what kind it is, without its name.
        system: operating system, Python and NumPy.
        kernel: which implementation ran.
        timings: in the order in which they were made.
        sizes: as above.
        memory: peak memory besides results and buffers, as a share of the update, by density; empty where the system
            does not tell.
    """

    machine: str
    system: str
    kernel: str
    timings: tuple[Timing, ...]
    sizes: tuple[Size, ...]
    memory: dict[float, float]


class Plan(msgspec.Struct, frozen=True):
    """What to measure.

    Args:
        lengths: of updates.
        densities: shares that are kept.
        threads: one or two, for example.
        rounds: how often everything runs.
        slow: time what takes seconds too.
    """

    lengths: tuple[int, ...] = (1_000_000, RESNET18, 100_000_000)
    densities: tuple[float, ...] = (0.001, 0.01, 0.05, 0.10, 0.20)
    threads: tuple[int, ...] = (1, 2)
    rounds: int = 9
    slow: bool = True


QUICK = Plan((RESNET18,), (0.01, 0.05, 0.10, 0.20), (1,), 5, False)


class Part(msgspec.Struct, frozen=True):
    """One step of a run.

    Args:
        label: what was measured, for who waits.
        timings: what came.
        sizes: what came.
        memory: what came, by density.
    """

    label: str
    timings: tuple[Timing, ...] = ()
    sizes: tuple[Size, ...] = ()
    memory: dict[float, float] = {}
