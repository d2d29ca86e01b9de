"""A prediction as a picture: the drawing that the gateway made, and beside it the likeliest classes, or the surest objects, as bars."""

from __future__ import annotations

import io
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from oteo.errors import OteoApiError

if TYPE_CHECKING:
    from PIL.Image import Image

_LEAST_HEIGHT, _MOST_HEIGHT = 320, 720
_PANEL_WIDTH = 360
_MARGIN = 16
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
) -> Image:
    """Draw an image with its likeliest classes, or surest objects, as bars beside it.

    Parameters
    ----------
    content
        An encoded image, such as ``PredictResponse.drawing``: PNG, JPEG, TIFF.
    scores
        Classes with probabilities, the likeliest first.
    title, note
        Lines above and below the bars.
    most
        Bars at most.

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
    height = min(max(picture.height, _LEAST_HEIGHT), _MOST_HEIGHT)
    factor = height / picture.height
    width = min(3 * height, max(40, round(picture.width * factor)))
    shown = picture.resize((width, height), images.Resampling.NEAREST if factor > 3 else images.Resampling.LANCZOS)
    canvas = images.new("RGB", (width + _PANEL_WIDTH + 3 * _MARGIN, height + 2 * _MARGIN), _PAPER)
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
        draw.text((left, height + _MARGIN), _fitting(note, small, _PANEL_WIDTH), font=small, fill=_PALE, anchor="ls")
    return canvas


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
) -> Path:
    """Draw and write a picture (PNG, or what the suffix says); give its path. See `draw_prediction`."""
    picture = draw_prediction(content, scores, title=title, note=note)
    path.parent.mkdir(parents=True, exist_ok=True)
    picture.save(path)
    return path
