"""How often the shift test rings without a shift, and with one: ``python benchmarks/shift.py [--draws 200] [--images 32]``.

Draws from the real sets of ``OTEO_TEST_DATA``: two disjoint handfuls of one domain (false alarms), one of each domain (power), and two of one domain of
which the second has another class mixture (what kind it is called). The features are the image statistics and, in the place of a model's embedding, the
pooled maps of a small convolutional network with random weights, so that no trained model is needed. The peer is the plain use of the same tests:
each at the level alpha, without correction.
"""

from __future__ import annotations

import argparse
import csv
import os
import time
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import torch

from oteo_core.evaluation.bootstrap import wilson_interval
from oteo_translate.shift.features import EMBEDDING, INTENSITY, Feature, intensity, intensity_columns
from oteo_translate.shift.measure import ALPHA, Shift, measure_shift
from oteo_translate.shift.prevalence import ClassEvidence

SIDE = 64


@dataclass
class Pool:
    """All images of a domain as features, and their classes where they are known."""

    name: str
    features: dict[str, np.ndarray]
    labels: np.ndarray


def random_network() -> torch.nn.Module:
    """Three layers of random filters, pooled to 64 figures an image."""
    torch.manual_seed(0)
    layers: list[torch.nn.Module] = []
    for before, after in ((3, 16), (16, 32), (32, 64)):
        layers += [torch.nn.Conv2d(before, after, 3, stride=2, padding=1), torch.nn.ReLU()]
    return torch.nn.Sequential(*layers, torch.nn.AdaptiveAvgPool2d(1), torch.nn.Flatten()).eval()


def read(name: str, folder: Path, labels: Path | None = None) -> Pool:
    """Read a folder of images, 64 x 64."""
    files = sorted(path for path in folder.iterdir() if path.suffix in (".png", ".jpg"))
    shown = [cv2.cvtColor(cv2.imread(str(path)), cv2.COLOR_BGR2RGB) for path in files]
    images = np.stack([cv2.resize(one, (SIDE, SIDE), interpolation=cv2.INTER_AREA) for one in shown])
    with torch.inference_mode():
        planes = torch.from_numpy(images).permute(0, 3, 1, 2).float() / 255
        embedded = random_network()(planes).double().numpy()
    classes = np.full(len(files), -1)
    if labels is not None:
        with labels.open() as stream:
            rows = {row[0].strip(): int(row[1]) for row in csv.reader(stream) if len(row) > 1 and row[1].strip().isdigit()}
        known = {int("".join(c for c in key if c.isdigit()) or -1): value for key, value in rows.items()}
        classes = np.array([known.get(int(path.stem), -1) for path in files])
    return Pool(name, {INTENSITY: intensity(images), EMBEDDING: embedded}, classes)


def measure(home: Pool, shifted: Pool, ours: np.ndarray, theirs: np.ndarray, seed: int, *, labels: bool = False) -> Shift:
    """Measure between two handfuls."""
    features = [
        Feature(name, home.features[name][ours], shifted.features[name][theirs], intensity_columns(3) if name == INTENSITY else ())
        for name in home.features
    ]
    classes = None
    if labels:
        names = tuple(str(one) for one in np.unique(np.concatenate([home.labels[ours], shifted.labels[theirs]])))
        profile = [
            np.array([[str(label) == name for name in names] for label in part], float)
            for part in (home.labels[ours], shifted.labels[theirs])
        ]
        classes = ClassEvidence(names, profile[0], profile[1])
    return measure_shift(features, [""] * len(ours), [""] * len(theirs), classes=classes, seed=seed)


def row(what: str, hits: int, plain: int, total: int, seconds: float) -> None:
    """Print one line."""
    span = wilson_interval(hits / total, total)
    print(
        f"| {what} | {hits}/{total} = {hits / total:.3f} | {span.lower:.3f} to {span.upper:.3f} | {plain / total:.3f} | {seconds / total:.2f} s |",
        flush=True,
    )


def rate(home: Pool, shifted: Pool, count: int, draws: int, *, labels: bool = False) -> None:
    """Count alarms over draws; of one domain with itself the handfuls are disjoint."""
    hits = plain = 0
    begun = time.perf_counter()
    for draw in range(draws):
        rng = np.random.default_rng([draw, count])
        order = rng.permutation(len(home.labels))
        ours = order[:count]
        theirs = order[count : 2 * count] if shifted is home else rng.permutation(len(shifted.labels))[:count]
        found = measure(home, shifted, ours, theirs, draw, labels=labels)
        hits += found.kind != "none"
        plain += min(test.raw_p for test in found.tests) <= ALPHA
    row(f"{home.name} / {shifted.name}, {count} each{', with labels' if labels else ''}", hits, plain, draws, time.perf_counter() - begun)


def resampled(pool: Pool, count: int, draws: int) -> None:
    """Count what a change of class shares alone is called."""
    common = np.argsort(-np.bincount(pool.labels[pool.labels >= 0]))[:3]
    kinds: dict[str, int] = {}
    begun = time.perf_counter()
    for draw in range(draws):
        rng = np.random.default_rng([draw, 7])
        order = rng.permutation(np.flatnonzero(np.isin(pool.labels, common)))
        parts = [order[pool.labels[order] == one] for one in common]
        half = [(part[: len(part) // 2], part[len(part) // 2 :]) for part in parts]
        sizes = [[int(count * share) for share in shares] for shares in ((0.6, 0.3, 0.1), (0.1, 0.3, 0.6))]
        ours = np.concatenate([pair[0][:size] for pair, size in zip(half, sizes[0], strict=True)])
        theirs = np.concatenate([pair[1][:size] for pair, size in zip(half, sizes[1], strict=True)])
        kind = measure(pool, pool, ours, theirs, draw, labels=True).kind
        kinds[kind] = kinds.get(kind, 0) + 1
    print(
        f"\n{pool.name}, shares of {len(common)} classes .6/.3/.1 -> .1/.3/.6, {len(ours)} and {len(theirs)} images: called {kinds} ({(time.perf_counter() - begun) / draws:.2f} s each)"
    )


def main() -> None:
    """Run it."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--draws", type=int, default=200)
    parser.add_argument("--power-draws", type=int, default=50)
    parser.add_argument("--images", type=int, default=32)
    given = parser.parse_args()
    root = Path(os.environ.get("OTEO_TEST_DATA", "../shared/data"))
    zheng, dsb = root / "wbc_zheng", root / "dsb2018_nuclei_compact"
    pools = [
        read("wbc domain1", zheng / "domain1" / "images", zheng / "domain1" / "classes.csv"),
        read("wbc domain2", zheng / "domain2" / "images", zheng / "domain2" / "classes.csv"),
        read("dsb fluorescence", dsb / "fluorescence" / "images"),
        read("dsb colour", dsb / "color_HE" / "images"),
    ]
    print("| sets | alarms | 95 % | each test alone at alpha | time |\n|---|---|---|---|---|")
    for pool in pools:
        rate(pool, pool, min(given.images, len(pool.labels) // 2), given.draws, labels=bool((pool.labels >= 0).all()))
    for one, other in ((pools[0], pools[1]), (pools[2], pools[3])):
        for count in (given.images, 12):
            rate(one, other, count, given.power_draws)
    resampled(pools[0], 64, given.power_draws)


if __name__ == "__main__":
    main()
