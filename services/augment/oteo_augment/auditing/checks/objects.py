"""Annotations that teach nothing or something wrong."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterator

from oteo_augment.auditing.data import AuditData
from oteo_augment.auditing.findings import AnnotationRef, AuditFinding, CheckResult, plural, some
from oteo_augment.auditing.measuring import Measured
from oteo_core.datasets import Box, Keypoints, OrientedBox, Polygons, Rle, Sample, Severity, Task
from oteo_core.datasets.outlines import ring_area

_NAME = "annotations"
_TINY_SIDE = 2.0
_TINY_AREA = 6.0
_HUGE = 0.95
_SAME = 0.9
Edges = tuple[float, float, float, float]
Placed = Box | Polygons | Rle | OrientedBox


def run(data: AuditData) -> CheckResult:
    """Report each sample once for each kind of fault, its annotations counted."""
    found: list[AuditFinding] = []
    bare: list[int] = []
    count = 0
    for index, (sample, row) in enumerate(zip(data.samples, data.measured, strict=True)):
        kinds = (sample.labels, sample.boxes, sample.polygons, sample.rle, sample.oriented_boxes, sample.keypoints)
        count += sum(map(len, kinds))
        if not (any(kinds) or sample.mask_path):
            bare.append(index)
        if row.readable:
            found += _objects(sample, row)
            found += _mask(data, sample, row)
    if bare:
        labelled = data.info.task in (Task.CLASSIFICATION, Task.MULTI_LABEL)
        severity = Severity.ERROR if data.info.task == Task.CLASSIFICATION else Severity.INFO
        todo = "label them" if labelled else "see that nothing is to be marked in them"
        told = f"{plural(len(bare), 'image has', 'images have')} no annotation: {some(data.named(bare))}; {todo}."
        found.append(AuditFinding(_NAME, severity, "NO_ANNOTATION", told, related=data.ids(bare), score=len(bare)))
    return CheckResult(tuple(found), f"{plural(count, 'annotation')}, {plural(len(bare), 'image')} without any.")


def _objects(sample: Sample, row: Measured) -> Iterator[AuditFinding]:
    faults: defaultdict[str, list[tuple[AnnotationRef, Edges]]] = defaultdict(list)
    places = ("boxes", sample.boxes), ("polygons", sample.polygons), ("rle", sample.rle), ("oriented_boxes", sample.oriented_boxes)
    for kind, items in places:
        items_here: tuple[Placed, ...] = tuple(items)
        edges = [_edges(item) for item in items_here]
        for place, (item, box) in enumerate(zip(items_here, edges, strict=True)):
            ref = AnnotationRef(sample.id, kind, place)
            code = _fault(item, box, row)
            if code:
                faults[code].append((ref, box))
        for code, place in _twice(items_here, edges):
            faults[code].append((AnnotationRef(sample.id, kind, place), edges[place]))
    for place, marked in enumerate(sample.keypoints):
        code = _fault_of_points(marked, row)
        if code:
            faults[code].append((AnnotationRef(sample.id, "keypoints", place), _around(marked)))
    for code, refs in faults.items():
        severity, words, fix = _WORDS[code]
        told = f"{plural(len(refs), 'annotation')} of {sample.source_path or sample.id}: {words}."
        yield AuditFinding(
            _NAME, severity, code, told, sample.id, score=len(refs), boxes=tuple(box for _, box in refs if all(map(math.isfinite, box))),
            drop_annotations=tuple(ref for ref, _ in refs) if fix else (),
        )  # fmt: skip


_WORDS: dict[str, tuple[Severity, str, bool]] = {
    "EMPTY_ANNOTATION": (Severity.ERROR, "without area or not of finite numbers; draw them again, or let --fix leave them out", True),
    "ANNOTATION_OUT_OF_IMAGE": (Severity.ERROR, "wholly outside the image; draw them again, or let --fix leave them out", True),
    "DUPLICATE_ANNOTATION": (Severity.WARNING, "there twice: same class, nearly the same place; --fix keeps the first of each", True),
    "CONFLICTING_ANNOTATION": (Severity.WARNING, "at nearly the place of another one of another class; find out which is right", False),
    "TINY_ANNOTATION": (
        Severity.WARNING,
        f"thinner than {_TINY_SIDE:g} or smaller than {_TINY_AREA:g} pixels: a slip of the hand, or too small to be learned",
        False,
    ),
    "POINT_OUT_OF_IMAGE": (Severity.ERROR, "with points outside the image, others inside; move them, or take them out", False),
    "REPEATED_POINT": (Severity.WARNING, "with two points of one name; find out which is right", False),
    "HUGE_ANNOTATION": (Severity.INFO, f"over more than {_HUGE:.0%} of the image: is the whole image meant", False),
}


def _fault(item: Placed, box: Edges, row: Measured) -> str:
    area = _area(item)
    width, height = (item.width, item.height) if isinstance(item, OrientedBox) else (box[2] - box[0], box[3] - box[1])
    if not all(map(math.isfinite, box)) or not area > 0 or width <= 0 or height <= 0:
        return "EMPTY_ANNOTATION"
    if box[2] <= 0 or box[3] <= 0 or box[0] >= row.width or box[1] >= row.height:
        return "ANNOTATION_OUT_OF_IMAGE"
    if min(width, height) < _TINY_SIDE or area < _TINY_AREA:
        return "TINY_ANNOTATION"
    if area > _HUGE * row.width * row.height and not item.crowd:
        return "HUGE_ANNOTATION"
    return ""


def _fault_of_points(marked: Keypoints, row: Measured) -> str:
    points = marked.points
    if not points or not all(math.isfinite(p.x) and math.isfinite(p.y) for p in points):
        return "EMPTY_ANNOTATION"
    outside = sum(not (0 <= p.x <= row.width and 0 <= p.y <= row.height) for p in points)
    if outside:
        return "ANNOTATION_OUT_OF_IMAGE" if outside == len(points) else "POINT_OUT_OF_IMAGE"
    return "REPEATED_POINT" if len({p.name for p in points}) < len(points) else ""


def _around(marked: Keypoints) -> Edges:
    """Give a place to draw: around all points, with some room."""
    if not marked.points:
        return math.nan, math.nan, math.nan, math.nan
    xs, ys = [p.x for p in marked.points], [p.y for p in marked.points]
    return min(xs) - 2, min(ys) - 2, max(xs) + 2, max(ys) + 2


def _edges(item: Placed) -> Edges:
    if isinstance(item, Box):
        return item.x, item.y, item.x + item.width, item.y + item.height
    if isinstance(item, OrientedBox):
        xs, ys = ([corner[axis] for corner in item.corners()] for axis in (0, 1))
        return min(xs), min(ys), max(xs), max(ys)
    if isinstance(item, Polygons):
        xs = [x for ring in item.rings for x in ring[0::2]]
        ys = [y for ring in item.rings for y in ring[1::2]]
        return (min(xs), min(ys), max(xs), max(ys)) if xs and ys else (0.0, 0.0, 0.0, 0.0)
    place, left, right, upper, lower = 0, item.width, 0, item.height, 0
    for number, run_length in enumerate(item.counts):
        if number % 2 and run_length:
            first, last = divmod(place, item.height), divmod(place + run_length - 1, item.height)
            left, right = min(left, first[0]), max(right, last[0] + 1)
            # A run over several columns touches their upper and lower edge.
            upper = 0 if first[0] != last[0] else min(upper, first[1])
            lower = item.height if first[0] != last[0] else max(lower, last[1] + 1)
        place += run_length
    return float(left), float(upper), float(right), float(lower)


def _area(item: Placed) -> float:
    if isinstance(item, Box | OrientedBox):
        return item.width * item.height if item.width > 0 else 0.0
    if isinstance(item, Rle):
        return float(sum(item.counts[1::2]))
    return sum(ring_area(ring) for ring in item.rings)


def _twice(items: tuple[Placed, ...], edges: list[Edges]) -> Iterator[tuple[str, int]]:
    """Find annotations at nearly the place of an earlier one: boxes around both overlap by 90 %, and their areas are as near."""
    order = sorted(range(len(items)), key=lambda i: edges[i][0])
    areas = [_area(item) for item in items]
    found: dict[int, str] = {}
    for position, one in enumerate(order):
        for other in order[position + 1 :]:
            if edges[other][0] > edges[one][2]:
                break
            crowd = items[one].crowd or items[other].crowd
            even = min(areas[one], areas[other]) >= _SAME * max(areas[one], areas[other])
            if even and not crowd and _alike(edges[one], edges[other]) and _turned_alike(items[one], items[other]):
                same = items[one].class_name == items[other].class_name
                found.setdefault(max(one, other), "DUPLICATE_ANNOTATION" if same else "CONFLICTING_ANNOTATION")
    for place, code in sorted(found.items()):
        yield code, place


def _alike(one: Edges, other: Edges) -> bool:
    width, height = min(one[2], other[2]) - max(one[0], other[0]), min(one[3], other[3]) - max(one[1], other[1])
    if width <= 0 or height <= 0:
        return False
    both = (one[2] - one[0]) * (one[3] - one[1]) + (other[2] - other[0]) * (other[3] - other[1]) - width * height
    return width * height >= _SAME * both


def _turned_alike(one: Placed, other: Placed) -> bool:
    """Tell whether turned boxes overlap as far as the boxes around them do: a box and its mirror image have the same one around them."""
    if not isinstance(one, OrientedBox) or not isinstance(other, OrientedBox):
        return True
    import shapely

    first, second = shapely.Polygon(one.corners()), shapely.Polygon(other.corners())
    return bool(first.intersection(second).area >= _SAME * first.union(second).area)


def _mask(data: AuditData, sample: Sample, row: Measured) -> Iterator[AuditFinding]:
    mask = data.info.mask
    if mask is None or not sample.mask_path or row.mask_code:
        return
    ignored = {*mask.ignore, *(() if mask.kind == "class" and 0 in mask.values else (0,))}
    things = {value: n for value, n in zip(row.mask_values, row.mask_counts, strict=True) if value not in ignored}
    total = row.width * row.height
    if not things:
        told = "its mask marks nothing: see that there is nothing to mark in it."
        yield AuditFinding(_NAME, Severity.INFO, "EMPTY_MASK", told, sample.id)
        return
    if mask.kind == "instance":
        tiny = [value for value, n in things.items() if n < _TINY_AREA]
        if tiny:
            told = (
                f"{plural(len(tiny), 'object')} of its mask {'has' if len(tiny) == 1 else 'have'} fewer than {_TINY_AREA:g} pixels "
                f"(numbers {some([str(v) for v in tiny])}): specks of the annotation tool?"
            )
            yield AuditFinding(_NAME, Severity.WARNING, "TINY_ANNOTATION", told, sample.id, score=len(tiny))
    largest = max(things, key=lambda value: things[value])
    if things[largest] > _HUGE * total and len(things) == 1:
        told = f"number {largest} covers {things[largest] / total:.1%} of its mask: is the whole image meant, or is the mask inverted?"
        yield AuditFinding(_NAME, Severity.INFO, "HUGE_ANNOTATION", told, sample.id, score=things[largest] / total)
