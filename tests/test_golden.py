"""Golden payloads: version 1 decodes for ever, and is written the same for ever."""

import json
from pathlib import Path

import numpy as np
import payload_parts
import pytest

from joulewise import codec, kernel, native_codec, numpy_codec
from joulewise.codec import VALUE_TYPES, decode, encode
from joulewise.layout import ELEMENT_TYPES, Layout, Tensor
from joulewise.select import Selection

GOLDEN = Path(__file__).parent / "golden"
NAMES = sorted(path.stem for path in GOLDEN.glob("*.bin"))


def load(name):
    """Layout, description and payload."""
    told = json.loads((GOLDEN / f"{name}.json").read_text(encoding="utf-8"))
    groups = {
        key: tuple(Tensor(name, tuple(shape), kind, dtype) for name, shape, kind, dtype in group)
        for key, group in told["layout"].items()
    }
    return Layout(**groups), told, (GOLDEN / f"{name}.bin").read_bytes()


def words_of(values):
    return np.ascontiguousarray(values).view(np.uint32).tolist()


@pytest.fixture(params=["numpy", "native"])
def implementation(request, monkeypatch):
    if request.param == "native" and kernel.library() is None:
        pytest.skip("the kernel is not active here")
    chosen = {"numpy": numpy_codec, "native": native_codec}[request.param]
    monkeypatch.setattr(codec, "_implementation", lambda: chosen)


@pytest.mark.usefixtures("implementation")
@pytest.mark.parametrize("name", NAMES)
def test_a_golden_payload_decodes_to_what_is_written_down(name):
    layout, told, payload = load(name)
    decoded = decode(payload, layout)
    assert decoded.selection.indices.tolist() == told["indices"]
    assert words_of(decoded.selection.values) == told["value_words"]
    kept = layout.counts(decoded.selection.indices)
    assert decoded.values == tuple(
        value_type if count else "float32" for value_type, count in zip(told["types"], kept, strict=True)
    )
    assert {name: array.tolist() for name, array in decoded.whole.items()} == told["whole"]
    if told["whole"]:
        dtypes = {tensor.name: tensor.dtype.replace("bfloat16", "float32") for tensor in layout.wholes}
        assert {name: str(array.dtype) for name, array in decoded.whole.items()} == dtypes


@pytest.mark.usefixtures("implementation")
@pytest.mark.parametrize("words", ["given_words", "value_words"])
@pytest.mark.parametrize("name", NAMES)
def test_what_is_written_down_encodes_to_the_golden_payload(name, words):
    layout, told, payload = load(name)
    values = np.array(told[words], np.uint32).view(np.float32)
    selection = Selection(layout.n, np.array(told["indices"], np.uint32), values)
    dtypes = {tensor.name: tensor.dtype.replace("bfloat16", "float32") for tensor in layout.wholes}
    whole = {name: np.array(numbers, dtypes[name]) for name, numbers in told["whole"].items()}
    assert encode(selection, layout, told["types"], whole or None) == payload


@pytest.mark.parametrize("name", [name for name in NAMES if name != "nothing"])
def test_a_reader_that_knows_only_the_page_reads_the_same(name):
    layout, told, payload = load(name)
    parts = payload_parts.parse(payload, layout)
    assert payload_parts.sealed(parts.write()) == payload
    assert payload_parts.positions_of(parts) == told["indices"]
    assert payload_parts.words_of(parts) == told["value_words"]
    assert set(parts.filling) <= {"0"}


def test_there_is_a_golden_payload_of_everything_that_the_format_has():
    found, element_types = set(), set()
    for name in NAMES:
        layout, told, payload = load(name)
        if not payload:
            found.add("nothing")
            continue
        parts = payload_parts.parse(payload, layout)
        element_types |= {tensor.dtype for tensor in layout.wholes if told["whole"]}
        found |= {f"{len(parts.entries)} tensors"} | {"no elements" for size in parts.sizes if not size}
        for entry, size in zip(parts.entries, parts.sizes, strict=True):
            value_type = VALUE_TYPES[entry.value_type]
            if not entry.kept:
                found.add("nothing kept")
                continue
            mode = "full" if entry.kept == size else "kept" if 2 * entry.kept <= size else "dropped"
            found |= {f"{value_type} {mode}", f"code {entry.kind}", f"code {entry.kind} of {entry.more + 1}"}
            found |= {f"{value_type} code {entry.kind}", f"rice {min(entry.rice, 8)}"}
            found |= {"odd lengths"} if entry.kind == 3 and entry.more % 2 == 0 else set()
            found |= {"two bytes of symbols"} if entry.more >= 63 else set()
            found |= {f"codes of {max(entry.lengths)} bits"} if entry.kind == 3 else set()
            found |= {"limited"} if name == "code-huffman-limited" and max(entry.lengths) < entry.more else set()
            found |= {f"{value_type} of zeros"} if entry.largest == bytes(4) else set()
    wanted = {f"{value_type} {mode}" for value_type in VALUE_TYPES for mode in ("kept", "dropped", "full")}
    wanted |= {
        "nothing",
        "nothing kept",
        "no elements",
        "odd lengths",
        "two bytes of symbols",
        "int8 of zeros",
        "ternary of zeros",
    }
    wanted |= {
        *(f"code {kind}" for kind in range(4)),
        "code 0 of 1",
        "code 0 of 2",
        "code 1 of 16",
        "codes of 15 bits",
        "limited",
    }
    wanted |= {f"int8 code {kind}" for kind in range(4)} | {f"float32 code {kind}" for kind in (0, 1, 3)}
    wanted |= {"rice 0", "rice 1", "rice 4", "rice 8", "0 tensors", "1 tensors", "5 tensors"}
    assert wanted <= found, wanted - found
    assert element_types == set(ELEMENT_TYPES)
