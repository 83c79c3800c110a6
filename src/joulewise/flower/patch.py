"""The changes from one model to another as bytes: new values at the positions that changed, and never differences.

Positions, and the values of float32 and float16, go through the codec of updates. Values that it cannot carry to the
last bit (other element types, NaN, infinity) follow it as they are. What comes out is compared with the checksum of the
model that was meant. ``docs/downlink.md`` specifies the bytes.
"""

from __future__ import annotations

import hashlib
import math
import re
import struct
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import msgspec
import numpy as np
import numpy.typing as npt
from flwr.app import Array, ArrayRecord

from joulewise.codec import ValueType, decode, encode
from joulewise.errors import PayloadError
from joulewise.flower import wire
from joulewise.layout import Layout, Tensor
from joulewise.select import Selection

SERIALIZATION = "joulewise.down.v1"
CHANGES = "joulewise.changes"
MAGIC = b"JWD1"

_HEAD = struct.Struct("<4sQ16sQ16sQ")
_VALUES: dict[str, ValueType] = {"<f4": "float32", "<f2": "float16"}
_RAW: ValueType = "int8"  # Of zeros, which take one bit each: the values themselves follow the codec's payload.
_TOKEN = re.compile(r"(\d{1,19})-([0-9a-f]{32})")

Positions = npt.NDArray[np.uint32]


@dataclass(frozen=True, slots=True)
class Version:
    """A model that a server has sent: its number, and the checksum of its exact bits.

    Example:
        >>> version = Version(7, bytes(16))
        >>> str(version), Version.parse(str(version)) == version, Version.parse("seven")
        ('7-00000000000000000000000000000000', True, None)
    """

    number: int
    checksum: bytes

    def __str__(self) -> str:
        return f"{self.number}-{self.checksum.hex()}"

    @classmethod
    def parse(cls, text: object) -> Version | None:
        """The inverse of `str`; None for everything else."""
        found = _TOKEN.fullmatch(text) if isinstance(text, str) else None
        return None if found is None else cls(int(found[1]), bytes.fromhex(found[2]))


@dataclass(frozen=True, slots=True)
class Part:
    """What two arrays must share, so that the elements of one can replace those of the other."""

    name: str
    dtype: str
    shape: tuple[int, ...]
    header: bytes
    size: int

    @property
    def element(self) -> np.dtype[Any]:
        """The element type, as in the header: Flower's own field is empty in older apps."""
        return wire.read_header(self.header)[0]


Form = tuple[Part, ...]


def form_of(record: ArrayRecord) -> Form | None:
    """The form of a model; None where its arrays are not plain ones, so that it can only be sent whole."""
    parts = [_part_of(name, array) for name, array in record.items()]
    form = tuple(part for part in parts if part is not None)
    fits = len(form) == len(parts) and 0 < sum(part.size for part in form) < 2**32
    return form if fits else None


def checksum_of(record: ArrayRecord) -> bytes:
    """16 bytes that differ between models which differ in any bit, name or shape."""
    digest = hashlib.sha256()
    for name, array in record.items():
        data = array.data
        digest.update(repr((name, array.dtype, tuple(array.shape), array.stype, len(data))).encode())
        digest.update(data)
    return digest.digest()[:16]


def positions_of(before: ArrayRecord, after: ArrayRecord, form: Form) -> Positions:
    """Where two models of one form differ in any bit: uint32[k], ascending, over the elements of all arrays."""
    found, start = [np.empty(0, np.uint32)], 0
    for part in form:
        old, new = before[part.name].data, after[part.name].data
        if old is not new and old != new:
            apart = _bits(old, part) != _bits(new, part)
            places = np.flatnonzero(apart if apart.ndim == 1 else apart.any(axis=1))
            found.append((places + start).astype(np.uint32))
        start += part.size
    return np.concatenate(found)


def write(base: Version, version: Version, record: ArrayRecord, form: Form, positions: Positions) -> Array:
    """The array that takes the place of a model on its way to a node which holds `base`.

    Args:
        base: what the node holds.
        version: of the model in `record`.
        record: the model.
        form: of both.
        positions: where they may differ, as `positions_of` says; more do no harm.
    """
    layout = layout_of(form)
    kinds: list[ValueType] = []
    values, raw = np.zeros(positions.size, np.float32), []
    for at, part, own in own_positions(positions, form):
        taken = _bits(record[part.name].data, part)[own]
        kind = _VALUES.get(part.element.str, _RAW)
        numbers = taken.view(part.element) if kind != _RAW else None
        if numbers is not None and np.isfinite(numbers).all():
            values[at] = numbers
        elif own.size:
            kind = _RAW
            raw.append(taken.tobytes())
        kinds.append(kind)
    changes = encode(Selection(layout.n, positions, values), layout, kinds)
    head = _HEAD.pack(MAGIC, base.number, base.checksum, version.number, version.checksum, len(changes))
    data = b"".join((head, changes, *raw))
    return Array(dtype="uint8", shape=(len(data),), stype=SERIALIZATION, data=data)


@dataclass(frozen=True, slots=True)
class Head:
    """What a message with changes says first: which model it changes into which."""

    base: Version
    version: Version


def read_head(array: Array) -> Head:
    """Read which versions an array of changes is about.

    Raises:
        PayloadError: it is of another version of the format, or too short.
    """
    if array.stype != SERIALIZATION:
        raise PayloadError(f"changes have serialization type {array.stype!r}, but this node reads {SERIALIZATION!r}")
    if len(array.data) < _HEAD.size or not array.data.startswith(MAGIC):
        raise PayloadError(f"changes do not begin with {MAGIC!r} and {_HEAD.size} bytes of versions")
    _, number, checksum, new_number, new_checksum, _ = _HEAD.unpack_from(array.data)
    return Head(Version(number, checksum), Version(new_number, new_checksum))


def apply(array: Array, held: ArrayRecord) -> tuple[ArrayRecord, Positions]:
    """The model that was meant, made of the one that is held, and where it was changed.

    Args:
        array: as `write` made it.
        held: the model that it changes.

    Raises:
        PayloadError: the bytes are damaged, or what they lead to is not the model that was meant.
    """
    head, form = read_head(array), form_of(held)
    if form is None:
        raise PayloadError("the model that is held is not of plain arrays, so that it cannot be changed")
    made, positions = _changed(array.data, held, form)
    if checksum_of(made) != head.version.checksum:
        raise PayloadError(
            f"changes of model {head.base.number} do not lead to the bits of model {head.version.number}"
        )
    return made, positions


def _changed(data: bytes, held: ArrayRecord, form: Form) -> tuple[ArrayRecord, Positions]:
    layout, end = layout_of(form), _HEAD.size + _HEAD.unpack_from(data)[-1]
    if end > len(data):
        raise PayloadError("changes end before the bytes that their head announces")
    decoded = decode(memoryview(data)[_HEAD.size : end], layout)
    positions, values = decoded.selection.indices, decoded.selection.values
    raw, made = memoryview(data)[end:], ArrayRecord()
    for (at, part, own), kind in zip(own_positions(positions, form), decoded.values, strict=True):
        made[part.name] = held[part.name]
        if not own.size:
            continue
        if kind == _RAW:
            new, raw = raw[: own.size * part.element.itemsize], raw[own.size * part.element.itemsize :]
        elif kind == _VALUES.get(part.element.str):
            new = memoryview(values[at].astype(part.element).tobytes())
        else:
            raise PayloadError(f"changes of tensor {part.name!r} are of type {kind}, not as joulewise writes them")
        made[part.name] = _replaced(held[part.name], part, own, new)
    if raw:
        raise PayloadError(f"changes end in {len(raw)} bytes that belong to no tensor")
    return made, positions


def _replaced(array: Array, part: Part, places: npt.NDArray[np.int64], new: memoryview) -> Array:
    """A copy of an array with the bits `new` at some places."""
    if len(new) != places.size * part.element.itemsize:
        raise PayloadError(f"changes of tensor {part.name!r} are cut off")
    data = np.frombuffer(array.data, np.uint8).copy()
    elements = data[len(part.header) :].reshape(part.size, part.element.itemsize)
    elements[places] = np.frombuffer(new, np.uint8).reshape(places.size, part.element.itemsize)
    return Array(dtype=array.dtype, shape=array.shape, stype=array.stype, data=data.tobytes())


def pack_record(record: ArrayRecord) -> dict[str, npt.NDArray[Any]]:
    """A model as named arrays that hold its exact bytes."""
    described = [(name, array.dtype, list(array.shape), array.stype) for name, array in record.items()]
    packed: dict[str, npt.NDArray[Any]] = {
        f"{place:09d}": np.frombuffer(array.data, np.uint8) for place, array in enumerate(record.values())
    }
    return packed | {"names": np.frombuffer(_json.encode(described), np.uint8)}


def unpack_record(packed: Mapping[str, npt.NDArray[Any]]) -> ArrayRecord:
    """The inverse of `pack_record`.

    Raises:
        ValueError: it is not as `pack_record` made it.
        KeyError: an array is missing.
    """
    record = ArrayRecord()
    for place, (name, dtype, shape, stype) in enumerate(_described.decode(packed["names"].tobytes())):
        data = packed[f"{place:09d}"].tobytes()
        record[name] = Array(dtype=dtype, shape=tuple(shape), stype=stype, data=data)
    return record


_json = msgspec.json.Encoder()
_described = msgspec.json.Decoder(list[tuple[str, str, list[int], str]])


@lru_cache(maxsize=64)
def layout_of(form: Form) -> Layout:
    """All elements of a model one after another, whatever their type: what positions count in."""
    return Layout(tuple(Tensor(part.name, (part.size,), "vector", part.element.str) for part in form))


def union(changed: Sequence[Positions]) -> Positions:
    """All positions, ascending, each once."""
    if len(changed) == 1:
        return changed[0]
    return np.unique(np.concatenate([np.empty(0, np.uint32), *changed]))


def own_positions(positions: Positions, form: Form) -> list[tuple[slice, Part, npt.NDArray[np.int64]]]:
    """For each array the slice of `positions` that lies in it, and these positions from its start."""
    layout = layout_of(form)
    edges = np.searchsorted(positions, layout.offsets.astype(np.uint32)).tolist()
    starts = layout.offsets.tolist()
    return [
        (slice(first, last), part, positions[first:last].astype(np.int64) - start)
        for part, first, last, start in zip(form, edges[:-1], edges[1:], starts[:-1], strict=True)
    ]


def _part_of(name: str, array: Array) -> Part | None:
    header = wire.header_of(array)
    if header is None:
        return None
    element, shape, _ = wire.read_header(header)
    size = math.prod(shape)
    if element.hasobject or not element.itemsize or len(array.data) != len(header) + size * element.itemsize:
        return None
    return Part(name, array.dtype, tuple(array.shape), header, size)


def _bits(data: bytes, part: Part) -> npt.NDArray[Any]:
    """The elements as numbers of the same width, or as rows of bytes where there are no such numbers."""
    width = part.element.itemsize
    if width in {1, 2, 4, 8}:
        return np.frombuffer(data, f"<u{width}", offset=len(part.header))
    return np.frombuffer(data, np.uint8, offset=len(part.header)).reshape(part.size, width)
