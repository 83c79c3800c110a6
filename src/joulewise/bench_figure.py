"""A run of `joulewise bench` as one picture: selection's time over the share that is kept, and a message's bits."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from joulewise.benchrecords import Report
from joulewise.errors import ArgumentError, MissingExtra, OutputError

FORMATS = (".svg", ".png", ".pdf")
PPI = 150


def check(path: Path) -> None:
    """Whether a picture can be written there in that form.

    Raises:
        ArgumentError: the ending is another one, or there is no such folder.
        MissingExtra: altair or vl-convert is not installed.
    """
    if path.suffix.lower() not in FORMATS:
        raise ArgumentError(f"--figure {path} ends in {path.suffix or 'nothing'!r}; give one of {', '.join(FORMATS)}")
    if not path.parent.is_dir():
        raise ArgumentError(f"--figure {path}: there is no folder {path.parent}; make it, or give another one")
    try:
        import altair  # noqa: F401, PLC0415 (only a figure needs it)
        import vl_convert  # noqa: F401, PLC0415 (altair writes files with it)
    except ImportError as error:
        raise MissingExtra("report", "a figure") from error


def draw(report: Report, path: Path) -> None:
    """Write the picture, of the longest made update whose messages were measured too.

    Args:
        report: what to draw.
        path: where; ``.svg``, ``.png`` or ``.pdf``.

    Raises:
        ArgumentError: the ending is another one, or there is no such folder.
        OutputError: the file cannot be written.
        MissingExtra: altair or vl-convert is not installed.
    """
    check(path)
    import altair as alt  # noqa: PLC0415 (only a figure needs it)

    subtitle = f"{report.machine}; {report.system}; kernel: {report.kernel}; one thread, medians"
    chart = alt.hconcat(
        _times(alt, list(_speeds(report)), "Milliseconds"), _times(alt, list(_bits(report)), "Bits per kept value"),
        spacing=40,
    ).resolve_scale(color="independent")  # fmt: skip
    chart = chart.properties(title=alt.Title(f"n = {_length(report):,}", subtitle=subtitle))
    try:
        chart.configure_view(stroke=None).save(str(path), format=path.suffix.lower()[1:], ppi=PPI)
    except OSError as error:
        raise OutputError(f"cannot write the figure to {path}: {error.strerror or error}") from error


def _length(report: Report) -> int:
    """The longest of which sizes are known too."""
    return max([size.n for size in report.sizes] or [one.n for one in report.timings])


def _speeds(report: Report) -> Iterator[dict[str, Any]]:
    for one in report.timings:
        if (one.what, one.data, one.threads, one.n) == ("select", "synthetic", 1, _length(report)):
            yield {"name": one.name, "density": one.density, "value": one.milliseconds.median}


def _bits(report: Report) -> Iterator[dict[str, Any]]:
    for size in report.sizes:
        if (size.data, size.n) == ("synthetic", _length(report)):
            several = {f"joulewise {kind}": taken for kind, taken in size.payload_bytes.items()}
            several["int64 + float32"] = size.plain_bytes
            if size.zstd_bytes is not None:
                several["zstd-3"] = size.zstd_bytes
            for name, taken in several.items():
                yield {"name": name, "density": size.density, "value": 8 * taken / size.kept}


def _times(alt: Any, points: list[dict[str, Any]], title: str) -> Any:
    return (
        alt.Chart(alt.Data(values=points))
        .mark_line(point=True)
        .encode(
            x=alt.X("density:Q", title="Kept", scale=alt.Scale(type="log", nice=False), axis=alt.Axis(format="%")),
            y=alt.Y("value:Q", title=title, scale=alt.Scale(type="log")),
            color=alt.Color(
                "name:N", title=None, scale=alt.Scale(scheme="tableau20"), sort=None, legend=alt.Legend(labelLimit=300)
            ),
        )
        .properties(width=320, height=260)
    )
