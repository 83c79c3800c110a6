"""Datasets, models and local training: the only part of joulewise that needs PyTorch."""

from joulewise.errors import MissingExtra

try:
    from torch.nn import Module

    from joulewise.learning.data import (
        IID,
        Cifar10,
        Data,
        Digits,
        Dirichlet,
        Partition,
        Pathological,
        Shard,
        load,
        partition,
    )
    from joulewise.learning.examples import Dataset, Examples
    from joulewise.learning.models import (
        CNN,
        MLP,
        Model,
        ResNet18,
        arrays,
        build,
        load_arrays,
        multiply_accumulates,
        shapes,
    )
    from joulewise.learning.training import Compute, Evaluation, Training, evaluate, train, use_threads
except ModuleNotFoundError as error:
    raise MissingExtra("learning", "Training a model") from error

__all__ = [
    "CNN",
    "IID",
    "MLP",
    "Cifar10",
    "Compute",
    "Data",
    "Dataset",
    "Digits",
    "Dirichlet",
    "Evaluation",
    "Examples",
    "Model",
    "Module",
    "Partition",
    "Pathological",
    "ResNet18",
    "Shard",
    "Training",
    "arrays",
    "build",
    "evaluate",
    "load",
    "load_arrays",
    "multiply_accumulates",
    "partition",
    "shapes",
    "train",
    "use_threads",
]
