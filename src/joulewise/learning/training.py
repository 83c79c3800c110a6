"""Local training by stochastic gradient descent, and evaluation."""

import math
from collections.abc import Sequence
from typing import Annotated, Literal

import msgspec
import numpy as np
import numpy.typing as npt
import torch
from torch import nn
from torch.nn import functional
from torch.optim.sgd import sgd

from joulewise.errors import ComputeError, DataError
from joulewise.learning.examples import Examples

Compute = Literal["cpu", "cuda"]
AtLeastOne = Annotated[int, msgspec.Meta(ge=1)]
EVALUATED_AT_ONCE = {"cpu": 64, "cuda": 1024}
"""Examples: on a CPU the activations of few stay in the cache; a GPU is idle with so few."""
BATCH_NORMS = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d, nn.SyncBatchNorm)


class Training(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """How a client trains between two messages: plain SGD on shuffled batches.

    Attributes:
        local_epochs: passes over the client's examples.
        batch_size: examples per step; the last batch of a pass may be smaller.
        learning_rate: step size.
        momentum: share of the last step that is added to the next; it starts afresh in every call of `train`.
        weight_decay: factor of the L2 penalty.
        threads: threads of PyTorch; more than one may change the last bits.
        precision: ``bfloat16`` computes forward and backward in it where PyTorch's autocast finds that safe, with
            parameters, gradients and steps in float32: faster on a GPU with tensor cores, slower on most CPUs.
            Evaluation is in float32.
    """

    local_epochs: AtLeastOne = 1
    batch_size: AtLeastOne = 32
    learning_rate: Annotated[float, msgspec.Meta(gt=0, le=1e6)] = 0.1
    momentum: Annotated[float, msgspec.Meta(ge=0, lt=1)] = 0.0
    weight_decay: Annotated[float, msgspec.Meta(ge=0, le=1e6)] = 0.0
    threads: AtLeastOne = 1
    precision: Literal["float32", "bfloat16"] = "float32"


class Evaluation(msgspec.Struct, frozen=True):
    """How well a model does on some examples.

    Args:
        accuracy: share of right answers.
        loss: mean cross-entropy in nats.
        examples: how many there are.
        right: right answers by class.
        asked: examples by class.
    """

    accuracy: float
    loss: float
    examples: int
    right: tuple[int, ...] = ()
    asked: tuple[int, ...] = ()

    def accuracy_for(self, labels: npt.NDArray[np.int64]) -> float | None:
        """Accuracy if classes were as frequent as among `labels`, of those that were asked; None where none was.

        Example:
            >>> found = Evaluation(0.75, 0.5, 20, right=(10, 5), asked=(10, 10))
            >>> found.accuracy_for(np.array([0, 1, 1, 1]))
            0.625
        """
        asked = np.array(self.asked)
        weights = np.bincount(labels, minlength=asked.size)[: asked.size] * (asked > 0)
        if not weights.sum():
            return None
        return float(weights @ (np.array(self.right) / np.maximum(asked, 1)) / weights.sum())


def train(
    module: nn.Module,
    examples: Examples,
    training: Training,
    rng: np.random.Generator,
    compute: Compute = "cpu",
    proximal_mu: float = 0.0,
) -> float:
    """Train a model on the examples of one client, in place.

    With ``proximal_mu`` the gradient gains ``proximal_mu * (w - w_received)`` (FedProx: Li et al., "Federated
    Optimization in Heterogeneous Networks", MLSys 2020). A batch of a single example has no variance, so
    batch-norm layers use their running statistics for it.

    Args:
        module: trained in place, and moved to the processor of ``compute``.
        examples: at least one.
        training: epochs, batch size and the settings of SGD.
        rng: draws the order of the examples; the same generator gives the same bits on the CPU.
        compute: ``"cpu"`` or ``"cuda"``.
        proximal_mu: pull towards the parameters at the start.

    Returns:
        Mean cross-entropy over all examples seen, each before its step, without the proximal term.

    Raises:
        ComputeError: this machine has no such processor.
        DataError: there are no examples.

    >>> from joulewise.learning import MLP, build
    >>> images = np.eye(4, dtype=np.float32).reshape(4, 1, 2, 2)
    >>> module = build(MLP(), channels=1, height=2, width=2, classes=4, seed=0)
    >>> examples = Examples(images, np.arange(4))
    >>> loss = train(module, examples, Training(local_epochs=100), np.random.default_rng(0))
    >>> evaluate(module, examples).accuracy
    1.0
    """
    images, labels = _tensors(examples, compute)
    _place(module, compute)
    module.train()
    parameters = [parameter for parameter in module.parameters() if parameter.requires_grad]
    received = [parameter.detach().clone() for parameter in parameters] if proximal_mu else []
    normalisations = [layer for layer in module.modules() if isinstance(layer, BATCH_NORMS)]
    velocities: list[torch.Tensor | None] = [None] * len(parameters)
    losses, sizes = [], []
    for _ in range(training.local_epochs):
        order = torch.from_numpy(rng.permutation(len(labels))).to(compute)
        for batch in torch.split(order, training.batch_size):
            for layer in normalisations:
                layer.train(len(batch) > 1)
            with torch.autocast(compute, torch.bfloat16, enabled=training.precision == "bfloat16"):
                loss = functional.cross_entropy(module(images[batch]), labels[batch])
            gradients = torch.autograd.grad(loss, parameters)
            if proximal_mu:
                _pull(gradients, parameters, received, proximal_mu)
            _step(parameters, gradients, velocities, training)
            losses.append(loss.detach())
            sizes.append(len(batch))
    # One transfer at the end: reading each loss would make a GPU wait in every step.
    means = torch.stack(losses).tolist()
    return math.fsum(mean * size for mean, size in zip(means, sizes, strict=True)) / sum(sizes)


@torch.inference_mode()
def evaluate(
    module: nn.Module, examples: Examples, compute: Compute = "cpu", batch_size: int | None = None
) -> Evaluation:
    """Measure accuracy and loss of a model; nothing of it changes but the processor that it is on.

    Args:
        module: moved to the processor of ``compute``.
        examples: at least one.
        compute: ``"cpu"`` or ``"cuda"``.
        batch_size: examples per step; None for what is fast on that processor.

    Raises:
        ComputeError: this machine has no such processor.
        DataError: there are no examples.
    """
    images, labels = _tensors(examples, compute)
    was_training = module.training
    _place(module, compute)
    module.eval()
    answered, loss, classes = [], 0.0, 0
    size = batch_size or EVALUATED_AT_ONCE[compute]
    for batch, answers in zip(torch.split(images, size), torch.split(labels, size), strict=True):
        scores = module(batch)
        answered.append(answers[scores.argmax(1) == answers])
        classes = max(classes, scores.shape[1])
        loss += float(functional.cross_entropy(scores, answers, reduction="sum"))
    module.train(was_training)
    right, asked = (torch.bincount(each, minlength=classes).tolist() for each in (torch.cat(answered), labels))
    return Evaluation(sum(right) / len(labels), loss / len(labels), len(labels), tuple(right), tuple(asked))


def use_threads(threads: int) -> None:
    """Let PyTorch compute with so many threads, everywhere in this process."""
    torch.set_num_threads(threads)


@torch.no_grad()
def _step(
    parameters: list[nn.Parameter],
    gradients: Sequence[torch.Tensor],
    velocities: list[torch.Tensor | None],
    training: Training,
) -> None:
    # The function beneath torch.optim.SGD: the class imports PyTorch's compiler, which takes seconds in every process.
    sgd(
        list(parameters),
        list(gradients),
        velocities,
        weight_decay=training.weight_decay,
        momentum=training.momentum,
        lr=training.learning_rate,
        dampening=0.0,
        nesterov=False,
        maximize=False,
        foreach=False,
        fused=False,
    )


def _pull(
    gradients: Sequence[torch.Tensor],
    parameters: Sequence[nn.Parameter],
    received: Sequence[torch.Tensor],
    proximal_mu: float,
) -> None:
    for gradient, parameter, start in zip(gradients, parameters, received, strict=True):
        gradient.add_(parameter.detach() - start, alpha=proximal_mu)


def _place(module: nn.Module, compute: Compute) -> None:
    # Module.to walks over every layer, which costs a small model as much as a tenth of a step.
    if any(parameter.device.type != compute for parameter in module.parameters()):
        module.to(compute)


def _tensors(examples: Examples, compute: Compute) -> tuple[torch.Tensor, torch.Tensor]:
    if compute not in ("cpu", "cuda"):
        raise ComputeError(f"--compute {compute} is unknown; use cpu or cuda.")
    if compute == "cuda" and not torch.cuda.is_available():
        raise ComputeError(
            "--compute cuda needs a CUDA GPU and a PyTorch built for it, and there is none here; use --compute cpu."
        )
    if not len(examples.labels):
        raise DataError("examples is empty; a client needs at least one example, so use fewer clients.")
    # PyTorch warns of arrays that may only be read (such as those shared by Ray), so those are copied.
    images = np.require(examples.images, np.float32, ["C", "W"])
    labels = np.require(examples.labels, np.int64, ["C", "W"])
    # Convolutions of PyTorch keep the order of their input's channels, and are up to twice as fast with this one.
    ordered = torch.from_numpy(images).contiguous(memory_format=torch.channels_last)
    return ordered.to(compute), torch.from_numpy(labels).to(compute)
