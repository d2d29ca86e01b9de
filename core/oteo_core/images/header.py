"""What an image file says of itself, read without decoding any pixel."""

from __future__ import annotations

from dataclasses import dataclass

from oteo_core.errors import InvalidArgument

FORMATS: dict[str, tuple[str, ...]] = {
    "png": (".png", ".apng"),
    "jpeg": (".jpg", ".jpeg", ".jpe", ".jfif"),
    "tiff": (".tif", ".tiff", ".ome.tif", ".ome.tiff"),
    "bmp": (".bmp", ".dib"),
    "gif": (".gif",),
    "webp": (".webp",),
    "pnm": (".pgm", ".ppm", ".pnm", ".pbm"),
}
"""Formats that are read, with the endings that their files usually have."""

_FOREIGN: tuple[tuple[int, bytes, str], ...] = (
    (128, b"DICM", "DICOM"),
    (4, b"ftypheic", "HEIC"),
    (4, b"ftypavif", "AVIF"),
    (4, b"jP  ", "JPEG 2000"),
    (0, b"\xff\x4f\xff\x51", "JPEG 2000"),
    (0, b"%PDF", "PDF"),
    (0, b"PK\x03\x04", "zip"),
    (0, b"\x89HDF", "HDF5"),
    (0, b"\x93NUMPY", "NumPy"),
    (0, b"SIMPLE  =", "FITS"),
    (0, b"<svg", "SVG"),
)


@dataclass(frozen=True, slots=True)
class ImageHeader:
    """What an image is, as it will be once decoded.

    Parameters
    ----------
    format
        A key of `FORMATS`.
    width, height
        Pixels, after the EXIF orientation is applied.
    channels
        Channels of the decoded pixels: a palette counts as 3 (4 with transparency), CMYK as 3, grey with alpha as 2.
    pixel_type
        "uint8", "uint16" or "float32": the dtype of the decoded pixels.
    frames
        Frames or pages in the file; 1 for a still image.
    bit_depth
        Bits of a stored sample.
    orientation
        EXIF orientation, 1 to 8; 1 is upright.
    """

    format: str
    width: int
    height: int
    channels: int
    pixel_type: str
    frames: int = 1
    bit_depth: int = 8
    orientation: int = 1

    @property
    def stored_size(self) -> tuple[int, int]:
        """Width and height in pixels as they are stored, before the EXIF orientation is applied."""
        return (self.width, self.height) if self.orientation < 5 else (self.height, self.width)


@dataclass(frozen=True, slots=True)
class Layout:
    """A header with what the decoder needs besides.

    Parameters
    ----------
    header
        The header.
    stored
        How samples are stored: "grey", "grey-alpha", "rgb", "rgba", "palette", "palette-alpha", "cmyk" or "other".
    defect
        Why the file cannot be whole, or "" where its structure is complete.
    """

    header: ImageHeader
    stored: str
    defect: str = ""


def unreadable(what: str) -> InvalidArgument:
    """Make the error for a file that cannot be understood."""
    return InvalidArgument(f"the image cannot be read: {what}", reason="UNREADABLE_IMAGE")


def truncated(what: str) -> InvalidArgument:
    """Make the error for a file that ends too early."""
    return InvalidArgument(f"the image file is not complete: {what}. Copy it again from where it came from.", reason="TRUNCATED_IMAGE")


def unsupported(what: str) -> InvalidArgument:
    """Make the error for a format or a variety of one that is not read."""
    return InvalidArgument(f"{what} is not read; PNG, JPEG, TIFF, BMP, GIF, WebP and PNM are", reason="UNSUPPORTED_FORMAT")


def format_of(data: bytes) -> str:
    """Tell a file's format from its first bytes.

    Raises
    ------
    InvalidArgument
        UNREADABLE_IMAGE for an empty file or one that begins like no image, UNSUPPORTED_FORMAT for a known format that is not read.
    """
    head = bytes(data[:144])
    if not head:
        raise unreadable("the file is empty")
    if head.startswith(b"\x89PNG\r\n\x1a\n"):
        return "png"
    if head.startswith(b"\xff\xd8\xff"):
        return "jpeg"
    if head[:4] in (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+"):
        return "tiff"
    if head.startswith(b"BM"):
        return "bmp"
    if head[:6] in (b"GIF87a", b"GIF89a"):
        return "gif"
    if head[:4] == b"RIFF" and head[8:12] == b"WEBP":
        return "webp"
    if len(head) > 2 and head[:1] == b"P" and head[1:2] in b"123456" and head[2:3] in b" \t\r\n#":
        return "pnm"
    for offset, magic, name in _FOREIGN:
        if head[offset : offset + len(magic)] == magic:
            raise unsupported(name)
    raise unreadable("it does not begin like any image format")
