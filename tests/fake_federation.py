"""A federation that trains nothing: each round depends on all rounds before, and it misbehaves on demand.

The environment variable FAKE_FEDERATION holds JSON: ``delay`` seconds per round, ``blind`` for no
checkpoints, ``diverge`` for the name of a rule whose third round gives NaN, ``diverge_rate`` for a learning
rate with which it does, and numbers of rounds: ``fail`` raises an error of joulewise, ``crash`` another one,
``die`` ends the process.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Generator, Mapping
from typing import Any

import numpy as np

from joulewise.errors import DataError, UpdateError
from joulewise.flower.app import Arm, RoundOutcome
from joulewise.ledger import Charge
from joulewise.results import ClientResult, ServerResult


def federate(
    arm: Arm,
    seed: int,
    *,
    engine: str = "inprocess",
    compute: str = "cpu",
    resume: Mapping[str, Any] | None = None,
) -> Generator[RoundOutcome, None, None]:
    orders = json.loads(os.environ.get("FAKE_FEDERATION", "{}"))
    first = 1 if resume is None else int(resume["round"]) + 1
    state = len(arm.name) + seed if resume is None else float(resume["model/state"])
    for number in range(first, arm.rounds + 1):
        time.sleep(orders.get("delay", 0))
        _misbehave(orders, number)
        wild = type(arm.compressor.rule).__name__ == orders.get("diverge")
        if number == 3 and (wild or arm.training.learning_rate == orders.get("diverge_rate")):
            raise UpdateError("round 3, client 1: the update holds NaN or infinity in tensor 'w'")
        state = (state * 1.7 + seed + number) % 97
        checkpoint = None if orders.get("blind") else {"round": np.array(number), "model/state": np.array(state)}
        yield RoundOutcome(
            round=number,
            server=ServerResult(accuracy=state / 97, loss=state),
            clients=tuple(_client(partition, state) for partition in range(arm.data.clients)),
            energy_unit="relative",
            seconds=0.01,
            checkpoint=checkpoint,
        )


def _misbehave(orders: Mapping[str, Any], number: int) -> None:
    if number == orders.get("fail"):
        raise DataError("the data is not there; give --set data.path=FOLDER")
    if number == orders.get("crash"):
        raise ZeroDivisionError("one by nought")
    if number == orders.get("die"):
        os._exit(9)


def _client(partition: int, state: float) -> ClientResult:
    return ClientResult(
        partition=partition,
        examples=10,
        bytes_up=100,
        bytes_down=200,
        charges=(Charge("kept", state, "relative", "modelled", 100),),
        kept_by_tensor=(1, 2),
        parameters=100,
        delta=None,
        contrast=10.0,
    )
