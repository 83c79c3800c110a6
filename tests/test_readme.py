"""Every command and snippet of the README runs."""

import contextlib
import io
import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from joulewise import study

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text()
# Shorter, not different: the commands are the README's, the study has one round.
SHORT = [
    "--set",
    "rounds=1",
    "--set",
    "seeds=[0]",
    "--set",
    'grid.rule=["Dense","CWMP"]',
    "--set",
    "grid.density=[0.01]",
]


def blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```$", README, re.MULTILINE | re.DOTALL)


def commands() -> list[str]:
    return [line.removeprefix("$ ") for block in blocks("console") for line in block.splitlines()]


def test_every_python_snippet_runs_and_prints_what_the_readme_shows():
    namespace: dict[str, object] = {}
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed):
        for block in blocks("python"):
            exec(compile(block, "README.md", "exec"), namespace)
    assert printed.getvalue() == "".join(blocks("text"))


def test_the_numpy_example_is_about_ten_lines():
    assert len([line for line in blocks("python")[0].splitlines() if line]) <= 11


def test_every_make_target_exists():
    makefile = (ROOT / "Makefile").read_text()
    targets = [command.split()[1] for command in commands() if command.startswith("make ")]
    assert targets
    for target in targets:
        assert re.search(rf"^{target}:", makefile, re.MULTILINE), target


def test_the_joulewise_commands_run_one_after_another(tmp_path):
    shutil.copytree(ROOT / "studies", tmp_path / "studies")
    environment = os.environ | {"OMP_NUM_THREADS": "1", "NO_COLOR": "1"}
    ran = [command for command in commands() if command.startswith("joulewise ")]
    assert any(" run " in command for command in ran)
    for command in ran:
        words = shlex.split(command)[1:] + (SHORT if " run " in command else [])
        done = subprocess.run(
            [sys.executable, "-m", "joulewise", *words],
            cwd=tmp_path,
            env=environment,
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stderr
    assert (tmp_path / "runs/quickstart/report.html").is_file()


def test_the_study_shown_is_the_quickstart(tmp_path):
    shown = tmp_path / "quickstart.toml"
    shown.write_text(blocks("toml")[0])
    assert study.load(shown) == study.load(ROOT / "studies/quickstart.toml")


@pytest.mark.parametrize("target", re.findall(r"\]\((?!http)([^)#]+)\)", README))
def test_every_link_to_a_file_leads_somewhere(target):
    assert (ROOT / target).exists()
