"""The parts of a device: what a link charges per payload bit, what a LoRa frame takes, where a model lies."""

import pickle

import msgspec
import pytest

from joulewise.devices import Device, Direction, Level, Link, LoRa, Memory, describe
from joulewise.quantities import Energy, EnergyPerBit, Factor, Frequency, Number, Power, Rate, Share, Size

ORIGIN = ("assumed", "a test", 2020)
TEN_NJ = EnergyPerBit(10.0, "nJ/bit", *ORIGIN)
LEVEL = Level(TEN_NJ, TEN_NJ)


def lora(spreading_factor=9.0, payload=115.0, **changes) -> LoRa:
    return LoRa(
        **{
            "spreading_factor": Number(spreading_factor, "1", *ORIGIN),
            "bandwidth": Frequency(125.0, "kHz", *ORIGIN),
            "coding_rate": Number(1.0, "1", *ORIGIN),
            "preamble": Number(8.0, "1", *ORIGIN),
            "payload": Size(payload, "byte", *ORIGIN),
            "header": Size(13.0, "byte", *ORIGIN),
            "power": Power(137.082, "mW", *ORIGIN),
            **changes,
        }
    )


def test_a_link_without_factors_charges_its_marginal_energy_and_nothing_for_what_is_unknown():
    link = Link(Direction(TEN_NJ))
    assert (link.up_per_bit, link.down_per_bit, link.base_per_bit) == (1e-8, 0.0, None)


def test_framing_and_retransmission_multiply_both_directions_and_leave_the_base_power_alone():
    rate = Rate(2.0, "Mbit/s", *ORIGIN)
    down = Direction(EnergyPerBit(8.0, "nJ/byte", *ORIGIN))
    link = Link(
        Direction(TEN_NJ, rate),
        down=down,
        base_power=Power(3.0, "W", *ORIGIN),
        framing=Factor(1.5, "1", *ORIGIN),
        retransmission=Factor(2.0, "1", *ORIGIN),
    )
    assert link.up_per_bit == pytest.approx(30e-9)
    assert link.down_per_bit == pytest.approx(3e-9)
    assert link.base_per_bit == pytest.approx(3.0 / 2e6)


@pytest.mark.parametrize(
    ("spreading_factor", "payload", "symbols", "symbol_ms"),
    [
        (7.0, 222.0, 348, 1.024),  # ceil((8*235 - 28 + 44) / 28) = 68 groups of 5, and 8
        (9.0, 115.0, 153, 4.096),  # ceil((8*128 - 36 + 44) / 36) = 29 groups of 5, and 8
        (12.0, 51.0, 73, 32.768),  # ceil((8*64 - 48 + 44) / 40) = 13 groups of 5, and 8: slow symbols
        (7.0, 1.0, 33, 1.024),  # ceil((8*14 - 28 + 44) / 28) = 5 groups of 5, and 8: without the check sum, 4 groups
        (11.0, 51.0, 83, 16.384),  # ceil((8*64 - 44 + 44) / 36) = 15 groups of 5, and 8: just slow
    ],
)
def test_the_time_on_air_of_a_frame_is_the_formula_worked_by_hand(spreading_factor, payload, symbols, symbol_ms):
    frame = lora(spreading_factor, payload)
    assert frame.time_on_air_s == pytest.approx((8 + 4.25 + symbols) * symbol_ms * 1e-3, rel=1e-12)
    assert frame.marginal.si == pytest.approx(0.137082 * frame.time_on_air_s / (8 * payload), rel=1e-12)


def test_the_energies_per_bit_of_lora_are_those_of_an_independent_computation():
    energies = [lora(*setting).marginal.si * 1e6 for setting in ((7.0, 222.0), (9.0, 115.0), (12.0, 51.0))]
    assert energies == pytest.approx([28.5, 101.0, 939.0], rel=3e-3)


def test_the_duty_cycle_of_a_link_limits_the_goodput_of_lora_and_is_described_once():
    free, limited = Link(lora()), Link(lora(), duty_cycle=Share(1.0, "%", *ORIGIN))
    assert limited.up.goodput.si == pytest.approx(0.01 * free.up.goodput.si)
    assert limited.up_per_bit == free.up_per_bit == lora().marginal.si
    paths = [entry.path for entry in describe(limited, "link")]
    assert [path for path in paths if "duty" in path] == ["link.duty_cycle"]
    assert {"link.up.marginal", "link.up.goodput", "link.up.spreading_factor"} <= set(paths)
    again = msgspec.convert(msgspec.to_builtins(limited), Link)
    assert again == limited == pickle.loads(pickle.dumps(limited))
    with pytest.raises(ValueError, match=r"link\.duty_cycle alone"):
        Link(lora(duty_cycle=Share(1.0, "%", *ORIGIN)), duty_cycle=Share(2.0, "%", *ORIGIN))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"spreading_factor": 6.0}, "`spreading_factor` is 6, expected 7 to 12"),
        ({"spreading_factor": 13.0}, "`spreading_factor` is 13"),
        ({"coding_rate": Number(5.0, "1", *ORIGIN)}, "`coding_rate` is 5, expected 1 to 4"),
        ({"payload": 243.0}, "are 256 bytes together, expected at most 255"),
    ],
)
def test_a_lora_setting_out_of_range_is_refused(changes, message):
    with pytest.raises(ValueError, match=message):
        lora(**changes)


def test_a_model_lies_in_dram_or_else_in_sram_or_where_it_is_said_to():
    assert Memory(dram=LEVEL, sram=LEVEL).home == "dram"
    assert Memory(sram=LEVEL).home == "sram"
    assert Memory(sram=LEVEL, flash=LEVEL, weights="flash").home == "flash"
    other = Level(TEN_NJ, EnergyPerBit(20.0, "nJ/bit", *ORIGIN))
    assert Memory(dram=other, sram=LEVEL).main is other
    assert Memory(sram=other, flash=LEVEL, weights="flash").main is other


@pytest.mark.parametrize(
    ("arguments", "message"),
    [({}, "has .memory.dram. or .memory.sram."), ({"sram": LEVEL, "weights": "flash"}, r"no \[memory\.flash\]")],
)
def test_a_memory_without_what_it_needs_is_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        Memory(**arguments)


def test_a_page_and_its_erase_energy_come_together():
    with pytest.raises(ValueError, match="`page` is there without `erase`"):
        Level(TEN_NJ, TEN_NJ, page=Size(4.0, "KiB", *ORIGIN))
    with pytest.raises(ValueError, match="`erase` is there without `page`"):
        Level(TEN_NJ, TEN_NJ, erase=Energy(1.0, "mJ", *ORIGIN))


def test_a_relative_device_has_nothing_in_joules():
    with pytest.raises(ValueError, match="nothing in joules"):
        Device(schema=1, name="x", description="", unit="relative", idle_power=Power(1.0, "W", *ORIGIN))


def test_a_base_power_beside_lora_would_be_paid_twice_and_is_refused():
    power = Power(10.0, "mW", "assumed", "a test", 2026)
    with pytest.raises(ValueError, match="base_power"):
        Link(up=lora(), base_power=power)
