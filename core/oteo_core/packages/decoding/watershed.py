"""Telling touching objects apart: a watershed on heights that a network has learnt, on distances within its foreground, or on both."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float32]

WATERSHED = {
    "method": "watershed",
    "foreground": 0.5,
    "marker": 0.4,
    "prominence": 0.15,
    "distance": 0.0,
    "radius": 8.0,
    "smallest": 8.0,
    "smooth": 0.0,
    "score": 0.0,
}
"""What a watershed takes where ``decoding`` is silent.

``foreground`` is the least probability of an object's pixel; ``distance`` the share that the foreground's own distances have in the heights, the
learnt ones have the rest; ``radius`` the distance (prepared pixels) that counts as a height of one half; ``smooth`` the spread (prepared pixels) of
a Gaussian over heights; ``marker`` the height above which an object's core lies; ``prominence`` how far a core rises above the pass to a higher
one; ``smallest`` the fewest prepared pixels of an object; ``score`` the least of an object.
"""

_DILATIONS = 8
"""Between two looks whether anything changes."""


def watershed_objects(foreground: Floats, heights: Floats, settings: Mapping[str, Any]) -> NDArray[np.int32]:
    """Flood the heights downwards from their cores, within the foreground.

    Parameters
    ----------
    foreground, heights
        ``(h, w)`` of 0 to 1.
    settings
        Those of `WATERSHED`.

    Returns
    -------
    ndarray
        ``(h, w)`` int32: 0 background, 1, 2, ... objects. A piece of foreground in which nothing is high enough for a core is one object.

    Notes
    -----
    Marker-controlled watershed (Meyer & Beucher 1990) on distance maps, as by Naylor et al., "Segmentation of nuclei in histopathology images by
    deep regression of the distance map", IEEE TMI 2019; heights are shares of each object's own, so that small and large objects have cores alike.
    """
    from skimage.segmentation import watershed

    inside = foreground > settings["foreground"]
    if not inside.any():
        return np.zeros(inside.shape, dtype=np.int32)
    heights = blended_heights(inside, heights, settings)
    cores = (inside & (heights > settings["marker"])).astype(np.uint8)
    if settings["prominence"] > 0:
        cores &= _prominent(heights * inside, settings["prominence"])
    count, markers = cv2.connectedComponents(cores, connectivity=8)
    pieces_count, pieces = cv2.connectedComponents(inside.astype(np.uint8), connectivity=8)
    having = np.zeros(pieces_count, dtype=bool)
    having[np.unique(pieces[cores > 0])] = True
    bare = np.flatnonzero(~having)
    bare = bare[bare > 0]
    order = np.zeros(pieces_count, dtype=np.int32)
    order[bare] = count + np.arange(len(bare), dtype=np.int32)
    markers = np.where(order[pieces] > 0, order[pieces], markers)
    ids = np.asarray(watershed(-heights, markers, mask=inside)).astype(np.int32)
    areas = np.bincount(ids.ravel())
    small = areas < settings["smallest"]
    small[0] = False
    return renumbered_ids(np.where(small[ids], 0, ids).astype(np.int32))


def blended_heights(inside: NDArray[np.bool_], learnt: Floats, settings: Mapping[str, Any]) -> Floats:
    """Give what is flooded: learnt heights, the foreground's distances, or a mean of both, smoothed.

    Parameters
    ----------
    inside
        ``(h, w)``, the foreground.
    learnt
        ``(h, w)`` of 0 to 1.
    settings
        ``distance``, ``radius`` and ``smooth`` of `WATERSHED`.

    Returns
    -------
    ndarray
        ``(h, w)`` float32 of 0 to 1.

    Notes
    -----
    A distance ``d`` (Euclidean, to the nearest pixel outside) becomes the height ``d / (d + radius)``: the waist between two large objects has to
    be deeper in pixels than that between two small ones, as it is where heights are shares of each object's own. An object cut off by the image's
    border is taken to go on there.
    """
    heights, share = learnt, float(settings["distance"])
    if share > 0:
        distance = cv2.distanceTransform(inside.astype(np.uint8), cv2.DIST_L2, 5) if not inside.all() else np.ones(inside.shape, np.float32)
        heights = ((1.0 - share) * learnt + share * distance / (distance + settings["radius"])).astype(np.float32)
    if settings["smooth"] > 0:
        heights = cv2.GaussianBlur(heights, (0, 0), settings["smooth"])
    return np.asarray(heights, dtype=np.float32)


def _prominent(heights: Floats, prominence: float) -> NDArray[np.uint8]:
    """Mark the tops that rise by so much above every pass to a higher one (Soille's h-maxima): ripples of a large object's height are not cores."""
    lowered = _filled(heights - np.float32(prominence), heights)
    # What the lowered surface cannot fill up by more than a rounding error less than the prominence is a top of it.
    return np.asarray(heights - lowered >= prominence - 1e-4).astype(np.uint8)


def _filled(surface: Floats, limit: Floats) -> Floats:
    """Let a surface spread to its neighbours as far as a limit allows (reconstruction by dilation; Vincent, IEEE TIP 2, 1993), ``(h, w)`` both.

    Vincent's own way goes through the pixels by a queue and wants them sorted; plain dilations until nothing changes take a third of the time or less,
    as an object is not many pixels wide.
    """
    kernel = np.ones((3, 3), np.uint8)
    while True:
        spread = surface
        for _ in range(_DILATIONS):
            spread = np.minimum(cv2.dilate(spread, kernel), limit)
        if np.array_equal(spread, surface):
            return spread
        surface = spread


def renumbered_ids(ids: NDArray[np.int32]) -> NDArray[np.int32]:
    """Number the objects that are left 1, 2, ..."""
    order = np.zeros(int(ids.max(initial=0)) + 1, dtype=np.int32)
    left = np.unique(ids)
    left = left[left > 0]
    order[left] = np.arange(1, len(left) + 1)
    return order[ids]
