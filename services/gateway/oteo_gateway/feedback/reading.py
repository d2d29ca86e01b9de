"""Answers and corrections from the contract's messages, checked against the model that had answered."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from oteo_core.datasets import Sample
from oteo_core.datasets.proto import Objects, annotations_from_proto
from oteo_core.errors import InvalidArgument
from oteo_core.images import ImageHeader, ImageLimits, decode_labels
from oteo_core.packages import ModelPackage
from oteo_core.packages.answers import ClassMap
from oteo_gateway.feedback.agreement import FIGURES
from oteo_protos.gateway.v1 import feedback_pb2, inference_pb2

_RESULTS = {
    "classification": "classification",
    "multi_label_classification": "classification",
    "detection": "detection",
    "semantic_segmentation": "segmentation",
    "instance_segmentation": "segmentation",
}


@dataclass(frozen=True, slots=True)
class Judged:
    """An answer and what a reader says of it.

    Parameters
    ----------
    found, truth
        Labels and objects, with the image's size.
    scores
        Of the answer's objects.
    labels
        The answer as a map, where it was given so.
    """

    found: Sample
    truth: Sample
    scores: tuple[float, ...] = ()
    labels: ClassMap | None = None


def read_correction(request: feedback_pb2.SubmitCorrectionRequest, package: ModelPackage, limits: ImageLimits) -> Judged:
    """Read and check a correction.

    Raises
    ------
    InvalidArgument
        ``ANSWER_MISSING``, ``CLASS_NOT_KNOWN``, ``BAD_CORRECTION``; ``IMAGE_TOO_LARGE`` for an answer of an image that no prediction takes.
    """
    answer = request.answer
    if package.task not in FIGURES or answer.WhichOneof("result") != _RESULTS[package.task]:
        raise missing(f"The answer has no result of {package.name}, which is for {package.task}; give it as Predict gave it.")
    image = answer.image
    if len(image.sha256) != 64 or image.width <= 0 or image.height <= 0:
        raise missing("The answer does not say what its image was (image); give it as Predict gave it.")
    # Outlines and run lengths are drawn at the size that is said here, which the caller could make any.
    limits.check(ImageHeader("answer", image.width, image.height, 1, "uint8"))
    truth = _truth(request, package)
    found, scores, labels = _found(answer, package, limits)
    return Judged(found, truth, scores, labels)


def missing(words: str) -> InvalidArgument:
    """Give the error of an answer that is not whole."""
    return InvalidArgument(words, reason="ANSWER_MISSING", field="answer")


def _sample(objects: Objects, width: int, height: int) -> Sample:
    return Sample(
        "answer",
        width=width,
        height=height,
        labels=objects.labels,
        boxes=objects.boxes,
        polygons=objects.polygons,
        rle=objects.rle,
        oriented_boxes=objects.oriented_boxes,
    )


def _truth(request: feedback_pb2.SubmitCorrectionRequest, package: ModelPackage) -> Sample:
    unknown = sorted({item.class_name for item in request.annotations} - set(package.classes))
    if unknown:
        raise InvalidArgument(
            f"{package.name} knows the classes {', '.join(package.classes)}; not {', '.join(unknown)}.",
            reason="CLASS_NOT_KNOWN",
            field="annotations",
        )
    for item in request.annotations:
        item.ClearField("score")
    objects = annotations_from_proto(request.annotations)
    width, height = request.answer.image.width, request.answer.image.height
    wrong = _wrong(objects, package.task, width, height)
    if wrong:
        raise InvalidArgument(wrong, reason="BAD_CORRECTION", field="annotations")
    return _sample(objects, width, height)


def _wrong(objects: Objects, task: str, width: int, height: int) -> str:
    """Say why annotations do not answer a task's question; "" where they do."""
    placed = bool(objects.boxes or objects.polygons or objects.rle or objects.oriented_boxes)
    if objects.keypoints:
        return "Key points answer no task that is served."
    if task in ("classification", "multi_label_classification"):
        if placed:
            return "This model says what a whole image is: give classes without a place."
        if task == "classification" and len(objects.labels) != 1:
            return f"An image has exactly one class here, not {len(objects.labels)}."
        return ""
    if objects.labels:
        return "This model says where things are: give each class a box, an outline or a mask; no annotation at all where nothing is there."
    if task != "detection" and (objects.boxes or objects.oriented_boxes):
        return "This model gives masks: give outlines or masks, not boxes."
    for mask in objects.rle:
        if (mask.width, mask.height) != (width, height) or sum(mask.counts) != width * height:
            return f"A mask has {mask.width} x {mask.height} pixels and runs over {sum(mask.counts)}; the image has {width} x {height}."
    return ""


def _found(
    answer: inference_pb2.PredictResponse, package: ModelPackage, limits: ImageLimits
) -> tuple[Sample, tuple[float, ...], ClassMap | None]:
    width, height = answer.image.width, answer.image.height
    if package.task == "classification":
        said = answer.classification.decision or next((score.class_name for score in answer.classification.scores), "")
        if not said:
            raise missing("The answer names no class; give it as Predict gave it.")
        return Sample("answer", width=width, height=height, labels=(said,)), (), None
    if package.task == "multi_label_classification":
        return Sample("answer", width=width, height=height, labels=tuple(answer.classification.decisions)), (), None
    if package.task == "detection":
        items = list(answer.detection.objects)
        scores = tuple(item.score for item in items)
        return _sample(annotations_from_proto(items), width, height), scores, None
    regions = [region.annotation for region in answer.segmentation.regions]
    objects = annotations_from_proto(regions)
    whole = all(region.WhichOneof("geometry") in ("mask", "polygons") for region in regions)
    wrong = _wrong(objects, package.task, width, height) if whole else ""
    if wrong:
        raise missing(wrong)
    picture = answer.segmentation.label_image.content
    if package.task == "semantic_segmentation" and picture:
        numbers = decode_labels(picture, limits)
        plane = numbers[:, :, 0] if numbers.ndim == 3 else numbers
        if plane.shape != (height, width):
            raise missing("The answer's label image is not of the image's size.")
        return _sample(objects if whole else annotations_from_proto(()), width, height), (), ClassMap(plane.astype(np.uint8))
    if not whole:
        raise missing("The answer's regions have no masks; ask Predict for masks, or give the label image of a semantic segmentation.")
    return _sample(objects, width, height), (), None
