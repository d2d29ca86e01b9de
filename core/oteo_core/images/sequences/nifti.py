"""NIfTI-1 and NIfTI-2 volumes (nifti.nimh.nih.gov), slice by slice."""

from __future__ import annotations

import math
import zlib
from collections.abc import Iterator
from functools import partial
from typing import Any

import nibabel
import numpy as np
from numpy.typing import NDArray

from oteo_core.images.header import ImageHeader, truncated, unreadable, unsupported
from oteo_core.images.limits import ImageLimits
from oteo_core.images.sequences.base import Frame, FrameDecoder, Opened, SequenceHeader, too_large

_HEAD = 544


def open_nifti(data: bytes, limits: ImageLimits) -> Opened:
    """Open a volume; its frames are the planes of the third axis, those of later axes one volume after the other.

    Rows are the second axis and columns the first, both in the order in which they are stored: nothing is turned or mirrored. Values are scaled as
    the header says. Whole numbers from 0 that fit stay uint8 or uint16, all else becomes float32.
    """
    packed = data[:2] == b"\x1f\x8b"
    head = _unpacked(data, _HEAD) if packed else data[:_HEAD]
    image_class: Any = nibabel.nifti2.Nifti2Image if head[:4] in (b"\x1c\x02\x00\x00", b"\x00\x00\x02\x1c") else nibabel.nifti1.Nifti1Image
    header = image_class.header_class(head[: image_class.header_class.sizeof_hdr], check=False)
    shape = tuple(int(size) for size in header.get_data_shape())
    if len(shape) < 2 or min(shape) < 1:
        raise unreadable(f"its NIfTI header declares a volume of {shape}")
    dtype = header.get_data_dtype()
    frames = math.prod(shape[2:])
    limits.check(ImageHeader("nifti", shape[0], shape[1], 3 if dtype.fields else 1, "float32", frames))
    size = math.prod(shape) * dtype.itemsize + int(header.get_data_offset())
    if size > limits.max_unpacked:
        raise too_large(f"{size} bytes of pixels; the limit is {limits.max_unpacked}")
    whole = _unpacked(data, size) if packed else data
    if len(whole) < size:
        raise truncated(f"its header declares {size} bytes, it has {len(whole)}")
    if dtype.kind == "c":
        raise unsupported("NIfTI of complex numbers")
    # A plane is read, and scaled, when it is asked for.
    volume = image_class.from_bytes(whole).dataobj
    zooms = [float(zoom) for zoom in header.get_zooms()[:3]]
    spacing = tuple(zooms) if len(zooms) >= 2 and min(zooms) > 0 else ()
    planes = _Planes(volume, shape, frames)
    return Opened(SequenceHeader("nifti", "stack" if frames > 1 else "image", frames, spacing), planes.decoders)


class _Planes:
    """The planes of a volume, those of the third axis first."""

    def __init__(self, volume: Any, shape: tuple[int, ...], count: int) -> None:
        self._volume = volume
        self._shape = shape
        self._count = count
        self._dtype: Any = None

    def decoders(self, start: int) -> Iterator[FrameDecoder]:
        if self._dtype is None:
            self._dtype = self._conversion()
        for index in range(start, self._count):
            yield partial(self._frame, index)

    def _plane(self, index: int) -> NDArray[Any]:
        if len(self._shape) == 2:
            return np.asarray(self._volume)
        return np.asarray(self._volume[(slice(None), slice(None), *np.unravel_index(index, self._shape[2:], order="F"))])

    def _frame(self, index: int) -> Frame:
        plane = self._plane(index).T
        colours = (plane.dtype.names or ())[:3]
        pixels = np.stack([plane[name] for name in colours], axis=2) if colours else plane[:, :, None]
        return Frame(np.ascontiguousarray(pixels, dtype=self._dtype))

    def _conversion(self) -> Any:
        """Choose one dtype for all planes."""
        dtype = self._plane(0).dtype
        if dtype.fields or dtype == np.uint8 or dtype.kind == "b":
            return np.uint8
        if dtype.kind not in "ui":
            return np.float32
        planes = (self._plane(index) for index in range(self._count))
        return np.uint16 if all(int(plane.min()) >= 0 and int(plane.max()) < 1 << 16 for plane in planes) else np.float32


def _unpacked(data: bytes, size: int) -> bytes:
    """Unpack no more than so many bytes of a gzip file."""
    try:
        return zlib.decompressobj(wbits=31).decompress(data, size)
    except zlib.error as exc:
        raise unreadable(f"its gzip stream is damaged ({exc})") from exc
