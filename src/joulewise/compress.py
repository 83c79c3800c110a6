"""The whole client step: add the residual, choose, encode, remember the rest.

    a = u + r,   payload = encode(select(a)),   r' = a - decode(payload)

With `ErrorFeedback` what was sent and what was kept is what there was: ``decode(payload) + r' = a``, bit for bit; with
ternary values, of which one magnitude stands for many, to one rounding of float32. With `EF21` r is minus an estimate
of u, and ``r' = r - decode(payload)``.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np

from joulewise.codec import ValueType, decode
from joulewise.costs import Costs
from joulewise.errors import RuleError, StateError, UpdateError
from joulewise.feedback import EF21, ErrorFeedback, Feedback
from joulewise.fitting import fitted
from joulewise.layout import Layout, Vector
from joulewise.ledger import Charge, uplink_charges
from joulewise.message import Brief
from joulewise.ranking import Carry, NotFinite, first_not_finite
from joulewise.rules import Budget, Dense, Joules, MinVariance, RandomK, Rule, check_pair
from joulewise.select import Selection, Source, checked_vector, not_finite

__all__ = ["EF21", "ClientState", "Compressor", "ErrorFeedback", "Fate", "Feedback", "Sent", "settle"]


@dataclass(frozen=True, slots=True, eq=False)
class ClientState:
    """What a client remembers between rounds.

    Args:
        residual: float32[n], what was not sent so far, or with `EF21` minus the estimate; None for nothing.
        pending: the last payload, while it is not known whether the server used it.
        sequence: number of the last reply, 0 before the first.
        run_id: the run that the state belongs to.
        fingerprint: the layout's, so that another model's state is never added.
        local: the client's own values of tensors that it never sends, by name; None for none.
        momentum: float32[n], with `ErrorFeedback(momentum=...)`; None for nothing.
        unsent: an update that waits to be told what it may cost, as named arrays; it is not in the residual. None for
            none.
        estimated: with `EF21`, number of the last reply that the server's estimate is known to hold, 0 for none of
            them; None without EF21.
    """

    residual: Vector | None = None
    pending: bytes | None = None
    sequence: int = 0
    run_id: int = 0
    fingerprint: int = 0
    local: Mapping[str, Any] | None = None
    momentum: Vector | None = None
    unsent: Mapping[str, Any] | None = None
    estimated: int | None = None


Fate = Literal["none", "accepted", "returned", "lost"]


def settle(state: ClientState, accepted_sequence: int | None, layout: Layout) -> tuple[ClientState, Fate]:
    """Learn what became of the last reply.

    Args:
        state: the client's state.
        accepted_sequence: number of this client's last reply that entered an aggregation which returned
            arrays.
        layout: the model's.

    Returns:
        The state without a pending payload, and what happened: ``accepted`` (it was used), ``returned`` (it
        was not: what it said is in the residual again; momentum that was masked stays so), ``lost`` (the server knows
        of a later reply than this state does: the state is an old one, its residual and momentum are dropped), or
        ``none`` (nothing was pending).

    Raises:
        StateError: the state belongs to another model, or its residual is no vector of this one; or with `EF21`, whose
            estimate nothing can be taken out of, client and server have not the same replies in it.
    """
    if state.fingerprint != layout.fingerprint:
        raise StateError("the client's state belongs to another model; delete it, or give the run a new identity")
    accepted = accepted_sequence or 0
    if state.estimated is not None:
        state = _agreed(state, accepted)
    if accepted > state.sequence:
        return replace(state, residual=None, pending=None, sequence=accepted, momentum=None), "lost"
    if state.pending is None:
        return state, "none"
    if accepted == state.sequence:
        return replace(state, pending=None), "accepted"
    returned = decode(state.pending, layout).dense()
    residual = _checked(state.residual, layout, "residual")
    if residual is not None:
        returned += residual
    return replace(state, residual=returned, pending=None), "returned"


def _agreed(state: ClientState, accepted: int) -> ClientState:
    """The state of EF21, once it is known to be what the server has too."""
    if state.pending is not None and accepted == state.sequence:
        return replace(state, estimated=accepted)
    if accepted != state.estimated:
        raise StateError(
            f"the server's estimate of this client holds its replies up to number {accepted}, but the client's own "
            f"holds those up to {state.estimated}: one of them has lost its state, and with EF21 what was sent "
            "cannot be taken out of the mean again; put the lost state back, or begin a new run, or use "
            "ErrorFeedback()"
        )
    return state


@dataclass(frozen=True, slots=True, eq=False)
class Sent:
    """One reply.

    Args:
        payload: what goes over the link.
        state: what the client remembers; it must be safe before the payload leaves.
        selection: the coordinates chosen, with their values before rounding to the payload's value type.
        charges: what the reply costs.
        contrast: largest price over smallest, of the prices that the selection was made by.
    """

    payload: bytes
    state: ClientState
    selection: Selection
    charges: tuple[Charge, ...]
    contrast: float = 1.0


@dataclass(frozen=True, slots=True)
class Compressor:
    """Rule, budget, encoding and feedback together.

    A budget here is for the message that is really made: Joules bounds header and kept coordinates as
    encoded, Bytes bounds the payload's length. Prices that depend on encoded bits are taken at the density that the
    update gives each tensor, see `joulewise.marginal.marginal_prices`; so CWMP and Projection weigh tensors under
    every budget. `Costs.of` gives prices that stay as they are.

    Args:
        rule: what to rank by.
        budget: where to stop; None for Dense.
        values: value type of the payload, one for all tensors or one per tensor.
        feedback: remember what was not sent; None to forget it.

    Raises:
        RuleError: rule and budget do not go together, or the rule is unbiased and there is feedback, or ternary values.

    Example:
        >>> from joulewise.rules import CWMP, Count
        >>> costs = Costs.of(np.array([4.0, 1.0, 1.0]), unit="relative")
        >>> compressor = Compressor(CWMP(), Count(1), feedback=ErrorFeedback())
        >>> sent = compressor.compress(np.array([3.0, -2.0, 1.0], np.float32), None, costs)
        >>> sent.selection.indices.tolist(), sent.state.residual.tolist(), sent.state.sequence
        ([1], [3.0, 0.0, 1.0], 1)
    """

    rule: Rule
    budget: Budget | None = None
    values: ValueType | tuple[ValueType, ...] = "float32"
    feedback: Feedback | None = None

    def __post_init__(self) -> None:
        check_pair(self.rule, self.budget)
        unbiased = isinstance(self.rule, MinVariance) or (isinstance(self.rule, RandomK) and self.rule.scale)
        if unbiased and self.feedback is not None:
            raise RuleError(
                f"{type(self.rule).__name__} sends values scaled up to be unbiased, so there is nothing to "
                "remember; leave feedback out"
            )
        kinds = {self.values} if isinstance(self.values, str) else set(self.values)
        if unbiased and "ternary" in kinds:
            raise RuleError(
                f"{type(self.rule).__name__} sends values scaled up to be unbiased, but values = 'ternary' sends one "
                "magnitude for all that a tensor keeps; use float32, float16, bfloat16 or int8, or another rule"
            )

    @property
    def remembers(self) -> int:
        """How many vectors of the model's size a client keeps between rounds: 0, 1, or 2 with momentum."""
        return 0 if self.feedback is None else self.feedback.vectors

    @property
    def estimates(self) -> bool:
        """Whether what it sends is for an estimate that the server keeps, as with `EF21`."""
        return self.feedback is not None and self.feedback.estimates

    def compress(
        self,
        update: Any,
        state: ClientState | None,
        costs: Costs,
        rng: np.random.Generator | None = None,
        whole: Mapping[str, Any] | None = None,
    ) -> Sent:
        """Make one reply. Nothing is changed in place; on an error nothing is changed at all.

        Args:
            update: float32[n], local model minus received model.
            state: what the client remembers, settled; None at the start.
            costs: prices of the client's device.
            rng: source of the key of random rules.
            whole: buffers and tensors that are not float, by name; they travel whole and are charged apart.

        Raises:
            UpdateError: the update holds NaN or infinity (the tensor is named) or has another length.
            StateError: the state belongs to another model, still has a pending payload, or its residual is no finite
                vector of this model.
            RuleError: the budget cannot hold what must be sent, or a random rule has no `rng`.
        """
        state = _checked_state(state, costs.layout, self.estimates)
        given = checked_vector(update, costs.layout, "update")
        moved = self._moved(given, state, costs.layout)
        source = self._source(moved, state)
        try:
            if isinstance(self.budget, Joules) and self.budget.includes_fixed and self.budget.budget < costs.fixed:
                return self._skipped(source.added().vector, moved, state, costs)
            draft = fitted(Brief(source, costs, self.rule, self.budget, self.values, whole), rng)
        except NotFinite as found:
            raise _not_finite(found, costs.layout, state) from None
        selection, encoded = draft.selection, draft.encoded
        residual, pending, momentum = None, None, None
        if source.carry is not None and self.feedback is not None:
            pending = encoded.payload
            residual = self.feedback.rest(source.carry.into, state.residual)  # A vector of this reply alone.
            residual[selection.indices] -= encoded.values
            momentum = self.feedback.left(moved, selection.indices)
        after = replace(self._next(state), residual=residual, pending=pending, momentum=momentum)
        charges = uplink_charges(encoded, selection, costs)
        return Sent(encoded.payload, after, selection, charges, draft.priced.contrast)

    def _moved(self, update: Vector, state: ClientState, layout: Layout) -> Vector:
        """The update with the momentum of earlier ones, where there is some."""
        if self.feedback is None or not self.feedback.momentum or state.momentum is None:
            return update
        moved = self.feedback.moved(update, state.momentum)
        bad = first_not_finite(moved)
        if bad is None or not math.isfinite(update[bad]):
            return moved  # Where the update is to blame, the selection says so.
        raise UpdateError(
            f"update plus momentum passes what float32 holds in tensor {layout.name_of(bad)!r}; nothing was changed: "
            "use a smaller ErrorFeedback(momentum=...) or a lower learning rate"
        )

    def _next(self, state: ClientState) -> ClientState:
        return replace(state, sequence=state.sequence + 1, estimated=(state.estimated or 0) if self.estimates else None)

    def _source(self, update: Vector, state: ClientState) -> Source:
        if self.feedback is None and not isinstance(self.rule, Dense):
            return Source(update)  # Zeros are never kept: their sign does not matter.
        into = np.empty(update.size, np.float32)
        if self.feedback is None or state.residual is None:
            return Source(update, Carry(into))
        return Source(update, Carry(into, state.residual, self.feedback.factor(state.residual, update)))

    def _skipped(self, carried: Vector, moved: Vector, state: ClientState, costs: Costs) -> Sent:
        """Not even the fixed cost fits: no reply is made, and everything waits."""
        nothing = Selection(carried.size, np.empty(0, np.uint32), np.empty(0, np.float32), 0.0, None, 0.0)
        residual = None if self.feedback is None else self.feedback.rest(carried, state.residual)
        momentum = None if self.feedback is None else self.feedback.left(moved, nothing.indices)
        after = replace(self._next(state), residual=residual, momentum=momentum)
        return Sent(b"", after, nothing, (), costs.contrast)


def _not_finite(found: NotFinite, layout: Layout, state: ClientState) -> UpdateError | StateError:
    if not found.of_sum:
        return not_finite(found.index, layout)
    if state.residual is not None and not math.isfinite(state.residual[found.index]):
        return StateError(
            f"the client's residual holds NaN or infinity in tensor {layout.name_of(found.index)!r}; delete its state"
        )
    return UpdateError(
        f"update plus residual passes what float32 holds in tensor {layout.name_of(found.index)!r}; nothing "
        "was changed: use ErrorFeedback(decay=...) or a lower learning rate"
    )


def _checked_state(state: ClientState | None, layout: Layout, estimates: bool) -> ClientState:
    if state is None:
        return ClientState(fingerprint=layout.fingerprint)
    if state.fingerprint != layout.fingerprint:
        raise StateError("the client's state belongs to another model; delete it, or give the run a new identity")
    if state.pending is not None:
        raise StateError(
            "the client's last reply is still pending; call settle(state, accepted_sequence, layout) first"
        )
    _check_kind(state, estimates)
    momentum = _checked(state.momentum, layout, "momentum")
    if momentum is not None and (bad := first_not_finite(momentum)) is not None:
        raise StateError(
            f"the client's momentum holds NaN or infinity in tensor {layout.name_of(bad)!r}; delete its state"
        )
    return replace(state, residual=_checked(state.residual, layout, "residual"), momentum=momentum)


def _check_kind(state: ClientState, estimates: bool) -> None:
    """A residual of EF21 is minus an estimate, and any other one is what was not sent."""
    if estimates and state.estimated is None and (state.sequence or state.residual is not None):
        raise StateError(
            f"EF21 needs the estimate that this client's replies up to number {state.sequence} have made, but its "
            "state has none: it was lost, or they were made without EF21; put the state back, or begin a new run, "
            "or use ErrorFeedback()"
        )
    if not estimates and state.estimated is not None:
        raise StateError(
            "the client's state is one of EF21, which the server goes on with; keep feedback=EF21(), or begin a new run"
        )


def _checked(vector: Vector | None, layout: Layout, name: str) -> Vector | None:
    if vector is None:
        return None
    try:
        return checked_vector(vector, layout, f"the client's {name}")
    except UpdateError as error:
        raise StateError(f"{error}; delete the client's state") from None
