"""The adapter of Zeus: what it adds up, and what it does not believe."""

import sys
from types import ModuleType

import pytest
from fake_zeus import AppleSiliconMeasurement, JetsonMeasurement, Measurement, ZeusMonitor

from joulewise import zeus
from joulewise.errors import MeterError
from joulewise.meters import Mark, find_meters, readable, survey
from joulewise.zeus import ZeusMeter


def read(result, **monitor):
    meter = ZeusMeter(ZeusMonitor(result=result, **monitor))
    return meter.end(meter.begin())


def test_gpus_packages_and_memory_are_added_and_not_the_total_of_zeus():
    result = Measurement(2.0, {0: 100.0, 1: 50.0}, cpu_energy={0: 30.0}, dram_energy={0: 4.0})
    reading = read(result, gpu_indices=[0, 1], cpu_indices=[0])
    assert reading.joules == pytest.approx(184.0)
    assert result.total_energy == 150.0
    assert reading.domains == ("gpu0", "gpu1", "cpu0", "dram0")
    assert (reading.basis, reading.window_s, reading.note) == ("measured", 2.0, "")


def test_a_machine_on_which_zeus_measures_nothing_is_unavailable_and_not_0():
    reading = read(Measurement(2.0, {}))
    assert (reading.joules, reading.basis, reading.note) == (None, "unavailable", zeus.EMPTY)
    assert ZeusMeter(ZeusMonitor()).fault() == zeus.EMPTY


def test_a_system_on_a_chip_is_in_millijoules_and_its_total_holds_its_parts():
    jetson = JetsonMeasurement(cpu_energy_mj=2500.0, gpu_energy_mj=1500.0, total_energy_mj=9000.0)
    reading = read(Measurement(1.0, {0: 1.5}, soc_energy=jetson), gpu_indices=[0], soc_is_present=True)
    assert (reading.joules, reading.domains) == (pytest.approx(9.0), ("soc",))
    parts = JetsonMeasurement(cpu_energy_mj=2500.0)
    assert read(Measurement(1.0, {}, soc_energy=parts), soc_is_present=True).joules == pytest.approx(2.5)


def test_clusters_of_a_chip_are_not_added_to_its_cpu():
    apple = AppleSiliconMeasurement(cpu_total_mj=4000, performance_cluster_mj=[3000], dram_mj=500, gpu_mj=1000)
    reading = read(Measurement(1.0, {}, soc_energy=apple), soc_is_present=True)
    assert reading.joules == pytest.approx(5.5)
    assert reading.domains == ("soc/cpu_total", "soc/gpu", "soc/dram")


def test_packages_that_may_not_be_read_are_named():
    reading = read(Measurement(1.0, {0: 10.0}), gpu_indices=[0], cpu_indices=[0])
    assert (reading.joules, reading.domains) == (10.0, ("gpu0",))
    assert "packages are not in it" in reading.note


def test_a_window_shorter_than_a_gpus_counter_is_unavailable():
    reading = read(Measurement(0.01, {0: 0.0}), gpu_indices=[0])
    assert (reading.joules, reading.basis) == (None, "unavailable")
    assert "gpu0 read 0 J, which a window shorter than a step of its counter does" in reading.note
    one = read(Measurement(0.01, {0: 0.0, 1: 2.0}), gpu_indices=[0, 1])
    assert (one.joules, one.domains) == (2.0, ("gpu1",))
    assert "gpu0 read 0 J" in one.note


@pytest.mark.parametrize("joules", [-5.0, float("nan"), float("inf")])
def test_a_counter_that_was_reset_gives_no_joule(joules):
    reading = read(Measurement(1.0, {0: joules, 1: 9.0}), gpu_indices=[0, 1])
    assert reading.joules is None
    assert "was reset" in reading.note


def test_windows_may_overlap():
    meter = ZeusMeter(ZeusMonitor(gpu_indices=[0], result=Measurement(1.0, {0: 2.0})))
    outer, inner = meter.begin(), meter.begin()
    assert (meter.end(inner).joules, meter.end(outer).joules) == (2.0, 2.0)
    assert meter.fault() == ""
    assert meter.monitor.measurement_states == {}


def test_a_driver_that_fails_is_a_note_and_no_exception():
    class Broken(ZeusMonitor):
        def begin_window(self, key, sync_execution=True, restart=False):
            raise OSError("NVML: GPU is lost")

    meter = ZeusMeter(Broken(gpu_indices=[0]))
    assert meter.end(meter.begin()).note == "Zeus could not begin a window: OSError: NVML: GPU is lost"
    assert "GPU is lost" in meter.fault()
    assert readable([meter]) == ()
    lost = ZeusMeter(ZeusMonitor(gpu_indices=[0]))
    mark = lost.begin()
    lost.monitor.measurement_states.clear()
    assert "Zeus could not end a window: ValueError" in lost.end(mark).note


def test_a_mark_of_another_meter_is_refused():
    with pytest.raises(MeterError, match="was opened by meter 'battery'"):
        ZeusMeter(ZeusMonitor()).end(Mark("battery", None))


@pytest.fixture
def installed(monkeypatch):
    """Zeus as a package, whose monitors are like the one that a test gives."""

    def _install(make):
        package, monitor = ModuleType("zeus"), ModuleType("zeus.monitor")
        monitor.ZeusMonitor = make
        monkeypatch.setitem(sys.modules, "zeus", package)
        monkeypatch.setitem(sys.modules, "zeus.monitor", monitor)
        monkeypatch.setattr(zeus, "installed", lambda: True)

    return _install


def test_zeus_is_found_where_it_is_installed_and_leaves_packages_to_powercap(installed):
    asked = []

    def make(**options):
        asked.append(options)
        return ZeusMonitor(gpu_indices=[0], result=Measurement(1.0, {0: 3.0}))

    installed(make)
    assert "zeus" in [meter.name for meter in find_meters()]
    assert asked == [{"cpu_indices": []}]
    assert [one.domains for one in survey() if one.name == "zeus"] == [("gpu0",)]


@pytest.mark.parametrize(
    ("make", "why"),
    [
        (lambda **_: ZeusMonitor(), zeus.EMPTY),
        (lambda **_: 1 / 0, "Zeus could not start: ZeroDivisionError: division by zero"),
    ],
)
def test_zeus_without_a_gpu_or_with_a_broken_driver_is_no_meter(installed, make, why):
    installed(make)
    assert "zeus" not in [meter.name for meter in find_meters()]
    assert [(one.readable, one.note) for one in survey() if one.name == "zeus"] == [(False, why)]


def test_zeus_that_is_not_installed_names_its_line(monkeypatch, tmp_path):
    monkeypatch.setattr(zeus, "installed", lambda: False)
    assert 'pip install "joulewise[zeus]"' in survey()[-1].note
    assert find_meters(tmp_path) == ()
