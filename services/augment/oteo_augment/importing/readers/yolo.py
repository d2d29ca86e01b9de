"""YOLO's text files: a line for each object, a class number and shares of the image's size.

They are those of a box, an outline, the four corners of a turned box, or a box and points.
After the data formats of Darknet and of Ultralytics (docs.ultralytics.com/datasets/detect, /segment, /obb and /pose). Lines do not say of which kind
they are: points are told by ``kpt_shape`` in ``data.yaml``, and where all lines have four corners, they are turned boxes, unless ``task`` there says
``segment``.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import PurePosixPath
from typing import Any

import yaml

from oteo_augment.importing.items import Item, Reading
from oteo_augment.importing.paths import ByName, split_of_name, split_of_path, split_of_words, stem
from oteo_augment.importing.source import Source
from oteo_core.datasets import Box, Keypoint, Keypoints, Polygons, Severity, Skeleton, Task
from oteo_core.errors import InvalidArgument

_PROBED = 50
_NAME_FILES = ("classes.txt", "obj.names", "labels.txt", "names.txt")


def detect(source: Source) -> str:
    """Tell whether images have text files of YOLO's lines."""
    files = _label_files(source)
    try:
        extra = _described(source).extra
    except InvalidArgument:
        extra = 0
    for label in list(dict.fromkeys(files.values()))[:_PROBED]:
        lines = [line for line in _lines(source, label) if line.strip()]
        if lines and all(_numbers(line, extra) is not None for line in lines):
            return f"{label} holds lines of a class number and coordinates, beside an image of its name"
    return ""


def read(source: Source) -> Reading:
    """Read all label files; an image without one is an image without objects, as the format has it, and reported."""
    told = _described(source)
    lists = _lists(source)
    labels = _label_files(source)
    used = {*told.files, *source.images, *labels.values()}
    items: list[Item] = []
    highest, outlines, objects, corners, pointed = -1, 0, 0, 0, 0
    rows: list[tuple[Item, str, int, int, list[float]]] = []
    for path in source.images:
        item = Item(path, normalised=True, split=lists.get(PurePosixPath(path).name, "") or _split(path))
        items.append(item)
        label = labels.get(path)
        if label is None:
            item.report(Severity.WARNING, "MISSING_ANNOTATION", f"{path} has no text file; it is taken for an image without objects")
            continue
        for number, line in enumerate(_lines(source, label), 1):
            if not line.strip():
                continue
            values = _numbers(line, told.extra)
            if values is None:
                item.report(
                    Severity.ERROR, "BAD_ANNOTATION", f"line {number} is no class number with coordinates: {line.strip()[:80]!r}", label
                )
                continue
            highest = max(highest, int(values[0]))
            objects += 1
            pointed += told.extra > 0 and len(values) == 5 + told.extra
            outlines += len(values) > 5
            corners += len(values) == 9
            rows.append((item, label, number, int(values[0]), values[1:]))
    turned = not pointed and (told.task == "obb" or (told.task != "segment" and corners == objects > 0))
    classes = told.names or tuple(f"class_{index}" for index in range(highest + 1))
    for item, label, number, index, values in rows:
        if index >= len(classes):
            item.report(
                Severity.ERROR, "UNKNOWN_CLASS", f"line {number} has the class number {index}; there are {len(classes)} classes", label
            )
        elif len(values) == 4 or (told.extra and len(values) == 4 + told.extra):
            x, y, width, height = values[:4]
            item.boxes.append(
                Box(classes[index], x - width / 2, y - height / 2, width, height, instance=number, attributes=(("line", str(number)),))
            )
            points = _points(values[4:], told, index)
            if points:
                item.keypoints.append(Keypoints(classes[index], points, instance=number, attributes=(("line", str(number)),)))
        elif turned and len(values) == 8:
            item.quads.append(Polygons(classes[index], (tuple(values),), instance=number, attributes=(("line", str(number)),)))
        elif turned:
            item.report(
                Severity.ERROR,
                "BAD_ANNOTATION",
                f"line {number} has {len(values)} coordinates; turned boxes have four corners, so 8",
                label,
            )
        else:
            item.polygons.append(Polygons(classes[index], (tuple(values),), instance=number, attributes=(("line", str(number)),)))
    tasks: tuple[str, ...] = (Task.DETECTION, Task.MULTI_LABEL)
    if turned:
        tasks = (Task.DETECTION, Task.INSTANCE, Task.MULTI_LABEL)
    elif pointed:
        tasks = (*tasks, Task.KEYPOINTS)
    elif objects and outlines * 2 >= objects:
        tasks = (Task.INSTANCE, Task.MULTI_LABEL)
    # Label files of images that are not there.
    known = set(labels.values())
    for path in source.ending_with(".txt"):
        if path not in used and path not in known and "labels" in PurePosixPath(path).parts:
            item = Item(str(PurePosixPath(path).with_suffix("")), missing=True)
            item.report(Severity.ERROR, "MISSING_IMAGE", f"{path} describes an image that is not in the source", path)
            items.append(item)
            used.add(path)
    skeletons = tuple(Skeleton(name, told.skeleton(number)) for number, name in enumerate(classes)) if pointed else ()
    return Reading(items, classes, tasks, frozenset(used), skeletons=tuple(s for s in skeletons if s.points))


def _points(values: list[float], told: _Told, index: int) -> tuple[Keypoint, ...]:
    """Give the points of a line that are marked."""
    found = []
    for name, place in zip(told.points(index), range(0, len(values), max(told.numbers, 1)), strict=False):
        x, y = values[place : place + 2]
        # Where no number says it, a point that is not marked stands at zero, or below.
        seen = values[place + 2] if told.numbers == 3 else 2.0 * ((x, y) != (0.0, 0.0) and x >= 0 and y >= 0)
        if seen > 0:
            found.append(Keypoint(name, x, y, seen != 1))
    return tuple(found)


def _lines(source: Source, path: str) -> list[str]:
    return source.read(path).decode("utf-8", "replace").splitlines()


def _numbers(line: str, extra: int = 0) -> list[float] | None:
    """Give class number and coordinates, or None: 4 of a box and those of points, if there are such, or an even number from 6 of an outline."""
    try:
        values = [float(word) for word in line.split()]
    except ValueError:
        return None
    fits = len(values) in (5, 5 + extra) if extra else len(values) == 5 or (len(values) >= 7 and len(values) % 2 == 1)
    if not fits or not all(math.isfinite(value) for value in values) or values[0] < 0 or values[0] != int(values[0]):
        return None
    return values


def _label_files(source: Source) -> dict[str, str]:
    """Give each image's text file: in "labels" where the image is in "images", else beside it."""
    found: dict[str, str] = {}
    if not source.ending_with(".txt"):
        return found
    for path in source.images:
        plain = f"{path.rpartition('.')[0]}.txt"
        parts = plain.split("/")
        candidates = []
        for index in range(len(parts) - 2, -1, -1):
            if parts[index] == "images":
                candidates.append("/".join([*parts[:index], "labels", *parts[index + 1 :]]))
                break
        for candidate in (*candidates, plain):
            if candidate in source.files:
                found[path] = candidate
                break
    return found


def _split(path: str) -> str:
    found = split_of_path(path)
    if found:
        return found
    # Darknet's folders: obj_train_data, obj_valid_data.
    return next((split for part in reversed(PurePosixPath(path).parts[:-1]) if (split := split_of_words(part))), "")


@dataclass(frozen=True, slots=True)
class _Told:
    """What `data.yaml` or a list of names says: classes, the files that say so, and what lines hold."""

    names: tuple[str, ...] = ()
    files: tuple[str, ...] = ()
    task: str = ""
    count: int = 0
    """Points of an object."""
    numbers: int = 0
    """Numbers of a point, 2 or 3."""
    point_names: Mapping[int, tuple[str, ...]] = field(default_factory=dict)

    @property
    def extra(self) -> int:
        """Numbers that follow a box."""
        return self.count * self.numbers

    def points(self, index: int) -> tuple[str, ...]:
        """Give a name for each of a class's points: a number where it has none."""
        given = self.point_names.get(index, ())[: self.count]
        return (*given, *(f"point_{number}" for number in range(len(given), self.count)))

    def skeleton(self, index: int) -> tuple[str, ...]:
        """Give the points that a class can have: those that are named for it; all, where none are for any."""
        return self.point_names.get(index, ())[: self.count] if self.point_names else self.points(index)


def _described(source: Source) -> _Told:
    """Read the classes from data.yaml, or from a list of names."""
    for path in source.ending_with(".yaml", ".yml"):
        try:
            content: Any = yaml.safe_load(source.read(path))
        except yaml.YAMLError as exc:
            raise InvalidArgument(f"{path} is no YAML: {exc}", reason="BAD_ANNOTATION_FILE", field="source_uri") from exc
        names = content.get("names") if isinstance(content, dict) else None
        if isinstance(names, dict) and names and all(isinstance(key, int) for key in names):
            names = [names.get(index, f"class_{index}") for index in range(max(names) + 1)]
        if isinstance(names, list):
            return _Told(tuple(map(str, names)), (path,), str(content.get("task", "")), *_shape(content, path), _point_names(content))
    for path in source.files:
        name = PurePosixPath(path).name.lower()
        if name in _NAME_FILES or name.endswith(".names"):
            lines = [line.strip() for line in _lines(source, path) if line.strip()]
            if lines and not all(_numbers(line) is not None for line in lines):
                return _Told(tuple(lines), (path,))
    return _Told()


def _shape(content: dict[str, Any], path: str) -> tuple[int, int]:
    """Give the number of an object's points, and of a point's numbers; zeros where there are no points."""
    shape = content.get("kpt_shape")
    if shape is None:
        return 0, 0
    if isinstance(shape, list) and len(shape) == 2 and all(type(side) is int for side in shape) and shape[0] > 0 and shape[1] in (2, 3):
        return shape[0], shape[1]
    raise InvalidArgument(
        f"{path} has the kpt_shape {shape!r}: the number of points and 2 or 3 are wanted", reason="BAD_ANNOTATION_FILE", field="source_uri"
    )


def _point_names(content: dict[str, Any]) -> dict[int, tuple[str, ...]]:
    given = content.get("kpt_names")
    if not isinstance(given, dict):
        return {}
    return {key: tuple(map(str, names)) for key, names in given.items() if isinstance(key, int) and isinstance(names, list)}


def _lists(source: Source) -> dict[str, str]:
    """Read Darknet's lists of images: train.txt, valid.txt, test.txt."""
    images = ByName(source.images)
    found: dict[str, str] = {}
    for path in source.ending_with(".txt"):
        split = split_of_name(stem(path))
        if split:
            for line in _lines(source, path):
                if line.strip() and images.find(line.strip()):
                    found[PurePosixPath(line.strip()).name] = split
    return found
