"""From encoded bytes to pixels, with depth and channels kept."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import cv2
import imagecodecs
import numpy as np
import PIL.Image
from numpy.typing import NDArray

from oteo_core.errors import OteoError
from oteo_core.images import others, tiff
from oteo_core.images.exif import upright
from oteo_core.images.header import ImageHeader, Layout, truncated, unreadable, unsupported
from oteo_core.images.limits import ImageLimits
from oteo_core.images.probing import layout_of

# Sizes are held against ImageLimits before any decoder runs; Pillow's own, lower bar would make a user's higher limit useless.
PIL.Image.MAX_IMAGE_PIXELS = None

_LIMITS = ImageLimits()
# Looked up by name here, because numpy builds a dtype's name anew at every asking.
_DTYPES = {name: np.dtype(name) for name in ("uint8", "uint16", "float32")}


@dataclass(frozen=True, slots=True)
class Image:
    """A decoded image.

    Parameters
    ----------
    pixels
        (H, W, C), dtype uint8, uint16 or float32, C at least 1; colours in the order red, green, blue, alpha.
    header
        What the file said of itself.
    """

    pixels: NDArray[Any]
    header: ImageHeader


def decode(data: bytes, limits: ImageLimits = _LIMITS) -> Image:
    """Decode an image: the first frame, upright, palette expanded, CMYK brought to RGB.

    Parameters
    ----------
    data
        The whole file: PNG, JPEG, TIFF, BMP, GIF, WebP or PNM; the format is told from its bytes.
    limits
        Largest sizes; checked on the header, before any pixel is decoded.

    Raises
    ------
    InvalidArgument
        UNREADABLE_IMAGE, TRUNCATED_IMAGE, IMAGE_TOO_LARGE or UNSUPPORTED_FORMAT.
    """
    return decode_layout(data, layout_of(data), limits)


def decode_layout(data: bytes, layout: Layout, limits: ImageLimits) -> Image:
    """Decode an image whose layout was read already; as `decode`."""
    header = layout.header
    limits.check(header)
    if layout.defect:
        raise truncated(layout.defect)
    pixels = _guarded(lambda: _decoded(data, layout, limits))
    if header.orientation != 1:
        pixels = upright(pixels, header.orientation)
    expected = (header.height, header.width, header.channels)
    if pixels.shape != expected or pixels.dtype != _DTYPES[header.pixel_type]:
        raise unreadable(f"its header declares {expected} {header.pixel_type}, its pixels are {pixels.shape} {pixels.dtype.name}")
    return Image(pixels, header)


def decode_labels(data: bytes, limits: ImageLimits = _LIMITS) -> NDArray[Any]:
    """Decode a label image: numbers as stored, a palette not expanded.

    Returns
    -------
    ndarray
        (H, W) integers for one channel and for palettes, (H, W, C) otherwise.

    Raises
    ------
    InvalidArgument
        As `decode`.
    """
    layout = layout_of(data)
    limits.check(layout.header)
    if layout.defect:
        raise truncated(layout.defect)
    if layout.header.format == "tiff":
        pixels = _guarded(lambda: tiff.page_pixels(data, limits))
        return pixels.astype(np.uint8) if pixels.dtype == np.bool_ else pixels
    if layout.stored.startswith("palette") and layout.header.format in ("png", "gif", "bmp"):
        return _guarded(lambda: others.palette_indices(data, layout.header))
    pixels = decode(data, limits).pixels
    return pixels[:, :, 0] if pixels.shape[2] == 1 else pixels


def _decoded(data: bytes, layout: Layout, limits: ImageLimits) -> NDArray[Any]:
    """Run the decoder that fits."""
    if layout.header.format == "tiff":
        return tiff.decode(data, limits)
    if layout.header.format == "png" and layout.header.frames == 1:
        return _png(data, layout)
    if layout.header.format == "jpeg" and layout.stored != "cmyk":
        return _jpeg(data, layout)
    return others.decode(data, layout.header)


def _guarded(decoder: Callable[[], NDArray[Any]]) -> NDArray[Any]:
    """Run a decoder; whatever it raises becomes one of our errors, since a hostile file may break it anywhere."""
    try:
        return decoder()
    except OteoError:
        raise
    except MemoryError:
        raise
    except Exception as exc:
        raise unreadable(f"{type(exc).__name__}: {exc}") from exc


def _png(data: bytes, layout: Layout) -> NDArray[Any]:
    stored, deep = layout.stored, layout.header.pixel_type == "uint16"
    if stored == "grey":
        flags = cv2.IMREAD_GRAYSCALE | cv2.IMREAD_ANYDEPTH | cv2.IMREAD_IGNORE_ORIENTATION
    elif stored in ("rgb", "palette"):
        flags = cv2.IMREAD_COLOR_RGB | cv2.IMREAD_IGNORE_ORIENTATION | (cv2.IMREAD_ANYDEPTH if deep else 0)
    else:
        flags = cv2.IMREAD_UNCHANGED
    pixels = cv2.imdecode(np.frombuffer(data, np.uint8), flags)
    if pixels is None:
        raise truncated("its pixel stream ends before the last row, or is damaged")
    if stored == "grey":
        return np.asarray(pixels)[:, :, None]
    if flags != cv2.IMREAD_UNCHANGED:
        return np.asarray(pixels)
    if stored == "grey-alpha":  # OpenCV repeats the grey value in three channels
        return np.ascontiguousarray(pixels[:, :, [0, 3]])
    return np.asarray(cv2.cvtColor(pixels, cv2.COLOR_BGRA2RGBA))


def _jpeg(data: bytes, layout: Layout) -> NDArray[Any]:
    if layout.header.bit_depth != 8:
        if layout.header.bit_depth > 16:
            raise unsupported(f"JPEG with {layout.header.bit_depth} bits a sample")
        # Of libjpeg-turbo alone: `jpeg_decode` gives what that refuses to liblj92, which damaged files bring down.
        pixels = np.asarray(imagecodecs.jpeg8_decode(data))
        return pixels[:, :, None] if pixels.ndim == 2 else pixels
    grey = layout.stored == "grey"
    flags = (cv2.IMREAD_GRAYSCALE if grey else cv2.IMREAD_COLOR_RGB) | cv2.IMREAD_IGNORE_ORIENTATION
    decoded = cv2.imdecode(np.frombuffer(data, np.uint8), flags)
    if decoded is None:
        raise unreadable("its JPEG stream is damaged")
    return np.asarray(decoded)[:, :, None] if grey else np.asarray(decoded)
