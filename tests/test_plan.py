"""`joulewise plan` and `joulewise run --record`, as a user meets them; and plans against messages that are made."""

import os
import subprocess
import sys
from pathlib import Path

import msgspec
import numpy as np
import pytest
from strategies import laplace_of

import joulewise as jw
from joulewise import plan_figure, rowfile, theory
from joulewise.errors import ArgumentError
from joulewise.ledger import total
from joulewise.modelfile import load_layout, load_update
from joulewise.plan import Plan, plan
from joulewise.recorder import Recorder, wanted
from joulewise.rounding import VALUE_BITS
from joulewise.rules import CWMP, Bytes, Count, Dense, Density, Joules, MinVariance, Price, Projection, RandomK, TopK

LTE = jw.load_device("phone-lte-2021")
LAYOUT = jw.Layout.of({
    "conv.weight": np.ones((32, 16, 3, 3)),
    "fc.weight": np.ones((10, 3000)),
    "norm.bias": np.ones(200),
})  # fmt: skip


BUDGETS = (Density(0.02), Density(0.2), Joules(0.002), Bytes(9000))
VALUES = ("float32", "float16", "int8")


def recorded() -> np.ndarray:
    return laplace_of(LAYOUT, [1.0, 0.2, 3.0], seed=0)


@pytest.fixture(scope="module")
def planned() -> Plan:
    return plan(recorded(), LAYOUT, LTE, budgets=BUDGETS, values=VALUES)


@pytest.mark.parametrize("values", VALUES)
@pytest.mark.parametrize("budget", BUDGETS, ids=repr)
def test_a_plan_tells_size_and_energy_of_the_message_that_a_compressor_makes(planned, budget, values):
    update, costs = recorded(), jw.price(LAYOUT, LTE, VALUE_BITS[values])
    choices = [each for each in planned.choices if (each.budget, each.values) == (budget, values)]
    assert [each.rule for each in choices] == [TopK(), CWMP(), Projection()]
    for choice in choices:
        sent = jw.Compressor(choice.rule, budget, values).compress(update, None, costs)
        spent = total(charge for charge in sent.charges if charge.term == "kept")
        loose = 0.06 if values != "int8" else 0.25  # the plan's note says so
        assert choice.kept.energy == pytest.approx(spent, rel=loose)
        assert choice.payload_bytes == pytest.approx(len(sent.payload), rel=loose)
        assert choice.kept.coordinates == pytest.approx(sent.selection.indices.size, rel=loose)
        assert choice.kept.l2 == pytest.approx(sent.selection.delta, rel=0.05 if values != "int8" else 0.1)


def test_how_much_more_topk_needs_is_what_it_really_needs():
    update, device = recorded(), jw.load_device("synthetic-kind-10")
    costs = jw.price(LAYOUT, device)
    for choice in plan(update, LAYOUT, device, budgets=[Density(0.1)]).choices[1:]:
        kept = jw.select(update, costs, choice.rule, choice.budget)
        norm = choice.rule.norm
        target = (np.abs(kept.values.astype(float)) ** norm).sum()
        order = np.argsort(-np.abs(update), kind="stable")
        mass = np.cumsum(np.abs(update[order].astype(float)) ** norm)
        spent = np.cumsum(np.repeat(costs.per_kept, LAYOUT.sizes)[order])
        assert choice.times_topk == pytest.approx(float(np.interp(target, mass, spent)) / kept.spent, rel=0.02)
        assert choice.times_topk > 1.1


def test_topk_needs_what_topk_needs_and_promises_are_those_of_selections():
    found = plan(recorded(), LAYOUT, jw.load_device("synthetic-kind-10"), budgets=[Density(0.1), Joules(3000.0)])
    by = {(type(each.rule), type(each.budget)): each for each in found.choices}
    assert by[TopK, Density].times_topk == pytest.approx(1.0)
    assert by[TopK, Density].guaranteed_delta == pytest.approx(0.1, abs=1e-4)
    assert by[CWMP, Joules].guaranteed_delta is None
    costs = jw.price(LAYOUT, jw.load_device("synthetic-kind-10"))
    kept = jw.select(recorded(), costs, Projection(), Joules(3000.0))
    assert by[Projection, Joules].guaranteed_delta == pytest.approx(kept.guaranteed_delta, abs=1e-9)
    assert by[TopK, Joules].variance is None
    random = plan(
        recorded(), LAYOUT, jw.load_device("synthetic-kind-10"), rules=[MinVariance()], budgets=[Density(0.1)]
    )
    assert random.choices[0].variance > 0
    assert random.choices[0].times_topk is None


def test_pairs_that_do_not_go_together_are_left_out_and_none_at_all_is_an_error():
    found = plan(recorded(), LAYOUT, LTE, rules=[TopK(), CWMP(), Dense()], budgets=[Price(1.0), Count(10)])
    assert [(type(each.rule), type(each.budget)) for each in found.choices] == [
        (TopK, Count),
        (CWMP, Price),
        (CWMP, Count),
    ]
    with pytest.raises(ArgumentError, match="no rule goes with any of the budgets"):
        plan(recorded(), LAYOUT, LTE, rules=[TopK()], budgets=[Price(1.0)])


def test_a_plan_whose_law_fits_badly_says_so():
    quick = {"budgets": [Density(0.1)], "rules": [TopK()]}
    assert any("fits badly" in note for note in plan(recorded(), LAYOUT, LTE, **quick, law="normal").notes)
    assert plan(recorded(), LAYOUT, LTE, **quick).notes == ()


WITHOUT_SCIPY = """
import sys
sys.modules["scipy"] = None
import numpy as np
import joulewise as jw
from joulewise import theory
from joulewise.errors import MissingExtra
from joulewise.explain import explain
layout = jw.Layout.of({"conv.weight": np.ones((8, 4, 3, 3)), "fc.weight": np.ones((10, 320))})
theory_budgets = [jw.Density(0.01), jw.Density(0.1)]
update, device = np.random.default_rng(0).laplace(size=layout.n), jw.load_device("synthetic-kind-10")
assert explain(layout, device, density=0.1).verdict.answer == "matters"
assert len(theory.plan(update, layout, device, budgets=theory_budgets).choices) == 6
assert len(theory.fit(update, layout, "laplace").errors) == 6
try:
    theory.fit(update, layout, "normal")
except MissingExtra as error:
    assert "joulewise[theory]" in str(error)
else:
    raise SystemExit("the normal law needs scipy")
"""


def test_explain_quantiles_and_plans_go_without_scipy_and_other_laws_say_what_to_install():
    environment = os.environ | {"PYTHONPATH": str(Path(jw.__file__).parents[1])}
    done = subprocess.run([sys.executable, "-c", WITHOUT_SCIPY], env=environment, capture_output=True, check=False)
    assert done.returncode == 0, done.stderr.decode()


# ---------------------------------------------------------------- the command


@pytest.fixture
def joule(joule, tmp_path, monkeypatch):
    """Type `joulewise ...` in a folder that holds an update."""
    monkeypatch.chdir(tmp_path)
    np.savez("u.npz", **LAYOUT.split(recorded()))
    return joule


def test_the_table_tells_each_choice_and_what_follows(joule):
    code, out, _ = joule(
        "plan", "u.npz", "--device", "synthetic-kind-10", "--density", 0.05, "--rule", "TopK", "--rule", "CWMP"
    )
    assert code == 0
    assert "u.npz on synthetic-kind-10: 34,808 parameters" in out
    rows = [line.split() for line in out.splitlines() if line.strip().startswith(("TopK", "CWMP"))]
    assert [row[0] for row in rows[:2]] == ["TopK", "CWMP"]
    assert "note: TopK would need up to 1." in out
    _, out, _ = joule("plan", "u.npz", "--device", "phone-lte-2021", "--rule", "MinVariance", "--density", 0.1)
    assert "variance: of unbiased rules" in out
    _, out, _ = joule("plan", "u.npz", "--device", "phone-lte-2021", "--rule", "TopK", "--density", 0.1)
    assert "no rule saves 1 % over TopK" in out


def test_json_is_the_record_and_nothing_else(joule):
    code, out, err = joule(
        "plan", "u.npz", "--device", "phone-lte-2021", "--joules", "0.002", "--values", "float16", "--json"
    )
    assert (code, err) == (0, "")
    found = msgspec.json.decode(out, type=Plan)
    assert found == plan(recorded(), LAYOUT, LTE, budgets=[Joules(0.002)], values=["float16"])


def test_the_figure_has_a_line_for_each_rule_and_value_type(joule, tmp_path):
    code, out, _ = joule(
        "plan", "u.npz", "--device", "phone-lte-2021", "--figure", "p.svg", "--density", 0.02, "--density", 0.2,
        "--values", "float32", "--values", "int8",
    )  # fmt: skip
    assert code == 0
    assert "figure: p.svg" in out
    drawn = (tmp_path / "p.svg").read_text()
    assert all(text in drawn for text in ("TopK", "CWMP", "Projection", "int8", "u on phone-lte-2021"))
    found = plan(recorded(), LAYOUT, LTE, budgets=[Density(0.02), Density(0.2)])
    assert len(list(plan_figure.points_of(found, "l1"))) == len(found.choices) == 6


def test_the_figure_leaves_out_rules_whose_kept_mass_says_nothing_and_says_so(joule, tmp_path):
    rules = [TopK(), MinVariance(), RandomK(), RandomK(scale=True)]
    found = plan(recorded(), LAYOUT, LTE, rules=rules, budgets=[Density(0.1)])
    assert [each["rule"] for each in plan_figure.points_of(found, "l2")] == ["TopK", "RandomK"]
    assert list(plan_figure.subtitle_of(found))[1:] == [
        "Not drawn: MinVariance and RandomK, unbiased, of which not the kept mass but the variance counts."
    ]
    typed = ("plan", "u.npz", "--device", "phone-lte-2021", "--density", 0.1, "--figure", "p.svg")
    code, _, err = joule(*typed, "--rule", "MinVariance")
    assert (code, (tmp_path / "p.svg").exists()) == (2, False)
    assert "error: --figure draws kept mass, which says nothing of MinVariance" in " ".join(err.split())
    assert joule(*typed, "--rule", "MinVariance", "--rule", "TopK")[0] == 0
    assert "Not drawn: MinVariance, unbiased" in (tmp_path / "p.svg").read_text()


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("missing.npz",), "error: missing.npz cannot be read"),
        (("u.bin",), "error: u.bin is not an .npz file"),
        (("u.npz", "--density", "2"), "error: --density is 2, expected a share above 0 and at most 1"),
        (("u.npz", "--joules", "-1"), "error: --joules is -1, expected a finite energy above 0"),
        (("u.npz", "--bytes", "0"), "error: --bytes is 0, expected at least 1 byte"),
        (("u.npz", "--rule", "Dense"), "error: --rule is 'Dense', expected one of: TopK, CWMP"),
        (("u.npz", "--values", "int4"), "error: --values is 'int4', expected one of: float32"),
        (("u.npz", "--figure", "p.bmp"), "error: --figure p.bmp ends in '.bmp'"),
    ],
)
def test_what_is_typed_wrongly_is_said_in_one_sentence(joule, arguments, said):
    code, _, err = joule("plan", *arguments, "--device", "phone-lte-2021")
    assert code == 2
    assert said in " ".join(err.split())


# ---------------------------------------------------------------- recording

STUDY = """
name = "small"
rounds = 2
seeds = [0]
[data]
name = "digits"
clients = 3
partition = { name = "IID" }
[model]
name = "mlp"
hidden = [8]
[fleet]
devices = { "synthetic-kind-10" = 3 }
[grid]
rule = ["Dense", "CWMP"]
density = [0.1]
"""


def test_a_run_keeps_the_updates_that_were_asked_for_and_its_rows_are_those_of_a_run_that_keeps_none(
    joule, tmp_path, monkeypatch
):
    monkeypatch.setattr("joulewise.report.write", lambda _rows, out, *_: (Path(out) / "report.html",))
    (tmp_path / "s.toml").write_text(STUDY)
    for out, *record in (("plain",), ("kept", "--record", "1:1", "--record", "1:2")):
        code, told, err = joule("run", "s.toml", "--out", out, *record, "--no-meter")
        assert code == 0, err
    files = sorted(each.name for each in (tmp_path / "kept" / "updates").iterdir())
    assert len(files) == 4
    assert all(name.endswith(("-client1-round1.npz", "-client1-round2.npz")) for name in files)
    assert "updates: 4 files in kept/updates" in told
    plain, kept = (rowfile.read(tmp_path / name) for name in ("plain", "kept"))
    assert [(row.server, row.clients) for row in plain] == [(row.server, row.clients) for row in kept]
    first = load_update(f"kept/updates/{files[0]}", load_layout(f"kept/updates/{files[0]}"))
    assert 0 < theory.fit(first, jw.Layout.single(first.size)).errors[-1].realised.l2 <= 1
    assert joule("plan", f"kept/updates/{files[0]}", "--device", "synthetic-kind-10", "--density", 0.1)[0] == 0


@pytest.mark.parametrize("typed", ["x", "1", "3:1", "0:0", "0:3", "-1:1"])
def test_a_client_or_round_that_is_not_there_is_refused(typed):
    with pytest.raises(ArgumentError, match=r"^--record .*expected"):
        wanted([typed], clients=3, rounds=2)


def test_file_names_hold_nothing_that_a_path_may_not(tmp_path):
    path = Recorder(tmp_path, frozenset()).of("CWMP / 1 % (float16)", 3).path(0, 2)
    assert path.name == "CWMP_1_float16-seed3-client0-round2.npz"


def test_pages_are_in_the_plan_as_in_the_message():
    device, rng = jw.load_device("mcu-flash-ble-nrf5340"), np.random.default_rng(3)
    layout = jw.Layout.of({"conv.weight": np.ones((64, 32, 3, 3)), "fc.weight": np.ones((10, 2000))})
    update = rng.laplace(size=layout.n).astype(np.float32)
    found = plan(update, layout, device, budgets=[Density(0.001), Density(0.05)])
    costs = jw.price(layout, device)
    for choice in found.choices:
        sent = jw.Compressor(choice.rule, choice.budget).compress(update, None, costs)
        spent = total(charge for charge in sent.charges if charge.term in ("kept", "persistence", "blocks"))
        assert choice.kept.energy == pytest.approx(spent, rel=0.05)
    assert any("whole lines or pages" in note for note in found.notes)


def test_nothing_is_promised_of_joules_where_prices_are_of_bits():
    found = plan(recorded(), LAYOUT, LTE, budgets=[Joules(0.002), Density(0.02)], rules=[TopK()])
    assert [choice.guaranteed_delta is None for choice in found.choices] == [True, False]


def test_a_number_of_the_table_is_never_broken_in_two(joule, monkeypatch):
    monkeypatch.setenv("COLUMNS", "100")
    _, out, _ = joule("plan", "u.npz", "--device", "synthetic-kind-10", "--density", 0.2)
    assert "TopK" in out
    for choice in plan(recorded(), LAYOUT, jw.load_device("synthetic-kind-10"), budgets=[Density(0.2)]).choices:
        assert f"{choice.kept.energy:.3g}" in out
