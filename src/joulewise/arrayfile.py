"""Files of named arrays, ``.npz`` and ``.safetensors``: what is in them, and never more than was asked for.

Nothing is unpickled. What is wrong with a file is said in words of our own; what the library said is behind the error,
for ``--debug``.
"""

from __future__ import annotations

import zipfile
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import numpy.lib.format as npy
import numpy.typing as npt

from joulewise.errors import MissingExtra, ModelError

SAFETENSORS_TYPES = {"BOOL": "bool", "BF16": "bfloat16", "F16": "float16", "F32": "float32", "F64": "float64"}
# RuntimeError: a file with a password. The others are what broken headers lead to.
DAMAGED = (zipfile.BadZipFile, zlib.error, ValueError, KeyError, EOFError, OverflowError, RuntimeError)
NPZ, SAFETENSORS = "write it with numpy.savez(FILE, **arrays)", "write it with save_file of safetensors"

_STARTS = (
    (b"\x93NUMPY", "is a single array (.npy)"),
    (b"\x80", "is a pickle, which joulewise never loads"),
    (b"PK\x03\x04", "is damaged or cut off"),
    (b"PK\x05\x06", "holds no arrays"),
    (b"\x89HDF", "is an HDF5 file"),
)
"""What a file is that is no sound .npz file, by its first bytes."""


@dataclass(frozen=True, slots=True)
class Header:
    """Shape and element type of a tensor whose data was not read."""

    shape: tuple[int, ...]
    dtype: str


@contextmanager
def opened(where: str, path: str) -> Iterator[zipfile.ZipFile]:
    """An ``.npz`` file, open while the context lasts.

    Args:
        where: what an error begins with, the argument as it was typed.
        path: of the file.

    Raises:
        ModelError: the file cannot be read, or is something else, or damaged.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            yield archive
    except ModelError:
        raise
    except OSError as error:
        raise ModelError(f"{where} cannot be read: {error.strerror or error}; check the path") from error
    except DAMAGED as error:
        raise ModelError(f"{where} {_what_it_is(path)}, expected an .npz file; {NPZ}") from error


def _what_it_is(path: str) -> str:
    with Path(path).open("rb") as file:
        first = file.read(8)
    if not first:
        return "is empty"
    return next((what for start, what in _STARTS if first.startswith(start)), "is no .npz file (a zip file of arrays)")


def npz_headers(path: str) -> dict[str, Header]:
    """Names, shapes and element types of the arrays of ``--model path``."""
    where = f"--model {path}"
    with opened(where, path) as archive:
        return headers(archive, where)


def headers(archive: zipfile.ZipFile, where: str) -> dict[str, Header]:
    """Names, shapes and element types of the arrays of an open ``.npz`` file.

    Raises:
        ModelError: there is none, or something else is in it.
    """
    foreign = [name for name in archive.namelist() if not name.endswith(".npy")]
    if foreign:
        raise ModelError(f"{where} holds {foreign[0]!r}, which is not an array; {NPZ}")
    if not archive.namelist():
        raise ModelError(f"{where} holds no arrays; {NPZ}")
    return {name.removesuffix(".npy"): _header(archive, name, where) for name in archive.namelist()}


def _header(archive: zipfile.ZipFile, name: str, where: str) -> Header:
    with archive.open(name) as file:
        shape, dtype = _npy_header(file, name, where)
    return Header(shape, dtype.name)


def read(archive: zipfile.ZipFile, array: str, where: str) -> npt.NDArray[Any]:
    """One array of an open ``.npz`` file.

    Raises:
        ModelError: it is damaged.
    """
    with archive.open(f"{array}.npy") as file:
        try:
            return np.asarray(npy.read_array(file, allow_pickle=False))
        except DAMAGED as error:
            raise ModelError(f"{where}: array {array!r} is damaged or cut off; write the file again") from error


def _npy_header(file: Any, name: str, where: str) -> tuple[tuple[int, ...], np.dtype[Any]]:
    array = name.removesuffix(".npy")
    try:
        version = npy.read_magic(file)
        reader: Callable[[BinaryIO], Any] = (
            npy.read_array_header_1_0 if version == (1, 0) else npy.read_array_header_2_0
        )
        shape, _, dtype = reader(file)
    except ValueError as error:
        raise ModelError(f"{where}: {array!r} is not a NumPy array; {NPZ}") from error
    if any(length < 0 for length in shape):
        raise ModelError(f"{where}: array {array!r} has shape {shape}, but no length is below 0; write the file again")
    if dtype.hasobject:
        raise ModelError(
            f"{where}: array {array!r} holds Python objects, which would have to be unpickled, and joulewise never "
            "does that; save numbers"
        )
    return shape, dtype


def safetensors_headers(path: str) -> dict[str, Header]:
    """Names, shapes and element types of the tensors of ``--model path``, in the order of the file.

    Raises:
        ModelError: the file cannot be read, or is something else, or damaged.
        MissingExtra: safetensors is not installed.
    """
    try:
        import safetensors  # noqa: PLC0415 (only such files need it)
    except ImportError as error:
        raise MissingExtra("safetensors", f"reading {path}") from error
    try:
        with safetensors.safe_open(path, "numpy") as file:
            slices = {name: file.get_slice(name) for name in file.offset_keys()}
            return {name: Header(tuple(part.get_shape()), _type_of(part.get_dtype())) for name, part in slices.items()}
    except OSError as error:
        why = "Is a directory" if Path(path).is_dir() else error.strerror or error
        raise ModelError(f"--model {path} cannot be read: {why}; check the path") from error
    except safetensors.SafetensorError as error:
        what = "is damaged or no .safetensors file" if Path(path).stat().st_size else "is empty"
        raise ModelError(f"--model {path} {what}; {SAFETENSORS}") from error


def _type_of(name: str) -> str:
    """Element types by the names that safetensors gives them: I64, U8 and the like are ints of so many bits."""
    integer = {"I": "int", "U": "uint"}.get(name[:1], "")
    return SAFETENSORS_TYPES.get(name, f"{integer}{name[1:]}" if integer else name.lower())
