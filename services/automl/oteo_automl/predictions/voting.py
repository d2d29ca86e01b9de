"""What several detectors found in an image, made one.

Voting: Casado-Garcia and Heras, "Ensemble methods for object detection", ECAI 2020. Boxes of one class that overlap are a group; affirmative
keeps every group, consensus those that more than half of the detectors are in, unanimous those that all are in. Of a kept group its surest box
is the answer. Weighted box fusion: Solovyev, Wang and Gabruseva, Image Vis. Comput. 107, 2021.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from pycocotools import mask as coco_mask

from oteo_automl.predictions.records import PredictionSet
from oteo_core.errors import InvalidArgument
from oteo_core.packages.answers import Detections

METHODS = ("affirmative", "consensus", "unanimous", "weighted_box_fusion")

USUAL_IOU = {"affirmative": 0.5, "consensus": 0.5, "unanimous": 0.5, "weighted_box_fusion": 0.55}
"""Overlap from which two boxes are of one object, as in the papers."""

Floats = NDArray[np.float64]


def combine(found: Sequence[Detections], method: str, *, iou: float = 0.0, weights: Sequence[float] | None = None) -> Detections:
    """Combine what several detectors found in one image.

    Parameters
    ----------
    found
        One for each detector.
    method
        One of `METHODS`.
    iou
        Overlap above which two boxes are of one object; 0: `USUAL_IOU`.
    weights
        How much each detector counts in weighted box fusion; None: all alike.

    Returns
    -------
    Detections
        By falling score.

    Raises
    ------
    ValueError
        A method that is not known, or as many weights as there are no detectors.
    """
    if method not in METHODS:
        raise ValueError(f"{method!r} is none of {', '.join(METHODS)}")
    given = [1.0] * len(found) if weights is None else [float(weight) for weight in weights]
    if len(given) != len(found):
        raise ValueError(f"{len(given)} weights for {len(found)} detectors")
    boxes = np.concatenate([np.zeros((0, 4)), *(one.boxes.astype(np.float64) for one in found)])
    scores = np.concatenate([np.zeros(0), *(one.scores.astype(np.float64) for one in found)])
    labels = np.concatenate([np.zeros(0, dtype=np.int64), *(one.labels for one in found)]).astype(np.int64)
    voters = np.repeat(np.arange(len(found)), [len(one.scores) for one in found])
    limit = iou or USUAL_IOU[method]
    kept: list[tuple[Floats, float, int]] = []
    for label in np.unique(labels):
        mine = np.flatnonzero(labels == label)
        if method == "weighted_box_fusion":
            fused = _fuse(boxes[mine], scores[mine], voters[mine], np.array(given), limit)
        else:
            fused = _vote(boxes[mine], scores[mine], voters[mine], len(found), method, limit)
        kept += [(box, score, int(label)) for box, score in fused]
    kept.sort(key=lambda entry: -entry[1])
    return Detections(
        np.array([box for box, _, _ in kept], dtype=np.float32).reshape(-1, 4),
        np.array([score for _, score, _ in kept], dtype=np.float32),
        np.array([label for _, _, label in kept], dtype=np.int64),
    )


def _overlap(box: Floats, others: Floats) -> Floats:
    one, several = (np.concatenate([edges[:, :2], edges[:, 2:] - edges[:, :2]], axis=1) for edges in (box[None], others))
    shared: Floats = coco_mask.iou(np.ascontiguousarray(one), np.ascontiguousarray(several), [0] * len(several))[0]
    return shared


def _vote(boxes: Floats, scores: Floats, voters: NDArray[np.int64], count: int, method: str, iou: float) -> list[tuple[Floats, float]]:
    needed = {"affirmative": 1, "consensus": count // 2 + 1, "unanimous": count}[method]
    left = np.argsort(-scores, kind="stable")
    kept = []
    while len(left):
        group = _overlap(boxes[left[0]], boxes[left]) > iou
        group[0] = True
        if len(np.unique(voters[left[group]])) >= needed:
            kept.append((boxes[left[0]], float(scores[left[0]])))
        left = left[~group]
    return kept


def _fuse(boxes: Floats, scores: Floats, voters: NDArray[np.int64], weights: Floats, iou: float) -> list[tuple[Floats, float]]:
    """Boxes join the fused box that they overlap most; fused boxes are means by weighted score, renewed with each that joins."""
    strengths = scores * weights[voters]
    fused = np.zeros((0, 4))
    members: list[list[int]] = []
    for place in np.argsort(-strengths, kind="stable"):
        overlaps = _overlap(boxes[place], fused) if len(fused) else np.zeros(0)
        best = int(overlaps.argmax()) if len(overlaps) else -1
        if best >= 0 and overlaps[best] > iou:
            members[best].append(int(place))
            share = strengths[members[best]]
            if share.sum() > 0:
                fused[best] = share @ boxes[members[best]] / share.sum()
        else:
            members.append([int(place)])
            fused = np.concatenate([fused, boxes[place][None]])
    total = float(weights.sum())
    found = []
    for box, group in zip(fused, members, strict=True):
        # A lone detector's word counts for its share; boxes of more than one a detector count for no more than all detectors.
        score = float(strengths[group].mean()) * min(len(group), len(weights)) / total
        found.append((box, min(1.0, score)))
    return found


def combine_sets(
    sets: Sequence[PredictionSet],
    method: str,
    *,
    iou: float = 0.0,
    weights: Sequence[float] | None = None,
    score_threshold: float = 0.0,
) -> PredictionSet:
    """Combine prediction sets, image by image.

    An image that a set does not list is one in which its detector found nothing. Classes go by their names.

    Raises
    ------
    InvalidArgument
        ``WRONG_TASK``: not detections.
    """
    for one in sets:
        if one.task != "detection":
            raise InvalidArgument(
                f"boxes of detections can be combined, and one of the files is of {one.task}", reason="WRONG_TASK", field="inputs"
            )
    classes = tuple(dict.fromkeys(name for one in sets for name in one.classes))
    images = {image.sample: image for one in reversed(sets) for image in one.images}
    order = list(dict.fromkeys(image.sample for one in sets for image in one.images))
    by_sample = []
    for one in sets:
        numbers = np.array([classes.index(name) for name in one.classes], dtype=np.int64)
        found = {}
        for image, answer in zip(one.images, one.answers, strict=True):
            kept = answer.scores >= score_threshold
            found[image.sample] = Detections(answer.boxes[kept], answer.scores[kept], numbers[answer.labels[kept]])
        by_sample.append(found)
    empty = Detections()
    answers = [combine([found.get(sample, empty) for found in by_sample], method, iou=iou, weights=weights) for sample in order]
    return PredictionSet("detection", classes, [images[sample] for sample in order], answers)
