"""What every writer of an outside format has and does."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from oteo_augment.exporting.losses import Losses
from oteo_augment.exporting.naming import Names, ending
from oteo_augment.exporting.objects import Thing, things_of, things_of_labels
from oteo_augment.exporting.stacks import write_stack
from oteo_augment.importing.paths import stem
from oteo_core.artifacts import ArtifactStore
from oteo_core.datasets import Box, DatasetInfo, DatasetReader, Rle, Sample, Severity, Task
from oteo_core.datasets.runs import runs_from_mask
from oteo_core.errors import DataLoss, OteoError
from oteo_core.exports import Sink
from oteo_core.images import decode_labels

PARTS = {"train": "train", "validation": "val", "test": "test", "": "unassigned"}
"""Folder names of the parts."""


@dataclass(frozen=True)
class Job:
    """What a writer works with.

    Parameters
    ----------
    store
        Where the dataset lies.
    reader
        The dataset.
    sink
        Takes what is written.
    losses
        Takes what the format cannot hold.
    scratch
        A local folder for files that grow while samples come.
    splits
        Parts that are written, names of `SPLITS`; empty: all, with samples of no part.
    """

    store: ArtifactStore
    reader: DatasetReader
    sink: Sink
    losses: Losses
    scratch: Path
    splits: tuple[str, ...] = ()

    @property
    def info(self) -> DatasetInfo:
        """The dataset's description."""
        return self.reader.info

    def parts(self) -> list[str]:
        """Give the parts that have samples and are written, in order; "" among them for samples of no part."""
        return [count.split for count in self.info.splits if not self.splits or count.split in self.splits]


class Writer(ABC):
    """Writes one dataset in one format: `add` for each sample, then `finish`.

    A writer holds no more than names and counters, so that memory does not grow with annotations.
    """

    name: ClassVar[str]
    """As in `oteo_core.datasets.proto.FORMATS`."""
    tasks: ClassVar[frozenset[str]]
    """Tasks that the format can hold, whole or with losses."""
    keeps_groups: ClassVar[bool] = False
    keeps_excluded: ClassVar[bool] = False
    """True: samples that were left out are written too, as far as there is something of them."""
    holds_stacks: ClassVar[bool] = False
    """True: `add_stack` writes the frames of a sequence as one file."""
    keeps_points: bool = False
    keeps_turned: bool = False
    """True: key points, or turned boxes, are written, or the writer itself says what is lost of them."""
    keeps_class_list: bool = True
    """False: a reader finds the classes that occur, in the order of the alphabet."""

    def __init__(self, job: Job) -> None:
        self.job = job
        self.losses = job.losses
        self.sink = job.sink
        self.names = Names()

    def start(self) -> None:
        """Say what is lost of the dataset as a whole; called once, before the first sample."""
        info = self.job.info
        occurring = sorted(c.name for c in info.class_info if c.sample_count)
        if not self.keeps_class_list and list(info.classes) != occurring:
            self.losses.add(
                "CLASS_LIST_LOST",
                "the format has no list of classes: their order, and classes that do not occur, are lost",
                severity=Severity.INFO,
            )

    @abstractmethod
    def add(self, sample: Sample) -> None:
        """Write a sample. Media come first, so that a sample whose file is gone leaves no trace in annotations."""

    def add_stack(self, frames: Sequence[Sample]) -> None:
        """Write the frames of one sequence, which fit one TIFF file, in order; only where `holds_stacks`."""
        raise NotImplementedError(type(self).__name__)

    @abstractmethod
    def finish(self) -> None:
        """Write what stands for all samples together."""

    def lost(self, sample: Sample, *, stacked: bool = False) -> None:
        """Count what no outside format holds; of a frame that went into a stack its place is held."""
        if sample.group and not self.keeps_groups:
            self.losses.add("GROUP_LOST", "groups of samples that belong together are not in the format", sample.id, severity=Severity.INFO)
        if sample.sequence and not stacked:
            self.losses.add(
                "SEQUENCE_LOST",
                "which stack or clip a frame is of is not in the format; its files are numbered in their order",
                sample.id,
                severity=Severity.INFO,
            )
        if sample.keypoints and not self.keeps_points:
            self.losses.add("KEYPOINTS_LOST", "key points of objects are not in the format", sample.id, count=len(sample.keypoints))
        twice = sum(len(marked.points) - len({point.name for point in marked.points}) for marked in sample.keypoints)
        if twice and self.keeps_points:
            self.losses.add(
                "POINT_LOST",
                "of points of one name in an object the last alone is written",
                sample.id,
                count=twice,
                severity=Severity.ERROR,
            )
        if sample.oriented_boxes and not self.keeps_turned:
            self.losses.add(
                "ORIENTATION_LOST",
                "turned boxes are not in the format, at most upright boxes around them",
                sample.id,
                count=len(sample.oriented_boxes),
            )
        if sample.spacing:
            self.losses.add("SPACING_LOST", "distances of pixels are not in the format", sample.id)
        if sample.derived_from:
            self.losses.add(
                "ORIGIN_LOST", "which sample an augmented one was made from is not in the format", sample.id, severity=Severity.INFO
            )

    def media(self, sample: Sample, path: str) -> int:
        """Copy a sample's file, byte for byte; give their number.

        Raises
        ------
        DataLoss
            MEDIA_LOST where it is gone.
        """
        return self._copy(sample, sample.path, path)

    def mask_file(self, sample: Sample, path: str) -> int:
        """Copy a sample's mask, byte for byte; as `media`."""
        return self._copy(sample, sample.mask_path, path)

    def stack(self, frames: Sequence[Sample], path: str, pages: Iterator[NDArray[Any]], channels: int) -> None:
        """Write pages (H, W) or (H, W, C) of the frames of a sequence as one TIFF file.

        Raises
        ------
        DataLoss
            MEDIA_LOST where a frame's file is gone; nothing is written then.
        """
        file = self.job.scratch / "stack.tif"
        try:
            write_stack(file, pages, len(frames), frames[0].width * frames[0].height * channels * 4)
            self.sink.put(path, file)
        finally:
            file.unlink(missing_ok=True)

    def decoded(self, sample: Sample) -> NDArray[Any] | None:
        """Give a sample's pixels (H, W, C); None, and count it as lost, where they cannot be decoded.

        Raises
        ------
        DataLoss
            MEDIA_LOST where its file is gone.
        """
        try:
            return self.job.reader.image(sample).pixels
        except OteoError as exc:
            if exc.reason == "MEDIA_LOST":
                raise
            self.losses.add(
                "SAMPLE_LOST", f"pictures that cannot be decoded are left out: {exc.message}", sample.id, severity=Severity.ERROR
            )
            return None

    def pictures(self, frames: Sequence[Sample]) -> Iterator[NDArray[Any]]:
        """Give the pixels (H, W, C) of frames, one after the other."""
        return (self.job.reader.image(sample).pixels for sample in frames)

    def stack_stem(self, frames: Sequence[Sample], scope: str = "") -> str:
        """Give the name of a stack without ending, unique in a scope: that of the file that its first frame came from."""
        return self.names.give(frames[0].source_path or frames[0].sequence, scope)

    def _copy(self, sample: Sample, media: str, path: str) -> int:
        reader = self.job.reader
        if reader.uri.startswith("file://"):
            source = Path(f"{reader.uri.removeprefix('file://')}/{media}")
            try:
                return self.sink.put(path, source)
            except FileNotFoundError as exc:
                if str(exc.filename) != str(source):
                    raise
                raise DataLoss(f"the file {media} of sample {sample.id!r} is gone from {reader.uri}", reason="MEDIA_LOST") from exc
        data = reader.read_media(sample) if media == sample.path else reader.read_mask(sample)
        self.sink.write(path, data)
        return len(data)

    def labels(self, sample: Sample) -> NDArray[Any]:
        """Give a sample's mask image as numbers (height, width)."""
        pixels = decode_labels(self.job.reader.read_mask(sample))
        if pixels.ndim == 3:
            pixels = pixels[:, :, 0]
        return pixels.astype(np.int64) if pixels.dtype.kind == "f" else pixels

    def things(self, sample: Sample) -> list[Thing]:
        """Give a sample's objects; those of a label image too.

        Objects of which nothing but points is known are left out where the format holds no points.
        """
        found = things_of(sample)
        if not self.keeps_points:
            placed = [thing for thing in found if thing.has_outline or thing.box is not None or thing.oriented is not None]
            if len(placed) < len(found):
                self.losses.add(
                    "OBJECT_LOST",
                    "objects of points alone are left out",
                    sample.id,
                    count=len(found) - len(placed),
                    severity=Severity.ERROR,
                )
            found = placed
        if not self.keeps_turned:
            for thing in found:
                if thing.oriented is not None and thing.box is None and not thing.has_outline:
                    thing.box = Box(thing.class_name, *thing.bounds(), thing.crowd)
        mask = self.job.info.mask
        if sample.mask_path and mask is not None and mask.kind == "instance":
            found += things_of_labels(self.labels(sample), self.job.info.classes[0])
        return found

    def stuff(self, sample: Sample) -> list[Thing]:
        """Give the classes of a mask of classes, each with its pixels as one thing; void pixels are counted as lost."""
        info = self.job.info
        if not sample.mask_path or info.mask is None or info.mask.kind != "class":
            return []
        labels = self.labels(sample)
        height, width = labels.shape
        void = int(np.isin(labels, info.mask.ignore).sum())
        if void:
            self.losses.add(
                "VOID_LOST", "pixels that belong to no class are background in the format, not set aside", sample.id, count=void
            )
        found = []
        for name, value in zip(info.classes, info.mask.values, strict=True):
            inside = labels == value
            if inside.any():
                found.append(Thing(name, False, (), rle=Rle(name, height, width, runs_from_mask(inside))))
        return found

    def labels_lost(self, sample: Sample) -> None:
        """Count whole-image classes where the format has objects alone; a mask's own classes are said by its numbers."""
        if sample.labels and not sample.mask_path:
            self.losses.add(
                "LABELS_LOST", "classes of whole images are not in the format, which holds objects", sample.id, count=len(sample.labels)
            )

    def stem(self, sample: Sample, scope: str = "") -> str:
        """Give the sample's name without ending, unique in a scope; frames of one file are told apart by their numbers."""
        path = sample.source_path or sample.id
        if sample.sequence:
            folder, slash, _ = path.rpartition("/")
            path = f"{folder}{slash}{stem(path)}-{sample.frame:0{len(str(max(sample.frames - 1, 0)))}}.frame"
        return self.names.give(path, scope)


def media_ending(sample: Sample) -> str:
    """Give the ending of a sample's media file."""
    return ending(sample.path)


def number(value: float) -> str:
    """Give a coordinate: whole numbers without a point, others with all digits that tell them from their neighbours."""
    return str(int(value)) if value == int(value) else repr(value)


def unique_folders(classes: tuple[str, ...], clean: Any) -> Iterator[tuple[str, str]]:
    """Give each class a folder name that differs from the others in more than upper and lower case."""
    taken: set[str] = set()
    for name in classes:
        base = folder = clean(name)
        count = 2
        while folder.lower() in taken:
            folder, count = f"{base}-{count}", count + 1
        taken.add(folder.lower())
        yield name, folder


OBJECTS = frozenset({Task.DETECTION, Task.INSTANCE})
"""Tasks whose answers are objects."""
