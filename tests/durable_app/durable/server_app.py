"""The server: FedAvg, which notes whose replies it used and what came out."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path

import numpy as np
from flwr.app import Array, ArrayRecord, Context, Message, MetricRecord
from flwr.serverapp import Grid, ServerApp
from flwr.serverapp.strategy import FedAvg

from durable.sums import zeros
from joulewise.flower import OnePrice, Sparse, SparseGrid

app = ServerApp()


class Noted(FedAvg):
    """Notes each round; rounds the mean to multiples of 2^-10, so that what clients add to it stays exact."""

    def __init__(self, folder: Path, nodes: int) -> None:
        super().__init__(
            fraction_evaluate=0.0, min_train_nodes=nodes, min_available_nodes=nodes, weighted_by_key="num-examples"
        )
        self.folder = folder

    def aggregate_train(
        self, server_round: int, replies: Iterable[Message]
    ) -> tuple[ArrayRecord | None, MetricRecord | None]:
        """As FedAvg, and a note beside."""
        kept = list(replies)
        arrays, metrics = super().aggregate_train(server_round, kept)
        if arrays is None:
            return None, metrics
        rounded = {name: (np.rint(array.numpy() * 1024) / 1024).astype(np.float32) for name, array in arrays.items()}
        np.savez(self.folder / f"model-{server_round}.npz", **rounded)
        used = [str(reply.metadata.src_node_id) for reply in kept if reply.has_content()]
        errors = [reply.error.reason for reply in kept if reply.has_error()]
        note = self.folder / f"round-{server_round}.json"
        note.with_suffix(".new").write_text(json.dumps({"used": used, "errors": errors}), encoding="utf-8")
        note.with_suffix(".new").rename(note)
        return ArrayRecord({name: Array(array) for name, array in rounded.items()}), metrics


@app.main()
def main(grid: Grid, context: Context) -> None:
    """Run the rounds; each begins when all nodes are there."""
    config = context.run_config
    folder, share = Path(str(config["folder"])), float(config["allocation-share"])
    sparse = SparseGrid(grid, allocation=OnePrice(share=share, least_share=0.2) if share else None)
    Sparse(Noted(folder, int(config["nodes"])), rows=folder / "rows").start(
        grid=sparse,
        initial_arrays=ArrayRecord({name: Array(array) for name, array in zeros().items()}),
        num_rounds=int(config["num-server-rounds"]),
        timeout=float(config["reply-timeout-s"]),
        evaluate_fn=moved,
    )
    accepted = {str(node): sequence for node, sequence in sparse.accepted.items()}
    (folder / "accepted.json").write_text(json.dumps(accepted), encoding="utf-8")


def moved(_: int, arrays: ArrayRecord) -> MetricRecord:
    """Rows want an accuracy: the share of numbers that are no longer zero."""
    every = np.concatenate([array.numpy().ravel() for array in arrays.values()])
    return MetricRecord({"accuracy": np.count_nonzero(every) / every.size})
