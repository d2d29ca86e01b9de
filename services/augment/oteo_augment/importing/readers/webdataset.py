"""WebDataset shards, unpacked: files of one sample share a stem (github.com/webdataset/webdataset).

``KEY.jpg`` with ``KEY.cls`` (a class number or name), ``KEY.json`` (``label`` or ``labels``) or ``KEY.txt`` (a class name), and with ``KEY.mask.png`` or ``KEY.seg.png`` (a mask); ``objects`` or ``annotations`` of
the JSON are boxes and outlines as in COCO, each with its class's name or number. A part is a word of the shard's or folder's name. Keys with dots are read where the files of a sample differ in their last ending alone.
"""

from __future__ import annotations

import json
import math
import re
from typing import Any

from oteo_augment.importing.items import Item, Reading
from oteo_augment.importing.paths import split_of_words
from oteo_augment.importing.readers.coco import add_segmentation, attributes_of
from oteo_augment.importing.readers.masks import mask_numbers
from oteo_augment.importing.readers.shapes import tasks_of
from oteo_augment.importing.source import Source
from oteo_core.datasets import Box, Polygons, Rle, Severity, Task

_SIDES = (".cls", ".json", ".txt")
_LONGEST = 100
_MASK = re.compile(r"(.+)\.(?:mask|seg)\.\w+")


def detect(source: Source) -> str:
    """Tell whether most images have a file of their class, their objects or their mask beside them, named as in shards."""
    images, masks = _images(source)
    described = [path for path in images if _sides(source, path) or path in masks]
    if not described or 2 * len(described) < len(images):
        return ""
    first = described[0]
    cls = any(f"{path.rpartition('.')[0]}.cls" in source.files for path in described)
    # A JSON file or a text beside an image is many a program's: here it has to be as in shards.
    beside = next(iter(_sides(source, first)), "")
    data = source.read(beside) if beside.endswith(".json") else b""
    own = re.match(rb'\s*{\s*"(?:labels|objects|annotations)": \[', data) and b'"categories"' not in data
    if not (cls or own or len(masks) * 2 >= len(images)):
        return ""
    return f"{len(described)} images have files of one key beside them: that of {first} is {beside or masks[first]}"


def read(source: Source) -> Reading:
    """Read every image with what lies beside it."""
    images, masks = _images(source)
    numbers, described = mask_numbers(source) if masks else ((), [])
    names = () if numbers else _names(source)
    items: list[Item] = []
    used: set[str] = {*masks.values(), *described}
    known = False
    for path in images:
        item = Item(path, split=_split(path), mask=masks.get(path, ""))
        sides = _sides(source, path)
        known = False
        for side in sides:
            try:
                known = _side(side, source.read(side), names, item) or known
            except (ValueError, KeyError, TypeError, RecursionError) as exc:
                item.report(Severity.ERROR, "BAD_ANNOTATION_FILE", f"{side} cannot be read: {exc}", side)
        if not known and not item.mask:
            item.unlabelled = True
            if not item.findings:
                item.report(Severity.ERROR, "MISSING_ANNOTATION", f"no .cls, .json, .txt or mask file beside {path} says what is on it")
        used.update((path, *sides))
        items.append(item)
    things: list[Box | Polygons | Rle] = []
    for item in items:
        things += [*item.boxes, *item.polygons, *item.rle]
    found = {thing.class_name for thing in things} | {name for item in items for name in item.labels}
    classes = names or tuple(sorted(found, key=lambda name: (len(name) if name.isdigit() else 0, name)))
    return Reading(items, () if numbers else classes, _tasks(items), frozenset(used), numbers)


def _tasks(items: list[Item]) -> tuple[str, ...]:
    masked = any(item.mask for item in items)
    objects = any(item.boxes or item.polygons or item.rle for item in items)
    tasks: tuple[str, ...] = (Task.SEMANTIC, Task.INSTANCE) if masked else ()
    if objects or not masked or any(item.labels for item in items):
        tasks += tuple(task for task in tasks_of({item.path: item for item in items}) if task not in tasks)
    return tasks


def _images(source: Source) -> tuple[list[str], dict[str, str]]:
    """Give the images, and the mask of each that has one."""
    keys = {match[1]: path for path in source.images if (match := _MASK.fullmatch(path))}
    taken = set(keys.values())
    images = [path for path in source.images if path not in taken]
    masks = {path: keys[path.rpartition(".")[0]] for path in images if path.rpartition(".")[0] in keys}
    return images, masks


def _sides(source: Source, path: str) -> list[str]:
    stem = path.rpartition(".")[0]
    return [stem + ending for ending in _SIDES if stem + ending in source.files]


def _split(path: str) -> str:
    return next((found for part in reversed(path.split("/")[:-1]) if (found := split_of_words(part))), "")


def _names(source: Source) -> tuple[str, ...]:
    """Read the classes' names by number from classes.txt, one a line."""
    for path in source.ending_with("classes.txt"):
        if path.rpartition("/")[2].lower() == "classes.txt":
            lines = [line.strip() for line in source.read(path).decode("utf-8", "replace").splitlines() if line.strip()]
            if len(set(lines)) == len(lines):
                return tuple(lines)
    return ()


def _side(side: str, data: bytes, names: tuple[str, ...], item: Item) -> bool:
    """Add to an item what a file beside it says; tell whether that is anything."""
    objects: Any = None
    if side.endswith(".json"):
        content = json.loads(data)
        objects = content.get("objects", content.get("annotations")) if isinstance(content, dict) else None
    if isinstance(objects, list):
        for index, entry in enumerate(objects):
            _object(entry, index, side, names, item)
    found = _labels(side, data)
    if found and not item.labels:
        item.labels = _named(item, side, found, names)
    return bool(item.labels) or isinstance(objects, list)


def _object(entry: Any, index: int, side: str, names: tuple[str, ...], item: Item) -> None:
    what = f"object {index + 1}"
    given = next((entry[key] for key in ("class", "label", "category") if key in entry), None) if isinstance(entry, dict) else None
    if given is None or isinstance(given, bool):
        item.report(Severity.ERROR, "UNKNOWN_CLASS", f"{what} of {side} has no class", side)
        return
    name = next(iter(_named(item, side, [given if isinstance(given, int) else str(given)], names)), None)
    if name is None:
        return
    crowd, attributes = bool(entry.get("iscrowd", False)), attributes_of(entry)
    outlined = add_segmentation(item, entry.get("segmentation"), what, side, name, crowd, index, attributes)
    box = entry.get("bbox")
    if isinstance(box, list) and len(box) == 4 and all(isinstance(v, int | float) and math.isfinite(v) for v in box):
        x, y, width, height = map(float, box)
        item.boxes.append(Box(name, x, y, width, height, crowd, index, attributes))
    elif not outlined or box:
        item.report(
            Severity.ERROR, "BAD_ANNOTATION", f"{what} of {side} has the box {box!r}; x, y, width and height in pixels are wanted", side
        )


def _labels(side: str, data: bytes) -> list[str | int]:
    text = data.decode("utf-8").strip()
    if side.endswith(".json"):
        content: Any = json.loads(text)
        if isinstance(content, dict):
            content = content.get("labels", content.get("label", content.get("cls", [])))
        found = content if isinstance(content, list) else [content]
        return [value if isinstance(value, int) and not isinstance(value, bool) else str(value) for value in found]
    if len(text) > _LONGEST or "\n" in text:
        raise ValueError("it is longer than a class name")
    return [] if not text else [int(text)] if side.endswith(".cls") and text.isdecimal() else [text]


def _named(item: Item, side: str, found: list[str | int], names: tuple[str, ...]) -> list[str]:
    labels = []
    for value in found:
        if isinstance(value, int) and names:
            if not 0 <= value < len(names):
                item.report(Severity.ERROR, "UNKNOWN_CLASS", f"{side} has the class number {value}; classes.txt names {len(names)}", side)
                continue
            labels.append(names[value])
        else:
            labels.append(str(value))
    return list(dict.fromkeys(labels))
