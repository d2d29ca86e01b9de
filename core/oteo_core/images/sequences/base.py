"""What a file of frames says of itself, and a frame."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from numpy.typing import NDArray

from oteo_core.errors import InvalidArgument

ENDINGS: dict[str, tuple[str, ...]] = {
    "dicom": (".dcm", ".dicom", ".ima"),
    "nifti": (".nii", ".nii.gz"),
    "video": (".mp4", ".avi", ".mov", ".mkv", ".m4v", ".webm"),
}
"""Formats that hold frames alone, with the endings that their files usually have; TIFF, GIF, PNG and WebP may hold one or several."""


@dataclass(frozen=True, slots=True)
class SequenceHeader:
    """What a file of frames is.

    Parameters
    ----------
    format
        "tiff", "gif", "webp", "png", "dicom", "nifti" or "video".
    kind
        "image" for a single picture, "stack" for slices, "video" for frames in time.
    frames
        How many it declares; 0 where only decoding tells.
    spacing
        Distance of pixels in millimetres: x, y and, where the file says it, z; () where it says nothing.
    series
        The DICOM series that it is a part of, as its header has it; "" for all else. An identifier: keep it nowhere.
    patient
        Who it shows, as a DICOM header has it; "" for all else. An identifier: keep it nowhere.
    position
        Where a slice lies along the normal of its plane, millimetres, or its number in the series; None where nothing says so.
    notes
        Code and sentence of what somebody should look at.
    """

    format: str
    kind: str
    frames: int
    spacing: tuple[float, ...] = ()
    series: str = ""
    patient: str = ""
    position: float | None = None
    notes: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True, slots=True)
class Frame:
    """A frame: `pixels` (H, W, C) of uint8, uint16 or float32, and the bits that its file declares a sample to have (0: not known)."""

    pixels: NDArray[Any]
    bit_depth: int = 0


@dataclass(frozen=True, slots=True)
class Opened:
    """A file of frames: its header, and its frames, each decoded when it is asked for.

    The iterator raises `InvalidArgument` at a frame that cannot be decoded; those before it are whole.
    """

    header: SequenceHeader
    frames: Iterator[Frame]


def too_large(what: str) -> InvalidArgument:
    """Make the error for a file whose frames together are too much."""
    return InvalidArgument(f"the file declares {what}. Cut it into parts, or raise the limit in the settings.", reason="IMAGE_TOO_LARGE")
