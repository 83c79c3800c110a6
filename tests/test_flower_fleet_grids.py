"""One budget for a fleet, on any grid, under any strategy, however large it is and whoever is drawn."""

import logging
import math

import pytest
from fleet_in_process import ALLOCATIONS, BUDGET, DENSE, MODEL, PARAMETERS, Fleet, held, masks
from flwr.serverapp.strategy import FedAvg
from toy_federation import averaging, request

from joulewise.errors import FederationError, RuleError
from joulewise.flower import EqualCount, EqualJoules, OnePrice, SparseGrid


@pytest.fixture(autouse=True)
def quiet(caplog):
    logging.getLogger("flwr").setLevel(logging.CRITICAL)
    caplog.set_level(logging.WARNING, "joulewise")


def test_a_strategy_starts_anew_on_the_grid_of_one_that_broke_down(tmp_path):
    class Broken(FedAvg):
        def aggregate_train(self, *_):
            raise ZeroDivisionError

    fleet = Fleet()
    grid = SparseGrid(fleet.grid, allocation=OnePrice(budget_j=BUDGET))
    with pytest.raises(ZeroDivisionError):
        fleet.play(tmp_path, None, strategy=averaging(Broken), grid=grid)
    assert grid.accepted == {}
    rows = fleet.play(tmp_path, None, grid=grid, arm="second")
    assert [len(row.clients) for row in rows] == [4] * 4
    assert held(rows, fleet, OnePrice(budget_j=BUDGET))
    assert grid.allotter.books.rounds == 5


@pytest.mark.parametrize("wrapped", [False, True])
def test_two_strategies_one_after_the_other(wrapped, tmp_path):
    fleet, allocation = Fleet(), OnePrice(budget_j=BUDGET, control="ascent")
    grid = SparseGrid(fleet.grid, allocation=allocation) if wrapped else fleet.grid
    first = fleet.play(tmp_path / "1", allocation, grid=grid)
    second = fleet.play(tmp_path / "2", allocation, grid=grid)
    assert held((*first, *second), fleet, allocation)
    assert [len(row.clients) for row in second] == [4] * 4


@pytest.mark.parametrize("allocation", ALLOCATIONS, ids=str)
def test_nodes_that_are_drawn_anew_each_round_share_the_budget(allocation, tmp_path):
    fleet = Fleet()
    rows = fleet.play(tmp_path, allocation, rounds=8, strategy=averaging(fraction_train=0.5))
    assert [len(row.clients) for row in rows] == [2] * 8
    budget = getattr(allocation, "budget_j", None)
    for number, (order, row) in enumerate(zip(fleet.orders(), rows, strict=True), 1):
        dense = sum(DENSE[node - 1] for node in order)
        carried = number if getattr(allocation, "control", "") == "ascent" else 1
        assert masks(row) <= carried * (budget or allocation.share * max(dense, sum(sorted(DENSE)[-2:]))) * (1 + 1e-9)
    if budget:
        assert sum(masks(row) for row in rows) <= 8 * budget


@pytest.mark.parametrize("make", [EqualJoules, OnePrice])
def test_a_budget_of_nothing_is_refused_and_next_to_nothing_sends_nothing(make, tmp_path):
    for budget in (0.0, -1.0, math.nan, math.inf, 1e300):
        with pytest.raises(RuleError, match="must be finite and above 0"):
            make(budget_j=budget)
    fleet = Fleet()
    rows = fleet.play(tmp_path, make(budget_j=1e-300))
    assert [sum(sum(client.kept_by_tensor) for client in row.clients) for row in rows] == [0] * 4


@pytest.mark.parametrize("control", [None, "curves", "ascent"])
@pytest.mark.parametrize("budget", [{"budget_j": 1e100}, {"budget_j": 2e6}, {"share": 1.0}])
def test_a_budget_above_everything_sends_everything(control, budget, tmp_path):
    allocation = EqualJoules(**budget) if control is None else OnePrice(**budget, control=control)
    fleet = Fleet()
    rows = fleet.play(tmp_path, allocation, rounds=5)
    kept = [[sum(client.kept_by_tensor) for client in row.clients] for row in rows]
    assert min(kept[-1]) >= 0.95 * PARAMETERS  # Not every number is changed in every round.


@pytest.mark.parametrize("allocation", [*ALLOCATIONS, EqualCount(share=0.03)], ids=str)
def test_one_node_alone_has_the_whole_budget(allocation, tmp_path):
    fleet = Fleet(nodes=1)
    rows = fleet.play(tmp_path, allocation)
    budget = min(getattr(allocation, "budget_j", None) or math.inf, DENSE[0])
    share = getattr(allocation, "share", None)
    wanted = budget if share is None else share * DENSE[0]
    assert 3.6 * wanted <= math.fsum(masks(row) for row in rows) <= 4 * wanted * (1 + 1e-9)
    assert held(rows, fleet, allocation) or isinstance(allocation, EqualCount)


def test_a_node_is_asked_once_in_a_round():
    grid = SparseGrid(Fleet().grid, allocation=EqualJoules(1.0))
    with pytest.raises(FederationError, match="one to each node"):
        grid.send_and_receive([request(1, arrays=MODEL), request(1, arrays=MODEL)])


def test_rows_of_all_rounds_are_one_arm(tmp_path):
    rows = Fleet().play(tmp_path, OnePrice(share=0.03))
    assert {(row.arm, row.budget) for row in rows} == {("CWMP OnePrice(share=0.03)", "OnePrice(share=0.03)")}


def test_the_weight_of_a_node_is_what_the_strategy_weighs_by(tmp_path):
    def weighed(message, context, call_next):
        reply = call_next(message, context)
        reply.content["metrics"]["trust"] = 0.25 * (1 + context.node_config["partition-id"])
        return reply

    fleet = Fleet(weighed, sparsify=None)
    grid = SparseGrid(fleet.grid, allocation=OnePrice(share=0.03))
    fleet.play(tmp_path, None, rounds=1, strategy=averaging(weighted_by_key="trust"), grid=grid)
    assert sorted(known.examples for known in grid.allotter._known.values()) == [0.25, 0.5, 0.75, 1.0]


def test_a_legacy_server_is_told_that_it_has_no_rounds():
    grid = SparseGrid(Fleet().grid, allocation=EqualJoules(1.0))
    asked = request(1, arrays=MODEL)
    asked.content["fitins.parameters"] = asked.content.pop("arrays")
    with pytest.raises(FederationError, match="legacy servers ask each node by itself"):
        grid.send_and_receive([asked])
