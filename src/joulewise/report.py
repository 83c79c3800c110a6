"""Rows to one self-contained page that opens offline, and to figures for papers."""

from __future__ import annotations

import contextlib
import re
import subprocess
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from pathlib import Path
from types import ModuleType

from joulewise import callouts, chart_style, charts, heatmap, page, page_energy, splitbars
from joulewise.background import Background
from joulewise.chart_style import Spec
from joulewise.errors import MissingExtra, OutputError
from joulewise.keeping import Keeping, keeping
from joulewise.outcomes import Summary
from joulewise.page import AXES, SCALES, Provenance
from joulewise.results import Row
from joulewise.summary import summary
from joulewise.tables import table
from joulewise.wholefile import replacing

__all__ = ["again", "summary", "table", "write"]

FIGURE_WIDTH, PANEL_WIDTH, FIGURE_PPI, MOST_MAPS = 420, 300, 150, 6


def write(
    rows: Iterable[Row],
    out: str | Path,
    study_text: str | None = None,
    command: str | None = None,
    metered: Sequence[str] = (),
    backgrounds: Mapping[str, Background] | None = None,
) -> tuple[Path, ...]:
    """Write ``report.html`` and ``figures/*.svg, *.png, *.pdf`` into a folder.

    Args:
        rows: of one study or several.
        out: the folder; made when missing. Files of an earlier report are written over.
        study_text: the study as TOML or JSON, for the page's last part.
        command: what to type to run the study again.
        metered: what meters read over the whole run, line by line.
        backgrounds: what else a run left in its folder, by name of the study.

    Returns:
        The files written, the page first.

    Raises:
        OutputError: there are no rows, they do not fit together, or the folder cannot be written.
        MissingExtra: altair or vl-convert is not installed.
    """
    rows = tuple(rows)
    out = Path(out)
    with ThreadPoolExecutor(1) as beside, _explained(out):
        bundle = beside.submit(_bundle)
        beside_rows = dict(backgrounds or {})
        found = summary(rows, [each.questions for each in beside_rows.values() if each.questions is not None])
        kept = [keeping(one, rows, beside_rows.get(one.study, Background()).prices) for one in found]
        drawn = _all_charts(found, kept)
        provenance = Provenance(
            rows=rows, study_text=study_text, command=command, metered=tuple(metered), backgrounds=beside_rows
        )
        (out / "figures").mkdir(parents=True, exist_ok=True)
        figures = [
            path
            for number, one in enumerate(found)
            for path in _figures(one, kept[number], _ending(found, number), out)
        ]
        _put(out / "report.html", page.render(found, kept, drawn, bundle.result(), provenance).encode())
    return (out / "report.html", *figures)


def again(rows: Iterable[Row]) -> str:
    """What to type to run a study again, from its ``study.json``.

    That file holds what ``--set`` set. Another folder is named, for the study's own holds it complete.
    """
    cuda = any(row.origin.machine.endswith(", cuda") for row in rows)
    return "joulewise run study.json --out again" + (" --compute cuda" if cuda else "")


@contextlib.contextmanager
def _explained(out: Path) -> Iterator[None]:
    try:
        yield
    except OutputError:
        raise
    except OSError as error:
        raise OutputError(
            f"cannot write the report to {out}: {error.strerror or error}; mend that or give another --out to "
            "joulewise report: the rows are not touched"
        ) from error


# ------------------------------------------------------------------------------------------- page and figures


def _all_charts(found: Sequence[Summary], kept: Sequence[Keeping | None]) -> dict[str, dict[str, Spec]]:
    each = [_charts(one, kept[number], number) for number, one in enumerate(found)]
    return {key: chart for charts in each for key, chart in charts.items()}


def _charts(found: Summary, kept: Keeping | None, number: int) -> dict[str, dict[str, Spec]]:
    drawn = {page.frontier_key(number): _frontier_variants(found)}
    for place, panel in enumerate(page.panels(found)):
        drawn[page.curve_key(number, place)] = {"": chart_style.on_screen(charts.curves(found, panel), height=260)}
    if splitbars.terms_of(found):
        drawn[page_energy.split_key(number)] = {
            way: chart_style.on_screen(splitbars.of(found, way), splitbars.height(found)) for way in splitbars.WAYS
        }
    if kept is not None:
        drawn[page_energy.kept_key(number)] = {
            value: chart_style.on_screen(heatmap.of_arm(kept, name), heatmap.height(kept))
            for value, name in page_energy.variants(found, kept).items()
        }
    return drawn


def _frontier_variants(found: Summary) -> dict[str, Spec]:
    """Every axis on every scale; no logarithmic scale for an axis on which an arm is at zero."""
    return {
        f"{axis} {scale}": chart_style.on_screen(callouts.on_screen(charts.frontier(found, axis, scale)), height=420)
        for axis in AXES
        for scale in SCALES
        if scale == "linear" or charts.can_be_log(found, axis)
    }


def _ending(found: Sequence[Summary], number: int) -> str:
    if len(found) == 1:
        return ""
    return f"-{number + 1}-" + (re.sub(r"[^a-z0-9]+", "-", found[number].study.lower()).strip("-") or "study")


def _figures(found: Summary, kept: Keeping | None, ending: str, out: Path) -> list[Path]:
    specs = {"frontier": _frontier_figure(found), "accuracy-over-energy": _curves_figure(found)}
    if splitbars.terms_of(found):
        specs["energy-split"] = _split_figure(found)
    if kept is not None:
        specs["kept-by-layer"] = _kept_figure(found, kept)
    return [path for name, spec in specs.items() for path in _save(spec, out / "figures" / f"{name}{ending}")]


def _frontier_figure(found: Summary) -> Spec:
    size = {"width": FIGURE_WIDTH, "height": round(FIGURE_WIDTH * 0.7)}
    spec = charts.frontier(found, "energy", "log" if charts.can_be_log(found, "energy") else "linear")
    return chart_style.in_print(callouts.in_figure(spec, **size) | size, FIGURE_WIDTH)


def _curves_figure(found: Summary) -> Spec:
    size = {"width": PANEL_WIDTH, "height": 200}
    drawn = [charts.curves(found, panel) | size | {"title": panel.label} for panel in page.panels(found)]
    across = min(2, len(drawn))
    meta = {"usermeta": max((one["usermeta"] for one in drawn), key=lambda one: one["longest"])}
    return chart_style.in_print({"concat": drawn, "columns": across} | meta, across * PANEL_WIDTH)


def _split_figure(found: Summary) -> Spec:
    spec = splitbars.of(found, "energy")
    return chart_style.in_print(spec | {"width": PANEL_WIDTH, "height": splitbars.height(found)}, FIGURE_WIDTH)


def _kept_figure(found: Summary, kept: Keeping) -> Spec:
    """Maps of the arms of the first panel of curves: those that differ in rule, allocation and schedule alone."""
    every = [arm for arm in found.arms if arm.rule != "Dense"] or found.arms
    first = {arm.name for arm in page.panels(found)[0].arms}
    arms = [arm for arm in every if arm.name in first][:MOST_MAPS] or every[:1]
    size = {"width": PANEL_WIDTH, "height": heatmap.height(kept)}
    maps = [heatmap.of_arm(kept, arm.name) | size | {"title": arm.label} for arm in arms]
    told = {"title": f"{len(arms)} of {len(every)} arms; the page has them all"} if len(arms) < len(every) else {}
    return chart_style.in_print({"concat": maps, "columns": min(2, len(maps))} | told, FIGURE_WIDTH)


def _save(spec: Spec, stem: Path) -> tuple[Path, ...]:
    convert = _vl_convert()
    svg = convert.vegalite_to_svg(spec, vl_version=_vega_lite_version())
    paths = tuple(stem.parent / f"{stem.name}.{kind}" for kind in ("svg", "png", "pdf"))
    _put(paths[0], svg.encode())
    _put(paths[1], convert.svg_to_png(svg, ppi=FIGURE_PPI))
    _put(paths[2], convert.svg_to_pdf(svg))
    return paths


def _put(path: Path, content: bytes) -> None:
    with replacing(path) as file:
        file.write(content)


@cache
def _bundle() -> str:
    """The scripts that draw a page. They take seconds in which no other thread runs, so another process makes them."""
    _vl_convert()
    script = "import sys, vl_convert; sys.stdout.write(vl_convert.javascript_bundle(vl_version=sys.argv[1]))"
    command = [sys.executable, "-X", "utf8", "-c", script, _vega_lite_version()]
    return subprocess.run(command, capture_output=True, check=True, encoding="utf-8").stdout


def _vega_lite_version() -> str:
    return ".".join(chart_style.altair().SCHEMA_VERSION.lstrip("v").split(".")[:2])


def _vl_convert() -> ModuleType:
    try:
        import vl_convert  # noqa: PLC0415 (only a report needs it)
    except ImportError as error:
        raise MissingExtra("report", "a report") from error
    return vl_convert
