"""CVAT's XML for images, version 1.1 (docs.cvat.ai, "CVAT for image")."""

from __future__ import annotations

import math
import xml.etree.ElementTree as ET
from collections.abc import Iterator

from oteo_augment.exporting.objects import Thing, bounds_of_mask
from oteo_augment.exporting.points import PointNames
from oteo_augment.exporting.writers.base import PARTS, Job, Writer, media_ending, number
from oteo_core.datasets import Sample, Severity, Task
from oteo_core.datasets.runs import mask_from_runs, runs_from_mask

_CROWD = "is_crowd"


class Cvat(Writer):
    """Writes ``images/train/NAME.png`` and one ``annotations.xml``.

    An object of several shapes (a box and an outline, an outline of pieces) has them in one group. Crowds are an attribute. Turned boxes are boxes
    with a rotation, key points skeletons with a point for each name; how
    they are joined is not written, as CVAT keeps that in a drawing.
    """

    name = "cvat"
    tasks = frozenset({Task.CLASSIFICATION, Task.MULTI_LABEL, Task.DETECTION, Task.INSTANCE, Task.SEMANTIC, Task.KEYPOINTS})
    keeps_points = True
    keeps_turned = True

    def __init__(self, job: Job) -> None:
        super().__init__(job)
        self._place = job.scratch / "annotations.xml"
        self._file = self._place.open("w", encoding="utf-8")
        self._count = 0
        self._file.write('<?xml version="1.0" encoding="utf-8"?>\n<annotations>\n<version>1.1</version>\n')
        meta = ET.Element("meta")
        task = ET.SubElement(meta, "task")
        ET.SubElement(task, "name").text = job.info.display_name or job.info.id
        labels = ET.SubElement(task, "labels")
        self._points = PointNames(job.reader)
        for name in job.info.classes:
            ET.SubElement(ET.SubElement(labels, "label"), "name").text = name
        for name in job.info.classes:
            for point in self._points.of(name).points:
                label = ET.SubElement(labels, "label")
                for key, value in (("name", point), ("type", "points"), ("parent", name)):
                    ET.SubElement(label, key).text = value
        self._write(meta)

    def start(self) -> None:
        """Say what is lost of the dataset as a whole."""
        super().start()
        if any(self._points.of(name).edges for name in self.job.info.classes):
            self.losses.add("SKELETON_LOST", "which points are joined is not in the format", severity=Severity.INFO)

    def add(self, sample: Sample) -> None:
        """Copy the image and append its entry."""
        folder = PARTS[sample.split]
        # Names are relative to "images", as in CVAT's own exports.
        name = f"{folder}/{self.stem(sample)}{media_ending(sample)}"
        self.media(sample, f"images/{name}")
        given = {"id": str(self._count), "name": name, "width": str(sample.width), "height": str(sample.height)}
        image = ET.Element("image", given | ({"subset": folder} if sample.split else {}))
        self._count += 1
        for label in () if sample.mask_path else sample.labels:
            ET.SubElement(image, "tag", {"label": label, "source": "manual"})
        for group, thing in enumerate([*self.things(sample), *self.stuff(sample)], 1):
            shapes = list(_shapes(thing, self._points))
            for shape in shapes:
                if len(shapes) > 1:
                    shape.set("group_id", str(group))
                for key, value in thing.attributes:
                    if key != "occluded":
                        ET.SubElement(shape, "attribute", {"name": key}).text = value
                if thing.crowd:
                    ET.SubElement(shape, "attribute", {"name": _CROWD}).text = "true"
                image.append(shape)
        self._write(image)
        self.lost(sample)

    def _write(self, element: ET.Element) -> None:
        ET.indent(element)
        self._file.write(ET.tostring(element, encoding="unicode") + "\n")

    def finish(self) -> None:
        """Write the file."""
        self._file.write("</annotations>\n")
        self._file.close()
        self.sink.put("annotations.xml", self._place)


def _shapes(thing: Thing, names: PointNames) -> Iterator[ET.Element]:
    occluded = dict(thing.attributes).get("occluded", "0")
    common = {"label": thing.class_name, "source": "manual", "occluded": "1" if occluded.lower() in ("1", "true") else "0", "z_order": "0"}
    if thing.box is not None:
        box = thing.box
        corners = (box.x, box.y, box.x + box.width, box.y + box.height)
        yield ET.Element("box", common | dict(zip(("xtl", "ytl", "xbr", "ybr"), map(number, corners), strict=True)))
    if thing.oriented is not None:
        turned = thing.oriented
        left, top = turned.center_x - turned.width / 2, turned.center_y - turned.height / 2
        corners = (left, top, left + turned.width, top + turned.height)
        place = dict(zip(("xtl", "ytl", "xbr", "ybr"), map(number, corners), strict=True))
        yield ET.Element("box", common | place | {"rotation": number(math.degrees(turned.angle) % 360)})
    if thing.keypoints is not None:
        skeleton = ET.Element("skeleton", common)
        placed = names.placed(thing.class_name, thing.keypoints)
        for name, (x, y, seen) in zip(names.of(thing.class_name).points, placed, strict=True):
            # A point that is not marked is outside, wherever it stands.
            told = {"label": name, "source": "manual", "outside": str(int(seen == 0)), "occluded": str(int(seen == 1))}
            ET.SubElement(skeleton, "points", told | {"points": f"{number(x)},{number(y)}"})
        yield skeleton
    if thing.polygons is not None:
        for ring in thing.polygons.rings:
            points = ";".join(f"{number(x)},{number(y)}" for x, y in zip(ring[0::2], ring[1::2], strict=True))
            yield ET.Element("polygon", common | {"points": points})
    if thing.rle is not None:
        mask = mask_from_runs(thing.rle.counts, thing.rle.height, thing.rle.width)
        x, y, width, height = (int(v) for v in bounds_of_mask(mask))
        if width and height:
            # Row by row: the runs of the mask turned over.
            runs = runs_from_mask(mask[y : y + height, x : x + width].T)
            place = {"left": str(x), "top": str(y), "width": str(width), "height": str(height)}
            yield ET.Element("mask", common | {"rle": ", ".join(map(str, runs)), **place})
