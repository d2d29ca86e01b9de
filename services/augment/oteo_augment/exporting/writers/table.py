"""A CSV of files and labels."""

from __future__ import annotations

import csv
from collections.abc import Sequence

from oteo_augment.exporting.writers.base import PARTS, Job, Writer, media_ending
from oteo_core.datasets import Sample, Task

SEPARATORS = "|;,"
"""What may stand between classes in a cell, in the order in which a reader looks for them."""


class Csv(Writer):
    """Writes ``images/NAME.png`` and ``samples.csv`` with the columns file, label (or labels), split and group.

    Several classes of a sample stand in one cell with "|" between them; where a class has a separator in its name, each class has a column of 0 and
    1 instead.
    """

    name = "csv"
    tasks = frozenset({Task.CLASSIFICATION, Task.MULTI_LABEL})
    keeps_groups = True
    keeps_class_list = False

    def __init__(self, job: Job) -> None:
        super().__init__(job)
        info = job.info
        self._multiple = info.task == Task.MULTI_LABEL
        self._one_hot = self._multiple and any(letter in name for name in info.classes for letter in SEPARATORS)
        self.keeps_class_list = self._one_hot
        self._place = job.scratch / "samples.csv"
        self._file = self._place.open("w", encoding="utf-8", newline="")
        self._rows = csv.writer(self._file, lineterminator="\n")
        self._rows.writerow(["file", *(info.classes if self._one_hot else ["labels" if self._multiple else "label"]), "split", "group"])

    def add(self, sample: Sample) -> None:
        """Copy the image and write its row."""
        path = f"images/{self.stem(sample)}{media_ending(sample)}"
        self.media(sample, path)
        self._rows.writerow([path, *self._cells(sample.labels), PARTS[sample.split] if sample.split else "", sample.group])
        self.lost(sample)

    def _cells(self, labels: Sequence[str]) -> list[str]:
        if self._one_hot:
            return [str(int(name in labels)) for name in self.job.info.classes]
        return ["|".join(labels)]

    def finish(self) -> None:
        """Write the table."""
        self._file.close()
        self.sink.put("samples.csv", self._place)
