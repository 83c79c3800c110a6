"""`joulewise plan --fleet`: every number against one computed here by hand, and the command as a user meets it."""

import inspect
import re
from dataclasses import replace
from pathlib import Path

import msgspec
import numpy as np
import pytest
from strategies import name_of

import joulewise as jw
from joulewise import cli_fleet, cli_plan, fleet_figure
from joulewise.costs import Costs
from joulewise.errors import ArgumentError, ModelError, UpdateError
from joulewise.fleet import EqualCount, EqualJoules, OnePrice
from joulewise.fleetplan import FleetPlan, plan_fleet
from joulewise.fleetrecord import load_fleet
from joulewise.offers import Clients, offer
from joulewise.recorder import Recorder
from joulewise.rules import CWMP, Projection

LAYOUT = jw.Layout.of({"fc.weight": np.ones((20, 100)), "fc.bias": np.ones(20)})
LINKS = ("synthetic-link-1", "synthetic-link-1", "synthetic-link-100")
DEVICES = [jw.load_device(name) for name in LINKS]
RULES = [CWMP(), Projection()]
EXAMPLES = (100, 300, 200)


def updates() -> list[np.ndarray]:
    rng = np.random.default_rng(5)
    return [(size * rng.laplace(size=LAYOUT.n)).astype(np.float32) for size in (1.0, 0.5, 2.0)]


def clients(rule) -> Clients:
    """Prices of single coordinates, so that neither order nor energy follows from the magnitudes alone."""
    rng = np.random.default_rng(6)
    costs = [Costs.of(rng.uniform(1, 2, LAYOUT.n) * dear, LAYOUT) for dear in (1.0, 1.0, 30.0)]
    return Clients(tuple(updates()), tuple(costs), EXAMPLES, rule, LINKS)


# ---------------------------------------------------------------- by hand


def worths(fleet: Clients) -> tuple[list[np.ndarray], list[np.ndarray]]:
    """Of each client, weighted value and price of its coordinates, the most value per joule first."""
    p = 1 if isinstance(fleet.rule, CWMP) else 2
    found = []
    for update, costs, examples in zip(fleet.updates, fleet.costs, fleet.examples, strict=True):
        value = (np.abs(update.astype(float)) * examples / sum(fleet.examples)) ** p
        order = np.argsort(-value / costs.per_kept, kind="stable")
        found.append((value[order], costs.per_kept[order]))
    return [value for value, _ in found], [each for _, each in found]


def by_hand(fleet: Clients, budget: float) -> float:
    """The relaxed optimum of all clients together, in which one coordinate is cut."""
    value, each = (np.concatenate(parts) for parts in worths(fleet))
    order = np.argsort(-value / each, kind="stable")
    spent = np.cumsum(each[order])
    fits = int(np.searchsorted(spent, budget, side="right"))
    left = budget - (spent[fits - 1] if fits else 0.0)
    return value[order][:fits].sum() + left * value[order][fits] / each[order][fits]


def counted(fleet: Clients) -> tuple[np.ndarray, np.ndarray]:
    """Value and energy of all clients together where each keeps 0, 1, 2 ... coordinates."""
    value, each = worths(fleet)
    return tuple(np.concatenate([[0.0], np.sum(np.cumsum(parts, axis=1), axis=0)]) for parts in (value, each))


def within(fleet: Clients, energies) -> tuple[float, float, int]:
    """Value, energy and count where each client keeps what an energy buys."""
    total = [0.0, 0.0, 0]
    for value, each, energy in zip(*worths(fleet), energies, strict=True):
        k = int(np.searchsorted(np.cumsum(each), energy, side="right"))
        total = [total[0] + value[:k].sum(), total[1] + each[:k].sum(), total[2] + k]
    return tuple(total)


def dense(fleet: Clients) -> float:
    return sum(each.per_kept.sum() for each in fleet.costs)


@pytest.mark.parametrize("share", [0.01, 0.05, 0.6])
@pytest.mark.parametrize("rule", RULES, ids=name_of)
def test_bound_and_values_are_those_computed_by_hand(rule, share):
    fleet = clients(rule)
    budget = share * dense(fleet)
    found = offer(fleet, budget, share)
    whole, bound = sum(value.sum() for value in worths(fleet)[0]), by_hand(fleet, budget)
    assert found.bound * whole == pytest.approx(bound, rel=1e-9)
    count, joules, price, floors = found.divisions
    value, energy = counted(fleet)
    k = count.coordinates // 3
    assert (count.value * whole, count.energy) == pytest.approx((value[k], energy[k]), rel=1e-9)
    # As many as the budget buys, but for the last few in ten thousand.
    assert energy[k] <= budget * (1 + 1e-9)
    assert energy[k + max(1, round(5e-4 * k))] > budget
    cheap = [each.sum() for each in worths(fleet)[1]][:2]
    parts = [min(budget / 3, most) for most in cheap]  # what they cannot use goes to the dear one
    kept = within(fleet, [*parts, budget - sum(parts)])
    assert (joules.value * whole, joules.energy, joules.coordinates) == pytest.approx(
        kept, rel=1e-9 if share < 0.5 else 1e-3
    )
    assert (0.99 if share > 0.01 else 0.95) <= price.of_bound <= 1  # of few coordinates one is much
    for each in found.divisions:
        assert each.of_bound * bound == pytest.approx(each.value * whole, rel=1e-9)
        assert each.energy <= budget * (1 + 1e-9)
        assert each.value <= price.value * (1 + 1e-2)
    assert floors.energy >= budget - 64  # a coordinate of each client


@pytest.mark.parametrize("rule", RULES, ids=name_of)
def test_how_much_more_equal_counts_need_is_what_they_really_need(rule):
    fleet = clients(rule)
    found = offer(fleet, 0.05 * dense(fleet), 0.05)
    whole = sum(value.sum() for value in worths(fleet)[0])
    value, energy = counted(fleet)
    for each in found.divisions[1:]:
        needed = np.interp(each.value * whole, value, energy)
        assert each.times_equal_count == pytest.approx(needed / each.energy, rel=5e-4)
    assert found.divisions[0].times_equal_count == 1.0
    assert found.divisions[2].times_equal_count > (2 if rule == CWMP() else 1.1)


@pytest.mark.parametrize("rule", RULES, ids=name_of)
def test_an_allocation_that_keeps_less_than_equal_counts_needs_less(rule):
    """The dear client has nearly all of the value: equal joules spend most of the budget where there is little."""
    fleet = clients(rule)
    fleet = replace(fleet, updates=(fleet.updates[0] / 1e3, fleet.updates[1] / 1e3, fleet.updates[2]))
    found = offer(fleet, 0.05 * dense(fleet), 0.05)
    value, energy = counted(fleet)
    whole = sum(each.sum() for each in worths(fleet)[0])
    joules = found.divisions[1]
    assert joules.value < found.divisions[0].value
    needed = np.interp(joules.value * whole, value, energy)
    assert joules.times_equal_count == pytest.approx(needed / joules.energy, rel=2e-3)
    assert joules.times_equal_count < 1


@pytest.mark.parametrize("rule", RULES, ids=name_of)
def test_shares_of_devices_and_what_any_client_sends_are_those_of_the_masks(rule):
    found = plan_fleet(updates(), LAYOUT, DEVICES, examples=EXAMPLES, rule=rule, shares=[0.05]).offers[0]
    count = found.divisions[0]
    p = 1 if isinstance(rule, CWMP) else 2
    k = int(0.05 * LAYOUT.n)
    tops = [np.argsort(-np.abs(each), kind="stable")[:k] for each in updates()]
    masses = [
        (np.abs(a[top].astype(float)) * n / 600) ** p for a, top, n in zip(updates(), tops, EXAMPLES, strict=True)
    ]
    cheap, dear = count.devices
    assert (cheap.device, cheap.clients, dear.device, dear.clients) == (LINKS[0], 2, LINKS[2], 1)
    assert (cheap.energy, dear.energy) == pytest.approx((2 / 102, 100 / 102))
    total = sum(each.sum() for each in masses)
    assert (cheap.value, dear.value) == pytest.approx((1 - masses[2].sum() / total, masses[2].sum() / total))
    assert count.union == np.unique(np.concatenate(tops)).size / LAYOUT.n
    assert count.coordinates == 3 * k
    assert count.allocation == EqualCount(0.05)


def test_floors_give_each_client_half_of_an_equal_part():
    found = plan_fleet(updates(), LAYOUT, DEVICES, shares=[0.01]).offers[0]
    *_, joules, free, floored = found.divisions
    assert joules.allocation == EqualJoules(found.budget)
    assert (free.allocation, floored.allocation) == (OnePrice(found.budget), OnePrice(found.budget, least_share=0.5))
    assert free.devices[1].energy < 1 / 6 - 0.01
    assert floored.devices[1].energy == pytest.approx(1 / 6, abs=0.02)


@pytest.mark.parametrize("rule", RULES, ids=name_of)
def test_examples_weigh_as_larger_updates_do(rule):
    small, middle, large = updates()
    weighed = plan_fleet([small, middle, large], LAYOUT, DEVICES, examples=[1, 4, 2], rule=rule)
    scaled = plan_fleet([small, 4 * middle, 2 * large], LAYOUT, DEVICES, rule=rule)
    for one, other in zip(weighed.offers, scaled.offers, strict=True):
        assert [each.coordinates for each in one.divisions] == [each.coordinates for each in other.divisions]
        assert [each.of_bound for each in one.divisions] == pytest.approx([each.of_bound for each in other.divisions])
    alike = plan_fleet([small, middle, large], LAYOUT, DEVICES, rule=rule)
    assert alike.offers[0].divisions[2].value != pytest.approx(weighed.offers[0].divisions[2].value, rel=0.01)


def test_a_budget_in_joules_is_that_of_its_share():
    phones = [jw.load_device(name) for name in ("phone-wifi-2020", "phone-lte-2021", "phone-lte-2012")]
    (by_share,) = plan_fleet(updates(), LAYOUT, phones, shares=[0.02]).offers
    (by_joules,) = plan_fleet(updates(), LAYOUT, phones, budgets=[by_share.budget]).offers
    assert by_joules.share == pytest.approx(0.02, rel=1e-6)
    costs = [jw.price(LAYOUT, each, 32, 0.02) for each in phones]
    assert by_share.budget == pytest.approx(0.02 * sum(LAYOUT.sizes @ each.per_kept for each in costs))
    for one, other in zip(by_share.divisions, by_joules.divisions, strict=True):
        assert (one.coordinates, one.value) == pytest.approx((other.coordinates, other.value), rel=0.01)


def test_a_budget_for_everything_keeps_everything():
    found = plan_fleet(updates(), LAYOUT, DEVICES, budgets=[1e9, 1.0]).offers
    assert [each.budget for each in found] == [1.0, 1e9]
    everything = found[1]
    assert everything.share == everything.bound == 1.0
    assert [each.coordinates for each in everything.divisions] == [3 * LAYOUT.n] * 4
    assert [each.times_equal_count for each in everything.divisions] == pytest.approx([1.0] * 4)


def test_a_budget_for_one_coordinate_of_a_cheap_client_is_nothing_for_equal_counts():
    found = plan_fleet(updates(), LAYOUT, DEVICES, budgets=[2.5]).offers[0].divisions
    assert (found[0].coordinates, found[0].times_equal_count, found[0].energy) == (0, None, 0.0)
    assert (found[0].devices[0].energy, found[0].devices[0].value) == (0.0, 0.0)
    assert found[2].coordinates > 0
    with pytest.raises(ArgumentError, match=r"a budget of 0\.5 buys nothing: the cheapest coordinate .* costs 1;"):
        plan_fleet(updates(), LAYOUT, DEVICES, budgets=[0.5])


# ---------------------------------------------------------------- the verdict


def test_links_that_differ_matter_and_the_verdict_says_by_how_much():
    found = plan_fleet(updates(), LAYOUT, DEVICES, shares=[0.01, 0.1])
    times = [each.divisions[2].times_equal_count for each in found.offers]
    assert found.answer == "matters"
    assert found.price_ratio == pytest.approx(100)
    assert f"EqualCount would need {times[0]:.2f}x and {times[1]:.2f}x the energy of OnePrice" in found.verdict
    assert "at 1 % and 10 % of what sending everything takes." in found.verdict
    assert "pay the same" not in found.verdict


def test_clients_that_are_alike_do_not_need_one_price():
    rng = np.random.default_rng(1)
    same = [rng.laplace(size=LAYOUT.n).astype(np.float32)] * 3
    found = plan_fleet(same, LAYOUT, [DEVICES[0]] * 3)
    assert (found.answer, found.price_ratio) == ("does not matter", 1.0)
    assert found.verdict.startswith("One price does not matter here: for the same value EqualCount needs at most")
    assert found.verdict.endswith("All clients pay the same for a coordinate. Use EqualCount.")


def test_where_everything_fits_one_price_does_not_matter_whatever_clients_pay():
    found = plan_fleet(updates(), LAYOUT, DEVICES, budgets=[1e9])
    assert found.verdict == (
        "One price does not matter here: for the same value EqualCount needs at most 0.0 % more energy. Use EqualCount."
    )


def test_what_is_saved_at_equal_prices_is_laid_to_the_updates():
    found = plan_fleet([0.05 * updates()[0], *updates()[1:]], LAYOUT, [DEVICES[0]] * 3)
    assert found.answer == "matters"
    assert (
        "All clients pay the same for a coordinate: it is saved by sending more of the clients whose" in found.verdict
    )


def test_notes_hold_one_price_against_equal_joules_and_tell_what_the_downlink_pays():
    found = plan_fleet(updates(), LAYOUT, DEVICES, shares=[0.01])
    _, joules, one, _ = found.offers[0].divisions
    assert f"keeps at least {100 * joules.value / one.value:.1f} % of what OnePrice keeps" in found.notes[0]
    assert f"differs in {100 * one.union:.1f} % of its coordinates under OnePrice" in found.notes[1]
    flash = plan_fleet(updates(), LAYOUT, [jw.load_device("mcu-flash-ble-nrf5340")] * 3, shares=[0.01])
    assert any("lines or pages" in note for note in flash.notes)


def test_what_cannot_be_planned_is_refused():
    with pytest.raises(ArgumentError, match="3 updates, 2 devices, expected as many of each"):
        plan_fleet(updates(), LAYOUT, DEVICES[:2])
    with pytest.raises(ArgumentError, match="3 devices and 1 numbers of examples"):
        plan_fleet(updates(), LAYOUT, DEVICES, examples=[1])
    with pytest.raises(ArgumentError, match="0 updates"):
        plan_fleet([], LAYOUT, [])
    with pytest.raises(ArgumentError, match="examples are 0 of a client"):
        plan_fleet(updates(), LAYOUT, DEVICES, examples=[1, 0, 2])
    with pytest.raises(ArgumentError, match="devices mix units of account"):
        plan_fleet(updates(), LAYOUT, [*DEVICES[:2], jw.load_device("phone-lte-2021")])
    with pytest.raises(ArgumentError, match="a share is 2"):
        plan_fleet(updates(), LAYOUT, DEVICES, shares=[2])
    with pytest.raises(ArgumentError, match="a budget is inf"):
        plan_fleet(updates(), LAYOUT, DEVICES, budgets=[float("inf")])
    with pytest.raises(UpdateError, match="every update is zero"):
        plan_fleet([np.zeros(LAYOUT.n, np.float32)] * 3, LAYOUT, DEVICES)


def test_the_page_names_options_and_allocations_that_are_there():
    page = (Path(__file__).parents[1] / "docs/plan.md").read_text(encoding="utf-8")
    known = {each.replace("_", "-") for each in inspect.signature(cli_plan.plan).parameters}
    assert set(re.findall(r"--([a-z]+)", page)) - {"record", "cifar", "rounds"} <= known
    found = plan_fleet(updates(), LAYOUT, DEVICES, shares=[0.05])
    for each in found.offers[0].divisions:
        assert f"| {fleet_figure.name_of(each.allocation)} |" in page


# ---------------------------------------------------------------- files


@pytest.fixture
def joule(joule, tmp_path, monkeypatch):
    """Type `joulewise ...` in a folder that holds an update of each client, as runs keep them, and one file of all."""
    monkeypatch.chdir(tmp_path)
    recorder = Recorder(tmp_path, frozenset((client, 3) for client in range(3)))
    together = {"examples": np.array(EXAMPLES)}
    for client, update in enumerate(updates()):
        recorder.keep(client, 3, update, LAYOUT)
        for number, factor in ((0, 7.0), (1, 1.0)):
            arrays = LAYOUT.split((factor * update).astype(np.float32))
            together |= {f"{number}/{client}/{name}": array for name, array in arrays.items()}
    np.savez("fleet.npz", **together)
    return joule


FILES = tuple(f"updates/client{client}-round3.npz" for client in range(3))
TYPED = [part for name in LINKS for part in ("--device", name)]


def test_json_of_files_is_the_record_and_nothing_else(joule):
    code, out, err = joule("plan", "--fleet", *FILES, *TYPED, "--share", "0.05", "--budget", "2000", "--json")
    assert (code, err) == (0, "")
    found = msgspec.json.decode(out, type=FleetPlan)
    assert found == plan_fleet(updates(), LAYOUT, DEVICES, shares=[0.05], budgets=[2000.0])
    weights = ["--weight", 100, "--weight", 300, "--weight", 200]
    _, out, _ = joule("plan", "--fleet", *FILES, *TYPED, *weights, "--rule", "Projection", "--json")
    weighed = plan_fleet(updates(), LAYOUT, DEVICES, examples=EXAMPLES, rule=Projection())
    assert msgspec.json.decode(out, type=FleetPlan) == weighed
    assert [each.share for each in weighed.offers] == [0.003, 0.01, 0.1]


def test_one_file_of_all_clients_is_its_last_round_with_its_examples(joule):
    _, out, _ = joule("plan", "--fleet", "fleet.npz", *TYPED, "--share", "0.05", "--json")
    found = msgspec.json.decode(out, type=FleetPlan)
    assert found == plan_fleet(updates(), LAYOUT, DEVICES, examples=EXAMPLES, shares=[0.05])
    _, out, _ = joule("plan", "--fleet", "fleet.npz", *TYPED, "--share", "0.05")
    assert "fleet.npz, round 1 (the last): 3 clients, 2,020 parameters, CWMP" in out
    recorded = load_fleet(["fleet.npz"])
    assert recorded.examples == EXAMPLES
    assert all((mine == own).all() for mine, own in zip(recorded.updates, updates(), strict=True))


def test_one_device_is_that_of_all_clients(joule):
    _, out, _ = joule("plan", "--fleet", *FILES, "--device", LINKS[2], "--share", "0.05", "--json")
    found = msgspec.json.decode(out, type=FleetPlan)
    assert found == plan_fleet(updates(), LAYOUT, [DEVICES[2]] * 3, shares=[0.05])
    assert [each.clients for each in found.offers[0].divisions[0].devices] == [3]


def test_the_table_tells_each_allocation_and_the_verdict_follows(joule):
    code, out, _ = joule("plan", "--fleet", *FILES, *TYPED, "--share", "0.05")
    assert code == 0
    found = plan_fleet(updates(), LAYOUT, DEVICES, shares=[0.05])
    (made_of,) = found.offers
    rows = [line for line in out.splitlines() if line.strip().startswith("5 %")]
    for row, each in zip(rows, made_of.divisions, strict=True):
        assert fleet_figure.name_of(each.allocation) in row
        assert f"{100 * each.of_bound:.2f} %" in row
        assert f"{each.times_equal_count:.2f}x" in row
        assert f"{each.coordinates:,}" in row
        for one in each.devices:
            assert f"{100 * one.energy:.1f} % / {100 * one.value:.1f} %" in row
    assert "2 x synthetic-link-1 " in out
    assert f"Verdict: {found.verdict}" in out
    assert all(f"note: {note}" in out for note in found.notes)


def larger(found: FleetPlan) -> FleetPlan:
    """The same of a model of a million parameters: numbers as long as they come."""
    change = msgspec.structs.replace
    offers = [
        change(
            one,
            budget=1234567.0,
            divisions=tuple(change(each, energy=1234567.0, coordinates=1075086) for each in one.divisions),
        )
        for one in found.offers
    ]
    return change(found, offers=tuple(offers))


@pytest.mark.parametrize("width", [79, 100, 130])
def test_no_number_and_no_device_is_broken_where_the_terminal_is_narrow(monkeypatch, capsys, width):
    found = larger(plan_fleet(updates(), LAYOUT, DEVICES, shares=[0.05, 0.5]))
    monkeypatch.setenv("COLUMNS", f"{width}")
    cli_fleet._show(found, "files")
    printed = capsys.readouterr().out.partition("note:")[0]
    assert all(len(line) <= width for line in printed.splitlines()[2:])
    lines = [f" {' '.join(line.split())} " for line in printed.splitlines()]
    for each in (each for one in found.offers for each in one.divisions):
        times = f"{each.times_equal_count:.2f}x"
        own = " 1.23e+06 1,075,086 ", f" {100 * each.of_bound:.2f} % {times} ", f" {100 * each.union:.2f} % "
        assert any(all(text in line for text in own) for line in lines)
        for one in each.devices:
            both = f" {100 * one.energy:.1f} %", f" {100 * one.value:.1f} % "
            assert any(all(text in line for text in both) for line in lines)
    assert printed.count(" synthetic-link-100 ") == printed.count(" synthetic-link-1 ") == (8 if width < 125 else 1)


def test_the_figure_has_a_line_for_each_allocation(joule, tmp_path):
    code, out, _ = joule("plan", "--fleet", *FILES, *TYPED, "--figure", "p.svg")
    assert (code, "figure: p.svg" in out) == (0, True)
    drawn = (tmp_path / "p.svg").read_text()
    assert all(name in drawn for name in (*fleet_figure.COLOURS, "Kept L1 mass", "3 clients, 2,020 parameters, CWMP"))
    found = plan_fleet(updates(), LAYOUT, DEVICES)
    points = list(fleet_figure.points_of(found))
    assert len(points) == 15
    assert {each["name"] for each in points} == set(fleet_figure.COLOURS)
    assert points[0] == {"name": fleet_figure.BOUND, "budget": found.offers[0].budget, "value": found.offers[0].bound}
    assert points[1]["value"] == found.offers[0].divisions[0].value


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ((*FILES, *TYPED[:4]), "--device is given 2 times for 3 clients; give it once for all, or once for each"),
        (
            (*FILES, *TYPED[:4], "--device", "phone-lte-2021"),
            "--device mixes units of account (synthetic-link-1 in rel",
        ),
        ((*FILES, *TYPED, "--share", "0"), "--share is 0, expected a share above 0 and at most 1"),
        ((*FILES, *TYPED, "--share", "1.5"), "--share is 1.5, expected a share above 0 and at most 1"),
        ((*FILES, *TYPED, "--budget", "-1"), "--budget is -1, expected a finite energy above 0"),
        ((*FILES, *TYPED, "--budget", "0.1"), "a budget of 0.1 buys nothing: the cheapest coordinate"),
        ((*FILES, *TYPED, "--weight", "3"), "--weight is given 1 times for 3 clients; give each one's number"),
        ((*FILES, *TYPED, *("--weight", "0") * 3), "--weight is 0, expected a number of examples of at least 1"),
        ((*FILES, *TYPED, "--rule", "TopK"), "--rule is 'TopK', expected CWMP or Projection with --fleet"),
        ((*FILES, *TYPED, *("--rule", "CWMP") * 2), "--rule is given 2 times, expected once with --fleet"),
        ((*FILES, *TYPED, "--density", "0.1"), "--density is for one update; with --fleet give --share or --budget"),
        ((*FILES, *TYPED, "--law", "normal"), "--law is for one update"),
        ((*FILES, *TYPED, "--figure", "p.bmp"), "--figure p.bmp ends in '.bmp'"),
        (("missing.npz", FILES[0], *TYPED), "error: missing.npz cannot be read"),
        ((FILES[0], "fleet.npz", *TYPED), "error: fleet.npz: array 'fc.weight' is missing"),
    ],
)
def test_what_is_typed_wrongly_is_said_in_one_sentence(joule, arguments, said):
    code, out, err = joule("plan", "--fleet", *arguments)
    assert (code, out) == (2, "")
    assert said in " ".join(err.split())
    assert "Traceback" not in err


def test_options_of_a_fleet_need_it_and_one_update_is_one(joule):
    for typed, said in (
        ((FILES[0], *TYPED[:2], "--share", "0.1"), "--share is for several clients; add --fleet"),
        ((FILES[0], *TYPED[:2], "--weight", "1"), "--weight is for several clients; add --fleet"),
        ((*FILES, *TYPED[:2]), "U.npz is given 3 times, expected once; for several clients add --fleet"),
        ((FILES[0], *TYPED), "--device is given 3 times, expected once; for several clients add --fleet"),
    ):
        code, _, err = joule("plan", *typed)
        assert (code, said in " ".join(err.split())) == (2, True)


def test_devices_without_a_link_are_priced_by_memory_or_refused(joule, tmp_path):
    without = ("tests-no-link.toml",)
    text = (
        'schema = 1\nname = "no-link"\ndescription = "A board with memory alone."\nunit = "J"\n'
        '[memory]\n[memory.dram]\nread = { value = 20.0, unit = "pJ/bit", kind = "assumed", source = "a test", '
        'year = 2020 }\nwrite = { value = 20.0, unit = "pJ/bit", kind = "assumed", source = "a test", year = 2020 }\n'
    )
    (tmp_path / without[0]).write_text(text)
    alone = ("--device", f"./{without[0]}")
    code, out, err = joule("plan", "--fleet", *FILES, *alone, "--share", "0.1")
    assert code == 0, err
    assert "boundary memory" in out
    mixed = (*alone, "--device", "phone-lte-2021", "--device", "phone-lte-2021")
    code, _, err = joule("plan", "--fleet", *FILES, *mixed)
    assert (code, "has no link; give --boundary memory" in " ".join(err.split())) == (2, True)
    assert joule("plan", "--fleet", *FILES, *mixed, "--boundary", "memory", "--share", "0.1")[0] == 0


@pytest.mark.parametrize(
    ("arrays", "said"),
    [
        ({"0/0/a": np.ones(2), "0/1/a": np.ones(3)}, "the tensors of client 1 in round 0 are not those of client 0"),
        ({"0/0/a": np.ones(2), "0/1/a": np.array([1.0, np.nan])}, "NaN or infinity in array '0/1/a'"),
        ({"0/0/a": np.ones(2), "examples": np.array([1, 2])}, "'examples' is [1, 2], expected a whole number of at"),
        ({"0/0/a": np.ones(2), "examples": np.array([0])}, "'examples' is [0], expected a whole number of at least 1"),
        ({"0/0/a": np.ones(2, np.int64)}, "no float tensors"),
    ],
)
def test_a_file_of_all_clients_that_is_wrong_is_refused(tmp_path, arrays, said):
    np.savez(tmp_path / "f.npz", **arrays)
    with pytest.raises(ModelError) as found:
        load_fleet([str(tmp_path / "f.npz")])
    assert said in str(found.value)
