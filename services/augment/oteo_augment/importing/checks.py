"""What is wrong with annotations once the image's size is known."""

from __future__ import annotations

import math
from collections.abc import Container
from dataclasses import replace

from oteo_augment.importing.items import Item
from oteo_augment.importing.scanned import Scanned
from oteo_augment.importing.turned import box_of_quad, is_rectangle
from oteo_core.datasets import Box, Keypoints, OrientedBox, Polygons, Rle, Severity
from oteo_core.datasets.outlines import crosses_itself, ring_area

_SLACK = 1.0
"""Pixels by which a box may stand out without a word: corners counted from 1, rounding of shares."""

_NO_WIDTH = 1e-6
"""Pixels of width that rounding makes of corners on one line."""


def check_annotations(item: Item, scanned: Scanned, known: Container[str] | None) -> None:
    """Hold an item's annotations against its image; what cannot be kept is taken out and reported.

    Parameters
    ----------
    item
        Changed in place: coordinates become pixels, boxes are cut at the image's edges.
    scanned
        Its image.
    known
        Classes that may occur; None: all.
    """
    width, height = scanned.width, scanned.height
    if item.normalised:
        item.boxes = [replace(b, x=b.x * width, y=b.y * height, width=b.width * width, height=b.height * height) for b in item.boxes]
        item.polygons = [_in_pixels(outline, width, height) for outline in item.polygons]
        item.quads = [_in_pixels(quad, width, height) for quad in item.quads]
        item.keypoints = [replace(k, points=tuple(replace(p, x=p.x * width, y=p.y * height) for p in k.points)) for k in item.keypoints]
        item.normalised = False
    declared = item.declared_size
    if declared != (0, 0) and declared != (width, height):
        turned = "; it is turned by its EXIF mark" if declared == (height, width) and width != height else ""
        item.report(
            Severity.WARNING,
            "SIZE_MISMATCH",
            f"its annotations are made for {declared[0]} x {declared[1]} pixels, the image has {width} x {height}{turned}; look at the boxes",
        )
    if known is not None:
        _drop_unknown(item, known)
    item.boxes = [kept for box in item.boxes if (kept := _checked_box(item, box, width, height)) is not None]
    item.polygons = [outline for outline in item.polygons if _polygon_fits(item, outline, width, height)]
    item.rle = [mask for mask in item.rle if _rle_fits(item, mask, width, height)]
    item.oriented_boxes = [box for box in item.oriented_boxes if _turned_fits(item, box, width, height)]
    pairs = [(quad, box_of_quad(quad)) for quad in item.quads]
    pairs = [(quad, box) for quad, box in pairs if _turned_fits(item, box, width, height)]
    item.quads = [quad for quad, _ in pairs]
    item.oriented_boxes += [box for _, box in pairs]
    for quad, box in pairs:
        if not is_rectangle(quad, box):
            what = f"{_name(quad)} ({quad.class_name})"
            item.report(Severity.INFO, "NOT_A_RECTANGLE", f"{what}: its four corners are no rectangle; the smallest around them is taken")
    checked = [_checked_points(item, marked, width, height) for marked in item.keypoints]
    item.keypoints = [marked for marked in checked if marked.points]


def _in_pixels(outline: Polygons, width: int, height: int) -> Polygons:
    return replace(outline, rings=tuple(tuple(v * (height if i % 2 else width) for i, v in enumerate(ring)) for ring in outline.rings))


def _drop_unknown(item: Item, known: Container[str]) -> None:
    def keep(name: str, what: str) -> bool:
        if name in known:
            return True
        item.report(Severity.ERROR, "UNKNOWN_CLASS", f"{what} is of class {name!r}, which is not among the classes that were given")
        return False

    item.labels = [name for name in item.labels if keep(name, "the image")]
    item.boxes = [box for box in item.boxes if keep(box.class_name, _name(box))]
    item.polygons = [outline for outline in item.polygons if keep(outline.class_name, _name(outline))]
    item.rle = [mask for mask in item.rle if keep(mask.class_name, _name(mask))]
    item.quads = [quad for quad in item.quads if keep(quad.class_name, _name(quad))]
    item.oriented_boxes = [box for box in item.oriented_boxes if keep(box.class_name, _name(box))]
    item.keypoints = [marked for marked in item.keypoints if keep(marked.class_name, _name(marked))]


def _name(thing: Box | Polygons | Rle | OrientedBox | Keypoints) -> str:
    """Name an annotation as its file does, so that a person finds it."""
    for key, value in thing.attributes:
        if key in ("object", "line"):
            return f"{key} {value}"
    return f"annotation {thing.instance + 1}" if thing.instance >= 0 else "an annotation"


def _checked_box(item: Item, box: Box, width: int, height: int) -> Box | None:
    left, upper, right, lower = box.x, box.y, box.x + box.width, box.y + box.height
    place = f"{_name(box)} ({box.class_name}): the box from ({left:g}, {upper:g}) to ({right:g}, {lower:g})"
    if not all(math.isfinite(value) for value in (left, upper, right, lower)):
        item.report(Severity.ERROR, "BAD_ANNOTATION", f"{place} is not of finite numbers; it is left out")
        return None
    if box.width <= 0 or box.height <= 0:
        item.report(Severity.ERROR, "ZERO_AREA_BOX", f"{place} has no area; it is left out")
        return None
    x0, y0, x1, y1 = max(left, 0.0), max(upper, 0.0), min(right, float(width)), min(lower, float(height))
    if x1 <= x0 or y1 <= y0:
        item.report(Severity.ERROR, "BOX_OUT_OF_IMAGE", f"{place} lies outside the image of {width} x {height} pixels; it is left out")
        return None
    if (x0, y0, x1, y1) == (left, upper, right, lower):
        return box
    if max(x0 - left, y0 - upper, right - x1, lower - y1) > _SLACK:
        item.report(
            Severity.WARNING, "BOX_OUT_OF_IMAGE", f"{place} stands out of the image of {width} x {height} pixels; it is cut at the edge"
        )
    return replace(box, x=x0, y=y0, width=x1 - x0, height=y1 - y0)


def _polygon_fits(item: Item, outline: Polygons, width: int, height: int) -> bool:
    xs = [x for ring in outline.rings for x in ring[0::2]]
    ys = [y for ring in outline.rings for y in ring[1::2]]
    if not all(math.isfinite(v) for v in (*xs, *ys)):
        item.report(Severity.ERROR, "BAD_ANNOTATION", f"{_name(outline)}: its outline is not of finite numbers; it is left out")
        return False
    if max(xs) <= 0 or max(ys) <= 0 or min(xs) >= width or min(ys) >= height:
        item.report(Severity.ERROR, "OUTLINE_OUT_OF_IMAGE", f"{_name(outline)}: its outline lies outside the image; it is left out")
        return False
    area = sum(ring_area(ring) for ring in outline.rings)
    if area <= 0:
        item.report(Severity.ERROR, "ZERO_AREA_OUTLINE", f"{_name(outline)}: its outline has no area; it is left out")
        return False
    if min(xs) < -_SLACK or min(ys) < -_SLACK or max(xs) > width + _SLACK or max(ys) > height + _SLACK:
        item.report(Severity.WARNING, "OUTLINE_OUT_OF_IMAGE", f"{_name(outline)}: its outline stands out of the image; it is kept as it is")
    if any(crosses_itself(ring) for ring in outline.rings):
        item.report(
            Severity.WARNING,
            "SELF_CROSSING_OUTLINE",
            f"{_name(outline)}: its outline crosses itself; it is kept as it is, look at its form",
        )
    return True


def _turned_fits(item: Item, box: OrientedBox, width: int, height: int) -> bool:
    place = f"{_name(box)} ({box.class_name}): the turned box around ({box.center_x:g}, {box.center_y:g})"
    if not all(math.isfinite(v) for v in (box.center_x, box.center_y, box.width, box.height, box.angle)):
        item.report(Severity.ERROR, "BAD_ANNOTATION", f"{place} is not of finite numbers; it is left out")
        return False
    if min(box.width, box.height) <= _NO_WIDTH:
        item.report(Severity.ERROR, "ZERO_AREA_BOX", f"{place} has no area; it is left out")
        return False
    xs, ys = zip(*box.corners(), strict=True)
    if max(xs) <= 0 or max(ys) <= 0 or min(xs) >= width or min(ys) >= height:
        item.report(Severity.ERROR, "BOX_OUT_OF_IMAGE", f"{place} lies outside the image of {width} x {height} pixels; it is left out")
        return False
    if min(xs) < -_SLACK or min(ys) < -_SLACK or max(xs) > width + _SLACK or max(ys) > height + _SLACK:
        item.report(
            Severity.WARNING, "BOX_OUT_OF_IMAGE", f"{place} stands out of the image of {width} x {height} pixels; it is kept as it is"
        )
    return True


def _checked_points(item: Item, marked: Keypoints, width: int, height: int) -> Keypoints:
    kept = []
    for point in marked.points:
        place = f"{_name(marked)} ({marked.class_name}): the point {point.name!r} at ({point.x:g}, {point.y:g})"
        if not (math.isfinite(point.x) and math.isfinite(point.y)):
            item.report(Severity.ERROR, "BAD_ANNOTATION", f"{place} is not of finite numbers; it is left out")
        elif not (-_SLACK <= point.x <= width + _SLACK and -_SLACK <= point.y <= height + _SLACK):
            item.report(
                Severity.ERROR, "POINT_OUT_OF_IMAGE", f"{place} lies outside the image of {width} x {height} pixels; it is left out"
            )
        else:
            kept.append(replace(point, x=min(max(point.x, 0.0), float(width)), y=min(max(point.y, 0.0), float(height))))
    return replace(marked, points=tuple(kept))


def _rle_fits(item: Item, mask: Rle, width: int, height: int) -> bool:
    if (mask.width, mask.height) != (width, height):
        item.report(
            Severity.ERROR,
            "BAD_ANNOTATION",
            f"{_name(mask)}: its mask is of {mask.width} x {mask.height} pixels, the image of {width} x {height}; it is left out",
        )
        return False
    if sum(mask.counts[1::2]) == 0:
        item.report(Severity.ERROR, "ZERO_AREA_OUTLINE", f"{_name(mask)}: its mask is empty; it is left out")
        return False
    return True
