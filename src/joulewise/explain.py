"""Where the joules of an update go on a device, and whether it is worth weighing coordinates by price there."""

from __future__ import annotations

import math
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from joulewise.airtime import Upload, sentence, upload
from joulewise.capacity import misfits, stored_bytes
from joulewise.changes import changes
from joulewise.costs import SEND_TERMS, Costs
from joulewise.devices import Device, describe
from joulewise.errors import CostError, UpdateError
from joulewise.explanation import DenseUpload, Explanation
from joulewise.layout import Layout, Vector
from joulewise.ledger import Charge, addressable, round_charges, total
from joulewise.parts import part_of, parts_of
from joulewise.persistence import rewriting
from joulewise.prices import Boundary, price
from joulewise.ranking import first_not_finite
from joulewise.rules import CWMP, Density, Projection, TopK
from joulewise.saving import Laplace, Recorded, Weighed
from joulewise.select import checked_vector, not_finite, select
from joulewise.spread import spread
from joulewise.tensorwise import Floats, PerTensor, bits_of, match
from joulewise.verdict import judge

RULES: tuple[Weighed, ...] = (CWMP(), Projection())


def explain(  # noqa: PLR0913 (the parts of one question, by name)
    layout: Layout,
    device: Device,
    density: float = 0.01,
    value_bits: PerTensor = 32,
    update: Any = None,
    *,
    rules: Sequence[Weighed] = RULES,
    boundary: Boundary | None = None,
    in_ram: Sequence[str] = (),
    multiply_accumulates: float | None = None,
) -> Explanation:
    """Say where the joules of an update go, and what weighing by price would save.

    Prices are those of `price` at the density that TopK gives each tensor: the same for all under the typical
    law, each tensor's own with an `update`. The saving of a rule is ``1 - E / E_topk``: E is what the rule
    spends, E_topk what TopK spends to keep the same mass, in the norm that the rule maximises.

    Args:
        layout: the model's tensors.
        device: whose prices.
        density: share of all coordinates that is kept, above 0 and at most 1.
        value_bits: bits of an encoded value: one number, or numbers by tensor name or pattern.
        update: float32[n], one recorded update; without it every tensor's coordinates follow the same Laplace
            law.
        rules: which rules to hold against TopK.
        boundary: what prices take in, as in `price`; None: ``radio`` where the device has a link, else ``memory``.
        in_ram: tensors, by name or pattern, that stay in RAM on a device whose weights lie in flash.
        multiply_accumulates: of the local training in a round; without it training is not in the round.

    Raises:
        CostError: an argument is out of range, does not fit the layout, or keeps nothing.
        UpdateError: the update has another length, holds NaN or infinity, or is zero everywhere.

    Example:
        >>> from joulewise.devices import load_device
        >>> layout = Layout.of({"conv.weight": np.ones((8, 4, 3, 3)), "fc.weight": np.ones((10, 32))})
        >>> found = explain(layout, load_device("phone-lte-2021"), density=0.1)
        >>> found.contrast, found.verdict.answer
        (1.0, 'does not matter')
        >>> explain(layout, load_device("synthetic-kind-10"), density=0.1).verdict.answer
        'matters'
    """
    boundary = boundary or _usual_boundary(device)
    _check(layout, device, density, boundary)
    pricing = _Pricing(layout, device, bits_of("value_bits", value_bits, layout), boundary, tuple(in_ram))
    if update is None:
        source: Laplace | Recorded = Laplace(pricing.at(density), density)
    else:
        source = _recorded(checked_vector(update, layout, "update"), pricing, density)
    return _explanation(source, pricing, rules, density, multiply_accumulates)


@dataclass(frozen=True, slots=True, eq=False)
class _Pricing:
    """All that prices depend on but the density."""

    layout: Layout
    device: Device
    bits: Floats
    boundary: Boundary
    in_ram: tuple[str, ...]

    def at(self, density: PerTensor) -> Costs:
        return price(self.layout, self.device, self.bits, density, boundary=self.boundary, in_ram=self.in_ram)


def _explanation(
    source: Laplace | Recorded,
    pricing: _Pricing,
    rules: Sequence[Weighed],
    density: float,
    multiply_accumulates: float | None,
) -> Explanation:
    costs, device, layout, topk = source.costs, pricing.device, pricing.layout, source.topk
    predictions = tuple(source.predict(rule) for rule in rules)
    everything = Laplace(pricing.at(1.0), 1.0)
    charges, dense_charges = (_round(each, device, multiply_accumulates) for each in (source, everything))
    sent, dense_sent = (_upload(each, pricing) for each in (source, everything))
    prices = spread(costs, source.topk_counts)
    unfit = _misfits(pricing)
    cautions = (*unfit, *_long(sent))
    return Explanation(
        device=device.name,
        unit=costs.unit,
        boundary=costs.boundary,
        density=density,
        law="laplace" if isinstance(source, Laplace) else "update",
        parameters=layout.n,
        never_sent=sum(tensor.size for tensor in layout.locals),
        kinds=tuple(parts_of(costs, source.topk_counts)),
        total=part_of("total", np.ones(len(layout.tensors), dtype=bool), costs, source.topk_counts),
        contrast=costs.contrast,
        price_ratio=prices.ratio,
        spread=prices,
        fixed=costs.fixed,
        dense=_dense(layout, device, pricing.bits),
        upload=sent,
        upload_dense=dense_sent,
        misfits=unfit,
        round=charges,
        addressable=_addressable(charges),
        addressable_dense=_addressable(dense_charges),
        topk=topk,
        predictions=predictions,
        verdict=judge(predictions, topk, prices, topk.energy / total(charges) if costs.unit == "J" else None, cautions),
        changes=changes(source, device, pricing.bits, rules),
        notes=tuple(_notes(costs, device, charges, multiply_accumulates)),
    )


def _misfits(pricing: _Pricing) -> tuple[str, ...]:
    layout, memory = pricing.layout, pricing.device.memory
    if memory is None:
        return ()
    close = match("in_ram", dict.fromkeys(pricing.in_ram, True), layout)
    return misfits(layout, memory, [tensor.name for tensor, one in zip(layout.tensors, close, strict=True) if one])


def _long(sent: Upload | None) -> tuple[str, ...]:
    if sent is None or not sent.is_long:
        return ()
    return (sentence(sent, "one upload of what TopK keeps"),)


def _check(layout: Layout, device: Device, density: float, boundary: Boundary) -> None:
    if boundary == "memory" and device.memory is None and device.unit == "J":
        raise CostError(f"boundary is 'memory', but device {device.name!r} has no [memory]; give 'radio' or 'device'")
    if boundary != "memory" and device.link is None and device.unit == "J":
        raise CostError(f"boundary is {boundary!r}, but device {device.name!r} has no [link]; give 'memory'")
    if not 0 < density <= 1:
        raise CostError(f"density is {density}, expected a share above 0 and at most 1")
    if not layout.n:
        raise CostError("the model has no float parameters to send, so there is nothing to price; check its tensors")
    if Density(density).count(layout.n) < 1:
        enough = f"{_enough(layout.n):g}"
        raise CostError(f"density {density} of {layout.n} parameters keeps nothing; take at least {enough}")


def _enough(n: int) -> float:
    """A share with two digits of which at least one coordinate of n is left."""
    digits = 1 - math.floor(math.log10(1 / n))
    return math.ceil(10.0**digits / n) / 10.0**digits


def _usual_boundary(device: Device) -> Boundary:
    return "memory" if device.link is None and device.unit == "J" else "radio"


def _recorded(update: Vector, pricing: _Pricing, density: float) -> Recorded:
    layout = pricing.layout
    bad = first_not_finite(update)
    if bad is not None:
        raise not_finite(bad, layout)
    if not update.any():
        raise UpdateError("the update is zero everywhere, so there is nothing to select; record one after training")
    flat = Costs.of(1.0, layout, unit="relative")
    counts = layout.counts(select(update, flat, TopK(), Density(density)).indices)
    # Half a coordinate where TopK keeps none: what the first one there would cost.
    own = np.maximum(counts, 0.5) / np.maximum(layout.sizes, 1)
    return Recorded(pricing.at(own), update, Density(density).count(layout.n))


# ---------------------------------------------------------------- the round around it


def _dense(layout: Layout, device: Device, bits: Floats) -> DenseUpload | None:
    if device.link is None:
        return None
    link, values = device.link, float(layout.sizes @ bits)
    marginal = values * link.up.marginal.si
    base = None if link.base_per_bit is None else marginal + values * link.base_per_bit
    return DenseUpload(values, marginal, base)


def _round(source: Laplace | Recorded, device: Device, multiply_accumulates: float | None) -> tuple[Charge, ...]:
    """What the client pays for in a round in which TopK keeps its share, as far as the profile prices it."""
    costs, counts, sent = source.costs, source.topk_counts, _kept_bytes(source)
    if costs.unit != "J":
        return (Charge("kept", source.topk.energy, costs.unit, "modelled", sent),)
    whole, model = stored_bytes(costs.layout.wholes), stored_bytes((*costs.layout.tensors, *costs.layout.wholes))
    kept = dict.fromkeys(("kept", *(term.name for term in costs.terms if term.name not in SEND_TERMS)), 0.0)
    for term in costs.terms:
        kept["kept" if term.name in SEND_TERMS else term.name] += float(counts @ term.per_kept)
    if costs.blocks:
        kept["blocks"] = source.topk_blocks
    reply = (
        *(Charge(name, energy, "J", "modelled", sent if name == "kept" else 0) for name, energy in kept.items()),
        Charge("whole", whole * 8 * float(costs.send_per_bit.max(initial=0.0)), "J", "modelled", whole),
        Charge("fixed", costs.fixed_for(counts), "J", "modelled"),
    )
    # Of the model that arrives, the reply has paid for the pages of what it keeps.
    paid = kept.get("persistence", 0.0) + kept.get("blocks", 0.0)
    within: Boundary = "memory" if costs.boundary == "memory" else "device" if costs.boundary == "device" else "radio"
    return round_charges(
        reply,
        costs.layout,
        device,
        bytes_down=model,
        multiply_accumulates=multiply_accumulates,
        boundary=within,
        rewritten=max(0.0, rewriting(costs) - paid),
    )


def _addressable(charges: Sequence[Charge]) -> float | None:
    return addressable(charges) if charges[0].unit == "J" else None


def _upload(source: Laplace | Recorded, pricing: _Pricing) -> Upload | None:
    if pricing.device.link is None or pricing.boundary == "memory":
        return None
    return upload(pricing.device.link, _kept_bytes(source) + stored_bytes(pricing.layout.wholes))


def _kept_bytes(source: Laplace | Recorded) -> int:
    """Bytes of what TopK keeps, at the bits that are priced."""
    return round(float(source.topk_counts @ source.costs.bits_per_kept) / 8)


def _notes(
    costs: Costs, device: Device, charges: Sequence[Charge], multiply_accumulates: float | None
) -> Iterator[str]:
    assumed = [entry.path for entry in (costs.origins or describe(device)) if entry.kind == "assumed"]
    if assumed:
        yield f"assumed, not measured: {', '.join(assumed)}"
    terms = {charge.term: charge.energy for charge in charges}
    if multiply_accumulates is not None and "training" not in terms:
        why = f"device {device.name!r} does not price one (compute.training); add that number to a file of your own"
        why = "relative prices have no round" if costs.unit == "relative" else why
        yield f"the {multiply_accumulates:g} multiply-accumulates of training are not charged: {why}"
    if costs.unit == "relative":
        yield "relative prices: they compare tensors and are no joules"
        return
    yield from _incomplete(terms)
    if "flash_update" in terms:
        yield (
            "the model that arrives is written to flash whole, whatever is kept: of that, "
            f"{terms['flash_update']:.3g} J are in the round and the rest in what the kept coordinates pay; "
            "only a server that sends nothing but what changed would let a mask save it"
        )
    if terms.get("blocks", 0.0) > terms["kept"]:
        yield (
            "whole pages or lines take most of what a mask costs, and a rule that ranks single coordinates does not "
            "see them: keep whole blocks, or keep the weights elsewhere between rounds"
        )


def _incomplete(terms: Collection[str]) -> Iterator[str]:
    names = {"training": "training", "downlink": "receiving the model", "memory_update": "writing it to memory"}
    missing = [words for term, words in names.items() if term not in terms]
    if missing:
        yield f"not in the round, so that the addressable share is an upper bound: {', '.join(missing)}"
