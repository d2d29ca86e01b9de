"""Text in pictures, by classical means: strokes that are thin, sharp and of one brightness, of the size of characters, in a row.

Nothing is read, and no model is asked: what is found is a suspicion, with the place to look at. The steps are those that scene-text detection used
before networks (top-hat, connected components, grouping by height and line; compare Epshtein, Ofek and Wexler, "Detecting Text in Natural Scenes with
Stroke Width Transform", CVPR 2010); the thresholds are for overlays that a device draws: one grey value on tissue or black.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from oteo_core.deidentification.options import Rectangle

_STROKES = (5, 13, 25)
"""Kernels of the top-hat, pixels: wider than the strokes of small, usual and large characters."""
_CONTRAST = 0.25
"""Share of the picture's range by which a stroke stands out of its surroundings."""
_HEIGHTS = (6, 90)
_FEWEST = 4
"""Characters of a row, below which it is taken for chance."""
_MOST_PARTS = 20_000
_LOOKED_AT = 3


@dataclass(frozen=True, slots=True)
class _Glyph:
    x: int
    y: int
    width: int
    height: int
    value: float
    edge: float


def find_text_in_frames(frames: NDArray[Any]) -> tuple[Rectangle, ...]:
    """Look at the first, the middle and the last frame of (N, H, W) or (N, H, W, C); overlays seldom come and go."""
    chosen = sorted({0, len(frames) // 2, len(frames) - 1})[:_LOOKED_AT]
    found = {place for index in chosen if len(frames) for place in find_text(frames[index])}
    return tuple(sorted(found, key=lambda place: (place.y, place.x)))


def find_text(pixels: NDArray[Any]) -> tuple[Rectangle, ...]:
    """Find rows of what looks like characters.

    Parameters
    ----------
    pixels
        (H, W) or (H, W, C) of any number type.

    Returns
    -------
    tuple
        A rectangle for each row, from the top; () where there is none.
    """
    grey = _grey(pixels)
    if min(grey.shape) < _HEIGHTS[0] * 2:
        return ()
    rows: list[Rectangle] = []
    for picture in (grey, 255 - grey):
        for stroke in _STROKES:
            rows += _rows(_glyphs(picture, stroke))
    return tuple(_merged(rows))


def _grey(pixels: NDArray[Any]) -> NDArray[np.uint8]:
    """Bring pixels to 0..255 over their whole range: drawn text is the brightest or darkest there is, so nothing may be cut off."""
    plain = pixels[:, :, 0] if pixels.ndim == 3 and pixels.shape[2] == 1 else pixels
    if plain.ndim == 3:
        # Of colours the strongest channel: yellow and green text is as bright as white there.
        plain = plain[:, :, :3].max(axis=2)
    values = np.nan_to_num(plain.astype(np.float32))
    low, high = float(values.min(initial=np.inf)), float(values.max(initial=-np.inf))
    if not high > low:
        return np.zeros(plain.shape, np.uint8)
    return np.asarray((values - low) * (255.0 / (high - low)), np.uint8)


def _glyphs(picture: NDArray[np.uint8], stroke: int) -> list[_Glyph]:
    """Give connected strokes that have a character's size, one brightness and a sharp edge."""
    kernel = cv2.getStructuringElement(cv2.MORPH_RECT, (stroke, stroke))
    raised = cv2.morphologyEx(picture, cv2.MORPH_TOPHAT, kernel)
    mask = (raised > 255 * _CONTRAST).astype(np.uint8)
    count, labels, stats, _ = cv2.connectedComponentsWithStats(mask, connectivity=8)
    if count > _MOST_PARTS:
        return []
    found = []
    for label in range(1, count):
        x, y, width, height, area = (int(number) for number in stats[label])
        if not _HEIGHTS[0] <= height <= _HEIGHTS[1] or width > 1.6 * height or area < 0.6 * height or area > 0.9 * width * height > 40:
            continue
        window = (slice(y, y + height), slice(x, x + width))
        inside = labels[window] == label
        values = picture[window][inside].astype(np.float32)
        # A drawn stroke has one brightness but for its smoothed edge; tissue has a gradient.
        top = float(np.percentile(values, 90))
        solid = float((values > top - 0.12 * 255).mean())
        if solid < 0.5:
            continue
        around = picture[max(0, y - 2) : y + height + 2, max(0, x - 2) : x + width + 2]
        beside = labels[max(0, y - 2) : y + height + 2, max(0, x - 2) : x + width + 2] != label
        ground = float(np.median(around[beside])) if beside.any() else top
        if top - ground < 255 * _CONTRAST:
            continue
        found.append(_Glyph(x, y, width, height, top, top - ground))
    return found


def _rows(glyphs: Iterable[_Glyph]) -> list[Rectangle]:
    """Join characters of like height and brightness that stand on a line, each near the one before; give rows that are long enough."""
    pending = sorted(glyphs, key=lambda one: one.x)
    rows: list[list[_Glyph]] = []
    for glyph in pending:
        best = None
        for row in rows:
            last = row[-1]
            gap = glyph.x - (last.x + last.width)
            height = max(glyph.height, last.height)
            if (
                -0.3 * height <= gap <= 1.3 * height
                and glyph.height <= 1.7 * last.height
                and last.height <= 1.7 * glyph.height
                and abs((glyph.y + glyph.height) - (last.y + last.height)) <= 0.3 * height
                and abs(glyph.value - last.value) <= 0.15 * 255
            ) and (best is None or gap < best[0]):
                best = (gap, row)
        if best is None:
            rows.append([glyph])
        else:
            best[1].append(glyph)
    return [_box(row) for row in rows if _is_text(row)]


def _is_text(row: list[_Glyph]) -> bool:
    if len(row) < _FEWEST:
        return False
    bottoms = np.array([one.y + one.height for one in row], np.float32)
    heights = np.array([one.height for one in row], np.float32)
    values = np.array([one.value for one in row], np.float32)
    usual = float(np.median(heights))
    # Characters of a line share its baseline, and the device's one grey value.
    return float(np.median(np.abs(bottoms - np.median(bottoms)))) <= max(1.0, 0.08 * usual) and float(values.std()) <= 0.08 * 255


def _box(row: list[_Glyph]) -> Rectangle:
    x, y = min(one.x for one in row), min(one.y for one in row)
    right, bottom = max(one.x + one.width for one in row), max(one.y + one.height for one in row)
    pad = 2
    return Rectangle(max(0, x - pad), max(0, y - pad), right - x + 2 * pad, bottom - y + 2 * pad)


def _merged(rows: list[Rectangle]) -> list[Rectangle]:
    """Make one of rectangles that overlap: the same row is found in several scales."""
    left = sorted(rows, key=lambda one: (one.y, one.x))
    changed = True
    while changed:
        changed = False
        result: list[Rectangle] = []
        for one in left:
            for index, other in enumerate(result):
                if _overlap(one, other):
                    x, y = min(one.x, other.x), min(one.y, other.y)
                    right = max(one.x + one.width, other.x + other.width)
                    bottom = max(one.y + one.height, other.y + other.height)
                    result[index] = Rectangle(x, y, right - x, bottom - y)
                    changed = True
                    break
            else:
                result.append(one)
        left = result
    return sorted(left, key=lambda one: (one.y, one.x))


def _overlap(one: Rectangle, other: Rectangle) -> bool:
    return one.x < other.x + other.width and other.x < one.x + one.width and one.y < other.y + other.height and other.y < one.y + one.height
