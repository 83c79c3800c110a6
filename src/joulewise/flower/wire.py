"""What joulewise adds to Flower's messages, and how it is read back.

A reply's arrays become one array of bytes with a serialization type of its own, so that a server that cannot
decode it fails at once instead of averaging bytes. Beside it lies one record with the reply's number and its
result; `SparseGrid` takes both out before a strategy sees the reply.
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from io import BytesIO
from typing import Any, Literal, TypeVar

import msgspec
import numpy as np
import numpy.typing as npt
from flwr.app import Array, ArrayRecord, ConfigRecord, Message, MetricRecord, RecordDict

from joulewise.errors import PayloadError
from joulewise.layout import Kind, Layout
from joulewise.results import ClientResult

SERIALIZATION = "joulewise.v1"
ESTIMATE = "joulewise.v1.EF21"
"""Of a payload that is for an estimate: a server that does not know of it must not average it."""
PAYLOAD = "joulewise.payload"
RECORD = "joulewise"
LEGACY = "fitins.parameters"
"""Flower's key of the arrays in a train request of a legacy server."""

NAMES = ("device", "rule", "budget")
BYTES = ("said", "curve")
MOST_SAID_BYTES = 1024
MOST_LOCAL = 65_536
MOST_RESULT_BYTES = 1 << 22  # 16 for each tensor and a few thousand more: enough for 250,000 tensors.
CHUNK_BYTES = 5 * 1024 * 1024
"""Of which Flower makes one object; larger arrays are cut up."""
NUMPY = "numpy.ndarray"  # Flower's name of the serialization that `Array` does by itself: the npy format
NPY_1_0 = b"\x93NUMPY\x01\x00"

Shapes = tuple[tuple[str, str, tuple[int, ...]], ...]
"""Name, element type and shape of each array of a model, in its order."""

Record = TypeVar("Record", ArrayRecord, ConfigRecord, MetricRecord)

_result = msgspec.json.Decoder(ClientResult)


@dataclass(frozen=True, slots=True)
class Reply:
    """A compressed reply: its payload, its number, what it cost, and whether its client remembers what it kept.

    `local` are the names of the tensors that never leave the client; `device`, `rule` and `budget` are names. `said` is
    what the client says of the energy that it was allotted, and `curve` its energy-price curve; see `orders`.
    `momentum`: whether it remembers a velocity too. `asked`: whether the curve came before it, in a message of its own,
    which the server knows and no node says. `estimates`: whether the payload is for the server's estimate, see EF21.
    """

    payload: bytes
    sequence: int
    result: ClientResult
    feedback: bool = False
    local: tuple[str, ...] = ()
    device: str = ""
    rule: str = ""
    budget: str = ""
    said: bytes = b""
    curve: bytes = b""
    momentum: bool = False
    estimates: bool = False
    asked: bool = False

    @property
    def size(self) -> int:
        """Bytes of payload and curve."""
        return len(self.payload) + len(self.curve)


def is_train(message: Message) -> bool:
    """Whether a message asks for training, or answers such a message, and carries content."""
    return is_kind(message, "train")


def is_kind(message: Message, kind: str) -> bool:
    """Whether a message is about ``train``, ``evaluate`` or ``query``, whatever the action, and carries content."""
    return message.metadata.message_type.split(".")[0] == kind and message.has_content()


def only_arrays(content: RecordDict) -> ArrayRecord | None:
    """The one ArrayRecord of a message; None when there is none or more than one."""
    records = of_kind(content, ArrayRecord)
    return records[0] if len(records) == 1 else None


def of_kind(content: RecordDict, kind: type[Record]) -> list[Record]:
    """The records of one kind. Not `content.array_records` and its like, which copy and check all at each call."""
    return [record for record in content.values() if isinstance(record, kind)]


class Parsed(Array):
    """An Array whose ``numpy()`` does not parse the header anew: with small models nothing takes longer.

    It is for strategies and apps in this process; between processes Flower makes plain Arrays of it.
    """

    @classmethod
    def of(cls, array: Array) -> Parsed:
        """The same bytes, parsed once."""
        made = cls.__new__(cls)
        made.__dict__.update(array.__dict__)
        return made

    def numpy(self) -> npt.NDArray[Any]:
        """A new array, as from a plain Array."""
        return view(self).copy(order="K")

    def deflate(self) -> bytes:
        """As a plain Array, which is what the receiver knows."""
        return Array(dtype=self.dtype, shape=self.shape, stype=self.stype, data=self.data).deflate()


def array_key(content: RecordDict) -> str:
    """The key of the first ArrayRecord of a message that has one."""
    return next(key for key, record in content.items() if isinstance(record, ArrayRecord))


def to_numpy(record: ArrayRecord) -> dict[str, npt.NDArray[Any]]:
    """The arrays of a record by name; views of its bytes, so they cannot be written to."""
    return {name: view(array) for name, array in record.items()}


def types_of(record: ArrayRecord) -> dict[str, np.dtype[Any]]:
    """Element types by name, of the arrays that NumPy can read."""
    found = {}
    for name, array in record.items():
        with contextlib.suppress(PayloadError):
            found[name] = described(array)[0]
    return found


def layout_of(arrays: Mapping[str, npt.NDArray[Any]], kinds: Mapping[str, Kind]) -> Layout:
    """The layout of a model's arrays; the same few models come back in every message of a run."""
    return layout_like(shapes_of(arrays), kinds)


def shapes_of(arrays: Mapping[str, npt.NDArray[Any]]) -> Shapes:
    """Name, element type and shape of each array."""
    return tuple((name, array.dtype.str, array.shape) for name, array in arrays.items())


def layout_like(shapes: Shapes, kinds: Mapping[str, Kind]) -> Layout:
    """The layout of arrays of these names, types and shapes."""
    return _layout(shapes, tuple(kinds.items()))


def to_record(arrays: Mapping[str, npt.NDArray[Any]]) -> ArrayRecord:
    """Copies of arrays by name as a record."""
    record = ArrayRecord()
    for name, array in arrays.items():
        record[name] = packed(np.asarray(array))
    return record


def parsed(record: ArrayRecord) -> ArrayRecord:
    """The same arrays, quick to turn into NumPy's."""
    quick = ArrayRecord()
    for name, array in record.items():
        quick[name] = Parsed.of(array)
    return quick


def size_of(record: ArrayRecord) -> int:
    """Bytes of the arrays of a record, as Flower sends them."""
    return sum(len(array.data) for array in record.values())


def crossing(content: RecordDict) -> tuple[int, int]:
    """Bytes of all arrays of a message and of a curve, and the objects that Flower makes of it and moves one by one."""
    sizes = [len(array.data) for record in of_kind(content, ArrayRecord) for array in record.values()]
    chunks = sum(-(-size // CHUNK_BYTES) for size in sizes)
    note = content.get(RECORD)
    curve = len(told(note.get("curve"))) if isinstance(note, ConfigRecord) else 0
    return sum(sizes) + curve, 2 + len(content) + len(sizes) + chunks


def described(array: Array) -> tuple[np.dtype[Any], tuple[int, ...]]:
    """Element type and shape of an array, from its own bytes: legacy apps leave those of the message empty.

    Raises:
        PayloadError: these bytes are not one whole array in the format of NumPy, without Python objects.
    """
    header = header_of(array)
    if header is None:
        raise PayloadError(f"it is not in NumPy's format 1.0, but of serialization type {array.stype!r:.40}")
    try:
        dtype, shape, _ = read_header(header)
    except Exception as error:  # Whatever a forged header leads NumPy to.
        raise PayloadError(f"its header is no header of NumPy ({type(error).__name__})") from None
    size = math.prod(shape) * dtype.itemsize
    if dtype.hasobject or len(array.data) != len(header) + size or any(length < 0 for length in shape):
        raise PayloadError(f"its header says {dtype} in shape {shape}, but {len(array.data)} bytes came")
    return dtype, shape


def header_of(array: Array) -> bytes | None:
    """What lies before the elements in an array's bytes; None where they are not in the npy format 1.0."""
    data = array.data
    if array.stype != NUMPY or not data.startswith(NPY_1_0):
        return None
    return data[: 10 + int.from_bytes(data[8:10], "little")]


def view(array: Array) -> npt.NDArray[Any]:
    """The array, as a view of its bytes, so that it cannot be written to."""
    data, header = array.data, header_of(array)
    if header is None:
        return Array.numpy(array)
    dtype, shape, order = read_header(header)
    if dtype.hasobject:
        return Array.numpy(array)  # Refuses it.
    return np.frombuffer(data, dtype, offset=len(header)).reshape(shape, order=order)


def packed(array: npt.NDArray[Any]) -> Array:
    """A copy of an array as Flower's."""
    if array.dtype.hasobject or not array.flags.c_contiguous:
        return Array(array)
    data = _write_header(array.dtype, array.shape) + array.tobytes()
    return Array(dtype=name_of(array.dtype), shape=array.shape, stype=NUMPY, data=data)


# The same few headers come back in every message of a run.


@lru_cache(maxsize=64)
def _layout(shapes: Shapes, kinds: tuple[tuple[str, Kind], ...]) -> Layout:
    # Of an array that takes no memory: a layout reads types and shapes alone.
    return Layout.of({name: np.broadcast_to(np.zeros((), dtype), shape) for name, dtype, shape in shapes}, dict(kinds))


@lru_cache(maxsize=4096)
def read_header(header: bytes) -> tuple[np.dtype[Any], tuple[int, ...], Literal["C", "F"]]:
    """Element type, shape and order of the elements after a header of the npy format 1.0."""
    stream = BytesIO(header)
    np.lib.format.read_magic(stream)
    shape, fortran, dtype = np.lib.format.read_array_header_1_0(stream)
    return dtype, shape, "F" if fortran else "C"


@lru_cache(maxsize=4096)
def _write_header(dtype: np.dtype[Any], shape: tuple[int, ...]) -> bytes:
    stream = BytesIO()
    description = {"descr": np.lib.format.dtype_to_descr(dtype), "fortran_order": False, "shape": shape}
    np.lib.format.write_array_header_1_0(stream, description)
    return stream.getvalue()


@lru_cache(maxsize=64)  # NumPy puts it together anew each time.
def name_of(dtype: np.dtype[Any]) -> str:
    """Flower's name of an element type."""
    return str(dtype)


def write(content: RecordDict, reply: Reply) -> None:
    """Replace the arrays of a reply by its payload."""
    key = array_key(content)
    form = ESTIMATE if reply.estimates else SERIALIZATION
    packed = Array(dtype="uint8", shape=(len(reply.payload),), stype=form, data=reply.payload)
    content[key] = ArrayRecord({PAYLOAD: packed})
    result = msgspec.json.encode(reply.result)
    note = ConfigRecord({"sequence": reply.sequence, "result": result, "feedback": reply.feedback})
    # Not empty text, which Flower's message_size_mod cannot count.
    note.update({key: getattr(reply, key) for key in (*NAMES, *BYTES) if getattr(reply, key)})
    if reply.momentum:
        note["momentum"] = True
    if reply.local:
        note["local"] = list(reply.local)
    content[RECORD] = note


def one_line(text: str, most: int = 200) -> str:
    r"""What a node says, for logs and rows: one line that is not long.

    Example:
        >>> one_line("no\n room", most=5)
        'no r'
    """
    return "".join(sign for sign in text[:most] if sign.isprintable())


def name(value: object) -> str:
    """A name that a node says; empty for anything else."""
    return one_line(value, 80) if isinstance(value, str) else ""


def told(value: object) -> bytes:
    """Bytes that a node says; empty for anything else, or too many."""
    return value if isinstance(value, bytes) and len(value) <= MOST_SAID_BYTES else b""


def local_names(note: Mapping[str, object]) -> tuple[str, ...]:
    """The tensors that a node says stay with it.

    Raises:
        PayloadError: they are no list of names.
    """
    local = note.get("local", [])
    if not isinstance(local, list) or len(local) > MOST_LOCAL or not all(isinstance(name, str) for name in local):
        raise PayloadError(f"reply names its local tensors in another way than a list of at most {MOST_LOCAL} names")
    return tuple(str(name) for name in local)


def read(content: RecordDict) -> Reply | None:
    """What `write` put into a reply; None when the sender did not compress.

    Raises:
        PayloadError: the reply's record is not as joulewise writes it.
    """
    record = only_arrays(content)
    if record is None or PAYLOAD not in record:
        return None
    packed, note = record[PAYLOAD], content.get(RECORD)
    if packed.stype not in {SERIALIZATION, ESTIMATE}:
        raise PayloadError(
            f"reply has serialization type {packed.stype!r:.60}, but this server reads {SERIALIZATION!r}"
        )
    known = note if isinstance(note, ConfigRecord) else {}
    sequence, result = known.get("sequence"), known.get("result")
    if type(sequence) is not int or not isinstance(result, bytes):
        raise PayloadError("reply has a payload, but not the record with its number and result")
    if len(result) > MOST_RESULT_BYTES:
        raise PayloadError(f"reply's result has {len(result)} bytes, but none has more than {MOST_RESULT_BYTES}")
    names = local_names(known)
    try:
        feedback, momentum = (known.get(key) is True for key in ("feedback", "momentum"))
        estimates = packed.stype == ESTIMATE
        device, rule, budget = (name(known.get(key)) for key in NAMES)
        said, curve = (told(known.get(key)) for key in BYTES)
        others = device, rule, budget, said, curve, momentum, estimates
        return Reply(packed.data, sequence, _result.decode(result), feedback or estimates, names, *others)
    except (msgspec.MsgspecError, RecursionError) as error:  # The latter where it is nested without end.
        raise PayloadError(f"reply's result is not as joulewise writes it: {error}") from None
