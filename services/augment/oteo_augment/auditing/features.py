"""Cheap numbers that describe a picture, for the check of labels: shape, texture and colour, no network."""

from __future__ import annotations

import functools
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

_SIDE = 64
_TEXTURE_SIDE = 128
_SMALL = 8
GROUPS = (576, 10, 10, 12, 12, 16, 192, 12, 12, 12, 12)
"""Sizes of the parts of a description: each is to count as much as any other, whatever its length."""


@functools.cache
def _hog() -> Any:
    return cv2.HOGDescriptor((_SIDE, _SIDE), (16, 16), (16, 16), (8, 8), 9)


@functools.cache
def _uniform() -> NDArray[np.intp]:
    """Give the bin of each of the 256 codes of 8 neighbours: the number of brighter ones where these lie in a row, else 9."""
    bins = []
    for code in range(256):
        bits = [(code >> i) & 1 for i in range(8)]
        turns = sum(bits[i] != bits[i - 1] for i in range(8))
        bins.append(sum(bits) if turns <= 2 else 9)
    return np.array(bins, np.intp)


def describe(pixels: NDArray[np.uint8]) -> NDArray[np.float32]:
    """Describe a picture.

    Parameters
    ----------
    pixels
        (H, W, 3), uint8, RGB.

    Returns
    -------
    ndarray
        (F,), float32: histograms of oriented gradients at 64 x 64 (Dalal and Triggs, CVPR 2005; 576 numbers), rotation-invariant
        uniform local binary patterns at two radii (Ojala, Pietikainen and Maenpaa, PAMI 2002; 20), histograms of hue, saturation and
        value (40), the picture at 8 x 8 (192), and the forms of what stands out by darkness and by saturation (48). `GROUPS` are their sizes.
    """
    small = cv2.resize(pixels, (_SIDE, _SIDE), interpolation=cv2.INTER_AREA)
    grey = cv2.cvtColor(small, cv2.COLOR_RGB2GRAY)
    gradients = _hog().compute(grey).ravel()
    texture = cv2.cvtColor(cv2.resize(pixels, (_TEXTURE_SIDE, _TEXTURE_SIDE), interpolation=cv2.INTER_AREA), cv2.COLOR_RGB2GRAY)
    hsv = cv2.cvtColor(small, cv2.COLOR_RGB2HSV)
    colours = [
        np.bincount((hsv[:, :, channel].ravel().astype(np.intp) * bins) // limit, minlength=bins)[:bins] / hsv[:, :, 0].size
        for channel, bins, limit in ((0, 12, 180), (1, 12, 256), (2, 16, 256))
    ]
    tiny = cv2.resize(small, (_SMALL, _SMALL), interpolation=cv2.INTER_AREA).ravel() / 255.0
    forms = [form for channel in (255 - grey, hsv[:, :, 1]) for form in _forms(channel)]
    parts = [gradients, _patterns(texture, 1), _patterns(texture, 3), *colours, tiny, *forms]
    return np.concatenate(parts).astype(np.float32)


def _patterns(grey: NDArray[np.uint8], radius: int) -> NDArray[np.float64]:
    height, width = grey.shape
    centre = grey[radius : height - radius, radius : width - radius]
    codes = np.zeros(centre.shape, np.uint8)
    # Clockwise, so that neighbours in the code are neighbours in the picture.
    for bit, (dy, dx) in enumerate(((-1, -1), (-1, 0), (-1, 1), (0, 1), (1, 1), (1, 0), (1, -1), (0, -1))):
        y, x = radius + dy * radius, radius + dx * radius
        codes |= (grey[y : y + centre.shape[0], x : x + centre.shape[1]] >= centre).astype(np.uint8) << np.uint8(bit)
    counts = np.bincount(_uniform()[codes.ravel()], minlength=10)
    return counts / codes.size


def _forms(channel: NDArray[np.uint8]) -> list[NDArray[np.float64]]:
    """Describe what stands out: above Otsu's threshold (1979), and within that above a second one (a cell, and its nucleus)."""
    level, _ = cv2.threshold(channel, 0, 255, cv2.THRESH_BINARY | cv2.THRESH_OTSU)
    inside = channel[channel > level]
    inner, _ = cv2.threshold(inside.reshape(1, -1), 0, 255, cv2.THRESH_BINARY | cv2.THRESH_OTSU) if inside.size else (level, None)
    return [_form((channel > limit).astype(np.uint8)) for limit in (level, inner)]


def _form(mask: NDArray[np.uint8]) -> NDArray[np.float64]:
    """Give (12,): covered share, pieces, the second and third piece's share, and of the largest piece area, solidity, roundness, moments, place."""
    opened = cv2.morphologyEx(mask, cv2.MORPH_OPEN, np.ones((3, 3), np.uint8))
    outlines, _ = cv2.findContours(opened, cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)
    found = np.zeros(12)
    found[0] = opened.mean()
    if not outlines:
        return found
    areas = [cv2.contourArea(outline) / mask.size for outline in outlines]
    order = sorted(range(len(areas)), key=lambda i: (-areas[i], i))
    largest, area = outlines[order[0]], areas[order[0]]
    found[1] = min(10, sum(value > 0.005 for value in areas)) / 10
    found[2] = sum(areas[i] for i in order[1:3])
    moments = cv2.moments(largest)
    if area <= 0 or moments["m00"] <= 0:
        return found
    hull = cv2.contourArea(cv2.convexHull(largest)) / mask.size
    invariants = cv2.HuMoments(moments).ravel()[:4]
    found[3:6] = area, area / hull, 4 * np.pi * area * mask.size / cv2.arcLength(largest, True) ** 2
    found[6:10] = -np.sign(invariants) * np.log10(np.abs(invariants) + 1e-12) / 12
    found[10] = abs(moments["m10"] / moments["m00"] / mask.shape[1] - 0.5)
    found[11] = abs(moments["m01"] / moments["m00"] / mask.shape[0] - 0.5)
    return found
