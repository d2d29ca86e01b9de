"""Found objects and regions, measured: areas, diameters, run lengths and label images."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

import cv2
import numpy as np
from numpy.typing import NDArray

from oteo_core.images import encode_png
from oteo_core.packages import ModelPackage
from oteo_core.packages.answers import Detections
from oteo_core.packages.decoding.detection import confident, decode_detections
from oteo_core.packages.decoding.instances import decode_instances
from oteo_core.packages.decoding.semantic import decode_class_maps
from oteo_gateway.prediction.outlines import outlines_of

MOST_REGIONS = 1000
"""Regions that are listed, the largest first; the label image has all."""

Mask = NDArray[np.bool_]
MaskForm = Literal["runs", "polygons", "none"]


@dataclass(frozen=True, slots=True)
class ObjectAnswer:
    """What a detection found.

    Attributes
    ----------
    objects
        Class, score (0 to 1) and box (left, top, right, bottom, pixels of the original), the surest first.
    """

    objects: tuple[tuple[str, float, tuple[float, float, float, float]], ...]


@dataclass(frozen=True, slots=True)
class Region:
    """A piece of a class, or an object.

    Attributes
    ----------
    class_name, score
        Its class; its score, 0 to 1, None where regions have none.
    area, diameter
        Pixels; the diameter is the longest distance between two corners of its pixels.
    area_mm2, diameter_mm
        None where the size of pixels is not known.
    box
        Left, top, right, bottom of its pixels.
    runs
        COCO's run lengths over the whole image, column by column; empty where not asked for.
    outlines
        Its outer outlines, see `outlines_of`; empty where not asked for.
    """

    class_name: str
    score: float | None
    area: int
    diameter: float
    area_mm2: float | None
    diameter_mm: float | None
    box: tuple[int, int, int, int]
    runs: tuple[int, ...] = ()
    outlines: tuple[tuple[float, ...], ...] = ()


@dataclass(frozen=True, slots=True)
class RegionAnswer:
    """What a segmentation found.

    Attributes
    ----------
    regions
        The largest first, at most `MOST_REGIONS`.
    total
        Number of all regions.
    label_image
        PNG, of the original's size: the class's number from 1 (semantic) or the object's (instances), 0 background.
    width, height
        Of the original.
    labels
        ``(height, width)``: what `label_image` holds.
    object_classes
        Class number of each object of an instance segmentation; None for a semantic one.
    """

    regions: tuple[Region, ...]
    total: int
    label_image: bytes
    width: int
    height: int
    labels: NDArray[Any]
    object_classes: tuple[int, ...] | None = None


def find_boxes(outputs: Mapping[str, NDArray[Any]], size: tuple[int, int], package: ModelPackage, threshold: float | None) -> ObjectAnswer:
    """Make the answer of a detection.

    Parameters
    ----------
    outputs
        Of the model, for one image.
    size
        Width and height of the original.
    package
        The model's.
    threshold
        Least score; None: the package's.
    """
    found = decode_detections(outputs, [size], package.input, package.decoding)[0]
    if threshold is None:
        found = confident(found, package.decoding)
    else:
        kept = found.scores >= threshold
        found = Detections(found.boxes[kept], found.scores[kept], found.labels[kept])
    rows = zip(found.labels.tolist(), found.scores.tolist(), found.boxes.tolist(), strict=True)
    return ObjectAnswer(tuple((package.classes[label], min(1.0, score), (b[0], b[1], b[2], b[3])) for label, score, b in rows))


def find_classes(
    outputs: Mapping[str, NDArray[Any]],
    size: tuple[int, int],
    package: ModelPackage,
    spacing: tuple[float, float] | None,
    masks: MaskForm = "runs",
) -> RegionAnswer:
    """Make the answer of a semantic segmentation: its connected pieces, class by class.

    Parameters
    ----------
    outputs, size, package
        As of `find_boxes`.
    spacing
        Width and height of a pixel, mm; None where not known.
    masks
        How regions' masks are given; "none": not at all.
    """
    labels = decode_class_maps(outputs, [size], package.input, package.decoding)[0].labels
    pieces: list[tuple[str, float | None, Mask, int, int]] = []
    for number, name in enumerate(package.classes, start=1):
        count, connected, boxes, _ = cv2.connectedComponentsWithStats((labels == number).astype(np.uint8), connectivity=8)
        for piece in range(1, count):
            left, top, width, height = (int(value) for value in boxes[piece, :4])
            window = connected[top : top + height, left : left + width] == piece
            pieces.append((name, None, window, left, top))
    return _answer(pieces, size, spacing, labels, None, masks)


def find_instances(
    outputs: Mapping[str, NDArray[Any]],
    size: tuple[int, int],
    package: ModelPackage,
    spacing: tuple[float, float] | None,
    threshold: float | None,
    masks: MaskForm = "runs",
) -> RegionAnswer:
    """Make the answer of an instance segmentation: its objects.

    Parameters
    ----------
    outputs, size, package, threshold
        As of `find_boxes`.
    spacing
        Width and height of a pixel, mm; None where not known.
    masks
        As of `find_classes`.
    """
    from scipy.ndimage import find_objects

    decoding = dict(package.decoding) if threshold is None else {**package.decoding, "score": threshold}
    found = decode_instances(outputs, [size], package.input, decoding)[0]
    pieces: list[tuple[str, float | None, Mask, int, int]] = []
    for place, where in enumerate(find_objects(found.ids, max_label=len(found.labels))):
        if where is None:
            continue
        window = found.ids[where] == place + 1
        score = min(1.0, max(0.0, float(found.scores[place])))
        pieces.append((package.classes[int(found.labels[place])], score, window, where[1].start, where[0].start))
    dtype = np.uint8 if len(found.labels) < 256 else np.uint16
    return _answer(pieces, size, spacing, found.ids.astype(dtype), tuple(int(number) for number in found.labels), masks)


def _answer(
    pieces: list[tuple[str, float | None, Mask, int, int]],
    size: tuple[int, int],
    spacing: tuple[float, float] | None,
    labels: NDArray[Any],
    object_classes: tuple[int, ...] | None,
    masks: MaskForm,
) -> RegionAnswer:
    areas = [int(np.count_nonzero(window)) for _, _, window, _, _ in pieces]
    order = sorted(range(len(pieces)), key=lambda place: -areas[place])[:MOST_REGIONS]
    regions = []
    for place in order:
        name, score, window, left, top = pieces[place]
        regions.append(
            Region(
                class_name=name,
                score=score,
                area=areas[place],
                diameter=diameter(window),
                area_mm2=areas[place] * spacing[0] * spacing[1] if spacing else None,
                diameter_mm=diameter(window, spacing) if spacing else None,
                box=_extent(window, left, top),
                runs=runs_of(window, left, top, size) if masks == "runs" else (),
                outlines=outlines_of(window, left, top) if masks == "polygons" else (),
            )
        )
    return RegionAnswer(tuple(regions), len(pieces), encode_png(labels), *size, labels, object_classes)


def _extent(window: Mask, left: int, top: int) -> tuple[int, int, int, int]:
    rows, columns = np.flatnonzero(window.any(axis=1)), np.flatnonzero(window.any(axis=0))
    return left + int(columns[0]), top + int(rows[0]), left + int(columns[-1]) + 1, top + int(rows[-1]) + 1


def diameter(window: Mask, spacing: tuple[float, float] = (1.0, 1.0)) -> float:
    """Give the longest distance between two corners of a region's pixels (its largest Feret diameter); `spacing` is a pixel's width and height.

    The hull of the first and last pixel of each row is the hull of all.
    """
    rows = np.flatnonzero(window.any(axis=1))
    first = window[rows].argmax(axis=1)
    last = window.shape[1] - window[rows][:, ::-1].argmax(axis=1)
    ends = [(column, row + below) for columns in (first, last) for below in (0, 1) for column, row in zip(columns, rows, strict=True)]
    points = (np.array(ends, dtype=np.float64) * np.array(spacing)).astype(np.float32)
    hull = cv2.convexHull(points).reshape(-1, 2).astype(np.float64)
    return float(np.sqrt(((hull[:, None] - hull[None]) ** 2).sum(axis=2).max()))


def runs_of(window: Mask, left: int, top: int, size: tuple[int, int]) -> tuple[int, ...]:
    """Give COCO's run lengths (column by column, beginning with 0) of a region that lies in a window of an image of this width and height."""
    width, height = size
    padded = np.zeros((window.shape[0] + 2, window.shape[1]), dtype=np.int8)
    padded[1:-1] = window
    steps = np.diff(padded, axis=0).T
    columns, rows = np.nonzero(steps)
    edges = (columns + left) * height + rows + top
    # A run that goes on at the top of the next column is one run.
    starts, ends = edges[0::2], edges[1::2]
    kept = np.ones(len(starts), dtype=np.bool_)
    kept[1:] = starts[1:] != ends[:-1]
    closing = np.append(kept[1:], True)
    bounds = np.stack([starts[kept], ends[closing]], axis=1).ravel()
    counts = np.diff(np.concatenate([[0], bounds, [width * height]]))
    return tuple(int(value) for value in (counts[:-1] if counts[-1] == 0 else counts))
