"""The kernel's codec against NumPy's: the same bytes, the same values, the same refusals in the same words."""

import ctypes
import zlib

import numpy as np
import pytest
from codec_cases import LARGEST, SMALLEST, Case, case_of, mutants_of, read_by, written_by
from hypothesis import given, settings
from hypothesis import strategies as st

from joulewise import codec, kernel, native_codec, numpy_codec
from joulewise.codec import VALUE_TYPES, decode, encode, encode_detailed
from joulewise.errors import KernelError, UpdateError
from joulewise.layout import Layout, Tensor
from joulewise.select import Selection

pytestmark = pytest.mark.skipif(kernel.library() is None, reason="the kernel is not built, or switched off")

BOTH = (numpy_codec, native_codec)


def layout_of(*sizes):
    return Layout(tuple(Tensor(f"t{at}", (size,), "vector", "float32") for at, size in enumerate(sizes)))


def assert_same(case, mutants=(), seed=0):
    expected = written_by(numpy_codec, case)
    assert written_by(native_codec, case) == expected
    payload = expected[0]
    for changed in (payload, *(mutants_of(payload, mutants, seed) if mutants and payload else ())):
        assert read_by(native_codec, changed, case.layout) == read_by(numpy_codec, changed, case.layout)
    outcome = read_by(native_codec, payload, case.layout)
    assert outcome[:3] == ("accepted", case.selection.indices.tolist(), expected[4])


# ------------------------------------------------------------------------------------------------- both alike


@pytest.mark.parametrize("block", range(6))
def test_random_cases_and_their_mutants_are_alike(block):
    for seed in range(50 * block, 50 * (block + 1)):
        assert_same(case_of(seed), mutants=4, seed=seed)


@settings(max_examples=150)
@given(st.data())
def test_any_selection_is_alike(data):
    sizes = data.draw(st.lists(st.integers(0, 40), max_size=4))
    layout = layout_of(*sizes)
    indices = data.draw(st.lists(st.integers(0, layout.n - 1), unique=True).map(sorted) if layout.n else st.just([]))
    finite = st.floats(width=32, allow_nan=False, allow_infinity=False)
    values = data.draw(st.lists(finite, min_size=len(indices), max_size=len(indices)))
    kinds = tuple(data.draw(st.sampled_from(VALUE_TYPES)) for _ in sizes)
    selection = Selection(layout.n, np.array(indices, np.uint32), np.array(values, np.float32))
    assert_same(Case(layout, selection, kinds, None), mutants=3, seed=len(indices))


@pytest.mark.parametrize("kind", VALUE_TYPES)
@pytest.mark.parametrize(
    "values", [[SMALLEST], [0.0, -0.0], [LARGEST, -LARGEST], [1.0, SMALLEST], [-0.0], [3e38, 1e-38]]
)
def test_extreme_values_are_alike(kind, values):
    layout = layout_of(9)
    for count in (1, 2, 7, 9):
        kept = np.resize(np.array(values, np.float32), count)
        selection = Selection(9, np.arange(9 - count, 9, dtype=np.uint32), kept)
        assert_same(Case(layout, selection, (kind,), None))


@pytest.mark.parametrize("count", [1, 7, 8, 9, 63, 64, 65, 1023, 1024, 1025, 2048, 2049])
@pytest.mark.parametrize("kind", VALUE_TYPES)
def test_chunks_and_words_end_where_they_should(kind, count):
    rng = np.random.default_rng(count)
    layout = layout_of(3, 4 * count + 1, count, count + 1)
    indices = np.flatnonzero(
        np.concatenate([np.zeros(3), np.arange(4 * count + 1) % 4 == 3, np.ones(count), rng.random(count + 1) < 0.9])
    )
    values = rng.standard_normal(len(indices)) * 2.0 ** rng.integers(-6, 6, len(indices))
    selection = Selection(layout.n, indices.astype(np.uint32), values.astype(np.float32))
    assert_same(Case(layout, selection, (kind,) * 4, None), mutants=3, seed=count)


def test_a_huffman_code_longer_than_15_bits_is_shortened_alike():
    counts = [1, 1]
    while len(counts) < 19:
        counts.append(counts[-1] + counts[-2])
    values = np.repeat(2.0 ** np.arange(19), counts).astype(np.float32)
    layout = layout_of(len(values))
    payload = written_by(
        native_codec,
        Case(layout, Selection(layout.n, np.arange(layout.n, dtype=np.uint32), values), ("float32",), None),
    )
    assert payload == written_by(
        numpy_codec, Case(layout, Selection(layout.n, np.arange(layout.n, dtype=np.uint32), values), ("float32",), None)
    )


def test_one_coordinate_far_out_is_alike():
    layout = layout_of(2**31, 2**30)
    for indices in ([0], [2**31 - 1], [2**31], [5, 2**31 - 1, 2**31 + 2**30 - 1]):
        selection = Selection(layout.n, np.array(indices, np.uint32), np.ones(len(indices), np.float32))
        payloads = {
            written_by(implementation, Case(layout, selection, ("float32",) * 2, None))[0] for implementation in BOTH
        }
        assert len(payloads) == 1
        assert read_by(native_codec, payloads.pop(), layout)[1] == indices


# ------------------------------------------------------------------------------------------------- one by one


@pytest.mark.parametrize("implementation", BOTH)
@pytest.mark.parametrize("kind", VALUE_TYPES)
def test_an_encoder_says_what_a_decoder_will_read(implementation, kind, monkeypatch):
    monkeypatch.setattr(codec, "_implementation", lambda: implementation)
    layout, rng = layout_of(200, 0, 300), np.random.default_rng(3)
    indices = np.flatnonzero(rng.random(500) < 0.4).astype(np.uint32)
    selection = Selection(500, indices, rng.standard_normal(len(indices)).astype(np.float32))
    encoded = encode_detailed(selection, layout, kind)
    decoded = decode(encoded.payload, layout).selection.values
    assert encoded.values.view(np.uint32).tolist() == decoded.view(np.uint32).tolist()
    assert np.array_equal(encoded.values, selection.values) == (kind == "float32")


@pytest.mark.parametrize("implementation", BOTH)
@pytest.mark.parametrize(
    ("indices", "values", "message"),
    [
        ([1, 0], [1.0, 1.0], "ascend"),
        ([1, 1], [1.0, 1.0], "ascend"),
        ([0, 12], [1.0, 1.0], "below 12"),
        ([0, 2**32 - 1], [1.0, 1.0], "below 12"),
        ([0, 5], [1.0, np.nan], "nan in tensor 't1'"),
        ([0, 5], [np.inf, 1.0], "inf in tensor 't0'"),
        ([0, 11], [1.0, -np.inf], "-inf in tensor 't2'"),
    ],
)
@pytest.mark.parametrize("kind", VALUE_TYPES)
def test_an_unsound_selection_is_refused_by_each(implementation, indices, values, message, kind, monkeypatch):
    monkeypatch.setattr(codec, "_implementation", lambda: implementation)
    selection = Selection(12, np.array(indices, np.uint32), np.array(values, np.float32))
    with pytest.raises(UpdateError, match=message):
        encode(selection, layout_of(4, 4, 4), kind)


def test_other_element_types_and_strides_are_taken_as_they_are_meant():
    layout = layout_of(50)
    indices, values = np.arange(0, 50, 5), np.linspace(-1, 1, 10)
    expected = encode(Selection(50, indices.astype(np.uint32), values.astype(np.float32)), layout)
    strided = np.repeat(indices.astype(np.uint32), 2)[::2], np.repeat(values.astype(np.float32), 2)[::2]
    read_only = indices.astype(np.uint32), values.astype(np.float32)
    for array in read_only:
        array.flags.writeable = False
    for pair in ((indices, values), (indices, values.astype(np.float32)), strided, read_only):
        assert encode(Selection(50, *pair), layout) == expected
    for payload in (bytearray(expected), memoryview(expected), memoryview(b"xx" + expected)[2:]):
        assert decode(payload, layout).selection.indices.tolist() == indices.tolist()


def test_what_was_given_is_left_as_it_was():
    layout, rng = layout_of(300), np.random.default_rng(1)
    indices, values = np.arange(0, 300, 2, dtype=np.uint32), rng.standard_normal(150).astype(np.float32)
    before = indices.copy(), values.copy()
    for kind in VALUE_TYPES:
        payload = bytearray(encode(Selection(300, indices, values), layout, kind))
        copy = bytes(payload)
        decode(payload, layout)
        assert bytes(payload) == copy
    assert np.array_equal(indices, before[0])
    assert np.array_equal(values, before[1])


def test_the_switch_of_the_codec_is_the_kernel(monkeypatch):
    assert codec._implementation() is native_codec
    monkeypatch.setattr(kernel, "library", lambda: None)
    assert codec._implementation() is numpy_codec


# ------------------------------------------------------------------------------------------------- the C functions


def test_lengths_that_do_not_fit_are_refused_without_a_touch():
    library, offsets, numbers = native_codec._functions(), np.array([0, 8], np.int64), np.zeros(8, np.int64)
    body = bytes([1, 0, 127, 0])  # One float32 of 8, Rice parameter 0, one symbol.
    payload = np.frombuffer(body + bytes([0, 0, 0, 1]), np.uint8)
    indices, values = np.full(1, 77, np.uint32), np.full(1, 77, np.float32)
    good = {"size": 8, "table_at": 0, "body_at": 4, "unary_bits": 1, "kept": 1}
    for change in ({"size": 6}, {"table_at": 5}, {"body_at": 9}, {"unary_bits": 9}, {"unary_bits": -1}, {"kept": 2}):
        asked = good | change
        status = library.joulewise_decode(
            *(payload, asked["size"], asked["table_at"], asked["body_at"], asked["unary_bits"], offsets, 1),
            *(asked["kept"], indices, values, numbers),
        )
        assert status == 2
        assert (indices[0], values[0]) == (77, 77)
    assert library.joulewise_decode(payload, 8, 0, 4, 1, offsets, 1, 1, indices, values, numbers) == 0
    assert (indices[0], values[0]) == (0, 1.0)


@pytest.mark.parametrize("offsets", [[1, 8], [0, 8, 7], [0, 2**32], [0, -1]])
def test_offsets_that_are_none_are_refused(offsets):
    library, offsets = native_codec._functions(), np.array(offsets, np.int64)
    types, numbers = np.zeros(8, np.uint8), np.zeros(9, np.int64)
    payload = np.zeros(8, np.uint8)
    assert library.joulewise_read_table(payload, 8, 0, offsets, len(offsets) - 1, types, numbers) == 2


def test_arrays_of_other_types_never_reach_the_kernel():
    wrong = np.zeros(3, np.float64), np.zeros((2, 2), np.float32), np.zeros(6, np.float32)[::2], [1.0]
    for values in wrong:
        with pytest.raises((ctypes.ArgumentError, TypeError)):
            native_codec.write(np.zeros(len(values), np.uint32), values, layout_of(3), ("float32",), b"", b"")


@pytest.mark.parametrize("seed", range(60))
def test_no_byte_beyond_the_body_is_written(seed):
    case = case_of(1000 + seed)
    library, indices, values = native_codec._functions(), case.selection.indices, case.selection.values
    tensors, plan = len(case.kinds), ctypes.c_void_p()
    table, bits, sizes = np.full(141 * tensors + 1, 171, np.uint8), np.empty(tensors), np.empty(4, np.int64)
    numbers = native_codec._numbers_of(case.kinds)
    asked = (indices, values, len(indices), case.layout.offsets, tensors, numbers, table, 141 * tensors, bits, sizes)
    assert library.joulewise_encode_open(*asked, ctypes.byref(plan)) == 0
    body = np.full(sizes[1] + 64, 171, np.uint8)
    rounded = np.empty(len(indices), np.float32)
    assert library.joulewise_encode_write(plan, body.ctypes.data, rounded.ctypes.data) == 0
    library.joulewise_encode_close(plan)
    assert table[-1] == 171
    assert (body[sizes[1] :] == 171).all()
    if len(indices):
        assert encode(case.selection, case.layout, case.kinds).endswith(body[: sizes[1]].tobytes())


def test_a_plan_that_is_refused_is_none():
    library, plan = native_codec._functions(), ctypes.c_void_p(1)
    table, bits, sizes = np.zeros(282, np.uint8), np.empty(2), np.empty(4, np.int64)
    indices, values = np.array([1, 5], np.uint32), np.array([1, np.nan], np.float32)
    asked = (np.array([0, 3, 6], np.int64), 2, np.zeros(2, np.uint8), table)
    for wrong in ((indices, values, 2), (indices[::-1].copy(), values, 2), (indices, values, -1)):
        assert library.joulewise_encode_open(*wrong, *asked, 282, bits, sizes, ctypes.byref(plan)) in (2, 3)
        assert plan.value is None
    assert library.joulewise_encode_open(indices, values, 1, *asked, 281, bits, sizes, ctypes.byref(plan)) == 2


def test_adding_is_what_numpy_adds():
    rng = np.random.default_rng(4)
    total = rng.standard_normal(1000)
    indices = np.flatnonzero(rng.random(1000) < 0.3).astype(np.uint32)
    values, weight = rng.standard_normal(len(indices)).astype(np.float32), 0.3
    expected = total.copy()
    expected[indices] += weight * values.astype(np.float64)
    native_codec.add(total, indices, values, weight)
    assert total.tobytes() == expected.tobytes()


def test_the_checksum_is_that_of_zlib():
    noise = np.random.default_rng(5).integers(0, 256, native_codec.LONG + 200, dtype=np.uint8).tobytes()
    checksums = np.zeros(1, np.uint32)
    for size in (*range(150), 1000, len(noise)):
        for before in (0, 0xFFFFFFFF, 0x12345678):
            checksums[0] = before
            raw = np.frombuffer(noise[:size], np.uint8)
            if native_codec._functions().joulewise_crc32(raw, size, checksums) != 4:  # No carry-less multiplication.
                assert checksums[0] == zlib.crc32(noise[:size], before)
            assert native_codec.crc32(noise[:size], before) == zlib.crc32(noise[:size], before)


def test_adding_beyond_the_end_adds_nothing():
    total = np.zeros(4)
    with pytest.raises(KernelError):
        native_codec.add(total, np.array([1, 4], np.uint32), np.ones(2, np.float32), 1.0)
    assert not total.any()
