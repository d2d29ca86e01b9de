"""TIFF files of several pages, and animated GIF, WebP and PNG files."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from typing import Any

import numpy as np
import PIL.Image
import tifffile
from numpy.typing import NDArray

from oteo_core.images import others, tiff, tiff_spacing
from oteo_core.images.header import ImageHeader, truncated
from oteo_core.images.limits import ImageLimits
from oteo_core.images.probing import layout_of
from oteo_core.images.sequences.base import Frame, FrameDecoder, Opened, SequenceHeader


def open_stack(data: bytes, limits: ImageLimits) -> Opened:
    """Open a picture file of several pages or frames.

    Pages that are channels by the file's own word (axis C of OME or ImageJ) become channels of one frame. Reduced copies, and pages of another
    size than the first, are left aside with a note.
    """
    layout = layout_of(data)
    limits.check(layout.header)
    if layout.defect:
        raise truncated(layout.defect)
    if layout.header.format != "tiff":
        return Opened(
            SequenceHeader(layout.header.format, "video", layout.header.frames), lambda start: _animated(data, layout.header, start)
        )
    pages, kind, notes = _plan(data)
    header = layout.header
    limits.check(
        ImageHeader("tiff", header.width, header.height, header.channels * len(pages[0]), header.pixel_type, len(pages), header.bit_depth)
    )
    found = SequenceHeader("tiff", kind if len(pages) > 1 else "image", len(pages), tiff_spacing.spacing(data), notes=notes)
    return Opened(found, lambda start: _pages(data, pages[start:], limits))


def labels(data: bytes, limits: ImageLimits) -> Iterator[NDArray[Any]]:
    """Give each page's numbers as they are stored."""
    pages = _plan(data)[0]
    with tiff.opened(data) as file:
        for page, *_ in pages:
            yield tiff.read_numbers(file, page, data, limits)


def _plan(data: bytes) -> tuple[list[list[int]], str, tuple[tuple[str, str], ...]]:
    """Give the pages of each frame, the kind, and notes."""
    with tiff.opened(data) as file:
        first = file.pages[0]
        series = file.series[0]
        lead = series.axes[: len(series.axes) - len(first.axes)]
        shape = series.shape[: len(lead)]
        if "C" in lead and len(series.pages) == int(np.prod(shape)) and all(page is not None for page in series.pages):
            numbers = np.array([page.index for page in series.pages]).reshape(shape)
            frames = np.moveaxis(numbers, lead.index("C"), -1).reshape(-1, shape[lead.index("C")]).tolist()
            return frames, "video" if "T" in lead and "Z" not in lead else "stack", ()
        same: list[int] = []
        odd: list[int] = []
        for index, page in enumerate(file.pages):
            reduced = bool(getattr(page, "is_reduced", False))
            (odd if reduced or (page.shape, page.dtype) != (first.shape, first.dtype) else same).append(index)
        notes: tuple[tuple[str, str], ...] = ()
        if odd:
            shown = ", ".join(str(index + 1) for index in odd[:8])
            notes = (
                (
                    "ODD_PAGES",
                    f"{len(odd)} of {len(same) + len(odd)} pages ({shown}) are smaller copies or of another size or type than the first; they are left aside",
                ),
            )
        return [[index] for index in same], "video" if lead == "T" else "stack", notes


def _pages(data: bytes, pages: list[list[int]], limits: ImageLimits) -> Iterator[FrameDecoder]:
    with tiff.opened(data) as file:
        for group in pages:
            yield partial(_page, file, group, data, limits)


def _page(file: tifffile.TiffFile, group: list[int], data: bytes, limits: ImageLimits) -> Frame:
    parts = [tiff.read_page(file, page, data, limits) for page in group]
    return Frame(np.ascontiguousarray(parts[0] if len(parts) == 1 else np.concatenate(parts, axis=2)))


def _animated(data: bytes, header: ImageHeader, start: int) -> Iterator[FrameDecoder]:
    with others.open_sized(data, header) as image:
        for index in range(start, getattr(image, "n_frames", 1)):
            yield partial(_moment, image, index, header)


def _moment(image: PIL.Image.Image, index: int, header: ImageHeader) -> Frame:
    image.seek(index)
    others.check_size(image, header)
    return Frame(np.ascontiguousarray(np.asarray(image.convert("RGBA" if image.mode == "RGBA" else "RGB"))))
