"""Turned boxes and key points in augmented datasets, their replay and their preview."""

from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np
import pytest

from oteo_augment.augmentation import AugmentationPlan, augment_dataset, plan_from_request
from oteo_augment.augmentation.preview import preview_sheet
from oteo_augment.augmentation.replay import replay
from oteo_core.artifacts import ArtifactStore
from oteo_core.augmentation import CATALOGUE, Policy, Step
from oteo_core.datasets import DatasetInfo, DatasetReader, DatasetWriter, Sample, Skeleton, SplitCount
from oteo_core.datasets.annotations import Keypoint, Keypoints, OrientedBox
from oteo_core.errors import InvalidArgument
from oteo_core.images import ImageLimits, encode_png, pixel_digest
from oteo_core.jobs.executor import InlineExecutor
from oteo_protos.augment.v1 import augment_pb2

MOVING = Policy(
    (Step("Rotate", {"limit": [-30, 30]}), Step("HorizontalFlip", probability=0.5)),
    mirror_swaps={"left": "right"},
    min_visible_share=0.3,
)
POINTS = (Keypoint("left", 20.5, 30.5), Keypoint("right", 40.5, 30.5, visible=False), Keypoint("corner", 0.5, 0.5))


class Kept(dict):
    """Checkpoints in memory."""

    save, load = dict.__setitem__, dict.get

    def check(self) -> None:
        """Goes on."""


@pytest.fixture
def store(tmp_path: Path) -> ArtifactStore:
    """A store with the dataset `ships`: a grey image with a white turned rectangle and three dots."""
    artifacts = ArtifactStore(f"file://{tmp_path}/store")
    with DatasetWriter(artifacts, "datasets/ships", DatasetInfo("ships", task="keypoints", classes=("ship",))) as writer:
        for number in range(4):
            box = OrientedBox("ship", 30, 40, 26, 10, 0.3 * number, instance=0)
            y, x = np.mgrid[:64, :64] + 0.5
            along = (x - 30) * math.cos(box.angle) + (y - 40) * math.sin(box.angle)
            down = (y - 40) * math.cos(box.angle) - (x - 30) * math.sin(box.angle)
            pixels = np.full((64, 64, 1), 60 + number, np.uint8)
            pixels[(np.abs(along) < 13) & (np.abs(down) < 5)] = 250
            path = writer.add_media(f"{number}.png", encode_png(pixels))
            writer.add(
                Sample(
                    str(number), path, pixel_digest=pixel_digest(pixels), width=64, height=64, channels=1, dtype="uint8", split="train",
                    oriented_boxes=(box,), keypoints=(Keypoints("ship", POINTS, instance=0),),
                )
            )  # fmt: skip
        writer.finish()
    return artifacts


def test_copies_carry_turned_boxes_and_points(store: ArtifactStore) -> None:
    outcome = augment_dataset(
        store, "ships", AugmentationPlan(MOVING, copies=5), DatasetInfo("more", uid="u", create_time="2026-01-01T00:00:00+00:00"),
        staging="datasets/more", store_options={}, limits=ImageLimits(), executor=InlineExecutor(), checkpoints=Kept(),
        progress=lambda done, total: None,
    )  # fmt: skip
    assert (outcome.copies, outcome.dropped_annotations) == (20, 0)
    reader = DatasetReader(store, "more")
    names = set()
    for sample in reader.samples():
        (box,), (marked,) = sample.oriented_boxes, sample.keypoints
        pixels = reader.image(sample, ImageLimits()).pixels[:, :, 0]
        rows, columns = np.nonzero(pixels > 200)
        # The middle of the white rectangle is the middle of its box.
        assert (columns.mean() + 0.5, rows.mean() + 0.5) == (pytest.approx(box.center_x, abs=0.5), pytest.approx(box.center_y, abs=0.5))
        if sample.derived_from:
            told = json.loads(sample.provenance)
            points = {point.name: point for point in marked.points}
            assert len(points) == 3 - sum(told["dropped_points"].values())
            # Hidden is the point that was right and is left once the image is mirrored.
            assert [name for name, point in points.items() if not point.visible] == ["left" if told["mirrored"] else "right"]
            names.add((told["mirrored"], tuple(points)))
    assert {mirrored for mirrored, _ in names} == {True, False}
    for sample in reader.samples():
        if sample.derived_from:
            again = replay(store, "more", sample.id, ImageLimits())
            assert again.same
            assert (again.row.oriented_boxes, again.row.keypoints) == (sample.oriented_boxes, sample.keypoints)


def test_a_mirror_must_say_which_points_swap() -> None:
    skeleton = Skeleton("face", ("nose", "left_eye", "right_eye"))
    faces = DatasetInfo("faces", task="detection", classes=("face",), skeletons=(skeleton,), splits=(SplitCount("train", 3, 3),))
    asked = augment_pb2.AugmentDatasetRequest(dataset="datasets/faces")
    plain = DatasetInfo("faces", task="detection", classes=("face",), splits=faces.splits)

    def mirrors(info: DatasetInfo) -> bool:
        return any(CATALOGUE[step.transform].mirrors for step in plan_from_request(asked, info).policy.steps)

    # The default policy mirrors where nothing has a side.
    assert mirrors(plain)
    assert not mirrors(faces)
    asked.policy.steps.add(transform="HorizontalFlip")
    with pytest.raises(InvalidArgument) as caught:
        plan_from_request(asked, faces)
    assert (caught.value.reason, caught.value.field) == ("POINTS_NOT_SWAPPED", "policy.mirror_swaps")
    assert '{"left_eye": "right_eye"}' in caught.value.message
    asked.policy.mirror_swaps["right_eye"] = "left_eye"
    assert plan_from_request(asked, faces).policy.mirror_swaps == {"right_eye": "left_eye"}
    asked.policy.mirror_swaps["mouth"] = "nose"
    with pytest.raises(InvalidArgument) as caught:
        plan_from_request(asked, faces)
    assert caught.value.reason == "UNKNOWN_CLASS"
    assert "'mouth'" in caught.value.message
    assert "the points nose, left_eye, right_eye" in caught.value.message


def test_the_preview_draws_them(store: ArtifactStore) -> None:
    reader = DatasetReader(store, "ships")
    sheet = preview_sheet(reader, Policy((Step("HorizontalFlip"),)), samples=1, copies=1, seed=1, limits=ImageLimits())
    original, copy = sheet[:256, :256].astype(int), sheet[:256, 262 : 262 + 256].astype(int)
    coloured = np.ptp(original, axis=2) > 60
    # The box's sides and the dots: colours on a grey picture; in the mirrored copy in mirrored places.
    assert coloured[30 * 4 + 2, 20 * 4 + 2]
    assert 300 < np.count_nonzero(coloured) < 2000
    assert np.mean(coloured[:, ::-1] != (np.ptp(copy, axis=2) > 60)) < 0.01
