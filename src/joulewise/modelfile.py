"""Models and updates from names, files and the user's own code, as layouts and flat vectors.

Nothing is ever unpickled; of a model file only names, shapes and element types are read.
"""

from __future__ import annotations

import importlib
import sys
import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from difflib import get_close_matches
from math import prod
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import numpy.typing as npt

from joulewise.arrayfile import Header, headers, npz_headers, opened, read, safetensors_headers
from joulewise.errors import LayoutError, MissingExtra, ModelError
from joulewise.layout import Layout, Vector

BUILT_IN = ("mlp", "cnn", "resnet18")
PICKLED = (".pt", ".pth", ".bin", ".ckpt", ".pkl", ".pickle")
KNOWN = f"a built-in model ({', '.join(BUILT_IN)}), module:factory, or a file that ends in .npz or .safetensors"
MOST_ELEMENTS = 2**32
LARGEST_IMAGE = 100_000
"""Channels, height and width at most; beyond it and `MOST_CLASSES` the number of parameters overflows."""
MOST_CLASSES = 10**8


@dataclass(frozen=True, slots=True)
class Images:
    """The data that a built-in model is made for: CIFAR-10 unless told otherwise.

    Args:
        channels: of an image.
        height: in pixels.
        width: in pixels.
        classes: how many.

    Raises:
        ModelError: an image is larger than 100,000 in one of its dimensions, or there are more than 1e8 classes.
    """

    channels: int = 3
    height: int = 32
    width: int = 32
    classes: int = 10

    def __post_init__(self) -> None:
        if not all(1 <= length <= LARGEST_IMAGE for length in (self.channels, self.height, self.width)):
            size = f"{self.channels}x{self.height}x{self.width}"
            raise ModelError(f"--image {size} is no image: channels, height and width go from 1 to {LARGEST_IMAGE:,}")
        if not 1 <= self.classes <= MOST_CLASSES:
            raise ModelError(f"--classes {self.classes} is out of range: 1 to {MOST_CLASSES:,}")


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
        return _layout_of(npz_headers(model), model)
    if ending == ".safetensors":
        return _layout_of(safetensors_headers(model), model)
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
    with opened(where, path) as archive, np.errstate(over="ignore"):
        found = headers(archive, where)
        if len(found) == 1 and next(iter(found.values())).shape == (layout.n,):
            update = _real(read(archive, next(iter(found)), where), where)
        else:
            _check_shapes(found, layout, where)
            update = layout.flatten({t.name: _real(read(archive, t.name, where), where) for t in layout.tensors})
        flat = np.ascontiguousarray(update, dtype=np.float32)
    bad = np.flatnonzero(~np.isfinite(flat))
    if bad.size:
        place = f"tensor {layout.name_of(int(bad[0]))!r} (element {bad[0]} of the flat vector)"
        raise ModelError(f"{where} holds NaN or infinity in {place}; record a round that did not diverge")
    if not flat.any():
        raise ModelError(f"{where} is zero everywhere, so there is nothing to select; record it after training")
    return flat


def _check_shapes(found_headers: Mapping[str, Header], layout: Layout, where: str) -> None:
    """Before anything is allocated: an array for each parameter tensor, of its shape."""
    for tensor in layout.tensors:
        found = found_headers.get(tensor.name)
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
        found = models.shapes(record, images.channels, images.height, images.width, images.classes)
    empty = [tensor for tensor, (shape, _) in found.items() if not prod(shape)]
    if empty:
        raise ModelError(
            f"--image {images.height}x{images.width} pixels are too few: {empty[0]} of {name} would be empty"
        )
    return {tensor: Header(shape, dtype) for tensor, (shape, dtype) in found.items()}


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
    except (Exception, SystemExit) as error:
        raise ModelError(f"--model {spec}: importing it {_what(error)}") from error
    finally:
        sys.path.remove(here)


def _called(factory: Callable[[], Any], spec: str) -> Any:
    try:
        return factory()
    except (Exception, SystemExit) as error:
        raise ModelError(f"--model {spec}: calling it without arguments {_what(error)}") from error


def _what(error: BaseException) -> str:
    if isinstance(error, SystemExit):
        return f"ended with sys.exit({error.code!r}); give a factory that returns the model"
    return f"raised {type(error).__name__}: {error}"


def _state_of(made: Any) -> Mapping[str, Any] | None:
    state = made.state_dict() if hasattr(made, "state_dict") and not isinstance(made, type) else made
    if not isinstance(state, Mapping):
        return None
    return {str(name): array if hasattr(array, "shape") else np.asarray(array) for name, array in state.items()}
