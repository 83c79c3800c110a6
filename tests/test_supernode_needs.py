"""A SuperNode needs joulewise's wheel, msgspec and pint beside Flower, and nothing else."""

import subprocess
import sys
from importlib.metadata import distribution
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from test_build import build, tree  # noqa: F401 (a fixture)

pytest.importorskip("scikit_build_core", reason="wheels are built by scikit-build-core, which is not installed")

BESIDE_FLOWER = ("msgspec", "pint")
ROOT = Path(__file__).parents[1]

USE = """
import sys
import numpy as np
from flwr.app import Array, ArrayRecord, Message, MetricRecord, RecordDict
from flwr.clientapp import ClientApp
from flwr.serverapp.strategy import FedAvg
import joulewise as jw
from joulewise.flower import FileStore, Sparse, Sparsify
from joulewise.flower.inprocess import InProcessGrid

mod = Sparsify("phone-lte-2021", jw.CWMP(), jw.Density(0.01), feedback=jw.ErrorFeedback(), store=FileStore("state"))
app = ClientApp(mods=[mod])

@app.train()
def train(message, context):
    trained = message.content["arrays"]["w"].numpy() + np.linspace(0, 1, 1000, dtype=np.float32)
    content = RecordDict({"arrays": ArrayRecord({"w": Array(trained)}), "metrics": MetricRecord({"num-examples": 1})})
    return Message(content, reply_to=message)

strategy = Sparse(FedAvg(fraction_evaluate=0.0))
start = ArrayRecord({"w": Array(np.zeros(1000, np.float32))})
result = strategy.start(InProcessGrid(app, 2), start, num_rounds=2)
heavy = sorted({"torch", "sklearn", "ray"} & sys.modules.keys())
print(np.count_nonzero(result.arrays["w"].numpy()), jw.__file__, heavy)
"""


def needed(*names):
    """These distributions and all that they require."""
    found, waiting = {}, list(names)
    while waiting:
        name = waiting.pop()
        if name in found:
            continue
        found[name] = distribution(name)
        required = [Requirement(line) for line in found[name].requires or ()]
        waiting += [each.name for each in required if each.marker is None or each.marker.evaluate({"extra": ""})]
    return found.values()


@pytest.fixture
def supernode(tmp_path):
    """The Python of an environment that has Flower, msgspec and pint, and what they require."""
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", tmp_path / "venv"], check=True)
    python = tmp_path / "venv/bin/python"
    ask = "import sysconfig; print(sysconfig.get_path('purelib'))"
    site = Path(subprocess.run([python, "-c", ask], check=True, capture_output=True, text=True).stdout.strip())
    for each in needed("flwr", *BESIDE_FLOWER):
        for top in {file.parts[0] for file in each.files or ()} - {"..", "__pycache__"}:
            if not (site / top).exists():
                (site / top).symlink_to(each.locate_file(top))
    return python


def test_a_wheel_without_its_dependencies_runs_beside_flower_msgspec_and_pint(tree, supernode, tmp_path):  # noqa: F811
    wheel, _ = build(tree, JOULEWISE_KERNEL="numpy")
    pip = [sys.executable, "-m", "pip", "--python", supernode, "install", "--quiet", "--no-deps", "--no-index", wheel]
    subprocess.run(pip, check=True, timeout=120)
    done = subprocess.run(
        [supernode, "-c", USE], cwd=tmp_path, capture_output=True, text=True, timeout=120, check=False,
        env={"FLWR_HOME": str(tmp_path / "flwr"), "FLWR_TELEMETRY_ENABLED": "0"},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    kept, where, loaded = done.stdout.split(maxsplit=2)
    assert 10 <= int(kept) <= 20
    assert str(tmp_path / "venv") in where
    assert loaded.strip() == "[]"
    assert len(list((tmp_path / "state").glob("node-*.npz"))) == 2


def test_the_guide_names_what_a_supernode_needs():
    guide = (ROOT / "docs/flower-deployment.md").read_text(encoding="utf-8")
    (line,) = [line for line in guide.splitlines() if line.startswith("$ pip install") and "--no-deps" not in line]
    assert set(BESIDE_FLOWER) < set(line.split())
    assert any("pip install --no-deps joulewise-" in line for line in guide.splitlines())
