"""What is wrong with annotations once the image's size is known."""

from __future__ import annotations

import math
from collections.abc import Container
from dataclasses import replace

from oteo_augment.importing.items import Item
from oteo_augment.importing.scanned import Scanned
from oteo_core.datasets import Box, Polygons, Rle, Severity
from oteo_core.datasets.outlines import crosses_itself, ring_area

_SLACK = 1.0
"""Pixels by which a box may stand out without a word: corners counted from 1, rounding of shares."""


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
        item.polygons = [
            replace(p, rings=tuple(tuple(v * (height if i % 2 else width) for i, v in enumerate(ring)) for ring in p.rings))
            for p in item.polygons
        ]
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


def _name(thing: Box | Polygons | Rle) -> str:
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
