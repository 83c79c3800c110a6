"""One message: what was selected for it, its bytes, and what it takes of a budget."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from joulewise.codec import Encoded, ValueType, encode_detailed
from joulewise.costs import Costs
from joulewise.ledger import header_energy, mask_energy
from joulewise.marginal import REACH
from joulewise.rules import Budget, Bytes, Joules, Rule
from joulewise.select import Selection, Source, choose


@dataclass(frozen=True, slots=True, eq=False)
class Draft:
    """One message that was made.

    Args:
        selection: what it keeps.
        encoded: its bytes, and where they went.
        priced: the prices that it was chosen by.
        source: what to select from the next time.
        everything: nothing but zeros was left out.
    """

    selection: Selection
    encoded: Encoded
    priced: Costs
    source: Source
    everything: bool

    @property
    def kept(self) -> int:
        """Number of coordinates kept."""
        return int(self.selection.indices.size)


@dataclass(frozen=True, slots=True, eq=False)
class Brief:
    """What a message is to be made of.

    Args:
        source: the update, and what to add to it; each selection says what to select from the next time.
        costs: prices of the client's device.
        rule: what to rank by.
        budget: where to stop; Joules and Bytes bound the message as encoded.
        values: value type of the payload, one for all tensors or one per tensor.
        whole: buffers and tensors that are not float, by name.
    """

    source: Source
    costs: Costs
    rule: Rule
    budget: Budget | None
    values: ValueType | tuple[ValueType, ...] = "float32"
    whole: Mapping[str, Any] | None = None

    def attempt(self, budget: Budget | None, priced: Costs, seed: int | None) -> Draft:
        """Select under a budget at these prices, blocks left out, and encode."""
        rng = np.random.default_rng(seed) if seed is not None and self.rule.random else None
        reach = REACH if isinstance(budget, Joules | Bytes) else 1.0
        chosen = choose(self.source, priced, self.rule, budget, rng, reach)
        encoded = encode_detailed(chosen.selection, self.costs.layout, self.values, self.whole)
        return Draft(chosen.selection, encoded, priced, chosen.source, chosen.everything)


def spending(budget: Joules | Bytes, draft: Draft, costs: Costs) -> tuple[float, float]:
    """What a message takes of its budget, and the part of it that does not grow with what is kept."""
    encoded = draft.encoded
    if isinstance(budget, Bytes):
        return float(len(encoded.payload)), float(encoded.header_bytes + encoded.whole_bytes)
    return mask_energy(encoded, draft.selection, costs), header_energy(encoded, costs)
