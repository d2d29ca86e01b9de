"""Drawn datasets of discs for detection and both segmentations, of any shape and damage."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray
from training_tools import KINDS

from oteo_core.artifacts import ArtifactStore
from oteo_core.datasets import Box, DatasetInfo, DatasetWriter, MaskEncoding, Sample
from oteo_core.images import encode_png

DENSE = ("detection", "semantic_segmentation", "instance_segmentation")
UNKNOWN = 77
"""A number that masks of classes use and nobody knows; masks of objects are told to ignore it."""

_PLACES = ((10, 10), (22, 10), (10, 22), (22, 22))


@dataclass(frozen=True)
class Drawn:
    """An image: its part, the kinds of its discs (0 dark, 1 light; at most four), its group, and whether a corner of its mask has an unknown number."""

    part: str
    kinds: tuple[int, ...] = (0, 1)
    group: str = ""
    unknown: bool = False


def parts(train: int, validation: int, test: int, **fields: Any) -> list[Drawn]:
    """Give so many alike images of each part."""
    counts = {"train": train, "validation": validation, "test": test}
    return [Drawn(part, **fields) for part, count in counts.items() for _ in range(count)]


def write_dense(
    store: ArtifactStore,
    task: str,
    images: Sequence[Drawn],
    *,
    name: str = "drawn",
    side: int = 32,
    channels: int = 1,
    change: Callable[[NDArray[np.uint8]], NDArray[np.uint8]] = lambda pixels: pixels,
) -> str:
    """Write a dataset of discs with a radius of 4 or 5 pixels and a diameter of a third of the image; `change` is what happens to pixels afterwards.

    Classes are `KINDS`; objects of masks that number them have none, as all of them are discs. Gives ``datasets/NAME``.
    """
    rng = np.random.default_rng(5)
    encoding = {
        "semantic_segmentation": MaskEncoding("class", (1, 2)),
        "instance_segmentation": MaskEncoding("instance", ignore=(UNKNOWN,)),
    }.get(task)
    classes = ("disc",) if task == "instance_segmentation" else KINDS
    scale = side / 32
    with DatasetWriter(store, f"datasets/{name}", DatasetInfo(id=name, task=task, classes=classes, mask=encoding)) as writer:
        for number, drawn in enumerate(images):
            pixels = rng.normal(110, 12, (side, side, channels))
            mask = np.zeros((side, side), np.uint8)
            boxes = []
            for place, kind in enumerate(drawn.kinds):
                x, y = (int(scale * (value + rng.integers(-1, 2))) for value in _PLACES[place])
                radius = int(scale * rng.integers(4, 6))
                inside = cv2.circle(np.zeros((side, side), np.uint8), (x, y), radius, 1, -1) > 0
                pixels[inside] += 80 if kind else -80
                mask[inside] = kind + 1 if task == "semantic_segmentation" else place + 1
                boxes.append(Box(KINDS[kind], x - radius, y - radius, 2 * radius + 1, 2 * radius + 1))
            if drawn.unknown:
                mask[:3, :3] = UNKNOWN
            sample = Sample(
                id=f"s{number}",
                path=writer.add_media(f"{number}.png", encode_png(change(np.clip(pixels, 0, 255).astype(np.uint8)))),
                source_path=f"{number}.png",
                width=side,
                height=side,
                channels=channels,
                dtype="uint8",
                split=drawn.part,
                group=drawn.group,
            )
            if encoding is None:
                sample.boxes = tuple(boxes)
            else:
                sample.mask_path = writer.add_media(f"{number}-mask.png", encode_png(mask[:, :, None]))
                sample.labels = (
                    ("disc",) * bool(boxes) if task == "instance_segmentation" else tuple(KINDS[k] for k in sorted({*drawn.kinds}))
                )
            writer.add(sample)
        writer.finish()
    return f"datasets/{name}"
