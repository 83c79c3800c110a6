"""The two implementations of the codec over many random payloads: the same bytes, the same refusals.

Run: ``python benchmarks/codec_oracle.py 10000 [--first SEED] [--mutants N]``.

Of each case: payload, bits of each tensor and rounded values are the same; both decode it to what the encoder said;
and of its mutants, all with a fitting checksum, both accept the same, with equal results, and refuse the others in the
same words. Exit code 1 on a difference, with the number of the case: ``tests/codec_cases.py`` makes it again.
"""

from __future__ import annotations

import argparse
import re
import sys
from collections import Counter
from pathlib import Path

from rich.progress import track

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))

from codec_cases import Case, case_of, mutants_of, read_by, written_by

from joulewise import native_codec, numpy_codec
from joulewise.kernel import active

SHOWN = 10


def differences(case: Case, seed: int, mutants: int, seen: Counter[str]) -> list[str]:
    """What the implementations disagree on."""
    found = []
    expected = written_by(numpy_codec, case)
    if written_by(native_codec, case) != expected:
        found.append("encode")
    payloads = [expected[0], *(mutants_of(expected[0], mutants, seed) if expected[0] else ())]
    for at, payload in enumerate(payloads):
        theirs, ours = (read_by(implementation, payload, case.layout) for implementation in (numpy_codec, native_codec))
        if theirs != ours:
            found.append(f"decode of mutant {at}: {theirs[:2]} != {ours[:2]}"[:300])
        seen["accepted" if theirs[0] == "accepted" else re.sub(r"[-+.\w]*\d[-+.\w]*|'\w+'", "#", theirs[1])[:70]] += 1
    return found


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("cases", type=int, nargs="?", default=10_000)
    parser.add_argument("--first", type=int, default=0)
    parser.add_argument("--mutants", type=int, default=5, help="of each payload")
    asked = parser.parse_args()
    if active() != "native":
        sys.stdout.write("The kernel is not there: nothing to compare NumPy with.\n")
        return 1
    broken, seen = 0, Counter[str]()
    for seed in track(range(asked.first, asked.first + asked.cases), disable=not sys.stdout.isatty()):
        for difference in differences(case_of(seed), seed, asked.mutants, seen):
            broken += 1
            if broken <= SHOWN:
                sys.stdout.write(f"case {seed}: {difference}\n")
    for what, count in seen.most_common():
        sys.stdout.write(f"{count:8} {what}\n")
    sys.stdout.write(f"{asked.cases} cases, {seen.total()} payloads read, {broken} differences\n")
    return int(broken > 0)


if __name__ == "__main__":
    raise SystemExit(main())
