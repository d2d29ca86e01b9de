"""Pascal VOC: an XML file for each image, parts in ImageSets/Main (Everingham and Winn, VOC2012 Development Kit, 2012)."""

from __future__ import annotations

import colorsys
import xml.etree.ElementTree as ET
from pathlib import Path

from oteo_augment.exporting.objects import Thing
from oteo_augment.exporting.writers.base import OBJECTS, PARTS, Job, Writer, media_ending, number
from oteo_core.datasets import Sample

_FLAGS = ("pose", "truncated", "occluded", "difficult")


class PascalVoc(Writer):
    """Writes ``JPEGImages/NAME.png``, ``Annotations/NAME.xml``, ``ImageSets/Main/train.txt`` and ``labelmap.txt``.

    Corners are written as they are counted here, from 0, whole numbers without a point; the reader takes them so.
    """

    name = "pascal_voc"
    tasks = OBJECTS

    def __init__(self, job: Job) -> None:
        super().__init__(job)
        self._lists: dict[str, Path] = {PARTS[split]: job.scratch / f"voc-{PARTS[split]}.txt" for split in job.parts() if split}
        self._open = {name: place.open("w", encoding="utf-8") for name, place in self._lists.items()}

    def add(self, sample: Sample) -> None:
        """Copy the image, write its XML file and note it in its part's list."""
        stem = self.stem(sample)
        name = f"{stem}{media_ending(sample)}"
        self.media(sample, f"JPEGImages/{name}")
        self.sink.write(f"Annotations/{stem}.xml", self._xml(sample, name))
        if sample.split:
            self._open[PARTS[sample.split]].write(f"{stem}\n")
        self.labels_lost(sample)
        self.lost(sample)

    def _xml(self, sample: Sample, name: str) -> bytes:
        root = ET.Element("annotation")
        _text(root, "folder", "JPEGImages")
        _text(root, "filename", name)
        _text(ET.SubElement(root, "source"), "database", self.job.info.id)
        size = ET.SubElement(root, "size")
        for key, value in (("width", sample.width), ("height", sample.height), ("depth", sample.channels)):
            _text(size, key, str(value))
        _text(root, "segmented", "0")
        for thing in self.things(sample):
            self._object(root, thing, sample.id)
        ET.indent(root)
        data: bytes = ET.tostring(root, encoding="utf-8")
        return data

    def _object(self, root: ET.Element, thing: Thing, sample: str) -> None:
        if thing.has_outline:
            self.losses.add("OUTLINE_LOST", "outlines became boxes: Pascal VOC's XML holds none", sample)
        given = dict(thing.attributes)
        if thing.crowd:
            self.losses.add("CROWD_LOST", "crowds are marked as difficult: Pascal VOC does not know them", sample)
            given["difficult"] = "1"
        rest = set(given) - set(_FLAGS)
        if rest:
            self.losses.add("ATTRIBUTE_LOST", "attributes of objects are not in the format", sample, count=len(rest))
        x, y, width, height = thing.bounds()
        entry = ET.SubElement(root, "object")
        _text(entry, "name", thing.class_name)
        for flag in _FLAGS:
            if flag in given:
                _text(entry, flag, given[flag])
        box = ET.SubElement(entry, "bndbox")
        for key, value in (("xmin", x), ("ymin", y), ("xmax", x + width), ("ymax", y + height)):
            _text(box, key, number(value))

    def finish(self) -> None:
        """Write the lists of parts and of classes."""
        for name, file in self._open.items():
            file.close()
            self.sink.put(f"ImageSets/Main/{name}.txt", self._lists[name])
        lines = ["# label:color_rgb:parts:actions", "background:0,0,0::"]
        for index, name in enumerate(self.job.info.classes):
            red, green, blue = (round(255 * v) for v in colorsys.hsv_to_rgb(index * 0.618034 % 1, 0.75, 0.9))
            lines.append(f"{name}:{red},{green},{blue}::")
        self.sink.write("labelmap.txt", ("\n".join(lines) + "\n").encode())


def _text(parent: ET.Element, key: str, value: str) -> None:
    ET.SubElement(parent, key).text = value
