"""``layout.json`` of a run: the tensors of its model, and what a kept coordinate of each costs on each device."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

import msgspec

from joulewise.devices import Unit
from joulewise.errors import OutputError
from joulewise.layout import Kind

FILE_NAME = "layout.json"


class TensorLine(msgspec.Struct, frozen=True):
    """A tensor that a client may send parts of: its name, its kind and how many coordinates it has."""

    name: str
    kind: Kind
    elements: int


class DevicePrices(msgspec.Struct, frozen=True, kw_only=True):
    """What keeping one coordinate costs on a device, tensor by tensor.

    Args:
        unit: of every energy here.
        boundary: what the prices take in, as in `joulewise.price`.
        value_bits: bits of an encoded value.
        density: share of each tensor's coordinates that positions are coded for.
        fixed: energy of a reply whatever is kept.
        per_kept: price of each tensor.
        terms: what the prices are made of, by name; they add up to `per_kept`.
    """

    unit: Unit
    boundary: str
    value_bits: int
    density: float
    fixed: float
    per_kept: tuple[float, ...]
    terms: dict[str, tuple[float, ...]]


class PriceList(msgspec.Struct, frozen=True, kw_only=True):
    """Tensors in the order of the rows' ``kept_by_tensor``, and their prices by device.

    Raises:
        ValueError: a device does not have a price for each tensor.
    """

    schema: Literal[1] = 1
    tensors: tuple[TensorLine, ...]
    devices: dict[str, DevicePrices]

    def __post_init__(self) -> None:
        for name, each in self.devices.items():
            if any(len(prices) != len(self.tensors) for prices in (each.per_kept, *each.terms.values())):
                raise ValueError(f"device {name} needs {len(self.tensors)} prices, one for each tensor")


def encoded(prices: PriceList) -> bytes:
    """The file's content."""
    return msgspec.json.format(msgspec.json.encode(prices), indent=2) + b"\n"


def read(folder: str | Path) -> PriceList | None:
    """What the ``layout.json`` in a folder says; None where there is none.

    Raises:
        OutputError: the file cannot be read, or is something else.

    Example:
        >>> import tempfile
        >>> prices = PriceList(tensors=(TensorLine("fc.weight", "linear", 40),), devices={})
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     _ = (Path(folder) / FILE_NAME).write_bytes(encoded(prices))
        ...     read(folder) == prices
        True
    """
    path = Path(folder) / FILE_NAME
    try:
        return msgspec.json.decode(path.read_bytes(), type=PriceList)
    except FileNotFoundError:
        return None
    except OSError as error:
        raise OutputError(f"cannot read {path}: {error.strerror or error}; mend that or delete it") from None
    except (msgspec.MsgspecError, ValueError) as error:
        raise OutputError(f"{path} is no list of tensors and prices: {error}; mend or delete it") from None
