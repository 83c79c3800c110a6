"""The command `bench`: its options, its tables, its figure."""

# Imports wait until the command runs: `joulewise --help` is to stay quick.
# ruff: noqa: PLC0415

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from joulewise.terminal import Debug, Figure, Json, empty_table, open_console, say

if TYPE_CHECKING:
    from rich.table import Table

    from joulewise.benchdata import Load
    from joulewise.benchrecords import Plan, Report
    from joulewise.timing import Quartiles

Option = typer.Option


def bench(
    *,
    quick: Annotated[bool, Option("--quick", help="ResNet-18's size, one thread: a minute, not half an hour.")] = False,
    n: Annotated[list[int] | None, Option(metavar="N", help="Coordinates; repeatable.", show_default=False)] = None,
    density: Annotated[
        list[float] | None, Option(metavar="SHARE", help="Share that is kept; repeatable.", show_default=False)
    ] = None,
    threads: Annotated[
        list[int] | None, Option(metavar="T", help="Threads; repeatable.", min=1, max=1024, show_default=False)
    ] = None,
    rounds: Annotated[int | None, Option(min=1, metavar="N", help="Timed rounds.", show_default=False)] = None,
    update: Annotated[
        str | None,
        Option(metavar="U.npz", help="A recorded update too: arrays by name.", show_default=False),
    ] = None,
    json: Json = False,
    figure: Figure = None,
    debug: Debug = False,
) -> None:
    """Measure how fast this machine selects and encodes, beside the usual alternatives, as ratios in one run.

    Example: joulewise bench --quick
    """
    from joulewise import bench as benching
    from joulewise.benchrecords import QUICK, Plan

    del debug
    plan = _plan(QUICK if quick else Plan(), n, density, threads, rounds)
    if figure is not None:
        from joulewise import bench_figure

        bench_figure.check(figure)  # Before minutes of measuring.
    made = []
    progress = open_console(stderr=True)
    for part in benching.parts(plan, None if update is None else _recorded(update)):
        progress.print(f"measured: {part.label}", markup=False)
        made.append(part)
    report = benching.summarise(made)
    if json:
        import msgspec

        print(msgspec.json.format(msgspec.json.encode(report)).decode())  # noqa: T201 (for a program to read)
    else:
        _show(report)
    if figure is not None:  # What was measured is shown by now, should the picture fail.
        bench_figure.draw(report, figure)
        progress.print(f"figure: {figure}", markup=False)


def _plan(
    usual: Plan, n: list[int] | None, density: list[float] | None, threads: list[int] | None, rounds: int | None
) -> Plan:
    import msgspec

    from joulewise.errors import ArgumentError

    for share in density or ():
        if not 0 < share <= 0.5:
            raise ArgumentError(f"--density {share} is out of range; give a share above 0 and up to 0.5, as in 0.01")
    asked = {"lengths": n, "densities": density, "threads": threads}
    changed = {name: tuple(values) for name, values in asked.items() if values}
    return msgspec.structs.replace(usual, **changed, **({"rounds": rounds} if rounds else {}))


def _recorded(path: str) -> Load:
    from joulewise.benchdata import recorded
    from joulewise.errors import ModelError
    from joulewise.modelfile import load_layout, load_update

    if Path(path).suffix.lower() != ".npz":
        raise ModelError(f"--update {path} is not an .npz file; write it with numpy.savez(FILE, **arrays)")
    try:
        layout = load_layout(path)
    except ModelError as error:  # The file is the model here.
        raise ModelError(str(error).replace("--model", "--update", 1)) from error
    return recorded(load_update(path, layout), layout)


# ---------------------------------------------------------------- tables


def _show(report: Report) -> None:
    console = open_console()
    say(f"{report.machine}; {report.system}; kernel: {report.kernel}")
    say(
        "Times are medians of rounds that take turns, with quartiles in brackets: CPU time with one thread, on the wall"
    )
    say("with more. Ratios come from the same round: below one is faster.")
    console.print(_speed(report))
    if report.sizes:
        console.print(_bytes(report))
    console.print(_targets(report))


def _speed(report: Report) -> Table:
    from joulewise.benchrecords import READ
    from joulewise.rivals import ARGPARTITION, TORCH_TOPK

    bases = (READ, TORCH_TOPK, ARGPARTITION)
    table = empty_table("what", "data", "n", "kept", "threads", "ms", *(f"x {name}" for name in bases), "M/s", "bytes")
    before = None
    for one in report.timings:
        case = (one.what, one.data, one.n, one.density, one.threads)
        if before is not None and case != before:
            table.add_section()
        before = case
        ratios = (_ratio(one.times_of.get(name)) for name in bases)
        speed = "" if one.million_per_s is None else f"{one.million_per_s:.0f}"
        size = "" if one.message_bytes is None else f"{one.message_bytes:,}"
        middle = one.milliseconds
        table.add_row(
            one.name, one.data, f"{one.n:,}", f"{one.density:.1%}", str(one.threads),
            f"{middle.median:.2f} ({middle.low:.2f}-{middle.high:.2f})", *ratios, speed, size,
        )  # fmt: skip
    return table


def _ratio(quartiles: Quartiles | None) -> str:
    if quartiles is None:
        return ""
    return f"{quartiles.median:.3g} ({quartiles.low:.3g}-{quartiles.high:.3g})"


def _bytes(report: Report) -> Table:
    table = empty_table(
        "message", "n", "kept", "float32 B", "float16 B", "int8 B", "bits/value", "index B", "x entropy", "x zstd-3",
        "x int64 + float32",
    )  # fmt: skip
    for size in report.sizes:
        full = size.payload_bytes["float32"]
        of_bound = f"{size.index_bytes / size.bound_bytes:.3f}" if size.bound_bytes else ""
        table.add_row(
            size.data, f"{size.n:,}", f"{size.density:.1%}", *(f"{count:,}" for count in size.payload_bytes.values()),
            f"{8 * full / size.kept:.1f}", f"{size.index_bytes:,.0f}", of_bound,
            "" if size.zstd_bytes is None else f"{full / size.zstd_bytes:.3f}", f"{full / size.plain_bytes:.3f}",
        )  # fmt: skip
    return table


def _targets(report: Report) -> Table:
    table = empty_table("target", "measured", "wanted", "")
    for row in _rows_of_targets(report):
        table.add_row(*row)
    return table


def _rows_of_targets(report: Report) -> Iterator[tuple[str, str, str, str]]:
    from joulewise.targets import targets

    for target in targets(report):
        wanted = f"{'at most' if target.at_most else 'at least'} {target.limit:g}"
        yield target.what, f"{target.measured:.3g}", wanted, "met" if target.met else "[bold]not met[/]"
