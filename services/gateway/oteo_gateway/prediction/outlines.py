"""Outlines of regions along the edges of their pixels, as polygons."""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray

TOLERANCE = 0.75
"""Pixels by which an outline's straight pieces may leave the edges of pixels."""


def outlines_of(window: NDArray[np.bool_], left: int = 0, top: int = 0, tolerance: float = TOLERANCE) -> tuple[tuple[float, ...], ...]:
    """Give the outer outlines of a mask, holes filled; a mask of several pieces has several.

    Parameters
    ----------
    window
        ``(h, w)``, the mask or the part of an image that it lies in.
    left, top
        Where the window's upper left corner lies in the image, pixels.
    tolerance
        Pixels by which straight pieces may leave the edges of pixels; 0: not at all.

    Returns
    -------
    tuple
        For each outline ``x0, y0, x1, y1, ...``, pixels, origin at the upper left corner of the image's upper left pixel.

    Notes
    -----
    Contours are found where each pixel is two by two, so that a point tells by its parity on which side of its pixel the edge lies; simplified by
    Douglas and Peucker (Cartographica 1973).
    """
    doubled = np.repeat(np.repeat(window.astype(np.uint8), 2, axis=0), 2, axis=1)
    contours, _ = cv2.findContours(doubled, cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)
    found = []
    for contour in contours:
        corners = _corners((contour.reshape(-1, 2) + 1) // 2)
        if tolerance > 0 and len(corners) > 4:
            simple = cv2.approxPolyDP(corners.astype(np.float32).reshape(-1, 1, 2), tolerance, closed=True).reshape(-1, 2)
            corners = simple if len(simple) >= 3 else corners
        placed = corners + np.array([left, top])
        found.append(tuple(float(value) for value in placed.ravel()))
    return tuple(found)


def _corners(points: NDArray[np.int32]) -> NDArray[np.int32]:
    """Keep the corners of a closed line of unit steps: the points at which it turns."""
    steps = points - np.roll(points, 1, axis=0)
    points = points[(steps != 0).any(axis=1)]
    before, after = points - np.roll(points, 1, axis=0), np.roll(points, -1, axis=0) - points
    turns = before[:, 0] * after[:, 1] != before[:, 1] * after[:, 0]
    corners: NDArray[np.int32] = points[turns]
    return corners
