"""Images a second of importing 10,000 small images, against hashing and decoding them in a plain loop.

    python benchmarks/import.py [--images 10000] [--repeats 5] [--size 64] [--folder /a/disk]

The peer is the least that any import has to do: read each file, SHA-256, decode with OpenCV. An import beside that judges the files' structure,
digests pixels, hashes what they look like, copies media, finds duplicates, parts, and writes the table. Both run in one process, turn about,
after a warm-up; "two cores" gives the shards to two warm processes, as an import's job gives them to Ray's workers.
Files lie in memory by default: creating 10,000 files on a disk's file system takes from 25 to 120 us each, by what else was made and deleted
there, and says nothing of the import. The plain loop creates none. CPU seconds of the one-core runs are printed too: they bear company on the machine
better than the clock does.
Prints medians with the spread (smallest to largest) over the repeats.
"""

from __future__ import annotations

import argparse
import hashlib
import itertools
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import cv2
import numpy as np

from oteo_augment.importing import Hooks, ImportOptions, Limits, import_dataset
from oteo_core.artifacts import ArtifactStore
from oteo_core.images import encode_jpeg, encode_png
from oteo_core.jobs.executor import Executor, ProcessExecutor

BAR_ONE, BAR_TWO = 0.5, 1.0


def draw(folder: Path, count: int, size: int) -> int:
    """Draw images of two classes, PNG and JPEG in turn; give their bytes."""
    total = 0
    for name in ("round", "long"):
        (folder / name).mkdir(parents=True)
    for index in range(count):
        rng = np.random.default_rng(index)
        coarse = rng.integers(40, 216, (8, 8, 3), dtype=np.uint8)
        pixels = cv2.resize(coarse, (size, size), interpolation=cv2.INTER_CUBIC)
        noisy = np.clip(pixels + rng.normal(0, 4, pixels.shape), 0, 255).astype(np.uint8)
        data, ending = (encode_png(noisy), "png") if index % 2 else (encode_jpeg(noisy, 90), "jpg")
        (folder / ("round", "long")[index // 2 % 2] / f"{index:06}.{ending}").write_bytes(data)
        total += len(data)
    return total


def plain_loop(files: list[Path]) -> None:
    """Read, hash and decode."""
    for path in files:
        data = path.read_bytes()
        hashlib.sha256(data).hexdigest()
        if cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_UNCHANGED) is None:
            raise SystemExit(f"{path} cannot be decoded")


def bring_in(source: Path, goal: Path, executor: Executor | None) -> None:
    """Import into a fresh store."""

    @contextmanager
    def shared() -> Iterator[Executor]:
        assert executor is not None
        yield executor  # warm, and not closed: the next repeat uses it

    hooks = Hooks(executor=None if executor is None else shared)
    result = import_dataset(ImportOptions("bench", str(source)), ArtifactStore(str(goal)), "datasets/bench", limits=Limits(), hooks=hooks)
    if result.info.excluded_count:
        raise SystemExit("images were left out")


def timed(work: Callable[[], None]) -> tuple[float, float]:
    """Give the seconds that a call takes, by the clock and of this process's CPU."""
    start, cpu = time.perf_counter(), time.process_time()
    work()
    return time.perf_counter() - start, time.process_time() - cpu


def main() -> int:
    """Measure; exit status 1 if a bar is missed."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--images", type=int, default=10_000)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--size", type=int, default=64)
    parser.add_argument(
        "--folder",
        type=Path,
        default=Path("/dev/shm") if Path("/dev/shm").is_dir() else None,
        help="where files lie; memory, not a disk, unless given",
    )
    given = parser.parse_args()
    cv2.setNumThreads(1)
    cores = sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else list(range(os.cpu_count() or 1))
    with tempfile.TemporaryDirectory(prefix="oteo-bench-", dir=given.folder) as folder:
        root = Path(folder)
        size = draw(root / "source", given.images, given.size)
        files = sorted((root / "source").rglob("*.*"))
        print(f"{len(files)} images of {given.size} x {given.size} pixels, half PNG half JPEG, {size / 1e6:.1f} MB; {len(cores)} cores")
        executor = ProcessExecutor(2)
        numbers = itertools.count()
        rows: dict[str, list[float]] = {"plain loop, one core": [], "import, one core": [], "import, two cores": []}

        cpus: dict[str, list[float]] = {name: [] for name in rows}

        def once(keep: bool) -> None:
            def note(name: str, work: Callable[[], None]) -> None:
                seconds, cpu = timed(work)
                if keep:
                    rows[name].append(len(files) / seconds)
                    cpus[name].append(cpu / len(files) * 1e6)

            # A fresh folder each time, deleted at the end: ext4 hands out inodes slowly for half a minute after many were freed.
            goal = root / f"store-{next(numbers)}"
            pin_all(cores[:1])
            note("plain loop, one core", lambda: plain_loop(files))
            note("import, one core", lambda: bring_in(root / "source", goal, None))
            pin_all(cores[:2])
            note("import, two cores", lambda: bring_in(root / "source", root / f"store-{next(numbers)}", executor))

        once(keep=False)
        for _ in range(given.repeats):
            once(keep=True)
        executor.close()
    base = statistics.median(rows["plain loop, one core"])
    ratios = {}
    print(f"{'':24}{'images/s':>10}{'spread':>18}{'of the loop':>13}{'CPU us/image':>14}")
    for name, values in rows.items():
        ratios[name] = statistics.median([v / p for v, p in zip(values, rows["plain loop, one core"], strict=True)])
        print(
            f"{name:24}{statistics.median(values):>10.0f}{f'{min(values):.0f} to {max(values):.0f}':>18}{ratios[name]:>12.2f}x{statistics.median(cpus[name]) if 'two' not in name else float('nan'):>14.0f}"
        )
    one, two = ratios["import, one core"], ratios["import, two cores"]
    good = one >= BAR_ONE and two > one
    print(f"bar: at least {BAR_ONE}x on one core, faster on two: {'kept' if good else 'MISSED'} (plain loop {base:.0f} images/s)")
    return 0 if good else 1


def pin_all(cores: list[int]) -> None:
    """Hold this process to these cores."""
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, cores)


if __name__ == "__main__":
    sys.exit(main())
