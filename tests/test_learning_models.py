"""Models, their seeds, and their parameters as arrays."""

from typing import get_args

import msgspec
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from joulewise.errors import LayoutError
from joulewise.learning import CNN, MLP, Model, ResNet18, arrays, build, load_arrays, multiply_accumulates

DIGITS = (1, 8, 8, 10)
CIFAR10 = (3, 32, 32, 10)


def parameters(module):
    return sum(parameter.numel() for parameter in module.parameters())


def copied(module):
    return {name: array.copy() for name, array in arrays(module).items()}


@pytest.mark.parametrize(
    ("model", "shape", "expected"),
    [
        (MLP(hidden=(64,)), DIGITS, 64 * 64 + 64 + 64 * 10 + 10),
        (MLP(hidden=()), DIGITS, 64 * 10 + 10),
        (MLP(hidden=(32, 16)), DIGITS, 64 * 32 + 32 + 32 * 16 + 16 + 16 * 10 + 10),
        (CNN(), CIFAR10, 1_070_794),
        (CNN(), DIGITS, 87_178),
        (ResNet18(), CIFAR10, 11_173_962),
    ],
    ids=repr,
)
def test_models_have_the_parameters_they_promise(model, shape, expected):
    assert parameters(build(model, *shape, seed=0)) == expected


@pytest.mark.parametrize("shape", [DIGITS, CIFAR10, (2, 12, 20, 7)])
@pytest.mark.parametrize("kind", get_args(Model))
def test_every_model_scores_every_class_of_every_dataset(kind, shape):
    channels, height, width, classes = shape
    module = build(kind(), *shape, seed=0).eval()
    with torch.inference_mode():
        assert module(torch.zeros(2, channels, height, width)).shape == (2, classes)


@pytest.mark.parametrize("kind", get_args(Model))
def test_a_model_survives_being_written_and_read(kind):
    assert msgspec.convert(msgspec.to_builtins(kind()), Model) == kind()
    with pytest.raises(msgspec.ValidationError):
        msgspec.convert(msgspec.to_builtins(kind()) | {"depth": 3}, Model)


def test_a_layer_without_units_is_refused():
    with pytest.raises(msgspec.ValidationError, match="hidden"):
        msgspec.convert({"name": "mlp", "hidden": [64, 0]}, Model)


@pytest.mark.parametrize("kind", get_args(Model))
def test_the_seed_alone_decides_the_parameters(kind):
    first, again, other = (copied(build(kind(), *DIGITS, seed=seed)) for seed in (3, 3, 4))
    assert all(np.array_equal(first[name], again[name]) for name in first)
    weights = [name for name in first if first[name].ndim > 1]
    assert all(not np.array_equal(first[name], other[name]) for name in weights)


@given(st.integers(0, 2**63 - 1))
@settings(max_examples=20, deadline=None)
def test_building_leaves_the_global_random_state_alone(seed):
    before = torch.get_rng_state()
    build(MLP(), *DIGITS, seed=seed)
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize("kind", get_args(Model))
def test_arrays_loaded_into_another_model_make_it_the_same(kind):
    one, other = (build(kind(), *DIGITS, seed=seed).eval() for seed in (0, 1))
    images = torch.rand(2, 1, 8, 8, generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        assert not torch.equal(one(images), other(images))
        load_arrays(other, arrays(one))
        assert torch.equal(one(images), other(images))


def test_batch_norm_statistics_are_among_the_arrays():
    names = arrays(build(ResNet18(), *DIGITS, seed=0)).keys()
    for ending, count in (("running_mean", 20), ("running_var", 20), ("num_batches_tracked", 20)):
        assert sum(name.endswith(ending) for name in names) == count


def test_arrays_share_memory_with_the_module_and_loaded_ones_do_not():
    module = build(MLP(), *DIGITS, seed=0)
    given_arrays = copied(module)
    load_arrays(module, given_arrays)
    module.get_parameter("output.bias").data.fill_(7)
    assert (arrays(module)["output.bias"] == 7).all()
    assert (given_arrays["output.bias"] != 7).all()


def test_arrays_that_may_only_be_read_load_without_a_warning():
    module = build(MLP(), *DIGITS, seed=0)
    frozen = copied(build(MLP(), *DIGITS, seed=1))
    for array in frozen.values():
        array.flags.writeable = False
    load_arrays(module, frozen)
    assert np.array_equal(arrays(module)["output.bias"], frozen["output.bias"])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda given: given.pop("output.bias"), r"missing \['output.bias'\]"),
        (lambda given: given.update(extra=np.zeros(1)), r"unknown \['extra'\]"),
        (lambda given: given.update({"output.bias": np.zeros(9)}), r"shape \(9,\).* needs \(10,\)"),
        (lambda given: given.update({"output.bias": np.zeros(1)}), r"shape \(1,\).* needs \(10,\)"),
    ],
)
def test_arrays_of_another_model_are_refused_and_change_nothing(change, message):
    module = build(MLP(), *DIGITS, seed=0)
    before, others = copied(module), copied(build(MLP(), *DIGITS, seed=1))
    change(others)
    with pytest.raises(LayoutError, match=message):
        load_arrays(module, others)
    assert all(np.array_equal(before[name], array) for name, array in arrays(module).items())


@pytest.mark.parametrize(
    ("model", "shape", "expected"),
    [
        (MLP(hidden=(32, 16)), DIGITS, 64 * 32 + 32 * 16 + 16 * 10),
        # 3 x 3 windows over 3 and 32 channels on 32 x 32 and 16 x 16 pixels, then 4096 -> 256 -> 10
        (CNN(), CIFAR10, 1024 * 32 * 27 + 256 * 64 * 288 + 4096 * 256 + 256 * 10),
        # stem, four stages of which the last three halve the image and have a shortcut, and the head
        (
            ResNet18(),
            CIFAR10,
            1024 * 64 * 27
            + 4 * 1024 * 64 * 576
            + sum(
                pixels * out * (9 * into + 3 * 9 * out + into)
                for pixels, into, out in ((256, 64, 128), (64, 128, 256), (16, 256, 512))
            )
            + 5120,
        ),
    ],
    ids=repr,
)
def test_multiply_accumulates_of_a_forward_pass_are_those_counted_by_hand(model, shape, expected):
    state = torch.get_rng_state()
    assert multiply_accumulates(model, *shape) == expected
    assert torch.equal(torch.get_rng_state(), state)
