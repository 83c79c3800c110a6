"""Where the energy of a study went: sums by term of the ledger, the share a mask can touch, bytes both ways."""

import math

import msgspec
import pytest
from synthetic_rows import study_rows

from joulewise import notation, page_energy, tables
from joulewise.ledger import TERMS, Charge, addressable
from joulewise.results import energy_by_term
from joulewise.summary import summary

ROWS = study_rows(densities=(0.01,), seeds=(0, 1), rounds=3, clients=2, unit="J")


def with_charges(row, *more: Charge):
    clients = tuple(msgspec.structs.replace(one, charges=(*one.charges, *more)) for one in row.clients)
    return msgspec.structs.replace(row, clients=clients)


def test_the_sums_by_term_of_an_arm_are_the_mean_over_seeds_of_all_its_charges():
    (found,) = summary(ROWS)
    for arm in found.arms:
        charges = [c for row in ROWS if row.arm == arm.name for client in row.clients for c in client.charges]
        assert list(arm.by_term) == ["header", "kept", "downlink"]
        for term, energy in arm.by_term.items():
            assert energy == pytest.approx(math.fsum(c.energy for c in charges if c.term == term) / 2)
        assert arm.addressable == pytest.approx(addressable(charges))
        assert 0 < arm.addressable < 1


def test_the_table_has_a_column_for_every_term_in_the_order_of_the_ledger_and_the_share():
    idle, blocks = Charge("idle", 1e-3, "J", "modelled"), Charge("blocks", 2e-3, "J", "modelled")
    (found,) = summary([with_charges(row, idle, blocks) if row.rule == "CWMP" else row for row in ROWS])
    table = tables.split(found)
    heads = [column.partition(" (")[0] for column in table.columns]
    assert heads == [
        "Arm", "Header", "Kept", "Blocks", "Downlink", "Idle", "A mask can touch", "Bytes up", "Bytes down",
    ]  # fmt: skip
    assert list(TERMS).index("blocks") < list(TERMS).index("downlink") < list(TERMS).index("idle")
    lines = {line[0]: dict(zip(heads, line, strict=True)) for line in table.rows}
    assert lines["TopK"]["Blocks"] == tables.NONE
    assert table.columns[3] == "Blocks (mJ)"
    assert lines["CWMP"]["Blocks"] == "12.0"  # 2 mJ for each of 2 clients in 3 rounds
    arm = next(arm for arm in found.arms if arm.rule == "CWMP")
    assert lines["CWMP"]["A mask can touch"] == notation.number(100 * arm.addressable)


def test_bytes_of_the_table_are_totals_of_a_seed_both_ways():
    (found,) = summary(ROWS)
    table, clients = tables.split(found), [c for row in ROWS if row.rule == "Dense" for c in row.clients]
    up, down = (sum(getattr(client, way) for client in clients) / 2 for way in ("bytes_up", "bytes_down"))
    assert table.columns[-2:] == ("Bytes up (kB)", "Bytes down (kB)")
    assert table.rows[0][-2:] == (notation.number(up / 1e3), notation.number(down / 1e3))


def test_measured_energy_is_no_part_of_the_split_and_stops_no_report():
    meter = Charge("package", 5.0, "J", "measured")
    assert energy_by_term(with_charges(ROWS[0], meter)) == energy_by_term(ROWS[0])
    (found,) = summary([with_charges(row, meter) for row in ROWS])
    assert all("package" not in arm.by_term for arm in found.arms)


def test_a_study_without_energy_has_no_split_and_a_page_shows_one_where_there_is():
    bare = [
        msgspec.structs.replace(
            row, clients=tuple(msgspec.structs.replace(client, charges=()) for client in row.clients)
        )
        for row in ROWS
    ]
    (found,) = summary(bare)
    assert tables.split(found) is None
    assert all(arm.addressable is None for arm in found.arms)
    assert page_energy.split(found, 0) == ""
    assert "A mask can touch" in page_energy.split(summary(ROWS)[0], 0)
