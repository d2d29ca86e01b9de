"""Small pictures of samples of any depth, with places marked."""

from __future__ import annotations

import base64
from collections.abc import Sequence
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from oteo_core.images import encode_jpeg

SIDE = 260
"""Longest side, pixels: about twice what the page shows."""
_MARK = (235, 60, 20)


def displayable(pixels: NDArray[Any]) -> NDArray[np.uint8]:
    """Bring (H, W, C) of any type to (H, W, 3) uint8; deep and float images are stretched from their 0.5 % to their 99.5 % quantile."""
    image = pixels[:, :, :3] if pixels.shape[2] >= 3 else np.repeat(pixels[:, :, :1], 3, axis=2)
    if image.dtype == np.uint8:
        return np.ascontiguousarray(image)
    values = np.nan_to_num(image.astype(np.float32))
    low, high = (float(value) for value in np.quantile(values[:: max(1, values.shape[0] // 512)], (0.005, 0.995)))
    scaled: NDArray[np.uint8] = np.clip((values - low) / max(high - low, 1e-9) * 255 + 0.5, 0, 255).astype(np.uint8)
    return scaled


def thumbnail(pixels: NDArray[Any], boxes: Sequence[tuple[float, float, float, float]] = (), side: int = SIDE) -> str:
    """Give (H, W, C) as a JPEG data URI of at most `side` pixels a side, boxes (left, upper, right, lower edge, pixels) drawn in."""
    height, width = pixels.shape[:2]
    scale = min(1.0, side / max(height, width))
    size = (max(1, round(width * scale)), max(1, round(height * scale)))
    small = pixels if scale == 1 else cv2.resize(pixels, size, interpolation=cv2.INTER_AREA).reshape(size[1], size[0], -1)
    image = displayable(small)
    for left, upper, right, lower in boxes:
        # A box of no extent is drawn too: it is what the picture is about.
        corners = [int(np.clip(round(value * scale), -(1 << 14), 1 << 14)) for value in (left - 1, upper - 1, right + 1, lower + 1)]
        cv2.rectangle(image, (corners[0], corners[1]), (corners[2], corners[3]), _MARK, 1)
    return "data:image/jpeg;base64," + base64.b64encode(encode_jpeg(image, 82)).decode()
