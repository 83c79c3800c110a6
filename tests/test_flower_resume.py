"""A federation that goes on from a checkpoint is one that was never stopped."""

import numpy as np
import pytest
from flwr.app import ArrayRecord
from studies_of_flower import SPARSE, arm, bits
from test_flower_rounds import Normalised

from joulewise.compress import Compressor, ErrorFeedback
from joulewise.errors import StudyError
from joulewise.flower import snapshot
from joulewise.flower.app import federate
from joulewise.learning import IID, Digits
from joulewise.rules import Count, Joules, TopK

OPTIONS = {
    "FedAvg": {},
    "FedAvgM": {"server_momentum": 0.9, "server_learning_rate": 0.7},
    "FedAdam": {"eta": 0.01},
    "FedYogi": {"eta": 0.01},
    "FedAdagrad": {"eta": 0.01},
    "FedProx": {"proximal_mu": 0.1},
}


def through_a_file(checkpoint, folder):
    np.savez(folder / "checkpoint.npz", **checkpoint)
    with np.load(folder / "checkpoint.npz", allow_pickle=False) as found:
        return {name: found[name] for name in found.files}


def resumed_equals_never_stopped(which, folder, after=2):
    whole = list(federate(which, 4))
    going_on = list(federate(which, 4, resume=through_a_file(whole[after - 1].checkpoint, folder)))
    assert [outcome.round for outcome in going_on] == list(range(after + 1, which.rounds + 1))
    assert bits(going_on) == bits(whole[after:])


@pytest.mark.parametrize("strategy", OPTIONS)
def test_every_strategy_goes_on_with_the_same_bits(strategy, tmp_path):
    which = arm(SPARSE, rounds=5, strategy=strategy, clients=5, fraction_train=0.6, **OPTIONS[strategy])
    resumed_equals_never_stopped(which, tmp_path)


def test_momentum_without_effect_goes_on_with_the_same_bits(tmp_path):
    resumed_equals_never_stopped(arm(rounds=4, strategy="FedAvgM"), tmp_path)


@pytest.mark.parametrize("strategy", ["FedAvg", "FedAvgM", "FedAdam"])
def test_batch_normalisation_goes_on_with_the_same_bits(strategy, tmp_path):
    data = Digits(clients=3, partition=IID(), examples=60)
    which = arm(rounds=4, clients=3, strategy=strategy, model=Normalised(), data=data, **OPTIONS[strategy])
    resumed_equals_never_stopped(which, tmp_path)


def test_replies_that_say_nothing_go_on_with_the_same_bits(tmp_path):
    # Nothing fits the budget: payloads are empty, and everything waits in the residual.
    for compressor in (
        Compressor(TopK(), Count(0), feedback=ErrorFeedback()),
        Compressor(TopK(), Joules(1e-12), feedback=ErrorFeedback()),
    ):
        which = arm(compressor, rounds=3)
        outcomes = list(federate(which, 4))
        assert {client.bytes_up for outcome in outcomes for client in outcome.clients} == {0}
        resumed_equals_never_stopped(which, tmp_path)


def test_the_last_checkpoint_leaves_nothing_to_do(tmp_path):
    *_, last = federate(arm(rounds=2), 0)
    assert list(federate(arm(rounds=2), 0, resume=through_a_file(last.checkpoint, tmp_path))) == []


def test_a_checkpoint_is_not_touched_by_going_on(tmp_path):
    first = next(federate(arm(rounds=4), 0))
    before = {name: array.tobytes() for name, array in first.checkpoint.items()}
    list(federate(arm(rounds=4), 0, resume=first.checkpoint))
    assert {name: array.tobytes() for name, array in first.checkpoint.items()} == before


def test_a_checkpoint_without_the_residual_is_not_enough(tmp_path):
    whole = list(federate(arm(rounds=4), 4))
    torn = {name: array for name, array in whole[1].checkpoint.items() if not name.endswith("/residual")}
    assert bits(federate(arm(rounds=4), 4, resume=torn)) != bits(whole[2:])


def test_ray_cannot_go_on_and_says_so():
    first = next(federate(arm(), 0))
    with pytest.raises(StudyError, match="ray"):
        next(federate(arm(), 0, engine="ray", resume=first.checkpoint))


def test_a_strategy_that_holds_something_else_has_no_checkpoint():
    class Holding:
        def __init__(self, held):
            self.held = held

    def changed(held):
        return snapshot.pack(1, ArrayRecord(), {}, {}, Holding(held), Holding(None))

    assert changed(object()) is None
    assert changed({"a": "text"}) is None
    assert changed([np.zeros(2), "text"]) is None
    for held in (3, 2.5, True, np.arange(3), [np.arange(3), np.float64(2)], {"a/b": np.zeros(0)}):
        packed = changed(held)
        fresh = Holding(None)
        snapshot.restore(fresh, packed)
        assert type(fresh.held) is type(held)
        np.testing.assert_equal(fresh.held, held)


def test_an_empty_container_comes_back_empty():
    class Holding:
        held: object

    for held in ({}, []):
        strategy, fresh = Holding(), Holding()
        strategy.held, fresh.held = held, None
        snapshot.restore(fresh, snapshot.pack(1, ArrayRecord(), {}, {}, strategy, fresh))
        assert fresh.held == held
