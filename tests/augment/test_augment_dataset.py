"""An augmented dataset: only the training part grows, the bytes do not depend on how the work is shared, nothing vanishes."""

from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np
import pytest
from augment_runs import Kept, add_image, files, run

from oteo_augment.augmentation import AugmentationPlan, plan_from_request
from oteo_augment.augmentation.preview import preview_sheet
from oteo_core.artifacts import ArtifactStore
from oteo_core.augmentation import Policy, Step, default_policy
from oteo_core.datasets import DatasetInfo, DatasetReader, DatasetWriter, Finding, Sample, Severity, sharding
from oteo_core.errors import FailedPrecondition, InvalidArgument
from oteo_core.images import ImageLimits, pixel_digest
from oteo_core.jobs.executor import ProcessExecutor
from oteo_core.sampledata import draw_cell
from oteo_protos.augment.v1 import augment_pb2

SPLITS = ["train", "train", "validation", "train", "test", "train"]


@pytest.fixture
def store(tmp_path: Path) -> ArtifactStore:
    """A store with the dataset `cells`: 18 images of three classes, one more that was left out."""
    store = ArtifactStore(f"file://{tmp_path}/store")
    info = DatasetInfo("cells", task="classification", classes=("lymphocyte", "monocyte", "neutrophil"), domain="two scopes")
    with DatasetWriter(store, "datasets/cells", info) as writer:
        for index in range(18):
            pixels, label, stem = draw_cell(index, size=48)
            group = f"patient-{index // 3}" if index % 2 else ""
            add_image(writer, stem, pixels, split=SPLITS[index // 3], group=group, labels=(label,))
        gone = (Finding(Severity.ERROR, "UNREADABLE_IMAGE", "cannot be read", "in/bad.png"),)
        writer.add(Sample(id="bad", source_path="in/bad.png", excluded=True, findings=gone))
        writer.finish()
    return store


def test_only_the_training_part_grows(store):
    plan = AugmentationPlan(default_policy(), copies=3)
    outcome, new = run(store, plan, "more")
    old = DatasetReader(store, "cells")
    assert outcome.copies == 3 * 12
    for split in ("validation", "test"):
        assert list(new.samples(split)) == list(old.samples(split))
        assert [new.read_media(s) for s in new.samples(split)] == [old.read_media(s) for s in old.samples(split)]
    originals = {s.id: s for s in old.samples("train")}
    rows = list(new.samples("train"))
    assert len(rows) == 4 * 12
    for row in rows:
        if not row.derived_from:
            assert row == originals[row.id]
            continue
        source = originals[row.derived_from]
        assert row.labels == source.labels
        assert row.group == (source.group or source.id)
        image = new.image(row)
        assert image.pixels.shape == (48, 48, 3)
        assert pixel_digest(image.pixels) == row.pixel_digest != source.pixel_digest
        assert hashlib.sha256(new.read_media(row)).hexdigest() == row.sha256
    assert [s for s in new.samples(include_excluded=True) if s.excluded] == [s for s in old.samples(include_excluded=True) if s.excluded]
    assert new.info.provenance["source_digest"] == old.info.digest
    assert new.info.provenance["versions"]["albumentations"]
    assert (new.info.task, new.info.classes, new.info.domain) == (old.info.task, old.info.classes, old.info.domain)


def test_bytes_do_not_depend_on_workers_shards_or_order(store, monkeypatch):
    plan = AugmentationPlan(default_policy(), seed=3)
    run(store, plan, "one")
    monkeypatch.setattr(sharding, "SHARD_WORK", 5)
    run(store, plan, "many")
    with ProcessExecutor(2) as executor:
        run(store, plan, "spread", executor=executor)
    assert files(store, "one") == files(store, "many") == files(store, "spread")
    run(store, AugmentationPlan(default_policy(), seed=4), "other")
    assert files(store, "other")[2] != files(store, "one")[2]


def test_killed_in_the_middle_it_goes_on(store, monkeypatch):
    monkeypatch.setattr(sharding, "SHARD_WORK", 5)
    plan = AugmentationPlan(default_policy())
    run(store, plan, "whole")
    kept = Kept(stop_after=3)
    with pytest.raises(KeyboardInterrupt):
        run(store, plan, "again", kept=kept)
    assert not store.exists("datasets/again/dataset.json")
    first = dict(kept.data)
    assert len(first) == 3
    kept.stop_after = None
    run(store, plan, "again", kept=kept)
    assert {name: kept.data[name] for name in first} == first
    assert kept.saves == len(kept.data)
    assert files(store, "again") == files(store, "whole")


def test_copies_by_class_and_originals_dropped(store):
    plan = AugmentationPlan(default_policy(), copies=1, copies_by_class={"monocyte": 4, "lymphocyte": 0}, drop_originals=True)
    _, new = run(store, plan, "balanced")
    rows = list(new.samples("train"))
    count = {label: sum(r.labels == (label,) for r in rows) for label in new.info.classes}
    assert count == {"lymphocyte": 4, "monocyte": 16, "neutrophil": 4}
    assert all(bool(r.derived_from) == (r.labels != ("lymphocyte",)) for r in rows)
    assert new.info.sample_count == 24 + 6


def test_deep_and_many_channelled_images(tmp_path):
    store = ArtifactStore(f"file://{tmp_path}")
    rng = np.random.default_rng(0)
    pictures = {
        "deep": (rng.random((40, 30, 1)) * 60000).astype(np.uint16),
        "many": (rng.random((40, 30, 7)) * 60000).astype(np.uint16),
        "real": rng.random((40, 30, 2)).astype(np.float32),
        "plain": (rng.random((40, 30, 3)) * 255).astype(np.uint8),
    }
    with DatasetWriter(store, "datasets/odd", DatasetInfo("odd", task="classification", classes=("a",))) as writer:
        for name, pixels in pictures.items():
            add_image(writer, name, pixels, split="train", labels=("a",))
        writer.finish()
    outcome, new = run(store, AugmentationPlan(default_policy()), "odd-2", source="odd")
    assert outcome.copies == 8
    for row in new.samples("train"):
        image = new.image(row).pixels
        source = pictures[row.derived_from or row.id]
        assert (image.dtype, image.shape[2]) == (source.dtype, source.shape[2])
    # A step that a user asks for and that is not defined is refused, and says so; the original stays.
    colour = AugmentationPlan(Policy((Step("ColorJitter"),)), drop_originals=True)
    outcome, new = run(store, colour, "odd-3", source="odd")
    assert outcome.copies == 2
    assert {name for name, _ in outcome.findings} == {"deep", "many", "real"}
    assert {finding.code for _, finding in outcome.findings} == {"TRANSFORM_NOT_DEFINED"}
    assert {r.id for r in new.samples("train") if not r.derived_from} == {"deep", "many", "real"}


def test_augmenting_the_augmented_keeps_ids_apart(store):
    plan = AugmentationPlan(default_policy(), copies=1)
    run(store, plan, "more")
    outcome, new = run(store, plan, "most", source="more")
    assert outcome.copies == 24
    ids = [s.id for s in new.samples()]
    assert len(ids) == len(set(ids)) == 48 + 6


def request(**fields) -> augment_pb2.AugmentDatasetRequest:
    return augment_pb2.AugmentDatasetRequest(dataset="datasets/cells", **fields)


@pytest.mark.parametrize(
    ("asked", "error", "reason", "field"),
    [
        (request(copies_by_class={"basophil": 3}), InvalidArgument, "UNKNOWN_CLASS", "copies_by_class['basophil']"),
        (request(policy={"preset": "x"}), InvalidArgument, "UNKNOWN_PRESET", "policy.preset"),
        (request(policy={"preset": "default", "steps": [{"transform": "D4"}]}), InvalidArgument, "BAD_POLICY", "policy.preset"),
        (request(policy={"steps": [{"transform": "D5"}]}), InvalidArgument, "UNKNOWN_TRANSFORM", "policy.steps[0].transform"),
        (
            request(policy={"steps": [{"transform": "D4"}], "laterality": True}),
            InvalidArgument,
            "MIRROR_REFUSED",
            "policy.steps[0].transform",
        ),
    ],
)
def test_requests_that_cannot_be_met(store, asked, error, reason, field):
    with pytest.raises(error) as caught:
        plan_from_request(asked, DatasetReader(store, "cells").info)
    assert (caught.value.reason, caught.value.field) == (reason, field)


def test_a_dataset_without_a_training_part_or_of_another_task_is_refused(store):
    info = DatasetReader(store, "cells").info
    info.splits = ()
    with pytest.raises(FailedPrecondition) as caught:
        plan_from_request(request(), info)
    assert caught.value.reason == "NOT_SPLIT"
    info.task = "painting"
    with pytest.raises(InvalidArgument) as refused:
        plan_from_request(request(), info)
    assert refused.value.reason == "TASK_NOT_SUPPORTED"


def test_values_that_a_transform_refuses_are_found_before_the_work(store):
    plan = AugmentationPlan(Policy((Step("GaussianBlur", {"sigma_limit": "soft"}),)))
    with pytest.raises(InvalidArgument) as caught:
        run(store, plan, "never")
    assert (caught.value.reason, caught.value.field) == ("BAD_PARAMETER", "policy.steps[0].parameters.sigma_limit")
    assert not store.exists("datasets/never")


def test_a_request_becomes_a_plan(store):
    info = DatasetReader(store, "cells").info
    steps = [{"transform": "Affine", "parameters": {"rotate": [-5, 5]}, "probability": 0.5}, {"transform": "gamma"}]
    plan = plan_from_request(request(policy={"steps": steps}, seed=5, drop_originals=True), info)
    assert (plan.copies, plan.seed, plan.drop_originals) == (2, 5, True)
    assert [s.probability for s in plan.policy.steps] == [0.5, 1.0]
    assert plan_from_request(request(), info).policy.digest == default_policy().digest


def test_a_sheet_tells_of_pictures_that_a_policy_is_not_defined_for(tmp_path):
    store = ArtifactStore(f"file://{tmp_path}/store")
    for name, odd in (("some", (1,)), ("all", (0, 1, 2))):
        with DatasetWriter(store, f"datasets/{name}", DatasetInfo(name, task="classification", classes=("a", "b"))) as writer:
            for index in range(3):
                pixels = draw_cell(index, size=48)[0]
                if index in odd:
                    pixels = pixels.astype(np.float32) * 10
                add_image(writer, f"{name}-{index}", pixels, split="train", labels=("ab"[index % 2],))
            writer.finish()
    policy = Policy((Step("RandomGamma", {"gamma_limit": [150, 160]}),))
    sheet = preview_sheet(DatasetReader(store, "some"), policy, samples=3, copies=2, seed=0, limits=ImageLimits())
    rows = np.array_split(sheet, 3)
    # The refused one's own picture is there, and beside it words on paper.
    white = [float((row[:256, 270:500] == 255).all(axis=2).mean()) for row in rows]
    assert sorted(value > 0.8 for value in white) == [False, False, True]
    with pytest.raises(InvalidArgument) as refused:
        preview_sheet(DatasetReader(store, "all"), policy, samples=3, copies=2, seed=0, limits=ImageLimits())
    assert refused.value.reason == "TRANSFORM_NOT_DEFINED"
    assert refused.value.message.startswith("in/all-")


def test_a_checkpoint_whose_files_are_gone_is_not_believed(store, monkeypatch):
    monkeypatch.setattr(sharding, "SHARD_WORK", 5)
    plan = AugmentationPlan(default_policy())
    run(store, plan, "whole")
    kept = Kept(stop_after=4)
    with pytest.raises(KeyboardInterrupt):
        run(store, plan, "again", kept=kept)
    # As after a power cut: one file is not there, another is cut.
    gone, cut = sorted(entry.path for entry in store.iter("datasets/again/media"))[:2]
    store.delete(gone)
    store.write_bytes(cut, store.read_bytes(cut)[:-1])
    kept.stop_after = None
    run(store, plan, "again", kept=kept)
    assert kept.saves > len(kept.data)
    assert files(store, "again") == files(store, "whole")
