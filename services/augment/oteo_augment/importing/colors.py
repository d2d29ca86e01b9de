"""What the colours of mask images stand for: lists beside them, and the numbers that colours become.

Two lists are read: ``labelmap.txt`` of ``name:r,g,b:parts:actions`` lines, as CVAT and Datumaro write it beside Pascal VOC's folders, and
``class_dict.csv`` of ``name,r,g,b`` rows, as in the CamVid data set's usual form.
"""

from __future__ import annotations

import csv
import io
import re
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from oteo_augment.importing.source import Source
from oteo_core.errors import InvalidArgument

VOID = 255
"""The number of pixels that belong to no class and are not background."""
BORDER = (224, 224, 192)
"""The colour in which Pascal VOC draws what is not to be judged."""
_BACKGROUND = frozenset({"background", "_background_", "bg"})
_VOID_NAMES = frozenset({"void", "ignore", "ignored", "unlabeled", "unlabelled"})
_NUMBER = re.compile(r"\d{1,3}")
Color = tuple[int, int, int]


@dataclass(frozen=True)
class ColorList:
    """A list of colours: the file it was read from, classes by number from 1, and the number of each colour."""

    path: str
    numbers: tuple[tuple[int, str], ...]
    colors: tuple[tuple[Color, int], ...]


def color_list(source: Source) -> ColorList | None:
    """Read the first list that a source has; None where it has none.

    Background is the class of that name, else black if no class has it; a class called void, ignore or unlabelled is set aside, or is the background
    where it is black and nothing else is.

    Raises
    ------
    InvalidArgument
        BAD_ANNOTATION_FILE for a list that gives one colour twice or has more than 254 classes.
    """
    for ending, parse in (("labelmap.txt", _labelmap), ("class_dict.csv", _class_dict)):
        for path in source.ending_with(ending):
            if rows := parse(source.read(path).decode("utf-8-sig", "replace")):
                return _numbered(path, rows)
    return None


def _labelmap(text: str) -> list[tuple[str, Color]]:
    rows = []
    for line in text.splitlines():
        fields = line.strip().rsplit(":", 3)
        if not line.strip() or line.startswith("#"):
            continue
        color = _color(fields[1].split(",")) if len(fields) == 4 else None
        if color is None:  # without colours it is VOC's list of names alone
            return []
        rows.append((fields[0].strip(), color))
    return rows


def _class_dict(text: str) -> list[tuple[str, Color]]:
    table = [[field.strip() for field in row] for row in csv.reader(io.StringIO(text)) if row]
    if not table or [field.lower() for field in table[0][1:4]] != ["r", "g", "b"]:
        return []
    rows = []
    for row in table[1:]:
        color = _color(row[1:4])
        if color is None:
            return []
        rows.append((row[0], color))
    return rows


def _color(fields: list[str]) -> Color | None:
    if len(fields) != 3 or not all(_NUMBER.fullmatch(field.strip()) for field in fields):
        return None
    red, green, blue = (int(field) for field in fields)
    return (red, green, blue) if max(red, green, blue) < 256 else None


def _numbered(path: str, rows: list[tuple[str, Color]]) -> ColorList:
    colors: dict[Color, int] = {BORDER: VOID, (0, 0, 0): 0}
    given: set[Color] = set()
    numbers: list[tuple[int, str]] = []
    named = {name.lower() for name, _ in rows}
    for name, color in rows:
        if color in given:
            raise _bad(f"{path} gives the colour {color} to two classes")
        given.add(color)
        if name.lower() in _BACKGROUND:
            colors[color] = 0
        elif name.lower() in _VOID_NAMES:
            colors[color] = 0 if color == (0, 0, 0) and not named & _BACKGROUND else VOID
        else:
            number = next((value for value, other in numbers if other == name), len(numbers) + 1)
            if number > len(numbers):
                numbers.append((number, name))
            colors[color] = number
    if len(numbers) >= VOID:
        raise _bad(f"{path} has {len(numbers)} classes; up to {VOID - 1} are read")
    return ColorList(path, tuple(numbers), tuple(colors.items()))


def numbers_of_colors(pixels: NDArray[np.generic], colors: tuple[tuple[Color, int], ...]) -> tuple[NDArray[np.uint8], dict[Color, int]]:
    """Turn colours into numbers.

    Parameters
    ----------
    pixels
        (H, W) or (H, W, C) of uint8 or uint16: grey, or red, green and blue first.
    colors
        Numbers of colours.

    Returns
    -------
    tuple
        Numbers (H, W), `VOID` for colours that are not listed, and how many pixels have each of those, the most frequent eight of them.
    """
    planes = pixels.reshape(*pixels.shape[:2], -1)
    planes = planes[:, :, :3] if planes.shape[2] >= 3 else np.repeat(planes[:, :, :1], 3, axis=2)
    packed = (planes.astype(np.int64) << np.array([32, 16, 0])).sum(axis=2)
    table = sorted(((red << 32) + (green << 16) + blue, number) for (red, green, blue), number in colors)
    keys, values = np.array([key for key, _ in table]), np.array([number for _, number in table], np.uint8)
    place = np.minimum(np.searchsorted(keys, packed), len(keys) - 1)
    found = keys[place] == packed
    foreign, counts = np.unique(packed[~found], return_counts=True)
    most = np.argsort(-counts, kind="stable")[:8]
    unknown = {
        (int(key) >> 32, int(key) >> 16 & 0xFFFF, int(key) & 0xFFFF): int(n) for key, n in zip(foreign[most], counts[most], strict=True)
    }
    return np.where(found, values[place], np.uint8(VOID)), unknown


def _bad(why: str) -> InvalidArgument:
    return InvalidArgument(why, reason="BAD_ANNOTATION_FILE", field="source_uri")
