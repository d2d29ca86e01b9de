"""Predictions as CSV, UTF-8.

A row for each image (classes), object (detection, instances) or image and class (semantic segmentation). An image without any object has
one row whose ``class`` is empty, so that a reader knows that it was looked at. Masks are COCO's compressed run lengths of the whole image.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from oteo_automl.predictions.masks import from_runs, to_runs
from oteo_automl.predictions.records import CLASSES, ImageRecord, PredictionSet, number_classes, unreadable
from oteo_core.evaluation.conformal import prediction_sets
from oteo_core.packages.answers import ClassMap, Detections, Instances

# Run lengths of an image full of membranes are longer than the reader's usual limit.
csv.field_size_limit(1 << 30)

_IMAGE = ("sample", "source_path", "group", "split")
_BOX = (*_IMAGE, "width", "height", "class", "score", "left", "top", "right", "bottom")
_MASK = (*_BOX, "mask")
_AREA = (*_IMAGE, "width", "height", "class", "area", "mask")


def write_csv(predictions: PredictionSet) -> bytes:
    """Write a prediction set; see the module for the columns."""
    buffer = io.StringIO()
    writer = csv.writer(buffer, lineterminator="\n")
    if predictions.task in CLASSES:
        _write_classes(writer, predictions)
    else:
        columns = {"detection": _BOX, "instance_segmentation": _MASK, "semantic_segmentation": _AREA}[predictions.task]
        writer.writerow(columns)
        for image, answer in zip(predictions.images, predictions.answers, strict=True):
            head = [image.sample, image.source_path, image.group, image.split, image.width, image.height]
            rows = list(_object_rows(answer, predictions.classes))
            writer.writerows([*head, *row] for row in rows or [[""] * (len(columns) - len(head))])
    return buffer.getvalue().encode()


def _write_classes(writer: Any, predictions: PredictionSet) -> None:
    classes, several = predictions.classes, predictions.task != "classification"
    writer.writerow([*_IMAGE, "true", "predicted", "correct", "prediction_set", *(f"p_{name}" for name in classes)])
    for index, (image, values) in enumerate(zip(predictions.images, predictions.answers, strict=True)):
        truth = predictions.truths[index] if predictions.truths else ()
        chosen = np.flatnonzero(values >= 0.5) if several else [int(np.argmax(values))]
        called = tuple(classes[int(k)] for k in chosen)
        known = bool(predictions.truths) and (several or bool(truth))
        held: tuple[str, ...] = ()
        if predictions.quantile is not None and not several:
            held = tuple(classes[int(k)] for k in np.flatnonzero(prediction_sets(values[None], predictions.quantile)[0]))
        right = str(int(set(called) == set(truth))) if known else ""
        figures = [repr(round(float(value), 8)) for value in values]
        writer.writerow(
            [image.sample, image.source_path, image.group, image.split, "|".join(truth), "|".join(called), right, "|".join(held), *figures]
        )


def _object_rows(answer: Any, classes: Sequence[str]) -> Iterator[list[Any]]:
    if isinstance(answer, Detections):
        for box, score, label in zip(answer.boxes, answer.scores, answer.labels, strict=True):
            yield [classes[int(label)], repr(float(score)), *(repr(float(edge)) for edge in box)]
    elif isinstance(answer, Instances):
        for number, (score, label) in enumerate(zip(answer.scores, answer.labels, strict=True), start=1):
            inside = answer.ids == number
            rows, columns = np.flatnonzero(inside.any(axis=1)), np.flatnonzero(inside.any(axis=0))
            if len(rows):
                box = (columns[0], rows[0], columns[-1] + 1, rows[-1] + 1)
                yield [classes[int(label)], repr(float(score)), *(int(edge) for edge in box), to_runs(inside)]
    elif isinstance(answer, ClassMap):
        for index, name in enumerate(classes):
            inside = answer.labels == index + 1
            if inside.any():
                yield [name, int(inside.sum()), to_runs(inside)]


def read_csv(data: bytes, *, what: str = "the file", classes: Sequence[str] | None = None) -> PredictionSet:
    """Read what `write_csv` wrote, or a table with the same columns.

    Parameters
    ----------
    data
        UTF-8.
    what
        Its name, for errors.
    classes
        The classes and their order; None: those of the file, in the order of their first row.

    Raises
    ------
    InvalidArgument
        ``UNREADABLE_PREDICTIONS``.
    """
    try:
        reader = csv.DictReader(io.StringIO(data.decode("utf-8-sig"), newline=""))
        columns = list(reader.fieldnames or ())
        rows = list(reader)
        if "sample" not in columns:
            raise unreadable(what, "it has no column 'sample'")
        probabilities = [name for name in columns if name.startswith("p_")]
        if probabilities:
            return _read_classes(rows, probabilities, what, classes)
        task = "semantic_segmentation" if "area" in columns else "instance_segmentation" if "mask" in columns else "detection"
        needed = {"semantic_segmentation": ("class", "mask"), "instance_segmentation": ("class", "score", "mask")}
        missing = [name for name in needed.get(task, ("class", "score", "left", "top", "right", "bottom")) if name not in columns]
        if missing:
            raise unreadable(what, f"it has no column {', '.join(missing)}")
        return _read_objects(rows, task, what, classes)
    except (UnicodeDecodeError, csv.Error, ValueError, KeyError, TypeError, IndexError) as error:
        raise unreadable(what, error) from error


def _record(row: dict[str, str]) -> ImageRecord:
    size = [int(float(row.get(name) or 0)) for name in ("width", "height")]
    return ImageRecord(row["sample"], row.get("source_path") or "", size[0], size[1], row.get("group") or "", row.get("split") or "")


def _read_classes(rows: list[dict[str, str]], columns: list[str], what: str, classes: Sequence[str] | None) -> PredictionSet:
    names = [name.removeprefix("p_") for name in columns]
    numbers = number_classes(names, classes, what)
    answers = []
    for row in rows:
        values = np.zeros(len(numbers))
        for name, column in zip(names, columns, strict=True):
            values[numbers[name]] = float(row[column])
        answers.append(values)
    sums = np.array([values.sum() for values in answers])
    several = any("|" in (row.get("predicted") or "") or not row.get("predicted") for row in rows) or bool((np.abs(sums - 1) > 1e-3).any())
    truths = [tuple(part for part in (row.get("true") or "").split("|") if part) for row in rows]
    return PredictionSet(CLASSES[several], tuple(numbers), [_record(row) for row in rows], answers, truths)


def _read_objects(rows: list[dict[str, str]], task: str, what: str, classes: Sequence[str] | None) -> PredictionSet:
    numbers = number_classes([row["class"] for row in rows if row["class"]], classes, what)
    by_image: dict[str, list[dict[str, str]]] = {}
    for row in rows:
        by_image.setdefault(row["sample"], []).append(row)
    images = [_record(first) for first, *_ in by_image.values()]
    answers: list[Any] = []
    for image, several in zip(images, by_image.values(), strict=True):
        objects = [row for row in several if row["class"]]
        labels = np.array([numbers[row["class"]] for row in objects], dtype=np.int64)
        if task == "detection":
            boxes = np.array([[float(row[edge]) for edge in ("left", "top", "right", "bottom")] for row in objects], dtype=np.float32)
            answers.append(in_order(boxes.reshape(-1, 4), np.array([float(row["score"]) for row in objects], dtype=np.float32), labels))
            continue
        shape = (image.height, image.width)
        masks = [from_runs(row["mask"], shape) for row in objects]
        if task == "semantic_segmentation":
            answers.append(class_map(masks, labels, shape))
        else:
            answers.append(instances(masks, labels, np.array([float(row["score"]) for row in objects], dtype=np.float32), shape))
    return PredictionSet(task, tuple(numbers), images, answers)


def in_order(boxes: Any, scores: Any, labels: Any) -> Detections:
    """Put objects in the order of falling score."""
    order = np.argsort(-scores, kind="stable")
    return Detections(boxes[order], scores[order], labels[order])


def class_map(masks: Sequence[Any], labels: Any, shape: tuple[int, int]) -> ClassMap:
    """Put masks of classes together."""
    whole = np.zeros(shape, dtype=np.uint8)
    for inside, label in zip(masks, labels, strict=True):
        whole[inside] = int(label) + 1
    return ClassMap(whole)


def instances(masks: Sequence[Any], labels: Any, scores: Any, shape: tuple[int, int]) -> Instances:
    """Put masks of objects together; where two overlap, the surer one has the pixel, and one that is left without a pixel is dropped."""
    ids = np.zeros(shape, dtype=np.int32)
    for place in np.argsort(scores, kind="stable"):
        ids[masks[place]] = place + 1
    kept = np.unique(ids[ids > 0]) - 1
    renumber = np.zeros(len(masks) + 1, dtype=np.int32)
    renumber[kept + 1] = np.arange(1, len(kept) + 1)
    return Instances(renumber[ids], labels[kept], scores[kept])
