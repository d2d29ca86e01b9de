"""LabelMe's JSON: one file beside each image (github.com/wkentaro/labelme)."""

from __future__ import annotations

import base64
import json
from typing import Any

from oteo_augment.exporting.objects import Thing, bounds_of_mask
from oteo_augment.exporting.writers.base import PARTS, Job, Writer, media_ending
from oteo_core.datasets import Sample, Task
from oteo_core.datasets.runs import mask_from_runs
from oteo_core.images import encode_png

_VERSION = "5.5.0"
"""The version of LabelMe whose keys are written."""


class LabelMe(Writer):
    """Writes ``train/NAME.png`` and ``train/NAME.json``.

    An object of several shapes (a box and an outline, an outline of pieces) has them in one group. Crowds are a flag, and so are hidden points; attributes a key that LabelMe
    keeps and does not show. Where classes are of whole images, each class is a flag of every file, true or false.
    """

    name = "labelme"
    tasks = frozenset({Task.CLASSIFICATION, Task.MULTI_LABEL, Task.DETECTION, Task.INSTANCE, Task.SEMANTIC, Task.KEYPOINTS})
    keeps_points = True
    keeps_turned = True

    def __init__(self, job: Job) -> None:
        super().__init__(job)
        self.keeps_class_list = job.info.task == Task.MULTI_LABEL
        self._flags = job.info.classes if job.info.task in (Task.CLASSIFICATION, Task.MULTI_LABEL) else ()

    def add(self, sample: Sample) -> None:
        """Copy the image and write its file."""
        folder = PARTS[sample.split]
        stem = self.stem(sample, folder)
        name = f"{stem}{media_ending(sample)}"
        self.media(sample, f"{folder}/{name}")
        shapes: list[dict[str, Any]] = []
        for number, thing in enumerate([*self.things(sample), *self.stuff(sample)], 1):
            found = list(_shapes(thing))
            for shape in found:
                shape["group_id"] = number if len(found) > 1 or thing.keypoints is not None else None
            shapes += found
        content = {
            "version": _VERSION,
            "flags": {name: name in sample.labels for name in self._flags},
            "shapes": shapes,
            "imagePath": name,
            "imageData": None,
            "imageHeight": sample.height,
            "imageWidth": sample.width,
        }
        self.sink.write(f"{folder}/{stem}.json", json.dumps(content, ensure_ascii=False, indent=1).encode())
        if sample.oriented_boxes:
            self.losses.add(
                "ORIENTATION_LOST",
                "turned boxes became outlines of their four corners, or gave way to their objects' boxes and outlines",
                sample.id,
                count=len(sample.oriented_boxes),
            )
        if not self._flags:
            self.labels_lost(sample)
        self.lost(sample)

    def finish(self) -> None:
        """The files say it all."""


def _shapes(thing: Thing) -> list[dict[str, Any]]:
    found: list[tuple[str, list[list[float]], str | None]] = []
    if thing.box is not None:
        box = thing.box
        found.append(("rectangle", [[box.x, box.y], [box.x + box.width, box.y + box.height]], None))
    if thing.polygons is not None:
        found += [("polygon", [list(p) for p in zip(ring[0::2], ring[1::2], strict=True)], None) for ring in thing.polygons.rings]
    if thing.rle is not None:
        mask = mask_from_runs(thing.rle.counts, thing.rle.height, thing.rle.width)
        x, y, width, height = (int(v) for v in bounds_of_mask(mask))
        if width and height:
            picture = base64.b64encode(encode_png(mask[y : y + height, x : x + width] * 255)).decode()
            found.append(("mask", [[x, y], [x + width - 1, y + height - 1]], picture))
    if thing.oriented is not None and thing.box is None and not thing.has_outline:
        found.append(("polygon", [list(corner) for corner in thing.oriented.corners()], None))
    shapes: list[dict[str, Any]] = [
        {
            "label": thing.class_name,
            "points": points,
            "group_id": None,
            "description": "",
            "shape_type": kind,
            "flags": {"crowd": True} if thing.crowd else {},
            "mask": mask_data,
            **({"attributes": dict(thing.attributes)} if thing.attributes else {}),
        }
        for kind, points, mask_data in found
    ]
    for point in thing.keypoints.points if thing.keypoints is not None else ():
        flags = ({"crowd": True} if thing.crowd else {}) | ({} if point.visible else {"hidden": True})
        shapes.append(
            {
                "label": point.name,
                "points": [[point.x, point.y]],
                "group_id": None,
                "description": "",
                "shape_type": "point",
                "flags": flags,
                "mask": None,
                "object_class": thing.class_name,
                **({"attributes": dict(thing.attributes)} if thing.attributes else {}),
            }
        )
    return shapes
