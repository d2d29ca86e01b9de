"""A folder of masks for each image, each file one object, as in the 2018 Data Science Bowl."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from oteo_augment.exporting.writers.base import PARTS, Writer, media_ending
from oteo_core.datasets import Sample, Severity, Task
from oteo_core.images import encode_png


class InstanceMasks(Writer):
    """Writes ``train/NAME/images/NAME.png`` and ``train/NAME/masks/0001.png``, ..., 255 inside, and ``classes.txt``.

    Objects may overlap. An image without objects has one mask in which nothing is marked.
    """

    name = "instance_masks"
    tasks = frozenset({Task.INSTANCE})

    def add(self, sample: Sample) -> None:
        """Copy the image and write a mask for each object."""
        folder = PARTS[sample.split]
        stem = self.stem(sample, folder)
        self.media(sample, f"{folder}/{stem}/images/{stem}{media_ending(sample)}")
        count = 0
        for count, mask in enumerate(self._masks(sample), 1):
            self.sink.write(f"{folder}/{stem}/masks/{count:04}.png", encode_png(mask * np.uint8(255)))
        if not count:
            self.sink.write(f"{folder}/{stem}/masks/none.png", encode_png(np.zeros((sample.height, sample.width), np.uint8)))
        if len(self.job.info.classes) > 1 and count:
            self.losses.add("CLASS_LOST", "classes of objects are lost: masks have no names of classes", sample.id, count=count)
        self.lost(sample)

    def _masks(self, sample: Sample) -> Iterator[NDArray[np.uint8]]:
        for thing in self.things(sample):
            mask = thing.mask(sample.height, sample.width)
            if mask is None or not mask.any():
                self.losses.add(
                    "OBJECT_LOST", "objects without an outline, or within no pixel, are left out", sample.id, severity=Severity.ERROR
                )
            elif thing.crowd:
                self.losses.add("CROWD_LOST", "crowds are left out: a mask is one object", sample.id, severity=Severity.ERROR)
            else:
                if thing.attributes:
                    self.losses.add("ATTRIBUTE_LOST", "attributes of objects are not in the format", sample.id, count=len(thing.attributes))
                yield mask

    def finish(self) -> None:
        """Write `classes.txt`, as beside masks that number objects."""
        classes = self.job.info.classes
        self.sink.write("classes.txt", f"* {classes[0] if len(classes) == 1 else 'object'}\n".encode())
