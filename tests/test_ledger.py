"""Charges: what a message costs, term by term, and what must not be added up."""

import math

import msgspec
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from joulewise.codec import Encoded, encode_detailed
from joulewise.costs import Costs
from joulewise.devices import load_device
from joulewise.errors import CostError
from joulewise.layout import Layout, Tensor
from joulewise.ledger import Charge, downlink_charge, header_energy, mask_energy, total, uplink_charges
from joulewise.prices import price
from joulewise.quantities import EnergyPerBit
from joulewise.select import Selection

PHONE = load_device("phone-lte-2021")
LAYOUT = Layout(
    (
        Tensor("conv.weight", (4, 1, 3, 3), "conv", "float32"),
        Tensor("fc.weight", (5, 6), "linear", "float32"),
        Tensor("fc.bias", (5,), "vector", "float32"),
    ),
    wholes=(Tensor("norm.running_mean", (8,), "buffer", "float32"),),
)
WHOLE = {"norm.running_mean": np.arange(8, dtype=np.float32)}


def selection_of(indices) -> Selection:
    kept = np.array(sorted(indices), np.uint32)
    return Selection(LAYOUT.n, kept, (kept + 1).astype(np.float32))


subsets = st.sets(st.integers(0, LAYOUT.n - 1)).map(selection_of)
wholes = st.sampled_from([None, WHOLE])
device_names = st.sampled_from(["phone-lte-2021", "synthetic-kind-10", "synthetic-residency-32"])
boundaries = st.sampled_from(["radio", "device", "memory"])


def by_term(charges: tuple[Charge, ...]) -> dict[str, Charge]:
    return {charge.term: charge for charge in charges}


@given(subsets, wholes, device_names, boundaries)
def test_the_bytes_of_the_charges_are_the_bytes_of_the_payload(kept, whole, name, boundary):
    encoded = encode_detailed(kept, LAYOUT, whole=whole)
    costs = price(LAYOUT, load_device(name), boundary=boundary)
    charges = uplink_charges(encoded, kept, costs)
    assert sum(charge.bytes for charge in charges) == len(encoded.payload)
    assert all(charge.bytes >= 0 and charge.energy >= 0 for charge in charges)
    assert {(charge.unit, charge.basis) for charge in charges} == {(costs.unit, "modelled")}


@given(subsets, wholes, boundaries)
def test_with_one_link_a_message_costs_its_bits_its_send_buffer_and_what_is_fixed(kept, whole, boundary):
    encoded = encode_detailed(kept, LAYOUT, whole=whole)
    costs = price(LAYOUT, PHONE, value_bits=32, boundary=boundary)
    per_bit = {"radio": 76.7e-9, "device": 76.7e-9 + 2.93 / 15e6, "memory": 0.0}[boundary]
    bits, buffered = 8 * len(encoded.payload), 32 * len(kept.indices)
    fixed = 0.0 if boundary == "memory" else 12.76
    expected = bits * per_bit + buffered * 16e-12 + fixed
    assert total(uplink_charges(encoded, kept, costs)) == pytest.approx(expected, rel=1e-12)


@given(subsets, wholes, device_names, boundaries)
def test_what_the_mask_adds_is_header_and_kept(kept, whole, name, boundary):
    encoded = encode_detailed(kept, LAYOUT, whole=whole)
    costs = price(LAYOUT, load_device(name), boundary=boundary)
    charges = by_term(uplink_charges(encoded, kept, costs))
    # Where nothing is kept the header is there for the buffers, and is charged with them.
    assert charges["header"].energy == (header_energy(encoded, costs) if kept.indices.size else 0.0)
    expected = charges["header"].energy + charges["kept"].energy
    assert mask_energy(encoded, kept, costs) == pytest.approx(expected, rel=1e-15, abs=0)


@given(subsets, st.integers(0, 2**32 - 1))
def test_relative_prices_are_summed_over_what_is_kept(kept, seed):
    encoded = encode_detailed(kept, LAYOUT)
    each = np.random.default_rng(seed).uniform(1, 10, LAYOUT.n)
    costs = Costs.of(each, LAYOUT, unit="relative")
    assert mask_energy(encoded, kept, costs) == pytest.approx(math.fsum(each[kept.indices]), rel=1e-15)


@given(subsets, device_names)
def test_one_price_per_tensor_and_the_same_price_per_coordinate_charge_the_same(kept, name):
    costs = price(LAYOUT, load_device(name), boundary="memory")
    each = Costs.of(np.repeat(costs.per_kept, LAYOUT.sizes), LAYOUT, unit=costs.unit)
    encoded = encode_detailed(kept, LAYOUT)
    expected = mask_energy(encoded, kept, costs)
    assert mask_energy(encoded, kept, each) == pytest.approx(expected, rel=1e-14)


def test_an_empty_payload_is_still_a_reply_and_costs_what_is_fixed():
    kept = selection_of([])
    encoded = encode_detailed(kept, LAYOUT)
    costs = price(LAYOUT, PHONE)
    assert encoded.payload == b""
    charges = uplink_charges(encoded, kept, costs)
    assert {charge.term: charge.energy for charge in charges if charge.energy or charge.bytes} == {"fixed": 12.76}
    assert mask_energy(encoded, kept, costs) == 0.0


def test_each_term_pays_for_its_own_bytes_and_loose_ones_for_the_dearest_link():
    cheap = EnergyPerBit(10.0, "nJ/bit", "assumed", "a test", 2020)
    link = msgspec.structs.replace(PHONE.link, up=msgspec.structs.replace(PHONE.link.up, marginal=cheap))
    costs = price(LAYOUT, PHONE, value_bits=32, link={"fc.*": link})
    kept = selection_of([0, 1, LAYOUT.n - 1])
    encoded = Encoded(bytes(40), np.array([80.0, 0.0, 48.0]), header_bytes=14, whole_bytes=10)
    charges = by_term(uplink_charges(encoded, kept, costs))
    assert list(charges) == ["header", "kept", "whole", "fixed"]
    assert [charge.bytes for charge in charges.values()] == [14, 16, 10, 0]
    assert charges["header"].energy == pytest.approx(14 * 8 * 76.7e-9)
    assert charges["whole"].energy == pytest.approx(10 * 8 * 76.7e-9)
    assert charges["kept"].energy == pytest.approx(80 * 76.7e-9 + 48 * 10e-9 + 3 * 32 * 16e-12, rel=1e-12)
    assert charges["fixed"].energy == pytest.approx(2 * 12.76)


def test_the_estimate_of_bits_does_not_change_what_an_encoded_message_costs():
    kept = selection_of(range(0, LAYOUT.n, 3))
    encoded = encode_detailed(kept, LAYOUT)
    costs = price(LAYOUT, PHONE, density=0.01)
    assert mask_energy(encoded, kept, costs.at_bits(99.0)) == mask_energy(encoded, kept, costs)


def test_charges_add_up_and_none_are_nothing():
    assert total([Charge("a", 0.1, "J", "measured")] * 10) == 1.0
    assert total(()) == 0.0
    assert total(iter([Charge("a", 2.0, "relative", "modelled")])) == 2.0


@pytest.mark.parametrize(
    ("other", "message"),
    [
        (Charge("b", 1.0, "relative", "modelled"), r"the unit 'J' .*'a'.* and 'relative' .*'b'"),
        (Charge("b", 1.0, "J", "measured"), r"the basis 'measured' .*'b'.* and 'modelled' .*'a'"),
    ],
)
def test_charges_in_other_units_or_from_a_meter_do_not_add_up(other, message):
    with pytest.raises(CostError, match=message):
        total([Charge("a", 1.0, "J", "modelled"), other])


def test_receiving_costs_the_downlink_per_bit_and_nothing_where_there_is_none():
    (charge,) = downlink_charge(1_000_000, PHONE)
    assert charge == Charge("downlink", 8e6 * PHONE.link.down.marginal.si, "J", "modelled", 1_000_000)
    assert charge.energy == pytest.approx(0.092)
    replace = msgspec.structs.replace
    for device in (
        load_device("synthetic-kind-10"),
        replace(PHONE, link=None),
        replace(PHONE, link=replace(PHONE.link, down=None)),
    ):
        assert downlink_charge(1_000_000, device) == ()


@pytest.mark.parametrize("amount", [-5, -1e-300, math.nan, math.inf])
def test_less_than_nothing_cannot_be_received(amount):
    for device in (PHONE, load_device("synthetic-kind-10")):
        with pytest.raises(CostError, match=f"payload_bytes is {amount}, expected a finite number of at least 0"):
            downlink_charge(amount, device)


def test_the_boundary_holds_for_receiving_too():
    link = PHONE.link
    goodput = msgspec.structs.replace(link.down, goodput=link.up.goodput)
    known = msgspec.structs.replace(PHONE, link=msgspec.structs.replace(link, down=goodput))
    assert downlink_charge(1_000_000, known, "memory") == ()
    (radio,), (device,) = downlink_charge(1_000_000, known), downlink_charge(1_000_000, known, "device")
    assert device.energy == pytest.approx(radio.energy + 2.93 * 8e6 / 15e6)
    assert downlink_charge(1_000_000, PHONE, "device") == downlink_charge(1_000_000, PHONE)


def test_a_message_of_another_layout_is_refused():
    kept = selection_of([1])
    encoded = encode_detailed(kept, LAYOUT)
    for function in (uplink_charges, mask_energy):
        with pytest.raises(CostError, match="encoded has 3 tensors, but costs are for 1"):
            function(encoded, kept, Costs.of(np.ones(LAYOUT.n)))
        with pytest.raises(CostError, match=f"of {LAYOUT.n} coordinates, but costs are for 2"):
            function(encoded, kept, Costs.of(np.ones(2)))
