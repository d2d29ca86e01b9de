"""A sheet of pictures that shows what a policy does to a dataset's samples, with the annotations drawn."""

from __future__ import annotations

import textwrap
import zlib
from collections.abc import Sequence
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from oteo_augment.augmentation.shard import augmented_copy, sample_annotations
from oteo_core.augmentation import Annotations, Policy
from oteo_core.datasets import DatasetInfo, DatasetReader, Sample
from oteo_core.datasets.runs import mask_from_runs
from oteo_core.errors import FailedPrecondition, InvalidArgument
from oteo_core.images import ImageLimits

CELL = 256
"""Largest side of a picture, pixels."""
_CAPTION = 22
_GAP = 6
_INK, _PAPER = (40, 40, 40), 255


def preview_sheet(reader: DatasetReader, policy: Policy, *, samples: int, copies: int, seed: int, limits: ImageLimits) -> NDArray[np.uint8]:
    """Draw a row for each sample: the original, then its copies, the same that `AugmentDataset` would make.

    Returns
    -------
    ndarray
        (H, W, 3) RGB.

    Raises
    ------
    FailedPrecondition
        NOTHING_TO_SHOW where the dataset has no picture that was not left out.
    InvalidArgument
        What `augment` says of a policy that is not defined for any of the images; where it is for some, the others' cells say why they are empty.
    """
    rows = []
    refused: InvalidArgument | None = None
    made_any = False
    for sample in _chosen(reader, samples):
        pixels = reader.image(sample, limits).pixels
        annotations = sample_annotations(reader, sample, limits)
        cells = [_cell(reader.info, pixels, annotations, sample.source_path or sample.id)]
        for number in range(copies):
            try:
                made = augmented_copy(policy, seed, reader.info, sample, pixels, annotations, number)
            except InvalidArgument as error:
                refused = refused or InvalidArgument(
                    f"{sample.source_path or sample.id}: {error.message}", reason=error.reason, field=error.field
                )
                cells.append(_empty(error.message))
                continue
            made_any = True
            taken = ", ".join(policy.steps[step].transform for step in made.steps) or "nothing was drawn"
            cells.append(_cell(reader.info, made.pixels, made.annotations, taken))
        rows.append(np.concatenate(cells, axis=1))
    if refused is not None and not made_any:
        raise refused
    return np.ascontiguousarray(np.concatenate(rows, axis=0))


def _chosen(reader: DatasetReader, count: int) -> list[Sample]:
    """Choose samples of the training part, or of all parts where there is none, spread over the classes and the dataset."""
    usable = [s for s in reader.samples(columns=["split", "labels", "media_kind", "frames", "sequence"]) if s.is_picture]
    usable = [s for s in usable if s.split == "train"] or usable
    if not usable:
        raise FailedPrecondition(f"datasets/{reader.info.id} has no picture to show", reason="NOTHING_TO_SHOW", field="dataset")
    by_label: dict[tuple[str, ...], list[Sample]] = {}
    for sample in usable:
        by_label.setdefault(sample.labels, []).append(sample)
    groups = [by_label[label] for label in sorted(by_label)]
    ids: list[str] = []
    for position, group in enumerate(groups):
        share = min(len(group), count // len(groups) + (position < count % len(groups)))
        # From all over the class's list.
        ids += [group[number * len(group) // share].id for number in range(share)]
    return [reader.sample(name) for name in ids]


def _cell(info: DatasetInfo, pixels: NDArray[Any], annotations: Annotations, caption: str) -> NDArray[np.uint8]:
    picture = _shown(pixels)
    scale = CELL / max(picture.shape[:2])
    size = (max(1, round(picture.shape[1] * scale)), max(1, round(picture.shape[0] * scale)))
    picture = np.asarray(cv2.resize(picture, size, interpolation=cv2.INTER_AREA if scale < 1 else cv2.INTER_NEAREST), np.uint8)
    _draw(picture, annotations, scale, info)
    cell = np.full((CELL + _CAPTION + _GAP, CELL + _GAP, 3), _PAPER, np.uint8)
    cell[: size[1], : size[0]] = picture
    words = caption.encode("ascii", "replace").decode()
    words = words if len(words) <= 40 else "..." + words[-37:]
    cv2.putText(cell, words, (2, CELL + 14), cv2.FONT_HERSHEY_SIMPLEX, 0.36, _INK, 1, cv2.LINE_AA)
    return cell


def _empty(why: str) -> NDArray[np.uint8]:
    """Give a cell without a picture that says why."""
    cell = np.full((CELL + _CAPTION + _GAP, CELL + _GAP, 3), _PAPER, np.uint8)
    for number, line in enumerate(textwrap.wrap(f"not augmented: {why}".encode("ascii", "replace").decode(), 36)[:12]):
        cv2.putText(cell, line, (8, 24 + 18 * number), cv2.FONT_HERSHEY_SIMPLEX, 0.36, _INK, 1, cv2.LINE_AA)
    return cell


def _shown(pixels: NDArray[Any]) -> NDArray[np.uint8]:
    """Give pixels as 8-bit RGB: other depths from their smallest to their largest finite value, other channels by the first."""
    shown = pixels[:, :, :3] if pixels.shape[2] >= 3 else pixels[:, :, :1]
    if shown.dtype != np.uint8:
        finite = np.isfinite(shown)
        low, high = (float(shown[finite].min()), float(shown[finite].max())) if finite.any() else (0.0, 1.0)
        shown = (np.nan_to_num(shown.astype(np.float64), nan=low, posinf=high, neginf=low) - low) / max(high - low, 1e-12) * 255.0
    return np.ascontiguousarray(np.broadcast_to(shown, (*shown.shape[:2], 3)).astype(np.uint8))


def _draw(picture: NDArray[np.uint8], annotations: Annotations, scale: float, info: DatasetInfo) -> None:
    """Draw annotations, in a colour for each class, or for each object of an instance mask."""
    if annotations.mask is not None:
        shape = (picture.shape[1], picture.shape[0])
        numbers, which = np.unique(annotations.mask, return_inverse=True)
        # OpenCV resizes no wide integers; what is drawn needs to tell numbers apart, not to keep them.
        small = np.asarray(cv2.resize(which.reshape(annotations.mask.shape).astype(np.float32), shape, interpolation=cv2.INTER_NEAREST))
        for place, number in enumerate(numbers.tolist()):
            if number and number not in annotations.ignore:
                edges, _ = cv2.findContours((small == place).astype(np.uint8), cv2.RETR_CCOMP, cv2.CHAIN_APPROX_NONE)
                cv2.drawContours(picture, edges, -1, _colour(str(number)), 1)
    for runs in annotations.rle:
        mask = cv2.resize(
            mask_from_runs(runs.counts, runs.height, runs.width), (picture.shape[1], picture.shape[0]), interpolation=cv2.INTER_NEAREST
        )
        edges, _ = cv2.findContours(np.asarray(mask, np.uint8), cv2.RETR_CCOMP, cv2.CHAIN_APPROX_NONE)
        cv2.drawContours(picture, edges, -1, _colour(runs.class_name), 1)
    for outline in annotations.polygons:
        for ring in outline.rings:
            _line(picture, np.reshape(ring, (-1, 2)) * scale, _colour(outline.class_name))
    for box in annotations.boxes:
        corners = np.array(
            [[box.x, box.y], [box.x + box.width, box.y], [box.x + box.width, box.y + box.height], [box.x, box.y + box.height]]
        )
        _line(picture, corners * scale, _colour(box.class_name))
    for turned in annotations.oriented_boxes:
        _line(picture, np.array(turned.corners()) * scale, _colour(turned.class_name))
    for marked in annotations.keypoints:
        for point in marked.points:
            # A filled dot where the point is seen, a ring where it is hidden; each name has its colour.
            middle = np.rint((np.array([point.x, point.y]) * scale - 0.5) * 16).astype(int).tolist()
            cv2.circle(picture, middle, 3 * 16, _colour(point.name), -1 if point.visible else 1, cv2.LINE_AA, 4)


def _line(picture: NDArray[np.uint8], corners: NDArray[np.float64], colour: Sequence[float]) -> None:
    # Pixels' middles are OpenCV's whole numbers; four bits of fraction.
    points = np.rint((corners - 0.5) * 16).astype(np.int32)
    cv2.polylines(picture, [points], True, colour, 1, cv2.LINE_AA, 4)


def _colour(name: str) -> tuple[float, float, float]:
    """Give a bright colour that a name always has."""
    hue = zlib.crc32(name.encode()) % 180
    red, green, blue = cv2.cvtColor(np.array([[[hue, 220, 255]]], np.uint8), cv2.COLOR_HSV2RGB)[0, 0].tolist()
    return float(red), float(green), float(blue)
