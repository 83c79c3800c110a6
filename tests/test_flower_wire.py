"""The example deployed as its README says: the bits of this process, and bytes on the wire beside joulewise's count."""

import deployment
import example_app
import flower_wire
import pytest

pytestmark = [
    pytest.mark.deployment,
    pytest.mark.skipif(deployment.missing() is not None, reason=str(deployment.missing())),
]
ROUNDS = 2


@pytest.fixture(scope="module")
def found(tmp_path_factory):
    return flower_wire.compare(tmp_path_factory.mktemp("wire") / "deployment", ROUNDS)


def test_a_deployment_gives_the_bits_of_this_process(found, tmp_path):
    expected = example_app.run({"num-server-rounds": ROUNDS}, example_app.node_configs(tmp_path))
    for start in ("round ", "model "):
        assert deployment.printed(found.sparse.output, start) == deployment.printed(expected, start)


def test_payloads_are_seventy_times_smaller_and_the_wire_carries_all_of_them(found):
    assert found.dense.payload_up > 70 * found.sparse.payload_up
    for run in (found.dense, found.sparse):
        assert run.wire.up > run.payload_up
        assert run.wire.down > run.payload_down


def test_what_the_wire_carries_beside_payloads_is_a_few_kilobytes_for_each_request(found):
    for run in (found.dense, found.sparse):
        assert 200 < run.overhead_up < 4000
        assert 100 < run.overhead_down < 4000
    # What is left is a few requests more, with which the dense app fetches whole models.
    difference = found.dense.wire.up - found.sparse.wire.up
    payloads = found.dense.payload_up - found.sparse.payload_up
    assert difference == pytest.approx(payloads, rel=0.2)


def test_idle_supernodes_ask_every_few_seconds_and_take_less_than_a_kilobyte_a_second(found):
    each = found.nodes * flower_wire.IDLE_S
    assert 0 < found.idle.up / each < 1000
    assert 0 < found.idle.down / each < 1000
