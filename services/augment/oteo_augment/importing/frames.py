"""Files of several frames, brought to a file for each: what was compressed or packed together can then be read, moved and drawn one by one.

A frame's file holds its pixels and nothing else: no header of the file that it came from.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from oteo_augment.importing.scanned import Scanned
from oteo_augment.importing.targets import ScanPlan
from oteo_core.datasets.media_files import media_file
from oteo_core.datasets.staging import Target
from oteo_core.deidentification.burned_in import BURNED_IN_TEXT, found_text
from oteo_core.errors import InvalidArgument
from oteo_core.images import ImageLimits, decode_labels, perceptual_hash, pixel_digest, significant_bits
from oteo_core.images.probing import probe
from oteo_core.images.sequences import Frame, Opened, open_labels
from oteo_core.keyed import keyed_hash

_MOST_VALUES = 4096
_LOOKED_AT = 8
"""Frames of a file in which text is looked for, spread over all."""
_Fill = Callable[..., None]


def scan_frames(plan: ScanPlan, target: Target, row: Scanned, opened: Opened, check: Callable[[], None] | None) -> list[Scanned]:
    """Decode an opened file's frames one after the other and write each; fill in the first one's row, and give the rows of the others.

    A frame that cannot be decoded ends the file: those before it stay, and the first row's note says so.

    Raises
    ------
    InvalidArgument
        Why not even the first frame can be used.
    """
    header = opened.header
    row.media_kind, row.spacing, row.position = header.kind, header.spacing, header.position
    row.series, row.patient = (keyed_hash(plan.secret, word) for word in (header.series, header.patient))
    for code, words in header.notes:
        if code == BURNED_IN_TEXT:
            row.suspicion = words
        else:
            row.note_code, row.note = code, words
    looked = _looked_at(row, opened) if header.format == "dicom" else opened.frames
    return _each(row, (partial(_fill_image, frame=frame) for frame in looked), target, check)


def _looked_at(row: Scanned, opened: Opened) -> Iterator[Frame]:
    """Give the frames, and look for text in some of them on the way."""
    step = max(1, opened.header.frames // _LOOKED_AT)
    for number, frame in enumerate(opened.frames):
        if number % step == 0 and (found := found_text(frame.pixels)):
            row.suspicion = found
        yield frame


def scan_masks(plan: ScanPlan, target: Target, row: Scanned, data: bytes, check: Callable[[], None] | None) -> list[Scanned]:
    """Do with a file of masks what `scan_frames` does with a file of images."""
    masks = open_labels(data, plan.limits, row.path)
    return _each(row, (partial(store_mask, numbers=numbers) for numbers in masks), target, check)


def _each(row: Scanned, fillers: Iterator[_Fill], target: Target, check: Callable[[], None] | None) -> list[Scanned]:
    rows = [row]
    count = 0
    try:
        for count, fill in enumerate(fillers, 1):
            if check is not None:
                check()
            if count > 1:
                rows.append(Scanned(row.path, row.kind, media_kind=row.media_kind, spacing=row.spacing, frame=count - 1))
            fill(rows[-1], target=target)
    except InvalidArgument as exc:
        if not count:
            raise
        row.note_code, row.note = "BROKEN_FRAME", f"frame {count + 1} cannot be used: {exc.message} The {count} before it are kept."
    for each in rows:
        each.frames = len(rows)
        if len(rows) == 1:
            each.media_kind = "image"
        each.series, each.patient, each.position = row.series, row.patient, row.position
        # What a device writes into one frame it writes into all.
        each.dicom, each.suspicion = row.dicom, row.suspicion
    return rows[1:]


def _fill_image(row: Scanned, frame: Frame, target: Target) -> None:
    pixels = frame.pixels
    row.height, row.width, row.channels = pixels.shape
    row.dtype, row.bit_depth = pixels.dtype.name, significant_bits(pixels, frame.bit_depth)
    row.pixel_digest, row.phash = pixel_digest(pixels), perceptual_hash(pixels)
    _store(row, pixels, target)


def store_mask(row: Scanned, numbers: NDArray[Any], target: Target) -> None:
    """Fill in what a mask (H, W) is, and write it as a file of 8 or 16 bits.

    Raises
    ------
    InvalidArgument
        MASK_NOT_GREY, MASK_NOT_INTEGER, MASK_NOT_LABELS.
    """
    plain = _measure_mask(row, numbers)
    top = int(plain.max(initial=0))
    if plain.min(initial=0) < 0 or top > 65535:
        raise InvalidArgument(f"the mask holds numbers from {int(plain.min())} to {top}; 0 to 65535 are read", reason="MASK_NOT_LABELS")
    _store(row, plain.astype(np.uint8 if top < 256 else np.uint16)[:, :, None], target)


def _store(row: Scanned, pixels: NDArray[Any], target: Target) -> None:
    row.media, encoded, row.sha256 = media_file(pixels)
    row.size = len(encoded)
    target.write(row.media, encoded)


def look_at_mask(row: Scanned, data: bytes, limits: ImageLimits) -> int:
    """Measure a mask of one frame and give 1; give the number of frames where there are several.

    Raises
    ------
    InvalidArgument
        MASK_NOT_GREY, MASK_NOT_INTEGER, MASK_NOT_LABELS, and what decoding raises.
    """
    frames = probe(data).frames
    if frames == 1:
        _measure_mask(row, decode_labels(data, limits))
    return frames


def _measure_mask(row: Scanned, pixels: NDArray[Any]) -> NDArray[Any]:
    """Fill in what a mask is; give its numbers (H, W)."""
    row.height, row.width = pixels.shape[:2]
    row.channels = 1 if pixels.ndim == 2 else pixels.shape[2]
    row.dtype = pixels.dtype.name
    row.frames = 1
    if pixels.ndim == 3:
        # Grey saved as colour is common: equal channels are one.
        if not (pixels[:, :, :1] == pixels[:, :, : min(3, pixels.shape[2])]).all():
            raise InvalidArgument(
                "the mask is in colour; a mask holds one number for each pixel, or a labelmap.txt or class_dict.csv says what each colour is",
                reason="MASK_NOT_GREY",
            )
        pixels = pixels[:, :, 0]
    if pixels.dtype.kind == "f":
        if not (pixels == np.rint(pixels)).all():
            raise InvalidArgument("the mask holds fractions; a mask holds one whole number for each pixel", reason="MASK_NOT_INTEGER")
        pixels = pixels.astype(np.int64)
    values, counts = np.unique(pixels, return_counts=True)
    if len(values) > _MOST_VALUES:
        raise InvalidArgument(
            f"the mask holds {len(values)} different numbers: it looks like a picture, not like labels", reason="MASK_NOT_LABELS"
        )
    row.values, row.counts = tuple(int(v) for v in values), tuple(int(c) for c in counts)
    return pixels
