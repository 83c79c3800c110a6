"""What every test shares: one thread per process, reproducible examples, the data sets at hand."""

import os
import sys
import warnings
from pathlib import Path

import pytest
from hypothesis import settings

# Before numpy and torch are loaded: two workers on two cores, and sums in one order on every machine.
for variable in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ[variable] = "1"

# The default draws the same examples everywhere; `pytest --hypothesis-profile explore` looks for new ones.
settings.register_profile("ci", derandomize=True, deadline=None, database=None, print_blob=True)
settings.register_profile("explore", deadline=None, max_examples=2000, print_blob=True)
settings.load_profile("ci")


@pytest.fixture(scope="session")
def cifar10_folder() -> Path:
    """The folder with CIFAR-10 as parquet files, beside the repository."""
    folder = Path(__file__).parents[2] / "shared/data/cifar10"
    if not folder.is_dir():
        pytest.skip(f"CIFAR-10 is not at hand: there is no folder {folder}")
    return folder


@pytest.fixture
def joule(monkeypatch, capsys):
    """Type `joulewise ...`; returns exit code, stdout and stderr."""
    from joulewise import cli  # noqa: PLC0415 (after the threads are set)

    monkeypatch.delenv("COLUMNS", raising=False)
    monkeypatch.setattr(warnings, "formatwarning", warnings.formatwarning)  # main changes it

    def _joule(*arguments):
        monkeypatch.setattr(sys, "argv", ["joulewise", *map(str, arguments)])
        with pytest.raises(SystemExit) as end:
            cli.main()
        printed = capsys.readouterr()
        return end.value.code, printed.out, printed.err

    return _joule
