"""One piece of an augmentation: some samples in, their files and rows out. It runs in a worker."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from oteo_augment.augmentation.plan import AugmentationPlan
from oteo_core.artifacts import ArtifactStore
from oteo_core.augmentation import REDRAW, Annotations, AugmentationKey, Augmented, Border, Policy, augment, find_transform
from oteo_core.augmentation.swapping import both_ways, swapped_labels, swapped_numbers
from oteo_core.datasets import DatasetInfo, DatasetReader, Finding, Sample, Severity, Task
from oteo_core.datasets.media_files import media_file
from oteo_core.datasets.sharding import ShardResult
from oteo_core.datasets.staging import Target
from oteo_core.errors import InvalidArgument
from oteo_core.images import ImageLimits, perceptual_hash, pixel_digest

_DRAWS = 8


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

    target = Target(store, job.target)

    def write(path: str, data: bytes) -> None:
        if path not in media:
            target.write(path, data)
            media[path] = len(data)

    for sample in samples:
        data = reader.read_media(sample) if sample.path else b""
        copies, findings = _copies(job, reader, sample)
        # An original that could not be augmented stays even where originals are dropped: nothing vanishes.
        if not (job.plan.drop_originals and copies):
            if sample.path:
                write(sample.path, data)
            if sample.mask_path:
                write(sample.mask_path, reader.read_mask(sample))
            rows.append(replace(sample, findings=(*sample.findings, *findings)))
        for copy in copies:
            for path, encoded in copy.files.items():
                write(path, encoded)
            rows.append(copy.row)
            made += 1
            dropped += copy.lost
    return ShardResult(tuple(rows), media, {"copies": made, "dropped": dropped}).to_bytes()


@dataclass(frozen=True, slots=True)
class Copy:
    """A copy: its row, its files by path, and the number of objects that it lost."""

    row: Sample
    files: dict[str, bytes]
    lost: int


def _copies(job: ShardJob, reader: DatasetReader, sample: Sample) -> tuple[list[Copy], tuple[Finding, ...]]:
    """Make a sample's copies, or say why there are none."""
    count = job.plan.copies_of(sample)
    if not count:
        return [], ()
    if not sample.is_picture:
        why = f"a {sample.media_kind} of {sample.frames} frames in one file; import it again, which makes a sample of each"
        return [], (_refused("MEDIA_NOT_SUPPORTED", why),)
    try:
        pixels = reader.image(sample, job.limits).pixels
        annotations = sample_annotations(reader, sample, job.limits)
        return [made_copy(job.plan, reader.info, sample, pixels, annotations, number) for number in range(count)], ()
    except InvalidArgument as error:
        if error.reason == "BAD_PARAMETER":
            raise
        return [], (_refused(error.reason, error.message),)


def sample_annotations(reader: DatasetReader, sample: Sample, limits: ImageLimits) -> Annotations:
    """Give where a sample's objects are, its mask read."""
    encoding = reader.info.mask
    return Annotations(
        sample.boxes,
        sample.polygons,
        sample.rle,
        reader.mask(sample, limits) if sample.mask_path else None,
        encoding is not None and encoding.kind == "instance",
        frozenset(encoding.ignore) if encoding is not None else frozenset(),
        sample.oriented_boxes,
        sample.keypoints,
    )


def made_copy(
    plan: AugmentationPlan, info: DatasetInfo, sample: Sample, pixels: NDArray[Any], annotations: Annotations, number: int
) -> Copy:
    """Make one copy of a sample: what it is, and the files that hold it."""
    changed = augmented_copy(plan.policy, plan.seed, info, sample, pixels, annotations, number)
    path, encoded, digest = media_file(changed.pixels)
    files = {path: encoded}
    mask = changed.annotations.mask
    labels, mask_path = sample.labels, ""
    if changed.mirrored and plan.policy.mirror_swaps:
        swaps = both_ways(plan.policy.mirror_swaps)
        labels = swapped_labels(labels, swaps)
        if mask is not None and info.mask is not None and info.mask.kind == "class":
            mask = swapped_numbers(mask, info.classes, info.mask.values, swaps)
    if mask is not None:
        if mask.dtype not in (np.uint8, np.uint16):
            mask = mask.astype(np.min_scalar_type(int(mask.max(initial=0))))
        mask_path, mask_encoded, _ = media_file(mask[:, :, None])
        files[mask_path] = mask_encoded
        if info.mask is not None and info.mask.kind == "class":
            # A sample's labels are the classes that its mask holds.
            # Counted, which is several times as fast as np.unique here.
            present = set(np.flatnonzero(np.bincount(mask.ravel())).tolist())
            labels = tuple(name for name, value in zip(info.classes, info.mask.values, strict=True) if value in present)
    row = Sample(
        id=plan.copy_id(sample, number),
        path=path,
        source_path=sample.source_path,
        sha256=digest,
        pixel_digest=pixel_digest(changed.pixels),
        phash=perceptual_hash(changed.pixels),
        width=changed.pixels.shape[1],
        height=changed.pixels.shape[0],
        channels=changed.pixels.shape[2],
        dtype=changed.pixels.dtype.name,
        bit_depth=sample.bit_depth,
        split=sample.split,
        # Copies of one sample belong together as those of one patient do.
        group=sample.group or sample.sequence or sample.id,
        media_kind=sample.media_kind,
        sequence=plan.copy_name(sample.sequence, number) if sample.sequence else "",
        frame=sample.frame,
        frames=sample.frames,
        spacing=sample.spacing if _keeps_scale(plan.policy, changed) else (),
        labels=labels,
        boxes=changed.annotations.boxes,
        polygons=changed.annotations.polygons,
        rle=changed.annotations.rle,
        oriented_boxes=changed.annotations.oriented_boxes,
        keypoints=changed.annotations.keypoints,
        mask_path=mask_path,
        derived_from=sample.id,
        provenance=_provenance(plan, info, sample, number, changed),
    )
    return Copy(row, files, changed.lost.total())


def _keeps_scale(policy: Policy, changed: Augmented) -> bool:
    """Tell whether a pixel is still as large as it was: no step moved any but by whole pixels."""
    return all(not find_transform(policy.steps[step].transform).geometric for step in changed.steps)


def _provenance(plan: AugmentationPlan, info: DatasetInfo, sample: Sample, number: int, changed: Augmented) -> str:
    """Give what the copy is made from again, and what was drawn, for who wants to know; the policy itself is in `dataset.json`."""
    words = {
        "dataset": info.id,
        "sample": sample.id,
        "pixel_digest": sample.pixel_digest,
        "policy_digest": plan.policy.digest,
        # As text: a message's numbers are floating-point, and lose the last bits of a large seed.
        "seed": str(plan.seed),
        "copy": number,
        "mirrored": changed.mirrored,
        "dropped": dict(sorted(changed.lost.items())),
        "dropped_points": dict(sorted(changed.points_lost.items())),
        "steps": changed.drawn,
    }
    return json.dumps(words, sort_keys=True)


def augmented_copy(
    policy: Policy, seed: int, info: DatasetInfo, sample: Sample, pixels: NDArray[Any], annotations: Annotations, number: int
) -> Augmented:
    """Draw one copy of a sample, the same whoever asks.

    It is drawn anew where no step was taken, for a duplicate would be no gain; a policy may never change anything, so not for ever. The slices of
    a stack, and the frames of a clip, are all drawn by their sequence's name: they get the same parameters.
    """
    # All images of a dataset get the same border, or an image without objects would be told by it.
    border = Border.CONSTANT if info.task in (Task.DETECTION, Task.INSTANCE, Task.KEYPOINTS) else Border.REFLECT
    for attempt in range(_DRAWS):
        key = AugmentationKey(sample.sequence or sample.pixel_digest or sample.sha256, number + attempt * REDRAW, seed)
        changed = augment(pixels, policy, key, annotations, border=border, bit_depth=info.bit_depth)
        if sample.sequence:
            # One frame may be blank and stay what it is; all have to be drawn as often.
            if changed.steps:
                break
        elif changed.pixels.shape != pixels.shape or not np.array_equal(changed.pixels, pixels):
            break
    return changed


def _refused(reason: str, message: str) -> Finding:
    return Finding(Severity.WARNING, reason, f"not augmented, the original is kept: {message}")
