"""Whether a translation left everything where it was: structure of an image that is gone after it, and structure that was not there before.

Looks may change at will, so edges are not compared as they are. In a small window around each place the main contrast of one image is explained, linearly,
by the channels of the other (the local model of the guided filter: He, Sun and Tang, IEEE TPAMI 35, 2013). What of the original's contrast the translation
cannot explain is *lost*; what of the translation's contrast the original cannot explain is *invented*. Any smooth change of colours and contrast, an
inversion among them, explains all; a mirrored, moved, erased or added object does not.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Maps = NDArray[np.float32]

WINDOW = 9
"""Side of the window of the local model, pixels."""

PLACE = 17
"""Side of the windows in which the worst place is looked for: the size of a small object."""

_RIDGE = (1.5 / 255.0) ** 2
"""Variance that counts as noise of rounding."""

_WEIGHTY = 0.25
"""A place counts if it holds this share of what the mean over places with much contrast holds."""


@dataclass(frozen=True, slots=True)
class Structure:
    """Of each of N images, shares of 0 to 1.

    Parameters
    ----------
    lost, invented
        Share of the contrast of the whole image, ``(N,)``.
    worst_lost, worst_invented
        The same in the worst place of the size of a small object, ``(N,)``.
    edges
        Correlation of the strength of edges, ``(N,)``, -1 to 1: for people.
    """

    lost: Floats
    invented: Floats
    worst_lost: Floats
    worst_invented: Floats
    edges: Floats

    @property
    def kept(self) -> Floats:
        """What of the structure is kept, ``(N,)``: 1 less the larger of lost and invented, over the whole image."""
        return 1.0 - np.maximum(self.lost, self.invented)

    @property
    def worst(self) -> Floats:
        """The worse of the two in the worst place, ``(N,)``."""
        return np.maximum(self.worst_lost, self.worst_invented)


def compare_structure(before: NDArray[Any], after: NDArray[Any], check: Callable[[], None] = lambda: None) -> Structure:
    """Compare images before and after a translation.

    Parameters
    ----------
    before, after
        ``(N, H, W, C)`` uint8, or float32 of 0 to 1.
    check
        Called for each image; raises where the job is to stop.
    """
    axes = _main_contrast(before), _main_contrast(after)
    rows = []
    for one, other in zip(before, after, strict=True):
        check()
        rows.append(_compare(_unit(one), _unit(other), axes))
    return Structure(*np.array(rows, dtype=np.float64).reshape(-1, 5).T)


def _compare(before: Maps, after: Maps, axes: tuple[Maps, Maps]) -> tuple[float, float, float, float, float]:
    first, second = before @ axes[0], after @ axes[1]
    whole_lost, worst_lost = _unexplained(first, after)
    whole_new, worst_new = _unexplained(second, before)
    return whole_lost, whole_new, worst_lost, worst_new, _edge_correlation(before, after)


def _unexplained(contrast: Maps, by: Maps) -> tuple[float, float]:
    """Give the share of a contrast ``(H, W)`` that channels ``(H, W, C)`` of another image do not explain: over all, and in the worst place."""
    variance, residual = local_residual(contrast, by)
    total = float(variance.sum())
    if total <= _RIDGE * variance.size:
        return 0.0, 0.0
    side = min(PLACE, *variance.shape)
    held, left = (cv2.boxFilter(one, -1, (side, side), borderType=cv2.BORDER_REFLECT) for one in (variance, residual))
    # An image may be empty but for one object: places are weighty by those with most contrast, not by the mean of all.
    weighty = held >= max(_WEIGHTY * float(np.quantile(held, 0.95)), 2.0 * _RIDGE)
    shares = left[weighty] / held[weighty]
    return float(residual.sum() / total), float(shares.max()) if len(shares) else 0.0


def local_residual(contrast: Maps, by: Maps) -> tuple[Maps, Maps]:
    """Give the local variance of a contrast and what of it the local linear model of other channels leaves, ``(H, W)`` each, float32.

    Parameters
    ----------
    contrast
        ``(H, W)`` float32.
    by
        ``(H, W, C)`` float32.
    """
    size = (min(WINDOW, contrast.shape[1]), min(WINDOW, contrast.shape[0]))

    def mean(values: Floats) -> Floats:
        return np.asarray(cv2.boxFilter(np.ascontiguousarray(values), -1, size, borderType=cv2.BORDER_REFLECT))

    channels = [by[:, :, place].astype(np.float64) for place in range(by.shape[2])]
    wide: Any = contrast.astype(np.float64)
    means = [mean(channel) for channel in channels]
    own = mean(wide)
    variance = np.maximum(mean(wide * wide) - own * own, 0.0)
    count = len(channels)
    joint = np.empty((*contrast.shape, count, count))
    cross = np.empty((*contrast.shape, count))
    for one in range(count):
        cross[..., one] = mean(channels[one] * wide) - means[one] * own
        for other in range(one, count):
            joint[..., one, other] = joint[..., other, one] = mean(channels[one] * channels[other]) - means[one] * means[other]
    joint[..., np.arange(count), np.arange(count)] += _RIDGE
    explained = (cross * np.linalg.solve(joint, cross[..., None])[..., 0]).sum(axis=-1)
    # Noise of rounding is not lost structure.
    residual = np.clip(variance - explained, 0.0, variance)
    return variance.astype(np.float32), residual.astype(np.float32)


def _main_contrast(images: NDArray[Any]) -> Maps:
    """Give the direction among the channels along which neighbouring pixels of a domain differ most, ``(C,)``."""
    rows = np.unique(np.linspace(0, len(images) - 1, 64).astype(np.int64)) if len(images) else np.zeros(0, np.int64)
    channels = images.shape[3]
    total = np.eye(channels) * 1e-12
    for row in rows:
        pixels = _unit(images[row])
        fine = (pixels - cv2.blur(pixels, (WINDOW, WINDOW)).reshape(pixels.shape)).reshape(-1, channels).astype(np.float64)
        total += fine.T @ fine / len(fine)
    return np.asarray(np.linalg.eigh(total)[1][:, -1], dtype=np.float32)


def _edge_correlation(before: Maps, after: Maps) -> float:
    first, second = (_edges(one).ravel() for one in (before, after))
    if first.std() < 1e-6 or second.std() < 1e-6:
        return 1.0 if first.std() < 1e-6 and second.std() < 1e-6 else 0.0
    return float(np.corrcoef(first, second)[0, 1])


def _edges(image: Maps) -> Maps:
    total = np.zeros(image.shape[:2], np.float32)
    for place in range(image.shape[2]):
        plane = np.ascontiguousarray(image[:, :, place])
        total += cv2.Sobel(plane, cv2.CV_32F, 1, 0) ** 2 + cv2.Sobel(plane, cv2.CV_32F, 0, 1) ** 2
    return np.asarray(np.sqrt(total))


def _unit(image: NDArray[Any]) -> Maps:
    return image.astype(np.float32) / np.float32(255.0) if image.dtype == np.uint8 else image.astype(np.float32)
