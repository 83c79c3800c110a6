"""Whether weighing by price is worth it, in plain words."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import msgspec

from joulewise.expectation import Kept
from joulewise.saving import Prediction
from joulewise.spread import Spread

Answer = Literal["does not matter", "matters little", "matters"]

# Below the first a saving drowns in what differs between two rounds; from the second on it shows in a figure.
NOTICEABLE, CLEAR = 0.01, 0.05


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


def answer_to(saving: float) -> Answer:
    """The answer that a predicted saving gives.

    Example:
        >>> answer_to(0.009), answer_to(0.04), answer_to(0.05)
        ('does not matter', 'matters little', 'matters')
    """
    return "does not matter" if saving < NOTICEABLE else "matters" if saving >= CLEAR else "matters little"


def saving_in_words(saving: float) -> str:
    """A saving as a percentage with one digit, or as many as tell its answer from the next.

    Example:
        >>> saving_in_words(0.2391), saving_in_words(0.04963), saving_in_words(0.00999)
        ('23.9 %', '4.96 %', '0.999 %')
    """
    digits = (1, 2, 3, 4)
    enough = (each for each in digits if answer_to(round(saving, each + 2)) == answer_to(saving))
    return percent(saving, next(enough, digits[-1]))


def judge(
    predictions: Sequence[Prediction],
    topk: Kept,
    prices: Spread,
    priced_share: float | None,
    cautions: Sequence[str] = (),
) -> Verdict:
    """Turn predicted savings and the spread of prices into an answer.

    The saving gives the answer. Where it is more than the weighted price ratio allows (`Spread.hides`), it comes from
    few parameters, and the text says how many and that the answer hangs on them.

    Args:
        predictions: of the rules that weigh by price; at least one.
        topk: what TopK keeps.
        prices: how far they spread.
        priced_share: what TopK pays for what it keeps, as a share of the round; None where that is not known.
        cautions: sentences without a full stop, on what stands in the way whatever the prices are.
    """
    best = max(predictions, key=lambda each: each.equal_energy.saving)
    saving = best.equal_energy.saving
    answer = answer_to(saving)
    of_round = None if priced_share is None else saving * priced_share
    parts = (_opening(answer, best), _spread(prices, best), *_few(answer, saving, prices), *_norms(answer, best, topk))
    said = (f"Mind that {each}." for each in cautions)
    text = " ".join((*parts, *_caveat(answer, of_round), *said, _advice(answer, best, of_round)))
    return Verdict(answer, saving, best.rule, of_round, text)


def percent(share: float, digits: int = 1) -> str:
    """A share as a percentage, without a minus sign on nothing.

    Example:
        >>> percent(0.1234), percent(-1e-9), percent(0.99914, digits=2)
        ('12.3 %', '0.0 %', '99.91 %')
    """
    return f"{round(100 * share, digits) + 0.0:.{digits}f} %"


def _opening(answer: Answer, best: Prediction) -> str:
    saved = f"{saving_in_words(best.equal_energy.saving)} of what TopK pays to keep the same mass"
    if answer == "does not matter":
        return f"Weighing by price does not matter here: the best rule saves {saved}."
    return f"Weighing by price {answer} here: {best.rule} saves {saved}."


def _spread(prices: Spread, best: Prediction) -> str:
    beyond = "" if prices.contrast < 1.01 * prices.ratio else f" (all parameters: {prices.contrast:.3f})"
    return (
        f"Among the coordinates that TopK keeps, nine in ten have prices within a factor of {prices.ratio:.3f}{beyond}"
        f", and {best.rule} at equal count keeps {percent(best.overlap, digits=2)} of them too."
    )


def _few(answer: Answer, saving: float, prices: Spread) -> tuple[str, ...]:
    """A saving of which the weighted price ratio shows nothing, or too little."""
    if answer == "does not matter" or not prices.hides(saving):
        return ()
    sides = ((prices.cheaper, "less"), (prices.dearer, "more"))
    outside = " and ".join(
        f"the {percent(share, digits=2)} of the parameters that cost {word}" for share, word in sides if share
    )
    return (f"The saving comes from {outside}, and hangs on how large their updates are: a recorded update tells.",)


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
