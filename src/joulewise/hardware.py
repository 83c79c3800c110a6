"""The parts of a device: memory, arithmetic, link and battery."""

from __future__ import annotations

from typing import Literal

import msgspec

from joulewise.lora import LoRa
from joulewise.quantities import Energy, EnergyPerBit, EnergyPerOperation, Factor, Power, Rate, Share, Size


class Level(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One level of memory.

    Args:
        read: energy of reading a bit.
        write: energy of writing a bit.
        capacity: how much fits.
        line: what is moved at once, such as a cache line.
        page: of flash: what is erased, and then written, as a whole.
        erase: of flash: energy of erasing a page.

    Raises:
        ValueError: there is a page without an erase energy, or the reverse.
    """

    read: EnergyPerBit
    write: EnergyPerBit
    capacity: Size | None = None
    line: Size | None = None
    page: Size | None = None
    erase: Energy | None = None

    def __post_init__(self) -> None:
        if (self.page is None) != (self.erase is None):
            lacks, has = ("page", "erase") if self.page is None else ("erase", "page")
            raise ValueError(f"`{has}` is there without `{lacks}`; a page costs `erase` once, so give both or neither")


Home = Literal["sram", "dram", "flash"]
"""A level of memory by its name."""


class Memory(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The levels of memory of a device.

    Args:
        dram: main memory; where there is none, the send buffer and the optimizer's arrays are in `sram`.
        sram: memory on the chip.
        flash: memory that keeps its content without power.
        weights: where the model is between rounds; None: in dram, or in sram where there is no dram.

    Raises:
        ValueError: there is neither dram nor sram, or no level `weights`.
    """

    dram: Level | None = None
    sram: Level | None = None
    flash: Level | None = None
    weights: Home | None = None

    def __post_init__(self) -> None:
        if self.dram is None and self.sram is None:
            raise ValueError("a memory has [memory.dram] or [memory.sram]: the send buffer must lie somewhere")
        if self.weights is not None and getattr(self, self.weights) is None:
            raise ValueError(f"`weights` is {self.weights!r}, but there is no [memory.{self.weights}]")

    @property
    def main(self) -> Level:
        """Where the send buffer and the optimizer's arrays are: dram if there is one, else sram."""
        level = self.sram if self.dram is None else self.dram
        assert level is not None  # __post_init__
        return level

    @property
    def home(self) -> Home:
        """The level that the model is in between rounds."""
        return self.weights or ("sram" if self.dram is None else "dram")


class Compute(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Energy of arithmetic in float32.

    Args:
        add: of one addition.
        multiply: of one multiplication.
        per_update: of the instructions around the update of one parameter.
        training: of one multiply-accumulate of training, whole device.
    """

    add: EnergyPerOperation
    multiply: EnergyPerOperation
    per_update: EnergyPerOperation | None = None
    training: EnergyPerOperation | None = None


class Direction(msgspec.Struct, frozen=True, forbid_unknown_fields=True, tag_field="name", tag=True):
    """One direction of a link.

    Args:
        marginal: energy that one bit more adds.
        goodput: payload bits per second, for sharing out the base power.
    """

    marginal: EnergyPerBit
    goodput: Rate | None = None


class Link(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A radio or a wire: energy = fixed + base_power * seconds + marginal * bits.

    Args:
        up: sending.
        down: receiving, where it is known.
        base_power: power of the whole device while the link is busy, shared with whatever else it does.
        fixed: energy once per transmission, whatever its size: promotion and tail.
        framing: bits on air per payload bit.
        retransmission: mean number of times that a bit is sent.
        duty_cycle: largest share of time on air.

    Raises:
        ValueError: a LoRa uplink has a duty cycle of its own, or there is a base power beside it.
    """

    up: Direction | LoRa
    down: Direction | None = None
    base_power: Power | None = None
    fixed: Energy | None = None
    framing: Factor | None = None
    retransmission: Factor | None = None
    duty_cycle: Share | None = None

    def __post_init__(self) -> None:
        if isinstance(self.up, LoRa) and self.base_power is not None:
            raise ValueError("`base_power` beside a LoRa uplink would be paid twice; its `power` is the whole device's")
        if not isinstance(self.up, LoRa) or self.up.duty_cycle == self.duty_cycle:
            return
        if self.up.duty_cycle is not None:
            raise ValueError("`up` has a `duty_cycle` of its own; give it as link.duty_cycle alone")
        msgspec.structs.force_setattr(self, "up", msgspec.structs.replace(self.up, duty_cycle=self.duty_cycle))

    @property
    def up_per_bit(self) -> float:
        """Marginal energy of sending one payload bit, with framing and retransmission, J/bit."""
        return self.up.marginal.si * self._sends

    @property
    def down_per_bit(self) -> float:
        """Marginal energy of receiving one payload bit, with framing and retransmission, J/bit; 0 where unknown."""
        return 0.0 if self.down is None else self.down.marginal.si * self._sends

    @property
    def base_per_bit(self) -> float | None:
        """Base power over the uplink's goodput, J/bit; None where one of them is unknown."""
        if self.base_power is None or self.up.goodput is None:
            return None
        return self.base_power.si / self.up.goodput.si

    @property
    def _sends(self) -> float:
        framing = 1.0 if self.framing is None else self.framing.si
        return framing * (1.0 if self.retransmission is None else self.retransmission.si)


class Battery(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What a device runs on.

    Args:
        capacity: energy of a full charge.
    """

    capacity: Energy
