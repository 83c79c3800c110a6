"""Short names of arms: what all share is left out, what tells lines apart is kept, and no two are alike."""

from pathlib import Path

import msgspec
import pytest
from synthetic_rows import study_rows

from joulewise import naming, page, rowfile, tables
from joulewise.naming import Labelled, Naming
from joulewise.summary import summary

RESULTS = Path(__file__).parents[1] / "results"


def arm(rule, allocation, devices, budget="density=0.01", **more):
    settings = {"rule": rule, "budget": "density", "amount": 0.01, "feedback": True}
    settings |= {"strategy": f"FedAvg allocation={allocation}", "devices": devices} | more
    name = f"{rule} {budget} strategy=FedAvg allocation={allocation} devices={devices}"
    return Labelled(name=name, rule=rule, budget=budget, settings=settings)


def test_an_allocation_tells_lines_apart_and_what_all_share_is_left_out_of_it_too():
    found, shared = naming.names(
        [
            arm("CWMP", "EqualCount(share=0.01)", "5 near, 5 far"),
            arm("CWMP", "OnePrice(share=0.01, control=ascent)", "5 near, 5 far"),
            arm("Projection", "OnePrice(share=0.01, least_share=0.5)", "5 near, 5 farther"),
        ]
    )
    assert found == (
        Naming(label="CWMP EqualCount 5 far", series="CWMP EqualCount", group=("5 far",)),
        Naming(label="CWMP OnePrice control=ascent 5 far", series="CWMP OnePrice control=ascent", group=("5 far",)),
        Naming(
            label="Projection OnePrice least_share=0.5 5 farther",
            series="Projection OnePrice least_share=0.5",
            group=("5 farther",),
        ),
    )
    assert shared == ("density=0.01", "FedAvg", "share=0.01", "5 near")


def test_lines_are_told_apart_by_what_has_most_values_where_rules_and_allocations_are_one():
    named = [
        (amount, values, Labelled(name=f"TopK joules={amount} values={values}", rule="TopK", budget=f"joules={amount}",
                                  settings={"rule": "TopK", "values": values}))
        for amount in (1, 2) for values in ("int8", "float32", "ternary")
    ]  # fmt: skip
    found, _ = naming.names([one for *_, one in named])
    assert [(each.series, each.group) for each in found] == [
        (f"TopK values={values}", (f"joules={amount}",)) for amount, values, _ in named
    ]
    dense = Labelled(name="Dense values=float32", rule="Dense", budget="", settings={"values": "float32"})
    found, _ = naming.names([*(one for *_, one in named), dense])
    assert {each.series for each in found} == {"TopK", "Dense"}


def test_a_device_in_a_file_is_called_by_the_file_and_two_files_of_one_name_by_their_paths():
    files = ["mine/boards/a.toml", "b.toml, 2 near"]
    found, _ = naming.names([arm("CWMP", "EqualCount(share=0.01)", f"5 {file}") for file in files])
    assert [each.label for each in found] == ["CWMP 5 a", "CWMP 5 b 2 near"]
    found, _ = naming.names([arm("CWMP", "EqualCount(share=0.01)", f"5 {folder}/a.toml") for folder in ("x", "y")])
    assert len({each.label for each in found}) == 2


def test_an_arm_without_a_budget_says_nothing_against_the_budget_that_all_others_share():
    rows = study_rows(densities=(0.1,), seeds=(0,), rounds=1, clients=1)
    (found,) = summary(rows)
    assert [one.label for one in found.arms] == ["Dense", "TopK", "CWMP", "Projection"]
    assert found.shared == ("density=0.1",)
    assert tables.tabulate(found).notes[0] == "Every arm has: density=0.1."


@pytest.mark.parametrize("name", ["mine", "TopK of mine", "TopK density=0.1 and more"])
def test_a_name_that_a_user_chose_stays_as_it_is(name):
    mine = Labelled(name=name, rule="TopK", budget="density=0.1", settings={"rule": "TopK"})
    other = Labelled(name="CWMP density=0.1", rule="CWMP", budget="density=0.1", settings={"rule": "CWMP"})
    found, shared = naming.names([mine, other])
    assert [one.label for one in found] == [name, "CWMP"]
    assert shared == ("density=0.1",)


def test_names_that_would_be_alike_are_all_left_as_they_are():
    chosen = Labelled(name="CWMP", rule="CWMP", budget="density=0.2", settings={})
    other = Labelled(name="CWMP density=0.1", rule="CWMP", budget="density=0.1", settings={"rule": "CWMP"})
    found, shared = naming.names([chosen, other])
    assert [one.label for one in found] == ["CWMP", "CWMP density=0.1"]
    assert shared == ()


@pytest.mark.parametrize("folder", ["quickstart", "digits-rules", "fleet-digits", "cifar10-rules"])
def test_names_of_committed_results_are_understood_short_and_unique(folder):
    first = {row.arm: row for row in rowfile.read(RESULTS / folder)}
    arms = [Labelled(name=one.arm, rule=one.rule, budget=one.budget, settings=one.settings) for one in first.values()]
    found, _ = naming.names(arms)
    labels = [one.label for one in found]
    assert len(set(labels)) == len(labels)
    assert max(map(len, labels)) <= 60
    assert all(one.series.split()[0] == each.rule for one, each in zip(found, arms, strict=True))


def test_panels_are_grouped_by_what_is_no_line_and_dense_is_in_each_that_it_fits():
    rows = study_rows(densities=(0.05, 0.1), seeds=(0,), rounds=1, clients=1)
    with_feedback = [
        msgspec.structs.replace(
            row,
            arm=f"{row.arm} {word}",
            settings=row.settings | {"feedback": truth},
        )
        for row in rows
        for truth, word in ((True, "feedback"), (False, "no feedback"))
        if truth is False or row.rule != "Dense"
    ]
    (found,) = summary(with_feedback)
    assert [(panel.label, [one.series for one in panel.arms]) for panel in page.panels(found)] == [
        ("density=0.05, feedback", ["TopK", "CWMP", "Projection"]),
        ("density=0.05, no feedback", ["Dense", "TopK", "CWMP", "Projection"]),
        ("density=0.1, feedback", ["TopK", "CWMP", "Projection"]),
        ("density=0.1, no feedback", ["Dense", "TopK", "CWMP", "Projection"]),
    ]
