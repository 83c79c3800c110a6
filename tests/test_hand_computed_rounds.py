"""Rounds of one client that a reader can work out on paper, term by term, against the ledger.

The model has three tensors, and a buffer that travels whole:

    conv.weight     36 parameters
    fc.weight      100 parameters
    fc.bias          4 parameters      140 in all
    norm.running_mean   8 float32 numbers = 256 bits

Kept are coordinates 0, 1 and 20 of conv.weight, 3 and 70 of fc.weight (numbers 39 and 106 of the flat vector), and
none of fc.bias. The message is one that was not really encoded, so that its bits are round numbers: 14 bytes of header,
120 bits for conv.weight, 80 bits for fc.weight, 32 bytes for the buffer: 14 + 15 + 10 + 32 = 71 bytes.
"""

import msgspec
import numpy as np
import pytest

from joulewise.codec import Encoded
from joulewise.devices import Compute, Device, Direction, Level, Link, Memory, load_device
from joulewise.durations import RoundTime, round_time
from joulewise.errors import CostError
from joulewise.layout import Layout, Tensor
from joulewise.ledger import MASK_TERMS, addressable, mask_energy, round_charges, total, uplink_charges
from joulewise.persistence import rewriting
from joulewise.prices import price
from joulewise.quantities import Energy, EnergyPerBit, EnergyPerOperation, Factor, Power, Rate, Size
from joulewise.select import Selection

MODEL = Layout(
    (
        Tensor("conv.weight", (4, 1, 3, 3), "conv", "float32"),
        Tensor("fc.weight", (10, 10), "linear", "float32"),
        Tensor("fc.bias", (4,), "vector", "float32"),
    ),
    wholes=(Tensor("norm.running_mean", (8,), "buffer", "float32"),),
    locals=(Tensor("head.weight", (1000, 10), "local", "float32"),),  # never sent: in none of the sums
)
KEPT = Selection(140, np.array([0, 1, 20, 39, 106], np.uint32), np.ones(5, np.float32))
MESSAGE = Encoded(bytes(71), np.array([120.0, 80.0, 0.0]), header_bytes=14, whole_bytes=32)
PICO, NANO, MICRO, MILLI = 1e-12, 1e-9, 1e-6, 1e-3


def known(kind, value, unit):
    return kind(value, unit, "assumed", "a round number for a test", 2026)


def level(read, write, **more):
    return Level(known(EnergyPerBit, read, "pJ/bit"), known(EnergyPerBit, write, "pJ/bit"), **more)


def device(**parts) -> Device:
    return Device(schema=1, name="on paper", description="Round numbers.", unit="J", **parts)


def assert_terms(charges, expected: dict[str, float]) -> None:
    """The same terms in the same order, each to a part in 1e9, and so their sum."""
    assert [charge.term for charge in charges] == list(expected)
    for charge in charges:
        assert charge.energy == pytest.approx(expected[charge.term], rel=1e-9, abs=0), charge.term
        assert (charge.unit, charge.basis) == ("J", "modelled")
    assert total(charges) == pytest.approx(sum(expected.values()), rel=1e-9)


PHONE = device(
    memory=Memory(dram=level(8.0, 8.0)),
    compute=Compute(
        known(EnergyPerOperation, 1.0, "pJ"),
        known(EnergyPerOperation, 4.0, "pJ"),
        training=known(EnergyPerOperation, 50.0, "pJ"),
    ),
    link=Link(
        up=Direction(known(EnergyPerBit, 100.0, "nJ/bit"), known(Rate, 10.0, "Mbit/s")),
        down=Direction(known(EnergyPerBit, 20.0, "nJ/bit")),
        base_power=known(Power, 2.0, "W"),
        fixed=known(Energy, 10.0, "J"),
    ),
    idle_power=known(Power, 0.5, "W"),
)


def test_a_phone_with_base_power_that_trains_and_waits():
    # Per bit: 100 nJ marginal, and 2 W / 10 Mbit/s = 200 nJ of base power: 300 nJ.
    # Send buffer: 32 bits are written and read at 8 pJ: 32 * 16 = 512 pJ for each of the five that are kept.
    # Of 30 s it trains for 20 and sends 71 bytes at 10 Mbit/s for 56.8 us; how long receiving takes is not known.
    costs = price(MODEL, PHONE, value_bits=32, boundary="device")
    reply = uplink_charges(MESSAGE, KEPT, costs)
    charges = round_charges(
        reply,
        MODEL,
        PHONE,
        bytes_down=1000,
        multiply_accumulates=2e6,
        wall_time_s=30.0,
        training_s=20.0,
        remembers=True,
    )
    expected = {
        "header": 14 * 8 * 300 * NANO,
        "kept": (120 + 80) * 300 * NANO + 5 * 512 * PICO,
        "whole": 32 * 8 * 300 * NANO,
        "fixed": 10.0,
        "training": 2e6 * 50 * PICO,
        "selection": 140 * 32 * 8 * PICO,
        "residual": 140 * 32 * (8 + 8) * PICO,
        "downlink": 1000 * 8 * 20 * NANO,
        "memory_update": (140 * 32 + 256) * 8 * PICO,
        "idle": 0.5 * (30 - 20 - 56.8 * MICRO),
    }
    assert_terms(charges, expected)
    assert [charge.bytes for charge in charges] == [14, 25, 32, 0, 0, 0, 0, 1000, 0, 0]
    assert mask_energy(MESSAGE, KEPT, costs) == pytest.approx(expected["header"] + expected["kept"], rel=1e-12)
    assert addressable(charges) == pytest.approx((expected["header"] + expected["kept"]) / sum(expected.values()))


MICROCONTROLLER = device(
    memory=Memory(
        sram=level(1.0, 2.0),
        flash=level(
            5.0, 10_000.0, page=known(Size, 64.0, "byte"), erase=known(Energy, 3.0, "uJ")
        ),  # 10 nJ per written bit; 16 parameters on a page
        weights="flash",
    ),
    link=Link(
        up=Direction(known(EnergyPerBit, 20.0, "nJ/bit")),
        down=Direction(known(EnergyPerBit, 15.0, "nJ/bit")),
        framing=known(Factor, 1.5, "1"),
        retransmission=known(Factor, 1.2, "1"),
    ),
)


def test_a_microcontroller_whose_weights_lie_in_flash_with_two_more_that_receive():
    # Per bit on air: framing 1.5 * retransmission 1.2 = 1.8; up 36 nJ, down 27 nJ.
    # Values of 16 bits: the send buffer in SRAM takes 16 * (1 + 2) = 48 pJ.
    # Flash: a kept coordinate rewrites 32 bits: 320 nJ. Pages of 16 parameters: 0 and 1 share the first of conv.weight,
    # 20 is on its second; 3 and 70 of fc.weight are on its first and fifth: 4 pages. A page is erased (3 uJ) and
    # 512 bits of it are written (5.12 uJ): 8.12 uJ, of which the five kept coordinates have paid 320 nJ each.
    # The model that arrives rewrites all of its flash: 3 + 7 + 1 pages of parameters, and one of the buffer's 256 bits.
    # Two receivers do the same: twice the flash, and each hears the 200 bits of the kept coordinates.
    costs = price(MODEL, MICROCONTROLLER, value_bits=16, fan_out=2)
    assert [term.name for term in costs.terms] == [
        "send_buffer",
        "uplink",
        "persistence",
        "downlink_share",
        "receiver_write",
    ]
    charges = round_charges(uplink_charges(MESSAGE, KEPT, costs), MODEL, MICROCONTROLLER, bytes_down=600)
    expected = {
        "header": 14 * 8 * 36 * NANO,
        "kept": 200 * 36 * NANO + 5 * 48 * PICO,
        "persistence": 5 * 320 * NANO,
        "downlink_share": 2 * 200 * 27 * NANO + 2 * 5 * 320 * NANO,
        "blocks": 3 * (4 * 8.12 * MICRO - 5 * 320 * NANO),
        "whole": 32 * 8 * 36 * NANO,
        "fixed": 0.0,
        "selection": 140 * 32 * 1 * PICO,
        "downlink": 600 * 8 * 27 * NANO,
        "memory_update": (140 * 32 + 256) * 2 * PICO,
        "flash_update": 12 * 8.12 * MICRO,
    }
    assert_terms(charges, expected)
    in_reach = sum(energy for term, energy in expected.items() if term in MASK_TERMS)
    assert mask_energy(MESSAGE, KEPT, costs) == pytest.approx(in_reach, rel=1e-12)
    assert addressable(charges) == pytest.approx(in_reach / sum(expected.values()))


def test_flash_is_rewritten_once_in_a_round_and_paid_for_by_what_the_client_keeps_and_by_what_arrives():
    # Of the 11 pages of parameters, the reply has paid for the 4 on which something kept lies: 4 * 8.12 uJ in
    # persistence and blocks. What arrives pays for the other 7 and for the buffer's: 12 pages in all, whatever is kept.
    costs = price(MODEL, MICROCONTROLLER, value_bits=16)
    reply = uplink_charges(MESSAGE, KEPT, costs)
    rewritten = rewriting(costs, KEPT.indices)
    assert rewritten == pytest.approx(7 * 8.12 * MICRO, rel=1e-9)
    charges = round_charges(reply, MODEL, MICROCONTROLLER, bytes_down=600, rewritten=rewritten)
    by_term = {charge.term: charge for charge in charges}
    assert by_term["flash_update"].energy == pytest.approx(8 * 8.12 * MICRO, rel=1e-9)
    assert by_term["flash_update"].basis == "modelled"
    in_flash = sum(by_term[term].energy for term in ("persistence", "blocks", "flash_update"))
    assert in_flash == pytest.approx(12 * 8.12 * MICRO, rel=1e-9)
    # Where the server sends only what changed, 39 and 40 (first page of fc.weight, paid for) and 138 (fc.bias, not).
    assert rewriting(costs, KEPT.indices, np.array([39, 40, 138], np.uint32)) == pytest.approx(8.12 * MICRO, rel=1e-9)
    # fc.weight in RAM: 2 of the other 4 pages are paid for.
    close = price(MODEL, MICROCONTROLLER, in_ram=["fc.weight"])
    assert rewriting(close, KEPT.indices) == pytest.approx(2 * 8.12 * MICRO, rel=1e-9)
    # Nothing arrives, nothing is written; and a phone has no flash to write to.
    quiet = round_charges(reply, MODEL, MICROCONTROLLER, bytes_down=0)
    assert not {"memory_update", "flash_update"} & {charge.term for charge in quiet}
    assert rewriting(price(MODEL, PHONE), KEPT.indices) == 0.0
    # Flash without pages, 10 nJ per bit: 140 - 5 parameters of 32 bits, and 256 bits of the buffer.
    bare = device(memory=Memory(sram=level(1.0, 2.0), flash=level(5.0, 10_000.0), weights="flash"))
    left = rewriting(price(MODEL, bare, boundary="memory"), KEPT.indices)
    assert left == pytest.approx(135 * 32 * 10 * NANO, rel=1e-9)
    (found,) = (c for c in round_charges((), MODEL, bare, bytes_down=1, rewritten=left) if c.term == "flash_update")
    assert found.energy == pytest.approx((135 * 32 + 256) * 10 * NANO, rel=1e-9)


def test_every_second_of_a_round_is_paid_for_once():
    # 10 Mbit/s up, 40 Mbit/s down: 5,000,000 bytes arrive in 1 s, 10,000,000 leave in 8 s; training takes 40 of 60 s,
    # so that 11 s are spent waiting. 2 W for 9 s of the link, 0.5 W for 11 s, 50 pJ for each multiply-accumulate.
    down = Direction(known(EnergyPerBit, 20.0, "nJ/bit"), known(Rate, 40.0, "Mbit/s"))
    phone = msgspec.structs.replace(PHONE, link=msgspec.structs.replace(PHONE.link, down=down))
    time = round_time(phone, 60.0, bytes_up=10_000_000, bytes_down=5_000_000, training_s=40.0)
    assert time == RoundTime(receiving_s=1.0, training_s=40.0, sending_s=8.0, waiting_s=11.0)
    assert time.total_s == 60.0
    message = Encoded(bytes(10_000_000), np.array([79_999_632.0, 0.0, 0.0]), header_bytes=14, whole_bytes=32)
    base = 0.0
    for boundary, sign in (("device", 1), ("radio", -1)):
        reply = uplink_charges(message, KEPT, price(MODEL, phone, boundary=boundary))
        charges = round_charges(
            reply, MODEL, phone, bytes_down=5_000_000, multiply_accumulates=1e12, wall_time_s=60.0, training_s=40.0,
            boundary=boundary,
        )  # fmt: skip
        by_term = {charge.term: charge.energy for charge in charges}
        assert by_term["idle"] == pytest.approx(0.5 * 11, rel=1e-9)
        assert by_term["training"] == pytest.approx(50.0, rel=1e-9)
        base += sign * total(charges)
    assert base == pytest.approx(2.0 * (1 + 8), rel=1e-9)


def test_the_parts_of_a_round_must_fit_into_it():
    for arguments, words in (
        (
            {"wall_time_s": 3.0, "training_s": 4.0},
            "wall_time_s is 3, but receiving .* time of the whole round",
        ),
        ({"wall_time_s": 3.0}, "give training_s"),
        ({"wall_time_s": 3.0, "training_s": -1.0}, "training_s is -1.0, expected a finite number of at least 0"),
    ):
        with pytest.raises(CostError, match=words):
            round_charges((), MODEL, PHONE, bytes_down=0, multiply_accumulates=1e6, **arguments)
    # SF7 of the shipped node: a frame of 222 bytes is on air for some 0.37 s; at 1 % the silence after it is waiting.
    lora = load_device("lorawan-eu868-sf7")
    up = lora.link.up
    busy = round_time(lora, 100.0, bytes_up=int(up.payload.si))
    twice = known(Factor, 2.0, "1")
    again = msgspec.structs.replace(lora, link=msgspec.structs.replace(lora.link, retransmission=twice))
    # Each second of sending pays for the power of the radio, however often a bit is sent.
    assert round_time(again, 100.0, bytes_up=int(up.payload.si)).sending_s == pytest.approx(2 * busy.sending_s)
    with pytest.raises(CostError, match="the power of a LoRa uplink is the whole device's already"):
        price(MODEL, again, boundary="device")
    assert busy.sending_s == pytest.approx(up.time_on_air_s)
    assert busy.sending_s == pytest.approx(0.01 * int(up.payload.si) * 8 / up.goodput.si)
    assert busy.waiting_s == pytest.approx(100.0 - up.time_on_air_s)


def test_links_that_carry_nothing_take_nothing_once():
    # fc.bias alone goes over the second link, whose promotion and tail are 3 J; it keeps nothing of KEPT.
    second = Link(up=Direction(known(EnergyPerBit, 10.0, "nJ/bit")), fixed=known(Energy, 3.0, "J"))
    costs = price(MODEL, PHONE, link={"fc.bias": second})
    assert costs.fixed == 13.0
    fixed = {charge.term: charge.energy for charge in uplink_charges(MESSAGE, KEPT, costs)}["fixed"]
    assert fixed == 10.0
    with_bias = Selection(140, np.array([0, 139], np.uint32), np.ones(2, np.float32))
    encoded = Encoded(bytes(71), np.array([120.0, 0.0, 80.0]), header_bytes=14, whole_bytes=32)
    assert {c.term: c.energy for c in uplink_charges(encoded, with_bias, costs)}["fixed"] == 13.0
    # Header and buffer go over the link that is dearer per bit, so a reply that keeps nothing takes the first alone.
    nothing = Selection(140, np.empty(0, np.uint32), np.empty(0, np.float32))
    assert {c.term: c.energy for c in uplink_charges(encoded, nothing, costs)}["fixed"] == 10.0
    # A link of no tensor, or of one without elements, is none.
    hollow = Layout((*MODEL.tensors, Tensor("fc.none", (0,), "vector", "float32")))
    assert price(hollow, PHONE, link={"fc.none": second}).fixed == 10.0
    assert price(MODEL, PHONE, link={"fc.*": PHONE.link, "*": PHONE.link}).fixed == 10.0


ACCELERATOR = device(
    memory=Memory(
        sram=level(0.5, 0.5, capacity=known(Size, 512.0, "byte")),
        dram=level(10.0, 20.0, line=known(Size, 32.0, "byte")),  # 8 parameters in a line
        weights="sram",
    ),
    compute=Compute(
        known(EnergyPerOperation, 0.9, "pJ"),
        known(EnergyPerOperation, 3.7, "pJ"),
        per_update=known(EnergyPerOperation, 2.0, "nJ"),
    ),
    link=Link(up=Direction(known(EnergyPerBit, 10.0, "nJ/bit"))),
)
FAST = Link(up=Direction(known(EnergyPerBit, 1.0, "nJ/bit")))


def test_a_scratchpad_beside_dram_that_prunes_gradients_before_momentum():
    # Momentum needs two arrays: 8 bytes a parameter. Smallest first into 512 bytes: fc.bias 32, conv.weight 288 more
    # is 320; fc.weight would be 1120: it stays in DRAM.
    # A step reads gradient, weight and momentum and writes the last two, and takes 2 multiplications and 2 additions
    # and 2 nJ of instructions: 2 * 3.7 + 2 * 0.9 + 2000 = 2009.2 pJ.
    #   conv.weight in SRAM: 32 * (3 * 0.5 + 2 * 0.5) =   80 pJ, no lines
    #   fc.weight in DRAM:   32 * (3 * 10 + 2 * 20)   = 2240 pJ; the 8 of a line move at once
    # 3 and 70 of fc.weight lie in two lines: 2 * 8 * 2240 pJ move, of which two coordinates have paid 2240 each.
    # fc.* goes over a link of its own at 1 nJ/bit, the rest at 10; header and buffer are charged at the dearer one.
    # Send buffer, 32 bits written and read: conv.weight 32 * 1 = 32 pJ, fc.weight 32 * 30 = 960 pJ.
    costs = price(
        MODEL, ACCELERATOR, value_bits=32, density=0.5, link={"fc.*": FAST}, update="gradient", optimizer="momentum"
    )
    # At one half, telling where a coordinate is takes 0 bits more: prices are round numbers, too.
    assert costs.per_kept == pytest.approx(
        np.array(
            [
                32 * PICO + 320 * NANO + 80 * PICO + 2009.2 * PICO,
                960 * PICO + 32 * NANO + 2240 * PICO + 2009.2 * PICO,
                32 * PICO + 32 * NANO + 80 * PICO + 2009.2 * PICO,
            ]
        ),
        rel=1e-9,
    )
    charges = round_charges(
        uplink_charges(MESSAGE, KEPT, costs), MODEL, ACCELERATOR, bytes_down=1000, multiply_accumulates=1e6
    )
    expected = {
        "header": 14 * 8 * 10 * NANO,
        "kept": 120 * 10 * NANO + 80 * 1 * NANO + 3 * 32 * PICO + 2 * 960 * PICO,
        "optimizer": 3 * 80 * PICO + 2 * 2240 * PICO + 5 * 2009.2 * PICO,
        "blocks": (2 * 8 - 2) * 2240 * PICO,
        "whole": 32 * 8 * 10 * NANO,
        "fixed": 0.0,
        # No training: the device does not say what a multiply-accumulate takes. No downlink either. After the step
        # only the weights are worked on: 4 bytes a parameter, of which fc.bias and conv.weight fit as before.
        "selection": 40 * 32 * 0.5 * PICO + 100 * 32 * 10 * PICO,
        "memory_update": 40 * 32 * 0.5 * PICO + 100 * 32 * 20 * PICO + 256 * 20 * PICO,
    }
    assert_terms(charges, expected)


def test_values_alone_a_dense_upload_of_resnet18_over_lte_takes_27_joules_and_97_with_base_power():
    phone, parameters = load_device("phone-lte-2021"), 11_173_962
    layout = Layout((Tensor("resnet18", (parameters,), "vector", "float32"),))
    bits = 32 * parameters  # 357,566,784 bits
    # 76.7 nJ/bit marginal; 2.93 W / 15 Mbit/s = 195.3 nJ/bit of base power.
    for boundary, joules in (("radio", bits * 76.7 * NANO), ("device", bits * (76.7 * NANO + 2.93 / 15e6))):
        costs = price(layout, phone, value_bits=32, density=1.0, boundary=boundary)
        values = sum(term.per_bit[0] * bits for term in costs.terms)
        assert values == pytest.approx(joules, rel=1e-9)
        assert values == pytest.approx({"radio": 27.4, "device": 97.3}[boundary], abs=0.05)
