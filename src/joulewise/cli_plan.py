"""The command `plan`: its options, its table, its figure."""

# Imports wait until the command runs: `joulewise --help` is to stay quick.
# ruff: noqa: PLC0415

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer
from rich.markup import escape

from joulewise import cli_fleet
from joulewise.cli_explain import energy
from joulewise.errors import ArgumentError, ModelError
from joulewise.terminal import Boundary, Debug, Figure, Json, empty_table, open_console, say

if TYPE_CHECKING:
    from joulewise.codec import ValueType
    from joulewise.layout import Layout, Vector
    from joulewise.plan import Choice, Plan
    from joulewise.rules import Budget, Rule

Option = typer.Option


def plan(
    update: Annotated[
        list[str],
        typer.Argument(metavar="U.npz...", help="A recorded update: arrays by name. With --fleet one for each client."),
    ],
    *,
    device: Annotated[
        list[str],
        Option(
            metavar="NAME|FILE", help="Of `joulewise devices list`, or a file. With --fleet one for all or for each."
        ),
    ],
    rule: Annotated[
        list[str] | None,
        Option(
            metavar="NAME",
            help="Repeatable. Default: TopK, CWMP and Projection. With --fleet CWMP or Projection; default: CWMP.",
            show_default=False,
        ),
    ] = None,
    density: Annotated[
        list[float] | None,
        Option(metavar="SHARE", help="Kept share; repeatable. Default: 0.5 to 20 %.", show_default=False),
    ] = None,
    joules: Annotated[
        list[float] | None,
        Option(metavar="E", help="A budget in the unit of the prices; repeatable.", show_default=False),
    ] = None,
    size: Annotated[
        list[int] | None, Option("--bytes", metavar="N", help="A budget in bytes; repeatable.", show_default=False)
    ] = None,
    values: Annotated[
        list[str] | None,
        Option(metavar="TYPE", help="float32, float16, bfloat16, int8 or ternary; repeatable.", show_default="float32"),
    ] = None,
    boundary: Boundary = None,
    law: Annotated[
        Literal["quantiles", "normal", "laplace", "generalised-normal", "student-t"] | None,
        Option(help="Law of magnitudes that is fitted to the update.", show_default="quantiles"),
    ] = None,
    fleet: Annotated[bool, Option("--fleet", help="Divide one budget among several clients.")] = False,
    share: Annotated[
        list[float] | None,
        Option(
            metavar="SHARE",
            help="With --fleet: a budget as a share of sending everything; repeatable. Default: 0.3, 1 and 10 %.",
            show_default=False,
        ),
    ] = None,
    budget: Annotated[
        list[float] | None,
        Option(metavar="E", help="With --fleet: a budget in the unit of the prices; repeatable.", show_default=False),
    ] = None,
    weight: Annotated[
        list[int] | None,
        Option(
            metavar="N",
            help="With --fleet: examples of each client, in order. Default: those in the file, or all alike.",
            show_default=False,
        ),
    ] = None,
    json: Json = False,
    figure: Figure = None,
    debug: Debug = False,
) -> None:
    """Predict what every rule and budget would keep of an update like this one, and what that takes.

    joulewise run STUDY.toml --record CLIENT:ROUND keeps updates for it.

    Example: joulewise plan update.npz --device phone-lte-2021 --density 0.01 --density 0.1 --values float16

    With --fleet: what equal counts, equal joules and one price would keep of the updates of several clients under one
    budget.

    Example: joulewise plan --fleet a.npz b.npz --device phone-wifi-2020 --device phone-lte-2012 --share 0.01
    """
    from joulewise import explain_figure
    from joulewise import plan as planning
    from joulewise.devices import load_device

    del debug
    if figure is not None:
        explain_figure.check_ending(figure)
    one = {"--density": density, "--joules": joules, "--bytes": size, "--values": values, "--law": law}
    if fleet:
        cli_fleet.refuse(one, "is for one update; with --fleet give --share or --budget")
        cli_fleet.plan(
            update,
            device,
            rule or (),
            weights=weight or (),
            shares=share or (),
            budgets=budget or (),
            boundary=boundary,
            json=json,
            figure=figure,
        )
        return
    cli_fleet.refuse({"--share": share, "--budget": budget, "--weight": weight}, "is for several clients; add --fleet")
    _one("U.npz", update)
    _one("--device", device)
    budgets = _budgets(density or (), joules or (), size or ())
    priced = load_device(device[0])
    layout, recorded = _read(update[0])
    found = planning.plan(
        recorded,
        layout,
        priced,
        rules=[_rule(each) for each in rule] if rule else planning.RULES,
        budgets=budgets or planning.BUDGETS,
        values=_values(values or ("float32",)),
        boundary=boundary,
        law=law or "quantiles",
    )
    if figure is not None:
        from joulewise import plan_figure

        plan_figure.draw(found, figure, Path(update[0]).stem)
    if json:
        import msgspec

        print(msgspec.json.format(msgspec.json.encode(found)).decode())  # noqa: T201 (for a program to read)
        return
    _show(found, update[0])
    if figure is not None:
        say(f"figure: {figure}")


def _one(name: str, given: Sequence[str]) -> None:
    if len(given) > 1:
        raise ArgumentError(f"{name} is given {len(given)} times, expected once; for several clients add --fleet")


def _read(path: str) -> tuple[Layout, Vector]:
    from joulewise.modelfile import load_layout, load_update

    try:
        if Path(path).suffix.lower() != ".npz":
            raise ModelError(f"{path} is not an .npz file; write it with numpy.savez(FILE, **arrays)")
        layout = load_layout(path)
        return layout, load_update(path, layout)
    except ModelError as error:
        raise ModelError(str(error).removeprefix("--model ").removeprefix("--update ")) from error


def _rule(name: str) -> Rule:
    from joulewise.rules import LEGAL

    known = {each.__name__: each for each, takes in LEGAL.items() if takes}
    if name not in known:
        raise ArgumentError(f"--rule is {name!r}, expected one of: {', '.join(known)}")
    return known[name]()


def _values(names: Sequence[str]) -> list[ValueType]:
    from joulewise.codec import VALUE_TYPES

    for name in names:
        if name not in VALUE_TYPES:
            raise ArgumentError(f"--values is {name!r}, expected one of: {', '.join(VALUE_TYPES)}")
    return [each for each in VALUE_TYPES if each in names]


def _budgets(densities: Sequence[float], joules: Sequence[float], sizes: Sequence[int]) -> list[Budget]:
    from joulewise.rules import Bytes, Density, Joules

    for each in densities:
        if not 0 < each <= 1:
            raise ArgumentError(f"--density is {each:g}, expected a share above 0 and at most 1")
    for each in joules:
        if not 0 < each < math.inf:
            raise ArgumentError(f"--joules is {each:g}, expected a finite energy above 0")
    if any(each < 1 for each in sizes):
        raise ArgumentError(f"--bytes is {min(sizes)}, expected at least 1 byte")
    return [*map(Density, densities), *map(Joules, joules), *map(Bytes, sizes)]


def _show(found: Plan, update: str) -> None:
    screen = open_console()
    screen.print(f"[bold]{escape(update)}[/] on [bold]{escape(found.device)}[/]: {found.parameters:,} parameters")
    say(f"boundary {found.boundary}; predicted from one update, magnitudes by the {found.law} law")
    rows = [_cells(each, found.unit) for each in found.choices]
    shown = [name for name in rows[0] if name in ALWAYS or len({row[name] for row in rows}) > 1]
    listed = empty_table(*shown)
    for column in listed.columns:
        column.no_wrap = column.header in UNBROKEN
    for row in rows:
        listed.add_row(*(row[name] for name in shown))
    screen.print(listed)
    for note in (*found.notes, *_reading(found)):
        say(f"note: {note}")


ALWAYS = ("Rule", "Budget", "Kept", "Energy", "Size", "L1 kept", "L2 kept", "TopK needs")
UNBROKEN = ("Rule", "Kept", "Energy", "Size", "L1 kept", "L2 kept", "TopK needs")
"""A number that is broken in two lines is read as another number."""


def _cells(choice: Choice, unit: str) -> dict[str, str]:
    from joulewise.capacity import size
    from joulewise.rules import budget_text

    kept, promised, times = choice.kept, choice.guaranteed_delta, choice.times_topk
    return {
        "Rule": type(choice.rule).__name__,
        "Budget": budget_text(choice.budget),
        "Values": choice.values,
        "Kept": f"{kept.coordinates:,.0f}",
        "Energy": energy(kept.energy, unit),
        "Size": size(round(choice.payload_bytes)),
        "L1 kept": f"{100 * kept.l1:.2f} %",
        "L2 kept": f"{100 * kept.l2:.2f} %",
        "TopK needs": "" if times is None else f"{times:.2f}x",
        "δ": "" if promised is None else f"{promised:.3f}",
        "Variance": "" if choice.variance is None else f"{choice.variance:.3g}",
    }


def _reading(found: Plan) -> Iterator[str]:
    best = max(found.choices, key=lambda each: each.times_topk or 0.0)
    if best.times_topk is None or best.times_topk < 1.01:
        yield "no rule saves 1 % over TopK for the mass that it keeps: use TopK"
    else:
        name = type(best.rule).__name__
        norm = "L1" if getattr(best.rule, "norm", None) == 1 else "L2"
        yield f"TopK would need up to {best.times_topk:.2f}x the energy of {name} for the same {norm} mass"
    yield (
        "δ is the contraction that theory promises for every update, before values are rounded; under joules it "
        "promises none where prices are of bits or pages; size is without header and buffers"
    )
    if any(each.variance is not None for each in found.choices):
        yield "variance: of unbiased rules, the expected squared error over the update's squared length"
