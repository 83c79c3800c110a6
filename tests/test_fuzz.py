"""Hostile payloads: a few thousand of the million that ``benchmarks/fuzz.py`` tries."""

import re
import subprocess
import sys
import tracemalloc
from collections import Counter
from pathlib import Path

import numpy as np
import payload_parts
import pytest
from mutant_corpus import corpus
from mutants import SEALS, judge, judge_checksums, mutant, sentence

from joulewise import codec, kernel, native_codec, numpy_codec
from joulewise.codec import VALUE_TYPES, decode
from joulewise.errors import PayloadError
from joulewise.layout import Layout

MUTANTS = 3000
FUZZ = Path(__file__).parents[1] / "benchmarks" / "fuzz.py"


@pytest.fixture(scope="module")
def mutants():
    return [mutant(number) for number in range(MUTANTS)]


@pytest.fixture(scope="module")
def outcomes(mutants):
    return Counter(judge(made) for made in mutants)


def test_the_corpus_has_every_mode_and_the_parts_write_it_again():
    found = Counter()
    for seed in corpus():
        assert payload_parts.sealed(seed.parts.write()) == seed.payload
        for entry, size in zip(seed.parts.entries, seed.parts.sizes, strict=True):
            mode = "empty" if not entry.kept else "full" if entry.kept == size else 2 * entry.kept <= size
            found.update([("mode", mode)])
            if entry.kept:
                found.update([("type", entry.value_type), ("code", entry.kind)])
                found.update([("type and code", entry.value_type, entry.kind)])
    modes = {("mode", mode) for mode in ("empty", "full", True, False)}
    types_and_codes = {("type and code", value_type, code) for value_type in range(4) for code in range(4)}
    assert modes | types_and_codes <= {*found}


def test_no_mutant_gets_through_that_does_not_encode_to_itself(outcomes):
    accepted = {name: count for name, count in outcomes.items() if name.startswith("accepted")}
    assert accepted["accepted, another message"] >= MUTANTS // 10
    assert sum(accepted.values()) <= MUTANTS // 2


def test_at_least_half_of_the_mutants_have_lengths_and_checksum_that_fit(mutants):
    seals = Counter(made.seal for made in mutants)
    assert {*seals} == {*SEALS}
    assert seals["lengths and checksum"] >= MUTANTS / 2


@pytest.mark.parametrize(
    "check",
    [
        "payload begins with",
        "payload was damaged",
        "payload has unknown flags",
        "payload is of a model with",
        "payload says that buffers follow",
        "payload says nothing but is not empty",
        "payload is cut off in its header",
        "payload is cut off in its values;",
        "payload is cut off in its values:",
        "payload is cut off in tensor",
        "payload writes its header in more than",
        "payload keeps #",
        "payload names value type",
        "payload gives tensor # the largest magnitude",
        "payload holds the value symbol",
        "payload holds code lengths",
        "payload codes # value symbols in unary",
        "payload holds truth values",
        "payload holds NaN or infinity",
        "payload has a unary stream of",
        "payload ends in # bytes of bits",
        "payload lists # positions",
        "payload lists a position outside",
        "payload has # bits after its last value",
        "payload holds values that do not reach",
        "payload is readable but not in the shortest form",
    ],
)
def test_mutants_reach_each_check_of_the_decoder(outcomes, check):
    assert any(outcome.startswith(check) for outcome in outcomes), outcomes


def read_by(implementation, made, monkeypatch):
    """All that a decoder says: the whole sentence, or places, bits of values, types and tensors sent whole."""
    monkeypatch.setattr(codec, "_implementation", lambda: implementation)
    try:
        decoded = decode(made.payload, made.layout)
    except PayloadError as error:
        return str(error)
    chosen = decoded.selection
    whole = {name: (array.dtype, array.tobytes()) for name, array in decoded.whole.items()}
    return chosen.indices.tobytes(), chosen.values.tobytes(), decoded.values, whole


@pytest.mark.skipif(kernel.library() is None, reason="the kernel is not active here")
def test_both_implementations_say_the_same_of_every_mutant(mutants, monkeypatch):
    for number, made in enumerate(mutants):
        by_numpy, by_kernel = (read_by(each, made, monkeypatch) for each in (numpy_codec, native_codec))
        assert by_numpy == by_kernel, f"mutant {number}"


def test_a_reader_that_knows_only_the_page_reads_the_same_from_what_is_accepted(mutants):
    compared = Counter()
    for made in mutants[: MUTANTS // 3]:
        try:
            selection = decode(made.payload, made.layout).selection
        except PayloadError:
            continue
        if not made.payload:  # Cut down to the empty string, which says that nothing is kept.
            continue
        parts = payload_parts.parse(made.payload, made.layout)
        assert payload_parts.positions_of(parts) == selection.indices.tolist(), made
        assert payload_parts.words_of(parts) == selection.values.view(np.uint32).tolist(), made
        compared.update(made.modes)
    assert min(compared[f"values {name}"] for name in VALUE_TYPES) >= 20


@pytest.mark.parametrize("value_type", range(len(VALUE_TYPES)))
@pytest.mark.parametrize("unary_bits", [0, 1, 2**20, 2**31, 2**34])
@pytest.mark.parametrize("kept", [1, 2**30, 2**31 - 1, 2**31])
def test_counts_without_the_bytes_for_them_take_no_memory(value_type, unary_bits, kept):
    layout = Layout.single(2**31)
    entry = payload_parts.Entry(
        kept, 0, value_type, b"\0\0\x80\x3f", 1 if VALUE_TYPES[value_type] == "ternary" else 127
    )
    fingerprint, size = layout.fingerprint.to_bytes(8, "little"), layout.n
    parts = payload_parts.Parts(
        0, fingerprint, size, 1, unary_bits, [entry], b"", [bytes(60)], "1", "", "", "", sizes=(size,)
    )
    tracemalloc.start()
    try:
        with pytest.raises(PayloadError):
            decode(payload_parts.sealed(parts.write()), layout)
        assert tracemalloc.get_traced_memory()[1] < 100_000
    finally:
        tracemalloc.stop()


@pytest.mark.skipif(kernel.library() is None, reason="the kernel is not active here")
def test_checksums_of_long_payloads_are_those_of_zlib(monkeypatch):
    judge_checksums()
    monkeypatch.setattr(native_codec, "crc32", lambda piece, before: 0)
    with pytest.raises(AssertionError, match="another than zlib's"):
        judge_checksums()


def test_a_mutant_can_be_made_again_from_its_number():
    for number in (0, 17, 2999):
        assert mutant(number) == mutant(number)
        assert mutant(number).payload != mutant(number, seed=1).payload


def test_sentences_are_compared_without_their_numbers():
    told = "payload keeps 7 coordinates of tensor 'conv.1', which has 6"
    assert sentence(PayloadError(told)) == "payload keeps # coordinates of tensor #, which has #"
    begins = {sentence(PayloadError(f"begins with {start!r}, not")) for start in (b"JWP2", b"a'\xd3", b"'\"\n")}
    assert begins == {"begins with b#, not"}
    assert sentence(PayloadError("largest magnitude -nan")) == "largest magnitude #"


@pytest.mark.skipif(not FUZZ.exists(), reason="benchmarks/ is not here")
def test_the_fuzzer_counts_what_it_reached():
    command = [sys.executable, str(FUZZ), "300", "--workers", "1"]
    told = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    assert re.match(r"300 mutants in \d+ s: no finding\n", told)
    assert sum(map(int, re.findall(r"^ +(\d+)  (?:payload|accepted) ?.*", told, re.MULTILINE))) == 300
