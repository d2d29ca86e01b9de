"""COCO's JSON: images, categories and annotations with boxes, outlines, run lengths or key points (cocodataset.org/#format-data)."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

from oteo_augment.importing.items import Item, Reading
from oteo_augment.importing.paths import ByName, split_of_path, split_of_words, stem
from oteo_augment.importing.readers.cocopoints import add_skeletons, category_points, companion, numbered, read_points
from oteo_augment.importing.source import Source, is_sequence_name
from oteo_core.datasets import Box, Keypoints, Polygons, Rle, Severity, Skeleton, Task
from oteo_core.errors import InvalidArgument

_MARKS = (b'"images"', b'"annotations"', b'"categories"')
_MOST_JSON = 200
_CHALLENGES = ("captions_", "image_info_", "labels_", "panoptic_", "person_keypoints_", "stuff_")


def detect(source: Source) -> str:
    """Tell whether there is a JSON file with COCO's three lists."""
    files = _annotation_files(source)
    return f"{files[0]} holds COCO's lists of images, annotations and categories" if files else ""


def read(source: Source) -> Reading:
    """Read all COCO files of a source; an image that several name is one item."""
    images = ByName(source.images)
    items: dict[str, Item] = {}
    classes: dict[str, None] = {}
    skeletons: dict[str, Skeleton] = {}
    files = _annotation_files(source)
    counts = _Counts()
    used = list(files)
    for file in files:
        seen: dict[Any, tuple[Item, int]] = {}
        first = 0
        for part in filter(None, (file, companion(source, file))):
            content = _parse(source, part)
            split = split_of_words(stem(part)) or split_of_path(part)
            names = _categories(content)
            classes.update(dict.fromkeys(names.values()))
            add_skeletons(content, skeletons)
            points = category_points(content)
            by_id: dict[Any, Item] = {}
            for entry in content.get("images", ()):
                if isinstance(entry, dict) and isinstance(entry.get("file_name"), str):
                    by_id[entry.get("id")] = _image(entry, part, split, images, items)
            for index, entry in enumerate(content.get("annotations", ()), first):
                if not isinstance(entry, dict):
                    continue
                item = by_id.get(entry.get("image_id"))
                if item is None:
                    item = _orphan(entry.get("image_id"), part, items)
                # The second file says its points of an annotation that the first has.
                known = seen.get(entry.get("id")) if part != file else None
                if known is not None and known[0] is item:
                    _points(entry, known[1], part, item, names, points, skeletons, counts)
                else:
                    counts.objects += 1
                    outline = _annotation(entry, index, part, item, names)
                    counts.outlines += outline
                    _points(entry, index, part, item, names, points, skeletons, counts)
                    seen[entry.get("id")] = (item, index)
            first += len(content["annotations"])
            if part != file:
                used.append(part)
    named = {item.path for item in items.values()}
    for path in source.images:
        if path not in named:
            item = items[path] = Item(path, unlabelled=True)
            item.report(Severity.ERROR, "MISSING_ANNOTATION", f"{path} is not in the list of images of {', '.join(files[:3])}")
    tasks: tuple[str, ...] = (Task.DETECTION, Task.MULTI_LABEL)
    if counts.objects and counts.outlines * 2 >= counts.objects:
        tasks = (Task.INSTANCE, Task.DETECTION, Task.MULTI_LABEL)
    if counts.points:
        tasks = (*tasks, Task.KEYPOINTS)
    return Reading(
        list(items.values()),
        tuple(classes),
        tasks,
        frozenset([*used, *(item.path for item in items.values())]),
        skeletons=tuple(skeletons.values()),
    )


@dataclass(slots=True)
class _Counts:
    objects: int = 0
    outlines: int = 0
    points: int = 0


def _points(
    entry: dict[str, Any], index: int, file: str, item: Item, names: dict[Any, str], points: dict[Any, tuple[str, ...]],
    skeletons: dict[str, Skeleton], counts: _Counts,
) -> None:  # fmt: skip
    """Add an annotation's key points to its item."""
    name = names.get(entry.get("category_id"))
    if name is None or not entry.get("keypoints"):
        return
    given = points.get(entry.get("category_id"), ())
    found = read_points(entry, given, f"annotation {entry.get('id', index)}", file, item)
    if found and not given:
        numbered(skeletons, name, len(entry["keypoints"]) // 3)
    if found:
        counts.points += 1
        item.keypoints.append(Keypoints(name, found, bool(entry.get("iscrowd", 0)), index, attributes_of(entry)))


def attributes_of(entry: dict[str, Any]) -> tuple[tuple[str, str], ...]:
    """Give an object's attributes as pairs of text, sorted."""
    given = entry.get("attributes")
    return tuple(sorted((str(key), str(value)) for key, value in given.items())) if isinstance(given, dict) else ()


def _annotation_files(source: Source) -> list[str]:
    candidates = sorted(source.ending_with(".json"), key=lambda path: (-source.files[path].size, path))[:_MOST_JSON]
    found = sorted(path for path in candidates if _is_coco(source.read(path)))
    # COCO says the same images again in a file for each of its challenges; where instances are there, they say most.
    instances = [path for path in found if stem(path).startswith("instances")]
    if instances:
        found = [path for path in found if not stem(path).startswith(_CHALLENGES)]
    return found


def _is_coco(data: bytes) -> bool:
    return all(mark in data for mark in _MARKS)


def _parse(source: Source, file: str) -> dict[str, Any]:
    try:
        content = json.loads(source.read(file))
    except (ValueError, RecursionError) as exc:
        raise InvalidArgument(f"{file} is no JSON: {exc}", reason="BAD_ANNOTATION_FILE", field="source_uri") from exc
    if not isinstance(content, dict) or not all(isinstance(content.get(key), list) for key in ("images", "annotations", "categories")):
        raise InvalidArgument(
            f"{file} has not the three lists images, annotations and categories", reason="BAD_ANNOTATION_FILE", field="source_uri"
        )
    return content


def _categories(content: dict[str, Any]) -> dict[Any, str]:
    return {
        entry.get("id"): str(entry["name"])
        for entry in sorted((e for e in content["categories"] if isinstance(e, dict) and "name" in e), key=lambda e: _number(e.get("id")))
    }


def _number(value: Any) -> float:
    return float(value) if isinstance(value, int | float) else float("inf")


def _image(entry: dict[str, Any], file: str, split: str, images: ByName, items: dict[str, Item]) -> Item:
    named = entry["file_name"]
    path = images.find(named, near=file, split=split)
    # COCO has no word for a frame of a clip or stack; both of these are in use.
    given = entry.get("frame_index", entry.get("frame_id"))
    frame = given if isinstance(given, int) and given >= 0 and is_sequence_name(named) else -1
    key = f"{path or named}#frame={frame}" if frame >= 0 else path or named
    item = items.get(key)
    if item is None:
        item = items[key] = Item(path or named, missing=not path, split=split or split_of_path(path), frame=frame)
        if not path:
            item.report(Severity.ERROR, "MISSING_IMAGE", f"{file} lists {named}, which is not in the source", file)
    size = entry.get("width"), entry.get("height")
    if all(isinstance(side, int) for side in size):
        item.declared_size = (int(size[0] or 0), int(size[1] or 0))
    return item


def _orphan(image_id: Any, file: str, items: dict[str, Item]) -> Item:
    key = f"{file}#image_id={image_id}"
    item = items.get(key)
    if item is None:
        item = items[key] = Item(key, missing=True)
        item.report(Severity.ERROR, "MISSING_IMAGE", f"{file} has annotations of image {image_id!r}, which its list of images lacks", file)
    return item


def _annotation(entry: dict[str, Any], index: int, file: str, item: Item, names: dict[Any, str]) -> bool:
    """Add one annotation to its item; tell whether it has an outline."""
    what = f"annotation {entry.get('id', index)}"
    name = names.get(entry.get("category_id"))
    if name is None:
        item.report(
            Severity.ERROR, "UNKNOWN_CLASS", f"{what} has the category {entry.get('category_id')!r}, which {file} does not define", file
        )
        return False
    crowd = bool(entry.get("iscrowd", 0))
    extra = attributes_of(entry)
    outlined = add_segmentation(item, entry.get("segmentation"), what, file, name, crowd, index, extra)
    box = entry.get("bbox")
    if isinstance(box, list) and len(box) == 4 and all(isinstance(v, int | float) for v in box):
        item.boxes.append(Box(name, float(box[0]), float(box[1]), float(box[2]), float(box[3]), crowd, index, extra))
    elif box or not outlined:
        if not outlined and not box:
            if not entry.get("keypoints"):
                # A category alone speaks of the whole image.
                item.labels.append(name)
        else:
            item.report(Severity.ERROR, "BAD_ANNOTATION", f"{what} has the box {box!r}; four numbers are wanted", file)
    return outlined


def add_segmentation(
    item: Item, value: Any, what: str, file: str, name: str, crowd: bool, index: int, attributes: tuple[tuple[str, str], ...]
) -> bool:
    """Add an object's outline or run-length mask in COCO's form to its item; tell whether there is one."""
    outline = read_segmentation(value, what, file, item)
    if isinstance(outline, tuple):
        item.polygons.append(Polygons(name, outline, crowd, index, attributes))
    elif outline is not None:
        height, width, runs = outline
        item.rle.append(Rle(name, height, width, runs, crowd, index, attributes))
    return outline is not None


def read_segmentation(value: Any, what: str, file: str, item: Item) -> Any:
    """Give rings as a tuple, a mask as a list [height, width, counts], or None."""
    if not value:
        return None
    if isinstance(value, list):
        rings = []
        for ring in value:
            if isinstance(ring, list) and len(ring) >= 6 and len(ring) % 2 == 0 and all(isinstance(v, int | float) for v in ring):
                rings.append(tuple(float(v) for v in ring))
            else:
                item.report(Severity.ERROR, "BAD_ANNOTATION", f"{what} has an outline that is not at least three pairs of numbers", file)
        return tuple(rings) or None
    if isinstance(value, dict) and isinstance(value.get("size"), list) and len(value["size"]) == 2:
        height, width = (int(side) for side in value["size"])
        counts = value.get("counts")
        try:
            runs = tuple(_decompress(counts)) if isinstance(counts, str) else tuple(int(v) for v in counts or ())
        except (ValueError, TypeError):
            runs = ()
        if height > 0 and width > 0 and min(runs, default=-1) >= 0 and sum(runs) == height * width:
            return [height, width, runs]
    item.report(Severity.ERROR, "BAD_ANNOTATION", f"{what} has a mask that is neither outlines nor runs that fill its size", file)
    return None


def _decompress(text: str) -> list[int]:
    """Expand COCO's packed runs: numbers in base 32, lowest digits first, each run from the third on as the difference to the one two before it.

    After the description of the format in the COCO API (Piotr Dollar, Tsung-Yi Lin).
    """
    runs: list[int] = []
    position = 0
    while position < len(text):
        value = shift = 0
        while True:
            if position >= len(text):
                raise ValueError("packed runs end inside a number")
            digit = ord(text[position]) - 48
            if not 0 <= digit < 64:
                raise ValueError("packed runs hold a foreign character")
            value |= (digit & 31) << shift
            shift += 5
            position += 1
            if not digit & 32:
                if digit & 16:
                    value |= -1 << shift
                break
        runs.append(value + (runs[-2] if len(runs) > 2 else 0))
    return runs
