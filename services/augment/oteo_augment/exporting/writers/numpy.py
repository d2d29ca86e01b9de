"""NumPy archives in MedMNIST's form: ``train_images``, ``train_labels`` and their like in one .npz file."""

from __future__ import annotations

import shutil
import zipfile
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.lib import format as npy
from numpy.typing import NDArray

from oteo_augment.exporting.writers.base import PARTS, Job, Writer
from oteo_core.datasets import Sample, Severity, Task
from oteo_core.errors import FailedPrecondition

_LONG_AGO = (1980, 1, 1, 0, 0, 0)
_WORDS = ("train", "validation", "test")


class Numpy(Writer):
    """Writes ``{dataset}.npz``; pictures must be of one size and depth, grey ones become colour where both occur.

    Beside MedMNIST's own arrays there is ``classes``, the names by number. Pixels go to local files as they come, so that one picture is held at a
    time.
    """

    name = "numpy"
    tasks = frozenset({Task.CLASSIFICATION, Task.MULTI_LABEL})

    def __init__(self, job: Job) -> None:
        super().__init__(job)
        self._numbers = {name: number for number, name in enumerate(job.info.classes)}
        self._multiple = job.info.task == Task.MULTI_LABEL
        self._shape, self._dtype, self._mixed = form_of(job)
        self._labels: dict[str, list[NDArray[np.uint8 | np.int64]]] = {split: [] for split in _WORDS}
        self._places: dict[str, Path] = {split: job.scratch / f"numpy-{split}" for split in _WORDS}
        self._files: dict[str, IO[bytes]] = {split: place.open("wb") for split, place in self._places.items()}

    def start(self) -> None:
        """Say that files lose their names and their compression."""
        super().start()
        self.losses.add("NAMES_LOST", "names of files are not in the format; the order of samples stays", severity=Severity.INFO)
        if self._mixed:
            self.losses.add("CHANNELS_ADDED", "grey pictures are written in colour, since others are in colour", severity=Severity.INFO)

    def add(self, sample: Sample) -> None:
        """Decode the image; keep its pixels and its label."""
        pixels = self.decoded(sample)
        if pixels is None:
            return
        if pixels.shape[2] == 1 and self._shape[2] == 3:
            pixels = np.repeat(pixels, 3, axis=2)
        split = sample.split or "train"
        if not sample.split:
            self.losses.add("PART_GIVEN", "samples of no part are in train, since there is nothing else for them", sample.id)
        self._files[split].write(np.ascontiguousarray(pixels).tobytes())
        self._labels[split].append(self._label(sample))
        if not self._multiple and len(sample.labels) > 1:
            self.losses.add("LABELS_LOST", "further classes of a sample are lost", sample.id, count=len(sample.labels) - 1)
        self.lost(sample)

    def _label(self, sample: Sample) -> NDArray[Any]:
        if self._multiple:
            row = np.zeros(len(self._numbers), np.uint8)
            row[[self._numbers[name] for name in sample.labels]] = 1
            return row
        return np.array([self._numbers[sample.labels[0]]], np.uint8 if len(self._numbers) <= 256 else np.int64)

    def finish(self) -> None:
        """Write the archive."""
        place = self.job.scratch / "arrays.npz"
        with zipfile.ZipFile(place, "w", zipfile.ZIP_STORED, allowZip64=True) as archive:
            for split in _WORDS:
                self._files[split].close()
                rows = self._labels[split]
                if not rows:
                    continue
                shape = (len(rows), *(self._shape[:2] if self._shape[2] == 1 else self._shape))
                with _member(archive, f"{PARTS[split]}_images") as goal, self._places[split].open("rb") as pixels:
                    npy.write_array_header_2_0(goal, {"descr": npy.dtype_to_descr(self._dtype), "fortran_order": False, "shape": shape})
                    shutil.copyfileobj(pixels, goal, 1 << 20)
                with _member(archive, f"{PARTS[split]}_labels") as goal:
                    npy.write_array(goal, np.stack(rows), allow_pickle=False)
                self._places[split].unlink()
            with _member(archive, "classes") as goal:
                npy.write_array(goal, np.array(self.job.info.classes, dtype=str), allow_pickle=False)
        self.sink.put(f"{self.job.info.id}.npz", place)


def _member(archive: zipfile.ZipFile, name: str) -> IO[bytes]:
    return archive.open(zipfile.ZipInfo(f"{name}.npy", _LONG_AGO), "w", force_zip64=True)


def form_of(job: Job, kinds: tuple[str, ...] = ("uint8", "uint16")) -> tuple[tuple[int, int, int], np.dtype[Any], bool]:
    """Give height, width and channels of all pictures, their type, and whether grey and colour are mixed.

    Raises
    ------
    FailedPrecondition
        FORMAT_CANNOT_HOLD_SIZES where pictures differ; nothing has been written then.
    """
    seen: set[tuple[int, int, int, str]] = set()
    for sample in job.reader.samples(columns=["height", "width", "channels", "dtype", "split"]):
        if not job.splits or sample.split in job.splits:
            seen.add((sample.height, sample.width, sample.channels, sample.dtype))
            if len({(height, width, dtype) for height, width, _, dtype in seen}) > 1 or {c for _, _, c, _ in seen} - {1, 3}:
                shown = ", ".join(f"{width} x {height} x {channels} {dtype}" for height, width, channels, dtype in sorted(seen)[:3])
                raise FailedPrecondition(
                    f"an array holds pictures of one size and type, grey or in colour; {job.info.id} has {shown}",
                    reason="FORMAT_CANNOT_HOLD_SIZES",
                    field="format",
                )
    height, width, _, dtype = next(iter(seen))
    channels = {channels for _, _, channels, _ in seen}
    if dtype not in kinds:
        raise FailedPrecondition(
            f"arrays of {dtype} are not read by others; {job.info.id} cannot be written so",
            reason="FORMAT_CANNOT_HOLD_SIZES",
            field="format",
        )
    return (height, width, max(channels)), np.dtype(dtype).newbyteorder("<"), len(channels) > 1
