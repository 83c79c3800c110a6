"""The terms of a price: residency, the optimizer, flash, receivers, links of many kinds, and what moves in blocks."""

import math
from dataclasses import replace

import msgspec
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from test_costs import RESNET, SMALL
from test_hand_computed_rounds import ACCELERATOR, MICROCONTROLLER, PHONE, device, known, level

from joulewise.costs import SEND_TERMS, TERMS, Block, Costs
from joulewise.devices import Direction, Link, Memory, list_devices, load_device
from joulewise.errors import CostError
from joulewise.layout import Layout, Tensor
from joulewise.ledger import addressable, round_charges, total
from joulewise.marginal import marginal_prices
from joulewise.prices import price
from joulewise.quantities import EnergyPerBit, EnergyPerOperation, Factor, Power, Rate, Size
from joulewise.residency import traffic, working_levels
from joulewise.rules import CWMP, Joules, TopK
from joulewise.select import select

changed = msgspec.structs.replace


def term(costs: Costs, name: str) -> np.ndarray:
    return next(each for each in costs.terms if each.name == name).per_kept


# ---------------------------------------------------------------- residency


def scratchpad(megabytes: float) -> Memory:
    near = level(0.22, 0.22, capacity=known(Size, megabytes, "MiB"))
    return Memory(sram=near, dram=level(8.0, 8.0), weights="sram")


@pytest.mark.parametrize(("megabytes", "share"), [(8, 0.076), (1, 0.008)])
def test_the_smallest_tensors_of_resnet18_with_momentum_fill_a_scratchpad(megabytes, share):
    memory = scratchpad(megabytes)
    levels = working_levels(RESNET, memory, arrays=2)
    close = np.array([each is memory.sram for each in levels])
    assert RESNET.sizes[close].sum() / RESNET.n == pytest.approx(share, abs=0.001)
    assert RESNET.sizes[close].sum() * 8 <= megabytes * 2**20
    assert RESNET.sizes[close].max() <= RESNET.sizes[~close].min()


def test_a_cache_beside_dram_keeps_nothing_and_without_dram_all_lies_in_sram():
    memory = scratchpad(8)
    for other in (changed(memory, weights=None), changed(memory, sram=changed(memory.sram, capacity=None))):
        assert set(working_levels(SMALL, other)) == {memory.dram}
    alone = changed(memory, dram=None)
    assert set(working_levels(RESNET, alone)) == {memory.sram}


def test_residency_gives_prices_without_a_link_their_contrast():
    costs = price(RESNET, device(memory=scratchpad(8)), boundary="memory", update="gradient", optimizer="momentum")
    assert costs.contrast == pytest.approx(8 / 0.22)
    assert price(RESNET, device(memory=changed(scratchpad(8), weights=None)), boundary="memory").contrast == 1.0


# ---------------------------------------------------------------- the optimizer's step


@pytest.mark.parametrize(
    ("optimizer", "bytes_moved", "operations"), [("sgd", 8 + 4, 2), ("momentum", 16 + 4, 4), ("adam", 24 + 4, 12)]
)
def test_a_step_moves_the_bytes_and_makes_the_operations_of_its_optimizer(optimizer, bytes_moved, operations):
    one = known(EnergyPerOperation, 1.0, "pJ")
    calculator = device(memory=Memory(dram=level(1.0, 1.0)), compute=changed(PHONE.compute, add=one, multiply=one))
    costs = price(SMALL, calculator, boundary="memory", update="gradient", optimizer=optimizer)
    assert term(costs, "optimizer") == pytest.approx((8 * bytes_moved + operations) * 1e-12)


def test_weights_that_changed_before_the_choice_pay_for_no_step():
    assert "optimizer" not in [each.name for each in price(SMALL, ACCELERATOR).terms]
    assert not price(SMALL, ACCELERATOR).blocks
    without = changed(ACCELERATOR, compute=None)
    moved = term(price(SMALL, without, update="gradient"), "optimizer")
    step = term(price(SMALL, ACCELERATOR, update="gradient"), "optimizer")
    assert step - moved == pytest.approx(3.7e-12 + 0.9e-12 + 2e-9)


# ---------------------------------------------------------------- links


def test_framing_and_retransmission_are_paid_for_up_and_down_but_base_power_is_of_payload():
    bare = PHONE.link
    framed = changed(bare, framing=known(Factor, 1.25, "1"), retransmission=known(Factor, 2.0, "1"))
    plain, dearer = (price(SMALL, changed(PHONE, link=link), boundary="device", fan_out=3) for link in (bare, framed))
    for name in ("uplink", "downlink_share"):
        assert term(dearer, name) == pytest.approx(2.5 * term(plain, name))
    for name in ("base_power", "send_buffer", "receiver_write"):
        assert term(dearer, name) == pytest.approx(term(plain, name))


def test_tensors_on_another_link_or_width_give_contrast_where_one_link_and_width_give_none():
    slow = Link(up=Direction(known(EnergyPerBit, 10.0, "uJ/bit")))
    assert price(SMALL, PHONE, density=0.01).contrast == 1.0
    assert price(SMALL, PHONE, density=0.01, link={"fc.*": slow}).contrast > 50
    assert price(SMALL, PHONE, {"conv.*": 8, "*": 32}, density=0.5).contrast == pytest.approx(4.0, rel=1e-3)


@pytest.mark.parametrize("name", [name for name in list_devices() if not name.startswith("synthetic")])
@pytest.mark.parametrize("update", ["weights", "gradient"])
def test_every_shipped_device_prices_a_model_and_its_terms_add_up(name, update):
    shipped = load_device(name)
    boundary = "memory" if shipped.link is None else "radio"
    costs = price(RESNET, shipped, boundary=boundary, update=update, fan_out=2)
    assert sum(each.per_kept for each in costs.terms) == pytest.approx(costs.per_kept, rel=1e-12)
    assert costs.other + costs.per_bit * costs.bits_per_kept == pytest.approx(costs.per_kept, rel=1e-12)
    assert {each.name for each in costs.terms} <= set(TERMS)
    moved = costs.at_bits(costs.bits_per_kept + 5)
    assert moved.per_kept - costs.per_kept == pytest.approx(5 * costs.per_bit, rel=1e-6)
    assert moved.blocks == costs.blocks


# ---------------------------------------------------------------- flash and receivers


def test_flash_resident_weights_dominate_a_price_and_weights_in_ram_pay_none_of_it():
    costs = price(SMALL, MICROCONTROLLER)
    assert term(costs, "persistence") == pytest.approx(32 * 10_000e-12)
    in_ram = changed(MICROCONTROLLER, memory=changed(MICROCONTROLLER.memory, weights=None))
    assert [each.name for each in price(SMALL, in_ram).terms] == ["send_buffer", "uplink"]
    assert not price(SMALL, in_ram).blocks


def test_receivers_pay_per_head_and_by_what_they_are():
    one, nine = (price(SMALL, PHONE, fan_out=count) for count in (1, 9))
    for name in ("downlink_share", "receiver_write"):
        assert term(nine, name) == pytest.approx(9 * term(one, name))
    assert one.send_per_bit == pytest.approx(np.full(4, 100e-9))
    assert one.per_bit == pytest.approx(np.full(4, 120e-9))
    others = price(SMALL, PHONE, fan_out=1, receiver=MICROCONTROLLER)
    assert others.per_bit - others.send_per_bit == pytest.approx(np.full(4, 15e-9 * 1.5 * 1.2))
    assert term(others, "receiver_write") == pytest.approx(32 * 10_000e-12)
    assert [block.name for block in others.blocks] == ["receiver_flash_pages"]
    assert [each.name for each in price(SMALL, PHONE, fan_out=1, boundary="memory").terms] == [
        "send_buffer",
        "receiver_write",
    ]


def test_sunk_and_fixed_energy_is_in_no_price():
    rich = changed(PHONE, idle_power=known(Power, 5.0, "W"), compute=None, link=changed(PHONE.link, fixed=None))
    assert price(SMALL, rich).per_kept.tolist() == price(SMALL, PHONE).per_kept.tolist()
    assert price(SMALL, PHONE).fixed == 10.0


def test_local_tensors_change_no_price():
    local = Layout(SMALL.tensors, locals=(Tensor("head.weight", (9, 9), "local", "float32"),))
    assert price(local, ACCELERATOR).per_kept.tolist() == price(SMALL, ACCELERATOR).per_kept.tolist()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"update": "weight"}, r"update is 'weight', expected one of: weights, gradient"),
        ({"optimizer": "adamw"}, r"optimizer is 'adamw', expected one of: sgd, momentum, adam"),
        ({"fan_out": -1}, r"fan_out is -1, expected a finite number of receivers of at least 0"),
        ({"fan_out": math.nan}, r"fan_out is nan"),
        ({"fan_out": 1, "receiver": load_device("synthetic-kind-10")}, r"receiver 'synthetic-kind-10' is relative"),
    ],
)
def test_a_wrong_choice_is_named_with_what_was_expected(arguments, message):
    with pytest.raises(CostError, match=message):
        price(SMALL, PHONE, **arguments)


@pytest.mark.parametrize(
    "arguments",
    [{"fan_out": 2}, {"receiver": PHONE}, {"link": PHONE.link}, {"update": "gradient"}, {"in_ram": ["fc.*"]}],
)
def test_relative_devices_have_nothing_in_joules(arguments):
    with pytest.raises(CostError, match=rf"{next(iter(arguments))} is in joules, but device 'synthetic-kind-10'"):
        price(SMALL, load_device("synthetic-kind-10"), **arguments)


def test_the_numbers_behind_a_price_are_those_that_it_was_made_of():
    paths = {entry.path for entry in price(SMALL, ACCELERATOR, update="gradient", optimizer="momentum").origins}
    assert {"memory.sram.read", "memory.dram.line", "compute.add", "compute.per_update"} <= paths
    paths = {entry.path for entry in price(SMALL, MICROCONTROLLER).origins}
    assert {"memory.flash.write", "memory.flash.page", "memory.flash.erase", "link.framing"} <= paths
    assert not any(path.startswith(("link.down", "compute")) for path in paths)
    assert "link.down.marginal" in {entry.path for entry in price(SMALL, PHONE, fan_out=1).origins}


def test_the_numbers_of_another_kind_of_receiver_are_its_own():
    def found(**arguments) -> dict[str, float]:
        return {entry.path: entry.value for entry in price(SMALL, PHONE, fan_out=1, **arguments).origins}

    other, alone = found(receiver=MICROCONTROLLER), {entry.path for entry in price(SMALL, PHONE).origins}
    assert {path: value for path, value in other.items() if path not in alone} == {
        "receiver.memory.flash.write": 10_000.0,
        "receiver.memory.flash.page": 64.0,
        "receiver.memory.flash.erase": 3.0,
        "receiver.link.down.marginal": 15.0,
        "receiver.link.framing": 1.5,
        "receiver.link.retransmission": 1.2,
    }
    assert found()["link.down.marginal"] == 20.0
    assert not any(path.startswith("receiver.link") for path in found(receiver=MICROCONTROLLER, boundary="memory"))
    assert "receiver.memory.sram.write" in found(receiver=ACCELERATOR)


def test_tensors_in_ram_are_in_ram_at_receivers_of_the_same_kind_too():
    lines = changed(MICROCONTROLLER.memory, sram=level(1.0, 2.0, line=known(Size, 32.0, "byte")))
    node = changed(MICROCONTROLLER, memory=lines)
    costs = price(SMALL, node, fan_out=3, in_ram=["fc.*"])
    close = np.array([tensor.name.startswith("fc.") for tensor in SMALL.tensors])
    assert 0 < close.sum() < close.size
    assert term(costs, "persistence") == pytest.approx(np.where(close, 0.0, 32 * 10e-9))
    assert term(costs, "receiver_write") == pytest.approx(3 * np.where(close, 32 * 2e-12, 32 * 10e-9))
    pages, at_receivers, moved = costs.blocks
    assert [each.name for each in costs.blocks] == ["flash_pages", "receiver_flash_pages", "receiver_cache_lines"]
    assert pages.per_touched == pytest.approx(np.where(close, 0.0, 8.12e-6))
    assert at_receivers.per_touched == pytest.approx(np.where(close, 0.0, 3 * 8.12e-6))
    assert moved.per_touched == pytest.approx(np.where(close, 3 * 8 * 32 * 2e-12, 0.0))
    # Another kind of receiver has its weights where its own profile says.
    others = price(SMALL, node, fan_out=3, in_ram=["fc.*"], receiver=changed(MICROCONTROLLER, name="other"))
    assert term(others, "receiver_write") == pytest.approx(np.full(close.size, 3 * 32 * 10e-9))


# ---------------------------------------------------------------- blocks


def touched_by_hand(indices: np.ndarray, layout: Layout, elements: np.ndarray) -> list[int]:
    found = [set() for _ in layout.tensors]
    for index in indices.tolist():
        tensor = int(np.searchsorted(layout.offsets, index, side="right")) - 1
        found[tensor].add((index - int(layout.offsets[tensor])) // int(elements[tensor]))
    return [len(each) for each in found]


subsets = st.sets(st.integers(0, SMALL.n - 1)).map(lambda found: np.array(sorted(found), np.uint32))


@given(subsets, st.lists(st.integers(1, 40), min_size=4, max_size=4))
def test_blocks_touched_are_those_that_a_loop_counts(indices, elements):
    block = Block("pages", np.array(elements), np.ones(4), np.zeros(4))
    assert block.touched(indices, SMALL).tolist() == touched_by_hand(indices, SMALL, block.elements)


@given(subsets, st.integers(0, SMALL.n - 1), st.sampled_from([MICROCONTROLLER, ACCELERATOR]))
def test_one_coordinate_more_never_makes_a_choice_cheaper_and_a_whole_block_costs_what_it_says(kept, more, on):
    costs = price(SMALL, on, update="gradient", fan_out=1)
    longer = np.union1d(kept, np.array([more], np.uint32))

    def spent(indices: np.ndarray) -> float:
        each = np.repeat(costs.per_kept, SMALL.sizes)[indices]
        return math.fsum(each.tolist()) + costs.block_energy(indices)

    assert spent(longer) >= spent(kept) * (1 - 1e-12)
    if more not in kept:
        assert spent(longer) > spent(kept)


def test_a_sparse_mask_touches_as_many_lines_and_pages_as_chance_says():
    layout, rng = Layout.single(1_024_000), np.random.default_rng(0)
    indices = np.flatnonzero(rng.random(layout.n) < 0.01).astype(np.uint32)
    for elements, share in ((16, 1 - 0.99**16), (1024, 1 - 0.99**1024)):
        block = Block("pages", np.array([elements]), np.ones(1), np.zeros(1))
        assert block.touched(indices, layout)[0] * elements / layout.n == pytest.approx(share, abs=0.005)


@pytest.mark.parametrize(
    "wrong",
    [
        Block("pages", np.array([0, 1, 1, 1]), np.ones(4), np.zeros(4)),
        Block("pages", np.array([4, 1, 1, 1]), np.ones(4), np.array([0.5, 0, 0, 0])),
        Block("pages", np.array([4, 1, 1, 1]), np.array([math.inf, 1, 1, 1]), np.zeros(4)),
        Block("pages", np.ones(3, int), np.ones(3), np.zeros(3)),
    ],
)
def test_blocks_that_cannot_be_are_refused_by_name(wrong):
    with pytest.raises(CostError, match="blocks 'pages'"):
        replace(price(SMALL, PHONE), blocks=(wrong,))


def test_select_looks_at_prices_alone():
    costs = price(SMALL, MICROCONTROLLER)
    a = np.random.default_rng(0).standard_normal(SMALL.n).astype(np.float32)
    budget = Joules(0.3 * float(costs.per_kept @ SMALL.sizes))
    with_blocks, without = (select(a, each, CWMP(), budget) for each in (costs, replace(costs, blocks=())))
    assert with_blocks.indices.tolist() == without.indices.tolist()
    assert with_blocks.spent == without.spent <= budget.budget


# ---------------------------------------------------------------- the first estimate


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 2**32 - 1), st.floats(0.02, 0.6))
def test_the_first_estimate_is_a_fixed_point_of_densities_and_prices(seed, share):
    rng = np.random.default_rng(seed)
    sizes = [int(each) for each in rng.integers(500, 4000, 4)]
    layout = Layout(tuple(Tensor(f"fc{i}.weight", (size, 1), "linear", "float32") for i, size in enumerate(sizes)))
    scales = np.repeat(10.0 ** rng.uniform(-2, 0, 4), sizes)
    a = (rng.standard_normal(layout.n) * scales).astype(np.float32)
    costs = price(layout, PHONE)
    budget = Joules(share * float(costs.per_kept @ layout.sizes))
    priced = marginal_prices(a, costs, CWMP(), budget, "float32")
    counts = layout.counts(select(a, priced, TopK(), budget).indices)
    density = np.minimum(np.maximum(counts, 0.5) / layout.sizes, 0.5)
    assert priced.bits_per_kept == pytest.approx(26 + np.log2((1 - density) / density), abs=0.03)


# ---------------------------------------------------------------- the round


def test_a_round_without_numbers_has_no_charges_for_them():
    charges = round_charges((), SMALL, load_device("synthetic-kind-10"), bytes_down=99, wall_time_s=5.0)
    assert charges == ()
    assert addressable(charges) == 0.0
    link_only = changed(PHONE, memory=None, compute=None, idle_power=None)
    found = round_charges((), SMALL, link_only, bytes_down=99, multiply_accumulates=1e9, wall_time_s=5.0)
    assert [charge.term for charge in found] == ["downlink"]


def test_a_boundary_changes_no_relative_price():
    costs = [price(SMALL, load_device("synthetic-kind-10"), boundary=each) for each in ("radio", "device", "memory")]
    assert {each.boundary for each in costs} == {"synthetic"}
    assert len({tuple(each.per_kept) for each in costs}) == 1


@pytest.mark.parametrize("name", ["bytes_down", "multiply_accumulates", "wall_time_s", "rewritten"])
@pytest.mark.parametrize("amount", [-1, math.nan, math.inf])
def test_amounts_that_cannot_be_are_refused_by_name(name, amount):
    with pytest.raises(CostError, match=rf"{name} is {amount}, expected a finite number"):
        round_charges((), SMALL, PHONE, **({"bytes_down": 0} | {name: amount}))


def test_training_swamps_what_a_mask_can_touch():
    few, many = (round_charges((), SMALL, PHONE, bytes_down=0, multiply_accumulates=amount) for amount in (1e3, 1e9))
    assert total(many) - total(few) == pytest.approx((1e9 - 1e3) * 50e-12)


def test_terms_are_named_once():
    assert len(set(TERMS)) == len(TERMS)
    assert set(SEND_TERMS) < set(TERMS)
    rate = known(Rate, 1.0, "Mbit/s")
    assert rate.si == 1e6
    assert traffic([PHONE.memory.dram], 1, 2) == pytest.approx(32 * 3 * 8e-12)


def test_the_link_of_a_tensor_without_elements_is_not_used():
    layout = Layout.of({"none": np.ones((0, 4)), "some": np.ones((4, 4))})
    nbiot, wifi = (load_device(name).link for name in ("mcu-nbiot", "phone-wifi-2012"))
    both, one = price(layout, PHONE, link={"none": nbiot, "some": wifi}), price(layout, PHONE, link=wifi)
    assert both.send_per_bit.max() == one.send_per_bit.max()
    assert both.fixed == one.fixed
