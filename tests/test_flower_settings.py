"""Settings of a node: from code, overridden by the run, overridden by the node; and read strictly."""

from pathlib import Path

import pytest
from flwr.app import Context, RecordDict
from toy_federation import DEVICE, Watched, app, model, request

from joulewise.codec import decode
from joulewise.compress import EF21, ErrorFeedback
from joulewise.errors import SettingError
from joulewise.flower import FileStore, MemoryStore, SparseGrid, Sparsify
from joulewise.flower.settings import KEYS, PREFIX
from joulewise.layout import Layout
from joulewise.rules import CWMP, Count, Density, Joules, MinVariance, TopK

LAYOUT = Layout.of(model())
PHONE = "phone-lte-2021"


def context(run=None, node=None):
    return Context(run_id=1, node_id=7, node_config=node or {}, state=RecordDict(), run_config=run or {})


def resolved(run=None, node=None, **code):
    made = Sparsify(**({"device": DEVICE, "rule": TopK(), "budget": Density(0.5)} | code))
    return made._settings.at(context(run, node))


def test_without_configuration_the_code_counts():
    assert resolved().compressor == Sparsify(DEVICE, TopK(), Density(0.5))._settings.compressor


def test_the_node_comes_before_the_run_and_the_run_before_the_code():
    run = {"joulewise.density": 0.25, "joulewise.device": PHONE, "joulewise.rule": "CWMP", "lr": 0.1}
    node = {"joulewise.joules": 2.5, "joulewise.values": "int8", "partition-id": 3}
    only_run, both = resolved(run), resolved(run, node)
    assert (only_run.devices, only_run.compressor.rule, only_run.compressor.budget) == ((PHONE,), CWMP(), Density(0.25))
    assert (both.devices, both.compressor.budget, both.compressor.values) == ((PHONE,), Joules(2.5), "int8")


@pytest.mark.parametrize(
    ("config", "feedback"),
    [
        ({"feedback": True}, ErrorFeedback()),
        ({"feedback-decay": 0.5}, ErrorFeedback(0.5)),
        ({"feedback": True, "feedback-clip": 2}, ErrorFeedback(clip=2.0)),
        ({"feedback": False}, None),
        ({"feedback": "EF21"}, EF21()),
        ({}, None),
    ],
)
def test_feedback_is_a_truth_value_with_two_options(config, feedback):
    assert resolved({PREFIX + key: value for key, value in config.items()}).compressor.feedback == feedback
    kept = resolved({"joulewise.feedback": True}, feedback=ErrorFeedback(0.9)).compressor.feedback
    assert kept == ErrorFeedback(0.9)
    assert resolved({"joulewise.feedback": True}, feedback=EF21()).compressor.feedback == EF21()


def test_the_rest_of_the_keys(tmp_path):
    found = resolved(
        {
            "joulewise.count": 5,
            "joulewise.local": "head.*, bn1*",
            "joulewise.store": str(tmp_path),
            "joulewise.boundary": "memory",
            "joulewise.seed": 9,
            "joulewise.multiply-accumulates": 1e6,
        }
    )
    assert (found.compressor.budget, found.local, found.store) == (
        Count(5),
        ("head.*", "bn1*"),
        FileStore(str(tmp_path)),
    )
    assert (found.boundary, found.seed, found.multiply_accumulates) == ("memory", 9, 1e6)
    assert resolved({"joulewise.rule": "Dense"}).compressor.budget is None
    assert resolved({"joulewise.rule": "MinVariance", "joulewise.density": 1}).compressor.rule == MinVariance()


@pytest.mark.parametrize(
    ("config", "words"),
    [
        (
            {"joulewise.densty": 0.1},
            r"there is no setting joulewise.densty \(in the node config\); did you mean joulewise.d",
        ),
        ({"joulewise.qqqq": 0.1}, "known: joulewise.device, joulewise.rule"),
        ({"joulewise.density": "0.1"}, r"joulewise.density in the node config must be a number .* '0.1', text"),
        ({"joulewise.density": True}, "is True, a truth value"),
        ({"joulewise.density": 1.5}, r"is 1.5, a number .*between 0 and 1"),
        ({"joulewise.density": float("nan")}, "must be a number from 0 to 1"),
        ({"joulewise.count": 2.5}, "must be a whole number"),
        ({"joulewise.count": -1}, "must be a whole number of at least 0, but is -1"),
        ({"joulewise.rule": "topk"}, "must be one of Dense, TopK, CWMP"),
        ({"joulewise.values": 32}, "must be one of float32"),
        ({"joulewise.feedback": 1}, 'must be true, false or "EF21", but is 1, a number'),
        ({"joulewise.feedback": "EF22"}, "must be true, false or \"EF21\", but is 'EF22', text"),
        ({"joulewise.feedback": "EF21", "joulewise.feedback-decay": 0.5}, "feedback-decay .* but EF21 has no settings"),
        ({"joulewise.feedback-clip": 0}, "must be a number above 0"),
        ({"joulewise.device": ""}, "must be the name of a device"),
        ({"joulewise.density": 0.1, "joulewise.joules": 2.0}, "joulewise.density and joulewise.joules are both set"),
        ({"joulewise.feedback": False, "joulewise.feedback-decay": 0.5}, "but joulewise.feedback is false"),
        ({"joulewise.price": 2.0}, "joulewise.price=2.0 in the node config: TopK does not take a Price budget"),
        ({"joulewise.feedback-momentum": 1.0}, r"ErrorFeedback\(momentum\) must be at least 0 and below 1, but is 1.0"),
        ({"joulewise.feedback-masking": 0}, "must be true or false, but is 0, a number"),
        ({"joulewise.threshold": -0.5}, "must be a number of at least 0, but is -0.5"),
        ({"joulewise.rule": "CWMP", "joulewise.threshold": 0.5}, "CWMP does not take a Threshold budget"),
        ({"joulewise.rule": "Dense", "joulewise.density": 0.1}, "Dense does not take a Density budget"),
    ],
)
def test_a_wrong_setting_is_an_error_that_names_the_key_what_was_expected_and_what_came(config, words):
    with pytest.raises(SettingError, match=words):
        resolved(node=config)


def test_true_and_one_are_not_mixed_up():
    assert resolved({"joulewise.count": 1}).compressor.budget == Count(1)
    with pytest.raises(SettingError):
        resolved({"joulewise.count": True})
    with pytest.raises(SettingError):
        resolved({"joulewise.count": 1.0})


def test_each_node_goes_by_its_own_settings_and_a_wrong_one_does_not_stop_the_others():
    inner = Watched(app(Sparsify(rule=TopK(), budget=Count(5), store=MemoryStore())), 4, raising=False)
    for node, config in enumerate([{}, {"joulewise.count": 9}, {"joulewise.rule": "Dense"}, {"joulewise.cont": 1}], 1):
        inner._contexts[node].node_config |= config
        inner._contexts[node].run_config = {} if node == 1 else {"joulewise.device": DEVICE}
    replies = SparseGrid(inner).send_and_receive([request(node) for node in (1, 2, 3, 4)])
    kept = {node: decode(payload, LAYOUT).selection.indices.size for node, payload, _ in inner.crossed}
    assert kept == {2: 9, 3: LAYOUT.n}
    reasons = {reply.metadata.src_node_id: reply.error.reason for reply in replies if reply.has_error()}
    assert "no device is known" in reasons[1]
    assert "did you mean joulewise.count?" in reasons[4]


def test_flowers_command_lines_can_carry_every_key():
    config = pytest.importorskip("flwr.common.config", reason="Flower keeps its parser elsewhere")
    keys = [key for key in KEYS if key != "local"]
    line = " ".join(f"{PREFIX}{key}={at}" for at, key in enumerate(keys))
    parsed = config.parse_config_args([f'{line} joulewise.local="head.*,bn?.*" partition-id=0'])
    assert set(parsed) == {PREFIX + key for key in KEYS} | {"partition-id"}
    assert parsed["joulewise.local"] == "head.*,bn?.*"


def test_the_documentation_lists_every_key():
    lines = (Path(__file__).parents[1] / "docs/flower.md").read_text(encoding="utf-8").splitlines()
    assert [line.split("`")[1] for line in lines if line.startswith("| `joulewise.") and "` | " in line][
        : len(KEYS)
    ] == [PREFIX + key for key in KEYS]
