"""A copy is made again from its row alone: the same bytes, or it is said that they are not."""

from __future__ import annotations

import hashlib
import json
from dataclasses import replace

import numpy as np
import pytest
from augment_runs import add_image, run

from oteo_augment.augmentation import AugmentationPlan
from oteo_augment.augmentation.replay import replay
from oteo_core.artifacts import ArtifactStore
from oteo_core.augmentation import Policy, Step, default_policy
from oteo_core.datasets import Box, DatasetInfo, DatasetReader, DatasetWriter, MaskEncoding
from oteo_core.errors import FailedPrecondition, NotFound
from oteo_core.images import ImageLimits, encode_png
from oteo_core.sampledata import draw_cell

LIMITS = ImageLimits()
LUNGS = Policy((Step("HorizontalFlip", probability=0.5), Step("RandomGamma")), laterality=True, mirror_swaps={"left": "right"})


@pytest.fixture
def store(tmp_path) -> ArtifactStore:
    """A store with `lungs`: two halves as masks of two classes; and `sites`: one box each."""
    store = ArtifactStore(f"file://{tmp_path}/store")
    info = DatasetInfo("lungs", task="semantic_segmentation", classes=("left", "right"), mask=MaskEncoding("class", (3, 7)))
    with DatasetWriter(store, "datasets/lungs", info) as writer:
        for index in range(4):
            mask = np.zeros((48, 48, 1), np.uint8)
            mask[8:40, 4:20], mask[10:30, 26 : 40 + index] = 3, 7
            path = writer.add_media(f"mask-{index}.png", encode_png(mask))
            add_image(writer, f"chest-{index}", draw_cell(index, size=48)[0], split="train", labels=("left", "right"), mask_path=path)
        writer.finish()
    with DatasetWriter(store, "datasets/sites", DatasetInfo("sites", task="detection", classes=("left", "right"))) as writer:
        for index in range(4):
            box = Box(("left", "right")[index % 2], 8, 8, 30, 24)
            add_image(writer, f"site-{index}", draw_cell(index, size=48)[0], split="train", boxes=(box,))
        writer.finish()
    return store


@pytest.mark.parametrize(
    ("source", "policy"), [("lungs", LUNGS), ("sites", LUNGS), ("sites", default_policy("detection")), ("lungs", None)]
)
def test_every_copy_comes_out_the_same(store, source, policy):
    plan = AugmentationPlan(policy or default_policy("semantic_segmentation"), copies=3, seed=2**63 - 1)
    _, new = run(store, plan, "more", source=source)
    copies = [sample for sample in new.samples() if sample.derived_from]
    assert len(copies) == 12
    for sample in copies:
        made = replay(store, "more", sample.id, LIMITS)
        assert made.same
        assert made.row == sample
        assert made.content == new.read_media(sample)
        assert made.mask == (new.read_mask(sample) if sample.mask_path else b"")
        words = json.loads(sample.provenance)
        assert (words["sample"], words["dataset"], words["seed"]) == (sample.derived_from, source, str(2**63 - 1))
        assert {step["transform"] for step in words["steps"]} <= {step.transform for step in plan.policy.steps}


def test_mirrored_masks_have_their_numbers_swapped(store):
    _, new = run(store, AugmentationPlan(LUNGS, copies=4), "more", source="lungs")
    copies = [sample for sample in new.samples() if sample.derived_from]
    mirrored = [json.loads(sample.provenance)["mirrored"] for sample in copies]
    assert set(mirrored) == {True, False}
    for sample, over in zip(copies, mirrored, strict=True):
        mask = new.mask(sample, LIMITS)
        original = DatasetReader(store, "lungs").mask(DatasetReader(store, "lungs").sample(sample.derived_from), LIMITS)
        expected = np.select([original == 3, original == 7], [7, 3], 0)[:, ::-1] if over else original
        np.testing.assert_array_equal(mask, expected)
        assert sample.labels == ("left", "right")


def test_mirrored_images_change_their_class_and_are_counted_there(tmp_path):
    store = ArtifactStore(f"file://{tmp_path}/store")
    with DatasetWriter(store, "datasets/eyes", DatasetInfo("eyes", task="classification", classes=("left", "right", "other"))) as writer:
        for index in range(12):
            add_image(writer, f"eye-{index}", draw_cell(index, size=48)[0], split="train", labels=(("left", "right", "other")[index % 3],))
        writer.finish()
    _, new = run(store, AugmentationPlan(LUNGS, copies=4), "more", source="eyes")
    counts = dict.fromkeys(new.info.classes, 0)
    for sample in new.samples():
        if sample.derived_from:
            (before,) = DatasetReader(store, "eyes").sample(sample.derived_from).labels
            over = json.loads(sample.provenance)["mirrored"]
            assert sample.labels == ({"left": "right", "right": "left"}.get(before, before) if over else before,)
        counts[sample.labels[0]] += 1
    assert {one.name: one.sample_count for one in new.info.class_info} == counts


def test_a_changed_file_is_told(store):
    _, new = run(store, AugmentationPlan(LUNGS, copies=1), "more", source="lungs")
    sample = next(sample for sample in new.samples() if sample.derived_from)
    other = encode_png(np.zeros((48, 48, 3), np.uint8))
    # The dataset as it would look had someone put another picture in.
    rows = [
        replace(row, sha256=hashlib.sha256(other).hexdigest()) if row.id == sample.id else row for row in new.samples(include_excluded=True)
    ]
    with DatasetWriter(store, "datasets/forged", replace(new.info, id="forged")) as writer:
        for row in rows:
            writer.add(row)
        writer.finish()
    assert not replay(store, "forged", sample.id, LIMITS).same
    assert replay(store, "more", sample.id, LIMITS).same


def test_what_cannot_be_made_again_says_why(store):
    _, new = run(store, AugmentationPlan(LUNGS, copies=1), "more", source="lungs")
    copy = next(sample.id for sample in new.samples() if sample.derived_from)
    with pytest.raises(FailedPrecondition) as refused:
        replay(store, "more", "chest-0", LIMITS)
    assert refused.value.reason == "NOT_AUGMENTED"
    with pytest.raises(NotFound) as lost:
        replay(store, "more", "chest-0-nothing", LIMITS)
    assert lost.value.reason == "SAMPLE_NOT_FOUND"
    store.delete("datasets/lungs")
    with pytest.raises(NotFound) as lost:
        replay(store, "more", copy, LIMITS)
    assert lost.value.reason == "DATASET_NOT_FOUND"
    assert "lungs" in lost.value.message
