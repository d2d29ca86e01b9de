"""Prediction files judged on a dataset."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import PurePosixPath

import numpy as np

from oteo_automl.predictions.records import PredictionSet
from oteo_core.datasets import DatasetReader, Sample
from oteo_core.errors import InvalidArgument
from oteo_core.evaluation.detection import evaluate_detection
from oteo_core.packages import MetricValue
from oteo_core.packages.answers import Detections
from oteo_core.truths.reading import true_boxes


def judge_sets(sets: Sequence[PredictionSet], reader: DatasetReader, *, seed: int = 0) -> list[list[MetricValue]]:
    """Judge detections on the images of a dataset that any of the sets lists, all on the same images.

    Images are known by their sample's id, else by their source path or its file's name without the ending. What a set does not list is an
    image in which it found nothing.

    Parameters
    ----------
    sets
        Detections.
    reader
        The dataset.
    seed
        Of the intervals.

    Returns
    -------
    list
        Metrics of each set; F1 is at each set's and class's own best threshold.

    Raises
    ------
    InvalidArgument
        ``NO_COMMON_IMAGE``: no set lists an image of the dataset.
    """
    classes = list(dict.fromkeys([*reader.info.classes, *(name for one in sets for name in one.classes)]))
    numbers = {name: number for number, name in enumerate(classes)}
    listed = [{key: place for place, image in enumerate(one.images) for key in (image.source_path, image.sample) if key} for one in sets]
    samples, places = [], []
    for sample in reader.samples():
        found = [next((known[key] for key in _keys(sample) if key in known), None) for known in listed]
        if any(place is not None for place in found):
            samples.append(sample)
            places.append(found)
    if not samples:
        raise InvalidArgument(
            f"none of the predictions is for an image of datasets/{reader.info.id}: images are known by their sample's id or source path",
            reason="NO_COMMON_IMAGE",
            field="dataset",
        )
    truths = [true_boxes(reader, sample, classes) for sample in samples]
    groups = [sample.group or sample.id for sample in samples]
    parts = "+".join(sorted({sample.split for sample in samples} - {""})) or "all"
    results = []
    for index, one in enumerate(sets):
        renumbered = [numbers[name] for name in one.classes]
        answers = [_renumber(one.answers[place], renumbered) if (place := row[index]) is not None else Detections() for row in places]
        results.append(evaluate_detection(truths, answers, classes, groups=groups, split=parts, seed=seed))
    return results


def _keys(sample: Sample) -> tuple[str, ...]:
    return sample.id, sample.source_path, PurePosixPath(sample.source_path).stem


def _renumber(answer: Detections, numbers: Sequence[int]) -> Detections:
    return Detections(
        answer.boxes, answer.scores, np.array(numbers, dtype=np.int64)[answer.labels] if len(answer.labels) else answer.labels
    )
