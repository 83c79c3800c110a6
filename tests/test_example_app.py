"""The example is a Flower app that runs as its README says, with the same bits on every engine."""

import re

import deployment
import example_app
import pytest
from flower_wire import copied_example
from flwr.app import Context, RecordDict

from joulewise.flower import FileStore, Sparsify

CONNECTION = '[superlink]\ndefault = "local"\n\n[superlink.local]\naddress = "127.0.0.1:{port}"\ninsecure = true\n'


@pytest.fixture(scope="module")
def in_process():
    return example_app.run()


@pytest.fixture(scope="module")
def simulated(tmp_path_factory):
    """What the README's command for the simulation prints, on a SuperLink that ends with the test."""
    pytest.importorskip("ray", reason="Flower's simulation needs Ray")
    folder = tmp_path_factory.mktemp("simulated")
    with deployment.sandbox(folder, ("39091",)) as box:
        (box.home / "config.toml").write_text(CONNECTION.format(port=box.ports["39091"]))
        box.start("superlink", "flower-superlink --simulation --insecure --host 127.0.0.1 --port 39091")
        deployment.wait_until(lambda: deployment.listening(box.ports["39091"]), "the SuperLink to listen")
        (command,) = (each for each in deployment.readme_commands("flwr", "run", ".") if "num-supernodes" in each)
        printed = box.do("run", command, cwd=copied_example(folder / "app"))
    assert box.alive() == []
    return printed


def shape(lines):
    """Lines with every number as a 0: other processors make other last bits."""
    return [re.sub(r"[0-9.]+|(?<=^model ).*", "0", line) for line in lines]


def test_it_prints_what_the_readme_shows(in_process):
    (shown,) = re.findall(r"```text\n(.*?)```", deployment.README, re.DOTALL)
    lines = in_process.splitlines()
    assert shape(shown.splitlines()) == shape([lines[0], lines[-2], lines[-1]])


def test_the_simulation_gives_the_bits_of_this_process(in_process, simulated):
    for start in ("round ", "model "):
        assert deployment.printed(simulated, start) == deployment.printed(in_process, start)


def test_it_is_the_same_app_without_joulewise():
    sparse, dense = (
        example_app.run({"sparse": sparse, "joulewise.density": 1.0, "num-server-rounds": 2})
        for sparse in (True, False)
    )
    accuracies = [re.findall(r"accuracy ([0-9.]+)", output) for output in (sparse, dense)]
    assert accuracies[0] == accuracies[1]
    assert dense.splitlines()[-2].endswith("766008 bytes up, 766008 bytes down, not priced")


def test_it_learns_at_one_percent():
    last = example_app.run({"num-server-rounds": 15}).splitlines()[-2]
    accuracy, up, down = re.search(r"accuracy ([0-9.]+), (\d+) bytes up, (\d+) bytes down", last).groups()
    assert float(accuracy) > 0.8  # 0.89; the dense app 0.94
    assert 90 * int(up) < 3 * 255_336
    assert 10 * int(down) < 3 * 255_336  # What changed, and no whole model.


def test_one_budget_lets_who_sends_at_less_send_more(tmp_path):
    settings = {"num-server-rounds": 2, "allocation-share": 0.01}
    lines = example_app.run(settings, example_app.node_configs(tmp_path)).splitlines()[:2]
    (first, first_joules), (second, second_joules) = (
        (int(re.search(r"(\d+) bytes up", line)[1]), float(re.search(r"([0-9.]+) J", line)[1])) for line in lines
    )
    assert second > 10 * first  # Nearly all of it from the board on Ethernet.
    assert second_joules <= first_joules


def test_its_readme_sets_what_the_app_reads(tmp_path):
    given = " ".join(re.findall(r'--run-config\s+"([^"]*)"', deployment.README))
    assert set(re.findall(r"([a-z.-]+)=", given)) <= example_app.CONFIG.keys()
    context = Context(run_id=1, node_id=1, node_config={}, state=RecordDict(), run_config=example_app.CONFIG)
    for config in example_app.node_configs(tmp_path):
        context.node_config = config
        found = Sparsify()._settings.at(context)  # Refuses keys that it does not know.
        assert found.devices == (config["joulewise.device"],)
        assert found.store == FileStore(str(tmp_path))
