"""Write the golden payloads anew: ``python tests/golden/regenerate.py``.

Only for a new version of the format. Golden payloads of a published version decode for ever.
"""

import json
from pathlib import Path

import numpy as np

from joulewise.codec import decode, encode
from joulewise.layout import Layout, Tensor
from joulewise.select import Selection

HERE = Path(__file__).parent
SHAPES = [(20, 30), (), (0, 4), (50,), (7,)]
WHOLES = [((), "int64"), ((3,), "float32")]


def write(name: str, types: str | tuple[str, ...], density: float, wholes: bool, seed: int) -> None:
    """One file: layout, payload, and what it decodes to, values as float32 words."""
    tensors = tuple(Tensor(f"t{at}", shape, "linear", "float32") for at, shape in enumerate(SHAPES))
    layout = Layout(tensors, tuple(Tensor(f"w{at}", shape, "whole", kind) for at, (shape, kind) in enumerate(WHOLES)))
    rng = np.random.default_rng(seed)
    indices = np.flatnonzero(rng.random(layout.n) < density).astype(np.uint32)
    values = (rng.standard_t(3, len(indices)) * 1e-3).astype(np.float32)
    values[:4] = np.array([0.0, -0.0, 1e-45, -3.4e38 if types == "float32" else -1.0], np.float32)[: len(values)]
    state = {"w0": np.int64(-5), "w1": np.array([1.5, 0.0, -2.0], np.float32)} if wholes else None
    payload = encode(Selection(layout.n, indices, values), layout, types, state)
    decoded = decode(payload, layout)
    case = {
        "shapes": SHAPES,
        "wholes": WHOLES,
        "payload": payload.hex(),
        "indices": decoded.selection.indices.tolist(),
        "value_words": decoded.selection.values.view(np.uint32).tolist(),
        "whole": {key: array.tolist() for key, array in decoded.whole.items()},
    }
    (HERE / f"{name}.json").write_text(json.dumps(case) + "\n", encoding="utf-8")


if __name__ == "__main__":
    for seed, kind in enumerate(("float32", "float16", "bfloat16", "int8")):
        write(f"{kind}-sparse", kind, 0.05, wholes=False, seed=seed)
        write(f"{kind}-most", kind, 0.8, wholes=True, seed=seed)
    write("float32-dense", "float32", 1.0, wholes=False, seed=9)
    write("mixed-half", ("int8", "float32", "float32", "float16", "bfloat16"), 0.5, wholes=True, seed=10)
    write("wholes-only", "float32", 0.0, wholes=True, seed=11)
