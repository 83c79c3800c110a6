"""What a study file names beforehand: which arms it means, and what each mistake in it says."""

# ruff: noqa: E501 (messages stand as a user reads them)

import dataclasses
import json

import msgspec
import pytest
from fake_federation import federate

from joulewise import questions, rowfile
from joulewise.choices import Choice
from joulewise.errors import FederationError, OutputError, StudyError
from joulewise.results import Row
from joulewise.rules import CWMP, Density
from joulewise.runs import rounds_of, run
from joulewise.study import Study, expand, load, questions_of

STUDY = """
name = "small"
rounds = 4
seeds = [0, 1]
model = "mlp"
data = { name = "digits", clients = 2, partition = "IID" }
fleet = { devices = "synthetic-kind-10" }
[grid]
rule = ["Dense", "TopK", "CWMP"]
density = [0.1, 0.2]
"""
PRIMARY = """
[[analysis.primary]]
name = "at 10 %"
arm = { rule = "CWMP", density = 0.1 }
against = { rule = "TopK", density = 0.1 }
"""
TUNED = """
learning_rate = [0.1, 0.05]
feedback = [false, true]
[analysis]
selection_seeds = [100, 101]
"""


@pytest.fixture
def read(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)

    def _read(text: str) -> Study:
        (tmp_path / "x.toml").write_text(text, encoding="utf-8")
        return load("x.toml")

    return _read


def test_a_study_without_analysis_names_nothing(read):
    study = read(STUDY)
    assert study.analysis is None
    assert questions_of(study) is None
    assert study.every_seed == (0, 1)


def test_sides_are_written_as_arms_are_and_named_as_arms_are(read):
    study = read(STUDY + "[analysis]\ntarget_accuracy = 0.5\nenergy_budget = 2.0e6\n" + PRIMARY)
    assert study.analysis.primary[0].arm == Choice(rule=CWMP(), budget=Density(0.1))
    found = questions_of(study)
    assert (found.study, found.seeds, found.target_accuracy, found.energy_budget) == ("small", (0, 1), 0.5, 2.0e6)
    assert found.primary == (
        questions.Question(
            name="at 10 %", arms=("CWMP density=0.1",), against=("TopK density=0.1",), measure="accuracy"
        ),
    )


def test_the_canonical_json_holds_the_analysis(read, tmp_path):
    study = read(STUDY + PRIMARY)
    (tmp_path / "study.json").write_bytes(msgspec.json.encode(study))
    assert load("study.json") == study


def test_a_hypervolume_is_of_every_arm_that_a_side_picks_out(read):
    text = PRIMARY.replace(", density = 0.1", "") + 'measure = "hypervolume"\n'
    (found,) = questions_of(read(STUDY + text)).primary
    assert found.arms == ("CWMP density=0.1", "CWMP density=0.2")
    assert found.against == ("TopK density=0.1", "TopK density=0.2")


def test_arms_that_differ_in_what_is_chosen_are_one_group_and_dense_needs_no_feedback(read):
    found = questions_of(read(STUDY + TUNED + PRIMARY))
    assert sorted(len(group) for group in found.groups) == [2, 4, 4, 4, 4]
    assert found.primary[0].arms == next(group for group in found.groups if group[0].startswith("CWMP density=0.1"))
    assert all("learning_rate" in name for group in found.groups for name in group)


def test_every_setting_that_sets_arms_apart_picks_out_its_own(read):
    apart = {
        "feedback": ("false", "true"),
        "values": ('"float32"', '"float16"'),
        "learning_rate": ("0.1", "0.3"),
        "local_epochs": ("1", "2"),
        "strategy": ('"FedAvg"', '"FedAdam"'),
        "partition": ('"IID"', '{ name = "Dirichlet", alpha = 9.0 }'),
    }
    for setting, values in apart.items():
        grid = f'[grid]\nrule = ["TopK"]\ndensity = 0.1\n{setting} = [{", ".join(values)}]\n'
        one = "[[analysis.primary]]\nname = 'x'\n"
        sides = "".join(
            f"{key} = {{ {setting} = {value} }}\n" for key, value in zip(("arm", "against"), values, strict=True)
        )
        (found,) = questions_of(read(STUDY.partition("[grid]")[0] + grid + one + sides)).primary
        assert len(found.arms) == len(found.against) == 1, setting
        assert found.arms != found.against


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("[analysis]" + "".join(PRIMARY.replace("at 10 %", f"{number}") for number in range(5)),
         "5 comparisons are primary, expected at most 4; leave the others out"),
        (PRIMARY + PRIMARY, "two primary comparisons are called 'at 10 %', expected a name for each"),
        (PRIMARY + 'measure = "energy_to_accuracy"', "measure = 'energy_to_accuracy' of 'at 10 %' needs target_accuracy; add for example target_accuracy = 0.45"),
        (PRIMARY + 'measure = "bytes_to_accuracy"', "needs target_accuracy"),
        (PRIMARY + 'measure = "accuracy_at_energy"', "needs energy_budget; add for example energy_budget = 2.0e6"),
        (PRIMARY + 'measure = "speed"', "invalid value 'speed' - at $.analysis.primary[0].measure; expected one of: accuracy"),
        (PRIMARY.replace('"TopK"', '"Projection"'), "analysis.primary 'at 10 %': against picks out no arm; the study's arms are Dense, TopK density=0.1"),
        (PRIMARY.replace('"CWMP", density = 0.1', '"CWMP"'), "arm picks out 2 arms, expected one: CWMP density=0.1, CWMP density=0.2; add settings"),
        (PRIMARY.replace('"CWMP"', '"TopK"'), "compares TopK density=0.1 with itself; change its arm or its against"),
        (PRIMARY.replace('"CWMP", density = 0.1', '"CWMP"') + 'measure = "hypervolume"', "compares the hypervolume of 2 arms with that of 1: more arms have more of it"),
        (PRIMARY.replace("density = 0.1 }\nagainst", "densty = 0.1 }\nagainst"), "unknown key `densty` - at $.analysis.primary[0].arm; did you mean density?"),
        (PRIMARY.replace("density = 0.1 }\nagainst", "density = 0.1, joules = 5 }\nagainst"), "analysis.primary[0].arm has two budgets, density and joules"),
        ("[analysis]\nselection_seeds = [1, 2]", "seed 1 is in seeds and in analysis.selection_seeds, expected others"),
        ("[analysis]\nselection_seeds = [7, 7]", "analysis.selection_seeds lists 7 twice, expected each seed once"),
        ("[analysis]\ntarget_accuracy = 45", "$.analysis.target_accuracy"),
        ('[analysis]\nchoose = ["rule"]', "invalid value 'rule'"),
        ('[[arms]]\nrule = "CWMP"\ndensity = 0.1\nlearning_rate = 0.5\n[analysis]\nselection_seeds = [7]',
         "chooses learning_rate, feedback of TopK density=0.1 learning_rate=0.1 among 1, of CWMP density=0.1 learning_rate=0.1 among 2 alternatives; give every rule equally many"),
        (TUNED + PRIMARY.replace("density = 0.1 }\nagainst", "density = 0.1, learning_rate = 0.1 }\nagainst"),
         "but one of CWMP density=0.1 no feedback learning_rate=0.1,"),
    ],
)  # fmt: skip
def test_a_mistake_is_found_before_the_run_and_named(text, expected, read):
    with pytest.raises(StudyError) as caught:
        read(STUDY + text)
    assert expected in str(caught.value), str(caught.value)
    assert str(caught.value).startswith("x.toml: ")


def test_a_study_too_short_to_reach_an_accuracy_is_refused(read):
    text = STUDY.replace("rounds = 4", "rounds = 2") + "[analysis]\ntarget_accuracy = 0.5\n" + PRIMARY
    read(text)
    with pytest.raises(StudyError, match=r"looks at 3 rounds in a row, but rounds = 2; give the study more rounds"):
        read(text + 'measure = "bytes_to_accuracy"')


# ---------------------------------------------------------------- running


def test_every_arm_runs_with_the_selection_seeds_first_and_the_questions_are_there_before_the_first_row(read, tmp_path):
    study = read(STUDY + "[analysis]\nselection_seeds = [100]\n" + PRIMARY)
    rows = run(study, tmp_path / "out", federate=federate)
    first: Row = next(rows)
    assert questions.read(tmp_path / "out") == questions_of(study)
    found = [first, *rows]
    assert [row.seed for row in found[::20]] == [100, 0, 1]
    assert len(found) == rounds_of(study) == 3 * 5 * 4
    assert len(rowfile.read(tmp_path / "out")) == len(found)


CHOSEN = STUDY + TUNED


@pytest.fixture
def rates(monkeypatch):
    """Federations whose accuracy is their learning rate, higher on seeds to report on where it is low."""
    made = []

    def federate_at(arm, seed, **rest):
        made.append((arm.name, seed))
        rate = arm.training.learning_rate
        for outcome in federate(arm, seed, **rest):
            server = msgspec.structs.replace(outcome.server, accuracy=rate if seed >= 100 else 1 - rate)
            yield dataclasses.replace(outcome, server=server)

    return made, federate_at


def test_only_chosen_arms_run_with_the_seeds_to_report_on(read, tmp_path, rates):
    made, federate_at = rates
    study = read(CHOSEN)
    found = list(run(study, tmp_path / "out", federate=federate_at))
    asked = questions_of(study)
    best = {max(group, key=lambda name: float(name.rpartition("learning_rate=")[2])) for group in asked.groups}
    assert {arm for arm, seed in made if seed in asked.selection_seeds} == {
        arm for each in asked.groups for arm in each
    }
    assert {arm for arm, seed in made if seed in asked.seeds} == best
    assert len(best) < len(expand(study))
    assert len(found) == rounds_of(study) == len(made) * 4
    made.clear()
    assert len(list(run(study, tmp_path / "out", federate=federate_at))) == len(found)
    assert made == []


@pytest.mark.parametrize("rows", [3, 30, 61])
def test_a_run_that_chooses_goes_on_to_the_same_rows(read, tmp_path, rates, rows):
    _, federate_at = rates
    study = read(CHOSEN)
    whole = list(run(study, tmp_path / "whole", federate=federate_at))
    assert rows < len(whole)
    part = run(study, tmp_path / "part", federate=federate_at)
    for _ in range(rows):
        next(part)
    part.close()
    with pytest.raises(
        OutputError, match=rf"part holds {rows} of {len(whole)} rows of this study; go on with --resume"
    ):
        next(run(study, tmp_path / "part", federate=federate_at))
    found = list(run(study, tmp_path / "part", federate=federate_at, resume=True))

    def key(row):
        return row.arm, row.seed, row.round

    assert [key(row) for row in found] == [key(row) for row in whole]
    assert [key(row) for row in rowfile.read(tmp_path / "part")] == [key(row) for row in whole]


@pytest.mark.parametrize("jobs", [1, 2])
def test_an_alternative_that_diverges_is_not_chosen_and_the_others_go_on(read, tmp_path, jobs, monkeypatch):
    monkeypatch.setenv("FAKE_FEDERATION", json.dumps({"diverge_rate": 0.1}))
    study = read(CHOSEN)
    rows = []
    with pytest.raises(FederationError, match="18 of 46 runs diverged, first Dense"):
        rows.extend(run(study, tmp_path / "out", federate=federate, jobs=jobs))
    found = rowfile.read(tmp_path / "out")
    reported = [row for row in found if row.seed in study.seeds]
    assert {row.settings["learning_rate"] for row in reported} == {0.05}
    assert len({row.arm for row in reported}) == len(questions_of(study).groups)


def test_what_is_named_afterwards_is_not_beforehand(read, tmp_path):
    list(run(read(STUDY), tmp_path / "out", federate=federate))
    assert not (tmp_path / "out" / questions.FILE_NAME).exists()
    with pytest.raises(OutputError, match="holds another study: its analysis"):
        next(run(read(STUDY + PRIMARY), tmp_path / "out", federate=federate, resume=True))


def test_a_lost_file_of_questions_is_written_again_and_a_damaged_one_is_named(read, tmp_path):
    study = read(STUDY + PRIMARY)
    list(run(study, tmp_path / "out", federate=federate))
    path = tmp_path / "out" / questions.FILE_NAME
    before = path.read_bytes()
    path.write_text("{}")
    with pytest.raises(OutputError, match=r"analysis\.json cannot be read .*--resume and the study's file writes it"):
        questions.read(tmp_path / "out")
    list(run(study, tmp_path / "out", federate=federate, resume=True))
    assert path.read_bytes() == before
