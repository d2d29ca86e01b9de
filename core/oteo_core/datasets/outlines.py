"""What is measured of outlines: areas that a crossing does not cancel, and whether an outline crosses itself."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

_CANCELLED = 0.01
"""Share of its box below which a signed area may be what two lobes left of each other."""
_LEVELS = (0.17, 0.41, 0.59, 0.83)
_AT_ONCE = 256


def ring_area(ring: Sequence[float]) -> float:
    """Measure the area of a closed ring, square pixels; a figure of eight has that of its lobes.

    Parameters
    ----------
    ring
        x and y of the corners, one after another.
    """
    points = np.asarray(ring, np.float64).reshape(-1, 2)
    if len(points) < 3:
        return 0.0
    x, y = (points - points[0]).T
    signed = abs(float(np.dot(np.roll(x, 1), y) - np.dot(x, np.roll(y, 1)))) / 2
    if signed > _CANCELLED * float(np.ptp(x)) * float(np.ptp(y)):
        return signed
    return max(signed, _filled_area(x, y))


def _filled_area(x: NDArray[np.float64], y: NDArray[np.float64]) -> float:
    """Measure what the even-odd rule fills, by the width at some heights between each corner and the next."""
    levels = np.unique(y)
    heights = np.diff(levels)
    x2, y2 = np.roll(x, -1), np.roll(y, -1)
    total = 0.0
    for level, height in zip(levels[:-1], heights, strict=True):
        for share in _LEVELS:
            at = level + share * height
            hit = (y <= at) != (y2 <= at)
            crossings = np.sort(x[hit] + (at - y[hit]) / (y2[hit] - y[hit]) * (x2[hit] - x[hit]))
            total += height / len(_LEVELS) * float(np.sum(crossings[1::2] - crossings[0::2]))
    # What is left of rounding is no area.
    return total if total > 1e-6 * max(1.0, float(np.ptp(x)) * float(np.ptp(y))) else 0.0


def crosses_itself(ring: Sequence[float]) -> bool:
    """Tell whether two sides of a closed ring cross; sides that only touch do not.

    Parameters
    ----------
    ring
        x and y of the corners, one after another.
    """
    points = np.asarray(ring, np.float64).reshape(-1, 2)
    count = len(points)
    if count < 4:
        return False
    a, b = points, np.roll(points, -1, axis=0)

    def side(p: NDArray[np.float64], q: NDArray[np.float64], r: NDArray[np.float64]) -> NDArray[np.float64]:
        found: NDArray[np.float64] = (q[..., 0] - p[..., 0]) * (r[..., 1] - p[..., 1]) - (q[..., 1] - p[..., 1]) * (r[..., 0] - p[..., 0])
        return found

    # Some rows of pairs at a time: long outlines have millions of pairs.
    for start in range(0, count, _AT_ONCE):
        p, q = a[start : start + _AT_ONCE, None], b[start : start + _AT_ONCE, None]
        apart = side(p, q, a[None]) * side(p, q, b[None]) < 0
        if np.any(apart & (side(a[None], b[None], p) * side(a[None], b[None], q) < 0)):
            return True
    return False
