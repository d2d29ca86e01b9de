"""WebDataset shards: tar files of so many samples each, a sample's files side by side (github.com/webdataset/webdataset)."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from oteo_augment.exporting.naming import ending
from oteo_augment.exporting.objects import Thing
from oteo_augment.exporting.writers.base import PARTS, Job, Writer, media_ending
from oteo_augment.importing.paths import stem
from oteo_core.datasets import Sample, Task
from oteo_core.exports import TarSink

SHARD = 1000
"""Samples of one shard."""


class WebDataset(Writer):
    """Writes ``train-000000.tar`` and so on with ``KEY.png``, ``KEY.json`` (``labels``) and, for one class each, ``KEY.cls`` (its number).

    Masks are ``KEY.mask.png``, byte for byte; objects are ``objects`` in the JSON, as in COCO but with the class's name. ``classes.txt`` has a name a
    line, or as beside masks the number of each class. Keys have no dots, since WebDataset ends a key at the first one.
    """

    name = "webdataset"
    tasks = frozenset({Task.CLASSIFICATION, Task.MULTI_LABEL, Task.DETECTION, Task.SEMANTIC, Task.INSTANCE})

    def __init__(self, job: Job) -> None:
        super().__init__(job)
        self._single = job.info.task == Task.CLASSIFICATION
        self._objects = job.info.task in (Task.DETECTION, Task.INSTANCE)
        self.keeps_class_list = not self._single
        self._numbers = {name: number for number, name in enumerate(job.info.classes)}
        self._open: dict[str, tuple[Path, TarSink]] = {}
        self._counts: dict[str, int] = {}

    def add(self, sample: Sample) -> None:
        """Add the image and its labels to its part's shard."""
        data = self.job.reader.read_media(sample)
        mask = self.job.reader.read_mask(sample) if sample.mask_path else b""
        part = PARTS[sample.split]
        count = self._counts.get(part, 0)
        if count % SHARD == 0:
            self._close(part)
            place = self.job.scratch / f"{part}-{count // SHARD:06}.tar"
            self._open[part] = (place, TarSink(place))
        self._counts[part] = count + 1
        key = self.names.give(f"{stem(sample.source_path or sample.id).replace('.', '_')}.x")
        tar = self._open[part][1]
        tar.write(f"{key}{media_ending(sample)}", data)
        if self._single:
            tar.write(f"{key}.cls", str(self._numbers[sample.labels[0]]).encode())
            if len(sample.labels) > 1:
                self.losses.add("LABELS_LOST", "further classes of a sample are in its JSON alone", sample.id, count=len(sample.labels) - 1)
        content: dict[str, Any] = {"labels": [] if sample.mask_path else list(sample.labels)}
        if sample.mask_path:
            tar.write(f"{key}.mask{ending(sample.mask_path)}", mask)
        elif self._objects:
            content["objects"] = [_entry(thing) for thing in self.things(sample)]
        if sample.mask_path and sample.boxes:
            self.losses.add("BOX_LOST", "boxes are not in the format beside a mask", sample.id, count=len(sample.boxes))
        tar.write(f"{key}.json", json.dumps(content, ensure_ascii=False).encode())
        self.lost(sample)

    def _close(self, part: str) -> None:
        if part in self._open:
            place, tar = self._open.pop(part)
            tar.close()
            self.sink.put(place.name, place)
            place.unlink()

    def finish(self) -> None:
        """Close the last shards and write the names of the classes."""
        for part in sorted(self._open):
            self._close(part)
        info = self.job.info
        lines = list(info.classes)
        if info.mask is not None and info.mask.kind == "class":
            lines = [f"{value} {name}" for value, name in zip(info.mask.values, info.classes, strict=True)]
        elif info.mask is not None:
            lines = [f"* {info.classes[0]}"]
        self.sink.write("classes.txt", "".join(f"{line}\n" for line in lines).encode())


def _entry(thing: Thing) -> dict[str, Any]:
    entry: dict[str, Any] = {"class": thing.class_name}
    if thing.box is not None or not thing.has_outline:
        entry["bbox"] = list(thing.bounds())
    if thing.polygons is not None:
        entry["segmentation"] = [list(ring) for ring in thing.polygons.rings]
    elif thing.rle is not None:
        entry["segmentation"] = {"size": [thing.rle.height, thing.rle.width], "counts": list(thing.rle.counts)}
    if thing.crowd:
        entry["iscrowd"] = 1
    if thing.attributes:
        entry["attributes"] = dict(thing.attributes)
    return entry
