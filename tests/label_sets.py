"""Drawn images that may have several labels, or none: a bar, brightness, grain."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from oteo_core.artifacts import ArtifactStore
from oteo_core.datasets import DatasetInfo, DatasetWriter, Sample
from oteo_core.images import encode_png

LABELS = ("bar", "bright", "grain", "never")
"""The last is in no training image."""


def draw_labels(count: int, seed: int = 0, size: int = 32) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
    """Give grey pictures ``(N, size, size, 1)`` and which of the first three labels each has ``(N, 3)``."""
    rng = np.random.default_rng(seed)
    labels = (rng.random((count, 3)) < [0.4, 0.5, 0.2]).astype(np.int64)
    images = np.empty((count, size, size, 1), dtype=np.uint8)
    for index, (bar, bright, grain) in enumerate(labels):
        pixels = np.full((size, size), 80.0 + 40 * bright + rng.normal(0, 12))
        pixels += rng.normal(0, 26 if grain else 8, (size, size))
        if bar:
            at = int(rng.integers(4, size - 8))
            pixels[at : at + 4] += 60
        images[index, :, :, 0] = np.clip(pixels, 0, 255)
    return images, labels


def write_labels(store: ArtifactStore, name: str, count: int) -> NDArray[np.int64]:
    """Write a dataset of them, half training and a quarter each validation and test, and give the labels ``(N, 3)``; the last has "never" too."""
    images, labels = draw_labels(count)
    info = DatasetInfo(id=name, display_name="Marks", task="multi_label_classification", classes=LABELS)
    with DatasetWriter(store, f"datasets/{name}", info) as writer:
        for index in range(count):
            names = tuple(label for label, has in zip(LABELS, labels[index], strict=False) if has)
            writer.add(
                Sample(
                    id=f"s{index}",
                    path=writer.add_media(f"{index}.png", encode_png(images[index])),
                    width=32,
                    height=32,
                    channels=1,
                    dtype="uint8",
                    split=("train", "train", "validation", "test")[index % 4],
                    labels=("never", *names) if index == count - 1 else names,
                )
            )
        writer.finish()
    return labels
