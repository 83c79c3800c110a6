"""Arrays of a compressed reply that are made dense when a strategy asks for them, one tensor at a time."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from flwr.app import Array, ArrayRecord

from joulewise.codec import Decoded
from joulewise.flower import wire
from joulewise.flower.estimate import Coming
from joulewise.layout import Kind, Layout, Vector


class Sum(Array):
    """An Array that holds what a client kept of one tensor; what the client had been sent is added in ``numpy()``.

    Flower's strategies ask for one array of one reply after another, so that a server holds one dense tensor at
    a time instead of a dense model for each client. It is for strategies in this process; between processes
    Flower makes plain Arrays of it, as of every other.
    """

    @classmethod
    def of(cls, base: Vector, indices: npt.NDArray[np.uint32], values: Vector, like: npt.NDArray[Any]) -> Sum:
        """The sum of `base`, flat, and of `values` at `indices`, in shape and element type of the array `like`."""
        made = cls.__new__(cls)
        attributes = {"dtype": wire.name_of(like.dtype), "shape": like.shape, "stype": wire.NUMPY}
        made.__dict__.update(attributes, _base=base, _indices=indices, _values=values)
        return made

    def numpy(self) -> npt.NDArray[Any]:
        """A new array."""
        if "data" in self.__dict__:  # Somebody has put other bytes in their place.
            return wire.Parsed.of(self).numpy()
        return self._flat().reshape(self.shape).astype(self.dtype, copy=False)

    def _flat(self) -> npt.NDArray[Any]:
        dense: npt.NDArray[Any] = self._base.copy()
        dense[self._indices] += self._values
        return dense

    def deflate(self) -> bytes:
        """As a plain Array, which is what the receiver knows."""
        return Array(dtype=self.dtype, shape=self.shape, stype=self.stype, data=self.data).deflate()

    def __getattr__(self, name: str) -> Any:
        # Called for what is not there: `data`, which is made anew each time, because it is as large as the tensor.
        if name == "data" and "_base" in self.__dict__:
            return wire.packed(self.numpy()).data
        raise AttributeError(f"{type(self).__name__!r} object has no attribute {name!r}")


class Moved(Sum):
    """An Array that holds one tensor of the model moved by the mean of all estimates of EF21, whichever reply it is in.

    The mean is that of all replies of the round that have come by the time it is asked for.
    """

    @classmethod
    def by(cls, coming: Coming, base: Vector, first: int, like: npt.NDArray[Any]) -> Moved:
        """The tensor `base`, flat, whose first coordinate is `first`, in shape and element type of the array `like`."""
        made = cls.__new__(cls)
        attributes = {"dtype": wire.name_of(like.dtype), "shape": like.shape, "stype": wire.NUMPY}
        made.__dict__.update(attributes, _base=base, _coming=coming, _first=first)
        return made

    def _flat(self) -> npt.NDArray[Any]:
        moved: npt.NDArray[Any] = self._coming.moved(self._base, self._first, self._first + self._base.size)
        return moved


@dataclass(frozen=True, slots=True, eq=False)
class Base:
    """The model that clients were sent: what their replies are added to. All replies share it.

    Args:
        layout: of the model.
        arrays: its arrays by name.
        flat: its parameters, float32[n].
        record: its arrays as Flower's.
    """

    layout: Layout
    arrays: Mapping[str, npt.NDArray[Any]]
    flat: Vector
    record: ArrayRecord

    @classmethod
    def of(cls, record: ArrayRecord, kinds: Mapping[str, Kind]) -> Base:
        """Read the record of a request.

        Raises:
            LayoutError: its arrays are of types that joulewise does not know.
            PayloadError: one of them is no array of NumPy.
        """
        for array in record.values():
            wire.described(array)
        arrays = wire.to_numpy(record)
        layout = wire.layout_of(arrays, kinds)
        kept = {tensor.name: arrays[tensor.name] for tensor in (*layout.wholes, *layout.locals)}
        return cls(layout, arrays, layout.flatten(arrays), wire.to_record(kept))

    def plus(self, decoded: Decoded) -> ArrayRecord:
        """The arrays that the client has after adding what it sent, in the order of the model.

        A tensor of which more than half is kept is made dense here: it is smaller so.
        """
        indices, values = decoded.selection.indices, decoded.selection.values
        stops = np.cumsum(self.layout.counts(indices)).tolist()
        named: dict[str, Array] = {name: wire.packed(array) for name, array in decoded.whole.items()}
        start = 0
        for (tensor, first, last), stop in zip(self.layout.spans(), stops, strict=True):
            # Copies, so that the arrays of one reply do not keep each other's memory.
            own = indices[start:stop] - np.uint32(first), values[start:stop].copy()
            named[tensor.name] = Sum.of(self.flat[first:last], *own, self.arrays[tensor.name])
            if 2 * (stop - start) > last - first:
                named[tensor.name] = wire.packed(named[tensor.name].numpy())
            start = stop
        return self._assembled(named)

    def moved(self, coming: Coming, whole: Mapping[str, npt.NDArray[Any]]) -> ArrayRecord:
        """The arrays moved by the mean of all estimates, beside what a client sent whole, in the order of the model."""
        named: dict[str, Array] = {name: wire.packed(array) for name, array in whole.items()}
        for tensor, first, last in self.layout.spans():
            named[tensor.name] = Moved.by(coming, self.flat[first:last], first, self.arrays[tensor.name])
        return self._assembled(named)

    def _assembled(self, named: Mapping[str, Array]) -> ArrayRecord:
        added = ArrayRecord()
        for name in self.arrays:
            array = named[name] if name in named else self.record[name]
            added[name] = array if isinstance(array, Sum) else wire.Parsed.of(array)
        return added
