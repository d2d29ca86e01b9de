"""Masks in colour beside images, with lists of what each colour is."""

from __future__ import annotations

import csv
import io

import numpy as np

from oteo_augment.exporting.writers.base import PARTS, Job, Writer, media_ending
from oteo_augment.exporting.writers.masks import palette, stem_of_image
from oteo_augment.importing.colors import BORDER
from oteo_core.datasets import Sample, Severity, Task
from oteo_core.errors import FailedPrecondition
from oteo_core.images import encode_png

_MOST = 254


class ColorMasks(Writer):
    """Writes ``images/train/NAME.jpg``, ``masks/train/NAME.png`` in red, green and blue, ``labelmap.txt`` and ``class_dict.csv``.

    Both lists say the same: the one is CVAT's, the other CamVid's. Background is black; pixels that are set aside have the colour of Pascal VOC's
    borders, which neither list names.
    """

    name = "color_masks"
    tasks = frozenset({Task.SEMANTIC})

    def __init__(self, job: Job) -> None:
        super().__init__(job)
        info = job.info
        if info.mask is None or info.mask.kind != "class":
            raise FailedPrecondition(f"{info.id} has no masks of classes", reason="FORMAT_CANNOT_HOLD_TASK", field="format")
        if len(info.classes) > _MOST:
            raise FailedPrecondition(
                f"{info.id} has {len(info.classes)} classes; masks in colour are written for up to {_MOST}",
                reason="FORMAT_CANNOT_HOLD_TASK",
                field="format",
            )
        self._colors = np.frombuffer(palette(), np.uint8).reshape(-1, 3)[: len(info.classes) + 1]
        self._values = info.mask.values
        self._ignore = info.mask.ignore

    def start(self) -> None:
        """Say that numbers are lost where they are not those of the list."""
        super().start()
        if self._values != tuple(range(1, len(self._values) + 1)):
            self.losses.add(
                "NUMBERS_LOST",
                "numbers of classes are not in the format: read back, they go by the order of the list",
                severity=Severity.INFO,
            )

    def add(self, sample: Sample) -> None:
        """Copy the image and paint its mask."""
        folder, stem = PARTS[sample.split], stem_of_image(self, self.stem(sample))
        if not sample.mask_path:
            self.losses.add("SAMPLE_LOST", "images without a mask are left out", sample.id, severity=Severity.ERROR)
            return
        labels = self.labels(sample)
        painted = np.zeros((*labels.shape, 3), np.uint8)
        for value, color in zip(self._values, self._colors[1:], strict=True):
            painted[labels == value] = color
        void = np.isin(labels, self._ignore)
        painted[void] = BORDER
        self.media(sample, f"images/{folder}/{stem}{media_ending(sample)}")
        self.sink.write(f"masks/{folder}/{stem}.png", encode_png(painted))
        if sample.boxes:
            self.losses.add("BOX_LOST", "boxes are not in the format", sample.id, count=len(sample.boxes))
        self.lost(sample)

    def finish(self) -> None:
        """Write the lists."""
        rows = [
            ("background", *map(int, self._colors[0])),
            *((n, *map(int, c)) for n, c in zip(self.job.info.classes, self._colors[1:], strict=True)),
        ]
        lines = ["# label:color_rgb:parts:actions", *(f"{name}:{red},{green},{blue}::" for name, red, green, blue in rows)]
        self.sink.write("labelmap.txt", ("\n".join(lines) + "\n").encode())
        table = io.StringIO()
        csv.writer(table, lineterminator="\n").writerows([("name", "r", "g", "b"), *rows])
        self.sink.write("class_dict.csv", table.getvalue().encode())
