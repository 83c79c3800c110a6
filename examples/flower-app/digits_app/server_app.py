"""The server: Flower's usual one, with its strategy in joulewise's."""

from __future__ import annotations

import hashlib

from flwr.app import ArrayRecord, Context, MetricRecord
from flwr.serverapp import Grid, ServerApp
from flwr.serverapp.strategy import FedAvg

from digits_app import task
from joulewise.flower import OnePrice, Sparse

app = ServerApp()


@app.main()
def main(grid: Grid, context: Context) -> None:
    """Train with FedAvg and print what each round took and gave."""
    config = context.run_config
    nodes, share = int(config["nodes"]), float(config["allocation-share"])
    strategy = Sparse(
        FedAvg(
            fraction_evaluate=float(config["fraction-evaluate"]),
            min_train_nodes=nodes,
            min_evaluate_nodes=nodes,
            min_available_nodes=nodes,
        ),
        allocation=OnePrice(share=share) if share else None,
    )
    result = strategy.start(
        grid=grid,
        initial_arrays=ArrayRecord(task.new_model().state_dict()),
        num_rounds=int(config["num-server-rounds"]),
        timeout=float(config["reply-timeout-s"]),
        evaluate_fn=tested,
    )
    for number, metrics in result.train_metrics_clientapp.items():
        accuracy = result.evaluate_metrics_serverapp[number]["accuracy"]
        print(f"round {number}: accuracy {accuracy:.3f}, {took(metrics)}")
    print(f"model {digest(result.arrays)}")


def tested(_: int, arrays: ArrayRecord) -> MetricRecord:
    """Test the model after a round."""
    model = task.new_model()
    model.load_state_dict(arrays.to_torch_state_dict())
    return MetricRecord({"accuracy": task.accuracy(model, task.test_part())})


def took(metrics: MetricRecord) -> str:
    """What all clients together sent and received in a round, and the joules that joulewise works out of it."""
    joules = metrics.get("joulewise.joules")  # Not there without joulewise on the clients.
    energy = "not priced" if joules is None else f"{joules:.3f} J"
    return f"{metrics['joulewise.bytes-up']} bytes up, {metrics['joulewise.bytes-down']} bytes down, {energy}"


def digest(arrays: ArrayRecord) -> str:
    """A few digits that differ when any bit of a model does."""
    found = hashlib.sha256()
    for name, array in arrays.items():
        found.update(name.encode() + array.numpy().tobytes())
    return found.hexdigest()[:16]
