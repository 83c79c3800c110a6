"""Make docs/explain.svg and the table of docs/explain.md: every shipped profile with three models.

Run it from anywhere: python docs/explain_profiles.py
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

import joulewise as jw
from joulewise.explain import explain
from joulewise.explanation import Explanation
from joulewise.modelfile import load_layout
from joulewise.verdict import percent

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


def explanations() -> Iterator[tuple[str, Explanation]]:
    """Every shipped profile with every model."""
    layouts = models()
    for name in jw.list_devices():
        device = jw.load_device(name)
        for model, layout in layouts.items():
            yield model, explain(layout, device, DENSITY)


def table() -> str:
    """The table of the page."""
    lines = [
        "| profile | boundary | model | price ratio | addressable | of a dense round | saving | verdict |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for model, found in explanations():
        shares = ["-" if each is None else percent(each) for each in (found.addressable, found.addressable_dense)]
        cells = (f"`{found.device}`", found.boundary, model, f"{found.price_ratio:.3f}", *shares)
        lines.append(f"| {' | '.join(cells)} | {percent(found.verdict.saving)} | {found.verdict.answer} |")
    return "\n".join(lines) + "\n"


def figure() -> Any:
    """The picture: one row per profile, one mark per model."""
    import altair as alt  # noqa: PLC0415 (the table needs none)

    points = [
        {
            "profile": found.device,
            "model": model,
            "ratio": found.price_ratio,
            "share": found.addressable,
            "dense": found.addressable_dense,
        }
        for model, found in explanations()
    ]
    base = (
        alt.Chart(alt.Data(values=points))
        .mark_point(filled=True, size=45, opacity=0.9)
        .encode(
            yOffset="model:N",
            color=alt.Color("model:N", title=None, scale=alt.Scale(range=["#d58e00", "#009e73", "#0080c8"])),
            shape=alt.Shape("model:N", title=None),
        )
        .properties(width=200, height=alt.Step(7))
    )
    named = alt.Y("profile:N", title=None, axis=alt.Axis(labelLimit=260, grid=True))
    unnamed = alt.Y("profile:N", title=None, axis=alt.Axis(labels=False, ticks=False, grid=True))
    percents = {"scale": alt.Scale(domain=[0, 1]), "axis": alt.Axis(format="%", tickCount=5)}
    share = alt.X("share:Q", title=f"{DENSITY:.0%} kept", **percents)
    dense = alt.X("dense:Q", title="everything kept", **percents)
    log = alt.Scale(type="log", domain=[0.9, 40])
    ratio = alt.X("ratio:Q", title="95 % over 5 % of what TopK keeps", scale=log)
    in_joules = base.transform_filter("datum.share !== null")
    return (
        alt.hconcat(
            base.encode(x=ratio, y=named).properties(title="Price ratio"),
            in_joules.encode(x=share, y=unnamed).properties(title="Addressable share"),
            in_joules.encode(x=dense, y=unnamed).properties(title="Addressable share"),
        )
        .resolve_scale(y="shared")
        .configure_view(stroke="#dddddd")
        .configure_title(fontSize=12)
    )


def main() -> None:
    """Write the figure and the table."""
    page = HERE / "explain.md"
    before, _, rest = page.read_text(encoding="utf-8").partition(BEGIN)
    _, _, after = rest.partition(END)
    page.write_text(before + BEGIN + table() + END + after, encoding="utf-8")
    figure().save(str(HERE / "explain.svg"))


if __name__ == "__main__":
    main()
