"""Small federations of the digits, and what can be compared of their rounds."""

import numpy as np

from joulewise.compress import Compressor, ErrorFeedback
from joulewise.flower.app import Arm
from joulewise.flower.choice import StrategyChoice
from joulewise.learning import IID, MLP, Digits, Training
from joulewise.rules import Density, TopK

SPARSE = Compressor(TopK(), Density(0.05), feedback=ErrorFeedback())


def arm(compressor=SPARSE, rounds=3, clients=4, strategy="FedAvg", model=None, data=None, **options):
    return Arm(
        name="test",
        data=data or Digits(clients=clients, partition=IID(), examples=120),
        model=model or MLP(hidden=(8,)),
        training=Training(batch_size=16, learning_rate=0.2),
        strategy=StrategyChoice(strategy, options),
        devices=("phone-lte-2021",) * clients,
        compressor=compressor,
        rounds=rounds,
    )


def bits(outcomes, checkpoint=True):
    """All that must be the same when a run is repeated."""
    return [
        (
            outcome.round,
            outcome.server,
            outcome.clients,
            outcome.skipped,
            outcome.all_clients,
            outcome.energy_unit,
            {name: (array.dtype, array.shape, array.tobytes()) for name, array in outcome.checkpoint.items()}
            if checkpoint
            else None,
        )
        for outcome in outcomes
    ]


def model_of(outcome):
    prefix = "model/"
    return {
        name.removeprefix(prefix): np.asarray(array)
        for name, array in outcome.checkpoint.items()
        if name.startswith(prefix)
    }
