"""How right an answer was, by task, against what a reader says."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from oteo_core.datasets import Sample
from oteo_core.evaluation.scored import score_answers
from oteo_core.packages.answers import ClassMap, Detections
from oteo_core.truths.boxes import boxes_of
from oteo_core.truths.masks import class_map, instance_map

FIGURES = {
    "classification": "accuracy",
    "multi_label_classification": "jaccard",
    "detection": "f1",
    "instance_segmentation": "f1",
    "semantic_segmentation": "dice",
}
"""What the mean agreement is called, by task."""


def agreement(
    task: str, classes: Sequence[str], found: Sample, truth: Sample, scores: Sequence[float] = (), labels: ClassMap | None = None
) -> float:
    """Compare an answer with a reader's.

    Parameters
    ----------
    task
        A key of `FIGURES`.
    classes
        The model's.
    found, truth
        Labels and objects of both, with the image's width and height.
    scores
        Of the answer's boxes, for the order in which they are matched; empty: all alike.
    labels
        The answer of a semantic segmentation as a map, where it was given so; None: its outlines are drawn.

    Returns
    -------
    float
        0 to 1. Classification: whether the class is right. Several labels: Jaccard's index of the sets. Objects: F1 at IoU .5, mean over the
        classes that are there or were found. Maps: Dice, mean over the same. 1 where nothing is there and nothing was found.
    """
    if task == "classification":
        return float(found.labels == truth.labels)
    if task == "multi_label_classification":
        ours, theirs = set(found.labels), set(truth.labels)
        return len(ours & theirs) / len(ours | theirs) if ours | theirs else 1.0
    names = tuple(classes)
    numbers = {name: place for place, name in enumerate(names)}
    one: Any
    other: Any
    if task == "detection":
        boxes = boxes_of(found, numbers)
        strength = np.asarray(scores if len(scores) == len(boxes.labels) else np.ones(len(boxes.labels)), dtype=np.float32)
        order = np.argsort(-strength, kind="stable")
        one, other = boxes_of(truth, numbers), Detections(boxes.boxes[order], strength[order], boxes.labels[order])
    elif task == "semantic_segmentation":
        one, other = class_map(None, truth, names), labels if labels is not None else class_map(None, found, names)
    else:
        one, other = instance_map(None, truth, names), instance_map(None, found, names)
    figure = score_answers(task, len(names), [one], [other], 0.0 if task == "detection" else None).one(FIGURES[task])
    value = float(figure(np.ones((1, 1)))[0])
    return float(np.clip(value, 0.0, 1.0)) if np.isfinite(value) else 1.0
