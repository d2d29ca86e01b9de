"""WebDataset shards, unpacked: files of one sample share a stem (github.com/webdataset/webdataset).

``KEY.jpg`` with ``KEY.cls`` (a class number or name), ``KEY.json`` (``label`` or ``labels``) or ``KEY.txt`` (a class name); a part is a word of the shard's or
folder's name. Keys with dots are read where the files of a sample differ in their last ending alone.
"""

from __future__ import annotations

import json
from typing import Any

from oteo_augment.importing.items import Item, Reading
from oteo_augment.importing.paths import split_of_words
from oteo_augment.importing.source import Source
from oteo_core.datasets import Severity, Task

_SIDES = (".cls", ".json", ".txt")
_LONGEST = 100


def detect(source: Source) -> str:
    """Tell whether most images have a file of their class beside them, and a .cls file is among them or they are as the export writes them."""
    described = [path for path in source.images if _sides(source, path)]
    cls = sum(f"{path.rpartition('.')[0]}.cls" in source.files for path in described)
    own = bool(described) and b'{"labels": [' in source.read(_sides(source, described[0])[0])[:20]
    if not (cls or own) or 2 * len(described) < len(source.images):
        return ""
    return f"{len(described)} images have a file of their class beside them: that of {described[0]} is {_sides(source, described[0])[0]}"


def read(source: Source) -> Reading:
    """Read every image with what lies beside it."""
    names = _names(source)
    items: list[Item] = []
    used: set[str] = set()
    multiple = False
    for path in source.images:
        item = Item(path, split=_split(path))
        sides = _sides(source, path)
        for side in sides:
            try:
                found = _labels(side, source.read(side))
            except (ValueError, KeyError, TypeError) as exc:
                item.report(Severity.ERROR, "BAD_ANNOTATION_FILE", f"{side} cannot be read: {exc}", side)
                continue
            if found and not item.labels:
                item.labels = _named(item, side, found, names)
        multiple = multiple or len(item.labels) > 1
        if not item.labels:
            item.unlabelled = True
            if not item.findings:
                item.report(Severity.ERROR, "MISSING_ANNOTATION", f"no .cls, .json or .txt file beside {path} says its class")
        used.update((path, *sides))
        items.append(item)
    classes = names or tuple(
        sorted({name for item in items for name in item.labels}, key=lambda name: (len(name) if name.isdigit() else 0, name))
    )
    tasks = (Task.MULTI_LABEL,) if multiple else (Task.CLASSIFICATION, Task.MULTI_LABEL)
    return Reading(items, classes, tasks, frozenset(used))


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
