"""From datasets to domains: images prepared alike, mapped into memory, with what is true of them where it is annotated."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable, Collection, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
from numpy.typing import NDArray

from oteo_core.datasets import DatasetReader, Sample
from oteo_core.errors import FailedPrecondition, InvalidArgument, OteoError
from oteo_core.evaluation.bootstrap import generator
from oteo_core.images import ImageLimits, InputPolicy, decode, prepare
from oteo_core.packages import ModelPackage
from oteo_core.truths.reading import prepared_truth
from oteo_translate.domains import Domain

MOST_IMAGES = 400
"""Images of a domain that are read where nobody says otherwise."""

LEAST_IMAGES = 8
"""Images without which nothing can be said."""

ENOUGH_HELD_OUT = 32
"""Images that a model has not learned from, from which on home is measured on those alone."""

_CHUNK = 32
_LARGEST_SIDE, _SMALLEST_SIDE = 256, 32
_FILE = "images-{}.npy"
_LISTED = 5


@dataclass(frozen=True, slots=True)
class Unread:
    """An image, or a truth, that could not be used: the sample, its path in the source, and why."""

    sample: str
    path: str
    reason: str
    message: str

    def to_dict(self) -> dict[str, str]:
        """Give JSON values."""
        return {"sample": self.sample, "path": self.path, "reason": self.reason, "message": self.message}


@dataclass(frozen=True, slots=True)
class Reading:
    """A domain as it was read.

    Parameters
    ----------
    domain
        Images, ids, groups, truths.
    samples
        The row of each image.
    unread
        Drawn images that were left out.
    available
        Images of the dataset that could have been drawn.
    """

    domain: Domain
    samples: tuple[Sample, ...]
    unread: tuple[Unread, ...]
    available: int


def usable(reader: DatasetReader, parts: Collection[str] | None = None, without: Collection[str] = frozenset()) -> list[Sample]:
    """Give the samples that stand for a dataset's domain, in its order.

    Augmented copies are not of the domain, and files of several frames have no one image; both are left out.

    Parameters
    ----------
    reader
        The dataset.
    parts
        Only these; None: all.
    without
        Keys of `keys_of`: samples with any of them are left out.
    """
    return [
        sample
        for sample in reader.samples()
        if sample.is_picture and not sample.derived_from and (parts is None or sample.split in parts) and not keys_of(sample) & set(without)
    ]


def keys_of(sample: Sample) -> set[str]:
    """Give what tells that two samples are the same image: the digest of the pixels, and that of the file, which also names it in the dataset."""
    stem = PurePosixPath(sample.path).stem
    return {key for key in (sample.pixel_digest, sample.sha256 if len(sample.sha256) == 64 else "", stem if len(stem) >= 32 else "") if key}


def shared_keys(home: DatasetReader, shifted: DatasetReader) -> frozenset[str]:
    """Give the keys of images that both datasets hold, excluded samples and other parts included."""
    ours = {key for sample in home.samples() for key in keys_of(sample)}
    return frozenset(key for sample in shifted.samples() for key in keys_of(sample) if key in ours)


def count_shared(reader: DatasetReader, shared: Collection[str]) -> int:
    """Count a dataset's usable images among shared ones."""
    return sum(bool(keys_of(sample) & set(shared)) for sample in usable(reader))


def home_samples(home: DatasetReader, package: ModelPackage | None) -> tuple[list[Sample], list[str]]:
    """Give home's images: of a model those that it has not learned from, as it is surer of the others than it will be of any new image."""
    everything = usable(home)
    if package is None:
        return everything, []
    held_out = [sample for sample in everything if sample.split in ("validation", "test")]
    if len(held_out) >= ENOUGH_HELD_OUT or len(held_out) == len(everything):
        return held_out, []
    return everything, [
        f"datasets/{home.info.id} has only {len(held_out)} images that {package.name} has not learned from; its training images were compared too, "
        "of which a model is surer than of new ones: its outputs may differ without a shift."
    ]


def policy_of(home: DatasetReader, shifted: DatasetReader) -> InputPolicy:
    """Choose how images of two datasets are prepared where no model says.

    The smaller of the two medians of width and of height, 32 to 256 pixels, so that neither is enlarged more than it must be: detail is compared too. Grey
    and colour go together in colour.

    Raises
    ------
    InvalidArgument
        ``CHANNELS_MISMATCH``: images of more than four channels, and not all of the same number.
    FailedPrecondition
        ``EMPTY_DATASET``.
    """
    sets = [(reader, usable(reader)) for reader in (home, shifted)]
    for reader, samples in sets:
        if not samples:
            raise empty(reader)
    kinds = {reader.info.id: Counter(sample.channels for sample in samples if sample.channels) for reader, samples in sets}
    seen = {channels for kind in kinds.values() for channels in kind}
    if seen and max(seen) > 4 and len(seen) > 1:
        told = "; ".join(f"datasets/{name}: {', '.join(str(one) for one in sorted(kind))}" for name, kind in kinds.items())
        raise InvalidArgument(f"the images have different numbers of channels ({told}) and cannot be compared", reason="CHANNELS_MISMATCH")
    channels = max(seen) if seen and max(seen) > 4 else 3 if seen & {3, 4} else 1
    sides = [
        [int(np.median([getattr(sample, side) or _SMALLEST_SIDE for sample in samples])) for side in ("width", "height")]
        for _, samples in sets
    ]
    width, height = (int(np.clip(min(pair), _SMALLEST_SIDE, _LARGEST_SIDE)) for pair in zip(*sides, strict=True))
    types = {sample.dtype for _, samples in sets for sample in samples}
    deep = max((reader.info.bit_depth or 16 for reader, samples in sets if any(one.dtype == "uint16" for one in samples)), default=0)
    return InputPolicy(width, height, channels, "float32" if types - {"uint8", ""} else "uint8", bit_depth=min(deep, 16))


def empty(reader: DatasetReader) -> FailedPrecondition:
    """Make the refusal of a dataset without images."""
    return FailedPrecondition(
        f"datasets/{reader.info.id} has no image that could be compared: import one with images", reason="EMPTY_DATASET", field="dataset"
    )


def read_domain(
    reader: DatasetReader,
    policy: InputPolicy,
    folder: Path,
    *,
    samples: Sequence[Sample] | None = None,
    task: str = "",
    classes: Sequence[str] = (),
    most: int = MOST_IMAGES,
    least: int = LEAST_IMAGES,
    seed: int = 0,
    limits: ImageLimits | None = None,
    check: Callable[[], None] = lambda: None,
    progress: Callable[[float], None] = lambda share: None,
) -> Reading:
    """Read a domain.

    Parameters
    ----------
    reader
        The dataset.
    policy
        How images are prepared: a model's, or `policy_of`.
    folder
        Where the prepared images are kept, one file a dataset and size; mapped into memory.
    samples
        Of `usable`; None: all.
    task, classes
        The model's: truths are read in its class numbers. Empty: none are read.
    most
        Images that are drawn where there are more.
    least
        Images that must be left.
    seed
        Of that draw.
    limits
        Of decoding.
    check, progress
        Asked between chunks; told the share that is done.

    Raises
    ------
    FailedPrecondition
        ``EMPTY_DATASET``.
    InvalidArgument
        ``TOO_FEW_IMAGES``, saying how many there are, how many could not be read, and how many are needed.
    """
    available = list(usable(reader) if samples is None else samples)
    if not available:
        raise empty(reader)
    drawn = _draw(available, most, seed, reader.info.id)
    folder.mkdir(parents=True, exist_ok=True)
    shape = (len(drawn), policy.height, policy.width, policy.channels)
    path = folder / _FILE.format(reader.info.id)
    images: NDArray[Any] = np.lib.format.open_memmap(path, mode="w+", dtype=np.dtype(policy.dtype), shape=shape)
    kept: list[Sample] = []
    truths: list[Any] = []
    unread: list[Unread] = []
    with ThreadPoolExecutor(max(1, min(8, os.cpu_count() or 1)), thread_name_prefix="decode") as pool:
        for start in range(0, len(drawn), _CHUNK):
            check()
            chunk = drawn[start : start + _CHUNK]
            work = pool.map(lambda sample: _one(reader, sample, policy, task, classes, limits or ImageLimits()), chunk)
            for sample, (pixels, truth, remarks) in zip(chunk, work, strict=True):
                unread += remarks
                if pixels is not None:
                    images[len(kept)] = pixels
                    kept.append(sample)
                    truths.append(truth)
            progress(min(1.0, (start + len(chunk)) / len(drawn)))
    if len(kept) < least:
        lost = f", and {len(drawn) - len(kept)} of them cannot be read ({_named(unread)})" if len(kept) < len(drawn) else ""
        raise InvalidArgument(
            f"datasets/{reader.info.id} has {len(drawn)} images{lost}; {least} are needed",
            reason="TOO_FEW_IMAGES",
            field="dataset",
        )
    domain = Domain(
        f"datasets/{reader.info.id}",
        images[: len(kept)],
        [sample.id for sample in kept],
        [sample.group or sample.id for sample in kept],
        truths if any(truth is not None for truth in truths) else (),
    )
    return Reading(domain, tuple(kept), tuple(unread), len(available))


def _named(unread: Sequence[Unread]) -> str:
    named = ", ".join(f"{one.sample}: {one.reason}" for one in unread[:_LISTED])
    return named + (f" and {len(unread) - _LISTED} more" if len(unread) > _LISTED else "")


def _draw(samples: Sequence[Sample], most: int, seed: int, name: str) -> list[Sample]:
    if len(samples) <= most:
        return list(samples)
    chosen = np.sort(generator(seed, "reading", name).choice(len(samples), most, replace=False))
    return [samples[int(row)] for row in chosen]


def _one(
    reader: DatasetReader, sample: Sample, policy: InputPolicy, task: str, classes: Sequence[str], limits: ImageLimits
) -> tuple[NDArray[Any] | None, Any, list[Unread]]:
    """Read an image and its truth; what cannot be read is said, and a truth that cannot be read leaves the image."""

    def remark(reason: str, message: str) -> Unread:
        return Unread(sample.id, sample.source_path, reason, message)

    try:
        image = decode(reader.read_media(sample), limits)
        if image.pixels.dtype.kind == "f" and not np.isfinite(image.pixels).all():
            share = float(1.0 - np.isfinite(image.pixels).mean())
            return None, None, [remark("NOT_FINITE", f"{share:.1%} of its values are not numbers (NaN or infinite)")]
        pixels = prepare(image.pixels, policy, image.header.bit_depth)
    except OteoError as error:
        return None, None, [remark(error.reason, error.message)]
    if not task:
        return pixels, None, []
    try:
        return pixels, prepared_truth(reader, sample, task, classes, policy), []
    except (OteoError, ValueError) as error:
        return pixels, None, [remark(getattr(error, "reason", "BAD_ANNOTATION"), f"its annotation cannot be read: {error}")]


def rows_in_chunks(count: int, size: int = _CHUNK) -> Iterator[slice]:
    """Cut rows 0 to `count` into slices."""
    for start in range(0, count, size):
        yield slice(start, min(count, start + size))
