"""Whether weighing by price is worth it, in plain words, and what would change the answer."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Literal

import msgspec
import numpy as np
import numpy.typing as npt

from joulewise.costs import Costs, sum_of
from joulewise.devices import Device
from joulewise.layout import Layout
from joulewise.prices import index_bits
from joulewise.residency import ELEMENT_BITS
from joulewise.rules import CWMP, Projection
from joulewise.saving import Kept, Laplace, Prediction
from joulewise.tensorwise import Floats

Answer = Literal["does not matter", "matters little", "matters"]

# Below the first a saving drowns in what differs between two rounds; from the second on it shows in a figure.
NOTICEABLE, CLEAR = 0.01, 0.05
NARROW_BITS = 8.0
CHEAPER_LINK = 0.1
RECEIVERS = 10


class Verdict(msgspec.Struct, frozen=True):
    """What follows from the prices.

    Args:
        answer: in three words at most.
        saving: largest predicted saving at equal energy, as a share of what keeping coordinates costs.
        rule: that saves it.
        round_saving: the same as a share of the round, where that is known.
        text: the answer and its reasons, in sentences.
    """

    answer: Answer
    saving: float
    rule: str
    round_saving: float | None
    text: str


class Change(msgspec.Struct, frozen=True):
    """Something that would make prices differ.

    Args:
        what: in words.
        saving: largest predicted saving at equal energy then, under the typical law; None where it was not
            computed.
    """

    what: str
    saving: float | None = None


def judge(predictions: Sequence[Prediction], topk: Kept, ratio: float, priced_share: float | None) -> Verdict:
    """Turn predicted savings and the weighted price ratio into an answer.

    Args:
        predictions: of the rules that weigh by price; at least one.
        topk: what TopK keeps.
        ratio: of prices, at the 95 % point over the 5 % point of what TopK keeps.
        priced_share: what TopK pays for what it keeps, as a share of the round; None where that is not known.
    """
    best = max(predictions, key=lambda each: each.equal_energy.saving)
    saving = best.equal_energy.saving
    answer: Answer = "does not matter" if saving < NOTICEABLE else "matters" if saving >= CLEAR else "matters little"
    of_round = None if priced_share is None else saving * priced_share
    parts = (_opening(answer, best), _spread(ratio, best), *_norms(answer, best, topk), *_caveat(answer, of_round))
    text = " ".join((*parts, _advice(answer, best, of_round)))
    return Verdict(answer, saving, best.rule, of_round, text)


def percent(share: float, digits: int = 1) -> str:
    """A share as a percentage, without a minus sign on nothing.

    Example:
        >>> percent(0.1234), percent(-1e-9), percent(0.99914, digits=2)
        ('12.3 %', '0.0 %', '99.91 %')
    """
    return f"{round(100 * share, digits) + 0.0:.{digits}f} %"


def _opening(answer: Answer, best: Prediction) -> str:
    saved = f"{percent(best.equal_energy.saving)} of what TopK pays to keep the same mass"
    if answer == "does not matter":
        return f"Weighing by price does not matter here: the best rule saves {saved}."
    return f"Weighing by price {answer} here: {best.rule} saves {saved}."


def _spread(ratio: float, best: Prediction) -> str:
    return (
        f"Among the coordinates that TopK keeps, nine in ten have prices within a factor of {ratio:.3f}, and "
        f"{best.rule} at equal count keeps {percent(best.overlap, digits=2)} of them too."
    )


def _norms(answer: Answer, best: Prediction, topk: Kept) -> tuple[str, ...]:
    """A saving in L1 mass can be a loss in L2 mass, in which error feedback is understood."""
    kept = best.equal_energy.kept
    if answer == "does not matter" or best.norm != 1 or kept.l2 >= topk.l2:
        return ()
    return (
        f"That is L1 mass: of the L2 mass it keeps {percent(kept.l2)}, TopK {percent(topk.l2)} for the same energy.",
    )


def _caveat(answer: Answer, of_round: float | None) -> tuple[str, ...]:
    if of_round is None or answer == "does not matter":
        return ()
    if of_round >= NOTICEABLE:
        return (f"Of the whole round as priced that is {percent(of_round)}.",)
    return (f"Yet of the whole round as priced it is {percent(of_round) if of_round >= 0.0005 else 'under 0.1 %'}.",)


def _advice(answer: Answer, best: Prediction, of_round: float | None) -> str:
    if answer == "does not matter":
        return "Use TopK."
    if answer == "matters little":
        return f"TopK is simpler; {best.rule} is there for tight budgets."
    if of_round is not None and of_round < NOTICEABLE:
        return f"Use {best.rule} where sending has a budget of its own; else the rest of the round comes first."
    return f"Use {best.rule}."


# ---------------------------------------------------------------- what would change it


def changes(costs: Costs, device: Device, density: float, value_bits: Floats) -> tuple[Change, ...]:
    """What would make prices differ, with the predicted saving where it can be computed from the profile.

    The largest tensors, up to half of the parameters, are changed; the others stay as they are.
    """
    chosen = _largest_half(costs.layout)
    between = Change("clients on different links or batteries: give each its own budget in joules")
    if costs.unit == "relative":
        return ()
    if chosen.all():  # one tensor
        return (between,)
    values = np.where(chosen, np.minimum(value_bits, NARROW_BITS), value_bits)
    buffers = sum_of([term.per_kept for term in costs.terms if term.name == "send_buffer"], len(value_bits))
    narrow = costs.at_bits(values + index_bits(density))
    those = f"the largest tensors ({percent(_share(chosen, costs.layout))} of the parameters)"
    return (
        Change(
            f"{NARROW_BITS:.0f}-bit values in {those}", _saving(narrow, buffers * (values / value_bits - 1.0), density)
        ),
        *_link_changes(costs, device, chosen, density),
        *_flash_changes(costs, device, chosen, density),
        between,
    )


def _link_changes(costs: Costs, device: Device, chosen: npt.NDArray[np.bool_], density: float) -> tuple[Change, ...]:
    if not costs.send_per_bit.any():
        return ()
    cheap = (CHEAPER_LINK - 1.0) * costs.send_per_bit * costs.bits_per_kept
    found = [
        Change(
            "those tensors over a link that takes a tenth per bit",
            _saving(costs, np.where(chosen, cheap, 0.0), density),
        )
    ]
    if device.link is not None and device.link.down is not None:
        received = RECEIVERS * device.link.down_per_bit * costs.bits_per_kept
        fanned = _saving(costs, np.where(chosen, received, 0.0), density)
        found.append(
            Change(f"what is sent of those tensors goes on to {RECEIVERS} clients, who pay for receiving it", fanned)
        )
    return tuple(found)


def _flash_changes(costs: Costs, device: Device, chosen: npt.NDArray[np.bool_], density: float) -> tuple[Change, ...]:
    rewritten = [term.per_kept for term in costs.terms if term.name == "persistence"]
    if rewritten and not rewritten[0].all():
        return ()  # a part is in RAM already
    if rewritten:
        what = "those tensors in RAM, the others in flash"
        return (Change(what, _saving(costs, np.where(chosen, -rewritten[0], 0.0), density)),)
    what = "those tensors in flash, the others in RAM"
    if device.memory is None or device.memory.flash is None:
        return (Change(what),)
    more = np.where(chosen, ELEMENT_BITS * device.memory.flash.write.si, 0.0)
    return (Change(what, _saving(costs, more, density)),)


def _saving(costs: Costs, more: Floats, density: float) -> float:
    """Largest predicted saving at equal energy when keeping a coordinate costs this much more."""
    law = Laplace(replace(costs, per_kept=costs.per_kept + more), density)
    return max(law.predict(rule).equal_energy.saving for rule in (CWMP(), Projection()))


def _share(chosen: npt.NDArray[np.bool_], layout: Layout) -> float:
    return float(layout.sizes[chosen].sum()) / layout.n


def _largest_half(layout: Layout) -> npt.NDArray[np.bool_]:
    """The largest tensors, together at most half of all parameters, or the largest one."""
    order = np.argsort(-layout.sizes, kind="stable")
    chosen = np.zeros(len(layout.tensors), dtype=bool)
    chosen[order] = np.cumsum(layout.sizes[order]) <= layout.n / 2
    chosen[order[:1]] = True
    return chosen
