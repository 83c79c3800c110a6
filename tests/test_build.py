"""Wheels: with the kernel, without it where it cannot be built, and from an editable installation."""

import os
import shutil
import subprocess
import sys
import tarfile
import tomllib
import zipfile
from pathlib import Path

import pytest

import joulewise

ROOT = Path(__file__).parents[1]
SOURCES = ("pyproject.toml", "CMakeLists.txt", "build_backend", "src", "LICENSE", "README.md", ".gitignore")
SMALL_KERNEL = 'extern "C" int joulewise_kernel_abi() { return 0; }\n'
NEEDED = "import sys; sys.path.insert(0, 'build_backend'); import joulewise_build as backend; "
USE = """
import numpy as np, joulewise as jw
from joulewise import kernel
layout = jw.Layout.of({"w": np.zeros(4)})
kept = jw.select(np.array([3, -1, 2, 0.5], np.float32), jw.Costs.of(1.0, layout, "relative"), jw.TopK(), jw.Count(2))
print(jw.decode(jw.encode(kept, layout), layout).dense().tolist(), kernel.status(), jw.__file__)
"""

pytest.importorskip("scikit_build_core", reason="wheels are built by scikit-build-core, which is not installed")
needs_compiler = pytest.mark.skipif(shutil.which("c++") is None, reason="there is no C++ compiler (c++) here")


@pytest.fixture
def tree(tmp_path):
    """A copy of the sources, with a kernel that compiles in no time."""
    tree = tmp_path / "tree"
    tree.mkdir()
    ignore = shutil.ignore_patterns("__pycache__", "_kernel.*")
    for name in SOURCES:
        source = ROOT / name
        shutil.copytree(source, tree / name, ignore=ignore) if source.is_dir() else shutil.copy(source, tree / name)
    (tree / "src/kernel/kernel.cpp").write_text(SMALL_KERNEL, encoding="utf-8")
    return tree


def ask(tree, call, **environment):
    """Call the backend as pip does, in a process of its own that starts in the tree."""
    (tree / "out").mkdir(exist_ok=True)
    kept = {name: value for name, value in os.environ.items() if name not in {"JOULEWISE_KERNEL", "CXX", "PYTHONPATH"}}
    return subprocess.run(
        [sys.executable, "-c", f"{NEEDED}print(backend.{call})"],
        cwd=tree, env=kept | environment, capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip


def build(tree, call="build_wheel('out')", **environment):
    """What the backend made, and what it said."""
    done = ask(tree, call, **environment)
    assert done.returncode == 0, done.stderr
    return tree / "out" / done.stdout.splitlines()[-1], done.stderr


def names(wheel):
    with zipfile.ZipFile(wheel) as archive:
        return set(archive.namelist())


def use(wheel, folder):
    """Select and encode with what the wheel holds."""
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(folder)
    environment = {name: value for name, value in os.environ.items() if name != "JOULEWISE_KERNEL"}
    done = subprocess.run(
        [sys.executable, "-c", USE], cwd=folder, env=environment | {"PYTHONPATH": str(folder)}, capture_output=True,
        text=True, timeout=120, check=True,
    )  # fmt: skip
    return done.stdout


@needs_compiler
def test_a_wheel_is_of_one_platform_and_any_python_and_holds_every_file_of_the_package_and_the_kernel(tree, tmp_path):
    shutil.copytree(ROOT / "src/kernel", tree / "src/kernel", dirs_exist_ok=True)
    wheel, said = build(tree)
    version, python, abi, platform = wheel.stem.split("-")[1:]
    assert (version, python, abi) == (joulewise.__version__, "py3", "none")
    assert platform != "any"
    package = {
        file.relative_to(ROOT / "src").as_posix()
        for file in (ROOT / "src/joulewise").rglob("*")
        if file.is_file() and "__pycache__" not in file.parts and not file.name.startswith("_kernel.")
    }
    rest = {name for name in names(wheel) if ".dist-info/" not in name}
    assert {"joulewise/py.typed", "joulewise/report.html", "joulewise/profiles/phone-lte-2021.toml"} <= package
    assert {Path(name).stem for name in rest - package} == {"_kernel"}
    assert package <= rest
    assert "joulewise:" not in said
    assert use(wheel, tmp_path / "use") == f"[3.0, 0.0, 2.0, 0.0] native {tmp_path / 'use/joulewise/__init__.py'}\n"


def test_with_a_compiler_that_fails_a_wheel_is_pure_python_says_so_and_works(tree, tmp_path):
    (tree / "src/joulewise/_kernel.so").write_text("of an earlier build")
    wheel, said = build(tree, CXX="/bin/false")
    assert wheel.name == f"joulewise-{joulewise.__version__}-0numpy-py3-none-any.whl"
    assert "the kernel could not be built" in said
    assert "computes on NumPy" in said
    assert not any("_kernel" in name for name in names(wheel))
    assert use(wheel, tmp_path / "use").startswith("[3.0, 0.0, 2.0, 0.0] numpy: not built ")


def test_without_compiler_and_cmake_a_wheel_is_pure_python(tree, tmp_path):
    (tmp_path / "sitecustomize.py").write_text(
        "import sys\nsys.modules['cmake'] = None  # as if there were none\n", encoding="utf-8"
    )
    wheel, said = build(tree, PATH=str(tmp_path), PYTHONPATH=str(tmp_path))
    assert wheel.name.endswith("-0numpy-py3-none-any.whl")
    assert "Could not find CMake" in said


def test_a_kernel_that_does_not_compile_is_left_out(tree):
    (tree / "src/kernel/kernel.cpp").write_text("#error no such platform\n", encoding="utf-8")
    wheel, said = build(tree)
    assert wheel.name.endswith("-0numpy-py3-none-any.whl")
    assert "install a C++17 compiler and joulewise again" in said


def test_joulewise_kernel_native_makes_a_build_without_the_kernel_fail(tree):
    done = ask(tree, "build_wheel('out')", CXX="/bin/false", JOULEWISE_KERNEL="native")
    assert done.returncode == 1
    assert "JOULEWISE_KERNEL=native asks for it" in done.stderr
    assert not list((tree / "out").iterdir())


def test_joulewise_kernel_numpy_leaves_the_kernel_out_and_needs_no_cmake(tree):
    wheel, said = build(tree, JOULEWISE_KERNEL="numpy")
    assert wheel.name.endswith("-0numpy-py3-none-any.whl")
    assert said == ""
    for hook in ("get_requires_for_build_wheel()", "get_requires_for_build_editable()"):
        assert ask(tree, hook, JOULEWISE_KERNEL="numpy").stdout == "[]\n"


def test_another_value_of_joulewise_kernel_is_refused_as_when_joulewise_runs(tree):
    for hook in ("get_requires_for_build_wheel()", "build_wheel('out')"):
        done = ask(tree, hook, JOULEWISE_KERNEL="natvie")
        assert done.returncode == 1
        assert done.stderr == "joulewise: JOULEWISE_KERNEL='natvie', but it is native, numpy or not set\n"


@needs_compiler
def test_an_editable_installation_points_to_the_tree_and_has_the_kernel_in_it(tree):
    wheel, _ = build(tree, "build_editable('out')")
    with zipfile.ZipFile(wheel) as archive:
        assert archive.read("joulewise.pth").decode() == f"{tree / 'src'}\n"
        metadata = archive.read(f"joulewise-{joulewise.__version__}.dist-info/METADATA").decode()
    assert {name for name in names(wheel) if ".dist-info/" not in name} == {"joulewise.pth"}
    assert f"Version: {joulewise.__version__}" in metadata
    assert [file.stem for file in (tree / "src/joulewise").glob("_kernel*")] == ["_kernel"]

    old = next((tree / "src/joulewise").glob("_kernel.*")).read_bytes()
    (tree / "src/kernel/kernel.cpp").write_text(SMALL_KERNEL.replace("0", "12345"), encoding="utf-8")
    build(tree, "build_editable('out')")
    assert next((tree / "src/joulewise").glob("_kernel.*")).read_bytes() != old


def test_an_editable_installation_without_a_compiler_leaves_no_older_kernel_behind(tree):
    (tree / "src/joulewise/_kernel.so").write_text("of an earlier build")
    wheel, said = build(tree, "build_editable('out')", CXX="/bin/false")
    assert "computes on NumPy" in said
    assert wheel.name.endswith("-0numpy-py3-none-any.whl")
    assert not list((tree / "src/joulewise").glob("_kernel*"))


@needs_compiler
def test_a_source_distribution_holds_what_a_build_needs_and_nothing_that_was_built(tree):
    (tree / "src/joulewise/_kernel.so").write_text("of an earlier build")
    sdist, _ = build(tree, "build_sdist('out')")
    with tarfile.open(sdist) as archive:
        archive.extractall(tree / "unpacked", filter="data")
    unpacked = next((tree / "unpacked").iterdir())
    assert not list(unpacked.rglob("_kernel*"))
    from_sdist, from_tree = build(unpacked)[0], build(tree)[0]
    assert names(from_sdist) == names(from_tree)
    assert any("_kernel" in name for name in names(from_sdist))


def test_metadata_are_asked_for_without_a_build(tree):
    for hook in ("prepare_metadata_for_build_wheel('out')", "prepare_metadata_for_build_editable('out')"):
        folder, _ = build(tree, hook, CXX="/bin/false")
        assert f"Version: {joulewise.__version__}\n" in (folder / "METADATA").read_text(encoding="utf-8")
        shutil.rmtree(folder)


def test_what_a_build_takes_is_pinned():
    pins = {line.partition("==")[0] for line in (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines()}
    with (ROOT / "pyproject.toml").open("rb") as file:
        required = tomllib.load(file)["build-system"]["requires"]
    assert [name.partition(">=")[0].replace("-", "_") for name in required] == ["scikit_build_core"]
    assert {"scikit_build_core", "cmake", "ninja"} <= pins
