"""How long an upload takes on a link, and how much of that the radio is on air."""

from __future__ import annotations

import math

import msgspec

from joulewise.devices import Link, LoRa

LONG_S = 3600.0
"""From here on a reader should hear of it: other devices, a battery, a person wait."""

_UNITS = ((2 * 86400.0, 86400.0, "days"), (2 * 3600.0, 3600.0, "hours"), (120.0, 60.0, "minutes"), (0.0, 1.0, "s"))


class Upload(msgspec.Struct, frozen=True):
    """Sending a payload.

    Args:
        bytes: of the payload.
        on_air_s: seconds of sending; None where the link's goodput is not known.
        seconds: from the first bit to the last, with the pauses of a duty cycle; None as `on_air_s`.
        duty_cycle: largest share of time on air; 1 where there is no limit.
    """

    bytes: int
    on_air_s: float | None
    seconds: float | None
    duty_cycle: float

    @property
    def is_long(self) -> bool:
        """Whether it takes an hour or more."""
        return self.seconds is not None and self.seconds >= LONG_S


def upload(link: Link, payload_bytes: int) -> Upload:
    """How long `payload_bytes` take: ``seconds = on_air_s / duty_cycle``.

    On a LoRa uplink ``on_air_s`` is the time on air of a frame (Semtech AN1200.13) for each frame, the last one counted
    whole, each sent as often as framing and retransmission say; else it is bits over goodput.

    Example:
        >>> from joulewise.devices import load_device
        >>> found = upload(load_device("lorawan-eu868-sf7").link, 1_000_000)
        >>> duration(found.on_air_s), duration(found.seconds)
        ('28 minutes', '46 hours')
    """
    duty = 1.0 if link.duty_cycle is None else link.duty_cycle.si
    if isinstance(link.up, LoRa):
        sends = link.up_per_bit / link.up.marginal.si
        on_air = math.ceil(payload_bytes / link.up.payload.si) * sends * link.up.time_on_air_s
    elif link.up.goodput is not None:
        on_air = 8 * payload_bytes / link.up.goodput.si
    else:
        return Upload(payload_bytes, None, None, duty)
    return Upload(payload_bytes, on_air, on_air / duty, duty)


def duration(seconds: float) -> str:
    """A time with two digits, in the unit that suits it.

    Example:
        >>> duration(0.0421), duration(90.0), duration(5 * 3600), duration(1e6)
        ('0.042 s', '90 s', '5 hours', '12 days')
    """
    size, name = next((size, name) for least, size, name in _UNITS if seconds >= least)
    amount = float(f"{seconds / size:.2g}")
    return f"{amount:,.0f} {name}" if amount >= 10 else f"{amount:g} {name}"


def sentence(sent: Upload, what: str) -> str:
    """How long `what` takes, in words, such as ``2 hours, 72 s of it on air at a duty cycle of 1 %``.

    Example:
        >>> sentence(Upload(100, 72.0, 7200.0, 0.01), "the upload")
        'the upload takes 2 hours, 72 s of it on air at a duty cycle of 1 %'
    """
    if sent.seconds is None or sent.on_air_s is None:
        return f"how long {what} takes is not known: the link has no goodput"
    pauses = ""
    if sent.duty_cycle < 1:
        pauses = f", {duration(sent.on_air_s)} of it on air at a duty cycle of {100 * sent.duty_cycle:g} %"
    return f"{what} takes {duration(sent.seconds)}{pauses}"
