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


def test_the_figure_names_every_shipped_profile(script):
    drawn = (DOCS / "explain.svg").read_text(encoding="utf-8")
    assert all(name in drawn for name in script.jw.list_devices()), "run docs/explain_profiles.py"


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
