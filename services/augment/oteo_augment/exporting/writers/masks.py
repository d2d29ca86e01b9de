"""Masks beside images: numbers that are classes as indexed PNG with a palette, numbers that are objects as grey PNG."""

from __future__ import annotations

import colorsys
import io
from collections.abc import Sequence
from functools import cache
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from oteo_augment.exporting.objects import things_of
from oteo_augment.exporting.writers.base import PARTS, Job, Writer, media_ending
from oteo_augment.importing.readers.masks import MASK_ENDINGS
from oteo_core.datasets import Sample, Severity, Task
from oteo_core.images import encode_png

_MOST = 65535


class Masks(Writer):
    """Writes ``images/train/NAME.jpg``, ``masks/train/NAME.png`` and ``classes.txt``, a number and a class a line.

    Numbers stay what they are. Objects with outlines of their own are drawn into a label image, the smaller ones over the larger ones.
    """

    name = "masks"
    tasks = frozenset({Task.SEMANTIC, Task.INSTANCE})
    holds_stacks = True

    def __init__(self, job: Job) -> None:
        super().__init__(job)
        mask = job.info.mask
        self._by_class = mask is not None and mask.kind == "class"

    def add(self, sample: Sample) -> None:
        """Copy the image and write its mask."""
        folder, stem = PARTS[sample.split], stem_of_image(self, self.stem(sample))
        if sample.mask_path and not self._by_class and sample.mask_path.endswith(".png"):
            self.media(sample, f"images/{folder}/{stem}{media_ending(sample)}")
            self.mask_file(sample, f"masks/{folder}/{stem}.png")
        else:
            labels = self.labels(sample) if sample.mask_path else self._drawn(sample)
            if labels.size and not 0 <= int(labels.min()) <= int(labels.max()) <= _MOST:
                self.losses.add(
                    "SAMPLE_LOST", "masks of numbers beyond 65535 are left out with their images", sample.id, severity=Severity.ERROR
                )
                return
            self.media(sample, f"images/{folder}/{stem}{media_ending(sample)}")
            self.sink.write(f"masks/{folder}/{stem}.png", encode_labels(labels, indexed=self._by_class))
        if sample.mask_path and sample.boxes:
            self.losses.add("BOX_LOST", "boxes are not in the format", sample.id, count=len(sample.boxes))
        self.lost(sample)

    def add_stack(self, frames: Sequence[Sample]) -> None:
        """Write a sequence as one TIFF file, and its masks as another."""
        folder, stem = PARTS[frames[0].split], stem_of_image(self, self.stack_stem(frames))
        numbers = [self.labels(sample) if sample.mask_path else self._drawn(sample) for sample in frames]
        top = max(int(labels.max(initial=0)) for labels in numbers)
        if top > _MOST or min(int(labels.min(initial=0)) for labels in numbers) < 0:
            for sample in frames:
                self.losses.add(
                    "SAMPLE_LOST", "masks of numbers beyond 65535 are left out with their images", sample.id, severity=Severity.ERROR
                )
            return
        self.stack(frames, f"images/{folder}/{stem}.tif", self.pictures(frames), frames[0].channels)
        kind = np.uint8 if top < 256 else np.uint16
        self.stack(frames, f"masks/{folder}/{stem}.tif", (labels.astype(kind) for labels in numbers), 1)
        for sample in frames:
            if sample.mask_path and sample.boxes:
                self.losses.add("BOX_LOST", "boxes are not in the format", sample.id, count=len(sample.boxes))
            self.lost(sample, stacked=True)

    def _drawn(self, sample: Sample) -> NDArray[Any]:
        things = things_of(sample)
        labels = np.zeros((sample.height, sample.width), np.uint16 if len(things) > 255 else np.uint8)
        drawn: list[tuple[int, NDArray[np.uint8]]] = []
        for thing in things:
            mask = thing.mask(sample.height, sample.width)
            if mask is None:
                self.losses.add(
                    "OBJECT_LOST", "objects without an outline cannot be drawn and are left out", sample.id, severity=Severity.ERROR
                )
            elif thing.crowd:
                self.losses.add("CROWD_LOST", "crowds are left out: a number is one object", sample.id, severity=Severity.ERROR)
            else:
                if thing.attributes:
                    self.losses.add("ATTRIBUTE_LOST", "attributes of objects are not in the format", sample.id, count=len(thing.attributes))
                drawn.append((len(drawn) + 1, mask))
        covered = 0
        for number, mask in sorted(drawn, key=lambda item: -int(item[1].sum())):
            inside = mask.astype(bool)
            covered += int((labels[inside] != 0).sum())
            labels[inside] = number
        if covered:
            self.losses.add(
                "OVERLAP_LOST", "pixels that several objects share belong to the smallest of them alone", sample.id, count=covered
            )
        gone = len(drawn) - len(np.unique(labels[labels != 0]))
        if gone:
            self.losses.add("OBJECT_LOST", "objects that others cover wholly are left out", sample.id, count=gone, severity=Severity.ERROR)
        if len(self.job.info.classes) > 1:
            self.losses.add(
                "CLASS_LOST", "classes of objects are lost: numbers of a label image are of one class", sample.id, count=len(drawn)
            )
        return labels

    def finish(self) -> None:
        """Write `classes.txt`."""
        info = self.job.info
        if self._by_class and info.mask is not None:
            lines = [f"{value} {name}" for value, name in zip(info.mask.values, info.classes, strict=True)]
        else:
            lines = [f"* {info.classes[0] if len(info.classes) == 1 else 'object'}"]
        self.sink.write("classes.txt", ("\n".join(lines) + "\n").encode())


def stem_of_image(writer: Writer, stem: str) -> str:
    """Give the stem of an image, from the one that its writer gave it, that has a mask of the same stem in another folder."""
    # A name such as "a_mask" would make it the mask of another image.
    return writer.names.give(f"{stem}_image") if stem.lower().endswith(MASK_ENDINGS) else stem


def encode_labels(labels: NDArray[Any], *, indexed: bool) -> bytes:
    """Give a PNG of numbers: 8 bits with a palette if `indexed` and they fit, else 8 or 16 bits of grey.

    Parameters
    ----------
    labels
        (height, width), integers of 0 to 65535.
    indexed
        True: numbers are classes, and people should see them in colour.
    """
    top = int(labels.max()) if labels.size else 0
    if not indexed or top > 255:
        return encode_png(labels.astype(np.uint8 if top <= 255 else np.uint16))
    image = Image.fromarray(np.ascontiguousarray(labels, np.uint8))
    image.putpalette(palette())
    sink = io.BytesIO()
    image.save(sink, "PNG")
    return sink.getvalue()


@cache
def palette() -> bytes:
    """Give 256 colours, 0 black; neighbours differ much, since hues go by the golden ratio."""
    colours = [0, 0, 0]
    for index in range(1, 256):
        colours += [round(255 * v) for v in colorsys.hsv_to_rgb(index * 0.618034 % 1, 0.55 + 0.4 * (index % 2), 0.95)]
    return bytes(colours)
