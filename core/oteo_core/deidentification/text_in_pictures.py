"""Text in pictures, by classical means: strokes that are thin, sharp and of one brightness, of the size of characters, in a row.

Nothing is read, and no model is asked: what is found is a suspicion, with the place to look at. The steps are those that scene-text detection used
before networks (top-hat, connected components, grouping by height and line; compare Epshtein, Ofek and Wexler, "Detecting Text in Natural Scenes with
Stroke Width Transform", CVPR 2010); the thresholds are for overlays that a device draws: one grey value on tissue or black.
"""

from __future__ import annotations

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
_MOST_PARTS = 4000
"""Candidates above which a picture is texture, and no row of them means anything."""
_DOUBLED = 1200 * 1200
"""Pixels up to which a picture is also looked at in double size."""
_CROWDS = ((150, _FEWEST), (600, 7))
"""Up to so many candidates in a picture, so many make a row: among thousands, as texture has them, some stand in a line by chance."""
_CROWDED = 10
_LOOKED_AT = 3


@dataclass(frozen=True, slots=True)
class _Glyph:
    x: int
    y: int
    width: int
    height: int
    value: int


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
    # Smoothed strokes of small characters are a pixel wide and touch each other: they come apart when the picture is drawn larger.
    large = cv2.resize(grey, None, fx=2, fy=2, interpolation=cv2.INTER_CUBIC) if grey.size <= _DOUBLED else None
    for sign in (False, True):
        if large is not None:
            rows += [_halved(row) for row in _rows(_glyphs(255 - large if sign else large, _STROKES[0] * 2 + 1, 0.35, 0.3, 2.6), 0.15)]
        for stroke in _STROKES:
            rows += _rows(_glyphs(255 - grey if sign else grey, stroke))
    return tuple(_merged(rows))


def _halved(one: Rectangle) -> Rectangle:
    return Rectangle(one.x // 2, one.y // 2, one.width // 2 + 1, one.height // 2 + 1)


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


def _glyphs(picture: NDArray[np.uint8], stroke: int, contrast: float = _CONTRAST, softness: float = 0.15, widest: float = 1.6) -> list[_Glyph]:
    """Give connected strokes that have a character's size, one brightness and a sharp edge."""
    kernel = cv2.getStructuringElement(cv2.MORPH_RECT, (stroke, stroke))
    raised = cv2.morphologyEx(picture, cv2.MORPH_TOPHAT, kernel)
    mask = (raised > 255 * contrast).astype(np.uint8)
    _, labels, stats, _ = cv2.connectedComponentsWithStats(mask, connectivity=8)
    widths, heights, areas = stats[:, cv2.CC_STAT_WIDTH], stats[:, cv2.CC_STAT_HEIGHT], stats[:, cv2.CC_STAT_AREA]
    boxes = widths * heights
    fitting = (heights >= _HEIGHTS[0]) & (heights <= _HEIGHTS[1]) & (widths <= widest * heights) & (areas >= 0.6 * heights)
    fitting &= ~((areas > 0.9 * boxes) & (boxes > 40))
    fitting[0] = False
    if int(fitting.sum()) > _MOST_PARTS:
        return []
    found = []
    for label in np.flatnonzero(fitting):
        x, y, width, height = (int(number) for number in stats[label, :4])
        window = (slice(y, y + height), slice(x, x + width))
        inside = labels[window] == label
        values = picture[window][inside]
        # A drawn stroke has one brightness but for its smoothed edge; tissue has a gradient.
        top = int(values.max())
        if np.count_nonzero(values > top - softness * 255) < 0.5 * len(values):
            continue
        around = picture[max(0, y - 2) : y + height + 2, max(0, x - 2) : x + width + 2]
        beside = labels[max(0, y - 2) : y + height + 2, max(0, x - 2) : x + width + 2] != label
        if not beside.any() or top - float(around[beside].mean()) < 255 * _CONTRAST:
            continue
        found.append(_Glyph(x, y, width, height, top))
    return found


def _rows(glyphs: list[_Glyph], spread: float = 0.08) -> list[Rectangle]:
    """Join characters of like height and brightness that stand on a line, each near the one before; give rows that are long enough."""
    pending = sorted(glyphs, key=lambda one: one.x)
    fewest = next((least for most, least in _CROWDS if len(pending) <= most), _CROWDED)
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
                and abs(glyph.value - last.value) <= 2 * spread * 255
            ) and (best is None or gap < best[0]):
                best = (gap, row)
        if best is None:
            rows.append([glyph])
        else:
            best[1].append(glyph)
    return [_box(row) for row in rows if _is_text(row, fewest, spread)]


def _is_text(row: list[_Glyph], fewest: int, spread: float) -> bool:
    if len(row) < fewest:
        return False
    bottoms = np.array([one.y + one.height for one in row], np.float32)
    heights = np.array([one.height for one in row], np.float32)
    values = np.array([one.value for one in row], np.float32)
    usual = float(np.median(heights))
    # Characters of a line share its baseline, and the device's one grey value.
    return float(np.median(np.abs(bottoms - np.median(bottoms)))) <= max(1.0, 0.08 * usual) and float(values.std()) <= spread * 255


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
