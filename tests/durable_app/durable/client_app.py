"""The client: adds its numbers, and breaks down where it is told to."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable
from pathlib import Path

from flwr.app import Array, ArrayRecord, Context, Message, MetricRecord, RecordDict
from flwr.clientapp import ClientApp

import joulewise as jw
from durable.sums import change
from joulewise.flower import Sparsify

Next = Callable[[Message, Context], Message]


def round_and_partition(message: Message, context: Context) -> tuple[int, int]:
    """Number of the round, and which client this is."""
    return int(message.content["config"]["server-round"]), int(context.node_config["partition-id"])


def told(context: Context, what: str, message: Message) -> bool:
    """Whether this client is to break down in this way in this round."""
    number, partition = round_and_partition(message, context)
    return number == context.run_config["breakdown-round"] and partition == context.run_config[what]


def noted(message: Message, context: Context, call_next: Next) -> Message:
    """Outermost: what passes here is about to leave, and joulewise has stored its state."""
    number, partition = round_and_partition(message, context)
    reply = call_next(message, context)
    if "arrays" not in reply.content:  # It holds another model than the server thought, and will be sent it whole.
        return reply
    (payload,) = (array.data for array in reply.content["arrays"].values())
    note = Path(str(context.run_config["folder"])) / f"stored-{number}-{partition}-{context.node_id}.payload"
    note.write_bytes(payload)
    if told(context, "dies", message):
        os.kill(os.getpid(), signal.SIGKILL)
    return reply


# This node's device and folder are in its --node-config.
sparsify = Sparsify(rule=jw.CWMP(), budget=jw.Density(0.1), feedback=jw.ErrorFeedback())
app = ClientApp(mods=[noted, sparsify])


@app.train()
def train(message: Message, context: Context) -> Message:
    """Add this client's numbers of this round."""
    number, partition = round_and_partition(message, context)
    if told(context, "hangs", message):
        (Path(str(context.run_config["folder"])) / "hangs").touch()
        time.sleep(600)  # Ends with its SuperNode.
    arrays = message.content["arrays"]
    trained = {name: Array(arrays[name].numpy() + added) for name, added in change(number, partition).items()}
    metrics = MetricRecord({"num-examples": 8})
    return Message(RecordDict({"arrays": ArrayRecord(trained), "metrics": metrics}), reply_to=message)
