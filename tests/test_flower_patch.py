"""What changed from one model to another as bytes: the exact bits come out, or a refusal."""

import numpy as np
import pytest
from flwr.app import Array, ArrayRecord
from hypothesis import given, settings
from hypothesis import strategies as st

from joulewise.codec import encode
from joulewise.errors import PayloadError
from joulewise.flower import patch
from joulewise.flower.patch import Version
from joulewise.flower.versions import KEPT, Versions
from joulewise.select import Selection

TYPES = ("<f4", "<f2", "<f8", ">f4", "<i8", "u1", "?", "<c16", "S3")
SPECIAL = np.array([0x80000000, 0x7FC00000, 0x7F800000, 0xFF800001, 1, 0x80000001, 0], np.uint32).view("<f4")


def bits_of(record):
    return [(name, array.dtype, array.shape, array.stype, array.data) for name, array in record.items()]


def random_array(rng, dtype, shape):
    dtype = np.dtype(dtype)
    count = int(np.prod(shape))
    raw = rng.integers(0, 2 if dtype.kind == "b" else 256, count * dtype.itemsize, np.uint8)
    return raw.view(dtype).reshape(shape) if count else np.zeros(shape, dtype)


def record_of(arrays, orders):
    return ArrayRecord(
        {
            name: Array(np.asfortranarray(array) if orders[name] and array.ndim == 2 else np.asarray(array))
            for name, array in arrays.items()
        }
    )


@st.composite
def pairs(draw):
    """Two models of one form, of which any share differs, down to one bit and up to all."""
    rng = np.random.default_rng(draw(st.integers(0, 2**32)))
    shapes = st.sampled_from([(), (1,), (7,), (3, 5), (0, 2), (40, 25)])
    parts = draw(st.lists(st.tuples(st.sampled_from(TYPES), shapes, st.booleans()), min_size=1, max_size=5))
    orders = {f"tensor {place}": order for place, (*_, order) in enumerate(parts)}
    before = {f"tensor {place}": random_array(rng, *part[:2]) for place, part in enumerate(parts)}
    after = {}
    for name, array in before.items():
        changed, share = np.array(array), draw(st.sampled_from([0.0, 0.02, 0.5, 1.0]))
        where = rng.random(array.shape) < share
        fresh = random_array(rng, array.dtype, array.shape)
        if array.dtype.str == "<f4" and draw(st.booleans()):
            fresh = rng.choice(SPECIAL, array.shape)
        after[name] = np.where(where, fresh, changed).astype(array.dtype).reshape(array.shape)
    if not sum(array.size for array in before.values()):
        before["more"], after["more"], orders["more"] = np.zeros(1, np.float32), np.ones(1, np.float32), False
    return record_of(before, orders), record_of(after, orders)


def changes_of(before, after, more=()):
    form = patch.form_of(before)
    base, version = Version(3, patch.checksum_of(before)), Version(4, patch.checksum_of(after))
    positions = np.union1d(patch.positions_of(before, after, form), np.array(more, np.uint32)).astype(np.uint32)
    return patch.write(base, version, after, form, positions)


@given(pairs())
@settings(max_examples=150, deadline=None)
def test_the_exact_bits_come_out_whatever_the_types_and_whatever_changed(models):
    before, after = models
    if patch.form_of(before) is None:  # 0-d bytes and the like are not of Flower's plain format.
        return
    made, positions = patch.apply(changes_of(before, after), before)
    assert bits_of(made) == bits_of(after)
    assert np.array_equal(positions, patch.positions_of(before, after, patch.form_of(before)))


@given(pairs(), st.lists(st.integers(0, 0), max_size=1))
@settings(max_examples=30, deadline=None)
def test_positions_that_did_not_change_do_no_harm(models, more):
    before, after = models
    made, _ = patch.apply(changes_of(before, after, more), before)
    assert bits_of(made) == bits_of(after)


def small(changed=(), n=64):
    weights = np.arange(n, dtype=np.float32)
    weights[list(changed)] += 0.5
    return ArrayRecord({"w": Array(weights), "count": Array(np.array(len(changed)))})


@given(st.integers(0, 10_000), st.integers(0, 7))
@settings(max_examples=200, deadline=None)
def test_any_flipped_bit_is_refused_or_changes_nothing(place, bit):
    changes = changes_of(small(), small([1, 5, 60]))
    data = bytearray(changes.data)
    data[place % len(data)] ^= 1 << bit
    forged = Array(dtype=changes.dtype, shape=changes.shape, stype=changes.stype, data=bytes(data))
    try:
        made, _ = patch.apply(forged, small())
    except PayloadError:
        return
    assert bits_of(made) == bits_of(small([1, 5, 60]))  # Numbers of versions are compared by whoever holds one.


@pytest.mark.parametrize("length", [0, 3, 59, 60, 70, -1])
def test_changes_that_are_cut_off_are_refused(length):
    changes = changes_of(small(), small([1, 5, 60]))
    with pytest.raises(PayloadError):
        patch.apply(Array(dtype="uint8", shape=(1,), stype=changes.stype, data=changes.data[:length]), small())


def test_changes_for_another_model_are_refused():
    changes = changes_of(small(), small([1, 5, 60]))
    with pytest.raises(PayloadError, match="do not lead to the bits of model 4"):
        patch.apply(changes, small([7]))
    with pytest.raises(PayloadError):
        patch.apply(changes, small(n=65))
    with pytest.raises(PayloadError, match=r"joulewise\.down\.v2"):
        patch.read_head(Array(dtype="uint8", shape=(1,), stype="joulewise.down.v2", data=changes.data))


def test_changes_in_another_value_type_are_refused():
    before, form = small(), patch.form_of(small())
    positions, values = np.array([3], np.uint32), np.array([1.5], np.float32)
    payload = encode(Selection(65, positions, values), patch.layout_of(form), "bfloat16")
    head = patch._HEAD.pack(b"JWD1", 1, bytes(16), 2, bytes(16), len(payload))
    with pytest.raises(PayloadError, match="of type bfloat16"):
        patch.apply(Array(dtype="uint8", shape=(1,), stype=patch.SERIALIZATION, data=head + payload), before)


def test_nothing_changed_takes_no_more_than_a_head():
    assert len(changes_of(small(), small()).data) == 60


def test_arrays_of_other_formats_have_no_form():
    foreign = Array(dtype="uint8", shape=(3,), stype="zip", data=b"abc")
    short = Array(dtype="float32", shape=(9,), stype="numpy.ndarray", data=small()["w"].data[:-4])
    assert patch.form_of(ArrayRecord({"a": foreign})) is None
    assert patch.form_of(ArrayRecord({"a": short})) is None
    assert patch.form_of(ArrayRecord({"a": Array(np.zeros(0, np.float32))})) is None


# ---------------------------------------------------------------- versions

HISTORIES = st.lists(st.sets(st.integers(0, 63), max_size=12), min_size=1, max_size=2 * KEPT)


@given(HISTORIES, st.data())
@settings(max_examples=60, deadline=None)
def test_from_any_kept_version_to_any_other_the_exact_bits_come_out(history, data):
    versions, models = Versions(), {}
    for changed in history:
        record = small(changed)
        versions, version = versions.plus(record)
        models[version] = record
    kept = [step.version for step in versions.steps]
    assert len(kept) <= KEPT
    assert sum(step.changed.size for step in versions.steps[1:]) <= 65
    held, wanted = data.draw(st.sampled_from(kept)), data.draw(st.sampled_from(kept))
    changes = versions.changes(held, wanted, models[wanted])
    if changes is not None:
        assert bits_of(patch.apply(changes, models[held])[0]) == bits_of(models[wanted])
    assert versions.changes(wanted, wanted, models[wanted]) is not None
    again = Versions.unpacked(versions.packed())
    assert (again.steps[-1].version, again.form, again.count) == (versions.newest, versions.form, versions.count)
    assert bits_of(again.record) == bits_of(versions.record)


def test_the_same_bits_are_one_version_and_another_form_begins_anew():
    versions, first = Versions().plus(small())
    versions, again = versions.plus(small())
    assert first == again == Version(1, patch.checksum_of(small()))
    versions, other = versions.plus(small(n=65))
    assert (other.number, len(versions.steps)) == (2, 1)
    assert versions.changes(first, other, small(n=65)) is None


def test_where_almost_all_changed_the_model_is_sent_whole():
    versions, first = Versions().plus(small())
    versions, second = versions.plus(small(range(60)))
    assert versions.share > 0.75
    assert versions.changes(first, second, small(range(60))) is None


def test_a_record_that_its_owner_changes_later_stays_as_it_was():
    record = small()
    versions, first = Versions().plus(record)
    before = bits_of(small())
    record["w"] = Array(np.zeros(64, np.float32))
    assert bits_of(versions.record) == before
    versions, second = versions.plus(record)
    assert second != first
