"""Small pictures of images of any depth, for a page."""

from __future__ import annotations

import base64
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from oteo_core.images import encode_jpeg

SIDE = 300
"""Longest side, pixels: twice what the page shows, for sharp prints."""


def displayable(pixels: NDArray[Any]) -> NDArray[np.uint8]:
    """Bring an image to 8 bits and one or three channels.

    Parameters
    ----------
    pixels
        ``(H, W, C)``, any numeric type. Eight bits stay as they are; deeper images are stretched from their 0.5 % to their 99.5 %
        quantile, as a viewer's automatic window does; float32 within 0 to 1 is taken as it is.

    Returns
    -------
    ndarray
        ``(H, W, 1)`` or ``(H, W, 3)`` uint8; of two channels the first, of four and more the first three.
    """
    image = pixels if pixels.ndim == 3 else pixels[:, :, None]
    image = image[:, :, :3] if image.shape[2] >= 3 else image[:, :, :1]
    if image.dtype == np.uint8:
        return image
    values = image.astype(np.float32)
    low, high = 0.0, 1.0
    if image.dtype.kind != "f" or values.min() < 0 or values.max() > 1:
        low, high = (float(value) for value in np.quantile(values, (0.005, 0.995)))
    scaled: NDArray[np.uint8] = np.clip((values - low) / max(high - low, 1e-6) * 255 + 0.5, 0, 255).astype(np.uint8)
    return scaled


def thumbnail(pixels: NDArray[Any], side: int = SIDE) -> str:
    """Give an image ``(H, W, C)`` as a JPEG data URI of at most `side` pixels a side; small ones are not enlarged."""
    image = displayable(pixels)
    scale = side / max(image.shape[:2])
    if scale < 1:
        size = (max(1, round(image.shape[1] * scale)), max(1, round(image.shape[0] * scale)))
        image = np.asarray(cv2.resize(image, size, interpolation=cv2.INTER_AREA), dtype=np.uint8).reshape(size[1], size[0], -1)
    return "data:image/jpeg;base64," + base64.b64encode(encode_jpeg(np.ascontiguousarray(image), 85)).decode()
