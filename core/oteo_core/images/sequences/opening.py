"""Which module reads which file of frames."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, TypeVar

from numpy.typing import NDArray

from oteo_core.errors import InvalidArgument, OteoError
from oteo_core.images.decoding import decode_labels
from oteo_core.images.header import format_of, unreadable
from oteo_core.images.limits import ImageLimits
from oteo_core.images.probing import layout_of
from oteo_core.images.sequences.base import ENDINGS, Opened

_Each = TypeVar("_Each")


def kind_of(data: bytes, name: str = "") -> str:
    """Tell a file's format from its first bytes and, for DICOM without a preamble, from its name.

    Returns
    -------
    str
        "dicom", "nifti", "video", or "" for what is none of them.
    """
    head = bytes(data[:132])
    ending = name.lower()
    if head[128:132] == b"DICM":
        return "dicom"
    if (head[:4] in (b"\x5c\x01\x00\x00", b"\x00\x00\x01\x5c") and data[344:347] in (b"n+1", b"ni1")) or (
        head[:2] == b"\x1f\x8b" and ending.endswith(".nii.gz")
    ):
        return "nifti"
    if head[4:8] == b"ftyp" and head[8:12] not in (b"heic", b"heix", b"mif1", b"avif", b"avis"):
        return "video"
    if (head[:4] == b"RIFF" and head[8:12] == b"AVI ") or head[:4] == b"\x1aE\xdf\xa3" or head[4:8] in (b"moov", b"mdat", b"wide"):
        return "video"
    try:
        format_of(data)
    except InvalidArgument:
        return next((kind for kind, endings in ENDINGS.items() if ending.endswith(endings)), "")
    return ""


def holds_frames(data: bytes, name: str = "") -> bool:
    """Tell whether a file is one for `open_frames`: of a format that holds frames alone, or a picture of several.

    Raises
    ------
    InvalidArgument
        UNREADABLE_IMAGE, TRUNCATED_IMAGE or UNSUPPORTED_FORMAT.
    """
    return bool(kind_of(data, name)) or layout_of(data).header.frames > 1


def open_frames(data: bytes, limits: ImageLimits, name: str = "") -> Opened:
    """Open a file of frames.

    Parameters
    ----------
    data
        The whole file.
    limits
        Largest frame, and most frames.
    name
        The file's name.

    Raises
    ------
    InvalidArgument
        UNREADABLE_IMAGE, TRUNCATED_IMAGE, IMAGE_TOO_LARGE or UNSUPPORTED_FORMAT.
    """
    kind = kind_of(data, name)
    opened = _open(kind, data, limits)
    return Opened(opened.header, _guarded(opened.frames))


def open_labels(data: bytes, limits: ImageLimits, name: str = "") -> Iterator[NDArray[Any]]:
    """Give the label images of a file, frame by frame: (H, W) numbers as stored, (H, W, C) where there are more channels.

    Raises
    ------
    InvalidArgument
        As `open_frames`; UNSUPPORTED_FORMAT for video, whose compression changes numbers.
    """
    kind = kind_of(data, name)
    if kind == "video":
        raise InvalidArgument("a mask in a video is not exact: give it as a TIFF stack or NIfTI volume", reason="UNSUPPORTED_FORMAT")
    if not kind:
        layout = layout_of(data)
        if layout.header.format != "tiff" or layout.header.frames == 1:
            return iter([decode_labels(data, limits)])
        from oteo_core.images.sequences import stacks

        return _guarded(stacks.labels(data, limits))
    frames = _guarded(_open(kind, data, limits).frames)
    return (frame.pixels[:, :, 0] if frame.pixels.shape[2] == 1 else frame.pixels for frame in frames)


def _open(kind: str, data: bytes, limits: ImageLimits) -> Opened:
    # Each of them loads libraries of its own: only who meets such a file pays for them.
    try:
        if kind == "dicom":
            from oteo_core.images.sequences import dicom

            return dicom.open_dicom(data, limits)
        if kind == "nifti":
            from oteo_core.images.sequences import nifti

            return nifti.open_nifti(data, limits)
        if kind == "video":
            from oteo_core.images.sequences import video

            return video.open_video(data, limits)
        from oteo_core.images.sequences import stacks

        return stacks.open_stack(data, limits)
    except (OteoError, MemoryError):
        raise
    except Exception as exc:  # a hostile header may break a parser anywhere
        raise unreadable(f"{type(exc).__name__}: {exc}") from exc


def _guarded(frames: Iterator[_Each]) -> Iterator[_Each]:
    try:
        yield from frames
    except (OteoError, MemoryError, GeneratorExit):
        raise
    except Exception as exc:  # a hostile frame may break a decoder anywhere
        raise unreadable(f"{type(exc).__name__}: {exc}") from exc
