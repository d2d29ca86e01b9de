"""Tells whether the memory of an augmentation is flat from 1,000 to 100,000 samples.

    python benchmarks/augment_memory.py [--samples 1000 10000 100000]

Each size is augmented in a fresh process, the one that cuts, hands out and assembles: in it the shards run, too, one after the other, so that all memory
that the work takes is counted. Images are of 16 x 16 pixels, 64 different ones, so that a hundred thousand take minutes; checkpoints lie in files,
as a job's do. Prints the largest resident memory (of the kernel's VmHWM), the memory once the libraries were loaded, and seconds.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

os.environ.setdefault("NO_ALBUMENTATIONS_UPDATE", "1")

import augment_sources

from oteo_augment.augmentation import AugmentationPlan, augment_dataset
from oteo_core.artifacts import ArtifactStore
from oteo_core.augmentation import Policy, Step
from oteo_core.datasets import Box, DatasetInfo, DatasetWriter, Sample
from oteo_core.images import ImageLimits, encode_png, pixel_digest
from oteo_core.jobs.executor import InlineExecutor

SIDE = 16


class Files:
    """Checkpoints in files, as a job's are."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def save(self, name: str, data: bytes) -> None:
        """Write."""
        path = self._folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)

    def load(self, name: str) -> bytes | None:
        """Read."""
        path = self._folder / name
        return path.read_bytes() if path.exists() else None

    def check(self) -> None:
        """Go on."""


def draw(store: ArtifactStore, count: int) -> None:
    """Write a dataset of tiny images with two boxes each."""
    kinds = [augment_sources.picture(index, SIDE, SIDE) for index in range(64)]
    with DatasetWriter(store, "datasets/source", DatasetInfo("source", task="detection", classes=("cell",))) as writer:
        files = [(writer.add_media(f"{index:05}.png", encode_png(pixels)), pixel_digest(pixels)) for index, pixels in enumerate(kinds)]
        for index in range(count):
            path, digest = files[index % len(files)]
            boxes = tuple(Box("cell", 1 + index % 5, 2 + place, 6, 5) for place in range(2))
            writer.add(
                Sample(f"i{index:06}", path=path, pixel_digest=digest, width=SIDE, height=SIDE, channels=3, split="train", boxes=boxes)
            )
        writer.finish()


def memory(name: str) -> float:
    """Give a line of the kernel's account of this process, MB."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(f"{name}:")) / 1024


def child(root: Path, count: int) -> None:
    """Augment, and print seconds and memory."""
    store = ArtifactStore(f"file://{root}/store")
    policy = Policy((Step("HorizontalFlip", {}, 0.5), Step("Affine", {}, 0.5), Step("RandomBrightnessContrast", {}, 0.5)))
    plan = AugmentationPlan(policy, copies=1)

    def run(source: str, target: str) -> None:
        outcome = augment_dataset(
            store, source, plan, DatasetInfo(target, uid="u", create_time="2026-01-01T00:00:00+00:00"), staging=f"datasets/{target}",
            store_options={}, limits=ImageLimits(), executor=InlineExecutor(), checkpoints=Files(root / target), progress=lambda done, total: None,
        )  # fmt: skip
        if outcome.findings:
            raise SystemExit("samples were not augmented")

    run("small", "warm")
    loaded, begin = memory("VmRSS"), time.perf_counter()
    run("source", "goal")
    print(
        f"| {count:,} | {loaded:.0f} | {memory('VmHWM'):.0f} | {memory('VmHWM') - loaded:.0f} | {time.perf_counter() - begin:.0f} |",
        flush=True,
    )


def main() -> None:
    """Measure."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--samples", type=int, nargs="+", default=[1_000, 10_000, 100_000])
    parser.add_argument("--child", nargs=2, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.child:
        child(Path(given.child[0]), int(given.child[1]))
        return
    print("| samples (as many copies) | loaded, MB | largest, MB | more, MB | seconds |\n|---|---|---|---|---|", flush=True)
    for count in given.samples:
        with tempfile.TemporaryDirectory(prefix="oteo-bench-", dir="/dev/shm" if Path("/dev/shm").is_dir() else None) as folder:
            store = ArtifactStore(f"file://{folder}/store")
            draw(store, count)
            with DatasetWriter(store, "datasets/small", DatasetInfo("small", task="detection", classes=("cell",))) as writer:
                pixels = augment_sources.picture(0, SIDE, SIDE)
                path = writer.add_media("a.png", encode_png(pixels))
                writer.add(Sample("a", path=path, pixel_digest=pixel_digest(pixels), width=SIDE, height=SIDE, channels=3, split="train"))
                writer.finish()
            subprocess.run([sys.executable, "-W", "ignore", __file__, "--child", folder, str(count)], check=True)


if __name__ == "__main__":
    main()
