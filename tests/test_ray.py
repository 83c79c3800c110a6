"""Flower's simulation on Ray: the same bits as in this process, clear errors, and nothing left behind."""

import dataclasses
import logging
import os
import subprocess
import threading

import msgspec
import pytest
from studies_of_flower import SPARSE, arm, bits
from test_flower_batteries import FIXED_J, HUNGRY, ROUND_J, powered

from joulewise.compress import Compressor, ErrorFeedback
from joulewise.errors import FederationError
from joulewise.fleet import OnePrice
from joulewise.flower.app import federate
from joulewise.pacing import Battery
from joulewise.rules import CWMP, Density, TopK

ray = pytest.importorskip("ray")


def children():
    """Ids of the processes that this one has started, and which are still there."""
    found = subprocess.run(["ps", "-o", "pid=,ppid=,stat=", "-A"], capture_output=True, text=True, check=True)
    rows = [line.split() for line in found.stdout.splitlines()]
    family, grown = {str(os.getpid())}, True
    while grown:
        more = {pid for pid, parent, stat in rows if parent in family and "Z" not in stat} - family
        family, grown = family | more, bool(more)
    alive = {pid for pid in family if os.path.exists(f"/proc/{pid}")}  # noqa: PTH110
    return alive - {str(os.getpid())}


def lasting_threads():
    """Threads that would keep this process from ending."""
    return {thread.name for thread in threading.enumerate() if not thread.daemon}


@pytest.fixture(scope="module", autouse=True)
def own_home(tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("FLWR_HOME", str(tmp_path_factory.mktemp("flwr")))
        yield


@pytest.fixture(scope="module")
def engine():
    """The first rounds of a long federation, closed while it runs, and what was there before and after."""
    before = children(), lasting_threads(), os.environ.get("PYTHONPATH"), logging.getLogger("flwr").level
    rounds = federate(arm(SPARSE, rounds=1000, clients=3), 0, engine="ray")
    outcomes = [next(rounds), next(rounds), next(rounds)]
    during = children()
    rounds.close()
    after = children(), lasting_threads(), os.environ.get("PYTHONPATH"), logging.getLogger("flwr").level
    return outcomes, before, during, after


def test_rounds_have_the_same_bits_as_in_this_process(engine):
    outcomes, *_ = engine
    assert bits(outcomes, checkpoint=False) == bits(federate(arm(SPARSE, rounds=3, clients=3), 0), checkpoint=False)
    assert [outcome.checkpoint for outcome in outcomes] == [None, None, None]


def test_a_federation_that_is_closed_early_leaves_nothing_behind(engine):
    _, before, during, after = engine
    assert len(during) > len(before[0])
    assert after[0] <= before[0]
    assert after[1:] == before[1:]
    assert not ray.is_initialized()


def test_nodes_that_are_asked_before_have_the_same_bits():
    which = arm(Compressor(CWMP(), Density(0.05), feedback=ErrorFeedback()), rounds=2, clients=3)
    allocation = OnePrice(share=0.05, control="asked")
    which = dataclasses.replace(which, strategy=msgspec.structs.replace(which.strategy, allocation=allocation))
    found = list(federate(which, 0, engine="ray"))
    assert bits(found, checkpoint=False) == bits(federate(which, 0), checkpoint=False)
    assert all(client.allowed is not None for outcome in found for client in outcome.clients)


def test_an_error_of_a_client_reaches_the_caller_in_one_line():
    # One value type for four tensors: every client refuses it.
    wrong = arm(Compressor(TopK(), Density(0.1), values=("float32",)), clients=2)
    with pytest.raises(FederationError) as caught:
        next(federate(wrong, 0, engine="ray"))
    assert str(caught.value).startswith("round 1: node ")
    assert "one number per tensor" in str(caught.value)
    assert "\n" not in str(caught.value)
    assert not ray.is_initialized()


def test_batteries_traces_and_availability_have_the_same_bits():
    batteries = [Battery(charge_j=1.0), Battery(charge_j=3 * ROUND_J), Battery(charge_j=4 * (FIXED_J + 5e-5))]
    available = tuple((float(number != 2), 1.0, 1.0) for number in range(1, 5))
    link = tuple((1.0, 1.0 + number / 10, 1.0) for number in range(1, 5))
    which = powered(HUNGRY, 4, batteries=batteries, available=available, link=link)
    found = list(federate(which, 4, engine="ray"))
    assert bits(found, checkpoint=False) == bits(federate(which, 4), checkpoint=False)
    assert any(outcome.skipped for outcome in found)
