"""The page of a report as HTML: words and tables of each study, and the places where its charts go."""

from __future__ import annotations

import json
import string
from collections.abc import Iterable, Mapping, Sequence
from html import escape
from importlib import metadata, resources
from typing import Any

import msgspec

from joulewise import answers_table, fairness_table, page_energy, page_lead, statistics_table, tables
from joulewise.background import Background
from joulewise.keeping import Keeping
from joulewise.markup import box, chart, code, details, paragraph, switch, table
from joulewise.outcomes import Arm, Summary
from joulewise.pareto import SEEDS_FOR_A_CLAIM
from joulewise.results import Row
from joulewise.tabular import Table

AXES = {"energy": "Uplink energy", "bytes_up": "Uplink bytes", "kept": "Coordinates sent"}
SCALES = {"log": "Logarithmic", "linear": "Linear"}

AGAIN = (
    "To run it again, save the study below, which holds what --set set, as study.json (a run's folder has it); "
    "--jobs N takes N processes and gives the same rows"
)

Charts = Mapping[str, Mapping[str, dict[str, Any]]]
"""Vega-Lite specification by chart and by what the chart's switches say; the first shows first."""


class Panel(msgspec.Struct, frozen=True):
    """Arms that differ in nothing but rule, allocation and schedule, and what they have in common."""

    label: str
    arms: tuple[Arm, ...]


class Provenance(msgspec.Struct, frozen=True, kw_only=True):
    """What a reader needs to run it again: the rows' origin, the study as text, and the command.

    `metered` says, line by line, what meters read over the whole run, and `backgrounds`, by name of the study, what
    else a run left in its folder.
    """

    rows: tuple[Row, ...]
    study_text: str | None = None
    command: str | None = None
    metered: tuple[str, ...] = ()
    backgrounds: Mapping[str, Background] = {}


def frontier_key(number: int) -> str:
    """Key of the chart of final accuracy against cost of the study `number`, counted from 0."""
    return f"frontier-{number}"


def curve_key(number: int, panel: int) -> str:
    """Key of the chart of accuracy over energy of a panel of the study `number`, both counted from 0."""
    return f"curve-{number}-{panel}"


def panels(found: Summary) -> tuple[Panel, ...]:
    """The study's arms by what lines of one chart share; one without a budget, such as Dense, is in all that fit it."""
    groups = list(dict.fromkeys(arm.group for arm in found.arms))
    whole = [one for one in groups if not any(set(one) < set(other) for other in groups)]
    return tuple(Panel(", ".join(one), tuple(a for a in found.arms if set(a.group) <= set(one))) for one in whole)


def render(
    found: Sequence[Summary], kept: Sequence[Keeping | None], charts: Charts, bundle: str, provenance: Provenance
) -> str:
    """The page as HTML.

    Args:
        found: the studies, in the page's order.
        kept: what was kept of each tensor in each of them.
        charts: their charts.
        bundle: JavaScript that draws them: it sets ``window.vegaEmbed``.
        provenance: the last part of the page.
    """
    title = found[0].study if len(found) == 1 else f"{len(found)} studies"
    sections = [
        _study(one, each, number, charts, provenance)
        for number, (one, each) in enumerate(zip(found, kept, strict=True))
    ]
    template = resources.files("joulewise").joinpath("report.html").read_text(encoding="utf-8")
    return string.Template(template).substitute(
        title=escape(f"{title}: accuracy and energy"),
        contents=_contents(found),
        sections="\n".join((*sections, _provenance(provenance))),
        version=escape(metadata.version("joulewise")),
        charts=json.dumps(charts, separators=(",", ":")).replace("<", "\\u003c"),
        bundle=bundle.replace("</script", "<\\/script"),
    )


def _contents(found: Sequence[Summary]) -> str:
    if len(found) == 1:
        return ""
    items = "".join(f'<li><a href="#study-{i}">{escape(_heading(one))}</a></li>' for i, one in enumerate(found))
    return f'<nav aria-label="Studies"><ul>{items}</ul></nav>'


def _heading(found: Summary) -> str:
    return found.study if found.unit == "J" else f"{found.study} (relative energy)"


def _study(found: Summary, kept: Keeping | None, number: int, charts: Charts, provenance: Provenance) -> str:
    background = provenance.backgrounds.get(found.study, Background())
    parts = (
        f"<h2>{escape(_heading(found))}</h2>{page_lead.lead(found)}",
        _section("What it was to find out", answers_table.primary(found), "words"),
        _every_arm(found),
        _frontier(found, number, charts),
        _curves(found, number),
        _section("How sure that is", statistics_table.reached(found)),
        _section("Rules as a whole", statistics_table.hypervolumes(found)),
        _section("What it means for the clients", fairness_table.fairness(found)),
        page_energy.split(found, number),
        page_energy.kept(found, kept, number),
        _section("What this machine took", tables.measured(found)),
        _comparison(found),
        _section("What was chosen", answers_table.chosen(found), "words"),
        page_energy.devices(found, provenance.rows, background),
    )
    return f'<section id="study-{number}">{"".join(part for part in parts if part)}</section>'


def _every_arm(found: Summary) -> str:
    marked = [arm.on_frontier for arm in found.arms]
    return f"<h3>Every arm</h3>{table(tables.tabulate(found), marked)}{_full_names(found)}"


def _full_names(found: Summary) -> str:
    """What the rows call the arms, for who looks them up there; not printed."""
    pairs = tuple((arm.label, arm.name) for arm in found.arms if arm.label != arm.name)
    shown = Table(caption=f"{found.study}: names of arms", columns=("Here", "In the rows"), rows=pairs, notes=())
    return details("Names of the arms in the rows", table(shown, kind="words"), kind="screen") if pairs else ""


def _frontier(found: Summary, number: int, charts: Charts) -> str:
    key = frontier_key(number)
    axes = [axis for axis in AXES if any(name.startswith(axis) for name in charts[key])]
    scales = [scale for scale in SCALES if any(name.endswith(scale) for name in charts[key])]
    switches = (
        switch(key, "Horizontal axis", {axis: AXES[axis] for axis in axes}),
        switch(key, "Scale", {scale: SCALES[scale] for scale in scales}),
    )
    label = f"{found.study}: final accuracy of each arm against its total {AXES['energy'].lower()}"
    words = (
        "One point for each arm: final accuracy against the total over rounds and clients. Bars are 95 % "
        "intervals over seeds. The dashed line joins the arms that no other arm beats in both. "
        "The table above holds the numbers."
    )
    return f"<h3>What accuracy costs</h3>{chart(key, label, words, switches)}"


def _curves(found: Summary, number: int) -> str:
    boxes = []
    for place, panel in enumerate(panels(found)):
        title = panel.label or "All arms"
        label = f"{found.study}, {title}: test accuracy after each round over cumulative uplink energy"
        boxes.append(f"<div><h4>{escape(title)}</h4>{box(curve_key(number, place), label)}</div>")
    words = (
        "Mean test accuracy over seeds after each round, against the mean uplink energy spent so far; "
        "bands are 95 % intervals over seeds. All panels have the same axes."
    )
    return (
        f'<h3>Accuracy on the way</h3><figure><div class="panels">{"".join(boxes)}</div>'
        f"<figcaption>{escape(words)}</figcaption></figure>"
        f"{details('Numbers of these curves', table(tables.progress(found)))}"
    )


def _section(title: str, shown: Table | None, kind: str = "") -> str:
    return "" if shown is None else f"<h3>{escape(title)}</h3>{table(shown, kind=kind)}"


def _comparison(found: Summary) -> str:
    compared = tables.compare(found)
    if compared is None:
        return ""
    seeds = min(one.accuracy.interval.seeds for one in found.comparisons)
    words = "Each arm is compared with TopK under the same settings, seed by seed. "
    if seeds < SEEDS_FOR_A_CLAIM:
        words += f"With fewer than {SEEDS_FOR_A_CLAIM} seeds no claim is made."
    title = "<h3>Cost-weighted rules against TopK (descriptive)</h3>"
    return f"{title}{paragraph(words)}{table(compared, kind='words')}"


def _provenance(given: Provenance) -> str:
    origins = [row.origin for row in given.rows]
    versions = sorted({f"{name} {version}" for origin in origins for name, version in origin.versions.items()})
    facts = {
        "Versions": ", ".join(versions) or "not recorded",
        "Commit": _listed(origin.commit for origin in origins),
        "Machine": _listed(origin.machine for origin in origins),
        "Threads": _listed(str(origin.threads) for origin in origins),
        "Rows": f"{len(given.rows)}, from {min(row.timing.started for row in given.rows)} on; "
        f"{sum(row.timing.seconds for row in given.rows):,.0f} s in rounds",
    }
    if given.metered:
        facts["Measured energy of this machine, over the whole run"] = "; ".join(given.metered)
    items = "".join(f"<dt>{escape(name)}</dt><dd>{escape(value)}</dd>" for name, value in facts.items())
    command = paragraph(f"{AGAIN}:") + code(given.command) if given.command else ""
    study = details("The study: study.json", code(given.study_text)) if given.study_text else ""
    return f'<section id="provenance"><h2>Where this comes from</h2><dl>{items}</dl>{command}{study}</section>'


def _listed(values: Iterable[str | None]) -> str:
    return ", ".join(sorted({value for value in values if value})) or "not recorded"
