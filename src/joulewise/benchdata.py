"""What benchmarks run on: layouts of ResNet-18's proportions, and updates like those of training, made from a seed.

The made updates are synthetic: tensors of unequal scale (10 to a power drawn between -4 and -1.5), in turn Laplace and
a normal mixture with heavy tails, and prices spread by half a decade. Recorded updates come from a file.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from joulewise.costs import Costs
from joulewise.errors import ArgumentError
from joulewise.layout import Kind, Layout, Tensor, Vector

RESNET18 = 11_173_962
"""Parameters of a ResNet-18 for ten classes of small images, in 62 tensors."""
SEED = 0


@dataclass(frozen=True, slots=True, eq=False)
class Load:
    """An update, its prices, and what is remembered from before.

    Args:
        name: ``synthetic``, or ``recorded``.
        update: float32[n].
        residual: float32[n].
        costs: one price per tensor.
    """

    name: str
    update: Vector
    residual: Vector
    costs: Costs

    @property
    def n(self) -> int:
        """How many coordinates."""
        return self.costs.layout.n


def resnet18() -> Layout:
    """The parameter tensors of a ResNet-18, by shape; PyTorch is not needed.

    Example:
        >>> layout = resnet18()
        >>> layout.n == RESNET18, len(layout.tensors)
        (True, 62)
    """
    shapes: list[tuple[int, ...]] = [(64, 3, 3, 3), (64,), (64,)]
    before = 64
    for width in (64, 128, 256, 512):
        for block in range(2):
            shapes += [(width, before, 3, 3), (width,), (width,), (width, width, 3, 3), (width,), (width,)]
            if block == 0 and width != before:
                shapes += [(width, before, 1, 1), (width,), (width,)]
            before = width
    shapes += [(10, 512), (10,)]
    kinds: dict[int, Kind] = {4: "conv", 2: "linear", 1: "vector"}
    return Layout(tuple(Tensor(f"t{at}", shape, kinds[len(shape)], "float32") for at, shape in enumerate(shapes)))


def layout_of(n: int) -> Layout:
    """ResNet-18 itself, or 62 flat tensors of its proportions with n coordinates together.

    Raises:
        ArgumentError: n is below 1,000, or 2^32 and more.
    """
    if n == RESNET18:
        return resnet18()
    if not 1000 <= n < 2**32:
        raise ArgumentError(f"--n {n} is out of range; give a number of coordinates from 1,000 to 4,294,967,295")
    ends = np.round(resnet18().offsets.astype(np.float64) * (n / RESNET18)).astype(np.int64)
    sizes = np.diff(ends)
    return Layout(tuple(Tensor(f"t{at}", (int(size),), "vector", "float32") for at, size in enumerate(sizes)))


def synthetic(n: int, seed: int = SEED) -> Load:
    """A made update of n coordinates, a residual of its size, and prices around a nanojoule."""
    layout, rng = layout_of(n), np.random.default_rng(seed)
    return Load("synthetic", _like_training(layout, rng), _like_training(layout, rng), _prices(layout, rng))


def recorded(update: Vector, layout: Layout, seed: int = SEED) -> Load:
    """A recorded update, with the same coordinates in another order within each tensor as its residual.

    Args:
        update: float32[n].
        layout: of the model.
        seed: of prices and order.
    """
    rng = np.random.default_rng(seed)
    residual = update.copy()
    for start, stop in zip(layout.offsets[:-1], layout.offsets[1:], strict=True):
        rng.shuffle(residual[start:stop])
    return Load("recorded", update, residual, _prices(layout, rng))


def _like_training(layout: Layout, rng: np.random.Generator) -> Vector:
    made = np.empty(layout.n, np.float32)
    for number, (start, stop) in enumerate(zip(layout.offsets[:-1], layout.offsets[1:], strict=True)):
        part = made[start:stop]
        rng.standard_normal(out=part, dtype=np.float32)
        if number % 2:
            part *= np.where(rng.random(part.size, np.float32) < 0.1, np.float32(5), np.float32(1))
        else:
            # A normal number times the root of an exponential one is Laplace.
            part *= np.sqrt(rng.standard_exponential(part.size, np.float32))
        part *= np.float32(10 ** rng.uniform(-4, -1.5))
    return made


def _prices(layout: Layout, rng: np.random.Generator) -> Costs:
    return Costs.of(1e-9 * 10 ** (0.5 * rng.standard_normal(len(layout.tensors))), layout, "J")
