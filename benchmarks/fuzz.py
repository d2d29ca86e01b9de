"""Send mutated files through the decoders, as many as one likes, and print what came of them.

``python benchmarks/fuzz.py [--count 100000] [--seed 0] [--corpus build/fuzz] [--drawn]``

Each input goes through what a prediction does with it (open, decode the first frames, bring them to two models' inputs) in a child process with a bound
on its memory; a child that dies or hangs is noticed, its input kept below ``CORPUS/faults`` and another child goes on. Inputs that came to something
new are kept in the corpus and mutated further, in this run and the next. Seeds are drawn by the project's own code; small real DICOM files from the folder
that OTEO_TEST_DATA names are added where there are such. Ends with 1 where anything but an answer or a reason came out.
"""

from __future__ import annotations

import argparse
import os
import sys
import time
from collections import Counter
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "tests"))

from fuzzing.harness import run  # noqa: E402 (the tests' folder is put on the path first)


def main() -> int:
    """Run and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--count", type=int, default=100_000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--corpus", type=Path, default=ROOT / "build" / "fuzz")
    parser.add_argument("--drawn", action="store_true", help="no real files")
    arguments = parser.parse_args()
    folder = Path(os.environ.get("OTEO_TEST_DATA", ROOT / ".." / "shared" / "data")).resolve()
    real = folder if folder.is_dir() and not arguments.drawn else None
    begin = time.perf_counter()

    def told(done: int) -> None:
        if done % 5000 == 0:
            print(f"{done} of {arguments.count}, {time.perf_counter() - begin:.0f} s", file=sys.stderr)

    result = run(arguments.count, arguments.corpus, seed=arguments.seed, real=real, faults=arguments.corpus / "faults", told=told)
    kinds = sorted({kind for kind, _ in result.outcomes})
    totals: Counter[str] = Counter()
    table: Counter[tuple[str, str]] = Counter()
    for (kind, outcome), number in result.outcomes.items():
        # Of several reasons among a file's frames the first is counted.
        short = outcome.partition(" ")[0].partition(",")[0]
        totals[short] += number
        table[kind, short] += number
    print(
        f"\n{result.total} inputs, seed {arguments.seed}, {'drawn and real' if real else 'drawn'} seeds, {time.perf_counter() - begin:.0f} s\n"
    )
    print("| outcome |", " | ".join(kinds), "| all |")
    print("|---|", "|".join("---:" for _ in kinds), "|---:|")
    for outcome, number in totals.most_common():
        print(f"| {outcome} |", " | ".join(str(table[kind, outcome] or "") for kind in kinds), f"| {number} |")
    print(f"\nslowest: {result.slowest[0]:.2f} s, {result.slowest[1]}")
    print(f"faults: {len(result.faults)}", *result.faults, sep="\n")
    return 1 if result.faults else 0


if __name__ == "__main__":
    sys.exit(main())
