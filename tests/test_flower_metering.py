"""Bytes and joules of each round: what crossed, priced by the server itself, whatever a node says."""

import msgspec
import numpy as np
import pytest
from flwr.app import MetricRecord
from toy_federation import DEVICE, Watched, app, averaging, model, record, request

from joulewise import report, rowfile
from joulewise.compress import ErrorFeedback
from joulewise.devices import list_devices
from joulewise.errors import ProfileError
from joulewise.flower import Pricing, Rows, Sparse, SparseGrid, Sparsify
from joulewise.flower.metering import REQUEST_HEADER_BYTES
from joulewise.layout import Layout
from joulewise.ledger import Charge, total
from joulewise.results import ClientResult
from joulewise.rules import CWMP, Bytes, Count, Dense, Density, Joules, LayerwiseTopK, Threshold, TopK

LAYOUT = Layout.of(model())
PHONE = "phone-lte-2021"


def priced_by(pricing, device, rule, budget, values, feedback=None):
    grid = SparseGrid(Watched(app(Sparsify(device, rule, budget, values, feedback)), 2), pricing=pricing)
    grid.send_and_receive([request(node) for node in (1, 2)])
    return grid.take_results()


@pytest.mark.parametrize("device", [name for name in list_devices() if not name.startswith("table-")])  # no links
@pytest.mark.parametrize(
    ("rule", "budget", "values", "feedback"),
    [
        (TopK(), Count(7), "float32", ErrorFeedback()),
        (LayerwiseTopK(), Count(7), "ternary", ErrorFeedback(momentum=0.9)),
        (TopK(), Threshold(0.01), "float32", ErrorFeedback(momentum=0.5, masking=False)),
        (CWMP(), Density(0.4), "int8", None),
        (CWMP(), Bytes(120), "float16", None),
        (Dense(), None, "bfloat16", None),
        (TopK(), Joules(0.0), "float32", None),
    ],
)
def test_what_the_server_works_out_is_what_an_honest_node_says(device, rule, budget, values, feedback):
    arguments = device, rule, budget, values, feedback
    for ours, theirs in zip(priced_by(Pricing(), *arguments), priced_by(None, *arguments), strict=True):
        assert [(c.term, c.unit, c.basis, c.bytes) for c in ours.charges] == [
            (c.term, c.unit, c.basis, c.bytes) for c in theirs.charges
        ]
        assert [c.energy for c in ours.charges] == pytest.approx([c.energy for c in theirs.charges], rel=1e-12)
        assert msgspec.structs.replace(ours, charges=()) == msgspec.structs.replace(theirs, charges=())


def forging(**lies):
    """A grid on which node 1 says something else of its reply than is true."""

    def spoil(replies):
        for reply in replies:
            if reply.metadata.src_node_id == 1 and reply.metadata.message_type == "train":
                note = reply.content["joulewise"]
                told = msgspec.json.decode(note["result"], type=ClientResult)
                note["result"] = msgspec.json.encode(msgspec.structs.replace(told, **lies))
        return replies

    return Watched(app(Sparsify(PHONE, TopK(), Count(5))), 3, spoil=spoil)


def metrics_of(grid, number=1, **options):
    strategy = Sparse(averaging(**options))
    return strategy.start(grid, record(model()), num_rounds=number).train_metrics_clientapp[number]


@pytest.mark.parametrize(
    "lies",
    [
        {"charges": (Charge("kept", 1e9, "J", "measured", 10),)},
        {"charges": (Charge("kept", 1e9, "J", "modelled", 10),)},
        {"charges": (Charge("header", -5.0, "relative", "modelled"),) * 3},
        {"charges": ()},
        {"examples": 10**9, "bytes_up": 1, "bytes_down": 1, "kept_by_tensor": (9, 9, 9), "parameters": 1},
    ],
)
def test_no_figure_of_a_node_enters_the_books(lies):
    assert metrics_of(forging(**lies)) == metrics_of(forging())
    honest, liar = SparseGrid(forging()), SparseGrid(forging(**lies))
    for grid in (honest, liar):
        grid.send_and_receive([request(node) for node in (1, 2, 3)])
    assert liar.take_results() == honest.take_results()


def test_no_two_nodes_are_in_rows_under_one_partition(caplog):
    """Node 1 holds partition 0. What it says is told once, where it is another's, and whenever it changes."""
    for claimed in (1, -5, 2**64):
        caplog.clear()
        grid = SparseGrid(forging(partition=claimed))
        for number in (1, 2):
            replies = grid.send_and_receive([request(node, number) for node in (2, 3, 1)])
            assert not any(reply.has_error() for reply in replies)
            assert [result.partition for result in grid.take_results()] == [-1, 1, 2]
            grid.accept(record(model()))
        says = f"node 1 says that it holds partition {claimed}, which is not free: in rows it is number -1"
        assert [entry.getMessage() for entry in caplog.records] == [says]


def test_a_node_keeps_the_partition_that_it_named_first(caplog):
    inner = forging(partition=7)
    honest, grid = inner.spoil, SparseGrid(inner)
    for number, inner.spoil in enumerate((None, honest, honest), start=1):
        grid.send_and_receive([request(node, number) for node in (1, 2)])
        assert [result.partition for result in grid.take_results()] == [0, 1]
        grid.accept(record(model()))
    assert caplog.text.count("node 1 says that it holds partition 7, which is not the one that it named before") == 2


def test_sums_are_over_all_nodes_and_of_what_crossed():
    grid = Watched(app(Sparsify(PHONE, TopK(), Count(5))), 3)
    found = metrics_of(grid)
    crossed = sum(len(payload) for _, payload, _ in grid.crossed)
    down = 3 * sum(len(array.data) for array in record(model()).values())
    assert found["joulewise.bytes-up"] == crossed
    assert found["joulewise.bytes-down"] == down
    assert (found["joulewise.replies"], found["joulewise.failures"], found["joulewise.unpriced"]) == (3, 0, 0)
    checked = SparseGrid(Watched(app(Sparsify(PHONE, TopK(), Count(5))), 3))
    checked.send_and_receive([request(node) for node in (1, 2, 3)])
    charges = [charge for result in checked.take_results() for charge in result.charges]
    assert found["joulewise.joules"] == pytest.approx(total(charges))
    assert found["joulewise.joules-up"] + found["joulewise.joules-down"] < found["joulewise.joules"]
    # Two records and five arrays down, each array one chunk; three records, one array and one chunk up.
    objects = (2 + 2 + 10) + (2 + 3 + 2)
    assert found["joulewise.wire-bytes-up"] == crossed + 3 * objects * REQUEST_HEADER_BYTES
    assert found["joulewise.wire-bytes-down"] == down


def test_evaluation_is_counted_too():
    strategy = Sparse(averaging(fraction_evaluate=1.0, min_evaluate_nodes=1), downlink="off")
    result = strategy.start(Watched(app(Sparsify(PHONE, TopK(), Count(5))), 3), record(model()), num_rounds=1)
    found = result.evaluate_metrics_clientapp[1]
    assert found["joulewise.bytes-down"] == result.train_metrics_clientapp[1]["joulewise.bytes-down"]
    assert found["joulewise.bytes-up"] == 0
    assert "joulewise.joules" not in found


def test_a_reply_that_is_left_out_is_a_failure_and_its_bytes_have_crossed_all_the_same():
    def spoil(replies):
        for reply in replies[:1]:
            reply.content["joulewise"].pop("sequence")
        return replies

    grid = Watched(app(Sparsify(PHONE, TopK(), Count(5))), 3, spoil=spoil)
    found = metrics_of(grid)
    assert found["joulewise.bytes-up"] == sum(len(payload) for _, payload, _ in grid.crossed)
    assert (found["joulewise.replies"], found["joulewise.failures"]) == (2, 1)
    assert (
        found["joulewise.joules-up"]
        < metrics_of(Watched(app(Sparsify(PHONE, TopK(), Count(5))), 3))["joulewise.joules-up"]
    )


def test_synthetic_energies_are_not_called_joules():
    found = metrics_of(Watched(app(Sparsify(DEVICE, TopK(), Count(5))), 2))
    assert found["joulewise.relative-up"] > 0
    assert not any("joules" in name for name in found)


def test_a_device_that_the_server_does_not_know_has_no_joules_and_no_file_is_opened(tmp_path):
    from importlib import resources  # noqa: PLC0415

    text = resources.files("joulewise").joinpath(f"profiles/{PHONE}.toml").read_text(encoding="utf-8")
    path = tmp_path / "my-phone.toml"
    path.write_text(text.replace(f'name = "{PHONE}"', 'name = "my-phone"'), encoding="utf-8")
    mod = Sparsify(str(path), TopK(), Count(5))
    found = metrics_of(Watched(app(mod), 2))
    assert (found["joulewise.unpriced"], "joulewise.joules" in found) == (2, False)
    known = Sparse(averaging(), pricing=Pricing(devices=[str(path)]))
    result = known.start(Watched(app(mod), 2), record(model()), num_rounds=1)
    assert result.train_metrics_clientapp[1]["joulewise.joules"] > 0
    assert Pricing().device(str(path)) is None
    with pytest.raises(ProfileError):
        Pricing(devices=["not-there"])


def test_training_is_in_the_books_only_where_the_server_says_what_it_takes():
    board = next(name for name in list_devices() if "training" in _terms(name, 1e6))
    assert "training" not in _terms(board, None)


def _terms(device, macs):
    pricing = Pricing(multiply_accumulates=macs)
    return {charge.term for each in priced_by(pricing, device, TopK(), Count(5), "float32") for charge in each.charges}


# ---------------------------------------------------------------- rows


def test_rows_of_an_app_are_read_by_the_report(tmp_path):
    for seed in (0, 1):
        for rule in (TopK(), CWMP()):
            strategy = Sparse(averaging(), rows=Rows(tmp_path, seed=seed))
            grid = Watched(app(Sparsify(PHONE, rule, Density(0.2))), 3)
            accuracy = {"accuracy": 0.5 + seed / 10, "loss": 1.0}
            strategy.start(grid, record(model()), 3, evaluate_fn=lambda *_, own=accuracy: MetricRecord(own))
    rows = rowfile.read(tmp_path)
    assert [row.round for row in rows] == [1, 2, 3] * 4
    assert {row.arm for row in rows} == {"TopK density=0.2", "CWMP density=0.2"}
    first = rows[0]
    assert (first.rule, first.budget, first.energy_unit, first.server.loss) == ("TopK", "density=0.2", "J", 1.0)
    assert [client.partition for client in first.clients] == [0, 1, 2]
    assert all(client.charges and client.bytes_up and client.bytes_down for client in first.clients)
    text = msgspec.json.encode(report.summary(rows)).decode()
    assert "CWMP density=0.2" in text
    assert "TopK density=0.2" in text


def test_accuracy_comes_from_the_clients_evaluation_where_the_server_has_none(tmp_path):
    def share(replies):
        for reply in replies:
            if reply.metadata.message_type == "evaluate":
                reply.content["metrics"]["eval_acc"] = 0.25
        return replies

    grid = Watched(app(Sparsify(PHONE, TopK(), Count(5))), 3, spoil=share)
    strategy = Sparse(averaging(fraction_evaluate=1.0, min_evaluate_nodes=1), rows=str(tmp_path))
    strategy.start(grid, record(model()), num_rounds=2)
    assert [row.server.accuracy for row in rowfile.read(tmp_path)] == [0.25, 0.25]


def test_without_an_accuracy_there_is_no_row_and_the_log_says_so_once(tmp_path, caplog):
    strategy = Sparse(averaging(), rows=Rows(tmp_path, accuracy="hits"))
    strategy.start(Watched(app(Sparsify(PHONE, TopK(), Count(5))), 2), record(model()), num_rounds=3)
    assert not list(tmp_path.iterdir())
    assert caplog.text.count("has no row: a row needs the metric hits") == 1


def test_a_round_without_a_usable_reply_has_a_row_too(tmp_path):
    grid = Watched(app(Sparsify(PHONE, TopK(), Count(5))), 2)
    strategy = Sparse(averaging(), rows=tmp_path, most_payload_bytes=1)
    strategy.start(grid, record(model()), 2, evaluate_fn=lambda *_: MetricRecord({"accuracy": 0.5}))
    assert [(row.round, row.clients) for row in rowfile.read(tmp_path)] == [(1, ()), (2, ())]


def test_units_are_never_mixed_in_a_row(tmp_path):
    grid = Watched(app(Sparsify([PHONE, DEVICE, PHONE], TopK(), Count(5))), 3)
    strategy = Sparse(averaging(), rows=tmp_path)
    strategy.start(grid, record(model()), 1, evaluate_fn=lambda *_: MetricRecord({"accuracy": 0.5}))
    (row,) = rowfile.read(tmp_path)
    assert [bool(client.charges) for client in row.clients] == [True, False, True]
    assert {charge.unit for client in row.clients for charge in client.charges} == {row.energy_unit} == {"J"}
    assert np.isfinite(row.timing.seconds)
