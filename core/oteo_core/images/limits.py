"""How large an image may be, checked on what its header declares."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from oteo_core.errors import InvalidArgument

if TYPE_CHECKING:
    from oteo_core.images.header import ImageHeader

_BYTES_PER_SAMPLE = {"uint8": 1, "uint16": 2, "float32": 4}


@dataclass(frozen=True, slots=True)
class ImageLimits:
    """Largest sizes of a decoded image.

    Parameters
    ----------
    max_bytes
        Bytes of the decoded pixels of one frame.
    max_pixels
        Width times height of one frame.
    max_side
        Width or height, pixels. OpenCV refuses sides of more than 2**20 itself.
    max_channels
        Channels of one frame.
    max_frames
        Frames or pages of one file.
    max_nesting
        DICOM sequences within each other.
    max_elements
        Data elements of a DICOM header, those in sequences too.
    max_unpacked
        Bytes that a file packed as a whole (gzip, deflated DICOM) may become.
    """

    max_bytes: int = 512 * 1024 * 1024
    max_pixels: int = 100_000_000
    max_side: int = 1_000_000
    max_channels: int = 512
    max_frames: int = 100_000
    max_nesting: int = 32
    max_elements: int = 500_000
    max_unpacked: int = 8 << 30

    def check(self, header: ImageHeader) -> None:
        """Refuse an image whose header declares more than these limits.

        Raises
        ------
        InvalidArgument
            IMAGE_TOO_LARGE, saying what was declared and what the limit is.
        """
        pixels = header.width * header.height
        size = pixels * header.channels * _BYTES_PER_SAMPLE.get(header.pixel_type, 4)
        if pixels > self.max_pixels:
            raise too_large(f"{header.width} x {header.height} pixels; the limit is {self.max_pixels} pixels")
        if max(header.width, header.height) > self.max_side:
            raise too_large(f"{header.width} x {header.height} pixels; no side may have more than {self.max_side}")
        if header.channels > self.max_channels:
            raise too_large(f"{header.channels} channels; the limit is {self.max_channels}")
        if size > self.max_bytes:
            raise too_large(f"{size} bytes once decoded; the limit is {self.max_bytes} bytes")
        if header.frames > self.max_frames:
            raise too_large(f"{header.frames} frames; the limit is {self.max_frames}")


def too_large(what: str) -> InvalidArgument:
    """Make the error for an image that declares more than is allowed."""
    return InvalidArgument(f"the image declares {what}. Make it smaller, or raise the limit in the settings.", reason="IMAGE_TOO_LARGE")
