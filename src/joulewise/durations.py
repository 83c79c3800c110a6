"""The time of a round, second by second: each belongs to one thing and pays for one power."""

from __future__ import annotations

import math
import sys

import msgspec

from joulewise.devices import Device, Link
from joulewise.errors import CostError
from joulewise.lora import LoRa


class RoundTime(msgspec.Struct, frozen=True):
    """How long a client did what in one round; the parts follow one another and add up to the round.

    Args:
        receiving_s: the request is received; pays the downlink's energy, and base power with boundary ``device``.
        training_s: the client trains; pays for its multiply-accumulates, whole device.
        sending_s: the reply is sent; pays the uplink's energy, and base power with boundary ``device``.
        waiting_s: what is left; pays idle power.
    """

    receiving_s: float
    training_s: float
    sending_s: float
    waiting_s: float

    @property
    def total_s(self) -> float:
        """The round, from one request to the next."""
        return math.fsum((self.receiving_s, self.training_s, self.sending_s, self.waiting_s))


def round_time(
    device: Device, wall_time_s: float, *, bytes_up: int = 0, bytes_down: int = 0, training_s: float = 0.0
) -> RoundTime:
    """Divide the time of a round, so that no second is paid for twice.

        receiving = 8 * bytes_down / down.goodput      sending = 8 * bytes_up / up.goodput
        waiting = wall_time - receiving - training - sending

    A direction whose goodput is not known takes no time here, nor does choosing and encoding. With LoRa, sending is the
    time on air, as often as framing and retransmission say; the silence that a duty cycle asks for is waiting. The tail
    of a link is in its fixed energy, and no profile says how long it lasts: that time is in waiting.

    Args:
        device: whose link it is.
        wall_time_s: from the request of this round to that of the next.
        bytes_up: of the reply.
        bytes_down: of the request.
        training_s: how long the client trained.

    Raises:
        CostError: an argument is negative or not finite, or the parts take longer than the round.

    Example:
        >>> from joulewise.devices import load_device
        >>> round_time(load_device("phone-lte-2021"), 60.0, bytes_up=1_500_000, training_s=20.0)
        RoundTime(receiving_s=0.0, training_s=20.0, sending_s=0.8, waiting_s=39.2)
    """
    check_amounts(wall_time_s=wall_time_s, bytes_up=bytes_up, bytes_down=bytes_down, training_s=training_s)
    receiving, sending = receiving_s(device, bytes_down), sending_s(device, bytes_up)
    waiting = wall_time_s - math.fsum((receiving, training_s, sending))
    if waiting < -1e-9 * wall_time_s:
        raise CostError(
            f"wall_time_s is {wall_time_s:g}, but receiving ({receiving:g} s), training ({training_s:g} s) and sending "
            f"({sending:g} s) take longer; give the time of the whole round"
        )
    return RoundTime(receiving, training_s, sending, max(0.0, waiting))


def sending_s(device: Device, payload_bytes: float) -> float:
    """Seconds that the uplink of a device is busy with a payload; 0 where its goodput is not known.

    Example:
        >>> from joulewise.devices import load_device
        >>> sending_s(load_device("phone-lte-2021"), 1_500_000)
        0.8
    """
    return 0.0 if device.link is None else 8 * payload_bytes * _up_s_per_bit(device.link)


def receiving_s(device: Device, payload_bytes: float) -> float:
    """Seconds that the downlink of a device is busy with a payload; 0 where its goodput is not known."""
    down = None if device.link is None else device.link.down
    return 0.0 if down is None or down.goodput is None else 8 * payload_bytes / down.goodput.si


def check_amounts(**amounts: float | None) -> None:
    """Refuse an amount that is negative or not finite; None is one that is not known.

    Raises:
        CostError: naming it.
    """
    for name, amount in amounts.items():
        if amount is not None and not 0 <= amount <= sys.float_info.max:
            raise CostError(
                f"{name} is {amount}, expected a finite number of at least 0, or None where it is not known"
            )


def _up_s_per_bit(link: Link) -> float:
    if isinstance(link.up, LoRa):
        sends = link.up_per_bit / link.up.marginal.si
        return sends * link.up.time_on_air_s / (8 * link.up.payload.si)
    return 0.0 if link.up.goodput is None else 1.0 / link.up.goodput.si
