"""The kernel gives the same bits with AVX2 and without it, optimised or not; `make aarch64` adds other processors."""

import re
import shutil
import subprocess
from pathlib import Path

import pytest

KERNEL = Path(__file__).parent / "kernel"
LINE = re.compile(r"[a-z ]+ n = +\d+  selections [0-9a-f]{16}  payloads [0-9a-f]{16}")


@pytest.fixture(scope="module")
def hashes(tmp_path_factory):
    """Build the driver with some options; what it prints, with some arguments."""
    compiler = shutil.which("c++")
    if compiler is None:
        pytest.skip("there is no C++ compiler (c++) here")

    def _hashes(*options, arguments=()):
        program = tmp_path_factory.mktemp("driver") / "driver"
        flags = ["-std=c++17", "-ffp-contract=off", "-pthread", *options]
        subprocess.run([compiler, *flags, KERNEL / "driver.cpp", "-o", program], check=True, timeout=300)
        return [
            subprocess.run(
                [program, *each], check=True, capture_output=True, text=True, timeout=300
            ).stdout.splitlines()
            for each in (arguments or [()])
        ]

    return _hashes


def test_results_do_not_depend_on_avx2(hashes):
    native, portable = hashes("-O2", arguments=[(), ("portable",)])
    assert native == portable
    assert len(native) == 24
    assert all(LINE.fullmatch(line) for line in native)
    # Each kind of input has results of its own: a hash of nothing would be the same everywhere.
    assert len({line.partition("selections")[2] for line in native if "n = 200003" in line}) == 6
