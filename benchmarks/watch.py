"""How often the watch over a deployment rings without a shift, and how soon with one: ``python benchmarks/watch.py [--streams 50] [--images 10000]``.

The statistics of the real sets of ``OTEO_TEST_DATA`` are drawn with replacement: the reference and the stream from one set (false alarms), and then
from another (delay). Each look is that of the gateway: every 16 images, at the level that these images brought. The peers are the plain uses of the same tests:
each look at 5 %, and at 1 % corrected for a look's own tests, as a monitor without a correction for repeated looks does.
"""

from __future__ import annotations

import argparse
import csv
import os
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from oteo_core.evaluation.bootstrap import Floats, generator, wilson_interval
from oteo_core.packages.reference import image_statistics, statistic_names
from oteo_core.shift.alarm import Alarm, level_of
from oteo_core.shift.home import Flags, Home
from oteo_core.shift.looking import LOOKED_AT, look

Pixels = NDArray[np.uint8]

SIDE = 128
EVERY = 16
RATE = 0.01
LEAST_EFFECT = 0.15
REFERENCE = 300
RUN = 8


@dataclass
class Pool:
    """A set's images as statistics, and their classes where they are known (``(N, K)`` bool)."""

    name: str
    rows: Floats
    classes: Flags | None = None


def read(name: str, folder: Path, labels: Path | None = None, change: Callable[[Pixels], Pixels] = lambda image: image) -> Pool:
    """Measure a folder of images, 128 x 128, each changed first."""
    files = sorted(path for path in folder.rglob("*") if path.suffix.lower() in (".png", ".jpg", ".jpeg", ".bmp"))
    rows, kept = [], []
    for path in files:
        shown = cv2.imread(str(path), cv2.IMREAD_COLOR)
        if shown is None:
            continue
        image = cv2.resize(cv2.cvtColor(shown, cv2.COLOR_BGR2RGB), (SIDE, SIDE), interpolation=cv2.INTER_AREA)
        rows.append(image_statistics(change(image)))
        kept.append(path)
    classes = None
    if labels is not None:
        with labels.open() as stream:
            known = {
                int("".join(c for c in row[0] if c.isdigit()) or -1): int(row[1])
                for row in csv.reader(stream)
                if len(row) > 1 and row[1].strip().isdigit()
            }
        numbers = np.array([known.get(int(path.stem), 0) for path in kept])
        classes = numbers[:, None] == np.arange(1, 6)[None]
    return Pool(name, np.array(rows).astype(np.float32).astype(np.float64), classes)


def home_of(pool: Pool, rows: np.ndarray) -> Home:
    """Make the reference of some images; the model is taken to be right on them."""
    classes = pool.classes[rows] if pool.classes is not None else None
    names = tuple(str(number) for number in range(classes.shape[1])) if classes is not None else ()
    return Home.of_sample(statistic_names(3), pool.rows[rows], classes=names, truths=classes, answers=classes)


@dataclass
class Watched:
    """What became of a stream: the first image at which each way of looking rang, -1 for never; what the alarm said; looks."""

    ours: int
    plain: int
    corrected: int
    kind: str
    looks: int


def watch(home: Home, rows: Floats, answers: Flags | None, start: int = 0) -> Watched:
    """Look at a stream as the gateway does; rings before image `start` count as false and end it."""
    ours, plain, corrected, kind, looks = -1, -1, -1, "", 0
    alarm = Alarm()
    for end in range(EVERY, len(rows) + 1, EVERY):
        begin = max(0, end - LOOKED_AT)
        level = level_of(EVERY, RATE)
        found = look(home, rows[begin:end], None if answers is None else answers[begin:end], level)
        if found is None:
            continue
        looks += 1
        alarm = alarm.after(found, level, LEAST_EFFECT, float(end))
        if alarm.on and ours < 0:
            ours, kind = end, found.kind
        if found.p_value <= 0.05 and plain < 0:
            plain = end
        if found.p_value <= 0.01 and corrected < 0:
            corrected = end
        if ours >= 0 and start:
            break
    return Watched(ours, plain, corrected, kind, looks)


def in_runs(pool: Pool, count: int, rng: np.random.Generator) -> np.ndarray:
    """Draw rows in runs of `RUN` that look alike, as images of one patient do: an image and its nearest neighbours."""
    scaled = (pool.rows - pool.rows.mean(axis=0)) / np.maximum(pool.rows.std(axis=0), 0.01)
    near = np.argsort(((scaled[:, None] - scaled[None]) ** 2).sum(axis=2), axis=1)[:, :RUN]
    return np.concatenate([near[centre][rng.permutation(RUN)] for centre in rng.integers(0, len(pool.rows), -(-count // RUN))])[:count]


def false_alarms(pool: Pool, streams: int, images: int, *, runs: bool = False) -> str:
    """Count streams of one domain with an alarm."""
    rang = np.zeros(3)
    looks, begin = 0, time.perf_counter()
    for stream in range(streams):
        rng = generator(stream, pool.name, "runs" if runs else "false alarms")
        home = home_of(pool, rng.integers(0, len(pool.rows), REFERENCE))
        rows = in_runs(pool, images, rng) if runs else rng.integers(0, len(pool.rows), images)
        found = watch(home, pool.rows[rows], pool.classes[rows] if pool.classes is not None else None)
        rang += [found.ours >= 0, found.plain >= 0, found.corrected >= 0]
        looks += found.looks
    upper = wilson_interval(rang[0] / streams, streams).upper
    words = f"{pool.name}{', in runs of ' + str(RUN) if runs else ''}"
    seconds = (time.perf_counter() - begin) / max(1, looks)
    return f"| {words} | {int(rang[0])} of {streams} (at most {upper:.1%}) | {int(rang[1])} | {int(rang[2])} | {seconds * 1000:.1f} |"


def delay(
    words: str, home_pool: Pool, shifted: Pool, rows_of: np.ndarray | None, streams: int, before: int = 512, after: int = 1024
) -> str:
    """Measure how many images after a shift the alarm goes on."""
    delays, kinds, early = [], [], 0
    for stream in range(streams):
        rng = generator(stream, words, "delay")
        home = home_of(home_pool, rng.integers(0, len(home_pool.rows), REFERENCE))
        first = rng.integers(0, len(home_pool.rows), before)
        choice = np.arange(len(shifted.rows)) if rows_of is None else rows_of
        second = rng.choice(choice, after)
        rows = np.concatenate([home_pool.rows[first], shifted.rows[second]])
        answers = None
        if home_pool.classes is not None and shifted.classes is not None:
            answers = np.concatenate([home_pool.classes[first], shifted.classes[second]])
        found = watch(home, rows, answers, start=before)
        if 0 <= found.ours <= before:
            early += 1
        else:
            delays.append(found.ours - before if found.ours > 0 else np.inf)
            kinds.append(found.kind)
    ordered = np.sort(delays)
    middle, most = ordered[len(ordered) // 2], ordered[min(len(ordered) - 1, int(0.9 * len(ordered)))]
    said = ", ".join(f"{kind or 'nothing'} {kinds.count(kind)}" for kind in sorted(set(kinds)))
    return f"| {words} | {middle:.0f} | {most:.0f} | {np.isfinite(ordered).sum()} of {streams} | {early} | {said} |"


def gamma(exponent: float) -> Callable[[Pixels], Pixels]:
    """Give a change of brightness."""
    table = np.rint(255.0 * (np.arange(256) / 255.0) ** exponent).astype(np.uint8)
    return lambda image: table[image]


def blurred(sigma: float) -> Callable[[Pixels], Pixels]:
    """Give a loss of focus."""
    return lambda image: cv2.GaussianBlur(image, (0, 0), sigma)


def main() -> None:
    """Measure and print two tables."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--streams", type=int, default=50)
    parser.add_argument("--images", type=int, default=10_000)
    options = parser.parse_args()
    data = Path(os.environ.get("OTEO_TEST_DATA", "../shared/data"))
    wbc = data / "wbc_zheng"
    first = read("wbc domain1", wbc / "domain1/images", wbc / "domain1" / "classes.csv")
    second = read("wbc domain2", wbc / "domain2/images", wbc / "domain2" / "classes.csv")
    dark, stained = (
        read("dsb fluorescence", data / "dsb2018_nuclei_compact/fluorescence/images"),
        read("dsb colour", data / "dsb2018_nuclei_compact/color_HE/images"),
    )
    smears, brains = read("bccd", data / "bccd"), read("brain mri", data / "brain_mri_yesno")
    print(", ".join(f"{pool.name} {len(pool.rows)}" for pool in (first, second, dark, stained, smears, brains)))
    print(
        f"\n| no shift, {options.images} images a stream | rang: ours | each look at 5 % | each look at 1 % | ms a look |\n|---|---|---|---|---|"
    )
    for pool in (first, dark, smears, brains):
        print(false_alarms(pool, options.streams, options.images), flush=True)
    for pool in (first, brains):
        print(false_alarms(pool, max(5, options.streams // 2), options.images, runs=True), flush=True)
    print("\n| shift after 512 images | median delay, images | 90 % by | found within 1024 | early | said |\n|---|---|---|---|---|---|")
    print(delay("wbc domain1 -> domain2", first, second, None, options.streams), flush=True)
    print(delay("dsb fluorescence -> colour", dark, stained, None, options.streams), flush=True)
    for words, change in (
        ("gamma 1.3", gamma(1.3)),
        ("gamma 1.1", gamma(1.1)),
        ("gamma 1.03", gamma(1.03)),
        ("blur of 0.7 pixels", blurred(0.7)),
    ):
        for name, folder, pool in (("bccd", data / "bccd", smears), ("brain mri", data / "brain_mri_yesno", brains)):
            print(delay(f"{name}, {words}", pool, read(words, folder, change=change), None, options.streams), flush=True)
    assert first.classes is not None
    rare = np.flatnonzero(first.classes[:, 1:].any(axis=1))
    print(delay("wbc domain1, no class 1 any more", first, first, rare, options.streams), flush=True)


if __name__ == "__main__":
    main()
