"""Hostile payloads by the million against the decoder that is active: ``python benchmarks/fuzz.py 1000000``.

With ``--sanitize`` the kernel is built anew with AddressSanitizer and UndefinedBehaviorSanitizer, into a copy of
the package that is thrown away, and Python runs under them. Whatever the decoder accepts must encode to the same
bytes; whatever it refuses must be refused with a PayloadError; memory is limited. Anything else is a finding: it is
printed with the number of its mutant, which ``--only NUMBER`` makes again, and the exit code is 1.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import shutil
import site
import struct
import subprocess
import sys
import tempfile
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor, as_completed
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "tests"))

CHUNK = 20_000
"""Mutants that one worker takes, at most."""
MEMORY_MIB = 64
"""What decoding may take above what a worker has before it begins; the largest model has 70,033 parameters."""
FLAGS = ("-std=c++17", "-O1", "-g", "-fPIC", "-shared", "-pthread", "-ffp-contract=off", "-fno-omit-frame-pointer")
SANITIZERS = ("-fsanitize=address,undefined", "-fno-sanitize-recover=all")
ADDRESS_OPTIONS = "detect_leaks=0:malloc_context_size=4:quarantine_size_mb=4"
COUNTS = ("outcomes", "seals", "changes", "accepted modes", "modes refused after the table")
BEFORE_THE_TABLE_ENDS = (
    *("payload begins", "payload was damaged", "payload has unknown flags", "payload is of a model", "payload keeps"),
    *("payload says that buffers", "payload writes", "payload names", "payload gives", "payload codes"),
    *("payload holds the value symbol", "payload holds code lengths", "payload is cut off in its header"),
    *("payload is cut off in the table", "payload is cut off in a value table"),
)


# ---------------------------------------------------------------- one worker


def work(start: int, stop: int, seed: int, note: Path, limit_memory: bool) -> dict[str, Counter[str]]:
    """Decode the mutants from `start` to before `stop`; the file `note` always holds the number at work."""
    from mutants import judge, judge_checksums, mutant  # noqa: PLC0415 (imports joulewise, which only workers may do)

    judge_checksums()
    judge(mutant(0, seed))  # What is made once for a process is made now.
    if limit_memory:
        pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[0])
        most = pages * resource.getpagesize() + MEMORY_MIB * 2**20
        resource.setrlimit(resource.RLIMIT_AS, (most, most))
    counts: dict[str, Counter[str]] = {name: Counter() for name in COUNTS}
    with note.open("wb", buffering=0) as at_work:
        for number in range(start, stop):
            at_work.seek(0)
            at_work.write(struct.pack("<Q", number))
            count(counts, number, seed)
    return counts


def count(counts: dict[str, Counter[str]], number: int, seed: int) -> None:
    from mutants import judge, mutant  # noqa: PLC0415 (as above)

    made = mutant(number, seed)
    try:
        outcome = judge(made)
    except Exception as error:
        raise SystemExit(f"FINDING mutant {number} of seed {seed}: {error!r}\n{told(made)}") from error
    counts["outcomes"][outcome] += 1
    counts["seals"][made.seal] += 1
    counts["changes"].update(made.done)
    if outcome.startswith("accepted"):
        counts["accepted modes"].update(made.modes)
    elif not outcome.startswith(BEFORE_THE_TABLE_ENDS):
        counts["modes refused after the table"].update(made.modes)


def told(made) -> str:
    return f"  {made.payload.hex()}\n  {made.layout}\n  {', '.join(made.done)}; fits again: {made.seal}"


# ---------------------------------------------------------------- all workers


def fuzz(mutants: int, seed: int, workers: int, environment: dict[str, str], command: list[str]) -> int:
    """Run chunks of mutants in processes of their own, print what was reached, and return the exit code."""
    total: dict[str, Counter[str]] = {name: Counter() for name in COUNTS}
    chunk, began, finding = min(CHUNK, -(-mutants // workers)), time.monotonic(), ""

    def run(start: int) -> tuple[dict[str, dict[str, int]], str]:
        note = Path(folder) / str(start)
        arguments = [str(start), str(min(start + chunk, mutants)), str(note), "--seed", str(seed)]
        whole = [*command, __file__, "--worker", *arguments]
        done = subprocess.run(whole, env=environment, check=False, stdout=subprocess.PIPE, text=True)
        if done.returncode == 0:
            return json.loads(done.stdout.splitlines()[-1]), ""
        at = struct.unpack("<Q", note.read_bytes())[0] if note.exists() else "none"
        return {}, f"FINDING: a worker ended with {done.returncode} at mutant {at} of seed {seed}\n{done.stdout}"

    with tempfile.TemporaryDirectory() as folder, ThreadPoolExecutor(workers) as pool:
        jobs = [pool.submit(run, start) for start in range(0, mutants, chunk)]
        try:
            for job in as_completed(jobs):
                counts, finding = job.result()
                for name, counted in counts.items():
                    total[name].update(counted)
                print(f"{total['seals'].total():,} of {mutants:,}", file=sys.stderr)
                if finding:
                    break
        except KeyboardInterrupt:
            print("stopped; this is what was done:")
        pool.shutdown(wait=True, cancel_futures=True)
    if finding:
        print(finding)
        return 1
    report(total, time.monotonic() - began)
    return 0


def report(total: dict[str, Counter[str]], seconds: float) -> None:
    mutants, refitted = total["seals"].total(), total["seals"]["lengths and checksum"]
    accepted = sum(count for name, count in total["outcomes"].items() if name.startswith("accepted"))
    print(f"{mutants:,} mutants in {seconds:.0f} s: no finding")
    print(f"{refitted:,} with lengths and checksum that fit again; {accepted:,} accepted")
    for name, counted in total.items():
        print("", name, *(f"{count:>11,}  {each}" for each, count in counted.most_common()), sep="\n")


# ---------------------------------------------------------------- the sanitized kernel


def sanitized(folder: Path) -> tuple[dict[str, str], list[str]]:
    """A copy of the package with a kernel that checks itself; environment and command of its Python."""
    package, compiler = folder / "joulewise", os.environ.get("CXX", "g++")
    shutil.copytree(ROOT / "src" / "joulewise", package, ignore=shutil.ignore_patterns("__pycache__", "_kernel.*"))
    source = ROOT / "src" / "kernel" / "kernel.cpp"
    subprocess.run([compiler, *FLAGS, *SANITIZERS, str(source), "-o", str(package / "_kernel.so")], check=True)
    libraries = [
        subprocess.run(
            [compiler, f"-print-file-name={name}"], check=True, capture_output=True, text=True
        ).stdout.strip()
        for name in ("libasan.so", "libubsan.so", "libstdc++.so")
    ]
    environment = os.environ | {
        "LD_PRELOAD": " ".join(libraries),
        "ASAN_OPTIONS": f"{ADDRESS_OPTIONS}:max_allocation_size_mb={MEMORY_MIB}",
        "UBSAN_OPTIONS": "print_stacktrace=1:halt_on_error=1",
        "JOULEWISE_KERNEL": "native",
        "PYTHONPATH": os.pathsep.join([str(folder), *site.getsitepackages()]),
    }
    # Without the site's .pth files: an editable installation would come before the copy.
    return environment, [sys.executable, "-S"]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("mutants", type=int, nargs="?", default=20_000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--sanitize", action="store_true", help="build and run the kernel under its sanitizers")
    parser.add_argument("--only", type=int, metavar="NUMBER", help="one mutant, in this process")
    parser.add_argument("--worker", nargs=3, metavar=("START", "STOP", "NOTE"), help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.worker:
        start, stop, note = given.worker
        limit_memory = "LD_PRELOAD" not in os.environ  # AddressSanitizer reserves terabytes and has a limit of its own.
        print(json.dumps(work(int(start), int(stop), given.seed, Path(note), limit_memory)))
        return 0
    if given.only is not None:
        from mutants import judge, mutant  # noqa: PLC0415 (as above)

        print(told(made := mutant(given.only, given.seed)), judge(made), sep="\n")
        return 0
    if not given.sanitize:
        return fuzz(given.mutants, given.seed, given.workers, dict(os.environ), [sys.executable])
    with tempfile.TemporaryDirectory() as folder:
        return fuzz(given.mutants, given.seed, given.workers, *sanitized(Path(folder)))


if __name__ == "__main__":
    sys.exit(main())
