"""Who pays for a kept coordinate, and for what: the client that sends it, and the devices that receive it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import numpy as np

from joulewise.costs import Block, Term
from joulewise.devices import Device, Level, Link
from joulewise.errors import CostError
from joulewise.layout import Layout
from joulewise.residency import cache_lines, flash_of, flash_pages, traffic, working_levels
from joulewise.tensorwise import Floats

Boundary = Literal["radio", "device", "memory"]
"""What a price takes in: ``radio`` the marginal joules of the link; ``device`` also the base power of the
device while it sends; ``memory`` no link at all."""

Update = Literal["weights", "gradient"]
"""What is compressed: the change of the ``weights`` after local training, or the ``gradient`` before the optimizer's
step, so that a coordinate that is not kept also spares its optimizer state and its weight."""

Optimizer = Literal["sgd", "momentum", "adam"]


@dataclass(frozen=True, slots=True)
class Step:
    """An optimizer's step on one parameter: float32 arrays read and written, multiplications and additions."""

    arrays: int
    multiplications: int
    additions: int


# The arrays are the weights and the optimizer's state; the gradient is read besides. Roots and quotients count as
# multiplications: Adam has 2 + 3 of its moments, 2 of the step and one root.
STEPS: Mapping[str, Step] = {"sgd": Step(1, 1, 1), "momentum": Step(2, 2, 2), "adam": Step(3, 8, 4)}


@dataclass(frozen=True, slots=True, eq=False)
class Sender:
    """A client whose coordinates are priced.

    Args:
        layout: the tensors.
        device: whose prices.
        values: float64[tensors], bits of a value.
        bits: float64[tensors], bits of a kept coordinate.
        links: of each tensor; none with boundary ``memory``.
        boundary: what a price takes in.
        step: of the optimizer, where the gradient is compressed.
    """

    layout: Layout
    device: Device
    values: Floats
    bits: Floats
    links: tuple[Link, ...]
    boundary: Boundary
    step: Step | None

    @property
    def levels(self) -> tuple[Level, ...]:
        """Where the working arrays of each tensor lie; none for a device without memory."""
        if self.device.memory is None:
            return ()
        return working_levels(self.layout, self.device.memory, 1 if self.step is None else self.step.arrays)

    @property
    def flash(self) -> Level | None:
        """Where the weights lie between rounds, if that is flash."""
        return None if self.device.memory is None else flash_of(self.device.memory)

    def terms(self) -> list[Term]:
        """What the client itself pays for a kept coordinate."""
        terms = []
        if self.levels:
            terms.append(plain("send_buffer", traffic(self.levels, 1, 1, self.values)))
        if self.links:
            terms.append(per_bit("uplink", np.array([link.up_per_bit for link in self.links]), self.bits))
        if self.links and self.boundary == "device":
            terms.append(per_bit("base_power", np.array([self._base_per_bit(each) for each in self.links]), self.bits))
        if self.step is not None:
            terms.append(plain("optimizer", self._optimizer_traffic(self.step) + self._arithmetic(self.step)))
        if self.flash is not None:
            terms.append(plain("persistence", traffic([self.flash] * len(self.layout.tensors), 0, 1)))
        return terms

    def blocks(self) -> list[Block | None]:
        """What the client itself moves in blocks."""
        lines = None
        if self.step is not None and self.levels:
            lines = cache_lines("cache_lines", self.levels, self._optimizer_traffic(self.step))
        pages = None if self.flash is None else flash_pages("flash_pages", self.flash, len(self.layout.tensors))
        return [lines, pages]

    def _optimizer_traffic(self, step: Step) -> Floats:
        if not self.levels:
            return np.zeros(len(self.layout.tensors))
        return traffic(self.levels, step.arrays + 1, step.arrays)

    def _arithmetic(self, step: Step) -> float:
        compute = self.device.compute
        if compute is None:
            return 0.0
        operations = step.multiplications * compute.multiply.si + step.additions * compute.add.si
        return operations + (0.0 if compute.per_update is None else compute.per_update.si)

    def _base_per_bit(self, link: Link) -> float:
        if link.base_per_bit is None:
            raise CostError(
                f"boundary='device' needs base_power and up.goodput of the link, but device {self.device.name!r} "
                "lacks one of them; add it to the file or use boundary='radio'"
            )
        return link.base_per_bit


@dataclass(frozen=True, slots=True, eq=False)
class Receivers:
    """The other devices that receive a coordinate because a client sent it, and write it.

    Args:
        count: how many; may be a mean.
        down_per_bit: float64[tensors], energy of receiving a bit; 0 where no downlink is priced.
        levels: where each tensor's weights lie between rounds; none where no memory is known.
        flash: where they lie, if that is flash.
    """

    count: float
    down_per_bit: Floats
    levels: tuple[Level, ...]
    flash: Level | None

    @classmethod
    def of(cls, layout: Layout, count: float, device: Device, links: tuple[Link, ...], same: bool) -> Receivers:
        """Receivers of one kind; with `links` (none: the boundary leaves links out), the sender's where `same`."""
        if device.prices is not None:
            raise CostError(f"receiver {device.name!r} is relative, but the sender pays in joules; give one in joules")
        own = 0.0 if device.link is None else device.link.down_per_bit
        down = [link.down_per_bit if same else own for link in links] or [0.0] * len(layout.tensors)
        flash = None if device.memory is None else flash_of(device.memory)
        levels = () if device.memory is None else working_levels(layout, device.memory)
        kept = levels if flash is None else (flash,) * len(layout.tensors)
        return cls(count, np.array(down, dtype=np.float64), kept, flash)

    def terms(self, bits: Floats) -> list[Term]:
        """What they pay for one coordinate of each tensor."""
        terms = []
        if self.count and self.down_per_bit.any():
            terms.append(per_bit("downlink_share", self.count * self.down_per_bit, bits))
        if self.count and self.levels:
            terms.append(plain("receiver_write", self._written()))
        return terms

    def blocks(self) -> list[Block | None]:
        """What they move in blocks."""
        if not self.count or not self.levels:
            return []
        if self.flash is not None:
            return [flash_pages("receiver_flash_pages", self.flash, len(self.levels), self.count)]
        return [cache_lines("receiver_cache_lines", self.levels, self._written())]

    def _written(self) -> Floats:
        return self.count * traffic(self.levels, 0, 1)


def plain(name: str, per_kept: Floats) -> Term:
    """A term that does not depend on the encoded bits."""
    return Term(name, per_kept, np.zeros(len(per_kept)))


def per_bit(name: str, energies: Floats, bits: Floats) -> Term:
    """A term that is paid per encoded bit."""
    return Term(name, energies * bits, energies)
