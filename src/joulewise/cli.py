"""The command line: parse, call, print. Only this, its sub-commands and `terminal` write to a terminal."""

# A command imports what it needs when it runs: else `joulewise --help` would wait for PyTorch and Flower.
# ruff: noqa: PLC0415

from __future__ import annotations

import errno
import io
import os
import sys
import time
import traceback
import warnings
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, NoReturn

import typer
from rich.console import Console, Group
from rich.live import Live
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.text import Text

import joulewise
from joulewise import cli_bench, cli_calibrate, cli_devices, cli_explain, cli_meters, cli_plan, kernel
from joulewise.errors import (
    ArgumentError,
    CostError,
    JoulewiseError,
    MissingExtra,
    ModelError,
    ProfileError,
    RuleError,
    StudyError,
)
from joulewise.terminal import Debug, empty_table, open_console, say, visible

if TYPE_CHECKING:
    from joulewise.progress import View
    from joulewise.questions import Questions
    from joulewise.results import Row

EXTRAS = {
    "torch": "learning",
    "flwr_datasets": "learning",
    "datasets": "learning",
    "sklearn": "learning",
    "PIL": "learning",
    "flwr": "flower",
    "ray": "ray",
    "altair": "report",
    "vl_convert": "report",
    "scipy": "report",
    "safetensors": "safetensors",
    "yaml": "import",
}
TYPED = StudyError | ProfileError | RuleError | ModelError | CostError | ArgumentError
INTERRUPTED = 130
NOT_WRITTEN = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO, errno.EPIPE, errno.EBADF)
SECONDS_BETWEEN_LINES = 30.0

app = typer.Typer(
    name="joulewise",
    help="Federated learning that spends less energy: run studies, ask whether it is worth it, look at devices.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode="markdown",
    context_settings={"help_option_names": ["-h", "--help"]},
)
app.command("explain")(cli_explain.explain)
app.command("plan")(cli_plan.plan)
app.add_typer(cli_devices.app, name="devices")
app.command("calibrate")(cli_calibrate.calibrate)
app.command("meters")(cli_meters.meters)
app.command("bench")(cli_bench.bench)


def main() -> NoReturn:
    """Run the command line.

    Exit code 0: done; 1: it failed; 2: what was typed, or a file that the user wrote, is wrong; 130: Ctrl-C.
    """
    if sys.stdout is None:  # closed, as by `>&-`: there is nobody to print to
        sys.stdout = Path(os.devnull).open("w", encoding="utf-8")  # noqa: SIM115 (until the end)
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):  # A terminal that knows no ± shows a question mark.
            stream.reconfigure(errors="replace")
    warnings.formatwarning = lambda message, *_, **__: f"note: {message}\n"
    try:
        try:
            app()
        finally:
            sys.stdout.flush()  # what cannot be written is said here, and not when the interpreter ends
    except Exception as error:
        _fail(*_explain(error))
    raise SystemExit(0)


def _explain(error: Exception) -> tuple[str, int]:
    if isinstance(error, JoulewiseError):
        return str(error), 2 if isinstance(error, TYPED) else 1
    if isinstance(error, ModuleNotFoundError):
        extra = EXTRAS.get((error.name or "").partition(".")[0])
        if extra is not None:
            return str(MissingExtra(extra, "This command")), 1
    if isinstance(error, OSError) and error.filename is None and error.errno in NOT_WRITTEN:
        _drop_output()
        return f"the output could not be written: {error.strerror}; make room, or send it elsewhere", 1
    return f"{type(error).__name__}: {error}; a defect of joulewise: please report what --debug shows", 1


def _drop_output() -> None:
    """Send what is still buffered to nowhere: else the interpreter would try to write it once more, and complain."""
    try:
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, sys.stdout.fileno())
        os.close(nowhere)
    except (OSError, ValueError):
        pass  # there is no output to drop


def _fail(message: str, code: int) -> NoReturn:
    if "--debug" in sys.argv:
        traceback.print_exc()
    console = open_console(stderr=True)
    console.print(f"[bold red]error:[/] {escape(visible(message))}", soft_wrap=True, highlight=False)
    raise SystemExit(code) from None


def _version(asked: bool) -> None:
    if asked:
        print(f"joulewise {joulewise.__version__} (kernel: {kernel.status()})")  # noqa: T201 (for a script to read)
        raise typer.Exit


@app.callback()
def _options(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Show the version and exit.")
    ] = False,
) -> None:
    """Options before the command."""


# ---------------------------------------------------------------- run


@app.command()
def run(
    study: Annotated[Path, typer.Argument(metavar="STUDY.toml", help="The study file.", show_default=False)],
    *,
    out: Annotated[
        Path | None,
        typer.Option(metavar="DIR", help="Where rows go. Default: runs/NAME.", show_default=False),
    ] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Go on with a run that was stopped.")] = False,
    engine: Annotated[
        Literal["inprocess", "ray"],
        typer.Option(help="Clients in this process, or Flower's simulation on Ray."),
    ] = "inprocess",
    compute: Annotated[Literal["cpu", "cuda"], typer.Option(help="What the clients train on.")] = "cpu",
    jobs: Annotated[int, typer.Option(min=1, metavar="N", help="Processes; each runs one arm and seed.")] = 1,
    settings: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="KEY=VALUE", help="Change the study; repeatable.", show_default=False),
    ] = None,
    meter: Annotated[bool, typer.Option(help="Measure this machine's energy, where it has sensors.")] = True,
    record: Annotated[
        list[str] | None,
        typer.Option(metavar="CLIENT:ROUND", help="Keep an update for joulewise plan; repeatable.", show_default=False),
    ] = None,
    debug: Debug = False,
) -> None:
    """Run every arm of a study with every seed, then show the table and write the report.

    Rows go to DIR/rows.jsonl as they are made. A run that was stopped goes on with --resume, and its rows are
    the same as if it had never been stopped. Where this machine has sensors of energy, what it took is measured and
    shown beside the modelled energy; joulewise meters lists them.

    Example: joulewise run studies/quickstart.toml --jobs 2 --set rounds=5
    """
    from functools import partial

    from joulewise import recorder, runs
    from joulewise.flower.app import federate
    from joulewise.progress import View
    from joulewise.study import load

    del debug  # main looks for it
    loaded = load(study, settings or ())
    folder = out or Path("runs") / loaded.name
    view = View(loaded.name, runs.rounds_of(loaded), loaded.rounds, jobs)
    began = datetime.now(UTC).isoformat(timespec="milliseconds")
    sensors = cli_meters.usable() if meter else ()
    kept = recorder.Recorder(folder, recorder.wanted(record or (), loaded.data.clients, loaded.rounds))
    recording: dict[str, Any] = {"federate": partial(federate, record=kept)} if kept.wanted else {}
    rows = runs.run(
        loaded, folder, engine=engine, compute=compute, jobs=jobs, resume=resume, meters=sensors, **recording
    )
    try:
        _watched(rows, view)
    except KeyboardInterrupt:
        rows.close()  # stops the workers
        _fail(f"stopped; rows so far are in {folder}: go on with --resume", INTERRUPTED)
    if all(row.timing.started < began for row in view.latest.values()):
        say(f"{folder} holds this study complete, so nothing was run; for another run give another --out")
    _conclude(folder)
    if kept.wanted:
        files = sorted((folder / recorder.FOLDER).glob("*.npz"))
        say(
            f"updates: {len(files)} files in {folder / recorder.FOLDER}; clients that sat out a round have none, "
            "nor have rounds that were finished before this run"
        )


def _conclude(folder: Path) -> None:
    from joulewise import rowfile

    rows = rowfile.read(folder)
    try:
        _print_tables(rows, [folder])
        _write_report(rows, [folder], folder)
    except MissingExtra as missing:
        say(f"note: {missing}")
    say(f"rows: {folder / rowfile.FILE_NAME}")


def _watched(rows: Iterable[Row], view: View) -> None:
    console = open_console(stderr=True)
    if console.is_terminal and not console.is_dumb_terminal:
        _watch_live(rows, view, console)
    else:
        _watch_plain(rows, view, console)


def _watch_live(rows: Iterable[Row], view: View, console: Console) -> None:
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    progress = Progress(*columns, TextColumn("{task.fields[left]}"), console=console)
    bar = progress.add_task(view.study, total=view.total, left="starting")
    with Live(progress, console=console, refresh_per_second=4, transient=True) as live:
        for row in rows:
            view.add(row)
            progress.update(bar, completed=view.done, left=view.left)
            live.update(Group(progress, *(Text(line, no_wrap=True, overflow="ellipsis") for line in view.lines)))


def _watch_plain(rows: Iterable[Row], view: View, console: Console) -> None:
    last = time.monotonic()
    for row in rows:
        view.add(row)
        if row.round == view.rounds or time.monotonic() - last > SECONDS_BETWEEN_LINES:
            last = time.monotonic()
            parts = (view.line((row.arm, row.seed)), f"{view.done} of {view.total} rounds", view.left)
            console.print("; ".join(part for part in parts if part), soft_wrap=True, markup=False)


# ---------------------------------------------------------------- report


@app.command()
def report(
    folders: Annotated[
        list[Path],
        typer.Argument(metavar="DIR...", help="Folders of studies that were run.", show_default=False),
    ],
    out: Annotated[
        Path | None,
        typer.Option(metavar="DIR", help="Where the report goes. Default: the first folder.", show_default=False),
    ] = None,
    debug: Debug = False,
) -> None:
    """Write the report of studies: report.html, which opens offline, and figures as SVG, PNG and PDF.

    Example: joulewise report runs/quickstart
    """
    from joulewise import rowfile

    del debug
    rows = [row for folder in folders for row in rowfile.read(folder)]
    _print_tables(rows, folders)
    _write_report(rows, folders, out or folders[0])


# ---------------------------------------------------------------- tables


def _named(folders: Sequence[Path]) -> list[Questions]:
    """What the studies in these folders named beforehand."""
    from joulewise import questions

    return [found for folder in folders if (found := questions.read(folder)) is not None]


def _print_tables(rows: Sequence[Row], folders: Sequence[Path]) -> None:
    from joulewise import tables

    console = open_console()
    for found in tables.table(rows, _named(folders)):
        table = empty_table(*found.columns)
        for column in table.columns:
            column.no_wrap |= column.header == "Device"  # a name that is broken in two is read as another name
        for row in found.rows:
            table.add_row(*map(escape, row))
        console.print(Text(found.caption, style="bold"), table, *found.notes, sep="\n", markup=False)


def _write_report(rows: Sequence[Row], folders: Sequence[Path], out: Path) -> None:
    from joulewise import background, metering, report, tables

    found = [background.read(folder) for folder in folders]
    text = found[0].study_text if len(folders) == 1 else None
    command = report.again(rows) if text else None
    metered = tables.metered(part for folder in folders for part in metering.read(folder))
    for line in metered:
        say(f"this machine: {line}")
    by_study = {each.name: each for each in reversed(found) if each.name is not None}
    page, *figures = report.write(rows, out, text, command, metered, by_study)
    say(f"\nreport: {page}, and {len(figures)} files in {out / 'figures'}")
