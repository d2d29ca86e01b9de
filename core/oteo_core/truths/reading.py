"""What is true of a sample by a model's task and in its class numbers, in original pixels or in those of the prepared image."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from oteo_core.datasets import DatasetReader, Sample
from oteo_core.images import InputPolicy
from oteo_core.images.geometry import place
from oteo_core.packages.answers import IGNORED, ClassMap, Instances, TrueBoxes
from oteo_core.truths.boxes import boxes_around, boxes_of
from oteo_core.truths.masks import class_map, instance_map, renumbered


def true_class(sample: Sample, classes: Sequence[str]) -> int:
    """Give the number of the sample's one class."""
    return list(classes).index(sample.labels[0])


def true_labels(sample: Sample, classes: Sequence[str]) -> NDArray[np.bool_]:
    """Give which of the classes the sample has, ``(K,)`` bool."""
    return np.array([name in sample.labels for name in classes], dtype=np.bool_)


def true_map(reader: DatasetReader, sample: Sample, classes: Sequence[str]) -> ClassMap:
    """Draw the sample's classes; what is of a class that is not among `classes` is `IGNORED`."""
    # Drawn with the dataset's own classes, whatever their number and order, and renumbered then.
    named = reader.info.classes
    turn = np.full(256, IGNORED, dtype=np.uint8)
    turn[0] = 0
    for number, name in enumerate(named):
        if name in classes:
            turn[number + 1] = list(classes).index(name) + 1
    return ClassMap(turn[class_map(reader, sample, named).labels])


def true_instances(reader: DatasetReader, sample: Sample, classes: Sequence[str]) -> Instances:
    """Draw the sample's objects; those of a class that is not among `classes` are -1."""
    named, known_names = reader.info.classes, list(classes)
    drawn = instance_map(reader, sample, named)
    known = np.array([known_names.index(named[label]) if named[label] in known_names else -1 for label in drawn.labels], dtype=np.int64)
    if (known >= 0).all():
        return Instances(drawn.ids, known, drawn.scores)
    hidden = np.concatenate([[False], known < 0])
    ids = np.where((drawn.ids > 0) & hidden[np.maximum(drawn.ids, 0)], -1, drawn.ids).astype(np.int32)
    return renumbered(ids, known)


def true_boxes(reader: DatasetReader, sample: Sample, classes: Sequence[str]) -> TrueBoxes:
    """Give the boxes of a sample's objects and outlines; of masks of objects, the boxes around them."""
    if sample.mask_path and not (sample.boxes or sample.polygons or sample.rle or sample.oriented_boxes):
        return boxes_around(true_instances(reader, sample, classes))
    return boxes_of(sample, {name: number for number, name in enumerate(classes)})


def annotated(reader: DatasetReader, sample: Sample, task: str) -> bool:
    """Tell whether a sample says what a task asks; of several labels and of boxes, nothing marked is an answer too."""
    if task == "classification":
        return len(sample.labels) == 1
    if task == "multi_label_classification":
        return reader.info.task in ("multi_label_classification", "classification")
    outlined = bool(sample.polygons or sample.rle)
    mask = reader.info.mask
    if task == "semantic_segmentation":
        return outlined or (bool(sample.mask_path) and mask is not None)
    told_apart = bool(sample.mask_path) and mask is not None and mask.kind == "instance"
    if task == "instance_segmentation":
        return outlined or told_apart
    return task == "detection" and (outlined or told_apart or bool(sample.boxes or sample.oriented_boxes) or reader.info.task == task)


def prepared_truth(reader: DatasetReader, sample: Sample, task: str, classes: Sequence[str], policy: InputPolicy) -> Any:
    """Give what is true of a sample in the geometry that `oteo_core.images.prepare` gives its image.

    Parameters
    ----------
    reader, sample
        The dataset and its row, with the sizes that the import found.
    task
        The model's: ``"classification"``, ``"multi_label_classification"``, ``"detection"``, ``"semantic_segmentation"`` or
        ``"instance_segmentation"``.
    classes
        The model's, in its order.
    policy
        How images are prepared.

    Returns
    -------
    int, ndarray, TrueBoxes, ClassMap, Instances or None
        A class number; ``(K,)`` bool; boxes, map or objects in prepared pixels. None where the sample is not annotated for the task, or with a
        class that is not among `classes` alone (classification).

    Raises
    ------
    OteoError
        A mask cannot be read, or is of another size than its image.
    """
    if not annotated(reader, sample, task):
        return None
    if task == "classification":
        return true_class(sample, classes) if sample.labels[0] in classes else None
    if task == "multi_label_classification":
        return true_labels(sample, classes)
    at = place(sample.width, sample.height, policy)
    if task == "detection":
        boxes = true_boxes(reader, sample, classes)
        return TrueBoxes(at.boxes_in(boxes.boxes.reshape(-1, 4)), boxes.labels, boxes.crowd)
    if task == "semantic_segmentation":
        return ClassMap(at.plane_in(true_map(reader, sample, classes).labels, policy, IGNORED))
    objects = true_instances(reader, sample, classes)
    return renumbered(at.plane_in(objects.ids, policy, -1), objects.labels)
