"""Who pays for a kept coordinate, and for what: the client that sends it, and the devices that receive it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import msgspec
import numpy as np
import numpy.typing as npt

from joulewise.costs import Block, Term
from joulewise.devices import Device, Entry, Level, Link, describe
from joulewise.errors import CostError
from joulewise.layout import Layout
from joulewise.lora import LoRa
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
        in_ram: bool[tensors], tensors whose weights stay in RAM although those of the others lie in flash.
    """

    layout: Layout
    device: Device
    values: Floats
    bits: Floats
    links: tuple[Link, ...]
    boundary: Boundary
    step: Step | None
    in_ram: npt.NDArray[np.bool_]

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
            written = traffic([self.flash] * len(self.layout.tensors), 0, 1)
            terms.append(plain("persistence", np.where(self.in_ram, 0.0, written)))
        return terms

    def blocks(self) -> list[Block | None]:
        """What the client itself moves in blocks."""
        lines = None
        if self.step is not None and self.levels:
            lines = cache_lines("cache_lines", self.levels, self._optimizer_traffic(self.step))
        pages = None if self.flash is None else flash_pages("flash_pages", self.flash, ~self.in_ram)
        return [lines, pages]

    def origins(self) -> list[Entry]:
        """The numbers of the device and its links that stand behind these terms, and behind `Costs.fixed`."""
        parts = _of_memory(self.device, self.levels, self.flash, writes_only=False)
        if self.step is not None and self.device.compute is not None:
            parts += [each for each in describe(self.device.compute, "compute") if each.path != "compute.training"]
        left_out = {"link.duty_cycle"} | (
            set() if self.boundary == "device" else {"link.base_power", "link.up.goodput"}
        )
        entries = [each for link in self.links for each in describe(link, "link")]
        parts += [each for each in entries if each.path not in left_out and not each.path.startswith("link.down.")]
        return list(dict.fromkeys(parts))

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
        if isinstance(link.up, LoRa):
            raise CostError(
                f"boundary='device' has nothing to add on device {self.device.name!r}: the power of a LoRa uplink is "
                "the whole device's already; use boundary='radio'"
            )
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
        device: of what kind.
        links: of each tensor, over which they receive; none where no downlink is priced.
        stored: bool[tensors], of which tensors the weights lie in flash.
        levels: where each tensor's weights lie between rounds; none where no memory is known.
        prefix: of the paths of their numbers; empty where they are devices like the sender.
    """

    count: float
    device: Device
    links: tuple[Link, ...]
    stored: npt.NDArray[np.bool_]
    levels: tuple[Level, ...]
    prefix: str

    @classmethod
    def of(cls, sender: Sender, count: float, receiver: Device | None) -> Receivers:
        """Receivers of one kind; None: like the sender, on the same links and with the same tensors in RAM."""
        layout, device = sender.layout, sender.device if receiver is None else receiver
        if device.prices is not None:
            raise CostError(f"receiver {device.name!r} is relative, but the sender pays in joules; give one in joules")
        links = sender.links
        if receiver is not None and links:  # Without, the boundary leaves links out.
            links = () if receiver.link is None else (receiver.link,) * len(layout.tensors)
        memory = device.memory
        flash = None if memory is None else flash_of(memory)
        in_ram = sender.in_ram if receiver is None else np.zeros(len(layout.tensors), dtype=bool)
        stored = ~in_ram if flash is not None else np.zeros(len(layout.tensors), dtype=bool)
        levels = () if memory is None else working_levels(layout, memory)
        kept = tuple(flash if flash and inside else each for each, inside in zip(levels, stored, strict=False))
        return cls(count, device, links, stored, kept, "" if receiver is None else "receiver.")

    def terms(self, bits: Floats) -> list[Term]:
        """What they pay for one coordinate of each tensor."""
        terms, down = [], np.array([link.down_per_bit for link in self.links], dtype=np.float64)
        if self.count and down.any():
            terms.append(per_bit("downlink_share", self.count * down, bits))
        if self.count and self.levels:
            terms.append(plain("receiver_write", self._written()))
        return terms

    def blocks(self) -> list[Block | None]:
        """What they move in blocks: pages where weights lie in flash, lines elsewhere."""
        if not self.count or not self.levels:
            return []
        flash = self._flash
        pages = None if flash is None else flash_pages("receiver_flash_pages", flash, self.stored, self.count)
        scattered = np.where(self.stored, 0.0, self._written())
        lines = cache_lines("receiver_cache_lines", self.levels, scattered) if scattered.any() else None
        return [pages, lines]

    def origins(self) -> list[Entry]:
        """The numbers of the receivers that stand behind these terms."""
        if not self.count:
            return []
        parts = _of_memory(self.device, self.levels, self._flash, writes_only=True)
        for link in self.links:
            if link.down_per_bit:
                shared = ("link.down.marginal", "link.framing", "link.retransmission")
                parts += [each for each in describe(link, "link") if each.path in shared]
        prefixed = [msgspec.structs.replace(each, path=self.prefix + each.path) for each in parts]
        return list(dict.fromkeys(prefixed))

    @property
    def _flash(self) -> Level | None:
        return None if self.device.memory is None else flash_of(self.device.memory)

    def _written(self) -> Floats:
        return self.count * traffic(self.levels, 0, 1)


def _of_memory(device: Device, levels: tuple[Level, ...], flash: Level | None, *, writes_only: bool) -> list[Entry]:
    """The numbers of the levels of memory that something lies in; flash is only ever written to."""
    if device.memory is None:
        return []
    homes = [*levels, *([] if flash is None else [flash])]
    used = {name for name in ("sram", "dram", "flash") if any(each is getattr(device.memory, name) for each in homes)}
    read_nowhere = {f"memory.{name}.read" for name in used if writes_only or name == "flash"}
    entries = describe(device.memory, "memory")
    return [each for each in entries if each.path.split(".")[1] in used and each.path not in read_nowhere]


def plain(name: str, per_kept: Floats) -> Term:
    """A term that does not depend on the encoded bits."""
    return Term(name, per_kept, np.zeros(len(per_kept)))


def per_bit(name: str, energies: Floats, bits: Floats) -> Term:
    """A term that is paid per encoded bit."""
    return Term(name, energies * bits, energies)
