"""Named tensors and the flat vector."""

import numpy as np
import pytest
import torch

from joulewise import Layout
from joulewise.errors import LayoutError
from joulewise.layout import Tensor

MODEL = {
    "embed.weight": np.ones((5, 3), np.float32),
    "conv.weight": np.ones((2, 1, 3, 3), np.float64),
    "bn.running_mean": np.zeros(2, np.float32),
    "bn.num_batches_tracked": np.array(7),
    "fc.weight": np.ones((4, 2), np.float16),
    "fc.bias": np.arange(4, dtype=np.float32),
}


def test_kinds_follow_from_name_shape_and_type():
    layout = Layout.of(MODEL)
    assert [tensor.kind for tensor in layout.tensors] == ["embedding", "conv", "linear", "vector"]
    assert [tensor.kind for tensor in layout.wholes] == ["buffer", "whole"]
    assert layout.n == 15 + 18 + 8 + 4


def test_flatten_and_split_are_inverse_and_keep_element_types():
    layout = Layout.of(MODEL)
    named = layout.split(layout.flatten(MODEL))
    for tensor in layout.tensors:
        assert named[tensor.name].dtype == MODEL[tensor.name].dtype
        np.testing.assert_array_equal(named[tensor.name], MODEL[tensor.name])


def test_a_pattern_keeps_tensors_on_the_client():
    layout = Layout.of(MODEL, kinds={"fc.*": "local"})
    assert layout.n == 15 + 18
    assert [tensor.name for tensor in layout.locals] == ["fc.weight", "fc.bias"]


def test_torch_tensors_and_bfloat16_are_taken_as_they_are():
    layout = Layout.of(model := {"a": torch.ones(3, dtype=torch.bfloat16), "b": torch.zeros(2)})
    assert [tensor.dtype for tensor in layout.tensors] == ["bfloat16", "float32"]
    assert layout.flatten(model).tolist() == [1, 1, 1, 0, 0]


def test_layouts_differ_in_their_fingerprint():
    other = MODEL | {"fc.bias": np.arange(5, dtype=np.float32)}
    assert Layout.of(MODEL).fingerprint == Layout.of(dict(MODEL)).fingerprint != Layout.of(other).fingerprint


@pytest.mark.parametrize("shape", [(2**32,), (2**16, 2**16), (2**40, 2**40)])
def test_more_coordinates_than_an_index_holds_are_refused_however_the_layout_is_made(shape):
    with pytest.raises(LayoutError, match="fewer than"):
        Layout((Tensor("t", shape, "vector", "float32"),))
    assert Layout.single(2**32 - 1).n == 2**32 - 1


def test_an_index_leads_to_its_tensor_across_empty_ones():
    layout = Layout.of({"a": np.ones(2, np.float32), "none": np.ones(0, np.float32), "b": np.ones(3, np.float32)})
    assert [layout.name_of(index) for index in range(5)] == ["a", "a", "b", "b", "b"]


@pytest.mark.parametrize("dtype", ["complex64", "U3", "datetime64[s]", "longdouble", ">i4", "object"])
def test_element_types_that_have_no_bytes_on_the_wire_are_refused_unless_local(dtype):
    model = MODEL | {"odd": np.zeros(2, dtype)}
    with pytest.raises(LayoutError, match="tensor 'odd' has elements of type"):
        Layout.of(model)
    assert Layout.of(model, kinds={"odd": "local"}).n == Layout.of(MODEL).n


@pytest.mark.parametrize(
    ("kinds", "message"),
    [
        ({"fc.weight": "dense"}, "but a kind is one of: conv, linear"),
        ({"head.*": "local"}, "matches no tensor; the model's tensors begin with: embed.weight"),
        ({"bn.num_batches_tracked": "vector"}, "only float can be"),
    ],
)
def test_wrong_kinds_say_what_would_be_right(kinds, message):
    with pytest.raises(LayoutError, match=message):
        Layout.of(MODEL, kinds=kinds)


def test_arrays_that_do_not_fit_are_named():
    layout = Layout.of(MODEL)
    with pytest.raises(LayoutError, match=r"tensor 'fc\.bias' is missing"):
        layout.flatten({name: array for name, array in MODEL.items() if name != "fc.bias"})
    with pytest.raises(LayoutError, match=r"tensor 'fc\.bias' has shape \(5,\), but the layout says \(4,\)"):
        layout.flatten(MODEL | {"fc.bias": np.zeros(5, np.float32)})


def test_a_name_with_a_line_break_is_refused_so_that_no_two_layouts_have_one_fingerprint():
    with pytest.raises(LayoutError, match="line break"):
        Layout.of({"a|(2,)|vector|float32\nb": np.zeros(2, np.float32)})
