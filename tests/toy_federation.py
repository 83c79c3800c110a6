"""A client that trains nothing: it adds numbers which are exact in float32, so that sums are exact too."""

import logging

import numpy as np
from flwr.app import Array, ArrayRecord, ConfigRecord, Message, MetricRecord, RecordDict
from flwr.clientapp import ClientApp
from flwr.serverapp.strategy import FedAvg

from joulewise.flower.inprocess import InProcessGrid
from joulewise.flower.wire import RECORD

DEVICE = "synthetic-kind-10"


def model(**further):
    """A small model with a buffer and a whole-number counter, as batch normalisation has."""
    arrays = {
        "conv.weight": np.zeros((2, 1, 3, 3), np.float32),
        "bn.running_mean": np.zeros(2, np.float32),
        "bn.num_batches_tracked": np.array(0, np.int64),
        "linear.weight": np.zeros((4, 6), np.float32),
        "linear.bias": np.zeros(4, np.float32),
    }
    return arrays | further


PARAMETERS = ("conv.weight", "linear.weight", "linear.bias")


def record(arrays):
    return ArrayRecord({name: Array(np.asarray(array)) for name, array in arrays.items()})


def arrays_of(arrays):
    return {name: array.numpy() for name, array in arrays.items()}


def change(number, partition, shape):
    """What a client adds to a tensor in a round: multiples of 1/64 below 1."""
    rng = np.random.default_rng([number, partition, *shape])
    return (rng.integers(-63, 64, shape) / 64).astype(np.float32)


def update(number, partition, arrays=None):
    """All that a client adds in a round, as one vector in the order of the model."""
    shapes = [array.shape for name, array in (arrays or model()).items() if name in PARAMETERS]
    return np.concatenate([change(number, partition, shape).ravel() for shape in shapes])


def flat(arrays):
    return np.concatenate([arrays[name].ravel() for name in arrays if name in PARAMETERS])


def app(*mods, answer=None, examples=lambda partition: 8):
    """A ClientApp of the public API; `answer` may change its reply's content before the mods see it."""
    made = ClientApp(mods=list(mods))

    @made.train()
    def train(message, context):
        partition = int(context.node_config["partition-id"])
        number = int(message.content["config"]["server-round"]) if "config" in message.content else 1
        arrays = arrays_of(message.content["arrays"])
        trained = {
            name: array + change(number, partition, array.shape) if name in PARAMETERS else array + 1
            for name, array in arrays.items()
        }
        trained = {name: np.asarray(array, arrays[name].dtype) for name, array in trained.items()}
        metrics = MetricRecord({"num-examples": examples(partition)})
        content = RecordDict({"arrays": record(trained), "metrics": metrics})
        return Message(content if answer is None else answer(content, partition), reply_to=message)

    @made.evaluate()
    def evaluate(message, context):
        total = float(sum(array.sum() for array in arrays_of(message.content["arrays"]).values()))
        metrics = MetricRecord({"num-examples": 8, "total": total})
        return Message(RecordDict({"metrics": metrics}), reply_to=message)

    return made


def averaging(strategy=FedAvg, **options):
    logging.getLogger("flwr").setLevel(logging.ERROR)
    settled = {"fraction_evaluate": 0.0, "min_train_nodes": 1, "min_available_nodes": 1}
    return strategy(**(settled | options))


class Watched(InProcessGrid):
    """Notes what crosses: (node, payload, sequence) of every compressed reply; `spoil` may change a reply."""

    def __init__(self, client_app, nodes, spoil=None, **options):
        super().__init__(client_app, nodes, **options)
        self.crossed, self.requests, self.spoil = [], [], spoil

    def send_and_receive(self, messages, *, timeout=None):
        sent = list(messages)
        self.requests.append(sent)
        replies = super().send_and_receive(sent, timeout=timeout)
        for reply in replies:
            for array in payloads(reply):
                note = reply.content[RECORD]
                self.crossed.append((reply.metadata.src_node_id, array.data, note["sequence"]))
        return replies if self.spoil is None else self.spoil(replies)


def payloads(reply):
    if not reply.has_content():
        return []
    records = reply.content.array_records.values()
    return [
        array for each in records for array in each.values() if array.stype in ("joulewise.v1", "joulewise.v1.EF21")
    ]


def request(node=1, number=1, arrays=None, message_type="train", config=None):
    content = {"arrays": record(model() if arrays is None else arrays)}
    content |= {"config": ConfigRecord({"server-round": number})} if config is None else config
    return Message(RecordDict(content), dst_node_id=node, message_type=message_type)
