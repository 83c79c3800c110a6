"""Calibration without a clock: caches, plans, lines through medians, and the profile that they become."""

import math
import tomllib

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.optimize import curve_fit
from scipy.stats import binom

from joulewise import load_device
from joulewise.calibrate import REPEATS, Probe, Sample, assumed, findings, idle_power, plan
from joulewise.calibrated import Origin, make_device, to_toml, write
from joulewise.devices import describe
from joulewise.errors import CalibrationError, OutputError
from joulewise.machine import Cache, find_caches, find_memory, host_kind, infer_caches
from joulewise.plausible import check
from joulewise.regression import fit, half_width

KIB, MIB, GIB = 1 << 10, 1 << 20, 1 << 30
CACHES = (Cache(1, 32 * KIB, 64, "reported"), Cache(2, 512 * KIB, 64, "reported"), Cache(3, 32 * MIB, 64, "reported"))
REST = Probe("idle", "idle")
IDLE_W = 3.0
# Seconds and joules of a call that moves nothing, and of each byte or line more.
TRUE = {
    "L1": (5e-7, 2e-11, 2e-6, 4e-11),
    "L2": (5e-7, 3e-11, 2e-6, 6e-11),
    "L3": (5e-7, 5e-11, 2e-6, 2e-10),
    "memory": (5e-7, 1e-10, 2e-6, 8e-10),
    "lines": (2e-6, 2e-8, 9e-6, 9e-8),
    "link": (1e-4, 4e-9, 7e-4, 1.6e-8),
}
METERED = Origin(host="a board", date="2026-11-22", version="0", meter="a sensor (core)")


def readings(rng: np.random.Generator, noise: float = 0.01, metered: bool = True) -> list[Sample]:
    """What the windows of a whole calibration would read on a machine whose prices are `TRUE`."""
    made = []
    for probe in plan(CACHES, 8 * GIB, 60.0, idle=True, payload_bytes=4 * MIB).order(rng):
        amount, calls, seconds, joules = 0, 1, 0.3, 0.0
        if probe != REST:
            fixed_s, per_s, fixed_j, per_j = TRUE[probe.part]
            amount = int(probe.size_bytes * probe.density / 4) if probe.kind == "scatter" else probe.size_bytes
            call_s = fixed_s + per_s * amount
            calls = max(1, round(0.3 / call_s))
            seconds = calls * call_s * rng.normal(1.0, noise)
            joules = calls * (fixed_j + per_j * amount) * rng.normal(1.0, noise)
        joules += IDLE_W * seconds * rng.normal(1.0, noise / 10)
        made.append(Sample(probe, amount, calls, seconds, seconds, joules if metered else None, ("core",)))
    return made


@pytest.fixture(scope="module")
def found():
    samples = readings(np.random.default_rng(3))
    idle = idle_power(samples)
    return findings(samples, idle), idle


# ---------------------------------------------------------------- lines


def test_a_line_is_that_of_scipys_curve_fit_with_the_same_weights():
    rng = np.random.default_rng(0)
    x = np.array([1e3, 5e3, 2e4, 1e5, 4e5])
    y = (2e-6 + 3e-11 * x) * rng.normal(1, 0.05, 5)
    line = fit(x, y, y)
    scaled, covariance = curve_fit(lambda x, a, b: a + b * x, x / 1e5, y * 1e6, sigma=y * 1e6)
    assert line.intercept == pytest.approx(scaled[0] / 1e6, rel=1e-6)
    assert line.slope == pytest.approx(scaled[1] / 1e11, rel=1e-6)
    student = 3.182446305284264  # 97.5 % of Student's t with 3 degrees of freedom, from a printed table
    assert line.slope_half == pytest.approx(student * math.sqrt(covariance[1, 1]) / 1e11, rel=1e-4)
    assert line.intercept_half == pytest.approx(student * math.sqrt(covariance[0, 0]) / 1e6, rel=1e-4)


def test_the_interval_covers_the_true_slope_as_often_as_it_says():
    rng, x, runs = np.random.default_rng(1), np.geomspace(64, 1e6, 7), 2000
    true = 3e-6 + 2e-10 * x
    lines = [fit(x, true * rng.normal(1, 0.02, 7), true) for _ in range(runs)]
    covered = sum(abs(line.slope - 2e-10) <= line.slope_half for line in lines)
    # False alarm once in a million runs.
    assert binom.ppf(5e-7, runs, 0.95) <= covered <= binom.ppf(1 - 5e-7, runs, 0.95)


@given(
    slope=st.floats(1e-12, 1e3),
    intercept=st.floats(0, 1e3),
    x=st.lists(st.integers(1, 10**9), min_size=3, max_size=9, unique=True),
)
def test_points_on_a_line_give_that_line_and_no_note(slope, intercept, x):
    y = [intercept + slope * one for one in x]
    line = fit(x, y, [1.0] * len(x))
    assert line.slope == pytest.approx(slope, rel=1e-6, abs=1e-9 * max(y) / max(x))
    assert line.points == len(x)
    assert line.worst < 1e-3


@pytest.mark.parametrize(
    ("y", "words"),
    [([1, 2, 3, 4, 9], "misses one of the 5 points by"), ([10, 11, 10, 11, 10.5], "explains little of the spread")],
)
def test_a_line_that_does_not_fit_says_so(y, words):
    line = fit([1, 2, 3, 4, 5], y, [1.0] * 5)
    assert words in line.note


def test_a_slope_within_its_interval_of_nought_is_no_rise():
    assert not fit([1, 2, 3, 4], [5.0, 5.1, 4.9, 5.05], [1.0] * 4).rises
    assert fit([1, 2, 3, 4], [5.0, 6.1, 6.9, 8.05], [1.0] * 4).rises


@pytest.mark.parametrize("x", [[], [1, 2], [3, 3, 3]])
def test_too_few_points_are_refused(x):
    with pytest.raises(ValueError, match="at least 3 points"):
        fit(x, x, x) if x else fit(x, [], [])


def test_the_interval_of_one_value_is_everything():
    assert half_width([1.0]) == math.inf


# ---------------------------------------------------------------- machines


def cache_tree(root, *rows):
    for number, (level, kind, size, line) in enumerate(rows):
        folder = root / f"sys/devices/system/cpu/cpu0/cache/index{number}"
        folder.mkdir(parents=True)
        for name, content in (("level", level), ("type", kind), ("size", size), ("coherency_line_size", line)):
            if content is not None:
                (folder / name).write_text(f"{content}\n")
    return root


def test_caches_that_hold_data_are_read_as_linux_writes_them(tmp_path):
    rows = [
        (1, "Data", "48K", 64),
        (1, "Instruction", "32K", 64),
        (3, "Unified", "24M", 128),
        (2, "Unified", "1280K", None),
    ]
    assert find_caches(cache_tree(tmp_path, *rows)) == (
        Cache(1, 48 * KIB, 64, "reported"),
        Cache(2, 1280 * KIB, None, "reported"),
        Cache(3, 24 * MIB, 128, "reported"),
    )


@pytest.mark.parametrize(
    "row", [("x", "Data", "48K", 64), (1, "Data", "0K", 64), (1, "Data", None, 64), (1, "Data", "a lot", 64)]
)
def test_a_cache_that_linux_does_not_describe_is_none(tmp_path, row):
    assert find_caches(cache_tree(tmp_path, row)) == ()


def test_memory_and_kind_of_machine_are_those_of_proc(tmp_path):
    (tmp_path / "proc").mkdir()
    (tmp_path / "proc/meminfo").write_text("MemTotal:  8000 kB\nMemFree: 1 kB\nMemAvailable:   6000 kB\n")
    (tmp_path / "proc/cpuinfo").write_text("model name\t: Fast CPU 9\nflags\t\t: fpu hypervisor sse\n")
    memory = find_memory(tmp_path)
    assert (memory.total_bytes, memory.available_bytes) == (8000 * KIB, 6000 * KIB)
    assert host_kind(tmp_path).startswith("Fast CPU 9, ")
    assert host_kind(tmp_path).endswith(", a virtual machine")
    (tmp_path / "proc/device-tree").mkdir()
    (tmp_path / "proc/device-tree/model").write_text("Small Board 5\0")
    assert host_kind(tmp_path).startswith("Small Board 5, ")


def test_without_proc_something_is_known_all_the_same(tmp_path):
    assert find_memory(tmp_path).total_bytes == 2 * find_memory(tmp_path).available_bytes > 0
    assert host_kind(tmp_path)


@given(seed=st.integers(0, 999), noise=st.floats(0, 0.05))
def test_a_sweep_shows_caches_to_within_one_step_and_a_disturbed_window_is_no_cache(seed, noise):
    rng = np.random.default_rng(seed)
    sizes = [2**power for power in range(13, 28)]
    seconds = np.array([1.0 if size <= 32 * KIB else 1.6 if size <= 512 * KIB else 4.0 for size in sizes])
    seconds *= rng.uniform(1, 1 + noise, len(sizes))
    seconds[rng.integers(0, len(sizes) - 1)] *= 3  # another program ran meanwhile
    found = infer_caches(sizes, seconds.tolist())
    assert [cache.level for cache in found] == [1, 2]
    assert [cache.capacity_bytes for cache in found] in (
        [a, b] for a in (16 * KIB, 32 * KIB) for b in (256 * KIB, 512 * KIB)
    )


# ---------------------------------------------------------------- plans


@given(
    capacities=st.lists(st.integers(13, 27), max_size=4, unique=True),
    seconds=st.floats(1, 600),
    payload=st.none() | st.integers(16 * KIB, 4 * MIB),
)
def test_a_working_set_lies_in_its_own_level_alone(capacities, seconds, payload):
    caches = [Cache(number + 1, 2**power, 64, "reported") for number, power in enumerate(sorted(capacities))]
    made = plan(caches, 64 * GIB, seconds, idle=True, payload_bytes=payload)
    by_name = {cache.name: cache for cache in caches}
    for probe in made.probes:
        if probe.kind == "stream" and probe.size_bytes > 64:
            cache = by_name.get(probe.part)
            before = [one.capacity_bytes for one in caches if cache is None or one.level < cache.level]
            assert probe.size_bytes > max(before, default=0)
            assert cache is None or probe.size_bytes <= cache.capacity_bytes
    assert ("link" in {probe.part for probe in made.probes}) == (payload is not None)
    assert made.windows * made.window_s == pytest.approx(seconds)


def test_every_probe_comes_equally_often_in_random_order_between_rests():
    made = plan(CACHES, 8 * GIB, 60.0, idle=True)
    order = made.order(np.random.default_rng(0))
    assert len(order) == made.windows
    assert order[:3] == order[-3:] == (REST,) * 3
    assert {order.count(probe) for probe in made.probes} == {REPEATS}
    assert order != made.order(np.random.default_rng(1))
    assert REST not in plan(CACHES, 8 * GIB, 60.0, idle=False).order(np.random.default_rng(0))


def test_too_little_memory_for_a_set_beyond_the_caches_is_an_error():
    with pytest.raises(CalibrationError, match=r"\(32 MiB\) need 384 MiB of free memory, but 300 MiB are free"):
        plan(CACHES, 300 * MIB, 60.0, idle=False)


# ---------------------------------------------------------------- findings


def test_known_prices_come_back_within_their_intervals():
    covered = dict.fromkeys(TRUE, 0)
    for seed in range(100):
        samples = readings(np.random.default_rng(seed))
        found = findings(samples, idle_power(samples))
        assert [finding.part for finding in found] == list(TRUE)
        for finding in found:
            covered[finding.part] += abs(finding.energy.slope - TRUE[finding.part][3]) <= finding.energy.slope_half
    # 95 of 100 are due; below 82 once in a million runs.
    assert min(covered.values()) >= binom.ppf(1e-6, 100, 0.95)


def test_known_prices_come_back_to_a_few_percent(found):
    for finding in found[0]:
        _, per_s, _, per_j = TRUE[finding.part]
        assert finding.time.slope == pytest.approx(per_s, rel=0.03)
        assert finding.energy.slope == pytest.approx(per_j, rel=0.1)
        assert finding.energy.note is None
    link = found[0][-1]
    assert link.energy.intercept == pytest.approx(7e-4, rel=0.05)
    assert link.time.intercept == pytest.approx(1e-4, rel=0.05)
    assert found[1].power_w == pytest.approx(IDLE_W, rel=0.01)


def test_energy_without_noise_is_exact_and_idle_power_is_taken_off():
    samples = readings(np.random.default_rng(0), noise=0.0)
    for finding in findings(samples, idle_power(samples)):
        assert finding.energy.slope == pytest.approx(TRUE[finding.part][3], rel=1e-6)
        assert finding.energy.intercept == pytest.approx(TRUE[finding.part][2], rel=1e-4)


def test_a_part_with_one_window_that_was_not_metered_has_no_energy():
    samples = readings(np.random.default_rng(0))
    place = next(place for place, sample in enumerate(samples) if sample.probe.part == "L2")
    lost = samples[place]
    samples[place] = Sample(lost.probe, lost.amount, lost.calls, lost.seconds, lost.work_s)
    energies = {finding.part: finding.energy for finding in findings(samples, idle_power(samples))}
    assert [part for part, energy in energies.items() if energy is None] == ["L2"]


def test_without_idle_power_nothing_has_an_energy():
    samples = [sample for sample in readings(np.random.default_rng(0)) if sample.probe != REST]
    assert idle_power(samples) is None
    assert all(finding.energy is None for finding in findings(samples, None))
    rests = [Sample(REST, 0, 1, 1.0, 0.0, joules) for joules in (1.0, None, 1.0, 1.0)]
    assert idle_power(rests) is None


def test_idle_power_that_drifts_says_so_and_widens_every_interval():
    rests = [Sample(REST, 0, 1, 1.0, 0.0, joules) for joules in (3.0, 3.0, 3.0, 4.0, 4.0, 4.0)]
    idle = idle_power(rests)
    assert idle.power_w == pytest.approx(3.5)
    assert idle.half_w >= 0.5
    assert idle.note == "idle power was 29 % higher after than before"
    samples = readings(np.random.default_rng(0), noise=0.0)
    for finding in findings(samples, idle):
        assert finding.energy.slope_half >= 0.5 * finding.time.slope


def test_one_disturbed_window_moves_no_median():
    samples = readings(np.random.default_rng(0), noise=0.0)
    place = next(place for place, sample in enumerate(samples) if sample.probe.part == "memory")
    lost = samples[place]
    samples[place] = Sample(lost.probe, lost.amount, lost.calls, 9 * lost.seconds, 9 * lost.work_s, 9 * lost.joules)
    memory = next(one for one in findings(samples, idle_power(samples)) if one.part == "memory")
    assert memory.energy.slope == pytest.approx(TRUE["memory"][3], rel=1e-6)


# ---------------------------------------------------------------- profiles


def test_a_measured_profile_holds_what_was_found_and_says_how(found, tmp_path):
    device = make_device("mine", *found, CACHES, 16 * GIB, METERED)
    file = tmp_path / "mine.toml"
    write(file, to_toml(device, ("made by a test",)), force=False)
    loaded = load_device(file)
    assert loaded == device
    assert loaded.memory.dram.read.si == pytest.approx(8e-10 / 16, rel=0.1)
    assert loaded.memory.sram.read.si == pytest.approx(2e-10 / 16, rel=0.1)
    assert loaded.link.up.marginal.si == pytest.approx(1.6e-8 / 8, rel=0.1)
    assert loaded.link.up.goodput.si == pytest.approx(8 / 4e-9, rel=0.05)
    assert loaded.link.fixed.si == pytest.approx(7e-4, rel=0.1)
    assert loaded.idle_power.si == loaded.link.base_power.si == pytest.approx(3.0, rel=0.01)
    assert (loaded.memory.sram.capacity.si, loaded.memory.dram.capacity.si) == (32 * MIB, 16 * GIB)
    assert loaded.memory.sram.line.si == 64
    energies = {entry for entry in describe(loaded) if "capacity" not in entry.path and "line" not in entry.path}
    assert {entry.kind for entry in energies} == {"measured"}
    for entry in energies:
        assert all(
            words in entry.source
            for words in ("a board", "2026-11-22", "(95 %)" if "goodput" not in entry.path else "R2")
        )
    assert all("R2 = " in entry.source for entry in energies if entry.path.endswith((".read", ".write", ".marginal")))
    assert "for each line touched" in loaded.memory.dram.read.source
    assert "L1 " in loaded.memory.sram.read.source


def test_assumed_watts_are_seen_on_every_energy_and_never_on_a_time():
    samples = readings(np.random.default_rng(0), metered=False)
    found = [assumed(finding, 10.0) for finding in findings(samples, None)]
    device = make_device(
        "mine", found, None, CACHES, GIB, Origin(host="a board", date="2026-11-22", version="0", watts=10)
    )
    assert device.memory.dram.read.si == pytest.approx(10 * 1e-10 / 16, rel=0.05)
    assert device.idle_power is device.link.base_power is None
    kinds = {entry.path: entry.kind for entry in describe(device)}
    assert kinds["link.up.goodput"] == "measured"
    assert {kinds[path] for path in kinds if path.endswith(("read", "write", "marginal", "fixed"))} == {"assumed"}
    assert all("10 W (--watts)" in entry.source for entry in describe(device) if entry.kind == "assumed")
    assert "assumed from 10 W" in device.description


def test_what_does_not_rise_has_no_price_and_nothing_at_all_is_an_error(found):
    (flat,) = findings(
        [Sample(Probe("stream", "memory", size), size, 1, 1.0, 1.0, 5.0) for size in (100, 200, 300, 400)], found[1]
    )
    device = make_device(
        "mine", [*(one for one in found[0] if one.part != "memory"), flat], found[1], CACHES, GIB, METERED
    )
    assert device.memory.dram is None
    assert device.memory.sram is not None
    with pytest.raises(CalibrationError, match="there is no price to write"):
        make_device("mine", [flat], found[1], CACHES, GIB, METERED)


def test_the_largest_cache_with_a_price_is_the_one_of_the_profile(found):
    few = [one for one in found[0] if one.part in {"L1", "L2"}]
    device = make_device("mine", few, found[1], CACHES, GIB, METERED)
    assert device.memory.sram.capacity.si == 512 * KIB
    assert "L2" in device.memory.sram.read.source


def test_a_cache_of_a_sweep_has_a_measured_capacity(found):
    caches = (Cache(1, 32 * KIB, None, "swept"), Cache(2, 512 * KIB, None, "swept"))
    device = make_device("mine", [one for one in found[0] if one.part != "L3"], found[1], caches, GIB, METERED)
    assert device.memory.sram.capacity.kind == "measured"
    assert device.memory.sram.line is device.memory.dram.line is None


@given(text=st.text(), remark=st.text())
def test_any_text_survives_the_file(found, text, remark):
    origin = Origin(host="x" + text, date="2026-11-22", version="0", meter="m")
    device = make_device("n" + text, *found, CACHES, GIB, origin)
    readable = tomllib.loads(to_toml(device, (remark,)))
    assert readable["name"] == "n" + text.encode("utf-8", "replace").decode()
    assert readable["schema"] == 1


@pytest.mark.parametrize("watts", [None, 2.0, 15.0, 60.0])
def test_a_calibrated_profile_is_plausible(found, watts):
    lines, idle = found if watts is None else ([assumed(one, watts) for one in found[0]], None)
    origin = METERED if watts is None else Origin(host="a board", date="2026-11-22", version="0", watts=watts)
    device = make_device("mine", lines, idle, CACHES, GIB, origin)
    assert not [remark.text for remark in check(device) if remark.severity == "warning"]


# ---------------------------------------------------------------- files


def test_a_file_that_is_there_stays_without_force(tmp_path):
    file = tmp_path / "mine.toml"
    file.write_text("precious")
    with pytest.raises(OutputError, match=r"mine\.toml is there already; give another name, or --force"):
        write(file, "new", force=False)
    assert file.read_text() == "precious"
    write(file, "new", force=True)
    assert file.read_text() == "new"
    assert list(tmp_path.iterdir()) == [file]


def test_a_file_that_appears_meanwhile_stays_too(tmp_path, monkeypatch):
    file = tmp_path / "mine.toml"
    monkeypatch.setattr("joulewise.calibrated.refuse_existing", lambda *_: file.write_text("precious"))
    with pytest.raises(OutputError, match="cannot be written: File exists"):
        write(file, "new", force=False)
    assert file.read_text() == "precious"
    assert list(tmp_path.iterdir()) == [file]


def test_a_file_system_without_hard_links_is_written_all_the_same(tmp_path, monkeypatch):
    def refuse(*_):
        raise PermissionError(1, "Operation not permitted")

    monkeypatch.setattr("pathlib.Path.hardlink_to", refuse)
    write(tmp_path / "mine.toml", "new", force=False)
    assert [(file.name, file.read_text()) for file in tmp_path.iterdir()] == [("mine.toml", "new")]


def test_a_writing_that_fails_leaves_nothing(tmp_path, monkeypatch):
    def fail(_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", fail)
    with pytest.raises(OutputError, match="No space left"):
        write(tmp_path / "mine.toml", "new", force=False)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("name", "words"), [(".", "is a folder"), ("nowhere/mine.toml", "is not there or may not be written")]
)
def test_a_place_that_cannot_hold_a_file_is_named(tmp_path, name, words):
    with pytest.raises(OutputError, match=words):
        write(tmp_path / name, "new", force=False)
