"""Primary comparisons, choices on selection seeds, hypervolumes and frontiers: what they find and what they do not."""

from __future__ import annotations

import math
from typing import get_args

import msgspec
import numpy as np
import pytest
import scipy.stats
from hypothesis import given, settings
from hypothesis import strategies as st
from synthetic_rows import study_rows

from joulewise import answers_table, certainty, page_lead, statistics_table, tables
from joulewise.answers import Value, compare
from joulewise.errors import OutputError
from joulewise.findings import Answer, Reference
from joulewise.outcomes import Summary
from joulewise.pareto import frontier, hypervolume, interval
from joulewise.questions import Measure, Question, Questions
from joulewise.results import AllClients, Row, ServerResult
from joulewise.significance import SIGNIFICANCE, holm
from joulewise.summary import summary
from joulewise.volumes import CLASSES, by_seed

few = settings(max_examples=60, deadline=None)
FALSE_ALARM = 1e-6

ROWS = tuple(
    msgspec.structs.replace(row, settings=row.settings | {"data": "Digits"})
    for row in study_rows(densities=(0.1, 0.05), seeds=(0, 1, 2, 3), rounds=6, clients=2)
)
SEEDS = (0, 1, 2, 3)


def asked(measure: Measure = "accuracy", seeds=SEEDS, **fields) -> Questions:
    sides = {"arms": ("CWMP density=0.1",), "against": ("TopK density=0.1",)}
    one = Question(name="the claim", measure=measure, **fields.pop("sides", sides))
    return Questions(study="quickstart", seeds=seeds, primary=(one,), **fields)


def found(rows=ROWS, questions: Questions | None = None) -> Summary:
    (only,) = summary(rows, [questions] if questions else [])
    return only


def answered(first, second, measure: Measure = "accuracy", missing=()) -> Answer:
    sides = [
        {seed: one if isinstance(one, Value) else Value(one) for seed, one in enumerate(side)}
        for side in (first, second)
    ]
    return compare(Answer(name="n", measure=measure, arm="A", against="B", seeds=0, missing=missing), *sides)


def with_accuracy(rows, of) -> tuple[Row, ...]:
    return tuple(msgspec.structs.replace(row, server=ServerResult(of(row), None)) for row in rows)


# ---------------------------------------------------------------- one comparison


@few
@given(st.lists(st.tuples(st.floats(0.1, 1), st.floats(0.1, 1)), min_size=3, max_size=8), st.booleans())
def test_a_comparison_is_scipys_paired_t_test_of_energies_on_logarithms(pairs, ratio):
    first, second = ([pair[side] for pair in pairs] for side in (0, 1))
    one = answered(first, second, "energy_to_accuracy" if ratio else "accuracy")
    wanted = (np.log(first), np.log(second)) if ratio else (first, second)
    if np.std(np.subtract(*wanted)) > 1e-6:
        test = scipy.stats.ttest_rel(*wanted)
        low, high = test.confidence_interval(0.95)
        ends = (math.exp(low), math.exp(high)) if ratio else (low, high)
        assert one.test == "t"
        assert one.p == pytest.approx(test.pvalue, rel=1e-6, abs=1e-12)
        assert (one.difference.low, one.difference.high) == pytest.approx(ends, rel=1e-6, abs=1e-9)


def test_fewer_than_three_seeds_and_missing_seeds_make_no_claim():
    assert answered([0.9, 0.8], [0.1, 0.1]).p is None
    some = answered([0.9, 0.8, 0.9], [0.1, 0.1, 0.2], missing=(3,))
    assert (some.p, some.seeds) == (None, 3)
    assert answers_table.verdict(some) == "no claim: 3 of 4 seeds can be compared, seed 3 cannot"
    assert answers_table.verdict(answered([0.9, 0.8], [0.1, 0.1])) == "2 seeds: no claim is made"


def test_differences_without_spread_are_tested_by_their_signs():
    one = answered([2.0] * 6, [4.0] * 6, "energy_to_accuracy")
    assert (one.test, one.signs, one.difference.mean) == ("sign", (6, 0, 0), 0.5)
    assert one.p == pytest.approx(2 / 64)
    same = answered([2.0] * 6, [2.0] * 6, "energy_to_accuracy")
    assert same.p == 1.0
    assert answers_table.verdict(same) == "A and B are equal in every seed"


def test_no_energy_is_no_comparison_of_energies():
    one = answered([0.0] * 3, [0.0] * 3, "energy_to_accuracy")
    assert one.p is None
    assert answers_table.verdict(one) == "no claim: no energy was recorded"


# ---------------------------------------------------------------- censoring

censored = st.builds(Value, st.integers(1, 4).map(float), st.booleans())


def could_be(value: Value) -> list[float]:
    """What a run may need: what it spent, or anything more."""
    return [value.amount] if value.reached else [value.amount + more for more in (0.001, 0.5, 1.5, 2.5, 3.5, 99.0)]


@few
@given(st.lists(st.tuples(censored, censored), min_size=3, max_size=6))
def test_an_order_is_known_only_where_nothing_that_may_be_contradicts_it(pairs):
    one = answered([pair[0] for pair in pairs], [pair[1] for pair in pairs], "energy_to_accuracy")
    worlds = [[(a, b) for a in could_be(first) for b in could_be(second)] for first, second in pairs]
    less = sum(all(a < b for a, b in world) for world in worlds)
    more = sum(all(a > b for a, b in world) for world in worlds)
    assert one.signs == (less, more, len(pairs) - less - more)
    assert one.reached == (sum(pair[0].reached for pair in pairs), sum(pair[1].reached for pair in pairs))


def test_a_censored_seed_leaves_no_mean_of_the_others():
    first = [Value(1.0), Value(1.1), Value(1.2), Value(1.0), Value(1.3), Value(1.0), Value(1.1)]
    second = [
        Value(2.0),
        Value(2.1),
        Value(2.2),
        Value(2.0),
        Value(2.3),
        Value(5.0, reached=False),
        Value(1.0, reached=False),
    ]
    one = answered(first, second, "energy_to_accuracy")
    assert (one.test, one.difference, one.signs) == ("sign", None, (6, 0, 1))
    words = answers_table.verdict(msgspec.structs.replace(one, adjusted=one.p))
    assert words == (
        "A is not shown to differ from B: less in 6 seeds, more in 0, not known to differ in 1 (sign test); "
        "Holm-adjusted p = 0.12. A reaches the accuracy in 7 of 7 seeds, B in 5"
    )
    longer = answered([*first[:6], *first[:6]], [*second[:6], *second[:6]], "energy_to_accuracy")
    words = answers_table.verdict(msgspec.structs.replace(longer, adjusted=longer.p))
    assert words.startswith("A takes less than B: less in 12 seeds, more in 0")


def test_an_arm_that_is_cheap_and_never_arrives_does_not_win():
    cheap = [Value(1.0, reached=False)] * 8
    assert answered(cheap, [Value(9.0)] * 8, "energy_to_accuracy").signs == (0, 0, 8)
    assert answered(cheap, [Value(9.0)] * 8, "energy_to_accuracy").p == 1.0


# ---------------------------------------------------------------- false alarms


@pytest.mark.parametrize("ends", [math.inf, 1.2])
def test_where_nothing_differs_a_family_of_four_raises_an_alarm_in_at_most_one_of_twenty_studies(ends):
    """1,500 studies of seven paired seeds; the test itself fails by chance with a probability of at most 1e-6."""
    rng = np.random.default_rng(5)
    trials, alarms = 1500, 0
    for _ in range(trials):
        base = rng.normal(size=(1, 7))  # what seeds have in common
        sides = np.exp(0.3 * (base + rng.normal(size=(2, 4, 7))))
        values = [[[Value(min(a, ends), a <= ends) for a in row] for row in side] for side in sides.tolist()]
        p = [answered(a, b, "energy_to_accuracy").p for a, b in zip(*values, strict=True)]
        alarms += min(holm(p)) <= SIGNIFICANCE
    assert scipy.stats.binom.sf(alarms - 1, trials, SIGNIFICANCE) > FALSE_ALARM
    if ends == math.inf:  # and not because it never does
        assert scipy.stats.binom.cdf(alarms, trials, 0.03) > FALSE_ALARM


# ---------------------------------------------------------------- from rows


def test_studies_without_questions_are_summed_up_as_before():
    plain = found()
    assert (plain.questions, plain.chosen, plain.answers) == (None, (), ())
    assert [table.caption for table in tables.table(ROWS)] == ["quickstart: accuracy after 6 rounds, and what it cost"]
    assert not any("primary" in note for note in tables.tabulate(plain).notes)


def test_a_primary_comparison_of_accuracies_is_that_of_the_arms_last_rounds():
    summed = found(questions=asked())
    (one,) = summed.answers
    arms = {arm.name: arm for arm in summed.arms}
    pairs = zip(arms["CWMP density=0.1"].runs, arms["TopK density=0.1"].runs, strict=True)
    assert one.difference == interval([a.accuracy[-1] - b.accuracy[-1] for a, b in pairs])
    assert one.adjusted == one.p


def test_p_values_are_adjusted_for_every_comparison_named_even_without_an_answer():
    base = asked().primary[0]
    names = ("Projection density=0.1", "CWMP density=0.05", "an arm that never ran")
    more = [msgspec.structs.replace(base, name=name, arms=(name,)) for name in names]
    summed = found(questions=msgspec.structs.replace(asked(), primary=(base, *more)))
    p = [1.0 if one.p is None else one.p for one in summed.answers]
    assert [one.adjusted for one in summed.answers] == list(holm(p))
    assert summed.answers[-1].p is None
    assert summed.answers[-1].missing == SEEDS


def test_verdicts_say_which_is_higher_and_by_how_much():
    gain = {0: 0.05, 1: 0.052, 2: 0.048, 3: 0.05}

    def accuracy(row):
        return 0.5 + 0.01 * row.seed + gain[row.seed] * (row.arm == "CWMP density=0.1")

    summed = found(with_accuracy(ROWS, accuracy), asked())
    words = answers_table.verdict(summed.answers[0])
    assert words.startswith(
        "CWMP density=0.1 is higher than TopK density=0.1 by 5.0 points (4.7 to 5.3); Holm-adjusted p"
    )
    turned = asked(sides={"arms": ("TopK density=0.1",), "against": ("CWMP density=0.1",)})
    words = answers_table.verdict(found(with_accuracy(ROWS, accuracy), turned).answers[0])
    assert words.startswith(
        "TopK density=0.1 is lower than CWMP density=0.1 by 5.0 points (4.7 to 5.3); Holm-adjusted p"
    )
    noisy = with_accuracy(ROWS, lambda row: 0.5 + 0.1 * (row.seed % 2 == (row.rule == "CWMP")))
    words = answers_table.verdict(found(noisy, asked()).answers[0])
    assert words.startswith("CWMP density=0.1 is not shown to differ from TopK density=0.1: +0.0 points (")


def test_a_verdict_rests_on_the_adjusted_p_value():
    one = answered([0.5, 0.6, 0.72], [0.4, 0.49, 0.6])
    assert one.p < SIGNIFICANCE
    assert "is higher than" in answers_table.verdict(msgspec.structs.replace(one, adjusted=0.05))
    assert "is not shown to differ" in answers_table.verdict(msgspec.structs.replace(one, adjusted=0.051))


def test_energy_and_bytes_to_an_accuracy_are_ratios_at_the_round_that_reaches_it():
    rows = with_accuracy(ROWS, lambda row: 0.1 * row.round + 0.001 * row.seed)
    for measure, spent in (("energy_to_accuracy", "energy"), ("bytes_to_accuracy", "sent")):
        summed = found(rows, asked(measure, target_accuracy=0.3))
        assert summed.target == 0.3
        (one,) = summed.answers
        arms = {arm.name: arm for arm in summed.arms}
        costs = [
            [getattr(run, spent)[3] for run in arms[name].runs] for name in ("CWMP density=0.1", "TopK density=0.1")
        ]
        assert one.reached == (4, 4)
        assert one.difference.mean == pytest.approx(scipy.stats.gmean(np.divide(*costs)))


def test_energy_to_an_accuracy_says_takes_less():
    rows = with_accuracy(ROWS, lambda row: 0.1 * row.round)
    words = answers_table.verdict(found(rows, asked("energy_to_accuracy", target_accuracy=0.3)).answers[0])
    assert words.startswith("CWMP density=0.1 takes less than TopK density=0.1: 0.")
    assert " times (0." in words


def test_accuracy_at_an_energy_is_that_of_the_rounds_it_pays_for_and_tells_who_ended_early():
    rows = with_accuracy(ROWS, lambda row: 0.1 * row.round + 0.001 * row.seed * (row.rule == "CWMP"))
    topk = next(arm for arm in found(rows).arms if arm.name == "TopK density=0.1")
    budget = max(run.energy[4] for run in topk.runs) * 1.01
    (one,) = found(rows, asked("accuracy_at_energy", energy_budget=budget)).answers
    assert one.ended_early == 4  # CWMP is at its end before
    assert one.difference.mean == pytest.approx(0.1 + 0.0015)
    table = answers_table.primary(found(rows, asked("accuracy_at_energy", energy_budget=budget)))
    assert any("4 runs ended before the energy was spent" in note for note in table.notes)
    assert table.rows[0][1].startswith("accuracy when ")
    (poor,) = found(rows, asked("accuracy_at_energy", energy_budget=1e-9)).answers
    assert poor.missing == SEEDS


def test_the_worst_client_is_the_least_accuracy_of_the_last_round():
    def told(row):
        worst = 0.2 + 0.01 * row.seed + (0.1 + 0.001 * row.seed) * (row.rule == "CWMP") - 0.01 * row.round
        accuracies = (0.9, worst)
        clients = tuple(
            msgspec.structs.replace(client, accuracy=own) for client, own in zip(row.clients, accuracies, strict=True)
        )
        return msgspec.structs.replace(row, clients=clients)

    (one,) = found([told(row) for row in ROWS], asked("worst_client")).answers
    assert one.difference.mean == pytest.approx(0.1015)
    assert found(questions=asked("worst_client")).answers[0].missing == SEEDS


def worst_of(first, second) -> Answer:
    """CWMP against TopK by the worst client; each side gives accuracies by partition, and more of its row."""

    def told(row):
        accuracies, more = first if row.rule == "CWMP" else second
        if row.round < 6:
            return row
        jitter = 0.001 * row.seed * (row.rule == "CWMP")
        clients = tuple(
            msgspec.structs.replace(row.clients[0], partition=place, accuracy=accuracy + jitter)
            for place, accuracy in accuracies.items()
        )
        return msgspec.structs.replace(row, clients=clients, **more)

    (one,) = found([told(row) for row in ROWS], asked("worst_client")).answers
    return one


def test_a_worst_client_that_takes_no_part_makes_no_arm_look_better():
    both, one = {0: 0.9, 1: 0.5}, {0: 0.9}
    assert worst_of((both, {}), (both, {})).p is not None
    assert worst_of((one, {}), (both, {})).missing == SEEDS  # client 1 is known from earlier rounds
    known = worst_of((one, {"all_clients": AllClients(worst=0.4, tenth=0.45)}), (both, {}))
    assert (known.missing, known.difference.mean) == ((), pytest.approx(-0.1))
    summed = found(questions=asked("worst_client"))
    assert any("those that took no part" in note for note in answers_table.primary(summed).notes)


def test_a_seed_that_a_side_has_not_finished_leaves_the_question_open():
    rows = [row for row in ROWS if not (row.arm == "CWMP density=0.1" and row.seed == 3 and row.round == 6)]
    (one,) = found(rows, asked()).answers
    assert (one.missing, one.seeds, one.p) == ((3,), 3, None)
    assert "no claim: 3 of 4 seeds" in answers_table.verdict(one)


def test_an_arm_that_is_behind_the_others_is_not_compared_at_another_round():
    rows = [row for row in ROWS if not (row.arm == "CWMP density=0.1" and row.round > 4)]
    assert found(rows, asked()).answers[0].missing == SEEDS


def test_runs_that_do_not_reach_the_accuracy_are_counted_and_never_averaged():
    late = {("CWMP density=0.1", 1), ("TopK density=0.1", 1), ("TopK density=0.1", 2)}
    rows = with_accuracy(ROWS, lambda row: 0.1 if (row.arm, row.seed) in late else 0.5)
    (one,) = found(rows, asked("energy_to_accuracy", target_accuracy=0.4)).answers
    assert (one.reached, one.test, one.difference, one.signs) == ((3, 2), "sign", None, (3, 0, 1))


def test_seeds_that_were_not_named_do_not_count():
    (one,) = found(questions=asked(seeds=(0, 1, 3))).answers
    assert one.seeds == 3


def test_two_folders_that_ask_different_things_of_one_study_are_refused():
    with pytest.raises(OutputError, match="name different comparisons beforehand"):
        summary(ROWS, [asked(), asked("worst_client")])
    assert summary(ROWS, [asked(), asked()]) == summary(ROWS, [asked()])


# ---------------------------------------------------------------- choosing


def rated(rows, best: int) -> list[Row]:
    """Each arm twice, with two learning rates; the second is better on seeds from `best` on."""
    made = []
    for row in rows:
        for number, rate in enumerate((0.1, 0.2)):
            gain = 0.01 if (row.seed >= best) == bool(number) else 0.0
            made.append(
                msgspec.structs.replace(
                    row,
                    arm=f"{row.arm} learning_rate={rate}",
                    settings=row.settings | {"learning_rate": rate},
                    server=ServerResult(row.server.accuracy + gain, None),
                )
            )
    return made


def chosen_from(rows) -> Questions:
    names = list(dict.fromkeys(row.arm.partition(" learning_rate")[0] for row in rows))
    groups = tuple(tuple(f"{name} learning_rate={rate}" for rate in (0.1, 0.2)) for name in names)
    sides = {key: next(group for group in groups if group[0].startswith(f"{rule} density=0.1 "))
             for key, rule in (("arms", "CWMP"), ("against", "TopK"))}  # fmt: skip
    return asked(seeds=(0, 1, 2), selection_seeds=(3,), choose=("learning_rate",), groups=groups, sides=sides)


def test_what_is_best_on_the_selection_seeds_is_chosen_and_reported_on_the_others_alone():
    rows = rated(ROWS, best=3)  # 0.2 is better on the selection seed, and worse on all others
    summed = found(rows, chosen_from(rows))
    assert summed.seeds == (0, 1, 2)
    assert all(arm.name.endswith("learning_rate=0.2") for arm in summed.arms)
    assert len(summed.arms) == len(found().arms)
    assert summed.answers[0].arm == "CWMP density=0.1 learning_rate=0.2"
    assert summed.answers[0].seeds == 3
    table = answers_table.chosen(summed)
    assert {cells[1] for cells in table.rows} == {"2 arms"}
    assert "learning_rate, by the best mean final accuracy on seed 3, of" in table.notes[0]
    assert "learning_rate=0.1: " in table.rows[0][3]


def test_an_arm_that_has_not_finished_the_selection_seeds_is_not_chosen():
    rows = rated(ROWS, best=3)
    cut = [
        row
        for row in rows
        if not (row.arm == "CWMP density=0.1 learning_rate=0.2" and row.seed == 3 and row.round == 6)
    ]
    summed = found(cut, chosen_from(rows))
    assert next(one for one in summed.chosen if one.candidates[0].arm.startswith("CWMP density=0.1 ")).arm == (
        "CWMP density=0.1 learning_rate=0.1"
    )
    none = [row for row in rows if not (row.arm.startswith("CWMP density=0.1 ") and row.seed == 3)]
    summed = found(none, chosen_from(rows))
    assert not any(arm.name.startswith("CWMP density=0.1 ") for arm in summed.arms)
    assert summed.answers[0].missing == (0, 1, 2)
    assert any(cells[0] == "none yet" and "not finished" in cells[3] for cells in answers_table.chosen(summed).rows)


def test_an_arm_with_one_lucky_selection_seed_of_two_is_not_chosen():
    rows = rated(ROWS, best=2)  # 0.2 is better on both selection seeds
    questions = msgspec.structs.replace(chosen_from(rows), seeds=(0, 1), selection_seeds=(2, 3))
    cut = [row for row in rows if not (row.arm.endswith("=0.2") and row.seed == 3 and row.round == 6)]
    assert all(one.arm.endswith("=0.2") for one in found(rows, questions).chosen)
    assert all(one.arm.endswith("=0.1") for one in found(cut, questions).chosen)


def test_selection_seeds_alone_make_no_report():
    rows = rated(ROWS, best=3)
    with pytest.raises(OutputError, match="only some to choose arms on; go on with joulewise run --resume"):
        found([row for row in rows if row.seed == 3], chosen_from(rows))


# ---------------------------------------------------------------- hypervolumes and frontiers


def test_the_reference_is_dense_or_the_dearest_arm_and_guessing():
    summed = found()
    dense = next(arm for arm in summed.arms if arm.rule == "Dense")
    assert summed.reference == Reference(energy=dense.energy.mean, arm="Dense", accuracy=0.1)
    without = found([row for row in ROWS if row.rule != "Dense"])
    dearest = max(without.arms, key=lambda arm: arm.energy.mean)
    assert without.reference == Reference(energy=dearest.energy.mean, arm=dearest.name, accuracy=0.1)
    dear = [
        msgspec.structs.replace(row, clients=row.clients * 99) if row.arm == "CWMP density=0.05" else row
        for row in ROWS
    ]
    assert max(found(dear).arms, key=lambda arm: arm.energy.mean).rule == "CWMP"
    assert found(dear).reference == summed.reference
    unknown = [msgspec.structs.replace(row, settings=row.settings | {"data": "Other"}) for row in ROWS]
    assert found(unknown).reference is None
    told = [msgspec.structs.replace(row, settings=row.settings | {"classes": 4}) for row in unknown]
    assert found(told).reference.accuracy == 0.25
    assert statistics_table.hypervolumes(found(unknown)) is None


def test_the_number_of_classes_is_that_of_the_data():
    learning = pytest.importorskip("joulewise.learning")
    assert learning.load(learning.Digits(clients=2, partition=learning.IID())).classes == CLASSES["Digits"]
    assert {kind.__name__: kind.classes for kind in get_args(learning.Data)} == CLASSES


def test_hypervolumes_are_taken_seed_by_seed_over_the_arms_of_a_rule():
    summed = found()
    for volume in summed.volumes:
        arms = [arm for arm in summed.arms if arm.rule == volume.rule]
        assert volume.arms == len(arms) == 2
        grid = np.linspace(0, 1, 401)[:-1] + 1 / 800  # middles of cells
        shares = []
        for seed in range(4):
            cost = np.array([arm.runs[seed].energy[-1] / summed.reference.energy for arm in arms])
            value = np.array([(arm.runs[seed].accuracy[-1] - 0.1) / 0.9 for arm in arms])
            beaten = [(cost[:, None] <= grid) & (level <= value[:, None]) for level in grid]
            shares.append(np.mean([cells.any(axis=0) for cells in beaten]))
        assert volume.share.mean == pytest.approx(np.mean(shares), abs=0.005)
        assert list(by_seed(arms, summed.reference)) == [0, 1, 2, 3]
    assert [one.rule for one in summed.volumes] == ["TopK", "CWMP", "Projection"]
    assert summed.volumes[0].more is None
    assert summed.volumes[1].more.interval.mean == pytest.approx(
        summed.volumes[1].share.mean - summed.volumes[0].share.mean
    )


def test_rules_with_other_numbers_of_arms_are_not_compared_by_hypervolume():
    summed = found([row for row in ROWS if row.arm != "CWMP density=0.05"])
    by_rule = {one.rule: one for one in summed.volumes}
    assert by_rule["CWMP"].more is None
    assert by_rule["Projection"].more is not None


def test_a_primary_hypervolume_is_of_the_arms_that_each_side_picks_out():
    sides = {
        key: tuple(f"{rule} density={d}" for d in (0.05, 0.1)) for key, rule in (("arms", "CWMP"), ("against", "TopK"))
    }
    summed = found(questions=asked("hypervolume", sides=sides))
    (one,) = summed.answers
    assert one.difference == summed.volumes[1].more.interval
    assert (one.arm, one.against) == ("CWMP (2 arms)", "TopK (2 arms)")
    assert hypervolume([], [], 1.0, 0.0) == 0.0


def frontiers(**fields) -> Questions:
    """CWMP against TopK, two arms each; with groups, each arm is one of its own but that of Dense."""
    sides = {
        key: tuple(f"{rule} density={d}" for d in (0.05, 0.1)) for key, rule in (("arms", "CWMP"), ("against", "TopK"))
    }
    return asked("hypervolume", sides=sides, **fields)


ONE_EACH = tuple((name,) for name in dict.fromkeys(row.arm for row in ROWS))


@pytest.mark.parametrize("groups", [(), ONE_EACH])
@pytest.mark.parametrize("arm", ["TopK density=0.05", "CWMP density=0.05"])
@pytest.mark.parametrize("last", [0, 4])
def test_a_side_that_lacks_an_arm_has_no_hypervolume(groups, arm, last):
    """Diverged with every seed, or without a row: the arms that are left have less of the plane."""
    rows = [row for row in ROWS if row.arm != arm or row.round <= last]
    summed = found(rows, frontiers(groups=groups))
    (one,) = summed.answers
    assert (one.missing, one.seeds, one.p, one.lacking) == (SEEDS, 0, None, 1)
    assert (one.arm, one.against) == ("CWMP (2 arms)", "TopK (2 arms)")
    words = answers_table.verdict(one)
    assert words == "no claim: 1 arm is not finished, without which a side has less of the plane"
    both = [row for row in rows if "density=0.05" not in row.arm or row.arm.startswith("Projection")]
    (one,) = found(both, frontiers(groups=groups)).answers
    assert (one.lacking, one.p) == (2, None)
    assert "no claim: 2 arms are not finished" in answers_table.verdict(one)


def test_a_side_has_one_arm_of_each_group_that_is_chosen_from():
    rows = rated(ROWS, best=3)
    questions = chosen_from(rows)
    names = {rule: tuple(name for group in questions.groups for name in group if name.startswith(rule))
             for rule in ("CWMP", "TopK")}  # fmt: skip
    assert [len(side) for side in names.values()] == [4, 4]
    one = Question(name="the claim", measure="hypervolume", arms=names["CWMP"], against=names["TopK"])
    questions = msgspec.structs.replace(questions, primary=(one,))
    (answer,) = found(rows, questions).answers
    assert (answer.lacking, answer.missing, answer.arm) == (0, (), "CWMP (2 arms)")
    assert answer.p is not None
    gone = [row for row in rows if not row.arm.startswith("TopK density=0.05")]
    (answer,) = found(gone, questions).answers
    assert (answer.lacking, answer.missing, answer.p) == (1, (0, 1, 2), None)


def test_a_rule_with_an_unfinished_arm_is_not_compared_by_hypervolume():
    rows = [row for row in ROWS if row.arm != "TopK density=0.05"]  # one arm of TopK
    cut = [row for row in rows if row.arm != "CWMP density=0.05" or row.round < 6]  # two of CWMP, one of them whole
    by_rule = {one.rule: one for one in found(cut).volumes}
    assert (by_rule["CWMP"].arms, by_rule["CWMP"].of, by_rule["CWMP"].more) == (1, 2, None)
    lines = {cells[0]: cells for cells in statistics_table.hypervolumes(found(cut)).rows}
    assert (lines["CWMP"][1], lines["CWMP"][4], lines["TopK"][1]) == ("1 of 2", "–", "1")
    cut = [row for row in ROWS if row.arm not in {"TopK density=0.05", "CWMP density=0.05"} or row.round < 6]
    by_rule = {one.rule: one for one in found(cut).volumes}
    assert {one.more for one in by_rule.values()} == {None}  # of TopK and CWMP one arm is whole, of Projection two
    alone = [row for row in rows if row.arm != "CWMP density=0.05"]
    assert {one.rule: one.more is None for one in found(alone).volumes} == {
        "TopK": True, "CWMP": False, "Projection": True
    }  # fmt: skip
    named = found(alone, frontiers(groups=ONE_EACH))  # an arm of each has no row, and the study knows it
    assert all(one.more is None for one in named.volumes)


@few
@given(
    st.lists(st.lists(st.tuples(st.integers(0, 3), st.integers(0, 3)), min_size=2, max_size=2), min_size=1, max_size=6)
)
def test_the_frontier_of_many_samples_is_that_of_each(arms):
    cost, value = (np.array([[float(point[axis]) for point in arm] for arm in arms]) for axis in (0, 1))
    marks = certainty._unbeaten(cost, value)
    for sample in range(2):
        assert marks[:, sample].astype(bool).tolist() == frontier(cost[:, sample], value[:, sample]).tolist()


def test_shares_of_the_frontier_are_those_of_every_possible_resample():
    summed = found([row for row in ROWS if row.seed < 3])
    arms = [arm for arm in summed.arms if arm.complete]
    energy, accuracy = (
        np.array([[getattr(run, what)[-1] for run in arm.runs] for arm in arms]) for what in ("energy", "accuracy")
    )
    exact = np.zeros(len(arms))
    draws = np.array(np.meshgrid(*[range(3)] * 3)).reshape(3, -1).T
    for draw in draws:
        exact += frontier(energy[:, draw].mean(axis=1), accuracy[:, draw].mean(axis=1)) / len(draws)
    shares = certainty.shares(summed.arms)
    assert shares == certainty.shares(summed.arms)
    five_deviations = 5 * 0.5 / math.sqrt(certainty.RESAMPLES)
    assert [shares[arm.name] for arm in arms] == pytest.approx(exact.tolist(), abs=five_deviations)
    assert 0 < min(exact[exact > 0]) < 1  # some arm is neither on nor off it for sure
    assert certainty.shares(found([row for row in ROWS if row.seed < 2]).arms) == {}


def test_a_page_says_first_how_many_comparisons_show_a_difference_and_which():
    better = with_accuracy(ROWS, lambda row: 0.5 + 0.1 * row.arm.startswith("CWMP") + 0.001 * row.seed * row.round)
    better = with_accuracy(better, lambda row: row.server.accuracy + 0.002 * (row.seed == 1) * (row.rule == "CWMP"))
    told = page_lead.lead(found(better, asked()))
    assert told.startswith("<p>Of 1 comparison named beforehand, 1 shows a difference:</p><ul><li>the claim, final acc")
    assert "CWMP density=0.1 is higher than TopK density=0.1 by 10." in told
    assert "Holm" not in told
    alike = with_accuracy(ROWS, lambda row: 0.5)
    assert page_lead.lead(found(alike, asked())).startswith("<p>Of 1 comparison named beforehand none shows a differ")
    assert "beforehand" not in page_lead.lead(found())


@pytest.mark.parametrize(
    ("change", "shows"), [({}, True), ({"missing": (3,)}, False), ({"lacking": 1}, False), ({"adjusted": 0.06}, False)]
)
def test_only_what_is_claimed_shows_a_difference(change, shows):
    one = msgspec.structs.replace(answered([0.9, 0.8, 0.85], [0.1, 0.12, 0.1]), adjusted=0.01)
    assert answers_table.shown(msgspec.structs.replace(one, **change)) is shows


# ---------------------------------------------------------------- tables


def test_the_table_on_the_way_has_a_line_for_each_arm_and_nothing_for_rounds_that_an_arm_has_not_had():
    rows = [row for row in ROWS if row.round <= 3 or not row.arm.startswith("CWMP density=0.1")]
    summed = found(rows)
    table = tables.progress(summed)
    assert [line[0] for line in table.rows] == [arm.label for arm in summed.arms]
    assert table.columns[1:3] == ("Accuracy, round 2 (%)", "Energy, round 2 (thousand relative units)")
    short = next(line for line in table.rows if line[0] == "CWMP density=0.1")
    assert "–" not in short[1:5]
    assert set(short[5:]) == {"–"}


def test_the_terminal_shows_the_primary_comparisons_and_calls_the_rest_descriptive():
    main, primary = tables.table(ROWS, [asked()])
    assert primary.caption == "quickstart: what it was to find out, named beforehand"
    assert primary.rows[0][0] == "the claim"
    assert any("Descriptive" in note for note in main.notes)
    assert any("Everything else in this report is descriptive" in note for note in primary.notes)


def test_the_table_of_what_is_reached_counts_seeds_and_says_where_the_target_comes_from():
    table = statistics_table.reached(found())
    assert {cells[1].partition(" of ")[2] for cells in table.rows} == {"4"}
    assert any("found afterwards" in note for note in table.notes)
    named = statistics_table.reached(found(questions=asked(target_accuracy=0.99, energy_budget=1e5)))
    assert any("named beforehand" in note for note in named.notes)
    assert named.columns[1] == "Reaches 99 % in"
    assert all(cells[1] == "0 of 4" and cells[2].startswith("over ") for cells in named.rows)
    assert named.columns[3] == "Accuracy at 100 thousand relative units (%)"
    assert all("100,000" not in column for column in named.columns)
