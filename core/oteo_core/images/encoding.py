"""From pixels to PNG and JPEG bytes."""

from __future__ import annotations

from typing import Any

import cv2
import imagecodecs
import numpy as np
from numpy.typing import NDArray

from oteo_core.errors import InvalidArgument


def encode_png(pixels: NDArray[Any], level: int | None = None) -> bytes:
    """Encode as PNG, without loss.

    Parameters
    ----------
    pixels
        (H, W) or (H, W, C), uint8 or uint16, C one of 1, 3, 4; colours in the order red, green, blue, alpha.
    level
        Effort of the compression, 0 to 9; None: what costs least time for its size. That is Paeth's filter and runs alone (measured: a third of
        the time of level 3 and smaller on photographs, sections, microscopy and label images), but for grey stored as colour, whose channels
        repeat each other: matches are looked for there.

    Raises
    ------
    InvalidArgument
        UNSUPPORTED_PIXELS for another shape or dtype.
    """
    count = _checked("png", pixels, (np.uint8, np.uint16), (1, 3, 4))
    flat = np.ascontiguousarray(pixels[:, :, 0] if pixels.ndim == 3 and count == 1 else pixels)
    if level is None:
        # A few rows say it of nearly every picture that is in colour.
        grey = count >= 3 and all((rows[:, :, :1] == rows[:, :, 1:3]).all() for rows in (flat[::32], flat))
        strategy = imagecodecs.PNG.STRATEGY.DEFAULT if grey else imagecodecs.PNG.STRATEGY.RLE
        return bytes(imagecodecs.png_encode(flat, level=2 if grey else 1, strategy=strategy, filter=imagecodecs.PNG.FILTER.PAETH))
    return bytes(imagecodecs.png_encode(flat, level=level))


def encode_jpeg(pixels: NDArray[Any], quality: int = 95) -> bytes:
    """Encode as JPEG.

    Parameters
    ----------
    pixels
        (H, W) or (H, W, C), uint8, C one of 1, 3.
    quality
        1 to 100.

    Raises
    ------
    InvalidArgument
        UNSUPPORTED_PIXELS for another shape or dtype.
    """
    count = _checked("jpg", pixels, (np.uint8,), (1, 3))
    if count == 3:
        pixels = cv2.cvtColor(np.ascontiguousarray(pixels), cv2.COLOR_RGB2BGR)
    _, data = cv2.imencode(".jpg", np.ascontiguousarray(pixels), [cv2.IMWRITE_JPEG_QUALITY, quality])
    return bytes(data)


def _checked(format_name: str, pixels: NDArray[Any], dtypes: tuple[type[np.generic], ...], channels: tuple[int, ...]) -> int:
    """Give the number of channels, if the format can hold the pixels."""
    count = 1 if pixels.ndim == 2 else pixels.shape[2] if pixels.ndim == 3 else 0
    if pixels.dtype not in dtypes or count not in channels or 0 in pixels.shape:
        raise InvalidArgument(
            f"{format_name} cannot hold pixels of shape {pixels.shape} and type {pixels.dtype.name}; "
            f"it holds {' or '.join(np.dtype(d).name for d in dtypes)} with {', '.join(map(str, channels))} channels",
            reason="UNSUPPORTED_PIXELS",
        )
    return count


PNG, JPEG = "image/png", "image/jpeg"
_JPEG_QUALITY = 95


def encode_as(pixels: NDArray[Any], media_type: str) -> bytes:
    """Encode pixels ``(H, W, C)`` as `PNG` or `JPEG` (quality 95), for an answer.

    Raises
    ------
    InvalidArgument
        ``PIXELS_NOT_HELD``: the format cannot hold them.
    """
    channels = pixels.shape[2]
    if media_type == JPEG:
        if pixels.dtype != np.uint8 or channels not in (1, 3):
            raise _not_held(pixels, "a JPEG holds 8 bits of one or three channels: ask for image/png")
        return encode_jpeg(pixels, _JPEG_QUALITY)
    if pixels.dtype not in (np.uint8, np.uint16) or channels not in (1, 3, 4):
        raise _not_held(pixels, "a PNG holds 8 or 16 bits of one, three or four channels: work on such images in a dataset")
    return encode_png(pixels)


def _not_held(pixels: NDArray[Any], why: str) -> InvalidArgument:
    return InvalidArgument(
        f"pixels of {pixels.shape[2]} channels of {pixels.dtype.name}: {why}", reason="PIXELS_NOT_HELD", field="item.image"
    )
