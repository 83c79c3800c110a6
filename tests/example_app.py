"""The example's app in this process."""

from __future__ import annotations

import contextlib
import io
import logging
import shlex
import sys
import tomllib
from pathlib import Path

import deployment
from flwr.app import Context, RecordDict

from joulewise.flower.inprocess import InProcessGrid

SETTINGS = tomllib.loads((deployment.EXAMPLE / "pyproject.toml").read_text(encoding="utf-8"))["tool"]["flwr"]["app"]
OWN = {f"joulewise.{key}": value for key, value in SETTINGS["config"]["joulewise"].items()}
CONFIG = {key: value for key, value in SETTINGS["config"].items() if key != "joulewise"} | OWN
"""As Flower hands it to an app: the keys of inner tables joined by dots."""


def node_configs(state_folder: Path) -> list[dict[str, int | str]]:
    """What the README tells each SuperNode, with another folder: states of an earlier run would be found there."""
    configs = []
    for command in deployment.readme_commands("flower-supernode"):
        words = shlex.split(command)
        pairs = shlex.split(words[words.index("--node-config") + 1])
        config = dict(pair.split("=") for pair in pairs)
        assert config["joulewise.store"] == "state"
        configs.append(config | {"partition-id": int(config["partition-id"]), "joulewise.store": str(state_folder)})
    return configs


def run(settings: dict[str, object] | None = None, nodes: list[dict[str, int | str]] | None = None) -> str:
    """Run the app and return what it printed.

    Args:
        settings: of the run, over those of its pyproject.
        nodes: the node configuration of each; as in the simulation where it is None.
    """
    sys.path.insert(0, str(deployment.EXAMPLE))
    try:
        from digits_app import client_app, server_app  # noqa: PLC0415 (the example is no package of this project)
    finally:
        sys.path.remove(str(deployment.EXAMPLE))
    logging.getLogger("flwr").setLevel(logging.ERROR)
    config = CONFIG | (settings or {})
    grid = InProcessGrid(client_app.app, config["nodes"])
    for at, context in enumerate(grid._contexts.values()):
        context.run_config = config
        if nodes is not None:
            context.node_config = nodes[at]
    context = Context(run_id=1, node_id=0, node_config={}, state=RecordDict(), run_config=config)
    with contextlib.redirect_stdout(io.StringIO()) as printed:
        server_app.app(grid, context)
    return printed.getvalue()
