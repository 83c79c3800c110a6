"""The server: Flower's usual one, with its strategy in joulewise's."""

from __future__ import annotations

import hashlib

from flwr.app import ArrayRecord, Context, MetricRecord
from flwr.serverapp import Grid, ServerApp
from flwr.serverapp.strategy import FedAvg

from digits_app import task
from joulewise.charges import total
from joulewise.flower import Sparse, SparseGrid

app = ServerApp()


@app.main()
def main(grid: Grid, context: Context) -> None:
    """Train with FedAvg and print each round."""
    config, grid = context.run_config, SparseGrid(grid)
    nodes = int(config["nodes"])
    strategy = Sparse(
        FedAvg(
            fraction_evaluate=float(config["fraction-evaluate"]),
            min_train_nodes=nodes,
            min_evaluate_nodes=nodes,
            min_available_nodes=nodes,
        )
    )
    result = strategy.start(
        grid=grid,
        initial_arrays=ArrayRecord(task.new_model().state_dict()),
        num_rounds=int(config["num-server-rounds"]),
        timeout=float(config["reply-timeout-s"]),
        evaluate_fn=lambda number, arrays: tested(number, arrays, grid),
    )
    print(f"model {digest(result.arrays)}")


def tested(number: int, arrays: ArrayRecord, grid: SparseGrid) -> MetricRecord:
    """Test the model after a round, and say what the round took."""
    model = task.new_model()
    model.load_state_dict(arrays.to_torch_state_dict())
    share = task.accuracy(model, task.test_part())
    clients = grid.take_results()
    up, down = sum(client.bytes_up for client in clients), sum(client.bytes_down for client in clients)
    energy = sum(total(client.charges) for client in clients)
    print(f"round {number}: accuracy {share:.3f}, {up} bytes up, {down} bytes down, {energy:.3f} J")
    return MetricRecord({"accuracy": share, "bytes-up": up, "bytes-down": down, "energy": energy})


def digest(arrays: ArrayRecord) -> str:
    """A few digits that differ when any bit of a model does."""
    found = hashlib.sha256()
    for name, array in arrays.items():
        found.update(name.encode() + array.numpy().tobytes())
    return found.hexdigest()[:16]
