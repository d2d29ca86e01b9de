"""Text in pictures, by classical means: strokes that are thin, sharp and of one brightness, of the size of characters, in a row.

Nothing is read, and no model is asked: what is found is a suspicion, with the place to look at. The steps are those that scene-text detection used
before networks (top-hat, connected components, thin strokes, grouping by height and line; compare Epshtein, Ofek and Wexler, "Detecting Text in
Natural Scenes with Stroke Width Transform", CVPR 2010). The thresholds are for print that a device or a person draws into a picture, in characters
of about 7 to 90 pixels, four or more in a line. Handwriting, single letters, slanted lines and print over strong texture escape it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from oteo_core.deidentification.options import Rectangle

_LONGEST = 2048
"""Longer pictures are shrunk to this, pixels: characters of such a picture are not smaller for it."""
_HEIGHTS = (6, 90)
_THICKEST = 0.55
"""Thickest stroke, in heights. A character is nowhere as thick as it is high; a dot, a cell or a corner is."""
_GROUND = 0.25
"""Share of the picture's range by which a character stands out of what is beside it."""
_FEWEST = 4
"""Characters of a row, below which it is taken for chance."""
_MOST_GLYPHS = 4000
"""Candidates above which a picture is texture, and no row of them means anything."""
_DOUBLED = 1200 * 1200
"""Pixels up to which a picture is also looked at in double size."""
_CROWDS = ((150, _FEWEST), (600, 7))
"""Up to so many candidates in a picture, so many make a row: among thousands, as texture has them, some stand in a line by chance."""
_CROWDED = 10


@dataclass(frozen=True, slots=True)
class TextRow:
    """A row of what looks like characters: its place, and how many they are."""

    place: Rectangle
    letters: int


@dataclass(frozen=True, slots=True)
class _Look:
    """One way to look at a picture.

    Parameters
    ----------
    kernel
        Of the top-hat, pixels: wider than the strokes of the characters that are looked for.
    contrast
        Share of the range by which a stroke rises over its surroundings.
    softness
        Share of the range by which the pixels of a stroke may be darker than its brightest: smoothed edges.
    widest
        Widest character, in heights; small ones touch each other.
    spread
        Standard deviation, as a share of the range, of the brightness of the characters of a row.
    """

    kernel: int
    contrast: float = 0.25
    softness: float = 0.15
    widest: float = 1.6
    spread: float = 0.08


_PLAIN = (_Look(5), _Look(13), _Look(25))
_LARGE = _Look(11, contrast=0.35, softness=0.3, widest=2.6, spread=0.15)
"""Smoothed strokes of small characters are a pixel wide and touch each other: they come apart when the picture is drawn in double size."""


@dataclass(frozen=True, slots=True)
class _Glyph:
    x: int
    y: int
    width: int
    height: int
    value: int


def find_text_in_frames(frames: NDArray[Any]) -> tuple[Rectangle, ...]:
    """Look at the first, the middle and the last frame of (N, H, W) or (N, H, W, C): what a device writes seldom comes and goes."""
    chosen = sorted({0, len(frames) // 2, len(frames) - 1}) if len(frames) else []
    found = {row.place for index in chosen for row in find_text(frames[index])}
    return tuple(sorted(found, key=_order))


def find_text(pixels: NDArray[Any]) -> tuple[TextRow, ...]:
    """Find rows of what looks like characters, bright or dark.

    Parameters
    ----------
    pixels
        (H, W) or (H, W, C) of any number type; of colours the first three channels count.

    Returns
    -------
    tuple
        A row for each line, from the top; () where there is none.
    """
    grey = _grey(pixels)
    scale = min(1.0, _LONGEST / max(*grey.shape, 1))
    if scale < 1:
        grey = np.asarray(cv2.resize(grey, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA), np.uint8)
    if min(grey.shape) < 2 * _HEIGHTS[0]:
        return ()
    double = cv2.resize(grey, None, fx=2, fy=2, interpolation=cv2.INTER_CUBIC) if grey.size <= _DOUBLED else None
    rows: list[TextRow] = []
    for dark in (False, True):
        if double is not None:
            rows += [_scaled(row, 2) for row in _rows(255 - double if dark else double, _LARGE)]
        for look in _PLAIN:
            rows += _rows(255 - grey if dark else grey, look)
    return tuple(_scaled(row, scale) for row in _merged(rows))


def _grey(pixels: NDArray[Any]) -> NDArray[np.uint8]:
    """Bring pixels to 0..255 over their whole range: drawn text is the brightest or darkest there is, so nothing may be cut off."""
    # Of colours the strongest channel: yellow and green text is as bright as white there.
    plain = pixels if pixels.ndim == 2 else pixels[:, :, :3].max(axis=2)
    if not plain.size:
        return np.zeros(plain.shape, np.uint8)
    values = np.nan_to_num(plain.astype(np.float32), posinf=0.0, neginf=0.0)
    low, high = float(values.min()), float(values.max())
    if not high > low:
        return np.zeros(plain.shape, np.uint8)
    return np.asarray((values - low) * (255.0 / (high - low)), np.uint8)


def _glyphs(picture: NDArray[np.uint8], look: _Look) -> list[_Glyph]:
    """Give connected strokes that have a character's size, one brightness and a sharp edge."""
    kernel = cv2.getStructuringElement(cv2.MORPH_RECT, (look.kernel, look.kernel))
    mask = (cv2.morphologyEx(picture, cv2.MORPH_TOPHAT, kernel) > 255 * look.contrast).astype(np.uint8)
    _, labels, stats, _ = cv2.connectedComponentsWithStats(mask, connectivity=8)
    widths, heights, areas = stats[:, cv2.CC_STAT_WIDTH], stats[:, cv2.CC_STAT_HEIGHT], stats[:, cv2.CC_STAT_AREA]
    boxes = widths * heights
    fitting = (heights >= _HEIGHTS[0]) & (heights <= _HEIGHTS[1]) & (widths <= look.widest * heights) & (areas >= 0.6 * heights)
    fitting &= ~((areas > 0.9 * boxes) & (boxes > 40))
    fitting[0] = False
    if int(fitting.sum()) > _MOST_GLYPHS:
        return []
    depth = cv2.distanceTransform(mask, cv2.DIST_L2, 3)
    found = []
    for label in np.flatnonzero(fitting):
        x, y, width, height = (int(number) for number in stats[label, :4])
        window = (slice(y, y + height), slice(x, x + width))
        inside = labels[window] == label
        if 2 * float(depth[window][inside].max()) - 1 > max(2.5, _THICKEST * height):
            continue
        values = picture[window][inside]
        # A drawn stroke has one brightness but for its smoothed edge; tissue has a gradient.
        top = int(values.max())
        if np.count_nonzero(values > top - look.softness * 255) < 0.5 * len(values):
            continue
        around = (slice(max(0, y - 2), y + height + 2), slice(max(0, x - 2), x + width + 2))
        beside = labels[around] != label
        if beside.any() and top - float(picture[around][beside].mean()) >= 255 * _GROUND:
            found.append(_Glyph(x, y, width, height, top))
    return found


def _rows(picture: NDArray[np.uint8], look: _Look) -> list[TextRow]:
    """Join characters of like height and brightness that stand on a line, each near the one before; give rows that are long enough."""
    glyphs = sorted(_glyphs(picture, look), key=lambda one: one.x)
    fewest = next((least for most, least in _CROWDS if len(glyphs) <= most), _CROWDED)
    rows: list[list[_Glyph]] = []
    for glyph in glyphs:
        near = [(glyph.x - (row[-1].x + row[-1].width), row) for row in rows]
        joined = min(((gap, row) for gap, row in near if _follows(glyph, row[-1], gap, look)), key=lambda pair: pair[0], default=None)
        if joined is None:
            rows.append([glyph])
        else:
            joined[1].append(glyph)
    return [_text_row(row) for row in rows if len(row) >= fewest and _is_even(row, look)]


def _follows(glyph: _Glyph, last: _Glyph, gap: int, look: _Look) -> bool:
    tall, low = max(glyph.height, last.height), min(glyph.height, last.height)
    return (
        -0.3 * tall <= gap <= 1.3 * tall
        and tall <= 1.7 * low
        and abs((glyph.y + glyph.height) - (last.y + last.height)) <= 0.3 * tall
        and abs(glyph.value - last.value) <= 2 * look.spread * 255
    )


def _is_even(row: list[_Glyph], look: _Look) -> bool:
    """Tell whether a row's characters share a base line, and the one grey value that they were drawn with."""
    bases = np.array([one.y + one.height for one in row], np.float32)
    usual = float(np.median([one.height for one in row]))
    straight = float(np.median(np.abs(bases - np.median(bases)))) <= max(1.0, 0.08 * usual)
    return straight and float(np.std([one.value for one in row])) <= look.spread * 255


def _text_row(row: list[_Glyph]) -> TextRow:
    x, y = min(one.x for one in row), min(one.y for one in row)
    right, lower = max(one.x + one.width for one in row), max(one.y + one.height for one in row)
    return TextRow(Rectangle(max(0, x - 2), max(0, y - 2), right + 2 - max(0, x - 2), lower + 2 - max(0, y - 2)), len(row))


def _scaled(row: TextRow, scale: float) -> TextRow:
    """Bring a row that was found in a picture drawn `scale` times as large to pixels of the picture itself."""
    if scale == 1:
        return row
    place = row.place
    x, y = int(place.x / scale), int(place.y / scale)
    return TextRow(
        Rectangle(x, y, int((place.x + place.width) / scale) + 1 - x, int((place.y + place.height) / scale) + 1 - y), row.letters
    )


def _merged(rows: list[TextRow]) -> list[TextRow]:
    """Make one of rows that overlap: the same line is found in several scales."""
    left, changed = rows, True
    while changed:
        changed = False
        result: list[TextRow] = []
        for row in left:
            index = next((index for index, other in enumerate(result) if _overlap(row.place, other.place)), None)
            if index is None:
                result.append(row)
            else:
                result[index], changed = _joined(row, result[index]), True
        left = result
    return sorted(left, key=lambda row: _order(row.place))


def _joined(one: TextRow, other: TextRow) -> TextRow:
    a, b = one.place, other.place
    x, y = min(a.x, b.x), min(a.y, b.y)
    place = Rectangle(x, y, max(a.x + a.width, b.x + b.width) - x, max(a.y + a.height, b.y + b.height) - y)
    return TextRow(place, max(one.letters, other.letters))


def _overlap(one: Rectangle, other: Rectangle) -> bool:
    return one.x < other.x + other.width and other.x < one.x + one.width and one.y < other.y + other.height and other.y < one.y + one.height


def _order(place: Rectangle) -> tuple[int, int]:
    return place.y, place.x
