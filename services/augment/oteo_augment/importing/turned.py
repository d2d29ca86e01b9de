"""Turned boxes from the four corners that formats give."""

from __future__ import annotations

import numpy as np

from oteo_augment.importing.items import Item
from oteo_core.datasets import OrientedBox, Polygons, Severity
from oteo_core.datasets.outlines import ring_area
from oteo_core.datasets.turned import box_of_corners

_LOOSE = 1.02
"""By how much the rectangle may be larger than the corners' own area without a word: rounding."""


def box_of_quad(item: Item, quad: Polygons, name: str) -> OrientedBox:
    """Give the turned box of four corners in pixels: their smallest rectangle, its own x axis from the first corner to the second."""
    box = OrientedBox(quad.class_name, 0.0, 0.0, 1.0, 1.0, 0.0, quad.crowd, quad.instance, quad.attributes)
    found = box_of_corners(box, np.reshape(quad.rings[0], (-1, 2)))
    if found.width * found.height > _LOOSE * ring_area(quad.rings[0]) + 1.0:
        item.report(
            Severity.INFO,
            "NOT_A_RECTANGLE",
            f"{name} ({quad.class_name}): its four corners are no rectangle; the smallest around them is taken",
        )
    return found
