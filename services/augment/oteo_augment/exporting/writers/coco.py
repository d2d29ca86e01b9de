"""COCO's JSON, one file for each part (cocodataset.org/#format-data)."""

from __future__ import annotations

import json
from pathlib import Path
from typing import IO, Any

from oteo_augment.exporting.objects import Thing, box_around
from oteo_augment.exporting.points import PointNames
from oteo_augment.exporting.writers.base import OBJECTS, PARTS, Job, Writer, media_ending
from oteo_core.datasets import Sample, Severity, Task


class Coco(Writer):
    """Writes ``images/train/NAME.png`` and ``annotations/instances_train.json``.

    Outlines are written with all their rings; masks as uncompressed runs, which every reader of COCO takes; of a mask of classes each class is one
    annotation of an image, as in COCO's "stuff". Key points are numbered as the class's skeleton has them, and counted by pixels (half a pixel
    less than here), as COCO does; turned boxes become outlines of four corners. The list of annotations is kept in a
    local file until all images are known, so that memory stays flat.
    """

    name = "coco"
    tasks = OBJECTS | {Task.SEMANTIC, Task.KEYPOINTS}
    keeps_points = True
    keeps_turned = True

    def __init__(self, job: Job) -> None:
        super().__init__(job)
        self._numbers = {name: number for number, name in enumerate(job.info.classes, 1)}
        self._points = PointNames(job.reader)
        self._parts = {split: _Part(job.scratch, PARTS[split]) for split in job.parts()}
        self._images = self._annotations = 0

    def add(self, sample: Sample) -> None:
        """Copy the image; note it and its objects."""
        part = self._parts[sample.split]
        name = f"{self.stem(sample)}{media_ending(sample)}"
        self.media(sample, f"images/{part.name}/{name}")
        self._images += 1
        part.image({"id": self._images, "file_name": name, "width": sample.width, "height": sample.height})
        for thing in [*self.things(sample), *self.stuff(sample)]:
            self._annotations += 1
            part.annotation(self._entry(thing, sample))
        self.labels_lost(sample)
        self.lost(sample)

    def _entry(self, thing: Thing, sample: Sample) -> dict[str, Any]:
        entry: dict[str, Any] = {
            "id": self._annotations,
            "image_id": self._images,
            "category_id": self._numbers[thing.class_name],
            "bbox": list(thing.bounds()),
            "area": thing.area(),
            "iscrowd": int(thing.crowd),
            "segmentation": [],
        }
        if thing.polygons is not None:
            entry["segmentation"] = [list(ring) for ring in thing.polygons.rings]
        elif thing.rle is not None:
            entry["segmentation"] = {"size": [thing.rle.height, thing.rle.width], "counts": list(thing.rle.counts)}
        elif thing.oriented is not None:
            entry["segmentation"] = [[value for corner in thing.oriented.corners() for value in corner]]
        if thing.oriented is not None:
            self.losses.add(
                "ORIENTATION_LOST", "turned boxes became outlines of their four corners, or gave way to their objects' outlines", sample.id
            )
        if self._points.any_points:
            # Readers want them with every annotation of such a file.
            self._add_points(entry, thing, sample)
        if thing.attributes:
            entry["attributes"] = dict(thing.attributes)
        return entry

    def _add_points(self, entry: dict[str, Any], thing: Thing, sample: Sample) -> None:
        placed = self._points.placed(thing.class_name, thing.keypoints)
        entry["keypoints"] = [value for x, y, seen in placed for value in ((_pixel(x), _pixel(y), seen) if seen else (0, 0, 0))]
        entry["num_keypoints"] = sum(seen > 0 for _, _, seen in placed)
        if thing.keypoints is not None and thing.box is None and not thing.has_outline and thing.oriented is None:
            entry["bbox"] = list(box_around(thing))
            entry["area"] = entry["bbox"][2] * entry["bbox"][3]
            self.losses.add(
                "BOX_ADDED",
                "objects of points alone got a box around their points, which the format asks for",
                sample.id,
                severity=Severity.INFO,
            )

    def _category(self, number: int, name: str) -> dict[str, Any]:
        entry: dict[str, Any] = {"id": number, "name": name, "supercategory": ""}
        skeleton = self._points.of(name)
        if skeleton.points or self._points.any_points:
            entry["keypoints"] = list(skeleton.points)
            entry["skeleton"] = [[one + 1, other + 1] for one, other in skeleton.edges]
        return entry

    def finish(self) -> None:
        """Write the parts' JSON files."""
        info = self.job.info
        head = {
            "info": {
                "description": info.display_name or info.id,
                "version": info.digest,
                "year": int(info.create_time[:4]) if info.create_time else 0,
                "contributor": info.domain,
                "url": "",
                "date_created": info.create_time,
            },
            "licenses": [],
            "categories": [self._category(number, name) for name, number in self._numbers.items()],
        }
        for part in self._parts.values():
            self.sink.put(f"annotations/instances_{part.name}.json", part.finish(head))


def _pixel(value: float) -> float | int:
    """Give a coordinate as COCO counts points, by pixels: a whole number for the middle of a pixel."""
    pixel = value - 0.5
    return int(pixel) if pixel == int(pixel) else pixel


class _Part:
    """Two lists that grow at the same time, each in a file of its own until they become one."""

    def __init__(self, scratch: Path, name: str) -> None:
        self.name = name
        self._images = scratch / f"coco-{name}-images"
        self._annotations = scratch / f"coco-{name}-annotations"
        self._open: list[IO[str]] = [place.open("w", encoding="utf-8") for place in (self._images, self._annotations)]
        self._begun = [False, False]

    def image(self, entry: dict[str, Any]) -> None:
        self._append(0, entry)

    def annotation(self, entry: dict[str, Any]) -> None:
        self._append(1, entry)

    def _append(self, index: int, entry: dict[str, Any]) -> None:
        self._open[index].write((",\n" if self._begun[index] else "") + json.dumps(entry, ensure_ascii=False))
        self._begun[index] = True

    def finish(self, head: dict[str, Any]) -> Path:
        """Join head and lists; give the file."""
        for file in self._open:
            file.close()
        place = self._images.with_name(f"coco-{self.name}.json")
        with place.open("w", encoding="utf-8") as goal:
            goal.write(json.dumps(head, ensure_ascii=False)[:-1])
            for key, source in (("images", self._images), ("annotations", self._annotations)):
                goal.write(f',\n"{key}": [\n')
                with source.open(encoding="utf-8") as lines:
                    while block := lines.read(1 << 20):
                        goal.write(block)
                goal.write("\n]")
                source.unlink()
            goal.write("}\n")
        return place
