"""Where an object is: boxes, turned boxes, outlines, run-length masks and named points. Pixels; origin at the upper left corner of the upper left pixel."""

from __future__ import annotations

import math
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


@dataclass(frozen=True, slots=True)
class OrientedBox:
    """A box turned about its centre.

    Parameters
    ----------
    class_name
        Its class.
    center_x, center_y
        Centre, pixels.
    width, height
        Extents along the box's own axes, pixels; greater than zero.
    angle
        Clockwise turn as seen on the screen (x to the right, y down), radians.
    crowd, instance, attributes
        As of `Box`.
    """

    class_name: str
    center_x: float
    center_y: float
    width: float
    height: float
    angle: float
    crowd: bool = False
    instance: int = -1
    attributes: Attributes = ()

    def corners(self) -> tuple[tuple[float, float], ...]:
        """Give its four corners (x, y), pixels, in the order upper left, upper right, lower right, lower left of the box unturned."""
        along = (math.cos(self.angle) * self.width / 2, math.sin(self.angle) * self.width / 2)
        down = (-math.sin(self.angle) * self.height / 2, math.cos(self.angle) * self.height / 2)
        return tuple(
            (self.center_x + a * along[0] + d * down[0], self.center_y + a * along[1] + d * down[1])
            for a, d in ((-1, -1), (1, -1), (1, 1), (-1, 1))
        )


@dataclass(frozen=True, slots=True)
class Keypoint:
    """A named point.

    Parameters
    ----------
    name
        Such as "left_eye".
    x, y
        Pixels.
    visible
        False where it is hidden by something.
    """

    name: str
    x: float
    y: float
    visible: bool = True


@dataclass(frozen=True, slots=True)
class Keypoints:
    """The named points of one object.

    Parameters
    ----------
    class_name
        The object's class.
    points
        Those that were marked, each name once; one that was not marked is not there.
    crowd, instance, attributes
        As of `Box`.
    """

    class_name: str
    points: tuple[Keypoint, ...]
    crowd: bool = False
    instance: int = -1
    attributes: Attributes = ()
