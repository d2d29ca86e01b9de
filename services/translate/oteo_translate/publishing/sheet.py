"""The sheet that people look at: shifted images, their translations, what home looks like, and the model's answers before and after."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from oteo_core.packages.decoding.detection import confident
from oteo_core.reporting.overlays import CLASS_COLOURS, Picture, canvas, colour_of, draw_boxes, draw_class_map, draw_objects, draw_text

_TILE = 200
_GAP = 6
_TITLE = 22
_WHITE = 255
_INK = (40, 40, 40)


@dataclass(frozen=True, slots=True)
class Row:
    """One image of the sheet.

    Parameters
    ----------
    shifted, translated, home
        ``(H, W, C)`` prepared; `translated` is the image itself where the model was changed.
    before, after
        The model's answers to the shifted image as it is, and as it is recommended.
    """

    shifted: NDArray[Any]
    translated: NDArray[Any]
    home: NDArray[Any]
    before: Any
    after: Any


def answer_picture(task: str, classes: Sequence[str], decoding: dict[str, Any], pixels: NDArray[Any], answer: Any) -> Picture:
    """Draw a model's answer over a prepared image ``(H, W, C)``: pixels ``(h, w, 3)`` uint8 of at most 200 a side."""
    if task.endswith("classification"):
        picture = canvas(pixels, _TILE)
        first = np.argsort(-np.asarray(answer))[:2]
        for line, number in enumerate(first):
            text = f"{classes[int(number)]} {float(answer[int(number)]):.2f}"
            draw_text(picture, text, (4, 16 + 14 * line), colour_of(int(number)))
        return picture
    if task == "detection":
        found = confident(answer, decoding)
        return draw_boxes(pixels, found.boxes, [colour_of(int(label)) for label in found.labels], side=_TILE)
    if task == "semantic_segmentation":
        return draw_class_map(pixels, answer.labels, side=_TILE)
    colours = [CLASS_COLOURS[int(label) % len(CLASS_COLOURS)] for label in answer.labels]
    return draw_objects(pixels, answer.ids, colours, side=_TILE)


def draw_sheet(task: str, classes: Sequence[str], decoding: dict[str, Any], rows: Sequence[Row], *, translates: bool) -> Picture:
    """Draw the sheet, ``(h, w, 3)`` uint8.

    Parameters
    ----------
    task, classes, decoding
        The model's.
    rows
        One at least.
    translates
        False: the model was changed and not the image; there is no column of translated images then.
    """
    titles = ["shifted", "answer before", *(["translated"] if translates else []), "answer after", "home"]
    lines = []
    for row in rows:
        tiles = [canvas(row.shifted, _TILE), answer_picture(task, classes, decoding, row.shifted, row.before)]
        if translates:
            tiles.append(canvas(row.translated, _TILE))
        tiles.append(answer_picture(task, classes, decoding, row.translated, row.after))
        tiles.append(canvas(row.home, _TILE))
        lines.append([_square(tile) for tile in tiles])
    width = len(titles) * (_TILE + _GAP) + _GAP
    sheet = np.full((_TITLE + len(rows) * (_TILE + _GAP) + _GAP, width, 3), _WHITE, np.uint8)
    for column, title in enumerate(titles):
        left = _GAP + column * (_TILE + _GAP)
        cv2.putText(sheet, title, (left, _TITLE - 6), cv2.FONT_HERSHEY_SIMPLEX, 0.45, _INK, 1, cv2.LINE_AA)
        for line, tiles in enumerate(lines):
            top = _TITLE + line * (_TILE + _GAP)
            sheet[top : top + _TILE, left : left + _TILE] = tiles[column]
    return sheet


def _square(picture: Picture) -> Picture:
    """Bring a picture into a white square of `_TILE` pixels, in the middle."""
    factor = _TILE / max(picture.shape[:2])
    size = max(1, round(picture.shape[1] * factor)), max(1, round(picture.shape[0] * factor))
    fitted = np.asarray(cv2.resize(picture, size, interpolation=cv2.INTER_AREA if factor < 1 else cv2.INTER_LINEAR), dtype=np.uint8)
    square = np.full((_TILE, _TILE, 3), _WHITE, np.uint8)
    top, left = (_TILE - fitted.shape[0]) // 2, (_TILE - fitted.shape[1]) // 2
    square[top : top + fitted.shape[0], left : left + fitted.shape[1]] = fitted
    return square
