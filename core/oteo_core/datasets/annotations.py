"""Where an object is: boxes, outlines and run-length masks. Pixels; origin at the upper left corner of the upper left pixel."""

from __future__ import annotations

from dataclasses import dataclass, field

Attributes = tuple[tuple[str, str], ...]


@dataclass(frozen=True, slots=True)
class Box:
    """An axis-aligned box.

    Parameters
    ----------
    class_name
        Its class.
    x, y
        Left and upper edge, pixels.
    width, height
        Extents, pixels; greater than zero.
    crowd
        True for a region of many objects that are not told apart.
    instance
        The object's number within its image, shared by a box and an outline of one object; -1 where there is none.
    attributes
        What else the outside format said, as sorted pairs.
    """

    class_name: str
    x: float
    y: float
    width: float
    height: float
    crowd: bool = False
    instance: int = -1
    attributes: Attributes = ()


@dataclass(frozen=True, slots=True)
class Polygons:
    """An object's outline: the union of closed curves.

    Parameters
    ----------
    class_name
        Its class.
    rings
        One curve each: x0, y0, x1, y1, ... in pixels, at least three corners.
    crowd, instance, attributes
        As of `Box`.
    """

    class_name: str
    rings: tuple[tuple[float, ...], ...]
    crowd: bool = False
    instance: int = -1
    attributes: Attributes = ()


@dataclass(frozen=True, slots=True)
class Rle:
    """An object's mask as runs of 0 and 1 in turn, column by column, beginning with 0 (COCO's uncompressed form).

    Parameters
    ----------
    class_name
        Its class.
    height, width
        Extents of the mask, pixels.
    counts
        Lengths of the runs; they add up to height times width.
    crowd, instance, attributes
        As of `Box`.
    """

    class_name: str
    height: int
    width: int
    counts: tuple[int, ...]
    crowd: bool = False
    instance: int = -1
    attributes: Attributes = field(default=())
