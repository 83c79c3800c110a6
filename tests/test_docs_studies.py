"""docs/studies.md: its study loads, and it explains every measure, every choice and every number that it states."""

import re
from math import comb
from pathlib import Path
from typing import get_args

from joulewise.analysis import MOST_PRIMARY
from joulewise.certainty import RESAMPLES
from joulewise.pareto import SEEDS_FOR_A_CLAIM
from joulewise.questions import EVALUATIONS, Measure, Setting
from joulewise.significance import SIGNIFICANCE, sign_test
from joulewise.study import load, questions_of
from joulewise.summary import TARGET_SHARE

PAGE = (Path(__file__).parents[1] / "docs" / "studies.md").read_text(encoding="utf-8")


def test_the_study_loads_and_means_what_the_page_says(tmp_path):
    (tmp_path / "named.toml").write_text(re.search(r"```toml\n(.*?)```", PAGE, re.DOTALL)[1], encoding="utf-8")
    found = questions_of(load(tmp_path / "named.toml"))
    assert {len(group) for group in found.groups} == {3}
    assert [len(one.arms) for one in found.primary] == [3, 6]


def test_every_measure_and_every_choice_is_explained():
    for measure in get_args(Measure):
        assert f"| `{measure}` |" in PAGE, measure
    for setting in get_args(Setting):
        assert f"`{setting}`" in PAGE, setting


def test_the_numbers_are_those_of_the_code():
    assert (EVALUATIONS, SEEDS_FOR_A_CLAIM, MOST_PRIMARY) == (3, 3, 4)
    assert "three rounds in a row" in PAGE
    assert "fewer than three seeds" in PAGE
    assert "at most four" in PAGE
    assert f"{RESAMPLES:,} paired bootstrap samples" in PAGE
    assert f"at most {100 * SIGNIFICANCE:g} %" in PAGE
    assert f"{100 * TARGET_SHARE:g} % of the best arm's mean over the last three rounds" in PAGE
    assert sign_test(5, 0) > SIGNIFICANCE >= sign_test(6, 0)
    assert sign_test(6, 1) > SIGNIFICANCE
    assert comb(2 * 3 - 1, 3) == 10
