"""The shapes of CVAT's XML, each brought to an item's boxes, outlines, masks, points or labels."""

from __future__ import annotations

import math
import xml.etree.ElementTree as ET

import numpy as np

from oteo_augment.importing.items import Item
from oteo_core.datasets import Box, Keypoint, Keypoints, OrientedBox, Polygons, Rle, Severity
from oteo_core.datasets.runs import runs_from_mask

_OTHERS = frozenset({"polyline", "cuboid", "ellipse"})
_CROWD = "is_crowd"


class Shapes:
    """Takes the shapes of one image or frame.

    Parameters
    ----------
    item
        Whose they are.
    where
        The end of a sentence that says where they stand.
    file
        The annotations' file.
    """

    def __init__(self, item: Item, where: str, file: str) -> None:
        self._item, self._where, self._file = item, where, file
        self._groups: dict[tuple[str, str], int] = {}
        self._rings: dict[int, Polygons] = {}
        self._count = 0

    def add(self, shape: ET.Element, name: str, group: str) -> None:
        """Take a shape of a class; those of one group and class are one object, group "0" is none."""
        index, self._count = self._count, self._count + 1
        item, what = self._item, f"{shape.tag} {index + 1} {self._where}"
        if not name:
            item.report(Severity.ERROR, "UNKNOWN_CLASS", f"{what} has no label", self._file)
            return
        number = index if group == "0" else self._groups.setdefault((group, name), index)
        own = [entry for entry in shape if entry.tag == "attribute"]
        given = {entry.get("name", ""): (entry.text or "").strip() for entry in own}
        crowd = given.pop(_CROWD, "").lower() in ("true", "1")
        if shape.get("occluded") == "1":
            given.setdefault("occluded", "1")
        extra = tuple(sorted(given.items()))
        turn = number_of(shape.get("rotation", "0"))
        if shape.tag == "tag":
            if name not in item.labels:
                item.labels.append(name)
        elif shape.tag == "box" and turn == 0 and (box := _corners(shape)) is not None:
            item.boxes.append(Box(name, *box, crowd, number, extra))
        elif shape.tag == "box" and turn is not None and (box := _corners(shape)) is not None and min(box[2:]) > 0:
            left, top, width, height = box
            middle = (left + width / 2, top + height / 2)
            item.oriented_boxes.append(
                OrientedBox(name, *middle, width, height, math.radians(math.remainder(turn, 360)), crowd, number, extra)
            )
        elif shape.tag == "polygon" and (ring := _ring(shape.get("points", ""))) is not None:
            earlier = self._rings.get(number)
            self._rings[number] = Polygons(name, (*(earlier.rings if earlier else ()), ring), crowd, number, extra)
        elif shape.tag == "mask" and (rle := _mask(shape, item.declared_size)) is not None:
            item.rle.append(Rle(name, *rle, crowd, number, extra))
        elif shape.tag == "points" and (points := _points(shape.get("points", ""))):
            named = tuple(Keypoint(str(place), x, y) for place, (x, y) in enumerate(points, 1))
            item.keypoints.append(Keypoints(name, named, crowd, number, extra))
        elif shape.tag == "skeleton":
            if joints := _joints(shape):
                item.keypoints.append(Keypoints(name, joints, crowd, number, extra))
        elif shape.tag in _OTHERS:
            item.report(
                Severity.WARNING, "SHAPE_NOT_READ", f"{what} ({name}) is a shape {shape.tag}, which this version does not read", self._file
            )
        else:
            item.report(Severity.ERROR, "BAD_ANNOTATION", f"{what} ({name}) has not the numbers of such a shape", self._file)

    def finish(self) -> None:
        """Give the item its outlines, each with all its rings."""
        self._item.polygons += [self._rings[number] for number in sorted(self._rings)]


def _joints(skeleton: ET.Element) -> tuple[Keypoint, ...]:
    """Give the points of a skeleton that are in the picture; each name once."""
    found: dict[str, Keypoint] = {}
    for joint in skeleton.iter("points"):
        places = _points(joint.get("points", ""))
        name = (joint.get("label") or "").strip()
        if name and places and joint.get("outside") != "1":
            found.setdefault(name, Keypoint(name, *places[0], joint.get("occluded") != "1"))
    return tuple(found.values())


def _points(text: str) -> list[tuple[float, float]]:
    try:
        pairs = [tuple(float(value) for value in pair.split(",")) for pair in text.split(";")]
    except ValueError:
        return []
    return [(pair[0], pair[1]) for pair in pairs] if all(len(pair) == 2 for pair in pairs) else []


def number_of(text: str | None) -> float | None:
    """Read a number; None for what is none."""
    try:
        return float(text or "")
    except ValueError:
        return None


def _corners(shape: ET.Element) -> tuple[float, float, float, float] | None:
    corners = [value for key in ("xtl", "ytl", "xbr", "ybr") if (value := number_of(shape.get(key))) is not None]
    if len(corners) < 4:
        return None
    return corners[0], corners[1], corners[2] - corners[0], corners[3] - corners[1]


def _ring(text: str) -> tuple[float, ...] | None:
    try:
        values = tuple(float(value) for pair in text.split(";") for value in pair.split(","))
    except ValueError:
        return None
    return values if len(values) >= 6 and len(values) % 2 == 0 else None


def _mask(shape: ET.Element, size: tuple[int, int]) -> tuple[int, int, tuple[int, ...]] | None:
    """Give height, width and runs of a mask that is stored as runs row by row within its box, beginning with 0."""
    width, height = size
    try:
        runs = [int(value) for value in shape.get("rle", "").split(",")]
        left, upper, columns, rows = (int(shape.get(key, "")) for key in ("left", "top", "width", "height"))
    except ValueError:
        return None
    inside = left >= 0 and upper >= 0 and columns > 0 and rows > 0 and left + columns <= width and upper + rows <= height
    if not inside or min(runs) < 0 or sum(runs) != rows * columns:
        return None
    flat = np.repeat((np.arange(len(runs)) % 2).astype(np.uint8), runs)
    whole = np.zeros((height, width), np.uint8)
    whole[upper : upper + rows, left : left + columns] = flat.reshape(rows, columns)
    return height, width, runs_from_mask(whole)
