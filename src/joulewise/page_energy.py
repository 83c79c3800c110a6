"""Parts of a page: where the energy went, what was kept of each tensor, and what the devices' prices rest on."""

from __future__ import annotations

from collections.abc import Sequence

from joulewise import pricetables, splitbars, tables
from joulewise.background import Background
from joulewise.keeping import Keeping
from joulewise.keeping_table import arms_of, kept_by_tensor
from joulewise.markup import chart, details, switch, table
from joulewise.outcomes import Summary
from joulewise.results import Row


def split_key(number: int) -> str:
    """Key of the chart of energy by term of the study `number`, counted from 0."""
    return f"split-{number}"


def kept_key(number: int) -> str:
    """Key of the chart of what was kept by tensor of the study `number`, counted from 0."""
    return f"kept-{number}"


def variants(found: Summary, kept: Keeping) -> dict[str, str]:
    """Names of the arms that the chart of what was kept can show, by the value of its switch."""
    return {f"arm-{place}": name for place, (name, _) in enumerate(arms_of(found, kept))}


def split(found: Summary, number: int) -> str:
    """Where the energy went: bars by term, and the table; nothing where no energy was recorded."""
    shown = tables.split(found)
    if shown is None:
        return ""
    words = (
        "One bar for each arm: modelled energy of all rounds and clients by term of the ledger, the mean over seeds. "
        "Terms of the uplink come first."
    )
    label = f"{found.study}: where the energy of each arm went, by term of the ledger"
    choice = switch(split_key(number), "Bars show", splitbars.WAYS)
    return f"<h3>Where the energy went</h3>{chart(split_key(number), label, words, (choice,))}{table(shown)}"


def kept(found: Summary, kept: Keeping | None, number: int) -> str:
    """What an arm kept of each tensor over the rounds; nothing where the replies are not of one model."""
    if kept is None:
        return ""
    labels = dict(arms_of(found, kept))
    choices = {value: labels[name] for value, name in variants(found, kept).items()}
    what = "the share of the tensor's coordinates" if kept.elements else "the number of coordinates"
    words = f"Colour: {what} in a mean reply of the round, on a logarithmic scale that is the same for all arms. "
    words += "Where nothing is drawn, nothing was kept."
    if any(first != last for first, last in kept.columns):
        words += " A column is the mean of several rounds."
    if kept.tensors[0] == "tensor 1":
        words += " Tensors are numbered in the model's order: this folder has no layout.json with their names."
    label = f"{found.study}: what the chosen arm kept of each tensor in each round"
    shown = chart(kept_key(number), label, words, (switch(kept_key(number), "Arm", choices),))
    numbers = details("Numbers of this map", table(kept_by_tensor(found, kept)))
    return f"<h3>What was kept of each layer</h3>{shown}{numbers}"


def devices(found: Summary, rows: Sequence[Row], background: Background) -> str:
    """The fleet, its prices and what they rest on, as far as rows and folder say."""
    fleet = pricetables.fleet(found, rows, background)
    shares = pricetables.shares(found.study, background.prices)
    numbers = pricetables.numbers(found.study, background)
    parts = (
        "" if fleet is None else f"<h3>The fleet</h3>{table(fleet)}",
        "" if shares is None else f"<h3>What a coordinate costs</h3>{table(shares, kind='words')}",
        ""
        if numbers is None
        else f"<h3>What the prices rest on</h3>{table(numbers, kind='words', flag=pricetables.ASSUMED)}",
    )
    return "".join(parts)
