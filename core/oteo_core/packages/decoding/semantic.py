"""From a semantic segmentation's served outputs to a class for each pixel of the original."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from oteo_core.images.geometry import Placement, place
from oteo_core.images.policy import InputPolicy
from oteo_core.packages.answers import ClassMap


def decode_class_maps(
    outputs: Mapping[str, NDArray[Any]], sizes: Sequence[tuple[int, int]], policy: InputPolicy, decoding: Mapping[str, Any]
) -> list[ClassMap]:
    """Turn a batch of outputs into class maps of the originals' sizes.

    Parameters
    ----------
    outputs
        ``probabilities`` ``(N, K + 1, H, W)`` float32; background first.
    sizes
        Width and height of each original, pixels.
    policy
        How the originals became inputs.
    decoding
        What `clean_map` knows; may be empty.

    Notes
    -----
    Probabilities are brought to the original's size before the most probable class is taken: an outline enlarged by nearest pixel has steps.
    """
    found = []
    for probabilities, (width, height) in zip(outputs["probabilities"], sizes, strict=True):
        where = place(width, height, policy)
        found.append(ClassMap(clean_map(most_probable(probabilities, where), decoding, where.scale_x * where.scale_y)))
    return found


def most_probable(probabilities: NDArray[Any], where: Placement) -> NDArray[np.uint8]:
    """Give the class ``(height, width)`` of each pixel of the original, one plane enlarged at a time."""
    best = where.values_out(np.asarray(probabilities[0], dtype=np.float32))
    labels = np.zeros(best.shape, dtype=np.uint8)
    for number in range(1, len(probabilities)):
        value = where.values_out(np.asarray(probabilities[number], dtype=np.float32))
        higher = value > best
        labels[higher] = number
        np.copyto(best, value, where=higher)
    return labels


def clean_map(labels: NDArray[np.uint8], decoding: Mapping[str, Any], scale: float = 1.0) -> NDArray[np.uint8]:
    """Take out what cannot be true, as found on held-out images.

    Parameters
    ----------
    labels
        ``(H, W)``: 0 background, ``k + 1`` class ``k``.
    decoding
        ``largest_foreground``: True keeps the largest connected piece of all classes together. For each class a value in the lists
        ``largest`` (True keeps its largest piece), ``fill_holes`` (True gives it the background that it encloses) and ``smallest`` (pieces of
        fewer prepared pixels are background). What is missing does nothing. Done in this order.
    scale
        Prepared pixels to one of `labels`, by area.

    Returns
    -------
    ndarray
        A new array, or `labels` itself where nothing was to be done.
    """
    if decoding.get("largest_foreground"):
        labels = np.where(_largest(labels > 0), labels, 0).astype(np.uint8)
    for key, change in (("largest", _keep_largest), ("fill_holes", _fill_holes)):
        for number, wanted in enumerate(decoding.get(key, ()), start=1):
            if wanted:
                labels = change(labels, number)
    for number, area in enumerate(decoding.get("smallest", ()), start=1):
        if area > 0:
            labels = _without_small(labels, number, area / max(scale, 1e-12))
    return labels


def _largest(inside: NDArray[np.bool_]) -> NDArray[np.bool_]:
    count, pieces, stats, _ = cv2.connectedComponentsWithStats(inside.astype(np.uint8), connectivity=8)
    if count <= 2:
        return inside
    return np.asarray(pieces == 1 + int(np.argmax(stats[1:, cv2.CC_STAT_AREA])))


def _keep_largest(labels: NDArray[np.uint8], number: int) -> NDArray[np.uint8]:
    inside = labels == number
    return np.where(inside & ~_largest(inside), 0, labels).astype(np.uint8)


def _fill_holes(labels: NDArray[np.uint8], number: int) -> NDArray[np.uint8]:
    """Give a class the background that it encloses; what touches the border of the image is not enclosed, nor is another class."""
    count, pieces, _, _ = cv2.connectedComponentsWithStats((labels != number).astype(np.uint8), connectivity=4)
    if count <= 2:
        return labels
    edge = np.unique(np.concatenate([pieces[0], pieces[-1], pieces[:, 0], pieces[:, -1]]))
    enclosed = np.ones(count, dtype=bool)
    enclosed[edge] = False
    enclosed[0] = False
    return np.where(enclosed[pieces] & (labels == 0), number, labels).astype(np.uint8)


def _without_small(labels: NDArray[np.uint8], number: int, area: float) -> NDArray[np.uint8]:
    count, pieces, stats, _ = cv2.connectedComponentsWithStats((labels == number).astype(np.uint8), connectivity=8)
    small = stats[:, cv2.CC_STAT_AREA] < area
    small[0] = False
    if count <= 1 or not small.any():
        return labels
    return np.where(small[pieces], 0, labels).astype(np.uint8)
