"""Truths and answers drawn over small pictures: boxes, contours, class maps and heat maps; ``draw_x`` gives pixels, ``x_picture`` a data URI.

Lines are drawn after the picture was brought to its size, so that they are equally wide on every page. What is right, false or missed has a
colour (`RIGHT`, `FALSE`, `MISSED`; told apart with the common colour blindnesses) and a line of its own: missed objects are dashed.
"""

from __future__ import annotations

import base64
from collections.abc import Sequence
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from oteo_core.images import InputPolicy, encode_jpeg, encode_png, nearest
from oteo_core.images.geometry import place
from oteo_core.packages.answers import IGNORED
from oteo_core.reporting.pictures import SIDE, displayable

Colour = tuple[int, int, int]
Picture = NDArray[np.uint8]

RIGHT: Colour = (0, 190, 255)
FALSE: Colour = (255, 140, 0)
MISSED: Colour = (255, 40, 150)
"""Red, green, blue."""

CLASS_COLOURS: tuple[Colour, ...] = (
    (0, 190, 255),
    (255, 140, 0),
    (90, 215, 90),
    (205, 110, 235),
    (240, 215, 40),
    (110, 130, 255),
    (255, 105, 140),
    (160, 175, 185),
)

_LEAST = 240
_LARGE_PNG = 60_000
_DASH = 7
_SMALL = 120


def colour_of(index: int) -> Colour:
    """Give a class's colour; they repeat after eight."""
    return CLASS_COLOURS[index % len(CLASS_COLOURS)]


def canvas(pixels: NDArray[Any], side: int = SIDE) -> Picture:
    """Bring an image ``(H, W, C)`` of any numeric type to ``(h, w, 3)`` uint8 with a longest side of at most `side`; small ones grow by a whole factor, so that lines do not hide them."""
    image = displayable(pixels)
    image = np.repeat(image, 3, axis=2) if image.shape[2] == 1 else image
    longest = max(image.shape[:2])
    factor = _LEAST // longest if 2 * longest <= _LEAST else min(1.0, side / longest)
    if factor != 1:
        size = max(1, round(image.shape[1] * factor)), max(1, round(image.shape[0] * factor))
        image = np.asarray(cv2.resize(image, size, interpolation=cv2.INTER_NEAREST if factor > 1 else cv2.INTER_AREA), dtype=np.uint8)
    # A copy always: it is drawn upon.
    return np.array(image, dtype=np.uint8, order="C")


def data_uri(picture: Picture) -> str:
    """Give a picture ``(h, w, 3)`` as a PNG data URI; as JPEG of high quality where the PNG were larger than 60 kB."""
    png = encode_png(picture)
    if len(png) <= _LARGE_PNG:
        return "data:image/png;base64," + base64.b64encode(png).decode()
    return "data:image/jpeg;base64," + base64.b64encode(encode_jpeg(picture, 92)).decode()


def draw_boxes(
    pixels: NDArray[Any],
    boxes: NDArray[Any],
    colours: Sequence[Colour],
    *,
    dashed: Sequence[bool] = (),
    captions: Sequence[str] = (),
    side: int = SIDE,
) -> Picture:
    """Draw boxes over an image.

    Parameters
    ----------
    pixels
        ``(H, W, C)``.
    boxes
        ``(M, 4)``: left, top, right, bottom, pixels of `pixels`.
    colours
        M colours.
    dashed
        M flags; none: all lines are whole.
    captions
        M short texts, set above the boxes; none: no text.
    side
        Longest side of the picture, pixels.
    """
    picture = canvas(pixels, side)
    scale = np.array([picture.shape[1] / pixels.shape[1], picture.shape[0] / pixels.shape[0]] * 2)
    limit = np.array([picture.shape[1] - 1, picture.shape[0] - 1] * 2)
    placed = np.clip(np.asarray(boxes, dtype=np.float64).reshape(-1, 4) * scale, 0, limit).round().astype(int)
    for place_, (left, top, right, bottom) in enumerate(placed.tolist()):
        outline = np.array([[left, top], [right, top], [right, bottom], [left, bottom]], dtype=np.int32)
        _outline(picture, outline, colours[place_], dashed=bool(dashed[place_]) if len(dashed) else False)
    for place_, caption in enumerate(captions):
        if caption:
            draw_text(picture, caption, (int(placed[place_, 0]), int(placed[place_, 1])), colours[place_])
    return picture


def detections_picture(
    pixels: NDArray[Any],
    true_boxes: NDArray[Any],
    true_found: Sequence[bool],
    found_boxes: NDArray[Any],
    found_right: Sequence[bool],
    captions: Sequence[str] = (),
    *,
    side: int = SIDE,
) -> str:
    """Draw a detector's answer: what it found rightly, its false alarms, and (dashed) what it missed.

    Parameters
    ----------
    pixels
        ``(H, W, C)``.
    true_boxes, true_found
        ``(T, 4)``, and whether each was found; only those that were not are drawn.
    found_boxes, found_right
        ``(M, 4)``, and whether each is right.
    captions
        M texts for the answer's boxes.
    side
        Longest side of the picture, pixels.
    """
    missed = np.asarray(true_boxes, dtype=np.float64).reshape(-1, 4)[~np.asarray(true_found, dtype=bool)]
    found = np.asarray(found_boxes, dtype=np.float64).reshape(-1, 4)
    colours = [RIGHT if right else FALSE for right in found_right] + [MISSED] * len(missed)
    dashed = [False] * len(found) + [True] * len(missed)
    texts = [*captions, *([""] * len(missed))] if captions else ()
    return data_uri(draw_boxes(pixels, np.concatenate([found, missed]), colours, dashed=dashed, captions=texts, side=side))


def class_map_picture(
    pixels: NDArray[Any], labels: NDArray[np.uint8], truth: NDArray[np.uint8] | None = None, *, strength: float = 0.38, side: int = SIDE
) -> str:
    """Give `draw_class_map` as a data URI."""
    return data_uri(draw_class_map(pixels, labels, truth, strength=strength, side=side))


def draw_class_map(
    pixels: NDArray[Any], labels: NDArray[np.uint8], truth: NDArray[np.uint8] | None = None, *, strength: float = 0.38, side: int = SIDE
) -> Picture:
    """Draw a class map: the answer as colours, the truth's borders as dashed white lines.

    Parameters
    ----------
    pixels
        ``(H, W, C)``.
    labels
        ``(H, W)``: 0 background, which stays clear; ``k + 1`` class ``k``; `IGNORED` stays clear.
    truth
        The same; None: no borders.
    strength
        Of the colours, 0 to 1.
    side
        Longest side of the picture, pixels.
    """
    picture = canvas(pixels, side)
    answer = _resized(labels, picture)
    for number in np.unique(answer):
        if number in (0, IGNORED):
            continue
        mask = answer == number
        _fill(picture, mask, colour_of(int(number) - 1), strength)
        _contours(picture, mask, colour_of(int(number) - 1))
    if truth is not None:
        real = _resized(truth, picture)
        for number in np.unique(real):
            if number not in (0, IGNORED):
                _contours(picture, real == number, (255, 255, 255), dashed=True)
    return picture


def difference_picture(
    pixels: NDArray[Any], answer: NDArray[np.uint8], truth: NDArray[np.uint8], *, strength: float = 0.5, side: int = SIDE
) -> str:
    """Draw where a class map is right, where it sees what is not there (or another class), and where it misses.

    Parameters
    ----------
    pixels
        ``(H, W, C)``.
    answer, truth
        ``(H, W)`` as in `class_map_picture`.
    strength
        Of the colours, 0 to 1.
    side
        Longest side of the picture, pixels.
    """
    picture = canvas(pixels, side)
    found, real = _resized(answer, picture), _resized(truth, picture)
    known = real != IGNORED
    _fill(picture, known & (found == real) & (real > 0), RIGHT, strength * 0.6)
    _fill(picture, known & (found > 0) & (found != real), FALSE, strength)
    _fill(picture, known & (found == 0) & (real > 0), MISSED, strength)
    return data_uri(picture)


def instances_picture(
    pixels: NDArray[Any],
    found_ids: NDArray[np.int32],
    found_right: Sequence[bool],
    true_ids: NDArray[np.int32],
    true_found: Sequence[bool],
    *,
    side: int = SIDE,
) -> str:
    """Draw outlines of objects: found rightly, false alarms, and (dashed) missed.

    Parameters
    ----------
    pixels
        ``(H, W, C)``.
    found_ids, true_ids
        ``(H, W)``: 0 background, ``i + 1`` object ``i``, below 0: not judged.
    found_right, true_found
        For each object of both: whether it is right, whether it was found.
    side
        Longest side of the picture, pixels.
    """
    picture = canvas(pixels, side)
    found, real = _resized(found_ids, picture), _resized(true_ids, picture)
    for index, right in enumerate(found_right):
        _contours(picture, found == index + 1, RIGHT if right else FALSE)
    for index, seen in enumerate(true_found):
        if not seen:
            _contours(picture, real == index + 1, MISSED, dashed=True)
    return data_uri(picture)


def draw_objects(pixels: NDArray[Any], ids: NDArray[np.int32], colours: Sequence[Colour], *, side: int = SIDE) -> Picture:
    """Draw outlines of objects ``(H, W)``, ``i + 1`` for object ``i``, each in its colour."""
    picture = canvas(pixels, side)
    found = _resized(ids, picture)
    for index, colour in enumerate(colours):
        _contours(picture, found == index + 1, colour)
    return picture


def heat_picture(pixels: NDArray[Any], heat: NDArray[Any], policy: InputPolicy | None = None, *, side: int = SIDE) -> str:
    """Give `draw_heat` as a data URI."""
    return data_uri(draw_heat(pixels, heat, policy, side=side))


def draw_heat(pixels: NDArray[Any], heat: NDArray[Any], policy: InputPolicy | None = None, *, side: int = SIDE) -> Picture:
    """Draw a heat map, such as where a classifier looks, over an image.

    Parameters
    ----------
    pixels
        ``(H, W, C)``.
    heat
        ``(h, w)``, 0 to 1, of any size; it covers the image, or with `policy` the prepared image, of which the part that the original fills is taken.
    policy
        How the image was prepared.
    side
        Longest side of the picture, pixels.
    """
    picture = canvas(pixels, side)
    values = np.clip(np.nan_to_num(np.asarray(heat, dtype=np.float32)), 0.0, 1.0)
    if policy is not None:
        where = place(pixels.shape[1], pixels.shape[0], policy)
        grown = cv2.resize(values, (policy.width, policy.height), interpolation=cv2.INTER_LINEAR)
        values = grown[where.top : where.top + where.inner_height, where.left : where.left + where.inner_width]
    values = np.asarray(cv2.resize(values, (picture.shape[1], picture.shape[0]), interpolation=cv2.INTER_CUBIC), dtype=np.float32)
    values = np.clip(values, 0.0, 1.0)
    coloured = cv2.cvtColor(cv2.applyColorMap((values * 255).astype(np.uint8), cv2.COLORMAP_INFERNO), cv2.COLOR_BGR2RGB)
    share = (0.15 + 0.5 * values)[:, :, None]
    drawn: Picture = np.clip(picture * (1 - share) + coloured * share + 0.5, 0, 255).astype(np.uint8)
    return drawn


def _resized(plane: NDArray[Any], picture: Picture) -> NDArray[Any]:
    """Bring a label image to the picture's size."""
    return nearest(plane, picture.shape[1], picture.shape[0])


def _fill(picture: Picture, mask: NDArray[np.bool_], colour: Colour, strength: float) -> None:
    picture[mask] = (picture[mask] * (1 - strength) + np.array(colour) * strength + 0.5).astype(np.uint8)


def _contours(picture: Picture, mask: NDArray[np.bool_], colour: Colour, *, dashed: bool = False) -> None:
    found, _ = cv2.findContours(mask.astype(np.uint8), cv2.RETR_CCOMP, cv2.CHAIN_APPROX_NONE)
    for contour in found:
        points = contour.reshape(-1, 2).astype(np.int32)
        if len(points) < _SMALL:
            # A line as wide as a small object would hide it.
            cv2.polylines(picture, _dashes(points) if dashed else [points], not dashed, colour, 1, cv2.LINE_AA)
        else:
            _outline(picture, points, colour, dashed=dashed)


def _outline(picture: Picture, points: NDArray[np.int32], colour: Colour, *, dashed: bool) -> None:
    """Draw a closed line with a dark rim, so that it is seen on bright and dark ground."""
    pieces = _dashes(points) if dashed else [points]
    for colour_, width in (((20, 20, 20), 4), (colour, 2)):
        for piece in pieces:
            cv2.polylines(picture, [piece.reshape(-1, 1, 2)], not dashed, colour_, width, cv2.LINE_AA)


def _dashes(points: NDArray[np.int32]) -> list[NDArray[np.int32]]:
    """Cut a closed line into dashes of `_DASH` pixels with gaps as long."""
    closed = np.concatenate([points, points[:1]]).astype(np.float64)
    lengths = np.hypot(*np.diff(closed, axis=0).T)
    reached = np.concatenate([[0.0], np.cumsum(lengths)])
    pieces = []
    for start in np.arange(0.0, reached[-1], 2 * _DASH):
        at = np.linspace(start, min(start + _DASH, reached[-1]), 4)
        piece = np.stack([np.interp(at, reached, closed[:, axis]) for axis in (0, 1)], axis=1)
        pieces.append(piece.round().astype(np.int32))
    return pieces


def draw_text(picture: Picture, text: str, corner: tuple[int, int], colour: Colour) -> None:
    """Write a short text above a corner (x, y), or below it where there is no room; with a dark rim."""
    (width, height), _ = cv2.getTextSize(text, cv2.FONT_HERSHEY_SIMPLEX, 0.33, 1)
    left = min(max(corner[0], 0), max(picture.shape[1] - width - 2, 0))
    bottom = corner[1] - 2 if corner[1] - height - 4 >= 0 else min(corner[1] + height + 4, picture.shape[0] - 1)
    cv2.putText(picture, text, (left, bottom), cv2.FONT_HERSHEY_SIMPLEX, 0.33, (20, 20, 20), 3, cv2.LINE_AA)
    cv2.putText(picture, text, (left, bottom), cv2.FONT_HERSHEY_SIMPLEX, 0.33, colour, 1, cv2.LINE_AA)
