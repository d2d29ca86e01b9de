"""From augmented pixels to a file that keeps every bit of them."""

from __future__ import annotations

import hashlib
import io
from typing import Any

import numpy as np
import tifffile
from numpy.typing import NDArray

from oteo_core.datasets import media_path
from oteo_core.images import encode_png

_PNG_CHANNELS = (1, 3, 4)


def encode_lossless(pixels: NDArray[Any]) -> tuple[str, bytes]:
    """Encode as PNG where PNG can hold the pixels, else as TIFF.

    Parameters
    ----------
    pixels
        (H, W, C), uint8, uint16 or float32.

    Returns
    -------
    tuple
        The file's ending, ".png" or ".tif", and its bytes; the same for the same pixels.
    """
    if pixels.dtype in (np.uint8, np.uint16) and pixels.shape[2] in _PNG_CHANNELS:
        return ".png", encode_png(pixels)
    stream = io.BytesIO()
    flat = np.ascontiguousarray(pixels[:, :, 0] if pixels.shape[2] == 1 else pixels)
    # All channels are measurements: no more than the first is a colour that a viewer should show.
    options: dict[str, Any] = {} if flat.ndim == 2 else {"planarconfig": "contig", "extrasamples": ["unspecified"] * (flat.shape[2] - 1)}
    tifffile.imwrite(stream, flat, photometric="minisblack", compression="zlib", metadata=None, software=False, **options)
    return ".tif", stream.getvalue()


def media_file(pixels: NDArray[Any]) -> tuple[str, bytes, str]:
    """Give path, bytes and SHA-256 of a media file that keeps every bit of pixels, or label numbers, (H, W, C)."""
    ending, encoded = encode_lossless(pixels)
    digest = hashlib.sha256(encoded).hexdigest()
    return media_path(digest, f"made{ending}"), encoded, digest
