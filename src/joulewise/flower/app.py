"""The ClientApp and the federation of a study: one app for every engine."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Generator, Iterator, Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Literal

import msgspec
import numpy as np
import numpy.typing as npt
from flwr.app import ArrayRecord, ConfigRecord, Context, Message, MetricRecord, RecordDict
from flwr.clientapp import ClientApp
from flwr.serverapp import Grid
from flwr.serverapp.strategy import Strategy

from joulewise import learning
from joulewise.compress import Compressor
from joulewise.devices import Unit, load_device
from joulewise.errors import StudyError
from joulewise.flower import charging, inprocess, snapshot, wire
from joulewise.flower.bill import Bill, bill_of
from joulewise.flower.charging import Charger, Supply
from joulewise.flower.choice import StrategyChoice
from joulewise.flower.mod import Sparsify
from joulewise.flower.rounds import Invited, Round, participants, play, roster
from joulewise.flower.state import AbstractStore, ContextStore, MemoryStore
from joulewise.learning import Data, Dataset, Examples, Model, Training
from joulewise.recorder import Recorder
from joulewise.results import AllClients, ClientResult, ServerResult, Skipped

Engine = Literal["inprocess", "ray"]
Compute = Literal["cpu", "cuda"]
Arrays = Mapping[str, npt.NDArray[Any]]

NODES_UP_S = 60.0
"""How long Flower's simulation may take to register its nodes."""


@dataclass(frozen=True, slots=True)
class Arm:
    """One federation but for its seed.

    Args:
        name: short label, unique in its study.
        data: examples and how they are dealt out.
        model: what is trained.
        training: how a client trains.
        strategy: how the server averages.
        devices: profile of each partition.
        compressor: what a client sends.
        rounds: how many.
        supply: what the clients live on.
    """

    name: str
    data: Data
    model: Model
    training: Training
    strategy: StrategyChoice
    devices: tuple[str, ...]
    compressor: Compressor
    rounds: int
    supply: Supply = Supply()  # noqa: RUF009 (a frozen record)


@dataclass(frozen=True, slots=True, eq=False)
class RoundOutcome:
    """One finished round of an arm.

    Args:
        round: its number; the first is 1.
        server: the new model on the test part.
        clients: what the clients did, by partition.
        energy_unit: of all charges.
        seconds: how long the round took, evaluation included.
        checkpoint: named arrays to go on from; None where this engine or strategy cannot.
        skipped: the clients that were to take part and did not, by partition.
        all_clients: the new model for every client; None where all took part.
    """

    round: int
    server: ServerResult
    clients: tuple[ClientResult, ...]
    energy_unit: Unit
    seconds: float
    checkpoint: dict[str, npt.NDArray[Any]] | None
    skipped: tuple[Skipped, ...] = ()
    all_clients: AllClients | None = None


def federate(
    arm: Arm,
    seed: int,
    *,
    engine: Engine = "inprocess",
    compute: Compute = "cpu",
    resume: Arrays | None = None,
    record: Recorder | None = None,
) -> Generator[RoundOutcome, None, None]:
    """Run an arm with a seed and yield its rounds.

    The same arm and seed give the same bits on every engine of one machine.

    Args:
        arm: what to run.
        seed: of partition, initial model, participants, batches and random rules.
        engine: ``inprocess`` calls clients one after another in this process; ``ray`` is Flower's simulation.
        compute: where clients train.
        resume: a checkpoint of the same arm and seed; the rounds after it are run.
        record: keeps the updates that it was asked for.

    Raises:
        StudyError: the devices do not fit, or `resume` is given with an engine that cannot go on.
        JoulewiseError: data or updates are not usable; the message says which.
    """
    units = {load_device(device).unit for device in arm.devices}
    if len(units) != 1 or len(arm.devices) != arm.data.clients:
        raise StudyError(f"arm {arm.name!r} needs {arm.data.clients} devices of one unit, but has {arm.devices}")
    if engine == "ray" and resume is not None:
        raise StudyError(
            f"engine 'ray' cannot go on from a checkpoint of arm {arm.name!r}; use engine 'inprocess', which "
            "gives the same bits, or begin anew"
        )
    record = None if record is None else record.of(arm.name, seed)
    rounds = _on_ray(arm, seed, compute, record) if engine == "ray" else _in_process(arm, seed, compute, resume, record)
    # Closed at once, whatever happens: an engine that is no longer wanted must not go on.
    with inprocess.quiet(), contextlib.closing(rounds):
        began = time.perf_counter()
        for finished, checkpoint in rounds:
            server, clients, whole = _evaluated(arm, seed, finished, compute)
            seconds = time.perf_counter() - began
            (unit,) = units
            yield RoundOutcome(finished.number, server, clients, unit, seconds, checkpoint, finished.skipped, whole)
            began = time.perf_counter()


Rounds = Generator[tuple[Round, dict[str, npt.NDArray[Any]] | None], None, None]


def _in_process(arm: Arm, seed: int, compute: Compute, resume: Arrays | None, record: Recorder | None) -> Rounds:
    store, strategy = MemoryStore(), arm.strategy.make()
    inner = inprocess.InProcessGrid(client_app(arm, seed, compute, store, record), arm.data.clients)
    grid = Invited(inner, arm.strategy.downlink, arm.strategy.allocation_over(arm.rounds))
    nodes = roster(grid.inner, arm.data.clients)
    last = Round(0, _initial(arm, seed), (), stand=charging.begin(arm.supply))
    if resume is not None:
        last = snapshot.put_back(resume, grid, store, strategy, nodes)
    for finished in _played(arm, seed, strategy, grid, nodes, last):
        yield finished, snapshot.taken(finished, grid, store, (strategy, arm.strategy.make()), nodes)


def _on_ray(arm: Arm, seed: int, compute: Compute, record: Recorder | None) -> Rounds:
    def serve(inner: Grid) -> Iterator[Round]:
        grid = Invited(inner, arm.strategy.downlink, arm.strategy.allocation_over(arm.rounds))
        nodes = roster(inner, arm.data.clients, NODES_UP_S)
        first = Round(0, _initial(arm, seed), (), stand=charging.begin(arm.supply))
        return _played(arm, seed, arm.strategy.make(), grid, nodes, first)

    app = client_app(arm, seed, compute, ContextStore(), record)
    gpus = 1.0 / arm.data.clients if compute == "cuda" else 0.0
    with contextlib.closing(inprocess.simulated(serve, app, arm.data.clients, gpus)) as rounds:
        for finished in rounds:
            yield finished, None


def _played(
    arm: Arm, seed: int, strategy: Strategy, grid: Invited, nodes: Mapping[int, int], last: Round
) -> Iterator[Round]:
    """The rounds after the last one, on any engine."""
    guests, numbers = _guests(arm, seed, nodes), range(last.number + 1, arm.rounds + 1)
    bill = _bill(arm, seed, last.arrays) if arm.supply.batteries else None
    charger = Charger.of(arm.supply, bill, nodes, guests)
    return play(strategy, grid, last.arrays, numbers, guests, charger, last.stand)


def _bill(arm: Arm, seed: int, model: ArrayRecord) -> Bill:
    each = _multiply_accumulates(arm)
    training = () if each is None else tuple(each * len(part.labels) for part in _parts(arm.data, seed))
    return bill_of(model, arm.compressor, arm.devices, training, arm.strategy.allocation)


def client_app(
    arm: Arm, seed: int, compute: Compute, store: AbstractStore, record: Recorder | None = None
) -> ClientApp:
    """The app of every client of an arm: trains on its partition, sends what the arm's compressor chooses."""
    compressor = arm.compressor
    mod = Sparsify(
        arm.devices,
        compressor.rule,
        compressor.budget,
        compressor.values,
        compressor.feedback,
        seed=seed,
        store=store,
        multiply_accumulates=_multiply_accumulates(arm),
        record=record,
        link=arm.supply.link,
    )
    app = ClientApp(mods=[mod])

    @app.train()
    def train(message: Message, context: Context) -> Message:
        return _train(message, context, arm, seed, compute)

    @app.query("partition")
    def who(message: Message, context: Context) -> Message:
        answer = ConfigRecord({"partition": context.node_config["partition-id"]})
        return Message(RecordDict({"node": answer}), reply_to=message)

    return app


def _multiply_accumulates(arm: Arm) -> float | None:
    """Of a client's training in a round on each of its examples, if a device says what they take."""
    computes = [load_device(name).compute for name in dict.fromkeys(arm.devices)]
    if all(compute is None or compute.training is None for compute in computes):
        return None
    dataset = _dataset(arm.data)
    _, channels, height, width = dataset.train.images.shape
    forward = learning.multiply_accumulates(arm.model, channels, height, width, dataset.classes)
    return 3.0 * forward * arm.training.local_epochs  # backward: once for the inputs and once for the weights


def _train(message: Message, context: Context, arm: Arm, seed: int, compute: Compute) -> Message:
    learning.use_threads(arm.training.threads)
    config = wire.of_kind(message.content, ConfigRecord)[0]
    partition, number = int(str(context.node_config["partition-id"])), int(str(config["server-round"]))
    examples = _parts(arm.data, seed)[partition]
    module = _module(arm.model, arm.data, seed)
    received = wire.only_arrays(message.content)
    assert received is not None  # The strategies of `AVERAGING` send one.
    learning.load_arrays(module, wire.to_numpy(received))
    rng = np.random.default_rng([seed, number, partition])
    proximal_mu = float(str(config.get("proximal-mu", 0.0)))
    loss = learning.train(module, examples, arm.training, rng, compute, proximal_mu)
    metrics = MetricRecord({"num-examples": len(examples.labels), "train-loss": loss})
    arrays = wire.to_record(learning.arrays(module))
    return Message(RecordDict({"arrays": arrays, "metrics": metrics}), reply_to=message)


def _evaluated(
    arm: Arm, seed: int, finished: Round, compute: Compute
) -> tuple[ServerResult, tuple[ClientResult, ...], AllClients | None]:
    """The new model on the test part, as it is and with classes as frequent as each client has them.

    That takes no message, so that clients which took no part count among all: else each arm is judged by other ones.
    """
    learning.use_threads(arm.training.threads)
    module = _module(arm.model, arm.data, seed)
    learning.load_arrays(module, wire.to_numpy(finished.arrays))
    evaluation = learning.evaluate(module, _dataset(arm.data).test, compute)
    own = [evaluation.accuracy_for(part.labels) for part in _parts(arm.data, seed)]
    clients = tuple(msgspec.structs.replace(each, accuracy=own[each.partition]) for each in finished.clients)
    everyone = len({each.partition for each in clients}) == len(own)
    whole = None if everyone else AllClients.of([each for each in own if each is not None])
    return ServerResult(evaluation.accuracy, evaluation.loss), clients, whole


def _initial(arm: Arm, seed: int) -> ArrayRecord:
    """The model before the first round; not out of the cache, whose module holds what was last computed."""
    return wire.to_record(learning.arrays(_new_module(arm.model, arm.data, seed)))


def _guests(arm: Arm, seed: int, nodes: Mapping[int, int]) -> dict[int, tuple[int, ...]]:
    fraction, clients = arm.strategy.fraction, arm.data.clients
    return {
        number: tuple(nodes[partition] for partition in participants(seed, number, clients, fraction))
        for number in range(1, arm.rounds + 1)
    }


# Loading and dealing out examples takes seconds, building a model milliseconds: done once per process.
# The module is only a place to compute in: every use loads all its parameters and buffers first.


@lru_cache(maxsize=1)
def _dataset(data: Data) -> Dataset:
    return learning.load(data)


@lru_cache(maxsize=2)
def _parts(data: Data, seed: int) -> tuple[Examples, ...]:
    train = _dataset(data).train
    dealt = learning.partition(data, train.labels, seed)
    return tuple(Examples(train.images[indices], train.labels[indices]) for indices in dealt)


@lru_cache(maxsize=1)
def _module(model: Model, data: Data, seed: int) -> learning.Module:
    return _new_module(model, data, seed)


def _new_module(model: Model, data: Data, seed: int) -> learning.Module:
    dataset = _dataset(data)
    _, channels, height, width = dataset.train.images.shape
    return learning.build(model, channels, height, width, dataset.classes, seed)
