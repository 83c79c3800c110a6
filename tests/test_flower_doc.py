"""docs/flower.md on one budget for a fleet: its lines run, and what it names is there."""

import re
from pathlib import Path

import msgspec
import pytest
from flwr.serverapp.strategy import FedAvg

from joulewise import flower
from joulewise.curves import POINTS
from joulewise.fleet import Allocation, EqualCount, EqualJoules, OnePrice
from joulewise.flower.choice import StrategyChoice
from joulewise.flower.orders import Order
from joulewise.results import ClientResult
from joulewise.rules import Joules

PAGE = (Path(__file__).parents[1] / "docs/flower.md").read_text(encoding="utf-8")
SECTION = PAGE.partition("## One budget for the whole fleet\n")[2].partition("\n## ")[0]


def block(language):
    return re.search(rf"```{language}\n(.*?)```", SECTION, re.DOTALL)[1]


def test_a_user_needs_two_lines():
    lines = [line for line in block("python").splitlines() if line]
    assert len(lines) == 2
    made = {"FedAvg": FedAvg}
    exec(block("python"), made)  # the page's own lines
    assert made["strategy"]._allocation == OnePrice(share=0.01)


@pytest.mark.parametrize("kind", [EqualCount, EqualJoules, OnePrice])
def test_every_allocation_is_exported_and_has_a_row(kind):
    assert getattr(flower, kind.__name__) is kind
    assert kind.__name__ in flower.__all__
    assert f"| `{kind.__name__}(" in SECTION


def test_every_allocation_of_the_page_can_be_made():
    made = [eval(call, vars(flower)) for call in re.findall(r"`((?:OnePrice|Equal\w+)\([^`]*\))`", SECTION)]
    assert {type(each) for each in made} == {EqualCount, EqualJoules, OnePrice}
    assert len(made) >= 6
    assert OnePrice(share=0.01, least_share=0.2).least_share == 0.2
    assert "`least_share=0.2`" in SECTION


def test_the_form_of_a_study_is_read():
    (table,) = msgspec.toml.decode(block("toml")).values()
    choice = msgspec.convert(table, StrategyChoice)
    assert choice.allocation == OnePrice(share=0.01)
    assert isinstance(choice.allocation, Allocation)


def test_sizes_and_fields_are_those_of_the_code():
    assert f"at most {POINTS} points, {8 * POINTS} bytes" in SECTION
    assert 50 < len(Order(Joules(0.000512348128617609), 123.456789, POINTS).text()) < 150  # "about 100 bytes"
    assert all(f"`{name}`" in SECTION and name in ClientResult.__struct_fields__ for name in ("allowed", "price"))
