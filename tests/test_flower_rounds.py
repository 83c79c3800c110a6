"""Federations in this process: the same bits every time, and the average that a plain loop computes."""

import inspect
import logging
from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from studies_of_flower import SPARSE, arm, bits, model_of
from toy_federation import DEVICE, Watched, app, arrays_of, averaging, flat, model, record, update

from joulewise import learning
from joulewise.compress import Compressor
from joulewise.errors import FederationError, StudyError, UpdateError
from joulewise.flower import Sparsify, inprocess
from joulewise.flower import app as studies
from joulewise.flower.app import federate
from joulewise.flower.choice import AVERAGING, StrategyChoice
from joulewise.flower.rounds import Invited, Round, participants, play, roster
from joulewise.learning import IID, Digits, Dirichlet, Examples
from joulewise.results import AllClients
from joulewise.rules import Dense, Density, MinVariance, RandomK, TopK

DENSE = Compressor(Dense())


# ---------------------------------------------------------------- the same bits


@pytest.mark.parametrize(
    "compressor",
    [DENSE, SPARSE, Compressor(MinVariance(), Density(0.1)), Compressor(RandomK(), Density(0.1))],
)
def test_the_same_arm_and_seed_give_the_same_bits(compressor):
    assert bits(federate(arm(compressor), 7)) == bits(federate(arm(compressor), 7))


def test_seeds_differ():
    first, second = (model_of(list(federate(arm(rounds=1), seed))[-1]) for seed in (0, 1))
    assert not np.array_equal(first["output.weight"], second["output.weight"])


def test_federations_that_take_turns_do_not_disturb_each_other():
    alone = [bits(federate(arm(compressor), 3)) for compressor in (DENSE, SPARSE)]
    turns = zip(federate(arm(DENSE), 3), federate(arm(SPARSE), 3), strict=True)
    assert [bits(outcomes) for outcomes in zip(*turns, strict=True)] == alone


def test_the_machines_threads_and_random_numbers_change_nothing():
    expected = bits(federate(arm(), 0))
    torch.manual_seed(99)
    np.random.seed(99)  # noqa: NPY002 (the global state is the point)
    torch.set_num_threads(2)
    assert bits(federate(arm(), 0)) == expected
    assert torch.get_num_threads() == 1


def test_the_model_is_tested_with_the_threads_of_the_study_where_no_client_trains_in_this_process():
    torch.set_num_threads(2)
    studies._evaluated(arm(), 0, Round(1, studies._initial(arm(), 0), ()), "cpu")
    assert torch.get_num_threads() == 1


def test_the_default_compute_and_engine_are_this_process():
    parameters = inspect.signature(federate).parameters
    assert (parameters["engine"].default, parameters["compute"].default) == ("inprocess", "cpu")


# ---------------------------------------------------------------- against a plain loop


def train_by_hand(module, examples, training, rng, mu=0.0):
    received = [parameter.detach().clone() for parameter in module.parameters()]
    images, labels = torch.tensor(examples.images), torch.tensor(examples.labels)
    for _ in range(training.local_epochs):
        for batch in torch.tensor(rng.permutation(len(labels))).split(training.batch_size):
            module.zero_grad()
            loss = torch.nn.functional.cross_entropy(module(images[batch]), labels[batch])
            pairs = zip(module.parameters(), received, strict=True)
            near = sum(((now - then) ** 2).sum() for now, then in pairs)
            (loss + mu / 2 * near).backward()
            with torch.no_grad():
                for parameter in module.parameters():
                    parameter.sub_(training.learning_rate * parameter.grad)


def federated_by_hand(which, seed, mu=0.0):
    """FedAvg as in McMahan et al., one line after another."""
    dataset = learning.load(which.data)
    rows = learning.partition(which.data, dataset.train.labels, seed)
    module = learning.build(which.model, 1, 8, 8, 10, seed)
    state = {name: tensor.clone() for name, tensor in module.state_dict().items()}
    share = max(1, round(which.strategy.fraction * which.data.clients))
    for number in range(1, which.rounds + 1):
        drawn = np.random.default_rng([seed, number]).choice(which.data.clients, share, replace=False)
        chosen = range(which.data.clients) if share == which.data.clients else drawn
        total = sum(len(rows[client]) for client in chosen)
        mean = {name: torch.zeros_like(tensor, dtype=torch.float64) for name, tensor in state.items()}
        for client in chosen:
            module.load_state_dict(state)
            module.train()
            rng = np.random.default_rng([seed, number, client])
            train_by_hand(module, dataset.train.take(rows[client]), which.training, rng, mu)
            for name, tensor in module.state_dict().items():
                mean[name] += tensor * (len(rows[client]) / total)
        state = {name: mean[name].to(tensor.dtype) for name, tensor in state.items()}
    module.load_state_dict(state)
    return module.eval(), dataset.test


UNEVEN = Digits(clients=4, partition=learning.Dirichlet(0.5), examples=120)


@pytest.mark.parametrize(
    ("which", "mu"),
    [
        (arm(DENSE), 0.0),
        (arm(DENSE, data=UNEVEN), 0.0),
        (arm(DENSE, clients=6, fraction_train=0.5), 0.0),
        (arm(DENSE, strategy="FedProx", proximal_mu=0.5), 0.5),
    ],
    ids=["IID", "Dirichlet", "half of the clients", "FedProx"],
)
def test_with_everything_sent_it_is_the_federated_average_of_a_plain_loop(which, mu):
    *_, last = federate(which, seed=5)
    module, test = federated_by_hand(which, seed=5, mu=mu)
    for name, tensor in module.state_dict().items():
        assert np.allclose(model_of(last)[name], tensor.numpy(), rtol=1e-4, atol=1e-6), name
    scores = module(torch.tensor(test.images)).detach()
    loss = torch.nn.functional.cross_entropy(scores, torch.tensor(test.labels))
    right = (scores.argmax(1) == torch.tensor(test.labels)).float().mean()
    assert last.server.loss == pytest.approx(float(loss), rel=1e-4)
    assert last.server.accuracy == pytest.approx(float(right))


def test_sparse_rounds_differ_from_dense_ones_and_feedback_from_none():
    models = [
        model_of(list(federate(arm(compressor), 0))[-1])["linear1.weight"]
        for compressor in (DENSE, SPARSE, Compressor(TopK(), Density(0.05)))
    ]
    assert not np.array_equal(models[0], models[1])
    assert not np.array_equal(models[1], models[2])


# ---------------------------------------------------------------- what a round reports


def test_a_round_reports_every_client_that_took_part():
    which = arm(clients=5, fraction_train=0.6)
    rows = learning.partition(which.data, learning.load(which.data).train.labels, 2)
    for outcome in federate(which, 2):
        chosen = participants(2, outcome.round, 5, 0.6)
        assert [client.partition for client in outcome.clients] == list(chosen)
        assert [client.examples for client in outcome.clients] == [len(rows[client]) for client in chosen]
        assert outcome.energy_unit == "J"
        assert outcome.seconds > 0
        for client in outcome.clients:
            assert sum(client.kept_by_tensor) == int(0.05 * client.parameters)
            assert {charge.unit for charge in client.charges} == {"J"}
            assert client.loss > 0


def test_the_worst_client_is_of_all_clients_whoever_took_part():
    data = Digits(clients=5, partition=Dirichlet(alpha=0.3), examples=200)
    which = arm(DENSE, clients=5, data=data, fraction_train=0.4)
    dataset = learning.load(data)
    parts = [dataset.train.labels[indices] for indices in learning.partition(data, dataset.train.labels, 0)]
    _, channels, height, width = dataset.train.images.shape
    module = learning.build(which.model, channels, height, width, dataset.classes, 0)
    absent = False
    for outcome in federate(which, 0):
        learning.load_arrays(module, model_of(outcome))
        own = [learning.evaluate(module, dataset.test).accuracy_for(labels) for labels in parts]
        assert len(outcome.clients) == 2
        assert outcome.all_clients == AllClients(worst=min(own), tenth=float(np.percentile(own, 10)))
        absent |= min(own) < min(each.accuracy for each in outcome.clients)
    assert absent  # in some round the worst client took no part
    assert [outcome.all_clients for outcome in federate(arm(rounds=1), 0)] == [None]  # all did, and say it themselves


def test_bytes_are_those_that_crossed_the_grid(monkeypatch):
    grids = []

    class Noted(Watched):
        def __init__(self, client_app, nodes):
            super().__init__(client_app, nodes)
            grids.append(self)

    monkeypatch.setattr(inprocess, "InProcessGrid", Noted)
    outcomes = list(federate(arm(), 0))
    crossed = [len(payload) for _, payload, _ in grids[0].crossed]
    reported = [client.bytes_up for outcome in outcomes for client in outcome.clients]
    assert sorted(crossed) == sorted(reported)
    assert len(set(crossed)) > 1


def test_closing_early_leaves_flowers_log_as_it_was():
    logger = logging.getLogger("flwr")
    before = logger.level
    rounds = federate(arm(), 0)
    next(rounds)
    rounds.close()
    assert logger.level == before


# ---------------------------------------------------------------- who takes part


@given(st.integers(0, 99), st.integers(1, 99), st.integers(1, 40), st.floats(0.01, 1.0))
def test_participants_are_so_many_different_clients_and_always_the_same(seed, number, clients, fraction):
    drawn = participants(seed, number, clients, fraction)
    assert list(drawn) == sorted(set(drawn))
    assert set(drawn) <= set(range(clients))
    assert len(drawn) == max(1, round(fraction * clients))
    assert drawn == participants(seed, number, clients, fraction)


def test_participants_change_from_round_to_round_and_all_get_their_turn():
    drawn = [participants(0, number, 10, 0.3) for number in range(1, 41)]
    assert len(set(drawn)) > 20
    counts = np.bincount(np.concatenate(drawn), minlength=10)
    assert counts.min() >= 3  # 12 expected; below 3 once in 10^4


def test_a_roster_finds_the_node_of_every_partition():
    class Shuffled(inprocess.InProcessGrid):
        def send_and_receive(self, messages, *, timeout=None):
            return super().send_and_receive(messages, timeout=timeout)[::-1]

    client_app = studies.client_app(arm(), 0, "cpu", studies.MemoryStore())
    grid = Shuffled(client_app, 4)
    for partition, context in zip((2, 0, 3, 1), grid._contexts.values(), strict=True):
        context.node_config["partition-id"] = partition
    assert roster(grid, 4) == {2: 1, 0: 2, 3: 3, 1: 4}
    with pytest.raises(FederationError, match="5 clients were expected"):
        roster(grid, 5)


def test_only_the_guests_of_a_round_are_asked():
    inner = Watched(app(Sparsify(DEVICE, Dense(), None)), 4)
    grid = Invited(inner)
    guests = {1: (2, 4), 2: (1,), 3: (1, 2, 3, 4)}
    rounds = list(play(averaging(), grid, record(model()), (1, 2, 3), guests))
    asked = [sorted(message.metadata.dst_node_id for message in sent) for sent in inner.requests]
    assert asked == [[2, 4], [1], [1, 2, 3, 4]]
    assert [[client.partition + 1 for client in each.clients] for each in rounds] == asked
    wanted = sum(sum(update(number, node - 1) for node in nodes) / len(nodes) for number, nodes in guests.items())
    assert np.array_equal(flat(arrays_of(rounds[-1].arrays)), wanted)


# ---------------------------------------------------------------- what goes wrong


def test_a_client_that_fails_is_an_error_that_names_round_and_node():
    from flwr.app import Error, Message  # noqa: PLC0415

    class Failing(Watched):
        def send_and_receive(self, messages, *, timeout=None):
            sent = list(messages)
            super().send_and_receive(sent)
            return [Message(Error(2, "no power"), reply_to=message) for message in sent]

    grid = Invited(Failing(app(), 2))
    with pytest.raises(FederationError, match=r"round 1: node [12] failed: no power"):
        list(play(averaging(), grid, record(model()), (1,), {1: (1, 2)}))


def test_training_that_diverges_is_an_error_that_names_the_tensor(monkeypatch):
    def diverging(module, *arguments):
        with torch.no_grad():
            module.output.bias[3] = torch.nan
        return float("nan")

    monkeypatch.setattr(learning, "train", diverging)
    with pytest.raises(UpdateError, match=r"round 1, client \d: .*output\.bias"):
        list(federate(arm(), 0))


def test_too_few_devices_are_an_error_that_says_so():
    with pytest.raises(StudyError, match="4 devices"):
        next(federate(replace(arm(), devices=("phone-lte-2021",) * 3), 0))
    with pytest.raises(StudyError, match="one unit"):
        next(federate(replace(arm(), devices=("phone-lte-2021",) * 3 + (DEVICE,)), 0))


def test_options_that_a_strategy_does_not_take_are_errors():
    with pytest.raises(ValueError, match="momentum"):
        StrategyChoice("FedAvg", {"momentum": 0.9})
    with pytest.raises(ValueError, match="fraction_train"):
        StrategyChoice("FedAvg", {"fraction_train": 0.0})


@pytest.mark.parametrize("name", AVERAGING)
def test_every_strategy_of_a_study_runs(name):
    *_, last = federate(arm(strategy=name, rounds=2), 0)
    assert np.isfinite(last.server.loss)
    assert last.checkpoint is not None


# ---------------------------------------------------------------- batch normalisation


class Normalised(learning.MLP, frozen=True, tag="normalised", tag_field="name"):
    """An MLP with batch normalisation: buffers, and a counter of whole numbers."""

    def module(self, channels, height, width, classes):
        return torch.nn.Sequential(
            torch.nn.Flatten(),
            torch.nn.Linear(channels * height * width, 8),
            torch.nn.BatchNorm1d(8),
            torch.nn.ReLU(),
            torch.nn.Linear(8, classes),
        )


@pytest.mark.parametrize("compressor", [DENSE, SPARSE], ids=["Dense", "TopK"])
def test_batch_normalisation_keeps_its_types_and_travels_whole(compressor):
    which = arm(compressor, model=Normalised(), data=Digits(clients=4, partition=IID(), examples=120))
    outcomes = list(federate(which, 1))
    assert bits(outcomes) == bits(federate(which, 1))
    last = model_of(outcomes[-1])
    assert last["2.num_batches_tracked"].dtype == np.int64
    assert last["2.num_batches_tracked"] == 3 * 2  # 30 examples in batches of 16, three rounds
    assert np.all(last["2.running_var"] > 0)
    if compressor is DENSE:
        module, _ = federated_by_hand(which, 1)
        for name, tensor in module.state_dict().items():
            assert np.allclose(last[name], tensor.numpy(), rtol=1e-4, atol=1e-6), name


def test_examples_are_dealt_out_once_for_all_arms():
    list(federate(arm(rounds=1), 11))
    before = studies._parts.cache_info().misses
    list(federate(arm(DENSE, rounds=1), 11))
    assert studies._parts.cache_info().misses == before
    assert isinstance(studies._parts(arm().data, 11)[0], Examples)
