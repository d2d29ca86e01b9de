"""Marks that look like writing burned into a picture: small strokes of high contrast, of one height, in a line, near the border.

No letters are read. What it can find is printed capitals and digits of about 7 to 40 pixels in lines of four or more, brighter or darker than
what is around them, within a quarter of the picture from its border. Handwriting, single letters, writing over strong texture or in the
middle escapes it; rulers, meshes and rows of small thin structures can be taken for it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

LETTERS = 4
"""Marks in a line from which it is taken for writing."""
_LONGEST = 1024
_CONTRAST = 70
_MOST_MARKS = 3000
_THICKNESS = 0.4
"""Thickest stroke, in heights."""
_GAP = 1.3
"""Widest gap between two letters, in heights."""
_BORDER = 0.25


@dataclass(frozen=True, slots=True)
class Writing:
    """What was found: the marks in all, and the lines' places (left, upper, right, lower edge, pixels of the picture)."""

    letters: int = 0
    lines: tuple[tuple[float, float, float, float], ...] = ()


def find_writing(grey: NDArray[np.uint8]) -> Writing:
    """Look for lines of marks.

    Parameters
    ----------
    grey
        (H, W), uint8; shrunk to 1024 pixels on its longer side where it is larger.
    """
    scale = min(1.0, _LONGEST / max(grey.shape))
    if scale < 1:
        grey = np.asarray(cv2.resize(grey, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA), np.uint8)
    if min(grey.shape) < 48:
        return Writing()
    largest = int(np.clip(min(grey.shape) // 8, 12, 40))
    lines: list[tuple[int, tuple[float, float, float, float]]] = []
    for operation in (cv2.MORPH_TOPHAT, cv2.MORPH_BLACKHAT):
        # What is thinner than a letter's stroke can be, and stands out from what is around it.
        kernel = cv2.getStructuringElement(cv2.MORPH_RECT, (max(3, largest // 3) | 1,) * 2)
        strokes = cv2.morphologyEx(grey, operation, kernel) >= _CONTRAST
        marks = _marks(strokes.astype(np.uint8), largest)
        lines += _lines(marks, grey.shape)
    return Writing(sum(count for count, _ in lines), tuple(tuple(v / scale for v in box) for _, box in lines))


def _marks(strokes: NDArray[np.uint8], largest: int) -> NDArray[np.float64]:
    """Give components that could be letters: (N, 4) left, upper edge, width, height."""
    count, labels, stats, _ = cv2.connectedComponentsWithStats(strokes, connectivity=8)
    if count < LETTERS + 1 or count > _MOST_MARKS:
        # Thousands of them are texture.
        return np.empty((0, 4))
    left, upper, width, height, area = (stats[1:, i].astype(np.float64) for i in range(5))
    fill = area / (width * height)
    keep = (height >= 6) & (height <= largest) & (width >= 1) & (width <= 1.6 * height) & (area >= 6) & (fill >= 0.12)
    # A letter is made of strokes: it is nowhere as thick as it is high. A dot, a cell or a corner is.
    inside = np.nonzero(strokes)
    depth = np.zeros(count)
    np.maximum.at(depth, labels[inside], cv2.distanceTransform(strokes, cv2.DIST_L2, 3)[inside])
    keep &= 2 * depth[1:] - 1 <= np.maximum(1.5, _THICKNESS * height)
    found: NDArray[np.float64] = np.stack([left, upper, width, height], axis=1)[keep]
    return found


def _lines(marks: NDArray[np.float64], shape: tuple[int, ...]) -> list[tuple[int, tuple[float, float, float, float]]]:
    """Chain marks of about one height that stand side by side on one base line."""
    found = []
    rows: list[list[float]] = sorted(marks.tolist())
    used = [False] * len(rows)
    for start in range(len(rows)):
        if used[start]:
            continue
        chain = [start]
        for index in range(start + 1, len(rows)):
            left, upper, _, height = rows[index]
            last = rows[chain[-1]]
            gap = left - (last[0] + last[2])
            if gap > _GAP * 40:
                break  # sorted from left to right: nothing further can follow
            tall = max(last[3], height)
            level = min(abs(upper + height - last[1] - last[3]), abs(upper - last[1]))
            alike = min(last[3], height) >= 0.65 * tall and level <= max(1.0, 0.12 * tall)
            if not used[index] and alike and -0.2 * tall <= gap <= _GAP * tall:
                chain.append(index)
        line = marks[:0] if len(chain) < LETTERS else np.array([rows[index] for index in chain])
        if len(line) and _reads_as_line(line, shape):
            for index in chain:
                used[index] = True
            right, lower = (line[:, 0] + line[:, 2]).max(), (line[:, 1] + line[:, 3]).max()
            found.append((len(chain), (float(line[:, 0].min()), float(line[:, 1].min()), float(right), float(lower))))
    return found


def _reads_as_line(line: NDArray[Any], shape: tuple[int, ...]) -> bool:
    base = line[:, 1] + line[:, 3]
    height = float(np.median(line[:, 3]))
    # Print stands on a line, and its capitals are of one height.
    straight = float(np.median(np.abs(base - np.median(base)))) <= max(1.0, 0.08 * height)
    even = float(np.mean(np.abs(line[:, 3] - height) <= max(1.0, 0.15 * height))) >= 0.6
    middle_y, middle_x = float(np.median(base)) / shape[0], float((line[:, 0] + line[:, 2] / 2).mean()) / shape[1]
    border = min(middle_y, 1 - middle_y) <= _BORDER or min(middle_x, 1 - middle_x) <= _BORDER
    return straight and even and border
