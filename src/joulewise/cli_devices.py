"""The command ``joulewise devices``: list, show, check and import profiles."""

# A command imports what it needs when it runs, as in cli.
# ruff: noqa: PLC0415

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer
from rich.markup import escape

from joulewise.errors import ArgumentError, OutputError, ProfileError
from joulewise.terminal import Debug, empty_table, open_console, say, visible

if TYPE_CHECKING:
    from joulewise.devices import Device

FIRST_YEAR = 1990

app = typer.Typer(no_args_is_help=True, help="Device profiles: what moving a bit costs, and who says so.")

Name = Annotated[str, typer.Argument(metavar="NAME|FILE", help="A name of the list, or a file.", show_default=False)]
Names = Annotated[
    list[str] | None,
    typer.Argument(metavar="[NAME|FILE]...", help="Default: all that come with joulewise.", show_default=False),
]
Out = Annotated[Path, typer.Option("--out", metavar="FILE", help="Where the profile goes.", show_default=False)]
Year = Annotated[
    int,
    typer.Option(
        metavar="YEAR", help="Of the figures, such as that of the phone; the file has none.", show_default=False
    ),
]
Force = Annotated[bool, typer.Option("--force", help="Replace the file of --out.")]


@app.command("list")
def list_devices(debug: Debug = False) -> None:
    """List the devices that come with joulewise, and your own.

    Your own are TOML files in $JOULEWISE_DEVICES, else in joulewise/devices of your configuration folder.

    Example: joulewise devices list
    """
    from joulewise import devices

    del debug
    table = empty_table("Device", "Unit", "Description")
    for name in devices.list_devices():
        device = devices.load_device(name)
        table.add_row(name, device.unit, device.description)
    for name in devices.user_devices():
        try:
            device = devices.load_device(devices.user_folder() / f"{name}.toml")
        except ProfileError as error:  # one bad file shall not hide the others
            table.add_row(escape(visible(name)), "", escape(visible(f"yours, but wrong: {error}")))
        else:
            table.add_row(escape(visible(name)), device.unit, escape(f"yours: {device.description}"))
    open_console().print(table)


@app.command("show")
def show_device(device: Name, debug: Debug = False) -> None:
    """Show every number of a device with its unit, how it is known, and where it comes from.

    Example: joulewise devices show phone-lte-2021
    """
    from joulewise import devices

    del debug
    loaded = devices.load_device(device)
    console = open_console()
    console.print(f"[bold]{escape(loaded.name)}[/] (unit {loaded.unit}): {escape(loaded.description)}\n")
    table = empty_table("Number", "Value", "Unit", "Known as", "Year", "Source")
    for entry in devices.describe(loaded):
        row = (entry.path, f"{entry.value:g}", entry.unit, entry.kind, str(entry.year), entry.source)
        table.add_row(*map(escape, row))
    console.print(table)


@app.command("check")
def check_devices(names: Names = None, debug: Debug = False) -> None:
    """Check devices: implausible numbers, missing parts, figures of different years.

    Exit code 2 if a file is wrong, 1 if there is a warning: a number out of its plausible range, or a part that
    is missing where a price needs it. Notes leave it at 0.

    Example: joulewise devices check my-phone.toml
    """
    from joulewise import devices

    del debug
    chosen = names or list(devices.list_devices())
    loaded = [devices.load_device(name) for name in chosen]
    warned = [_say_findings(name, device) for name, device in zip(chosen, loaded, strict=True)]
    if any(warned):
        raise typer.Exit(1)


def _say_findings(name: str, device: Device) -> bool:
    from joulewise import devices, plausible

    findings = plausible.check_file(device)
    say(f"{name}: a device of {len(devices.describe(device))} numbers in unit {device.unit}")
    for finding in findings:
        say(f"  {finding.severity}: {finding.text}")
    return any(finding.severity == "warning" for finding in findings)


@app.command("import-android")
def import_android(
    profile: Annotated[Path, typer.Argument(metavar="power_profile.xml", help="The file.", show_default=False)],
    *,
    goodput: Annotated[
        str, typer.Option(metavar="RATE", help="Payload rate of the link, such as 20Mbit/s.", show_default=False)
    ],
    year: Year,
    out: Out,
    radio: Annotated[Literal["wifi", "modem"], typer.Option(help="Which radio sends.")] = "wifi",
    voltage: Annotated[
        float | None,
        typer.Option(metavar="VOLT", help="Voltage where the file has none, and of the battery.", show_default=False),
    ] = None,
    force: Force = False,
    debug: Debug = False,
) -> None:
    """Make a profile from the currents that the vendor of an Android device declares in its power_profile.xml.

    The file is on the device in framework-res.apk, and in the device's source at overlay/.../res/xml.

    Example: joulewise devices import-android power_profile.xml --goodput 20Mbit/s --year 2020 --out my-phone.toml
    """
    from joulewise import android

    del debug
    _check_year(year)
    _refuse_to_replace(out, force)
    now = datetime.now(UTC).year
    imported = android.read(profile, goodput, radio, voltage, name=out.stem, year=year, imported=now)
    _write(imported.device, imported.notes, out)


@app.command("import-zigzag")
def import_zigzag(
    accelerator: Annotated[Path, typer.Argument(metavar="FILE.yaml", help="The file.", show_default=False)],
    *,
    year: Year,
    out: Out,
    dram: Annotated[
        str | None, typer.Option(metavar="NAME", help="Its main memory. Default: by its name.", show_default=False)
    ] = None,
    sram: Annotated[
        str | None, typer.Option(metavar="NAME", help="On-chip memory. Default: the largest.", show_default=False)
    ] = None,
    force: Force = False,
    debug: Debug = False,
) -> None:
    """Make a profile from an accelerator description of the open model ZigZag.

    Example: joulewise devices import-zigzag edge_tpu_like.yaml --year 2024 --out my-accelerator.toml
    """
    from joulewise import zigzag

    del debug
    _check_year(year)
    _refuse_to_replace(out, force)
    imported = zigzag.read(accelerator, dram, sram, name=out.stem, year=year)
    _write(imported.device, imported.notes, out)


def _check_year(year: int) -> None:
    if not FIRST_YEAR <= year <= datetime.now(UTC).year:
        now = datetime.now(UTC).year
        raise ArgumentError(f"--year is {year}, expected the year of the figures, from {FIRST_YEAR} to {now}")


def _refuse_to_replace(out: Path, force: bool) -> None:
    from joulewise import profilefile

    profilefile.refuse_ending(out)
    if out.exists() and not force:
        raise OutputError(f"--out {out} is there already; give another name, or --force to replace it")


def _write(device: Device, notes: Sequence[str], out: Path) -> None:
    from joulewise import profilefile

    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        out.write_text(profilefile.dumps(device), encoding="utf-8")
    except OSError as error:
        raise OutputError(f"--out {out} cannot be written: {error.strerror or error}; give another name") from error
    for note in notes:
        say(f"note: {note}")
    _say_findings(str(out), device)
