"""Named tensors on one side, one flat float32 vector on the other."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from fnmatch import fnmatchcase
from functools import cached_property
from typing import Any, Literal, get_args

import numpy as np
import numpy.typing as npt

from joulewise.errors import LayoutError

Kind = Literal["conv", "linear", "embedding", "vector", "buffer", "whole", "local"]
"""What a tensor is. ``buffer`` and ``whole`` travel as values; ``local`` never leaves the client."""

KINDS: tuple[Kind, ...] = get_args(Kind)
WHOLE_NUMBERS = ("bool", "int8", "uint8", "int16", "uint16", "int32", "uint32", "int64", "uint64")
ELEMENT_TYPES = (*WHOLE_NUMBERS, "float16", "bfloat16", "float32", "float64")
PARAMETER_KINDS = frozenset({"conv", "linear", "embedding", "vector"})

Vector = npt.NDArray[np.float32]
Arrays = dict[str, npt.NDArray[Any]]


@dataclass(frozen=True, slots=True)
class Tensor:
    """One named tensor of a model.

    Args:
        name: as in the model's state, for example ``layer1.0.conv1.weight``.
        shape: its dimensions.
        kind: what it is; decides its default price and whether it enters the flat vector.
        dtype: element type that the model uses, for example ``float32`` or ``bfloat16``.
    """

    name: str
    shape: tuple[int, ...]
    kind: Kind
    dtype: str

    @property
    def size(self) -> int:
        """Number of elements."""
        return math.prod(self.shape)


@dataclass(frozen=True, eq=False)
class Layout:
    """Order, shape and kind of a model's tensors: how they lie in one flat float32 vector.

    Parameters (convolutions, linear maps, embeddings, vectors) make up the flat vector. Buffers such as
    running means, and tensors that are not float, travel whole beside it. Local tensors stay on the client.

    Args:
        tensors: the parameters, in the order in which they lie in the flat vector.
        wholes: buffers and tensors that are not float.
        locals: tensors that never leave the client.

    Example:
        >>> layout = Layout.of({"conv.weight": np.ones((2, 1, 3, 3)), "bn.running_mean": np.zeros(2)})
        >>> layout.n, [tensor.kind for tensor in layout.tensors], [tensor.name for tensor in layout.wholes]
        (18, ['conv'], ['bn.running_mean'])

    Raises:
        LayoutError: there are 2**32 parameters or more.
    """

    tensors: tuple[Tensor, ...]
    wholes: tuple[Tensor, ...] = ()
    locals: tuple[Tensor, ...] = ()

    def __post_init__(self) -> None:
        n = sum(tensor.size for tensor in self.tensors)
        if n >= 2**32:
            raise LayoutError(f"the model has {n} parameters; joulewise addresses fewer than 2**32")

    @classmethod
    def of(cls, arrays: Mapping[str, Any], kinds: Mapping[str, Kind] | None = None) -> Layout:
        """Read the layout off named arrays (NumPy arrays or CPU torch tensors).

        Args:
            arrays: tensor by name, in the model's order.
            kinds: kind by name or pattern (``*`` and ``?``), before the usual guess from name and shape;
                ``{"head.*": "local"}`` keeps a head on the client.

        Raises:
            LayoutError: a kind is unknown, a pattern matches nothing, or a non-float tensor is called a
                parameter.
        """
        overrides = dict(kinds or {})
        _check_kinds(overrides, arrays)
        every = [_describe(name, array, overrides) for name, array in arrays.items()]
        return cls(
            tensors=tuple(tensor for tensor in every if tensor.kind in PARAMETER_KINDS),
            wholes=tuple(tensor for tensor in every if tensor.kind in {"buffer", "whole"}),
            locals=tuple(tensor for tensor in every if tensor.kind == "local"),
        )

    @classmethod
    def single(cls, n: int, name: str = "update") -> Layout:
        """The layout of a bare vector of `n` parameters: one tensor."""
        return cls((Tensor(name, (n,), "vector", "float32"),))

    @cached_property
    def offsets(self) -> npt.NDArray[np.int64]:
        """Where each tensor starts in the flat vector, and its end: int64[tensors + 1]."""
        return np.cumsum([0, *(tensor.size for tensor in self.tensors)], dtype=np.int64)

    @property
    def n(self) -> int:
        """Number of parameters: length of the flat vector."""
        return int(self.offsets[-1])

    @cached_property
    def sizes(self) -> npt.NDArray[np.int64]:
        """Number of elements of each tensor: int64[tensors]."""
        return np.diff(self.offsets)

    @cached_property
    def fingerprint(self) -> int:
        """64 bits that differ between models: a hash of names, shapes, kinds and element types."""
        groups = (self.tensors, self.wholes, self.locals)
        text = "\n".join(f"{t.name}|{t.shape}|{t.kind}|{t.dtype}" for group in groups for t in group)
        return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "little")

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Layout):
            return NotImplemented
        mine, theirs = (self.tensors, self.wholes, self.locals), (other.tensors, other.wholes, other.locals)
        return mine == theirs

    def __hash__(self) -> int:
        return self.fingerprint

    def flatten(self, arrays: Mapping[str, Any]) -> Vector:
        """Lay the parameters one after another: float32[n], always a new array.

        Raises:
            LayoutError: a tensor is missing or has another shape.
        """
        flat = np.empty(self.n, dtype=np.float32)
        for tensor, start, stop in self.spans():
            flat[start:stop] = _take(tensor, arrays).reshape(-1)
        return flat

    def split(self, vector: npt.NDArray[Any]) -> Arrays:
        """Cut a flat vector into named tensors, in the element types of the model.

        float32 tensors are views into `vector`; bfloat16, which NumPy does not know, stays float32.

        Raises:
            LayoutError: `vector` does not have n elements.
        """
        if vector.shape != (self.n,):
            raise LayoutError(f"vector has shape {vector.shape}, but this layout needs ({self.n},)")
        return {
            tensor.name: vector[start:stop].reshape(tensor.shape).astype(_numpy_dtype(tensor), copy=False)
            for tensor, start, stop in self.spans()
        }

    def take_wholes(self, arrays: Mapping[str, Any]) -> Arrays:
        """The buffers and non-float tensors of a model, as NumPy arrays in their own element types."""
        return {tensor.name: _take(tensor, arrays).astype(_numpy_dtype(tensor)) for tensor in self.wholes}

    def spans(self) -> Iterator[tuple[Tensor, int, int]]:
        """Each tensor with its start and stop in the flat vector."""
        edges = self.offsets.tolist()
        yield from zip(self.tensors, edges[:-1], edges[1:], strict=True)

    def counts(self, indices: npt.NDArray[np.uint32]) -> npt.NDArray[np.int64]:
        """How many of the ascending `indices` lie in each tensor: int64[tensors]."""
        edges = np.searchsorted(indices, self.offsets.astype(np.uint32))
        return edges[1:] - edges[:-1]

    def name_of(self, index: int) -> str:
        """Name of the tensor that holds coordinate `index` of the flat vector."""
        return self.tensors[int(np.searchsorted(self.offsets, index, side="right")) - 1].name


def as_numpy(array: Any) -> npt.NDArray[Any]:
    """A NumPy array of an array, a number, or a CPU torch tensor, without a copy where that is possible."""
    if hasattr(array, "detach"):
        array = array.detach().cpu()
        array = array.float() if _dtype_name(array) == "bfloat16" else array
        return np.asarray(array.numpy())
    return np.asarray(array)


def _dtype_name(array: Any) -> str:
    # Not getattr with a default, which would convert the array first: NumPy cannot take bfloat16.
    return str(array.dtype if hasattr(array, "dtype") else np.asarray(array).dtype).removeprefix("torch.")


def _numpy_dtype(tensor: Tensor) -> np.dtype[Any]:
    return np.dtype(np.float32) if tensor.dtype == "bfloat16" else np.dtype(tensor.dtype)


def _is_float(dtype: str) -> bool:
    return dtype in {"float16", "bfloat16", "float32", "float64"}


def _check_kinds(overrides: Mapping[str, str], arrays: Mapping[str, Any]) -> None:
    for pattern, kind in overrides.items():
        if kind not in KINDS:
            raise LayoutError(f"kinds[{pattern!r}] is {kind!r}, but a kind is one of: {', '.join(KINDS)}")
        if not any(fnmatchcase(name, pattern) for name in arrays):
            known = ", ".join(list(arrays)[:5])
            raise LayoutError(f"kinds[{pattern!r}] matches no tensor; the model's tensors begin with: {known}")


def _describe(name: str, array: Any, overrides: Mapping[str, Kind]) -> Tensor:
    if "\n" in name:
        raise LayoutError(f"tensor {name!r} has a line break in its name; rename it")
    dtype, shape = _dtype_name(array), tuple(int(length) for length in np.shape(array))
    chosen = next((kind for pattern, kind in overrides.items() if fnmatchcase(name, pattern)), None)
    if chosen in PARAMETER_KINDS and not _is_float(dtype):
        raise LayoutError(f"kinds[{name!r}] is {chosen!r}, but the tensor's elements are {dtype}: only float can be")
    kind = chosen or _guess(name, shape, dtype)
    if dtype not in ELEMENT_TYPES and kind != "local":
        raise LayoutError(
            f"tensor {name!r} has elements of type {dtype}, but joulewise sends only: {', '.join(ELEMENT_TYPES)}; "
            "convert it, or keep it on the client with kinds={...: 'local'}"
        )
    return Tensor(name, shape, kind, dtype)


def _guess(name: str, shape: tuple[int, ...], dtype: str) -> Kind:
    if not _is_float(dtype):
        return "whole"
    if name.endswith(("running_mean", "running_var")):
        return "buffer"
    if len(shape) >= 3:
        return "conv"
    if len(shape) == 2:
        return "embedding" if "embed" in name.lower() else "linear"
    return "vector"


def _take(tensor: Tensor, arrays: Mapping[str, Any]) -> npt.NDArray[Any]:
    if tensor.name not in arrays:
        raise LayoutError(f"tensor {tensor.name!r} is missing; the layout was made from a model that has it")
    array = as_numpy(arrays[tensor.name])
    if array.shape != tensor.shape:
        raise LayoutError(f"tensor {tensor.name!r} has shape {array.shape}, but the layout says {tensor.shape}")
    return array
