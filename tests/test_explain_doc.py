"""The page about `explain` says what the code says."""

import importlib.util
import re
from pathlib import Path

import pytest

from joulewise.modelfile import load_layout

DOCS = Path(__file__).parents[1] / "docs"


@pytest.fixture(scope="module")
def script():
    spec = importlib.util.spec_from_file_location("explain_profiles", DOCS / "explain_profiles.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def page():
    return (DOCS / "explain.md").read_text(encoding="utf-8")


def test_the_table_of_every_shipped_profile_is_what_the_script_makes(script, page):
    assert page.partition(script.BEGIN)[2].partition(script.END)[0] == script.table(), "run docs/explain_profiles.py"


@pytest.fixture(scope="module")
def found(script):
    return [(model, one) for model, one in script.explanations()]


def test_table_figure_and_verdict_do_not_contradict_each_other(script, found):
    spreads, rounds = list(script.prices()), list(script.rounds())
    assert len(spreads) == len(found) == 3 * len(script.jw.list_devices())
    for (model, one), bar in zip(found, spreads, strict=True):
        assert (bar["profile"], bar["model"], bar["saving"]) == (one.device, model, one.verdict.saving)
        assert bar["high"] / bar["low"] == pytest.approx(one.price_ratio)
        assert bar["dearest"] / bar["cheapest"] == pytest.approx(one.contrast)
        # A saving needs prices that differ, and they are seen to differ.
        assert one.verdict.saving <= 1 - bar["cheapest"] / bar["dearest"] + 1e-9
        hidden = one.verdict.answer != "does not matter" and one.verdict.saving > 1 - bar["low"] / bar["high"]
        assert ("The saving comes from the" in one.verdict.text) == hidden
        parts = {
            each["part"]: each["share"] for each in rounds if (each["profile"], each["model"]) == (one.device, model)
        }
        if one.addressable is not None:
            assert sum(parts.values()) == pytest.approx(1)
            assert parts["what a mask touches"] == pytest.approx(one.addressable)


def test_savings_that_the_price_ratio_hides_are_told_with_the_few_that_make_them(found):
    hidden = {(one.device, model) for model, one in found if "The saving comes from the" in one.verdict.text}
    assert {("synthetic-kind-10", "cnn"), ("synthetic-residency-32", "cnn")} <= hidden
    assert all(one.price_ratio == 1 < one.contrast for model, one in found if (one.device, model) in hidden)


def test_the_figure_names_every_shipped_profile(script):
    drawn = (DOCS / "explain.svg").read_text(encoding="utf-8")
    assert all(name in drawn for name in script.jw.list_devices()), "run docs/explain_profiles.py"
    assert all(part in drawn for part in (*script.PARTS, *script.models())), "run docs/explain_profiles.py"


def test_the_next_word_model_is_mostly_an_embedding(script, page):
    layout = script.models()["next-word"]
    share = max(tensor.size for tensor in layout.tensors if tensor.kind == "embedding") / layout.n
    assert f"({100 * share:.0f} % of its parameters)" in page


def test_the_snippet_records_an_update_of_the_model_that_the_page_explains(page, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    code = re.search(r"```python\n(.*?)```", page, re.DOTALL)[1]
    exec(compile(code, "explain.md", "exec"), {})  # our own page
    from joulewise.modelfile import Images, load_update  # noqa: PLC0415 (after the snippet has run)

    layout = load_layout("cnn", Images(1, 8, 8))
    assert load_update("update.npz", layout).shape == (layout.n,)
