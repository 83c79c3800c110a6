"""Legacy apps: a NumPyClient with the mod, behind a legacy server or behind a strategy of today."""

import logging
from types import SimpleNamespace

import numpy as np
import pytest
from flwr.app import Context, RecordDict
from flwr.clientapp import ClientApp
from flwr.serverapp import ServerApp
from toy_federation import DEVICE, Watched, averaging, record

from joulewise.compress import ErrorFeedback
from joulewise.flower import MemoryStore, Sparse, SparseGrid, Sparsify
from joulewise.rules import Count, Dense, TopK

client = pytest.importorskip("flwr.client", reason="Flower has dropped its legacy clients")
server = pytest.importorskip("flwr.server", reason="Flower has dropped its legacy servers")
common = pytest.importorskip("flwr.common")

START = [np.zeros((3, 4), np.float32), np.array(0, np.int64), np.zeros(5, np.float32)]
NODES = 3


class Adding(client.NumPyClient):
    """Adds multiples of 1/4 to what it received."""

    def __init__(self, partition):
        self.partition = partition

    def fit(self, parameters, config):
        return [np.asarray(array + array.dtype.type(1 + self.partition)) for array in parameters], 8, {"loss": 0.5}

    def evaluate(self, parameters, config):
        return float(parameters[0].sum()), 8, {}


def client_app(**options):
    mod = Sparsify(DEVICE, **({"rule": Dense(), "budget": None} | options))
    return ClientApp(lambda context: Adding(int(context.node_config["partition-id"])).to_client(), mods=[mod])


class Running(Watched):
    """A Grid that knows its run, as legacy servers want."""

    run = SimpleNamespace(run_id=1)


def legacy_result(app, wrap=SparseGrid, rounds=2):
    """What a legacy server ends with: the arrays of its last model."""
    logging.getLogger("flwr").setLevel(logging.CRITICAL)
    last = {}

    class Keeping(server.strategy.FedAvg):
        def aggregate_fit(self, server_round, results, failures):
            parameters, metrics = super().aggregate_fit(server_round, results, failures)
            last["arrays"] = None if parameters is None else common.parameters_to_ndarrays(parameters)
            last["failures"] = [str(failure) for failure in failures]
            return parameters, metrics

    def server_fn(context):
        strategy = Keeping(fraction_evaluate=1.0, initial_parameters=common.ndarrays_to_parameters(START))
        return server.ServerAppComponents(strategy=strategy, config=server.ServerConfig(num_rounds=rounds))

    made = ServerApp()

    @made.main()
    def main(grid, context):
        ServerApp(server_fn=server_fn)(wrap(grid), context)

    inner = Running(app, NODES, raising=False)
    made(inner, Context(run_id=1, node_id=0, node_config={}, state=RecordDict(), run_config={}))
    return last, inner


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_a_legacy_server_works_behind_the_grid():
    last, inner = legacy_result(client_app())
    assert len(inner.crossed) == 2 * NODES
    # Legacy averages cut whole numbers off, with joulewise or without; so only the others are compared.
    assert [last["arrays"][at].max() for at in (0, 2)] == [4.0, 4.0]
    assert last["failures"] == []


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_feedback_with_a_legacy_server_is_refused_in_words_that_say_why(caplog):
    app = client_app(rule=TopK(), budget=Count(5), feedback=ErrorFeedback(), store=MemoryStore())
    last, _ = legacy_result(app, rounds=1)
    assert last["arrays"] is None
    assert len(last["failures"]) == NODES
    assert all("legacy strategies do not say which replies they use" in failure for failure in last["failures"])


def test_a_legacy_client_works_behind_a_strategy_of_today_with_feedback():
    keys = {"arrayrecord_key": "fitins.parameters", "configrecord_key": "fitins.config"}
    strategy = averaging(weighted_by_key="num_examples", **keys)
    app = client_app(rule=TopK(), budget=Count(5), feedback=ErrorFeedback(), store=MemoryStore())
    start = record({str(at): array for at, array in enumerate(START)})
    result = Sparse(strategy).start(Watched(app, NODES), start, num_rounds=3)
    assert np.count_nonzero(result.arrays["0"].numpy()) + np.count_nonzero(result.arrays["2"].numpy()) == 15
