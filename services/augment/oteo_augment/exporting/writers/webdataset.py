"""WebDataset shards: tar files of so many samples each, a sample's files side by side (github.com/webdataset/webdataset)."""

from __future__ import annotations

import json
from pathlib import Path

from oteo_augment.exporting.sinks import TarSink
from oteo_augment.exporting.writers.base import PARTS, Job, Writer, media_ending
from oteo_augment.importing.paths import stem
from oteo_core.datasets import Sample, Task

SHARD = 1000
"""Samples of one shard."""


class WebDataset(Writer):
    """Writes ``train-000000.tar`` and so on with ``KEY.png``, ``KEY.json`` (``labels``) and, for one class each, ``KEY.cls`` (its number).

    ``classes.txt`` has a name a line. Keys have no dots, since WebDataset ends a key at the first one.
    """

    name = "webdataset"
    tasks = frozenset({Task.CLASSIFICATION, Task.MULTI_LABEL})

    def __init__(self, job: Job) -> None:
        super().__init__(job)
        self._multiple = job.info.task == Task.MULTI_LABEL
        self.keeps_class_list = self._multiple
        self._numbers = {name: number for number, name in enumerate(job.info.classes)}
        self._open: dict[str, tuple[Path, TarSink]] = {}
        self._counts: dict[str, int] = {}

    def add(self, sample: Sample) -> None:
        """Add the image and its labels to its part's shard."""
        data = self.job.reader.read_media(sample)
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
        if not self._multiple:
            tar.write(f"{key}.cls", str(self._numbers[sample.labels[0]]).encode())
            if len(sample.labels) > 1:
                self.losses.add("LABELS_LOST", "further classes of a sample are in its JSON alone", sample.id, count=len(sample.labels) - 1)
        tar.write(f"{key}.json", json.dumps({"labels": list(sample.labels)}, ensure_ascii=False).encode())
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
        self.sink.write("classes.txt", "".join(f"{name}\n" for name in self.job.info.classes).encode())
