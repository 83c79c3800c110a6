"""Device profiles: every number has a unit and an origin, and a wrong file says where it is wrong."""

from pathlib import Path

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from joulewise.devices import (
    Energy,
    EnergyPerBit,
    Power,
    Quantity,
    Rate,
    Relative,
    Share,
    check,
    describe,
    list_devices,
    load_device,
)
from joulewise.errors import ProfileError

DIMENSIONS = [EnergyPerBit, Energy, Power, Rate, Relative, Share]

ORIGIN = 'kind = "assumed", source = "a test", year = 2020'
RADIO = f"""
schema = 1
name = "radio"
description = "A radio."
unit = "J"
[link.up]
marginal = {{ value = 10.0, unit = "nJ/bit", {ORIGIN} }}
"""


def write(folder: Path, text: str) -> Path:
    file = folder / "mine.toml"
    file.write_text(text)
    return file


def quantity(dimension: type[Quantity], value: float, unit: str, source: str = "a test") -> Quantity:
    raw = {"value": value, "unit": unit, "kind": "assumed", "source": source, "year": 2020}
    return msgspec.convert(raw, type=dimension)


def test_the_devices_that_come_along_are_listed_in_order():
    assert list_devices() == ("phone-lte-2021", "synthetic-kind-10", "synthetic-residency-32")


@pytest.mark.parametrize("name", list_devices())
def test_a_device_that_comes_along_is_named_as_its_file_and_nothing_in_it_is_implausible(name):
    device = load_device(name)
    assert device.name == name
    assert device.description
    assert check(device) == ()


@pytest.mark.parametrize("name", list_devices())
def test_every_number_of_a_device_is_described_with_its_origin(name):
    entries = describe(load_device(name))
    assert len({entry.path for entry in entries}) == len(entries) > 0
    assert all(len(entry.source) > 20 and entry.year >= 2012 for entry in entries)


@pytest.mark.parametrize("name", [name for name in list_devices() if name.startswith("synthetic-")])
def test_synthetic_devices_are_relative_and_own_up_to_it(name):
    device = load_device(name)
    assert (device.unit, device.link, device.memory) == ("relative", None, None)
    assert all(entry.kind == "assumed" and "synthetic" in entry.source for entry in describe(device))


def test_the_phone_says_which_of_its_numbers_are_second_hand():
    kinds = {entry.path: entry.kind for entry in describe(load_device("phone-lte-2021"))}
    assert kinds == {
        "memory.dram.read": "assumed",
        "memory.dram.write": "assumed",
        "link.up.marginal": "model",
        "link.up.goodput": "assumed",
        "link.down.marginal": "model",
        "link.base_power": "model",
        "link.fixed": "assumed",
    }
    fixed = load_device("phone-lte-2021").link.fixed
    assert fixed.year == 2012
    assert "Huang et al." in fixed.source
    assert "second-hand" in fixed.source


def test_a_file_of_your_own_loads_by_path_and_text_alike(tmp_path):
    file = write(tmp_path, RADIO)
    assert load_device(file) == load_device(str(file))
    assert load_device(file).link.up.marginal.si == pytest.approx(1e-8)


@given(value=st.floats(1e-3, 1e3), dimension=st.sampled_from(DIMENSIONS), data=st.data())
def test_a_quantity_in_base_units_is_its_value_times_its_unit(value, dimension, data):
    unit = data.draw(st.sampled_from(list(dimension.units)))
    value = min(value, 100.0)
    assert quantity(dimension, value, unit).si == value * dimension.units[unit]


@pytest.mark.parametrize(
    ("unit", "joules"),
    [
        ("fJ/bit", 1e-15),
        ("pJ/bit", 1e-12),
        ("nJ/bit", 1e-9),
        ("uJ/bit", 1e-6),
        ("mJ/bit", 1e-3),
        ("J/bit", 1),
    ],
)
def test_prefixes_of_energy_per_bit_mean_what_they_mean_everywhere(unit, joules):
    assert quantity(EnergyPerBit, 1.0, unit).si == joules


@pytest.mark.parametrize("dimension", DIMENSIONS)
def test_no_dimension_takes_a_unit_of_another(dimension):
    mine = set(dimension.units)
    for other in DIMENSIONS:
        for unit in set(other.units) - mine:
            with pytest.raises(msgspec.ValidationError, match="expected one of"):
                quantity(dimension, 1.0, unit)


@pytest.mark.parametrize("value", [0.0, -1.0, float("nan"), float("inf"), -float("inf"), 1e-320])
def test_a_number_that_is_not_finite_and_above_zero_is_refused(value):
    with pytest.raises(msgspec.ValidationError, match="expected a finite number above 0"):
        quantity(EnergyPerBit, value, "pJ/bit")


def test_a_share_of_more_than_everything_is_refused():
    assert quantity(Share, 100.0, "%").si == 1.0
    with pytest.raises(msgspec.ValidationError, match="at most 100 %"):
        quantity(Share, 100.1, "%")


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        (
            '"nJ/bit"',
            '"nJ/byte"',
            r"`unit` is 'nJ/byte', expected one of: .*divide the value by 8 - at `\$\.link\.up",
        ),
        ('"nJ/bit"', '"W"', r"`unit` is 'W', expected one of: .*nJ/bit.* - at `\$\.link\.up\.marginal`"),
        ('"nJ/bit"', '"NJ/bit"', r"`unit` is 'NJ/bit'"),
        ('source = "a test"', 'source = " "', r"`source` is empty.*at `\$\.link\.up\.marginal`"),
        (', source = "a test"', "", r"missing required field `source` - at `\$\.link\.up\.marginal`"),
        (", year = 2020", "", r"missing required field `year` - at `\$\.link\.up\.marginal`"),
        ("year = 2020", "year = 20", r"at `\$\.link\.up\.marginal\.year`"),
        ('kind = "assumed"', 'kind = "guessed"', r"'guessed' - at `\$\.link\.up\.marginal\.kind`"),
        ("value = 10.0", "value = nan", r"`value` is nan, .* - at `\$\.link\.up\.marginal`"),
        ("value = 10.0", "value = inf", r"`value` is inf"),
        ("value = 10.0", "value = 0", r"`value` is 0\.0"),
        ("value = 10.0", "value = -1", r"`value` is -1\.0"),
        ("value = 10.0", 'value = "10"', r"Expected `float`, got `str` - at `\$\.link\.up\.marginal\.value`"),
        ("value = 10.0", "value = true", r"Expected `float`, got `bool`"),
        ("[link.up]", "[link.upp]", r"at `\$\.link`"),
        ('unit = "J"', 'unit = "relative"', r"has \[prices\], and neither \[link\] nor \[memory\]"),
        ("schema = 1", "schema = 2", r"at `\$\.schema`"),
        ("schema = 1", "schema = ", r"Invalid value"),
        ("[link.up]\nmarginal", "[link.up]\nspeed", r"at `\$\.link\.up`"),
        (RADIO, 'schema = 1\nname = "r"\ndescription = ""\nunit = "J"\n', r"has \[link\] or \[memory\]"),
    ],
)
def test_a_wrong_file_says_which_file_where_in_it_and_what_was_expected(tmp_path, old, new, message):
    assert RADIO.count(old) == 1
    file = write(tmp_path, RADIO.replace(old, new))
    with pytest.raises(ProfileError, match=message) as caught:
        load_device(file)
    assert "mine.toml" in str(caught.value)


def test_a_file_that_is_not_text_or_not_there_is_a_profile_error(tmp_path):
    (tmp_path / "binary.toml").write_bytes(b"\xff\xfe\x00")
    for name in ("binary.toml", "absent.toml", "."):
        with pytest.raises(ProfileError, match="device file"):
            load_device(tmp_path / name)


def test_an_unknown_name_lists_what_is_known_and_what_was_probably_meant():
    with pytest.raises(ProfileError, match=r"no device 'phone-lte'; did you mean 'phone-lte-2021'\?") as caught:
        load_device("phone-lte")
    assert all(name in str(caught.value) for name in list_devices())
    with pytest.raises(ProfileError) as caught:
        load_device("zzz")
    assert "did you mean" not in str(caught.value)


def test_check_tells_of_a_lost_factor_of_a_thousand_and_of_missing_parts(tmp_path):
    problems = check(load_device(write(tmp_path, RADIO.replace('"nJ/bit"', '"J/bit"'))))
    assert any(problem.startswith("link.up.marginal is 10.0 J/bit, but") for problem in problems)
    assert any("link.fixed is missing" in problem for problem in problems)
    assert any("boundary 'device' cannot be priced" in problem for problem in problems)
    assert any("link.down is missing" in problem for problem in problems)
