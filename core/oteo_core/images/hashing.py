"""Numbers that tell whether two images are the same, or look the same."""

from __future__ import annotations

import hashlib
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from oteo_core.images.grey import grey_of

_SIDE = 32
_LOW = 8
# The 8 lowest rows of the orthonormal DCT-II of 32 points: a fortieth of the work of a whole transform.
_BASIS: NDArray[np.float32] = (
    np.cos(np.pi / _SIDE * np.arange(_LOW)[:, None] * (np.arange(_SIDE) + 0.5))
    * np.where(np.arange(_LOW)[:, None], (2 / _SIDE) ** 0.5, _SIDE**-0.5)
).astype(np.float32)


def perceptual_hash(pixels: NDArray[Any]) -> int:
    """Hash what an image looks like: the signs of its lowest spatial frequencies.

    Grey values are brought to 32 x 32 by area means, a discrete cosine transform is taken, and each of the 8 x 8 lowest coefficients
    gives a bit: is it over their median? After Zauner, "Implementation and Benchmarking of Perceptual Image Hash Functions" (2010),
    section 3.2.1. Images that differ by scale, compression or brightness differ in few bits; mirrored or turned ones in many.

    Parameters
    ----------
    pixels
        (H, W, C) of any dtype that `decode` gives.

    Returns
    -------
    int
        0 to 2**64 - 1; compare by Hamming distance.
    """
    # Shrunk first, so that the weighting of colours touches 1024 pixels only; both steps are linear, so the order is free.
    small = cv2.resize(pixels, (_SIDE, _SIDE), interpolation=cv2.INTER_AREA)
    grey = (small if small.ndim == 2 else grey_of(small)).astype(np.float32)
    low = (_BASIS @ grey @ _BASIS.T).ravel()
    # The first coefficient is the mean brightness: it says nothing of the form, and is far from the median.
    # 63 values are left: their median is the 32nd, which costs a tenth of numpy's general function.
    ordered = low[1:].copy()
    ordered.sort()
    middle = ordered[31]
    return int.from_bytes(np.packbits(low > middle, bitorder="little").tobytes(), "little")


def pixel_digest(pixels: NDArray[Any]) -> str:
    """Give the SHA-256 (hexadecimal) of shape, dtype and pixels: equal for the same picture in PNG, TIFF or with other metadata."""
    digest = hashlib.sha256(f"{pixels.shape}{pixels.dtype.str}".encode())
    digest.update(np.ascontiguousarray(pixels).data)
    return digest.hexdigest()
