"""Grey values of any pixels, for what compares images."""

from __future__ import annotations

from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray


def grey_of(pixels: NDArray[Any]) -> NDArray[Any]:
    """Give luminance (ITU-R BT.601) of colour, the channel itself of grey, the mean of any other number of channels.

    Parameters
    ----------
    pixels
        (H, W, C), uint8, uint16 or float32. Alpha is left aside.

    Returns
    -------
    ndarray
        (H, W) of the same dtype (float32 for a mean).
    """
    channels = pixels.shape[2]
    if channels <= 2:
        return np.ascontiguousarray(pixels[:, :, 0])
    if channels == 3:
        return np.asarray(cv2.cvtColor(pixels, cv2.COLOR_RGB2GRAY))
    if channels == 4:
        return np.asarray(cv2.cvtColor(pixels, cv2.COLOR_RGBA2GRAY))
    return np.asarray(pixels.mean(axis=2, dtype=np.float32))
