"""The samples of a search, and their images: decoded and resized once, then mapped into memory by every task of the machine."""

from __future__ import annotations

import hashlib
import os
import tempfile
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from oteo_core.artifacts import ArtifactStore
from oteo_core.datasets import DatasetReader, Sample
from oteo_core.datasets.info import Task
from oteo_core.errors import DataLoss, FailedPrecondition, InvalidArgument, NotFound
from oteo_core.images import ImageLimits, InputPolicy, decode, prepare

COLUMNS = (
    "path",
    "width",
    "height",
    "channels",
    "dtype",
    "bit_depth",
    "media_kind",
    "frames",
    "sequence",
    "split",
    "group",
    "labels",
    "derived_from",
)
_CHUNK = 64


@dataclass(slots=True)
class TrainingData:
    """The samples of a dataset that a classification can use, and their prepared images; row ``i`` everywhere is the same sample.

    Parameters
    ----------
    samples
        Ids, in the dataset's order.
    classes
        Names, in the order of the labels: those that have training images.
    labels
        ``(N,)`` int64; ``(N, K)`` of 0 and 1 where an image may have several classes, or none.
    parts
        ``(N,)`` of ``"train"``, ``"validation"`` and ``"test"``.
    groups
        Group of each; the sample's own id where it has none.
    sizes
        ``(N, 2)`` width and height of the originals, pixels.
    channels, deep, bit_depth
        Channels of the originals, each kind once; True where any has more than 8 bits; the most bits that any 16-bit one fills, 0 where
        there is none.
    left_out
        Samples that could not be used, by reason.
    sequences
        Stack or clip of each sample that is a slice or frame of one; empty names for still images.
    images
        ``(N, H, W, C)``, mapped into memory; None until the cache is opened.
    """

    samples: list[str]
    classes: tuple[str, ...]
    labels: NDArray[np.int64]
    parts: NDArray[np.str_]
    groups: list[str]
    sizes: NDArray[np.int64]
    channels: frozenset[int] = frozenset({3})
    deep: bool = False
    bit_depth: int = 0
    left_out: dict[str, int] = field(default_factory=dict)
    sequences: list[str] = field(default_factory=list)
    images: NDArray[Any] = field(default_factory=lambda: np.empty((0, 0, 0, 0), np.uint8))

    def part(self, *names: str) -> NDArray[np.int64]:
        """Give the rows of these parts, ascending."""
        return np.flatnonzero(np.isin(self.parts, names)).astype(np.int64)


def read_table(reader: DatasetReader) -> tuple[TrainingData, list[Sample]]:
    """Read what is known of the samples without their pixels; also gives the samples themselves, in the same order.

    In a dataset of several labels an image without any is a sample like others: it has none of the classes.

    Raises
    ------
    InvalidArgument
        ``WRONG_TASK``: an image has several classes in a dataset of one class an image, or is a stack or clip in one file. ``SINGLE_CLASS``:
        fewer than two classes have training images; of several labels, every training image has all of them or none.
    """
    several = reader.info.task == Task.MULTI_LABEL
    found: list[Sample] = []
    left_out: dict[str, int] = {}
    for sample in reader.samples(columns=COLUMNS):
        names = set(sample.labels)
        if sample.split not in ("train", "validation", "test") or (not names and not several):
            why = "without a class" if sample.split else "in no part"
            left_out[why] = left_out.get(why, 0) + 1
            continue
        if len(names) > 1 and not several:
            raise InvalidArgument(
                f"sample {sample.id!r} has {len(names)} classes; classification gives each image one", reason="WRONG_TASK", field="task"
            )
        if not sample.is_picture:
            raise InvalidArgument(
                f"sample {sample.id!r} is a {sample.media_kind} in one file; import it again, which makes a sample of each frame",
                reason="WRONG_TASK",
                field="dataset",
            )
        found.append(sample)
    classes, found, labels = (_several_labels if several else _one_label)(reader, found, left_out)
    data = TrainingData(
        samples=[sample.id for sample in found],
        classes=classes,
        labels=labels,
        parts=np.array([sample.split for sample in found], dtype=np.str_),
        groups=[sample.group or sample.id for sample in found],
        sizes=np.array([[sample.width, sample.height] for sample in found], dtype=np.int64),
        channels=frozenset(sample.channels for sample in found),
        deep=any(sample.dtype not in ("uint8", "") for sample in found),
        bit_depth=max((sample.bit_depth or 16 for sample in found if sample.dtype == "uint16"), default=0),
        left_out=left_out,
        sequences=[sample.sequence for sample in found],
    )
    return data, found


def _one_label(
    reader: DatasetReader, found: list[Sample], left_out: dict[str, int]
) -> tuple[tuple[str, ...], list[Sample], NDArray[np.int64]]:
    present = {sample.labels[0] for sample in found if sample.split == "train"}
    classes = tuple(name for name in reader.info.classes if name in present)
    if len(classes) < 2:
        raise InvalidArgument(
            f"dataset {reader.info.id!r} has training images of {len(classes)} class{'' if len(classes) == 1 else 'es'}; two are needed",
            reason="SINGLE_CLASS",
            field="dataset",
        )
    unknown = sum(sample.labels[0] not in present for sample in found)
    if unknown:
        left_out["of a class without training images"] = unknown
    found = [sample for sample in found if sample.labels[0] in present]
    place = {name: number for number, name in enumerate(classes)}
    return classes, found, np.array([place[sample.labels[0]] for sample in found], dtype=np.int64)


def _several_labels(
    reader: DatasetReader, found: list[Sample], left_out: dict[str, int]
) -> tuple[tuple[str, ...], list[Sample], NDArray[np.int64]]:
    training = [set(sample.labels) for sample in found if sample.split == "train"]
    present = set().union(*training)
    classes = tuple(name for name in reader.info.classes if name in present)
    # A class that every training image has cannot be learnt, but is right to be said.
    if not any(0 < sum(name in names for names in training) < len(training) for name in classes):
        raise InvalidArgument(
            f"dataset {reader.info.id!r} has no class that some training images have and others have not: there is nothing to learn",
            reason="SINGLE_CLASS",
            field="dataset",
        )
    unknown = sum(not set(sample.labels) <= present for sample in found)
    if unknown:
        left_out["with a class without training images, which is not looked for"] = unknown
    place = {name: number for number, name in enumerate(classes)}
    labels = np.zeros((len(found), len(classes)), dtype=np.int64)
    for row, sample in enumerate(found):
        labels[row, [place[name] for name in set(sample.labels) if name in place]] = 1
    return classes, found, labels


class Table(Protocol):
    """What is used of `TrainingData`, and of a dense task's data, to leave samples out."""

    samples: list[str]
    parts: NDArray[np.str_]
    left_out: dict[str, int]


@dataclass(frozen=True, slots=True)
class LeftOut:
    """A sample that could not be read when a training began: its id, its part, and why."""

    sample: str
    part: str
    why: str

    def to_dict(self) -> dict[str, str]:
        """Give JSON values."""
        return {"sample": self.sample, "part": self.part, "why": self.why}


def leave_out(data: Table, unreadable: Mapping[int, str]) -> list[LeftOut]:
    """Take samples that cannot be read out of all parts, and count them.

    Raises
    ------
    FailedPrecondition
        ``UNREADABLE_IMAGES``: more than half of the samples.
    """
    found = [LeftOut(data.samples[row], str(data.parts[row]), why) for row, why in unreadable.items()]
    if 2 * len(found) > len(data.samples):
        raise FailedPrecondition(
            f"{len(found)} of {len(data.samples)} images cannot be read any more, the first is {found[0].sample} ({found[0].why}): import the "
            "dataset again",
            reason="UNREADABLE_IMAGES",
            field="dataset",
        )
    for row in unreadable:
        data.parts[row] = ""
    if found:
        data.left_out["could not be read when the training began"] = len(found)
    return found


def describe(left_out: Sequence[LeftOut], most: int = 5) -> str:
    """Say in a sentence which samples were left out; empty where none was."""
    if not left_out:
        return ""
    named = ", ".join(f"{one.sample} ({one.why.partition(':')[0]})" for one in left_out[:most])
    more = f" and {len(left_out) - most} more" if len(left_out) > most else ""
    count = "1 image" if len(left_out) == 1 else f"{len(left_out)} images"
    return f"{count} could not be read any more and {'is' if len(left_out) == 1 else 'are'} left out: {named}{more}."


def check_parts(data: Table, dataset: str) -> None:
    """Refuse data of which a part is missing that is needed.

    Raises
    ------
    FailedPrecondition
        ``NO_TEST_PART``, ``NO_TRAINING_PART``.
    """
    if not (data.parts == "test").any():
        raise FailedPrecondition(
            f"{dataset} has no test part, so that nothing could be said of a model's worth: import it with one", reason="NO_TEST_PART"
        )
    if not (data.parts == "train").any():
        raise FailedPrecondition(f"{dataset} has no training part: import it with one", reason="NO_TRAINING_PART")


def check_classes(data: TrainingData) -> None:
    """Refuse a dataset of which a class has lost its training images.

    Raises
    ------
    FailedPrecondition
        ``UNREADABLE_IMAGES``.
    """
    train = data.labels[data.part("train")]
    counts = train.sum(axis=0) if train.ndim == 2 else np.bincount(train, minlength=len(data.classes))
    lost = [name for name, count in zip(data.classes, counts.tolist(), strict=True) if not count]
    if lost:
        raise FailedPrecondition(
            f"no training image of {', '.join(lost)} can be read any more: import the dataset again",
            reason="UNREADABLE_IMAGES",
            field="dataset",
        )


@dataclass(frozen=True)
class ImageCache:
    """The prepared images of a search as one array in a file; picklable, opened by each task.

    A task on another machine than the one that made the file makes its own.

    Parameters
    ----------
    path
        The file, ``(N, H, W, C)``.
    store_root, store_options
        Where the dataset lies.
    dataset
        Its id.
    policy
        How images are prepared.
    max_pixels, max_bytes
        Limits of decoding.
    """

    path: str
    store_root: str
    dataset: str
    policy: InputPolicy
    store_options: Mapping[str, Any] = field(default_factory=dict)
    max_pixels: int = 100_000_000
    max_bytes: int = 512 * 1024 * 1024

    def open(self) -> NDArray[Any]:
        """Map the file into memory, read-only; make it where it is not there."""
        path = Path(self.path)
        if not path.exists():
            digest = hashlib.sha256(repr((self.path, self.dataset, self.policy)).encode()).hexdigest()[:16]
            path = Path(tempfile.gettempdir()) / f"oteo-images-{os.geteuid()}" / f"{digest}.npy"
            if not path.exists():
                store = ArtifactStore(self.store_root, **self.store_options)
                reader = DatasetReader(store, self.dataset)
                self.build(reader, self.samples(reader), path)
        images: NDArray[Any] = np.load(path, mmap_mode="r")
        return images

    def samples(self, reader: DatasetReader) -> list[Sample]:
        """Give the rows that the file has an image of, in its order."""
        return read_table(reader)[1]

    def build(
        self, reader: DatasetReader, samples: list[Sample], path: Path | None = None, check: Callable[[], None] = lambda: None
    ) -> dict[int, str]:
        """Decode and prepare all images, with a thread for each processor.

        Parameters
        ----------
        reader, samples
            The dataset and its rows.
        path
            Where to; None: `path` of this cache.
        check
            Called between chunks; may raise.

        Returns
        -------
        dict
            Why, for each row whose image is gone or cannot be decoded (it was changed after the import); it is black in the file.
        """
        target = path or Path(self.path)
        target.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        limits = ImageLimits(max_pixels=self.max_pixels, max_bytes=self.max_bytes)
        shape = (len(samples), self.policy.height, self.policy.width, self.policy.channels)
        partial = target.with_name(f"{target.name}.{os.getpid()}.part")
        images: NDArray[Any] = np.lib.format.open_memmap(partial, mode="w+", dtype=np.dtype(self.policy.dtype), shape=shape)

        unreadable: dict[int, str] = {}

        def fill(index: int) -> None:
            try:
                image = decode(reader.read_media(samples[index]), limits)
                images[index] = prepare(image.pixels, self.policy, image.header.bit_depth)
            except (InvalidArgument, NotFound, DataLoss) as error:
                unreadable[index] = f"{error.reason}: {error.message}"

        try:
            with ThreadPoolExecutor(max(2, min(16, os.cpu_count() or 2)), thread_name_prefix="decode") as pool:
                for start in range(0, len(samples), _CHUNK):
                    check()
                    list(pool.map(fill, range(start, min(start + _CHUNK, len(samples)))))
            images.flush()  # type: ignore[attr-defined]
            partial.replace(target)
        finally:
            partial.unlink(missing_ok=True)
        return dict(sorted(unreadable.items()))


@dataclass(frozen=True)
class ArrayCache:
    """Images that are in memory already, in the place of an `ImageCache`: for benchmarks and tests."""

    images: NDArray[Any]

    def open(self) -> NDArray[Any]:
        """Give them."""
        return self.images
