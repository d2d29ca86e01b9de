"""Instance segmentation: touching drawn discs are told apart, maps decode to the objects that made them."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
import torch
from segment_sets import again, exported, taught, write_set

from oteo_automl.dense.base import find_task
from oteo_automl.dense.segment.masks import EMBEDDING, mask_logits
from oteo_automl.dense.segment.objects import class_maps, height_loss
from oteo_automl.dense.segment.targets import normalised_distance
from oteo_automl.dense.segment.tuning import tune_watershed
from oteo_core.datasets import MaskEncoding
from oteo_core.errors import InvalidArgument
from oteo_core.evaluation.instances import instance_scores
from oteo_core.images import InputPolicy
from oteo_core.images.geometry import place
from oteo_core.packages.answers import Instances
from oteo_core.packages.decoding.instances import decode_instances
from oteo_core.packages.decoding.watershed import WATERSHED, watershed_objects

TASK = find_task("instance_segmentation")


def touching(index: int, *, side: int = 64, empty: bool = False) -> tuple[np.ndarray, np.ndarray]:
    """Draw pairs of bright discs that touch on a dark, noisy ground. Gives the image and the objects' numbers."""
    rng = np.random.default_rng(index)
    ids = np.zeros((side, side), np.uint16)
    number = 0
    for quarter in rng.permutation(4)[: 0 if empty else 2].tolist():
        radius = int(rng.integers(side // 13, side // 9))
        half = side // 2
        x, y = (half * place + half // 2 for place in divmod(quarter, 2))
        angle = rng.uniform(0, 2 * np.pi)
        across = (radius * np.cos(angle), radius * np.sin(angle))
        for sign in (-1, 1):
            centre = (round(x + sign * across[0]), round(y + sign * across[1]))
            inside = (cv2.circle(np.zeros((side, side), np.uint8), centre, radius, 1, -1) > 0) & (ids == 0)
            number += 1
            ids[inside] = number
    image = np.where(ids > 0, 180.0, 50.0)[:, :, None] + rng.normal(0, 8, (side, side, 3))
    return np.clip(image, 0, 255).astype(np.uint8), ids


def as_truth(ids: np.ndarray, labels: list[int] | None = None) -> Instances:
    count = int(ids.max(initial=0))
    return Instances(ids.astype(np.int32), np.array(labels or [0] * count, dtype=np.int64), np.ones(count, dtype=np.float32))


@pytest.fixture(scope="module")
def learnt(tmp_path_factory):
    folder = tmp_path_factory.mktemp("instances")
    drawings = [touching(index, empty=index % 8 == 5) for index in range(32)]
    mask = MaskEncoding("instance")
    reader = write_set(
        folder / "store", drawings, task="instance_segmentation", mask=mask, classes=("disc",), values=lambda ids: ids.astype(np.uint8)
    )
    return taught(TASK, "watershed-resnet18", reader, drawings, folder / "targets", epochs=7), folder


def test_touching_discs_are_told_apart(learnt):
    made, _ = learnt
    assert made.outcome.judgement.scores["pq"] > 0.8
    assert set(TASK.objectives) <= set(made.outcome.judgement.scores)


def test_the_graph_answers_as_pytorch_and_its_answers_are_objects(learnt):
    made, folder = learnt
    session = exported(made.served, made.policy, folder)
    images = np.ascontiguousarray(made.images[made.held_out])
    with torch.inference_mode():
        expected = [one.numpy() for one in made.served.module(torch.from_numpy(images))]
        read = again(made.served)(torch.from_numpy(images))
    assert all(np.array_equal(one.numpy(), two) for one, two in zip(read, expected, strict=True))
    for count in (1, 3):
        found = session.run(None, {"image": images[:count]})
        for (_, shape, _), got, wanted in zip(made.served.outputs, found, expected, strict=True):
            assert got.shape == (count, *shape)
            assert np.abs(got - wanted[:count]).max() < 1e-4
    outputs = dict(zip([name for name, _, _ in made.served.outputs], expected, strict=True))
    answers = TASK.answers(outputs, [(64, 64)] * len(images), made.policy, made.served.decoding)
    truths = [made.data.truths(row) for row in made.held_out.tolist()]
    assert instance_scores(truths, answers, 1)["pq"] > 0.8
    assert all(one.ids.max(initial=0) == len(one.labels) == len(one.scores) for one in answers)


def _rods(index: int, side: int = 64) -> np.ndarray:
    """Draw a rod of two halves, side by side without a waist between them: only what is learnt tells them apart."""
    ids = np.zeros((side, side), np.int32)
    top = 8 + index
    ids[top : top + 14, 6:32], ids[top : top + 14, 32:58] = 1, 2
    return ids


@pytest.mark.parametrize("knows", ["heights", "outlines"])
def test_objects_are_told_apart_by_what_is_right_on_held_out_images(knows):
    """Heights that say nothing: discs are split at their waists. A waist that is not there: rods are split by their heights."""
    rng = np.random.default_rng(0)
    found, heights, truths = [], [], []
    for index in range(6):
        ids = _rods(index) if knows == "heights" else touching(index)[1].astype(np.int32)
        inside = (ids > 0).astype(np.float32)
        found.append(np.stack([1 - inside, inside]))
        learnt = normalised_distance(ids).astype(np.float32) / 255.0
        heights.append(learnt if knows == "heights" else rng.uniform(0.3, 0.7, ids.shape).astype(np.float32) * inside)
        truths.append(as_truth(ids))
    settings = tune_watershed(found, heights, truths, 1, 120.0)
    assert (settings["distance"] > 0.6) == (knows == "outlines")
    outputs = {"probabilities": np.stack(found), "heights": np.stack(heights)}
    answers = decode_instances(outputs, [(64, 64)] * 6, InputPolicy(64, 64, 3), settings)
    assert [len(one.labels) for one in answers] == [len(one.labels) for one in truths]
    assert instance_scores(truths, answers, 1)["pq"] > 0.9
    alone = decode_instances(outputs, [(64, 64)] * 6, InputPolicy(64, 64, 3), {"distance": 0.0 if knows == "outlines" else 1.0})
    assert instance_scores(truths, alone, 1)["pq"] < 0.7


def test_maps_made_by_hand_decode_to_the_objects_they_came_from():
    ids = touching(3, side=96)[1].astype(np.int32)
    labels = [number % 2 for number in range(int(ids.max()))]
    policy = InputPolicy(96, 96, 3)
    classes = np.concatenate([[0], np.array(labels) + 1])[ids]
    probabilities = (np.arange(3)[:, None, None] == classes).astype(np.float32)[None]
    heights = normalised_distance(ids).astype(np.float32)[None] / 255.0
    outputs = {"probabilities": probabilities, "heights": heights}
    found = decode_instances(outputs, [(96, 96)], policy, {})[0]
    figures = instance_scores([as_truth(ids, labels)], [found], 2)
    assert figures["rq"] == pytest.approx(1.0)
    assert figures["sq"] > 0.9
    assert (found.scores > 0.8).all()
    assert not decode_instances(outputs, [(96, 96)], policy, {"smallest": 4000.0})[0].labels.size
    empty = {"probabilities": np.stack([np.ones((1, 96, 96)), np.zeros((1, 96, 96))], axis=1).astype(np.float32), "heights": heights * 0}
    assert not decode_instances(empty, [(96, 96)], policy, {})[0].ids.any()


@pytest.mark.parametrize(("width", "height"), [(96, 96), (192, 150), (40, 64)])
def test_objects_come_back_to_the_originals_pixels_through_letterboxing(width, height):
    whole = touching(7)[1]
    ids = cv2.resize(whole, (width, height), interpolation=cv2.INTER_NEAREST).astype(np.int32)
    policy = InputPolicy(96, 96, 3, resize="letterbox")
    prepared = np.maximum(place(width, height, policy).plane_in(ids, policy, 0), 0)
    heights = normalised_distance(prepared).astype(np.float32)[None] / 255.0
    foreground = (prepared > 0).astype(np.float32)
    found = decode_instances(
        {"probabilities": np.stack([1 - foreground, foreground])[None], "heights": heights}, [(width, height)], policy, {}
    )[0]
    assert found.ids.shape == (height, width)
    assert instance_scores([as_truth(ids)], [found], 1)["pq"] > 0.8


def test_masks_of_objects_decode_by_score_and_do_not_overlap():
    policy = InputPolicy(64, 64, 3)
    masks = np.zeros((1, 4, 32, 32), np.uint8)
    masks[0, 0, 4:14, 4:14] = 255
    masks[0, 1, 5:15, 4:14] = 255
    masks[0, 2, 20:30, 20:30] = 255
    masks[0, 3, 0:4, 20:24] = 255
    outputs = {"masks": masks, "scores": np.array([[0.9, 0.8, 0.7, 0.1]], np.float32), "classes": np.array([[1, 0, 0, 0]])}
    found = decode_instances(outputs, [(128, 64)], policy, {"method": "masks"})[0]
    assert found.labels.tolist() == [1, 0]
    assert found.ids.shape == (64, 128)
    assert found.ids[16, 32] == 1
    assert found.ids[48, 100] == 2
    assert abs(int((found.ids == 2).sum()) - 20 * 40) < 80


def test_heights_are_shares_of_each_objects_own_size():
    ids = np.zeros((40, 40), np.int32)
    ids[2:8, 2:8], ids[10:40, 10:30] = 1, 2
    heights = normalised_distance(ids)
    assert heights[ids == 1].max() == heights[ids == 2].max() == 255
    assert not heights[ids == 0].any()
    # Cut off by the lower border, the object is taken to go on there.
    assert heights[39, 20] > heights[39, 11] > 0


def test_left_out_pixels_have_no_gradient_and_heights_met_cost_nothing():
    ids = torch.zeros(1, 8, 8, dtype=torch.int64)
    ids[:, 2:4, 2:4], ids[:, 6:] = 1, -1
    heights = (ids > 0).float() * 0.5
    logits = torch.zeros(1, 8, 8, requires_grad=True)
    height_loss(logits, heights, ids).backward()
    assert not logits.grad[:, 6:].any()
    assert logits.grad[:, :2].any()
    met = torch.logit(heights.clamp(1e-6, 1 - 1e-6))
    assert float(height_loss(met, heights, ids)) < 1e-4


def test_masks_of_classes_do_not_tell_objects_apart(tmp_path):
    drawings = [touching(index) for index in range(4)]
    one = {"task": "semantic_segmentation", "mask": MaskEncoding("class", (1,)), "classes": ("disc",)}
    reader = write_set(tmp_path / "c", drawings, **one, values=lambda ids: np.minimum(ids, 1).astype(np.uint8))
    with pytest.raises(InvalidArgument) as refusal:
        TASK.read(reader)
    assert refusal.value.reason == "WRONG_TASK"
    assert "semantic" in str(refusal.value)
    numbered = write_set(
        tmp_path / "i",
        drawings,
        task="instance_segmentation",
        mask=MaskEncoding("instance"),
        classes=("disc",),
        values=lambda ids: ids.astype(np.uint8),
    )
    foreground = find_task("semantic_segmentation").read(numbered).truths(0).labels
    assert np.array_equal(foreground, np.minimum(drawings[0][1], 1))
    data = TASK.read(numbered)
    (tmp_path / "t").mkdir()
    TASK.build_targets(data, InputPolicy(64, 64, 3), tmp_path / "t", lambda: None)
    targets = TASK.open_targets(tmp_path / "t")
    assert np.array_equal(class_maps(targets, np.array([0]))[0], foreground)
    facts = TASK.facts(targets, np.arange(4), InputPolicy(64, 64, 3), 1)
    assert facts["objects"][1] == max(int(ids.max()) for _, ids in drawings)
    assert 6 < facts["diameters"][1] < 20


def test_a_mask_is_a_blob_around_its_centre_before_anything_is_learnt_and_follows_its_features():
    features = torch.zeros(1, EMBEDDING, 32, 32)
    features[0, 0, :, :16] = -50.0
    vectors = torch.zeros(1, 2, EMBEDDING + 5)
    vectors[0, 1, 0] = 1.0
    inside = mask_logits(vectors, torch.tensor([[[-8.0, -8.0], [4.0, 0.0]]]), features)[0] > 0
    rows, columns = np.nonzero(inside[0].numpy())
    assert abs(rows.mean() + 0.5 - 8) < 0.6
    assert abs(columns.mean() + 0.5 - 8) < 0.6
    assert 4 < len(rows) < 300
    # The second object's vector looks at a feature that forbids the left half.
    assert not inside[1, :, :16].any()
    assert inside[1, :, 16:].any()


@pytest.mark.slow
def test_the_mask_head_learns_and_exports(tmp_path):
    drawings = [touching(index, empty=index == 3) for index in range(16)]
    reader = write_set(
        tmp_path / "s",
        drawings,
        task="instance_segmentation",
        mask=MaskEncoding("instance"),
        classes=("disc",),
        values=lambda ids: ids.astype(np.uint8),
    )
    made = taught(TASK, "mask-resnet18", reader, drawings, tmp_path / "t", epochs=6)
    curve = [one.train_loss for one in made.outcome.curve]
    assert curve[-1] < 0.4 * curve[0]
    assert set(TASK.objectives) <= set(made.outcome.judgement.scores)
    session = exported(made.served, made.policy, tmp_path)
    images = np.ascontiguousarray(made.images[made.held_out])
    with torch.inference_mode():
        expected = [one.numpy() for one in made.served.module(torch.from_numpy(images))]
        read = again(made.served)(torch.from_numpy(images))
    assert all(np.array_equal(one.numpy(), two) for one, two in zip(read, expected, strict=True))
    for count in (1, 3):
        found = session.run(None, {"image": images[:count]})
        for (name, shape, _), got, wanted in zip(made.served.outputs, found, expected, strict=True):
            assert got.shape == (count, *shape)
            assert np.abs(got.astype(np.float64) - wanted[:count]).max() <= (1 if name == "masks" else 1e-4)
    answers = TASK.answers(
        dict(zip([name for name, _, _ in made.served.outputs], expected, strict=True)),
        [(64, 64)] * len(images),
        made.policy,
        made.served.decoding,
    )
    assert instance_scores([made.data.truths(row) for row in made.held_out.tolist()], answers, 1)["pq"] > 0.5


def test_ripples_do_not_split_an_object_and_a_pass_between_two_does():
    rows, columns = np.mgrid[:60, :60]
    hill = np.clip(1.0 - np.hypot(rows - 30, columns - 20) / 16, 0, 1)
    other = np.clip(1.0 - np.hypot(rows - 30, columns - 44) / 12, 0, 1)
    heights = np.maximum(hill, other).astype(np.float32)
    inside = (heights > 0).astype(np.float32)
    heights[30, 25] += 0.12
    assert watershed_objects(inside, heights, WATERSHED).max() == 2
    assert watershed_objects(inside, heights, WATERSHED | {"prominence": 0.02}).max() == 3
    # Without a top anywhere a piece of foreground is still an object.
    assert watershed_objects(inside, heights * 0.2, WATERSHED).max() == 1
