"""A prediction as a picture: the image with what was found in it, and beside it the likeliest classes, or the surest objects, as bars."""

from __future__ import annotations

import io
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from oteo.errors import OteoApiError

if TYPE_CHECKING:
    from PIL.Image import Image

_IMAGE_HEIGHT = 320
_PANEL_WIDTH = 360
_MARGIN = 16
_COLOURS = ((230, 75, 53), (0, 160, 135), (60, 84, 200), (243, 155, 30), (145, 60, 170), (0, 170, 210), (130, 100, 60), (220, 60, 140))
_INK, _PALE, _BAR, _BEST, _PAPER = (30, 34, 40), (110, 118, 128), (176, 196, 222), (31, 119, 180), (255, 255, 255)


def _eight_bit(image: Image) -> Image:
    """Give an image of any depth in 8-bit colour; deeper ones are stretched between their smallest and largest value."""
    from PIL import ImageOps

    image.seek(0)
    image = ImageOps.exif_transpose(image)
    if image.mode.startswith(("I", "F")):
        grey = image.convert("F")
        low, high = grey.getextrema()
        low, high = float(low), float(high)  # type: ignore[arg-type]
        scale = 255.0 / (high - low) if high > low else 0.0
        return grey.point(lambda value: value * scale - low * scale).convert("L").convert("RGB")
    if image.mode in ("RGBA", "LA", "PA") or "transparency" in image.info:
        from PIL import Image as images

        paper = images.new("RGBA", image.size, (*_PAPER, 255))
        paper.alpha_composite(image.convert("RGBA"))
        return paper.convert("RGB")
    return image.convert("RGB")


def draw_prediction(
    content: bytes,
    scores: Sequence[tuple[str, float]],
    *,
    title: str = "",
    note: str = "",
    most: int = 8,
    boxes: Sequence[tuple[str, tuple[float, float, float, float]]] = (),
    labels: bytes = b"",
) -> Image:
    """Draw an image with its likeliest classes, or with what was found in it.

    Parameters
    ----------
    content
        The encoded image: PNG, JPEG, TIFF.
    scores
        Classes with probabilities, the likeliest first.
    title, note
        Lines above and below the bars.
    most
        Bars at most.
    boxes
        Class and left, top, right, bottom in pixels of the image.
    labels
        A label image (PNG) of the image's size, whose outlines are drawn.

    Raises
    ------
    OteoApiError
        FAILED_PRECONDITION, reason PILLOW_MISSING: Pillow is not installed. INVALID_ARGUMENT, reason UNREADABLE_IMAGE.
    """
    try:
        from PIL import Image as images
        from PIL import ImageDraw, ImageFont
    except ImportError:
        raise OteoApiError(
            "FAILED_PRECONDITION", "drawing needs Pillow: install oteo[drawing]", reason="PILLOW_MISSING", field="save"
        ) from None
    try:
        picture = _eight_bit(images.open(io.BytesIO(content)))
    except (OSError, ValueError) as error:
        raise OteoApiError("INVALID_ARGUMENT", f"cannot draw this image: {error}", reason="UNREADABLE_IMAGE", field="image") from None
    factor = _IMAGE_HEIGHT / picture.height
    width = min(3 * _IMAGE_HEIGHT, max(40, round(picture.width * factor)))
    shown = picture.resize((width, _IMAGE_HEIGHT), images.Resampling.NEAREST if factor > 3 else images.Resampling.LANCZOS)
    scale = (width / picture.width, _IMAGE_HEIGHT / picture.height)
    _mark(shown, boxes, labels, scale)
    canvas = images.new("RGB", (width + _PANEL_WIDTH + 3 * _MARGIN, _IMAGE_HEIGHT + 2 * _MARGIN), _PAPER)
    canvas.paste(shown, (_MARGIN, _MARGIN))
    draw = ImageDraw.Draw(canvas)
    large, small = ImageFont.load_default(18), ImageFont.load_default(13)
    left, top = width + 2 * _MARGIN, _MARGIN
    right = left + _PANEL_WIDTH
    if title:
        draw.text((left, top), _fitting(title, large, _PANEL_WIDTH), font=large, fill=_INK)
        top += 30
    for rank, (name, probability) in enumerate(scores[:most]):
        draw.text((left, top), _fitting(name, small, _PANEL_WIDTH - 60), font=small, fill=_INK)
        draw.text((right, top), f"{probability:.3f}", font=small, fill=_PALE, anchor="ra")
        draw.rectangle((left, top + 17, right, top + 23), fill=(238, 240, 243))
        length = round(_PANEL_WIDTH * min(1.0, max(0.0, probability)))
        if length:
            draw.rectangle((left, top + 17, left + length, top + 23), fill=_BEST if rank == 0 else _BAR)
        top += 32
    if note:
        draw.text((left, _IMAGE_HEIGHT + _MARGIN), _fitting(note, small, _PANEL_WIDTH), font=small, fill=_PALE, anchor="ls")
    return canvas


def _mark(shown: Image, boxes: Sequence[tuple[str, tuple[float, float, float, float]]], labels: bytes, scale: tuple[float, float]) -> None:
    """Draw boxes, a colour for each class, and the outlines of a label image's regions, a colour for each number."""
    from PIL import Image as images
    from PIL import ImageChops, ImageDraw

    draw = ImageDraw.Draw(shown)
    names = sorted({name for name, _ in boxes})
    for name, (left, top, right, bottom) in boxes:
        corners = (left * scale[0], top * scale[1], max(right * scale[0], left * scale[0] + 1), max(bottom * scale[1], top * scale[1] + 1))
        draw.rectangle(corners, outline=_COLOURS[names.index(name) % len(_COLOURS)], width=2)
    if not labels:
        return
    # Numbers of objects may need 16 bits; which colour a number has may repeat.
    plane = images.open(io.BytesIO(labels)).convert("I").resize(shown.size, images.Resampling.NEAREST)
    values = memoryview(plane.tobytes()).cast("i")
    for place, colour in enumerate(_COLOURS):
        chosen = bytes(255 if value and (value - 1) % len(_COLOURS) == place else 0 for value in values)
        inside = images.frombytes("L", shown.size, chosen)
        edge = images.new("L", shown.size)
        for step in ((1, 0), (0, 1), (-1, 0), (0, -1)):
            edge = ImageChops.lighter(edge, ImageChops.subtract(inside, ImageChops.offset(inside, *step)))
        shown.paste(colour, mask=edge)


def _fitting(text: str, font: object, width: int) -> str:
    measure = font.getlength  # type: ignore[attr-defined]
    if measure(text) <= width:
        return text
    while text and measure(text + "…") > width:
        text = text[:-1]
    return text + "…"


def save_prediction(
    path: Path,
    content: bytes,
    scores: Sequence[tuple[str, float]],
    *,
    title: str = "",
    note: str = "",
    boxes: Sequence[tuple[str, tuple[float, float, float, float]]] = (),
    labels: bytes = b"",
) -> Path:
    """Draw and write a picture (PNG, or what the suffix says); give its path. See `draw_prediction`."""
    picture = draw_prediction(content, scores, title=title, note=note, boxes=boxes, labels=labels)
    path.parent.mkdir(parents=True, exist_ok=True)
    picture.save(path)
    return path
