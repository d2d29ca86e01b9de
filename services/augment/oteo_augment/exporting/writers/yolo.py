"""YOLO's text files in the folders of Ultralytics (docs.ultralytics.com/datasets/detect and /segment)."""

from __future__ import annotations

import yaml

from oteo_augment.exporting.objects import Thing, largest_contour, ring_area
from oteo_augment.exporting.writers.base import OBJECTS, PARTS, Job, Writer, media_ending
from oteo_core.datasets import Sample, Severity, Task
from oteo_core.datasets.runs import mask_from_runs


class Yolo(Writer):
    """Writes ``images/train/NAME.png``, ``labels/train/NAME.txt`` and ``data.yaml``; boxes for detection, outlines for segmentation.

    Shares are written with twelve significant digits: 1e-8 pixels in an image of 10,000.
    """

    name = "yolo"
    tasks = OBJECTS

    def __init__(self, job: Job) -> None:
        super().__init__(job)
        self._numbers = {name: number for number, name in enumerate(job.info.classes)}
        self._outlines = job.info.task == Task.INSTANCE

    def add(self, sample: Sample) -> None:
        """Copy the image and write its text file, empty where it has no object."""
        folder = PARTS[sample.split]
        stem = self.stem(sample)
        self.media(sample, f"images/{folder}/{stem}{media_ending(sample)}")
        lines = [line for thing in self.things(sample) if (line := self._line(thing, sample))]
        self.sink.write(f"labels/{folder}/{stem}.txt", "".join(f"{line}\n" for line in lines).encode())
        self.labels_lost(sample)
        self.lost(sample)

    def _line(self, thing: Thing, sample: Sample) -> str:
        if thing.crowd:
            self.losses.add("CROWD_LOST", "crowds are left out: YOLO would take each for one object", sample.id, severity=Severity.ERROR)
            return ""
        if thing.attributes:
            self.losses.add("ATTRIBUTE_LOST", "attributes of objects are not in the format", sample.id, count=len(thing.attributes))
        number = self._numbers[thing.class_name]
        if not self._outlines:
            if thing.has_outline:
                self.losses.add("OUTLINE_LOST", "outlines are not in the lines of a detection set, which hold boxes", sample.id)
            return self._box(number, thing, sample)
        ring = self._ring(thing, sample)
        if ring is None:
            return ""
        shares = [v / (sample.height if index % 2 else sample.width) for index, v in enumerate(ring)]
        return f"{number} {' '.join(map(_share, shares))}"

    def _box(self, number: int, thing: Thing, sample: Sample) -> str:
        x, y, width, height = thing.bounds()
        shares = (
            (x + width / 2) / sample.width,
            (y + height / 2) / sample.height,
            width / sample.width,
            height / sample.height,
        )
        return f"{number} {' '.join(map(_share, shares))}"

    def _ring(self, thing: Thing, sample: Sample) -> tuple[float, ...] | None:
        """Give the one ring that a line can hold."""
        if thing.polygons is not None:
            rings = thing.polygons.rings
            if len(rings) > 1:
                self.losses.add(
                    "RINGS_LOST",
                    "pieces of outlines are lost: YOLO holds one ring for each object, the largest",
                    sample.id,
                    count=len(rings) - 1,
                )
            return max(rings, key=lambda ring: abs(ring_area(ring)))
        if thing.rle is not None:
            ring, pieces = largest_contour(mask_from_runs(thing.rle.counts, thing.rle.height, thing.rle.width))
            if ring is None:
                self.losses.add("OBJECT_LOST", "objects without an area are left out", sample.id, severity=Severity.ERROR)
                return None
            self.losses.add("MASK_OUTLINED", "masks became outlines along pixel edges: holes are filled", sample.id, severity=Severity.INFO)
            if pieces > 1:
                self.losses.add(
                    "RINGS_LOST",
                    "pieces of outlines are lost: YOLO holds one ring for each object, the largest",
                    sample.id,
                    count=pieces - 1,
                )
            return ring
        # The four corners of a box are an outline too, if a coarse one.
        self.losses.add("BOX_OUTLINED", "boxes without an outline are written as outlines of four corners", sample.id)
        x, y, width, height = thing.bounds()
        return x, y, x + width, y, x + width, y + height, x, y + height

    def finish(self) -> None:
        """Write `data.yaml`."""
        content: dict[str, object] = {"path": "."}
        for split in filter(None, self.job.parts()):
            content[PARTS[split]] = f"images/{PARTS[split]}"
        # Ultralytics asks for both, whether there are such samples or not.
        content.setdefault("train", "images/train")
        content.setdefault("val", "images/val")
        content["names"] = {number: name for name, number in self._numbers.items()}
        self.sink.write("data.yaml", yaml.safe_dump(content, sort_keys=False, allow_unicode=True).encode())


def _share(value: float) -> str:
    return f"{value:.12g}"
