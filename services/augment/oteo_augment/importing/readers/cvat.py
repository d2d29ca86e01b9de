"""CVAT's XML, version 1.1, for images and for video (docs.cvat.ai, "CVAT for image", "CVAT for videos").

One file with all images, or all tracks of a clip: boxes, turned boxes, polygons, masks, points, skeletons and tags.
"""

from __future__ import annotations

import io
import math
import xml.etree.ElementTree as ET
from collections.abc import Iterator

from oteo_augment.importing.items import Item, Reading
from oteo_augment.importing.paths import ByName, natural, split_of_name, split_of_path
from oteo_augment.importing.readers.cvatshapes import Shapes, number_of
from oteo_augment.importing.source import Source, is_sequence_name
from oteo_core.datasets import Severity, Skeleton, Task

_PROBED = 20
_HEAD = 4096


def detect(source: Source) -> str:
    """Tell whether an XML file begins with CVAT's root and has images in it."""
    for path in source.ending_with(".xml")[:_PROBED]:
        if _is_cvat(source, path):
            return f"{path} has CVAT's element <annotations> with images or tracks"
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
        clip: _Clip | None = None
        name = ""
        try:
            for element in _elements(source.read(path)):
                if element.tag == "label":
                    # The points of a skeleton are labels of their own, under that of the whole.
                    label, parent = ((element.findtext(key) or "").strip() for key in ("name", "parent"))
                    if parent:
                        points.setdefault(parent, {}).setdefault(label)
                    else:
                        classes.setdefault(label)
                elif element.tag == "source":
                    name = (element.text or "").strip()
                elif element.tag == "image":
                    last = element.get("name", "")
                    _image(element, path, images, items)
                else:
                    clip = clip or _Clip(path, name, source, images, items)
                    last = f"{element.tag} {element.get('id', '')}"
                    (clip.track if element.tag == "track" else clip.tag)(element)
        except ET.ParseError as exc:
            item = items.setdefault(f"{path}#broken", Item(f"{path}#broken", missing=True))
            item.report(Severity.ERROR, "BAD_ANNOTATION_FILE", f"{path} cannot be read after {last}: {exc}", path)
        if clip is not None:
            clip.finish()
    classes.pop("", None)
    named = {item.path for item in items.values()}
    for path in source.images:
        if path not in named:
            item = items[path] = Item(path, unlabelled=True, split=split_of_path(path))
            item.report(Severity.ERROR, "MISSING_ANNOTATION", f"{path} is not in {', '.join(files[:3])}")
    return Reading(list(items.values()), tuple(classes), _tasks(items), frozenset([*files, *named]), skeletons=_skeletons(points, items))


def _is_cvat(source: Source, path: str) -> bool:
    head = source.read(path)
    return b"<annotations" in head[:_HEAD] and (b"<image" in head or b"<track" in head) and b"<annotation>" not in head[:_HEAD]


def _elements(data: bytes) -> Iterator[ET.Element]:
    """Give labels, the clip's name, images, tracks and tags of frames one after the other, and forget each: a file may hold a million shapes."""
    depth = 0
    for event, element in ET.iterparse(io.BytesIO(data), ("start", "end")):
        if element.tag in ("image", "track"):
            depth += 1 if event == "start" else -1
        if event == "end" and (element.tag in ("label", "source", "image", "track") or (element.tag == "tag" and not depth)):
            yield element
            element.clear()


def _skeletons(declared: dict[str, dict[str, None]], items: dict[str, Item]) -> tuple[Skeleton, ...]:
    """Give each class's points: those that are declared, then those that occur."""
    for item in items.values():
        for marked in item.keypoints:
            declared.setdefault(marked.class_name, {}).update(dict.fromkeys(point.name for point in marked.points))
    return tuple(Skeleton(name, tuple(points)) for name, points in declared.items())


def _tasks(items: dict[str, Item]) -> tuple[str, ...]:
    boxes = sum(len(item.boxes) + len(item.oriented_boxes) for item in items.values())
    outlines = sum(len(item.polygons) + len(item.rle) for item in items.values())
    if not boxes and not outlines and not any(item.keypoints for item in items.values()) and any(item.labels for item in items.values()):
        single = all(len(item.labels) <= 1 for item in items.values())
        return (Task.CLASSIFICATION, Task.MULTI_LABEL) if single else (Task.MULTI_LABEL,)
    points = (Task.KEYPOINTS,) if any(item.keypoints for item in items.values()) else ()
    if not outlines:
        return (Task.DETECTION, Task.MULTI_LABEL, *points) if boxes or not points else (Task.KEYPOINTS, Task.DETECTION)
    return (
        (Task.INSTANCE, Task.DETECTION, Task.MULTI_LABEL, *points) if boxes * 2 >= outlines else (Task.INSTANCE, Task.MULTI_LABEL, *points)
    )


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
    width, height = number_of(element.get("width")), number_of(element.get("height"))
    if width and height and math.isfinite(width * height):
        item.declared_size = (int(width), int(height))
    shapes = Shapes(item, f"of {named} in {file}", file)
    for shape in element:
        shapes.add(shape, (shape.get("label") or "").strip(), shape.get("group_id") or "0")
    shapes.finish()


class _Clip:
    """The tracks of CVAT's XML for video: what is said of each frame of one clip, or of pictures in their order."""

    def __init__(self, file: str, name: str, source: Source, images: ByName, items: dict[str, Item]) -> None:
        clips = [path for path in source.images if is_sequence_name(path)]
        self._path = images.find(name, near=file) if name else ""
        if not self._path and len(clips) == 1:
            self._path = clips[0]
        self._pictures = [] if self._path else sorted(source.images, key=natural)
        self._file, self._name, self._items = file, name, items
        self._shapes: dict[int, Shapes] = {}

    def track(self, element: ET.Element) -> None:
        """Take a track: an object, and where it is on each frame."""
        label, number = (element.get("label") or "").strip(), element.get("id") or "0"
        for shape in element:
            frame = number_of(shape.get("frame"))
            if frame is None or frame < 0:
                continue
            # A frame that the object has left was looked at: it is one without it, not one without annotation.
            shapes = self._of(int(frame))
            if shape.get("outside") != "1":
                shapes.add(shape, label, f"track {number}")

    def tag(self, element: ET.Element) -> None:
        """Take a tag of one frame."""
        frame = number_of(element.get("frame"))
        if frame is not None and frame >= 0:
            self._of(int(frame)).add(element, (element.get("label") or "").strip(), "0")

    def _of(self, frame: int) -> Shapes:
        if frame not in self._shapes:
            if self._path:
                key, path, missing, number = f"{self._path}#frame={frame}", self._path, False, frame
            elif frame < len(self._pictures):
                key = path = self._pictures[frame]
                missing, number = False, -1
            else:
                key = path = f"{self._name or self._file}#frame={frame}"
                missing, number = True, -1
            item = self._items.get(key)
            if item is None:
                item = self._items[key] = Item(path, missing=missing, frame=number, split=split_of_path(path))
                if missing:
                    told = f"{self._file} describes frame {frame} of {self._name or 'a clip'}, which is not in the source"
                    item.report(Severity.ERROR, "MISSING_IMAGE", told, self._file)
            self._shapes[frame] = Shapes(item, f"of frame {frame} in {self._file}", self._file)
        return self._shapes[frame]

    def finish(self) -> None:
        """Complete what several shapes make up together."""
        for shapes in self._shapes.values():
            shapes.finish()
