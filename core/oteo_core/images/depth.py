"""How many bits pixels fill: a 12-bit detector's images lie in 16-bit files, and are nearly black to whoever takes 65535 for white."""

from __future__ import annotations

from functools import cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

DEPTHS = (8, 10, 12, 14, 16)
"""Bits that detectors fill; an image's own largest value is brought to the next of them."""
FULL = 16


def significant_bits(pixels: NDArray[Any], declared: int = 0) -> int:
    """Tell how many bits an image's pixels fill.

    Parameters
    ----------
    pixels
        Any shape, uint8, uint16 or float32.
    declared
        Bits that the file says a sample has (DICOM's Bits Stored, a JPEG's precision); 0 or 16 where it says nothing of use.

    Returns
    -------
    int
        8 for uint8; for uint16 what the file declares, else the smallest of `DEPTHS` that holds the largest value; 0 for float32, whose
        range no number of bits tells.
    """
    if pixels.dtype == np.uint8:
        return 8
    if pixels.dtype != np.uint16:
        return 0
    highest = int(pixels.max(initial=0))
    if 0 < declared < FULL and highest < 1 << declared:
        return declared
    return next(bits for bits in DEPTHS if highest < 1 << bits)


def white(dtype_name: str, bit_depth: int = 0) -> float:
    """Give the value that stands for white: 255 for uint8, 1 for float32, for uint16 the largest of `bit_depth` bits (0: all 16)."""
    if dtype_name == "uint16":
        return float((1 << (bit_depth or FULL)) - 1)
    return 255.0 if dtype_name == "uint8" else 1.0


def filled(pixels: NDArray[Any], bit_depth: int) -> NDArray[np.uint16]:
    """Stretch pixels of fewer bits over all 16, black to black and white to white; `emptied` gives them back, every value as it was.

    Parameters
    ----------
    pixels
        uint16, any shape, values below ``2**bit_depth``.
    bit_depth
        1 to 15.
    """
    return np.asarray(_stretched(bit_depth)[pixels], np.uint16)


def emptied(pixels: NDArray[Any], bit_depth: int) -> NDArray[np.uint16]:
    """Bring pixels over all 16 bits (uint16, any shape) to the nearest values of `bit_depth` bits, 1 to 15."""
    return np.asarray(_shrunk(bit_depth)[pixels], np.uint16)


@cache
def _stretched(bit_depth: int) -> NDArray[np.uint16]:
    top = (1 << bit_depth) - 1
    return np.asarray(np.rint(np.arange(top + 1) * (65535.0 / top)), np.uint16)


@cache
def _shrunk(bit_depth: int) -> NDArray[np.uint16]:
    top = (1 << bit_depth) - 1
    return np.asarray(np.rint(np.arange(65536) * (top / 65535.0)), np.uint16)
