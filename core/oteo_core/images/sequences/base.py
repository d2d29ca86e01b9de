"""What a file of frames says of itself, and a frame."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from numpy.typing import NDArray

from oteo_core.errors import InvalidArgument
from oteo_core.images.header import ImageHeader

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
        "dicom", "nifti", "video", or a still picture's format (a key of `FORMATS`).
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


FrameDecoder = Callable[[], Frame]
"""Decodes one frame. Raises `InvalidArgument` where it cannot; the frames behind it may be whole all the same."""


@dataclass(frozen=True, slots=True)
class Opened:
    """A file that was opened: its header, and its frames, each decoded when it is asked for.

    Parameters
    ----------
    header
        What the file says of itself.
    decoders
        Gives what decodes each frame, one after the other, from the frame of this number (from 0) on. The iterator itself raises
        `InvalidArgument` where the file ends too early, so that no frame behind is there.
    image
        The header of a still picture; None for a file of frames.
    """

    header: SequenceHeader
    decoders: Callable[[int], Iterator[FrameDecoder]]
    image: ImageHeader | None = None

    @property
    def frames(self) -> Iterator[Frame]:
        """All frames; the iterator raises `InvalidArgument` at one that cannot be decoded, and those before it are whole."""
        return (decode() for decode in self.decoders(0))


def too_large(what: str) -> InvalidArgument:
    """Make the error for a file whose frames together are too much."""
    return InvalidArgument(f"the file declares {what}. Cut it into parts, or raise the limit in the settings.", reason="IMAGE_TOO_LARGE")
