"""HDF5: one file with the pictures and what is known of them as arrays, a row each."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import h5py
import numpy as np

from oteo_augment.exporting.writers.base import PARTS, Job, media_ending
from oteo_augment.exporting.writers.masks import Masks
from oteo_augment.exporting.writers.numpy import form_of
from oteo_core.datasets import Sample, Severity, Task

_TEXT = h5py.string_dtype()


class Hdf5(Masks):
    """Writes ``{dataset}.h5``: ``images`` (N, H, W) or (N, H, W, C), ``labels`` (N,) or (N, K) or ``masks`` (N, H, W), ``split``, ``names``, ``groups``.

    Pictures must be of one size and depth, grey ones become colour where both occur. Attributes: ``classes``, ``task``, and of masks ``mask_kind``
    ("class" or "instance"), ``mask_values`` (the number of each class) and ``mask_ignore``. Objects with outlines are drawn as in `Masks`.
    """

    name = "hdf5"
    tasks = frozenset({Task.CLASSIFICATION, Task.MULTI_LABEL, Task.SEMANTIC, Task.INSTANCE})
    keeps_groups = True
    holds_stacks = False

    def __init__(self, job: Job) -> None:
        super().__init__(job)
        info = job.info
        self._shape, self._dtype, self._mixed = form_of(job, ("uint8", "uint16", "float32"))
        self._numbers = {name: number for number, name in enumerate(info.classes)}
        self._masked = info.task in (Task.SEMANTIC, Task.INSTANCE)
        self._place: Path = job.scratch / "arrays.h5"
        self._file = h5py.File(self._place, "w", libver="v110")
        height, width, channels = self._shape
        self._create("images", (height, width) if channels == 1 else self._shape, self._dtype, packed=True)
        if self._masked:
            self._create("masks", (height, width), np.uint16, packed=True)
        elif info.task == Task.MULTI_LABEL:
            self._create("labels", (len(info.classes),), np.uint8)
        else:
            self._create("labels", (), np.int64)
        for name in ("split", "names", "groups"):
            self._create(name, (), _TEXT)
        self._file.attrs["classes"] = np.array(list(info.classes), dtype=_TEXT)
        self._file.attrs["task"] = str(info.task)
        if self._masked:
            self._file.attrs["mask_kind"] = "class" if self._by_class else "instance"
            if self._by_class and info.mask is not None:
                self._file.attrs["mask_values"] = list(info.mask.values)
                self._file.attrs["mask_ignore"] = np.array(info.mask.ignore, np.int64)
        self._count = 0

    def _create(self, name: str, each: tuple[int, ...], kind: Any, *, packed: bool = False) -> None:
        packing: dict[str, Any] = {"compression": "gzip", "compression_opts": 4, "shuffle": True} if packed else {}
        chunk = (1, *each) if packed else (1024, *each)
        self._file.create_dataset(name, (0, *each), kind, maxshape=(None, *each), chunks=chunk, track_times=False, **packing)

    def start(self) -> None:
        """Say what becomes of files."""
        super().start()
        if self._mixed:
            self.losses.add("CHANNELS_ADDED", "grey pictures are written in colour, since others are in colour", severity=Severity.INFO)

    def add(self, sample: Sample) -> None:
        """Append a row to every array."""
        pixels = self.decoded(sample)
        if pixels is None:
            return
        row: dict[str, Any] = {"split": PARTS[sample.split] if sample.split else "", "groups": sample.group}
        if self._masked:
            labels = self.labels(sample) if sample.mask_path else self._drawn(sample)
            if labels.size and not 0 <= int(labels.min()) <= int(labels.max()) <= np.iinfo(np.uint16).max:
                self.losses.add(
                    "SAMPLE_LOST", "masks of numbers beyond 65535 are left out with their images", sample.id, severity=Severity.ERROR
                )
                return
            row["masks"] = labels
            if sample.mask_path and sample.boxes:
                self.losses.add("BOX_LOST", "boxes are not in the format", sample.id, count=len(sample.boxes))
        elif self.job.info.task == Task.MULTI_LABEL:
            row["labels"] = np.isin(np.array(list(self._numbers)), np.array(sample.labels))
        else:
            row["labels"] = self._numbers[sample.labels[0]]
            if len(sample.labels) > 1:
                self.losses.add("LABELS_LOST", "further classes of a sample are lost", sample.id, count=len(sample.labels) - 1)
        if pixels.shape[2] == 1 and self._shape[2] == 3:
            pixels = np.repeat(pixels, 3, axis=2)
        row["images"] = pixels[:, :, 0] if self._shape[2] == 1 else pixels
        row["names"] = f"{self.stem(sample)}{media_ending(sample)}"
        self._count += 1
        for name, value in row.items():
            data = self._file[name]
            data.resize(self._count, axis=0)
            data[self._count - 1] = value
        self.lost(sample)

    def finish(self) -> None:
        """Close the file and hand it over."""
        self._file.close()
        self.sink.put(f"{self.job.info.id}.h5", self._place)
