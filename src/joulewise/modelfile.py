"""Models and updates from names, files and the user's own code, as layouts and flat vectors.

Nothing is ever unpickled; of a model file only names, shapes and element types are read.
"""

from __future__ import annotations

import importlib
import sys
import warnings
import zipfile
import zlib
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from difflib import get_close_matches
from math import prod
from pathlib import Path
from typing import Any, BinaryIO

import msgspec
import numpy as np
import numpy.lib.format as npy
import numpy.typing as npt

from joulewise.errors import LayoutError, MissingExtra, ModelError
from joulewise.layout import Layout, Vector

BUILT_IN = ("mlp", "cnn", "resnet18")
PICKLED = (".pt", ".pth", ".bin", ".ckpt", ".pkl", ".pickle")
KNOWN = f"a built-in model ({', '.join(BUILT_IN)}), module:factory, or a file that ends in .npz or .safetensors"
SAFETENSORS_TYPES = {"BOOL": "bool", "BF16": "bfloat16", "F16": "float16", "F32": "float32", "F64": "float64"}
MOST_ELEMENTS = 2**32
DAMAGED = (zipfile.BadZipFile, zlib.error, ValueError, EOFError, RuntimeError)  # RuntimeError: a file with a password


@dataclass(frozen=True, slots=True)
class Images:
    """The data that a built-in model is made for: CIFAR-10 unless told otherwise.

    Args:
        channels: of an image.
        height: in pixels.
        width: in pixels.
        classes: how many.
    """

    channels: int = 3
    height: int = 32
    width: int = 32
    classes: int = 10


@dataclass(frozen=True, slots=True)
class Header:
    """Shape and element type of a tensor whose data was not read."""

    shape: tuple[int, ...]
    dtype: str


def load_layout(model: str, images: Images | None = None) -> Layout:
    """The layout of a model.

    Args:
        model: the name of a built-in model; ``module:factory``, where calling `factory` without arguments (or
            taking it as it is) gives a PyTorch module or a mapping of arrays; or the path of an ``.npz`` or
            ``.safetensors`` file of named arrays. Modules are looked for in the working directory first.
        images: what a built-in model is made for.

    Raises:
        ModelError: there is no such model, or the file or factory gives no named arrays.
        MissingExtra: PyTorch (built-in models) or safetensors is not installed.
    """
    ending = Path(model).suffix.lower()
    if ending == ".npz":
        return _layout_of(_npz_headers(model), model)
    if ending == ".safetensors":
        return _layout_of(_safetensors_headers(model), model)
    if ending in PICKLED:
        raise ModelError(
            f"--model {model} is a pickle, which joulewise never loads; save the state as .safetensors or .npz"
        )
    if model in BUILT_IN:
        return _layout_of(_built_in(model, images or Images()), model)
    if ":" in model:
        return _layout_of(_made_by_factory(model), model)
    close = get_close_matches(model, BUILT_IN, n=1)
    meant = f"did you mean {close[0]!r}? " if close else ""
    raise ModelError(f"--model {model} is not known; {meant}Give {KNOWN}")


def load_update(path: str, layout: Layout) -> Vector:
    """A recorded update from an ``.npz`` file: float32[n].

    Args:
        path: of the file: either an array for each parameter tensor, by name, or one flat array of n numbers.
        layout: of the model that was trained.

    Raises:
        ModelError: the file cannot be read, does not fit the layout, holds NaN or infinity, or is zero.
    """
    if Path(path).suffix.lower() != ".npz":
        raise ModelError(f"--update {path} is not an .npz file; write it with numpy.savez(FILE, **arrays)")
    where = f"--update {path}"
    # Numbers beyond float32 become infinity, which is refused by name.
    with _opened(where, path) as archive, np.errstate(over="ignore"):
        headers = _headers(archive, where)
        if len(headers) == 1 and next(iter(headers.values())).shape == (layout.n,):
            update = _real(_read(archive, next(iter(headers)), where), where)
        else:
            _check_shapes(headers, layout, where)
            update = layout.flatten({t.name: _real(_read(archive, t.name, where), where) for t in layout.tensors})
        flat = np.ascontiguousarray(update, dtype=np.float32)
    bad = np.flatnonzero(~np.isfinite(flat))
    if bad.size:
        place = f"tensor {layout.name_of(int(bad[0]))!r} (element {bad[0]} of the flat vector)"
        raise ModelError(f"{where} holds NaN or infinity in {place}; record a round that did not diverge")
    if not flat.any():
        raise ModelError(f"{where} is zero everywhere, so there is nothing to select; record it after training")
    return flat


def _check_shapes(headers: Mapping[str, Header], layout: Layout, where: str) -> None:
    """Before anything is allocated: an array for each parameter tensor, of its shape."""
    for tensor in layout.tensors:
        found = headers.get(tensor.name)
        if found is None or found.shape != tensor.shape:
            what = "is missing" if found is None else f"has shape {found.shape}, but the model says {tensor.shape}"
            raise ModelError(
                f"{where}: array {tensor.name!r} {what}; give an array for each parameter tensor, or a single one of "
                f"shape ({layout.n},)"
            )


def _real(array: npt.NDArray[Any], where: str) -> npt.NDArray[Any]:
    if array.dtype.kind not in "fiu":
        raise ModelError(f"{where} has elements of type {array.dtype}, expected real numbers")
    return array


def _layout_of(arrays: Mapping[str, Any], model: str) -> Layout:
    for name, array in arrays.items():
        if prod(int(length) for length in array.shape) >= MOST_ELEMENTS:
            raise ModelError(f"--model {model}: tensor {name!r} has shape {tuple(array.shape)}, too large to address")
    try:
        layout = Layout.of(arrays)
    except LayoutError as error:
        raise ModelError(f"--model {model}: {error}") from error
    if not layout.n:
        raise ModelError(f"--model {model} has no float tensors besides buffers, so there is nothing to price")
    return layout


# ---------------------------------------------------------------- code


def _built_in(name: str, images: Images) -> Mapping[str, Any]:
    try:
        from joulewise.learning import models  # noqa: PLC0415 (only built-in models need PyTorch)
    except ImportError as error:
        raise MissingExtra("learning", f"the built-in model {name}") from error
    record = msgspec.convert({"name": name}, models.Model)
    with warnings.catch_warnings(action="ignore"):  # of layers without elements, which are refused below
        module = models.build(record, images.channels, images.height, images.width, images.classes, seed=0)
    state = models.arrays(module)
    empty = [tensor for tensor, array in state.items() if not array.size]
    if empty:
        raise ModelError(
            f"--image {images.height}x{images.width} pixels are too few: {empty[0]} of {name} would be empty"
        )
    return state


def _made_by_factory(spec: str) -> Mapping[str, Any]:
    module_name, _, path = spec.partition(":")
    made = _import(module_name, spec)
    for part in path.split("."):
        if not hasattr(made, part):
            raise ModelError(f"--model {spec}: {module_name} has no {part!r}; check the name after the colon")
        made = getattr(made, part)
    state = None if isinstance(made, type) else _state_of(made)
    if state is None and callable(made):
        made = _called(made, spec)
        state = _state_of(made)
    if state is None:
        raise ModelError(
            f"--model {spec} gives {type(made).__name__}, expected a PyTorch module or a mapping from names to arrays"
        )
    return state


def _import(module_name: str, spec: str) -> Any:
    here = str(Path.cwd())
    try:
        sys.path.insert(0, here)
        return importlib.import_module(module_name)
    except ModuleNotFoundError as error:
        raise ModelError(f"--model {spec}: {error}; start where {module_name}.py lies, or install it") from error
    except Exception as error:
        raise ModelError(f"--model {spec}: importing it raised {type(error).__name__}: {error}") from error
    finally:
        sys.path.remove(here)


def _called(factory: Callable[[], Any], spec: str) -> Any:
    try:
        return factory()
    except Exception as error:
        raise ModelError(
            f"--model {spec}: calling it without arguments raised {type(error).__name__}: {error}"
        ) from error


def _state_of(made: Any) -> Mapping[str, Any] | None:
    state = made.state_dict() if hasattr(made, "state_dict") and not isinstance(made, type) else made
    if not isinstance(state, Mapping):
        return None
    return {str(name): array if hasattr(array, "shape") else np.asarray(array) for name, array in state.items()}


# ---------------------------------------------------------------- files


@contextmanager
def _opened(where: str, path: str) -> Iterator[zipfile.ZipFile]:
    try:
        with zipfile.ZipFile(path) as archive:
            yield archive
    except ModelError:
        raise
    except OSError as error:
        raise ModelError(f"{where} cannot be read: {error.strerror or error}; check the path") from error
    except DAMAGED as error:
        raise ModelError(f"{where} is not a sound .npz file: {error}; write it with numpy.savez") from error


def _npz_headers(path: str) -> dict[str, Header]:
    where = f"--model {path}"
    with _opened(where, path) as archive:
        return _headers(archive, where)


def _headers(archive: zipfile.ZipFile, where: str) -> dict[str, Header]:
    foreign = [name for name in archive.namelist() if not name.endswith(".npy")]
    if foreign:
        raise ModelError(f"{where} holds {foreign[0]!r}, which is not an array; write it with numpy.savez")
    return {name.removesuffix(".npy"): _header(archive, name, where) for name in archive.namelist()}


def _header(archive: zipfile.ZipFile, name: str, where: str) -> Header:
    with archive.open(name) as file:
        shape, dtype = _npy_header(file, name, where)
    return Header(shape, dtype.name)


def _read(archive: zipfile.ZipFile, array: str, where: str) -> npt.NDArray[Any]:
    with archive.open(f"{array}.npy") as file:
        try:
            return np.asarray(npy.read_array(file, allow_pickle=False))
        except DAMAGED as error:
            raise ModelError(f"{where}: array {array!r} is damaged: {error}; write it again") from error


def _npy_header(file: Any, name: str, where: str) -> tuple[tuple[int, ...], np.dtype[Any]]:
    array = name.removesuffix(".npy")
    try:
        version = npy.read_magic(file)
        read: Callable[[BinaryIO], Any] = npy.read_array_header_1_0 if version == (1, 0) else npy.read_array_header_2_0
        shape, _, dtype = read(file)
    except ValueError as error:
        raise ModelError(f"{where}: {array!r} is not a NumPy array ({error}); write it with numpy.savez") from error
    if dtype.hasobject:
        raise ModelError(
            f"{where}: array {array!r} holds Python objects, which would have to be unpickled, and joulewise never "
            "does that; save numbers"
        )
    return shape, dtype


def _safetensors_headers(path: str) -> dict[str, Header]:
    try:
        import safetensors  # noqa: PLC0415 (only such files need it)
    except ImportError as error:
        raise MissingExtra("safetensors", f"reading {path}") from error
    try:
        with safetensors.safe_open(path, "numpy") as file:
            slices = {name: file.get_slice(name) for name in file.offset_keys()}
            return {name: Header(tuple(part.get_shape()), _type_of(part.get_dtype())) for name, part in slices.items()}
    except OSError as error:
        raise ModelError(f"--model {path} cannot be read: {error.strerror or error}; check the path") from error
    except safetensors.SafetensorError as error:
        raise ModelError(f"--model {path} is not a .safetensors file: {error}") from error


def _type_of(name: str) -> str:
    """Element types by the names that safetensors gives them: I64, U8 and the like are ints of so many bits."""
    integer = {"I": "int", "U": "uint"}.get(name[:1], "")
    return SAFETENSORS_TYPES.get(name, f"{integer}{name[1:]}" if integer else name.lower())
