"""Prices of a model of which only a part lies in flash."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import numpy.typing as npt

from joulewise.costs import Block, Costs, Term, sum_of
from joulewise.errors import CostError
from joulewise.tensorwise import match

PERSISTENCE, PAGES = "persistence", "flash_pages"


def in_ram(costs: Costs, patterns: Sequence[str]) -> Costs:
    """The same prices when the weights of some tensors stay in RAM between rounds, those of the others in flash.

    Tensors in RAM pay neither for rewritten bits nor for pages.

    Args:
        costs: of a device whose weights lie in flash.
        patterns: names of tensors, or patterns (``*``, ``?``).

    Raises:
        CostError: the weights do not lie in flash, or a pattern matches no tensor.

    Example:
        >>> from joulewise.devices import load_device
        >>> from joulewise.layout import Layout
        >>> from joulewise.prices import price
        >>> layout = Layout.of({"body.weight": np.ones((64, 64)), "head.weight": np.ones((10, 64))})
        >>> costs = price(layout, load_device("mcu-flash-ble-nrf5340"))
        >>> round(in_ram(costs, ["head*"]).contrast, 1)
        2.0
    """
    if not any(term.name == PERSISTENCE for term in costs.terms):
        raise CostError("in_ram is for devices whose weights lie in flash (memory.weights = 'flash'); leave it out")
    close = np.array([found is not None for found in match("in_ram", dict.fromkeys(patterns, True), costs.layout)])
    terms = tuple(_without(term, close) for term in costs.terms)
    per_kept = sum_of([term.per_kept for term in terms], len(close))
    return replace(
        costs, terms=terms, per_kept=per_kept, blocks=tuple(_unpaged(block, close) for block in costs.blocks)
    )


def _without(term: Term, close: npt.NDArray[np.bool_]) -> Term:
    return replace(term, per_kept=np.where(close, 0.0, term.per_kept)) if term.name == PERSISTENCE else term


def _unpaged(block: Block, close: npt.NDArray[np.bool_]) -> Block:
    if block.name != PAGES:
        return block
    return replace(
        block, per_touched=np.where(close, 0.0, block.per_touched), included=np.where(close, 0.0, block.included)
    )
