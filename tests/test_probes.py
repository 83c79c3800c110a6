"""The windows of a calibration, run for real: what they do to arrays and sockets, and what a meter makes of them."""

import contextlib
import socket
import threading
import time

import numpy as np
import pytest
from fake_machine import CACHES, LOOPBACK, FakeMeter, running_sink
from hypothesis import given
from hypothesis import strategies as st

from joulewise import probes, sink
from joulewise.calibrate import DENSITIES, Plan, Probe, findings, idle_power, plan
from joulewise.errors import ArgumentError, CalibrationError
from joulewise.machine import Memory

KIB, MIB, GIB = 1 << 10, 1 << 20, 1 << 30


def small_plan(seconds=0.5, idle=False, payload_bytes=None):
    return plan(CACHES, GIB, seconds, idle=idle, payload_bytes=payload_bytes)


def run(made, meter=None, address=None):
    rng = np.random.default_rng(0)
    return list(probes.measure(made, probes.workspace(made, CACHES, rng), rng, meter, address))


# ---------------------------------------------------------------- arrays


def test_every_window_is_timed_and_none_is_metered_without_a_meter():
    made = small_plan()
    samples = run(made)
    assert sorted(map(str, (sample.probe for sample in samples))) == sorted(map(str, made.probes * 5))
    for sample in samples:
        assert sample.joules is None
        assert sample.calls >= 1
        assert sample.seconds >= made.window_s
        assert 0 < sample.work_s < 1.1 * sample.seconds + 0.02
        if sample.probe.kind == "stream":
            assert sample.amount == sample.probe.size_bytes


def test_a_stream_changes_every_element_and_a_scatter_those_it_counts():
    made, rng = small_plan(), np.random.default_rng(5)
    space = probes.workspace(made, CACHES, rng)
    for density in DENSITIES:
        scatter = space.scatters[density]
        view = scatter.views[3]
        before = view.copy()
        probes._flip(view, scatter)
        (changed,) = np.nonzero(view != before)
        assert np.array_equal(changed, scatter.indices)
        assert len(np.unique(changed // 16)) == scatter.lines
        np.negative(space.values, space.values)  # as a stream does


def test_a_sparse_update_draws_as_many_elements_as_its_density_says():
    made = small_plan()
    space = probes.workspace(made, CACHES, np.random.default_rng(2))
    for density, scatter in space.scatters.items():
        count = len(scatter.views[0])
        # Beyond six standard deviations once in 5e8.
        assert abs(len(scatter.indices) - density * count) <= 6 * (density * count) ** 0.5
        assert scatter.indices[-1] < count
        assert np.all(np.diff(scatter.indices) > 0)


def test_a_scatter_moves_on_by_a_line_for_each_call():
    space = probes.workspace(small_plan(), CACHES, np.random.default_rng(2))
    views = space.scatters[DENSITIES[0]].views
    starts = [view.__array_interface__["data"][0] for view in views]
    assert set(np.diff(starts)) == {64}
    assert len(starts) == probes.SHIFTS


def test_more_bytes_take_longer():
    found = {one.part: one for one in findings(run(small_plan(2.0)), None)}
    assert list(found) == ["L1", "L2", "memory", "lines"]
    assert found["memory"].time.rises
    assert found["lines"].time.slope > found["memory"].time.slope  # a line is more than a byte


def test_a_sweep_takes_about_as_long_as_it_is_told_and_names_levels_in_order():
    began = time.perf_counter()
    found = probes.sweep(0.5, Memory(8 * GIB, 64 * MIB))
    assert time.perf_counter() - began < 5
    capacities = [cache.capacity_bytes for cache in found]
    assert capacities == sorted(set(capacities))
    assert all(capacity < 16 * MIB for capacity in capacities)  # a quarter of what is available was used


# ---------------------------------------------------------------- meters


def test_the_price_of_a_byte_is_power_above_idle_times_its_time():
    samples = run(small_plan(2.0, idle=True), FakeMeter())
    idle = idle_power(samples)
    assert 5.0 <= idle.power_w < 10.0  # waking up from a sleep is a little work
    for finding in findings(samples, idle):
        # Other programs change what a window takes, and so which windows are medians: equal within both intervals.
        half = finding.energy.slope_half + 20.0 * finding.time.slope_half
        assert abs(finding.energy.slope - 20.0 * finding.time.slope) <= half
    assert {sample.domains for sample in samples} == {("core",)}
    assert {sample.note for sample in samples} == {"coarse"}


def test_a_sensor_that_vanishes_in_the_middle_ends_it_and_gives_no_number():
    meter, words = FakeMeter(windows=20), r"no reading in a window of .*went away in the open window.* no price"
    with pytest.raises(CalibrationError, match=words) as error:
        run(small_plan(0.2, idle=True), meter)
    assert len(meter.opened) == 21
    assert "--watts" in str(error.value)


def test_a_sensor_that_begins_to_see_something_else_ends_it_too():
    with pytest.raises(CalibrationError, match="the sensor saw core at first, and core, dram in a window of"):
        run(small_plan(0.2, idle=True), FakeMeter(moves=9))


def test_a_window_that_is_stopped_is_closed():
    closed = []

    class Watched(FakeMeter):
        def end(self, mark):
            closed.append(mark)
            return super().end(mark)

    made = Plan(probes=(Probe("send", "link", 64),), window_s=0.01, idle=False)
    with running_sink() as (address, _):
        rng = np.random.default_rng(0)
        space = probes.workspace(Plan((Probe("stream", "L1", 64), *made.probes), 0.01, False), CACHES, rng)
        windows = probes.measure(made, space, rng, Watched(), address)
        next(windows)
        windows.close()
    assert len(closed) == 1


# ---------------------------------------------------------------- sends


def test_sends_arrive_whole_and_are_acknowledged():
    with running_sink() as (address, served):
        with sink.connect(address) as connection:
            for payload in (b"", b"x", bytes(200_000)):
                sink.send(connection, payload, address)
        deadline = time.monotonic() + 5
        while not served and time.monotonic() < deadline:
            time.sleep(0.01)
    assert served == [sink.Served(LOOPBACK, 3, 200_001, "")]


def test_the_link_gets_a_line_of_its_own():
    with running_sink() as (address, served):
        largest = probes.largest_payload(address)
        assert probes.SMALLEST_PAYLOAD <= largest <= probes.LARGEST_PAYLOAD
        samples = run(small_plan(1.0, payload_bytes=largest), None, address)
    link = findings(samples, None)[-1]
    assert link.part == "link"
    assert link.time.points == 6
    assert link.time.slope > 0
    assert all(sample.work_s == sample.seconds for sample in samples if sample.probe.kind == "send")
    assert not any(one.fault for one in served)


@pytest.mark.parametrize(
    ("sent", "fault"),
    [
        (b"GET / HTTP/1.1\r\n\r\n", "not a sender of joulewise"),
        (b"JW", "not a sender of joulewise"),
        (sink.HEADER.pack(sink.MAGIC, 2**32 - 1), "a payload of 4294967295 bytes, more than 1073741824"),
        (sink.HEADER.pack(sink.MAGIC, 10) + b"123", "closed 7 bytes before the end of a payload"),
    ],
)
def test_a_sink_closes_whatever_is_no_sender_and_goes_on(sent, fault):
    with running_sink() as (address, served):
        # The sink may have hung up already, which Linux tells in several ways.
        with socket.create_connection((address.host, address.port)) as connection, contextlib.suppress(OSError):
            connection.sendall(sent)
            connection.shutdown(socket.SHUT_WR)
            assert connection.recv(10) == b""
        with sink.connect(address) as connection:
            sink.send(connection, b"after", address)
    assert served[0].fault == fault
    assert served[0].messages == 0


def answering(answer: bytes):
    """The address of something that answers every message with `answer` and hangs up."""
    server = socket.create_server((LOOPBACK, 0))

    def run():
        connection, _ = server.accept()
        with server, connection:
            connection.recv(1 << 16)
            connection.sendall(answer)

    threading.Thread(target=run, daemon=True).start()
    return sink.Address(LOOPBACK, server.getsockname()[1])


@pytest.mark.parametrize("answer", [b"", b"\x01", b"HTTP/1.1 400 Bad Request\r\n\r\n"])
def test_something_else_than_a_sink_is_told_apart(answer):
    address = answering(answer)
    with (
        pytest.raises(CalibrationError, match=r"does not answer as a sink does|went away"),
        sink.connect(address) as connection,
    ):
        sink.send(connection, b"hello", address)


def test_a_sink_that_is_not_there_names_the_command_to_run_there():
    with socket.create_server((LOOPBACK, 0)) as server:
        address = sink.Address(LOOPBACK, server.getsockname()[1])
    with pytest.raises(CalibrationError, match=rf"no connection to sink {address}: .*--serve {address.port}`"):
        sink.connect(address)


def test_a_port_that_is_taken_says_so():
    with sink.listen(0) as server, pytest.raises(CalibrationError, match="in use"):
        sink.listen(server.getsockname()[1])


@pytest.mark.parametrize(
    "text", ["", "host", ":1", "host:", "host:0", "host:65536", "host:9x", "::1:80", "a b:1", "[::1]", "[]:1"]
)
def test_what_is_no_address_is_refused(text):
    with pytest.raises(ArgumentError, match="expected HOST:PORT"):
        sink.parse_address(text)


@given(host=st.sampled_from(["localhost", "192.0.2.7", "::1", "fe80::1"]), port=st.integers(1, 65535))
def test_an_address_is_read_as_it_is_written(host, port):
    address = sink.Address(host, port)
    assert sink.parse_address(str(address)) == address
