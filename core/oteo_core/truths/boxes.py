"""From a dataset's boxes, outlines and masks to the boxes of an image's objects, in original pixels."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from oteo_core.datasets import Sample
from oteo_core.datasets.annotations import Box, OrientedBox, Polygons, Rle
from oteo_core.packages.answers import Instances, TrueBoxes


def boxes_of(sample: Sample, numbers: Mapping[str, int]) -> TrueBoxes:
    """Give the objects of a sample as boxes in original pixels, cut off at the image's borders.

    An object that has a box and an outline counts once, by its box. Boxes without area, and those of classes without a number, are
    left out.

    Parameters
    ----------
    sample
        With boxes, oriented boxes, polygons or run-length masks.
    numbers
        Class numbers by name.
    """
    boxes: list[tuple[float, float, float, float]] = []
    labels: list[int] = []
    crowd: list[bool] = []
    seen: set[int] = set()
    objects: list[Box | OrientedBox | Polygons | Rle] = [*sample.boxes, *sample.oriented_boxes, *sample.polygons, *sample.rle]
    for item in objects:
        if item.class_name not in numbers or (item.instance >= 0 and item.instance in seen):
            continue
        edges = _edges(item)
        if edges is None:
            continue
        left, right = (min(max(x, 0.0), float(sample.width)) for x in (edges[0], edges[2]))
        top, bottom = (min(max(y, 0.0), float(sample.height)) for y in (edges[1], edges[3]))
        if right - left <= 0 or bottom - top <= 0:
            continue
        seen.add(item.instance)
        boxes.append((left, top, right, bottom))
        labels.append(numbers[item.class_name])
        crowd.append(item.crowd)
    return TrueBoxes(np.array(boxes, np.float32).reshape(-1, 4), np.array(labels, np.int64), np.array(crowd, np.bool_))


def _edges(item: Box | OrientedBox | Polygons | Rle) -> tuple[float, float, float, float] | None:
    if isinstance(item, Box):
        return item.x, item.y, item.x + item.width, item.y + item.height
    if isinstance(item, Rle):
        return _mask_edges(item)
    points = np.array(item.corners()) if isinstance(item, OrientedBox) else np.concatenate([np.reshape(r, (-1, 2)) for r in item.rings])
    low, high = points.min(axis=0), points.max(axis=0)
    return float(low[0]), float(low[1]), float(high[0]), float(high[1])


def _mask_edges(item: Rle) -> tuple[float, float, float, float] | None:
    values = np.arange(len(item.counts)) % 2 == 1
    plane = np.repeat(values, item.counts).reshape(item.width, item.height)
    columns, rows = np.flatnonzero(plane.any(axis=1)), np.flatnonzero(plane.any(axis=0))
    if len(columns) == 0:
        return None
    return float(columns[0]), float(rows[0]), float(columns[-1] + 1), float(rows[-1] + 1)


def boxes_around(objects: Instances) -> TrueBoxes:
    """Give the boxes around masks, as truths of a detection."""
    from scipy.ndimage import find_objects

    found = find_objects(np.maximum(objects.ids, 0), max_label=len(objects.labels))
    there = [place for place, window in enumerate(found) if window is not None]
    windows = [found[place] for place in there]
    boxes = [(columns.start, rows.start, columns.stop, rows.stop) for rows, columns in windows]
    return TrueBoxes(np.array(boxes, dtype=np.float32).reshape(-1, 4), objects.labels[there], np.zeros(len(there), dtype=np.bool_))
