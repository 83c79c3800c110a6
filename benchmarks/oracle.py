"""The kernel's selection against NumPy's, bit by bit, over random cases; exit code 1 on a difference.

    python benchmarks/oracle.py [cases]

Six kinds of data, all ranked rules and budgets, one to three threads, with and without feedback, every path of the
kernel (AVX2 and portable, brackets that miss, writing from the candidates and from the vector).
"""

import argparse
import sys
from pathlib import Path

from joulewise import kernel

sys.path.insert(0, str(Path(__file__).parent.parent / "tests"))

import native_cases


def main() -> int:
    parser = argparse.ArgumentParser(description="Compare the kernel's selection with NumPy's, bit by bit.")
    parser.add_argument("cases", type=int, nargs="?", default=10_000)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    library = kernel.library()
    if library is None:
        sys.stdout.write("there is no kernel to compare; build it and leave JOULEWISE_KERNEL out\n")
        return 1
    differences, met = native_cases.compare(arguments.seed, arguments.cases, library)
    for tag, count in sorted(met.items()):
        sys.stdout.write(f"{count:8,} {tag}\n")
    sys.stdout.write("".join(f"{line}\n" for line in differences[:20]))
    sys.stdout.write(f"{arguments.cases:8,} cases, {len(differences):,} differences\n")
    return 1 if differences else 0


if __name__ == "__main__":
    sys.exit(main())
