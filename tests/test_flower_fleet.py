"""A real deployment divides one budget of joules among nodes whose links differ, and its rows say so."""

import math
import re
import shlex
import sys
import time
from pathlib import Path

import deployment
import pytest

from joulewise import rowfile
from joulewise.charges import MASK_TERMS, UPLINK_TERMS, total
from joulewise.devices import load_device
from joulewise.layout import Layout
from joulewise.prices import price

APP = Path(__file__).parent / "durable_app"
sys.path.insert(0, str(APP))

from durable.sums import zeros  # noqa: E402 (the app's own numbers)

pytestmark = [
    pytest.mark.deployment,
    pytest.mark.skipif(deployment.missing() is not None, reason=str(deployment.missing())),
]

ROUNDS, SHARE, LEAST = 3, 0.1, 0.2
DEAR, CHEAPER, CHEAPEST = 0, 1, 2
"""The README's SuperNodes: LTE, 5G and Ethernet."""
LAYOUT = Layout.of(zeros())
OWN = int(SHARE * LAYOUT.n)
"""Coordinates that the app's nodes keep by themselves: the density at which they are priced."""


@pytest.fixture(scope="module")
def rows(tmp_path_factory):
    """What the server wrote of each round."""
    folder = tmp_path_factory.mktemp("fleet")
    notes = folder / "notes"
    notes.mkdir()
    began = time.monotonic()
    with deployment.deployment(folder) as box:
        settings = f'folder="{notes}" num-server-rounds={ROUNDS} breakdown-round=0 allocation-share={SHARE}'
        deployment.run_app(box, APP, "run", settings)
        assert "is left out" not in box.logs(100_000)
    print(f"{time.monotonic() - began:.0f} s")  # noqa: T201 (pytest shows it beside an error)
    assert box.alive() == []
    return rowfile.read(notes / "rows")


def spent(client):
    return total(charge for charge in client.charges if charge.term in MASK_TERMS)


def kept(client):
    return sum(client.kept_by_tensor)


def budget():
    """A share of what it costs that all three send everything, by the prices of their own density."""
    nodes = [shlex.split(command) for command in deployment.readme_commands("flower-supernode")]
    configs = [words[words.index("--node-config") + 1] for words in nodes]
    names = [re.search(r'joulewise.device="([^"]+)"', config)[1] for config in configs]
    costs = [price(LAYOUT, load_device(name), density=OWN / LAYOUT.n) for name in names]
    return SHARE * sum(float(each.per_kept @ LAYOUT.sizes) for each in costs)


def test_every_node_is_in_every_round_of_one_arm(rows):
    assert [row.round for row in rows] == list(range(1, ROUNDS + 1))
    assert all([client.partition for client in row.clients] == [DEAR, CHEAPER, CHEAPEST] for row in rows)
    assert {row.arm for row in rows} == {f"CWMP OnePrice(share={SHARE}, least_share={LEAST})"}


def test_the_first_round_asks_for_a_density_and_the_others_for_joules(rows):
    assert [[client.allowed is None for client in row.clients] for row in rows] == [[True] * 3] + [[False] * 3] * 2
    assert [kept(client) for client in rows[0].clients] == [OWN] * 3


def test_the_budget_is_held_and_used_once_the_fleet_is_known(rows):
    for row in rows[1:]:
        masks = math.fsum(spent(client) for client in row.clients)
        assert math.fsum(client.allowed for client in row.clients) == pytest.approx(budget(), rel=1e-9)
        assert 0.9 * budget() <= masks <= budget() * (1 + 1e-9)


def test_no_mask_costs_more_than_its_node_was_allowed(rows):
    assert all(spent(client) <= client.allowed for row in rows[1:] for client in row.clients)


def test_no_node_is_shut_out(rows):
    for row in rows[1:]:
        assert all(client.allowed >= LEAST * budget() / 3 * (1 - 1e-9) for client in row.clients)


def test_who_sends_at_less_keeps_more(rows):
    for row in rows[1:]:
        dear, cheaper, cheapest = (kept(client) for client in row.clients)
        assert 0 < dear < cheaper <= cheapest


def test_a_curve_is_among_the_bytes_and_charged(rows):
    for row in rows:
        for client in row.clients:
            (curve,) = (charge for charge in client.charges if charge.term == "curve")
            sent = sum(charge.bytes for charge in client.charges if charge.term in UPLINK_TERMS)
            assert 0 < curve.bytes <= 512
            assert curve.energy > 0
            assert client.bytes_up == sent
