"""A sample's annotations as objects: a box and an outline of one object are one thing."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from oteo_core.datasets import Box, Keypoints, OrientedBox, Polygons, Rle, Sample
from oteo_core.datasets.runs import mask_from_runs, runs_from_mask

_OWN = frozenset({"object", "line", "instance"})
"""Attributes that say where an annotation stood in the file it came from."""


@dataclass(slots=True)
class Thing:
    """One object.

    Parameters
    ----------
    class_name, crowd, attributes
        As of `Box`; attributes without those that speak of the source's files.
    box, polygons, rle, oriented, keypoints
        What is known of its place; at least one is set, and never both an outline and a mask.
    size
        Width and height of its image, pixels; zeros where they are not known.
    """

    class_name: str
    crowd: bool
    attributes: tuple[tuple[str, str], ...]
    box: Box | None = None
    polygons: Polygons | None = None
    rle: Rle | None = None
    oriented: OrientedBox | None = None
    keypoints: Keypoints | None = None
    size: tuple[int, int] = (0, 0)

    @property
    def has_outline(self) -> bool:
        """Whether its outline or mask is known."""
        return self.polygons is not None or self.rle is not None

    def bounds(self) -> tuple[float, float, float, float]:
        """Give x, y, width and height in pixels: of its box, else around its outline, its turned box (as far as it is in the image), its points."""
        if self.box is not None:
            return self.box.x, self.box.y, self.box.width, self.box.height
        if self.polygons is not None:
            xs = [x for ring in self.polygons.rings for x in ring[0::2]]
            ys = [y for ring in self.polygons.rings for y in ring[1::2]]
            return min(xs), min(ys), max(xs) - min(xs), max(ys) - min(ys)
        if self.oriented is not None:
            return self._around(self.oriented.corners())
        if self.keypoints is not None:
            return self._around([(point.x, point.y) for point in self.keypoints.points])
        assert self.rle is not None
        return bounds_of_mask(mask_from_runs(self.rle.counts, self.rle.height, self.rle.width))

    def _around(self, points: Sequence[tuple[float, float]]) -> tuple[float, float, float, float]:
        xs, ys = (list(values) for values in zip(*points, strict=True))
        if all(self.size):
            xs, ys = ([min(max(value, 0.0), float(side)) for value in values] for values, side in zip((xs, ys), self.size, strict=True))
        return min(xs), min(ys), max(xs) - min(xs), max(ys) - min(ys)

    def area(self) -> float:
        """Give its area in pixels: of its outline where it has one, else of its turned box or its box."""
        if self.rle is not None:
            return float(sum(self.rle.counts[1::2]))
        if self.polygons is not None:
            return sum(abs(ring_area(ring)) for ring in self.polygons.rings)
        if self.oriented is not None:
            return self.oriented.width * self.oriented.height
        _, _, width, height = self.bounds()
        return width * height

    def mask(self, height: int, width: int) -> NDArray[np.uint8] | None:
        """Give its pixels as 0 and 1 in an image of (height, width); None where only its box is known.

        A pixel belongs to an outline if its centre lies inside: coordinates count from the corner of the first pixel.
        """
        if self.rle is not None:
            return mask_from_runs(self.rle.counts, self.rle.height, self.rle.width)
        if self.polygons is not None:
            return fill(self.polygons.rings, height, width)
        return None


def things_of(sample: Sample) -> list[Thing]:
    """Give a sample's objects in the order of its annotations.

    Annotations of different kinds belong together if they have the same number and class; where a number occurs twice (annotations of two
    files), the later ones are objects of their own.
    """
    found: list[Thing] = []
    open_boxes: dict[tuple[int, str], list[Thing]] = {}
    size = sample.width, sample.height
    for box in sample.boxes:
        thing = Thing(box.class_name, box.crowd, _attributes(box), box=box, size=size)
        found.append(thing)
        if box.instance >= 0:
            open_boxes.setdefault((box.instance, box.class_name), []).append(thing)
    outlines: list[Polygons | Rle] = [*sample.polygons, *sample.rle]
    for outline in outlines:
        waiting = open_boxes.get((outline.instance, outline.class_name), []) if outline.instance >= 0 else []
        if waiting:
            thing = waiting.pop(0)
        else:
            thing = Thing(outline.class_name, outline.crowd, _attributes(outline), size=size)
            found.append(thing)
        if isinstance(outline, Polygons):
            thing.polygons = outline
        else:
            thing.rle = outline
    # Of what is there already, each takes one turned box and one set of points.
    known: dict[tuple[int, str], list[Thing]] = {}
    for thing in found:
        for item in (thing.box, thing.polygons, thing.rle):
            if item is not None and item.instance >= 0:
                known.setdefault((item.instance, item.class_name), []).append(thing)
                break
    for turned in sample.oriented_boxes:
        _owner(found, known, turned, size, "oriented").oriented = turned
    for marked in sample.keypoints:
        _owner(found, known, marked, size, "keypoints").keypoints = marked
    return found


def _owner(
    found: list[Thing], known: dict[tuple[int, str], list[Thing]], item: OrientedBox | Keypoints, size: tuple[int, int], kind: str
) -> Thing:
    """Give the object that an annotation belongs to and that has none of its kind; a new one where there is no such."""
    key = item.instance, item.class_name
    for thing in known.get(key, ()):
        if getattr(thing, kind) is None:
            return thing
    thing = Thing(item.class_name, item.crowd, _attributes(item), size=size)
    found.append(thing)
    if item.instance >= 0:
        known.setdefault(key, []).append(thing)
    return thing


def box_around(thing: Thing) -> tuple[float, float, float, float]:
    """Give x, y, width and height of an object for a format that asks for a box: at least a pixel wide and high."""
    x, y, width, height = thing.bounds()
    return x, y, max(width, 1.0), max(height, 1.0)


def things_of_labels(labels: NDArray[Any], class_name: str) -> list[Thing]:
    """Give the objects of a label image (height, width): one for each number but 0, exact to the pixel."""
    height, width = labels.shape
    found = []
    for number in np.unique(labels[labels != 0]).tolist():
        runs = runs_from_mask(labels == number)
        found.append(Thing(class_name, False, (), rle=Rle(class_name, height, width, runs)))
    return found


def bounds_of_mask(mask: NDArray[Any]) -> tuple[float, float, float, float]:
    """Give x, y, width and height of the pixels that are not 0; zeros where there are none."""
    columns, rows = np.flatnonzero(mask.any(axis=0)), np.flatnonzero(mask.any(axis=1))
    if not len(columns):
        return 0.0, 0.0, 0.0, 0.0
    return float(columns[0]), float(rows[0]), float(columns[-1] - columns[0] + 1), float(rows[-1] - rows[0] + 1)


def ring_area(ring: Sequence[float]) -> float:
    """Give a closed curve's signed area in pixels."""
    xs, ys = ring[0::2], ring[1::2]
    return sum(xs[i - 1] * ys[i] - xs[i] * ys[i - 1] for i in range(len(xs))) / 2


def fill(rings: Sequence[Sequence[float]], height: int, width: int) -> NDArray[np.uint8]:
    """Draw the union of closed curves as a mask (height, width) of 0 and 1: pixels whose centre lies inside.

    Each row of pixel centres is cut with the curve's edges, and every second interval filled (even-odd rule).
    """
    mask = np.zeros((height, width), np.uint8)
    for ring in rings:
        points = np.asarray(ring, np.float64).reshape(-1, 2)
        following = np.roll(points, -1, axis=0)
        first = max(0, int(np.floor(points[:, 1].min() - 0.5)))
        last = min(height, int(np.ceil(points[:, 1].max() + 0.5)))
        for row in range(first, last):
            y = row + 0.5
            crossing = (points[:, 1] <= y) != (following[:, 1] <= y)
            if not crossing.any():
                continue
            one, two = points[crossing], following[crossing]
            xs = np.sort(one[:, 0] + (y - one[:, 1]) * (two[:, 0] - one[:, 0]) / (two[:, 1] - one[:, 1]))
            starts = np.clip(np.ceil(xs[0::2] - 0.5), 0, width).astype(int)
            ends = np.clip(np.ceil(xs[1::2] - 0.5), 0, width).astype(int)
            for start, end in zip(starts, ends, strict=True):
                mask[row, start:end] = 1
    return mask


def largest_contour(mask: NDArray[Any]) -> tuple[tuple[float, ...] | None, int]:
    """Give the outer edge of a mask's largest piece as a ring along pixel edges, and the number of its pieces.

    The ring is exact for pieces without holes: the mask is looked at twice as large, so that edges fall on whole numbers.
    """
    twice = np.kron(np.pad(np.asarray(mask, np.uint8), 1), np.ones((2, 2), np.uint8))
    contours, _ = cv2.findContours(twice, cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_SIMPLE)
    if not contours:
        return None, 0
    best = max(contours, key=cv2.contourArea)[:, 0, :].astype(np.float64)
    # Of a pixel drawn as 2 x 2, the inner corners are half a pixel apart: moved out to the pixel's edge.
    corners = np.round((best + 0.5) / 2) - 1
    ring = tuple(float(v) for v in corners.ravel())
    return (ring if len(ring) >= 6 and ring_area(ring) != 0 else None), len(contours)


def _attributes(item: Box | Polygons | Rle | OrientedBox | Keypoints) -> tuple[tuple[str, str], ...]:
    return tuple((key, value) for key, value in item.attributes if key not in _OWN)
