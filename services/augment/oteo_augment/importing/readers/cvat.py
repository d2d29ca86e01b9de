"""CVAT's XML for images, version 1.1: one file with all images, their boxes, polygons, masks, skeletons and tags (docs.cvat.ai, "CVAT for image")."""

from __future__ import annotations

import io
import math
import xml.etree.ElementTree as ET
from collections.abc import Iterator

import numpy as np

from oteo_augment.importing.items import Item, Reading
from oteo_augment.importing.paths import ByName, split_of_name, split_of_path
from oteo_augment.importing.source import Source
from oteo_core.datasets import Box, Keypoint, Keypoints, OrientedBox, Polygons, Rle, Severity, Skeleton, Task
from oteo_core.datasets.runs import runs_from_mask

_PROBED = 20
_HEAD = 4096
_OTHERS = frozenset({"polyline", "points", "cuboid", "ellipse"})
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
                    # A point of a skeleton is a label of its own there.
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
    return Reading(list(items.values()), tuple(classes), _tasks(items), frozenset([*files, *items]), skeletons=_skeletons(points, items))


def _is_cvat(source: Source, path: str) -> bool:
    head = source.read(path)
    return b"<annotations" in head[:_HEAD] and b"<image" in head and b"<annotation>" not in head[:_HEAD]


def _elements(data: bytes) -> Iterator[ET.Element]:
    """Give labels and images one after the other, and forget each: a file may hold a million shapes."""
    for _, element in ET.iterparse(io.BytesIO(data)):
        if element.tag in ("label", "image"):
            yield element
            element.clear()


def _skeletons(declared: dict[str, dict[str, None]], items: dict[str, Item]) -> tuple[Skeleton, ...]:
    """Give each class's points: those that are declared, then those that occur."""
    for item in items.values():
        for marked in item.keypoints:
            declared.setdefault(marked.class_name, {}).update(dict.fromkeys(point.name for point in marked.points))
    return tuple(Skeleton(name, tuple(points)) for name, points in declared.items())


def _tasks(items: dict[str, Item]) -> tuple[str, ...]:
    tasks = _placed_tasks(items)
    pointed = any(item.keypoints for item in items.values())
    return (*tasks, Task.KEYPOINTS) if pointed else tasks


def _placed_tasks(items: dict[str, Item]) -> tuple[str, ...]:
    # A skeleton beside its object's box or outline is no further object.
    boxes = sum(max(len(item.boxes) + len(item.oriented_boxes), len(item.keypoints)) for item in items.values())
    outlines = sum(len(item.polygons) + len(item.rle) for item in items.values())
    if not boxes and not outlines and any(item.labels for item in items.values()):
        single = all(len(item.labels) <= 1 for item in items.values())
        return (Task.CLASSIFICATION, Task.MULTI_LABEL) if single else (Task.MULTI_LABEL,)
    if not outlines:
        return (Task.DETECTION, Task.MULTI_LABEL)
    return (Task.INSTANCE, Task.DETECTION, Task.MULTI_LABEL) if boxes * 2 >= outlines else (Task.INSTANCE, Task.MULTI_LABEL)


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
            item.boxes.append(Box(name, *box, crowd, number, extra))
        elif shape.tag == "polygon" and (ring := _ring(shape.get("points", ""))) is not None:
            earlier = rings.get(number)
            rings[number] = Polygons(name, (*(earlier.rings if earlier else ()), ring), crowd, number, extra)
        elif shape.tag == "mask" and (rle := _mask(shape, item.declared_size)) is not None:
            item.rle.append(Rle(name, *rle, crowd, number, extra))
        elif shape.tag == "box" and (turned := _turned(shape)) is not None:
            item.oriented_boxes.append(OrientedBox(name, *turned, crowd, number, extra))
        elif shape.tag == "skeleton" and (marked := _skeleton(shape)) is not None:
            if marked:
                item.keypoints.append(Keypoints(name, marked, crowd, number, extra))
        elif shape.tag in _OTHERS:
            item.report(
                Severity.WARNING, "SHAPE_NOT_READ", f"{what} ({name}) is a shape {shape.tag}, which this version does not read", file
            )
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
    # A turned box is another one than its corners say.
    if len(corners) < 4 or _number(shape.get("rotation", "0")) != 0:
        return None
    return corners[0], corners[1], corners[2] - corners[0], corners[3] - corners[1]


def _turned(shape: ET.Element) -> tuple[float, float, float, float, float] | None:
    """Give centre, width, height and clockwise turn in radians of a box whose corners are given as they were before it was turned."""
    corners = [value for key in ("xtl", "ytl", "xbr", "ybr") if (value := _number(shape.get(key))) is not None]
    turn = _number(shape.get("rotation"))
    if len(corners) < 4 or turn is None or not math.isfinite(turn):
        return None
    left, top, right, bottom = corners
    return (left + right) / 2, (top + bottom) / 2, right - left, bottom - top, math.remainder(math.radians(turn), 2 * math.pi)


def _skeleton(shape: ET.Element) -> tuple[Keypoint, ...] | None:
    """Give the points that are marked; those that are outside are not."""
    found: dict[str, Keypoint] = {}
    for part in shape.iter("points"):
        name = (part.get("label") or "").strip()
        values = [_number(value) for value in part.get("points", "").split(",")]
        if not name or name in found or len(values) != 2 or values[0] is None or values[1] is None:
            return None
        if part.get("outside") != "1":
            found[name] = Keypoint(name, values[0], values[1], part.get("occluded") != "1")
    return tuple(found.values())


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
