"""Models that a study may train, and their parameters as NumPy arrays."""

from collections import OrderedDict
from collections.abc import Mapping
from itertools import pairwise
from typing import Annotated

import msgspec
import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from joulewise.errors import LayoutError

AtLeastOne = Annotated[int, msgspec.Meta(ge=1)]


class MLP(msgspec.Struct, frozen=True, tag="mlp", tag_field="name", forbid_unknown_fields=True):
    """Fully connected layers of these widths between image and classes, each followed by ReLU."""

    hidden: tuple[AtLeastOne, ...] = (64,)

    def module(self, channels: int, height: int, width: int, classes: int) -> nn.Module:
        """Make the network with PyTorch's default initialisation."""
        widths = (channels * height * width, *self.hidden)
        layers: list[tuple[str, nn.Module]] = [("flatten", nn.Flatten())]
        for number, (inputs, outputs) in enumerate(pairwise(widths), start=1):
            layers += [(f"linear{number}", nn.Linear(inputs, outputs)), (f"relu{number}", nn.ReLU())]
        return nn.Sequential(OrderedDict([*layers, ("output", nn.Linear(widths[-1], classes))]))


class CNN(msgspec.Struct, frozen=True, tag="cnn", tag_field="name", forbid_unknown_fields=True):
    """Two 3 by 3 convolutions with max-pooling and two linear layers: 1,070,794 parameters on CIFAR-10.

    Images must be at least 4 by 4.

    Attributes:
        width: channels of the first convolution; the second has twice, the first linear layer eight times as many.
    """

    width: AtLeastOne = 32

    def module(self, channels: int, height: int, width: int, classes: int) -> nn.Module:
        """Make the network with PyTorch's default initialisation."""
        layers: list[tuple[str, nn.Module]] = [
            ("conv1", nn.Conv2d(channels, self.width, 3, padding=1)),
            ("pool1", nn.MaxPool2d(2)),  # before ReLU: the same numbers for a quarter of its work
            ("relu1", nn.ReLU()),
            ("conv2", nn.Conv2d(self.width, 2 * self.width, 3, padding=1)),
            ("pool2", nn.MaxPool2d(2)),
            ("relu2", nn.ReLU()),
            ("flatten", nn.Flatten()),
            ("linear1", nn.Linear(2 * self.width * (height // 4) * (width // 4), 8 * self.width)),
            ("relu3", nn.ReLU()),
            ("output", nn.Linear(8 * self.width, classes)),
        ]
        return nn.Sequential(OrderedDict(layers))


class ResNet18(msgspec.Struct, frozen=True, tag="resnet18", tag_field="name", forbid_unknown_fields=True):
    """ResNet-18 for small images (3 by 3 stem, no max-pooling): 11,173,962 parameters on CIFAR-10.

    He et al., "Deep Residual Learning for Image Recognition", CVPR 2016.

    Args:
        width: channels of the stem and the first of the four stages; each further stage has twice as many. 64 is the
            published network; with 8 it has the same layers and 176,402 parameters.
    """

    width: AtLeastOne = 64

    def module(self, channels: int, height: int, width: int, classes: int) -> nn.Module:
        """Make the network with PyTorch's default initialisation; it takes images of any size."""
        del height, width
        layers: list[tuple[str, nn.Module]] = [
            ("conv1", nn.Conv2d(channels, self.width, 3, padding=1, bias=False)),
            ("bn1", nn.BatchNorm2d(self.width)),
            ("relu1", nn.ReLU()),
        ]
        widths = (self.width, *(self.width * 2**stage for stage in range(4)))
        for number, (inputs, outputs) in enumerate(pairwise(widths), start=1):
            stride = 1 if number == 1 else 2
            blocks = nn.Sequential(_Residual(inputs, outputs, stride), _Residual(outputs, outputs, 1))
            layers.append((f"layer{number}", blocks))
        layers += [("pool", nn.AdaptiveAvgPool2d(1)), ("flatten", nn.Flatten())]
        return nn.Sequential(OrderedDict([*layers, ("output", nn.Linear(widths[-1], classes))]))


Model = MLP | CNN | ResNet18


class _Residual(nn.Module):
    """Two convolutions beside a shortcut, which is a 1 by 1 convolution where the shape changes."""

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(inputs, outputs, 3, stride, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(outputs)
        self.conv2 = nn.Conv2d(outputs, outputs, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(outputs)
        self.shortcut: nn.Module = nn.Identity()
        if stride != 1 or inputs != outputs:
            convolution = nn.Conv2d(inputs, outputs, 1, stride, bias=False)
            self.shortcut = nn.Sequential(OrderedDict(conv=convolution, bn=nn.BatchNorm2d(outputs)))

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        inner = torch.relu(self.bn1(self.conv1(images)))
        return torch.relu(self.bn2(self.conv2(inner)) + self.shortcut(images))


def build(model: Model, channels: int, height: int, width: int, classes: int, seed: int) -> nn.Module:
    """Build a model for images of this shape; the same seed gives the same initial parameters.

    PyTorch's global random state is as it was afterwards.

    >>> module = build(MLP(hidden=(64,)), channels=1, height=8, width=8, classes=10, seed=0)
    >>> {name: array.shape for name, array in arrays(module).items()}
    {'linear1.weight': (64, 64), 'linear1.bias': (64,), 'output.weight': (10, 64), 'output.bias': (10,)}
    """
    with torch.random.fork_rng(devices=[]):
        # Not torch.manual_seed, which would seed the GPUs as well and leave them so.
        torch.default_generator.manual_seed(seed)
        return model.module(channels, height, width, classes)


def shapes(
    model: Model, channels: int, height: int, width: int, classes: int
) -> dict[str, tuple[tuple[int, ...], str]]:
    """Shape and element type of every parameter and buffer, by name; nothing is allocated, however large they are.

    >>> shapes(MLP(hidden=(64,)), channels=1, height=8, width=8, classes=10)["output.weight"]
    ((10, 64), 'float32')
    """
    with torch.random.fork_rng(devices=[]), torch.device("meta"):
        module = model.module(channels, height, width, classes)
    state = module.state_dict()
    return {name: (tuple(tensor.shape), str(tensor.dtype).removeprefix("torch.")) for name, tensor in state.items()}


def multiply_accumulates(model: Model, channels: int, height: int, width: int, classes: int) -> int:
    """Count the multiply-accumulates of one forward pass on one image: those of convolutions and linear layers.

    A step of training takes about three times as many: forward, and backward for inputs and for weights.

    >>> multiply_accumulates(MLP(hidden=(64,)), channels=1, height=8, width=8, classes=10) == 64 * 64 + 64 * 10
    True
    """
    counted: list[int] = []

    def count(layer: nn.Module, _: object, outputs: torch.Tensor) -> None:
        assert isinstance(layer.weight, torch.Tensor)
        # Each output of a layer is a sum over all weights of one output channel.
        counted.append(outputs.numel() * layer.weight[0].numel())

    with torch.random.fork_rng(devices=[]), torch.device("meta"):  # shapes alone: nothing is computed
        module = model.module(channels, height, width, classes).eval()
        for layer in module.modules():
            if isinstance(layer, nn.Conv2d | nn.Linear):
                layer.register_forward_hook(count)
        module(torch.empty(1, channels, height, width))
    return sum(counted)


def arrays(module: nn.Module) -> dict[str, NDArray[np.generic]]:
    """Return parameters and buffers by name.

    On the CPU the arrays share memory with the module: they change when it trains. Copy what has to stay.
    """
    return {name: tensor.cpu().numpy() for name, tensor in module.state_dict().items()}


def load_arrays(module: nn.Module, arrays: Mapping[str, NDArray[np.generic]]) -> None:
    """Copy parameters and buffers into a module, in place.

    Raises:
        LayoutError: a name is missing or unknown, or a shape differs; then the module is as it was.
    """
    tensors = module.state_dict()
    if tensors.keys() != arrays.keys():
        raise LayoutError(
            f"arrays must be those of this model: missing {sorted(tensors.keys() - arrays.keys())}, unknown "
            f"{sorted(arrays.keys() - tensors.keys())}; take them from arrays(module) of the same model."
        )
    for name, tensor in tensors.items():
        if tuple(tensor.shape) != arrays[name].shape:
            raise LayoutError(
                f"arrays['{name}'] has shape {arrays[name].shape}, but this model needs "
                f"{tuple(tensor.shape)}; take arrays from the same model with the same data."
            )
    for name, tensor in tensors.items():
        # torch.tensor copies: an array that may only be read would otherwise give a warning.
        tensor.copy_(torch.tensor(arrays[name]))
