"""From pixels to PNG and JPEG bytes."""

from __future__ import annotations

from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from oteo_core.errors import InvalidArgument


def encode_png(pixels: NDArray[Any], level: int = 3) -> bytes:
    """Encode as PNG, without loss.

    Parameters
    ----------
    pixels
        (H, W) or (H, W, C), uint8 or uint16, C one of 1, 3, 4; colours in the order red, green, blue, alpha.
    level
        Effort of the compression, 0 to 9.

    Raises
    ------
    InvalidArgument
        UNSUPPORTED_PIXELS for another shape or dtype.
    """
    return _encode(".png", pixels, (np.uint8, np.uint16), (1, 3, 4), [cv2.IMWRITE_PNG_COMPRESSION, level])


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
    return _encode(".jpg", pixels, (np.uint8,), (1, 3), [cv2.IMWRITE_JPEG_QUALITY, quality])


def _encode(
    ending: str, pixels: NDArray[Any], dtypes: tuple[type[np.generic], ...], channels: tuple[int, ...], options: list[int]
) -> bytes:
    count = 1 if pixels.ndim == 2 else pixels.shape[2] if pixels.ndim == 3 else 0
    if pixels.dtype not in dtypes or count not in channels or 0 in pixels.shape:
        raise InvalidArgument(
            f"{ending[1:]} cannot hold pixels of shape {pixels.shape} and type {pixels.dtype.name}; "
            f"it holds {' or '.join(np.dtype(d).name for d in dtypes)} with {', '.join(map(str, channels))} channels",
            reason="UNSUPPORTED_PIXELS",
        )
    if count == 3:
        pixels = cv2.cvtColor(np.ascontiguousarray(pixels), cv2.COLOR_RGB2BGR)
    elif count == 4:
        pixels = cv2.cvtColor(np.ascontiguousarray(pixels), cv2.COLOR_RGBA2BGRA)
    _, data = cv2.imencode(ending, np.ascontiguousarray(pixels), options)
    return bytes(data)
