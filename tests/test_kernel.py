"""Which implementation runs: what the environment asks for, what is there, and what is said about it."""

import shutil
import subprocess
from pathlib import Path

import pytest

from joulewise import cli, kernel
from joulewise.errors import KernelError

SOURCE = 'extern "C" int joulewise_kernel_abi() {{ return {abi}; }}\n'


@pytest.fixture
def kernels(tmp_path, monkeypatch):
    """An empty folder in which the kernel is looked for, in a process that has not chosen yet."""
    monkeypatch.setattr("joulewise.kernel.resources.files", lambda _: tmp_path)
    monkeypatch.delenv(kernel.VARIABLE, raising=False)
    kernel.library.cache_clear()
    yield tmp_path
    kernel.library.cache_clear()


def compiled(folder: Path, abi: int) -> None:
    compiler = shutil.which("c++")
    if compiler is None:
        pytest.skip("there is no C++ compiler (c++) here")
    (folder / "small.cpp").write_text(SOURCE.format(abi=abi), encoding="utf-8")
    subprocess.run([compiler, "-shared", "-fPIC", folder / "small.cpp", "-o", folder / kernel.NAMES[0]], check=True)


def test_without_a_kernel_numpy_computes_and_the_version_says_why(kernels, monkeypatch, capsys):
    assert (kernel.active(), kernel.status()) == ("numpy", "numpy: not built")
    monkeypatch.setattr("sys.argv", ["joulewise", "--version"])
    with pytest.raises(SystemExit):
        cli.main()
    assert capsys.readouterr().out.endswith(" (kernel: numpy: not built)\n")


def test_a_kernel_of_this_version_is_used(kernels):
    compiled(kernels, kernel.ABI)
    assert (kernel.active(), kernel.status()) == ("native", "native")


def test_joulewise_kernel_numpy_leaves_a_kernel_alone(kernels, monkeypatch):
    compiled(kernels, kernel.ABI)
    monkeypatch.setenv(kernel.VARIABLE, "numpy")
    assert (kernel.library(), kernel.status()) == (None, "numpy: JOULEWISE_KERNEL=numpy")


def test_a_kernel_of_another_version_is_left_alone_and_named(kernels, monkeypatch):
    compiled(kernels, kernel.ABI + 1)
    assert kernel.status() == "numpy: built for another version of joulewise"
    monkeypatch.setenv(kernel.VARIABLE, "native")
    kernel.library.cache_clear()
    with pytest.raises(KernelError, match="JOULEWISE_KERNEL=native, but the kernel is built for another version"):
        kernel.library()


def test_a_file_that_is_no_library_is_left_alone_and_named(kernels):
    (kernels / kernel.NAMES[0]).write_bytes(b"\x7fELF, and then nothing")
    assert kernel.status() == "numpy: not a library that this machine can load"


def test_asking_for_a_kernel_that_is_not_there_is_one_sentence_with_the_next_step(kernels, monkeypatch, capsys):
    monkeypatch.setenv(kernel.VARIABLE, "native")
    with pytest.raises(
        KernelError, match="install a C\\+\\+17 compiler and joulewise again, or leave the variable out"
    ):
        kernel.active()
    monkeypatch.setattr("sys.argv", ["joulewise", "--version"])
    with pytest.raises(SystemExit) as stopped:
        cli.main()
    assert stopped.value.code == 1
    assert "error: JOULEWISE_KERNEL=native, but the kernel is not built" in capsys.readouterr().err


def test_another_value_is_refused(kernels, monkeypatch):
    monkeypatch.setenv(kernel.VARIABLE, "cuda")
    with pytest.raises(KernelError, match="JOULEWISE_KERNEL='cuda', but it is native, numpy or not set"):
        kernel.status()
