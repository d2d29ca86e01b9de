"""Moves annotations as the pixels under them were moved, by the parameters that a transform drew for the image."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from oteo_core.augmentation.engines.base import Border
from oteo_core.datasets.annotations import Box, Keypoints, OrientedBox, Polygons, Rle
from oteo_core.datasets.runs import mask_from_runs, runs_from_mask
from oteo_core.datasets.turned import around, corners_of, hull

_LINES_BEND = frozenset({"ElasticTransform", "GridDistortion", "OpticalDistortion", "ThinPlateSpline"})
_STEP = 4.0
"""Pixels between two corners of an outline that is bent: an elastic field is smooth at that scale."""
_LEAST = 1.0
"""Pixels of area below which nothing is left of an object, whatever share of it that is."""


@dataclass(frozen=True, slots=True)
class Annotations:
    """Where the objects of an image are.

    Parameters
    ----------
    boxes, polygons, rle, oriented_boxes, keypoints
        As of `oteo_core.datasets.Sample`; what shares an `instance` is one object.
    mask
        Label image ``(H, W)`` of integers, 0 is background; None where there is none.
    mask_instances
        True: a number in the mask is an object; False: a class.
    ignore
        Numbers of the mask that are neither object nor class.
    """

    boxes: tuple[Box, ...] = ()
    polygons: tuple[Polygons, ...] = ()
    rle: tuple[Rle, ...] = ()
    mask: NDArray[Any] | None = None
    mask_instances: bool = False
    ignore: frozenset[int] = frozenset()
    oriented_boxes: tuple[OrientedBox, ...] = ()
    keypoints: tuple[Keypoints, ...] = ()

    def __bool__(self) -> bool:
        return bool(self.boxes or self.polygons or self.rle or self.oriented_boxes or self.keypoints) or self.mask is not None


@dataclass(frozen=True, slots=True)
class Motion:
    """What one geometric step did to an image.

    Parameters
    ----------
    name
        The transform's name in the catalogue.
    transform
        An albumentations `DualTransform`.
    params
        What it drew.
    before, after
        Height and width of the image before and after.
    """

    name: str
    transform: Any
    params: dict[str, Any]
    before: tuple[int, int]
    after: tuple[int, int]

    @property
    def straight(self) -> bool:
        """True if lines stay lines, so that moving an outline's corners moves the outline."""
        return self.name not in _LINES_BEND

    def points(self, points: NDArray[np.float64]) -> NDArray[np.float64]:
        """Move points ``(N, 2)``, x and y in pixels from the upper left corner of the upper left pixel."""
        # albumentations counts from the middle of that pixel, and wants z, angle and scale too.
        full = np.zeros((len(points), 5), np.float32)
        full[:, :2] = points - 0.5
        full[:, 4] = 1.0
        # Where what lies outside is mirrored in, albumentations gives the mirrored points too, nine for one; an object is there once.
        border = getattr(self.transform, "border_mode", None)
        if border is not None:
            self.transform.border_mode = Border.CONSTANT.value
        try:
            moved = np.asarray(self.transform.apply_to_keypoints(full, **self.params), np.float64)
        finally:
            if border is not None:
                self.transform.border_mode = border
        return moved[:, :2] + 0.5

    def numbers(self, mask: NDArray[Any]) -> NDArray[Any]:
        """Move a label image ``(H, W)``: each pixel takes the number of the nearest; its dtype stays."""
        values, work = None, mask
        if mask.dtype not in (np.uint8, np.uint16):
            # OpenCV moves no wider integers; an image has never more numbers than pixels.
            values, inverse = np.unique(mask, return_inverse=True)
            if 0 not in values:
                values = np.concatenate([np.zeros(1, mask.dtype), values])
                inverse = inverse + 1
            if len(values) > 65536:
                raise ValueError(f"a label image with {len(values)} different numbers")
            # What comes in from outside is 0, so the first number must be background.
            order = np.argsort(values != 0, kind="stable")
            rank = np.empty_like(order)
            rank[order] = np.arange(len(order))
            values, work = values[order], rank[inverse].reshape(mask.shape).astype(np.uint16)
        moved = np.asarray(self.transform.apply_to_mask(np.ascontiguousarray(work), **self.params))
        if moved.ndim == 3:
            moved = moved[:, :, 0]
        return np.ascontiguousarray(moved if values is None else values[moved])


@dataclass(slots=True)
class _Thing:
    """An annotation on its way: what it was, where it is now, and the share of it that is still in the picture.

    Of an oriented box the rings are the part that is in the picture, `outer` holds points around all of it, and `axis` two points on its own
    x axis. Of key points, `outer` holds those that are left, and `names` their numbers in the original.
    """

    origin: Box | Polygons | Rle | OrientedBox | Keypoints
    rings: list[NDArray[np.float64]] = field(default_factory=list)
    mask: NDArray[np.uint8] | None = None
    share: float = 1.0
    outer: NDArray[np.float64] | None = None
    axis: NDArray[np.float64] | None = None
    names: list[int] = field(default_factory=list)
    moved: bool = False


class Mover:
    """Takes an image's annotations through the geometric steps of a policy.

    Parameters
    ----------
    annotations
        Those of the image as it was.

    Attributes
    ----------
    points_lost
        Key points that left the picture, by name.
    """

    def __init__(self, annotations: Annotations) -> None:
        self._given = annotations
        self._mask = annotations.mask
        self._shares: dict[int, float] = {}
        self._things: list[_Thing] = []
        self.points_lost: Counter[str] = Counter()
        for box in annotations.boxes:
            left, top, right, bottom = box.x, box.y, box.x + box.width, box.y + box.height
            corners = np.array([[left, top], [right, top], [right, bottom], [left, bottom]])
            self._things.append(_Thing(box, [corners]))
        for outline in annotations.polygons:
            self._things.append(_Thing(outline, [np.asarray(ring, np.float64).reshape(-1, 2) for ring in outline.rings]))
        for runs in annotations.rle:
            self._things.append(_Thing(runs, mask=mask_from_runs(runs.counts, runs.height, runs.width)))
        for turned in annotations.oriented_boxes:
            corners = corners_of(turned)
            self._things.append(_Thing(turned, [corners], outer=corners, axis=corners[:2]))
        for marked in annotations.keypoints:
            points = np.array([(point.x, point.y) for point in marked.points], np.float64).reshape(-1, 2)
            self._things.append(_Thing(marked, outer=points, names=list(range(len(points)))))

    def move(self, motion: Motion) -> None:
        """Move everything by one step; what leaves the image is cut off, as its pixels are."""
        for thing, places in zip(self._things, _moved(motion, [_places(motion, thing) for thing in self._things]), strict=True):
            thing.moved = True
            if isinstance(thing.origin, Keypoints):
                self._leave(motion, thing, places[0])
            elif thing.mask is not None:
                thing.share *= _inside(motion, thing.mask != 0)
                thing.mask = motion.numbers(thing.mask)
            else:
                if thing.outer is not None:
                    # The whole box goes on, with what of it is outside: its corners say where the object ends.
                    *places, outer, thing.axis = places
                    thing.outer = outer if motion.straight else hull(outer)
                thing.rings, share = _cut(motion, places)
                thing.share *= share
        if self._mask is not None:
            if self._given.mask_instances:
                for number, share in self._shares_inside(motion, self._mask):
                    self._shares[number] = self._shares.get(number, 1.0) * share
            self._mask = motion.numbers(self._mask)

    def _leave(self, motion: Motion, thing: _Thing, moved: NDArray[np.float64]) -> None:
        """Take key points that left the image out, and count them."""
        assert isinstance(thing.origin, Keypoints)
        height, width = motion.after
        inside = ((moved >= 0) & (moved <= (width, height))).all(axis=1)
        self.points_lost.update(thing.origin.points[thing.names[place]].name for place in np.flatnonzero(~inside))
        thing.outer = moved[inside]
        thing.names = [thing.names[place] for place in np.flatnonzero(inside)]
        thing.share = len(thing.names) / max(len(thing.origin.points), 1)

    def covered(self, height: int, width: int) -> NDArray[np.bool_] | None:
        """Give the pixels (H, W) that are objects' as things are now; None where there is no object.

        A box is all object where no outline or run-length mask of the same object says more; numbers of a mask that are to be ignored count as
        objects, since nobody knows.
        """
        found = np.zeros((height, width), np.uint8)
        if self._mask is not None:
            found |= (self._mask != 0).astype(np.uint8)
        outlined = {
            t.origin.instance for t in self._things if isinstance(t.origin, Polygons | Rle | OrientedBox) and t.origin.instance >= 0
        }
        for thing in self._things:
            if thing.mask is not None:
                found |= (thing.mask != 0).astype(np.uint8)
            elif not (isinstance(thing.origin, Box) and thing.origin.instance in outlined):
                for ring in thing.rings:
                    if len(ring) > 2:
                        # Whatever pixel the outline touches is the object's; OpenCV counts from pixels' middles, with four bits of fraction here.
                        cv2.fillPoly(found, [np.rint((ring - 0.5) * 16).astype(np.int32)], 1, cv2.LINE_8, 4)
        return found.astype(bool) if found.any() else None

    def result(self, min_visible_share: float) -> tuple[Annotations, Counter[str]]:
        """Give what is left.

        Parameters
        ----------
        min_visible_share
            An object that keeps less than this share of its area (of its points, where it has nothing else) is dropped, 0 to 1; so is one of
            which less than one pixel is left, or no point.

        Returns
        -------
        Annotations, Counter
            The annotations, and the number of objects that were dropped by class ("" for those of an instance mask).
        """
        kept = [thing for thing in self._things if thing.share >= min_visible_share and _left(thing)]
        whole = set(map(id, kept))
        # An object's outline says more of it than its box, an oriented box more than an upright one, and points the least of where it ends:
        # what says most decides.
        ruler: dict[int, _Thing] = {}
        for thing in self._things:
            number = thing.origin.instance
            if number >= 0 and (number not in ruler or _rank(thing) > _rank(ruler[number])):
                ruler[number] = thing
        alive = {
            thing.origin.instance for thing in kept if thing.origin.instance >= 0 and _rank(thing) == _rank(ruler[thing.origin.instance])
        }
        found = _Found()
        lost: Counter[str] = Counter()
        gone: set[int] = set()
        for thing in self._things:
            number = thing.origin.instance
            ruled = number >= 0 and _rank(thing) < _rank(ruler[number])
            if (number not in alive) if ruled else (id(thing) not in whole):
                if number < 0 or number not in gone:
                    lost[thing.origin.class_name] += 1
                gone.add(number)
            else:
                found.add(thing, ruler[number] if ruled else thing)
        mask = self._mask
        if mask is not None and self._given.mask_instances:
            mask, dropped = self._cleared(mask, min_visible_share)
            if dropped:
                lost[""] += dropped
        return found.annotations(self._given, mask), lost

    def _objects(self, numbers: NDArray[Any]) -> NDArray[np.bool_]:
        return np.asarray((numbers != 0) & ~np.isin(numbers, list(self._given.ignore)))

    def _shares_inside(self, motion: Motion, mask: NDArray[Any]) -> Iterator[tuple[int, float]]:
        """Give each object's number and the share of its pixels that stay in the image, all objects at once."""
        rows, columns = np.nonzero(self._objects(mask))
        numbers, which = np.unique(mask[rows, columns], return_inverse=True)
        stay = _stay(motion, rows, columns)
        shares = np.bincount(which, weights=stay, minlength=len(numbers)) / np.maximum(np.bincount(which, minlength=len(numbers)), 1)
        yield from zip(numbers.tolist(), shares.tolist(), strict=True)

    def _cleared(self, mask: NDArray[Any], least: float) -> tuple[NDArray[Any], int]:
        """Take objects of which too little is left out of a mask; give it and how many went, those included that have no pixel left."""
        numbers = np.unique(mask)
        left = set(numbers[self._objects(numbers)].tolist())
        small = {number for number in left if self._shares.get(number, 1.0) < least}
        if small:
            mask = np.where(np.isin(mask, list(small)), 0, mask).astype(mask.dtype)
        return mask, len(small) + len(self._shares.keys() - left)


@dataclass(slots=True)
class _Found:
    """Annotations as they come out, by kind."""

    boxes: list[Box] = field(default_factory=list)
    polygons: list[Polygons] = field(default_factory=list)
    rle: list[Rle] = field(default_factory=list)
    oriented_boxes: list[OrientedBox] = field(default_factory=list)
    keypoints: list[Keypoints] = field(default_factory=list)

    def add(self, thing: _Thing, ruler: _Thing) -> None:
        """Take a thing; an upright box is put around what says most of its object."""
        origin = thing.origin
        if isinstance(origin, Box):
            left, top, right, bottom = _bounds(ruler)
            self.boxes.append(replace(origin, x=left, y=top, width=right - left, height=bottom - top))
        elif isinstance(origin, Polygons):
            rings = tuple(tuple(float(value) for value in ring.ravel()) for ring in thing.rings)
            self.polygons.append(replace(origin, rings=rings))
        elif isinstance(origin, Rle):
            assert thing.mask is not None
            height, width = thing.mask.shape
            self.rle.append(replace(origin, height=height, width=width, counts=runs_from_mask(thing.mask)))
        elif isinstance(origin, OrientedBox):
            assert thing.outer is not None
            assert thing.axis is not None
            self.oriented_boxes.append(around(origin, thing.outer, thing.axis[1] - thing.axis[0]) if thing.moved else origin)
        elif thing.names:
            assert thing.outer is not None
            places = zip(thing.names, thing.outer.tolist(), strict=True)
            points = tuple(replace(origin.points[number], x=x, y=y) for number, (x, y) in places)
            self.keypoints.append(replace(origin, points=points))

    def annotations(self, given: Annotations, mask: NDArray[Any] | None) -> Annotations:
        """Give all of them, with a mask."""
        return replace(
            given,
            boxes=tuple(self.boxes),
            polygons=tuple(self.polygons),
            rle=tuple(self.rle),
            oriented_boxes=tuple(self.oriented_boxes),
            keypoints=tuple(self.keypoints),
            mask=mask,
        )


def _rank(thing: _Thing) -> int:
    """Give how much an annotation says of where its object ends."""
    if isinstance(thing.origin, Polygons | Rle):
        return 3
    return {OrientedBox: 2, Box: 1}.get(type(thing.origin), 0)


def _left(thing: _Thing) -> bool:
    return bool(thing.names) if isinstance(thing.origin, Keypoints) else _area(thing) >= _LEAST


def _places(motion: Motion, thing: _Thing) -> list[NDArray[np.float64]]:
    """Give the points of a thing that are to be moved: of its rings, then those around an oriented box and on its axis."""
    if isinstance(thing.origin, Keypoints):
        assert thing.outer is not None
        return [thing.outer]
    curves = thing.rings if thing.outer is None else [*thing.rings, thing.outer]
    places = [curve if motion.straight else _densified(curve) for curve in curves]
    return places if thing.axis is None else [*places, thing.axis]


def _moved(motion: Motion, places: Sequence[Sequence[NDArray[np.float64]]]) -> Iterator[list[NDArray[np.float64]]]:
    """Move the points of all things at once: an image may have hundreds."""
    flat = [points for group in places for points in group]
    ends = np.cumsum([len(points) for points in flat])
    pieces = iter(np.split(motion.points(np.concatenate(flat)), ends[:-1]) if len(ends) and ends[-1] else flat)
    for group in places:
        yield [next(pieces) for _ in group]


def _cut(motion: Motion, moved: list[NDArray[np.float64]]) -> tuple[list[NDArray[np.float64]], float]:
    """Cut moved closed curves at the image's edge; give them, and the share of their area that stayed."""
    height, width = motion.after
    if all((ring >= 0).all() and (ring <= (width, height)).all() for ring in moved):
        return moved, 1.0
    import shapely

    frame = shapely.box(0, 0, width, height)
    before = after = 0.0
    cut: list[NDArray[np.float64]] = []
    for ring in moved:
        shape = shapely.Polygon(ring)
        if not shape.is_valid:
            shape = shapely.make_valid(shape)
        part = shape.intersection(frame)
        before += shape.area
        after += part.area
        cut += [np.asarray(piece.exterior.coords, np.float64)[:-1] for piece in _surfaces(part) if piece.area > 0]
    return cut, after / before if before > 0 else 0.0


def _surfaces(shape: Any) -> Iterable[Any]:
    if shape.geom_type == "Polygon":
        yield shape
    elif hasattr(shape, "geoms"):
        for part in shape.geoms:
            yield from _surfaces(part)


def _densified(ring: NDArray[np.float64]) -> NDArray[np.float64]:
    """Put corners on a curve's sides, so that it can be bent."""
    following = np.roll(ring, -1, axis=0)
    parts = []
    for start, end in zip(ring, following, strict=True):
        count = max(1, int(np.ceil(np.hypot(*(end - start)) / _STEP)))
        parts.append(start + (end - start) * (np.arange(count) / count)[:, None])
    return np.concatenate(parts)


def _inside(motion: Motion, mask: NDArray[np.bool_]) -> float:
    """Give the share of a mask's pixels whose middle stays in the image."""
    rows, columns = np.nonzero(mask)
    if not len(rows):
        return 1.0
    return float(_stay(motion, rows, columns).mean())


def _stay(motion: Motion, rows: NDArray[Any], columns: NDArray[Any]) -> NDArray[np.bool_]:
    """Tell of each pixel whether its middle stays in the image."""
    moved = motion.points(np.stack([columns, rows], axis=1).astype(np.float64) + 0.5)
    height, width = motion.after
    return np.asarray(((moved >= 0) & (moved < (width, height))).all(axis=1))


def _area(thing: _Thing) -> float:
    if thing.mask is not None:
        return float(np.count_nonzero(thing.mask))
    return sum(_ring_area(ring) for ring in thing.rings)


def _ring_area(ring: NDArray[np.float64]) -> float:
    """Area of a closed curve, by the shoelace formula."""
    x, y = ring[:, 0], ring[:, 1]
    # Each corner's follower; np.roll takes eight times as long.
    following = np.concatenate((ring[1:], ring[:1]))
    return 0.5 * abs(float(np.dot(x, following[:, 1]) - np.dot(y, following[:, 0])))


def _bounds(thing: _Thing) -> tuple[float, float, float, float]:
    if thing.mask is not None:
        rows, columns = np.nonzero(thing.mask)
        return float(columns.min()), float(rows.min()), float(columns.max()) + 1, float(rows.max()) + 1
    points = np.concatenate(thing.rings)
    (left, top), (right, bottom) = points.min(axis=0), points.max(axis=0)
    return float(left), float(top), float(right), float(bottom)
