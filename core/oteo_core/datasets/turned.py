"""Turned rectangles: from a box to its corners and from points to the smallest turned box around them."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from oteo_core.datasets.annotations import OrientedBox


def corners_of(box: OrientedBox) -> NDArray[np.float64]:
    """Give a box's corners ``(4, 2)``, pixels, in the order of `OrientedBox.corners`."""
    return np.array(box.corners(), np.float64)


def box_of_corners(box: OrientedBox, corners: NDArray[np.float64]) -> OrientedBox:
    """Give a box the place of the smallest rectangle around points; its first two points say which way its own x axis points.

    Parameters
    ----------
    box
        Class, number and attributes.
    corners
        ``(N, 2)``, pixels, three points or more that are not on a line.
    """
    return around(box, corners, corners[1] - corners[0])


def around(box: OrientedBox, points: NDArray[np.float64], along: NDArray[np.float64]) -> OrientedBox:
    """Give a box the place of the rectangle of least area that contains points.

    The least rectangle has a side along one of the sides of the points' convex hull (Freeman and Shapira, CACM 1975). Of the four ways to
    call that side the box's own x axis, it is the one nearest to where that axis was.

    Parameters
    ----------
    box
        Class, number and attributes.
    points
        ``(N, 2)``, pixels.
    along
        Direction of the box's own x axis, ``(2,)``, of any length.
    """
    outer = hull(points)
    sides = np.roll(outer, -1, axis=0) - outer
    lengths = np.hypot(sides[:, 0], sides[:, 1])
    angles = np.arctan2(sides[:, 1], sides[:, 0])[lengths > 1e-9 * max(lengths.max(initial=0.0), 1e-9)]
    if not len(angles):
        angles = np.zeros(1)
    cosine, sine = np.cos(angles), np.sin(angles)
    x = outer[:, 0, None] * cosine + outer[:, 1, None] * sine
    y = outer[:, 1, None] * cosine - outer[:, 0, None] * sine
    width, height = np.ptp(x, axis=0), np.ptp(y, axis=0)
    best = int(np.argmin(width * height))
    middle = np.array([x[:, best].min() + x[:, best].max(), y[:, best].min() + y[:, best].max()]) / 2
    wanted = math.atan2(along[1], along[0])
    quarters = round((wanted - angles[best]) / (math.pi / 2))
    angle = float(angles[best]) + quarters * math.pi / 2
    sizes = (float(width[best]), float(height[best]))
    across, down = sizes if quarters % 2 == 0 else sizes[::-1]
    return replace(
        box,
        center_x=float(middle[0] * cosine[best] - middle[1] * sine[best]),
        center_y=float(middle[0] * sine[best] + middle[1] * cosine[best]),
        width=across,
        height=down,
        angle=math.remainder(angle, 2 * math.pi),
    )


def hull(points: NDArray[np.float64]) -> NDArray[np.float64]:
    """Give the corners ``(M, 2)`` of the convex hull of points ``(N, 2)``; the points themselves where they are on a line."""
    if len(points) == 4:
        sides = np.roll(points, -1, axis=0) - points
        turns = sides[:, 0] * np.roll(sides[:, 1], -1) - sides[:, 1] * np.roll(sides[:, 0], -1)
        if (turns > 0).all() or (turns < 0).all():
            return points
    import shapely

    shape = shapely.MultiPoint(points).convex_hull
    if shape.geom_type != "Polygon":
        return np.asarray(points, np.float64)
    return np.asarray(shape.exterior.coords, np.float64)[:-1]
