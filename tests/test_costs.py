"""Prices: what they are made of, what they refuse, and sums that are exact."""

import dataclasses
import math
from fractions import Fraction

import msgspec
import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from joulewise.costs import Costs
from joulewise.devices import load_device
from joulewise.errors import CostError
from joulewise.layout import Layout, Tensor
from joulewise.prices import index_bits, price
from joulewise.quanta import budget_quanta, quanta
from joulewise.quantities import EnergyPerBit
from joulewise.rules import CWMP, Count
from joulewise.select import select

PHONE = load_device("phone-lte-2021")
SYNTHETIC = ("synthetic-kind-10", "synthetic-residency-32")


def resnet18() -> Layout:
    """ResNet-18 for ten classes and small images: 11,173,962 parameters."""
    tensors: list[Tensor] = []

    def add(name: str, *shape: int) -> None:
        kind = {4: "conv", 2: "linear", 1: "vector"}[len(shape)]
        tensors.append(Tensor(name, shape, kind, "float32"))

    def add_convolution(name: str, into: int, out: int, width: int) -> None:
        add(f"{name}.weight", out, into, width, width)
        add(f"{name}.norm.weight", out)
        add(f"{name}.norm.bias", out)

    add_convolution("stem", 3, 64, 3)
    channels = 64
    for stage, out in enumerate((64, 128, 256, 512), start=1):
        for block in range(2):
            add_convolution(f"layer{stage}.{block}.first", channels, out, 3)
            add_convolution(f"layer{stage}.{block}.second", out, out, 3)
            if channels != out:
                add_convolution(f"layer{stage}.{block}.shortcut", channels, out, 1)
            channels = out
    add("fc.weight", 10, 512)
    add("fc.bias", 10)
    return Layout(tuple(tensors))


RESNET = resnet18()
SMALL = Layout(
    (
        Tensor("conv.weight", (4, 1, 3, 3), "conv", "float32"),
        Tensor("fc.weight", (5, 6), "linear", "float32"),
        Tensor("embed.weight", (7, 2), "embedding", "float32"),
        Tensor("fc.bias", (5,), "vector", "float32"),
    )
)

prices = st.lists(st.floats(1e-12, 1e12), min_size=1, max_size=20).map(np.array)
shares = st.floats(1e-4, 1.0)
widths = st.floats(1.0, 64.0)


def exact_sum(numbers) -> Fraction:
    return sum((Fraction(float(number)) for number in numbers), Fraction(0))


@pytest.mark.filterwarnings("ignore:the largest price is")
def test_prices_so_far_apart_that_scores_are_lost_are_refused():
    least = np.nextafter(np.float32(0), np.float32(1))
    kept = select(np.array([1, least], np.float32), np.array([1e-150, 0.9e120]), CWMP(), Count(2))
    assert kept.indices.tolist() == [0, 1]
    with pytest.raises(CostError, match="at most 1e\\+270 times"):
        Costs.of(np.array([1e-200, 1e200]))


def test_prices_that_may_be_per_tensor_or_per_coordinate_are_refused():
    layout = Layout.of({"two.weight": np.zeros(2), "none.weight": np.zeros(0), "one.weight": np.zeros(1)})
    with pytest.raises(CostError, match="by tensor name"):
        Costs.of(np.array([1.0, 5.0, 100.0]), layout)
    assert Costs.of({"*": 2.0}, layout).per_kept.tolist() == [2.0, 2.0, 2.0]
    assert Costs.of(np.array([1.0, 5.0]), Layout.of({"a": np.zeros(1), "b": np.zeros(1)})).contrast == 5.0


@given(prices, st.integers(20, 2**32 - 1))
def test_a_sum_in_quanta_is_never_below_the_true_sum_and_at_most_a_quantum_each_above(costs, n):
    multiples, quantum = quanta(costs, n)
    for multiple, cost in zip(multiples.tolist(), costs.tolist(), strict=True):
        assert 0 <= multiple * Fraction(quantum) - Fraction(cost) < Fraction(quantum)
    assert int(multiples.sum()) * Fraction(quantum) >= exact_sum(costs)


@given(prices, st.integers(1, 2**32 - 1))
def test_the_largest_possible_sum_fits_an_int64_and_uses_most_of_it(costs, n):
    multiples, quantum = quanta(costs, n)
    assert n * int(multiples.max()) < 2**63
    assert 2**61 < n * Fraction(float(costs.max())) / Fraction(quantum) <= 2**62


@given(prices, st.integers(1, 10**6), st.integers(-40, 40))
def test_prices_times_a_power_of_four_have_the_same_multiples(costs, n, power):
    multiples, quantum = quanta(costs, n)
    scaled, scaled_quantum = quanta(costs * 4.0**power, n)
    assert np.array_equal(multiples, scaled)
    assert scaled_quantum == quantum * 4.0**power


@example(budget=1e300, power=-1000)
@example(budget=-1e-320, power=0)
@example(budget=math.inf, power=3)
@given(budget=st.floats(allow_nan=False), power=st.integers(-1000, 1000))
def test_a_budget_in_quanta_is_the_largest_that_is_not_above_it(budget, power):
    quantum = math.ldexp(1.0, power)
    whole = budget_quanta(budget, quantum)
    assert -(2**63) <= whole < 2**63
    if whole > -(2**63):
        assert math.isinf(budget) or whole * Fraction(quantum) <= Fraction(budget)
    if whole < 2**63 - 1:
        assert math.isinf(budget) or (whole + 1) * Fraction(quantum) > Fraction(budget)


@given(prices, st.floats(0, 1e13), st.data())
def test_what_fits_a_budget_in_quanta_fits_it_in_truth(costs, budget, data):
    multiples, quantum = quanta(costs, len(costs))
    kept = data.draw(st.lists(st.booleans(), min_size=len(costs), max_size=len(costs)).map(np.array))
    if int(multiples[kept].sum()) <= budget_quanta(budget, quantum):
        assert exact_sum(costs[kept]) <= Fraction(budget)


def test_quanta_of_prices_at_the_ends_of_float64():
    multiples, quantum = quanta(np.array([5e-324, 1.0]), 2)
    assert multiples.tolist() == [1, 2**61]
    assert quantum == 2.0**-61
    assert quanta(np.array([5e-324, 1e308]), 2)[0][0] == 1
    multiples, quantum = quanta(np.array([1.7e308]), 2**32 - 1)
    assert 0 < int(multiples[0]) * (2**32 - 1) < 2**63
    with pytest.raises(CostError, match="too small to sum exactly"):
        quanta(np.array([1e-300]), 1)
    assert quanta(np.array([]), 0)[0].size == 0
    with pytest.raises(CostError, match="NaN"):
        budget_quanta(math.nan, 1.0)


def test_one_coordinate_of_an_exact_power_uses_the_whole_range():
    multiples, quantum = quanta(np.array([1.0]), 1)
    assert (multiples.tolist(), quantum) == ([2**62], 2.0**-62)


@given(shares, widths, st.sampled_from(["radio", "device", "memory"]))
def test_terms_add_up_to_the_price_and_the_price_is_other_plus_bits(density, value_bits, boundary):
    costs = price(SMALL, PHONE, value_bits, density, boundary=boundary)
    np.testing.assert_array_equal(sum(term.per_kept for term in costs.terms), costs.per_kept)
    np.testing.assert_allclose(costs.other + costs.per_bit * costs.bits_per_kept, costs.per_kept, rtol=1e-14)
    np.testing.assert_allclose(sum(term.per_bit for term in costs.terms), costs.per_bit, rtol=1e-15)
    assert np.all(costs.bits_per_kept >= value_bits)
    assert (costs.unit, costs.boundary) == ("J", boundary)


@given(shares, shares, st.sampled_from(["radio", "device", "memory"]))
def test_other_bits_give_the_prices_of_the_density_with_those_bits(before, after, boundary):
    costs, other = (price(SMALL, PHONE, 16, density, boundary=boundary) for density in (before, after))
    moved = costs.at_bits(other.bits_per_kept)
    np.testing.assert_array_equal(moved.per_kept, other.per_kept)
    np.testing.assert_array_equal(moved.bits_per_kept, other.bits_per_kept)
    np.testing.assert_array_equal(moved.other, costs.other)
    assert moved.fixed == costs.fixed
    np.testing.assert_array_equal(costs.at_bits(costs.bits_per_kept).per_kept, costs.per_kept)


@given(st.floats(1e-6, 0.499))
def test_index_bits_are_what_one_more_kept_coordinate_adds_to_the_entropy(density):
    n, step = 1e6, 1e-3

    def bits(kept: float) -> float:
        p = kept / n
        return -n * (p * math.log2(p) + (1 - p) * math.log2(1 - p))

    kept = density * n
    slope = (bits(kept + step) - bits(kept - step)) / (2 * step)
    assert float(index_bits(density)) == pytest.approx(slope, abs=1e-3)


def test_index_bits_are_never_negative():
    assert index_bits(np.array([0.5, 0.7, 1.0])).tolist() == [0.0, 0.0, 0.0]


@pytest.mark.parametrize("name", SYNTHETIC)
def test_synthetic_prices_ignore_bits_and_have_no_link(name):
    costs = price(RESNET, load_device(name), value_bits=8, density=0.3, boundary="device")
    assert (costs.unit, costs.boundary, costs.fixed) == ("relative", "synthetic", 0.0)
    assert not costs.per_bit.any()
    np.testing.assert_array_equal(costs.per_kept, costs.at_bits(64.0).per_kept)
    np.testing.assert_array_equal(costs.per_kept, costs.other)


def test_kind_prices_follow_the_kind_of_each_tensor():
    assert price(SMALL, load_device("synthetic-kind-10")).per_kept.tolist() == [1.0, 10.0, 10.0, 10.0]


def test_the_smallest_tensors_up_to_a_tenth_of_the_parameters_are_resident():
    costs = price(RESNET, load_device("synthetic-residency-32"))
    resident = costs.per_kept == 1.0
    assert costs.contrast == 32.0
    assert set(costs.per_kept.tolist()) == {1.0, 32.0}
    assert RESNET.sizes[resident].sum() <= 0.1 * RESNET.n
    assert RESNET.sizes[resident].max() <= RESNET.sizes[~resident].min()
    assert RESNET.sizes[resident].sum() + RESNET.sizes[~resident].min() > 0.1 * RESNET.n


def test_residency_counts_an_exact_tenth_as_fitting():
    tensors = (Tensor("large", (90,), "vector", "float32"), Tensor("small", (10,), "vector", "float32"))
    assert price(Layout(tensors), load_device("synthetic-residency-32")).per_kept.tolist() == [32.0, 1.0]


def test_a_dense_upload_of_resnet18_over_lte_takes_27_joules_and_97_with_base_power():
    assert RESNET.n == 11_173_962
    for boundary, joules in (("radio", 27.4), ("device", 97.3)):
        costs = price(RESNET, PHONE, value_bits=32, density=1.0, boundary=boundary)
        assert costs.bits_per_kept.tolist() == [32.0] * len(RESNET.tensors)
        assert float((costs.per_bit * 32 * RESNET.sizes).sum()) == pytest.approx(joules, abs=0.05)
        assert costs.fixed == 12.76


@pytest.mark.parametrize("boundary", ["radio", "device"])
def test_with_one_link_and_one_encoding_at_one_density_prices_hardly_differ(boundary):
    costs = price(RESNET, PHONE, density=0.01, boundary=boundary)
    assert "send_buffer" in [term.name for term in costs.terms]
    assert 1.0 <= costs.contrast <= 1.001


def test_the_send_buffer_is_one_write_and_one_read_of_the_value_bits():
    costs = price(SMALL, PHONE, value_bits=16, density=0.01, boundary="memory")
    np.testing.assert_allclose(costs.per_kept, 16 * 2 * 8e-12, rtol=1e-12)
    assert not costs.per_bit.any()
    assert costs.fixed == 0.0
    assert [term.name for term in costs.terms] == ["send_buffer"]


def test_the_boundary_decides_which_numbers_of_the_link_are_behind_a_price():
    paths = {}
    for boundary in ("memory", "radio", "device"):
        paths[boundary] = {entry.path for entry in price(SMALL, PHONE, boundary=boundary).origins}
    assert paths["memory"] == {"memory.dram.read", "memory.dram.write"}
    assert paths["radio"] - paths["memory"] == {"link.up.marginal", "link.fixed"}
    assert paths["device"] - paths["radio"] == {"link.base_power", "link.up.goodput"}


def test_densities_and_widths_of_their_own_give_tensors_contrast():
    by_name = price(SMALL, PHONE, {"conv.*": 8, "*": 32}, {"fc.bias": 1.0, "fc.*": 0.1, "*": 0.01})
    by_array = price(SMALL, PHONE, np.array([8, 32, 32, 32]), np.array([0.01, 0.1, 0.01, 1.0]))
    np.testing.assert_array_equal(by_name.per_kept, by_array.per_kept)
    assert by_name.bits_per_kept[3] == 32.0
    assert by_name.bits_per_kept[1] == pytest.approx(32 + math.log2(9))
    assert by_name.contrast > 2


def test_a_name_wins_over_a_pattern_that_comes_before_it():
    costs = Costs.of({"*": 1.0, "fc.bias": 5.0}, SMALL)
    assert costs.per_kept.tolist() == [1.0, 1.0, 1.0, 5.0]


def test_links_of_their_own_price_their_tensors_and_every_link_used_wakes_once():
    up = msgspec.structs.replace(PHONE.link.up, marginal=EnergyPerBit(7.67, "nJ/bit", "assumed", "a test", 2020))
    cheap = msgspec.structs.replace(PHONE.link, up=up)
    costs = price(SMALL, PHONE, link={"fc.*": cheap})
    np.testing.assert_allclose(costs.per_bit, [76.7e-9, 7.67e-9, 76.7e-9, 7.67e-9])
    assert costs.fixed == pytest.approx(2 * 12.76)
    assert price(SMALL, PHONE, link=cheap).fixed == 12.76
    assert any(entry.source == "a test" for entry in costs.origins)


def test_prices_of_your_own_are_one_tensor_or_per_coordinate_or_per_tensor():
    alone = Costs.of(np.array([1.0, 2.0, 4.0]))
    assert ([tensor.name for tensor in alone.layout.tensors], alone.contrast) == (["update"], 4.0)
    assert alone.per_coordinate
    each = Costs.of(np.arange(1.0, SMALL.n + 1), SMALL, unit="relative", bits_per_kept=40.0)
    assert (each.per_coordinate, each.unit, each.bits_per_kept.tolist()) == (True, "relative", [40.0] * 4)
    np.testing.assert_array_equal(each.at_bits(8.0).per_kept, each.per_kept)
    assert not Costs.of(np.ones(4), SMALL).per_coordinate
    assert Costs.of(2.0, SMALL).per_kept.tolist() == [2.0] * 4


def test_prices_of_your_own_are_copied():
    mine = np.ones(3)
    costs = Costs.of(mine)
    mine[0] = 7.0
    assert costs.per_kept.tolist() == [1.0, 1.0, 1.0]


@pytest.mark.parametrize("wrong", [0.0, -1.0, math.nan, math.inf])
def test_a_price_that_is_not_finite_and_above_zero_is_refused_by_name(wrong):
    with pytest.raises(CostError, match=rf"'fc\.weight' is {wrong}"):
        Costs.of({"fc.weight": wrong, "*": 1.0}, SMALL)
    vector = np.ones(SMALL.n)
    vector[-1] = wrong
    with pytest.raises(CostError, match=rf"'fc\.bias' is {wrong}"):
        Costs.of(vector, SMALL)


def test_a_price_out_of_range_names_the_source_of_the_number_behind_it():
    costs = price(SMALL, PHONE)
    with pytest.raises(CostError, match=r"'conv\.weight' is inf.*link\.up\.marginal = 76\.7 nJ/bit \(slope of our"):
        dataclasses.replace(costs, per_kept=np.full_like(costs.per_kept, np.inf))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            {"density": 0.0},
            r"density of tensor 'conv\.weight' is 0\.0, expected a share above 0 and at most 1",
        ),
        ({"density": 1.5}, r"density of tensor 'conv\.weight' is 1\.5"),
        ({"density": {"*": 0.1, "fc.bias": math.nan}}, r"density of tensor 'fc\.bias' is nan"),
        ({"density": {"fc.*": 0.1}}, r"density has no entry for tensor 'conv\.weight'"),
        ({"density": {"head.*": 0.1, "*": 1}}, r"density\['head\.\*'\] matches no tensor"),
        ({"density": np.ones(3)}, r"density has shape \(3,\), .* one number per tensor, \(4,\)"),
        ({"value_bits": 0}, r"value_bits of tensor 'conv\.weight' is 0"),
        ({"value_bits": math.inf}, r"value_bits of tensor 'conv\.weight' is inf"),
        ({"value_bits": "many"}, r"value_bits is 'many', expected numbers"),
        ({"boundary": "planet"}, r"boundary is 'planet', expected one of: radio, device, memory"),
        ({"link": {"head": PHONE.link}}, r"link\['head'\] matches no tensor"),
    ],
)
def test_a_wrong_argument_is_named_with_what_came_and_what_was_expected(arguments, message):
    with pytest.raises(CostError, match=message):
        price(SMALL, PHONE, **arguments)


def test_a_device_without_what_the_boundary_needs_says_so():
    replace = msgspec.structs.replace
    with pytest.raises(CostError, match=r"has no link for tensor 'conv\.weight'.*boundary='memory'"):
        price(SMALL, replace(PHONE, link=None))
    with pytest.raises(CostError, match=r"boundary='device' needs base_power and up\.goodput"):
        price(SMALL, replace(PHONE, link=replace(PHONE.link, base_power=None)), boundary="device")
    with pytest.raises(CostError, match=r"'conv\.weight' is 0\.0"):
        price(SMALL, replace(PHONE, memory=None), boundary="memory")
    with pytest.raises(CostError, match="link is in joules"):
        price(SMALL, load_device("synthetic-kind-10"), link=PHONE.link)


def test_prices_that_fit_neither_tensors_nor_coordinates_are_refused():
    with pytest.raises(CostError, match=rf"per_kept has shape \(7,\).*\(4,\) or per coordinate, \({SMALL.n},\)"):
        Costs.of(np.ones(7), SMALL)
    with pytest.raises(CostError, match="unit is 'kWh'"):
        Costs.of(np.ones(4), SMALL, unit="kWh")


def test_prices_too_far_apart_for_exact_sums_are_warned_about():
    with pytest.warns(UserWarning, match=r"the largest price is 1e\+17 times the smallest"):
        Costs.of(np.array([1.0, 1e17]))
    assert Costs.of(np.array([1.0, 1e12])).contrast == 1e12


def test_a_model_without_parameters_has_prices_too():
    costs = price(Layout(()), PHONE)
    assert (costs.per_kept.size, costs.contrast) == (0, 1.0)
