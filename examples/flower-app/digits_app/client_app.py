"""The client: Flower's usual one, behind joulewise."""

from __future__ import annotations

from collections.abc import Callable

from flwr.app import ArrayRecord, Context, Message, MetricRecord, RecordDict
from flwr.clientapp import ClientApp

import joulewise as jw
from digits_app import task
from joulewise.flower import Sparsify

# Device, density and a folder for what a client has not sent yet come from the configuration of run and SuperNode.
sparsify = Sparsify(rule=jw.CWMP(), feedback=jw.ErrorFeedback())


def sparse(message: Message, context: Context, call_next: Callable[[Message, Context], Message]) -> Message:
    """joulewise, unless the run says ``sparse=false``, to compare; an app of your own takes `sparsify` itself."""
    return sparsify(message, context, call_next) if context.run_config["sparse"] else call_next(message, context)


app = ClientApp(mods=[sparse])


def partition_of(context: Context) -> tuple[int, int]:
    """Which part of the data this node has, of how many.

    The simulation says so, and so does ``--node-config "partition-id=0"``; a node that was told nothing takes the part
    that its id falls on.
    """
    partitions = int(context.node_config.get("num-partitions", context.run_config["nodes"]))
    return int(context.node_config.get("partition-id", context.node_id % partitions)), partitions


@app.train()
def train(message: Message, context: Context) -> Message:
    """Train the model that came on this node's part of the digits."""
    config, (partition, partitions) = context.run_config, partition_of(context)
    model = task.new_model()
    model.load_state_dict(message.content["arrays"].to_torch_state_dict())
    examples = task.training_part(partition, partitions)
    number = int(message.content["config"]["server-round"])
    loss = task.train(
        model,
        examples,
        int(config["local-epochs"]),
        int(config["batch-size"]),
        float(config["learning-rate"]),
        seed=[number, partition],
    )
    metrics = MetricRecord({"num-examples": len(examples[1]), "train-loss": loss})
    content = RecordDict({"arrays": ArrayRecord(model.state_dict()), "metrics": metrics})
    return Message(content, reply_to=message)


@app.evaluate()
def evaluate(message: Message, context: Context) -> Message:
    """Test the model that came on this node's part of the digits."""
    model = task.new_model()
    model.load_state_dict(message.content["arrays"].to_torch_state_dict())
    examples = task.training_part(*partition_of(context))
    metrics = MetricRecord({"num-examples": len(examples[1]), "accuracy": task.accuracy(model, examples)})
    return Message(RecordDict({"metrics": metrics}), reply_to=message)
