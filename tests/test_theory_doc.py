"""docs/theory.md names tests that are there, and its tables keep what they promise."""

import re
from pathlib import Path

import joulewise.theory

TESTS = Path(__file__).parent
PAGE = (TESTS.parent / "docs/theory.md").read_text(encoding="utf-8")


def named() -> list[tuple[str, str]]:
    """Files and tests that the page names; ``::name`` is of the file named last."""
    found, last = [], ""
    for file, name in re.findall(r"`(test_\w+\.py)?(?:::(test_\w+))?`", PAGE):
        last = file or last
        if file or name:
            found.append((last, name))
    return found


def test_every_test_that_a_statement_names_is_there():
    assert len(named()) > 30
    for file, name in named():
        text = (TESTS / file).read_text(encoding="utf-8")
        assert not name or f"def {name}(" in text, f"{file}::{name}"


def test_every_section_with_a_statement_names_a_test():
    sections = re.split(r"^## ", PAGE, flags=re.MULTILINE)[1:]
    stated = [each for each in sections if "**Statement" in each or "**Conservation.**" in each]
    assert len(stated) == 9
    assert all("*Tests:*" in each for each in stated)


def rows(after: str) -> list[list[float]]:
    """Numbers of the table after a line: density, then errors in percent."""
    part = PAGE.split(f"\n{after}\n\n", 1)[1].split("\n\n", 1)[0]
    cells = [line.strip("| ").split(" | ") for line in part.splitlines()[2:]]
    return [[float(each.removesuffix(" %")) for each in row[1:]] for row in cells]


def test_the_tables_of_predictions_keep_their_promise():
    for model in ("CNN:", "ResNet-18:"):
        table = rows(model)
        assert len(table) == 18
        for density, *errors in table:
            assert max(map(abs, errors[:4])) <= 5
            if density >= 5:
                assert abs(errors[4]) <= 5
                assert max(abs(errors[5]), abs(errors[7])) <= 10


def test_what_the_page_calls_by_name_is_offered():
    for name in re.findall(r"`theory\.(\w+)`", PAGE):
        assert name in joulewise.theory.__all__
