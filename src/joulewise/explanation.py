"""What `explain` finds, as records that go to JSON and back."""

from __future__ import annotations

from typing import Literal

import msgspec

from joulewise.airtime import Upload
from joulewise.changes import Change
from joulewise.devices import Unit
from joulewise.expectation import Kept
from joulewise.layout import Kind
from joulewise.ledger import Charge
from joulewise.saving import Prediction
from joulewise.spread import Spread
from joulewise.verdict import Verdict

Law = Literal["laplace", "update"]
"""What magnitudes were taken from: one Laplace law for all tensors, or a recorded update."""


class PriceShare(msgspec.Struct, frozen=True):
    """How many parameters cost `price` each; `share` is of all parameters of the model."""

    price: float
    parameters: int
    share: float


class Part(msgspec.Struct, frozen=True):
    """The tensors of one kind, or all of them.

    Args:
        kind: of the tensors, or ``total``.
        tensors: how many.
        parameters: in these tensors.
        share: of all parameters.
        kept: how many of them TopK keeps.
        energy: what keeping those costs.
        mean_price: of keeping one coordinate, over all parameters of the part.
        terms: what the mean price is made of, by name.
        kept_terms: what the energy is made of, by name.
        prices: how many parameters cost what, the cheapest first.
    """

    kind: Kind | Literal["total"]
    tensors: int
    parameters: int
    share: float
    kept: float
    energy: float
    mean_price: float
    terms: dict[str, float]
    kept_terms: dict[str, float]
    prices: tuple[PriceShare, ...]


class DenseUpload(msgspec.Struct, frozen=True):
    """Sending every value, without positions, framing or buffers.

    Args:
        bits: value bits of all parameters.
        marginal_j: what those bits add on the link.
        with_base_power_j: with the device's base power while they are sent; None where it is not known.
    """

    bits: float
    marginal_j: float
    with_base_power_j: float | None


class Explanation(msgspec.Struct, frozen=True, kw_only=True):
    """Where the joules go, and what follows.

    Args:
        device: its name.
        unit: of every energy here, ``J`` or ``relative``.
        boundary: what prices take in.
        density: share of all coordinates that TopK keeps.
        law: what magnitudes were taken from.
        parameters: in the flat vector; tensors that are never sent are not among them.
        never_sent: parameters of tensors that stay on the client.
        kinds: one part per kind of tensor.
        total: all of them.
        contrast: largest price over smallest.
        price_ratio: price at the 95 % point over that at the 5 % point, of the coordinates that TopK keeps.
        spread: the prices behind both, and the parameters outside of these points.
        fixed: energy once per reply, whatever is kept.
        dense: sending everything; None where the device has no link.
        upload: sending what TopK keeps, and tensors that travel whole; None where no link is priced.
        upload_dense: the same when everything is sent.
        misfits: what of the model does not fit the memory in which it is said to lie.
        round: charges of one round in which TopK keeps `density`; bytes of its terms as priced.
        addressable: share of that round that the choice of coordinates touches; None without joules.
        addressable_dense: the same of a round in which everything is kept: no mask saves more.
        topk: what TopK keeps.
        predictions: what each rule saves over TopK.
        verdict: what follows, and why.
        changes: what would give another verdict.
        notes: what a reader of the figures should know.
    """

    device: str
    unit: Unit
    boundary: str
    density: float
    law: Law
    parameters: int
    never_sent: int
    kinds: tuple[Part, ...]
    total: Part
    contrast: float
    price_ratio: float
    spread: Spread
    fixed: float
    dense: DenseUpload | None
    upload: Upload | None
    upload_dense: Upload | None
    misfits: tuple[str, ...]
    round: tuple[Charge, ...]
    addressable: float | None
    addressable_dense: float | None
    topk: Kept
    predictions: tuple[Prediction, ...]
    verdict: Verdict
    changes: tuple[Change, ...]
    notes: tuple[str, ...]
