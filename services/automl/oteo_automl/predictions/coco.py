"""Predictions as COCO's results.

The results file is the format that ``pycocotools.COCO.loadRes`` reads (https://cocodataset.org/#format-results): a JSON list with
``image_id``, ``category_id``, ``score`` and ``bbox`` or ``segmentation``. What its numbers mean stands in a second file in the form of COCO's
image-information files: ``images`` (with the sample's id) and ``categories``. Semantic segmentation is written as COCO Stuff has it: a mask for
each class in an image. Classification, which COCO does not know, has a row for each class with its probability.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import PurePosixPath
from typing import Any

import numpy as np
from pycocotools import mask as coco_mask

from oteo_automl.predictions.masks import from_runs, to_runs
from oteo_automl.predictions.records import CLASSES, ImageRecord, PredictionSet, number_classes, unreadable
from oteo_automl.predictions.table import class_map, in_order, instances
from oteo_core.packages.answers import ClassMap, Detections, Instances


def write_coco(predictions: PredictionSet) -> tuple[bytes, bytes]:
    """Write the results file and the file that says what its numbers mean; both from 1."""
    results: list[dict[str, Any]] = []
    images = []
    for number, (image, answer) in enumerate(zip(predictions.images, predictions.answers, strict=True), start=1):
        images.append(
            {
                "id": number,
                "file_name": image.source_path or image.sample,
                "width": image.width,
                "height": image.height,
                "oteo_sample": image.sample,
                "oteo_group": image.group,
                "oteo_split": image.split,
            }
        )
        results += [{"image_id": number, **entry} for entry in _entries(answer, (image.height, image.width))]
    categories = [{"id": index, "name": name} for index, name in enumerate(predictions.classes, start=1)]
    about = {"info": {"description": "predictions", "oteo_task": predictions.task}, "images": images, "categories": categories}
    return _json(results), _json(about)


def _json(value: Any) -> bytes:
    return json.dumps(value, separators=(",", ":"), ensure_ascii=False, allow_nan=False).encode()


def _entries(answer: Any, size: tuple[int, int]) -> list[dict[str, Any]]:
    if isinstance(answer, Detections):
        boxes = [[float(b[0]), float(b[1]), float(b[2]) - float(b[0]), float(b[3]) - float(b[1])] for b in answer.boxes]
        rows = zip(boxes, answer.scores, answer.labels, strict=True)
        return [{"category_id": int(label) + 1, "bbox": box, "score": float(score)} for box, score, label in rows]
    if isinstance(answer, Instances):
        found = []
        for number, (score, label) in enumerate(zip(answer.scores, answer.labels, strict=True), start=1):
            inside = answer.ids == number
            if inside.any():
                runs = coco_mask.encode(np.asfortranarray(inside.astype(np.uint8)))
                box = [float(value) for value in coco_mask.toBbox(runs)]
                mask = {"size": list(size), "counts": runs["counts"].decode("ascii")}
                found.append({"category_id": int(label) + 1, "segmentation": mask, "bbox": box, "score": float(score)})
        return found
    if isinstance(answer, ClassMap):
        there = [int(value) for value in np.unique(answer.labels) if value]
        return [{"category_id": value, "segmentation": {"size": list(size), "counts": to_runs(answer.labels == value)}} for value in there]
    return [{"category_id": index, "score": float(value)} for index, value in enumerate(answer, start=1)]


def read_coco(results: bytes, about: bytes, *, what: str = "the file", classes: Sequence[str] | None = None) -> PredictionSet:
    """Read results with the file that says what their numbers mean (or any COCO annotation file of the same images).

    Parameters
    ----------
    results, about
        JSON.
    what
        Name of the file, for errors.
    classes
        The classes and their order; None: those of `about`.

    Raises
    ------
    InvalidArgument
        ``UNREADABLE_PREDICTIONS``.
    """
    try:
        entries: list[dict[str, Any]] = json.loads(results)
        known: dict[str, Any] = json.loads(about)
        names = {int(entry["id"]): str(entry["name"]) for entry in known["categories"]}
        numbers = number_classes(list(names.values()), classes, what)
        images = {int(entry["id"]): _record(entry) for entry in known["images"]}
        by_image: dict[int, list[dict[str, Any]]] = {number: [] for number in images}
        for entry in entries:
            if int(entry["image_id"]) not in images:
                raise unreadable(what, f"it has results for image {entry['image_id']}, which its file of images does not list")
            by_image[int(entry["image_id"])].append(entry)
        task = str((known.get("info") or {}).get("oteo_task") or _guess(entries))
        labelled = {number: numbers[name] for number, name in names.items()}
        answers = [_answer(by_image[number], labelled, task, image, len(numbers)) for number, image in images.items()]
    except (UnicodeDecodeError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise unreadable(what, repr(error)) from error
    return PredictionSet(task, tuple(numbers), list(images.values()), answers)


def _record(entry: dict[str, Any]) -> ImageRecord:
    path = str(entry.get("file_name") or "")
    sample = str(entry.get("oteo_sample") or PurePosixPath(path).stem or entry["id"])
    size = int(entry.get("width") or 0), int(entry.get("height") or 0)
    return ImageRecord(sample, path, *size, str(entry.get("oteo_group") or ""), str(entry.get("oteo_split") or ""))


def _guess(entries: list[dict[str, Any]]) -> str:
    if entries and "segmentation" in entries[0]:
        return "instance_segmentation" if "score" in entries[0] else "semantic_segmentation"
    return "detection" if not entries or "bbox" in entries[0] else CLASSES[1]


def _answer(entries: list[dict[str, Any]], labelled: dict[int, int], task: str, image: ImageRecord, count: int) -> Any:
    labels = np.array([labelled[int(entry["category_id"])] for entry in entries], dtype=np.int64)
    if task in CLASSES:
        values = np.zeros(count)
        values[labels] = [float(entry["score"]) for entry in entries]
        return values
    scores = np.array([float(entry.get("score", 1.0)) for entry in entries], dtype=np.float32)
    if task == "detection":
        boxes = np.array([entry["bbox"] for entry in entries], dtype=np.float64).reshape(-1, 4)
        boxes[:, 2:] += boxes[:, :2]
        return in_order(boxes.astype(np.float32), scores, labels)
    shape = (image.height, image.width)
    masks = [from_runs(entry["segmentation"]["counts"], shape) for entry in entries]
    return class_map(masks, labels, shape) if task == "semantic_segmentation" else instances(masks, labels, scores, shape)
