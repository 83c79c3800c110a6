"""Which servers, downlinks and strategies a fleet's allocation goes with; errors before the first round."""

from __future__ import annotations

from collections.abc import Iterable

from flwr.app import Message

from joulewise import fleet
from joulewise.errors import FederationError, RuleError
from joulewise.fleet import Allocation
from joulewise.flower import wire


def refuse_legacy(requests: Iterable[Message]) -> None:
    """Servers of the legacy API ask each node by itself, so that no call has a round to divide joules in.

    Raises:
        FederationError: these are requests of such a server.
    """
    if any(wire.LEGACY in request.content for request in requests):
        raise FederationError(
            "legacy servers ask each node by itself, so that there is no round whose joules could be divided; use "
            "Sparse(strategy, allocation=...) with a strategy of flwr.serverapp"
        )


def refuse_dense(allocation: Allocation, downlink: object) -> None:
    """A budget that counts what receivers pay for masks needs a downlink that sends what masks keep, and no more.

    Raises:
        RuleError: the downlink sends something else.
    """
    if fleet.counts_both(allocation) and downlink != "lossless":
        sends = "the whole model" if downlink == "off" else "as many coordinates as it says"
        raise RuleError(
            f"{type(allocation).__name__}(counts='both') counts what receivers pay for what masks keep, but "
            f"downlink={downlink!r} sends them {sends}, whatever is kept; use downlink='lossless', or counts='uplink'"
        )


def refuse_partial(allocation: Allocation, fraction: float, averages: bool) -> None:
    """A budget that counts what receivers pay for masks needs all nodes in each round, and the mean of their replies.

    A node that was left out is sent the changes of all rounds since, or the whole model; and what is more than the mean
    changes coordinates that no mask keeps.

    Args:
        allocation: how joules are divided.
        fraction: share of the nodes that the strategy draws for each round.
        averages: whether it returns the weighted mean of its replies.

    Raises:
        RuleError: the strategy does something else.

    Example:
        >>> from joulewise.fleet import OnePrice
        >>> refuse_partial(OnePrice(share=0.1), 0.5, False)
        >>> refuse_partial(OnePrice(share=0.1, counts="both"), 0.5, True)
        Traceback (most recent call last):
            ...
        joulewise.errors.RuleError: OnePrice(counts='both') counts ... fraction_train=0.5 ...
    """
    if not fleet.counts_both(allocation):
        return
    name = type(allocation).__name__
    if fraction < 1:
        raise RuleError(
            f"{name}(counts='both') counts what all nodes pay to receive one round's changes, but with "
            f"fraction_train={fraction:g} they receive those of all rounds since they were last drawn, or the whole "
            "model; use fraction_train=1.0, or counts='uplink'"
        )
    if not averages:
        raise RuleError(
            f"{name}(counts='both') counts what receivers pay for what masks keep, but this strategy does not return "
            "the mean of its replies alone, and may change every coordinate; use FedAvg or FedProx, or counts='uplink'"
        )
