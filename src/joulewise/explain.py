"""Where the joules of an update go on a device, and whether it is worth weighing coordinates by price there."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Any, Literal

import numpy as np

from joulewise.costs import SEND_TERMS, Costs
from joulewise.devices import Device, describe
from joulewise.errors import CostError, UpdateError
from joulewise.explanation import DenseUpload, Explanation, Part, PriceShare
from joulewise.layout import Kind, Layout, Tensor, Vector
from joulewise.ledger import Charge, addressable, round_charges, total
from joulewise.persistence import rewriting
from joulewise.prices import Boundary, price
from joulewise.ranking import first_not_finite
from joulewise.rules import CWMP, Density, Projection, TopK
from joulewise.saving import Laplace, Recorded, Weighed, price_ratio
from joulewise.select import checked_vector, not_finite, select
from joulewise.tensorwise import Floats, PerTensor, bits_of
from joulewise.verdict import changes, judge

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
    charges = _round(source, device, multiply_accumulates)
    everything = _round(Laplace(pricing.at(1.0), 1.0), device, multiply_accumulates)
    ratio = price_ratio(costs.per_kept, source.topk_counts)
    priced_share = topk.energy / total(charges) if costs.unit == "J" else None
    return Explanation(
        device=device.name,
        unit=costs.unit,
        boundary=costs.boundary,
        density=density,
        law="laplace" if isinstance(source, Laplace) else "update",
        parameters=layout.n,
        never_sent=sum(tensor.size for tensor in layout.locals),
        kinds=tuple(_parts(costs, source.topk_counts)),
        total=_part("total", np.ones(len(layout.tensors), dtype=bool), costs, source.topk_counts),
        contrast=costs.contrast,
        price_ratio=ratio,
        fixed=costs.fixed,
        dense=_dense(layout, device, pricing.bits),
        round=charges,
        addressable=_addressable(charges),
        addressable_dense=_addressable(everything),
        topk=topk,
        predictions=predictions,
        verdict=judge(predictions, topk, ratio, priced_share),
        changes=changes(costs, device, density, pricing.bits),
        notes=tuple(_notes(costs, device, charges)),
    )


def _check(layout: Layout, device: Device, density: float, boundary: Boundary) -> None:
    if boundary == "memory" and device.memory is None and device.unit == "J":
        raise CostError(f"boundary is 'memory', but device {device.name!r} has no [memory]; give 'radio' or 'device'")
    if not 0 < density <= 1:
        raise CostError(f"density is {density}, expected a share above 0 and at most 1")
    if not layout.n:
        raise CostError("the model has no float parameters to send, so there is nothing to price; check its tensors")
    if Density(density).count(layout.n) < 1:
        raise CostError(f"density {density} of {layout.n} parameters keeps nothing; take at least {1 / layout.n:.2g}")


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


# ---------------------------------------------------------------- parts


def _parts(costs: Costs, counts: Floats) -> Iterator[Part]:
    kinds = [tensor.kind for tensor in costs.layout.tensors]
    for kind in dict.fromkeys(kinds):
        yield _part(kind, np.array([each == kind for each in kinds]), costs, counts)


def _part(kind: Kind | Literal["total"], chosen: Any, costs: Costs, counts: Floats) -> Part:
    sizes, prices = costs.layout.sizes[chosen], costs.per_kept[chosen]
    size = int(sizes.sum())
    return Part(
        kind,
        int(np.count_nonzero(chosen)),
        size,
        size / costs.layout.n,
        float(counts[chosen].sum()),
        float(counts[chosen] @ prices),
        float(sizes @ prices) / max(size, 1),
        {term.name: float(sizes @ term.per_kept[chosen]) / max(size, 1) for term in costs.terms},
        {term.name: float(counts[chosen] @ term.per_kept[chosen]) for term in costs.terms},
        tuple(_price_shares(prices, sizes, costs.layout.n)),
    )


def _price_shares(prices: Floats, sizes: Any, n: int) -> Iterator[PriceShare]:
    pairs = sorted(zip(prices.tolist(), sizes.tolist(), strict=True))
    for value, group in groupby(pairs, key=lambda pair: pair[0]):
        count = sum(size for _, size in group)
        yield PriceShare(value, count, count / n)


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
    costs, counts = source.costs, source.topk_counts
    if costs.unit != "J":
        return (Charge("kept", source.topk.energy, costs.unit, "modelled"),)
    whole, model = _bytes_of(costs.layout.wholes), _bytes_of((*costs.layout.tensors, *costs.layout.wholes))
    kept = dict.fromkeys(("kept", *(term.name for term in costs.terms if term.name not in SEND_TERMS)), 0.0)
    for term in costs.terms:
        kept["kept" if term.name in SEND_TERMS else term.name] += float(counts @ term.per_kept)
    if costs.blocks:
        kept["blocks"] = source.topk_blocks
    reply = (
        *(Charge(name, energy, "J", "modelled") for name, energy in kept.items()),
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


def _bytes_of(tensors: Sequence[Tensor]) -> int:
    # NumPy does not know bfloat16, which has two bytes.
    return sum(t.size * (2 if t.dtype == "bfloat16" else np.dtype(t.dtype).itemsize) for t in tensors)


def _notes(costs: Costs, device: Device, charges: Sequence[Charge]) -> Iterator[str]:
    assumed = [entry.path for entry in (costs.origins or describe(device)) if entry.kind == "assumed"]
    if assumed:
        yield f"assumed, not measured: {', '.join(assumed)}"
    if costs.unit == "relative":
        yield "relative prices: they compare tensors and are no joules"
        return
    terms = {charge.term: charge.energy for charge in charges}
    missing = ["training"] if "training" not in terms else []
    missing += ["receiving the model"] if "downlink" not in terms else []
    missing += ["writing it to memory"] if "memory_update" not in terms else []
    if missing:
        yield f"not in the round, so that the addressable share is an upper bound: {', '.join(missing)}"
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
