"""The picture itself: parts of it painted over (Clean Pixel Data, PS3.15 E.3.1), and what lies behind its last pixel cut off."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydicom.dataset import Dataset
from pydicom.pixels import pixel_array
from pydicom.pixels.utils import get_expected_length

from oteo_core.deidentification.options import Rectangle
from oteo_core.errors import InvalidArgument
from oteo_core.images.sequences import dicom_codecs

_DEPTHS = (8, 16, 32)


def cut_padding(dataset: Dataset) -> None:
    """Cut off what native pixel data hold behind the last pixel: room in which anything may stand."""
    if "PixelData" not in dataset or dataset.file_meta.TransferSyntaxUID.is_compressed:
        return
    try:
        expected = int(get_expected_length(dataset))
    except (AttributeError, TypeError, ValueError):
        return  # a header that does not tell its pixels' size: nothing reads them either
    expected += expected % 2
    if expected < len(dataset.PixelData):
        dataset.PixelData = dataset.PixelData[:expected]


def has_picture(dataset: Dataset) -> bool:
    """Tell whether an object has pixels of whole numbers, which is what can be painted over."""
    return "PixelData" in dataset and "Rows" in dataset and "Columns" in dataset


def stored_frames(dataset: Dataset) -> NDArray[Any]:
    """Give all frames, decompressed: (N, H, W) or (N, H, W, 3), as stored or, for colours, as RGB.

    Raises
    ------
    InvalidArgument
        UNREADABLE_IMAGE: the pixels cannot be decoded.
    """
    dicom_codecs.register()
    try:
        pixels: NDArray[Any] = pixel_array(dataset)
    except Exception as exc:  # noqa: BLE001 - a hostile header may break the decoder anywhere, and its words may cite the header
        raise InvalidArgument(f"its pixels cannot be decoded ({type(exc).__name__})", reason="UNREADABLE_IMAGE") from None
    single = 2 if int(dataset.get("SamplesPerPixel") or 1) == 1 else 3
    return pixels[None] if pixels.ndim == single else pixels


def paint_over(dataset: Dataset, rectangles: Sequence[Rectangle]) -> None:
    """Blacken rectangles in all frames; compressed pixels become native ones.

    Raises
    ------
    InvalidArgument
        UNREADABLE_IMAGE; UNSUPPORTED_FORMAT for pixels of other than 8, 16 or 32 bits.
    """
    if not rectangles:
        return
    if int(dataset.get("BitsAllocated") or 0) not in _DEPTHS:
        raise InvalidArgument("only pixels of 8, 16 or 32 bits can be painted over", reason="UNSUPPORTED_FORMAT")
    syntax = dataset.file_meta.TransferSyntaxUID
    dicom_codecs.register()
    try:
        if syntax.is_compressed:
            dataset.decompress(generate_instance_uid=False)
    except Exception as exc:  # noqa: BLE001 - as above
        raise InvalidArgument(f"its pixels cannot be decompressed ({type(exc).__name__})", reason="UNREADABLE_IMAGE") from None
    rows, columns = int(dataset.Rows), int(dataset.Columns)
    samples = int(dataset.get("SamplesPerPixel") or 1)
    planar = samples > 1 and int(dataset.get("PlanarConfiguration") or 0) == 1
    if samples > 1 and str(dataset.get("PhotometricInterpretation")) not in ("RGB", "YBR_FULL"):
        raise InvalidArgument("native pixels of subsampled colours cannot be painted over", reason="UNSUPPORTED_FORMAT")
    order = ">" if dataset.file_meta.TransferSyntaxUID.is_little_endian is False else "<"
    sign = "i" if int(dataset.get("PixelRepresentation") or 0) else "u"
    values = np.frombuffer(dataset.PixelData, f"{order}{sign}{int(dataset.BitsAllocated) // 8}").copy()
    frames = len(values) // (rows * columns * samples)
    shape = (frames, samples, rows, columns) if planar else (frames, rows, columns, samples)
    pixels = values[: frames * rows * columns * samples].reshape(shape)
    if not planar:
        pixels = pixels.transpose(0, 3, 1, 2)
    dark: Any = pixels.max(initial=0) if dataset.get("PhotometricInterpretation") == "MONOCHROME1" else pixels.min()
    neutral = str(dataset.get("PhotometricInterpretation")) == "YBR_FULL"
    for part in rectangles:
        area = pixels[:, :, max(0, part.y) : part.y + part.height, max(0, part.x) : part.x + part.width]
        area[...] = 0 if samples > 1 else dark
        if neutral:
            area[:, 1:] = 128
    dataset.PixelData = values.tobytes() + b"\0" * (values.nbytes % 2)
