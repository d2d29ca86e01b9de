"""What an answer of any task is worth: image by image, over all, and without a truth."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from oteo_core.evaluation.instances import overlap
from oteo_core.packages.answers import IGNORED, ClassMap, Detections, Instances, TrueBoxes
from oteo_core.packages.decoding.detection import confident, overlaps

Floats = NDArray[np.float64]

MAIN_METRICS = {
    "classification": "accuracy",
    "multi_label_classification": "f1",
    "detection": "map50",
    "semantic_segmentation": "iou",
    "instance_segmentation": "pq",
}
"""The figure that a task's models are compared by; names as in `oteo_core.evaluation`."""

_MATCHED = 0.5
_EMPTY_PIXELS = 4.0
"""So many pixels are thought right beside all others: an answer without any foreground is as sure as little foreground was likely."""
_EMPTY_OBJECTS = 0.5


def image_score(task: str, truth: Any, answer: Any, decoding: Mapping[str, Any]) -> float:
    """Give one image's own score, 0 to 1; NaN where there is no truth (None), or nothing in it that counts.

    Parameters
    ----------
    task
        A value of `oteo_core.datasets.Task`.
    truth
        Class number; ``(K,)`` bool; `TrueBoxes`, `ClassMap`, `Instances`.
    answer
        Probabilities ``(K,)``; `Detections`, `ClassMap`, `Instances`.
    decoding
        Of the package: thresholds.

    Returns
    -------
    float
        1 or 0 for a class; the share of labels that are right; F1 of boxes at IoU .5 that reach their thresholds; the mean IoU over the classes that
        truth or answer has; panoptic quality over all classes. Where truth and answer are both empty 1.
    """
    if truth is None:
        return float("nan")
    if task == "classification":
        return float(int(np.argmax(answer)) == int(truth))
    if task == "multi_label_classification":
        said = np.asarray(answer) >= np.asarray(decoding.get("score_threshold", 0.5))
        return float((said == np.asarray(truth).astype(bool)).mean())
    if task == "detection":
        return _boxes_f1(truth, confident(answer, decoding))
    if task == "semantic_segmentation":
        return _map_iou(truth, answer)
    return _panoptic(truth, answer)


def as_truth(task: str, answer: Any, decoding: Mapping[str, Any]) -> Any:
    """Take an answer for the truth, so that another can be compared with it."""
    if task == "classification":
        return int(np.argmax(answer))
    if task == "multi_label_classification":
        return np.asarray(answer) >= np.asarray(decoding.get("score_threshold", 0.5))
    if task == "detection":
        kept = confident(answer, decoding)
        return TrueBoxes(kept.boxes, kept.labels, np.zeros(len(kept.labels), dtype=np.bool_))
    return answer


def agreement(task: str, first: Any, second: Any, decoding: Mapping[str, Any]) -> float:
    """Say how alike two answers to one image are, 0 to 1: for probabilities 1 less half their distance, else the score of one against the other."""
    if task == "classification":
        return float(1.0 - 0.5 * np.abs(np.asarray(first) - np.asarray(second)).sum())
    if task == "multi_label_classification":
        return float(1.0 - np.abs(np.asarray(first) - np.asarray(second)).mean())
    return image_score(task, as_truth(task, first, decoding), second, decoding)


def count_objects(task: str, answer: Any, decoding: Mapping[str, Any]) -> int:
    """Count what a person would count in an answer: boxes, objects, connected pieces of foreground (8 pixels at least); 0 for classes of an image."""
    if task == "detection":
        return len(confident(answer, decoding).labels)
    if task == "instance_segmentation":
        return len(answer.labels)
    if task == "semantic_segmentation":
        import cv2

        inside = ((answer.labels > 0) & (answer.labels != IGNORED)).astype(np.uint8)
        _, _, figures, _ = cv2.connectedComponentsWithStats(inside, connectivity=8)
        return int((figures[1:, cv2.CC_STAT_AREA] >= 8).sum())
    return 0


def found_share(task: str, answer: Any) -> float:
    """Say how much of an image an answer calls something, 0 to 1: the pixels that are no background; 0 where an answer names no pixels."""
    if task == "semantic_segmentation":
        return float(((answer.labels > 0) & (answer.labels != IGNORED)).mean())
    return float((answer.ids > 0).mean()) if task == "instance_segmentation" else 0.0


def expected_scores(task: str, outputs: Mapping[str, NDArray[Any]], answers: Sequence[Any], decoding: Mapping[str, Any]) -> Floats:
    """Give what each image's score would be if the calibrated probabilities were true, ``(N,)``: the confidence of an answer.

    Of a class its probability; of labels the mean probability of what is said of each; of boxes the expected F1; of maps the expected IoU of the
    foreground's classes (probability within the answer, over the answer's area and the probability outside), of objects that times their mean score.
    """
    if task == "classification":
        return np.asarray(np.asarray(outputs["probabilities"], dtype=np.float64).max(axis=1))
    if task == "multi_label_classification":
        chances = np.asarray(outputs["probabilities"], dtype=np.float64)
        said = chances >= np.asarray(decoding.get("score_threshold", 0.5))
        return np.asarray(np.where(said, chances, 1.0 - chances).mean(axis=1))
    if task == "detection":
        return np.array([_expected_f1(answer, decoding) for answer in answers])
    found = []
    for chances, answer in zip(outputs["probabilities"], answers, strict=True):
        if isinstance(answer, Instances):
            sure = float(answer.scores.mean()) if len(answer.scores) else 1.0
            found.append(_expected_iou(1.0 - chances[:1], (answer.ids > 0)[None]) * sure)
        else:
            said = np.stack([answer.labels == number + 1 for number in range(len(chances) - 1)])
            found.append(_expected_iou(chances[1:], said))
    return np.array(found)


def _expected_iou(chances: NDArray[Any], said: NDArray[np.bool_]) -> float:
    flat = np.asarray(chances, dtype=np.float64).reshape(len(chances), -1)
    inside = said.reshape(len(said), -1)
    within = (flat * inside).sum(axis=1) + _EMPTY_PIXELS
    union = inside.sum(axis=1) + (flat * ~inside).sum(axis=1) + _EMPTY_PIXELS
    # A class counts as much as it is likely to be there at all.
    weight = np.minimum(1.0, (flat.sum(axis=1) + 1e-9) / _EMPTY_PIXELS)
    return float(np.average(within / union, weights=weight))


def _expected_f1(answer: Detections, decoding: Mapping[str, Any]) -> float:
    kept = confident(answer, decoding).scores.astype(np.float64)
    everything = float(answer.scores.astype(np.float64).sum())
    return float((2.0 * kept.sum() + _EMPTY_OBJECTS) / (len(kept) + everything + _EMPTY_OBJECTS))


def _boxes_f1(truth: TrueBoxes, found: Detections) -> float:
    counted = ~truth.crowd if len(truth.crowd) else np.ones(len(truth.labels), dtype=bool)
    boxes, labels = truth.boxes[counted], truth.labels[counted]
    if not len(labels) and not len(found.labels):
        return 1.0
    shared = overlaps(found.boxes, boxes) * (found.labels[:, None] == labels[None]) if len(labels) else np.zeros((len(found.labels), 0))
    taken = np.zeros(len(labels), dtype=bool)
    hits = 0
    for row in shared:
        free = np.where(taken, -1.0, row)
        if len(free) and free.max() >= _MATCHED:
            taken[int(free.argmax())] = True
            hits += 1
    return 2.0 * hits / (len(found.labels) + len(labels))


def _map_iou(truth: ClassMap, answer: ClassMap) -> float:
    known = truth.labels != IGNORED
    if not known.any():
        return float("nan")
    true, said = truth.labels[known], answer.labels[known]
    classes = np.union1d(np.unique(true), np.unique(said))
    classes = classes[classes > 0]
    if not len(classes):
        return 1.0
    return float(np.mean([((true == one) & (said == one)).sum() / ((true == one) | (said == one)).sum() for one in classes]))


def _panoptic(truth: Instances, answer: Instances) -> float:
    pixels = overlap(truth, answer)
    there, counted = pixels.true_areas > 0, ~pixels.void
    same = truth.labels[:, None] == answer.labels[None]
    ious = np.where(same & there[:, None] & counted[None], pixels.ious, 0.0)
    # Masks do not overlap, so that more than a half of both can be had by one pair alone.
    hits = ious > _MATCHED
    sizes = int(there.sum()) + int(counted.sum())
    return 1.0 if not sizes else float(2.0 * ious[hits].sum() / sizes)
