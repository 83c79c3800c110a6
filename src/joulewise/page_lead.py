"""What a study came to in words, for whoever reads no further: the first part of its page."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape

from joulewise import notation
from joulewise.answers_table import labelled, measure, shown, verdict
from joulewise.findings import Answer
from joulewise.markup import paragraph
from joulewise.outcomes import Summary
from joulewise.pareto import SEEDS_FOR_A_CLAIM


def lead(found: Summary) -> str:
    """What was asked and what is shown, which arms stand out, and what was run, as HTML."""
    described = " ".join(word for word in ("Descriptive:" if found.answers else "", *_claims(found)) if word)
    return _answered(found) + (paragraph(described) if described else "") + paragraph(_run(found))


def _answered(found: Summary) -> str:
    """How many comparisons show a difference, and which one."""
    told = [one for one in found.answers if shown(one)]
    if not found.answers:
        return ""
    asked = f"{notation.counted(len(found.answers), 'comparison')} named beforehand"
    if not told:
        return paragraph(f"Of {asked} none shows a difference.")
    first = f"Of {asked}, {len(told)} {'shows' if len(told) == 1 else 'show'} a difference:"
    lines = [f"{one.name}, {measure(one, found)}: {_sentence(one, found)}." for one in told]
    return paragraph(first) + f"<ul>{''.join(f'<li>{escape(line)}</li>' for line in lines)}</ul>"


def _sentence(one: Answer, found: Summary) -> str:
    """The verdict without p-values, which the table has."""
    return verdict(labelled(one, found)).partition("; Holm")[0]


def _run(found: Summary) -> str:
    counts = (
        notation.counted(len(found.arms), "arm"),
        notation.counted(len(found.seeds), "seed"),
        notation.counted(found.rounds, "round"),
        notation.counted(found.clients, "client"),
    )
    devices = found.settings.get("devices")
    words = f"{counts[0]}, {counts[1]}, {counts[2]} and {counts[3]}" + (f" on {devices}." if devices else ".")
    return f"{words} An arm is a rule with its settings, run once with each seed. {_energy_words(found)}"


def _claims(found: Summary) -> tuple[str, ...]:
    """Which arms stand out, where there are seeds enough to say so."""
    whole = [arm for arm in found.arms if arm.complete]
    if min(len(arm.runs) for arm in whole) < SEEDS_FOR_A_CLAIM:
        return (f"With fewer than {SEEDS_FOR_A_CLAIM} seeds no arm is called better than another.",)
    best = max(arm.accuracy.mean for arm in whole)
    first = next(arm for arm in whole if arm.accuracy.mean == best)
    edge = best - (first.accuracy.half or 0.0)
    near = [arm.label for arm in whole if arm is not first and arm.accuracy.mean >= edge]
    words = f"The highest mean accuracy is {100 * best:.1f} percent, of {first.label}"
    if near:
        words += f"; within its interval: {_few(near)}"
    return (f"{words}.", _cheapest_words(found))


def _few(names: Sequence[str]) -> str:
    shown = 3
    return ", ".join(names) if len(names) <= shown else f"{', '.join(names[:shown])} and {len(names) - shown} more"


def _energy_words(found: Summary) -> str:
    if found.basis is None:
        return "No energy was recorded."
    if found.unit == "relative":
        return f"Energy is {found.basis}, in relative units: it compares arms and is not in joules{_budgets(found)}."
    boundary = found.settings.get("boundary")
    words = f"Energy is {found.basis}, in joules of uplink" + (f" (boundary: {boundary})" if boundary else "")
    return f"{words}; a fixed cost of each reply, where the device has one, is part of it, and no mask changes it."


def _budgets(found: Summary) -> str:
    """What a budget called joules is where nothing is in joules."""
    named = any("joules=" in part for arm in found.arms for part in (arm.name, *found.shared))
    return "; joules= in a name is a budget of a reply, in the same units" if named else ""


def _cheapest_words(found: Summary) -> str:
    reached = {arm.label: arm.to_target.energy.mean for arm in found.arms if arm.to_target.everywhere}
    if found.basis is None or not reached:
        return ""
    least = min(reached.values())
    names = _few([name for name, energy in reached.items() if energy == least])
    return f"The least uplink energy that reaches {100 * found.target:g} percent in every seed is that of {names}."
