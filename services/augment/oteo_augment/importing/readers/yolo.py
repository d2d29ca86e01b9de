"""YOLO's text files: a class number and a box, or an outline, as shares of the image's size, a line each.

After the data formats of Darknet and of Ultralytics (docs.ultralytics.com/datasets/detect).
"""

from __future__ import annotations

import math
from pathlib import PurePosixPath
from typing import Any

import yaml

from oteo_augment.importing.items import Item, Reading
from oteo_augment.importing.paths import ByName, split_of_name, split_of_path, split_of_words, stem
from oteo_augment.importing.source import Source
from oteo_core.datasets import Box, Polygons, Severity, Task
from oteo_core.errors import InvalidArgument

_PROBED = 50
_NAME_FILES = ("classes.txt", "obj.names", "labels.txt", "names.txt")


def detect(source: Source) -> str:
    """Tell whether images have text files of YOLO's lines."""
    files = _label_files(source)
    for label in list(dict.fromkeys(files.values()))[:_PROBED]:
        lines = [line for line in _lines(source, label) if line.strip()]
        if lines and all(_numbers(line) is not None for line in lines):
            return f"{label} holds lines of a class number and coordinates, beside an image of its name"
    return ""


def read(source: Source) -> Reading:
    """Read all label files; an image without one is an image without objects, as the format has it, and reported."""
    names, described = _names(source)
    lists = _lists(source)
    labels = _label_files(source)
    used = {*described, *source.images, *labels.values()}
    items: list[Item] = []
    highest, outlines, objects = -1, 0, 0
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
            values = _numbers(line)
            if values is None:
                item.report(
                    Severity.ERROR, "BAD_ANNOTATION", f"line {number} is no class number with coordinates: {line.strip()[:80]!r}", label
                )
                continue
            highest = max(highest, int(values[0]))
            objects += 1
            outlines += len(values) > 5
            rows.append((item, label, number, int(values[0]), values[1:]))
    classes = names or tuple(f"class_{index}" for index in range(highest + 1))
    for item, label, number, index, values in rows:
        if index >= len(classes):
            item.report(
                Severity.ERROR, "UNKNOWN_CLASS", f"line {number} has the class number {index}; there are {len(classes)} classes", label
            )
        elif len(values) == 4:
            x, y, width, height = values
            item.boxes.append(
                Box(classes[index], x - width / 2, y - height / 2, width, height, instance=number, attributes=(("line", str(number)),))
            )
        else:
            item.polygons.append(Polygons(classes[index], (tuple(values),), instance=number, attributes=(("line", str(number)),)))
    tasks: tuple[str, ...] = (Task.DETECTION, Task.MULTI_LABEL)
    if objects and outlines * 2 >= objects:
        tasks = (Task.INSTANCE, Task.MULTI_LABEL)
    # Label files of images that are not there.
    known = set(labels.values())
    for path in source.ending_with(".txt"):
        if path not in used and path not in known and "labels" in PurePosixPath(path).parts:
            item = Item(str(PurePosixPath(path).with_suffix("")), missing=True)
            item.report(Severity.ERROR, "MISSING_IMAGE", f"{path} describes an image that is not in the source", path)
            items.append(item)
            used.add(path)
    return Reading(items, classes, tasks, frozenset(used))


def _lines(source: Source, path: str) -> list[str]:
    return source.read(path).decode("utf-8", "replace").splitlines()


def _numbers(line: str) -> list[float] | None:
    """Give class number and coordinates, or None: 4 of a box, or an even number from 6 of an outline."""
    try:
        values = [float(word) for word in line.split()]
    except ValueError:
        return None
    fits = len(values) == 5 or (len(values) >= 7 and len(values) % 2 == 1)
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


def _names(source: Source) -> tuple[tuple[str, ...], list[str]]:
    """Read the classes from data.yaml, or from a list of names."""
    for path in source.ending_with(".yaml", ".yml"):
        try:
            content: Any = yaml.safe_load(source.read(path))
        except yaml.YAMLError as exc:
            raise InvalidArgument(f"{path} is no YAML: {exc}", reason="BAD_ANNOTATION_FILE", field="source_uri") from exc
        names = content.get("names") if isinstance(content, dict) else None
        if isinstance(names, dict) and all(isinstance(key, int) for key in names):
            return tuple(str(names.get(index, f"class_{index}")) for index in range(max(names, default=-1) + 1)), [path]
        if isinstance(names, list):
            return tuple(str(name) for name in names), [path]
    for path in source.files:
        name = PurePosixPath(path).name.lower()
        if name in _NAME_FILES or name.endswith(".names"):
            lines = [line.strip() for line in _lines(source, path) if line.strip()]
            if lines and not all(_numbers(line) is not None for line in lines):
                return tuple(lines), [path]
    return (), []


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
