"""Figures of detectors and segmentations against the reference implementations and hand-made cases."""

from __future__ import annotations

import contextlib
import io

import numpy as np
import pytest
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval
from scipy.spatial.distance import cdist
from sklearn.metrics import average_precision_score, f1_score, label_ranking_loss, roc_auc_score

from oteo_core.evaluation.detection import detection_scores, evaluate_detection
from oteo_core.evaluation.instances import evaluate_instances, instance_scores
from oteo_core.evaluation.multilabel import evaluate_multilabel
from oteo_core.evaluation.semantic import evaluate_semantic, semantic_scores
from oteo_core.evaluation.surfaces import SurfaceDistances
from oteo_core.packages.answers import IGNORED, ClassMap, Detections, Instances, TrueBoxes


def _scene(rng: np.random.Generator, images: int = 25) -> tuple[list[TrueBoxes], list[Detections]]:
    truths, found = [], []
    for _ in range(images):
        count = int(rng.integers(0, 7))
        corner, extent = rng.uniform(0, 300, (count, 2)), rng.uniform(8, 150, (count, 2)) * rng.choice([0.3, 1.0])
        boxes = np.concatenate([corner, corner + extent], axis=1).astype(np.float32)
        labels = rng.integers(0, 2, count)
        truths.append(TrueBoxes(boxes, labels, rng.random(count) < 0.15))
        near = boxes.repeat(2, axis=0) + rng.normal(0, 8, (2 * count, 4)).astype(np.float32)
        stray = rng.uniform(0, 200, (3, 2))
        guesses = np.concatenate([near, np.concatenate([stray, stray + rng.uniform(5, 120, (3, 2))], axis=1)]).astype(np.float32)
        guesses[:, 2:] = np.maximum(guesses[:, 2:], guesses[:, :2] + 1)
        scores = np.sort(np.round(rng.random(len(guesses)), 2).astype(np.float32))[::-1]
        order = rng.permutation(len(guesses))
        classes = np.concatenate([labels.repeat(2), rng.integers(0, 2, 3)])
        found.append(Detections(guesses[order], scores, classes[order]))
    return truths, found


def _by_pycocotools(truths: list[TrueBoxes], found: list[Detections]) -> list[float]:
    def xywh(box: np.ndarray) -> list[float]:
        return [float(box[0]), float(box[1]), float(box[2]) - float(box[0]), float(box[3]) - float(box[1])]

    annotations, results = [], []
    for image, (true, answer) in enumerate(zip(truths, found, strict=True)):
        for box, label, crowd in zip(true.boxes, true.labels, true.crowd, strict=True):
            flat = xywh(box)
            annotations.append(
                {
                    "id": len(annotations) + 1,
                    "image_id": image,
                    "category_id": int(label),
                    "bbox": flat,
                    "area": flat[2] * flat[3],
                    "iscrowd": int(crowd),
                }
            )
        for box, score, label in zip(answer.boxes, answer.scores, answer.labels, strict=True):
            results.append({"image_id": image, "category_id": int(label), "bbox": xywh(box), "score": float(score)})
    with contextlib.redirect_stdout(io.StringIO()):
        reference = COCO()
        reference.dataset = {
            "images": [{"id": i} for i in range(len(truths))],
            "annotations": annotations,
            "categories": [{"id": 0}, {"id": 1}],
        }
        reference.createIndex()
        judge = COCOeval(reference, reference.loadRes(results), "bbox")
        judge.evaluate()
        judge.accumulate()
        judge.summarize()
    return [float(value) for value in judge.stats]


@pytest.mark.parametrize("seed", range(4))
def test_average_precision_is_cocos(seed: int) -> None:
    truths, found = _scene(np.random.default_rng(seed))
    expected = _by_pycocotools(truths, found)
    metrics = {one.name: one.value for one in evaluate_detection(truths, found, ["a", "b"], resamples=0) if not one.class_name}
    names = ["map50_95", "map50", "map75", "map50_95_small", "map50_95_medium", "map50_95_large"]
    for name, value in zip(names, expected, strict=False):
        assert metrics.get(name, -1.0) == pytest.approx(value, abs=1e-9), name
    quick = detection_scores(truths, found, 2)
    assert quick["map50_95"] == pytest.approx(expected[0], abs=1e-9)
    assert quick["f1"] == pytest.approx(metrics["f1"])


def test_f1_at_the_best_threshold_counts_hits_misses_and_false_alarms() -> None:
    box = np.array([[0, 0, 10, 10]], dtype=np.float32)
    truths = [TrueBoxes(box, np.array([0]), np.array([False])) for _ in range(3)]
    found = [
        Detections(box, np.array([0.9], np.float32), np.array([0])),
        Detections(box + 1, np.array([0.8], np.float32), np.array([0])),
        Detections(box + 50, np.array([0.3], np.float32), np.array([0])),
    ]
    scores = detection_scores(truths, found, 1)
    judged = {one.name: one.value for one in evaluate_detection(truths, found, ["a"], resamples=0) if one.class_name}
    assert judged["score_threshold"] == pytest.approx((0.8 + 0.3) / 2)
    assert (scores["precision"], scores["recall"]) == (1.0, pytest.approx(2 / 3))
    assert scores["iou"] == pytest.approx((1 + 81 / 119) / 2)
    fixed = {one.name: one.value for one in evaluate_detection(truths, found, ["a"], threshold=0.1, resamples=0) if not one.class_name}
    assert fixed["precision"] == pytest.approx(2 / 3)


def test_intervals_of_average_precision_are_those_of_drawn_images() -> None:
    truths, found = _scene(np.random.default_rng(3), 60)
    by_image = {m.name: m for m in evaluate_detection(truths, found, ["a", "b"], seed=1) if not m.class_name}
    by_group = {
        m.name: m for m in evaluate_detection(truths, found, ["a", "b"], seed=1, groups=[i // 20 for i in range(60)]) if not m.class_name
    }
    one, other = by_image["map50_95"], by_group["map50_95"]
    assert one.value == other.value
    assert one.lower is not None
    assert one.upper is not None
    assert one.lower < one.value < one.upper
    assert other.lower != one.lower
    repeated = evaluate_detection(truths, found, ["a", "b"], seed=1)
    assert next(m.lower for m in repeated if m.name == "map50_95") == one.lower
    # What a resample gives is what judging the drawn images anew gives.
    drawn = np.random.default_rng(0).integers(0, 60, 60)
    from oteo_core.evaluation.detection import ObjectScorer, match_boxes

    scorer = ObjectScorer(match_boxes(truths, found, 2))
    resampled = scorer.score(np.bincount(drawn, minlength=60)[None].astype(float))[0]
    anew = ObjectScorer(match_boxes([truths[i] for i in drawn], [found[i] for i in drawn], 2), scorer.thresholds)
    again = anew.score(np.ones((1, 60)))[0]
    # Equal scores of a doubled image are ranked among each other in another order: a little may differ.
    np.testing.assert_allclose(resampled[:2], again[:2], atol=0.01)


def test_detection_without_objects_or_images() -> None:
    assert evaluate_detection([], [], ["a"]) == []
    assert detection_scores([], [], 1)["map50"] == 0.0
    only_found = Detections(np.array([[0, 0, 5, 5]], np.float32), np.array([0.5], np.float32), np.array([1]))
    box = TrueBoxes(np.array([[0, 0, 5, 5]], np.float32), np.array([0]), np.array([False]))
    metrics = evaluate_detection([box, TrueBoxes()], [Detections(), only_found], ["a", "b", "c"])
    named = {(m.name, m.class_name): m.value for m in metrics}
    assert named["map50", "a"] == 0.0
    assert ("map50", "b") not in named
    assert named["f1", "b"] == 0.0
    assert ("f1", "c") not in named


def test_overlap_by_image_and_pooled() -> None:
    truths = [np.zeros((8, 8), np.uint8) for _ in range(3)]
    found = [np.zeros((8, 8), np.uint8) for _ in range(3)]
    truths[0][:4], found[0][:2] = 1, 1
    truths[1][:1], found[1][:1] = 1, 1
    found[2][0, 0] = 2
    scores = semantic_scores([ClassMap(t) for t in truths], [ClassMap(f) for f in found], 2)
    metrics = evaluate_semantic([ClassMap(t) for t in truths], [ClassMap(f) for f in found], ["a", "b"])
    named = {(m.name, m.class_name): m.value for m in metrics}
    assert named["dice", "a"] == pytest.approx((2 * 16 / 48 + 1) / 2)
    assert named["iou", "a"] == pytest.approx((0.5 + 1) / 2)
    assert named["iou_pooled", "a"] == pytest.approx(24 / 40)
    assert named["dice", "b"] == 0.0
    assert named["hausdorff95_undefined", "b"] == 1
    assert ("hausdorff95", "b") not in named
    assert scores["dice"] == pytest.approx(named["dice", "a"] / 2)


def test_ignored_pixels_count_nowhere() -> None:
    truth = np.zeros((6, 6), np.uint8)
    truth[:3], truth[3:] = 1, IGNORED
    found = np.ones((6, 6), np.uint8)
    assert semantic_scores([ClassMap(truth)], [ClassMap(found)], 1)["dice"] == 1.0


def test_outlines_against_distances_of_all_pairs() -> None:
    rng = np.random.default_rng(0)
    yy, xx = np.mgrid[:40, :40]
    true = (yy - 18) ** 2 + (xx - 20) ** 2 < 90
    found = ((yy - 21) ** 2 + (xx - 17) ** 2 < 110) | (rng.random((40, 40)) < 0.002)
    from oteo_core.evaluation.surfaces import outline

    first, second = np.argwhere(outline(true) > 0), np.argwhere(outline(found) > 0)
    for spacing in ((1.0, 1.0), (0.5, 2.0)):
        distances = cdist(first * spacing, second * spacing)
        one, other = distances.min(axis=1), distances.min(axis=0)
        one_length, other_length = outline(true, spacing), outline(found, spacing)
        weights = one_length[one_length > 0], other_length[other_length > 0]
        near = weights[0][one <= 2].sum() + weights[1][other <= 2].sum()
        measured = SurfaceDistances(true, found, spacing)
        assert measured.dice(2.0) == pytest.approx(near / (weights[0].sum() + weights[1].sum()))
        assert measured.hausdorff(1.0) == pytest.approx(max(one.max(), other.max()))
        assert min(np.percentile(one, 80), np.percentile(other, 80)) <= measured.hausdorff() <= measured.hausdorff(1.0)


def test_moved_square_has_the_hausdorff_distance_of_its_move() -> None:
    truth, found = np.zeros((30, 30), np.uint8), np.zeros((30, 30), np.uint8)
    truth[5:15, 5:15], found[5:15, 9:19] = 1, 1
    metrics = {
        m.name: m for m in evaluate_semantic([ClassMap(truth)], [ClassMap(found)], ["a"], spacings=[(0.5, 0.25)]) if not m.class_name
    }
    assert metrics["hausdorff95"].value == 4.0
    assert metrics["hausdorff95_mm"].value == 1.0
    assert metrics["surface_dice_mm"].value == 1.0
    assert metrics["surface_dice"].value < 0.8


def _instances(ids: np.ndarray, labels: list[int], scores: list[float] | None = None) -> Instances:
    given = np.ones(len(labels)) if scores is None else np.array(scores)
    return Instances(ids.astype(np.int32), np.array(labels, dtype=np.int64), given.astype(np.float32))


def test_panoptic_quality_by_hand() -> None:
    truth, found = np.zeros((20, 20)), np.zeros((20, 20))
    truth[:4, :5], truth[10:14, :5] = 1, 2
    found[:4, :4], found[16:18, 10:12] = 1, 2
    scores = instance_scores([_instances(truth, [0, 0])], [_instances(found, [0, 0], [0.9, 0.4])], 1)
    assert scores["sq"] == pytest.approx(0.8)
    assert scores["rq"] == scores["f1"] == pytest.approx(0.5)
    assert scores["pq"] == pytest.approx(0.4)
    # IoU .8 is over .5, .55 ... .75 (the score wants more than the threshold): 1/3 at six thresholds of ten.
    assert scores["map_dsb2018"] == pytest.approx(6 / 10 / 3)
    assert scores["aji"] == pytest.approx(16 / (20 + 20 + 4))
    assert scores["map50"] == pytest.approx(51 / 101)


def test_instances_by_class_and_left_out_pixels() -> None:
    truth, found = np.zeros((20, 20)), np.zeros((20, 20))
    truth[:4, :5], truth[10:14, :5], truth[:, 15:] = 1, 2, -1
    found[:4, :5], found[10:14, :5], found[:5, 15:] = 1, 2, 3
    metrics = evaluate_instances([_instances(truth, [0, 1])], [_instances(found, [0, 0, 0], [0.9, 0.8, 0.7])], ["a", "b", "c"])
    named = {(m.name, m.class_name): m.value for m in metrics}
    assert named["recall", "a"] == 1.0
    assert named["precision", "a"] == 0.5
    assert named["pq", "b"] == 0.0
    assert ("pq", "c") not in named
    assert named["aji", ""] == 1.0
    assert evaluate_instances([], [], ["a"]) == []
    empty = _instances(np.zeros((4, 4)), [])
    assert evaluate_instances([empty], [empty], ["a"]) == []


def test_multilabel_is_scikit_learns() -> None:
    rng = np.random.default_rng(5)
    truths = rng.random((80, 4)) < 0.35
    truths[:, 3] = False
    probabilities = np.clip(0.35 * truths + rng.random((80, 4)) * 0.6, 0, 1)
    metrics = evaluate_multilabel(truths, probabilities, ["a", "b", "c", "d"], seed=2)
    named = {(m.name, m.class_name): m for m in metrics}
    used = slice(0, 3)
    assert named["mean_average_precision", ""].value == pytest.approx(
        average_precision_score(truths[:, used], probabilities[:, used], average="macro")
    )
    assert named["auroc", ""].value == pytest.approx(roc_auc_score(truths[:, used], probabilities[:, used], average="macro"))
    assert named["f1_micro", ""].value == pytest.approx(f1_score(truths, probabilities >= 0.5, average="micro"))
    assert named["subset_accuracy", ""].value == pytest.approx((truths == (probabilities >= 0.5)).all(axis=1).mean())
    some = truths.any(axis=1)
    assert named["ranking_loss", ""].value == pytest.approx(label_ranking_loss(truths[some], probabilities[some]))
    assert ("average_precision", "d") not in named
    low, high = named["mean_average_precision", ""].lower, named["mean_average_precision", ""].upper
    assert low is not None
    assert high is not None
    assert low < named["mean_average_precision", ""].value < high


def test_overlap_and_panoptic_quality_are_torchmetrics() -> None:
    import torch
    from torchmetrics.functional.classification import multiclass_jaccard_index
    from torchmetrics.functional.detection import panoptic_quality
    from torchmetrics.functional.segmentation import mean_iou

    rng = np.random.default_rng(8)
    truths, found, pairs = [], [], []
    for _ in range(6):
        ids = np.kron(np.arange(1, 17).reshape(4, 4), np.ones((10, 10))).astype(np.int32)
        ids[rng.random((4, 4)).repeat(10, 0).repeat(10, 1) < 0.3] = 0
        labels = rng.integers(0, 2, 16)
        moved = np.roll(ids, rng.integers(0, 4, 2), axis=(0, 1))
        other = np.where(rng.random(16) < 0.2, 1 - labels, labels)
        truths.append(_instances(ids, labels.tolist()))
        found.append(_instances(moved, other.tolist()))
        classes = [np.concatenate([[0], given + 1])[plane] for given, plane in ((other, moved), (labels, ids))]
        pairs.append([np.stack([kinds, plane], axis=-1) for kinds, plane in zip(classes, (moved, ids), strict=True)])
    answered, true = (torch.from_numpy(np.stack([pair[side] for pair in pairs])) for side in (0, 1))
    expected = panoptic_quality(answered, true, things={1, 2}, stuffs={0}, return_per_class=True, return_sq_and_rq=True)
    named = {(m.name, m.class_name): m.value for m in evaluate_instances(truths, found, ["a", "b"], resamples=0)}
    for index, name in enumerate("ab"):
        for place, metric in enumerate(("pq", "sq", "rq")):
            assert named[metric, name] == pytest.approx(float(expected[index, place]), abs=1e-6)

    maps = [[ClassMap(pair[side][..., 0].astype(np.uint8)) for pair in pairs] for side in (1, 0)]
    overlap = {(m.name, m.class_name): m.value for m in evaluate_semantic(*maps, ["a", "b"], resamples=0)}
    pooled = multiclass_jaccard_index(answered[..., 0], true[..., 0], num_classes=3, average="none")
    by_image = mean_iou(answered[..., 0], true[..., 0], num_classes=3, include_background=False, per_class=True, input_format="index")
    for index, name in enumerate("ab"):
        assert overlap["iou_pooled", name] == pytest.approx(float(pooled[index + 1]), abs=1e-6)
        assert overlap["iou", name] == pytest.approx(float(by_image[:, index].mean()), abs=1e-6)
