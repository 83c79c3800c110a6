"""What would change the verdict: other widths, links, homes of the weights, with the saving predicted then."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import msgspec
import numpy as np
import numpy.typing as npt

from joulewise.costs import Costs, sum_of
from joulewise.devices import Device
from joulewise.layout import Layout
from joulewise.residency import ELEMENT_BITS
from joulewise.saving import Laplace, Recorded, Weighed
from joulewise.tensorwise import Floats
from joulewise.verdict import Answer, answer_to, percent

NARROW_BITS = 8.0
CHEAPER_LINK = 0.1
RECEIVERS = 10
NAMED = 3


class Change(msgspec.Struct, frozen=True):
    """Something that would give another verdict.

    Args:
        what: in words, with the tensors that it is about.
        tensors: their names; none where it is about all of them, or about the clients.
        saving: largest predicted saving at equal energy then, from the same magnitudes; None where it was not
            computed.
        answer: of the verdict then; None as `saving`.
    """

    what: str
    tensors: tuple[str, ...] = ()
    saving: float | None = None
    answer: Answer | None = None


BETWEEN_CLIENTS = Change("clients on different links or batteries: give each its own budget in joules")


def changes(
    source: Laplace | Recorded, device: Device, value_bits: Floats, rules: Sequence[Weighed]
) -> tuple[Change, ...]:
    """What would give another verdict than `source` does, as far as the profile can price it.

    The largest tensors, up to half of the parameters, are changed, and the others stay as they are; or, where tensors
    differ in width or home, they are made alike. What is so already is not offered, nor what leaves the answer as it
    is.

    Args:
        source: magnitudes, and prices of the device.
        device: that was priced.
        value_bits: float64[tensors], bits of a value.
        rules: that weigh by price.
    """
    if source.costs.unit == "relative":
        return ()
    now = answer_to(max(source.saving(rule) for rule in rules))
    options = _Options(source.costs, device, value_bits, _largest_half(source.costs.layout))
    found = []
    for what, chosen, costs in options.all():
        saving = max(source.at(costs).saving(rule) for rule in rules)
        if answer_to(saving) != now:
            found.append(Change(what, _names(chosen, costs.layout), saving, answer_to(saving)))
    return (*found, BETWEEN_CLIENTS) if now != "matters" else tuple(found)


Option = tuple[str, npt.NDArray[np.bool_], Costs]
"""A change in words, the tensors that it is about, and prices after it."""


@dataclass(frozen=True, slots=True, eq=False)
class _Options:
    """Changes to the prices of a device, none of which is made already."""

    costs: Costs
    device: Device
    value_bits: Floats
    chosen: npt.NDArray[np.bool_]

    def all(self) -> Iterator[Option]:
        yield from self._widths()
        if not self.chosen.all():  # what changes for every tensor alike makes no prices differ
            yield from self._links()
        yield from self._homes()

    @property
    def _those(self) -> str:
        return _in_words(self.chosen, self.costs.layout)

    @property
    def _none(self) -> npt.NDArray[np.bool_]:
        return np.zeros_like(self.chosen)

    def _widths(self) -> Iterator[Option]:
        widest = float(self.value_bits.max())
        if (self.value_bits < widest).any():
            yield (
                f"{widest:g}-bit values in every tensor",
                self._none,
                self._at_width(np.full_like(self.costs.per_bit, widest)),
            )
        narrow = np.where(self.chosen, np.minimum(self.value_bits, NARROW_BITS), self.value_bits)
        if (narrow < self.value_bits).any() and not self.chosen.all():
            yield f"{NARROW_BITS:g}-bit values in {self._those}", self.chosen, self._at_width(narrow)

    def _at_width(self, values: Floats) -> Costs:
        """Prices with other widths: of the places' bits, of the link's, and of the send buffer's."""
        buffers = sum_of([term.per_kept for term in self.costs.terms if term.name == "send_buffer"], len(values))
        costs = self.costs.at_bits(self.costs.bits_per_kept - self.value_bits + values)
        return replace(costs, per_kept=costs.per_kept + buffers * (values / self.value_bits - 1.0))

    def _links(self) -> Iterator[Option]:
        per_bit, bits = self.costs.send_per_bit, self.costs.bits_per_kept
        if not per_bit.any():
            return
        words = f"{self._those} over a link that takes a tenth per bit"
        yield words, self.chosen, self._dearer((CHEAPER_LINK - 1.0) * per_bit * bits)
        if self.device.link is not None and self.device.link.down is not None:
            words = f"what is sent of {self._those} goes on to {RECEIVERS} clients, who pay for receiving it"
            yield words, self.chosen, self._dearer(RECEIVERS * self.device.link.down_per_bit * bits)

    def _homes(self) -> Iterator[Option]:
        rewritten = sum_of([term.per_kept for term in self.costs.terms if term.name == "persistence"], len(self.chosen))
        memory = self.device.memory
        if rewritten.all() and not self.chosen.all():
            yield f"{self._those} in RAM, the others in flash", self.chosen, self._dearer(-rewritten)
        elif rewritten.any() and not rewritten.all():
            for where, more in (("RAM", -rewritten), ("flash", rewritten.max() - rewritten)):
                yield f"every tensor in {where}", self._none, replace(self.costs, per_kept=self.costs.per_kept + more)
        elif memory is not None and memory.flash is not None and not rewritten.any() and not self.chosen.all():
            more = np.full_like(rewritten, ELEMENT_BITS * memory.flash.write.si)
            yield f"{self._those} in flash, the others in RAM", self.chosen, self._dearer(more)

    def _dearer(self, more: Floats) -> Costs:
        """Prices that are higher by `more` in the chosen tensors."""
        return replace(self.costs, per_kept=self.costs.per_kept + np.where(self.chosen, more, 0.0))


def _names(chosen: npt.NDArray[np.bool_], layout: Layout) -> tuple[str, ...]:
    return tuple(tensor.name for tensor, one in zip(layout.tensors, chosen, strict=True) if one)


def _in_words(chosen: npt.NDArray[np.bool_], layout: Layout) -> str:
    names = _names(chosen, layout)
    more = len(names) - NAMED
    listed = ", ".join(names[:NAMED]) + (f" and {more} more" if more > 0 else "")
    return f"{listed} ({percent(float(layout.sizes[chosen].sum()) / layout.n)} of the parameters)"


def _largest_half(layout: Layout) -> npt.NDArray[np.bool_]:
    """The largest tensors, together at most half of all parameters, or the largest one."""
    order = np.argsort(-layout.sizes, kind="stable")
    chosen = np.zeros(len(layout.tensors), dtype=bool)
    chosen[order] = np.cumsum(layout.sizes[order]) <= layout.n / 2
    chosen[order[:1]] = True
    return chosen
