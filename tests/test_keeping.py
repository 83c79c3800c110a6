"""What was kept by tensor and round: means by hand, names and sizes from layout.json, colours that compare."""

import math
from pathlib import Path

import msgspec
import numpy as np
import pytest
from synthetic_rows import SIZES, study_rows

from joulewise import heatmap, keeping_table, page_energy, splitbars
from joulewise.keeping import MOST_COLUMNS, keeping
from joulewise.ledger import Charge
from joulewise.pricefile import PriceList, TensorLine
from joulewise.summary import summary

ROWS = study_rows(densities=(0.01, 0.1), seeds=(0, 1), rounds=3, clients=2, unit="J")
PRICES = PriceList(
    tensors=tuple(TensorLine(f"layer{place}.weight", "linear", size) for place, size in enumerate(SIZES)), devices={}
)


def kept(rows=ROWS, prices=None):
    (found,) = summary(rows)
    return found, keeping(found, rows, prices)


def cells_of(spec) -> list[list[float]]:
    return [list(map(float, line.split(","))) for line in spec["data"]["values"].split("\n")[1:]]


def test_a_cell_is_the_mean_over_clients_and_seeds_of_a_round():
    found, got = kept(prices=PRICES)
    assert got.tensors[1] == "layer1.weight"
    assert got.elements == SIZES
    assert got.columns == ((1, 1), (2, 2), (3, 3))
    for arm in found.arms:
        for number in (1, 2, 3):
            counts = [
                client.kept_by_tensor
                for row in ROWS
                if (row.arm, row.round) == (arm.name, number)
                for client in row.clients
            ]
            assert len(counts) == 4
            assert got.counts[arm.name][number - 1] == pytest.approx(np.mean(counts, axis=0))


def test_names_come_from_layout_json_alone_and_sizes_also_from_a_reply_that_kept_everything():
    assert kept()[1].elements == SIZES
    assert kept()[1].tensors[:2] == ("tensor 1", "tensor 2")
    sparse = [row for row in ROWS if row.rule != "Dense"]
    assert kept(sparse)[1].elements is None
    other = msgspec.structs.replace(PRICES, tensors=PRICES.tensors[1:])
    assert kept(sparse, other)[1].tensors[0] == "tensor 1"


def test_rows_on_which_arms_were_chosen_are_left_aside():
    reported = [row for row in ROWS if row.seed == 0 and row.budget != "density=0.1"]
    (found,) = summary(reported)
    assert keeping(found, ROWS) == keeping(found, reported)


def test_replies_of_several_models_have_no_map():
    first = ROWS[0]
    short = tuple(msgspec.structs.replace(client, kept_by_tensor=(3,)) for client in first.clients)
    rows = [msgspec.structs.replace(first, clients=short), *ROWS[1:]]
    assert kept(rows)[1] is None
    (found,) = summary(rows)
    assert page_energy.kept(found, None, 0) == ""


def test_many_rounds_share_columns_of_equal_width_and_the_last_may_be_narrower():
    rows = study_rows(rules=(), seeds=(0,), rounds=2 * MOST_COLUMNS + 1, clients=1)
    _, got = kept(rows)
    assert (got.columns[0], got.columns[-1]) == ((1, 3), (121, 121))
    assert len(got.columns) == len(got.counts["Dense"]) <= MOST_COLUMNS


def test_the_map_shows_shares_and_leaves_out_what_was_not_kept():
    _, got = kept(prices=PRICES)
    arm = "CWMP density=0.01"
    cells = cells_of(heatmap.of_arm(got, arm))
    expected = [
        (at, tensor, count / SIZES[tensor])
        for at, counts in enumerate(got.counts[arm])
        for tensor, count in enumerate(counts)
        if count
    ]
    assert len(cells) == len(expected)
    for cell, (at, tensor, share) in zip(cells, expected, strict=True):
        assert cell == pytest.approx([at, tensor, share], rel=1e-3)
    assert all(0 < cell[2] <= 1 for cell in cells_of(heatmap.of_arm(got, "Dense")))


def test_colours_mean_the_same_for_every_arm_and_reach_over_all_of_them():
    found, got = kept(prices=PRICES)
    domains = [heatmap.of_arm(got, arm.name)["encoding"]["color"]["scale"]["domain"] for arm in found.arms]
    assert all(domain == domains[0] for domain in domains)
    values = [cell[2] for arm in found.arms for cell in cells_of(heatmap.of_arm(got, arm.name))]
    assert domains[0][0] <= min(values) < max(values) <= domains[0][1] == 1.0


def test_the_scale_reaches_over_what_sparse_arms_kept():
    found, got = kept([row for row in ROWS if row.budget == "density=0.01"], PRICES)
    low, high = heatmap.of_arm(got, found.arms[0].name)["encoding"]["color"]["scale"]["domain"]
    values = [cell[2] for arm in found.arms for cell in cells_of(heatmap.of_arm(got, arm.name))]
    assert low <= min(values) < max(values) <= high < 1


@pytest.mark.parametrize(
    ("value", "down", "up"), [(0.00123, 0.001, 0.002), (0.3, 0.3, 0.3), (1.0, 1.0, 1.0), (96.0, 90.0, 100.0)]
)
def test_ends_of_the_scale_are_rounded_outwards(value, down, up):
    assert heatmap._rounded(value, math.floor) == down
    assert heatmap._rounded(value, math.ceil) == up


def test_a_name_cannot_leave_its_place_in_an_expression():
    assert heatmap._strings(("it's", "a\\b", "two\nlines")) == "['it\\'s', 'a\\\\b', 'two lines']"


def test_the_table_holds_the_shares_of_a_mean_reply():
    found, got = kept(prices=PRICES)
    table = keeping_table.kept_by_tensor(found, got)
    assert table.columns[:3] == ("Arm", "layer0.weight (144)", "layer1.weight (16)")
    assert table.rows[0] == ("Dense", *["100"] * len(SIZES))
    line = next(line for line in table.rows if line[0] == "TopK density=0.1")
    counts = [client.kept_by_tensor[2] for row in ROWS if row.arm == "TopK density=0.1" for client in row.clients]
    assert float(line[3]) == pytest.approx(100 * np.mean(counts) / SIZES[2], rel=1e-2)


def test_bars_hold_every_joule_once_with_the_uplink_first():
    more = Charge("idle", 1e-3, "J", "modelled")
    rows = [
        msgspec.structs.replace(
            row,
            clients=tuple(msgspec.structs.replace(one, charges=(more, *one.charges)) for one in row.clients),
        )
        for row in ROWS
    ]
    (found,) = summary(rows)
    assert splitbars.terms_of(found) == ("header", "kept", "downlink", "idle")
    spec = splitbars.of(found, "energy")
    (unit,) = {line["Energy"].split()[1] for line in spec["data"]["values"]}
    factor = {"J": 1.0, "mJ": 1e-3, "µJ": 1e-6}[unit]
    for arm in found.arms:
        bars = [line["energy"] for line in spec["data"]["values"] if line["Arm"] == arm.label]
        assert math.fsum(bars) * factor == pytest.approx(math.fsum(arm.by_term.values()))
    colours = spec["encoding"]["color"]["scale"]
    assert colours["domain"] == ["header (uplink)", "kept (uplink)", "downlink", "idle"]
    assert len(set(colours["range"])) == 4
    assert splitbars.of(found, "share")["encoding"]["x"]["stack"] == "normalize"


def test_results_of_old_folders_have_a_map_with_numbers_for_names():
    from joulewise import rowfile  # noqa: PLC0415 (one test reads rows)

    rows = rowfile.read(Path(__file__).parents[1] / "results/cifar10-smoke")
    found, got = kept(rows)
    assert got.tensors[-1] == "tensor 8"
    assert got.elements is None
    assert "no layout.json with their names" in page_energy.kept(found, got, 0)


def test_a_long_label_takes_two_lines_and_a_figure_can_be_drawn_of_it():
    convert = pytest.importorskip("vl_convert", reason="the report extra is not installed")
    long = "a-device-with-a-rather-long-name"
    rows = [
        msgspec.structs.replace(
            row, arm=f"{row.arm} devices={long}-{row.rule}", settings=row.settings | {"devices": f"{long}-{row.rule}"}
        )
        for row in ROWS
        if row.rule != "Dense"
    ]
    (found,) = summary(rows)
    spec = splitbars.of(found, "energy")
    assert {line["row"].count(splitbars.BREAK) for line in spec["data"]["values"]} == {1}
    svg = convert.vegalite_to_svg(spec, vl_version="6.1")
    assert convert.svg_to_png(svg).startswith(b"\x89PNG")
