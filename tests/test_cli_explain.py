"""`joulewise explain`, as a user meets it."""

import json
import os
import re
import subprocess
import sys
from functools import partial
from pathlib import Path

import msgspec
import numpy as np
import pytest

import joulewise as jw
from joulewise import explain_figure
from joulewise.explain import explain
from joulewise.explanation import Explanation
from joulewise.modelfile import load_layout

ENVIRONMENT = os.environ | {"PYTHONPATH": str(Path(jw.__file__).parents[1])}
LTE = ("--device", "phone-lte-2021")


@pytest.fixture
def joule(joule, tmp_path, monkeypatch):
    """Type `joulewise explain ...`; returns exit code, stdout and stderr."""
    monkeypatch.chdir(tmp_path)
    return partial(joule, "explain")


@pytest.fixture
def model(tmp_path):
    """A small model whose tensors a test can name."""
    np.savez(
        tmp_path / "model.npz",
        **{"conv.weight": np.ones((8, 4, 3, 3), np.float32), "fc.weight": np.ones((10, 80), np.float32)},
    )
    return "model.npz"


@pytest.mark.parametrize("bits", ["1e308", "inf", "1e-300", "conv*=8,*=1e300"])
def test_bits_that_no_value_has_are_refused(joule, model, bits):
    code, _, err = joule("--model", model, *LTE, "--value-bits", bits)
    assert (code, "error: --value-bits is" in err) == (2, True)


def test_resnet18_on_lte_ends_with_the_verdict_that_it_does_not_matter(joule):
    code, out, _ = joule("--model", "resnet18", *LTE)
    assert code == 0
    assert "resnet18 on phone-lte-2021: 11,173,962 parameters" in out
    assert re.search(r"^\s*conv +20 +11,159,232 +99\.9 %", out, re.MULTILINE)
    assert "contrast (largest over smallest price): 1\n" in out
    assert "overlap with TopK at equal count: 100.000 % (CWMP)" in out
    assert "dense upload, values only: 27.4 J marginal, 97.3 J with base power" in out
    verdict = out.index("Verdict: Weighing by price does not matter here")
    assert verdict > out.index("addressable share")
    assert verdict < out.index("What would change it:") < out.index("8-bit values in layer4.0.conv2.weight, ")
    assert "(42.2 % of the parameters): matters (predicted saving 35.0 %)" in out


def test_json_is_the_record_and_nothing_else(joule, model):
    code, out, err = joule("--model", model, *LTE, "--density", "0.1", "--json")
    assert (code, err) == (0, "")
    found = msgspec.json.decode(out, type=Explanation)
    assert found == explain(load_layout(model), jw.load_device("phone-lte-2021"), 0.1)
    assert json.loads(out)["verdict"]["answer"] == "does not matter"


def test_what_the_users_own_code_prints_is_not_in_the_json(tmp_path):
    (tmp_path / "talks.py").write_text(
        "import os, numpy as np\nprint('imported')\n"
        "def net():\n    print('made')\n    os.system('echo from a child')\n    return {'a': np.ones((30, 30))}\n"
    )
    command = [sys.executable, "-m", "joulewise", "explain", "--model", "talks:net", *LTE, "--json"]
    done = subprocess.run(command, capture_output=True, text=True, check=True, cwd=tmp_path, env=ENVIRONMENT)
    assert json.loads(done.stdout)["parameters"] == 900
    assert done.stderr.splitlines() == ["imported", "made", "from a child"]


@pytest.mark.parametrize("options", [(), ("--json",)])
def test_output_that_cannot_be_written_is_no_defect_of_joulewise(tmp_path, model, options):
    command = [sys.executable, "-m", "joulewise", "explain", "--model", model, *LTE, "--density", "0.1", *options]
    with open("/dev/full", "w") as full:  # noqa: PTH123 (a device)
        done = subprocess.run(
            command, stdout=full, stderr=subprocess.PIPE, text=True, check=False, cwd=tmp_path, env=ENVIRONMENT
        )
    assert done.returncode == 1
    expected = "error: the output could not be written: No space left on device; make room, or send it elsewhere\n"
    assert done.stderr == expected


def test_a_closed_output_is_nobody_to_print_to(tmp_path, model):
    command = ["sh", "-c", 'exec "$@" >&-', "sh", sys.executable, "-m", "joulewise", "explain", "--model", model, *LTE]
    done = subprocess.run(
        [*command, "--density", "0.1"], stderr=subprocess.PIPE, text=True, check=False, cwd=tmp_path, env=ENVIRONMENT
    )
    assert (done.returncode, done.stderr) == (0, "")


def test_training_is_charged_or_said_not_to_be(joule, model):
    ways = ("--model", model, "--density", "0.1", "--macs", "1e9")
    out = joule(*ways, "--device", "sbc-raspberry-pi-5-ethernet")[1]
    assert "training 727 mJ" in out
    assert "not charged" not in out
    out = joule(*ways, *LTE)[1]
    assert "note: the 1e+09 multiply-accumulates of training are not charged: device 'phone-lte-2021' does not" in out


def test_an_update_gives_each_tensor_its_own_density(joule, model):
    rng = np.random.default_rng(0)
    conv, linear = rng.standard_normal((8, 4, 3, 3)), 1.3 * rng.standard_normal((10, 80))
    np.savez("update.npz", **{"conv.weight": conv, "fc.weight": linear})
    code, out, _ = joule("--model", model, *LTE, "--density", "0.1", "--update", "update.npz")
    assert code == 0
    assert "magnitudes: one update" in out
    assert float(re.search(r"contrast .*: ([\d.]+)", out)[1]) > 1.01
    assert re.search(r"overlap with TopK at equal count: \d+\.\d+ % \(CWMP\)", out)
    assert re.search(r"^\s*CWMP +energy .* -?\d+\.\d %", out, re.MULTILINE)
    assert re.search(r"Verdict: Weighing by price .* saves .* %", out)


def test_widths_by_tensor_turn_the_verdict(joule, model):
    out = joule("--model", model, *LTE, "--density", "0.1", "--value-bits", "fc*=8,*=32")[1]
    assert "Verdict: Weighing by price matters here" in out


def test_weights_partly_in_flash_turn_the_verdict(joule, model):
    flash = ("--model", model, "--device", "mcu-flash-ble-nrf5340", "--density", "0.1")
    assert "does not matter here" in joule(*flash)[1]
    out = joule(*flash, "--in-ram", "fc*")[1]
    assert re.search(r"Verdict: Weighing by price matters( little)? here", out)
    assert "the others in" not in out.partition("What would change it")[2]  # they are already


@pytest.mark.parametrize("ending", ["svg", "png", "pdf"])
def test_a_figure_is_drawn(joule, model, tmp_path, ending):
    code, out, _ = joule("--model", model, *LTE, "--value-bits", "fc*=8,*=32", "--figure", f"picture.{ending}")
    assert code == 0
    assert f"figure: picture.{ending}" in out
    content = (tmp_path / f"picture.{ending}").read_bytes()
    assert content.startswith({"svg": b"<svg", "png": b"\x89PNG", "pdf": b"%PDF"}[ending])
    if ending == "svg":
        for text in (b"Share of parameters, cumulative", b"uplink", b"send buffer", b"linear"):
            assert text in content
        for text in (b"model.npz on phone-lte-2021: matters", b"fixed", b"downlink", b"12.8", b"no mask touches it"):
            assert text in content  # what hides the rest of the round hides most of its energy


def test_the_bars_of_the_figure_are_the_charges_of_the_round(model, tmp_path):
    layout = load_layout(str(tmp_path / model))
    for name in jw.list_devices():
        found = explain(layout, jw.load_device(name), 0.1)
        bars = list(explain_figure._bars(found))
        assert sum(bar["energy"] for bar in bars) == pytest.approx(sum(charge.energy for charge in found.round))
        touched = [bar["energy"] for bar in bars if bar["part"] != explain_figure.UNTOUCHED]
        if found.addressable is not None:
            assert sum(touched) == pytest.approx(found.addressable * sum(charge.energy for charge in found.round))


def test_relative_prices_are_shown_without_joules(joule, model):
    code, out, _ = joule("--model", model, "--device", "synthetic-kind-10")
    assert code == 0
    assert not re.search(r"\d [munpf]?J\b", out)
    assert "relative prices: they compare tensors and are no joules" in out


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["--model", "resnet81", *LTE], 2, "--model resnet81 is not known; did you mean 'resnet18'?"),
        (["--model", "cnn", "--device", "phone"], 2, "there is no device 'phone'"),
        (["--model", "model.npz", *LTE, "--density", "0"], 2, "error: --density is 0.0, expected a share above"),
        (["--model", "model.npz", *LTE, "--value-bits", "x"], 2, "'x' is neither a number nor patterns"),
        (["--model", "model.npz", *LTE, "--value-bits", "8,16"], 2, "'8,16' is neither a number nor patterns"),
        (
            ["--model", "model.npz", *LTE, "--value-bits", "-1"],
            2,
            "error: --value-bits of tensor 'conv.weight' is -1.0",
        ),
        (
            ["--model", "model.npz", *LTE, "--value-bits", "conf*=8"],
            2,
            "error: --value-bits conf* matches no tensor; the model",
        ),
        (["--model", "model.npz", *LTE, "--image", "32x32"], 2, "--image 32x32 is not channels x height x width"),
        (
            ["--model", "nothing", "--device", "nothing", "--figure", "a.jpg"],
            2,
            "--figure a.jpg ends in '.jpg'; give one of",
        ),
        (["--model", "model.npz", *LTE, "--figure", "no/a.svg"], 1, "cannot write the figure to no/a.svg"),
        (["--model", "model.npz", *LTE, "--update", "none.npz"], 2, "--update none.npz cannot be read: No such file"),
        (["--model", "model.npz", *LTE, "--update", "zero.npz"], 2, "zero everywhere"),
        (["--model", "model.npz", *LTE, "--update", "nan.npz"], 2, "holds NaN or infinity in tensor 'fc.weight'"),
        (["--model", "object.npz", *LTE], 2, "array 'a' holds Python objects"),
        (["--model", "model.npz", *LTE, "--boundary", "all"], 2, "'all' is not one of 'radio', 'device', 'memory'"),
        (["--model", "model.npz", *LTE, "--in-ram", "fc*"], 2, "error: --in-ram is for devices whose weights lie in"),
        (
            ["--model", "model.npz", *LTE[:1], "phone-wifi-2020", "--boundary", "device"],
            2,
            "error: --boundary device needs",
        ),
        (["--model", "model.npz", *LTE, "--density", "0.0001"], 2, "error: --density 0.0001 of 1088 parameters keeps"),
        (["--model", "mlp", *LTE, "--image", "3x100001x3"], 2, "--image 3x100001x3 is no image"),
        (["--model", "mlp", *LTE, "--image", "3x99999x99999"], 2, "too large to address"),
        (["--model", "mlp", *LTE, "--classes", "0"], 2, "--classes 0 is out of range"),
        (["--model", "quits:net", *LTE], 2, "calling it without arguments ended with sys.exit(3)"),
        (["--model", "model.npz", *LTE, "--macs", "nan"], 2, "--macs is nan, expected a number of"),
        (LTE, 2, "Missing option '--model'"),
    ],
)
def test_what_is_wrong_is_one_sentence_and_an_exit_code(joule, model, arguments, code, message):
    np.savez("zero.npz", np.zeros(1088))
    np.savez("nan.npz", np.where(np.arange(1088) == 300, np.nan, 1.0))
    Path("quits.py").write_text("def net(): raise SystemExit(3)")
    np.savez("object.npz", a=np.array([{}], dtype=object))
    found, out, err = joule(*arguments)
    assert (found, out) == (code, "")
    assert message in re.sub(r"[\s│]+", " ", err)  # typer breaks lines
    assert "Traceback" not in err


def test_help_has_an_example(joule):
    code, out, _ = joule("--help")
    assert code == 0
    assert "Example: joulewise explain" in out
    assert "--debug" in out
