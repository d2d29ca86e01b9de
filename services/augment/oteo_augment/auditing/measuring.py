"""Measures of every image, a shard at a time: the part of an audit that decodes. It runs in workers; its answer is small beside the images."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import cv2
import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from oteo_augment.auditing.features import describe
from oteo_augment.tables import pack, unpack
from oteo_core.artifacts import ArtifactStore
from oteo_core.datasets import DatasetReader, Sample
from oteo_core.deidentification.text_in_pictures import find_text
from oteo_core.errors import OteoError
from oteo_core.images import ImageLimits, decode, decode_labels, perceptual_hash, pixel_digest
from oteo_core.images.grey import grey_of

_FULL = {"uint8": 255.0, "uint16": 65535.0}
_DEPTHS = (1023.0, 4095.0, 16383.0, 65535.0)
"""Largest values of 10, 12, 14 and 16 bit cameras, which files all store in 16 bits."""


@dataclass(frozen=True)
class MeasureJob:
    """What a worker needs to know, the samples aside: the store, the dataset, limits, and which costly measures are wanted."""

    store_uri: str
    store_options: dict[str, Any]
    dataset: str
    limits: ImageLimits
    features: bool
    writing: bool


@dataclass(slots=True)
class Measured:
    """Measures of one image.

    Parameters
    ----------
    id
        Of its sample.
    code, message
        What is wrong with the file; "" if it could be read, and nothing else is filled in where it could not.
    mask_code, mask_message
        The same for its mask.
    width, height, channels, dtype
        Of the decoded image.
    pixel_digest, phash
        As in `oteo_core.images`.
    low, high, mean, std
        Of each channel, in the image's own numbers.
    at_top, at_bottom
        Share of pixels at the largest and smallest number that the type can hold, grey value, 0 to 1; 0 for float.
    dark, bright
        0.5 % and 99.5 % quantile of the grey value, as a share of the type's range (float: the values themselves).
    not_finite
        Pixels that are NaN or infinite in some channel; they count as 0 in the other measures.
    grey_as_colour
        True where an image of three or more channels has the same numbers in the first three.
    letters
        Marks that look like letters in lines.
    writing
        Where lines of them are: left, upper, right, lower edge of each, one after another, pixels.
    mask_values, mask_counts
        Numbers in the mask, ascending, and their pixels.
    features
        float16 numbers of `oteo_augment.auditing.features`, as bytes; empty where they were not asked for.
    """

    id: str
    code: str = ""
    message: str = ""
    mask_code: str = ""
    mask_message: str = ""
    width: int = 0
    height: int = 0
    channels: int = 0
    dtype: str = ""
    pixel_digest: str = ""
    phash: int | None = None
    low: list[float] = field(default_factory=list)
    high: list[float] = field(default_factory=list)
    mean: list[float] = field(default_factory=list)
    std: list[float] = field(default_factory=list)
    at_top: float = 0.0
    at_bottom: float = 0.0
    dark: float = 0.0
    bright: float = 0.0
    not_finite: int = 0
    grey_as_colour: bool = False
    letters: int = 0
    writing: list[float] = field(default_factory=list)
    mask_values: list[int] = field(default_factory=list)
    mask_counts: list[int] = field(default_factory=list)
    features: bytes = b""

    @property
    def readable(self) -> bool:
        """Whether the image was decoded."""
        return not self.code and self.width > 0

    @property
    def full(self) -> float:
        """The type's largest number; 1 for float."""
        return _FULL.get(self.dtype, 1.0)


_NUMBERS = pa.list_(pa.float64())
_SCHEMA = pa.schema(
    [
        *((name, pa.string()) for name in ("id", "code", "message", "mask_code", "mask_message")),
        *((name, pa.int32()) for name in ("width", "height", "channels")),
        ("dtype", pa.string()),
        ("pixel_digest", pa.string()),
        ("phash", pa.uint64()),
        *((name, _NUMBERS) for name in ("low", "high", "mean", "std")),
        *((name, pa.float64()) for name in ("at_top", "at_bottom", "dark", "bright")),
        ("not_finite", pa.int64()),
        ("grey_as_colour", pa.bool_()),
        ("letters", pa.int32()),
        ("writing", _NUMBERS),
        ("mask_values", pa.list_(pa.int64())),
        ("mask_counts", pa.list_(pa.int64())),
        ("features", pa.binary()),
    ]
)


def measure_shard(job: MeasureJob, samples: Sequence[Sample], check: Callable[[], None] | None = None) -> bytes:
    """Measure samples; give `Measured` rows, in their order, as an Arrow stream. What is wrong with a file is in its row."""
    cv2.setNumThreads(1)
    reader = DatasetReader(ArtifactStore(job.store_uri, **job.store_options), job.dataset)
    rows = []
    for sample in samples:
        if check is not None:
            check()
        rows.append(_measure(job, reader, sample))
    return pack(rows, _SCHEMA)


def from_bytes(data: bytes) -> Iterator[Measured]:
    """Unpack what `measure_shard` gave."""
    for fields in unpack(data, _SCHEMA):
        yield Measured(**fields)


def _measure(job: MeasureJob, reader: DatasetReader, sample: Sample) -> Measured:
    row = Measured(sample.id)
    if not sample.is_picture:
        return row
    try:
        data = reader.read_media(sample)
        if sample.sha256 and hashlib.sha256(data).hexdigest() != sample.sha256:
            row.code, row.message = "CONTENT_CHANGED", "the stored file is not the one that was imported: its SHA-256 differs"
            return row
        _look(job, sample, decode(data, job.limits).pixels, row)
    except OteoError as exc:
        row.code, row.message = exc.reason, exc.message
    if sample.mask_path:
        _look_at_mask(job, reader, sample, row)
    return row


def _look(job: MeasureJob, sample: Sample, pixels: NDArray[Any], row: Measured) -> None:
    row.height, row.width, row.channels = pixels.shape
    row.dtype = pixels.dtype.name
    row.pixel_digest = sample.pixel_digest or pixel_digest(pixels)
    row.phash = sample.phash if sample.phash is not None else perceptual_hash(pixels)
    flat = pixels.reshape(-1, row.channels)
    if pixels.dtype.kind == "f":
        finite = np.isfinite(flat)
        if not finite.all():
            row.not_finite = int(np.count_nonzero(~finite.all(axis=1)))
            pixels = np.where(np.isfinite(pixels), pixels, 0)
            flat = pixels.reshape(-1, row.channels)
    row.low, row.high = [float(v) for v in flat.min(axis=0)], [float(v) for v in flat.max(axis=0)]
    if row.channels <= 4:
        mean, std = (np.ravel(v) for v in cv2.meanStdDev(pixels))
    else:
        mean, std = flat.mean(axis=0, dtype=np.float64), flat.std(axis=0, dtype=np.float64)
    row.mean, row.std = [float(v) for v in mean], [float(v) for v in std]
    grey = grey_of(pixels)
    _range(grey, row)
    row.grey_as_colour = row.channels >= 3 and bool(
        np.array_equal(pixels[:, :, 0], pixels[:, :, 1]) and np.array_equal(pixels[:, :, 0], pixels[:, :, 2])
    )
    if job.writing:
        lines = find_text(pixels)
        row.letters = sum(line.letters for line in lines)
        places = [line.place for line in lines]
        row.writing = [float(edge) for one in places for edge in (one.x, one.y, one.x + one.width, one.y + one.height)]
    if job.features:
        row.features = describe(_eight_bits_colour(pixels, row)).astype(np.float16).tobytes()


def _range(grey: NDArray[Any], row: Measured) -> None:
    """Measure how the grey values fill their range."""
    if grey.dtype == np.uint8:
        counts = np.bincount(grey.ravel(), minlength=256)
        total = np.cumsum(counts)
        row.dark, row.bright = (float(np.searchsorted(total, share * total[-1])) / 255 for share in (0.005, 0.995))
        row.at_top, row.at_bottom = float(counts[255]) / grey.size, float(counts[0]) / grey.size
        return
    sparse = grey.ravel()[:: max(1, grey.size // 65536)]
    low, high = (float(v) for v in np.quantile(sparse, (0.005, 0.995)))
    full = _FULL.get(grey.dtype.name, 1.0)
    row.dark, row.bright = low / full, high / full
    if grey.dtype == np.uint16 and row.channels:
        top = float(grey.max())
        if top in _DEPTHS:
            row.at_top = float(np.count_nonzero(grey == top)) / grey.size
        row.at_bottom = float(np.count_nonzero(grey == 0)) / grey.size


def _eight_bits(grey: NDArray[Any], row: Measured) -> NDArray[np.uint8]:
    if grey.dtype == np.uint8:
        return grey
    low, high = row.dark * row.full, row.bright * row.full
    scaled: NDArray[np.uint8] = np.clip((grey.astype(np.float32) - low) / max(high - low, 1e-9) * 255, 0, 255).astype(np.uint8)
    return scaled


def _eight_bits_colour(pixels: NDArray[Any], row: Measured) -> NDArray[np.uint8]:
    image = pixels[:, :, :3] if row.channels >= 3 else np.repeat(pixels[:, :, :1], 3, axis=2)
    return np.ascontiguousarray(_eight_bits(image, row))


def _look_at_mask(job: MeasureJob, reader: DatasetReader, sample: Sample, row: Measured) -> None:
    try:
        mask: Any = decode_labels(reader.read_mask(sample), job.limits)
    except OteoError as exc:
        row.mask_code, row.mask_message = exc.reason, exc.message
        return
    if mask.ndim == 3:
        mask = mask[:, :, 0]
    if row.width and mask.shape != (row.height, row.width):
        row.mask_code = "MASK_SIZE_MISMATCH"
        row.mask_message = f"the mask has {mask.shape[1]} x {mask.shape[0]} pixels, the image {row.width} x {row.height}"
        return
    values, counts = np.unique(mask, return_counts=True)
    row.mask_values, row.mask_counts = [int(v) for v in values], [int(c) for c in counts]
