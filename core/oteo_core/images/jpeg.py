"""The structure of JPEG files (ITU-T T.81): markers, walked without decoding."""

from __future__ import annotations

import struct

from oteo_core.images.exif import orientation_of
from oteo_core.images.header import ImageHeader, Layout, truncated, unreadable

_FRAMES = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}
_STORED = {1: "grey", 3: "rgb", 4: "cmyk"}


def layout(data: bytes) -> Layout:
    """Read the markers of a JPEG file up to its first scan, and look for the end mark behind it.

    Without the end mark the file was cut: decoders fill the rest with grey and say nothing.

    Raises
    ------
    InvalidArgument
        UNREADABLE_IMAGE, or TRUNCATED_IMAGE where the file ends before its frame header.
    """
    position, end = 2, len(data)
    width = height = components = precision = 0
    orientation = 1
    process = -1
    while True:
        if position + 4 > end:
            if process < 0:
                raise truncated("it ends before its frame header")
            return _layout(width, height, components, precision, orientation, "it ends before its first scan")
        if data[position] != 0xFF:
            raise unreadable(f"a JPEG marker was expected at byte {position}")
        marker = data[position + 1]
        if marker == 0xFF:  # fill bytes are allowed before a marker
            position += 1
            continue
        if marker == 0x01 or 0xD0 <= marker <= 0xD8:  # markers without a segment
            position += 2
            continue
        if marker == 0xD9:
            raise unreadable("the JPEG ends before its first scan")
        (length,) = struct.unpack_from(">H", data, position + 2)
        if length < 2:
            raise unreadable(f"the JPEG segment at byte {position} declares {length} bytes")
        start, stop = position + 4, position + 2 + length
        if marker in _FRAMES:
            if start + 6 > end:
                raise truncated("it ends inside its frame header")
            precision, height, width, components = struct.unpack_from(">BHHB", data, start)
            process = marker - 0xC0
        elif marker == 0xE1 and orientation == 1 and data[start : start + 6] == b"Exif\0\0":
            orientation = orientation_of(bytes(data[start:stop]))
        elif marker == 0xDA:
            if process < 0:
                raise unreadable("the JPEG has a scan before its frame header")
            # In a scan 0xFF is always stuffed, so an end mark behind the first scan is one.
            whole = data.rfind(b"\xff\xd9", stop) >= 0
            defect = "" if whole else "the JPEG has no end mark"
            return _layout(width, height, components, precision, orientation, defect)
        position = stop


def _layout(width: int, height: int, components: int, precision: int, orientation: int, defect: str) -> Layout:
    if components not in _STORED:
        raise unreadable(f"the JPEG declares {components} components")
    if orientation >= 5:
        width, height = height, width
    channels = 1 if components == 1 else 3
    pixel_type = "uint8" if precision <= 8 else "uint16"
    return Layout(ImageHeader("jpeg", width, height, channels, pixel_type, 1, precision, orientation), _STORED[components], defect)
