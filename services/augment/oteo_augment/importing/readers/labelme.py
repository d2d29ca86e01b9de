"""LabelMe's JSON: one file for each image, with shapes (github.com/wkentaro/labelme)."""

from __future__ import annotations

import base64
import binascii
import json
from typing import Any

import numpy as np

from oteo_augment.importing.items import Item, Reading
from oteo_augment.importing.paths import ByName, split_of_path
from oteo_augment.importing.readers.coco import attributes_of
from oteo_augment.importing.readers.shapes import tasks_of
from oteo_augment.importing.source import Source
from oteo_core.datasets import Box, Keypoint, Keypoints, Polygons, Rle, Severity, Task
from oteo_core.datasets.runs import runs_from_mask
from oteo_core.errors import OteoError
from oteo_core.images import decode_labels

_PROBED = 50
_LARGEST = 256 << 20
_MARKS = (b'"shapes"', b'"imagePath"')
_OTHERS = frozenset({"points", "line", "linestrip"})
_TURNED = ("rotation", "oriented_rectangle")


def detect(source: Source) -> str:
    """Tell whether there are JSON files with LabelMe's keys."""
    for path in source.ending_with(".json")[:_PROBED]:
        if _is_labelme(source, path):
            return f"{path} has LabelMe's shapes and imagePath"
    return ""


def read(source: Source) -> Reading:
    """Read all files; images without one are reported as MISSING_ANNOTATION.

    True flags of a file are classes of its whole image where no file has shapes; beside shapes they say what somebody noted on the work ("checked"),
    and are reported.
    """
    images = ByName(source.images)
    by_stem: dict[str, str] = {}
    for path in source.images:
        by_stem.setdefault(path.rpartition(".")[0], path)
    items: dict[str, Item] = {}
    flags: dict[str, None] = {}
    used: set[str] = set()
    for path in source.ending_with(".json"):
        if not _is_labelme(source, path):
            continue
        used.add(path)
        try:
            content = json.loads(source.read(path))
            named = str(content["imagePath"])
            shapes = [shape for shape in content["shapes"] if isinstance(shape, dict)]
        except (ValueError, KeyError, TypeError, RecursionError) as exc:
            found = by_stem.get(path.rpartition(".")[0], "")
            item = items.setdefault(found or path, Item(found or path, missing=not found, unlabelled=True, split=split_of_path(path)))
            item.report(Severity.ERROR, "BAD_ANNOTATION_FILE", f"{path} cannot be read: {exc}", path)
            continue
        # The path is relative to the JSON file.
        beside = f"{path.rpartition('/')[0]}/{named}".lstrip("/")
        found = images.find(beside, near=path)
        key = found or named
        if key not in items:
            items[key] = Item(key, missing=not found, split=split_of_path(path))
            if not found:
                inside = "; its picture is inside the JSON file (imageData): write it out as a file" if content.get("imageData") else ""
                items[key].report(Severity.ERROR, "MISSING_IMAGE", f"{path} describes {named}, which is not in the source{inside}", path)
        item = items[key]
        size = content.get("imageWidth"), content.get("imageHeight")
        if all(isinstance(side, int) for side in size):
            item.declared_size = (int(size[0] or 0), int(size[1] or 0))
        given = content.get("flags")
        if isinstance(given, dict):
            flags.update(dict.fromkeys(given))
            item.labels += [name for name, value in given.items() if value is True and name not in item.labels]
        _shapes(shapes, path, item)
    for path in source.images:
        if path not in items:
            item = items[path] = Item(path, unlabelled=True, split=split_of_path(path))
            item.report(Severity.ERROR, "MISSING_ANNOTATION", f"{path} has no JSON file")
    tasks = tasks_of(items)
    if Task.CLASSIFICATION in tasks or tasks == (Task.MULTI_LABEL,):
        return Reading(list(items.values()), tuple(flags), tasks, frozenset(used | set(items)))
    for item in items.values():
        if item.labels:
            shown = ", ".join(repr(name) for name in item.labels)
            item.report(Severity.INFO, "FLAG_NOT_READ", f"the flags {shown} of the whole image are not read beside shapes", item.path)
            item.labels = []
    # No list of the shapes' classes is there: those that occur are all that is known.
    return Reading(list(items.values()), (), tasks, frozenset(used | set(items)))


def _is_labelme(source: Source, path: str) -> bool:
    if source.files[path].size > _LARGEST:
        return False
    data = source.read(path)
    return all(mark in data for mark in _MARKS)


def _shapes(shapes: list[dict[str, Any]], path: str, item: Item) -> None:
    groups: dict[tuple[str, str], int] = {}
    rings: dict[int, Polygons] = {}
    marked: dict[int, Keypoints] = {}
    owners = _owners(shapes)
    for index, shape in enumerate(shapes):
        name, what = str(shape.get("label") or ""), f"shape {index + 1}"
        if not name:
            item.report(Severity.ERROR, "UNKNOWN_CLASS", f"{what} of {path} has no label", path)
            continue
        group = shape.get("group_id")
        point, name = name, (owners.get(str(group)) or name if shape.get("shape_type") == "point" else name)
        # Shapes of one group and class are one object: its box, the pieces of its outline.
        number = index if group is None else groups.setdefault((str(group), name), index)
        extra = attributes_of(shape)
        crowd = isinstance(shape.get("flags"), dict) and shape["flags"].get("crowd") is True
        points = _points(shape.get("points"))
        kind = shape.get("shape_type") or "polygon"
        if kind == "polygon" and len(points) >= 3:
            ring = tuple(value for point in points for value in point)
            earlier = rings.get(number)
            rings[number] = Polygons(name, (*(earlier.rings if earlier else ()), ring), crowd, number, extra)
        elif kind == "rectangle" and len(points) in (2, 4):
            xs, ys = [p[0] for p in points], [p[1] for p in points]
            item.boxes.append(Box(name, min(xs), min(ys), max(xs) - min(xs), max(ys) - min(ys), crowd, number, extra))
        elif kind == "circle" and len(points) == 2:
            (x, y), (px, py) = points
            angles, radius = np.arange(64) * (2 * np.pi / 64), float(np.hypot(px - x, py - y))
            ring = tuple(np.stack([x + radius * np.cos(angles), y + radius * np.sin(angles)], 1).ravel().tolist())
            rings[number] = Polygons(name, (ring,), crowd, number, extra)
        elif kind == "mask" and len(points) == 2 and (rle := _mask(shape.get("mask"), points, item, name)) is not None:
            item.rle.append(Rle(name, *rle, crowd, number, extra))
        elif kind in _TURNED and len(points) == 4:
            item.quads.append(Polygons(name, (tuple(value for place in points for value in place),), crowd, number, extra))
        elif kind == "point" and len(points) == 1:
            before = marked.get(number)
            hidden = isinstance(shape.get("flags"), dict) and shape["flags"].get("hidden") is True
            if before is not None and any(other.name == point for other in before.points):
                item.report(Severity.ERROR, "BAD_ANNOTATION", f"{what} of {path} is a second point {point!r} of one object", path)
                continue
            places = (*(before.points if before else ()), Keypoint(point, *points[0], not hidden))
            marked[number] = Keypoints(name, places, crowd, number, extra)
        elif kind in _OTHERS:
            item.report(
                Severity.WARNING, "SHAPE_NOT_READ", f"{what} ({name}) of {path} is a {kind}, which this version does not read", path
            )
        else:
            item.report(Severity.ERROR, "BAD_ANNOTATION", f"{what} ({name}) of {path} is no {kind} that can be read", path)
    item.polygons += [rings[number] for number in sorted(rings)]
    item.keypoints += [marked[number] for number in sorted(marked)]


def _owners(shapes: list[dict[str, Any]]) -> dict[str, str]:
    """Give the class of each group with points: that of its other shapes, else the one that our own export notes on points."""
    found: dict[str, set[str]] = {}
    noted: dict[str, str] = {}
    for shape in shapes:
        group, label = shape.get("group_id"), str(shape.get("label") or "")
        if group is None or not label:
            continue
        if shape.get("shape_type") != "point":
            found.setdefault(str(group), set()).add(label)
        elif isinstance(shape.get("object_class"), str):
            noted[str(group)] = shape["object_class"]
    return noted | {group: next(iter(labels)) for group, labels in found.items() if len(labels) == 1}


def _points(value: Any) -> list[tuple[float, float]]:
    if not isinstance(value, list):
        return []
    fits = all(
        isinstance(p, list) and len(p) == 2 and all(isinstance(v, int | float) and not isinstance(v, bool) for v in p) for p in value
    )
    return [(float(p[0]), float(p[1])) for p in value] if fits else []


def _mask(data: Any, points: list[tuple[float, float]], item: Item, name: str) -> tuple[int, int, tuple[int, ...]] | None:
    """Give height, width and runs of a mask that is stored as a picture of its box."""
    width, height = item.declared_size
    try:
        pixels = decode_labels(base64.b64decode(data, validate=True))
    except (OteoError, TypeError, ValueError, binascii.Error):
        return None
    left, upper = round(points[0][0]), round(points[0][1])
    rows, columns = pixels.shape[:2]
    if pixels.ndim != 2 or left < 0 or upper < 0 or left + columns > width or upper + rows > height:
        return None
    whole = np.zeros((height, width), np.uint8)
    whole[upper : upper + rows, left : left + columns] = pixels != 0
    return height, width, runs_from_mask(whole)
