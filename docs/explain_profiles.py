"""Make the figures and the table of docs/explain.md: every shipped profile with three models, and one round.

Run it from anywhere: python docs/explain_profiles.py
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

import joulewise as jw
from joulewise.explain import explain
from joulewise.explain_figure import draw
from joulewise.explanation import Explanation
from joulewise.ledger import MASK_TERMS, total
from joulewise.modelfile import load_layout
from joulewise.verdict import percent, saving_in_words

HERE = Path(__file__).parent
DENSITY = 0.01
BEGIN, END = "<!-- made by explain_profiles.py -->\n", "<!-- end -->"


def models() -> dict[str, jw.Layout]:
    """The layouts: two built-in models for CIFAR-10, and one for next words that is mostly an embedding."""
    words, width, hidden = 10_000, 96, 256
    shapes = {
        "embedding.weight": (words, width),  # tied: it is the output layer too
        "lstm.weight_ih": (4 * hidden, width),
        "lstm.weight_hh": (4 * hidden, hidden),
        "lstm.bias": (4 * hidden,),
        "projection.weight": (width, hidden),
    }
    next_word = {name: np.broadcast_to(np.float32(0), shape) for name, shape in shapes.items()}
    return {"cnn": load_layout("cnn"), "resnet18": load_layout("resnet18"), "next-word": jw.Layout.of(next_word)}


@cache
def explanations() -> tuple[tuple[str, Explanation], ...]:
    """Every shipped profile with every model."""
    layouts = models()
    return tuple(
        (model, explain(layout, jw.load_device(name), DENSITY))
        for name in jw.list_devices()
        for model, layout in layouts.items()
    )


def mixed_widths() -> Explanation:
    """What the page draws as an example."""
    bits = {"layer4.*": 8, "*": 32}
    return explain(load_layout("resnet18"), jw.load_device("phone-lte-2021"), DENSITY, value_bits=bits)


def table() -> str:
    """The table of the page."""
    lines = [
        "| profile | boundary | model | price ratio | full range | addressable | of a dense round | saving | verdict |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for model, found in explanations():
        shares = ["-" if each is None else percent(each) for each in (found.addressable, found.addressable_dense)]
        ratios = (f"{found.price_ratio:.3f}", f"{found.contrast:.3f}")
        answer = found.verdict.answer + ("; the model does not fit" if found.misfits else "")
        cells = (
            f"`{found.device}`",
            found.boundary,
            model,
            *ratios,
            *shares,
            saving_in_words(found.verdict.saving),
            answer,
        )
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


# What the energy of a round goes to, in the order of the figure, and the charges that belong to each.
PARTS = {
    "what a mask touches": MASK_TERMS,
    "tensors sent whole": ("whole",),
    "waking the radio": ("fixed",),
    "receiving the model": ("downlink",),
    "memory": (),  # and whatever else a profile prices
}
COLOURS = ("#0080c8", "#c45aa0", "#d58e00", "#9a9a9a", "#d9d9d9")


def prices() -> Iterator[dict[str, Any]]:
    """For each profile and model the spread of prices over their middle one, and the saving."""
    for model, found in explanations():
        middle = (found.spread.low * found.spread.high) ** 0.5
        named = {"profile": found.device, "model": model, "saving": found.verdict.saving}
        ends = {end: getattr(found.spread, end) / middle for end in ("cheapest", "low", "high", "dearest")}
        yield named | ends


def rounds() -> Iterator[dict[str, Any]]:
    """For each profile in joules and each model the parts of a round, as shares of it."""
    for model, found in explanations():
        if found.unit != "J":
            continue
        spent = dict.fromkeys(PARTS, 0.0)
        for charge in found.round:
            spent[next((part for part, terms in PARTS.items() if charge.term in terms), "memory")] += charge.energy
        for part, energy in spent.items():
            share = energy / total(found.round)
            yield {"profile": found.device, "model": model, "part": part, "share": share}


def figure() -> Any:
    """The picture: one row per profile, in each the models in the order of the table."""
    import altair as alt  # noqa: PLC0415 (the table needs none)

    order, names = list(models()), list(jw.list_devices())
    three = alt.YOffset("model:N", sort=order)
    named = alt.Y("profile:N", title=None, sort=names, axis=alt.Axis(labelLimit=260, grid=True))
    unnamed = alt.Y("profile:N", title=None, sort=names, axis=alt.Axis(labels=False, ticks=False, grid=True))
    color = alt.Color("model:N", title=None, sort=order, scale=alt.Scale(range=["#009e73", "#7a5195", "#ef5675"]))
    spread = alt.Chart(alt.Data(values=list(prices()))).encode(yOffset=three, color=color)
    log = alt.Scale(type="log", domain=[0.025, 12], nice=False)
    ticks = alt.Axis(values=[0.03, 0.1, 0.3, 1, 3, 10])
    ratios = alt.layer(
        spread.mark_rule(strokeWidth=1).encode(
            x=alt.X("cheapest:Q", title="what TopK keeps (thick), all (thin)", scale=log, axis=ticks),
            x2="dearest:Q",
            y=named,
        ),
        spread.mark_rule(strokeWidth=4, strokeCap="round").encode(
            x=alt.X("low:Q", scale=log, axis=ticks), x2="high:Q", y=named
        ),
    )
    savings = spread.mark_point(filled=True, size=30).encode(
        color=color.legend(None),
        x=alt.X("saving:Q", title="of what TopK pays", axis=alt.Axis(format="%", tickCount=4)),
        y=unnamed,
    )
    whole = alt.Scale(domain=[0, 1])
    shares = (
        alt.Chart(alt.Data(values=list(rounds())))
        .mark_bar(height=5)
        .encode(
            x=alt.X(
                "share:Q",
                title=f"shares of the energy, {DENSITY:.0%} kept",
                axis=alt.Axis(format="%", tickCount=5),
                scale=whole,
            ),
            y=unnamed,
            yOffset=three,
            color=alt.Color(
                "part:N", title="a round", sort=list(PARTS), scale=alt.Scale(domain=list(PARTS), range=COLOURS)
            ),
            order=alt.Order("rank:Q"),
        )
        .transform_calculate(rank=f"indexof({list(PARTS)}, datum.part)")
    )
    sized = {"height": alt.Step(7)}
    return (
        alt.hconcat(
            ratios.properties(width=170, title="Prices, over the middle one", **sized),
            savings.properties(width=120, title="Largest saving", **sized),
            shares.properties(width=230, title="What a round takes", **sized),
        )
        .resolve_scale(y="shared", color="independent")
        .configure_view(stroke="#dddddd")
        .configure_title(fontSize=12)
        .properties(title=f"Every shipped profile; in each, from top to bottom: {', '.join(order)}")
    )


def main() -> None:
    """Write the figure and the table."""
    page = HERE / "explain.md"
    before, _, rest = page.read_text(encoding="utf-8").partition(BEGIN)
    _, _, after = rest.partition(END)
    page.write_text(before + BEGIN + table() + END + after, encoding="utf-8")
    figure().save(str(HERE / "explain.svg"))
    draw(mixed_widths(), HERE / "explain-resnet18.svg", "resnet18")


if __name__ == "__main__":
    main()
