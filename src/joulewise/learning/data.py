"""Datasets of a study, and how their examples are dealt out to the clients.

A dataset or a partition is one frozen record; the unions `Data` and `Partition` are what a study file may
name.
"""

# Data libraries take a second or more each to import; a study should pay for those alone that it uses.
# ruff: noqa: PLC0415

import warnings
from typing import TYPE_CHECKING, Annotated, ClassVar

import msgspec
import numpy as np

from joulewise.errors import DataError, MissingExtra
from joulewise.learning import cifar10
from joulewise.learning.examples import Dataset, Examples, Labels, balanced

if TYPE_CHECKING:
    from flwr_datasets.partitioner import Partitioner

AtLeastOne = Annotated[int, msgspec.Meta(ge=1)]


class IID(msgspec.Struct, frozen=True, tag="IID", tag_field="name", forbid_unknown_fields=True):
    """Every client gets an equal share of the shuffled examples."""

    remedy: ClassVar[str] = "more examples"

    def partitioner(self, clients: int, seed: int) -> "Partitioner":
        """Make the partitioner of flwr-datasets; it cuts the rows in the order in which they come."""
        from flwr_datasets.partitioner import IidPartitioner

        del seed  # `partition` shuffles the rows instead.
        return IidPartitioner(clients)


class Dirichlet(msgspec.Struct, frozen=True, tag="Dirichlet", tag_field="name", forbid_unknown_fields=True):
    """Each class is shared out in proportions from Dirichlet(alpha): the smaller alpha, the more skewed.

    The method of Yurochkin et al., "Bayesian Nonparametric Federated Learning of Neural Networks",
    arXiv:1905.12022.
    """

    alpha: Annotated[float, msgspec.Meta(gt=0, le=1e6)]
    remedy: ClassVar[str] = "a larger alpha"

    def partitioner(self, clients: int, seed: int) -> "Partitioner":
        """Make the partitioner of flwr-datasets; it draws up to 11 times until no client is empty."""
        from flwr_datasets.partitioner import DirichletPartitioner

        return DirichletPartitioner(clients, "label", self.alpha, min_partition_size=1, seed=seed)


class Pathological(msgspec.Struct, frozen=True, tag="Pathological", tag_field="name", forbid_unknown_fields=True):
    """Every client holds exactly so many classes; its first class is its own number modulo the classes.

    The method of Li et al., "Federated Learning on Non-IID Data Silos", arXiv:2102.02079.
    """

    classes_per_partition: AtLeastOne
    remedy: ClassVar[str] = "fewer classes_per_partition"

    def partitioner(self, clients: int, seed: int) -> "Partitioner":
        """Make the partitioner of flwr-datasets."""
        from flwr_datasets.partitioner import PathologicalPartitioner

        return PathologicalPartitioner(
            clients,
            "label",
            self.classes_per_partition,
            class_assignment_mode="first-deterministic",
            seed=seed,
        )


class Shard(msgspec.Struct, frozen=True, tag="Shard", tag_field="name", forbid_unknown_fields=True):
    """The examples, sorted by class, are cut into equal shards, of which every client draws so many.

    The method of McMahan et al., arXiv:1602.05629. What is left after equal shards is not used.
    """

    shards_per_partition: AtLeastOne
    remedy: ClassVar[str] = "fewer shards_per_partition"

    def partitioner(self, clients: int, seed: int) -> "Partitioner":
        """Make the partitioner of flwr-datasets."""
        from flwr_datasets.partitioner import ShardPartitioner

        return ShardPartitioner(clients, "label", self.shards_per_partition, seed=seed)


Partition = IID | Dirichlet | Pathological | Shard


class Digits(msgspec.Struct, frozen=True, tag="digits", tag_field="name", forbid_unknown_fields=True):
    """The 1,797 handwritten digits that ship with scikit-learn: one channel, 8 by 8, from 0 to 1.

    Attributes:
        images: channels, height and width of an image.
        classes: how many there are.
        clients: number of clients.
        partition: how the training examples are dealt out to them.
        examples: use only so many training examples, as many of each class as of any other; None uses all.
        test_examples: the same for the test part: a CNN on CIFAR-10 takes longer to evaluate on all than to train.
    """

    images: ClassVar[tuple[int, int, int]] = (1, 8, 8)
    classes: ClassVar[int] = 10
    clients: AtLeastOne
    partition: Partition
    examples: AtLeastOne | None = None
    test_examples: AtLeastOne | None = None

    def read(self) -> Dataset:
        """Read the digits; a stratified 20 %, drawn with seed 0, is the test part."""
        from sklearn.datasets import load_digits
        from sklearn.model_selection import train_test_split

        digits = load_digits()
        labels = digits.target.astype(np.int64)
        every = Examples((digits.images / 16).astype(np.float32)[:, None], labels)
        train, test = train_test_split(np.arange(labels.size), test_size=0.2, stratify=labels, random_state=0)
        chosen = balanced(labels[train], 10, self.examples)
        asked = balanced(labels[test], 10, self.test_examples, "test_examples")
        return Dataset(every.take(train[chosen]), every.take(test[asked]), classes=10)


class Cifar10(msgspec.Struct, frozen=True, tag="cifar10", tag_field="name", forbid_unknown_fields=True):
    """CIFAR-10 (Krizhevsky, 2009): 60,000 colour images of 10 classes, 32 by 32, normalised per channel.

    A copy stored with loss (JPEG) is fit for comparing methods, not for comparing with published accuracies.

    Attributes:
        images: channels, height and width of an image.
        classes: how many there are.
        clients: number of clients.
        partition: how the training examples are dealt out to them.
        examples: use only so many training examples, as many of each class as of any other; None uses all.
        test_examples: the same for the test part: a CNN on CIFAR-10 takes longer to evaluate on all than to train.
        path: folder with ``train*.parquet`` and ``test*.parquet``, columns ``img {bytes, path}`` and
            ``label``; None reads ``uoft-cs/cifar10`` from the Hugging Face hub.
    """

    images: ClassVar[tuple[int, int, int]] = (3, 32, 32)
    classes: ClassVar[int] = 10
    clients: AtLeastOne
    partition: Partition
    examples: AtLeastOne | None = None
    test_examples: AtLeastOne | None = None
    path: str | None = None

    def read(self) -> Dataset:
        """Read both parts and decode what is asked for."""
        train = cifar10.read_part(self.path, "train", self.examples)
        return Dataset(train, cifar10.read_part(self.path, "test", self.test_examples), classes=10)


Data = Digits | Cifar10


def load(data: Data) -> Dataset:
    """Load a dataset: its training and its test part, or class-balanced subsets of them where these are asked for.

    None of them depends on the seed of a study.

    Raises:
        DataError: the data are not there, not readable, or too few for ``examples`` or ``test_examples``.

    >>> digits = load(Digits(clients=10, partition=IID(), examples=1000))
    >>> digits.train.images.shape, digits.test.images.shape, digits.classes
    ((1000, 1, 8, 8), (360, 1, 8, 8), 10)
    """
    try:
        return data.read()
    except ModuleNotFoundError as error:
        raise MissingExtra("learning", f"Loading {type(data).__name__}") from error


def partition(data: Data, labels: Labels, seed: int) -> tuple[Labels, ...]:
    """Deal training examples out to the clients of a study.

    Args:
        data: names the number of clients and the kind of partition.
        labels: class of each training example, int64[n].
        seed: seed of the study, not negative; the same seed gives the same partition.

    Returns:
        One non-empty int64 array of ascending indices per client; no index comes twice.
        Classes that no client gets are named in a warning.

    Raises:
        DataError: some client would be left without an example.

    >>> parts = partition(Digits(clients=2, partition=IID()), np.array([0, 0, 1, 1, 2, 2]), seed=0)
    >>> [part.size for part in parts]
    [3, 3]
    """
    try:
        parts = _deal(data, labels, seed) if data.clients <= labels.size else ()
    except ModuleNotFoundError as error:
        raise MissingExtra("learning", "Dealing out examples") from error
    except (ValueError, ZeroDivisionError):
        parts = ()
    if not all(part.size for part in parts) or not parts:
        raise DataError(
            f"data.partition = {data.partition} cannot deal {labels.size} examples out to data.clients = "
            f"{data.clients} without leaving one empty; use fewer clients or {data.partition.remedy}."
        )
    left_out = np.setdiff1d(labels, labels[np.concatenate(parts)]).tolist()
    if left_out:
        warnings.warn(f"{data.partition} gives classes {left_out} to no client; use more clients.", stacklevel=2)
    return parts


def _deal(data: Data, labels: Labels, seed: int) -> tuple[Labels, ...]:
    # Imported here, as in the records: flwr-datasets takes 1.6 s, which only dealing out should pay.
    import datasets

    rows = np.arange(labels.size, dtype=np.int64)
    if isinstance(data.partition, IID):
        rows = np.random.default_rng(seed).permutation(rows)
    with warnings.catch_warnings():
        # The library warns of every draw that it repeats and names settings that a study does not have.
        warnings.simplefilter("ignore")
        partitioner = data.partition.partitioner(data.clients, seed)
        partitioner.dataset = datasets.Dataset.from_dict({"label": labels[rows], "row": rows})
        dealt = [partitioner.load_partition(client).with_format("arrow") for client in range(data.clients)]
    return tuple(np.sort(client[:]["row"].to_numpy()) for client in dealt)
