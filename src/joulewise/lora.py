"""The uplink of a LoRa radio: energy and rate from the time that a frame is on air."""

from __future__ import annotations

import math

import msgspec

from joulewise.quantities import EnergyPerBit, Frequency, Number, Power, Rate, Share, Size

LARGEST_FRAME_BYTES = 255
SLOW_SYMBOL_S = 0.016


class LoRa(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True, tag_field="name", tag="LoRa"):
    """Sending with LoRa, in frames that are all as long as the first.

    A symbol takes ``2^SF / bandwidth``; a frame of PL bytes takes ``preamble + 4.25`` symbols and
    ``8 + max(0, ceil((8 PL - 4 SF + 28 + 16) / (4 (SF - 2 DE))) (CR + 4))`` more, with the frame's check sum and
    its explicit header, and DE = 1 where a symbol lasts longer than 16 ms (Semtech, application note AN1200.13).

    Args:
        spreading_factor: SF, 7 to 12.
        bandwidth: of the channel.
        coding_rate: CR, 1 to 4: four bits are sent as ``4 + CR``.
        preamble: symbols before the frame's own.
        payload: bytes of payload in a frame.
        header: bytes of the network's headers in each frame.
        power: of the device while it sends.
        duty_cycle: largest share of time on air; of the link that this is part of, which hands it over.

    Raises:
        ValueError: a setting is out of range, or the frame has more than 255 bytes.
    """

    spreading_factor: Number
    bandwidth: Frequency
    coding_rate: Number
    preamble: Number
    payload: Size
    header: Size
    power: Power
    duty_cycle: Share | None = None

    def __post_init__(self) -> None:
        if not 7 <= self.spreading_factor.value <= 12:
            raise ValueError(f"`spreading_factor` is {self.spreading_factor.value:g}, expected 7 to 12")
        if self.coding_rate.value > 4:
            raise ValueError(f"`coding_rate` is {self.coding_rate.value:g}, expected 1 to 4: four bits sent as 5 to 8")
        if self._frame_bytes > LARGEST_FRAME_BYTES:
            raise ValueError(
                f"`payload` and `header` are {self._frame_bytes} bytes together, expected at most {LARGEST_FRAME_BYTES}"
            )

    @property
    def time_on_air_s(self) -> float:
        """Seconds that one frame takes."""
        factor, symbol_s = int(self.spreading_factor.value), self._symbol_s
        slow = int(symbol_s > SLOW_SYMBOL_S)
        groups = math.ceil((8 * self._frame_bytes - 4 * factor + 28 + 16) / (4 * (factor - 2 * slow)))
        symbols = 8 + max(0, groups * (int(self.coding_rate.value) + 4))
        return (self.preamble.value + 4.25 + symbols) * symbol_s

    @property
    def marginal(self) -> EnergyPerBit:
        """Energy per payload bit: power times time on air, over the payload of a frame."""
        joules = self.power.si * self.time_on_air_s / (8 * self.payload.si)
        source = (
            f"computed: time on air of a frame (Semtech AN1200.13) times the power while sending: {self.power.source}"
        )
        return EnergyPerBit(joules, "J/bit", "model", source, self.power.year)

    @property
    def goodput(self) -> Rate:
        """Payload bits per second, as often as the duty cycle allows."""
        share = 1.0 if self.duty_cycle is None else self.duty_cycle.si
        source = "computed: payload of a frame over its time on air (Semtech AN1200.13), times the duty cycle"
        return Rate(8 * self.payload.si * share / self.time_on_air_s, "bit/s", "model", source, self.power.year)

    @property
    def _symbol_s(self) -> float:
        return float(2 ** int(self.spreading_factor.value) / self.bandwidth.si)

    @property
    def _frame_bytes(self) -> int:
        return math.ceil(self.payload.si + self.header.si)
