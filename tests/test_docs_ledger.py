"""docs/ledger.md: its example prints what the page says, and its tables name what the code names."""

import contextlib
import io
import re
from pathlib import Path

from joulewise.costs import TERMS as PRICE_TERMS
from joulewise.ledger import TERMS

PAGE = (Path(__file__).parents[1] / "docs" / "ledger.md").read_text(encoding="utf-8")


def test_the_example_prints_what_the_page_says():
    code, expected = (re.search(rf"```{kind}\n(.*?)```", PAGE, re.DOTALL)[1] for kind in ("python", "text"))
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed):
        exec(compile(code, "docs/ledger.md", "exec"), {})  # the page's own code
    assert printed.getvalue() == expected


def test_every_term_of_a_device_and_every_charge_is_explained():
    for term in {*PRICE_TERMS, *TERMS} - {"synthetic", "given"}:
        assert f"`{term}`" in PAGE, term
