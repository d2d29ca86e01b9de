"""One piece of an augmentation: some samples in, their files and rows out. It runs in a worker."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from oteo_augment.augmentation.encoding import encode_lossless
from oteo_augment.augmentation.plan import AugmentationPlan
from oteo_core.artifacts import ArtifactStore
from oteo_core.augmentation import AugmentationKey, augment_image
from oteo_core.datasets import DatasetReader, Finding, Sample, Severity, media_path
from oteo_core.datasets.columns import from_batch, to_batch
from oteo_core.errors import InvalidArgument
from oteo_core.images import ImageLimits, perceptual_hash, pixel_digest

_NOTES = b"oteo"
_DRAWS = 8
_FAR = 1 << 20
"""Beyond the number of any copy."""


@dataclass(frozen=True)
class ShardJob:
    """What a worker needs to know, the samples aside.

    Attributes
    ----------
    store_uri, store_options
        The artifact store.
    dataset
        Id of the source.
    target
        Prefix to write media below.
    plan
        What to make.
    limits
        Largest images.
    """

    store_uri: str
    store_options: dict[str, Any]
    dataset: str
    target: str
    plan: AugmentationPlan
    limits: ImageLimits


@dataclass(frozen=True)
class ShardResult:
    """What came of a shard.

    Attributes
    ----------
    samples
        Rows for the new dataset, in the order of the source, each copy behind its original.
    media
        Files written and their sizes, bytes.
    copies
        Copies made.
    dropped
        Annotations of places inside images, which copies do not carry.
    """

    samples: tuple[Sample, ...]
    media: dict[str, int]
    copies: int
    dropped: int

    def to_bytes(self) -> bytes:
        """Give the result as an Arrow stream, for a checkpoint."""
        notes = json.dumps({"media": self.media, "copies": self.copies, "dropped": self.dropped}).encode()
        batch = to_batch(list(self.samples)).replace_schema_metadata({_NOTES: notes})
        sink = pa.BufferOutputStream()
        with pa.ipc.new_stream(sink, batch.schema) as writer:
            writer.write_batch(batch)
        data: bytes = sink.getvalue().to_pybytes()
        return data

    @classmethod
    def from_bytes(cls, data: bytes) -> ShardResult:
        """Read what `to_bytes` gave."""
        with pa.ipc.open_stream(data) as reader:
            notes = json.loads(reader.schema.metadata[_NOTES])
            samples = tuple(sample for batch in reader for sample in from_batch(batch))
        return cls(samples, {str(k): int(v) for k, v in notes["media"].items()}, int(notes["copies"]), int(notes["dropped"]))


def augment_shard(job: ShardJob, samples: Sequence[Sample]) -> bytes:
    """Copy samples to the new dataset and make their augmented copies.

    What is made depends on the plan and each sample's content, not on the shard: any sharding gives the same files and rows.

    Returns
    -------
    bytes
        A `ShardResult`.

    Raises
    ------
    DataLoss
        MEDIA_LOST where a file of the source is gone.
    InvalidArgument
        BAD_PARAMETER where a transform refuses its parameters.
    """
    store = ArtifactStore(job.store_uri, **job.store_options)
    reader = DatasetReader(store, job.dataset)
    rows: list[Sample] = []
    media: dict[str, int] = {}
    made = dropped = 0

    def write(path: str, data: bytes) -> None:
        if path not in media:
            store.write_bytes(f"{job.target}/{path}", data)
            media[path] = len(data)

    for sample in samples:
        data = reader.read_media(sample) if sample.path else b""
        copies, findings = _copies(job, reader, sample)
        for copy, _, _ in copies:
            dropped += len(sample.class_names()) - len(copy.class_names())
        # An original that could not be augmented stays even where originals are dropped: nothing vanishes.
        if not (job.plan.drop_originals and copies):
            if sample.path:
                write(sample.path, data)
            if sample.mask_path:
                write(sample.mask_path, reader.read_mask(sample))
            rows.append(replace(sample, findings=(*sample.findings, *findings)))
        for copy, path, encoded in copies:
            write(path, encoded)
            rows.append(copy)
            made += 1
    return ShardResult(tuple(rows), media, made, dropped).to_bytes()


def _copies(job: ShardJob, reader: DatasetReader, sample: Sample) -> tuple[list[tuple[Sample, str, bytes]], tuple[Finding, ...]]:
    """Make a sample's copies: rows, paths and files; or say why there are none."""
    count = job.plan.copies_of(sample)
    if not count:
        return [], ()
    if sample.media_kind != "image" or sample.frames > 1:
        return [], (_refused("MEDIA_NOT_SUPPORTED", f"a {sample.media_kind} of {sample.frames} frames: only still images are augmented"),)
    try:
        pixels = reader.image(sample, job.limits).pixels
        return [_copy(job.plan, sample, pixels, number) for number in range(count)], ()
    except InvalidArgument as error:
        if error.reason == "BAD_PARAMETER":
            raise
        return [], (_refused(error.reason, error.message),)


def _copy(plan: AugmentationPlan, sample: Sample, pixels: NDArray[Any], number: int) -> tuple[Sample, str, bytes]:
    changed = _changed(plan, sample, pixels, number)
    ending, encoded = encode_lossless(changed)
    digest = hashlib.sha256(encoded).hexdigest()
    path = media_path(digest, f"copy{ending}")
    row = Sample(
        id=plan.copy_id(sample, number),
        path=path,
        source_path=sample.source_path,
        sha256=digest,
        pixel_digest=pixel_digest(changed),
        phash=perceptual_hash(changed),
        width=changed.shape[1],
        height=changed.shape[0],
        channels=changed.shape[2],
        dtype=changed.dtype.name,
        split=sample.split,
        # Copies of one sample belong together as those of one patient do.
        group=sample.group or sample.id,
        labels=sample.labels,
        derived_from=sample.id,
    )
    return row, path, encoded


def _changed(plan: AugmentationPlan, sample: Sample, pixels: NDArray[Any], number: int) -> NDArray[Any]:
    """Draw a copy; draw anew where no step was taken, for a duplicate would be no gain. A policy may never change anything, so not for ever."""
    for attempt in range(_DRAWS):
        key = AugmentationKey(sample.pixel_digest or sample.sha256, number + attempt * _FAR, plan.seed)
        changed = augment_image(pixels, plan.policy, key)
        if changed.shape != pixels.shape or not np.array_equal(changed, pixels):
            break
    return changed


def _refused(reason: str, message: str) -> Finding:
    return Finding(Severity.WARNING, reason, f"not augmented, the original is kept: {message}")
