"""The command `explain`: its options, its table, its figure."""

# Imports wait until the command runs: `joulewise --help` is to stay quick.
# ruff: noqa: PLC0415

from __future__ import annotations

import math
import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Annotated

import typer
from rich.markup import escape
from rich.padding import Padding

from joulewise.errors import ArgumentError, CostError
from joulewise.terminal import (
    Boundary,
    Debug,
    DeviceName,
    Figure,
    Json,
    empty_table,
    open_console,
    say,
    stdout_to_stderr,
)

if TYPE_CHECKING:
    from joulewise.explanation import Explanation, Part, PriceShare
    from joulewise.modelfile import Images
    from joulewise.saving import Comparison

Option = typer.Option
PREFIXES = {0: "", -3: "m", -6: "µ", -9: "n", -12: "p", -15: "f"}
MOST_PRICES = 10
MOST_BITS = 1024
"""Of a value: far from where sums of energies would overflow."""
OPTIONS = {
    "value_bits": "--value-bits",
    "in_ram": "--in-ram",
    "density": "--density",
    "boundary": "--boundary",
}
"""Arguments of `joulewise.explain.explain` as they are typed here."""
QUANTILES = (0.0, 0.05, 0.25, 0.5, 0.75, 0.95, 1.0)


def explain(
    *,
    model: Annotated[
        str,
        Option(metavar="MODEL", help="mlp, cnn, resnet18, module:factory, FILE.npz or FILE.safetensors."),
    ],
    device: DeviceName,
    density: Annotated[float, Option(metavar="SHARE", help="Share of all coordinates that is kept.")] = 0.01,
    value_bits: Annotated[
        str, Option(metavar="BITS", help="Bits of a value: a number, or by tensor as in 'conv*=8,*=32'.")
    ] = "32",
    update: Annotated[
        str | None,
        Option(metavar="U.npz", help="A recorded update: arrays by name, or one flat vector.", show_default=False),
    ] = None,
    boundary: Boundary = None,
    in_ram: Annotated[
        list[str] | None,
        Option(
            metavar="TENSORS", help="Tensors kept in RAM where weights lie in flash; repeatable.", show_default=False
        ),
    ] = None,
    macs: Annotated[
        float | None,
        Option(min=0, metavar="N", help="Multiply-accumulates of local training in a round.", show_default=False),
    ] = None,
    classes: Annotated[int, Option(metavar="N", help="Classes of a built-in model.")] = 10,
    image: Annotated[str, Option(metavar="CxHxW", help="Images of a built-in model.")] = "3x32x32",
    json: Json = False,
    figure: Figure = None,
    debug: Debug = False,
) -> None:
    """Say where the joules of an update go on a device, and whether weighing by price is worth it there.

    Example: joulewise explain --model resnet18 --device phone-lte-2021 --density 0.01
    """
    from joulewise import explain as explaining
    from joulewise import plausible
    from joulewise.devices import load_device
    from joulewise.modelfile import load_layout, load_update

    del debug
    if figure is not None:
        from joulewise import explain_figure

        explain_figure.check_ending(figure)
    bits, images = _value_bits(value_bits), _images(image, classes)
    if macs is not None and not math.isfinite(macs):
        raise ArgumentError(f"--macs is {macs:g}, expected a number of multiply-accumulates, such as 1e12")
    priced = load_device(device)
    for finding in plausible.check_file(priced):
        if finding.severity == "warning":  # not among the facts, so that --json prints the record alone
            open_console(stderr=True).print(f"warning: {finding.text}", soft_wrap=True, markup=False)
    with stdout_to_stderr():  # what the user's own code prints
        layout = load_layout(model, images)
    recorded = None if update is None else load_update(update, layout)
    with _as_typed():
        found = explaining.explain(
            layout,
            priced,
            density,
            bits,
            recorded,
            boundary=boundary,
            in_ram=in_ram or (),
            multiply_accumulates=macs,
        )
    if figure is not None:
        explain_figure.draw(found, figure, model)
    if json:
        import msgspec

        print(msgspec.json.format(msgspec.json.encode(found)).decode())  # noqa: T201 (for a program to read)
    else:
        _show(found, model)
        if figure is not None:
            say(f"figure: {figure}")


@contextmanager
def _as_typed() -> Iterator[None]:
    """Errors that name the options that were typed instead of arguments in Python."""
    try:
        yield
    except CostError as error:
        message = str(error)
        for name, option in OPTIONS.items():
            message = re.sub(rf"\b{name}(?:='([^']*)'|\['([^']*)'\])", rf"{option} \1\2", message)
            message = re.sub(rf"^{name}\b", option, message)
        raise ArgumentError(message.replace("the layout begins", "the model begins")) from error


def _value_bits(text: str) -> float | dict[str, float]:
    parts = [part.rpartition("=") for part in text.split(",")]
    try:
        numbers = [float(number) for _, _, number in parts]
    except ValueError:
        numbers = []
    if not numbers or (len(parts) > 1 and not all(pattern for pattern, _, _ in parts)):
        raise typer.BadParameter(f"{text!r} is neither a number nor patterns as in 'conv*=8,*=32'")
    wrong = [number for number in numbers if number > MOST_BITS or 0 < number < 1 / MOST_BITS]
    if wrong:
        raise ArgumentError(f"--value-bits is {wrong[0]:g}, expected the bits of an encoded value, such as 8 or 32")
    if not parts[0][0]:
        return numbers[0]
    return {pattern.strip(): number for (pattern, _, _), number in zip(parts, numbers, strict=True)}


def _images(text: str, classes: int) -> Images:
    from joulewise.modelfile import Images

    found = re.fullmatch(r"([1-9]\d*)x([1-9]\d*)x([1-9]\d*)", text)
    if found is None:
        raise typer.BadParameter(f"--image {text} is not channels x height x width, as in 3x32x32")
    channels, height, width = map(int, found.groups())
    return Images(channels, height, width, classes)


# ---------------------------------------------------------------- what is printed


def energy(value: float, unit: str) -> str:
    """An energy with three significant digits and an SI prefix; relative prices go without.

    Example:
        >>> energy(27.425, "J"), energy(3.1e-7, "J"), energy(12.0, "relative")
        ('27.4 J', '310 nJ', '12')
    """
    if unit != "J":
        return f"{value:.3g}"
    if value == 0:
        return "0 J"
    exponent = 3 * math.floor(math.log10(abs(float(f"{value:.2e}"))) / 3)
    exponent = min(max(exponent, -15), 0)
    scaled = float(f"{value / 10.0**exponent:.3g}")
    return f"{scaled:,.0f} {PREFIXES[exponent]}J" if abs(scaled) >= 100 else f"{scaled:.3g} {PREFIXES[exponent]}J"


def _show(found: Explanation, model: str) -> None:
    from joulewise.verdict import saving_in_words

    screen = open_console()
    told = "one update" if found.law == "update" else "a typical update (one Laplace law for all tensors)"
    never = f", {found.never_sent:,} more are never sent" if found.never_sent else ""
    screen.print(f"[bold]{escape(model)}[/] on [bold]{escape(found.device)}[/]: {found.parameters:,} parameters{never}")
    say(f"boundary {found.boundary}; TopK keeps {found.density:.4g} of them; magnitudes: {told}")
    for each in (_kinds(found), _prices(found), _savings(found)):
        screen.print(each)
    for line in _facts(found):
        say(line)
    screen.print()
    screen.print(f"[bold]Verdict:[/] {escape(found.verdict.text)}")
    if found.changes:
        screen.print("What would change it:")
    for change in found.changes:
        then = "" if change.saving is None else f": {change.answer} (predicted saving {saving_in_words(change.saving)})"
        screen.print(Padding(f"- {escape(change.what)}{then}", (0, 0, 0, 2), expand=False))


def _kinds(found: Explanation) -> object:
    names = list(found.total.terms)
    titles = [f"{name.replace('_', ' ')} each" for name in names]
    listed = empty_table("Kind", "Tensors", "Parameters", "Share", "Kept", "Energy", "Price each", *titles)
    for part in (*found.kinds, found.total):
        listed.add_row(*_kind_row(part, names, found.unit))
    return listed


def _kind_row(part: Part, names: list[str], unit: str) -> Iterator[str]:
    yield from (part.kind, f"{part.tensors:,}", f"{part.parameters:,}", _percent(part.share))
    yield from (f"{part.kept:,.0f}", energy(part.energy, unit), energy(part.mean_price, unit))
    yield from (energy(part.terms[name], unit) for name in names)


def _prices(found: Explanation) -> object:
    prices = found.total.prices
    if len(prices) <= MOST_PRICES:
        listed = empty_table("Price", "Parameters", "Share")
        for one in prices:
            listed.add_row(energy(one.price, found.unit), f"{one.parameters:,}", _percent(one.share))
        return listed
    listed = empty_table("Share of parameters", "cost at most each")
    for quantile, price in zip(QUANTILES, _quantiles(prices), strict=True):
        listed.add_row(f"{100 * quantile:.0f} %", energy(price, found.unit))
    return listed


def _quantiles(prices: tuple[PriceShare, ...]) -> Iterator[float]:
    for quantile in QUANTILES:
        reached = 0.0
        for one in prices:
            reached += one.share
            if reached >= quantile * (1 - 1e-12):
                yield one.price
                break


def _savings(found: Explanation) -> object:
    listed = empty_table("Rule", "At equal", "Kept", "Energy", "L1 kept", "L2 kept", "TopK for the same mass", "Saving")
    top = found.topk
    shares = (f"{100 * top.l1:.3f} %", f"{100 * top.l2:.3f} %")
    listed.add_row("TopK", "", f"{top.coordinates:,.0f}", energy(top.energy, found.unit), *shares, "", "")
    for one in found.predictions:
        for title, compared in (("energy", one.equal_energy), ("count", one.equal_count)):
            mass = f"L{one.norm}"
            listed.add_row(one.rule, title, *_compared(compared, mass, found.unit))
    return listed


def _compared(compared: Comparison, mass: str, unit: str) -> Iterator[str]:
    kept = compared.kept
    yield from (f"{kept.coordinates:,.0f}", energy(kept.energy, unit))
    yield from (f"{100 * kept.l1:.3f} %", f"{100 * kept.l2:.3f} %")
    yield from (f"{energy(compared.topk_energy, unit)} ({mass})", _percent(compared.saving))


def _facts(found: Explanation) -> Iterator[str]:
    overlaps = ", ".join(f"{100 * one.overlap:.3f} % ({one.rule})" for one in found.predictions)
    yield f"contrast (largest over smallest price): {found.contrast:.6g}"
    outside = f"{_percent(found.spread.cheaper)} of the parameters cost less, {_percent(found.spread.dearer)} more"
    yield f"price ratio, 95 % over 5 % of what TopK keeps: {found.price_ratio:.6g} ({outside})"
    yield f"overlap with TopK at equal count: {overlaps}"
    if found.dense is not None:
        base = found.dense.with_base_power_j
        more = "base power unknown" if base is None else f"{energy(base, 'J')} with base power"
        yield f"dense upload, values only: {energy(found.dense.marginal_j, 'J')} marginal, {more}"
    yield from _uploads(found)
    if found.addressable is not None and found.addressable_dense is not None:
        parts = ", ".join(f"{charge.term} {energy(charge.energy, charge.unit)}" for charge in found.round)
        yield f"one round: {parts}".replace("_", " ")
        shares = f"{_percent(found.addressable)}; of a round that sends everything {_percent(found.addressable_dense)}"
        yield f"addressable share (what a mask can touch): {shares}"
    yield from (f"note: {note}" for note in found.notes)


def _uploads(found: Explanation) -> Iterator[str]:
    from joulewise.airtime import sentence
    from joulewise.capacity import size

    if found.upload is not None and found.upload_dense is not None:
        some, every = found.upload, found.upload_dense
        yield f"upload: {sentence(some, f'what TopK keeps, {size(some.bytes)},')}"
        yield f"upload: {sentence(every, f'everything, {size(every.bytes)},')}"
    yield from (f"warning: {each}" for each in found.misfits)


def _percent(share: float) -> str:
    from joulewise.verdict import percent

    return percent(share)
