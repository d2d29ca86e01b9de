"""How far apart the outlines of two masks are.

Outlines are taken as in Nikolov et al., "Deep learning to achieve clinically applicable segmentation of head and neck anatomy for
radiotherapy", 2018 (arXiv 1809.04430): an outline passes through every corner of four pixels that are not all alike, with the length that
marching squares gives it there, so that neither its roughness nor its direction changes how much a piece of it counts.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import distance_transform_edt

from oteo_core.evaluation.bootstrap import Floats

Flags = NDArray[np.bool_]


def _lengths(spacing: tuple[float, float]) -> Floats:
    """Give the outline's length for each pattern of four pixels: upper left 1, upper right 2, lower left 4, lower right 8."""
    height, width = spacing
    corner = 0.5 * float(np.hypot(height, width))
    lengths = np.zeros(16)
    for code in range(1, 15):
        inside = bin(code).count("1")
        if inside in (1, 3):
            lengths[code] = corner
        elif code in (0b0011, 0b1100):
            lengths[code] = width
        elif code in (0b0101, 0b1010):
            lengths[code] = height
        else:
            lengths[code] = 2 * corner
    return lengths


def outline(mask: Flags, spacing: tuple[float, float] = (1.0, 1.0)) -> Floats:
    """Give the length of the mask's outline at each corner of pixels, ``(H + 1, W + 1)``; the image's border is outside."""
    padded = np.pad(mask, 1).astype(np.uint8)
    codes = padded[:-1, :-1] | padded[:-1, 1:] << 1 | padded[1:, :-1] << 2 | padded[1:, 1:] << 3
    lengths: Floats = _lengths(spacing)[codes]
    return lengths


class SurfaceDistances:
    """Distances between the outlines of a true and a found mask, both with at least one pixel.

    Parameters
    ----------
    true, found
        ``(H, W)`` bool.
    spacing
        Height and width of a pixel, in the unit of the distances.
    """

    def __init__(self, true: Flags, found: Flags, spacing: tuple[float, float] = (1.0, 1.0)) -> None:
        rows, columns = np.nonzero(true | found)
        window = np.s_[rows.min() : rows.max() + 1, columns.min() : columns.max() + 1]
        here, there = outline(true[window], spacing), outline(found[window], spacing)
        to_found = distance_transform_edt(there == 0, sampling=spacing)
        to_true = distance_transform_edt(here == 0, sampling=spacing)
        self._sides = [(to_found[here > 0], here[here > 0]), (to_true[there > 0], there[there > 0])]

    def hausdorff(self, share: float = 0.95) -> float:
        """Give the larger of both sides' distances within which `share` of the outline's length lies (robust Hausdorff distance)."""
        largest = 0.0
        for distances, lengths in self._sides:
            order = np.argsort(distances)
            reached = np.cumsum(lengths[order]) / lengths.sum()
            largest = max(largest, float(distances[order][min(int(np.searchsorted(reached, share - 1e-9)), len(order) - 1)]))
        return largest

    def dice(self, tolerance: float) -> float:
        """Give the share of both outlines' length that lies within `tolerance` of the other one."""
        near = sum(float(lengths[distances <= tolerance].sum()) for distances, lengths in self._sides)
        return near / sum(float(lengths.sum()) for _, lengths in self._sides)
