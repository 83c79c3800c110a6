"""Where the joules go, and what weighing by price would save: against counting, against simulation, and in words."""

from dataclasses import replace

import msgspec
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import joulewise as jw
from joulewise.costs import Costs
from joulewise.devices import Compute, Device
from joulewise.errors import CostError, UpdateError
from joulewise.explain import explain
from joulewise.explanation import Explanation
from joulewise.learning import models
from joulewise.saving import Laplace, Recorded
from joulewise.spread import spread

LTE = "phone-lte-2021"
SMALL = jw.Layout.of({"conv.weight": np.ones((4, 2, 3, 3)), "fc.weight": np.ones((8, 16)), "fc.bias": np.ones(8)})
RULES = (jw.CWMP(), jw.Projection())


def number(value, unit):
    return {"value": value, "unit": unit, "kind": "assumed", "source": "made for this test", "year": 2026}


def flash_device(**memory):
    """A microcontroller whose weights lie in flash: 4 KiB pages, radio at 10 nJ/bit."""
    level = {"read": number(1.0, "pJ/bit"), "write": number(1.0, "pJ/bit")}
    flash = {
        "read": number(1.0, "pJ/bit"),
        "write": number(40.0, "nJ/bit"),
        "page": number(4.0, "KiB"),
        "erase": number(0.1, "mJ"),
    }
    return msgspec.convert(
        {
            "schema": 1,
            "name": "flash",
            "description": "A microcontroller of this test.",
            "unit": "J",
            "memory": {"sram": level, "flash": flash, "weights": "flash"} | memory,
            "link": {"up": {"name": "Direction", "marginal": number(10.0, "nJ/bit")}},
        },
        Device,
    )


@pytest.fixture(scope="module")
def resnet18():
    module = models.build(models.ResNet18(), channels=3, height=32, width=32, classes=10, seed=0)
    return jw.Layout.of(models.arrays(module))


# ---------------------------------------------------------------- when weighing by price matters, and when not


def test_with_one_radio_one_density_and_one_encoding_weighing_does_not_matter(resnet18):
    found = explain(resnet18, jw.load_device(LTE), density=0.01)
    assert found.contrast <= 1.001
    assert found.price_ratio <= 1.001
    assert found.verdict.answer == "does not matter"
    assert "does not matter" in found.verdict.text
    assert all(abs(each.equal_energy.saving) < 1e-6 for each in found.predictions)
    assert all(each.overlap > 0.999 for each in found.predictions)


def test_cwmp_then_keeps_what_topk_keeps_of_a_random_update(resnet18):
    costs = jw.price(resnet18, jw.load_device(LTE), density=0.01)
    update = np.random.default_rng(0).standard_normal(resnet18.n, np.float32)
    top, weighed = (jw.select(update, costs, rule, jw.Density(0.01)).indices for rule in (jw.TopK(), jw.CWMP()))
    assert np.intersect1d(top, weighed).size > 0.999 * top.size


def test_the_dense_upload_of_resnet18_on_lte_takes_27_joules_and_97_with_base_power(resnet18):
    dense = explain(resnet18, jw.load_device(LTE)).dense
    assert dense.bits == 11_173_962 * 32
    assert dense.marginal_j == pytest.approx(11_173_962 * 32 * 76.7e-9, rel=1e-12)
    assert dense.with_base_power_j == pytest.approx(11_173_962 * 32 * (76.7e-9 + 2.93 / 15e6), rel=1e-12)
    assert f"{dense.marginal_j:.1f} {dense.with_base_power_j:.1f}" == "27.4 97.3"


def test_mixed_widths_turn_the_verdict(resnet18):
    found = explain(resnet18, jw.load_device(LTE), value_bits={"layer4.*": 8, "*": 32})
    assert found.verdict.answer == "matters"
    assert found.verdict.saving > 0.1
    assert found.price_ratio == pytest.approx((32 + 6.63) / (8 + 6.63), rel=1e-2)
    assert min(each.overlap for each in found.predictions) < 0.9
    assert "matters here" in found.verdict.text


def test_the_verdict_says_when_a_large_saving_is_little_of_the_round(resnet18):
    found = explain(resnet18, jw.load_device(LTE), value_bits={"layer4.*": 8, "*": 32})
    assert found.verdict.round_saving < 0.01  # 12.76 J of promotion and tail
    assert "Yet of the whole round as priced it is 0.2 %" in found.verdict.text
    assert "where sending has a budget of its own" in found.verdict.text


def test_the_verdict_says_when_mass_won_in_one_norm_is_lost_in_the_other():
    layout = jw.Layout.of({"a.weight": np.ones((100, 100)), "b.weight": np.ones((100, 100))})
    update = np.concatenate([np.random.default_rng(5).uniform(0.9, 1.1, 10_000), np.full(10_000, 0.01)])
    update[10_000:10_010] = 3.0  # in the dear tensor: much of the squares, less of the magnitudes
    found = explain(layout, jw.load_device(LTE), 0.01, {"a*": 4, "*": 32}, update)
    weighed, top = found.predictions[0].equal_energy.kept, found.topk
    assert found.verdict.rule == "CWMP"
    assert found.verdict.answer != "does not matter"
    assert weighed.l1 > top.l1
    assert weighed.l2 < top.l2
    assert f"of the L2 mass it keeps {100 * weighed.l2:.1f} %, TopK {100 * top.l2:.1f} %" in found.verdict.text
    law = explain(layout, jw.load_device(LTE), 0.01, {"a*": 4, "*": 32})
    assert law.predictions[0].equal_energy.kept.l2 > law.topk.l2
    assert "L2" not in law.verdict.text


# ---------------------------------------------------------------- predictions


@given(
    prices=st.lists(st.floats(0.01, 100.0), min_size=3, max_size=3),
    density=st.floats(0.001, 1.0),
)
def test_under_the_law_weighing_never_loses_its_own_mass(prices, density):
    law = Laplace(Costs.of(np.array(prices), SMALL), density)
    for rule in RULES:
        found = law.predict(rule)
        assert found.equal_energy.saving > -1e-9
        assert found.equal_count.saving > -1e-9
        assert found.equal_energy.kept.energy == pytest.approx(law.topk.energy, rel=1e-9)
        assert found.equal_count.kept.coordinates == pytest.approx(law.topk.coordinates, rel=1e-9)


@pytest.mark.parametrize("density", [0.01, 0.2])
def test_the_law_predicts_what_selections_of_a_drawn_update_save(density):
    layout = jw.Layout.of({f"fc{each}.weight": np.broadcast_to(np.float32(0), (400, 500)) for each in range(3)})
    costs = Costs.of(np.array([1.0, 2.0, 5.0]), layout)
    update = np.random.default_rng(1).laplace(size=layout.n).astype(np.float32)
    law, counted = Laplace(costs, density), Recorded(costs, update, round(density * layout.n))
    for rule in RULES:
        expected, found = law.predict(rule), counted.predict(rule)
        assert found.overlap == pytest.approx(expected.overlap, abs=0.02)
        for one, other in ((found.equal_energy, expected.equal_energy), (found.equal_count, expected.equal_count)):
            assert one.saving == pytest.approx(other.saving, abs=0.02)
            assert one.kept.l1 == pytest.approx(other.kept.l1, rel=0.03)
            assert one.kept.l2 == pytest.approx(other.kept.l2, rel=0.03)
            assert one.kept.energy == pytest.approx(other.kept.energy, rel=0.03)


@pytest.mark.parametrize(
    ("prices", "count", "more"),
    [((1.0, 3.0, 2.0), 40, 40), ((1.0, 50.0, 50.0), 5, 20)],  # in the second TopK needs more than four times as many
)
def test_savings_on_an_update_are_those_of_plain_loops(prices, count, more):
    costs = Costs.of(np.array(prices), SMALL)
    update = np.random.default_rng(2).standard_normal(SMALL.n).astype(np.float32)
    price = np.repeat(costs.per_kept, SMALL.sizes)
    magnitude = np.abs(update).astype(np.float64)
    by_magnitude = sorted(range(SMALL.n), key=lambda i: -magnitude[i])
    by_value = sorted(range(SMALL.n), key=lambda i: -magnitude[i] / price[i])
    found = Recorded(costs, update, count=count)
    assert found.topk.energy == pytest.approx(sum(price[i] for i in by_magnitude[:count]))
    left, kept = found.topk.energy, []
    for i in by_value:
        if price[i] > left:
            break
        left -= price[i]
        kept.append(i)
    prediction = found.predict(jw.CWMP())
    mass, energy, need = sum(magnitude[i] for i in kept), sum(price[i] for i in kept), 0.0
    assert prediction.equal_energy.kept.l1 == pytest.approx(mass / magnitude.sum())
    assert sum(magnitude[i] for i in by_magnitude[:more]) < mass
    for i in by_magnitude:
        part = min(1.0, mass / magnitude[i])
        mass, need = mass - part * magnitude[i], need + part * price[i]
        if mass <= 1e-12:
            break
    assert prediction.equal_energy.topk_energy == pytest.approx(need)
    assert prediction.equal_energy.saving == pytest.approx(1 - energy / need)
    assert prediction.overlap == len(set(by_magnitude[:count]) & set(by_value[:count])) / count


def test_keeping_everything_saves_nothing():
    for rule in RULES:
        found = Laplace(Costs.of(np.array([1.0, 3.0, 2.0]), SMALL), density=1.0).predict(rule)
        assert found.equal_energy.saving == pytest.approx(0, abs=1e-9)
        assert found.overlap == pytest.approx(1)


def spread_of(prices, counts, sizes=None):
    layout = jw.Layout.of({f"t{each}": np.ones(int(size)) for each, size in enumerate(sizes or counts)})
    return spread(Costs.of(np.array(prices), layout), np.array(counts, dtype=float))


def test_the_price_ratio_leaves_out_a_twentieth_on_either_side():
    assert spread_of([1.0, 2.0, 4.0, 99.0], [4.0, 46.0, 46.0, 4.0]).ratio == 2
    assert spread_of([99.0, 4.0, 1.0], [6.0, 88.0, 6.0]).ratio == 99


def test_the_price_ratio_weighs_by_what_topk_keeps_and_not_by_parameters():
    found = spread_of([1.0, 8.0], [50.0, 50.0], sizes=[960, 40])
    assert (found.low, found.high, found.ratio) == (1.0, 8.0, 8.0)
    hidden = spread_of([1.0, 8.0], [1.0, 99.0], sizes=[960, 40])
    assert (hidden.ratio, hidden.contrast, hidden.cheaper, hidden.dearer) == (1.0, 8.0, 0.96, 0.0)


@given(
    prices=st.lists(st.floats(0.01, 100.0), min_size=3, max_size=3),
    density=st.floats(0.005, 0.5),
    seed=st.integers(0, 99),
)
def test_no_rule_saves_more_than_the_full_range_of_prices_allows(prices, density, seed):
    costs = Costs.of(np.array(prices), SMALL)
    update = np.random.default_rng(seed).laplace(size=SMALL.n).astype(np.float32)
    most = 1 - min(prices) / max(prices)
    for source in (Laplace(costs, density), Recorded(costs, update, max(1, round(density * SMALL.n)))):
        for rule in RULES:
            assert source.saving(rule) <= most + 1e-9
            assert source.saving(rule) == source.predict(rule).equal_energy.saving


# ---------------------------------------------------------------- updates


def test_with_an_update_each_tensor_is_priced_at_its_own_density():
    layout = jw.Layout.of({"a.weight": np.ones((100, 100)), "b.weight": np.ones((100, 100))})
    update = np.random.default_rng(3).standard_normal(layout.n).astype(np.float32)
    update[:10_000] *= 1.5
    found = explain(layout, jw.load_device(LTE), density=0.1, update=update)
    top = np.sort(np.argsort(-np.abs(update), kind="stable")[:2000])
    counts = layout.counts(top.astype(np.uint32))
    assert counts.min() > 0
    by_hand = jw.price(layout, jw.load_device(LTE), density=counts / layout.sizes)
    assert [each.price for each in found.total.prices] == sorted(by_hand.per_kept.tolist())
    assert found.contrast == pytest.approx(by_hand.contrast)
    assert found.contrast > 1.05
    assert found.law == "update"
    assert found.topk.coordinates == 2000
    assert found.kinds[0].kept == 2000


def test_a_tensor_of_which_topk_keeps_nothing_is_priced_at_half_a_coordinate():
    layout = jw.Layout.of({"a.weight": np.ones((10, 10)), "b.weight": np.ones((10, 10))})
    update = np.concatenate([np.full(100, 2.0), np.full(100, 1.0)]).astype(np.float32)
    found = explain(layout, jw.load_device(LTE), density=0.1, update=update)
    by_hand = jw.price(layout, jw.load_device(LTE), density=np.array([0.2, 0.005]))
    assert [each.price for each in found.total.prices] == sorted(by_hand.per_kept.tolist())


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda u: np.where(np.arange(u.size) == 75, np.nan, u), "NaN or infinity in tensor 'fc.weight' .element 75"),
        (lambda u: u[:-1], r"update has shape \(207,\), but the costs are for \(208,\)"),
        (lambda u: 0 * u, "the update is zero everywhere"),
    ],
)
def test_an_update_that_cannot_be_used_is_refused_in_words(change, message):
    update = np.ones(SMALL.n, np.float32)
    with pytest.raises(UpdateError, match=message):
        explain(SMALL, jw.load_device(LTE), update=change(update))


@pytest.mark.parametrize("density", [0.0, -1.0, 1.5, float("nan")])
def test_a_density_that_is_no_share_is_refused(density):
    with pytest.raises(CostError, match=r"density is .*, expected a share above 0 and at most 1"):
        explain(SMALL, jw.load_device(LTE), density=density)


def test_a_density_that_keeps_nothing_is_refused():
    with pytest.raises(CostError, match=r"density 0.001 of 208 parameters keeps nothing; take at least 0.0049"):
        explain(SMALL, jw.load_device(LTE), density=0.001)


def test_a_model_with_nothing_to_send_is_refused():
    layout = jw.Layout.of({"head.weight": np.ones((2, 2))}, kinds={"*": "local"})
    with pytest.raises(CostError, match="no float parameters to send"):
        explain(layout, jw.load_device(LTE))


# ---------------------------------------------------------------- the record


def test_the_record_survives_json():
    found = explain(SMALL, jw.load_device(LTE), density=0.1)
    assert msgspec.json.decode(msgspec.json.encode(found), type=Explanation) == found


def test_kinds_add_up_to_the_total_and_terms_to_prices():
    found = explain(SMALL, flash_device(), density=0.1, value_bits={"conv*": 8, "*": 32})
    assert [part.kind for part in found.kinds] == ["conv", "linear", "vector"]
    assert [part.parameters for part in found.kinds] == [72, 128, 8]
    assert sum(part.energy for part in found.kinds) == pytest.approx(found.total.energy)
    assert found.total.energy == pytest.approx(found.topk.energy)
    for part in (*found.kinds, found.total):
        assert sum(part.terms.values()) == pytest.approx(part.mean_price)
        assert sum(part.kept_terms.values()) == pytest.approx(part.energy)
        assert sum(each.parameters for each in part.prices) == part.parameters
    assert set(found.total.terms) == {"send_buffer", "uplink", "persistence"}
    assert sum(each.share for each in found.total.prices) == pytest.approx(1)


def test_tensors_that_are_never_sent_are_counted_apart():
    layout = jw.Layout.of({"fc.weight": np.ones((8, 16)), "head.weight": np.ones((4, 8))}, kinds={"head*": "local"})
    found = explain(layout, jw.load_device(LTE), density=0.1)
    assert (found.parameters, found.never_sent) == (128, 32)


def test_relative_prices_have_no_round_and_no_dense_upload():
    found = explain(SMALL, jw.load_device("synthetic-kind-10"), density=0.1)
    assert (found.unit, found.dense, found.verdict.round_saving) == ("relative", None, None)
    assert (found.addressable, found.addressable_dense) == (None, None)
    assert found.verdict.answer == "matters"
    assert found.changes == ()
    assert any("no joules" in note for note in found.notes)


def test_the_round_by_hand():
    layout = jw.Layout.of({"fc.weight": np.ones((10, 10), np.float32), "bn.running_mean": np.ones(5, np.float32)})
    found = explain(layout, jw.load_device(LTE), density=0.5)
    charges = {charge.term: charge.energy for charge in found.round}
    assert charges == pytest.approx(
        {
            "kept": 50 * (32 * 16e-12 + 32 * 76.7e-9),  # half of them kept: a place takes no bits
            "whole": 5 * 32 * 76.7e-9,
            "fixed": 12.76,
            "selection": 100 * 32 * 8e-12,
            "downlink": 105 * 32 * 11.5e-9,
            "memory_update": 105 * 32 * 8e-12,
        }
    )
    assert found.addressable == pytest.approx(charges["kept"] / sum(charges.values()))
    besides = sum(charges.values()) - charges["kept"]
    everything = 100 * (32 * 16e-12 + 32 * 76.7e-9)
    assert found.addressable_dense == pytest.approx(everything / (everything + besides))


def test_training_is_in_the_round_where_the_device_prices_it_and_its_size_is_known():
    operation = number(2.0, "pJ")
    compute = {"add": operation, "multiply": operation, "training": number(5.0, "pJ")}
    device = msgspec.structs.replace(flash_device(), compute=msgspec.convert(compute, Compute))
    without, found = (explain(SMALL, device, 0.1, multiply_accumulates=macs) for macs in (None, 1e12))
    [training] = [charge.energy for charge in found.round if charge.term == "training"]
    assert training == pytest.approx(5.0)
    assert found.addressable < without.addressable
    assert any("training" in note for note in without.notes)
    assert not any("training" in note for note in found.notes)


def test_a_model_of_one_tensor_can_only_differ_between_clients():
    found = explain(jw.Layout.single(100), jw.load_device(LTE))
    assert [change.what.partition(":")[0] for change in found.changes] == ["clients on different links or batteries"]


TWO = jw.Layout.of({"fc.weight": np.ones((64, 100)), "out.weight": np.ones((64, 110))})


def saved_with(found, words):
    [change] = [change for change in found.changes if words in change.what]
    assert change.answer is not None
    return change.saving


@pytest.mark.parametrize("name", [LTE, "mcu-flash-ble-nrf5340", "lorawan-eu868-sf7", "table-45nm-horowitz-2014"])
@pytest.mark.parametrize("bits", [32, 8, {"fc*": 8, "*": 32}])
@pytest.mark.parametrize("recorded", [False, True])
def test_what_would_change_the_verdict_gives_another_one(name, bits, recorded):
    update = np.random.default_rng(6).laplace(size=TWO.n).astype(np.float32) if recorded else None
    found = explain(TWO, jw.load_device(name), density=0.05, value_bits=bits, update=update)
    for change in found.changes:
        if change.saving is None:
            assert change.what.startswith("clients on different links")
            assert found.verdict.answer != "matters"
        else:
            assert change.answer != found.verdict.answer
            assert change.tensors or "every tensor" in change.what
            assert all(tensor in change.what for tensor in change.tensors)


def test_what_is_so_already_is_not_offered():
    narrow = explain(TWO, jw.load_device(LTE), density=0.05, value_bits=8)
    assert not any("-bit values" in change.what for change in narrow.changes)
    mixed = explain(TWO, jw.load_device(LTE), density=0.05, value_bits={"out*": 8, "*": 32})
    assert mixed.verdict.answer == "matters"
    assert saved_with(mixed, "32-bit values in every tensor") == pytest.approx(0, abs=1e-9)
    partly = explain(TWO, flash_device(), density=0.05, in_ram=("out*",))
    assert partly.verdict.answer == "matters"
    assert not any("the others in" in change.what for change in partly.changes)
    for where in ("RAM", "flash"):
        assert saved_with(partly, f"every tensor in {where}") == pytest.approx(0, abs=1e-9)
    no_flash = explain(TWO, jw.load_device(LTE), density=0.05)
    assert not any("flash" in change.what for change in no_flash.changes)


def test_with_an_update_what_would_change_the_verdict_is_predicted_from_the_update():
    update = np.random.default_rng(7).standard_normal(TWO.n).astype(np.float32)
    update[6400:] *= 1.3  # of the larger tensor, which would get 8-bit values
    found = explain(TWO, jw.load_device(LTE), density=0.05, update=update)
    counts = TWO.counts(np.sort(np.argsort(-np.abs(update), kind="stable")[:672]).astype(np.uint32))
    share = np.maximum(counts, 0.5) / TWO.sizes
    by_hand = Recorded(jw.price(TWO, jw.load_device(LTE), np.array([32.0, 8.0]), share), update, 672)
    best = max(by_hand.saving(rule) for rule in RULES)
    assert saved_with(found, "8-bit values in out.weight (52.4 % of the parameters)") == pytest.approx(best, rel=1e-9)
    law = explain(TWO, jw.load_device(LTE), density=0.05)
    assert saved_with(law, "8-bit values in out.weight") != pytest.approx(best, rel=0.02)


# ---------------------------------------------------------------- what else stands in the way


def test_where_few_parameters_carry_the_saving_the_verdict_says_so():
    few = jw.Layout.of({"conv.weight": np.ones((10, 1, 3, 3)), "fc.weight": np.ones((90, 100))})
    found = explain(few, jw.load_device("synthetic-kind-10"), density=0.01)
    assert found.price_ratio == 1
    assert found.verdict.answer == "matters"
    assert "within a factor of 1.000 (all parameters: 10.000)" in found.verdict.text
    assert "comes from the 0.99 % of the parameters that cost less" in found.verdict.text
    assert found.spread.cheaper == pytest.approx(90 / 9090)
    even = explain(SMALL, jw.load_device("synthetic-kind-10"), density=0.1)
    assert even.price_ratio == 10
    assert "comes from the" not in even.verdict.text


@pytest.mark.parametrize("n", [*range(1, 300), 1000, 20376, 9999999])
def test_the_density_that_is_advised_keeps_something(n):
    layout = jw.Layout.of({"w": np.broadcast_to(np.float32(0), (n,))})
    with pytest.raises(CostError, match="keeps nothing") as refused:
        explain(layout, jw.load_device(LTE), density=0.5 / n)
    assert jw.Density(float(str(refused.value).rpartition(" ")[2])).count(n) >= 1


def test_a_tensor_without_elements_has_no_part_in_the_spread_of_prices():
    layout = jw.Layout.of({"empty": np.ones((0, 3), np.float32), "w": np.ones(5, np.float32)})
    update = np.arange(1, 6, dtype=np.float32)
    for found in (
        explain(layout, jw.load_device(LTE), 0.2, 32, update),
        explain(layout, jw.load_device(LTE), 0.2, {"empty": 8, "*": 32}),
    ):
        assert (found.contrast, found.spread.contrast, len(found.total.prices)) == (1.0, 1.0, 1)


def test_bytes_of_the_round_are_those_that_are_priced():
    layout = jw.Layout.of({"fc.weight": np.ones((10, 10), np.float32), "bn.running_mean": np.ones(5, np.float32)})
    found = explain(layout, jw.load_device(LTE), density=0.5)
    charges = {charge.term: charge.bytes for charge in found.round}
    assert charges == {"kept": 200, "whole": 20, "fixed": 0, "selection": 0, "downlink": 420, "memory_update": 0}
    assert (found.upload.bytes, found.upload_dense.bytes) == (220, 420)
    assert found.upload.seconds == pytest.approx(220 * 8 / 15e6)
    relative = explain(layout, jw.load_device("synthetic-kind-10"), density=0.5)
    assert [charge.bytes for charge in relative.round] == [200]
    assert (relative.upload, relative.upload_dense) == (None, None)


def test_an_upload_over_lora_tells_its_time_on_air_and_what_the_duty_cycle_makes_of_it():
    layout = jw.Layout.of({"fc.weight": np.broadcast_to(np.float32(0), (1000, 1000))})
    device = jw.load_device("lorawan-eu868-sf12")
    found = explain(layout, device, density=1.0)
    frames = 78432  # of 51 bytes, for 4 MB
    # SF12 at 125 kHz: a symbol takes 32.768 ms; 64 bytes take 8 + ceil((512 - 48 + 44) / 40) * 5 = 73 symbols.
    on_air = frames * (8 + 4.25 + 73) * 0.032768
    assert found.upload.on_air_s == pytest.approx(on_air)
    assert found.upload.seconds == pytest.approx(100 * on_air)
    assert "Mind that one upload of what TopK keeps takes 250 days, 2.5 days of it on air at a duty cycle of 1 %" in (
        found.verdict.text
    )
    assert found.upload.seconds == pytest.approx(32e6 / device.link.up.goodput.si, rel=1e-4)  # the last frame
    assert "on air" not in explain(layout, jw.load_device(LTE)).verdict.text


def test_a_model_that_does_not_fit_where_it_is_said_to_lie_is_told():
    layout = jw.Layout.of(
        {
            "fc.weight": np.broadcast_to(np.float32(0), (400, 500)),
            "head.weight": np.broadcast_to(np.float16(0), (100, 1000)),
            "bn.running_mean": np.zeros(1000, np.float64),
        },
        kinds={"head*": "local"},
    )
    stored = 800_000 + 200_000 + 8_000
    for capacity, fits in ((stored, True), (stored - 1, False)):
        level = {"read": number(1.0, "pJ/bit"), "write": number(1.0, "pJ/bit"), "capacity": number(capacity, "byte")}
        found = explain(layout, flash_device(sram=level, weights="sram"))
        assert found.misfits == (() if fits else (found.misfits[0],))
    assert found.misfits == (
        "the model, 1.01 MB, does not fit memory.sram of 1.01 MB, in which it lies between rounds",
    )
    assert f"Mind that {found.misfits[0]}." in found.verdict.text
    flash = explain(layout, jw.load_device("mcu-flash-ble-nrf5340"), in_ram=("fc*",))
    assert flash.misfits == (
        "its part in RAM, 800 kB, does not fit memory.sram of 524 kB, in which it lies between rounds",
    )
    assert explain(layout, jw.load_device(LTE)).misfits == ()  # no capacity is known


def test_training_that_cannot_be_charged_is_said_and_not_dropped():
    for name, why in ((LTE, "does not price one (compute.training)"), ("synthetic-kind-10", "relative prices")):
        found = explain(SMALL, jw.load_device(name), 0.1, multiply_accumulates=1e9)
        [note] = [note for note in found.notes if "1e+09 multiply-accumulates of training are not charged" in note]
        assert why in note


def test_without_the_link_neither_upload_nor_download_is_in_the_round():
    found = explain(SMALL, jw.load_device(LTE), density=0.5, boundary="memory")
    assert not {charge.term for charge in found.round if charge.energy} & {"downlink", "fixed", "whole"}
    assert set(found.total.terms) == {"send_buffer"}
    assert (found.upload, found.upload_dense) == (None, None)


# ---------------------------------------------------------------- flash


def test_weights_that_all_lie_in_flash_cost_the_same_and_pages_are_in_the_round():
    layout = jw.Layout.of({"fc.weight": np.ones((64, 100)), "out.weight": np.ones((10, 64))})
    device = flash_device()
    update = np.random.default_rng(4).laplace(size=layout.n).astype(np.float32)
    expected, found = explain(layout, device, density=0.02), explain(layout, device, density=0.02, update=update)
    assert expected.contrast == 1
    assert expected.verdict.answer == "does not matter"
    # 6,400 weights on pages of 1,024 touch 7 of them, 640 touch one: 8 erased and written whole.
    pages = 8 * (0.1e-3 + 4096 * 8 * 40e-9)
    for one in (expected, found):
        charges = {charge.term: charge.energy for charge in one.round}
        kept = one.topk.coordinates
        assert charges["persistence"] == pytest.approx(kept * 32 * 40e-9)
        assert charges["blocks"] + charges["persistence"] == pytest.approx(pages, rel=1e-3)
        assert one.addressable > 0.9


def test_some_weights_in_ram_and_others_in_flash_would_turn_the_verdict():
    layout = jw.Layout.of({"fc.weight": np.ones((64, 100)), "out.weight": np.ones((64, 110))})
    found = explain(layout, flash_device(), density=0.02)
    [change] = [each for each in found.changes if "flash" in each.what]
    assert change.what == "out.weight (52.4 % of the parameters) in RAM, the others in flash"
    assert change.tensors == ("out.weight",)
    assert change.saving > 0.1
    [other] = [
        each for each in explain(layout, flash_device(weights="sram"), density=0.02).changes if "flash" in each.what
    ]
    assert other.what == "out.weight (52.4 % of the parameters) in flash, the others in RAM"
    assert other.saving > 0.1
    chosen = np.array([False, True])
    costs = jw.price(layout, flash_device(), density=0.02)
    [persistence] = [term.per_kept for term in costs.terms if term.name == "persistence"]
    partly = replace(costs, per_kept=costs.per_kept - np.where(chosen, persistence, 0.0))
    best = max(Laplace(partly, 0.02).predict(rule).equal_energy.saving for rule in RULES)
    assert change.saving in (best, pytest.approx(best))


def test_a_shipped_profile_with_weights_partly_in_flash_turns_the_verdict(resnet18):
    device = jw.load_device("mcu-flash-ble-nrf5340")
    found = explain(resnet18, device, in_ram=("layer4.*",))
    assert found.verdict.answer == "matters"
    assert found.verdict.saving > 0.1
    assert found.price_ratio > 1.9
    assert min(each.overlap for each in found.predictions) < 0.9
    whole = explain(resnet18, device)
    assert whole.verdict.answer == "does not matter"
    terms, before = ({charge.term: charge.energy for charge in each.round} for each in (found, whole))
    spared = sum(tensor.size for tensor in resnet18.tensors if tensor.name.startswith("layer4.")) / resnet18.n
    for term in ("persistence", "blocks"):
        assert terms[term] == pytest.approx(before[term] * (1 - spared), rel=0.01)
    assert terms["kept"] == pytest.approx(before["kept"])


def test_a_message_is_charged_no_flash_for_tensors_in_ram():
    costs = jw.price(SMALL, flash_device(), density=0.1, in_ram=["conv.weight"])
    update = np.concatenate([np.ones(72), np.zeros(136)]).astype(np.float32)
    sent = jw.Compressor(jw.CWMP(), jw.Density(0.1)).compress(update, None, costs)
    charges = {charge.term: charge.energy for charge in sent.charges}
    assert charges["kept"] > 0
    assert (charges["persistence"], charges["blocks"]) == (0, 0)


def test_tensors_in_ram_need_weights_in_flash():
    with pytest.raises(CostError, match="in_ram is for devices whose weights lie in flash"):
        explain(SMALL, jw.load_device(LTE), density=0.1, in_ram=("conv*",))
    with pytest.raises(CostError, match=r"in_ram\['head\*'\] matches no tensor"):
        explain(SMALL, flash_device(), density=0.1, in_ram=("head*",))


# ---------------------------------------------------------------- memory alone


def test_a_device_without_a_link_is_priced_by_its_memory_and_one_without_memory_says_so():
    table = explain(SMALL, jw.load_device("table-45nm-horowitz-2014"), density=0.1)
    assert (table.boundary, table.dense) == ("memory", None)
    with pytest.raises(CostError, match=r"boundary is 'radio', but device 'table-45.*' has no \[link\]; give 'memory'"):
        explain(SMALL, jw.load_device("table-45nm-horowitz-2014"), density=0.1, boundary="radio")
    with pytest.raises(CostError, match=r"device 'lorawan-eu868-sf7' has no \[memory\]; give 'radio' or 'device'"):
        explain(SMALL, jw.load_device("lorawan-eu868-sf7"), density=0.1, boundary="memory")
    lora = explain(SMALL, jw.load_device("lorawan-eu868-sf7"), density=0.1)
    assert any("upper bound: training, receiving the model, writing it to memory" in note for note in lora.notes)


def test_a_profile_with_a_scratchpad_matters_when_the_radio_is_left_out():
    near = {"read": number(0.2, "pJ/bit"), "write": number(0.2, "pJ/bit"), "capacity": number(400.0, "byte")}
    far = {"read": number(20.0, "pJ/bit"), "write": number(20.0, "pJ/bit")}
    device = flash_device(sram=near, dram=far, weights="sram")
    found = explain(SMALL, device, density=0.1, boundary="memory")  # 80 of 208 parameters fit
    assert found.price_ratio == pytest.approx(100)
    assert found.verdict.answer == "matters"
    assert explain(SMALL, device, density=0.1).verdict.answer == "does not matter"  # the radio hides it


@pytest.mark.parametrize("name", jw.list_devices())
def test_every_shipped_device_can_be_explained(name):
    found = explain(SMALL, jw.load_device(name), density=0.1)
    assert found.device == name
    assert np.isfinite([found.contrast, found.price_ratio, found.verdict.saving]).all()
    # The links of a fleet differ from each other; each by itself has one price.
    differ = found.unit == "relative" and not name.startswith("synthetic-link-")
    assert found.verdict.answer == ("matters" if differ else "does not matter")
