"""Which module reads which file of frames."""

from __future__ import annotations

import zlib
from collections.abc import Iterator
from typing import Any, TypeVar

from numpy.typing import NDArray

from oteo_core.errors import InvalidArgument, OteoError
from oteo_core.images import tiff_spacing
from oteo_core.images.decoding import decode_labels, decode_layout
from oteo_core.images.header import format_of, unreadable
from oteo_core.images.limits import ImageLimits
from oteo_core.images.probing import layout_of
from oteo_core.images.sequences.base import ENDINGS, Frame, FrameDecoder, Opened, SequenceHeader
from oteo_core.images.sequences.dicom_structure import begins_like_dicom

_Each = TypeVar("_Each")


def kind_of(data: bytes, name: str = "") -> str:
    """Tell a file's format from its first bytes and, where they say nothing, from its name.

    Returns
    -------
    str
        "dicom", "nifti", "video", or "" for what is none of them.
    """
    head = bytes(data[:132])
    ending = name.lower()
    if head[128:132] == b"DICM":
        return "dicom"
    if _volume(data) or (head[:2] == b"\x1f\x8b" and (ending.endswith(".nii.gz") or _volume(_unpacked_head(data)))):
        return "nifti"
    if head[4:8] == b"ftyp" and head[8:12] not in (b"heic", b"heix", b"mif1", b"avif", b"avis"):
        return "video"
    if (head[:4] == b"RIFF" and head[8:12] == b"AVI ") or head[:4] == b"\x1aE\xdf\xa3" or head[4:8] in (b"moov", b"mdat", b"wide"):
        return "video"
    try:
        format_of(data)
    except InvalidArgument:
        named = next((kind for kind, endings in ENDINGS.items() if ending.endswith(endings)), "")
        return named or ("dicom" if begins_like_dicom(head) else "")
    return ""


def _volume(head: bytes) -> bool:
    return (head[:4] in (b"\x5c\x01\x00\x00", b"\x00\x00\x01\x5c") and head[344:347] in (b"n+1", b"ni1")) or (
        head[:4] in (b"\x1c\x02\x00\x00", b"\x00\x00\x02\x1c") and head[4:7] in (b"n+2", b"ni2")
    )


def _unpacked_head(data: bytes) -> bytes:
    try:
        return zlib.decompressobj(wbits=31).decompress(data[:4096], 348)
    except zlib.error:
        return b""


def open_image(data: bytes, limits: ImageLimits, name: str = "") -> Opened:
    """Open any file that is read, still or of frames: the one way in which an import and a prediction come to pixels.

    Parameters
    ----------
    data
        The whole file.
    limits
        Largest frame, and most frames.
    name
        The file's name, where it has one: DICOM without its mark and gzipped NIfTI may be known by it alone.

    Returns
    -------
    Opened
        With `image` for a still picture, whose one frame is what `decode` gives of it.

    Raises
    ------
    InvalidArgument
        UNREADABLE_IMAGE, TRUNCATED_IMAGE, IMAGE_TOO_LARGE or UNSUPPORTED_FORMAT.
    """
    kind = kind_of(data, name)
    if kind:
        return _opened(kind, data, limits)
    layout = layout_of(data)
    if layout.header.frames > 1:
        return _opened("", data, limits)

    def decode() -> Frame:
        return Frame(decode_layout(data, layout, limits).pixels, layout.header.bit_depth)

    limits.check(layout.header)
    spacing = tiff_spacing.spacing(data) if layout.header.format == "tiff" else ()
    return Opened(SequenceHeader(layout.header.format, "image", 1, spacing), lambda start: iter([decode][start:]), layout.header)


def open_frames(data: bytes, limits: ImageLimits, name: str = "") -> Opened:
    """Open a file of frames; parameters and errors as of `open_image`."""
    return _opened(kind_of(data, name), data, limits)


def _opened(kind: str, data: bytes, limits: ImageLimits) -> Opened:
    opened = _open(kind, data, limits)
    return Opened(opened.header, lambda start: (_guarded_decoder(decode) for decode in _guarded(opened.decoders(start))))


def _guarded_decoder(decode: FrameDecoder) -> FrameDecoder:
    def guarded() -> Frame:
        return next(_guarded(decode() for _ in (None,)))

    return guarded


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
    frames = _opened(kind, data, limits).frames
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
