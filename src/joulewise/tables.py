"""The tables of a study, as text for a terminal and for a page."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from joulewise.answers_table import chosen, primary
from joulewise.fairness_table import fairness
from joulewise.ledger import TERMS
from joulewise.measured import Measured
from joulewise.metering import Part
from joulewise.meters import Reading
from joulewise.notation import Scale, bytes_scale, counted, energy_unit, exponent_of, number, percent, scaled
from joulewise.outcomes import Arm, Comparison, Summary
from joulewise.pareto import SEEDS_FOR_A_CLAIM, Interval
from joulewise.questions import Questions
from joulewise.results import Row
from joulewise.significance import SIGNIFICANCE, holm
from joulewise.summary import summary
from joulewise.tabular import NONE, Table

SHOWN_NOTES = 6


def table(rows: Iterable[Row], named: Iterable[Questions] = ()) -> tuple[Table, ...]:
    """The tables of each study in the rows: one line for each arm, and what there is beside it.

    That is what was chosen on selection seeds and the primary comparisons, where the study named them beforehand; what
    it means for the clients, where rows know their accuracies; and what was measured, where something was.

    Raises:
        OutputError: as `summary`.
    """
    every = (
        (tabulate(found), chosen(found), primary(found), fairness(found), measured(found))
        for found in summary(rows, named)
    )
    return tuple(one for made in every for one in made if one is not None)


def tabulate(found: Summary) -> Table:
    """The table of a study's summary: one line for each arm."""
    energy, up, down = energy_scale(found), _bytes_scale(found, "up"), _bytes_scale(found, "down")
    return Table(
        caption=f"{found.study}: accuracy after {counted(found.rounds, 'round')}, and what it cost",
        columns=(
            "Arm",
            "Final accuracy (%)",
            f"{energy_name(found, 'Uplink energy')} ({energy.name})",
            f"Energy to {100 * found.target:g} % accuracy ({energy.name})",
            f"Uplink per client and round ({up.name})",
            f"Downlink per client and round ({down.name})",
            "Kept (%)",
            "On the frontier",
        ),
        rows=tuple(_line(arm, energy, up, down) for arm in found.arms),
        notes=_notes(found),
    )


def split(found: Summary) -> Table | None:
    """Where the energy of each arm went, by term of the ledger; None where none was recorded."""
    terms = [term for term in TERMS if any(arm.by_term.get(term) for arm in found.arms)]
    terms += sorted({term for arm in found.arms for term, energy in arm.by_term.items() if energy} - set(TERMS))
    if not terms:
        return None
    scale = energy_unit(found.unit, exponent_of([energy for arm in found.arms for energy in arm.by_term.values()]))
    up, down = ([getattr(run, f"bytes_{way}") for arm in found.arms for run in arm.runs] for way in ("up", "down"))
    sizes = bytes_scale(up), bytes_scale(down)
    return Table(
        caption=f"{found.study}: where the energy went, by term of the ledger",
        columns=(
            "Arm",
            *(f"{term.replace('_', ' ').capitalize()} ({scale.name})" for term in terms),
            "A mask can touch (%)",
            f"Bytes up ({sizes[0].name})",
            f"Bytes down ({sizes[1].name})",
        ),
        rows=tuple(_split_line(arm, terms, scale, sizes) for arm in found.arms),
        notes=(
            "Modelled energy, in totals over all rounds and clients, the mean over seeds. A mask can touch header, "
            "kept and what depends on them; no choice of coordinates saves more than that share.",
        ),
    )


def measured(found: Summary) -> Table | None:
    """What meters measured in the rounds of each arm, beside its modelled energy; None where nothing was metered."""
    if not any(arm.measured for arm in found.arms):
        return None
    modelled = energy_unit(found.unit, exponent_of([arm.energy_per_round for arm in found.arms]))
    joules = energy_unit(
        "J", exponent_of([one.joules_per_round.mean for one in _metered(found) if one.joules_per_round])
    )
    return Table(
        caption=f"{found.study}: measured energy of this machine beside modelled energy of the clients, per round",
        columns=(
            "Arm",
            f"{energy_name(found, 'Uplink energy')} ({modelled.name})",
            f"This machine, measured ({joules.name})",
            "Of",
            "Rounds measured",
            "Method",
        ),
        rows=tuple(_measured_line(arm, one, modelled, joules) for arm in found.arms for one in arm.measured),
        notes=(
            "Modelled: what the devices of the study would spend on their replies. Measured: what the machine that "
            "simulates them took for the round, with training, evaluation and whatever else ran on it. One is no "
            "check of the other, and they are never added. Rounds whose window also holds setting up are not counted.",
            *_remarks(_metered(found)),
        ),
    )


def metered(parts: Iterable[Part]) -> tuple[str, ...]:
    """A line for each reading of a whole run.

    Example:
        >>> from joulewise.meters import Reading
        >>> reading = Reading(
        ...     joules=1234.0, basis="measured", domains=("package-0",), window_s=61.0, method="powercap", note="two")
        >>> metered([Part(started="2026-01-31T12:00:00Z", jobs=2, rows=40, readings=(reading,))])
        ('40 rows from 2026-01-31T12:00:00Z on, powercap: measured 1.23 kJ of package-0 in 61.0 s (two)',)
    """
    return tuple(_metered_line(part, reading) for part in parts for reading in part.readings)


def _metered_line(part: Part, reading: Reading) -> str:
    what = f"{counted(part.rows, 'row')} from {part.started} on, {reading.method}"
    note = f" ({reading.note})" if reading.note else ""
    if reading.joules is None:
        return f"{what}: unavailable{note}"
    scale = energy_unit("J", exponent_of([reading.joules]))
    energy = f"{number(reading.joules / scale.divisor)} {scale.name}"
    return f"{what}: {reading.basis} {energy} of {', '.join(reading.domains)} in {number(reading.window_s)} s{note}"


def _metered(found: Summary) -> list[Measured]:
    return [one for arm in found.arms for one in arm.measured]


def _remarks(every: Sequence[Measured]) -> list[str]:
    """What the readings of each method say, each thing once, and not more than a reader reads."""
    said: dict[str, dict[str, None]] = {}
    for one in every:
        said.setdefault(one.method, {}).update(dict.fromkeys(one.notes))
    lines = []
    for method, notes in said.items():
        more = f"; and {len(notes) - SHOWN_NOTES} more in the rows" if len(notes) > SHOWN_NOTES else ""
        lines += [f"{method}: {'; '.join(list(notes)[:SHOWN_NOTES])}{more}."] if notes else []
    return lines


def _measured_line(arm: Arm, one: Measured, modelled: Scale, joules: Scale) -> tuple[str, ...]:
    known = one.joules_per_round is not None
    return (
        arm.label,
        number(arm.energy_per_round / modelled.divisor),
        scaled(one.joules_per_round, joules) if one.joules_per_round else "unavailable",
        ", ".join(one.domains) if known else NONE,
        f"{one.rounds} of {one.of}",
        one.method if one.basis != "assumed" else f"{one.method} (assumed)",
    )


def _split_line(arm: Arm, terms: Sequence[str], scale: Scale, sizes: tuple[Scale, Scale]) -> tuple[str, ...]:
    ways = [sum(getattr(run, f"bytes_{way}") for run in arm.runs) / len(arm.runs) for way in ("up", "down")]
    return (
        arm.label,
        *(number(arm.by_term[term] / scale.divisor) if term in arm.by_term else NONE for term in terms),
        NONE if arm.addressable is None else number(100 * arm.addressable),
        *(number(way / size.divisor) for way, size in zip(ways, sizes, strict=True)),
    )


def compare(found: Summary) -> Table | None:
    """The table of cost-weighted rules against TopK with the same settings, if there are any."""
    if not found.comparisons:
        return None
    energy = energy_name(found, "uplink energy")
    adjusted = holm([_p(one) for one in found.comparisons])
    return Table(
        caption=f"{found.study}: cost-weighted rules against TopK with the same settings, seed by seed",
        columns=(
            "Arm",
            "Against",
            "Seeds",
            "Final accuracy (points more)",
            f"Total {energy} (% more)",
            "In words",
        ),
        rows=tuple(_comparison_line(one, found, p) for one, p in zip(found.comparisons, adjusted, strict=True)),
        notes=(
            "Descriptive: paired differences with their 95 % intervals by Student's t, one by one, not corrected for "
            "how many there are. Words of accuracy rest on a paired t test with a p-value of at most "
            f"{SIGNIFICANCE} after Holm's adjustment for {counted(len(adjusted), 'comparison')}, so that an interval "
            "may leave out 0 without them; words of energy rest on the interval alone, where it leaves out 0.",
        ),
    )


def progress(found: Summary) -> Table:
    """Accuracy and energy of each arm after a quarter, a half, three quarters and all of the rounds."""
    energy = energy_scale(found)
    marks = sorted({max(1, round(found.rounds * quarter / 4)) for quarter in range(1, 5)})
    heads = ("Accuracy, round {} (%)", f"Energy, round {{}} ({energy.name})")
    return Table(
        caption=f"{found.study}: accuracy, and {energy_name(found, 'uplink energy so far')}, on the way",
        columns=("Arm", *(head.format(mark) for mark in marks for head in heads)),
        rows=tuple((arm.label, *(cell for mark in marks for cell in _after(arm, mark, energy))) for arm in found.arms),
        notes=(),
    )


def _after(arm: Arm, rounds: int, energy: Scale) -> tuple[str, str]:
    if rounds > len(arm.curve):
        return NONE, NONE
    point = arm.curve[rounds - 1]
    return percent(point.accuracy), number(point.energy / energy.divisor)


def _comparison_line(one: Comparison, found: Summary, adjusted: float) -> tuple[str, ...]:
    accuracy, energy = one.accuracy.interval, one.energy
    return (
        found.label_of(one.arm),
        found.label_of(one.reference),
        str(accuracy.seeds),
        _signed(accuracy),
        NONE if energy is None else _signed(energy),
        _verdict(one, adjusted),
    )


def _signed(found: Interval) -> str:
    if found.low is None or found.high is None:
        return _points(found.mean)
    return f"{_points(found.mean)} ({_points(found.low)} to {_points(found.high)})"


def _points(share: float) -> str:
    shown = f"{100 * share:+.1f}"
    return "0.0" if float(shown) == 0 else shown


def _p(one: Comparison) -> float:
    """Of the difference in accuracy; 1 where no claim is made, or no spread tells how sure it is."""
    p, seeds = one.accuracy.p, one.accuracy.interval.seeds
    return 1.0 if p is None or seeds < SEEDS_FOR_A_CLAIM else p


def _verdict(one: Comparison, adjusted: float) -> str:
    seeds = one.accuracy.interval.seeds
    if seeds < SEEDS_FOR_A_CLAIM:
        return f"{counted(seeds, 'seed')}: no claim is made"
    accuracy = "no clear difference in accuracy"
    if adjusted <= SIGNIFICANCE:
        accuracy = "more accurate" if one.accuracy.interval.mean > 0 else "less accurate"
    return accuracy if one.energy is None else f"{accuracy}; {_energy(one.energy)}"


def _energy(found: Interval) -> str:
    if found.low is None or found.high is None or found.low <= 0 <= found.high:
        return "no clear difference in energy"
    return "dearer" if found.low > 0 else "cheaper"


def _line(arm: Arm, energy: Scale, up: Scale, down: Scale) -> tuple[str, ...]:
    return (
        arm.label if arm.complete else f"{arm.label} (so far: round {len(arm.curve)})",
        percent(arm.accuracy),
        scaled(arm.energy, energy),
        _to_target(arm, energy),
        number(arm.bytes_up_per_reply / up.divisor),
        number(arm.bytes_down_per_request / down.divisor),
        NONE if arm.kept_share is None else number(100 * arm.kept_share),
        "yes" if arm.on_frontier else "no" if arm.complete else "unfinished",
    )


def _to_target(arm: Arm, energy: Scale) -> str:
    found = arm.to_target
    if found.everywhere:
        return scaled(found.energy, energy)
    return f"over {number(found.energy.mean / energy.divisor)} ({found.seeds} of {found.of})"


def _notes(found: Summary) -> tuple[str, ...]:
    seeds = {len(arm.runs) for arm in found.arms}
    notes = [f"Every arm has: {', '.join(found.shared)}."] if found.shared else []
    if max(seeds) > 1:
        notes.append("± is the 95 % confidence interval of the mean over seeds, by Student's t.")
    if min(seeds) < 2:
        notes.append("An arm with one seed has no interval: nothing is known about its spread.")
    if len(seeds) > 1:
        counts = "; ".join(f"{arm.label}: {len(arm.runs)}" for arm in found.arms)
        notes.append(f"Not every arm has finished the same seeds. Seeds finished: {counts}.")
    if not all(arm.to_target.everywhere for arm in found.arms):
        notes.append(
            f"over E (k of n): {100 * found.target:g} % is reached in k of n seeds; the others would have to spend "
            "more than they did, so that the mean is over E."
        )
    notes.append("Energies are totals over all rounds and clients.")
    if found.answers:
        notes.append("Descriptive: what the study was to find out is in the table of primary comparisons.")
    if found.unit == "relative":
        notes.append("Relative energy compares arms with each other; it is no physical unit.")
    return tuple(notes)


def energy_name(found: Summary, what: str) -> str:
    """`what`, with the basis of the study's energies: ``Uplink energy, modelled``."""
    return what if found.basis is None else f"{what}, {found.basis}"


def energy_scale(found: Summary) -> Scale:
    """The unit for the study's energies, such as mJ or thousand relative units."""
    exponent = exponent_of([arm.energy.mean for arm in found.arms])
    return energy_unit(found.unit, exponent)


def _bytes_scale(found: Summary, way: str) -> Scale:
    up = way == "up"
    return bytes_scale([arm.bytes_up_per_reply if up else arm.bytes_down_per_request for arm in found.arms])
