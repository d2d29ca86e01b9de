"""A copy of an augmented dataset made again, alone, from what its row says of how it was made."""

from __future__ import annotations

import json
from dataclasses import dataclass

from oteo_augment.augmentation.plan import AugmentationPlan
from oteo_augment.augmentation.shard import made_copy, sample_annotations
from oteo_core.artifacts import ArtifactStore
from oteo_core.augmentation import Policy
from oteo_core.datasets import DatasetReader, Sample
from oteo_core.errors import FailedPrecondition
from oteo_core.images import ImageLimits


@dataclass(frozen=True)
class Replayed:
    """What came out.

    Attributes
    ----------
    row
        The copy's row, made anew.
    content
        Its file, PNG or TIFF.
    mask
        Its mask's file, b"" where it has none.
    same
        True if files and annotations are those that the dataset holds.
    """

    row: Sample
    content: bytes
    mask: bytes
    same: bool


def replay(store: ArtifactStore, dataset: str, sample_id: str, limits: ImageLimits) -> Replayed:
    """Make a copy again.

    Parameters
    ----------
    store
        Where the augmented dataset and its source lie.
    dataset, sample_id
        The copy.
    limits
        Largest images.

    Raises
    ------
    NotFound
        DATASET_NOT_FOUND, SAMPLE_NOT_FOUND: the copy, or its source, which may have been deleted.
    FailedPrecondition
        NOT_AUGMENTED where the sample is no copy; PROVENANCE_LOST where its dataset does not say by which policy it was made.
    """
    reader = DatasetReader(store, dataset)
    kept = reader.sample(sample_id)
    if not kept.provenance:
        raise FailedPrecondition(
            f"datasets/{dataset}/samples/{sample_id} is no augmented copy: there is nothing to make again",
            reason="NOT_AUGMENTED",
            field="name",
        )
    words = json.loads(kept.provenance)
    plan = reader.info.provenance.get("augmentation", {})
    policy = Policy.from_json(plan["policy"]) if "policy" in plan else None
    if policy is None or policy.digest != words["policy_digest"]:
        raise FailedPrecondition(
            f"datasets/{dataset} does not hold the policy {words['policy_digest'][:12]} that this copy was made by",
            reason="PROVENANCE_LOST",
            field="name",
        )
    source = DatasetReader(store, words["dataset"])
    original = source.sample(words["sample"])
    pixels = source.image(original, limits).pixels
    made = made_copy(
        AugmentationPlan(policy, seed=int(words["seed"])),
        source.info,
        original,
        pixels,
        sample_annotations(source, original, limits),
        int(words["copy"]),
    )
    row = made.row
    same = (row.sha256, row.mask_path, row.labels, row.boxes, row.polygons, row.rle, row.oriented_boxes, row.keypoints) == (
        kept.sha256, kept.mask_path, kept.labels, kept.boxes, kept.polygons, kept.rle, kept.oriented_boxes, kept.keypoints,
    )  # fmt: skip
    return Replayed(row, made.files[row.path], made.files.get(row.mask_path, b""), same)
