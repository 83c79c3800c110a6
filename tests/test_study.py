"""Study files: what they decode to, and what each mistake in one says."""

# ruff: noqa: E501 (messages stand as a user reads them)

import json
import math
from pathlib import Path

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from joulewise import study
from joulewise.compress import EF21, ErrorFeedback
from joulewise.errors import ProfileError, StudyError
from joulewise.flower.choice import StrategyChoice
from joulewise.learning import IID, MLP, Dirichlet
from joulewise.rules import BUDGETS, CWMP, LEGAL, RULES, Count, Dense, Density, Joules, RandomK
from joulewise.study import Choice, Study, expand, load

STUDIES = Path(__file__).parents[1] / "studies"

MINIMAL = """
name = "small"
rounds = 2
seeds = [0]
model = "mlp"
data = { name = "digits", clients = 2, partition = "IID" }
fleet = { devices = "synthetic-kind-10" }
"""
GRID = MINIMAL + '\n[grid]\nrule = ["TopK", "CWMP"]\ndensity = [0.1, 0.2]\n'


@pytest.fixture
def write(tmp_path, monkeypatch):
    """Write a study file; the tests name it as a user would, relative to the current folder."""
    monkeypatch.chdir(tmp_path)

    def _write(text: str, name: str = "x.toml") -> str:
        Path(name).write_text(text, encoding="utf-8")
        return name

    return _write


def names(loaded: Study) -> list[str]:
    return [arm.name for arm in expand(loaded)]


# ---------------------------------------------------------------- what a file means


def test_the_quickstart_is_dense_and_three_rules_at_four_densities():
    arms = expand(load(STUDIES / "quickstart.toml"))
    densities = ("density=0.01", "density=0.05", "density=0.1", "density=0.2")
    assert [arm.name for arm in arms] == [
        "Dense",
        *(f"{rule} {density}" for rule in ("TopK", "CWMP", "Projection") for density in densities),
    ]
    assert all(arm.rounds == 20 and arm.devices == ("synthetic-kind-10",) * 10 for arm in arms)


@pytest.mark.parametrize("file", sorted(STUDIES.glob("*.toml")), ids=lambda file: file.stem)
def test_every_study_that_comes_with_joulewise_loads(file):
    assert load(file).name == file.stem


def test_the_smoke_study_of_cifar10_is_small():
    loaded = load(STUDIES / "cifar10-smoke.toml")
    assert (loaded.rounds, loaded.seeds, loaded.data.examples) == (5, (0, 1, 2), 10_000)
    assert names(loaded) == ["TopK density=0.01", "TopK density=0.1", "CWMP density=0.01", "CWMP density=0.1"]


def test_shorthands_are_the_records_that_they_stand_for(write):
    short = MINIMAL + '[compressor]\nfeedback = true\n[[arms]]\nrule = "CWMP"\njoules = 0.5\n'
    long = """
        [compressor]
        feedback = { decay = 1.0 }
        [[arms]]
        rule = { name = "CWMP" }
        budget = { name = "Joules", budget = 0.5 }
        [model]
        name = "mlp"
        [data]
        name = "digits"
        clients = 2
        partition = { name = "IID" }
        [fleet]
        devices = "synthetic-kind-10"
    """
    head = 'name = "small"\nrounds = 2\nseeds = [0]\n'
    loaded = load(write(short))
    assert loaded == load(write(head + long))
    assert loaded.compressor.feedback == ErrorFeedback()
    assert loaded.arms == (Choice(rule=CWMP(), budget=Joules(0.5)),)
    assert loaded.data.partition == IID()
    assert loaded.model == MLP()


def test_a_budget_in_the_grid_may_be_one_value_a_list_or_a_table_of_options(write):
    loaded = load(write(MINIMAL + "[grid]\nrule='CWMP'\ncount=3\njoules=[1, {budget=2, fill=true}]\n"))
    assert loaded.grid.budget == (Count(3), Joules(1.0), Joules(2.0, fill=True))
    assert names(loaded) == ["CWMP count=3", "CWMP joules=1", "CWMP joules=2 fill"]


def test_the_product_of_the_grid_comes_before_single_arms(write):
    loaded = load(write(GRID + '[[arms]]\nrule="MinVariance"\njoules=3.5\nvalues="float16"\n'))
    assert names(loaded) == [
        "TopK density=0.1 values=float32",
        "TopK density=0.2 values=float32",
        "CWMP density=0.1 values=float32",
        "CWMP density=0.2 values=float32",
        "MinVariance joules=3.5 values=float16",
    ]


def test_what_a_rule_does_not_use_is_dropped_and_equal_arms_are_one(write):
    grid = (
        '[grid]\nrule=["Dense","TopK"]\ndensity=[0.1,0.2]\nfeedback=[true,false]\n[[arms]]\nrule="TopK"\ndensity=0.1\n'
    )
    loaded = load(write(MINIMAL + grid))
    assert names(loaded) == [
        "Dense no feedback",
        "TopK density=0.1 feedback",
        "TopK density=0.1 no feedback",
        "TopK density=0.2 feedback",
        "TopK density=0.2 no feedback",
    ]
    assert expand(loaded)[0].compressor.budget is None


def test_rounded_values_leave_a_remainder_even_without_compression(write):
    loaded = load(write(MINIMAL + '[grid]\nrule="Dense"\nvalues="int8"\nfeedback=[true,false]\n'))
    assert names(loaded) == ["Dense feedback", "Dense no feedback"]


def test_ef21_stands_beside_error_feedback(write):
    loaded = load(
        write(
            MINIMAL
            + '[grid]\nrule=["Dense","TopK"]\ndensity=0.1\nfeedback=["EF21",{name="EF21"},true,"ErrorFeedback",{name="ErrorFeedback"},{decay=0.5},'
            + '{name="ErrorFeedback",decay=0.5},false]\n'
        )
    )
    assert names(loaded) == [
        "Dense no feedback",
        "TopK density=0.1 feedback=EF21",
        "TopK density=0.1 feedback",
        "TopK density=0.1 feedback=decay=0.5",
        "TopK density=0.1 no feedback",
    ]
    assert [arm.compressor.feedback for arm in expand(loaded)[1:]] == [
        EF21(),
        ErrorFeedback(),
        ErrorFeedback(decay=0.5),
        None,
    ]
    text = msgspec.json.encode(loaded)
    assert load(write(text.decode(), "study.json")) == loaded


def test_every_setting_of_the_grid_reaches_its_arm_and_its_name(write):
    grid = """
        [grid]
        rule = { name = "RandomK", scale = true }
        density = 0.1
        strategy = ["FedAvg", { name = "FedAvg", options = { fraction_train = 0.5 } }]
        devices = ["phone-lte-2021", { synthetic-kind-10 = 1, synthetic-residency-32 = 1 }]
        partition = ["IID", { name = "Dirichlet", alpha = 0.3 }]
        learning_rate = [0.1, 0.2]
        local_epochs = [1, 2]
    """
    arms = expand(load(write(MINIMAL + grid)))
    assert len(arms) == len({arm.name for arm in arms}) == 32
    last = arms[-1]
    assert last.compressor.rule == RandomK(scale=True)
    assert last.strategy == StrategyChoice("FedAvg", {"fraction_train": 0.5})
    assert last.devices == ("synthetic-kind-10", "synthetic-residency-32")
    assert last.data.partition == Dirichlet(0.3)
    assert (last.training.learning_rate, last.training.local_epochs) == (0.2, 2)
    assert last.name == (
        "RandomK scale=True density=0.1 strategy=FedAvg fraction_train=0.5 devices=1 synthetic-kind-10, "
        "1 synthetic-residency-32 partition=Dirichlet alpha=0.3 learning_rate=0.2 local_epochs=2"
    )


def test_devices_are_given_to_the_partitions_in_their_order(write):
    loaded = load(write(GRID), ["data.clients=3", "fleet.devices={synthetic-residency-32=1, synthetic-kind-10=2}"])
    assert expand(loaded)[0].devices == ("synthetic-residency-32", "synthetic-kind-10", "synthetic-kind-10")


def test_a_study_without_grid_and_arms_is_one_arm(write):
    assert names(load(write(MINIMAL + '[compressor]\nrule="CWMP"\ndensity=0.1\n'))) == ["CWMP density=0.1"]


def test_a_relative_path_of_the_data_stays_relative_to_the_current_folder(write):
    changes = ["data.name=cifar10", "data.path=some/folder"]
    assert load(write(GRID), changes).data.path == "some/folder"


rules = st.sampled_from([rule for rule in RULES if rule is not Dense])
amounts = st.floats(1e-6, 1.0)


@given(st.lists(rules, min_size=1, max_size=3), st.lists(amounts, min_size=1, max_size=3))
def test_a_grid_of_legal_pairs_has_one_arm_for_each_different_pair(rule_types, fractions):
    loaded = msgspec.convert(
        {
            **{"name": "x", "rounds": 1, "seeds": [0], "model": {"name": "mlp"}},
            "data": {"name": "digits", "clients": 1, "partition": {"name": "IID"}},
            "fleet": {"devices": "synthetic-kind-10"},
            "grid": {
                "rule": [{"name": rule.__name__} for rule in rule_types],
                "budget": [{"name": "Density", "fraction": fraction} for fraction in fractions],
            },
        },
        Study,
    )
    arms = expand(loaded)
    assert len(arms) == len({arm.name for arm in arms}) == len(set(rule_types)) * len(set(fractions))


@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize("budget", BUDGETS)
def test_a_pair_is_an_arm_exactly_if_it_is_legal(rule, budget, write):
    text = MINIMAL + f'[[arms]]\nrule="{rule.__name__}"\n{budget.__name__.lower()}=1\n'
    if budget in LEGAL[rule] or rule is Dense:
        (arm,) = expand(load(write(text)))
        assert arm.compressor.budget == (None if rule is Dense else budget(1))
    else:
        with pytest.raises(
            StudyError, match=f"{rule.__name__} does not take a {budget.__name__.lower()} budget; it takes"
        ):
            load(write(text))


def test_settings_tell_arms_apart_in_words_and_numbers_only(write):
    loaded = load(write(GRID))
    found = [study.labels.settings(arm) for arm in expand(loaded)]
    assert found[0]["rule"] == "TopK"
    assert (found[0]["budget"], found[0]["amount"]) == ("density", 0.1)
    assert len({json.dumps(one) for one in found}) == len(found)
    assert "precision" not in found[0]
    (half, *_) = expand(load(write(GRID), ["training.precision=bfloat16"]))
    assert study.labels.settings(half)["precision"] == "bfloat16"


# ---------------------------------------------------------------- overrides


@pytest.mark.parametrize(
    ("override", "path", "value"),
    [
        ("rounds=7", "rounds", 7),
        ("training.batch_size = 64", "training.batch_size", 64),
        ("training.learning_rate=1", "training.learning_rate", 1.0),
        ("name=other", "name", "other"),
        ('name="other"', "name", "other"),
        ("seeds=[3, 4]", "seeds", (3, 4)),
        ("model.name=resnet18", "model.__class__.__name__", "ResNet18"),
        ("data.partition.name=IID", "data.partition", IID()),
        ("strategy.options.fraction_train=0.5", "strategy.options", {"fraction_train": 0.5}),
        ("compressor.feedback=true", "compressor.feedback", ErrorFeedback()),
        ("grid.density=0.5", "grid.budget", (Density(0.5),)),
        ("grid.rule=[{name='RandomK', scale=true}]", "grid.rule", (RandomK(scale=True),)),
        ('fleet.devices."synthetic-kind-10"=2', "fleet.devices", {"synthetic-kind-10": 2}),
    ],
)
def test_an_override_sets_one_value_of_the_file(override, path, value, write):
    text = GRID.replace('devices = "synthetic-kind-10"', "devices = { synthetic-kind-10 = 1 }")
    found = load(
        write(text.replace("clients = 2", "clients = 1")),
        [override, *([] if "devices" not in override else ["data.clients=2"])],
    )
    for name in path.split("."):
        found = getattr(found, name)
    assert found == value


def test_later_overrides_win(write):
    assert load(write(GRID), ["rounds=3", "rounds=4"]).rounds == 4


@pytest.mark.parametrize("override", ["rounds", "=3", "two words=3", "a=1\nb=2", "[grid]=3", "a.=3"])
def test_an_override_that_is_none_says_how_one_looks(override, write):
    with pytest.raises(
        StudyError, match=r"--set .*expected KEY\.PATH=VALUE, for example --set training\.batch_size=64"
    ):
        load(write(GRID), [override])


def test_an_override_cannot_reach_into_a_number(write):
    with pytest.raises(StudyError, match=r"--set rounds\.x=3: rounds is not a table, so .*; set it whole"):
        load(write(GRID), ["rounds.x=3"])


# ---------------------------------------------------------------- mistakes


def message_of(path: str, *overrides: str) -> str:
    with pytest.raises((StudyError, ProfileError)) as caught:
        load(path, overrides)
    text = str(caught.value)
    assert "\n" not in text
    assert len(text) < 500
    return text


MISTAKES = {
    "a number out of range": (
        "training.batch_size=0",
        "x.toml: Expected int >= 1, got 0 - at $.training.batch_size (--set training.batch_size=0); change that --set",
    ),
    "no number": (
        "rounds=many",
        'Expected int, got "many" - at $.rounds (--set rounds=many); change that --set',
    ),
    "a truth value for a number": ("rounds=true", "Expected int, got true - at $.rounds"),
    "a number too large": (
        "rounds=100000000000000000000",
        "Expected int <= 1000000000, got 100000000000000000000",
    ),
    "a misspelt rule": (
        'grid.rule=["TopK","cpwm"]',
        'invalid value \'cpwm\' - at $.grid.rule[1] (--set grid.rule=["TopK","cpwm"]); did you mean CWMP? '
        "(expected one of: Dense, TopK, CWMP, Projection, MinVariance, RandomK, LayerwiseTopK)",
    ),
    "a rule in the wrong case": (
        "grid.rule=topk",
        "invalid value 'topk' - at $.grid.rule (--set grid.rule=topk); did you mean TopK?",
    ),
    "a misspelt dataset": (
        "data.name=cifar",
        "invalid value 'cifar' - at $.data.name (--set data.name=cifar); did you mean cifar10?",
    ),
    "a misspelt model": (
        "model=cnnn",
        "invalid value 'cnnn' - at $.model (--set model=cnnn); did you mean cnn?",
    ),
    "a misspelt partition": (
        "data.partition=Dirchlet",
        "'Dirchlet' - at $.data.partition (--set data.partition=Dirchlet); did you mean Dirichlet?",
    ),
    "a misspelt strategy": ("strategy=FedAvgg", "did you mean FedAvg?"),
    "a misspelt value type": (
        "compressor.values=float31",
        "invalid value 'float31' - at $.compressor.values",
    ),
    "a value type of the grid": ('grid.values=["float33"]', "did you mean float32?"),
    "an unknown key": (
        "training.batchsize=3",
        "unknown key `batchsize` - at $.training; did you mean batch_size? (its keys are: batch_size,",
    ),
    "an unknown table": ("trainin.batch_size=3", "unknown key `trainin` - at $; did you mean training?"),
    "an unknown budget": (
        "grid.densit=0.1",
        "unknown key `densit` - at $.grid; did you mean density? (its keys are: bytes, count, density,",
    ),
    "a key in the wrong place": ("batch_size=3", "unknown key `batch_size` - at $; it belongs in [training]"),
    "a budget in the wrong place": (
        "density=0.1",
        "unknown key `density` - at $; it belongs in [compressor] or [grid]",
    ),
    "an unknown option of a record": (
        "data.partition={name='Dirichlet', alpa=0.3}",
        "unknown key `alpa` - at $.data.partition (--set data.partition={name='Dirichlet', alpa=0.3}); did you mean alpha? (its keys are: alpha)",
    ),
    "an unknown option of a rule": (
        "grid.rule=[{name='RandomK', scaled=true}]",
        "unknown key `scaled` - at $.grid.rule[0] (--set grid.rule=[{name='RandomK', scaled=true}]); did you mean scale?",
    ),
    "an unknown option of a budget": (
        "grid.joules=[{budget=1, fil=true}]",
        "unknown key `fil` - at $.grid.joules[0] (--set grid.joules=[{budget=1, fil=true}]); did you mean fill?",
    ),
    "an unknown option of a strategy": (
        "strategy.options.fraction=0.5",
        "options has 'fraction', which FedAvg does not take; it takes",
    ),
    "a density above 1": (
        "grid.density=[0.1, 2]",
        "density must be between 0 and 1, but is 2.0 - at $.grid.density[1]",
    ),
    "a density that is text": (
        "grid.density=much",
        'Expected float, got "much" - at $.grid.density (--set grid.density=much)',
    ),
    "an amount below 0": (
        "grid.joules=[-1]",
        "joules must be finite and at least 0, but is -1.0 - at $.grid.joules[0]",
    ),
    "decay above 1": (
        "compressor.feedback={decay=3}",
        "ErrorFeedback(decay) must be between 0 and 1, but is 3.0 - at $.compressor.feedback",
    ),
    "EF21 with a setting": (
        "compressor.feedback={name='EF21', decay=0.5}",
        "EF21 has no settings, but decay is given - at $.compressor.feedback (--set compressor.feedback={name='EF21', "
        "decay=0.5}); leave it out",
    ),
    "an unknown feedback": (
        "compressor.feedback=EF22",
        "invalid value 'EF22' - at $.compressor.feedback (--set compressor.feedback=EF22); did you mean EF21? ",
    ),
    "an unknown feedback with a setting": (
        "compressor.feedback={name='Feedback', decay=0.5}",
        "invalid value 'Feedback' - at $.compressor.feedback (--set compressor.feedback={name='Feedback', decay=0.5}); did "
        "you mean ErrorFeedback? (expected one of: EF21, ErrorFeedback)",
    ),
    "EF21 and a lossy downlink": (
        "arms=[{rule='TopK', density=0.1, feedback='EF21', strategy={downlink={name='Lossy', density=0.1}}}]",
        "strategy and feedback = 'EF21': EF21 does not go with downlink=Lossy(density=0.1), under which nodes train on",
    ),
    "EF21 and a budget of both ways": (
        "arms=[{rule='CWMP', density=0.1, feedback='EF21', strategy={downlink='lossless', "
        "allocation={name='EqualJoules', share=0.1, counts='both'}}}]",
        "EF21 does not go with EqualJoules(counts='both'), which counts what masks keep",
    ),
    "EF21 and nodes that are asked": (
        "arms=[{rule='CWMP', density=0.1, feedback='EF21', strategy={allocation={name='OnePrice', share=0.1, "
        "control='asked'}}}]",
        "EF21 does not go with OnePrice(control='asked'); use control='curves' or 'ascent'",
    ),
    "EF21 for an unbiased rule": (
        "arms=[{rule='MinVariance', density=0.1, feedback='EF21'}]",
        "arm MinVariance with density=0.1: MinVariance sends values scaled up",
    ),
    "not a number": (
        "training.learning_rate=nan",
        "x.toml: expected a finite number, got nan - at $.training.learning_rate",
    ),
    "infinity": ("grid.density=[0.1, -inf]", "expected a finite number, got -inf - at $.grid.density[1]"),
    "a seed twice": ("seeds=[1,2,1]", "seeds lists 1 twice, expected each seed once"),
    "no seeds": ("seeds=[]", "Expected array of length >= 1, got [] - at $.seeds"),
    "a seed below 0": ("seeds=[-1]", "Expected int >= 0, got -1 - at $.seeds[0]"),
    "a name with a slash": ("name=a/b", 'got "a/b" - at $.name (--set name=a/b); change that --set'),
    "an empty list": ("grid.rule=[]", "grid.rule is an empty list; leave it out or list alternatives"),
    "two budgets": (
        "arms=[{rule='TopK', density=0.1, joules=3}]",
        "arms[0] has two budgets, density and joules; keep one, or list both in [grid]",
    ),
    "a table that is none": ("grid=3", "Expected object, got 3 - at $.grid"),
    "too few devices": (
        "data.clients=3",
        "fleet.devices has 2 devices (synthetic-kind-10 2), but data.clients is 3; make the numbers of devices sum to the clients",
    ),
    "devices below 1": (
        "fleet.devices={synthetic-kind-10=3, phone-lte-2021=-1}",
        "fleet.devices has -1 of phone-lte-2021, expected 1 or more; leave out",
    ),
    "an unknown device": (
        "fleet.devices=phone-lt",
        "x.toml: there is no device 'phone-lt'; did you mean 'phone-lte-2021'?",
    ),
    "devices of two units": (
        "fleet.devices={phone-lte-2021=1, synthetic-kind-10=1}",
        "fleet.devices mixes units of account (phone-lte-2021 in J, synthetic-kind-10 in relative), which cannot be added up; take devices of one unit",
    ),
    "a rule and a budget that do not go together": (
        "grid.price=0.5",
        "arm TopK with price=0.5: TopK does not take a price budget; it takes count, density, joules, bytes or "
        "threshold; take one of them out, and list the arms that you mean one by one as [[arms]]",
    ),
    "feedback for an unbiased rule": (
        "arms=[{rule='MinVariance', density=0.1, feedback=true}]",
        "arm MinVariance with density=0.1: MinVariance sends values scaled up",
    ),
    "a rule without its budget": (
        "arms=[{rule='TopK'}]",
        "arm TopK: TopK needs a budget: count, density, joules, bytes or threshold; add one, for example density = [0.01",
    ),
}


@pytest.mark.parametrize(("override", "expected"), MISTAKES.values(), ids=MISTAKES.keys())
def test_a_mistake_is_named_with_its_place_what_was_expected_what_came_and_what_to_do(override, expected, write):
    path = write(GRID.replace('devices = "synthetic-kind-10"', "devices = { synthetic-kind-10 = 2 }"))
    message = message_of(path, override)
    assert message.startswith("x.toml: ")
    assert expected in message


def test_a_mistake_in_the_file_says_that_it_can_be_mended_there_or_overridden(write):
    path = write(GRID + "[training]\nbatch_size = 0\n")
    assert message_of(path) == (
        "x.toml: Expected int >= 1, got 0 - at $.training.batch_size; "
        "change it in the file or with --set training.batch_size=VALUE"
    )
    assert load(path, ["training.batch_size=8"]).training.batch_size == 8


def test_a_missing_setting_is_named(write):
    assert message_of(write(GRID.replace("rounds = 2", ""))) == "x.toml: `rounds` is missing - at $; add rounds = ..."


def test_a_study_without_a_rule_says_where_to_add_one(write):
    assert message_of(write(MINIMAL)) == (
        'x.toml: no rule is given; add one, for example [grid] rule = ["TopK", "CWMP"]'
    )


def test_a_syntax_error_names_line_and_column(write):
    assert message_of(write(GRID.replace("rounds = 2", "rounds 2"))) == (
        "x.toml: line 3, column 8: Expected '=' after a key in a key/value pair; mend that line"
    )


def test_a_file_that_is_not_there_suggests_one_that_is(write):
    write(GRID, "quickstart.toml")
    assert message_of("quikstart.toml") == "there is no study file quikstart.toml; did you mean quickstart.toml?"
    assert message_of("zzz.toml") == "there is no study file zzz.toml; check the path"


def test_a_file_that_is_no_text_and_a_folder_are_refused(write, tmp_path):
    (tmp_path / "x.toml").write_bytes(b"name = '\xff'")
    assert message_of("x.toml") == "x.toml: not UTF-8 text at byte 8; a study is a TOML text file"
    assert message_of(".") == ".: cannot be read (Is a directory); give the path of a TOML file"
    write("[1, 2", "x.json")
    assert message_of("x.json").startswith("x.json: not a JSON object (")


def test_the_canonical_json_of_a_study_is_a_study_file_itself(write):
    loaded = load(write(GRID), ["compressor.feedback=true"])
    path = write(msgspec.json.encode(loaded).decode(), "study.json")
    assert load(path) == loaded


@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
        lambda inner: (
            st.lists(inner, max_size=3)
            | st.dictionaries(
                st.sampled_from(["name", "rule", "density", "joules", "feedback", "x"]), inner, max_size=3
            )
        ),
        max_leaves=5,
    ),
    st.sampled_from(
        [
            "grid",
            "arms",
            "data",
            "model",
            "fleet",
            "compressor",
            "strategy",
            "training",
            "rounds",
            "seeds",
            "name",
        ]
    ),
)
def test_whatever_stands_in_a_file_is_a_study_or_one_sentence(tmp_path_factory, value, key):
    path = tmp_path_factory.mktemp("any") / "x.json"
    tables = {
        **{"name": "x", "rounds": 1, "seeds": [0], "model": "mlp", "grid": {"rule": "TopK", "density": 0.1}},
        "data": {"name": "digits", "clients": 1, "partition": "IID"},
        "fleet": {"devices": "synthetic-kind-10"},
    }
    path.write_text(json.dumps({**tables, key: value}), encoding="utf-8")
    try:
        loaded = load(path)
    except (StudyError, ProfileError) as error:
        explained = str(error).startswith(str(path))
    else:
        explained = True
        assert expand(loaded)
        assert math.isfinite(loaded.training.learning_rate)
    assert explained


def test_a_byte_order_mark_at_the_start_is_no_part_of_the_study(tmp_path):
    (tmp_path / "marked.toml").write_text("\ufeff" + GRID, encoding="utf-8")
    (tmp_path / "plain.toml").write_text(GRID, encoding="utf-8")
    assert load(tmp_path / "marked.toml") == load(tmp_path / "plain.toml")
