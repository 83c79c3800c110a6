"""The build backend (PEP 517, PEP 660): scikit-build-core, and what to do where the kernel cannot be built.

A wheel holds the kernel, `joulewise/_kernel.so`. Without a C++17 compiler, or without CMake, joulewise is installed all
the same and computes on NumPy: the wheel is then `joulewise-VERSION-0numpy-py3-none-any.whl`, which pip prints while it
shows nothing else of a build that succeeded, and `joulewise --version` says so for ever after.

JOULEWISE_KERNEL, which chooses at run time, chooses here too: `native` makes a build without the kernel fail, and
`numpy` leaves it out.
"""

from __future__ import annotations

import os
import sys
import tempfile
import zipfile
from pathlib import Path

from scikit_build_core import build as scikit
from scikit_build_core.build import build_sdist, get_requires_for_build_sdist
from scikit_build_core.errors import ScikitBuildError

__all__ = [
    "build_editable",
    "build_sdist",
    "build_wheel",
    "get_requires_for_build_editable",
    "get_requires_for_build_sdist",
    "get_requires_for_build_wheel",
    "prepare_metadata_for_build_editable",
    "prepare_metadata_for_build_wheel",
]

Settings = dict[str, "list[str] | str"]

VARIABLE = "JOULEWISE_KERNEL"
PACKAGE = Path("src") / "joulewise"
WITHOUT_KERNEL: Settings = {"wheel.cmake": "false"}
NUMPY: Settings = {**WITHOUT_KERNEL, "wheel.build-tag": "0numpy"}


def get_requires_for_build_wheel(config_settings: Settings | None = None) -> list[str]:
    """CMake and ninja, where this machine has none."""
    return [] if _asked() == "numpy" else scikit.get_requires_for_build_wheel(config_settings)


def get_requires_for_build_editable(config_settings: Settings | None = None) -> list[str]:
    """As for a wheel."""
    return get_requires_for_build_wheel(config_settings)


def prepare_metadata_for_build_wheel(metadata_directory: str, config_settings: Settings | None = None) -> str:
    """The metadata, which are the same with and without the kernel."""
    return scikit.prepare_metadata_for_build_wheel(metadata_directory, {**(config_settings or {}), **WITHOUT_KERNEL})


def prepare_metadata_for_build_editable(metadata_directory: str, config_settings: Settings | None = None) -> str:
    """As for a wheel."""
    return prepare_metadata_for_build_wheel(metadata_directory, config_settings)


def build_wheel(
    wheel_directory: str, config_settings: Settings | None = None, metadata_directory: str | None = None
) -> str:
    """A wheel with the kernel, or one without it where it cannot be built."""
    del metadata_directory  # Made for a wheel of one platform or of any: both are written anew here.
    settings, wanted = dict(config_settings or {}), _asked()
    if wanted == "numpy":
        return scikit.build_wheel(wheel_directory, {**settings, **NUMPY})
    try:
        return scikit.build_wheel(wheel_directory, settings)
    except (SystemExit, ScikitBuildError, OSError) as error:  # scikit-build-core exits where the compiler fails.
        if wanted == "native":
            _say(f"the kernel could not be built, and {VARIABLE}=native asks for it ({_reason(error)})")
            raise SystemExit(1) from error
        _say(
            f"the kernel could not be built ({_reason(error)}): joulewise is installed without it and computes on "
            "NumPy, with the same results, slower; install a C++17 compiler and joulewise again to change that"
        )
    return scikit.build_wheel(wheel_directory, {**settings, **NUMPY})


def build_editable(
    wheel_directory: str, config_settings: Settings | None = None, metadata_directory: str | None = None
) -> str:
    """A wheel that points to this source tree, with the kernel built into the tree.

    One plain `.pth`, and no import hook: a file that is added is there at once, PYTHONPATH still comes first, and
    `importlib.resources` finds the kernel beside the modules.
    """
    with tempfile.TemporaryDirectory() as folder:
        built = Path(folder) / build_wheel(folder, config_settings, metadata_directory)
        kernel = _place_kernel(built)
        pointer = Path(folder) / "joulewise.pth"
        pointer.write_text(f"{PACKAGE.parent.resolve()}\n", encoding="utf-8")
        settings: Settings = {**(config_settings or {}), **(WITHOUT_KERNEL if kernel else NUMPY), "wheel.packages": []}
        settings[f"wheel.force-include.{pointer}"] = pointer.name
        return scikit.build_wheel(wheel_directory, settings)


def _place_kernel(wheel: Path) -> bool:
    """Take the wheel's kernel into the source tree; where it has none, an older one there goes too."""
    found = False
    for old in PACKAGE.glob("_kernel.*"):
        old.unlink()
    with zipfile.ZipFile(wheel) as archive:
        for name in archive.namelist():
            if name.startswith("joulewise/_kernel."):
                # Written beside and moved into place: a process that runs with the old file keeps it.
                fresh = PACKAGE / (Path(name).name + ".part")
                fresh.write_bytes(archive.read(name))
                fresh.chmod(0o755)
                fresh.replace(PACKAGE / Path(name).name)
                found = True
    return found


def _asked() -> str:
    asked = os.environ.get(VARIABLE, "").strip()
    if asked not in ("", "native", "numpy"):
        _say(f"{VARIABLE}={asked!r}, but it is native, numpy or not set")
        raise SystemExit(1)
    return asked


def _reason(error: BaseException) -> str:
    return "see the compiler's messages above" if isinstance(error, SystemExit) else str(error)


def _say(sentence: str) -> None:
    sys.stderr.write(f"joulewise: {sentence}\n")
