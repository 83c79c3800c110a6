"""Datasets, their class-balanced subsets, and how examples are dealt out to clients."""

import io
import subprocess
import sys
from pathlib import Path
from typing import get_args

import datasets
import msgspec
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from flwr_datasets.partitioner import DirichletPartitioner
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from joulewise.errors import DataError, MissingExtra
from joulewise.learning import (
    IID,
    Cifar10,
    Data,
    Digits,
    Dirichlet,
    Partition,
    Pathological,
    Shard,
    load,
    partition,
)
from joulewise.learning.cifar10 import CIFAR10_DEVIATION, CIFAR10_MEAN

CIFAR10_FOLDER = Path(__file__).parents[2] / "shared/data/cifar10"
# A new kind of partition has to join here and is then held against every law.
SAMPLE_PARTITIONS = {
    IID: st.just(IID()),
    Dirichlet: st.builds(Dirichlet, st.floats(0.5, 100)),
    Pathological: st.builds(Pathological, st.integers(1, 4)),
    Shard: st.builds(Shard, st.integers(1, 4)),
}
ANY_PARTITION = st.one_of([SAMPLE_PARTITIONS[kind] for kind in get_args(Partition)])


def labels_of(count, classes=4):
    return np.random.default_rng(5).permutation(np.arange(count) % classes)


def write_cifar(folder, train=40, test=10, size=(32, 32), image_type="PNG"):
    """Write small files in the form of CIFAR-10; returns the pixels of each part."""
    rng = np.random.default_rng(1)
    pixels = {}
    folder.mkdir(parents=True, exist_ok=True)
    for part, count in (("train", train), ("test", test)):
        pixels[part] = rng.integers(0, 256, (count, size[1], size[0], 3), dtype=np.uint8)
        encoded = []
        for image in pixels[part]:
            file = io.BytesIO()
            Image.fromarray(image).save(file, image_type)
            encoded.append({"bytes": file.getvalue(), "path": None})
        write_part(folder / f"{part}.parquet", encoded, np.arange(count) % 10)
    return pixels


def write_part(file, images, labels):
    image_type = pa.struct({"bytes": pa.binary(), "path": pa.string()})
    table = pa.table({"img": pa.array(images, image_type), "label": pa.array(labels, pa.int64())})
    pq.write_table(table, file)


def cifar(path, **settings):
    return Cifar10(clients=2, partition=IID(), path=str(path), **settings)


# Configuration


@pytest.mark.parametrize("kind", get_args(Data))
@given(how=ANY_PARTITION)
@settings(max_examples=10, deadline=None)
def test_a_dataset_survives_being_written_and_read(kind, how):
    data = kind(clients=3, partition=how)
    assert msgspec.convert(msgspec.to_builtins(data), Data) == data


@pytest.mark.parametrize(
    "change",
    [
        {"clients": 0},
        {"examples": 0},
        {"name": "mnist"},
        {"client": 3},
        {"partition": {"name": "Dirichlet", "alpha": 0.0}},
        {"partition": {"name": "Dirichlet", "alpha": float("nan")}},
        {"partition": {"name": "Dirichlet", "alpha": float("inf")}},
        {"partition": {"name": "Pathological", "classes_per_partition": 0}},
        {"partition": {"name": "Shard", "shards_per_partition": 0}},
        {"partition": {"name": "IID", "alpha": 1.0}},
    ],
)
def test_a_setting_out_of_range_is_refused(change):
    right = {"name": "digits", "clients": 10, "partition": {"name": "IID"}}
    assert msgspec.convert(right, Data) == Digits(10, IID())
    with pytest.raises(msgspec.ValidationError):
        msgspec.convert(right | change, Data)


# Digits


def test_digits_are_scaled_and_split_in_the_same_way_every_time():
    first, again = load(Digits(10, IID())), load(Digits(3, Dirichlet(0.3)))
    assert first.train.images.shape == (1437, 1, 8, 8)
    assert first.test.images.shape == (360, 1, 8, 8)
    assert first.train.images.dtype == np.float32
    assert first.train.labels.dtype == np.int64
    assert (first.train.images.min(), first.train.images.max()) == (0, 1)
    np.testing.assert_array_equal(first.train.images, again.train.images)
    np.testing.assert_array_equal(first.test.images, again.test.images)


def test_the_test_digits_are_a_fifth_of_each_class():
    digits = load(Digits(10, IID()))
    train, test = np.bincount(digits.train.labels), np.bincount(digits.test.labels)
    assert np.abs(test - 0.2 * (train + test)).max() <= 1


def test_no_digit_is_in_both_parts():
    digits = load(Digits(10, IID()))
    train = {image.tobytes() for image in digits.train.images}
    assert not train & {image.tobytes() for image in digits.test.images}


@given(st.integers(10, 1000))
@settings(max_examples=15, deadline=None)
def test_a_subset_is_class_balanced_and_part_of_every_larger_one(examples):
    subset, larger = (load(Digits(2, IID(), examples=count)) for count in (examples, examples + 37))
    counts = np.bincount(subset.train.labels, minlength=10)
    assert counts.sum() == examples
    assert counts.max() - counts.min() <= 1
    inside = {image.tobytes() for image in larger.train.images}
    assert all(image.tobytes() in inside for image in subset.train.images)
    assert len(subset.test.labels) == 360


def test_a_test_part_can_be_a_class_balanced_subset():
    whole, some = (load(Digits(2, IID(), test_examples=count)) for count in (None, 200))
    assert np.bincount(some.test.labels).tolist() == [20] * 10
    inside = {image.tobytes() for image in whole.test.images}
    assert all(image.tobytes() in inside for image in some.test.images)
    np.testing.assert_array_equal(some.train.images, whole.train.images)


def test_a_test_part_that_cannot_be_balanced_is_refused(tmp_path):
    with pytest.raises(DataError, match=r"data.test_examples = 400 is not possible.*leave data.test_examples out"):
        load(Digits(2, IID(), test_examples=400))
    write_cifar(tmp_path)
    with pytest.raises(DataError, match=r"data.test_examples = 5000 is not possible"):
        load(cifar(tmp_path, test_examples=5000))
    assert np.bincount(load(cifar(tmp_path, test_examples=10)).test.labels).tolist() == [1] * 10


@pytest.mark.parametrize("examples", [9, 1437])
def test_a_subset_that_cannot_be_balanced_is_refused(examples):
    with pytest.raises(DataError, match=rf"data.examples = {examples} is not possible.* from 10 to 1\d\d0"):
        load(Digits(2, IID(), examples=examples))


def test_a_missing_library_names_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "sklearn.datasets", None)
    with pytest.raises(MissingExtra, match=r'pip install "joulewise\[learning\]"'):
        load(Digits(2, IID()))
    monkeypatch.setitem(sys.modules, "flwr_datasets.partitioner", None)
    with pytest.raises(MissingExtra, match=r'pip install "joulewise\[learning\]"'):
        partition(Digits(2, IID()), labels_of(8), 0)


def test_missing_pytorch_names_what_to_install():
    code = "import sys; sys.modules['torch'] = None; import joulewise.learning"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert 'pip install "joulewise[learning]"' in done.stderr.splitlines()[-1]


# Partitions


@given(how=ANY_PARTITION, clients=st.integers(4, 12), seed=st.integers(0, 2**63))
@settings(max_examples=30, deadline=None)
def test_no_example_is_dealt_twice_and_no_client_is_left_empty(how, clients, seed):
    labels = labels_of(240)
    parts = partition(Digits(clients, how), labels, seed)
    dealt = np.concatenate(parts)
    assert len(parts) == clients
    assert all(part.dtype == np.int64 and part.size and (np.diff(part) > 0).all() for part in parts)
    assert np.unique(dealt).size == dealt.size
    assert dealt.min() >= 0
    assert dealt.max() < labels.size
    left_over = labels.size % (clients * how.shards_per_partition) if isinstance(how, Shard) else 0
    assert labels.size - dealt.size <= left_over


@given(how=ANY_PARTITION, seed=st.integers(0, 2**32))
@settings(max_examples=10, deadline=None)
def test_the_same_seed_deals_the_same_examples(how, seed):
    first, again = (partition(Digits(5, how), labels_of(200), seed) for _ in range(2))
    for one, other in zip(first, again, strict=True):
        np.testing.assert_array_equal(one, other)


@pytest.mark.parametrize("how", [IID(), Dirichlet(0.5), Pathological(2), Shard(2)], ids=repr)
def test_another_seed_deals_other_examples(how):
    first, other = (partition(Digits(8, how), labels_of(240), seed) for seed in (0, 1))
    assert any(not np.array_equal(one, two) for one, two in zip(first, other, strict=True))


def test_iid_shares_are_equal_and_mixed():
    labels = np.sort(labels_of(402))
    parts = partition(Digits(4, IID()), labels, 0)
    assert sorted(part.size for part in parts) == [100, 100, 101, 101]
    assert all(np.bincount(labels[part], minlength=4).min() > 10 for part in parts)


def test_a_smaller_alpha_is_more_skewed():
    labels = labels_of(2000)

    def largest_share(alpha):
        parts = partition(Digits(5, Dirichlet(alpha)), labels, 0)
        return np.mean([np.bincount(labels[part]).max() / part.size for part in parts])

    assert largest_share(1e4) < 0.3
    assert largest_share(0.05) > 0.5


@pytest.mark.parametrize("seed", range(5))
def test_a_draw_that_leaves_a_client_empty_is_repeated(seed):
    # A single draw leaves none of the 10 clients empty in 35 of 100 cases: all five seeds in 1 of 200.
    assert all(part.size for part in partition(Digits(10, Dirichlet(0.2)), labels_of(80), seed))


def test_pathological_clients_hold_exactly_so_many_classes():
    labels = labels_of(400, classes=8)
    for part in partition(Digits(10, Pathological(3)), labels, 0):
        assert np.unique(labels[part]).size == 3


def test_shards_are_equal_and_hold_few_classes():
    labels = labels_of(400, classes=8)
    for part in partition(Digits(10, Shard(2)), labels, 0):
        assert part.size == 40
        assert np.unique(labels[part]).size <= 4


def test_the_split_is_the_one_of_flwr_datasets():
    labels = labels_of(300)
    theirs = DirichletPartitioner(6, "label", 0.4, min_partition_size=1, seed=9)
    theirs.dataset = datasets.Dataset.from_dict({"label": labels, "row": np.arange(300)})
    for client, part in enumerate(partition(Digits(6, Dirichlet(0.4)), labels, 9)):
        assert part.tolist() == sorted(theirs.load_partition(client)["row"])


@pytest.mark.parametrize(
    ("clients", "how", "advice"),
    [
        (41, IID(), "more examples"),
        (41, Shard(1), "fewer shards_per_partition"),
        (20, Shard(3), "fewer shards_per_partition"),
        (10, Dirichlet(1e-3), "a larger alpha"),
        (10, Pathological(5), "fewer classes_per_partition"),
        (40, Pathological(4), "fewer classes_per_partition"),
    ],
)
def test_a_partition_that_leaves_a_client_empty_says_what_to_change(clients, how, advice):
    with pytest.raises(DataError, match=f"data.clients = {clients} .* use fewer clients or {advice}"):
        partition(Digits(clients, how), labels_of(40), 0)


def test_no_examples_cannot_be_dealt_out():
    with pytest.raises(DataError, match="cannot deal 0 examples"):
        partition(Digits(1, IID()), np.zeros(0, dtype=np.int64), 0)


def test_classes_that_no_client_gets_are_named():
    with pytest.warns(UserWarning, match=r"gives classes \[2, 3\] to no client"):
        partition(Digits(2, Pathological(1)), labels_of(40), 0)


# CIFAR-10


def test_images_are_normalised_per_channel_and_keep_their_order(tmp_path):
    pixels = write_cifar(tmp_path)
    loaded = load(cifar(tmp_path))
    for part in ("train", "test"):
        examples = getattr(loaded, part)
        expected = (pixels[part] / 255 - CIFAR10_MEAN) / CIFAR10_DEVIATION
        np.testing.assert_allclose(examples.images, expected.transpose(0, 3, 1, 2), atol=1e-5)
        np.testing.assert_array_equal(examples.labels, np.arange(len(pixels[part])) % 10)
        assert examples.images.dtype == np.float32
        assert examples.images.flags.c_contiguous


def test_a_folder_with_several_files_one_level_down_is_read(tmp_path):
    write_cifar(tmp_path / "plain_text")
    (tmp_path / "plain_text/train.parquet").rename(tmp_path / "plain_text/train-00000-of-00002.parquet")
    table = pq.read_table(tmp_path / "plain_text/test.parquet")
    pq.write_table(table, tmp_path / "plain_text/train-00001-of-00002.parquet")
    assert len(load(cifar(tmp_path)).train.labels) == 50


def test_an_image_of_a_subset_keeps_its_label(tmp_path):
    write_cifar(tmp_path)
    everything, subset = load(cifar(tmp_path)).train, load(cifar(tmp_path, examples=23)).train
    label_of = {image.tobytes(): label for image, label in zip(everything.images, everything.labels, strict=True)}
    assert [label_of[image.tobytes()] for image in subset.images] == subset.labels.tolist()


def test_only_chosen_images_are_decoded(tmp_path):
    pixels = write_cifar(tmp_path)
    chosen = load(cifar(tmp_path, examples=20)).train.images
    table = pq.read_table(tmp_path / "train.parquet").to_pylist()
    kept = {image.round(3).tobytes() for image in chosen}
    everything = load(cifar(tmp_path)).train.images
    not_chosen = [row for row in range(40) if everything[row].round(3).tobytes() not in kept]
    assert len(not_chosen) == len(pixels["train"]) - 20
    images = [row["img"] for row in table]
    images[not_chosen[0]] = {"bytes": b"no image", "path": None}
    write_part(tmp_path / "train.parquet", images, [row["label"] for row in table])
    np.testing.assert_array_equal(load(cifar(tmp_path, examples=20)).train.images, chosen)
    with pytest.raises(DataError, match=f"row {not_chosen[0]} is not a PNG or JPEG image"):
        load(cifar(tmp_path))


def test_a_folder_that_is_not_there_is_named(tmp_path):
    with pytest.raises(DataError, match="nowhere' is not a folder"):
        load(cifar(tmp_path / "nowhere"))


def test_a_folder_without_parquet_files_says_what_it_should_hold(tmp_path):
    with pytest.raises(DataError, match=r"holds no train\*.parquet; .*--set data.path=FOLDER"):
        load(cifar(tmp_path))


def test_wrong_columns_are_named(tmp_path):
    write_cifar(tmp_path)
    for columns in ({"image": [b""], "label": [1]}, {"img": [b""], "label": [1]}):
        pq.write_table(pa.table(columns), tmp_path / "train.parquet")
        with pytest.raises(DataError, match=r"must have the columns img .*but has .*label.*data.path=FOLDER"):
            load(cifar(tmp_path))


@pytest.mark.parametrize("content", [b"", b"PAR1 but nothing else PAR1"])
def test_a_damaged_file_is_a_sentence(tmp_path, content):
    write_cifar(tmp_path)
    (tmp_path / "train.parquet").write_bytes(content)
    with pytest.raises(DataError, match="cannot be read"):
        load(cifar(tmp_path))


def test_images_of_another_size_are_refused(tmp_path):
    write_cifar(tmp_path, size=(28, 32))
    with pytest.raises(DataError, match="row 0 is not a PNG or JPEG image of 32 by 32"):
        load(cifar(tmp_path))


def test_an_image_without_bytes_is_refused(tmp_path):
    write_cifar(tmp_path)
    write_part(tmp_path / "train.parquet", [{"bytes": None, "path": "1.png"}], [0])
    with pytest.raises(DataError, match="row 0 is not a PNG or JPEG image"):
        load(cifar(tmp_path))


@pytest.mark.parametrize("label", [-1, 10, None])
def test_a_label_that_is_not_from_0_to_9_is_refused(tmp_path, label):
    write_cifar(tmp_path)
    images = pq.read_table(tmp_path / "test.parquet").column("img").to_pylist()
    write_part(tmp_path / "test.parquet", images, [label, *range(1, 10)])
    with pytest.raises(DataError, match="must label every example from 0 to 9"):
        load(cifar(tmp_path))


def test_grey_images_become_three_equal_channels(tmp_path):
    write_cifar(tmp_path)
    file = io.BytesIO()
    Image.new("L", (32, 32), 51).save(file, "PNG")
    write_part(tmp_path / "train.parquet", [{"bytes": file.getvalue(), "path": None}], [3])
    image = load(cifar(tmp_path)).train.images[0]
    np.testing.assert_allclose(image[:, 0, 0], (0.2 - CIFAR10_MEAN) / CIFAR10_DEVIATION, rtol=1e-5)


def test_the_hub_is_read_like_a_folder(tmp_path, monkeypatch):
    write_cifar(tmp_path)
    features = datasets.Features({"img": datasets.Image(), "label": datasets.ClassLabel(num_classes=10)})

    def load_dataset(name, split):
        assert name == "uoft-cs/cifar10"
        rows = pq.read_table(tmp_path / f"{split}.parquet").to_pydict()
        return datasets.Dataset.from_dict(rows, features=features)

    monkeypatch.setattr(datasets, "load_dataset", load_dataset)
    hub, folder = load(Cifar10(clients=2, partition=IID(), examples=20)), load(cifar(tmp_path, examples=20))
    np.testing.assert_array_equal(hub.train.images, folder.train.images)
    np.testing.assert_array_equal(hub.test.labels, folder.test.labels)


@pytest.mark.parametrize("error", [ConnectionError("offline"), datasets.exceptions.DatasetNotFoundError("gone")])
def test_a_hub_that_cannot_be_reached_says_how_to_go_on(monkeypatch, error):
    def load_dataset(name, split):
        raise error

    monkeypatch.setattr(datasets, "load_dataset", load_dataset)
    with pytest.raises(DataError, match=r"could not be reached; .*--set data.path=FOLDER"):
        load(Cifar10(clients=2, partition=IID()))


@pytest.mark.skipif(not CIFAR10_FOLDER.is_dir(), reason=f"no CIFAR-10 in {CIFAR10_FOLDER}")
def test_real_images_are_centred():
    loaded = load(cifar(CIFAR10_FOLDER, examples=500))
    assert loaded.train.images.shape == (500, 3, 32, 32)
    assert loaded.test.images.shape == (10000, 3, 32, 32)
    np.testing.assert_allclose(loaded.test.images.mean(axis=(0, 2, 3)), 0, atol=0.05)
    np.testing.assert_allclose(loaded.test.images.std(axis=(0, 2, 3)), 1, atol=0.05)
    np.testing.assert_array_equal(np.bincount(loaded.train.labels), 50)
