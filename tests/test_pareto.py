"""Intervals, paired differences and frontiers against laws and scipy.stats; then summaries of rows."""

from __future__ import annotations

import math
import re
import sys

import msgspec
import numpy as np
import pytest
import scipy.stats
from hypothesis import given, settings
from hypothesis import strategies as st
from synthetic_rows import PARAMETERS, study_rows

from joulewise import notation, pareto, tables
from joulewise.errors import MissingExtra, OutputError
from joulewise.ledger import Charge
from joulewise.outcomes import Summary
from joulewise.pareto import Interval, accuracy_at, crossing, frontier, hypervolume, interval, paired
from joulewise.results import Row, ServerResult
from joulewise.significance import SIGNIFICANCE
from joulewise.summary import summary

few = settings(max_examples=60, deadline=None)
small = st.integers(-4, 4).map(float)  # few values, so that ties and equal points happen
points = st.lists(st.tuples(small, small), min_size=1, max_size=12)
samples = st.lists(st.floats(-1e3, 1e3), min_size=2, max_size=8)
curves = st.lists(st.tuples(st.floats(0, 10), st.floats(0, 1)), min_size=1, max_size=8).map(
    lambda steps: (np.cumsum([step for step, _ in steps]).tolist(), [accuracy for _, accuracy in steps])
)


def beaten(point, others) -> bool:
    return any(c <= point[0] and v >= point[1] and (c, v) != point for c, v in others)


@few
@given(points)
def test_the_frontier_is_exactly_what_no_other_point_beats(found):
    marks = frontier([cost for cost, _ in found], [value for _, value in found])
    assert marks.tolist() == [not beaten(point, found) for point in found]


@few
@given(points, st.integers(0, 11))
def test_hypervolume_comes_from_the_frontier_alone_and_no_point_lessens_it(found, place):
    limit, floor = 5.0, -5.0
    costs, values = zip(*found, strict=True)
    on = frontier(costs, values)
    whole = hypervolume(costs, values, limit, floor)
    line = [point for point, mark in zip(found, on, strict=True) if mark]
    assert whole == hypervolume(*zip(*line, strict=True), limit, floor)
    fewer = [point for number, point in enumerate(found) if number != place % len(found)]
    assert whole >= hypervolume([c for c, _ in fewer], [v for _, v in fewer], limit, floor)
    grid = [(c + 0.5, v - 0.5) for c in range(-5, 5) for v in range(-4, 6)]
    assert whole == sum(any(c <= x and v >= y for c, v in found) for x, y in grid)  # unit squares


@few
@given(samples, st.sampled_from([0.5, 0.9, 0.95, 0.99]))
def test_an_interval_is_students(values, confidence):
    found = interval(values, confidence)
    error = np.std(values, ddof=1) / math.sqrt(len(values))
    if error > 1e-9:
        expected = scipy.stats.t.interval(confidence, len(values) - 1, np.mean(values), error)
        assert (found.low, found.high) == pytest.approx(expected, rel=1e-9, abs=1e-9)
    assert found.mean == pytest.approx(np.mean(values))
    assert found.low <= found.mean <= found.high
    assert found.seeds == len(values)


def test_intervals_cover_the_mean_as_often_as_they_say():
    rng = np.random.default_rng(7)
    trials = [interval(rng.normal(3.0, 2.0, size=4).tolist()) for _ in range(2000)]
    covered = sum(found.low <= 3.0 <= found.high for found in trials)
    assert scipy.stats.binom.cdf(covered, 2000, 0.95) > 1e-6
    assert scipy.stats.binom.sf(covered, 2000, 0.95) > 1e-6


def test_one_seed_has_no_interval_and_none_is_an_error():
    assert interval([0.5]) == Interval(mean=0.5, low=None, high=None, seeds=1)
    assert interval([0.5]).half is None
    with pytest.raises(ValueError, match="at least one value"):
        interval([])


@few
@given(st.lists(st.tuples(st.floats(0, 1), st.floats(0, 1)), min_size=2, max_size=6))
def test_a_paired_difference_is_scipys_and_changes_sign_with_the_order(pairs):
    first = {seed: one for seed, (one, _) in enumerate(pairs)} | {98: 1.0}
    second = {seed: other for seed, (_, other) in enumerate(pairs)} | {99: 0.0}
    found, turned = paired(first, second), paired(second, first)
    differences = [one - other for one, other in pairs]
    assert found.interval == interval(differences)
    assert turned.interval.mean == pytest.approx(-found.interval.mean)
    assert found.interval.seeds == len(pairs)
    if np.std(differences) > 1e-6:
        assert found.p == pytest.approx(scipy.stats.ttest_1samp(differences, 0).pvalue, rel=1e-6, abs=1e-12)


def test_equal_differences_have_no_p_value_and_two_seeds_make_no_claim():
    assert paired({0: 0.3, 1: 0.5, 2: 0.9}, {0: 0.2, 1: 0.4, 2: 0.8}).p is None
    assert paired({0: 1.0, 1: 1.001, 2: 1.002}, {0: 0.0, 1: 0.0, 2: 0.0}).claim
    assert not paired({0: 1.0, 1: 1.00001}, {0: 0.0, 1: 0.0}).claim
    assert not paired({0: 1.0, 1: -1.0, 2: 0.1}, {0: 0.0, 1: 0.0, 2: 0.0}).claim
    assert paired({0: 1.0}, {1: 1.0}) is None


@few
@given(curves, st.floats(0, 1), st.integers(1, 4))
def test_an_accuracy_is_reached_at_the_end_of_the_first_evaluations_in_a_row_whose_mean_has_it(curve, target, count):
    _, accuracies = curve
    place = crossing(accuracies, target, count)
    reached = [
        last
        for last in range(len(accuracies))
        if last + 1 >= count and math.fsum(accuracies[last + 1 - count : last + 1]) / count >= target
    ]
    assert place == (reached[0] if reached else None)


def test_one_lucky_evaluation_reaches_nothing():
    assert crossing([0.2, 0.9, 0.2, 0.2], 0.5) is None
    assert crossing([0.2, 0.9, 0.5, 0.2], 0.5) == 2
    assert crossing([0.9, 0.9], 0.5) is None


@few
@given(curves, st.floats(0, 80))
def test_accuracy_at_an_energy_is_that_of_the_last_round_it_pays_for(curve, energy):
    energies, accuracies = curve
    paid = sum(spent <= energy for spent in energies)
    assert accuracy_at(energies, accuracies, energy) == (accuracies[paid - 1] if paid else None)


def test_a_missing_scipy_is_told_with_the_line_that_installs_it(monkeypatch):
    monkeypatch.setitem(sys.modules, "scipy.special", None)
    with pytest.raises(MissingExtra, match=r"joulewise\[report\]"):
        pareto.interval([1.0, 2.0])


# -------------------------------------------------------------------------------------------- rows summed up

ROWS = study_rows(densities=(0.1, 0.05), seeds=(0, 1, 2), rounds=3, clients=2)


def one(rows=ROWS) -> Summary:
    (found,) = summary(rows)
    return found


def changed(rows, where, **fields) -> tuple[Row, ...]:
    return tuple(msgspec.structs.replace(row, **fields) if where(row) else row for row in rows)


def test_totals_are_sums_over_rounds_and_clients():
    arm = next(arm for arm in one().arms if arm.name == "TopK density=0.05")
    mine = [row for row in ROWS if row.arm == arm.name]
    by_seed = [[client for row in mine if row.seed == seed for client in row.clients] for seed in range(3)]
    energies = [sum(c.energy for client in seed for c in client.charges if c.term != "downlink") for seed in by_seed]
    assert [run.energy[-1] for run in arm.runs] == pytest.approx(energies)
    assert arm.energy == interval([run.energy[-1] for run in arm.runs])
    assert arm.bytes_up.mean == sum(client.bytes_up for seed in by_seed for client in seed) / 3
    assert arm.bytes_up_per_reply == by_seed[0][0].bytes_up
    assert arm.bytes_down_per_request == by_seed[0][0].bytes_down
    assert arm.kept_share == pytest.approx(math.floor(0.05 * PARAMETERS) / PARAMETERS)
    assert arm.accuracy == interval([row.server.accuracy for row in mine if row.round == 3])
    assert [point.round for point in arm.curve] == [1, 2, 3]
    assert arm.curve[-1].accuracy == arm.accuracy
    assert arm.curve[-1].energy == pytest.approx(arm.energy.mean)
    assert arm.curve[0].energy < arm.curve[1].energy


def test_a_summary_does_not_depend_on_the_order_of_rows():
    shuffled = np.random.default_rng(0).permutation(len(ROWS))
    assert summary([ROWS[place] for place in shuffled]) == summary(ROWS)


def test_arms_are_in_the_order_of_rules_then_of_numbers():
    labels = ["Dense"] + [f"{rule} density={d}" for rule in ("TopK", "CWMP", "Projection") for d in (0.05, 0.1)]
    assert [arm.name for arm in one().arms] == labels


def test_studies_and_units_are_summed_up_apart():
    joules = study_rows("b", densities=(0.1,), seeds=(0,), rounds=1, unit="J")
    found = summary((*ROWS, *joules, *changed(joules, lambda row: True, study="a")))
    assert [(each.study, each.unit) for each in found] == [("a", "J"), ("b", "J"), ("quickstart", "relative")]


def test_a_seed_that_did_not_finish_is_left_out_and_a_short_arm_is_off_the_frontier():
    rows = [row for row in ROWS if not (row.arm == "CWMP density=0.1" and row.seed == 2 and row.round == 3)]
    rows = [row for row in rows if not (row.arm == "TopK density=0.05" and row.round > 1)]
    arms = {arm.name: arm for arm in one(rows).arms}
    assert arms["CWMP density=0.1"].unfinished == (2,)
    assert arms["CWMP density=0.1"].accuracy.seeds == 2
    assert not arms["TopK density=0.05"].complete
    assert not arms["TopK density=0.05"].on_frontier
    compared = {one.arm: one for one in one(rows).comparisons}
    assert "CWMP density=0.05" not in compared  # its TopK has another number of rounds
    assert compared["CWMP density=0.1"].accuracy.interval.seeds == 2
    (table,) = tables.table(rows)
    assert any(cells[0] == "TopK density=0.05 (so far: round 1)" for cells in table.rows)
    assert any("Not every arm has finished the same seeds" in note for note in table.notes)


@pytest.mark.parametrize(
    ("rows", "words"),
    [
        ((), "no rows to report"),
        ((*ROWS, ROWS[5]), "round 3 is there twice"),
        ((*ROWS[:1], *ROWS[2:]), "arm 'Dense', seed 0: round 2 is missing"),
        (
            changed(ROWS, lambda row: row is ROWS[4], settings={"rule": "x"}),
            "two different arms called 'Dense'",
        ),
    ],
)
def test_rows_that_do_not_fit_together_are_refused(rows, words):
    with pytest.raises(OutputError, match=words):
        summary(rows)


def test_modelled_and_measured_rows_are_not_mixed():
    measured = msgspec.structs.replace(ROWS[0].clients[0], charges=(Charge("kept", 1.0, "relative", "measured"),))
    with pytest.raises(OutputError, match="modelled energy and some measured"):
        summary(changed(ROWS, lambda row: row is ROWS[0], clients=(measured,)))


def test_rules_are_compared_with_topk_of_the_same_settings_only():
    found = one()
    assert [(each.arm, each.reference) for each in found.comparisons] == [
        (f"{rule} density={d}", f"TopK density={d}") for rule in ("CWMP", "Projection") for d in (0.05, 0.1)
    ]
    other = changed(ROWS, lambda row: row.rule == "TopK", settings={"rule": "TopK", "feedback": True})
    assert one(other).comparisons == ()


def test_a_comparison_is_paired_by_seed_and_its_energy_is_relative():
    found = one().comparisons[0]
    arms = {arm.name: arm for arm in one().arms}
    mine, theirs = arms[found.arm].runs, arms[found.reference].runs
    assert found.accuracy.interval == interval(
        [a.accuracy[-1] - b.accuracy[-1] for a, b in zip(mine, theirs, strict=True)]
    )
    ratios = [a.energy[-1] / b.energy[-1] - 1 for a, b in zip(mine, theirs, strict=True)]
    assert found.energy == interval(ratios)
    assert found.energy.high < 0  # the synthetic CWMP is cheaper
    free = msgspec.structs.replace(ROWS[0].clients[0], charges=())
    assert one(changed(ROWS, lambda row: row.rule == "TopK", clients=(free,))).comparisons[0].energy is None


def test_the_table_says_what_it_shows():
    (table,) = tables.table(ROWS)
    assert table.columns[2] == "Uplink energy, modelled (thousand relative units)"
    assert len({len(cells) for cells in table.rows} | {len(table.columns)}) == 1
    (joules,) = tables.table(study_rows(seeds=(0,), rounds=2, unit="J"))
    assert joules.columns[2] == "Uplink energy, modelled (mJ)"
    assert "(one seed)" in joules.rows[0][1]
    assert any("no interval" in note for note in joules.notes)
    assert not any("relative" in text for text in (*joules.columns, *joules.notes))
    assert not any("J)" in column or "joule" in column for column in table.columns)


def compared_at(gains: dict[str, tuple[float, ...]]):
    """The table of CWMP against TopK, at densities 0.05 and 0.1, with these differences in accuracy by seed."""
    made = [
        msgspec.structs.replace(row, server=ServerResult(0.5 + gains.get(row.arm, (0.0,) * 9)[row.seed], None))
        for row in ROWS
        if row.rule in {"TopK", "CWMP"}
    ]
    found = one(made)
    return found, {cells[0]: cells[-1] for cells in tables.compare(found).rows}


def test_words_of_accuracy_rest_on_p_values_adjusted_for_how_many_comparisons_there_are():
    some, same = (0.030, 0.040, 0.060), (0.001, -0.001, 0.0)
    found, words = compared_at({"CWMP density=0.05": some, "CWMP density=0.1": same})
    first = found.comparisons[0]
    assert first.accuracy.interval.low > 0  # alone it would be called different
    assert 0.025 < first.accuracy.p < SIGNIFICANCE
    assert words["CWMP density=0.05"].startswith("no clear difference in accuracy; ")
    clear = (0.030, 0.031, 0.033)
    found, words = compared_at({"CWMP density=0.05": clear, "CWMP density=0.1": tuple(-each for each in clear)})
    assert set(words.values()) == {"less accurate; cheaper", "more accurate; cheaper"}
    assert words["CWMP density=0.1"].startswith("less")
    equal = compared_at({"CWMP density=0.05": (0.1,) * 3})[1]  # no spread, so that nothing says how sure it is
    assert equal["CWMP density=0.05"].startswith("no clear difference in accuracy; ")
    (note,) = tables.compare(found).notes
    assert "after Holm's adjustment for 2 comparisons" in note
    assert "words of energy rest on the interval alone" in note


def test_with_two_seeds_no_claim_is_made():
    compared = tables.compare(one([row for row in ROWS if row.seed < 2]))
    assert {cells[-1] for cells in compared.rows} == {"2 seeds: no claim is made"}
    assert all("claim" not in cells[-1] for cells in tables.compare(one()).rows)


@given(st.floats(1e-12, 1e12))
@few
def test_numbers_have_three_digits_and_read_back_within_them(value):
    shown = notation.number(value)
    assert float(shown.replace(",", "")) == pytest.approx(value, rel=5.1e-3)
    assert len(shown.replace(",", "").replace(".", "").lstrip("0")) >= 3


def test_energy_to_the_target_counts_the_seeds_that_reach_it_and_bounds_the_mean_of_the_others_from_below():
    poor = {("CWMP density=0.1", 1), *(("TopK density=0.1", seed) for seed in range(3))}
    rows = [
        msgspec.structs.replace(row, server=ServerResult(0.01 if (row.arm, row.seed) in poor else 0.3, None))
        for row in ROWS
    ]
    assert one(rows).target == 0.28  # 95 % of 0.3, rounded down to a percent
    arms = {arm.name: arm for arm in one(rows).arms}
    good, some, none = (arms[name] for name in ("CWMP density=0.05", "CWMP density=0.1", "TopK density=0.1"))
    assert good.to_target.everywhere
    assert (good.to_target.energy, good.to_target.sent) == (good.energy, good.bytes_up)  # round 3 is the last
    assert (some.to_target.seeds, some.to_target.of) == (2, 3)
    assert (some.to_target.energy.mean, some.to_target.energy.half) == (some.energy.mean, None)
    assert none.to_target.seeds == 0
    cells = {line[0]: line[3] for line in tables.tabulate(one(rows)).rows}
    assert "±" in cells["CWMP density=0.05"]
    assert re.fullmatch(r"over [\d.,]+ \(2 of 3\)", cells["CWMP density=0.1"])
    assert re.fullmatch(r"over [\d.,]+ \(0 of 3\)", cells["TopK density=0.1"])
