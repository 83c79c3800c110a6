"""Models and updates from names, files and users' code; and everything that a user may hand over by mistake."""

import contextlib
import io
import pickle
import sys
import zipfile

import msgspec
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.numpy import save_file

import joulewise as jw
from joulewise.errors import MissingExtra, ModelError
from joulewise.learning import models
from joulewise.modelfile import Images, load_layout, load_update

ARRAYS = {
    "conv.weight": np.arange(18, dtype=np.float32).reshape(2, 1, 3, 3),
    "bn.running_mean": np.zeros(2, np.float32),
    "fc.weight": np.ones((4, 2), np.float16),
    "steps": np.array(7, np.int64),
}


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [each for each in sys.path if each])
    return tmp_path


def member(path, name, content):
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr(name, content)


# ---------------------------------------------------------------- built-in models and code


@pytest.mark.parametrize(("name", "n"), [("mlp", 197_322), ("cnn", 1_070_794), ("resnet18", 11_173_962)])
def test_built_in_models_are_made_for_cifar10(name, n):
    assert load_layout(name).n == n


def test_images_and_classes_can_be_others():
    assert load_layout("mlp", Images(1, 8, 8, classes=3)).n == 64 * 64 + 64 + 64 * 3 + 3
    with pytest.raises(ModelError, match=r"--image 2x2 pixels are too few: linear1.weight of cnn would be empty"):
        load_layout("cnn", Images(3, 2, 2))


@pytest.mark.parametrize("name", ["mlp", "cnn", "resnet18"])
def test_a_built_in_model_is_laid_out_as_it_is_built(name):
    record = msgspec.convert({"name": name}, models.Model)
    built = models.arrays(models.build(record, 3, 16, 24, 7, seed=0))
    assert load_layout(name, Images(3, 16, 24, 7)) == jw.Layout.of(built)


def test_a_built_in_model_of_any_size_takes_no_memory():
    huge = Images(3, 2_000, 2_000, classes=1_000)
    assert load_layout("cnn", huge).n > 4_000_000_000  # 16 GB of numbers
    with pytest.raises(ModelError, match=r"tensor 'linear1.weight' has shape \(256, 40000000000\), too large to addr"):
        load_layout("cnn", Images(3, 100_000, 100_000))
    with pytest.raises(ModelError, match=r"tensor 'output.weight' has shape .*, too large to address"):
        load_layout("resnet18", Images(classes=100_000_000))


@pytest.mark.parametrize(
    ("sizes", "message"),
    [
        ({"width": 100_001}, "--image 3x32x100001 is no image: channels, height and width go from 1 to 100,000"),
        ({"channels": 10**30}, "is no image"),
        ({"height": 0}, "is no image"),
        ({"classes": 10**8 + 1}, "--classes 100000001 is out of range: 1 to 100,000,000"),
        ({"classes": 0}, "--classes 0 is out of range"),
    ],
)
def test_an_absurd_size_is_refused(sizes, message):
    with pytest.raises(ModelError, match=message):
        Images(**sizes)


def test_a_factory_may_give_a_module_or_a_mapping(folder):
    (folder / "mine_one.py").write_text(
        "import torch, numpy as np\n"
        "def net(): return torch.nn.Linear(3, 2).bfloat16()\n"
        "class Net(torch.nn.Linear):\n"
        "    def __init__(self): super().__init__(4, 4)\n"
        "made = torch.nn.Linear(5, 1)\n"
        "def arrays(): return {'embed': np.ones((9, 4)), 'list': [1.0, 2.0]}\n"
        "class space: plain = {'a': np.ones(3)}\n"
    )
    linear = load_layout("mine_one:net")
    assert [(t.name, t.shape, t.dtype) for t in linear.tensors] == [
        ("weight", (2, 3), "bfloat16"),
        ("bias", (2,), "bfloat16"),
    ]
    assert load_layout("mine_one:Net").n == 20
    assert load_layout("mine_one:made").n == 6
    assert [t.kind for t in load_layout("mine_one:arrays").tensors] == ["embedding", "vector"]
    assert load_layout("mine_one:space.plain").n == 3
    assert str(folder) not in sys.path


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("nowhere_at_all:net", r"No module named 'nowhere_at_all'; start where nowhere_at_all.py lies, or install it"),
        ("mine_two:other", "mine_two has no 'other'; check the name after the colon"),
        ("mine_two:needs", "calling it without arguments raised TypeError: needs"),
        ("mine_two:number", "gives int, expected a PyTorch module or a mapping"),
        ("mine_two:whole", "has no float tensors besides buffers"),
        ("mine_two:text", "tensor 'a' has elements of type <U1"),
        ("mine_broken:net", "importing it raised ZeroDivisionError"),
        ("mine_leaving:net", r"importing it ended with sys.exit\('bye'\); give a factory that returns the model"),
        ("mine_two:leaves", r"calling it without arguments ended with sys.exit\(0\); give a factory"),
    ],
)
def test_code_that_gives_no_model_is_refused_in_words(folder, spec, message):
    (folder / "mine_broken.py").write_text("1 / 0\n")
    (folder / "mine_leaving.py").write_text("import sys\nsys.exit('bye')\n")
    (folder / "mine_two.py").write_text(
        "import sys\nimport numpy as np\n"
        "def leaves(): sys.exit(0)\n"
        "def needs(width): pass\n"
        "def number(): return 3\n"
        "def whole(): return {'a': np.ones(3, np.int64)}\n"
        "def text(): return {'a': np.array(['x'])}\n"
    )
    with pytest.raises(ModelError, match=message) as error:
        load_layout(spec)
    assert str(error.value).startswith(f"--model {spec}")


@pytest.mark.parametrize(
    ("model", "message"),
    [
        ("resnet81", "did you mean 'resnet18'"),
        ("model.onnx", "is not known; Give a built-in model"),
        ("weights.pt", "is a pickle, which joulewise never loads"),
        ("weights.pkl", "is a pickle, which joulewise never loads"),
        ("nothing.npz", "nothing.npz cannot be read: No such file or directory"),
        ("nothing.safetensors", "nothing.safetensors cannot be read: No such file or directory"),
    ],
)
def test_an_unknown_model_is_refused_in_words(model, message):
    with pytest.raises(ModelError, match=message):
        load_layout(model)


# ---------------------------------------------------------------- files


def test_a_file_gives_the_layout_of_its_arrays(folder):
    np.savez("model.npz", **ARRAYS)
    np.savez_compressed("small.npz", **ARRAYS)
    save_file(ARRAYS, "model.safetensors")
    expected = jw.Layout.of(ARRAYS)
    assert load_layout("model.npz") == expected
    assert load_layout(str(folder / "small.npz")) == expected
    by_name = {tensor.name: tensor for tensor in (*expected.tensors, *expected.wholes)}
    found = load_layout("model.safetensors")  # in the order of the file, which packs wider types first
    assert {tensor.name: tensor for tensor in (*found.tensors, *found.wholes)} == by_name


@pytest.mark.parametrize(
    ("dtype", "name"), [(torch.bfloat16, "bfloat16"), (torch.uint8, "uint8"), (torch.bool, "bool")]
)
def test_element_types_of_safetensors_have_their_usual_names(dtype, name):
    from safetensors.torch import save_file as save_torch  # noqa: PLC0415 (one test writes them)

    save_torch({"a": torch.zeros(2, 2), "b": torch.zeros(3, 3).to(dtype)}, "types.safetensors")
    layout = load_layout("types.safetensors")
    assert [t.dtype for t in (*layout.tensors, *layout.wholes) if t.name == "b"] == [name]


def test_shapes_are_read_without_the_data(folder):
    header = io.BytesIO()
    np.lib.format.write_array_header_1_0(header, {"descr": "<f4", "fortran_order": False, "shape": (30_000, 30_000)})
    member("large.npz", "w.npy", header.getvalue())  # the data is not even there
    assert load_layout("large.npz").n == 900_000_000


def test_object_arrays_are_refused_and_nothing_is_unpickled(folder):
    class Trap:
        def __reduce__(self):
            return (open, (str(folder / "sprung"), "w"))

    np.savez("trap.npz", a=np.ones(3), b=np.array([Trap()], dtype=object))
    with pytest.raises(ModelError, match="array 'b' holds Python objects, which would have to be unpickled"):
        load_layout("trap.npz")
    with pytest.raises(ModelError, match="array 'b' holds Python objects"):
        load_update("trap.npz", jw.Layout.of({"a": np.ones(3)}))
    assert not (folder / "sprung").exists()


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("readme.txt", b"hello", "holds 'readme.txt', which is not an array"),
        ("a.npy", b"hello", "'a' is not a NumPy array"),
        ("a.npy", b"\x93NUMPY\x01\x00\xff\xff{", "'a' is not a NumPy array"),
    ],
)
def test_archives_of_something_else_are_refused(name, content, message):
    member("odd.npz", name, content)
    with pytest.raises(ModelError, match=message):
        load_layout("odd.npz")


def sealed(header, data=bytes(16)):
    return len(header).to_bytes(8, "little") + header + data


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.npz", b"", "is empty, expected an .npz file; write it with numpy.savez"),
        ("a.npz", pickle.dumps({"w": 1.0}), "is a pickle, which joulewise never loads, expected an .npz file"),
        ("a.npz", b"PK\x03\x04 not really", "is damaged or cut off, expected an .npz file"),
        ("a.npz", b"\x93NUMPY\x01\x00", r"is a single array \(.npy\), expected an .npz file"),
        ("a.npz", b"\x89HDF\r\n", "is an HDF5 file, expected an .npz file"),
        ("a.npz", b"w,b\n1,2\n", r"is no .npz file \(a zip file of arrays\), expected an .npz file"),
        ("a.npz", b"PK\x05\x06" + bytes(18), "holds no arrays; write it with numpy.savez"),
        ("a.safetensors", b"", "is empty; write it with save_file of safetensors"),
        ("a.safetensors", b"PK\x03\x04 not really", "is damaged or no .safetensors file; write it with save_file"),
        ("a.safetensors", sealed(b"{}")[:-1] + b"x", "is damaged or no .safetensors file"),
        (
            "a.safetensors",
            sealed(b'{"a":{"dtype":"F32","shape":[2,2],"data_offsets":[0,99]}}'),
            "is damaged or no .safetensors file",
        ),
        ("a.safetensors", (2**60).to_bytes(8, "little") + b"{}", "is damaged or no .safetensors file"),
    ],
)
def test_files_of_something_else_are_refused_in_our_own_words(folder, name, content, message):
    (folder / name).write_bytes(content)
    with pytest.raises(ModelError, match=message) as caught:
        load_layout(name)
    assert str(caught.value).startswith(f"--model {name} ")
    assert str(caught.value.__cause__ or "no cause") not in str(caught.value)  # the library's text is for --debug


def test_a_tensor_too_large_to_address_is_refused():
    header = io.BytesIO()
    shape = (2**40, 2**40)
    np.lib.format.write_array_header_1_0(header, {"descr": "<f4", "fortran_order": False, "shape": shape})
    member("huge.npz", "w.npy", header.getvalue())
    with pytest.raises(ModelError, match=r"tensor 'w' has shape .* too large to address"):
        load_layout("huge.npz")


@pytest.mark.parametrize("shape", [(-2, 3), (-2, -3)])
def test_a_length_below_0_is_refused(shape):
    header = io.BytesIO()
    np.lib.format.write_array_header_1_0(header, {"descr": "<f4", "fortran_order": False, "shape": shape})
    member("odd.npz", "w.npy", header.getvalue() + bytes(24))
    with pytest.raises(ModelError, match=r"array 'w' has shape \(-2, -?3\), but no length is below 0"):
        load_layout("odd.npz")


@pytest.mark.parametrize("ending", ["npz", "safetensors"])
def test_a_folder_is_no_file(folder, ending):
    (folder / f"a.{ending}").mkdir()
    with pytest.raises(ModelError, match=f"--model a.{ending} cannot be read: Is a directory; check the path"):
        load_layout(f"a.{ending}")


@settings(max_examples=200, deadline=None)
@given(data=st.data(), ending=st.sampled_from(["npz", "safetensors"]))
def test_no_bytes_bring_the_reader_of_models_down(tmp_path_factory, data, ending):
    file = tmp_path_factory.mktemp("fuzz") / f"a.{ending}"
    arrays = {"fc.weight": np.ones((4, 2), np.float32)}
    np.savez(file, **arrays) if ending == "npz" else save_file(arrays, file)
    content = bytearray(file.read_bytes())
    for place in data.draw(st.lists(st.integers(0, len(content) - 1), min_size=1, max_size=4)):
        content[place] = data.draw(st.integers(0, 255))
    file.write_bytes(content[: data.draw(st.integers(0, len(content)))] if data.draw(st.booleans()) else content)
    layout = jw.Layout.of(arrays)
    for attempt in (lambda: load_layout(str(file)), lambda: load_update(str(file), layout)):
        with contextlib.suppress(ModelError):  # or it is sound still
            attempt()


def test_a_missing_package_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "safetensors", None)
    with pytest.raises(MissingExtra, match=r'pip install "joulewise\[safetensors\]"'):
        load_layout("model.safetensors")
    monkeypatch.setitem(sys.modules, "joulewise.learning", None)
    with pytest.raises(MissingExtra, match=r'pip install "joulewise\[learning\]"'):
        load_layout("cnn")


# ---------------------------------------------------------------- updates


def test_an_update_is_arrays_by_name_or_one_flat_vector():
    layout = jw.Layout.of(ARRAYS)
    np.savez("named.npz", **dict(reversed(ARRAYS.items())))  # more than the parameters, in another order
    np.savez("flat.npz", layout.flatten(ARRAYS).astype(np.float64))
    for path in ("named.npz", "flat.npz"):
        found = load_update(path, layout)
        assert found.dtype == np.float32
        np.testing.assert_array_equal(found, layout.flatten(ARRAYS))


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ({"fc.weight": np.ones((4, 2))}, "array 'conv.weight' is missing; give an array for each parameter tensor"),
        (ARRAYS | {"fc.weight": np.ones((2, 4))}, r"'fc.weight' has shape \(2, 4\), but the model says \(4, 2\)"),
        ({"a": np.ones(25)}, r"array 'conv.weight' is missing.* or a single one of shape \(26,\)"),
        (ARRAYS | {"fc.weight": np.full((4, 2), np.nan)}, "NaN or infinity in tensor 'fc.weight' .element 18 of"),
        (ARRAYS | {"conv.weight": np.full((2, 1, 3, 3), 1e300)}, "NaN or infinity in tensor 'conv.weight'"),
        ({"a": np.ones(26, complex)}, "elements of type complex128, expected real numbers"),
    ],
)
def test_an_update_that_does_not_fit_is_refused_in_words(arrays, message):
    np.savez("update.npz", **arrays)
    with pytest.raises(ModelError, match=message):
        load_update("update.npz", jw.Layout.of(ARRAYS))


def test_a_torn_update_is_refused(folder):
    np.savez_compressed("update.npz", a=np.random.default_rng(0).standard_normal(5000))
    whole = (folder / "update.npz").read_bytes()
    middle = len(whole) // 2
    (folder / "update.npz").write_bytes(whole[:middle] + bytes(64) + whole[middle + 64 :])
    with pytest.raises(ModelError, match=r"update\.npz"):
        load_update("update.npz", jw.Layout.single(5000))
    with pytest.raises(ModelError, match=r"is not an .npz file; write it with numpy.savez"):
        load_update("update.csv", jw.Layout.single(5000))
