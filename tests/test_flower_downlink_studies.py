"""The sparse downlink in studies: the same models as without it, on every engine, and after an interruption."""

import msgspec
import numpy as np
import pytest
from studies_of_flower import SPARSE, arm, bits, model_of
from test_flower_resume import resumed_equals_never_stopped

from joulewise.flower import Lossy
from joulewise.flower.app import federate
from joulewise.flower.choice import StrategyChoice
from joulewise.labels import text

OPTIONS = {"clients": 5, "fraction_train": 0.6}


def with_downlink(setting, **options):
    which = arm(SPARSE, **({"rounds": 4} | OPTIONS | options))
    strategy = StrategyChoice(which.strategy.name, which.strategy.options, setting)
    return type(which)(**{name: getattr(which, name) for name in which.__slots__} | {"strategy": strategy})


@pytest.mark.parametrize("strategy", ["FedAvg", "FedProx", "FedAdam"])
def test_a_study_gets_the_same_models_with_the_downlink_on_and_off(strategy):
    options = {"proximal_mu": 0.1} if strategy == "FedProx" else {}
    off, on = (list(federate(with_downlink(each, strategy=strategy, **options), 3)) for each in ("off", "lossless"))
    for one, other in zip(off, on, strict=True):
        assert one.server == other.server
        assert {name: array.tobytes() for name, array in model_of(one).items()} == {
            name: array.tobytes() for name, array in model_of(other).items()
        }
    down = [sum(client.bytes_down for outcome in each for client in outcome.clients) for each in (off, on)]
    assert strategy == "FedAdam" or down[1] < down[0] / 2


@pytest.mark.parametrize("setting", ["lossless", Lossy(0.1)], ids=["lossless", "lossy"])
def test_a_study_goes_on_with_the_same_models_bytes_and_charges(setting, tmp_path):
    resumed_equals_never_stopped(with_downlink(setting), tmp_path)


def test_a_checkpoint_from_before_the_downlink_goes_on_with_whole_models():
    first = next(federate(with_downlink("lossless"), 3))
    bare = {
        name: array
        for name, array in first.checkpoint.items()
        if not name.startswith(("downlink/", "held-model/", "holds/"))
    }
    assert len(bare) < len(first.checkpoint)
    going_on = list(federate(with_downlink("lossless"), 3, resume=bare))
    whole = list(federate(with_downlink("lossless"), 3))
    assert [outcome.server for outcome in going_on] == [outcome.server for outcome in whole[1:]]


def test_the_setting_is_one_line_of_a_study_and_sets_an_arm_apart():
    assert msgspec.json.decode(b'{"downlink": "lossless"}', type=StrategyChoice).downlink == "lossless"
    lossy = msgspec.json.decode(b'{"downlink": {"name": "Lossy", "density": 0.1}}', type=StrategyChoice)
    assert lossy.downlink == Lossy(0.1)
    assert msgspec.json.decode(msgspec.json.encode(lossy), type=StrategyChoice) == lossy
    assert (text(StrategyChoice()), text(StrategyChoice(downlink="lossless"))) == ("FedAvg", "FedAvg downlink=lossless")


def test_ray_gives_the_same_rows_as_this_process():
    pytest.importorskip("ray")
    which = with_downlink("lossless", rounds=3, clients=2, fraction_train=1.0)
    here, there = (list(federate(which, 0, engine=engine)) for engine in ("inprocess", "ray"))
    assert bits(here, checkpoint=False) == bits(there, checkpoint=False)
    off = list(federate(with_downlink("off", rounds=3, clients=2, fraction_train=1.0), 0))
    assert [outcome.server for outcome in off] == [outcome.server for outcome in there]
    assert np.mean([client.bytes_down for client in there[-1].clients]) < off[-1].clients[0].bytes_down / 2
