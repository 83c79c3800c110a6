"""What joulewise may do beside differential privacy and secure aggregation, and what it must not.

A clipping mod bounds the norm of what one client changes, before `Sparsify` adds what waited. So what is sent is
clipped once more, and what that takes away waits in its turn. Each round's change by one client is then bounded by the
norm that the server's noise was made for.
"""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from typing import Any

import numpy as np
from flwr.app import Message
from flwr.clientapp.mod import LocalDpMod

from joulewise.codec import decode
from joulewise.compress import ClientState, Compressor, Sent
from joulewise.costs import Costs
from joulewise.errors import RuleError, UpdateError
from joulewise.layout import Arrays, Layout, Vector

CLIPPING_NORM = "clipping_norm"
"""Key under which Flower's strategies for client-side clipping send the norm."""

SECURE = "secaggplus"
"""What the names of the records of Flower's secure aggregation begin with."""


def refuse_secure_aggregation(message: Message) -> None:
    """Secure aggregation and sparse updates do not go together.

    Raises:
        RuleError: the message is of Flower's SecAgg or SecAgg+.
    """
    if message.has_content() and any(key.startswith(SECURE) for key in message.content):
        raise RuleError(
            "secure aggregation adds masks that cancel out only in a sum over the same coordinates of all clients, but "
            "Sparsify sends other coordinates of each; leave one of the two out"
        )


def refuse_carried_noise(call_next: Callable[..., Message], compressor: Compressor) -> None:
    """Local noise on every coordinate must not be remembered.

    Raises:
        RuleError: there is error feedback, and Flower's `LocalDpMod` is among the mods that follow.
    """
    if compressor.feedback is not None and any(isinstance(mod, LocalDpMod) for mod in _following(call_next)):
        raise RuleError(
            "LocalDpMod adds noise to every coordinate, and error feedback would carry the noise of what is not sent "
            "into later rounds; use Sparsify(feedback=None)"
        )


def _following(call_next: Callable[..., Message]) -> Iterator[object]:
    """The mods after this one, as far as they can be seen: Flower nests them in closures."""
    current: Any = call_next
    for _ in range(64):
        if not inspect.isfunction(current):
            return
        cells = zip(current.__code__.co_freevars, current.__closure__ or (), strict=True)
        held = {name: cell.cell_contents for name, cell in cells}
        yield from held.values()
        inner = [value for name, value in held.items() if name.endswith("ffn")]
        if len(inner) != 1:
            return
        current = inner[0]


def compress(  # noqa: PLR0913, PLR0917 (those of `Compressor.compress`, and the norm)
    compressor: Compressor,
    update: Vector,
    state: ClientState,
    costs: Costs,
    seed: list[int],
    whole: Mapping[str, Any] | None,
    most: float | None,
) -> Sent:
    """As `Compressor.compress`, with the decoded change clipped to a norm, where there is one.

    Args:
        compressor: rule, budget, encoding and feedback.
        update: float32[n].
        state: what the client remembers, settled.
        costs: prices of its device.
        seed: of random rules.
        whole: buffers and tensors that are not float.
        most: largest L2 norm of the decoded coordinates; None for no limit.

    Raises:
        UpdateError: as `Compressor.compress`.
        RuleError: the compressor has EF21, and there is a norm.
    """
    if most is not None and compressor.estimates:
        raise RuleError(
            "clipping bounds what one reply changes, but with EF21 what a client has sent changes the model in "
            "every later round too; use ErrorFeedback(), or leave the clipping mod out"
        )
    sent = compressor.compress(update, state, costs, _generator(compressor, seed), whole)
    if most is None or (norm := _norm_of(sent, costs.layout)) <= most:
        return sent
    added, feedback = added_to(compressor, update, state), compressor.feedback
    moved = update if feedback is None else feedback.moved(update, state.momentum)
    factor = 1.0
    for _ in range(8):  # Once is enough, but for what values are rounded to.
        factor *= most / norm * (1 - 1e-6)
        scaled = (added * factor).astype(np.float32)
        bare = replace(state, residual=None, momentum=None)  # Both are added already.
        sent = compressor.compress(scaled, bare, costs, _generator(compressor, seed), whole)
        if (norm := _norm_of(sent, costs.layout)) <= most:
            break
    else:
        raise UpdateError(
            f"what is sent cannot be clipped to the norm {most}: its value type rounds too far; use float32"
        )
    if feedback is None:
        return sent
    rest = (added - decode(sent.payload, costs.layout).dense()).astype(np.float32)
    velocity = feedback.left(moved, sent.selection.indices)
    return replace(sent, state=replace(sent.state, residual=rest, momentum=velocity))


def norm_left(config: Mapping[str, object], before: Arrays, after: Arrays, layout: Layout) -> float | None:
    """The norm that the server clips to, less what buffers and other tensors that travel whole take of it."""
    norm = config.get(CLIPPING_NORM)
    if not isinstance(norm, int | float):
        return None
    names = [tensor.name for tensor in layout.wholes]
    moved = math.fsum(
        float(np.square(after[name].astype(np.float64) - before[name].astype(np.float64)).sum()) for name in names
    )
    return math.sqrt(max(0.0, float(norm) ** 2 - moved))


def _generator(compressor: Compressor, seed: list[int]) -> np.random.Generator | None:
    return np.random.default_rng(seed) if compressor.rule.random else None


def added_to(compressor: Compressor, update: Vector, state: ClientState) -> Vector:
    """What is compressed: the update, with its momentum and what is left of earlier ones."""
    if compressor.feedback is None:
        return update
    moved = compressor.feedback.moved(update, state.momentum)
    if state.residual is None:
        return moved
    added: Vector = moved + compressor.feedback.carry(state.residual, moved)
    return added


def _norm_of(sent: Sent, layout: Layout) -> float:
    values = decode(sent.payload, layout).selection.values.astype(np.float64)
    return math.sqrt(float(np.square(values).sum()))
