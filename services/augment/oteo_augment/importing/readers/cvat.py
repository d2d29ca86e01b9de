"""CVAT's XML for images, version 1.1: one file with all images, their boxes, polygons, masks and tags (docs.cvat.ai, "CVAT for image")."""

from __future__ import annotations

import io
import math
import xml.etree.ElementTree as ET
from collections.abc import Iterator

import numpy as np

from oteo_augment.importing.items import Item, Reading
from oteo_augment.importing.paths import ByName, split_of_name, split_of_path
from oteo_augment.importing.readers.shapes import tasks_of
from oteo_augment.importing.source import Source
from oteo_core.datasets import Box, Keypoint, Keypoints, OrientedBox, Polygons, Rle, Severity, Skeleton
from oteo_core.datasets.runs import runs_from_mask

_PROBED = 20
_HEAD = 4096
_OTHERS = frozenset({"polyline", "cuboid", "ellipse"})
_CROWD = "is_crowd"


def detect(source: Source) -> str:
    """Tell whether an XML file begins with CVAT's root and has images in it."""
    for path in source.ending_with(".xml")[:_PROBED]:
        if _is_cvat(source, path):
            return f"{path} has CVAT's element <annotations> with images"
    return ""


def read(source: Source) -> Reading:
    """Read all files; images without an entry are reported as MISSING_ANNOTATION."""
    images = ByName(source.images)
    items: dict[str, Item] = {}
    classes: dict[str, None] = {}
    points: dict[str, dict[str, None]] = {}
    files = [path for path in source.ending_with(".xml") if _is_cvat(source, path)]
    for path in files:
        last = path
        try:
            for element in _elements(source.read(path)):
                if element.tag == "label" and (parent := (element.findtext("parent") or "").strip()):
                    points.setdefault(parent, {}).setdefault((element.findtext("name") or "").strip())
                elif element.tag == "label":
                    classes.setdefault((element.findtext("name") or "").strip())
                else:
                    last = element.get("name", "")
                    _image(element, path, images, items)
        except ET.ParseError as exc:
            item = items.setdefault(f"{path}#broken", Item(f"{path}#broken", missing=True))
            item.report(Severity.ERROR, "BAD_ANNOTATION_FILE", f"{path} cannot be read after {last}: {exc}", path)
    classes.pop("", None)
    for path in source.images:
        if path not in items:
            item = items[path] = Item(path, unlabelled=True, split=split_of_path(path))
            item.report(Severity.ERROR, "MISSING_ANNOTATION", f"{path} is not in {', '.join(files[:3])}")
    skeletons = tuple(Skeleton(name, tuple(names)) for name, names in points.items())
    return Reading(list(items.values()), tuple(classes), tasks_of(items), frozenset([*files, *items]), skeletons=skeletons)


def _is_cvat(source: Source, path: str) -> bool:
    head = source.read(path)
    return b"<annotations" in head[:_HEAD] and b"<image" in head and b"<annotation>" not in head[:_HEAD]


def _elements(data: bytes) -> Iterator[ET.Element]:
    """Give labels and images one after the other, and forget each: a file may hold a million shapes."""
    for _, element in ET.iterparse(io.BytesIO(data)):
        if element.tag in ("label", "image"):
            yield element
            element.clear()


def _image(element: ET.Element, file: str, images: ByName, items: dict[str, Item]) -> None:
    named = element.get("name", "")
    split = split_of_name(element.get("subset", ""))
    found = images.find(named, near=file, split=split) if named else ""
    key = found or named or f"{file}#image={element.get('id')}"
    item = items.get(key)
    if item is None:
        item = items[key] = Item(key, missing=not found, split=split or split_of_path(found))
        if not found:
            item.report(Severity.ERROR, "MISSING_IMAGE", f"{file} describes {named or 'an image'}, which is not in the source", file)
    width, height = _number(element.get("width")), _number(element.get("height"))
    if width and height and math.isfinite(width * height):
        item.declared_size = (int(width), int(height))
    groups: dict[tuple[str, str], int] = {}
    rings: dict[int, Polygons] = {}
    for index, shape in enumerate(element):
        name, what = (shape.get("label") or "").strip(), f"{shape.tag} {index + 1} of {named} in {file}"
        if not name:
            item.report(Severity.ERROR, "UNKNOWN_CLASS", f"{what} has no label", file)
            continue
        group = shape.get("group_id") or "0"
        # Shapes of one group and class are one object; group 0 is none.
        number = index if group == "0" else groups.setdefault((group, name), index)
        given = {entry.get("name", ""): (entry.text or "").strip() for entry in shape.iter("attribute")}
        crowd = given.pop(_CROWD, "").lower() in ("true", "1")
        if shape.get("occluded") == "1":
            given.setdefault("occluded", "1")
        extra = tuple(sorted(given.items()))
        if shape.tag == "tag":
            if name not in item.labels:
                item.labels.append(name)
        elif shape.tag == "box" and (box := _box(shape)) is not None:
            if (rotation := _number(shape.get("rotation"))) is None:
                item.boxes.append(Box(name, *box, crowd, number, extra))
            else:
                x, y, across, down = box
                turn = math.radians(rotation)
                item.oriented_boxes.append(OrientedBox(name, x + across / 2, y + down / 2, across, down, turn, crowd, number, extra))
        elif shape.tag in ("points", "skeleton") and (marked := _marked(shape, name)):
            item.keypoints.append(Keypoints(name, marked, crowd, number, extra))
        elif shape.tag == "polygon" and (ring := _ring(shape.get("points", ""))) is not None:
            earlier = rings.get(number)
            rings[number] = Polygons(name, (*(earlier.rings if earlier else ()), ring), crowd, number, extra)
        elif shape.tag == "mask" and (rle := _mask(shape, item.declared_size)) is not None:
            item.rle.append(Rle(name, *rle, crowd, number, extra))
        elif shape.tag in _OTHERS:
            item.report(Severity.WARNING, "SHAPE_NOT_READ", f"{what} ({name}) is not read by this version", file)
        else:
            item.report(Severity.ERROR, "BAD_ANNOTATION", f"{what} ({name}) has not the numbers of such a shape", file)
    item.polygons += [rings[number] for number in sorted(rings)]


def _number(text: str | None) -> float | None:
    try:
        return float(text or "")
    except ValueError:
        return None


def _box(shape: ET.Element) -> tuple[float, float, float, float] | None:
    corners = [value for key in ("xtl", "ytl", "xbr", "ybr") if (value := _number(shape.get(key))) is not None]
    if len(corners) < 4 or _number(shape.get("rotation", "0")) is None:
        return None
    return corners[0], corners[1], corners[2] - corners[0], corners[3] - corners[1]


def _marked(shape: ET.Element, name: str) -> tuple[Keypoint, ...]:
    """Give the points of a skeleton, those outside the image left out, or plain points: one has its label's name, several have numbers."""
    found: dict[str, Keypoint] = {}
    if shape.tag == "skeleton":
        for point in shape.iter("points"):
            label, places = (point.get("label") or "").strip(), _places(point.get("points", ""))
            if point.get("outside") != "1" and label and len(places) == 1:
                found.setdefault(label, Keypoint(label, *places[0], point.get("occluded") != "1"))
        return tuple(found.values())
    places = _places(shape.get("points", ""))
    names = [name] if len(places) == 1 else [str(number) for number in range(1, len(places) + 1)]
    return tuple(Keypoint(label, *place, shape.get("occluded") != "1") for label, place in zip(names, places, strict=True))


def _places(text: str) -> list[tuple[float, float]]:
    try:
        return [(float(x), float(y)) for x, y in (pair.split(",") for pair in text.split(";"))]
    except ValueError:
        return []


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
