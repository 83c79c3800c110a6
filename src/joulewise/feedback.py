"""Error feedback: what a client does with what it did not send, and with the momentum of its updates; and EF21."""

from __future__ import annotations

import math
import sys
from typing import ClassVar

import msgspec
import numpy as np
import numpy.typing as npt

from joulewise.errors import RuleError
from joulewise.layout import Vector
from joulewise.ranking import CHUNK


class ErrorFeedback(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What was not sent is added to the next update.

    Seide et al., Interspeech 2014; Karimireddy et al., ICML 2019.

    Plain feedback sends a coordinate that waited t rounds with t rounds of change at once, which can
    overshoot where local steps are large; `decay` and `clip` make what is carried over smaller.

    With `momentum` m each client keeps a velocity of its own, which is what is summed up until it is sent (Lin, Han,
    Mao, Wang and Dally, "Deep Gradient Compression", ICLR 2018: momentum correction)::

        v' = m v + u,   a = r + v',   payload = encode(select(a)),   r' = a - decode(payload)

    and with `masking` v' becomes 0 where a coordinate was sent, so that an old direction does not push it on (their
    momentum factor masking). Their clipping of gradients and their warm-up of the density are not in it. The velocity
    of a steady update u grows to ``u / (1 - m)``: lower the learning rate by as much.

    Args:
        decay: factor on the residual at each round, from 0 (forget) to 1 (lose nothing).
        clip: largest norm of the residual that is added, as a multiple of the norm of what it is added to; None for
            no limit.
        momentum: m, from 0 (none) to below 1.
        masking: whether what is sent loses its velocity; only read with momentum.

    Raises:
        RuleError: one of them is out of its range.

    Example:
        >>> from joulewise.compress import Compressor, settle
        >>> from joulewise.costs import Costs
        >>> from joulewise.rules import Count, TopK
        >>> costs = Costs.of(np.ones(2))
        >>> compressor, state = Compressor(TopK(), Count(1), feedback=ErrorFeedback(momentum=0.5)), None
        >>> for number in (1, 2):
        ...     state = compressor.compress(np.array([4.0, 2.0], np.float32), state, costs).state
        ...     print(state.residual.tolist(), state.momentum.tolist())
        ...     state, _ = settle(state, number, costs.layout)
        [0.0, 2.0] [0.0, 2.0]
        [4.0, 0.0] [4.0, 0.0]
    """

    estimates: ClassVar[bool] = False

    decay: float = 1.0
    clip: float | None = None
    momentum: float = 0.0
    masking: bool = True

    def __post_init__(self) -> None:
        if not 0 <= self.decay <= 1:
            raise RuleError(f"ErrorFeedback(decay) must be between 0 and 1, but is {self.decay}")
        if self.clip is not None and not 0 < self.clip <= sys.float_info.max:
            raise RuleError(f"ErrorFeedback(clip) must be finite and above 0, but is {self.clip}")
        if not 0 <= np.float32(self.momentum) < 1:  # 1 - 1e-9 is 1 in the velocity's float32, which would never decay.
            raise RuleError(f"ErrorFeedback(momentum) must be at least 0 and below 1, but is {self.momentum}")

    @property
    def vectors(self) -> int:
        """How many vectors of the model's size a client keeps for it."""
        return 2 if self.momentum else 1

    def carry(self, residual: Vector, update: Vector) -> Vector:
        """The part of the residual that is added to an update: float32[n]."""
        factor = self.factor(residual, update)
        return residual if factor == 1 else residual * np.float32(factor)

    def factor(self, residual: Vector, update: Vector) -> float:
        """What the residual is multiplied by before it is added to an update."""
        if self.clip is None:
            return self.decay
        norm, most = _norm(residual) * self.decay, self.clip * _norm(update)
        return self.decay * (most / norm if norm > most else 1.0)

    def moved(self, update: Vector, velocity: Vector | None) -> Vector:
        """``m v + u``, which takes the place of the update: float32[n]; the update itself where v is None."""
        if not self.momentum or velocity is None:
            return update
        with np.errstate(over="ignore", under="ignore", invalid="ignore"):  # What is not finite is refused by name.
            moved: Vector = velocity * np.float32(self.momentum)
            moved += update
        return moved

    def rest(self, added: Vector, before: Vector | None) -> Vector:
        """What the values that are sent are taken from, which leaves the next residual: what there was."""
        del before
        return added

    def left(self, moved: Vector, sent: npt.NDArray[np.uint32]) -> Vector | None:
        """The velocity after a reply with the coordinates `sent`: float32[n], a vector of its own; None for none."""
        if not self.momentum:
            return None
        velocity = moved.copy()
        if self.masking:
            velocity[sent] = 0.0
        return velocity


class EF21(msgspec.Struct, frozen=True, tag_field="name", tag="EF21", forbid_unknown_fields=True):
    """Clients send what brings an estimate of their update closer to it; the server goes by the mean of all estimates.

    Richtarik, Sokolov and Fatkhullin, "EF21: A New, Simpler, Theoretically Better, and Practically Faster Error
    Feedback", NeurIPS 2021, arXiv:2106.05203. Each client and the server keep the client's estimate g, 0 at first::

        payload = encode(select(u - g)),   g' = g + decode(payload)      at a client with the update u
        x' = x + sum(w g') / sum(w)                                      at the server, over all clients heard so far

    with w the number of a client's examples. A client that is not there keeps its part of the mean, as in EF21-PP
    (Fatkhullin et al., "EF21 with Bells & Whistles", arXiv:2110.03294). The server keeps sum(w g) alone, one vector for
    any number of clients. A client's residual is -g, and what it selects from is ``a = u + r``. Nothing piles up and is
    sent late; a coordinate that was sent once goes on moving the model in every later round.

    A server of your own adds the weighted mean of the payloads to the last mean estimate, where all clients take part.
    `joulewise.flower.Sparse` does it in a Flower app.

    Example:
        >>> from joulewise.compress import Compressor, settle
        >>> from joulewise.costs import Costs
        >>> from joulewise.rules import Count, TopK
        >>> costs = Costs.of(np.ones(2))
        >>> compressor, state = Compressor(TopK(), Count(1), feedback=EF21()), None
        >>> for number in (1, 2, 3):
        ...     sent = compressor.compress(np.array([4.0, 2.0], np.float32), state, costs)
        ...     print(sent.selection.dense().tolist(), (0 - sent.state.residual).tolist())
        ...     state, _ = settle(sent.state, number, costs.layout)
        [4.0, 0.0] [4.0, 0.0]
        [0.0, 2.0] [4.0, 2.0]
        [0.0, 0.0] [4.0, 2.0]
    """

    estimates: ClassVar[bool] = True
    momentum: ClassVar[float] = 0.0
    vectors: ClassVar[int] = 1

    def carry(self, residual: Vector, update: Vector) -> Vector:
        """What is added to an update, -g: float32[n]."""
        del update
        return residual

    def factor(self, residual: Vector, update: Vector) -> float:
        """What -g is multiplied by before it is added to an update."""
        del residual, update
        return 1.0

    def moved(self, update: Vector, velocity: Vector | None) -> Vector:
        """The update itself: there is no momentum."""
        del velocity
        return update

    def rest(self, added: Vector, before: Vector | None) -> Vector:
        """What the values that are sent are taken from, which leaves the next residual: -g, written over `added`."""
        added[...] = 0.0 if before is None else before
        return added

    def left(self, moved: Vector, sent: npt.NDArray[np.uint32]) -> Vector | None:
        """There is no velocity: None."""
        del moved, sent
        return None


Feedback = ErrorFeedback | EF21
"""What a client may remember of earlier rounds."""


def _norm(vector: Vector) -> float:
    chunks = (vector[start : start + CHUNK] for start in range(0, vector.size, CHUNK))
    return math.sqrt(math.fsum(float(np.square(chunk, dtype=np.float64).sum()) for chunk in chunks))
