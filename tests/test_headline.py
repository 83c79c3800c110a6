"""The headline: which arms it compares, on which seeds, and which way its ratio goes."""

from __future__ import annotations

import importlib.util
import math
from pathlib import Path

import msgspec
import pytest
from synthetic_rows import study_rows

from joulewise import questions
from joulewise.questions import Questions
from joulewise.results import Row, ServerResult, uplink_energy

SCRIPT = Path(__file__).parents[1] / "benchmarks" / "headline.py"
pytestmark = pytest.mark.skipif(not SCRIPT.exists(), reason="benchmarks/ is not here")
SELECTION, REPORTED = (100, 101), (0, 1, 2)
ASKED = Questions(study="quickstart", seeds=REPORTED, selection_seeds=SELECTION, target_accuracy=0.5)
# The round in which each arm reaches the target, on the selection seeds and on the others; None for never.
REACHED: dict[str, tuple[int | None, int | None]] = {
    "TopK density=0.05": (12, 12),
    "TopK density=0.1": (3, 9),  # cheapest on the selection seeds
    "CWMP density=0.05": (None, 3),
    "CWMP density=0.1": (7, 7),
    "Projection density=0.05": (4, 5),  # the same of the other side
    "Projection density=0.1": (12, 12),
    "Dense": (3, 3),
}


@pytest.fixture(scope="module")
def headline():
    spec = importlib.util.spec_from_file_location("headline", SCRIPT)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def rows() -> tuple[Row, ...]:
    made = study_rows(densities=(0.05, 0.1), seeds=SELECTION + REPORTED, rounds=12, clients=2)
    return tuple(with_accuracy(row) for row in made)


def with_accuracy(row: Row) -> Row:
    reached = REACHED[row.arm][row.seed not in SELECTION]
    # Three in a row from here on have the mean: the last of the first three is the round that pays.
    high = reached is not None and row.round >= reached - 2
    settings = row.settings | {"devices": "4 phones"}
    return msgspec.structs.replace(row, server=ServerResult(0.6 if high else 0.2, None), settings=settings)


def spent(arm: str, seed: int, rounds: int) -> float:
    return math.fsum(uplink_energy(row) for row in rows() if (row.arm, row.seed) == (arm, seed) and row.round <= rounds)


def test_each_side_is_chosen_on_the_selection_seeds_alone(headline):
    runs = headline.runs_of(rows())["4 phones"]
    assert headline.cheapest(runs, headline.BASE, ASKED) == "TopK density=0.1"
    assert headline.cheapest(runs, headline.OURS, ASKED) == "Projection density=0.05"


def test_an_arm_without_the_seeds_to_report_on_is_not_chosen(headline):
    left = [row for row in rows() if row.arm != "TopK density=0.1" or row.seed in SELECTION]
    assert headline.cheapest(headline.runs_of(left)["4 phones"], headline.BASE, ASKED) == "TopK density=0.05"


def test_the_ratio_is_of_topk_over_the_other_on_the_other_seeds(headline):
    runs = headline.runs_of(rows())["4 phones"]
    logs = [
        math.log(spent("TopK density=0.1", seed, 9) / spent("Projection density=0.05", seed, 5)) for seed in REPORTED
    ]
    text = headline.ratio(runs, "Projection density=0.05", "TopK density=0.1", ASKED, uplink_energy)
    assert text.startswith(f"{math.exp(math.fsum(logs) / 3):.2f} (")
    assert text.endswith("reached by 3 and 3 of 3 seeds")


def test_a_seed_that_does_not_arrive_makes_it_a_sign_test(headline):
    runs = headline.runs_of(rows())["4 phones"]
    runs["TopK density=0.1"][2] = [with_accuracy(row) for row in runs["CWMP density=0.05"][SELECTION[0]]]
    text = headline.ratio(runs, "Projection density=0.05", "TopK density=0.1", ASKED, uplink_energy)
    assert "reached by 2 and 3 of 3 seeds; sign test p = " in text


def test_a_folder_whose_study_named_nothing_is_refused(headline, tmp_path, monkeypatch):
    monkeypatch.setattr("sys.argv", ["headline.py", str(tmp_path)])
    with pytest.raises(SystemExit, match="named no target_accuracy or no selection_seeds beforehand"):
        headline.main()
    (tmp_path / questions.FILE_NAME).write_bytes(questions.text(msgspec.structs.replace(ASKED, selection_seeds=())))
    with pytest.raises(SystemExit, match="named no target_accuracy"):
        headline.main()
