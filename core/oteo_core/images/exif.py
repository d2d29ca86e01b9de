"""The orientation tag of EXIF (JEITA CP-3451, tag 0x0112)."""

from __future__ import annotations

import struct

import cv2
import numpy as np
from numpy.typing import NDArray

_TAG = 0x0112


def orientation_of(block: bytes) -> int:
    """Read the orientation from an EXIF block.

    Parameters
    ----------
    block
        A TIFF structure, with or without the "Exif" mark before it.

    Returns
    -------
    int
        1 to 8; 1 where it is absent or broken, as viewers do.
    """
    if block[:6] == b"Exif\0\0":
        block = block[6:]
    order = {b"II": "<", b"MM": ">"}.get(block[:2])
    if order is None or len(block) < 10:
        return 1
    (offset,) = struct.unpack_from(order + "I", block, 4)
    if offset + 2 > len(block):
        return 1
    (count,) = struct.unpack_from(order + "H", block, offset)
    for index in range(min(count, 512)):
        entry = offset + 2 + 12 * index
        if entry + 12 > len(block):
            return 1
        tag, kind = struct.unpack_from(order + "HH", block, entry)
        if tag == _TAG and kind == 3:
            (value,) = struct.unpack_from(order + "H", block, entry + 8)
            return int(value) if 1 <= value <= 8 else 1
    return 1


def upright(pixels: NDArray[np.generic], orientation: int) -> NDArray[np.generic]:
    """Turn pixels (H, W) or (H, W, C) as the orientation asks, so that the picture stands upright."""
    if orientation == 2:
        turned = pixels[:, ::-1]
    elif orientation == 3:
        turned = pixels[::-1, ::-1]
    elif orientation == 4:
        turned = pixels[::-1]
    elif orientation == 5:
        turned = pixels.swapaxes(0, 1)
    elif orientation == 6:
        turned = pixels.swapaxes(0, 1)[:, ::-1]
    elif orientation == 7:
        turned = pixels[::-1, ::-1].swapaxes(0, 1)
    elif orientation == 8:
        turned = pixels.swapaxes(0, 1)[::-1]
    else:
        return pixels
    return np.ascontiguousarray(turned)


# One thread: jobs and services decode many images at once, and threads that fight for two cores are ten times slower.
cv2.setNumThreads(1)
