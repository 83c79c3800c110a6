"""`joulewise bench`: what it runs is what it says, and ratios are those of its rounds. Nothing here tests speed."""

import json
import os
import re
from functools import partial

import msgspec
import numpy as np
import pytest

from joulewise import bench, bench_figure, benchdata, kernel, rivals, targets
from joulewise.benchdata import RESNET18
from joulewise.benchrecords import FUSED, READ, SELECT, STEP, Part, Plan, Report, Size, Timing
from joulewise.errors import ArgumentError
from joulewise.rivals import ARGPARTITION, TORCH_TOPK
from joulewise.rules import CWMP, Count, Joules, TopK
from joulewise.select import Selection, select
from joulewise.timing import Contestant, Quartiles, Taken, race

SMALL = Plan((20_000,), (0.05,), (1,), 1, False)


@pytest.fixture(scope="module")
def load():
    return benchdata.synthetic(20_000)


def quartiles(median):
    return Quartiles(median, median, median)


# ---------------------------------------------------------------- timing


def test_contestants_take_turns_and_the_first_round_does_not_count():
    order, clock = [], iter(range(100))
    contestants = [Contestant("a", lambda: order.append("a")), Contestant("b", lambda: order.append("b"))]
    found = race(contestants, 2, lambda: float(next(clock)))
    assert order == ["a", "b"] * 3
    assert found == {"a": Taken("a", (1.0, 1.0)), "b": Taken("b", (1.0, 1.0))}


def test_what_takes_long_sits_rounds_out_and_runs_once_without_a_warm_up():
    ran = []
    contestants = [
        Contestant("once", partial(ran.append, "once"), 1),
        Contestant("twice", partial(ran.append, "twice"), 2),
        Contestant("always", partial(ran.append, "always")),
    ]
    found = race(contestants, 3)
    assert [ran.count(name) for name in ("once", "twice", "always")] == [1, 3, 4]
    assert [len(found[name].seconds) for name in ("once", "twice", "always")] == [1, 2, 3]


def test_a_ratio_is_that_within_a_round_and_not_of_two_medians():
    mine, its = Taken("mine", (1.0, 10.0, 30.0)), Taken("its", (1.0, 5.0, 10.0))
    assert mine.times_of(its) == Quartiles(1.5, 2.0, 2.5)
    assert Taken("once", (4.0,)).times_of(mine).median == 4.0


# ---------------------------------------------------------------- what is measured


def test_updates_are_the_same_each_time_and_have_the_length_that_was_asked_for(load):
    again = benchdata.synthetic(20_000)
    assert load.n == load.update.size == load.residual.size == 20_000
    assert np.array_equal(load.update, again.update)
    assert np.array_equal(load.costs.per_kept, again.costs.per_kept)
    assert not np.array_equal(load.update, load.residual)
    assert len(load.costs.layout.tensors) == 62
    assert np.isfinite(load.update).all()
    with pytest.raises(ArgumentError, match=r"--n 999 is out of range; give a number of coordinates from 1,000"):
        benchdata.layout_of(999)


def test_a_recorded_update_stays_as_it_is_and_its_residual_has_the_same_coordinates_in_each_tensor(load):
    layout = load.costs.layout
    one = benchdata.recorded(load.update, layout)
    assert one.update is load.update
    for start, stop in zip(layout.offsets[:-1], layout.offsets[1:], strict=True):
        assert np.array_equal(np.sort(one.residual[start:stop]), np.sort(load.update[start:stop]))
    assert not np.array_equal(one.residual, one.update)


def test_the_rivals_keep_what_joulewise_keeps(load):
    k = 1000
    kept = select(load.update, load.costs, TopK(), Count(k))
    joules = float(select(load.update, load.costs, CWMP(), Count(k)).spent)
    found = {one.name: one for one in rivals.selections(load, k, joules, 1, True)}
    expected = {ARGPARTITION, TORCH_TOPK, "torch.kthvalue + gather", "np.argsort + cumsum greedy"}
    assert expected <= set(found) | (set() if rivals.has("torch") else {TORCH_TOPK, "torch.kthvalue + gather"})
    for name in expected & set(found) - {"np.argsort + cumsum greedy"}:
        places, values = (np.asarray(part) for part in found[name].run())
        assert np.array_equal(np.sort(places), kept.indices), name
        assert np.array_equal(values[np.argsort(places)], kept.values), name
    places, _ = found["np.argsort + cumsum greedy"].run()
    ours = select(load.update, load.costs, CWMP(), Joules(joules)).indices
    assert abs(len(places) - len(ours)) <= 2
    assert len(np.intersect1d(places, ours)) >= len(ours) - 2


def test_the_fused_run_selects_from_the_sum_and_writes_it(load):
    before = load.update.copy(), load.residual.copy()
    total = load.update + load.residual
    joules = Joules(float(select(total, load.costs, CWMP(), Count(700)).spent))
    found = bench.fused(load, joules)()
    assert np.array_equal(found.indices, select(total, load.costs, CWMP(), joules).indices)
    assert np.array_equal(load.update, before[0])
    assert np.array_equal(load.residual, before[1])


def test_gaps_and_values_can_be_read_back(load):
    indices = np.array([0, 1, 130, 20_000, 2_200_000, 300_000_000], np.uint32)
    values = np.arange(6, dtype=np.float32)
    data, at, place, gaps = rivals.gaps_and_values(Selection(2**29, indices, values)), 0, -1, []
    while len(gaps) < 6:
        gap = shift = 0
        while True:
            gap |= (data[at] & 127) << shift
            shift, at = shift + 7, at + 1
            if data[at - 1] < 128:
                break
        place += gap + 1
        gaps.append(place)
    assert gaps == indices.tolist()
    assert np.array_equal(np.frombuffer(data[at:], np.float32), values)


def test_index_bytes_are_those_of_the_places_and_the_bound_is_their_entropy(load):
    made = {size.data: size for size in bench.sizes(load, 0.05)}
    size = made["synthetic"]
    assert (size.kept, size.plain_bytes) == (1000, 12_000)
    share = load.costs.layout.counts(select(load.update, load.costs, TopK(), Count(1000)).indices)
    sizes = load.costs.layout.sizes
    bound = sum(
        -n * (k / n * np.log2(k / n) + (1 - k / n) * np.log2(1 - k / n))
        for k, n in zip(share.tolist(), sizes.tolist(), strict=True)
        if 0 < k < n
    )
    assert size.bound_bytes == pytest.approx(bound / 8)
    assert bound / 8 < size.index_bytes < size.payload_bytes["int8"] < size.payload_bytes["float32"]
    assert size.zstd_bytes is None or size.payload_bytes["float32"] < size.zstd_bytes < size.plain_bytes


def test_threads_are_set_for_a_case_alone(load, monkeypatch):
    monkeypatch.setenv(kernel.THREADS_VARIABLE, "3")
    seen = []
    bench._timed("select", "x", (load.n, 0.1, 2), [Contestant("a", lambda: seen.append(kernel.threads()))], 1)
    assert (seen, os.environ[kernel.THREADS_VARIABLE]) == ([2, 2], "3")
    monkeypatch.delenv(kernel.THREADS_VARIABLE)
    bench._timed("select", "x", (load.n, 0.1, 2), [Contestant("a", kernel.threads)], 1)
    assert kernel.THREADS_VARIABLE not in os.environ


def test_memory_is_what_a_selection_takes_besides_its_result():
    load = benchdata.synthetic(2_000_000)
    share = bench.peak_share(load, 0.01)
    if share is None:
        pytest.skip("this system does not tell a process's peak of memory")
    assert 0 <= share < 1


# ---------------------------------------------------------------- report and targets


def timing(
    name, *, what="select", density=0.01, read=2.0, topk=0.02, argp=0.1, speed=None, data="synthetic", n=RESNET18
):
    ratios = {READ: quartiles(read), TORCH_TOPK: quartiles(topk), ARGPARTITION: quartiles(argp)}
    return Timing(what, name, data, n, density, 1, 5, quartiles(1.0), ratios, speed)


def report(timings=(), sizes=(), memory=None, status="native"):
    return Report("a machine", "a system", status, tuple(timings), tuple(sizes), memory or {})


def test_targets_are_those_of_the_design_and_the_limit_itself_is_met():
    timings = [
        timing(SELECT, read=3.0, topk=1 / 40, argp=1 / 8),
        timing(SELECT, density=0.20, read=8.1, topk=1 / 15, argp=1 / 3),
        timing(FUSED, read=5.1),
        timing("encode float32", what="codec", density=0.10, speed=200.0),
        timing("select TopK", what="worst case", density=0.10, topk=1.01, data="all equal"),
    ]
    found = {target.what: target.met for target in targets.targets(report(timings, memory={0.01: 0.16, 0.20: 0.5}))}
    assert found == {
        "select CWMP, synthetic, 1%: times one read": True,
        "select CWMP, synthetic, 1%: times faster than torch.topk + gather": True,
        "select CWMP, synthetic, 1%: times faster than np.argpartition + gather": True,
        "select CWMP, synthetic, 20%: times one read": False,
        "select CWMP, synthetic, 20%: times faster than torch.topk + gather": True,
        "select CWMP, synthetic, 20%: times faster than np.argpartition + gather": False,
        "select CWMP, residual added, synthetic, 1%: times one read": False,
        "encode float32, synthetic, 10%: million indices per s": True,
        "select TopK, all equal: times faster than torch.topk + gather": False,
        "select, 1%: memory besides results, of the update": False,
    }


def test_numpy_has_targets_of_its_own_and_other_lengths_have_none():
    timings = [timing(SELECT, topk=1 / 8, argp=1 / 1.9), timing(SELECT, n=1_000_000)]
    found = [(target.limit, target.met) for target in targets.targets(report(timings, status="numpy: not built"))]
    assert found == [(8.0, True), (2.0, False)]


def test_bytes_are_held_against_entropy_and_zstd():
    def size(data, index, payload, zstd):
        return Size(data, 1000, 0.05, 50, {"float32": payload}, index, 100.0, zstd, 600)

    sizes = [size("uniform places", 105.0, 1, 1), size("recorded", 110.1, 93, 100), size("synthetic", 0.0, 94, None)]
    found = [(target.limit, target.met) for target in targets.targets(report(sizes=sizes))]
    assert found == [(1.05, True), (1.10, False), (0.93, True)]


def test_a_figure_is_written_and_another_ending_refused_before_anything_is_measured(tmp_path, load):
    pytest.importorskip("vl_convert", reason="figures are drawn by altair with vl-convert, which is not installed")
    made = [Part("x", (timing(READ, n=load.n), timing(SELECT, n=load.n)), tuple(bench.sizes(load, 0.05)))]
    bench_figure.draw(bench.summarise(made), tmp_path / "speed.svg")
    drawn = (tmp_path / "speed.svg").read_text(encoding="utf-8")
    assert "20,000" in drawn
    assert bench.summarise(made).machine in drawn
    with pytest.raises(ArgumentError, match=r"ends in '.gif'; give one of .svg, .png, .pdf"):
        bench_figure.check(tmp_path / "speed.gif")


# ---------------------------------------------------------------- the command


@pytest.fixture
def joule(joule, tmp_path, monkeypatch):
    """Type `joulewise bench ...`; returns exit code, stdout and stderr."""
    monkeypatch.chdir(tmp_path)
    return partial(joule, "bench")


def test_a_small_run_prints_speed_bytes_and_targets_with_machine_and_kernel(joule):
    code, out, err = joule("--quick", "--n", 20_000, "--density", 0.05, "--rounds", 1)
    assert code == 0
    assert err.splitlines()[0] == "measured: synthetic, n = 20,000, 5.0% kept"
    assert f"kernel: {kernel.status()}" in out.splitlines()[0]
    for name in (READ, SELECT, FUSED, "encode float32", "decode float32", "weighted_mean of 10", STEP, ARGPARTITION):
        assert re.search(rf"^\s*{re.escape(name)}  .*20,000 ", out, re.MULTILINE), name
    assert re.search(r"^\s*uniform places +20,000 +5\.0% ", out, re.MULTILINE)
    assert re.search(r"^\s*index bytes over their entropy, uniform places.* (met|not met)\s*$", out, re.MULTILINE)


def test_json_is_the_report_and_a_recorded_update_stands_beside_made_ones(joule, tmp_path):
    rng = np.random.default_rng(0)
    np.savez(tmp_path / "u.npz", conv=rng.standard_normal((8, 3, 3, 3)), fc=rng.standard_normal((10, 200)))
    plan = ("--n", 20_000, "--density", 0.05, "--threads", 1, "--rounds", 1)
    code, out, _ = joule("--quick", *plan, "--update", "u.npz", "--json")
    assert code == 0
    found = msgspec.json.decode(out, type=Report)
    assert {size.data for size in found.sizes} == {"synthetic", "uniform places", "recorded"}
    assert {(one.data, one.n) for one in found.timings} >= {("synthetic", 20_000), ("recorded", 2216)}
    step = next(one for one in found.timings if one.name == STEP)
    assert step.message_bytes
    assert json.loads(out)["kernel"] == kernel.status()


def test_an_update_of_one_coordinate_and_places_that_are_none_are_shown_too(joule, tmp_path):
    np.savez(tmp_path / "one.npz", a=np.ones(1, np.float32))
    code, out, err = joule("--quick", "--n", 1000, "--density", 0.001, "--rounds", 1, "--update", "one.npz")
    assert (code, "error" in err) == (0, False)
    assert re.search(r"^\s*recorded +1 +0\.1% ", out, re.MULTILINE)
    assert "uniform places" not in out


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (("--density", 0.9), "--density 0.9 is out of range; give a share above 0 and up to 0.5, as in 0.01"),
        (("--n", 10), "--n 10 is out of range; give a number of coordinates from 1,000 to 4,294,967,295"),
        (("--n", 2000, "--n", 10), "--n 10 is out of range; give a number of coordinates from 1,000 to 4,294,967,295"),
        (("--update", "gone.npz"), "--update gone.npz cannot be read: No such file or directory; check the path"),
        (("--update", "resnet18"), "--update resnet18 is not an .npz file; write it with numpy.savez(FILE, **arrays)"),
        (("--figure", "x.gif"), "--figure x.gif ends in '.gif'; give one of .svg, .png, .pdf"),
        (("--figure", "gone/x.svg"), "--figure gone/x.svg: there is no folder gone; make it, or give another one"),
    ],
)
def test_mistakes_are_one_sentence_and_nothing_is_measured(joule, arguments, sentence):
    code, out, err = joule("--quick", *arguments)
    assert code == 2
    assert out == ""
    assert sentence in err
    assert "Traceback" not in err
    assert "measured" not in err
