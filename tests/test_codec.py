"""Payloads: what goes in comes out, in few bytes, and nothing else is accepted."""

import zlib
from fractions import Fraction
from functools import partial
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from joulewise import codec, kernel, native_codec, numpy_codec
from joulewise.bits import Reader, varint
from joulewise.codec import VALUE_TYPES, decode, encode, encode_detailed
from joulewise.errors import JoulewiseError, LayoutError, PayloadError, RuleError, UpdateError
from joulewise.huffman import (
    FALLING,
    HUFFMAN,
    LONGEST,
    RISING,
    Code,
    choose,
    read_code,
    read_symbols,
    write_symbols,
)
from joulewise.layout import Layout, Tensor
from joulewise.positions import read_positions, rice_parameters
from joulewise.select import Selection

BOTH = [
    numpy_codec,
    pytest.param(
        native_codec, marks=pytest.mark.skipif(kernel.library() is None, reason="the kernel is not active here")
    ),
]

SHAPES = [(), (0,), (1,), (2,), (7,), (3, 5), (2, 3, 4), (300,), (17, 0)]
LARGEST = float(np.finfo(np.float32).max)
SMALLEST = float(np.finfo(np.float32).smallest_subnormal)


def layout_of(*shapes, wholes=()):
    tensors = tuple(Tensor(f"t{at}", tuple(shape), "linear", "float32") for at, shape in enumerate(shapes))
    return Layout(tensors, tuple(Tensor(f"w{at}", shape, "whole", dtype) for at, (shape, dtype) in enumerate(wholes)))


def selection_of(layout, indices, values):
    return Selection(layout.n, np.array(indices, np.uint32), np.array(values, np.float32))


def bits_of(values):
    return np.ascontiguousarray(values).view(np.uint32).tolist()


def reseal(body):
    """A payload around a changed body, with the checksum that fits it."""
    return b"JWP1" + zlib.crc32(body).to_bytes(4, "little") + body


def again(payload, layout):
    decoded = decode(payload, layout)
    return encode(decoded.selection, layout, decoded.values, decoded.whole or None)


def ternary_tensors(types, layout):
    """Which tensors have the value type ternary: bool[tensors]."""
    types = [types] * len(layout.tensors) if isinstance(types, str) else types
    return np.array([each == "ternary" for each in types], np.bool_)


def entropy_bits(kept, size):
    share = kept / size
    return 0.0 if kept in {0, size} else -size * (share * np.log2(share) + (1 - share) * np.log2(1 - share))


@st.composite
def cases(draw):
    """A layout, a selection in it, value types, and a state with the tensors that travel whole."""
    layout = layout_of(
        *draw(st.lists(st.sampled_from(SHAPES), max_size=5)),
        wholes=draw(st.sampled_from([(), (((2,), "int64"),), (((), "bool"), ((0, 3), "float32"), ((3,), "float64"))])),
    )
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    density = draw(st.sampled_from([0.0, 0.02, 0.3, 0.5, 0.7, 0.98, 1.0]))
    indices = np.flatnonzero(rng.random(layout.n) < density)
    some = draw(st.lists(st.floats(width=32, allow_nan=False, allow_infinity=False), min_size=1, max_size=12))
    kind_of_values = draw(st.sampled_from(["some", "normal", "words", "tiny"]))
    values = {
        "some": lambda k: rng.choice(np.array(some, np.float32), k),
        "normal": rng.standard_normal,
        "words": partial(_any_finite, rng),
        "tiny": lambda k: rng.integers(-300, 300, k) * np.float64(SMALLEST),
    }[kind_of_values](len(indices))
    types = draw(st.sampled_from(VALUE_TYPES) | st.tuples(*[st.sampled_from(VALUE_TYPES)] * len(layout.tensors)))
    state = {tensor.name: _whole(tensor, rng) for tensor in layout.wholes}
    whole = draw(st.sampled_from([None, state]))
    return layout, selection_of(layout, indices, values), types, whole


def _any_finite(rng, count):
    words = rng.integers(0, 2**32, count, dtype=np.uint32).view(np.float32)
    return np.where(np.isfinite(words), words, np.float32(-0.0))


def _whole(tensor, rng):
    return rng.integers(0, 2, tensor.shape).astype(tensor.dtype)


# --------------------------------------------------------------------------------------------- laws


@settings(max_examples=150, deadline=None)
@given(cases())
def test_float32_returns_bit_for_bit(case):
    layout, selection, _, whole = case
    decoded = decode(encode(selection, layout, "float32", whole), layout)
    assert decoded.selection.n == layout.n
    assert decoded.selection.indices.dtype == np.uint32
    assert decoded.selection.indices.tolist() == selection.indices.tolist()
    assert bits_of(decoded.selection.values) == bits_of(selection.values)
    assert bits_of(decoded.dense()) == bits_of(selection.dense())


@settings(max_examples=150, deadline=None)
@given(cases())
def test_every_value_type_leaves_an_exact_residual_and_the_same_places(case):
    layout, selection, types, whole = case
    decoded = decode(encode(selection, layout, types, whole), layout).selection
    assert decoded.indices.tolist() == selection.indices.tolist()
    assert np.isfinite(decoded.values).all()
    residual = selection.values - decoded.values
    assert residual.dtype == np.float32
    exact = np.repeat(ternary_tensors(types, layout) == 0, layout.counts(decoded.indices))
    assert (decoded.values + residual == selection.values)[exact].all()
    # One magnitude for all may lie far from a value: then their difference rounds.
    larger = np.maximum(np.abs(decoded.values), np.abs(selection.values))
    assert (np.abs(decoded.values + residual - selection.values) <= 2.0**-23 * larger).all()


@settings(max_examples=150, deadline=None)
@given(cases())
def test_what_was_decoded_encodes_to_the_same_bytes(case):
    layout, selection, types, whole = case
    payload = encode(selection, layout, types, whole)
    assert again(payload, layout) == payload


@settings(max_examples=100, deadline=None)
@given(cases())
def test_tensors_sent_whole_return_as_they_were(case):
    layout, selection, types, whole = case
    decoded = decode(encode(selection, layout, types, whole), layout)
    if whole is None:
        assert decoded.whole == {}
    else:
        assert list(decoded.whole) == [tensor.name for tensor in layout.wholes]
        for name, array in decoded.whole.items():
            np.testing.assert_array_equal(array, whole[name], strict=True)
            assert array.flags.writeable


@settings(max_examples=100, deadline=None)
@given(cases())
def test_the_parts_of_a_payload_add_up_to_its_length(case):
    layout, selection, types, whole = case
    sizes = encode_detailed(selection, layout, types, whole)
    assert 8 * len(sizes.payload) == 8 * (sizes.header_bytes + sizes.whole_bytes) + sizes.tensor_bits.sum()
    assert sizes.tensor_bits.dtype == np.float64
    assert sizes.tensor_bits.shape == (len(layout.tensors),)
    assert ((sizes.tensor_bits > 0) == (layout.counts(selection.indices) > 0)).all()
    assert sizes.whole_bytes == (sum(array.nbytes for array in whole.values()) if whole else 0)


@settings(max_examples=100, deadline=None)
@given(st.lists(st.integers(0, 5000), min_size=1, max_size=40))
def test_the_rice_parameter_is_the_best_of_all(gaps):
    found = int(rice_parameters(np.array(gaps, np.uint32), np.array([len(gaps)]))[0])
    sizes = [sum((gap >> b) + 1 + b for gap in gaps) for b in range(32)]
    assert found == sizes.index(min(sizes))


@settings(max_examples=100, deadline=None)
@given(st.lists(st.integers(0, 2**20) | st.integers(0, 3), min_size=1, max_size=255).filter(any))
@example([max(1, int(1.618**order)) for order in range(40)])
def test_a_code_is_complete_short_and_its_table_returns(histogram):
    code = choose(tuple(histogram))
    assert code.lengths == (0,) or sum(2.0**-length for length in code.lengths if length) == 1
    assert max(code.lengths) <= LONGEST
    total = sum(histogram)
    entropy = -sum(count * np.log2(count / total) for count in histogram if count)
    table_bits = 8 * ((len(histogram) + 1) // 2)
    assert code.bits([*histogram, *[0] * 256]) <= entropy * 1.01 + total + table_bits
    reader = Reader(code.table())
    assert (read_code(reader, highest=254), len(reader.rest())) == (code, 0)


@settings(max_examples=50, deadline=None)
@given(st.lists(st.lists(st.sampled_from([3, 120, 121, 122, 125, 254]), max_size=30), min_size=1, max_size=4))
def test_symbols_of_many_tensors_return_from_one_stream(tensors):
    counts = np.array([len(symbols) for symbols in tensors])
    codes = [choose(tuple(np.bincount(symbols, minlength=256).tolist())) if symbols else None for symbols in tensors]
    symbols = np.array([symbol for symbols in tensors for symbol in symbols], np.uint8)
    keys = np.repeat(256 * np.arange(len(tensors)), counts) + symbols
    levels = write_symbols(keys, codes)
    stream = np.concatenate([*levels, np.array([1, 1], np.uint8)])
    returned, used = read_symbols(stream, counts, codes)
    assert (returned.tolist(), used) == (symbols.tolist(), len(stream) - 2)


# --------------------------------------------------------------------------------------------- examples


@pytest.mark.parametrize("kind", VALUE_TYPES)
@pytest.mark.parametrize("n", [0, 1, 5])
def test_an_empty_selection_is_no_bytes(kind, n):
    layout = layout_of((n,))
    sizes = encode_detailed(selection_of(layout, [], []), layout, kind)
    assert (sizes.payload, sizes.header_bytes, sizes.whole_bytes, sizes.tensor_bits.tolist()) == (
        b"",
        0,
        0,
        [0.0],
    )
    assert decode(b"", layout).dense().tolist() == [0.0] * n


def test_a_layout_without_tensors_has_an_empty_payload():
    assert encode(selection_of(Layout(()), [], []), Layout(())) == b""
    assert decode(b"", Layout(())).dense().shape == (0,)


@pytest.mark.parametrize("kind", [kind for kind in VALUE_TYPES if kind != "ternary"])
def test_values_beyond_a_type_are_clamped_never_infinite(kind):
    layout = layout_of((4,))
    values = [LARGEST, -LARGEST, LARGEST / 2, 1.0]
    decoded = decode(encode(selection_of(layout, range(4), values), layout, kind), layout).selection.values
    assert np.isfinite(decoded).all()
    assert decoded[0] == pytest.approx(LARGEST, rel=0.005)
    assert decoded[1] == -decoded[0]


@pytest.mark.parametrize(("kind", "relative"), [("float32", 0.0), ("float16", 2.0**-11), ("bfloat16", 2.0**-8)])
def test_float_types_round_to_the_nearest(kind, relative):
    layout, rng = layout_of((5000,)), np.random.default_rng(1)
    values = rng.standard_normal(5000).astype(np.float32) * np.float32(1e-6)
    decoded = decode(encode(selection_of(layout, range(5000), values), layout, kind), layout).selection.values
    assert (abs(decoded - values) <= relative * abs(values)).all()


def test_float16_agrees_with_ieee_half_precision_in_its_normal_range():
    layout, rng = layout_of((5000,)), np.random.default_rng(2)
    values = np.ldexp(rng.uniform(1, 2, 5000), rng.integers(-14, 14, 5000)).astype(np.float32)
    decoded = decode(encode(selection_of(layout, range(5000), values), layout, "float16"), layout).selection.values
    assert bits_of(decoded) == bits_of(values.astype(np.float16).astype(np.float32))


def test_ties_round_to_even():
    layout = layout_of((3,))
    values = [1 + 2.0**-8, 1 + 3 * 2.0**-8, -(1 + 2.0**-8)]
    decoded = decode(encode(selection_of(layout, range(3), values), layout, "bfloat16"), layout).selection.values
    assert decoded.tolist() == [1.0, 1 + 2.0**-6, -1.0]


def test_int8_steps_are_127th_parts_of_each_tensors_largest_value():
    layout = layout_of((3,), (2,))
    selection = selection_of(layout, range(5), [127.0, 1.4, -0.4, 1.27, -0.012])
    decoded = decode(encode(selection, layout, "int8"), layout).selection.values
    np.testing.assert_array_equal(decoded, np.array([127.0, 1.0, -0.0, 1.27, -0.01], np.float32))
    assert np.signbit(decoded).tolist() == [False, False, True, False, True]


def test_ternary_values_are_signs_times_the_mean_magnitude_of_their_tensor():
    layout = layout_of((3,), (4,), (2,))
    selection = selection_of(layout, range(8), [1.0, -2.0, 6.0, -0.0, 0.5, -1.0, 0.0, -0.25])
    decoded = decode(encode(selection, layout, "ternary"), layout).selection.values
    assert decoded.tolist() == [3.0, -3.0, 3.0, 0.0, 0.75, -0.75, 0.0, -0.25]
    assert np.signbit(decoded).tolist() == [False, True, False, True, False, True, False, True]


@pytest.mark.parametrize("implementation", BOTH, ids=lambda module: module.__name__.rpartition(".")[2])
@settings(max_examples=60, deadline=None)
@given(case=cases())
def test_ternary_values_are_those_of_the_papers_algorithm(implementation, case):
    """Sattler et al. 2019, algorithm 1, in exact sums: mu is the mean of kept magnitudes, and sign(a) mu is sent."""
    layout, selection, _, whole = case
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(codec, "_implementation", lambda: implementation)
        decoded = decode(encode(selection, layout, "ternary", whole), layout).selection
    edges = np.concatenate([[0], np.cumsum(layout.counts(selection.indices))]).tolist()
    for start, stop in pairwise(edges):
        given, found = selection.values[start:stop].tolist(), decoded.values[start:stop].tolist()
        magnitudes = [Fraction(abs(each)) for each in given if each]
        mean = float(sum(magnitudes) / len(magnitudes)) if magnitudes else 0.0
        assert found == pytest.approx([np.sign(each) * mean for each in given], rel=2.0**-23, abs=2.0**-150)
        assert len({abs(each) for each in found if each}) <= 1


def test_a_ternary_value_takes_one_bit_besides_its_place():
    layout, rng = layout_of((10_000,)), np.random.default_rng(5)
    indices, values = np.sort(rng.choice(10_000, 400, replace=False)), rng.standard_normal(400)
    sizes = {kind: encode_detailed(selection_of(layout, indices, values), layout, kind) for kind in VALUE_TYPES}
    # The entry of float32 has no magnitude, but a code of its exponents.
    same_places = selection_of(layout, indices, np.full(400, 0.75))
    alone = encode_detailed(same_places, layout, "bfloat16").tensor_bits.sum() - 400 * 8
    assert sizes["ternary"].tensor_bits.sum() - 32 - 400 == pytest.approx(alone, abs=7)
    assert len(sizes["ternary"].payload) < 0.6 * len(sizes["int8"].payload)


@pytest.mark.parametrize("implementation", BOTH, ids=lambda module: module.__name__.rpartition(".")[2])
@pytest.mark.parametrize(
    ("magnitude", "message"),
    [
        (0x00000000, "do not reach their tensor's largest magnitude"),
        (0x7F800000, "the largest magnitude inf"),
        (0x7FC00000, "the largest magnitude nan"),
        (0xBF800000, r"the largest magnitude -1\.0"),
        (0x3F000000, None),
    ],
)
def test_a_ternary_magnitude_that_cannot_be_is_refused(implementation, magnitude, message, monkeypatch):
    monkeypatch.setattr(codec, "_implementation", lambda: implementation)
    layout = layout_of((50,))
    payload = encode(selection_of(layout, [3, 9], [1.0, -1.0]), layout, "ternary")
    body = payload[8:].replace(np.float32(1.0).tobytes(), magnitude.to_bytes(4, "little"))
    assert body != payload[8:]
    if message is None:
        assert decode(reseal(body), layout).selection.values.tolist() == [0.5, -0.5]
        return
    with pytest.raises(PayloadError, match=message):
        decode(reseal(body), layout)


@pytest.mark.parametrize("implementation", BOTH, ids=lambda module: module.__name__.rpartition(".")[2])
def test_a_ternary_magnitude_that_no_value_has_is_refused(implementation, monkeypatch):
    monkeypatch.setattr(codec, "_implementation", lambda: implementation)
    layout = layout_of((50,))
    payload = encode(selection_of(layout, [3, 9], [0.0, -0.0]), layout, "ternary")
    assert payload[20:26] == bytes([2, 4 << 5 | payload[21] & 31, 0, 0, 0, 0])
    body = payload[8:22] + np.float32(2.0).tobytes() + payload[26:]
    with pytest.raises(PayloadError, match="do not reach their tensor's largest magnitude"):
        decode(reseal(body), layout)


def test_the_example_of_the_specification_has_the_bytes_that_it_prints():
    layout = Layout((Tensor("a", (8,), "vector", "float32"), Tensor("b", (100,), "vector", "float32")))
    selection = selection_of(layout, [1, 6, 50], [0.75, -3.0, 1.5])
    page = (Path(__file__).parents[1] / "docs" / "payload.md").read_text(encoding="utf-8")
    printed = "".join(page.split("```hex\n")[1].split("```")[0].split())
    assert encode(selection, layout, ("float32", "bfloat16")).hex() == printed


# --------------------------------------------------------------------------------------------- sizes


@pytest.mark.parametrize("density", [0.001, 0.01, 0.05, 0.1, 0.2, 0.35, 0.5, 0.65, 0.9, 0.99])
def test_uniform_positions_take_at_most_five_percent_more_than_their_entropy(density):
    layout, rng = layout_of((40_000,), (200_000,)), np.random.default_rng(3)
    kept = [int(density * size) for size in layout.sizes]
    indices = np.concatenate(
        [
            start + np.sort(rng.choice(stop - start, count, replace=False))
            for (start, stop), count in zip(pairwise(layout.offsets.tolist()), kept, strict=True)
        ]
    )
    sizes = encode_detailed(selection_of(layout, indices, np.ones(len(indices))), layout)
    index_bits = sizes.tensor_bits.sum() - 24 * len(indices)
    assert index_bits <= 1.05 * sum(map(entropy_bits, kept, layout.sizes.tolist()))


@pytest.mark.parametrize("density", [0.01, 0.05, 0.1, 0.2])
def test_a_payload_is_seven_percent_smaller_than_gaps_and_values_in_a_general_compressor(density):
    layout, rng = layout_of((64, 64, 3, 3), (500, 512)), np.random.default_rng(4)
    update = rng.standard_t(5, layout.n).astype(np.float32) * np.repeat(np.float32([1e-3, 3e-3]), layout.sizes)
    indices = np.sort(np.argsort(-abs(update))[: int(density * layout.n)])
    gaps = np.diff(indices, prepend=-1) - 1
    usual = b"".join(map(varint, gaps.tolist())) + update[indices].tobytes()
    payload = encode(selection_of(layout, indices, update[indices]), layout)
    assert len(payload) <= 0.93 * len(zlib.compress(usual, 6))


def test_a_payload_of_fifty_values_of_a_small_network_spends_little_on_headers():
    layout, rng = layout_of((64, 64), (64,), (10, 64), (10,)), np.random.default_rng(5)
    update = rng.standard_normal(layout.n).astype(np.float32)
    indices = np.sort(np.argsort(-abs(update))[:50])
    sizes = encode_detailed(selection_of(layout, indices, update[indices]), layout)
    assert sizes.header_bytes <= 24
    assert len(sizes.payload) <= 250


def test_a_full_tensor_spends_nothing_on_positions():
    layout = layout_of((1000,))
    sizes = encode_detailed(selection_of(layout, range(1000), np.ones(1000)), layout)
    assert sizes.tensor_bits.sum() == 1000 * 24 + 8 * 5


# --------------------------------------------------------------------------------------------- refusals


@pytest.mark.parametrize(
    ("error", "message", "changed"),
    [
        (UpdateError, "layout has 3", {"n": 4}),
        (UpdateError, "below 3", {"indices": [0, 3]}),
        (UpdateError, "ascend", {"indices": [1, 0]}),
        (UpdateError, "ascend", {"indices": [1, 1]}),
        (UpdateError, "shape", {"indices": [1]}),
        (UpdateError, "'t0'", {"values": [1.0, np.nan]}),
        (UpdateError, "-inf", {"values": [-np.inf, 1.0]}),
    ],
)
def test_a_selection_that_does_not_fit_is_refused(error, message, changed):
    layout = layout_of((3,))
    parts = {"n": 3, "indices": [0, 1], "values": [1.0, 2.0]} | changed
    selection = Selection(parts["n"], np.array(parts["indices"], np.uint32), np.array(parts["values"], np.float32))
    with pytest.raises(error, match=message):
        encode(selection, layout)


def test_wrong_value_types_and_missing_buffers_are_refused():
    layout = layout_of((3,), wholes=[((2,), "float32")])
    selection = selection_of(layout, [0], [1.0])
    with pytest.raises(RuleError, match="float8"):
        encode(selection, layout, "float8")
    with pytest.raises(LayoutError, match="2 types"):
        encode(selection, layout, ("float32", "int8"))
    with pytest.raises(LayoutError, match="w0"):
        encode(selection, layout, whole={})
    with pytest.raises(UpdateError, match="w0"):
        encode(selection, layout, whole={"w0": np.array([np.nan, 0.0])})


def test_a_payload_of_another_model_is_refused():
    payload = encode(selection_of(layout_of((3,)), [0], [1.0]), layout_of((3,)))
    for other in (layout_of((4,)), layout_of((3, 1)), layout_of((3,), (0,))):
        with pytest.raises(PayloadError, match="layout"):
            decode(payload, other)


def plain_payload():
    """One float32 tensor of 300, three kept: where the tests below change a field."""
    layout = layout_of((300,))
    return layout, encode(selection_of(layout, [5, 90, 299], [1.0, -1.5, 2.5]), layout)


@pytest.mark.parametrize(
    ("at", "value", "message"),
    [
        (0, 0x02, "flags"),
        (0, 0x01, "buffers"),
        (13, 0xF0, "300"),
        (13, 0x00, "nothing|after|bits"),
        (14, 0x80, "value type|positions|unary|bits"),
        (14, 0x00, "positions|outside|unary|bits|shortest"),
        (15, 0xFF, "symbol"),
        (16, 0xC1, "code lengths|cut off"),
    ],
)
def test_a_changed_field_is_named(at, value, message):
    layout, payload = plain_payload()
    body = bytearray(payload[8:])
    body[at] = value
    with pytest.raises(PayloadError, match=message):
        decode(reseal(bytes(body)), layout)


def test_an_exponent_of_infinity_is_refused():
    layout, payload = plain_payload()
    body = bytearray(payload[8:])
    assert body[15] == 127
    body[15] = 254
    with pytest.raises(PayloadError, match="symbol 255"):
        decode(reseal(bytes(body)), layout)


def test_huge_counts_take_no_memory(monkeypatch):
    layout = layout_of((2**31,))
    head = encode(selection_of(layout, [2**31 - 1], [1.0]), layout)[8 : 8 + 9] + varint(2**31) + varint(1)
    entry = varint(2**30) + bytes([0, 127, 0])
    monkeypatch.setattr(np, "unpackbits", None)
    for unary_bits in (1, 2**31, 2**34):
        with pytest.raises(PayloadError, match=r"cut off|unary"):
            decode(reseal(head + varint(unary_bits) + entry + bytes(100)), layout)


def test_a_unary_stream_longer_than_its_tensors_is_refused_before_it_is_unpacked(monkeypatch):
    layout, payload = plain_payload()
    head, entry = payload[8:20], payload[21:]
    monkeypatch.setattr(np, "unpackbits", None)
    with pytest.raises(PayloadError, match="unary stream of 8000000 bits"):
        decode(reseal(head + varint(8_000_000) + entry + bytes(1_000_000)), layout)


def test_a_gap_too_large_for_64_bits_is_no_position():
    unary, counts, offsets = np.array([0, 0, 0, 0, 1], np.uint8), np.array([1]), np.array([0, 5])
    with pytest.raises(PayloadError, match="outside"):
        read_positions(unary, np.zeros(62, np.uint8), counts, offsets, np.array([62], np.uint8))


def test_a_table_longer_than_needed_is_refused():
    layout = layout_of((40,))
    selection = selection_of(layout, range(40), [1.0] * 20 + [2.0] * 20)
    payload = encode(selection, layout)
    short, long = Code(127, 0, (1, 1)).table(), Code(127, HUFFMAN, (1, 1)).table()
    assert payload.count(short) >= 1
    with pytest.raises(PayloadError, match="shortest"):
        decode(reseal(payload[8:].replace(short, long, 1)), layout)
    with pytest.raises(PayloadError, match="shortest"):
        decode(reseal(payload[8:].replace(short, Code(127, RISING, (1, 1)).table(), 1)), layout)
    with pytest.raises(PayloadError, match="shortest"):
        decode(reseal(payload[8:].replace(short, Code(127, FALLING, (1, 1)).table(), 1)), layout)


def test_truth_values_are_0_or_1_and_float_buffers_are_finite():
    layout = layout_of((3,), wholes=[((2,), "bool")])
    body = encode(selection_of(layout, [], []), layout, whole={"w0": [True, False]})[8:]
    assert body[-2:] == b"\x01\x00"
    with pytest.raises(PayloadError, match="truth"):
        decode(reseal(body[:-1] + b"\x02"), layout)
    layout = layout_of((3,), wholes=[((1,), "float32")])
    body = encode(selection_of(layout, [], []), layout, whole={"w0": [1.0]})[8:]
    with pytest.raises(PayloadError, match="infinity"):
        decode(reseal(body[:-4] + np.array([np.inf], "<f4").tobytes()), layout)


# --------------------------------------------------------------------------------------------- hostile bytes


def survives(payload, layout):
    """True if refused; a payload that is accepted must encode to the same bytes again."""
    try:
        returned = again(payload, layout)
    except PayloadError:
        return True
    return returned == bytes(payload)


@settings(max_examples=150, deadline=None)
@given(st.binary(max_size=60), st.booleans())
def test_random_bytes_are_refused_or_canonical(noise, sealed):
    layout = layout_of((7,), (300,), wholes=[((2,), "int8")])
    assert survives(reseal(noise) if sealed else noise, layout)


@settings(max_examples=400, deadline=None)
@given(cases(), st.data())
def test_mutated_payloads_with_a_fitting_checksum_are_refused_or_canonical(case, data):
    layout, selection, types, whole = case
    body = bytearray(encode(selection, layout, types, whole)[8:])
    for _ in range(data.draw(st.integers(1, 3))):
        if body:
            # Half of all changes hit the header and the table, which are short but decide everything else.
            most = len(body) - 1 if data.draw(st.booleans()) else min(len(body) - 1, 40)
            at = data.draw(st.integers(min(9, most), most))
            body[at] = data.draw(st.integers(0, 255) | st.just(body[at] ^ 1) | st.just(body[at] ^ 128))
    cut = data.draw(st.integers(0, 2))
    body = bytes(body[: len(body) - cut]) + data.draw(st.sampled_from([b"", b"\x00", b"\x01\x02"]))
    assert survives(reseal(body), layout)


def test_every_single_bit_error_truncation_and_extension_is_refused_or_canonical():
    layout = layout_of((30,), (9,), (5,), wholes=[((2,), "bool")])
    selection = selection_of(layout, [0, 7, 29, *range(31, 39), 40], np.linspace(-2, 3, 12))
    payload = encode(selection, layout, ("float16", "int8", "float32"), {"w0": [True, False]})
    for length in range(1, len(payload)):
        with pytest.raises(PayloadError):
            decode(payload[:length], layout)
        assert survives(reseal(payload[8:length]), layout)
    for tail in (b"\x00", b"\xff"):
        with pytest.raises(PayloadError):
            decode(reseal(payload[8:] + tail), layout)
    for bit in range(8 * len(payload)):
        changed = bytearray(payload)
        changed[bit // 8] ^= 1 << bit % 8
        with pytest.raises(PayloadError):
            decode(changed, layout)
        assert survives(reseal(bytes(changed[8:])), layout)


def test_errors_of_the_codec_are_errors_of_joulewise():
    assert issubclass(PayloadError, JoulewiseError)


@pytest.mark.parametrize(
    ("indices", "values"), [([0.5], [1.0]), ([0], [1j]), ([0], ["one"])], ids=["indices", "complex", "text"]
)
def test_a_selection_that_is_not_of_whole_and_real_numbers_is_refused(indices, values):
    with pytest.raises(UpdateError, match="not whole and real"):
        encode(Selection(3, np.array(indices), np.array(values)), Layout.single(3))
