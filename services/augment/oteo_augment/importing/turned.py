"""Turned boxes from the four corners that formats give."""

from __future__ import annotations

import math

import numpy as np

from oteo_core.datasets import OrientedBox, Polygons
from oteo_core.datasets.outlines import ring_area
from oteo_core.datasets.turned import box_of_corners

_LOOSE = 1.02
"""By how much the rectangle may be larger than the corners' own area and still be called theirs: rounding."""


def box_of_quad(quad: Polygons) -> OrientedBox:
    """Give the turned box of four corners in pixels: their smallest rectangle, its own x axis from the first corner to the second.

    It is of NaN where the corners are no finite numbers.
    """
    box = OrientedBox(quad.class_name, math.nan, math.nan, 1.0, 1.0, 0.0, quad.crowd, quad.instance, quad.attributes)
    corners = np.reshape(quad.rings[0], (-1, 2))
    return box_of_corners(box, corners) if np.isfinite(corners).all() else box


def is_rectangle(quad: Polygons, box: OrientedBox) -> bool:
    """Tell whether four corners are, to rounding, those of their turned box."""
    return box.width * box.height <= _LOOSE * ring_area(quad.rings[0]) + 1.0
