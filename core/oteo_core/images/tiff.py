"""TIFF and BigTIFF files: the first page's structure, and its pixels through tifffile.

Only compressions whose decoders are bounded by the size that the page declares are read; segments that are JPEG files of their own are
measured before they are decoded.
"""

from __future__ import annotations

import io
import logging
from typing import Any

import numpy as np
import tifffile
from numpy.typing import NDArray

from oteo_core.images import jpeg, tiff_codecs
from oteo_core.images.header import ImageHeader, Layout, truncated, unreadable, unsupported
from oteo_core.images.limits import ImageLimits
from oteo_core.images.tiff_chain import check_chain

# tifffile logs an error for every odd tag; what is wrong with a file is said once, by the exception.
logging.getLogger("tifffile").setLevel(logging.CRITICAL)

_COMPRESSIONS = frozenset({1, 2, 3, 4, 5, 7, 8, 32773, 32946, 34925, 50000})
_JPEG = 7
_MIN_IS_WHITE, _MIN_IS_BLACK, _RGB, _PALETTE, _CMYK, _YCBCR = 0, 1, 2, 3, 5, 6
_MAX_SEGMENTS = 1_000_000


def layout(data: bytes) -> Layout:
    """Read the structure of the first page of a TIFF file and count its pages.

    Raises
    ------
    InvalidArgument
        UNREADABLE_IMAGE, TRUNCATED_IMAGE or UNSUPPORTED_FORMAT.
    """
    check_chain(data)
    with opened(data) as file:
        page = _page(file, 0)
        defect = _defect(page, len(data))
        return Layout(_header(page, len(file.pages)), _stored(page), defect)


def decode(data: bytes, limits: ImageLimits) -> NDArray[Any]:
    """Decode the first page.

    Returns
    -------
    ndarray
        (H, W, C), dtype uint8, uint16 or float32; as stored, not yet turned upright.

    Raises
    ------
    InvalidArgument
        UNREADABLE_IMAGE, TRUNCATED_IMAGE, IMAGE_TOO_LARGE or UNSUPPORTED_FORMAT.
    """
    with opened(data) as file:
        return read_page(file, 0, data, limits)


def page_pixels(data: bytes, limits: ImageLimits) -> NDArray[Any]:
    """Decode the first page as it is stored: palette indices are not expanded, numbers not rescaled."""
    with opened(data) as file:
        return read_numbers(file, 0, data, limits)


def read_page(file: tifffile.TiffFile, number: int, data: bytes, limits: ImageLimits) -> NDArray[Any]:
    """Decode a page of an open file; as `decode`."""
    page = _sound_page(file, number, data, limits)
    pixels: NDArray[Any] = page.asarray(maxworkers=1)
    if page.axes in ("SYX", "IYX"):
        pixels = np.moveaxis(pixels, 0, -1)
    elif pixels.ndim == 2:
        pixels = pixels[:, :, None]
    return _to_plain(pixels, page)


def read_numbers(file: tifffile.TiffFile, number: int, data: bytes, limits: ImageLimits) -> NDArray[Any]:
    """Decode a page of an open file as it is stored; as `page_pixels`."""
    page = _sound_page(file, number, data, limits)
    pixels: NDArray[Any] = page.asarray(maxworkers=1)
    return np.moveaxis(pixels, 0, -1) if page.axes in ("SYX", "IYX") else pixels


def opened(data: bytes) -> tifffile.TiffFile:
    """Open a file; the caller closes it.

    Raises
    ------
    InvalidArgument
        UNREADABLE_IMAGE.
    """
    try:
        return tifffile.TiffFile(io.BytesIO(data))
    except tifffile.TiffFileError as exc:
        raise unreadable(f"its TIFF header is broken ({exc})") from exc


def _sound_page(file: tifffile.TiffFile, number: int, data: bytes, limits: ImageLimits) -> Any:
    page = _page(file, number)
    if number:
        limits.check(_header(page, 1))
        if defect := _defect(page, len(data)):
            raise truncated(defect)
    _check_segments(page, data, limits)
    tiff_codecs.prepare(page)
    return page


def _page(file: tifffile.TiffFile, number: int) -> Any:
    try:
        page = file.pages.first if number == 0 else file.pages[number]
    except IndexError:
        raise truncated(f"the TIFF has no page {number + 1}: its directory lies beyond the end of the file") from None
    if page.dtype is None:
        raise unsupported(f"TIFF with {page.bitspersample} bits a sample of format {page.sampleformat}")
    if int(page.compression) not in _COMPRESSIONS:
        raise unsupported(f"TIFF with compression {getattr(page.compression, 'name', page.compression)}")
    if page.axes not in ("YX", "YXS", "SYX"):
        raise unsupported(f"TIFF with axes {page.axes} in one page")
    return page


def _header(page: Any, frames: int) -> ImageHeader:
    channels = int(page.samplesperpixel)
    photometric = int(page.photometric)
    if photometric == _PALETTE or (photometric == _CMYK and channels == 4):
        channels = 3
    tag = page.tags.get(274)
    value = getattr(tag, "value", 1)
    orientation = int(value) if isinstance(value, int) and 1 <= value <= 8 else 1
    width, height = int(page.imagewidth), int(page.imagelength)
    if orientation >= 5:
        width, height = height, width
    return ImageHeader("tiff", width, height, channels, _pixel_type(page), max(1, frames), int(page.bitspersample), orientation)


def _pixel_type(page: Any) -> str:
    dtype = np.dtype(page.dtype)
    if int(page.photometric) == _PALETTE or dtype.kind == "b" or dtype == np.uint8:
        return "uint8"
    return "uint16" if dtype == np.uint16 else "float32"


def _stored(page: Any) -> str:
    return {_PALETTE: "palette", _CMYK: "cmyk", _RGB: "rgb", _YCBCR: "rgb"}.get(int(page.photometric), "grey")


def _defect(page: Any, size: int) -> str:
    counts, offsets = page.databytecounts, page.dataoffsets
    if not offsets or len(offsets) != len(counts):
        return "a page of the TIFF has no pixels"
    if len(offsets) > _MAX_SEGMENTS:
        raise unreadable(f"the TIFF declares {len(offsets)} strips")
    furthest = max(offset + count for offset, count in zip(offsets, counts, strict=True))
    return f"the TIFF's pixels reach to byte {furthest}, the file has {size}" if furthest > size else ""


def _check_segments(page: Any, data: bytes, limits: ImageLimits) -> None:
    """Hold every size that a decoder will allocate by against the limits: tiles, and JPEG files inside strips."""
    tile = int(page.tilewidth or 0) * int(page.tilelength or 0)
    if tile > limits.max_pixels:
        limits.check(ImageHeader("tiff", int(page.tilewidth), int(page.tilelength), 1, "uint8"))
    if int(page.compression) == _JPEG:
        for offset, count in zip(page.dataoffsets, page.databytecounts, strict=True):
            if count:
                limits.check(jpeg.layout(data[offset : offset + count]).header)


def _to_plain(pixels: NDArray[Any], page: Any) -> NDArray[Any]:
    photometric = int(page.photometric)
    if photometric == _PALETTE:
        table = np.asarray(page.colormap)
        # Some writers give 8-bit entries where the standard asks for 16 bits.
        table = (table >> 8 if table.max() > 255 else table).astype(np.uint8)
        return np.ascontiguousarray(table[:, pixels[:, :, 0]].transpose(1, 2, 0))
    if pixels.dtype == np.bool_:
        pixels = pixels.astype(np.uint8) * 255
    elif pixels.dtype == np.uint8 and page.bitspersample < 8:
        pixels = (pixels.astype(np.uint16) * 255 // ((1 << page.bitspersample) - 1)).astype(np.uint8)
    elif pixels.dtype not in (np.uint8, np.uint16):
        pixels = pixels.astype(np.float32)
    if photometric == _MIN_IS_WHITE and pixels.dtype != np.float32:
        pixels = np.iinfo(pixels.dtype).max - pixels
    if photometric == _CMYK and pixels.shape[2] == 4 and pixels.dtype in (np.uint8, np.uint16):
        top = float(np.iinfo(pixels.dtype).max)
        ink = pixels.astype(np.float32) / top
        rgb = (1 - ink[:, :, :3]) * (1 - ink[:, :, 3:])
        pixels = np.rint(rgb * top).astype(pixels.dtype)
    return np.ascontiguousarray(pixels)
