"""Pascal VOC: one XML file for each image, parts in ImageSets/Main (Everingham and Winn, VOC2012 Development Kit, 2012).

Corners are taken as they are written: x and y are the minima, width and height the differences. Nearly every program writes them so,
though the kit counts pixels from 1.
"""

from __future__ import annotations

import math
import xml.etree.ElementTree as ET
from pathlib import PurePosixPath

from oteo_augment.importing.items import Item, Reading
from oteo_augment.importing.paths import ByName, split_of_path, stem
from oteo_augment.importing.source import Source
from oteo_core.datasets import Box, Severity, Task

_LARGEST = 32 << 20
_PROBED = 20
_LISTS = (("train", "train"), ("val", "validation"), ("test", "test"), ("trainval", "train"))


def detect(source: Source) -> str:
    """Tell whether XML files with VOC's root element are there."""
    for path in source.ending_with(".xml")[:_PROBED]:
        root = _parse(source, path)
        if isinstance(root, ET.Element) and root.tag == "annotation":
            return f"{path} has VOC's element <annotation>"
    return ""


def read(source: Source) -> Reading:
    """Read all annotation files; images without one are reported as MISSING_ANNOTATION."""
    images = ByName(source.images)
    by_stem: dict[str, list[str]] = {}
    for path in source.images:
        by_stem.setdefault(stem(path), []).append(path)
    splits, lists = listed_parts(source)
    items: dict[str, Item] = {}
    used = set(lists)
    for path in source.ending_with(".xml"):
        root = _parse(source, path)
        if isinstance(root, ET.Element) and root.tag != "annotation":
            continue
        used.add(path)
        named = "" if isinstance(root, str) else (root.findtext("filename") or "").strip()
        found = _image_of(path, named, images, by_stem)
        key = found or named or path
        item = items.get(key)
        if item is None:
            item = items[key] = Item(key, missing=not found, split=splits.get(stem(path), "") or split_of_path(path))
        if not found:
            item.report(Severity.ERROR, "MISSING_IMAGE", f"{path} describes {named or 'an image'}, which is not in the source", path)
        if isinstance(root, str):
            item.unlabelled = True
            item.report(Severity.ERROR, "BAD_ANNOTATION_FILE", f"{path} cannot be read: {root}", path)
        else:
            _objects(root, path, item)
    for path in source.images:
        # Masks of VOC's segmentation lie beside the images; they are no images of their own.
        if path not in items and not {"SegmentationClass", "SegmentationObject"} & set(PurePosixPath(path).parts):
            item = items[path] = Item(path, unlabelled=True, split=splits.get(stem(path), ""))
            item.report(Severity.ERROR, "MISSING_ANNOTATION", f"{path} has no XML file")
    known = {stem(item.path) for item in items.values()}
    for name in sorted(set(splits) - known - {stem(path) for path in used}):
        item = items[name] = Item(name, missing=True, split=splits[name])
        item.report(Severity.ERROR, "MISSING_IMAGE", f"{lists[0]} and its like name {name}, which has neither an image nor an XML file")
    classes, described = _classes(source)
    used.update(described)
    return Reading(list(items.values()), classes, (Task.DETECTION, Task.MULTI_LABEL), frozenset(used | set(items)))


def _classes(source: Source) -> tuple[tuple[str, ...], list[str]]:
    """Read the list of classes from labelmap.txt, which later programs put beside VOC's folders: "name:color_rgb:parts:actions" a line."""
    for path in source.ending_with("labelmap.txt"):
        lines = [line.strip() for line in source.read(path).decode("utf-8", "replace").splitlines()]
        rows = [line.rsplit(":", 3) for line in lines if line and not line.startswith("#")]
        if rows and all(len(row) == 4 for row in rows):
            return tuple(dict.fromkeys(row[0] for row in rows if row[0] not in ("", "background"))), [path]
    return (), []


def _parse(source: Source, path: str) -> ET.Element | str:
    """Give the root element, or what is wrong with the file. Entities that grow without end are refused by expat itself."""
    if source.files[path].size > _LARGEST:
        return f"it has {source.files[path].size} bytes; no image has so many objects"
    try:
        return ET.fromstring(source.read(path))
    except (ET.ParseError, ValueError, LookupError) as exc:
        return str(exc)


def _image_of(path: str, named: str, images: ByName, by_stem: dict[str, list[str]]) -> str:
    if named and PurePosixPath(named).suffix:
        found = images.find(named, near=path)
        if found:
            return found
    # Programs that rename images often leave <filename> as it was: the XML file's own name decides then.
    candidates = by_stem.get(stem(path), []) or by_stem.get(stem(named), [])
    return candidates[0] if candidates else ""


def _objects(root: ET.Element, path: str, item: Item) -> None:
    width, height = _float(root.findtext("size/width")), _float(root.findtext("size/height"))
    if width and height and math.isfinite(width * height):
        item.declared_size = (int(width), int(height))
    for index, entry in enumerate(root.iter("object")):
        name = (entry.findtext("name") or "").strip()
        what = f"object {index + 1}"
        if not name:
            item.report(Severity.ERROR, "UNKNOWN_CLASS", f"{what} of {path} has no name", path)
            continue
        box = entry.find("bndbox")
        corners = [None if box is None else _float(box.findtext(key)) for key in ("xmin", "ymin", "xmax", "ymax")]
        numbers = [value for value in corners if value is not None and math.isfinite(value)]
        if len(numbers) < 4:
            item.report(Severity.ERROR, "BAD_ANNOTATION", f"{what} ({name}) of {path} has no box of four numbers", path)
            continue
        extra = tuple(
            sorted(
                (key, value.strip()) for key in ("difficult", "truncated", "occluded", "pose") if (value := entry.findtext(key)) is not None
            )
        )
        left, upper, right, lower = numbers
        item.boxes.append(Box(name, left, upper, right - left, lower - upper, attributes=(*extra, ("object", str(index + 1)))))


def _float(text: str | None) -> float | None:
    try:
        return float(text) if text else None
    except ValueError:
        return None


def listed_parts(source: Source) -> tuple[dict[str, str], list[str]]:
    """Read the parts from ImageSets, Main first, else whatever folder is there; give the part of each name, and the files read."""
    folders: dict[str, dict[str, str]] = {}
    for path in source.ending_with(".txt"):
        parts = PurePosixPath(path).parts
        if len(parts) >= 3 and parts[-3] == "ImageSets":
            folders.setdefault("/".join(parts[:-1]), {})[stem(path)] = path
    splits: dict[str, str] = {}
    used: list[str] = []
    for folder in sorted(folders, key=lambda name: (not name.endswith("/Main") and name != "Main", name))[:1]:
        for name, split in _LISTS:
            file = folders[folder].get(name)
            if file is not None:
                used.append(file)
                for line in source.read(file).decode("utf-8", "replace").splitlines():
                    if words := line.split():
                        splits.setdefault(stem(words[0]) if PurePosixPath(words[0]).suffix.lower() in (".jpg", ".png") else words[0], split)
    return splits, used
